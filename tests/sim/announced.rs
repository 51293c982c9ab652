//! The word about the master: every node that answers has the newest one, whatever became of the
//! operator, and none names a master that was not confirmed.

use std::sync::Arc;
use std::time::Duration;

use akash_redis::api::annotations::MASTER;
use akash_redis::api::types::{Announce, RedisCluster};
use akash_redis::model::announcement::Announcement;
use akash_redis::model::ids::IncarnationName;
use tokio::time::Instant;

use crate::lifecycle::THREE;
use crate::world::World;
use crate::world::node::Node;

/// A word is on its way within a tick of the operator.
const SOON: Duration = Duration::from_mins(1);

async fn running(seed: u64) -> Arc<World> {
    let world = World::new(seed, 6);
    world.start_operator().await;
    world.apply(THREE).await;
    world.until_ready("cache").await;
    world
}

async fn living(world: &World) -> Vec<IncarnationName> {
    let record = world.stored("cache").await.record;
    let there = record.incarnations.into_iter().filter(|(name, i)| {
        i.condemned.is_none() && world.nodes.with(name, |n| n.powered && n.reachable)
    });
    there.map(|(name, _)| name).collect()
}

fn heard(world: &World, name: &IncarnationName) -> Option<Announcement> {
    world.nodes.with(name, |n| n.announced.clone())
}

/// Waits until all nodes that answer name the present master, and all others beside it.
async fn all_know(world: &World) {
    world
        .until("every node to know the master", SOON, async || {
            let stored = world.stored("cache").await;
            let Some(master) = stored.record.master.filter(|m| m.confirmed) else { return false };
            let all = living(world).await;
            let knows = |name: &IncarnationName| {
                heard(world, name).is_some_and(|said| {
                    said.master.incarnation == master.incarnation.0
                        && said.epoch == master.epoch
                        && Some(&said.uid) == stored.cluster.metadata.uid.as_ref()
                        && said.replicas.len() + 1 == all.len()
                })
            };
            all.iter().all(knows)
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn every_node_hears_of_every_master() {
    let world = running(950).await;
    all_know(&world).await;
    let old = world.master("cache").await;
    world.nodes.with(&old, Node::kill_redis);
    let moved = async || world.master("cache").await != old;
    world.until("another master", Duration::from_secs(30), moved).await;
    world.until_ready("cache").await;
    all_know(&world).await;
    // One that was away hears of it when it is back.
    let master = world.master("cache").await;
    let mut others: Vec<_> = living(&world).await.into_iter().filter(|n| *n != master).collect();
    let (away, target) = (others.remove(0), others.remove(0));
    world.nodes.with(&away, |n| n.reachable = false);
    let before = heard(&world, &away).unwrap();
    let ask = |c: &mut RedisCluster| {
        drop(c.metadata.annotations.insert(MASTER.to_owned(), target.0.clone()));
    };
    world.edit("cache", ask).await;
    let moved = async || world.master("cache").await == target;
    world.until("another master", Duration::from_mins(2), moved).await;
    assert_eq!(heard(&world, &away).unwrap(), before);
    world.nodes.with(&away, |n| n.reachable = true);
    world.until_ready("cache").await;
    all_know(&world).await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_whose_clock_is_behind_is_believed() {
    let world = running(951).await;
    all_know(&world).await;
    let master = world.master("cache").await;
    let before = heard(&world, &master).unwrap();
    world.kill_operator().await;
    // Another process of it said something an hour ahead.
    let ahead = Announcement { version: before.version + 3_600_000, ..before };
    for name in living(&world).await {
        world.nodes.with(&name, |n| n.announced = Some(ahead.clone()));
    }
    world.start_operator().await;
    world.edit("cache", |c| c.spec.nodes = 4).await;
    world.until_ready("cache").await;
    all_know(&world).await;
    assert!(heard(&world, &master).unwrap().version > ahead.version);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_made_anew_is_another_one() {
    let world = running(952).await;
    all_know(&world).await;
    let before = heard(&world, &world.master("cache").await).unwrap();
    world.delete("cache").await;
    world.until_gone("cache").await;
    world.apply(THREE).await;
    world.until_ready("cache").await;
    all_know(&world).await;
    let now = heard(&world, &world.master("cache").await).unwrap();
    assert_ne!(now.uid, before.uid);
    assert!(now.is_newer_than(&before) && !before.is_newer_than(&now));
}

#[tokio::test(start_paused = true)]
async fn names_are_announced_where_the_manifest_says_so_and_no_node_is_replaced_for_it() {
    let world = running(953).await;
    all_know(&world).await;
    let before = living(&world).await;
    assert!(before.iter().all(|name| !heard(&world, name).unwrap().names));
    world.edit("cache", |c| c.spec.mesh.announce = Announce::Names).await;
    let named = async || before.iter().all(|name| heard(&world, name).unwrap().names);
    world.until("names at every node", SOON, named).await;
    world.until_ready("cache").await;
    assert_eq!(living(&world).await, before);
}

/// Clients that listen to a node must hear that the master gives way before they meet it; to a node
/// that nobody listens to it is told when no handover waits for the processor.
#[tokio::test(start_paused = true)]
async fn a_node_with_listeners_hears_first_that_the_master_gives_way() {
    let world = running(954).await;
    all_know(&world).await;
    let (old, epoch) = (world.master("cache").await, world.stored("cache").await.record.epoch);
    let mut others = living(&world).await;
    others.retain(|name| *name != old);
    let (listened_to, target) = (others.remove(0), others.remove(0));
    world.nodes.with(&listened_to, |n| n.listened_to = true);
    // A node says what became of it with its next word.
    tokio::time::sleep(SOON).await;
    let asked = Instant::now();
    let ask = |c: &mut RedisCluster| {
        drop(c.metadata.annotations.insert(MASTER.to_owned(), target.0.clone()));
    };
    world.edit("cache", ask).await;
    let moved = async || world.master("cache").await == target;
    world.until("another master", Duration::from_mins(2), moved).await;
    let told = |name| world.nodes.with(name, |n| n.gives_way.get(&epoch).copied());
    let first = told(&listened_to).expect("it heard of it");
    assert!(first >= asked);
    for name in [&old, &target] {
        assert!(told(name).is_none_or(|at| at > first), "{name}");
    }
    all_know(&world).await;
}
