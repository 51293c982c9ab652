//! The operator's store with a fuse: a crash may come just before or just after each of its writes.

use std::sync::Arc;
use std::time::Duration;

use akash_redis::api::status::Status;
use akash_redis::api::types::RedisCluster;
use akash_redis::changes::Changes;
use akash_redis::model::chain::SignedTx;
use akash_redis::model::record::Record;
use akash_redis::store::{Event, Events, Leadership, Objects, Outbox, Records, StoreError, Stored};
use async_trait::async_trait;

use super::fuse::Fuse;
use super::memory::MemoryStore;
use super::status_page::Witness;

/// What the trace has of a reading of all objects.
pub const ALL_OBJECTS: &str = "read all objects";

/// A write is on the disk after so long; the world goes on meanwhile.
const DISK: Duration = Duration::from_millis(100);

/// The store of one operator process. Status and events decide nothing, so nothing can be lost
/// between their writes.
pub struct FusedStore {
    pub inner: Arc<MemoryStore>,
    pub fuse: Arc<Fuse>,
    pub witness: Arc<Witness>,
}

impl FusedStore {
    async fn around<T>(
        &self,
        call: &str,
        write: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
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
        let flaws = record.flaws();
        self.witness.expect(flaws.is_empty(), || format!("the record of {name}: {flaws:?}"));
        self.fuse.trace.add(&serde_json::to_string(record).unwrap());
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
        for event in events {
            self.fuse.trace.add(&format!("{} {}: {}", event.cluster, event.reason, event.message));
        }
        self.inner.add_events(events).await
    }

    async fn events(&self, cluster: &str) -> Result<Vec<Event>, StoreError> {
        self.inner.events(cluster).await
    }
}

#[async_trait]
impl Leadership for FusedStore {
    async fn take_over(&self) -> Result<u64, StoreError> {
        self.inner.take_over().await
    }
}
