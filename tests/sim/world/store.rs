//! The operator's store with a fuse: a crash may come just before or just after each of its writes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use akash_redis::api::status::Status;
use akash_redis::api::types::RedisCluster;
use akash_redis::changes::Changes;
use akash_redis::model::books::{Account, TxEntry};
use akash_redis::model::chain::SignedTx;
use akash_redis::model::experience::Experiences;
use akash_redis::model::record::Record;
use akash_redis::model::time::UnixMs;
use akash_redis::store::{
    Books, Event, Events, Leadership, Notice, Notices, Objects, Outbox, ProviderExperience,
    Records, Store, StoreError, Stored, TellRule, Trimmed,
};
use async_trait::async_trait;

use super::fuse::Fuse;
use super::status_page::Witness;

/// What the trace has of a reading of all objects.
pub const ALL_OBJECTS: &str = "read all objects";

/// A write is on the disk after so long; the world goes on meanwhile.
const DISK: Duration = Duration::from_millis(100);

/// The store of one operator process. Status and events decide nothing, so nothing can be lost
/// between their writes.
pub struct FusedStore {
    pub inner: Arc<dyn Store>,
    pub fuse: Arc<Fuse>,
    pub witness: Arc<Witness>,
}

impl FusedStore {
    fn look_at(&self, name: &str, record: &Record) {
        let flaws = record.flaws();
        self.witness.expect(flaws.is_empty(), || format!("the record of {name}: {flaws:?}"));
        self.fuse.trace.add(&serde_json::to_string(record).unwrap());
    }

    fn trace(&self, events: &[Event]) {
        for event in events {
            self.fuse.trace.add(&format!("{} {}: {}", event.cluster, event.reason, event.message));
        }
    }

    async fn around<T>(
        &self,
        call: &str,
        write: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.fuse.writes.fetch_add(1, Ordering::SeqCst);
        self.fuse.before(call).await;
        tokio::time::sleep(DISK).await;
        let done = write.await;
        self.fuse.after(call, done.as_ref().map(drop)).await;
        done
    }
}

#[async_trait]
impl Objects for FusedStore {
    async fn list(&self) -> Result<Vec<Stored>, StoreError> {
        self.fuse.trace.add(ALL_OBJECTS);
        self.inner.list().await
    }

    async fn get(&self, name: &str) -> Result<Stored, StoreError> {
        self.inner.get(name).await
    }

    async fn apply(&self, cluster: RedisCluster) -> Result<Stored, StoreError> {
        self.inner.apply(cluster).await
    }

    async fn mark_deleted(&self, name: &str) -> Result<(), StoreError> {
        self.inner.mark_deleted(name).await
    }

    async fn set_status(&self, name: &str, status: &Status) -> Result<(), StoreError> {
        self.fuse.writes.fetch_add(1, Ordering::SeqCst);
        self.fuse.trace.add(&serde_json::to_string(status).unwrap());
        self.inner.set_status(name, status).await
    }

    async fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.around(&format!("remove {name}"), self.inner.remove(name)).await
    }

    fn changes(&self) -> Changes<String> {
        self.inner.changes()
    }
}

#[async_trait]
impl Records for FusedStore {
    async fn set_record(
        &self,
        name: &str,
        expected: u64,
        record: &Record,
    ) -> Result<u64, StoreError> {
        self.look_at(name, record);
        self.around(&format!("record {name}"), self.inner.set_record(name, expected, record)).await
    }
}

#[async_trait]
impl Outbox for FusedStore {
    async fn keep_tx(&self, cluster: &str, tx: &SignedTx) -> Result<(), StoreError> {
        self.around(&format!("keep {}", tx.purpose), self.inner.keep_tx(cluster, tx)).await
    }

    async fn kept_txs(&self) -> Result<Vec<(String, SignedTx)>, StoreError> {
        self.inner.kept_txs().await
    }

    async fn drop_tx(&self, hash: &str) -> Result<(), StoreError> {
        self.around("drop a transaction", self.inner.drop_tx(hash)).await
    }
}

#[async_trait]
impl Events for FusedStore {
    async fn add_events(&self, events: &[Event]) -> Result<(), StoreError> {
        self.fuse.writes.fetch_add(1, Ordering::SeqCst);
        self.trace(events);
        self.inner.add_events(events).await
    }

    async fn events(&self, cluster: &str) -> Result<Vec<Event>, StoreError> {
        self.inner.events(cluster).await
    }
}

#[async_trait]
impl Books for FusedStore {
    async fn book_tx(&self, entry: &TxEntry) -> Result<(), StoreError> {
        self.around(&format!("book {}", entry.purpose), self.inner.book_tx(entry)).await
    }

    async fn put_accounts(&self, accounts: &[Account]) -> Result<(), StoreError> {
        let dseqs: Vec<_> = accounts.iter().map(|account| account.dseq).collect();
        self.around(&format!("put accounts {dseqs:?}"), self.inner.put_accounts(accounts)).await
    }

    async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        self.inner.accounts().await
    }

    async fn booked_txs(&self) -> Result<Vec<TxEntry>, StoreError> {
        self.inner.booked_txs().await
    }
}

#[async_trait]
impl ProviderExperience for FusedStore {
    async fn experience(&self) -> Result<Experiences, StoreError> {
        self.inner.experience().await
    }

    async fn put_experience(&self, changed: &Experiences) -> Result<(), StoreError> {
        self.inner.put_experience(changed).await
    }
}

#[async_trait]
impl Leadership for FusedStore {
    async fn take_over(&self) -> Result<u64, StoreError> {
        self.inner.take_over().await
    }
}

#[async_trait]
impl Notices for FusedStore {
    fn tell(&self, rule: TellRule) {
        self.inner.tell(rule);
    }

    async fn set_record_with_events(
        &self,
        name: &str,
        expected: u64,
        record: &Record,
        events: &[Event],
    ) -> Result<u64, StoreError> {
        self.look_at(name, record);
        self.trace(events);
        let write = self.inner.set_record_with_events(name, expected, record, events);
        self.around(&format!("record {name}"), write).await
    }

    async fn set_told(
        &self,
        cluster: &str,
        told: &BTreeSet<String>,
        events: &[Event],
    ) -> Result<(), StoreError> {
        self.trace(events);
        self.inner.set_told(cluster, told, events).await
    }

    async fn told(&self, cluster: &str) -> Result<BTreeSet<String>, StoreError> {
        self.inner.told(cluster).await
    }

    async fn next_notice(&self, target: &str) -> Result<Option<Notice>, StoreError> {
        self.inner.next_notice(target).await
    }

    async fn drop_notice(&self, number: u64) -> Result<(), StoreError> {
        self.around("drop a notice", self.inner.drop_notice(number)).await
    }

    async fn trim_notices(
        &self,
        target: &str,
        oldest: UnixMs,
        most: usize,
    ) -> Result<Trimmed, StoreError> {
        self.inner.trim_notices(target, oldest, most).await
    }

    async fn keep_targets(&self, targets: &[String]) -> Result<u64, StoreError> {
        self.inner.keep_targets(targets).await
    }

    fn notices(&self) -> Changes<String> {
        self.inner.notices()
    }
}
