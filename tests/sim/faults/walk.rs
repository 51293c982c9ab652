//! A cluster through a row of random faults: once all is well again it becomes Ready, and deleted
//! it leaves nothing.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{comes_up_and_goes, live, migrate};
use crate::lifecycle::THREE;
use crate::world::many::{in_many_worlds, setting};
use crate::world::node::Node;
use crate::world::{Terms, World};

/// Faults of one walk.
const STEPS: u32 = 8;
/// Providers of one walk.
const PROVIDERS: usize = 6;

/// `SIM_SEEDS=200` walks as many ways, as is wanted after a change of the planner or the effects;
/// `SIM_FIRST=17 SIM_SEEDS=1` walks the way of a seed that failed.
#[test]
fn a_market_that_misbehaves_at_random() {
    let (first, count) = (setting("SIM_FIRST", 1), setting("SIM_SEEDS", 8));
    in_many_worlds(first..=first + count - 1, 1, |seed| async move {
        let world = World::on(Terms::new(seed, u32::try_from(PROVIDERS).unwrap()));
        let watcher = world.restart_after_crashes();
        world.start_operator().await;
        world.apply(THREE).await;
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..STEPS {
            misbehave(&world, &mut random).await;
            tokio::time::sleep(Duration::from_secs(random.gen_range(1..120))).await;
        }
        all_is_well(&world);
        comes_up_and_goes(&world, "cache").await;
        watcher.abort();
        world.kill_operator().await;
    });
}

async fn misbehave(world: &Arc<World>, random: &mut StdRng) {
    let who = random.gen_range(0..PROVIDERS);
    match random.gen_range(0..12) {
        0 => world.chain.fault(|f| f.away = !f.away),
        1 => world.chain.fault(|f| f.stale = !f.stale),
        2 => world.chain.fault(|f| f.vanishing = 1),
        3 => world.chain.provider(who, |p| p.silent = !p.silent),
        4 => world.chain.provider(who, |p| p.price = random.gen_range(2..40)),
        5 => {
            let mut address = String::new();
            world.chain.provider(who, |p| p.address().clone_into(&mut address));
            let away = &mut *world.gateway.away.lock().unwrap();
            if !away.remove(&address) {
                away.insert(address);
            }
        }
        6 => {
            let tailnet = &mut *world.tailnet.lock().unwrap();
            tailnet.away = !tailnet.away;
        }
        7 => world.fuse.set(random.gen_range(1..12)),
        8 => {
            let leased: Vec<_> = world
                .chain
                .active_deployments()
                .into_iter()
                .filter(|dseq| world.chain.leased(*dseq))
                .collect();
            if let Some(dseq) = leased.get(who % leased.len().max(1)) {
                world.chain.close_lease(*dseq);
            }
        }
        9 => {
            if let Some(name) = live(world).await.into_iter().nth(who) {
                migrate(world, &name).await;
            }
        }
        10 => with_some_node(world, who, Node::kill_redis),
        _ => with_some_node(world, who, |n| n.reachable = !n.reachable),
    }
}

fn with_some_node(world: &World, which: usize, change: impl FnOnce(&mut Node)) {
    let nodes = &mut world.nodes.state.lock().unwrap().nodes;
    if let Some(node) = nodes.values_mut().nth(which) {
        change(node);
    }
}

fn all_is_well(world: &World) {
    world.chain.fault(|f| *f = crate::world::chain::Faults::default());
    let mut index = 0;
    world.chain.every_provider(|p| {
        p.silent = false;
        p.price = 3 + index;
        index += 1;
    });
    world.gateway.away.lock().unwrap().clear();
    world.tailnet.lock().unwrap().away = false;
    for node in world.nodes.state.lock().unwrap().nodes.values_mut() {
        node.reachable = true;
    }
}
