//! `durability: confirmed`: a write that as many replicas had as were to confirm it is lost in no
//! failover (safety.md section 4, step 2; docs/decisions/0042-confirmed-writes.md).
//!
//! Of N replicas that could confirm a write W had it; of R of them that are asked one has it when
//! R + W > N. What makes N smaller, or W greater, is believed only once it cannot hide a write.

use std::collections::BTreeMap;

use super::builder::PlanBuilder;
use super::candidates::{self, Count};
use super::failover::names;
use super::{deletion, derived, roles, settings};
use crate::api::conditions::Reason;
use crate::model::change::Eligible;
use crate::model::ids::IncarnationName;
use crate::model::incarnation::{Incarnation, Membership};
use crate::model::node::NodeState;
use crate::model::record::{Confirmations, Promotion, Raise};
use crate::model::time::UnixMs;

/// So many replicas had each write that was confirmed, by the fewest that counted as enough.
pub fn needed(builder: &PlanBuilder<'_>) -> u32 {
    let wanted = builder.spec().write_replicas();
    builder.record.confirmations.as_ref().map_or(wanted, |c| c.counted.min(wanted))
}

/// Who could have confirmed a write of `old`: every incarnation that may be attached to it, those
/// that were given up included until others have what they confirmed. None where nothing is
/// promised.
pub fn confirmers(
    builder: &PlanBuilder<'_>,
    old: &IncarnationName,
    count: &Count,
) -> Vec<IncarnationName> {
    if !builder.spec().is_confirmed() {
        return Vec::new();
    }
    let mut all = candidates::members(builder, old);
    all.extend(count.eligible.iter().map(|e| e.incarnation.clone()));
    all.sort();
    all.dedup();
    all
}

/// Why a write that was confirmed may be on nobody of `eligible`; `None` when one of them has each,
/// or none was promised.
///
/// Whoever answers with the process that was in sync has what it confirmed, also one that may not
/// take over; the one that does has as much. Before anybody was `detached` that is not certain yet.
pub fn may_be_lost(
    builder: &PlanBuilder<'_>,
    confirmers: &[IncarnationName],
    eligible: &[Eligible],
    detached: Option<&BTreeMap<IncarnationName, UnixMs>>,
) -> Option<String> {
    if !builder.spec().is_confirmed() {
        return None;
    }
    let most = eligible.iter().map(|e| e.offset).max();
    let stands = |name: &IncarnationName| detached.is_none_or(|all| all.contains_key(name));
    let is_asked = |name: &IncarnationName| {
        eligible.iter().any(|e| &e.incarnation == name)
            || (stands(name)
                && keeps(builder, name, eligible)
                    .is_some_and(|offset| detached.is_none() || Some(offset) <= most))
    };
    let could: Vec<_> = confirmers
        .iter()
        .filter(|n| is_asked(n) || !(stands(n) && had_nothing(builder, n, eligible)))
        .collect();
    let missing: Vec<_> = could.iter().filter(|n| !is_asked(n)).map(|n| (*n).clone()).collect();
    let needed = needed(builder);
    ((missing.len() as u64) >= u64::from(needed)).then(|| {
        format!(
            "of {} replicas that could confirm a write {needed} {} enough to confirm one, and {} cannot be asked with the data that they had: what was confirmed may be there alone",
            could.len(),
            if needed == 1 { "was" } else { "were" },
            names(&missing)
        )
    })
}

/// Where a replica stands that answers with the process that was in sync with the master that is given
/// up, in the lineage of those that may take over: it has all that it confirmed.
fn keeps(builder: &PlanBuilder<'_>, name: &IncarnationName, eligible: &[Eligible]) -> Option<i64> {
    let redis = &builder.connected(name).filter(|s| derived::running(&s.redis))?.redis;
    let of_them = |e: &Eligible| {
        builder.connected(&e.incarnation).is_some_and(|s| s.redis.replid == redis.replid)
    };
    (candidates::online(builder, redis) && eligible.iter().any(of_them)).then_some(redis.offset)
}

/// It was let in and its first full sync did not come to an end: its redis is the one that was let
/// in, and of another lineage than those that have the data. It confirmed nothing.
fn had_nothing(builder: &PlanBuilder<'_>, name: &IncarnationName, eligible: &[Eligible]) -> bool {
    let (Some(incarnation), Some(state)) = (builder.incarnation(name), builder.connected(name))
    else {
        return false;
    };
    let redis = &state.redis;
    let lineages = |replid: &String| {
        eligible
            .iter()
            .filter_map(|e| builder.connected(&e.incarnation))
            .any(|s| &s.redis.replid == replid || &s.redis.replid2 == replid)
    };
    derived::running(redis)
        && !redis.replid.is_empty()
        && incarnation
            .admitted
            .as_ref()
            .is_some_and(|a| a.run_id == redis.run_id && a.epoch == builder.record.data_epoch)
        && !incarnation.is_candidate()
        && redis.online_epoch == 0
        && !lineages(&redis.replid)
}

/// The master of this epoch has all that it acknowledged, whatever happened to its process: its
/// agent saw the end of it on a machine that lived on, or it had stopped taking writes before.
pub fn is_whole(builder: &PlanBuilder<'_>, promotion: &Promotion, state: &NodeState) -> bool {
    let epoch = promotion.epoch;
    let history = state.history.as_ref().filter(|h| h.epoch == epoch);
    derived::running(&state.redis)
        && state.redis.fenced
        && epoch == builder.record.data_epoch
        && crate::api::defaults::append_only(builder.spec())
        && history.is_some_and(|h| h.gap_ms == 0 || state.boot_id == promotion.boot_id)
}

/// One that was given up may have confirmed what nobody else has: it is not forgotten yet.
pub fn counts(builder: &PlanBuilder<'_>, name: &IncarnationName) -> bool {
    builder.spec().is_confirmed()
        && !deletion::begins(builder.input)
        && builder.record.data_epoch > 0
        && builder.incarnation(name).is_some_and(Incarnation::is_member)
}

/// Says that a confirmed write may be on nobody who answers, and which command goes on
/// nevertheless.
pub fn report(
    builder: &mut PlanBuilder<'_>,
    old: &IncarnationName,
    reason: &str,
    why: &str,
    since: UnixMs,
) {
    let command = builder.accept_loss_command();
    let message = format!(
        "{old} is given up ({reason}), and {why}; nobody is promoted: bring the nodes back, or, to go on with what is left, `{command}`"
    );
    builder.problem(Reason::ConfirmedWritesAtRisk, message);
    builder.wait(
        "enough replicas to be heard for every confirmed write to be on one of them",
        since,
        None,
        format!("manual action required: `{command}`"),
    );
}

/// Keeps the record's word about who could confirm a write and how many had to, while the master
/// answers and nobody may replicate from it whom it was not told of.
///
/// Those that were given up may live on. They count as attached until the master confirms that they
/// may not replicate any more, and where writes are confirmed until enough others have what the
/// master had after that.
pub fn keep(builder: &mut PlanBuilder<'_>) {
    let Some(promotion) = builder.record.master.clone().filter(|p| p.confirmed) else { return };
    note_fewer(builder);
    let Some(master) = builder
        .connected(&promotion.incarnation)
        .filter(|s| roles::is_master_of(s, promotion.epoch))
    else {
        return;
    };
    if master.configured != settings::for_node(builder, &promotion.incarnation).generation {
        return;
    }
    let offset = master.redis.offset;
    let reached = reached(builder, &promotion.incarnation, &master.redis.replid);
    note_more(builder, offset, &reached);
    let (confirmed, needed) = (builder.spec().is_confirmed(), needed(builder));
    for incarnation in builder.record.incarnations.values_mut() {
        if incarnation.condemned.is_none() || !incarnation.is_member() {
            continue;
        }
        let before = *incarnation.left_offset.get_or_insert(offset);
        if !confirmed || have(&reached, before) >= needed {
            incarnation.lower(Membership::Joined);
            incarnation.left_offset = None;
        }
    }
}

/// A promotion: what was read of the master before says nothing of this one.
pub fn begin(builder: &mut PlanBuilder<'_>) {
    for incarnation in builder.record.incarnations.values_mut() {
        incarnation.left_offset = None;
    }
    if let Some(confirmations) = &mut builder.record.confirmations {
        confirmations.raise = None;
    }
}

/// Up to where each replica that stays has the master's writes.
fn reached(builder: &PlanBuilder<'_>, master: &IncarnationName, replid: &str) -> Vec<i64> {
    builder
        .live()
        .into_iter()
        .filter(|(n, i)| i.is_member() && n != master)
        .filter_map(|(n, _)| builder.connected(&n))
        .filter(|s| derived::running(&s.redis) && s.redis.replid == replid)
        .map(|s| s.redis.offset)
        .collect()
}

fn have(reached: &[i64], before: i64) -> u32 {
    let have = reached.iter().filter(|offset| **offset >= before).count();
    u32::try_from(have).unwrap_or(u32::MAX)
}

/// Fewer are enough from the moment that the manifest says so: an application may go by it at once.
fn note_fewer(builder: &mut PlanBuilder<'_>) {
    if !builder.spec().is_confirmed() {
        builder.record.confirmations = None;
        return;
    }
    let wanted = builder.spec().write_replicas();
    let known =
        builder.record.confirmations.get_or_insert(Confirmations { counted: wanted, raise: None });
    if wanted <= known.counted {
        *known = Confirmations { counted: wanted, raise: None };
    }
}

/// More are needed: what fewer had confirmed before must be on as many first. The master has the new
/// number in force, so that `offset` was read after the manifest had changed.
fn note_more(builder: &mut PlanBuilder<'_>, offset: i64, reached: &[i64]) {
    let wanted = builder.spec().write_replicas();
    let Some(known) = builder.record.confirmations.as_mut().filter(|c| wanted > c.counted) else {
        return;
    };
    let raise = known.raise.filter(|r| r.to == wanted).unwrap_or(Raise { to: wanted, offset });
    *known = if have(reached, raise.offset) >= wanted {
        Confirmations { counted: wanted, raise: None }
    } else {
        Confirmations { raise: Some(raise), ..*known }
    };
}
