//! The life of `tests/sim/lives.rs` over a real apiserver: chain, providers, tailnet and nodes are
//! simulated and their clock stands still until everybody waits; the store is the operator's own, on
//! a clock that goes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use akash_redis::api::status::Status;
use akash_redis::api::types::RedisCluster;
use akash_redis::changes::Changes;
use akash_redis::config::KubernetesHome;
use akash_redis::model::books::{Account, TxEntry};
use akash_redis::model::chain::SignedTx;
use akash_redis::model::experience::Experiences;
use akash_redis::model::record::Record;
use akash_redis::model::time::UnixMs;
use akash_redis::store::kubernetes::{self, KubernetesStore};
use akash_redis::store::{
    Books, Event, Events, Leadership, Notice, Notices, Objects, Outbox, ProviderExperience,
    Records, Store, StoreError, Stored, TellRule, Trimmed,
};
use async_trait::async_trait;
use tokio::runtime::Handle;

use crate::apiserver::Cluster;
use crate::lives::{calls_to_try, one_life, with_a_crash_at};
use crate::sandboxed::sandboxed;
use crate::world::home::Home;
use crate::world::many::{in_a_world, in_many_worlds, setting};
use crate::world::{Terms, World};

const LIMIT: Duration = Duration::from_mins(9);

/// A call in a runtime whose clock goes; that of the caller stands still meanwhile.
fn there<T: Send>(runtime: &Handle, call: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let called = scope.spawn(|| runtime.block_on(call));
        called.join().expect("the store does not panic")
    })
}

/// A store whose calls are carried out elsewhere.
struct Elsewhere {
    runtime: Handle,
    inner: Arc<KubernetesStore>,
}

/// A namespace of the apiserver.
struct Namespace {
    runtime: Handle,
    home: KubernetesHome,
    /// As it was opened last: what was written by it is seen by it.
    last: Mutex<Arc<Elsewhere>>,
}

fn open(runtime: &Handle, home: &KubernetesHome) -> Arc<Elsewhere> {
    let inner = there(runtime, async {
        let client = kubernetes::connect(home).await.unwrap();
        KubernetesStore::open(client, home.clone()).await.unwrap()
    });
    Arc::new(Elsewhere { runtime: runtime.clone(), inner })
}

#[async_trait]
impl Home for Namespace {
    async fn open(&self) -> Arc<dyn Store> {
        let opened = open(&self.runtime, &self.home);
        *self.last.lock().unwrap() = opened.clone();
        opened
    }

    fn seen(&self) -> Arc<dyn Store> {
        self.last.lock().unwrap().clone()
    }
}

/// A world that is at home in a namespace of its own.
fn world(runtime: &Handle, home: &KubernetesHome, seed: u64) -> Arc<World> {
    let name = format!("world-{seed}");
    let home =
        KubernetesHome { namespace: name.clone(), watch_namespace: Some(name), ..home.clone() };
    world_in(runtime, home, seed)
}

/// A world with operators of these settings.
pub fn world_in(runtime: &Handle, home: KubernetesHome, seed: u64) -> Arc<World> {
    let last = Mutex::new(open(runtime, &home));
    let namespace = Namespace { runtime: runtime.clone(), home, last };
    World::at_home(Terms::new(seed, 6), Arc::new(namespace))
}

#[test]
fn over_the_apiserver_a_crash_at_any_call_of_a_life_changes_nothing_in_the_end() {
    const TEST: &str =
        "crashes::over_the_apiserver_a_crash_at_any_call_of_a_life_changes_nothing_in_the_end";
    sandboxed(TEST, LIMIT, async |sandbox| {
        let kube = Cluster::start(&sandbox.dir).await;
        let (runtime, home) = (Handle::current(), kube.home("default"));
        kube.namespace("world-40000").await;
        let begun = std::time::Instant::now();
        let (there, at) = (runtime.clone(), home.clone());
        let parts = tokio::task::spawn_blocking(move || {
            in_a_world(async { one_life(&world(&there, &at, 40_000)).await })
        });
        let parts = parts.await.unwrap();
        println!("one life without a crash took {:?}", begun.elapsed());
        let tried = calls_to_try(&parts, setting("KUBE_CRASHES", 8));
        for call in &tried {
            kube.namespace(&format!("world-{}", 40_000 + call)).await;
        }
        let crashes = tokio::task::spawn_blocking(move || {
            let tried: Vec<u64> = tried.into_iter().collect();
            in_many_worlds(1..=tried.len() as u64, 1, async |at| {
                let call = tried[usize::try_from(at).unwrap() - 1];
                with_a_crash_at(&world(&runtime, &home, 40_000 + call), call).await;
            });
            tried.len()
        });
        let crashes = crashes.await.unwrap();
        println!("{crashes} lives with a crash, {:?} in all", begun.elapsed());
    });
}

/// The call, carried out elsewhere.
macro_rules! elsewhere {
    ($self:ident.$call:ident($($argument:expr),*)) => {
        there(&$self.runtime, $self.inner.$call($($argument),*))
    };
}

#[async_trait]
impl Objects for Elsewhere {
    async fn list(&self) -> Result<Vec<Stored>, StoreError> {
        elsewhere!(self.list())
    }

    async fn get(&self, name: &str) -> Result<Stored, StoreError> {
        elsewhere!(self.get(name))
    }

    async fn apply(&self, cluster: RedisCluster) -> Result<Stored, StoreError> {
        elsewhere!(self.apply(cluster))
    }

    async fn mark_deleted(&self, name: &str) -> Result<(), StoreError> {
        elsewhere!(self.mark_deleted(name))
    }

    async fn set_status(&self, name: &str, status: &Status) -> Result<(), StoreError> {
        elsewhere!(self.set_status(name, status))
    }

    async fn remove(&self, name: &str) -> Result<(), StoreError> {
        elsewhere!(self.remove(name))
    }

    fn changes(&self) -> Changes<String> {
        self.inner.changes()
    }
}

#[async_trait]
impl Records for Elsewhere {
    async fn set_record(
        &self,
        name: &str,
        expected: u64,
        record: &Record,
    ) -> Result<u64, StoreError> {
        elsewhere!(self.set_record(name, expected, record))
    }
}

#[async_trait]
impl Outbox for Elsewhere {
    async fn keep_tx(&self, cluster: &str, tx: &SignedTx) -> Result<(), StoreError> {
        elsewhere!(self.keep_tx(cluster, tx))
    }

    async fn kept_txs(&self) -> Result<Vec<(String, SignedTx)>, StoreError> {
        elsewhere!(self.kept_txs())
    }

    async fn drop_tx(&self, hash: &str) -> Result<(), StoreError> {
        elsewhere!(self.drop_tx(hash))
    }
}

#[async_trait]
impl Events for Elsewhere {
    async fn add_events(&self, events: &[Event]) -> Result<(), StoreError> {
        elsewhere!(self.add_events(events))
    }

    async fn events(&self, cluster: &str) -> Result<Vec<Event>, StoreError> {
        elsewhere!(self.events(cluster))
    }
}

#[async_trait]
impl Books for Elsewhere {
    async fn book_tx(&self, entry: &TxEntry) -> Result<(), StoreError> {
        elsewhere!(self.book_tx(entry))
    }

    async fn put_accounts(&self, accounts: &[Account]) -> Result<(), StoreError> {
        elsewhere!(self.put_accounts(accounts))
    }

    async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        elsewhere!(self.accounts())
    }

    async fn booked_txs(&self) -> Result<Vec<TxEntry>, StoreError> {
        elsewhere!(self.booked_txs())
    }
}

#[async_trait]
impl ProviderExperience for Elsewhere {
    async fn experience(&self) -> Result<Experiences, StoreError> {
        elsewhere!(self.experience())
    }

    async fn put_experience(&self, changed: &Experiences) -> Result<(), StoreError> {
        elsewhere!(self.put_experience(changed))
    }
}

#[async_trait]
impl Leadership for Elsewhere {
    async fn take_over(&self) -> Result<u64, StoreError> {
        elsewhere!(self.take_over())
    }
}

#[async_trait]
impl Notices for Elsewhere {
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
        elsewhere!(self.set_record_with_events(name, expected, record, events))
    }

    async fn set_told(
        &self,
        cluster: &str,
        told: &BTreeSet<String>,
        events: &[Event],
    ) -> Result<(), StoreError> {
        elsewhere!(self.set_told(cluster, told, events))
    }

    async fn told(&self, cluster: &str) -> Result<BTreeSet<String>, StoreError> {
        elsewhere!(self.told(cluster))
    }

    async fn next_notice(&self, target: &str) -> Result<Option<Notice>, StoreError> {
        elsewhere!(self.next_notice(target))
    }

    async fn drop_notice(&self, number: u64) -> Result<(), StoreError> {
        elsewhere!(self.drop_notice(number))
    }

    async fn trim_notices(
        &self,
        target: &str,
        oldest: UnixMs,
        most: usize,
    ) -> Result<Trimmed, StoreError> {
        elsewhere!(self.trim_notices(target, oldest, most))
    }

    async fn keep_targets(&self, targets: &[String]) -> Result<u64, StoreError> {
        elsewhere!(self.keep_targets(targets))
    }

    fn notices(&self) -> Changes<String> {
        self.inner.notices()
    }
}
