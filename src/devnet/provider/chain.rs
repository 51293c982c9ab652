//! What a gateway asks the chain.

use async_trait::async_trait;
use prost::Message as _;
use tonic::Code;
use tonic::transport::Channel;

use crate::wire::akash::deployment::v1::DeploymentId;
use crate::wire::akash::deployment::v1beta4 as deployment;
use crate::wire::akash::market::v1::LeaseFilters;
use crate::wire::akash::market::v1beta5 as market;
use crate::wire::cosmos::auth::v1beta1 as auth;
use crate::wire::cosmos::crypto::secp256k1::PubKey;

/// An account by the chain's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// Never heard of.
    Unknown,
    /// Funded, but it never signed anything.
    WithoutKey,
    /// Its public key, 33 bytes.
    Key(Vec<u8>),
}

/// A deployment by the chain's word.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// Hash of its manifest.
    pub hash: Vec<u8>,
    /// Its groups by gseq.
    pub groups: Vec<deployment::GroupSpec>,
}

/// The chain, seen by one provider; errors are the transport's text.
#[async_trait]
pub trait Chain: Send + Sync {
    /// The account of a caller.
    async fn account(&self, address: &str) -> Result<Account, String>;
    /// A deployment, `None` when there is none.
    async fn deployment(&self, owner: &str, dseq: u64) -> Result<Option<Deployment>, String>;
    /// Group and order of the active leases that a provider has of a deployment.
    async fn leases(
        &self,
        owner: &str,
        dseq: u64,
        provider: &str,
    ) -> Result<Vec<(u32, u32)>, String>;
}

/// The chain over gRPC.
#[derive(Clone, Debug)]
pub struct GrpcChain {
    channel: Channel,
}

impl GrpcChain {
    /// Asks over this channel; its time-outs are the caller's.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        Self { channel }
    }
}

fn text(status: &tonic::Status) -> String {
    format!("rpc error: code = {:?} desc = {}", status.code(), status.message())
}

#[async_trait]
impl Chain for GrpcChain {
    async fn account(&self, address: &str) -> Result<Account, String> {
        let mut client = auth::query_client::QueryClient::new(self.channel.clone());
        let answer = match client
            .account_info(auth::QueryAccountInfoRequest { address: address.to_owned() })
            .await
        {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == Code::NotFound => return Ok(Account::Unknown),
            Err(status) => return Err(text(&status)),
        };
        let key = answer
            .info
            .and_then(|info| info.pub_key)
            .and_then(|any| PubKey::decode(any.value.as_slice()).ok());
        Ok(key.map_or(Account::WithoutKey, |key| Account::Key(key.key)))
    }

    async fn deployment(&self, owner: &str, dseq: u64) -> Result<Option<Deployment>, String> {
        let mut client = deployment::query_client::QueryClient::new(self.channel.clone());
        let id = DeploymentId { owner: owner.to_owned(), dseq };
        let answer =
            match client.deployment(deployment::QueryDeploymentRequest { id: Some(id) }).await {
                Ok(answer) => answer.into_inner(),
                Err(status) if status.code() == Code::NotFound => return Ok(None),
                Err(status) => return Err(text(&status)),
            };
        let groups = answer.groups.into_iter().filter_map(|group| group.group_spec).collect();
        Ok(answer.deployment.map(|found| Deployment { hash: found.hash, groups }))
    }

    async fn leases(
        &self,
        owner: &str,
        dseq: u64,
        provider: &str,
    ) -> Result<Vec<(u32, u32)>, String> {
        let mut client = market::query_client::QueryClient::new(self.channel.clone());
        let filters = LeaseFilters {
            owner: owner.to_owned(),
            dseq,
            provider: provider.to_owned(),
            state: "active".to_owned(),
            ..LeaseFilters::default()
        };
        let request = market::QueryLeasesRequest { filters: Some(filters), pagination: None };
        let answer = client.leases(request).await.map_err(|status| text(&status))?.into_inner();
        let ids = answer.leases.into_iter().filter_map(|one| one.lease?.id);
        Ok(ids.map(|id| (id.gseq, id.oseq)).collect())
    }
}
