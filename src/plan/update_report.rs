//! What is told of nodes that are started anew: how far it is, and what stands in the way.

use super::builder::PlanBuilder;
use super::{derived, health, update};
use crate::api::conditions::{ConditionStatus, Reason};
use crate::api::status::RolloutStatus;
use crate::model::ids::IncarnationName;
use crate::model::image::NodeImage;
use crate::model::incarnation::Update;
use crate::model::inventory::LeaseStatus;
use crate::model::node::Process;
use crate::model::step::Effect;
use crate::model::time::UnixMs;

/// Characters of somebody else's words that are passed on.
const SAID: usize = 300;

/// Waits for a node that was sent its new manifest, up to a limit; past it, or where it will not do
/// better, a person is told.
pub fn wait(builder: &mut PlanBuilder<'_>, name: &IncarnationName, update: &Update, sent: UnixMs) {
    let image = NodeImage::short(&update.to.image);
    let state = builder.connected(name);
    if state.is_some_and(|s| s.boot_id != update.boot_id && s.redis.is_syncing()) {
        let what = format!("{name}, which runs {image}, to copy the master's data");
        builder.wait(what, sent, None, "the next node is started anew");
        return;
    }
    let ends = state.is_some_and(update::ends_at_once);
    if !ends && update::is_expected(builder, name) {
        let limit = update::limit(builder);
        let what = format!("{name} to serve again, with {image}");
        builder.wait(what, sent, Some(limit), "no other node is touched, and it is reported");
        return;
    }
    let cluster = &builder.input.cluster.metadata.name;
    let said = said(builder, name, update);
    let message = format!(
        "{name} was to be started with {image} and does not serve since {sent}: {said}; no other node is touched: correct the manifest or take the change back (what the nodes ran before makes this one well again), or see `{}` and `akash-redis describe {cluster}`",
        health::logs(builder, name)
    );
    builder.problem(Reason::UpdateStalled, message);
    let what = format!("{name} to serve again, or the manifest to be changed");
    builder.wait(what, sent, None, "the next node is started anew");
}

/// What is known of a node that does not serve.
fn said(builder: &PlanBuilder<'_>, name: &IncarnationName, update: &Update) -> String {
    let failing = builder.input.inventory.failing.iter().find(|failing| {
        matches!(&failing.effect, Effect::DeliverManifest { incarnation, .. } if incarnation == name)
    });
    if let Some(failing) = failing {
        let error: String = failing.error.chars().take(SAID).collect();
        return format!("its provider does not take the manifest ({error})");
    }
    let Some(state) = builder.connected(name) else { return silent(builder, name) };
    let old = state.boot_id == update.boot_id;
    if old || (!state.revision.is_empty() && state.revision != update.to.revision) {
        return "its provider took the manifest and runs what it ran before".to_owned();
    }
    let line = match state.failed_start_line.as_str() {
        "" => state.notes.first().cloned().unwrap_or_default(),
        line => line.to_owned(),
    };
    let line = if line.is_empty() { line } else { format!(" (\"{line}\")") };
    match state.redis.process {
        Process::Exited | Process::Starting => format!("its redis does not start{line}"),
        Process::Stuck => "its redis does not answer".to_owned(),
        Process::Running if state.redis.loading => "its redis loads its data".to_owned(),
        Process::Running => format!("its redis runs and is not in sync{line}"),
    }
}

fn silent(builder: &PlanBuilder<'_>, name: &IncarnationName) -> String {
    let lease = builder.incarnation(name).and_then(|i| i.lease.as_ref());
    let status = lease.and_then(|choice| builder.input.inventory.leases.get(&choice.id));
    let page = builder.input.inventory.pages.get(name);
    let container = match status {
        Some(LeaseStatus::Deployed { ready: 0, .. }) => {
            "its provider says that its container is not running"
        }
        Some(LeaseStatus::Deployed { .. }) => "its provider says that its container runs",
        Some(LeaseStatus::NoManifest) => "its provider knows no manifest of it",
        Some(LeaseStatus::Away(_)) => "its provider's gateway does not answer",
        None => "its provider was not asked yet",
    };
    let lacks = page.and_then(|page| page.lacks.first());
    let lacks = lacks.map(|lack| format!(", and its page says: {lack}")).unwrap_or_default();
    format!("it is not heard, {container}{lacks}")
}

/// Says what stands in the way of a rollout, beside a node that does not come back.
pub fn report(builder: &mut PlanBuilder<'_>) {
    let wanted = update::wanted(builder);
    if let Some((name, found, said)) = update::wrong_version(builder, &wanted) {
        let image = NodeImage::short(&wanted.image);
        let whose =
            if wanted.is_default { "the operator's node.redis" } else { "spec.image.redis" };
        builder.problem(
            Reason::ImageVersionWrong,
            format!("{name} runs {found}, and {whose} says that {image} holds {said}: no other node gets it, and none is bought, until one of the two is corrected"),
        );
    }
    if let Some(name) = update::next(builder, &wanted.revision())
        && update::under_way(builder).is_none()
        && let Some(why) = update::refused(builder, &wanted, &name)
    {
        builder.problem(Reason::UpdateRefused, why);
    }
}

/// How many nodes run what is wanted.
pub fn status(builder: &PlanBuilder<'_>) -> Option<RolloutStatus> {
    let wanted = update::wanted(builder);
    let (revision, nodes) = (wanted.revision(), update::nodes(builder));
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let updated = nodes.iter().filter(|(n, i)| {
        // One that does not serve with it yet does not count.
        i.update.is_none() && update::is_current(builder, n, i, &revision)
    });
    (!nodes.is_empty()).then(|| RolloutStatus {
        image: wanted.image.clone(),
        updated: count(updated.count()),
        nodes: count(nodes.len()),
    })
}

/// How far a rollout is, while there is one.
pub fn progress(builder: &PlanBuilder<'_>) -> Option<(ConditionStatus, Reason, String)> {
    let status = status(builder).filter(|s| s.updated < s.nodes)?;
    let image = NodeImage::short(&status.image);
    let now = match update::under_way(builder) {
        Some((name, _, update)) if update.sent.is_some() => format!("; waits for {name}"),
        Some((name, ..)) => format!("; {name} hands over before it is started anew"),
        None => match builder.waits.first() {
            Some(wait) => format!("; waits for {}", wait.what),
            None => String::new(),
        },
    };
    let message = format!("{} of {} nodes run {image}{now}", status.updated, status.nodes);
    Some((ConditionStatus::True, Reason::Updating, message))
}

/// The version that a node runs, by its own word.
pub fn version(builder: &PlanBuilder<'_>, name: &IncarnationName) -> Option<String> {
    let state = builder.view(name).map(|v| &v.state)?;
    let redis = &state.redis;
    (derived::running(redis) && !redis.version.is_empty()).then(|| redis.version.clone())
}
