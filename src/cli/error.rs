//! Why a command did not do what was asked.

use crate::api_client::ClientError;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The operator did not do it, or was not reached.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Manifests that cannot be sent, one line for each problem.
    #[error("{}", problems(.0))]
    Problems(Vec<String>),
    /// An expression has no result.
    #[error("there is no {0} in it, so nothing is printed; `-o json` shows what there is")]
    NotThere(String),
    /// The manifest has no such field.
    #[error("`{0}` is no field of the manifest; `akash-redis explain` lists those there are")]
    NoField(String),
    /// A file cannot be written.
    #[error("{path} cannot be written")]
    Unwritten {
        /// Where.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A change that was asked for was not made.
    #[error(
        "{name} was not changed as asked: {master} is master under a later epoch; `akash-redis events {name}` says why"
    )]
    NotSwitched {
        /// The cluster.
        name: String,
        /// Who is master.
        master: String,
    },
    /// Another cluster's data were named.
    #[error(
        "nothing was deleted: `--yes-delete-data` names {other}, and the cluster is {cluster}; name the same one twice"
    )]
    AnotherNamed {
        /// Which was to be deleted.
        cluster: String,
        /// Whose data were named.
        other: String,
    },
    /// A person did not agree that data are deleted.
    #[error("nothing was deleted, because nobody said `{0}`; `--yes` does not ask")]
    DeletionDeclined(String),
    /// A person did not agree.
    #[error("nothing was applied, because nobody said `yes`; `--yes` does not ask")]
    Declined,
    /// Somebody outside does not hear the operator.
    #[error(
        "{failed} of {all} targets did not take the test message; see the operator's `notify` and its log"
    )]
    NotTold {
        /// So many.
        failed: usize,
        /// Of so many.
        all: usize,
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
    /// Nodes are not started with what was applied.
    #[error(
        "{name} is not rolled out, and it does not go on by itself: {problem}; correct the manifest and apply again"
    )]
    RolloutStalled {
        /// The cluster.
        name: String,
        /// What stands in the way.
        problem: String,
    },
    /// No master takes writes.
    #[error(
        "{0} has no master that takes writes now; `akash-redis plan {0}` says what is done about it"
    )]
    NoMaster(String),
    /// The operator does not say it.
    #[error("the operator is of an older version and does not tell its key; upgrade it first")]
    OldOperator,
    /// Clusters that no record knows still.
    #[error("not taken over: {0}; what is in the way is said above, nothing of them was changed")]
    NotRecovered(String),
    /// Orphans that are there still.
    #[error("not closed: {0}; what is in the way is said above")]
    NotClosed(String),
    /// Nobody is there to be asked.
    #[error("nothing was closed: standard input is no terminal, so nobody can be asked; add --yes")]
    NotAsked,
    /// What may be lost was shown, and nobody is there to be asked.
    #[error(
        "nothing was accepted: standard input is no terminal, so nobody can be asked; read what may be lost above, then add --yes"
    )]
    NobodyToAccept,
    /// A person did not accept the loss.
    #[error("nothing was accepted, because nobody said `yes`; the cluster waits as before")]
    LossDeclined,
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

fn problems(all: &[String]) -> String {
    match all {
        [one] => one.clone(),
        all => format!("{} problems, and nothing was changed:\n  {}", all.len(), all.join("\n  ")),
    }
}
