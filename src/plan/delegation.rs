//! A choice that takes effect by itself: the target of a switchover becomes master as soon as the
//! source hands over to it, which it hears behind the last write, and nobody is asked in between
//! (docs/decisions/0099-a-handover-in-the-stream.md).
//!
//! It is written down before the target is told. From then on the target may be master, until it has
//! acknowledged a higher epoch: nobody else is chosen, and the source takes no writes again, before.

use std::time::Duration;

use super::builder::PlanBuilder;
use super::{chain, death, derived, settings, status};
use crate::api::conditions::Reason;
use crate::api::status::Endpoint;
use crate::model::change::{Change, Delegated, Switchover};
use crate::model::ids::IncarnationName;
use crate::model::node::{NodeState, NodeView, Process, Role};
use crate::model::record::Promotion;
use crate::model::step::Command;
use crate::model::time::UnixMs;

/// A target that was told and does not say within this that it awaits the handover is promoted by
/// command.
const TOLD: Duration = Duration::from_secs(1);

/// A target that becomes master by itself, once the source has handed over.
#[derive(Clone, Debug, PartialEq)]
pub struct Takeover {
    /// Who.
    pub target: IncarnationName,
    /// As what.
    pub delegated: Delegated,
    /// Where writes go then.
    pub endpoint: Endpoint,
}

impl Takeover {
    /// The target says that it is master of that epoch and takes writes: then nobody else is, and what
    /// the next plan says of the master follows from this alone.
    #[must_use]
    pub fn is_seen_in(&self, target: &NodeView) -> bool {
        target.connected && is_taken_over(&target.state, &self.delegated)
    }
}

/// The takeover that a switchover waits for: the source may be told, or was, to hand over.
pub fn expected(builder: &PlanBuilder<'_>) -> Option<Takeover> {
    let Some(Change::Switchover(switchover)) = &builder.record.change else { return None };
    let delegated = switchover.delegated.as_ref()?;
    if switchover.undo || switchover.prepares() || !is_awaited(builder, switchover) {
        return None;
    }
    let target = switchover.target.clone();
    let endpoint = status::place(builder, &target, delegated.epoch)?;
    Some(Takeover { target, delegated: delegated.clone(), endpoint })
}

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
            && builder
                .connected(&switchover.target)
                .is_some_and(|target| is_taken_over(target, delegated))
    })
}

fn is_taken_over(target: &NodeState, delegated: &Delegated) -> bool {
    super::roles::is_master_of(target, delegated.epoch) && target.redis.run_id == delegated.run_id
}

/// Ends it under the epoch of the undoing.
pub fn end(builder: &mut PlanBuilder<'_>, switchover: &Switchover, delegated: &Delegated) -> End {
    if switchover.prepares() {
        // The source was never told to hand over, and it is the only one who knows the word.
        return End::Ended;
    }
    let (target, undone) = (&switchover.target, switchover.epoch);
    let chosen = Promotion {
        epoch: delegated.epoch,
        incarnation: target.clone(),
        run_id: delegated.run_id.clone(),
        boot_id: delegated.boot_id.clone(),
        confirmed: false,
        since: UnixMs::default(),
        quorum: Some(delegated.quorum),
    };
    let exited = builder.view(target).is_some_and(|v| v.state.redis.process == Process::Exited);
    let own = builder.connected(target).filter(|s| !exited && !death::another_process(s, &chosen));
    if let Some(own) = own {
        if own.highest.epoch < undone {
            let why = format!("{} is not to hand over to it any more", switchover.source);
            builder.command(target, Command::Fence, why);
            return End::Waits;
        }
        return if own.redis.role == Role::Master { End::TookOver } else { End::Ended };
    }
    let last = derived::last_heard(builder, target);
    let limit = builder.spec().failover.down_after.0;
    if builder.connected(target).is_none() && !exited && !builder.now().passed(last, limit) {
        return End::Waits;
    }
    // It may have taken over before it was lost, and a source that takes writes did not hand over.
    let source = builder.connected(&switchover.source);
    let Some(source) = source else {
        return lost_both(builder, switchover, chosen);
    };
    let stands = source.redis.process != Process::Running
        || source.redis.role == Role::Replica
        || source.redis.fenced;
    if !stands {
        let why = format!("it may have handed over to {target}, which is lost");
        builder.command(&switchover.source, Command::Fence, why);
        return End::Waits;
    }
    builder.record.master = Some(chosen);
    builder.record.granted = 0;
    End::Unknown
}

/// Who is master is known by nobody who answers.
fn lost_both(builder: &mut PlanBuilder<'_>, switchover: &Switchover, chosen: Promotion) -> End {
    if builder.loss_accepted() {
        builder.record.master = Some(chosen);
        builder.record.granted = 0;
        return End::Unknown;
    }
    let Switchover { source, target, .. } = switchover;
    let command = builder.accept_loss_command();
    let message = format!(
        "{source} and {target} fell silent while one handed over to the other, and nobody else knows which of them is master: the first one that answers says it; `{command}` gives both up"
    );
    builder.problem(Reason::FailoverBlocked, message);
    End::Waits
}

/// It gets what the source writes from the source itself.
fn is_linked(target: &NodeState, source: &NodeState) -> bool {
    derived::running(&target.redis)
        && target.redis.is_linked()
        && target.redis.replid == source.redis.replid
        && derived::fqdn(source) == Some(target.redis.master_host.as_str())
}
