//! A local port that always leads to the present master, for applications that know one address
//! only.
//!
//! It follows the word about the master, of the operator or of the nodes themselves. When the word
//! changes, connections go on at the new one: what the old one refused, or what changes nothing, is
//! sent again, and what may have been carried out is not (`flight`).

mod carry;
mod commands;
mod confirm;
mod connection;
mod flight;
mod follow;
mod nodes;
mod read;
mod refuse;
mod resp;
mod spares;
mod threads;
mod told;
mod way;

use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::api_client::{Client, ClientError};
pub use confirm::Confirm;
pub use nodes::{Nodes, Seed, read_seeds};
use read::Reads;
use threads::Threads;
use told::{Ears, Told};
use way::Way;

/// After a failed accept (no file descriptors left) some connections must end first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// So many clients at a time are told that there is no room; others are closed without a word.
const MOST_REFUSALS: usize = 64;

/// How a proxy is set up.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// The cluster whose master is meant.
    pub cluster: String,
    /// Unix socket of the operator's API.
    pub operator: PathBuf,
    /// The nodes are asked in place of the operator.
    pub nodes: Option<Nodes>,
    /// Where applications connect.
    pub listen: Listen,
    /// Where they connect to read from replicas.
    pub read_listen: Option<Listen>,
    /// Bytes that a replica may be behind to be read from; any that is in sync when absent.
    pub max_lag: Option<u64>,
    /// SOCKS5 address of tailscaled; when absent the one that the operator says it uses itself, or
    /// mesh addresses are dialled straight.
    pub socks5: Option<SocketAddr>,
    /// How long a new connection waits for a master that can be reached.
    pub master_wait: Duration,
    /// Connections at a time, on each port; further ones are told so and closed.
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
    /// There are no threads to carry connections.
    #[error(
        "the threads that carry connections cannot be started, so applications could not be served; allow this program more processes and open files (ulimit -u, ulimit -n, or the limits of its container)"
    )]
    Threads(#[source] std::io::Error),
    /// The operator's socket cannot be used.
    #[error(transparent)]
    Operator(#[from] ClientError),
    /// There is no such cluster.
    #[error("{0}")]
    NoCluster(String),
    /// Nobody who was asked is a node of the cluster.
    #[error(
        "no node that was named says who is master of {cluster}: {why}; name nodes of that cluster with --node, and its installation's key with --public-key"
    )]
    NoNode {
        /// The cluster.
        cluster: String,
        /// What each answered.
        why: String,
    },
    /// Nobody can be asked how many replicas confirm.
    #[error(
        "nodes do not say how many replicas confirm a write; name the number, as in --confirm=1"
    )]
    NumberNeeded,
    /// Nobody says how many replicas confirm a write.
    #[error(
        "how many replicas confirm a write of {cluster} is not known, so nothing can be confirmed: its manifest does not say `durability: confirmed`; change that, or name a number: --confirm=1"
    )]
    NotConfirmed {
        /// The cluster.
        cluster: String,
    },
}

/// Whether a command may write, and no replica carries it out: by its name, its first argument and
/// the number of its words. What is not known is taken for a write; a script is not.
#[must_use]
pub fn is_write(name: &str, first: &str, words: usize) -> bool {
    let (name, first) = (name.as_bytes(), first.as_bytes());
    let head = resp::Head { name, first, words: words as u64 };
    matches!(commands::kind(&head, false), commands::Kind::Write | commands::Kind::WaitingWrite)
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
    /// Who is to be that master, or, after a failure, was chosen to be the next one: then its epoch
    /// is not that of `changing`.
    successor: Option<Target>,
}

impl Word {
    /// Whom a connection is made to: the successor while it is one, where that is asked for or the
    /// master failed, unless it is the one of the epoch that was `refused`.
    fn aim(&self, ahead: bool, refused: Option<u64>) -> Option<&Target> {
        let goes = |next: &&Target| {
            (ahead || self.changing != Some(next.epoch)) && refused != Some(next.epoch)
        };
        self.successor.as_ref().filter(goes).or(self.target.as_ref())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.incarnation, SocketAddr::new(self.ip, self.port))
    }
}

/// The SOCKS5 proxy of tailscaled, as far as it is known.
#[derive(Clone, Debug)]
struct Socks5 {
    /// By a person: it counts.
    named: Option<SocketAddr>,
    /// By the operator.
    found: Arc<Mutex<Option<SocketAddr>>>,
}

impl Socks5 {
    fn new(named: Option<SocketAddr>) -> Self {
        Self { named, found: Arc::default() }
    }

    /// `None` where mesh addresses can be dialled straight.
    fn get(&self) -> Option<SocketAddr> {
        self.named.or_else(|| *self.found.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn found(&self, text: Option<&str>) {
        let found = text.and_then(|text| text.parse().ok());
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }
}

/// A proxy that listens already.
#[derive(Debug)]
pub struct Proxy {
    settings: ProxySettings,
    listener: Listener,
    reads: Option<Listener>,
    operator: Client,
    told: Told,
    ears: Ears,
}

/// Learns who the master is.
#[derive(Debug)]
pub struct Progress(Ears);

impl Progress {
    /// The master, as soon as it is known, in words.
    ///
    /// # Errors
    /// It is not known after `within`: what is waited for, one phrase.
    pub async fn master(&mut self, within: Duration) -> Result<String, String> {
        let known = timeout(within, self.0.word.wait_for(|word| word.target.is_some())).await;
        let known = known.ok().and_then(Result::ok).and_then(|word| word.target.clone());
        known.map(|target| target.to_string()).ok_or_else(|| self.0.trouble.borrow().clone())
    }
}

impl Proxy {
    /// Takes the places where applications connect. A unix socket that nobody listens on any more is
    /// replaced.
    pub async fn bind(mut settings: ProxySettings) -> Result<Self, ProxyError> {
        let operator = Client::new(&settings.operator)?;
        if let Some(confirm) = settings.confirm.as_mut().filter(|confirm| confirm.replicas == 0) {
            if settings.nodes.is_some() {
                return Err(ProxyError::NumberNeeded);
            }
            let spec = operator.get(&settings.cluster).await?.spec;
            if !spec.is_confirmed() {
                return Err(ProxyError::NotConfirmed { cluster: settings.cluster });
            }
            confirm.replicas = spec.write_replicas();
        }
        let listener = Listener::bind(&settings.listen).await?;
        let reads = match &settings.read_listen {
            Some(listen) => Some(Listener::bind(listen).await?),
            None => None,
        };
        let (told, ears) = Told::new();
        Ok(Self { settings, listener, reads, operator, told, ears })
    }

    /// How many replicas must have a write before its client is told.
    #[must_use]
    pub fn confirms(&self) -> Option<u32> {
        self.settings.confirm.map(|confirm| confirm.replicas)
    }

    /// Where it listens, with the port that the system chose.
    #[must_use]
    pub fn listen(&self) -> Listen {
        self.listener.place()
    }

    /// Where it listens for those who read from replicas.
    #[must_use]
    pub fn read_listen(&self) -> Option<Listen> {
        self.reads.as_ref().map(Listener::place)
    }

    /// Who tells when the master is known.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress(self.ears.clone())
    }

    /// Carries connections until `stop`; then all of them end.
    ///
    /// # Errors
    /// There is no such cluster, as far as those who were asked know; or no thread can be started.
    pub async fn run(self, stop: CancellationToken) -> Result<(), ProxyError> {
        let Self { settings, listener, reads, operator, told, ears } = self;
        let threads = Threads::start().map_err(ProxyError::Threads)?;
        let socks5 = Socks5::new(settings.socks5);
        let cluster = settings.cluster.clone();
        let follower = async {
            if let Some(nodes) = settings.nodes.clone() {
                nodes::follow(nodes, cluster, socks5.clone(), told).await
            } else {
                let lag = settings.max_lag.is_some();
                follow::follow(operator, cluster, socks5.clone(), lag, told).await
            }
        };
        let way = Way::new(socks5.clone());
        let (way_there, replicas) = (way.clone(), ears.readers.clone());
        let sparing = async move {
            way_there.spares.keep(&way_there, replicas).await;
        };
        let _sparing = AbortOnDropHandle::new(tokio::spawn(sparing));
        let writes = Writes {
            word: ears.word.clone(),
            way: way.clone(),
            wait: settings.master_wait,
            confirm: settings.confirm,
        };
        let reader = Reads {
            readers: ears.readers,
            word: ears.word,
            max_lag: settings.max_lag,
            way,
            wait: settings.master_wait,
            turn: AtomicUsize::new(0),
        };
        let limits = Limits { most: settings.max_connections, threads: &threads, stop: &stop };
        let serving = async {
            let reading = async {
                if let Some(reads) = reads {
                    serve(reads, Arc::new(reader), &limits).await;
                }
            };
            tokio::join!(serve(listener, Arc::new(writes), &limits), reading);
        };
        tokio::select! {
            error = follower => Err(error),
            () = serving => Ok(()),
        }
    }
}

/// Where connections come in.
#[derive(Debug)]
enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, PathBuf),
}

/// A connection of an application, on its way to the thread that carries it.
enum Accepted {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Accepted {
    /// For the thread on which this is called.
    fn open(self) -> std::io::Result<Either<TcpStream, UnixStream>> {
        Ok(match self {
            Self::Tcp(stream) => Either::Left(TcpStream::from_std(stream)?),
            Self::Unix(stream) => Either::Right(UnixStream::from_std(stream)?),
        })
    }
}

impl Listener {
    async fn bind(listen: &Listen) -> Result<Self, ProxyError> {
        let bound = match listen {
            Listen::Tcp(address) => TcpListener::bind(address)
                .await
                .and_then(|listener| Ok((listener.local_addr()?, listener)))
                .map(|(address, listener)| Self::Tcp(listener, address)),
            Listen::Unix(path) => {
                remove_dead(path).await;
                UnixListener::bind(path).map(|listener| Self::Unix(listener, path.clone()))
            }
        };
        bound.map_err(|source| ProxyError::Listen { listen: listen.clone(), source })
    }

    fn place(&self) -> Listen {
        match self {
            Self::Tcp(_, address) => Listen::Tcp(*address),
            Self::Unix(_, path) => Listen::Unix(path.clone()),
        }
    }

    async fn accept(&self) -> std::io::Result<Accepted> {
        Ok(match self {
            Self::Tcp(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                Accepted::Tcp(stream.into_std()?)
            }
            Self::Unix(listener, _) => Accepted::Unix(listener.accept().await?.0.into_std()?),
        })
    }

    /// Leaves the place. What another process put there meanwhile stays.
    async fn close(self) {
        if let Self::Unix(listener, path) = self {
            drop(listener);
            remove_dead(&path).await;
        }
    }
}

/// Removes a socket that nobody listens on. A file of another kind refuses connections too, and is
/// somebody's. Should this fail, binding says so.
async fn remove_dead(path: &Path) {
    let refused = |error: std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
    if is_socket(path) && UnixStream::connect(path).await.is_err_and(refused) {
        let _ = std::fs::remove_file(path);
    }
}

/// A socket itself, not what a link at that place leads to.
fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket())
}

/// What becomes of connections.
trait Carrier: Send + Sync + 'static {
    fn carry<S>(self: Arc<Self>, client: S) -> impl Future<Output = ()> + Send
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static;
}

/// They lead to the master.
struct Writes {
    word: watch::Receiver<Word>,
    way: Way,
    wait: Duration,
    confirm: Option<Confirm>,
}

impl Carrier for Writes {
    async fn carry<S>(self: Arc<Self>, client: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        carry::carry(client, self.word.clone(), self.way.clone(), self.wait, self.confirm).await;
    }
}

impl Carrier for Reads {
    async fn carry<S>(self: Arc<Self>, client: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Reads::carry(&self, client).await;
    }
}

/// How many connections are carried at a time, where, and until when.
struct Limits<'a> {
    most: usize,
    threads: &'a Threads,
    stop: &'a CancellationToken,
}

async fn serve(listener: Listener, carrier: Arc<impl Carrier>, limits: &Limits<'_>) {
    let Limits { most, threads, stop } = *limits;
    let (places, refusals) =
        (Arc::new(Semaphore::new(most)), Arc::new(Semaphore::new(MOST_REFUSALS)));
    // The set ends everything in it when it is dropped.
    let mut connections = JoinSet::new();
    let mut full = false;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
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
                    limit = most,
                    "too many connections; new ones are refused until others end"
                );
            }
            if let Ok(refusal) = refusals.clone().try_acquire_owned() {
                let refusing = async move {
                    if let Ok(stream) = stream.open() {
                        refuse::refuse(stream, refuse::TOO_MANY).await;
                    }
                    drop(refusal);
                };
                connections.spawn_on(refusing, threads.least_loaded());
            }
            continue;
        };
        full = false;
        let carrier = carrier.clone();
        let connection = async move {
            match stream.open() {
                Ok(stream) => carrier.carry(stream).await,
                Err(error) => tracing::warn!(%error, "a connection cannot be carried"),
            }
            drop(place);
        };
        connections.spawn_on(connection, threads.least_loaded());
    }
    drop(connections);
    listener.close().await;
}

#[cfg(test)]
mod ahead_tests;
#[cfg(test)]
mod carry_tests;
#[cfg(test)]
mod labels_tests;
#[cfg(test)]
mod reach_tests;
#[cfg(test)]
mod servers;
#[cfg(test)]
mod tests;
