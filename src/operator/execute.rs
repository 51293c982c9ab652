//! One effect. Deadlines live in the planner: an effect tries for a few seconds and hands back.

use std::sync::Arc;
use std::time::Duration;

use super::agent_protocol;
use super::manifests::{Manifests, not_recorded};
use super::observe::Observer;
use super::ports::{AgentError, Ports};
use super::settings::Settings;
use super::transactions::Transactions;
use crate::api::types::RedisCluster;
use crate::backup::storage::StorageError;
use crate::chain::ChainError;
use crate::gateway::GatewayError;
use crate::mesh::MeshError;
use crate::model::chain::{ChainMsg, SignedTx};
use crate::model::ids::{IncarnationName, LeaseId};
use crate::model::record::Record;
use crate::model::step::{Command, Effect};
use crate::sdl;
use crate::store::StoreError;

/// Why an effect did not come to its end. Each is a sentence for people; the next plan decides what
/// follows.
#[derive(Debug, thiserror::Error)]
pub enum EffectError {
    /// The other side was not reached, or its answer was lost: trying again can help.
    #[error("{0}")]
    Unreachable(String),
    /// It said no: the same again has the same end until something changes.
    #[error("{0}")]
    Refused(String),
    /// The plan that asked for it is outdated: the next one knows better.
    #[error("{0}")]
    Outdated(String),
    /// The transaction was sent and its end is not known: it is to be resumed, and nothing else
    /// is signed for its deployment meanwhile.
    #[error("the end of {} is not known yet ({source}); it is looked up until it is", tx.purpose)]
    TxPending {
        /// The transaction.
        tx: Box<SignedTx>,
        /// What the last call said.
        source: ChainError,
    },
}

impl EffectError {
    /// A word for it, where sentences would be too many.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Refused(_) => "refused",
            Self::Outdated(_) => "outdated",
            Self::TxPending { .. } => "pending",
        }
    }

    /// First pause before the same effect is tried again.
    pub fn first_pause(&self) -> Duration {
        match self {
            Self::Unreachable(_) | Self::Outdated(_) => Duration::from_millis(250),
            // Trying again does not help by itself.
            Self::Refused(_) | Self::TxPending { .. } => Duration::from_secs(2),
        }
    }
}

impl From<ChainError> for EffectError {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::Away { .. } | ChainError::InvalidResponse { .. } => {
                Self::Unreachable(error.to_string())
            }
            _ => Self::Refused(error.to_string()),
        }
    }
}

impl From<MeshError> for EffectError {
    fn from(error: MeshError) -> Self {
        match error {
            MeshError::Away { .. } => Self::Unreachable(error.to_string()),
            _ => Self::Refused(error.to_string()),
        }
    }
}

impl From<GatewayError> for EffectError {
    fn from(error: GatewayError) -> Self {
        match error {
            GatewayError::Away { .. } => Self::Unreachable(error.to_string()),
            _ => Self::Refused(error.to_string()),
        }
    }
}

impl From<AgentError> for EffectError {
    fn from(error: AgentError) -> Self {
        match error {
            AgentError::Away { .. } | AgentError::Failed { again: true, .. } => {
                Self::Unreachable(error.to_string())
            }
            AgentError::Failed { again: false, .. } => Self::Refused(error.to_string()),
            // An agent refuses what its state forbids: the next plan knows that state.
            AgentError::Refused { .. } | AgentError::NoLog { .. } => {
                Self::Outdated(error.to_string())
            }
        }
    }
}

impl From<StorageError> for EffectError {
    fn from(error: StorageError) -> Self {
        if error.may_pass() {
            Self::Unreachable(error.to_string())
        } else {
            Self::Refused(error.to_string())
        }
    }
}

impl From<StoreError> for EffectError {
    fn from(error: StoreError) -> Self {
        Self::Unreachable(error.to_string())
    }
}

/// What an effect makes invalid: it is read anew before the next plan of its incarnation's cluster
/// starts anything of the same kind there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invalidates {
    /// What the chain and the providers say of its deployment.
    Deployment,
    /// What the control API says of its device and keys.
    Mesh,
    /// What lies in its cluster's object storage.
    Backups,
    /// Nothing: the node's view is fresh when the command returns.
    Nothing,
}

/// What `effect` makes invalid.
pub fn invalidates(effect: &Effect) -> Invalidates {
    match effect {
        Effect::CreateDeployment { .. }
        | Effect::CreateLease { .. }
        | Effect::DeliverManifest { .. }
        | Effect::TopUp { .. }
        | Effect::CloseDeployment { .. } => Invalidates::Deployment,
        Effect::DeleteDevice { .. } | Effect::SetTags { .. } | Effect::RevokeKey { .. } => {
            Invalidates::Mesh
        }
        Effect::CompleteBackup { .. } | Effect::DeleteBackup { .. } | Effect::DeleteLog { .. } => {
            Invalidates::Backups
        }
        Effect::Command { .. } => Invalidates::Nothing,
    }
}

/// Carries effects out.
pub struct Executor {
    pub ports: Ports,
    pub settings: Arc<Settings>,
    pub observer: Arc<Observer>,
    pub transactions: Arc<Transactions>,
    pub manifests: Arc<Manifests>,
}

impl Executor {
    /// Carries one effect out for `cluster` under `record`.
    pub async fn execute(
        &self,
        cluster: &RedisCluster,
        record: &Record,
        effect: &Effect,
    ) -> Result<(), EffectError> {
        let name = &cluster.metadata.name;
        match effect {
            Effect::CreateDeployment { incarnation, deposit } => {
                let entry = record.incarnations.get(incarnation).ok_or_else(not_recorded)?;
                let group_name = incarnation.group_name(&self.settings.constants.installation);
                let group = sdl::group(&cluster.spec, &group_name, entry.max_price);
                // Before anything is bought: where no key can be had, a lease would be in vain.
                let hash = self.manifests.get(cluster, record, incarnation).await?.hash;
                let (dseq, deposit) = (entry.dseq, *deposit);
                let msg = ChainMsg::CreateDeployment { dseq, group, hash, deposit };
                self.transactions.transact(name, &msg).await
            }
            Effect::CreateLease { lease, .. } => {
                self.transactions.transact(name, &ChainMsg::CreateLease(lease.clone())).await
            }
            Effect::DeliverManifest { incarnation, lease } => {
                self.deliver(cluster, record, incarnation, lease).await
            }
            Effect::TopUp { dseq, amount, .. } => {
                let msg = ChainMsg::Deposit { dseq: *dseq, amount: *amount };
                self.transactions.transact(name, &msg).await
            }
            Effect::CloseDeployment { incarnation, dseq } => {
                self.manifests.done(incarnation);
                let msg = ChainMsg::CloseDeployment { dseq: *dseq };
                self.transactions.transact(name, &msg).await
            }
            Effect::DeleteDevice { device, .. } => {
                self.ports.mesh.delete_device(device).await?;
                self.observer.device_deleted(device);
                Ok(())
            }
            Effect::SetTags { device, tags, .. } => {
                Ok(self.ports.mesh.set_tags(device, tags).await?)
            }
            Effect::RevokeKey { key, .. } => Ok(self.ports.mesh.revoke(key).await?),
            Effect::CompleteBackup { storage, manifest, .. } => {
                Ok(self.ports.backups.complete(storage, manifest).await?)
            }
            Effect::DeleteBackup { storage, id, .. } => {
                Ok(self.ports.backups.delete(storage, id).await?)
            }
            Effect::DeleteLog { storage, uid, before, .. } => {
                Ok(self.ports.backups.delete_log(storage, uid, *before).await?)
            }
            Effect::Command { incarnation, authority, command } => {
                let view = self.ports.agents.view(incarnation);
                let nonce = view.map(|view| view.state.nonce).unwrap_or_default();
                let request = agent_protocol::command(
                    &self.settings.root,
                    incarnation,
                    *authority,
                    nonce,
                    command,
                );
                Ok(self.ports.agents.command(incarnation, request).await?)
            }
        }
    }

    /// Brings the manifest to the provider; its hash is stored on the chain first where it is
    /// another one.
    async fn deliver(
        &self,
        cluster: &RedisCluster,
        record: &Record,
        incarnation: &IncarnationName,
        lease: &LeaseId,
    ) -> Result<(), EffectError> {
        let name = &cluster.metadata.name;
        let (stored, provider) = self.observer.manifest_target(name, lease)?;
        let manifest = self.manifests.get(cluster, record, incarnation).await?;
        if stored != manifest.hash {
            let msg = ChainMsg::UpdateDeployment { dseq: lease.dseq, hash: manifest.hash };
            self.transactions.transact(name, &msg).await?;
        }
        self.ports.gateway.put_manifest(&provider, lease, &manifest.text).await?;
        self.manifests.delivered(incarnation, manifest);
        Ok(())
    }
}

/// The kind of an effect in a word; that of a command where it is one.
pub fn kind(effect: &Effect) -> &'static str {
    match effect {
        Effect::Command { command, .. } => command.into(),
        other => other.into(),
    }
}

/// An effect in a phrase, without its object.
pub fn describe(effect: &Effect) -> String {
    match effect {
        Effect::CreateDeployment { deposit, .. } => {
            format!("create a deployment with {deposit} for")
        }
        Effect::CreateLease { lease, .. } => format!("lease from {} for", lease.provider),
        Effect::DeliverManifest { .. } => "deliver the manifest of".to_owned(),
        Effect::TopUp { amount, .. } => format!("pay {amount} into the escrow of"),
        Effect::CloseDeployment { dseq, .. } => format!("close deployment {dseq} of"),
        Effect::DeleteDevice { .. } => "delete the mesh device of".to_owned(),
        Effect::SetTags { tags, .. } => format!("give {} to the device of", tags.join(", ")),
        Effect::RevokeKey { .. } => "revoke the auth key of".to_owned(),
        Effect::CompleteBackup { manifest, .. } => {
            format!("complete the backup {} of", manifest.id)
        }
        Effect::DeleteBackup { id, .. } => format!("delete the backup {id} of"),
        Effect::DeleteLog { before, .. } => {
            format!("delete the log before {before} of the cluster of")
        }
        Effect::Command { command, .. } => match command {
            Command::Configure(_) => "configure".to_owned(),
            Command::Promote { .. } => "promote".to_owned(),
            Command::Follow { master_name, .. } => format!("point to {master_name}:"),
            Command::Save { label } => format!("keep the snapshot {label} of"),
            Command::Discard { .. } => "drop the broken data of".to_owned(),
            Command::Detach { .. } => "detach".to_owned(),
            Command::Fence => "fence".to_owned(),
            Command::Unfence { .. } => "unfence".to_owned(),
            Command::Restart => "restart".to_owned(),
            Command::Admit { .. } => "let replicas attach to".to_owned(),
            Command::AwaitHandover { .. } => "announce the handover to".to_owned(),
            Command::HandOver { to } => format!("hand over to {to} from"),
            Command::Backup { id, .. } => format!("take the backup {id} of"),
            Command::Restore { id, .. } => format!("restore the backup {id} on"),
            Command::Import { .. } => "import from a running Redis on".to_owned(),
            Command::Verify { id, .. } => format!("verify the backup {id} on"),
            Command::Archive { run, .. } => format!("archive the log in run {run} on"),
            Command::StopArchive => "archive the log no more on".to_owned(),
        },
    }
}
