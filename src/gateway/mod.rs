//! A provider's REST gateway: the manifest goes there, the state of a lease comes from there.

pub mod address;
pub mod client;
pub mod jwt;
pub mod status_page;
pub mod tls;

use async_trait::async_trait;

use crate::model::chain::ProviderView;
use crate::model::ids::LeaseId;
use crate::model::inventory::LeaseStatus;

pub use client::GatewayClient;
pub use status_page::{StatusPage, StatusPageError, fetch_status_page};

/// Why a gateway did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// No answer, or none in time.
    #[error(
        "the gateway of {provider} does not answer ({detail}); its node goes on, its manifest cannot change"
    )]
    Away {
        /// Provider's address.
        provider: String,
        /// What the transport said.
        detail: String,
    },
    /// Whoever answered is not the leased provider.
    #[error("{host_uri} does not prove to be {provider} ({detail}); nothing was sent to it")]
    NotTheProvider {
        /// Provider's address.
        provider: String,
        /// Its registered URI.
        host_uri: String,
        /// What was wrong.
        detail: String,
    },
    /// It answered and said no.
    #[error("the gateway of {provider} refused {what}: {status} {body}")]
    Refused {
        /// Provider's address.
        provider: String,
        /// What was asked.
        what: String,
        /// HTTP status.
        status: u16,
        /// Its text, shortened.
        body: String,
    },
}

/// All gateways, each reached by what the chain says of its provider.
#[async_trait]
pub trait Gateway: Send + Sync {
    /// Brings the manifest (canonical JSON) of a lease. Idempotent.
    async fn put_manifest(
        &self,
        provider: &ProviderView,
        lease: &LeaseId,
        manifest: &str,
    ) -> Result<(), GatewayError>;

    /// The lease by the provider's word; a gateway that is away is an answer too.
    async fn lease_status(&self, provider: &ProviderView, lease: &LeaseId) -> LeaseStatus;

    /// The status page at a host name that the provider gave the lease. Whose it is has to be
    /// proved by its signature.
    async fn status_page(&self, host: &str, nonce: &str) -> Result<StatusPage, StatusPageError>;
}

/// The certificates that the chain lists for a provider.
#[async_trait]
pub trait ProviderCertificates: Send + Sync {
    /// Those in state valid for exactly this account, each as DER; empty when it has none. The
    /// error says why they cannot be read.
    async fn valid(&self, provider: &str) -> Result<Vec<Vec<u8>>, String>;
}
