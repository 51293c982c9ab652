//! The outside world as the controller sees it: real clients in a running operator, an in-memory
//! world in simulations.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio::sync::watch;

use crate::backup::storage::StorageError;
use crate::chain::Chain;
use crate::changes::Changes;
use crate::gateway::Gateway;
use crate::mesh::MeshControl;
use crate::model::backup::{BackupManifest, Listing};
use crate::model::ids::IncarnationName;
use crate::model::logs::LogQuery;
use crate::model::mesh::OwnMesh;
use crate::model::node::NodeView;
use crate::model::step::StorageRef;
use crate::model::time::UnixMs;
use crate::store::Store;
use crate::wire::akash_redis::agent::v1 as wire;

/// Why a node did not carry out a command.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// No connection, or it broke: the command may or may not have been carried out; the node's
    /// state will tell.
    #[error(
        "{incarnation} does not answer ({detail}); its state will tell what came of the command"
    )]
    Away {
        /// Which node.
        incarnation: IncarnationName,
        /// What the transport said.
        detail: String,
    },
    /// The agent said no; nothing was changed there.
    #[error("{incarnation} refused: {reason}")]
    Refused {
        /// Which node.
        incarnation: IncarnationName,
        /// Its sentence.
        reason: String,
    },
    /// The agent answered that it did not do it, or not all of it.
    #[error("{incarnation} answered that it could not: {reason}")]
    Failed {
        /// Which node.
        incarnation: IncarnationName,
        /// Its sentence.
        reason: String,
        /// It may go better when it is tried again.
        again: bool,
    },
    /// Its log cannot be read, or not any further.
    #[error(
        "the log of {incarnation} cannot be read ({detail}); `akash-redis describe {}` shows its state; ask again once it is back", incarnation.cluster()
    )]
    NoLog {
        /// Which node.
        incarnation: IncarnationName,
        /// What is in the way.
        detail: String,
    },
}

/// Lines of a node's processes as they come; after an error there are no more.
pub type LogLines = BoxStream<'static, Result<wire::LogLine, AgentError>>;

/// The node agents, watched all the time.
#[async_trait]
pub trait Agents: Send + Sync {
    /// The nodes of a cluster to watch from now on and their mesh addresses; others of it are let
    /// go.
    fn watch(&self, cluster: &str, targets: &BTreeMap<IncarnationName, String>);

    /// What was heard of a node, once it reported.
    fn view(&self, incarnation: &IncarnationName) -> Option<NodeView>;

    /// Sends one command; the view holds the state of the reply when this returns.
    async fn command(
        &self,
        incarnation: &IncarnationName,
        request: wire::CommandRequest,
    ) -> Result<(), AgentError>;

    /// What the node keeps for an operator that lost its store; `None` when it keeps nothing, or
    /// its agent is of a version that keeps nothing.
    async fn recall(
        &self,
        incarnation: &IncarnationName,
    ) -> Result<Option<wire::KeptCopy>, AgentError>;

    /// Tells the node who is master, in a signed word that it keeps and hands on; what it holds for
    /// the newest then. `None` where its agent is of a version that takes none.
    async fn announce(
        &self,
        incarnation: &IncarnationName,
        request: wire::AnnounceRequest,
    ) -> Result<Option<wire::AnnounceReply>, AgentError>;

    /// The lines of a node's processes that are asked for, with `follow` until the node goes or the
    /// stream is dropped. However slowly it is read, it holds up neither the views nor
    /// commands.
    async fn logs(
        &self,
        incarnation: &IncarnationName,
        query: &LogQuery,
    ) -> Result<LogLines, AgentError>;

    /// Nodes whose view changes from now on, in more than what is measured all the time.
    fn changes(&self) -> Changes<IncarnationName>;
}

/// The object storages of clusters, as far as the operator itself works there.
#[async_trait]
pub trait Backups: Send + Sync {
    /// What there is of the cluster that is meant; with a moment, also how that is reached.
    async fn list(&self, at: &StorageRef, to: Option<UnixMs>) -> Result<Listing, StorageError>;

    /// Makes a backup of data that lie there as the manifest says.
    async fn complete(
        &self,
        at: &StorageRef,
        manifest: &BackupManifest,
    ) -> Result<(), StorageError>;

    /// Takes a backup away, or what is left of one; what is gone already is a success.
    async fn delete(&self, at: &StorageRef, id: &str) -> Result<(), StorageError>;

    /// Takes away what of the log of the cluster with this uid was received before a time.
    async fn delete_log(
        &self,
        at: &StorageRef,
        uid: &str,
        before: UnixMs,
    ) -> Result<(), StorageError>;
}

/// Everything outside the controller.
#[derive(Clone)]
pub struct Ports {
    /// The chain, for our wallet.
    pub chain: Arc<dyn Chain>,
    /// The providers' gateways.
    pub gateway: Arc<dyn Gateway>,
    /// The tailnet's control API.
    pub mesh: Arc<dyn MeshControl>,
    /// How the operator itself stands on the mesh; none where it is there by the machine's own
    /// tailscaled, of which it knows nothing.
    pub own_mesh: Option<watch::Receiver<OwnMesh>>,
    /// The node agents.
    pub agents: Arc<dyn Agents>,
    /// The object storages of clusters.
    pub backups: Arc<dyn Backups>,
    /// Objects, records, events.
    pub store: Arc<dyn Store>,
    /// The wall clock.
    pub now: Arc<dyn Fn() -> UnixMs + Send + Sync>,
    /// Random numbers for suffixes and dseqs.
    pub random: Arc<dyn Fn() -> u64 + Send + Sync>,
}
