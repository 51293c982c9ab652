//! A local port that always leads to the present master, for applications that know one address
//! only.
//!
//! It follows the operator's word about the master. When the word changes, connections go on at the
//! new one: what the old one refused, or what changes nothing, is sent again, and what may have been
//! carried out is not (`flight`).

mod carry;
mod commands;
mod confirm;
mod connection;
mod flight;
mod follow;
mod resp;

use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::api_client::{Client, ClientError};
pub use confirm::Confirm;

/// After a failed accept (no file descriptors left) some connections must end first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How a proxy is set up.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// The cluster whose master is meant.
    pub cluster: String,
    /// Unix socket of the operator's API.
    pub operator: PathBuf,
    /// Where applications connect.
    pub listen: Listen,
    /// SOCKS5 address of tailscaled; `None` where mesh addresses can be dialled straight.
    pub socks5: Option<SocketAddr>,
    /// How long a new connection waits for a master that can be reached.
    pub master_wait: Duration,
    /// Connections at a time; further ones are closed.
    pub max_connections: usize,
    /// Replies to writes are held back until replicas have them.
    pub confirm: Option<Confirm>,
}

/// An address or a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Host address and port.
    Tcp(SocketAddr),
    /// Path of a unix socket.
    Unix(PathBuf),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('/') {
            return Ok(Self::Unix(PathBuf::from(text)));
        }
        text.parse()
            .map(Self::Tcp)
            .map_err(|_| format!("{text:?} is neither an address with a port (127.0.0.1:6379) nor a path (/run/redis.sock)"))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Why the proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The place to listen is taken or not allowed.
    #[error(
        "cannot listen on {listen}, so applications could not connect; is another proxy or a Redis there? choose another place with --listen"
    )]
    Listen {
        /// Where.
        listen: Listen,
        /// What the system said.
        source: std::io::Error,
    },
    /// The operator's socket cannot be used.
    #[error(transparent)]
    Operator(#[from] ClientError),
    /// Nobody says how many replicas confirm a write.
    #[error(
        "how many replicas confirm a write of {cluster} is not known, so nothing can be confirmed: its manifest does not say `durability: confirmed`; change that, or name a number: --confirm=1"
    )]
    NotConfirmed {
        /// The cluster.
        cluster: String,
    },
}

/// The master as the operator names it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    epoch: u64,
    incarnation: String,
    ip: IpAddr,
    port: u16,
}

/// What is known of the master. Of two words the one with the higher epoch is the later one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Word {
    /// The newest master; it stays while there is none.
    target: Option<Target>,
    /// A planned change away from it has begun: it takes no writes, or soon will not. Whoever is
    /// master of just this epoch after that has every write that it acknowledged. None where nobody
    /// says so: then any change may be a failover.
    changing: Option<u64>,
}

/// A proxy that listens already.
#[derive(Debug)]
pub struct Proxy {
    settings: ProxySettings,
    listener: Listener,
    operator: Client,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Proxy {
    /// Takes the place where applications connect. A unix socket that nobody listens on any more is
    /// replaced.
    pub async fn bind(mut settings: ProxySettings) -> Result<Self, ProxyError> {
        let operator = Client::new(&settings.operator)?;
        if let Some(confirm) = settings.confirm.as_mut().filter(|confirm| confirm.replicas == 0) {
            let spec = operator.get(&settings.cluster).await?.spec;
            if !spec.is_confirmed() {
                return Err(ProxyError::NotConfirmed { cluster: settings.cluster });
            }
            confirm.replicas = spec.write_replicas();
        }
        let listener = match &settings.listen {
            Listen::Tcp(address) => TcpListener::bind(address).await.map(Listener::Tcp),
            Listen::Unix(path) => {
                // A file of another kind refuses connections too, and is somebody's. Should this
                // fail, binding says so.
                if is_socket(path)
                    && UnixStream::connect(path)
                        .await
                        .is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
                {
                    let _ = std::fs::remove_file(path);
                }
                UnixListener::bind(path).map(Listener::Unix)
            }
        };
        let listener = listener
            .map_err(|source| ProxyError::Listen { listen: settings.listen.clone(), source })?;
        Ok(Self { settings, listener, operator })
    }

    /// How many replicas must have a write before its client is told.
    #[must_use]
    pub fn confirms(&self) -> Option<u32> {
        self.settings.confirm.map(|confirm| confirm.replicas)
    }

    /// Where it listens, with the port that the system chose.
    #[must_use]
    pub fn listen(&self) -> Listen {
        match &self.listener {
            Listener::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| self.settings.listen.clone(), Listen::Tcp)
            }
            Listener::Unix(_) => self.settings.listen.clone(),
        }
    }

    /// Carries connections until `stop`; then all of them end.
    pub async fn run(self, stop: CancellationToken) {
        let (said, word) = watch::channel(Word::default());
        // The set ends everything in it when it is dropped.
        let mut follower = JoinSet::new();
        follower.spawn(follow::follow(self.operator, self.settings.cluster.clone(), said));
        match self.listener {
            Listener::Tcp(listener) => {
                let accept = || async {
                    let (stream, _) = listener.accept().await?;
                    let _ = stream.set_nodelay(true);
                    Ok(stream)
                };
                serve(accept, &self.settings, &word, &stop).await;
            }
            Listener::Unix(listener) => {
                serve(|| async { Ok(listener.accept().await?.0) }, &self.settings, &word, &stop)
                    .await;
                if let Listen::Unix(path) = &self.settings.listen
                    && is_socket(path)
                {
                    let _ = std::fs::remove_file(path);
                }
            }
        }
    }
}

/// A socket itself, not what a link at that place leads to.
fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket())
}

async fn serve<S, F>(
    accept: impl Fn() -> F,
    settings: &ProxySettings,
    word: &watch::Receiver<Word>,
    stop: &CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = std::io::Result<S>>,
{
    let places = Arc::new(Semaphore::new(settings.max_connections));
    let dials = Arc::new(Semaphore::new(carry::DIALS));
    let way = carry::Way { socks5: settings.socks5, dials };
    let mut connections = JoinSet::new();
    let mut full = false;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = connections.join_next() => continue,
            accepted = accept() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections for a moment");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            if !std::mem::replace(&mut full, true) {
                tracing::warn!(
                    limit = settings.max_connections,
                    "too many connections; new ones are closed until others end"
                );
            }
            continue;
        };
        full = false;
        let (way, confirm) = (way.clone(), settings.confirm);
        let carried = carry::carry(stream, word.clone(), way, settings.master_wait, confirm);
        connections.spawn(async move {
            carried.await;
            drop(place);
        });
    }
}

#[cfg(test)]
mod carry_tests;
#[cfg(test)]
mod servers;
#[cfg(test)]
mod tests;
