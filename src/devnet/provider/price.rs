//! What a provider of the local market asks.

use crate::wire::akash::base::resources::v1beta4::{ResourceValue, Resources};
use crate::wire::akash::deployment::v1beta4::GroupSpec;
use crate::wire::akash::market::v1beta5::ResourceOffer;

/// Micro-ACT for a month of one CPU.
const CPU: u128 = 1_000_000;
/// Micro-ACT for a month of one GiB of memory.
const MEMORY_GIB: u128 = 500_000;
/// Micro-ACT for a month of one GiB of storage.
const STORAGE_GIB: u128 = 30_000;
const MONTH_MS: u128 = 30 * 24 * 3600 * 1000;
const GIB: u128 = 1 << 30;
/// Places of a decimal amount.
const ONE: u128 = 1_000_000_000_000_000_000;

fn amount(value: Option<&ResourceValue>) -> u128 {
    value
        .and_then(|value| std::str::from_utf8(&value.val).ok())
        .and_then(|digits| digits.parse::<u64>().ok())
        .unwrap_or(0)
        .into()
}

/// Micro-ACT for a month of one such unit.
fn monthly(resource: &Resources) -> u128 {
    let cpu = amount(resource.cpu.as_ref().and_then(|cpu| cpu.units.as_ref()));
    let memory = amount(resource.memory.as_ref().and_then(|memory| memory.quantity.as_ref()));
    let storage: u128 =
        resource.storage.iter().map(|storage| amount(storage.quantity.as_ref())).sum();
    CPU * cpu / 1000 + MEMORY_GIB * memory / GIB + STORAGE_GIB * storage / GIB
}

/// Price of a group for one block of `block_ms`, in `uact` times 10^18; `permille` of the usual
/// price, never zero.
#[must_use]
pub fn per_block(spec: &GroupSpec, permille: u32, block_ms: u64) -> u128 {
    let units = spec
        .resources
        .iter()
        .filter_map(|unit| Some((unit.resource.as_ref()?, u128::from(unit.count))));
    let month: u128 = units.map(|(resource, count)| monthly(resource) * count).sum();
    let price = month * ONE / MONTH_MS * u128::from(block_ms) / 1000 * u128::from(permille);
    price.max(1)
}

/// An offer of just what was ordered.
#[must_use]
pub fn offer(spec: &GroupSpec) -> Vec<ResourceOffer> {
    let offer = |unit: &crate::wire::akash::deployment::v1beta4::ResourceUnit| ResourceOffer {
        resources: unit.resource.clone(),
        count: unit.count,
        prices: None,
    };
    spec.resources.iter().map(offer).collect()
}

/// An offer of half the processors and memory that were ordered; the chain does not compare.
#[must_use]
pub fn smaller_offer(spec: &GroupSpec) -> Vec<ResourceOffer> {
    let mut offer = offer(spec);
    let half = |value: Option<&mut ResourceValue>| {
        if let Some(value) = value {
            value.val = (amount(Some(value)) / 2).to_string().into_bytes();
        }
    };
    for resources in offer.iter_mut().filter_map(|offer| offer.resources.as_mut()) {
        half(resources.cpu.as_mut().and_then(|cpu| cpu.units.as_mut()));
        half(resources.memory.as_mut().and_then(|memory| memory.quantity.as_mut()));
    }
    offer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::akash::base::resources::v1beta4::{Cpu, Memory};
    use crate::wire::akash::deployment::v1beta4::ResourceUnit;

    #[test]
    fn a_month_costs_what_the_list_says() {
        let value = |digits: &str| Some(ResourceValue { val: digits.as_bytes().to_vec() });
        let resource = Resources {
            cpu: Some(Cpu { units: value("500"), attributes: vec![] }),
            memory: Some(Memory { quantity: value("1073741824"), attributes: vec![] }),
            ..Resources::default()
        };
        let spec = GroupSpec {
            resources: vec![ResourceUnit { resource: Some(resource), count: 2, price: None }],
            ..GroupSpec::default()
        };
        let month = |permille, block_ms| {
            per_block(&spec, permille, block_ms) * (MONTH_MS / u128::from(block_ms)) / ONE
        };
        assert!((1_999_999..=2_000_000).contains(&month(1000, 500)));
        assert!((1_999_999..=2_000_000).contains(&month(1000, 6000)));
        assert!((2_999_999..=3_000_000).contains(&month(1500, 500)));
    }
}
