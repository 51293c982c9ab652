//! A connection of the agent's own that counts as the replica which a write needs, while the replicas
//! of a new master are on their way back to it (docs/decisions/0076-a-stand-in-replica.md).
//!
//! It has no data and acknowledges nothing, so that no `WAIT` counts it. Redis itself ends it: a
//! replica that is not heard for min-replicas-max-lag counts for nothing, whatever became of this
//! agent.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::redis_config::AGENT_USER;
use crate::model::node::{AttachedReplica, NodeState, ReplicaState};

/// What Redis calls it among its replicas.
pub const NAME: &str = "stand-in";
/// Whoever attaches again does so within this, or the master stops taking writes.
pub const STAY: Duration = Duration::from_secs(3);
/// A promotion that was on its way for longer than this since the agent's word it relies on waits
/// for its replicas: what the operator does when this node is lost counts from that word.
pub const PROMPT: Duration = Duration::from_secs(2);
/// Redis answers on its socket within this.
const ANSWER: Duration = Duration::from_secs(1);

/// Why there is none. The master waits for its replicas then.
#[derive(Debug, thiserror::Error)]
pub enum StandInError {
    /// No connection to Redis, or it broke.
    #[error("redis does not answer on its socket")]
    Unreachable(#[from] std::io::Error),
    /// Redis said something else than was expected.
    #[error("redis does not take it for a replica: {0:?}")]
    Refused(String),
    /// No answer in time.
    #[error("redis did not answer in {ANSWER:?}")]
    Late,
}

/// It stands in as long as this is kept, and for [`STAY`] at most.
#[derive(Debug)]
pub struct StandIn {
    _task: AbortOnDropHandle<()>,
}

impl StandIn {
    /// Attaches to the master at `socket`, which is at `offset` of the history `replid`. It leaves
    /// when `seen` shows a replica of another name online.
    pub async fn attach(
        socket: &Path,
        password: &str,
        (replid, offset): (&str, i64),
        seen: Seen,
    ) -> Result<Self, StandInError> {
        let attached = timeout(ANSWER, attach(socket, password, replid, offset));
        let stream = attached.await.map_err(|_| StandInError::Late)??;
        let since = Instant::now();
        Ok(Self { _task: AbortOnDropHandle::new(tokio::spawn(stay(stream, seen, since))) })
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

pub(super) async fn attach(
    socket: &Path,
    password: &str,
    replid: &str,
    offset: i64,
) -> Result<BufReader<UnixStream>, StandInError> {
    let mut stream = BufReader::new(UnixStream::connect(socket).await?);
    let next = (offset + 1).to_string();
    // One after the other: Redis takes no replica that has an answer to come.
    for (words, answer) in [
        (&["AUTH", AGENT_USER, password][..], "+OK"),
        (&["REPLCONF", "ip-address", NAME, "capa", "psync2"], "+OK"),
        (&["PSYNC", replid, &next], "+CONTINUE"),
    ] {
        stream.get_mut().write_all(&request(words)).await?;
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        if !line.starts_with(answer) {
            return Err(StandInError::Refused(line.trim_end().to_owned()));
        }
    }
    Ok(stream)
}

fn request(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
    }
    bytes
}

async fn stay(mut stream: BufReader<UnixStream>, mut seen: Seen, since: Instant) {
    let mut nowhere = tokio::io::sink();
    tokio::select! {
        _ = tokio::io::copy_buf(&mut stream, &mut nowhere) => {}
        () = seen.another(since) => {}
        () = sleep(STAY) => {}
    }
}

/// Whether what was asked for on the agent's word of `issued` comes in time.
#[must_use]
pub fn is_prompt(issued: Option<Instant>) -> bool {
    issued.is_some_and(|issued| issued.elapsed() <= PROMPT)
}
