//! Between the agent protocol and the model.

use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

use super::kept_copy;
use crate::backup::archive::log_prefix;
use crate::backup::data_object;
use crate::model::archive::{ArchiveTask, Part};
use crate::model::backup::{BackupTask, RestoreTask, Snapshot, StorageKeys, TaskPhase, VerifyTask};
use crate::model::ids::IncarnationName;
use crate::model::import::{CopyTask, Difference, ImportTask, SourceRef, SourceSpec};
use crate::model::node::{
    AttachedReplica, Authority, Health, History, Link, Load, NodeMesh, NodeState, PathKind,
    PeerPath, Process, RedisState, Refusal, RefusedSetting, Role, Space, Unwritten,
};
use crate::model::step::{Command, NodeSettings, Quorum, ReplicationGrant, StorageRef};
use crate::model::text::{clipped, few};
use crate::model::time::UnixMs;
use crate::secrets::RootSecret;
use crate::wire::akash_redis::agent::v1 as wire;

/// Largest report that is taken, bytes: one of a tailnet with some ten thousand peers. A node that
/// sends more is not heard; leaving peers out would say that they are gone.
pub const LARGEST_STATE: usize = 1024 * 1024;
/// A sentence of a node's own, bytes.
pub const SENTENCE: usize = 500;
/// An id, an address or the name of something on the mesh.
const NAME: usize = 253;
/// Sentences, labels, paths and replicas that are taken.
pub const SENTENCES: usize = 16;
const LIST: usize = 64;

/// A node's report, cut to what a node that means well sends. Absent parts are empty.
pub fn node_state(state: wire::NodeState) -> NodeState {
    let highest = state.highest.unwrap_or_default();
    let mesh = state.mesh.unwrap_or_default();
    NodeState {
        incarnation: name(state.incarnation),
        boot_id: name(state.boot_id),
        agent_version: name(state.agent_version),
        nonce: name(state.nonce),
        highest: Authority { term: highest.term, epoch: highest.epoch },
        promoted: state.promoted,
        mesh: NodeMesh {
            backend_state: name(mesh.backend_state).into(),
            dns_name: name(mesh.dns_name),
            ip: name(mesh.ip),
            device_id: name(mesh.device_id),
            health: few(mesh.health, SENTENCES, SENTENCE),
            visible_peers: mesh.visible_peers.into_iter().map(name).collect(),
            visible_ids: mesh.visible_ids.into_iter().map(name).collect(),
            paths: mesh.paths.into_iter().take(LIST).map(path).collect(),
        },
        redis: redis(state.redis.unwrap_or_default()),
        history: state.history.map(|h| History {
            // An agent that says nothing of gaps wrote this down each second.
            gap_ms: h.gap_ms.unwrap_or(History::UNKNOWN_GAP),
            replid: name(h.replid),
            offset: h.offset,
            epoch: h.epoch,
        }),
        configured: name(state.configured),
        notes: few(state.notes, SENTENCES, SENTENCE),
        saved: few(state.saved, LIST, NAME),
        refused: state.refused.into_iter().take(SENTENCES).map(refused).collect(),
        volume: state.volume.map(|v| Space { free: v.free_bytes, total: v.total_bytes }),
        failed_starts: state.failed_starts,
        failed_start_line: clipped(state.failed_start_line, SENTENCE),
        kept_copy: state.kept_copy.map(name),
        stopping: state.stopping,
        admits: state.admits,
        awaits: state.awaits,
        has_subscribers: state.has_subscribers,
        revision: name(state.revision),
        backup: state.backup.map(backup_task),
        restore: state.restore.map(restore_task),
        archive: state.archive.map(archive_task),
        import: state.import.map(import_task),
        verify: state.verify.map(verify_task),
    }
}

fn phase(phase: wire::TaskPhase) -> TaskPhase {
    match phase {
        wire::TaskPhase::Unspecified => TaskPhase::None,
        wire::TaskPhase::Running => TaskPhase::Running,
        wire::TaskPhase::Done => TaskPhase::Done,
        wire::TaskPhase::Failed => TaskPhase::Failed,
    }
}

fn backup_task(task: wire::BackupTask) -> BackupTask {
    let at = phase(task.phase());
    let wire::BackupTask { id, done_bytes, total_bytes, error, snapshot, .. } = task;
    let snapshot = snapshot.map(|s| Snapshot {
        redis: name(s.redis),
        replid: name(s.replid),
        offset: s.offset,
        keys: s.keys,
        stored_bytes: s.stored_bytes,
        stored_sha256: name(s.stored_sha256),
        rdb_bytes: s.rdb_bytes,
        rdb_sha256: name(s.rdb_sha256),
        memory_bytes: s.memory_bytes,
        exact_keys: s.exact_keys,
    });
    let (id, error) = (name(id), clipped(error, SENTENCE));
    BackupTask { id, phase: at, done_bytes, total_bytes, error, snapshot }
}

fn verify_task(task: wire::VerifyTask) -> VerifyTask {
    let at = phase(task.phase());
    let wire::VerifyTask { done_bytes, total_bytes, damaged, keys, memory_bytes, took_ms, .. } =
        task;
    let (run, error) = (name(task.run), clipped(task.error, SENTENCE));
    VerifyTask {
        run,
        phase: at,
        done_bytes,
        total_bytes,
        error,
        damaged,
        keys,
        memory_bytes,
        took_ms,
    }
}

fn restore_task(task: wire::RestoreTask) -> RestoreTask {
    let at = phase(task.phase());
    let wire::RestoreTask { id, done_bytes, total_bytes, error, run_id, .. } = task;
    let (id, error, run_id) = (name(id), clipped(error, SENTENCE), name(run_id));
    RestoreTask { id, phase: at, done_bytes, total_bytes, error, run_id }
}

fn import_task(task: wire::ImportTask) -> ImportTask {
    let at = phase(task.phase());
    ImportTask {
        id: name(task.id),
        phase: at,
        error: clipped(task.error, SENTENCE),
        version: name(task.version),
        answers: task.answers,
        replid: name(task.replid),
        offset: task.offset,
        keys: task.keys,
        lag_ms: task.lag_ms,
        still_ms: task.still_ms,
        can_pause: task.can_pause,
        refused_epoch: task.refused_epoch,
        refused: clipped(task.refused, SENTENCE),
        copy: task.copy.map(copy_task),
    }
}

fn copy_task(task: wire::CopyTask) -> CopyTask {
    let names = few(task.names, Difference::NAMES, NAME);
    let (changed, added, gone, left) = (task.changed, task.added, task.gone, task.left);
    CopyTask {
        copied: task.copied,
        pass: name(task.pass),
        done: task.done,
        failed: clipped(task.failed, SENTENCE),
        looked_at: task.looked_at,
        keys_per_second: task.keys_per_second,
        bytes_per_second: task.bytes_per_second,
        difference: Difference { changed, added, gone, left, names },
    }
}

fn archive_task(task: wire::ArchiveTask) -> ArchiveTask {
    let at = phase(task.phase());
    let wire::ArchiveTask { run, fresh, stored, behind_since_ms, gap, error, .. } = task;
    let (run, error, behind_since) = (name(run), clipped(error, SENTENCE), UnixMs(behind_since_ms));
    ArchiveTask { run, phase: at, fresh, stored, behind_since, gap, error }
}

fn name(text: String) -> String {
    clipped(text, NAME)
}

fn refused(refused: wire::RefusedSetting) -> RefusedSetting {
    let wire::RefusedSetting { name: setting, value, reason } = refused;
    RefusedSetting { name: name(setting), value: name(value), reason: clipped(reason, SENTENCE) }
}

fn path(path: wire::PeerPath) -> PeerPath {
    let kind = match path.kind() {
        wire::PathKind::Unspecified => PathKind::Unknown,
        wire::PathKind::Direct => PathKind::Direct,
        wire::PathKind::PeerRelay => PathKind::PeerRelay,
        wire::PathKind::Derp => PathKind::Derp,
    };
    let wire::PeerPath { name: peer, via, rtt_us, rx_bytes, tx_bytes, .. } = path;
    PeerPath { name: name(peer), kind, via: name(via), rtt_us, rx_bytes, tx_bytes }
}

fn health(redis: &wire::Redis) -> Health {
    Health {
        refusal: redis.refusal.clone().map(|r| Refusal {
            code: name(r.code),
            words: clipped(r.words, SENTENCE),
            since_ms: r.since_ms,
        }),
        busy: redis.busy,
        unwritten: Unwritten {
            snapshot: redis.snapshot_failed,
            log: redis.log_failed,
            rewrite: redis.rewrite_failed,
        },
        maxmemory_bytes: redis.maxmemory_bytes,
        syncs_in_a_row: redis.syncs_in_a_row,
    }
}

fn redis(redis: wire::Redis) -> RedisState {
    let quorum = redis.quorum.unwrap_or_default();
    RedisState {
        health: health(&redis),
        process: match redis.process() {
            wire::Process::Running => Process::Running,
            wire::Process::Stuck => Process::Stuck,
            wire::Process::Exited => Process::Exited,
            wire::Process::Starting | wire::Process::Unspecified => Process::Starting,
        },
        role: match redis.role() {
            wire::Role::Master => Role::Master,
            wire::Role::Replica => Role::Replica,
            wire::Role::Unspecified => Role::Unknown,
        },
        run_id: name(redis.run_id),
        version: name(redis.version),
        loading: redis.loading,
        replid: name(redis.replid),
        replid2: name(redis.replid2),
        second_offset: redis.second_offset,
        offset: redis.offset,
        used_memory_bytes: redis.used_memory_bytes,
        keys: redis.keys,
        master_host: name(redis.master_host),
        link: Link::of(redis.link_up, redis.sync_in_progress),
        silent_ms: redis.silent_ms,
        online_epoch: redis.online_epoch,
        sync_done_bytes: redis.sync_done_bytes,
        sync_total_bytes: redis.sync_total_bytes,
        replicas: redis
            .replicas
            .into_iter()
            .take(LIST)
            .map(|r| AttachedReplica {
                name: name(r.name),
                state: name(r.state).into(),
                offset: r.offset,
                lag_seconds: r.lag_seconds,
                behind_ms: r.behind_ms,
            })
            .collect(),
        min_replicas: quorum.min_replicas,
        max_lag_seconds: quorum.max_lag_seconds,
        fenced: redis.fenced,
        load: redis.load.map(|load| Load {
            ops_per_second: load.ops_per_second,
            clients: load.clients,
            evicted_keys: load.evicted_keys,
            last_save_seconds: load.last_save_seconds,
        }),
    }
}

/// A command with its secrets filled in.
pub fn command(
    root: &RootSecret,
    incarnation: &IncarnationName,
    authority: Authority,
    nonce: String,
    command: &Command,
) -> wire::CommandRequest {
    use wire::command_request::Command as Wire;
    let command = match command {
        Command::Configure(settings) => Wire::Configure(configure(root, settings)),
        Command::Promote { replicas, quorum: q, planned, import } => Wire::Promote(wire::Promote {
            replication_users: users(root, replicas),
            quorum: Some(quorum(*q)),
            planned: *planned,
            import_id: import.clone(),
        }),
        Command::AwaitHandover { replicas, quorum: q, planned } => {
            Wire::AwaitHandover(wire::AwaitHandover {
                promote: Some(wire::Promote {
                    replication_users: users(root, replicas),
                    quorum: Some(quorum(*q)),
                    planned: *planned,
                    import_id: String::new(),
                }),
                word: root.handover_word(incarnation, authority.epoch),
            })
        }
        Command::HandOver { to } => {
            Wire::HandOver(wire::HandOver { word: root.handover_word(to, authority.epoch) })
        }
        Command::Follow { master, master_name, grant, save_first, data_epoch } => {
            let credentials = root.replication_credentials(&grant.incarnation, grant.epoch);
            Wire::Follow(wire::Follow {
                master_name: master_name.clone(),
                master_incarnation: master.0.clone(),
                user: credentials.user,
                password: credentials.password.expose_secret().to_owned(),
                save_first: *save_first,
                data_epoch: *data_epoch,
            })
        }
        Command::Save { label } => Wire::Save(wire::Save { label: label.clone() }),
        Command::Detach { drain_ms } => Wire::Detach(wire::Detach { drain_ms: *drain_ms }),
        Command::Discard { must_keep } => Wire::Discard(wire::Discard { must_keep: *must_keep }),
        Command::Fence => Wire::Fence(wire::Fence {}),
        Command::Restart => Wire::Restart(wire::Restart {}),
        Command::Unfence { quorum: q } => Wire::Unfence(wire::Unfence { quorum: Some(quorum(*q)) }),
        Command::Admit { replicas } => {
            Wire::Admit(wire::Admit { replication_users: users(root, replicas) })
        }
        Command::Backup { id, storage } => Wire::Backup(wire::Backup {
            id: id.clone(),
            storage: Some(object_storage(root, storage)),
            object: data_object(&root.installation_id(), &storage.cluster, id),
            key: root.backup_key(id).to_vec(),
        }),
        Command::Restore { id, storage, rdb_bytes, rdb_sha256, point } => {
            let parts = point.iter().flat_map(|point| &point.parts);
            Wire::Restore(wire::Restore {
                id: id.clone(),
                storage: Some(object_storage(root, storage)),
                object: data_object(&root.installation_id(), &storage.cluster, id),
                key: root.backup_key(id).to_vec(),
                rdb_bytes: *rdb_bytes,
                rdb_sha256: rdb_sha256.clone(),
                log: point.as_ref().map(|point| log(root, storage, &point.uid)),
                parts: parts.map(|part| log_part(root, part)).collect(),
            })
        }
        Command::Import { source, last_pass } => Wire::Import(import(root, source, last_pass)),
        Command::Archive { run, uid, storage, anew } => Wire::Archive(wire::Archive {
            run: run.clone(),
            storage: Some(object_storage(root, storage)),
            log: Some(log(root, storage, uid)),
            key: root.backup_key(run).to_vec(),
            anew: *anew,
        }),
        Command::StopArchive => Wire::Archive(wire::Archive::default()),
        Command::Verify { run, id, storage, rdb_bytes, rdb_sha256, memory_bytes } => {
            Wire::Verify(wire::Verify {
                run: run.clone(),
                id: id.clone(),
                storage: Some(object_storage(root, storage)),
                object: data_object(&root.installation_id(), &storage.cluster, id),
                key: root.backup_key(id).to_vec(),
                rdb_bytes: *rdb_bytes,
                rdb_sha256: rdb_sha256.clone(),
                memory_bytes: *memory_bytes,
            })
        }
    };
    wire::CommandRequest {
        authority: Some(wire::Authority { term: authority.term, epoch: authority.epoch }),
        nonce,
        command: Some(command),
    }
}

/// A password that cannot be opened is left out: the source says that it needs one.
fn import(root: &RootSecret, source: &SourceRef, last_pass: &str) -> wire::Import {
    let password = root.unseal(&source.sealed_for, &source.sealed);
    let SourceSpec { host, port, user, tls, ca, server_name } = source.spec.clone();
    wire::Import {
        id: source.id(),
        host,
        port: port.into(),
        user,
        password: password.map(|p| p.expose_secret().to_owned()).unwrap_or_default(),
        tls,
        ca,
        server_name,
        copy: source.copy,
        last_pass: last_pass.to_owned(),
    }
}

fn log(root: &RootSecret, at: &StorageRef, uid: &str) -> wire::Log {
    let cluster = at.cluster.clone();
    let prefix = log_prefix(&root.installation_id(), &cluster);
    wire::Log { cluster, uid: uid.to_owned(), prefix }
}

fn log_part(root: &RootSecret, part: &Part) -> wire::LogPart {
    let key = root.backup_key(&part.run).to_vec();
    wire::LogPart { run: part.run.clone(), key, first: part.first, end: part.end }
}

/// Keys that cannot be opened are left out: the node says that it needs some.
fn object_storage(root: &RootSecret, at: &StorageRef) -> wire::ObjectStorage {
    let keys = storage_keys(root, at);
    let secret = keys.as_ref().map(|keys| keys.secret.expose_secret().to_owned());
    wire::ObjectStorage {
        url: at.spec.url.clone(),
        endpoint: at.spec.endpoint.clone(),
        region: at.spec.region.clone(),
        ca: at.spec.ca.clone(),
        access_key_id: keys.map(|keys| keys.id).unwrap_or_default(),
        secret_access_key: secret.unwrap_or_default(),
    }
}

/// The keys to a storage, opened; none where there are none, or another root secret sealed them.
pub fn storage_keys(root: &RootSecret, at: &StorageRef) -> Option<StorageKeys> {
    StorageKeys::read(root.unseal(&at.sealed_for, &at.sealed)?.expose_secret())
}

fn configure(root: &RootSecret, settings: &NodeSettings) -> wire::Configure {
    wire::Configure {
        generation: settings.generation.clone(),
        users: settings
            .users
            .iter()
            .map(|u| wire::AclUser {
                name: u.name.clone(),
                password_sha256: u.password_sha256.clone(),
                rules: u.rules.clone(),
            })
            .collect(),
        redis_config: settings.redis_config.iter().cloned().collect(),
        append_only: settings.append_only,
        maxmemory_bytes: settings.maxmemory_bytes,
        quorum: Some(quorum(settings.quorum)),
        replication_users: users(root, &settings.replicas),
        stuck_after_seconds: settings.stuck_after_seconds,
        kept_copy: settings.copy.as_deref().map(|content| kept_copy::signed(root, content)),
    }
}

fn quorum(quorum: Quorum) -> wire::Quorum {
    wire::Quorum { min_replicas: quorum.min_replicas, max_lag_seconds: quorum.max_lag_seconds }
}

fn users(root: &RootSecret, grants: &[ReplicationGrant]) -> Vec<wire::ReplicationUser> {
    grants
        .iter()
        .map(|grant| {
            let credentials = root.replication_credentials(&grant.incarnation, grant.epoch);
            let hash = Sha256::digest(credentials.password.expose_secret().as_bytes());
            wire::ReplicationUser { name: credentials.user, password_sha256: hex::encode(hash) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_sends_megabytes_is_cut_to_what_fits() {
        let huge = || "x".repeat(3_000_000);
        let peer = wire::PeerPath { name: huge(), via: huge(), ..wire::PeerPath::default() };
        let replica = wire::AttachedReplica {
            name: huge(),
            state: huge(),
            ..wire::AttachedReplica::default()
        };
        let state = node_state(wire::NodeState {
            incarnation: huge(),
            boot_id: huge(),
            agent_version: huge(),
            nonce: huge(),
            configured: huge(),
            notes: vec![huge(); 20],
            saved: vec!["x".into(); 100_000],
            refused: vec![
                wire::RefusedSetting { name: huge(), value: huge(), reason: huge() };
                100
            ],
            failed_start_line: huge(),
            kept_copy: Some(huge()),
            history: Some(wire::History { replid: huge(), ..wire::History::default() }),
            mesh: Some(wire::Mesh {
                backend_state: huge(),
                dns_name: huge(),
                ip: huge(),
                device_id: huge(),
                health: vec![huge(); 20],
                visible_peers: vec![huge()],
                visible_ids: vec![huge()],
                paths: vec![peer; 100],
            }),
            redis: Some(wire::Redis {
                run_id: huge(),
                version: huge(),
                replid: huge(),
                replid2: huge(),
                master_host: huge(),
                replicas: vec![replica; 100],
                refusal: Some(wire::Refusal { code: huge(), words: huge(), since_ms: 1 }),
                ..wire::Redis::default()
            }),
            ..wire::NodeState::default()
        });
        let text = serde_json::to_string(&state).unwrap();
        assert!(text.len() < 120_000, "{}", text.len());
    }

    #[test]
    fn an_agent_that_knows_of_no_gap_leaves_it_unknown() {
        let gap = |gap_ms| {
            let history = Some(wire::History { gap_ms, ..wire::History::default() });
            node_state(wire::NodeState { history, ..wire::NodeState::default() })
                .history
                .unwrap()
                .gap_ms
        };
        assert_eq!((gap(None), gap(Some(0)), gap(Some(7))), (History::UNKNOWN_GAP, 0, 7));
    }
}
