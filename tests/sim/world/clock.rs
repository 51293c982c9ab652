//! Virtual time: tokio's paused clock, counted from a fixed day.

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
