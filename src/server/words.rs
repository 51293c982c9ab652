//! A person's word about who is master: `failover`, `fence`, `unfence`. Pure, but for the routes.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::actions::{self, Refusal, at_work};
use super::messages::{AcceptLoss, Fence, Message};
use super::routes::{Answer, App, change, parse};
use crate::api::annotations::{ACCEPT_LOSS, FENCE};
use crate::api::conditions::{Phase, Reason};
use crate::api::status::{NodeStatus, Status};
use crate::api::types::RedisCluster;
use crate::api::word::{AcceptedLoss, Fenced, person};

pub(super) async fn accept(
    State(app): State<App>,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer<Message> {
    let request: AcceptLoss = if body.is_empty() { AcceptLoss::default() } else { parse(&body)? };
    change(&app, &name, |cluster| accept_loss(cluster, &request)).await
}

pub(super) async fn fence_node(
    State(app): State<App>,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer<Message> {
    let request: Fence = parse(&body)?;
    change(&app, &name, |cluster| fence(cluster, &request)).await
}

pub(super) async fn unfence_node(
    State(app): State<App>,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer<Message> {
    let request: Fence = parse(&body)?;
    change(&app, &name, |cluster| unfence(cluster, &request)).await
}

/// The node is fenced by a person's word.
fn is_fenced(cluster: &RedisCluster, node: &NodeStatus) -> bool {
    Fenced::of(cluster).iter().any(|f| f.means(node.ordinal, &node.incarnation))
}

/// Accepts the loss of what no node that answers holds. Returns what to tell.
fn accept_loss(cluster: &mut RedisCluster, request: &AcceptLoss) -> Result<String, Refusal> {
    at_work(cluster, "the acceptance of a loss")?;
    let name = cluster.metadata.name.clone();
    let held = |s: &Status| {
        s.nodes.iter().any(|n| n.phase == Phase::Master && is_fenced(cluster, n))
            && s.problems().any(|reason| reason == Reason::FencedByPerson)
    };
    let waits = |s: &Status| s.problems().any(Reason::ends_with_accepted_loss) || held(s);
    let Some(status) = cluster.status.as_ref().filter(|s| waits(s)) else {
        return Err(Refusal::conflict(format!(
            "{name} waits for no such decision: a dead master is replaced without it, and `akash-redis switchover {name}` moves a living one without loss"
        )));
    };
    let epoch = status.epoch;
    if request.epoch.is_some_and(|seen| seen != epoch) {
        return Err(Refusal::conflict(format!(
            "{name} is in epoch {epoch} now, and what was shown was of another one, so nothing was changed; look again"
        )));
    }
    let to = request.to.as_deref().map(|to| successor(cluster, status, to)).transpose()?;
    let goes_on = to.as_ref().map_or_else(
        || format!("{name} goes on with what the nodes that answer hold"),
        |to| format!("{name} goes on with what {to} holds"),
    );
    let by = request.by.as_deref().map(person).filter(|by| !by.is_empty());
    let word = AcceptedLoss { epoch, to, by };
    cluster.metadata.annotations.insert(ACCEPT_LOSS.to_owned(), word.to_string());
    Ok(format!("{goes_on}, in place of epoch {epoch}; what only others hold may be lost"))
}

/// Whom a person names as the next master.
fn successor(cluster: &RedisCluster, status: &Status, to: &str) -> Result<String, Refusal> {
    let node = Some(to);
    let name = actions::named_node(cluster, node)?.0;
    let node = status.nodes.iter().find(|n| n.incarnation == name);
    let Some(node) = node.filter(|n| n.phase != Phase::Master && n.phase != Phase::Leaving) else {
        return Err(Refusal::conflict(format!(
            "{name} is the master that is given up, or leaves, so it cannot take over"
        )));
    };
    if is_fenced(cluster, node) {
        let cluster = &cluster.metadata.name;
        return Err(Refusal::conflict(format!(
            "{name} is fenced, so it cannot take over; `akash-redis unfence {cluster} {to}` first"
        )));
    }
    Ok(name)
}

/// Fences a node until somebody takes that back. Returns what to tell.
fn fence(cluster: &mut RedisCluster, request: &Fence) -> Result<String, Refusal> {
    at_work(cluster, "a fence")?;
    let (name, node) = (cluster.metadata.name.clone(), request.node.clone());
    let incarnation = actions::named_node(cluster, Some(&node))?.0;
    let mut all = Fenced::of(cluster);
    if all.iter().any(|fenced| fenced.node == node) {
        return Ok(format!("{node} of {name} is fenced already"));
    }
    let by = request.by.as_deref().map(person).filter(|by| !by.is_empty());
    all.push(Fenced { node: node.clone(), by });
    cluster.metadata.annotations.insert(FENCE.to_owned(), Fenced::together(&all));
    let nodes = cluster.status.as_ref().map(|s| s.nodes.as_slice()).unwrap_or_default();
    let is_master = nodes.iter().any(|n| n.incarnation == incarnation && n.phase == Phase::Master);
    let then = if is_master {
        format!(
            "it is the master, so that {name} takes no writes until `akash-redis unfence {name} {node}`, or until another one takes over: `akash-redis failover {name} --accept-loss`"
        )
    } else {
        format!("`akash-redis unfence {name} {node}` ends it")
    };
    Ok(format!("{incarnation} takes no writes and becomes no master; {then}"))
}

/// Takes a fence back. Returns what to tell.
fn unfence(cluster: &mut RedisCluster, request: &Fence) -> Result<String, Refusal> {
    at_work(cluster, "the end of a fence")?;
    let (name, node) = (cluster.metadata.name.clone(), &request.node);
    // By whatever name it was fenced.
    let nodes = cluster.status.as_ref().map(|s| s.nodes.clone()).unwrap_or_default();
    let meant: Vec<_> =
        nodes.iter().filter(|n| &n.incarnation == node || node.parse() == Ok(n.ordinal)).collect();
    let is_meant = |fenced: &Fenced| {
        &fenced.node == node || meant.iter().any(|n| fenced.means(n.ordinal, &n.incarnation))
    };
    let (gone, kept): (Vec<_>, Vec<_>) = Fenced::of(cluster).into_iter().partition(is_meant);
    if gone.is_empty() {
        return Err(Refusal::new(
            StatusCode::CONFLICT,
            format!(
                "{node} of {name} is not fenced by anybody; `akash-redis describe {name}` says who is"
            ),
        ));
    }
    cluster.metadata.annotations.insert(FENCE.to_owned(), Fenced::together(&kept));
    let named = |fenced: &Fenced| match fenced.node.parse::<u32>() {
        Ok(ordinal) => format!("node {ordinal}"),
        Err(_) => fenced.node.clone(),
    };
    let gone: Vec<_> = gone.iter().map(named).collect();
    Ok(format!("{} of {name} is not fenced any more", gone.join(", ")))
}

#[cfg(test)]
#[path = "words_tests.rs"]
mod tests;
