//! An endpoint that is behind or lies, fees that are spent, gateways that take their time.

use std::collections::BTreeSet;
use std::time::Duration;

use akash_redis::api::conditions::Reason;
use akash_redis::api::events::EventReason;
use akash_redis::model::money::Uact;
use akash_redis::store::{Events as _, Objects as _};

use super::{comes_up_and_goes, condition, goes, live, running, told, waits_for};
use crate::lifecycle::THREE;
use crate::world::chain::BLOCKS_A_MONTH;
use crate::world::{Terms, World};

#[tokio::test(start_paused = true)]
async fn a_deletion_read_from_an_endpoint_that_is_behind_leaks_nothing() {
    let world = World::new(500, 5);
    let before = world.chain.snapshot();
    world.start_operator().await;
    world.apply(THREE).await;
    world.until_ready("cache").await;
    world.kill_operator().await;
    // The operator starts anew, and the endpoint that answers stopped following the chain some time
    // ago.
    world.chain.stick(Some(before));
    world.start_operator().await;
    world.delete("cache").await;
    waits_for(&world, "cache", "which cannot be believed yet").await;
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert!(world.store.get("cache").await.is_ok(), "it was forgotten while its leases are paid");
    told(&world, "cache", "Degraded", "True", &["to be cleaned up", "the endpoint is behind"])
        .await;
    world.chain.stick(None);
    world.until_gone("cache").await;
    world.assert_nothing_left();
}

/// The same for an endpoint that is behind by less than anybody would call old.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_a_minute_behind_is_not_believed_about_what_is_younger() {
    let world = World::new(501, 5);
    world.start_operator().await;
    let before = world.chain.snapshot();
    world.apply(THREE).await;
    world
        .until("three orders", Duration::from_mins(1), async || {
            world.chain.active_deployments().len() == 3
        })
        .await;
    world.kill_operator().await;
    world.chain.stick(Some(before));
    world.start_operator().await;
    world.delete("cache").await;
    // Its newest block is fresh all the time: it follows, a minute late.
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(30)).await;
        let now = world.chain.snapshot();
        tokio::time::sleep(Duration::from_secs(30)).await;
        world.chain.stick(Some(now));
    }
    world.until_gone("cache").await;
    world.assert_nothing_left();
}

/// What was never created is forgotten by and by, and not at once.
#[tokio::test(start_paused = true)]
async fn a_deployment_that_was_never_made_is_forgotten() {
    let world = World::new(502, 5);
    world.chain.fault(|f| f.fees_spent = true);
    world.start_operator().await;
    world.apply(THREE).await;
    told(&world, "cache", "Degraded", "True", &["chain.maxFeePerDay", "in a row"]).await;
    assert_eq!(world.chain.creates(), 0);
    goes(&world, "cache").await;
    world.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn fees_that_are_spent_are_told_and_nothing_else_is_hurt() {
    let world = running(Terms::new(503, 5)).await;
    world.chain.fault(|f| f.fees_spent = true);
    let replica = live(&world).await.remove(1);
    super::migrate(&world, &replica).await;
    told(&world, "cache", "Degraded", "True", &["chain.maxFeePerDay", "in a row"]).await;
    assert_eq!(condition(&world, "cache", "Degraded").await.reason, Reason::EffectFailing);
    let written = world.written();
    world.until("writes", Duration::from_mins(1), async || world.written() > written + 20).await;
    world.chain.fault(|f| f.fees_spent = false);
    world
        .until("the move", Duration::from_mins(20), async || !live(&world).await.contains(&replica))
        .await;
    comes_up_and_goes(&world, "cache").await;
}

/// Whatever an endpoint says of the time between blocks: no order is for more than the budget.
#[tokio::test(start_paused = true)]
async fn a_block_time_that_is_a_lie_buys_nothing_above_the_budget() {
    for block_ms in [0, 1, 6_000, 54_000, u64::MAX] {
        let world = World::new(504, 5);
        world.chain.fault(|f| f.block_ms = Some(block_ms));
        world.apply(&THREE.replace("30act", "12act")).await;
        world.start_operator().await;
        world
            .until("orders", Duration::from_mins(1), async || {
                !world.stored("cache").await.record.incarnations.is_empty()
            })
            .await;
        let record = world.stored("cache").await.record;
        let promised: u128 = record
            .incarnations
            .values()
            .map(|i| i.max_price.0 * BLOCKS_A_MONTH / 1_000_000_000_000_000_000)
            .sum();
        assert!(
            promised <= u128::from(Uact(12_000_000).0),
            "{block_ms} ms a block: orders for {promised}uact a month"
        );
        world.kill_operator().await;
    }
}

/// A gateway takes the manifest, and nothing is deployed there for half a minute.
#[tokio::test(start_paused = true)]
async fn a_manifest_that_was_taken_is_not_sent_all_the_time() {
    let world = World::new(505, 5);
    *world.gateway.slowness.lock().unwrap() = Duration::from_secs(35);
    world.start_operator().await;
    world.apply(THREE).await;
    world.until_ready("cache").await;
    let puts = world.gateway.puts.lock().unwrap().clone();
    // At once, after 10 s and after 30 s.
    assert!(puts.len() == 3 && puts.values().all(|n| (2..=4).contains(n)), "{puts:?}");
    goes(&world, "cache").await;
    world.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_never_starts_what_it_took_is_given_up() {
    let world = World::new(506, 8);
    *world.gateway.slowness.lock().unwrap() = Duration::from_hours(1);
    world.start_operator().await;
    world.apply(THREE).await;
    waits_for(&world, "cache", "to start what it took").await;
    let given_up = async || {
        world
            .store
            .events("cache")
            .await
            .unwrap()
            .iter()
            .any(|e| e.reason == EventReason::NodeCondemned.to_string())
    };
    world.until("giving up", Duration::from_mins(7), given_up).await;
    let puts = world.gateway.puts.lock().unwrap().clone();
    assert!(puts.values().all(|n| (2..=9).contains(n)), "in five minutes: {puts:?}");
    *world.gateway.slowness.lock().unwrap() = Duration::ZERO;
    comes_up_and_goes(&world, "cache").await;
    assert_eq!(world.chain.active_deployments(), BTreeSet::new());
}
