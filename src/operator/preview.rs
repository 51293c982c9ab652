//! What an apply would cost and who could run it: asked of the planner itself, over the readings that
//! are there and the chain's list of providers. Nothing is committed, sent or bought.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;

use super::{Pipeline, lock, reconcile};
use crate::api::conditions::Reason;
use crate::api::preview::{Bill, Offers};
use crate::api::quantity::Money;
use crate::api::status::Status;
use crate::api::types::{Resources, Spec, SpreadBy, SpreadWhen};
use crate::model::chain::ProviderOffer;
use crate::model::inventory::Inventory;
use crate::model::money::{PricePerBlock, Uact};
use crate::notify::Targets;
use crate::plan::{self, suppliers};
use crate::server::appraiser::{Appraisal, Appraiser};
use crate::server::messages::Tested;
use crate::store::Stored;

/// The list of providers is waited for so long: the rest of the answer does not need it.
const LIST: Duration = Duration::from_secs(15);
/// Providers that are named.
const NAMED: usize = 5;
/// Reasons that stand in the way of buying.
const IN_THE_WAY: [Reason; 8] = [
    Reason::WalletBalanceLow,
    Reason::BudgetExhausted,
    Reason::BudgetBelowCost,
    Reason::OrphanedDeployment,
    Reason::MeshApiRefused,
    Reason::MeshApiUnavailable,
    Reason::ChainUnavailable,
    Reason::OperatorOffMesh,
];

/// The running operator, asked.
pub(super) struct OperatorAppraiser {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) targets: Targets,
}

#[async_trait]
impl Appraiser for OperatorAppraiser {
    async fn appraise(&self, wanted: Vec<Stored>) -> Vec<Appraisal> {
        let audited = |stored: &Stored| {
            let signed_by = &stored.cluster.spec.placement.signed_by;
            !signed_by.all_of.is_empty() || !signed_by.any_of.is_empty()
        };
        let audited = wanted.iter().any(audited);
        let list = self.pipeline.ports.chain.providers(audited);
        let list = match tokio::time::timeout(LIST, list).await {
            Ok(list) => list.map_err(|error| error.to_string()),
            Err(_) => Err(format!("the chain did not give it within {} s", LIST.as_secs())),
        };
        let known = self.pipeline.ports.store.list().await.unwrap_or_default();
        let mut before = Before::default();
        wanted.iter().map(|stored| self.one(stored, &list, &known, &mut before)).collect()
    }

    fn seal(&self, cluster: &str, keys: &SecretString) -> Option<String> {
        Some(self.pipeline.settings.root.seal(cluster, keys))
    }

    fn seal_again(&self, from: &str, to: &str, sealed: &str) -> Option<String> {
        let root = &self.pipeline.settings.root;
        root.unseal(from, sealed).map(|keys| root.seal(to, &keys))
    }

    async fn test_notifications(&self) -> Vec<Tested> {
        let tested = |(target, came): (String, Result<String, String>)| Tested {
            target,
            ok: came.is_ok(),
            message: came.unwrap_or_else(|error| error),
        };
        self.targets.test().await.into_iter().map(tested).collect()
    }
}

/// What the manifests before would take.
#[derive(Default)]
struct Before {
    deposits: Uact,
    committed: PricePerBlock,
}

impl OperatorAppraiser {
    fn one(
        &self,
        stored: &Stored,
        list: &Result<Vec<ProviderOffer>, String>,
        known: &[Stored],
        before: &mut Before,
    ) -> Appraisal {
        let (pipeline, spec) = (&self.pipeline, &stored.cluster.spec);
        let name = &stored.cluster.metadata.name;
        let mut inventory = pipeline.observe(stored);
        if let Some(chain) = &mut inventory.chain.value {
            chain.balance = chain.balance.saturating_sub(before.deposits);
        }
        let others = lock(&pipeline.index).committed_by_others(name);
        let others = PricePerBlock(others.0.saturating_add(before.committed.0));
        let (plan, deposit, (reserved, count), (allowed, allowed_by)) = reconcile::with_input(
            &pipeline.settings,
            stored,
            &inventory,
            others,
            (pipeline.ports.now)(),
            |input| {
                let plan = plan::plan(input);
                let reserved = plan::deposits(input, &plan.record);
                (plan, plan::deposit(input), reserved, plan::ceiling(input))
            },
        );
        let (now, then) = (
            plan::committed(&inventory, &stored.record),
            plan::committed(&inventory, &plan.record),
        );
        let new_nodes = new_nodes(stored, &plan);
        // Those that are not reserved yet get about as much as the budget allows each.
        let later = u64::from(new_nodes.saturating_sub(count));
        let deposits = reserved + Uact(deposit.0.saturating_mul(later));
        let prices = self.prices(&spec.resources, known);
        let per_month = |price: PricePerBlock| plan::per_month(&inventory, price);
        let observed = prices.iter().min().zip(prices.iter().max());
        let observed = observed.map(|(low, high)| [low, high].map(|p| Money(per_month(*p))));
        let bill = inventory.chain.value.as_ref().map(|chain| Bill {
            new_nodes,
            deposit: Some(Money(deposit)),
            deposits: Some(Money(deposits)),
            balance: Some(Money(chain.balance)),
            now: Some(Money(per_month(now))),
            at_most: Some(Money(per_month(then))),
            allowed: Some(Money(allowed)),
            allowed_by,
            observed,
            observed_of: u32::try_from(prices.len()).unwrap_or(u32::MAX),
        });
        before.deposits = before.deposits + deposits;
        before.committed.0 = before.committed.0.saturating_add(then.0.saturating_sub(now.0));
        let offers = offers(spec, list);
        let mut warnings = in_the_way(&plan.status, &inventory);
        warnings.extend(warn_of_spec(name, spec));
        warnings.extend(bill.as_ref().and_then(|bill| warn_of_price(spec, bill)));
        if let Ok(list) = list {
            warnings.extend(warn_of_offers(spec, list));
        }
        Appraisal { bill, offers, warnings }
    }

    /// What nodes of this size cost, or were offered for, by the last reading of the chain.
    fn prices(&self, resources: &Resources, known: &[Stored]) -> Vec<PricePerBlock> {
        let alike = known.iter().filter(|stored| stored.cluster.spec.resources == *resources);
        let index = lock(&self.pipeline.index);
        let dseqs: BTreeSet<u64> = alike
            .flat_map(|stored| index.dseqs_of(&stored.cluster.metadata.name).into_keys())
            .collect();
        drop(index);
        self.pipeline.observer.prices(&dseqs)
    }
}

/// Nodes that the plan reserves; where something is in its way, those that it would.
fn new_nodes(stored: &Stored, plan: &plan::Plan) -> u32 {
    let old = &stored.record.incarnations;
    let reserved = plan.record.incarnations.keys().filter(|name| !old.contains_key(*name)).count();
    if reserved > 0 || stored.cluster.spec.paused {
        return u32::try_from(reserved).unwrap_or(u32::MAX);
    }
    let filled: BTreeSet<u32> = plan
        .record
        .incarnations
        .values()
        .filter(|i| i.condemned.is_none())
        .map(|i| i.ordinal)
        .collect();
    let empty = (0..stored.cluster.spec.nodes).filter(|ordinal| !filled.contains(ordinal));
    u32::try_from(empty.count()).unwrap_or(u32::MAX)
}

/// Who could run a node of this spec.
fn offers(spec: &Spec, list: &Result<Vec<ProviderOffer>, String>) -> Offers {
    let list = match list {
        Ok(list) => list,
        Err(error) => return Offers { unknown: Some(error.clone()), ..Offers::default() },
    };
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let mut others: BTreeMap<&str, u32> = BTreeMap::new();
    let mut matching = Vec::new();
    for provider in list {
        match suppliers::mismatch(spec, provider) {
            Some(why) => *others.entry(why).or_default() += 1,
            None => matching.push(provider),
        }
    }
    Offers {
        unknown: None,
        listed: count(list.len()),
        matching: count(matching.len()),
        first: matching.iter().take(NAMED).map(|provider| shown(provider)).collect(),
        others: others.into_iter().map(|(why, n)| (why.to_owned(), n)).collect(),
    }
}

/// `provider.example.org (us-west, akash1...)`.
fn shown(provider: &ProviderOffer) -> String {
    let uri = &provider.view.host_uri;
    let host = uri.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
    let region = plan::region(&provider.view).map_or("no region told", String::as_str);
    format!("{} ({region}, {})", host.unwrap_or_else(|| uri.clone()), provider.view.address)
}

/// What the planner says is in the way of buying.
fn in_the_way(status: &Status, inventory: &Inventory) -> Vec<String> {
    let conditions = status.conditions.iter();
    let mut said: Vec<String> = conditions
        .filter(|condition| IN_THE_WAY.contains(&condition.reason))
        .map(|condition| format!("{}: {}", condition.reason, condition.message))
        .collect();
    said.dedup();
    if inventory.chain.value.is_none() {
        said.push("the chain was not read yet, so what it would cost is not known".to_owned());
    }
    said
}

fn warn_of_spec(name: &str, spec: &Spec) -> Vec<String> {
    let mut warnings = Vec::new();
    if spec.redis.users.is_empty() {
        warnings.push(format!(
            "{name} has no user, so no application can log in; add one below spec.redis.users"
        ));
    }
    if spec.paused {
        warnings.push(format!(
            "{name} is paused (spec.paused): nothing is bought and no master that dies is replaced before it is resumed"
        ));
    }
    warnings
}

fn warn_of_price(spec: &Spec, bill: &Bill) -> Option<String> {
    let ([low, _], allowed) = (bill.observed?, bill.allowed?);
    let needed = Uact(low.0.0.saturating_mul(u64::from(spec.nodes)));
    (needed > allowed.0).then(|| {
        format!(
            "{} nodes at the lowest price seen of late ({low} per month each) cost {needed} per month, and {allowed} are allowed ({}): not all of them will be bought",
            spec.nodes, bill.allowed_by
        )
    })
}

fn warn_of_offers(spec: &Spec, list: &[ProviderOffer]) -> Vec<String> {
    let reasons: Vec<_> = list.iter().map(|provider| suppliers::mismatch(spec, provider)).collect();
    let matching: Vec<_> =
        list.iter().zip(&reasons).filter(|(_, why)| why.is_none()).map(|(p, _)| p).collect();
    let mut warnings = Vec::new();
    if let Some(data) = &spec.resources.data
        && !list.is_empty()
        && reasons.iter().all(Option::is_some)
        && reasons.iter().flatten().any(|why| *why == suppliers::NO_CLASS)
    {
        warnings.push(format!(
            "no provider that matches otherwise has persistent storage of class {}; write another resources.data.class",
            data.class.word()
        ));
    }
    if matching.len() < spec.nodes as usize {
        warnings.push(format!(
            "{} nodes need as many providers, because two never share one, and {} on the chain's list match",
            spec.nodes,
            matching.len()
        ));
    }
    let regions: BTreeSet<_> = matching.iter().filter_map(|p| plan::region(&p.view)).collect();
    let spread = &spec.placement.spread;
    let by_region = spread.by == SpreadBy::Region && spread.when == SpreadWhen::Required;
    if by_region && regions.len() < spec.nodes as usize {
        warnings.push(format!(
            "placement.spread wants {} regions, and the providers that match name {}",
            spec.nodes,
            regions.len()
        ));
    } else if let (true, Some(only)) = (spec.nodes > 1 && regions.len() == 1, regions.first()) {
        warnings.push(format!(
            "all providers that match and name a region are in {only}: what hits that region hits every node"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::chain::ProviderView;

    fn spec(json: serde_json::Value) -> Spec {
        serde_json::from_value(json).expect("a spec")
    }

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

    fn three(json: &serde_json::Value) -> Spec {
        let mut whole = serde_json::json!({ "nodes": 3 });
        whole.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
        spec(whole)
    }

    #[test]
    fn who_could_run_a_node_is_counted_and_named() {
        let list = vec![
            provider(1, "us-west", "beta3"),
            provider(2, "as-east", "beta2"),
            provider(3, "us-west", "beta3"),
        ];
        let data = three(&serde_json::json!({ "resources": { "data": { "size": "4Gi" } } }));
        let found = offers(&data, &Ok(list.clone()));
        assert_eq!((found.listed, found.matching), (3, 2));
        assert_eq!(found.first[0], "p1.example (us-west, akash1p1)");
        assert_eq!(found.others, [(suppliers::NO_CLASS.to_owned(), 1)]);
        let unknown = offers(&data, &Err("away".into()));
        assert_eq!((unknown.unknown.as_deref(), unknown.matching), (Some("away"), 0));
        let many = vec![provider(1, "us-west", "beta3"); 9];
        assert_eq!(offers(&data, &Ok(many)).first.len(), NAMED);
    }

    #[test]
    fn what_will_not_work_out_is_said_before() {
        let west = || vec![provider(1, "us-west", "beta2"), provider(2, "us-west", "beta2")];
        let plain = three(&serde_json::json!({}));
        let said = warn_of_offers(&plain, &west()).join("\n");
        assert!(
            said.contains("need as many providers") && said.contains("are in us-west"),
            "{said}"
        );
        let data = three(&serde_json::json!({ "resources": { "data": { "size": "4Gi" } } }));
        let said = warn_of_offers(&data, &west()).join("\n");
        assert!(said.contains("storage of class beta3"), "{said}");
        let mut enough = west();
        enough.push(provider(3, "as-east", "beta3"));
        assert!(warn_of_offers(&plain, &enough).is_empty());
        let spread = serde_json::json!({ "placement": { "spread": { "by": "region", "when": "required" } } });
        let said = warn_of_offers(&three(&spread), &enough).join("\n");
        assert!(said.contains("wants 3 regions, and the providers that match name 2"), "{said}");
        assert!(warn_of_spec("cache", &plain)[0].contains("no user"));
        let user = serde_json::json!({ "redis": { "users": [{ "name": "app" }] }, "paused": true });
        assert!(warn_of_spec("cache", &three(&user))[0].contains("is paused"));
    }

    #[test]
    fn a_budget_below_the_price_of_late_is_told() {
        let money = |act: u64| Money(Uact(act * 1_000_000));
        let bill = |allowed: u64, observed| Bill {
            allowed: Some(money(allowed)),
            observed,
            ..Bill::default()
        };
        let plain = three(&serde_json::json!({}));
        assert_eq!(warn_of_price(&plain, &bill(6, None)), None, "nothing is known");
        assert_eq!(warn_of_price(&plain, &bill(6, Some([money(2), money(9)]))), None);
        let said = warn_of_price(&plain, &bill(5, Some([money(2), money(9)]))).expect("too little");
        assert!(said.contains("cost 6act per month, and 5act are allowed"), "{said}");
    }
}
