//! The objects as they were last seen, and what is to be done about each that is not run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::memory::Owner;
use super::object::Seen;
use super::objects::not_as_written;
use super::passwords::{Entry, Found, What, entry, resolved, secrets};
use crate::api::conditions::{ConditionType, Reason};
use crate::api::types::{SecretKeyRef, Spec};

/// Name, then namespace.
pub(super) type Key = (String, String);

/// The objects as they were last seen.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    seen: BTreeMap<Key, Seen>,
    /// Uids of objects that are gone: what is heard of them later is older.
    gone: BTreeSet<String>,
    /// By name: what is remembered.
    owners: BTreeMap<String, Known>,
    /// What was last found in Secrets.
    secrets: BTreeMap<Entry, Found>,
}

/// What of the memory of a name decides about its objects.
#[derive(Debug, Default)]
struct Known {
    /// Whose record it is.
    owner: Option<Owner>,
    /// There is a spec to go on with.
    has_spec: bool,
    /// Hashes of passwords that were found in Secrets.
    passwords: BTreeMap<String, String>,
}

/// What is to be done about one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Care {
    /// Nothing: it is run, or on its way out.
    Nothing,
    /// It is held before anything is bought for it.
    Hold,
    /// It is not run, and is told why.
    Tell(Reason, String),
    /// It is run otherwise than it is written, and its status does not say so yet.
    Warn,
    /// It was never run: it need not be held.
    Release,
}

impl Cache {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what was seen; true when it is wanted otherwise than before.
    pub(super) fn see(&self, seen: Seen) -> bool {
        let mut state = self.state();
        if state.gone.contains(seen.uid()) {
            return false;
        }
        let key = (seen.metadata.name.clone(), seen.namespace.clone());
        match state.seen.get(&key) {
            Some(known) if known.uid() == seen.uid() && known.version >= seen.version => false,
            known => {
                let differs = known.is_none_or(|known| known.differs(&seen));
                state.seen.insert(key, seen);
                differs
            }
        }
    }

    /// It is gone; true when it was known.
    pub(super) fn drop_object(&self, key: &Key, uid: &str) -> bool {
        let mut state = self.state();
        state.gone.insert(uid.to_owned());
        let known = state.seen.get(key).is_some_and(|known| known.uid() == uid);
        known && state.seen.remove(key).is_some()
    }

    /// Everything was listed: those that were not in the list, which may be gone.
    pub(super) fn listed(&self, listed: &BTreeSet<Key>) -> Vec<Key> {
        let mut state = self.state();
        state.gone.clear();
        state.seen.keys().filter(|key| !listed.contains(*key)).cloned().collect()
    }

    pub(super) fn note_owner(
        &self,
        name: &str,
        owner: Option<Owner>,
        has_spec: bool,
        passwords: BTreeMap<String, String>,
    ) {
        self.state().owners.insert(name.to_owned(), Known { owner, has_spec, passwords });
    }

    /// Takes in what was found in Secrets; true when it is something else than before.
    pub(super) fn note_secrets(&self, found: BTreeMap<Entry, Found>) -> bool {
        let mut state = self.state();
        let mut differs = false;
        for (entry, found) in found {
            differs |= state.secrets.insert(entry, found.clone()) != Some(found);
        }
        differs
    }

    /// With the passwords that are known.
    pub(super) fn get(&self, key: &Key) -> Option<Seen> {
        let state = self.state();
        state.seen.get(key).map(|seen| state.complete(seen))
    }

    /// The one of this name that is run, whether or not it can be now; with the passwords that are
    /// known.
    pub(super) fn chosen(&self, name: &str) -> Option<Seen> {
        let state = self.state();
        state.chosen(name).map(|seen| state.complete(seen))
    }

    /// What is wanted as it is written.
    pub(super) fn written(&self, key: &Key) -> Option<Spec> {
        self.state().seen.get(key)?.spec.clone().ok()
    }

    /// Those that have something in Secrets, as long as it may be needed: a last backup of one that is
    /// deleted needs the keys to its bucket.
    pub(super) fn with_secrets(&self) -> Vec<Key> {
        let state = self.state();
        let has = |seen: &Seen| seen.spec.as_ref().is_ok_and(|spec| !secrets(spec).is_empty());
        let all = state.seen.iter().filter(|(_, seen)| has(seen) && seen.is_of_use());
        all.map(|(key, _)| key.clone()).collect()
    }

    /// All names.
    pub(super) fn names(&self) -> BTreeSet<String> {
        self.state().seen.keys().map(|(name, _)| name.clone()).collect()
    }

    /// All of a name.
    pub(super) fn keys(&self, name: &str) -> Vec<Key> {
        self.state().of(name).map(|(key, _)| key.clone()).collect()
    }

    /// All there are.
    pub(super) fn all_keys(&self) -> Vec<Key> {
        self.state().seen.keys().cloned().collect()
    }

    /// What is to be done about one.
    pub(super) fn care(&self, key: &Key) -> Care {
        let state = self.state();
        let Some(seen) = state.seen.get(key) else { return Care::Nothing };
        let first = state.chosen(&key.0).filter(|first| first.uid() != seen.uid());
        let runs = state.owners.get(&key.0).is_some_and(|known| known.has_spec);
        if let Some(first) = first {
            return match (seen.is_deleting(), seen.is_held()) {
                (_, true) => Care::Release,
                (true, false) => Care::Nothing,
                (false, false) => Care::Tell(
                    Reason::NameTaken,
                    format!(
                        "the RedisCluster {} of namespace {} came first, and deployments and devices are named after their cluster, so this one is not run; give it another name",
                        key.0, first.namespace
                    ),
                ),
            };
        }
        let seen = state.complete(seen);
        match (&seen.spec, seen.is_deleting(), seen.is_held()) {
            (Ok(_), false, false) => Care::Hold,
            (Err(_), true, true) if !runs => Care::Release,
            (Err(refused), ..) if refused.pending => Care::Nothing,
            // One that runs goes on as it was, and its status says so.
            (Err(refused), false, _) if !runs => {
                Care::Tell(refused.reason, refused.sentence.clone())
            }
            (_, false, true) if !says_so(&seen) => Care::Warn,
            _ => Care::Nothing,
        }
    }
}

/// The status tells whether it is run as it is written. One that was never planned has none.
fn says_so(seen: &Seen) -> bool {
    let Some(status) = &seen.status else { return true };
    let wanted = not_as_written(seen);
    let is = status.condition(ConditionType::Accepted);
    match (&wanted, is) {
        (Some(wanted), Some(is)) => (wanted.reason, &wanted.message) == (is.reason, &is.message),
        (wanted, is) => wanted.is_none() && is.is_none(),
    }
}

impl State {
    /// With the passwords that are known.
    fn complete(&self, seen: &Seen) -> Seen {
        let Ok(spec) = &seen.spec else { return seen.clone() };
        let known = self.owners.get(&seen.metadata.name);
        let known =
            known.filter(|known| known.owner.as_ref().is_some_and(|owner| owner.uid == seen.uid()));
        let remembered = known.map(|known| &known.passwords);
        let name = &seen.metadata.name;
        let found = |what: &What, at: &SecretKeyRef| {
            self.secrets.get(&entry(&seen.namespace, name, what, at))
        };
        let (spec, warning) = resolved(spec, &seen.namespace, found, remembered);
        Seen { spec, warning, ..seen.clone() }
    }

    fn of(&self, name: &str) -> impl Iterator<Item = (&Key, &Seen)> {
        let from = (name.to_owned(), String::new());
        self.seen.range(from..).take_while(move |(key, _)| key.0 == name)
    }

    /// Whose record it is; else the oldest of those that can be run. One that nothing holds on its
    /// way out is none.
    fn chosen(&self, name: &str) -> Option<&Seen> {
        let owner = self.owners.get(name).and_then(|known| known.owner.as_ref());
        let all = self.of(name).map(|(_, seen)| seen);
        let all = all.filter(|seen| seen.is_held() || !seen.is_deleting());
        all.min_by_key(|seen| {
            let owns = owner.is_some_and(|owner| owner.uid == seen.uid());
            let (since, place) = (&seen.metadata.creation_timestamp, &seen.namespace);
            // Times are in seconds: of two in one second the one goes on that was begun with.
            (!owns, seen.spec.is_err(), !seen.is_held(), since, place)
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::types::{API_VERSION, KIND};
    use crate::store::kubernetes::object::FINALIZER;

    fn seen(namespace: &str, uid: &str, version: u64, more: &serde_json::Value) -> Seen {
        let mut object = json!({
            "apiVersion": API_VERSION, "kind": KIND, "spec": {"nodes": 3},
            "metadata": {
                "name": "cache", "namespace": namespace, "uid": uid, "resourceVersion": version.to_string(),
                "creationTimestamp": format!("2026-01-01T00:00:0{}Z", uid.len()),
            },
        });
        for (part, value) in more.as_object().unwrap() {
            if part == "spec" {
                object["spec"] = value.clone();
            } else {
                object["metadata"][part] = value.clone();
            }
        }
        Seen::read(serde_json::from_value(object).unwrap()).unwrap()
    }

    fn key(namespace: &str) -> Key {
        ("cache".to_owned(), namespace.to_owned())
    }

    #[test]
    fn what_comes_late_takes_nothing_back() {
        let cache = Cache::default();
        let held = json!({"finalizers": [FINALIZER]});
        assert!(cache.see(seen("a", "u", 5, &held)));
        assert!(!cache.see(seen("a", "u", 4, &json!({}))), "an older word");
        assert!(cache.get(&key("a")).unwrap().is_held());
        assert!(!cache.see(seen("a", "u", 6, &held)), "nothing that is wanted changed");
        assert!(cache.drop_object(&key("a"), "u") && !cache.drop_object(&key("a"), "u"));
        assert!(!cache.see(seen("a", "u", 7, &held)), "it is gone");
        assert!(cache.see(seen("a", "v", 1, &json!({}))), "another one of that name");
        assert_eq!(cache.listed(&BTreeSet::new()), [key("a")], "to be looked at");
    }

    #[test]
    fn of_two_with_one_name_the_older_is_run_and_the_owner_of_the_record_before_it() {
        let cache = Cache::default();
        cache.see(seen("b", "u", 1, &json!({})));
        cache.see(seen("a", "uu", 2, &json!({})));
        assert_eq!(cache.chosen("cache").unwrap().namespace, "b");
        assert_eq!(cache.care(&key("b")), Care::Hold);
        let Care::Tell(Reason::NameTaken, sentence) = cache.care(&key("a")) else { panic!() };
        assert!(sentence.contains("of namespace b came first"), "{sentence}");
        let owner = Owner { namespace: "a".into(), uid: "uu".into() };
        cache.note_owner("cache", Some(owner), true, BTreeMap::new());
        assert_eq!(cache.chosen("cache").unwrap().namespace, "a");
        cache.drop_object(&key("a"), "uu");
        assert_eq!(cache.chosen("cache").unwrap().namespace, "b");
    }

    #[test]
    fn one_that_cannot_be_run_takes_the_name_of_nobody_and_is_told_why() {
        let cache = Cache::default();
        cache.see(seen("a", "u", 1, &json!({"spec": {"nodes": 30}})));
        let Care::Tell(Reason::ManifestInvalid, sentence) = cache.care(&key("a")) else { panic!() };
        assert!(sentence.contains("30 nodes"), "{sentence}");
        cache.see(seen("b", "uu", 1, &json!({})));
        assert_eq!(cache.chosen("cache").unwrap().namespace, "b");
        // Held and never run: it is let go when it is deleted. One that runs is not.
        let leaving = json!({
            "spec": {"nodes": 30}, "finalizers": [FINALIZER], "deletionTimestamp": "2026-01-01T00:00:00Z",
        });
        cache.drop_object(&key("b"), "uu");
        cache.see(seen("a", "u", 2, &leaving));
        assert_eq!(cache.care(&key("a")), Care::Release);
        let owner = Owner { namespace: "a".into(), uid: "u".into() };
        cache.note_owner("cache", Some(owner), true, BTreeMap::new());
        assert_eq!(cache.care(&key("a")), Care::Nothing);
    }
}
