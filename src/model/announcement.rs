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

    /// Where clients are sent for this node.
    #[must_use]
    pub fn host<'a>(&self, place: &'a Place) -> &'a str {
        if self.names { &place.name } else { &place.ip }
    }
}
