//! Recorded messages are read and written to the byte.

use akash_redis::chain::tx;
use akash_redis::chain::wallet::Wallet;
use akash_redis::model::chain::ChainMsg;
use akash_redis::model::group::{Endpoint, GroupSpec, Resources, Storage};
use akash_redis::model::money::{DEC_ONE, PricePerBlock, Uact};
use akash_redis::wire::akash::deployment::v1beta4::{
    QueryDeploymentResponse, QueryDeploymentsRequest, QueryDeploymentsResponse,
};
use akash_redis::wire::akash::market::v1beta5::QueryLeasesRequest;
use akash_redis::wire::cosmos::base::tendermint::v1beta1::GetLatestBlockResponse;
use akash_redis::wire::cosmos::tx::v1beta1::{SimulateRequest, TxBody, TxRaw};
use akash_redis::wire::{akash, cosmos};
use prost::Message;

use super::node::*;
use super::{CHAIN_ID, DSEQ, OWNER, PHRASE};

/// Decodes and encodes again: nothing of the request may get lost, and every answer must be
/// readable.
fn passes<Q: Message + Default, A: Message + Default>(case: &Case) {
    let request =
        Q::decode(case.request().as_slice()).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    assert_eq!(hex::encode(request.encode_to_vec()), case.request, "request of {}", case.name);
    match case.answer() {
        Ok(answer) => {
            A::decode(answer.as_slice()).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        }
        Err(status) => assert!(!status.message().is_empty(), "{} has no reason", case.name),
    }
}

#[test]
#[allow(clippy::too_many_lines)] // one arm for each method that was recorded
fn every_recorded_exchange_is_understood() {
    use akash::{bme, cert, deployment, discovery, escrow, market, provider};
    use cosmos::base::{node::v1beta1 as node, tendermint::v1beta1 as blocks};
    use cosmos::{auth, authz, bank, feegrant, tx};
    for case in cases() {
        let (service, method) = case.method[1..].split_once('/').expect("a path");
        match (service, method) {
            ("akash.bme.v1.Query", "Params") => {
                passes::<bme::v1::QueryParamsRequest, bme::v1::QueryParamsResponse>(&case);
            }
            ("akash.bme.v1.Query", "Status") => {
                passes::<bme::v1::QueryStatusRequest, bme::v1::QueryStatusResponse>(&case);
            }
            ("akash.cert.v1.Query", _) => passes::<
                cert::v1::QueryCertificatesRequest,
                cert::v1::QueryCertificatesResponse,
            >(&case),
            ("akash.deployment.v1beta4.Query", "Deployments") => {
                passes::<QueryDeploymentsRequest, QueryDeploymentsResponse>(&case);
            }
            ("akash.deployment.v1beta4.Query", "Deployment") => {
                passes::<deployment::v1beta4::QueryDeploymentRequest, QueryDeploymentResponse>(
                    &case,
                );
            }
            ("akash.deployment.v1beta4.Query", "Params") => {
                passes::<
                    deployment::v1beta4::QueryParamsRequest,
                    deployment::v1beta4::QueryParamsResponse,
                >(&case);
            }
            ("akash.discovery.v1.Discovery", _) => {
                passes::<discovery::v1::GetInfoRequest, discovery::v1::GetInfoResponse>(&case);
            }
            ("akash.escrow.v1.Query", "Accounts") => {
                passes::<escrow::v1::QueryAccountsRequest, escrow::v1::QueryAccountsResponse>(
                    &case,
                );
            }
            ("akash.escrow.v1.Query", _) => {
                passes::<escrow::v1::QueryPaymentsRequest, escrow::v1::QueryPaymentsResponse>(
                    &case,
                );
            }
            ("akash.market.v1beta5.Query", "Bid") => {
                passes::<market::v1beta5::QueryBidRequest, market::v1beta5::QueryBidResponse>(
                    &case,
                );
            }
            ("akash.market.v1beta5.Query", "Bids") => {
                passes::<market::v1beta5::QueryBidsRequest, market::v1beta5::QueryBidsResponse>(
                    &case,
                );
            }
            ("akash.market.v1beta5.Query", "Lease") => {
                passes::<market::v1beta5::QueryLeaseRequest, market::v1beta5::QueryLeaseResponse>(
                    &case,
                );
            }
            ("akash.market.v1beta5.Query", "Leases") => {
                passes::<QueryLeasesRequest, market::v1beta5::QueryLeasesResponse>(&case);
            }
            ("akash.market.v1beta5.Query", "Order") => {
                passes::<market::v1beta5::QueryOrderRequest, market::v1beta5::QueryOrderResponse>(
                    &case,
                );
            }
            ("akash.market.v1beta5.Query", "Orders") => {
                passes::<market::v1beta5::QueryOrdersRequest, market::v1beta5::QueryOrdersResponse>(
                    &case,
                );
            }
            ("akash.market.v1beta5.Query", "Params") => {
                passes::<market::v1beta5::QueryParamsRequest, market::v1beta5::QueryParamsResponse>(
                    &case,
                );
            }
            ("akash.provider.v1beta4.Query", "Provider") => {
                passes::<
                    provider::v1beta4::QueryProviderRequest,
                    provider::v1beta4::QueryProviderResponse,
                >(&case);
            }
            ("akash.provider.v1beta4.Query", _) => {
                passes::<
                    provider::v1beta4::QueryProvidersRequest,
                    provider::v1beta4::QueryProvidersResponse,
                >(&case);
            }
            ("cosmos.auth.v1beta1.Query", _) => {
                passes::<
                    auth::v1beta1::QueryAccountInfoRequest,
                    auth::v1beta1::QueryAccountInfoResponse,
                >(&case);
            }
            ("cosmos.authz.v1beta1.Query", "Grants") => {
                passes::<authz::v1beta1::QueryGrantsRequest, authz::v1beta1::QueryGrantsResponse>(
                    &case,
                );
            }
            ("cosmos.authz.v1beta1.Query", _) => {
                passes::<
                    authz::v1beta1::QueryGranteeGrantsRequest,
                    authz::v1beta1::QueryGranteeGrantsResponse,
                >(&case);
            }
            ("cosmos.bank.v1beta1.Query", "Balance") => {
                passes::<bank::v1beta1::QueryBalanceRequest, bank::v1beta1::QueryBalanceResponse>(
                    &case,
                );
            }
            ("cosmos.bank.v1beta1.Query", _) => {
                passes::<
                    bank::v1beta1::QuerySpendableBalanceByDenomRequest,
                    bank::v1beta1::QuerySpendableBalanceByDenomResponse,
                >(&case);
            }
            ("cosmos.base.node.v1beta1.Service", "Config") => {
                passes::<node::ConfigRequest, node::ConfigResponse>(&case);
            }
            ("cosmos.base.node.v1beta1.Service", _) => {
                passes::<node::StatusRequest, node::StatusResponse>(&case);
            }
            ("cosmos.base.tendermint.v1beta1.Service", "GetLatestBlock") => {
                passes::<blocks::GetLatestBlockRequest, GetLatestBlockResponse>(&case);
            }
            ("cosmos.base.tendermint.v1beta1.Service", _) => {
                passes::<blocks::GetSyncingRequest, blocks::GetSyncingResponse>(&case);
            }
            ("cosmos.feegrant.v1beta1.Query", _) => {
                passes::<
                    feegrant::v1beta1::QueryAllowanceRequest,
                    feegrant::v1beta1::QueryAllowanceResponse,
                >(&case);
            }
            ("cosmos.tx.v1beta1.Service", "BroadcastTx") => {
                passes::<tx::v1beta1::BroadcastTxRequest, tx::v1beta1::BroadcastTxResponse>(&case);
            }
            ("cosmos.tx.v1beta1.Service", "GetTx") => {
                passes::<tx::v1beta1::GetTxRequest, tx::v1beta1::GetTxResponse>(&case);
            }
            ("cosmos.tx.v1beta1.Service", _) => {
                passes::<SimulateRequest, tx::v1beta1::SimulateResponse>(&case);
            }
            other => panic!("{}: no message known for {other:?}", case.name),
        }
    }
}

/// The group of the recorded transactions.
fn recorded_group() -> GroupSpec {
    GroupSpec {
        name: "dc1".into(),
        attributes: vec![("region".into(), "us-west".into())],
        signed_by_all_of: Vec::new(),
        signed_by_any_of: Vec::new(),
        resources: Resources {
            id: 1,
            cpu_milli: 500,
            memory_bytes: 512 << 20,
            storage: vec![Storage {
                name: "default".into(),
                bytes: 1 << 30,
                attributes: Vec::new(),
            }],
            endpoints: vec![Endpoint::SharedHttp],
        },
        price: PricePerBlock(1000 * DEC_ONE),
    }
}

/// A transaction that a real chain accepted, made again from what it says: every byte and the
/// signature are the same.
#[test]
fn an_accepted_transaction_is_reproduced_to_the_byte() {
    let request = cosmos::tx::v1beta1::BroadcastTxRequest::decode(
        recorded("BroadcastTx unordered, accepted").request().as_slice(),
    );
    let sent = request.expect("a request").tx_bytes;
    let raw = TxRaw::decode(sent.as_slice()).expect("a transaction");
    let timeout = TxBody::decode(raw.body_bytes.as_slice())
        .expect("a body")
        .timeout_timestamp
        .expect("a time-out");
    let msg = ChainMsg::CreateDeployment {
        dseq: DSEQ + 1,
        group: recorded_group(),
        hash: [0x11; 32],
        deposit: Uact(5_000_000),
    };
    let wallet = Wallet::from_phrase(&PHRASE.into(), 0).expect("a good phrase");
    let body = tx::body(OWNER, &msg, timeout);
    let auth_info = tx::auth_info(
        wallet.public_key(),
        &tx::FeeOffer { uakt: 10_000, gas: 400_000, granter: None },
    );
    let signature = wallet.sign(&tx::sign_doc(&body, &auth_info, CHAIN_ID, 0));
    let made = tx::raw(body, auth_info, signature.to_vec());
    assert_eq!(hex::encode(&made), hex::encode(&sent));
    assert_eq!(tx::hash(&made), "BC467BA0E578492B20138374FCDB02A9C788C33E95104023E82A89C578C659C8");
}
