//! Promise 1: an empty node never wins while data is known to exist, or may exist on a recorded
//! node that cannot be asked.

use akash_redis::api::conditions::{ConditionType, Reason};
use std::time::Duration;

use crate::lifecycle::THREE;
use crate::world::World;

/// The master's lease is closed while its only replica is away, and a new, empty node joins in its
/// place.
#[tokio::test(start_paused = true)]
async fn the_older_data_of_a_replica_wins_over_a_new_empty_node() {
    let world = World::new(300, 5);
    world.start_operator().await;
    world.apply(&THREE.replace("nodes: 3", "nodes: 2")).await;
    world.until_ready("cache").await;
    let written = world.written();
    world.until("writes", Duration::from_mins(1), async || world.written() > written + 20).await;
    let master = world.master("cache").await;
    let record = world.stored("cache").await.record;
    let replica = record.incarnations.keys().find(|n| *n != &master).unwrap().clone();

    world.nodes.with(&replica, |n| n.powered = false);
    world
        .until("the master to go on alone", Duration::from_mins(1), async || {
            !world.stored("cache").await.record.incarnations[&replica].is_candidate()
        })
        .await;
    world.chain.close_lease(record.incarnations[&master].dseq);
    world
        .until("the master to be given up", Duration::from_mins(2), async || {
            world.stored("cache").await.record.master.is_none()
        })
        .await;
    world
        .until("a new node to be there", Duration::from_mins(4), async || {
            let record = world.stored("cache").await.record;
            record
                .incarnations
                .iter()
                .any(|(n, i)| n != &replica && i.has_joined() && i.condemned.is_none())
        })
        .await;
    let stored = world.stored("cache").await;
    assert_eq!(stored.record.master, None, "an empty node won while the replica may hold data");
    let problem = |c: &akash_redis::api::status::Condition| {
        c.kind == ConditionType::Degraded && c.reason == Reason::HistoryUnclear
    };
    assert!(stored.cluster.status.unwrap().conditions.iter().any(problem));

    world.nodes.with(&replica, |n| n.powered = true);
    world.until_ready("cache").await;
    assert_eq!(world.master("cache").await, replica);
    let held = world.nodes.with(&replica, |n| n.log.len());
    assert!(held > 20, "the replica's data is gone");
    world.assert_one_writer();
}
