//! Nodes are started anew with another image, one after the other: nothing that was acknowledged is
//! lost, nothing is bought, no more than one node is away, and what does not start goes no further.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use akash_redis::api::conditions::{ConditionType, Reason};
use akash_redis::api::types::Image;
use akash_redis::model::ids::IncarnationName;

use crate::candidates::running_with;
use crate::lifecycle::THREE;
use crate::world::World;
use crate::world::gateway::Bad;
use crate::world::many::{in_a_world, in_many_worlds, setting};

/// A rollout of a small cluster takes less, in virtual time.
const SOON: Duration = Duration::from_mins(20);

fn image(hex: &str) -> Image {
    let name = format!("registry.example.org/node@sha256:{}", hex.repeat(32));
    Image { name, redis: "7.0.15".to_owned() }
}

async fn wants(world: &World, hex: Option<&str>) {
    let image = hex.map(image);
    world.edit("cache", |c| c.spec.image = image).await;
}

/// What each node of the cluster was started with, by its own word.
fn revisions(world: &World) -> BTreeMap<IncarnationName, String> {
    let state = world.nodes.state.lock().unwrap();
    state.nodes.iter().map(|(name, node)| (name.clone(), node.revision.clone())).collect()
}

/// How many nodes of the cluster are away now.
fn away(world: &World) -> usize {
    let state = world.nodes.state.lock().unwrap();
    let runs = |n: &&crate::world::node::Node| {
        n.powered && n.process == akash_redis::model::node::Process::Running
    };
    state.nodes.len() - state.nodes.values().filter(runs).count()
}

/// All nodes run the image of this digest, and the cluster is well.
async fn rolled_out(world: &World, hex: &str) {
    let mut most = 0;
    world
        .until("the rollout", SOON, async || {
            most = most.max(away(world));
            let Some(status) = world.stored("cache").await.cluster.status else { return false };
            let rollout = status.rollout.clone().unwrap_or_default();
            world.ready("cache").await
                && rollout.image == image(hex).name
                && rollout.updated == rollout.nodes
        })
        .await;
    assert!(most <= 1, "seed {}: {most} nodes were away at a time", world.seed);
}

async fn writes_go_on(world: &World) {
    let before = world.written();
    world.until("writes", Duration::from_mins(2), async || world.written() > before + 20).await;
}

async fn ends_well(world: &World) {
    writes_go_on(world).await;
    world.assert_one_writer();
    world.assert_nothing_lost("cache").await;
}

async fn deleted(world: &World) {
    world.delete("cache").await;
    world.until_gone("cache").await;
    world.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn an_image_is_rolled_out_over_the_same_leases() {
    let world = running_with(9700, THREE, 4).await;
    let (before, leases) = (revisions(&world), world.chain.active_deployments());
    wants(&world, Some("bb")).await;
    rolled_out(&world, "bb").await;
    let after = revisions(&world);
    assert!(before.keys().eq(after.keys()), "the same incarnations");
    assert!(before.iter().all(|(name, old)| after[name] != *old), "{before:?} {after:?}");
    assert_eq!(world.chain.active_deployments(), leases);
    assert_eq!(world.chain.creates(), 3, "nothing was bought");
    assert_eq!(world.tailnet.lock().unwrap().usable_keys(), 0, "nor a key made");
    ends_well(&world).await;
    deleted(&world).await;
}

#[tokio::test(start_paused = true)]
async fn nodes_without_a_volume_keep_their_lease_and_join_anew() {
    let memory = THREE.replace(", data: { size: 4Gi, class: beta3 }", "");
    let world = running_with(9701, &memory, 4).await;
    wants(&world, Some("bb")).await;
    rolled_out(&world, "bb").await;
    assert_eq!(world.chain.creates(), 3);
    ends_well(&world).await;
    world
        .until("their old devices to be gone", SOON, async || {
            world.tailnet.lock().unwrap().devices.len() == 3
        })
        .await;
    deleted(&world).await;
}

/// Until a person is told that an update does not go on.
async fn stalled(world: &World) {
    world
        .until("the update to stand still", SOON, async || {
            let status = world.stored("cache").await.cluster.status.unwrap_or_default();
            status.problems.contains(&Reason::UpdateStalled)
        })
        .await;
}

async fn bad(seed: u64, bad: Bad) -> (Arc<World>, BTreeMap<IncarnationName, String>) {
    let world = running_with(seed, THREE, 4).await;
    world.gateway.bad_images.lock().unwrap().insert(image("bb").name, bad);
    let before = revisions(&world);
    wants(&world, Some("bb")).await;
    (world, before)
}

/// Nobody but one node, no master, was touched, and the others serve.
async fn only_one_was_touched(world: &World, before: &BTreeMap<IncarnationName, String>) {
    let master = world.master("cache").await;
    let record = world.stored("cache").await.record;
    let touched: Vec<_> = record.incarnations.iter().filter(|(_, i)| i.update.is_some()).collect();
    assert_eq!(touched.len(), 1, "{touched:?}");
    let touched = touched[0].0.clone();
    assert_ne!(touched, master);
    let now = revisions(world);
    assert!(before.iter().all(|(n, old)| *n == touched || now[n] == *old), "{before:?} {now:?}");
    assert!(before.keys().eq(record.incarnations.keys()), "nobody was replaced");
    assert_eq!((away(world), world.chain.creates()), (1, 3));
    writes_go_on(world).await;
}

#[test]
fn an_image_that_does_not_start_stops_at_the_first_node_and_going_back_recovers() {
    in_many_worlds(0..=3, 1, async |n| {
        let fault = if n % 2 == 0 { Bad::Container } else { Bad::Redis };
        let (world, before) = bad(9710 + n, fault).await;
        stalled(&world).await;
        only_one_was_touched(&world, &before).await;
        // However long nobody looks.
        tokio::time::sleep(Duration::from_mins(20)).await;
        only_one_was_touched(&world, &before).await;
        let status = world.stored("cache").await.cluster.status.unwrap();
        let progressing = status.condition(ConditionType::Progressing).unwrap();
        assert!(progressing.message.starts_with("0 of 3 nodes run"), "{progressing:?}");
        if n < 2 {
            wants(&world, None).await;
            world
                .until("the node to be well again", SOON, async || {
                    world.ready("cache").await && revisions(&world) == before
                })
                .await;
        } else {
            wants(&world, Some("cc")).await;
            rolled_out(&world, "cc").await;
        }
        assert_eq!(world.chain.creates(), 3, "in place");
        ends_well(&world).await;
        deleted(&world).await;
    });
}

/// The volume of the first node is spoilt, so that it does not start with what the others run either.
#[tokio::test(start_paused = true)]
async fn a_node_that_going_back_does_not_help_is_replaced() {
    let (world, before) = bad(9720, Bad::Container).await;
    stalled(&world).await;
    let record = world.stored("cache").await.record;
    let broken = record.incarnations.iter().find(|(_, i)| i.update.is_some()).unwrap().0.clone();
    let usual = crate::world::IMAGE.to_owned();
    world.gateway.bad_images.lock().unwrap().insert(usual.clone(), Bad::Redis);
    wants(&world, None).await;
    world
        .until("the manifest to be with the provider", SOON, async || {
            revisions(&world)[&broken] == before[&broken]
                && world.nodes.state.lock().unwrap().nodes[&broken].broken
        })
        .await;
    world.gateway.bad_images.lock().unwrap().remove(&usual);
    world
        .until("another node in its place", SOON, async || {
            world.ready("cache").await
                && !world.stored("cache").await.record.incarnations.contains_key(&broken)
        })
        .await;
    ends_well(&world).await;
}

#[tokio::test(start_paused = true)]
async fn the_only_node_comes_back_with_its_data() {
    let world = running_with(9730, &THREE.replace("nodes: 3", "nodes: 1"), 3).await;
    writes_go_on(&world).await;
    wants(&world, Some("bb")).await;
    rolled_out(&world, "bb").await;
    assert_eq!(world.chain.creates(), 1);
    ends_well(&world).await;
}

const ALL_CONFIRM: &str = "apiVersion: akash-redis.dev/v1alpha1
kind: RedisCluster
metadata: { name: cache }
spec:
  nodes: 3
  durability: confirmed
  confirmations: 2
  allowWriteStops: true
  resources: { cpu: 500m, memory: 1Gi, data: { size: 4Gi, class: beta3 } }
  budget: { maxPerMonth: 45act }
";

/// Each replica must confirm a write: a further one is there while one of them is away.
#[tokio::test(start_paused = true)]
async fn writes_go_on_where_every_replica_must_confirm_them() {
    let world = running_with(9740, ALL_CONFIRM, 6).await;
    let leases = world.chain.active_deployments();
    wants(&world, Some("bb")).await;
    let mut last = (world.written(), world.clock.now());
    let mut longest = Duration::ZERO;
    world
        .until("the rollout", Duration::from_mins(40), async || {
            let now = (world.written(), world.clock.now());
            if now.0 == last.0 {
                longest = longest.max(now.1.since(last.1));
            } else {
                last = now;
            }
            let status = world.stored("cache").await.cluster.status.unwrap_or_default();
            let rollout = status.rollout.clone().unwrap_or_default();
            world.ready("cache").await
                && rollout.image == image("bb").name
                && rollout.updated == rollout.nodes
                && world.chain.active_deployments() == leases
        })
        .await;
    assert_eq!(world.chain.creates(), 4, "one more for the time");
    // Without it each of three starts and full syncs would be a pause.
    println!("the longest time without a write was {longest:?}");
    assert!(longest < Duration::from_secs(3), "{longest:?}");
    ends_well(&world).await;
    deleted(&world).await;
}

/// The operator dies before or after its n-th call of a rollout. `SIM_STRIDE=1` tries every one.
#[test]
fn a_crash_at_any_call_of_a_rollout_changes_nothing_in_the_end() {
    let calls = in_a_world(async {
        let world = running_with(9800, THREE, 4).await;
        let before = world.fuse.calls();
        wants(&world, Some("bb")).await;
        rolled_out(&world, "bb").await;
        world.fuse.calls() - before
    });
    println!("{calls} calls of a rollout");
    in_many_worlds(1..=calls, setting("SIM_STRIDE", 9), async |call| {
        let world = running_with(9800 + call, THREE, 4).await;
        let watcher = world.restart_after_crashes();
        world.fuse.set(call);
        wants(&world, Some("bb")).await;
        rolled_out(&world, "bb").await;
        assert_eq!(world.chain.creates(), 3);
        ends_well(&world).await;
        watcher.abort();
        world.kill_operator().await;
    });
}

/// The same, from an image that does not start and back again.
#[test]
fn a_crash_at_any_call_of_a_rollout_that_is_taken_back_changes_nothing_in_the_end() {
    let life = async |world: &World, before: &BTreeMap<IncarnationName, String>| {
        stalled(world).await;
        only_one_was_touched(world, before).await;
        wants(world, None).await;
        world
            .until("the node to be well again", SOON, async || {
                world.ready("cache").await && revisions(world) == *before
            })
            .await;
    };
    let calls = in_a_world(async {
        let (world, before) = bad(9900, Bad::Container).await;
        let began = world.fuse.calls();
        life(&world, &before).await;
        world.fuse.calls() - began
    });
    println!("{calls} calls there and back");
    in_many_worlds(1..=calls, setting("SIM_STRIDE", 29), async |call| {
        let (world, before) = bad(9900 + call, Bad::Container).await;
        let watcher = world.restart_after_crashes();
        world.fuse.set(call);
        life(&world, &before).await;
        assert_eq!(world.chain.creates(), 3);
        ends_well(&world).await;
        watcher.abort();
        world.kill_operator().await;
    });
}
