//! What shall be done: the planner's words to the effects.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::archive::Point;
use super::backup::{BackupManifest, StorageSpec};
use super::ids::{IncarnationName, LeaseId};
use super::import::SourceRef;
use super::money::Uact;
use super::node::Authority;
use super::time::UnixMs;

/// One change of the outside world, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What to do.
    pub effect: Effect,
    /// Why, one sentence for people.
    pub reason: String,
}

/// One change of the outside world. It is tried again as a whole, so that each call that it takes
/// may be repeated: what it finds done already it does not do again.
#[derive(Clone, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Effect {
    /// Create the deployment of a reserved incarnation.
    CreateDeployment {
        /// It must be recorded with its dseq.
        incarnation: IncarnationName,
        /// Taken from the wallet into the escrow of the deployment.
        deposit: Uact,
    },
    /// Take the chosen bid.
    CreateLease {
        /// Whose order the bid is for.
        incarnation: IncarnationName,
        /// What the bid becomes: its dseq is the one that is recorded.
        lease: LeaseId,
    },
    /// Bring the manifest to the provider: mint a key and update the hash where that is not done,
    /// then PUT.
    DeliverManifest {
        /// Whose identity the manifest carries.
        incarnation: IncarnationName,
        /// It is active; its provider is the one that gets the manifest.
        lease: LeaseId,
    },
    /// Pay into the escrow of a running deployment; what is not used comes back when it is closed.
    TopUp {
        /// The record announces it.
        incarnation: IncarnationName,
        /// Its group carries the name of the incarnation.
        dseq: u64,
        /// Taken from the wallet.
        amount: Uact,
    },
    /// Close the deployment of a condemned incarnation; the rest of the deposit comes back.
    CloseDeployment {
        /// It is marked as condemned in the record.
        incarnation: IncarnationName,
        /// Its group carries the name of the incarnation.
        dseq: u64,
    },
    /// Delete the device of a condemned incarnation, or one that it had before it joined again.
    DeleteDevice {
        /// Whose device it is, by the record or by the list.
        incarnation: IncarnationName,
        /// The control API's `nodeId`; one that is gone already is a success.
        device: String,
    },
    /// Give a device these tags and no others.
    SetTags {
        /// Whose device it is.
        incarnation: IncarnationName,
        /// The control API's `nodeId`.
        device: String,
        /// All that it has afterwards, e.g. `tag:akash-redis`.
        tags: Vec<String>,
    },
    /// Revoke an auth key that nobody shall use any more.
    RevokeKey {
        /// For whom it was minted.
        incarnation: IncarnationName,
        /// The control API's id of the key, which is no secret.
        key: String,
    },
    /// Make a backup of the data that a node has stored: write what they are beside them.
    CompleteBackup {
        /// The node that stored them.
        incarnation: IncarnationName,
        /// Where.
        storage: StorageRef,
        /// What is written.
        manifest: Box<BackupManifest>,
    },
    /// Delete a backup, or what is left of one that was never completed.
    DeleteBackup {
        /// The master, in whose name it is done: the node that took it may be long gone.
        incarnation: IncarnationName,
        /// Where it is.
        storage: StorageRef,
        /// Name of the backup.
        id: String,
    },
    /// Delete what of the archived log no backup needs any more.
    DeleteLog {
        /// The master, in whose name it is done.
        incarnation: IncarnationName,
        /// Where it is.
        storage: StorageRef,
        /// Uid of the cluster.
        uid: String,
        /// What was received before.
        before: UnixMs,
    },
    /// Send a node a command.
    Command {
        /// Whose agent is to carry it out.
        incarnation: IncarnationName,
        /// An agent that has seen a higher pair refuses it.
        authority: Authority,
        /// Formed from the record that holds this pair.
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
            | Self::TopUp { incarnation, .. }
            | Self::CloseDeployment { incarnation, .. }
            | Self::DeleteDevice { incarnation, .. }
            | Self::SetTags { incarnation, .. }
            | Self::RevokeKey { incarnation, .. }
            | Self::CompleteBackup { incarnation, .. }
            | Self::DeleteBackup { incarnation, .. }
            | Self::DeleteLog { incarnation, .. }
            | Self::Command { incarnation, .. } => incarnation,
        }
    }
}

/// Leave to replicate from the master in one epoch; name and password are derived from it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Command {
    /// Bring the settings to what the manifest says.
    Configure(NodeSettings),
    /// Become master.
    Promote {
        /// Who may replicate.
        replicas: Vec<ReplicationGrant>,
        /// From the first write on.
        quorum: Quorum,
        /// The one before takes no writes by its own agent's word: replicas that lack nothing are
        /// about to attach, and for a few seconds a write need not wait for them.
        planned: bool,
        /// The import that ends with it: not before the source takes no writes and this node has
        /// all of them. Empty where there is none.
        import: String,
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
        /// It is no master yet, and passes on the data of this epoch; 0 where it is the master.
        data_epoch: u64,
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
    /// Take away the data that redis does not start with.
    Discard {
        /// They may be more than the master has: they are kept aside in any case.
        must_keep: bool,
    },
    /// Stop taking writes.
    Fence,
    /// Take writes again.
    Unfence {
        /// Under this quorum.
        quorum: Quorum,
    },
    /// End the container in order: its provider starts it again. A master hands over before.
    Restart,
    /// A replica lets others attach to it before it becomes master.
    Admit {
        /// Who may.
        replicas: Vec<ReplicationGrant>,
    },
    /// A replica becomes master by itself, as soon as its master hands over to it.
    AwaitHandover {
        /// Who may replicate.
        replicas: Vec<ReplicationGrant>,
        /// From the first write on.
        quorum: Quorum,
        /// As in [`Command::Promote`].
        planned: bool,
    },
    /// Stop taking writes, and tell the replica that awaits it, behind the last write.
    HandOver {
        /// Who awaits it.
        to: IncarnationName,
    },
    /// Take a snapshot and store it.
    Backup {
        /// Name of the backup.
        id: String,
        /// Where it goes.
        storage: StorageRef,
    },
    /// Get the data of a backup.
    Restore {
        /// Name of the backup.
        id: String,
        /// Where it is.
        storage: StorageRef,
        /// Bytes of its RDB file.
        rdb_bytes: u64,
        /// SHA-256 of its RDB file, hex.
        rdb_sha256: String,
        /// What of the log is replayed after it.
        point: Option<Point>,
    },
    /// Replicate from a running Redis outside of the cluster, until it is promoted.
    Import {
        /// That Redis; [`SourceRef::id`] is the name of the import.
        source: SourceRef,
        /// Name of the last pass of a copy; empty where none is wanted.
        last_pass: String,
    },
    /// Archive the log of writes.
    Archive {
        /// Name of the run.
        run: String,
        /// Uid of the cluster.
        uid: String,
        /// Where it goes.
        storage: StorageRef,
        /// Where redis does not have what follows, begin anew.
        anew: bool,
    },
    /// Archive it no more.
    StopArchive,
    /// Restore a backup into a throw-away redis-server, to see that it can be.
    Verify {
        /// Name of the attempt.
        run: String,
        /// Name of the backup.
        id: String,
        /// Where it is.
        storage: StorageRef,
        /// Bytes of its RDB file.
        rdb_bytes: u64,
        /// SHA-256 of its RDB file, hex.
        rdb_sha256: String,
        /// Memory that this may take, bytes.
        memory_bytes: u64,
    },
}

/// The backups of a cluster in a storage, and the keys to it as the manifest has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageRef {
    /// The storage.
    pub spec: StorageSpec,
    /// The keys, encrypted for `sealed_for`; empty where none are needed.
    pub sealed: String,
    /// The cluster whose manifest the keys stand in.
    pub sealed_for: String,
    /// The cluster whose backups are meant.
    pub cluster: String,
}

impl StorageRef {
    /// The backups of `cluster` in a storage whose keys stand in the manifest of `owner`.
    #[must_use]
    pub fn of(spec: StorageSpec, sealed: Option<String>, owner: &str, cluster: &str) -> Self {
        Self {
            spec,
            sealed: sealed.unwrap_or_default(),
            sealed_for: owner.to_owned(),
            cluster: cluster.to_owned(),
        }
    }

    /// A word that is another one where the storage or the keys are others.
    #[must_use]
    pub fn word(&self) -> String {
        let StorageSpec { url, endpoint, region, ca } = &self.spec;
        let all = [url, endpoint, region, ca, &self.sealed].map(String::as_str).join("\n");
        hex::encode(&Sha256::digest(all)[..8])
    }
}

/// Settings of a node. Names and order of its fields, and of those below them, are part of
/// [`Self::generation_of`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct NodeSettings {
    /// [`Self::generation_of`] the rest.
    #[serde(skip)]
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
    /// A redis that computes may keep everybody waiting for so long, seconds; 0 stands for the
    /// default.
    #[serde(skip_serializing_if = "is_zero")]
    pub stuck_after_seconds: u32,
    /// What the node keeps for an operator that lost its store (`api::kept_copy`); no part
    /// of the generation: it changes with the record.
    #[serde(skip)]
    pub copy: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl NodeSettings {
    /// The word by which a node says which settings it has: a hash of their JSON.
    ///
    /// Where the same settings get another word than from an earlier version, every node in the
    /// world is configured once more when its operator is upgraded. That does no harm, and is not
    /// done without need: a field that is renamed keeps its name in the JSON (`serde(rename)`), a
    /// new one is left out while it has its default.
    ///
    /// # Panics
    /// Never: texts, numbers and lists are JSON.
    #[must_use]
    pub fn generation_of(&self) -> String {
        let json = serde_json::to_vec(self).expect("texts, numbers and lists are JSON");
        hex::encode(&Sha256::digest(json)[..8])
    }
}

/// An application user of Redis.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_settings_have_the_same_generation_in_every_version() {
        let settings = NodeSettings {
            generation: "is not part of itself".into(),
            users: vec![SettingsUser {
                name: "app".into(),
                password_sha256: vec!["ab".repeat(32)],
                rules: "~* +@all".into(),
            }],
            redis_config: vec![("maxmemory-policy".into(), "allkeys-lru".into())],
            append_only: true,
            maxmemory_bytes: 604_700_672,
            quorum: Quorum { min_replicas: 1, max_lag_seconds: 8 },
            replicas: vec![ReplicationGrant {
                incarnation: IncarnationName("cache-1-x7k2".into()),
                epoch: 3,
            }],
            stuck_after_seconds: 0,
            copy: Some("is not either".into()),
        };
        assert_eq!(
            settings.generation_of(),
            "9e32acc8d8ce1c9c",
            "see the comment of generation_of"
        );
        let other = NodeSettings { maxmemory_bytes: 1, ..settings.clone() };
        assert_ne!(other.generation_of(), settings.generation_of());
    }
}
