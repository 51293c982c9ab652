//! The objects that people apply, by name: one of each name is run.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::core::DynamicObject;
use serde_json::json;

use super::super::{Objects, StoreError, Stored};
use super::calls::{call, failed, is_conflict, is_missing, is_refused, sentence};
use super::memory::{Memory, Owner};
use super::object::{FINALIZER, Seen};
use super::passwords::with_passwords;
use super::watching::refusal;
use super::{KubernetesStore, OPERATOR};
use crate::api::conditions::ConditionType;
use crate::api::status::{Condition, Status};
use crate::api::types::RedisCluster;
use crate::changes::Changes;

/// All objects are listed by then, or there is something wrong.
const LISTED: Duration = Duration::from_secs(30);
/// A change that meets others is tried so often.
const TRIES: u32 = 5;

/// An object with what is remembered of it; none while it is not run.
fn stored(seen: &Seen, memory: Memory) -> Option<Stored> {
    if !seen.is_held() {
        return None;
    }
    // One that cannot be read goes on as it was.
    let before = memory.spec.and_then(|spec| with_passwords(spec, &memory.passwords));
    let spec = seen.spec.clone().ok().or(before)?;
    let cluster = seen.cluster(spec);
    Some(Stored { cluster, record: memory.record, record_version: memory.record_version })
}

impl KubernetesStore {
    /// The object of a name that is run, by which it is known.
    pub(super) fn owner(&self, name: &str) -> Option<Owner> {
        let seen = self.objects.chosen(name).filter(Seen::is_held)?;
        Some(Owner { namespace: seen.namespace.clone(), uid: seen.uid().to_owned() })
    }

    /// The object of a name that is run.
    pub(super) async fn visible(&self, name: &str) -> Result<Stored, StoreError> {
        let none = || StoreError::NotFound { name: name.to_owned() };
        self.all_listed().await?;
        self.objects.chosen(name).ok_or_else(none)?;
        let memory = self.memory(name).await?;
        // Whose record it is decides which one is run.
        let seen = self.objects.chosen(name).ok_or_else(none)?;
        stored(&seen, memory).ok_or_else(none)
    }

    async fn all_listed(&self) -> Result<(), StoreError> {
        let mut listed = self.listed.subscribe();
        let listed = tokio::time::timeout(LISTED, listed.wait_for(Option::is_none)).await;
        if listed.is_ok() {
            return Ok(());
        }
        let why = self.listed.borrow().clone().unwrap_or_default();
        Err(StoreError::Failed(format!("the apiserver does not list the objects: {why}")))
    }

    /// As the apiserver takes it.
    fn object(&self, wanted: &RedisCluster, namespace: &str) -> DynamicObject {
        let metadata = &wanted.metadata;
        let mut object = DynamicObject::new(&metadata.name, &self.resource).within(namespace);
        object.metadata.labels = Some(metadata.labels.clone());
        object.metadata.annotations = Some(metadata.annotations.clone());
        object.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        object.data = json!({"spec": wanted.spec});
        object
    }

    async fn create(&self, wanted: &RedisCluster) -> Result<Seen, kube::Error> {
        let namespace = self.home.watch_namespace.as_deref().unwrap_or(&self.home.namespace);
        let object = self.object(wanted, namespace);
        let (api, params) = (self.of_namespace(namespace), written());
        let made = call(|| api.create(&params, &object)).await?;
        self.taken(made)
    }

    /// Writes the desired part over an object as it was seen; what is others' of it stays.
    async fn replace(&self, wanted: &RedisCluster, seen: &Seen) -> Result<Seen, kube::Error> {
        let (api, name) = (self.of_namespace(&seen.namespace), &wanted.metadata.name);
        let mut object = call(|| api.get(name)).await?;
        object.metadata.resource_version = Some(seen.version.to_string());
        object.metadata.managed_fields = None;
        object.metadata.labels = Some(wanted.metadata.labels.clone());
        object.metadata.annotations = Some(wanted.metadata.annotations.clone());
        if !seen.is_held() && !seen.is_deleting() {
            object.metadata.finalizers.get_or_insert_default().push(FINALIZER.to_owned());
        }
        object.data["spec"] = json!(wanted.spec);
        let params = written();
        let written = call(|| api.replace(name, &params, &object)).await?;
        self.taken(written)
    }

    fn taken(&self, object: DynamicObject) -> Result<Seen, kube::Error> {
        self.see(object.clone());
        // An apiserver gives every object a name, a uid and a version.
        Seen::read(object).ok_or(kube::Error::LinesCodecMaxLineLengthExceeded)
    }
}

/// What is to be said of one that goes on otherwise than it is written.
pub(super) fn not_as_written(seen: &Seen) -> Option<Condition> {
    let refused = seen.spec.as_ref().err().or(seen.warning.as_ref())?;
    let sentence = format!("it goes on as it was: {}", refused.sentence);
    Some(refusal(seen, ConditionType::Accepted, refused.reason, &sentence))
}

fn written() -> PostParams {
    PostParams { field_manager: Some(OPERATOR.to_owned()), ..PostParams::default() }
}

/// The same is wanted.
fn is_same(seen: &Seen, wanted: &RedisCluster) -> bool {
    seen.spec.as_ref() == Ok(&wanted.spec)
        && seen.metadata.labels == wanted.metadata.labels
        && seen.metadata.annotations == wanted.metadata.annotations
        && seen.is_held()
}

fn refused(name: &str, error: kube::Error) -> StoreError {
    if is_refused(&error) {
        return StoreError::Failed(format!("the apiserver refuses {name}: {}", sentence(&error)));
    }
    failed(error)
}

#[async_trait]
impl Objects for KubernetesStore {
    async fn list(&self) -> Result<Vec<Stored>, StoreError> {
        self.all_listed().await?;
        let wanted = self.objects.names();
        let memories: BTreeMap<String, Memory> = self
            .with_memories(|all| {
                let mine = all.filter(|(name, _)| wanted.contains(*name));
                mine.map(|(name, memory)| (name.to_owned(), memory.clone())).collect()
            })
            .await?;
        let mut found = Vec::new();
        for name in wanted {
            let Some(seen) = self.objects.chosen(&name) else { continue };
            let memory = match memories.get(&name) {
                Some(memory) => memory.clone(),
                // It has none, or one that cannot be read: then it is not run, and no other stops.
                None => match self.memory(&name).await {
                    Ok(memory) => memory,
                    Err(StoreError::NotFound { .. }) => continue,
                    Err(error) => return Err(error),
                },
            };
            found.extend(stored(&seen, memory));
        }
        Ok(found)
    }

    async fn get(&self, name: &str) -> Result<Stored, StoreError> {
        self.visible(name).await
    }

    async fn apply(&self, cluster: RedisCluster) -> Result<Stored, StoreError> {
        self.all_listed().await?;
        let (name, version) = (&cluster.metadata.name, &cluster.metadata.resource_version);
        let conflict = || StoreError::Conflict { name: name.clone() };
        for _ in 0..TRIES {
            let present = self.objects.chosen(name);
            if let Some(seen) = &present {
                self.refresh(&(name.clone(), seen.namespace.clone())).await?;
            }
            let present = self.objects.chosen(name);
            let known = present.as_ref().and_then(|seen| seen.metadata.resource_version.as_ref());
            if version.is_some() && version.as_ref() != known {
                return Err(conflict());
            }
            let end = match &present {
                Some(seen) if is_same(seen, &cluster) => Ok(seen.clone()),
                Some(seen) => self.replace(&cluster, seen).await,
                None => self.create(&cluster).await,
            };
            match end {
                Ok(seen) => {
                    let uid = seen.uid().to_owned();
                    let owner = Owner { namespace: seen.namespace.clone(), uid };
                    self.begin_memory(name, &owner).await?;
                    let none = || StoreError::NotFound { name: name.clone() };
                    return stored(&seen, self.memory(name).await?).ok_or_else(none);
                }
                Err(error) if is_conflict(&error) || is_missing(&error) => {
                    if version.is_some() {
                        return Err(conflict());
                    }
                }
                Err(error) => return Err(refused(name, error)),
            }
        }
        Err(conflict())
    }

    async fn mark_deleted(&self, name: &str) -> Result<(), StoreError> {
        let stored = self.visible(name).await?;
        if stored.cluster.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let Some(seen) = self.objects.chosen(name) else { return Ok(()) };
        self.delete(&seen).await
    }

    async fn set_status(&self, name: &str, status: &Status) -> Result<(), StoreError> {
        self.visible(name).await?;
        let Some(seen) = self.objects.chosen(name) else { return Ok(()) };
        let mut status = status.clone();
        status.conditions.extend(not_as_written(&seen));
        if seen.status.as_ref() == Some(&status) {
            return Ok(());
        }
        self.in_charge().await?;
        self.patch_status(&seen, &status).await
    }

    async fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.in_charge().await?;
        self.visible(name).await?;
        let Some(seen) = self.objects.chosen(name) else { return Ok(()) };
        if !seen.is_deleting() {
            self.delete(&seen).await?;
        }
        // Ours first: whoever dies in between finds an object that is on its way out, and nothing
        // left of it.
        self.end_memory(name).await?;
        let key = (name.to_owned(), seen.namespace.clone());
        for _ in 0..TRIES {
            self.refresh(&key).await?;
            let Some(held) = self.objects.get(&key).filter(|now| now.uid() == seen.uid()) else {
                break;
            };
            if !held.is_held() {
                break;
            }
            self.release(&held).await?;
        }
        self.refresh(&key).await
    }

    fn changes(&self) -> Changes<String> {
        self.changes.subscribe()
    }
}

impl KubernetesStore {
    async fn delete(&self, seen: &Seen) -> Result<(), StoreError> {
        let same = Preconditions { uid: Some(seen.uid().to_owned()), resource_version: None };
        let params = DeleteParams { preconditions: Some(same), ..DeleteParams::background() };
        let (api, name) = (self.of_namespace(&seen.namespace), &seen.metadata.name);
        match call(|| api.delete(name, &params)).await {
            Err(error) if !is_missing(&error) => Err(failed(error)),
            // What it answers may be older than the mark.
            _ => self.refresh(&(name.clone(), seen.namespace.clone())).await,
        }
    }
}
