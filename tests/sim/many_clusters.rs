//! Promise 7 for several clusters: what one pass reserves for one of them is no other's, and what
//! is not ours is left alone.

use std::collections::BTreeSet;
use std::time::Duration;

use akash_redis::model::money::Uact;

use crate::lifecycle::THREE;
use crate::world::chain::WHOLE_CHAIN;
use crate::world::store::ALL_OBJECTS;
use crate::world::{TICK, Terms, World};

#[tokio::test(start_paused = true)]
async fn clusters_planned_in_one_pass_do_not_share_deployments() {
    let world = World::new(9014, 6);
    world.apply(THREE).await;
    world.apply(&THREE.replace("name: cache", "name: other")).await;
    world.start_operator().await;
    for name in ["cache", "other"] {
        world.until_ready(name).await;
    }
    // One outage hits both.
    for name in ["cache", "other"] {
        let record = world.stored(name).await.record;
        let (lost, _) = record
            .incarnations
            .iter()
            .find(|(n, _)| record.master.as_ref().is_some_and(|p| &p.incarnation != *n))
            .unwrap();
        world.chain.close_lease(record.incarnations[lost].dseq);
    }
    tokio::time::sleep(Duration::from_mins(10)).await;
    let dseqs = async |name: &str| {
        world
            .stored(name)
            .await
            .record
            .incarnations
            .values()
            .map(|i| i.dseq)
            .collect::<BTreeSet<_>>()
    };
    assert!(dseqs("cache").await.is_disjoint(&dseqs("other").await));
    for name in ["cache", "other"] {
        world.until_ready(name).await;
    }
    assert_eq!((world.chain.active_deployments().len(), world.witness.broken()), (6, vec![]));
}

#[tokio::test(start_paused = true)]
async fn the_global_budget_holds_for_clusters_planned_in_one_pass() {
    let world = World::on(Terms { budget_global: Uact(8_000_000), ..Terms::new(9007, 6) });
    world.apply(THREE).await;
    world.apply(&THREE.replace("name: cache", "name: other")).await;
    world.start_operator().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut promised = 0;
    for name in ["cache", "other"] {
        promised += world
            .stored(name)
            .await
            .record
            .incarnations
            .values()
            .map(|i| i.max_price.per_month(6000).0)
            .sum::<u64>();
    }
    assert!(promised <= 8_000_000, "{promised}uact a month were reserved in one pass");
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert!(
        world.rate_per_month() <= 8_000_000,
        "{}uact a month are leased",
        world.rate_per_month()
    );
}

/// All objects are read once, at the start, and the whole chain by the clock alone, however much
/// happens to one of the clusters.
#[tokio::test(start_paused = true)]
async fn what_happens_to_one_cluster_does_not_have_all_of_them_read() {
    let world = World::new(9051, 8);
    world.apply(THREE).await;
    world.apply(&THREE.replace("name: cache", "name: other")).await;
    world.start_operator().await;
    let began = world.clock.now();
    for name in ["cache", "other"] {
        world.until_ready(name).await;
    }
    world.apply(&THREE.replace("nodes: 3", "nodes: 5")).await;
    world.until_ready("cache").await;
    world.delete("cache").await;
    world.until_gone("cache").await;

    let elapsed = world.clock.now().since(began);
    let count = |what: &str| world.fuse.trace.lines().iter().filter(|l| l.ends_with(what)).count();
    assert_eq!(count(ALL_OBJECTS), 1);
    let ticks = usize::try_from(elapsed.as_millis() / TICK.as_millis()).unwrap() + 1;
    assert!((2..=ticks).contains(&count(WHOLE_CHAIN)), "{} in {ticks}", count(WHOLE_CHAIN));
    world.until_ready("other").await;
}
