//! The query services: each call is a question to the ledger's view of one height.

use tonic::{Request, Response, Status};

use super::Api;
use crate::devnet::account::{any, timestamp};
use crate::devnet::ledger::{ONE, View};
use crate::wire::akash::audit::v1 as audit;
use crate::wire::akash::bme::v1 as bme;
use crate::wire::akash::cert::v1 as cert;
use crate::wire::akash::deployment::v1beta4 as deployment;
use crate::wire::akash::discovery::v1 as discovery;
use crate::wire::akash::escrow::v1 as escrow;
use crate::wire::akash::market::v1beta5 as market;
use crate::wire::akash::oracle::v2 as oracle;
use crate::wire::akash::provider::v1beta4 as provider;
use crate::wire::cosmos::auth::v1beta1 as auth;
use crate::wire::cosmos::authz::v1beta1 as authz;
use crate::wire::cosmos::bank::v1beta1 as bank;
use crate::wire::cosmos::base::node::v1beta1 as node;
use crate::wire::cosmos::base::tendermint::v1beta1 as tendermint;
use crate::wire::cosmos::base::v1beta1::Coin;
use crate::wire::cosmos::feegrant::v1beta1 as feegrant;
use crate::wire::tendermint::p2p::DefaultNodeInfo;

/// Version that the node claims: the real one that the ledger is like.
const VERSION: &str = "2.1.0";
/// Modules with the versions of their protocol, as the real node lists them.
const MODULES: [(&str, &str); 8] = [
    ("audit", "v1"),
    ("bme", "v1"),
    ("cert", "v1"),
    ("deployment", "v1beta4"),
    ("escrow", "v1"),
    ("market", "v1beta5"),
    ("oracle", "v2"),
    ("provider", "v1beta4"),
];

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl deployment::query_server::Query for Api {
    async fn deployments(
        &self,
        request: Request<deployment::QueryDeploymentsRequest>,
    ) -> Reply<deployment::QueryDeploymentsResponse> {
        self.ask(request.metadata(), |view| view.query_deployments(request.get_ref())).await
    }

    async fn deployment(
        &self,
        request: Request<deployment::QueryDeploymentRequest>,
    ) -> Reply<deployment::QueryDeploymentResponse> {
        let id = request.get_ref().id.clone().unwrap_or_default();
        self.ask(request.metadata(), |view| view.query_deployment(&id)).await
    }

    async fn group(
        &self,
        request: Request<deployment::QueryGroupRequest>,
    ) -> Reply<deployment::QueryGroupResponse> {
        let id = request.get_ref().id.clone().unwrap_or_default();
        self.ask(request.metadata(), |view| {
            Ok(deployment::QueryGroupResponse { group: Some(view.query_group(&id)?) })
        })
        .await
    }

    async fn params(
        &self,
        request: Request<deployment::QueryParamsRequest>,
    ) -> Reply<deployment::QueryParamsResponse> {
        self.ask(request.metadata(), |view| {
            Ok(deployment::QueryParamsResponse { params: Some(view.deployment_params()) })
        })
        .await
    }
}

#[tonic::async_trait]
impl market::query_server::Query for Api {
    async fn orders(
        &self,
        request: Request<market::QueryOrdersRequest>,
    ) -> Reply<market::QueryOrdersResponse> {
        self.ask(request.metadata(), |view| view.query_orders(request.get_ref())).await
    }

    async fn order(
        &self,
        request: Request<market::QueryOrderRequest>,
    ) -> Reply<market::QueryOrderResponse> {
        let id = request.get_ref().id.clone().unwrap_or_default();
        self.ask(request.metadata(), |view| {
            Ok(market::QueryOrderResponse { order: Some(view.query_order(&id)?) })
        })
        .await
    }

    async fn bids(
        &self,
        request: Request<market::QueryBidsRequest>,
    ) -> Reply<market::QueryBidsResponse> {
        self.ask(request.metadata(), |view| view.query_bids(request.get_ref())).await
    }

    async fn bid(
        &self,
        request: Request<market::QueryBidRequest>,
    ) -> Reply<market::QueryBidResponse> {
        let id = request.get_ref().id.clone().unwrap_or_default();
        self.ask(request.metadata(), |view| view.query_bid(&id)).await
    }

    async fn leases(
        &self,
        request: Request<market::QueryLeasesRequest>,
    ) -> Reply<market::QueryLeasesResponse> {
        self.ask(request.metadata(), |view| view.query_leases(request.get_ref())).await
    }

    async fn lease(
        &self,
        request: Request<market::QueryLeaseRequest>,
    ) -> Reply<market::QueryLeaseResponse> {
        let id = request.get_ref().id.clone().unwrap_or_default();
        self.ask(request.metadata(), |view| view.query_lease(&id)).await
    }

    async fn params(
        &self,
        request: Request<market::QueryParamsRequest>,
    ) -> Reply<market::QueryParamsResponse> {
        self.ask(request.metadata(), |view| {
            Ok(market::QueryParamsResponse { params: Some(view.market_params()) })
        })
        .await
    }
}

#[tonic::async_trait]
impl escrow::query_server::Query for Api {
    async fn accounts(
        &self,
        request: Request<escrow::QueryAccountsRequest>,
    ) -> Reply<escrow::QueryAccountsResponse> {
        self.ask(request.metadata(), |view| view.query_accounts(request.get_ref())).await
    }

    async fn payments(
        &self,
        request: Request<escrow::QueryPaymentsRequest>,
    ) -> Reply<escrow::QueryPaymentsResponse> {
        self.ask(request.metadata(), |view| view.query_payments(request.get_ref())).await
    }
}

#[tonic::async_trait]
impl cert::query_server::Query for Api {
    async fn certificates(
        &self,
        request: Request<cert::QueryCertificatesRequest>,
    ) -> Reply<cert::QueryCertificatesResponse> {
        self.ask(request.metadata(), |view| view.query_certificates(request.get_ref())).await
    }
}

#[tonic::async_trait]
impl provider::query_server::Query for Api {
    async fn providers(
        &self,
        request: Request<provider::QueryProvidersRequest>,
    ) -> Reply<provider::QueryProvidersResponse> {
        self.ask(request.metadata(), |view| view.query_providers(request.get_ref())).await
    }

    async fn provider(
        &self,
        request: Request<provider::QueryProviderRequest>,
    ) -> Reply<provider::QueryProviderResponse> {
        let owner = request.get_ref().owner.clone();
        self.ask(request.metadata(), |view| {
            Ok(provider::QueryProviderResponse { provider: Some(view.query_provider(&owner)?) })
        })
        .await
    }
}

fn audited(view: &View, owner: &str, auditor: &str) -> audit::QueryProvidersResponse {
    let providers = view.audited(owner, auditor);
    let total = providers.len() as u64;
    let pagination = Some(crate::wire::cosmos::base::query::v1beta1::PageResponse {
        next_key: Vec::new(),
        total,
    });
    audit::QueryProvidersResponse { providers, pagination }
}

/// A list about one provider, which the real chain refuses to give empty.
fn audited_some(answer: audit::QueryProvidersResponse) -> Reply<audit::QueryProvidersResponse> {
    if answer.providers.is_empty() {
        return Err(Status::not_found(
            "codespace audit code 1: invalid provider: address not found",
        ));
    }
    Ok(Response::new(answer))
}

#[tonic::async_trait]
impl audit::query_server::Query for Api {
    async fn all_providers_attributes(
        &self,
        request: Request<audit::QueryAllProvidersAttributesRequest>,
    ) -> Reply<audit::QueryProvidersResponse> {
        self.ask(request.metadata(), |view| Ok(audited(view, "", ""))).await
    }

    async fn provider_attributes(
        &self,
        request: Request<audit::QueryProviderAttributesRequest>,
    ) -> Reply<audit::QueryProvidersResponse> {
        let answer = self
            .ask(request.metadata(), |view| Ok(audited(view, &request.get_ref().owner, "")))
            .await?;
        audited_some(answer.into_inner())
    }

    async fn provider_auditor_attributes(
        &self,
        request: Request<audit::QueryProviderAuditorRequest>,
    ) -> Reply<audit::QueryProvidersResponse> {
        let asked = request.get_ref();
        let answer = self
            .ask(request.metadata(), |view| Ok(audited(view, &asked.owner, &asked.auditor)))
            .await?;
        audited_some(answer.into_inner())
    }

    async fn auditor_attributes(
        &self,
        request: Request<audit::QueryAuditorAttributesRequest>,
    ) -> Reply<audit::QueryProvidersResponse> {
        self.ask(request.metadata(), |view| Ok(audited(view, "", &request.get_ref().auditor))).await
    }
}

#[tonic::async_trait]
impl bme::query_server::Query for Api {
    async fn status(
        &self,
        request: Request<bme::QueryStatusRequest>,
    ) -> Reply<bme::QueryStatusResponse> {
        let healthy = bme::QueryStatusResponse {
            status: bme::MintStatus::Healthy.into(),
            collateral_ratio: ONE.to_string(),
            warn_threshold: (ONE / 100 * 95).to_string(),
            halt_threshold: (ONE / 100 * 90).to_string(),
            mints_allowed: true,
            refunds_allowed: true,
        };
        let fed = self.ask(request.metadata(), |view| Ok(view.akt_price())).await?;
        fed.into_inner().map(|_| Response::new(healthy)).ok_or_else(stalled)
    }

    async fn params(
        &self,
        request: Request<bme::QueryParamsRequest>,
    ) -> Reply<bme::QueryParamsResponse> {
        let params = |view: &View| bme::QueryParamsResponse { params: Some(view.mint_params()) };
        self.ask(request.metadata(), |view| Ok(params(view))).await
    }

    async fn ledger_records(
        &self,
        request: Request<bme::QueryLedgerRecordsRequest>,
    ) -> Reply<bme::QueryLedgerRecordsResponse> {
        let filters = request.get_ref().filters.clone().unwrap_or_default();
        self.ask(request.metadata(), |view| {
            let records = view.mints(&filters.source);
            Ok(bme::QueryLedgerRecordsResponse { records, pagination: None })
        })
        .await
    }
}

/// As a real node says it while nobody feeds its oracle.
fn stalled() -> Status {
    Status::unknown(
        "codespace oracle.v2 code 4: price stalled: collections: not found: key 'akt/usd'",
    )
}

#[tonic::async_trait]
impl oracle::query_server::Query for Api {
    async fn aggregated_price(
        &self,
        request: Request<oracle::QueryAggregatedPriceRequest>,
    ) -> Reply<oracle::QueryAggregatedPriceResponse> {
        let price = self.ask(request.metadata(), |view| Ok(view.akt_price())).await?;
        price.into_inner().map(Response::new).ok_or_else(stalled)
    }
}

#[tonic::async_trait]
impl discovery::discovery_server::Discovery for Api {
    async fn get_info(
        &self,
        request: Request<discovery::GetInfoRequest>,
    ) -> Reply<discovery::GetInfoResponse> {
        let module = |(module, version): &(&str, &str)| discovery::ModuleVersion {
            module: (*module).into(),
            version: (*version).into(),
        };
        let modules: Vec<_> = MODULES.iter().map(module).collect();
        let supported = ["v1beta4", "v1beta3"].map(|version| discovery::VersionInfo {
            api_version: version.into(),
            modules: modules.clone(),
            features: Vec::new(),
        });
        let info = |view: &View| discovery::Akash {
            client_info: Some(discovery::ClientInfo { api_version: "v1beta3".into() }),
            supported_versions: supported.to_vec(),
            chain_id: view.genesis().chain_id.clone(),
            node_version: VERSION.into(),
            min_client_version: String::new(),
        };
        self.ask(request.metadata(), |view| {
            Ok(discovery::GetInfoResponse { info: Some(info(view)) })
        })
        .await
    }
}

#[tonic::async_trait]
impl auth::query_server::Query for Api {
    async fn account_info(
        &self,
        request: Request<auth::QueryAccountInfoRequest>,
    ) -> Reply<auth::QueryAccountInfoResponse> {
        let address = &request.get_ref().address;
        self.ask(request.metadata(), |view| {
            Ok(auth::QueryAccountInfoResponse { info: Some(view.account_info(address)?) })
        })
        .await
    }
}

fn balance(view: &View, address: &str, denom: &str) -> Coin {
    Coin { denom: denom.to_owned(), amount: view.balance(address, denom).to_string() }
}

#[tonic::async_trait]
impl bank::query_server::Query for Api {
    async fn balance(
        &self,
        request: Request<bank::QueryBalanceRequest>,
    ) -> Reply<bank::QueryBalanceResponse> {
        let asked = request.get_ref();
        let answer = |view: &View| bank::QueryBalanceResponse {
            balance: Some(balance(view, &asked.address, &asked.denom)),
        };
        self.ask(request.metadata(), |view| Ok(answer(view))).await
    }

    async fn all_balances(
        &self,
        request: Request<bank::QueryAllBalancesRequest>,
    ) -> Reply<bank::QueryAllBalancesResponse> {
        let address = &request.get_ref().address;
        self.ask(request.metadata(), |view| {
            let balances = view.balances(address);
            let total = balances.len() as u64;
            let pagination = Some(crate::wire::cosmos::base::query::v1beta1::PageResponse {
                next_key: Vec::new(),
                total,
            });
            Ok(bank::QueryAllBalancesResponse { balances, pagination })
        })
        .await
    }

    async fn spendable_balance_by_denom(
        &self,
        request: Request<bank::QuerySpendableBalanceByDenomRequest>,
    ) -> Reply<bank::QuerySpendableBalanceByDenomResponse> {
        let asked = request.get_ref();
        let answer = |view: &View| bank::QuerySpendableBalanceByDenomResponse {
            balance: Some(balance(view, &asked.address, &asked.denom)),
        };
        self.ask(request.metadata(), |view| Ok(answer(view))).await
    }
}

/// Nobody has granted anything on this chain.
#[tonic::async_trait]
impl authz::query_server::Query for Api {
    async fn grants(
        &self,
        request: Request<authz::QueryGrantsRequest>,
    ) -> Reply<authz::QueryGrantsResponse> {
        let authz::QueryGrantsRequest { granter, grantee, .. } = request.get_ref().clone();
        let of = |it: authz::GrantAuthorization| authz::Grant {
            authorization: it.authorization,
            expiration: it.expiration,
        };
        self.ask(request.metadata(), |view| {
            let grants = view.deposit_grants(&granter, &grantee).into_iter().map(of).collect();
            Ok(authz::QueryGrantsResponse { grants, pagination: None })
        })
        .await
    }

    async fn grantee_grants(
        &self,
        request: Request<authz::QueryGranteeGrantsRequest>,
    ) -> Reply<authz::QueryGranteeGrantsResponse> {
        let grantee = request.get_ref().grantee.clone();
        self.ask(request.metadata(), |view| {
            let grants = view.deposit_grants("", &grantee);
            Ok(authz::QueryGranteeGrantsResponse { grants, pagination: None })
        })
        .await
    }
}

#[tonic::async_trait]
impl feegrant::query_server::Query for Api {
    async fn allowance(
        &self,
        request: Request<feegrant::QueryAllowanceRequest>,
    ) -> Reply<feegrant::QueryAllowanceResponse> {
        let feegrant::QueryAllowanceRequest { granter, grantee } = request.get_ref().clone();
        let answer =
            self.ask(request.metadata(), |view| Ok(view.fee_allowance(&granter, &grantee))).await?;
        let Some(allowance) = answer.into_inner() else {
            return Err(Status::internal("fee-grant not found: not found"));
        };
        let allowance = Some(any(&allowance));
        let allowance = Some(feegrant::Grant { granter, grantee, allowance });
        Ok(Response::new(feegrant::QueryAllowanceResponse { allowance }))
    }
}

#[tonic::async_trait]
impl node::service_server::Service for Api {
    async fn config(&self, request: Request<node::ConfigRequest>) -> Reply<node::ConfigResponse> {
        self.ask(request.metadata(), |view| {
            let milli = view.genesis().params.min_gas_price_milli;
            let minimum_gas_price =
                format!("{}.{:03}000000000000000uakt", milli / 1000, milli % 1000);
            Ok(node::ConfigResponse {
                minimum_gas_price,
                pruning_keep_recent: "0".into(),
                pruning_interval: "0".into(),
                halt_height: 0,
            })
        })
        .await
    }

    async fn status(&self, request: Request<node::StatusRequest>) -> Reply<node::StatusResponse> {
        self.ask(request.metadata(), |view| {
            let block = view.block();
            Ok(node::StatusResponse {
                height: block.height,
                timestamp: Some(timestamp(block.time_ns)),
                ..node::StatusResponse::default()
            })
        })
        .await
    }
}

#[tonic::async_trait]
impl tendermint::service_server::Service for Api {
    async fn get_node_info(
        &self,
        request: Request<tendermint::GetNodeInfoRequest>,
    ) -> Reply<tendermint::GetNodeInfoResponse> {
        self.ask(request.metadata(), |view| {
            let network = view.genesis().chain_id.clone();
            let default_node_info =
                DefaultNodeInfo { network, moniker: "devnet".into(), ..DefaultNodeInfo::default() };
            let application_version = tendermint::VersionInfo {
                name: "akash".into(),
                app_name: "akash".into(),
                version: VERSION.into(),
                ..tendermint::VersionInfo::default()
            };
            Ok(tendermint::GetNodeInfoResponse {
                default_node_info: Some(default_node_info),
                application_version: Some(application_version),
            })
        })
        .await
    }

    async fn get_syncing(
        &self,
        request: Request<tendermint::GetSyncingRequest>,
    ) -> Reply<tendermint::GetSyncingResponse> {
        self.ask(request.metadata(), |_| Ok(tendermint::GetSyncingResponse { syncing: false }))
            .await
    }

    async fn get_latest_block(
        &self,
        request: Request<tendermint::GetLatestBlockRequest>,
    ) -> Reply<tendermint::GetLatestBlockResponse> {
        use crate::wire::tendermint::types;
        self.ask(request.metadata(), |view| {
            let (chain_id, block) = (view.genesis().chain_id.clone(), view.block());
            let height = i64::try_from(block.height).unwrap_or(i64::MAX);
            let time = Some(timestamp(block.time_ns));
            let header = types::Header {
                chain_id: chain_id.clone(),
                height,
                time,
                ..types::Header::default()
            };
            let sdk_header =
                tendermint::Header { chain_id, height, time, ..tendermint::Header::default() };
            Ok(tendermint::GetLatestBlockResponse {
                block_id: Some(types::BlockId::default()),
                block: Some(types::Block { header: Some(header), ..types::Block::default() }),
                sdk_block: Some(tendermint::Block {
                    header: Some(sdk_header),
                    ..tendermint::Block::default()
                }),
            })
        })
        .await
    }
}
