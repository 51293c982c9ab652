//! What must be remembered because it cannot be observed: one record per cluster, changed by
//! compare-and-set before the effect it announces.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::archive::ArchiveRecord;
use super::backup::{BackupRecord, RestoreRecord};
use super::ids::{IncarnationName, LeaseId};
use super::import::ImportRecord;
use super::money::{PricePerBlock, Uact};
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

/// One attempt to fill a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incarnation {
    /// The node it fills.
    pub ordinal: u32,
    /// Deployment sequence, chosen before the create is signed.
    pub dseq: u64,
    /// When it was reserved.
    pub reserved: UnixMs,
    /// It promotes nothing below this epoch.
    pub epoch_floor: u64,
    /// The most it may cost per block, fixed when it was reserved.
    pub max_price: PricePerBlock,
    /// The bid chosen, before the lease is signed.
    pub lease: Option<Choice>,
    /// What it is to the master, and whether it was ever heard.
    #[serde(flatten)]
    pub membership: Membership,
    /// Device that its agent speaks from, once the tailnet listed it under its name: another one
    /// under its name is not this node.
    #[serde(default)]
    pub device: Option<String>,
    /// Mesh address that its agent spoke from last: an operator that starts while the control API is away
    /// has no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Devices that it had before it joined again, until they are known to be deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_devices: Vec<String>,
    /// It gets a new key, because its device is gone from the tailnet.
    #[serde(default)]
    pub rejoin: Option<Rejoin>,
    /// Since when its agent says that its redis does not run; none while it does.
    #[serde(default)]
    pub redis_down: Option<UnixMs>,
    /// Shut off from the other nodes.
    #[serde(default)]
    pub quarantined: Option<Quarantine>,
    /// Its escrow is being filled; none once it pays for long enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_up: Option<TopUp>,
    /// Given up, and the master confirmed that it may not replicate any more: the master's offset
    /// after that. What it alone confirmed lies before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_offset: Option<i64>,
    /// When its redis, which did not start, was last given empty directories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuilt: Option<UnixMs>,
    /// When it was let in, before it could attach: one that never ended its first sync confirmed
    /// nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admitted: Option<Admitted>,
    /// The incarnation it takes the place of.
    #[serde(default)]
    pub replaces: Option<IncarnationName>,
    /// Given up for good: the only thing a destructive effect may act on. Never taken back.
    #[serde(default)]
    pub condemned: Option<Condemned>,
    /// The terms of the manifest that its lease is made with (`api::difference::lease_terms`); empty
    /// where they are not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub lease_terms: String,
    /// The operator moves it of its own accord: another incarnation takes its place first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<Moving>,
    /// It was told to start anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    /// The resources that its lease is made with (`api::difference::resources_asked`); empty where
    /// they are not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resources: String,
    /// What its manifest carries of what can be changed while its lease lives; none where that is
    /// not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployed: Option<Deployed>,
    /// Its manifest is being changed in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<Update>,
}

/// What a node was started with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployed {
    /// The word for all of it (`api::template`).
    pub revision: String,
    /// The image, for people.
    pub image: String,
}

/// A manifest that is changed while its lease lives: the container is started anew, lease and volume
/// stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// What it is to be started with.
    pub to: Deployed,
    /// When that was decided.
    pub at: UnixMs,
    /// When it was first on its way to the provider; none while the node has to let go of the
    /// master's part before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<UnixMs>,
    /// The start of its agent by then: another one is the new one. Empty when it was not heard.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot_id: String,
    /// When the master was last asked to move away from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handed: Option<UnixMs>,
    /// Something else is wanted than what was sent, and that is not on its way yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pending: bool,
}

/// A restart that a person asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// By which word: each is done once.
    pub word: String,
    /// The start of its agent that was told; another one is the new one.
    pub boot_id: String,
}

/// A move of the operator's own accord.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moving {
    /// Why it is moved.
    pub why: MoveReason,
    /// When that was decided.
    pub at: UnixMs,
    /// An incarnation was reserved to take its place.
    #[serde(default)]
    pub tried: bool,
}

/// Why a node is moved of the operator's own accord.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MoveReason {
    /// Its provider announced that it will close the lease.
    Reclaimed,
    /// Another provider asks this much or less.
    Cheaper(PricePerBlock),
    /// Its provider had several incidents.
    Provider,
    /// The manifest wants other resources than its lease was made with.
    Resources,
}

impl MoveReason {
    /// It could be left undone: it waits for its window, and is given up when it fails.
    #[must_use]
    pub fn is_optional(self) -> bool {
        matches!(self, Self::Cheaper(_) | Self::Provider)
    }
}

/// An incarnation was let in to replicate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admitted {
    /// In this epoch of the data.
    pub epoch: u64,
    /// Its redis process then.
    pub run_id: String,
}

/// What an incarnation is to the master of its cluster. Each step has all of those before it: who
/// may be promoted may be attached, and who may be attached was heard.
///
/// It rises step by step, and falls when the master goes on without a replica (to `Member`), when
/// the master confirms that one that was given up may not replicate any more, and when a first
/// master is given up before any write was acknowledged (to `Joined`). It is never `Expected`
/// again. It says nothing about [`Condemned`], but that a condemned incarnation is no candidate.
///
/// The record has it as three flags, as records of every version do.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(from = "MembershipFlags", into = "MembershipFlags")]
pub enum Membership {
    /// Its agent was never connected.
    #[default]
    Expected,
    /// Its agent was connected at least once; it may not replicate.
    Joined,
    /// May be attached to the master: written before it may attach. One that was given up stays a
    /// member until the master confirms that it may not replicate any more.
    Member,
    /// Was in sync in the data's epoch and the master did not go on without it: may be promoted,
    /// and its acknowledgements count. The master itself is one.
    Candidate,
}

/// [`Membership`] as it is stored.
#[derive(Serialize, Deserialize)]
struct MembershipFlags {
    #[serde(default)]
    joined: bool,
    #[serde(default)]
    member: bool,
    #[serde(default)]
    candidate: bool,
}

impl From<MembershipFlags> for Membership {
    fn from(flags: MembershipFlags) -> Self {
        match flags {
            MembershipFlags { candidate: true, .. } => Self::Candidate,
            MembershipFlags { member: true, .. } => Self::Member,
            MembershipFlags { joined: true, .. } => Self::Joined,
            _ => Self::Expected,
        }
    }
}

impl From<Membership> for MembershipFlags {
    fn from(membership: Membership) -> Self {
        Self {
            joined: membership >= Membership::Joined,
            member: membership >= Membership::Member,
            candidate: membership >= Membership::Candidate,
        }
    }
}

/// A living node joins again, under another device, by a new manifest: lease and volume stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejoin {
    /// When the record was written for it; what was heard of the node before says nothing.
    pub at: UnixMs,
    /// When the new manifest was last on its way to the provider.
    pub sent: UnixMs,
}

impl Incarnation {
    /// Reserved, and nothing else is known of it.
    #[must_use]
    pub fn new(
        ordinal: u32,
        dseq: u64,
        reserved: UnixMs,
        epoch_floor: u64,
        max_price: PricePerBlock,
    ) -> Self {
        Self {
            ordinal,
            dseq,
            reserved,
            epoch_floor,
            max_price,
            lease: None,
            membership: Membership::Expected,
            device: None,
            address: None,
            former_devices: Vec::new(),
            rejoin: None,
            redis_down: None,
            quarantined: None,
            top_up: None,
            left_offset: None,
            rebuilt: None,
            admitted: None,
            replaces: None,
            condemned: None,
            lease_terms: String::new(),
            moving: None,
            restart: None,
            resources: String::new(),
            deployed: None,
            update: None,
        }
    }

    /// Its agent was connected at least once.
    #[must_use]
    pub fn has_joined(&self) -> bool {
        self.membership >= Membership::Joined
    }

    /// Every device that it is known to have, or to have had.
    pub fn devices(&self) -> impl Iterator<Item = &str> {
        self.former_devices.iter().chain(&self.device).map(String::as_str)
    }

    /// It may be attached to the master.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.membership >= Membership::Member
    }

    /// It may be promoted, and its acknowledgements count.
    #[must_use]
    pub fn is_candidate(&self) -> bool {
        self.membership >= Membership::Candidate
    }

    /// It is this much at least from now on.
    pub fn raise(&mut self, to: Membership) {
        self.membership = self.membership.max(to);
    }

    /// It is this much at most from now on.
    pub fn lower(&mut self, to: Membership) {
        self.membership = self.membership.min(to);
    }
}

/// The last top-up of an escrow that pays for too short a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopUp {
    /// When it was announced; its transaction is signed after that.
    pub at: UnixMs,
    /// What was announced, taken from the wallet.
    pub amount: Uact,
    /// Top-ups since the escrow last paid for long enough, this one included.
    pub times: u32,
}

/// A chosen bid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The lease it becomes.
    pub id: LeaseId,
    /// What its lease costs per block.
    pub price: PricePerBlock,
    /// When it was chosen.
    pub at: UnixMs,
}

/// A node that was given up as master is reached by the operator alone until it takes no writes any
/// more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// Epoch in which it was given up.
    pub epoch: u64,
    /// When that was written.
    pub at: UnixMs,
    /// When its device was first seen with the quarantine tag and no other.
    pub in_force: Option<UnixMs>,
}

/// Why and when an incarnation was given up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condemned {
    /// When that was written.
    pub at: UnixMs,
    /// Why, in one sentence for people.
    pub reason: String,
    /// When the chain was first seen to have no active deployment of it: only a reading of the
    /// tailnet from after that tells what is left there.
    #[serde(default)]
    pub closed: Option<UnixMs>,
}

/// Failed attempts in a row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// Attempts in a row that failed.
    pub count: u32,
    /// When the last one was given up.
    pub last: UnixMs,
    /// Why the last one failed, in one sentence for people.
    pub reason: String,
    /// Providers that failed us in these attempts; chosen again only when nobody else bids.
    #[serde(default)]
    pub providers: Vec<String>,
    /// Generation of the manifest that failed: a later one is tried at once. 0 where it is not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the form that serde calls
fn is_zero(number: &u64) -> bool {
    *number == 0
}

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
    use serde_json::{Value, json};

    use super::*;

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

    #[test]
    fn flags_that_no_version_should_have_stored_are_read_as_the_most_that_may_be_true() {
        let read = |flags: Value| serde_json::from_value::<Membership>(flags).expect("flags");
        assert_eq!(read(json!({})), Membership::Expected);
        assert_eq!(read(json!({"joined": false, "member": true})), Membership::Member);
        assert_eq!(read(json!({"candidate": true})), Membership::Candidate);
    }

    #[test]
    fn membership_rises_and_falls_no_further_than_it_is_told() {
        let mut incarnation = Incarnation::new(0, 1, UnixMs(0), 0, PricePerBlock(1));
        incarnation.lower(Membership::Member);
        assert!(!incarnation.has_joined(), "lowering raises nothing");
        incarnation.raise(Membership::Candidate);
        incarnation.raise(Membership::Joined);
        assert!(incarnation.is_candidate(), "raising lowers nothing");
        incarnation.lower(Membership::Member);
        assert!(incarnation.is_member() && !incarnation.is_candidate());
    }
}
