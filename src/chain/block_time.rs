//! How fast blocks follow each other, measured: prices are per block, budgets per month.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use http::uri::PathAndQuery;

use super::ChainError;
use super::endpoint::{Block, Node};
use crate::model::chain::DEFAULT_BLOCK_MS;
use crate::wire::cosmos::base::tendermint::v1beta1::GetLatestBlockResponse;

/// Blocks between two that are looked up at the first reading.
const STRIDE: i64 = 3;
/// So many are looked up: half a minute of half-second blocks, three minutes of the public
/// network's, and surely not pruned.
const LOOKED_UP: i64 = 9;
/// Samples that count, the newest ones: as many as a tick of 5 s sees in a few minutes.
const KEPT: usize = 40;
/// How long the next block is waited for where blocks cannot be looked up.
const PATIENCE: Duration = Duration::from_secs(2);

/// The usual time between blocks of late: the median, because a chain that stood still for hours
/// made but one slow block.
#[derive(Default)]
pub(super) struct BlockTime {
    seen: Mutex<VecDeque<Block>>,
    /// Earlier blocks were looked up, and a next one waited for.
    looked_up: AtomicBool,
}

impl BlockTime {
    /// Adds a sample.
    pub fn see(&self, block: Block) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let at = seen.partition_point(|other| other.height < block.height);
        if seen.get(at).is_none_or(|other| other.height != block.height) {
            seen.insert(at, block);
        }
        if seen.len() > KEPT {
            seen.pop_front();
        }
    }

    /// Milliseconds per block, at least 1; `None` before two different blocks were seen.
    pub fn measured(&self) -> Option<u64> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = seen.make_contiguous();
        let mut paces: Vec<u128> = seen
            .windows(2)
            .filter_map(|pair| {
                let blocks =
                    u128::try_from(pair[1].height - pair[0].height).ok().filter(|n| *n > 0)?;
                Some(pair[1].nanos.saturating_sub(pair[0].nanos) / blocks / 1_000_000)
            })
            .collect();
        paces.sort_unstable();
        // Of two in the middle the shorter one: what is derived from it then costs less rather than
        // more.
        let median = *paces.get(paces.len().checked_sub(1)? / 2)?;
        Some(u64::try_from(median).unwrap_or(u64::MAX).max(1))
    }

    /// Milliseconds per block, or the default.
    pub fn block_ms(&self) -> u64 {
        self.measured().unwrap_or(DEFAULT_BLOCK_MS)
    }

    /// Adds the newest block, and at the first time earlier ones: from the node's store, or else
    /// the next one by waiting a moment. Where both were in vain, later readings tell.
    pub async fn measure(&self, node: &Node, newest: Block) -> Result<(), ChainError> {
        self.see(newest);
        if self.measured().is_some() || self.looked_up.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let heights =
            (1..=LOOKED_UP).map(|n| newest.height - n * STRIDE).filter(|height| *height > 0);
        for block in join_all(heights.map(|height| by_height(node, height))).await {
            match block {
                Ok(block) => self.see(block),
                Err(error) => tracing::debug!(%error, "an earlier block is not there"),
            }
        }
        let started = tokio::time::Instant::now();
        while self.measured().is_none() && started.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.see(node.latest().await?);
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
    let path =
        PathAndQuery::from_static("/cosmos.base.tendermint.v1beta1.Service/GetBlockByHeight");
    let codec =
        tonic_prost::ProstCodec::<GetBlockByHeightRequest, GetLatestBlockResponse>::default();
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
    fn the_median_of_what_was_seen_counts() {
        let block_time = BlockTime::default();
        assert_eq!(block_time.block_ms(), DEFAULT_BLOCK_MS);
        block_time.see(block(100, 1_000_000));
        assert_eq!(block_time.measured(), None);
        block_time.see(block(80, 900_000));
        assert_eq!(block_time.block_ms(), 5000);
        block_time.see(block(120, 1_060_000));
        assert_eq!(block_time.block_ms(), 3000, "of two the shorter one");
        block_time.see(block(140, 1_140_000));
        assert_eq!(block_time.block_ms(), 4000);
        block_time.see(block(140, 9_999_999));
        assert_eq!(block_time.block_ms(), 4000, "a block has one time");
    }

    #[test]
    fn a_chain_that_stood_still_is_not_slow() {
        let block_time = BlockTime::default();
        let halt = 8 * 3600 * 1000;
        // Looked up at the start, right after the halt.
        for n in 0..=9 {
            let after = if n > 7 { halt } else { 0 };
            block_time.see(block(100 + 3 * n, u128::from(n.unsigned_abs()) * 18_000 + after));
        }
        assert_eq!(block_time.block_ms(), 6000);
        // And one more halt while it runs, a block at a time.
        for n in 0..100 {
            block_time.see(block(
                200 + n,
                10 * halt + u128::from(n.unsigned_abs()) * 6000 + if n > 50 { halt } else { 0 },
            ));
            assert_eq!(block_time.block_ms(), 6000);
        }
        // A chain that became faster is soon known.
        (0..30).for_each(|n| {
            block_time.see(block(300 + n, 20 * halt + u128::from(n.unsigned_abs()) * 2000));
        });
        assert_eq!(block_time.block_ms(), 2000);
    }
}
