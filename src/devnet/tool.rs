//! Programs of this machine that are run to their end: `ip`, `mount`, `unshare`.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// They are done at once or stuck.
const LIMIT: Duration = Duration::from_secs(10);

/// A program failed, or is not there.
#[derive(Debug, thiserror::Error)]
#[error("`{command}` failed ({detail})")]
pub struct ToolError {
    /// What was run.
    pub command: String,
    /// What it said.
    pub detail: String,
}

/// Runs a program to its end.
pub async fn run(tool: &str, arguments: &[&str]) -> Result<(), ToolError> {
    let failed = |detail| ToolError { command: format!("{tool} {}", arguments.join(" ")), detail };
    let output =
        Command::new(tool).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    match timeout(LIMIT, output).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(failed(format!("{}, {}", output.status, said.trim())))
        }
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("no end in {} s", LIMIT.as_secs()))),
    }
}
