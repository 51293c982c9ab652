//! A person's word about who is master, as the whole operator obeys it.

use std::time::Duration;

use akash_redis::api::annotations::{ACCEPT_LOSS, FENCE};
use akash_redis::api::conditions::Reason;
use akash_redis::model::ids::IncarnationName;

use crate::candidates::{others, running_with};
use crate::lifecycle::THREE;
use crate::world::World;
use crate::world::node::Node;

async fn says(world: &World, key: &str, value: &str) {
    let value = value.to_owned();
    world.edit("cache", |c| drop(c.metadata.annotations.insert(key.to_owned(), value))).await;
}

async fn until_stopped(world: &World, master: &IncarnationName) {
    world
        .until("writes to stop", Duration::from_mins(1), async || {
            !world.nodes.with(master, |n| n.unfenced_master())
        })
        .await;
}

async fn until_writes(world: &World) {
    let before = world.written();
    world.until("writes", Duration::from_mins(1), async || world.written() > before + 20).await;
}

/// The operator dies meanwhile and starts again; replicas and time change nothing.
#[tokio::test(start_paused = true)]
async fn a_fenced_master_takes_no_writes_until_somebody_says_so() {
    let world = running_with(9601, THREE, 5).await;
    let master = world.master("cache").await;
    says(&world, FENCE, "0,1,2").await;
    until_stopped(&world, &master).await;
    let written = world.written();
    tokio::time::sleep(Duration::from_mins(2)).await;
    world.kill_operator().await;
    world.start_operator().await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(world.written(), written, "nobody takes writes");
    assert_eq!(world.master("cache").await, master);
    let status = world.stored("cache").await.cluster.status.unwrap();
    assert!(status.problems().any(|reason| reason == Reason::FencedByPerson));
    says(&world, FENCE, "").await;
    until_writes(&world).await;
    world.until_ready("cache").await;
    assert_eq!(world.master("cache").await, master);
    assert_eq!(world.lost_writes("cache").await, 0);
    world.assert_one_writer();
}

#[tokio::test(start_paused = true)]
async fn a_person_has_another_one_take_over_and_nothing_is_lost() {
    let world = running_with(9602, THREE, 5).await;
    let master = world.master("cache").await;
    let last = others(&world, &master).await.pop().expect("a replica");
    says(&world, FENCE, &master.0).await;
    until_stopped(&world, &master).await;
    let epoch = world.stored("cache").await.record.epoch;
    says(&world, ACCEPT_LOSS, &format!("{epoch} to={last} by=ann@laptop")).await;
    world
        .until("another master", Duration::from_mins(1), async || {
            world.master("cache").await == last
        })
        .await;
    until_writes(&world).await;
    assert_eq!(world.lost_writes("cache").await, 0);
    let report = world.stored("cache").await.record.last_failover.expect("a report");
    assert_eq!(report.accepted_by.as_deref(), Some("ann@laptop"));
    // The fence stays: it follows, and takes nobody's place.
    world.nodes.with(&last, Node::kill_redis);
    world
        .until("a third one", Duration::from_mins(1), async || {
            let now = world.master("cache").await;
            now != last && now != master
        })
        .await;
    until_writes(&world).await;
    world.assert_one_writer();
}
