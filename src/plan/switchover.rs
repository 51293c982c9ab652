//! A planned change of master: the source fences itself, the target catches up, then it is promoted
//! (safety.md section 5). Where it can be, the other replicas are attached to the target before.

use std::time::Duration;

use super::builder::PlanBuilder;
use super::{
    chain, delegation, derived, handover, health, roles, settings, stopping, versions, word,
};
use crate::api::conditions::Reason;
use crate::api::events::EventReason;
use crate::model::change::{Change, Switchover};
use crate::model::ids::IncarnationName;
use crate::model::incarnation::Membership;
use crate::model::node::{Process, Role};
use crate::model::record::{Handover, Promotion};
use crate::model::step::{Command, Effect, Step};
use crate::model::time::UnixMs;

/// Writes stand still at most so long; then the source takes them again.
const LIMIT: Duration = Duration::from_secs(10);

/// Starts a switchover when source and target are fit for it.
pub fn start(builder: &mut PlanBuilder<'_>, target: &IncarnationName, reason: &str) {
    let Some(promotion) = builder.record.master.clone().filter(|p| p.confirmed) else { return };
    let source = &promotion.incarnation;
    if let Some(said) = word::said(builder, target) {
        let message = format!("{target} cannot take over from {source}: it is {said}");
        builder.problem(Reason::SwitchoverWaiting, message);
        return;
    }
    let well = builder.connected(source).is_some_and(|s| roles::is_master_of(s, promotion.epoch));
    let ready = builder.connected(target).is_some_and(|s| {
        derived::running(&s.redis) && s.redis.is_linked() && !s.redis.is_syncing() && !s.stopping
    }) && health::lag(builder, target).is_none();
    let leaves = matches!(derived::stage(builder, source), derived::Stage::Lost(_));
    if !well || !ready || leaves {
        builder.problem(
            Reason::SwitchoverWaiting,
            format!("{target} cannot take over from {source} yet: it must be linked and in sync"),
        );
        return;
    }
    let behind = versions::left_behind(builder, target);
    if !behind.is_empty() {
        // Why not is said with what is wrong with their versions.
        return;
    }
    let chained = chain::others(builder, &promotion, target);
    // Written before they let go of the source: from then on they lack what it acknowledges.
    for name in &chained {
        builder.change(name, |i| i.lower(Membership::Member));
    }
    builder.record.epoch += 1;
    // What was to be told under the epoch before is not told any more.
    let epoch = builder.record.epoch;
    let holds = |step: &Step| !matches!(&step.effect, Effect::Command { authority, .. } if authority.epoch < epoch);
    builder.steps.retain(holds);
    // It looks closely at its redis from then on, and has its users before writes stand still.
    let admits = builder.connected(target).is_some_and(chain::can_admit);
    let limit = if admits { chain::limit(builder, source) } else { LIMIT };
    let switchover = Switchover {
        epoch: builder.record.epoch,
        source: source.clone(),
        target: target.clone(),
        started: builder.now(),
        deadline: builder.now() + limit,
        undo: false,
        fenced: (!admits).then_some(builder.now()),
        chosen: None,
        chained,
        delegated: None,
    };
    builder.event(
        EventReason::SwitchoverStarted,
        format!("{target} takes over from {source}: {reason}; epoch {} begins", switchover.epoch),
    );
    builder.record.change = Some(Change::Switchover(switchover.clone()));
    advance(builder, &switchover);
}

/// One step further: attach the others, fence, catch up, choose, promote; or undo when the deadline
/// passed before the choice.
pub fn advance(builder: &mut PlanBuilder<'_>, switchover: &Switchover) {
    if builder
        .record
        .master
        .as_ref()
        .is_some_and(|p| p.epoch == switchover.epoch && p.incarnation == switchover.target)
    {
        finish(builder, switchover);
        return;
    }
    if delegation::took_over(builder, switchover) {
        take(builder, switchover);
        return;
    }
    let source = builder.connected(&switchover.source);
    if source.is_some_and(|s| s.redis.process != Process::Running || s.redis.role == Role::Replica)
    {
        if switchover.delegated.is_some() {
            give_up(builder, switchover);
            return;
        }
        builder.event(
            EventReason::SwitchoverAborted,
            format!("{} failed during the switchover; a failover follows", switchover.source),
        );
        if !switchover.chained.is_empty() {
            // Some were told that the target is the master of this epoch.
            builder.record.epoch += 1;
        }
        builder.record.change = None;
        return;
    }
    if switchover.undo {
        give_up(builder, switchover);
        return;
    }
    if stopping::stops(builder, &switchover.target) {
        roll_back(builder, switchover, "is being stopped itself");
        return;
    }
    if switchover.prepares() {
        prepare(builder, switchover);
        return;
    }
    if builder.now() >= switchover.deadline {
        let why = format!("did not catch up in {} s", LIMIT.as_secs());
        roll_back(builder, switchover, &why);
        return;
    }
    if builder.view(&switchover.target).is_some_and(|v| v.state.redis.process == Process::Exited) {
        roll_back(builder, switchover, "failed: its redis exited");
        return;
    }
    builder.wait(
        format!("{} to have all that {} wrote", switchover.target, switchover.source),
        switchover.stands_since(),
        Some(LIMIT),
        "the source takes writes again",
    );
    let Some(source) = source else { return };
    if !(source.redis.fenced && source.highest.epoch >= switchover.epoch) {
        let command = if delegation::is_awaited(builder, switchover) {
            Command::HandOver { to: switchover.target.clone() }
        } else {
            Command::Fence
        };
        let why = format!("{} takes over", switchover.target);
        builder.command(&switchover.source, command, why);
        return;
    }
    if delegation::is_awaited(builder, switchover) {
        return;
    }
    let caught_up = builder.connected(&switchover.target).is_some_and(|t| {
        derived::running(&t.redis)
            && t.redis.replid == source.redis.replid
            && t.redis.offset >= source.redis.offset
    });
    if caught_up {
        choose(builder, switchover);
        roles::promote(builder);
    }
}

fn choose(builder: &mut PlanBuilder<'_>, switchover: &Switchover) -> Switchover {
    let chosen = Switchover { chosen: Some(builder.now()), delegated: None, ..switchover.clone() };
    builder.record.change = Some(Change::Switchover(chosen.clone()));
    roles::choose(builder, &switchover.target);
    let (target, epoch) = (&switchover.target, switchover.epoch);
    builder.event(
        EventReason::MasterElected,
        format!("{target} has everything and is chosen for epoch {epoch}"),
    );
    chosen
}

/// The source handed over to the target, which is master.
fn take(builder: &mut PlanBuilder<'_>, switchover: &Switchover) {
    let told = switchover.delegated.as_ref().map(|delegated| delegated.quorum);
    let chosen = choose(builder, switchover);
    if let Some(master) = &mut builder.record.master {
        master.quorum = told;
    }
    finish(builder, &chosen);
}

/// The other replicas are on their way to the target; the source takes writes.
fn prepare(builder: &mut PlanBuilder<'_>, switchover: &Switchover) {
    if builder.connected(&switchover.source).is_none() {
        roll_back(builder, switchover, "was not promoted: the source is silent");
        return;
    }
    match chain::advance(builder, switchover) {
        chain::Progress::Broken => {
            roll_back(builder, switchover, "does not follow the source any more");
        }
        chain::Progress::Under if builder.now() < switchover.deadline => builder.wait(
            format!("the other replicas to follow {}", switchover.target),
            switchover.started,
            Some(switchover.deadline.since(switchover.started)),
            "it takes over without them",
        ),
        chain::Progress::Under | chain::Progress::Done => {
            if delegation::is_under_way(builder, switchover) {
                return;
            }
            let now = builder.now();
            let fencing =
                Switchover { fenced: Some(now), deadline: now + LIMIT, ..switchover.clone() };
            builder.record.change = Some(Change::Switchover(fencing.clone()));
            advance(builder, &fencing);
        }
    }
}

/// Nobody was chosen: the source takes writes again, or still, under a new epoch.
fn roll_back(builder: &mut PlanBuilder<'_>, switchover: &Switchover, why: &str) {
    builder.record.epoch += 1;
    builder.event(
        EventReason::SwitchoverRolledBack,
        format!("{} {why}; {} stays master", switchover.target, switchover.source),
    );
    let undone = Switchover { undo: true, epoch: builder.record.epoch, ..switchover.clone() };
    builder.record.change = Some(Change::Switchover(undone.clone()));
    give_up(builder, &undone);
}

/// The target is not to take over any more: what it may do by itself is ended first.
fn give_up(builder: &mut PlanBuilder<'_>, switchover: &Switchover) {
    if !switchover.undo {
        // A new epoch ends it.
        roll_back(builder, switchover, "is not to take over any more");
        return;
    }
    let Some(delegated) = &switchover.delegated else {
        undo(builder, switchover);
        return;
    };
    match delegation::end(builder, switchover, delegated) {
        delegation::End::Waits => {}
        delegation::End::TookOver => {
            let forth = Switchover { undo: false, ..switchover.clone() };
            choose(builder, &forth);
            roles::promote(builder);
        }
        delegation::End::Unknown => builder.record.change = None,
        delegation::End::Ended => {
            let undone = Switchover { delegated: None, ..switchover.clone() };
            builder.record.change = Some(Change::Switchover(undone.clone()));
            advance(builder, &undone);
        }
    }
}

fn finish(builder: &mut PlanBuilder<'_>, switchover: &Switchover) {
    // The target may have obeyed already: from here on it is the master, and its death is a
    // failover.
    let chosen = builder.record.master.clone();
    if let Some(why) = chosen.and_then(|chosen| roles::void(builder, &chosen)) {
        builder.event(
            EventReason::PromotionFailed,
            format!(
                "{} was chosen for epoch {} and was not promoted: {why}",
                switchover.target, switchover.epoch
            ),
        );
        builder.record.change = None;
        return;
    }
    roles::promote(builder);
    if builder.record.master.as_ref().is_some_and(|p| p.confirmed) {
        let since = switchover.stands_since();
        let after = |at: UnixMs| u64::try_from(at.since(since).as_millis()).unwrap_or(u64::MAX);
        let chosen = switchover.chosen.map(|at| ("fenced and chosen".to_owned(), after(at)));
        let promoted = ("promoted".to_owned(), after(builder.now()));
        let handover = Handover {
            epoch: switchover.epoch,
            old: switchover.source.clone(),
            since,
            planned: true,
            steps_ms: chosen.into_iter().chain([promoted]).collect(),
        };
        handover::begin(builder, handover);
        builder.record.change = None;
    }
}

/// No choice is in force, so nobody was promoted: the source takes writes again, under a new epoch.
fn undo(builder: &mut PlanBuilder<'_>, switchover: &Switchover) {
    let Some(source) = builder.connected(&switchover.source) else {
        let silent = builder
            .view(&switchover.source)
            .is_none_or(|v| builder.now().passed(v.heard, builder.spec().failover.down_after.0));
        if silent {
            builder.record.change = None;
        }
        return;
    };
    if source.redis.role == Role::Master
        && !source.redis.fenced
        && source.highest.epoch >= switchover.epoch
    {
        let epoch = switchover.epoch;
        let quorum = builder.record.master.as_ref().and_then(|p| p.quorum);
        builder.record.granted = roles::grants_kept(builder, &switchover.source);
        builder.record.master = Some(Promotion {
            epoch,
            incarnation: switchover.source.clone(),
            run_id: source.redis.run_id.clone(),
            boot_id: source.boot_id.clone(),
            confirmed: true,
            since: builder.now(),
            quorum,
        });
        builder.record.data_epoch = epoch;
        builder.record.data_master = Some(switchover.source.clone());
        builder.record.change = None;
        return;
    }
    let quorum = settings::quorum(builder);
    if let Some(master) = builder.record.master.as_mut() {
        master.quorum = Some(master.quorum.unwrap_or(quorum).weakest(quorum));
    }
    builder.command(&switchover.source, Command::Unfence { quorum }, "the switchover was undone");
}
