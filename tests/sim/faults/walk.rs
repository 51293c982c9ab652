//! Clusters through a row of random faults, of every kind there is: there is never a second master,
//! nothing is lost that may not be, once all is well again they become Ready, and deleted they
//! leave nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use akash_redis::api::annotations::{ACCEPT_LOSS, MASTER, MIGRATE, REJOIN};
use akash_redis::model::ids::IncarnationName;
use akash_redis::model::mesh::OwnMesh;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{LONG, goes};
use crate::world::chain::{Faults, REMEMBERED};
use crate::world::many::{in_many_worlds, setting};
use crate::world::mesh::Tailnet;
use crate::world::node::Node;
use crate::world::{SYNC_MS, Terms, World};

/// Faults of one walk.
const STEPS: u32 = 12;
/// Providers of one walk.
const PROVIDERS: usize = 8;
/// A full sync of a lot of data, milliseconds.
const SLOW_SYNC_MS: u64 = 45_000;
/// The furthest that a clock is set wrong, milliseconds.
const CLOCK: i64 = 40_000;
/// A person looks at a cluster that is not Ready so often.
const PERSON: Duration = Duration::from_mins(10);

/// What a walk begins with.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub nodes: u32,
    pub volumes: bool,
    pub clusters: usize,
    /// Under `durability: confirmed`: so many.
    pub confirmations: Option<u32>,
}

impl Shape {
    /// That of a seed.
    pub fn drawn(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(!seed);
        Self {
            nodes: [2, 3, 3, 3, 5][random.gen_range(0..5)],
            volumes: random.gen_bool(0.7),
            clusters: if random.gen_bool(0.3) { 2 } else { 1 },
            confirmations: None,
        }
    }

    /// That of a seed, with confirmed writes.
    pub fn confirmed(seed: u64) -> Self {
        let shape = Self::drawn(seed);
        let (nodes, confirmations) =
            [(3, 1), (3, 1), (4, 2), (5, 2)][usize::try_from(seed % 4).unwrap()];
        Self { nodes, confirmations: Some(confirmations), ..shape }
    }

    fn manifest(self, name: &str) -> String {
        let durability = self.confirmations.map_or(String::new(), |confirmations| {
            format!("  durability: confirmed\n  confirmations: {confirmations}\n")
        });
        let data = if self.volumes { ", data: { size: 4Gi, class: beta3 }" } else { "" };
        format!(
            "apiVersion: akash-redis.dev/v1alpha1
kind: RedisCluster
metadata: {{ name: {name} }}
spec:
  nodes: {}
  resources: {{ cpu: 500m, memory: 1Gi{data} }}
  budget: {{ maxPerMonth: 40act }}
{durability}",
            self.nodes
        )
    }
}

/// Declares the faults and the list of all of them.
macro_rules! faults {
    ($($name:ident),* $(,)?) => {
        /// Everything that can go wrong, or that a person may do meanwhile.
        #[derive(Clone, Copy, Debug)]
        enum Fault {
            $($name),*
        }

        impl Fault {
            const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

faults! {
    ChainAway,
    ChainBehind,
    ChainStandsStill,
    BidVanishes,
    BlockTimeWrong,
    FeesSpent,
    ProviderSilent,
    ProviderDear,
    LeaseClosed,
    GatewayAway,
    GatewaySlow,
    PagesAway,
    ControlAway,
    ControlSlow,
    ControlListsShortNames,
    ControlForgetsDevice,
    ControlRefusesTags,
    ControlRefusesKeys,
    ControlRefusesAll,
    DeviceRenamed,
    OperatorDies,
    OperatorStartsWithAnotherClock,
    OperatorOffMesh,
    TwoOperators,
    RedisDies,
    RedisHangs,
    RedisCannotStart,
    ContainerStartsAnew,
    NodeOff,
    NodeUnreachable,
    NodeOffMesh,
    NodeDeaf,
    NodeClockWrong,
    LinkCut,
    LinkOneWay,
    SyncsSlow,
    Migration,
    Switchover,
    Scaling,
}

/// `SIM_SEEDS=200` walks as many ways, as is wanted after a change of the planner or the effects;
/// `SIM_FIRST=17 SIM_SEEDS=1` walks the way of a seed that failed.
#[test]
fn a_world_that_misbehaves_at_random() {
    let (first, count) = (setting("SIM_FIRST", 1), setting("SIM_SEEDS", 6));
    in_many_worlds(first..=first + count - 1, 1, async |seed| drop(walk(seed).await));
}

/// A device that the list wrongly lacked stayed on the tailnet; a device that joined with a node's
/// key got the cluster's tag; an empty master was promoted while another node held older data; two
/// operators brought a manifest each before the container ran.
#[test]
fn walks_that_failed_once() {
    const FAILED: [u64; 5] = [301, 402, 516, 566, 627];
    in_many_worlds(0..=4, 1, async |n| drop(walk(FAILED[usize::try_from(n).unwrap()]).await));
}

/// A write that as many replicas had as were to confirm it is lost by nobody but a person, and what
/// clients saw of one key could have come about one after the other.
#[test]
fn confirmed_writes_are_lost_by_nobody_but_a_person() {
    let (first, count) = (setting("SIM_FIRST", 1), setting("SIM_SEEDS", 6));
    in_many_worlds(first..=first + count - 1, 1, async |seed| {
        drop(walk_as(1000 + seed, Shape::confirmed(seed)).await);
    });
}

/// Walks the way of a seed; returns what the operator did on it.
pub async fn walk(seed: u64) -> Vec<String> {
    walk_as(seed, Shape::drawn(seed)).await
}

async fn walk_as(seed: u64, shape: Shape) -> Vec<String> {
    let world = World::on(Terms::new(seed, u32::try_from(PROVIDERS).unwrap()));
    let watcher = world.restart_after_crashes();
    world.start_operator().await;
    let names = &["cache", "other"][..shape.clusters];
    for name in names {
        world.apply(&shape.manifest(name)).await;
        if let Some(confirmations) = shape.confirmations {
            world.confirms(name, confirmations);
        }
    }
    if shape.confirmations.is_some() && shape.clusters == 1 {
        world.with_clients();
    }
    let mut random = StdRng::seed_from_u64(seed);
    world.fuse.trace.add(&format!("{shape:?}"));
    tokio::time::sleep(Duration::from_secs(random.gen_range(0..180))).await;
    for _ in 0..STEPS {
        let fault = Fault::ALL[random.gen_range(0..Fault::ALL.len())];
        strike(&world, fault, names[random.gen_range(0..names.len())], shape, &mut random).await;
        // Half of the time the next one comes on top of it.
        let pause = if random.gen_bool(0.5) { 1..15 } else { 15..120 };
        tokio::time::sleep(Duration::from_secs(random.gen_range(pause))).await;
        if random.gen_bool(0.3) {
            all_is_well(&world);
        }
    }
    all_is_well(&world);
    for name in names {
        comes_up(&world, name).await;
        world.assert_nothing_lost(name).await;
    }
    world.assert_one_after_the_other();
    for name in names {
        goes(&world, name).await;
    }
    world.assert_nothing_left();
    watcher.abort();
    world.kill_operator().await;
    world.assert_books_close().await;
    let lines = world.fuse.trace.lines();
    let count = |words: &str| lines.iter().filter(|line| line.contains(words)).count();
    println!(
        "seed {seed}: {shape:?}, {} writes, {} confirmed, {} masters, {} failovers, {} words of a person",
        world.written(),
        world.confirmed(),
        count(" MasterPromoted: "),
        count(" Failover: "),
        count(" a person: "),
    );
    lines
}

/// Ready in the end, with the help of a person who does what the status asks for.
pub async fn comes_up(world: &Arc<World>, name: &str) {
    let mut looked = world.clock.now();
    world
        .until("Ready", LONG, async || {
            if world.clock.now().passed(looked, PERSON) {
                looked = world.clock.now();
                help(world, name).await;
            }
            world.ready(name).await
        })
        .await;
}

async fn help(world: &Arc<World>, name: &str) {
    let stored = world.stored(name).await;
    let conditions = stored.cluster.status.map(|s| s.conditions).unwrap_or_default();
    let asks = |words: &str| conditions.iter().any(|c| c.message.contains(words));
    let (key, value) = if asks("--accept-loss") {
        (ACCEPT_LOSS, stored.record.epoch.to_string())
    } else if asks("akash-redis rejoin") {
        let names: Vec<_> = stored.record.incarnations.keys().map(|n| n.0.clone()).collect();
        (REJOIN, names.join(","))
    } else {
        return;
    };
    world.fuse.trace.add(&format!("a person: {key}={value} for {name}"));
    annotate(world, name, key, value).await;
}

async fn annotate(world: &World, name: &str, key: &str, value: String) {
    world.edit(name, |c| drop(c.metadata.annotations.insert(key.to_owned(), value))).await;
}

#[allow(clippy::too_many_lines)] // one arm for each fault
async fn strike(
    world: &Arc<World>,
    fault: Fault,
    cluster: &str,
    shape: Shape,
    random: &mut StdRng,
) {
    let index = random.gen_range(0..PROVIDERS);
    let seconds = random.gen_range(1..20);
    let clock = random.gen_range(-CLOCK..CLOCK);
    // Nodes that run, the one in question first.
    let mut nodes = running(world, cluster);
    let turn = if nodes.is_empty() { 0 } else { index % nodes.len() };
    nodes.rotate_left(turn);
    let who = nodes.first();
    world.fuse.trace.add(&format!(
        "fault: {fault:?} of {cluster}, provider {index}, node {who:?}, {seconds} s, {clock} ms"
    ));
    let chain = |change: &dyn Fn(&mut Faults)| world.chain.fault(change);
    let control = |change: &dyn Fn(&mut Tailnet)| change(&mut world.tailnet.lock().unwrap());
    let node = |change: &dyn Fn(&mut Node)| {
        if let Some(name) = who {
            world.nodes.with(name, change);
        }
    };
    let device = who.map(|name| world.nodes.with(name, |n| n.device.clone()));
    match fault {
        Fault::ChainAway => chain(&|f| f.away = true),
        Fault::ChainBehind => chain(&|f| f.behind = index % REMEMBERED + 1),
        Fault::ChainStandsStill => world.chain.stick(Some(world.chain.snapshot())),
        Fault::BidVanishes => chain(&|f| f.vanishing = 1),
        Fault::BlockTimeWrong => chain(&|f| f.block_ms = Some(500 * seconds)),
        Fault::FeesSpent => chain(&|f| f.fees_spent = true),
        Fault::ProviderSilent => world.chain.provider(index, |p| p.silent = true),
        Fault::ProviderDear => world.chain.provider(index, |p| p.price = 2 * u128::from(seconds)),
        Fault::LeaseClosed => {
            let leased = world.chain.active_deployments();
            let leased: Vec<_> = leased.into_iter().filter(|d| world.chain.leased(*d)).collect();
            if let Some(dseq) = leased.get(index % leased.len().max(1)) {
                world.chain.close_lease(*dseq);
            }
        }
        Fault::GatewayAway => {
            let mut address = String::new();
            world.chain.provider(index, |p| p.address().clone_into(&mut address));
            world.gateway.away.lock().unwrap().insert(address);
        }
        Fault::GatewaySlow => {
            *world.gateway.slowness.lock().unwrap() = Duration::from_secs(10 * seconds);
        }
        Fault::PagesAway => world.gateway.pages_away.store(true, Ordering::SeqCst),
        Fault::ControlAway => control(&|t| t.away = true),
        Fault::ControlSlow => control(&|t| {
            t.slow_keys = Duration::from_secs(seconds);
            t.slow_answer = Duration::from_secs(seconds / 2);
        }),
        Fault::ControlListsShortNames => control(&|t| t.short_names = true),
        Fault::ControlForgetsDevice => control(&|t| t.hidden.extend(device.clone())),
        Fault::ControlRefusesTags => control(&|t| t.refuses_tags = true),
        Fault::ControlRefusesKeys => control(&|t| t.refuses_keys = true),
        Fault::ControlRefusesAll => control(&|t| t.refuses = true),
        Fault::DeviceRenamed => control(&|t| {
            if let Some(device) = &device {
                t.rename(device, &format!("{device}-{seconds}.mesh.test"));
            }
        }),
        Fault::OperatorDies => world.fuse.set(seconds),
        Fault::OperatorStartsWithAnotherClock => {
            world.kill_operator().await;
            world.operator_clock.set_ahead(clock);
            world.start_operator().await;
        }
        Fault::OperatorOffMesh => world.own_mesh.send_modify(|own| {
            own.error = Some("its tailscaled does not answer; it is started again".to_owned());
            own.since = world.operator_clock.now();
        }),
        Fault::TwoOperators => {
            // The earlier one ends by itself once it writes.
            drop(world.leave_operator());
            world.start_operator().await;
        }
        Fault::RedisDies => node(&Node::kill_redis),
        Fault::RedisHangs => node(&Node::freeze_redis),
        Fault::RedisCannotStart => node(&|n| {
            n.broken = true;
            n.kill_redis();
        }),
        Fault::ContainerStartsAnew => node(&Node::restart_container),
        Fault::NodeOff => node(&|n| n.powered = false),
        Fault::NodeUnreachable => node(&|n| n.reachable = false),
        Fault::NodeOffMesh => node(&|n| (n.meshed, n.reachable) = (false, seconds % 2 == 0)),
        Fault::NodeDeaf => node(&|n| n.hears_control = false),
        Fault::NodeClockWrong => node(&|n| n.clock_ahead = 20 * clock),
        Fault::LinkCut => {
            if let [a, b, ..] = &nodes[..] {
                world.nodes.cut(a, b);
            }
        }
        Fault::LinkOneWay => {
            if let [a, b, ..] = &nodes[..] {
                world.nodes.mute(a, b);
            }
        }
        Fault::SyncsSlow => world.nodes.state.lock().unwrap().sync_ms = SLOW_SYNC_MS,
        Fault::Migration | Fault::Switchover => {
            let Some(name) = who else { return };
            let key = if matches!(fault, Fault::Migration) { MIGRATE } else { MASTER };
            let value = match world.stored(cluster).await.record.epoch {
                epoch if key == MASTER => format!("{name}@{epoch}"),
                _ => name.0.clone(),
            };
            annotate(world, cluster, key, value).await;
        }
        Fault::Scaling => {
            let fewest = shape.confirmations.map_or(2, |confirmations| confirmations + 2);
            let nodes = u32::try_from(index % 4).unwrap() + fewest;
            world.edit(cluster, |c| c.spec.nodes = nodes).await;
        }
    }
}

/// Names of a cluster's nodes, whether anybody reaches them or not.
fn running(world: &World, cluster: &str) -> Vec<IncarnationName> {
    let state = world.nodes.state.lock().unwrap();
    state.nodes.keys().filter(|name| name.cluster() == cluster).cloned().collect()
}

pub fn all_is_well(world: &World) {
    world.fuse.trace.add("all is well");
    world.chain.fault(|f| *f = Faults::default());
    world.chain.stick(None);
    let mut index = 0;
    world.chain.every_provider(|p| {
        p.silent = false;
        p.price = 3 + index;
        index += 1;
    });
    world.gateway.away.lock().unwrap().clear();
    *world.gateway.slowness.lock().unwrap() = Duration::ZERO;
    world.gateway.pages_away.store(false, Ordering::SeqCst);
    world.tailnet.lock().unwrap().heal();
    world.own_mesh.send_if_modified(|own| {
        let since = world.operator_clock.now();
        own.error.is_some() && {
            *own = OwnMesh { since, ..OwnMesh::default() };
            true
        }
    });
    let mut state = world.nodes.state.lock().unwrap();
    state.cut.clear();
    state.mute.clear();
    state.sync_ms = SYNC_MS;
    for node in state.nodes.values_mut() {
        node.heal();
    }
}
