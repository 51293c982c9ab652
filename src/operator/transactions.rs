//! Transactions: their bytes are kept, then broadcast until their end is known, by this process or
//! by a later one. Nothing else is signed for a deployment meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::books::Bookkeeper;
use super::execute::EffectError;
use super::lock;
use crate::chain::Chain;
use crate::model::chain::{ChainMsg, NO_DEPLOYMENT, SignedTx, TxOutcome};
use crate::store::{Outbox, StoreError};

/// Between two attempts to learn the end of a transaction.
const RESUME_PAUSE: Duration = Duration::from_secs(2);

/// The transactions of this process and those that it took over.
pub struct Transactions {
    chain: Arc<dyn Chain>,
    outbox: Arc<dyn Outbox>,
    books: Arc<Bookkeeper>,
    /// By hash.
    pending: Mutex<BTreeMap<String, Pending>>,
    /// Deployments whose creation is about to be signed.
    announced: Arc<Mutex<BTreeSet<u64>>>,
}

/// A transaction that may still land, or landed in a block that no reading has reached yet.
struct Pending {
    dseq: u64,
    /// Height of its block, once that is known.
    landed: Option<i64>,
}

/// Deployments about which no reading is believed until this is dropped.
pub struct Announcement {
    dseqs: Vec<u64>,
    all: Arc<Mutex<BTreeSet<u64>>>,
}

impl Drop for Announcement {
    fn drop(&mut self) {
        let mut all = lock(&self.all);
        for dseq in &self.dseqs {
            all.remove(dseq);
        }
    }
}

impl Transactions {
    /// Nothing is pending yet.
    pub fn new(chain: Arc<dyn Chain>, outbox: Arc<dyn Outbox>, books: Arc<Bookkeeper>) -> Self {
        Self { chain, outbox, books, pending: Mutex::default(), announced: Arc::default() }
    }

    /// Those that an earlier process kept, pending from now on: each is to be resumed.
    pub async fn take_over(&self) -> Result<Vec<(String, SignedTx)>, StoreError> {
        let kept = self.outbox.kept_txs().await?;
        for (_, tx) in &kept {
            self.expect(tx);
        }
        Ok(kept)
    }

    /// These deployments are about to be created: an earlier reading proves nothing about them.
    pub fn announce(&self, dseqs: Vec<u64>) -> Announcement {
        lock(&self.announced).extend(&dseqs);
        Announcement { dseqs, all: self.announced.clone() }
    }

    /// Signs, keeps the bytes, broadcasts them once and waits for their end.
    ///
    /// # Errors
    /// [`EffectError::TxPending`] when the end is not known within the time of one call: the
    /// transaction is to be resumed.
    pub async fn transact(&self, cluster: &str, msg: &ChainMsg) -> Result<(), EffectError> {
        let tx = self.keep(cluster, msg).await?;
        let outcome = match self.chain.broadcast_and_confirm(&tx).await {
            Ok(outcome) => outcome,
            Err(error) => return Err(EffectError::TxPending { tx: Box::new(tx), source: error }),
        };
        self.ended(cluster, &tx, &outcome).await;
        match outcome {
            TxOutcome::Landed { .. } => Ok(()),
            TxOutcome::Failed { codespace, code, log, .. } => Err(EffectError::Refused(format!(
                "{} failed: {codespace} code {code}: {log}",
                tx.purpose
            ))),
            TxOutcome::Expired => Err(EffectError::Unreachable(format!(
                "{} did not land before its time-out and never will",
                tx.purpose
            ))),
        }
    }

    /// Signs, and keeps the bytes: they are to be resumed.
    pub async fn keep(&self, cluster: &str, msg: &ChainMsg) -> Result<SignedTx, EffectError> {
        let tx = self.chain.sign(msg).await?;
        self.outbox.keep_tx(cluster, &tx).await?;
        self.expect(&tx);
        Ok(tx)
    }

    /// Whether a transaction that is about no deployment may still land.
    pub fn without_deployment(&self) -> bool {
        lock(&self.pending).values().any(|tx| tx.dseq == NO_DEPLOYMENT)
    }

    /// Broadcasts a pending transaction until its end is known, however long that takes: until then
    /// the plan waits for it, and says so.
    pub async fn resume(&self, cluster: &str, tx: &SignedTx) -> TxOutcome {
        loop {
            match self.chain.broadcast_and_confirm(tx).await {
                Ok(outcome) => {
                    self.ended(cluster, tx, &outcome).await;
                    return outcome;
                }
                Err(error) => tracing::warn!(
                    tx = %tx.hash, purpose = %tx.purpose, %error,
                    "the end of a transaction is not known yet"
                ),
            }
            tokio::time::sleep(RESUME_PAUSE).await;
        }
    }

    fn expect(&self, tx: &SignedTx) {
        lock(&self.pending).insert(tx.hash.clone(), Pending { dseq: tx.dseq, landed: None });
    }

    /// It leaves the outbox once it is booked, never before.
    async fn ended(&self, cluster: &str, tx: &SignedTx, outcome: &TxOutcome) {
        let mut done = self.books.book(cluster, tx, outcome).await;
        if done.is_ok() {
            done = self.outbox.drop_tx(&tx.hash).await;
        }
        if let Err(error) = done {
            tracing::warn!(
                tx = %tx.hash, %error,
                "a transaction whose end is known stays in the store; it is looked up again at the next start"
            );
        }
        let mut pending = lock(&self.pending);
        match outcome {
            // No reading of deployments has to come after it.
            TxOutcome::Landed { .. } if tx.dseq == NO_DEPLOYMENT => drop(pending.remove(&tx.hash)),
            TxOutcome::Landed { height, .. } => {
                let landed = Pending { dseq: tx.dseq, landed: Some(*height) };
                pending.insert(tx.hash.clone(), landed);
            }
            TxOutcome::Failed { .. } | TxOutcome::Expired => drop(pending.remove(&tx.hash)),
        }
    }

    /// Those of these deployments about which a reading of this height cannot be believed: a
    /// transaction may still be signed or land, or landed later.
    pub fn pending(&self, dseqs: &BTreeSet<u64>, height: i64) -> BTreeSet<u64> {
        // In this order, so that a deployment is in one of them all the time.
        let mut all: BTreeSet<u64> = lock(&self.announced).intersection(dseqs).copied().collect();
        let mut pending = lock(&self.pending);
        pending.retain(|_, tx| {
            !dseqs.contains(&tx.dseq) || tx.landed.is_none_or(|landed| landed > height)
        });
        all.extend(pending.values().map(|tx| tx.dseq).filter(|dseq| dseqs.contains(dseq)));
        all
    }
}
