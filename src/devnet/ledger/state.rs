//! All that the chain knows at one height.

use super::amount::{UACT, UAKT, to_coin};
use super::error::{TxError, sdk};
use super::table::Table;
use crate::wire::akash::base::deposit::v1::Source;
use crate::wire::akash::cert::v1::Certificate;
use crate::wire::akash::deployment::v1::{Deployment, DeploymentId, GroupId};
use crate::wire::akash::deployment::v1beta4::Group;
use crate::wire::akash::escrow::types::v1::State as EscrowState;
use crate::wire::akash::market::v1::{BidId, Lease, LeaseId, OrderId};
use crate::wire::akash::market::v1beta5::{Bid, Order};
use crate::wire::akash::provider::v1beta4::Provider;
use crate::wire::cosmos::base::v1beta1::Coin;

/// Holds what lies in escrow.
pub const ESCROW_POT: &str = "akash14pphss726thpwws3yc458hggufynm9x77l4l2u";
/// Holds AKT that was given for ACT.
pub const MINT_POT: &str = "akash1klpwzlvfnw7j8gtdd0cuu9vaw9ermsmd37sg55";
/// Holds the fees taken.
pub const FEE_POT: &str = "akash17xpfvakm2amg962yls6f84z3kell8c5lazw8j8";

pub(super) type DeploymentKey = (String, u64);
pub(super) type GroupKey = (String, u64, u32);
pub(super) type OrderKey = (String, u64, u32, u32);
/// Of a bid and of its lease.
pub(super) type BidKey = (String, u64, u32, u32, String);

/// When something happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Height.
    pub height: u64,
    /// Nanoseconds since 1970.
    pub time_ns: u64,
}

impl Block {
    pub(super) fn height_i64(self) -> i64 {
        i64::try_from(self.height).unwrap_or(i64::MAX)
    }

    pub(super) fn unix_seconds(self) -> i64 {
        i64::try_from(self.time_ns / 1_000_000_000).unwrap_or(i64::MAX)
    }
}

/// An account as signatures see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AuthAccount {
    pub(super) number: u64,
    pub(super) sequence: u64,
    /// Known since its first transaction.
    pub(super) key: Option<Vec<u8>>,
}

/// Money and signatures: all that decides whether a transaction gets into a block.
#[derive(Clone, Debug, Default)]
pub(super) struct Auth {
    pub(super) accounts: Table<String, AuthAccount>,
    /// Times that unordered transactions have used, by time and address.
    pub(super) nonces: Table<(u64, String), ()>,
    /// By address and denomination; zero when missing.
    pub(super) balances: Table<(String, String), u128>,
    /// Who pays fees for whom, by granter and grantee.
    pub(super) allowances: Table<(String, String), Granted>,
}

/// What an account allows another one to spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Granted {
    /// What is left of it; none for no limit.
    pub(super) left: Option<u128>,
    /// Nanoseconds since 1970.
    pub(super) until_ns: Option<u64>,
}

impl Granted {
    /// Whether so much can be spent by it in this block.
    pub(super) fn allows(&self, amount: u128, block: Block) -> bool {
        self.until_ns.is_none_or(|until| until > block.time_ns)
            && self.left.is_none_or(|left| left >= amount)
    }
}

impl Auth {
    pub(super) fn balance(&self, address: &str, denom: &str) -> u128 {
        self.balances.get(&(address.to_owned(), denom.to_owned())).copied().unwrap_or(0)
    }

    /// All that an address has, by denomination.
    pub(super) fn coins(&self, address: &str) -> Vec<Coin> {
        let from = (address.to_owned(), String::new());
        let own = self.balances.range(from..).take_while(|((owner, _), _)| owner == address);
        own.filter(|(_, amount)| **amount > 0)
            .map(|((_, denom), amount)| to_coin(denom, *amount))
            .collect()
    }

    /// Moves coins between addresses, or nothing when there are too few.
    pub(super) fn pay(
        &mut self,
        from: &str,
        to: &str,
        denom: &str,
        amount: u128,
    ) -> Result<(), TxError> {
        let has = self.balance(from, denom);
        let Some(left) = has.checked_sub(amount) else {
            return Err(sdk::INSUFFICIENT_FUNDS.because(format_args!(
                "spendable balance {has}{denom} is smaller than {amount}{denom}"
            )));
        };
        self.balances.put((from.to_owned(), denom.to_owned()), left);
        let got = self.balance(to, denom).saturating_add(amount);
        self.balances.put((to.to_owned(), denom.to_owned()), got);
        Ok(())
    }

    pub(super) fn commit(&mut self) {
        self.accounts.commit();
        self.nonces.commit();
        self.balances.commit();
        self.allowances.commit();
    }

    pub(super) fn rollback(&mut self) {
        self.accounts.rollback();
        self.nonces.rollback();
        self.balances.rollback();
        self.allowances.rollback();
    }
}

/// Money put aside for a deployment or a bid. Amounts are times 10^18.
#[derive(Clone, Debug)]
pub(super) struct EscrowAccount {
    pub(super) owner: String,
    pub(super) state: EscrowState,
    /// What has gone to payments, by denomination.
    pub(super) transferred: Vec<(String, i128)>,
    /// Height of the last settlement.
    pub(super) settled_at: u64,
    /// What is there as of `settled_at`, by denomination; the first one pays. Below zero: the debt.
    pub(super) funds: Vec<(String, i128)>,
    /// Spent in this order.
    pub(super) deposits: Vec<Deposited>,
}

/// One deposit, what is left of it.
#[derive(Clone, Debug)]
pub(super) struct Deposited {
    pub(super) owner: String,
    pub(super) source: Source,
    pub(super) height: u64,
    pub(super) denom: String,
    pub(super) amount: i128,
}

/// What a lease pays. Amounts are times 10^18, but `withdrawn`.
#[derive(Clone, Debug)]
pub(super) struct Payment {
    pub(super) owner: String,
    pub(super) state: EscrowState,
    pub(super) denom: String,
    /// For one block.
    pub(super) rate: i128,
    /// Earned and not yet paid out.
    pub(super) balance: i128,
    /// Owed when the funds ran out.
    pub(super) unsettled: i128,
    pub(super) withdrawn: u128,
}

/// All that the chain remembers.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) auth: Auth,
    pub(super) deployments: Table<DeploymentKey, Deployment>,
    pub(super) groups: Table<GroupKey, Group>,
    pub(super) orders: Table<OrderKey, Order>,
    pub(super) bids: Table<BidKey, Bid>,
    pub(super) leases: Table<BidKey, Lease>,
    /// By scope and name: `deployment/owner/dseq`.
    pub(super) escrow: Table<String, EscrowAccount>,
    /// By account and name: `deployment/owner/dseq/gseq/oseq/provider`.
    pub(super) payments: Table<String, Payment>,
    /// By the bytes of the address, as the chain sorts them.
    pub(super) providers: Table<Vec<u8>, Provider>,
    /// By owner and serial.
    pub(super) certificates: Table<(String, String), Certificate>,
    /// Who pays deposits for whom, by granter and grantee.
    pub(super) deposit_grants: Table<(String, String), Granted>,
    /// AKT that was given for ACT, by height and number within the block.
    pub(super) mints: Table<(u64, u64), Mint>,
}

/// AKT that was given to be burnt for ACT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mint {
    pub(super) owner: String,
    /// In uakt.
    pub(super) burn: u128,
    pub(super) end: MintEnd,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MintEnd {
    Pending,
    /// So much uact, of which the spread is taken off.
    Minted {
        uact: u128,
        spread: u128,
    },
    /// It was less than the minimum.
    TooLittle,
}

macro_rules! on_each_table {
    ($state:expr, $what:ident) => {{
        $state.auth.$what();
        $state.deployments.$what();
        $state.groups.$what();
        $state.orders.$what();
        $state.bids.$what();
        $state.leases.$what();
        $state.escrow.$what();
        $state.payments.$what();
        $state.providers.$what();
        $state.certificates.$what();
        $state.deposit_grants.$what();
        $state.mints.$what();
    }};
}

impl State {
    /// Keeps what was done since the last commit.
    pub(super) fn commit(&mut self) {
        on_each_table!(self, commit);
    }

    /// Takes it back.
    pub(super) fn rollback(&mut self) {
        on_each_table!(self, rollback);
    }

    /// Keys of the orders of a group.
    pub(super) fn orders_of(&self, group: &GroupKey) -> Vec<OrderKey> {
        let (owner, dseq, gseq) = group;
        let at = |oseq| (owner.clone(), *dseq, *gseq, oseq);
        self.orders.range(at(0)..=at(u32::MAX)).map(|(key, _)| key.clone()).collect()
    }

    /// Keys of the bids on an order, by address.
    pub(super) fn bids_on(&self, order: &OrderKey) -> Vec<BidKey> {
        let (owner, dseq, gseq, oseq) = order.clone();
        let of =
            |key: &BidKey| (&key.0, key.1, key.2, key.3) == (&order.0, order.1, order.2, order.3);
        let from = (owner, dseq, gseq, oseq, String::new());
        self.bids.range(from..).map(|(key, _)| key.clone()).take_while(of).collect()
    }

    /// Keys of the groups of a deployment.
    pub(super) fn groups_of(&self, deployment: &DeploymentKey) -> Vec<GroupKey> {
        let (owner, dseq) = deployment;
        let at = |gseq| (owner.clone(), *dseq, gseq);
        self.groups.range(at(0)..=at(u32::MAX)).map(|(key, _)| key.clone()).collect()
    }

    /// Keys of the payments out of an escrow account.
    pub(super) fn payments_of(&self, account: &str) -> Vec<String> {
        let prefix = format!("{account}/");
        self.payments
            .range(prefix.clone()..)
            .map(|(key, _)| key.clone())
            .take_while(|key| key.starts_with(&prefix))
            .collect()
    }
}

pub(super) fn deployment_key(id: &DeploymentId) -> DeploymentKey {
    (id.owner.clone(), id.dseq)
}

pub(super) fn group_key(id: &GroupId) -> GroupKey {
    (id.owner.clone(), id.dseq, id.gseq)
}

pub(super) fn order_key(id: &OrderId) -> OrderKey {
    (id.owner.clone(), id.dseq, id.gseq, id.oseq)
}

pub(super) fn bid_key(id: &BidId) -> BidKey {
    (id.owner.clone(), id.dseq, id.gseq, id.oseq, id.provider.clone())
}

pub(super) fn lease_key(id: &LeaseId) -> BidKey {
    (id.owner.clone(), id.dseq, id.gseq, id.oseq, id.provider.clone())
}

pub(super) fn order_of(bid: &BidKey) -> OrderKey {
    (bid.0.clone(), bid.1, bid.2, bid.3)
}

pub(super) fn group_of(order: &OrderKey) -> GroupKey {
    (order.0.clone(), order.1, order.2)
}

/// Escrow account of a deployment.
pub(super) fn deployment_escrow(owner: &str, dseq: u64) -> String {
    format!("deployment/{owner}/{dseq}")
}

/// Escrow account of a bid.
pub(super) fn bid_escrow(bid: &BidKey) -> String {
    let (owner, dseq, gseq, oseq, provider) = bid;
    format!("bid/{owner}/{dseq}/{gseq}/{oseq}/{provider}")
}

/// Payment of a lease.
pub(super) fn lease_payment(lease: &BidKey) -> String {
    let (owner, dseq, gseq, oseq, provider) = lease;
    format!("deployment/{owner}/{dseq}/{gseq}/{oseq}/{provider}")
}

/// Values that governance sets.
#[derive(Clone, Debug)]
pub struct Params {
    /// Least deposit of a deployment in `uact`.
    pub min_deposit: u128,
    /// Least deposit of a bid, in `uakt` or `uact`.
    pub bid_min_deposit: u128,
    /// One more than this many bids fit on an order.
    pub order_max_bids: u32,
    /// Bounds of reclamation windows, in seconds.
    pub reclamation_window: (i64, i64),
    /// Least fee for a unit of gas, in thousandths of a `uakt`.
    pub min_gas_price_milli: u64,
    /// What the oracle says of an AKT, in thousandths of an ACT; none while nobody feeds it.
    pub akt_price_milli: Option<u64>,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            min_deposit: 500_000,
            bid_min_deposit: 500_000,
            order_max_bids: 20,
            reclamation_window: (3600, 2_592_000),
            min_gas_price_milli: 25,
            akt_price_milli: Some(500),
        }
    }
}

/// An account that exists from the beginning.
#[derive(Clone, Debug)]
pub struct GenesisAccount {
    /// Address.
    pub address: String,
    /// Millionths of an AKT, for fees.
    pub uakt: u128,
    /// Millionths of an ACT, for deposits.
    pub uact: u128,
    /// Sequence number of its next ordered transaction.
    pub sequence: u64,
    /// Its public key, if known.
    pub key: Option<Vec<u8>>,
}

/// How the chain begins.
#[derive(Clone, Debug)]
pub struct Genesis {
    /// Chain id.
    pub chain_id: String,
    /// Governance values.
    pub params: Params,
    /// Accounts in the order of their numbers.
    pub accounts: Vec<GenesisAccount>,
    /// Who pays fees for whom: granter and grantee.
    pub fee_allowances: Vec<(String, String)>,
    /// What auditors signed.
    pub audited: Vec<crate::wire::akash::audit::v1::AuditedProvider>,
    /// Height and time of the first block.
    pub block: Block,
}

impl Genesis {
    /// A chain with nothing but these accounts: address, `uakt`, `uact`.
    #[must_use]
    pub fn with_accounts(accounts: Vec<(String, u128, u128)>, time_ns: u64) -> Self {
        let account =
            |(address, uakt, uact)| GenesisAccount { address, uakt, uact, sequence: 0, key: None };
        Self {
            chain_id: "akash-local".into(),
            params: Params::default(),
            accounts: accounts.into_iter().map(account).collect(),
            fee_allowances: Vec::new(),
            audited: Vec::new(),
            block: Block { height: 1, time_ns },
        }
    }

    pub(super) fn state(&self) -> State {
        let mut state = State::default();
        for (number, account) in (0..).zip(&self.accounts) {
            let address = &account.address;
            let row = AuthAccount { number, sequence: account.sequence, key: account.key.clone() };
            state.auth.accounts.put(address.clone(), row);
            state.auth.balances.put((address.clone(), UAKT.to_owned()), account.uakt);
            state.auth.balances.put((address.clone(), UACT.to_owned()), account.uact);
        }
        for pair in &self.fee_allowances {
            let unlimited = Granted { left: None, until_ns: None };
            state.auth.allowances.put(pair.clone(), unlimited);
        }
        state.commit();
        state
    }
}
