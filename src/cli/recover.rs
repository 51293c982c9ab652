//! `akash-redis recover` and `akash-redis orphans`: after the loss of the operator's store, and for
//! what is left over.

use std::collections::BTreeSet;
use std::io::{BufRead as _, IsTerminal as _, Write};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::cluster_name;
use super::error::CliError;
use super::output::Structured;
use super::progress::Progress;
use super::show::recovery as show;
use crate::api::quantity::Span;
use crate::api::recover::{Orphan, OrphanReport};
use crate::api_client::Client;
use crate::server::messages::CloseOrphans;

/// What is being closed is looked at so often.
const POLL: Duration = Duration::from_secs(1);

/// Flags of `recover`.
#[derive(Debug, clap::Args)]
pub struct Recover {
    /// This cluster alone; all when absent.
    #[arg(value_name = "NAME", value_parser = cluster_name)]
    pub cluster: Option<String>,
    /// Write objects and records of the clusters that can be taken over; without it nothing is
    /// changed.
    #[arg(long)]
    pub confirm: bool,
    /// How it is written; text when absent.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<Structured>,
}

/// Flags of `orphans`.
#[derive(Debug, clap::Args)]
pub struct Orphans {
    /// Those of this cluster alone; a cluster that no record knows is given up by its name only.
    #[arg(value_name = "NAME", value_parser = cluster_name)]
    pub cluster: Option<String>,
    /// Close exactly what is listed: deployments with their data, devices, keys.
    #[arg(long)]
    pub close: bool,
    /// Do not ask.
    #[arg(short, long, requires = "close")]
    pub yes: bool,
    /// The longest to wait until all of it is closed.
    #[arg(long, default_value = "5m", requires = "close", value_name = "TIME")]
    pub timeout: Span,
    /// How it is written; text when absent.
    #[arg(short, long, value_enum, value_name = "FORMAT", conflicts_with = "close")]
    pub output: Option<Structured>,
}

pub(super) async fn recover(
    client: &Client,
    args: Recover,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let progress = Progress::of("asks chain, tailnet and nodes");
    let report = client.recover(args.cluster.as_deref(), args.confirm).await?;
    drop(progress);
    let text = match args.output {
        Some(output) => output.render(&report),
        None => show::recovery(&report, args.confirm),
    };
    out.write_all(text.as_bytes())?;
    let left: Vec<_> =
        report.clusters.iter().filter(|c| !c.written).map(|c| c.name.clone()).collect();
    if args.confirm && !left.is_empty() {
        return Err(CliError::NotRecovered(left.join(", ")));
    }
    Ok(())
}

pub(super) async fn orphans(
    client: &Client,
    args: Orphans,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let mut report = client.orphans().await?;
    let meant = |o: &Orphan| args.cluster.as_ref().is_none_or(|name| o.cluster == *name);
    report.orphans.retain(meant);
    if let Some(output) = args.output {
        return Ok(out.write_all(output.render(&report).as_bytes())?);
    }
    out.write_all(show::orphans(&report).as_bytes())?;
    if !args.close || report.orphans.is_empty() {
        return Ok(());
    }
    if !args.yes && !agreed(out)? {
        return Ok(writeln!(out, "nothing was closed")?);
    }
    let clusters = args.cluster.into_iter().collect();
    let answers =
        client.close_orphans(&CloseOrphans { orphans: report.orphans.clone(), clusters }).await?;
    let mut undone = Vec::new();
    for refused in answers.iter().filter(|a| !a.asked) {
        writeln!(
            out,
            "{}: not closed: {}",
            show::clean(&refused.incarnation),
            show::clean(&refused.message)
        )?;
        undone.push(refused.incarnation.clone());
    }
    let asked = answers.iter().filter(|a| a.asked).map(|a| a.incarnation.clone()).collect();
    undone.extend(until_closed(client, &report, asked, args.timeout, out).await?);
    if undone.is_empty() { Ok(()) } else { Err(CliError::NotClosed(undone.join(", "))) }
}

/// A person says yes; nobody is asked where nobody sits.
fn agreed(out: &mut (dyn Write + Send)) -> Result<bool, CliError> {
    if !std::io::stdin().is_terminal() {
        return Err(CliError::NotAsked);
    }
    write!(out, "Close these for good? The data of their volumes goes with them. Type yes: ")?;
    out.flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim() == "yes")
}

/// Waits until each is in no list any more, and says so; returns what still is when the time is up.
/// Only what the chain and the tailnet show no more is called closed.
async fn until_closed(
    client: &Client,
    listed: &OrphanReport,
    mut asked: BTreeSet<String>,
    timeout: Span,
    out: &mut (dyn Write + Send),
) -> Result<Vec<String>, CliError> {
    let deadline = Instant::now() + timeout.0;
    while !asked.is_empty() {
        let now = client.orphans().await?;
        // A list that is not whole proves nothing about what is not in it.
        let left: BTreeSet<_> =
            now.orphans.iter().map(|o| &o.incarnation).chain(&now.closing).collect();
        for orphan in listed.orphans.iter().filter(|_| now.unseen.is_empty()) {
            let name = &orphan.incarnation;
            if asked.contains(name) && !left.contains(name) {
                writeln!(out, "{}", show::closed(orphan))?;
                asked.remove(name);
            }
        }
        if asked.is_empty() || Instant::now() >= deadline {
            break;
        }
        sleep(POLL).await;
    }
    for name in &asked {
        writeln!(
            out,
            "{}: not closed yet; the operator goes on, `akash-redis events {}` says with what",
            show::clean(name),
            show::clean(crate::model::ids::IncarnationName(name.clone()).cluster())
        )?;
    }
    Ok(asked.into_iter().collect())
}
