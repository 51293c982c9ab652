//! The chain client against recorded answers of a real node.

mod node;

use std::collections::BTreeSet;
use std::sync::Arc;

use akash_redis::chain::client::{ChainClient, ChainSettings, GasPrice};
use akash_redis::chain::fees::FeeLimits;
use akash_redis::chain::wallet::Wallet;
use akash_redis::chain::{Chain, ChainError, tx};
use akash_redis::model::chain::{ChainMsg, GroupState, LeaseState, SignedTx, TxOutcome};
use akash_redis::model::group::{Endpoint, GroupSpec, Resources, Storage};
use akash_redis::model::ids::LeaseId;
use akash_redis::model::money::{DEC_ONE, PricePerBlock, Uact};
use akash_redis::wire::akash::cert::v1::{CertificateResponse, QueryCertificatesResponse};
use akash_redis::wire::akash::deployment::v1beta4::{
    QueryDeploymentResponse, QueryDeploymentsRequest, QueryDeploymentsResponse,
};
use akash_redis::wire::akash::market::v1beta5::QueryLeasesRequest;
use akash_redis::wire::cosmos::base::query::v1beta1::PageResponse;
use akash_redis::wire::cosmos::base::tendermint::v1beta1::GetLatestBlockResponse;
use akash_redis::wire::cosmos::tx::v1beta1::{SimulateRequest, TxBody, TxRaw};
use akash_redis::wire::{akash, cosmos};
use base64::Engine as _;
use node::*;
use prost::Message;
use tonic::Status;

const OWNER: &str = "akash1qufa3xzrf34qvwyejkhvnc4psf49fftaw0asmh";
/// Public test data of the network's own software development kit.
const PHRASE: &str = "addict worth drip violin note olive final pelican perfect feel goat game horror brass fence deposit dutch improve \
                      setup stuff frost spirit smart alien";
const CHAIN_ID: &str = "akash-local";
/// The recorded deployment.
const DSEQ: u64 = 1_795_517_081;

// ---- the messages

/// Decodes and encodes again: nothing of the request may get lost, and every answer must be
/// readable.
fn passes<Q: Message + Default, A: Message + Default>(case: &Case) {
    let request =
        Q::decode(case.request().as_slice()).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    assert_eq!(hex::encode(request.encode_to_vec()), case.request, "request of {}", case.name);
    match case.answer() {
        Ok(answer) => {
            A::decode(answer.as_slice()).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        }
        Err(status) => assert!(!status.message().is_empty(), "{} has no reason", case.name),
    }
}

#[test]
#[allow(clippy::too_many_lines)] // one arm for each method that was recorded
fn every_recorded_exchange_is_understood() {
    use akash::{bme, cert, deployment, discovery, escrow, market, provider};
    use cosmos::base::{node::v1beta1 as node, tendermint::v1beta1 as blocks};
    use cosmos::{auth, authz, bank, feegrant, tx};
    for case in cases() {
        let (service, method) = case.method[1..].split_once('/').expect("a path");
        match (service, method) {
            // Not used, not even to look.
            ("akash.bme.v1.Query", "Params") => {}
            ("akash.bme.v1.Query", "Status") => {
                passes::<bme::v1::QueryStatusRequest, bme::v1::QueryStatusResponse>(&case);
            }
            ("akash.cert.v1.Query", _) => passes::<
                cert::v1::QueryCertificatesRequest,
                cert::v1::QueryCertificatesResponse,
            >(&case),
            ("akash.deployment.v1beta4.Query", "Deployments") => {
                passes::<QueryDeploymentsRequest, QueryDeploymentsResponse>(&case);
            }
            ("akash.deployment.v1beta4.Query", "Deployment") => {
                passes::<deployment::v1beta4::QueryDeploymentRequest, QueryDeploymentResponse>(
                    &case,
                );
            }
            ("akash.deployment.v1beta4.Query", "Params") => {
                passes::<
                    deployment::v1beta4::QueryParamsRequest,
                    deployment::v1beta4::QueryParamsResponse,
                >(&case);
            }
            ("akash.discovery.v1.Discovery", _) => {
                passes::<discovery::v1::GetInfoRequest, discovery::v1::GetInfoResponse>(&case);
            }
            ("akash.escrow.v1.Query", "Accounts") => {
                passes::<escrow::v1::QueryAccountsRequest, escrow::v1::QueryAccountsResponse>(
                    &case,
                );
            }
            ("akash.escrow.v1.Query", _) => {
                passes::<escrow::v1::QueryPaymentsRequest, escrow::v1::QueryPaymentsResponse>(
                    &case,
                );
            }
            ("akash.market.v1beta5.Query", "Bid") => {
                passes::<market::v1beta5::QueryBidRequest, market::v1beta5::QueryBidResponse>(
                    &case,
                );
            }
            ("akash.market.v1beta5.Query", "Bids") => {
                passes::<market::v1beta5::QueryBidsRequest, market::v1beta5::QueryBidsResponse>(
                    &case,
                );
            }
            ("akash.market.v1beta5.Query", "Lease") => {
                passes::<market::v1beta5::QueryLeaseRequest, market::v1beta5::QueryLeaseResponse>(
                    &case,
                );
            }
            ("akash.market.v1beta5.Query", "Leases") => {
                passes::<QueryLeasesRequest, market::v1beta5::QueryLeasesResponse>(&case);
            }
            ("akash.market.v1beta5.Query", "Order") => {
                passes::<market::v1beta5::QueryOrderRequest, market::v1beta5::QueryOrderResponse>(
                    &case,
                );
            }
            ("akash.market.v1beta5.Query", "Orders") => {
                passes::<market::v1beta5::QueryOrdersRequest, market::v1beta5::QueryOrdersResponse>(
                    &case,
                );
            }
            ("akash.market.v1beta5.Query", "Params") => {
                passes::<market::v1beta5::QueryParamsRequest, market::v1beta5::QueryParamsResponse>(
                    &case,
                );
            }
            ("akash.provider.v1beta4.Query", "Provider") => {
                passes::<
                    provider::v1beta4::QueryProviderRequest,
                    provider::v1beta4::QueryProviderResponse,
                >(&case);
            }
            ("akash.provider.v1beta4.Query", _) => {
                passes::<
                    provider::v1beta4::QueryProvidersRequest,
                    provider::v1beta4::QueryProvidersResponse,
                >(&case);
            }
            ("cosmos.auth.v1beta1.Query", _) => {
                passes::<
                    auth::v1beta1::QueryAccountInfoRequest,
                    auth::v1beta1::QueryAccountInfoResponse,
                >(&case);
            }
            ("cosmos.authz.v1beta1.Query", "Grants") => {
                passes::<authz::v1beta1::QueryGrantsRequest, authz::v1beta1::QueryGrantsResponse>(
                    &case,
                );
            }
            ("cosmos.authz.v1beta1.Query", _) => {
                passes::<
                    authz::v1beta1::QueryGranteeGrantsRequest,
                    authz::v1beta1::QueryGranteeGrantsResponse,
                >(&case);
            }
            ("cosmos.bank.v1beta1.Query", "Balance") => {
                passes::<bank::v1beta1::QueryBalanceRequest, bank::v1beta1::QueryBalanceResponse>(
                    &case,
                );
            }
            ("cosmos.bank.v1beta1.Query", _) => {
                passes::<
                    bank::v1beta1::QuerySpendableBalanceByDenomRequest,
                    bank::v1beta1::QuerySpendableBalanceByDenomResponse,
                >(&case);
            }
            ("cosmos.base.node.v1beta1.Service", "Config") => {
                passes::<node::ConfigRequest, node::ConfigResponse>(&case);
            }
            ("cosmos.base.node.v1beta1.Service", _) => {
                passes::<node::StatusRequest, node::StatusResponse>(&case);
            }
            ("cosmos.base.tendermint.v1beta1.Service", "GetLatestBlock") => {
                passes::<blocks::GetLatestBlockRequest, GetLatestBlockResponse>(&case);
            }
            ("cosmos.base.tendermint.v1beta1.Service", _) => {
                passes::<blocks::GetSyncingRequest, blocks::GetSyncingResponse>(&case);
            }
            ("cosmos.feegrant.v1beta1.Query", _) => {
                passes::<
                    feegrant::v1beta1::QueryAllowanceRequest,
                    feegrant::v1beta1::QueryAllowanceResponse,
                >(&case);
            }
            ("cosmos.tx.v1beta1.Service", "BroadcastTx") => {
                passes::<tx::v1beta1::BroadcastTxRequest, tx::v1beta1::BroadcastTxResponse>(&case);
            }
            ("cosmos.tx.v1beta1.Service", "GetTx") => {
                passes::<tx::v1beta1::GetTxRequest, tx::v1beta1::GetTxResponse>(&case);
            }
            ("cosmos.tx.v1beta1.Service", _) => {
                passes::<SimulateRequest, tx::v1beta1::SimulateResponse>(&case);
            }
            other => panic!("{}: no message known for {other:?}", case.name),
        }
    }
}

/// The group of the recorded transactions.
fn recorded_group() -> GroupSpec {
    GroupSpec {
        name: "dc1".into(),
        attributes: vec![("region".into(), "us-west".into())],
        signed_by_all_of: Vec::new(),
        signed_by_any_of: Vec::new(),
        resources: Resources {
            id: 1,
            cpu_milli: 500,
            memory_bytes: 512 << 20,
            storage: vec![Storage {
                name: "default".into(),
                bytes: 1 << 30,
                attributes: Vec::new(),
            }],
            endpoints: vec![Endpoint::SharedHttp],
        },
        price: PricePerBlock(1000 * DEC_ONE),
    }
}

/// A transaction that a real chain accepted, made again from what it says: every byte and the
/// signature are the same.
#[test]
fn an_accepted_transaction_is_reproduced_to_the_byte() {
    let request = cosmos::tx::v1beta1::BroadcastTxRequest::decode(
        recorded("BroadcastTx unordered, accepted").request().as_slice(),
    );
    let sent = request.expect("a request").tx_bytes;
    let raw = TxRaw::decode(sent.as_slice()).expect("a transaction");
    let timeout = TxBody::decode(raw.body_bytes.as_slice())
        .expect("a body")
        .timeout_timestamp
        .expect("a time-out");
    let msg = ChainMsg::CreateDeployment {
        dseq: DSEQ + 1,
        group: recorded_group(),
        hash: [0x11; 32],
        deposit: Uact(5_000_000),
    };
    let wallet = Wallet::from_phrase(&PHRASE.into(), 0).expect("a good phrase");
    let body = tx::body(OWNER, &msg, timeout);
    let auth_info = tx::auth_info(
        wallet.public_key(),
        &tx::FeeOffer { uakt: 10_000, gas: 400_000, granter: None },
    );
    let signature = wallet.sign(&tx::sign_doc(&body, &auth_info, CHAIN_ID, 0));
    let made = tx::raw(body, auth_info, signature.to_vec());
    assert_eq!(hex::encode(&made), hex::encode(&sent));
    assert_eq!(tx::hash(&made), "BC467BA0E578492B20138374FCDB02A9C788C33E95104023E82A89C578C659C8");
}

// ---- reading

/// A script for a reading: what is not said is empty.
fn quiet() -> Script {
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
        == (![LATEST, BY_HEIGHT].contains(&&**method)).then_some(view.height)));
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

// ---- moving

fn lease() -> ChainMsg {
    let provider = "akash1nxm333kdfwk6mty4423xsefd4t7r64efg826jt".into();
    ChainMsg::CreateLease(LeaseId { owner: OWNER.into(), dseq: DSEQ, gseq: 1, oseq: 1, provider })
}

#[tokio::test]
async fn signing_simulates_without_a_signature_and_signs_what_was_simulated() {
    let script = Script::default();
    script.lock().block_ms = 500;
    script.replay("AccountInfo").replay("Simulate create deployment (ordered, empty signature)");
    let client = script.client().await;
    let first = client.sign(&lease()).await.expect("a transaction");
    let second = client.sign(&lease()).await.expect("a transaction");
    assert_ne!(first.bytes, second.bytes);
    assert_eq!(
        script.asked("/cosmos.auth.v1beta1.Query/AccountInfo").len(),
        1,
        "the account number is kept"
    );
    assert_eq!((first.dseq, &first.hash), (DSEQ, &tx::hash(&first.bytes)));

    let signed = TxRaw::decode(first.bytes.as_slice()).expect("a transaction");
    let auth = |raw: &TxRaw| {
        cosmos::tx::v1beta1::AuthInfo::decode(raw.auth_info_bytes.as_slice())
            .expect("a fee")
            .fee
            .expect("a fee")
    };
    let simulated =
        SimulateRequest::decode(&*script.asked(SIMULATE)[0].1).expect("a request").tx_bytes;
    let simulated = TxRaw::decode(simulated.as_slice()).expect("a transaction");
    assert_eq!(
        (&simulated.body_bytes, &simulated.signatures),
        (&signed.body_bytes, &vec![Vec::new()])
    );
    assert!(
        auth(&simulated).amount[0].amount.parse::<u64>().expect("a number") > 0,
        "a fee is taken, as when it is sent"
    );
    let gas_used = read::<cosmos::tx::v1beta1::SimulateResponse>(
        "Simulate create deployment (ordered, empty signature)",
    );
    let gas_used = gas_used.gas_info.expect("gas").gas_used;
    let fee = auth(&signed);
    assert_eq!(fee.gas_limit, (gas_used * 15).div_ceil(10));
    assert_eq!(fee.amount[0].amount, GasPrice::USUAL.fee(fee.gas_limit).to_string());
    let body = TxBody::decode(signed.body_bytes.as_slice()).expect("a body");
    let timeout = body.timeout_timestamp.expect("a time-out");
    assert!(body.unordered && ms(timeout) <= first.timeout && first.timeout.0 <= ms(timeout).0 + 1);
    let wallet = Wallet::from_phrase(&PHRASE.into(), 0).expect("a good phrase");
    let doc = tx::sign_doc(&signed.body_bytes, &signed.auth_info_bytes, CHAIN_ID, 0);
    assert_eq!(signed.signatures, [wallet.sign(&doc).to_vec()]);
}

#[tokio::test]
async fn a_refused_simulation_says_which_rule_was_broken() {
    let script = Script::default();
    script.replay("AccountInfo").replay("Simulate deposit too low");
    let error = script.client().await.sign(&lease()).await.expect_err("too low");
    let ChainError::Refused { codespace, code, log, .. } = &error else { panic!("{error}") };
    assert_eq!((codespace.as_str(), *code), ("deployment", 20));
    assert!(log.contains("499999 < 500000uact"), "{log}");
    let script = Script::default();
    script.replay("AccountInfo of an unknown account");
    let error = script.client().await.sign(&lease()).await.expect_err("no account");
    assert!(error.to_string().contains("send it AKT"), "{error}");
}

/// An endpoint's measure of gas is paid: one that lies is passed over, and never paid what it says.
#[tokio::test]
async fn no_endpoint_sets_the_fee() {
    let liar = Script::default();
    let mut lie: cosmos::tx::v1beta1::SimulateResponse =
        read("Simulate create deployment (ordered, empty signature)");
    lie.gas_info.as_mut().expect("gas").gas_used = 4_000_000_000;
    liar.replay("AccountInfo").say(SIMULATE, Ok(lie.encode_to_vec()));
    let error = liar.client().await.sign(&lease()).await.expect_err("too dear");
    assert!(matches!(&error, ChainError::NotSent { .. }), "{error}");
    assert!(
        error.to_string().contains("6000000000 gas") && error.to_string().contains("chain.maxFee"),
        "{error}"
    );
    let honest = Script::default();
    honest.replay("AccountInfo").replay("Simulate create deployment (ordered, empty signature)");
    let both = client(vec![liar.serve().await, honest.serve().await]);
    both.sign(&lease()).await.expect("the honest one is asked next");

    // What each transaction may cost, many together may not.
    let limits = FeeLimits { per_tx: 5_000, per_day: 12_000 };
    let client = limited(vec![honest.serve().await], limits);
    for _ in 0..2 {
        client.sign(&lease()).await.expect("4650uakt each");
    }
    let error = client.sign(&lease()).await.expect_err("13950uakt in a day");
    assert!(error.to_string().contains("chain.maxFeePerDay (12000uakt)"), "{error}");
    assert!(honest.asked(BROADCAST).is_empty());
}

/// A transaction that may have been sent before; it lives `blocks` blocks from the recorded one on.
fn sent(script: &Script, blocks: i64) -> SignedTx {
    let block_ms = script.lock().block_ms;
    let timeout = ms(block_time(blocks, block_ms));
    SignedTx {
        dseq: 1,
        purpose: "a test".into(),
        bytes: vec![1, 2, 3],
        hash: tx::hash(&[1, 2, 3]),
        timeout,
    }
}

/// Blocks of a fifth of a second: each look at the chain is one block later.
fn fast() -> Script {
    let script = Script::default();
    script.lock().block_ms = 200;
    script
}

#[tokio::test]
async fn accepted_and_found_is_landed() {
    let script = fast();
    script.replay("BroadcastTx create deployment, accepted");
    script.replay("GetTx before inclusion (not found)").replay("GetTx create deployment, included");
    let outcome =
        script.client().await.broadcast_and_confirm(&sent(&script, 60)).await.expect("an outcome");
    let height = read::<cosmos::tx::v1beta1::GetTxResponse>("GetTx create deployment, included")
        .tx_response
        .expect("an end")
        .height;
    assert_eq!(outcome, TxOutcome::Landed { height });
}

#[tokio::test]
async fn a_lost_answer_or_a_repetition_is_looked_up() {
    for broadcast in [
        Err(Status::unavailable("connection reset")),
        // Cut off in the middle: an answer that cannot be read.
        Ok(vec![0x0a, 0x42, 0x12]),
        recorded("BroadcastTx same bytes again (already in cache)").answer(),
        recorded("BroadcastTx unordered, timestamp used before").answer(),
        recorded("BroadcastTx unordered, timestamp in the past").answer(),
    ] {
        let script = fast();
        script.say(BROADCAST, broadcast).replay("GetTx create deployment, included");
        let outcome = script
            .client()
            .await
            .broadcast_and_confirm(&sent(&script, 60))
            .await
            .expect("an outcome");
        assert!(matches!(outcome, TxOutcome::Landed { .. }), "{outcome:?}");
    }
}

#[tokio::test]
async fn in_a_block_and_failed_is_failed() {
    for (case, codespace, code) in [
        ("GetTx failed tx (deployment exists)", "deployment", 3),
        ("GetTx create lease on a lost bid (failed)", "market", 12),
    ] {
        let script = fast();
        script.replay("BroadcastTx create lease").replay(case);
        let outcome = script
            .client()
            .await
            .broadcast_and_confirm(&sent(&script, 60))
            .await
            .expect("an outcome");
        assert!(
            matches!(&outcome, TxOutcome::Failed { codespace: c, code: n, .. } if c == codespace && *n == code),
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn it_is_expired_only_when_it_can_no_longer_be_in_a_block() {
    let script = fast();
    script.replay("BroadcastTx unordered, accepted").replay("GetTx before inclusion (not found)");
    let tx = sent(&script, 6);
    assert_eq!(
        script.client().await.broadcast_and_confirm(&tx).await.expect("an outcome"),
        TxOutcome::Expired
    );
    assert!(script.lock().blocks > 6 + 2, "the time-out has passed, and a few blocks");

    // Its block was the last possible one, and the index of transactions was late.
    let script = fast();
    script.replay("BroadcastTx unordered, accepted");
    for _ in 0..8 {
        script.replay("GetTx before inclusion (not found)");
    }
    script.replay("GetTx create deployment, included");
    let outcome =
        script.client().await.broadcast_and_confirm(&sent(&script, 6)).await.expect("an outcome");
    assert!(matches!(outcome, TxOutcome::Landed { .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_refusal_ends_it_only_when_nobody_took_it_before() {
    // These bytes may have been sent by an earlier process: another node may still hold them.
    let script = fast();
    script.replay("BroadcastTx bad signature").replay("GetTx before inclusion (not found)");
    let outcome =
        script.client().await.broadcast_and_confirm(&sent(&script, 6)).await.expect("an outcome");
    assert!(
        matches!(&outcome, TxOutcome::Failed { codespace, code: 4, .. } if codespace == "sdk"),
        "{outcome:?}"
    );
    assert!(script.lock().blocks > 6);
    // Signed a moment ago and never sent: nothing to wait for.
    let script = fast();
    script.replay("AccountInfo").replay("Simulate create deployment (ordered, empty signature)");
    script.replay("BroadcastTx fee too low").replay("GetTx before inclusion (not found)");
    let client = script.client().await;
    let tx = client.sign(&lease()).await.expect("a transaction");
    let outcome = client.broadcast_and_confirm(&tx).await.expect("an outcome");
    assert!(
        matches!(&outcome, TxOutcome::Failed { code: 13, log, .. } if log.contains("chain.gasPrice")),
        "{outcome:?}"
    );
    assert!(script.asked(GET_TX).is_empty());
}

#[tokio::test]
async fn a_text_that_is_no_text_does_not_hide_the_refusal() {
    let script = fast();
    script.replay("AccountInfo").replay("Simulate create deployment (ordered, empty signature)");
    script.replay("BroadcastTx fee granter without an allowance (raw_log is NOT valid UTF-8)");
    let client = script.client().await;
    let tx = client.sign(&lease()).await.expect("a transaction");
    let outcome = client.broadcast_and_confirm(&tx).await.expect("an outcome");
    assert!(
        matches!(&outcome, TxOutcome::Failed { code: 38, log, .. } if log.contains("wallet.feeGranter")),
        "{outcome:?}"
    );
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
        fee_limits: FeeLimits::USUAL,
    };
    let view = ChainClient::connect(settings, Arc::new(wallet))
        .expect("an endpoint")
        .read(&BTreeSet::new())
        .await
        .expect("a view");
    assert!(view.height > 0 && view.block_ms > 0);
}
