//! The gRPC service on loopback, for the operator alone: mutual TLS, and the client's certificate
//! must name the role.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use super::command_executor::CommandExecutor;
use super::convert;
use super::logs::Line;
use super::saving;
use super::state::Node;
use crate::announce::Signed;
use crate::model::node::{Process, Role};
use crate::model::time::UnixMs;
use crate::wire::akash_redis::agent::v1 as wire;
use crate::wire::akash_redis::agent::v1::agent_server::{Agent, AgentServer};

/// DNS name in the operator's certificate.
pub const OPERATOR_ROLE: &str = "operator";
/// A state is sent at least this often.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Streams at most.
const STREAMS: usize = 16;
/// Bytes of a piece of a dump.
const DUMP_CHUNK: usize = 128 * 1024;
/// Largest message that is read.
const LARGEST: usize = 1024 * 1024;

/// The gRPC service that the operator speaks to.
pub struct AgentService {
    node: Arc<Node>,
    executor: Arc<CommandExecutor>,
    streams: Arc<AtomicUsize>,
    stop: CancellationToken,
}

type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// One of the streams there may be.
struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl AgentService {
    /// Streams end at `stop`, after the last state.
    #[must_use]
    pub fn new(node: Arc<Node>, executor: Arc<CommandExecutor>, stop: CancellationToken) -> Self {
        Self { node, executor, streams: Arc::default(), stop }
    }

    /// Serves until `stop`.
    pub async fn serve(self, listener: TcpListener) -> Result<(), tonic::transport::Error> {
        let identity = &self.node.identity;
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(&identity.certificate, &identity.key))
            .client_ca_root(Certificate::from_pem(&identity.ca))
            .timeout(Duration::from_secs(5));
        let stop = self.stop.clone();
        // Small answers must not wait for acknowledgements: a failover is a few of them in a row.
        let incoming = TcpListenerStream::new(listener)
            .map(|stream| stream.inspect(|s| drop(s.set_nodelay(true))));
        Server::builder()
            .tls_config(tls)?
            // A dead link is noticed, so that its streams end.
            .http2_keepalive_interval(Some(Duration::from_secs(5)))
            .http2_keepalive_timeout(Some(Duration::from_secs(10)))
            .add_service(AgentServer::new(self).max_decoding_message_size(LARGEST))
            .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
            .await
    }

    fn slot(&self) -> Result<Slot, Status> {
        let taken = self.streams.fetch_add(1, Ordering::Relaxed);
        let slot = Slot(self.streams.clone());
        if taken < STREAMS {
            Ok(slot)
        } else {
            Err(Status::resource_exhausted(format!("{STREAMS} streams are open already")))
        }
    }
}

/// Lets in who shows a certificate of the operator's role; that it is of our CA has been checked by
/// TLS.
fn admit<T>(request: &Request<T>) -> Result<(), Status> {
    let denied = || {
        Status::permission_denied(
            "only the operator may call: the client's certificate does not carry its role",
        )
    };
    let certificates = request.peer_certs().ok_or_else(denied)?;
    let certificate = certificates.first().ok_or_else(denied)?;
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| denied())?;
    let names = parsed.subject_alternative_name().map_err(|_| denied())?.ok_or_else(denied)?;
    let is_role = |name: &x509_parser::extensions::GeneralName<'_>| {
        matches!(name, x509_parser::extensions::GeneralName::DNSName(OPERATOR_ROLE))
    };
    if names.value.general_names.iter().any(is_role) { Ok(()) } else { Err(denied()) }
}

/// Sends a snapshot, piece by piece, as fast as it is taken.
async fn send_dump(
    node: &Node,
    to: &mpsc::Sender<Result<wire::DumpChunk, Status>>,
) -> Result<(), String> {
    let waits = async {
        loop {
            // Whoever waits for the first piece sees that somebody is there.
            let nothing = wire::DumpChunk { data: Vec::new() };
            if to.send(Ok(nothing)).await.is_err() {
                return;
            }
            tokio::time::sleep(HEARTBEAT).await;
        }
    };
    let file = tokio::select! {
        file = saving::whole(node) => file?,
        () = waits => return Ok(()),
    };
    let mut file = tokio::fs::File::from_std(file);
    loop {
        let mut data = vec![0; DUMP_CHUNK];
        let read = file.read(&mut data).await;
        let read = read.map_err(|error| format!("the snapshot cannot be read ({error})"))?;
        data.truncate(read);
        if read == 0 || to.send(Ok(wire::DumpChunk { data })).await.is_err() {
            return Ok(());
        }
    }
}

#[tonic::async_trait]
impl Agent for AgentService {
    type WatchStream = Out<wire::NodeState>;
    type LogsStream = Out<wire::LogLine>;
    type DumpStream = Out<wire::DumpChunk>;

    async fn dump(
        &self,
        request: Request<wire::DumpRequest>,
    ) -> Result<Response<Self::DumpStream>, Status> {
        admit(&request)?;
        let slot = self.slot()?;
        let redis = self.node.peek().redis;
        let source = redis.role == Role::Master || redis.is_linked();
        if redis.process != Process::Running || redis.loading || redis.is_syncing() || !source {
            return Err(Status::failed_precondition(
                "redis is neither master nor a replica in sync here, so its data are not those of the cluster",
            ));
        }
        let (to, chunks) = mpsc::channel(2);
        let node = self.node.clone();
        tokio::spawn(async move {
            let _slot = slot;
            if let Err(why) = send_dump(&node, &to).await {
                let _ = to.send(Err(Status::internal(why))).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(chunks).boxed()))
    }

    async fn watch(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        admit(&request)?;
        let slot = self.slot()?;
        let mut changes = self.node.subscribe();
        changes.mark_changed();
        let begin = Some((self.node.clone(), changes, self.stop.clone(), slot));
        let states = stream::unfold(begin, |held| async move {
            let (node, mut changes, stop, slot) = held?;
            let last = tokio::select! {
                () = stop.cancelled() => true,
                _ = timeout(HEARTBEAT, changes.changed()) => false,
            };
            if !last {
                node.telling.over().await;
            }
            // The newest state, and never one older than what made this wake up.
            changes.mark_unchanged();
            let state = convert::state(node.issue());
            let next = (!last).then_some((node, changes, stop, slot));
            Some((Ok(state), next))
        });
        Ok(Response::new(states.boxed()))
    }

    async fn command(
        &self,
        request: Request<wire::CommandRequest>,
    ) -> Result<Response<wire::CommandReply>, Status> {
        admit(&request)?;
        let state = self.executor.execute(request.into_inner()).await?;
        Ok(Response::new(wire::CommandReply { state: Some(convert::state(state)) }))
    }

    async fn recall(
        &self,
        request: Request<wire::RecallRequest>,
    ) -> Result<Response<wire::RecallReply>, Status> {
        admit(&request)?;
        let kept_copy = self.node.copy().map(|copy| copy.to_wire());
        Ok(Response::new(wire::RecallReply { kept_copy }))
    }

    async fn announce(
        &self,
        request: Request<wire::AnnounceRequest>,
    ) -> Result<Response<wire::AnnounceReply>, Status> {
        admit(&request)?;
        let wire::AnnounceRequest { content, signature } = request.into_inner();
        let node = self.node.clone();
        let offered = move || node.announced.offer(Signed { content, signature });
        let newest = tokio::task::spawn_blocking(offered)
            .await
            .map_err(|_| Status::internal("the word could not be looked at"))?
            .map_err(|error| Status::failed_precondition(error.to_string()))?;
        let reply = newest.map(|said| wire::AnnounceReply {
            uid: said.uid,
            epoch: said.epoch,
            version: said.version,
        });
        Ok(Response::new(reply.unwrap_or_default()))
    }

    async fn logs(
        &self,
        request: Request<wire::LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        admit(&request)?;
        let slot = self.slot()?;
        let wire::LogsRequest { tail, follow, sources, since_ms } = request.into_inner();
        // An agent that just started has nothing older than its clock.
        let oldest =
            UnixMs(if since_ms == 0 { 0 } else { UnixMs::now().0.saturating_sub(since_ms) });
        let meant = move |line: &Line| {
            (sources.is_empty() || sources.iter().any(|s| s == line.source)) && line.at >= oldest
        };
        let tail = usize::try_from(tail).unwrap_or(usize::MAX);
        let (lines, feed) = self.node.book.subscribe(tail, &meant);
        let on_wire = |line: Line| {
            Ok(wire::LogLine { source: line.source.to_owned(), text: line.text, at_ms: line.at.0 })
        };
        let kept = stream::iter(lines).map(on_wire);
        if !follow {
            return Ok(Response::new(kept.boxed()));
        }
        let to_come =
            stream::unfold((feed, self.stop.clone(), slot), |(mut feed, stop, slot)| async move {
                let next = tokio::select! {
                    () = stop.cancelled() => return None,
                    next = feed.recv() => next,
                };
                let line = match next {
                    Ok(line) => line,
                    Err(RecvError::Lagged(missed)) => Line {
                        source: "agent",
                        text: format!("{missed} lines were too fast for this reader"),
                        at: UnixMs::now(),
                    },
                    Err(RecvError::Closed) => return None,
                };
                Some((line, (feed, stop, slot)))
            });
        let to_come = to_come.filter(move |line| std::future::ready(meant(line)));
        Ok(Response::new(kept.chain(to_come.map(on_wire)).boxed()))
    }
}
