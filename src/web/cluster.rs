//! The page of a cluster.

use maud::{Markup, html};

use super::frame::{self, Mood, badge, or_dash, page, table, time};
use super::overview::runway;
use super::topology;
use crate::api::conditions::{ConditionStatus, ConditionType, Phase};
use crate::api::report::PlanReport;
use crate::api::status::{Condition, Cost, FailoverStatus, NodeStatus, Status};
use crate::api::top::TopNode;
use crate::api::types::RedisCluster;
use crate::model::time::UnixMs;
use crate::store::Event;

/// Events on the page, the newest first.
const EVENTS: usize = 50;

/// What the page shows.
pub(super) struct ClusterView {
    pub cluster: RedisCluster,
    pub status: Status,
    /// What each node has to do.
    pub nodes: Vec<TopNode>,
    pub plan: PlanReport,
    pub events: Vec<Event>,
    pub now: UnixMs,
}

pub(super) fn cluster(shown: &ClusterView) -> Markup {
    let (name, status) = (&shown.cluster.metadata.name, &shown.status);
    let main = html! {
        h1 { (name) }
        @if shown.cluster.metadata.deletion_timestamp.is_some() {
            p.alert { "It is being deleted." }
        }
        @if shown.cluster.spec.paused {
            p.alert { "It is paused: nothing is changed, and a master that dies is not replaced." }
        }
        (conditions(&status.conditions))
        h2 { "Topology" }
        (topology::topology(name, status))
        (nodes(status, &shown.nodes))
        h2 { "Providers by region" }
        (regions(&status.nodes))
        h2 { "Waited for" }
        (frame::waits(&status.waiting))
        @if !shown.plan.steps.is_empty() {
            h2 { "Done next" }
            ol {
                @for step in &shown.plan.steps {
                    li { (step.incarnation) ": " (step.what) " (" (step.reason) ")" }
                }
            }
        }
        h2 { "Money" }
        (money(&status.cost, shown.now))
        @if let Some(last) = &status.last_failover {
            h2 { "Last failover" }
            (failover(last))
        }
        h2 { "Events" }
        (events(&shown.events))
    };
    page(name, shown.now, &main)
}

fn conditions(conditions: &[Condition]) -> Markup {
    if conditions.is_empty() {
        return html! { p { "The operator has not looked at it yet." } };
    }
    let rows: Vec<_> = conditions
        .iter()
        .map(|c| {
            let good = match c.kind {
                ConditionType::Degraded
                | ConditionType::Progressing
                | ConditionType::VersionSkew => ConditionStatus::False,
                _ => ConditionStatus::True,
            };
            // That something is done is neither good nor bad.
            let mood = match c.kind {
                ConditionType::Progressing => Mood::Plain,
                _ => Mood::of(c.status, good),
            };
            vec![
                html! { (c.kind) },
                badge(c.status.into(), mood),
                html! { (c.reason) },
                html! { (c.message) },
                time(&c.last_transition_time),
            ]
        })
        .collect();
    table("Conditions", &["Condition", "Status", "Reason", "What it says", "Since"], &rows)
}

fn nodes(status: &Status, load: &[TopNode]) -> Markup {
    let rows: Vec<_> = status
        .nodes
        .iter()
        .map(|node| {
            let load = load.iter().find(|l| l.incarnation == node.incarnation);
            let load = load.and_then(|l| l.load.as_ref());
            let number = |n: Option<u64>| n.map(|n| n.to_string());
            let memory = load.map(|load| memory(load.memory_bytes, load.maxmemory_bytes));
            vec![
                html! { (node.ordinal) },
                role(node.phase),
                html! { code { (node.incarnation) } },
                or_dash(node.lag_bytes.map(bytes).as_deref()),
                or_dash(number(load.and_then(|l| l.ops_per_second)).as_deref()),
                or_dash(memory.as_deref()),
                or_dash(number(load.and_then(|l| l.clients)).as_deref()),
                or_dash(node.version.as_deref()),
                or_dash(node.message.as_deref()),
            ]
        })
        .collect();
    let header =
        ["Node", "Role", "Incarnation", "Lag", "Ops/s", "Memory", "Clients", "Version", "Note"];
    table("Nodes", &header, &rows)
}

fn role(phase: Phase) -> Markup {
    let mood = match phase {
        Phase::Master | Phase::Replica => Mood::Good,
        Phase::Unreachable | Phase::Lost | Phase::Quarantined => Mood::Bad,
        _ => Mood::Plain,
    };
    badge(phase.into(), mood)
}

fn regions(nodes: &[NodeStatus]) -> Markup {
    let mut sorted: Vec<_> = nodes.iter().filter(|n| n.provider.is_some()).collect();
    sorted.sort_by_key(|n| (n.region.clone(), n.ordinal));
    let rows: Vec<_> = sorted
        .iter()
        .map(|n| {
            vec![
                or_dash(n.region.as_deref()),
                or_dash(n.provider_host.as_deref().or(n.provider.as_deref())),
                html! { code { (n.incarnation) } },
                or_dash(n.price_per_month.as_deref()),
                html! { (n.dseq) },
            ]
        })
        .collect();
    if rows.is_empty() {
        return html! { p { "No node has a lease yet." } };
    }
    let header = ["Region", "Provider", "Node", "Per month", "Deployment"];
    table("Providers by region", &header, &rows)
}

fn money(cost: &Cost, now: UnixMs) -> Markup {
    html! {
        dl {
            dt { "Per month" }
            dd {
                (or_dash(Some(&cost.per_month))) ", at most " (or_dash(Some(&cost.max_per_month)))
                @if !cost.limited_by.is_empty() { " (" (cost.limited_by) ")" }
            }
            dt { "Spent so far" } dd { (or_dash(Some(&cost.spent))) }
            dt { "In escrow" } dd { (or_dash(Some(&cost.in_escrow))) }
            dt { "Escrow lasts until" } dd { (runway(&cost.runway, now)) }
        }
    }
}

fn failover(last: &FailoverStatus) -> Markup {
    let epoch = last.epoch.to_string();
    let (witnesses, candidates) = (last.witnesses.join(", "), last.candidates.join(", "));
    let steps = last.steps.join(", ");
    let lines = [
        ("Epoch", &epoch),
        ("Reason", &last.reason),
        ("Seen by", &witnesses),
        ("From", &last.old),
        ("To", &last.new),
        ("Candidates", &candidates),
        ("Fence", &last.fence),
        ("Steps", &steps),
        ("Lost", &last.lost),
        ("Accepted by", &last.accepted_by),
    ];
    html! {
        dl {
            @for (name, value) in lines.into_iter().filter(|(_, value)| !value.is_empty()) {
                dt { (name) } dd { (value) }
            }
        }
    }
}

fn events(events: &[Event]) -> Markup {
    if events.is_empty() {
        return html! { p { "None." } };
    }
    html! {
        ol.timeline {
            @for event in events.iter().rev().take(EVENTS) {
                li {
                    (time(&event.at.to_string())) " "
                    strong { (event.reason) }
                    @if event.count > 1 { " (" (event.count) " times)" }
                    br;
                    (event.message)
                }
            }
        }
    }
}

/// Bytes in the largest unit that leaves a number above one.
pub(super) fn bytes(bytes: i64) -> String {
    const UNITS: [(&str, i64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    UNITS.iter().find(|(_, n)| bytes >= *n).map_or_else(
        || format!("{bytes} B"),
        |(unit, n)| format!("{}.{} {unit}", bytes / n, bytes % n * 10 / n),
    )
}

fn memory(used: u64, most: u64) -> String {
    let size = |n: u64| bytes(i64::try_from(n).unwrap_or(i64::MAX));
    if most == 0 { size(used) } else { format!("{} of {}", size(used), size(most)) }
}
