//! The words of events: why each of them was written.

use schemars::JsonSchema;
use serde::Serialize;
use strum::{Display, EnumIter, EnumString, IntoStaticStr};

/// What happened, for people; nothing is decided by it. See [`Reason`](super::conditions::Reason) for how things are.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    JsonSchema,
    Display,
    EnumIter,
    EnumString,
    IntoStaticStr,
)]
pub enum EventReason {
    /// A node got a name and a deployment number.
    NodeReserved,
    /// A bid was accepted.
    BidAccepted,
    /// A node is on the mesh and reports.
    NodeJoined,
    /// A node was given up for good.
    NodeCondemned,
    /// Nothing of a node is left.
    NodeRemoved,
    /// A node's container is started anew because somebody asked for it.
    NodeRestarted,
    /// A node whose device is gone gets a new key.
    RejoinStarted,
    /// A node is on the mesh again, as another device.
    NodeRejoined,
    /// A deployment that is in no record is closed, as was asked for.
    OrphanClosing,
    /// A node may replicate from the master.
    ReplicaAdmitted,
    /// A replica is in sync and may be promoted.
    ReplicaInSync,
    /// The master takes writes without a replica, which may not be promoted any more.
    ReplicaOutOfSync,
    /// A master was chosen for an epoch.
    MasterElected,
    /// The chosen node confirmed that it is master.
    MasterPromoted,
    /// A change of master was given up before anybody was chosen, and the master stays.
    MasterRetained,
    /// The master is promoted again with its own data.
    MasterRepromoted,
    /// The master is lost for good.
    MasterLost,
    /// The first master was given up before any write was acknowledged.
    FirstMasterLost,
    /// The chosen node was not promoted.
    PromotionFailed,
    /// The master is dead, and an epoch begins.
    FailoverStarted,
    /// A replica may not take over.
    CandidateRejected,
    /// A replica claims more than anybody saw of the master.
    OffsetImplausible,
    /// No candidate is left before anybody was chosen.
    FailoverAborted,
    /// A failover is over.
    FailoverCompleted,
    /// A planned change of master begins.
    SwitchoverStarted,
    /// The master died during a switchover.
    SwitchoverAborted,
    /// The target did not catch up in time, and the master stays.
    SwitchoverRolledBack,
    /// A switchover is over.
    SwitchoverCompleted,
    /// A master whose volume takes no more writes gives way to a replica.
    MasterRelieved,
    /// What a replica cannot start with is dropped: it copies the master's data anew.
    ReplicaRebuilt,
    /// After the loss of the master the newest history that is left was chosen.
    ColdStart,
    /// No node that is left holds data: the cluster starts empty.
    DataLost,
    /// An old master is shut off from the other nodes.
    QuarantineStarted,
    /// The other nodes reach it again.
    QuarantineEnded,
    /// Relays carry all traffic of some nodes.
    PathsRelayed,
    /// A call to the outside world was carried out.
    EffectSucceeded,
    /// A call to the outside world failed; it is tried again.
    EffectFailed,
    /// A manifest was applied for the first time.
    ClusterCreated,
    /// Fields of the manifest were changed.
    ClusterConfigured,
    /// Another number of nodes is wanted.
    ClusterScaled,
    /// A user of the application has another password.
    PasswordChanged,
    /// The operator changes nothing any more.
    ClusterPaused,
    /// The operator goes on.
    ClusterResumed,
    /// A person asked for something: a migration, a switchover, a close, a new key, a loss accepted.
    ActionRequested,
    /// A person asked for the end of the cluster.
    DeletionRequested,
    /// The wallet can fill escrows for few more days.
    RunwayLow,
    /// A node that ran is given up: its lease is gone, or it was silent for too long.
    NodeLost,
    /// Something has been wrong for a minute.
    ClusterDegraded,
    /// The cluster has waited for a person for a minute.
    ClusterBlocked,
    /// Nothing has been wrong for five minutes, after something was told to be.
    ClusterRecovered,
    /// Nothing of a deleted cluster is left.
    ClusterDeleted,
    /// A node is moved to another provider although nobody asked for it.
    MoveStarted,
    /// Such a move was given up, and the node stays.
    MoveEnded,
    /// The record was lost and is built anew.
    RecordRecovered,
    /// A node is started anew with what the manifest wants now.
    NodeUpdating,
    /// It serves again.
    NodeUpdated,
    /// One node more than wanted is bought while nodes are started anew.
    SurgeStarted,
    /// Nodes are started anew without it: writes stop while one is away.
    SurgeSkipped,
    /// That node leaves.
    SurgeEnded,
    /// A node takes a backup.
    BackupStarted,
    /// A backup is complete.
    BackupTaken,
    /// A backup came to nothing.
    BackupFailed,
    /// A backup was restored to see that it can be, and had all that it was to have.
    BackupVerified,
    /// A backup could not be restored, or did not have what it was to have.
    BackupVerificationFailed,
    /// An attempt to verify a backup found nothing out.
    BackupVerificationInterrupted,
    /// The archived log of writes begins, or begins anew.
    ArchiveStarted,
    /// A node does not archive the log of writes any more; another one goes on.
    ArchiveInterrupted,
    /// A new cluster gets the data of a backup.
    RestoreStarted,
    /// A node has the data of the backup, and is master.
    RestoreCompleted,
    /// A node did not get the data of the backup.
    RestoreFailed,
    /// A node of a new cluster replicates from a running Redis.
    ImportStarted,
    /// The node that imported is given up; another one begins anew.
    ImportInterrupted,
    /// A cutover that was asked for cannot be made now.
    CutoverRefused,
    /// The writes of the source are to be held, and the node that imports is to become master.
    CutoverStarted,
    /// A cutover came to nothing: the source takes writes again, and the import goes on.
    CutoverFailed,
    /// The cluster has the data of the source and takes the writes.
    CutoverCompleted,
}
