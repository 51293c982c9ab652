//! What must be remembered because it cannot be observed: one record per cluster, changed by
//! compare-and-set before the effect it announces.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::archive::ArchiveRecord;
use super::backup::{BackupRecord, RestoreRecord};
use super::change::{Change, FailoverReport};
use super::ids::IncarnationName;
use super::import::ImportRecord;
use super::incarnation::{Failures, Incarnation};
use super::step::Quorum;
use super::time::UnixMs;

/// The record of one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Term of the operator process that wrote it: times in it are by that process' clock.
    pub term: u64,
    /// The cluster's term: goes up before any change of master.
    pub epoch: u64,
    /// Every incarnation that may still have a deployment, a device or a key.
    pub incarnations: BTreeMap<IncarnationName, Incarnation>,
    /// The one that was chosen for the highest epoch in which one was chosen.
    pub master: Option<Promotion>,
    /// Epoch of the last promotion that its agent confirmed: data exists since, and an empty node
    /// never wins. 0 = never.
    pub data_epoch: u64,
    /// Who was master in `data_epoch`.
    pub data_master: Option<IncarnationName>,
    /// No write can have been acknowledged yet: a write needs replicas, and none was ever in sync.
    pub untouched: bool,
    /// Epoch of the leave to replicate that is in use, where the master stayed master under later
    /// ones: what is in use is not replaced, because that would cut replicas that are well. 0 = that
    /// of the master's choice.
    #[serde(skip_serializing_if = "is_zero")]
    pub granted: u64,
    /// The change of master in progress.
    pub change: Option<Change>,
    /// Failed attempts to fill a node, by ordinal; cleared by success.
    pub failures: BTreeMap<u32, Failures>,
    /// What the last failover did, for people.
    pub last_failover: Option<FailoverReport>,
    /// When the master last gave way because its volume took no more writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relieved: Option<UnixMs>,
    /// Failovers from a master that lived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeats: Option<Repeats>,
    /// The least number of days for which it was told that the wallet does no longer than that; none
    /// while it does for long enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runway_told: Option<u32>,
    /// When the last move began that could have been left undone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moved: Option<UnixMs>,
    /// The master was changed, and it is not known yet that it takes writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handover: Option<Handover>,
    /// Under `durability: confirmed`: how many replicas had what was confirmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirmations: Option<Confirmations>,
    /// A person fenced the master: written before it is told. It goes on when the word is taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<IncarnationName>,
    /// One node more than wanted, while nodes are started anew one after the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub surge: Option<Surge>,
    /// Backups that were begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupRecord>,
    /// The backup that the cluster begins with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreRecord>,
    /// The import that the cluster begins with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub import: Option<Box<ImportRecord>>,
    /// The archiving of the log of writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive: Option<Box<ArchiveRecord>>,
}

/// One node more than wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surge {
    /// Since when.
    pub at: UnixMs,
    /// It could not be had: it goes without.
    #[serde(default)]
    pub skipped: bool,
}

/// A change of master whose end is not told yet: it ends with the first write that is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// Epoch of the new master.
    pub epoch: u64,
    /// The old master.
    pub old: IncarnationName,
    /// Since when writes stand still.
    pub since: UnixMs,
    /// It was planned.
    pub planned: bool,
    /// Steps of a planned one, and how long after `since` each was done, milliseconds; those of a
    /// failover are in its report.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps_ms: Vec<(String, u64)>,
}

/// How many replicas had each write that was confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmations {
    /// At least so many.
    pub counted: u32,
    /// The manifest asks for more since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raise: Option<Raise>,
}

/// More replicas shall confirm a write than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raise {
    /// So many.
    pub to: u32,
    /// The master's offset when it had this in force: what fewer confirmed lies before.
    pub offset: i64,
}

/// Failovers from masters that lived and did not answer, in a row: what makes one hang may make the
/// next one hang.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeats {
    /// How many.
    pub count: u32,
    /// When the last one began.
    pub last: UnixMs,
}

/// The chosen master of an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promotion {
    /// Epoch of the choice.
    pub epoch: u64,
    /// Who was chosen.
    pub incarnation: IncarnationName,
    /// The redis process that was chosen: another one holds other data, and is another choice under
    /// another epoch. Empty in a record of an earlier version.
    #[serde(default)]
    pub run_id: String,
    /// The start of the agent that was chosen: the word of another start says nothing about that
    /// redis.
    #[serde(default)]
    pub boot_id: String,
    /// Its agent confirmed the promotion.
    pub confirmed: bool,
    /// When it did; 0 before, and in a record of an earlier version.
    #[serde(default, skip_serializing_if = "is_unset")]
    pub since: UnixMs,
    /// The weakest quorum that may be in force there, of what was reported in this epoch and what
    /// was sent since: the fewest replicas, the longest lag. Written before anything weaker is
    /// sent. `None` in a record of an earlier version until the master is heard.
    #[serde(default)]
    pub quorum: Option<Quorum>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over like this")]
fn is_unset(at: &UnixMs) -> bool {
    *at == UnixMs::default()
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the form that serde calls
pub(super) fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Record {
    /// What no record may say, one sentence each: whatever is abandoned half-way leaves a record
    /// from which the next plan goes on.
    #[must_use]
    pub fn flaws(&self) -> Vec<String> {
        let mut flaws = Vec::new();
        let mut expect = |holds: bool, sentence: String| {
            if !holds {
                flaws.push(sentence);
            }
        };
        if let Some(master) = &self.master {
            let (epoch, name) = (master.epoch, &master.incarnation);
            expect(
                epoch <= self.epoch,
                format!(
                    "{name} is chosen for epoch {epoch}, which is ahead of the record's {}",
                    self.epoch
                ),
            );
            expect(
                self.incarnations.contains_key(name),
                format!("{name} is master and not in the record"),
            );
            let condemned = self.incarnations.get(name).is_some_and(|i| i.condemned.is_some());
            expect(!condemned, format!("{name} is master and given up"));
            let known = !master.confirmed
                || (self.data_epoch == epoch && self.data_master.as_ref() == Some(name));
            expect(
                known,
                format!(
                    "{name} is confirmed in epoch {epoch}, and the data are of epoch {}",
                    self.data_epoch
                ),
            );
        }
        let epoch = match &self.change {
            Some(Change::Failover(f)) => Some(f.epoch),
            Some(Change::Switchover(s)) => Some(s.epoch),
            None => None,
        };
        expect(
            epoch.is_none_or(|e| e == self.epoch),
            format!("a change of epoch {epoch:?} goes on in epoch {}", self.epoch),
        );
        for (name, incarnation) in &self.incarnations {
            expect(
                !incarnation.is_candidate() || incarnation.condemned.is_none(),
                format!("{name} is a candidate and given up"),
            );
        }
        let mut dseqs: Vec<_> = self.incarnations.values().map(|i| i.dseq).collect();
        dseqs.sort_unstable();
        expect(
            dseqs.windows(2).all(|pair| pair[0] != pair[1]),
            "two incarnations have one deployment".to_owned(),
        );
        flaws
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::model::incarnation::Membership;

    /// A record as version 0.1.0 stores it.
    const RECORDED: &str = include_str!("../../tests/vectors/record-0.1.0.json");

    #[test]
    fn a_record_of_an_earlier_version_is_read_and_stored_alike() {
        let stored: Value = serde_json::from_str(RECORDED).expect("JSON");
        let record: Record = serde_json::from_value(stored.clone()).expect("a record");
        assert_eq!(serde_json::to_value(&record).expect("JSON"), stored);
        let membership = |name: &str| record.incarnations[&IncarnationName(name.into())].membership;
        assert_eq!(membership("cache-0-k4m2"), Membership::Candidate);
        assert_eq!(membership("cache-1-p7wx"), Membership::Member);
        assert_eq!(membership("cache-1-a2b3"), Membership::Joined);
        assert_eq!(membership("cache-2-z9q8"), Membership::Expected);
    }
}
