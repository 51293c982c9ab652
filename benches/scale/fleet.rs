//! Clusters that have all they want, in the world as the operator's ports show it.

#[allow(dead_code, unused_imports, clippy::unnecessary_wraps)] // the scenes of the planner's tests: one of them is used here
#[path = "../../tests/plan/scene.rs"]
mod scene;
#[cfg(test)]
#[path = "../../tests/plan/truth.rs"]
mod truth;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::home::Home;
use akash_redis::backup::storage::StorageError;
use akash_redis::chain::{Chain, ChainError};
use akash_redis::changes::{Changes, Notifier};
use akash_redis::gateway::{Gateway, GatewayError, StatusPage, StatusPageError};
use akash_redis::mesh::{MeshControl, MeshError, MintedKey};
use akash_redis::model::backup::{BackupManifest, Listing};
use akash_redis::model::chain::{
    ChainMsg, ChainView, DeploymentView, ProviderOffer, ProviderView, SignedTx, TxOutcome,
};
use akash_redis::model::ids::{IncarnationName, InstallationId, LeaseId};
use akash_redis::model::inventory::{Constants, LeaseStatus};
use akash_redis::model::logs::LogQuery;
use akash_redis::model::mesh::MeshView;
use akash_redis::model::money::Uact;
use akash_redis::model::node::NodeView;
use akash_redis::model::step::StorageRef;
use akash_redis::model::time::UnixMs;
use akash_redis::operator::{
    AgentError, Agents, Backups, Controller, LogLines, Metrics, Ports, Settings,
};
use akash_redis::plan::Timing;
use akash_redis::secrets::RootSecret;
use akash_redis::store::Store;
use akash_redis::wire::akash_redis::agent::v1::command_request::Command;
use akash_redis::wire::akash_redis::agent::v1::{
    AnnounceReply, AnnounceRequest, CommandRequest, KeptCopy,
};
use async_trait::async_trait;
use futures::StreamExt as _;
use prometheus_client::registry::Registry;
use scene::Scene;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Between two looks at whether something is done.
const LOOK: Duration = Duration::from_millis(1);
/// A second is cut into so many rounds of reports.
const ROUNDS: u32 = 100;

/// A running operator over a fleet.
pub struct Fleet {
    home: Home,
    clusters: u64,
    world: Arc<World>,
    running: Running,
    _reports: DropGuard,
}

/// One operator process.
struct Running {
    store: Arc<dyn Store>,
    registry: Registry,
    _stop: DropGuard,
}

/// All of the outside world.
struct World {
    chain: ChainView,
    /// Readings of the chain so far: a provider is paid between two of them.
    readings: AtomicU64,
    mesh: MeshView,
    nodes: Mutex<BTreeMap<IncarnationName, NodeView>>,
    changes: Notifier<IncarnationName>,
    effects: AtomicUsize,
}

impl Fleet {
    pub async fn start(clusters: usize, home: Home) -> Self {
        let store = home.open().await;
        let term = store.take_over().await.expect("a term");
        let template = Scene::whole();
        let mut chain = template.inventory.chain.value.clone().expect("a chain");
        chain.deployments.clear();
        let mut world = World {
            chain,
            readings: AtomicU64::new(0),
            mesh: MeshView { all_keys: true, ..MeshView::default() },
            nodes: Mutex::default(),
            changes: Notifier::default(),
            effects: AtomicUsize::new(0),
        };
        for number in 0..clusters {
            let name = name_of(number);
            let scene = renamed(&template, &name, number as u64);
            store.apply(scene.cluster.clone()).await.expect("an object");
            store.set_record(&name, 0, &scene.record).await.expect("a record");
            world.add(scene);
        }
        let world = Arc::new(world);
        let running = world.run(store, term);
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(world.clone().report()));
        Self { home, clusters: clusters as u64, world, running, _reports: stop.drop_guard() }
    }

    /// The operator ends, and the next one begins; how long it took until each cluster was planned.
    pub async fn restart(&mut self) -> Duration {
        let began = Instant::now();
        let store = self.home.open().await;
        let term = store.take_over().await.expect("a term");
        self.running = self.world.run(store, term);
        while !self.is_planned() {
            tokio::time::sleep(LOOK).await;
        }
        began.elapsed()
    }

    /// Every cluster was planned by the running operator.
    pub fn is_planned(&self) -> bool {
        self.plans() >= self.clusters
    }

    /// Plans of the running operator.
    fn plans(&self) -> u64 {
        let text = self.metrics();
        let of = |line: &str| {
            line.strip_prefix("akash_redis_reconcile_seconds_count ")?.trim().parse().ok()
        };
        text.lines().find_map(of).unwrap_or(0)
    }

    /// Somebody changes a cluster; how long it took until a plan for that was published.
    pub async fn change(&self, number: usize) -> Duration {
        let (name, store) = (name_of(number), &self.running.store);
        let began = Instant::now();
        self.home.pause(&name, store).await;
        loop {
            let seen = store.get(&name).await.expect("the object").cluster;
            let planned = seen.status.map(|status| status.observed_generation);
            if seen.spec.paused && planned == seen.metadata.generation {
                return began.elapsed();
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Where the operator keeps what it remembers.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// What was asked of the outside world so far, besides readings.
    pub fn effects(&self) -> usize {
        self.world.effects.load(Ordering::Relaxed)
    }

    pub fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.running.registry)
            .expect("metrics");
        text
    }
}

fn name_of(number: usize) -> String {
    format!("c{number:04}")
}

fn settings(term: u64) -> Settings {
    Settings {
        constants: Constants {
            installation: scene::installation(),
            owner: "akash1me".to_owned(),
            term,
            started: UnixMs::now(),
        },
        root: RootSecret::new(vec![7; 32].into()).expect("long enough"),
        image: scene::image("aa"),
        mesh_tag: scene::TAG.to_owned(),
        quarantine_tag: scene::QUARANTINE.to_owned(),
        login_server: None,
        budget_per_cluster: Uact(50_000_000),
        budget_global: Uact(u64::MAX),
        runway: akash_redis::api::types::Runway::DEFAULT,
        gas_price: akash_redis::plan::GasPrice(25_000),
        timing: Timing::default(),
        tick: Duration::from_secs(5),
    }
}

/// The same cluster under another name, with deployments and devices of its own.
fn renamed(template: &Scene, name: &str, number: u64) -> Scene {
    let text = |text: &str| text.replace("cache-", &format!("{name}-"));
    let device = |id: &str| format!("{id}-{name}");
    let mut scene = template.clone();
    name.clone_into(&mut scene.cluster.metadata.name);
    let record = serde_json::to_string(&template.record).expect("a record");
    scene.record = serde_json::from_str(&text(&record)).expect("a record");
    let mut dseqs = BTreeMap::new();
    for incarnation in scene.record.incarnations.values_mut() {
        let dseq = 1_000_000 + number * 10 + u64::from(incarnation.ordinal);
        dseqs.insert(std::mem::replace(&mut incarnation.dseq, dseq), dseq);
        incarnation.lease.as_mut().expect("a lease").id.dseq = dseq;
        incarnation.device = incarnation.device.as_deref().map(device);
    }
    let nodes = std::mem::take(&mut scene.inventory.nodes);
    for (incarnation, mut view) in nodes {
        let state = &mut view.state;
        for part in [&mut state.incarnation, &mut state.mesh.dns_name, &mut state.redis.master_host]
        {
            *part = text(part);
        }
        state.redis.replicas.iter_mut().for_each(|replica| replica.name = text(&replica.name));
        state.mesh.device_id = device(&state.mesh.device_id);
        state.mesh.visible_ids.iter_mut().for_each(|id| *id = device(id));
        scene.inventory.nodes.insert(IncarnationName(text(&incarnation.0)), view);
    }
    let deployments = std::mem::take(&mut scene.chain().deployments);
    for mut deployment in deployments.into_values() {
        deployment.dseq = dseqs[&deployment.dseq];
        deployment.group_name = text(&deployment.group_name);
        deployment.leases.iter_mut().for_each(|lease| lease.id.dseq = deployment.dseq);
        scene.chain().deployments.insert(deployment.dseq, deployment);
    }
    for known in &mut scene.mesh().devices {
        (known.id, known.hostname, known.name) =
            (device(&known.id), text(&known.hostname), text(&known.name));
    }
    scene
}

impl World {
    /// Starts an operator over it.
    fn run(self: &Arc<Self>, store: Arc<dyn Store>, term: u64) -> Running {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let ports = Ports {
            chain: self.clone(),
            gateway: self.clone(),
            mesh: self.clone(),
            own_mesh: None,
            agents: self.clone(),
            backups: self.clone(),
            store: store.clone(),
            now: Arc::new(UnixMs::now),
            random: Arc::new(rand::random),
        };
        let controller = Controller::new(ports, settings(term), metrics, Arc::default());
        let stop = CancellationToken::new();
        let shutdown = stop.clone();
        tokio::spawn(async move {
            let ended = controller.run(shutdown).await;
            controller.abandon();
            ended.expect("it runs on");
        });
        Running { store, registry, _stop: stop.drop_guard() }
    }

    fn add(&mut self, mut scene: Scene) {
        self.chain.deployments.append(&mut scene.chain().deployments);
        self.mesh.devices.append(&mut scene.mesh().devices);
        self.nodes.get_mut().expect("no panic").append(&mut scene.inventory.nodes);
    }

    /// Every agent reports once a second, each at its own moment, and data comes in all the time.
    async fn report(self: Arc<Self>) {
        let names: Vec<_> = self.nodes.lock().expect("no panic").keys().cloned().collect();
        let mut tick = tokio::time::interval(Duration::from_secs(1) / ROUNDS);
        for round in (0..ROUNDS).cycle() {
            tick.tick().await;
            let now = UnixMs::now();
            // A step without a common divisor: nodes of one cluster do not report together.
            let due = names
                .iter()
                .enumerate()
                .filter(|(at, _)| u32::try_from(at * 37).unwrap_or(0) % ROUNDS == round);
            for (_, name) in due {
                if let Some(view) = self.nodes.lock().expect("no panic").get_mut(name) {
                    view.heard = now;
                    view.state.redis.offset += 100;
                    view.state.redis.replicas.iter_mut().for_each(|r| r.offset += 100);
                }
                self.changes.notify(name.clone());
            }
        }
    }

    fn changed(&self) {
        self.effects.fetch_add(1, Ordering::Relaxed);
    }

    fn away<T>(&self) -> Result<T, ChainError> {
        self.changed();
        Err(ChainError::Away { endpoint: "bench".to_owned(), source: "nothing is bought".into() })
    }

    fn only(&self, dseqs: &BTreeSet<u64>) -> BTreeMap<u64, DeploymentView> {
        let of = |dseq: &u64| Some((*dseq, self.chain.deployments.get(dseq)?.clone()));
        dseqs.iter().filter_map(of).collect()
    }
}

#[async_trait]
impl Chain for World {
    fn owner(&self) -> &'static str {
        "akash1me"
    }

    /// As on a real chain every escrow is another one with each block.
    async fn read(&self, _: &BTreeSet<u64>) -> Result<ChainView, ChainError> {
        let blocks = self.readings.fetch_add(1, Ordering::Relaxed);
        let mut view = self.chain.clone();
        view.height += i64::try_from(blocks).expect("a height");
        for deployment in view.deployments.values_mut() {
            deployment.escrow.spent.0 += blocks;
            deployment.escrow.left.0 = deployment.escrow.left.0.saturating_sub(blocks);
        }
        Ok(view)
    }

    async fn read_deployments(&self, dseqs: &BTreeSet<u64>) -> Result<ChainView, ChainError> {
        Ok(ChainView { deployments: self.only(dseqs), ..self.chain.clone() })
    }

    async fn sign(&self, _: &ChainMsg) -> Result<SignedTx, ChainError> {
        self.away()
    }

    async fn broadcast_and_confirm(&self, _: &SignedTx) -> Result<TxOutcome, ChainError> {
        self.away()
    }

    /// A reading, made now and then whatever the clusters do.
    async fn providers(&self, _: bool) -> Result<Vec<ProviderOffer>, ChainError> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Gateway for World {
    async fn put_manifest(
        &self,
        provider: &ProviderView,
        _: &LeaseId,
        _: &str,
    ) -> Result<(), GatewayError> {
        self.changed();
        let (provider, detail) = (provider.address.clone(), "nothing is delivered".to_owned());
        Err(GatewayError::Away { provider, detail })
    }

    async fn lease_status(&self, _: &ProviderView, _: &LeaseId) -> LeaseStatus {
        LeaseStatus::Away("every node speaks for itself".to_owned())
    }

    async fn status_page(&self, host: &str, _: &str) -> Result<StatusPage, StatusPageError> {
        Err(StatusPageError { host: host.to_owned(), detail: "nobody is asked".to_owned() })
    }
}

#[async_trait]
impl MeshControl for World {
    async fn read(&self, _: &InstallationId, _: &BTreeSet<String>) -> Result<MeshView, MeshError> {
        Ok(self.mesh.clone())
    }

    async fn mint(&self, _: &str, _: &str, _: Duration) -> Result<MintedKey, MeshError> {
        self.changed();
        Err(MeshError::Away { api: "bench".to_owned(), detail: "no key is needed".to_owned() })
    }

    async fn revoke(&self, _: &str) -> Result<(), MeshError> {
        self.changed();
        Ok(())
    }

    async fn set_tags(&self, _: &str, _: &[String]) -> Result<(), MeshError> {
        self.changed();
        Ok(())
    }

    async fn delete_device(&self, _: &str) -> Result<(), MeshError> {
        self.changed();
        Ok(())
    }
}

#[async_trait]
impl Backups for World {
    async fn list(&self, _: &StorageRef, _: Option<UnixMs>) -> Result<Listing, StorageError> {
        Ok(Listing::default())
    }

    async fn complete(&self, _: &StorageRef, _: &BackupManifest) -> Result<(), StorageError> {
        Ok(())
    }

    async fn delete(&self, _: &StorageRef, _: &str) -> Result<(), StorageError> {
        Ok(())
    }

    async fn delete_log(&self, _: &StorageRef, _: &str, _: UnixMs) -> Result<(), StorageError> {
        Ok(())
    }
}

#[async_trait]
impl Agents for World {
    fn watch(&self, _: &str, _: &BTreeMap<IncarnationName, String>) {}

    fn view(&self, incarnation: &IncarnationName) -> Option<NodeView> {
        self.nodes.lock().expect("no panic").get(incarnation).cloned()
    }

    async fn command(
        &self,
        incarnation: &IncarnationName,
        request: CommandRequest,
    ) -> Result<(), AgentError> {
        self.changed();
        if let Some(Command::Configure(configure)) = request.command
            && let Some(view) = self.nodes.lock().expect("no panic").get_mut(incarnation)
        {
            view.state.configured = configure.generation;
        }
        Ok(())
    }

    async fn recall(&self, _: &IncarnationName) -> Result<Option<KeptCopy>, AgentError> {
        Ok(None)
    }

    async fn announce(
        &self,
        _: &IncarnationName,
        _: AnnounceRequest,
    ) -> Result<Option<AnnounceReply>, AgentError> {
        Ok(None)
    }

    async fn logs(&self, _: &IncarnationName, _: &LogQuery) -> Result<LogLines, AgentError> {
        Ok(futures::stream::empty().boxed())
    }

    fn changes(&self) -> Changes<IncarnationName> {
        self.changes.subscribe()
    }
}
