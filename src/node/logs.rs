//! The last lines of the node's processes, for the `Logs` call and for the container's own output.

use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::broadcast;

use crate::model::time::UnixMs;
use crate::process::Output;

/// Lines that are kept.
const KEPT: usize = 2000;
/// Longest line, bytes; the rest is cut off.
const LONGEST: usize = 4096;

/// A line that a program of the node printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// `agent`, `tailscaled` or `redis`.
    pub source: &'static str,
    /// The line without its end.
    pub text: String,
    /// When it was printed, by the agent's clock.
    pub at: UnixMs,
}

/// Collects lines; clones share them. Secrets it was told about never get in.
#[derive(Clone)]
pub struct LogBook {
    inner: Arc<Inner>,
}

struct Inner {
    lines: Mutex<VecDeque<Line>>,
    feed: broadcast::Sender<Line>,
    secrets: Vec<String>,
}

impl LogBook {
    /// A book that masks these secrets.
    #[must_use]
    pub fn new(secrets: Vec<String>) -> Self {
        let secrets = secrets.into_iter().filter(|s| !s.is_empty()).collect();
        let inner = Inner { lines: Mutex::default(), feed: broadcast::Sender::new(1024), secrets };
        Self { inner: Arc::new(inner) }
    }

    /// Writes a line down, and prints it as `source | text`.
    pub fn add(&self, source: &'static str, text: &str) {
        let mut end = text.len().min(LONGEST);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut text = text[..end].to_owned();
        for secret in &self.inner.secrets {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), "***");
            }
        }
        // The container's output may be gone; the node must not stop for that.
        let _ = writeln!(std::io::stdout(), "{source} | {text}");
        let line = Line { source, text, at: UnixMs::now() };
        let mut lines = self.inner.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(line.clone());
        // Sent under the lock, so that `subscribe` neither misses nor repeats a line.
        let _ = self.inner.feed.send(line);
    }

    /// Takes the output of a program, as lines of this source.
    #[must_use]
    pub fn output(&self, source: &'static str) -> Output {
        let book = self.clone();
        Arc::new(move |line: &str| book.add(source, line))
    }

    /// The last line of a source that is kept.
    #[must_use]
    pub fn last_of(&self, source: &str) -> Option<String> {
        let lines = self.inner.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().rev().find(|line| line.source == source).map(|line| line.text.clone())
    }

    /// A line of the agent itself.
    pub fn agent(&self, text: &str) {
        self.add("agent", text);
    }

    /// The last `tail` lines of those that are `meant`, and the feed of all to come.
    #[must_use]
    pub fn subscribe(
        &self,
        tail: usize,
        meant: impl Fn(&Line) -> bool,
    ) -> (Vec<Line>, broadcast::Receiver<Line>) {
        let lines = self.inner.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last: Vec<Line> =
            lines.iter().rev().filter(|line| meant(line)).take(tail).cloned().collect();
        last.reverse();
        (last, self.inner.feed.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_and_old_lines_go() {
        let book = LogBook::new(vec!["tskey-1".into()]);
        for n in 0..KEPT + 5 {
            book.add("redis", &format!("{n} tskey-1"));
        }
        let (lines, _) = book.subscribe(usize::MAX, |_| true);
        assert_eq!(lines.len(), KEPT);
        assert_eq!(lines[0].text, "5 ***");
        assert!(lines[0].at > UnixMs(0));
        assert_eq!(book.subscribe(1, |_| true).0.len(), 1);
    }

    #[test]
    fn the_last_lines_are_those_of_what_was_asked_for() {
        let book = LogBook::new(Vec::new());
        book.add("redis", "ready");
        for n in 0..50 {
            book.add("tailscaled", &format!("magicsock: {n}"));
        }
        let (lines, _) = book.subscribe(10, |line| line.source == "redis");
        assert_eq!(lines.iter().map(|l| l.text.as_str()).collect::<Vec<_>>(), ["ready"]);
    }
}
