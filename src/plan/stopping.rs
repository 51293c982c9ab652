//! Nodes whose containers are being stopped, by their agents' word: they go within seconds, whatever
//! anybody does.

use std::cmp::Reverse;

use super::builder::PlanBuilder;
use super::{derived, health, rollout, switchover, word};
use crate::model::ids::IncarnationName;
use crate::model::incarnation::Incarnation;
use crate::model::node::Space;

/// It is about to go: nobody is to rely on it.
pub fn stops(builder: &PlanBuilder<'_>, name: &IncarnationName) -> bool {
    builder.connected(name).is_some_and(|state| state.stopping)
}

/// It said that it goes, and was not heard since for less than downAfter: that is as it must be.
pub fn is_back_soon(builder: &PlanBuilder<'_>, name: &IncarnationName) -> bool {
    builder.view(name).is_some_and(|view| {
        view.state.stopping
            && !builder.now().passed(view.heard, builder.spec().failover.down_after.0)
    })
}

/// A master whose container is being stopped hands over while it still can: that loses nothing, and
/// its end would be a failover.
pub fn make_way(builder: &mut PlanBuilder<'_>) {
    let Some(promotion) = builder.record.master.as_ref().filter(|p| p.confirmed) else { return };
    let master = promotion.incarnation.clone();
    if !stops(builder, &master) {
        return;
    }
    match fit(builder, &master) {
        Some(target) => switchover::start(builder, &target, "its container is being stopped"),
        None => builder.wait(
            format!(
                "a replica in sync that takes over from {master}, whose container is being stopped"
            ),
            builder.now(),
            None,
            "its redis ends, and who has its data takes over",
        ),
    }
}

/// Who can take over at once: one whose volume has room, then the furthest.
fn fit(builder: &PlanBuilder<'_>, master: &IncarnationName) -> Option<IncarnationName> {
    let fits = |(name, incarnation): &(IncarnationName, Incarnation)| {
        let state = builder.connected(name)?;
        let well = name != master
            && incarnation.is_candidate()
            && incarnation.quarantined.is_none()
            && !word::is_fenced(builder, name)
            && !state.stopping
            && derived::running(&state.redis)
            && !state.redis.is_syncing()
            && rollout::in_sync(builder, name)
            && health::lag(builder, name).is_none();
        let room = !state.volume.is_some_and(Space::is_short);
        well.then(|| (room, state.redis.offset, Reverse(name.clone())))
    };
    builder.live().iter().filter_map(fits).max().map(|(_, _, name)| name.0)
}
