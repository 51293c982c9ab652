//! Promises 1 and 3: who may be promoted. Nobody takes over who lacks what was acknowledged, as far
//! as anybody knows.

use std::sync::Arc;
use std::time::Duration;

use akash_redis::api::annotations::{ACCEPT_LOSS, MASTER};
use akash_redis::api::conditions::ConditionType;
use akash_redis::api::events::EventReason;
use akash_redis::model::change::Change;
use akash_redis::model::ids::IncarnationName;
use akash_redis::store::Events as _;

use crate::lifecycle::THREE;
use crate::world::World;
use crate::world::node::Node;

/// Writes that are acknowledged and reach no replica when a node vanishes at once: replicas copy
/// after each.
const IN_FLIGHT: usize = 1;

pub async fn running_with(seed: u64, yaml: &str, providers: u32) -> Arc<World> {
    let world = World::new(seed, providers);
    world.start_operator().await;
    world.apply(yaml).await;
    world.until_ready("cache").await;
    let before = world.written();
    world.until("writes", Duration::from_mins(1), async || world.written() > before + 20).await;
    world
}

/// Live nodes but `master`.
pub async fn others(world: &World, master: &IncarnationName) -> Vec<IncarnationName> {
    let record = world.stored("cache").await.record;
    record
        .incarnations
        .into_iter()
        .filter(|(n, i)| n != master && i.condemned.is_none())
        .map(|(n, _)| n)
        .collect()
}

async fn has_event(world: &World, reason: EventReason) -> bool {
    world.store.events("cache").await.unwrap().iter().any(|e| e.reason == reason.to_string())
}

/// A cluster with a master, a good replica, and one that has been cut off from the master for ten
/// minutes.
async fn with_a_stale_replica(
    seed: u64,
) -> (Arc<World>, IncarnationName, IncarnationName, IncarnationName) {
    let world = running_with(seed, THREE, 5).await;
    let master = world.master("cache").await;
    let mut replicas = others(&world, &master).await;
    let (stale, good) = (replicas.remove(1), replicas.remove(0));
    world.nodes.cut(&stale, &master);
    tokio::time::sleep(Duration::from_mins(10)).await;
    (world, master, good, stale)
}

/// Everybody is reached again after a while, and nothing is lost.
async fn comes_back_whole(
    world: &World,
    master: &IncarnationName,
    good: &IncarnationName,
    stale: &IncarnationName,
) {
    tokio::time::sleep(Duration::from_secs(20)).await;
    world.nodes.with(good, |n| n.reachable = true);
    world.nodes.heal(stale, master);
    world.until_ready("cache").await;
    assert_eq!(world.lost_writes("cache").await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_was_cut_off_for_ten_minutes_is_not_promoted() {
    let (world, master, good, stale) = with_a_stale_replica(9001).await;
    // The operator misses the good replica for a moment, and the master's redis restarts with its
    // data.
    world.nodes.with(&good, |n| n.reachable = false);
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.nodes.with(&master, Node::kill_redis);
    comes_back_whole(&world, &master, &good, &stale).await;
}

/// The same where the operator has just been started and knows nothing of the good replica.
#[tokio::test(start_paused = true)]
async fn an_operator_that_has_just_started_does_not_promote_a_stale_replica_either() {
    let (world, master, good, stale) = with_a_stale_replica(9021).await;
    world.kill_operator().await;
    world.nodes.with(&good, |n| n.reachable = false);
    world.nodes.with(&master, Node::kill_redis);
    world.start_operator().await;
    comes_back_whole(&world, &master, &good, &stale).await;
}

#[tokio::test(start_paused = true)]
async fn what_two_nodes_wrote_alone_survives_a_scale_to_three() {
    let world = running_with(9008, &THREE.replace("nodes: 3", "nodes: 2"), 5).await;
    let master = world.master("cache").await;
    let replica = others(&world, &master).await[0].clone();
    world.nodes.cut(&replica, &master);
    let candidate =
        async || world.stored("cache").await.record.incarnations[&replica].is_candidate();
    world
        .until("the master to go on alone", Duration::from_mins(1), async || !candidate().await)
        .await;
    let alone = world.written();
    world
        .until("writes alone", Duration::from_mins(2), async || world.written() > alone + 200)
        .await;
    world.edit("cache", |c| c.spec.nodes = 3).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.nodes.with(&master, Node::kill_redis);
    tokio::time::sleep(Duration::from_mins(3)).await;
    world.nodes.heal(&replica, &master);
    world.until_ready("cache").await;
    assert_eq!(world.lost_writes("cache").await, 0);
}

/// Nothing is on disk: another process of the target is empty.
#[tokio::test(start_paused = true)]
async fn a_switchover_whose_target_restarted_empty_loses_nothing() {
    let world = running_with(9005, THREE, 5).await;
    let master = world.master("cache").await;
    let target = others(&world, &master).await[0].clone();
    for name in world.stored("cache").await.record.incarnations.into_keys() {
        world.nodes.with(&name, |n| n.ephemeral = true);
    }
    let to = target.0.clone();
    world.edit("cache", |c| drop(c.metadata.annotations.insert(MASTER.to_owned(), to))).await;
    let chosen = async || {
        let change = world.stored("cache").await.record.change;
        matches!(change, Some(Change::Switchover(s)) if s.delegated.is_some() && !s.prepares())
    };
    let deadline = world.clock.now() + Duration::from_secs(30);
    while !chosen().await {
        assert!(world.clock.now() < deadline, "no choice was seen");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    world.nodes.with(&target, Node::kill_redis);
    world.until_ready("cache").await;
    assert_eq!(world.lost_writes("cache").await, 0, "of {}", world.written());
}

/// The same in a failover: the choice is void, and the next one goes on from where it is.
#[tokio::test(start_paused = true)]
async fn a_chosen_target_that_dies_before_its_promotion_is_replaced_by_another() {
    for ephemeral in [false, true] {
        let world = running_with(9022, THREE, 5).await;
        let master = world.master("cache").await;
        for name in world.stored("cache").await.record.incarnations.into_keys() {
            world.nodes.with(&name, |n| n.ephemeral = ephemeral);
        }
        world.nodes.with(&master, |n| n.powered = false);
        let deadline = world.clock.now() + Duration::from_mins(1);
        let target = loop {
            let chosen = world
                .stored("cache")
                .await
                .record
                .master
                .filter(|p| p.incarnation != master && !p.confirmed);
            if let Some(chosen) = chosen {
                break chosen.incarnation;
            }
            assert!(world.clock.now() < deadline, "no choice was seen");
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        world.nodes.with(&target, Node::kill_redis);
        let before = world.written();
        world.until("writes", Duration::from_mins(5), async || world.written() > before + 20).await;
        world.until_ready("cache").await;
        let record = world.stored("cache").await.record;
        assert!(record.epoch < 10, "epoch {}", record.epoch);
        assert!(world.lost_writes("cache").await <= IN_FLIGHT);
        world.assert_one_writer();
    }
}

/// Their histories are written at different moments, so that a replica's may look newer than the
/// master's.
#[tokio::test(start_paused = true)]
async fn all_redis_that_die_in_one_moment_come_back_with_what_the_newest_had() {
    for ahead in 0..3 {
        let world = running_with(9023, THREE, 5).await;
        let master = world.master("cache").await;
        let replicas = others(&world, &master).await;
        for name in world.stored("cache").await.record.incarnations.into_keys() {
            world.nodes.with(&name, |n| {
                n.kill_redis();
                // The master wrote down where it stood up to a second ago.
                if let Some(history) = n.history.as_mut().filter(|_| name == master) {
                    (history.offset, history.gap_ms) = (history.offset - ahead, 900);
                }
            });
        }
        world.until_ready("cache").await;
        assert_eq!(
            (world.master("cache").await, world.lost_writes("cache").await),
            (master, 0),
            "{replicas:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn all_nodes_that_lose_power_together_come_back() {
    let world = running_with(9024, THREE, 5).await;
    let all: Vec<_> = world.stored("cache").await.record.incarnations.into_keys().collect();
    for name in &all {
        world.nodes.with(name, |n| {
            n.powered = false;
            n.kill_redis();
        });
    }
    tokio::time::sleep(Duration::from_mins(1)).await;
    for name in &all {
        world.nodes.with(name, |n| {
            n.boots += 1;
            n.powered = true;
        });
    }
    world.until_ready("cache").await;
    assert_eq!(world.lost_writes("cache").await, 0);
}

/// The escrow runs dry, or the provider closes the lease: redis ends politely, the agent says so,
/// then everything is gone.
#[tokio::test(start_paused = true)]
async fn a_master_that_ends_politely_is_replaced_at_once() {
    let world = running_with(9025, THREE, 6).await;
    let master = world.master("cache").await;
    let dseq = world.stored("cache").await.record.incarnations[&master].dseq;
    world.nodes.with(&master, |n| {
        n.kill_redis();
        n.min_replicas = 0;
    });
    tokio::time::sleep(Duration::from_millis(150)).await;
    world.nodes.with(&master, |n| n.powered = false);
    world.chain.close_lease(dseq);
    let begin = world.clock.now();
    world
        .until("another master", Duration::from_mins(1), async || {
            world.master("cache").await != master
        })
        .await;
    assert!(
        world.clock.now().since(begin) < Duration::from_secs(5),
        "its last word is a fence, nothing else is waited for"
    );
    world.until_ready("cache").await;
    assert!(world.lost_writes("cache").await <= IN_FLIGHT);
}

/// The lease ends on the chain while redis still runs: who has the data takes over, and nothing
/// planned is begun.
#[tokio::test(start_paused = true)]
async fn a_master_whose_lease_was_closed_is_replaced_without_a_switchover() {
    let world = running_with(9026, THREE, 6).await;
    let master = world.master("cache").await;
    let dseq = world.stored("cache").await.record.incarnations[&master].dseq;
    world.chain.close_lease(dseq);
    world
        .until("another master", Duration::from_mins(1), async || {
            world.master("cache").await != master
        })
        .await;
    world.until_ready("cache").await;
    assert!(world.lost_writes("cache").await <= IN_FLIGHT);
    assert!(!has_event(&world, EventReason::SwitchoverStarted).await);
    world.assert_one_writer();
}

#[tokio::test(start_paused = true)]
async fn where_nothing_is_kept_an_empty_master_is_right_and_told() {
    for nodes in [1, 3] {
        let yaml = THREE
            .replace(", data: { size: 4Gi, class: beta3 }", "")
            .replace("nodes: 3", &format!("nodes: {nodes}"));
        let world = World::new(9027, 5);
        world.start_operator().await;
        world.apply(&yaml).await;
        world.until_ready("cache").await;
        for name in world.stored("cache").await.record.incarnations.into_keys() {
            world.nodes.with(&name, |n| {
                n.ephemeral = true;
                n.kill_redis();
            });
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        let before = world.written();
        world.until("writes", Duration::from_mins(5), async || world.written() > before + 20).await;
        world.until_ready("cache").await;
        assert!(has_event(&world, EventReason::DataLost).await, "{nodes} nodes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_master_that_falls_silent_before_anybody_joined_is_not_waited_for() {
    let world = World::new(9028, 6);
    world.start_operator().await;
    world.apply(THREE).await;
    world
        .until("a master", Duration::from_mins(10), async || {
            world.stored("cache").await.record.master.is_some_and(|p| p.confirmed)
        })
        .await;
    let first = world.master("cache").await;
    if !others(&world, &first)
        .await
        .iter()
        .any(|n| world.nodes.state.lock().unwrap().nodes.contains_key(n))
    {
        world.nodes.with(&first, |n| n.powered = false);
    }
    world.until_ready("cache").await;
    world.assert_one_writer();
}

/// A person's word goes on where data may be newer on a node that is gone for good.
#[tokio::test(start_paused = true)]
async fn a_person_may_accept_the_loss_of_what_cannot_be_asked_for() {
    let world = running_with(9029, &THREE.replace("nodes: 3", "nodes: 2"), 5).await;
    let master = world.master("cache").await;
    let replica = others(&world, &master).await[0].clone();
    world.nodes.cut(&replica, &master);
    let candidate =
        async || world.stored("cache").await.record.incarnations[&replica].is_candidate();
    world
        .until("the master to go on alone", Duration::from_mins(1), async || !candidate().await)
        .await;
    world.nodes.with(&master, |n| n.powered = false);
    let waits = async || {
        let status = world.stored("cache").await.cluster.status.unwrap_or_default();
        status.conditions.iter().any(|c| {
            c.kind == ConditionType::Degraded
                && c.message.contains("akash-redis failover cache --accept-loss")
        })
    };
    world.until("a command to be named", Duration::from_mins(5), waits).await;
    assert_eq!(world.master("cache").await, master);
    let epoch = world.stored("cache").await.record.epoch;
    world
        .edit("cache", |c| {
            drop(c.metadata.annotations.insert(ACCEPT_LOSS.to_owned(), epoch.to_string()));
        })
        .await;
    world
        .until("the replica to be master", Duration::from_mins(5), async || {
            world.master("cache").await == replica
        })
        .await;
    let before = world.written();
    world.until("writes", Duration::from_mins(5), async || world.written() > before + 20).await;
}
