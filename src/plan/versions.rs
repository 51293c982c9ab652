//! Nodes of different versions of Redis: who can copy whose data. While a cluster is upgraded there
//! are two; the newer one can read the older one's, and not the other way round.

use std::collections::BTreeSet;

use super::builder::PlanBuilder;
use super::stopping;
use crate::api::conditions::{ConditionStatus, Reason};
use crate::model::ids::IncarnationName;
use crate::model::incarnation::Incarnation;
use crate::model::redis_version::RedisVersion;

pub(super) fn version(builder: &PlanBuilder<'_>, name: &IncarnationName) -> Option<RedisVersion> {
    RedisVersion::parse(&builder.connected(name)?.redis.version)
}

/// `replica` can copy the data of `master`, as far as their agents say what they run.
pub fn can_follow(
    builder: &PlanBuilder<'_>,
    replica: &IncarnationName,
    master: &IncarnationName,
) -> bool {
    let (own, its) = (version(builder, replica), version(builder, master));
    own.zip(its).is_none_or(|(own, its)| own.can_follow(its))
}

/// Nodes that stay and could not copy the data of `master`.
pub fn left_behind(builder: &PlanBuilder<'_>, master: &IncarnationName) -> Vec<IncarnationName> {
    let live = builder.live();
    let replaced =
        |name: &IncarnationName| live.iter().any(|(_, i)| i.replaces.as_ref() == Some(name));
    // What is about to be started anew with another image is about to be another.
    let stays = |name: &IncarnationName, i: &Incarnation| {
        i.ordinal < builder.spec().nodes
            && i.update.is_none()
            && !replaced(name)
            && !stopping::stops(builder, name)
    };
    live.iter()
        .filter(|(n, i)| n != master && stays(n, i) && !can_follow(builder, n, master))
        .map(|(n, _)| n.clone())
        .collect()
}

/// Says who cannot follow whom.
pub fn report(builder: &mut PlanBuilder<'_>) {
    if let Some(message) = skew(builder) {
        builder.problem(Reason::VersionSkew, message);
    }
}

/// Whether one cannot read the data of another.
pub fn condition(builder: &PlanBuilder<'_>) -> (ConditionStatus, Reason, String) {
    if let Some(message) = skew(builder) {
        return (ConditionStatus::True, Reason::VersionSkew, message);
    }
    let live = builder.live();
    let found: BTreeSet<_> = live.iter().filter_map(|(name, _)| version(builder, name)).collect();
    let words = found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
    match found.len() {
        0 => {
            let message = "no node has told yet which version it runs".to_owned();
            (ConditionStatus::Unknown, Reason::VersionsUnknown, message)
        }
        1 => {
            let message = format!("all nodes that answer run {words}");
            (ConditionStatus::False, Reason::OneVersion, message)
        }
        _ => {
            let message = format!("nodes run {words}, and each can read the data of the others");
            (ConditionStatus::False, Reason::VersionsCompatible, message)
        }
    }
}

/// Who cannot follow whom, in one sentence.
fn skew(builder: &PlanBuilder<'_>) -> Option<String> {
    let master = builder.record.master.as_ref().map(|p| p.incarnation.clone());
    let candidates = builder.live().into_iter().filter(|(_, i)| i.is_candidate());
    let mut leaders: Vec<_> = candidates.map(|(name, _)| name).collect();
    // The one that leads now first: whoever cannot follow it is out already.
    leaders.sort_by_key(|name| (Some(name) != master.as_ref(), name.clone()));
    let skew = leaders.into_iter().find_map(|leader| {
        let behind = left_behind(builder, &leader);
        (!behind.is_empty()).then_some((leader, behind))
    });
    let (leader, behind) = skew?;
    let words = |name: &IncarnationName| match version(builder, name) {
        Some(version) => format!("{name} ({version})"),
        None => name.0.clone(),
    };
    let all = behind.iter().map(&words).collect::<Vec<_>>().join(", ");
    let what = if Some(&leader) == master.as_ref() {
        "it is not told to follow, because a full sync would empty it"
    } else {
        "a failover to it would leave them behind"
    };
    let message = format!(
        "{all} cannot read the data of {}: {what}; give all nodes one image, replicas before the master, and never an older one",
        words(&leader)
    );
    Some(message)
}
