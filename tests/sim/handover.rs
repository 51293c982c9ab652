//! Promises 3 and 6 in a planned change of master: whatever fails on the way, and wherever the
//! operator dies, one node takes writes and none that was acknowledged is lost.

use std::sync::Arc;
use std::time::Duration;

use akash_redis::api::annotations::MASTER;
use akash_redis::model::change::Change;
use akash_redis::model::ids::IncarnationName;

use crate::candidates::{others, running_with};
use crate::confirmed::confirmed;
use crate::lifecycle::THREE;
use crate::world::World;
use crate::world::many::{in_a_world, in_many_worlds, setting};
use crate::world::node::Node;

/// A cluster that runs, its master, the master to be and the third node. Writes are confirmed in every
/// second one.
async fn cluster(seed: u64) -> (Arc<World>, IncarnationName, IncarnationName, IncarnationName) {
    let confirms = seed % 2 == 1;
    let manifest = if confirms { confirmed(1) } else { THREE.to_owned() };
    let world = running_with(seed, &manifest, 5).await;
    if confirms {
        world.confirms("cache", 1);
    }
    let master = world.master("cache").await;
    let mut rest = others(&world, &master).await;
    let (other, target) = (rest.remove(1), rest.remove(0));
    (world, master, target, other)
}

/// Asks once for this master.
async fn ask(world: &World, target: &IncarnationName) {
    let asked = format!("{target}@{}", world.stored("cache").await.record.epoch);
    world.edit("cache", |c| drop(c.metadata.annotations.insert(MASTER.into(), asked))).await;
}

async fn writes_go_on(world: &World) {
    let before = world.written();
    world.until("writes", Duration::from_mins(2), async || world.written() > before + 20).await;
}

#[test]
fn a_crash_at_any_call_of_a_switchover_loses_nothing() {
    let calls = in_a_world(async {
        let (world, _, target, other) = cluster(9300).await;
        let before = world.fuse.calls();
        ask(&world, &target).await;
        let mut chained = false;
        world
            .until("the new master", Duration::from_mins(1), async || {
                let record = world.stored("cache").await.record;
                if let Some(Change::Switchover(s)) = &record.change {
                    chained |= s.chained.contains(&other);
                }
                world.master("cache").await == target && world.ready("cache").await
            })
            .await;
        assert!(chained, "the third node is attached to the target before the source is fenced");
        world.fuse.calls() - before
    });
    in_many_worlds(1..=calls, setting("SIM_STRIDE", 5), async |call| {
        let (world, _, target, _) = cluster(9300 + call).await;
        let watcher = world.restart_after_crashes();
        world.fuse.set(call);
        ask(&world, &target).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.until_ready("cache").await;
        writes_go_on(&world).await;
        watcher.abort();
        world.assert_one_writer();
        world.assert_nothing_lost("cache").await;
        world.kill_operator().await;
    });
}

type Fault = fn(&World, [&IncarnationName; 3]);

/// At each moment of the change, from its first command to its last.
#[test]
fn a_fault_in_the_middle_of_a_switchover_loses_nothing() {
    let faults: [(&str, Fault); 6] = [
        ("redis of the target dies", |w, [_, target, _]| w.nodes.with(target, Node::kill_redis)),
        ("redis of the third dies", |w, [_, _, other]| w.nodes.with(other, Node::kill_redis)),
        ("the target is cut off from the source", |w, [source, target, _]| {
            w.nodes.cut(target, source);
        }),
        ("the operator loses the target", |w, [_, target, _]| {
            w.nodes.with(target, |n| n.reachable = false);
        }),
        ("the operator loses the source", |w, [source, ..]| {
            w.nodes.with(source, |n| n.reachable = false);
        }),
        ("the third is cut off from the target", |w, [_, target, other]| {
            w.nodes.cut(other, target);
        }),
    ];
    in_many_worlds(1..=12, setting("SIM_STRIDE", 4), async |moment| {
        for (n, (what, fault)) in (0..).zip(&faults) {
            let (world, source, target, other) = cluster(9400 + moment * 10 + n).await;
            ask(&world, &target).await;
            tokio::time::sleep(Duration::from_millis(moment * 35)).await;
            println!("{what} after {} ms", moment * 35);
            fault(&world, [&source, &target, &other]);
            tokio::time::sleep(Duration::from_secs(40)).await;
            for node in [&source, &target, &other] {
                world.nodes.with(node, Node::heal);
            }
            for (a, b) in [(&target, &source), (&other, &target)] {
                world.nodes.heal(a, b);
            }
            world.until_ready("cache").await;
            writes_go_on(&world).await;
            world.assert_one_writer();
            world.assert_nothing_lost("cache").await;
            world.kill_operator().await;
        }
    });
}

/// What hangs on the target has at most its data: the target is the only candidate.
#[test]
fn a_source_that_dies_in_the_middle_of_a_switchover_is_replaced_without_loss() {
    in_many_worlds(1..=14, setting("SIM_STRIDE", 3), async |moment| {
        let (world, source, target, _) = cluster(9600 + moment).await;
        ask(&world, &target).await;
        tokio::time::sleep(Duration::from_millis(moment * 35)).await;
        world.nodes.with(&source, Node::kill_redis);
        world.until_ready("cache").await;
        writes_go_on(&world).await;
        world.assert_one_writer();
        world.assert_nothing_lost("cache").await;
        world.kill_operator().await;
    });
}

/// The choice is on the disk before anybody is promoted; that it was followed is told at once.
#[test]
fn who_waits_for_the_new_master_does_not_wait_for_the_disk() {
    in_a_world(async {
        let (world, _, target, _) = cluster(9700).await;
        ask(&world, &target).await;
        let epoch = world.stored("cache").await.record.epoch;
        let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
        let told = world.shown().wait_endpoint("cache", Some(epoch), deadline).await;
        assert_eq!(told.expect("a new master").master.incarnation, target.0);
        let record = world.stored("cache").await.record;
        let Some(Change::Switchover(change)) = record.change else {
            panic!("the write that confirms it is under way");
        };
        let delegated = change.delegated.expect("it was chosen");
        assert_eq!((change.target, delegated.epoch), (target, record.epoch));
        world.kill_operator().await;
    });
}

/// A plan of a state that was heard before ends after the word, and does not take it back.
#[test]
fn nobody_who_was_told_of_a_takeover_is_told_of_the_master_before_again() {
    in_many_worlds(1..=8, setting("SIM_STRIDE", 1), async |seed| {
        let (world, _, target, _) = cluster(9800 + seed).await;
        ask(&world, &target).await;
        let (mut known, mut epoch) = (String::new(), 0);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while let Some(told) = world.shown().wait_news("cache", &known, deadline).await {
            assert!(told.master.epoch >= epoch, "{} after {epoch}", told.master.epoch);
            (known, epoch) = (told.tag, told.master.epoch);
        }
        assert_eq!(world.master("cache").await, target);
        world.kill_operator().await;
    });
}
