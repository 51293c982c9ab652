//! A tenant who leases something that is no node, as with Akash's own tools: deployment, bid, lease
//! and manifest over the wire, and no operator in between.

use std::collections::BTreeSet;
use std::sync::Arc;

use akash_redis::chain::Chain as _;
use akash_redis::chain::client::{ChainClient, ChainSettings, GasPrice};
use akash_redis::chain::fees::FeeLimits;
use akash_redis::chain::wallet::Wallet;
use akash_redis::devnet::market::Market;
use akash_redis::gateway::client::GatewayClient;
use akash_redis::gateway::{Gateway as _, ProviderCertificates};
use akash_redis::model::chain::{ChainMsg, DeploymentView, ProviderView, TxOutcome};
use akash_redis::model::ids::LeaseId;
use akash_redis::model::inventory::LeaseStatus;
use akash_redis::model::money::Uact;
use akash_redis::sdl;
use async_trait::async_trait;

use crate::akash_sdl::Deployment;
use crate::stage::until;

/// Millionths of an ACT that pay for a deployment of these tests.
const DEPOSIT: Uact = Uact(5_000_000);

/// The market's tenant, with the wallet that pays for the nodes too.
pub struct Tenant {
    chain: Arc<ChainClient>,
    gateway: GatewayClient,
}

/// What was leased.
pub struct Leased {
    pub id: LeaseId,
    provider: ProviderView,
}

struct OnChain(Arc<ChainClient>);

#[async_trait]
impl ProviderCertificates for OnChain {
    async fn valid(&self, provider: &str) -> Result<Vec<Vec<u8>>, String> {
        self.0.certificates(provider).await.map_err(|error| error.to_string())
    }
}

impl Tenant {
    pub fn of(market: &Market) -> Self {
        let wallet = Arc::new(Wallet::from_phrase(&market.mnemonic.as_str().into(), 0).unwrap());
        let settings = ChainSettings {
            chain_id: market.chain_id.clone(),
            grpc: vec![market.chain_url()],
            gas_price: GasPrice::USUAL,
            fee_granter: None,
            treasury: None,
            fee_limits: FeeLimits::USUAL,
        };
        let chain = Arc::new(ChainClient::connect(settings, wallet.clone()).unwrap());
        let owner = wallet.address().to_owned();
        let sign = Arc::new(move |bytes: &[u8]| wallet.sign(bytes));
        let certificates = Arc::new(OnChain(chain.clone()));
        Self { chain, gateway: GatewayClient::new(owner, sign, certificates, true) }
    }

    /// Leases it from the provider that asks for the least, and sends the manifest there.
    pub async fn lease(&self, dseq: u64, deployment: &Deployment) -> Leased {
        let manifest = deployment.manifest.canonical_text();
        self.sends(&ChainMsg::CreateDeployment {
            dseq,
            group: deployment.group.clone(),
            hash: sdl::hash(&manifest),
            deposit: DEPOSIT,
        })
        .await;
        let mut bids = Vec::new();
        until("bids", async || {
            bids = self.sees(dseq).await.bids;
            bids.len() > 1
        })
        .await;
        let bid = bids.into_iter().filter(|bid| bid.fits).min_by_key(|bid| bid.price).unwrap();
        self.sends(&ChainMsg::CreateLease(bid.id.clone())).await;
        let view = self.chain.read_deployments(&BTreeSet::from([dseq])).await.unwrap();
        let leased = Leased { provider: view.providers[&bid.id.provider].clone(), id: bid.id };
        self.gateway.put_manifest(&leased.provider, &leased.id, &manifest).await.unwrap();
        leased
    }

    /// The public name of what was leased, once the provider says that it runs.
    pub async fn address_of(&self, leased: &Leased) -> String {
        let mut uri = String::new();
        until("the provider to say that the lease runs", async || {
            let status = self.gateway.lease_status(&leased.provider, &leased.id).await;
            if let LeaseStatus::Deployed { ready: 1, uris } = status {
                uri = uris.first().cloned().unwrap_or_default();
            }
            !uri.is_empty()
        })
        .await;
        uri
    }

    /// What the chain says of a deployment.
    pub async fn sees(&self, dseq: u64) -> DeploymentView {
        let view = self.chain.read_deployments(&BTreeSet::from([dseq])).await.unwrap();
        view.deployments[&dseq].clone()
    }

    pub async fn close(&self, dseq: u64) {
        self.sends(&ChainMsg::CloseDeployment { dseq }).await;
    }

    async fn sends(&self, message: &ChainMsg) {
        let signed = self.chain.sign(message).await.unwrap();
        let outcome = self.chain.broadcast_and_confirm(&signed).await.unwrap();
        assert!(matches!(outcome, TxOutcome::Landed { .. }), "{message:?}: {outcome:?}");
    }
}
