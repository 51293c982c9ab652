//! Who is master of a cluster that no record knows: decided by what runs, and by nothing that
//! anybody wrote down.

use std::collections::BTreeMap;

use super::{Found, Part};
use crate::model::ids::IncarnationName;
use crate::model::node::{AttachedReplica, NodeState, Process, ReplicaState, Role};

/// Who is master.
pub(super) enum Master {
    /// This one, of this epoch.
    Known(IncarnationName, u64),
    /// Nobody takes writes, and everybody answers.
    Nobody,
}

/// Takes itself for the master, and is not fenced.
pub(super) fn leads(state: &NodeState) -> bool {
    state.promoted
        && matches!(state.redis.process, Process::Running | Process::Stuck)
        && state.redis.role == Role::Master
        && !state.redis.fenced
}

/// A write that is sent to it now is acknowledged: nobody else was made master, because that takes
/// a fence.
pub(super) fn takes_writes(state: &NodeState) -> bool {
    let counted = |r: &&AttachedReplica| {
        r.state == ReplicaState::Online && r.lag_seconds <= state.redis.max_lag_seconds
    };
    let counted = state.redis.replicas.iter().filter(counted).count() as u64;
    leads(state) && counted >= u64::from(state.redis.min_replicas)
}

fn list<'a>(names: impl IntoIterator<Item = &'a IncarnationName>) -> String {
    names.into_iter().map(|n| n.0.as_str()).collect::<Vec<_>>().join(", ")
}

/// Who is master, or why that is not certain.
pub(super) fn master(
    found: &Found<'_>,
    parts: &BTreeMap<IncarnationName, Part<'_>>,
) -> Result<Master, String> {
    let live = || parts.iter().filter(|(_, p)| p.is_live());
    let silent: Vec<_> =
        live().filter(|(_, p)| p.state.is_none() && !p.is_new()).map(|(n, _)| n).collect();
    let bring_back = format!(
        "bring {0} back, or give it up with its data (`akash-redis orphans` names its deployment, `akash-redis orphans --close` closes it), then recover again",
        list(silent.iter().copied())
    );
    let answering: Vec<_> = live().filter_map(|(n, p)| Some((n, p.state?))).collect();
    if let Some((name, part)) =
        parts.iter().find(|(_, p)| p.given_up.is_some() && p.state.is_some_and(takes_writes))
    {
        return Err(format!(
            "{name} takes writes, and was given up before ({}): nobody else is master while it does; stop its redis, then recover again",
            part.given_up.as_deref().unwrap_or_default()
        ));
    }
    let mut leaders: Vec<_> = answering.iter().filter(|(_, s)| leads(s)).collect();
    leaders.sort_by_key(|(_, s)| std::cmp::Reverse(s.highest.epoch));
    if let [(name, state), others @ ..] = leaders.as_slice() {
        if let Some((other, rival)) = others.iter().find(|(_, s)| takes_writes(s)) {
            return Err(format!(
                "{name} (epoch {}) and {other} (epoch {}) both take writes: two masters; stop the redis of the one whose writes are not wanted, then recover again",
                state.highest.epoch, rival.highest.epoch
            ));
        }
        let later = answering.iter().find(|(_, s)| s.highest.epoch > state.highest.epoch);
        if let (Some((later, s)), false) = (later, silent.is_empty()) {
            return Err(format!(
                "{name} is master of epoch {}, and {later} knows of epoch {}: the master was being changed, and {} may be the new one; {bring_back}",
                state.highest.epoch,
                s.highest.epoch,
                list(silent)
            ));
        }
        if !takes_writes(state) && !silent.is_empty() {
            return Err(format!(
                "{name} is master of epoch {} and takes no writes, because too few replicas are near; {} may have been promoted in its place; {bring_back}",
                state.highest.epoch,
                list(silent)
            ));
        }
        return Ok(Master::Known((*name).clone(), state.highest.epoch));
    }
    let mut followed: BTreeMap<&IncarnationName, u64> = BTreeMap::new();
    for (_, state) in answering.iter().filter(|(_, s)| s.redis.is_linked()) {
        let hosts = |n: &&IncarnationName| {
            state.redis.master_host.starts_with(&n.hostname(&found.constants.installation))
        };
        if let Some(master) = silent.iter().copied().find(hosts) {
            let epoch = followed.entry(master).or_default();
            *epoch = (*epoch).max(state.redis.online_epoch);
        }
    }
    match (followed.iter().collect::<Vec<_>>().as_slice(), silent.is_empty()) {
        ([(name, epoch)], _) => Ok(Master::Known((**name).clone(), **epoch)),
        ([], true) => Ok(Master::Nobody),
        ([], false) => Err(format!(
            "nobody who answers takes writes or follows somebody, and {} may be the master; {bring_back}",
            list(silent)
        )),
        (several, _) => Err(format!(
            "replicas follow different masters ({}); {bring_back}",
            list(several.iter().map(|(n, _)| **n))
        )),
    }
}
