//! What outlives a process: objects with their record, transactions that may still land, events. No
//! secrets.

pub mod kubernetes;
pub mod sqlite;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::api::status::Status;
use crate::api::types::RedisCluster;
use crate::changes::Changes;
use crate::model::books::{Account, TxEntry};
use crate::model::chain::SignedTx;
use crate::model::experience::Experiences;
use crate::model::record::Record;
use crate::model::time::UnixMs;

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else changed it first; read again.
    #[error("{name} was changed by somebody else meanwhile; read it again and repeat the change")]
    Conflict {
        /// Name of the object.
        name: String,
    },
    /// No such object.
    #[error("there is no RedisCluster named {name}; `akash-redis get` lists those there are")]
    NotFound {
        /// Name asked for.
        name: String,
    },
    /// Another operator holds the file.
    #[error(
        "{path} is in use by another operator; two operators on one store would fight: stop the other one, or give this one a store of its own"
    )]
    Locked {
        /// The file.
        path: String,
    },
    /// It was used with another root secret.
    #[error(
        "the store is of installation {theirs} and the root secret of installation {ours}, so its nodes would not obey and its deployments \
         would not be known; bring back the root secret it was made with, or name another file in `store.sqlite`, or another namespace in `store.kubernetes.namespace`"
    )]
    OfAnother {
        /// Id of the root secret in use.
        ours: String,
        /// Id in the store.
        theirs: String,
    },
    /// A later operator took over: this one must stop.
    #[error("a later operator (term {theirs}) took over the store; this one (term {ours}) stops")]
    Superseded {
        /// Term of this process.
        ours: u64,
        /// Term in the store.
        theirs: u64,
    },
    /// The file or the service behind it failed.
    #[error("the store failed ({0}); nothing was changed")]
    Failed(String),
}

/// An object with the operator's memory of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Manifest with metadata and the last published status.
    pub cluster: RedisCluster,
    /// The record.
    pub record: Record,
    /// Compare-and-set version of the record.
    pub record_version: u64,
}

/// Something that happened, for people: once, or several times alike.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When it was last seen.
    pub at: UnixMs,
    /// Name of the cluster.
    pub cluster: String,
    /// One word, e.g. `LeaseCreated`.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// When it was first seen.
    #[serde(default)]
    pub first: UnixMs,
    /// How often it was seen.
    #[serde(default = "once")]
    pub count: u64,
}

const fn once() -> u64 {
    1
}

impl Event {
    /// Something that happened now, and for the first time as far as its author knows.
    pub fn new(
        at: UnixMs,
        cluster: impl Into<String>,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        let (cluster, reason, message) = (cluster.into(), reason.into(), message.into());
        Self { at, cluster, reason, message, first: at, count: once() }
    }

    /// Both tell of the same thing.
    #[must_use]
    pub fn is_alike(&self, other: &Self) -> bool {
        (&self.cluster, &self.reason, &self.message)
            == (&other.cluster, &other.reason, &other.message)
    }

    /// Both as one, which takes the place of the later one.
    #[must_use]
    pub fn with(self, other: &Self) -> Self {
        Self {
            at: self.at.max(other.at),
            first: self.first.min(other.first),
            count: self.count.saturating_add(other.count),
            ..self
        }
    }
}

/// Events kept for each cluster.
pub const EVENTS_KEPT: usize = 1000;
/// Events of one reason kept for each cluster: what fails on and on with ever other words does not
/// push out the rest.
pub const EVENTS_OF_A_REASON: usize = 250;

/// An event that is alike and was seen no longer ago is the same one again: nobody is told twice.
pub const REPEATED: Duration = Duration::from_hours(1);

/// The targets outside that are told of an event, by their ids.
pub type TellRule = Arc<dyn Fn(&Event) -> Vec<String> + Send + Sync>;

/// An event that is still to be told to a target outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Its place in the queue; goes up.
    pub number: u64,
    /// The same for every target and every try, and for no other event.
    pub id: String,
    /// Whom to tell.
    pub target: String,
    /// What.
    pub event: Event,
}

/// What a queue was cut down to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Those that nobody will be told of any more.
    pub dropped: Vec<Notice>,
    /// How many wait.
    pub left: u64,
}

/// Bits of a term below the millisecond in which it began.
const TERM_RANDOM_BITS: u32 = 10;

/// The term after `last`, which stands in the store: the millisecond in which it begins, and a
/// random part.
///
/// Two copies of one store never have the same term (but for one case in a thousand within one
/// millisecond), and a store that was restored from an earlier copy has a higher one than every
/// process before. Both hold for clocks that are about right; with a clock that was set back it is
/// still higher than any of this store. Below 2^53, which JSON tools keep exact.
#[must_use]
pub fn next_term(last: u64, now: UnixMs, random: u32) -> u64 {
    let random = u64::from(random & ((1 << TERM_RANDOM_BITS) - 1));
    let fresh = now.0 << TERM_RANDOM_BITS | random;
    if fresh > last { fresh } else { last + 1 + random }
}

/// The objects that people apply.
#[async_trait]
pub trait Objects: Send + Sync {
    /// All objects, by name.
    async fn list(&self) -> Result<Vec<Stored>, StoreError>;

    /// One object.
    async fn get(&self, name: &str) -> Result<Stored, StoreError>;

    /// Creates or replaces the desired part. `metadata.resourceVersion`, when given, must be the
    /// present one. Generation goes up when the spec differs.
    async fn apply(&self, cluster: RedisCluster) -> Result<Stored, StoreError>;

    /// Marks an object for deletion; it stays until the operator removes it.
    async fn mark_deleted(&self, name: &str) -> Result<(), StoreError>;

    /// Publishes a status; it does not touch generation.
    async fn set_status(&self, name: &str, status: &Status) -> Result<(), StoreError>;

    /// Forgets an object whose deletion was carried out, with its record.
    async fn remove(&self, name: &str) -> Result<(), StoreError>;

    /// Names of objects whose desired part changes from now on.
    fn changes(&self) -> Changes<String>;
}

/// The operator's memory of each object.
#[async_trait]
pub trait Records: Send + Sync {
    /// Replaces the record if its version is still `expected`; returns the new version.
    async fn set_record(
        &self,
        name: &str,
        expected: u64,
        record: &Record,
    ) -> Result<u64, StoreError>;
}

/// Transactions that were signed and may still land.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Keeps a signed transaction before it is sent.
    async fn keep_tx(&self, cluster: &str, tx: &SignedTx) -> Result<(), StoreError>;

    /// Transactions that may still land, with their cluster.
    async fn kept_txs(&self) -> Result<Vec<(String, SignedTx)>, StoreError>;

    /// Forgets a transaction whose end is known.
    async fn drop_tx(&self, hash: &str) -> Result<(), StoreError>;
}

/// What happened, for people. Nothing reads it to decide.
#[async_trait]
pub trait Events: Send + Sync {
    /// Writes events; those that are alike become one with a count. The newest 1000 of each cluster
    /// are kept, of each reason 250.
    async fn add_events(&self, events: &[Event]) -> Result<(), StoreError>;

    /// Events of a cluster, in the order in which they were last seen.
    async fn events(&self, cluster: &str) -> Result<Vec<Event>, StoreError>;
}

/// What was paid, by whom, to whom. It stays when its cluster is gone. See [`crate::model::books`].
#[async_trait]
pub trait Books: Send + Sync {
    /// Books a transaction that is in a block: once, whoever books it again.
    async fn book_tx(&self, entry: &TxEntry) -> Result<(), StoreError>;

    /// Creates or replaces the accounts of these deployments.
    async fn put_accounts(&self, accounts: &[Account]) -> Result<(), StoreError>;

    /// The accounts of all deployments there ever were, by dseq.
    async fn accounts(&self) -> Result<Vec<Account>, StoreError>;

    /// All transactions that were booked, in the order of their blocks.
    async fn booked_txs(&self) -> Result<Vec<TxEntry>, StoreError>;
}

/// What was lived through with providers.
#[async_trait]
pub trait ProviderExperience: Send + Sync {
    /// All of it.
    async fn experience(&self) -> Result<Experiences, StoreError>;

    /// Replaces what is known of these. Of more than
    /// [`PROVIDERS_KEPT`](crate::model::experience::PROVIDERS_KEPT) providers those are forgotten
    /// that were not heard of for longest.
    async fn put_experience(&self, changed: &Experiences) -> Result<(), StoreError>;
}

/// Which operator process may write.
#[async_trait]
pub trait Leadership: Send + Sync {
    /// Raises the term and returns it: every later write of a process with a lower term fails with
    /// `Superseded`. See [`next_term`].
    async fn take_over(&self) -> Result<u64, StoreError>;
}

/// What is to be told outside. A notice is queued in the transaction that writes its event, and
/// waits until it was delivered or is dropped; queues are first in, first out.
#[async_trait]
pub trait Notices: Send + Sync {
    /// Who is told of what from now on; without it nobody is.
    fn tell(&self, rule: TellRule);

    /// As [`Records::set_record`], and as [`Events::add_events`]: both or neither.
    async fn set_record_with_events(
        &self,
        name: &str,
        expected: u64,
        record: &Record,
        events: &[Event],
    ) -> Result<u64, StoreError>;

    /// Replaces what was told to be wrong with a cluster, and writes the events that tell it: both
    /// or neither.
    async fn set_told(
        &self,
        cluster: &str,
        told: &BTreeSet<String>,
        events: &[Event],
    ) -> Result<(), StoreError>;

    /// What was told to be wrong with a cluster.
    async fn told(&self, cluster: &str) -> Result<BTreeSet<String>, StoreError>;

    /// The oldest notice for a target. Only for the operator in charge.
    async fn next_notice(&self, target: &str) -> Result<Option<Notice>, StoreError>;

    /// Forgets a notice.
    async fn drop_notice(&self, number: u64) -> Result<(), StoreError>;

    /// Drops the notices for a target whose event was last seen before `oldest`, and the first ones
    /// above `most`.
    async fn trim_notices(
        &self,
        target: &str,
        oldest: UnixMs,
        most: usize,
    ) -> Result<Trimmed, StoreError>;

    /// Drops the notices for all others; returns how many.
    async fn keep_targets(&self, targets: &[String]) -> Result<u64, StoreError>;

    /// Targets for which there is a notice more from now on.
    fn notices(&self) -> Changes<String>;
}

/// A home for all of it.
pub trait Store:
    Objects + Records + Outbox + Events + Leadership + Notices + Books + ProviderExperience
{
}

impl<T> Store for T where
    T: Objects + Records + Outbox + Events + Leadership + Notices + Books + ProviderExperience
{
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_alike_when_all_but_their_times_is_the_same() {
        let event = Event::new(UnixMs(5), "cache", "NodeJoined", "cache-0-a1 joined");
        assert!(event.is_alike(&Event { at: UnixMs(9), count: 4, ..event.clone() }));
        for other in [
            Event { cluster: "queue".into(), ..event.clone() },
            Event { reason: "NodeRemoved".into(), ..event.clone() },
            Event { message: "cache-1-b2 joined".into(), ..event.clone() },
        ] {
            assert!(!event.is_alike(&other), "{other:?}");
        }
    }

    #[test]
    fn two_events_as_one_span_the_time_of_both() {
        let early = Event::new(UnixMs(5), "cache", "NodeJoined", "joined");
        let late = Event { at: UnixMs(9), first: UnixMs(7), count: 2, ..early.clone() };
        let both = Event { at: UnixMs(9), first: UnixMs(5), count: 3, ..early.clone() };
        assert_eq!(early.clone().with(&late), both);
        assert_eq!(late.with(&early), both);
    }

    #[test]
    fn a_term_is_its_millisecond_and_ten_random_bits() {
        let now = UnixMs(1_795_000_000_123);
        assert_eq!(next_term(7, now, 0), now.0 * 1024);
        assert_eq!(next_term(7, now, 0b110_0000_0101), now.0 * 1024 + 0b10_0000_0101);
        assert_eq!(next_term(7, now, u32::MAX), now.0 * 1024 + 1023);
        // A clock that was set back.
        let last = next_term(7, now, 5);
        assert_eq!(next_term(last, UnixMs(now.0 - 1), 3), last + 4);
        assert_eq!(next_term(last, now, 5), last + 6, "the same moment and the same bits");
    }
}
