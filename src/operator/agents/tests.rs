//! Logs of an agent over a real connection.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::stream::BoxStream;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response};

use super::*;
use crate::secrets::RootSecret;
use crate::wire::akash_redis::agent::v1 as wire;
use crate::wire::akash_redis::agent::v1::agent_server::{Agent, AgentServer};

/// Asked for so many lines, the agent breaks after two.
const BREAKS: u32 = 7;

/// An agent that sends one line more than it was asked for, and does not end.
#[derive(Clone, Default)]
struct Chatty {
    readers: Arc<AtomicUsize>,
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

    async fn watch(&self, _request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(stream::pending().boxed()))
    }

    async fn command(&self, _request: Request<CommandRequest>) -> Result<Response<wire::CommandReply>, Status> {
        Err(Status::unimplemented("it only talks"))
    }

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let tail = request.into_inner().tail;
        self.readers.fetch_add(1, Ordering::SeqCst);
        let reader = Reader(self.readers.clone());
        let line = |text: String| Ok(wire::LogLine { source: "redis".into(), text });
        let lines = stream::iter(0..=tail).map(move |n| line(n.to_string()));
        let lines = match tail {
            BREAKS => lines.take(2).chain(stream::iter([Err(Status::unavailable("it fell over"))])).boxed(),
            _ => lines.chain(stream::pending()).boxed(),
        };
        let all = lines.inspect(move |_| {
            let _held = &reader;
        });
        Ok(Response::new(all.boxed()))
    }
}

fn incarnation() -> IncarnationName {
    IncarnationName("cache-0-x7k2".to_owned())
}

/// Serves `agent` at a loopback address of its own, because agents listen on a fixed port; returns who watches it.
async fn watching(agent: Chatty) -> MeshAgents {
    // Another test of this process may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let root = RootSecret::new(vec![7; 32].into()).unwrap();
    let listener = loop {
        let [a, b, c] = rand::random::<[u8; 3]>();
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::new(127, a, b, c.clamp(2, 250)), AGENT_PORT)).await {
            break listener;
        }
    };
    let ip = listener.local_addr().unwrap().ip().to_string();
    let own = root.node_certificate(&incarnation(), UnixMs::now());
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(&own.certificate, secrecy::ExposeSecret::expose_secret(&own.key)))
        .client_ca_root(Certificate::from_pem(root.ca_pem()));
    let serving = Server::builder().tls_config(tls).unwrap().add_service(AgentServer::new(agent));
    tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
    let operator = root.operator_certificate(UnixMs::now());
    let identity = AgentTls { ca: root.ca_pem(), certificate: operator.certificate, key: operator.key };
    let agents = MeshAgents::new(None, identity, Arc::new(UnixMs::now));
    agents.watch(&BTreeMap::from([(incarnation(), ip)]));
    agents
}

#[tokio::test]
async fn the_lines_asked_for_and_no_more() {
    let agents = watching(Chatty::default()).await;
    let lines = NodeLogs::logs(&agents, &incarnation(), 2, false).await.unwrap();
    assert_eq!(lines.collect::<Vec<_>>().await, ["redis | 0", "redis | 1"]);
}

#[tokio::test]
async fn readers_are_few_and_let_go() {
    let agent = Chatty::default();
    let agents = watching(agent.clone()).await;
    let mut open = Vec::new();
    for _ in 0..READERS {
        let mut lines = NodeLogs::logs(&agents, &incarnation(), 0, true).await.unwrap();
        assert_eq!(lines.next().await.unwrap(), "redis | 0");
        open.push(lines);
    }
    let refused = NodeLogs::logs(&agents, &incarnation(), 0, true).await.err().unwrap();
    assert!(refused.contains("4 readers have it open already"), "{refused}");
    drop(open);
    let gone = async {
        while agent.readers.load(Ordering::SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the agent has no reader any more");
    assert!(NodeLogs::logs(&agents, &incarnation(), 0, true).await.is_ok());
}

#[tokio::test]
async fn a_log_that_breaks_says_so_in_its_last_line() {
    let agents = watching(Chatty::default()).await;
    for follow in [false, true] {
        let lines: Vec<_> = NodeLogs::logs(&agents, &incarnation(), BREAKS, follow).await.unwrap().collect().await;
        assert_eq!(lines[..2], ["redis | 0", "redis | 1"]);
        assert!(
            lines[2].starts_with("operator | the log of cache-0-x7k2 cannot be read (") && lines[2].contains("it fell over"),
            "{lines:?}"
        );
        assert_eq!(lines.len(), 3);
    }
    let unknown = IncarnationName("cache-1-none".to_owned());
    let sentence = NodeLogs::logs(&agents, &unknown, 1, false).await.err().unwrap();
    assert!(sentence.starts_with("the log of cache-1-none cannot be read (it is not on the mesh)"), "{sentence}");
}
