//! How far behind a replica may be to take over from a master that is silent: safety.md section 4,
//! step 2.

use super::builder::PlanBuilder;
use super::{derived, health, roles};
use crate::api::conditions::Reason;
use crate::model::change::Eligible;
use crate::model::ids::IncarnationName;
use crate::model::node::{NodeState, Role};
use crate::model::record::Promotion;

/// The master is silent, and even the furthest replica is far behind what it was last seen to have:
/// it is waited for once more as long as it may be silent, because it may come back with all of that.
pub fn waits_for_the_master(
    builder: &mut PlanBuilder<'_>,
    promotion: &Promotion,
    eligible: &[Eligible],
) -> bool {
    let old = &promotion.incarnation;
    let Some(view) = builder.view(old).filter(|v| !v.connected) else { return false };
    let gone = matches!(derived::stage(builder, old), derived::Stage::Lost(_));
    let limit = builder.spec().failover.down_after.0 * 2;
    let (most, since) = (builder.spec().failover.max_lag.0, view.heard);
    let Some(lacks) = lacks(builder, &view.state, eligible).filter(|lacks| *lacks > most) else {
        return false;
    };
    if gone || builder.loss_accepted() || builder.now().passed(since, limit) {
        return false;
    }
    builder.problem(
        Reason::ReplicaLagging,
        format!(
            "the master {old} is silent, and the furthest replica lacks {} MiB of what it had, more than failover.maxLag: it is waited for, because it may come back with all of that",
            lacks.div_ceil(1 << 20)
        ),
    );
    builder.wait(
        format!("the master {old} to be heard again"),
        since,
        Some(limit),
        "the furthest replica is promoted all the same",
    );
    true
}

/// Bytes that the furthest of them lacks of what the master was last seen to have; `None` where that
/// is no more than a burst, or nobody can say.
fn lacks(builder: &PlanBuilder<'_>, master: &NodeState, eligible: &[Eligible]) -> Option<u64> {
    if master.redis.role != Role::Master {
        return None;
    }
    let best = eligible.iter().max_by_key(|e| e.offset)?;
    let own = builder.connected(&best.incarnation)?;
    if own.redis.replid != master.redis.replid || !is_late(master, &best.incarnation, own) {
        return None;
    }
    u64::try_from(master.redis.offset.saturating_sub(best.offset)).ok()
}

/// By the master's last word it had not acknowledged the writes of some seconds.
fn is_late(master: &NodeState, name: &IncarnationName, own: &NodeState) -> bool {
    roles::attachment(master, name, Some(own))
        .is_some_and(|r| u128::from(r.behind_ms) >= health::BEHIND.as_millis())
}
