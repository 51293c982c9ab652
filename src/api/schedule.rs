//! Times that come again: five fields of cron, in UTC.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::time::UnixMs;

/// Why a schedule could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is not a schedule; write five fields of cron in UTC (minute, hour, day, month, day of the week), like `0 3 * * *` for each day at 3"
)]
pub struct ScheduleError(String);

/// Five fields of cron, in UTC.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
pub struct Schedule(#[schemars(with = "String")] String);

impl Schedule {
    fn cron(text: &str) -> Option<Cron> {
        let parser =
            CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let fields = text.split_whitespace().count();
        parser.parse(text).ok().filter(|_| fields == 5)
    }

    /// The first of its times after this one; none when it never comes again.
    #[must_use]
    pub fn after(&self, at: UnixMs) -> Option<UnixMs> {
        let at: DateTime<Utc> = DateTime::from_timestamp_millis(i64::try_from(at.0).ok()?)?;
        let next = Self::cron(&self.0)?.find_next_occurrence(&at, false).ok()?;
        u64::try_from(next.timestamp_millis()).ok().map(UnixMs)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let schedule = Self(text.trim().to_owned());
        // One that never comes, like the 30th of February, is a slip.
        let comes = schedule.after(UnixMs(0)).is_some();
        if comes { Ok(schedule) } else { Err(ScheduleError(text.to_owned())) }
    }
}

impl Serialize for Schedule {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, at: &str) -> String {
        let at = DateTime::parse_from_rfc3339(at).unwrap().timestamp_millis();
        let at = UnixMs(u64::try_from(at).unwrap());
        schedule.parse::<Schedule>().unwrap().after(at).unwrap().to_string()
    }

    #[test]
    fn a_schedule_comes_at_its_times_in_utc_and_not_at_the_moment_itself() {
        assert_eq!(next("0 3 * * *", "2026-11-26T02:59:59Z"), "2026-11-26T03:00:00Z");
        assert_eq!(next("0 3 * * *", "2026-11-26T03:00:00Z"), "2026-11-27T03:00:00Z");
        assert_eq!(next("*/15 * * * *", "2026-11-26T03:01:10Z"), "2026-11-26T03:15:00Z");
        assert_eq!(next("30 4 1 * *", "2026-12-15T00:00:00Z"), "2027-01-01T04:30:00Z");
        assert_eq!(next("0 0 * * 1", "2026-11-26T00:00:00Z"), "2026-11-30T00:00:00Z", "a Monday");
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_an_example() {
        for wrong in ["", "daily", "0 3 * *", "0 0 3 * * *", "61 3 * * *", "0 3 30 2 *", "@daily"] {
            let refused = wrong.parse::<Schedule>().unwrap_err().to_string();
            assert!(refused.contains("`0 3 * * *`"), "{wrong}: {refused}");
        }
    }
}
