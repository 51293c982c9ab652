//! Objects as text for people. Pure: the present moment is given.
//!
//! Much of what is shown comes from providers, who may write what they like; control characters
//! never reach the terminal.

mod layout;
pub mod recovery;

use std::fmt::Write;

use crate::api::conditions::ConditionType;
use crate::api::deletion;
use crate::api::quantity::Money;
use crate::api::report::{OperatorReport, PlanReport, StepCount};
use crate::api::status::{
    Condition, Cost, FailoverStatus, NodeStatus, RolloutStatus, Status, Waiting,
};
use crate::api::types::{DeletionPolicy, RedisCluster};
use crate::api::wallet::{GrantReport, WalletReport};
use crate::model::time::UnixMs;
use crate::store::Event;
pub(super) use layout::columns;
use layout::{columns_with_text, columns_within, section, wrapped};

/// Columns that `describe` takes at most.
pub const WIDTH: usize = 100;
/// Blocks are indented.
const INNER: usize = WIDTH - 2;
/// Events that `describe` shows.
const LAST_EVENTS: usize = 10;

/// Clusters as a table, one line each.
#[must_use]
pub fn table(clusters: &[RedisCluster], now: UnixMs, wide: bool) -> String {
    let mut header = vec!["NAME", "READY", "NODES", "MASTER", "EPOCH", "COST/MONTH", "AGE"];
    if wide {
        header.extend(["IN-ESCROW", "SPENT", "MESSAGE"]);
    }
    let rows = clusters.iter().map(|cluster| {
        let none = Status::default();
        let status = cluster.status.as_ref().unwrap_or(&none);
        let ready = status.condition(ConditionType::Ready);
        let mut row = vec![
            cluster.metadata.name.clone(),
            if cluster.metadata.deletion_timestamp.is_some() && !deletion::waits(cluster) {
                "Deleting".to_owned()
            } else {
                ready.map(|c| c.status).unwrap_or_default().to_string()
            },
            format!(
                "{}/{}",
                status.nodes.iter().filter(|n| n.phase.is_serving()).count(),
                cluster.spec.nodes
            ),
            status.master.as_ref().map(|m| m.incarnation.clone()).unwrap_or_default(),
            status.epoch.to_string(),
            status.cost.per_month.clone(),
            cluster
                .metadata
                .creation_timestamp
                .as_deref()
                .and_then(UnixMs::parse)
                .map(|at| short(now.since(at).as_secs()))
                .unwrap_or_default(),
        ];
        if wide {
            row.extend([
                status.cost.in_escrow.clone(),
                status.cost.spent.clone(),
                ready.map(|c| c.message.clone()).unwrap_or_default(),
            ]);
        }
        row
    });
    columns(&header, rows)
}

/// What goes with a cluster that is deleted.
#[must_use]
pub fn deletion(cluster: &RedisCluster) -> String {
    let name = &cluster.metadata.name;
    let none = Status::default();
    let status = cluster.status.as_ref().unwrap_or(&none);
    let mut text = format!(
        "{name} is deleted: its leases are closed, and what is left of their deposits comes back.\n"
    );
    if status.nodes.is_empty() {
        return text + "It has no node yet.\n";
    }
    if cluster.spec.deletion_policy == DeletionPolicy::Backup {
        text += "A last backup is taken before (spec.deletionPolicy); what is written after it began is lost.\n";
    }
    text += "All data of these nodes is lost with their leases:\n\n";
    for node in &status.nodes {
        let place =
            node.provider_host.as_deref().or(node.provider.as_deref()).unwrap_or("no provider yet");
        let _ = writeln!(text, "  {}  {}", clean(&node.incarnation), clean(place));
    }
    let newest = status.backup.as_ref().and_then(|backup| backup.backups.first());
    let _ = match newest.filter(|backup| backup.of_this_cluster) {
        Some(backup) => {
            writeln!(
                text,
                "\nThe newest backup is {}, of {}; backups stay.",
                backup.id, backup.taken
            )
        }
        None => writeln!(text, "\nThere is no backup of them."),
    };
    text
}

/// The nodes of a cluster as a table: who runs where, for how much, how far behind, and by which
/// way to the master.
#[must_use]
pub fn topology(cluster: &RedisCluster) -> String {
    let header = [
        "NODE",
        "ROLE",
        "INCARNATION",
        "PROVIDER",
        "REGION",
        "PRICE/MONTH",
        "MESH-NAME",
        "LAG",
        "PATH",
    ];
    let nodes = cluster.status.as_ref().map(|s| s.nodes.as_slice()).unwrap_or_default();
    let rows = nodes.iter().map(|n| {
        vec![
            n.ordinal.to_string(),
            n.phase.to_string(),
            n.incarnation.clone(),
            n.provider_host.clone().or_else(|| n.provider.clone()).unwrap_or_default(),
            n.region.clone().unwrap_or_default(),
            n.price_per_month.clone().unwrap_or_default(),
            n.mesh_name.clone().unwrap_or_default(),
            n.lag_bytes.map(size).unwrap_or_default(),
            n.path.clone().unwrap_or_default(),
        ]
    });
    columns(&header, rows)
}

/// What a cluster costs, a line each.
#[must_use]
pub fn cost(cost: &Cost) -> String {
    let known = |text: &str| if text.is_empty() { "unknown".to_owned() } else { clean(text) };
    let deposit = match cost.deposit.as_str() {
        "" => String::new(),
        amount => format!("deposit:   {} for a new node\n", clean(amount)),
    };
    format!(
        "per month: {}, at most {}{}\nin escrow: {}\nspent:     {}\n{deposit}",
        known(&cost.per_month),
        known(&cost.max_per_month),
        if cost.limited_by.is_empty() {
            String::new()
        } else {
            format!(" ({})", clean(&cost.limited_by))
        },
        known(&cost.in_escrow),
        known(&cost.spent)
    )
}

/// Everything about a cluster, with its last events.
#[must_use]
pub fn describe(cluster: &RedisCluster, events: &[Event], now: UnixMs) -> String {
    let none = Status::default();
    let status = cluster.status.as_ref().unwrap_or(&none);
    let mut text = head(cluster, status);
    if cluster.status.is_none() {
        text.push_str("\nThe operator has not looked at it yet.\n");
        return text;
    }
    if cluster.metadata.generation.is_some_and(|generation| generation > status.observed_generation)
    {
        text.push_str("\nThis is the state before the last change of the spec; the operator has not looked at the new one yet.\n");
    }
    section(&mut text, "Nodes", &nodes(&status.nodes));
    section(&mut text, "Leases", &leases(&status.nodes));
    let notes: Vec<_> = status
        .nodes
        .iter()
        .filter_map(|n| n.message.as_ref().map(|m| format!("{}: {}", n.incarnation, clean(m))))
        .map(|note| wrapped(&note, INNER, 2))
        .collect();
    section(&mut text, "Notes", &notes.concat());
    section(&mut text, "Conditions", &conditions(&status.conditions));
    section(&mut text, "Waiting", &waits(&status.waiting, now));
    section(&mut text, "Cost", &cost(&status.cost));
    if let Some(last) = &status.last_failover {
        section(&mut text, "Last failover", &failover(last));
    }
    let last = &events[events.len().saturating_sub(LAST_EVENTS)..];
    let rows: Vec<_> = last.iter().map(event).collect();
    if !rows.is_empty() {
        section(&mut text, "Last events", &columns_with_text(&EVENTS, &rows, INNER));
    }
    text
}

/// What a cluster is called, and where its master is.
fn head(cluster: &RedisCluster, status: &Status) -> String {
    let mut lines = vec![("Name", cluster.metadata.name.clone())];
    let at = |at: &Option<String>| at.clone();
    lines.extend(at(&cluster.metadata.creation_timestamp).map(|at| ("Created", at)));
    let deleting = at(&cluster.metadata.deletion_timestamp);
    let waits = if deletion::waits(cluster) { ", and goes on (see the conditions)" } else { "" };
    lines.extend(deleting.map(|at| ("Deleting", format!("since {at}{waits}"))));
    if cluster.spec.paused {
        lines.push(("Paused", "the operator watches and changes nothing".to_owned()));
    }
    lines.push(("Epoch", status.epoch.to_string()));
    let master = status.master.as_ref();
    let master = master.map(|m| format!("{} at {}:{}", m.incarnation, m.name, m.port));
    lines.push(("Master", master.unwrap_or_else(|| "none".to_owned())));
    lines.extend(status.rollout.as_ref().map(|rollout| ("Image", image(rollout))));
    lines.into_iter().fold(String::new(), |text, (name, value)| {
        text + &wrapped(&format!("{:<8} {}", format!("{name}:"), clean(&value)), WIDTH, 9)
    })
}

/// Who is what, how far behind, and by which way to the master.
fn nodes(nodes: &[NodeStatus]) -> String {
    let header = ["NODE", "ROLE", "INCARNATION", "VERSION", "LAG", "PATH"];
    let rows = nodes.iter().map(|n| {
        vec![
            n.ordinal.to_string(),
            n.phase.to_string(),
            n.incarnation.clone(),
            n.version.clone().unwrap_or_default(),
            n.lag_bytes.map(size).unwrap_or_default(),
            n.path.clone().unwrap_or_default(),
        ]
    });
    columns_within(&header, &rows.collect::<Vec<_>>(), INNER)
}

/// Where each node runs, for how much, and under which name.
fn leases(nodes: &[NodeStatus]) -> String {
    let header = ["NODE", "PROVIDER", "REGION", "PRICE/MONTH", "MESH-NAME"];
    let rows = nodes.iter().filter(|n| n.provider.is_some() || n.mesh_name.is_some()).map(|n| {
        vec![
            n.ordinal.to_string(),
            n.provider_host.clone().or_else(|| n.provider.clone()).unwrap_or_default(),
            n.region.clone().unwrap_or_default(),
            n.price_per_month.clone().unwrap_or_default(),
            n.mesh_name.clone().unwrap_or_default(),
        ]
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() { String::new() } else { columns_within(&header, &rows, INNER) }
}

/// The image that is wanted, and how many nodes run it.
fn image(rollout: &RolloutStatus) -> String {
    let RolloutStatus { image, updated, nodes } = rollout;
    let image = shortened(image);
    if updated == nodes {
        return format!("{image} on all nodes");
    }
    format!("{image} on {updated} of {nodes} nodes, replicas first")
}

/// An image with the beginning of its digest; `-o yaml` has all of it.
fn shortened(image: &str) -> String {
    const BEGINNING: usize = 12;
    match image.split_once("@sha256:") {
        Some((name, digest)) if digest.is_ascii() && digest.len() > BEGINNING => {
            format!("{name}@sha256:{}", &digest[..BEGINNING])
        }
        _ => image.to_owned(),
    }
}

/// How the operator itself stands.
#[must_use]
pub fn operator(report: &OperatorReport) -> String {
    let rows = report.sources().map(|(name, source)| {
        vec![
            name.to_owned(),
            source.state.to_string(),
            source.since.clone(),
            source.message.clone(),
        ]
    });
    let amount = |money: Option<Money>| {
        money.map_or_else(|| "unknown".to_owned(), |money| money.to_string())
    };
    let fees = report.fee_balance.map_or_else(|| "unknown".to_owned(), |n| format!("{n}uakt"));
    let mut text = format!(
        "Version:      {}\nInstallation: {}\nWallet:       {} ({}, {fees} for fees)\nBudget:       {} per month for all clusters, {} for one that does not say\n",
        clean(&report.version),
        clean(&report.installation),
        clean(&report.wallet),
        amount(report.balance),
        amount(report.budget_global),
        amount(report.budget_per_cluster),
    );
    if let Some(lost) = &report.store_lost {
        section(&mut text, "Store", &clean(lost));
    }
    section(
        &mut text,
        "Sources",
        &columns(&["NAME", "STATE", "SINCE", "MESSAGE"], rows.into_iter()),
    );
    text
}

/// What the wallet holds, what it pays, and until when that does.
#[must_use]
pub fn wallet(report: &WalletReport) -> String {
    let amount = |money: Option<Money>| {
        money.map_or_else(|| "unknown".to_owned(), |money| money.to_string())
    };
    if report.read.is_empty() {
        return format!(
            "Address:     {}\nThe chain was not read yet; ask again, and see `akash-redis status`.\n",
            clean(&report.address)
        );
    }
    let date = |end: &Option<String>| match end {
        Some(end) => clean(end),
        None => "none within five years".to_owned(),
    };
    let mut lines = vec![
        ("Address", clean(&report.address)),
        ("ACT", amount(report.act)),
        ("AKT", clean(&report.akt)),
        ("In escrow", amount(report.in_escrow)),
        ("Per month", format!("{} for {} leases", amount(report.per_month), report.leases)),
        ("Last refill", date(&report.last_refill)),
        ("Fees end", date(&report.fees_end)),
    ];
    let grants = [("Treasury", &report.treasury), ("Fee grant", &report.fee_grant)];
    lines.extend(grants.into_iter().filter_map(|(name, it)| Some((name, grant(it.as_ref()?)))));
    lines.push(("As of", clean(&report.read)));
    lines.into_iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{:<12} {value}", format!("{name}:"));
        text
    })
}

fn grant(grant: &GrantReport) -> String {
    let granter = clean(&grant.granter);
    if let Some(problem) = &grant.problem {
        return format!("{granter} {}", clean(problem));
    }
    let rest =
        grant.rest.as_ref().map_or("no limit".to_owned(), |rest| format!("{} left", clean(rest)));
    let until = grant.expires.as_ref().map_or(String::new(), |at| format!(", until {}", clean(at)));
    format!("{granter} holds {}; its grant: {rest}{until}", clean(&grant.holds))
}

/// What is done next and why, what is waited for, what it costs.
#[must_use]
pub fn plan(name: &str, plan: &PlanReport, now: UnixMs) -> String {
    let mut text = format!("Plan of {name}\n");
    let steps: String = plan.steps.iter().fold(String::new(), |text, step| {
        let (mark, what) = (step.kind.mark(), clean(&step.what));
        let line = format!("{mark} {what} {}", clean(&step.incarnation));
        text + &wrapped(&line, INNER, 4)
            + &wrapped(&format!("    {}", clean(&step.reason)), INNER, 4)
    });
    section(
        &mut text,
        "Steps",
        if steps.is_empty() { "none: no changes needed\n" } else { &steps },
    );
    section(
        &mut text,
        "Waiting",
        if plan.waiting.is_empty() { "nothing\n".to_owned() } else { waits(&plan.waiting, now) }
            .as_str(),
    );
    section(&mut text, "Cost", &cost(&plan.cost));
    let then = Some(plan.then_per_month.as_str()).filter(|then| !then.is_empty());
    let _ = writeln!(text, "\n{}", summary(plan.count(), &plan.cost.per_month, then));
    text
}

/// `Plan: 3 to create, 0 to change, 0 to close. Cost per month: 0act now, at most 12act then.`
pub(super) fn summary(count: StepCount, now: &str, then: Option<&str>) -> String {
    let StepCount { create, change, close } = count;
    let plan = format!("Plan: {create} to create, {change} to change, {close} to close.");
    let now = if now.is_empty() { "unknown" } else { now };
    match then {
        Some(then) => {
            format!("{plan} Cost per month: {} now, at most {} then.", clean(now), clean(then))
        }
        None => format!("{plan} Cost per month: {} now.", clean(now)),
    }
}

/// Events, in the order in which they were last seen.
#[must_use]
pub fn events(events: &[Event]) -> String {
    if events.is_empty() {
        return String::new();
    }
    columns(&EVENTS, events.iter().map(event))
}

const EVENTS: [&str; 3] = ["LAST SEEN", "REASON", "MESSAGE"];

fn event(event: &Event) -> Vec<String> {
    vec![last_seen(event), event.reason.clone(), event.message.clone()]
}

/// When, and how often since when: `2026-11-25T22:41:11Z (x12 over 5m)`.
fn last_seen(event: &Event) -> String {
    if event.count <= 1 {
        return event.at.to_string();
    }
    let over = short(event.at.since(event.first).as_secs());
    format!("{} (x{} over {over})", event.at, event.count)
}

/// One wait: for what, until when, what happens then. The time left is added when `now` is given.
#[must_use]
pub fn waiting(wait: &Waiting, now: Option<UnixMs>) -> String {
    let until = wait.deadline.as_deref().map_or_else(
        || "no deadline".to_owned(),
        |deadline| {
            let left = now
                .zip(UnixMs::parse(deadline))
                .map(|(now, at)| format!(" (in {})", short(at.since(now).as_secs())))
                .unwrap_or_default();
            format!("until {}{left}", clean(deadline))
        },
    );
    format!("{}, {until}; then: {}", clean(&wait.what), clean(&wait.then))
}

/// Text of others without what a terminal would obey.
#[must_use]
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn conditions(conditions: &[Condition]) -> String {
    let rows = conditions.iter().map(|c| {
        vec![
            c.kind.to_string(),
            c.status.to_string(),
            c.last_transition_time.clone(),
            c.reason.to_string(),
            c.message.clone(),
        ]
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return String::new();
    }
    columns_with_text(&["TYPE", "STATUS", "SINCE", "REASON", "MESSAGE"], &rows, INNER)
}

fn waits(waits: &[Waiting], now: UnixMs) -> String {
    waits.iter().fold(String::new(), |mut text, w| {
        text.push_str(&wrapped(&waiting(w, Some(now)), INNER, 2));
        text
    })
}

fn failover(last: &FailoverStatus) -> String {
    let accepted = match last.accepted_by.as_str() {
        "" => String::new(),
        by => format!("by {by}"),
    };
    let lines = [
        ("epoch", last.epoch.to_string()),
        ("reason", last.reason.clone()),
        ("seen by", last.witnesses.join(", ")),
        ("from", last.old.clone()),
        ("to", last.new.clone()),
        ("candidates", last.candidates.join(", ")),
        ("fence", last.fence.clone()),
        ("steps", last.steps.join(", ")),
        ("lost", last.lost.clone()),
        ("accepted", accepted),
    ];
    let mut text = String::new();
    for (key, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
        let line = format!("{:<11} {}", format!("{key}:"), clean(value));
        text.push_str(&wrapped(&line, INNER, 12));
    }
    text
}

/// A span in its two largest units at most, as `kubectl` writes ages: `45s`, `12m`, `3h20m`, `2d`.
fn short(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0..=1) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m"),
        (0, h, m) => {
            if m % 60 == 0 {
                format!("{h}h")
            } else {
                format!("{h}h{}m", m % 60)
            }
        }
        (d, h, _) => {
            if d > 7 || h % 24 == 0 {
                format!("{d}d")
            } else {
                format!("{d}d{}h", h % 24)
            }
        }
    }
}

/// Bytes in the largest unit that leaves a number above one, one decimal.
pub(super) fn size(bytes: i64) -> String {
    const UNITS: [(&str, i64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    UNITS.iter().find(|(_, n)| bytes >= *n).map_or_else(
        || format!("{bytes}B"),
        |(unit, n)| format!("{}.{}{unit}", bytes / n, bytes % n * 10 / n),
    )
}

#[cfg(test)]
mod tests;
