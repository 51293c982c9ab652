//! Whether something goes on, by a number that changes: what is slow has as long as it takes, and what
//! stands still is given up.

use std::time::Duration;

use tokio::time::Instant;

/// What does not change for so long stands still.
pub(super) const STILL: Duration = Duration::from_mins(5);

/// What was seen of it so far.
pub(super) struct Progress {
    at: Option<i64>,
    since: Instant,
}

impl Progress {
    /// It begins now.
    pub fn begin() -> Self {
        Self { at: None, since: Instant::now() }
    }

    /// Takes what one look showed, none where nobody answered; true once nothing has changed for
    /// [`STILL`].
    pub fn stands_still(&mut self, at: Option<i64>) -> bool {
        if at.is_some() && at != self.at {
            *self = Self { at, since: Instant::now() };
        }
        self.since.elapsed() >= STILL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks each second of a virtual day, until it stands still; after how many seconds that was.
    async fn seen(mut look: impl FnMut(u64) -> Option<i64>) -> Option<u64> {
        let mut progress = Progress::begin();
        for second in 0..86_400 {
            if progress.stands_still(look(second)) {
                return Some(second);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_slow_goes_on_and_what_stands_still_or_is_silent_does_not() {
        let slow = |second: u64| i64::try_from(second / 240).ok();
        assert_eq!(seen(slow).await, None, "once in 4 min is enough");
        assert_eq!(seen(|_| Some(7)).await, Some(300));
        assert_eq!(seen(|_| None).await, Some(300));
        let stops = |second: u64| i64::try_from(second.min(1000)).ok();
        assert_eq!(seen(stops).await, Some(1300));
        let silent = |second: u64| second.is_multiple_of(2).then_some(5);
        assert_eq!(seen(silent).await, Some(300), "to answer is no progress");
    }
}
