//! The fence through the mesh: the device of a master that was given up gets the quarantine tag,
//! under which the operator alone reaches it (safety.md section 4, steps 4 and 8;
//! docs/decisions/0009-quarantine.md).
//!
//! The record says who is in quarantine; the tag follows from that, whenever the tailnet shows
//! otherwise.

use std::collections::BTreeSet;
use std::time::Duration;

use super::builder::PlanBuilder;
use super::failover::names;
use super::{candidates, derived, roles};
use crate::api::conditions::Reason;
use crate::api::events::EventReason;
use crate::model::change::{Change, Failover};
use crate::model::ids::IncarnationName;
use crate::model::incarnation::Quarantine;
use crate::model::mesh::{BackendState, Device, MeshView};
use crate::model::node::{NodeState, Role};
use crate::model::step::{Command, Effect};

/// A push of the control server was seen to take up to 1.5 s, an agent looks at its network map
/// each second and reports it at once. Who still has the old master after this does not hear the
/// control server.
const NETMAP_LIMIT: Duration = Duration::from_secs(5);
/// The call that gives a tag takes about a second, and a reading of the tailnet follows it.
const TAG_LIMIT: Duration = Duration::from_secs(5);
/// An agent gives up a snapshot after five minutes.
const SAVE_LIMIT: Duration = Duration::from_mins(6);

/// Shuts the old master of a failover off from everybody but the operator. Nobody else is ever put
/// in quarantine.
pub fn begin(builder: &mut PlanBuilder<'_>, failover: &Failover) {
    let (old, epoch, at) = (&failover.old, failover.epoch, builder.now());
    let Some(incarnation) = builder.incarnation(old).filter(|i| i.condemned.is_none()) else {
        return;
    };
    if builder.input.tags.cluster == builder.input.tags.quarantine {
        return;
    }
    let known = incarnation.quarantined.clone();
    if known.as_ref().is_some_and(|q| q.epoch >= epoch) {
        return;
    }
    if known.is_none() {
        builder.event(
            EventReason::QuarantineStarted,
            format!(
                "{old} is isolated from the other nodes until its redis is demoted, epoch {epoch}"
            ),
        );
    }
    let quarantine =
        known.map_or(Quarantine { epoch, at, in_force: None }, |q| Quarantine { epoch, ..q });
    builder.change(old, |i| i.quarantined = Some(quarantine));
}

/// Notes since when the tag is seen to be in force. The answer of the call that gave it proves
/// nothing.
pub fn notice(builder: &mut PlanBuilder<'_>) {
    let reading = &builder.input.inventory.mesh;
    let Some(mesh) = reading.present() else { return };
    for (name, incarnation) in builder.live() {
        let Some(quarantine) = incarnation.quarantined else { continue };
        let devices = derived::devices(builder, mesh, &name);
        let tagged = !devices.is_empty()
            && devices.iter().all(|d| is_only(d, builder.input.tags.quarantine));
        let in_force = tagged
            .then(|| quarantine.in_force.or((reading.at > quarantine.at).then_some(reading.done)))
            .flatten();
        builder.change(&name, |i| i.quarantined = Some(Quarantine { in_force, ..quarantine }));
    }
}

/// Every node that could be attached to the old master was heard after the tag had been in force,
/// and has lost it from its network map.
pub fn proof(builder: &PlanBuilder<'_>, failover: &Failover) -> Option<String> {
    if failover.quorum.min_replicas == 0 {
        // It writes alone: that the others have lost it stops nothing.
        return None;
    }
    let in_force = builder.incarnation(&failover.old)?.quarantined.as_ref()?.in_force?;
    let known_as = ids_of(builder, &failover.old);
    let members = candidates::members(builder, &failover.old);
    let eligible = failover.eligible.iter().map(|e| e.incarnation.clone());
    let survivors: BTreeSet<_> = members.into_iter().chain(eligible).collect();
    let lost = |name: &IncarnationName| {
        let view = builder.view(name).filter(|v| v.connected && v.heard > in_force);
        view.is_some_and(|v| {
            v.state.mesh.backend_state == BackendState::Running
                && sees(&v.state, &known_as) == Some(false)
        })
    };
    let confirmed = !known_as.is_empty() && !survivors.is_empty() && survivors.iter().all(lost);
    let survivors: Vec<_> = survivors.into_iter().collect();
    confirmed.then(|| {
        format!(
            "{} is in quarantine, and gone from the network maps of {}",
            failover.old,
            names(&survivors)
        )
    })
}

/// Nodes that still see a node long after its quarantine: they do not hear the control server, and
/// their links to it go on.
pub fn stale_netmap(builder: &PlanBuilder<'_>, shut_off: &IncarnationName) -> Vec<IncarnationName> {
    let in_force = builder.incarnation(shut_off).and_then(|i| i.quarantined.as_ref()?.in_force);
    let Some(in_force) = in_force.filter(|at| builder.now().passed(*at, NETMAP_LIMIT)) else {
        return Vec::new();
    };
    let known_as = ids_of(builder, shut_off);
    let holds = |name: &IncarnationName| {
        let view =
            builder.view(name).filter(|v| v.connected && v.heard.passed(in_force, NETMAP_LIMIT));
        view.is_some_and(|v| {
            v.state.mesh.backend_state == BackendState::Running
                && sees(&v.state, &known_as) == Some(true)
        })
    };
    builder.live().into_iter().map(|(n, _)| n).filter(|n| n != shut_off && holds(n)).collect()
}

/// Keeps tags as the record says, lets out who can do no harm, and reports who does not hear the
/// control server.
pub fn keep(builder: &mut PlanBuilder<'_>) {
    for (name, incarnation) in builder.live() {
        if let Some(quarantine) = &incarnation.quarantined {
            let_out(builder, &name, quarantine);
            let stale = stale_netmap(builder, &name);
            if !stale.is_empty() {
                let message = format!(
                    "{} cannot hear the control server: {name} was isolated and is still in their network map",
                    names(&stale)
                );
                builder.problem(Reason::StaleNetmap, message);
            }
        }
        if let Some(mesh) = builder.input.inventory.mesh.present() {
            let own = incarnation.device.as_ref();
            for device in derived::devices(builder, mesh, &name) {
                // Somebody else who has its key may be shut off, and is never let in again.
                if incarnation.quarantined.is_some() || own.is_none_or(|own| own == &device.id) {
                    tag(builder, &name, device);
                }
            }
        }
    }
}

/// Gives the device the one of our two tags that it shall have, when it has the other one. A
/// person's own tags are left alone.
fn tag(builder: &mut PlanBuilder<'_>, name: &IncarnationName, device: &Device) {
    let tags = builder.input.tags;
    let quarantine = builder.incarnation(name).and_then(|i| i.quarantined.clone());
    let (wanted, other) = if quarantine.is_some() {
        (tags.quarantine, tags.cluster)
    } else {
        (tags.cluster, tags.quarantine)
    };
    if is_only(device, other) {
        let why = if quarantine.is_some() {
            "it was given up as master and must not be reached"
        } else {
            "it may be reached again"
        };
        let effect = Effect::SetTags {
            incarnation: name.clone(),
            device: device.id.clone(),
            tags: vec![wanted.to_owned()],
        };
        builder.step(effect, why);
        if quarantine.is_some_and(|q| builder.now().passed(q.at, TAG_LIMIT)) {
            let message = format!(
                "the tag {wanted} cannot be set on {name}, so the mesh does not fence it and a time-out has to: the policy's tagOwners must give {wanted} to a tag of the OAuth client, which needs the scope devices:core"
            );
            builder.problem(Reason::QuarantineRefused, message);
        }
        return;
    }
    // A further tag beside ours is no harm unless it undoes the quarantine.
    let fine = if quarantine.is_some() {
        is_only(device, wanted)
    } else {
        device.tags.iter().any(|t| t == wanted)
    };
    if !fine {
        let has =
            if device.tags.is_empty() { "no tags".to_owned() } else { device.tags.join(", ") };
        let message = format!(
            "the device of {name} has {has}, which is left alone; it should have {wanted} and nothing else"
        );
        builder.problem(Reason::UnexpectedTags, message);
    }
}

/// Ends a quarantine once redis there was demoted and what only it has is kept: open connections go
/// on where they stopped, late writes included.
fn let_out(builder: &mut PlanBuilder<'_>, name: &IncarnationName, quarantine: &Quarantine) {
    let failing = matches!(&builder.record.change, Some(Change::Failover(f)) if &f.old == name);
    let master = builder.record.master.clone();
    if failing {
        return;
    }
    if master.as_ref().is_some_and(|p| &p.incarnation == name) {
        // Nobody was chosen in its place: late writes reach the master that they were meant for.
        end_quarantine(builder, name, "nobody took its place");
        return;
    }
    let new_master = master.filter(|p| p.confirmed).and_then(|p| builder.connected(&p.incarnation));
    let state = builder.connected(name).filter(|s| derived::running(&s.redis));
    let (Some(new_master), Some(state)) =
        (new_master.filter(|_| builder.record.change.is_none()), state)
    else {
        return;
    };
    if state.redis.role != Role::Replica || state.highest.epoch < quarantine.epoch {
        builder.command(
            name,
            Command::Detach { drain_ms: 0 },
            "it was given up as master and must not take writes",
        );
        return;
    }
    let beyond = roles::beyond_promotion(state, new_master);
    roles::report_loss(builder, name, beyond);
    let label = format!("before-epoch-{}", quarantine.epoch);
    if beyond.may_be_lost() && state.redis.keys > 0 && !state.saved.contains(&label) {
        builder.command(
            name,
            Command::Save { label },
            "it may have data that the new master lacks, and will be overwritten",
        );
        builder.watch(
            format!("the data of {name} to be kept"),
            quarantine.at,
            SAVE_LIMIT,
            Reason::QuarantineStalled,
        );
        return;
    }
    end_quarantine(builder, name, "its redis was demoted and its data is kept");
}

fn end_quarantine(builder: &mut PlanBuilder<'_>, name: &IncarnationName, why: &str) {
    builder.change(name, |i| i.quarantined = None);
    builder.event(
        EventReason::QuarantineEnded,
        format!("{name} may be reached by the other nodes again: {why}"),
    );
}

/// The others do not reach it: it is in quarantine, or its device was last seen with that tag.
pub fn isolated(builder: &PlanBuilder<'_>, name: &IncarnationName) -> bool {
    let tagged = |mesh: &MeshView| {
        derived::devices(builder, mesh, name)
            .iter()
            .any(|d| is_only(d, builder.input.tags.quarantine))
    };
    builder.incarnation(name).is_some_and(|i| i.quarantined.is_some())
        || builder.input.inventory.mesh.value.as_ref().is_some_and(tagged)
}

fn is_only(device: &Device, tag: &str) -> bool {
    device.tags == [tag]
}

/// Every device that a node is or was: recorded, listed under its name, or reported by its agent.
/// Names prove nothing: they change, and some control servers give a first label where network maps
/// have the whole name.
fn ids_of(builder: &PlanBuilder<'_>, name: &IncarnationName) -> BTreeSet<String> {
    let listed = builder
        .input
        .inventory
        .mesh
        .value
        .as_ref()
        .map(|m| derived::devices(builder, m, name))
        .unwrap_or_default();
    let recorded = builder.incarnation(name).and_then(|i| i.device.clone());
    let reported = builder.view(name).map(|v| v.state.mesh.device_id.clone());
    listed
        .iter()
        .map(|d| d.id.clone())
        .chain(recorded)
        .chain(reported)
        .filter(|id| !id.is_empty())
        .collect()
}

/// Whether a node has one of these devices in its network map; `None` when its word does not tell,
/// because it names peers without their ids.
fn sees(state: &NodeState, ids: &BTreeSet<String>) -> Option<bool> {
    let mesh = &state.mesh;
    (mesh.visible_ids.len() >= mesh.visible_peers.len())
        .then(|| mesh.visible_ids.iter().any(|id| ids.contains(id)))
}
