//! A change of master ends with the first write that the new one accepts: promoted, it takes none
//! before it has the replicas that it needs.

use super::builder::PlanBuilder;
use super::roles;
use crate::api::events::EventReason;
use crate::model::interval::Interval;
use crate::model::node::{NodeState, ReplicaState};
use crate::model::record::Handover;

/// The new master was confirmed; told at once where it takes writes already.
pub fn begin(builder: &mut PlanBuilder<'_>, handover: Handover) {
    builder.record.handover = Some(handover);
    advance(builder);
}

/// Tells of the change once the new master takes writes, or another change has overtaken it.
pub fn advance(builder: &mut PlanBuilder<'_>) {
    let Some(handover) = builder.record.handover.clone() else { return };
    let promotion = builder.record.master.as_ref().filter(|p| p.epoch == handover.epoch);
    let Some(promotion) = promotion else {
        builder.record.handover = None;
        let (old, epoch) = (&handover.old, handover.epoch);
        let message = format!(
            "{old} was replaced as master in epoch {epoch}, and the next one took no write before it was"
        );
        let reason = if handover.planned {
            EventReason::SwitchoverCompleted
        } else {
            EventReason::FailoverCompleted
        };
        builder.event(reason, message);
        return;
    };
    let new = promotion.incarnation.clone();
    let takes = builder.connected(&new).is_some_and(|state| takes_writes(state, handover.epoch));
    if !takes {
        return;
    }
    let took = builder.now().since(handover.since);
    let interval = if handover.planned { Interval::Switchover } else { Interval::Failover };
    builder.measured.push((interval, took));
    let took = took.as_millis();
    let (old, epoch) = (&handover.old, handover.epoch);
    if handover.planned {
        builder.event(
            EventReason::SwitchoverCompleted,
            format!("{new} took over from {old} in {took} ms{}", in_words(&handover.steps_ms)),
        );
    } else {
        let mut steps = String::new();
        if let Some(report) = builder.record.last_failover.as_mut().filter(|r| r.epoch == epoch) {
            steps = in_words(&report.steps_ms);
            report.steps_ms.push(("writable".to_owned(), u64::try_from(took).unwrap_or(u64::MAX)));
        }
        builder.event(
            EventReason::FailoverCompleted,
            format!(
                "{new} replaced {old} as master, epoch {epoch}; it takes writes after {took} ms{steps}"
            ),
        );
    }
    builder.record.handover = None;
}

/// Where the time went, for a person who wonders.
fn in_words(steps: &[(String, u64)]) -> String {
    let one = |(step, after): &(String, u64)| format!("{step} after {after} ms");
    let all: Vec<_> = steps.iter().map(one).collect();
    if all.is_empty() { String::new() } else { format!(" ({})", all.join(", ")) }
}

/// It is master of the epoch, and has the replicas that it needs for a write.
fn takes_writes(state: &NodeState, epoch: u64) -> bool {
    let redis = &state.redis;
    let good = redis
        .replicas
        .iter()
        .filter(|r| r.state == ReplicaState::Online && r.lag_seconds <= redis.max_lag_seconds)
        .count();
    roles::is_master_of(state, epoch) && good >= redis.min_replicas as usize
}
