//! The first proof that a master that was given up takes no more writes: its agent's word, its page, the mesh, or time (safety.md section 4, step 4).

use std::time::Duration;

use super::draft::Draft;
use super::failover::names;
use super::{quarantine, witness};
use crate::api::types::WhenMinority;
use crate::model::node::{Process, Role};
use crate::model::record::{Failover, Fence};
use crate::model::step::Command;

/// What a cut-off master may exceed max-lag by before it stops taking writes (redis-server 7.0 counts whole seconds, once a second).
const LAG_ERROR: Duration = Duration::from_secs(2);
/// An agent that answers has demoted its redis within this; one that does not is not waited for.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Looks for a proof, and does what brings one about. The first one counts.
pub fn fence(draft: &mut Draft<'_>, failover: &mut Failover) {
    if failover.fence.is_some() {
        return;
    }
    let at = draft.now();
    let proof = by_agent(draft, failover)
        .or_else(|| by_page(draft, failover))
        .or_else(|| by_mesh(draft, failover))
        .or_else(|| by_time(draft, failover));
    failover.fence = proof.map(|how| Fence { how, at });
}

fn by_agent(draft: &mut Draft<'_>, failover: &Failover) -> Option<String> {
    let old = &failover.old;
    let state = draft.connected(old)?;
    if state.redis.process == Process::Exited {
        return Some(format!("{old}'s agent confirms that its redis exited"));
    }
    if state.highest.epoch >= failover.epoch && state.redis.role == Role::Replica {
        return Some(format!("{old}'s agent confirms that its redis was demoted"));
    }
    draft.command(old, Command::Detach, "it must not take writes any more");
    None
}

/// Only a command takes a fence off, and none is sent to it while this change lasts: what its page said since then stays true.
fn by_page(draft: &Draft<'_>, failover: &Failover) -> Option<String> {
    let page = witness::word(draft, &failover.old)?;
    (page.fenced && page.at >= failover.started).then(|| format!("{}'s signed status page says that it takes no writes", failover.old))
}

/// Without its agent's word at once the old master is shut off from the others; they say when they have lost it.
fn by_mesh(draft: &mut Draft<'_>, failover: &mut Failover) -> Option<String> {
    let answers = draft.connected(&failover.old).is_some_and(|s| s.redis.process != Process::Stuck);
    if !answers || draft.now().passed(failover.started, AT_ONCE) {
        quarantine::begin(draft, failover);
    }
    for name in quarantine::deaf(draft, &failover.old) {
        if !failover.deaf.contains(&name) {
            failover.deaf.push(name);
        }
    }
    quarantine::proof(draft, failover)
}

fn by_time(draft: &mut Draft<'_>, failover: &Failover) -> Option<String> {
    let now = draft.now();
    let max_lag = draft.spec().failover.down_after.0.saturating_sub(Duration::from_secs(2)).max(Duration::from_secs(1));
    let few = (failover.unaccounted.len() as u64) < u64::from(failover.min_replicas);
    let minority_may = draft.spec().failover.when_minority == WhenMinority::Promote;
    if !few && !minority_may {
        draft.problem("FailoverBlocked", format!("{} may still be attached to {}", names(&failover.unaccounted), failover.old));
        draft.wait(format!("proof that {} takes no writes", failover.old), failover.started, None, "a person decides");
        return None;
    }
    let detached = failover.detached.unwrap_or(now);
    // A replica whose link was up until it was detached exchanged with the master until then.
    let last = if now.since(failover.last_exchange) < max_lag { detached.max(failover.last_exchange) } else { failover.last_exchange };
    let limit = max_lag + LAG_ERROR;
    if !now.passed(last, limit) {
        draft.wait(format!("{} to have stopped taking writes", failover.old), last, Some(limit), "the best replica is promoted");
        return None;
    }
    let silence = now.since(last).as_secs();
    Some(format!("{} heard no replica for {silence} s and needs {} for a write", failover.old, failover.min_replicas))
}

/// How the old master was fenced, and who could not say so.
pub fn in_words(failover: &Failover) -> String {
    let how = failover.fence.as_ref().map(|f| f.how.clone()).unwrap_or_default();
    if failover.deaf.is_empty() {
        return how;
    }
    format!("{how}; {} could not confirm the fence of the mesh, which does not hear the control server", names(&failover.deaf))
}
