//! What an operator without its record finds of its clusters, and what it pays for or could be
//! reached by that stands in no record: for people.

use serde::{Deserialize, Serialize};

use super::quantity::Money;

/// What was found of the clusters that no record knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RecoverReport {
    /// Follows from the root secret.
    pub installation: String,
    /// By name.
    pub clusters: Vec<FoundCluster>,
    /// What else is to be said, one sentence each.
    pub notes: Vec<String>,
}

/// A cluster that no record knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FoundCluster {
    /// By the groups of its deployments.
    pub name: String,
    /// Where its manifest comes from, one phrase; empty when there is none.
    pub manifest: String,
    /// Who is master.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
    /// The highest epoch that was seen.
    pub epoch: u64,
    /// The one that it goes on with.
    pub next_epoch: u64,
    /// What fills its nodes.
    pub nodes: Vec<FoundNode>,
    /// What is missing or contradictory, one sentence each.
    pub problems: Vec<String>,
    /// Why it cannot be taken over now, one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Its object and its record are written.
    pub written: bool,
}

/// A deployment with its node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FoundNode {
    /// Which node it fills.
    pub ordinal: u32,
    /// What fills it.
    pub incarnation: String,
    /// Its deployment.
    pub dseq: u64,
    /// Who runs it; none where it has no lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Its device on the tailnet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The highest epoch that its agent obeyed; none when it does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// What its redis is, one phrase.
    pub role: String,
    /// Generation of the manifest that it keeps; none when it keeps none that counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}

/// What this installation has in the outside world and no record knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OrphanReport {
    /// By cluster and name.
    pub orphans: Vec<Orphan>,
    /// Incarnations that stand in a record and are being closed.
    pub closing: Vec<String>,
    /// What could not be looked at, one sentence each: there may be more.
    pub unseen: Vec<String>,
}

/// What is left of one incarnation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Orphan {
    /// Its name, which is used once and never again.
    pub incarnation: String,
    /// The cluster that it names.
    pub cluster: String,
    /// No record knows anything of that cluster: it may be recovered.
    pub recoverable: bool,
    /// Its deployment, which is active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dseq: Option<u64>,
    /// When its deployment was made, or else its device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// What its lease costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_per_month: Option<Money>,
    /// What its escrow holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub escrow: Option<Money>,
    /// Tag of its device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Ids of its devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// Ids of its auth keys that can still be used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
}
