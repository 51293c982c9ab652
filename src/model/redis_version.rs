//! What must be known of a version of Redis or Valkey: whether it is supported, and whose data it
//! can read. A replica that cannot read what its master sends empties itself before it notices.
//!
//! The table is the one place that knows versions; `tests/live/versions.rs` holds it to real servers.

use std::fmt;

/// Whose program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Redis.
    Redis,
    /// Valkey, which calls itself Redis 7.2.4 beside its own version.
    Valkey,
}

/// A version: `7.0.15`, `valkey 8.1.8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RedisVersion {
    /// Whose.
    pub family: Family,
    /// Major, minor and patch number.
    pub numbers: (u32, u32, u32),
}

/// Formats of the data, by their number in a snapshot: what is sent to replicas, and the highest that
/// is read.
struct Formats {
    family: Family,
    /// From this major and minor number on.
    from: (u32, u32),
    sends: u32,
    reads: u32,
}

const fn row(family: Family, from: (u32, u32), sends: u32, reads: u32) -> Formats {
    Formats { family, from, sends, reads }
}

/// Valkey 9 reads 80 too, which it writes to its own disk alone, and none of Redis' after 11.
/// Of Redis 8.4 nothing is known but its neighbours: it is taken for the worse of both.
const TABLE: [Formats; 8] = [
    row(Family::Redis, (7, 0), 10, 10),
    row(Family::Redis, (7, 2), 11, 11),
    row(Family::Redis, (7, 4), 12, 12),
    row(Family::Redis, (8, 4), 13, 12),
    row(Family::Redis, (8, 6), 13, 13),
    row(Family::Valkey, (7, 2), 11, 11),
    row(Family::Valkey, (8, 0), 11, 11),
    row(Family::Valkey, (9, 0), 11, 11),
];

/// Supported major versions: the lowest minor of the first, and the last.
const SUPPORTED: [(Family, (u32, u32), u32); 2] =
    [(Family::Redis, (7, 0), 8), (Family::Valkey, (8, 0), 9)];

impl RedisVersion {
    /// Reads `7.0.15` and `valkey 8.1.8`, as an agent reports them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (family, numbers) = match text.trim().split_once(' ') {
            Some(("valkey", numbers)) => (Family::Valkey, numbers),
            Some(_) => return None,
            None => (Family::Redis, text.trim()),
        };
        let mut numbers = numbers.split(['.', '-']).map(str::parse::<u32>);
        let mut next = || numbers.next()?.ok();
        Some(Self { family, numbers: (next()?, next()?, next().unwrap_or(0)) })
    }

    /// Reads what a server says when it is asked for its version on the command line.
    #[must_use]
    pub fn of_program(said: &str) -> Option<Self> {
        let version = said.split_whitespace().find_map(|word| word.strip_prefix("v="))?;
        let valkey = said.trim_start().to_ascii_lowercase().starts_with("valkey");
        Self::parse(&if valkey { format!("valkey {version}") } else { version.to_owned() })
    }

    /// How an agent reports it.
    #[must_use]
    pub fn report(self) -> String {
        let (major, minor, patch) = self.numbers;
        let family = if self.family == Family::Valkey { "valkey " } else { "" };
        format!("{family}{major}.{minor}.{patch}")
    }

    /// Nodes may run it.
    #[must_use]
    pub fn is_supported(self) -> bool {
        let (major, minor, _) = self.numbers;
        SUPPORTED.iter().any(|(family, first, last)| {
            *family == self.family && (major, minor) >= *first && major <= *last
        })
    }

    /// What it is told that is not supported.
    #[must_use]
    pub fn refusal(self) -> String {
        format!(
            "{self} is not supported: nodes run Redis 7.0 to 8.x, or Valkey 8 and 9; use an image with one of them"
        )
    }

    fn formats(self) -> Option<&'static Formats> {
        let (major, minor, _) = self.numbers;
        let known = TABLE.iter().filter(|row| row.family == self.family);
        known.rev().find(|row| row.from <= (major, minor))
    }

    /// It can copy the data of a master of this version. Those of one release always can, also where
    /// nothing is known of it.
    #[must_use]
    pub fn can_follow(self, master: Self) -> bool {
        let release = |v: Self| (v.family, v.numbers.0, v.numbers.1);
        release(self) == release(master)
            || self.formats().zip(master.formats()).is_some_and(|(own, its)| its.sends <= own.reads)
    }
}

impl RedisVersion {
    /// It can copy the data of a server outside of the cluster, which may be older than what nodes may
    /// run: formats only ever grew.
    #[must_use]
    pub fn can_import(self, source: Self) -> bool {
        let before = source.family == Family::Redis && source.numbers.0 < SUPPORTED[0].1.0;
        before || self.can_follow(source)
    }
}

impl fmt::Display for RedisVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor, patch) = self.numbers;
        write!(f, "{:?} {major}.{minor}.{patch}", self.family)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> RedisVersion {
        RedisVersion::parse(text).unwrap()
    }

    #[test]
    fn data_of_older_servers_are_imported_and_of_newer_ones_not() {
        for (own, source, reads) in [
            ("7.0.15", "6.2.14", true),
            ("7.0.15", "5.0.0", true),
            ("7.0.15", "7.0.2", true),
            ("7.0.15", "7.2.4", false),
            ("8.6.0", "8.4.0", true),
            ("7.0.15", "valkey 8.1.8", false),
            ("valkey 8.1.8", "6.2.14", true),
        ] {
            assert_eq!(version(own).can_import(version(source)), reads, "{own} of {source}");
        }
    }

    #[test]
    fn versions_are_read_as_agents_and_programs_say_them() {
        for (said, reported, shown) in [
            ("Redis server v=7.0.15 sha=0:0 malloc=jemalloc", "7.0.15", "Redis 7.0.15"),
            ("Valkey server v=8.1.8 sha=0:1 malloc=libc", "valkey 8.1.8", "Valkey 8.1.8"),
            ("Redis server v=6.2.14 sha=0:0", "6.2.14", "Redis 6.2.14"),
        ] {
            let found = RedisVersion::of_program(said).unwrap();
            assert_eq!((found.report(), found.to_string()), (reported.into(), shown.into()));
            assert_eq!(version(reported), found);
        }
        for nothing in ["", "redis", "dragonfly 1.0.0", "7"] {
            assert_eq!(RedisVersion::parse(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (text, supported) in [
            ("6.2.14", false),
            ("7.0.15", true),
            ("8.9.1", true),
            ("9.0.0", false),
            ("valkey 7.2.9", false),
            ("valkey 8.0.1", true),
            ("valkey 9.1.2", true),
            ("valkey 10.0.0", false),
        ] {
            assert_eq!(version(text).is_supported(), supported, "{text}");
        }
        assert!(version("6.2.14").refusal().starts_with("Redis 6.2.14 is not supported"));
    }

    /// Full syncs between real servers, run on 2026-11-25: rows are masters, columns replicas.
    #[test]
    fn the_table_says_what_real_servers_did() {
        let servers =
            ["7.0.15", "7.2.4", "7.4.1", "8.2.3", "8.6.3", "valkey 8.1.8", "valkey 9.1.2"];
        let synced = [
            [true, true, true, true, true, true, true],
            [false, true, true, true, true, true, true],
            [false, false, true, true, true, false, false],
            [false, false, true, true, true, false, false],
            [false, false, false, false, true, false, false],
            [false, true, true, true, true, true, true],
            [false, true, true, true, true, true, true],
        ];
        for (master, row) in servers.iter().zip(synced) {
            for (replica, synced) in servers.iter().zip(row) {
                let can = version(replica).can_follow(version(master));
                assert_eq!(can, synced, "{replica} follows {master}");
            }
        }
        assert!(version("8.4.0").can_follow(version("8.4.2")), "one release");
        assert!(!version("8.4.0").can_follow(version("8.6.3")));
    }
}
