//! What a node needs of its own tailscaled: its name and address, and who its peers are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use async_trait::async_trait;

use crate::mesh::local::{LocalClient, LocalError, LocalPeer, LocalStatus};

/// The status of tailscaled, as far as a node needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// `NoState`, `NeedsLogin`, `NeedsMachineAuth`, `Stopped`, `Starting` or `Running`.
    pub backend_state: String,
    /// It is logged in, or was.
    pub have_node_key: bool,
    /// Own FQDN without trailing dot.
    pub dns_name: String,
    /// Own IPv4 address.
    pub ip: Option<Ipv4Addr>,
    /// Own device id.
    pub device_id: String,
    /// Complaints of tailscaled, in its own words.
    pub health: Vec<String>,
    /// Address by FQDN (lower case, no trailing dot) of each peer in the netmap.
    pub peers: BTreeMap<String, Ipv4Addr>,
    /// Device id of each peer in the netmap, whatever it is called.
    pub peer_ids: BTreeSet<String>,
}

impl From<LocalStatus> for Status {
    fn from(status: LocalStatus) -> Self {
        let name = |peer: &LocalPeer| peer.fqdn().to_ascii_lowercase();
        let ip = |peer: &LocalPeer| {
            peer.ip().and_then(|ip| if let IpAddr::V4(ip) = ip { Some(ip) } else { None })
        };
        let peers =
            status.peer.iter().flatten().filter_map(|(_, peer)| Some((name(peer), ip(peer)?)));
        let ids = status.peer.iter().flatten().map(|(_, peer)| peer.id.clone());
        Self {
            peer_ids: ids.filter(|id| !id.is_empty()).collect(),
            peers: peers.filter(|(name, _)| !name.is_empty()).collect(),
            dns_name: status.own.as_ref().map(name).unwrap_or_default(),
            ip: status.own.as_ref().and_then(ip),
            device_id: status.own.map(|own| own.id).unwrap_or_default(),
            backend_state: status.backend_state,
            have_node_key: status.have_node_key,
            health: status.health.unwrap_or_default(),
        }
    }
}

impl LocalApi {
    /// The client behind it, for more than the status.
    #[must_use]
    pub fn client(&self) -> LocalClient {
        self.0.clone()
    }
}

/// Finds the present address of a peer.
#[async_trait]
pub trait PeerLookup: Send + Sync {
    /// Its address, `None` when it is not in the netmap or the netmap cannot be read.
    async fn find(&self, name: &str) -> Option<Ipv4Addr>;
}

/// The LocalAPI on a unix socket.
#[derive(Clone, Debug)]
pub struct LocalApi(LocalClient);

impl LocalApi {
    /// Speaks to this socket.
    pub fn new(socket: &Path) -> Result<Self, LocalError> {
        LocalClient::new(socket).map(Self)
    }

    /// Asks for the status.
    pub async fn status(&self) -> Result<Status, LocalError> {
        self.0.status().await.map(Status::from)
    }
}

#[async_trait]
impl PeerLookup for LocalApi {
    async fn find(&self, name: &str) -> Option<Ipv4Addr> {
        self.status().await.ok()?.peers.get(&name.to_ascii_lowercase()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Status {
        serde_json::from_str::<LocalStatus>(json).unwrap().into()
    }

    #[test]
    fn a_recorded_status_is_read() {
        let status = read(include_str!("../../tests/vectors/headscale/localapi-status.json"));
        assert_eq!(
            (status.backend_state.as_str(), status.dns_name.as_str(), status.device_id.as_str()),
            ("Running", "redis-1.mesh.test", "2")
        );
        assert_eq!(status.ip, Some(Ipv4Addr::new(100, 64, 0, 2)));
        assert_eq!(status.peers.get("redis-0.mesh.test"), Some(&Ipv4Addr::new(100, 64, 0, 42)));
        assert_eq!(status.peer_ids.len(), status.peers.len());
    }

    #[test]
    fn a_status_before_login_is_read() {
        let status = read(
            r#"{"BackendState":"NeedsLogin","Self":{"DNSName":"","TailscaleIPs":null},"Peer":null,"Health":null}"#,
        );
        assert_eq!(
            (status.backend_state.as_str(), status.have_node_key, status.peers.len()),
            ("NeedsLogin", false, 0)
        );
    }
}
