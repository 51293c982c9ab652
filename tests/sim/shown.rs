//! What people are shown of a cluster fits on a terminal.

use std::time::Duration;

use akash_redis::api::annotations::MIGRATE;
use akash_redis::cli::show;
use akash_redis::store::Events as _;

use crate::lifecycle::THREE;
use crate::world::World;

/// The longest name that there is.
const NAME: &str = "a-name-of-20-letters";

#[tokio::test(start_paused = true)]
async fn the_description_of_a_cluster_is_a_hundred_columns_wide_at_most() {
    let world = World::new(83, 6);
    world.start_operator().await;
    world.apply(&THREE.replace("name: cache", &format!("name: {NAME}"))).await;
    let mut seen = 0;
    let mut look = async || {
        let (stored, events) = (world.stored(NAME).await, world.store.events(NAME).await.unwrap());
        let text = show::describe(&stored.cluster, &events, world.clock.now());
        for line in text.lines() {
            assert!(line.chars().count() <= show::WIDTH, "{}: {line}\n{text}", line.len());
        }
        seen += text.len();
        text
    };
    for _ in 0..20 {
        look().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    world.until_ready(NAME).await;
    // Every part has something to say.
    let dead = world.master(NAME).await;
    world.nodes.with(&dead, |n| n.powered = false);
    world
        .until("a failover", Duration::from_mins(5), async || world.master(NAME).await != dead)
        .await;
    look().await;
    world.until_ready(NAME).await;
    let one = world.stored(NAME).await.record.incarnations.keys().next().cloned().unwrap();
    world.edit(NAME, |c| drop(c.metadata.annotations.insert(MIGRATE.into(), one.0.clone()))).await;
    for _ in 0..20 {
        look().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let text = look().await;
    for part in ["Nodes", "Leases", "Conditions", "Cost", "Last failover", "Last events"] {
        assert!(text.contains(&format!("\n{part}\n")), "{part} in\n{text}");
    }
    assert!(seen > 10_000, "there was little to see");
}
