//! Who is given up: one node at a time, the others whole, the last copy never. One rule for every reason.

use std::time::Duration;

use akash_redis::model::ids::IncarnationName;

use crate::candidates::{others, running_with};
use crate::lifecycle::THREE;
use crate::world::World;

async fn condemned(world: &World) -> Vec<IncarnationName> {
    let record = world.stored("cache").await.record;
    record.incarnations.into_iter().filter(|(_, i)| i.condemned.is_some()).map(|(n, _)| n).collect()
}

/// One replica is being replaced; the other, the only one in sync, falls silent.
#[tokio::test(start_paused = true)]
async fn the_only_replica_in_sync_is_not_given_up_for_silence() {
    let world = running_with(9040, THREE, 3).await;
    let master = world.master("cache").await;
    let replicas = others(&world, &master).await;
    // Nobody else bids, so that its place stays empty.
    let dseq = world.stored("cache").await.record.incarnations[&replicas[0]].dseq;
    world.chain.every_provider(|p| p.silent = true);
    world.chain.close_lease(dseq);
    tokio::time::sleep(Duration::from_mins(2)).await;
    world.nodes.with(&replicas[1], |n| n.powered = false);
    tokio::time::sleep(Duration::from_mins(20)).await;
    assert!(!condemned(&world).await.contains(&replicas[1]), "the last copy beside the master was destroyed");
    let waiting = world.stored("cache").await.cluster.status.unwrap().waiting;
    assert!(waiting.iter().any(|w| w.what.contains(&replicas[1].0)), "{waiting:?}");
    world.chain.every_provider(|p| p.silent = false);
    world.nodes.with(&replicas[1], |n| n.powered = true);
    world.until_ready("cache").await;
}

/// Two providers vanish for good: one after the other is replaced.
#[tokio::test(start_paused = true)]
async fn two_nodes_that_are_gone_are_replaced_one_after_the_other() {
    let world = running_with(9041, THREE, 7).await;
    let master = world.master("cache").await;
    let replicas = others(&world, &master).await;
    for replica in &replicas {
        world.nodes.with(replica, |n| n.powered = false);
    }
    world
        .until("the first to be given up", Duration::from_mins(20), async || {
            let gone = condemned(&world).await;
            assert!(gone.len() <= 1, "{gone:?} were given up together");
            !gone.is_empty()
        })
        .await;
    world.until_ready("cache").await;
    let record = world.stored("cache").await.record;
    assert!(replicas.iter().all(|r| !record.incarnations.contains_key(r)));
    world.assert_one_writer();
}
