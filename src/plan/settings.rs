//! The settings a node shall have, and whether it has them.

use std::collections::BTreeMap;

use super::builder::PlanBuilder;
use super::{derived, kept_copy, restore};
use crate::api::conditions::{ConditionStatus, Reason};
use crate::api::defaults;
use crate::api::types::{Failover, Spec};
use crate::api::{redis_settings, rules};
use crate::model::ids::IncarnationName;
use crate::model::node::{NodeState, RefusedSetting, Role};
use crate::model::record::{Promotion, Record};
use crate::model::step::{Command, Effect, NodeSettings, Quorum, ReplicationGrant, SettingsUser};

/// Characters of an error that are passed on.
const SAID: usize = 300;

/// How many replicas a write needs (safety.md section 2).
///
/// It rises only when it can be met, and falls to 0 only once no other node is taken for one that
/// has all writes: with one or two nodes the master goes on alone then; with more, or where writes
/// are confirmed, a minimum that was in force stays.
#[must_use]
pub fn quorum_of(spec: &Spec, record: &Record, replica_attached: bool) -> Quorum {
    let master = record.master.as_ref();
    let other = |n: &IncarnationName| master.is_none_or(|p| &p.incarnation != n);
    let candidate = record
        .incarnations
        .iter()
        .any(|(n, i)| other(n) && i.condemned.is_none() && i.is_candidate());
    let in_force = master.and_then(|p| p.quorum).is_none_or(|q| q.min_replicas > 0);
    let stays = spec.nodes > 2 || spec.is_confirmed();
    let needs = candidate || replica_attached || (stays && in_force);
    Quorum {
        min_replicas: u32::from(needs) * spec.write_replicas(),
        max_lag_seconds: max_lag(spec),
    }
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
                .is_some_and(|s| !s.redis.is_syncing() && super::roles::attached(m, n, s))
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
        _ if builder.spec().is_confirmed() => true,
        2 => another && builder.record.data_epoch > 0,
        _ => before.is_none_or(|q| q.min_replicas > 0) || another,
    };
    Quorum {
        min_replicas: u32::from(needs) * builder.spec().write_replicas(),
        max_lag_seconds: max_lag(builder.spec()),
    }
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

/// Epoch of the leave to replicate that is in use with the master of this choice.
#[must_use]
pub fn granted(record: &Record, promotion: &Promotion) -> u64 {
    if record.granted == 0 { promotion.epoch } else { record.granted }
}

/// Who may replicate from the master of the present choice.
pub fn grants(builder: &PlanBuilder<'_>) -> Vec<ReplicationGrant> {
    let Some(promotion) = &builder.record.master else { return Vec::new() };
    let epoch = granted(&builder.record, promotion);
    let mut grants: Vec<_> = builder
        .live()
        .into_iter()
        .filter(|(n, i)| i.is_member() && n != &promotion.incarnation)
        .map(|(incarnation, _)| ReplicationGrant { incarnation, epoch })
        .collect();
    grants.sort();
    grants
}

/// What a node is told of `stuckAfter`: nothing where it is the default, which it knows.
fn patience(spec: &Spec) -> u32 {
    let wanted = spec.failover.stuck_after;
    if wanted == Failover::default().stuck_after {
        return 0;
    }
    u32::try_from(wanted.0.as_secs()).unwrap_or(u32::MAX)
}

/// The settings of one node; replication users exist on the master only.
pub fn for_node(builder: &PlanBuilder<'_>, name: &IncarnationName) -> NodeSettings {
    let spec = builder.spec();
    let is_master = builder.record.master.as_ref().is_some_and(|p| &p.incarnation == name);
    // These two are values of their own: they have defaults that follow from the resources.
    let own = [defaults::MAXMEMORY, defaults::APPENDONLY];
    let users = spec.redis.users.iter().map(|u| SettingsUser {
        name: u.name.clone(),
        password_sha256: u.hashes(),
        rules: rules::expand(&u.rules),
    });
    let users = users.chain(
        restore::users(builder)
            .into_iter()
            .map(|user| SettingsUser { rules: rules::expand(&user.rules), ..user }),
    );
    let mut settings = NodeSettings {
        generation: String::new(),
        users: users.collect(),
        redis_config: defaults::redis_config(spec)
            .into_iter()
            .filter(|(k, _)| !own.contains(&k.as_str()))
            .filter_map(|(k, v)| Some((k.clone(), redis_settings::told(&k, &v)?)))
            .collect(),
        append_only: defaults::append_only(spec),
        maxmemory_bytes: defaults::maxmemory(spec),
        quorum: if is_master {
            quorum(builder)
        } else {
            Quorum { min_replicas: 0, ..quorum(builder) }
        },
        replicas: if is_master { grants(builder) } else { Vec::new() },
        stuck_after_seconds: patience(spec),
        copy: None,
    };
    settings.generation = settings.generation_of();
    settings
}

/// Brings the settings of every node that differs up to date; not while the master changes.
pub fn configure(builder: &mut PlanBuilder<'_>) {
    if builder.record.change.is_some() {
        return;
    }
    let copy = kept_copy::of(builder);
    for (name, _) in builder.live() {
        let Some(state) = builder.connected(&name) else { continue };
        if !derived::running(&state.redis) || is_to_follow_first(builder, &name, state) {
            continue;
        }
        let settings = NodeSettings { copy: copy.content.clone(), ..for_node(builder, &name) };
        let why = if state.configured != settings.generation {
            Some("its settings are not those of the manifest")
        } else if copy.is_newer_than(state) {
            Some("it keeps an older copy of the manifest and the record")
        } else {
            None
        };
        if let Some(why) = why {
            if builder.record.master.as_ref().is_some_and(|p| p.incarnation == name) {
                note_weaker(builder, settings.quorum);
            }
            builder.command(&name, Command::Configure(settings), why);
        }
    }
}

/// It follows with leave of an earlier epoch, which the master of this one takes away. That it was
/// told to follow is known by the epoch that it obeyed: nothing else may raise that before.
fn is_to_follow_first(
    builder: &PlanBuilder<'_>,
    name: &IncarnationName,
    state: &NodeState,
) -> bool {
    let chosen = builder.record.master.as_ref();
    chosen.is_some_and(|master| &master.incarnation != name && state.highest.epoch < master.epoch)
        && state.redis.role == Role::Replica
        && !state.redis.master_host.is_empty()
        && !super::quarantine::isolated(builder, name)
}

/// Tells what redis did not take of the settings that are in force.
pub fn report(builder: &mut PlanBuilder<'_>) {
    if let Some(message) = refused(builder) {
        builder.problem(Reason::SettingsRefused, message);
    }
}

/// Whether every node has what the manifest says.
pub fn condition(builder: &PlanBuilder<'_>) -> (ConditionStatus, Reason, String) {
    if let Some(message) = refused(builder) {
        return (ConditionStatus::False, Reason::SettingsRefused, message);
    }
    let live = builder.live();
    let pending: Vec<String> = live
        .iter()
        .filter(|(name, _)| in_force(builder, name).is_none())
        .map(|(name, _)| format!("{name}: {}", why_pending(builder, name)))
        .collect();
    if live.is_empty() {
        return (
            ConditionStatus::False,
            Reason::SettingsPending,
            "there is no node yet".to_owned(),
        );
    }
    if pending.is_empty() {
        return (
            ConditionStatus::True,
            Reason::SettingsInForce,
            "every node has the users and the settings of the manifest".to_owned(),
        );
    }
    let message = format!("not in force yet on {}", pending.join("; "));
    (ConditionStatus::False, Reason::SettingsPending, message)
}

/// The state of a node that has the settings it shall have.
fn in_force<'a>(builder: &PlanBuilder<'a>, name: &IncarnationName) -> Option<&'a NodeState> {
    builder.connected(name).filter(|s| s.configured == for_node(builder, name).generation)
}

fn why_pending(builder: &PlanBuilder<'_>, name: &IncarnationName) -> String {
    let failing = builder.input.inventory.failing.iter().find(|failing| {
        matches!(&failing.effect, Effect::Command { incarnation, command: Command::Configure(_), .. } if incarnation == name)
    });
    let state = builder.connected(name);
    match (failing, state) {
        (Some(failing), _) => failing.error.chars().take(SAID).collect(),
        _ if builder.spec().paused => "spec.paused is set".to_owned(),
        (None, None) => "its agent is not heard".to_owned(),
        (None, Some(state)) if !derived::running(&state.redis) => {
            "its redis does not run".to_owned()
        }
        (None, Some(_)) if builder.record.change.is_some() => {
            "the master is being changed".to_owned()
        }
        (None, Some(_)) => "they are being sent".to_owned(),
    }
}

/// One sentence for each setting that is refused, with the nodes on which it is; none when all are
/// taken.
fn refused(builder: &PlanBuilder<'_>) -> Option<String> {
    let mut all: BTreeMap<&RefusedSetting, Vec<String>> = BTreeMap::new();
    for (name, _) in builder.live() {
        for refused in in_force(builder, &name).map(|s| s.refused.as_slice()).unwrap_or_default() {
            all.entry(refused).or_default().push(name.0.clone());
        }
    }
    let one = |RefusedSetting { name, value, reason }: &RefusedSetting, nodes: &[String]| {
        format!("spec.redis.{name}: redis on {} refused `{value}`: {reason}", nodes.join(", "))
    };
    let sentences: Vec<String> = all.iter().map(|(refused, nodes)| one(refused, nodes)).collect();
    (!sentences.is_empty()).then(|| sentences.join("; "))
}
