//! How long bids are waited for, and what they tell about providers.

use std::time::Duration;

use super::builder::PlanBuilder;
use super::{money, placement, suppliers};
use crate::api::difference::resources_asked;
use crate::model::chain::{BidView, DeploymentView};
use crate::model::experience::Note;
use crate::model::ids::LeaseId;
use crate::model::incarnation::Incarnation;
use crate::model::time::UnixMs;

/// Fewer bids than this say little about the price, however small the cluster is.
const LEAST_CHOICE: usize = 4;
/// Who registered since then may be waited for in vain, or missed: an older list says nothing.
const LISTED: Duration = Duration::from_mins(15);

/// Since when the order of an incarnation is open. Nobody can bid before it is in a block, so
/// neither the way there nor a slow chain takes anything from the time that bidders have.
///
/// It is the time of its block, brought between the reservation and the reading by our own clock: a
/// chain whose clock is wrong makes the window neither endless nor empty.
pub fn since(
    builder: &PlanBuilder<'_>,
    incarnation: &Incarnation,
    deployment: &DeploymentView,
) -> UnixMs {
    let reading = &builder.input.inventory.chain;
    let (Some(chain), Some(height)) = (reading.present(), deployment.ordered_at) else {
        return incarnation.reserved;
    };
    let blocks = u64::try_from(chain.height.saturating_sub(height)).unwrap_or(0);
    let ago = blocks.saturating_mul(money::block_ms(builder.input.inventory));
    let block = UnixMs(chain.block_time.0.saturating_sub(ago));
    block.min(reading.done).max(incarnation.reserved)
}

/// Whether one is chosen at once. So many providers with a bid that could be taken are enough: one
/// for each node of the cluster, which never share one, and one more, so that the dearest is nobody's
/// only choice; whoever bids later would have to be cheaper than all of these to matter. Fewer are
/// enough when nobody is left who could bid, by the chain's list of providers.
pub fn are_enough(
    builder: &PlanBuilder<'_>,
    choice: &placement::Choice<'_>,
    bids: &[BidView],
) -> bool {
    let least = (builder.spec().nodes as usize + 1).max(LEAST_CHOICE);
    if placement::breadth(choice, bids) >= least {
        return true;
    }
    let listed = &builder.input.inventory.suppliers;
    let Some(list) = listed.value.as_ref().filter(|_| builder.now().since(listed.at) <= LISTED)
    else {
        return false;
    };
    let matching = list.iter().filter(|one| suppliers::mismatch(builder.spec(), one).is_none());
    placement::have_all_bid(choice, bids, matching.map(|one| &one.view))
}

/// Who bid what on an open order, and whose bid was chosen.
pub fn note(builder: &mut PlanBuilder<'_>, deployment: &DeploymentView, chosen: Option<&LeaseId>) {
    let asked = resources_asked(builder.spec());
    let block_ms = money::block_ms(builder.input.inventory);
    let open = deployment.bids.iter().filter(|bid| Some(bid.id.oseq) == deployment.open_order);
    builder.noted.extend(open.map(|bid| {
        let (price, month) = (bid.price, bid.price.per_month(block_ms));
        let note = Note::Bid { asked: asked.clone(), price, month, won: chosen == Some(&bid.id) };
        (bid.id.provider.clone(), note)
    }));
}
