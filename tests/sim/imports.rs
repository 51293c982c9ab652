//! A cluster that begins with a running Redis: whoever dies meanwhile, nobody is master before a
//! person says so, and after the cutover every write that the source acknowledged is there.

use std::sync::Arc;
use std::time::Duration;

use akash_redis::api::annotations::CUTOVER;
use akash_redis::api::conditions::{ConditionType, Reason};
use akash_redis::store::Objects as _;

use crate::world::World;
use crate::world::imports::Shared;
use crate::world::many::{in_a_world, setting};

/// The first number of the source's writes: no client of the cluster comes so far.
const FIRST: u64 = 1_000_000_000;

fn in_world(seed: u64, providers: u32, test: impl AsyncFnOnce(Arc<World>)) {
    in_a_world(async move {
        let world = World::new(seed, providers);
        test(world).await;
    });
}

const MANIFEST: &str = "apiVersion: akash-redis.dev/v1alpha1
kind: RedisCluster
metadata: { name: cache }
spec:
  nodes: 3
  resources: { cpu: 500m, memory: 1Gi, data: { size: 4Gi, class: beta3 } }
  budget: { maxPerMonth: 30act }
  bootstrap: { fromRedis: { host: 203.0.113.5 } }
";

/// The same, and its keys are copied one by one.
fn copied() -> String {
    MANIFEST.replace("203.0.113.5", "203.0.113.5, method: copy")
}

async fn reason(world: &World) -> Option<Reason> {
    let status = world.store.get("cache").await.ok()?.cluster.status?;
    status.condition(ConditionType::Imported).map(|c| c.reason)
}

async fn until_reason(world: &World, wanted: Reason) {
    let limit = Duration::from_mins(30);
    world.until("the import", limit, async || reason(world).await == Some(wanted)).await;
}

/// One write of an application of the source, which is acknowledged unless writes are held.
fn write(source: &Shared) {
    let mut source = source.lock().unwrap();
    if !source.held && !source.away {
        let next = FIRST + source.log.len() as u64;
        source.log.push(next);
    }
}

async fn asked(world: &World, number: u64) {
    let said = number.to_string();
    world.edit("cache", |c| drop(c.metadata.annotations.insert(CUTOVER.to_owned(), said))).await;
}

/// It is cut over, and has all that the source acknowledged.
async fn has_all(world: &World, source: &Shared) {
    until_reason(world, Reason::ImportCompleted).await;
    world.until_ready("cache").await;
    let there = source.lock().unwrap().log.clone();
    let master = world.master("cache").await;
    assert!(world.nodes.with(&master, |n| n.log.starts_with(&there)), "a write is lost");
}

#[test]
fn a_cutover_loses_nothing_whoever_dies_meanwhile() {
    cutovers(5300, MANIFEST);
}

#[test]
fn a_cutover_of_a_copy_loses_nothing_whoever_dies_meanwhile() {
    cutovers(5500, &copied());
}

fn cutovers(seed: u64, manifest: &str) {
    let stride = setting("SIM_STRIDE", 4);
    for calls in (1..24).step_by(usize::try_from(stride).unwrap()) {
        in_world(seed + calls, 8, async |world| {
            let source = world.bucket().lock().unwrap().source.clone();
            (0..100).for_each(|_| write(&source));
            world.start_operator().await;
            world.apply(manifest).await;
            let _restarts = world.restart_after_crashes();
            until_reason(&world, Reason::ImportReady).await;
            assert_eq!(world.stored("cache").await.record.data_epoch, 0, "nobody is master");
            let head = world.stored("cache").await.record.import.unwrap().node.unwrap();
            asked(&world, 1).await;
            world.fuse.set(calls);
            if calls % 3 == 0 {
                tokio::time::sleep(Duration::from_millis(100 * calls)).await;
                world.nodes.with(&head, crate::world::node::Node::kill_redis);
            }
            let mut asks = 1;
            let begun = world.clock.now();
            while reason(&world).await != Some(Reason::ImportCompleted) {
                tokio::time::sleep(Duration::from_millis(50)).await;
                write(&source);
                assert!(world.clock.now().since(begun) < Duration::from_mins(30), "never done");
                // A person asks again where it came to nothing.
                if reason(&world).await == Some(Reason::ImportReady)
                    && world.clock.now().since(begun) > Duration::from_secs(60 * asks)
                {
                    asks += 1;
                    asked(&world, asks).await;
                }
            }
            has_all(&world, &source).await;
        });
    }
}

#[test]
fn a_source_that_is_away_stops_nothing_but_the_cutover_and_comes_back() {
    in_world(5400, 8, async |world| {
        let source = world.bucket().lock().unwrap().source.clone();
        (0..100).for_each(|_| write(&source));
        world.start_operator().await;
        world.apply(MANIFEST).await;
        until_reason(&world, Reason::ImportReady).await;
        source.lock().unwrap().away = true;
        until_reason(&world, Reason::ImportFailed).await;
        asked(&world, 1).await;
        tokio::time::sleep(Duration::from_mins(5)).await;
        assert_eq!(world.stored("cache").await.record.data_epoch, 0, "it was refused");
        source.lock().unwrap().away = false;
        write(&source);
        until_reason(&world, Reason::ImportReady).await;
        asked(&world, 2).await;
        has_all(&world, &source).await;
    });
}

#[test]
fn a_node_that_is_lost_while_it_imports_is_replaced_and_another_begins_anew() {
    in_world(5401, 8, async |world| {
        let source = world.bucket().lock().unwrap().source.clone();
        (0..100).for_each(|_| write(&source));
        world.start_operator().await;
        world.apply(MANIFEST).await;
        until_reason(&world, Reason::ImportReady).await;
        let record = world.stored("cache").await.record;
        let head = record.import.unwrap().node.unwrap();
        world.chain.close_lease(record.incarnations[&head].dseq);
        world
            .until("another node to import", Duration::from_mins(20), async || {
                let import = world.stored("cache").await.record.import;
                import.and_then(|i| i.node).is_some_and(|node| node != head)
            })
            .await;
        write(&source);
        until_reason(&world, Reason::ImportReady).await;
        asked(&world, 1).await;
        has_all(&world, &source).await;
    });
}
