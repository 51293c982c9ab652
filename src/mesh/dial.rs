//! Connections to mesh addresses, through tailscaled's SOCKS5 proxy or straight.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_socks::tcp::Socks5Stream;

/// Enough for the first dial to a peer: a handshake that is lost because one side does not know the other yet is repeated after 5 s.
pub const FIRST_DIAL: Duration = Duration::from_secs(6);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The proxy itself is not there.
    #[error("the SOCKS5 proxy {proxy} of tailscaled is not reachable, so nothing on the mesh is; is tailscaled running?")]
    Proxy {
        /// Its address.
        proxy: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The proxy could not reach the address, or refused to.
    #[error("{to} is not reachable over the mesh; it is down, gone from the network map, or the policy does not allow the port")]
    Refused {
        /// Whom we wanted.
        to: SocketAddr,
        /// What the proxy said.
        source: tokio_socks::Error,
    },
    /// A straight connection failed.
    #[error("{to} is not reachable; it is down, or the way to it is")]
    Direct {
        /// Whom we wanted.
        to: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Not in time.
    #[error("{to} did not accept a connection within {limit:?}")]
    TimeOut {
        /// Whom we wanted.
        to: SocketAddr,
        /// How long we waited.
        limit: Duration,
    },
}

/// Connects to `ip`:`port` within `limit`, through `socks5` when given (a tailscaled without a network device is reached no other way).
///
/// It takes an address and never a name: a name that the proxy does not know goes to the host's resolver, which may point back at us.
pub async fn dial(socks5: Option<SocketAddr>, ip: IpAddr, port: u16, limit: Duration) -> Result<TcpStream, DialError> {
    let to = SocketAddr::new(ip, port);
    let connect = async {
        match socks5 {
            None => TcpStream::connect(to).await.map_err(|source| DialError::Direct { to, source }),
            Some(proxy) => {
                let stream = TcpStream::connect(proxy).await.map_err(|source| DialError::Proxy { proxy, source })?;
                let stream = Socks5Stream::connect_with_socket(stream, to).await.map_err(|source| DialError::Refused { to, source })?;
                Ok(stream.into_inner())
            }
        }
    };
    let stream = timeout(limit, connect).await.unwrap_or(Err(DialError::TimeOut { to, limit }))?;
    // Commands and small requests must not wait for a full packet. A socket that refuses the option still carries data.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}
