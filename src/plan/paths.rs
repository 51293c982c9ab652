//! Which way the traffic between the nodes takes: a relay works, and is slower and not ours.

use std::time::Duration;

use super::builder::PlanBuilder;
use crate::api::conditions::{ConditionStatus, ConditionType, Reason};
use crate::api::events::EventReason;
use crate::model::ids::IncarnationName;
use crate::model::node::{PathKind, PeerPath};

const WHAT_TO_DO: &str = "it works, and is slower and shared with others; UDP out of the provider is blocked or behind a hard NAT: move the node with the command `migrate`, or choose other providers by `placement`";

/// A path for people, e.g. `direct, 0.6 ms`.
fn words(path: &PeerPath) -> String {
    let way = match path.kind {
        PathKind::Unknown => return "no answer".to_owned(),
        PathKind::Direct => "direct".to_owned(),
        PathKind::PeerRelay => format!("peer relay({})", path.via),
        PathKind::Derp => format!("DERP({})", path.via),
    };
    let rtt = Duration::from_micros(path.rtt_us);
    if rtt.is_zero() { way } else { format!("{way}, {:.1} ms", rtt.as_secs_f64() * 1000.0) }
}

/// The way of a node to the master.
pub fn to_master(builder: &PlanBuilder<'_>, name: &IncarnationName) -> Option<String> {
    let promotion = builder.record.master.as_ref().filter(|p| &p.incarnation != name)?;
    let master = &builder.view(&promotion.incarnation)?.state.mesh.dns_name;
    builder
        .connected(name)?
        .mesh
        .paths
        .iter()
        .find(|path| path.name.eq_ignore_ascii_case(master))
        .map(words)
}

/// The condition's status, reason and message. A relayed path takes nothing from readiness.
pub fn condition(builder: &PlanBuilder<'_>) -> (ConditionStatus, Reason, String) {
    let known: Vec<_> = builder
        .live()
        .into_iter()
        .filter_map(|(name, _)| builder.connected(&name).map(|state| (name, &state.mesh.paths)))
        .map(|(name, paths)| {
            (name, paths.iter().filter(|path| path.kind != PathKind::Unknown).collect::<Vec<_>>())
        })
        .filter(|(_, paths)| !paths.is_empty())
        .collect();
    let relayed: Vec<&str> = known
        .iter()
        .filter(|(_, paths)| paths.iter().all(|path| path.relayed()))
        .map(|(name, _)| name.0.as_str())
        .collect();
    match (known.len(), relayed.len()) {
        (0, _) => (
            ConditionStatus::Unknown,
            Reason::NotMeasured,
            "no node has reported a path to another one yet".to_owned(),
        ),
        (_, 0) => (
            ConditionStatus::True,
            Reason::AllDirect,
            "every node has a direct path to another one".to_owned(),
        ),
        (all, some) if all == some => (
            ConditionStatus::False,
            Reason::AllRelayed,
            format!("all traffic between the nodes goes through relays: {WHAT_TO_DO}"),
        ),
        _ => (
            ConditionStatus::False,
            Reason::NodeRelayed,
            format!("all traffic of {} goes through relays: {WHAT_TO_DO}", relayed.join(", ")),
        ),
    }
}

/// Tells once when it becomes so, and once more when it comes to be all of them.
pub fn report(builder: &mut PlanBuilder<'_>) {
    let (status, reason, message) = condition(builder);
    let published = builder.input.cluster.status.as_ref();
    let before = published
        .and_then(|s| s.condition(ConditionType::DirectPaths))
        .map(|c| (c.status, c.reason));
    let worse = before.is_none_or(|(was, why)| {
        was != ConditionStatus::False || (why != reason && reason == Reason::AllRelayed)
    });
    if status == ConditionStatus::False && worse {
        builder.event(EventReason::PathsRelayed, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_told_in_a_few_words() {
        let path = |kind, via: &str, rtt_us| {
            words(&PeerPath { kind, via: via.into(), rtt_us, ..PeerPath::default() })
        };
        assert_eq!(path(PathKind::Direct, "192.0.2.1:41641", 620), "direct, 0.6 ms");
        assert_eq!(path(PathKind::Derp, "fra", 38_000), "DERP(fra), 38.0 ms");
        assert_eq!(path(PathKind::PeerRelay, "192.0.2.9:40000", 0), "peer relay(192.0.2.9:40000)");
        assert_eq!(path(PathKind::Unknown, "", 0), "no answer");
    }
}
