//! A planned change of master: the source fences itself, the target catches up, then it is promoted
//! (safety.md section 5).

use std::time::Duration;

use super::draft::Draft;
use super::{facts, roles, settings};
use crate::model::ids::IncarnationName;
use crate::model::node::{Process, Role};
use crate::model::record::{Change, Promotion, Switchover};
use crate::model::step::Command;

/// Writes stand still at most so long; then the source takes them again.
const LIMIT: Duration = Duration::from_secs(10);

/// Starts a switchover when source and target are fit for it.
pub fn start(draft: &mut Draft<'_>, target: &IncarnationName, reason: &str) {
    let Some(promotion) = draft.record.master.clone().filter(|p| p.confirmed) else { return };
    let source = &promotion.incarnation;
    let well = draft.connected(source).is_some_and(|s| roles::is_master_of(s, promotion.epoch));
    let ready = draft
        .connected(target)
        .is_some_and(|s| facts::running(&s.redis) && s.redis.link_up && !s.redis.sync_in_progress);
    let leaves = matches!(facts::stage(draft, source), facts::Stage::Lost(_));
    if !well || !ready || leaves {
        draft.problem(
            "SwitchoverWaits",
            format!("{target} cannot take over from {source} yet: it must be linked and in sync"),
        );
        return;
    }
    draft.record.epoch += 1;
    let switchover = Switchover {
        epoch: draft.record.epoch,
        source: source.clone(),
        target: target.clone(),
        started: draft.now(),
        deadline: draft.now() + LIMIT,
        undo: false,
    };
    draft.event(
        "Switchover",
        format!("{target} takes over from {source}: {reason}; epoch {} begins", switchover.epoch),
    );
    draft.record.change = Some(Change::Switchover(switchover.clone()));
    advance(draft, &switchover);
}

/// One step further: fence, catch up, choose, promote; or undo when the deadline passed before the
/// choice.
pub fn advance(draft: &mut Draft<'_>, switchover: &Switchover) {
    if draft
        .record
        .master
        .as_ref()
        .is_some_and(|p| p.epoch == switchover.epoch && p.incarnation == switchover.target)
    {
        finish(draft, switchover);
        return;
    }
    let source = draft.connected(&switchover.source);
    if source.is_some_and(|s| s.redis.process != Process::Running || s.redis.role == Role::Replica)
    {
        draft.event(
            "SwitchoverAbandoned",
            format!("{} died meanwhile; this is a failover now", switchover.source),
        );
        draft.record.change = None;
        return;
    }
    if switchover.undo {
        undo(draft, switchover);
        return;
    }
    if draft.now() >= switchover.deadline {
        draft.record.epoch += 1;
        draft.event(
            "SwitchoverUndone",
            format!(
                "{} did not catch up in {} s; {} stays master",
                switchover.target,
                LIMIT.as_secs(),
                switchover.source
            ),
        );
        let undone = Switchover { undo: true, epoch: draft.record.epoch, ..switchover.clone() };
        draft.record.change = Some(Change::Switchover(undone.clone()));
        undo(draft, &undone);
        return;
    }
    draft.wait(
        format!("{} to have all that {} wrote", switchover.target, switchover.source),
        switchover.started,
        Some(LIMIT),
        "the source takes writes again",
    );
    let Some(source) = source else { return };
    if !(source.redis.fenced && source.highest.epoch >= switchover.epoch) {
        draft.command(
            &switchover.source,
            Command::Fence,
            format!("{} takes over", switchover.target),
        );
        return;
    }
    let caught_up = draft.connected(&switchover.target).is_some_and(|t| {
        facts::running(&t.redis)
            && t.redis.replid == source.redis.replid
            && t.redis.offset >= source.redis.offset
    });
    if caught_up {
        roles::choose(draft, &switchover.target);
        draft.event(
            "MasterChosen",
            format!(
                "{} has everything and is chosen for epoch {}",
                switchover.target, switchover.epoch
            ),
        );
        roles::promote(draft);
    }
}

fn finish(draft: &mut Draft<'_>, switchover: &Switchover) {
    roles::promote(draft);
    if draft.record.master.as_ref().is_some_and(|p| p.confirmed) {
        let took = draft.now().since(switchover.started).as_millis();
        draft.event(
            "SwitchedOver",
            format!("{} took over from {} in {took} ms", switchover.target, switchover.source),
        );
        draft.record.change = None;
        return;
    }
    // The target may have obeyed already: from here on it is the master, and its death is a
    // failover.
    let chosen = draft.record.master.clone();
    if let Some(why) = chosen.and_then(|chosen| roles::void(draft, &chosen)) {
        draft.event(
            "ChoiceVoid",
            format!(
                "{} was chosen for epoch {} and was not promoted: {why}",
                switchover.target, switchover.epoch
            ),
        );
        draft.record.change = None;
    }
}

/// No choice was written, so nobody was promoted: the source takes writes again, under a new epoch.
fn undo(draft: &mut Draft<'_>, switchover: &Switchover) {
    let Some(source) = draft.connected(&switchover.source) else {
        let silent = draft
            .view(&switchover.source)
            .is_none_or(|v| draft.now().passed(v.heard, draft.spec().failover.down_after.0));
        if silent {
            draft.record.change = None;
        }
        return;
    };
    if source.redis.role == Role::Master
        && !source.redis.fenced
        && source.highest.epoch >= switchover.epoch
    {
        let epoch = switchover.epoch;
        let quorum = draft.record.master.as_ref().and_then(|p| p.quorum);
        draft.record.master = Some(Promotion {
            epoch,
            incarnation: switchover.source.clone(),
            run_id: source.redis.run_id.clone(),
            boot_id: source.boot_id.clone(),
            confirmed: true,
            quorum,
        });
        draft.record.data_epoch = epoch;
        draft.record.data_master = Some(switchover.source.clone());
        draft.record.change = None;
        return;
    }
    let quorum = settings::quorum(draft);
    if let Some(master) = draft.record.master.as_mut() {
        master.quorum = Some(master.quorum.unwrap_or(quorum).weakest(quorum));
    }
    draft.command(&switchover.source, Command::Unfence { quorum }, "the switchover was undone");
}
