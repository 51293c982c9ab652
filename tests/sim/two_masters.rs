//! Promises 2 and 4: never two masters that take writes, whoever is cut off from whom, whatever the
//! clocks say.

use std::time::Duration;

use akash_redis::api::annotations::{MASTER, MIGRATE};
use akash_redis::model::change::Change;
use akash_redis::model::ids::IncarnationName;
use akash_redis::model::node::Authority;
use akash_redis::model::time::UnixMs;
use akash_redis::node::commands::{Intent, Memory, decide};
use akash_redis::node::nonces::Freshness;
use akash_redis::store::sqlite::SqliteStore;
use akash_redis::store::{Leadership as _, next_term};

use crate::candidates::{others, running_with};
use crate::lifecycle::THREE;
use crate::world::many::in_a_world;

/// A member that is not in sync may keep the old master writable.
#[tokio::test(start_paused = true)]
async fn a_member_that_is_about_to_attach_is_detached_as_well() {
    let world = running_with(9002, THREE, 6).await;
    world.tailnet.lock().unwrap().refuses_tags = true;
    let master = world.master("cache").await;
    let replicas = others(&world, &master).await;
    // A migration of a replica: its successor is on its way.
    let moved = replicas[1].clone();
    world
        .edit("cache", |c| drop(c.metadata.annotations.insert(MIGRATE.to_owned(), moved.0.clone())))
        .await;
    let surge = async || {
        let record = world.stored("cache").await.record;
        record
            .incarnations
            .iter()
            .find(|(_, i)| i.replaces.is_some())
            .map(|(n, i)| (n.clone(), i.is_member()))
    };
    let mut known = None;
    world
        .until("the successor to be told to follow", Duration::from_mins(5), async || {
            let found = surge().await;
            if let Some((name, _)) = &found
                && known.is_none()
            {
                // Its first sync does not come to an end yet.
                world.nodes.cut(name, &master);
                known = Some(name.clone());
            }
            found.is_some_and(|(_, member)| member)
        })
        .await;
    let surge = known.unwrap();
    tokio::time::sleep(Duration::from_secs(15)).await;
    // Partition: {master, successor} | {operator, replicas}; the operator still reaches the
    // successor.
    world.nodes.with(&master, |n| n.reachable = false);
    for replica in &replicas {
        world.nodes.cut(replica, &master);
    }
    let deadline = world.clock.now() + Duration::from_mins(1);
    while world.stored("cache").await.record.change.is_none() {
        assert!(world.clock.now() < deadline, "no failover was seen");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The partition reaches the successor a moment after it was counted.
    world.nodes.with(&surge, |n| n.reachable = false);
    world.nodes.heal(&surge, &master);
    tokio::time::sleep(Duration::from_secs(30)).await;
    world.assert_one_writer();
}

/// Two nodes: the target of a switchover obeyed, and its answer is lost with the operator.
#[test]
fn a_two_node_target_that_obeyed_out_of_sight_makes_no_second_master() {
    let met = (1..=14).filter(|call| in_a_world(switchover_cut_at(*call))).count();
    assert!(met > 0, "the interleaving did not come about");
}

async fn switchover_cut_at(call: u64) -> bool {
    let world = running_with(9100 + call, &THREE.replace("nodes: 3", "nodes: 2"), 4).await;
    world.tailnet.lock().unwrap().refuses_tags = true;
    let master = world.master("cache").await;
    let target = others(&world, &master).await[0].clone();
    let to = target.0.clone();
    world.fuse.set(call);
    world.edit("cache", |c| drop(c.metadata.annotations.insert(MASTER.to_owned(), to))).await;
    if tokio::time::timeout(Duration::from_secs(20), world.fuse.blown()).await.is_err() {
        return false;
    }
    world.kill_operator().await;
    let record = world.stored("cache").await.record;
    let unconfirmed = match record.change {
        Some(Change::Switchover(s)) => s.delegated.is_some(),
        _ => record.master.is_some_and(|p| p.incarnation == target && !p.confirmed),
    };
    if !(unconfirmed && world.nodes.with(&target, |n| n.unfenced_master())) {
        return false;
    }
    world.nodes.with(&target, |n| {
        n.reachable = false;
        n.meshed = false;
    });
    world.start_operator().await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    world.assert_one_writer();
    true
}

/// The master's output is lost, its replicas' acknowledgements still arrive.
#[tokio::test(start_paused = true)]
async fn a_partition_that_carries_one_way_makes_no_second_master() {
    for tags in [true, false] {
        let world = running_with(9030, THREE, 5).await;
        world.tailnet.lock().unwrap().refuses_tags = !tags;
        let master = world.master("cache").await;
        for replica in others(&world, &master).await {
            world.nodes.mute(&master, &replica);
        }
        world.nodes.with(&master, |n| n.reachable = false);
        world
            .until("another master", Duration::from_mins(2), async || {
                world.master("cache").await != master
            })
            .await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        world.assert_one_writer();
        let report = world.stored("cache").await.record.last_failover.unwrap();
        assert_eq!(report.fence.contains("gone from the network maps"), tags, "{report:?}");
    }
}

/// downAfter was shortened while the master was cut off: it still goes by the longer lag that it
/// was told.
#[tokio::test(start_paused = true)]
async fn time_counts_by_the_lag_that_is_in_force_on_the_old_master() {
    let slow = THREE.replace("  nodes: 3", "  nodes: 3\n  failover: { downAfter: 60s }");
    let world = running_with(9031, &slow, 5).await;
    world.tailnet.lock().unwrap().refuses_tags = true;
    let master = world.master("cache").await;
    world.nodes.with(&master, |n| {
        n.reachable = false;
        n.meshed = false;
    });
    world.edit("cache", |c| c.spec.failover.down_after = "10s".parse().unwrap()).await;
    world
        .until("another master", Duration::from_mins(5), async || {
            world.master("cache").await != master
        })
        .await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    world.assert_one_writer();
}

#[tokio::test]
async fn two_copies_of_a_store_have_different_terms() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.db"), dir.path().join("b.db"));
    SqliteStore::open(&a).unwrap().take_over().await.unwrap();
    std::fs::copy(&a, &b).unwrap();
    let (one, two) = (
        SqliteStore::open(&a).unwrap().take_over().await.unwrap(),
        SqliteStore::open(&b).unwrap().take_over().await.unwrap(),
    );
    assert_ne!(one, two, "agents could not tell the two operators apart");
}

/// The runbook's way: a copy that is not older than the last change of master is put in place.
#[tokio::test]
async fn a_restored_store_is_obeyed() {
    let dir = tempfile::tempdir().unwrap();
    let (live, copy) = (dir.path().join("store.db"), dir.path().join("copy.db"));
    let mut term = SqliteStore::open(&live).unwrap().take_over().await.unwrap();
    std::fs::copy(&live, &copy).unwrap();
    // The operator is restarted twice; no master changes.
    for _ in 0..2 {
        term = term.max(SqliteStore::open(&live).unwrap().take_over().await.unwrap());
    }
    let agent = Memory { highest: Authority { term, epoch: 1 }, ..Memory::default() };
    let restored = SqliteStore::open(&copy).unwrap().take_over().await.unwrap();
    let answer =
        decide(&agent, 0, Freshness::Fresh, Authority { term: restored, epoch: 1 }, Intent::Other);
    assert!(answer.is_ok(), "term {restored}: {}", answer.unwrap_err());
}

#[test]
fn a_term_is_higher_than_every_one_before_it() {
    let (now, before) = (UnixMs(1_795_000_000_000), UnixMs(1_794_999_999_999));
    assert!(
        next_term(7, now, 0) > next_term(7, before, u32::MAX),
        "a later moment, whatever is random"
    );
    assert_eq!(
        next_term(u64::MAX >> 12, now, 5),
        (u64::MAX >> 12) + 6,
        "a clock that was set back"
    );
    assert!(next_term(7, now, u32::MAX) < 1 << 53);
}

/// Growing a cluster does not stop its writes: the minimum rises when it can be met.
#[tokio::test(start_paused = true)]
async fn scaling_from_one_to_three_does_not_stop_writes() {
    let world = running_with(9009, &THREE.replace("nodes: 3", "nodes: 1"), 5).await;
    world.nodes.state.lock().unwrap().application.longest_gap = 0;
    world.edit("cache", |c| c.spec.nodes = 3).await;
    world.until_ready("cache").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let gap = world.nodes.state.lock().unwrap().application.longest_gap;
    assert!(gap < 5_000, "writes stood still for {gap} ms");
    let master: IncarnationName = world.master("cache").await;
    assert_eq!(world.nodes.with(&master, |n| n.min_replicas), 1, "and then it is in force");
}
