//! What the tailnet's list of devices says about a node: deleted by somebody, used by somebody
//! else, or in use twice.

use super::builder::PlanBuilder;
use super::{derived, evidence};
use crate::api::conditions::Reason;
use crate::model::ids::IncarnationName;
use crate::model::incarnation::Incarnation;
use crate::model::mesh::{BackendState, MeshView};

/// The device with which a node joined is in the tailnet's list no more, and the node is not heard.
/// The list is believed only when it was begun after the node's last word.
pub fn unlisted(builder: &PlanBuilder<'_>, name: &IncarnationName) -> bool {
    let reading = &builder.input.inventory.mesh;
    let Some(mesh) = reading.present() else { return false };
    // One that joins anew under another device is on its way.
    let joins = |i: &Incarnation| i.rejoin.is_some() || (i.update.is_some() && i.device.is_none());
    let joined = builder.incarnation(name).is_some_and(|i| i.has_joined() && !joins(i));
    let silent =
        builder.connected(name).is_none() && reading.at > derived::last_heard(builder, name);
    joined && silent && derived::devices(builder, mesh, name).is_empty()
}

/// The same, and the list has another of this cluster's devices: an empty one is an error of the
/// API, or a database that was restored, sooner than a person's work on one node.
pub fn deleted(builder: &PlanBuilder<'_>, name: &IncarnationName) -> bool {
    let Some(mesh) = builder.input.inventory.mesh.present() else { return false };
    let listed = |n: &IncarnationName| !derived::devices(builder, mesh, n).is_empty();
    unlisted(builder, name)
        && builder.live().iter().any(|(n, i)| n != name && i.has_joined() && listed(n))
}

/// Every other node has somebody in its place that is in sync, or was until its own device went.
pub fn others_whole(builder: &PlanBuilder<'_>, name: &IncarnationName) -> bool {
    let live = builder.live();
    let own = builder.incarnation(name).map(|i| i.ordinal);
    (0..builder.spec().nodes)
        .filter(|o| Some(*o) != own)
        .all(|o| live.iter().any(|(_, i)| i.ordinal == o && i.is_candidate()))
}

/// Why a node that joined is not alone in the use of its key; `None` while nothing speaks for it.
pub fn compromised(builder: &PlanBuilder<'_>, name: &IncarnationName) -> Option<String> {
    let own = builder.incarnation(name)?.device.as_ref()?;
    let reported = builder
        .connected(name)
        .map(|s| &s.mesh)
        .filter(|m| m.backend_state == BackendState::Running && !m.device_id.is_empty());
    if let Some(mesh) = reported.filter(|m| &m.device_id != own) {
        return Some(format!(
            "its agent joined as device {own} and speaks from {} now: its place on the mesh was taken over",
            mesh.device_id
        ));
    }
    let mesh = builder.input.inventory.mesh.present()?;
    let former = &builder.incarnation(name)?.former_devices;
    let stranger = derived::devices(builder, mesh, name)
        .into_iter()
        .find(|d| &d.id != own && !former.contains(&d.id))?;
    Some(format!(
        "device {} joined under its name with a key of ours, and its agent knows nothing of it: the key is compromised",
        stranger.id
    ))
}

/// Its agent says by its signed page that the control server refuses its key for good: this node
/// never joins again.
pub fn key_spent(builder: &PlanBuilder<'_>, name: &IncarnationName) -> Option<String> {
    if !evidence::page(builder, name)?.key_spent() {
        return None;
    }
    let used = builder
        .input
        .inventory
        .mesh
        .present()
        .and_then(|mesh| derived::devices(builder, mesh, name).first().map(|d| d.id.clone()));
    Some(match used {
        // It may be its own, from before its state was lost: who else has it cannot be told, and it
        // is deleted either way.
        Some(device) => format!(
            "its agent cannot join because its key was used up, by device {device}: it lost its mesh state, or the key is compromised"
        ),
        None => "its agent cannot join because its key was used up, revoked or has expired, and only a new node gets a new key".to_owned(),
    })
}

/// What the tailnet knows of a node that never reported.
pub fn not_joined(builder: &PlanBuilder<'_>, name: &IncarnationName) -> Option<String> {
    let mesh = builder.input.inventory.mesh.present()?;
    if let Some(device) = derived::devices(builder, mesh, name).first() {
        if device.unsigned {
            return Some(format!(
                "the tailnet is locked and nobody has signed the key of its device {}, so that no other device hears it: `tailscale lock sign` on a signing device lets it in, and nodes to come need the lock off",
                device.id
            ));
        }
        return Some(format!(
            "its key was used by device {}, whose agent does not answer: the policy must let the operator reach tcp:9700 of its tag, or somebody else has the key",
            device.id
        ));
    }
    let description = name.key_description(&builder.input.constants.installation);
    let usable = mesh.keys.iter().any(|k| k.description == description && !k.invalid);
    let delivered = builder.input.inventory.held.contains_key(name);
    (delivered && !usable && mesh.all_keys)
        .then(|| "its key was revoked, or used by a device of another name".to_owned())
}

/// Names what a person should look at.
///
/// A state that is in use in two places is said and no more: a container that is started again
/// shows it for a moment too, and to give the node up would destroy its volume.
pub fn report(builder: &mut PlanBuilder<'_>) {
    for (name, _) in builder.live() {
        if let Some(why) = compromised(builder, &name) {
            builder.problem(Reason::KeyCompromised, format!("{name} is replaced: {why}"));
        }
        let twice = |mesh: &MeshView| {
            derived::devices(builder, mesh, &name).iter().any(|d| d.multiple_connections)
        };
        if builder.input.inventory.mesh.present().is_some_and(twice) {
            let cluster = &builder.input.cluster.metadata.name;
            let message = format!(
                "the mesh state of {name} is in use in two places: its provider runs a second copy of it, or has just started it anew; if it stays, move it with `akash-redis migrate {cluster} {name}`"
            );
            builder.problem(Reason::DuplicateMeshState, message);
        }
    }
}
