//! The store on Kubernetes: what is wanted and what is, in `RedisCluster` objects; what must be
//! remembered, in `ConfigMap`s of the operator's own namespace.
//!
//! Every write is a compare-and-set by `resourceVersion`, and the operator's own are refused once a
//! later operator raised the term. That is looked up before the write and not with it: a write that
//! was under way when another one took over may still come to pass, as long as the other one has
//! not changed the same object. It then meets that write as a conflict, and reads again. See
//! decision 0060.

mod cache;
mod calls;
pub mod direct;
mod events;
pub mod lease;
mod ledger;
mod memories;
mod memory;
mod object;
mod objects;
mod passwords;
mod shelf;
mod watches;
mod watching;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, ObjectMeta};
use kube::{Api, Client};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Leadership, StoreError, TellRule, next_term};
use crate::api::crd::{GROUP, PLURAL, VERSION};
use crate::api::types::KIND;
use crate::changes::Notifier;
use crate::config::KubernetesHome;
use crate::model::ids::InstallationId;
use crate::model::time::UnixMs;
use crate::secrets::RootSecret;
use cache::Cache;
use calls::{call, failed, is_conflict, is_missing};
use memories::Memories;
pub use memory::{EVENTS_KEPT, EVENTS_OF_A_REASON};
pub use object::FINALIZER;
use shelf::Shelf;
use watching::Look;

/// Who writes, in the words of server-side apply.
const OPERATOR: &str = "akash-redis-operator";
/// Label: which part of the store an object is.
const PART: &str = "akash-redis.dev/part";
/// The object with the installation's id and the term.
const INSTALLATION: &str = "akash-redis.installation";
/// A change that meets others is tried so often.
const TRIES: u32 = 10;

/// A store on Kubernetes, as one operator process has it.
pub struct KubernetesStore {
    client: Client,
    home: KubernetesHome,
    /// The kind of the objects.
    resource: ApiResource,
    /// The objects that are run, if all is well with them.
    watched: Api<DynamicObject>,
    /// Objects of the operator's own namespace.
    maps: Api<ConfigMap>,
    objects: Cache,
    /// Why not all objects were listed yet; none once they were.
    listed: watch::Sender<Option<String>>,
    looks: UnboundedSender<Look>,
    memories: tokio::sync::Mutex<Memories>,
    books: Shelf,
    experience: Shelf,
    outbox: Shelf,
    changes: Notifier<String>,
    queued: Notifier<String>,
    rule: Mutex<Option<TellRule>>,
    /// What the operator has to use of Secrets is kept encrypted by it.
    root: OnceLock<RootSecret>,
    /// The highest number of a notice.
    numbers: AtomicU64,
    /// Term of this process; 0 until it took over.
    term: AtomicU64,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl std::fmt::Debug for KubernetesStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubernetesStore").field("home", &self.home).finish_non_exhaustive()
    }
}

impl Drop for KubernetesStore {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A client of the apiserver by the settings; nothing was called yet.
///
/// # Errors
/// There is no way to it.
pub async fn connect(home: &KubernetesHome) -> Result<Client, StoreError> {
    calls::client(home).await
}

/// A client as `kubectl` has it, and the namespace that it means; nothing was called yet. Without a
/// file `KUBECONFIG` counts, then `~/.kube/config`.
///
/// # Errors
/// There is no such file or context, or it cannot be used.
pub async fn connect_as_person(
    kubeconfig: Option<&Path>,
    context: Option<&str>,
) -> Result<(Client, String), StoreError> {
    calls::client_of_person(kubeconfig, context).await
}

impl KubernetesStore {
    /// Opens the store and begins to follow the objects.
    ///
    /// # Errors
    /// The apiserver does not answer, refuses us, or does not know the objects.
    pub async fn open(client: Client, home: KubernetesHome) -> Result<Arc<Self>, StoreError> {
        let kind = GroupVersionKind::gvk(GROUP, VERSION, KIND);
        let resource = ApiResource::from_gvk_with_plural(&kind, PLURAL);
        let watched: Api<DynamicObject> = match &home.watch_namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let one = ListParams::default().limit(1);
        call(|| watched.list(&one)).await.map_err(|error| {
            if is_missing(&error) {
                StoreError::Failed(format!(
                    "the apiserver does not know {KIND}; `akash-redis crd` prints the definition, for `kubectl apply --server-side -f -`"
                ))
            } else {
                failed(error)
            }
        })?;
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &home.namespace);
        let (looks, looked) = unbounded_channel();
        let store = Arc::new(Self {
            resource,
            objects: Cache::default(),
            listed: watch::Sender::new(Some("it did not answer yet".to_owned())),
            looks,
            memories: tokio::sync::Mutex::default(),
            books: Shelf::new(maps.clone(), "books"),
            experience: Shelf::new(maps.clone(), "experience"),
            outbox: Shelf::new(maps.clone(), "outbox"),
            changes: Notifier::default(),
            queued: Notifier::default(),
            rule: Mutex::default(),
            root: OnceLock::new(),
            numbers: AtomicU64::new(0),
            term: AtomicU64::new(0),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            client,
            watched,
            home,
            maps,
        });
        watching::start(&store, looked);
        Ok(store)
    }

    /// Writes down at first use which installation this store is of; from then on it is no other's.
    ///
    /// # Errors
    /// [`StoreError::OfAnother`] when it was used with another root secret.
    pub async fn belong_to(&self, installation: &InstallationId) -> Result<(), StoreError> {
        let ours = installation.0.clone();
        self.installation(|entries| match entries.get("id") {
            Some(theirs) if *theirs != ours => {
                Err(StoreError::OfAnother { ours: ours.clone(), theirs: theirs.clone() })
            }
            Some(_) => Ok(()),
            None => {
                entries.insert("id".to_owned(), ours.clone());
                Ok(())
            }
        })
        .await
    }

    /// Keys and passwords that are found in Secrets, and that the operator itself has to use, are kept
    /// encrypted by this from now on; before, none is read.
    pub fn seal_with(&self, root: RootSecret) {
        let _ = self.root.set(root);
    }

    /// Fails when a later operator took over. What is written after this may still be written after
    /// that: see the head of this page.
    async fn in_charge(&self) -> Result<(), StoreError> {
        let ours = self.term.load(Ordering::Acquire);
        let found = call(|| self.maps.get_opt(INSTALLATION)).await.map_err(failed)?;
        let theirs = found.map_or(0, |map| term(map.data.as_ref()));
        if theirs > ours { Err(StoreError::Superseded { ours, theirs }) } else { Ok(()) }
    }

    /// It took over, whether or not somebody else did since.
    fn is_leading(&self) -> bool {
        self.term.load(Ordering::Acquire) > 0
    }

    /// Changes the installation's object.
    async fn installation<T>(
        &self,
        mut change: impl FnMut(&mut BTreeMap<String, String>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        for _ in 0..TRIES {
            let found = call(|| self.maps.get_opt(INSTALLATION)).await.map_err(failed)?;
            let (before, version) = found
                .map(|map| (map.data.unwrap_or_default(), map.metadata.resource_version))
                .unwrap_or_default();
            let mut data = before.clone();
            let value = change(&mut data)?;
            if data == before {
                return Ok(value);
            }
            let metadata = ObjectMeta {
                name: Some(INSTALLATION.to_owned()),
                labels: Some(labels("installation")),
                resource_version: version.clone(),
                ..ObjectMeta::default()
            };
            let map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
            let params = PostParams::default();
            let written = if version.is_some() {
                call(|| self.maps.replace(INSTALLATION, &params, &map)).await
            } else {
                call(|| self.maps.create(&params, &map)).await
            };
            match written {
                Ok(_) => return Ok(value),
                Err(error) if is_conflict(&error) || is_missing(&error) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Err(StoreError::Conflict { name: INSTALLATION.to_owned() })
    }

    fn rule(&self) -> Option<TellRule> {
        self.rule.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_rule(&self, rule: TellRule) {
        *self.rule.lock().unwrap_or_else(PoisonError::into_inner) = Some(rule);
    }

    fn of_namespace(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &self.resource)
    }
}

/// Labels of an object of the store.
fn labels(part: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/managed-by".to_owned(), "akash-redis".to_owned()),
        (PART.to_owned(), part.to_owned()),
    ])
}

fn term(entries: Option<&BTreeMap<String, String>>) -> u64 {
    entries.and_then(|entries| entries.get("term")?.parse().ok()).unwrap_or(0)
}

#[async_trait]
impl Leadership for KubernetesStore {
    async fn take_over(&self) -> Result<u64, StoreError> {
        let random = rand::random();
        let raised = self
            .installation(|entries| {
                let raised = next_term(term(Some(entries)), UnixMs::now(), random);
                entries.insert("term".to_owned(), raised.to_string());
                Ok(raised)
            })
            .await?;
        self.term.store(raised, Ordering::Release);
        // What the one before wrote until now is read anew.
        self.memories.lock().await.forget();
        for shelf in [&self.books, &self.experience, &self.outbox] {
            shelf.forget().await;
        }
        // A list that is made after that: whatever the one before saw is seen.
        let mine = self.home.selector.iter().fold(ListParams::default(), |p, s| p.labels(s));
        let list = call(|| self.watched.list(&mine)).await.map_err(failed)?;
        for object in list {
            self.see(object);
        }
        for key in self.objects.all_keys() {
            let _ = self.looks.send(Look::At(key));
        }
        Ok(raised)
    }
}
