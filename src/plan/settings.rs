//! The settings a node shall have.

use sha2::{Digest, Sha256};

use super::draft::Draft;
use super::facts;
use crate::api::defaults;
use crate::api::types::Spec;
use crate::model::ids::IncarnationName;
use crate::model::record::Record;
use crate::model::step::{Command, NodeSettings, Quorum, ReplicationGrant, SettingsUser};

/// How many replicas a write needs (safety.md section 2).
///
/// With two nodes it is 1 only while the replica counts as a candidate or is just being raised to one.
#[must_use]
pub fn quorum_of(spec: &Spec, record: &Record, replica_attached: bool) -> Quorum {
    let lag = spec.failover.down_after.0.as_secs().saturating_sub(2).max(1);
    let master = record.master.as_ref().map(|p| &p.incarnation);
    let candidate = record.incarnations.iter().any(|(n, i)| Some(n) != master && i.condemned.is_none() && i.candidate);
    let min_replicas = match spec.nodes {
        0 | 1 => 0,
        2 => u32::from(candidate || replica_attached),
        _ => 1,
    };
    Quorum { min_replicas, max_lag_seconds: u32::try_from(lag).unwrap_or(u32::MAX) }
}

/// The quorum now.
pub fn quorum(draft: &Draft<'_>) -> Quorum {
    let master = draft.record.master.as_ref().and_then(|p| draft.connected(&p.incarnation));
    let attached = master.is_some_and(|m| {
        draft.live().iter().any(|(n, _)| draft.connected(n).is_some_and(|s| !s.redis.sync_in_progress && super::roles::attached(m, s)))
    });
    quorum_of(draft.spec(), &draft.record, attached)
}

/// Who may replicate from the master of the present choice.
pub fn grants(draft: &Draft<'_>) -> Vec<ReplicationGrant> {
    let Some(promotion) = &draft.record.master else { return Vec::new() };
    let mut grants: Vec<_> = draft
        .live()
        .into_iter()
        .filter(|(n, i)| i.member && n != &promotion.incarnation)
        .map(|(incarnation, _)| ReplicationGrant { incarnation, epoch: promotion.epoch })
        .collect();
    grants.sort();
    grants
}

/// The settings of one node; replication users exist on the master only.
pub fn for_node(draft: &Draft<'_>, name: &IncarnationName) -> NodeSettings {
    let spec = draft.spec();
    let is_master = draft.record.master.as_ref().is_some_and(|p| &p.incarnation == name);
    // These two are values of their own: they have defaults that follow from the resources.
    let own = [defaults::MAXMEMORY, defaults::APPENDONLY];
    let users = spec.redis.users.iter().map(|u| SettingsUser {
        name: u.name.clone(),
        password_sha256: u.password_sha256.clone().into_iter().collect(),
        rules: u.rules.clone(),
    });
    let mut settings = NodeSettings {
        generation: String::new(),
        users: users.collect(),
        redis_config: spec.redis.config.iter().filter(|(k, _)| !own.contains(&k.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect(),
        append_only: defaults::append_only(spec),
        maxmemory_bytes: defaults::maxmemory(spec),
        quorum: if is_master { quorum(draft) } else { Quorum { min_replicas: 0, ..quorum(draft) } },
        replicas: if is_master { grants(draft) } else { Vec::new() },
    };
    settings.generation = hex::encode(&Sha256::digest(format!("{settings:?}"))[..8]);
    settings
}

/// Brings the settings of every node that differs up to date; not while the master changes.
pub fn configure(draft: &mut Draft<'_>) {
    if draft.record.change.is_some() {
        return;
    }
    for (name, _) in draft.live() {
        let Some(state) = draft.connected(&name) else { continue };
        if !facts::running(&state.redis) {
            continue;
        }
        let settings = for_node(draft, &name);
        if state.configured != settings.generation {
            draft.command(&name, Command::Configure(settings), "its settings are not those of the manifest");
        }
    }
}
