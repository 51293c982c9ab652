//! Points in time. The planner is given the present one and reads no clock; whoever gives it takes
//! it from [`UnixMs::now`].

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixMs(pub u64);

impl UnixMs {
    /// The present moment by the clock of this process: what the wall clock showed when it was
    /// first asked, and the time that has passed since.
    ///
    /// It never steps: a wall clock that is set later changes nothing until the process is started
    /// again, so that nothing that is decided by the time between two moments is decided by such a
    /// step. Nothing is guaranteed between two processes.
    #[must_use]
    pub fn now() -> Self {
        static BEGAN: OnceLock<(UnixMs, Instant)> = OnceLock::new();
        let (wall, at) = BEGAN.get_or_init(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
            (Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)), Instant::now())
        });
        *wall + at.elapsed()
    }

    /// Time that passed since `earlier`; zero when `earlier` lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Reads RFC 3339, as it is displayed; `None` when it is something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let format = time::format_description::well_known::Rfc3339;
        let at = time::OffsetDateTime::parse(text, &format).ok()?;
        u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok().map(Self)
    }

    /// Whether `wait` has passed since `start`.
    #[must_use]
    pub fn passed(self, start: Self, wait: Duration) -> bool {
        self.since(start) >= wait
    }
}

impl std::ops::Add<Duration> for UnixMs {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for UnixMs {
    /// RFC 3339 in UTC, with seconds. Zero is what nobody set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::default() {
            return f.write_str("an unknown time");
        }
        let seconds = i64::try_from(self.0 / 1000).unwrap_or(i64::MAX);
        let text = time::OffsetDateTime::from_unix_timestamp(seconds)
            .ok()
            .and_then(|t| t.format(&time::format_description::well_known::Rfc3339).ok());
        f.write_str(text.as_deref().unwrap_or("beyond the calendar"))
    }
}

/// Delays that double with each failure in a row. They are the same each time: what has to be
/// spread over time does not use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// No delay is longer.
    pub longest: Duration,
}

impl Backoff {
    /// The delay after another failure; `before` of them came before it.
    #[must_use]
    pub fn delay(self, before: u32) -> Duration {
        self.first.saturating_mul(2u32.saturating_pow(before)).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_nobody_set_is_not_told_as_one() {
        assert_eq!(UnixMs(0).to_string(), "an unknown time");
        assert_eq!(UnixMs(1_795_000_000_000).to_string(), "2026-11-18T11:06:40Z");
    }

    #[test]
    fn delays_double_up_to_the_longest() {
        let backoff = Backoff { first: Duration::from_secs(5), longest: Duration::from_mins(5) };
        let seconds = [0, 1, 2, 5, 6, u32::MAX].map(|before| backoff.delay(before).as_secs());
        assert_eq!(seconds, [5, 10, 20, 160, 300, 300]);
    }
}
