//! The one public page: what anybody may know about this node, signed by its key over the time and
//! the caller's nonce.
//!
//! It is a witness when the mesh is down. It takes no commands and holds no secrets.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
use tokio::sync::watch;
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::model::node::{KEY_SPENT, NodeState, Process, Role};
use crate::model::time::UnixMs;

/// Header with the base64 of the DER signature (ECDSA P-256, SHA-256) over the body's bytes.
pub const SIGNATURE_HEADER: &str = "akash-redis-signature";
/// Longest nonce of a caller.
const LONGEST_NONCE: usize = 64;
/// Complaints of tailscaled on the page, and characters of each: it words them itself, as long as
/// it likes.
const HEALTH_TEXTS: usize = 4;
const HEALTH_TEXT: usize = 200;
/// Connections at most; anybody can open them.
const OPEN: usize = 256;
/// A connection lives for so long: a question and its answer are a packet each.
const LIFE: Duration = Duration::from_secs(5);

/// Content of the page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusPage {
    /// By the node's clock, milliseconds since the Unix epoch.
    pub time: u64,
    /// Sent by the caller, so that an old page cannot pass for a new one.
    pub nonce: String,
    /// The incarnation whose page this is.
    pub incarnation: String,
    /// Which start of its agent speaks; empty while it waits for its volume. A provider may run two
    /// containers of one node.
    #[serde(default)]
    pub boot_id: String,
    /// tailscaled's word, or `Down`; with [`KEY_SPENT`] behind a colon when the node cannot join
    /// any more.
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
    /// Highest epoch accepted.
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
#[error(
    "the node's key in its identity is not a P-256 key in PKCS#8 PEM; deliver the manifest anew"
)]
pub struct KeyError;

#[derive(Clone)]
struct Page {
    states: watch::Receiver<NodeState>,
    key: Arc<SigningKey>,
}

/// Reads the key out of the identity.
pub fn signing_key(pem: &str) -> Result<SigningKey, KeyError> {
    let der = rustls::pki_types::PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| KeyError)?;
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
pub async fn serve(
    states: watch::Receiver<NodeState>,
    key: SigningKey,
    listener: TcpListener,
    stop: CancellationToken,
) -> io::Result<()> {
    let page = Page { states, key: Arc::new(key) };
    let app = Router::new().route("/", get(answer)).with_state(page);
    let listener = Bounded::new(listener, OPEN, LIFE);
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
        health: state
            .mesh
            .health
            .iter()
            .take(HEALTH_TEXTS)
            .map(|text| text.chars().take(HEALTH_TEXT).collect())
            .collect(),
        process: state.redis.process,
        role: state.redis.role,
        fenced: state.redis.fenced,
        epoch: state.highest.epoch,
        lacks: state.notes,
    };
    let Ok(body) = serde_json::to_vec(&content) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let Ok(signature) = HeaderValue::from_str(&sign(&page.key, &body)) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static(SIGNATURE_HEADER), signature);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // One question each: the slot is for the next one.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    (headers, body).into_response()
}

/// tailscaled's word; whoever reads no further learns here that the node will never join.
fn mesh(state: &NodeState) -> String {
    let word = &state.mesh.backend_state;
    if state.key_spent() { format!("{word}: {KEY_SPENT}") } else { word.to_string() }
}

/// A listener with a cap on connections, each of which ends after a while whatever it does.
///
/// Nobody is made to wait at the cap: the oldest connection of whoever holds the most makes room.
/// Behind a provider's ingress everybody has one address, so that there the oldest goes; an honest
/// question is asked and answered long before it is the oldest.
struct Bounded {
    listener: TcpListener,
    open: Connections,
    most: usize,
    life: Duration,
}

impl Bounded {
    fn new(listener: TcpListener, most: usize, life: Duration) -> Self {
        Self { listener, open: Connections::default(), most, life }
    }

    fn admit(&self, stream: TcpStream, from: IpAddr) -> LimitedConnection {
        let slot = self.open.take(from, self.most);
        LimitedConnection {
            stream,
            end: Box::pin(tokio::time::sleep(self.life)),
            given_up: Box::pin(slot.end.clone().cancelled_owned()),
            _slot: slot,
        }
    }
}

impl Listener for Bounded {
    type Io = LimitedConnection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (LimitedConnection, SocketAddr) {
        loop {
            if let Ok((stream, address)) = self.listener.accept().await {
                return (self.admit(stream, address.ip()), address);
            }
            // Out of descriptors: the pause keeps this loop from burning the CPU meanwhile.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// The open connections by age.
#[derive(Clone, Default)]
struct Connections(Arc<Mutex<Slots>>);

#[derive(Default)]
struct Slots {
    next: u64,
    taken: BTreeMap<u64, (IpAddr, CancellationToken)>,
}

impl Connections {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot for a connection from this address; another one ends when there are `most`.
    fn take(&self, from: IpAddr, most: usize) -> Slot {
        let mut slots = self.slots();
        while slots.taken.len() >= most.max(1) {
            let Some(oldest) = slots.oldest_of_the_largest_share() else { break };
            if let Some((_, end)) = slots.taken.remove(&oldest) {
                end.cancel();
            }
        }
        let (number, end) = (slots.next, CancellationToken::new());
        slots.next += 1;
        slots.taken.insert(number, (from, end.clone()));
        Slot { open: self.clone(), number, end }
    }
}

impl Slots {
    fn oldest_of_the_largest_share(&self) -> Option<u64> {
        let mut shares: BTreeMap<IpAddr, (usize, u64)> = BTreeMap::new();
        for (number, (from, _)) in &self.taken {
            shares.entry(*from).or_insert((0, *number)).0 += 1;
        }
        shares
            .into_values()
            .max_by_key(|(count, oldest)| (*count, std::cmp::Reverse(*oldest)))
            .map(|(_, oldest)| oldest)
    }
}

/// One of the connections there may be.
struct Slot {
    open: Connections,
    number: u64,
    end: CancellationToken,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.open.slots().taken.remove(&self.number);
    }
}

/// A connection with an end.
struct LimitedConnection {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    given_up: Pin<Box<WaitForCancellationFutureOwned>>,
    _slot: Slot,
}

impl LimitedConnection {
    fn poll_end(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.end.as_mut().poll(context).is_ready() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if self.given_up.as_mut().poll(context).is_ready() {
            Err(io::ErrorKind::ConnectionAborted.into())
        } else {
            Ok(())
        }
    }
}

impl AsyncRead for LimitedConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_end(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for LimitedConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::timeout;

    const PATIENCE: Duration = Duration::from_mins(1);
    /// No connection ends by age while a test runs.
    const FOR_EVER: Duration = Duration::from_hours(1);

    async fn page(most: usize) -> SocketAddr {
        let key = SigningKey::from_slice(&[7; 32]).unwrap();
        let page = Page { states: watch::channel(NodeState::default()).1, key: Arc::new(key) };
        let app = Router::new().route("/", get(answer)).with_state(page);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(Bounded::new(listener, most, FOR_EVER), app).await });
        address
    }

    async fn ask(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        let asked = async {
            stream.write_all(b"GET /?nonce=abc HTTP/1.1\r\nhost: x\r\n\r\n").await?;
            stream.read_to_string(&mut text).await
        };
        timeout(PATIENCE, asked).await.expect("an answer, and the end of the connection").unwrap();
        text
    }

    #[tokio::test]
    async fn connections_that_ask_nothing_do_not_keep_a_question_from_its_answer() {
        let address = page(64).await;
        let mut idle = Vec::new();
        for n in 0..200u32 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if n % 2 == 0 {
                // Half a question is none.
                let _ = stream.write_all(b"GET /?nonce=").await;
            }
            idle.push(stream);
        }
        let mut honest = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut honest).await.starts_with("HTTP/1.1 200 OK"));
        // The oldest were closed, the newest are still there.
        let mut byte = [0];
        let first = timeout(PATIENCE, idle[0].read(&mut byte)).await.expect("closed");
        assert!(matches!(first, Ok(0) | Err(_)), "{first:?}");
        assert_eq!(
            idle.last().unwrap().try_read(&mut byte).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
    }

    #[tokio::test]
    async fn who_holds_the_most_makes_room() {
        let open = Connections::default();
        let from = |n: u8| IpAddr::from([10, 0, 0, n]);
        let quiet = open.take(from(1), 4);
        let mut greedy: Vec<_> = (0..3).map(|_| open.take(from(2), 4)).collect();
        greedy.push(open.take(from(2), 4));
        assert!(!quiet.end.is_cancelled(), "it was there first, and holds one");
        assert_eq!(
            greedy.iter().map(|slot| slot.end.is_cancelled()).collect::<Vec<_>>(),
            [true, false, false, false]
        );
        let other = open.take(from(3), 4);
        assert!(
            greedy[1].end.is_cancelled() && !quiet.end.is_cancelled() && !other.end.is_cancelled()
        );
        drop((quiet, greedy, other));
        assert_eq!(open.slots().taken.len(), 0);
    }
}
