//! `akash-redis cutover`: the end of an import from a running Redis.

use std::io::Write;
use std::time::{Duration, Instant};

use super::error::CliError;
use super::progress::Progress;
use super::{cluster_name, show};
use crate::api::conditions::{ConditionType, Reason};
use crate::api::quantity::Span;
use crate::api::types::RedisCluster;
use crate::api_client::Client;
use crate::plan::CUTOVER_FAILED;
use crate::server::messages;

/// Between two looks.
const POLL: Duration = Duration::from_millis(100);

/// Flags of `cutover`.
#[derive(Debug, clap::Args)]
pub struct Cutover {
    /// Name of the cluster.
    #[arg(value_parser = cluster_name)]
    pub name: String,
    /// The applications of the source are stopped: for one that is copied key by key and does not
    /// let its writes be held.
    #[arg(long)]
    pub writes_stopped: bool,
    /// Make the cluster take the writes though some keys could not be copied; they are named.
    #[arg(long)]
    pub accept_difference: bool,
    /// Wait until the cluster takes the writes, or the cutover is given up.
    #[arg(long)]
    pub wait: bool,
    /// The longest to wait.
    #[arg(long, default_value = "3m", requires = "wait", value_name = "TIME")]
    pub timeout: Span,
}

pub(super) async fn run(
    client: &Client,
    args: Cutover,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let name = &args.name;
    let (writes_stopped, accept_difference) = (args.writes_stopped, args.accept_difference);
    let request = messages::Cutover { writes_stopped, accept_difference };
    writeln!(out, "{}", client.cutover(name, request).await?.message)?;
    if !args.wait {
        return Ok(());
    }
    let began = Instant::now();
    let progress = Progress::of(&format!("{name}: is cut over"));
    // What is said of an earlier cutover is taken back when this one begins.
    let mut fresh = false;
    while began.elapsed() < args.timeout.0 {
        let (reason, message) = import(&client.get(name).await?);
        if reason == Some(Reason::ImportCompleted) {
            let message = show::clean(&message);
            return Ok(writeln!(out, "rediscluster/{name} takes the writes: {message}")?);
        }
        let failed = message.contains(CUTOVER_FAILED);
        if failed && fresh {
            return Err(CliError::Server(show::clean(&message).into()));
        }
        fresh |= !failed;
        progress.tell(&format!("{name}: {}", show::clean(&message)));
        tokio::time::sleep(POLL).await;
    }
    Err(CliError::TimedOut {
        name: name.clone(),
        goal: "cut over".to_owned(),
        timeout: args.timeout.to_string(),
        waiting: format!("the cutover (`akash-redis describe {name}` says what it waits for)"),
    })
}

fn import(cluster: &RedisCluster) -> (Option<Reason>, String) {
    let status = cluster.status.as_ref();
    let condition = status.and_then(|status| status.condition(ConditionType::Imported));
    condition.map_or_else(Default::default, |c| (Some(c.reason), c.message.clone()))
}
