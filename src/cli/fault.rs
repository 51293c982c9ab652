//! `akash-redis devnet fault`: something goes wrong with the running local market.

use std::path::PathBuf;
use std::process::ExitCode;

use super::devnet::DevnetDir;
use crate::devnet::control::{self, Answer, Request};
use crate::devnet::faults::Fault;

/// Flags of `devnet fault`.
#[derive(Debug, clap::Args)]
pub struct FaultArgs {
    /// Which market.
    #[command(flatten)]
    pub location: DevnetDir,
    /// What goes wrong.
    #[command(subcommand)]
    pub what: What,
}

/// What can be asked.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// List what is wrong now.
    List,
    /// End a fault by its name, or all of them.
    Clear {
        /// E.g. halt-chain; all when it is not given.
        name: Option<String>,
    },
    /// One of the faults.
    #[command(flatten)]
    Inject(Fault),
}

/// Why it failed.
#[derive(Debug, thiserror::Error)]
pub enum FaultCommandError {
    /// Nobody listens.
    #[error("no local market answers at {}; start one with `akash-redis devnet up`, or name its directory with --dir", path.display())]
    NotUp {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The market said no.
    #[error("{0}")]
    Refused(String),
}

/// Runs `devnet fault`.
pub async fn run(args: FaultArgs) -> Result<ExitCode, FaultCommandError> {
    let path = args.location.dir.join(control::SOCKET);
    let request = match args.what {
        What::List => Request::List,
        What::Clear { name } => Request::Clear(name),
        What::Inject(fault) => Request::Inject(fault),
    };
    let answer = control::ask(&path, &request)
        .await
        .map_err(|source| FaultCommandError::NotUp { path, source })?;
    match answer {
        Answer::Done(sentence) => println!("{sentence}"),
        Answer::Listed(lines) if lines.is_empty() => println!("nothing is wrong"),
        Answer::Listed(lines) => lines.iter().for_each(|line| println!("{line}")),
        Answer::Failed(sentence) => return Err(FaultCommandError::Refused(sentence)),
    }
    Ok(ExitCode::SUCCESS)
}
