//! Promises of the node, and of a provider that does business on it over the network.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Request};

use super::*;
use crate::devnet::account::{Account, Order, TxTerms, any};
use crate::devnet::ledger::{Genesis, UACT, hash_of};
use crate::devnet::provider::LeaseHost;
use crate::devnet::provider::client::ChainClient;
use crate::devnet::provider::market::{ProviderConfig, ProviderHandle, start};
use crate::wire::akash::base::deposit::v1::{Deposit, Source};
use crate::wire::akash::base::resources::v1beta4::{
    Cpu, Gpu, Memory, ResourceValue, Resources, Storage,
};
use crate::wire::akash::deployment::v1::{DeploymentId, GroupId};
use crate::wire::akash::deployment::v1beta4::{
    self as deployment, GroupSpec, MsgCloseDeployment, MsgCreateDeployment, MsgStartGroup,
    ResourceUnit,
};
use crate::wire::akash::market::v1::LeaseClosedReason;
use crate::wire::akash::market::v1::lease::State as LeaseState;
use crate::wire::akash::market::v1beta5::MsgCreateLease;
use crate::wire::akash::market::v1beta5::bid::State as BidState;
use crate::wire::cosmos::base::v1beta1::{Coin, DecCoin};
use crate::wire::cosmos::tx::v1beta1 as tx;

const DEADLINE: Duration = Duration::from_secs(20);

fn key(n: u8) -> Account {
    Account::from_bytes(&[n; 32]).unwrap()
}

async fn node(block_every: Option<Duration>) -> (ChainHandle, Channel, CancellationToken) {
    let accounts =
        (1..6).map(|n| (key(n).address().to_owned(), 1_000_000_000, 1_000_000_000)).collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let shutdown = CancellationToken::new();
    let config = ChainConfig { genesis: Genesis::with_accounts(accounts, 1), block_every };
    let chain = serve(config, listener, shutdown.clone()).unwrap();
    let channel = Channel::from_shared(chain.url()).unwrap().connect_lazy();
    (chain, channel, shutdown)
}

/// Waits until the chain, looked at block by block, is as wanted.
async fn eventually(chain: &ChainHandle, what: &str, holds: impl Fn(&View) -> bool) {
    let waited = tokio::time::timeout(DEADLINE, async {
        while !holds(&chain.view()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "never: {what}");
}

fn create(owner: &Account, dseq: u64) -> MsgCreateDeployment {
    let amount = |digits: &str| Some(ResourceValue { val: digits.as_bytes().to_vec() });
    let resource = Resources {
        id: 1,
        cpu: Some(Cpu { units: amount("500"), attributes: vec![] }),
        memory: Some(Memory { quantity: amount("1073741824"), attributes: vec![] }),
        storage: vec![Storage {
            name: "default".into(),
            quantity: amount("1073741824"),
            attributes: vec![],
        }],
        gpu: Some(Gpu { units: amount("0"), attributes: vec![] }),
        endpoints: vec![],
    };
    let price = Some(DecCoin { denom: UACT.into(), amount: "2000000000000000000".into() });
    let unit = ResourceUnit { resource: Some(resource), count: 1, price };
    let coins = Some(Coin { denom: UACT.into(), amount: "500000".into() });
    MsgCreateDeployment {
        id: Some(DeploymentId { owner: owner.address().into(), dseq }),
        groups: vec![GroupSpec { name: "node".into(), requirements: None, resources: vec![unit] }],
        hash: vec![7; 32],
        deposit: Some(Deposit { amount: coins, sources: vec![Source::Balance.into()] }),
        reclamation: None,
    }
}

fn signed_create(owner: &Account, dseq: u64, sequence: u64) -> Vec<u8> {
    let order = Order::Sequence(sequence);
    let terms =
        TxTerms { chain_id: "akash-local", account_number: 0, order, gas: 400_000, fee: 10_000 };
    owner.sign_tx(vec![any(&create(owner, dseq))], &terms)
}

fn broadcast(tx_bytes: Vec<u8>) -> tx::BroadcastTxRequest {
    tx::BroadcastTxRequest { tx_bytes, mode: tx::BroadcastMode::Sync.into() }
}

#[tokio::test]
async fn a_transaction_is_found_only_once_it_is_in_a_block() {
    let (chain, channel, _shutdown) = node(None).await;
    let mut service = tx::service_client::ServiceClient::new(channel.clone());
    let bytes = signed_create(&key(1), 7, 0);
    let hash = hash_of(&bytes);
    let taken =
        service.broadcast_tx(broadcast(bytes)).await.unwrap().into_inner().tx_response.unwrap();
    assert_eq!((taken.code, taken.txhash.as_str()), (0, hash.as_str()));
    let early = service.get_tx(tx::GetTxRequest { hash: hash.clone() }).await.unwrap_err();
    assert_eq!(
        (early.code(), early.message()),
        (Code::NotFound, format!("tx not found: {hash}").as_str())
    );
    chain.advance();
    let height = chain.view().block().height;
    let found =
        service.get_tx(tx::GetTxRequest { hash }).await.unwrap().into_inner().tx_response.unwrap();
    assert_eq!((found.code, u64::try_from(found.height).unwrap()), (0, height));

    let mut deployments = deployment::query_client::QueryClient::new(channel);
    let ask = |height: u64| {
        let id = Some(DeploymentId { owner: key(1).address().into(), dseq: 7 });
        let mut request = Request::new(deployment::QueryDeploymentRequest { id });
        request.metadata_mut().insert(HEIGHT, height.to_string().parse().unwrap());
        request
    };
    let answer = deployments.deployment(ask(height)).await.unwrap();
    assert_eq!(answer.metadata().get(HEIGHT).unwrap().to_str().unwrap(), height.to_string());
    assert_eq!(deployments.deployment(ask(height - 1)).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(
        deployments.deployment(ask(height + 1)).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    chain.faults().set_lag(1);
    let id = Some(DeploymentId { owner: key(1).address().into(), dseq: 7 });
    let stale = deployments.deployment(deployment::QueryDeploymentRequest { id }).await;
    assert_eq!(stale.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn answers_and_requests_get_lost_on_demand() {
    let (chain, channel, shutdown) = node(None).await;
    let mut service = tx::service_client::ServiceClient::new(channel);
    chain.faults().lose_next_request();
    let never = signed_create(&key(1), 7, 0);
    assert_eq!(
        service.broadcast_tx(broadcast(never.clone())).await.unwrap_err().code(),
        Code::Unavailable
    );
    chain.advance();
    assert_eq!(
        service.get_tx(tx::GetTxRequest { hash: hash_of(&never) }).await.unwrap_err().code(),
        Code::NotFound
    );
    chain.faults().lose_next_answer();
    assert_eq!(
        service.broadcast_tx(broadcast(never.clone())).await.unwrap_err().code(),
        Code::Unavailable
    );
    chain.advance();
    let again = service
        .broadcast_tx(broadcast(never.clone()))
        .await
        .unwrap()
        .into_inner()
        .tx_response
        .unwrap();
    assert_eq!((again.codespace.as_str(), again.code), ("sdk", 19));
    let landed = service
        .get_tx(tx::GetTxRequest { hash: hash_of(&never) })
        .await
        .unwrap()
        .into_inner()
        .tx_response
        .unwrap();
    assert_eq!(landed.code, 0);

    chain.faults().set_silent(true);
    let mut other = service.clone();
    let hash = hash_of(&never);
    let waiting = tokio::spawn(async move { other.get_tx(tx::GetTxRequest { hash }).await });
    chain.faults().set_silent(false);
    assert!(waiting.await.unwrap().is_ok());
    chain.faults().set_silent(true);
    shutdown.cancel();
    assert!(tokio::time::timeout(DEADLINE, chain.stopped()).await.is_ok());
}

#[derive(Default)]
struct Seen(Mutex<Vec<String>>);

#[async_trait]
impl LeaseHost for Seen {
    async fn lease_won(&self, _owner: &str, dseq: u64, gseq: u32, oseq: u32) {
        lock(&self.0).push(format!("won {dseq}/{gseq}/{oseq}"));
    }

    async fn lease_closed(&self, _owner: &str, dseq: u64, gseq: u32, oseq: u32) {
        lock(&self.0).push(format!("closed {dseq}/{gseq}/{oseq}"));
    }
}

async fn provider(
    channel: &Channel,
    n: u8,
    permille: u32,
    shutdown: &CancellationToken,
) -> (ProviderHandle, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let mut config =
        ProviderConfig::new(&format!("p{n}"), key(n), "https://p.devnet.test:8443", "eu");
    config.price_permille = permille;
    config.round = Duration::from_millis(20);
    let handle = start(config, channel.clone(), Arc::clone(&seen) as Arc<dyn LeaseHost>, shutdown)
        .await
        .unwrap();
    (handle, seen)
}

fn open_bids(view: &View) -> usize {
    view.bids().filter(|bid| bid.state() == BidState::Open).count()
}

#[tokio::test]
async fn providers_bid_win_close_and_hear_of_it() {
    let (chain, channel, shutdown) = node(Some(Duration::from_millis(30))).await;
    let (cheap, seen) = provider(&channel, 2, 1000, &shutdown).await;
    let (dear, _) = provider(&channel, 3, 1500, &shutdown).await;
    let tenant = ChainClient::connect(channel.clone(), key(1)).await.unwrap();
    tenant.send(vec![any(&create(&key(1), 7))]).await.unwrap();
    eventually(&chain, "two bids", |view| open_bids(view) == 2).await;
    let bid_of = |view: &View, who: &str, oseq: u32| {
        let id = |bid: &crate::wire::akash::market::v1beta5::Bid| bid.id.clone().unwrap();
        view.bids().find(|bid| id(bid).provider == who && id(bid).oseq == oseq).cloned().unwrap()
    };
    let (low, high) =
        (bid_of(&chain.view(), cheap.address(), 1), bid_of(&chain.view(), dear.address(), 1));
    let amount = |bid: &crate::wire::akash::market::v1beta5::Bid| {
        bid.price.clone().unwrap().amount.parse::<u128>().unwrap()
    };
    assert!(amount(&low) < amount(&high));
    tenant.send(vec![any(&MsgCreateLease { bid_id: low.id })]).await.unwrap();
    let heard = |what: &'static str| {
        let seen = Arc::clone(&seen);
        move |_: &View| lock(&seen.0).iter().any(|line| line == what)
    };
    eventually(&chain, "won", heard("won 7/1/1")).await;

    // The provider walks out; the other is silent: only the first bids on the new order.
    dear.set_silent(true);
    let lease = cheap.leases().await.unwrap().remove(0);
    cheap.close_lease(&lease, LeaseClosedReason::Unstable).await.unwrap();
    eventually(&chain, "closed", heard("closed 7/1/1")).await;
    assert!(
        chain
            .view()
            .leases()
            .any(|lease| lease.state() == LeaseState::Closed && lease.reason == 10_000)
    );
    let group = GroupId { owner: key(1).address().into(), dseq: 7, gseq: 1 };
    tenant.send(vec![any(&MsgStartGroup { id: Some(group) })]).await.unwrap();
    let bid_again =
        |view: &View| view.bids().any(|bid| bid.id.as_ref().is_some_and(|id| id.oseq == 2));
    eventually(&chain, "a bid on the new order", bid_again).await;
    let again = bid_of(&chain.view(), cheap.address(), 2);
    tenant.send(vec![any(&MsgCreateLease { bid_id: again.id })]).await.unwrap();
    eventually(&chain, "won again", heard("won 7/1/2")).await;
    let id = Some(DeploymentId { owner: key(1).address().into(), dseq: 7 });
    tenant.send(vec![any(&MsgCloseDeployment { id })]).await.unwrap();
    eventually(&chain, "closed again", heard("closed 7/1/2")).await;

    // One that has vanished does not bid.
    cheap.vanish().await;
    dear.set_silent(false);
    tenant.send(vec![any(&create(&key(1), 8))]).await.unwrap();
    let bids_on_8 = |view: &View| {
        view.bids().filter(|bid| bid.id.as_ref().is_some_and(|id| id.dseq == 8)).count()
    };
    eventually(&chain, "a bid of the one that is left", |view| bids_on_8(view) == 1).await;
    shutdown.cancel();
}
