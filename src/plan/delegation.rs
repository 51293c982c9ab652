//! A choice that takes effect by itself: the target of a switchover becomes master as soon as the
//! source hands over to it, which it hears behind the last write, and nobody is asked in between
//! (docs/decisions/0099-a-handover-in-the-stream.md).
//!
//! It is written down before the target is told. From then on the target may be master, until it has
//! acknowledged a higher epoch: nobody else is chosen, and the source takes no writes again, before.

use std::time::Duration;

use super::builder::PlanBuilder;
use super::{chain, death, derived, settings};
use crate::model::node::{NodeState, Process, Role};
use crate::model::record::{Change, Delegated, Promotion, Switchover};
use crate::model::step::Command;
use crate::model::time::UnixMs;

/// A target that was told and does not say within this that it awaits the handover is promoted by
/// command.
const TOLD: Duration = Duration::from_secs(1);

/// What became of a delegated choice that is not to take effect any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The target has not acknowledged it yet.
    Waits,
    /// The target took over before it heard of it.
    TookOver,
    /// Nobody can say: it counts as the master that was chosen.
    Unknown,
    /// The target did not take over, and will not.
    Ended,
}

/// Tells the target, where both agents know how; true while that is waited for.
pub fn is_under_way(builder: &mut PlanBuilder<'_>, switchover: &Switchover) -> bool {
    if switchover.undo || is_awaited(builder, switchover) {
        return false;
    }
    let (Some(source), Some(target)) =
        (builder.connected(&switchover.source), builder.connected(&switchover.target))
    else {
        return false;
    };
    if source.awaits.is_none() || target.awaits.is_none() || !is_linked(target, source) {
        return false;
    }
    let delegated = match &switchover.delegated {
        Some(delegated) if builder.now().passed(delegated.at, TOLD) => return false,
        Some(delegated) => delegated.clone(),
        None => Delegated {
            epoch: switchover.epoch,
            at: builder.now(),
            run_id: target.redis.run_id.clone(),
            boot_id: target.boot_id.clone(),
            quorum: settings::quorum_at_promotion(builder, &switchover.target),
        },
    };
    let command = Command::AwaitHandover {
        replicas: chain::grants(builder, switchover),
        quorum: delegated.quorum,
        planned: !builder.spec().is_confirmed(),
    };
    let told = Switchover { delegated: Some(delegated), ..switchover.clone() };
    builder.record.change = Some(Change::Switchover(told));
    let why = format!("{} is to hand over to it", switchover.source);
    builder.command(&switchover.target, command, why);
    builder.wait(
        format!("{} to await the handover", switchover.target),
        switchover.started,
        Some(switchover.deadline.since(switchover.started)),
        "it is promoted by command",
    );
    true
}

/// The target says that it takes over as soon as the source hands over to it.
pub fn is_awaited(builder: &PlanBuilder<'_>, switchover: &Switchover) -> bool {
    switchover.delegated.as_ref().is_some_and(|delegated| {
        builder.connected(&switchover.target).is_some_and(|target| {
            target.awaits == Some(delegated.epoch)
                && target.highest.epoch == delegated.epoch
                && target.redis.run_id == delegated.run_id
        })
    })
}

/// The source handed over, and the target is master of the epoch.
pub fn took_over(builder: &PlanBuilder<'_>, switchover: &Switchover) -> bool {
    switchover.delegated.as_ref().is_some_and(|delegated| {
        !switchover.undo
            && builder.connected(&switchover.target).is_some_and(|target| {
                super::roles::is_master_of(target, delegated.epoch)
                    && target.redis.run_id == delegated.run_id
            })
    })
}

/// Ends it under the epoch of the undoing.
pub fn end(builder: &mut PlanBuilder<'_>, switchover: &Switchover, delegated: &Delegated) -> End {
    let (name, undone) = (&switchover.target, switchover.epoch);
    let promotion = Promotion {
        epoch: delegated.epoch,
        incarnation: name.clone(),
        run_id: delegated.run_id.clone(),
        boot_id: delegated.boot_id.clone(),
        confirmed: false,
        since: UnixMs::default(),
        quorum: Some(delegated.quorum),
    };
    let exited = builder.view(name).is_some_and(|v| v.state.redis.process == Process::Exited);
    let another = builder.connected(name).is_some_and(|s| death::another_process(s, &promotion));
    let silent = builder.connected(name).is_none()
        && builder
            .now()
            .passed(derived::last_heard(builder, name), builder.spec().failover.down_after.0);
    if exited || another || silent {
        builder.record.master = Some(promotion);
        builder.record.granted = 0;
        return End::Unknown;
    }
    let Some(target) = builder.connected(name) else { return End::Waits };
    if target.highest.epoch < undone {
        let why = format!("{} is not to hand over to it any more", switchover.source);
        builder.command(name, Command::Fence, why);
        return End::Waits;
    }
    if target.redis.role == Role::Master { End::TookOver } else { End::Ended }
}

/// It gets what the source writes from the source itself.
fn is_linked(target: &NodeState, source: &NodeState) -> bool {
    derived::running(&target.redis)
        && target.redis.is_linked()
        && target.redis.replid == source.redis.replid
        && derived::fqdn(source) == Some(target.redis.master_host.as_str())
}
