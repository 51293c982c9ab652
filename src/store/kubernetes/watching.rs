//! Follows the objects, and takes care of those that are not run: each by itself, so that whatever
//! is wrong with one stops no other.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::{Patch, PatchParams};
use kube::core::DynamicObject;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::super::StoreError;
use super::cache::{Care, Key};
use super::calls::{call, failed, is_conflict, is_missing, is_refused, sentence};
use super::object::{FINALIZER, Seen};
use super::objects::not_as_written;
use super::passwords;
use super::watches::{Pauses, watched};
use super::{KubernetesStore, OPERATOR};
use crate::api::conditions::{ConditionStatus, ConditionType, Reason};
use crate::api::status::{Condition, Status};
use crate::model::time::UnixMs;

/// What could not be done is tried again after this time.
const AGAIN: Duration = Duration::from_secs(2);

/// Something to look at.
#[derive(Clone, Debug)]
pub(super) enum Look {
    /// What is to be done about it.
    At(Key),
    /// It was missing in a list.
    Whether(Key),
    /// What is in the Secrets that it names.
    Secrets(Key),
}

/// Follows the objects until the store is dropped.
pub(super) async fn follow(
    store: Weak<KubernetesStore>,
    api: Api<DynamicObject>,
    config: watcher::Config,
    look: UnboundedSender<Look>,
) {
    let mut events = std::pin::pin!(watcher(api, config).backoff(Pauses::default()));
    let mut listed = BTreeSet::new();
    while let Some(event) = events.next().await {
        let Some(store) = store.upgrade() else { return };
        let key =
            |object: &DynamicObject| (object.name_any(), object.namespace().unwrap_or_default());
        match event {
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(object)) => {
                listed.insert(key(&object));
                store.see(object);
            }
            Ok(watcher::Event::InitDone) => {
                for missing in store.objects.listed(&listed) {
                    let _ = look.send(Look::Whether(missing));
                }
                store.listed.send_replace(None);
            }
            Ok(watcher::Event::Apply(object)) => store.see(object),
            Ok(watcher::Event::Delete(object)) => {
                let uid = object.metadata.uid.clone().unwrap_or_default();
                store.gone(&key(&object), &uid);
            }
            Err(error) => {
                let text = error.to_string();
                tracing::warn!("the objects are not heard of for now: {text}");
                store.listed.send_if_modified(|last| {
                    // Once all were listed, what is known stays known.
                    last.as_mut().map(|last| *last = text).is_some()
                });
            }
        }
    }
}

/// Takes care of objects until the store is dropped.
pub(super) async fn tend(
    store: Weak<KubernetesStore>,
    mut looks: UnboundedReceiver<Look>,
    again: UnboundedSender<Look>,
) {
    while let Some(look) = looks.recv().await {
        let Some(store) = store.upgrade() else { return };
        if let Err(error) = Box::pin(store.look(&look)).await {
            tracing::warn!("{look:?}: {error}");
            let again = again.clone();
            // One that fails on and on holds up no other.
            store.tasks.spawn(async move {
                tokio::time::sleep(AGAIN).await;
                let _ = again.send(look);
            });
        }
    }
}

impl KubernetesStore {
    /// Takes in an object that was seen.
    pub(super) fn see(&self, object: DynamicObject) {
        let Some(seen) = Seen::read(object) else { return };
        let name = seen.metadata.name.clone();
        if self.objects.see(seen) {
            self.changes.notify(name.clone());
            self.look_at(&name);
        }
    }

    /// An object is gone.
    pub(super) fn gone(&self, key: &Key, uid: &str) {
        if self.objects.drop_object(key, uid) {
            self.changes.notify(key.0.clone());
            self.look_at(&key.0);
        }
    }

    /// All of a name are looked at: which of them is run may be another one now.
    pub(super) fn look_at(&self, name: &str) {
        for key in self.objects.keys(name) {
            let _ = self.looks.send(Look::At(key));
        }
    }

    async fn look(&self, look: &Look) -> Result<(), StoreError> {
        match look {
            Look::Whether(key) => {
                let api = self.of_namespace(&key.1);
                match call(|| api.get(&key.0)).await {
                    Ok(object) => self.see(object),
                    Err(error) if is_missing(&error) => {
                        let uid = self.objects.get(key).map(|seen| seen.uid().to_owned());
                        self.gone(key, &uid.unwrap_or_default());
                    }
                    Err(error) => return Err(failed(error)),
                }
                Ok(())
            }
            Look::At(key) => {
                let read = Box::pin(self.look_at_secrets(key)).await;
                self.care(key).await?;
                read
            }
            Look::Secrets(key) => {
                Box::pin(self.look_at_secrets(key)).await?;
                self.care(key).await
            }
        }
    }

    async fn look_at_secrets(&self, key: &Key) -> Result<(), StoreError> {
        if Box::pin(self.read_secrets(key)).await? {
            self.changes.notify(key.0.clone());
        }
        Ok(())
    }

    /// Only the operator in charge changes an object.
    async fn care(&self, key: &Key) -> Result<(), StoreError> {
        if !self.is_leading() || self.objects.care(key) == Care::Nothing {
            return Ok(());
        }
        // Whose record it is decides which one of a name is run.
        self.memory(&key.0).await?;
        let Some(seen) = self.objects.get(key) else { return Ok(()) };
        let care = self.objects.care(key);
        if care != Care::Nothing && self.in_charge().await.is_err() {
            return Ok(());
        }
        match care {
            Care::Nothing => Ok(()),
            Care::Hold => {
                let all = seen.finalizers.iter().cloned().chain([FINALIZER.to_owned()]).collect();
                self.set_finalizers(&seen, all).await
            }
            Care::Release => self.release(&seen).await,
            Care::Tell(reason, sentence) => self.tell_why(&seen, reason, sentence).await,
            Care::Warn => {
                let mut status = seen.status.clone().unwrap_or_default();
                status.conditions.retain(|condition| condition.kind != ConditionType::Accepted);
                status.conditions.extend(not_as_written(&seen));
                self.patch_status(&seen, &status).await
            }
        }
    }

    /// Nothing of ours holds it any more.
    pub(super) async fn release(&self, seen: &Seen) -> Result<(), StoreError> {
        let all = seen.finalizers.iter().filter(|one| *one != FINALIZER).cloned().collect();
        self.set_finalizers(seen, all).await
    }

    async fn set_finalizers(&self, seen: &Seen, all: Vec<String>) -> Result<(), StoreError> {
        let api = self.of_namespace(&seen.namespace);
        let patch = Patch::Merge(json!({"metadata": {
            "resourceVersion": seen.version.to_string(), "uid": seen.uid(), "finalizers": all,
        }}));
        let params =
            PatchParams { field_manager: Some(OPERATOR.to_owned()), ..PatchParams::default() };
        let name = &seen.metadata.name;
        match call(|| api.patch(name, &params, &patch)).await {
            // Nothing held it any more, and so it went.
            Ok(object) if object.finalizers().is_empty() && seen.is_deleting() => {
                self.gone(&(name.clone(), seen.namespace.clone()), seen.uid());
            }
            Ok(object) => self.see(object),
            // What is there now is looked at when it is heard of, which it may have been already.
            Err(error) if is_conflict(&error) => {
                let key = (name.clone(), seen.namespace.clone());
                self.refresh(&key).await?;
                self.look_at(name);
            }
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(failed(error)),
        }
        Ok(())
    }

    /// Reads one object anew.
    pub(super) async fn refresh(&self, key: &Key) -> Result<(), StoreError> {
        let api = self.of_namespace(&key.1);
        if let Some(object) = call(|| api.get_opt(&key.0)).await.map_err(failed)? {
            self.see(object);
        } else if let Some(seen) = self.objects.get(key) {
            self.gone(key, seen.uid());
        }
        Ok(())
    }

    /// Says at an object that is not run why.
    async fn tell_why(
        &self,
        seen: &Seen,
        reason: Reason,
        sentence: String,
    ) -> Result<(), StoreError> {
        let status = Status {
            observed_generation: seen.metadata.generation.unwrap_or(0),
            conditions: [ConditionType::Ready, ConditionType::Accepted]
                .map(|kind| refusal(seen, kind, reason, &sentence))
                .to_vec(),
            ..Status::default()
        };
        self.patch_status(seen, &status).await
    }

    /// Writes a status where it is another one than was seen.
    pub(super) async fn patch_status(
        &self,
        seen: &Seen,
        status: &Status,
    ) -> Result<(), StoreError> {
        if seen.status.as_ref() == Some(status) {
            return Ok(());
        }
        let name = &seen.metadata.name;
        let api = self.of_namespace(&seen.namespace);
        let patch = Patch::Apply(json!({
            "apiVersion": crate::api::types::API_VERSION,
            "kind": crate::api::types::KIND,
            "metadata": {"name": name, "namespace": seen.namespace, "uid": seen.uid()},
            "status": status,
        }));
        let params = PatchParams::apply(OPERATOR).force();
        match call(|| api.patch_status(name, &params, &patch)).await {
            Ok(object) => {
                self.see(object);
                Ok(())
            }
            Err(error) if is_missing(&error) => Err(StoreError::NotFound { name: name.clone() }),
            // Another object of that name by now.
            Err(error) if is_conflict(&error) => Err(StoreError::NotFound { name: name.clone() }),
            Err(error) if is_refused(&error) => {
                // An object that admission would not take as it is takes no status either.
                tracing::error!(cluster = name, "no status can be written: {}", sentence(&error));
                Ok(())
            }
            Err(error) => Err(failed(error)),
        }
    }
}

/// The condition that says why an object is not run.
pub(super) fn refusal(
    seen: &Seen,
    kind: ConditionType,
    reason: Reason,
    sentence: &str,
) -> Condition {
    let known = seen.status.as_ref().and_then(|status| status.condition(kind));
    let known = known.filter(|known| known.status == ConditionStatus::False);
    let since = known.map(|known| known.last_transition_time.clone());
    Condition {
        kind,
        status: ConditionStatus::False,
        reason,
        message: sentence.to_owned(),
        last_transition_time: since.unwrap_or_else(|| UnixMs::now().to_string()),
    }
}

/// Starts following and tending.
pub(super) fn start(store: &Arc<KubernetesStore>, looks: UnboundedReceiver<Look>) {
    let config = store.home.selector.iter().fold(watched(), |config, one| config.labels(one));
    let (watched, look) = (store.watched.clone(), store.looks.clone());
    let follow = follow(Arc::downgrade(store), watched, config, look);
    let tend = tend(Arc::downgrade(store), looks, store.looks.clone());
    let reread = passwords::reread(Arc::downgrade(store), store.looks.clone());
    let stop = store.stop.clone();
    store.tasks.spawn(stop.clone().run_until_cancelled_owned(follow));
    store.tasks.spawn(stop.clone().run_until_cancelled_owned(reread));
    store.tasks.spawn(stop.run_until_cancelled_owned(tend));
}
