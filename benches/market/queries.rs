//! What the operator's chain client asks a node for one look at all of its deployments.

use std::collections::BTreeSet;
use std::sync::Arc;

use akash_redis::chain::Chain as _;
use akash_redis::chain::client::{ChainClient, ChainSettings, GasPrice};
use akash_redis::chain::fees::FeeLimits;
use akash_redis::chain::wallet::Wallet;
use akash_redis::devnet::account::{Account, Order, TxTerms, any};
use akash_redis::devnet::chain::{ChainConfig, ChainHandle, serve};
use akash_redis::devnet::ledger::Genesis;
use akash_redis::wire::akash::base::attributes::v1::Attribute;
use akash_redis::wire::akash::base::deposit::v1::{Deposit, Source};
use akash_redis::wire::akash::base::resources::v1beta4::{
    Cpu, Gpu, Memory, ResourceValue, Resources, Storage,
};
use akash_redis::wire::akash::deployment::v1::DeploymentId;
use akash_redis::wire::akash::deployment::v1beta4::{GroupSpec, MsgCreateDeployment, ResourceUnit};
use akash_redis::wire::akash::market::v1::BidId;
use akash_redis::wire::akash::market::v1beta5::{MsgCreateBid, MsgCreateLease};
use akash_redis::wire::akash::provider::v1beta4::MsgCreateProvider;
use akash_redis::wire::cosmos::base::v1beta1::{Coin, DecCoin};
use akash_redis::wire::cosmos::tx::v1beta1 as tx;
use prost_types::Any;
use secrecy::SecretString;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

const PHRASE: &str = "addict worth drip violin note olive final pelican perfect feel goat game horror brass fence deposit dutch \
                      improve setup stuff frost spirit smart alien";
const RICH: u128 = 1_000_000_000_000_000;
const ONE: u128 = 1_000_000_000_000_000_000;
/// Messages of one transaction, and the gas that they may take.
const BATCH: usize = 50;
const GAS: u64 = 50_000_000;
/// Nodes of a cluster, each from a provider of its own.
const NODES: usize = 3;

/// Calls by the number of clusters.
#[derive(Debug, Serialize)]
pub struct Queries {
    pub clusters: usize,
    /// For a reading of everything.
    pub all: u64,
    /// For a reading of one cluster, after an effect on it.
    pub one: u64,
}

struct Chain {
    handle: ChainHandle,
    accounts: Vec<Account>,
    channel: Channel,
    signed: u64,
}

/// Calls of one reading, once the client knows what it keeps.
pub async fn per_tick(clusters: usize) -> Queries {
    let stop = CancellationToken::new();
    let accounts: Vec<_> = (0..=NODES)
        .map(|index| Account::from_mnemonic(PHRASE, u32::try_from(index).expect("few")))
        .collect::<Result<_, _>>()
        .expect("accounts");
    let rich = |account: &Account| (account.address().to_owned(), RICH, RICH);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = u64::try_from(now.expect("after 1970").as_nanos()).expect("this century");
    let genesis = Genesis::with_accounts(accounts.iter().map(rich).collect(), now);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let config = ChainConfig { genesis, block_every: None };
    let handle = serve(config, listener, stop.clone()).expect("a chain");
    let channel = Channel::from_shared(handle.url()).expect("a url").connect_lazy();
    let mut chain = Chain { handle, accounts, channel, signed: 0 };
    chain.fill(clusters).await;
    let settings = ChainSettings {
        chain_id: "akash-local".into(),
        grpc: vec![chain.handle.url()],
        gas_price: GasPrice::USUAL,
        fee_granter: None,
        treasury: None,
        fee_limits: FeeLimits::USUAL,
    };
    let wallet = Wallet::from_phrase(&SecretString::from(PHRASE), 0).expect("a wallet");
    let client = ChainClient::connect(settings, Arc::new(wallet)).expect("a client");
    let known: BTreeSet<u64> = dseqs(clusters).collect();
    let first = client.read(&known).await.expect("a reading");
    assert_eq!(first.deployments.len(), clusters * NODES);
    // As on a chain that runs: the time between blocks is known from here on.
    chain.handle.advance();
    client.read(&known).await.expect("a reading");
    let calls = || chain.handle.faults().calls();
    let before = calls();
    client.read(&known).await.expect("a reading");
    let all = calls() - before;
    let before = calls();
    client.read_deployments(&dseqs(1).collect()).await.expect("a reading");
    let one = calls() - before;
    stop.cancel();
    Queries { clusters, all, one }
}

fn dseqs(clusters: usize) -> impl Iterator<Item = u64> {
    (1..=u64::try_from(clusters * NODES).expect("few")).collect::<Vec<_>>().into_iter()
}

impl Chain {
    /// Deployments, bids and leases of so many clusters.
    async fn fill(&mut self, clusters: usize) {
        for provider in 1..=NODES {
            let attributes = [("capabilities/storage/1/class", "beta3")]
                .map(|(key, value)| Attribute { key: key.into(), value: value.into() })
                .to_vec();
            let owner = self.accounts[provider].address().to_owned();
            let host_uri = "https://p.test:8443".to_owned();
            let msg = MsgCreateProvider { owner, host_uri, attributes, info: None };
            self.send(provider, vec![any(&msg)]).await;
        }
        let all: Vec<_> = dseqs(clusters).collect();
        for dseqs in all.chunks(BATCH) {
            let creates = dseqs.iter().map(|dseq| any(&self.create(*dseq))).collect();
            self.send(0, creates).await;
        }
        for provider in 1..=NODES {
            let own: Vec<_> =
                all.iter().copied().filter(|dseq| Self::lessor(*dseq) == provider).collect();
            for dseqs in own.chunks(BATCH) {
                let bids = dseqs.iter().map(|dseq| any(&self.bid(*dseq))).collect();
                self.send(provider, bids).await;
            }
        }
        for dseqs in all.chunks(BATCH) {
            let lease = |dseq: &u64| any(&MsgCreateLease { bid_id: Some(self.bid_id(*dseq)) });
            let leases = dseqs.iter().map(lease).collect();
            self.send(0, leases).await;
        }
    }

    fn lessor(dseq: u64) -> usize {
        usize::try_from(dseq).expect("small") % NODES + 1
    }

    fn create(&self, dseq: u64) -> MsgCreateDeployment {
        let owner = self.accounts[0].address().to_owned();
        let value = |digits: &str| Some(ResourceValue { val: digits.as_bytes().to_vec() });
        let storage =
            Storage { name: "default".into(), quantity: value("1073741824"), ..Storage::default() };
        let resource = Resources {
            id: 1,
            cpu: Some(Cpu { units: value("500"), ..Cpu::default() }),
            memory: Some(Memory { quantity: value("536870912"), ..Memory::default() }),
            gpu: Some(Gpu { units: value("0"), ..Gpu::default() }),
            storage: vec![storage],
            ..Resources::default()
        };
        let price = Some(DecCoin { denom: "uact".into(), amount: (10 * ONE).to_string() });
        let unit = ResourceUnit { resource: Some(resource), count: 1, price };
        let group = GroupSpec { name: "node".into(), requirements: None, resources: vec![unit] };
        MsgCreateDeployment {
            id: Some(DeploymentId { owner, dseq }),
            groups: vec![group],
            hash: vec![7; 32],
            deposit: Some(deposit("uact")),
            reclamation: None,
        }
    }

    fn bid_id(&self, dseq: u64) -> BidId {
        let owner = self.accounts[0].address().to_owned();
        let provider = self.accounts[Self::lessor(dseq)].address().to_owned();
        BidId { owner, dseq, gseq: 1, oseq: 1, provider, bseq: 0 }
    }

    fn bid(&self, dseq: u64) -> MsgCreateBid {
        MsgCreateBid {
            id: Some(self.bid_id(dseq)),
            price: Some(DecCoin { denom: "uact".into(), amount: ONE.to_string() }),
            deposit: Some(deposit("uakt")),
            resources_offer: Vec::new(),
            reclamation_window: None,
        }
    }

    /// Sends messages, makes the next block, and looks whether they did what they should.
    async fn send(&mut self, who: usize, messages: Vec<Any>) {
        self.signed += 1;
        let account = &self.accounts[who];
        let view = self.handle.view();
        let account_number = view.account_info(account.address()).expect("there").account_number;
        let order = Order::Until(view.block().time_ns + 60_000_000_000 + self.signed);
        let terms =
            TxTerms { chain_id: "akash-local", account_number, order, gas: GAS, fee: GAS / 40 };
        let tx_bytes = account.sign_tx(messages, &terms);
        let mut service = tx::service_client::ServiceClient::new(self.channel.clone());
        let request = tx::BroadcastTxRequest { tx_bytes, mode: tx::BroadcastMode::Sync.into() };
        let taken = service.broadcast_tx(request).await.expect("an answer").into_inner();
        let taken = taken.tx_response.expect("a result");
        assert_eq!(taken.code, 0, "{}", String::from_utf8_lossy(&taken.raw_log));
        self.handle.advance();
        let found = service.get_tx(tx::GetTxRequest { hash: taken.txhash }).await;
        let end = found.expect("it is in the block").into_inner().tx_response.expect("a result");
        assert_eq!(end.code, 0, "{}", String::from_utf8_lossy(&end.raw_log));
    }
}

fn deposit(denom: &str) -> Deposit {
    let amount = Some(Coin { denom: denom.into(), amount: "500000".into() });
    Deposit { amount, sources: vec![Source::Balance.into()] }
}
