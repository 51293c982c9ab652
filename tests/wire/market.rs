//! The operator's chain client on the local market: what it sends lands, what it reads is what is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use akash_redis::chain::booking;
use akash_redis::chain::client::{ChainClient, ChainSettings, GasPrice};
use akash_redis::chain::fees::FeeLimits;
use akash_redis::chain::wallet::Wallet;
use akash_redis::chain::{Chain, ChainError};
use akash_redis::devnet::account::Account;
use akash_redis::devnet::chain::{ChainConfig, ChainHandle, serve};
use akash_redis::devnet::ledger::Genesis;
use akash_redis::devnet::provider::LeaseHost;
use akash_redis::devnet::provider::market::{ProviderConfig, ProviderHandle, start};
use akash_redis::model::books::{Account as Book, TxEntry, Window, sums};
use akash_redis::model::chain::{
    ChainMsg, ChainView, DeploymentView, GroupState, LeaseState, TxOutcome,
};
use akash_redis::model::group::{GroupSpec, Resources, Storage};
use akash_redis::model::ids::LeaseId;
use akash_redis::model::money::{DEC_ONE, PricePerBlock, Uact};
use akash_redis::wire::akash::market::v1::LeaseClosedReason;
use akash_redis::wire::cosmos;
use async_trait::async_trait;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

#[allow(dead_code)] // the same as in the bench
#[path = "../../benches/market/queries.rs"]
mod queries;

const PHRASE: &str = "addict worth drip violin note olive final pelican perfect feel goat game horror brass fence deposit dutch \
                      improve setup stuff frost spirit smart alien";
const DEADLINE: Duration = Duration::from_secs(30);
const RICH: u128 = 1_000_000_000;

/// A host that runs nothing.
struct NoHost;

#[async_trait]
impl LeaseHost for NoHost {
    async fn lease_won(&self, _: &str, _: u64, _: u32, _: u32) {}
    async fn lease_closed(&self, _: &str, _: u64, _: u32, _: u32) {}
}

struct Market {
    chain: ChainHandle,
    client: ChainClient,
    providers: Vec<ProviderHandle>,
    _shutdown: tokio_util::sync::DropGuard,
}

impl Market {
    async fn open() -> Self {
        let shutdown = CancellationToken::new();
        let accounts =
            (0..3).map(|index| Account::from_mnemonic(PHRASE, index).unwrap()).collect::<Vec<_>>();
        let genesis = Genesis::with_accounts(
            accounts.iter().map(|account| (account.address().to_owned(), RICH, RICH)).collect(),
            1,
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = ChainConfig { genesis, block_every: Some(Duration::from_millis(50)) };
        let chain = serve(config, listener, shutdown.clone()).unwrap();
        let channel = Channel::from_shared(chain.url()).unwrap().connect_lazy();
        let mut providers = Vec::new();
        for (index, permille) in [(1, 1000), (2, 1500)] {
            let mut config = ProviderConfig::new(
                &format!("p{index}"),
                accounts[index].clone(),
                "https://p.devnet.test:8443",
                "eu",
            );
            config.price_permille = permille;
            config.round = Duration::from_millis(50);
            config.withdraw_every = Duration::from_millis(200);
            providers
                .push(start(config, channel.clone(), Arc::new(NoHost), &shutdown).await.unwrap());
        }
        let settings = ChainSettings {
            chain_id: "akash-local".into(),
            grpc: vec![chain.url()],
            gas_price: GasPrice(25_000),
            fee_granter: None,
            treasury: None,
            fee_limits: FeeLimits::USUAL,
        };
        let wallet = Arc::new(Wallet::from_phrase(&SecretString::from(PHRASE), 0).unwrap());
        let client = ChainClient::connect(settings, wallet).unwrap();
        Self { chain, client, providers, _shutdown: shutdown.drop_guard() }
    }

    async fn lands(&self, msg: ChainMsg) {
        let tx = self.client.sign(&msg).await.unwrap();
        let outcome = tokio::time::timeout(DEADLINE, self.client.broadcast_and_confirm(&tx))
            .await
            .expect("settles in time")
            .unwrap();
        assert!(matches!(outcome, TxOutcome::Landed { .. }), "{outcome:?}");
    }

    async fn read(&self, dseq: u64) -> ChainView {
        let wanted = BTreeSet::from([dseq]);
        self.client.read(&wanted).await.unwrap()
    }

    /// Read alone, at the same height, a deployment is what it is among all.
    async fn is_the_same_when_read_alone(&self, dseq: u64) {
        let wanted = BTreeSet::from([dseq, dseq + 1]);
        self.chain.faults().stop_blocks(true);
        let (all, alone) = loop {
            let all = self.client.read(&wanted).await.unwrap();
            let alone = self.client.read_deployments(&wanted).await.unwrap();
            // One more block may have been under way.
            if all.height == alone.height {
                break (all, alone);
            }
        };
        self.chain.faults().stop_blocks(false);
        let only: Vec<_> = alone.deployments.keys().collect();
        assert_eq!(only, [&dseq], "one that never was is left out");
        assert_eq!(alone.deployments.get(&dseq), all.deployments.get(&dseq));
        assert_eq!((alone.balance, alone.min_deposit), (all.balance, all.min_deposit));
        assert!(alone.providers.iter().all(|(id, p)| all.providers.get(id) == Some(p)));
    }

    /// Reads until the deployment is as wanted.
    async fn until(
        &self,
        dseq: u64,
        what: &str,
        holds: impl Fn(&DeploymentView) -> bool,
    ) -> DeploymentView {
        let waiting = async {
            loop {
                let view = self.read(dseq).await;
                if let Some(found) = view.deployments.get(&dseq).filter(|view| holds(view)) {
                    return found.clone();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"))
    }

    async fn leased(&self, dseq: u64, oseq: u32) -> LeaseId {
        let view = self
            .until(dseq, "a bid", |view| {
                view.open_order == Some(oseq) && view.bids.iter().any(|bid| bid.id.oseq == oseq)
            })
            .await;
        let bid = view
            .bids
            .into_iter()
            .filter(|bid| bid.id.oseq == oseq)
            .min_by_key(|bid| bid.price)
            .unwrap();
        self.lands(ChainMsg::CreateLease(bid.id.clone())).await;
        bid.id
    }
}

pub fn create(dseq: u64, act_per_block: u128) -> ChainMsg {
    let data = vec![("class".into(), "beta3".into()), ("persistent".into(), "true".into())];
    let resources = Resources {
        id: 1,
        cpu_milli: 500,
        memory_bytes: 1 << 30,
        storage: vec![
            Storage { name: "default".into(), bytes: 1 << 30, attributes: vec![] },
            Storage { name: "data".into(), bytes: 4 << 30, attributes: data },
        ],
        endpoints: vec![],
    };
    let group = GroupSpec {
        name: "akash-redis-test".into(),
        attributes: vec![("region".into(), "eu".into())],
        signed_by_all_of: vec![],
        signed_by_any_of: vec![],
        resources,
        price: PricePerBlock(act_per_block * DEC_ONE),
    };
    ChainMsg::CreateDeployment { dseq, group, hash: [3; 32], deposit: Uact(500_000) }
}

#[tokio::test]
async fn a_deployment_lives_and_ends_as_the_operator_reads_it() {
    let market = Market::open().await;
    market.client.check().await.unwrap();
    market.lands(create(7, 2)).await;
    let again = market.client.sign(&create(7, 2)).await;
    assert!(
        matches!(&again, Err(ChainError::Refused { codespace, code: 3, .. }) if codespace == "deployment"),
        "{again:?}"
    );
    let bids = market.until(7, "two bids", |view| view.bids.len() == 2).await.bids;
    assert!(bids.iter().all(|bid| bid.fits));
    market.is_the_same_when_read_alone(7).await;
    let lease = market.leased(7, 1).await;
    let view = market
        .until(7, "an active lease", |view| {
            view.leases.iter().any(|lease| lease.state == LeaseState::Active)
        })
        .await;
    assert!(view.active && view.escrow.open && view.escrow.blocks_left.is_some());
    assert_eq!(view.hash, [3; 32]);
    market.lands(ChainMsg::UpdateDeployment { dseq: 7, hash: [4; 32] }).await;
    assert_eq!(market.until(7, "the new hash", |view| view.hash == [4; 32]).await.open_order, None);
    let read = market.read(7).await;
    assert!(read.providers.contains_key(&lease.provider) && read.min_deposit == Uact(500_000));

    // The provider walks out: the group pauses, closing gives the rest back.
    let provider =
        market.providers.iter().find(|provider| provider.address() == lease.provider).unwrap();
    let theirs = provider.leases().await.unwrap().remove(0);
    provider.close_lease(&theirs, LeaseClosedReason::Decommission).await.unwrap();
    let view = market.until(7, "a paused group", |view| view.group == GroupState::Paused).await;
    market.is_the_same_when_read_alone(7).await;
    assert_eq!((view.leases[0].state, view.leases[0].reason), (LeaseState::Closed, 10_001));
    market.lands(ChainMsg::CloseDeployment { dseq: 7 }).await;
    let view = market.until(7, "a closed deployment", |view| !view.active).await;
    market.is_the_same_when_read_alone(7).await;
    assert!(!view.escrow.open);
    let spent = u128::from(view.escrow.spent.0);
    assert_eq!(market.chain.view().balance(market.client.owner(), "uact"), RICH - spent);
}

impl Market {
    /// Signs and sends once.
    async fn tries(&self, msg: &ChainMsg) -> Result<TxOutcome, ChainError> {
        let tx = self.client.sign(msg).await?;
        tokio::time::timeout(DEADLINE, self.client.broadcast_and_confirm(&tx))
            .await
            .expect("settles in time")
    }
}

/// The gas that a node tells is too little: the next attempts are given more, within a bound, and
/// what they burn is bounded.
#[tokio::test]
async fn out_of_gas_is_answered_with_more_gas_and_not_for_ever() {
    let market = Market::open().await;
    market.lands(create(11, 2)).await;
    let fees = || RICH - market.chain.view().balance(market.client.owner(), "uakt");
    // Of 50,430 a node tells 20,172: half more than that is not even let in, half more again is
    // used up in a block.
    market.chain.faults().tell_gas(40);
    let update = ChainMsg::UpdateDeployment { dseq: 11, hash: [4; 32] };
    let mut codes = Vec::new();
    while let TxOutcome::Failed { codespace, code, .. } =
        market.tries(&update).await.expect("an outcome")
    {
        codes.push((codespace, code));
    }
    assert_eq!(codes, [("sdk".to_owned(), 11), ("sdk".to_owned(), 11)]);
    assert_eq!(market.read(11).await.deployments[&11].hash, [4; 32]);

    // As little as this cannot be made good: after a few failures it waits, and says why.
    market.chain.faults().tell_gas(19);
    let before = fees();
    let update = ChainMsg::UpdateDeployment { dseq: 11, hash: [5; 32] };
    let mut tries = 0;
    let error = loop {
        match market.tries(&update).await {
            Ok(outcome) => {
                assert!(matches!(outcome, TxOutcome::Failed { code: 11, .. }), "{outcome:?}");
            }
            Err(error) => break error,
        }
        tries += 1;
        assert!(tries < 12, "it is tried for ever");
    };
    assert!(
        matches!(&error, ChainError::NotSent { .. })
            && error.to_string().contains("each time for a fee (last: the gas limit"),
        "{error}"
    );
    assert!(fees() - before < 4 * 2_000, "{} uakt were burnt", fees() - before);
    // Another deployment is not held up by it.
    market.chain.faults().tell_gas(100);
    market.lands(create(12, 2)).await;
    market.lands(ChainMsg::UpdateDeployment { dseq: 12, hash: [5; 32] }).await;
}

#[tokio::test]
async fn a_lost_answer_neither_repeats_nor_loses_a_deployment() {
    let market = Market::open().await;
    let tx = market.client.sign(&create(8, 2)).await.unwrap();
    market.chain.faults().lose_next_answer();
    let outcome = tokio::time::timeout(DEADLINE, market.client.broadcast_and_confirm(&tx))
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(outcome, TxOutcome::Landed { .. }), "{outcome:?}");
    let tx = market.client.sign(&create(9, 2)).await.unwrap();
    market.chain.faults().lose_next_request();
    let outcome = tokio::time::timeout(DEADLINE, market.client.broadcast_and_confirm(&tx))
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(outcome, TxOutcome::Landed { .. }), "{outcome:?}");
    assert_eq!(market.read(8).await.deployments.len(), 2);
}

#[tokio::test]
async fn a_deployment_that_runs_dry_is_read_as_ended() {
    let market = Market::open().await;
    for provider in &market.providers {
        provider.set_silent(true);
    }
    market.lands(create(10, 200_000)).await;
    // A bid as dear as can be: three blocks and the deposit is gone.
    let account = Account::from_mnemonic(PHRASE, 1).unwrap();
    let channel = Channel::from_shared(market.chain.url()).unwrap().connect_lazy();
    let dear = akash_redis::devnet::provider::client::ChainClient::connect(channel, account)
        .await
        .unwrap();
    dear.send(vec![dear_bid(market.client.owner(), dear.account().address())]).await.unwrap();
    market.leased(10, 1).await;
    let view = market.until(10, "run dry", |view| !view.active).await;
    assert_eq!(view.group, GroupState::InsufficientFunds);
    assert_eq!(
        (view.leases[0].state, view.leases[0].reason),
        (LeaseState::InsufficientFunds, 20_000)
    );
}

fn dear_bid(owner: &str, provider: &str) -> prost_types::Any {
    use akash_redis::wire::akash::base::deposit::v1::{Deposit, Source};
    use akash_redis::wire::akash::market::v1::BidId;
    use akash_redis::wire::akash::market::v1beta5::MsgCreateBid;
    use akash_redis::wire::cosmos::base::v1beta1::{Coin, DecCoin};
    let id = BidId {
        owner: owner.into(),
        dseq: 10,
        gseq: 1,
        oseq: 1,
        provider: provider.into(),
        bseq: 0,
    };
    let amount = Some(Coin { denom: "uakt".into(), amount: "500000".into() });
    akash_redis::devnet::account::any(&MsgCreateBid {
        id: Some(id),
        price: Some(DecCoin { denom: "uact".into(), amount: (200_000 * DEC_ONE).to_string() }),
        deposit: Some(Deposit { amount, sources: vec![Source::Balance.into()] }),
        resources_offer: vec![],
        reclamation_window: None,
    })
}

#[tokio::test]
async fn a_chain_of_another_name_is_not_used() {
    let market = Market::open().await;
    let settings = ChainSettings {
        chain_id: "akashnet-2".into(),
        grpc: vec![market.chain.url()],
        gas_price: GasPrice(25_000),
        fee_granter: None,
        treasury: None,
        fee_limits: FeeLimits::USUAL,
    };
    let wallet = Arc::new(Wallet::from_phrase(&SecretString::from(PHRASE), 0).unwrap());
    let client = ChainClient::connect(settings, wallet).unwrap();
    assert!(matches!(client.check().await, Err(ChainError::InvalidResponse { .. })));
}

/// The gas of each transaction is printed.
#[tokio::test]
#[ignore = "spends on a chain that runs elsewhere: AKASH_GRPC names a node, the accounts of the phrase are rich there"]
async fn a_running_node_carries_a_deployment_from_create_to_close() {
    let uri = std::env::var("AKASH_GRPC").expect("AKASH_GRPC names a running node");
    let chain_id = std::env::var("AKASH_CHAIN_ID").unwrap_or_else(|_| "akash-local".into());
    let shutdown = CancellationToken::new();
    let _end = shutdown.clone().drop_guard();
    let channel = Channel::from_shared(uri.clone()).unwrap().connect_lazy();
    for index in 3..6 {
        let account = Account::from_mnemonic(PHRASE, index).unwrap();
        let config =
            ProviderConfig::new(&format!("p{index}"), account, "https://p.devnet.test:8443", "eu");
        // Handles may go: the providers go on until the end.
        start(config, channel.clone(), Arc::new(NoHost), &shutdown).await.unwrap();
    }
    let settings = ChainSettings {
        chain_id,
        grpc: vec![uri],
        gas_price: GasPrice::USUAL,
        fee_granter: None,
        treasury: None,
        fee_limits: FeeLimits::USUAL,
    };
    let wallet = Arc::new(Wallet::from_phrase(&SecretString::from(PHRASE), 0).unwrap());
    let client = ChainClient::connect(settings, wallet).unwrap();
    let dseq = rand::random::<u64>() >> 12;
    let before = client.read(&BTreeSet::new()).await.unwrap();
    let lands = async |msg: ChainMsg| {
        let tx = client.sign(&msg).await.unwrap();
        let outcome = client.broadcast_and_confirm(&tx).await.unwrap();
        assert!(matches!(outcome, TxOutcome::Landed { .. }), "{msg:?}: {outcome:?}");
        let mut txs = cosmos::tx::v1beta1::service_client::ServiceClient::new(channel.clone());
        let found = txs
            .get_tx(cosmos::tx::v1beta1::GetTxRequest { hash: tx.hash })
            .await
            .unwrap()
            .into_inner();
        let found = found.tx_response.unwrap();
        println!("{}: {} gas of {}", tx.purpose, found.gas_used, found.gas_wanted);
    };
    let until = async |what: &str, holds: &dyn Fn(&DeploymentView) -> bool| {
        let waiting = async {
            loop {
                let view = client.read(&BTreeSet::from([dseq])).await.unwrap();
                if let Some(found) = view.deployments.get(&dseq).filter(|view| holds(view)) {
                    return found.clone();
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(2), waiting)
            .await
            .unwrap_or_else(|_| panic!("never: {what}"))
    };
    lands(create(dseq, 100)).await;
    let view = until("three bids", &|view| view.bids.len() == 3).await;
    lands(ChainMsg::CreateLease(view.bids[0].id.clone())).await;
    for n in 4..8 {
        lands(ChainMsg::UpdateDeployment { dseq, hash: [n; 32] }).await;
        until("the new hash", &|view| view.hash == [n; 32]).await;
    }
    lands(ChainMsg::CloseDeployment { dseq }).await;
    let view = until("a closed deployment", &|view| !view.active).await;
    let after = client.read(&BTreeSet::new()).await.unwrap();
    println!(
        "paid {}uakt in fees and {} to the provider",
        before.fee_balance - after.fee_balance,
        view.escrow.spent
    );
    assert!(!view.escrow.open && before.balance == after.balance + view.escrow.spent);
}

/// What `devnet providers` asks of a chain before it puts providers on it.
#[tokio::test]
async fn a_chain_elsewhere_is_checked_and_its_pace_measured() {
    use akash_redis::devnet::foreign::{Foreign, ForeignError};
    let market = Market::open().await;
    let foreign = Foreign::new(&market.chain.url()).unwrap();
    foreign.check("akash-local").await.unwrap();
    let error = foreign.check("akashnet-2").await.expect_err("another chain");
    assert!(
        matches!(&error, ForeignError::Other { found, .. } if found == "akash-local"),
        "{error}"
    );
    let block = foreign.block_time().await.unwrap();
    assert!(block >= Duration::from_millis(1), "{block:?}");
    let error =
        Foreign::new("http://127.0.0.1:1").unwrap().check("akash-local").await.expect_err("nobody");
    assert!(
        matches!(&error, ForeignError::Away { .. }) && error.to_string().contains("--grpc"),
        "{error}"
    );
    for bad in ["", "a b"] {
        assert!(Foreign::new(bad).is_err(), "{bad}");
    }
}

impl Market {
    /// Sends what may fail, and books what it cost.
    async fn booked(&self, msg: &ChainMsg, entries: &mut Vec<TxEntry>) -> bool {
        let tx = self.client.sign(msg).await.unwrap();
        let end = tokio::time::timeout(DEADLINE, self.client.broadcast_and_confirm(&tx));
        let outcome = end.await.expect("settles in time").unwrap();
        entries.extend(booking::entry(self.client.owner(), "cache", &tx, &outcome));
        matches!(outcome, TxOutcome::Landed { .. })
    }
}

/// Of two tries that ran out of gas one was let into a block and cost its fee, the other was not.
#[tokio::test]
async fn what_is_booked_is_what_left_the_wallet() {
    let market = Market::open().await;
    let mut entries = Vec::new();
    assert!(market.booked(&create(31, 2), &mut entries).await);
    market.chain.faults().tell_gas(40);
    let update = ChainMsg::UpdateDeployment { dseq: 31, hash: [4; 32] };
    let mut tries = 1;
    while !market.booked(&update, &mut entries).await {
        tries += 1;
    }
    market.chain.faults().tell_gas(100);
    assert!(market.booked(&ChainMsg::Deposit { dseq: 31, amount: Uact(7) }, &mut entries).await);
    let mut book = Book::new(31, "cache", "u", "cache-0-a");
    let open = market.read(31).await;
    assert!(book.take(open.statements[&31].clone(), 0));
    assert!(market.booked(&ChainMsg::CloseDeployment { dseq: 31 }, &mut entries).await);
    let closed = market.read(31).await;
    assert!(book.take(closed.statements[&31].clone(), 0));

    let owner = market.client.owner();
    let left = |denom: &str| RICH - market.chain.view().balance(owner, denom);
    let totals = sums(Some(&book), &entries, None).within(Window::ALL);
    assert_eq!(left("uakt"), u128::from(totals.fees));
    assert_eq!(left("uact"), 0, "nothing was leased, so all of it came back");
    assert_eq!((totals.deposited, totals.refunded), (Uact(500_007), Uact(500_007)));
    let failed = entries.iter().filter(|entry| !entry.ok).count();
    assert_eq!((tries, failed), (3, 1), "{entries:?}");
    assert!(entries.iter().all(|entry| entry.fee > 0 && entry.at.0 > 0), "{entries:?}");
}

/// What a look at the chain asks does not depend on how many clusters there are, as far as a page
/// holds them.
#[tokio::test]
async fn a_look_at_the_chain_asks_as_much_for_many_clusters_as_for_one() {
    let (one, many) = (queries::per_tick(1).await, queries::per_tick(20).await);
    println!("{one:?} {many:?}");
    assert_eq!((one.all, one.one), (many.all, many.one));
    assert!(one.all <= 10, "{one:?}");
    // For the figures of the bench without an optimized build.
    let more = std::env::var("QUERIES_CLUSTERS").unwrap_or_default();
    for clusters in more.split(',').filter_map(|n| n.parse().ok()) {
        println!("{:?}", queries::per_tick(clusters).await);
    }
}
