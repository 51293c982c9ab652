//! What the operator did to the world, in order, each call with its moment and its end: what two
//! runs of one seed are compared by.

use std::sync::Mutex;

use super::clock::Clock;
use super::many::setting;

/// Lines that are shown of a simulation that failed, if `SIM_TAIL` names no other number.
const TAIL: u64 = 80;
/// Characters of each.
const WIDTH: usize = 240;

/// One line for each begin and each end.
pub struct Trace {
    clock: Clock,
    lines: Mutex<Vec<String>>,
}

impl Trace {
    pub fn new(clock: Clock) -> Self {
        Self { clock, lines: Mutex::default() }
    }

    pub fn add(&self, what: &str) {
        let at = self.clock.now().0 - super::clock::BEGIN;
        self.lines.lock().unwrap().push(format!("{at:>9} {what}"));
    }

    /// The last lines, cut short.
    pub fn tail(&self) -> String {
        let lines = self.lines.lock().unwrap();
        let tail = usize::try_from(setting("SIM_TAIL", TAIL)).unwrap_or(usize::MAX);
        let last = lines.iter().skip(lines.len().saturating_sub(tail));
        last.map(|line| line.chars().take(WIDTH).collect::<String>() + "\n").collect()
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}
