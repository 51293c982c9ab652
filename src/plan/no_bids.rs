//! Why nobody bid: what rules providers out, counted by what they say of themselves on the chain. The
//! price is blamed only where nothing else is known.

use std::collections::{BTreeMap, BTreeSet};

use super::suppliers::{self, NO_CLASS};
use crate::api::difference::resources_asked;
use crate::api::types::Spec;
use crate::model::chain::ProviderOffer;
use crate::model::experience::Experiences;
use crate::model::money::{PricePerBlock, Uact};

/// An order that got no bid.
pub struct Order<'a> {
    /// What was asked for.
    pub spec: &'a Spec,
    /// Everybody who is registered, where a list is known.
    pub list: Option<&'a [ProviderOffer]>,
    /// Providers that run or will run another node of the cluster.
    pub taken: &'a BTreeSet<String>,
    /// What was lived through with providers.
    pub experience: &'a Experiences,
    /// The most that it might cost, per block.
    pub max_price: PricePerBlock,
    /// The same per month.
    pub month: Uact,
}

/// One sentence: that nobody bid, why as far as it is known, and what to do.
#[must_use]
pub fn why(order: &Order<'_>) -> String {
    const PRICE: &str = "raise budget.maxPerMonth or placement.maxPrice";
    let month = order.month;
    let Some(list) = order.list.filter(|list| !list.is_empty()) else {
        return format!(
            "nobody bid at {month} per month or less; {PRICE}, or ask for less in placement and resources"
        );
    };
    let (mut others, mut matching) = (BTreeMap::<String, u32>::new(), Vec::new());
    for provider in list {
        match suppliers::mismatch(order.spec, provider) {
            Some(why) => *others.entry(named(order.spec, provider, why)).or_default() += 1,
            None => matching.push(provider.view.address.as_str()),
        }
    }
    let ruled_out = ruled_out(others);
    let all = list.len();
    if matching.is_empty() {
        return format!(
            "nobody bid, because none of the {all} providers on the chain's list can run it: {ruled_out}; ask for what more of them have"
        );
    }
    let and = if ruled_out.is_empty() { String::new() } else { format!(" ({ruled_out})") };
    let of = format!("{} of {all} providers on the chain's list match{and}", matching.len());
    let free: Vec<_> = matching.iter().filter(|one| !order.taken.contains(**one)).collect();
    if free.is_empty() {
        return format!(
            "nobody bid: {of}, and each of them runs another node of this cluster already, which never share one; ask for what more of them have, or for fewer nodes"
        );
    }
    // What they asked for just this, as far as they ever did.
    let asked = resources_asked(order.spec);
    let seen = |one: &&&str| order.experience.get(**one)?.prices.get(&asked).copied();
    let seen: Vec<_> = free.iter().filter_map(seen).collect();
    match seen.iter().min_by_key(|seen| seen.price) {
        Some(least) if least.price > order.max_price => format!(
            "nobody bid at {month} per month or less: {of}, and the lowest price that one of them asked of late is {}; {PRICE}, or ask for less in resources",
            least.month
        ),
        Some(least) => format!(
            "nobody bid at {month} per month or less: {of}, and one of them asked {} of late, so they have no room now or are away; ask for what more of them have, or wait",
            least.month
        ),
        None => format!(
            "nobody bid at {month} per month or less: {of}, so these have no room for it, are away, or ask more; ask for less in resources, or {PRICE}"
        ),
    }
}

/// `3 without storage of class beta3, 1 not signed as placement.signedBy asks`; the most first.
fn ruled_out(others: BTreeMap<String, u32>) -> String {
    let mut others: Vec<_> = others.into_iter().collect();
    others.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let others = others.into_iter().map(|(why, count)| format!("{count} {why}"));
    others.collect::<Vec<_>>().join(", ")
}

/// The reason with what was asked for, where a provider lacks one of several things.
fn named(spec: &Spec, provider: &ProviderOffer, why: &str) -> String {
    if why == NO_CLASS {
        let class = spec.resources.data.as_ref().map_or("", |data| data.class.word());
        return format!("without persistent storage of class {class} (resources.data.class)");
    }
    let own = &provider.view.attributes;
    let lacks = spec.placement.attributes.iter().find(|(key, value)| own.get(*key) != Some(value));
    match lacks {
        Some((key, value)) if why == suppliers::NO_ATTRIBUTES => {
            format!("without {key}={value} (placement.attributes)")
        }
        _ => why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::chain::ProviderView;
    use crate::model::experience::Note;
    use crate::model::time::UnixMs;

    fn provider(number: u32, region: &str, class: &str) -> ProviderOffer {
        let attributes = [
            ("region", region),
            ("capabilities/storage/1/class", class),
            ("capabilities/storage/1/persistent", "true"),
        ];
        let attributes = attributes.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let view = ProviderView {
            address: format!("akash1p{number}"),
            host_uri: format!("https://p{number}.example:8443"),
            attributes,
        };
        ProviderOffer { view, audits: BTreeMap::new() }
    }

    fn list() -> Vec<ProviderOffer> {
        let one = |(number, (region, class)): (u32, (&str, &str))| provider(number, region, class);
        let all = [("us-west", "beta3"), ("us-west", "beta2"), ("as-east", "beta2")];
        (1..).zip(all).map(one).collect()
    }

    fn said(spec: serde_json::Value, taken: &[&str], experience: &Experiences) -> String {
        let spec: Spec = serde_json::from_value(spec).unwrap();
        why(&Order {
            spec: &spec,
            list: Some(&list()),
            taken: &taken.iter().map(|one| (*one).to_owned()).collect(),
            experience,
            max_price: PricePerBlock(5),
            month: Uact(3_000_000),
        })
    }

    fn data(class: &str) -> serde_json::Value {
        serde_json::json!({ "nodes": 3, "resources": { "data": { "size": "4Gi", "class": class } } })
    }

    #[test]
    fn what_rules_providers_out_is_counted_and_the_price_is_not_blamed() {
        let none = Experiences::default();
        let region =
            serde_json::json!({ "nodes": 3, "placement": { "attributes": { "region": "eu" } } });
        let signed =
            serde_json::json!({ "nodes": 3, "placement": { "signedBy": { "anyOf": ["a"] } } });
        for (spec, taken, parts) in [
            (
                data("beta1"),
                &[][..],
                ["none of the 3 providers", "3 without persistent storage of class beta1"],
            ),
            (
                region,
                &[],
                ["none of the 3 providers", "3 without region=eu (placement.attributes)"],
            ),
            (signed, &[], ["none of the 3", "3 not signed as placement.signedBy asks"]),
            (
                data("beta3"),
                &["akash1p1"],
                ["1 of 3 providers on the chain's list match (2 without", "another node"],
            ),
        ] {
            let said = said(spec, taken, &none);
            for part in parts {
                assert!(said.contains(part), "{part} in {said}");
            }
            assert!(!said.contains("maxPerMonth") && !said.contains("per month"), "{said}");
        }
    }

    #[test]
    fn the_price_is_one_of_several_reasons_where_nothing_is_known_of_it() {
        let said = said(serde_json::json!({ "nodes": 3 }), &[], &Experiences::default());
        assert!(said.contains("3 of 3 providers") && said.contains("no room for it, are away, or"));
        assert!(said.contains("raise budget.maxPerMonth"), "{said}");
    }

    #[test]
    fn what_was_asked_of_late_says_whether_it_is_the_price() {
        let spec = serde_json::json!({ "nodes": 3 });
        let asked = resources_asked(&serde_json::from_value(spec.clone()).unwrap());
        let of = |price: u64| {
            let (price, month) = (PricePerBlock(price.into()), Uact(price * 600_000));
            let mut known = crate::model::experience::Experience::default();
            let note = Note::Bid { asked: asked.clone(), price, month, won: false };
            known.take(&note, UnixMs(1_795_000_000_000));
            Experiences::from([("akash1p1".to_owned(), known)])
        };
        let dear = said(spec.clone(), &[], &of(6));
        assert!(dear.contains("asked of late is 3.6act; raise budget.maxPerMonth"), "{dear}");
        let cheap = said(spec, &[], &of(4));
        assert!(cheap.contains("asked 2.4act of late, so they have no room now"), "{cheap}");
        assert!(!cheap.contains("maxPerMonth"), "{cheap}");
    }

    #[test]
    fn without_a_list_all_that_could_be_loosened_is_named() {
        let spec: Spec = serde_json::from_value(serde_json::json!({ "nodes": 3 })).unwrap();
        for list in [None, Some(&[][..])] {
            let said = why(&Order {
                spec: &spec,
                list,
                taken: &BTreeSet::new(),
                experience: &Experiences::default(),
                max_price: PricePerBlock(5),
                month: Uact(3_000_000),
            });
            assert!(said.starts_with("nobody bid at 3act per month or less; raise"), "{said}");
        }
    }
}
