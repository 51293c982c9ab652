//! Which bid to take.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::types::{Placement, SpreadBy, SpreadWhen};
use crate::model::chain::{BidView, ProviderView};
use crate::model::money::PricePerBlock;

/// What the choice depends on.
pub struct Choice<'a> {
    pub placement: &'a Placement,
    pub providers: &'a BTreeMap<String, ProviderView>,
    /// Providers that run or will run another node of the cluster.
    pub taken: &'a BTreeSet<String>,
    /// Providers that failed this node before: only if nobody else bids.
    pub avoid: &'a [String],
    pub max_price: PricePerBlock,
    pub open_order: u32,
}

/// The best acceptable bid: spread first where it is preferred, then those that never failed us,
/// then the price, then the address. Otherwise one reason for each bid that was refused.
pub fn choose<'b>(choice: &Choice<'_>, bids: &'b [BidView]) -> Result<&'b BidView, Vec<String>> {
    let mut refused = Vec::new();
    let mut good: Vec<(bool, bool, &BidView)> = Vec::new();
    for bid in bids {
        match evaluate(choice, bid) {
            Ok(spread) => good.push((!spread, choice.avoid.contains(&bid.id.provider), bid)),
            Err(why) => refused.push(format!("{}: {why}", bid.id.provider)),
        }
    }
    good.sort_by(|a, b| {
        (a.0, a.1, a.2.price, &a.2.id.provider).cmp(&(b.0, b.1, b.2.price, &b.2.id.provider))
    });
    good.first().map(|(_, _, bid)| *bid).ok_or(refused)
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
