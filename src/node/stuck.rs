//! A redis that does not answer: whether it computes, and the end of a script that keeps everybody
//! waiting.
//!
//! A frozen process does nothing. One that runs a script, or a command over very many keys, uses
//! the processor, and says `BUSY` once the script has run for 5 s (`busy-reply-threshold`).

use std::time::{Duration, Instant};

use super::info::Info;
use super::redis_control::{ControlError, Session};
use super::state::Node;

/// Ticks of the processor's time in `/proc` per second; the same on every Linux.
const TICKS: u64 = 100;
/// Who computes uses this part of the time at least, also on a machine that is full.
const PART: u64 = 10;

/// One redis process, since it last answered.
#[derive(Debug, Default)]
pub struct Silence {
    answered: Option<(Instant, i64, Option<u64>)>,
    says_busy: bool,
    told: bool,
}

impl Silence {
    /// It answered.
    pub fn ended(&mut self, info: &Info) {
        let pid = info.number("process_id");
        *self = Self { answered: Some((Instant::now(), pid, ticks(pid))), ..Self::default() };
    }

    /// For how long it has not answered; `None` before its first answer: a long start is no
    /// failure.
    #[must_use]
    pub fn lasts(&self) -> Option<Duration> {
        self.answered.map(|(at, ..)| at.elapsed())
    }

    /// It computes.
    #[must_use]
    pub fn busy(&self) -> bool {
        self.says_busy || self.answered.is_some_and(|(at, pid, before)| uses(at, pid, before))
    }

    /// It said `BUSY`. Scripts that wrote nothing are ended in time, so that it answers again
    /// before it is given up; one that wrote cannot be.
    pub async fn says_busy(&mut self, node: &Node, session: Option<&mut Session>) {
        self.says_busy = true;
        let due = self.lasts().is_some_and(|lasts| lasts >= node.patience() * 2 / 3);
        let Some(session) = session.filter(|_| due) else { return };
        let mut ended = Vec::new();
        for kind in ["SCRIPT", "FUNCTION"] {
            ended.push(session.run(redis::cmd(kind).arg("KILL")).await);
        }
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let seconds = self.lasts().unwrap_or_default().as_secs();
        node.book.agent(&if ended.iter().any(Result::is_ok) {
            format!("a script kept everybody waiting for {seconds} s and was ended")
        } else {
            format!(
                "a script has kept everybody waiting for {seconds} s and cannot be ended, because it has written"
            )
        });
    }
}

/// A script runs and keeps everybody waiting.
#[must_use]
pub fn is_busy(error: &ControlError) -> bool {
    let ControlError::Redis(error) = error else { return false };
    let said = error.clone().into_server_errors();
    said.is_some_and(|errors| errors.iter().any(|(_, error)| error.code() == "BUSY"))
}

fn uses(since: Instant, pid: i64, before: Option<u64>) -> bool {
    let used = before.zip(ticks(pid)).map(|(before, now)| now.saturating_sub(before));
    let passed = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX) * TICKS / 1000;
    used.is_some_and(|used| used > 0 && used >= passed / PART)
}

/// Processor time of a process, ticks.
fn ticks(pid: i64) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}
