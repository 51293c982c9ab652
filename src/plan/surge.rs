//! One node more than wanted while nodes are started anew one after the other, where each replica
//! must confirm writes (safety.md section 5): without it writes would stop while one of them is
//! away.

use std::time::Duration;

use super::builder::PlanBuilder;
use super::{money, moves, update};
use crate::api::events::EventReason;
use crate::model::ids::IncarnationName;
use crate::model::money::PricePerBlock;
use crate::model::record::Surge;

/// A lease, a join and a full sync take less.
const PATIENCE: Duration = Duration::from_mins(15);

/// Writes stop while any single replica is away.
fn is_needed(builder: &PlanBuilder<'_>) -> bool {
    let spec = builder.spec();
    spec.is_confirmed() && spec.nodes > 1 && spec.write_replicas() + 1 >= spec.nodes
}

/// Whether a node has to wait before it is started anew, for one more that confirms writes in its
/// place. Where none can be had, writes stop meanwhile, as `allowWriteStops` says that they may.
pub fn waits(builder: &mut PlanBuilder<'_>, next: &IncarnationName) -> bool {
    if !is_needed(builder) {
        return false;
    }
    let now = builder.now();
    match builder.record.surge {
        // It is in sync: the cluster is whole with it.
        Some(_) => false,
        None if room(builder) == PricePerBlock(0) => {
            builder.record.surge = Some(Surge { at: now, skipped: true });
            builder.event(
                EventReason::SurgeSkipped,
                format!("the budget has no room for one node more while nodes are started anew, so writes stop for as long as {next} is away, as spec.allowWriteStops says that they may"),
            );
            false
        }
        None => {
            builder.record.surge = Some(Surge { at: now, skipped: false });
            let nodes = builder.spec().nodes;
            builder.event(
                EventReason::SurgeStarted,
                format!("node {nodes} is bought for as long as nodes are started anew: without it writes would stop while one of them is away"),
            );
            true
        }
    }
}

/// What one more lease may cost.
fn room(builder: &PlanBuilder<'_>) -> PricePerBlock {
    money::share(builder.input, &builder.record, 1).unwrap_or_default()
}

/// Nobody is to be started anew any more: the node that was bought for it leaves.
pub fn leave(builder: &mut PlanBuilder<'_>, revision: &str) {
    let Some(surge) = builder.record.surge else { return };
    let nodes = update::nodes(builder);
    let over = nodes.iter().all(|(n, i)| update::is_current(builder, n, i, revision))
        && update::under_way(builder).is_none();
    let number = builder.spec().nodes;
    if (over && moves::is_whole(builder)) || !is_needed(builder) {
        builder.record.surge = None;
        if !surge.skipped {
            let message = format!("nobody is to be started anew any more: node {number} leaves");
            builder.event(EventReason::SurgeEnded, message);
        }
        return;
    }
    let there = nodes.iter().any(|(_, i)| i.ordinal == number && i.is_candidate());
    if !surge.skipped && !there && builder.now().passed(surge.at, PATIENCE) {
        builder.record.surge = Some(Surge { skipped: true, ..surge });
        builder.event(
            EventReason::SurgeSkipped,
            format!("node {number} could not be had within {} minutes: nodes are started anew without it, and writes stop while one is away, as spec.allowWriteStops says that they may", PATIENCE.as_secs() / 60),
        );
    }
}
