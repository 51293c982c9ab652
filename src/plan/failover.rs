//! The master died: safety.md section 4, from the epoch to the report.

use std::collections::BTreeMap;
use std::time::Duration;

use super::builder::PlanBuilder;
use super::death::Death;
use super::{
    candidates, chain, confirmed, death, derived, elect, fence, handover, lag, repair, roles,
    settings, word,
};
use crate::api::conditions::Reason;
use crate::api::defaults;
use crate::api::events::EventReason;
use crate::api::types::WhenMinority;
use crate::model::change::{Change, Eligible, Failover, FailoverReport, Fence};
use crate::model::ids::IncarnationName;
use crate::model::interval::Interval;
use crate::model::node::{Process, Role};
use crate::model::record::{Handover, Promotion};
use crate::model::step::Command;
use crate::model::time::UnixMs;

/// A detached replica that does not answer for so long is not waited for.
const DETACH_LIMIT: Duration = Duration::from_secs(3);
/// What is on its way to the candidates arrives within this, or not at all.
const IN_FLIGHT: Duration = Duration::from_secs(2);

/// Counts before anything is touched, then writes the epoch; or changes nothing and says why.
pub fn start(builder: &mut PlanBuilder<'_>, promotion: &Promotion, death: Death) {
    let old = promotion.incarnation.clone();
    let mut count = candidates::count(builder, promotion);
    admit_successor(builder, &mut count);
    if count.eligible.is_empty() {
        elect::without_candidates(builder, promotion, &death.reason, &count);
        return;
    }
    let goes = word::is_fenced(builder, &old)
        || word::successor(builder).is_some_and(|to| to != old && count.has(&to));
    if !goes && elect::promote_again(builder, promotion, &death.reason, &count.eligible) {
        return;
    }
    if !goes && death.fenced.is_some() && waits_for_its_data(builder, promotion, &count.eligible) {
        return;
    }
    let silent = death.fenced.is_none() && !death.alive;
    if silent && lag::waits_for_the_master(builder, promotion, &count.eligible) {
        return;
    }
    let quorum = settings::bound(builder, promotion);
    let minority_may = builder.spec().failover.when_minority == WhenMinority::Promote
        && !builder.spec().is_confirmed();
    let loss_accepted = builder.loss_accepted() || minority_may;
    let confirmers = confirmed::confirmers(builder, &old, &count);
    let at_risk = confirmed::may_be_lost(builder, &confirmers, &count.eligible, None);
    if let Some(why) = at_risk.filter(|_| !loss_accepted) {
        confirmed::report(builder, &old, &death.reason, &why, builder.now());
        return;
    }
    let few = (count.away.len() as u64) < u64::from(quorum.min_replicas);
    if death.fenced.is_none() && !few && !loss_accepted {
        fence::blocked(builder, &old, &count.away, &death.reason, builder.now());
        return;
    }
    let (now, word) = (builder.now(), builder.accepted());
    builder.measured.push((Interval::Detection, now.since(last_well(builder, &old))));
    if death.fenced.is_some() {
        builder.measured.push((Interval::Fence, Duration::ZERO));
    }
    builder.record.epoch += 1;
    let failover = Failover {
        epoch: builder.record.epoch,
        old_epoch: promotion.epoch,
        reason: death.reason.clone(),
        witnesses: death.witnesses,
        started: now,
        eligible: count.eligible,
        unaccounted: count.away,
        detached_at: BTreeMap::new(),
        quorum,
        boot_id: promotion.boot_id.clone(),
        confirmers,
        loss_accepted,
        accepted_by: word.as_ref().and_then(|word| word.by.clone()),
        to: word.and_then(|word| word.to).map(IncarnationName),
        fence: death.fenced.map(|how| Fence { how, at: now }),
        stale_netmaps: Vec::new(),
        old: old.clone(),
    };
    builder.event(
        EventReason::FailoverStarted,
        format!("{old} is dead: {}; epoch {} begins", death.reason, failover.epoch),
    );
    for (name, why) in count.refused {
        builder.event(EventReason::CandidateRejected, format!("{name} may not take over: {why}"));
    }
    builder.record.change = Some(Change::Failover(failover.clone()));
    advance(builder, &failover);
}

/// When a master that is given up was last known to be well. One that is there and does not say that
/// its redis fails is given up for another reason, such as a lease that is gone: it is well now.
fn last_well(builder: &PlanBuilder<'_>, old: &IncarnationName) -> UnixMs {
    let down = builder.incarnation(old).and_then(|i| i.redis_down);
    match builder.connected(old) {
        Some(state) if state.redis.process == Process::Stuck => death::unanswered(builder, old),
        Some(_) => down.unwrap_or(builder.now()),
        None => derived::last_heard(builder, old).min(down.unwrap_or(builder.now())),
    }
}

/// Whoever is to take over by a person's word may, also where it would not by itself.
fn admit_successor(builder: &PlanBuilder<'_>, count: &mut candidates::Count) {
    let Some(to) = word::successor(builder) else { return };
    let refused = count.refused.iter().position(|(name, _)| name == &to);
    if let (Some(place), Some(state)) = (refused, builder.connected(&to)) {
        count.refused.remove(place);
        let (run_id, offset) = (state.redis.run_id.clone(), state.redis.offset);
        count.eligible.push(Eligible { incarnation: to, run_id, offset });
    }
}

/// The old master's redis exited, and everybody who could take over is far behind what it had: its
/// log has all of that, and it may be back with it within downAfter.
fn waits_for_its_data(
    builder: &mut PlanBuilder<'_>,
    promotion: &Promotion,
    eligible: &[Eligible],
) -> bool {
    let (old, failover) = (&promotion.incarnation, &builder.spec().failover);
    let Some(state) = builder.connected(old).filter(|s| s.boot_id == promotion.boot_id) else {
        return false;
    };
    let starts =
        state.redis.loading || matches!(state.redis.process, Process::Exited | Process::Starting);
    let Some(down) = builder.incarnation(old).and_then(|i| i.redis_down) else { return false };
    let had = state.history.as_ref().filter(|h| h.epoch == promotion.epoch).map(|h| h.offset);
    let best = eligible.iter().map(|e| e.offset).max();
    let lacks = had.zip(best).map_or(0, |(had, best)| u64::try_from(had - best).unwrap_or(0));
    let waits = starts
        && defaults::append_only(builder.spec())
        && lacks > failover.max_lag.0
        && !repair::loops(state)
        && !builder.loss_accepted()
        && !builder.now().passed(down, failover.down_after.0);
    if waits {
        let limit = failover.down_after.0;
        builder.problem(
            Reason::ReplicaLagging,
            format!(
                "redis of the master {old} exited, and the furthest replica lacks {} MiB of what it had, more than failover.maxLag: it is waited for until it is back with its own data",
                lacks.div_ceil(1 << 20)
            ),
        );
        builder.wait(
            format!("{old} to be back with its own data"),
            down,
            Some(limit),
            "the furthest replica is promoted all the same",
        );
    }
    waits
}

/// One step further: let arrive what is in flight, detach, fence, choose, promote, report.
pub fn advance(builder: &mut PlanBuilder<'_>, failover: &Failover) {
    let mut failover = failover.clone();
    let chosen = builder.record.master.clone().filter(|p| p.epoch == failover.epoch);
    if let Some(chosen) = chosen {
        finish(builder, &failover, &chosen);
        return;
    }
    if let Some(word) = builder.accepted() {
        failover.loss_accepted = true;
        failover.accepted_by = word.by.or(failover.accepted_by);
        failover.to = word.to.map(IncarnationName).or(failover.to);
    }
    // Another process holds other data, and may be attached to whom it likes.
    failover.eligible.retain(|e| {
        builder
            .connected(&e.incarnation)
            .is_none_or(|s| s.redis.run_id.is_empty() || s.redis.run_id == e.run_id)
    });
    let answering = failover.eligible.iter().any(|e| answers(builder, &e.incarnation));
    let old_answers = builder.connected(&failover.old).is_some_and(|s| derived::running(&s.redis));
    // Nobody else is looked at while they may come back, unless a person goes on without them.
    let goes_on = old_answers || builder.loss_accepted();
    if failover.eligible.is_empty()
        || is_needless(builder, &failover)
        || (!answering && goes_on && builder.now().passed(failover.started, DETACH_LIMIT))
    {
        let message = format!(
            "no candidate of epoch {} is left; the master is evaluated again",
            failover.epoch
        );
        builder.event(EventReason::FailoverAborted, message);
        builder.record.change = None;
        return;
    }
    if !answering {
        let all: Vec<_> = failover.eligible.iter().map(|e| e.incarnation.clone()).collect();
        let command = builder.accept_loss_command();
        let message = format!(
            "{} is given up, and none of {} answers, which have its data: bring one of them back, or, to go on with what is left, `{command}`",
            failover.old,
            names(&all)
        );
        builder.problem(Reason::FailoverWaiting, message);
        builder.wait(
            format!("one of {} to be heard", names(&all)),
            failover.started,
            None,
            format!("manual action required: `{command}`"),
        );
    }
    let arrived = arrived(builder, &failover);
    if arrived {
        detach(builder, &mut failover);
    }
    fence::fence(builder, &mut failover, arrived);
    if failover.fence.is_some() && all_stand_still(builder, &failover) {
        choose(builder, &failover);
    }
    builder.record.change = Some(Change::Failover(failover));
}

/// Who is left may lack what was confirmed, and the old master is there again with all of it.
fn is_needless(builder: &PlanBuilder<'_>, failover: &Failover) -> bool {
    let old = &failover.old;
    let Some(master) = builder.record.master.as_ref().filter(|m| &m.incarnation == old) else {
        return false;
    };
    let mut answering = failover.eligible.clone();
    answering.retain(|e| answers_as(builder, e));
    let at_risk = || {
        let detached = Some(&failover.detached_at);
        confirmed::may_be_lost(builder, &failover.confirmers, &answering, detached).is_some()
    };
    !failover.loss_accepted
        && failover.to.is_none()
        && !word::is_fenced(builder, old)
        && elect::has_all(builder, master, &answering)
        && at_risk()
}

fn answers(builder: &PlanBuilder<'_>, name: &IncarnationName) -> bool {
    builder.connected(name).is_some_and(|s| derived::running(&s.redis))
}

/// The very process that was counted answers.
fn answers_as(builder: &PlanBuilder<'_>, e: &Eligible) -> bool {
    builder
        .connected(&e.incarnation)
        .is_some_and(|s| derived::running(&s.redis) && s.redis.run_id == e.run_id)
}

/// Nothing of an old master that lives is under way to the candidates any more, or it takes too
/// long. Of one whose redis exited each agent waits for the rest itself, when it is told to detach.
fn arrived(builder: &mut PlanBuilder<'_>, failover: &Failover) -> bool {
    if !failover.detached_at.is_empty() || builder.now().passed(failover.started, IN_FLIGHT) {
        return true;
    }
    let up = failover
        .eligible
        .iter()
        .any(|e| builder.connected(&e.incarnation).is_some_and(|s| s.redis.is_linked()));
    let source = builder
        .connected(&failover.old)
        .filter(|s| derived::running(&s.redis) && s.redis.role == Role::Master);
    let waits = match source {
        // It lives and is to go: it stops taking writes first, and what it has is waited for.
        Some(source) if source.redis.fenced && source.highest.epoch >= failover.epoch => {
            let has_all = |s: &crate::model::node::NodeState| {
                s.redis.replid == source.redis.replid && s.redis.offset >= source.redis.offset
            };
            up && !failover
                .eligible
                .iter()
                .any(|e| builder.connected(&e.incarnation).is_some_and(has_all))
        }
        Some(_) => {
            builder.command(&failover.old, Command::Fence, "it must not take writes any more");
            up
        }
        None => false,
    };
    if waits {
        builder.wait(
            format!("the last writes of {} to arrive", failover.old),
            failover.started,
            Some(IN_FLIGHT),
            "its replicas are detached without it",
        );
    }
    !waits
}

/// Detaches every member: an offset must stand still to be compared, and one that is not in sync
/// can keep the old master writable as well.
fn detach(builder: &mut PlanBuilder<'_>, failover: &mut Failover) {
    // The links of a redis that exited end by themselves; those of another one may not.
    let died = failover.fence.as_ref().is_some_and(|f| f.at == failover.started);
    let drain = if died {
        IN_FLIGHT.saturating_sub(builder.now().since(failover.started))
    } else {
        Duration::ZERO
    };
    let drain_ms = u32::try_from(drain.as_millis()).unwrap_or_default();
    for name in candidates::members(builder, &failover.old) {
        let Some(state) = builder.connected(&name) else { continue };
        let away = state.redis.process == Process::Exited
            || (state.redis.role == Role::Replica && state.redis.master_host.is_empty());
        if state.highest.epoch < failover.epoch || !away {
            builder.command(
                &name,
                Command::Detach { drain_ms },
                "its offset must not move while it is compared",
            );
        } else {
            failover.detached_at.entry(name).or_insert(builder.now());
        }
    }
    failover.unaccounted = candidates::members(builder, &failover.old)
        .into_iter()
        .filter(|n| !failover.detached_at.contains_key(n))
        .collect();
    for e in &mut failover.eligible {
        if let Some(state) =
            builder.connected(&e.incarnation).filter(|s| s.redis.run_id == e.run_id)
        {
            e.offset = state.redis.offset;
        }
    }
}

/// Every candidate that answers is detached; one that does not answer is waited for a moment.
fn all_stand_still(builder: &PlanBuilder<'_>, failover: &Failover) -> bool {
    let patience_over = builder.now().passed(failover.started, DETACH_LIMIT);
    let mut some = false;
    for e in &failover.eligible {
        let detached = failover.detached_at.contains_key(&e.incarnation);
        match answers(builder, &e.incarnation) {
            true if detached => some = true,
            false if patience_over => {}
            _ => return false,
        }
    }
    some
}

fn choose(builder: &mut PlanBuilder<'_>, failover: &Failover) {
    let mut answering = failover.clone();
    answering.eligible.retain(|e| answers_as(builder, e));
    let (best, refused) = candidates::best(builder, &answering);
    for (_, sentence) in &refused {
        builder.problem(Reason::OffsetImplausible, sentence.clone());
    }
    let mut believed = answering.eligible.clone();
    believed.retain(|e| !refused.iter().any(|(name, _)| name == &e.incarnation));
    let detached = Some(&failover.detached_at);
    let at_risk = confirmed::may_be_lost(builder, &failover.confirmers, &believed, detached);
    if let Some(why) = at_risk.filter(|_| !failover.loss_accepted) {
        confirmed::report(builder, &failover.old, &failover.reason, &why, failover.started);
        return;
    }
    let named = failover
        .to
        .as_ref()
        .and_then(|to| answering.eligible.iter().find(|e| &e.incarnation == to));
    let Some(best) = named.or(best).cloned() else { return };
    for (_, sentence) in refused {
        builder.event(EventReason::OffsetImplausible, sentence);
    }
    builder.record.epoch = failover.epoch;
    roles::choose(builder, &best.incarnation);
    builder.event(
        EventReason::MasterElected,
        format!(
            "{} is chosen for epoch {} with offset {}",
            best.incarnation, failover.epoch, best.offset
        ),
    );
    roles::promote(builder);
    chain::attach_early(builder, failover, &best.incarnation);
}

/// Promotes until it is confirmed, then reports. A choice whose process died or whose node is
/// silent is void: it is looked at again.
fn finish(builder: &mut PlanBuilder<'_>, failover: &Failover, chosen: &Promotion) {
    if let Some(why) = roles::void(builder, chosen) {
        builder.event(
            EventReason::PromotionFailed,
            format!(
                "{} was chosen for epoch {} and was not promoted: {why}",
                chosen.incarnation, chosen.epoch
            ),
        );
        builder.record.change = None;
        return;
    }
    roles::promote(builder);
    if !builder.record.master.as_ref().is_some_and(|p| p.confirmed) {
        chain::attach_early(builder, failover, &chosen.incarnation);
        return;
    }
    let now = builder.now();
    let since =
        |at: UnixMs| u64::try_from(at.since(failover.started).as_millis()).unwrap_or(u64::MAX);
    let mut steps = Vec::new();
    steps.extend(failover.detached_at.values().max().map(|at| ("detached".to_owned(), since(*at))));
    steps.extend(failover.fence.as_ref().map(|f| ("fenced".to_owned(), since(f.at))));
    steps.push(("promoted".to_owned(), since(now)));
    builder.record.last_failover = Some(FailoverReport {
        epoch: failover.epoch,
        reason: failover.reason.clone(),
        witnesses: failover.witnesses.clone(),
        old: failover.old.0.clone(),
        new: chosen.incarnation.0.clone(),
        candidates: failover
            .eligible
            .iter()
            .map(|e| format!("{}: {}", e.incarnation, e.offset))
            .collect(),
        fence: fence::in_words(failover),
        steps_ms: steps,
        lost_bytes: None,
        lost_gap_ms: 0,
        accepted_by: failover.accepted_by.clone(),
    });
    handover::begin(
        builder,
        Handover {
            epoch: failover.epoch,
            old: failover.old.clone(),
            since: failover.started,
            planned: false,
            steps_ms: Vec::new(),
        },
    );
    builder.record.change = None;
}

pub(super) fn names(list: &[IncarnationName]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
