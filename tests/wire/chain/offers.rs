//! The chain's list of providers, and what auditors signed of them.

use akash_redis::api::types::Spec;
use akash_redis::chain::Chain as _;
use akash_redis::model::chain::ProviderOffer;
use akash_redis::plan::suppliers::mismatch;
use akash_redis::wire::akash::provider::v1beta4::{
    Provider, QueryProviderResponse, QueryProvidersRequest, QueryProvidersResponse,
};
use prost::Message as _;

use super::node::*;

const PROVIDERS: &str = "/akash.provider.v1beta4.Query/Providers";
const AUDITS: &str = "/akash.audit.v1.Query/AllProvidersAttributes";
const PAGE: &str = "Providers page 1 of limit 2 (next_key set)";
/// The auditor that most manifests of the network name.
const AUDITOR: &str = "akash1365yvmc4s7awdyj3n2sav7xfx76adc6dnmlx63";

/// The recorded page of two providers, and one with a third.
fn listed() -> (Script, Vec<Provider>) {
    let script = Script::default();
    let first: QueryProvidersResponse = read(PAGE);
    let third = read::<QueryProviderResponse>("Provider").provider.expect("a provider");
    let second = QueryProvidersResponse { providers: vec![third.clone()], pagination: None };
    script.say(PROVIDERS, recorded(PAGE).answer());
    script.say(PROVIDERS, Ok(second.encode_to_vec()));
    (script, first.providers.into_iter().chain([third]).collect())
}

/// A field of a message that holds bytes: these tests spell the signatures out, as no answer with
/// one was recorded. The numbers are those of the network's own definition.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).expect("short");
    assert!(length < 128, "a longer one takes two bytes for its length");
    [&[number << 3 | 2, length], bytes].concat()
}

/// What an auditor signed of a provider: owner 1, auditor 2, attributes 4 with key 1 and value 2.
fn signed(owner: &str, auditor: &str, attributes: &[(&str, &str)]) -> Vec<u8> {
    let attribute = |(key, value): &(&str, &str)| {
        field(4, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat())
    };
    let attributes = attributes.iter().flat_map(attribute).collect::<Vec<_>>();
    [field(1, owner.as_bytes()), field(2, auditor.as_bytes()), attributes].concat()
}

fn spec(placement: &serde_json::Value) -> Spec {
    serde_json::from_value(serde_json::json!({ "nodes": 3, "placement": placement }))
        .expect("a spec")
}

fn who_matches<'a>(spec: &Spec, offers: &'a [ProviderOffer]) -> Vec<&'a str> {
    let fits = offers.iter().filter(|offer| mismatch(spec, offer).is_none());
    fits.map(|offer| offer.view.address.as_str()).collect()
}

#[tokio::test]
async fn all_providers_are_listed_page_by_page() {
    let (script, providers) = listed();
    let offers = script.client().await.providers(false).await.expect("a list");
    let views: Vec<_> = offers.iter().map(|o| (&o.view.address, &o.view.host_uri)).collect();
    let wanted: Vec<_> = providers.iter().map(|p| (&p.owner, &p.host_uri)).collect();
    assert_eq!(views, wanted);
    assert_eq!(offers[1].view.attributes["host"], "p2");
    assert!(offers.iter().all(|o| o.view.attributes["region"] == "us-west" && o.audits.is_empty()));
    assert!(script.asked(AUDITS).is_empty(), "nobody asked what is signed");
    let asked = script.asked(PROVIDERS).into_iter();
    let pages = asked.map(|(_, bytes)| {
        QueryProvidersRequest::decode(&*bytes).expect("a request").pagination.expect("a page")
    });
    let keys: Vec<_> = pages.map(|page| page.key).collect();
    let next = read::<QueryProvidersResponse>(PAGE).pagination.expect("a page").next_key;
    assert_eq!(keys, [Vec::new(), next]);
}

#[tokio::test]
async fn a_provider_is_signed_by_whom_the_chain_says_and_for_what() {
    let (script, providers) = listed();
    let [first, second, third] = &providers[..] else { panic!("three") };
    let west = [("region", "us-west")];
    let entries = [
        signed(&first.owner, AUDITOR, &west),
        signed(&first.owner, "akash1other", &west),
        signed(&second.owner, AUDITOR, &[("region", "us-east")]),
        signed(&third.owner, "akash1other", &[("region", "us-west"), ("host", "p1")]),
        // Of one that is not registered any more.
        signed("akash1gone", AUDITOR, &west),
    ];
    let entries = entries.iter().flat_map(|entry| {
        let length = entry.len();
        let head = if length < 128 {
            vec![1 << 3 | 2, u8::try_from(length).expect("short")]
        } else {
            let low = u8::try_from(length % 128).expect("seven bits");
            vec![1 << 3 | 2, low | 128, u8::try_from(length / 128).expect("seven bits")]
        };
        [head, entry.clone()].concat()
    });
    script.say(AUDITS, Ok(entries.collect()));
    let offers = script.client().await.providers(true).await.expect("a list");
    assert_eq!(offers.len(), 3);
    let (one, two, three) = (first.owner.as_str(), second.owner.as_str(), third.owner.as_str());
    for (placement, wanted) in [
        (serde_json::json!({ "signedBy": { "anyOf": [AUDITOR] } }), vec![one, two]),
        (serde_json::json!({ "signedBy": { "allOf": [AUDITOR, "akash1other"] } }), vec![one]),
        (serde_json::json!({ "signedBy": { "anyOf": ["akash1nobody"] } }), vec![]),
        // Signed must be what is asked for, not only said by the provider itself.
        (
            serde_json::json!({
                "attributes": { "region": "us-west" },
                "signedBy": { "anyOf": [AUDITOR, "akash1other"] },
            }),
            vec![one, three],
        ),
    ] {
        assert_eq!(who_matches(&spec(&placement), &offers), wanted, "{placement}");
    }
}

/// A list without what was signed would be one of which nobody is signed.
#[tokio::test]
async fn a_list_whose_signatures_cannot_be_had_is_none() {
    let (script, _) = listed();
    script.client().await.providers(true).await.expect_err("this node knows no audits");
}
