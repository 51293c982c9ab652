//! How a connection to Redis of a node is made.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::either::Either;

use super::spares::Spares;
use super::{Socks5, Target};
use crate::mesh::dial::{DialError, dial};
use crate::model::ports::SENTINEL_PORT;
use crate::tunnel::{Tunnel, TunnelError, Tunnels};

/// Dials in progress at most. A thousand at once fill the queue of whoever accepts them; what is
/// dropped there is sent again after 1, 3, 7 and 15 s, and so is what the operator and the agents
/// dial beside them.
pub(super) const DIALS: usize = 32;
/// Connections of the mesh that lead to Redis themselves; further ones share a few, where the node
/// takes that. An application with no more than these has nothing between itself and Redis.
pub(super) const DIRECT: usize = 64;
/// Where the policy does not let us reach the agent nothing says so.
const TUNNEL: Duration = Duration::from_secs(2);

/// Of a program that carries many connections.
#[derive(Clone)]
pub(super) struct Way {
    socks5: Socks5,
    /// Dials in progress: [`DIALS`] of all connections together.
    pub dials: Arc<Semaphore>,
    /// [`DIRECT`] of all connections together.
    direct: Arc<Semaphore>,
    tunnels: Arc<Tunnels>,
    /// The last dial that led somewhere.
    reached: Arc<Mutex<Option<Instant>>>,
    /// Connections to nodes that may be master next.
    pub spares: Arc<Spares>,
}

impl Way {
    pub fn new(socks5: Socks5) -> Self {
        Self {
            socks5,
            dials: Arc::new(Semaphore::new(DIALS)),
            direct: Arc::new(Semaphore::new(DIRECT)),
            tunnels: Arc::default(),
            reached: Arc::default(),
            spares: Arc::default(),
        }
    }

    pub fn reaches(&self) {
        *self.reached.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether somebody reached a master within this time: who waits for a turn will, too.
    pub fn is_good(&self, within: Duration) -> bool {
        let last = *self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| last.elapsed() < within)
    }

    /// A connection that was made before anybody needed it.
    pub fn spare(&self, target: &Target) -> Option<Server> {
        let stream = self.spares.take(target.ip, target.port)?;
        Some(Server::direct(stream, self.direct.clone().try_acquire_owned().ok()))
    }

    /// A connection to Redis of this node, within `limit` from its turn on.
    ///
    /// # Errors
    /// It is not reached.
    pub async fn connect(&self, target: &Target, limit: Duration) -> Result<Server, DialError> {
        let place = self.direct.clone().try_acquire_owned().ok();
        if place.is_none()
            && let Some(tunnel) = self.tunnel(target.ip, limit).await
        {
            return Ok(Server { stream: Either::Right(tunnel), _place: None });
        }
        let stream = self.dial(target.ip, target.port, limit).await?;
        Ok(Server::direct(stream, place))
    }

    /// A connection of its own, in its turn.
    pub async fn dial(
        &self,
        ip: IpAddr,
        port: u16,
        limit: Duration,
    ) -> Result<TcpStream, DialError> {
        let _turn = self.dials.acquire().await;
        dial(self.socks5.get(), ip, port, limit).await
    }

    /// Makes ready for connections to this node that have no place of their own, if there are such.
    pub async fn prepare(&self, ip: IpAddr, limit: Duration) {
        let node = SocketAddr::new(ip, SENTINEL_PORT);
        if self.direct.available_permits() == 0 && self.tunnels.is_offered(node) {
            let dial = || self.dial(ip, SENTINEL_PORT, TUNNEL);
            let _ = timeout(limit, self.tunnels.prepare(node, dial)).await;
        }
    }

    async fn tunnel(&self, ip: IpAddr, limit: Duration) -> Option<Tunnel> {
        let node = SocketAddr::new(ip, SENTINEL_PORT);
        if !self.tunnels.is_offered(node) {
            return None;
        }
        let dial = self.dial(ip, SENTINEL_PORT, limit.min(TUNNEL));
        match timeout(limit, self.tunnels.open(node, dial)).await {
            Ok(Ok(tunnel)) => Some(tunnel),
            Ok(Err(error)) => {
                if !matches!(error, TunnelError::Redis(_)) {
                    tracing::debug!(%error, %node, "connections to a node have no tunnel");
                }
                None
            }
            Err(_) => None,
        }
    }
}

/// A connection to Redis.
pub(super) struct Server {
    stream: Either<TcpStream, Tunnel>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Server {
    fn direct(stream: TcpStream, place: Option<OwnedSemaphorePermit>) -> Self {
        Self { stream: Either::Left(stream), _place: place }
    }
}

impl AsyncRead for Server {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Server {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
