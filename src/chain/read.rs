//! Reads everything of one owner from one node at one height: all of it, or an error.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use tokio::time::Instant;

use super::endpoint::{Block, Node};
use super::statement;
use super::view::{self, Parts};
use super::{ChainError, codes, grants, offers};
use crate::model::chain::{ChainView, ProviderView};
use crate::model::funds::{Funds, Grant};
use crate::model::money::{UACT, UAKT, Uact};
use crate::model::time::UnixMs;
use crate::wire::akash::deployment::v1::DeploymentId;
use crate::wire::akash::deployment::v1beta4 as deployment;
use crate::wire::akash::market::v1::LeaseFilters;
use crate::wire::akash::market::v1beta5 as market;
use crate::wire::akash::provider::v1beta4::QueryProviderRequest;
use crate::wire::cosmos::authz::v1beta1::QueryGrantsRequest;
use crate::wire::cosmos::bank::v1beta1::QuerySpendableBalanceByDenomRequest;
use crate::wire::cosmos::feegrant::v1beta1::QueryAllowanceRequest;

/// Questions under way at one node at a time.
const AT_ONCE: usize = 8;
/// Registrations that are asked for one by one: where more are missing, the list of all is shorter.
const FEW: usize = 8;
/// How long a provider's registration is taken as known: it changes by hand, and there is one per
/// bid.
const PROVIDER_AGE: Duration = Duration::from_mins(1);

/// Registrations of providers as last seen; `None` for one that is not registered.
#[derive(Default)]
pub(super) struct Providers(Mutex<BTreeMap<String, (Instant, Option<ProviderView>)>>);

impl Providers {
    /// Those that are young enough; the others are forgotten.
    fn fresh(&self) -> BTreeMap<String, Option<ProviderView>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (seen, _)| seen.elapsed() < PROVIDER_AGE);
        all.iter().map(|(address, (_, provider))| (address.clone(), provider.clone())).collect()
    }

    fn keep(&self, address: String, provider: Option<ProviderView>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(address, (Instant::now(), provider));
    }
}

/// The accounts that pay in place of the wallet.
#[derive(Clone, Debug, Default)]
pub(super) struct Payers {
    /// Deposits, by a `DepositAuthorization`.
    pub treasury: Option<String>,
    /// Fees, by an allowance.
    pub fee_granter: Option<String>,
}

/// What a reading covers.
#[derive(Clone, Copy)]
pub(super) enum Scope<'a> {
    /// All active deployments, and these whatever their state.
    All { known: &'a BTreeSet<u64> },
    /// These alone, whatever their state.
    Only(&'a BTreeSet<u64>),
}

/// The owner's view at `block`, without deployments that the chain never heard of.
pub(super) async fn view(
    node: &Node,
    (owner, payers): (&str, &Payers),
    scope: Scope<'_>,
    block: Block,
    block_ms: u64,
    cache: &Providers,
) -> Result<ChainView, ChainError> {
    let reader = Reader { node: node.at(block.height), owner: owner.to_owned() };
    let (funds, min_deposit, parts) = tokio::try_join!(
        reader.funds(payers, block.time()),
        reader.min_deposit(),
        reader.scope(scope)
    )?;
    let mut statements = BTreeMap::new();
    for (dseq, parts) in &parts {
        let statement = statement::statement(parts, block.height, block.time(), block_ms)
            .map_err(|flaw| node.invalid(format!("deployment {dseq}: {flaw}")))?;
        statements.insert(*dseq, statement);
    }
    let deployments = parts
        .into_iter()
        .map(|(dseq, parts)| {
            Ok((dseq, view::deployment(parts, block.height).map_err(|flaw| node.invalid(flaw))?))
        })
        .collect::<Result<BTreeMap<_, _>, ChainError>>()?;
    let mut addresses = BTreeSet::new();
    for deployment in deployments.values() {
        addresses.extend(deployment.bids.iter().map(|bid| bid.id.provider.clone()));
        addresses.extend(deployment.leases.iter().map(|lease| lease.id.provider.clone()));
    }
    Ok(ChainView {
        height: block.height,
        block_time: block.time(),
        block_ms,
        balance: funds
            .treasury
            .as_ref()
            .map_or(funds.own_act, |grant| Uact(grant.available(block.time()))),
        fee_balance: funds
            .fee_grant
            .as_ref()
            .map_or(funds.own_uakt, |grant| grant.available(block.time())),
        funds,
        min_deposit: Uact(min_deposit),
        providers: reader.providers(addresses, cache).await?,
        deployments,
        statements,
    })
}

#[derive(Clone)]
struct Reader {
    /// Pinned to the height of the reading.
    node: Node,
    owner: String,
}

impl Reader {
    /// Who pays, and what they have.
    async fn funds(&self, payers: &Payers, now: UnixMs) -> Result<Funds, ChainError> {
        let (own_act, own_uakt, treasury, fee_grant) = tokio::try_join!(
            self.spendable(&self.owner, UACT),
            self.spendable(&self.owner, UAKT),
            self.treasury(payers.treasury.as_deref()),
            self.fee_grant(payers.fee_granter.as_deref(), now)
        )?;
        Ok(Funds { own_act: Uact(own_act), own_uakt, treasury, fee_grant })
    }

    async fn treasury(&self, granter: Option<&str>) -> Result<Option<Grant>, ChainError> {
        let Some(granter) = granter else { return Ok(None) };
        let request = QueryGrantsRequest {
            granter: granter.to_owned(),
            grantee: self.owner.clone(),
            ..QueryGrantsRequest::default()
        };
        let mut client = self.node.grants();
        let (holds, answer) = tokio::try_join!(
            self.spendable(granter, UACT),
            self.node.call("the treasury's grant", client.grants(request))
        )?;
        let terms = grants::deposits(&answer.grants).map_err(|flaw| self.node.invalid(flaw))?;
        Ok(Some(Grant { granter: granter.to_owned(), holds, terms }))
    }

    async fn fee_grant(
        &self,
        granter: Option<&str>,
        now: UnixMs,
    ) -> Result<Option<Grant>, ChainError> {
        let Some(granter) = granter else { return Ok(None) };
        let request =
            QueryAllowanceRequest { granter: granter.to_owned(), grantee: self.owner.clone() };
        let allowance = async {
            let mut client = self.node.allowances();
            let answer = self.node.call("the fee grant", client.allowance(request)).await;
            absent(answer, codes::SDK, codes::NOT_FOUND)
        };
        let (holds, answer) = tokio::try_join!(self.spendable(granter, UAKT), allowance)?;
        let terms = answer.and_then(|a| a.allowance?.allowance).map(|any| grants::fees(&any, now));
        let terms = terms.transpose().map_err(|flaw| self.node.invalid(flaw))?;
        Ok(Some(Grant { granter: granter.to_owned(), holds, terms }))
    }

    async fn spendable(&self, address: &str, denom: &str) -> Result<u64, ChainError> {
        let request = QuerySpendableBalanceByDenomRequest {
            address: address.to_owned(),
            denom: denom.into(),
        };
        let answer = self
            .node
            .call("a balance", self.node.balances().spendable_balance_by_denom(request))
            .await?;
        view::coins(answer.balance.as_slice(), denom).map_err(|flaw| self.node.invalid(flaw))
    }

    async fn min_deposit(&self) -> Result<u64, ChainError> {
        let request = deployment::QueryParamsRequest {};
        let answer = self
            .node
            .call("the deployment parameters", self.node.deployments().params(request))
            .await?;
        let params = self.node.part(answer.params, "deployment parameters")?;
        view::coins(&params.min_deposits, UACT).map_err(|flaw| self.node.invalid(flaw))
    }

    async fn scope(&self, scope: Scope<'_>) -> Result<BTreeMap<u64, Parts>, ChainError> {
        match scope {
            // On the heap, as all that reads much at once.
            Scope::All { known } => Box::pin(self.parts(known)).await,
            Scope::Only(dseqs) => {
                let dseqs = dseqs.iter().copied().collect();
                let part = |reader: Self, dseq| async move { Box::pin(reader.part(dseq)).await };
                let found = self.each(dseqs, part).await?;
                Ok(found.into_iter().filter_map(|(dseq, of)| Some((dseq, of?))).collect())
            }
        }
    }

    /// All answers about one deployment.
    async fn part(&self, dseq: u64) -> Result<Option<Parts>, ChainError> {
        let Some(deployment) = self.one(dseq).await? else { return Ok(None) };
        let (orders, bids, leases) =
            tokio::try_join!(self.open_orders(dseq), self.open_bids(dseq), self.leases(dseq, ""))?;
        Ok(Some(Parts { deployment, orders, bids, leases }))
    }

    /// All answers, sorted by deployment.
    async fn parts(&self, known: &BTreeSet<u64>) -> Result<BTreeMap<u64, Parts>, ChainError> {
        let (active, orders, bids, running, leaving) = tokio::try_join!(
            self.active(),
            self.open_orders(0),
            self.open_bids(0),
            self.leases(0, "active"),
            // Not among the active ones, and paid all the same.
            self.leases(0, "reclaiming"),
        )?;
        let mut parts: BTreeMap<u64, Parts> = BTreeMap::new();
        for deployment in active {
            let id = deployment.deployment.as_ref().and_then(|d| d.id.as_ref());
            let dseq = self.node.part(id, "deployment id")?.dseq;
            parts.insert(dseq, Parts { deployment, ..Parts::default() });
        }
        let missing: Vec<_> =
            known.iter().copied().filter(|dseq| !parts.contains_key(dseq)).collect();
        for (dseq, found) in
            self.each(missing, |reader, dseq| async move { reader.one(dseq).await }).await?
        {
            if let Some(deployment) = found {
                parts.insert(dseq, Parts { deployment, ..Parts::default() });
            }
        }
        for order in orders {
            if let Some(of) = order.id.as_ref().and_then(|id| parts.get_mut(&id.dseq)) {
                of.orders.push(order);
            }
        }
        for bid in bids {
            if let Some(of) = bid.id.as_ref().and_then(|id| parts.get_mut(&id.dseq)) {
                of.bids.push(bid);
            }
        }
        for lease in running.into_iter().chain(leaving) {
            let id = lease.lease.as_ref().and_then(|l| l.id.as_ref());
            if let Some(of) = id.and_then(|id| parts.get_mut(&id.dseq)) {
                of.leases.push(lease);
            }
        }
        let unclear = parts.iter().filter(|(_, of)| !is_all(&of.leases) && !is_first(&of.orders));
        let unclear = unclear.map(|(dseq, _)| *dseq).collect();
        for (dseq, leases) in
            self.each(unclear, |reader, dseq| async move { reader.leases(dseq, "").await }).await?
        {
            if let Some(of) = parts.get_mut(&dseq) {
                of.leases = leases;
            }
        }
        Ok(parts)
    }

    async fn active(&self) -> Result<Vec<deployment::QueryDeploymentResponse>, ChainError> {
        let filters = deployment::DeploymentFilters {
            owner: self.owner.clone(),
            dseq: 0,
            state: "active".into(),
        };
        self.node
            .pages("the deployments", |node, page| {
                let request = deployment::QueryDeploymentsRequest {
                    filters: Some(filters.clone()),
                    pagination: Some(page),
                };
                async move {
                    let answer = node
                        .call("the deployments", node.deployments().deployments(request))
                        .await?;
                    Ok((answer.deployments, answer.pagination))
                }
            })
            .await
    }

    /// `None` for one that was never created.
    async fn one(
        &self,
        dseq: u64,
    ) -> Result<Option<deployment::QueryDeploymentResponse>, ChainError> {
        let id = Some(DeploymentId { owner: self.owner.clone(), dseq });
        let request = deployment::QueryDeploymentRequest { id };
        absent(
            self.node.call("a deployment", self.node.deployments().deployment(request)).await,
            "deployment",
            4,
        )
    }

    /// Of one deployment (0: of all).
    async fn open_orders(&self, dseq: u64) -> Result<Vec<market::Order>, ChainError> {
        let filters = market::OrderFilters {
            owner: self.owner.clone(),
            dseq,
            state: "open".into(),
            ..Default::default()
        };
        self.node
            .pages("the orders", |node, page| {
                let request = market::QueryOrdersRequest {
                    filters: Some(filters.clone()),
                    pagination: Some(page),
                };
                async move {
                    let answer = node.call("the orders", node.market().orders(request)).await?;
                    Ok((answer.orders, answer.pagination))
                }
            })
            .await
    }

    /// Of one deployment (0: of all).
    async fn open_bids(&self, dseq: u64) -> Result<Vec<market::Bid>, ChainError> {
        let filters = market::BidFilters {
            owner: self.owner.clone(),
            dseq,
            state: "open".into(),
            ..Default::default()
        };
        self.node
            .pages("the bids", |node, page| {
                let request = market::QueryBidsRequest {
                    filters: Some(filters.clone()),
                    pagination: Some(page),
                };
                async move {
                    let answer = node.call("the bids", node.market().bids(request)).await?;
                    Ok((answer.bids.into_iter().filter_map(|b| b.bid).collect(), answer.pagination))
                }
            })
            .await
    }

    /// Leases of one deployment (0: of all) in one state (empty: in any).
    async fn leases(
        &self,
        dseq: u64,
        state: &str,
    ) -> Result<Vec<market::QueryLeaseResponse>, ChainError> {
        let filters = LeaseFilters {
            owner: self.owner.clone(),
            dseq,
            state: state.into(),
            ..Default::default()
        };
        self.node
            .pages("the leases", |node, page| {
                let request = market::QueryLeasesRequest {
                    filters: Some(filters.clone()),
                    pagination: Some(page),
                };
                async move {
                    let answer = node.call("the leases", node.market().leases(request)).await?;
                    Ok((answer.leases, answer.pagination))
                }
            })
            .await
    }

    /// Asks the same of each, a few at a time.
    async fn each<K, T, Fut>(
        &self,
        of: Vec<K>,
        ask: impl Fn(Reader, K) -> Fut,
    ) -> Result<Vec<(K, T)>, ChainError>
    where
        K: Clone,
        Fut: Future<Output = Result<T, ChainError>>,
    {
        let asked: Vec<_> = of
            .into_iter()
            .map(|key| {
                let answer = ask(self.clone(), key.clone());
                async move { Ok((key, answer.await?)) }
            })
            .collect();
        futures::stream::iter(asked).buffer_unordered(AT_ONCE).try_collect().await
    }

    async fn providers(
        &self,
        addresses: BTreeSet<String>,
        cache: &Providers,
    ) -> Result<BTreeMap<String, ProviderView>, ChainError> {
        let mut known = cache.fresh();
        known.retain(|address, _| addresses.contains(address));
        let unknown: Vec<_> =
            addresses.into_iter().filter(|address| !known.contains_key(address)).collect();
        let found = if unknown.len() > FEW {
            let all = offers::registered(&self.node).await?;
            let mut all: BTreeMap<_, _> =
                all.into_iter().map(|view| (view.address.clone(), view)).collect();
            let found = unknown.into_iter().map(|address| {
                let view = all.remove(&address);
                (address, view)
            });
            found.collect()
        } else {
            let ask = |reader: Self, address| async move { reader.provider(address).await };
            self.each(unknown, ask).await?
        };
        for (address, provider) in found {
            cache.keep(address.clone(), provider.clone());
            known.insert(address, provider);
        }
        Ok(known.into_iter().filter_map(|(address, provider)| Some((address, provider?))).collect())
    }

    async fn provider(&self, address: String) -> Result<Option<ProviderView>, ChainError> {
        let request = QueryProviderRequest { owner: address };
        let answer = absent(
            self.node.call("a provider", self.node.providers().provider(request)).await,
            "provider",
            3,
        )?;
        Ok(answer.and_then(|a| a.provider).map(offers::shown))
    }
}

/// Whether the running leases are all there ever were: one from the first order has none before it.
fn is_all(running: &[market::QueryLeaseResponse]) -> bool {
    !running.is_empty()
        && running
            .iter()
            .all(|l| l.lease.as_ref().and_then(|l| l.id.as_ref()).is_some_and(|id| id.oseq == 1))
}

/// Whether the first order is still open: there was no lease before it.
fn is_first(open: &[market::Order]) -> bool {
    open.iter().any(|order| order.id.as_ref().is_some_and(|id| id.oseq == 1))
}

/// Turns the refusal that means "there is none" into `None`.
fn absent<T>(
    answer: Result<T, ChainError>,
    module: &str,
    number: u32,
) -> Result<Option<T>, ChainError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        // Plain gRPC "not found" comes from modules that do not name themselves.
        Err(ChainError::Refused { codespace, code, .. })
            if codespace == module && code == number || codespace == "grpc" && code == 5 =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
