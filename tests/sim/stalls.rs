//! How long a lost master is waited for: not for long when everybody agrees, and never too short
//! because of a path that stalls, a process that is starved or a control server that is away.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::candidates::{others, running_with};
use crate::lifecycle::THREE;
use crate::world::World;

/// Enough for a switched-off node to be given up and its successor to be chosen.
const NODE_LOST: Duration = Duration::from_secs(4);

/// A number that a longer run gives.
fn asked(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|number| number.parse().ok())
}

#[tokio::test(start_paused = true)]
async fn a_node_that_dies_with_its_container_is_replaced_as_master_within_four_seconds() {
    for seed in 700..703 {
        let world = running_with(seed, THREE, 6).await;
        let old = world.master("cache").await;
        let mut random = StdRng::seed_from_u64(seed);
        tokio::time::sleep(Duration::from_millis(random.gen_range(10_000..15_000))).await;
        let begun = world.clock.now();
        world.nodes.with(&old, |n| n.powered = false);
        let report = loop {
            let passed = world.clock.now().since(begun);
            assert!(passed < NODE_LOST, "seed {seed}: no other master after {passed:?}");
            if let Some(report) = world.stored("cache").await.record.last_failover {
                break report;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert!(report.reason.contains("by its provider's word"), "{report:?}");
        assert_eq!(report.witnesses.len(), 4, "{report:?}");
        world.assert_one_writer();
        world.until_ready("cache").await;
    }
}

/// What passes by itself. For as many simulated minutes as `STALL_MINUTES` says, from the seed
/// `STALL_SEED`; `make soak-stalls` takes a month, in four parts.
#[derive(Clone, Copy, Debug)]
enum Passing {
    /// Nothing reaches a node, and it reaches nobody; its page is behind the same path or not.
    Path { page: bool },
    /// Two nodes do not reach each other.
    Pair,
    /// All processes of a node stand still.
    Starved,
    /// The control server does not answer.
    Control,
    /// The operator reaches nobody.
    Operator,
    /// The gateways do not answer.
    Gateways,
}

const ALL: [Passing; 7] = [
    Passing::Path { page: true },
    Passing::Path { page: false },
    Passing::Pair,
    Passing::Starved,
    Passing::Control,
    Passing::Operator,
    Passing::Gateways,
];

#[tokio::test(start_paused = true)]
async fn what_passes_by_itself_moves_no_master() {
    let (seed, minutes) =
        (asked("STALL_SEED").unwrap_or(710), asked("STALL_MINUTES").unwrap_or(15));
    let world = running_with(seed, THREE, 6).await;
    // Ten looks a second for a month would take hours; a stall is longer than this.
    world.nodes.move_every(Duration::from_millis(250));
    let mut random = StdRng::seed_from_u64(seed);
    let (master, epoch) = (world.master("cache").await, world.stored("cache").await.record.epoch);
    let end = world.clock.now() + Duration::from_mins(minutes);
    let mut passed = 0;
    while world.clock.now() < end {
        let what = ALL[random.gen_range(0..ALL.len())];
        strike(&world, &mut random, what).await;
        passed += 1;
        let record = world.stored("cache").await.record;
        let report = &record.last_failover;
        assert_eq!(record.epoch, epoch, "seed {seed}, after {passed}, {what:?}: {report:?}");
        tokio::time::sleep(Duration::from_secs(random.gen_range(10..60))).await;
    }
    world.until_ready("cache").await;
    assert_eq!(world.master("cache").await, master);
    println!("seed {seed}: {passed} passed in {minutes} min");
}

async fn strike(world: &World, random: &mut StdRng, what: Passing) {
    let master = world.master("cache").await;
    let replicas = others(world, &master).await;
    // The master as often as not.
    let node = if random.gen_bool(0.5) { master.clone() } else { replicas[0].clone() };
    let stall = Duration::from_millis(random.gen_range(500..7_000));
    match what {
        Passing::Path { page } => {
            world.gateway.pages_away.store(!page, std::sync::atomic::Ordering::SeqCst);
            world.nodes.with(&node, |n| (n.reachable, n.meshed) = (false, false));
            tokio::time::sleep(stall).await;
            world.nodes.with(&node, |n| (n.reachable, n.meshed) = (true, true));
            world.gateway.pages_away.store(false, std::sync::atomic::Ordering::SeqCst);
        }
        Passing::Pair => {
            world.nodes.cut(&master, &replicas[1]);
            tokio::time::sleep(stall).await;
            world.nodes.heal(&master, &replicas[1]);
        }
        Passing::Starved => {
            let starved = Duration::from_millis(random.gen_range(200..5_000));
            world.gateway.pages_away.store(true, std::sync::atomic::Ordering::SeqCst);
            world.nodes.with(&node, |n| {
                (n.reachable, n.meshed) = (false, false);
                n.process = akash_redis::model::node::Process::Stuck;
            });
            tokio::time::sleep(starved).await;
            world.nodes.with(&node, |n| {
                (n.reachable, n.meshed) = (true, true);
                n.process = akash_redis::model::node::Process::Running;
            });
            world.gateway.pages_away.store(false, std::sync::atomic::Ordering::SeqCst);
        }
        Passing::Control => {
            world.tailnet.lock().unwrap().away = true;
            tokio::time::sleep(Duration::from_secs(random.gen_range(1..120))).await;
            world.tailnet.lock().unwrap().away = false;
        }
        Passing::Operator => {
            let all: Vec<_> = std::iter::once(master).chain(replicas).collect();
            for node in &all {
                world.nodes.with(node, |n| n.reachable = false);
            }
            tokio::time::sleep(Duration::from_secs(random.gen_range(1..60))).await;
            for node in &all {
                world.nodes.with(node, |n| n.reachable = true);
            }
        }
        Passing::Gateways => {
            let providers = world.chain.providers_in_use();
            world.gateway.away.lock().unwrap().extend(providers);
            world.nodes.with(&node, |n| (n.reachable, n.meshed) = (false, false));
            tokio::time::sleep(stall).await;
            world.nodes.with(&node, |n| (n.reachable, n.meshed) = (true, true));
            world.gateway.away.lock().unwrap().clear();
        }
    }
}
