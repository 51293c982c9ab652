//! A connection of the agent's own that counts as the replica which a write needs, while the replicas
//! of a new master are on their way back to it (docs/decisions/0076-a-stand-in-replica.md).
//!
//! It has no data and acknowledges nothing, so that no `WAIT` counts it. Redis itself ends it: a
//! replica that is not heard for min-replicas-max-lag counts for nothing, whatever became of this
//! agent.

use std::time::{Duration, Instant};

use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::info::Info;
use super::psync::{Introduced, PsyncError};
use crate::model::node::{AttachedReplica, NodeState, ReplicaState};

/// What Redis calls it among its replicas.
pub const NAME: &str = "stand-in";
/// Whoever attaches again does so within this, or the master stops taking writes.
pub const STAY: Duration = Duration::from_secs(3);
/// A promotion that was on its way for longer than this since the agent's word it relies on waits
/// for its replicas: what the operator does when this node is lost counts from that word.
pub const PROMPT: Duration = Duration::from_secs(2);

/// It stands in as long as this is kept, and for [`STAY`] at most.
#[derive(Debug)]
pub struct StandIn {
    _task: AbortOnDropHandle<()>,
}

impl StandIn {
    /// Attaches to the master that `info` is a look at. It leaves when `seen` shows a replica of
    /// another name online.
    pub async fn attach(
        introduced: Introduced,
        info: &Info,
        seen: Seen,
    ) -> Result<Self, PsyncError> {
        let attached = introduced.attach(info.text("master_replid"), info.offset() + 1).await?;
        let since = Instant::now();
        Ok(Self { _task: AbortOnDropHandle::new(tokio::spawn(stay(attached.stream, seen, since))) })
    }
}

/// How the master is seen.
pub struct Seen {
    /// What the looks at it show.
    pub states: watch::Receiver<NodeState>,
    /// When the look began that ended last.
    pub looks: watch::Receiver<Instant>,
}

impl Seen {
    /// Returns when a look that began after `since` shows another replica online. What was seen
    /// before are links that the promotion has ended.
    async fn another(&mut self, since: Instant) {
        let is_another = |r: &AttachedReplica| r.name != NAME && r.state == ReplicaState::Online;
        let looked = self.looks.wait_for(|began| *began >= since).await.is_ok();
        let online = |state: &NodeState| state.redis.replicas.iter().any(is_another);
        if !(looked && self.states.wait_for(online).await.is_ok()) {
            // Nobody looks any more.
            std::future::pending::<()>().await;
        }
    }
}

async fn stay(mut stream: BufReader<UnixStream>, mut seen: Seen, since: Instant) {
    let mut nowhere = tokio::io::sink();
    tokio::select! {
        _ = tokio::io::copy_buf(&mut stream, &mut nowhere) => {}
        () = seen.another(since) => {}
        () = sleep(STAY) => {}
    }
}

/// One that has just attached, as a look shows it.
#[must_use]
pub fn attached() -> AttachedReplica {
    AttachedReplica {
        name: NAME.to_owned(),
        state: ReplicaState::Online,
        offset: 0,
        lag_seconds: 0,
        behind_ms: 0,
    }
}

/// Whether what was asked for on the agent's word of `issued` comes in time.
#[must_use]
pub fn is_prompt(issued: Option<Instant>) -> bool {
    issued.is_some_and(|issued| issued.elapsed() <= PROMPT)
}
