//! What the tailnet's list of devices says about a node: deleted by somebody, used by somebody
//! else, or in use twice.

use super::draft::Draft;
use super::{facts, witness};
use crate::model::ids::IncarnationName;
use crate::model::mesh::MeshView;

/// The device with which a node joined is in the tailnet's list no more, and the node is not heard.
/// The list is believed only when it was begun after the node's last word.
pub fn unlisted(draft: &Draft<'_>, name: &IncarnationName) -> bool {
    let reading = &draft.input.inventory.mesh;
    let Some(mesh) = reading.present() else { return false };
    let joined = draft.incarnation(name).is_some_and(|i| i.joined && i.rejoin.is_none());
    let silent = draft.connected(name).is_none() && reading.at > facts::last_heard(draft, name);
    joined && silent && facts::devices(draft, mesh, name).is_empty()
}

/// The same, and the list has another of this cluster's devices: an empty one is an error of the
/// API, or a database that was restored, sooner than a person's work on one node.
pub fn deleted(draft: &Draft<'_>, name: &IncarnationName) -> bool {
    let Some(mesh) = draft.input.inventory.mesh.present() else { return false };
    let listed = |n: &IncarnationName| !facts::devices(draft, mesh, n).is_empty();
    unlisted(draft, name) && draft.live().iter().any(|(n, i)| n != name && i.joined && listed(n))
}

/// Every other node has somebody in its place that is in sync, or was until its own device went.
pub fn others_whole(draft: &Draft<'_>, name: &IncarnationName) -> bool {
    let live = draft.live();
    let own = draft.incarnation(name).map(|i| i.ordinal);
    (0..draft.spec().nodes)
        .filter(|o| Some(*o) != own)
        .all(|o| live.iter().any(|(_, i)| i.ordinal == o && i.candidate))
}

/// Why a node that joined is not alone in the use of its key; `None` while nothing speaks for it.
pub fn compromised(draft: &Draft<'_>, name: &IncarnationName) -> Option<String> {
    let own = draft.incarnation(name)?.device.as_ref()?;
    let reported = draft
        .connected(name)
        .map(|s| &s.mesh)
        .filter(|m| m.backend_state == "Running" && !m.device_id.is_empty());
    if let Some(mesh) = reported.filter(|m| &m.device_id != own) {
        return Some(format!(
            "its agent joined as device {own} and speaks from {} now: its place on the mesh was taken over",
            mesh.device_id
        ));
    }
    let mesh = draft.input.inventory.mesh.present()?;
    let stranger = facts::devices(draft, mesh, name).into_iter().find(|d| &d.id != own)?;
    Some(format!(
        "device {} joined under its name with a key of ours, and its agent knows nothing of it: the key is compromised",
        stranger.id
    ))
}

/// Its agent says by its signed page that the control server refuses its key for good: this node
/// never joins again.
pub fn key_spent(draft: &Draft<'_>, name: &IncarnationName) -> Option<String> {
    if !witness::page(draft, name)?.key_spent() {
        return None;
    }
    let used = draft
        .input
        .inventory
        .mesh
        .present()
        .and_then(|mesh| facts::devices(draft, mesh, name).first().map(|d| d.id.clone()));
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
pub fn not_joined(draft: &Draft<'_>, name: &IncarnationName) -> Option<String> {
    let mesh = draft.input.inventory.mesh.present()?;
    if let Some(device) = facts::devices(draft, mesh, name).first() {
        return Some(format!(
            "its key was used by device {}, whose agent does not answer: the policy must let the operator reach tcp:9700 of its tag, or somebody else has the key",
            device.id
        ));
    }
    let description = name.key_description(&draft.input.constants.installation);
    let usable = mesh.keys.iter().any(|k| k.description == description && !k.invalid);
    let delivered = draft.input.inventory.held.contains_key(name);
    (delivered && !usable && mesh.all_keys)
        .then(|| "its key was revoked, or used by a device of another name".to_owned())
}

/// Names what a person should look at.
///
/// A state that is in use in two places is said and no more: a container that is started again
/// shows it for a moment too, and to give the node up would destroy its volume.
pub fn report(draft: &mut Draft<'_>) {
    for (name, _) in draft.live() {
        if let Some(why) = compromised(draft, &name) {
            draft.problem("Compromised", format!("{name} is replaced: {why}"));
        }
        let twice = |mesh: &MeshView| {
            facts::devices(draft, mesh, &name).iter().any(|d| d.multiple_connections)
        };
        if draft.input.inventory.mesh.present().is_some_and(twice) {
            let message = format!(
                "the mesh state of {name} is in use in two places: its provider runs a second copy of it, or has just started it anew; if it stays, move it with `akash-redis migrate`"
            );
            draft.problem("StateInTwoPlaces", message);
        }
    }
}
