//! What the chain says of the money of a deployment, for the books: as it stands there, with
//! nothing reckoned.

use super::view::Parts;
use crate::model::books::{Payment, Scaled, Statement};
use crate::model::money::UACT;
use crate::model::time::UnixMs;
use crate::wire::akash::escrow::types::v1::State;
use crate::wire::akash::market::v1beta5::QueryLeaseResponse;
use crate::wire::cosmos::base::v1beta1::DecCoin;

/// The statement of one deployment as it stands at `height`, a block of `at`.
pub fn statement(
    parts: &Parts,
    height: i64,
    at: UnixMs,
    block_ms: u64,
) -> Result<Statement, String> {
    let account = parts.deployment.escrow_account.as_ref().and_then(|a| a.state.as_ref());
    let account = account.ok_or("no escrow account")?;
    let funds = account.funds.iter().map(|b| (&*b.denom, &*b.amount));
    let transferred = account.transferred.iter().map(|c| (&*c.denom, &*c.amount));
    let with_money = account.deposits.iter().filter(|deposit| {
        deposit.balance.as_ref().is_some_and(|b| b.denom == UACT && b.amount != "0")
    });
    let mut payments = parts
        .leases
        .iter()
        .filter_map(|l| payment(l).transpose())
        .collect::<Result<Vec<_>, _>>()?;
    payments.sort_by_key(|p| (p.from, p.oseq));
    Ok(Statement {
        height,
        at,
        block_ms,
        open: account.state == i32::from(State::Open),
        settled_at: account.settled_at,
        funds: Scaled(super::view::sum(funds)?),
        transferred: Scaled(super::view::sum(transferred)?),
        depositors: with_money.map(|d| (d.height, d.owner == account.owner)).collect(),
        payments,
    })
}

fn payment(answer: &QueryLeaseResponse) -> Result<Option<Payment>, String> {
    let state = answer.escrow_payment.as_ref().and_then(|p| p.state.as_ref());
    let (Some(lease), Some(state)) = (&answer.lease, state) else { return Ok(None) };
    let amount = |coin: Option<&DecCoin>| {
        let coins = coin.into_iter().map(|c| (&*c.denom, &*c.amount));
        super::view::sum(coins).map(Scaled)
    };
    let taken = super::view::coins(state.withdrawn.as_slice(), UACT)?;
    let balance = amount(state.balance.as_ref())?;
    Ok(Some(Payment {
        provider: state.owner.clone(),
        oseq: lease.id.as_ref().map_or(0, |id| id.oseq),
        rate: amount(state.rate.as_ref())?,
        earned: Scaled(balance.0.saturating_add(i128::from(taken) * Scaled::ONE)),
        owed: amount(state.unsettled.as_ref())?,
        open: state.state == i32::from(State::Open),
        from: lease.created_at,
    }))
}
