//! What the tailnet's control API says.

use std::collections::BTreeMap;
use std::time::Duration;

use super::time::UnixMs;

/// An auth key can be used for so long: it is minted when there is a lease, so this covers the manifest, the start and the first login.
pub const KEY_LIFE: Duration = Duration::from_hours(1);

/// Devices and keys of this installation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshView {
    /// Devices whose host name carries our installation id.
    pub devices: Vec<Device>,
    /// Auth keys whose description carries our installation id.
    pub keys: Vec<AuthKey>,
}

impl MeshView {
    /// The devices of one node: the one that its agent reported, and whatever else has its host name and one of `tags`, which only our keys
    /// give. A stranger's device may have taken the host name; it is none of ours.
    #[must_use]
    pub fn devices_of(&self, hostname: &str, reported: Option<&str>, tags: [&str; 2]) -> Vec<&Device> {
        let tagged = |d: &Device| d.tags.iter().any(|t| tags.contains(&t.as_str()));
        self.devices.iter().filter(|d| reported == Some(d.id.as_str()) || (d.hostname == hostname && tagged(d))).collect()
    }
}

/// A device on the tailnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The API's `nodeId`, the LocalAPI's `Self.ID`.
    pub id: String,
    /// Host name it asked for.
    pub hostname: String,
    /// MagicDNS FQDN without trailing dot.
    pub name: String,
    /// Its 100.x address.
    pub ip: String,
    /// Tags in force.
    pub tags: Vec<String>,
    /// Registration time, when the API gives one.
    pub created: Option<UnixMs>,
    /// Its node key is in use from two places at once: its state was copied.
    pub multiple_connections: bool,
}

/// An auth key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthKey {
    /// The API's key id.
    pub id: String,
    /// Our description.
    pub description: String,
    /// Used up, revoked or expired.
    pub invalid: bool,
}

/// How the operator itself stands on the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnMesh {
    /// Why it is not on the mesh, one sentence; none when it is, or when nobody can tell.
    pub error: Option<String>,
    /// Since when it is on the mesh, or off it.
    pub since: UnixMs,
    /// Address by host name of the peers that its tailscaled last saw.
    pub peers: BTreeMap<String, String>,
}
