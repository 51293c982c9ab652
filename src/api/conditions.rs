//! The words of a status: conditions, their reasons, phases of nodes. Status,
//! metrics, command line and documentation take them from here.
//!
//! A word of another version is read as the last of each list, so that an older program can still
//! read the rest of a status.

use std::fmt::Write;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, EnumString, IntoStaticStr};

use super::events::EventReason;
use super::schema::words;

/// What a condition is about.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    Display,
    EnumIter,
    EnumString,
    IntoStaticStr,
)]
#[strum(ascii_case_insensitive)]
pub enum ConditionType {
    /// An application can write now, and a failover would find a candidate: one master that takes
    /// writes, all replicas in sync, no change of master in progress.
    Ready,
    /// Something is being done or waited for.
    Progressing,
    /// Something is wrong.
    Degraded,
    /// Every escrow pays for a day or more.
    Funded,
    /// Every node has a path to another one that no relay carries.
    DirectPaths,
    /// Every node has the users and the settings of the manifest.
    SettingsApplied,
    /// The wallet can fill the escrows of all clusters for more than 14 days.
    WalletRunway,
    /// Nodes run versions of Redis of which one cannot read the other's data.
    VersionSkew,
    /// Where `spec.backup` is set: there is a backup, and the last one that was due was taken.
    BackedUp,
    /// Where `spec.backup` is set and `spec.backup.verify` is not `never`: a backup was restored into a
    /// throw-away redis-server lately, and had all that it was to have.
    BackupVerified,
    /// Where `spec.backup.pointInTime` is set: every moment since the one that it names can be
    /// restored.
    PointInTime,
    /// Where `spec.bootstrap.fromBackup` is set: the cluster has the data of the backup.
    Restored,
    /// Where `spec.bootstrap.fromRedis` is set: the cluster was cut over to the data of the source.
    Imported,
    /// Only once the cluster is to be deleted: its leases are closed. It goes on as long as this is
    /// false.
    Deleting,
    /// On Kubernetes, and only while it is false: the object as it is cannot be run.
    Accepted,
    /// A condition of another version.
    #[default]
    #[serde(other)]
    Other,
}

/// Whether a condition holds, as in Kubernetes.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    Display,
    EnumIter,
    IntoStaticStr,
)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// What would tell cannot be read.
    #[default]
    #[serde(other)]
    Unknown,
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// Why a condition is as it is: how things are now. What happened is an [`EventReason`]: the two
/// lists are apart because a state lasts and is looked up in a runbook, while an event is over.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    Display,
    EnumIter,
    IntoStaticStr,
)]
pub enum Reason {
    // Ready.
    /// One master, and every replica is in sync.
    AllInSync,
    /// Fewer nodes than wanted are master or in sync, or the master is being changed.
    NodesNotReady,
    // Ready, and Degraded.
    /// The master answers and takes no writes.
    WritesRefused,
    /// A replica is further behind the master than `failover.maxLag`.
    ReplicaLagging,
    // Progressing.
    /// Steps are being carried out.
    Reconciling,
    /// Nothing is to be done before something that is waited for.
    Waiting,
    /// Everything is as the manifest wants it.
    Reconciled,
    /// `spec.paused` is set: nothing is changed.
    Paused,
    // Degraded.
    /// No problem is known.
    AsExpected,
    /// The operator itself is off the mesh and reaches no node.
    OperatorOffMesh,
    /// The tailnet lists no device of the nodes, and none of them is heard.
    DevicesMissing,
    /// The master is down, and no other node was in sync with it.
    NoMaster,
    /// The master is back without the data it had.
    DataMissing,
    /// Nodes that cannot be asked may hold newer data, or histories cannot be compared.
    HistoryUnclear,
    /// The old master may still take writes, so nobody is promoted.
    FailoverBlocked,
    /// None of the nodes that may take over answers.
    FailoverWaiting,
    /// The master is silent, and too few replicas confirm that it is down.
    MasterDownUnconfirmed,
    /// The operator cannot reach the master, and a replica still hears it.
    MasterUnreachable,
    /// The master's lease is gone.
    MasterLost,
    /// A replica claims more than anybody saw of the master, and is not promoted.
    OffsetImplausible,
    /// A node is not heard.
    NodeUnreachable,
    /// A node's agent answers, and its redis does not run.
    RedisDown,
    /// A replica does not get in sync.
    SyncStalled,
    /// The node that shall replace another one does not get in sync.
    MigrationStalled,
    /// A node that shall leave is the master, or the last one in sync.
    RemovalBlocked,
    /// The master to be is not linked or not in sync yet.
    SwitchoverWaiting,
    /// A node could not be filled, several times.
    ProvisioningFailed,
    /// There are bids, and none of them may be taken.
    NoAcceptableBid,
    /// A node's device was deleted from the tailnet.
    DeviceDeleted,
    /// A device that a node does not know joined with the node's key.
    KeyCompromised,
    /// The mesh state of a node is in use in two places.
    DuplicateMeshState,
    /// A device has tags that are not ours.
    UnexpectedTags,
    /// The control API does not give the quarantine tag, or does not take it off.
    QuarantineRefused,
    /// What an old master holds cannot be kept.
    QuarantineStalled,
    /// A node's network map does not follow the control server.
    StaleNetmap,
    /// A node that got a new key does not join again.
    RejoinStalled,
    /// The tailnet's control API says no.
    MeshApiRefused,
    /// The tailnet's control API does not answer.
    MeshApiUnavailable,
    /// A transaction is in no block.
    TransactionStalled,
    /// Something of a node that was given up is still there.
    CleanupStalled,
    /// A call to the outside world fails again and again.
    EffectFailing,
    /// An escrow was filled several times and still pays for too short a time.
    TopUpStalled,
    /// A node's data volume is full, or nearly so.
    VolumeFull,
    /// A node's redis could not write its snapshot or its append-only file.
    PersistenceFailing,
    /// The master has used its memory, and nothing may be evicted.
    MemoryFull,
    /// A node's redis ends again and again as soon as it was started.
    RedisCrashLooping,
    /// A node's redis runs and answers nobody: it is frozen, or a command takes very long.
    RedisStuck,
    /// The master does not answer, and is not replaced yet, because others were lately for the same
    /// cause.
    FailoverPaused,
    /// The record names a deployment that carries another name on the chain.
    ForeignDeployment,
    /// The wallet pays for deployments that are in no record.
    OrphanedDeployment,
    // Funded, and Degraded while something is to be bought.
    /// The wallet holds less than the deposits of the missing nodes.
    WalletBalanceLow,
    /// The budget is used up by leases and open orders.
    BudgetExhausted,
    /// The chain does not answer.
    ChainUnavailable,
    // Funded.
    /// Every escrow pays for a day or more.
    EscrowFunded,
    /// An escrow pays for less than a day.
    EscrowLow,
    /// No lease runs yet.
    NoActiveLease,
    // DirectPaths.
    /// Every node has a direct path to another one.
    AllDirect,
    /// Relays carry all traffic of some nodes.
    NodeRelayed,
    /// Relays carry all traffic between nodes.
    AllRelayed,
    /// No node has told of a path yet.
    NotMeasured,
    // SettingsApplied.
    /// Every node has the users and the settings of the manifest.
    SettingsInForce,
    /// Some nodes do not have them yet.
    SettingsPending,
    // SettingsApplied, and Degraded.
    /// Redis did not take a setting; what was in force before stays, and everything else is in force.
    SettingsRefused,
    // Funded and Degraded.
    /// The leases that run cost more than the budget allows.
    BudgetBelowCost,
    // WalletRunway.
    /// The wallet can fill the escrows of all clusters for more than 14 days.
    WalletFunded,
    /// The wallet can fill no escrow any more in 14 days or less.
    WalletRunwayLow,
    // WalletRunway, Funded and Degraded.
    /// There is too little AKT for the fees of the transactions that wait or may come.
    FeeBalanceLow,
    // Degraded.
    /// A provider announced that it will close the lease of a node.
    LeaseReclaimed,
    /// Nodes run versions of Redis of which one cannot read the other's data.
    VersionSkew,
    /// Under `durability: confirmed`: a confirmed write may be on none of the nodes that answer, so
    /// nobody is promoted.
    ConfirmedWritesAtRisk,
    // Ready and Degraded.
    /// A person fenced a node: it takes no writes and becomes no master.
    FencedByPerson,
    // Progressing.
    /// Nodes are started anew with what the manifest wants, one after the other.
    Updating,
    // Degraded.
    /// A node does not come back well with what it was to be started with; the others are left as
    /// they are.
    UpdateStalled,
    /// What nodes are to be started with cannot be rolled out.
    UpdateRefused,
    /// A node runs another version of Redis than its image is said to hold.
    ImageVersionWrong,
    // VersionSkew.
    /// All nodes run one version of Redis.
    OneVersion,
    /// Nodes run several versions of Redis, and each can read the data of the others.
    VersionsCompatible,
    /// No node has told what it runs yet.
    VersionsUnknown,
    // BackedUp.
    /// The last backup that was due was taken.
    BackupCurrent,
    /// There is no backup yet.
    BackupPending,
    // BackedUp and Degraded.
    /// The last backup came to nothing.
    BackupFailed,
    /// The object storage of the backups refuses us, or does not answer.
    BackupStorageUnavailable,
    // BackupVerified.
    /// A backup was restored lately, and had all that it was to have.
    BackupRestorable,
    /// No backup was restored lately; the sentence says what that waits for.
    BackupVerificationPending,
    // BackupVerified and Degraded.
    /// A backup could not be restored, or did not have what it was to have.
    BackupVerificationFailed,
    // PointInTime.
    /// The log of writes is archived, and a backup is there that it goes on from.
    ArchiveCurrent,
    /// No node archives the log of writes yet, or there is no backup yet that it goes on from.
    ArchivePending,
    // PointInTime and Degraded.
    /// What is written is not archived now.
    ArchiveBehind,
    // Restored.
    /// The cluster has the data of the backup.
    RestoreCompleted,
    /// A node gets the data of the backup; nobody is master before it has all of them.
    Restoring,
    // Restored and Degraded.
    /// The backup could not be given to a node; it is tried again.
    RestoreFailed,
    /// There is no backup that the cluster could begin with; nothing is bought.
    RestoreRefused,
    // Imported.
    /// The cluster has the data of the source and is master of them.
    ImportCompleted,
    /// A node replicates from the source; nobody is master before the cutover.
    Importing,
    /// The nodes follow the source closely: `akash-redis cutover` can be asked for.
    ImportReady,
    // Imported and Degraded.
    /// The data cannot be got from the source now; it is tried again.
    ImportFailed,
    // Deleting.
    /// The leases are closed, and devices and keys deleted.
    LeasesClosing,
    /// A last backup is taken before any lease is closed.
    FinalBackupPending,
    // Deleting and Degraded.
    /// The last backup before the end cannot be taken; no lease is closed.
    FinalBackupFailed,
    /// The cluster may hold data, and nobody said that these may be deleted; no lease is closed.
    DeletionRefused,
    // Accepted, and Ready of a cluster that is not run.
    /// The object cannot be run as it is. Nothing is bought for it; a cluster that runs goes on with
    /// what was wanted before.
    ManifestInvalid,
    /// An object of that name in another namespace came first.
    NameTaken,
    /// A Secret that a password is to come from is missing, has no such entry, or may not be read. A
    /// cluster that runs keeps the password that it had, another one is not begun.
    SecretMissing,
    /// A reason of another version.
    #[default]
    #[serde(other)]
    Other,
}

impl Reason {
    /// Nothing is to be done about it by anybody, so that no runbook speaks of it.
    #[must_use]
    pub const fn is_normal(self) -> bool {
        matches!(
            self,
            Self::AllInSync
                | Self::NodesNotReady
                | Self::Reconciling
                | Self::Waiting
                | Self::Reconciled
                | Self::AsExpected
                | Self::EscrowFunded
                | Self::NoActiveLease
                | Self::AllDirect
                | Self::NotMeasured
                | Self::SettingsInForce
                | Self::SettingsPending
                | Self::WalletFunded
                | Self::Updating
                | Self::OneVersion
                | Self::VersionsCompatible
                | Self::VersionsUnknown
                | Self::BackupCurrent
                | Self::BackupPending
                | Self::BackupRestorable
                | Self::BackupVerificationPending
                | Self::ArchiveCurrent
                | Self::ArchivePending
                | Self::RestoreCompleted
                | Self::Restoring
                | Self::ImportCompleted
                | Self::Importing
                | Self::ImportReady
                | Self::LeasesClosing
                | Self::FinalBackupPending
                | Self::Other
        )
    }

    /// The cluster waits for a person's word that what nobody who answers holds may be lost
    /// (`akash-redis failover NAME --accept-loss`).
    #[must_use]
    pub const fn ends_with_accepted_loss(self) -> bool {
        matches!(
            self,
            Self::NoMaster
                | Self::DataMissing
                | Self::HistoryUnclear
                | Self::FailoverBlocked
                | Self::FailoverWaiting
                | Self::MasterDownUnconfirmed
                | Self::ConfirmedWritesAtRisk
        )
    }
}

/// How far an incarnation has come.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    Display,
    EnumIter,
    IntoStaticStr,
)]
pub enum Phase {
    /// Recorded, not on the chain yet.
    Reserved,
    /// Its order is open.
    Bidding,
    /// It has a lease, and its provider has no manifest yet.
    Leased,
    /// Its provider has the manifest; the node has not reported yet.
    Starting,
    /// It reports, and does not replicate yet.
    Joined,
    /// It copies the master's data.
    Syncing,
    /// It is in sync with the master.
    Replica,
    /// It takes writes.
    Master,
    /// A master that was given up: the operator alone reaches it until its redis was demoted.
    Quarantined,
    /// It reported once and is not heard now.
    Unreachable,
    /// Its lease or its deployment is gone.
    Lost,
    /// It was given up; its deployment, device and key are being removed.
    Leaving,
    /// Neither the chain nor the node answers; or a phase of another version.
    #[default]
    #[serde(other)]
    Unknown,
}

impl Phase {
    /// It holds the cluster's data: master, or replica in sync.
    #[must_use]
    pub const fn is_serving(self) -> bool {
        matches!(self, Self::Master | Self::Replica)
    }
}

/// By which way the state of a node is known.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    Display,
    EnumIter,
    IntoStaticStr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum KnownBy {
    /// Its agent speaks to the operator over the mesh.
    Agent,
    /// Its status page, signed by the node, through its provider's ingress.
    #[serde(rename = "status page")]
    #[strum(serialize = "status page")]
    StatusPage,
    /// What its provider says of the lease.
    #[serde(rename = "lease status")]
    #[strum(serialize = "lease status")]
    LeaseStatus,
    /// Nothing present is known.
    #[default]
    #[serde(other)]
    Nothing,
}

/// The words of a status as a page of Markdown.
#[must_use]
pub fn status_reference() -> String {
    let mut page = "# The status\n\n\
        `akash-redis describe NAME` shows it, `akash-redis get NAME -o yaml` prints it. Programs may rely on these words; sentences may \
        change.\n\nThis page is made from the program's types.\n"
        .to_owned();
    let mut list = |title: &str, intro: &str, schema: schemars::Schema| {
        let _ = write!(page, "\n## {title}\n\n{intro}\n\n| word | meaning |\n| --- | --- |\n");
        for (word, meaning) in words(schema.as_value()) {
            if word != "Other" {
                let _ = writeln!(page, "| `{word}` | {} |", meaning.replace('\n', " "));
            }
        }
    };
    list(
        "Conditions",
        "Each is `True`, `False` or `Unknown`, with a reason and a message.",
        schemars::schema_for!(ConditionType),
    );
    list(
        "Reasons of conditions",
        "What to do about each is in the [runbooks](../runbooks/README.md).",
        schemars::schema_for!(Reason),
    );
    list("Phases of nodes", "One for each incarnation.", schemars::schema_for!(Phase));
    list("How a node is known", "`knownBy` of each node.", schemars::schema_for!(KnownBy));
    list(
        "Reasons of events",
        "`akash-redis events NAME` shows them.",
        schemars::schema_for!(EventReason),
    );
    page.push_str(&super::notifications::reference());
    page
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator as _;

    use super::*;
    use crate::api::schema::assert_page;

    /// What is displayed, stored and documented is one word.
    fn one_word<T>()
    where
        T: strum::IntoEnumIterator + ToString + Serialize + Copy + Into<&'static str> + JsonSchema,
    {
        let schema = schemars::schema_for!(T);
        let documented = words(schema.as_value());
        for value in T::iter() {
            let stored = serde_json::to_value(value).expect("a word");
            let shown: &str = value.into();
            assert_eq!(stored, shown);
            assert_eq!(value.to_string(), shown);
            let meaning = documented.iter().find(|(word, _)| *word == shown);
            assert!(meaning.is_some_and(|(_, meaning)| !meaning.is_empty()), "{shown}");
        }
        assert_eq!(documented.len(), T::iter().count());
    }

    #[test]
    fn every_word_is_displayed_stored_and_documented_alike() {
        one_word::<ConditionType>();
        one_word::<ConditionStatus>();
        one_word::<Reason>();
        one_word::<Phase>();
        one_word::<KnownBy>();
        one_word::<EventReason>();
    }

    #[test]
    fn a_word_of_another_version_does_not_hide_the_rest() {
        let read = |text: &str| serde_json::from_str::<Reason>(text).expect("any word");
        assert_eq!(read("\"Well\""), Reason::Other);
        assert_eq!(serde_json::from_str::<Phase>("\"Silent\"").expect("any word"), Phase::Unknown);
    }

    #[test]
    fn a_condition_is_found_by_its_word_in_any_case() {
        for kind in ConditionType::iter() {
            assert_eq!(kind.to_string().to_lowercase().parse(), Ok(kind));
        }
        assert!("Readyy".parse::<ConditionType>().is_err());
    }

    #[test]
    fn the_reference_in_the_book_is_the_one_of_this_program() {
        assert_page("docs/reference/status.md", &status_reference());
    }
}
