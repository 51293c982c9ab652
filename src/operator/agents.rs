//! The node agents over the mesh: one task per node dials, watches and dials again.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;

use super::convert::node_state;
use super::observe::lock;
use super::seams::{AgentError, Agents};
use crate::mesh::agent_channel::{AGENT_PORT, AgentTls, agent_channel};
use crate::model::ids::IncarnationName;
use crate::model::node::{NodeState, NodeView};
use crate::model::time::UnixMs;
use crate::wire::akash_redis::agent::v1::agent_client::AgentClient;
use crate::wire::akash_redis::agent::v1::{CommandRequest, WatchRequest};

/// An agent pushes at least once a second; a stream that is silent for longer than this is taken for dead.
const SILENCE: Duration = Duration::from_millis(3500);
/// A command that is not answered in this time may or may not have been carried out. Promotion waits for ROLE, saving for a snapshot.
const COMMAND_LIMIT: Duration = Duration::from_secs(8);
/// Pause before a node is dialled again.
const REDIAL: Duration = Duration::from_millis(300);

/// How nodes are reached.
#[derive(Clone)]
pub struct MeshAgents {
    shared: Arc<Shared>,
}

struct Shared {
    socks5: Option<SocketAddr>,
    identity: AgentTls,
    now: Arc<dyn Fn() -> UnixMs + Send + Sync>,
    watched: Mutex<BTreeMap<IncarnationName, Watched>>,
    views: Mutex<BTreeMap<IncarnationName, NodeView>>,
    changes: watch::Sender<u64>,
}

struct Watched {
    ip: String,
    channel: Channel,
    /// Ends the task when the node is let go.
    _task: DropGuard,
}

impl MeshAgents {
    /// Nobody is watched yet. `socks5` is the proxy of a userspace tailscaled, or none where the host itself is on the mesh.
    #[must_use]
    pub fn new(socks5: Option<SocketAddr>, identity: AgentTls, now: Arc<dyn Fn() -> UnixMs + Send + Sync>) -> Self {
        Self {
            shared: Arc::new(Shared {
                socks5,
                identity,
                now,
                watched: Mutex::default(),
                views: Mutex::default(),
                changes: watch::channel(0).0,
            }),
        }
    }
}

impl Shared {
    fn heard(&self, name: &IncarnationName, state: NodeState) {
        let view = NodeView { heard: (self.now)(), connected: true, state };
        let mut views = lock(&self.views);
        // A nonce is new in each state; nothing else new means nothing to plan.
        let news = views.get(name).is_none_or(|old| !old.connected || !same_but_nonce(&old.state, &view.state));
        views.insert(name.clone(), view);
        drop(views);
        if news {
            self.changes.send_modify(|n| *n += 1);
        }
    }

    fn silent(&self, name: &IncarnationName) {
        let mut views = lock(&self.views);
        if let Some(view) = views.get_mut(name).filter(|v| v.connected) {
            view.connected = false;
            drop(views);
            self.changes.send_modify(|n| *n += 1);
        }
    }

    /// Watches one node until it is let go.
    async fn watch(self: Arc<Self>, name: IncarnationName, channel: Channel) {
        loop {
            if let Err(detail) = self.stream(&name, channel.clone()).await {
                tracing::debug!(incarnation = %name, detail, "the stream of a node ended");
            }
            self.silent(&name);
            tokio::time::sleep(REDIAL).await;
        }
    }

    async fn stream(&self, name: &IncarnationName, channel: Channel) -> Result<(), String> {
        let mut client = AgentClient::new(channel);
        let open = tokio::time::timeout(COMMAND_LIMIT, client.watch(WatchRequest {}));
        let mut states = open.await.map_err(|_| "no answer in time".to_owned())?.map_err(|s| s.message().to_owned())?.into_inner();
        loop {
            let next = tokio::time::timeout(SILENCE, states.message()).await.map_err(|_| "no state in time".to_owned())?;
            match next.map_err(|s| s.message().to_owned())? {
                Some(state) if state.incarnation == name.0 => self.heard(name, node_state(state)),
                Some(other) => return Err(format!("{} answers in its place", other.incarnation)),
                None => return Ok(()),
            }
        }
    }
}

fn same_but_nonce(a: &NodeState, b: &NodeState) -> bool {
    let plain = |s: &NodeState| NodeState { nonce: String::new(), ..s.clone() };
    plain(a) == plain(b)
}

#[async_trait]
impl Agents for MeshAgents {
    fn watch(&self, targets: &BTreeMap<IncarnationName, String>) {
        let mut watched = lock(&self.shared.watched);
        watched.retain(|name, w| targets.get(name) == Some(&w.ip));
        lock(&self.shared.views).retain(|name, _| targets.contains_key(name));
        for (name, ip) in targets {
            if watched.contains_key(name) {
                continue;
            }
            let Ok(address) = ip.parse::<IpAddr>() else { continue };
            let channel = match agent_channel(self.shared.socks5, address, AGENT_PORT, &self.shared.identity, &name.0) {
                Ok(channel) => channel,
                Err(error) => {
                    tracing::error!(incarnation = %name, %error, "a node cannot be dialled");
                    continue;
                }
            };
            let stop = CancellationToken::new();
            let task = self.shared.clone().watch(name.clone(), channel.clone());
            tokio::spawn(stop.clone().run_until_cancelled_owned(task));
            watched.insert(name.clone(), Watched { ip: ip.clone(), channel, _task: stop.drop_guard() });
        }
    }

    fn views(&self) -> BTreeMap<IncarnationName, NodeView> {
        lock(&self.shared.views).clone()
    }

    async fn command(&self, incarnation: &IncarnationName, request: CommandRequest) -> Result<(), AgentError> {
        let away = |detail: String| AgentError::Away { incarnation: incarnation.clone(), detail };
        let channel = lock(&self.shared.watched).get(incarnation).map(|w| w.channel.clone());
        let mut client = AgentClient::new(channel.ok_or_else(|| away("it is not on the mesh".to_owned()))?);
        let reply = tokio::time::timeout(COMMAND_LIMIT, client.command(request)).await.map_err(|_| away("no answer in time".to_owned()))?;
        match reply {
            Ok(reply) => {
                if let Some(state) = reply.into_inner().state {
                    self.shared.heard(incarnation, node_state(state));
                }
                Ok(())
            }
            Err(status) if status.code() == tonic::Code::FailedPrecondition => {
                Err(AgentError::Refused { incarnation: incarnation.clone(), reason: status.message().to_owned() })
            }
            Err(status) => Err(away(format!("{}: {}", status.code(), status.message()))),
        }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }
}
