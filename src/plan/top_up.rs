//! Escrows are filled before they run dry: a deployment whose escrow is empty is closed by the
//! chain, and its data volume is gone.

use std::time::Duration;

use super::builder::PlanBuilder;
use super::cleanup::FRESH;
use super::{derived, money};
use crate::api::conditions::Reason;
use crate::api::types::Runway;
use crate::model::chain::ChainView;
use crate::model::ids::IncarnationName;
use crate::model::incarnation::{Incarnation, TopUp};
use crate::model::money::{PricePerBlock, Uact};
use crate::model::step::Effect;
use crate::model::time::Backoff;

/// Between two top-ups of one escrow that did not help: one that failed in a block costs its fee,
/// and an endpoint may say of any escrow that it is empty.
const AGAIN: Backoff = Backoff { first: Duration::from_mins(10), longest: Duration::from_hours(6) };
/// So many top-ups in a row that did not help are told.
const IN_VAIN: u32 = 3;

/// A deployment whose escrow is below the runway.
struct Low {
    name: IncarnationName,
    dseq: u64,
    /// What is missing to the target.
    needed: Uact,
    /// For how long it still pays.
    left: Duration,
}

/// Fills every escrow that pays for less than the low mark. What the wallet holds is shared, so that
/// nobody runs dry while another one is full.
pub fn fill(builder: &mut PlanBuilder<'_>) {
    let Some(chain) = builder.input.inventory.chain.present() else { return };
    if builder.now().since(chain.block_time) > FRESH {
        return;
    }
    let runway = runway(builder);
    let mut low: Vec<Low> = Vec::new();
    for (name, incarnation) in builder.live() {
        let Some((price, left)) = paying(builder, chain, &name, &incarnation) else { continue };
        if left >= runway.low.0 {
            if incarnation.top_up.is_some() {
                builder.change(&name, |i| i.top_up = None);
            }
            continue;
        }
        told(builder, &name, &incarnation, left);
        if is_due(builder, &incarnation) {
            let target = target(builder, runway, incarnation.ordinal);
            let needed = money::cost(builder.input.inventory, price, target.saturating_sub(left));
            low.push(Low { name, dseq: incarnation.dseq, needed, left });
        }
    }
    // Who needs little is served whole, and what is left goes to the others in equal parts.
    low.sort_by_key(|low| low.needed);
    let mut wallet = chain.balance;
    let (owner, mut served) = (&builder.input.constants.owner, 0);
    for Low { name, dseq, needed, left } in &low {
        let others = u64::try_from(low.len() - served).unwrap_or(u64::MAX);
        let amount = Uact(needed.0.min(wallet.0 / others));
        served += 1;
        if amount < *needed {
            let message = format!(
                "the wallet {owner} holds {} and the escrow of {name}, which pays for {} more, needs {needed}: fund the wallet",
                chain.balance,
                for_people(*left)
            );
            builder.problem(Reason::WalletBalanceLow, message);
        }
        if amount.0 == 0 {
            continue;
        }
        wallet = wallet.saturating_sub(amount);
        let now = builder.now();
        builder.change(name, |i| {
            let times = i.top_up.as_ref().map_or(0, |t| t.times);
            i.top_up = Some(TopUp { at: now, amount, times: times + 1 });
        });
        builder.step(
            Effect::TopUp { incarnation: name.clone(), dseq: *dseq, amount },
            format!(
                "its escrow pays for {} more, less than {}",
                for_people(*left),
                for_people(runway.low.0)
            ),
        );
    }
}

/// For how long the escrow that ends first still pays.
pub fn shortest(builder: &PlanBuilder<'_>) -> Option<Duration> {
    let chain = builder.input.inventory.chain.value.as_ref()?;
    let live = builder.live();
    let paying = live.iter().filter_map(|(name, i)| paying(builder, chain, name, i));
    paying.map(|(_, left)| left).min()
}

/// The low mark and the target of this cluster.
pub fn runway(builder: &PlanBuilder<'_>) -> Runway {
    builder.spec().budget.runway.unwrap_or(builder.input.limits.runway)
}

/// The price of a running lease, and for how long its escrow still pays it; none where nothing is
/// paid, where a transaction may change that, or where nothing can be started now: what is announced
/// is sent.
fn paying(
    builder: &PlanBuilder<'_>,
    chain: &ChainView,
    name: &IncarnationName,
    incarnation: &Incarnation,
) -> Option<(PricePerBlock, Duration)> {
    let deployment = chain.deployments.get(&incarnation.dseq)?;
    let ours = deployment.active && deployment.escrow.open;
    if !ours
        || !derived::is_own(builder, name, deployment)
        || builder.input.inventory.pending.contains(&incarnation.dseq)
        || builder.input.inventory.busy.contains(name)
    {
        return None;
    }
    let price = derived::active_lease(deployment)?.price;
    let blocks = deployment.escrow.blocks_left?;
    let ms = blocks.saturating_mul(money::block_ms(builder.input.inventory));
    Some((price, Duration::from_millis(ms)))
}

/// The first one is due at once; the next ones, when what was sent did not help, ever later.
fn is_due(builder: &PlanBuilder<'_>, incarnation: &Incarnation) -> bool {
    incarnation
        .top_up
        .as_ref()
        .is_none_or(|t| builder.now().passed(t.at, AGAIN.delay(t.times.saturating_sub(1))))
}

fn told(
    builder: &mut PlanBuilder<'_>,
    name: &IncarnationName,
    incarnation: &Incarnation,
    left: Duration,
) {
    let Some(top_up) = incarnation.top_up.as_ref().filter(|t| t.times >= IN_VAIN) else { return };
    let message = format!(
        "the escrow of {name} was filled {} times, last with {} at {}, and still pays for {} only: its transactions fail, or the endpoint does not show them; see `akash-redis events` and compare with another endpoint",
        top_up.times,
        top_up.amount,
        top_up.at,
        for_people(left)
    );
    builder.problem(Reason::TopUpStalled, message);
}

/// How long the escrow of a node pays after it was filled. Ends are spread over half of the way from
/// the low mark to the target, so that a wallet that is empty does not end all nodes at once.
fn target(builder: &PlanBuilder<'_>, runway: Runway, ordinal: u32) -> Duration {
    let step = runway.target.0.saturating_sub(runway.low.0) / (2 * builder.spec().nodes.max(1));
    runway.target.0 + step * ordinal
}

/// Days or hours, rounded down.
pub fn for_people(time: Duration) -> String {
    let hours = time.as_secs() / 3600;
    match hours {
        48.. => format!("{} days", hours / 24),
        1.. => format!("{hours} h"),
        0 => format!("{} min", time.as_secs() / 60),
    }
}
