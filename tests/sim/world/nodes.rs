//! All simulated nodes, their replication, and one application that writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use akash_redis::changes::{Changes, Notifier};
use akash_redis::model::announcement::Announcement;
use akash_redis::model::ids::IncarnationName;
use akash_redis::model::logs::LogQuery;
use akash_redis::model::node::{NodeView, Process, Role};
use akash_redis::model::time::UnixMs;
use akash_redis::operator::{AgentError, Agents, LogLines};
use akash_redis::wire::akash_redis::agent::v1::command_request::Command;
use akash_redis::wire::akash_redis::agent::v1::{
    AnnounceReply, AnnounceRequest, CommandRequest, KeptCopy,
};
use async_trait::async_trait;
use futures::{StreamExt, stream};
use tokio::time::Instant;

use super::SYNC_MS;
use super::backups::Bucket;
use super::clock::{Clock, OperatorClock};
use super::fuse::Fuse;
use super::mesh::{CLUSTER_TAG, Tailnet};
use super::node::{Face, Node};
use super::status_page::Witness;
use super::writes::{Application, Cause};

/// Nodes move so often when nobody says otherwise, virtual milliseconds.
const STEP: u64 = 100;
/// A redis that died is started again after so many steps.
const RESTART_STEPS: u32 = 5;
/// A node whose state stays the same but for its counters reports so often, milliseconds.
const HEARTBEAT: u64 = 1000;

/// The nodes.
#[derive(Default)]
pub struct State {
    pub nodes: BTreeMap<IncarnationName, Node>,
    pub application: Application,
    exited_steps: BTreeMap<IncarnationName, u32>,
    views: BTreeMap<IncarnationName, NodeView>,
    /// What was last reported of each node, without its counters.
    faces: BTreeMap<IncarnationName, Face>,
    targets: BTreeMap<IncarnationName, String>,
    /// Pairs of nodes that do not reach each other.
    pub cut: BTreeSet<(IncarnationName, IncarnationName)>,
    /// Nodes whose output does not reach another one, which they still hear.
    pub mute: BTreeSet<(IncarnationName, IncarnationName)>,
    /// Virtual milliseconds at which there was such a pair last.
    pub(super) muted_at: u64,
    /// Since when the redis of a node is frozen, virtual milliseconds.
    frozen: BTreeMap<IncarnationName, u64>,
    /// When a frozen master of a cluster went on, and for how long it had been frozen.
    pub(super) thawed: BTreeMap<String, (u64, u64)>,
    /// How long a full sync takes.
    pub sync_ms: u64,
    /// Where backups go.
    pub bucket: Arc<Mutex<Bucket>>,
}

/// Shared between the simulated providers, the agents' seam and the tests.
pub struct Nodes {
    pub state: Mutex<State>,
    pub clock: Clock,
    operator_clock: OperatorClock,
    pub fuse: Arc<Fuse>,
    witness: Arc<Witness>,
    tailnet: Arc<Mutex<Tailnet>>,
    changes: Notifier<IncarnationName>,
    /// Nodes move so often, virtual milliseconds.
    step: AtomicU64,
}

impl Nodes {
    pub fn new(
        clock: Clock,
        operator_clock: OperatorClock,
        fuse: Arc<Fuse>,
        witness: Arc<Witness>,
        tailnet: Arc<Mutex<Tailnet>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State { sync_ms: SYNC_MS, ..State::default() }),
            clock,
            operator_clock,
            fuse,
            witness,
            tailnet,
            changes: Notifier::default(),
            step: AtomicU64::new(STEP),
        })
    }

    /// Replication, the writer, restarts and what the operator hears, ten times a virtual second.
    pub async fn run(self: Arc<Self>) {
        loop {
            let step = self.step.load(Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(step)).await;
            let now = self.clock.now().0;
            let mut state = self.state.lock().unwrap();
            state.hear_control(&self.tailnet.lock().unwrap());
            state.restart();
            state.freeze(now);
            state.replicate(now);
            state.import_from_source();
            state.store_backups(now);
            state.confirm(now);
            state.write(now);
            let heard = state.report(now, step, self.operator_clock.now());
            drop(state);
            for name in heard {
                self.changes.notify(name);
            }
        }
    }

    /// Nodes move this often from now on: a simulation of months cannot look at each moment.
    pub fn move_every(&self, step: Duration) {
        let step = u64::try_from(step.as_millis()).unwrap();
        self.step.store(step, Ordering::SeqCst);
    }

    /// Changes a node as a fault or a person would.
    pub fn with<T>(&self, name: &IncarnationName, change: impl FnOnce(&mut Node) -> T) -> T {
        change(self.state.lock().unwrap().nodes.get_mut(name).expect("a node of this name"))
    }

    /// Two nodes do not reach each other from now on.
    pub fn cut(&self, a: &IncarnationName, b: &IncarnationName) {
        self.state.lock().unwrap().cut.insert((a.clone(), b.clone()));
    }

    /// They do again.
    pub fn heal(&self, a: &IncarnationName, b: &IncarnationName) {
        self.state.lock().unwrap().cut.retain(|(x, y)| (x, y) != (a, b) && (y, x) != (a, b));
    }

    /// What `from` sends does not reach `to` from now on.
    pub fn mute(&self, from: &IncarnationName, to: &IncarnationName) {
        self.state.lock().unwrap().mute.insert((from.clone(), to.clone()));
    }

    /// The operator process died: what it heard is forgotten.
    pub fn forget_views(&self) {
        let mut state = self.state.lock().unwrap();
        state.views.clear();
        state.faces.clear();
        state.targets.clear();
    }
}

impl State {
    fn restart(&mut self) {
        for (name, node) in &mut self.nodes {
            let steps = self.exited_steps.entry(name.clone()).or_default();
            *steps = if node.process == Process::Exited { *steps + 1 } else { 0 };
            if *steps >= RESTART_STEPS && !node.broken {
                node.boot_redis();
            }
        }
    }

    /// Notes what is frozen, and the masters that go on.
    fn freeze(&mut self, now: u64) {
        for (name, node) in &self.nodes {
            if node.process == Process::Stuck {
                self.frozen.entry(name.clone()).or_insert(now);
            } else if let Some(since) = self.frozen.remove(name)
                && node.role == Role::Master
            {
                self.thawed.insert(name.cluster().to_owned(), (now, now - since));
            }
        }
    }

    /// Network maps are pushed at once. A deleted node is not told; the others are.
    fn hear_control(&mut self, tailnet: &Tailnet) {
        for node in self.nodes.values_mut().filter(|_| !tailnet.away) {
            let netmap = tailnet.netmap(&node.device);
            node.listed = netmap.is_some();
            node.open = tailnet
                .devices
                .iter()
                .any(|d| d.id == node.device && d.tags.iter().any(|t| t == CLUSTER_TAG));
            if let Some(netmap) = netmap.filter(|_| node.hears_control) {
                (node.netmap, node.netmap_ids) = (netmap, tailnet.netmap_ids(&node.device));
                if let Some(own) = tailnet.devices.iter().find(|d| d.id == node.device) {
                    node.fqdn.clone_from(&own.name);
                }
            }
        }
    }

    /// What the operator hears: news at once, counters with the heartbeat.
    fn report(&mut self, now: u64, step: u64, heard: UnixMs) -> Vec<IncarnationName> {
        let mut news = Vec::new();
        // All hearts beat together: one plan takes all of it.
        let beat = now % HEARTBEAT < step;
        for name in self.targets.keys() {
            let lost = |views: &mut BTreeMap<_, NodeView>| {
                views.get_mut(name).is_some_and(|v| std::mem::replace(&mut v.connected, false))
            };
            let Some(node) =
                self.nodes.get_mut(name).filter(|n| n.powered && n.reachable && n.listed)
            else {
                if lost(&mut self.views) {
                    news.push(name.clone());
                }
                self.faces.remove(name);
                continue;
            };
            let face = node.face();
            let known = self.faces.get(name) == Some(&face);
            if known && !beat && self.views.get(name).is_some_and(|v| v.connected) {
                continue;
            }
            node.nonce += 1;
            self.views
                .insert(name.clone(), NodeView { heard, connected: true, state: node.state(now) });
            self.faces.insert(name.clone(), face);
            news.push(name.clone());
        }
        news
    }
}

/// The agents' seam over the nodes.
pub struct SimAgents(pub Arc<Nodes>);

#[async_trait]
impl Agents for SimAgents {
    fn watch(&self, cluster: &str, targets: &BTreeMap<IncarnationName, String>) {
        let mut state = self.0.state.lock().unwrap();
        let kept = |name: &IncarnationName| name.cluster() != cluster || targets.contains_key(name);
        state.views.retain(|name, _| kept(name));
        state.targets.retain(|name, _| kept(name));
        state.targets.extend(targets.clone());
    }

    fn view(&self, incarnation: &IncarnationName) -> Option<NodeView> {
        self.0.state.lock().unwrap().views.get(incarnation).cloned()
    }

    async fn command(
        &self,
        incarnation: &IncarnationName,
        request: CommandRequest,
    ) -> Result<(), AgentError> {
        let call = format!("command {incarnation} {request:?}");
        self.0.fuse.before(&call).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        let promotion = matches!(request.command, Some(Command::Promote(_)))
            .then_some(request.authority)
            .flatten();
        let awaited = matches!(request.command, Some(Command::AwaitHandover(_)))
            .then_some(request.authority)
            .flatten();
        let stored = if promotion.or(awaited).is_some() {
            self.0.witness.stored(incarnation).await
        } else {
            None
        };
        let (now, heard) = (self.0.clock.now().0, self.0.operator_clock.now());
        let result = {
            let mut state = self.0.state.lock().unwrap();
            match state.nodes.get_mut(incarnation).filter(|n| n.powered && n.reachable && n.listed)
            {
                None => Err(AgentError::Away {
                    incarnation: incarnation.clone(),
                    detail: "no route".to_owned(),
                }),
                Some(node) => {
                    let result = node.command(request, now);
                    let promoted = promotion.is_some() && node.role == Role::Master;
                    let view = NodeView { heard, connected: true, state: node.state(now) };
                    state.views.insert(incarnation.clone(), view);
                    if promoted {
                        state.became_master(incarnation, Cause::of(stored.as_ref()), now);
                    }
                    result.map_err(|reason| AgentError::Refused {
                        incarnation: incarnation.clone(),
                        reason,
                    })
                }
            }
        };
        if let (Some(authority), Ok(())) = (promotion.or(awaited), &result) {
            self.0.witness.promoted(incarnation, authority.epoch, stored.as_ref());
        }
        self.0.fuse.after(&call, &result).await;
        result
    }

    async fn recall(&self, incarnation: &IncarnationName) -> Result<Option<KeptCopy>, AgentError> {
        let state = self.0.state.lock().unwrap();
        let node = state.nodes.get(incarnation).filter(|n| n.powered && n.reachable && n.listed);
        node.map(|node| node.kept.clone()).ok_or_else(|| AgentError::Away {
            incarnation: incarnation.clone(),
            detail: "no route".to_owned(),
        })
    }

    async fn announce(
        &self,
        incarnation: &IncarnationName,
        request: AnnounceRequest,
    ) -> Result<Option<AnnounceReply>, AgentError> {
        let mut state = self.0.state.lock().unwrap();
        let node =
            state.nodes.get_mut(incarnation).filter(|n| n.powered && n.reachable && n.listed);
        let node = node.ok_or_else(|| AgentError::Away {
            incarnation: incarnation.clone(),
            detail: "no route".to_owned(),
        })?;
        let said: Announcement = serde_json::from_slice(&request.content).unwrap();
        if node.announced.as_ref().is_none_or(|known| said.is_newer_than(known)) {
            if said.changing.is_some() {
                node.gives_way.entry(said.epoch).or_insert_with(Instant::now);
            }
            node.announced = Some(said);
        }
        let held = node.announced.clone().unwrap();
        Ok(Some(AnnounceReply { uid: held.uid, epoch: held.epoch, version: held.version }))
    }

    /// Simulated processes print nothing.
    async fn logs(
        &self,
        _incarnation: &IncarnationName,
        _query: &LogQuery,
    ) -> Result<LogLines, AgentError> {
        Ok(stream::empty().boxed())
    }

    fn changes(&self) -> Changes<IncarnationName> {
        self.0.changes.subscribe()
    }
}
