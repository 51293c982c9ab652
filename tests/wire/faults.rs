//! The faults of the local market, as the command line makes them: the operator's clients get on
//! with each.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use akash_redis::chain::Chain;
use akash_redis::chain::client::{ChainClient, ChainSettings, GasPrice};
use akash_redis::chain::fees::FeeLimits;
use akash_redis::chain::wallet::Wallet;
use akash_redis::devnet::account::Account;
use akash_redis::devnet::chain::{ChainConfig, ChainHandle, serve};
use akash_redis::devnet::control::{Answer, Request, SOCKET, ask, serve as serve_control};
use akash_redis::devnet::faults::{CloseReason, Fault, MarketFaults, ProviderControl, Time};
use akash_redis::devnet::ledger::Genesis;
use akash_redis::devnet::provider::LeaseHost;
use akash_redis::devnet::provider::faults::ProviderFault;
use akash_redis::devnet::provider::gateway::{Identity, serve_as};
use akash_redis::devnet::provider::host::{ProviderHost, ProviderName};
use akash_redis::devnet::provider::manifest::{decode, hash};
use akash_redis::devnet::provider::market::{ProviderConfig, start};
use akash_redis::gateway::{Gateway as _, GatewayError};
use akash_redis::model::chain::{
    ChainMsg, ChainView, DeploymentView, GroupState, LeaseState, TxOutcome,
};
use akash_redis::model::ids::LeaseId;
use akash_redis::model::inventory::LeaseStatus;
use akash_redis::model::money::Uact;
use async_trait::async_trait;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;

use crate::gateway::{Listed, certificate, client, lease, provider_at};
use crate::market::create;
use crate::provider::{DSEQ, OWNER, PROVIDER, World, group, records};

const PHRASE: &str = "addict worth drip violin note olive final pelican perfect feel goat game horror brass fence deposit dutch \
                      improve setup stuff frost spirit smart alien";
const DEADLINE: Duration = Duration::from_secs(30);
const RICH: u128 = 1_000_000_000;

struct NoHost;

#[async_trait]
impl LeaseHost for NoHost {
    async fn lease_won(&self, _: &str, _: u64, _: u32, _: u32) {}
    async fn lease_closed(&self, _: &str, _: u64, _: u32, _: u32) {}
}

/// A chain with two providers.
struct Market {
    chain: ChainHandle,
    client: Arc<ChainClient>,
    faults: MarketFaults,
    shutdown: CancellationToken,
    _guard: DropGuard,
}

impl Market {
    async fn open() -> Self {
        let shutdown = CancellationToken::new();
        let accounts: Vec<_> =
            (0..3).map(|index| Account::from_mnemonic(PHRASE, index).unwrap()).collect();
        let rich = |account: &Account| (account.address().to_owned(), RICH, RICH);
        let mut genesis = Genesis::with_accounts(accounts.iter().map(rich).collect(), 1);
        genesis.params.reclamation_window.0 = 1;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = ChainConfig { genesis, block_every: Some(Duration::from_millis(50)) };
        let chain = serve(config, listener, shutdown.clone()).unwrap();
        let channel = Channel::from_shared(chain.url()).unwrap().connect_lazy();
        let mut providers = Vec::new();
        for (index, permille) in [(1, 1000), (2, 1500)] {
            let (name, account) = (format!("provider{index}"), accounts[index].clone());
            let usual = ProviderConfig::new(&name, account, "https://p.devnet.test:8443", "eu");
            let config = ProviderConfig {
                price_permille: permille,
                round: Duration::from_millis(50),
                ..usual
            };
            let market = start(config, channel.clone(), Arc::new(NoHost), &shutdown).await.unwrap();
            providers.push(ProviderControl {
                name,
                market: market.control(),
                gateway: None,
                runner: None,
            });
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
        let client = Arc::new(ChainClient::connect(settings, wallet).unwrap());
        let control = chain.control();
        let usual_deposit = control.params().min_deposit;
        let faults = MarketFaults { chain: Some(control), providers, usual_deposit, net: None };
        Self { chain, client, faults, shutdown: shutdown.clone(), _guard: shutdown.drop_guard() }
    }

    async fn lands(&self, msg: ChainMsg) {
        let sent = async {
            let tx = self.client.sign(&msg).await.unwrap();
            self.client.broadcast_and_confirm(&tx).await.unwrap()
        };
        let outcome = tokio::time::timeout(DEADLINE, sent).await.expect("settles in time");
        assert!(matches!(outcome, TxOutcome::Landed { .. }), "{outcome:?}");
    }

    async fn until(
        &self,
        dseq: u64,
        what: &str,
        holds: impl Fn(&DeploymentView) -> bool,
    ) -> DeploymentView {
        let view =
            self.until_view(dseq, what, |view| view.deployments.get(&dseq).is_some_and(&holds));
        view.await.deployments.remove(&dseq).unwrap()
    }

    async fn until_view(
        &self,
        dseq: u64,
        what: &str,
        holds: impl Fn(&ChainView) -> bool,
    ) -> ChainView {
        let known = BTreeSet::from([dseq]);
        let waiting = async {
            loop {
                if let Some(view) = self.client.read(&known).await.ok().filter(|v| holds(v)) {
                    return view;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"))
    }

    /// A deployment leased from the first provider.
    async fn leased(&self, dseq: u64) -> LeaseId {
        self.lands(create(dseq, 2)).await;
        let first = self.faults.providers[0].market.address().to_owned();
        let found = |view: &DeploymentView| {
            view.bids.iter().find(|bid| bid.id.provider == first).map(|bid| bid.id.clone())
        };
        let view = self.until(dseq, "a bid", |view| found(view).is_some()).await;
        let bid = found(&view).unwrap();
        self.lands(ChainMsg::CreateLease(bid.clone())).await;
        bid
    }
}

#[tokio::test]
async fn whatever_the_chain_does_each_transaction_lands_once() {
    let market = Market::open().await;
    let faults = [
        Fault::SlowBlocks { every: Time(Duration::from_millis(300)) },
        Fault::ReorderTransactions,
        Fault::LoseAnswers { count: 2 },
        Fault::LoseTransactions { count: 2 },
        Fault::RateLimit { count: 3 },
        Fault::NodeBehind { blocks: 4 },
    ];
    for (dseq, fault) in (1..).zip(&faults) {
        market.faults.inject(fault).await.unwrap();
        let (one, two) = (market.lands(create(2 * dseq, 2)), market.lands(create(2 * dseq + 1, 2)));
        tokio::join!(one, two);
        market.faults.clear(None).unwrap();
        let made = market.chain.view().deployments().count();
        assert_eq!(u64::try_from(made).unwrap(), 2 * dseq, "{}", fault.name());
    }
}

#[tokio::test]
async fn a_transaction_waits_for_a_chain_that_stands_still() {
    for fault in [Fault::HaltChain, Fault::SilentNode] {
        let market = Market::open().await;
        // Its account number is known from then on.
        market.lands(create(1, 2)).await;
        let tx = market.client.sign(&create(2, 2)).await.unwrap();
        market.faults.inject(&fault).await.unwrap();
        let (client, sent) = (market.client.clone(), tx.clone());
        let mut landing = tokio::spawn(async move { client.broadcast_and_confirm(&sent).await });
        let early = tokio::time::timeout(Duration::from_millis(500), &mut landing).await;
        assert!(early.is_err(), "{}: {early:?}", fault.name());
        market.faults.clear(Some(fault.name())).unwrap();
        let outcome = tokio::time::timeout(DEADLINE, landing).await.unwrap().unwrap().unwrap();
        assert!(matches!(outcome, TxOutcome::Landed { .. }), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_lease_ends_with_each_reason() {
    let market = Market::open().await;
    let reasons = [
        (CloseReason::Unstable, 10_000),
        (CloseReason::Decommission, 10_001),
        (CloseReason::Unspecified, 10_002),
        (CloseReason::ManifestTimeout, 10_003),
    ];
    for (dseq, (reason, number)) in (1..).zip(reasons) {
        market.leased(dseq).await;
        market.faults.inject(&Fault::CloseLease { dseq, reason }).await.unwrap();
        let view = market.until(dseq, "paused", |view| view.group == GroupState::Paused).await;
        assert_eq!((view.leases[0].state, view.leases[0].reason), (LeaseState::Closed, number));
        assert!(view.active && view.escrow.open, "the deployment and its escrow go on");
        market.lands(ChainMsg::CloseDeployment { dseq }).await;
    }
}

#[tokio::test]
async fn a_lease_is_reclaimed_after_its_notice_and_not_without_one() {
    let market = Market::open().await;
    market.leased(1).await;
    let reclaim = |dseq| Fault::StartReclaim { dseq, reason: CloseReason::Decommission };
    let refused = market.faults.inject(&reclaim(1)).await.unwrap_err();
    assert!(refused.to_string().contains("market code 35"), "{refused}");
    let notice = Time(Duration::from_secs(1));
    let provider = "provider1".to_owned();
    market.faults.inject(&Fault::Reclaimable { provider, notice }).await.unwrap();
    market.leased(2).await;
    let close = Fault::CloseLease { dseq: 2, reason: CloseReason::Unstable };
    let refused = market.faults.inject(&close).await.unwrap_err();
    assert!(refused.to_string().contains("market code 37"), "not without a notice: {refused}");
    market.faults.inject(&reclaim(2)).await.unwrap();
    let view =
        market.until(2, "reclaiming", |view| view.leases[0].state == LeaseState::Reclaiming).await;
    assert!(view.escrow.blocks_left.is_some(), "it is paid until then");
    let view = market.until(2, "paused", |view| view.group == GroupState::Paused).await;
    assert_eq!((view.leases[0].state, view.leases[0].reason), (LeaseState::Closed, 10_001));
}

#[tokio::test]
async fn bids_come_as_they_are_told_to() {
    let market = Market::open().await;
    let price = |view: &DeploymentView, n: usize| {
        let address = market.faults.providers[n].market.address();
        view.bids.iter().find(|bid| bid.id.provider == address).map(|bid| (bid.price.0, bid.fits))
    };
    market.lands(create(1, 20)).await;
    let usual = market.until(1, "two bids", |view| view.bids.len() == 2).await;
    let provider = || "provider1".to_owned();
    market.faults.inject(&Fault::Price { provider: provider(), percent: 300 }).await.unwrap();
    market.faults.inject(&Fault::OffersLess { provider: provider() }).await.unwrap();
    market.faults.inject(&Fault::NoBids { provider: "provider2".to_owned() }).await.unwrap();
    market.lands(create(2, 20)).await;
    let view = market.until(2, "a bid", |view| !view.bids.is_empty()).await;
    let (before, after) = (price(&usual, 0).unwrap(), price(&view, 0).unwrap());
    assert!(before.1 && !after.1, "what is offered is less than what is asked for");
    assert!(
        (before.0 * 299 / 100..=before.0 * 301 / 100).contains(&after.0),
        "{before:?} {after:?}"
    );
    assert_eq!(price(&view, 1), None);
    // Cleared, it bids on what is open.
    market.faults.clear(Some("no-bids")).unwrap();
    market.until(2, "the other bid", |view| price(view, 1).is_some()).await;
}

#[tokio::test]
async fn the_least_deposit_is_what_governance_says_now() {
    let market = Market::open().await;
    market.lands(create(1, 2)).await;
    market.faults.inject(&Fault::MinDeposit { uact: 700_000 }).await.unwrap();
    let seen = |view: &ChainView| view.min_deposit == Uact(700_000);
    market.until_view(1, "the new deposit", seen).await;
    let error = market.client.sign(&create(2, 2)).await.unwrap_err();
    assert!(error.to_string().contains("500000 < 700000uact"), "{error}");
    market.faults.clear(Some("min-deposit")).unwrap();
    let seen = |view: &ChainView| view.min_deposit == Uact(500_000);
    market.until_view(1, "the usual deposit", seen).await;
    market.lands(create(2, 2)).await;
}

#[tokio::test]
async fn the_check_tells_how_an_endpoint_is() {
    let market = Market::open().await;
    let [(uri, Ok(good))] = &market.client.endpoints().await[..] else { panic!("it is well") };
    assert!(good.contains("node 2.1.0") && good.contains("deposits from 0.5act"), "{good}");
    assert_eq!(uri, &market.chain.url());
    market.faults.inject(&Fault::MinDeposit { uact: 700_000 }).await.unwrap();
    let told = async || {
        let found = market.client.endpoints().await.remove(0).1;
        found.is_ok_and(|good| good.contains("deposits from 0.7act"))
    };
    let waiting = async {
        while !told().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.expect("the new deposit is told");
}

#[tokio::test]
async fn the_socket_makes_lists_and_ends_faults() {
    let market = Market::open().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(SOCKET);
    std::fs::write(&path, "left by an earlier market").unwrap();
    serve_control(market.faults.clone(), &path, market.shutdown.clone()).unwrap();
    let say = async |request: Request| ask(&path, &request).await.unwrap();
    assert_eq!(say(Request::List).await, Answer::Listed(Vec::new()));
    let halt = say(Request::Inject(Fault::HaltChain)).await;
    assert_eq!(halt, Answer::Done("the chain stands still".to_owned()));
    let unready = Fault::LiesReady { provider: "provider2".to_owned() };
    say(Request::Inject(unready)).await;
    let Answer::Listed(lines) = say(Request::List).await else { panic!("a list") };
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("halt-chain: ") && lines[1].starts_with("lies-ready provider2: "));
    say(Request::Clear(Some("halt-chain".to_owned()))).await;
    let failed = say(Request::Clear(Some("halt-chain".to_owned()))).await;
    assert!(matches!(&failed, Answer::Failed(why) if why.contains("not in force")), "{failed:?}");
    let nobody = Fault::NoBids { provider: "provider9".to_owned() };
    let failed = say(Request::Inject(nobody)).await;
    let names = "there are provider1, provider2";
    assert!(matches!(&failed, Answer::Failed(why) if why.contains(names)), "{failed:?}");
    let none = Fault::CloseLease { dseq: 77, reason: CloseReason::Unstable };
    assert!(matches!(say(Request::Inject(none)).await, Answer::Failed(_)));
    say(Request::Clear(None)).await;
    assert_eq!(say(Request::List).await, Answer::Listed(Vec::new()));
    // Where the chain is somebody else's, nothing of it is changed.
    let foreign = MarketFaults { chain: None, ..market.faults.clone() };
    let refused = foreign.inject(&Fault::HaltChain).await.unwrap_err();
    assert!(refused.to_string().contains("runs elsewhere"), "{refused}");
}

/// A gateway that has the recorded deployment, with its manifest.
struct Gateway {
    world: Arc<World>,
    host: Arc<ProviderHost>,
    identity: Arc<Identity>,
    listed: Arc<Listed>,
    provider: akash_redis::model::chain::ProviderView,
    manifest: String,
    _guard: DropGuard,
}

async fn gateway() -> Gateway {
    let world = World::new();
    let manifest = records()["manifest-put-twice"]["request"]["body"].as_str().unwrap().to_owned();
    let hash = hash(&decode(manifest.as_bytes()).unwrap());
    world.deploy(OWNER, DSEQ, hash, vec![group(500)], true);
    let name = ProviderName { address: PROVIDER.into(), hostname: "provider.localtest".into() };
    let host = ProviderHost::with_faults(name, world.clone(), world.clone(), Arc::default());
    let own = certificate(PROVIDER);
    let listed = Listed::these(vec![own.der.clone()]);
    let identity = Identity::new(&own).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let provider = provider_at(listener.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    let (served, shown, until) = (host.clone(), identity.clone(), shutdown.clone());
    tokio::spawn(async move {
        serve_as(served, listener, shown, Arc::new(SystemTime::now), until).await
    });
    Gateway { world, host, identity, listed, provider, manifest, _guard: shutdown.drop_guard() }
}

#[tokio::test]
async fn a_gateway_with_another_certificate_gets_nothing_until_the_chain_lists_it() {
    let gateway = gateway().await;
    let client = client(gateway.listed.clone());
    client.put_manifest(&gateway.provider, &lease(), &gateway.manifest).await.unwrap();
    let other = certificate(PROVIDER);
    gateway.identity.change(&other).unwrap();
    assert!(gateway.identity.is_changed());
    let mut last = client.lease_status(&gateway.provider, &lease()).await;
    if !matches!(last, LeaseStatus::Away(_)) {
        // Over the connection of before, which ends with this answer.
        last = client.lease_status(&gateway.provider, &lease()).await;
    }
    assert!(matches!(&last, LeaseStatus::Away(why) if why.contains("does not prove")), "{last:?}");
    let put = client.put_manifest(&gateway.provider, &lease(), &gateway.manifest).await;
    assert!(matches!(put, Err(GatewayError::NotTheProvider { .. })), "{put:?}");
    gateway.listed.list(vec![other.der.clone()]);
    client.put_manifest(&gateway.provider, &lease(), &gateway.manifest).await.unwrap();
}

#[tokio::test]
async fn a_gateway_s_lies_are_what_its_tenant_hears() {
    let gateway = gateway().await;
    let client = client(gateway.listed.clone());
    let faults = gateway.host.faults();
    let heard = async || client.lease_status(&gateway.provider, &lease()).await;
    let put = async || client.put_manifest(&gateway.provider, &lease(), &gateway.manifest).await;

    faults.set(ProviderFault::NeverDeploys);
    put().await.unwrap();
    assert!(matches!(heard().await, LeaseStatus::NoManifest));
    faults.clear("never-deploys");

    faults.set(ProviderFault::LiesReady);
    put().await.unwrap();
    assert!(matches!(heard().await, LeaseStatus::Deployed { ready: 1, .. }));
    assert!(gateway.world.deployed.lock().unwrap().is_empty(), "and nothing runs");
    faults.clear("lies-ready");

    put().await.unwrap();
    assert_eq!(gateway.world.deployed.lock().unwrap().len(), 1);
    faults.set(ProviderFault::LiesGone);
    assert!(matches!(heard().await, LeaseStatus::NoManifest));
    faults.clear("lies-gone");

    for status in [404, 422, 500, 503] {
        faults.set(ProviderFault::GatewayStatus(status));
        let said = heard().await;
        assert!(
            matches!(said, LeaseStatus::NoManifest | LeaseStatus::Away(_)),
            "{status}: {said:?}"
        );
    }
    faults.clear("gateway-status");
    assert!(matches!(heard().await, LeaseStatus::Deployed { ready: 0, .. }), "it speaks again");
}
