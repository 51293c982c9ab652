//! Time is that of one process: what another one wrote down is counted from the moment at which
//! this one took over.

use super::builder::PlanBuilder;
use crate::model::change::Change;

/// Brings the times of the record onto the clock of this process, once. Nothing that was noted
/// before proves that time has passed since.
pub fn take_over(builder: &mut PlanBuilder<'_>) {
    let (term, started, now) =
        (builder.input.constants.term, builder.input.constants.started, builder.now());
    if builder.record.term == term {
        return;
    }
    builder.record.term = term;
    // A moment that lies ahead is of a clock that was set back.
    let past = |at: &mut crate::model::time::UnixMs| *at = (*at).min(now);
    for incarnation in builder.record.incarnations.values_mut() {
        past(&mut incarnation.reserved);
        incarnation.redis_down.iter_mut().for_each(past);
        incarnation.rebuilt.iter_mut().for_each(past);
        incarnation.moving.iter_mut().for_each(|moving| past(&mut moving.at));
        incarnation.lease.iter_mut().for_each(|choice| past(&mut choice.at));
        if let Some(condemned) = &mut incarnation.condemned {
            past(&mut condemned.at);
            condemned.closed.iter_mut().for_each(past);
        }
        if let Some(rejoin) = &mut incarnation.rejoin {
            past(&mut rejoin.at);
            past(&mut rejoin.sent);
        }
        if let Some(quarantine) = &mut incarnation.quarantined {
            past(&mut quarantine.at);
            // To be seen in force anew.
            quarantine.in_force = None;
        }
    }
    builder.record.failures.values_mut().for_each(|failures| past(&mut failures.last));
    builder.record.relieved.iter_mut().for_each(past);
    builder.record.moved.iter_mut().for_each(past);
    builder.record.repeats.iter_mut().for_each(|repeats| past(&mut repeats.last));
    match &mut builder.record.change {
        Some(Change::Failover(failover)) => {
            failover.started = started.min(now);
            failover.detached_at.values_mut().for_each(|at| *at = now);
        }
        Some(Change::Switchover(switchover)) => {
            let limit = switchover.deadline.since(switchover.started);
            switchover.started = now;
            switchover.deadline = now + limit;
            if let Some(delegated) = &mut switchover.delegated {
                delegated.at = now;
            }
        }
        None => {}
    }
}
