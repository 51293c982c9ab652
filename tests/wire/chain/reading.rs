//! What the client makes of what nodes say.

use std::collections::BTreeSet;
use std::sync::Arc;

use akash_redis::chain::client::{ChainClient, ChainSettings, GasPrice};
use akash_redis::chain::fees::FeeLimits;
use akash_redis::chain::wallet::Wallet;
use akash_redis::chain::{Chain, ChainError};
use akash_redis::model::chain::{GroupState, LeaseState};
use akash_redis::model::money::{DEC_ONE, Uact};
use akash_redis::wire::akash;
use akash_redis::wire::akash::cert::v1::{CertificateResponse, QueryCertificatesResponse};
use akash_redis::wire::akash::deployment::v1beta4::{
    QueryDeploymentResponse, QueryDeploymentsRequest, QueryDeploymentsResponse,
};
use akash_redis::wire::cosmos::base::query::v1beta1::PageResponse;
use akash_redis::wire::cosmos::base::tendermint::v1beta1::GetLatestBlockResponse;
use base64::Engine as _;
use prost::Message;
use tonic::Status;

use super::node::*;
use super::{CHAIN_ID, DSEQ, OWNER, PHRASE};

/// A script for a reading: what is not said is empty.
pub fn quiet() -> Script {
    let script = Script::default();
    script.lock().block_ms = 6000;
    script.replay("deployment Params").replay("SpendableBalanceByDenom uakt").replay("Provider");
    for empty in [DEPLOYMENTS, ORDERS, BIDS, LEASES] {
        script.say(empty, Ok(Vec::new()));
    }
    script
}

fn just(name: &str) -> Vec<u8> {
    let deployments = vec![read::<QueryDeploymentResponse>(name)];
    QueryDeploymentsResponse { deployments, pagination: None }.encode_to_vec()
}

fn replace(script: &Script, method: &'static str, answer: Answer) {
    script.lock().answers.insert(method, vec![answer]);
}

#[tokio::test]
async fn bids_are_read_with_their_order_and_providers() {
    let script = quiet();
    replace(&script, DEPLOYMENTS, Ok(just("Deployment just created")));
    replace(&script, ORDERS, recorded("Orders one open order").answer());
    replace(&script, BIDS, recorded("Bids three open").answer());
    let view = script.client().await.read(&BTreeSet::new()).await.expect("a view");
    assert_eq!(view.min_deposit, Uact(500_000));
    assert_eq!(view.block_ms, 6000);
    let [deployment] = view.deployments.values().collect::<Vec<_>>()[..] else {
        panic!("one deployment")
    };
    assert!(
        deployment.active && deployment.group == GroupState::Open && deployment.group_name == "dc1"
    );
    assert_eq!((deployment.dseq, deployment.open_order, deployment.bids.len()), (DSEQ, Some(1), 3));
    assert!(
        deployment
            .bids
            .iter()
            .all(|bid| bid.fits && bid.price.0 > 0 && bid.id.oseq == 1 && bid.id.owner == OWNER)
    );
    assert!(
        deployment.leases.is_empty()
            && deployment.escrow.open
            && deployment.escrow.blocks_left.is_none()
    );
    assert_eq!(deployment.escrow.left, Uact(5_000_000));
    assert_eq!(view.providers.len(), 3);
    assert!(view.providers.values().all(|p| p.host_uri.starts_with("https://")));
}

#[tokio::test]
async fn a_running_lease_uses_up_the_escrow() {
    let script = quiet();
    let account =
        read::<akash::escrow::v1::QueryAccountsResponse>("escrow Accounts of one deployment")
            .accounts
            .remove(0);
    let settled_at = account.state.as_ref().expect("a state").settled_at;
    let recorded_block: GetLatestBlockResponse = read("GetLatestBlock");
    let height = recorded_block.sdk_block.and_then(|b| b.header).expect("a header").height;
    // The first look comes 100 blocks after the settlement.
    script.lock().blocks = settled_at - height + 99;
    let mut deployment: QueryDeploymentResponse = read("Deployment just created");
    deployment.escrow_account = Some(account);
    replace(
        &script,
        DEPLOYMENTS,
        Ok(QueryDeploymentsResponse { deployments: vec![deployment], pagination: None }
            .encode_to_vec()),
    );
    script
        .lock()
        .answers
        .insert(LEASES, vec![recorded("Leases one active").answer(), Ok(Vec::new())]);
    let view = script.client().await.read(&BTreeSet::new()).await.expect("a view");
    let deployment = &view.deployments[&DSEQ];
    let [lease] = &deployment.leases[..] else { panic!("one lease") };
    assert_eq!((lease.state, lease.id.oseq), (LeaseState::Active, 1));
    let used = u128::try_from(view.height - settled_at).expect("later") * lease.price.0 / DEC_ONE;
    let escrow = deployment.escrow;
    assert_eq!(escrow.left + escrow.spent, Uact(5_000_000), "nothing is lost");
    assert!(used > 0 && u128::from(escrow.spent.0) >= used);
    let blocks_left = u128::from(escrow.blocks_left.expect("it is being paid"));
    assert!(
        (blocks_left..=blocks_left + 1)
            .contains(&(u128::from(escrow.left.0) * DEC_ONE / lease.price.0))
    );
}

#[tokio::test]
async fn a_provider_that_left_is_seen_with_its_reason() {
    let script = quiet();
    replace(&script, DEPLOYMENTS, Ok(just("Deployment after the provider closed (group paused)")));
    // Neither running nor leaving: the deployment is asked for all its leases.
    let all = recorded("Leases after the provider closed (reason unstable)").answer();
    script.lock().answers.insert(LEASES, vec![Ok(Vec::new()), Ok(Vec::new()), all]);
    let view = script.client().await.read(&BTreeSet::new()).await.expect("a view");
    let deployment = view.deployments.values().next().expect("one");
    assert_eq!(deployment.group, GroupState::Paused);
    assert_eq!(
        deployment.leases.iter().map(|l| (l.state, l.reason)).collect::<Vec<_>>(),
        [(LeaseState::Closed, 10000)]
    );
    assert_eq!(deployment.escrow.blocks_left, None);
}

#[tokio::test]
async fn deployments_that_are_known_are_looked_up_when_they_are_not_active() {
    let script = quiet();
    script.replay("Deployment overdrawn").replay("Deployment not found");
    script.lock().answers.insert(
        LEASES,
        vec![Ok(Vec::new()), Ok(Vec::new()), recorded("Leases insufficient_funds").answer()],
    );
    let dseq = read::<QueryDeploymentResponse>("Deployment overdrawn")
        .deployment
        .and_then(|d| d.id)
        .expect("an id")
        .dseq;
    // The smaller one is asked for first.
    let view = script.client().await.read(&BTreeSet::from([dseq, u64::MAX])).await.expect("a view");
    assert_eq!(view.deployments.keys().copied().collect::<Vec<_>>(), [dseq]);
    let deployment = &view.deployments[&dseq];
    assert!(!deployment.active && deployment.group == GroupState::InsufficientFunds);
    assert!(
        !deployment.escrow.open
            && deployment.escrow.left == Uact(0)
            && deployment.escrow.spent > Uact(0)
    );
    assert_eq!(deployment.leases[0].state, LeaseState::InsufficientFunds);
    assert_eq!(deployment.leases[0].reason, 20000);
}

#[tokio::test]
async fn all_pages_are_read_at_one_height() {
    let script = quiet();
    let (one, two) =
        (recorded("Deployments page 1, limit 2"), recorded("Deployments page 2, by key"));
    let mut second = QueryDeploymentsResponse::decode(two.answer().expect("an answer").as_slice())
        .expect("a page");
    second.pagination = None;
    script.lock().answers.insert(DEPLOYMENTS, vec![one.answer(), Ok(second.encode_to_vec())]);
    let view = script.client().await.read(&BTreeSet::new()).await.expect("a view");
    assert_eq!(view.deployments.len(), 4);
    let pages: Vec<_> = script
        .asked(DEPLOYMENTS)
        .into_iter()
        .map(|(_, bytes)| QueryDeploymentsRequest::decode(&*bytes))
        .collect();
    let keys: Vec<_> = pages
        .into_iter()
        .map(|page| page.expect("a request").pagination.expect("a page").key)
        .collect();
    let recorded_key = QueryDeploymentsRequest::decode(&*two.request())
        .expect("a request")
        .pagination
        .expect("a page")
        .key;
    assert_eq!(keys, [Vec::new(), recorded_key]);
    let asked = std::mem::take(&mut script.lock().asked);
    assert!(asked.iter().all(|(method, height, _)| *height
        == (![LATEST, BY_HEIGHT, GET_INFO].contains(&&**method)).then_some(view.height)));
}

/// The first order of a deployment is open: there was no lease, and nobody has to be asked.
#[tokio::test]
async fn an_order_that_nobody_took_yet_is_not_asked_for_its_leases() {
    let script = quiet();
    replace(&script, DEPLOYMENTS, Ok(just("Deployment just created")));
    replace(&script, ORDERS, recorded("Orders one open order").answer());
    script.client().await.read(&BTreeSet::new()).await.expect("a view");
    assert_eq!(script.asked(LEASES).len(), 2, "those that run and those that are taken back");
}

/// Many registrations that are not known are asked for at once.
#[tokio::test]
async fn many_bidders_are_looked_up_in_the_list_of_all() {
    const PROVIDERS: &str = "/akash.provider.v1beta4.Query/Providers";
    let mut listed: akash::provider::v1beta4::QueryProvidersResponse =
        read("Providers page 1 of limit 2 (next_key set)");
    listed.pagination = None;
    let known: Vec<_> = listed.providers.iter().map(|p| p.owner.clone()).collect();
    for (bidders, one_by_one, lists) in [(8, 8, 0), (9, 0, 1)] {
        let mut answer: akash::market::v1beta5::QueryBidsResponse = read("Bids three open");
        let bid = answer.bids[0].clone();
        answer.bids = (0..bidders)
            .map(|n| {
                let mut bid = bid.clone();
                let id = bid.bid.as_mut().and_then(|b| b.id.as_mut()).expect("an id");
                id.provider = known.get(n).cloned().unwrap_or_else(|| format!("akash1p{n}"));
                bid
            })
            .collect();
        let script = quiet();
        replace(&script, DEPLOYMENTS, Ok(just("Deployment just created")));
        replace(&script, ORDERS, recorded("Orders one open order").answer());
        replace(&script, BIDS, Ok(answer.encode_to_vec()));
        script.say(PROVIDERS, Ok(listed.encode_to_vec()));
        let client = script.client().await;
        let view = client.read(&BTreeSet::new()).await.expect("a view");
        assert_eq!(view.deployments[&DSEQ].bids.len(), bidders);
        let asked = (script.asked(PROVIDER).len(), script.asked(PROVIDERS).len());
        assert_eq!(asked, (one_by_one, lists), "{bidders} bidders");
        if lists == 1 {
            assert_eq!(
                view.providers.keys().collect::<Vec<_>>(),
                known.iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
            );
        }
        client.read(&BTreeSet::new()).await.expect("a view");
        let again = (script.asked(PROVIDER).len(), script.asked(PROVIDERS).len());
        assert_eq!(again, asked, "what was not there is remembered, too");
    }
}

#[tokio::test]
async fn certificates_are_all_there_or_an_error() {
    let page = |name: &str, next_key: &[u8]| {
        let certificate = akash::cert::v1::Certificate {
            cert: pem(name).into_bytes(),
            ..akash::cert::v1::Certificate::default()
        };
        let listed =
            CertificateResponse { certificate: Some(certificate), serial: name.to_owned() };
        let pagination = Some(PageResponse { next_key: next_key.to_vec(), total: 0 });
        Ok(QueryCertificatesResponse { certificates: vec![listed], pagination }.encode_to_vec())
    };
    let script = Script::default();
    // More pages than an honest provider has.
    for _ in 0..30 {
        script.say(CERTIFICATES, page("one", b"next"));
    }
    script.say(CERTIFICATES, page("last", b""));
    let found = script.client().await.certificates(OWNER).await.expect("the certificates");
    assert_eq!(found.len(), 31);
    assert_eq!(found.last().map(Vec::as_slice), Some(&b"last"[..]));

    let script = Script::default();
    script.say(CERTIFICATES, page("one", b"next"));
    let error = script.client().await.certificates(OWNER).await.expect_err("no end");
    assert!(
        matches!(&error, ChainError::InvalidResponse { detail, .. } if detail.contains("do not end")),
        "{error}"
    );
}

/// A PEM block around these bytes.
fn pem(bytes: &str) -> String {
    let base64 = base64::engine::general_purpose::STANDARD.encode(bytes);
    format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n")
}

#[tokio::test]
async fn block_time_is_measured_from_the_first_reading_on() {
    let script = quiet();
    script.lock().block_ms = 2000;
    script.say(BY_HEIGHT, Ok(block(-20, 3000)));
    // Block 2 of 2 s each, and block -20 of 3 s each: 64 s for 22 blocks.
    assert_eq!(script.client().await.read(&BTreeSet::new()).await.expect("a view").block_ms, 2909);
}

/// The first block after eight hours without one is read: those before it tell the pace.
#[tokio::test]
async fn an_outage_is_no_block_time() {
    let script = quiet();
    script.lock().block_ms = 8 * 3600 * 1000;
    for n in 1..=9 {
        script.say(BY_HEIGHT, Ok(block(-3 * n, 6000)));
    }
    assert_eq!(script.client().await.read(&BTreeSet::new()).await.expect("a view").block_ms, 6000);
}

#[tokio::test]
async fn the_next_endpoint_is_asked_when_one_is_away_or_of_another_chain() {
    let script = quiet();
    let uri = script.serve().await;
    client(vec!["http://127.0.0.1:1".into(), uri.clone()])
        .read(&BTreeSet::new())
        .await
        .expect("the second answers");
    let foreign = Script::default();
    let mut other: GetLatestBlockResponse = read("GetLatestBlock");
    other.sdk_block.as_mut().and_then(|b| b.header.as_mut()).expect("a header").chain_id =
        "akashnet-2".into();
    foreign.say(LATEST, Ok(other.encode_to_vec()));
    let wrong = foreign.serve().await;
    client(vec![wrong.clone(), uri]).read(&BTreeSet::new()).await.expect("the second answers");
    let error = client(vec![wrong]).check().await.expect_err("another chain");
    assert!(matches!(&error, ChainError::InvalidResponse { .. }), "{error}");
    assert!(
        error.to_string().contains("it is a node of akashnet-2")
            && error.to_string().contains(CHAIN_ID),
        "{error}"
    );
    assert!(
        foreign.lock().asked.iter().all(|(method, ..)| method == LATEST),
        "a foreign chain is asked for nothing else"
    );
    let error = client(vec!["http://127.0.0.1:1".into()]).check().await.expect_err("nobody");
    assert!(matches!(error, ChainError::Away { .. }), "{error}");
    assert!(
        error.to_string().contains("Connection refused")
            && !error.to_string().contains("ConnectError"),
        "{error}"
    );
}

/// An endpoint that stands still answers as readily as any: from the second reading on the one with
/// newer blocks is asked.
#[tokio::test]
async fn an_endpoint_that_is_behind_is_left_for_one_that_is_not() {
    let (behind, ahead) = (quiet(), quiet());
    behind.say(LATEST, Ok(block(1, 6000)));
    ahead.lock().blocks = 500;
    let client = client(vec![behind.serve().await, ahead.serve().await]);
    let first = client.read(&BTreeSet::new()).await.expect("a view").height;
    let second = client.read(&BTreeSet::new()).await.expect("a view").height;
    assert!(second >= first + 500, "{first}, then {second}");
    let asked = behind.lock().asked.len();
    client.read(&BTreeSet::new()).await.expect("a view");
    assert!(behind.lock().asked.len() <= asked + 1, "it is asked for nothing but its newest block");
}

#[tokio::test]
async fn half_a_view_is_none() {
    let script = quiet();
    replace(&script, BIDS, Err(Status::unavailable("gone")));
    assert!(matches!(
        script.client().await.read(&BTreeSet::new()).await,
        Err(ChainError::Away { .. })
    ));
    let script = quiet();
    replace(&script, LEASES, recorded("Leases unknown state").answer());
    let error = script.client().await.read(&BTreeSet::new()).await.expect_err("a refusal");
    assert!(matches!(&error, ChainError::Refused { code: 3, .. }), "{error}");
}

#[tokio::test]
#[ignore = "asks a node that runs elsewhere, which AKASH_GRPC names"]
async fn a_running_node_is_read() {
    let uri = std::env::var("AKASH_GRPC").expect("AKASH_GRPC names a running node");
    let chain_id = std::env::var("AKASH_CHAIN_ID").unwrap_or_else(|_| CHAIN_ID.into());
    let wallet = Wallet::from_phrase(&PHRASE.into(), 0).expect("a good phrase");
    let settings = ChainSettings {
        chain_id,
        grpc: vec![uri],
        gas_price: GasPrice::USUAL,
        fee_granter: None,
        treasury: None,
        fee_limits: FeeLimits::USUAL,
    };
    let view = ChainClient::connect(settings, Arc::new(wallet))
        .expect("an endpoint")
        .read(&BTreeSet::new())
        .await
        .expect("a view");
    assert!(view.height > 0 && view.block_ms > 0);
}
