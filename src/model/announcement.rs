//! The operator's word about a cluster's master: what it says, and which of two is newer. It is
//! signed, so that whoever hands it on cannot change it.

use serde::{Deserialize, Serialize};

use super::time::UnixMs;

/// Bytes before the content of what is signed: the key signs certificates too, and none begins like
/// this.
const ABOUT: &[u8] = b"akash-redis announcement 1\n";

/// Largest content that is taken, bytes: nine nodes with long names take a few thousand.
pub const LARGEST: usize = 32 * 1024;

/// Where writes of a cluster go, and who has the data besides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Announcement {
    /// Installation of the operator that says it.
    pub installation: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Tells the cluster from others that had its name.
    pub uid: String,
    /// Epoch of the master.
    pub epoch: u64,
    /// Grows with each announcement of an operator, and is never below the milliseconds since the
    /// Unix epoch by the clock of the operator.
    pub version: u64,
    /// When it was said, by the clock of the operator.
    pub at: UnixMs,
    /// Who takes writes.
    pub master: Place,
    /// Everybody else that has joined.
    pub replicas: Vec<Replica>,
    /// Clients are given mesh names in place of addresses.
    #[serde(default)]
    pub names: bool,
    /// A planned change has begun: writes stand still, or will at once, and whoever takes over is
    /// master of this epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changing: Option<u64>,
    /// Incarnation that is to take over in that change: one of the replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successor: Option<String>,
}

/// Where Redis of a node is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// Its incarnation.
    pub incarnation: String,
    /// Mesh host name, without a trailing dot.
    pub name: String,
    /// Mesh address.
    pub ip: String,
    /// Port of Redis.
    pub port: u16,
    /// Region by its provider's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// A node that is not master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replica {
    /// Where it is.
    pub place: Place,
    /// It had what the master had, but for what was under way.
    pub in_sync: bool,
    /// Bytes behind the master when this was said; absent where nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_bytes: Option<i64>,
}

impl Announcement {
    /// The bytes that are signed for this content.
    #[must_use]
    pub fn signed_bytes(content: &[u8]) -> Vec<u8> {
        [ABOUT, content].concat()
    }

    /// Whether this one takes the place of `other`: of one cluster by epoch and then by version; of
    /// two clusters that had the name one after the other by version.
    #[must_use]
    pub fn is_newer_than(&self, other: &Self) -> bool {
        if self.uid == other.uid {
            (self.epoch, self.version) > (other.epoch, other.version)
        } else {
            self.version > other.version
        }
    }

    /// Says the same of everybody, whenever it was said and however far behind they were.
    #[must_use]
    pub fn says_the_same_as(&self, other: &Self) -> bool {
        let timeless = |one: &Self| {
            let mut one = Self { version: 0, at: UnixMs::default(), ..one.clone() };
            one.replicas.iter_mut().for_each(|replica| replica.lag_bytes = None);
            one
        };
        timeless(self) == timeless(other)
    }

    /// Of the same replicas one is further behind, or less far, by much more than traffic comes and
    /// goes: fourfold, and 64 KiB at least.
    #[must_use]
    pub fn lags_differ(&self, other: &Self) -> bool {
        let classes =
            |one: &Self| -> Vec<_> { one.replicas.iter().map(Replica::lag_class).collect() };
        classes(self) != classes(other)
    }

    /// Where clients are sent for this node.
    #[must_use]
    pub fn host<'a>(&self, place: &'a Place) -> &'a str {
        if self.names && !place.name.is_empty() { &place.name } else { &place.ip }
    }
}

impl Replica {
    fn lag_class(&self) -> Option<u32> {
        const ORDINARY: i64 = 64 << 10;
        let times = u64::try_from(self.lag_bytes? / ORDINARY).unwrap_or(0);
        Some(times.checked_ilog2().map_or(0, |log| log / 2 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lags_differ_when_one_is_another_by_much() {
        let said = |lags: &[Option<i64>]| {
            let place = Place {
                incarnation: "cache-0-a".into(),
                name: String::new(),
                ip: "100.64.0.1".into(),
                port: 6379,
                region: None,
            };
            let replica = |lag: &Option<i64>| Replica {
                place: place.clone(),
                in_sync: true,
                lag_bytes: *lag,
            };
            Announcement {
                installation: "i".into(),
                cluster: "cache".into(),
                uid: "u".into(),
                epoch: 1,
                version: 1,
                at: UnixMs(1),
                master: place.clone(),
                replicas: lags.iter().map(replica).collect(),
                names: true,
                changing: None,
                successor: None,
            }
        };
        let of = |lag| said(&[Some(0), lag]);
        for (a, b, differ) in [
            (Some(0), Some(60_000), false),
            (Some(0), Some(-5), false),
            (Some(0), Some(70_000), true),
            (Some(70_000), Some(200_000), false),
            (Some(70_000), Some(400_000), true),
            (None, Some(0), true),
        ] {
            assert_eq!(of(a).lags_differ(&of(b)), differ, "{a:?} {b:?}");
            assert!(of(a).says_the_same_as(&of(b)));
        }
        // Without a name the address is as good.
        let nameless = said(&[]);
        assert_eq!(nameless.host(&nameless.master), "100.64.0.1");
    }
}
