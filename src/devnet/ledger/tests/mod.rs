//! Promises of the ledger.

mod admission;
mod conservation;
mod grants;
mod lifecycle;
mod money;
mod states;

use std::sync::Arc;

use prost_types::Any;

use super::{Genesis, Ledger, TxRecord, UACT, UAKT};
use crate::devnet::account::{Account, Order, TxTerms, any};
use crate::wire::akash::base::attributes::v1::{Attribute, PlacementRequirements};
use crate::wire::akash::base::deposit::v1::{Deposit, Source};
use crate::wire::akash::base::resources::v1beta4::{
    Cpu, Gpu, Memory, ResourceValue, Resources, Storage,
};
use crate::wire::akash::deployment::v1::{Deployment, DeploymentId, GroupId};
use crate::wire::akash::deployment::v1beta4::{
    Group, GroupSpec, MsgCloseDeployment, MsgCreateDeployment, MsgStartGroup, ResourceUnit,
};
use crate::wire::akash::escrow::id::v1 as escrow_id;
use crate::wire::akash::escrow::types::v1::{Account as EscrowAccount, AccountState};
use crate::wire::akash::escrow::v1::MsgAccountDeposit;
use crate::wire::akash::market::v1::{BidId, Lease, LeaseId};
use crate::wire::akash::market::v1beta5::bid::State as BidState;
use crate::wire::akash::market::v1beta5::{
    MsgCloseBid, MsgCloseLease, MsgCreateBid, MsgCreateLease, MsgWithdrawLease,
};
use crate::wire::akash::provider::v1beta4::MsgCreateProvider;
use crate::wire::cosmos::base::v1beta1::{Coin, DecCoin};

pub(super) const START_NS: u64 = 1_795_517_080_000_000_000;
pub(super) const BLOCK_NS: u64 = 500_000_000;
pub(super) const RICH: u128 = 1_000_000_000_000;

/// A tenant and some providers on a chain of their own.
pub(super) struct Market {
    pub(super) ledger: Ledger,
    pub(super) tenant: Account,
    pub(super) providers: Vec<Account>,
    nonce: u64,
}

pub(super) fn key(n: u8) -> Account {
    Account::from_bytes(&[n; 32]).unwrap()
}

pub(super) fn uact(amount: u128) -> DecCoin {
    DecCoin { denom: UACT.into(), amount: (amount * 1_000_000_000_000_000_000).to_string() }
}

pub(super) fn deposit(denom: &str, amount: u128) -> Deposit {
    let amount = Some(Coin { denom: denom.into(), amount: amount.to_string() });
    Deposit { amount, sources: vec![Source::Balance.into()] }
}

fn attribute(key: &str, value: &str) -> Attribute {
    Attribute { key: key.into(), value: value.into() }
}

pub(super) fn group(price: u128) -> GroupSpec {
    let amount = |digits: &str| Some(ResourceValue { val: digits.as_bytes().to_vec() });
    let class = vec![attribute("class", "beta3"), attribute("persistent", "true")];
    let resource = Resources {
        id: 1,
        cpu: Some(Cpu { units: amount("500"), attributes: vec![] }),
        memory: Some(Memory { quantity: amount("536870912"), attributes: vec![] }),
        storage: vec![
            Storage { name: "default".into(), quantity: amount("1073741824"), attributes: vec![] },
            Storage { name: "data".into(), quantity: amount("1073741824"), attributes: class },
        ],
        gpu: Some(Gpu { units: amount("0"), attributes: vec![] }),
        endpoints: vec![],
    };
    GroupSpec {
        name: "dc1".into(),
        requirements: Some(PlacementRequirements {
            signed_by: None,
            attributes: vec![attribute("region", "us-west")],
        }),
        resources: vec![ResourceUnit {
            resource: Some(resource),
            count: 1,
            price: Some(uact(price)),
        }],
    }
}

pub(super) fn provider_attributes() -> Vec<Attribute> {
    vec![
        attribute("region", "us-west"),
        attribute("capabilities/storage/1/class", "beta3"),
        attribute("capabilities/storage/1/persistent", "true"),
    ]
}

impl Market {
    pub(super) fn new(providers: u8) -> Self {
        let tenant = key(1);
        let providers: Vec<_> = (0..providers).map(|n| key(100 + n)).collect();
        let mut accounts = vec![(tenant.address().to_owned(), RICH, RICH)];
        accounts
            .extend(providers.iter().map(|provider| (provider.address().to_owned(), RICH, RICH)));
        let ledger = Ledger::new(Genesis::with_accounts(accounts, START_NS));
        let mut market = Self { ledger, tenant, providers, nonce: 0 };
        for provider in market.providers.clone() {
            let msg = MsgCreateProvider {
                owner: provider.address().into(),
                host_uri: "https://p.test:8443".into(),
                attributes: provider_attributes(),
                info: None,
            };
            market.must(&provider, &[any(&msg)]);
        }
        market
    }

    /// Signs for the next block.
    pub(super) fn sign(&mut self, who: &Account, messages: &[Any]) -> Vec<u8> {
        self.nonce += 1;
        let account_number = self.ledger.view().account_info(who.address()).unwrap().account_number;
        let until = self.now() + 60_000_000_000 + self.nonce;
        let terms = TxTerms {
            chain_id: "akash-local",
            account_number,
            order: Order::Until(until),
            gas: 3_000_000,
            fee: 75_000,
        };
        who.sign_tx(messages.to_vec(), &terms)
    }

    pub(super) fn now(&self) -> u64 {
        self.ledger.view().block().time_ns
    }

    pub(super) fn blocks(&mut self, count: u64) -> Vec<Arc<TxRecord>> {
        let mut last = Vec::new();
        for _ in 0..count {
            last = self.ledger.advance(self.now() + BLOCK_NS);
        }
        last
    }

    /// Sends messages and makes the next block.
    pub(super) fn send(&mut self, who: &Account, messages: &[Any]) -> Arc<TxRecord> {
        let tx = self.sign(who, messages);
        self.ledger.submit(&tx).unwrap();
        self.blocks(1).pop().unwrap()
    }

    pub(super) fn must(&mut self, who: &Account, messages: &[Any]) -> Arc<TxRecord> {
        let record = self.send(who, messages);
        assert_eq!(record.error, None);
        record
    }

    /// Sends messages that fail in their block; gives codespace and code.
    pub(super) fn fails(&mut self, who: &Account, messages: &[Any]) -> (&'static str, u32) {
        let error = self.send(who, messages).error.clone().expect("should fail");
        (error.codespace, error.code)
    }

    /// Sends messages that no node takes; gives codespace and code.
    pub(super) fn refused(&mut self, who: &Account, messages: &[Any]) -> (&'static str, u32) {
        let tx = self.sign(who, messages);
        let error = self.ledger.submit(&tx).unwrap_err();
        (error.codespace, error.code)
    }

    pub(super) fn tenant(&self) -> Account {
        self.tenant.clone()
    }

    pub(super) fn provider(&self, at: usize) -> Account {
        self.providers[at].clone()
    }

    pub(super) fn dep_id(&self, dseq: u64) -> DeploymentId {
        DeploymentId { owner: self.tenant.address().into(), dseq }
    }

    pub(super) fn create_msg(&self, dseq: u64, price: u128, amount: u128) -> MsgCreateDeployment {
        MsgCreateDeployment {
            id: Some(self.dep_id(dseq)),
            groups: vec![group(price)],
            hash: vec![17; 32],
            deposit: Some(deposit(UACT, amount)),
            reclamation: None,
        }
    }

    pub(super) fn create(&mut self, dseq: u64, price: u128, amount: u128) {
        let msg = self.create_msg(dseq, price, amount);
        self.must(&self.tenant(), &[any(&msg)]);
    }

    pub(super) fn bid_id(&self, dseq: u64, oseq: u32, at: usize) -> BidId {
        let provider = self.providers[at].address().to_owned();
        BidId { owner: self.tenant.address().into(), dseq, gseq: 1, oseq, provider, bseq: 0 }
    }

    pub(super) fn lease_id(&self, dseq: u64, oseq: u32, at: usize) -> LeaseId {
        let BidId { owner, dseq, gseq, oseq, provider, bseq } = self.bid_id(dseq, oseq, at);
        LeaseId { owner, dseq, gseq, oseq, provider, bseq }
    }

    pub(super) fn bid_msg(&self, dseq: u64, oseq: u32, at: usize, price: u128) -> Any {
        any(&MsgCreateBid {
            id: Some(self.bid_id(dseq, oseq, at)),
            price: Some(uact(price)),
            deposit: Some(deposit(UAKT, 500_000)),
            resources_offer: vec![],
            reclamation_window: None,
        })
    }

    pub(super) fn bid(&mut self, dseq: u64, oseq: u32, at: usize, price: u128) {
        let msg = self.bid_msg(dseq, oseq, at, price);
        self.must(&self.provider(at), &[msg]);
    }

    pub(super) fn lease_msg(&self, dseq: u64, oseq: u32, at: usize) -> Any {
        any(&MsgCreateLease { bid_id: Some(self.bid_id(dseq, oseq, at)) })
    }

    /// A deployment with one bid, leased.
    pub(super) fn leased(&mut self, dseq: u64, price: u128, amount: u128) {
        self.create(dseq, price, amount);
        self.bid(dseq, 1, 0, price);
        let msg = self.lease_msg(dseq, 1, 0);
        self.must(&self.tenant(), &[msg]);
    }

    pub(super) fn close_msg(&self, dseq: u64) -> Any {
        any(&MsgCloseDeployment { id: Some(self.dep_id(dseq)) })
    }

    pub(super) fn start_msg(&self, dseq: u64) -> Any {
        any(&MsgStartGroup {
            id: Some(GroupId { owner: self.tenant.address().into(), dseq, gseq: 1 }),
        })
    }

    pub(super) fn close_lease_msg(&self, dseq: u64, oseq: u32, at: usize) -> Any {
        any(&MsgCloseLease { id: Some(self.lease_id(dseq, oseq, at)), reason: 0 })
    }

    pub(super) fn close_bid_msg(&self, dseq: u64, oseq: u32, at: usize, reason: i32) -> Any {
        any(&MsgCloseBid { id: Some(self.bid_id(dseq, oseq, at)), reason })
    }

    pub(super) fn withdraw_msg(&self, dseq: u64, oseq: u32, at: usize) -> Any {
        any(&MsgWithdrawLease { id: Some(self.lease_id(dseq, oseq, at)) })
    }

    pub(super) fn deposit_msg(&self, dseq: u64, from: &Account, denom: &str, amount: u128) -> Any {
        let xid = format!("{}/{dseq}", self.tenant.address());
        any(&MsgAccountDeposit {
            signer: from.address().into(),
            id: Some(escrow_id::Account { scope: escrow_id::Scope::Deployment.into(), xid }),
            deposit: Some(deposit(denom, amount)),
        })
    }

    pub(super) fn deployment(&self, dseq: u64) -> Deployment {
        self.ledger.view().query_deployment(&self.dep_id(dseq)).unwrap().deployment.unwrap()
    }

    pub(super) fn group(&self, dseq: u64) -> Group {
        self.ledger.view().query_deployment(&self.dep_id(dseq)).unwrap().groups.remove(0)
    }

    pub(super) fn lease(&self, dseq: u64, oseq: u32, at: usize) -> Lease {
        self.ledger.view().query_lease(&self.lease_id(dseq, oseq, at)).unwrap().lease.unwrap()
    }

    pub(super) fn escrow(&self, dseq: u64) -> AccountState {
        let account: EscrowAccount =
            self.ledger.view().deployment_escrow(self.tenant.address(), dseq).unwrap();
        account.state.unwrap()
    }

    pub(super) fn bid_states(&self, dseq: u64, oseq: u32) -> Vec<BidState> {
        let of = |id: &BidId| id.dseq == dseq && id.oseq == oseq;
        let bids = self.ledger.view().bids().filter(|bid| bid.id.as_ref().is_some_and(of));
        bids.map(crate::wire::akash::market::v1beta5::Bid::state).collect()
    }

    pub(super) fn has(&self, who: &Account, denom: &str) -> u128 {
        self.ledger.view().balance(who.address(), denom)
    }
}
