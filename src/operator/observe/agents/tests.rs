//! An agent over real connections.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::stream::BoxStream;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::{IntervalStream, TcpListenerStream};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response};

use super::*;
use crate::model::node::{Process, Role};
use crate::secrets::RootSecret;
use crate::wire::akash_redis::agent::v1 as wire;
use crate::wire::akash_redis::agent::v1::agent_server::{Agent, AgentServer};

/// Asked for so many lines, the agent breaks after two.
const BREAKS: u32 = 7;

/// An agent that sends one line more than it was asked for, and does not end.
#[derive(Clone, Default)]
struct Chatty {
    readers: Arc<AtomicUsize>,
    /// What it says of itself, one after the other; then its stream ends. Nothing at all: it stays
    /// open.
    states: Vec<wire::NodeState>,
    watchers: Arc<AtomicUsize>,
    /// It says its first state again and again, to everybody.
    steady: bool,
}

struct Reader(Arc<AtomicUsize>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tonic::async_trait]
impl Agent for Chatty {
    type WatchStream = BoxStream<'static, Result<wire::NodeState, Status>>;
    type LogsStream = BoxStream<'static, Result<wire::LogLine, Status>>;
    type DumpStream = BoxStream<'static, Result<wire::DumpChunk, Status>>;

    async fn dump(
        &self,
        _request: Request<wire::DumpRequest>,
    ) -> Result<Response<Self::DumpStream>, Status> {
        Err(Status::unimplemented("there is no such call"))
    }

    async fn watch(
        &self,
        _request: Request<wire::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        if self.steady {
            let state = self.states[0].clone();
            let often = IntervalStream::new(tokio::time::interval(Duration::from_millis(100)));
            return Ok(Response::new(often.map(move |_| Ok(state.clone())).boxed()));
        }
        // It speaks once: whoever watches it again hears nothing more of it.
        if self.states.is_empty() || self.watchers.fetch_add(1, Ordering::SeqCst) > 0 {
            return Ok(Response::new(stream::pending().boxed()));
        }
        Ok(Response::new(stream::iter(self.states.clone()).map(Ok).boxed()))
    }

    async fn command(
        &self,
        _request: Request<CommandRequest>,
    ) -> Result<Response<wire::CommandReply>, Status> {
        Err(Status::unimplemented("it only talks"))
    }

    /// As an agent of a version that keeps nothing.
    async fn recall(
        &self,
        _request: Request<wire::RecallRequest>,
    ) -> Result<Response<wire::RecallReply>, Status> {
        Err(Status::unimplemented("there is no such call"))
    }

    async fn announce(
        &self,
        _request: Request<wire::AnnounceRequest>,
    ) -> Result<Response<wire::AnnounceReply>, Status> {
        Err(Status::unimplemented("there is no such call"))
    }

    async fn logs(
        &self,
        request: Request<LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let tail = request.into_inner().tail;
        self.readers.fetch_add(1, Ordering::SeqCst);
        let reader = Reader(self.readers.clone());
        let line = |text: String| Ok(wire::LogLine { source: "redis".into(), text, at_ms: 0 });
        let lines = stream::iter(0..=tail).map(move |n| line(n.to_string()));
        let lines = match tail {
            BREAKS => lines
                .take(2)
                .chain(stream::iter([Err(Status::unavailable("it fell over"))]))
                .boxed(),
            _ => lines.chain(stream::pending()).boxed(),
        };
        let all = lines.inspect(move |_| {
            let _held = &reader;
        });
        Ok(Response::new(all.boxed()))
    }
}

fn last(tail: u32, follow: bool) -> LogQuery {
    LogQuery { tail, follow, ..LogQuery::default() }
}

fn incarnation() -> IncarnationName {
    IncarnationName("cache-0-x7k2".to_owned())
}

/// Serves `agent` at a loopback address of its own; returns who watches it.
async fn watching(agent: Chatty) -> MeshAgents {
    let listener = listener().await;
    let ip = listener.local_addr().unwrap().ip();
    watching_at(ip, agent, TcpListenerStream::new(listener))
}

/// Agents listen on a fixed port, so each has an address of its own.
async fn listener() -> TcpListener {
    loop {
        let [a, b, c] = rand::random::<[u8; 3]>();
        if let Ok(listener) =
            TcpListener::bind((Ipv4Addr::new(127, a, b, c.clamp(2, 250)), AGENT_PORT)).await
        {
            return listener;
        }
    }
}

/// Serves `agent` to the connections of `incoming`; returns one who watches it at `ip`.
fn watching_at(ip: IpAddr, agent: Chatty, incoming: TcpListenerStream) -> MeshAgents {
    // Another test of this process may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let root = RootSecret::new(vec![7; 32].into()).unwrap();
    let own = root.node_certificate(&incarnation(), UnixMs::now());
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(
            &own.certificate,
            secrecy::ExposeSecret::expose_secret(&own.key),
        ))
        .client_ca_root(Certificate::from_pem(root.ca_pem()));
    let serving = Server::builder().tls_config(tls).unwrap().add_service(AgentServer::new(agent));
    tokio::spawn(serving.serve_with_incoming(incoming));
    let operator = root.operator_certificate(UnixMs::now());
    let identity =
        AgentTls { ca: root.ca_pem(), certificate: operator.certificate, key: operator.key };
    let agents = MeshAgents::new(None, None, identity, Arc::new(UnixMs::now));
    agents.watch("cache", &BTreeMap::from([(incarnation(), ip.to_string())]));
    agents
}

#[tokio::test]
async fn the_lines_asked_for_and_no_more() {
    let agents = watching(Chatty::default()).await;
    let lines = NodeLogs::logs(&agents, &incarnation(), &last(2, false)).await.unwrap();
    assert_eq!(lines.collect::<Vec<_>>().await, ["redis | 0", "redis | 1"]);
}

#[tokio::test]
async fn readers_are_few_and_let_go() {
    let agent = Chatty::default();
    let agents = watching(agent.clone()).await;
    let mut open = Vec::new();
    for _ in 0..READERS {
        let mut lines = NodeLogs::logs(&agents, &incarnation(), &last(0, true)).await.unwrap();
        assert_eq!(lines.next().await.unwrap(), "redis | 0");
        open.push(lines);
    }
    let refused = NodeLogs::logs(&agents, &incarnation(), &last(0, true)).await.err().unwrap();
    assert!(refused.contains("4 readers have it open already"), "{refused}");
    drop(open);
    let gone = async {
        while agent.readers.load(Ordering::SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone)
        .await
        .expect("the agent has no reader any more");
    assert!(NodeLogs::logs(&agents, &incarnation(), &last(0, true)).await.is_ok());
}

#[tokio::test]
async fn a_log_that_breaks_says_so_in_its_last_line() {
    let agents = watching(Chatty::default()).await;
    for follow in [false, true] {
        let lines: Vec<_> = NodeLogs::logs(&agents, &incarnation(), &last(BREAKS, follow))
            .await
            .unwrap()
            .collect()
            .await;
        assert_eq!(lines[..2], ["redis | 0", "redis | 1"]);
        assert!(
            lines[2].starts_with("operator | the log of cache-0-x7k2 cannot be read (")
                && lines[2].contains("it fell over"),
            "{lines:?}"
        );
        assert_eq!(lines.len(), 3);
    }
    let unknown = IncarnationName("cache-1-none".to_owned());
    let sentence = NodeLogs::logs(&agents, &unknown, &last(1, false)).await.err().unwrap();
    assert!(
        sentence.starts_with("the log of cache-1-none cannot be read (it is not on the mesh)"),
        "{sentence}"
    );
}

fn state(process: wire::Process) -> wire::NodeState {
    let redis = wire::Redis {
        process: process.into(),
        role: wire::Role::Master.into(),
        quorum: Some(wire::Quorum { min_replicas: 1, max_lag_seconds: 8 }),
        fenced: process == wire::Process::Exited,
        ..wire::Redis::default()
    };
    let history =
        Some(wire::History { replid: "aa".into(), offset: 42, epoch: 3, gap_ms: Some(0) });
    wire::NodeState {
        incarnation: incarnation().0,
        redis: Some(redis),
        history,
        ..wire::NodeState::default()
    }
}

/// What is known of the node once its stream has ended.
async fn after_the_end(agents: &MeshAgents) -> NodeView {
    let mut changes = agents.changes();
    let ended = async {
        loop {
            if let Some(view) = agents.view(&incarnation()).filter(|view| !view.connected) {
                return view;
            }
            changes.next().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("the stream ended")
}

#[tokio::test]
async fn a_last_word_outlives_the_stream_that_brought_it() {
    let states = vec![state(wire::Process::Running), state(wire::Process::Exited)];
    let agents = watching(Chatty { states, ..Chatty::default() }).await;
    let view = after_the_end(&agents).await;
    let redis = &view.state.redis;
    assert_eq!((redis.process, redis.role, redis.fenced), (Process::Exited, Role::Master, true));
    assert_eq!(
        (redis.min_replicas, view.state.history.map(|h| (h.offset, h.gap_ms))),
        (1, Some((42, 0)))
    );
}

#[tokio::test]
async fn a_node_that_sends_more_than_a_state_can_be_is_not_heard_any_more() {
    let huge =
        wire::NodeState { notes: vec!["x".repeat(3_000_000)], ..state(wire::Process::Exited) };
    let agents =
        watching(Chatty { states: vec![state(wire::Process::Running), huge], ..Chatty::default() })
            .await;
    let view = after_the_end(&agents).await;
    assert_eq!((view.state.redis.process, view.state.notes.len()), (Process::Running, 0));
}

#[tokio::test]
async fn a_node_that_answers_with_an_error_is_not_called_silent() {
    let agents = watching(Chatty::default()).await;
    let asked = agents.command(&incarnation(), CommandRequest::default()).await;
    assert_eq!(
        asked.unwrap_err().to_string(),
        "cache-0-x7k2 answered that it could not: it only talks"
    );
    let nobody = IncarnationName("cache-1-none".to_owned());
    let asked = agents.command(&nobody, CommandRequest::default()).await.unwrap_err();
    assert!(asked.to_string().starts_with("cache-1-none does not answer"), "{asked}");
}

#[tokio::test]
async fn an_agent_that_keeps_nothing_is_no_error() {
    let agents = watching(Chatty::default()).await;
    assert_eq!(Agents::recall(&agents, &incarnation()).await.unwrap(), None);
    let stranger = IncarnationName("cache-1-none".to_owned());
    assert!(Agents::recall(&agents, &stranger).await.is_err());
}

/// The next connection of the one who watches.
async fn dialled(listener: &TcpListener) -> TcpStream {
    let dialled = tokio::time::timeout(Duration::from_secs(20), listener.accept()).await;
    dialled.expect("the node is dialled").unwrap().0
}

async fn until_connected(agents: &MeshAgents) {
    let mut changes = agents.changes();
    let connected = async {
        while !agents.view(&incarnation()).is_some_and(|view| view.connected) {
            changes.next().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), connected).await.expect("the node is heard");
}

#[tokio::test]
async fn a_silent_node_is_heard_by_the_youngest_dial() {
    let listener = listener().await;
    let ip = listener.local_addr().unwrap().ip();
    let served = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let inside = served.local_addr().unwrap();
    let agent =
        Chatty { steady: true, states: vec![state(wire::Process::Running)], ..Chatty::default() };
    let agents = watching_at(ip, agent, TcpListenerStream::new(served));
    let carried = |mut theirs: TcpStream, stall: CancellationToken| {
        tokio::spawn(async move {
            let mut ours = TcpStream::connect(inside).await.unwrap();
            let carry = tokio::io::copy_bidirectional(&mut theirs, &mut ours);
            let _ = stall.run_until_cancelled(carry).await;
            (theirs, ours)
        })
    };

    let stall = CancellationToken::new();
    let first = carried(dialled(&listener).await, stall.clone());
    until_connected(&agents).await;
    stall.cancel();
    let _first = first.await.unwrap();
    // Nothing passes for two more dials, and none of them is given up for it.
    let silent = [dialled(&listener).await, dialled(&listener).await];
    for dial in &silent {
        let ended = dial.try_read(&mut [0; 4096]).is_ok_and(|read| read == 0);
        assert!(!ended, "the older dial may still be the first that is heard");
    }
    assert!(!agents.view(&incarnation()).unwrap().connected);
    let _last = carried(dialled(&listener).await, CancellationToken::new());
    until_connected(&agents).await;
    // Calls go where it is heard.
    let asked = agents.command(&incarnation(), CommandRequest::default()).await;
    assert!(matches!(asked, Err(AgentError::Failed { .. })), "{asked:?}");
    for mut dial in silent {
        let ended = async { while dial.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {} };
        tokio::time::timeout(Duration::from_secs(20), ended).await.expect("slower dials end");
    }
}
