//! What is measured of changes of master, effects and the chain is what happened.

use std::time::Duration;

use akash_redis::api::annotations::MASTER;

use crate::candidates::{others, running_with};
use crate::lifecycle::THREE;
use crate::world::World;
use crate::world::node::Node;

/// How many there were of a cluster's.
fn count(world: &World, name: &str) -> Option<f64> {
    world.metric(&format!("{name}_count{{cluster=\"cache\"}}"))
}

/// The seconds that they took together.
fn seconds(world: &World, name: &str) -> Option<f64> {
    world.metric(&format!("{name}_sum{{cluster=\"cache\"}}"))
}

async fn until_master_is_another(world: &World) {
    let old = world.master("cache").await;
    world
        .until("another master", Duration::from_mins(2), async || {
            world.master("cache").await != old && world.ready("cache").await
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn planned_and_unplanned_changes_are_told_apart_and_timed() {
    let world = running_with(9700, THREE, 6).await;
    for name in ["failover_seconds", "switchover_seconds"] {
        assert_eq!(count(&world, name), None, "there was none yet");
    }
    let target = others(&world, &world.master("cache").await).await.remove(0);
    let asked = format!("{target}@{}", world.stored("cache").await.record.epoch);
    world.edit("cache", |c| drop(c.metadata.annotations.insert(MASTER.into(), asked))).await;
    until_master_is_another(&world).await;
    assert_eq!(count(&world, "switchover_seconds"), Some(1.0));
    let held = seconds(&world, "switchover_seconds").expect("a switchover");
    assert!(held < 5.0, "{held} s");
    assert_eq!(count(&world, "failover_seconds"), None, "it was planned");

    let old = world.master("cache").await;
    world.nodes.with(&old, Node::kill_redis);
    until_master_is_another(&world).await;
    assert_eq!(count(&world, "failover_seconds"), Some(1.0));
    let took = seconds(&world, "failover_seconds").expect("a failover");
    let report = world.stored("cache").await.record.last_failover.expect("a report");
    let writable = report.steps_ms.iter().find(|(step, _)| step == "writable").expect("an end").1;
    let told = Duration::from_millis(writable).as_secs_f64();
    assert!((took - told).abs() < 1e-9, "{took} s, and {writable} ms are told");
    assert_eq!(count(&world, "failover_fence_seconds"), Some(1.0));
    assert_eq!(seconds(&world, "failover_fence_seconds"), Some(0.0), "its death is one");
    assert_eq!(count(&world, "failover_detection_seconds"), Some(1.0));
    let before = seconds(&world, "failover_detection_seconds").expect("a death");
    assert!(before < 2.0, "its agent says so: {before} s");

    // A node of which nobody hears anything: silence takes its time.
    world.until_ready("cache").await;
    let old = world.master("cache").await;
    world.nodes.with(&old, |n| n.powered = false);
    world
        .until("the second failover", Duration::from_mins(2), async || {
            count(&world, "failover_seconds") == Some(2.0)
        })
        .await;
    assert_eq!(count(&world, "failover_detection_seconds"), Some(2.0));
    let after = seconds(&world, "failover_detection_seconds").expect("a second death");
    assert!(after - before > 2.0, "{after} s");
}

#[tokio::test(start_paused = true)]
async fn effects_are_counted_by_kind_and_end_and_the_chain_by_its_newest_block() {
    let world = running_with(9701, THREE, 6).await;
    let count = |kind: &str, end: &str| {
        world.metric(&format!("effect_seconds_count{{kind=\"{kind}\",end=\"{end}\"}}"))
    };
    for kind in ["create_deployment", "create_lease"] {
        assert_eq!(count(kind, "ok"), Some(3.0), "{kind}");
    }
    for kind in ["deliver_manifest", "configure", "promote", "follow"] {
        assert!(count(kind, "ok").is_some_and(|times| times >= 1.0), "{kind}");
    }
    let ok = world.metric("effects_total{cluster=\"cache\",ok=\"true\"}").expect("effects");
    assert!(ok >= 12.0, "{ok}");
    let height = world.metric("chain_height").expect("a height");
    let age = |world: &World| {
        let made = world.metric("chain_block_timestamp_seconds").expect("a time");
        Duration::from_millis(world.clock.now().0).as_secs_f64() - made
    };
    assert!(height > 1.0 && (0.0..60.0).contains(&age(&world)), "{height}, {} s", age(&world));
    world
        .until("the chain to go on", Duration::from_mins(5), async || {
            world.metric("chain_height") > Some(height)
        })
        .await;
    world.delete("cache").await;
    world.until_gone("cache").await;
    world
        .until("its series to go", Duration::from_mins(1), async || {
            world.metric("effects_total{cluster=\"cache\",ok=\"true\"}").is_none()
        })
        .await;
    assert_eq!(count("close_deployment", "ok"), Some(3.0), "what was done stays counted");
}
