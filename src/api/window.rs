//! A span of time that comes again: `Sun 02:00-05:00`, in UTC.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::time::UnixMs;

/// The days as they are written, from Monday on.
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const ALL_DAYS: u8 = 0b111_1111;
const MINUTES: u16 = 24 * 60;
const MINUTE_MS: u64 = 60_000;
/// Minutes of the first week since 1970: any other one has a day before it.
const WEEK: u64 = 7 * 24 * 60;

/// Why a window could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is not a window of time; write it like `Sun 02:00-05:00` or `Mon-Fri 22:00-04:00`, or `02:00-05:00` for every day, in UTC"
)]
pub struct WindowError(String);

/// A window that comes every week, in UTC: the days on which it begins (every day when none is
/// named) and two times of the day. One that ends before it begins ends on the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub struct Window(
    #[schemars(
        with = "String",
        regex(
            pattern = r"^([A-Z][a-z]{2}(-[A-Z][a-z]{2})?(,[A-Z][a-z]{2}(-[A-Z][a-z]{2})?)* )?[0-2][0-9]:[0-5][0-9]-[0-2][0-9]:[0-5][0-9]$"
        )
    )]
    Times,
);

/// Minutes of the day, and the days on which it begins, Monday in the lowest bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    days: u8,
    from: u16,
    to: u16,
}

impl Window {
    /// Whether it is open at this moment.
    #[must_use]
    pub fn is_open(self, at: UnixMs) -> bool {
        let Times { from, to, .. } = self.0;
        let (day, minute) = (at.0 / (u64::from(MINUTES) * MINUTE_MS), minute_of_day(at));
        if from < to {
            self.begins_on(day) && (from..to).contains(&minute)
        } else {
            (self.begins_on(day) && minute >= from)
                || (day > 0 && self.begins_on(day - 1) && minute < to)
        }
    }

    /// When it is open next: now, while it is.
    #[must_use]
    pub fn next(self, at: UnixMs) -> UnixMs {
        if self.is_open(at) {
            return at;
        }
        let today = at.0 / (u64::from(MINUTES) * MINUTE_MS);
        let begin =
            |day: u64| UnixMs((day * u64::from(MINUTES) + u64::from(self.0.from)) * MINUTE_MS);
        // It begins at least once in eight days, of which this one may be over.
        let begins = (today..=today + 7).filter(|day| self.begins_on(*day)).map(begin);
        begins.filter(|begin| *begin > at).min().unwrap_or(at)
    }

    /// Whether both are open at some moment.
    #[must_use]
    pub fn meets(self, other: Self) -> bool {
        let week = (0..7 * u64::from(MINUTES)).map(|minute| UnixMs((WEEK + minute) * MINUTE_MS));
        week.into_iter().any(|at| self.is_open(at) && other.is_open(at))
    }

    /// Of the days since 1970, which began on a Thursday.
    fn begins_on(self, day: u64) -> bool {
        self.0.days & (1 << ((day + 3) % 7)) != 0
    }
}

fn minute_of_day(at: UnixMs) -> u16 {
    u16::try_from(at.0 / MINUTE_MS % u64::from(MINUTES)).unwrap_or(0)
}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        parse(text.trim()).map(Self).ok_or_else(|| WindowError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Times> {
    let (days, times) = match text.rsplit_once(' ') {
        Some((days, times)) => (days_of(days)?, times),
        None => (ALL_DAYS, text),
    };
    let (from, to) = times.split_once('-')?;
    let (from, to) = (time(from)?, time(to)?);
    (from < MINUTES && from != to).then_some(Times { days, from, to })
}

/// `Sat,Sun` or `Mon-Fri`.
fn days_of(text: &str) -> Option<u8> {
    let number = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name.trim()));
    let mut days = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut day, last) = (number(first)?, number(last)?);
        days |= 1 << day;
        while day != last {
            day = (day + 1) % 7;
            days |= 1 << day;
        }
    }
    Some(days)
}

/// `02:00`, up to `24:00`.
fn time(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |digits: &str| digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
    if !two(hours) || !two(minutes) {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    (minutes < 60 && hours * 60 + minutes <= MINUTES).then_some(hours * 60 + minutes)
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Times { days, from, to } = self.0;
        if days != ALL_DAYS {
            let named = DAYS.iter().enumerate().filter(|(n, _)| days & (1 << n) != 0);
            write!(f, "{} ", named.map(|(_, name)| *name).collect::<Vec<_>>().join(","))?;
        }
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

impl Serialize for Window {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(text: &str) -> Window {
        text.parse().expect(text)
    }

    /// A moment of the week that begins on Monday, 2 November 2026.
    fn at(day: u64, time: &str) -> UnixMs {
        let monday = 1_793_577_600_000;
        UnixMs(monday + (day * 24 * 60 + u64::from(super::time(time).expect("a time"))) * 60_000)
    }

    #[test]
    fn a_window_is_open_from_its_first_minute_to_the_one_before_its_last() {
        assert_eq!(at(0, "00:00").to_string(), "2026-11-02T00:00:00Z", "a Monday");
        let rows = [
            ("Sun 02:00-05:00", 6, "01:59", false),
            ("Sun 02:00-05:00", 6, "02:00", true),
            ("Sun 02:00-05:00", 6, "04:59", true),
            ("Sun 02:00-05:00", 6, "05:00", false),
            ("Sun 02:00-05:00", 5, "03:00", false),
            ("02:00-05:00", 2, "03:00", true),
            ("Mon-Fri 02:00-05:00", 4, "03:00", true),
            ("Mon-Fri 02:00-05:00", 5, "03:00", false),
            ("Sat,Sun 00:00-24:00", 5, "00:00", true),
            ("Sat,Sun 00:00-24:00", 6, "23:59", true),
            ("Sat,Sun 00:00-24:00", 7, "00:00", false),
            // Beyond midnight: the day is that on which it begins.
            ("Sun 22:00-04:00", 6, "21:59", false),
            ("Sun 22:00-04:00", 6, "23:00", true),
            ("Sun 22:00-04:00", 7, "03:59", true),
            ("Sun 22:00-04:00", 7, "04:00", false),
            ("Sun 22:00-04:00", 6, "03:00", false),
            ("22:00-04:00", 3, "00:00", true),
            // Beyond the end of the week.
            ("Fri-Mon 10:00-11:00", 0, "10:30", true),
            ("Fri-Mon 10:00-11:00", 1, "10:30", false),
        ];
        for (text, day, time, open) in rows {
            assert_eq!(window(text).is_open(at(day, time)), open, "{text} on day {day} at {time}");
        }
    }

    #[test]
    fn the_next_opening_is_told() {
        let rows = [
            ("Sun 02:00-05:00", at(0, "00:00"), at(6, "02:00")),
            ("Sun 02:00-05:00", at(6, "03:00"), at(6, "03:00")),
            ("Sun 02:00-05:00", at(6, "05:00"), at(13, "02:00")),
            ("02:00-05:00", at(0, "01:00"), at(0, "02:00")),
            ("02:00-05:00", at(0, "05:00"), at(1, "02:00")),
            ("Sun 22:00-04:00", at(7, "04:00"), at(13, "22:00")),
            ("Wed,Fri 22:00-04:00", at(2, "12:00"), at(2, "22:00")),
        ];
        for (text, now, next) in rows {
            assert_eq!(window(text).next(now), next, "{text} at {now}");
        }
    }

    #[test]
    fn a_window_is_written_as_it_is_read() {
        for (text, written) in [
            ("Sun 02:00-05:00", "Sun 02:00-05:00"),
            ("sun 02:00-05:00", "Sun 02:00-05:00"),
            ("Mon-Wed 22:00-24:00", "Mon,Tue,Wed 22:00-24:00"),
            ("Mon-Sun 00:00-01:00", "00:00-01:00"),
            (" 23:30-00:30 ", "23:30-00:30"),
        ] {
            assert_eq!(window(text).to_string(), written);
            assert_eq!(window(written), window(text));
        }
        for bad in [
            "",
            "Sun",
            "02:00",
            "2:00-5:00",
            "02:00-02:00",
            "24:00-02:00",
            "25:00-26:00",
            "02:60-03:00",
            "02:00-00:00x",
            "Su 02:00-05:00",
            "Sun, 02:00-05:00",
            "Sun 02:00-05:00 UTC",
            "02:00-05:00-06:00",
        ] {
            assert!(bad.parse::<Window>().is_err(), "{bad}");
        }
        let meets = |a: &str, b: &str| window(a).meets(window(b));
        assert!(meets("Sun 22:00-04:00", "Mon 03:00-05:00"));
        assert!(!meets("Sun 22:00-04:00", "Mon 04:00-05:00"));
        assert!(meets("Sun 23:00-01:00", "00:00-00:30"));
        assert!(window("02:00-00:00").is_open(at(0, "23:59")), "until midnight");
    }
}
