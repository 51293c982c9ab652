//! The master died: safety.md sections 3 and 4.

use std::time::Duration;

use super::draft::Draft;
use super::witness::{self, Way};
use super::{facts, fence, leases, roles};
use crate::api::types::WhenMinority;
use crate::model::ids::IncarnationName;
use crate::model::node::{NodeState, Process, Role};
use crate::model::record::{Change, Eligible, Failover, FailoverReport, Fence, Promotion};
use crate::model::step::Command;
use crate::model::time::UnixMs;
use crate::model::witness::PageView;

/// A detached replica that does not answer for so long is no longer counted on.
const DETACH_LIMIT: Duration = Duration::from_secs(3);

/// A redis that died starts and loads within this, or somebody should look at it.
const COME_BACK: Duration = Duration::from_mins(2);

enum Verdict {
    Alive,
    Suspect,
    Dead { reason: String, witnesses: Vec<String>, fenced: Option<String> },
}

/// Looks at the master; starts a failover when it is dead. True when it may not be counted on.
pub fn watch(draft: &mut Draft<'_>, promotion: &Promotion) -> bool {
    match verdict(draft, promotion) {
        Verdict::Alive => false,
        Verdict::Suspect => true,
        Verdict::Dead { reason, witnesses, fenced } => {
            start(draft, promotion, &reason, witnesses, fenced);
            true
        }
    }
}

fn verdict(draft: &mut Draft<'_>, promotion: &Promotion) -> Verdict {
    let name = &promotion.incarnation;
    if let Some(state) = draft.connected(name) {
        return by_agent(name, state, promotion);
    }
    let heard = facts::last_heard(draft, name);
    let down_after = draft.spec().failover.down_after.0;
    if let Some(dead) = witness::word(draft, name).and_then(|page| by_page(name, page, promotion)) {
        return dead;
    }
    if !draft.now().passed(heard, down_after) {
        draft.wait(format!("the master {name} to be heard again"), heard, Some(down_after), "its replicas are asked whether they hear it");
        return Verdict::Suspect;
    }
    by_silence(draft, name, heard, down_after)
}

/// The agent's word is final: it watches its own redis.
fn by_agent(name: &IncarnationName, state: &NodeState, promotion: &Promotion) -> Verdict {
    let redis = &state.redis;
    let died = |reason: String, fenced: Option<String>| Verdict::Dead { reason, witnesses: vec![format!("agent of {name}")], fenced };
    match redis.process {
        Process::Exited => died("its redis exited".into(), Some(format!("{name}'s agent says that its redis exited"))),
        Process::Stuck => died("its redis no longer answers".into(), None),
        Process::Starting | Process::Running if !promotion.confirmed => Verdict::Alive,
        Process::Starting => died("its redis was started again".into(), Some(format!("{name}'s redis starts fenced"))),
        Process::Running if redis.loading || redis.role == Role::Replica || redis.fenced => {
            died("its redis was started again".into(), Some(format!("{name}'s redis is fenced, by its agent's word")))
        }
        Process::Running => Verdict::Alive,
    }
}

/// Its agent's word, by its signed page: the mesh is silent and its redis is dead as well. A page that says that redis is well proves
/// nothing about who reaches it.
fn by_page(name: &IncarnationName, page: &PageView, promotion: &Promotion) -> Option<Verdict> {
    let (reason, fenced) = match page.process {
        Process::Exited => ("its redis exited", true),
        Process::Stuck => ("its redis no longer answers", false),
        Process::Starting | Process::Running if !promotion.confirmed => return None,
        Process::Starting => ("its redis was started again", true),
        Process::Running if page.role == Role::Replica || page.fenced => ("its redis was started again", true),
        Process::Running => return None,
    };
    let fenced = fenced.then(|| format!("{name}'s signed status page says that {reason}"));
    Some(Verdict::Dead { reason: reason.to_owned(), witnesses: vec![format!("status page of {name}")], fenced })
}

/// Silence towards the operator counts only with a majority of the recorded replicas; one that still hears the master vetoes.
fn by_silence(draft: &mut Draft<'_>, name: &IncarnationName, heard: UnixMs, down_after: Duration) -> Verdict {
    let recorded: Vec<_> = draft.live().into_iter().filter(|(n, i)| n != name && i.member).map(|(n, _)| n).collect();
    let mut witnesses = vec![format!("operator (silent since {heard})")];
    let mut lost = 0usize;
    for replica in &recorded {
        let Some(state) = draft.connected(replica) else { continue };
        if state.redis.link_up && state.redis.silent_ms < u64::try_from(down_after.as_millis()).unwrap_or(u64::MAX) {
            draft.problem(
                "MasterUnreachable",
                format!("the operator cannot reach {name}, but {replica} still hears it; nothing is changed"),
            );
            return Verdict::Suspect;
        }
        if u128::from(state.redis.silent_ms) >= down_after.as_millis() {
            lost += 1;
            witnesses.push(format!("{replica} (silent for {} ms)", state.redis.silent_ms));
        } else if state.redis.master_host.is_empty() {
            // Detached by an earlier attempt, or restarted: it cannot be what keeps the master writable.
            lost += 1;
            witnesses.push(format!("{replica} (not attached to it)"));
        }
    }
    if let (way @ (Way::Page | Way::Lease), Some(said)) = witness::known(draft, name) {
        witnesses.push(format!("{} of {name} ({said})", way.name()));
    }
    let majority = recorded.len() / 2 + 1;
    let minority_may = draft.spec().failover.when_minority == WhenMinority::Promote && lost > 0;
    if lost >= majority || minority_may {
        return Verdict::Dead {
            reason: format!("it has been silent for {} s", draft.now().since(heard).as_secs()),
            witnesses,
            fenced: None,
        };
    }
    let message = format!(
        "{name} is silent, and only {lost} of {} replicas confirm it ({majority} are needed); nothing is changed: bring nodes back, or set failover.whenMinority: promote",
        recorded.len()
    );
    draft.problem("MasterSilent", message);
    draft.wait(format!("{majority} replicas to say whether they hear {name}"), heard, None, "a person decides");
    Verdict::Suspect
}

/// Counts before anything is touched, then writes the epoch; or changes nothing and says why.
fn start(draft: &mut Draft<'_>, promotion: &Promotion, reason: &str, witnesses: Vec<String>, fenced: Option<String>) {
    let old = promotion.incarnation.clone();
    let (eligible, unaccounted) = count(draft, &old);
    if eligible.is_empty() {
        alone(draft, promotion, reason);
        return;
    }
    let min_replicas = draft.view(&old).map_or(1, |v| v.state.redis.min_replicas);
    let enough = fenced.is_some() || (unaccounted.len() as u64) < u64::from(min_replicas);
    if !enough && draft.spec().failover.when_minority != WhenMinority::Promote {
        draft.problem(
            "FailoverBlocked",
            format!(
                "{old} is given up ({reason}), but {} may still be attached to it, so it may still take writes; nothing is changed: bring them back, or set failover.whenMinority: promote",
                names(&unaccounted)
            ),
        );
        draft.wait(format!("{} to be heard", names(&unaccounted)), draft.now(), None, "a person decides");
        return;
    }
    let now = draft.now();
    let last_exchange = eligible
        .iter()
        .filter_map(|e| draft.connected(&e.incarnation))
        .map(|s| UnixMs(now.0.saturating_sub(s.redis.silent_ms)))
        .max()
        .unwrap_or(now);
    draft.record.epoch += 1;
    let failover = Failover {
        epoch: draft.record.epoch,
        old_epoch: promotion.epoch,
        reason: reason.to_owned(),
        witnesses,
        started: now,
        eligible,
        unaccounted,
        last_exchange,
        min_replicas,
        fence: fenced.map(|how| Fence { how, at: now }),
        detached: None,
        deaf: Vec::new(),
        old: old.clone(),
    };
    draft.event("Failover", format!("{old} is dead: {reason}; epoch {} begins", failover.epoch));
    draft.record.change = Some(Change::Failover(failover.clone()));
    advance(draft, &failover);
}

/// Those that were online with the dying master in its epoch with the process they run now, and the members that were not.
fn count(draft: &Draft<'_>, old: &IncarnationName) -> (Vec<Eligible>, Vec<IncarnationName>) {
    let (mut eligible, mut unaccounted) = (Vec::new(), Vec::new());
    let data_epoch = draft.record.data_epoch;
    for (name, incarnation) in draft.live().into_iter().filter(|(n, _)| n != old) {
        // A master that fenced itself for a switchover to `old` holds everything that was acknowledged.
        let former = draft.record.data_master.as_ref() == Some(&name);
        let Some(state) = draft.connected(&name).filter(|s| facts::running(&s.redis)) else {
            if incarnation.member {
                unaccounted.push(name);
            }
            continue;
        };
        // With two nodes the master goes on alone once its replica is no candidate: from then on the replica lacks writes.
        let counts = incarnation.candidate || (incarnation.member && draft.spec().nodes != 2);
        let online = counts && state.redis.role == Role::Replica && state.redis.online_epoch == data_epoch && data_epoch > 0;
        let fenced_master = former && state.redis.role == Role::Master && state.redis.fenced;
        if online || fenced_master {
            eligible.push(Eligible { incarnation: name, run_id: state.redis.run_id.clone(), offset: state.redis.offset });
        } else if incarnation.candidate {
            // It answers and restarted: it may not be promoted, but it is not attached unless it says so.
            if state.redis.link_up {
                unaccounted.push(name);
            }
        }
    }
    (eligible, unaccounted)
}

/// Nobody else can take over: the old master is promoted again if it is back with the newest known history.
fn alone(draft: &mut Draft<'_>, promotion: &Promotion, reason: &str) {
    let old = &promotion.incarnation;
    if let facts::Stage::Lost(why) = facts::stage(draft, old)
        && draft.connected(old).is_none()
    {
        leases::lose_master(draft, &old.clone(), &why);
        return;
    }
    let state = draft.connected(old).filter(|s| facts::running(&s.redis));
    let Some(state) = state else {
        draft.problem("NoMaster", format!("{old} is down ({reason}) and no other node has its data in sync; it is waited for"));
        let since = draft.view(old).map_or(draft.input.constants.started, |v| v.heard);
        draft.watch(format!("{old} to come back with its data"), since, COME_BACK, "NoMaster");
        return;
    };
    let newer_elsewhere: Vec<_> =
        draft.live().into_iter().filter(|(n, i)| n != old && i.candidate && may_be_newer(draft, n, state)).map(|(n, _)| n).collect();
    if !newer_elsewhere.is_empty() {
        draft.problem(
            "HistoryUnclear",
            format!("{old} is back, but {} may hold newer data and cannot be asked; nothing is changed", names(&newer_elsewhere)),
        );
        draft.wait(format!("{} to be heard", names(&newer_elsewhere)), draft.now(), None, "a person decides");
        return;
    }
    if promotion.confirmed && state.history.as_ref().is_none_or(|h| h.epoch == 0) && state.redis.keys == 0 {
        draft.problem(
            "NoData",
            format!("{old} is back without the data it had; an empty node is not promoted: restore it, or delete the cluster"),
        );
        draft.wait(format!("{old} to find its data"), draft.now(), None, "a person decides");
        return;
    }
    let old = old.clone();
    draft.record.epoch += 1;
    roles::choose(draft, &old);
    draft.event("PromotedAgain", format!("{old} is promoted again with its own data, epoch {}: {reason}", draft.record.epoch));
    roles::promote(draft);
}

/// A candidate that cannot be asked, or that answers with a longer history of the last epoch.
fn may_be_newer(draft: &Draft<'_>, name: &IncarnationName, old: &NodeState) -> bool {
    let Some(state) = draft.connected(name) else { return true };
    let offset = old.history.as_ref().map_or(old.redis.offset, |h| h.offset);
    state.history.as_ref().is_some_and(|h| h.epoch == draft.record.data_epoch && h.offset > offset)
}

/// One step further: detach, fence, choose, promote, report.
pub fn advance(draft: &mut Draft<'_>, failover: &Failover) {
    let mut failover = failover.clone();
    let chosen = draft.record.master.clone().filter(|p| p.epoch == failover.epoch);
    if let Some(chosen) = chosen {
        finish(draft, &failover, &chosen);
        return;
    }
    drop_unreachable(draft, &mut failover);
    if failover.eligible.is_empty() {
        draft.event(
            "FailoverAbandoned",
            format!("every candidate of epoch {} was lost before a choice; it is looked at again", failover.epoch),
        );
        draft.record.change = None;
        return;
    }
    detach(draft, &mut failover);
    fence::fence(draft, &mut failover);
    if failover.detached.is_some() && failover.fence.is_some() {
        choose(draft, &failover);
    }
    draft.record.change = Some(Change::Failover(failover));
}

/// A candidate that went silent or whose redis restarted is no candidate any more, and may be attached to the old master again.
fn drop_unreachable(draft: &mut Draft<'_>, failover: &mut Failover) {
    let patience_over = draft.now().passed(failover.started, DETACH_LIMIT);
    let (kept, dropped): (Vec<_>, Vec<_>) = failover.eligible.drain(..).partition(|e| match draft.connected(&e.incarnation) {
        Some(state) => facts::running(&state.redis) && state.redis.run_id == e.run_id,
        None => !patience_over,
    });
    failover.eligible = kept;
    failover.unaccounted.extend(dropped.into_iter().map(|e| e.incarnation));
}

fn detach(draft: &mut Draft<'_>, failover: &mut Failover) {
    let mut all = true;
    for e in &failover.eligible {
        let done = draft.connected(&e.incarnation).is_some_and(|s| s.highest.epoch >= failover.epoch && s.redis.role == Role::Replica);
        if !done {
            all = false;
            draft.command(&e.incarnation, Command::Detach, "its offset must stand still to be compared");
        }
    }
    if all && failover.detached.is_none() {
        failover.detached = Some(draft.now());
    }
    for e in &mut failover.eligible {
        if let Some(state) = draft.connected(&e.incarnation) {
            e.offset = state.redis.offset;
        }
    }
}

/// Highest applied offset among those of one lineage; the lower name on a tie.
fn choose(draft: &mut Draft<'_>, failover: &Failover) {
    let mut best: Option<(&Eligible, &NodeState)> = None;
    for e in &failover.eligible {
        let Some(state) = draft.connected(&e.incarnation) else { continue };
        let better = best.is_none_or(|(b, s)| state.redis.replid == s.redis.replid && e.offset > b.offset);
        if better {
            best = Some((e, state));
        }
    }
    let Some((best, _)) = best else { return };
    let name = best.incarnation.clone();
    draft.record.epoch = failover.epoch;
    roles::choose(draft, &name);
    draft.event("MasterChosen", format!("{name} is chosen for epoch {} with offset {}", failover.epoch, best.offset));
    roles::promote(draft);
}

/// Promotes until it is confirmed, then reports.
fn finish(draft: &mut Draft<'_>, failover: &Failover, chosen: &Promotion) {
    let lost = draft.connected(&chosen.incarnation).is_none()
        && draft.view(&chosen.incarnation).is_none_or(|v| draft.now().passed(v.heard, draft.spec().failover.down_after.0));
    let exited = draft.connected(&chosen.incarnation).is_some_and(|s| s.redis.process == Process::Exited);
    if lost || exited {
        draft.record.change = None;
        return;
    }
    roles::promote(draft);
    if !draft.record.master.as_ref().is_some_and(|p| p.confirmed) {
        return;
    }
    let now = draft.now();
    let since = |at: UnixMs| u64::try_from(at.since(failover.started).as_millis()).unwrap_or(u64::MAX);
    let mut steps = Vec::new();
    steps.extend(failover.detached.map(|at| ("detached".to_owned(), since(at))));
    steps.extend(failover.fence.as_ref().map(|f| ("fenced".to_owned(), since(f.at))));
    steps.push(("promoted".to_owned(), since(now)));
    draft.record.last_failover = Some(FailoverReport {
        epoch: failover.epoch,
        reason: failover.reason.clone(),
        witnesses: failover.witnesses.clone(),
        old: failover.old.0.clone(),
        new: chosen.incarnation.0.clone(),
        candidates: failover.eligible.iter().map(|e| format!("{}: {}", e.incarnation, e.offset)).collect(),
        fence: fence::in_words(failover),
        steps_ms: steps,
        lost_bytes: None,
    });
    draft.event("FailedOver", format!("{} replaced {} as master, epoch {}", chosen.incarnation, failover.old, failover.epoch));
    draft.record.change = None;
}

pub(super) fn names(list: &[IncarnationName]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
