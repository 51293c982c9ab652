//! Writes that are confirmed: the reply to a write is held back until enough replicas have it, and
//! is an error when they do not have it in time.
//!
//! Redis itself is asked, on the same connection: a `WAIT` follows each run of commands that may
//! write. It is answered at once when nothing was written.

use std::time::Duration;

use super::resp::request;

/// What counts as confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirm {
    /// So many replicas must have a write; 0 stands for as many as the manifest says.
    pub replicas: u32,
    /// Within this; at least a millisecond.
    pub timeout: Duration,
}

/// What needs that no reply is waited for.
pub(super) const NOT_HERE: &[u8] = b"-ERR not through a proxy that confirms writes: it needs the reply to each command; connect to the master itself\r\n";

impl Confirm {
    /// The question.
    pub(super) fn wait(&self) -> Vec<u8> {
        let (replicas, ms) =
            (self.replicas.to_string(), self.timeout.as_millis().max(1).to_string());
        request(&[b"WAIT", replicas.as_bytes(), ms.as_bytes()])
    }

    /// Why a write does not count as confirmed after this answer; `None` when it does.
    pub(super) fn why_not(&self, answer: &[u8]) -> Option<String> {
        let text = String::from_utf8_lossy(answer).trim_end().to_owned();
        let have = text.strip_prefix(':').and_then(|n| n.parse::<u32>().ok());
        match have {
            Some(have) if have >= self.replicas => None,
            Some(have) => Some(format!(
                "{have} of {} replicas had this write after {} ms",
                self.replicas,
                self.timeout.as_millis()
            )),
            None => Some(format!(
                "redis did not say which replicas have this write ({})",
                text.trim_start_matches('-')
            )),
        }
    }
}

/// The reply to a write that the replicas may lack.
pub(super) fn unconfirmed(why: &str) -> Vec<u8> {
    format!("-UNCONFIRMED {why}: the master has it, and a failover may lose it; read it again, or repeat it\r\n").into_bytes()
}

#[cfg(test)]
#[path = "confirm_tests.rs"]
mod tests;
