//! Clocks that are wrong: the operator's between two of its processes, a node's all the time.

use std::time::Duration;

use super::{comes_up_and_goes, live, running};
use crate::world::Terms;

/// An operator is started again in the middle of a failover that time decides, on a machine whose
/// clock was set meanwhile.
#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_fences_no_master() {
    for (seed, ahead) in [(610, 40_000), (611, -40_000), (612, 3_600_000), (613, -3_600_000)] {
        let world = running(Terms::new(seed, 5)).await;
        world.tailnet.lock().unwrap().refuses_tags = true;
        let master = world.master("cache").await;
        world.nodes.with(&master, |n| (n.reachable, n.meshed) = (false, false));
        world
            .until("a failover", Duration::from_mins(1), async || {
                world.stored("cache").await.record.change.is_some()
            })
            .await;
        world.kill_operator().await;
        world.operator_clock.set_ahead(ahead);
        world.start_operator().await;
        world
            .until("another master", Duration::from_mins(2), async || {
                world.master("cache").await != master
            })
            .await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        world.assert_one_writer();
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_whose_clocks_are_wrong_are_nodes_like_any_other() {
    let world = running(Terms::new(614, 5)).await;
    let nodes = live(&world).await;
    for (node, ahead) in nodes.iter().zip([-7_200_000, 7_200_000, 60_000]) {
        world.nodes.with(node, |n| n.clock_ahead = ahead);
    }
    // Nothing but its page tells of the master's death.
    world.nodes.with(&nodes[0], |n| {
        n.reachable = false;
        n.kill_redis();
    });
    world
        .until("another master", Duration::from_mins(2), async || {
            world.master("cache").await != nodes[0]
        })
        .await;
    let report = world.stored("cache").await.record.last_failover.expect("a report");
    assert!(report.fence.contains("signed status page"), "{report:?}");
    world.nodes.with(&nodes[0], |n| n.reachable = true);
    comes_up_and_goes(&world, "cache").await;
}
