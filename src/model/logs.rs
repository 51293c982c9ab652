//! Which lines of a node's processes are asked for.

use std::time::Duration;

use strum::{Display, EnumIter, EnumString, IntoStaticStr};

/// A process of a node.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Display, EnumIter, EnumString, IntoStaticStr,
)]
#[strum(serialize_all = "lowercase")]
pub enum Process {
    /// The agent.
    Agent,
    /// The mesh daemon.
    Tailscaled,
    /// redis-server.
    Redis,
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// The last so many lines of those that are meant.
    pub tail: u32,
    /// And those to come.
    pub follow: bool,
    /// Of these processes alone; of all when there are none.
    pub processes: Vec<Process>,
    /// Not older than this.
    pub since: Option<Duration>,
    /// Each line begins with its time.
    pub timestamps: bool,
}

/// What is shown unless a process is named: tailscaled tells of each step that it takes, and is
/// looked at when the mesh is in question.
pub const USUAL: [Process; 2] = [Process::Agent, Process::Redis];

impl LogQuery {
    /// Whether a line of this source is meant. The operator's own word about a stream always is.
    #[must_use]
    pub fn means(&self, source: &str) -> bool {
        let known: Result<Process, _> = source.parse();
        self.processes.is_empty() || known.map_or(true, |known| self.processes.contains(&known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_meant_by_its_process() {
        let all = LogQuery::default();
        let usual = LogQuery { processes: USUAL.to_vec(), ..LogQuery::default() };
        for (source, in_usual) in
            [("agent", true), ("redis", true), ("tailscaled", false), ("of another version", true)]
        {
            assert!(all.means(source));
            assert_eq!(usual.means(source), in_usual, "{source}");
        }
    }
}
