//! Carries Redis' connection to its master: loopback alias -> tailscaled's SOCKS5 -> the master's
//! 100.x address.
//!
//! The SOCKS5 proxy is never given a name: one that is also in the hosts file would come back to
//! this forwarder for ever and exhaust tailscaled. A name that is not in the netmap is refused at
//! once.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::time::timeout;
use tokio_socks::tcp::Socks5Stream;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::hosts::Hosts;
use super::local_api::PeerLookup;
use super::spares::{self, GREETING, Spares};
use crate::mesh::dial::FIRST_DIAL;

/// Open connections at most. Redis needs one; running out of descriptors would kill tailscaled.
const OPEN: usize = 32;
/// Read at once: a full sync is bulk, and each piece costs two calls of the system.
const BUFFER: usize = 64 * 1024;
/// Dials in progress at most.
const PENDING: usize = 4;

/// Address by name of the peers in the netmap.
pub type Peers = Arc<BTreeMap<String, Ipv4Addr>>;

/// What Redis dials to reach a master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialled {
    /// A name, or a loopback address where names cannot be used.
    pub host: String,
    /// What this node lacks, when it is an address.
    pub lacks: Option<String>,
}

/// How Redis reaches a master.
pub enum Egress {
    /// Through this agent.
    Forwarder(Arc<Forwarder>),
    /// By itself: it runs under proxychains.
    Direct,
}

impl Egress {
    /// Makes the route to this master, the only one from now on; what Redis is to dial.
    pub async fn route(&self, name: &str) -> Result<Dialled, ForwarderError> {
        match self {
            Self::Forwarder(forwarder) => forwarder.route(name).await,
            Self::Direct => Ok(Dialled { host: name.to_owned(), lacks: None }),
        }
    }

    /// Closes all routes; what this node lacks when a trace of them stays.
    pub async fn close(&self) -> Option<String> {
        match self {
            Self::Forwarder(forwarder) => forwarder.close().await,
            Self::Direct => None,
        }
    }

    /// Dials a host that is no node of the cluster: over the mesh where it is one of its addresses
    /// or names, else as this machine reaches it.
    pub async fn dial(&self, host: &str, port: u16) -> std::io::Result<TcpStream> {
        match self {
            Self::Forwarder(forwarder) => forwarder.upstream.dial_outside(host, port).await,
            Self::Direct => TcpStream::connect((host, port)).await,
        }
    }

    /// Redis may be told to follow one of these within moments: the way there is made ready.
    pub fn expect(&self, names: &[String]) {
        if let Self::Forwarder(forwarder) = self {
            let upstream = &forwarder.upstream;
            for name in names.iter().filter(|name| upstream.spares.expect(name)) {
                tokio::spawn(make_ready(name.clone(), upstream.clone()));
            }
        }
    }
}

/// Why there is no route to a master.
#[derive(Debug, thiserror::Error)]
pub enum ForwarderError {
    /// The alias cannot be listened on.
    #[error(
        "cannot listen on {address} for redis' connection to its master; something else in this container uses the port"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The forwarder with its one route.
pub struct Forwarder {
    upstream: Upstream,
    hosts: Hosts,
    current: Mutex<Current>,
}

/// What a connection to the master needs.
#[derive(Clone)]
struct Upstream {
    socks: SocketAddr,
    port: u16,
    lookup: Arc<dyn PeerLookup>,
    peers: watch::Receiver<Peers>,
    open: Arc<Semaphore>,
    pending: Arc<Semaphore>,
    spares: Spares,
}

impl Upstream {
    async fn dial_outside(&self, host: &str, port: u16) -> std::io::Result<TcpStream> {
        let ip = if let Ok(ip) = host.parse::<IpAddr>() {
            Some(ip).filter(|ip| is_tailnet(*ip))
        } else {
            let name = host.trim_end_matches('.').to_ascii_lowercase();
            self.lookup.find(&name).await.map(IpAddr::V4)
        };
        let Some(ip) = ip else { return TcpStream::connect((host, port)).await };
        let stream = Socks5Stream::connect(self.socks, SocketAddr::from((ip, port))).await;
        Ok(stream.map_err(std::io::Error::other)?.into_inner())
    }
}

/// An address that a tailnet gives.
fn is_tailnet(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64,
        IpAddr::V6(ip) => ip.segments()[..3] == [0xfd7a, 0x115c, 0xa1e0],
    }
}

#[derive(Default)]
struct Current {
    route: Option<Route>,
    last_alias: u8,
}

struct Route {
    name: String,
    dialled: Dialled,
    /// Ends the listener and its connections.
    _end: DropGuard,
}

impl Forwarder {
    /// Listens on and dials `port`; `socks` is tailscaled's proxy, `peers` follows the netmap.
    #[must_use]
    pub fn new(
        socks: SocketAddr,
        port: u16,
        lookup: Arc<dyn PeerLookup>,
        peers: watch::Receiver<Peers>,
        hosts: Hosts,
    ) -> Self {
        let upstream = Upstream {
            socks,
            port,
            lookup,
            peers,
            open: Arc::new(Semaphore::new(OPEN)),
            pending: Arc::new(Semaphore::new(PENDING)),
            spares: Spares::default(),
        };
        Self { upstream, hosts, current: Mutex::default() }
    }

    /// See [`Egress::route`]. Each new name gets another alias, so that an old entry cached
    /// anywhere leads nowhere.
    pub async fn route(&self, name: &str) -> Result<Dialled, ForwarderError> {
        let mut current = self.current.lock().await;
        if let Some(route) = current.route.as_ref().filter(|route| route.name == name) {
            return Ok(route.dialled.clone());
        }
        // 127.0.1.1 is the machine's own name in many images.
        let number =
            if (2..254).contains(&current.last_alias) { current.last_alias + 1 } else { 2 };
        let alias = Ipv4Addr::new(127, 0, 1, number);
        let address = SocketAddr::from((alias, self.upstream.port));
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| ForwarderError::Listen { address, source })?;
        let dialled = match self.hosts.set(&[(alias, name)]) {
            Ok(()) => Dialled { host: name.to_owned(), lacks: None },
            Err(error) => Dialled {
                host: alias.to_string(),
                lacks: Some(format!(
                    "the hosts file cannot be written ({error}): redis is pointed at {alias} in place of {name}"
                )),
            },
        };
        let end = CancellationToken::new();
        tokio::spawn(accept(listener, name.to_owned(), self.upstream.clone(), end.clone()));
        current.last_alias = number;
        current.route =
            Some(Route { name: name.to_owned(), dialled: dialled.clone(), _end: end.drop_guard() });
        Ok(dialled)
    }

    /// Closes the route; see [`Egress::close`].
    pub async fn close(&self) -> Option<String> {
        let Route { name, dialled, .. } = self.current.lock().await.route.take()?;
        // What could not be written is not there to be taken away.
        let error = self.hosts.set(&[]).err().filter(|_| dialled.host == name)?;
        Some(format!(
            "the hosts file cannot be written ({error}): it still has the name of {name}, at an address where nobody listens"
        ))
    }
}

async fn accept(listener: TcpListener, name: String, upstream: Upstream, end: CancellationToken) {
    loop {
        let stream = tokio::select! {
            () = end.cancelled() => return,
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    // Out of descriptors: the pause keeps this loop from burning the CPU meanwhile.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                stream
            }
        };
        let Ok(permit) = upstream.open.clone().try_acquire_owned() else {
            reset(stream);
            continue;
        };
        let (name, upstream, end) = (name.clone(), upstream.clone(), end.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = end.cancelled() => {}
                () = carry(stream, &name, upstream) => {}
            }
            drop(permit);
        });
    }
}

async fn carry(mut local: TcpStream, name: &str, mut upstream: Upstream) {
    let _ = local.set_nodelay(true);
    let Some((ip, mut remote)) = connect(&mut local, name, &upstream).await else {
        return reset(local);
    };
    let left = async {
        loop {
            if upstream.peers.borrow_and_update().get(name) != Some(&ip) {
                return;
            }
            if upstream.peers.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let ended = tokio::select! {
        copied = copy_bidirectional_with_sizes(&mut local, &mut remote, BUFFER, BUFFER) => copied.is_ok(),
        // Nothing else ever closes a connection to a node that left the mesh.
        () = left => false,
    };
    if !ended {
        reset(local);
    }
}

/// A connection that was made ready and greeted, or a new one.
async fn connect(
    local: &mut TcpStream,
    name: &str,
    upstream: &Upstream,
) -> Option<(Ipv4Addr, TcpStream)> {
    let (ready, another) = upstream.spares.take(name);
    if another {
        // Redis asks more than once when it is not let in at first.
        tokio::spawn(make_ready(name.to_owned(), upstream.clone()));
    }
    let now_at = upstream.peers.borrow().get(name).copied();
    let mut said = Vec::new();
    if let Some(ready) = ready.filter(|(ip, _)| now_at == Some(*ip))
        && greets(local, &mut said).await?
    {
        return Some(ready);
    }
    let _permit = upstream.pending.try_acquire().ok()?;
    let (ip, mut remote) = dial(name, upstream).await?;
    remote.write_all(&said).await.ok()?;
    Some((ip, remote))
}

/// Reads what Redis says first, as far as it is the greeting; whether it is.
async fn greets(local: &mut TcpStream, said: &mut Vec<u8>) -> Option<bool> {
    let work = async {
        while said.len() < GREETING.len() {
            let mut more = local.take((GREETING.len() - said.len()) as u64);
            if more.read_buf(said).await.ok()? == 0 {
                return None;
            }
            if !GREETING.starts_with(said) {
                return Some(false);
            }
        }
        Some(true)
    };
    timeout(FIRST_DIAL, work).await.ok()?
}

async fn make_ready(name: String, upstream: Upstream) {
    let dialled = match dial(&name, &upstream).await {
        Some((ip, mut stream)) => stream.write_all(GREETING).await.ok().map(|()| (ip, stream)),
        None => None,
    };
    upstream.spares.keep(&name, dialled);
    tokio::time::sleep(spares::LIFE).await;
    upstream.spares.forget_old();
}

async fn dial(name: &str, upstream: &Upstream) -> Option<(Ipv4Addr, TcpStream)> {
    let work = async {
        let ip = upstream.lookup.find(name).await?;
        // The poll may be a moment behind this look-up; a connection must not be closed for that.
        let mut peers = upstream.peers.clone();
        let stream = Socks5Stream::connect(upstream.socks, SocketAddr::from((ip, upstream.port)))
            .await
            .ok()?
            .into_inner();
        // Acknowledgements and small writes must not wait for a full packet.
        let _ = stream.set_nodelay(true);
        peers.wait_for(|peers| peers.get(name) == Some(&ip)).await.ok()?;
        Some((ip, stream))
    };
    timeout(FIRST_DIAL, work).await.ok().flatten()
}

/// Closes with RST: Redis learns at once that there is no upstream.
fn reset(stream: TcpStream) {
    let _ = stream.set_zero_linger();
    drop(stream);
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use std::sync::atomic::{AtomicU16, Ordering};

    struct Fixed(BTreeMap<String, Ipv4Addr>);

    #[async_trait]
    impl PeerLookup for Fixed {
        async fn find(&self, name: &str) -> Option<Ipv4Addr> {
            self.0.get(name).copied()
        }
    }

    /// A SOCKS5 proxy that answers every CONNECT with success and then echoes; refuses names.
    async fn socks() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut hello = [0; 3];
                    stream.read_exact(&mut hello).await.unwrap();
                    stream.write_all(&[5, 0]).await.unwrap();
                    let mut request = [0; 10];
                    stream.read_exact(&mut request).await.unwrap();
                    assert_eq!(request[3], 1, "an address, never a name");
                    stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        address
    }

    fn port() -> u16 {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        20_000
            + u16::try_from(std::process::id() % 10_000).unwrap()
            + NEXT.fetch_add(1, Ordering::Relaxed)
    }

    async fn forwarder(dir: &std::path::Path) -> (Forwarder, watch::Sender<Peers>, u16) {
        let known = BTreeMap::from([("m.mesh".to_owned(), Ipv4Addr::new(100, 64, 0, 1))]);
        let (sender, peers) = watch::channel(Arc::new(known.clone()));
        let hosts = dir.join("hosts");
        std::fs::write(&hosts, "").unwrap();
        let port = port();
        let forwarder =
            Forwarder::new(socks().await, port, Arc::new(Fixed(known)), peers, Hosts::new(hosts));
        (forwarder, sender, port)
    }

    fn alias(dir: &std::path::Path) -> String {
        let text = std::fs::read_to_string(dir.join("hosts")).unwrap();
        text.lines().find(|l| l.starts_with("127.")).unwrap().split(' ').next().unwrap().to_owned()
    }

    #[tokio::test]
    async fn bytes_pass_until_the_peer_leaves_the_netmap() {
        let dir = tempfile::tempdir().unwrap();
        let (forwarder, peers, port) = forwarder(dir.path()).await;
        assert_eq!(
            forwarder.route("m.mesh").await.unwrap(),
            Dialled { host: "m.mesh".into(), lacks: None }
        );
        let mut stream = TcpStream::connect((alias(dir.path()), port)).await.unwrap();
        stream.write_all(b"ping").await.unwrap();
        let mut back = [0; 4];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"ping");
        peers.send(Peers::default()).unwrap();
        assert!(stream.read(&mut back).await.map_or(true, |n| n == 0), "closed by us");
    }

    #[tokio::test]
    async fn a_host_of_the_tailnet_is_dialled_by_its_proxy_and_any_other_directly() {
        let dir = tempfile::tempdir().unwrap();
        let (forwarder, _peers, port) = forwarder(dir.path()).await;
        let egress = Egress::Forwarder(Arc::new(forwarder));
        for host in ["100.101.102.103", "m.mesh", "M.mesh."] {
            let mut stream = egress.dial(host, port).await.unwrap();
            stream.write_all(b"echo").await.unwrap();
            let mut back = [0; 4];
            stream.read_exact(&mut back).await.unwrap();
            assert_eq!(&back, b"echo", "{host}");
        }
        let outside = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = outside.local_addr().unwrap();
        let _there = egress.dial("127.0.0.1", at.port()).await.unwrap();
        outside.accept().await.unwrap();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(is_tailnet(ip("100.64.0.1")) && is_tailnet(ip("fd7a:115c:a1e0::1")));
        assert!(!is_tailnet(ip("100.128.0.1")) && !is_tailnet(ip("203.0.113.5")));
    }

    #[tokio::test]
    async fn an_unknown_name_is_refused_and_a_new_route_ends_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let (forwarder, _peers, port) = forwarder(dir.path()).await;
        forwarder.route("m.mesh").await.unwrap();
        let first = alias(dir.path());
        let mut old = TcpStream::connect((first.as_str(), port)).await.unwrap();
        old.write_all(b"x").await.unwrap();
        old.read_exact(&mut [0; 1]).await.unwrap();
        forwarder.route("stranger.mesh").await.unwrap();
        assert_ne!(alias(dir.path()), first);
        assert!(old.read(&mut [0; 1]).await.map_or(true, |n| n == 0));
        let mut refused = TcpStream::connect((alias(dir.path()), port)).await.unwrap();
        let error = refused.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_connection_that_was_made_ready_is_used_and_another_one_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let (forwarder, _peers, port) = forwarder(dir.path()).await;
        let spares = forwarder.upstream.spares.clone();
        let ready = async |there: bool| {
            let work = async {
                while spares.has("m.mesh") != there {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            timeout(Duration::from_secs(10), work).await.expect("a spare");
        };
        let forwarder = Egress::Forwarder(Arc::new(forwarder));
        forwarder.expect(&["m.mesh".to_owned(), "stranger.mesh".to_owned()]);
        ready(true).await;
        forwarder.route("m.mesh").await.unwrap();
        let Egress::Forwarder(inner) = &forwarder else { unreachable!() };
        // Nobody else could be dialled any more.
        let _all = inner.upstream.pending.clone().acquire_many_owned(4).await.unwrap();
        for _ in 0..2 {
            let mut stream = TcpStream::connect((alias(dir.path()), port)).await.unwrap();
            let (first, second) = GREETING.split_at(5);
            stream.write_all(first).await.unwrap();
            stream.write_all(second).await.unwrap();
            stream.write_all(b"*2").await.unwrap();
            let mut answer = vec![0; GREETING.len() + 2];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, [GREETING, b"*2"].concat(), "it was said once");
            ready(true).await;
        }
    }

    #[tokio::test]
    async fn whoever_does_not_begin_with_the_greeting_gets_another_connection() {
        let dir = tempfile::tempdir().unwrap();
        let (forwarder, _peers, port) = forwarder(dir.path()).await;
        let spares = forwarder.upstream.spares.clone();
        let forwarder = Egress::Forwarder(Arc::new(forwarder));
        forwarder.expect(&["m.mesh".to_owned()]);
        let work = async {
            while !spares.has("m.mesh") {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(10), work).await.expect("a spare");
        forwarder.route("m.mesh").await.unwrap();
        let mut stream = TcpStream::connect((alias(dir.path()), port)).await.unwrap();
        stream.write_all(b"*1\r\n$4\r\nAUTH").await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"*1\r\n$4\r\nAUTH");
    }

    #[tokio::test]
    async fn a_connection_that_was_made_ready_and_ended_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let (forwarder, _peers, port) = forwarder(dir.path()).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        drop(listener.accept().await.unwrap());
        dialled.readable().await.unwrap();
        let spares = &forwarder.upstream.spares;
        assert!(spares.expect("m.mesh"));
        spares.keep("m.mesh", Some((Ipv4Addr::new(100, 64, 0, 1), dialled)));
        forwarder.route("m.mesh").await.unwrap();
        let mut stream = TcpStream::connect((alias(dir.path()), port)).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        stream.read_exact(&mut [0; 1]).await.unwrap();
    }

    #[tokio::test]
    async fn connections_are_capped() {
        let dir = tempfile::tempdir().unwrap();
        let (forwarder, _peers, port) = forwarder(dir.path()).await;
        forwarder.route("m.mesh").await.unwrap();
        let mut open = Vec::new();
        for _ in 0..OPEN {
            let mut stream = TcpStream::connect((alias(dir.path()), port)).await.unwrap();
            stream.write_all(b"x").await.unwrap();
            stream.read_exact(&mut [0; 1]).await.unwrap();
            open.push(stream);
        }
        let mut one_more = TcpStream::connect((alias(dir.path()), port)).await.unwrap();
        assert!(one_more.read(&mut [0; 1]).await.map_or(true, |n| n == 0));
    }

    #[tokio::test]
    async fn without_a_hosts_file_the_alias_itself_is_dialled_and_it_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let (forwarder, _peers, _) = forwarder(dir.path()).await;
        std::fs::remove_file(dir.path().join("hosts")).unwrap();
        let dialled = forwarder.route("m.mesh").await.unwrap();
        assert_eq!(dialled.host, "127.0.1.2");
        assert!(
            dialled.lacks.unwrap().contains("redis is pointed at 127.0.1.2 in place of m.mesh")
        );
        assert_eq!(forwarder.close().await, None, "there is nothing to take away");
    }
}
