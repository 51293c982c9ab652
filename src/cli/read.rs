//! Commands that only look: `get`, `describe`, `plan`, `events`.

use std::io::Write;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use tokio::time::sleep;

use super::error::CliError;
use super::output::{Output, Structured, json, yaml};
use super::select::Selector;
use super::{apply, cluster_name, show};
use crate::api::measures;
use crate::api::types::{Metadata, RedisCluster};
use crate::api_client::Client;
use crate::model::time::UnixMs;
use crate::server::messages::ClusterList;

/// With `--watch` the operator is asked this often.
const WATCH: Duration = Duration::from_secs(1);

/// Flags of `get`.
#[derive(Debug, clap::Args)]
pub struct Get {
    /// One cluster; all when absent.
    #[arg(value_parser = cluster_name)]
    pub name: Option<String>,
    /// wide, name, json, yaml or jsonpath='{.status.master.ip}'; a table when absent.
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<Output>,
    /// Those with these labels alone: label=value, label!=value, label, !label.
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "name")]
    pub selector: Option<Selector>,
    /// Goes on, with a line for each change, until it is interrupted.
    #[arg(short, long)]
    pub watch: bool,
}

/// Flags of commands that show one thing of a cluster.
#[derive(Debug, clap::Args)]
pub struct Shown {
    /// Name of the cluster.
    #[arg(value_parser = cluster_name)]
    pub name: String,
    /// How it is written; text when absent.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<Structured>,
}

/// Flags of `status`.
#[derive(Debug, clap::Args)]
pub struct OperatorStatus {
    /// How it is written; text when absent.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<Structured>,
}

/// A cluster.
#[derive(Debug, clap::Args)]
pub struct Name {
    /// Name of the cluster.
    #[arg(value_parser = cluster_name)]
    pub name: String,
}

/// Flags of `plan`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["name", "file"])))]
pub struct Plan {
    /// A cluster: what the operator does next.
    #[arg(value_parser = cluster_name)]
    pub name: Option<String>,
    /// File or directory with manifests: what an apply would do; `-` is standard input. May be given
    /// several times.
    #[arg(short, long = "filename", value_name = "FILE")]
    pub file: Vec<String>,
    /// How the plan of a cluster is written; text when absent.
    #[arg(short, long, value_enum, value_name = "FORMAT", conflicts_with = "file")]
    pub output: Option<Structured>,
}

pub(super) async fn get(
    client: &Client,
    args: Get,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let mut items = find(client, &args).await?;
    out.write_all(written(&args, &items)?.as_bytes())?;
    if !args.watch {
        return Ok(());
    }
    loop {
        out.flush()?;
        sleep(WATCH).await;
        let now = find(client, &args).await?;
        let changed = changes(&items, &now);
        if !changed.is_empty() {
            let text = written(&args, &changed)?;
            let table = matches!(args.output, None | Some(Output::Wide));
            // The heading stands above already.
            let text = text.split_once('\n').filter(|_| table).map_or(&*text, |(_, rows)| rows);
            out.write_all(text.as_bytes())?;
        }
        items = now;
    }
}

/// What is meant by the flags.
async fn find(client: &Client, args: &Get) -> Result<Vec<RedisCluster>, CliError> {
    let mut items = match &args.name {
        Some(name) => vec![client.get(name).await?],
        None => client.list().await?,
    };
    if let Some(selector) = &args.selector {
        items.retain(|cluster| selector.takes(&cluster.metadata.labels));
    }
    Ok(items)
}

/// Those that are new, or look otherwise than before.
fn changes(before: &[RedisCluster], now: &[RedisCluster]) -> Vec<RedisCluster> {
    let known: BTreeMap<_, _> = before.iter().map(|c| (&c.metadata.name, c)).collect();
    // What is measured moves all the time.
    let look = |cluster: &RedisCluster| {
        let status = cluster.status.as_ref().map(measures::without);
        let metadata = Metadata { resource_version: None, ..cluster.metadata.clone() };
        RedisCluster { metadata, status, ..cluster.clone() }
    };
    let is_news = |cluster: &&RedisCluster| {
        let before = known.get(&cluster.metadata.name);
        before.is_none_or(|before| look(before) != look(cluster))
    };
    now.iter().filter(is_news).cloned().collect()
}

fn written(args: &Get, items: &[RedisCluster]) -> Result<String, CliError> {
    let one = items.first().filter(|_| args.name.is_some());
    let list = || ClusterList { items: items.to_vec() };
    Ok(match &args.output {
        Some(Output::Json) => one.map_or_else(|| json(&list()), json),
        Some(Output::Yaml) => items.iter().map(yaml).collect::<Vec<_>>().join("---\n"),
        Some(Output::Name) => {
            let names = items.iter().map(|c| format!("rediscluster/{}", c.metadata.name));
            names.chain([String::new()]).collect::<Vec<_>>().join("\n")
        }
        Some(Output::JsonPath(template)) => match one {
            Some(one) => template.render(one)?,
            None => template.render(&list())?,
        },
        None | Some(Output::Wide) if items.is_empty() && args.selector.is_some() => {
            "no clusters found with these labels\n".to_owned()
        }
        None | Some(Output::Wide) if items.is_empty() => {
            "no clusters found; create one with `akash-redis apply -f FILE`\n".to_owned()
        }
        wide => show::table(items, UnixMs::now(), wide.is_some()),
    })
}

pub(super) async fn describe(
    client: &Client,
    args: Name,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let cluster = client.get(&args.name).await?;
    let events = client.events(&args.name).await?;
    Ok(out.write_all(show::describe(&cluster, &events, UnixMs::now()).as_bytes())?)
}

pub(super) async fn plan(
    client: &Client,
    args: Plan,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let Some(name) = &args.name else {
        return apply::preview(client, &args.file, out).await;
    };
    let plan = client.plan(name).await?;
    let text = rendered(args.output, &plan, || show::plan(name, &plan, UnixMs::now()));
    Ok(out.write_all(text.as_bytes())?)
}

pub(super) async fn events(
    client: &Client,
    args: Shown,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let events = client.events(&args.name).await?;
    let text = rendered(args.output, &events, || {
        if events.is_empty() {
            format!("no events found for {}\n", args.name)
        } else {
            show::events(&events)
        }
    });
    Ok(out.write_all(text.as_bytes())?)
}

pub(super) async fn status(
    client: &Client,
    args: OperatorStatus,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let report = client.operator().await?;
    let text = rendered(args.output, &report, || show::operator(&report));
    Ok(out.write_all(text.as_bytes())?)
}

fn rendered(
    output: Option<Structured>,
    value: &impl Serialize,
    text: impl FnOnce() -> String,
) -> String {
    output.map_or_else(text, |output| output.render(value))
}
