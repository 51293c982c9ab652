//! Between the agent protocol and the model.

use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

use crate::model::node::{AttachedReplica, Authority, History, NodeMesh, NodeState, PathKind, PeerPath, Process, RedisState, Role};
use crate::model::step::{Command, NodeSettings, Quorum, ReplicationGrant};
use crate::secrets::RootSecret;
use crate::wire::akash_redis::agent::v1 as wire;

/// A node's report. Absent parts are empty.
pub fn node_state(state: wire::NodeState) -> NodeState {
    let highest = state.highest.unwrap_or_default();
    let mesh = state.mesh.unwrap_or_default();
    NodeState {
        incarnation: state.incarnation,
        boot_id: state.boot_id,
        agent_version: state.agent_version,
        nonce: state.nonce,
        highest: Authority { term: highest.term, epoch: highest.epoch },
        promoted: state.promoted,
        mesh: NodeMesh {
            backend_state: mesh.backend_state,
            dns_name: mesh.dns_name,
            ip: mesh.ip,
            device_id: mesh.device_id,
            health: mesh.health,
            visible_peers: mesh.visible_peers,
            visible_ids: mesh.visible_ids,
            paths: mesh.paths.into_iter().map(path).collect(),
        },
        redis: redis(state.redis.unwrap_or_default()),
        history: state.history.map(|h| History {
            // An agent that says nothing of gaps wrote this down each second.
            gap_ms: h.gap_ms.unwrap_or(History::UNKNOWN_GAP),
            replid: h.replid,
            offset: h.offset,
            epoch: h.epoch,
        }),
        configured: state.configured,
        notes: state.notes,
        saved: state.saved,
    }
}

fn path(path: wire::PeerPath) -> PeerPath {
    let kind = match path.kind() {
        wire::PathKind::Unspecified => PathKind::Unknown,
        wire::PathKind::Direct => PathKind::Direct,
        wire::PathKind::PeerRelay => PathKind::PeerRelay,
        wire::PathKind::Derp => PathKind::Derp,
    };
    let wire::PeerPath { name, via, rtt_us, rx_bytes, tx_bytes, .. } = path;
    PeerPath { name, kind, via, rtt_us, rx_bytes, tx_bytes }
}

fn redis(redis: wire::Redis) -> RedisState {
    let quorum = redis.quorum.unwrap_or_default();
    RedisState {
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
        link_up: redis.link_up,
        silent_ms: redis.silent_ms,
        sync_in_progress: redis.sync_in_progress,
        online_epoch: redis.online_epoch,
        sync_done_bytes: redis.sync_done_bytes,
        sync_total_bytes: redis.sync_total_bytes,
        replicas: redis
            .replicas
            .into_iter()
            .map(|r| AttachedReplica { name: r.name, state: r.state, offset: r.offset, lag_seconds: r.lag_seconds })
            .collect(),
        min_replicas: quorum.min_replicas,
        max_lag_seconds: quorum.max_lag_seconds,
        fenced: redis.fenced,
    }
}

/// A command with its secrets filled in.
pub fn command(root: &RootSecret, authority: Authority, nonce: String, command: &Command) -> wire::CommandRequest {
    use wire::command_request::Command as Wire;
    let command = match command {
        Command::Configure(settings) => Wire::Configure(configure(root, settings)),
        Command::Promote { replicas, quorum: q } => {
            Wire::Promote(wire::Promote { replication_users: users(root, replicas), quorum: Some(quorum(*q)) })
        }
        Command::Follow { master, master_name, grant, save_first } => {
            let credentials = root.replication_credentials(&grant.incarnation, grant.epoch);
            Wire::Follow(wire::Follow {
                master_name: master_name.clone(),
                master_incarnation: master.0.clone(),
                user: credentials.user,
                password: credentials.password.expose_secret().to_owned(),
                save_first: *save_first,
            })
        }
        Command::Save { label } => Wire::Save(wire::Save { label: label.clone() }),
        Command::Detach => Wire::Detach(wire::Detach {}),
        Command::Fence => Wire::Fence(wire::Fence {}),
        Command::Unfence { quorum: q } => Wire::Unfence(wire::Unfence { quorum: Some(quorum(*q)) }),
    };
    wire::CommandRequest {
        authority: Some(wire::Authority { term: authority.term, epoch: authority.epoch }),
        nonce,
        command: Some(command),
    }
}

fn configure(root: &RootSecret, settings: &NodeSettings) -> wire::Configure {
    wire::Configure {
        generation: settings.generation.clone(),
        users: settings
            .users
            .iter()
            .map(|u| wire::AclUser { name: u.name.clone(), password_sha256: u.password_sha256.clone(), rules: u.rules.clone() })
            .collect(),
        redis_config: settings.redis_config.iter().cloned().collect(),
        append_only: settings.append_only,
        maxmemory_bytes: settings.maxmemory_bytes,
        quorum: Some(quorum(settings.quorum)),
        replication_users: users(root, &settings.replicas),
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
