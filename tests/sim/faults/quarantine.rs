//! A master that neither obeys nor dies is shut off from the mesh, and let in again when it can do
//! no harm.

use std::sync::Arc;
use std::time::Duration;

use akash_redis::api::conditions::Phase;
use akash_redis::model::change::FailoverReport;
use akash_redis::model::ids::IncarnationName;
use akash_redis::model::node::Role;

use super::{comes_up_and_goes, live, running, told};
use crate::world::many::{in_many_worlds, setting};
use crate::world::mesh::{CLUSTER_TAG, QUARANTINE_TAG};
use crate::world::node::Node;
use crate::world::{Terms, World};

/// Before so many milliseconds time alone is no proof: max-lag of 8 s and 2 s more, from the last
/// exchange just before the death.
const BY_TIME: u64 = 9_500;
/// Calls of a failover with a quarantine, from the death to the old master's return.
const CALLS: u64 = 40;
/// A write that only a master has that was cut off.
const OWN_WRITE: u64 = u64::MAX;

/// The tags that the tailnet knows of a node's device.
fn tags(world: &World, name: &IncarnationName) -> Vec<String> {
    let device = world.nodes.with(name, |n| n.device.clone());
    let tailnet = world.tailnet.lock().unwrap();
    tailnet.devices.iter().filter(|d| d.id == device).flat_map(|d| d.tags.clone()).collect()
}

/// The report of the failover away from `old`, and when it promoted, in milliseconds.
async fn failed_over(world: &World, old: &IncarnationName) -> (FailoverReport, u64) {
    let report =
        async || world.stored("cache").await.record.last_failover.filter(|r| r.old == old.0);
    world.until("a failover", Duration::from_mins(2), async || report().await.is_some()).await;
    let report = report().await.unwrap();
    let promoted = report.steps_ms.iter().find(|(what, _)| what == "promoted").unwrap().1;
    (report, promoted)
}

/// Redis of the old master goes on where it stopped, with a write that nobody else has; at the end
/// it follows.
async fn wakes_up_and_follows(world: &World, old: &IncarnationName) {
    world.nodes.with(old, |n| {
        n.log.push(OWN_WRITE);
        n.thaw_redis();
    });
    world
        .until("Ready", Duration::from_mins(20), async || {
            let master = world.nodes.with(old, |n| n.role == Role::Master);
            assert!(
                !master || tags(world, old) == [QUARANTINE_TAG],
                "it was let in before its redis was demoted"
            );
            world.ready("cache").await && tags(world, old) == [CLUSTER_TAG]
        })
        .await;
    assert!(
        world.nodes.with(old, |n| !n.saved.is_empty()),
        "what only it had was overwritten without a snapshot"
    );
    world.assert_one_writer();
}

#[tokio::test(start_paused = true)]
async fn the_mesh_fences_a_master_that_hangs_before_time_does() {
    let world = running(Terms::new(400, 5)).await;
    let old = world.master("cache").await;
    world.nodes.with(&old, Node::freeze_redis);
    let (report, promoted) = failed_over(&world, &old).await;
    assert!(
        report.fence.contains("is in quarantine, and gone from the network maps of"),
        "{report:?}"
    );
    assert!(promoted < BY_TIME, "{report:?}");
    let phase = async || {
        world
            .stored("cache")
            .await
            .cluster
            .status
            .unwrap()
            .nodes
            .into_iter()
            .find(|n| n.incarnation == old.0)
            .unwrap()
            .phase
    };
    assert_eq!(phase().await, Phase::Quarantined);
    wakes_up_and_follows(&world, &old).await;
    assert_eq!(phase().await, Phase::Replica);
    comes_up_and_goes(&world, "cache").await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_hear_the_control_server_is_named_and_time_decides() {
    let world = running(Terms::new(401, 5)).await;
    let nodes = live(&world).await;
    let (old, deaf) = (&nodes[0], &nodes[1]);
    world.nodes.with(deaf, |n| n.hears_control = false);
    world.nodes.with(old, Node::freeze_redis);
    let (report, promoted) = failed_over(&world, old).await;
    assert!(
        report.fence.contains("heard no replica")
            && report.fence.contains(&format!("{deaf} could not confirm")),
        "{report:?}"
    );
    assert!(
        promoted >= BY_TIME,
        "the mesh was taken for a proof although {deaf} still sees the old master: {report:?}"
    );
    told(&world, "cache", "Degraded", "True", &["cannot hear the control server", &deaf.0]).await;
    world.nodes.with(deaf, |n| n.hears_control = true);
    wakes_up_and_follows(&world, old).await;
    comes_up_and_goes(&world, "cache").await;
}

/// A list with first labels for names, as headscale gives it, and an operator that never heard the
/// old master: nothing but its device's id tells that a node which does not hear the control server
/// still sees it.
#[tokio::test(start_paused = true)]
async fn a_list_of_short_names_proves_no_absence() {
    let world = running(Terms::new(404, 5)).await;
    let nodes = live(&world).await;
    let (old, deaf) = (&nodes[0], &nodes[1]);
    world.tailnet.lock().unwrap().short_names = true;
    world.nodes.with(deaf, |n| n.hears_control = false);
    world.kill_operator().await;
    world.nodes.with(old, |n| (n.reachable, n.meshed) = (false, false));
    world.start_operator().await;
    let (report, _) = failed_over(&world, old).await;
    assert!(
        !report.fence.contains("gone from the network maps"),
        "{deaf} still sees the old master: {report:?}"
    );
    world.assert_one_writer();
}

#[tokio::test(start_paused = true)]
async fn the_mesh_fences_where_lists_have_short_names() {
    let world = running(Terms::new(405, 5)).await;
    world.tailnet.lock().unwrap().short_names = true;
    let old = world.master("cache").await;
    world.nodes.with(&old, Node::freeze_redis);
    let (report, promoted) = failed_over(&world, &old).await;
    assert!(
        report.fence.contains("gone from the network maps of") && promoted < BY_TIME,
        "{report:?}"
    );
    wakes_up_and_follows(&world, &old).await;
    comes_up_and_goes(&world, "cache").await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_without_the_quarantine_tag_leaves_it_to_time_and_is_told() {
    let world = running(Terms::new(402, 5)).await;
    let old = world.master("cache").await;
    world.tailnet.lock().unwrap().refuses_tags = true;
    world.nodes.with(&old, Node::freeze_redis);
    let (report, promoted) = failed_over(&world, &old).await;
    assert!(report.fence.contains("heard no replica") && promoted >= BY_TIME, "{report:?}");
    told(&world, "cache", "Degraded", "True", &["tagOwners must give tag:akash-redis-quarantine"])
        .await;
    world.nodes.with(&old, Node::thaw_redis);
    comes_up_and_goes(&world, "cache").await;
}

#[tokio::test(start_paused = true)]
async fn a_failover_that_is_abandoned_lets_the_old_master_out_again() {
    let world = running(Terms::new(403, 5)).await;
    let nodes = live(&world).await;
    let old = &nodes[0];
    // The tag is given, and the operator hears of it late.
    world.tailnet.lock().unwrap().slow_answer = Duration::from_secs(4);
    world.nodes.with(old, Node::freeze_redis);
    world
        .until("the quarantine", Duration::from_secs(30), async || {
            tags(&world, old) == [QUARANTINE_TAG]
        })
        .await;
    for replica in &nodes[1..] {
        world.nodes.with(replica, Node::kill_redis);
    }
    world
        .until("nobody to take over", Duration::from_mins(2), async || {
            world.stored("cache").await.record.change.is_none()
        })
        .await;
    assert_eq!(&world.master("cache").await, old);
    world.nodes.with(old, Node::thaw_redis);
    world.until_ready("cache").await;
    assert_eq!(
        (tags(&world, old), &world.master("cache").await),
        (vec![CLUSTER_TAG.to_owned()], old)
    );
    assert_eq!(world.lost_writes("cache").await, 0);
    comes_up_and_goes(&world, "cache").await;
}

/// The operator dies at its n-th call after the master began to hang.
#[test]
fn a_crash_in_the_middle_of_a_quarantine_ends_the_same() {
    in_many_worlds(1..=CALLS, setting("SIM_STRIDE", 4), async |n| {
        let world: Arc<World> = running(Terms::new(5000 + n, 5)).await;
        let watcher = world.restart_after_crashes();
        let old = world.master("cache").await;
        world.fuse.set(n);
        world.nodes.with(&old, Node::freeze_redis);
        world
            .until("another master", Duration::from_mins(5), async || {
                world.master("cache").await != old
            })
            .await;
        wakes_up_and_follows(&world, &old).await;
        assert!(world.operator_starts() > 1, "the fuse at call {n} did not blow");
        comes_up_and_goes(&world, "cache").await;
        watcher.abort();
        world.kill_operator().await;
    });
}
