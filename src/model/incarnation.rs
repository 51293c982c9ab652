//! What must be remembered of one attempt to fill a node.

use serde::{Deserialize, Serialize};

use super::ids::{IncarnationName, LeaseId};
use super::money::{PricePerBlock, Uact};
use super::record::is_zero;
use super::time::UnixMs;

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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

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
