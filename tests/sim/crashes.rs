//! Promise 6 in what a person asks for: wherever the operator dies meanwhile, it comes to the same
//! end. Bring-up, failover, switchover,
//! migration and deletion have such tests of their own.

use std::sync::Arc;
use std::time::Duration;

use akash_redis::api::annotations::{ACCEPT_LOSS, FENCE, RESTART};
use akash_redis::model::ids::IncarnationName;

use crate::candidates::{others, running_with};
use crate::lifecycle::THREE;
use crate::world::World;
use crate::world::many::{in_a_world, in_many_worlds, setting};

/// The operator is back within seconds; what it has to do takes longer.
const LIMIT: Duration = Duration::from_mins(30);

/// What a person asks for.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Restart,
    /// The master is fenced, and another one is to take over.
    Failover,
    FenceAndUnfence,
    /// One node more, and one less.
    Scale,
}

async fn says(world: &World, key: &str, value: &str) {
    let value = value.to_owned();
    world.edit("cache", |c| drop(c.metadata.annotations.insert(key.to_owned(), value))).await;
}

async fn writes_go_on(world: &World) {
    let before = world.written();
    world.until("writes", LIMIT, async || world.written() > before + 20).await;
}

async fn scale(world: &World, nodes: u32) {
    world.edit("cache", |c| c.spec.nodes = nodes).await;
    let wanted = nodes as usize;
    world
        .until("the wanted number of nodes", LIMIT, async || {
            let record = world.stored("cache").await.record;
            record.incarnations.len() == wanted && world.ready("cache").await
        })
        .await;
}

async fn until_master_is(world: &World, wanted: &IncarnationName) {
    world
        .until("the master that was asked for", LIMIT, async || {
            world.master("cache").await == *wanted && world.ready("cache").await
        })
        .await;
}

impl Asked {
    /// Asks for it, and waits until it is done.
    async fn done(self, world: &World) {
        let master = world.master("cache").await;
        let rest = others(world, &master).await;
        match self {
            Self::Restart => {
                let all = rest.iter().chain([&master]);
                let words: Vec<String> = all.map(|name| format!("{name}@1")).collect();
                says(world, RESTART, &words.join(",")).await;
                let told = async || {
                    let record = world.stored("cache").await.record;
                    let mut all = record.incarnations.values();
                    all.all(|i| i.restart.as_ref().is_some_and(|told| told.word == "1"))
                };
                world.until("all restarts", LIMIT, async || told().await).await;
                world
                    .until("the end of the last", LIMIT, async || world.ready("cache").await)
                    .await;
            }
            Self::Failover => {
                says(world, FENCE, &master.0).await;
                let stops = async || !world.nodes.with(&master, |n| n.unfenced_master());
                world.until("writes to stop", LIMIT, stops).await;
                let epoch = world.stored("cache").await.record.epoch;
                let said = format!("{epoch} to={} by=ann@laptop", rest[0]);
                says(world, ACCEPT_LOSS, &said).await;
                let taken = async || world.master("cache").await == rest[0];
                world.until("another master", LIMIT, taken).await;
                says(world, FENCE, "").await;
                until_master_is(world, &rest[0]).await;
            }
            Self::FenceAndUnfence => {
                says(world, FENCE, "0,1,2").await;
                let stops = async || !world.nodes.with(&master, |n| n.unfenced_master());
                world.until("writes to stop", LIMIT, stops).await;
                says(world, FENCE, "").await;
                until_master_is(world, &master).await;
            }
            Self::Scale => {
                scale(world, 4).await;
                scale(world, 3).await;
            }
        }
    }
}

async fn running(seed: u64) -> Arc<World> {
    running_with(seed, THREE, 6).await
}

fn at_any_call(asked: Asked, first: u64, usual: u64, nodes_bought: usize) {
    let calls = in_a_world(async {
        let world = running(first).await;
        let before = world.fuse.calls();
        asked.done(&world).await;
        world.fuse.calls() - before
    });
    println!("{calls} calls in {asked:?}");
    in_many_worlds(1..=calls, setting("SIM_STRIDE", usual), async |call| {
        let world = running(first + call).await;
        let watcher = world.restart_after_crashes();
        world.fuse.set(call);
        asked.done(&world).await;
        writes_go_on(&world).await;
        watcher.abort();
        world.assert_one_writer();
        world.assert_nothing_lost("cache").await;
        let bought = world.chain.creates();
        assert!(bought <= nodes_bought, "crash at call {call}: {bought} deployments were bought");
        assert_eq!(world.chain.active_deployments().len(), 3, "crash at call {call}");
        world.kill_operator().await;
    });
}

#[test]
fn a_crash_at_any_call_of_a_restart_changes_nothing_in_the_end() {
    at_any_call(Asked::Restart, 20_000, 17, 3);
}

#[test]
fn a_crash_at_any_call_of_a_failover_by_a_persons_word_changes_nothing_in_the_end() {
    at_any_call(Asked::Failover, 21_000, 7, 3);
}

#[test]
fn a_crash_at_any_call_of_a_fence_and_its_end_changes_nothing_in_the_end() {
    at_any_call(Asked::FenceAndUnfence, 22_000, 7, 3);
}

#[test]
fn a_crash_at_any_call_of_scaling_changes_nothing_in_the_end() {
    at_any_call(Asked::Scale, 23_000, 37, 4);
}
