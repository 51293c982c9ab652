//! Trying again: for a short while in one call, and with growing delays for as long as a program
//! runs. The one place that knows the `backoff` crate, of which only the policy is used.

use std::future::Future;
use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;
use tokio::time::Instant;

use crate::model::time::Backoff;

/// The longest that anything is tried again before it is handed back: deadlines beyond this belong
/// to the planner.
pub const MAX_RETRY: Duration = Duration::from_secs(10);

/// Runs `op` until it succeeds, fails with an error that is not transient, or `limit` (at most
/// [`MAX_RETRY`]) has passed; then the last error comes back. At least one attempt is made. An
/// attempt under way is not cut short: `op` brings its own time-outs.
pub async fn retry<T, E, F, Fut>(
    limit: Duration,
    is_transient: impl Fn(&E) -> bool,
    mut op: F,
) -> Result<T, E>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let deadline = Instant::now() + limit.min(MAX_RETRY);
    let mut pauses = policy();
    loop {
        let error = match op().await {
            Err(error) if is_transient(&error) => error,
            end => return end,
        };
        let pause = pauses.next_backoff().unwrap_or(MAX_RETRY);
        if Instant::now() + pause > deadline {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
    }
}

/// Pauses of 100 ms, growing to 2 s, each spread by half so that many callers do not come back at
/// once.
fn policy() -> ExponentialBackoff {
    ExponentialBackoff {
        current_interval: Duration::from_millis(100),
        initial_interval: Duration::from_millis(100),
        randomization_factor: 0.5,
        multiplier: 2.0,
        max_interval: Duration::from_secs(2),
        // The loop keeps the time: it knows the deadline, the policy does not.
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    }
}

/// The delays before a process is started again: each run that was short lengthens the next one.
#[derive(Clone, Copy, Debug)]
pub struct RestartDelays {
    backoff: Backoff,
    short_runs: u32,
}

impl RestartDelays {
    /// A run of this length was a good one: the next delay is the first again.
    pub const GOOD_RUN: Duration = Duration::from_mins(1);

    /// No run has been short yet.
    #[must_use]
    pub fn new(backoff: Backoff) -> Self {
        Self { backoff, short_runs: 0 }
    }

    /// The delay after a run of this length.
    pub fn after(&mut self, ran: Duration) -> Duration {
        if ran >= Self::GOOD_RUN {
            self.short_runs = 0;
        }
        let delay = self.backoff.delay(self.short_runs);
        self.short_runs = self.short_runs.saturating_add(1);
        delay
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_transient_error_is_tried_again() {
        let calls = Cell::new(0);
        let end = retry(
            MAX_RETRY,
            |_: &&str| true,
            || {
                calls.set(calls.get() + 1);
                let call = calls.get();
                async move { if call < 3 { Err("away") } else { Ok(call) } }
            },
        );
        assert_eq!(end.await, Ok(3));
    }

    #[tokio::test]
    async fn another_error_is_not() {
        let calls = Cell::new(0);
        let end: Result<(), _> = retry(
            MAX_RETRY,
            |e: &&str| *e == "away",
            || {
                calls.set(calls.get() + 1);
                async { Err("refused") }
            },
        )
        .await;
        assert_eq!((end, calls.get()), (Err("refused"), 1));
    }

    #[tokio::test]
    async fn it_gives_up_at_the_limit() {
        let calls = Cell::new(0);
        let end: Result<(), _> = retry(
            Duration::ZERO,
            |_: &&str| true,
            || {
                calls.set(calls.get() + 1);
                async { Err("away") }
            },
        )
        .await;
        assert_eq!((end, calls.get()), (Err("away"), 1));
    }

    #[test]
    fn delays_start_over_after_a_good_run() {
        let backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(30) };
        let mut delays = RestartDelays::new(backoff);
        let seconds: Vec<_> = (0..7).map(|_| delays.after(Duration::ZERO).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(delays.after(Duration::from_secs(61)).as_secs(), 1);
        assert_eq!(delays.after(Duration::ZERO).as_secs(), 2);
    }
}
