//! What the tailnet's control API says.

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
