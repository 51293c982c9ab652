//! What can be asked of the chain at one height.

use super::amount::{to_coin, to_dec};
use super::error::{Known, deployment, market, provider};
use super::page::page;
use super::state::{
    BidKey, Block, DeploymentKey, EscrowAccount, Genesis, OrderKey, Payment, bid_escrow, bid_key,
    deployment_escrow, deployment_key, group_key, lease_key, lease_payment, order_key,
};
use super::{UACT, UAKT, View};
use crate::devnet::account::address_bytes;
use crate::wire::akash::audit::v1::AuditedProvider;
use crate::wire::akash::cert::v1::certificate::State as CertificateState;
use crate::wire::akash::cert::v1::{
    CertificateResponse, QueryCertificatesRequest, QueryCertificatesResponse,
};
use crate::wire::akash::deployment::v1::deployment::State as DeploymentState;
use crate::wire::akash::deployment::v1::{Deployment, DeploymentId, GroupId};
use crate::wire::akash::deployment::v1beta4 as dv;
use crate::wire::akash::escrow::id::v1 as escrow_ids;
use crate::wire::akash::escrow::types::v1 as escrow_types;
use crate::wire::akash::escrow::v1 as ev;
use crate::wire::akash::market::v1::lease::State as LeaseState;
use crate::wire::akash::market::v1::{BidId, Lease, LeaseId, OrderId};
use crate::wire::akash::market::v1beta5 as mv;
use crate::wire::akash::market::v1beta5::bid::State as BidState;
use crate::wire::akash::market::v1beta5::order::State as OrderState;
use crate::wire::akash::provider::v1beta4 as pv;
use crate::wire::cosmos::auth::v1beta1::BaseAccount;
use crate::wire::cosmos::base::query::v1beta1::PageRequest;
use crate::wire::cosmos::base::v1beta1::Coin;
use crate::wire::cosmos::crypto::secp256k1::PubKey;

/// Why a question is not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct QueryError {
    /// Nothing by that id; otherwise the question is wrong.
    pub not_found: bool,
    /// The chain's text.
    pub text: String,
}

impl QueryError {
    pub(super) fn invalid(text: &str) -> Self {
        Self { not_found: false, text: text.to_owned() }
    }

    fn missing(known: Known) -> Self {
        Self {
            not_found: true,
            text: format!("codespace {} code {}: {}", known.codespace, known.code, known.text),
        }
    }
}

type Answer<T> = Result<T, QueryError>;

/// A filter's state: `None` takes all. States have lower-case names; the invalid one cannot be
/// asked for.
fn wanted<S: PartialEq>(
    name: &str,
    by_name: impl Fn(&str) -> Option<S>,
    invalid: &S,
) -> Answer<Option<S>> {
    if name.is_empty() {
        return Ok(None);
    }
    match by_name(name).filter(|state| state != invalid) {
        Some(state) => Ok(Some(state)),
        None => Err(QueryError::invalid("invalid state value")),
    }
}

fn offset_needs_state(pagination: Option<&PageRequest>, state: &str) -> Answer<()> {
    if state.is_empty() && pagination.is_some_and(|page| page.offset > 0) {
        return Err(QueryError::invalid(
            "invalid request parameters. if offset is set, filter.state must be provided",
        ));
    }
    Ok(())
}

/// Zero and empty mean: any.
fn fits<T: PartialEq + Default>(wanted: &T, is: &T) -> bool {
    *wanted == T::default() || wanted == is
}

impl View {
    /// Height and time.
    #[must_use]
    pub fn block(&self) -> Block {
        self.block
    }

    /// How the chain began.
    #[must_use]
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// What an address has of a denomination, escrow not counted.
    #[must_use]
    pub fn balance(&self, address: &str, denom: &str) -> u128 {
        self.state.auth.balance(address, denom)
    }

    /// All that an address has.
    #[must_use]
    pub fn balances(&self, address: &str) -> Vec<Coin> {
        self.state.auth.coins(address)
    }

    /// All coins of a denomination that exist, wherever they are.
    #[must_use]
    pub fn supply(&self, denom: &str) -> u128 {
        self.state
            .auth
            .balances
            .iter()
            .filter(|((_, name), _)| name == denom)
            .map(|(_, amount)| amount)
            .sum()
    }

    /// What escrow accounts and payments hold by their own word, times 10^18: always as much as
    /// [`super::ESCROW_POT`] has.
    #[must_use]
    pub fn held_in_escrow(&self, denom: &str) -> i128 {
        let deposits = self.state.escrow.iter().flat_map(|(_, account)| &account.deposits);
        let deposits: i128 =
            deposits.filter(|deposit| deposit.denom == denom).map(|deposit| deposit.amount).sum();
        let earned: i128 = self
            .state
            .payments
            .iter()
            .filter(|(_, it)| it.denom == denom)
            .map(|(_, it)| it.balance)
            .sum();
        deposits + earned
    }

    /// All deployments, by owner and dseq.
    pub fn deployments(&self) -> impl Iterator<Item = &Deployment> {
        self.state.deployments.iter().map(|(_, row)| row)
    }

    /// All groups.
    pub fn groups(&self) -> impl Iterator<Item = &dv::Group> {
        self.state.groups.iter().map(|(_, row)| row)
    }

    /// All orders.
    pub fn orders(&self) -> impl Iterator<Item = &mv::Order> {
        self.state.orders.iter().map(|(_, row)| row)
    }

    /// All bids.
    pub fn bids(&self) -> impl Iterator<Item = &mv::Bid> {
        self.state.bids.iter().map(|(_, row)| row)
    }

    /// All leases.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.state.leases.iter().map(|(_, row)| row)
    }

    /// All providers, by the bytes of their addresses.
    pub fn providers(&self) -> impl Iterator<Item = &pv::Provider> {
        self.state.providers.iter().map(|(_, row)| row)
    }

    /// Escrow account of a deployment.
    #[must_use]
    pub fn deployment_escrow(&self, owner: &str, dseq: u64) -> Option<escrow_types::Account> {
        self.escrow(&deployment_escrow(owner, dseq))
    }

    fn escrow(&self, key: &String) -> Option<escrow_types::Account> {
        self.state.escrow.get(key).map(|account| wire_account(key, account))
    }

    fn lease_payment(&self, key: &BidKey) -> Option<escrow_types::Payment> {
        let name = lease_payment(key);
        self.state.payments.get(&name).map(|payment| wire_payment(&name, payment))
    }

    /// The account of an address that exists.
    pub fn account_info(&self, address: &str) -> Answer<BaseAccount> {
        let Some(account) = self.state.auth.accounts.get(&address.to_owned()) else {
            return Err(QueryError {
                not_found: true,
                text: format!("account {address} not found"),
            });
        };
        let pub_key = account.key.clone().map(|key| crate::devnet::account::any(&PubKey { key }));
        Ok(BaseAccount {
            address: address.to_owned(),
            pub_key,
            account_number: account.number,
            sequence: account.sequence,
        })
    }

    fn with_groups(
        &self,
        key: &DeploymentKey,
        deployment: &Deployment,
    ) -> dv::QueryDeploymentResponse {
        let groups = self
            .state
            .groups_of(key)
            .iter()
            .filter_map(|key| self.state.groups.get(key))
            .cloned()
            .collect();
        let escrow_account = self.deployment_escrow(&key.0, key.1);
        dv::QueryDeploymentResponse { deployment: Some(deployment.clone()), groups, escrow_account }
    }

    /// Deployments with their groups and money.
    pub fn query_deployments(
        &self,
        request: &dv::QueryDeploymentsRequest,
    ) -> Answer<dv::QueryDeploymentsResponse> {
        let filters = request.filters.clone().unwrap_or_default();
        offset_needs_state(request.pagination.as_ref(), &filters.state)?;
        let state =
            wanted(&filters.state, DeploymentState::from_str_name, &DeploymentState::Invalid)?;
        let rows = self.state.deployments.iter().filter(|((owner, dseq), row)| {
            fits(&filters.owner, owner)
                && fits(&filters.dseq, dseq)
                && state.is_none_or(|state| row.state() == state)
        });
        let (rows, pagination) = page(rows, request.pagination.as_ref())?;
        let deployments = rows.into_iter().map(|(key, row)| self.with_groups(key, row)).collect();
        Ok(dv::QueryDeploymentsResponse { deployments, pagination })
    }

    /// One deployment with its groups and money.
    pub fn query_deployment(&self, id: &DeploymentId) -> Answer<dv::QueryDeploymentResponse> {
        let key = deployment_key(id);
        let row =
            self.state.deployments.get(&key).ok_or(QueryError::missing(deployment::NOT_FOUND))?;
        Ok(self.with_groups(&key, row))
    }

    /// One group.
    pub fn query_group(&self, id: &GroupId) -> Answer<dv::Group> {
        self.state
            .groups
            .get(&group_key(id))
            .cloned()
            .ok_or(QueryError::missing(deployment::GROUP_NOT_FOUND))
    }

    /// Orders.
    pub fn query_orders(
        &self,
        request: &mv::QueryOrdersRequest,
    ) -> Answer<mv::QueryOrdersResponse> {
        let filters = request.filters.clone().unwrap_or_default();
        offset_needs_state(request.pagination.as_ref(), &filters.state)?;
        let state = wanted(&filters.state, OrderState::from_str_name, &OrderState::Invalid)?;
        let fit = |key: &OrderKey| {
            fits(&filters.owner, &key.0)
                && fits(&filters.dseq, &key.1)
                && fits(&filters.gseq, &key.2)
                && fits(&filters.oseq, &key.3)
        };
        let rows = self
            .state
            .orders
            .iter()
            .filter(|(key, row)| fit(key) && state.is_none_or(|state| row.state() == state));
        let (rows, pagination) = page(rows, request.pagination.as_ref())?;
        Ok(mv::QueryOrdersResponse {
            orders: rows.into_iter().map(|(_, row)| row.clone()).collect(),
            pagination,
        })
    }

    /// One order.
    pub fn query_order(&self, id: &OrderId) -> Answer<mv::Order> {
        self.state
            .orders
            .get(&order_key(id))
            .cloned()
            .ok_or(QueryError::missing(market::ORDER_NOT_FOUND))
    }

    /// Bids with their deposits.
    pub fn query_bids(&self, request: &mv::QueryBidsRequest) -> Answer<mv::QueryBidsResponse> {
        let filters = request.filters.clone().unwrap_or_default();
        offset_needs_state(request.pagination.as_ref(), &filters.state)?;
        let state = wanted(&filters.state, BidState::from_str_name, &BidState::Invalid)?;
        let wants = (filters.owner, filters.dseq, filters.gseq, filters.oseq, filters.provider);
        let rows = self.state.bids.iter().filter(|(key, row)| {
            fit(&wants, key) && state.is_none_or(|state| row.state() == state)
        });
        let (rows, pagination) = page(rows, request.pagination.as_ref())?;
        let bids = rows.into_iter().map(|(key, row)| self.with_deposit(key, row)).collect();
        Ok(mv::QueryBidsResponse { bids, pagination })
    }

    fn with_deposit(&self, key: &BidKey, bid: &mv::Bid) -> mv::QueryBidResponse {
        mv::QueryBidResponse {
            bid: Some(bid.clone()),
            escrow_account: self.escrow(&bid_escrow(key)),
        }
    }

    /// One bid with its deposit.
    pub fn query_bid(&self, id: &BidId) -> Answer<mv::QueryBidResponse> {
        let key = bid_key(id);
        let row = self.state.bids.get(&key).ok_or(QueryError::missing(market::BID_NOT_FOUND))?;
        Ok(self.with_deposit(&key, row))
    }

    /// Leases with their payments.
    pub fn query_leases(
        &self,
        request: &mv::QueryLeasesRequest,
    ) -> Answer<mv::QueryLeasesResponse> {
        let filters = request.filters.clone().unwrap_or_default();
        offset_needs_state(request.pagination.as_ref(), &filters.state)?;
        let state = wanted(&filters.state, LeaseState::from_str_name, &LeaseState::Invalid)?;
        let wants = (filters.owner, filters.dseq, filters.gseq, filters.oseq, filters.provider);
        let rows = self.state.leases.iter().filter(|(key, row)| {
            fit(&wants, key) && state.is_none_or(|state| row.state() == state)
        });
        let (rows, pagination) = page(rows, request.pagination.as_ref())?;
        let leases = rows.into_iter().map(|(key, row)| self.with_payment(key, row)).collect();
        Ok(mv::QueryLeasesResponse { leases, pagination })
    }

    fn with_payment(&self, key: &BidKey, lease: &Lease) -> mv::QueryLeaseResponse {
        mv::QueryLeaseResponse {
            lease: Some(lease.clone()),
            escrow_payment: self.lease_payment(key),
        }
    }

    /// One lease with its payment.
    pub fn query_lease(&self, id: &LeaseId) -> Answer<mv::QueryLeaseResponse> {
        let key = lease_key(id);
        let row =
            self.state.leases.get(&key).ok_or(QueryError::missing(market::LEASE_NOT_FOUND))?;
        Ok(self.with_payment(&key, row))
    }

    /// Escrow accounts whose key begins with `xid`, scope first.
    pub fn query_accounts(
        &self,
        request: &ev::QueryAccountsRequest,
    ) -> Answer<ev::QueryAccountsResponse> {
        let state = wanted(
            &request.state,
            escrow_types::State::from_str_name,
            &escrow_types::State::Invalid,
        )?;
        let rows = self.state.escrow.iter().filter(|(key, row)| {
            below(key, &request.xid) && state.is_none_or(|state| row.state == state)
        });
        let (rows, pagination) = page(rows, request.pagination.as_ref())?;
        Ok(ev::QueryAccountsResponse {
            accounts: rows.into_iter().map(|(key, row)| wire_account(key, row)).collect(),
            pagination,
        })
    }

    /// Payments whose account's key begins with `xid`, scope first.
    pub fn query_payments(
        &self,
        request: &ev::QueryPaymentsRequest,
    ) -> Answer<ev::QueryPaymentsResponse> {
        let state = wanted(
            &request.state,
            escrow_types::State::from_str_name,
            &escrow_types::State::Invalid,
        )?;
        let rows = self.state.payments.iter().filter(|(key, row)| {
            below(key, &request.xid) && state.is_none_or(|state| row.state == state)
        });
        let (rows, pagination) = page(rows, request.pagination.as_ref())?;
        Ok(ev::QueryPaymentsResponse {
            payments: rows.into_iter().map(|(key, row)| wire_payment(key, row)).collect(),
            pagination,
        })
    }

    /// Certificates.
    pub fn query_certificates(
        &self,
        request: &QueryCertificatesRequest,
    ) -> Answer<QueryCertificatesResponse> {
        let filter = request.filter.clone().unwrap_or_default();
        let state =
            wanted(&filter.state, CertificateState::from_str_name, &CertificateState::Invalid)?;
        let rows = self.state.certificates.iter().filter(|((owner, serial), row)| {
            fits(&filter.owner, owner)
                && fits(&filter.serial, serial)
                && state.is_none_or(|state| row.state() == state)
        });
        let (rows, pagination) = page(rows, request.pagination.as_ref())?;
        let answer = |((_, serial), row): (
            &(String, String),
            &crate::wire::akash::cert::v1::Certificate,
        )| CertificateResponse {
            certificate: Some(row.clone()),
            serial: serial.clone(),
        };
        Ok(QueryCertificatesResponse {
            certificates: rows.into_iter().map(answer).collect(),
            pagination,
        })
    }

    /// Providers.
    pub fn query_providers(
        &self,
        request: &pv::QueryProvidersRequest,
    ) -> Answer<pv::QueryProvidersResponse> {
        let (rows, pagination) = page(self.state.providers.iter(), request.pagination.as_ref())?;
        Ok(pv::QueryProvidersResponse {
            providers: rows.into_iter().map(|(_, row)| row.clone()).collect(),
            pagination,
        })
    }

    /// One provider.
    pub fn query_provider(&self, owner: &str) -> Answer<pv::Provider> {
        let row = address_bytes(owner).and_then(|key| self.state.providers.get(&key));
        row.cloned().ok_or(QueryError::missing(provider::NOT_FOUND))
    }

    /// What auditors signed; an empty owner or auditor takes all.
    #[must_use]
    pub fn audited(&self, owner: &str, auditor: &str) -> Vec<AuditedProvider> {
        let fit = |row: &&AuditedProvider| {
            (owner.is_empty() || row.owner == owner)
                && (auditor.is_empty() || row.auditor == auditor)
        };
        self.genesis.audited.iter().filter(fit).cloned().collect()
    }

    /// Governance values of deployments.
    #[must_use]
    pub fn deployment_params(&self) -> dv::Params {
        let least = self.genesis.params.min_deposit;
        dv::Params { min_deposits: vec![to_coin(UAKT, least), to_coin(UACT, least)] }
    }

    /// Governance values of the market.
    #[must_use]
    pub fn market_params(&self) -> mv::Params {
        let params = &self.genesis.params;
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        mv::Params {
            bid_min_deposit: Some(to_coin(UAKT, params.bid_min_deposit)),
            order_max_bids: params.order_max_bids,
            bid_min_deposits: vec![
                to_coin(UACT, params.bid_min_deposit),
                to_coin(UAKT, params.bid_min_deposit),
            ],
            min_reclamation_window: seconds(params.reclamation_window.0),
            max_reclamation_window: seconds(params.reclamation_window.1),
        }
    }
}

fn fit(wants: &BidKey, key: &BidKey) -> bool {
    fits(&wants.0, &key.0)
        && fits(&wants.1, &key.1)
        && fits(&wants.2, &key.2)
        && fits(&wants.3, &key.3)
        && fits(&wants.4, &key.4)
}

/// Whether a key is `xid` or below it.
fn below(key: &str, xid: &str) -> bool {
    xid.is_empty()
        || key
            .strip_prefix(xid)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || xid.ends_with('/'))
}

fn wire_id(key: &str) -> escrow_ids::Account {
    let (scope, xid) = key.split_once('/').unwrap_or_default();
    let scope = if scope == "bid" { escrow_ids::Scope::Bid } else { escrow_ids::Scope::Deployment };
    escrow_ids::Account { scope: scope.into(), xid: xid.to_owned() }
}

fn wire_account(key: &str, account: &EscrowAccount) -> escrow_types::Account {
    let deposits = account.deposits.iter().map(|deposit| escrow_types::Depositor {
        owner: deposit.owner.clone(),
        height: i64::try_from(deposit.height).unwrap_or(i64::MAX),
        source: deposit.source.into(),
        balance: Some(to_dec(&deposit.denom, deposit.amount)),
    });
    let funds = account.funds.iter().map(|(denom, amount)| escrow_types::Balance {
        denom: denom.clone(),
        amount: amount.to_string(),
    });
    let state = escrow_types::AccountState {
        owner: account.owner.clone(),
        state: account.state.into(),
        transferred: account
            .transferred
            .iter()
            .map(|(denom, amount)| to_dec(denom, *amount))
            .collect(),
        settled_at: i64::try_from(account.settled_at).unwrap_or(i64::MAX),
        funds: funds.collect(),
        deposits: deposits.collect(),
    };
    escrow_types::Account { id: Some(wire_id(key)), state: Some(state) }
}

fn wire_payment(name: &str, payment: &Payment) -> escrow_types::Payment {
    // deployment/owner/dseq, then gseq/oseq/provider.
    let at = name.match_indices('/').nth(2).map_or(name.len(), |(at, _)| at);
    let (account, xid) = name.split_at(at);
    let id = escrow_ids::Payment {
        aid: Some(wire_id(account)),
        xid: xid.trim_start_matches('/').to_owned(),
    };
    let state = escrow_types::PaymentState {
        owner: payment.owner.clone(),
        state: payment.state.into(),
        rate: Some(to_dec(&payment.denom, payment.rate)),
        balance: Some(to_dec(&payment.denom, payment.balance)),
        unsettled: Some(to_dec(&payment.denom, payment.unsettled)),
        withdrawn: Some(to_coin(&payment.denom, payment.withdrawn)),
    };
    escrow_types::Payment { id: Some(id), state: Some(state) }
}
