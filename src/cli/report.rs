//! `akash-redis report`: what the operator knows, for whoever helps, without secrets.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Value, json};

use super::cluster_name;
use super::error::CliError;
use super::output::yaml;
use crate::api_client::{Client, ClientError};

/// Fields whose values are not for others: hashes of passwords can be guessed at.
const SECRETS: [&str; 4] = ["passwordSha256", "sha256", "password", "secret"];
/// In place of such a value.
const REDACTED: &str = "(redacted)";

/// Flags of `report`.
#[derive(Debug, clap::Args)]
pub struct Report {
    /// One cluster; all when absent.
    #[arg(value_parser = cluster_name)]
    pub name: Option<String>,
    /// Where it is written, readable by its owner alone; standard output when absent. A file that is
    /// there is left alone.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

pub(super) async fn run(
    client: &Client,
    args: Report,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let clusters = match &args.name {
        Some(name) => vec![client.get(name).await?],
        None => client.list().await?,
    };
    let mut all = Vec::new();
    for cluster in clusters {
        let name = cluster.metadata.name.clone();
        all.push(json!({
            "cluster": cluster,
            "plan": part(client.plan(&name).await),
            "events": part(client.events(&name).await),
            "endpoint": part(client.endpoint(&name, None, std::time::Duration::ZERO).await),
        }));
    }
    let mut report = json!({
        "program": env!("CARGO_PKG_VERSION"),
        "operator": part(client.operator().await),
        "wallet": part(client.wallet().await),
        "providers": part(client.providers().await),
        "orphans": part(client.orphans().await),
        "clusters": all,
    });
    redact(&mut report);
    let text = yaml(&report);
    let Some(path) = args.out else { return Ok(out.write_all(text.as_bytes())?) };
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| CliError::Unwritten { path: path.clone(), source })?;
    Ok(writeln!(out, "written to {}; read it before you hand it on", path.display())?)
}

/// A part that cannot be had says why: the rest is worth having.
fn part<T: Serialize>(answer: Result<T, ClientError>) -> Value {
    match answer {
        Ok(value) => serde_json::to_value(value).unwrap_or_default(),
        Err(error) => json!({ "unknown": error.to_string() }),
    }
}

fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if SECRETS.contains(&name.as_str()) && !value.is_null() {
                    *value = json!(REDACTED);
                } else {
                    redact(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_hash_of_a_password_is_in_it() {
        let mut value = json!({"spec": {"redis": {"users": [
            {"name": "app", "passwordSha256": "2bd8", "passwords": [{"sha256": "77aa"}]},
        ]}}});
        redact(&mut value);
        let text = value.to_string();
        assert!(!text.contains("2bd8") && !text.contains("77aa"), "{text}");
        assert!(text.contains("\"name\":\"app\""), "{text}");
    }
}
