//! What is left of those given up: deployments are closed, devices deleted, keys revoked, then they are forgotten.

use std::time::Duration;

use super::draft::Draft;
use super::facts;
use crate::model::ids::IncarnationName;
use crate::model::step::Effect;

/// A close and a few calls of the control API take far less when chain and mesh answer.
const CLEAN_LIMIT: Duration = Duration::from_mins(5);

/// What an earlier process asked the control API for is carried out within this, or never.
const LATE_CALL: Duration = Duration::from_secs(10);

/// Cleans up after every condemned incarnation; forgets it when nothing of it is left by fresh readings.
pub fn clean(draft: &mut Draft<'_>) {
    let condemned: Vec<_> = draft
        .record
        .incarnations
        .iter()
        .filter_map(|(n, i)| i.condemned.as_ref().map(|c| (n.clone(), i.dseq, c.at, c.reason.clone())))
        .collect();
    for (name, dseq, since, reason) in condemned {
        let deployment_gone = close_deployment(draft, &name, dseq, &reason);
        note_closed(draft, &name, deployment_gone);
        let mesh_gone = leave_mesh(draft, &name);
        if deployment_gone && mesh_gone {
            draft.record.incarnations.remove(&name);
            draft.event("Gone", format!("nothing of {name} is left: deployment closed, device and key gone"));
        } else {
            draft.watch(format!("{name} to be cleaned up"), since, CLEAN_LIMIT, "CleanUpStuck");
        }
    }
}

/// True when the chain, read just now, has no active deployment of it and no transaction of ours may still make one.
fn close_deployment(draft: &mut Draft<'_>, name: &IncarnationName, dseq: u64, reason: &str) -> bool {
    let inventory = draft.input.inventory;
    let Some(chain) = inventory.chain.present() else { return false };
    if inventory.pending.contains(&dseq) {
        return false;
    }
    match chain.deployments.get(&dseq) {
        Some(deployment) if deployment.active => {
            draft.step(Effect::CloseDeployment { incarnation: name.clone(), dseq }, format!("{name} was given up: {reason}"));
            false
        }
        _ => true,
    }
}

fn note_closed(draft: &mut Draft<'_>, name: &IncarnationName, gone: bool) {
    let now = draft.now();
    draft.change(name, |i| {
        if let Some(condemned) = &mut i.condemned {
            condemned.closed = gone.then(|| condemned.closed.unwrap_or(now));
        }
    });
}

/// True when the control API, asked after its deployment was closed and after the last mint for it, knows neither a device nor a usable key
/// of it.
///
/// The container may live a moment longer than its lease, and a key that is minted while a node is given up comes after any earlier reading.
fn leave_mesh(draft: &mut Draft<'_>, name: &IncarnationName) -> bool {
    let inventory = draft.input.inventory;
    let Some(mesh) = inventory.mesh.present() else { return false };
    let constants = draft.input.constants;
    let description = name.key_description(&constants.installation);
    let mut gone = true;
    for key in mesh.keys.iter().filter(|k| k.description == description && !k.invalid) {
        draft.step(Effect::RevokeKey { incarnation: name.clone(), key: key.id.clone() }, "nobody shall use it any more");
        gone = false;
    }
    for device in facts::devices(draft, mesh, name) {
        draft.step(Effect::DeleteDevice { incarnation: name.clone(), device: device.id.clone() }, "its node was given up");
        gone = false;
    }
    let began = inventory.mesh.at;
    let closed = draft.incarnation(name).and_then(|i| i.condemned.as_ref()?.closed);
    let late_enough = closed.is_some_and(|closed| began > closed) && began.passed(constants.started, LATE_CALL);
    gone && mesh.all_keys && late_enough && !inventory.minting.contains(name)
}
