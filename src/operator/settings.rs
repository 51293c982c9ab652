//! What does not change while the operator runs.

use std::time::Duration;

use crate::api::types::{RedisCluster, Runway};
use crate::model::image::NodeImage;
use crate::model::inventory::Constants;
use crate::model::money::Uact;
use crate::plan::{GasPrice, Timing};
use crate::secrets::RootSecret;

/// What the controller works with.
#[derive(Clone)]
pub struct Settings {
    /// Installation, owner, term.
    pub constants: Constants,
    /// Everything secret is derived from it.
    pub root: RootSecret,
    /// Image of the nodes whose manifest names none.
    pub image: NodeImage,
    /// Tag of the nodes' devices when the manifest names none.
    pub mesh_tag: String,
    /// Tag under which a node is reached by the operator alone.
    pub quarantine_tag: String,
    /// Control server the nodes log in to, when it is not Tailscale's own.
    pub login_server: Option<String>,
    /// Per month, for a cluster whose manifest names no budget.
    pub budget_per_cluster: Uact,
    /// Per month, for all clusters together.
    pub budget_global: Uact,
    /// When escrows are filled, and for how long, for a cluster whose manifest does not say.
    pub runway: Runway,
    /// What gas costs.
    pub gas_price: GasPrice,
    /// How long things may take.
    pub timing: Timing,
    /// Chain, tailnet and gateways are read, and each cluster is planned, at least so often.
    pub tick: Duration,
}

impl Settings {
    /// Tag of the devices of a cluster.
    #[must_use]
    pub fn tag_of<'a>(&'a self, cluster: &'a RedisCluster) -> &'a str {
        cluster.spec.mesh.tag.as_deref().unwrap_or(&self.mesh_tag)
    }
}
