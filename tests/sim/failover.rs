//! Promises 1 to 4: how a master moves.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use akash_redis::api::conditions::{ConditionStatus, ConditionType, KnownBy};

use crate::lifecycle::THREE;
use crate::world::World;
use crate::world::many::{in_many_worlds, setting};
use crate::world::node::Node;

/// Effects of a failover, before and after each; a migration has more.
const CALLS_OF_A_FAILOVER: u64 = 20;
const CALLS_OF_A_MIGRATION: u64 = 60;

async fn running(seed: u64) -> Arc<World> {
    let world = World::new(seed, 6);
    world.start_operator().await;
    world.apply(THREE).await;
    world.until_ready("cache").await;
    let before = world.written();
    world.until("writes", Duration::from_mins(1), async || world.written() > before + 20).await;
    world
}

async fn writes_go_on(world: &Arc<World>) {
    let before = world.written();
    world
        .until("writes after the change", Duration::from_mins(5), async || {
            world.written() > before + 20
        })
        .await;
    world.assert_one_writer();
}

#[tokio::test(start_paused = true)]
async fn redis_of_the_master_dies() {
    let world = running(10).await;
    let old = world.master("cache").await;
    world.nodes.with(&old, Node::kill_redis);
    world
        .until("another master", Duration::from_secs(30), async || {
            world.master("cache").await != old
        })
        .await;
    writes_go_on(&world).await;
    world.until_ready("cache").await;
    let report = world.stored("cache").await.record.last_failover.expect("a report");
    assert_eq!(report.old, old.0);
    assert!(!report.witnesses.is_empty() && !report.fence.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_node_of_the_master_vanishes_and_is_replaced() {
    let world = running(11).await;
    let old = world.master("cache").await;
    world.nodes.with(&old, |n| n.powered = false);
    world
        .until("another master", Duration::from_mins(2), async || {
            world.master("cache").await != old
        })
        .await;
    writes_go_on(&world).await;
    world
        .until("a replacement", Duration::from_mins(30), async || {
            world.ready("cache").await
                && !world.stored("cache").await.record.incarnations.contains_key(&old)
        })
        .await;
    assert_eq!(world.chain.active_deployments().len(), 3, "the lost node's deployment is closed");
}

#[tokio::test(start_paused = true)]
async fn a_master_that_only_the_operator_cannot_reach_stays_master() {
    let world = running(12).await;
    let old = world.master("cache").await;
    world.nodes.with(&old, |n| n.reachable = false);
    let before = world.written();
    world
        .until("a minute of writes", Duration::from_mins(5), async || {
            world.written() > before + 600
        })
        .await;
    assert_eq!(world.master("cache").await, old);
    let status = world.stored("cache").await.cluster.status.unwrap();
    assert!(
        status
            .conditions
            .iter()
            .any(|c| c.kind == ConditionType::Degraded && c.status == ConditionStatus::True),
        "{:?}",
        status.conditions
    );
    world.assert_one_writer();
}

#[tokio::test(start_paused = true)]
async fn a_master_cut_off_from_everybody_stops_before_the_next_one_starts() {
    let world = running(13).await;
    let old = world.master("cache").await;
    world.nodes.with(&old, |n| {
        n.reachable = false;
        n.meshed = false;
    });
    world
        .until("another master", Duration::from_mins(2), async || {
            world.master("cache").await != old
        })
        .await;
    writes_go_on(&world).await;
    // It comes back with writes of its own that nobody has: they are kept before it follows.
    world.nodes.with(&old, |n| {
        n.reachable = true;
        n.meshed = true;
    });
    world.until_ready("cache").await;
    world.assert_one_writer();
    let report = world.stored("cache").await.record.last_failover.expect("a report");
    assert!(report.lost_bytes.is_some_and(|bytes| bytes > 0), "it wrote alone: {report:?}");
    assert!(
        world.nodes.with(&old, |n| !n.saved.is_empty()),
        "its own writes were wiped without a snapshot: {report:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_master_that_dies_out_of_sight_is_given_up_by_its_own_signed_page() {
    let world = running(15).await;
    let old = world.master("cache").await;
    world.nodes.with(&old, |n| {
        n.reachable = false;
        n.kill_redis();
    });
    world
        .until("another master", Duration::from_mins(2), async || {
            world.master("cache").await != old
        })
        .await;
    writes_go_on(&world).await;
    let report = world.stored("cache").await.record.last_failover.expect("a report");
    let page = format!("status page of {old}");
    assert!(
        report.witnesses.contains(&page) && report.fence.contains("signed status page"),
        "{report:?}"
    );
    let node = world
        .stored("cache")
        .await
        .cluster
        .status
        .unwrap()
        .nodes
        .into_iter()
        .find(|n| n.incarnation == old.0)
        .unwrap();
    assert_eq!(node.known_by, KnownBy::StatusPage, "{node:?}");
    assert!(node.message.unwrap().contains("its status page says: mesh Running"));
    world.nodes.with(&old, |n| n.reachable = true);
    world.until_ready("cache").await;
    world.assert_one_writer();
}

/// A provider may run a second container of the master: its page says that its redis takes no
/// writes, and the first one's may take them.
#[tokio::test(start_paused = true)]
async fn the_page_of_another_start_of_the_agent_proves_nothing() {
    let world = running(17).await;
    let old = world.master("cache").await;
    world.nodes.with(&old, |n| {
        n.reachable = false;
        n.boots += 1;
        n.kill_redis();
    });
    world
        .until("another master", Duration::from_mins(2), async || {
            world.master("cache").await != old
        })
        .await;
    let report = world.stored("cache").await.record.last_failover.expect("a report");
    assert!(
        report.reason.contains("silent") && !report.fence.contains("status page"),
        "{report:?}"
    );
    writes_go_on(&world).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_page_the_providers_word_is_named() {
    let world = running(16).await;
    let old = world.master("cache").await;
    world.gateway.pages_away.store(true, Ordering::SeqCst);
    world.nodes.with(&old, |n| n.powered = false);
    world
        .until("another master", Duration::from_mins(2), async || {
            world.master("cache").await != old
        })
        .await;
    let report = world.stored("cache").await.record.last_failover.expect("a report");
    let named = report
        .witnesses
        .iter()
        .any(|w| w.starts_with(&format!("lease status of {old} (its provider says")));
    assert!(named, "{:?}", report.witnesses);
    writes_go_on(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_minority_changes_nothing() {
    let world = running(14).await;
    let old = world.master("cache").await;
    let others: Vec<_> =
        world.stored("cache").await.record.incarnations.into_keys().filter(|n| n != &old).collect();
    world.nodes.with(&others[0], |n| n.powered = false);
    world.nodes.with(&old, |n| n.powered = false);
    tokio::time::sleep(Duration::from_mins(3)).await;
    assert_eq!(world.master("cache").await, old, "one replica of two is no majority");
    // With the other replica back there is one.
    world.nodes.with(&others[0], |n| n.powered = true);
    world
        .until("another master", Duration::from_mins(2), async || {
            world.master("cache").await != old
        })
        .await;
    world.assert_one_writer();
}

/// A replica that is away from its master and not from the operator.
#[tokio::test(start_paused = true)]
async fn a_replica_that_its_master_went_on_without_is_not_promoted() {
    let world = World::new(15, 5);
    world.start_operator().await;
    world.apply(&THREE.replace("nodes: 3", "nodes: 2")).await;
    world.until_ready("cache").await;
    let master = world.master("cache").await;
    let record = world.stored("cache").await.record;
    let replica = record.incarnations.into_keys().find(|n| n != &master).unwrap();
    world.nodes.with(&replica, |n| n.meshed = false);
    let candidate =
        async || world.stored("cache").await.record.incarnations[&replica].is_candidate();
    world
        .until("the master to go on alone", Duration::from_mins(1), async || !candidate().await)
        .await;
    let alone = world.written();
    world
        .until("writes alone", Duration::from_mins(1), async || world.written() > alone + 20)
        .await;
    world.nodes.with(&master, Node::kill_redis);
    writes_go_on(&world).await;
    assert_eq!((world.master("cache").await, world.lost_writes("cache").await), (master, 0));
}

#[tokio::test(start_paused = true)]
async fn migration_loses_nothing() {
    for ordinal in 0..3u32 {
        let world = running(20 + u64::from(ordinal)).await;
        let leaver = {
            let record = world.stored("cache").await.record;
            record.incarnations.iter().find(|(_, i)| i.ordinal == ordinal).unwrap().0.clone()
        };
        world
            .edit("cache", |c| {
                c.metadata
                    .annotations
                    .insert(akash_redis::api::annotations::MIGRATE.to_owned(), leaver.0.clone());
            })
            .await;
        world
            .until("the move", Duration::from_mins(20), async || {
                world.ready("cache").await
                    && !world.stored("cache").await.record.incarnations.contains_key(&leaver)
            })
            .await;
        writes_go_on(&world).await;
        assert_eq!(world.lost_writes("cache").await, 0, "node {ordinal}");
        assert_eq!(world.chain.active_deployments().len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn scaling_up_and_down() {
    let world = running(30).await;
    world.edit("cache", |c| c.spec.nodes = 5).await;
    world.until_ready("cache").await;
    assert_eq!(world.chain.active_deployments().len(), 5);
    world.edit("cache", |c| c.spec.nodes = 2).await;
    world
        .until("two nodes", Duration::from_mins(20), async || {
            world.ready("cache").await && world.chain.active_deployments().len() == 2
        })
        .await;
    writes_go_on(&world).await;
    assert_eq!(world.lost_writes("cache").await, 0);
}

/// The operator dies at its n-th call after the master's death, or after a person asked to migrate
/// the master.
#[test]
fn a_crash_in_the_middle_of_a_change_ends_the_same() {
    in_many_worlds(1..=CALLS_OF_A_FAILOVER, setting("SIM_STRIDE", 3), |n| {
        crash_in_a_change(n, false)
    });
    in_many_worlds(1..=CALLS_OF_A_MIGRATION, setting("SIM_STRIDE", 5), |n| {
        crash_in_a_change(n, true)
    });
}

async fn crash_in_a_change(n: u64, migrate: bool) {
    let world = running(2000 + n).await;
    let watcher = world.restart_after_crashes();
    world.fuse.set(n);
    let old = world.master("cache").await;
    if migrate {
        world
            .edit("cache", |c| {
                c.metadata
                    .annotations
                    .insert(akash_redis::api::annotations::MIGRATE.to_owned(), old.0.clone());
            })
            .await;
    } else {
        world.nodes.with(&old, Node::kill_redis);
    }
    world
        .until("the change", Duration::from_mins(30), async || {
            let stored = world.stored("cache").await;
            let moved =
                stored.record.master.as_ref().is_some_and(|p| p.incarnation != old || !migrate);
            let left = !migrate || !stored.record.incarnations.contains_key(&old);
            world.ready("cache").await && stored.record.change.is_none() && moved && left
        })
        .await;
    writes_go_on(&world).await;
    assert!(world.operator_starts() > 1, "the fuse at call {n} did not blow");
    assert_eq!(world.chain.active_deployments().len(), 3, "seed {}", world.seed);
    world.delete("cache").await;
    world.until_gone("cache").await;
    world.assert_nothing_left();
    watcher.abort();
    world.kill_operator().await;
}
