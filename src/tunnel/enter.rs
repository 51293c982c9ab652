//! The end at who wants to reach Redis of a node.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{Method, Request, StatusCode};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync;

use super::{AUTHORITY, CONNECTION_WINDOW, STREAM_WINDOW};
use crate::mesh::dial::DialError;

/// Connections to one node: what is lost on the way of one delays only its own streams.
const CONNECTIONS: usize = 4;
/// A node that offers no tunnel, or where the policy lets nobody reach that port, is not asked again
/// for so long.
const REFUSED: Duration = Duration::from_mins(1);
/// A connection is asked whether it is there so often, and ends when it does not say so in this time.
const PING: Duration = Duration::from_secs(5);

/// What no node has: its answer says that it speaks HTTP/2.
const ANYTHING: &str = "http://redis:6379/";

/// A connection to Redis.
pub type Tunnel = TokioIo<Upgraded>;

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The node is not reached at that port.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// It is an older one, or the connection ended.
    #[error("the node takes no tunnel")]
    Ended(#[from] hyper::Error),
    /// Redis there takes no connection, or the agent has no room for one more.
    #[error("the node takes no further connection ({0})")]
    Redis(StatusCode),
}

/// Connections to nodes, made when somebody needs them and kept until they end.
#[derive(Debug, Default)]
pub struct Tunnels {
    nodes: Mutex<HashMap<SocketAddr, Arc<Node>>>,
}

#[derive(Debug, Default)]
struct Node {
    connections: [sync::Mutex<Option<SendRequest<String>>>; CONNECTIONS],
    next: AtomicUsize,
    offer: Mutex<Offer>,
}

/// Whether a node takes tunnels.
#[derive(Clone, Copy, Debug, Default)]
enum Offer {
    #[default]
    Unknown,
    /// It did, so that what goes wrong is the matter of one connection.
    Taken,
    /// It did not, at this moment.
    Refused(Instant),
}

impl Offer {
    fn is_refused(self) -> bool {
        matches!(self, Self::Refused(at) if at.elapsed() < REFUSED)
    }
}

impl Node {
    fn offer(&self) -> MutexGuard<'_, Offer> {
        self.offer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came of an attempt.
    fn note<T>(&self, opened: &Result<T, TunnelError>) {
        let mut offer = self.offer();
        match opened {
            Ok(_) | Err(TunnelError::Redis(_)) => *offer = Offer::Taken,
            Err(_) if matches!(*offer, Offer::Taken) => {}
            Err(_) => *offer = Offer::Refused(Instant::now()),
        }
    }

    fn is_used(&self) -> bool {
        let open = |slot: &sync::Mutex<Option<SendRequest<String>>>| {
            slot.try_lock().map_or(true, |own| own.as_ref().is_some_and(|own| !own.is_closed()))
        };
        self.connections.iter().any(open) || self.offer().is_refused()
    }

    /// One connection of the node, which `dial` makes where there is none yet.
    async fn connection<D>(
        &self,
        number: usize,
        dial: D,
    ) -> Result<SendRequest<String>, TunnelError>
    where
        D: Future<Output = Result<TcpStream, DialError>>,
    {
        // Whoever comes meanwhile waits for the same dial.
        let mut own = self.connections[number % CONNECTIONS].lock().await;
        if let Some(open) = own.as_ref().filter(|open| !open.is_closed()) {
            return Ok(open.clone());
        }
        let stream = dial.await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(STREAM_WINDOW as usize)
            // A change of masters closes all streams at once.
            .max_local_error_reset_streams(None)
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection with tunnels ends");
            }
        });
        *own = Some(sender.clone());
        Ok(sender)
    }
}

impl Tunnels {
    /// Whether the node that is reached here may take one.
    #[must_use]
    pub fn is_offered(&self, node: SocketAddr) -> bool {
        let known = self.nodes().get(&node).cloned();
        known.is_none_or(|node| !node.offer().is_refused())
    }

    /// A connection to Redis of the node whose agent is reached here; `dial` reaches it.
    ///
    /// # Errors
    /// There is none. A node that never took one counts as one that takes none, for a minute.
    pub async fn open<D>(&self, node: SocketAddr, dial: D) -> Result<Tunnel, TunnelError>
    where
        D: Future<Output = Result<TcpStream, DialError>>,
    {
        let own = self.node(node);
        let number = own.next.fetch_add(1, Ordering::Relaxed);
        let opened = async {
            let mut sender = own.connection(number, dial).await?;
            let mut request = Request::new(String::new());
            *request.method_mut() = Method::CONNECT;
            *request.uri_mut() = http::Uri::from_static(AUTHORITY);
            let response = sender.send_request(request).await?;
            match response.status() {
                StatusCode::OK => Ok(TokioIo::new(hyper::upgrade::on(response).await?)),
                other => Err(TunnelError::Redis(other)),
            }
        };
        let opened = opened.await;
        own.note(&opened);
        opened
    }

    /// Makes the connections to a node which may be needed soon, and finds out whether it takes
    /// tunnels. Redis sees nothing of it.
    pub async fn prepare<D>(&self, node: SocketAddr, dial: impl Fn() -> D)
    where
        D: Future<Output = Result<TcpStream, DialError>>,
    {
        let own = self.node(node);
        for number in 0..CONNECTIONS {
            let asked = async {
                let mut sender = own.connection(number, dial()).await?;
                let mut request = Request::new(String::new());
                *request.uri_mut() = http::Uri::from_static(ANYTHING);
                sender.send_request(request).await?;
                Ok(())
            };
            own.note(&asked.await);
            if own.offer().is_refused() {
                return;
            }
        }
    }

    fn node(&self, node: SocketAddr) -> Arc<Node> {
        let mut nodes = self.nodes();
        if let Some(own) = nodes.get(&node) {
            return own.clone();
        }
        // Nodes come and go.
        nodes.retain(|_, other| other.is_used());
        nodes.entry(node).or_default().clone()
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<SocketAddr, Arc<Node>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
