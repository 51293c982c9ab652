//! The port of the SOCKS5 proxy of the operator's tailscaled: one of its own, or that of a
//! tailscaled which an earlier operator left running.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

use super::AccessError;
use super::state_dir::StateDir;
use crate::mesh::tailscaled::command::SOCKS5_FLAG;
use crate::mesh::tailscaled::{Adopted, listener};

/// A port on loopback that is kept for tailscaled.
#[derive(Debug)]
pub(super) struct SocksPort {
    pub(super) address: SocketAddr,
    /// Bound and never listened on: the system gives the port to nobody, and tailscaled, which
    /// shares addresses too, can listen on it.
    held: Option<TcpSocket>,
}

impl SocksPort {
    pub(super) fn any() -> Result<Self, AccessError> {
        let socket = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).map_err(AccessError::Port)?;
        let address = socket.local_addr().map_err(AccessError::Port)?;
        Ok(Self { address, held: Some(socket) })
    }

    /// The port of a tailscaled that listens on it already.
    pub(super) fn of(address: SocketAddr) -> Self {
        Self { address, held: None }
    }

    /// Before tailscaled starts anew. Where it fails somebody was faster, and tailscaled's own
    /// output says so.
    pub(super) fn hold(&mut self) {
        if self.held.is_none() {
            self.held = bind(self.address).ok();
        }
    }
}

fn bind(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// A tailscaled that an earlier operator left running, and the proxy that it serves. One whose
/// proxy is not known is of no use.
pub(super) async fn left_running(state_dir: &StateDir) -> Option<(Adopted, SocketAddr)> {
    let socket = state_dir.socket();
    let pid = listener(&socket).await?;
    let arguments = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).ok()?;
    let socks5 = proxy_of(&arguments)?;
    Some((Adopted { pid, socket }, socks5))
}

/// The proxy in a command line as the kernel shows it.
fn proxy_of(arguments: &[u8]) -> Option<SocketAddr> {
    let mut words = arguments.split(|byte| *byte == 0);
    words.find_map(|word| std::str::from_utf8(word).ok()?.strip_prefix(SOCKS5_FLAG)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_is_kept_can_be_listened_on_by_who_shares_addresses() {
        let port = SocksPort::any().unwrap();
        let daemon = bind(port.address).unwrap();
        let _listening = daemon.listen(8).unwrap();
        assert!(std::net::TcpStream::connect(port.address).is_ok());
    }

    #[test]
    fn the_proxy_is_read_from_the_command_line() {
        let line = b"/usr/sbin/tailscaled\0--tun=userspace-networking\0--socks5-server=127.0.0.1:40123\0--statedir=/d\0";
        assert_eq!(proxy_of(line), "127.0.0.1:40123".parse().ok());
        assert_eq!(proxy_of(b"tailscaled\0"), None);
    }
}
