//! What shall be done: the planner's words to the effects.

use serde::{Deserialize, Serialize};

use super::chain::TxOutcome;
use super::ids::{IncarnationName, LeaseId};
use super::money::Uact;
use super::node::Authority;
use super::time::UnixMs;

/// One call that changes the outside world, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What to do.
    pub effect: Effect,
    /// Why, one sentence for people.
    pub reason: String,
}

/// One call that changes the outside world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Create the deployment of a reserved incarnation.
    CreateDeployment {
        /// Which.
        incarnation: IncarnationName,
        /// Paid into escrow.
        deposit: Uact,
    },
    /// Take the chosen bid.
    CreateLease {
        /// Which.
        incarnation: IncarnationName,
        /// The lease.
        lease: LeaseId,
    },
    /// Bring the manifest to the provider: mint a key and update the hash where that is not done,
    /// then PUT.
    DeliverManifest {
        /// Which.
        incarnation: IncarnationName,
        /// The lease.
        lease: LeaseId,
    },
    /// Close the deployment of a condemned incarnation; the rest of the deposit comes back.
    CloseDeployment {
        /// Which.
        incarnation: IncarnationName,
        /// Its deployment.
        dseq: u64,
    },
    /// Delete the device of a condemned incarnation.
    DeleteDevice {
        /// Which.
        incarnation: IncarnationName,
        /// Device id.
        device: String,
    },
    /// Give a device these tags and no others.
    SetTags {
        /// Whose.
        incarnation: IncarnationName,
        /// Device id.
        device: String,
        /// The tags.
        tags: Vec<String>,
    },
    /// Revoke an auth key that nobody shall use any more.
    RevokeKey {
        /// For whom it was minted.
        incarnation: IncarnationName,
        /// Key id.
        key: String,
    },
    /// Send a node a command.
    Command {
        /// Which.
        incarnation: IncarnationName,
        /// Under which pair.
        authority: Authority,
        /// What.
        command: Command,
    },
}

impl Effect {
    /// The incarnation it acts on: effects on different ones are independent of each other.
    #[must_use]
    pub fn incarnation(&self) -> &IncarnationName {
        match self {
            Self::CreateDeployment { incarnation, .. }
            | Self::CreateLease { incarnation, .. }
            | Self::DeliverManifest { incarnation, .. }
            | Self::CloseDeployment { incarnation, .. }
            | Self::DeleteDevice { incarnation, .. }
            | Self::SetTags { incarnation, .. }
            | Self::RevokeKey { incarnation, .. }
            | Self::Command { incarnation, .. } => incarnation,
        }
    }
}

/// Leave to replicate from the master in one epoch; name and password are derived from it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicationGrant {
    /// The replica.
    pub incarnation: IncarnationName,
    /// The epoch.
    pub epoch: u64,
}

/// How many replicas a write needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Quorum {
    /// min-replicas-to-write
    pub min_replicas: u32,
    /// min-replicas-max-lag, seconds
    pub max_lag_seconds: u32,
}

impl Quorum {
    /// The weaker of both in each part: the fewest replicas and the longest lag.
    #[must_use]
    pub fn weakest(self, other: Self) -> Self {
        Self {
            min_replicas: self.min_replicas.min(other.min_replicas),
            max_lag_seconds: self.max_lag_seconds.max(other.max_lag_seconds),
        }
    }
}

/// A command to a node, before secrets are filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Bring the settings to what the manifest says.
    Configure(NodeSettings),
    /// Become master.
    Promote {
        /// Who may replicate.
        replicas: Vec<ReplicationGrant>,
        /// From the first write on.
        quorum: Quorum,
    },
    /// Replicate from the master.
    Follow {
        /// Who it is.
        master: IncarnationName,
        /// Its present FQDN.
        master_name: String,
        /// Own grant.
        grant: ReplicationGrant,
        /// Keep a snapshot before.
        save_first: bool,
    },
    /// Keep a snapshot on the volume.
    Save {
        /// Its name there; one that exists is left as it is.
        label: String,
    },
    /// Stop replicating, stay read-only.
    Detach {
        /// Wait for its link to end for so long at most, milliseconds: what its master sent before
        /// it died still arrives.
        drain_ms: u32,
    },
    /// Stop taking writes.
    Fence,
    /// Take writes again.
    Unfence {
        /// Under this quorum.
        quorum: Quorum,
    },
}

/// Settings of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeSettings {
    /// Hash of the rest.
    pub generation: String,
    /// Application users.
    pub users: Vec<SettingsUser>,
    /// Redis settings of the manifest.
    pub redis_config: Vec<(String, String)>,
    /// AOF everysec.
    pub append_only: bool,
    /// maxmemory, bytes.
    pub maxmemory_bytes: u64,
    /// Writes need so many replicas.
    pub quorum: Quorum,
    /// Who may replicate from it while it is master.
    pub replicas: Vec<ReplicationGrant>,
}

/// An application user of Redis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SettingsUser {
    /// Name.
    pub name: String,
    /// Hex SHA-256 of the passwords.
    pub password_sha256: Vec<String>,
    /// ACL rules.
    pub rules: String,
}

/// Something that is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// For what, one phrase.
    pub what: String,
    /// Since when.
    pub since: UnixMs,
    /// Until when at most; `None` only for a person's decision.
    pub deadline: Option<UnixMs>,
    /// What happens then, one phrase.
    pub then: String,
}

/// How an effect ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EffectEnd {
    /// Done as far as this call goes; what came of it will be observed.
    Done,
    /// A transaction that did not land.
    Tx(TxOutcome),
    /// Could not be done now; the next plan tries again or gives up.
    Failed(String),
}
