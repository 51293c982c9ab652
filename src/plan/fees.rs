//! What transactions take of the fee balance: a wallet without AKT neither buys, nor fills, nor
//! closes.

use super::builder::PlanBuilder;
use super::deletion;
use crate::api::conditions::Reason;
use crate::model::money::akt;
use crate::model::time::UnixMs;

// Gas limits, with their margin, of what was seen on a real node.

/// Of creating a deployment: 135,000 to 148,000 were seen.
const CREATE: u64 = 225_000;
/// Of a lease: 162,000 to 236,000.
const LEASE: u64 = 355_000;
/// Of a new manifest hash: 52,600.
const UPDATE: u64 = 79_000;
/// Of a close with a lease and some open bids: 428,000.
pub const CLOSE: u64 = 700_000;
/// Of a payment into an escrow: 83,000.
pub const TOP_UP: u64 = 125_000;

/// Price of a unit of gas in millionths of a uakt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GasPrice(pub u64);

impl GasPrice {
    /// The fee for so much gas, in uakt.
    #[must_use]
    pub fn fee(self, gas: u64) -> u64 {
        let fee = (u128::from(self.0) * u128::from(gas)).div_ceil(1_000_000);
        u64::try_from(fee).unwrap_or(u64::MAX)
    }

    /// The fees of a node from create to close, in uakt.
    #[must_use]
    pub fn of_a_node(self) -> u64 {
        self.fee(CREATE + LEASE + UPDATE + CLOSE)
    }
}

/// Whether `count` more nodes can be paid for, from create to close, beside the closes of those that
/// are there.
pub fn pays_for(builder: &PlanBuilder<'_>, count: usize) -> bool {
    let Some(chain) = builder.input.inventory.chain.present() else { return false };
    chain.fee_balance >= needed(builder, count)
}

/// Says that the fees of what waits or may come cannot be paid.
pub fn report(builder: &mut PlanBuilder<'_>) {
    let Some(chain) = builder.input.inventory.chain.present() else { return };
    let to_create = builder.live().iter().filter(|(_, i)| !on_chain(builder, i.dseq)).count();
    let wanted = usize::try_from(builder.spec().nodes).unwrap_or(usize::MAX);
    let deleting = deletion::begins(builder.input);
    let missing = if deleting { 0 } else { wanted.saturating_sub(builder.live().len()) };
    let needed = needed(builder, to_create + missing);
    if chain.fee_balance >= needed {
        return;
    }
    let message = format!(
        "{} for fees, and the transactions of this cluster that wait or may come need {} (create, lease, top-up, close); what they cannot pay is not bought, filled or closed: {}",
        who_holds(builder, chain.fee_balance, chain.block_time),
        akt(needed),
        remedy(builder)
    );
    builder.problem(Reason::FeeBalanceLow, message);
}

/// In uakt: all of a node for those to come, what is left to do for those that are there.
fn needed(builder: &PlanBuilder<'_>, to_come: usize) -> u64 {
    let price = builder.input.limits.gas_price;
    let there = builder.record.incarnations.values().filter(|i| on_chain(builder, i.dseq));
    let there = there.fold(0u64, |sum, incarnation| {
        let filled = if incarnation.condemned.is_none() { price.fee(TOP_UP) } else { 0 };
        sum.saturating_add(price.fee(CLOSE)).saturating_add(filled)
    });
    let to_come = u64::try_from(to_come).unwrap_or(u64::MAX);
    there.saturating_add(price.of_a_node().saturating_mul(to_come))
}

fn on_chain(builder: &PlanBuilder<'_>, dseq: u64) -> bool {
    let chain = builder.input.inventory.chain.value.as_ref();
    chain.and_then(|c| c.deployments.get(&dseq)).is_some_and(|d| d.active)
}

/// Who pays the fees, and what there is of it.
fn who_holds(builder: &PlanBuilder<'_>, has: u64, now: UnixMs) -> String {
    let grant = builder.input.inventory.chain.value.as_ref();
    match grant.and_then(|c| c.funds.fee_grant.as_ref()) {
        None => format!("the wallet {} holds {}", builder.input.constants.owner, akt(has)),
        Some(grant) => match grant.problem(now) {
            Some(why) => {
                format!("{} (wallet.feeGranter) {why}, so nothing is there", grant.granter)
            }
            None => format!("the fee grant of {} leaves {}", grant.granter, akt(has)),
        },
    }
}

fn remedy(builder: &PlanBuilder<'_>) -> String {
    let chain = builder.input.inventory.chain.value.as_ref();
    match chain.and_then(|c| c.funds.fee_grant.as_ref()) {
        None => "send it AKT".to_owned(),
        Some(grant) => format!(
            "renew the fee grant of {} for {}, or send that account AKT",
            grant.granter, builder.input.constants.owner
        ),
    }
}
