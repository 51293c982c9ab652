//! `akash-redis logs`: what the processes of a node print.

use std::fmt::Write as _;
use std::io::Write;

use clap::ValueEnum;

use super::error::CliError;
use super::{cluster_name, show};
use crate::api::quantity::Span;
use crate::api_client::{Client, ClientError};
use crate::server::logs::{DEFAULT_TAIL, MOST_TAIL};

/// Flags of `logs`.
#[derive(Debug, clap::Args)]
pub struct Logs {
    /// Name of the cluster.
    #[arg(value_parser = cluster_name)]
    pub name: String,
    /// The node, by number or by the name of the incarnation that fills it; the master when absent.
    #[arg(value_name = "NODE", value_parser = node_name)]
    pub node: Option<String>,
    /// The last so many lines, at most 5000; a node keeps some thousands.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_TAIL, value_parser = clap::value_parser!(u32).range(..=i64::from(MOST_TAIL)))]
    pub tail: u32,
    /// Go on with the lines to come, until the node goes or Ctrl-C.
    #[arg(short, long)]
    pub follow: bool,
    /// Lines of this process alone; agent and redis when absent.
    #[arg(long, value_enum, value_name = "PROCESS")]
    pub process: Option<Process>,
    /// No lines that are older than this, e.g. 10m.
    #[arg(long, value_name = "TIME")]
    pub since: Option<Span>,
    /// Begin each line with its time, by the node's clock.
    #[arg(long)]
    pub timestamps: bool,
}

/// Whose lines are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Process {
    /// redis-server.
    Redis,
    /// The agent.
    Agent,
    /// The mesh daemon, which tells of each step that it takes.
    Tailscaled,
    /// All of them.
    All,
}

impl Logs {
    /// As the API understands it.
    fn query(&self) -> String {
        let mut query = format!("tail={}&follow={}", self.tail, self.follow);
        if let Some(node) = &self.node {
            let _ = write!(query, "&node={node}");
        }
        if let Some(process) = self.process.and_then(|p| p.to_possible_value()) {
            let _ = write!(query, "&process={}", process.get_name());
        }
        if let Some(since) = self.since {
            let _ = write!(query, "&since={since}");
        }
        if self.timestamps {
            query.push_str("&timestamps=true");
        }
        query
    }
}

/// The characters of numbers and incarnations, which have a few more of them than a cluster's name.
fn node_name(text: &str) -> Result<String, String> {
    let good = !text.is_empty()
        && text.len() <= 100
        && text.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-'));
    if good {
        Ok(text.to_owned())
    } else {
        Err("a node is a number, or an incarnation as `akash-redis describe` names it".to_owned())
    }
}

/// Ctrl-C ends the process, as it does with any other command; the operator lets go of the node
/// then.
pub(super) async fn run(
    client: &Client,
    args: Logs,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let mut answer = client.logs(&args.name, &args.query()).await?;
    let mut unfinished = Vec::new();
    loop {
        let part =
            if args.follow { answer.chunk().await } else { client.in_time(answer.chunk()).await? };
        let Some(part) = part.map_err(|source| ClientError::Lost { source })? else { break };
        unfinished.extend_from_slice(&part);
        let end = unfinished.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        print(&unfinished[..end], out)?;
        unfinished.drain(..end);
    }
    Ok(print(&unfinished, out)?)
}

fn print(text: &[u8], out: &mut (dyn Write + Send)) -> std::io::Result<()> {
    for line in String::from_utf8_lossy(text).split_terminator('\n') {
        writeln!(out, "{}", show::clean(line))?;
    }
    out.flush()
}
