//! A provider of the local market: it bids, wins leases and closes them on the chain, and a host
//! runs what was leased.

pub mod certificate;
pub mod chain;
pub mod client;
pub mod container;
pub mod faults;
pub mod gateway;
pub mod host;
pub mod ingress;
pub mod jwt;
pub mod logs;
pub mod manifest;
pub mod market;
pub mod price;
pub mod runner;
mod volumes;

use async_trait::async_trait;

/// Runs what the market half wins.
#[async_trait]
pub trait LeaseHost: Send + Sync {
    /// A bid of this provider was taken.
    async fn lease_won(&self, owner: &str, dseq: u64, gseq: u32, oseq: u32);
    /// A lease of this provider ended: its workload goes, with all it holds.
    async fn lease_closed(&self, owner: &str, dseq: u64, gseq: u32, oseq: u32);
}

#[async_trait]
impl LeaseHost for host::ProviderHost {
    async fn lease_won(&self, owner: &str, dseq: u64, gseq: u32, oseq: u32) {
        Self::lease_won(self, owner, dseq, gseq, oseq).await;
    }

    async fn lease_closed(&self, owner: &str, dseq: u64, gseq: u32, oseq: u32) {
        Self::lease_closed(self, owner, dseq, gseq, oseq).await;
    }
}
