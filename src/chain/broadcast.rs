//! Sending a transaction and finding out what became of it. Never guesses: what is not certain is
//! asked again.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::codes::{self, Check};
use super::endpoint::{Block, Node, Nodes};
use super::{ChainError, block_time::BlockTime, booking};
use crate::model::chain::{Receipt, SignedTx, TxOutcome};
use crate::model::time::UnixMs;
use crate::retry::{MAX_RETRY, retry};
use crate::wire::cosmos::base::abci::v1beta1::TxResponse;
use crate::wire::cosmos::tx::v1beta1::{BroadcastMode, BroadcastTxRequest, GetTxRequest};

/// How long one call waits at most: a transaction lives 60 s of block time, then a few blocks
/// follow. Longer only when blocks stand still.
const PATIENCE: Duration = Duration::from_mins(2);
/// A waiting transaction may fall out of a node's memory: its bytes are sent again after this time.
const SEND_AGAIN: Duration = Duration::from_secs(10);
/// The same where it is not known whether any node took them.
const UNKNOWN_AGAIN: Duration = Duration::from_secs(1);
/// Blocks past the time-out before a transaction counts as lost: the index of transactions is
/// written after the block, and behind one address several nodes may stand, some a block or two
/// behind.
const MARGIN: i64 = 2;

/// Transactions of which it is remembered that they were never sent.
const MOST_UNSENT: usize = 1000;

/// Transactions signed by this process that were never sent: only for these is a refusal at the
/// door the end of the matter.
#[derive(Default)]
pub(super) struct Unsent(Mutex<HashSet<String>>);

impl Unsent {
    pub fn add(&self, hash: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Only a bound: forgetting one costs a wait, no more.
        if all.len() >= MOST_UNSENT {
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

/// When the bytes are sent again, and when nothing more is waited for.
struct Schedule {
    started: Instant,
    send_at: Instant,
    /// Height of the first block seen past the time-out: nothing is sent from there on.
    too_late_since: Option<i64>,
}

impl Schedule {
    fn new(now: Instant) -> Self {
        Self { started: now, send_at: now, too_late_since: None }
    }

    fn is_due(&self, now: Instant) -> bool {
        now >= self.send_at && self.too_late_since.is_none()
    }

    /// They were sent; sooner again where nobody said what became of that.
    fn sent(&mut self, now: Instant, unknown: bool) {
        self.send_at = now + if unknown { UNKNOWN_AGAIN } else { SEND_AGAIN };
    }

    /// A transaction that is in no block up to this one can be in none any more.
    fn is_lost(&mut self, block: Block, timeout: UnixMs) -> bool {
        block.time() > timeout
            && block.height > *self.too_late_since.get_or_insert(block.height) + MARGIN
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.started) >= PATIENCE
    }
}

/// Between two looks: four in a block.
fn look_every(block_ms: u64) -> Duration {
    Duration::from_millis((block_ms / 4).clamp(50, 1000))
}

/// Sends the bytes and looks until they landed, failed or can no longer land. Also says whether
/// they are in a block, and so were paid for.
pub(super) async fn broadcast_and_confirm(
    nodes: &Nodes,
    block_time: &BlockTime,
    unsent: &Unsent,
    tx: &SignedTx,
) -> Result<(TxOutcome, bool), ChainError> {
    let mut schedule = Schedule::new(Instant::now());
    let mut first = unsent.take(&tx.hash);
    let mut refused = None;
    loop {
        if schedule.is_due(Instant::now()) {
            let result = broadcast(nodes, tx, first).await;
            schedule.sent(Instant::now(), matches!(result, BroadcastResult::Unknown));
            match result {
                BroadcastResult::Waiting => refused = None,
                BroadcastResult::Refused { outcome, certain: true } => return Ok((outcome, false)),
                BroadcastResult::Refused { outcome, certain: false } => refused = Some(outcome),
                BroadcastResult::Unknown => {}
            }
            first = false;
        }
        let found = retry(MAX_RETRY, is_away, || {
            nodes.ask(|node| look(node, tx.hash.clone(), tx.bytes.clone()))
        })
        .await?;
        match found {
            TxLookup::End(outcome) => return Ok((outcome, true)),
            TxLookup::NotFound(block) => {
                block_time.see(block);
                if schedule.is_lost(block, tx.timeout) {
                    return Ok((refused.unwrap_or(TxOutcome::Expired), false));
                }
            }
        }
        if schedule.is_over(Instant::now()) {
            let source = format!(
                "transaction {} neither lands nor expires: the blocks stand still",
                tx.hash
            );
            return Err(ChainError::Away {
                endpoint: "every endpoint".into(),
                source: source.into(),
            });
        }
        tokio::time::sleep(look_every(block_time.block_ms())).await;
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
            outcome: failed(&answer, None),
            certain: first && tries.load(Ordering::Relaxed) == 1,
        },
    }
}

/// Looks a transaction up. The block is read before it, from the same node: what is not found then
/// was in no block up to that one.
async fn look(node: Node, hash: String, bytes: Vec<u8>) -> Result<TxLookup, ChainError> {
    let block = node.latest().await?;
    let request = GetTxRequest { hash };
    let answer = match node.call("a transaction's end", node.txs().get_tx(request)).await {
        Ok(answer) => node.part(answer.tx_response, "end of a transaction")?,
        Err(ChainError::Refused { codespace, code: 5, .. }) if codespace == "grpc" => {
            return Ok(TxLookup::NotFound(block));
        }
        Err(error) => return Err(error),
    };
    let (height, ok) = (answer.height, answer.code == 0);
    let receipt = booking::receipt(height, &answer.timestamp, ok, &answer.events, &bytes);
    Ok(TxLookup::End(if ok {
        TxOutcome::Landed { height, receipt }
    } else {
        failed(&answer, Some(receipt))
    }))
}

fn failed(answer: &TxResponse, receipt: Option<Receipt>) -> TxOutcome {
    let log = codes::say(&answer.codespace, answer.code, &String::from_utf8_lossy(&answer.raw_log));
    let codespace = codes::shorten(&answer.codespace);
    TxOutcome::Failed { codespace, code: answer.code, log, receipt }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(height: i64, ms: u128) -> Block {
        Block { height, nanos: ms * 1_000_000 }
    }

    #[test]
    fn bytes_are_sent_at_once_and_again_while_they_can_land() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut schedule = Schedule::new(start);
        assert!(schedule.is_due(start));
        schedule.sent(start, false);
        assert_eq!([9, 10].map(|s| schedule.is_due(at(s))), [false, true]);
        schedule.sent(at(10), true);
        assert!(!schedule.is_due(at(10)), "not at once");
        assert!(schedule.is_due(at(11)), "soon, where nothing is known");
        assert!(!schedule.is_lost(block(20, 61_000), UnixMs(60_000)));
        assert!(!schedule.is_due(at(60)), "it cannot land any more");
    }

    #[test]
    fn a_transaction_is_lost_some_blocks_after_its_time_out() {
        let mut schedule = Schedule::new(Instant::now());
        let mut lost = |height, ms| schedule.is_lost(block(height, ms), UnixMs(60_000));
        assert!(!lost(10, 60_000), "the last block in which it may be");
        assert_eq!([11, 12, 13, 14].map(|h| lost(h, 60_001)), [false, false, false, true]);
    }

    #[test]
    fn blocks_that_stand_still_are_waited_for_two_minutes() {
        let start = Instant::now();
        let schedule = Schedule::new(start);
        let over = |seconds| schedule.is_over(start + Duration::from_secs(seconds));
        assert_eq!([0, 119, 120].map(over), [false, false, true]);
    }

    #[test]
    fn each_block_is_looked_at_several_times() {
        let every = |block_ms| look_every(block_ms).as_millis();
        assert_eq!([100, 500, 2_000, 6_000].map(every), [50, 125, 500, 1_000]);
    }

    #[test]
    fn a_transaction_is_unsent_once_and_a_thousand_are_remembered() {
        let unsent = Unsent::default();
        for n in 0..MOST_UNSENT {
            unsent.add(&n.to_string());
        }
        assert!(unsent.take("0"));
        assert!(!unsent.take("0"), "it was taken to be sent");
        unsent.add("0");
        unsent.add("one more");
        assert!(!unsent.take("0"));
        assert!(unsent.take("one more"));
    }
}
