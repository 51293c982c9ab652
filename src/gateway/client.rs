//! The client of provider gateways.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::{Method, StatusCode, header};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;

use super::address::{PublicResolver, gateway_url};
use super::jwt::{Issuer, Scope, Sign};
use super::{
    Gateway, GatewayError, ProviderCertificates, StatusPage, StatusPageError, fetch_status_page,
    tls,
};
use crate::error_chain::causes;
use crate::http_client::{BodyError, bounded};
use crate::model::chain::ProviderView;
use crate::model::ids::LeaseId;
use crate::model::inventory::LeaseStatus;
use crate::model::time::UnixMs;
use crate::retry::{MAX_RETRY, retry};

const CONNECT_TIME_OUT: Duration = Duration::from_secs(5);
const CALL_TIME_OUT: Duration = Duration::from_secs(15);
/// A PUT waits at the gateway for reads of the chain.
const PUT_TIME_OUT: Duration = Duration::from_secs(30);
/// Certificates are revoked on the chain without a word to us.
const CERTIFICATES_FRESH: Duration = Duration::from_mins(3);
/// Kept this long for the case that the chain is away.
const FORGOTTEN: Duration = Duration::from_hours(1);
/// No answer of ours is larger; a larger one is not read to its end.
pub(super) const MAX_BODY: usize = 64 * 1024;
/// More host names than a lease with one HTTP port can have.
const MAX_URIS: usize = 16;

/// All gateways, each spoken to as the chain describes its provider.
pub struct GatewayClient {
    issuer: Issuer,
    certificates: Arc<dyn ProviderCertificates>,
    allow_private: bool,
    roots: Arc<RootCertStore>,
    clients: Mutex<HashMap<(String, String), Cached>>,
}

#[derive(Clone)]
struct Cached {
    http: reqwest::Client,
    made: Instant,
}

struct Call<'a> {
    provider: &'a ProviderView,
    lease: &'a LeaseId,
    scope: Scope,
    method: Method,
    path: String,
    body: Option<&'a str>,
}

struct Answer {
    status: StatusCode,
    body: Vec<u8>,
}

/// Why there is no answer.
pub(super) enum Failure {
    /// Whoever is there is not the provider.
    Untrusted(String),
    /// Nobody answered, not in time, or not in a usable way.
    Transport(String),
}

impl Failure {
    pub(super) fn detail(self) -> String {
        match self {
            Self::Untrusted(detail) | Self::Transport(detail) => detail,
        }
    }

    fn of(self, provider: &ProviderView) -> GatewayError {
        let address = provider.address.clone();
        match self {
            Self::Untrusted(detail) => GatewayError::NotTheProvider {
                provider: address,
                host_uri: shorten(&provider.host_uri),
                detail,
            },
            Self::Transport(detail) => GatewayError::Away { provider: address, detail },
        }
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        if let Some(why) = causes(&error).find_map(certificate_refused) {
            return Self::Untrusted(why);
        }
        let last = causes(&error).last().map_or_else(|| error.to_string(), ToString::to_string);
        Self::Transport(if error.is_timeout() {
            format!("no answer in time: {last}")
        } else {
            last
        })
    }
}

impl From<BodyError> for Failure {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Transport(error) => error.into(),
            BodyError::TooLarge { .. } => Self::Transport(error.to_string()),
        }
    }
}

/// The verifier's verdict, which travels inside I/O errors: `source` leads around it, `get_ref`
/// into it.
fn certificate_refused(cause: &(dyn StdError + 'static)) -> Option<String> {
    if let Some(error) = cause.downcast_ref::<std::io::Error>() {
        return certificate_refused(error.get_ref()?);
    }
    match cause.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(why)) => {
            Some(why.0.to_string())
        }
        rustls::Error::InvalidCertificate(why) => Some(format!("{why:?}")),
        _ => None,
    }
}

impl GatewayClient {
    /// A client that signs as `issuer`. `allow_private` lets gateways live on private addresses,
    /// for a market on this machine.
    #[must_use]
    pub fn new(
        issuer: String,
        sign: Sign,
        certificates: Arc<dyn ProviderCertificates>,
        allow_private: bool,
    ) -> Self {
        let issuer = Issuer::new(issuer, sign);
        Self {
            issuer,
            certificates,
            allow_private,
            roots: tls::public_roots(),
            clients: Mutex::default(),
        }
    }

    /// Trusts these roots in place of the public web's.
    #[must_use]
    pub fn with_roots(mut self, roots: RootCertStore) -> Self {
        self.roots = Arc::new(roots);
        self
    }

    async fn call(&self, call: &Call<'_>) -> Result<Answer, GatewayError> {
        let answer = self.attempt(call).await?;
        // A token that was refused may have met a clock that jumped, or a gateway that had not read
        // our key yet.
        let invalid = answer.status == StatusCode::BAD_REQUEST
            && String::from_utf8_lossy(&answer.body).contains("invalid claims");
        if invalid || answer.status == StatusCode::UNAUTHORIZED {
            return self.attempt(call).await;
        }
        Ok(answer)
    }

    /// One request, and one more when the known certificates have been replaced meanwhile.
    async fn attempt(&self, call: &Call<'_>) -> Result<Answer, GatewayError> {
        let provider = call.provider;
        let mut url = gateway_url(&provider.host_uri, self.allow_private)
            .map_err(|detail| Failure::Untrusted(detail).of(provider))?;
        url.set_path(&call.path);
        let (http, known) = self.client(provider, false).await?;
        let failure = match self.send(&http, url.clone(), call).await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        self.forget(provider);
        if matches!(failure, Failure::Transport(_)) || !known {
            return Err(failure.of(provider));
        }
        let (http, _) = self.client(provider, true).await?;
        self.send(&http, url, call).await.map_err(|failure| {
            self.forget(provider);
            failure.of(provider)
        })
    }

    async fn send(
        &self,
        http: &reqwest::Client,
        url: reqwest::Url,
        call: &Call<'_>,
    ) -> Result<Answer, Failure> {
        let token =
            self.issuer.token(&call.provider.address, call.lease, call.scope, UnixMs::now());
        let mut request = http.request(call.method.clone(), url).bearer_auth(token);
        if let Some(body) = call.body {
            request = request
                .timeout(PUT_TIME_OUT)
                .header(header::CONTENT_TYPE, "application/json")
                .body(body.to_owned());
        }
        let mut response = request.send().await?;
        let status = response.status();
        Ok(Answer { status, body: bounded(&mut response, MAX_BODY).await? })
    }

    /// A client that trusts this provider alone, and whether it was known before. The chain is
    /// asked before anything is sent.
    async fn client(
        &self,
        provider: &ProviderView,
        renew: bool,
    ) -> Result<(reqwest::Client, bool), GatewayError> {
        let key = (provider.address.clone(), provider.host_uri.clone());
        let old = self.lock().get(&key).cloned();
        if let Some(cached) = &old
            && !renew
            && cached.made.elapsed() < CERTIFICATES_FRESH
        {
            return Ok((cached.http.clone(), true));
        }
        let away =
            |detail: String| GatewayError::Away { provider: provider.address.clone(), detail };
        let read =
            tokio::time::timeout(CALL_TIME_OUT, self.certificates.valid(&provider.address)).await;
        let pinned = match read.unwrap_or_else(|_| Err("no answer in time".into())) {
            Ok(pinned) => pinned,
            // With the chain away, what was known last is still better than a node that is out of
            // sight.
            Err(why) => {
                return old.map(|cached| (cached.http, false)).ok_or_else(|| {
                    away(format!("its certificates cannot be read from the chain: {why}"))
                });
            }
        };
        let config = tls::client_config(&self.roots, &provider.address, pinned).map_err(away)?;
        let http =
            http(config, PublicResolver { allow_private: self.allow_private }, CALL_TIME_OUT)
                .map_err(away)?;
        let mut clients = self.lock();
        clients.retain(|_, cached| cached.made.elapsed() < FORGOTTEN);
        clients.insert(key, Cached { http: http.clone(), made: Instant::now() });
        Ok((http, false))
    }

    fn forget(&self, provider: &ProviderView) {
        self.lock().remove(&(provider.address.clone(), provider.host_uri.clone()));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Cached>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A manifest that was not taken.
struct PutError {
    error: GatewayError,
    /// It may be taken a moment later.
    passes: bool,
}

#[async_trait]
impl Gateway for GatewayClient {
    #[tracing::instrument(name = "gateway put_manifest", skip_all)]
    async fn put_manifest(
        &self,
        provider: &ProviderView,
        lease: &LeaseId,
        manifest: &str,
    ) -> Result<(), GatewayError> {
        let path = format!("/deployment/{}/manifest", lease.dseq);
        let call = Call {
            provider,
            lease,
            scope: Scope::SendManifest,
            method: Method::PUT,
            path,
            body: Some(manifest),
        };
        let put = async || match self.call(&call).await {
            Ok(answer) if answer.status == StatusCode::OK => Ok(()),
            Ok(answer) => Err(PutError {
                passes: answer.passes(),
                error: answer.refusal(provider, "the manifest"),
            }),
            Err(error) => Err(PutError {
                passes: !matches!(error, GatewayError::NotTheProvider { .. }),
                error,
            }),
        };
        retry(MAX_RETRY, |failed: &PutError| failed.passes, put)
            .await
            .map_err(|failed| failed.error)
    }

    #[tracing::instrument(name = "gateway status_page", skip_all)]
    async fn status_page(&self, host: &str, nonce: &str) -> Result<StatusPage, StatusPageError> {
        fetch_status_page(host, nonce, self.allow_private).await
    }

    #[tracing::instrument(name = "gateway lease_status", skip_all)]
    async fn lease_status(&self, provider: &ProviderView, lease: &LeaseId) -> LeaseStatus {
        let path = format!("/lease/{}/{}/{}/status", lease.dseq, lease.gseq, lease.oseq);
        let call =
            Call { provider, lease, scope: Scope::Status, method: Method::GET, path, body: None };
        match self.call(&call).await {
            Ok(answer) => answer.lease_status(),
            Err(error) => LeaseStatus::Away(error.to_string()),
        }
    }
}

impl Answer {
    fn text(&self) -> String {
        shorten(&String::from_utf8_lossy(&self.body))
    }

    /// A refusal that ends by itself: the gateway has not yet seen the lease or the new hash, or
    /// cannot reach its own cluster.
    fn passes(&self) -> bool {
        let text = self.text();
        match self.status {
            StatusCode::NOT_FOUND => text.contains("no lease"),
            StatusCode::UNPROCESSABLE_ENTITY => text.contains("version validation"),
            status => matches!(
                status,
                StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT
            ),
        }
    }

    fn refusal(self, provider: &ProviderView, what: &str) -> GatewayError {
        GatewayError::Refused {
            provider: provider.address.clone(),
            what: what.into(),
            status: self.status.as_u16(),
            body: self.text(),
        }
    }

    fn lease_status(&self) -> LeaseStatus {
        let text = self.text();
        match self.status {
            StatusCode::OK => match serde_json::from_slice::<StatusBody>(&self.body) {
                Ok(body) => body.into(),
                Err(error) => LeaseStatus::Away(format!("its answer cannot be read: {error}")),
            },
            StatusCode::NOT_FOUND if text.is_empty() => LeaseStatus::NoManifest,
            // The manifest is there, its workload is not: being made, or lost.
            StatusCode::NOT_FOUND if text.contains("no deployments") => {
                LeaseStatus::Deployed { ready: 0, uris: Vec::new() }
            }
            status => LeaseStatus::Away(format!("it answers {} {text}", status.as_u16())),
        }
    }
}

#[derive(Deserialize)]
struct StatusBody {
    services: Option<HashMap<String, ServiceBody>>,
}

#[derive(Deserialize)]
struct ServiceBody {
    /// The only number that says that containers run: `available` is filled for stateful sets that
    /// never started.
    #[serde(default)]
    ready_replicas: u32,
    uris: Option<Vec<String>>,
}

impl From<StatusBody> for LeaseStatus {
    fn from(body: StatusBody) -> Self {
        let services = body.services.unwrap_or_default();
        let ready = services
            .values()
            .fold(0, |sum: u32, service| sum.saturating_add(service.ready_replicas));
        let mut uris: Vec<String> =
            services.into_values().filter_map(|service| service.uris).flatten().collect();
        uris.retain(|uri| uri.len() <= 253);
        uris.sort();
        uris.truncate(MAX_URIS);
        Self::Deployed { ready, uris }
    }
}

/// A client without proxies, redirects or HTTP/2: addresses are checked where the connection is
/// made, and nowhere else.
pub(super) fn http(
    config: ClientConfig,
    resolver: PublicResolver,
    time_out: Duration,
) -> Result<reqwest::Client, String> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .dns_resolver(Arc::new(resolver))
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIME_OUT)
        .timeout(time_out)
        .pool_max_idle_per_host(1)
        .pool_idle_timeout(Duration::from_secs(30))
        .user_agent(concat!("akash-redis/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| error.to_string())
}

/// What may go into a log of a text that somebody else wrote: one short line. Long words are cut,
/// for whoever holds our manifest could send its keys back in an error.
pub(super) fn shorten(text: &str) -> String {
    // An address of the chain has 44 characters, the shortest auth key of a control server 48.
    const WORD: usize = 44;
    let words = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .take(40);
    let cut = words.map(|word| match word.char_indices().nth(WORD) {
        Some(_) => format!("{}...", word.chars().take(8).collect::<String>()),
        None => word.to_owned(),
    });
    let mut line = cut.collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(200) {
        line.truncate(end);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_s_text_is_one_short_line_without_long_words() {
        let secret = "s".repeat(60);
        let line = shorten(&format!("invalid\u{1b}[31m manifest:\n {secret} end\n"));
        assert_eq!(line, "invalid [31m manifest: ssssssss... end");
        assert!(shorten(&"word ".repeat(1000)).len() <= 200);
    }

    #[test]
    fn readiness_is_ready_replicas_and_nothing_else() {
        let answer =
            |status, body: &str| Answer { status, body: body.as_bytes().to_vec() }.lease_status();
        let body = r#"{"services":{"redis":{"available":1,"available_replicas":1,"ready_replicas":0,"uris":null}},"forwarded_ports":null,"ips":null}"#;
        assert_eq!(answer(StatusCode::OK, body), LeaseStatus::Deployed { ready: 0, uris: vec![] });
        assert_eq!(answer(StatusCode::NOT_FOUND, ""), LeaseStatus::NoManifest);
        assert!(matches!(
            answer(StatusCode::SERVICE_UNAVAILABLE, "dial tcp"),
            LeaseStatus::Away(_)
        ));
        assert!(matches!(answer(StatusCode::OK, "<html>"), LeaseStatus::Away(_)));
    }
}
