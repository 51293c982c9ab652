//! The node agents over the mesh: who is watched, what was heard of each last, and their calls.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;
use tonic::transport::Channel;

use crate::changes::{Changes, Notifier};
use crate::mesh::agent_channel::{AgentTls, agent_channel};
use crate::mesh::local::LocalClient;
use crate::model::ids::IncarnationName;
use crate::model::logs::LogQuery;
use crate::model::node::{NodeState, NodeView};
use crate::model::ports::AGENT_PORT;
use crate::model::text::clipped;
use crate::model::time::UnixMs;
use crate::operator::agent_protocol::{LARGEST_STATE, SENTENCE, node_state};
use crate::operator::lock;
use crate::operator::ports::{AgentError, Agents, LogLines};
use crate::server::dump::Pieces;
use crate::server::{NodeDumps, NodeLogs, logs};
use crate::wire::akash_redis::agent::v1::agent_client::AgentClient;
use crate::wire::akash_redis::agent::v1::{
    AnnounceReply, AnnounceRequest, CommandRequest, DumpRequest, KeptCopy, LogLine, LogsRequest,
    RecallRequest,
};

mod states;

use states::{PAUSE, SILENCE, States};

/// A command that is not answered in this time may or may not have been carried out. Promotion
/// waits for ROLE, saving for a snapshot.
const COMMAND_LIMIT: Duration = Duration::from_secs(8);
/// Readers of one node's log at a time: an agent grants a few streams in all, and the one that
/// brings its states must be among them.
const READERS: usize = 4;
/// A node that sends its data says something so often.
const DUMP_SILENCE: Duration = Duration::from_secs(30);
/// Largest log line that is taken, bytes. Agents cut theirs much earlier.
const LARGEST_LINE: usize = 64 * 1024;

/// How nodes are reached.
#[derive(Clone)]
pub struct MeshAgents {
    shared: Arc<Shared>,
}

struct Shared {
    socks5: Option<SocketAddr>,
    tailscaled: Option<LocalClient>,
    identity: AgentTls,
    now: Arc<dyn Fn() -> UnixMs + Send + Sync>,
    /// By cluster.
    watched: Mutex<BTreeMap<String, BTreeMap<IncarnationName, Watched>>>,
    views: Mutex<BTreeMap<IncarnationName, NodeView>>,
    changes: Notifier<IncarnationName>,
}

struct Watched {
    ip: IpAddr,
    channel: Channel,
    readers: Arc<Semaphore>,
    /// Ends the task when the node is let go.
    _task: DropGuard,
}

impl MeshAgents {
    /// Nobody is watched yet. `socks5` is the proxy of a userspace tailscaled, or none where the
    /// host itself is on the mesh; `tailscaled` is asked to look for nodes that are not heard.
    #[must_use]
    pub fn new(
        socks5: Option<SocketAddr>,
        tailscaled: Option<LocalClient>,
        identity: AgentTls,
        now: Arc<dyn Fn() -> UnixMs + Send + Sync>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                socks5,
                tailscaled,
                identity,
                now,
                watched: Mutex::default(),
                views: Mutex::default(),
                changes: Notifier::default(),
            }),
        }
    }
}

impl MeshAgents {
    /// Who calls the agent of a node that is watched.
    fn client(&self, name: &IncarnationName) -> Result<AgentClient<Channel>, AgentError> {
        let channel = self.shared.watched(name, |w| w.channel.clone());
        let channel = channel.ok_or_else(|| away(name, "it is not on the mesh".to_owned()))?;
        Ok(AgentClient::new(channel).max_decoding_message_size(LARGEST_STATE))
    }
}

fn away(incarnation: &IncarnationName, detail: String) -> AgentError {
    AgentError::Away { incarnation: incarnation.clone(), detail }
}

/// What the agent answers within the time that a command has.
async fn in_limit<T>(
    incarnation: &IncarnationName,
    answer: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<Result<tonic::Response<T>, Status>, AgentError> {
    let answer = tokio::time::timeout(COMMAND_LIMIT, answer).await;
    answer.map_err(|_| away(incarnation, "no answer in time".to_owned()))
}

impl Shared {
    fn heard(&self, name: &IncarnationName, state: NodeState) {
        let view = NodeView { heard: (self.now)(), connected: true, state };
        let mut views = lock(&self.views);
        let news = views
            .get(name)
            .is_none_or(|old| !old.connected || !same_but_nonce(&old.state, &view.state));
        views.insert(name.clone(), view);
        drop(views);
        if news {
            self.changes.notify(name.clone());
        }
    }

    fn silent(&self, name: &IncarnationName) {
        let mut views = lock(&self.views);
        if let Some(view) = views.get_mut(name).filter(|v| v.connected) {
            view.connected = false;
            drop(views);
            self.changes.notify(name.clone());
        }
    }

    /// The node that is watched under this name, if it is.
    fn watched<T>(&self, name: &IncarnationName, part: impl FnOnce(&Watched) -> T) -> Option<T> {
        lock(&self.watched).get(name.cluster())?.get(name).map(part)
    }

    /// A channel of its own to a node's agent. `None` when it cannot be dialled at all.
    fn channel(&self, name: &IncarnationName, ip: IpAddr) -> Option<Channel> {
        agent_channel(self.socks5, ip, AGENT_PORT, &self.identity, &name.0)
            .inspect_err(
                |error| tracing::error!(incarnation = %name, %error, "a node cannot be dialled"),
            )
            .ok()
    }

    /// Has tailscaled look for the way to a node now: by itself it does so once in 5 s.
    fn look_for(&self, ip: IpAddr) {
        if let Some(tailscaled) = self.tailscaled.clone() {
            tokio::spawn(async move { tailscaled.ping(ip).await });
        }
    }

    /// Begins to watch a node; `None` when it cannot be dialled at all.
    fn start(self: &Arc<Self>, name: &IncarnationName, ip: IpAddr) -> Option<Watched> {
        let channel = self.channel(name, ip)?;
        let stop = CancellationToken::new();
        let task = self.clone().watch(name.clone(), ip, channel.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(task));
        let readers = Arc::new(Semaphore::new(READERS));
        Some(Watched { ip, channel, readers, _task: stop.drop_guard() })
    }

    /// Watches one node until it is let go. Its calls take the connection by which it was heard
    /// last.
    async fn watch(self: Arc<Self>, name: IncarnationName, ip: IpAddr, first: Channel) {
        let mut known = Some(first);
        loop {
            let dial = || {
                self.look_for(ip);
                known.take().or_else(|| self.channel(&name, ip))
            };
            let mut states = States::open(&name, dial).await;
            if let Some(node) = lock(&self.watched)
                .get_mut(name.cluster())
                .and_then(|nodes| nodes.get_mut(&name))
                .filter(|node| node.ip == ip)
            {
                node.channel = states.channel.clone();
            }
            let detail = loop {
                match states.next().await {
                    Ok(state) => self.heard(&name, state),
                    Err(detail) => break detail,
                }
            };
            tracing::debug!(incarnation = %name, detail, "the stream of a node ended");
            self.silent(&name);
            known = Some(states.channel);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Nothing that a plan could follow from differs: a nonce is new in each state, and what a path
/// measures and what redis has to do change all the time.
fn same_but_nonce(a: &NodeState, b: &NodeState) -> bool {
    let plain = |s: &NodeState| {
        let mut plain = NodeState { nonce: String::new(), ..s.clone() };
        plain.redis.load = None;
        for path in &mut plain.mesh.paths {
            (path.rtt_us, path.rx_bytes, path.tx_bytes) = (0, 0, 0);
        }
        plain
    };
    plain(a) == plain(b)
}

#[async_trait]
impl Agents for MeshAgents {
    fn watch(&self, cluster: &str, targets: &BTreeMap<IncarnationName, String>) {
        let mut clusters = lock(&self.shared.watched);
        let mut before = clusters.remove(cluster).unwrap_or_default();
        let mut watched = BTreeMap::new();
        for (name, ip) in targets {
            let Ok(ip) = ip.parse::<IpAddr>() else { continue };
            let kept = before.remove(name).filter(|w| w.ip == ip);
            if let Some(node) = kept.or_else(|| self.shared.start(name, ip)) {
                watched.insert(name.clone(), node);
            }
        }
        let mut views = lock(&self.shared.views);
        for name in before.keys().filter(|name| !targets.contains_key(*name)) {
            views.remove(name);
        }
        drop(views);
        if !watched.is_empty() {
            clusters.insert(cluster.to_owned(), watched);
        }
    }

    fn view(&self, incarnation: &IncarnationName) -> Option<NodeView> {
        lock(&self.shared.views).get(incarnation).cloned()
    }

    #[tracing::instrument(name = "agent command", skip_all)]
    async fn command(
        &self,
        incarnation: &IncarnationName,
        request: CommandRequest,
    ) -> Result<(), AgentError> {
        let mut client = self.client(incarnation)?;
        match in_limit(incarnation, client.command(request)).await? {
            Ok(reply) => {
                if let Some(state) = reply.into_inner().state {
                    self.shared.heard(incarnation, node_state(state));
                }
                Ok(())
            }
            Err(status) if status.code() == tonic::Code::FailedPrecondition => {
                Err(AgentError::Refused {
                    incarnation: incarnation.clone(),
                    reason: clipped(status.message().to_owned(), SENTENCE),
                })
            }
            Err(status) if answered(&status) => Err(AgentError::Failed {
                incarnation: incarnation.clone(),
                reason: clipped(status.message().to_owned(), SENTENCE),
                again: status.code() != tonic::Code::InvalidArgument,
            }),
            Err(status) => Err(away(incarnation, said(&status))),
        }
    }

    async fn recall(&self, incarnation: &IncarnationName) -> Result<Option<KeptCopy>, AgentError> {
        let mut client = self.client(incarnation)?;
        match in_limit(incarnation, client.recall(RecallRequest {})).await? {
            Ok(reply) => Ok(reply.into_inner().kept_copy),
            Err(status) if status.code() == tonic::Code::Unimplemented => Ok(None),
            Err(status) => Err(away(incarnation, said(&status))),
        }
    }

    async fn announce(
        &self,
        incarnation: &IncarnationName,
        request: AnnounceRequest,
    ) -> Result<Option<AnnounceReply>, AgentError> {
        let mut client = self.client(incarnation)?;
        match in_limit(incarnation, client.announce(request)).await? {
            Ok(reply) => Ok(Some(reply.into_inner())),
            Err(status) if status.code() == tonic::Code::Unimplemented => Ok(None),
            Err(status) if status.code() == tonic::Code::FailedPrecondition => {
                Err(AgentError::Refused {
                    incarnation: incarnation.clone(),
                    reason: clipped(status.message().to_owned(), SENTENCE),
                })
            }
            Err(status) => Err(away(incarnation, said(&status))),
        }
    }

    async fn logs(
        &self,
        incarnation: &IncarnationName,
        query: &LogQuery,
    ) -> Result<LogLines, AgentError> {
        let LogQuery { tail, follow, .. } = *query;
        let name = incarnation.clone();
        let failed = move |detail: String| AgentError::NoLog { incarnation: name.clone(), detail };
        let known = self.shared.watched(incarnation, |w| (w.ip, w.readers.clone()));
        let (ip, readers) = known.ok_or_else(|| failed("it is not on the mesh".to_owned()))?;
        let place = readers
            .try_acquire_owned()
            .map_err(|_| failed(format!("{READERS} readers have it open already")))?;
        // Not the connection of the states: lines that nobody takes off it would fill its window,
        // and a silent node is replaced.
        let channel = agent_channel(
            self.shared.socks5,
            ip,
            AGENT_PORT,
            &self.shared.identity,
            &incarnation.0,
        );
        let channel = channel.map_err(|error| failed(error.to_string()))?;
        let mut client = AgentClient::new(channel).max_decoding_message_size(LARGEST_LINE);
        let open = tokio::time::timeout(COMMAND_LIMIT, client.logs(asked(query))).await;
        let lines = open
            .map_err(|_| failed("no answer in time".to_owned()))?
            .map_err(|status| failed(said(&status)))?
            .into_inner();
        let lines = stream::unfold(Some((lines, place)), move |open| {
            let failed = failed.clone();
            async move {
                let (mut lines, place) = open?;
                // Nothing may happen for hours while one follows; that the node is there is known
                // by pings.
                let next =
                    if follow { lines.message().await } else { in_time(lines.message()).await };
                match next {
                    Ok(line) => line.map(|line| (Ok(line), Some((lines, place)))),
                    Err(status) => Some((Err(failed(said(&status))), None)),
                }
            }
        });
        // A node that sends more than it was asked for does not make the operator pass it on for
        // ever.
        let most = if follow { usize::MAX } else { usize::try_from(tail).unwrap_or(usize::MAX) };
        // An older agent knows nothing of sources.
        let query = query.clone();
        let meant = move |line: &Result<LogLine, AgentError>| {
            line.as_ref().map_or(true, |line| query.means(&line.source))
        };
        Ok(lines.take(most).filter(move |line| std::future::ready(meant(line))).boxed())
    }

    fn changes(&self) -> Changes<IncarnationName> {
        self.shared.changes.subscribe()
    }
}

/// The question as an agent understands it.
fn asked(query: &LogQuery) -> LogsRequest {
    let since = query.since.map_or(0, |since| since.as_millis().max(1));
    LogsRequest {
        tail: query.tail,
        follow: query.follow,
        sources: query.processes.iter().map(ToString::to_string).collect(),
        since_ms: u64::try_from(since).unwrap_or(u64::MAX),
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(SILENCE, answer)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("the rest did not come in time")))
}

/// The agent said this itself. What the transport says has an error beneath it.
fn answered(status: &Status) -> bool {
    std::error::Error::source(status).is_none()
        && !matches!(status.code(), tonic::Code::Cancelled | tonic::Code::Unknown)
}

fn said(status: &Status) -> String {
    clipped(format!("{}: {}", status.code(), status.message()), SENTENCE)
}

#[async_trait]
impl NodeDumps for MeshAgents {
    async fn dump(&self, incarnation: &IncarnationName) -> Result<Pieces, String> {
        let mut client = self.client(incarnation).map_err(|error| error.to_string())?;
        let name = incarnation.clone();
        let why = move |status: &Status| {
            format!("the data of {name} cannot be read ({}); ask again", said(status))
        };
        let answer = in_limit(incarnation, client.dump(DumpRequest {})).await;
        let pieces = answer.map_err(|error| error.to_string())?.map_err(|status| why(&status))?;
        let begin = Some((pieces.into_inner(), why));
        let pieces = stream::unfold(begin, |held| async move {
            let (mut pieces, why) = held?;
            let next = match tokio::time::timeout(DUMP_SILENCE, pieces.message()).await {
                Ok(next) => next,
                Err(_) => Err(Status::deadline_exceeded("the rest did not come in time")),
            };
            match next {
                Ok(piece) => piece.map(|piece| (Ok(piece.data.into()), Some((pieces, why)))),
                Err(status) => Some((Err(why(&status)), None)),
            }
        });
        Ok(pieces.boxed())
    }
}

#[async_trait]
impl NodeLogs for MeshAgents {
    async fn logs(
        &self,
        incarnation: &IncarnationName,
        query: &LogQuery,
    ) -> Result<logs::LogLines, String> {
        let lines =
            Agents::logs(self, incarnation, query).await.map_err(|error| error.to_string())?;
        let timestamps = query.timestamps;
        let text = lines.map(move |line| {
            line.map_or_else(
                |error| format!("operator | {error}"),
                |l| {
                    let when =
                        if timestamps { format!("{} ", UnixMs(l.at_ms)) } else { String::new() };
                    format!("{when}{} | {}", l.source, l.text)
                },
            )
        });
        Ok(text.boxed())
    }
}

#[cfg(test)]
mod tests;
