//! Redis, or an agent of an earlier version, does not take what a manifest says.

use std::time::Duration;

use akash_redis::store::Objects as _;

use super::{running_as, told};
use crate::lifecycle::THREE;
use crate::world::node::{Node, REFUSED};
use crate::world::{Terms, World};

#[tokio::test(start_paused = true)]
async fn a_setting_that_redis_refuses_stops_neither_the_first_master_nor_a_failover() {
    let yaml = format!("{THREE}  redis: {{ config: {{ {REFUSED}: yes }} }}\n");
    let world = running_as(Terms::new(520, 6), &yaml).await;
    let words = ["spec.redis.config.activedefrag", "refused `yes`", "no jemalloc"];
    told(&world, "cache", "SettingsApplied", "False", &words).await;
    told(&world, "cache", "Degraded", "True", &words).await;
    let old = world.master("cache").await;
    world.nodes.with(&old, Node::kill_redis);
    world
        .until("another master", Duration::from_secs(30), async || {
            world.master("cache").await != old
        })
        .await;
    world.until_ready("cache").await;
    let before = world.written();
    world.until("writes", Duration::from_mins(1), async || world.written() > before + 20).await;
    world.edit("cache", |c| drop(c.spec.redis.config.remove(REFUSED))).await;
    told(&world, "cache", "SettingsApplied", "True", &[]).await;
    world.assert_one_writer();
}

/// It refuses the whole of them, again and again, and the pauses grow to half a minute.
#[tokio::test(start_paused = true)]
async fn a_manifest_that_is_corrected_does_not_wait_for_what_failed_before() {
    let world = running_as(Terms::new(521, 6), THREE).await;
    let nodes: Vec<_> = world.stored("cache").await.record.incarnations.keys().cloned().collect();
    for name in &nodes {
        world.nodes.with(name, |node| node.outdated = true);
    }
    world.edit("cache", |c| drop(c.spec.redis.config.insert(REFUSED.into(), "yes".into()))).await;
    told(&world, "cache", "Degraded", "True", &["refused: it does not know activedefrag"]).await;
    tokio::time::sleep(Duration::from_mins(5)).await;
    told(&world, "cache", "SettingsApplied", "False", &["it does not know activedefrag"]).await;
    world
        .edit("cache", |c| {
            c.spec.redis.config.clear();
            c.spec.redis.config.insert("timeout".into(), "9".into());
        })
        .await;
    let wanted = world.stored("cache").await.cluster.metadata.generation.unwrap();
    world
        .until("settings in force", Duration::from_secs(5), async || in_force(&world, wanted).await)
        .await;
}

async fn in_force(world: &World, generation: u64) -> bool {
    let status = world.store.get("cache").await.unwrap().cluster.status.unwrap_or_default();
    status.observed_generation == generation
        && status
            .conditions
            .iter()
            .any(|c| c.kind.to_string() == "SettingsApplied" && c.status.to_string() == "True")
}
