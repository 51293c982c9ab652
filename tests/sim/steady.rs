//! Where nothing happens, nothing is written: what is measured moves all the time, and waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::candidates::running_with;
use crate::lifecycle::THREE;
use crate::world::World;
use crate::world::many::in_a_world;

/// What came before has come to its end by then.
const SETTLED: Duration = Duration::from_mins(10);
/// Measures are written on their own no sooner than after half an hour.
const SHORT: Duration = Duration::from_mins(20);
/// They are written at least each hour.
const LONG: Duration = Duration::from_hours(2);

/// Measures of the status that the API shows.
async fn shown(world: &Arc<World>) -> String {
    let mut cluster = world.stored("cache").await.cluster;
    world.shown().refresh(&mut cluster);
    cluster.status.unwrap().cost.spent
}

/// Writes of the operator while so much time passes.
async fn written_within(world: &World, span: Duration) -> u64 {
    let before = world.fuse.writes.load(Ordering::SeqCst);
    tokio::time::sleep(span).await;
    world.fuse.writes.load(Ordering::SeqCst) - before
}

#[test]
fn a_cluster_to_which_nothing_happens_costs_no_write() {
    in_a_world(async {
        let world = running_with(30_001, THREE, 5).await;
        tokio::time::sleep(SETTLED).await;
        // Two clocks run: that of the first look, and that of the last write. Between the writes for
        // measures alone there is none.
        let (mut quiet, mut all) = (0, 0);
        for _ in 0..LONG.as_secs() / SHORT.as_secs() {
            let (stored, before) = (world.stored("cache").await, shown(&world).await);
            let writes = written_within(&world, SHORT).await;
            assert_ne!(shown(&world).await, before, "whoever asks sees what was paid since");
            let after = world.stored("cache").await;
            assert_eq!(after.record, stored.record);
            assert!(writes <= 1, "{writes} writes within {SHORT:?}: {:?}", after.cluster.status);
            quiet += u64::from(writes == 0);
            all += writes;
        }
        println!("{all} writes within {LONG:?}, none in {quiet} spans of {SHORT:?}");
        assert!((2..=4).contains(&all), "each hour or a little sooner, and not more: {all}");
        // What happens is written at once, with the measures of that moment.
        world.edit("cache", |c| c.spec.paused = true).await;
        let told = async || {
            let status = world.stored("cache").await.cluster.status.unwrap();
            status.cost.spent == shown(&world).await && written_paused(&status)
        };
        world.until("the pause to be told", Duration::from_secs(10), told).await;
        world.assert_one_writer();
    });
}

fn written_paused(status: &akash_redis::api::status::Status) -> bool {
    status.conditions.iter().any(|condition| condition.reason.to_string() == "Paused")
}
