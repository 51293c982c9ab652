//! Which bid to take.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::types::{Placement, SpreadBy, SpreadWhen};
use crate::model::chain::{BidView, ProviderView};
use crate::model::experience::Experiences;
use crate::model::money::PricePerBlock;
use crate::model::time::UnixMs;

/// What the choice depends on.
#[derive(Clone, Copy)]
pub struct Choice<'a> {
    pub placement: &'a Placement,
    pub providers: &'a BTreeMap<String, ProviderView>,
    /// Providers that run or will run another node of the cluster.
    pub taken: &'a BTreeSet<String>,
    /// Providers that failed this node before: only if nobody else bids.
    pub avoid: &'a [String],
    pub max_price: PricePerBlock,
    pub open_order: u32,
    /// What was lived through with providers, as of `now`.
    pub experience: &'a Experiences,
    pub now: UnixMs,
}

/// The best acceptable bid: spread first where it is preferred, then those that never failed this
/// node and had not several troubles of late, then the price with what trouble of late adds to it,
/// then the address. Otherwise one reason for each bid that was refused.
pub fn choose<'b>(choice: &Choice<'_>, bids: &'b [BidView]) -> Result<&'b BidView, Vec<String>> {
    let mut refused = Vec::new();
    let mut good: Vec<(bool, bool, &BidView)> = Vec::new();
    for bid in bids {
        match evaluate(choice, bid) {
            Ok(spread) => good.push((!spread, is_avoided(choice, &bid.id.provider), bid)),
            Err(why) => refused.push(format!("{}: {why}", bid.id.provider)),
        }
    }
    let weighed = |bid: &BidView| {
        let known = choice.experience.get(&bid.id.provider);
        known.map_or(bid.price, |known| known.weighed(bid.price, choice.now))
    };
    good.sort_by(|a, b| {
        (a.0, a.1, weighed(a.2), &a.2.id.provider).cmp(&(b.0, b.1, weighed(b.2), &b.2.id.provider))
    });
    good.first().map(|(_, _, bid)| *bid).ok_or(refused)
}

/// So many providers bid what could be taken, were it not for the cluster's other nodes.
pub fn breadth(choice: &Choice<'_>, bids: &[BidView]) -> usize {
    let alone = Choice { taken: &BTreeSet::new(), ..*choice };
    let fit =
        |bid: &&BidView| evaluate(&alone, bid).is_ok() && !is_avoided(choice, &bid.id.provider);
    bids.iter().filter(fit).map(|bid| &bid.id.provider).collect::<BTreeSet<_>>().len()
}

/// Whether everybody of these has bid on the open order whose bid could be taken: the others are not
/// worth waiting for. Who is avoided is waited for only where nobody else is left. `false` where
/// there is nobody at all: somebody bid who is not among them.
pub fn have_all_bid<'a>(
    choice: &Choice<'_>,
    bids: &[BidView],
    suppliers: impl Iterator<Item = &'a ProviderView>,
) -> bool {
    let of_use = suppliers
        .filter(|view| !choice.taken.contains(&view.address) && keeps_apart(choice, view).is_ok());
    let (avoided, wanted): (Vec<_>, Vec<_>) =
        of_use.partition(|view| is_avoided(choice, &view.address));
    let awaited = if wanted.is_empty() { avoided } else { wanted };
    let has_bid = |view: &&ProviderView| {
        bids.iter().any(|b| b.id.oseq == choice.open_order && b.id.provider == view.address)
    };
    !awaited.is_empty() && awaited.iter().all(has_bid)
}

/// It failed this node before, or had several troubles of late: it is taken when nobody else bids.
fn is_avoided(choice: &Choice<'_>, provider: &String) -> bool {
    choice.avoid.contains(provider)
        || choice.experience.get(provider).is_some_and(|known| known.is_avoided(choice.now))
}

/// Whether a bid may be taken, and if so whether it keeps nodes apart.
fn evaluate(choice: &Choice<'_>, bid: &BidView) -> Result<bool, &'static str> {
    let provider = &bid.id.provider;
    if bid.id.oseq != choice.open_order {
        return Err("its order is no longer open");
    }
    if choice.taken.contains(provider) {
        return Err("it runs another node of this cluster");
    }
    if bid.price > choice.max_price {
        return Err("it asks more than the node may cost");
    }
    if !bid.fits {
        return Err("it offers less than was asked for");
    }
    let lists = &choice.placement.providers;
    if !lists.allow.is_empty() && !lists.allow.contains(provider) {
        return Err("it is not among placement.providers.allow");
    }
    if lists.deny.contains(provider) {
        return Err("it is among placement.providers.deny");
    }
    let view = choice.providers.get(provider).ok_or("the chain does not know it as a provider")?;
    if choice.placement.attributes.iter().any(|(k, v)| view.attributes.get(k) != Some(v)) {
        return Err("its attributes are not those of placement.attributes");
    }
    keeps_apart(choice, view)
}

/// Whether a provider keeps the nodes apart; an error where it must and does not.
fn keeps_apart(choice: &Choice<'_>, view: &ProviderView) -> Result<bool, &'static str> {
    let spread = choice.taken.iter().all(|other| {
        choice.providers.get(other).is_none_or(|o| differs(choice.placement.spread.by, view, o))
    });
    if !spread && choice.placement.spread.when == SpreadWhen::Required {
        return Err("it does not keep the nodes apart as placement.spread asks");
    }
    Ok(spread)
}

/// Region by the provider's word.
pub fn region(provider: &ProviderView) -> Option<&String> {
    provider.attributes.get("location-region").or_else(|| provider.attributes.get("region"))
}

/// Two providers differ in what is asked for; a provider that does not say counts as not different.
fn differs(by: SpreadBy, a: &ProviderView, b: &ProviderView) -> bool {
    let (x, y) = match by {
        SpreadBy::Provider => return a.address != b.address,
        SpreadBy::Organization => {
            (a.attributes.get("organization"), b.attributes.get("organization"))
        }
        SpreadBy::Region => (region(a), region(b)),
    };
    x.is_some() && y.is_some() && x != y
}
