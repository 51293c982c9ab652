//! Nobody was in sync with the master until it was lost: the newest history that is left is
//! promoted, or nobody (safety.md section 4, History).

use std::time::Duration;

use super::builder::PlanBuilder;
use super::candidates::{self, Count};
use super::failover::names;
use super::{confirmed, derived, import, leases, restore, roles, word};
use crate::api::conditions::Reason;
use crate::api::defaults;
use crate::api::events::EventReason;
use crate::model::change::Eligible;
use crate::model::ids::IncarnationName;
use crate::model::incarnation::{Incarnation, Membership};
use crate::model::node::{History, NodeState};
use crate::model::record::Promotion;

/// A redis that died starts and loads within this, or somebody should look at it.
const COME_BACK: Duration = Duration::from_mins(2);

/// A master that is given up, and nobody may take over: it is promoted again with its own data, or
/// the newest history of its candidates.
pub fn without_candidates(
    builder: &mut PlanBuilder<'_>,
    promotion: &Promotion,
    reason: &str,
    count: &Count,
) {
    let old = promotion.incarnation.clone();
    let runs = builder.connected(&old).is_some_and(|s| derived::running(&s.redis));
    let to_come = restore::pending(builder) || import::pending(builder);
    if builder.record.data_epoch == 0 && to_come {
        // It had the data of the backup or the source, and another process of it may not.
        start_over(builder, &old, reason);
        return;
    }
    if builder.record.data_epoch == 0 && runs && !word::is_fenced(builder, &old) {
        // It was to be the first master; whatever it may have taken meanwhile it has itself.
        choose(builder, &old);
        roles::promote(builder);
        return;
    }
    if builder.record.untouched && candidates::members(builder, &old).is_empty() {
        start_over(builder, &old, reason);
        return;
    }
    if let derived::Stage::Lost(why) = derived::stage(builder, &old)
        && builder.connected(&old).is_none()
    {
        leases::lose_master(builder, &old, &why);
        return;
    }
    if builder.spec().is_confirmed() && builder.record.data_epoch > 0 && !builder.loss_accepted() {
        with_all_that_was_confirmed(builder, promotion, reason, count);
        return;
    }
    // Whoever was in sync in this epoch may hold what the master's own volume lost; nobody else can
    // be newer than the master itself. Once a person accepted the loss, whoever is left.
    let accepted = builder.loss_accepted();
    let may_hold = |(n, i): &(IncarnationName, Incarnation)| {
        *n != old && (i.is_candidate() || (accepted && i.has_joined()))
    };
    let asked: Vec<_> = std::iter::once(old.clone())
        .chain(builder.live().into_iter().filter(may_hold).map(|(n, _)| n))
        .collect();
    let epoch = builder.record.epoch;
    elect(
        builder,
        &asked,
        Some(&old),
        &format!(
            "{old} is down ({reason}) and no other node has its data in sync{}",
            count.in_words()
        ),
    );
    if builder.record.epoch > epoch
        && builder.record.master.as_ref().is_some_and(|p| p.incarnation == old)
    {
        builder.event(
            EventReason::MasterRepromoted,
            format!(
                "{old} is promoted again with its own data, epoch {}: {reason}",
                builder.record.epoch
            ),
        );
    }
}

/// No replica can be asked: the master alone is known to have what was confirmed, when it is back
/// with all that it had.
fn with_all_that_was_confirmed(
    builder: &mut PlanBuilder<'_>,
    promotion: &Promotion,
    reason: &str,
    count: &Count,
) {
    let old = &promotion.incarnation;
    let fenced = word::is_fenced(builder, old);
    if !fenced && builder.connected(old).is_some_and(|s| confirmed::is_whole(builder, promotion, s))
    {
        again(builder, old, reason);
        return;
    }
    let why = format!(
        "no other node can be asked with the data that it had while {old} was master{}",
        count.in_words()
    );
    let back = builder.connected(old).is_some_and(|s| derived::running(&s.redis));
    if back || !candidates::members(builder, old).is_empty() {
        let own = if back { "back without some of its own" } else { "needed with its own" };
        let why = format!("{why}, and {old} is {own}");
        confirmed::report(builder, old, reason, &why, builder.now());
        return;
    }
    let why = format!("{old} is down ({reason}), and {why}");
    wait_for(builder, std::slice::from_ref(old), Some(old), &why);
}

/// The master goes on with its own data, under a new epoch.
pub fn again(builder: &mut PlanBuilder<'_>, old: &IncarnationName, reason: &str) {
    choose(builder, old);
    builder.event(
        EventReason::MasterRepromoted,
        format!(
            "{old} is promoted again with its own data, epoch {}: {reason}",
            builder.record.epoch
        ),
    );
    roles::promote(builder);
}

/// The master's redis died and is there again with all that it acknowledged, before anybody took
/// over: nothing is lost when it goes on.
pub fn promote_again(
    builder: &mut PlanBuilder<'_>,
    promotion: &Promotion,
    reason: &str,
    others: &[Eligible],
) -> bool {
    let has_all = has_all(builder, promotion, others);
    if has_all {
        again(builder, &promotion.incarnation, reason);
    }
    has_all
}

/// The redis of a master that died is there again with all that it acknowledged.
///
/// Its agent saw the death, so that the machine lived and the append-only file is whole; what
/// stands in no history is in that.
pub fn has_all(builder: &PlanBuilder<'_>, promotion: &Promotion, others: &[Eligible]) -> bool {
    let old = &promotion.incarnation;
    let Some(state) =
        builder.connected(old).filter(|s| derived::running(&s.redis) && s.redis.fenced)
    else {
        return false;
    };
    let Some(history) = state
        .history
        .as_ref()
        .filter(|h| h.epoch == promotion.epoch && promotion.epoch == builder.record.data_epoch)
    else {
        return false;
    };
    let whole = history.gap_ms > 0
        && state.boot_id == promotion.boot_id
        && defaults::append_only(builder.spec());
    // What it wrote down may be more than what is in its file after its machine died.
    let enough = if builder.spec().is_confirmed() {
        confirmed::is_whole(builder, promotion, state)
    } else {
        whole || others.iter().all(|e| e.offset <= history.offset)
    };
    enough && state.redis.keys > 0
}

/// No write was ever acknowledged: another node may be the first master as well as this one.
fn start_over(builder: &mut PlanBuilder<'_>, old: &IncarnationName, reason: &str) {
    builder.event(
        EventReason::FirstMasterLost,
        format!(
            "{old} was the first master and is given up ({reason}): no write was acknowledged yet"
        ),
    );
    builder.record.epoch += 1;
    builder.record.master = None;
    (builder.record.data_epoch, builder.record.data_master) = (0, None);
    builder.change(old, |i| i.lower(Membership::Joined));
    restore::again(builder);
    import::again(builder);
}

/// A cluster with data and without a master that could come back: all recorded nodes that may hold
/// data are asked.
pub fn cold_start(builder: &mut PlanBuilder<'_>) {
    let joined = joined(builder);
    let why = "the master is lost for good";
    if builder.spec().is_confirmed() && !builder.loss_accepted() {
        let why = format!("{why}, and what was confirmed may be on none of those that are left");
        block(builder, Reason::ConfirmedWritesAtRisk, &why);
        return;
    }
    elect(builder, &joined, None, why);
}

fn joined(builder: &PlanBuilder<'_>) -> Vec<IncarnationName> {
    builder.live().into_iter().filter(|(_, i)| i.has_joined()).map(|(n, _)| n).collect()
}

/// What a node holds: by what its agent wrote down, or else by what its redis has in memory.
fn holding(state: &NodeState) -> Option<History> {
    let live = || History {
        replid: state.redis.replid.clone(),
        offset: state.redis.offset,
        epoch: state.redis.online_epoch,
        ..History::default()
    };
    state.history.clone().filter(|h| h.epoch > 0).or_else(|| (state.redis.keys > 0).then(live))
}

fn elect(
    builder: &mut PlanBuilder<'_>,
    asked: &[IncarnationName],
    old: Option<&IncarnationName>,
    why: &str,
) {
    let accepted = builder.loss_accepted();
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    // Whoever goes on without what somebody holds goes on without what a person fenced.
    for name in asked.iter().filter(|n| !accepted || !word::is_fenced(builder, n)) {
        match builder.connected(name).filter(|s| derived::running(&s.redis)) {
            None => unknown.push(name.clone()),
            Some(state) => known.push((name.clone(), holding(state))),
        }
    }
    if !unknown.is_empty() && (!accepted || known.is_empty()) {
        wait_for(builder, &unknown, old, why);
        return;
    }
    let histories: Vec<_> =
        known.iter().filter_map(|(n, h)| h.clone().map(|h| (n.clone(), h))).collect();
    let Some(highest) = histories.iter().map(|(_, h)| h.epoch).max() else {
        nobody_has_data(builder, &known, old, why, accepted);
        return;
    };
    let mut newest: Vec<_> =
        histories.iter().filter(|(_, h)| h.epoch == highest).cloned().collect();
    let one_lineage = newest.iter().all(|(_, h)| h.replid == newest[0].1.replid);
    if !one_lineage && !accepted {
        let all: Vec<_> = newest.iter().map(|(n, _)| n.clone()).collect();
        block(
            builder,
            Reason::HistoryUnclear,
            &format!("{why}, and the histories of {} cannot be compared", names(&all)),
        );
        return;
    }
    refuse_the_impossible(builder, &mut newest, old);
    // What the master wrote last stands in no history when it was killed; its own data are the
    // newest then.
    let own = newest.iter().find(|(n, h)| Some(n) == old && h.gap_ms > 0);
    let best = newest
        .iter()
        .max_by_key(|(name, h)| (h.offset, Some(name) == old, std::cmp::Reverse(name.clone())));
    let named = word::successor(builder);
    let named = named.and_then(|to| histories.iter().find(|(n, _)| *n == to));
    let Some((name, history)) = named.or(own).or(best).cloned() else { return };
    if let Some(said) = word::said(builder, &name) {
        let why = format!("{why}, and {name}, which has the newest data, is {said}");
        block(builder, Reason::FencedByPerson, &why);
        return;
    }
    choose(builder, &name);
    if old != Some(&name) {
        builder.event(
            EventReason::ColdStart,
            format!(
                "{name} has the newest history that is left (epoch {}, offset {}) and is chosen for epoch {}: {why}; what others have beyond it is kept before they follow",
                history.epoch, history.offset, builder.record.epoch
            ),
        );
    }
    roles::promote(builder);
}

/// A claim that nobody can have come by is not believed; of the master itself every one is.
fn refuse_the_impossible(
    builder: &mut PlanBuilder<'_>,
    newest: &mut Vec<(IncarnationName, History)>,
    old: Option<&IncarnationName>,
) {
    let all = newest.clone();
    newest.retain(|(name, history)| {
        let others = all.iter().filter(|(n, h)| n != name && h.replid == history.replid);
        let most = candidates::most_held(builder, name, others.map(|(_, h)| h.offset));
        let Some(most) = most.filter(|most| history.offset > *most && Some(name) != old) else {
            return true;
        };
        let sentence = format!(
            "{name} reports that it holds offset {}, and by what the others hold nobody can have more than {most}; it is not promoted, check that node",
            history.offset
        );
        builder.problem(Reason::OffsetImplausible, sentence.clone());
        builder.event(EventReason::OffsetImplausible, sentence);
        false
    });
}

/// Somebody who may be newer cannot be asked.
fn wait_for(
    builder: &mut PlanBuilder<'_>,
    unknown: &[IncarnationName],
    old: Option<&IncarnationName>,
    why: &str,
) {
    if let Some(old) = old.filter(|old| unknown == [(*old).clone()]) {
        let command = builder.accept_loss_command();
        builder.problem(
            Reason::NoMaster,
            format!(
                "{why}; `akash-redis logs {} {old}` says what keeps it, or, when its data is lost for good, `{command}`",
                builder.input.cluster.metadata.name
            ),
        );
        let since = builder.view(old).map_or(builder.input.constants.started, |v| v.heard);
        builder.watch(
            format!("{old} to come back with its data"),
            since,
            COME_BACK,
            Reason::NoMaster,
        );
        return;
    }
    block(
        builder,
        Reason::HistoryUnclear,
        &format!("{why}, and {} may hold newer data and cannot be asked", names(unknown)),
    );
    builder.wait(
        format!("{} to be heard", names(unknown)),
        builder.now(),
        None,
        "the newest history is promoted",
    );
}

/// All that were asked are empty. Where the manifest keeps nothing on disk that is how it must be
/// after a restart; otherwise data that were there are gone.
fn nobody_has_data(
    builder: &mut PlanBuilder<'_>,
    known: &[(IncarnationName, Option<History>)],
    old: Option<&IncarnationName>,
    why: &str,
    accepted: bool,
) {
    let nothing_is_kept = builder.spec().resources.data.is_none();
    let Some((first, _)) = known.first() else {
        // A cold start without any node: the next one that joins begins anew.
        data_lost(builder, "no node is left");
        return;
    };
    if let Some(old) = old.filter(|_| !nothing_is_kept && !accepted) {
        block(
            builder,
            Reason::DataMissing,
            &format!(
                "{why}, and {old} is back without the data it had: an empty node is not promoted"
            ),
        );
        return;
    }
    let all = joined(builder);
    if all.iter().any(|name| !known.iter().any(|(n, _)| n == name)) {
        // Whoever was not in sync holds less than the master did, which is more than nothing.
        elect(builder, &all, old, why);
        return;
    }
    let first = first.clone();
    let begins_empty = data_lost(
        builder,
        if nothing_is_kept {
            "the manifest keeps no data on disk, and every redis was restarted"
        } else {
            "no node that is left holds data"
        },
    );
    if begins_empty && old.is_some() {
        choose(builder, &first);
        roles::promote(builder);
    }
}

/// What is left is nothing but backups, if there are any; true when the cluster begins empty.
fn data_lost(builder: &mut PlanBuilder<'_>, why: &str) -> bool {
    if restore::after_loss(builder, why) {
        return false;
    }
    (builder.record.data_epoch, builder.record.data_master) = (0, None);
    builder.event(
        EventReason::DataLost,
        format!("{why}: all that was written is lost; the cluster starts empty"),
    );
    true
}

fn choose(builder: &mut PlanBuilder<'_>, name: &IncarnationName) {
    builder.record.epoch += 1;
    roles::choose(builder, name);
}

/// Nothing is changed; a person may decide.
fn block(builder: &mut PlanBuilder<'_>, reason: Reason, why: &str) {
    let command = builder.accept_loss_command();
    builder.problem(reason, format!("{why}; nobody is promoted: bring the nodes back, or, to go on with what is left, `{command}`"));
    builder.wait(
        "data that is known to be the newest",
        builder.now(),
        None,
        format!("manual action required: `{command}`"),
    );
}
