//! Whether a provider fits an order.

use super::amount::dec;
use crate::wire::akash::audit::v1::AuditedProvider;
use crate::wire::akash::base::attributes::v1::Attribute;
use crate::wire::akash::deployment::v1beta4::GroupSpec;
use crate::wire::akash::market::v1beta5::ResourceOffer;

/// The most that may be bid for a group and a block: the sum of price times count, times 10^18,
/// with its denomination.
pub(super) fn price_limit(spec: &GroupSpec) -> (&str, i128) {
    let mut denom = "";
    let mut sum = 0_i128;
    for unit in &spec.resources {
        let (unit_denom, price) = dec(unit.price.as_ref()).unwrap_or_default();
        denom = unit_denom;
        sum = sum.saturating_add(price.saturating_mul(i128::from(unit.count)));
    }
    (denom, sum)
}

/// Whether an offer, if there is one, names the same units as often. Sizes are not looked at.
pub(super) fn same_units(spec: &GroupSpec, offer: &[ResourceOffer]) -> bool {
    let asked = |id: u32, count: u32| {
        spec.resources.iter().any(|unit| {
            unit.count == count && unit.resource.as_ref().is_some_and(|resource| resource.id == id)
        })
    };
    offer.is_empty()
        || (offer.len() == spec.resources.len()
            && offer.iter().all(|offer| {
                asked(offer.resources.as_ref().map_or(0, |resource| resource.id), offer.count)
            }))
}

fn includes(has: &[Attribute], wants: &[Attribute]) -> bool {
    wants.iter().all(|want| has.contains(want))
}

/// Whether the provider's attributes, and those that auditors signed, are what the group asks for.
pub(super) fn meets_requirements(
    spec: &GroupSpec,
    own: &[Attribute],
    audited: &[&AuditedProvider],
) -> bool {
    let Some(requirements) = &spec.requirements else { return true };
    let wants = &requirements.attributes;
    if !includes(own, wants) {
        return false;
    }
    let Some(signed_by) = &requirements.signed_by else { return true };
    let signed = |auditor: &String| {
        audited
            .iter()
            .any(|audited| audited.auditor == *auditor && includes(&audited.attributes, wants))
    };
    signed_by.all_of.iter().all(signed)
        && (signed_by.any_of.is_empty() || signed_by.any_of.iter().any(signed))
}

/// Whether each volume with a class finds it among the provider's `capabilities/storage/N/...`.
pub(super) fn has_storage(spec: &GroupSpec, own: &[Attribute]) -> bool {
    const PREFIX: &str = "capabilities/storage/";
    let volumes = spec
        .resources
        .iter()
        .filter_map(|unit| unit.resource.as_ref())
        .flat_map(|resource| &resource.storage);
    let mut classes: Vec<&str> = own
        .iter()
        .filter_map(|attribute| attribute.key.strip_prefix(PREFIX)?.split('/').next())
        .collect();
    classes.dedup();
    let offers = |class: &str, want: &Attribute| {
        let key = format!("{PREFIX}{class}/{}", want.key);
        own.iter().any(|attribute| attribute.key == key && attribute.value == want.value)
    };
    // A volume in memory needs no class of the provider.
    let in_memory = |attributes: &[Attribute]| {
        attributes.iter().any(|attribute| attribute.key == "class" && attribute.value == "ram")
    };
    volumes.filter(|volume| !volume.attributes.is_empty() && !in_memory(&volume.attributes)).all(
        |volume| {
            classes.iter().any(|class| volume.attributes.iter().all(|want| offers(class, want)))
        },
    )
}
