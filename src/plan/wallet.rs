//! How long the wallet does for all clusters: a condition, and a warning each time that a mark of
//! days is passed.

use super::builder::PlanBuilder;
use super::top_up::for_people;
use crate::api::conditions::{ConditionStatus, Reason};
use crate::api::events::EventReason;
use crate::model::time::UnixMs;

/// Warnings are given when no more than so many days are left.
const MARKS: [u32; 4] = [1, 3, 7, 14];
/// A mark is passed anew when as much and a quarter more was left in between: block times, and with
/// them all dates, differ a little from reading to reading.
const AGAIN: (u64, u64) = (5, 4);
const DAY_MS: u64 = 24 * 3600 * 1000;

/// Warns at each mark once, and again after the wallet was funded in between. It is one wallet: the
/// cluster that is planned first speaks for all, and the others only remember the mark.
pub fn report(builder: &mut PlanBuilder<'_>) {
    if builder.input.inventory.chain.present().is_none() {
        return;
    }
    let told = builder.record.runway_told;
    let left = builder.input.inventory.wallet.end().map(|end| end.since(builder.now()));
    let left_ms = left.map_or(u64::MAX, |left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
    let above = |days: u32| left_ms > u64::from(days) * DAY_MS / AGAIN.1 * AGAIN.0;
    let mark = MARKS.into_iter().find(|days| left_ms <= u64::from(*days) * DAY_MS);
    match (told, mark) {
        (Some(days), _) if above(days) => builder.record.runway_told = mark,
        (None, Some(mark)) => warn(builder, mark),
        (Some(days), Some(mark)) if mark < days => warn(builder, mark),
        _ => {}
    }
}

fn warn(builder: &mut PlanBuilder<'_>, mark: u32) {
    builder.record.runway_told = Some(mark);
    if builder.input.inventory.wallet_told.is_some_and(|told| told <= mark) {
        return;
    }
    let days = if mark == 1 { "a day".to_owned() } else { format!("{mark} days") };
    let message = format!("less than {days} are left for all clusters: {}", outlook(builder));
    builder.event(EventReason::RunwayLow, message);
}

/// The condition.
pub fn condition(builder: &PlanBuilder<'_>) -> (ConditionStatus, Reason, String) {
    let inventory = builder.input.inventory;
    if inventory.chain.present().is_none() {
        let message = "the chain does not answer".to_owned();
        return (ConditionStatus::Unknown, Reason::ChainUnavailable, message);
    }
    if let Some((reason, message)) =
        builder.problems.iter().find(|(reason, _)| *reason == Reason::FeeBalanceLow)
    {
        return (ConditionStatus::False, *reason, message.clone());
    }
    let longest = UnixMs(u64::from(MARKS[MARKS.len() - 1]) * DAY_MS);
    let low = inventory
        .wallet
        .end()
        .is_some_and(|end| end.since(builder.now()) <= longest.since(UnixMs(0)));
    if low {
        return (ConditionStatus::False, Reason::WalletRunwayLow, outlook(builder));
    }
    (ConditionStatus::True, Reason::WalletFunded, outlook(builder))
}

/// Until when, for want of what, and what to do.
fn outlook(builder: &PlanBuilder<'_>) -> String {
    let inventory = builder.input.inventory;
    let wallet = &inventory.wallet;
    let Some(end) = wallet.end() else {
        return match wallet.leases {
            0 => "no lease runs yet".to_owned(),
            _ => "the wallet can fill the escrows of all clusters for years".to_owned(),
        };
    };
    let owner = &builder.input.constants.owner;
    let funds = inventory.chain.value.as_ref().map(|c| &c.funds);
    let by_fees = wallet.fees_end == Some(end);
    let grant =
        funds.and_then(|f| if by_fees { f.fee_grant.as_ref() } else { f.treasury.as_ref() });
    let (coin, balance) = inventory.chain.value.as_ref().map_or(("ACT", String::new()), |c| {
        if by_fees {
            ("AKT for fees", crate::model::money::akt(c.fee_balance))
        } else {
            ("ACT", c.balance.to_string())
        }
    });
    let remedy = match grant {
        None if wallet.minting && !by_fees => {
            "ACT is being minted and comes when an epoch of the chain ends; see then whether it does (`akash-redis wallet`)".to_owned()
        }
        None => format!(
            "send AKT to {owner}{}",
            if by_fees {
                ""
            } else {
                " and mint ACT (`akash-redis wallet mint 20act --max-akt AKT`)"
            }
        ),
        Some(grant) => format!("fund {} and renew its grant for {owner}", grant.granter),
    };
    format!(
        "no escrow can be filled after {end} (in {}) for want of {coin}: {balance} are there, and the leases of all clusters cost {} per month; {remedy}",
        for_people(end.since(builder.now())),
        wallet.per_month
    )
}
