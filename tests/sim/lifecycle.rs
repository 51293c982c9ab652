//! Promise 6 and 7: whatever happens on the way, the end state is the same, and nothing is left or bought twice.

use std::time::Duration;

use akash_redis::store::Store;

use crate::world::World;

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

/// The operator dies before or after its n-th call to the outside, for every n of a whole life.
#[tokio::test(start_paused = true)]
async fn a_crash_at_any_call_changes_nothing_in_the_end() {
    let calls = {
        let world = World::new(1, 4);
        one_life(&world, None).await;
        world.fuse.calls()
    };
    for n in 1..=calls {
        let world = World::new(1000 + n, 4);
        one_life(&world, Some(n)).await;
        assert!(world.chain.creates() <= 3, "crash at call {n}: {} deployments were bought for 3 nodes", world.chain.creates());
    }
}

/// Bring-up and deletion; with a fuse the operator dies at that call and is started again.
async fn one_life(world: &std::sync::Arc<World>, crash_at: Option<u64>) {
    if let Some(n) = crash_at {
        world.fuse.set(n);
    }
    world.start_operator().await;
    world.apply(THREE).await;
    let watcher = world.restart_after_crashes();
    world.until_ready("cache").await;
    assert_eq!(world.chain.active_deployments().len(), 3, "seed {}", world.seed);
    world.store.mark_deleted("cache").await.unwrap();
    world.until_gone("cache").await;
    world.assert_nothing_left();
    watcher.abort();
    world.kill_operator().await;
}
