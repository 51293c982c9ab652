//! What is known of a node that does not speak to the operator.

use super::node::{KEY_SPENT, Process, Role};
use super::time::UnixMs;

/// A node's own word on its public page, signed by its key over a nonce of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageView {
    /// When it was asked for: what it says was true at this moment or later.
    pub at: UnixMs,
    /// Which start of its agent spoke; empty while it waits for its volume.
    pub boot_id: String,
    /// By the node's own clock, when it answered.
    pub clock: UnixMs,
    /// tailscaled's word, or `Down`.
    pub mesh: String,
    /// tailscaled's complaints.
    pub health: Vec<String>,
    /// What the redis-server process does.
    pub process: Process,
    /// Role by `INFO`.
    pub role: Role,
    /// Takes no writes.
    pub fenced: bool,
    /// Highest epoch obeyed.
    pub epoch: u64,
    /// What it lacks, one sentence each.
    pub lacks: Vec<String>,
}

impl PageView {
    /// It cannot join; see [`KEY_SPENT`].
    #[must_use]
    pub fn key_spent(&self) -> bool {
        self.lacks.iter().any(|note| note.starts_with(KEY_SPENT))
    }
}
