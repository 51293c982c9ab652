//! A market for a year, with random faults: clusters come and go, providers lie and leave, the chain
//! stands still, the operator is killed and away. In the end every coin is where the books say.
//!
//! The operator works in sessions of some minutes, in which all of the world moves; between them it
//! is away, and hours pass in one step. The blocks of those hours are empty, and an escrow is
//! settled to the last of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use akash_redis::api::annotations::MIGRATE;
use akash_redis::devnet::provider::faults::ProviderFault;
use akash_redis::model::money::Uact;
use akash_redis::store::Objects as _;
use akash_redis::wire::akash::market::v1::lease::State as LeaseState;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::faults::walk::{all_is_well, comes_up};
use crate::world::many::{in_many_worlds, setting};
use crate::world::{Terms, World};

/// Providers of the market.
const PROVIDERS: usize = 8;
/// Clusters at a time.
const AT_ONCE: usize = 2;
/// The nodes report so often: a master that is silent for ten seconds is dead.
const STEP: Duration = Duration::from_secs(4);
/// Lines of what happened that are kept for the case that it fails.
const LINES: usize = 4000;
/// Longer than any retry of the operator.
const LONG: Duration = Duration::from_hours(2);

/// What goes wrong in a session, or what a person does.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    ChainAway,
    ChainBehind,
    ChainHalted,
    SlowBlocks,
    Reordered,
    LostAnswers,
    FeesSpent,
    BidVanishes,
    MinDeposit,
    ProviderSilent,
    ProviderDear,
    ProviderCheap,
    NeverDeploys,
    LiesReady,
    OtherManifest,
    OffersLess,
    GatewayStatus,
    GatewayAway,
    Reclaimed,
    LeaseClosed,
    OperatorDies,
    Scaled,
    Migrated,
    Replaced,
}

const ALL: [Trouble; 24] = [
    Trouble::ChainAway,
    Trouble::ChainBehind,
    Trouble::ChainHalted,
    Trouble::SlowBlocks,
    Trouble::Reordered,
    Trouble::LostAnswers,
    Trouble::FeesSpent,
    Trouble::BidVanishes,
    Trouble::MinDeposit,
    Trouble::ProviderSilent,
    Trouble::ProviderDear,
    Trouble::ProviderCheap,
    Trouble::NeverDeploys,
    Trouble::LiesReady,
    Trouble::OtherManifest,
    Trouble::OffersLess,
    Trouble::GatewayStatus,
    Trouble::GatewayAway,
    Trouble::Reclaimed,
    Trouble::LeaseClosed,
    Trouble::OperatorDies,
    Trouble::Scaled,
    Trouble::Migrated,
    Trouble::Replaced,
];

/// One market with its clusters.
struct Soak {
    world: Arc<World>,
    random: StdRng,
    /// Clusters that there are now.
    names: Vec<String>,
    /// Clusters that there ever were.
    clusters: usize,
    /// When an escrow ran dry although the wallet had coins.
    dry: Vec<String>,
}

impl Soak {
    async fn new(seed: u64) -> Self {
        let terms = Terms {
            wallet: Uact(2_000_000_000),
            budget_global: Uact(1_000_000_000),
            ..Terms::new(seed, u32::try_from(PROVIDERS).unwrap())
        };
        let world = World::on(terms);
        world.nodes.move_every(STEP);
        world.fuse.trace.keep(LINES);
        let random = StdRng::seed_from_u64(seed);
        let mut soak = Self { world, random, names: Vec::new(), clusters: 0, dry: Vec::new() };
        for _ in 0..AT_ONCE {
            soak.founds().await;
        }
        soak
    }

    /// A person applies another cluster.
    async fn founds(&mut self) {
        let name = format!("c{}", self.clusters);
        self.clusters += 1;
        let nodes = [1, 2, 3, 3][self.random.gen_range(0..4)];
        self.world
            .apply(&format!(
                "apiVersion: akash-redis.dev/v1alpha1
kind: RedisCluster
metadata: {{ name: {name} }}
spec:
  nodes: {nodes}
  resources: {{ cpu: 500m, memory: 1Gi, data: {{ size: 4Gi, class: beta3 }} }}
  budget: {{ maxPerMonth: 40act }}
"
            ))
            .await;
        self.names.push(name);
    }

    /// The operator is there for some minutes, in which something goes wrong; then all is well, and
    /// it ends its work.
    async fn session(&mut self) {
        self.world.start_operator().await;
        let watcher = self.world.restart_after_crashes();
        for _ in 0..self.random.gen_range(0..4) {
            let trouble = ALL[self.random.gen_range(0..ALL.len())];
            self.strike(trouble).await;
            let seconds = self.random.gen_range(5..90);
            tokio::time::sleep(Duration::from_secs(seconds)).await;
        }
        self.heal();
        for name in self.names.clone() {
            comes_up(&self.world, &name).await;
        }
        // What is condemned is closed, and what is low is filled.
        tokio::time::sleep(Duration::from_mins(1)).await;
        self.no_orphans().await;
        watcher.abort();
        self.world.kill_operator().await;
    }

    fn heal(&self) {
        all_is_well(&self.world);
        self.world.gateway.faults.lock().unwrap().clear();
        self.world.chain.set_min_deposit(500_000);
        self.world.chain.every_provider(|p| (p.offers_less, p.notice) = (false, None));
    }

    async fn strike(&mut self, trouble: Trouble) {
        let world = self.world.clone();
        let index = self.random.gen_range(0..PROVIDERS);
        let count = self.random.gen_range(1..20u32);
        let name = self.names[self.random.gen_range(0..self.names.len())].clone();
        world.fuse.trace.add(&format!("trouble: {trouble:?} {name} provider {index}, {count}"));
        let mut address = String::new();
        world.chain.provider(index, |p| p.address().clone_into(&mut address));
        let lies = |fault| world.gateway.fault(&address, fault);
        match trouble {
            Trouble::ChainAway => world.chain.fault(|f| f.away = true),
            Trouble::ChainBehind => world.chain.fault(|f| f.behind = count as usize),
            Trouble::ChainHalted => world.chain.fault(|f| f.halted = true),
            Trouble::SlowBlocks => world.chain.fault(|f| f.block = Some(Duration::from_secs(15))),
            Trouble::Reordered => world.chain.fault(|f| f.reordered = true),
            Trouble::LostAnswers => world.chain.fault(|f| f.lost_answers = count),
            Trouble::FeesSpent => world.chain.fault(|f| f.fees_spent = true),
            Trouble::BidVanishes => world.chain.fault(|f| f.vanishing = 1),
            Trouble::MinDeposit => world.chain.set_min_deposit(u128::from(count) * 500_000),
            Trouble::ProviderSilent => world.chain.provider(index, |p| p.silent = true),
            Trouble::ProviderDear => world.chain.provider(index, |p| p.price *= 100),
            Trouble::ProviderCheap => world.chain.provider(index, |p| p.price = 1),
            Trouble::NeverDeploys => lies(ProviderFault::NeverDeploys),
            Trouble::LiesReady => lies(ProviderFault::LiesReady),
            Trouble::OtherManifest => lies(ProviderFault::OtherManifest),
            Trouble::OffersLess => world.chain.provider(index, |p| p.offers_less = true),
            Trouble::GatewayStatus => lies(ProviderFault::GatewayStatus(503)),
            Trouble::GatewayAway => drop(world.gateway.away.lock().unwrap().insert(address)),
            Trouble::Reclaimed => {
                world.chain.every_provider(|p| p.notice = Some(3600));
                self.founds().await;
                let leased = world.chain.active_deployments();
                let leased: Vec<_> =
                    leased.into_iter().filter(|dseq| world.chain.leased(*dseq)).collect();
                // Of a lease that was won without a notice this is refused in its block.
                if let Some(dseq) = leased.get(index % leased.len().max(1)) {
                    world.chain.start_reclaim(*dseq);
                }
            }
            // Only where a replica has all of it: the last copy of the data is no matter of money.
            Trouble::LeaseClosed if world.ready(&name).await => {
                let record = world.stored(&name).await.record;
                let master = record.master.map(|m| m.incarnation);
                let running = record.incarnations.into_iter().filter(|(n, i)| {
                    i.condemned.is_none()
                        && Some(n) != master.as_ref()
                        && world.chain.leased(i.dseq)
                });
                let dseqs: Vec<_> = running.map(|(_, i)| i.dseq).collect();
                if let Some(dseq) = dseqs.get(index % dseqs.len().max(1)) {
                    world.chain.close_lease(*dseq);
                }
            }
            Trouble::LeaseClosed => {}
            Trouble::OperatorDies => world.fuse.set(u64::from(count)),
            Trouble::Scaled => world.edit(&name, |c| c.spec.nodes = count % 4 + 1).await,
            Trouble::Migrated => {
                let record = world.stored(&name).await.record;
                let first = record.incarnations.into_keys().next();
                if let Some(node) = first {
                    let change = |c: &mut akash_redis::api::types::RedisCluster| {
                        c.metadata.annotations.insert(MIGRATE.to_owned(), node.0.clone());
                    };
                    world.edit(&name, change).await;
                }
            }
            Trouble::Replaced => {
                self.goes(&name).await;
                self.founds().await;
            }
        }
    }

    /// A person deletes a cluster.
    async fn goes(&mut self, name: &str) {
        self.heal();
        self.world.delete(name).await;
        self.world
            .until("deletion", LONG, async || self.world.store.get(name).await.is_err())
            .await;
        self.names.retain(|n| n != name);
    }

    /// Hours or a day pass without the operator; then every escrow is looked at.
    async fn away(&mut self) {
        let hours = self.random.gen_range(3..36);
        let time = Duration::from_hours(hours);
        let withdraws = self.random.gen_bool(0.15);
        self.world.chain.skip(time, withdraws);
        tokio::time::advance(time).await;
        let in_use: Vec<_> = self.world.chain.active_deployments().into_iter().collect();
        for dseq in in_use.into_iter().filter(|dseq| self.world.chain.leased(*dseq)) {
            if self.world.chain.escrow_of(dseq) == 0 && self.world.chain.wallet() > 0 {
                self.dry.push(format!("deployment {dseq} at {}", self.world.clock.now()));
            }
        }
    }

    /// Every deployment that costs something stands in a record.
    async fn no_orphans(&self) {
        let mut known = BTreeSet::new();
        for stored in self.world.store.list().await.unwrap() {
            known.extend(stored.record.incarnations.values().map(|i| i.dseq));
        }
        let orphans: Vec<_> =
            self.world.chain.active_deployments().difference(&known).copied().collect();
        assert!(orphans.is_empty(), "seed {}: in no record: {orphans:?}", self.world.seed);
    }

    /// Everything is deleted, and every promise looked at.
    async fn ends(mut self) -> usize {
        let (world, seed) = (self.world.clone(), self.world.seed);
        world.start_operator().await;
        let watcher = world.restart_after_crashes();
        for name in self.names.clone() {
            self.goes(&name).await;
        }
        watcher.abort();
        world.kill_operator().await;
        assert_eq!(self.dry, Vec::<String>::new(), "seed {seed}: an escrow ran dry");
        // Budgets, what was closed, filled and touched: each was looked at as it happened.
        assert_eq!(world.witness.broken(), Vec::<String>::new(), "seed {seed}");
        assert_eq!(world.chain.active_deployments(), BTreeSet::new(), "seed {seed}");
        assert_eq!(world.chain.in_escrow(), 0, "seed {seed}: coins are left in escrow");
        world.chain.assert_coins_are_conserved(seed);
        let mut incarnations: BTreeMap<String, u64> = BTreeMap::new();
        let all = world.chain.leases_by_group();
        for (group, dseq, leases) in &all {
            assert!(leases.len() <= 1, "seed {seed}: {group} had {} leases", leases.len());
            let funded = !leases.contains(&LeaseState::InsufficientFunds);
            assert!(funded, "seed {seed}: {group} ended without funds");
            let other = incarnations.insert(group.clone(), *dseq);
            assert_eq!(other, None, "seed {seed}: {group} was bought twice");
        }
        println!("seed {seed}: {} clusters, {} orders", self.clusters, all.len());
        all.len()
    }
}

async fn soak(seed: u64, days: u64) -> usize {
    let mut soak = Soak::new(seed).await;
    let end = soak.world.clock.now() + Duration::from_hours(24 * days);
    while soak.world.clock.now() < end {
        soak.session().await;
        soak.away().await;
        // A market of many clusters would take hours to simulate.
        while soak.names.len() > AT_ONCE + 1 {
            let oldest = soak.names[0].clone();
            soak.world.start_operator().await;
            let watcher = soak.world.restart_after_crashes();
            soak.goes(&oldest).await;
            watcher.abort();
            soak.world.kill_operator().await;
        }
    }
    soak.ends().await
}

/// `SOAK_DAYS=365 SOAK_SEEDS=20` is what `make soak-market` runs; `SOAK_FIRST=17 SOAK_SEEDS=1` runs
/// a seed that failed.
#[test]
fn the_books_close_whatever_happens() {
    let days = setting("SOAK_DAYS", 15);
    let (first, count) = (setting("SOAK_FIRST", 1), setting("SOAK_SEEDS", 2));
    let orders = std::sync::atomic::AtomicUsize::new(0);
    in_many_worlds(first..=first + count - 1, 1, async |seed| {
        let bought = soak(seed, days).await;
        orders.fetch_add(bought, std::sync::atomic::Ordering::SeqCst);
    });
    println!("{days} days in {count} markets, {} orders", orders.into_inner());
}
