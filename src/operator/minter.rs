//! AKT of the wallet into ACT, when a person asks for it: one burn at a time, never sent twice, and
//! followed to its end, which comes some blocks after its transaction.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::lock;
use super::transactions::Transactions;
use crate::api::wallet::{MintAnswer, MintReport, MintRequest, MintState};
use crate::chain::mint::{MintEnd, MintRecord, Mints};
use crate::model::chain::{ChainMsg, TxOutcome};
use crate::model::money::akt;
use crate::server::wallet::Minter;

/// Beside the names of clusters, which have no blank.
const NO_CLUSTER: &str = "the wallet";

/// Between two looks at a burn whose end is not known.
const LOOK: Duration = Duration::from_secs(10);

/// Burns AKT.
#[derive(Clone)]
pub struct WalletMinter {
    pub mints: Arc<dyn Mints>,
    pub transactions: Arc<Transactions>,
    /// Account that pays the deposits, where it is not the wallet.
    pub treasury: Option<String>,
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
    pub state: Arc<State>,
    /// A burn is under way, for whoever reckons with the wallet.
    pub under_way: Arc<AtomicBool>,
}

/// What this process knows of burns.
#[derive(Default)]
pub struct State {
    /// Held from the first question to the kept transaction: two requests become one burn.
    begun: tokio::sync::Mutex<()>,
    /// How far the last transaction of this process has come.
    last: Mutex<Last>,
}

/// How far a transaction has come.
#[derive(Clone, Debug, Default)]
enum Last {
    /// There was none.
    #[default]
    Nothing,
    /// It may still land.
    Sent,
    /// Its end is known.
    Ended(TxOutcome),
}

impl fmt::Debug for WalletMinter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WalletMinter").finish_non_exhaustive()
    }
}

impl WalletMinter {
    /// Says that a burn is under way until its end is known; at once where there is none.
    pub fn watch(&self) {
        let this = self.clone();
        let watch = async move {
            loop {
                match this.newest().await {
                    Ok(report) if report.state.is_over() => break,
                    Ok(_) => this.under_way.store(true, Ordering::Release),
                    // A chain that mints nothing is not asked for ever.
                    Err(_) if !this.under_way.load(Ordering::Acquire) => break,
                    Err(error) => tracing::debug!(error, "the end of a burn is not known yet"),
                }
                tokio::time::sleep(LOOK).await;
            }
            this.under_way.store(false, Ordering::Release);
        };
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(watch));
    }
}

#[async_trait]
impl Minter for WalletMinter {
    async fn mint(&self, request: &MintRequest) -> Result<MintAnswer, String> {
        if let Some(treasury) = &self.treasury {
            return Err(format!(
                "deposits are paid by the treasury {treasury} and not by the wallet: nothing is burnt here; mint on that account (`akash tx bme mint-act`)"
            ));
        }
        let begun = self.state.begun.lock().await;
        let present = self.newest().await?;
        if matches!(present.state, MintState::Sent | MintState::Pending) {
            return Err(format!(
                "no second burn is begun before the end of the first: {}; `akash-redis wallet mint --follow` waits for it",
                present.message
            ));
        }
        let terms = self.mints.terms().await.map_err(|error| error.to_string())?;
        let (act, most) = (request.act.0, request.most_uakt);
        if act < terms.least {
            return Err(format!(
                "{act} is less than the chain mints at once; ask for {} or more",
                terms.least
            ));
        }
        let burn = terms.burn_for(act);
        if burn > most {
            return Err(format!(
                "{act} cost {} now, more than --max-akt {}; nothing was burnt",
                akt(burn),
                akt(most)
            ));
        }
        let slow = if terms.slow { ", rather more while the collateral is low" } else { "" };
        let about = format!(
            "{} for about {act} (the price is that of the block in which it is minted); it comes after {} blocks or more{slow}",
            akt(burn),
            terms.epoch_blocks
        );
        if request.dry_run {
            return Ok(MintAnswer { burn_uakt: burn, message: format!("would burn {about}") });
        }
        let msg = ChainMsg::MintAct { burn };
        let tx = self.transactions.keep(NO_CLUSTER, &msg).await.map_err(|e| e.to_string())?;
        *lock(&self.state.last) = Last::Sent;
        drop(begun);
        self.under_way.store(true, Ordering::Release);
        self.watch();
        tracing::info!(tx = %tx.hash, burn, "AKT is burnt for ACT, as was asked for");
        let (transactions, state) = (self.transactions.clone(), self.state.clone());
        let follow = async move {
            let outcome = transactions.resume(NO_CLUSTER, &tx).await;
            *lock(&state.last) = Last::Ended(outcome);
        };
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(follow));
        Ok(MintAnswer { burn_uakt: burn, message: format!("burns {about}") })
    }

    async fn newest(&self) -> Result<MintReport, String> {
        let last = match lock(&self.state.last).clone() {
            // One of an earlier process may still land.
            Last::Nothing if self.transactions.without_deployment() => Last::Sent,
            last => last,
        };
        let last = match last {
            Last::Nothing => None,
            Last::Ended(outcome) => Some(outcome),
            Last::Sent => {
                let message = "its transaction is sent and in no block yet".to_owned();
                return Ok(MintReport { state: MintState::Sent, message });
            }
        };
        let records = self.mints.records().await.map_err(|error| error.to_string())?;
        Ok(report(last, records.last()))
    }
}

/// What became of the newest burn: of the last transaction of this process, where it is newer than
/// anything on the chain.
fn report(last: Option<TxOutcome>, newest: Option<&MintRecord>) -> MintReport {
    let of = |state, message: String| MintReport { state, message };
    match last {
        Some(TxOutcome::Failed { codespace, code, log, .. }) => {
            return of(
                MintState::Failed,
                format!(
                    "its transaction failed, nothing was burnt: {codespace} code {code}: {log}"
                ),
            );
        }
        Some(TxOutcome::Expired) => {
            let message =
                "its transaction did not land in time and never will: nothing was burnt; ask again";
            return of(MintState::Failed, message.to_owned());
        }
        Some(TxOutcome::Landed { height, .. }) if newest.is_none_or(|r| r.height < height) => {
            let message = format!("it is in block {height}, and the endpoint does not show it yet");
            return of(MintState::Pending, message);
        }
        _ => {}
    }
    let Some(MintRecord { height, burned, end }) = newest else {
        return of(MintState::Never, "nothing was ever burnt by this wallet".to_owned());
    };
    let burnt = format!("{} of block {height}", akt(*burned));
    match end {
        MintEnd::Pending => {
            of(MintState::Pending, format!("{burnt} wait for the end of the chain's epoch"))
        }
        MintEnd::Minted(act) => of(MintState::Minted, format!("{burnt} became {act}")),
        MintEnd::Cancelled(reason) => of(
            MintState::Failed,
            format!("{burnt} were given back by the chain, reason `{reason}`: no ACT was minted"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::chain::Receipt;
    use crate::model::money::Uact;

    fn record(height: i64, end: MintEnd) -> MintRecord {
        MintRecord { height, burned: 40_000_000, end }
    }

    #[test]
    fn the_newest_burn_is_told_by_transaction_and_by_ledger() {
        let landed = |height| Some(TxOutcome::Landed { height, receipt: Receipt::default() });
        let minted = record(56, MintEnd::Minted(Uact(19_950_000)));
        let state = |last, newest: Option<&MintRecord>| report(last, newest).state;
        assert_eq!(state(None, None), MintState::Never);
        assert_eq!(state(landed(57), Some(&minted)), MintState::Pending, "not shown yet");
        assert_eq!(state(landed(57), Some(&record(57, MintEnd::Pending))), MintState::Pending);
        assert_eq!(state(Some(TxOutcome::Expired), Some(&minted)), MintState::Failed);
        // After a restart the chain alone knows.
        let told = report(None, Some(&minted));
        assert_eq!(told.state, MintState::Minted);
        assert_eq!(told.message, "40akt of block 56 became 19.95act");
        let back = report(landed(57), Some(&record(57, MintEnd::Cancelled("minimum_mint".into()))));
        assert_eq!(back.state, MintState::Failed);
        assert!(back.message.contains("given back") && back.message.contains("minimum_mint"));
    }
}
