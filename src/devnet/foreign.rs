//! A chain that is not of this program: a sandbox of the network's, or a node on this machine.

use std::time::Duration;

use prost_types::Timestamp;
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;
use tonic::transport::{Channel, ClientTlsConfig};

use crate::wire::cosmos::base::tendermint::v1beta1::GetLatestBlockRequest;
use crate::wire::cosmos::base::tendermint::v1beta1::service_client::ServiceClient;

/// A call to the chain takes no longer.
const CALL: Duration = Duration::from_secs(10);
/// Blocks between which the time is measured.
const BLOCKS: i64 = 3;
/// A chain that makes no such blocks in this time stands still.
const PATIENCE: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(100);

/// The chain cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ForeignError {
    /// No URL.
    #[error(
        "`{url}` cannot be called ({source}); write it like http://127.0.0.1:9090 or https://grpc.example.org:443"
    )]
    Url {
        /// As it was given.
        url: String,
        /// Why not.
        source: tonic::transport::Error,
    },
    /// No answer.
    #[error(
        "the chain at {url} does not answer ({status}); start its node, or give another address with --grpc"
    )]
    Away {
        /// Where.
        url: String,
        /// What the transport said.
        status: Box<Status>,
    },
    /// The answer lacks something.
    #[error(
        "{0} answers, but not as a node of a chain does; give its gRPC address with --grpc, not its RPC address"
    )]
    InvalidResponse(String),
    /// Another chain.
    #[error(
        "{url} is a node of {found}, not of {wanted}; give the right --chain-id or another --grpc"
    )]
    Other {
        /// Where.
        url: String,
        /// What it says.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// No blocks.
    #[error(
        "the chain at {0} made no {BLOCKS} blocks in a minute, so its block time is not known; give it with --block-time"
    )]
    Still(String),
}

/// A chain behind a URL.
#[derive(Clone, Debug)]
pub struct Foreign {
    url: String,
    channel: Channel,
}

impl Foreign {
    /// Connects at the first call.
    ///
    /// # Errors
    /// The text is no URL.
    pub fn new(url: &str) -> Result<Self, ForeignError> {
        let bad = |source| ForeignError::Url { url: url.to_owned(), source };
        let mut endpoint = Channel::from_shared(url.to_owned())
            .map_err(|_| ForeignError::InvalidResponse(url.to_owned()))?
            .timeout(CALL)
            .connect_timeout(CALL);
        if url.starts_with("https://") {
            let tls = ClientTlsConfig::new()
                .trust_anchors(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            endpoint = endpoint.tls_config(tls).map_err(bad)?;
        }
        Ok(Self { url: url.to_owned(), channel: endpoint.connect_lazy() })
    }

    /// For clients of it.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Makes sure that it is there and the one that is meant.
    ///
    /// # Errors
    /// It does not answer, or is another chain.
    pub async fn check(&self, chain_id: &str) -> Result<(), ForeignError> {
        let (found, ..) = self.latest().await?;
        if found == chain_id {
            return Ok(());
        }
        Err(ForeignError::Other { url: self.url.clone(), found, wanted: chain_id.to_owned() })
    }

    /// Time between blocks, measured on the next ones by their own times.
    ///
    /// # Errors
    /// It does not answer, or makes no blocks.
    pub async fn block_time(&self) -> Result<Duration, ForeignError> {
        let (_, first, since) = self.latest().await?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            sleep(POLL).await;
            let (_, height, time) = self.latest().await?;
            if height >= first + BLOCKS {
                let passed = u64::try_from((time - since).max(1)).unwrap_or(1);
                return Ok(Duration::from_nanos(passed / (height - first).unsigned_abs()));
            }
        }
        Err(ForeignError::Still(self.url.clone()))
    }

    /// Chain id, height and time in nanoseconds of the newest block.
    async fn latest(&self) -> Result<(String, i64, i128), ForeignError> {
        let away = |status| ForeignError::Away { url: self.url.clone(), status: Box::new(status) };
        let mut blocks = ServiceClient::new(self.channel());
        let answer = timeout(CALL, blocks.get_latest_block(GetLatestBlockRequest {})).await;
        let answer = answer
            .map_err(|_| away(Status::deadline_exceeded("no answer in 10 s")))?
            .map_err(away)?
            .into_inner();
        let header = answer.sdk_block.and_then(|block| block.header);
        let header = header.and_then(|h| Some((h.chain_id, h.height, nanos(h.time?))));
        header.ok_or_else(|| ForeignError::InvalidResponse(self.url.clone()))
    }
}

fn nanos(time: Timestamp) -> i128 {
    i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos)
}
