//! Which providers may run a node at all, by what the chain knows of them before anybody bids.

use std::collections::BTreeMap;

use crate::api::types::{Placement, Spec, StorageClass};
use crate::model::chain::ProviderOffer;

/// Why a provider cannot run a node of this spec; `None` when nothing on the chain speaks against
/// it. Whether it is up and has room is not on the chain.
#[must_use]
pub fn mismatch(spec: &Spec, provider: &ProviderOffer) -> Option<&'static str> {
    let Placement { attributes, signed_by, providers, .. } = &spec.placement;
    let (address, own) = (&provider.view.address, &provider.view.attributes);
    if !providers.allow.is_empty() && !providers.allow.contains(address) {
        return Some("not among placement.providers.allow");
    }
    if providers.deny.contains(address) {
        return Some("among placement.providers.deny");
    }
    if !includes(own, attributes) {
        return Some(NO_ATTRIBUTES);
    }
    let signed = |auditor: &String| {
        provider.audits.get(auditor).is_some_and(|signed| includes(signed, attributes))
    };
    if !signed_by.all_of.iter().all(signed)
        || !(signed_by.any_of.is_empty() || signed_by.any_of.iter().any(signed))
    {
        return Some("not signed as placement.signedBy asks");
    }
    match &spec.resources.data {
        Some(data) if !has_class(own, data.class) => Some(NO_CLASS),
        _ => None,
    }
}

/// A provider lacks an attribute.
pub const NO_ATTRIBUTES: &str = "without the attributes of placement.attributes";
/// A provider lacks the storage class of the data volume.
pub const NO_CLASS: &str = "without persistent storage of the class of resources.data";

fn includes(has: &BTreeMap<String, String>, wants: &BTreeMap<String, String>) -> bool {
    wants.iter().all(|(key, value)| has.get(key) == Some(value))
}

/// Whether a volume of this class finds it among the `capabilities/storage/N/...`.
fn has_class(own: &BTreeMap<String, String>, class: StorageClass) -> bool {
    const PREFIX: &str = "capabilities/storage/";
    let class = class.word();
    own.iter().any(|(key, value)| {
        let number = key.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix("/class"));
        number.is_some_and(|number| {
            value == class
                && own
                    .get(&format!("{PREFIX}{number}/persistent"))
                    .is_some_and(|persistent| persistent == "true")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::chain::ProviderView;

    fn provider(attributes: &[(&str, &str)], signed_by: &[&str]) -> ProviderOffer {
        let attributes: BTreeMap<String, String> =
            attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let audits =
            signed_by.iter().map(|auditor| ((*auditor).to_owned(), attributes.clone())).collect();
        let view = ProviderView {
            address: "akash1p".into(),
            host_uri: "https://p.example:8443".into(),
            attributes,
        };
        ProviderOffer { view, audits }
    }

    fn spec(json: serde_json::Value) -> Spec {
        serde_json::from_value(json).expect("a spec")
    }

    #[test]
    fn each_thing_that_the_chain_knows_is_asked_for() {
        let nvme = [
            ("region", "us-west"),
            ("capabilities/storage/2/class", "beta3"),
            ("capabilities/storage/2/persistent", "true"),
        ];
        let ram = [
            ("region", "us-west"),
            ("capabilities/storage/1/class", "beta3"),
            ("capabilities/storage/1/persistent", "false"),
            ("capabilities/storage/2/persistent", "true"),
        ];
        let placed = |placement: serde_json::Value| {
            spec(serde_json::json!({ "nodes": 3, "placement": placement }))
        };
        let data =
            spec(serde_json::json!({ "nodes": 3, "resources": { "data": { "size": "4Gi" } } }));
        let west = placed(serde_json::json!({ "attributes": { "region": "us-west" } }));
        let east = placed(serde_json::json!({ "attributes": { "region": "as-east" } }));
        let all = placed(serde_json::json!({ "signedBy": { "allOf": ["a", "b"] } }));
        let any = placed(serde_json::json!({ "signedBy": { "anyOf": ["a", "b"] } }));
        let only = placed(serde_json::json!({ "providers": { "allow": ["akash1x"] } }));
        let not = placed(serde_json::json!({ "providers": { "deny": ["akash1p"] } }));
        for (spec, provider, says) in [
            (&data, provider(&nvme, &[]), None),
            (&data, provider(&ram, &[]), Some(NO_CLASS)),
            (&west, provider(&ram, &[]), None),
            (&east, provider(&ram, &[]), Some("without the attributes of placement.attributes")),
            (&all, provider(&ram, &["a"]), Some("not signed as placement.signedBy asks")),
            (&all, provider(&ram, &["a", "b"]), None),
            (&any, provider(&ram, &["b"]), None),
            (&any, provider(&ram, &[]), Some("not signed as placement.signedBy asks")),
            (&only, provider(&ram, &[]), Some("not among placement.providers.allow")),
            (&not, provider(&ram, &[]), Some("among placement.providers.deny")),
        ] {
            assert_eq!(mismatch(spec, &provider), says, "{spec:?}");
        }
    }
}
