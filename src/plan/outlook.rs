//! For how long the wallet can fill the escrows of all clusters.

use std::time::Duration;

use super::derived::active_lease;
use super::fees::{CLOSE, GasPrice, TOP_UP};
use super::money;
use crate::api::types::Runway;
use crate::model::chain::{ChainView, DeploymentView};
use crate::model::funds::{Grant, WalletOutlook};
use crate::model::money::{PricePerBlock, Uact};

/// Nobody plans further ahead, milliseconds.
const FURTHEST_MS: u64 = 5 * 365 * 24 * 3600 * 1000;

/// The fillings of one escrow to come.
#[derive(Clone, Copy, Debug)]
struct Fillings {
    /// Until the first one, milliseconds.
    first_ms: u64,
    /// What the first one takes.
    first: Uact,
    /// From one to the next.
    every_ms: u64,
    /// What each further one takes.
    each: Uact,
}

impl Fillings {
    /// How many there are until then.
    fn count(&self, until_ms: u64) -> u64 {
        until_ms.checked_sub(self.first_ms).map_or(0, |past| 1 + past / self.every_ms.max(1))
    }

    /// What they take.
    fn sum(&self, until_ms: u64) -> u64 {
        match self.count(until_ms) {
            0 => 0,
            n => self.first.0.saturating_add(self.each.0.saturating_mul(n - 1)),
        }
    }
}

/// What is ahead of the wallet whose deployments of ours these are, each with its low mark and its
/// target.
#[must_use]
pub fn outlook<'a>(
    chain: &ChainView,
    ours: impl Iterator<Item = (&'a DeploymentView, Runway)>,
    gas_price: GasPrice,
) -> WalletOutlook {
    let block_ms = money::bounded(chain.block_ms);
    let (mut rate, mut in_escrow, mut fillings) = (0u128, Uact(0), Vec::new());
    for (deployment, runway) in ours.filter(|(d, _)| d.active && d.escrow.open) {
        let (Some(lease), Some(blocks)) = (active_lease(deployment), deployment.escrow.blocks_left)
        else {
            continue;
        };
        rate = rate.saturating_add(lease.price.0);
        in_escrow = in_escrow + deployment.escrow.left;
        fillings.push(of(lease.price, blocks.saturating_mul(block_ms), runway, block_ms));
    }
    let at = |ms: Option<u64>| ms.map(|ms| chain.block_time + Duration::from_millis(ms));
    let count = u64::try_from(fillings.len()).unwrap_or(u64::MAX);
    let (closes, top_up) = (gas_price.fee(CLOSE).saturating_mul(count), gas_price.fee(TOP_UP));
    let for_top_ups = chain.fee_balance.saturating_sub(closes);
    let coins = first_beyond(chain.balance.0, |ms| {
        fillings.iter().fold(0u64, |sum, f| sum.saturating_add(f.sum(ms)))
    });
    let fees = first_beyond(for_top_ups, |ms| {
        fillings.iter().fold(0u64, |sum, f| sum.saturating_add(f.count(ms).saturating_mul(top_up)))
    });
    let [deposits_over, fees_over] = [&chain.funds.treasury, &chain.funds.fee_grant]
        .map(|grant| grant.as_ref().and_then(Grant::expires));
    WalletOutlook {
        leases: fillings.len(),
        per_month: PricePerBlock(rate).per_month(block_ms),
        in_escrow,
        refills_end: at(coins).into_iter().chain(deposits_over).min(),
        fees_end: at(fees).into_iter().chain(fees_over).min(),
        minting: false,
    }
}

fn of(price: PricePerBlock, left_ms: u64, runway: Runway, block_ms: u64) -> Fillings {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let (low, target) = (ms(runway.low.0), ms(runway.target.0));
    let cost = |ms: u64| price.of_blocks(ms.div_ceil(block_ms));
    let every_ms = target.saturating_sub(low);
    Fillings {
        first_ms: left_ms.saturating_sub(low),
        first: cost(target.saturating_sub(left_ms.min(low))),
        every_ms,
        each: cost(every_ms),
    }
}

/// The first moment at which more than this is taken, milliseconds ahead; none within sight.
fn first_beyond(holds: u64, taken: impl Fn(u64) -> u64) -> Option<u64> {
    if taken(FURTHEST_MS) <= holds {
        return None;
    }
    let (mut before, mut after) = (0, FURTHEST_MS);
    if taken(before) > holds {
        return Some(0);
    }
    while after - before > 1 {
        let middle = before + (after - before) / 2;
        if taken(middle) > holds {
            after = middle;
        } else {
            before = middle;
        }
    }
    Some(after)
}
