//! Nodes are started anew with what the manifest wants now (image, egress, settings that Redis takes
//! at its start): by another manifest for the same lease, so that lease and volume stay. One node at
//! a time, replicas first, each only while all others are well; the master moves away before.
//!
//! What does not come back stops the rest, and is left as it is until the manifest says something
//! else: the node is not replaced by another one that would not start either. Once another node runs
//! with the same, it is the node that is broken, and it is replaced like any other.

use std::time::Duration;

use super::builder::PlanBuilder;
use super::{
    control, derived, health, moves, repair, rollout, surge, switchover, update_report, versions,
};
use crate::api::difference::resources_asked;
use crate::api::events::EventReason;
use crate::api::template::Template;
use crate::model::ids::{IncarnationName, LeaseId};
use crate::model::image::NodeImage;
use crate::model::incarnation::{Deployed, Incarnation, Update};
use crate::model::node::NodeState;
use crate::model::redis_version::RedisVersion;
use crate::model::step::{Command, Effect};

/// Between two tries to bring the manifest by different operator processes, and between two tries to
/// have the master move away.
const AGAIN: Duration = Duration::from_secs(30);

/// What nodes are to be started with.
pub fn wanted(builder: &PlanBuilder<'_>) -> Template {
    Template::of(builder.spec(), builder.input.image)
}

/// Nodes that are there, with what each is started with by its own word or by the record.
pub(super) fn nodes(builder: &PlanBuilder<'_>) -> Vec<(IncarnationName, Incarnation)> {
    builder.live().into_iter().filter(|(_, i)| i.has_joined()).collect()
}

/// It runs what is wanted. An agent of an earlier version does not say: then it is what it was last
/// sent, once it was started after that.
pub(super) fn is_current(
    builder: &PlanBuilder<'_>,
    name: &IncarnationName,
    incarnation: &Incarnation,
    revision: &str,
) -> bool {
    let known = incarnation.deployed.as_ref().is_some_and(|d| d.revision == revision);
    match (builder.connected(name), &incarnation.update) {
        (Some(state), Some(update)) => {
            let said = state.revision.is_empty() || state.revision == revision;
            let anew = update.sent.is_some() && !update.pending && state.boot_id != update.boot_id;
            update.to.revision == revision && anew && said
        }
        (Some(state), None) if !state.revision.is_empty() => state.revision == revision,
        (None, Some(_)) => false,
        (_, None) => known,
    }
}

/// It serves, as master or as a replica in sync.
fn serves(builder: &PlanBuilder<'_>, name: &IncarnationName, incarnation: &Incarnation) -> bool {
    let follows = |state: &NodeState| health::follows(builder, name, state);
    let master = builder.record.master.as_ref().is_some_and(|p| &p.incarnation == name);
    builder.connected(name).is_some_and(|state| {
        derived::running(&state.redis)
            && if master {
                !state.redis.fenced
            } else {
                incarnation.is_candidate() && follows(state)
            }
    })
}

/// Another node runs well with it: whatever is wrong with a node is its own.
fn is_proven(builder: &PlanBuilder<'_>, name: &IncarnationName, revision: &str) -> bool {
    nodes(builder).iter().any(|(other, incarnation)| {
        other != name
            && incarnation.update.is_none()
            && is_current(builder, other, incarnation, revision)
            && serves(builder, other, incarnation)
    })
}

/// It was started anew a moment ago: its silence says nothing yet.
pub fn is_expected(builder: &PlanBuilder<'_>, name: &IncarnationName) -> bool {
    let sent = builder.incarnation(name).and_then(|i| i.update.as_ref()?.sent);
    sent.is_some_and(|sent| !builder.now().passed(sent, limit(builder)))
}

/// What is wrong with it may be what it was started with: it is neither replaced, nor are its data
/// dropped.
pub fn is_spared(builder: &PlanBuilder<'_>, name: &IncarnationName) -> bool {
    let update = builder.incarnation(name).and_then(|i| i.update.as_ref());
    let Some(update) = update.filter(|update| update.sent.is_some()) else { return false };
    update.pending || is_expected(builder, name) || !is_proven(builder, name, &update.to.revision)
}

/// A start with another image takes no longer, or a person should look at it.
pub(super) fn limit(builder: &PlanBuilder<'_>) -> Duration {
    builder.input.timing.join_deadline
}

/// The node that is being started anew.
pub(super) fn under_way(
    builder: &PlanBuilder<'_>,
) -> Option<(IncarnationName, Incarnation, Update)> {
    builder.live().into_iter().find_map(|(n, i)| Some((n, i.clone(), i.update?)))
}

/// Goes on with the node that is being started anew, or begins with the next one.
pub fn plan(builder: &mut PlanBuilder<'_>) {
    let wanted = wanted(builder);
    finish(builder, &wanted.deployed());
    surge::leave(builder, &wanted.revision());
    if let Some((name, _, update)) = under_way(builder) {
        go_on(builder, &name, update, &wanted);
        return;
    }
    begin(builder, &wanted);
}

/// Notes who runs what is wanted, and whose start anew has come to its end.
fn finish(builder: &mut PlanBuilder<'_>, wanted: &Deployed) {
    for (name, incarnation) in nodes(builder) {
        if !is_current(builder, &name, &incarnation, &wanted.revision) {
            continue;
        }
        if let Some(update) = &incarnation.update {
            if !serves(builder, &name, &incarnation) {
                continue;
            }
            let took = builder.now().since(update.sent.unwrap_or(update.at)).as_secs();
            let image = NodeImage::short(&wanted.image);
            let message = format!("{name} runs {image} and serves again, after {took} s");
            builder.event(EventReason::NodeUpdated, message);
        }
        builder.change(&name, |i| (i.deployed, i.update) = (Some(wanted.clone()), None));
    }
}

/// One step further with this node: the manifest says something else meanwhile, the master moves
/// away, the new manifest goes to its provider, it is waited for.
fn go_on(
    builder: &mut PlanBuilder<'_>,
    name: &IncarnationName,
    mut update: Update,
    wanted: &Template,
) {
    if update.to.revision != wanted.revision() {
        if update.sent.is_none() {
            // Nothing was done for it yet.
            builder.change(name, |i| i.update = None);
            begin(builder, wanted);
            return;
        }
        update = Update { to: wanted.deployed(), at: builder.now(), pending: true, ..update };
        update.boot_id.clear();
        builder.change(name, |i| i.update = Some(update.clone()));
        let image = NodeImage::short(&wanted.image);
        let message = format!(
            "the manifest wants something else meanwhile: {name} is started anew with {image}"
        );
        builder.event(EventReason::NodeUpdating, message);
    }
    match update.sent.filter(|_| !update.pending) {
        None if may_go(builder, name, &update) => send(builder, name, &update, true),
        None => {}
        Some(sent) => {
            let since_then = |d: &&crate::model::inventory::Delivered| d.at >= update.at;
            let delivered = builder.input.inventory.delivered.get(name).filter(since_then);
            let failed = builder.input.inventory.failing.iter().any(|failing| {
                matches!(&failing.effect, Effect::DeliverManifest { incarnation, .. } if incarnation == name)
            });
            let again = builder.now().passed(sent, AGAIN);
            let started = builder.connected(name).is_some_and(|s| s.boot_id != update.boot_id);
            if delivered.is_none() && !started && (failed || again) {
                send(builder, name, &update, false);
            }
            update_report::wait(builder, name, &update, sent);
        }
    }
}

/// Whether the node may be stopped now; says what that waits for, and has the master move away.
fn may_go(builder: &mut PlanBuilder<'_>, name: &IncarnationName, update: &Update) -> bool {
    let Some(incarnation) = builder.incarnation(name).cloned() else { return false };
    if !serves(builder, name, &incarnation) {
        // Nothing is taken away from anybody.
        return true;
    }
    if builder.record.change.is_some() {
        return false;
    }
    if !moves::is_whole_but(builder, Some(name)) {
        let what = format!("all other nodes to be in sync before {name} is started anew");
        builder.wait(what, update.at, None, "it is started anew");
        return false;
    }
    let is_master = builder.record.master.as_ref().is_some_and(|p| &p.incarnation == name);
    if !is_master || builder.live().len() == 1 {
        return true;
    }
    let (now, live) = (builder.now(), builder.live());
    let target = rollout::best_stayer(builder, &live, name);
    let rests = update.handed.is_some_and(|at| !now.passed(at, AGAIN));
    let Some(target) = target.filter(|_| !rests) else {
        let what = format!("a replica in sync to take over from {name} before it is started anew");
        builder.wait(what, update.at, None, "the master moves, then it is started anew");
        return false;
    };
    switchover::start(builder, &target, &format!("{name} is to be started anew"));
    if builder.record.change.is_some() {
        builder.change(name, |i| i.update = Some(Update { handed: Some(now), ..update.clone() }));
    }
    false
}

fn lease(builder: &PlanBuilder<'_>, name: &IncarnationName) -> Option<LeaseId> {
    let chain = builder.input.inventory.chain.present()?;
    let dseq = builder.incarnation(name)?.dseq;
    let free = !builder.input.inventory.pending.contains(&dseq);
    let deployment = chain.deployments.get(&dseq).filter(|d| d.active && free)?;
    derived::active_lease(deployment).map(|l| l.id.clone())
}

fn send(builder: &mut PlanBuilder<'_>, name: &IncarnationName, update: &Update, first: bool) {
    let Some(lease) = lease(builder, name) else {
        let what = format!("the chain, to change the manifest of {name}");
        builder.wait(what, update.at, None, "it is started anew");
        return;
    };
    // Its mesh state is on its volume. Without one it joins anew, as another device.
    let joins_anew = builder.spec().resources.data.is_none();
    if joins_anew && control::hold(builder) {
        return;
    }
    if first {
        let (now, boot_id) = (
            builder.now(),
            builder.view(name).map(|v| v.state.boot_id.clone()).unwrap_or_default(),
        );
        builder.change(name, |i| {
            i.update = Some(Update { sent: Some(now), boot_id, pending: false, ..update.clone() });
            if joins_anew {
                i.former_devices.extend(i.device.take());
            }
        });
    }
    if joins_anew {
        control::revoke_lost(builder, name);
    }
    let effect = Effect::DeliverManifest { incarnation: name.clone(), lease };
    builder.step(effect, "it is to be started with what the manifest wants now");
}

/// The next node that is to be started anew: replicas first.
pub(super) fn next(builder: &PlanBuilder<'_>, revision: &str) -> Option<IncarnationName> {
    let stale = nodes(builder).into_iter().filter(|(n, i)| !is_current(builder, n, i, revision));
    let master = builder.record.master.as_ref().map(|p| &p.incarnation);
    stale.min_by_key(|(n, i)| (Some(n) == master, i.ordinal, n.clone())).map(|(n, _)| n)
}

/// Begins with the next node that runs something else, or says what that waits for.
fn begin(builder: &mut PlanBuilder<'_>, wanted: &Template) {
    let Some(name) = &next(builder, &wanted.revision()) else { return };
    if refused(builder, wanted, name).is_some() || wrong_version(builder, wanted).is_some() {
        // Why is told with everything else that is wrong.
        return;
    }
    let now = builder.now();
    if !moves::is_whole(builder) || acts(builder) {
        let what = format!("all nodes to be in sync before {name} is started anew");
        builder.wait(what, now, None, "it is started with what the manifest wants now");
        return;
    }
    let window = builder.spec().maintenance.filter(|_| wanted.is_default);
    if let Some(opens) = window.map(|m| m.window.next(now)).filter(|opens| *opens > now) {
        let what = format!("the maintenance window in which {name} may be started anew");
        builder.wait(what, now, Some(opens.since(now)), "the image of the operator is rolled out");
        return;
    }
    if surge::waits(builder, name) {
        return;
    }
    let image = NodeImage::short(&wanted.image);
    let message = format!("{name} is started anew with {image}; it keeps its lease");
    builder.event(EventReason::NodeUpdating, message);
    let update = Update {
        to: wanted.deployed(),
        at: now,
        sent: None,
        boot_id: String::new(),
        handed: None,
        pending: false,
    };
    builder.change(name, |i| i.update = Some(update.clone()));
    if may_go(builder, name, &update) {
        send(builder, name, &update, true);
    }
}

/// This plan does something else already that takes a node away for a while.
fn acts(builder: &PlanBuilder<'_>) -> bool {
    let restarts = builder
        .steps
        .iter()
        .any(|s| matches!(&s.effect, Effect::Command { command: Command::Restart, .. }));
    restarts
        || builder.record.change.is_some()
        || builder.live().iter().any(|(_, i)| i.moving.is_some())
}

/// Why it cannot be rolled out at all, one sentence.
pub(super) fn refused(
    builder: &PlanBuilder<'_>,
    wanted: &Template,
    next: &IncarnationName,
) -> Option<String> {
    let cluster = &builder.input.cluster.metadata.name;
    let incarnation = builder.incarnation(next)?;
    let resources = &incarnation.resources;
    if !resources.is_empty() && *resources != resources_asked(builder.spec()) {
        return Some(format!(
            "{next} was leased with other resources than the manifest has, so that its lease takes no other manifest: `akash-redis migrate {cluster} {next}` makes a new one first"
        ));
    }
    if builder.live().len() == 1 && builder.spec().resources.data.is_none() {
        return Some(format!(
            "{next} is the only node and has no data volume: its data would end with its container; `akash-redis scale {cluster} --nodes 2` first, or take the change back"
        ));
    }
    let master = builder.record.master.as_ref().map(|p| p.incarnation.clone())?;
    let (its, new) = (versions::version(builder, &master)?, wanted.redis?);
    (!new.can_follow(its)).then(|| {
        format!(
            "{master} is master and runs {its}, whose data {new} cannot read: there is no way back over this step, see docs/guide/versions.md; take the image back, or copy the data to a second cluster"
        )
    })
}

/// A node that runs another version than its image is said to hold: who, what, and what was said.
pub(super) fn wrong_version(
    builder: &PlanBuilder<'_>,
    wanted: &Template,
) -> Option<(IncarnationName, RedisVersion, RedisVersion)> {
    let said = wanted.redis?;
    let revision = wanted.revision();
    nodes(builder).into_iter().find_map(|(name, _)| {
        let state = builder.connected(&name).filter(|s| s.revision == revision)?;
        let found = RedisVersion::parse(&state.redis.version)?;
        (found != said).then_some((name, found, said))
    })
}

/// Whether nothing may be bought, because what is bought would run an image that is not what it is
/// said to be; says so.
pub fn hold(builder: &mut PlanBuilder<'_>) -> bool {
    let wanted = wanted(builder);
    let wrong = wrong_version(builder, &wanted).is_some();
    if wrong {
        let what = "the image to be what it is said to be".to_owned();
        builder.wait(what, builder.now(), None, "the missing nodes are bought");
    }
    wrong
}

/// Its redis ends as soon as it was started, several times.
pub(super) fn ends_at_once(state: &NodeState) -> bool {
    repair::loops(state)
}
