//! Where the operator keeps what it remembers: a file, or a real apiserver over a real etcd.

use std::sync::Arc;

use akash_redis::store::Store;
use akash_redis::store::kubernetes::KubernetesStore;
use akash_redis::store::sqlite::SqliteStore;
use kube::api::{Patch, PatchParams};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tempfile::TempDir;

use crate::apiserver::Cluster;

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Sqlite,
    Kubernetes,
}

/// A home with its directory.
pub struct Home {
    place: Place,
    _dir: TempDir,
}

enum Place {
    Sqlite(Arc<SqliteStore>),
    Kubernetes(Box<Cluster>),
}

const NAMESPACE: &str = "default";

impl Home {
    pub async fn make(kind: Kind) -> Self {
        let dir = TempDir::new().expect("a directory");
        let place = match kind {
            Kind::Sqlite => {
                let store = SqliteStore::open(&dir.path().join("store.db"));
                Place::Sqlite(store.expect("a store"))
            }
            Kind::Kubernetes => Place::Kubernetes(Box::new(Cluster::start(dir.path()).await)),
        };
        Self { place, _dir: dir }
    }

    /// As the next operator opens it.
    pub async fn open(&self) -> Arc<dyn Store> {
        match &self.place {
            Place::Sqlite(store) => store.as_another_operator(),
            Place::Kubernetes(cluster) => {
                let store: Arc<KubernetesStore> = cluster.store(NAMESPACE).await;
                store
            }
        }
    }

    /// A person pauses a cluster: by the operator's API at a file, past the operator on Kubernetes.
    pub async fn pause(&self, name: &str, store: &Arc<dyn Store>) {
        match &self.place {
            Place::Sqlite(_) => {
                let mut cluster = store.get(name).await.expect("the object").cluster;
                cluster.spec.paused = true;
                cluster.metadata.resource_version = None;
                store.apply(cluster).await.expect("a change");
            }
            Place::Kubernetes(cluster) => {
                let paused = Patch::Merge(json!({"spec": {"paused": true}}));
                let objects = cluster.objects(NAMESPACE);
                objects.patch(name, &PatchParams::default(), &paused).await.expect("a change");
            }
        }
    }

    /// Requests of the operator that the apiserver answered so far: readings, and writes. Those about
    /// the Lease are left out: they are as many for one cluster as for thousands.
    pub async fn requests(&self) -> Option<(f64, f64)> {
        let Place::Kubernetes(cluster) = &self.place else { return None };
        let request = http::Request::get("/metrics").body(Vec::new()).expect("a request");
        let text = cluster.client.request_text(request).await.expect("its metrics");
        let (mut readings, mut writes) = (0.0, 0.0);
        for line in text.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
            let has = |label: &str| line.contains(label);
            let ours = ["redisclusters", "configmaps", "events"];
            if !ours.iter().any(|resource| has(&format!("resource=\"{resource}\""))) {
                continue;
            }
            let count: f64 = line.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0.0);
            let reads = ["GET", "LIST", "WATCH"];
            if reads.iter().any(|verb| has(&format!("verb=\"{verb}\""))) {
                readings += count;
            } else {
                writes += count;
            }
        }
        Some((readings, writes))
    }
}
