//! `akash-redis apply`, and `plan -f`: manifests to the operator, and what that would do.

use std::io::Write;

use super::ask::Person;
use super::error::CliError;
use super::manifests::{self, Found};
use super::{show_preview, wait};
use crate::api::preview::Preview;
use crate::api::quantity::Span;
use crate::api_client::Client;
use crate::server::messages::Outcome;

/// Flags of `apply`.
#[derive(Debug, clap::Args)]
pub struct Apply {
    /// File or directory with manifests; `-` is standard input. May be given several times.
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    pub file: Vec<String>,
    /// Show what would be done, what it costs and who could run it; change nothing.
    #[arg(long, conflicts_with_all = ["wait", "yes"])]
    pub dry_run: bool,
    /// Do not ask before coins are spent. Without a terminal nobody is asked.
    #[arg(short, long)]
    pub yes: bool,
    /// Wait until each cluster is ready and has the settings and users of its manifest on every node.
    #[arg(long)]
    pub wait: bool,
    /// The longest to wait.
    #[arg(long, default_value = "10m", requires = "wait", value_name = "TIME")]
    pub timeout: Span,
}

/// Nothing is sent before every manifest was read and every password found, and nothing is bought at
/// a terminal before a person agreed.
pub(super) async fn run(
    client: &Client,
    args: Apply,
    out: &mut (dyn Write + Send),
    person: &mut dyn Person,
) -> Result<(), CliError> {
    if args.dry_run {
        return preview(client, &args.file, out).await;
    }
    let manifests = manifests::load(&args.file, &environment)?;
    found(client, &manifests, args.yes, out, person).await?;
    if args.wait {
        for (cluster, _) in &manifests {
            wait::until_in_force(client, &cluster.metadata.name, args.timeout).await?;
        }
    }
    Ok(())
}

/// Applies manifests that were found; a person at a terminal is asked before coins are spent.
pub(super) async fn found(
    client: &Client,
    found: &[Found],
    yes: bool,
    out: &mut (dyn Write + Send),
    person: &mut dyn Person,
) -> Result<(), CliError> {
    if !yes && person.is_there() {
        let previews = look(client, found).await?;
        if previews.iter().any(Preview::spends) {
            eprint!("{}", show_preview::all(&previews));
            if !person.agrees("\nDeposits leave the wallet. Apply it? Only `yes` does: ")? {
                return Err(CliError::Declined);
            }
        }
    }
    for (cluster, _) in found {
        if cluster.spec.redis.users.is_empty() {
            let name = &cluster.metadata.name;
            eprintln!(
                "warning: {name} has no user, so no application can log in; add one below spec.redis.users"
            );
        }
        let done = client.apply(cluster).await?;
        let outcome = match done.outcome {
            Outcome::Created => "created",
            Outcome::Configured => "configured",
            Outcome::Unchanged => "unchanged",
        };
        writeln!(out, "rediscluster/{} {outcome}", done.cluster.metadata.name)?;
    }
    Ok(())
}

/// What an apply of these files would do.
pub(super) async fn preview(
    client: &Client,
    files: &[String],
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let found = manifests::load(files, &environment)?;
    let previews = client.preview(clusters(&found)).await?;
    let text = show_preview::all(&previews);
    out.write_all(text.as_bytes())?;
    refused(&found, &previews)?;
    Ok(writeln!(out, "\nNothing was changed.")?)
}

async fn look(client: &Client, found: &[Found]) -> Result<Vec<Preview>, CliError> {
    let previews = client.preview(clusters(found)).await?;
    refused(found, &previews)?;
    Ok(previews)
}

fn clusters(found: &[Found]) -> Vec<crate::api::types::RedisCluster> {
    found.iter().map(|(cluster, _)| cluster.clone()).collect()
}

/// What the operator would refuse, each with its line.
fn refused(found: &[Found], previews: &[Preview]) -> Result<(), CliError> {
    let pairs = found.iter().zip(previews);
    let wrong: Vec<String> = pairs
        .flat_map(|((_, source), preview)| preview.problems.iter().map(|p| source.tell(p)))
        .collect();
    if wrong.is_empty() { Ok(()) } else { Err(CliError::Problems(wrong)) }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
