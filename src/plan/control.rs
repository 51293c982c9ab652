//! The tailnet's control API: refuses, or is away. Nothing is bought while it is so, because no
//! node could join.

use std::time::Duration;

use super::draft::Draft;
use crate::model::ids::IncarnationName;
use crate::model::step::Effect;

/// Readings follow each other within seconds, and one that failed is no news yet.
const AWAY_AFTER: Duration = Duration::from_secs(30);

/// Why the control API is of no use now; `None` when it is there. A key that it would not mint is
/// told beside each node that waits for one.
fn error<'a>(draft: &Draft<'a>) -> Option<&'a str> {
    let reading = &draft.input.inventory.mesh;
    if reading.present().is_some() {
        None
    } else {
        Some(reading.error.as_deref().unwrap_or("it was not read yet"))
    }
}

/// Says what is wrong with it.
pub fn tell(draft: &mut Draft<'_>) {
    let reading = &draft.input.inventory.mesh;
    let refused: Vec<_> = draft
        .input
        .inventory
        .not_minted
        .iter()
        .filter(|(n, _)| draft.record.incarnations.contains_key(n))
        .collect();
    if let Some((name, why)) = refused.first() {
        draft.problem(
            "MeshApiRefused",
            format!("no key can be had for {name}, so nothing is bought for it: {why}"),
        );
    }
    let Some(error) = error(draft) else { return };
    let since = reading.done.max(draft.input.constants.started);
    if reading.refused {
        draft.problem(
            "MeshApiRefused",
            format!("{error}; until then nobody can join, nothing is bought, and no device is fenced or deleted"),
        );
    } else if draft.now().passed(since, AWAY_AFTER) {
        draft.problem("MeshApiAway", format!("not read since {since}: {error}; nothing is bought, and no device is fenced or deleted"));
    }
}

/// Whether nothing may be bought now; says what is waited for.
pub fn hold(draft: &mut Draft<'_>) -> bool {
    let Some(why) = error(draft) else { return false };
    let since = draft.input.inventory.mesh.done.max(draft.input.constants.started);
    draft.wait(
        format!("the mesh control API, before anything is bought ({why})"),
        since,
        None,
        "the nodes that are missing are bought",
    );
    true
}

/// Revokes usable keys of a node whose secret died with an earlier operator process: they are of no
/// use to anybody.
pub fn revoke_lost(draft: &mut Draft<'_>, name: &IncarnationName) {
    let inventory = draft.input.inventory;
    let Some(mesh) = inventory.mesh.present().filter(|_| !inventory.held.contains_key(name)) else {
        return;
    };
    let description = name.key_description(&draft.input.constants.installation);
    for key in mesh.keys.iter().filter(|k| k.description == description && !k.invalid) {
        let effect = Effect::RevokeKey { incarnation: name.clone(), key: key.id.clone() };
        draft.step(effect, "its secret was lost with an earlier operator process");
    }
}
