//! All simulated nodes, their replication, and one application that writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use akash_redis::changes::{Changes, Notifier};
use akash_redis::model::ids::IncarnationName;
use akash_redis::model::node::{History, NodeView, Process, Role};
use akash_redis::model::time::UnixMs;
use akash_redis::operator::{AgentError, Agents, LogLines};
use akash_redis::wire::akash_redis::agent::v1::CommandRequest;
use akash_redis::wire::akash_redis::agent::v1::command_request::Command;
use async_trait::async_trait;
use futures::{StreamExt, stream};

use super::clock::Clock;
use super::fuse::Fuse;
use super::mesh::{CLUSTER_TAG, Tailnet};
use super::node::{Face, Node};
use super::status_page::Witness;

/// Nodes move so often, virtual milliseconds.
const STEP: u64 = 100;
/// A redis that died is started again after so many steps.
const RESTART_STEPS: u32 = 5;
/// A node whose state stays the same but for its counters reports so often, milliseconds.
const HEARTBEAT: u64 = 1000;

/// What the application knows of its writes.
#[derive(Clone, Debug, Default)]
pub struct Application {
    next: u64,
    /// Acknowledged writes, in order.
    pub acknowledged: Vec<u64>,
    /// Virtual milliseconds of the last acknowledged write.
    pub last_at: u64,
    /// The longest time between two acknowledged writes since the last reset.
    pub longest_gap: u64,
    /// More than one master took writes at one moment.
    pub split: Vec<String>,
}

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
    mute: BTreeSet<(IncarnationName, IncarnationName)>,
}

/// Shared between the simulated providers, the agents' seam and the tests.
pub struct Nodes {
    pub state: Mutex<State>,
    pub clock: Clock,
    pub fuse: Arc<Fuse>,
    witness: Arc<Witness>,
    tailnet: Arc<Mutex<Tailnet>>,
    changes: Notifier<IncarnationName>,
}

impl Nodes {
    pub fn new(
        clock: Clock,
        fuse: Arc<Fuse>,
        witness: Arc<Witness>,
        tailnet: Arc<Mutex<Tailnet>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            clock,
            fuse,
            witness,
            tailnet,
            changes: Notifier::default(),
        })
    }

    /// Replication, the writer, restarts and what the operator hears, ten times a virtual second.
    pub async fn run(self: Arc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_millis(STEP)).await;
            let now = self.clock.now().0;
            let mut state = self.state.lock().unwrap();
            state.hear_control(&self.tailnet.lock().unwrap());
            state.restart();
            state.replicate(now);
            state.write(now);
            let heard = state.report(now);
            drop(state);
            for name in heard {
                self.changes.notify(name);
            }
        }
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

    /// Every replica copies from the node whose name it was given, when both sides allow it.
    fn replicate(&mut self, now: u64) {
        let names: Vec<_> = self.nodes.keys().cloned().collect();
        for name in names {
            let replica = &self.nodes[&name];
            if replica.role != Role::Replica
                || !replica.powered
                || replica.process != Process::Running
            {
                continue;
            }
            let source = self
                .nodes
                .iter()
                .find(|(_, n)| n.fqdn == replica.master_host)
                .map(|(n, _)| n.clone());
            let linked = source.as_ref().is_some_and(|s| {
                let m = &self.nodes[s];
                let sighted = m.netmap.contains(&replica.fqdn) && replica.netmap.contains(&m.fqdn);
                let granted =
                    m.users.iter().any(|u| u.starts_with(&format!("repl-{}-", replica.name)));
                let cut = self.cut.contains(&(name.clone(), s.clone()))
                    || self.cut.contains(&(s.clone(), name.clone()));
                let reached = m.powered && m.meshed && replica.meshed && sighted && !cut;
                reached && m.process == Process::Running && m.role == Role::Master && granted
            });
            let node = self.nodes.get_mut(&name).unwrap();
            node.link_up = linked;
            let Some(source) = source.filter(|_| linked) else { continue };
            if self.mute.contains(&(source.clone(), name.clone())) {
                // The link stays up until it is noticed; the acknowledgements still arrive.
                let fqdn = node.fqdn.clone();
                let master = self.nodes.get_mut(&source).unwrap();
                master.acks.retain(|(n, _)| n != &fqdn);
                master.acks.push((fqdn, now));
                continue;
            }
            node.heard_master = now;
            node.online_epoch = node.memory.highest.epoch;
            let fqdn = node.fqdn.clone();
            let mut log = std::mem::take(&mut node.log);
            let master = &self.nodes[&source];
            catch_up(&mut log, &master.log);
            let replid = master.replid.clone();
            let node = self.nodes.get_mut(&name).unwrap();
            node.log = log;
            node.replid = replid;
            let master = self.nodes.get_mut(&source).unwrap();
            master.acks.retain(|(n, _)| n != &fqdn);
            master.acks.push((fqdn, now));
        }
        // A link that is cut is noticed by its master only by its age; one that was closed is gone
        // at once.
        let attached: Vec<_> = self
            .nodes
            .values()
            .filter(|n| n.powered && n.meshed)
            .map(|n| (n.fqdn.clone(), n.master_host.clone(), n.process))
            .collect();
        let pairs: BTreeSet<(String, String)> = self
            .cut
            .iter()
            .filter_map(|(a, b)| {
                Some((self.nodes.get(a)?.fqdn.clone(), self.nodes.get(b)?.fqdn.clone()))
            })
            .flat_map(|(a, b)| [(a.clone(), b.clone()), (b, a)])
            .collect();
        for master in self.nodes.values_mut() {
            let own = master.fqdn.clone();
            let meshed = master.meshed;
            master.acks.retain(|(name, _)| {
                // What is cut tells nobody that it was closed.
                if !meshed || pairs.contains(&(own.clone(), name.clone())) {
                    return true;
                }
                attached
                    .iter()
                    .find(|(n, ..)| n == name)
                    .is_none_or(|(_, host, process)| host == &own && *process == Process::Running)
            });
        }
        for node in self.nodes.values_mut().filter(|n| n.powered && n.process == Process::Running) {
            let epoch = if node.role == Role::Master || node.link_up {
                node.memory.highest.epoch
            } else {
                continue;
            };
            node.history = Some(History {
                replid: node.replid.clone(),
                offset: node.offset(),
                epoch,
                gap_ms: 0,
            });
        }
    }

    /// One write to every master that takes it and is reached by applications, which hear the
    /// control server: two of them at one moment is the split brain that must not be.
    fn write(&mut self, now: u64) {
        let takers: Vec<_> = self
            .nodes
            .iter()
            .filter(|(_, n)| n.takes_writes(now) && n.open)
            .map(|(n, _)| n.clone())
            .collect();
        if takers.len() > 1 {
            self.application.split.push(format!("at {now}: {takers:?}"));
        }
        let Some(name) = takers.first() else { return };
        let id = self.application.next;
        self.application.next += 1;
        self.nodes.get_mut(name).unwrap().log.push(id);
        let app = &mut self.application;
        app.acknowledged.push(id);
        if app.last_at > 0 {
            app.longest_gap = app.longest_gap.max(now - app.last_at);
        }
        app.last_at = now;
    }

    /// What the operator hears: news at once, counters with the heartbeat.
    fn report(&mut self, now: u64) -> Vec<IncarnationName> {
        let mut news = Vec::new();
        // All hearts beat together: one plan takes all of it.
        let beat = now % HEARTBEAT < STEP;
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
            self.views.insert(
                name.clone(),
                NodeView { heard: UnixMs(now), connected: true, state: node.state(now) },
            );
            self.faces.insert(name.clone(), face);
            news.push(name.clone());
        }
        news
    }
}

/// Makes `log` equal to `source`; only what is new is copied when the one goes on where the other
/// ends. Writes are numbered, so equal last entries mean equal logs.
fn catch_up(log: &mut Vec<u64>, source: &[u64]) {
    let shared = log.len();
    if shared <= source.len() && (shared == 0 || log[shared - 1] == source[shared - 1]) {
        log.extend_from_slice(&source[shared..]);
    } else {
        source.clone_into(log);
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
        self.0.fuse.before().await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        let promotion = matches!(request.command, Some(Command::Promote(_)))
            .then_some(request.authority)
            .flatten();
        let record =
            if promotion.is_some() { self.0.witness.record(incarnation).await } else { None };
        let now = self.0.clock.now();
        let result = {
            let mut state = self.0.state.lock().unwrap();
            match state.nodes.get_mut(incarnation).filter(|n| n.powered && n.reachable && n.listed)
            {
                None => Err(AgentError::Away {
                    incarnation: incarnation.clone(),
                    detail: "no route".to_owned(),
                }),
                Some(node) => {
                    let result = node.command(request);
                    let view = NodeView { heard: now, connected: true, state: node.state(now.0) };
                    state.views.insert(incarnation.clone(), view);
                    result.map_err(|reason| AgentError::Refused {
                        incarnation: incarnation.clone(),
                        reason,
                    })
                }
            }
        };
        if let (Some(authority), Ok(())) = (promotion, &result) {
            self.0.witness.promoted(incarnation, authority.epoch, record.as_ref());
        }
        self.0.fuse.after().await;
        result
    }

    /// Simulated processes print nothing.
    async fn logs(
        &self,
        _incarnation: &IncarnationName,
        _tail: u32,
        _follow: bool,
    ) -> Result<LogLines, AgentError> {
        Ok(stream::empty().boxed())
    }

    fn changes(&self) -> Changes<IncarnationName> {
        self.0.changes.subscribe()
    }
}
