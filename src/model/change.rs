//! A change of master: what must be remembered of it while it goes on, and what is told of it after.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ids::IncarnationName;
use super::step::Quorum;
use super::time::UnixMs;

/// A change of master in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant)] // there is one of it in a record, and most often none
pub enum Change {
    /// The master is taken for dead and another one is promoted; writes may be lost.
    Failover(Failover),
    /// The master stops for another one; no write is lost.
    Switchover(Switchover),
}

/// An unplanned change of master, `safety.md` section 4 step by step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failover {
    /// Epoch of this change.
    pub epoch: u64,
    /// The master that is given up.
    pub old: IncarnationName,
    /// Epoch it was master of.
    pub old_epoch: u64,
    /// What was seen.
    pub reason: String,
    /// Who saw it.
    pub witnesses: Vec<String>,
    /// When the epoch was written.
    pub started: UnixMs,
    /// Counted before anything was touched.
    pub eligible: Vec<Eligible>,
    /// Members that may still be attached to the old master: those that are not known to have been
    /// detached.
    pub unaccounted: Vec<IncarnationName>,
    /// Members that were detached under this epoch, and when that was known: they do not attach to
    /// the old master again.
    #[serde(default)]
    pub detached_at: BTreeMap<IncarnationName, UnixMs>,
    /// The weakest quorum that may be in force on the old master.
    #[serde(default)]
    pub quorum: Quorum,
    /// The start of the old master's agent whose word counts for its redis; empty when any does.
    #[serde(default)]
    pub boot_id: String,
    /// Under `durability: confirmed`: replicas that could have confirmed a write of the old master.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confirmers: Vec<IncarnationName>,
    /// A person accepted the loss of what cannot be asked for.
    #[serde(default)]
    pub loss_accepted: bool,
    /// Who accepted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_by: Option<String>,
    /// Who is to take over by that word, if it is one of those that were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IncarnationName>,
    /// How the old master was fenced.
    pub fence: Option<Fence>,
    /// Nodes that still saw the old master long after it had been put in quarantine.
    #[serde(default, rename = "deaf")]
    pub stale_netmaps: Vec<IncarnationName>,
}

/// A replica that was online with the dying master until it was lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eligible {
    /// The replica.
    pub incarnation: IncarnationName,
    /// The redis process that was online; another one counts for nothing.
    pub run_id: String,
    /// Its applied offset when it was counted.
    pub offset: i64,
}

/// Proof that the old master takes no more writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// How it is known that it takes no writes, in words for the report.
    pub how: String,
    /// When that was seen.
    pub at: UnixMs,
}

/// A planned change of master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switchover {
    /// Epoch of this change.
    pub epoch: u64,
    /// Present master.
    pub source: IncarnationName,
    /// Master to be.
    pub target: IncarnationName,
    /// When the epoch was written.
    pub started: UnixMs,
    /// Not promoted by then: undone.
    pub deadline: UnixMs,
    /// The deadline passed before a choice was written: the source takes writes again under this
    /// new epoch.
    pub undo: bool,
    /// Replicas that are attached to the target before the source is fenced, and acknowledge nothing
    /// to the source since then. Empty where none can be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chained: Vec<IncarnationName>,
    /// Since when the source is to be fenced; none before, and in a record of an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fenced: Option<UnixMs>,
    /// When the source took no writes, the target had all of them, and was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<UnixMs>,
    /// The target may become master by itself, since it was told to; none before, and once it has
    /// acknowledged a higher epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegated: Option<Delegated>,
}

/// A choice that takes effect when the source hands over to the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegated {
    /// The epoch of which the target becomes master.
    pub epoch: u64,
    /// When it was written.
    pub at: UnixMs,
    /// The redis process that was chosen.
    pub run_id: String,
    /// The start of its agent.
    pub boot_id: String,
    /// In force from its first write on.
    pub quorum: Quorum,
}

impl Switchover {
    /// The target is made ready, and replicas are attached to it; the source takes writes.
    #[must_use]
    pub fn prepares(&self) -> bool {
        self.fenced.is_none()
    }

    /// Since when writes stand still.
    #[must_use]
    pub fn stands_since(&self) -> UnixMs {
        self.fenced.unwrap_or(self.started)
    }
}

/// What a failover did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverReport {
    /// Epoch that the failover began.
    pub epoch: u64,
    /// What was seen.
    pub reason: String,
    /// Who saw it.
    pub witnesses: Vec<String>,
    /// The old master.
    pub old: String,
    /// The new one.
    pub new: String,
    /// `incarnation: offset` of each candidate.
    pub candidates: Vec<String>,
    /// How the old master was fenced.
    pub fence: String,
    /// Written, detached, fenced, promoted, all following: milliseconds since the epoch was
    /// written.
    pub steps_ms: Vec<(String, u64)>,
    /// Bytes of history that the old master is known to have had beyond the promotion point, once
    /// it came back.
    pub lost_bytes: Option<i64>,
    /// Milliseconds before the death of which the old master's history says nothing: what was
    /// written then is not in `lost_bytes`.
    #[serde(default)]
    pub lost_gap_ms: u64,
    /// Who accepted that something is lost; nobody had to where this is `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_by: Option<String>,
}
