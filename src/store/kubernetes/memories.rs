//! What is remembered of each cluster, in one object for each name in the operator's own namespace,
//! changed by compare-and-set.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::core::ObjectMeta;

use super::super::{Event, Events, Notice, Notices, Records, StoreError, TellRule, Trimmed};
use super::calls::{call, failed, is_conflict, is_missing};
use super::events::{About, publish};
use super::memory::{Memory, Owner, Queued};
use super::passwords::found_in;
use super::{KubernetesStore, PART, labels};
use crate::changes::Changes;
use crate::model::record::Record;
use crate::model::time::UnixMs;

/// What these objects are called in their label.
const KIND: &str = "cluster";
/// The one entry of such an object.
const ENTRY: &str = "memory";
/// A change that meets others is tried so often.
const TRIES: u32 = 5;
/// Events of a cluster that is gone are kept so long, milliseconds: whoever deleted it can read how
/// it ended.
const EVENTS_OF_THE_GONE_MS: u64 = 7 * 24 * 3600 * 1000;

/// Those that were read or written by this process.
#[derive(Debug, Default)]
pub(super) struct Memories {
    loaded: BTreeMap<String, Loaded>,
    /// All there are, not only some.
    whole: bool,
}

#[derive(Clone, Debug, Default)]
struct Loaded {
    memory: Memory,
    /// None where there is no object yet.
    version: Option<String>,
}

impl Memories {
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    fn names(&self) -> Vec<String> {
        self.loaded.keys().cloned().collect()
    }
}

fn object_name(cluster: &str) -> String {
    format!("akash-redis.cluster.{cluster}")
}

fn read(cluster: &str, map: ConfigMap) -> Result<Loaded, StoreError> {
    let version = map.metadata.resource_version;
    let text = map.data.and_then(|mut data| data.remove(ENTRY)).unwrap_or_else(|| "{}".to_owned());
    let memory = serde_json::from_str(&text).map_err(|error| {
        tracing::error!(
            cluster,
            "what is remembered of it, in the ConfigMap {}, cannot be read ({error}), so it stands still; put it back as it was",
            object_name(cluster)
        );
        StoreError::NotFound { name: cluster.to_owned() }
    })?;
    Ok(Loaded { memory, version })
}

impl KubernetesStore {
    /// What is remembered of a cluster.
    pub(super) async fn memory(&self, cluster: &str) -> Result<Memory, StoreError> {
        let mut memories = self.memories.lock().await;
        self.load(&mut memories, cluster).await.map(|loaded| loaded.memory.clone())
    }

    /// Reads all of them, where that was not done yet. One that cannot be read is left out: its
    /// cluster stands still, and no other does.
    pub(super) async fn with_memories<T>(
        &self,
        look: impl FnOnce(&mut dyn Iterator<Item = (&str, &Memory)>) -> T,
    ) -> Result<T, StoreError> {
        let mut memories = self.memories.lock().await;
        self.load_all(&mut memories).await?;
        let all = memories.loaded.iter();
        Ok(look(&mut all.map(|(name, loaded)| (name.as_str(), &loaded.memory))))
    }

    async fn load_all(&self, memories: &mut Memories) -> Result<(), StoreError> {
        if memories.whole {
            return Ok(());
        }
        let mine = ListParams::default().labels(&format!("{PART}={KIND}"));
        let list = call(|| self.maps.list(&mine)).await.map_err(failed)?;
        for map in list {
            let name = map.metadata.name.clone().unwrap_or_default();
            let Some(cluster) = name.strip_prefix(&object_name("")) else { continue };
            if memories.loaded.contains_key(cluster) {
                continue;
            }
            if let Ok(loaded) = read(cluster, map) {
                self.note(cluster, &loaded.memory);
                memories.loaded.insert(cluster.to_owned(), loaded);
            }
        }
        memories.whole = true;
        Ok(())
    }

    async fn load<'a>(
        &self,
        memories: &'a mut Memories,
        cluster: &str,
    ) -> Result<&'a mut Loaded, StoreError> {
        if !memories.loaded.contains_key(cluster) {
            let name = object_name(cluster);
            let found = call(|| self.maps.get_opt(&name)).await.map_err(failed)?;
            let loaded = found.map(|map| read(cluster, map)).transpose()?.unwrap_or_default();
            self.note(cluster, &loaded.memory);
            memories.loaded.insert(cluster.to_owned(), loaded);
        }
        Ok(memories.loaded.entry(cluster.to_owned()).or_default())
    }

    /// Keeps what others than this room need to know of it.
    fn note(&self, cluster: &str, memory: &Memory) {
        let last = memory.notices.iter().map(|notice| notice.number).max().unwrap_or(0);
        self.numbers.fetch_max(last, Ordering::AcqRel);
        let passwords = memory.passwords.clone();
        self.objects.note_owner(cluster, memory.owner.clone(), memory.spec.is_some(), passwords);
    }

    /// Changes what is remembered of a cluster, for as long as others change it too. What `change`
    /// refuses changes nothing.
    async fn remember<T>(
        &self,
        cluster: &str,
        mut change: impl FnMut(&mut Memory) -> Result<T, StoreError> + Send,
    ) -> Result<T, StoreError> {
        self.in_charge().await?;
        let mut memories = self.memories.lock().await;
        for _ in 0..TRIES {
            let loaded = self.load(&mut memories, cluster).await?.clone();
            let mut memory = loaded.memory.clone();
            if let Some(owner) = self.owner(cluster) {
                memory.adopt(&owner);
            }
            let value = change(&mut memory)?;
            if memory == loaded.memory {
                return Ok(value);
            }
            match self.write(cluster, &mut memory, loaded.version.clone()).await? {
                Some(version) => {
                    self.note(cluster, &memory);
                    let new = Loaded { memory, version: Some(version) };
                    memories.loaded.insert(cluster.to_owned(), new);
                    return Ok(value);
                }
                // What is there now is to be read before anything else is written.
                None => drop(memories.loaded.remove(cluster)),
            }
        }
        Err(StoreError::Conflict { name: cluster.to_owned() })
    }

    /// The version that it has then; none where somebody else changed it.
    async fn write(
        &self,
        cluster: &str,
        memory: &mut Memory,
        version: Option<String>,
    ) -> Result<Option<String>, StoreError> {
        let (name, text) = (object_name(cluster), memory.text()?);
        let metadata = ObjectMeta {
            name: Some(name.clone()),
            labels: Some(labels(KIND)),
            resource_version: version.clone(),
            ..ObjectMeta::default()
        };
        let data = Some(BTreeMap::from([(ENTRY.to_owned(), text)]));
        let (map, params) =
            (ConfigMap { metadata, data, ..ConfigMap::default() }, PostParams::default());
        let written = if version.is_some() {
            call(|| self.maps.replace(&name, &params, &map)).await
        } else {
            call(|| self.maps.create(&params, &map)).await
        };
        match written {
            Ok(map) => Ok(map.metadata.resource_version),
            Err(error) if is_conflict(&error) || is_missing(&error) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Its object is gone. Events and notices that wait stay for a while.
    pub(super) async fn end_memory(&self, cluster: &str) -> Result<(), StoreError> {
        self.remember(cluster, |memory| {
            memory.end();
            Ok(())
        })
        .await?;
        self.drop_the_old().await
    }

    /// Events and notices of a name that is used anew are an earlier story.
    pub(super) async fn begin_memory(
        &self,
        cluster: &str,
        owner: &Owner,
    ) -> Result<(), StoreError> {
        let known = self.memory(cluster).await?;
        if known.is_anothers(owner) && !(known.events.is_empty() && known.told.is_empty()) {
            // Whoever is not in charge leaves that to who is.
            let done = self.remember(cluster, |memory| {
                memory.adopt(owner);
                Ok(())
            });
            if let Err(error) = done.await
                && !matches!(error, StoreError::Superseded { .. })
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Removes the objects of clusters that are gone for long.
    async fn drop_the_old(&self) -> Result<(), StoreError> {
        let oldest = UnixMs(UnixMs::now().0.saturating_sub(EVENTS_OF_THE_GONE_MS));
        let mut memories = self.memories.lock().await;
        self.load_all(&mut memories).await?;
        for cluster in memories.names() {
            let Some(Loaded { memory, version: Some(version) }) = memories.loaded.get(&cluster)
            else {
                continue;
            };
            if !memory.is_over(oldest) || self.owner(&cluster).is_some() {
                continue;
            }
            let same = Preconditions { resource_version: Some(version.clone()), uid: None };
            let params = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
            let name = object_name(&cluster);
            match call(|| self.maps.delete(&name, &params)).await {
                Err(error) if !is_conflict(&error) && !is_missing(&error) => {
                    return Err(failed(error));
                }
                _ => drop(memories.loaded.remove(&cluster)),
            }
        }
        Ok(())
    }

    /// Writes events with their notices, and what `job` changes: all or nothing.
    pub(super) async fn write_events<T: Send>(
        &self,
        cluster: &str,
        events: &[Event],
        mut job: impl FnMut(&mut Memory) -> Result<T, StoreError> + Send,
    ) -> Result<T, StoreError> {
        let rule = self.rule();
        let rule = |event: &Event| rule.as_ref().map(|rule| rule(event)).unwrap_or_default();
        let (value, written) = self
            .remember(cluster, |memory| {
                let value = job(memory)?;
                Ok((value, memory.add_events(events, rule, || self.next_number())))
            })
            .await?;
        for target in written.targets {
            self.queued.notify(target);
        }
        if let Some(Owner { namespace, uid }) = self.owner(cluster)
            && !written.events.is_empty()
        {
            let about = About { name: cluster.to_owned(), namespace, uid };
            let client = self.client.clone();
            self.tasks.spawn(async move { publish(&client, &about, &written.events).await });
        }
        Ok(value)
    }

    /// The place of a notice in all queues: goes up, also from one operator to the next.
    fn next_number(&self) -> u64 {
        let now = UnixMs::now().0 << 10;
        let next = |last: u64| Some((last + 1).max(now));
        let last = self.numbers.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        last.map_or(now, |last| (last + 1).max(now))
    }

    /// Drops notices of every cluster that `goes` says; those that went.
    async fn drop_notices(
        &self,
        goes: impl Fn(&Queued) -> bool + Send + Sync,
    ) -> Result<Vec<Notice>, StoreError> {
        self.in_charge().await?;
        let mut gone = Vec::new();
        let concerned: Vec<String> = self
            .with_memories(|all| {
                let concerned = all.filter(|(_, memory)| memory.notices.iter().any(&goes));
                concerned.map(|(cluster, _)| cluster.to_owned()).collect()
            })
            .await?;
        for cluster in concerned {
            let dropped = self.remember(&cluster, |memory| {
                let (out, kept): (Vec<_>, Vec<_>) = memory.notices.drain(..).partition(|n| goes(n));
                memory.notices = kept;
                Ok(out)
            });
            gone.extend(dropped.await?.iter().map(Notice::from));
        }
        gone.sort_by_key(|notice| notice.number);
        Ok(gone)
    }
}

/// Events by their cluster, in their order.
fn by_cluster(events: &[Event]) -> BTreeMap<&str, Vec<Event>> {
    let mut by_cluster: BTreeMap<&str, Vec<Event>> = BTreeMap::new();
    for event in events {
        by_cluster.entry(&event.cluster).or_default().push(event.clone());
    }
    by_cluster
}

#[async_trait]
impl Records for KubernetesStore {
    async fn set_record(
        &self,
        name: &str,
        expected: u64,
        record: &Record,
    ) -> Result<u64, StoreError> {
        self.set_record_with_events(name, expected, record, &[]).await
    }
}

#[async_trait]
impl Events for KubernetesStore {
    async fn add_events(&self, events: &[Event]) -> Result<(), StoreError> {
        for (cluster, events) in by_cluster(events) {
            self.write_events(cluster, &events, |_| Ok(())).await?;
        }
        Ok(())
    }

    async fn events(&self, cluster: &str) -> Result<Vec<Event>, StoreError> {
        let memory = self.memory(cluster).await?;
        if self.owner(cluster).is_some_and(|owner| memory.is_anothers(&owner)) {
            return Ok(Vec::new());
        }
        Ok(memory.events)
    }
}

#[async_trait]
impl Notices for KubernetesStore {
    fn tell(&self, rule: TellRule) {
        self.set_rule(rule);
    }

    async fn set_record_with_events(
        &self,
        name: &str,
        expected: u64,
        record: &Record,
        events: &[Event],
    ) -> Result<u64, StoreError> {
        let spec = self.visible(name).await?.cluster.spec;
        self.write_events(name, events, |memory| {
            let version = memory.set_record(name, expected, record)?;
            memory.passwords = found_in(&spec);
            memory.spec = Some(spec.clone());
            Ok(version)
        })
        .await
    }

    async fn set_told(
        &self,
        cluster: &str,
        told: &BTreeSet<String>,
        events: &[Event],
    ) -> Result<(), StoreError> {
        self.write_events(cluster, events, |memory| {
            memory.told.clone_from(told);
            Ok(())
        })
        .await
    }

    async fn told(&self, cluster: &str) -> Result<BTreeSet<String>, StoreError> {
        Ok(self.memory(cluster).await?.told)
    }

    async fn next_notice(&self, target: &str) -> Result<Option<Notice>, StoreError> {
        let first = self
            .with_memories(|all| {
                let waiting = all.flat_map(|(_, memory)| &memory.notices);
                let waiting = waiting.filter(|notice| notice.target == target);
                waiting.min_by_key(|notice| notice.number).map(Notice::from)
            })
            .await?;
        if first.is_some() {
            self.in_charge().await?;
        }
        Ok(first)
    }

    async fn drop_notice(&self, number: u64) -> Result<(), StoreError> {
        self.drop_notices(|notice| notice.number == number).await.map(drop)
    }

    async fn trim_notices(
        &self,
        target: &str,
        oldest: UnixMs,
        most: usize,
    ) -> Result<Trimmed, StoreError> {
        let mut numbers: Vec<u64> = self
            .with_memories(|all| {
                let waiting = all.flat_map(|(_, memory)| &memory.notices);
                let waiting = waiting.filter(|notice| notice.target == target);
                waiting.map(|notice| notice.number).collect()
            })
            .await?;
        numbers.sort_unstable();
        let surplus = numbers.len().saturating_sub(most);
        let above = surplus.checked_sub(1).map(|at| numbers[at]);
        let goes = |notice: &Queued| {
            notice.target == target
                && (notice.event.at < oldest || above.is_some_and(|last| notice.number <= last))
        };
        let dropped = self.drop_notices(goes).await?;
        let left = u64::try_from(numbers.len().saturating_sub(dropped.len())).unwrap_or(u64::MAX);
        Ok(Trimmed { dropped, left })
    }

    async fn keep_targets(&self, targets: &[String]) -> Result<u64, StoreError> {
        let gone = self.drop_notices(|notice| !targets.contains(&notice.target)).await?;
        Ok(u64::try_from(gone.len()).unwrap_or(u64::MAX))
    }

    fn notices(&self) -> Changes<String> {
        self.queued.subscribe()
    }
}
