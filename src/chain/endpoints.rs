//! How each endpoint is, for `operator --check`.

use futures::future::join_all;

use super::ChainError;
use super::client::ChainClient;
use super::endpoint::{Block, Node};
use super::view;
use crate::model::money::{UACT, Uact};
use crate::model::time::UnixMs;
use crate::wire::akash::deployment::v1beta4::QueryParamsRequest as DeploymentParams;
use crate::wire::akash::market::v1beta5::QueryParamsRequest as MarketParams;

/// An endpoint may be so many blocks behind the newest one.
const BEHIND: i64 = 5;
/// A chain whose newest block is older stands still, or the endpoint does.
const OLD_SECONDS: u64 = 60;

/// One endpoint, and what it says or what is wrong with it.
pub type EndpointFinding = (String, Result<String, String>);

/// What an endpoint said.
struct Facts {
    block: Block,
    version: String,
    params: String,
}

impl ChainClient {
    /// Asks every endpoint how it is. Nothing is spent.
    pub async fn endpoints(&self) -> Vec<EndpointFinding> {
        let asked = self.nodes().all().iter().map(|node| async move {
            (node.uri().to_owned(), facts(node).await.map_err(|error| error.to_string()))
        });
        let all = join_all(asked).await;
        let heights = all.iter().filter_map(|(_, facts)| Some(facts.as_ref().ok()?.block.height));
        let newest = heights.max().unwrap_or_default();
        all.into_iter()
            .map(|(uri, facts)| (uri, facts.and_then(|facts| judge(&facts, newest, UnixMs::now()))))
            .collect()
    }
}

async fn facts(node: &Node) -> Result<Facts, ChainError> {
    node.introduce().await?;
    let block = node.latest().await?;
    let version = node.introduction().version().unwrap_or_default();
    Ok(Facts { block, version, params: params(node).await? })
}

/// What governance set of what concerns a tenant.
async fn params(node: &Node) -> Result<String, ChainError> {
    let what = "the deployment parameters";
    let answer = node.call(what, node.deployments().params(DeploymentParams {})).await?;
    let deployment = node.part(answer.params, "deployment parameters")?;
    let least = view::coins(&deployment.min_deposits, UACT).map_err(|flaw| node.invalid(flaw))?;
    if !deployment.min_deposits.iter().any(|coin| coin.denom == UACT) {
        let denominations: Vec<_> =
            deployment.min_deposits.iter().map(|coin| coin.denom.as_str()).collect();
        return Err(node.invalid(format!(
            "deposits are taken in {} and not in {UACT}, the only coin this operator pays with",
            denominations.join(", ")
        )));
    }
    let what = "the market parameters";
    let answer = node.call(what, node.market().params(MarketParams {})).await?;
    let market = node.part(answer.params, "market parameters")?;
    let windows = [market.min_reclamation_window, market.max_reclamation_window];
    Ok(format!(
        "deposits from {}, {} bids an order, {}",
        Uact(least),
        market.order_max_bids,
        notices(windows)
    ))
}

/// How long a notice before a lease is taken back may be, from the shortest to the longest.
fn notices(windows: [Option<prost_types::Duration>; 2]) -> String {
    let [least, most] = windows.map(|window| window.map_or(0, |w| w.seconds));
    if most <= 0 {
        return "no lease is taken back with a notice".to_owned();
    }
    format!("a lease is taken back with a notice of {} to {}", time(least), time(most))
}

/// In the largest unit of which it has two.
fn time(seconds: i64) -> String {
    match seconds {
        172_800.. => format!("{} d", seconds / 86_400),
        7_200.. => format!("{} h", seconds / 3_600),
        120.. => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}

fn judge(facts: &Facts, newest: i64, now: UnixMs) -> Result<String, String> {
    let Facts { block, version, params } = facts;
    let (behind, age) = (newest - block.height, now.since(block.time()).as_secs());
    if behind > BEHIND {
        return Err(format!(
            "it is {behind} blocks behind the newest endpoint, at height {}; the others are asked first",
            block.height
        ));
    }
    if age > OLD_SECONDS {
        return Err(format!(
            "its newest block, height {}, is {age} s old: the chain or this endpoint stands still, or the clock here is ahead",
            block.height
        ));
    }
    let version = if version.is_empty() { "of unknown version" } else { version };
    Ok(format!("height {}, {age} s old, node {version}, {params}", block.height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_told_in_units_that_people_read() {
        let window = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        // As a node of a chain of one's own has it.
        assert_eq!(
            notices([window(5), window(2_592_000)]),
            "a lease is taken back with a notice of 5 s to 30 d"
        );
        assert!(notices([window(7_200), window(172_799)]).ends_with("of 2 h to 47 h"));
        assert!(notices([window(120), window(7_199)]).ends_with("of 2 min to 119 min"));
        assert_eq!(notices([None, None]), "no lease is taken back with a notice");
    }

    #[test]
    fn an_endpoint_that_is_behind_or_stands_still_is_not_well() {
        let facts = |height, ms: u128| Facts {
            block: Block { height, nanos: ms * 1_000_000 },
            version: "2.1.0".into(),
            params: "deposits from 0.5act, 20 bids an order".into(),
        };
        let now = UnixMs(1_000_000);
        let good = judge(&facts(100, 997_000), 103, now).expect("well");
        assert_eq!(good, "height 100, 3 s old, node 2.1.0, deposits from 0.5act, 20 bids an order");
        assert!(judge(&facts(97, 997_000), 103, now).expect_err("behind").contains("6 blocks"));
        assert!(judge(&facts(103, 900_000), 103, now).expect_err("old").contains("100 s old"));
    }
}
