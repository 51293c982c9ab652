//! Who a node is: the content of the one variable in its manifest.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How Redis reaches its master.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Egress {
    /// Through the agent's forwarder on loopback.
    #[default]
    Forwarder,
    /// Redis runs under proxychains4 and dials for itself. While its master cannot be reached it
    /// answers nobody for up to 1.5 s at a time.
    Proxychains,
}

/// The variable's name.
pub const NODE_VARIABLE: &str = "AKASH_REDIS_NODE";

/// A second variable: the word for what the container is started with, which the agent reports. It is
/// none of the identity's fields, because an agent of an earlier version refuses those that it does
/// not know.
pub const REVISION_VARIABLE: &str = "AKASH_REDIS_REVISION";

/// Value of [`NODE_VARIABLE`]: compact JSON. The provider can read it, so it holds secrets of this
/// one node only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NodeIdentity {
    /// Installation it belongs to.
    pub installation: String,
    /// Name of the incarnation.
    pub incarnation: String,
    /// Mesh host name to ask for.
    pub hostname: String,
    /// Epochs below this one are not obeyed, whatever the state file says.
    pub epoch_floor: u64,
    /// One-off auth key; spent after the first login. Empty where the node's mesh state is on its
    /// volume: it needs none.
    pub auth_key: String,
    /// Control server, when it is not Tailscale's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_server: Option<String>,
    /// PEM of the installation's CA.
    pub ca: String,
    /// PEM of this node's server certificate.
    pub certificate: String,
    /// PEM of its key; it signs the status page too.
    pub key: String,
    /// How Redis reaches its master.
    pub egress: Egress,
    /// Have the mesh carry port 6379 by `tailscale serve` too. Left out when it is off: an older
    /// agent refuses a field that it does not know.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub serve: bool,
    /// Have the node host the service of the tailnet that is called as the cluster. Left out when it is
    /// off, as above.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub service: bool,
    /// Container memory, bytes.
    pub memory_bytes: u64,
    /// A data volume is mounted at `/data`.
    pub persistent: bool,
    /// Settings that Redis takes when it starts, and never after. Left out when there are none: an
    /// older agent refuses a field that it does not know.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub startup: BTreeMap<String, String>,
}

impl std::fmt::Debug for NodeIdentity {
    /// Without the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeIdentity")
            .field("incarnation", &self.incarnation)
            .field("hostname", &self.hostname)
            .finish_non_exhaustive()
    }
}
