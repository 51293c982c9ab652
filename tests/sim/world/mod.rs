//! An in-memory world under a virtual clock: the real controller, planner, store and ledger;
//! simulated providers, tailnet and nodes.

pub mod backups;
pub mod chain;
pub mod clients;
pub mod clock;
pub mod fuse;
pub mod gateway;
pub mod home;
pub mod imports;
pub mod many;
pub mod memory;
pub mod mesh;
pub mod node;
pub mod nodes;
pub mod providers;
pub mod replication;
pub mod status_page;
pub mod store;
pub mod trace;
pub mod writes;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use akash_redis::api::annotations::YES_DELETE_DATA;
use akash_redis::api::conditions::{ConditionStatus, ConditionType};
use akash_redis::api::types::{RedisCluster, Runway};
use akash_redis::chain::Chain;
use akash_redis::model::books::Head;
use akash_redis::model::ids::IncarnationName;
use akash_redis::model::image::NodeImage;
use akash_redis::model::inventory::Constants;
use akash_redis::model::mesh::OwnMesh;
use akash_redis::model::money::Uact;
use akash_redis::notify::Targets;
use akash_redis::operator::{Controller, Metrics, Ports, Settings};
use akash_redis::plan::{GasPrice, Timing};
use akash_redis::secrets::RootSecret;
use akash_redis::server::{Appraiser, Recovery, StatusCache};
use akash_redis::store::{Books as _, Stored};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use backups::{Bucket, SimBackups};
use chain::SimChain;
use clock::{Clock, OperatorClock};
use fuse::Fuse;
use gateway::SimGateway;
use home::Home;
use memory::MemoryStore;
use mesh::{SimMesh, Tailnet};
use nodes::{Nodes, SimAgents};
use status_page::Witness;
use store::FusedStore;

/// The image that simulated nodes are asked for.
pub const IMAGE: &str = "registry.example.org/akash-redis@sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// How long a condition is left alone between two looks, in virtual time: each look reads the
/// store.
const LOOK: Duration = Duration::from_millis(500);

/// A full sync of what usually is there, milliseconds.
pub const SYNC_MS: u64 = 300;

/// The operator reads the chain and the tailnet so often.
pub const TICK: Duration = Duration::from_secs(5);

/// What a simulation begins with.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub seed: u64,
    /// Providers that bid, each dearer than the one before.
    pub providers: u32,
    /// What the wallet holds.
    pub wallet: Uact,
    /// For all clusters together, a month.
    pub budget_global: Uact,
    /// The operator's patience.
    pub timing: Timing,
    /// It reads the chain and the tailnet so often.
    pub tick: Duration,
}

impl Terms {
    /// Money is no matter.
    pub fn new(seed: u64, providers: u32) -> Self {
        Self {
            seed,
            providers,
            wallet: chain::USUAL,
            budget_global: Uact(1_000_000_000),
            timing: Timing::default(),
            tick: TICK,
        }
    }
}

/// The world of one simulation.
pub struct World {
    pub seed: u64,
    pub clock: Clock,
    pub operator_clock: OperatorClock,
    pub fuse: Arc<Fuse>,
    pub chain: Arc<SimChain>,
    pub tailnet: Arc<Mutex<Tailnet>>,
    pub nodes: Arc<Nodes>,
    pub gateway: Arc<SimGateway>,
    /// What is remembered, where that is in memory.
    pub store: Arc<MemoryStore>,
    /// What is remembered, wherever that is.
    pub home: Arc<dyn Home>,
    pub witness: Arc<Witness>,
    /// How the operator itself stands on the mesh.
    pub own_mesh: watch::Sender<OwnMesh>,
    random: Arc<Mutex<StdRng>>,
    operator: Mutex<Option<(tokio::task::JoinHandle<()>, CancellationToken)>>,
    /// Who answers questions about the operator that runs.
    pub appraiser: Mutex<Option<Arc<dyn Appraiser>>>,
    /// What Prometheus reads of the operator that was started last.
    registry: Mutex<Registry>,
    /// What the operator that was started last shows.
    status_cache: Mutex<Arc<StatusCache>>,
    starts: AtomicU64,
    terms: Terms,
    /// The image of the operator that is started next.
    pub image: Mutex<NodeImage>,
}

impl Drop for World {
    /// How it came to it.
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {}: the last of what happened\n{}", self.seed, self.fuse.trace.tail());
        }
    }
}

/// The root secret of every operator here: they are one installation.
fn root() -> RootSecret {
    RootSecret::new(vec![7; 32].into()).unwrap()
}

impl World {
    /// A market with `providers` providers, a funded wallet, and no operator yet.
    pub fn new(seed: u64, providers: u32) -> Arc<Self> {
        Self::on(Terms::new(seed, providers))
    }

    /// A market and a wallet on these terms, and no operator yet.
    pub fn on(terms: Terms) -> Arc<Self> {
        let clock = Clock::start();
        let operator_clock = OperatorClock::new(clock);
        let store = MemoryStore::new(operator_clock.clone());
        Self::made(terms, clock, operator_clock, store.clone(), Arc::new(store))
    }

    /// The same, with operators that are at home elsewhere than in memory.
    pub fn at_home(terms: Terms, home: Arc<dyn Home>) -> Arc<Self> {
        let clock = Clock::start();
        let operator_clock = OperatorClock::new(clock);
        let unused = MemoryStore::new(operator_clock.clone());
        Self::made(terms, clock, operator_clock, unused, home)
    }

    fn made(
        terms: Terms,
        clock: Clock,
        operator_clock: OperatorClock,
        store: Arc<MemoryStore>,
        home: Arc<dyn Home>,
    ) -> Arc<Self> {
        let fuse = Arc::new(Fuse::new(clock));
        let witness = Witness::new(home.clone(), root().installation_id());
        let chain = SimChain::new(clock, fuse.clone(), witness.clone(), terms);
        let tailnet = Arc::new(Mutex::new(Tailnet::default()));
        let nodes = Nodes::new(
            clock,
            operator_clock.clone(),
            fuse.clone(),
            witness.clone(),
            tailnet.clone(),
        );
        let gateway = Arc::new(SimGateway {
            chain: chain.clone(),
            tailnet: tailnet.clone(),
            nodes: nodes.clone(),
            fuse: fuse.clone(),
            witness: witness.clone(),
            delivered: Mutex::default(),
            keys: Arc::default(),
            root: root(),
            pages_away: AtomicBool::new(false),
            slowness: Mutex::default(),
            bad_images: Mutex::default(),
            puts: Mutex::default(),
            shown: Mutex::default(),
            away: Mutex::default(),
            faults: Mutex::default(),
        });
        tokio::spawn(chain.clone().run());
        tokio::spawn(nodes.clone().run());
        tokio::spawn(gateway.clone().run());
        Arc::new(Self {
            seed: terms.seed,
            clock,
            operator_clock,
            fuse,
            chain,
            tailnet,
            nodes,
            gateway,
            store,
            home,
            witness,
            own_mesh: watch::Sender::new(OwnMesh::default()),
            random: Arc::new(Mutex::new(StdRng::seed_from_u64(terms.seed))),
            operator: Mutex::new(None),
            appraiser: Mutex::new(None),
            registry: Mutex::default(),
            status_cache: Mutex::default(),
            starts: AtomicU64::new(0),
            terms,
            image: Mutex::new(NodeImage { name: IMAGE.to_owned(), redis: None }),
        })
    }

    /// Starts an operator process over this world.
    pub async fn start_operator(&self) {
        let root = root();
        let store = self.home.open().await;
        let term = store.take_over().await.unwrap();
        let clock = self.operator_clock.clone();
        let random = self.random.clone();
        let outside = Ports {
            chain: self.chain.clone(),
            gateway: self.gateway.clone(),
            mesh: Arc::new(SimMesh {
                tailnet: self.tailnet.clone(),
                fuse: self.fuse.clone(),
                witness: self.witness.clone(),
            }),
            own_mesh: Some(self.own_mesh.subscribe()),
            agents: Arc::new(SimAgents(self.nodes.clone())),
            backups: Arc::new(SimBackups { bucket: self.bucket(), fuse: self.fuse.clone() }),
            store: Arc::new(FusedStore {
                inner: store,
                fuse: self.fuse.clone(),
                witness: self.witness.clone(),
            }),
            now: {
                let clock = clock.clone();
                Arc::new(move || clock.now())
            },
            random: Arc::new(move || random.lock().unwrap().next_u64()),
        };
        let settings = Settings {
            constants: Constants {
                installation: root.installation_id(),
                owner: self.chain.owner().to_owned(),
                term,
                started: clock.now(),
            },
            root,
            image: self.image.lock().unwrap().clone(),
            mesh_tag: mesh::CLUSTER_TAG.to_owned(),
            quarantine_tag: mesh::QUARANTINE_TAG.to_owned(),
            login_server: None,
            budget_per_cluster: Uact(50_000_000),
            budget_global: self.terms.budget_global,
            runway: Runway::DEFAULT,
            gas_price: GasPrice(25_000),
            timing: self.terms.timing,
            tick: self.terms.tick,
        };
        let cache: Arc<StatusCache> = Arc::default();
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        *self.registry.lock().unwrap() = registry;
        let controller = Controller::new(outside, settings, metrics, cache.clone());
        *self.appraiser.lock().unwrap() = Some(controller.appraiser(Targets::default()));
        *self.status_cache.lock().unwrap() = cache;
        let stop = CancellationToken::new();
        let token = stop.clone();
        let task = tokio::spawn(async move {
            // A superseded operator ends by itself.
            let _ = controller.run(token).await;
            controller.abandon();
        });
        *self.operator.lock().unwrap() = Some((task, stop));
        self.starts.fetch_add(1, Ordering::SeqCst);
    }

    /// The object storage of all clusters.
    pub fn bucket(&self) -> Arc<Mutex<Bucket>> {
        self.nodes.state.lock().unwrap().bucket.clone()
    }

    /// The operator process dies at once, whatever it was doing.
    pub async fn kill_operator(&self) {
        let running = self.operator.lock().unwrap().take();
        drop(self.appraiser.lock().unwrap().take());
        if let Some((task, _)) = running {
            task.abort();
            let _ = task.await;
        }
        self.nodes.forget_views();
    }

    /// The value of a series of the operator that was started last, by its name and labels less the
    /// prefix; none where there is no such series.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock().unwrap()).unwrap();
        let values = text.lines().filter_map(|line| line.strip_prefix("akash_redis_"));
        values
            .filter_map(|line| line.rsplit_once(' '))
            .find_map(|(name, value)| (name == series).then(|| value.parse().expect("a number")))
    }

    /// What the operator that was started last shows of itself.
    pub fn shown(&self) -> Arc<StatusCache> {
        self.status_cache.lock().unwrap().clone()
    }

    /// Whom the API asks about what no record knows.
    pub fn recovery(&self) -> Arc<dyn Recovery> {
        self.shown().recovery().expect("an operator")
    }

    /// The operator dies, its store with it, and another one starts with an empty store.
    pub async fn lose_store(&self) {
        self.kill_operator().await;
        self.store.lose();
        self.start_operator().await;
    }

    /// How often an operator was started.
    pub fn operator_starts(&self) -> u64 {
        self.starts.load(Ordering::SeqCst)
    }

    /// Leaves the running operator to itself: the next one is started beside it.
    pub fn leave_operator(&self) -> tokio::task::JoinHandle<()> {
        self.operator.lock().unwrap().take().expect("an operator").0
    }

    /// Starts the operator again whenever the fuse killed it.
    pub fn restart_after_crashes(self: &Arc<Self>) -> tokio::task::JoinHandle<()> {
        let world = self.clone();
        tokio::spawn(async move {
            loop {
                world.fuse.blown().await;
                world.kill_operator().await;
                tokio::time::sleep(Duration::from_secs(1)).await;
                world.start_operator().await;
            }
        })
    }

    pub async fn apply(&self, yaml: &str) {
        let mut clusters = akash_redis::api::validate::parse(yaml).unwrap();
        self.home.seen().apply(clusters.remove(0)).await.unwrap();
    }

    /// Changes the desired part as a client does.
    pub async fn edit(&self, name: &str, change: impl FnOnce(&mut RedisCluster)) {
        let mut cluster = self.stored(name).await.cluster;
        change(&mut cluster);
        cluster.metadata.resource_version = None;
        cluster.status = None;
        self.home.seen().apply(cluster).await.unwrap();
    }

    /// Deletes a cluster with its data, as `delete --yes-delete-data` does.
    pub async fn delete(&self, name: &str) {
        let word = || (YES_DELETE_DATA.to_owned(), name.to_owned());
        self.edit(name, |cluster| cluster.metadata.annotations.extend([word()])).await;
        self.home.seen().mark_deleted(name).await.unwrap();
    }

    pub async fn stored(&self, name: &str) -> Stored {
        self.home.seen().get(name).await.unwrap()
    }

    /// Waits in virtual time; on a time-out it prints what the operator knew.
    pub async fn until(
        &self,
        what: &str,
        limit: Duration,
        mut condition: impl AsyncFnMut() -> bool,
    ) {
        let begin = self.clock.now();
        while !condition().await {
            if self.clock.now().since(begin) > limit {
                let known = self.home.seen().list().await.unwrap();
                for stored in &known {
                    println!("{:#?}\n{:#?}", stored.record, stored.cluster.status);
                    let name = &stored.cluster.metadata.name;
                    for event in self.home.seen().events(name).await.unwrap() {
                        println!("{} {} {}", event.at, event.reason, event.message);
                    }
                }
                panic!(
                    "seed {}: {what} did not happen within {limit:?} of virtual time",
                    self.seed
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    pub async fn ready(&self, name: &str) -> bool {
        let Ok(stored) = self.home.seen().get(name).await else { return false };
        let generation = stored.cluster.metadata.generation.unwrap_or(0);
        stored.cluster.status.is_some_and(|s| {
            s.observed_generation == generation
                && s.conditions
                    .iter()
                    .any(|c| c.kind == ConditionType::Ready && c.status == ConditionStatus::True)
        })
    }

    pub async fn until_ready(&self, name: &str) {
        self.until("Ready", Duration::from_mins(20), async || self.ready(name).await).await;
    }

    pub async fn until_gone(&self, name: &str) {
        self.until("deletion", Duration::from_mins(20), async || {
            self.home.seen().get(name).await.is_err()
        })
        .await;
    }

    pub async fn master(&self, name: &str) -> IncarnationName {
        self.stored(name).await.record.master.expect("a master").incarnation
    }

    /// Promises 1, 4 and 7 at the end of every simulation that deleted everything.
    pub fn assert_nothing_left(&self) {
        let seed = self.seed;
        assert_eq!(
            self.chain.active_deployments(),
            BTreeSet::new(),
            "seed {seed}: deployments are left"
        );
        let tailnet = self.tailnet.lock().unwrap();
        assert!(tailnet.devices.is_empty(), "seed {seed}: devices are left: {:?}", tailnet.devices);
        assert_eq!(tailnet.usable_keys(), 0, "seed {seed}: usable keys are left");
        assert_eq!(self.chain.in_escrow(), 0, "seed {seed}: coins are left in escrow");
        self.chain.assert_coins_are_conserved(seed);
        self.assert_one_writer();
    }

    /// The operator's books are what the ledger shows, to the last unit. For a moment in which
    /// nothing is under way and nothing is leased.
    pub async fn assert_books_close(&self) {
        let (accounts, txs) =
            (self.store.accounts().await.unwrap(), self.store.booked_txs().await.unwrap());
        self.chain.audit(&accounts, &txs, Head::default(), self.seed);
    }

    /// No split brain, and nothing that the witness forbids.
    pub fn assert_one_writer(&self) {
        let state = self.nodes.state.lock().unwrap();
        let (seed, app) = (self.seed, &state.application);
        assert!(app.split.is_empty(), "seed {seed}: two masters took writes: {:?}", app.split);
        assert!(app.lost.is_empty(), "seed {seed}: writes were lost: {:?}", app.lost);
        assert_eq!(self.witness.broken(), Vec::<String>::new(), "seed {seed}");
    }

    /// Promise 3: the master of `name` holds every write that may not be lost.
    pub async fn assert_nothing_lost(&self, name: &str) {
        let master = self.master(name).await;
        let lost = self.nodes.state.lock().unwrap().lost_for_good(&master);
        assert_eq!(lost, 0, "seed {}: {master} lacks writes that were acknowledged", self.seed);
    }

    /// Clients of a cluster wait until so many replicas have a write.
    pub fn confirms(&self, name: &str, confirmations: u32) {
        let mut state = self.nodes.state.lock().unwrap();
        let confirmations = usize::try_from(confirmations).unwrap();
        state.application.confirmations.insert(name.to_owned(), confirmations);
    }

    /// What the clients of the only cluster see of single keys is written down from now on.
    pub fn with_clients(&self) {
        let app = &mut self.nodes.state.lock().unwrap().application;
        app.clients = Some(clients::Clients::from(app.acknowledged.len() as u64));
    }

    /// Writes whose clients were told that enough replicas have them.
    pub fn confirmed(&self) -> usize {
        self.nodes.state.lock().unwrap().application.confirmed.len()
    }

    /// What clients saw of each key could have come about one operation after the other.
    pub fn assert_one_after_the_other(&self) {
        let state = self.nodes.state.lock().unwrap();
        let Some(clients) = &state.application.clients else { return };
        let broken = clients.broken();
        assert!(broken.is_empty(), "seed {}: no order explains {:?}", self.seed, broken.first());
        let (confirmed, reads) = (state.application.confirmed.len(), clients.reads);
        assert!(
            confirmed > 0 && reads > 0,
            "seed {}: {confirmed} writes, {reads} reads",
            self.seed
        );
    }

    /// Acknowledged writes that the present master does not hold.
    pub async fn lost_writes(&self, name: &str) -> usize {
        let master = self.master(name).await;
        let state = self.nodes.state.lock().unwrap();
        let log: BTreeSet<u64> = state.nodes[&master].log.iter().copied().collect();
        state.application.of(name).filter(|w| !log.contains(w)).count()
    }

    /// What all leases together cost a month of 30 days, in uact.
    pub fn rate_per_month(&self) -> u128 {
        self.chain.rate_per_block() * chain::BLOCKS_A_MONTH
    }

    pub fn written(&self) -> usize {
        self.nodes.state.lock().unwrap().application.acknowledged.len()
    }
}
