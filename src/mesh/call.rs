//! How the control API is called: the token that goes with each call, the pauses it asks for, and
//! what may be repeated.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{Method, StatusCode, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout};

use super::MeshError;
use super::answers::Token;
use super::control::MeshSettings;
use super::refusal::{Answer, Needs, lacks, refusal, retry_after, too_small};
use super::token::Tokens;
use crate::http_client;
use crate::model::time::Backoff;
use crate::retry::MAX_RETRY;

const CALL_TIME_OUT: Duration = Duration::from_secs(10);
/// Between two attempts, unless it asked for another pause.
const PAUSES: Backoff =
    Backoff { first: Duration::from_millis(250), longest: Duration::from_secs(2) };
/// Whatever it asks for, it is asked again after this time.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);
const MAX_BODY: usize = 1024 * 1024;
/// The same for lists: 5,000 keys and 300 devices of others were seen to take 1.5 MB.
pub(super) const MAX_LIST: usize = 32 * 1024 * 1024;

/// One call, whoever sends it and however often.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    /// For people, e.g. `the deletion of device n1`.
    pub what: &'a str,
    pub method: &'a Method,
    /// Segments below `api/v2`.
    pub path: &'a [&'a str],
    pub body: Option<&'a serde_json::Value>,
    /// What it needs, for the remedy when it is refused.
    pub needs: Needs<'a>,
    /// Doing it twice is as good as doing it once, so a lost answer may be asked for again.
    pub repeatable: bool,
    /// A longer answer is not read to its end, bytes.
    pub longest: usize,
}

impl<'a> Call<'a> {
    /// A call that changes nothing.
    pub(super) fn read(what: &'a str, path: &'a [&'a str]) -> Self {
        Self {
            what,
            method: &Method::GET,
            path,
            body: None,
            needs: Needs::KeysAndDevices,
            repeatable: true,
            longest: MAX_BODY,
        }
    }

    /// A call that may have been carried out when no answer came.
    pub(super) fn write(what: &'a str, path: &'a [&'a str], body: &'a serde_json::Value) -> Self {
        Self {
            method: &Method::POST,
            body: Some(body),
            repeatable: false,
            ..Self::read(what, path)
        }
    }
}

/// The API as one OAuth client sees it.
pub(super) struct Api {
    settings: MeshSettings,
    base: reqwest::Url,
    http: reqwest::Client,
    tokens: Tokens,
    /// Until then the API asked to be left alone.
    paused_until: Mutex<Option<Instant>>,
}

impl Api {
    /// Nothing is sent yet.
    pub(super) fn new(settings: MeshSettings) -> Result<Self, MeshError> {
        let unusable = |detail: String| MeshError::Away { api: settings.api.clone(), detail };
        let base = reqwest::Url::parse(&settings.api)
            .map_err(|error| unusable(format!("not a URL: {error}")))?;
        if base.cannot_be_a_base() || !matches!(base.scheme(), "http" | "https") {
            return Err(unusable("neither an http nor an https URL".to_owned()));
        }
        let http = http_client::web_and(&settings.ca, CALL_TIME_OUT).map_err(unusable)?;
        Ok(Self { base, http, tokens: Tokens::default(), paused_until: Mutex::default(), settings })
    }

    /// Base URL, as it was set.
    pub(super) fn url(&self) -> &str {
        &self.settings.api
    }

    pub(super) fn tailnet(&self) -> &str {
        &self.settings.tailnet
    }

    /// Sends a call. Success and 404 come back (the caller knows whether that is bad news),
    /// everything else as the error it stands for.
    pub(super) async fn call(&self, call: Call<'_>) -> Result<Answer, MeshError> {
        let begun = Instant::now();
        let mut answer =
            self.persist(call.what, call.repeatable, begun, || self.attempt(call, begun)).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            // The API has forgotten the token before its time, which `attempt` has noted: once more
            // with another one.
            answer = self
                .persist(call.what, call.repeatable, begun, || self.attempt(call, begun))
                .await?;
        }
        if answer.status.is_success() || answer.status == StatusCode::NOT_FOUND {
            return Ok(answer);
        }
        Err(refusal(self.url(), call.what, &answer, call.needs))
    }

    /// Makes sure that there is a token. When this fails, a call that would have followed was not
    /// sent.
    pub(super) async fn log_in(&self) -> Result<(), MeshError> {
        self.token(Instant::now()).await.map(drop)
    }

    pub(super) fn away(&self, detail: String) -> MeshError {
        MeshError::Away { api: self.url().to_owned(), detail }
    }

    pub(super) fn decode<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, MeshError> {
        // Serde's message may quote the body, and the body may hold a secret.
        serde_json::from_slice(body).map_err(|error| {
            self.away(format!(
                "an answer that is not understood, line {} column {}",
                error.line(),
                error.column()
            ))
        })
    }

    /// Asks until there is an answer to go on with. 429 says that nothing was done, so it is
    /// repeated whatever it was.
    async fn persist<F>(
        &self,
        what: &str,
        repeatable: bool,
        begun: Instant,
        attempt: impl Fn() -> F,
    ) -> Result<Answer, MeshError>
    where
        F: Future<Output = Result<Answer, MeshError>>,
    {
        let mut failures = 0;
        loop {
            let pause = PAUSES.delay(failures);
            self.wait_for_pause(what, begun).await?;
            let outcome = attempt().await;
            let wait = match &outcome {
                Ok(answer) if answer.status == StatusCode::TOO_MANY_REQUESTS => {
                    answer.retry_after.unwrap_or(pause)
                }
                Ok(answer) if answer.status.is_server_error() && repeatable => pause,
                Err(MeshError::Away { .. }) if repeatable => pause,
                _ => return outcome,
            };
            if begun.elapsed() + wait >= MAX_RETRY {
                return outcome;
            }
            sleep(wait).await;
            failures += 1;
        }
    }

    async fn attempt(&self, call: Call<'_>, begun: Instant) -> Result<Answer, MeshError> {
        let token = self.token(begun).await?;
        let mut request = self
            .http
            .request(call.method.clone(), self.at(call.path))
            .bearer_auth(token.expose_secret());
        // The policy is kept in a format with comments, and comes in that unless asked for
        // otherwise.
        request = request.header(header::ACCEPT, "application/json");
        if let Some(body) = call.body {
            request = request.json(body);
        }
        let answer = self.send(request, call.longest).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            self.tokens.refused(&token).await;
        }
        Ok(answer)
    }

    /// The present token, or a new one. A token whose answer was lost does no harm, so it is asked
    /// for again.
    async fn token(&self, begun: Instant) -> Result<SecretString, MeshError> {
        const WHAT: &str = "an access token";
        let fetch = async || {
            let answer = self
                .persist(WHAT, true, begun, || self.send(self.token_request(), MAX_BODY))
                .await?;
            if !answer.status.is_success() {
                return Err(refusal(self.url(), WHAT, &answer, Needs::KeysAndDevices));
            }
            let token = self.decode::<Token>(&answer.body)?;
            match lacks(token.scope.as_deref()) {
                // Some servers answer a call without its scope by an empty list, which must not be
                // taken for "nothing is there".
                Some(lacks) => Err(too_small(WHAT, &lacks)),
                None => Ok(token),
            }
        };
        self.tokens.get(fetch).await
    }

    fn token_request(&self) -> reqwest::RequestBuilder {
        let form = [
            ("client_id", self.settings.oauth_client_id.as_str()),
            ("client_secret", self.settings.oauth_secret.expose_secret()),
            ("grant_type", "client_credentials"),
        ];
        self.http.post(self.at(&["oauth", "token"])).form(&form)
    }

    async fn send(
        &self,
        request: reqwest::RequestBuilder,
        longest: usize,
    ) -> Result<Answer, MeshError> {
        let read = async {
            let mut response =
                request.send().await.map_err(|error| http_client::innermost(&error))?;
            let status = response.status();
            let retry_after = retry_after(response.headers(), OffsetDateTime::now_utc());
            if let Some(wait) = retry_after.filter(|_| status == StatusCode::TOO_MANY_REQUESTS) {
                self.pause_requests(wait);
            }
            let body = http_client::bounded(&mut response, longest)
                .await
                .map_err(|error| error.to_string())?;
            Ok(Answer { status, retry_after, body })
        };
        // The client's own limit counts per read; this one counts for the whole call.
        let answer = timeout(CALL_TIME_OUT, read)
            .await
            .unwrap_or_else(|_| Err(format!("no answer in {} s", CALL_TIME_OUT.as_secs())));
        answer.map_err(|detail| self.away(detail))
    }

    /// Waits as long as the API asked for, or gives up when that is too long for this call.
    async fn wait_for_pause(&self, what: &str, begun: Instant) -> Result<(), MeshError> {
        let until = *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        let left =
            until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
        if left.is_zero() || begun.elapsed() + left < MAX_RETRY {
            sleep(left).await;
            return Ok(());
        }
        let message = format!(
            "too many requests; it asked for a pause of which {} s are left",
            left.as_secs().max(1)
        );
        Err(MeshError::Refused { what: what.to_owned(), status: 429, message })
    }

    fn pause_requests(&self, wait: Duration) {
        let until = Instant::now() + wait.min(LONGEST_PAUSE);
        *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    fn at(&self, path: &[&str]) -> reqwest::Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v2"]).extend(path);
        }
        url
    }
}
