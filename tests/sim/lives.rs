//! One life in which everything happens to a cluster: bring-up, failover, migration, scaling,
//! deletion. Whatever store it is over, and wherever its operator dies, it comes to the same end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use akash_redis::api::annotations::MIGRATE;

use super::world::World;
use super::world::node::Node;

/// The operator is back within seconds; what it has to do takes longer.
const LIMIT: Duration = Duration::from_mins(30);
/// Three nodes to begin with, the one that a migrated one is replaced by, and a fourth one.
const MOST_BOUGHT: usize = 5;

const THREE: &str = "apiVersion: akash-redis.dev/v1alpha1
kind: RedisCluster
metadata: { name: cache }
spec:
  nodes: 3
  resources: { cpu: 500m, memory: 1Gi, data: { size: 4Gi, class: beta3 } }
  budget: { maxPerMonth: 40act }
";

/// Lives it; the calls of the operator when each part of it was over.
pub async fn one_life(world: &Arc<World>) -> Vec<(&'static str, u64)> {
    let mut parts = Vec::new();
    world.start_operator().await;
    world.apply(THREE).await;
    world.until_ready("cache").await;
    writes_go_on(world).await;
    parts.push(("bring-up", world.fuse.calls()));

    let old = world.master("cache").await;
    world.nodes.with(&old, Node::kill_redis);
    let another = async || world.master("cache").await != old && world.ready("cache").await;
    world.until("another master", LIMIT, another).await;
    writes_go_on(world).await;
    parts.push(("failover", world.fuse.calls()));

    let leaver = old.0.clone();
    world.edit("cache", |c| drop(c.metadata.annotations.insert(MIGRATE.into(), leaver))).await;
    let moved = async || {
        !world.stored("cache").await.record.incarnations.contains_key(&old)
            && world.ready("cache").await
    };
    world.until("the move", LIMIT, moved).await;
    parts.push(("migration", world.fuse.calls()));

    for nodes in [4, 3] {
        world.edit("cache", |c| c.spec.nodes = nodes).await;
        let scaled = async || {
            let known = world.stored("cache").await.record.incarnations.len();
            known == nodes as usize && world.ready("cache").await
        };
        world.until("the wanted number of nodes", LIMIT, scaled).await;
    }
    writes_go_on(world).await;
    world.assert_nothing_lost("cache").await;
    parts.push(("scaling", world.fuse.calls()));

    world.delete("cache").await;
    world.until_gone("cache").await;
    world.assert_nothing_left();
    world.kill_operator().await;
    parts.push(("deletion", world.fuse.calls()));
    parts
}

async fn writes_go_on(world: &World) {
    let before = world.written();
    world.until("writes", LIMIT, async || world.written() > before + 20).await;
}

/// The same with an operator that dies at this call.
pub async fn with_a_crash_at(world: &Arc<World>, call: u64) {
    let watcher = world.restart_after_crashes();
    world.fuse.set(call);
    one_life(world).await;
    watcher.abort();
    let bought = world.chain.creates();
    assert!(bought <= MOST_BOUGHT, "crash at call {call}: {bought} deployments were bought");
}

/// The calls at which it is tried: from the first to the last, so many in all, each part of the life
/// among them.
pub fn calls_to_try(parts: &[(&'static str, u64)], most: u64) -> BTreeSet<u64> {
    let all = parts.last().map_or(0, |(_, calls)| *calls);
    let stride = (all / most).max(1);
    println!("{parts:?}, every {stride}th call is a crash");
    let tried: BTreeSet<u64> = (1..=all).step_by(usize::try_from(stride).unwrap()).collect();
    let mut from = 0;
    for (part, to) in parts {
        assert!(tried.iter().any(|call| (from + 1..=*to).contains(call)), "no crash in {part}");
        from = *to;
    }
    tried
}
