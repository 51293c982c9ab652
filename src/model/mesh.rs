//! What the tailnet's control API says.

use std::collections::BTreeMap;

use super::time::UnixMs;

/// Devices and keys of this installation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshView {
    /// Devices whose host name carries our installation id.
    pub devices: Vec<Device>,
    /// Auth keys whose description carries our installation id.
    pub keys: Vec<AuthKey>,
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
