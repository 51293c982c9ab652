//! What people outside are told: once for each thing that happened, whenever the operator dies.

use std::sync::Arc;
use std::time::Duration;

use akash_redis::api::notifications::NotificationKind;
use akash_redis::model::money::Uact;
use akash_redis::store::{Event, Leadership as _, Notices as _, Objects as _};

use crate::lifecycle::THREE;
use crate::world::node::Node;
use crate::world::{Terms, World};

/// The target of these tests.
const TARGET: &str = "somebody";

fn world(seed: u64) -> Arc<World> {
    on(Terms::new(seed, 5))
}

fn on(terms: Terms) -> Arc<World> {
    let world = World::on(terms);
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
    world.delete("cache").await;
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

/// Three clusters and one wallet: what passes a mark is one message, also after a restart.
#[tokio::test(start_paused = true)]
async fn a_wallet_that_runs_low_is_told_once_for_all_clusters() {
    // Escrows that pay for 11 days, and nothing to fill them with after 8.
    let world = on(Terms { wallet: Uact(1_600_000), ..Terms::new(46, 5) });
    world.start_operator().await;
    let names = ["cache", "other", "third"];
    for name in names {
        let yaml = THREE.replace("name: cache", &format!("name: {name}"));
        let yaml = yaml.replace("nodes: 3", "nodes: 1").replace("30act", "30act, deposit: 0.5act");
        world.apply(&yaml).await;
    }
    for name in names {
        world.until_ready(name).await;
    }
    let marked = async || {
        let all = world.store.list().await.unwrap();
        all.iter().all(|stored| stored.record.runway_told == Some(14))
    };
    world.until("the mark", Duration::from_mins(5), marked).await;
    world.kill_operator().await;
    world.start_operator().await;
    tokio::time::sleep(Duration::from_mins(5)).await;
    let told = told(&world).await;
    assert_eq!(count(&told, NotificationKind::RunwayLow), 1, "{told:#?}");
}
