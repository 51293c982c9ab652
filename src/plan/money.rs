//! What is promised already, and what the next node may cost.

use std::time::Duration;

use super::builder::PlanBuilder;
use super::derived::active_lease;
use super::{Input, Limits};
use crate::api::conditions::Reason;
use crate::api::difference::resources_asked;
use crate::api::types::Spec;
use crate::model::chain::DEFAULT_BLOCK_MS;
use crate::model::inventory::Inventory;
use crate::model::money::{PricePerBlock, Uact};
use crate::model::record::Record;

/// No chain of the market makes blocks faster; local ones take 200 to 500 ms.
const SHORTEST_BLOCK_MS: u64 = 100;

/// Block time by which months become blocks, milliseconds: the measured one within bounds, because
/// an endpoint may report anything.
pub fn block_ms(inventory: &Inventory) -> u64 {
    inventory.chain.value.as_ref().map_or(DEFAULT_BLOCK_MS, |c| bounded(c.block_ms))
}

/// A measured block time within bounds, milliseconds.
pub fn bounded(block_ms: u64) -> u64 {
    block_ms.clamp(SHORTEST_BLOCK_MS, DEFAULT_BLOCK_MS)
}

/// The most the cluster may cost per month.
pub fn ceiling(input: &Input<'_>) -> Uact {
    let own =
        input.cluster.spec.budget.max_per_month.map_or(input.limits.per_cluster_default, |m| m.0);
    own.min(input.limits.global.saturating_sub(input.limits.others))
}

/// Whose word the ceiling is.
pub fn limited_by(input: &Input<'_>) -> String {
    let own = input.cluster.spec.budget.max_per_month;
    let asked = own.map_or(input.limits.per_cluster_default, |m| m.0);
    let whose = if own.is_some() {
        "spec.budget.maxPerMonth"
    } else {
        "the operator's budget.perClusterDefault"
    };
    if ceiling(input) >= asked {
        return whose.to_owned();
    }
    let Limits { global, others, .. } = input.limits;
    format!(
        "what the operator's budget.global of {global} leaves beside {others} for other clusters; {whose} is {asked}"
    )
}

/// Block times differ from day to day, and with them what a month costs: only more than a twentieth
/// is told.
const DRIFT: u64 = 20;

/// Says that the leases that run cost more than is allowed. None is closed for it.
pub fn report(builder: &mut PlanBuilder<'_>) {
    let input = builder.input;
    let Some(chain) = input.inventory.chain.present() else { return };
    let live = builder.record.incarnations.values().filter(|i| i.condemned.is_none());
    let leases = live.filter_map(|i| chain.deployments.get(&i.dseq)).filter(|d| d.active);
    let rate = leases.filter_map(active_lease).map(|l| l.price.0).fold(0u128, u128::saturating_add);
    let cost = PricePerBlock(rate).per_month(block_ms(input.inventory));
    let allowed = ceiling(input);
    if cost.0 <= allowed.0.saturating_add(allowed.0 / DRIFT) {
        return;
    }
    let (name, whose) = (&input.cluster.metadata.name, limited_by(input));
    let fewer = input.cluster.spec.nodes.saturating_sub(1).max(1);
    let message = format!(
        "the leases that run cost {cost} per month, and {allowed} are allowed ({whose}); none is closed for that, and nothing is bought: raise the budget to {cost}, or let nodes go with `akash-redis scale {name} --nodes {fewer}`"
    );
    builder.problem(Reason::BudgetBelowCost, message);
}

/// Price of every incarnation that costs or may come to cost: the lease's where there is one, else
/// the cap of its order, also after a bid was chosen: it may be withdrawn, and the next one may ask
/// as much as the cap. A condemned one counts until the chain shows its deployment closed, or it
/// is forgotten: a reading without it proves nothing yet.
pub fn committed(inventory: &Inventory, record: &Record) -> PricePerBlock {
    let chain = inventory.chain.value.as_ref();
    let sum = record
        .incarnations
        .values()
        .filter_map(|incarnation| {
            let deployment = chain.and_then(|c| c.deployments.get(&incarnation.dseq));
            if incarnation.condemned.is_some() && deployment.is_some_and(|d| !d.active) {
                return None;
            }
            let leased = deployment.and_then(active_lease).map(|l| l.price);
            Some(leased.unwrap_or(incarnation.max_price).0)
        })
        .fold(0u128, u128::saturating_add);
    PricePerBlock(sum)
}

/// Further parts of the low mark that a deposit pays for, beside all of it: one for every node, and
/// one more shared by their numbers.
const MARGIN: u32 = 4;

/// Prices that were asked since then say what is asked now.
const OF_LATE: Duration = Duration::from_hours(30 * 24);
/// Whatever bid is taken, a deposit pays for so long, in which the true price is known and paid for.
pub const SURELY: Duration = Duration::from_hours(6);

/// What the escrow of a new node starts with: what the manifest says, or the smallest that pays for
/// the low mark and a margin at twice the dearest price of late, and where none is known, at the
/// highest that its order may take. So it is filled a first time before anybody has to hurry, and
/// nodes that were bought together do not end together.
pub fn deposit(input: &Input<'_>, ordinal: u32, max_price: PricePerBlock) -> Uact {
    let least = input.inventory.chain.value.as_ref().map(|c| c.min_deposit).unwrap_or_default();
    let Spec { budget, nodes, .. } = &input.cluster.spec;
    let amount = budget.deposit.map_or_else(
        || {
            let part = budget.runway.unwrap_or(input.limits.runway).low.0 / MARGIN;
            let spread = part * ordinal.min(*nodes) / (*nodes).max(1);
            let time = part * (MARGIN + 1) + spread;
            let whole = cost(input.inventory, max_price, time);
            likely(input).map_or(whole, |price| {
                let surely = cost(input.inventory, max_price, SURELY);
                cost(input.inventory, price, time).max(surely).min(whole)
            })
        },
        |own| own.0,
    );
    amount.max(least)
}

/// Twice the dearest that anybody asked of late for a node of these resources; none where nobody did.
/// A dearer bid may still be taken: its escrow is filled as soon as the lease is there.
pub fn likely(input: &Input<'_>) -> Option<PricePerBlock> {
    let asked = resources_asked(&input.cluster.spec);
    let seen = input.inventory.experience.values().filter_map(|known| known.prices.get(&asked));
    let of_late = seen.filter(|price| !input.now.passed(price.at, OF_LATE));
    let dearest = of_late.map(|price| price.month.0).max()?;
    Some(PricePerBlock::from_month(Uact(dearest.saturating_mul(2)), block_ms(input.inventory)))
}

/// What a new node would start with if the budget were shared among all nodes.
pub fn usual_deposit(input: &Input<'_>) -> Uact {
    let Spec { nodes, placement, .. } = &input.cluster.spec;
    let part = Uact(ceiling(input).0 / u64::from((*nodes).max(1)));
    let most = placement.max_price.map_or(part, |max| part.min(max.0));
    deposit(input, 0, PricePerBlock::from_month(most, block_ms(input.inventory)))
}

/// What so much time costs at this price, rounded up.
pub fn cost(inventory: &Inventory, price: PricePerBlock, time: Duration) -> Uact {
    let blocks = time.as_millis().div_ceil(u128::from(block_ms(inventory)));
    price.of_blocks(u64::try_from(blocks).unwrap_or(u64::MAX))
}

/// What each of `count` further nodes may cost per block, or the sentence that says why none may.
pub fn share(input: &Input<'_>, record: &Record, count: u32) -> Result<PricePerBlock, String> {
    let block_ms = block_ms(input.inventory);
    let ceiling = ceiling(input);
    // In whole units of a month: what is rounded up for each node must not add up to more than the
    // ceiling.
    let left = ceiling.saturating_sub(committed(input.inventory, record).per_month(block_ms));
    let mut share = PricePerBlock::from_month(Uact(left.0 / u64::from(count.max(1))), block_ms);
    if let Some(max) = input.cluster.spec.placement.max_price {
        share = share.min(PricePerBlock::from_month(max.0, block_ms));
    }
    if share.0 == 0 {
        return Err(format!(
            "the budget of {ceiling} per month ({}) is used up ({} per month are committed); raise budget.maxPerMonth or the operator's budget.global",
            limited_by(input),
            committed(input.inventory, record).per_month(block_ms)
        ));
    }
    Ok(share)
}
