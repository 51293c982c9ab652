//! Virtual time: tokio's paused clock, counted from a fixed day.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use akash_redis::model::time::UnixMs;
use tokio::time::Instant;

/// The day on which every simulation begins, Unix milliseconds.
pub const BEGIN: u64 = 1_795_000_000_000;

/// A clock that moves only when everybody waits.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn now(&self) -> UnixMs {
        UnixMs(BEGIN + u64::try_from(self.0.elapsed().as_millis()).unwrap())
    }
}

/// The clock of the operator's machine, which may be set wrong between two processes: one process
/// counts monotonically from its start.
#[derive(Clone, Debug)]
pub struct OperatorClock {
    true_clock: Clock,
    ahead: Arc<AtomicI64>,
}

impl OperatorClock {
    pub fn new(true_clock: Clock) -> Self {
        Self { true_clock, ahead: Arc::default() }
    }

    pub fn now(&self) -> UnixMs {
        UnixMs(self.true_clock.now().0.saturating_add_signed(self.ahead.load(Ordering::SeqCst)))
    }

    /// From the next start of an operator on, so many milliseconds ahead of the truth.
    pub fn set_ahead(&self, ahead: i64) {
        self.ahead.store(ahead, Ordering::SeqCst);
    }
}
