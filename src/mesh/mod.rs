//! The tailnet: its control API, the local tailscaled, and dialling through it.

pub mod access;
pub mod agent_channel;
mod answers;
mod call;
pub mod control;
pub mod dial;
pub mod local;
pub mod outside;
pub mod policy;
mod refusal;
pub mod tailscaled;
mod token;

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;

use crate::model::ids::InstallationId;
use crate::model::mesh::MeshView;

/// Why the control API did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// No answer, or none in time: nothing is known about the outcome.
    #[error(
        "the mesh control API at {api} does not answer ({detail}); running links go on, nobody can join; check `mesh.api`"
    )]
    Away {
        /// Base URL.
        api: String,
        /// What the transport said.
        detail: String,
    },
    /// The credentials are not good enough.
    #[error("the mesh control API refused {what} ({status} {message}); {remedy}")]
    Forbidden {
        /// What was asked.
        what: String,
        /// HTTP status.
        status: u16,
        /// Its text.
        message: String,
        /// What to grant.
        remedy: String,
    },
    /// It answered and said no.
    #[error("the mesh control API refused {what}: {status} {message}")]
    Refused {
        /// What was asked.
        what: String,
        /// HTTP status.
        status: u16,
        /// Its text.
        message: String,
    },
}

/// A fresh auth key. The secret is shown only once.
#[derive(Debug)]
pub struct MintedKey {
    /// The API's key id.
    pub id: String,
    /// The key itself.
    pub secret: SecretString,
}

/// The tailnet's control API.
#[async_trait]
pub trait MeshControl: Send + Sync {
    /// Keys of this installation, then its devices: those whose host name carries the id, and those
    /// whose own id is `known` whatever they are called now.
    async fn read(
        &self,
        installation: &InstallationId,
        known: &BTreeSet<String>,
    ) -> Result<MeshView, MeshError>;

    /// Mints a one-off, pre-authorized, tagged key.
    async fn mint(
        &self,
        description: &str,
        tag: &str,
        life: Duration,
    ) -> Result<MintedKey, MeshError>;

    /// Revokes a key; one that is already gone is a success.
    async fn revoke(&self, key: &str) -> Result<(), MeshError>;

    /// Gives a device these tags and no others. Open connections to peers that it may no longer see
    /// fall silent; nobody is told.
    async fn set_tags(&self, device: &str, tags: &[String]) -> Result<(), MeshError>;

    /// Deletes a device; one that is already gone is a success.
    async fn delete_device(&self, device: &str) -> Result<(), MeshError>;
}
