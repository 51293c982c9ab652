//! Entries by key in numbered objects of bounded size, for what grows with the installation: books,
//! experience with providers, transactions that may still land.
//!
//! Each change writes the objects that it touches, by compare-and-set; an entry never moves.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ListParams, PostParams};
use kube::core::ObjectMeta;
use tokio::sync::Mutex;

use super::super::StoreError;
use super::calls::{call, failed, is_conflict, is_missing};
use super::{PART, labels};

/// No new entry goes into an object that holds so much, bytes. It is written whole with each
/// change of an entry, and may hold 1 MiB.
const FULL: usize = 128 << 10;
/// A change that meets others is tried so often.
const TRIES: u32 = 5;

/// A change of one entry: another text, or none.
pub(super) type Entry = (String, Option<String>);

/// The objects of one kind.
#[derive(Debug)]
pub(super) struct Shelf {
    api: Api<ConfigMap>,
    kind: &'static str,
    /// As they were last read or written.
    parts: Mutex<Option<Vec<Part>>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Part {
    number: usize,
    /// None while it is not written yet.
    version: Option<String>,
    entries: BTreeMap<String, String>,
}

impl Part {
    fn bytes(&self) -> usize {
        self.entries.iter().map(|(key, text)| key.len() + text.len()).sum()
    }
}

impl Shelf {
    pub(super) fn new(api: Api<ConfigMap>, kind: &'static str) -> Self {
        Self { api, kind, parts: Mutex::default() }
    }

    /// All entries.
    pub(super) async fn all(&self) -> Result<BTreeMap<String, String>, StoreError> {
        let mut parts = self.parts.lock().await;
        let parts = self.read(&mut parts).await?;
        Ok(parts.iter().flat_map(|part| part.entries.clone()).collect())
    }

    /// Carries changes out.
    pub(super) async fn change(&self, changes: &[Entry]) -> Result<(), StoreError> {
        let mut cached = self.parts.lock().await;
        for _ in 0..TRIES {
            let parts = self.read(&mut cached).await?;
            let differing = place(parts, changes);
            match self.write(parts, &differing).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    // What is there now is to be read before anything else is written.
                    *cached = None;
                    if !is_conflict(&error) && !is_missing(&error) {
                        return Err(failed(error));
                    }
                }
            }
        }
        Err(StoreError::Conflict { name: self.kind.to_owned() })
    }

    /// What was read before is read again when it is needed.
    pub(super) async fn forget(&self) {
        *self.parts.lock().await = None;
    }

    async fn read<'a>(
        &self,
        cached: &'a mut Option<Vec<Part>>,
    ) -> Result<&'a mut Vec<Part>, StoreError> {
        if cached.is_none() {
            let mine = ListParams::default().labels(&format!("{PART}={}", self.kind));
            let list = call(|| self.api.list(&mine)).await.map_err(failed)?;
            let mut parts: Vec<Part> = list.into_iter().filter_map(part).collect();
            parts.sort_by_key(|part| part.number);
            *cached = Some(parts);
        }
        Ok(cached.get_or_insert_default())
    }

    async fn write(
        &self,
        parts: &mut [Part],
        differing: &BTreeSet<usize>,
    ) -> Result<(), kube::Error> {
        for part in parts.iter_mut().filter(|part| differing.contains(&part.number)) {
            let name = format!("akash-redis.{}.{}", self.kind, part.number);
            let metadata = ObjectMeta {
                name: Some(name.clone()),
                labels: Some(labels(self.kind)),
                resource_version: part.version.clone(),
                ..ObjectMeta::default()
            };
            let map =
                ConfigMap { metadata, data: Some(part.entries.clone()), ..ConfigMap::default() };
            let params = PostParams::default();
            let written = if part.version.is_some() {
                call(|| self.api.replace(&name, &params, &map)).await?
            } else {
                call(|| self.api.create(&params, &map)).await?
            };
            part.version = written.metadata.resource_version;
        }
        Ok(())
    }
}

fn part(map: ConfigMap) -> Option<Part> {
    let number = map.metadata.name?.rsplit('.').next()?.parse().ok()?;
    let entries = map.data.unwrap_or_default();
    Some(Part { number, version: map.metadata.resource_version, entries })
}

/// Puts changes where they belong: an entry that is there stays in its part, a new one goes into the
/// last with room. The parts that differ from what was written.
fn place(parts: &mut Vec<Part>, changes: &[Entry]) -> BTreeSet<usize> {
    let mut differing = BTreeSet::new();
    for (key, text) in changes {
        let known = parts.iter().position(|part| part.entries.contains_key(key));
        match (known, text) {
            (Some(at), Some(text)) => {
                if parts[at].entries.insert(key.clone(), text.clone()).as_ref() != Some(text) {
                    differing.insert(parts[at].number);
                }
            }
            (Some(at), None) => {
                parts[at].entries.remove(key);
                differing.insert(parts[at].number);
            }
            (None, None) => {}
            (None, Some(text)) => {
                if parts.last().is_none_or(|last| last.bytes() + text.len() > FULL) {
                    let number = parts.last().map_or(0, |last| last.number + 1);
                    parts.push(Part { number, ..Part::default() });
                }
                if let Some(last) = parts.last_mut() {
                    last.entries.insert(key.clone(), text.clone());
                    differing.insert(last.number);
                }
            }
        }
    }
    differing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, bytes: usize) -> Entry {
        (key.to_owned(), Some("x".repeat(bytes)))
    }

    #[test]
    fn an_entry_stays_where_it_is_and_a_full_object_gets_no_more() {
        let mut parts = Vec::new();
        assert_eq!(place(&mut parts, &[put("a", 100), put("b", FULL - 200)]), [0].into());
        assert_eq!(place(&mut parts, &[put("c", 200)]), [1].into(), "no room for it");
        assert_eq!(place(&mut parts, &[put("a", 300)]), [0].into(), "it grows where it is");
        assert_eq!(place(&mut parts, &[put("a", 300)]), [].into(), "nothing changed");
        assert_eq!(place(&mut parts, &[("a".into(), None), ("z".into(), None)]), [0].into());
        assert_eq!(place(&mut parts, &[put("d", 10)]), [1].into());
        let keys: Vec<_> = parts
            .iter()
            .map(|p| p.entries.keys().map(String::as_str).collect::<Vec<_>>())
            .collect();
        assert_eq!(keys, [vec!["b"], vec!["c", "d"]]);
    }
}
