//! The one public page: what anybody may know about this node, signed by its key over the time and the caller's nonce.
//!
//! It is a witness when the mesh is down. It takes no commands and holds no secrets.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::serve::Listener;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::DecodePrivateKey as _;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use crate::model::node::{KEY_SPENT, NodeState, Process, Role};
use crate::model::time::UnixMs;

/// Header with the base64 of the DER signature (ECDSA P-256, SHA-256) over the body's bytes.
pub const SIGNATURE_HEADER: &str = "akash-redis-signature";
/// Longest nonce of a caller.
const LONGEST_NONCE: usize = 64;
/// Complaints of tailscaled on the page, and characters of each: it words them itself, as long as it likes.
const HEALTH_TEXTS: usize = 4;
const HEALTH_TEXT: usize = 200;
/// Connections at most; anybody can open them.
const OPEN: usize = 64;
/// A connection lives for so long.
const LIFE: Duration = Duration::from_secs(10);

/// Content of the page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusPage {
    /// By the node's clock, milliseconds since the Unix epoch.
    pub time: u64,
    /// The caller's.
    pub nonce: String,
    /// Who speaks.
    pub incarnation: String,
    /// Which start of its agent speaks; empty while it waits for its volume. A provider may run two containers of one node.
    #[serde(default)]
    pub boot_id: String,
    /// tailscaled's word, or `Down`; with [`KEY_SPENT`] behind a colon when the node cannot join any more.
    pub mesh: String,
    /// tailscaled's complaints, a few and each cut short.
    #[serde(default)]
    pub health: Vec<String>,
    /// What the redis-server process does.
    pub process: Process,
    /// Its role.
    pub role: Role,
    /// Takes no writes.
    pub fenced: bool,
    /// Highest epoch obeyed.
    pub epoch: u64,
    /// What it lacks, one sentence each.
    pub lacks: Vec<String>,
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    nonce: String,
}

/// The node's key cannot sign.
#[derive(Debug, thiserror::Error)]
#[error("the node's key in its identity is not a P-256 key in PKCS#8 PEM; deliver the manifest anew")]
pub struct KeyError;

#[derive(Clone)]
struct Page {
    states: watch::Receiver<NodeState>,
    key: Arc<SigningKey>,
}

/// Reads the key out of the identity.
pub fn signing_key(pem: &str) -> Result<SigningKey, KeyError> {
    let der = rustls::pki_types::PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError)?;
    SigningKey::from_pkcs8_der(der.secret_pkcs8_der()).map_err(|_| KeyError)
}

/// The value of [`SIGNATURE_HEADER`] for a body.
#[must_use]
pub fn sign(key: &SigningKey, body: &[u8]) -> String {
    let signature: Signature = key.sign(body);
    STANDARD.encode(signature.to_der())
}

/// Serves the page until `stop`.
///
/// It shows the last value of `states`, from before there is a node on.
pub async fn serve(states: watch::Receiver<NodeState>, key: SigningKey, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
    let page = Page { states, key: Arc::new(key) };
    let app = Router::new().route("/", get(answer)).with_state(page);
    let listener = Bounded { listener, open: Arc::new(Semaphore::new(OPEN)) };
    axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn answer(State(page): State<Page>, Query(asked): Query<Asked>) -> Response {
    let plain = asked.nonce.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if asked.nonce.len() > LONGEST_NONCE || !plain {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let state = page.states.borrow().clone();
    let content = StatusPage {
        time: UnixMs::now().0,
        nonce: asked.nonce,
        mesh: mesh(&state),
        incarnation: state.incarnation,
        boot_id: state.boot_id,
        health: state.mesh.health.iter().take(HEALTH_TEXTS).map(|text| text.chars().take(HEALTH_TEXT).collect()).collect(),
        process: state.redis.process,
        role: state.redis.role,
        fenced: state.redis.fenced,
        epoch: state.highest.epoch,
        lacks: state.notes,
    };
    let Ok(body) = serde_json::to_vec(&content) else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let Ok(signature) = HeaderValue::from_str(&sign(&page.key, &body)) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static(SIGNATURE_HEADER), signature);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    (headers, body).into_response()
}

/// tailscaled's word; whoever reads no further learns here that the node will never join.
fn mesh(state: &NodeState) -> String {
    let word = &state.mesh.backend_state;
    if state.key_spent() { format!("{word}: {KEY_SPENT}") } else { word.clone() }
}

/// A listener with a cap on connections, each of which ends after [`LIFE`] whatever it does.
struct Bounded {
    listener: TcpListener,
    open: Arc<Semaphore>,
}

impl Listener for Bounded {
    type Io = Mortal;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Mortal, SocketAddr) {
        loop {
            let Ok(permit) = self.open.clone().acquire_owned().await else { std::future::pending().await };
            if let Ok((stream, address)) = self.listener.accept().await {
                return (Mortal { stream, end: Box::pin(tokio::time::sleep_until(Instant::now() + LIFE)), _permit: permit }, address);
            }
            // Out of descriptors: the pause keeps this loop from burning the CPU meanwhile.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection with an end.
struct Mortal {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl Mortal {
    fn poll_end(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Mortal {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_end(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Mortal {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_end(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
