//! `akash-redis top`: what each node has to do, live on a terminal and once elsewhere.

mod screen;

use std::io::{IsTerminal as _, Write};

use super::cluster_name;
use super::error::CliError;
use super::output::Structured;
use super::show::{self, columns};
use crate::api::top::{TopNode, TopReport};
use crate::api_client::{Client, ClientError};

/// Flags of `top`.
#[derive(Debug, clap::Args)]
pub struct Top {
    /// One cluster; all when absent.
    #[arg(value_parser = cluster_name)]
    pub name: Option<String>,
    /// Print one table and end, as where standard output is no terminal.
    #[arg(long)]
    pub once: bool,
    /// How it is written; a table when absent.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<Structured>,
}

const HEADER: [&str; 10] = [
    "CLUSTER",
    "NODE",
    "ROLE",
    "INCARNATION",
    "LAG",
    "OPS/S",
    "MEMORY",
    "CLIENTS",
    "KEYS",
    "RUNWAY",
];

pub(super) async fn run(
    client: &Client,
    args: Top,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let name = args.name.as_deref();
    let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if terminal && !args.once && args.output.is_none() {
        // Before the screen is taken: a sentence is better seen without it.
        let first = report(client, name).await?;
        return screen::run(client, name, first).await.map_err(CliError::Output);
    }
    let report = report(client, name).await?;
    let text = match args.output {
        Some(output) => output.render(&report),
        None => table(&report),
    };
    Ok(out.write_all(text.as_bytes())?)
}

/// What is meant, as of now.
async fn report(client: &Client, name: Option<&str>) -> Result<TopReport, ClientError> {
    let mut report = client.top().await?;
    if let Some(name) = name {
        if report.items.iter().all(|node| node.cluster != name) {
            // Whether there is no such cluster, or none of its nodes yet.
            client.get(name).await?;
        }
        report.items.retain(|node| node.cluster == name);
    }
    Ok(report)
}

fn table(report: &TopReport) -> String {
    if report.items.is_empty() {
        return "no nodes found; `akash-redis get` lists the clusters\n".to_owned();
    }
    columns(&HEADER, report.items.iter().map(|node| cells(node).to_vec()))
}

/// A node as a line; what is not known is empty.
fn cells(node: &TopNode) -> [String; HEADER.len()] {
    let load = node.load.as_ref();
    let number = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
    [
        node.cluster.clone(),
        node.ordinal.to_string(),
        node.role.to_string(),
        show::clean(&node.incarnation),
        lag(node),
        number(load.and_then(|load| load.ops_per_second)),
        load.map(|load| memory(load.memory_bytes, load.maxmemory_bytes)).unwrap_or_default(),
        number(load.and_then(|load| load.clients)),
        number(load.map(|load| load.keys)),
        show::clean(&node.runway),
    ]
}

/// In bytes, and in seconds where it is a second or more.
fn lag(node: &TopNode) -> String {
    let bytes = node.lag_bytes.map(show::size).unwrap_or_default();
    match node.lag_seconds {
        Some(seconds) if seconds > 0 => format!("{bytes} {seconds}s"),
        _ => bytes,
    }
}

/// `3.1MiB/564.0MiB`.
fn memory(used: u64, most: u64) -> String {
    let size = |bytes: u64| show::size(i64::try_from(bytes).unwrap_or(i64::MAX));
    if most == 0 { size(used) } else { format!("{}/{}", size(used), size(most)) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::api::conditions::Phase;
    use crate::api::top::NodeLoad;

    /// A master, a replica that is behind, and a node that is not heard.
    pub(super) fn three() -> TopReport {
        let node = |ordinal: u32, role, incarnation: &str| TopNode {
            cluster: "cache".into(),
            ordinal,
            incarnation: incarnation.into(),
            role,
            runway: "13 days".into(),
            ..TopNode::default()
        };
        let load = |ops| NodeLoad {
            ops_per_second: Some(ops),
            clients: Some(12),
            memory_bytes: 3_250_000,
            maxmemory_bytes: 591_396_864,
            keys: 4711,
            ..NodeLoad::default()
        };
        let items = vec![
            TopNode { load: Some(load(812)), ..node(0, Phase::Master, "cache-0-x7k2") },
            TopNode {
                load: Some(load(9)),
                lag_bytes: Some(1_700_000),
                lag_seconds: Some(3),
                ..node(1, Phase::Replica, "cache-1-b9ww")
            },
            node(2, Phase::Unreachable, "cache-2-m4pq"),
        ];
        TopReport { items }
    }

    #[test]
    fn a_table_of_all_nodes() {
        insta::assert_snapshot!(table(&three()), @r"
        CLUSTER  NODE  ROLE         INCARNATION   LAG        OPS/S  MEMORY           CLIENTS  KEYS  RUNWAY
        cache    0     Master       cache-0-x7k2  -          812    3.0MiB/564.0MiB  12       4711  13 days
        cache    1     Replica      cache-1-b9ww  1.6MiB 3s  9      3.0MiB/564.0MiB  12       4711  13 days
        cache    2     Unreachable  cache-2-m4pq  -          -      -                -        -     13 days
        ");
        assert!(table(&TopReport::default()).starts_with("no nodes found"));
    }
}
