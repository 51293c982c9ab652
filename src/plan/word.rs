//! A person's word about who is master: nodes that are fenced, a loss that is accepted, who takes
//! over (docs/decisions/0043-a-persons-word.md).

use super::builder::PlanBuilder;
use super::death::Death;
use super::{death, derived, elect, failover, roles};
use crate::api::conditions::Reason;
use crate::api::word::Fenced;
use crate::model::ids::IncarnationName;
use crate::model::node::{NodeState, Role};
use crate::model::record::Promotion;

/// The word that fences this incarnation.
pub fn fence(builder: &PlanBuilder<'_>, name: &IncarnationName) -> Option<Fenced> {
    let ordinal = builder.incarnation(name)?.ordinal;
    Fenced::of(builder.input.cluster).into_iter().find(|f| f.means(ordinal, &name.0))
}

/// A person fenced this incarnation: it takes no writes and is chosen by nobody but a person.
pub fn is_fenced(builder: &PlanBuilder<'_>, name: &IncarnationName) -> bool {
    fence(builder, name).is_some()
}

/// Who is to take over by the word that accepts a loss.
pub fn successor(builder: &PlanBuilder<'_>) -> Option<IncarnationName> {
    builder.accepted().and_then(|word| word.to).map(IncarnationName)
}

/// What a person types to end it.
fn unfence(builder: &PlanBuilder<'_>, name: &IncarnationName) -> String {
    let node = fence(builder, name).map_or_else(|| name.0.clone(), |fence| fence.node);
    format!("akash-redis unfence {} {node}", builder.input.cluster.metadata.name)
}

/// Says of a node that it is fenced, and by whom.
pub fn said(builder: &PlanBuilder<'_>, name: &IncarnationName) -> Option<String> {
    let fence = fence(builder, name)?;
    let by = fence.by.map(|by| format!(" by {by}")).unwrap_or_default();
    Some(format!("fenced{by} until `{}`", unfence(builder, name)))
}

/// The very redis that was promoted, as a master.
fn is_its_master(state: &NodeState, promotion: &Promotion) -> bool {
    derived::running(&state.redis)
        && state.redis.role == Role::Master
        && state.promoted
        && !death::another_process(state, promotion)
}

/// A master that a person fenced stops taking writes and stays master; one whose fence a person took
/// off goes on. True when nothing else is to be done about it.
pub fn keep(builder: &mut PlanBuilder<'_>, promotion: &Promotion) -> bool {
    let name = &promotion.incarnation;
    let held = builder.record.held.as_ref() == Some(name);
    if builder.record.held.is_some() && !held {
        builder.record.held = None;
    }
    let state = builder.connected(name).filter(|s| is_its_master(s, promotion));
    if !is_fenced(builder, name) {
        if !held {
            return false;
        }
        builder.record.held = None;
        if state.is_none_or(|s| !s.redis.fenced) {
            return false;
        }
        elect::again(builder, name, "a person took its fence off");
        return true;
    }
    if !promotion.confirmed {
        let told = format!(
            "{name} was chosen as master, and is {}",
            said(builder, name).unwrap_or_default()
        );
        stopped(builder, &told, name);
        let obeyed = builder.view(name).is_some_and(|v| v.state.promoted);
        return !obeyed && roles::void(builder, promotion).is_none();
    }
    let told = format!(
        "{name} is master and takes no writes: {}",
        said(builder, name).unwrap_or_default()
    );
    stopped(builder, &told, name);
    let Some(state) = state else { return false };
    builder.record.held = Some(name.clone());
    if !state.redis.fenced {
        builder.command(name, crate::model::step::Command::Fence, "a person fenced it");
        return true;
    }
    if let Some(word) = builder.accepted() {
        let death = Death {
            reason: "a person fenced it, and asked for another master".to_owned(),
            witnesses: word.by.into_iter().collect(),
            fenced: Some(format!("{name}'s agent says that its redis is fenced")),
            alive: true,
        };
        failover::start(builder, promotion, death);
    }
    true
}

fn stopped(builder: &mut PlanBuilder<'_>, told: &str, name: &IncarnationName) {
    let cluster = &builder.input.cluster.metadata.name;
    let command = unfence(builder, name);
    let message = format!(
        "{told}, or until another one takes over: `akash-redis failover {cluster} --to NODE --accept-loss`"
    );
    builder.problem(Reason::FencedByPerson, message);
    builder.wait(
        format!("a person to take the fence off {name}"),
        builder.now(),
        None,
        format!("manual action required: `{command}`"),
    );
}

/// Says who is fenced beside the master, and which fence is none.
pub fn report(builder: &mut PlanBuilder<'_>) {
    let master = builder.record.master.as_ref().map(|p| p.incarnation.clone());
    for (name, _) in builder.live() {
        if Some(&name) != master.as_ref()
            && let Some(said) = said(builder, &name)
        {
            let message = format!("{name} takes no master's place: it is {said}");
            builder.problem(Reason::FencedByPerson, message);
        }
    }
    let live = builder.live();
    for fence in Fenced::of(builder.input.cluster) {
        if !live.iter().any(|(name, i)| fence.means(i.ordinal, &name.0)) {
            let (cluster, node) = (&builder.input.cluster.metadata.name, &fence.node);
            let message = format!(
                "{node} is to be fenced, and no node is named so now: see `akash-redis describe {cluster}`"
            );
            builder.problem(Reason::FencedByPerson, message);
        }
    }
}
