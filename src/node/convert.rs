//! Between the wire and the agent's own types.

use std::time::Duration;

use crate::backup::format::BackupKey;
use crate::backup::stream::Expected;
use crate::model::archive::{ArchiveTask, Part};
use crate::model::backup::{
    BackupTask, RestoreTask, StorageKeys, StorageSpec, TaskPhase, VerifyTask,
};
use crate::model::import::{CopyTask, Difference, ImportTask, SourceSpec};
use crate::model::node::{
    Authority, History, NodeMesh, NodeState, PathKind, PeerPath, Process, RedisState, Refusal,
    RefusedSetting, Role,
};
use crate::model::step::{Quorum, SettingsUser};
use crate::wire::akash_redis::agent::v1 as wire;

use super::commands::Intent;
use super::redis_control::{ReplicationUser, WantedSettings};

/// A command as it is carried out.
pub enum Order {
    /// Bring the settings to these.
    Configure {
        /// Hash of the settings.
        generation: String,
        /// What Redis is to be set to.
        settings: Box<WantedSettings>,
        /// To be kept for an operator that lost its store.
        copy: Option<wire::KeptCopy>,
    },
    /// Become the master of the epoch.
    Promote {
        /// Who may replicate.
        users: Vec<ReplicationUser>,
        /// From the first write on.
        quorum: Quorum,
        /// Writes need not wait for the replicas that are on their way.
        planned: bool,
        /// The import that ends with it; empty where there is none.
        import: String,
    },
    /// Follow a master.
    Follow {
        /// Which incarnation it is; empty when the operator knows names only.
        incarnation: String,
        /// Its present mesh name.
        master: String,
        /// Own user there.
        user: String,
        /// Password of the replication user.
        password: secrecy::SecretString,
        /// Keep a snapshot before.
        save_first: bool,
        /// It is no master yet, and passes on the data of this epoch; 0 where it is the master.
        data_epoch: u64,
    },
    /// Stop replicating, or being a master.
    Detach {
        /// What its master sent last is waited for so long at most.
        drain: Duration,
    },
    /// Take away the data that redis does not start with.
    Discard {
        /// Keep them aside, whatever room is left.
        must_keep: bool,
    },
    /// Stop taking writes.
    Fence,
    /// Take writes again.
    Unfence(Quorum),
    /// Keep a snapshot under this label.
    Save(String),
    /// End the container in order.
    Restart,
    /// A replica lets others attach to it.
    Admit(Vec<ReplicationUser>),
    /// The promotion is carried out when its master says this word.
    AwaitHandover(Box<Order>, String),
    /// Stop taking writes, and say this word.
    HandOver(String),
    /// Take a snapshot and store it.
    Backup(Box<BackupObject>),
    /// Get the data of a backup.
    Restore(Box<BackupObject>, Expected, Option<LogObject>),
    /// Replicate from a running Redis, or copy it key by key; with the name of the last pass of a
    /// copy, where that is wanted.
    Import(Box<Source>, String),
    /// Archive the log of writes, or no more.
    Archive(Option<Box<ArchiveObject>>),
    /// Restore a backup beside the own data.
    Verify(Box<VerifyObject>),
}

/// A running Redis whose data are imported.
#[derive(Clone)]
pub struct Source {
    /// Name of the import.
    pub id: String,
    /// Where it is.
    pub spec: SourceSpec,
    /// Password of the user there; empty where none is needed.
    pub password: secrecy::SecretString,
    /// It lets nobody replicate: its keys are copied one by one.
    pub copy: bool,
}

/// What of an archived log is replayed.
#[derive(Clone)]
pub struct LogObject {
    /// The cluster that it is of.
    pub cluster: String,
    /// Its uid.
    pub uid: String,
    /// Below the URL of the storage.
    pub log: String,
    /// What of it, with the keys.
    pub parts: Vec<(Part, BackupKey)>,
}

/// A run of the archiving of the log, with all that is needed for it.
#[derive(Clone)]
pub struct ArchiveObject {
    /// Its name.
    pub run: String,
    /// Where it goes.
    pub storage: StorageSpec,
    /// The keys to that.
    pub keys: Option<StorageKeys>,
    /// Below the URL of the storage.
    pub log: String,
    /// The cluster.
    pub cluster: String,
    /// Its uid.
    pub uid: String,
    /// The key of the run.
    pub key: BackupKey,
    /// Begin anew where Redis does not have what follows.
    pub anew: bool,
}

/// A backup in a storage, with all that is needed to write or read it.
#[derive(Clone)]
pub struct BackupObject {
    /// Its name.
    pub id: String,
    /// Where it is.
    pub storage: StorageSpec,
    /// The keys to that.
    pub keys: Option<StorageKeys>,
    /// Below the URL of the storage.
    pub object: String,
    /// Its own key.
    pub key: BackupKey,
}

/// An attempt to restore a backup beside the own data.
pub struct VerifyObject {
    /// Its name.
    pub run: String,
    /// The backup.
    pub object: BackupObject,
    /// What it must be.
    pub expected: Expected,
    /// Memory that it may take, bytes.
    pub memory: u64,
}

impl Order {
    /// Reads a command; the error is a sentence.
    pub fn read(command: Option<wire::command_request::Command>) -> Result<Self, &'static str> {
        use wire::command_request::Command;
        Ok(
            match command
                .ok_or("the command is missing; the operator may be newer than this agent")?
            {
                Command::Configure(c) => Self::Configure {
                    settings: Box::new(WantedSettings {
                        users: c
                            .users
                            .into_iter()
                            .map(|u| SettingsUser {
                                name: u.name,
                                password_sha256: u.password_sha256,
                                rules: u.rules,
                            })
                            .collect(),
                        redis_config: c.redis_config.into_iter().collect(),
                        append_only: c.append_only,
                        maxmemory_bytes: c.maxmemory_bytes,
                        quorum: c.quorum.map(quorum),
                        replication: replication(c.replication_users),
                        stuck_after: Duration::from_secs(c.stuck_after_seconds.into()),
                    }),
                    generation: c.generation,
                    copy: c.kept_copy,
                },
                Command::Promote(p) => promotion(p)?,
                Command::AwaitHandover(a) => {
                    let promote =
                        a.promote.ok_or("a handover needs the promotion that it ends in")?;
                    Self::AwaitHandover(promotion(promote)?.into(), handover_word(a.word)?)
                }
                Command::HandOver(h) => Self::HandOver(handover_word(h.word)?),
                Command::Follow(f) => {
                    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
                    if f.master_name.is_empty()
                        || f.master_name.len() > 253
                        || !f.master_name.chars().all(plain)
                    {
                        return Err("the master's name is not a host name");
                    }
                    if f.master_incarnation.len() > 63
                        || !f
                            .master_incarnation
                            .chars()
                            .all(|c| c.is_ascii_alphanumeric() || c == '-')
                    {
                        return Err("the master's incarnation is not the name of one");
                    }
                    Self::Follow {
                        incarnation: f.master_incarnation,
                        master: f.master_name.to_ascii_lowercase(),
                        user: f.user,
                        password: f.password.into(),
                        save_first: f.save_first,
                        data_epoch: f.data_epoch,
                    }
                }
                Command::Detach(detach) => {
                    Self::Detach { drain: Duration::from_millis(detach.drain_ms.into()) }
                }
                Command::Discard(d) => Self::Discard { must_keep: d.must_keep },
                Command::Fence(_) => Self::Fence,
                Command::Unfence(u) => {
                    Self::Unfence(u.quorum.map(quorum).ok_or("taking writes again needs a quorum")?)
                }
                Command::Save(s) => Self::Save(s.label),
                Command::Restart(_) => Self::Restart,
                Command::Admit(a) => Self::Admit(replication(a.replication_users)),
                Command::Backup(b) => {
                    Self::Backup(object(b.id, b.storage, b.object, &b.key)?.into())
                }
                Command::Restore(r) => Self::Restore(
                    object(r.id, r.storage, r.object, &r.key)?.into(),
                    Expected { bytes: r.rdb_bytes, sha256: r.rdb_sha256 },
                    r.log.map(|log| log_object(log, r.parts)).transpose()?,
                ),
                Command::Import(mut i) => {
                    let last_pass = std::mem::take(&mut i.last_pass);
                    if !last_pass.is_empty() && !is_plain(&last_pass) {
                        return Err("the last pass has no name that is one");
                    }
                    Self::Import(source(i)?.into(), last_pass)
                }
                Command::Archive(a) if a.run.is_empty() => Self::Archive(None),
                Command::Archive(a) => Self::Archive(Some(archive_object(a)?.into())),
                Command::Verify(v) => Self::Verify(verify_object(v)?.into()),
            },
        )
    }

    /// What it wants, for the decision.
    #[must_use]
    pub fn intent(&self) -> Intent<'_> {
        match self {
            Self::Promote { .. } | Self::AwaitHandover(..) | Self::Unfence(_) => Intent::Lead,
            Self::Follow { incarnation, master, .. } => {
                Intent::Follow { incarnation, name: master }
            }
            Self::Configure { .. }
            | Self::Detach { .. }
            | Self::Discard { .. }
            | Self::Fence
            | Self::Restart
            | Self::Save(_)
            | Self::Admit(_)
            | Self::HandOver(_)
            | Self::Backup(_)
            | Self::Restore(..)
            | Self::Import(..)
            | Self::Archive(_)
            | Self::Verify(_) => Intent::Other,
        }
    }

    /// Its name, for the log.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Configure { .. } => "configure",
            Self::Promote { .. } => "promote",
            Self::Follow { .. } => "follow",
            Self::Detach { .. } => "detach",
            Self::Discard { .. } => "discard",
            Self::Fence => "fence",
            Self::Unfence(_) => "unfence",
            Self::Save(_) => "save",
            Self::Restart => "restart",
            Self::Admit(_) => "admit",
            Self::AwaitHandover(..) => "await handover",
            Self::HandOver(_) => "hand over",
            Self::Backup(_) => "backup",
            Self::Restore(..) => "restore",
            Self::Import(..) => "import",
            Self::Archive(_) => "archive",
            Self::Verify(_) => "verify",
        }
    }
}

fn promotion(promote: wire::Promote) -> Result<Order, &'static str> {
    Ok(Order::Promote {
        users: replication(promote.replication_users),
        quorum: promote.quorum.map(quorum).ok_or("a promotion needs a quorum")?,
        planned: promote.planned,
        import: promote.import_id,
    })
}

/// Whoever does not know it cannot guess it.
fn handover_word(word: String) -> Result<String, &'static str> {
    let fits = word.len() == 64 && word.bytes().all(|c| c.is_ascii_hexdigit());
    if fits { Ok(word) } else { Err("the word of a handover is 64 hexadecimal digits") }
}

fn quorum(quorum: wire::Quorum) -> Quorum {
    Quorum { min_replicas: quorum.min_replicas, max_lag_seconds: quorum.max_lag_seconds }
}

fn replication(users: Vec<wire::ReplicationUser>) -> Vec<ReplicationUser> {
    users
        .into_iter()
        .map(|u| ReplicationUser { name: u.name, password_sha256: u.password_sha256 })
        .collect()
}

/// Reads a pair.
#[must_use]
pub fn authority(pair: Option<wire::Authority>) -> Authority {
    // A missing pair is the lowest one: refused wherever anything was accepted before.
    pair.map_or(Authority::default(), |p| Authority { term: p.term, epoch: p.epoch })
}

/// The state as it is sent.
#[must_use]
pub fn state(state: NodeState) -> wire::NodeState {
    wire::NodeState {
        incarnation: state.incarnation,
        boot_id: state.boot_id,
        agent_version: state.agent_version,
        nonce: state.nonce,
        highest: Some(wire::Authority { term: state.highest.term, epoch: state.highest.epoch }),
        promoted: state.promoted,
        mesh: Some(mesh(state.mesh)),
        redis: Some(redis(state.redis)),
        history: state.history.map(|History { replid, offset, epoch, gap_ms }| wire::History {
            replid,
            offset,
            epoch,
            gap_ms: Some(gap_ms),
        }),
        configured: state.configured,
        notes: state.notes,
        saved: state.saved,
        refused: state
            .refused
            .into_iter()
            .map(|RefusedSetting { name, value, reason }| wire::RefusedSetting {
                name,
                value,
                reason,
            })
            .collect(),
        volume: state.volume.map(|v| wire::Space { free_bytes: v.free, total_bytes: v.total }),
        failed_starts: state.failed_starts,
        failed_start_line: state.failed_start_line,
        kept_copy: state.kept_copy,
        stopping: state.stopping,
        admits: state.admits,
        awaits: state.awaits,
        has_subscribers: state.has_subscribers,
        revision: state.revision,
        backup: state.backup.map(backup_task),
        restore: state.restore.map(restore_task),
        archive: state.archive.map(archive_task),
        import: state.import.map(import_task),
        verify: state.verify.map(verify_task),
    }
}

fn phase(phase: TaskPhase) -> i32 {
    match phase {
        TaskPhase::None => wire::TaskPhase::Unspecified,
        TaskPhase::Running => wire::TaskPhase::Running,
        TaskPhase::Done => wire::TaskPhase::Done,
        TaskPhase::Failed => wire::TaskPhase::Failed,
    }
    .into()
}

fn backup_task(task: BackupTask) -> wire::BackupTask {
    let BackupTask { id, phase: at, done_bytes, total_bytes, error, snapshot } = task;
    let snapshot = snapshot.map(|s| wire::Snapshot {
        redis: s.redis,
        replid: s.replid,
        offset: s.offset,
        keys: s.keys,
        stored_bytes: s.stored_bytes,
        stored_sha256: s.stored_sha256,
        rdb_bytes: s.rdb_bytes,
        rdb_sha256: s.rdb_sha256,
        memory_bytes: s.memory_bytes,
        exact_keys: s.exact_keys,
    });
    wire::BackupTask { id, phase: phase(at), done_bytes, total_bytes, error, snapshot }
}

fn restore_task(task: RestoreTask) -> wire::RestoreTask {
    let RestoreTask { id, phase: at, done_bytes, total_bytes, error, run_id } = task;
    wire::RestoreTask { id, phase: phase(at), done_bytes, total_bytes, error, run_id }
}

fn verify_task(task: VerifyTask) -> wire::VerifyTask {
    let VerifyTask { run, done_bytes, total_bytes, error, damaged, keys, .. } = task;
    let (phase, memory_bytes, took_ms) = (phase(task.phase), task.memory_bytes, task.took_ms);
    wire::VerifyTask {
        run,
        phase,
        done_bytes,
        total_bytes,
        error,
        damaged,
        keys,
        memory_bytes,
        took_ms,
    }
}

fn archive_task(task: ArchiveTask) -> wire::ArchiveTask {
    let ArchiveTask { run, phase: at, fresh, stored, behind_since, gap, error } = task;
    let behind_since_ms = behind_since.0;
    wire::ArchiveTask { run, phase: phase(at), fresh, stored, behind_since_ms, gap, error }
}

fn import_task(task: ImportTask) -> wire::ImportTask {
    wire::ImportTask {
        id: task.id,
        phase: phase(task.phase),
        error: task.error,
        version: task.version,
        answers: task.answers,
        replid: task.replid,
        offset: task.offset,
        keys: task.keys,
        lag_ms: task.lag_ms,
        still_ms: task.still_ms,
        can_pause: task.can_pause,
        refused_epoch: task.refused_epoch,
        refused: task.refused,
        copy: task.copy.map(copy_task),
    }
}

fn copy_task(task: CopyTask) -> wire::CopyTask {
    let Difference { changed, added, gone, left, names } = task.difference;
    wire::CopyTask {
        copied: task.copied,
        pass: task.pass,
        done: task.done,
        failed: task.failed,
        looked_at: task.looked_at,
        keys_per_second: task.keys_per_second,
        bytes_per_second: task.bytes_per_second,
        changed,
        added,
        gone,
        left,
        names,
    }
}

fn source(from: wire::Import) -> Result<Source, &'static str> {
    let wire::Import { id, host, port, user, password, tls, ca, server_name, copy, .. } = from;
    let port = u16::try_from(port).ok().filter(|port| *port > 0);
    let port = port.ok_or("the source has no port that is one")?;
    if !is_plain(&id) {
        return Err("the import has no name that is one");
    }
    if host.is_empty() || host.len() > 253 {
        return Err("the source has no host that is one");
    }
    let spec = SourceSpec { host, port, user, tls, ca, server_name };
    Ok(Source { id, spec, password: password.into(), copy })
}

/// A storage, and the keys to it where there are some.
fn storage(from: wire::ObjectStorage) -> (StorageSpec, Option<StorageKeys>) {
    let wire::ObjectStorage { url, endpoint, region, ca, access_key_id, secret_access_key } = from;
    let keys = (!access_key_id.is_empty())
        .then(|| StorageKeys { id: access_key_id, secret: secret_access_key.into() });
    (StorageSpec { url, endpoint, region, ca }, keys)
}

/// A backup as a command names it.
fn object(
    id: String,
    at: Option<wire::ObjectStorage>,
    object: String,
    key: &[u8],
) -> Result<BackupObject, &'static str> {
    if !is_plain(&id) {
        return Err("the backup has no name that is one");
    }
    let (storage, keys) = storage(at.ok_or("the command names no storage")?);
    let key = BackupKey(key.try_into().map_err(|_| "the backup's key has not 32 bytes")?);
    Ok(BackupObject { id, storage, keys, object, key })
}

fn verify_object(from: wire::Verify) -> Result<VerifyObject, &'static str> {
    if !is_plain(&from.run) {
        return Err("the attempt has no name that is one");
    }
    Ok(VerifyObject {
        run: from.run,
        object: object(from.id, from.storage, from.object, &from.key)?,
        expected: Expected { bytes: from.rdb_bytes, sha256: from.rdb_sha256 },
        memory: from.memory_bytes,
    })
}

fn is_plain(id: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    !id.is_empty() && id.len() <= 64 && id.chars().all(plain)
}

fn log_object(log: wire::Log, parts: Vec<wire::LogPart>) -> Result<LogObject, &'static str> {
    let wire::Log { cluster, uid, prefix } = log;
    let part = |part: wire::LogPart| {
        let wire::LogPart { run, key, first, end } = part;
        let key: Result<[u8; 32], _> = key.as_slice().try_into();
        let key = key.map_err(|_| "the key of a run has not 32 bytes")?;
        if !is_plain(&run) {
            return Err("a run has no name that is one");
        }
        Ok((Part { run, first, end }, BackupKey(key)))
    };
    let parts = parts.into_iter().map(part).collect::<Result<_, _>>()?;
    Ok(LogObject { cluster, uid, log: prefix, parts })
}

fn archive_object(from: wire::Archive) -> Result<ArchiveObject, &'static str> {
    let wire::Archive { run, storage: at, log, key, anew } = from;
    if !is_plain(&run) {
        return Err("the run has no name that is one");
    }
    let (storage, keys) = storage(at.ok_or("the command names no storage")?);
    let wire::Log { cluster, uid, prefix: log } = log.ok_or("the command names no log")?;
    let key: Result<[u8; 32], _> = key.as_slice().try_into();
    let key = BackupKey(key.map_err(|_| "the key of the run has not 32 bytes")?);
    Ok(ArchiveObject { run, storage, keys, log, cluster, uid, key, anew })
}

fn mesh(mesh: NodeMesh) -> wire::Mesh {
    let NodeMesh {
        backend_state,
        dns_name,
        ip,
        device_id,
        health,
        visible_peers,
        visible_ids,
        paths,
    } = mesh;
    let paths = paths.into_iter().map(path).collect();
    let backend_state = backend_state.into();
    wire::Mesh { backend_state, dns_name, ip, device_id, health, visible_peers, paths, visible_ids }
}

fn path(path: PeerPath) -> wire::PeerPath {
    let PeerPath { name, kind, via, rtt_us, rx_bytes, tx_bytes } = path;
    let kind = match kind {
        PathKind::Unknown => wire::PathKind::Unspecified,
        PathKind::Direct => wire::PathKind::Direct,
        PathKind::PeerRelay => wire::PathKind::PeerRelay,
        PathKind::Derp => wire::PathKind::Derp,
    };
    wire::PeerPath { name, kind: kind.into(), via, rtt_us, rx_bytes, tx_bytes }
}

fn redis(redis: RedisState) -> wire::Redis {
    let process = match redis.process {
        Process::Starting => wire::Process::Starting,
        Process::Running => wire::Process::Running,
        Process::Stuck => wire::Process::Stuck,
        Process::Exited => wire::Process::Exited,
    };
    let role = match redis.role {
        Role::Unknown => wire::Role::Unspecified,
        Role::Master => wire::Role::Master,
        Role::Replica => wire::Role::Replica,
    };
    let (linked, syncing) = (redis.is_linked(), redis.is_syncing());
    let replicas = redis.replicas.into_iter();
    wire::Redis {
        process: process.into(),
        role: role.into(),
        run_id: redis.run_id,
        version: redis.version,
        loading: redis.loading,
        replid: redis.replid,
        replid2: redis.replid2,
        second_offset: redis.second_offset,
        offset: redis.offset,
        used_memory_bytes: redis.used_memory_bytes,
        keys: redis.keys,
        master_host: redis.master_host,
        link_up: linked,
        silent_ms: redis.silent_ms,
        sync_in_progress: syncing,
        online_epoch: redis.online_epoch,
        sync_done_bytes: redis.sync_done_bytes,
        sync_total_bytes: redis.sync_total_bytes,
        replicas: replicas
            .map(|r| wire::AttachedReplica {
                name: r.name,
                state: r.state.into(),
                offset: r.offset,
                lag_seconds: r.lag_seconds,
                behind_ms: r.behind_ms,
            })
            .collect(),
        quorum: Some(wire::Quorum {
            min_replicas: redis.min_replicas,
            max_lag_seconds: redis.max_lag_seconds,
        }),
        fenced: redis.fenced,
        refusal: redis.health.refusal.map(|Refusal { code, words, since_ms }| wire::Refusal {
            code,
            words,
            since_ms,
        }),
        busy: redis.health.busy,
        snapshot_failed: redis.health.unwritten.snapshot,
        log_failed: redis.health.unwritten.log,
        rewrite_failed: redis.health.unwritten.rewrite,
        maxmemory_bytes: redis.health.maxmemory_bytes,
        syncs_in_a_row: redis.health.syncs_in_a_row,
        load: redis.load.map(|load| wire::Load {
            ops_per_second: load.ops_per_second,
            clients: load.clients,
            evicted_keys: load.evicted_keys,
            last_save_seconds: load.last_save_seconds,
        }),
    }
}
