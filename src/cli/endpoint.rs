//! `akash-redis endpoint` and `akash-redis public-key`: what an application is set up with.

use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

use clap::ValueEnum;

use super::cluster_name;
use super::error::CliError;
use super::output::json;
use crate::api::endpoint::EndpointReport;
use crate::api_client::Client;
use crate::model::ports::SENTINEL_PORT;

/// How an endpoint is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EndpointOutput {
    /// Shell variables: `REDIS_HOST`, `REDIS_PORT`, `REDIS_IP`, `REDIS_URL`, `REDIS_USERNAME`,
    /// `REDIS_REPLICAS` (URLs), `REDIS_SENTINELS` and `REDIS_SENTINEL_MASTER`; lists have commas.
    Env,
    /// A JSON object.
    Json,
    /// `redis://USER@IP:PORT`, one a line: the master, then the replicas in sync.
    Url,
}

/// Flags of `endpoint`.
#[derive(Debug, clap::Args)]
pub struct Endpoint {
    /// Name of the cluster.
    #[arg(value_parser = cluster_name)]
    pub name: String,
    /// How it is written; `host:port` when absent.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<EndpointOutput>,
    /// User in URLs; the manifest's first one when absent.
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
}

pub(super) async fn run(
    client: &Client,
    args: Endpoint,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let Some(found) = client.endpoint(&args.name, None, Duration::ZERO).await? else {
        return Err(CliError::NoMaster(args.name));
    };
    let user = args.user.as_deref().or(found.users.first().map(String::as_str));
    let text = match args.output {
        None => format!("{}:{}\n", found.master.name, found.master.port),
        Some(EndpointOutput::Env) => env(&found, user),
        Some(EndpointOutput::Json) => json(&found),
        Some(EndpointOutput::Url) => {
            let (master, replicas) = urls(&found, user);
            [master].into_iter().chain(replicas).fold(String::new(), |text, url| text + &url + "\n")
        }
    };
    Ok(out.write_all(text.as_bytes())?)
}

/// Of the master, and of the replicas in sync.
fn urls(found: &EndpointReport, user: Option<&str>) -> (String, Vec<String>) {
    let user = user.map(|user| format!("{}@", escaped(user))).unwrap_or_default();
    let url = |ip: &str, port: u16| format!("redis://{user}{}:{port}", bracketed(ip));
    let replicas = found.replicas.iter().filter(|replica| replica.in_sync);
    let replicas = replicas.map(|replica| url(&replica.ip, replica.port)).collect();
    (url(&found.master.ip, found.master.port), replicas)
}

fn env(found: &EndpointReport, user: Option<&str>) -> String {
    let (master, (url, replicas)) = (&found.master, urls(found, user));
    let mut text = format!(
        "REDIS_HOST={}\nREDIS_PORT={}\nREDIS_IP={}\nREDIS_URL={url}\n",
        master.name, master.port, master.ip
    );
    // Writing to a string cannot fail.
    if let Some(user) = user {
        let _ = writeln!(text, "REDIS_USERNAME={user}");
    }
    let _ = writeln!(text, "REDIS_REPLICAS={}", replicas.join(","));
    let nodes = [&master.ip].into_iter().chain(found.replicas.iter().map(|replica| &replica.ip));
    let nodes: Vec<_> = nodes.map(|ip| format!("{}:{SENTINEL_PORT}", bracketed(ip))).collect();
    let _ = writeln!(text, "REDIS_SENTINELS={}", nodes.join(","));
    if !found.cluster.is_empty() {
        let _ = writeln!(text, "REDIS_SENTINEL_MASTER={}", found.cluster);
    }
    text
}

fn bracketed(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() }
}

/// What stands for itself in the user part of a URL, and in a shell; the rest as `%41`.
fn escaped(user: &str) -> String {
    user.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

pub(super) async fn public_key(
    client: &Client,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let key = client.operator().await?.public_key;
    if key.is_empty() {
        return Err(CliError::OldOperator);
    }
    Ok(writeln!(out, "{key}")?)
}
