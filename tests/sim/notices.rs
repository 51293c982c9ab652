//! What people outside are told: once for each thing that happened, whenever the operator dies.

use std::sync::Arc;
use std::time::Duration;

use akash_redis::api::notifications::NotificationKind;
use akash_redis::store::{Event, Leadership as _, Notices as _, Objects as _};

use crate::lifecycle::THREE;
use crate::world::World;
use crate::world::node::Node;

/// The target of these tests.
const TARGET: &str = "somebody";

fn world(seed: u64) -> Arc<World> {
    let world = World::new(seed, 5);
    world.store.tell(Arc::new(|event: &Event| {
        NotificationKind::of_word(&event.reason).map(|_| TARGET.to_owned()).into_iter().collect()
    }));
    world
}

/// Everything that waits, by kind; the operator is gone.
async fn told(world: &World) -> Vec<(NotificationKind, String)> {
    world.kill_operator().await;
    let store = world.store.as_another_operator();
    store.take_over().await.unwrap();
    let mut told = Vec::new();
    while let Some(notice) = store.next_notice(TARGET).await.unwrap() {
        store.drop_notice(notice.number).await.unwrap();
        let kind = NotificationKind::of_word(&notice.event.reason).unwrap();
        told.push((kind, notice.event.message));
    }
    told
}

fn count(told: &[(NotificationKind, String)], kind: NotificationKind) -> usize {
    told.iter().filter(|(told, _)| *told == kind).count()
}

#[tokio::test(start_paused = true)]
async fn a_life_is_told_in_few_words() {
    use NotificationKind as K;
    let world = world(41);
    world.start_operator().await;
    world.apply(THREE).await;
    world.until_ready("cache").await;
    let master = world.master("cache").await;
    world.nodes.with(&master, |node| node.powered = false);
    world
        .until("another master", Duration::from_mins(5), async || {
            let now = world.stored("cache").await.cluster.status.and_then(|s| s.master);
            now.is_some_and(|now| now.incarnation != master.0)
        })
        .await;
    world
        .until("the node to be replaced", Duration::from_mins(30), async || {
            !world.stored("cache").await.record.incarnations.contains_key(&master)
        })
        .await;
    world.until_ready("cache").await;
    // It has to be well for a while before that is told.
    tokio::time::sleep(Duration::from_mins(6)).await;
    world.store.mark_deleted("cache").await.unwrap();
    world.until_gone("cache").await;
    let told = told(&world).await;
    for (kind, times) in
        [(K::Failover, 1), (K::NodeLost, 1), (K::Recovered, 1), (K::Deleted, 1), (K::DataLost, 0)]
    {
        assert_eq!(count(&told, kind), times, "{kind}: {told:#?}");
    }
    assert!(count(&told, K::Degraded) >= 1, "{told:#?}");
    let mut words: Vec<_> = told.iter().map(|(_, message)| message).collect();
    words.sort();
    words.dedup();
    assert_eq!(words.len(), told.len(), "something is told twice: {told:#?}");
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_dies_all_the_time_tells_a_failover_once() {
    for seed in 42..46 {
        let world = world(seed);
        world.start_operator().await;
        world.apply(THREE).await;
        world.until_ready("cache").await;
        let before = world.written();
        world.until("writes", Duration::from_mins(1), async || world.written() > before + 20).await;
        let master = world.master("cache").await;
        world.nodes.with(&master, Node::kill_redis);
        // Each time a moment later, so that it dies in every part of the change.
        let mut life = 150 + seed;
        while world.stored("cache").await.record.last_failover.is_none() {
            tokio::time::sleep(Duration::from_millis(life)).await;
            world.kill_operator().await;
            world.start_operator().await;
            life += 130;
        }
        world.until_ready("cache").await;
        let told = told(&world).await;
        assert_eq!(count(&told, NotificationKind::Failover), 1, "seed {seed}: {told:#?}");
    }
}
