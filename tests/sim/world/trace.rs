//! What the operator did to the world, in order, each call with its moment and its end: what two
//! runs of one seed are compared by.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

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
    /// Older ones than so many are forgotten.
    most: AtomicUsize,
}

impl Trace {
    pub fn new(clock: Clock) -> Self {
        Self { clock, lines: Mutex::default(), most: AtomicUsize::new(usize::MAX) }
    }

    pub fn add(&self, what: &str) {
        let at = self.clock.now().0 - super::clock::BEGIN;
        let mut lines = self.lines.lock().unwrap();
        lines.push(format!("{at:>9} {what}"));
        let most = self.most.load(Ordering::SeqCst);
        // Not at each line: what is left is moved.
        if lines.len() / 2 >= most {
            let old = lines.len() - most;
            lines.drain(..old);
        }
    }

    /// Only so many of the last lines are kept, or twice as many.
    pub fn keep(&self, most: usize) {
        self.most.store(most, Ordering::SeqCst);
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
