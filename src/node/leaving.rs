//! A container that is being stopped: a master stays until another one has taken over.

use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::state::Node;
use crate::model::node::{NodeState, Process, ReplicaState, Role};

/// Waits for `stop`, says so at once, and returns when this node may end: it is no master, nobody
/// could take over from it, or `limit` has passed.
pub async fn may_end(node: &Node, stop: &CancellationToken, limit: Duration) {
    let why = tokio::select! {
        () = stop.cancelled() => "this container is being stopped",
        () = node.restart.cancelled() => "the operator has this container started anew",
    };
    node.book.agent(why);
    node.update(|state| state.stopping = true);
    let mut states = node.subscribe();
    if !is_needed(&states.borrow_and_update()) {
        return;
    }
    node.book
        .agent(&format!("this is the master: another one has {} s to take over", limit.as_secs()));
    if timeout(limit, states.wait_for(|state| !is_needed(state))).await.is_err() {
        node.book.agent("nobody took over in time");
    }
}

/// It is master, fenced for its successor or not, and somebody follows it.
fn is_needed(state: &NodeState) -> bool {
    let redis = &state.redis;
    redis.process == Process::Running
        && redis.role == Role::Master
        && redis.replicas.iter().any(|replica| replica.state == ReplicaState::Online)
}
