//! What a node's agent reports, translated from `akash_redis.agent.v1.NodeState`.

use serde::{Deserialize, Serialize};

use strum::{Display, EnumString};

use super::archive::ArchiveTask;
use super::backup::{BackupTask, RestoreTask, VerifyTask};
use super::import::ImportTask;
use super::mesh::BackendState;
use super::time::UnixMs;

/// Orders commands: term of the operator process, then epoch of the cluster.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Authority {
    /// Raised when an operator process takes over the store.
    pub term: u64,
    /// Raised before any change of master.
    pub epoch: u64,
}

/// Replicas that no master has: with it as min-replicas-to-write every write is refused.
pub const REFUSES_WRITES: u32 = i32::MAX as u32;

/// The operator's knowledge of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// When the last state arrived, by the operator's clock.
    pub heard: UnixMs,
    /// The stream is open and the last state is fresh.
    pub connected: bool,
    /// The last state.
    pub state: NodeState,
}

/// A node's state at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// Which incarnation speaks.
    pub incarnation: String,
    /// Differs after each start of the agent.
    pub boot_id: String,
    /// Version of the agent.
    pub agent_version: String,
    /// To be sent back with a command.
    pub nonce: String,
    /// Highest pair obeyed.
    pub highest: Authority,
    /// Accepted the promotion of that pair.
    pub promoted: bool,
    /// How its tailscaled stands on the mesh.
    pub mesh: NodeMesh,
    /// What its redis-server does and holds.
    pub redis: RedisState,
    /// Where its data stands, as far as it is known.
    pub history: Option<History>,
    /// Generation of the settings in force.
    pub configured: String,
    /// What it lacks, one sentence each.
    pub notes: Vec<String>,
    /// Labels of the snapshots it kept.
    pub saved: Vec<String>,
    /// What redis did not take of the settings in force.
    #[serde(default)]
    pub refused: Vec<RefusedSetting>,
    /// Its data volume, where it has one and has looked at it.
    #[serde(default)]
    pub volume: Option<Space>,
    /// Starts of its redis in a row that came to nothing.
    #[serde(default)]
    pub failed_starts: u32,
    /// What redis printed last in the last of them.
    #[serde(default)]
    pub failed_start_line: String,
    /// Hash of the copy of the manifest that it keeps, empty when it has none; `None` from an agent
    /// that keeps none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_copy: Option<String>,
    /// Its container is being stopped: it goes within seconds, whatever anybody does.
    #[serde(default)]
    pub stopping: bool,
    /// Epoch of the replicas that it lets attach although it is none's master, 0 when there are
    /// none; `None` from an agent that lets nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admits: Option<u64>,
    /// Epoch in which it becomes master as soon as its master hands over to it, 0 in none; `None` from
    /// an agent that does not know how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaits: Option<u64>,
    /// Somebody listens there to who is master; `None` from an agent that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_subscribers: Option<bool>,
    /// What its container was started with (`api::template`); empty from an agent that does not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// The last backup that it was told to take; `None` from an agent that takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupTask>,
    /// The last restore that it was told to do; `None` from an agent that does none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreTask>,
    /// The import from a running Redis; `None` from an agent that does none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import: Option<ImportTask>,
    /// The archiving of the log of writes; `None` from an agent that does none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveTask>,
    /// The last backup that it was told to restore beside its own data; `None` from an agent that
    /// does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifyTask>,
}

/// A setting, or a user, that redis did not take: what was in force before stays, and everything
/// else that came with it is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RefusedSetting {
    /// Below `spec.redis` of the manifest: `config.NAME`, or `users.NAME`.
    pub name: String,
    /// What was not taken.
    pub value: String,
    /// Redis' words.
    pub reason: String,
}

/// Room on a volume, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// Free.
    pub free: u64,
    /// In all.
    pub total: u64,
}

impl Space {
    /// So little is left that what is written next may not fit: a twentieth, or 16 MiB of a small
    /// one.
    #[must_use]
    pub fn is_short(self) -> bool {
        self.free < (self.total / 20).max(16 * super::memory::MIB).min(self.total / 4)
    }
}

/// Beginning of the note of a node that cannot join: the control server refused its key for good,
/// because it was used, has expired or was revoked. Only a new incarnation has a new key.
pub const KEY_SPENT: &str = "the key is spent";

impl NodeState {
    /// It cannot join; see [`KEY_SPENT`].
    #[must_use]
    pub fn key_spent(&self) -> bool {
        self.notes.iter().any(|note| note.starts_with(KEY_SPENT))
    }
}

/// A node's tailscaled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeMesh {
    /// What it does.
    pub backend_state: BackendState,
    /// Own FQDN without trailing dot.
    pub dns_name: String,
    /// Own 100.x address.
    pub ip: String,
    /// `Self.ID` of its LocalAPI, the `nodeId` of the control API; a claim.
    pub device_id: String,
    /// Complaints of its tailscaled, cut short.
    pub health: Vec<String>,
    /// FQDNs of the peers in its netmap.
    pub visible_peers: Vec<String>,
    /// Device ids of the peers in its netmap.
    #[serde(default)]
    pub visible_ids: Vec<String>,
    /// The ways to the peers of its cluster.
    pub paths: Vec<PeerPath>,
}

/// What carries the traffic between two nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathKind {
    /// The peer did not answer.
    #[default]
    Unknown,
    /// From one to the other.
    Direct,
    /// Through another device of the tailnet.
    PeerRelay,
    /// Through a relay of the mesh's control server.
    Derp,
}

/// The way to a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerPath {
    /// The peer's FQDN.
    pub name: String,
    /// What carries it.
    pub kind: PathKind,
    /// Address of the peer or of the relay, or the DERP region.
    pub via: String,
    /// Round trip, microseconds; 0 when it was not measured.
    pub rtt_us: u64,
    /// Bytes received since tailscaled started.
    pub rx_bytes: u64,
    /// Bytes sent since then.
    pub tx_bytes: u64,
}

impl PeerPath {
    /// Carried by a relay of either kind.
    #[must_use]
    pub fn relayed(&self) -> bool {
        matches!(self.kind, PathKind::PeerRelay | PathKind::Derp)
    }
}

/// What the redis-server process does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Process {
    /// Started, no answer yet.
    #[default]
    Starting,
    /// Answers.
    Running,
    /// Alive, does not answer.
    Stuck,
    /// Not running.
    Exited,
}

/// Role by Redis' own word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Not known.
    #[default]
    Unknown,
    /// Takes writes, unless fenced.
    Master,
    /// Read only.
    Replica,
}

/// A replica's link to its master.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Link {
    /// There is none, or it is being made.
    #[default]
    Down,
    /// A full sync runs: the data are copied.
    Syncing,
    /// Writes come as they are made.
    Up,
}

impl Link {
    /// By the two flags of Redis.
    #[must_use]
    pub fn of(up: bool, syncing: bool) -> Self {
        match (up, syncing) {
            (_, true) => Self::Syncing,
            (true, false) => Self::Up,
            (false, false) => Self::Down,
        }
    }
}

/// A redis-server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisState {
    /// Whether the process runs and answers its agent.
    pub process: Process,
    /// Role by `INFO`, whether it takes writes or not: see `fenced`.
    pub role: Role,
    /// Identity of this very process.
    pub run_id: String,
    /// `redis_version` of `INFO`.
    pub version: String,
    /// Loading a dataset.
    pub loading: bool,
    /// Replication id.
    pub replid: String,
    /// Previous replication id.
    pub replid2: String,
    /// Up to where `replid2` holds.
    pub second_offset: i64,
    /// Offset written (master) or applied (replica).
    pub offset: i64,
    /// Memory in use, bytes.
    pub used_memory_bytes: u64,
    /// Keys in all databases.
    pub keys: u64,
    /// A replica's configured master.
    pub master_host: String,
    /// Its link to that master.
    pub link: Link,
    /// Milliseconds since it last heard its master.
    pub silent_ms: u64,
    /// Epoch under which this process was online with `master_host`, 0 = never.
    pub online_epoch: u64,
    /// Bytes of the running sync done.
    pub sync_done_bytes: u64,
    /// Bytes of the running sync in all.
    pub sync_total_bytes: u64,
    /// A master's replicas.
    pub replicas: Vec<AttachedReplica>,
    /// min-replicas-to-write in force.
    pub min_replicas: u32,
    /// min-replicas-max-lag in force, seconds.
    pub max_lag_seconds: u32,
    /// Takes no writes: by command, or not promoted since it started.
    pub fenced: bool,
    /// How it fares beside its role.
    #[serde(default)]
    pub health: Health,
    /// What it has to do; `None` while it was not asked, and from an agent that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
}

/// What a redis-server has to do. Nothing is decided by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Commands of the last moments, by Redis' own sampling.
    pub ops_per_second: u64,
    /// Open connections of clients, without replicas.
    pub clients: u64,
    /// Keys that made room for others since it started.
    pub evicted_keys: u64,
    /// When its data were last written as a snapshot, or it started; Unix seconds by the node's
    /// clock.
    pub last_save_seconds: u64,
}

impl RedisState {
    /// A replica that gets its master's writes as they are made.
    #[must_use]
    pub fn is_linked(&self) -> bool {
        self.link == Link::Up
    }

    /// A replica that copies its master's data.
    #[must_use]
    pub fn is_syncing(&self) -> bool {
        self.link == Link::Syncing
    }

    /// Clients that write here get no answer, or another one than that somebody else is master: as a
    /// master it takes their writes, or holds them behind its fence until it is told what comes.
    #[must_use]
    pub fn holds_clients(&self) -> bool {
        self.process == Process::Running
            && self.role == Role::Master
            && self.min_replicas != REFUSES_WRITES
    }
}

/// How a redis-server fares. The default says nothing against it: it is what an agent of an earlier
/// version reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// Why a master that shall take writes takes none; `None` when it takes them, and when it was
    /// not asked.
    pub refusal: Option<Refusal>,
    /// While it does not answer: it computes, or says that a script runs.
    pub busy: bool,
    /// What it could not write to its volume last.
    pub unwritten: Unwritten,
    /// Memory it may fill, bytes; 0 when that is not known.
    pub maxmemory_bytes: u64,
    /// Full syncs that it has begun since its link was last up for some time.
    pub syncs_in_a_row: u32,
}

/// A master's answer to a write that changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Its first word.
    pub code: String,
    /// The rest of it.
    pub words: String,
    /// For how long it has been so, milliseconds.
    pub since_ms: u64,
}

impl Refusal {
    /// It cannot write to its volume.
    #[must_use]
    pub fn by_disk(&self) -> bool {
        self.code == "MISCONF"
    }
}

/// What could not be written to the volume when it was last tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unwritten {
    /// The snapshot.
    pub snapshot: bool,
    /// The append-only file.
    pub log: bool,
    /// The append-only file written anew.
    pub rewrite: bool,
}

/// The link of a replica, by its master's word.
#[derive(Clone, Debug, PartialEq, Eq, Display, EnumString, Serialize, Deserialize)]
#[strum(serialize_all = "snake_case")]
#[serde(from = "String", into = "String")]
pub enum ReplicaState {
    /// It waits for a snapshot.
    WaitBgsave,
    /// A snapshot is on its way to it.
    SendBulk,
    /// It follows.
    Online,
    /// A word of another version; empty when nothing was said.
    #[strum(default)]
    Other(String),
}

impl Default for ReplicaState {
    fn default() -> Self {
        Self::Other(String::new())
    }
}

impl From<String> for ReplicaState {
    fn from(word: String) -> Self {
        word.parse().unwrap_or_default()
    }
}

impl From<ReplicaState> for String {
    fn from(state: ReplicaState) -> Self {
        state.to_string()
    }
}

/// A replica as its master sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedReplica {
    /// Mesh FQDN it announced.
    pub name: String,
    /// What the master says of the link.
    pub state: ReplicaState,
    /// Acknowledged offset.
    pub offset: i64,
    /// Age of the last acknowledgement, seconds.
    pub lag_seconds: u32,
    /// Age of the oldest write that it did not acknowledge, milliseconds.
    #[serde(default)]
    pub behind_ms: u64,
}

/// Where the data of a node stood when its agent last looked: that of its running redis, or of its
/// volume. Without a volume it ends with the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Replication id.
    pub replid: String,
    /// Offset under it.
    pub offset: i64,
    /// Epoch it was reached in.
    pub epoch: u64,
    /// Writes of up to so many milliseconds may have come after this and are not in it;
    /// [`History::UNKNOWN_GAP`] when nobody knows how many.
    ///
    /// 0 when it was read at a fence, a demotion or a clean stop, when it is that of a replica,
    /// which has nothing that its master lacks, and while the process that it speaks of runs and is
    /// looked at. More than 0 after a master died that nobody had fenced, until its history is
    /// written anew.
    #[serde(default = "unknown_gap")]
    pub gap_ms: u64,
}

impl History {
    /// A master took writes for a time that nobody knows, as when its whole container was killed
    /// and the clock was set since.
    pub const UNKNOWN_GAP: u64 = u64::MAX;
}

/// What an agent wrote down that did not know of gaps yet.
fn unknown_gap() -> u64 {
    History::UNKNOWN_GAP
}
