//! The providers that the operator met, as they are shown to people.

use serde::{Deserialize, Serialize};

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProviderList {
    /// By address.
    pub items: Vec<ProviderReport>,
}

/// One provider, and what was lived through with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProviderReport {
    /// Address of its account.
    pub provider: String,
    /// Host of its gateway, while a node of ours runs there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Incarnations that run or start there now.
    pub nodes: Vec<String>,
    /// What carries the traffic of one of them to its master, and the round trip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Its bids on our orders.
    pub bids: u32,
    /// Those that were chosen.
    pub won: u32,
    /// Nodes that came up there.
    pub started: u32,
    /// Leases whose node never came up.
    pub failed_starts: u32,
    /// Nodes that ran there and were lost by it.
    pub incidents: u32,
    /// Troubles of late: each failed start and incident counts 1 and fades by half in two weeks.
    pub trouble: String,
    /// There were several of late: it is left, and taken when nobody else bids.
    pub avoided: bool,
    /// What it asked last for a node, per month.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_price: Option<String>,
    /// When it was last heard of.
    pub seen: String,
}
