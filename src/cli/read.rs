//! Commands that only look: `get`, `describe`, `plan`, `events`.

use std::io::Write;

use clap::ValueEnum;
use serde::Serialize;

use super::error::CliError;
use super::{apply, cluster_name, show};
use crate::api_client::Client;
use crate::model::time::UnixMs;
use crate::server::messages::ClusterList;

/// How a list is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table with more columns.
    Wide,
    /// The objects as JSON.
    Json,
    /// The objects as YAML.
    Yaml,
}

/// Flags of `get`.
#[derive(Debug, clap::Args)]
pub struct Get {
    /// One cluster; all when absent.
    #[arg(value_parser = cluster_name)]
    pub name: Option<String>,
    /// How it is written; a table when absent.
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,
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
pub struct Plan {
    /// A cluster: what the operator does next.
    #[arg(value_parser = cluster_name, required_unless_present = "file")]
    pub name: Option<String>,
    /// File with one or more manifests: what an apply would do; `-` is standard input. May be given
    /// several times.
    #[arg(short, long = "filename", value_name = "FILE", conflicts_with = "name")]
    pub file: Vec<String>,
}

pub(super) async fn get(
    client: &Client,
    args: Get,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let items = match &args.name {
        Some(name) => vec![client.get(name).await?],
        None => client.list().await?,
    };
    let text = match args.output {
        Some(Output::Json) if args.name.is_some() => items.first().map(json).unwrap_or_default(),
        Some(Output::Json) => json(&ClusterList { items }),
        Some(Output::Yaml) => items.iter().map(yaml).collect::<Vec<_>>().join("---\n"),
        None | Some(Output::Wide) if items.is_empty() => {
            "no clusters found; create one with `akash-redis apply -f FILE`\n".to_owned()
        }
        wide => show::table(&items, UnixMs::now(), wide.is_some()),
    };
    Ok(out.write_all(text.as_bytes())?)
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
    Ok(out.write_all(show::plan(name, &plan, UnixMs::now()).as_bytes())?)
}

pub(super) async fn events(
    client: &Client,
    args: Name,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let events = client.events(&args.name).await?;
    let text = if events.is_empty() {
        format!("no events found for {}\n", args.name)
    } else {
        show::events(&events)
    };
    Ok(out.write_all(text.as_bytes())?)
}

pub(super) async fn status(client: &Client, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    Ok(out.write_all(show::operator(&client.operator().await?).as_bytes())?)
}

pub(super) fn json(value: &impl Serialize) -> String {
    // Our own types, with text for keys: there is nothing in them that JSON cannot hold.
    serde_json::to_string_pretty(value).map(|text| text + "\n").unwrap_or_default()
}

pub(super) fn yaml(value: &impl Serialize) -> String {
    serde_saphyr::to_string(value).unwrap_or_default()
}
