//! The settings a node shall have.

use super::builder::PlanBuilder;
use super::derived;
use crate::api::defaults;
use crate::api::types::Spec;
use crate::model::ids::IncarnationName;
use crate::model::node::{NodeState, Role};
use crate::model::record::{Promotion, Record};
use crate::model::step::{Command, NodeSettings, Quorum, ReplicationGrant, SettingsUser};

/// How many replicas a write needs (safety.md section 2).
///
/// It rises only when it can be met, and falls to 0 only once no other node is taken for one that
/// has all writes: with one or two nodes the master goes on alone then; with more, a minimum that
/// was in force stays.
#[must_use]
pub fn quorum_of(spec: &Spec, record: &Record, replica_attached: bool) -> Quorum {
    let master = record.master.as_ref();
    let other = |n: &IncarnationName| master.is_none_or(|p| &p.incarnation != n);
    let candidate = record
        .incarnations
        .iter()
        .any(|(n, i)| other(n) && i.condemned.is_none() && i.is_candidate());
    let in_force = master.and_then(|p| p.quorum).is_none_or(|q| q.min_replicas > 0);
    let needs = candidate || replica_attached || (spec.nodes > 2 && in_force);
    Quorum { min_replicas: u32::from(needs), max_lag_seconds: max_lag(spec) }
}

/// Seconds after which a master does not count a replica any more that it does not hear: it has
/// stopped when its silence has lasted downAfter.
fn max_lag(spec: &Spec) -> u32 {
    u32::try_from(spec.failover.down_after.0.as_secs().saturating_sub(2).max(1)).unwrap_or(u32::MAX)
}

/// The quorum now.
pub fn quorum(builder: &PlanBuilder<'_>) -> Quorum {
    let master = builder.record.master.as_ref().and_then(|p| builder.connected(&p.incarnation));
    let attached = master.is_some_and(|m| {
        builder.live().iter().any(|(n, _)| {
            builder
                .connected(n)
                .is_some_and(|s| !s.redis.sync_in_progress && super::roles::attached(m, n, s))
        })
    });
    quorum_of(builder.spec(), &builder.record, attached)
}

/// The quorum with which `name` is promoted: no weaker than what the others that are there can
/// meet, because a promotion that nobody hears of must not make a second master.
pub fn quorum_at_promotion(builder: &PlanBuilder<'_>, name: &IncarnationName) -> Quorum {
    let before = builder
        .record
        .master
        .as_ref()
        .filter(|_| builder.record.data_epoch > 0)
        .and_then(|p| p.quorum);
    let another = builder.live().iter().any(|(n, i)| {
        n != name
            && i.has_joined()
            && i.quarantined.is_none()
            && builder.connected(n).is_some_and(|s| derived::running(&s.redis))
    });
    let needs = match builder.spec().nodes {
        0 | 1 => false,
        2 => another && builder.record.data_epoch > 0,
        _ => before.is_none_or(|q| q.min_replicas > 0) || another,
    };
    Quorum { min_replicas: u32::from(needs), max_lag_seconds: max_lag(builder.spec()) }
}

/// The weakest quorum that may be in force on the master of `promotion`: what the record says, or
/// what the master itself last reported.
pub fn bound(builder: &PlanBuilder<'_>, promotion: &Promotion) -> Quorum {
    let reported = || {
        let state = &builder
            .view(&promotion.incarnation)
            .filter(|v| v.state.highest.epoch == promotion.epoch)?
            .state;
        (state.redis.role == Role::Master && !state.redis.fenced).then_some(of(state))
    };
    // Without either nothing is known of it: it may write alone.
    promotion
        .quorum
        .or_else(reported)
        .unwrap_or(Quorum { min_replicas: 0, max_lag_seconds: max_lag(builder.spec()) })
}

/// Keeps the record's word about the quorum in force: exact when the master has what it shall have,
/// else the weakest of what it has, what it is about to be told and what it was told before.
pub fn note_quorum(builder: &mut PlanBuilder<'_>, promotion: &Promotion) {
    let Some(state) = builder
        .connected(&promotion.incarnation)
        .filter(|s| super::roles::is_master_of(s, promotion.epoch))
    else {
        return;
    };
    let (reported, wanted) = (of(state), quorum(builder));
    let settled = reported == wanted
        && state.configured == for_node(builder, &promotion.incarnation).generation;
    let known = promotion.quorum.unwrap_or(reported);
    let next = if settled { reported } else { known.weakest(reported).weakest(wanted) };
    if let Some(master) = builder.record.master.as_mut() {
        master.quorum = Some(next);
    }
}

/// The master is about to be told this quorum: the record says beforehand that it may be in force.
pub fn note_weaker(builder: &mut PlanBuilder<'_>, quorum: Quorum) {
    if let Some(master) = builder.record.master.as_mut() {
        master.quorum = Some(master.quorum.unwrap_or(quorum).weakest(quorum));
    }
}

fn of(state: &NodeState) -> Quorum {
    Quorum { min_replicas: state.redis.min_replicas, max_lag_seconds: state.redis.max_lag_seconds }
}

/// Who may replicate from the master of the present choice.
pub fn grants(builder: &PlanBuilder<'_>) -> Vec<ReplicationGrant> {
    let Some(promotion) = &builder.record.master else { return Vec::new() };
    let mut grants: Vec<_> = builder
        .live()
        .into_iter()
        .filter(|(n, i)| i.is_member() && n != &promotion.incarnation)
        .map(|(incarnation, _)| ReplicationGrant { incarnation, epoch: promotion.epoch })
        .collect();
    grants.sort();
    grants
}

/// The settings of one node; replication users exist on the master only.
pub fn for_node(builder: &PlanBuilder<'_>, name: &IncarnationName) -> NodeSettings {
    let spec = builder.spec();
    let is_master = builder.record.master.as_ref().is_some_and(|p| &p.incarnation == name);
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
        redis_config: spec
            .redis
            .config
            .iter()
            .filter(|(k, _)| !own.contains(&k.as_str()))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
        append_only: defaults::append_only(spec),
        maxmemory_bytes: defaults::maxmemory(spec),
        quorum: if is_master {
            quorum(builder)
        } else {
            Quorum { min_replicas: 0, ..quorum(builder) }
        },
        replicas: if is_master { grants(builder) } else { Vec::new() },
    };
    settings.generation = settings.generation_of();
    settings
}

/// Brings the settings of every node that differs up to date; not while the master changes.
pub fn configure(builder: &mut PlanBuilder<'_>) {
    if builder.record.change.is_some() {
        return;
    }
    for (name, _) in builder.live() {
        let Some(state) = builder.connected(&name) else { continue };
        if !derived::running(&state.redis) {
            continue;
        }
        let settings = for_node(builder, &name);
        if state.configured != settings.generation {
            if builder.record.master.as_ref().is_some_and(|p| p.incarnation == name) {
                note_weaker(builder, settings.quorum);
            }
            builder.command(
                &name,
                Command::Configure(settings),
                "its settings are not those of the manifest",
            );
        }
    }
}
