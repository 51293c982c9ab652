//! Why a command did not do what was asked.

use crate::api_client::ClientError;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The operator did not do it, or was not reached.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A manifest that cannot be sent.
    #[error("{file}: {problem}")]
    Manifest {
        /// Its file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It did not come about in time.
    #[error("{name} is not {goal} after {timeout}; it still waits for {waiting}")]
    TimedOut {
        /// The cluster.
        name: String,
        /// What was waited for.
        goal: String,
        /// How long.
        timeout: String,
        /// What the operator waits for.
        waiting: String,
    },
    /// Redis does not take what was applied.
    #[error(
        "{name} runs, but redis does not take all of its settings: {problem}; what it refused is as it was before, everything else is in force; correct it and apply again"
    )]
    SettingsRefused {
        /// The cluster.
        name: String,
        /// What was refused.
        problem: String,
    },
    /// No master takes writes.
    #[error(
        "{0} has no master that takes writes now; `akash-redis plan {0}` says what is done about it"
    )]
    NoMaster(String),
    /// A command that is a server, or renders something by itself, ended with this.
    #[error(transparent)]
    Server(#[from] Box<dyn std::error::Error + Send + Sync>),
    /// Standard output is gone.
    #[error("the output cannot be written")]
    Output(#[from] std::io::Error),
}

impl CliError {
    /// Whoever read the output has seen enough.
    pub(super) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(e) if e.kind() == std::io::ErrorKind::BrokenPipe)
    }
}
