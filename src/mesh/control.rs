//! Client of the tailnet's control API (Tailscale's API v2, which headscale speaks too).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::{Method, StatusCode};
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::answers::{DeviceEntry, DeviceList, KeyEntry, KeyList};
use super::call::{Api, Call, MAX_LIST};
use super::policy::Policy;
use super::refusal::{Answer, Needs, says_no_such_id};
use super::{MeshControl, MeshError, MintedKey};
use crate::config;
use crate::model::ids::{IncarnationName, InstallationId};
use crate::model::mesh::{AuthKey, MeshView};

/// Clearing up after an unanswered mint must not hold up the operator: what it misses is seen as an
/// orphan later.
const CLEAR_UP_FOR: Duration = Duration::from_secs(15);
/// What the API accepts.
const MAX_DESCRIPTION: usize = 50;
/// Keys asked for one by one at the same time.
const KEYS_AT_ONCE: usize = 8;
/// Keys asked for one by one in one reading, and for how long: the devices must not wait for the
/// keys of others. The next reading goes on.
const KEYS_A_READING: usize = 400;
const KEYS_FOR: Duration = Duration::from_secs(5);
/// A reading that takes longer is none: what it began with is too old by then.
const READ_FOR: Duration = Duration::from_secs(45);

/// Where the control API is and who we are there.
#[derive(Debug)]
pub struct MeshSettings {
    /// Base URL, e.g. `https://api.tailscale.com`.
    pub api: String,
    /// PEM of an authority that it is trusted by beside the public web's; may be empty.
    pub ca: String,
    /// Tailnet; `-` is the credential's own.
    pub tailnet: String,
    /// Id of the OAuth client that mints keys and reads devices.
    pub oauth_client_id: String,
    /// Secret of that OAuth client.
    pub oauth_secret: SecretString,
}

impl From<&config::Mesh> for MeshSettings {
    fn from(mesh: &config::Mesh) -> Self {
        Self {
            api: mesh.api.clone(),
            ca: mesh.ca.clone(),
            tailnet: mesh.tailnet.clone(),
            oauth_client_id: mesh.oauth_client_id.clone(),
            oauth_secret: mesh.oauth_secret.clone(),
        }
    }
}

/// The control API, spoken to as one OAuth client.
///
/// What may be done twice (reads, deletions, revocations, tags) is tried again for 10 s when the
/// API is away. A mint is never repeated unless the API said that it did nothing (429): a key that
/// may have been minted is looked for and revoked instead.
pub struct ControlClient {
    api: Api,
    /// Descriptions of keys whose list entries are bare ids; they never change.
    described: Mutex<HashMap<String, String>>,
}

impl fmt::Debug for ControlClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlClient").field("api", &self.api.url()).finish_non_exhaustive()
    }
}

impl ControlClient {
    /// A client for `settings.api`; nothing is sent yet.
    pub fn new(settings: MeshSettings) -> Result<Self, MeshError> {
        Ok(Self { api: Api::new(settings)?, described: Mutex::default() })
    }

    /// The tailnet's policy in force.
    ///
    /// # Errors
    /// [`MeshError::Forbidden`] when the OAuth client may not read it: nothing else needs that
    /// scope.
    pub async fn policy(&self) -> Result<Policy, MeshError> {
        const WHAT: &str = "the policy";
        let path = ["tailnet", self.api.tailnet(), "acl"];
        let call = Call { needs: Needs::Policy, ..Call::read(WHAT, &path) };
        let answer = self.api.call(call).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Err(self.no_tailnet(WHAT));
        }
        Policy::parse(&String::from_utf8_lossy(&answer.body))
            .map_err(|error| self.api.away(error.to_string()))
    }

    /// A list; a tailnet that is not there is an error, not an empty list.
    async fn list<T: DeserializeOwned>(&self, what: &str, kind: &str) -> Result<T, MeshError> {
        let path = ["tailnet", self.api.tailnet(), kind];
        let answer = self.api.call(Call { longest: MAX_LIST, ..Call::read(what, &path) }).await?;
        if answer.status == StatusCode::NOT_FOUND {
            Err(self.no_tailnet(what))
        } else {
            self.api.decode(&answer.body)
        }
    }

    fn no_tailnet(&self, what: &str) -> MeshError {
        let message = format!("tailnet {} not found; check `mesh.tailnet`", self.api.tailnet());
        MeshError::Refused { what: what.to_owned(), status: 404, message }
    }

    /// Deletes; gone already is as good.
    async fn remove(&self, what: &str, path: &[&str]) -> Result<(), MeshError> {
        match self.api.call(Call { method: &Method::DELETE, ..Call::read(what, path) }).await {
            Ok(_) => Ok(()),
            Err(MeshError::Refused { status: 400, message, .. }) if says_no_such_id(&message) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Every key for whose description `ours` holds, and whether these are all.
    ///
    /// A listed key without a description has none, and is nobody's of ours. Only where the list is
    /// of bare ids is one asked for by itself, each once, and no more of them in one reading than
    /// it has time for.
    async fn keys(
        &self,
        ours: impl Fn(&str) -> bool + Sync,
    ) -> Result<(Vec<AuthKey>, bool), MeshError> {
        let list: KeyList = self.list("the list of auth keys", "keys").await?;
        let listed: Vec<KeyEntry> = list.keys.into_iter().filter(KeyEntry::is_named).collect();
        let (bare, told): (Vec<_>, Vec<_>) = listed.into_iter().partition(KeyEntry::is_bare);
        let of_ours = |key: &AuthKey| ours(&key.description);
        let mut keys: Vec<AuthKey> = told
            .into_iter()
            .filter(KeyEntry::is_auth)
            .map(KeyEntry::into_key)
            .filter(of_ours)
            .collect();
        let wanted = self.to_ask_for(&bare, &ours);
        let all = wanted.len() <= KEYS_A_READING;
        let begun = Instant::now();
        let asked =
            stream::iter(wanted.into_iter().take(KEYS_A_READING)).map(|id| self.whole_key(id));
        let mut asked = asked.buffer_unordered(KEYS_AT_ONCE);
        let mut in_time = true;
        while let Some(key) = asked.try_next().await? {
            keys.extend(key.filter(of_ours));
            if begun.elapsed() >= KEYS_FOR {
                in_time = false;
                break;
            }
        }
        keys.sort_by(|a, b| a.id.cmp(&b.id));
        Ok((keys, all && in_time))
    }

    /// Bare ids that may be keys of ours: those that are known to be, then those that nothing is
    /// known of.
    fn to_ask_for(&self, bare: &[KeyEntry], ours: impl Fn(&str) -> bool) -> Vec<String> {
        let present: HashSet<&str> = bare.iter().map(|key| key.id.as_str()).collect();
        let mut described = self.described.lock().unwrap_or_else(PoisonError::into_inner);
        described.retain(|id, _| present.contains(id.as_str()));
        let (mut known, mut new) = (Vec::new(), Vec::new());
        for key in bare {
            match described.get(&key.id) {
                Some(description) if ours(description) => known.push(key.id.clone()),
                Some(_) => {}
                None => new.push(key.id.clone()),
            }
        }
        known.append(&mut new);
        known
    }

    /// Reads a key whose list entry was nothing but an id; `None` when it is gone by now, or is no
    /// auth key.
    async fn whole_key(&self, id: String) -> Result<Option<AuthKey>, MeshError> {
        let (what, path) = (format!("auth key {id}"), ["tailnet", self.api.tailnet(), "keys", &id]);
        let answer = self.api.call(Call::read(&what, &path)).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let key: KeyEntry = self.api.decode(&answer.body)?;
        let is_auth = key.is_auth();
        let key = KeyEntry { id, ..key }.into_key();
        // What is no auth key is remembered without a description, so that it is nobody's.
        let description = if is_auth { key.description.clone() } else { String::new() };
        self.described
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.id.clone(), description);
        Ok(Some(key).filter(|_| is_auth))
    }

    fn minted(&self, answer: &Answer) -> Result<MintedKey, MeshError> {
        let key: KeyEntry = self.api.decode(&answer.body)?;
        key.into_minted().ok_or_else(|| self.api.away("a key without its secret".to_owned()))
    }

    /// After a mint without an answer there may be a key whose secret nobody has: it is of no use
    /// and goes.
    async fn revoke_orphans(&self, description: &str) {
        let clear = async {
            for key in self.keys(|text| text == description).await?.0 {
                self.revoke(&key.id).await?;
            }
            Ok::<(), MeshError>(())
        };
        match timeout(CLEAR_UP_FOR, clear).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(description, %error, "could not look for a key that may have been minted; it ends by itself");
            }
            Err(_) => tracing::warn!(
                description,
                "no time to look for a key that may have been minted; it ends by itself"
            ),
        }
    }
}

#[async_trait]
impl MeshControl for ControlClient {
    #[tracing::instrument(name = "control read", skip_all)]
    async fn read(
        &self,
        installation: &InstallationId,
        known: &BTreeSet<String>,
    ) -> Result<MeshView, MeshError> {
        let reading = async {
            // Keys before devices: a key that is not usable any more lets nobody in after this
            // list, and whoever it let in is in the next one.
            let keys = self.keys(|description| {
                IncarnationName::from_key_description(description, installation).is_some()
            });
            let (keys, all_keys) = keys.await?;
            let list: DeviceList = self.list("the list of devices", "devices").await?;
            let ours = |device: &DeviceEntry| {
                let named =
                    |name: &str| IncarnationName::from_hostname(name, installation).is_some();
                named(&device.hostname) || device.device_id().is_some_and(|id| known.contains(id))
            };
            let devices = list
                .devices
                .into_iter()
                .filter(ours)
                .filter_map(DeviceEntry::into_device)
                .collect();
            Ok(MeshView { devices, keys, all_keys })
        };
        let late =
            || Err(self.api.away(format!("no complete reading within {} s", READ_FOR.as_secs())));
        timeout(READ_FOR, reading).await.unwrap_or_else(|_| late())
    }

    #[tracing::instrument(name = "control mint", skip_all)]
    async fn mint(
        &self,
        description: &str,
        tag: &str,
        life: Duration,
    ) -> Result<MintedKey, MeshError> {
        let what = format!("an auth key with {tag}");
        if description.len() > MAX_DESCRIPTION {
            let message = format!(
                "the description {description:?} is longer than {MAX_DESCRIPTION} characters"
            );
            return Err(MeshError::Refused { what, status: 400, message });
        }
        let body = json!({
            "keyType": "auth",
            "capabilities": {"devices": {"create": {"reusable": false, "ephemeral": false, "preauthorized": true, "tags": [tag]}}},
            "expirySeconds": life.as_secs(),
            "description": description,
        });
        // Without a token nothing was sent, so there is nothing to clear up.
        self.api.log_in().await?;
        let path = ["tailnet", self.api.tailnet(), "keys"];
        let call = Call { needs: Needs::Tag(tag), ..Call::write(&what, &path, &body) };
        let minted = match self.api.call(call).await {
            Ok(answer) => not_missing(what, answer).and_then(|answer| self.minted(&answer)),
            Err(error) => Err(error),
        };
        if matches!(minted, Err(MeshError::Away { .. })) {
            self.revoke_orphans(description).await;
        }
        minted
    }

    #[tracing::instrument(name = "control revoke", skip_all)]
    async fn revoke(&self, key: &str) -> Result<(), MeshError> {
        self.remove(
            &format!("the revocation of key {key}"),
            &["tailnet", self.api.tailnet(), "keys", key],
        )
        .await
    }

    #[tracing::instrument(name = "control set_tags", skip_all)]
    async fn set_tags(&self, device: &str, tags: &[String]) -> Result<(), MeshError> {
        let what = format!("the tags {} for device {device}", tags.join(", "));
        let body = json!({"tags": tags});
        let (tags, path) = (tags.join(", "), ["device", device, "tags"]);
        let call =
            Call { needs: Needs::Tag(&tags), repeatable: true, ..Call::write(&what, &path, &body) };
        let answer = self.api.call(call).await?;
        not_missing(what, answer).map(drop)
    }

    #[tracing::instrument(name = "control delete_device", skip_all)]
    async fn delete_device(&self, device: &str) -> Result<(), MeshError> {
        self.remove(&format!("the deletion of device {device}"), &["device", device]).await
    }
}

/// 404 to a call that is about something which must be there.
fn not_missing(what: String, answer: Answer) -> Result<Answer, MeshError> {
    if answer.status == StatusCode::NOT_FOUND {
        return Err(MeshError::Refused { what, status: 404, message: answer.message() });
    }
    Ok(answer)
}
