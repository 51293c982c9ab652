//! How fast blocks follow each other, measured: prices are per block, budgets per month.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::uri::PathAndQuery;

use super::ChainError;
use super::endpoint::{Block, Node};
use crate::wire::cosmos::base::tendermint::v1beta1::GetLatestBlockResponse;

/// Block time of the public network, for as long as nothing was measured.
const USUAL_MS: u64 = 6100;
/// Blocks to look back at the first reading: a few minutes at most, and surely not pruned.
const LOOK_BACK: i64 = 20;
/// How long the next block is waited for where blocks cannot be looked up.
const PATIENCE: Duration = Duration::from_secs(2);

/// Mean time between blocks over the life of this process.
#[derive(Default)]
pub(super) struct Pace(Mutex<Option<(Block, Block)>>);

impl Pace {
    /// Adds a sample.
    pub fn see(&self, block: Block) {
        let mut span = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match span.as_mut() {
            Some((first, _)) if block.height < first.height => *first = block,
            Some((_, last)) if block.height > last.height => *last = block,
            Some(_) => {}
            None => *span = Some((block, block)),
        }
    }

    /// Milliseconds per block, at least 1; `None` before two different blocks were seen.
    pub fn measured(&self) -> Option<u64> {
        let (first, last) = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        let blocks = u128::try_from(last.height - first.height).ok().filter(|n| *n > 0)?;
        let ms = last.nanos.saturating_sub(first.nanos) / blocks / 1_000_000;
        Some(u64::try_from(ms).unwrap_or(u64::MAX).max(1))
    }

    /// Milliseconds per block, or the usual figure.
    pub fn block_ms(&self) -> u64 {
        self.measured().unwrap_or(USUAL_MS)
    }

    /// Adds the newest block, and at the first time an earlier one: from the node's store, or else the next one by waiting a moment.
    pub async fn measure(&self, node: &Node, newest: Block) -> Result<(), ChainError> {
        self.see(newest);
        if self.measured().is_some() {
            return Ok(());
        }
        match by_height(node, (newest.height - LOOK_BACK).max(1)).await {
            Ok(block) => self.see(block),
            Err(error) => {
                tracing::debug!(%error, "the node does not look blocks up, the next one is waited for");
                let started = tokio::time::Instant::now();
                while self.measured().is_none() && started.elapsed() < PATIENCE {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    self.see(node.latest().await?);
                }
            }
        }
        Ok(())
    }
}

/// Request of `GetBlockByHeight`; its answer has the form of `GetLatestBlock`'s.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct GetBlockByHeightRequest {
    #[prost(int64, tag = "1")]
    height: i64,
}

async fn by_height(node: &Node, height: i64) -> Result<Block, ChainError> {
    let mut grpc = tonic::client::Grpc::new(node.connection());
    grpc.ready().await.map_err(|e| node.away(e))?;
    let path = PathAndQuery::from_static("/cosmos.base.tendermint.v1beta1.Service/GetBlockByHeight");
    let codec = tonic_prost::ProstCodec::<GetBlockByHeightRequest, GetLatestBlockResponse>::default();
    let request = tonic::Request::new(GetBlockByHeightRequest { height });
    let answer = node.call("an earlier block", grpc.unary(request, path, codec)).await?;
    node.block(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(height: i64, ms: u128) -> Block {
        Block { height, nanos: ms * 1_000_000 }
    }

    #[test]
    fn the_mean_is_over_all_that_was_seen() {
        let pace = Pace::default();
        assert_eq!(pace.block_ms(), USUAL_MS);
        pace.see(block(100, 1_000_000));
        assert_eq!(pace.measured(), None);
        pace.see(block(80, 900_000));
        assert_eq!(pace.block_ms(), 5000);
        pace.see(block(120, 1_060_000));
        assert_eq!(pace.block_ms(), 4000);
    }
}
