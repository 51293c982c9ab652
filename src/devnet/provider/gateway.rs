//! The REST gateway of a provider: TLS 1.3 with its own certificate, tokens, manifests, the state
//! of leases.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, put};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::certificate::ProviderCertificate;
use super::chain::Account;
use super::host::{LeaseKey, ProviderHost};
use super::jwt::{Claims, Denied, Need, Unproven, bearer};
use super::manifest::Refusal;

/// The gateway's clock, given from outside so that recorded tokens can be judged at their time.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

const HANDSHAKE: Duration = Duration::from_secs(10);
const MAX_BODY: usize = 1024 * 1024;

#[derive(Clone)]
struct Gateway {
    host: Arc<ProviderHost>,
    clock: Clock,
    keys: Arc<Keys>,
}

/// Public keys once read, and the oddity of the real look-up: after an unknown account it answers
/// for nobody new.
#[derive(Default)]
struct Keys {
    known: Mutex<BTreeMap<String, Vec<u8>>>,
    stuck: AtomicBool,
}

/// The certificate that a gateway shows; it can be another one from the next connection on.
pub struct Identity {
    present: Mutex<Arc<ServerConfig>>,
    /// Connections of before end with their next answer.
    changed: AtomicBool,
    /// It is not the first one.
    other: AtomicBool,
}

impl Identity {
    /// Shows this one.
    ///
    /// # Errors
    /// It is none.
    pub fn new(certificate: &ProviderCertificate) -> std::io::Result<Arc<Self>> {
        let present = Mutex::new(config(certificate)?);
        Ok(Arc::new(Self {
            present,
            changed: AtomicBool::new(false),
            other: AtomicBool::new(false),
        }))
    }

    /// Shows this one from now on.
    ///
    /// # Errors
    /// It is none.
    pub fn change(&self, certificate: &ProviderCertificate) -> std::io::Result<()> {
        let config = config(certificate)?;
        *self.present.lock().unwrap_or_else(PoisonError::into_inner) = config;
        self.changed.store(true, Ordering::SeqCst);
        self.other.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Shows the first one again.
    ///
    /// # Errors
    /// It is none.
    pub fn restore(&self, certificate: &ProviderCertificate) -> std::io::Result<()> {
        self.change(certificate)?;
        self.other.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Whether it shows another one than at first.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.other.load(Ordering::SeqCst)
    }

    fn config(&self) -> Arc<ServerConfig> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn config(certificate: &ProviderCertificate) -> std::io::Result<Arc<ServerConfig>> {
    server_config(certificate).map(Arc::new).map_err(std::io::Error::other)
}

/// Serves the gateway until `shutdown`.
pub async fn serve(
    host: Arc<ProviderHost>,
    listener: TcpListener,
    certificate: &ProviderCertificate,
    clock: Clock,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    serve_tls(router(host, clock), listener, certificate, shutdown).await
}

/// Serves the gateway until `shutdown`, with what goes wrong with it.
pub async fn serve_as(
    host: Arc<ProviderHost>,
    listener: TcpListener,
    identity: Arc<Identity>,
    clock: Clock,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let routes = router(host.clone(), clock)
        .layer(middleware::from_fn_with_state((host, identity.clone()), misbehave));
    let tls = TlsListener::start(listener, identity, shutdown.clone())?;
    axum::serve(tls, routes).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

/// The gateway's own faults, before anything is looked at.
async fn misbehave(
    State((host, identity)): State<(Arc<ProviderHost>, Arc<Identity>)>,
    request: Request,
    next: Next,
) -> Response {
    host.faults().speaking().await;
    let mut response = match host.faults().gateway_status() {
        Some(status) => text(status, "the gateway is told to say so"),
        None => next.run(request).await,
    };
    if identity.changed.load(Ordering::SeqCst) {
        let close = header::HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

/// Serves any routes the way a provider does: TLS 1.3, HTTP/1.1, its own certificate for every
/// name.
pub async fn serve_tls(
    routes: Router,
    listener: TcpListener,
    certificate: &ProviderCertificate,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let tls = TlsListener::start(listener, Identity::new(certificate)?, shutdown.clone())?;
    axum::serve(tls, routes).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

/// The routes of a gateway.
pub fn router(host: Arc<ProviderHost>, clock: Clock) -> Router {
    Router::new()
        .route("/version", get(version))
        .route("/address", get(address))
        .route("/status", get(status))
        .route("/deployment/{dseq}/manifest", put(put_manifest))
        .route("/lease/{dseq}/{gseq}/{oseq}/manifest", get(get_manifest))
        .route("/lease/{dseq}/{gseq}/{oseq}/status", get(lease_status))
        .route("/lease/{dseq}/{gseq}/{oseq}/service/{name}/status", get(service_status))
        .route("/lease/{dseq}/{gseq}/{oseq}/{stream}", get(stream))
        .fallback(async || text(404, "404 page not found"))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Gateway { host, clock, keys: Arc::default() })
}

impl Gateway {
    /// Who calls; public routes refuse a bad token too.
    async fn caller(&self, headers: &HeaderMap) -> Result<Option<Claims>, Response> {
        let header = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap_or("?"));
        let Some(token) = bearer(header).map_err(denied)? else { return Ok(None) };
        let unproven = Unproven::read(token).map_err(denied)?;
        let key = self.public_key(&unproven.account()).await?;
        let now = (self.clock)().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        unproven.prove(&key, now).map(Some).map_err(denied)
    }

    async fn public_key(&self, account: &str) -> Result<Vec<u8>, Response> {
        if let Some(key) = self.keys.lock().get(account) {
            return Ok(key.clone());
        }
        if self.keys.stuck.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        match self.host.chain().account(account).await {
            Ok(Account::Key(key)) => {
                self.keys.lock().insert(account.to_owned(), key.clone());
                Ok(key)
            }
            Ok(Account::WithoutKey) => crash(),
            Ok(Account::Unknown) => {
                self.keys.stuck.store(true, Ordering::Relaxed);
                Err(denied(Denied::Token))
            }
            Err(error) => Err(text(500, &error)),
        }
    }

    /// The account of a caller with any good token.
    async fn somebody(&self, headers: &HeaderMap) -> Result<Claims, Response> {
        self.caller(headers).await?.ok_or_else(|| denied(Denied::Unauthorized))
    }

    /// The lease in a path, for a caller whose token covers it; `scope` is `None` where any token
    /// will do.
    async fn lease(
        &self,
        headers: &HeaderMap,
        path: &LeasePath,
        scope: Option<&str>,
    ) -> Result<LeaseKey, Response> {
        let claims = self.somebody(headers).await?;
        let wrong = |words: String| text(400, &words);
        let dseq = number(&path.0).map_err(wrong)?;
        let (gseq, oseq) = (number(&path.1).map_err(wrong)?, number(&path.2).map_err(wrong)?);
        let need = scope.map(|scope| Need {
            scope,
            provider: &self.host.name().address,
            dseq,
            order: Some((gseq, oseq)),
        });
        if need.is_some_and(|need| !claims.allow(&need)) {
            return Err(denied(Denied::Unauthorized));
        }
        Ok(LeaseKey { owner: claims.iss, dseq, gseq, oseq })
    }
}

impl Keys {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type LeasePath = (String, String, String);
type Answer = Result<Response, Response>;

async fn version(State(gateway): State<Gateway>, headers: HeaderMap) -> Answer {
    gateway.caller(&headers).await?;
    let akash = json!({"name": "", "server_name": "<appd>", "version": "", "commit": "", "build_tags": "", "go": "", "build_deps": null,
        "cosmos_sdk_version": "v0.53.6"});
    let kube = json!({"major": "", "minor": "", "gitVersion": "devnet", "gitCommit": "", "gitTreeState": "", "buildDate": "",
        "goVersion": "", "compiler": "", "platform": "linux/amd64"});
    Ok(json_answer(&json!({"akash": akash, "kube": kube})))
}

async fn address(State(gateway): State<Gateway>, headers: HeaderMap) -> Answer {
    gateway.caller(&headers).await?;
    Ok(json_answer(&json!({"address": gateway.host.name().address})))
}

async fn status(State(gateway): State<Gateway>, headers: HeaderMap) -> Answer {
    gateway.caller(&headers).await?;
    let (leases, manifests) = gateway.host.counts();
    let name = gateway.host.name();
    Ok(json_answer(&json!({
        "cluster": {"leases": leases, "inventory": {"available": {"nodes": []}}}, "bidengine": {"orders": 0},
        "manifest": {"deployments": manifests}, "cluster_public_hostname": name.hostname, "address": name.address,
    })))
}

async fn put_manifest(
    State(gateway): State<Gateway>,
    Path(dseq): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let claims = gateway.somebody(&headers).await?;
    let dseq = number(&dseq).map_err(|words| text(400, &words))?;
    if !claims.allow(&Need {
        scope: "send-manifest",
        provider: &gateway.host.name().address,
        dseq,
        order: None,
    }) {
        return Err(denied(Denied::Unauthorized));
    }
    match gateway.host.put_manifest(&claims.iss, dseq, &body).await {
        Ok(()) => Ok(StatusCode::OK.into_response()),
        Err(Refusal::Answer(status, words)) => Err(text(status, &words)),
        Err(Refusal::Crash) => crash(),
    }
}

async fn get_manifest(
    State(gateway): State<Gateway>,
    Path(path): Path<LeasePath>,
    headers: HeaderMap,
) -> Answer {
    let key = gateway.lease(&headers, &path, Some("get-manifest")).await?;
    gateway
        .host
        .manifest_json(&key)
        .map(|manifest| json_answer(&manifest))
        .ok_or_else(|| text(404, "lease not found"))
}

async fn lease_status(
    State(gateway): State<Gateway>,
    Path(path): Path<LeasePath>,
    headers: HeaderMap,
) -> Answer {
    let key = gateway.lease(&headers, &path, Some("status")).await?;
    let found = gateway.host.service_name(&key).zip(gateway.host.service_json(&key));
    let (name, service) = found.ok_or_else(|| StatusCode::NOT_FOUND.into_response())?;
    Ok(json_answer(&json!({"services": {name: service}, "forwarded_ports": null, "ips": null})))
}

async fn service_status(
    State(gateway): State<Gateway>,
    Path((dseq, gseq, oseq, name)): Path<(String, String, String, String)>,
    headers: HeaderMap,
) -> Answer {
    let key = gateway.lease(&headers, &(dseq, gseq, oseq), None).await?;
    let found =
        gateway.host.service_name(&key).ok_or_else(|| text(404, "kube: lease not found"))?;
    if found != name {
        return Err(text(404, "kube: no service for that lease"));
    }
    gateway
        .host
        .service_json(&key)
        .map(|service| json_answer(&service))
        .ok_or_else(|| text(404, "kube: lease not found"))
}

/// Logs, events and shell go over web sockets, which are not served here: callers get as far as the
/// refusal of a plain request.
async fn stream(
    State(gateway): State<Gateway>,
    Path((dseq, gseq, oseq, name)): Path<(String, String, String, String)>,
    headers: HeaderMap,
) -> Answer {
    let scope = match name.as_str() {
        "logs" => "logs",
        "kubeevents" => "events",
        "shell" => "shell",
        _ => return Err(text(404, "404 page not found")),
    };
    gateway.lease(&headers, &(dseq, gseq, oseq), Some(scope)).await?;
    Err(text(400, "Bad Request"))
}

/// A number of a path, refused in the words of Go's parser.
fn number<T: std::str::FromStr>(digits: &str) -> Result<T, String> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let why = if all_digits { "value out of range" } else { "invalid syntax" };
    let words = || format!("strconv.ParseUint: parsing {digits:?}: {why}");
    if all_digits { digits.parse().map_err(|_| words()) } else { Err(words()) }
}

fn text(status: u16, words: &str) -> Response {
    let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (code, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], format!("{words}\n"))
        .into_response()
}

fn json_answer(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json; charset=UTF-8")], value.to_string()).into_response()
}

fn denied(why: Denied) -> Response {
    let mut response = json_answer(&json!({"message": why.to_string()}));
    *response.status_mut() = StatusCode::from_u16(why.status()).unwrap_or(StatusCode::UNAUTHORIZED);
    response
}

/// Ends the connection without an answer, as the real gateway does where its handler panics.
fn crash() -> ! {
    std::panic::resume_unwind(Box::new("the gateway gives up this connection"))
}

/// Connections that have come through the TLS handshake.
struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    local: SocketAddr,
}

impl TlsListener {
    fn start(
        listener: TcpListener,
        identity: Arc<Identity>,
        shutdown: CancellationToken,
    ) -> std::io::Result<Self> {
        let local = listener.local_addr()?;
        let (done, ready) = mpsc::channel(16);
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = shutdown.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                // An accept that fails (too many open files) is tried again, but not in a tight
                // loop.
                let Ok((stream, peer)) = accepted else {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let (acceptor, done) = (TlsAcceptor::from(identity.config()), done.clone());
                tokio::spawn(async move {
                    if let Ok(Ok(stream)) =
                        tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await
                    {
                        let _ = done.send((stream, peer)).await;
                    }
                });
            }
        });
        Ok(Self { ready, local })
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(self.local)
    }
}

fn server_config(certificate: &ProviderCertificate) -> Result<ServerConfig, rustls::Error> {
    let chain = vec![CertificateDer::from(certificate.der.clone())];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certificate.key_der.clone()));
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)
}
