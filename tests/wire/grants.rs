//! Deposits and fees by grants of another account, and ACT for AKT, against a node that runs
//! elsewhere: `AKASH_GRPC` names it, the accounts of the phrase are rich there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use akash_redis::chain::client::{ChainClient, ChainSettings, GasPrice};
use akash_redis::chain::fees::FeeLimits;
use akash_redis::chain::mint::{MintEnd, Mints as _};
use akash_redis::chain::tx::{self, FeeOffer};
use akash_redis::chain::wallet::{Wallet, new_phrase};
use akash_redis::chain::{Chain as _, ChainError};
use akash_redis::devnet::account::any;
use akash_redis::model::chain::{ChainMsg, ChainView, TxOutcome};
use akash_redis::model::group::{GroupSpec, Resources, Storage};
use akash_redis::model::money::{DEC_ONE, PricePerBlock, Uact};
use akash_redis::wire::akash::escrow::v1::DepositAuthorization;
use akash_redis::wire::akash::escrow::v1::deposit_authorization::Scope;
use akash_redis::wire::cosmos::auth::v1beta1::{QueryAccountInfoRequest, query_client};
use akash_redis::wire::cosmos::authz::v1beta1::{Grant, MsgGrant};
use akash_redis::wire::cosmos::base::v1beta1::Coin;
use akash_redis::wire::cosmos::feegrant::v1beta1::{BasicAllowance, MsgGrantAllowance};
use akash_redis::wire::cosmos::tx::v1beta1::{
    BroadcastMode, BroadcastTxRequest, GetTxRequest, TxBody, service_client,
};
use prost::Message as _;
use prost_types::{Any, Timestamp};
use tonic::transport::Channel;

const PHRASE: &str = "addict worth drip violin note olive final pelican perfect feel goat game horror brass fence deposit dutch improve \
                      setup stuff frost spirit smart alien";
/// Number of the account that is the treasury.
const TREASURY: u32 = 2;

fn node() -> (String, String) {
    let uri = std::env::var("AKASH_GRPC").expect("AKASH_GRPC names a running node");
    (uri, std::env::var("AKASH_CHAIN_ID").unwrap_or_else(|_| "akash-local".into()))
}

fn client(wallet: Wallet, payer: Option<&str>) -> ChainClient {
    let (uri, chain_id) = node();
    let settings = ChainSettings {
        chain_id,
        grpc: vec![uri],
        gas_price: GasPrice::USUAL,
        fee_granter: payer.map(str::to_owned),
        treasury: payer.map(str::to_owned),
        fee_limits: FeeLimits::USUAL,
    };
    ChainClient::connect(settings, Arc::new(wallet)).unwrap()
}

fn in_seconds(seconds: u64) -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let at = now + Duration::from_secs(seconds);
    Timestamp {
        seconds: i64::try_from(at.as_secs()).unwrap(),
        nanos: i32::try_from(at.subsec_nanos()).unwrap(),
    }
}

/// The account of this number sends these messages.
async fn sends(index: u32, messages: Vec<Any>) {
    let (uri, chain_id) = node();
    let channel = Channel::from_shared(uri).unwrap().connect_lazy();
    let wallet = Wallet::from_phrase(&PHRASE.into(), index).unwrap();
    let address = wallet.address().to_owned();
    let info = query_client::QueryClient::new(channel.clone())
        .account_info(QueryAccountInfoRequest { address })
        .await
        .unwrap();
    let number = info.into_inner().info.unwrap().account_number;
    let body = TxBody {
        messages,
        unordered: true,
        timeout_timestamp: Some(in_seconds(60)),
        ..TxBody::default()
    };
    let (body, gas) = (body.encode_to_vec(), 400_000);
    let fee = FeeOffer { uakt: GasPrice::USUAL.fee(gas), gas, granter: None };
    let auth_info = tx::auth_info(wallet.public_key(), &fee);
    let signature = wallet.sign(&tx::sign_doc(&body, &auth_info, &chain_id, number));
    let tx_bytes = tx::raw(body, auth_info, signature.to_vec());
    let hash = tx::hash(&tx_bytes);
    let mut txs = service_client::ServiceClient::new(channel);
    let request = BroadcastTxRequest { tx_bytes, mode: BroadcastMode::Sync.into() };
    let answer = txs.broadcast_tx(request).await.unwrap().into_inner().tx_response.unwrap();
    assert_eq!(answer.code, 0, "{}", String::from_utf8_lossy(&answer.raw_log));
    let landed = async {
        loop {
            if let Ok(found) = txs.get_tx(GetTxRequest { hash: hash.clone() }).await {
                return found.into_inner().tx_response.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let landed = tokio::time::timeout(Duration::from_mins(1), landed).await.expect("it lands");
    assert_eq!(landed.code, 0, "{}", String::from_utf8_lossy(&landed.raw_log));
}

async fn lands(client: &ChainClient, msg: ChainMsg) {
    let tx = client.sign(&msg).await.unwrap();
    let outcome = client.broadcast_and_confirm(&tx).await.unwrap();
    assert!(matches!(outcome, TxOutcome::Landed { .. }), "{msg:?}: {outcome:?}");
}

async fn read(client: &ChainClient) -> ChainView {
    client.read(&BTreeSet::new()).await.unwrap()
}

fn create(dseq: u64, deposit: Uact) -> ChainMsg {
    let resources = Resources {
        id: 1,
        cpu_milli: 500,
        memory_bytes: 1 << 30,
        storage: vec![Storage { name: "default".into(), bytes: 1 << 30, attributes: vec![] }],
        endpoints: vec![],
    };
    let group = GroupSpec {
        name: "akash-redis-test".into(),
        attributes: vec![("region".into(), "nowhere".into())],
        signed_by_all_of: vec![],
        signed_by_any_of: vec![],
        resources,
        price: PricePerBlock(DEC_ONE),
    };
    ChainMsg::CreateDeployment { dseq, group, hash: [3; 32], deposit }
}

fn coins(denom: &str, amount: u64) -> Vec<Coin> {
    vec![Coin { denom: denom.into(), amount: amount.to_string() }]
}

/// An account that holds nothing at all buys, fills and closes.
#[tokio::test]
#[ignore = "spends on a chain that runs elsewhere: AKASH_GRPC names a node, the accounts of the phrase are rich there"]
async fn a_treasury_pays_deposits_and_fees_and_gets_the_rest_back() {
    let treasury = Wallet::from_phrase(&PHRASE.into(), TREASURY).unwrap().address().to_owned();
    let wallet = Wallet::from_phrase(&new_phrase(), 0).unwrap();
    let operator = wallet.address().to_owned();
    let client = client(wallet, Some(&treasury));
    let before = read(&client).await;
    let (deposits, fees) =
        (before.funds.treasury.clone().unwrap(), before.funds.fee_grant.clone().unwrap());
    assert_eq!((deposits.terms, fees.terms), (None, None), "there is no grant yet");
    assert_eq!((before.balance, before.fee_balance), (Uact(0), 0));

    let authorization = DepositAuthorization {
        spend_limit: Some(Coin { denom: "uakt".into(), amount: "0".into() }),
        scopes: vec![Scope::Deployment.into()],
        spend_limits: coins("uact", 5_000_000),
    };
    let allowance =
        BasicAllowance { spend_limit: coins("uakt", 100_000), expiration: Some(in_seconds(3600)) };
    sends(
        TREASURY,
        vec![
            any(&MsgGrant {
                granter: treasury.clone(),
                grantee: operator.clone(),
                grant: Some(Grant {
                    authorization: Some(any(&authorization)),
                    expiration: Some(in_seconds(3600)),
                }),
            }),
            any(&MsgGrantAllowance {
                granter: treasury.clone(),
                grantee: operator.clone(),
                allowance: Some(any(&allowance)),
            }),
        ],
    )
    .await;
    let granted = read(&client).await;
    assert_eq!((granted.balance, granted.fee_balance), (Uact(5_000_000), 100_000));
    assert!(granted.funds.treasury.as_ref().unwrap().expires().is_some());

    let dseq = rand::random::<u64>() >> 12;
    lands(&client, create(dseq, Uact(1_000_000))).await;
    lands(&client, ChainMsg::Deposit { dseq, amount: Uact(500_000) }).await;
    let paid = read(&client).await;
    assert_eq!(paid.balance, Uact(3_500_000), "the limit falls by what was deposited");
    assert_eq!(paid.deployments[&dseq].escrow.left, Uact(1_500_000));
    let holds = |view: &ChainView| view.funds.treasury.as_ref().unwrap().holds;
    assert_eq!(holds(&granted) - holds(&paid), 1_500_000);
    assert!(paid.fee_balance < 100_000, "fees come from the grant");
    // More than the grant leaves is refused, and own coins are not asked.
    let more = client.sign(&create(dseq + 1, Uact(4_000_000))).await;
    assert!(matches!(more, Err(ChainError::Refused { .. })), "{more:?}");

    lands(&client, ChainMsg::CloseDeployment { dseq }).await;
    let after = read(&client).await;
    assert_eq!(after.balance, Uact(5_000_000), "the limit is what it was");
    assert_eq!(holds(&after), holds(&granted), "the rest went back to the treasury");
    assert_eq!((after.funds.own_act, after.funds.own_uakt), (Uact(0), 0), "nothing is its own");
    println!("{} of fees by the grant", 100_000 - after.fee_balance);
}

/// Where nobody feeds the oracle, the sentence says that nothing is minted.
#[tokio::test]
#[ignore = "spends on a chain that runs elsewhere: AKASH_GRPC names a node, the accounts of the phrase are rich there"]
async fn a_running_node_mints_act_or_says_why_not() {
    let client = client(Wallet::from_phrase(&PHRASE.into(), 0).unwrap(), None);
    let terms = match client.terms().await {
        Ok(terms) => terms,
        Err(error) => {
            println!("{error}");
            assert!(error.to_string().contains("mints nothing now"), "{error}");
            return;
        }
    };
    println!("{terms:?}");
    let wanted = Uact(terms.least.0 * 2);
    let (burn, before) = (terms.burn_for(wanted), read(&client).await);
    lands(&client, ChainMsg::MintAct { burn }).await;
    let ended = async {
        loop {
            let newest = client.records().await.unwrap().pop().expect("a record");
            if newest.end != MintEnd::Pending {
                return newest;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let newest = tokio::time::timeout(Duration::from_mins(2), ended).await.expect("an epoch ends");
    println!("{newest:?}");
    let MintEnd::Minted(act) = newest.end else { panic!("{newest:?}") };
    assert_eq!(newest.burned, burn);
    assert!(act.0.abs_diff(wanted.0) <= wanted.0 / 50, "{act}");
    assert_eq!(read(&client).await.balance, before.balance + act);
}
