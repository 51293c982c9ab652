//! Where the operator keeps what it remembers, and whether it is its turn.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::secrets::RootSecret;
use crate::store::kubernetes::lease::{Candidate, Lost, Pace};
use crate::store::kubernetes::{self, KubernetesStore};
use crate::store::sqlite::SqliteStore;
use crate::store::{Store, StoreError};

/// A store that is this process' to write.
pub struct Home {
    /// The store.
    pub store: Arc<dyn Store>,
    lease: Option<Held>,
}

/// A lease that is renewed.
struct Held {
    task: JoinHandle<Lost>,
    stop: CancellationToken,
}

impl Home {
    /// Opens the store of the settings. On Kubernetes it waits until no other operator works; none
    /// where `shutdown` came before.
    pub async fn open(
        config: &Config,
        root: &RootSecret,
        shutdown: &CancellationToken,
    ) -> Result<Option<Self>, StoreError> {
        let installation = &root.installation_id();
        let Some(home) = &config.store.kubernetes else {
            let store = SqliteStore::open(&config.store.sqlite)?;
            store.belong_to(installation).await?;
            return Ok(Some(Self { store, lease: None }));
        };
        let client = kubernetes::connect(home).await?;
        let candidate =
            Candidate::new(client.clone(), &home.namespace, identity(), Pace::default());
        if !candidate.acquire(shutdown).await? {
            return Ok(None);
        }
        let stop = CancellationToken::new();
        let held = candidate.clone();
        let token = stop.clone();
        let task = tokio::spawn(async move { held.hold(&token).await });
        let lease = Held { task, stop };
        let opened = async {
            let store = KubernetesStore::open(client, home.clone()).await?;
            store.belong_to(installation).await?;
            store.seal_with(root.clone());
            Ok(store)
        };
        match opened.await {
            Ok(store) => Ok(Some(Self { store, lease: Some(lease) })),
            Err(error) => {
                lease.give_back().await;
                Err(error)
            }
        }
    }

    /// Comes back when it is another one's turn; never where nobody else can have one.
    pub async fn lost(&mut self) -> Lost {
        match &mut self.lease {
            // A panic of it is in the log, and nobody renews the lease then.
            Some(held) => (&mut held.task).await.unwrap_or(Lost::NotRenewed),
            None => std::future::pending().await,
        }
    }

    /// The next one may begin.
    pub async fn leave(&mut self) {
        if let Some(held) = self.lease.take() {
            held.give_back().await;
        }
    }
}

impl Held {
    async fn give_back(self) {
        if !self.task.is_finished() {
            self.stop.cancel();
            let _ = self.task.await;
        }
    }
}

/// Another one for every process; a pod is known by it.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "akash-redis".to_owned());
    format!("{host}_{:08x}", rand::random::<u32>())
}

/// Whether the store of the settings can be reached.
pub async fn check(config: &Config) -> Option<Result<String, String>> {
    let home = config.store.kubernetes.as_ref()?;
    let reached = async {
        let client = kubernetes::connect(home).await?;
        KubernetesStore::open(client, home.clone()).await
    };
    let found = reached.await.map_err(|e| e.to_string());
    Some(found.map(|_| format!("Kubernetes, namespace {}", home.namespace)))
}
