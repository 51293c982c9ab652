//! A way out of a sandbox for one address: clients inside call it as they would outside.
//!
//! The two sides meet in a unix socket, which is a file and so the same on both. The outer side
//! connects, the inner side listens.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::{sleep, timeout};

use super::net::{Net, NetError};

/// Last number of the address that a host name has inside.
const NAMED: u8 = 2;
/// A peer that does not take a connection in this time is away.
const CONNECT: Duration = Duration::from_secs(5);

/// There is no way out.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The text is no address.
    #[error(
        "`{0}` is not an address that can be called; write it like http://127.0.0.1:9090 or https://grpc.example.org:443"
    )]
    Address(String),
    /// The sandbox's network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A socket.
    #[error("{address} cannot be listened on ({source}); end what uses it and start again")]
    Listen {
        /// Which.
        address: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Whom to call: a host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    host: String,
    port: u16,
}

impl Peer {
    /// The host and port of a URL.
    ///
    /// # Errors
    /// It is not `http://` or `https://`, names no host, or an IPv6 address.
    pub fn of_url(url: &str) -> Result<Self, RelayError> {
        let bad = || RelayError::Address(url.to_owned());
        let uri: http::Uri = url.parse().map_err(|_| bad())?;
        let default = match uri.scheme_str() {
            Some("http") => 80,
            Some("https") => 443,
            _ => return Err(bad()),
        };
        let host =
            uri.host().filter(|host| !host.is_empty() && !host.contains(':')).ok_or_else(bad)?;
        Ok(Self { host: host.to_owned(), port: uri.port_u16().unwrap_or(default) })
    }

    /// Where it is to be found inside a sandbox.
    async fn address(&self, net: &Net) -> Result<SocketAddr, RelayError> {
        let ip = match self.host.parse::<Ipv4Addr>() {
            Ok(ip) if ip.is_loopback() => ip,
            Ok(ip) => {
                net.add_local(ip).await?;
                ip
            }
            Err(_) if self.host == "localhost" => Ipv4Addr::LOCALHOST,
            Err(_) => {
                let ip = net.add_address(NAMED).await?;
                net.publish(&self.host, ip)?;
                ip
            }
        };
        Ok(SocketAddr::new(IpAddr::V4(ip), self.port))
    }
}

fn listen_failed(address: impl std::fmt::Display, source: std::io::Error) -> RelayError {
    RelayError::Listen { address: address.to_string(), source }
}

/// The outer side: connections that come to `socket` go on to `peer`. It runs until it is dropped.
///
/// # Errors
/// The socket cannot be made.
pub async fn outside(peer: Peer, socket: PathBuf) -> Result<Infallible, RelayError> {
    // What an earlier one left there; nothing listens any more.
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).map_err(|e| listen_failed(socket.display(), e))?;
    loop {
        let Ok((inner, _)) = listener.accept().await else {
            // Too many open files: tried again, but not in a tight loop.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let peer = peer.clone();
        tokio::spawn(async move {
            match timeout(CONNECT, TcpStream::connect((peer.host.as_str(), peer.port))).await {
                Ok(Ok(outer)) => join(inner, outer).await,
                Ok(Err(error)) => {
                    tracing::debug!(host = peer.host, port = peer.port, %error, "the chain's node takes no connection");
                }
                Err(_) => tracing::debug!(
                    host = peer.host,
                    port = peer.port,
                    "the chain's node does not answer"
                ),
            }
        });
    }
}

/// The inner side: makes `peer` answer at its own address inside the sandbox, by way of `socket`,
/// for as long as the runtime lives.
///
/// # Errors
/// The address cannot be added or is taken.
pub async fn inside(peer: &Peer, net: &Net, socket: &Path) -> Result<(), RelayError> {
    let address = peer.address(net).await?;
    let listener = TcpListener::bind(address).await.map_err(|e| listen_failed(address, e))?;
    let socket = socket.to_owned();
    tokio::spawn(async move {
        loop {
            let Ok((inner, _)) = listener.accept().await else {
                sleep(Duration::from_millis(50)).await;
                continue;
            };
            let socket = socket.clone();
            tokio::spawn(async move {
                // Nobody there: the connection is closed, which the client understands.
                if let Ok(outer) = UnixStream::connect(&socket).await {
                    join(inner, outer).await;
                }
            });
        }
    });
    Ok(())
}

async fn join(
    mut a: impl AsyncRead + AsyncWrite + Unpin,
    mut b: impl AsyncRead + AsyncWrite + Unpin,
) {
    // Either side may hang up at any time.
    let _ = copy_bidirectional(&mut a, &mut b).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn a_url_names_a_peer() {
        let peer = |host: &str, port| Peer { host: host.into(), port };
        for (url, expected) in [
            ("http://127.0.0.1:36090", peer("127.0.0.1", 36090)),
            ("https://grpc.example.org:443", peer("grpc.example.org", 443)),
            ("https://grpc.example.org", peer("grpc.example.org", 443)),
        ] {
            assert_eq!(Peer::of_url(url).expect("good"), expected);
        }
        for bad in ["127.0.0.1:9090", "tcp://a:1", "http://", "http://[::1]:9090", ""] {
            assert!(Peer::of_url(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn what_comes_to_the_socket_reaches_the_peer() {
        let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = server.local_addr().expect("an address").port();
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("s");
        let relay = tokio::spawn(outside(Peer { host: "127.0.0.1".into(), port }, socket.clone()));
        let client = async {
            let mut client = loop {
                match UnixStream::connect(&socket).await {
                    Ok(client) => break client,
                    Err(_) => tokio::task::yield_now().await,
                }
            };
            client.write_all(b"ping").await.expect("written");
            let mut answer = [0; 4];
            client.read_exact(&mut answer).await.expect("an answer");
            answer
        };
        let echo = async {
            let (mut stream, _) = server.accept().await.expect("a connection");
            let mut asked = [0; 4];
            stream.read_exact(&mut asked).await.expect("a question");
            stream.write_all(b"pong").await.expect("answered");
            asked
        };
        let (answer, asked) = tokio::join!(client, echo);
        assert_eq!((&asked, &answer), (b"ping", b"pong"));
        relay.abort();
    }
}
