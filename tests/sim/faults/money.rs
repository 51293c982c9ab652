//! Too little money: nothing is created that cannot be paid, and the sentence says what to do.

use std::time::Duration;

use akash_redis::model::money::Uact;

use super::{comes_up_and_goes, condition, goes, running, told};
use crate::lifecycle::THREE;
use crate::world::many::{in_many_worlds, setting};
use crate::world::{Terms, World};

#[tokio::test(start_paused = true)]
async fn deposits_above_the_wallet() {
    // Three deposits of 0.5act are more than 1.4act.
    let world = World::on(Terms { wallet: Uact(1_400_000), ..Terms::new(110, 4) });
    world.start_operator().await;
    world.apply(&THREE.replace("maxPerMonth: 30act", "maxPerMonth: 30act, deposit: 1act")).await;
    let words =
        ["holds 1.4act", "3 nodes need 3act", "nothing was created", "lower budget.deposit"];
    told(&world, "cache", "Funded", "False", &words).await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(world.chain.creates(), 0, "something was created that the wallet cannot pay");
    assert!(world.stored("cache").await.record.incarnations.is_empty());
    // Two nodes with the least deposit can be paid.
    world
        .edit("cache", |c| {
            c.spec.budget.deposit = Some("0.5act".parse().unwrap());
            c.spec.nodes = 2;
        })
        .await;
    comes_up_and_goes(&world, "cache").await;
}

#[tokio::test(start_paused = true)]
async fn two_clusters_share_a_budget_for_one() {
    // The dearest three of four providers ask 15uact a block: 6.5act a month.
    let world = World::on(Terms { budget_global: Uact(8_000_000), ..Terms::new(111, 6) });
    world.start_operator().await;
    world.apply(THREE).await;
    world.until_ready("cache").await;
    let other = THREE.replace("name: cache", "name: other");
    world.apply(&other).await;
    // What is left of the budget is less than anybody asks.
    told(&world, "other", "Degraded", "True", &["budget.maxPerMonth"]).await;
    tokio::time::sleep(Duration::from_mins(6)).await;
    assert!(!world.ready("other").await);
    assert!(world.ready("cache").await, "the other cluster's wish hurt the first");
    assert!(
        world.rate_per_month() <= 8_000_000,
        "{} a month were promised",
        world.rate_per_month()
    );
    goes(&world, "cache").await;
    comes_up_and_goes(&world, "other").await;
}

#[tokio::test(start_paused = true)]
async fn a_scale_that_the_budget_does_not_allow() {
    let world = running(Terms::new(112, 8)).await;
    // Three nodes cost 3 + 4 + 5 uact a block, 5.184act a month; the next one would ask 6, 2.6act a
    // month.
    world
        .edit("cache", |c| {
            c.spec.budget.max_per_month = Some("5.5act".parse().unwrap());
            c.spec.nodes = 5;
        })
        .await;
    told(&world, "cache", "Degraded", "True", &["budget.maxPerMonth"]).await;
    tokio::time::sleep(Duration::from_mins(6)).await;
    assert!(
        world.rate_per_month() <= 5_500_000,
        "{} a month were promised",
        world.rate_per_month()
    );
    let ready = condition(&world, "cache", "Ready").await;
    assert!(ready.message.contains("5 nodes wanted"), "{ready:?}");
    let written = world.written();
    world.until("writes", Duration::from_mins(1), async || world.written() > written + 20).await;
    world.edit("cache", |c| c.spec.budget.max_per_month = Some("40act".parse().unwrap())).await;
    comes_up_and_goes(&world, "cache").await;
}

/// Nodes whose deposit lasts for 20 minutes live for half an hour, whatever call the operator dies at.
/// Each is filled for 20 to 27 minutes at a time: once or twice, and once more where a transaction
/// expired with the operator.
#[test]
fn escrows_are_filled_before_they_run_dry() {
    let stride = setting("SIM_STRIDE", 9);
    in_many_worlds(0..=18, stride, async |call| {
        let world =
            World::on(Terms { budget_global: Uact(20_000_000_000), ..Terms::new(8000 + call, 4) });
        world.chain.every_provider(|p| p.price = 5_000);
        let watcher = world.restart_after_crashes();
        world.start_operator().await;
        let budget = "maxPerMonth: 9000act, deposit: 1act, runway: { low: 10m, target: 30m }";
        world.apply(&THREE.replace("maxPerMonth: 30act", budget)).await;
        world.until_ready("cache").await;
        tokio::time::sleep(Duration::from_mins(9)).await;
        if call > 0 {
            world.fuse.set(call);
        }
        tokio::time::sleep(Duration::from_mins(34)).await;
        let kept = |line: &&String| line.contains(" keep pay ") && line.ends_with(": Ok(())");
        let deposits = world.fuse.trace.lines().iter().filter(kept).count();
        assert!((3..=7).contains(&deposits), "call {call}: {deposits} top-ups of three nodes");
        assert_eq!(world.chain.creates(), 3, "a node was lost");
        world.until_ready("cache").await;
        goes(&world, "cache").await;
        world.assert_nothing_left();
        watcher.abort();
    });
}
