//! Client of the tailnet's control API (Tailscale's API v2, which headscale speaks too).

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::{Method, StatusCode, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::answers::{DeviceEntry, DeviceList, KeyEntry, KeyList, Token};
use super::{MeshControl, MeshError, MintedKey, http as mesh_http};
use crate::model::ids::{IncarnationName, InstallationId};
use crate::model::mesh::{AuthKey, MeshView};

const CALL_TIME_OUT: Duration = Duration::from_secs(10);
/// A call that may be repeated is begun again within this time; longer waits are the planner's.
const RETRY_FOR: Duration = Duration::from_secs(10);
/// Clearing up after an unanswered mint must not hold up the operator: what it misses is seen as an orphan later.
const CLEAR_UP_FOR: Duration = Duration::from_secs(15);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A token is renewed this long before it ends, so that none ends under way.
const RENEW_AHEAD: Duration = Duration::from_mins(1);
/// Whatever it asks for, it is asked again after this time.
const LONGEST_QUIET: Duration = Duration::from_hours(1);
const MAX_BODY: usize = 4 * 1024 * 1024;
/// What the API accepts.
const MAX_DESCRIPTION: usize = 50;
/// Keys asked for one by one at the same time.
const KEYS_AT_ONCE: usize = 8;

/// Where the control API is and who we are there.
#[derive(Debug)]
pub struct MeshSettings {
    /// Base URL, e.g. `https://api.tailscale.com`.
    pub api: String,
    /// Tailnet; `-` is the credential's own.
    pub tailnet: String,
    /// OAuth client.
    pub oauth_client_id: String,
    /// Its secret.
    pub oauth_secret: SecretString,
}

/// The control API, spoken to as one OAuth client.
///
/// Reads, deletions and revocations are tried again for 10 s when the API is away. A mint is never repeated unless the API said that it
/// did nothing (429): a key that may have been minted is looked for and revoked instead.
pub struct ControlClient {
    settings: MeshSettings,
    base: reqwest::Url,
    http: reqwest::Client,
    token: tokio::sync::Mutex<Option<Bearer>>,
    /// Descriptions of keys whose list entries lack them; they never change.
    described: Mutex<HashMap<String, String>>,
    /// Until then the API asked to be left alone.
    quiet_until: Mutex<Option<Instant>>,
}

struct Bearer {
    secret: SecretString,
    renew_at: Instant,
}

#[derive(Clone, Copy)]
struct Call<'a> {
    /// For people, e.g. `the deletion of device n1`.
    what: &'a str,
    method: &'a Method,
    /// Segments below `api/v2`.
    path: &'a [&'a str],
    body: Option<&'a serde_json::Value>,
    /// The tag that the call hands out, for the remedy.
    tag: Option<&'a str>,
}

struct Answer {
    status: StatusCode,
    retry_after: Option<Duration>,
    body: Vec<u8>,
}

impl fmt::Debug for ControlClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlClient").field("api", &self.settings.api).finish_non_exhaustive()
    }
}

impl ControlClient {
    /// A client for `settings.api`; nothing is sent yet.
    pub fn new(settings: MeshSettings) -> Result<Self, MeshError> {
        let unusable = |detail: String| MeshError::Away { api: settings.api.clone(), detail };
        let base = reqwest::Url::parse(&settings.api).map_err(|error| unusable(format!("not a URL: {error}")))?;
        if base.cannot_be_a_base() || !matches!(base.scheme(), "http" | "https") {
            return Err(unusable("neither an http nor an https URL".to_owned()));
        }
        let http = mesh_http::web(CALL_TIME_OUT).map_err(|error| unusable(mesh_http::innermost(&error)))?;
        Ok(Self { base, http, token: tokio::sync::Mutex::default(), described: Mutex::default(), quiet_until: Mutex::default(), settings })
    }

    /// Sends a call and sees to the token, to pauses the API asks for, and to what may be repeated.
    async fn call(&self, call: Call<'_>) -> Result<Answer, MeshError> {
        let begun = Instant::now();
        let repeatable = *call.method != Method::POST;
        let mut pause = FIRST_PAUSE;
        let mut renewed = false;
        loop {
            self.keep_quiet(call.what, begun).await?;
            let outcome = self.attempt(call).await;
            let wait = match &outcome {
                Ok(answer) if answer.status == StatusCode::UNAUTHORIZED && !renewed => {
                    renewed = true;
                    self.token.lock().await.take();
                    continue;
                }
                Ok(answer) if answer.status == StatusCode::TOO_MANY_REQUESTS => answer.retry_after.unwrap_or(pause),
                Ok(answer) if answer.status.is_server_error() && repeatable => pause,
                Err(MeshError::Away { .. }) if repeatable => pause,
                _ => return self.judge(call, outcome?),
            };
            if begun.elapsed() + wait >= RETRY_FOR {
                return self.judge(call, outcome?);
            }
            sleep(wait).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, call: Call<'_>) -> Result<Answer, MeshError> {
        let token = self.bearer().await?;
        let mut request = self.http.request(call.method.clone(), self.url(call.path)).bearer_auth(token.expose_secret());
        if let Some(body) = call.body {
            request = request.json(body);
        }
        self.send(request).await
    }

    /// The present token, or a new one.
    async fn bearer(&self) -> Result<SecretString, MeshError> {
        let mut held = self.token.lock().await;
        if let Some(bearer) = held.as_ref().filter(|bearer| Instant::now() < bearer.renew_at) {
            return Ok(bearer.secret.clone());
        }
        let form = [
            ("client_id", self.settings.oauth_client_id.as_str()),
            ("client_secret", self.settings.oauth_secret.expose_secret()),
            ("grant_type", "client_credentials"),
        ];
        let answer = self.send(self.http.post(self.url(&["oauth", "token"])).form(&form)).await?;
        if !answer.status.is_success() {
            return Err(self.refusal("an access token", &answer, None));
        }
        let token: Token = self.decode(&answer)?;
        let life = Duration::from_secs(token.expires_in.unwrap_or(3600));
        // A life shorter than the lead (tests) still leaves half of it for use.
        let renew_at = Instant::now() + life.saturating_sub(RENEW_AHEAD).max(life / 2);
        let secret = SecretString::from(token.access_token);
        *held = Some(Bearer { secret: secret.clone(), renew_at });
        Ok(secret)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer, MeshError> {
        let read = async {
            let mut response = request.send().await.map_err(|error| mesh_http::innermost(&error))?;
            let status = response.status();
            let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
            let body = mesh_http::bounded(&mut response, MAX_BODY).await?;
            let retry_after = retry_after.map(Duration::from_secs);
            if let Some(wait) = retry_after.filter(|_| status == StatusCode::TOO_MANY_REQUESTS) {
                self.note_quiet(wait);
            }
            Ok(Answer { status, retry_after, body })
        };
        // The client's own limit counts per read; this one counts for the whole call.
        let answer = timeout(CALL_TIME_OUT, read).await.unwrap_or_else(|_| Err(format!("no answer in {} s", CALL_TIME_OUT.as_secs())));
        answer.map_err(|detail| self.away(detail))
    }

    /// Success, or the error that the status stands for. 404 is left to the caller, who knows whether it is bad news.
    fn judge(&self, call: Call<'_>, answer: Answer) -> Result<Answer, MeshError> {
        if answer.status.is_success() || answer.status == StatusCode::NOT_FOUND {
            return Ok(answer);
        }
        Err(self.refusal(call.what, &answer, call.tag))
    }

    fn refusal(&self, what: &str, answer: &Answer, tag: Option<&str>) -> MeshError {
        let message = answer.message();
        let status = answer.status.as_u16();
        if answer.status.is_server_error() {
            return self.away(format!("{status} {message}"));
        }
        // Tailscale answers a tag that is not ours to give with 400, headscale with 403.
        let about_tags = tag.is_some() && status == 400 && message.contains("tag");
        if about_tags || matches!(status, 401 | 403) {
            return MeshError::Forbidden { what: what.to_owned(), status, message, remedy: remedy(status, tag) };
        }
        MeshError::Refused { what: what.to_owned(), status, message }
    }

    fn away(&self, detail: String) -> MeshError {
        MeshError::Away { api: self.settings.api.clone(), detail }
    }

    fn decode<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T, MeshError> {
        // Serde's message may quote the body, and the body may hold a secret.
        serde_json::from_slice(&answer.body)
            .map_err(|error| self.away(format!("an answer that is not understood, line {} column {}", error.line(), error.column())))
    }

    /// Waits as long as the API asked for, or gives up when that is too long for this call.
    async fn keep_quiet(&self, what: &str, begun: Instant) -> Result<(), MeshError> {
        let until = *self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
        let left = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
        if begun.elapsed() + left < RETRY_FOR {
            sleep(left).await;
            return Ok(());
        }
        let message = format!("too many requests; it asked for a pause of which {} s are left", left.as_secs().max(1));
        Err(MeshError::Refused { what: what.to_owned(), status: 429, message })
    }

    fn note_quiet(&self, wait: Duration) {
        let until = Instant::now() + wait.min(LONGEST_QUIET);
        *self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    fn url(&self, path: &[&str]) -> reqwest::Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v2"]).extend(path);
        }
        url
    }

    async fn get<T: DeserializeOwned>(&self, what: &str, path: &[&str]) -> Result<Option<T>, MeshError> {
        let answer = self.call(Call { what, method: &Method::GET, path, body: None, tag: None }).await?;
        if answer.status == StatusCode::NOT_FOUND { Ok(None) } else { self.decode(&answer).map(Some) }
    }

    /// A list; a tailnet that is not there is an error, not an empty list.
    async fn list<T: DeserializeOwned>(&self, what: &str, kind: &str) -> Result<T, MeshError> {
        let path = ["tailnet", &self.settings.tailnet, kind];
        let missing = || MeshError::Refused {
            what: what.to_owned(),
            status: 404,
            message: format!("tailnet {} not found; check `mesh.tailnet`", self.settings.tailnet),
        };
        self.get(what, &path).await?.ok_or_else(missing)
    }

    /// Deletes; gone already is as good.
    async fn remove(&self, what: &str, path: &[&str]) -> Result<(), MeshError> {
        match self.call(Call { what, method: &Method::DELETE, path, body: None, tag: None }).await {
            Ok(_) => Ok(()),
            Err(MeshError::Refused { status: 400, message, .. }) if says_no_such_id(&message) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Every key for whose description `ours` holds.
    async fn keys(&self, ours: impl Fn(&str) -> bool + Sync) -> Result<Vec<AuthKey>, MeshError> {
        let list: KeyList = self.list("the list of auth keys", "keys").await?;
        let present: HashSet<&str> = list.keys.iter().map(|key| key.id.as_str()).collect();
        let known = {
            let mut described = self.described.lock().unwrap_or_else(PoisonError::into_inner);
            described.retain(|id, _| present.contains(id.as_str()));
            described.clone()
        };
        let wanted = list.keys.into_iter().filter(|key| {
            let description = key.description.as_deref().or(known.get(&key.id).map(String::as_str));
            description.is_none_or(&ours)
        });
        let read = stream::iter(wanted).map(|key| self.whole_key(key)).buffer_unordered(KEYS_AT_ONCE);
        let keys: Vec<Option<AuthKey>> = read.try_collect().await?;
        let mut keys: Vec<AuthKey> = keys.into_iter().flatten().filter(|key| ours(&key.description)).collect();
        keys.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(keys)
    }

    /// Reads a key whose list entry was nothing but an id; `None` when it is gone by now.
    async fn whole_key(&self, listed: KeyEntry) -> Result<Option<AuthKey>, MeshError> {
        if listed.description.is_some() {
            return Ok(Some(listed.into_key()));
        }
        let what = format!("auth key {}", listed.id);
        let Some(key) = self.get::<KeyEntry>(&what, &["tailnet", &self.settings.tailnet, "keys", &listed.id]).await? else {
            return Ok(None);
        };
        let key = KeyEntry { id: listed.id, ..key }.into_key();
        self.described.lock().unwrap_or_else(PoisonError::into_inner).insert(key.id.clone(), key.description.clone());
        Ok(Some(key))
    }

    /// After a mint without an answer there may be a key whose secret nobody has: it is of no use and goes.
    async fn revoke_orphans(&self, description: &str) {
        let clear = async {
            for key in self.keys(|text| text == description).await? {
                self.revoke(&key.id).await?;
            }
            Ok::<(), MeshError>(())
        };
        match timeout(CLEAR_UP_FOR, clear).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(description, %error, "could not look for a key that may have been minted; it ends by itself"),
            Err(_) => tracing::warn!(description, "no time to look for a key that may have been minted; it ends by itself"),
        }
    }
}

#[async_trait]
impl MeshControl for ControlClient {
    async fn read(&self, installation: &InstallationId) -> Result<MeshView, MeshError> {
        let devices = async {
            let list: DeviceList = self.list("the list of devices", "devices").await?;
            let ours = |device: &DeviceEntry| IncarnationName::from_hostname(&device.hostname, installation).is_some();
            Ok::<_, MeshError>(list.devices.into_iter().filter(ours).filter_map(DeviceEntry::into_device).collect())
        };
        let keys = self.keys(|description| IncarnationName::from_key_description(description, installation).is_some());
        let (devices, keys) = futures::try_join!(devices, keys)?;
        Ok(MeshView { devices, keys })
    }

    async fn mint(&self, description: &str, tag: &str, life: Duration) -> Result<MintedKey, MeshError> {
        let what = format!("an auth key with {tag}");
        if description.len() > MAX_DESCRIPTION {
            let message = format!("the description {description:?} is longer than {MAX_DESCRIPTION} characters");
            return Err(MeshError::Refused { what, status: 400, message });
        }
        let body = json!({
            "keyType": "auth",
            "capabilities": {"devices": {"create": {"reusable": false, "ephemeral": false, "preauthorized": true, "tags": [tag]}}},
            "expirySeconds": life.as_secs(),
            "description": description,
        });
        // Without a token nothing was sent, so there is nothing to clear up.
        self.bearer().await?;
        let path = ["tailnet", &self.settings.tailnet, "keys"];
        let call = Call { what: &what, method: &Method::POST, path: &path, body: Some(&body), tag: Some(tag) };
        let minted = match self.call(call).await {
            Ok(answer) if answer.status == StatusCode::NOT_FOUND => {
                return Err(MeshError::Refused { what, status: 404, message: answer.message() });
            }
            Ok(answer) => self
                .decode::<KeyEntry>(&answer)
                .and_then(|key| key.into_minted().ok_or_else(|| self.away("a key without its secret".to_owned()))),
            Err(error) => Err(error),
        };
        if matches!(minted, Err(MeshError::Away { .. })) {
            self.revoke_orphans(description).await;
        }
        minted
    }

    async fn revoke(&self, key: &str) -> Result<(), MeshError> {
        self.remove(&format!("the revocation of key {key}"), &["tailnet", &self.settings.tailnet, "keys", key]).await
    }

    async fn set_tags(&self, device: &str, tags: &[String]) -> Result<(), MeshError> {
        let what = format!("the tags {} for device {device}", tags.join(", "));
        let body = json!({"tags": tags});
        let tag = tags.first().map(String::as_str);
        let call = Call { what: &what, method: &Method::POST, path: &["device", device, "tags"], body: Some(&body), tag };
        let answer = self.call(call).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Err(MeshError::Refused { what, status: 404, message: answer.message() });
        }
        Ok(())
    }

    async fn delete_device(&self, device: &str) -> Result<(), MeshError> {
        self.remove(&format!("the deletion of device {device}"), &["device", device]).await
    }
}

impl Answer {
    /// The API's own words, shortened.
    fn message(&self) -> String {
        super::answers::message(&self.body).unwrap_or_else(|| self.status.canonical_reason().unwrap_or("without a word").to_owned())
    }
}

fn remedy(status: u16, tag: Option<&str>) -> String {
    let client = "the OAuth client of `mesh.oauthClientId`";
    match (status, tag) {
        (401, _) => format!(
            "{client} or its secret is not valid (any more): make one with the scopes auth_keys and devices:core and update `mesh.oauthSecretFile`"
        ),
        (_, Some(tag)) => format!(
            "{client} needs the scopes auth_keys and devices:core, and the policy's tagOwners must give {tag} to a tag of that client"
        ),
        _ => format!("{client} needs the scopes auth_keys and devices:core"),
    }
}

/// A 400 to a deletion is good news only when the text says that no such thing can exist.
fn says_no_such_id(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("not found")
        || message.contains("no such")
        || (["malformed", "invalid"].iter().any(|word| message.contains(word)) && message.contains("id"))
}
