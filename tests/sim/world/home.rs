//! Where the operators of a world keep what they remember.

use std::sync::Arc;

use akash_redis::store::Store;
use akash_redis::store::sqlite::SqliteStore;
use async_trait::async_trait;

use super::memory::MemoryStore;

/// A store that outlives its operators.
#[async_trait]
pub trait Home: Send + Sync {
    /// As the next operator opens it.
    async fn open(&self) -> Arc<dyn Store>;

    /// As whoever looks on has it: what the operator wrote last is seen.
    fn seen(&self) -> Arc<dyn Store>;
}

#[async_trait]
impl Home for Arc<MemoryStore> {
    async fn open(&self) -> Arc<dyn Store> {
        self.as_another_operator()
    }

    fn seen(&self) -> Arc<dyn Store> {
        self.clone()
    }
}

#[async_trait]
impl Home for Arc<SqliteStore> {
    async fn open(&self) -> Arc<dyn Store> {
        self.as_another_operator()
    }

    fn seen(&self) -> Arc<dyn Store> {
        self.clone()
    }
}
