//! The objects as a person with a kubeconfig has them: each call is a request to the apiserver, under
//! that person's own rights. What the operator remembers beside them is the operator's.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::events::v1::Event as KubeEvent;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use serde_json::json;

use super::super::{
    Books, Event, Events, Leadership, Notice, Notices, Objects, Outbox, ProviderExperience,
    Records, StoreError, Stored, TellRule, Trimmed,
};
use super::calls::{call, failed, is_conflict, is_missing, is_refused, sentence};
use super::events::{About, publish, read};
use super::object::Seen;
use super::watches::Pauses;
use crate::api::crd::{GROUP, PLURAL, VERSION};
use crate::api::status::Status;
use crate::api::types::{KIND, RedisCluster};
use crate::changes::{Changes, Notifier};
use crate::model::books::{Account, TxEntry};
use crate::model::chain::SignedTx;
use crate::model::experience::Experiences;
use crate::model::record::Record;
use crate::model::time::UnixMs;

/// The objects of one namespace.
pub struct DirectStore {
    client: Client,
    namespace: String,
    resource: ApiResource,
    api: Api<DynamicObject>,
    changes: Notifier<String>,
}

impl std::fmt::Debug for DirectStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DirectStore").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

fn operators<T>(what: &str) -> Result<T, StoreError> {
    Err(StoreError::Failed(format!("{what} is the operator's, and this is none")))
}

impl DirectStore {
    /// The objects of a namespace; nothing was called yet.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Arc<Self> {
        let kind = GroupVersionKind::gvk(GROUP, VERSION, KIND);
        let resource = ApiResource::from_gvk_with_plural(&kind, PLURAL);
        let api = Api::namespaced_with(client.clone(), namespace, &resource);
        let namespace = namespace.to_owned();
        Arc::new(Self { client, namespace, resource, api, changes: Notifier::default() })
    }

    /// One object as it is now, and anew whenever it changes; `None` while there is none, and for one
    /// that cannot be run. A connection that breaks is made again; nothing ends it.
    pub fn follow(&self, name: &str) -> impl Stream<Item = Option<RedisCluster>> + use<> {
        let objects = watcher::watch_object(self.api.clone(), name).backoff(Pauses::default());
        objects.filter_map(|object| {
            let cluster = match object {
                Ok(object) => Some(object.and_then(Seen::read).and_then(|seen| {
                    let spec = seen.spec.clone().ok()?;
                    Some(seen.cluster(spec))
                })),
                Err(error) => {
                    tracing::warn!("the object is not heard of for now: {error}");
                    None
                }
            };
            std::future::ready(cluster)
        })
    }

    async fn seen(&self, name: &str) -> Result<Seen, StoreError> {
        let found = call(|| self.api.get_opt(name)).await.map_err(|e| refused(name, e))?;
        let seen = found.and_then(Seen::read);
        seen.ok_or_else(|| StoreError::NotFound { name: name.to_owned() })
    }

    /// The object with another desired part; what is others' of it stays.
    async fn replace(&self, wanted: &RedisCluster) -> Result<DynamicObject, kube::Error> {
        let (metadata, name) = (&wanted.metadata, &wanted.metadata.name);
        let mut object = call(|| self.api.get(name)).await?;
        object.metadata.resource_version.clone_from(&metadata.resource_version);
        object.metadata.managed_fields = None;
        object.metadata.labels = Some(metadata.labels.clone());
        object.metadata.annotations = Some(metadata.annotations.clone());
        object.data["spec"] = json!(wanted.spec);
        let params = PostParams::default();
        call(|| self.api.replace(name, &params, &object)).await
    }

    async fn create(&self, wanted: &RedisCluster) -> Result<DynamicObject, kube::Error> {
        let metadata = &wanted.metadata;
        let mut object = DynamicObject::new(&metadata.name, &self.resource).within(&self.namespace);
        object.metadata.labels = Some(metadata.labels.clone());
        object.metadata.annotations = Some(metadata.annotations.clone());
        object.data = json!({"spec": wanted.spec});
        let params = PostParams::default();
        call(|| self.api.create(&params, &object)).await
    }
}

/// As a person reads it, whatever the operator thinks of it.
fn stored(seen: &Seen) -> Result<Stored, StoreError> {
    match seen.spec.clone() {
        Ok(spec) => {
            let cluster = seen.cluster(spec);
            Ok(Stored { cluster, record: Record::default(), record_version: 0 })
        }
        Err(refused) => Err(StoreError::Failed(format!(
            "{} cannot be run as it is: {}; `kubectl get rediscluster {0} -o yaml` shows it",
            seen.metadata.name, refused.sentence
        ))),
    }
}

fn refused(name: &str, error: kube::Error) -> StoreError {
    if is_missing(&error) {
        return StoreError::Failed(format!(
            "the apiserver knows no {KIND}, or no such namespace ({}); `akash-redis crd` prints the definition",
            sentence(&error)
        ));
    }
    if is_refused(&error) {
        return StoreError::Failed(format!("the apiserver refuses {name}: {}", sentence(&error)));
    }
    failed(error)
}

#[async_trait]
impl Objects for DirectStore {
    async fn list(&self) -> Result<Vec<Stored>, StoreError> {
        let all = ListParams::default();
        let list = call(|| self.api.list(&all)).await.map_err(|e| refused("the list", e))?;
        let mut found = Vec::new();
        for seen in list.into_iter().filter_map(Seen::read) {
            match stored(&seen) {
                Ok(stored) => found.push(stored),
                Err(error) => tracing::warn!("{error}"),
            }
        }
        found.sort_by(|a, b| a.cluster.metadata.name.cmp(&b.cluster.metadata.name));
        Ok(found)
    }

    async fn get(&self, name: &str) -> Result<Stored, StoreError> {
        stored(&self.seen(name).await?)
    }

    async fn apply(&self, cluster: RedisCluster) -> Result<Stored, StoreError> {
        let name = &cluster.metadata.name;
        let done = if cluster.metadata.resource_version.is_some() {
            let seen = self.seen(name).await?;
            let same = seen.metadata.labels == cluster.metadata.labels
                && seen.metadata.annotations == cluster.metadata.annotations;
            if same && seen.spec.as_ref() == Ok(&cluster.spec) {
                return stored(&seen);
            }
            self.replace(&cluster).await
        } else {
            self.create(&cluster).await
        };
        match done {
            Ok(object) => {
                let none = || StoreError::NotFound { name: name.clone() };
                stored(&Seen::read(object).ok_or_else(none)?)
            }
            Err(error) if is_conflict(&error) => Err(StoreError::Conflict { name: name.clone() }),
            Err(error) => Err(refused(name, error)),
        }
    }

    async fn mark_deleted(&self, name: &str) -> Result<(), StoreError> {
        let params = DeleteParams::background();
        match call(|| self.api.delete(name, &params)).await {
            Err(error) if is_missing(&error) => Err(StoreError::NotFound { name: name.to_owned() }),
            Err(error) => Err(refused(name, error)),
            Ok(_) => Ok(()),
        }
    }

    async fn set_status(&self, _: &str, _: &Status) -> Result<(), StoreError> {
        operators("a status")
    }

    async fn remove(&self, _: &str) -> Result<(), StoreError> {
        operators("the end of a deletion")
    }

    fn changes(&self) -> Changes<String> {
        self.changes.subscribe()
    }
}

#[async_trait]
impl Events for DirectStore {
    /// As far as the person may write events. Nothing depends on them.
    async fn add_events(&self, events: &[Event]) -> Result<(), StoreError> {
        for event in events {
            let Ok(seen) = self.seen(&event.cluster).await else { continue };
            let about = About {
                name: event.cluster.clone(),
                namespace: self.namespace.clone(),
                uid: seen.uid().to_owned(),
            };
            publish(&self.client, &about, std::slice::from_ref(event)).await;
        }
        Ok(())
    }

    /// Those that Kubernetes still has.
    async fn events(&self, cluster: &str) -> Result<Vec<Event>, StoreError> {
        let api: Api<KubeEvent> = Api::namespaced(self.client.clone(), &self.namespace);
        let about = format!("regarding.kind={KIND},regarding.name={cluster}");
        let wanted = ListParams::default().fields(&about);
        let list = match call(|| api.list(&wanted)).await {
            Ok(list) => list,
            // Whoever may read clusters is shown what there is of them.
            Err(error) if is_refused(&error) => {
                tracing::warn!("events are not shown: {}", sentence(&error));
                return Ok(Vec::new());
            }
            Err(error) => return Err(failed(error)),
        };
        let mut events: Vec<_> = list.iter().map(|event| read(cluster, event)).collect();
        events.sort_by_key(|event| event.at);
        Ok(events)
    }
}

#[async_trait]
impl Records for DirectStore {
    async fn set_record(&self, _: &str, _: u64, _: &Record) -> Result<u64, StoreError> {
        operators("a record")
    }
}

#[async_trait]
impl Outbox for DirectStore {
    async fn keep_tx(&self, _: &str, _: &SignedTx) -> Result<(), StoreError> {
        operators("a transaction")
    }

    async fn kept_txs(&self) -> Result<Vec<(String, SignedTx)>, StoreError> {
        operators("a transaction")
    }

    async fn drop_tx(&self, _: &str) -> Result<(), StoreError> {
        operators("a transaction")
    }
}

#[async_trait]
impl Books for DirectStore {
    async fn book_tx(&self, _: &TxEntry) -> Result<(), StoreError> {
        operators("a book")
    }

    async fn put_accounts(&self, _: &[Account]) -> Result<(), StoreError> {
        operators("a book")
    }

    async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        operators("a book")
    }

    async fn booked_txs(&self) -> Result<Vec<TxEntry>, StoreError> {
        operators("a book")
    }
}

#[async_trait]
impl ProviderExperience for DirectStore {
    async fn experience(&self) -> Result<Experiences, StoreError> {
        operators("experience with providers")
    }

    async fn put_experience(&self, _: &Experiences) -> Result<(), StoreError> {
        operators("experience with providers")
    }
}

#[async_trait]
impl Leadership for DirectStore {
    async fn take_over(&self) -> Result<u64, StoreError> {
        operators("a term")
    }
}

#[async_trait]
impl Notices for DirectStore {
    fn tell(&self, _: TellRule) {}

    async fn set_record_with_events(
        &self,
        _: &str,
        _: u64,
        _: &Record,
        _: &[Event],
    ) -> Result<u64, StoreError> {
        operators("a record")
    }

    async fn set_told(&self, _: &str, _: &BTreeSet<String>, _: &[Event]) -> Result<(), StoreError> {
        operators("a notice")
    }

    async fn told(&self, _: &str) -> Result<BTreeSet<String>, StoreError> {
        operators("a notice")
    }

    async fn next_notice(&self, _: &str) -> Result<Option<Notice>, StoreError> {
        operators("a notice")
    }

    async fn drop_notice(&self, _: u64) -> Result<(), StoreError> {
        operators("a notice")
    }

    async fn trim_notices(&self, _: &str, _: UnixMs, _: usize) -> Result<Trimmed, StoreError> {
        operators("a notice")
    }

    async fn keep_targets(&self, _: &[String]) -> Result<u64, StoreError> {
        operators("a notice")
    }

    fn notices(&self) -> Changes<String> {
        self.changes.subscribe()
    }
}
