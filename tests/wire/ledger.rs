//! The local chain against a recording of the real one: the same transactions at the same heights
//! give the same answers.

use std::collections::HashMap;
use std::fmt::Debug;

use akash_redis::devnet::account::{Account, Order, TxTerms, any};
use akash_redis::devnet::ledger::{
    Block, Genesis, GenesisAccount, Ledger, QueryError, TxError, View,
};
use akash_redis::wire::akash::base::attributes::v1::{Attribute, PlacementRequirements};
use akash_redis::wire::akash::base::deposit::v1::{Deposit, Source};
use akash_redis::wire::akash::cert::v1::{
    self as cert, MsgCreateCertificate, MsgRevokeCertificate,
};
use akash_redis::wire::akash::deployment::v1::{DeploymentId, DeploymentReclamation, GroupId};
use akash_redis::wire::akash::deployment::v1beta4 as dv;
use akash_redis::wire::akash::escrow::id::v1 as escrow_id;
use akash_redis::wire::akash::escrow::v1 as ev;
use akash_redis::wire::akash::market::v1::{BidId, LeaseId};
use akash_redis::wire::akash::market::v1beta5 as mv;
use akash_redis::wire::akash::provider::v1beta4 as pv;
use akash_redis::wire::cosmos::auth::v1beta1 as auth;
use akash_redis::wire::cosmos::bank::v1beta1 as bank;
use akash_redis::wire::cosmos::base::v1beta1::{Coin, DecCoin};
use akash_redis::wire::cosmos::tx::v1beta1::{
    BroadcastTxRequest, BroadcastTxResponse, GetTxResponse, SimulateRequest,
};
use akash_redis::wire::tendermint::abci::Event;
use prost::Message;
use prost_types::{Any, Duration};

const PHRASE: &str = "addict worth drip violin note olive final pelican perfect feel goat game horror brass fence deposit dutch \
                      improve setup stuff frost spirit smart alien";
/// The deployment that the recording follows through its life.
const DSEQ: u64 = 1_795_517_081;
/// One that runs dry.
const DRY: u64 = 1_795_517_091;
/// One whose lease is reclaimed.
const RECLAIMED: u64 = 1_795_517_092;
const SECOND: u64 = 1_000_000_000;

#[derive(serde::Deserialize)]
struct Case {
    #[serde(rename = "case")]
    name: String,
    request: String,
    response: Option<String>,
    grpc_code: Option<i32>,
    grpc_message: Option<String>,
}

struct Replay {
    ledger: Ledger,
    cases: HashMap<String, Case>,
    owner: Account,
    providers: Vec<Account>,
    sequence: u64,
    nonce: u64,
}

fn recorded() -> HashMap<String, Case> {
    let lines = include_str!("../vectors/akash-wire.jsonl").lines();
    let case = |line: &str| serde_json::from_str::<Case>(line).expect("a recorded case");
    lines.map(case).map(|case| (case.name.clone(), case)).collect()
}

impl Replay {
    /// The chain as it was before the first recorded transaction.
    fn new() -> Self {
        let owner = Account::from_mnemonic(PHRASE, 0).unwrap();
        let providers: Vec<_> =
            (3..6).map(|index| Account::from_mnemonic(PHRASE, index).unwrap()).collect();
        let mut accounts = vec![GenesisAccount {
            address: owner.address().into(),
            uakt: 999_997_360_122,
            uact: 999_977_471_950,
            sequence: 107,
            key: Some(owner.public_key()),
        }];
        let rich = |account: &Account| GenesisAccount {
            address: account.address().into(),
            uakt: 1_000_000_000,
            uact: 0,
            sequence: 0,
            key: None,
        };
        accounts.extend(providers.iter().map(rich));
        let mut genesis = Genesis::with_accounts(Vec::new(), 0);
        genesis.accounts = accounts;
        genesis.params.reclamation_window = (5, 2_592_000);
        genesis.block = Block { height: 1075, time_ns: 1_795_517_079 * SECOND };
        let ledger = Ledger::new(genesis);
        let mut replay =
            Self { ledger, cases: recorded(), owner, providers, sequence: 107, nonce: 0 };
        replay.register();
        replay
    }

    /// Providers as they were registered; the providers' block is the one the recording starts at.
    fn register(&mut self) {
        let attribute = |key: &str, value: &str| Attribute { key: key.into(), value: value.into() };
        for (at, name) in [(0, "p1"), (1, "p2"), (2, "p3")] {
            let provider = self.providers[at].clone();
            let msg = pv::MsgCreateProvider {
                owner: provider.address().into(),
                host_uri: format!("https://provider{}.local.test:8443", at + 1),
                attributes: vec![attribute("region", "us-west"), attribute("host", name)],
                info: Some(pv::Info { email: "a@b.test".into(), website: String::new() }),
            };
            self.unordered(&provider, &any(&msg));
        }
        self.block(1_795_517_080_458_771_939);
        assert_eq!(self.height(), 1076);
    }

    fn height(&self) -> u64 {
        self.ledger.view().block().height
    }

    fn block(&mut self, time_ns: u64) {
        self.ledger.advance(time_ns);
    }

    /// Blocks of half a second until this height.
    fn until(&mut self, height: u64) {
        while self.height() < height {
            self.block(self.ledger.view().block().time_ns + SECOND / 2);
        }
    }

    fn terms(order: Order, account_number: u64) -> TxTerms<'static> {
        TxTerms { chain_id: "akash-local", account_number, order, gas: 400_000, fee: 10_000 }
    }

    fn unordered(&mut self, who: &Account, msg: &Any) {
        self.nonce += 1;
        let number = self.ledger.view().account_info(who.address()).unwrap().account_number;
        let until = self.ledger.view().block().time_ns + 30 * SECOND + self.nonce;
        let tx = who.sign_tx(vec![msg.clone()], &Self::terms(Order::Until(until), number));
        self.ledger.submit(&tx).unwrap();
    }

    /// The owner's next ordered transaction; gives its hash.
    fn ordered(&mut self, msg: &Any) -> String {
        let tx =
            self.owner.sign_tx(vec![msg.clone()], &Self::terms(Order::Sequence(self.sequence), 0));
        self.sequence += 1;
        self.ledger.submit(&tx).unwrap();
        akash_redis::devnet::ledger::hash_of(&tx)
    }

    fn case(&self, case: &str) -> &Case {
        self.cases.get(case).unwrap_or_else(|| panic!("no recorded case {case}"))
    }

    fn request<T: Message + Default>(&self, case: &str) -> T {
        T::decode(hex::decode(&self.case(case).request).unwrap().as_slice()).unwrap()
    }

    fn response<T: Message + Default>(&self, case: &str) -> T {
        T::decode(hex::decode(self.case(case).response.as_ref().unwrap()).unwrap().as_slice())
            .unwrap()
    }

    /// Asks what was asked then: the answer must be the same, or the refusal.
    fn same<Q, A>(&self, case: &str, ask: impl FnOnce(&View, Q) -> Result<A, QueryError>)
    where
        Q: Message + Default,
        A: Message + Default + PartialEq + Debug,
    {
        match ask(self.ledger.view(), self.request(case)) {
            Ok(answer) => assert_eq!(answer, self.response::<A>(case), "{case}"),
            Err(error) => {
                let recorded = self.case(case);
                assert_eq!(Some(if error.not_found { 5 } else { 3 }), recorded.grpc_code, "{case}");
                assert_eq!(Some(error.text), recorded.grpc_message, "{case}");
            }
        }
    }

    /// Broadcasts the very bytes that were broadcast then.
    fn same_broadcast(&mut self, case: &str) {
        let tx = self.request::<BroadcastTxRequest>(case).tx_bytes;
        let recorded = self.response::<BroadcastTxResponse>(case).tx_response.unwrap();
        let taken = self.ledger.submit(&tx);
        assert_eq!(akash_redis::devnet::ledger::hash_of(&tx), recorded.txhash, "{case}");
        assert_eq!(
            said(taken.as_ref().err()),
            (recorded.codespace, recorded.code, text(&recorded.raw_log)),
            "{case}"
        );
    }

    /// Compares what became of a transaction with what became of the recorded one.
    fn same_outcome(&self, case: &str, hash: &str) {
        let recorded = self.response::<GetTxResponse>(case).tx_response.unwrap();
        let record = self.ledger.tx(hash).unwrap_or_else(|| panic!("{case}: not in a block"));
        assert_eq!(record.block.height, u64::try_from(recorded.height).unwrap(), "{case}");
        assert_eq!(
            said(record.error.as_ref()),
            (recorded.codespace, recorded.code, text(&recorded.raw_log)),
            "{case}"
        );
        assert_eq!(hex::encode_upper(&record.data), recorded.data, "{case}");
        let gas = record.gas_used.abs_diff(u64::try_from(recorded.gas_used).unwrap());
        assert!(gas < 12_000, "{case}: gas {} against {}", record.gas_used, recorded.gas_used);
        let is_fee = |event: &Event| event.attributes.iter().any(|a| a.key == "fee_payer");
        for event in recorded.events.iter().filter(|e| e.r#type.starts_with("akash.") || is_fee(e))
        {
            let ours = record.events.iter().find(|ours| ours.r#type == event.r#type);
            let mut ours = ours
                .unwrap_or_else(|| panic!("{case}: no event {}", event.r#type))
                .attributes
                .clone();
            let mut theirs = event.attributes.clone();
            ours.sort_by(|a, b| a.key.cmp(&b.key));
            theirs.sort_by(|a, b| a.key.cmp(&b.key));
            assert_eq!(ours, theirs, "{case}: {}", event.r#type);
        }
    }

    fn bid_id(&self, dseq: u64, provider: usize) -> BidId {
        BidId {
            owner: self.owner.address().into(),
            dseq,
            gseq: 1,
            oseq: 1,
            provider: self.providers[provider].address().into(),
            bseq: 0,
        }
    }

    fn lease_id(&self, dseq: u64, provider: usize) -> LeaseId {
        let BidId { owner, dseq, gseq, oseq, provider, bseq } = self.bid_id(dseq, provider);
        LeaseId { owner, dseq, gseq, oseq, provider, bseq }
    }

    fn bid(&mut self, dseq: u64, provider: usize, price: &str, window: Option<i64>) {
        let orders = mv::QueryOrdersRequest {
            filters: Some(mv::OrderFilters { dseq, ..mv::OrderFilters::default() }),
            pagination: None,
        };
        let spec =
            self.ledger.view().query_orders(&orders).unwrap().orders[0].spec.clone().unwrap();
        let offer = |unit: &dv::ResourceUnit| mv::ResourceOffer {
            resources: unit.resource.clone(),
            count: unit.count,
            prices: None,
        };
        let msg = mv::MsgCreateBid {
            id: Some(self.bid_id(dseq, provider)),
            price: Some(DecCoin { denom: "uact".into(), amount: price.into() }),
            deposit: Some(deposit("uakt", 500_000)),
            resources_offer: spec.resources.iter().map(offer).collect(),
            reclamation_window: window.map(|seconds| Duration { seconds, nanos: 0 }),
        };
        let who = self.providers[provider].clone();
        self.unordered(&who, &any(&msg));
    }
}

fn deposit(denom: &str, amount: u64) -> Deposit {
    let amount = Some(Coin { denom: denom.into(), amount: amount.to_string() });
    Deposit { amount, sources: vec![Source::Balance.into()] }
}

fn text(log: &[u8]) -> String {
    String::from_utf8_lossy(log).into_owned()
}

fn said(error: Option<&TxError>) -> (String, u32, String) {
    error.map_or_else(Default::default, |error| {
        (error.codespace.to_owned(), error.code, text(&error.log))
    })
}

#[test]
fn questions_about_the_chain_and_its_accounts_are_answered_alike() {
    let mut replay = Replay::new();
    replay.same("deployment Params", |view, _: dv::QueryParamsRequest| {
        Ok(dv::QueryParamsResponse { params: Some(view.deployment_params()) })
    });
    replay.same("market Params", |view, _: mv::QueryParamsRequest| {
        Ok(mv::QueryParamsResponse { params: Some(view.market_params()) })
    });
    let balance = |view: &View, asked: bank::QueryBalanceRequest| {
        let amount = view.balance(&asked.address, &asked.denom).to_string();
        Ok(bank::QueryBalanceResponse { balance: Some(Coin { denom: asked.denom, amount }) })
    };
    replay.same("Balance uact", balance);
    replay.same("Balance of an unknown denom", balance);
    let account = |view: &View, asked: auth::QueryAccountInfoRequest| {
        Ok(auth::QueryAccountInfoResponse { info: Some(view.account_info(&asked.address)?) })
    };
    replay.same("AccountInfo", account);
    replay.same("AccountInfo of an unknown account", account);
    let provider = |view: &View, asked: pv::QueryProviderRequest| {
        Ok(pv::QueryProviderResponse { provider: Some(view.query_provider(&asked.owner)?) })
    };
    replay.same("Provider", provider);
    replay.same("Provider not found", provider);
    replay.same("Deployment not found", |view, asked: dv::QueryDeploymentRequest| {
        view.query_deployment(&asked.id.unwrap())
    });
    replay.same("Lease not found", |view, asked: mv::QueryLeaseRequest| {
        view.query_lease(&asked.id.unwrap())
    });
    replay.same("Bid not found", |view, asked: mv::QueryBidRequest| {
        view.query_bid(&asked.id.unwrap())
    });
    replay.same("Order not found", |view, asked: mv::QueryOrderRequest| {
        Ok(mv::QueryOrderResponse { order: Some(view.query_order(&asked.id.unwrap())?) })
    });
    replay.same("Leases unknown state", |view, asked: mv::QueryLeasesRequest| {
        view.query_leases(&asked)
    });
    replay.same("Deployments offset without state", |view, asked: dv::QueryDeploymentsRequest| {
        view.query_deployments(&asked)
    });

    // The certificate of the recording, published and revoked.
    let list = |view: &View, asked: cert::QueryCertificatesRequest| view.query_certificates(&asked);
    let recorded: cert::QueryCertificatesResponse = replay.response("Certificates of one owner");
    let cert::CertificateResponse { certificate, serial } = recorded.certificates[0].clone();
    let (owner, certificate) = (replay.owner.clone(), certificate.unwrap());
    let create = MsgCreateCertificate {
        owner: owner.address().into(),
        cert: certificate.cert,
        pubkey: certificate.pubkey,
    };
    replay.unordered(&owner, &any(&create));
    replay.until(1077);
    replay.same("Certificates of one owner", list);
    replay.unordered(
        &owner,
        &any(&MsgRevokeCertificate {
            id: Some(cert::Id { owner: owner.address().into(), serial }),
        }),
    );
    replay.until(1078);
    replay.same("Certificates revoked, filter valid (empty)", list);
}

#[test]
fn the_recorded_life_of_a_deployment_plays_again() {
    let mut replay = Replay::new();
    admission(&mut replay);
    bids_and_lease(&mut replay);
    closes(&mut replay);
}

/// Heights 1076 to 1079: what gets in.
fn admission(replay: &mut Replay) {
    let create = "BroadcastTx create deployment, accepted";
    let simulated =
        replay.request::<SimulateRequest>("Simulate create deployment (ordered, empty signature)");
    let gas = replay.ledger.simulate(&simulated.tx_bytes).unwrap().gas_used;
    assert!(gas.abs_diff(123_980) < 12_000, "{gas}");
    for case in ["Simulate wrong sequence", "Simulate deposit too low"] {
        let (error, _) =
            replay.ledger.simulate(&replay.request::<SimulateRequest>(case).tx_bytes).unwrap_err();
        let recorded = replay.case(case).grpc_message.clone().unwrap();
        assert!(recorded.starts_with(&text(&error.log)), "{case}: {}", text(&error.log));
    }
    let msg = simulated_message(replay);
    replay.same_broadcast(create);
    replay.same_broadcast("BroadcastTx same bytes again (already in cache)");
    replay.sequence += 1;
    replay.block(1_795_517_080_980_000_000);
    let hash = replay.response::<BroadcastTxResponse>(create).tx_response.unwrap().txhash;
    replay.same_outcome("GetTx create deployment, included", &hash);
    let deployment =
        |view: &View, asked: dv::QueryDeploymentRequest| view.query_deployment(&asked.id.unwrap());
    replay.same("Deployment just created", deployment);
    replay.same("Orders one open order", |view, asked: mv::QueryOrdersRequest| {
        view.query_orders(&asked)
    });
    replay.same("Bids none yet", |view, asked: mv::QueryBidsRequest| view.query_bids(&asked));
    replay.same("Leases none yet", |view, asked: mv::QueryLeasesRequest| view.query_leases(&asked));

    for case in [
        "BroadcastTx wrong sequence",
        "BroadcastTx fee too low",
        "BroadcastTx deposit denom differs from price",
        "BroadcastTx bad signature",
    ] {
        replay.same_broadcast(case);
    }
    let again = replay.ordered(&msg);
    replay.block(1_795_517_081_500_000_000);
    replay.same_outcome("GetTx failed tx (deployment exists)", &again);
    replay.same_broadcast("BroadcastTx unordered, accepted");
    replay.block(1_795_517_082_021_353_552);
    for case in [
        "BroadcastTx unordered, timestamp used before",
        "BroadcastTx unordered, timestamp in the past",
        "BroadcastTx unordered, more than 10 min ahead",
    ] {
        replay.same_broadcast(case);
    }
}

/// The message of the recorded create.
fn simulated_message(replay: &Replay) -> Any {
    use akash_redis::wire::cosmos::tx::v1beta1::{TxBody, TxRaw};
    let bytes =
        replay.request::<BroadcastTxRequest>("BroadcastTx create deployment, accepted").tx_bytes;
    let raw = TxRaw::decode(bytes.as_slice()).unwrap();
    TxBody::decode(raw.body_bytes.as_slice()).unwrap().messages.remove(0)
}

/// Heights 1080 to 1084.
fn bids_and_lease(replay: &mut Replay) {
    for (provider, price) in
        [(0, "500000000000000000000"), (1, "600500000000000000000"), (2, "700000000000000000000")]
    {
        replay.bid(DSEQ, provider, price, None);
        replay.until(replay.height() + 1);
    }
    assert_eq!(replay.height(), 1082);
    let bids = |view: &View, asked: mv::QueryBidsRequest| view.query_bids(&asked);
    replay.same("Bids three open", bids);
    replay.same("Bid", |view, asked: mv::QueryBidRequest| view.query_bid(&asked.id.unwrap()));
    replay.same_broadcast("BroadcastTx create lease");
    replay.sequence += 1;
    replay.until(1083);
    let hash = replay
        .response::<BroadcastTxResponse>("BroadcastTx create lease")
        .tx_response
        .unwrap()
        .txhash;
    replay.same_outcome("GetTx create lease", &hash);
    replay.same("Bids after the lease (active, lost, one left open)", bids);
    replay
        .same("Leases one active", |view, asked: mv::QueryLeasesRequest| view.query_leases(&asked));
    replay.same("Lease active", |view, asked: mv::QueryLeaseRequest| {
        view.query_lease(&asked.id.unwrap())
    });
    let lost = any(&mv::MsgCreateLease { bid_id: Some(replay.bid_id(DSEQ, 2)) });
    let hash = replay.ordered(&lost);
    replay.until(1084);
    replay.same_outcome("GetTx create lease on a lost bid (failed)", &hash);
}

/// Heights 1085 to 1089: a reserve is paid in, the provider takes its money and closes, the group
/// starts again, all is closed.
fn closes(replay: &mut Replay) {
    let deployment =
        |view: &View, asked: dv::QueryDeploymentRequest| view.query_deployment(&asked.id.unwrap());
    let owner = replay.owner.address().to_owned();
    let xid = format!("{owner}/{DSEQ}");
    let id = Some(escrow_id::Account { scope: escrow_id::Scope::Deployment.into(), xid });
    replay.ordered(&any(&ev::MsgAccountDeposit {
        signer: owner.clone(),
        id,
        deposit: Some(deposit("uakt", 700_000)),
    }));
    replay.until(1085);
    let provider = replay.providers[0].clone();
    let withdraw = any(&mv::MsgWithdrawLease { id: Some(replay.lease_id(DSEQ, 0)) });
    replay.unordered(&provider, &withdraw);
    replay.until(1086);
    replay.same("escrow Accounts of one deployment", |view, asked: ev::QueryAccountsRequest| {
        view.query_accounts(&asked)
    });
    replay.same("escrow Payments of one deployment", |view, asked: ev::QueryPaymentsRequest| {
        view.query_payments(&asked)
    });
    replay.same("escrow Accounts without scope in xid", |view, asked: ev::QueryAccountsRequest| {
        view.query_accounts(&asked)
    });
    let close = any(&mv::MsgCloseBid { id: Some(replay.bid_id(DSEQ, 0)), reason: 10_000 });
    replay.unordered(&provider, &close);
    replay.until(1087);
    replay.same("Deployment after the provider closed (group paused)", deployment);
    replay.same(
        "Leases after the provider closed (reason unstable)",
        |view, asked: mv::QueryLeasesRequest| view.query_leases(&asked),
    );
    let start =
        any(&dv::MsgStartGroup { id: Some(GroupId { owner: owner.clone(), dseq: DSEQ, gseq: 1 }) });
    let hash = replay.ordered(&start);
    replay.until(1088);
    replay.same_outcome("GetTx start group", &hash);
    replay
        .same("Orders after start group (closed, open)", |view, asked: mv::QueryOrdersRequest| {
            view.query_orders(&asked)
        });
    replay.ordered(&any(&dv::MsgCloseDeployment { id: Some(DeploymentId { owner, dseq: DSEQ }) }));
    replay.until(1089);
    replay.same("Deployment closed", deployment);
}

fn create(replay: &mut Replay, dseq: u64, price: &str, amount: u64, window: Option<i64>) {
    let mut msg =
        dv::MsgCreateDeployment::decode(simulated_message(replay).value.as_slice()).unwrap();
    msg.id = Some(DeploymentId { owner: replay.owner.address().into(), dseq });
    msg.groups[0].resources[0].price = Some(DecCoin { denom: "uact".into(), amount: price.into() });
    msg.groups[0].requirements.get_or_insert_with(PlacementRequirements::default);
    msg.deposit = Some(deposit("uact", amount));
    msg.reclamation = window
        .map(|seconds| DeploymentReclamation { min_window: Some(Duration { seconds, nanos: 0 }) });
    replay.ordered(&any(&msg));
}

#[test]
fn a_dry_deployment_looks_alike() {
    let mut replay = Replay::new();
    let price = "100000000000000000000000";
    replay.until(1089);
    create(&mut replay, DRY, price, 500_000, None);
    replay.until(1090);
    replay.bid(DRY, 0, price, None);
    replay.until(1091);
    let lease = any(&mv::MsgCreateLease { bid_id: Some(replay.bid_id(DRY, 0)) });
    replay.ordered(&lease);
    replay.until(1101);
    let provider = replay.providers[0].clone();
    let withdraw = any(&mv::MsgWithdrawLease { id: Some(replay.lease_id(DRY, 0)) });
    replay.unordered(&provider, &withdraw);
    replay.until(1102);
    replay.same("Deployment overdrawn", |view, asked: dv::QueryDeploymentRequest| {
        view.query_deployment(&asked.id.unwrap())
    });
    replay.same("Leases insufficient_funds", |view, asked: mv::QueryLeasesRequest| {
        view.query_leases(&asked)
    });
}

#[test]
fn a_reclaimed_lease_looks_alike() {
    let mut replay = Replay::new();
    let recorded: dv::QueryDeploymentResponse = replay.response("Deployment with reclamation");
    let created_at = u64::try_from(recorded.deployment.as_ref().unwrap().created_at).unwrap();
    let window =
        recorded.deployment.as_ref().unwrap().reclamation.unwrap().min_window.unwrap().seconds;
    let price =
        recorded.groups[0].group_spec.as_ref().unwrap().resources[0].price.clone().unwrap().amount;
    replay.until(created_at - 1);
    create(&mut replay, RECLAIMED, &price, 5_000_000, Some(window));
    replay.until(created_at);
    replay.bid(RECLAIMED, 0, "500000000000000000000", Some(10));
    replay.until(1107);
    let lease = any(&mv::MsgCreateLease { bid_id: Some(replay.bid_id(RECLAIMED, 0)) });
    replay.ordered(&lease);
    replay.until(1108);
    let provider = replay.providers[0].clone();
    let close = any(&mv::MsgCloseBid { id: Some(replay.bid_id(RECLAIMED, 0)), reason: 10_001 });
    replay.unordered(&provider, &close);
    let reclaim =
        any(&mv::MsgLeaseStartReclaim { id: Some(replay.lease_id(RECLAIMED, 0)), reason: 10_001 });
    replay.unordered(&provider, &reclaim);
    replay.block(1_795_517_097_100_000_000);
    replay
        .same("Leases reclaiming", |view, asked: mv::QueryLeasesRequest| view.query_leases(&asked));
    replay.same("Deployment with reclamation", |view, asked: dv::QueryDeploymentRequest| {
        view.query_deployment(&asked.id.unwrap())
    });
}

#[test]
fn lists_come_in_pages_to_the_end() {
    let mut replay = Replay::new();
    for dseq in 1..=5 {
        create(&mut replay, dseq, "1000000000000000000000", 500_000, None);
    }
    replay.until(1077);
    let mut request: dv::QueryDeploymentsRequest = replay.request("Deployments page 1, limit 2");
    let mut seen = Vec::new();
    loop {
        let answer = replay.ledger.view().query_deployments(&request).unwrap();
        assert!(answer.deployments.len() <= 2);
        assert_eq!(answer.pagination.as_ref().unwrap().total, answer.deployments.len() as u64);
        seen.extend(
            answer
                .deployments
                .iter()
                .map(|row| row.deployment.as_ref().unwrap().id.as_ref().unwrap().dseq),
        );
        let next = answer.pagination.unwrap().next_key;
        if next.is_empty() {
            break;
        }
        request.pagination.as_mut().unwrap().key = next;
    }
    assert_eq!(seen, [1, 2, 3, 4, 5]);
}
