//! `akash-redis notify`: whether those who are to be told outside are told.

use std::io::Write;

use super::error::CliError;
use super::show;
use crate::api_client::Client;

/// What to do about notifications.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Subcommand)]
pub enum Notify {
    /// Send a test message from the operator to every target of its `notify`, and show the result
    /// of each.
    Test,
}

pub(super) async fn run(
    client: &Client,
    command: Notify,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let Notify::Test = command;
    let tested = client.test_notifications().await?;
    if tested.is_empty() {
        writeln!(out, "nobody is told: the operator's settings name no target in `notify`")?;
        return Ok(());
    }
    let failed = tested.iter().filter(|one| !one.ok).count();
    for one in &tested {
        let word = if one.ok { "ok    " } else { "FAILED" };
        writeln!(out, "{word}  {}: {}", show::clean(&one.target), show::clean(&one.message))?;
    }
    if failed == 0 { Ok(()) } else { Err(CliError::NotTold { failed, all: tested.len() }) }
}
