//! A full sync that takes its time: what the replica holds meanwhile is old, and counts for nothing.

use std::time::Duration;

use akash_redis::model::ids::IncarnationName;

use super::{comes_up_and_goes, live, running, running_as};
use crate::lifecycle::THREE;
use crate::world::node::Node;
use crate::world::{Terms, World};

/// Longer than any test looks.
const WITHOUT_END: u64 = 3_600_000;

/// Its redis is started again, and begins a sync that does not end.
async fn begins_a_sync(world: &World, replica: &IncarnationName) {
    world.nodes.state.lock().unwrap().sync_ms = WITHOUT_END;
    world.nodes.with(replica, Node::kill_redis);
    world
        .until("a full sync", Duration::from_mins(1), async || {
            world.nodes.with(replica, |n| n.sync.is_some())
        })
        .await;
    let before = world.written();
    world.until("writes", Duration::from_mins(1), async || world.written() > before + 200).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_sync_runs_is_not_promoted_while_another_is_whole() {
    let world = running(Terms::new(600, 6)).await;
    let nodes = live(&world).await;
    begins_a_sync(&world, &nodes[1]).await;
    world.nodes.with(&nodes[0], Node::kill_redis);
    world
        .until("another master", Duration::from_mins(1), async || {
            world.master("cache").await != nodes[0]
        })
        .await;
    assert_eq!(world.master("cache").await, nodes[2]);
    world.assert_nothing_lost("cache").await;
    world.nodes.state.lock().unwrap().sync_ms = crate::world::SYNC_MS;
    comes_up_and_goes(&world, "cache").await;
}

#[tokio::test(start_paused = true)]
async fn a_master_whose_only_replica_syncs_is_promoted_again_itself() {
    let world = running_as(Terms::new(601, 4), &THREE.replace("nodes: 3", "nodes: 2")).await;
    let nodes = live(&world).await;
    begins_a_sync(&world, &nodes[1]).await;
    world.nodes.with(&nodes[0], Node::kill_redis);
    let before = world.written();
    world.until("writes", Duration::from_mins(2), async || world.written() > before + 20).await;
    assert_eq!(
        (world.master("cache").await, world.lost_writes("cache").await),
        (nodes[0].clone(), 0)
    );
    world.assert_one_writer();
}
