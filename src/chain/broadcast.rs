//! Sending a transaction and finding out what became of it. Never guesses: what is not certain is
//! asked again.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::codes::{self, Check};
use super::endpoint::{Block, Node, Nodes};
use super::{ChainError, block_time::BlockTime};
use crate::model::chain::{SignedTx, TxOutcome};
use crate::retry::{MAX_RETRY, retry};
use crate::wire::cosmos::base::abci::v1beta1::TxResponse;
use crate::wire::cosmos::tx::v1beta1::{BroadcastMode, BroadcastTxRequest, GetTxRequest};

/// How long one call waits at most: a transaction lives 60 s of block time, then a few blocks
/// follow. Longer only when blocks stand still.
const PATIENCE: Duration = Duration::from_mins(2);
/// A waiting transaction may fall out of a node's memory: its bytes are sent again after this time.
const SEND_AGAIN: Duration = Duration::from_secs(10);
/// Blocks past the time-out before a transaction counts as lost: the index of transactions is
/// written after the block, and behind one address several nodes may stand, some a block or two
/// behind.
const MARGIN: i64 = 2;

/// Transactions signed by this process that were never sent: only for these is a refusal at the
/// door the end of the matter.
#[derive(Default)]
pub(super) struct Unsent(Mutex<HashSet<String>>);

impl Unsent {
    pub fn add(&self, hash: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Only a bound: forgetting one costs a wait, no more.
        if all.len() > 1000 {
            all.clear();
        }
        all.insert(hash.to_owned());
    }

    fn take(&self, hash: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(hash)
    }
}

/// What one look at the chain showed.
enum TxLookup {
    End(TxOutcome),
    NotFound(Block),
}

/// How a transaction was received.
enum BroadcastResult {
    /// It is there, or may be.
    Waiting,
    /// Not taken; `certain` when no node can have taken it before.
    Refused { outcome: TxOutcome, certain: bool },
    /// Nothing is known.
    Unknown,
}

/// Sends the bytes and looks until they landed, failed or can no longer land. Also says whether
/// they are in a block, and so were paid for.
pub(super) async fn broadcast_and_confirm(
    nodes: &Nodes,
    block_time: &BlockTime,
    unsent: &Unsent,
    tx: &SignedTx,
) -> Result<(TxOutcome, bool), ChainError> {
    let started = Instant::now();
    let mut first = unsent.take(&tx.hash);
    let mut refused = None;
    let mut send_at = started;
    let mut too_late_since: Option<i64> = None;
    loop {
        if Instant::now() >= send_at && too_late_since.is_none() {
            send_at = Instant::now() + SEND_AGAIN;
            match broadcast(nodes, tx, first).await {
                BroadcastResult::Waiting => refused = None,
                BroadcastResult::Refused { outcome, certain: true } => return Ok((outcome, false)),
                BroadcastResult::Refused { outcome, certain: false } => refused = Some(outcome),
                BroadcastResult::Unknown => send_at = Instant::now() + Duration::from_secs(1),
            }
            first = false;
        }
        let found =
            retry(MAX_RETRY, is_away, || nodes.ask(|node| look(node, tx.hash.clone()))).await?;
        match found {
            TxLookup::End(outcome) => return Ok((outcome, true)),
            TxLookup::NotFound(block) => {
                block_time.see(block);
                if block.time() > tx.timeout
                    && block.height > *too_late_since.get_or_insert(block.height) + MARGIN
                {
                    return Ok((refused.unwrap_or(TxOutcome::Expired), false));
                }
            }
        }
        if started.elapsed() > PATIENCE {
            let source = format!(
                "transaction {} neither lands nor expires: the blocks stand still",
                tx.hash
            );
            return Err(ChainError::Away {
                endpoint: "every endpoint".into(),
                source: source.into(),
            });
        }
        tokio::time::sleep(Duration::from_millis((block_time.block_ms() / 4).clamp(50, 1000)))
            .await;
    }
}

pub(super) fn is_away(error: &ChainError) -> bool {
    matches!(error, ChainError::Away { .. })
}

/// One round of sending. `first`: nobody can have seen these bytes before.
async fn broadcast(nodes: &Nodes, tx: &SignedTx, first: bool) -> BroadcastResult {
    let tries = Arc::new(AtomicUsize::new(0));
    let sent = nodes.ask(|node| {
        tries.fetch_add(1, Ordering::Relaxed);
        let request =
            BroadcastTxRequest { tx_bytes: tx.bytes.clone(), mode: BroadcastMode::Sync.into() };
        async move {
            let answer = node.call("a transaction", node.txs().broadcast_tx(request)).await?;
            node.part(answer.tx_response, "answer to a transaction")
        }
    });
    let answer = match sent.await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::debug!(hash = %tx.hash, %error, "the answer to a transaction is lost, it is looked up");
            return BroadcastResult::Unknown;
        }
    };
    let log = String::from_utf8_lossy(&answer.raw_log);
    match codes::check(&answer.codespace, answer.code, &log) {
        Check::Accepted | Check::LookUp => BroadcastResult::Waiting,
        Check::Later => BroadcastResult::Unknown,
        Check::Refused => BroadcastResult::Refused {
            outcome: failed(&answer),
            certain: first && tries.load(Ordering::Relaxed) == 1,
        },
    }
}

/// Looks a transaction up. The block is read before it, from the same node: what is not found then
/// was in no block up to that one.
async fn look(node: Node, hash: String) -> Result<TxLookup, ChainError> {
    let block = node.latest().await?;
    let request = GetTxRequest { hash };
    let answer = match node.call("a transaction's end", node.txs().get_tx(request)).await {
        Ok(answer) => node.part(answer.tx_response, "end of a transaction")?,
        Err(ChainError::Refused { codespace, code: 5, .. }) if codespace == "grpc" => {
            return Ok(TxLookup::NotFound(block));
        }
        Err(error) => return Err(error),
    };
    Ok(TxLookup::End(if answer.code == 0 {
        TxOutcome::Landed { height: answer.height }
    } else {
        failed(&answer)
    }))
}

fn failed(answer: &TxResponse) -> TxOutcome {
    let log = codes::say(&answer.codespace, answer.code, &String::from_utf8_lossy(&answer.raw_log));
    TxOutcome::Failed { codespace: codes::shorten(&answer.codespace), code: answer.code, log }
}
