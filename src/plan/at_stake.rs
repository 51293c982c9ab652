//! What a person gives up who accepts a loss: shown before it is asked for.

use super::builder::PlanBuilder;
use super::{candidates, derived, word};
use crate::api::conditions::Reason;
use crate::api::status::{AtStake, Missing};
use crate::model::change::Change;
use crate::model::ids::IncarnationName;
use crate::model::incarnation::Incarnation;
use crate::model::node::{NodeView, Process};
use crate::model::time::UnixMs;

/// What may be lost, while the cluster waits for somebody to say that it may.
pub fn at_stake(builder: &PlanBuilder<'_>) -> Option<AtStake> {
    let awaited = |(reason, _): &(Reason, String)| {
        reason.ends_with_accepted_loss()
            || (*reason == Reason::FencedByPerson && builder.record.held.is_some())
    };
    if !builder.problems.iter().any(awaited) {
        return None;
    }
    let old = match &builder.record.change {
        Some(Change::Failover(failover)) => Some(failover.old.clone()),
        _ => builder.record.master.as_ref().map(|p| p.incarnation.clone()),
    };
    let best = best(builder, old.as_ref());
    let known = best.and_then(|name| builder.view(&name.0).map(|view| (name.0.clone(), view)));
    let lacks = known.as_ref().map(|(name, view)| lacks(builder, name, view));
    Some(AtStake {
        epoch: builder.record.epoch,
        takes_over: known.as_ref().map(|(name, _)| name.0.clone()),
        lacks_bytes: lacks.flatten(),
        since: known.as_ref().and_then(|(_, view)| since(view)).map(|at| at.to_string()),
        missing: missing(builder, old.as_ref()),
    })
}

/// Who would take over among those that answer, as far as can be told before anybody is detached.
fn best(
    builder: &PlanBuilder<'_>,
    old: Option<&IncarnationName>,
) -> Option<(IncarnationName, Incarnation)> {
    let answers = |(name, i): &(IncarnationName, Incarnation)| {
        Some(name) != old
            && i.has_joined()
            && !word::is_fenced(builder, name)
            && builder.connected(name).is_some_and(|s| derived::running(&s.redis))
    };
    let offset = |name: &IncarnationName| builder.view(name).map_or(0, |v| v.state.redis.offset);
    builder
        .live()
        .into_iter()
        .filter(answers)
        .max_by_key(|(name, i)| (i.is_candidate(), offset(name), std::cmp::Reverse(name.clone())))
}

/// Bytes by which anybody was seen to be further in the same history; at least so many are lost.
fn lacks(builder: &PlanBuilder<'_>, name: &IncarnationName, view: &NodeView) -> Option<i64> {
    let replid = &view.state.redis.replid;
    let others = builder.record.incarnations.keys().filter(|n| *n != name);
    let seen = others.filter_map(|n| {
        let state = &builder.view(n)?.state;
        let history = state.history.as_ref().filter(|h| &h.replid == replid).map(|h| h.offset);
        let redis = (&state.redis.replid == replid).then_some(state.redis.offset);
        history.max(redis)
    });
    seen.max().map(|most| (most - view.state.redis.offset).max(0))
}

/// Until when it heard its master; it has what was written before.
fn since(view: &NodeView) -> Option<UnixMs> {
    let redis = &view.state.redis;
    (!redis.master_host.is_empty()).then(|| UnixMs(view.heard.0.saturating_sub(redis.silent_ms)))
}

/// Who may hold what nobody else has, and cannot be asked.
fn missing(builder: &PlanBuilder<'_>, old: Option<&IncarnationName>) -> Vec<Missing> {
    let mut names = old.map_or_else(Vec::new, |old| candidates::members(builder, old));
    names.extend(old.cloned());
    names.sort();
    let one = |name: IncarnationName| {
        let state = builder.connected(&name);
        let why = match state {
            Some(s) if derived::running(&s.redis) => return None,
            Some(s) if s.redis.process == Process::Exited => "its redis exited".to_owned(),
            Some(_) => "its redis does not answer".to_owned(),
            None => builder.view(&name).map_or_else(
                || "never heard".to_owned(),
                |v| format!("not heard since {}", v.heard),
            ),
        };
        Some(Missing { incarnation: name.0, why })
    };
    names.into_iter().filter_map(one).collect()
}
