//! What transactions may burn: the gas that each is given, what fees may come to, and how often one
//! that fails for its fee is tried.
//!
//! A node is not believed without bounds: it tells the gas, and gas is paid. All sums are of this
//! process; a restart counts anew.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::client::GasPrice;
use super::tx::FeeOffer;
use crate::model::chain::{ChainMsg, TxOutcome};
use crate::model::time::Backoff;

/// Gas for which a simulation pays, and so must be in the wallet: about what a transaction of ours
/// takes (52,600 to 236,000 were seen; only a close with many open bids takes more). What taking a
/// fee costs in gas hardly depends on its amount.
const USUAL_GAS: u64 = 200_000;
/// No transaction of ours comes near: closing a deployment with 20 open bids, the most there can
/// be, took 1.57 million.
const MAX_GAS: u64 = 10_000_000;
/// How often the margin is raised by half after gas ran out: five times the measured gas in the
/// end.
const MAX_RAISES: u32 = 3;
/// Failures in blocks, each for a fee, before the pauses begin; with the raises of the margin in
/// between.
const FREE_TRIES: u32 = 4;
/// Pauses after those: about thirty paid failures a day at the most.
const PAUSES: Backoff = Backoff { first: Duration::from_mins(1), longest: Duration::from_hours(1) };
/// The day over which fees are added up.
const DAY: Duration = Duration::from_hours(24);
/// Only a bound on what is remembered of transactions that never ended: forgetting costs a fee, no
/// more.
const MOST_KEPT: usize = 10_000;

/// The most that fees may come to, in uakt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeeLimits {
    /// Of one transaction.
    pub per_tx: u64,
    /// Of all transactions within 24 hours, of those that were sent and did not expire.
    pub per_day: u64,
}

impl FeeLimits {
    /// A tenth of an AKT for one (four million gas at the usual price), three AKT for a day: the
    /// lives of about a hundred nodes.
    pub const USUAL: Self = Self { per_tx: 100_000, per_day: 3_000_000 };
}

/// Why a transaction is not sent: a sentence's second half.
pub(super) type Why = String;

/// The fee under which a transaction is simulated. Taking one costs gas itself, which a simulation
/// without a fee does not count.
#[must_use]
pub fn for_simulation(price: GasPrice, granter: Option<String>) -> FeeOffer {
    FeeOffer { uakt: price.fee(USUAL_GAS).max(1), gas: USUAL_GAS, granter }
}

/// The gas limit for what a simulation used. Half more than was measured; a close pays for every
/// bid that is still open, and bids come in between. Each time that this was too little, `raises`,
/// half more again.
#[must_use]
pub fn limit(used: u64, msg: &ChainMsg, raises: u32) -> u64 {
    let tenths = if matches!(msg, ChainMsg::CloseDeployment { .. }) { 16 } else { 15 };
    (0..raises.min(MAX_RAISES))
        .fold(used.saturating_mul(tenths).div_ceil(10), |gas, _| gas.saturating_mul(3).div_ceil(2))
}

/// What is tried again when it fails: one kind of message about one deployment.
type Key = (u64, &'static str);

fn key(msg: &ChainMsg) -> Key {
    let kind = match msg {
        ChainMsg::CreateDeployment { .. } => "create",
        ChainMsg::CreateLease(_) => "lease",
        ChainMsg::UpdateDeployment { .. } => "update",
        ChainMsg::Deposit { .. } => "deposit",
        ChainMsg::CloseDeployment { .. } => "close",
        ChainMsg::MintAct { .. } => "mint",
    };
    (msg.dseq(), kind)
}

/// Failures of one message in a row.
#[derive(Default)]
struct Tries {
    /// How often gas ran out.
    raises: u32,
    /// How often it failed in a block, where its fee was taken.
    paid: u32,
    /// Not tried before this.
    until: Option<Instant>,
    /// The chain's last words.
    log: String,
}

struct Offer {
    at: Instant,
    hash: String,
    key: Key,
    uakt: u64,
}

#[derive(Default)]
struct State {
    tries: BTreeMap<Key, Tries>,
    /// Oldest first.
    offers: VecDeque<Offer>,
}

/// The fees of this process.
#[derive(Default)]
pub(super) struct Fees(Mutex<State>);

impl Fees {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often the margin of this message is to be raised, unless it failed so often that it has
    /// to wait.
    pub fn raises(&self, msg: &ChainMsg) -> Result<u32, Why> {
        let state = self.lock();
        let Some(tries) = state.tries.get(&key(msg)) else { return Ok(0) };
        match tries.until.map(|until| until.saturating_duration_since(Instant::now())) {
            Some(left) if !left.is_zero() => Err(format!(
                "it failed {} times in blocks, each time for a fee (last: {}); the next try is made in {} s",
                tries.paid,
                tries.log,
                left.as_secs() + 1
            )),
            _ => Ok(tries.raises),
        }
    }

    /// Whether one transaction may be given so much gas for so much.
    pub fn within(limits: FeeLimits, fee: &FeeOffer) -> Result<(), Why> {
        let FeeOffer { gas, uakt, .. } = fee;
        if *gas <= MAX_GAS && *uakt <= limits.per_tx {
            return Ok(());
        }
        Err(format!(
            "by the endpoint's measure it needs {gas} gas for {uakt}uakt, more than a transaction may ({MAX_GAS} gas, chain.maxFee \
             {}uakt); raise chain.maxFee when that is right, or name another endpoint in chain.grpc",
            limits.per_tx
        ))
    }

    /// Counts the fee of a signed transaction, unless the day has none left for it.
    pub fn offer(
        &self,
        limits: FeeLimits,
        msg: &ChainMsg,
        hash: &str,
        uakt: u64,
    ) -> Result<(), Why> {
        let now = Instant::now();
        let mut state = self.lock();
        while state.offers.front().is_some_and(|offer| now.duration_since(offer.at) >= DAY)
            || state.offers.len() >= MOST_KEPT
        {
            state.offers.pop_front();
        }
        let sum = state.offers.iter().fold(uakt, |sum, offer| sum.saturating_add(offer.uakt));
        if sum > limits.per_day {
            return Err(format!(
                "the fees of the last 24 hours would be {sum}uakt with it, more than chain.maxFeePerDay ({}uakt); `akash-redis events` \
                 shows what was paid for; raise the limit when that is right",
                limits.per_day
            ));
        }
        state.offers.push_back(Offer { at: now, hash: hash.to_owned(), key: key(msg), uakt });
        Ok(())
    }

    /// A transaction came to its end; `paid`: in a block, where its fee was taken.
    pub fn ended(&self, hash: &str, outcome: &TxOutcome, paid: bool) {
        let mut state = self.lock();
        // One of an earlier process was not counted here.
        let Some(at) = state.offers.iter().position(|offer| offer.hash == hash) else { return };
        let key = state.offers[at].key;
        if !paid {
            state.offers.remove(at);
        }
        let TxOutcome::Failed { codespace, code, log, .. } = outcome else {
            if paid {
                state.tries.remove(&key);
            }
            return;
        };
        if state.tries.len() >= MOST_KEPT {
            state.tries.clear();
        }
        let tries = state.tries.entry(key).or_default();
        if codespace == "sdk" && *code == 11 {
            tries.raises = (tries.raises + 1).min(MAX_RAISES);
        }
        if paid {
            tries.paid += 1;
            tries.log.clone_from(log);
            let over = tries.paid.checked_sub(FREE_TRIES);
            tries.until = over.map(|before| Instant::now() + PAUSES.delay(before));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::chain::Receipt;

    const LIMITS: FeeLimits = FeeLimits { per_tx: 100, per_day: 250 };

    fn close(dseq: u64) -> ChainMsg {
        ChainMsg::CloseDeployment { dseq }
    }

    fn out_of_gas() -> TxOutcome {
        TxOutcome::Failed {
            codespace: "sdk".into(),
            code: 11,
            log: "out of gas".into(),
            receipt: None,
        }
    }

    #[test]
    fn the_margin_grows_after_gas_ran_out_and_within_a_bound() {
        let update = ChainMsg::UpdateDeployment { dseq: 1, hash: [0; 32] };
        assert_eq!(limit(50_431, &update, 0), 75_647);
        assert_eq!(limit(100, &close(1), 0), 160);
        let raised: Vec<_> = (0..6).map(|n| limit(100, &update, n)).collect();
        assert_eq!(raised, [150, 225, 338, 507, 507, 507]);
        assert_eq!(
            limit(u64::MAX, &update, 3),
            u64::MAX
                .div_ceil(10)
                .saturating_mul(3)
                .div_ceil(2)
                .saturating_mul(3)
                .div_ceil(2)
                .saturating_mul(3)
                .div_ceil(2)
        );
    }

    #[test]
    fn no_transaction_costs_more_than_it_may() {
        let offer = |gas, uakt| FeeOffer { uakt, gas, granter: None };
        assert!(Fees::within(LIMITS, &offer(10_000_000, 100)).is_ok());
        for bad in [offer(10_000_001, 1), offer(1, 101), offer(u64::MAX, u64::MAX)] {
            let why = Fees::within(LIMITS, &bad).expect_err("too much");
            assert!(why.contains("chain.maxFee 100uakt"), "{why}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_day_costs_more_than_it_may_and_what_was_not_taken_is_given_back() {
        let fees = Fees::default();
        fees.offer(LIMITS, &close(1), "A", 100).expect("the first");
        fees.offer(LIMITS, &close(2), "B", 100).expect("the second");
        let why = fees.offer(LIMITS, &close(3), "C", 51).expect_err("251 in a day");
        assert!(why.contains("251uakt") && why.contains("chain.maxFeePerDay (250uakt)"), "{why}");
        // It expired: nobody was paid.
        fees.ended("B", &TxOutcome::Expired, false);
        fees.offer(LIMITS, &close(3), "C", 100).expect("there is room again");
        assert!(fees.offer(LIMITS, &close(4), "D", 100).is_err());
        tokio::time::advance(DAY).await;
        fees.offer(LIMITS, &close(4), "D", 100).expect("the next day");
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_for_a_fee_is_tried_ever_more_rarely() {
        let fees = Fees::default();
        let limits = FeeLimits { per_tx: 1, per_day: 1000 };
        let mut raises = Vec::new();
        let end = Instant::now() + DAY;
        while Instant::now() < end {
            match fees.raises(&close(1)) {
                Ok(n) => {
                    raises.push(n);
                    let hash = raises.len().to_string();
                    fees.offer(limits, &close(1), &hash, 1).expect("within the day");
                    fees.ended(&hash, &out_of_gas(), true);
                }
                Err(why) => {
                    assert!(why.contains("times in blocks") && why.contains("out of gas"), "{why}");
                }
            }
            assert!(fees.raises(&close(2)).is_ok(), "another deployment is not held up");
            tokio::time::advance(Duration::from_secs(30)).await;
        }
        assert_eq!(raises[..6], [0, 1, 2, 3, 3, 3]);
        assert!(raises.len() < 35, "{} paid failures in a day", raises.len());
        // A success clears it.
        fees.offer(limits, &close(1), "good", 1).expect("within the day");
        fees.ended("good", &TxOutcome::Landed { height: 1, receipt: Receipt::default() }, true);
        assert_eq!(fees.raises(&close(1)), Ok(0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_at_the_door_costs_nothing_and_delays_nothing() {
        let fees = Fees::default();
        for n in 0..20 {
            fees.offer(LIMITS, &close(1), &n.to_string(), 100).expect("nothing was taken yet");
            fees.ended(&n.to_string(), &out_of_gas(), false);
        }
        assert_eq!(fees.raises(&close(1)), Ok(MAX_RAISES));
    }
}
