//! Passwords and keys in Secrets. The operator may get the Secrets that clusters name, and nothing
//! more: it reads one when its cluster begins or changes, and again each half minute. It keeps hashes,
//! and encrypted what it has to use itself.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Weak;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use secrecy::SecretString;
use tokio::sync::mpsc::UnboundedSender;

use super::super::{Event, StoreError};
use super::KubernetesStore;
use super::cache::Key;
use super::calls::{call, failed, is_refused};
use super::object::{Refused, Seen};
use super::watching::Look;
use crate::api::conditions::Reason;
use crate::api::events::EventReason;
use crate::api::password;
use crate::api::types::{PasswordFrom, SecretKeyRef, Spec};
use crate::model::backup::StorageKeys;
use crate::model::time::UnixMs;

/// Secrets are read again after this time.
const REREAD: Duration = Duration::from_secs(30);
/// Between the Secrets of two clusters at least: with more than 300 clusters that have some, each is
/// read less often.
const APART: Duration = Duration::from_millis(100);

/// An entry of a Secret: namespace, name, key; and the cluster that what is there is encrypted for,
/// none where it is a hash.
pub(super) type Entry = (String, String, String, Option<String>);

/// What was last found there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The hash of a password, or what the operator has to use, encrypted.
    Value(String),
    /// None, for this reason.
    Nothing(String),
}

/// What is in a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A password of this user.
    User(String),
    /// The keys to the bucket.
    Keys,
    /// The password of the Redis that is imported from.
    Source,
}

impl What {
    /// The operator has to use it, so that a hash is not enough.
    fn is_sealed(&self) -> bool {
        !matches!(self, Self::User(_))
    }

    fn value<'a>(&self, at: &'a SecretKeyRef) -> Option<&'a String> {
        if self.is_sealed() { at.sealed.as_ref() } else { at.sha256.as_ref() }
    }

    fn put(&self, at: &mut SecretKeyRef, value: &str) {
        let place = if self.is_sealed() { &mut at.sealed } else { &mut at.sha256 };
        *place = Some(value.to_owned());
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "the password of user {name} is"),
            Self::Keys => f.write_str("the keys of spec.backup.credentialsFrom are"),
            Self::Source => f.write_str("the password of spec.bootstrap.fromRedis is"),
        }
    }
}

/// What a spec has in Secrets.
pub(super) fn secrets(spec: &Spec) -> Vec<(What, &SecretKeyRef)> {
    let users = spec.redis.users.iter();
    let users = users.flat_map(|user| user.secrets().map(|at| (What::User(user.name.clone()), at)));
    let keys = spec.backup.as_ref().and_then(|backup| backup.credentials_from.as_ref());
    let source = spec.bootstrap.as_ref().and_then(|b| b.from_redis.as_ref());
    let password = source.and_then(|from| from.password_from.as_ref());
    let keys = keys.and_then(PasswordFrom::secret).map(|at| (What::Keys, at));
    let password = password.and_then(PasswordFrom::secret).map(|at| (What::Source, at));
    users.chain(keys).chain(password).collect()
}

/// The same, to be completed.
fn secrets_mut(spec: &mut Spec) -> Vec<(What, &mut SecretKeyRef)> {
    let mut all = Vec::new();
    for user in &mut spec.redis.users {
        let name = user.name.clone();
        all.extend(user.secrets_mut().map(|at| (What::User(name.clone()), at)));
    }
    let keys = spec.backup.as_mut().and_then(|backup| backup.credentials_from.as_mut());
    all.extend(keys.and_then(PasswordFrom::secret_mut).map(|at| (What::Keys, at)));
    let source = spec.bootstrap.as_mut().and_then(|b| b.from_redis.as_mut());
    let password = source.and_then(|from| from.password_from.as_mut());
    all.extend(password.and_then(PasswordFrom::secret_mut).map(|at| (What::Source, at)));
    all
}

pub(super) fn entry(namespace: &str, cluster: &str, what: &What, at: &SecretKeyRef) -> Entry {
    let sealed_for = what.is_sealed().then(|| cluster.to_owned());
    (namespace.to_owned(), at.name.clone(), at.key.clone(), sealed_for)
}

/// How it is remembered: no part has a slash.
fn remembered_as(what: &What, at: &SecretKeyRef) -> String {
    let sealed = if what.is_sealed() { "/sealed" } else { "" };
    format!("{}/{}{sealed}", at.name, at.key)
}

/// What is to be remembered with a record.
pub(super) fn found_in(spec: &Spec) -> BTreeMap<String, String> {
    let all = secrets(spec).into_iter();
    all.filter_map(|(what, at)| Some((remembered_as(&what, at), what.value(at)?.clone()))).collect()
}

/// The spec with the passwords that are remembered; none where one is not.
pub(super) fn with_passwords(mut spec: Spec, known: &BTreeMap<String, String>) -> Option<Spec> {
    for (what, at) in secrets_mut(&mut spec) {
        let value = known.get(&remembered_as(&what, at))?;
        what.put(at, value);
    }
    Some(spec)
}

/// The spec with the passwords of its Secrets: those that were found, else those that are remembered
/// from before, with a word about them. Without either it cannot be run.
pub(super) fn resolved<'a>(
    spec: &Spec,
    namespace: &str,
    found: impl Fn(&What, &SecretKeyRef) -> Option<&'a Found>,
    remembered: Option<&BTreeMap<String, String>>,
) -> (Result<Spec, Refused>, Option<Refused>) {
    let mut spec = spec.clone();
    let mut warning = None;
    for (what, at) in secrets_mut(&mut spec) {
        let why = match found(&what, at) {
            Some(Found::Value(value)) => {
                what.put(at, value);
                continue;
            }
            Some(Found::Nothing(why)) => Some(why.clone()),
            None => None,
        };
        let pending = why.is_none();
        let sentence = format!(
            "{what} in the Secret {} of namespace {namespace}, {}",
            at.name,
            why.unwrap_or_else(|| "which was not read yet".to_owned())
        );
        let refused = Refused { reason: Reason::SecretMissing, sentence, pending };
        let known = remembered.and_then(|known| known.get(&remembered_as(&what, at)));
        let Some(known) = known else { return (Err(refused), None) };
        what.put(at, known);
        if !pending {
            warning.get_or_insert(refused);
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
        let Some(seen) = self.objects.get(key).filter(Seen::is_of_use) else {
            return Ok(false);
        };
        let Some(spec) = self.objects.written(key).filter(|_| self.is_leading()) else {
            return Ok(false);
        };
        let mut by_secret: BTreeMap<&str, Vec<(What, &SecretKeyRef)>> = BTreeMap::new();
        for (what, at) in secrets(&spec) {
            by_secret.entry(&at.name).or_default().push((what, at));
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
            for (what, at) in entries {
                let seal = |text: &SecretString| Some(self.root.get()?.seal(&key.0, text));
                let there = match &secret {
                    Ok(secret) => look_for(secret, &at.key, &what, seal),
                    Err(why) => Found::Nothing(why.clone()),
                };
                found.insert(entry(&seen.namespace, &key.0, &what, at), there);
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
        for (what, at) in secrets(spec) {
            let known = before.get(&remembered_as(&what, at));
            let now = match found.get(&entry(namespace, name, &what, at)) {
                Some(Found::Value(value)) => Some(value),
                _ => known,
            };
            if known.is_some() && known != now {
                let message = format!(
                    "{what} other than before: entry {} of the Secret {} changed",
                    at.key, at.name
                );
                let reason = EventReason::PasswordChanged.to_string();
                events.push(Event::new(UnixMs::now(), name, reason, message));
            }
            after.extend(now.map(|value| (remembered_as(&what, at), value.clone())));
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

fn look_for(
    secret: &Secret,
    key: &str,
    what: &What,
    seal: impl FnOnce(&SecretString) -> Option<String>,
) -> Found {
    let Some(bytes) = secret.data.as_ref().and_then(|data| data.get(key)) else {
        return Found::Nothing(format!("which has no entry {key}"));
    };
    if !what.is_sealed() {
        return match password::hash(&bytes.0) {
            Some(hash) => Found::Value(hash),
            None => Found::Nothing(format!("whose entry {key} is empty")),
        };
    }
    let text = String::from_utf8(bytes.0.clone()).unwrap_or_default();
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() || text.contains(['\r', '\n']) {
        return Found::Nothing(format!("whose entry {key} is no text of one line"));
    }
    if *what == What::Keys && StorageKeys::read(text).is_none() {
        return Found::Nothing(format!("whose entry {key} is no ACCESS_KEY_ID:SECRET_ACCESS_KEY"));
    }
    match seal(&SecretString::from(text)) {
        Some(sealed) => Found::Value(sealed),
        None => Found::Nothing("which is read once the operator has its root secret".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;
    use serde_json::json;

    use super::*;
    use crate::api::types::User;

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
            ("old", Found::Value("1".into())),
            ("new", Found::Value("2".into())),
            ("view", Found::Nothing("which is missing".into())),
        ]);
        let look = |_: &What, at: &SecretKeyRef| found.get(at.key.as_str());
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
        let (run, warning) = resolved(&spec, "team", |_, _| None, Some(&all));
        assert_eq!(
            (hashes(&run.unwrap()), warning),
            (vec![vec!["1".into(), "2".into()], vec!["3".into()]], None)
        );
        assert!(resolved(&spec, "team", |_, _| None, None).0.unwrap_err().pending);
        assert_eq!(with_passwords(spec.clone(), &known), None);
        assert_eq!(hashes(&with_passwords(spec, &all).unwrap()).concat(), ["1", "2", "3"]);
    }

    #[test]
    fn an_entry_is_the_password_without_its_line_end() {
        let secret: Secret =
            serde_json::from_value(json!({"data": {"a": "c2VjcmV0Cg==", "empty": "Cg=="}}))
                .unwrap();
        let look = |key: &str| look_for(&secret, key, &What::User("app".into()), |_| None);
        assert_eq!(look("a"), Found::Value(password::hash(b"secret").unwrap()));
        assert_eq!(look("b"), Found::Nothing("which has no entry b".into()));
        assert_eq!(look("empty"), Found::Nothing("whose entry empty is empty".into()));
        let sealed = |key: &str, what: What| {
            look_for(&secret, key, &what, |text| Some(format!("sealed:{}", text.expose_secret())))
        };
        assert_eq!(sealed("a", What::Source), Found::Value("sealed:secret".into()));
        let Found::Nothing(why) = sealed("a", What::Keys) else { panic!() };
        assert!(why.contains("ACCESS_KEY_ID:SECRET_ACCESS_KEY"), "{why}");
        assert!(matches!(sealed("empty", What::Source), Found::Nothing(_)));
    }
}
