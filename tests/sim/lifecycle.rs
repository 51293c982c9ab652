//! Promise 6 and 7: whatever happens on the way, the end state is the same, and nothing is left or
//! bought twice.

use std::time::Duration;

use akash_redis::api::annotations::MIGRATE;
use akash_redis::api::difference::resources_asked;

use crate::world::World;
use crate::world::many::{in_a_world, in_many_worlds, setting};

pub const THREE: &str = "apiVersion: akash-redis.dev/v1alpha1
kind: RedisCluster
metadata: { name: cache }
spec:
  nodes: 3
  resources: { cpu: 500m, memory: 1Gi, data: { size: 4Gi, class: beta3 } }
  budget: { maxPerMonth: 30act }
";

#[tokio::test(start_paused = true)]
async fn bring_up_and_delete_leave_nothing() {
    let world = World::new(1, 4);
    world.start_operator().await;
    world.apply(THREE).await;
    world.until_ready("cache").await;
    assert_eq!(world.chain.active_deployments().len(), 3);
    assert_eq!(world.chain.providers_in_use().len(), 3, "two nodes share a provider");
    let before = world.written();
    world.until("writes", Duration::from_secs(30), async || world.written() > before + 10).await;
    world.delete("cache").await;
    world.until_gone("cache").await;
    world.assert_nothing_left();
    assert_eq!(world.chain.creates(), 3, "something was bought twice");
}

/// A plan that was made before an effect ended must not start it again after, while its record was
/// being written.
#[tokio::test(start_paused = true)]
async fn what_is_done_is_not_done_again() {
    let world = World::new(2, 8);
    world.start_operator().await;
    world.apply(&THREE.replace("nodes: 3", "nodes: 5")).await;
    world.until_ready("cache").await;
    world.apply(THREE).await;
    world.until_ready("cache").await;
    let first = world.stored("cache").await.record.incarnations;
    for name in first.keys() {
        world
            .edit("cache", |c| drop(c.metadata.annotations.insert(MIGRATE.into(), name.0.clone())))
            .await;
        world
            .until("the move", Duration::from_mins(10), async || {
                !world.stored("cache").await.record.incarnations.contains_key(name)
            })
            .await;
        world.until_ready("cache").await;
    }
    world.delete("cache").await;
    world.until_gone("cache").await;
    world.assert_nothing_left();
    let lines = world.fuse.trace.lines();
    let effect = |line: &str| {
        let call = line.trim_start().split_once(' ').map_or("", |(_, call)| call).to_owned();
        let once = ["delete ", "revoke ", "give ", "broadcast "];
        (once.iter().any(|verb| call.starts_with(verb)) && !call.contains(": ")).then_some(call)
    };
    let mut calls: Vec<_> = lines.iter().filter_map(|line| effect(line)).collect();
    let all = calls.len();
    assert!(all > 30, "{calls:#?}");
    calls.sort();
    let twice: Vec<_> =
        calls.windows(2).filter(|two| two[0] == two[1]).map(|two| &two[0]).collect();
    assert!(twice.is_empty(), "{twice:#?}");
}

/// The operator dies before or after its n-th call to the outside. `SIM_STRIDE=1` tries every one,
/// as is wanted after a change of the planner or the effects; otherwise it is a sample.
#[test]
fn a_crash_at_any_call_changes_nothing_in_the_end() {
    let calls = in_a_world(async {
        let world = World::new(1, 4);
        one_life(&world).await;
        world.fuse.calls()
    });
    let stride = setting("SIM_STRIDE", 7);
    println!("{calls} calls in a life, every {stride}th is a crash");
    in_many_worlds(1..=calls, stride, async |n| {
        let world = World::new(1000 + n, 4);
        let watcher = world.restart_after_crashes();
        world.fuse.set(n);
        one_life(&world).await;
        watcher.abort();
        // The order of calls differs a little from life to life, their number by a few.
        assert!(
            world.operator_starts() > 1 || n + 20 > calls,
            "the fuse at call {n} of {calls} did not blow"
        );
        assert!(
            world.chain.creates() <= 3,
            "crash at call {n}: {} deployments were bought for 3 nodes",
            world.chain.creates()
        );
    });
}

/// A person changes his mind in the middle of bring-up, half of the time together with a crash:
/// what is on its way to a block then is waited for and cleaned up.
#[test]
fn a_deletion_at_any_moment_of_bring_up_leaves_nothing() {
    in_many_worlds(1..=42, setting("SIM_STRIDE", 2), async |n| {
        let world = World::new(3000 + n, 4);
        world.start_operator().await;
        world.apply(THREE).await;
        tokio::time::sleep(Duration::from_millis(n * 1300)).await;
        world.delete("cache").await;
        if n % 4 < 2 {
            world.kill_operator().await;
            world.start_operator().await;
        }
        world.until_gone("cache").await;
        // Longer than a transaction lives.
        tokio::time::sleep(Duration::from_mins(2)).await;
        world.assert_nothing_left();
        world.kill_operator().await;
    });
}

/// The same with a control API whose list of keys is old when it comes, and whose answers are late:
/// a reading from before a mint or a login says nothing about what they left.
#[test]
fn a_deletion_during_bring_up_believes_no_old_reading_of_the_tailnet() {
    in_many_worlds(1..=42, setting("SIM_STRIDE", 2), async |n| {
        let world = World::new(3100 + n, 4);
        {
            let mut tailnet = world.tailnet.lock().unwrap();
            tailnet.slow_keys = Duration::from_secs(12);
            tailnet.slow_answer = Duration::from_secs(n % 3 * 4);
        }
        world.start_operator().await;
        world.apply(THREE).await;
        tokio::time::sleep(Duration::from_millis(n * 1900)).await;
        world.delete("cache").await;
        world.until_gone("cache").await;
        tokio::time::sleep(Duration::from_mins(2)).await;
        world.assert_nothing_left();
        world.kill_operator().await;
    });
}

/// Bring-up and deletion, whoever kills the operator meanwhile.
async fn one_life(world: &std::sync::Arc<World>) {
    world.start_operator().await;
    world.apply(THREE).await;
    world.until_ready("cache").await;
    assert_eq!(world.chain.active_deployments().len(), 3, "seed {}", world.seed);
    world.delete("cache").await;
    world.until_gone("cache").await;
    world.assert_nothing_left();
    world.kill_operator().await;
}

/// Every node moves to a lease with the larger volume, and no write is lost, wherever the operator
/// dies.
#[test]
fn a_volume_grows_node_by_node_wherever_the_operator_dies() {
    let stride = setting("SIM_STRIDE", 25);
    for calls in (1..130).step_by(usize::try_from(stride).unwrap()) {
        in_a_world(async move {
            let world = World::new(4100 + calls, 6);
            world.start_operator().await;
            world.apply(THREE).await;
            world.until_ready("cache").await;
            let before: Vec<_> =
                world.stored("cache").await.record.incarnations.into_keys().collect();
            let _restarts = world.restart_after_crashes();
            world.fuse.set(calls);
            let size = || "8Gi".parse().unwrap();
            world
                .edit("cache", |c| c.spec.resources.data.iter_mut().for_each(|d| d.size = size()))
                .await;
            world
                .until("every node to have moved", Duration::from_hours(2), async || {
                    let stored = world.stored("cache").await;
                    let wanted = resources_asked(&stored.cluster.spec);
                    let nodes = &stored.record.incarnations;
                    nodes.len() == 3
                        && nodes.values().all(|node| node.resources == wanted)
                        && nodes.keys().all(|name| !before.contains(name))
                        && world.ready("cache").await
                })
                .await;
            world.assert_nothing_lost("cache").await;
            world.assert_one_writer();
            let bought = world.chain.creates();
            assert!(bought <= 7, "crash at call {calls}: {bought} deployments were bought");
        });
    }
}
