//! Promise 6 and 7: whatever happens on the way, the end state is the same, and nothing is left or bought twice.

use std::time::Duration;

use akash_redis::store::Store;

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
    world.store.mark_deleted("cache").await.unwrap();
    world.until_gone("cache").await;
    world.assert_nothing_left();
    assert_eq!(world.chain.creates(), 3, "something was bought twice");
}

/// The operator dies before or after its n-th call to the outside. `SIM_STRIDE=1` tries every one, as is wanted after a change of the
/// planner or the effects; otherwise it is a sample.
#[test]
fn a_crash_at_any_call_changes_nothing_in_the_end() {
    let calls = in_a_world(async {
        let world = World::new(1, 4);
        one_life(&world).await;
        world.fuse.calls()
    });
    let stride = setting("SIM_STRIDE", 5);
    println!("{calls} calls in a life, every {stride}th is a crash");
    in_many_worlds(1..=calls, stride, async |n| {
        let world = World::new(1000 + n, 4);
        let watcher = world.restart_after_crashes();
        world.fuse.set(n);
        one_life(&world).await;
        watcher.abort();
        // The order of calls differs a little from life to life, their number by a few.
        assert!(world.operator_starts() > 1 || n + 20 > calls, "the fuse at call {n} of {calls} did not blow");
        assert!(world.chain.creates() <= 3, "crash at call {n}: {} deployments were bought for 3 nodes", world.chain.creates());
    });
}

/// Bring-up and deletion, whoever kills the operator meanwhile.
async fn one_life(world: &std::sync::Arc<World>) {
    world.start_operator().await;
    world.apply(THREE).await;
    world.until_ready("cache").await;
    assert_eq!(world.chain.active_deployments().len(), 3, "seed {}", world.seed);
    world.store.mark_deleted("cache").await.unwrap();
    world.until_gone("cache").await;
    world.assert_nothing_left();
    world.kill_operator().await;
}
