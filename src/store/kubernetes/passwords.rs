//! Passwords in Secrets. The operator may get the Secrets that clusters name, and nothing more: it
//! reads one when its cluster begins or changes, and again each half minute. It keeps hashes.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use tokio::sync::mpsc::UnboundedSender;

use super::super::{Event, StoreError};
use super::KubernetesStore;
use super::cache::Key;
use super::calls::{call, failed, is_refused};
use super::object::{Refused, secrets};
use super::watching::Look;
use crate::api::conditions::{EventReason, Reason};
use crate::api::password;
use crate::api::types::{SecretKeyRef, Spec, User};
use crate::model::time::UnixMs;

/// Secrets are read again after this time.
const REREAD: Duration = Duration::from_secs(30);
/// Between the Secrets of two clusters at least: with more than 300 clusters that have some, each is
/// read less often.
const APART: Duration = Duration::from_millis(100);

/// An entry of a Secret: namespace, name, key.
pub(super) type Entry = (String, String, String);

/// What was last found there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The hash of a password.
    Hash(String),
    /// None, for this reason.
    Nothing(String),
}

pub(super) fn entry(namespace: &str, at: &SecretKeyRef) -> Entry {
    (namespace.to_owned(), at.name.clone(), at.key.clone())
}

/// How a hash is remembered: neither part has a slash.
fn remembered_as(at: &SecretKeyRef) -> String {
    format!("{}/{}", at.name, at.key)
}

/// What is to be remembered with a record.
pub(super) fn found_in(spec: &Spec) -> BTreeMap<String, String> {
    let hash = |(_, at): (&str, &SecretKeyRef)| Some((remembered_as(at), at.sha256.clone()?));
    secrets(spec).filter_map(hash).collect()
}

/// The spec with the passwords that are remembered; none where one is not.
pub(super) fn with_passwords(mut spec: Spec, known: &BTreeMap<String, String>) -> Option<Spec> {
    for at in spec.redis.users.iter_mut().flat_map(User::secrets_mut) {
        at.sha256 = Some(known.get(&remembered_as(at))?.clone());
    }
    Some(spec)
}

/// The spec with the passwords of its Secrets: those that were found, else those that are remembered
/// from before, with a word about them. Without either it cannot be run.
pub(super) fn resolved<'a>(
    spec: &Spec,
    namespace: &str,
    found: impl Fn(&SecretKeyRef) -> Option<&'a Found>,
    remembered: Option<&BTreeMap<String, String>>,
) -> (Result<Spec, Refused>, Option<Refused>) {
    let mut spec = spec.clone();
    let mut warning = None;
    for user in &mut spec.redis.users {
        let name = user.name.clone();
        for at in user.secrets_mut() {
            let why = match found(at) {
                Some(Found::Hash(hash)) => {
                    at.sha256 = Some(hash.clone());
                    continue;
                }
                Some(Found::Nothing(why)) => Some(why.clone()),
                None => None,
            };
            let pending = why.is_none();
            let sentence = format!(
                "the password of user {name} is in the Secret {} of namespace {namespace}, {}",
                at.name,
                why.unwrap_or_else(|| "which was not read yet".to_owned())
            );
            let refused = Refused { reason: Reason::SecretMissing, sentence, pending };
            let known = remembered.and_then(|known| known.get(&remembered_as(at)));
            let Some(known) = known else { return (Err(refused), None) };
            at.sha256 = Some(known.clone());
            if !pending {
                warning.get_or_insert(refused);
            }
        }
    }
    (Ok(spec), warning)
}

/// Has Secrets read again until the store is dropped.
pub(super) async fn reread(store: Weak<KubernetesStore>, looks: UnboundedSender<Look>) {
    loop {
        let Some(keys) = store.upgrade().map(|store| store.objects.with_secrets()) else { return };
        let all = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        for key in keys {
            let _ = looks.send(Look::Secrets(key));
            tokio::time::sleep((REREAD / all).max(APART)).await;
        }
        if all == 0 {
            tokio::time::sleep(REREAD).await;
        }
    }
}

impl KubernetesStore {
    /// Reads the Secrets that an object names; true when there is something else in them than before.
    /// Only the operator in charge asks.
    pub(super) async fn read_secrets(&self, key: &Key) -> Result<bool, StoreError> {
        let Some(seen) = self.objects.get(key).filter(|seen| !seen.is_deleting()) else {
            return Ok(false);
        };
        let Some(spec) = self.objects.written(key).filter(|_| self.is_leading()) else {
            return Ok(false);
        };
        let mut by_secret: BTreeMap<&str, Vec<&SecretKeyRef>> = BTreeMap::new();
        for (_, at) in secrets(&spec) {
            by_secret.entry(&at.name).or_default().push(at);
        }
        if by_secret.is_empty() {
            return Ok(false);
        }
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &seen.namespace);
        let mut found = BTreeMap::new();
        for (name, entries) in by_secret {
            let secret = match call(|| api.get_opt(name)).await {
                Ok(secret) => secret.ok_or("which is missing".to_owned()),
                Err(error) if is_refused(&error) => Err(
                    "which the operator may not read: allow it to get it (`secrets.read` of the chart)"
                        .to_owned(),
                ),
                Err(error) => return Err(failed(error)),
            };
            for at in entries {
                let there = match &secret {
                    Ok(secret) => look_for(secret, &at.key),
                    Err(why) => Found::Nothing(why.clone()),
                };
                found.insert(entry(&seen.namespace, at), there);
            }
        }
        self.remember_passwords(key, &spec, &found).await?;
        Ok(self.objects.note_secrets(found))
    }

    /// Before it is used: whoever comes after this process knows it too.
    async fn remember_passwords(
        &self,
        key: &Key,
        spec: &Spec,
        found: &BTreeMap<Entry, Found>,
    ) -> Result<(), StoreError> {
        let (name, namespace) = key;
        let memory = self.memory(name).await?;
        // What is remembered is of the one of that name that is run, from its first record on.
        let Some(owner) = self.owner(name).filter(|owner| memory.owner.as_ref() == Some(owner))
        else {
            return Ok(());
        };
        if owner.namespace != *namespace {
            return Ok(());
        }
        let before = memory.passwords;
        let (mut after, mut events) = (BTreeMap::new(), Vec::new());
        for (user, at) in secrets(spec) {
            let known = before.get(&remembered_as(at));
            let now = match found.get(&entry(namespace, at)) {
                Some(Found::Hash(hash)) => Some(hash),
                _ => known,
            };
            if known.is_some() && known != now {
                let message = format!(
                    "user {user} has another password: entry {} of the Secret {} changed",
                    at.key, at.name
                );
                let reason = EventReason::PasswordChanged.to_string();
                events.push(Event::new(UnixMs::now(), name, reason, message));
            }
            after.extend(now.map(|hash| (remembered_as(at), hash.clone())));
        }
        if after == before {
            return Ok(());
        }
        self.write_events(name, &events, |memory| {
            memory.passwords.clone_from(&after);
            Ok(())
        })
        .await
    }
}

fn look_for(secret: &Secret, key: &str) -> Found {
    let Some(bytes) = secret.data.as_ref().and_then(|data| data.get(key)) else {
        return Found::Nothing(format!("which has no entry {key}"));
    };
    match password::hash(&bytes.0) {
        Some(hash) => Found::Hash(hash),
        None => Found::Nothing(format!("whose entry {key} is empty")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec() -> Spec {
        let from = |key: &str| json!({"secretKeyRef": {"name": "app", "key": key}});
        serde_json::from_value(json!({"nodes": 3, "redis": {"users": [
            {"name": "app", "passwords": [from("old"), from("new")]},
            {"name": "view", "passwordFrom": from("view")},
        ]}}))
        .unwrap()
    }

    fn hashes(spec: &Spec) -> Vec<Vec<String>> {
        spec.redis.users.iter().map(User::hashes).collect()
    }

    #[test]
    fn a_password_is_what_was_found_or_what_is_remembered_or_nothing_is_run() {
        let spec = spec();
        let found = BTreeMap::from([
            ("old", Found::Hash("1".into())),
            ("new", Found::Hash("2".into())),
            ("view", Found::Nothing("which is missing".into())),
        ]);
        let look = |at: &SecretKeyRef| found.get(at.key.as_str());
        let (refused, _) = resolved(&spec, "team", look, None);
        let refused = refused.unwrap_err();
        assert_eq!((refused.reason, refused.pending), (Reason::SecretMissing, false));
        assert_eq!(
            refused.sentence,
            "the password of user view is in the Secret app of namespace team, which is missing"
        );
        let known = BTreeMap::from([("app/view".to_owned(), "3".to_owned())]);
        let (run, warning) = resolved(&spec, "team", look, Some(&known));
        let run = run.unwrap();
        assert_eq!(hashes(&run), [vec!["1", "2"], vec!["3"]]);
        assert_eq!(warning.unwrap().sentence, refused.sentence);
        // Whoever writes it back writes where the passwords are.
        assert_eq!(serde_json::to_value(&run).unwrap(), serde_json::to_value(&spec).unwrap());
        // Nothing was read yet: it goes on with what is remembered, and nothing is told.
        let all = [("app/old", "1"), ("app/new", "2"), ("app/view", "3")];
        let all = all.map(|(at, hash)| (at.to_owned(), hash.to_owned())).into();
        let (run, warning) = resolved(&spec, "team", |_| None, Some(&all));
        assert_eq!(
            (hashes(&run.unwrap()), warning),
            (vec![vec!["1".into(), "2".into()], vec!["3".into()]], None)
        );
        assert!(resolved(&spec, "team", |_| None, None).0.unwrap_err().pending);
        assert_eq!(with_passwords(spec.clone(), &known), None);
        assert_eq!(hashes(&with_passwords(spec, &all).unwrap()).concat(), ["1", "2", "3"]);
    }

    #[test]
    fn an_entry_is_the_password_without_its_line_end() {
        let secret: Secret =
            serde_json::from_value(json!({"data": {"a": "c2VjcmV0Cg==", "empty": "Cg=="}}))
                .unwrap();
        assert_eq!(look_for(&secret, "a"), Found::Hash(password::hash(b"secret").unwrap()));
        assert_eq!(look_for(&secret, "b"), Found::Nothing("which has no entry b".into()));
        assert_eq!(look_for(&secret, "empty"), Found::Nothing("whose entry empty is empty".into()));
    }
}
