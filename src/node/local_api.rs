//! tailscaled's LocalAPI, as far as a node needs it: its status.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;

/// tailscaled answers within this.
const ANSWER: Duration = Duration::from_secs(2);
/// A status with thousands of peers fits in.
const LONGEST: usize = 16 * 1024 * 1024;

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum LocalApiError {
    /// No answer, or none in time.
    #[error("tailscaled does not answer on its socket; it may be starting")]
    Away(#[from] reqwest::Error),
    /// An answer that is none.
    #[error("tailscaled's status cannot be read ({0}); is it a version that this image was not made for?")]
    Unreadable(String),
}

/// tailscaled's status.
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
    /// Health texts.
    pub health: Vec<String>,
    /// Address by FQDN (lower case, no trailing dot) of each peer in the netmap.
    pub peers: BTreeMap<String, Ipv4Addr>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawStatus {
    backend_state: String,
    #[serde(default)]
    have_node_key: bool,
    #[serde(rename = "Self")]
    own: Option<RawPeer>,
    health: Option<Vec<String>>,
    peer: Option<HashMap<String, RawPeer>>,
}

#[derive(Deserialize)]
struct RawPeer {
    #[serde(default, rename = "ID")]
    id: String,
    #[serde(default, rename = "DNSName")]
    dns_name: String,
    #[serde(rename = "TailscaleIPs")]
    ips: Option<Vec<IpAddr>>,
}

impl RawPeer {
    fn name(&self) -> String {
        self.dns_name.trim_end_matches('.').to_ascii_lowercase()
    }

    fn ip(&self) -> Option<Ipv4Addr> {
        self.ips.iter().flatten().find_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None })
    }
}

impl Status {
    /// Reads the JSON.
    pub fn parse(json: &[u8]) -> Result<Self, LocalApiError> {
        let raw: RawStatus = serde_json::from_slice(json).map_err(|error| LocalApiError::Unreadable(error.to_string()))?;
        let peers = raw.peer.iter().flatten().filter_map(|(_, peer)| Some((peer.name(), peer.ip()?))).filter(|(name, _)| !name.is_empty());
        Ok(Self {
            peers: peers.collect(),
            dns_name: raw.own.as_ref().map(RawPeer::name).unwrap_or_default(),
            ip: raw.own.as_ref().and_then(RawPeer::ip),
            device_id: raw.own.map(|own| own.id).unwrap_or_default(),
            backend_state: raw.backend_state,
            have_node_key: raw.have_node_key,
            health: raw.health.unwrap_or_default(),
        })
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
pub struct LocalApi {
    client: reqwest::Client,
}

impl LocalApi {
    /// Speaks to this socket.
    pub fn new(socket: &Path) -> Result<Self, LocalApiError> {
        Ok(Self { client: reqwest::Client::builder().unix_socket(socket).no_proxy().timeout(ANSWER).build()? })
    }

    /// Asks for the status.
    pub async fn status(&self) -> Result<Status, LocalApiError> {
        let mut answer = self.client.get("http://local-tailscaled.sock/localapi/v0/status").send().await?.error_for_status()?;
        let mut json = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            if json.len() + chunk.len() > LONGEST {
                return Err(LocalApiError::Unreadable(format!("longer than {LONGEST} bytes")));
            }
            json.extend_from_slice(&chunk);
        }
        Status::parse(&json)
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

    #[test]
    fn a_recorded_status_is_read() {
        let file: serde_json::Value = serde_json::from_str(include_str!("../../tests/vectors/localapi-status.json")).unwrap();
        let status = Status::parse(&serde_json::to_vec(&file).unwrap()).unwrap();
        assert_eq!(
            (status.backend_state.as_str(), status.dns_name.as_str(), status.device_id.as_str()),
            ("Running", "redis-1.mesh.test", "2")
        );
        assert_eq!(status.ip, Some(Ipv4Addr::new(100, 64, 0, 2)));
        assert_eq!(status.peers.get("redis-0.mesh.test"), Some(&Ipv4Addr::new(100, 64, 0, 42)));
    }

    #[test]
    fn a_status_before_login_is_read() {
        let status =
            Status::parse(br#"{"BackendState":"NeedsLogin","Self":{"DNSName":"","TailscaleIPs":null},"Peer":null,"Health":null}"#).unwrap();
        assert_eq!((status.backend_state.as_str(), status.have_node_key, status.peers.len()), ("NeedsLogin", false, 0));
    }
}
