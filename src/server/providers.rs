//! The providers that the operator met: what it lived through with them, and what runs there now.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;

use super::actions::Refusal;
use super::routes::App;
use crate::api::providers::{ProviderList, ProviderReport};
use crate::model::experience::Experience;
use crate::model::time::UnixMs;
use crate::store::Stored;

/// `GET /v1alpha1/providers`
pub(super) async fn providers(State(app): State<App>) -> Result<Json<ProviderList>, Refusal> {
    let (experience, clusters) = (app.store.experience().await?, app.store.list().await?);
    let now = UnixMs::now();
    let mut all: BTreeMap<String, ProviderReport> =
        experience.iter().map(|(who, known)| (who.clone(), report(who, known, now))).collect();
    for stored in &clusters {
        at_home(&mut all, stored);
    }
    Ok(Json(ProviderList { items: all.into_values().collect() }))
}

fn report(who: &str, known: &Experience, now: UnixMs) -> ProviderReport {
    let trouble = known.trouble_now(now);
    let last = known.prices.values().max_by_key(|price| price.at);
    ProviderReport {
        provider: who.to_owned(),
        bids: known.bids,
        won: known.won,
        started: known.started,
        failed_starts: known.failed_starts,
        incidents: known.incidents,
        trouble: format!("{}.{}", trouble / 1000, trouble % 1000 / 100),
        avoided: known.is_avoided(now),
        last_price: last.map(|price| price.month.to_string()),
        seen: known.seen.to_string(),
        ..ProviderReport::default()
    }
}

/// The nodes of a cluster at their providers.
fn at_home(all: &mut BTreeMap<String, ProviderReport>, stored: &Stored) {
    let nodes = stored.cluster.status.iter().flat_map(|status| &status.nodes);
    for node in nodes {
        let Some(provider) = &node.provider else { continue };
        let entry = all.entry(provider.clone()).or_insert_with(|| ProviderReport {
            provider: provider.clone(),
            ..ProviderReport::default()
        });
        entry.nodes.push(node.incarnation.clone());
        entry.host = entry.host.take().or_else(|| node.provider_host.clone());
        entry.path = entry.path.take().or_else(|| node.path.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::status::{NodeStatus, Status};
    use crate::model::experience::Note;
    use crate::model::money::{PricePerBlock, Uact};
    use crate::model::record::Record;

    #[test]
    fn a_provider_is_shown_with_what_was_lived_through_and_what_runs_there() {
        let now = UnixMs(1_795_000_000_000);
        let mut known = Experience::default();
        let (price, month) = (PricePerBlock(5), Uact(2_500_000));
        known.take(&Note::Bid { asked: "r".into(), price, month, won: true }, now);
        known.take(&Note::Incident, now);
        let mut all = BTreeMap::from([("akash1a".to_owned(), report("akash1a", &known, now))]);
        let node = |name: &str, provider: &str| NodeStatus {
            incarnation: name.into(),
            provider: Some(provider.into()),
            provider_host: Some("p.example.com".into()),
            ..NodeStatus::default()
        };
        let text = "apiVersion: akash-redis.dev/v1alpha1\nkind: RedisCluster\nmetadata: { name: cache }\nspec: { nodes: 1 }\n";
        let mut cluster = crate::api::validate::parse(text).expect("a manifest").remove(0);
        let nodes = vec![node("cache-0-aaaa", "akash1a"), node("cache-1-bbbb", "akash1b")];
        cluster.status = Some(Status { nodes, ..Status::default() });
        at_home(&mut all, &Stored { cluster, record: Record::default(), record_version: 0 });
        let a = &all["akash1a"];
        assert_eq!((a.bids, a.won, a.incidents, a.avoided), (1, 1, 1, false));
        assert_eq!((a.trouble.as_str(), a.last_price.as_deref()), ("1.0", Some("2.5act")));
        assert_eq!(
            (a.nodes.as_slice(), a.host.as_deref()),
            (&["cache-0-aaaa".to_owned()][..], Some("p.example.com"))
        );
        assert_eq!(all["akash1b"].nodes, ["cache-1-bbbb"], "also where nothing else is known");
    }
}
