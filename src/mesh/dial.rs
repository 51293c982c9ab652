//! Connections to mesh addresses, through tailscaled's SOCKS5 proxy or straight.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_socks::tcp::Socks5Stream;

/// Enough for the first dial to a peer: a handshake that is lost because one side does not know the
/// other yet is repeated after 5 s.
pub const FIRST_DIAL: Duration = Duration::from_secs(6);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The proxy itself is not there.
    #[error(
        "the SOCKS5 proxy {proxy} of tailscaled is not reachable, so nothing on the mesh is; is tailscaled running?"
    )]
    Proxy {
        /// Its address.
        proxy: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The proxy could not reach the address, or refused to.
    #[error(
        "{to} is not reachable over the mesh; it is down, gone from the network map, or the policy does not allow the port"
    )]
    Refused {
        /// Whom we wanted.
        to: String,
        /// What the proxy said.
        source: tokio_socks::Error,
    },
    /// A straight connection failed.
    #[error("{to} is not reachable; it is down, or the way to it is")]
    Direct {
        /// Whom we wanted.
        to: String,
        /// What the system said.
        source: io::Error,
    },
    /// Not in time.
    #[error("{to} did not accept a connection within {limit:?}")]
    TimeOut {
        /// Whom we wanted.
        to: String,
        /// How long we waited.
        limit: Duration,
    },
}

/// Connects to `ip`:`port` within `limit`, through `socks5` when given (a tailscaled without a
/// network device is reached no other way).
///
/// It takes an address and never a name: a name that the proxy does not know goes to the host's
/// resolver, which may point back at us.
pub async fn dial(
    socks5: Option<SocketAddr>,
    ip: IpAddr,
    port: u16,
    limit: Duration,
) -> Result<TcpStream, DialError> {
    dial_host(socks5, &ip.to_string(), port, limit).await
}

/// The same, by an address or a mesh name. Through `socks5` it is tailscaled that looks the name up:
/// no name server is needed. Not for programs on a node, whose hosts file holds the names of others:
/// see [`dial`].
pub async fn dial_host(
    socks5: Option<SocketAddr>,
    host: &str,
    port: u16,
    limit: Duration,
) -> Result<TcpStream, DialError> {
    let to =
        || if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let connect = async {
        match socks5 {
            None => TcpStream::connect((host, port))
                .await
                .map_err(|source| DialError::Direct { to: to(), source }),
            Some(proxy) => {
                let stream = TcpStream::connect(proxy)
                    .await
                    .map_err(|source| DialError::Proxy { proxy, source })?;
                let stream = Socks5Stream::connect_with_socket(stream, (host, port))
                    .await
                    .map_err(|source| DialError::Refused { to: to(), source })?;
                Ok(stream.into_inner())
            }
        }
    };
    let late = || Err(DialError::TimeOut { to: to(), limit });
    let stream = timeout(limit, connect).await.unwrap_or_else(|_| late())?;
    // Commands and small requests must not wait for a full packet. A socket that refuses the option
    // still carries data.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const LIMIT: Duration = Duration::from_secs(20);

    /// Plays the proxy for one connection: answers `reply` and gives back the address that was
    /// asked for.
    async fn proxy(reply: u8) -> (SocketAddr, tokio::task::JoinHandle<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut greeting = [0; 3];
            stream.read_exact(&mut greeting).await.unwrap();
            stream.write_all(&[5, 0]).await.unwrap();
            let mut request = vec![0; 10];
            stream.read_exact(&mut request).await.unwrap();
            stream.write_all(&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
            let _ = stream.write_all(b"hello").await;
            request
        });
        (address, task)
    }

    #[tokio::test]
    async fn the_proxy_gets_an_address_and_no_name() {
        let (address, task) = proxy(0).await;
        let mut stream =
            dial(Some(address), "100.64.0.42".parse().unwrap(), 9700, LIMIT).await.unwrap();
        let mut text = [0; 5];
        stream.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"hello");
        assert_eq!(task.await.unwrap(), [5, 1, 0, 1, 100, 64, 0, 42, 0x25, 0xe4]);
    }

    #[tokio::test]
    async fn a_name_is_for_tailscaled_to_look_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = vec![0; 3];
            stream.read_exact(&mut bytes).await.unwrap();
            stream.write_all(&[5, 0]).await.unwrap();
            let mut request = vec![0; 4 + 1 + 12 + 2];
            stream.read_exact(&mut request).await.unwrap();
            stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
            request
        });
        dial_host(Some(address), "cache-0.mesh", 26379, LIMIT).await.unwrap();
        let request = asked.await.unwrap();
        assert_eq!((request[3], &request[5..17]), (3, &b"cache-0.mesh"[..]));
    }

    #[tokio::test]
    async fn each_failure_says_what_is_wrong() {
        let (address, _task) = proxy(1).await;
        let error =
            dial(Some(address), "100.64.0.42".parse().unwrap(), 9700, LIMIT).await.unwrap_err();
        assert!(matches!(error, DialError::Refused { .. }), "{error}");
        // Bound and not listening: nobody else gets the port, and connections are refused.
        let nobody = tokio::net::TcpSocket::new_v4().unwrap();
        nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let closed = nobody.local_addr().unwrap();
        let error = dial(Some(closed), HERE, 9700, LIMIT).await.unwrap_err();
        assert!(matches!(error, DialError::Proxy { .. }), "{error}");
        let error = dial(None, HERE, closed.port(), LIMIT).await.unwrap_err();
        assert!(matches!(error, DialError::Direct { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_silent_proxy_is_given_up() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let error = dial(Some(silent.local_addr().unwrap()), HERE, 9700, Duration::from_millis(50))
            .await
            .unwrap_err();
        assert!(matches!(error, DialError::TimeOut { .. }), "{error}");
    }
}
