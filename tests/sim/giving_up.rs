//! Who is given up: one node at a time, the others whole, the last copy never. One rule for every
//! reason.

use std::time::Duration;

use akash_redis::api::conditions::{ConditionStatus, ConditionType, Reason};
use akash_redis::model::ids::IncarnationName;

use crate::candidates::{others, running_with};
use crate::lifecycle::THREE;
use crate::world::World;

async fn condemned(world: &World) -> Vec<IncarnationName> {
    let record = world.stored("cache").await.record;
    record.incarnations.into_iter().filter(|(_, i)| i.condemned.is_some()).map(|(n, _)| n).collect()
}

/// One replica is being replaced; the other, the only one in sync, falls silent.
#[tokio::test(start_paused = true)]
async fn the_only_replica_in_sync_is_not_given_up_for_silence() {
    let world = running_with(9040, THREE, 3).await;
    let master = world.master("cache").await;
    let replicas = others(&world, &master).await;
    // Nobody else bids, so that its place stays empty.
    let dseq = world.stored("cache").await.record.incarnations[&replicas[0]].dseq;
    world.chain.every_provider(|p| p.silent = true);
    world.chain.close_lease(dseq);
    tokio::time::sleep(Duration::from_mins(2)).await;
    world.nodes.with(&replicas[1], |n| n.powered = false);
    tokio::time::sleep(Duration::from_mins(20)).await;
    assert!(
        !condemned(&world).await.contains(&replicas[1]),
        "the last copy beside the master was destroyed"
    );
    let waiting = world.stored("cache").await.cluster.status.unwrap().waiting;
    assert!(waiting.iter().any(|w| w.what.contains(&replicas[1].0)), "{waiting:?}");
    world.chain.every_provider(|p| p.silent = false);
    world.nodes.with(&replicas[1], |n| n.powered = true);
    world.until_ready("cache").await;
}

/// Two providers vanish for good: one after the other is replaced.
#[tokio::test(start_paused = true)]
async fn two_nodes_that_are_gone_are_replaced_one_after_the_other() {
    let world = running_with(9041, THREE, 7).await;
    let master = world.master("cache").await;
    let replicas = others(&world, &master).await;
    for replica in &replicas {
        world.nodes.with(replica, |n| n.powered = false);
    }
    world
        .until("the first to be given up", Duration::from_mins(20), async || {
            let gone = condemned(&world).await;
            assert!(gone.len() <= 1, "{gone:?} were given up together");
            !gone.is_empty()
        })
        .await;
    world.until_ready("cache").await;
    let record = world.stored("cache").await.record;
    assert!(replicas.iter().all(|r| !record.incarnations.contains_key(r)));
    world.assert_one_writer();
}

/// A redis that ends with an error whenever it is started is told, and its node is replaced.
#[tokio::test(start_paused = true)]
async fn a_redis_that_cannot_start_is_told_and_replaced() {
    let world = running_with(9042, THREE, 6).await;
    let master = world.master("cache").await;
    let replica = others(&world, &master).await[0].clone();
    world.nodes.with(&replica, |n| {
        n.broken = true;
        n.kill_redis();
    });
    let told = async || {
        let status = world.stored("cache").await.cluster.status.unwrap();
        status.conditions.iter().any(|c| {
            c.kind == ConditionType::Degraded
                && c.reason == Reason::RedisDown
                && c.message.contains("akash-redis logs cache")
        })
    };
    world.until("the status to say so", Duration::from_mins(2), told).await;
    let replaced = async || !world.stored("cache").await.record.incarnations.contains_key(&replica);
    world
        .until("a replacement", Duration::from_mins(20), async || {
            replaced().await && world.ready("cache").await
        })
        .await;
    assert_eq!(world.chain.active_deployments().len(), 3);
}

/// Nowhere does it start, from the beginning: each attempt ends in a refund, with growing pauses.
#[tokio::test(start_paused = true)]
async fn nodes_whose_redis_never_starts_are_not_paid_for_without_end() {
    let world = World::new(9043, 6);
    world.start_operator().await;
    world.apply(THREE).await;
    let begin = world.clock.now();
    while world.clock.now().since(begin) < Duration::from_hours(1) {
        for node in world.nodes.state.lock().unwrap().nodes.values_mut().filter(|n| !n.broken) {
            node.broken = true;
            node.kill_redis();
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let tries = world.chain.creates();
    assert!((6..=30).contains(&tries), "{tries} deployments in an hour");
    let status = world.stored("cache").await.cluster.status.unwrap();
    assert!(
        status
            .conditions
            .iter()
            .any(|c| c.kind == ConditionType::Degraded && c.status == ConditionStatus::True),
        "{:?}",
        status.conditions
    );
}
