//! The first proof that a master that was given up takes no more writes: its agent's word, its
//! page, the mesh, or time (safety.md section 4, step 4).

use std::time::Duration;

use super::builder::PlanBuilder;
use super::failover::names;
use super::{evidence, quarantine};
use crate::api::conditions::Reason;
use crate::model::change::{Failover, Fence};
use crate::model::ids::IncarnationName;
use crate::model::interval::Interval;
use crate::model::node::{Process, Role};
use crate::model::step::Command;
use crate::model::time::UnixMs;

/// What a cut-off master may exceed max-lag by before it stops taking writes (redis-server 7.0
/// counts whole seconds, once a second).
const LAG_ERROR: Duration = Duration::from_secs(2);
/// An agent that answers has demoted its redis within this; one that does not is not waited for.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Looks for a proof, and does what brings one about. The first one counts. An old master that
/// lives is demoted once what it sent has `arrived`.
pub fn fence(builder: &mut PlanBuilder<'_>, failover: &mut Failover, arrived: bool) {
    if failover.fence.is_some() {
        return;
    }
    let at = builder.now();
    let proof = by_agent(builder, failover, arrived)
        .or_else(|| by_page(builder, failover))
        .or_else(|| by_mesh(builder, failover))
        .or_else(|| by_time(builder, failover));
    if let Some(how) = proof {
        builder.measured.push((Interval::Fence, at.since(failover.started)));
        failover.fence = Some(Fence { how, at });
    }
}

/// The agent that was promoted speaks for its redis; another start of it may be that of a second
/// container.
fn by_agent(builder: &mut PlanBuilder<'_>, failover: &Failover, arrived: bool) -> Option<String> {
    let old = &failover.old;
    if let Some(what) = agents_word(builder, failover) {
        return Some(format!("{old}'s agent confirms that its redis {what}"));
    }
    let state = builder.connected(old)?;
    if arrived && (state.highest.epoch < failover.epoch || state.redis.role != Role::Replica) {
        builder.command(old, Command::Detach { drain_ms: 0 }, "it must not take writes any more");
    }
    None
}

/// What the agent that was promoted says of its redis, where that takes no writes by it.
pub fn agents_word(builder: &PlanBuilder<'_>, failover: &Failover) -> Option<&'static str> {
    let view = builder.view(&failover.old)?;
    if !(failover.boot_id.is_empty() || view.state.boot_id == failover.boot_id) {
        return None;
    }
    // Its last word is as good as a present one: every start is fenced.
    if view.state.redis.process == Process::Exited {
        return Some("exited");
    }
    let state = builder.connected(&failover.old)?;
    let demoted = state.highest.epoch >= failover.epoch && state.redis.role == Role::Replica;
    demoted.then_some("was demoted")
}

/// Only a command takes a fence off, and none is sent to it while this change lasts: what its page
/// said since then stays true.
fn by_page(builder: &PlanBuilder<'_>, failover: &Failover) -> Option<String> {
    let page = evidence::word(builder, &failover.old)?;
    let its_own = failover.boot_id.is_empty() || page.boot_id == failover.boot_id;
    (page.fenced && its_own && page.at >= failover.started)
        .then(|| format!("{}'s signed status page says that it takes no writes", failover.old))
}

/// Without its agent's word at once the old master is shut off from the others; they say when they
/// have lost it.
fn by_mesh(builder: &mut PlanBuilder<'_>, failover: &mut Failover) -> Option<String> {
    let answers =
        builder.connected(&failover.old).is_some_and(|s| s.redis.process != Process::Stuck);
    if !answers || builder.now().passed(failover.started, AT_ONCE) {
        quarantine::begin(builder, failover);
    }
    for name in quarantine::stale_netmap(builder, &failover.old) {
        if !failover.stale_netmaps.contains(&name) {
            failover.stale_netmaps.push(name);
        }
    }
    quarantine::proof(builder, failover)
}

/// A master whose replicas were detached stops by itself after max-lag; until then it may have
/// heard any of them, also over a link that carries one way only.
fn by_time(builder: &mut PlanBuilder<'_>, failover: &Failover) -> Option<String> {
    let old = &failover.old;
    let few = (failover.unaccounted.len() as u64) < u64::from(failover.quorum.min_replicas);
    if !few && !failover.loss_accepted {
        blocked(builder, old, &failover.unaccounted, &failover.reason, failover.started);
        return None;
    }
    let last = *failover.detached_at.values().max()?;
    let limit = Duration::from_secs(u64::from(failover.quorum.max_lag_seconds)) + LAG_ERROR;
    if !builder.now().passed(last, limit) {
        builder.wait(
            format!("{old} to stop taking writes"),
            last,
            Some(limit),
            "the best replica is promoted",
        );
        return None;
    }
    let silence = builder.now().since(last).as_secs();
    Some(format!(
        "{old} heard no replica for {silence} s and needs {} for a write",
        failover.quorum.min_replicas
    ))
}

/// Says that the old master may still take writes, because of whom, and which command goes on
/// nevertheless.
pub fn blocked(
    builder: &mut PlanBuilder<'_>,
    old: &IncarnationName,
    attached: &[IncarnationName],
    reason: &str,
    since: UnixMs,
) {
    let who = if attached.is_empty() {
        format!("{old} needs no replica for a write and cannot be asked")
    } else {
        format!("{} may still be attached to it", names(attached))
    };
    let command = builder.accept_loss_command();
    let message = format!(
        "{old} is given up ({reason}), but {who}, so it may still take writes; nobody is promoted: bring the nodes back, or, when {old} is known to be dead, `{command}`"
    );
    builder.problem(Reason::FailoverBlocked, message);
    builder.wait(
        format!("proof that {old} takes no writes"),
        since,
        None,
        format!("manual action required: `{command}`"),
    );
}

/// How the old master was fenced, and who could not say so.
pub fn in_words(failover: &Failover) -> String {
    let how = failover.fence.as_ref().map(|f| f.how.clone()).unwrap_or_default();
    if failover.stale_netmaps.is_empty() {
        return how;
    }
    format!(
        "{how}; {} could not confirm the fence of the mesh, which does not hear the control server",
        names(&failover.stale_netmaps)
    )
}
