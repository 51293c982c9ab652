//! What the inventory says about one incarnation.

use super::builder::PlanBuilder;
use crate::model::chain::{DeploymentView, GroupState, LeaseState, LeaseView};
use crate::model::ids::IncarnationName;
use crate::model::inventory::LeaseStatus;
use crate::model::mesh::{Device, MeshView};
use crate::model::node::{NodeState, Process, RedisState};
use crate::model::time::UnixMs;

/// How far an incarnation has come, by what is seen now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The chain does not answer and the node is not connected: nothing is known.
    Unknown,
    /// Not on the chain yet.
    Reserved,
    /// On the chain with an open order.
    Bidding,
    /// Leased, its provider has no manifest yet.
    Leased,
    /// Leased, and the provider's gateway does not answer.
    GatewayAway(String),
    /// The provider has the manifest; the node never reported.
    Delivered,
    /// The node reported once, and is silent now.
    Unreachable,
    /// The node's agent speaks to us.
    Connected,
    /// Closed for good by somebody else; its volume is gone.
    Lost(String),
}

/// The active lease of a deployment.
pub fn active_lease(deployment: &DeploymentView) -> Option<&LeaseView> {
    deployment
        .leases
        .iter()
        .rev()
        .find(|l| matches!(l.state, LeaseState::Active | LeaseState::Reclaiming))
}

/// How far `name` has come.
pub fn stage(builder: &PlanBuilder<'_>, name: &IncarnationName) -> Stage {
    let Some(incarnation) = builder.incarnation(name) else { return Stage::Unknown };
    let inventory = builder.input.inventory;
    let connected = builder.connected(name).is_some();
    let Some(chain) = inventory.chain.present() else {
        return match (connected, incarnation.has_joined()) {
            (true, _) => Stage::Connected,
            (false, true) => Stage::Unreachable,
            (false, false) => Stage::Unknown,
        };
    };
    let Some(deployment) = chain.deployments.get(&incarnation.dseq) else {
        // A deployment that once held a node does not vanish from the chain: a reading without it
        // is not believed.
        return if incarnation.has_joined() {
            if connected { Stage::Connected } else { Stage::Unreachable }
        } else {
            Stage::Reserved
        };
    };
    if !is_own(builder, name, deployment) {
        return Stage::Lost(format!(
            "deployment {} is not its own (group {})",
            incarnation.dseq, deployment.group_name
        ));
    }
    if !deployment.active {
        let why = if deployment.group == GroupState::InsufficientFunds {
            "its escrow was used up"
        } else {
            "its deployment was closed by somebody else who has the wallet's key"
        };
        return Stage::Lost(why.to_owned());
    }
    let Some(lease) = active_lease(deployment) else {
        return match (deployment.open_order, deployment.leases.last()) {
            (Some(_), None) => Stage::Bidding,
            (_, Some(lease)) => {
                Stage::Lost(format!("its lease was closed ({})", close_reason(lease.reason)))
            }
            (None, None) => Stage::Lost("its order was closed".to_owned()),
        };
    };
    if connected {
        return Stage::Connected;
    }
    if incarnation.has_joined() {
        return Stage::Unreachable;
    }
    match inventory.leases.get(&lease.id) {
        None | Some(LeaseStatus::NoManifest) => Stage::Leased,
        Some(LeaseStatus::Deployed { .. }) => Stage::Delivered,
        Some(LeaseStatus::Away(why)) => Stage::GatewayAway(why.clone()),
    }
}

/// The deployment carries the name of this very incarnation: whatever a record says, nothing else
/// of it is ever touched.
pub fn is_own(
    builder: &PlanBuilder<'_>,
    name: &IncarnationName,
    deployment: &DeploymentView,
) -> bool {
    deployment.group_name == name.group_name(&builder.input.constants.installation)
}

/// The chain's reason numbers in words (market/v1 `LeaseClosedReason`).
pub fn close_reason(reason: u32) -> &'static str {
    match reason {
        1 => "by somebody else who has the wallet's key",
        10_000 => "by the provider: unstable",
        10_001 => "by the provider: decommissioned",
        10_003 => "by the provider: no manifest in time",
        20_000 => "its escrow was used up",
        10_002..20_000 => "by the provider, without a reason",
        _ => "reason unknown",
    }
}

/// The lease was closed by the provider, not by its owner and not for want of money.
pub fn left_by_provider(builder: &PlanBuilder<'_>, name: &IncarnationName) -> bool {
    let chain = builder.input.inventory.chain.value.as_ref();
    let deployment = builder.incarnation(name).and_then(|i| chain?.deployments.get(&i.dseq));
    deployment.and_then(|d| d.leases.last()).is_some_and(|l| (10_000..20_000).contains(&l.reason))
}

/// Since when a node's silence counts against it: when it was last heard, and at the earliest since
/// the operator could hear it, because it has started and is on the mesh itself.
pub fn last_heard(builder: &PlanBuilder<'_>, name: &IncarnationName) -> UnixMs {
    let able = builder.input.constants.started.max(builder.input.inventory.own_mesh.since);
    builder.view(name).map_or(able, |v| v.heard.max(able))
}

/// The devices of a node that `mesh` knows.
pub fn devices<'a>(
    builder: &PlanBuilder<'_>,
    mesh: &'a MeshView,
    name: &IncarnationName,
) -> Vec<&'a Device> {
    let reported = builder.incarnation(name).and_then(|i| i.device.as_deref());
    let tags = builder.input.tags;
    mesh.devices_of(
        &name.hostname(&builder.input.constants.installation),
        reported,
        [tags.cluster, tags.quarantine],
    )
}

/// The device that a node's agent speaks from. It is believed once the tailnet's list shows it under
/// the node's name with a tag that only our keys give: an agent may name any.
pub fn own_device(builder: &PlanBuilder<'_>, name: &IncarnationName) -> Option<String> {
    let mesh = builder.input.inventory.mesh.present()?;
    let claimed = &builder.connected(name)?.mesh.device_id;
    let tags = builder.input.tags;
    let hostname = name.hostname(&builder.input.constants.installation);
    mesh.devices_of(&hostname, None, [tags.cluster, tags.quarantine])
        .iter()
        .any(|d| &d.id == claimed)
        .then(|| claimed.clone())
}

/// Redis there answers and has its data.
pub fn running(redis: &RedisState) -> bool {
    redis.process == Process::Running && !redis.loading
}

/// Mesh FQDN of a node, once it is on the mesh.
pub fn fqdn(state: &NodeState) -> Option<&str> {
    (!state.mesh.dns_name.is_empty()).then_some(state.mesh.dns_name.as_str())
}
