//! The Akash chain over gRPC: reading everything of one owner, signing, sending, confirming.

mod block_time;
pub mod booking;
mod broadcast;
mod certificates;
pub mod client;
mod codes;
mod endpoint;
pub mod endpoints;
pub mod fees;
mod floor;
mod grants;
mod introduce;
pub mod mint;
mod offers;
mod pages;
mod read;
mod rest;
pub mod statement;
pub mod tx;
pub mod view;
pub mod wallet;

use std::collections::BTreeSet;

use async_trait::async_trait;

use crate::model::chain::{ChainMsg, ChainView, ProviderOffer, SignedTx, TxOutcome};

/// Why the chain could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// No answer, or none in time: nothing is known about the outcome.
    #[error(
        "the chain at {endpoint} does not answer ({source}); leases cannot change until it does, Redis goes on; check `chain.grpc`"
    )]
    Away {
        /// Which endpoint.
        endpoint: String,
        /// What the transport said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The node answered and said no.
    #[error("the chain refused {what}: {codespace} code {code}, {log}")]
    Refused {
        /// What was asked.
        what: String,
        /// Module of the chain that the code is of.
        codespace: String,
        /// Number of the refusal within the codespace.
        code: u32,
        /// Its text, shortened.
        log: String,
    },
    /// Nothing was sent, by our own limits.
    #[error("{what} is not sent: {why}")]
    NotSent {
        /// What was to be done.
        what: String,
        /// Which limit, and what to do.
        why: String,
    },
    /// The node answered with something else than what was asked for.
    #[error(
        "the chain at {endpoint} answered something that cannot be used ({detail}); check that `chain.grpc` is a node of {chain_id}"
    )]
    InvalidResponse {
        /// Which endpoint.
        endpoint: String,
        /// Chain id of the configuration.
        chain_id: String,
        /// What was odd.
        detail: String,
    },
}

/// The chain, seen by one owner.
#[async_trait]
pub trait Chain: Send + Sync {
    /// The owner's account.
    fn owner(&self) -> &str;

    /// Reads all active deployments of the owner with what hangs on them, paged to the end, and
    /// those of `known` in whatever state. Either all of it or an error.
    async fn read(&self, known: &BTreeSet<u64>) -> Result<ChainView, ChainError>;

    /// Reads these deployments alone, in whatever state, with what hangs on them and the wallet's
    /// balances. One that the chain never heard of is left out.
    async fn read_deployments(&self, dseqs: &BTreeSet<u64>) -> Result<ChainView, ChainError>;

    /// Simulates and signs one message; nothing is sent. The bytes stay valid for at most 60 s of
    /// block time. An error when it would cost more than it may, or failed for its fee too often.
    async fn sign(&self, msg: &ChainMsg) -> Result<SignedTx, ChainError>;

    /// Sends these bytes (again) and waits until they landed, failed, or can no longer land.
    /// An error means that the outcome is not known yet: call again with the same bytes.
    async fn broadcast_and_confirm(&self, tx: &SignedTx) -> Result<TxOutcome, ChainError>;

    /// All registered providers, also those that never bid on anything of ours; what auditors signed
    /// of them only with `audited`.
    async fn providers(&self, audited: bool) -> Result<Vec<ProviderOffer>, ChainError>;
}
