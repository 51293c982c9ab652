//! The control loop: whenever something changed, plan every cluster, write the record, start what
//! is allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::effects::{Hands, Touches, touches};
use super::metrics::Metrics;
use super::observe::{Readings, lock};
use super::ports::Ports;
use crate::api::report::{PlanReport, PlannedStep};
use crate::api::status::Status;
use crate::api::types::RedisCluster;
use crate::model::ids::IncarnationName;
use crate::model::inventory::{Constants, Failing, Inventory};
use crate::model::mesh::OwnMesh;
use crate::model::money::Uact;
use crate::model::record::Record;
use crate::model::step::{Effect, Step};
use crate::plan::{self, Input, Limits, Plan, Timing};
use crate::secrets::RootSecret;
use crate::server::StatusCache;
use crate::store::{Event, StoreError, Stored};

/// First pause after a failed effect, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// A status that differs in nothing but what is measured is written so often.
const LAG_EVERY: Duration = Duration::from_secs(3);
/// Longest pause after failed effects.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What does not change while the process runs.
#[derive(Clone)]
pub struct Settings {
    /// Installation, owner, term.
    pub constants: Constants,
    /// Everything secret is derived from it.
    pub root: RootSecret,
    /// Image of the nodes, by digest.
    pub image: String,
    /// Tag of the nodes' devices when the manifest names none.
    pub mesh_tag: String,
    /// Tag under which a node is reached by the operator alone.
    pub quarantine_tag: String,
    /// Control server the nodes log in to, when it is not Tailscale's own.
    pub login_server: Option<String>,
    /// Per month, for a cluster whose manifest names no budget.
    pub budget_per_cluster: Uact,
    /// Per month, for all clusters together.
    pub budget_global: Uact,
    /// Where it counts.
    pub metrics: Metrics,
    /// How long things may take.
    pub timing: Timing,
    /// Chain, tailnet and gateways are read at least so often.
    pub tick: Duration,
}

impl Settings {
    /// Tag of the devices of a cluster.
    pub(super) fn tag_of<'a>(&'a self, cluster: &'a RedisCluster) -> &'a str {
        cluster.spec.mesh.tag.as_deref().unwrap_or(&self.mesh_tag)
    }
}

/// Effects on one incarnation that outdate the same reading run one after the other.
type Lane = (String, IncarnationName, Touches);

#[derive(Default)]
struct Lanes {
    busy: BTreeSet<Lane>,
    /// The last failure, how often in a row, and the moment of the next try.
    paused: BTreeMap<Lane, (Failing, tokio::time::Instant)>,
}

/// The controller.
pub struct Controller {
    hands: Arc<Hands>,
    status_cache: Arc<StatusCache>,
    lanes: Arc<Mutex<Lanes>>,
    /// One turn each to read the chain (with the gateways) and the tailnet.
    turns: [Arc<Semaphore>; 2],
    wake: watch::Sender<u64>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// When a status was last written, by cluster.
    written: Mutex<BTreeMap<String, tokio::time::Instant>>,
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Controller {
    /// A controller over `ports`; nothing is read or done before [`Self::run`].
    #[must_use]
    pub fn new(ports: Ports, settings: Settings, status_cache: Arc<StatusCache>) -> Self {
        let readings = Arc::new(Readings::new(settings.root.clone()));
        let hands = Hands {
            ports,
            settings,
            readings,
            held: Mutex::default(),
            minting: Mutex::default(),
            pending: Mutex::default(),
            creating: Arc::default(),
        };
        Self {
            hands: Arc::new(hands),
            status_cache,
            lanes: Arc::default(),
            turns: [(); 2].map(|()| Arc::new(Semaphore::new(1))),
            wake: watch::channel(0).0,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            written: Mutex::default(),
        }
    }

    /// Runs until `shutdown`, or until a later operator took over the store.
    ///
    /// # Errors
    /// The store failed for good, or belongs to somebody else now.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), StoreError> {
        let ports = &self.hands.ports;
        self.take_up_transactions().await?;
        let mut wake = self.wake.subscribe();
        let (mut store, mut agents, mut own) =
            (ports.store.changes(), ports.agents.changes(), ports.own_mesh.clone());
        let mut tick = tokio::time::interval(self.hands.settings.tick);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = tick.tick() => self.observe().await?,
                changed = wake.changed() => if changed.is_err() { break },
                changed = store.next() => if changed.is_none() { break },
                changed = agents.next() => if changed.is_none() { break },
                () = news(&mut own) => self.hands.watch_nodes().await?,
            }
            self.pass().await?;
        }
        self.tasks.close();
        Ok(())
    }

    /// Ends everything at once, wherever it is, as the death of the process would.
    pub fn abandon(&self) {
        self.stop.cancel();
    }

    /// Transactions of an earlier process may still land: nothing else is signed for their
    /// deployments until their end is known.
    async fn take_up_transactions(&self) -> Result<(), StoreError> {
        for (_, tx) in self.hands.ports.store.kept_txs().await? {
            self.hands.expect(&tx);
            let (hands, wake) = (self.hands.clone(), self.wake.clone());
            self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(async move {
                hands.broadcast_and_confirm(&tx).await;
                hands.read_chain_and_leases(&BTreeSet::from([tx.dseq])).await;
                wake.send_modify(|n| *n += 1);
            }));
        }
        Ok(())
    }

    /// Begins to read chain, gateways and tailnet, each unless it is being read already. Nobody
    /// waits for the end: a chain that says nothing for its ten seconds must not hold up a
    /// failover.
    async fn observe(&self) -> Result<(), StoreError> {
        let clusters = self.hands.ports.store.list().await?;
        let [chain, mesh] = &self.turns;
        let (hands, known, unheard) =
            (self.hands.clone(), known_dseqs(&clusters), self.unheard(&clusters));
        self.read(chain, async move {
            hands.readings.read_chain_and_leases(&hands.ports, &known, &unheard).await;
        });
        let hands = self.hands.clone();
        self.read(mesh, async move {
            hands.readings.read_mesh(&hands.ports).await;
            if let Err(error) = hands.watch_nodes().await {
                tracing::warn!(%error, "the store cannot be read; the same nodes are watched as before");
            }
        });
        Ok(())
    }

    fn read(&self, turn: &Arc<Semaphore>, reading: impl Future<Output = ()> + Send + 'static) {
        let Ok(turn) = turn.clone().try_acquire_owned() else { return };
        let wake = self.wake.clone();
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(async move {
            reading.await;
            drop(turn);
            wake.send_modify(|n| *n += 1);
        }));
    }

    /// Deployments whose node does not speak for itself.
    fn unheard(&self, clusters: &[Stored]) -> BTreeSet<u64> {
        let agents = &self.hands.ports.agents;
        clusters
            .iter()
            .flat_map(|c| &c.record.incarnations)
            .filter(|(n, _)| !agents.view(n).is_some_and(|v| v.connected))
            .map(|(_, i)| i.dseq)
            .collect()
    }

    /// Plans every cluster once and starts what its lanes allow.
    async fn pass(&self) -> Result<(), StoreError> {
        let mut clusters = self.hands.ports.store.list().await?;
        let mut inventory = self.hands.readings.inventory(&self.hands.ports);
        // After the reading of the tailnet: a key that is in it is in these as well if it is ours.
        inventory.held = self.hands.own_keys();
        inventory.minting = self.hands.minted_since(inventory.mesh.at);
        inventory.not_minted = self.hands.not_minted();
        let agents = &self.hands.ports.agents;
        let nodes = clusters.iter().flat_map(|c| c.record.incarnations.keys());
        inventory.nodes = nodes.filter_map(|n| Some((n.clone(), agents.view(n)?))).collect();
        inventory.unrecorded = self.hands.readings.unrecorded(&clusters);
        inventory.delivered = self.hands.delivered();
        inventory.failing =
            lock(&self.lanes).paused.values().map(|(failing, _)| failing.clone()).collect();
        inventory.pending =
            self.hands.unsettled(inventory.chain.value.as_ref().map_or(0, |c| c.height));
        for at in 0..clusters.len() {
            match self.cluster(&clusters[at], &clusters, &inventory).await {
                // What was committed just now is spoken for when the next one is planned.
                Ok(record) => clusters[at].record = record,
                // Somebody changed the object meanwhile: the change wakes the loop again.
                Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }

    /// Plans one cluster, commits, starts what is allowed; returns the record as it was committed.
    async fn cluster(
        &self,
        stored: &Stored,
        all: &[Stored],
        inventory: &Inventory,
    ) -> Result<Record, StoreError> {
        let store = &self.hands.ports.store;
        let name = &stored.cluster.metadata.name;
        let plan = self.plan(stored, all, inventory);
        if plan.record != stored.record {
            store.set_record(name, stored.record_version, &plan.record).await?;
            // The next pass reads the new record; what else changed by then is planned under it.
            self.wake.send_modify(|n| *n += 1);
        }
        self.tell(name, &plan).await?;
        if plan.finished {
            store.remove(name).await?;
            self.status_cache.remove(name);
            self.hands.settings.metrics.forget(name);
            return Ok(plan.record);
        }
        if self.worth_writing(name, stored.cluster.status.as_ref(), &plan.status) {
            store.set_status(name, &plan.status).await?;
        }
        self.hands.settings.metrics.status(name, &plan.status);
        self.hands.settings.metrics.paths(
            name,
            plan.record.incarnations.keys().filter_map(|n| Some((n, inventory.nodes.get(n)?))),
        );
        self.status_cache.publish(name, report(&plan), plan.status.master.clone());
        for (incarnation, entry) in &plan.record.incarnations {
            if (entry.joined && entry.rejoin.is_none()) || entry.condemned.is_some() {
                self.hands.forget_manifest(incarnation);
            }
        }
        self.start(&stored.cluster, &plan);
        Ok(plan.record)
    }

    /// Under load the lag of a replica changes with every state that it pushes; that alone is
    /// written every few seconds.
    fn worth_writing(&self, name: &str, old: Option<&Status>, new: &Status) -> bool {
        let Some(old) = old else { return true };
        if old == new {
            return false;
        }
        let now = tokio::time::Instant::now();
        let mut written = lock(&self.written);
        let recent = written.get(name).is_some_and(|at| now.duration_since(*at) < LAG_EVERY);
        if recent && without_measures(old) == without_measures(new) {
            return false;
        }
        written.insert(name.to_owned(), now);
        true
    }

    fn plan(&self, stored: &Stored, all: &[Stored], inventory: &Inventory) -> Plan {
        let settings = &self.hands.settings;
        let name = &stored.cluster.metadata.name;
        let others = all.iter().filter(|s| &s.cluster.metadata.name != name);
        let limits = Limits {
            per_cluster_default: settings.budget_per_cluster,
            global: settings.budget_global,
            others: others.map(|s| plan::committed_per_month(inventory, &s.record)).sum(),
        };
        plan::plan(&Input {
            cluster: &stored.cluster,
            record: &stored.record,
            inventory,
            constants: &settings.constants,
            timing: &settings.timing,
            limits: &limits,
            tags: plan::Tags {
                cluster: settings.tag_of(&stored.cluster),
                quarantine: &settings.quarantine_tag,
            },
            now: (self.hands.ports.now)(),
        })
    }

    async fn tell(&self, name: &str, plan: &Plan) -> Result<(), StoreError> {
        if plan.events.is_empty() {
            return Ok(());
        }
        let at = (self.hands.ports.now)();
        let events: Vec<_> = plan
            .events
            .iter()
            .map(|(reason, message)| Event {
                at,
                cluster: name.to_owned(),
                reason: (*reason).to_owned(),
                message: message.clone(),
            })
            .collect();
        for event in &events {
            tracing::info!(cluster = name, reason = event.reason, "{}", event.message);
        }
        self.hands.ports.store.add_events(&events).await
    }

    /// Starts the steps of each lane that is neither busy nor pausing.
    fn start(&self, cluster: &RedisCluster, plan: &Plan) {
        let mut by_lane: BTreeMap<Lane, Vec<Step>> = BTreeMap::new();
        for step in &plan.steps {
            let lane = (
                cluster.metadata.name.clone(),
                step.effect.incarnation().clone(),
                touches(&step.effect),
            );
            by_lane.entry(lane).or_default().push(step.clone());
        }
        for (lane, steps) in by_lane {
            let mut lanes = lock(&self.lanes);
            let pausing = lanes
                .paused
                .get(&lane)
                .is_some_and(|(_, until)| tokio::time::Instant::now() < *until);
            if pausing || !lanes.busy.insert(lane.clone()) {
                continue;
            }
            drop(lanes);
            self.spawn(lane, steps, cluster.clone(), plan.record.clone());
        }
    }

    fn spawn(&self, lane: Lane, steps: Vec<Step>, cluster: RedisCluster, record: Record) {
        let (hands, lanes, wake) = (self.hands.clone(), self.lanes.clone(), self.wake.clone());
        let creating = hands.creating(&steps, &record);
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(async move {
            let mut failed = None;
            for step in &steps {
                let done = hands.carry_out(&cluster, &record, &step.effect).await;
                hands.note(&cluster.metadata.name, step, done.as_ref().err()).await;
                if let Err(error) = done {
                    failed = Some((step.effect.clone(), error));
                    break;
                }
            }
            // The lane stays busy until its reading is new: a plan on the old one would do it all
            // again.
            match lane.2 {
                Touches::Chain => {
                    let own =
                        record.incarnations.get(&lane.1).map(|i| i.dseq).into_iter().collect();
                    hands.read_chain_and_leases(&own).await;
                }
                Touches::Mesh => hands.readings.read_mesh(&hands.ports).await,
                Touches::Node => {}
            }
            drop(creating);
            let pause = {
                let mut lanes = lock(&lanes);
                lanes.busy.remove(&lane);
                settle_pause(&mut lanes, lane, failed)
            };
            if !pause.is_zero() {
                wake.send_modify(|n| *n += 1);
                tokio::time::sleep(pause).await;
            }
            wake.send_modify(|n| *n += 1);
        }));
    }
}

impl Hands {
    /// Reads the chain anew for all clusters, and asks the providers about `dseqs`.
    async fn read_chain_and_leases(&self, dseqs: &BTreeSet<u64>) {
        let mut known = dseqs.clone();
        match self.ports.store.list().await {
            Ok(clusters) => known.extend(known_dseqs(&clusters)),
            Err(error) => {
                tracing::warn!(%error, "the store cannot be read; closed deployments are not looked at this time");
            }
        }
        self.readings.read_chain_and_leases(&self.ports, &known, dseqs).await;
    }

    /// Tells the agents' room whom to watch.
    async fn watch_nodes(&self) -> Result<(), StoreError> {
        let clusters = self.ports.store.list().await?;
        let settings = &self.settings;
        for stored in &clusters {
            let tags = [settings.tag_of(&stored.cluster), &settings.quarantine_tag];
            let nodes = stored.record.incarnations.iter();
            let nodes = nodes.map(|(name, i)| (name, i.device.as_deref(), tags));
            let targets = self.readings.addresses(&self.ports, nodes);
            self.ports.agents.watch(&stored.cluster.metadata.name, &targets);
        }
        Ok(())
    }

    /// Writes down how a step ended.
    async fn note(&self, cluster: &str, step: &Step, error: Option<&String>) {
        self.settings.metrics.effect(cluster, error.is_none());
        let (what, on) = (describe(&step.effect), step.effect.incarnation());
        let is_command = touches(&step.effect) == Touches::Node;
        let (reason, message) = match error {
            None if is_command => {
                tracing::debug!(cluster, "{what} {on}: done");
                return;
            }
            None => ("Done", format!("{what} {on}: done ({})", step.reason)),
            Some(error) => ("EffectFailed", format!("{what} {on}: {error}")),
        };
        if error.is_some() {
            tracing::warn!(cluster, reason, "{message}");
        } else {
            tracing::info!(cluster, reason, "{message}");
        }
        let event = Event {
            at: (self.ports.now)(),
            cluster: cluster.to_owned(),
            reason: reason.to_owned(),
            message,
        };
        if let Err(error) = self.ports.store.add_events(&[event]).await {
            tracing::warn!(cluster, %error, "an event could not be written");
        }
    }
}

/// Something is new about the operator's own way onto the mesh; never, where nothing is known of
/// it.
async fn news(own: &mut Option<watch::Receiver<OwnMesh>>) {
    let ended = match own {
        Some(own) => own.changed().await.is_err(),
        None => true,
    };
    if ended {
        std::future::pending::<()>().await;
    }
}

/// Counts a failure and returns the pause before the next try; a success clears the count.
fn settle_pause(lanes: &mut Lanes, lane: Lane, failed: Option<(Effect, String)>) -> Duration {
    let Some((effect, error)) = failed else {
        lanes.paused.remove(&lane);
        return Duration::ZERO;
    };
    let count = lanes.paused.get(&lane).map_or(0, |(failing, _)| failing.times);
    let pause = FIRST_PAUSE.saturating_mul(2u32.saturating_pow(count.min(10))).min(LONGEST_PAUSE);
    let failing = Failing { effect, times: count + 1, error };
    lanes.paused.insert(lane, (failing, tokio::time::Instant::now() + pause));
    pause
}

fn without_measures(status: &Status) -> Status {
    let mut status = status.clone();
    status.nodes.iter_mut().for_each(|node| (node.lag_bytes, node.path) = (None, None));
    status
}

fn known_dseqs(clusters: &[Stored]) -> BTreeSet<u64> {
    clusters.iter().flat_map(|c| c.record.incarnations.values().map(|i| i.dseq)).collect()
}

fn report(plan: &Plan) -> PlanReport {
    PlanReport {
        steps: plan
            .steps
            .iter()
            .map(|s| PlannedStep {
                incarnation: s.effect.incarnation().0.clone(),
                what: describe(&s.effect),
                reason: s.reason.clone(),
            })
            .collect(),
        waiting: plan.status.waiting.clone(),
        cost: plan.status.cost.clone(),
    }
}

/// An effect in a phrase, without its object.
fn describe(effect: &Effect) -> String {
    use crate::model::step::Command;
    match effect {
        Effect::CreateDeployment { deposit, .. } => {
            format!("create a deployment with {deposit} for")
        }
        Effect::CreateLease { lease, .. } => format!("lease from {} for", lease.provider),
        Effect::DeliverManifest { .. } => "deliver the manifest of".to_owned(),
        Effect::CloseDeployment { dseq, .. } => format!("close deployment {dseq} of"),
        Effect::DeleteDevice { .. } => "delete the mesh device of".to_owned(),
        Effect::SetTags { tags, .. } => format!("give {} to the device of", tags.join(", ")),
        Effect::RevokeKey { .. } => "revoke the auth key of".to_owned(),
        Effect::Command { command, .. } => match command {
            Command::Configure(_) => "configure".to_owned(),
            Command::Promote { .. } => "promote".to_owned(),
            Command::Follow { master_name, .. } => format!("point to {master_name}:"),
            Command::Save { label } => format!("keep the snapshot {label} of"),
            Command::Detach { .. } => "detach".to_owned(),
            Command::Fence => "fence".to_owned(),
            Command::Unfence { .. } => "unfence".to_owned(),
        },
    }
}
