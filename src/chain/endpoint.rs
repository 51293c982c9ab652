//! The chain's gRPC endpoints: one connection each, the next one when one is away.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use prost_types::Timestamp;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, ClientTlsConfig};
use tonic::{Code, Request, Response, Status};

use super::introduce::Introduction;
use super::rest::{self, Heard, Rest};
use super::{ChainError, codes};
use crate::error_chain::causes;
use crate::model::time::UnixMs;
use crate::wire::akash::{audit, bme, cert, deployment, discovery, market, oracle, provider};
use crate::wire::cosmos::base::tendermint::v1beta1 as blocks;
use crate::wire::cosmos::{auth, authz, bank, feegrant, tx};

/// A node that does not take a connection in this time is away.
const CONNECT: Duration = Duration::from_secs(3);
/// A node that does not answer a request in this time is away.
pub(super) const ANSWER: Duration = Duration::from_secs(10);
/// A connection on which nothing came for this time is probed, while a request waits. Servers in Go
/// take two probes without traffic in between as good manners, not three: no request waits that
/// long.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// When all endpoints ask to be let alone, one that soon may be asked again is waited for so long.
const PATIENCE: Duration = Duration::from_secs(3);
/// No answer of ours comes near this size: a page holds 1000 items, of which those of the market take
/// half a kilobyte each, and a provider with a hundred attributes six.
const MAX_ANSWER: usize = 16 << 20;

/// A block's height and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub height: i64,
    /// Nanoseconds since the Unix epoch.
    pub nanos: u128,
}

impl Block {
    pub fn time(self) -> UnixMs {
        UnixMs(u64::try_from(self.nanos / 1_000_000).unwrap_or(u64::MAX))
    }
}

/// Nanoseconds since the Unix epoch; `None` before it.
pub(super) fn nanos(time: Timestamp) -> Option<u128> {
    let seconds = u128::try_from(time.seconds).ok()?;
    Some(seconds * 1_000_000_000 + u128::try_from(time.nanos).ok()?)
}

/// Adds the height to a request whose answer must be of that height.
#[derive(Clone, Default)]
pub(super) struct Pin(Option<MetadataValue<Ascii>>);

impl Interceptor for Pin {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(height) = &self.0 {
            request.metadata_mut().insert("x-cosmos-block-height", height.clone());
        }
        Ok(request)
    }
}

pub(super) type Pinned = InterceptedService<Heard, Pin>;

/// A status that was no answer, in words for people: what failed, and the reason at the bottom of
/// it.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct NoAnswer {
    text: String,
    source: Status,
}

impl From<Status> for NoAnswer {
    fn from(source: Status) -> Self {
        let bottom = source.source().and_then(|first| causes(first).last());
        let (text, bottom) = (
            codes::shorten(source.message()),
            bottom.map(|error| codes::shorten(&error.to_string())),
        );
        let text = match bottom {
            Some(bottom) if text.is_empty() || bottom.contains(&text) => bottom,
            Some(bottom) => format!("{text}: {bottom}"),
            None => text,
        };
        Self { text, source }
    }
}

/// One endpoint; a clone uses the same connection.
#[derive(Clone)]
pub(super) struct Node {
    uri: Arc<str>,
    chain_id: Arc<str>,
    channel: Channel,
    pin: Pin,
    /// What it said of itself.
    introduction: Arc<Introduction>,
    /// Whether it is to be let alone.
    rest: Arc<Rest>,
}

macro_rules! services {
    ($($name:ident: $package:path;)*) => {
        $(pub fn $name(&self) -> $package {
            <$package>::new(self.connection()).max_decoding_message_size(MAX_ANSWER)
        })*
    };
}

impl Node {
    fn new(chain_id: &str, uri: &str) -> Result<Self, ChainError> {
        let bad = |source: Box<dyn Error + Send + Sync>| ChainError::Away {
            endpoint: uri.to_owned(),
            source,
        };
        let endpoint = Channel::from_shared(uri.to_owned()).map_err(|e| bad(e.into()))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            // A peer that vanished is noticed within one request, and the next one makes a new
            // connection.
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(CONNECT);
        let endpoint = match endpoint.uri().scheme_str() {
            Some("https") => {
                let tls = ClientTlsConfig::new()
                    .trust_anchors(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
                endpoint.tls_config(tls).map_err(|e| bad(e.into()))?
            }
            Some("http") => endpoint,
            _ => return Err(bad("an endpoint is written like https://host:port".into())),
        };
        Ok(Self {
            uri: uri.into(),
            chain_id: chain_id.into(),
            channel: endpoint.connect_lazy(),
            pin: Pin::default(),
            introduction: Arc::default(),
            rest: Arc::default(),
        })
    }

    /// The same node, whose answers are all of one height.
    pub fn at(&self, height: i64) -> Self {
        Self { pin: Pin(Some(height.into())), ..self.clone() }
    }

    services! {
        audits: audit::v1::query_client::QueryClient<Pinned>;
        accounts: auth::v1beta1::query_client::QueryClient<Pinned>;
        allowances: feegrant::v1beta1::query_client::QueryClient<Pinned>;
        balances: bank::v1beta1::query_client::QueryClient<Pinned>;
        blocks: blocks::service_client::ServiceClient<Pinned>;
        certificates: cert::v1::query_client::QueryClient<Pinned>;
        bme: bme::v1::query_client::QueryClient<Pinned>;
        deployments: deployment::v1beta4::query_client::QueryClient<Pinned>;
        discovery: discovery::v1::discovery_client::DiscoveryClient<Pinned>;
        grants: authz::v1beta1::query_client::QueryClient<Pinned>;
        market: market::v1beta5::query_client::QueryClient<Pinned>;
        oracle: oracle::v2::query_client::QueryClient<Pinned>;
        providers: provider::v1beta4::query_client::QueryClient<Pinned>;
        txs: tx::v1beta1::service_client::ServiceClient<Pinned>;
    }

    /// The connection itself, for a method that the generated clients do not have.
    pub fn connection(&self) -> Pinned {
        let heard = Heard::new(self.channel.clone(), self.rest.clone());
        InterceptedService::new(heard, self.pin.clone())
    }

    /// Where it is.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// What it said of itself.
    pub fn introduction(&self) -> &Introduction {
        &self.introduction
    }

    /// Waits for one answer, in time.
    pub async fn call<T>(
        &self,
        what: &str,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, ChainError> {
        match tokio::time::timeout(ANSWER, answer).await {
            Ok(Ok(response)) => {
                self.rest.end();
                Ok(response.into_inner())
            }
            Ok(Err(status)) => Err(self.error(what, status)),
            Err(elapsed) => Err(self.away(elapsed)),
        }
    }

    /// The newest block; an endpoint of another chain is found out here.
    pub async fn latest(&self) -> Result<Block, ChainError> {
        let answer = self
            .call(
                "the latest block",
                self.blocks().get_latest_block(blocks::GetLatestBlockRequest {}),
            )
            .await?;
        self.block(answer)
    }

    /// Reads the block of an answer.
    pub fn block(&self, answer: blocks::GetLatestBlockResponse) -> Result<Block, ChainError> {
        // Nodes of before `sdk_block` fill the other field.
        let (chain_id, height, time) =
            match (answer.sdk_block.and_then(|b| b.header), answer.block.and_then(|b| b.header)) {
                (Some(header), _) => (header.chain_id, header.height, header.time),
                (None, Some(header)) => (header.chain_id, header.height, header.time),
                (None, None) => return Err(self.invalid("a block without a header")),
            };
        if *chain_id != *self.chain_id {
            return Err(self.invalid(format!("it is a node of {}", codes::shorten(&chain_id))));
        }
        let nanos = time.and_then(nanos).ok_or_else(|| self.invalid("a block without a time"))?;
        if height < 1 {
            return Err(self.invalid(format!("a block of height {height}")));
        }
        Ok(Block { height, nanos })
    }

    pub fn away(&self, source: impl Into<Box<dyn Error + Send + Sync>>) -> ChainError {
        ChainError::Away { endpoint: self.uri.to_string(), source: source.into() }
    }

    pub fn invalid(&self, detail: impl Into<String>) -> ChainError {
        ChainError::InvalidResponse {
            endpoint: self.uri.to_string(),
            chain_id: self.chain_id.to_string(),
            detail: detail.into(),
        }
    }

    /// What an answer was missing, as an error.
    pub fn part<T>(&self, part: Option<T>, name: &str) -> Result<T, ChainError> {
        part.ok_or_else(|| self.invalid(format!("no {name}")))
    }

    pub(super) fn error(&self, what: &str, status: Status) -> ChainError {
        if status.code() == Code::ResourceExhausted {
            self.rest.begin(rest::asked(status.metadata().as_ref()));
        }
        if status.code() == Code::Unavailable {
            self.introduction.forget();
        }
        let text = status.message();
        if text.contains(codes::NO_FEE_GRANT) {
            // Under a code that says nothing of it.
            let (codespace, code) = (codes::SDK.to_owned(), codes::NOT_FOUND);
            let log = codes::say(&codespace, code, text);
            return ChainError::Refused { what: what.to_owned(), codespace, code, log };
        }
        match status.code() {
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::ResourceExhausted
            | Code::Aborted => self.away(NoAnswer::from(status)),
            // Behind the node that named the height, or pruned: another one, or the same a moment
            // later, can tell.
            _ if text.contains("height in the future")
                || text.contains("failed to load state at height") =>
            {
                self.away(NoAnswer::from(status))
            }
            Code::Internal if !text.contains("decode") => self.away(NoAnswer::from(status)),
            // No answer of a node but a broken connection.
            Code::Unknown
                if status.source().is_some() || text.starts_with("Service was not ready") =>
            {
                self.away(NoAnswer::from(status))
            }
            Code::Internal
            | Code::OutOfRange
            | Code::DataLoss
            | Code::Unimplemented
            | Code::Unauthenticated
            | Code::PermissionDenied => self.invalid(format!("{what}: {}", codes::shorten(text))),
            code => {
                let (codespace, number) = codes::from_text(text).unwrap_or_else(|| {
                    ("grpc".into(), u32::try_from(i32::from(code)).unwrap_or_default())
                });
                let log = codes::say(&codespace, number, text);
                ChainError::Refused { what: what.to_owned(), codespace, code: number, log }
            }
        }
    }
}

/// All endpoints, the one that answered last first.
pub(super) struct Nodes {
    nodes: Vec<Node>,
    preferred: AtomicUsize,
}

impl Nodes {
    /// Nothing is connected yet. Must be called within a tokio runtime.
    pub fn new(chain_id: &str, uris: &[String]) -> Result<Self, ChainError> {
        let nodes: Vec<_> =
            uris.iter().map(|uri| Node::new(chain_id, uri)).collect::<Result<_, _>>()?;
        if nodes.is_empty() {
            return Err(ChainError::Away {
                endpoint: "(none)".into(),
                source: "no endpoint is configured".into(),
            });
        }
        Ok(Self { nodes, preferred: AtomicUsize::new(0) })
    }

    /// Asks one node after the other until one answers, be it with a refusal; one whose answer goes
    /// beyond our own limits is no use either. Each is asked for its chain id before its first use.
    /// The error of the first one comes back when none answers.
    /// Endpoints that asked to be let alone are; when all did, the first that may be asked again is
    /// waited for, if that is soon.
    pub async fn ask<T, Fut>(&self, op: impl Fn(Node) -> Fut) -> Result<T, ChainError>
    where
        Fut: Future<Output = Result<T, ChainError>>,
    {
        self.until_one_may_be_asked().await;
        let answer = self.ask_round(&op).await;
        if matches!(answer, Err(ChainError::Away { .. })) && self.until_one_may_be_asked().await {
            return self.ask_round(&op).await;
        }
        answer
    }

    /// Whether something was waited for.
    async fn until_one_may_be_asked(&self) -> bool {
        let rests: Option<Vec<_>> = self.nodes.iter().map(|node| node.rest.left()).collect();
        match rests.and_then(|rests| rests.into_iter().min()).filter(|left| *left <= PATIENCE) {
            Some(left) => {
                tokio::time::sleep(left).await;
                true
            }
            None => false,
        }
    }

    async fn ask_round<T, Fut>(&self, op: &impl Fn(Node) -> Fut) -> Result<T, ChainError>
    where
        Fut: Future<Output = Result<T, ChainError>>,
    {
        let start = self.preferred.load(Ordering::Relaxed);
        let mut first = None;
        for offset in 0..self.nodes.len() {
            let index = (start + offset) % self.nodes.len();
            let node = &self.nodes[index];
            let answer = if let Some(left) = node.rest.left() {
                let seconds = left.as_secs() + 1;
                Err(node.away(format!("it asks to be let alone for {seconds} s more")))
            } else {
                match node.introduce().await {
                    Ok(()) => op(node.clone()).await,
                    Err(error) => Err(error),
                }
            };
            match answer {
                Err(
                    error @ (ChainError::Away { .. }
                    | ChainError::InvalidResponse { .. }
                    | ChainError::NotSent { .. }),
                ) => {
                    tracing::debug!(endpoint = %node.uri, %error, "the next endpoint is asked");
                    first.get_or_insert(error);
                }
                answer => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return answer;
                }
            }
        }
        Err(first.unwrap_or_else(|| unreachable!("there is at least one endpoint")))
    }

    /// Turns to the endpoint with the newest block; the ones that do not answer in time have none.
    /// With one endpoint there is no choice.
    pub async fn prefer_newest(&self) {
        if self.nodes.len() < 2 {
            return;
        }
        // Those that ask to be let alone have none either.
        let latest = join_all(self.nodes.iter().map(|node| async {
            match node.rest.left() {
                None => node.latest().await,
                Some(_) => Err(node.away("it asks to be let alone")),
            }
        }))
        .await;
        let heights = latest
            .into_iter()
            .enumerate()
            .filter_map(|(index, block)| Some((block.ok()?.height, index)));
        let present = self.preferred.load(Ordering::Relaxed);
        // Of those at one height the present one stays.
        let best = heights.max_by_key(|(height, index)| (*height, *index == present));
        if let Some((height, index)) = best.filter(|(_, index)| *index != present) {
            tracing::info!(endpoint = %self.nodes[index].uri, behind = %self.nodes[present].uri, height, "an endpoint is behind, another one is asked");
            self.preferred.store(index, Ordering::Relaxed);
        }
    }

    /// All of them, in the order of the settings.
    pub fn all(&self) -> &[Node] {
        &self.nodes
    }
}
