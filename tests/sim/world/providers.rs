//! The providers of a simulation on the chain: they bid on open orders, take bids back and close
//! leases, with signed bytes.

use std::sync::LazyLock;

use akash_redis::devnet::account::{Account, Order, TxTerms, any};
use akash_redis::devnet::ledger::{ONE, UACT, UAKT, View};
use akash_redis::devnet::provider::price::{offer, smaller_offer};
use akash_redis::model::ids::LeaseId;
use akash_redis::wire::akash::base::attributes::v1::Attribute;
use akash_redis::wire::akash::base::deposit::v1::{Deposit, Source};
use akash_redis::wire::akash::deployment::v1beta4::GroupSpec;
use akash_redis::wire::akash::escrow::id::v1::{Account as EscrowId, Scope};
use akash_redis::wire::akash::escrow::v1::MsgAccountDeposit;
use akash_redis::wire::akash::market::v1::lease::State as LeaseState;
use akash_redis::wire::akash::market::v1::{
    BidId, Lease, LeaseClosedReason, LeaseId as MarketLeaseId, OrderId,
};
use akash_redis::wire::akash::market::v1beta5::order::State as OrderState;
use akash_redis::wire::akash::market::v1beta5::{
    MsgCloseBid, MsgCreateBid, MsgLeaseStartReclaim, MsgWithdrawLease, Order as MarketOrder,
};
use akash_redis::wire::akash::provider::v1beta4::MsgCreateProvider;
use akash_redis::wire::cosmos::base::v1beta1::{Coin, DecCoin};
use prost_types::Any;

/// Accounts of all providers there can be.
pub static ALL: LazyLock<Vec<Account>> =
    LazyLock::new(|| (0..8).map(|n| Account::from_bytes(&[100 + n; 32]).unwrap()).collect());

/// Enough for a block's worth of messages.
const GAS: u64 = 20_000_000;
/// What that costs, in uakt.
const FEE: u64 = GAS / 40;
/// Life of a provider's transaction, nanoseconds.
const LIFE_NANOS: u64 = 60_000_000_000;

/// A provider as its owner runs it.
pub struct Provider {
    account: &'static Account,
    /// Asked for each node, in whole uact per block.
    pub price: u128,
    /// It does not bid.
    pub silent: bool,
    /// It offers less than is ordered.
    pub offers_less: bool,
    /// Notice that its bids promise before it closes a lease, seconds.
    pub notice: Option<i64>,
}

impl Provider {
    /// Each one is dearer than the one before.
    pub fn new(index: u32) -> Self {
        Self {
            account: &ALL[index as usize],
            price: u128::from(3 + index),
            silent: false,
            offers_less: false,
            notice: None,
        }
    }

    pub fn address(&self) -> &str {
        self.account.address()
    }

    /// Bids on every open order that has none of it and pays its price, in one transaction; `None`
    /// when there are none.
    pub fn bids(&self, view: &View, signed: &mut u64) -> Option<Vec<u8>> {
        if self.silent {
            return None;
        }
        let orders = view.orders().filter(|o| o.state() == OrderState::Open);
        let bids: Vec<_> = orders.filter_map(|order| self.bid(view, order)).collect();
        (!bids.is_empty()).then(|| sign(view, self.account, bids, signed))
    }

    fn bid(&self, view: &View, order: &MarketOrder) -> Option<Any> {
        let (OrderId { owner, dseq, gseq, oseq }, spec) = (order.id.clone()?, order.spec.as_ref()?);
        let id = BidId { owner, dseq, gseq, oseq, provider: self.address().to_owned(), bseq: 0 };
        let price = self.price * ONE.unsigned_abs();
        if price > limit(spec) || view.query_bid(&id).is_ok() {
            return None;
        }
        let deposit = Coin { denom: UAKT.to_owned(), amount: "500000".to_owned() };
        Some(any(&MsgCreateBid {
            id: Some(id),
            price: Some(DecCoin { denom: UACT.to_owned(), amount: price.to_string() }),
            deposit: Some(Deposit { amount: Some(deposit), sources: vec![Source::Balance.into()] }),
            resources_offer: if self.offers_less { smaller_offer(spec) } else { offer(spec) },
            reclamation_window: self
                .notice
                .map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        }))
    }
}

/// What a bid asks per block, in uact times 10^18.
pub fn price_of(view: &View, bid: &LeaseId) -> u128 {
    let bid = view.query_bid(&bid_id(bid)).ok().and_then(|answer| answer.bid?.price);
    bid.map_or(0, |price| price.amount.parse().unwrap())
}

fn bid_id(of: &LeaseId) -> BidId {
    let LeaseId { owner, dseq, gseq, oseq, provider } = of.clone();
    BidId { owner, dseq, gseq, oseq, provider, bseq: 0 }
}

/// The most an order pays.
fn limit(spec: &GroupSpec) -> u128 {
    spec.resources.iter().filter_map(|unit| unit.price.as_ref()?.amount.parse::<u128>().ok()).sum()
}

/// The transaction by which a provider registers.
pub fn registration(view: &View, provider: &Provider) -> Vec<u8> {
    let attribute =
        |key: &str, value: &str| Attribute { key: key.to_owned(), value: value.to_owned() };
    let attributes = vec![
        attribute("region", &format!("region-{}", provider.price)),
        attribute("capabilities/storage/1/class", "beta3"),
        attribute("capabilities/storage/1/persistent", "true"),
    ];
    let (owner, host_uri) =
        (provider.address().to_owned(), "https://provider.test:8443".to_owned());
    sign(
        view,
        provider.account,
        vec![any(&MsgCreateProvider { owner, host_uri, attributes, info: None })],
        &mut 0,
    )
}

/// Whether a lease runs and is paid.
pub fn runs(lease: &Lease) -> bool {
    matches!(lease.state(), LeaseState::Active | LeaseState::Reclaiming)
}

/// The transaction by which a provider closes its lease of a deployment: it is unstable.
pub fn end_lease(view: &View, dseq: u64, signed: &mut u64) -> Option<Vec<u8>> {
    let of = |l: &&Lease| runs(l) && l.id.as_ref().is_some_and(|id| id.dseq == dseq);
    let id = view.leases().find(of)?.id.clone()?;
    let lease =
        LeaseId { owner: id.owner, dseq, gseq: id.gseq, oseq: id.oseq, provider: id.provider };
    Some(close_bid(view, &lease, LeaseClosedReason::Unstable, signed))
}

/// The transaction by which a provider takes out what its lease of a deployment earned, which shows
/// whether the escrow is dry.
pub fn withdraw(view: &View, dseq: u64, signed: &mut u64) -> Option<Vec<u8>> {
    let lease = view.leases().find(|l| {
        l.state() == LeaseState::Active && l.id.as_ref().is_some_and(|id| id.dseq == dseq)
    })?;
    let id = lease.id.clone()?;
    let account = ALL.iter().find(|p| p.address() == id.provider)?;
    Some(sign(view, account, vec![any(&MsgWithdrawLease { id: Some(id) })], signed))
}

/// The transaction by which a provider pays into the escrow of a deployment, if it can.
pub fn deposit(
    view: &View,
    owner: &str,
    dseq: u64,
    uact: u64,
    signed: &mut u64,
) -> Option<Vec<u8>> {
    let rich = |p: &&Account| view.balance(p.address(), UACT) >= u128::from(uact);
    let account = ALL.iter().find(rich)?;
    let amount = Coin { denom: UACT.to_owned(), amount: uact.to_string() };
    let message = MsgAccountDeposit {
        signer: account.address().to_owned(),
        id: Some(EscrowId { scope: Scope::Deployment.into(), xid: format!("{owner}/{dseq}") }),
        deposit: Some(Deposit { amount: Some(amount), sources: vec![Source::Balance.into()] }),
    };
    Some(sign(view, account, vec![any(&message)], signed))
}

/// The transaction by which a provider announces that it will close its lease of a deployment.
pub fn start_reclaim(view: &View, dseq: u64, signed: &mut u64) -> Option<Vec<u8>> {
    let of = |l: &&Lease| runs(l) && l.id.as_ref().is_some_and(|id| id.dseq == dseq);
    let id = view.leases().find(of)?.id.clone()?;
    let account = ALL.iter().find(|p| p.address() == id.provider).expect("one of ours");
    let reason = LeaseClosedReason::Decommission.into();
    let message = any(&MsgLeaseStartReclaim { id: Some(id), reason });
    Some(sign(view, account, vec![message], signed))
}

/// The transactions by which providers close the leases whose notice has passed.
pub fn close_reclaimed(view: &View, signed: &mut u64) -> Vec<Vec<u8>> {
    let now = i64::try_from(view.block().time_ns / 1_000_000_000).unwrap();
    let over = |l: &&Lease| {
        l.state() == LeaseState::Reclaiming
            && l.reclamation.as_ref().is_some_and(|reclamation| reclamation.deadline <= now)
    };
    let leases = view.leases().filter(over).filter_map(|l| l.id.clone());
    leases
        .map(|id| {
            let MarketLeaseId { owner, dseq, gseq, oseq, provider, .. } = id;
            let lease = LeaseId { owner, dseq, gseq, oseq, provider };
            close_bid(view, &lease, LeaseClosedReason::Decommission, signed)
        })
        .collect()
}

/// The transactions by which all providers take what they earned: only then the chain sees that an
/// escrow ran dry.
pub fn withdrawals(view: &View, signed: &mut u64) -> Vec<Vec<u8>> {
    let leases: Vec<_> = view.leases().filter(|l| runs(l)).filter_map(|l| l.id.clone()).collect();
    let of = |account: &'static Account| {
        let own = leases.iter().filter(|id| id.provider == account.address());
        own.map(|id| any(&MsgWithdrawLease { id: Some(id.clone()) })).collect::<Vec<_>>()
    };
    let all = ALL.iter().map(|account| (account, of(account)));
    let some: Vec<_> = all.filter(|(_, messages)| !messages.is_empty()).collect();
    some.into_iter().map(|(account, messages)| sign(view, account, messages, signed)).collect()
}

/// The transaction by which a provider takes an open bid back.
pub fn take_back(view: &View, bid: &LeaseId, signed: &mut u64) -> Vec<u8> {
    close_bid(view, bid, LeaseClosedReason::Unspecified, signed)
}

fn close_bid(view: &View, of: &LeaseId, reason: LeaseClosedReason, signed: &mut u64) -> Vec<u8> {
    let account = ALL.iter().find(|p| p.address() == of.provider).expect("one of ours");
    sign(
        view,
        account,
        vec![any(&MsgCloseBid { id: Some(bid_id(of)), reason: reason.into() })],
        signed,
    )
}

fn sign(view: &View, who: &Account, messages: Vec<Any>, signed: &mut u64) -> Vec<u8> {
    *signed += 1;
    let account_number = view.account_info(who.address()).unwrap().account_number;
    let order = Order::Until(view.block().time_ns + LIFE_NANOS + *signed);
    let chain_id = &view.genesis().chain_id;
    who.sign_tx(messages, &TxTerms { chain_id, account_number, order, gas: GAS, fee: FEE })
}
