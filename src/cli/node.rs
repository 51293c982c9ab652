//! `akash-redis node`: the agent in the leased container.

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::model::identity::{NODE_VARIABLE, NodeIdentity};
use crate::node::{self, AgentError, Settings, guard};

/// Why `node` ended.
#[derive(Debug, thiserror::Error)]
pub enum NodeCommandError {
    /// No identity.
    #[error(
        "the variable AKASH_REDIS_NODE is not set: this command runs in a container that the operator deploys, not by hand"
    )]
    NoIdentity,
    /// An identity that cannot be read. Its text is not repeated: it holds secrets.
    #[error(
        "the variable AKASH_REDIS_NODE cannot be read (line {line}, column {column}); image and operator may be of different versions"
    )]
    BadIdentity {
        /// Line of the fault.
        line: usize,
        /// Column of the fault.
        column: usize,
    },
    /// Signals cannot be received, or the agent cannot be started.
    #[error("the agent cannot be started, or signals cannot be received")]
    Signals(#[from] std::io::Error),
    /// The agent.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

/// Runs the guard of the agent, or the agent itself when its guard started it, until SIGTERM or
/// SIGINT. Who the node is comes in the variable `AKASH_REDIS_NODE`, because its secrets do not
/// belong in argv.
pub async fn run() -> Result<ExitCode, NodeCommandError> {
    let text = std::env::var(NODE_VARIABLE).map_err(|_| NodeCommandError::NoIdentity)?;
    let identity: NodeIdentity = serde_json::from_str(&text).map_err(|error| {
        NodeCommandError::BadIdentity { line: error.line(), column: error.column() }
    })?;
    if !guard::is_guarded() {
        return Ok(guard::run().await?);
    }
    let stop = CancellationToken::new();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stopper = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        stopper.cancel();
    });
    node::run(identity, Settings::from_env(), stop).await?;
    Ok(ExitCode::SUCCESS)
}
