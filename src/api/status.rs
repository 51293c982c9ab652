//! What the operator publishes about a cluster.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conditions::{ConditionStatus, ConditionType, KnownBy, Phase, Reason};

/// The state of a cluster as last seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// Generation of the spec that this status speaks of.
    pub observed_generation: u64,
    /// One of each type.
    pub conditions: Vec<Condition>,
    /// The cluster's term.
    pub epoch: u64,
    /// The master that takes writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master: Option<Endpoint>,
    /// One entry per incarnation, by ordinal.
    pub nodes: Vec<NodeStatus>,
    /// What it costs.
    pub cost: Cost,
    /// What is waited for, each with its deadline and what happens then.
    pub waiting: Vec<Waiting>,
    /// The last failover.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failover: Option<FailoverStatus>,
    /// Reasons of everything that is wrong, the worst first, as `Degraded` tells them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Reason>,
    /// What may be lost, while the cluster waits for a person to say that it may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_stake: Option<AtStake>,
    /// The image that nodes run, and how many of them do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// Nodes that are master or in sync.
    pub ready_nodes: u32,
    /// The backups there are, where `spec.backup` says where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupStatus>,
}

/// The backups of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BackupStatus {
    /// The newest first, at most 100.
    pub backups: Vec<StoredBackup>,
    /// How many there are.
    pub count: u32,
    /// When the schedule wants the next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The one that is being taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<String>,
    /// Those that cannot be used, one sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unusable: Vec<String>,
    /// The last one that was restored to see that it can be, and had all that it was to have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<VerifiedBackup>,
    /// The one that is being restored for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verifying: Option<String>,
    /// The last attempt at that, if it came to nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_verification: Option<FailedVerification>,
}

/// A backup was restored to see that it can be, and could not be, or nothing was found out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FailedVerification {
    /// When it ended.
    pub at: String,
    /// Which backup, where, and why: one sentence.
    pub why: String,
}

/// A backup that was restored into a throw-away redis-server, and had all that it was to have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VerifiedBackup {
    /// Its name.
    pub id: String,
    /// When it was taken.
    pub taken: String,
    /// When it was restored.
    pub at: String,
    /// The node that did it.
    pub node: String,
    /// Keys that were restored.
    pub keys: u64,
    /// How long that took, seconds.
    pub seconds: u64,
}

/// A backup that is complete.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StoredBackup {
    /// Its name.
    pub id: String,
    /// When it was asked for.
    pub taken: String,
    /// The node that it was taken from.
    pub node: String,
    /// Keys in it.
    pub keys: u64,
    /// Bytes as it is stored.
    pub bytes: u64,
    /// The version of Redis or Valkey that wrote it.
    pub redis: String,
    /// It is of this cluster, and not of an earlier one of the same name, whose backups are never
    /// deleted.
    pub of_this_cluster: bool,
}

/// How far what nodes are started with is rolled out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutStatus {
    /// The image that is wanted.
    pub image: String,
    /// Nodes that run it, with everything else that they are to be started with.
    pub updated: u32,
    /// Of so many.
    pub nodes: u32,
}

impl Status {
    /// The condition of this type.
    #[must_use]
    pub fn condition(&self, kind: ConditionType) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.kind == kind)
    }

    /// Reasons of everything that is wrong.
    pub fn problems(&self) -> impl Iterator<Item = Reason> {
        // Older operators publish the worst one alone.
        let worst = self.condition(ConditionType::Degraded);
        let worst = worst.filter(|c| c.status == ConditionStatus::True).map(|c| c.reason);
        worst.into_iter().chain(self.problems.iter().copied())
    }

    /// The condition of this type is there and true.
    #[must_use]
    pub fn is_true(&self, kind: ConditionType) -> bool {
        self.condition(kind).is_some_and(|c| c.status == ConditionStatus::True)
    }
}

/// Where writes go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Epoch it is master of.
    pub epoch: u64,
    /// Incarnation.
    pub incarnation: String,
    /// Mesh host name.
    pub name: String,
    /// Mesh address.
    pub ip: String,
    /// Port.
    pub port: u16,
    /// A planned change has begun: writes stand still, or will at once, and whoever takes over is
    /// master of this epoch. None when nothing is planned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changing: Option<u64>,
    /// Incarnation that is to take over in that change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub successor: Option<String>,
}

/// A condition, as Kubernetes spells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: ConditionType,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// One word for programs.
    pub reason: Reason,
    /// One sentence for people.
    pub message: String,
    /// When the status last changed.
    pub last_transition_time: String,
}

/// One incarnation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    /// The node it fills.
    pub ordinal: u32,
    /// Its name.
    pub incarnation: String,
    /// How far it has come.
    pub phase: Phase,
    /// Deployment sequence.
    pub dseq: u64,
    /// Provider's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Host of the provider's gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_host: Option<String>,
    /// Region by the provider's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Cost per month of 30 days, e.g. `2.7act`, as measured when the status was last written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_per_month: Option<String>,
    /// Mesh host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mesh_name: Option<String>,
    /// Mesh address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mesh_ip: Option<String>,
    /// The version of Redis or Valkey that it runs: `7.0.15`, `valkey 8.1.8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Bytes behind the master under the same history, as measured when the status was last written;
    /// `akash-redis get` and the metrics have it of now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_bytes: Option<i64>,
    /// Seconds since the oldest write of the master that it did not acknowledge, as `lagBytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<u64>,
    /// What carries its traffic to the master, and the round trip, e.g. `direct, 0.6 ms`, as
    /// `lagBytes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// By which way this is known.
    pub known_by: KnownBy,
    /// Why it is in this phase, when there is something to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What a cluster costs. What is measured of it is as of when the status was last written, which is
/// within the hour; `akash-redis get` and the metrics have it of now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Cost {
    /// All active leases, per month of 30 days.
    pub per_month: String,
    /// The most allowed.
    pub max_per_month: String,
    /// Whose word that is: the manifest's, or a limit of the operator.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub limited_by: String,
    /// Held in escrow now.
    pub in_escrow: String,
    /// Paid to providers so far by all leases there ever were, those that are over too; never more
    /// than was paid into escrow.
    pub spent: String,
    /// Paid into the escrow of a new node, at the highest price that it may cost.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub deposit: String,
    /// The escrow that ends first pays for so long; empty while none is known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub runway: String,
}

/// Something that is waited for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Waiting {
    /// For what.
    pub what: String,
    /// Until when at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// What happens then.
    pub then: String,
}

/// The last failover, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FailoverStatus {
    /// Its epoch.
    pub epoch: u64,
    /// What was seen.
    pub reason: String,
    /// Who saw it.
    pub witnesses: Vec<String>,
    /// Old master.
    pub old: String,
    /// New master.
    pub new: String,
    /// Offset of each candidate.
    pub candidates: Vec<String>,
    /// How the old master was fenced.
    pub fence: String,
    /// Milliseconds after the decision, step by step.
    pub steps: Vec<String>,
    /// What may have been lost.
    pub lost: String,
    /// Who accepted that; empty where nobody had to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub accepted_by: String,
}

/// What a person gives up who accepts a loss now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AtStake {
    /// In this epoch.
    pub epoch: u64,
    /// The node that would become master, as far as can be told before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub takes_over: Option<String>,
    /// It lacks at least so many bytes that others were seen to have; unknown where their histories
    /// cannot be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lacks_bytes: Option<i64>,
    /// When it last heard its master: what was written after that it does not have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Nodes that may hold more and cannot be asked.
    pub missing: Vec<Missing>,
}

/// A node that cannot be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Missing {
    /// Its name.
    pub incarnation: String,
    /// Why not.
    pub why: String,
}
