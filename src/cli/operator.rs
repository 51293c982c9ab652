//! `akash-redis operator`: its flags and settings.

use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::logging;
use crate::config::{Config, ConfigError};
use crate::operator;
use crate::traces::Traces;

/// Run the operator.
#[derive(Debug, clap::Args)]
pub struct Operator {
    /// File with the settings; each of them can be given as an environment variable too.
    #[arg(
        long,
        env = "AKASH_REDIS_CONFIG",
        default_value = "/etc/akash-redis/operator.yaml",
        value_name = "FILE"
    )]
    pub config: PathBuf,
    /// Check the settings and what they point to, spend nothing, and end. `--check=deep` also mints a
    /// key for a node and revokes it, which proves that the OAuth client may.
    #[arg(
        long,
        value_enum,
        value_name = "HOW",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "read"
    )]
    pub check: Option<Check>,
}

/// How much is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Check {
    /// What can be read.
    Read,
    /// A key is minted and revoked as well.
    Deep,
}

impl Operator {
    /// Reads the settings.
    pub fn settings(&self) -> Result<Config, ConfigError> {
        Config::load(&self.config)
    }
}

/// Runs the operator until SIGTERM or SIGINT, or only checks its settings.
pub async fn run(args: &Operator) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let config = args.settings()?;
    let (format, level) = (config.log.format, config.log.level.clone());
    if let Some(how) = args.check {
        logging::init(format, &level);
        return check(&config, how == Check::Deep).await;
    }
    let traces = config.traces.as_ref().map(Traces::start).transpose()?;
    logging::init_with(format, &level, traces.as_ref());
    let shutdown = CancellationToken::new();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        stop.cancel();
    });
    let counts = traces.as_ref().map(Traces::counts).unwrap_or_default();
    let ended = Box::pin(operator::run(config, &counts, shutdown)).await;
    if let Some(traces) = traces {
        traces.end().await;
    }
    Ok(ended?)
}

async fn check(
    config: &Config,
    deep: bool,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let findings = operator::check(config, deep).await?;
    let bad = findings.iter().filter(|(_, found)| found.is_err()).count();
    for (what, found) in findings {
        match found {
            Ok(good) => println!("ok      {what}: {good}"),
            Err(why) => println!("FAILED  {what}: {why}"),
        }
    }
    if bad == 0 {
        Ok(())
    } else {
        Err(format!("{bad} of the checks failed; nothing was spent").into())
    }
}
