//! The tailnet's control API: refuses, or is away. Nothing is bought while it is so, because no
//! node could join.

use std::time::Duration;

use super::builder::PlanBuilder;
use crate::api::conditions::Reason;
use crate::model::ids::IncarnationName;
use crate::model::step::Effect;

/// Readings follow each other within seconds, and one that failed is no news yet.
const AWAY_AFTER: Duration = Duration::from_secs(30);

/// Why the control API is of no use now; `None` when it is there. A key that it would not mint is
/// told beside each node that waits for one.
fn error<'a>(builder: &PlanBuilder<'a>) -> Option<&'a str> {
    let reading = &builder.input.inventory.mesh;
    if reading.present().is_some() {
        None
    } else {
        Some(reading.error.as_deref().unwrap_or("it was not read yet"))
    }
}

/// Says what is wrong with it.
pub fn report(builder: &mut PlanBuilder<'_>) {
    let reading = &builder.input.inventory.mesh;
    let refused: Vec<_> = builder
        .input
        .inventory
        .not_minted
        .iter()
        .filter(|(n, _)| builder.record.incarnations.contains_key(n))
        .collect();
    if let Some((name, why)) = refused.first() {
        builder.problem(
            Reason::MeshApiRefused,
            format!("no auth key for {name}, so nothing is bought for it: {why}"),
        );
    }
    let Some(error) = error(builder) else { return };
    let since = reading.done.max(builder.input.constants.started);
    if reading.refused {
        builder.problem(
            Reason::MeshApiRefused,
            format!("{error}; until this is fixed no node can join, nothing is bought, and no device is fenced or deleted"),
        );
    } else if builder.now().passed(since, AWAY_AFTER) {
        builder.problem(Reason::MeshApiUnavailable, format!("not read since {since}: {error}; nothing is bought, and no device is fenced or deleted"));
    }
}

/// Whether nothing may be bought now; says what is waited for.
pub fn hold(builder: &mut PlanBuilder<'_>) -> bool {
    let Some(why) = error(builder) else { return false };
    let since = builder.input.inventory.mesh.done.max(builder.input.constants.started);
    builder.wait(
        format!("the mesh control API, before anything is bought ({why})"),
        since,
        None,
        "the missing nodes are bought",
    );
    true
}

/// Revokes usable keys of a node whose secret died with an earlier operator process: they are of no
/// use to anybody.
pub fn revoke_lost(builder: &mut PlanBuilder<'_>, name: &IncarnationName) {
    let inventory = builder.input.inventory;
    let Some(mesh) = inventory.mesh.present().filter(|_| !inventory.held.contains_key(name)) else {
        return;
    };
    let description = name.key_description(&builder.input.constants.installation);
    for key in mesh.keys.iter().filter(|k| k.description == description && !k.invalid) {
        let effect = Effect::RevokeKey { incarnation: name.clone(), key: key.id.clone() };
        builder.step(effect, "its secret was lost with an earlier operator process");
    }
}
