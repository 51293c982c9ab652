//! `akash-redis restore`: a new cluster that begins with a backup of another one.
//!
//! Nothing is ever restored over a cluster that is there: what a person gets is a second one, to be
//! looked at before anybody is pointed to it.

use std::io::Write;

use super::apply;
use super::ask::Person;
use super::error::CliError;
use super::manifests::{self, Found, Source};
use super::{cluster_name, output, wait};
use crate::api::backup::{FromBackup, RestoredUsers};
use crate::api::quantity::Span;
use crate::api::types::{Metadata, RedisCluster};
use crate::api_client::{Client, ClientError};
use crate::model::time::UnixMs;

/// Flags of `restore`.
#[derive(Debug, clap::Args)]
pub struct Restore {
    /// Name of the new cluster.
    #[arg(value_parser = cluster_name)]
    pub name: String,
    /// The cluster whose backup it begins with. Its manifest is the new cluster's too, unless
    /// `--filename` names another one.
    #[arg(long, value_name = "CLUSTER", value_parser = cluster_name)]
    pub from: String,
    /// The data as they were at this time, like 2026-11-25T10:15:00Z; the newest backup when absent.
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "id")]
    pub to: Option<String>,
    /// This backup, as `akash-redis backups` lists it.
    #[arg(long, value_name = "BACKUP")]
    pub id: Option<String>,
    /// Let in who could log in then, with the same passwords, beside the users of the manifest.
    #[arg(long)]
    pub keep_users: bool,
    /// File with the manifest of the new cluster, where that of the other one is gone or does not fit.
    #[arg(short, long = "filename", value_name = "FILE")]
    pub file: Option<String>,
    /// Print the manifest of the new cluster; change nothing.
    #[arg(long, conflicts_with_all = ["wait", "yes"])]
    pub dry_run: bool,
    /// Do not ask before coins are spent. Without a terminal nobody is asked.
    #[arg(short, long)]
    pub yes: bool,
    /// Wait until the new cluster has the data and is ready.
    #[arg(long)]
    pub wait: bool,
    /// The longest to wait.
    #[arg(long, default_value = "1h", requires = "wait", value_name = "TIME")]
    pub timeout: Span,
}

fn time(text: &str) -> Result<String, String> {
    match UnixMs::parse(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("write a time in UTC, like 2026-11-25T10:15:00Z".to_owned()),
    }
}

fn failed(sentence: String) -> CliError {
    CliError::Server(sentence.into())
}

pub(super) async fn run(
    client: &Client,
    args: Restore,
    out: &mut (dyn Write + Send),
    person: &mut dyn Person,
) -> Result<(), CliError> {
    let Restore { name, from, .. } = &args;
    if name == from {
        return Err(failed(format!(
            "a backup of {from} is restored into a new cluster and never over the one that is there; give the new one another name"
        )));
    }
    if present(client, name).await?.is_some() {
        return Err(failed(format!(
            "{name} is there already, and nothing is restored over a cluster; give the new one another name, or delete {name} first"
        )));
    }
    let (manifest, source) = manifest(client, &args).await?;
    let cluster = begun_with(manifest, &args)?;
    if args.dry_run {
        return Ok(out.write_all(output::yaml(&cluster).as_bytes())?);
    }
    apply::found(client, &[(cluster, source)], args.yes, out, person).await?;
    if args.wait {
        wait::until_in_force(client, name, args.timeout).await?;
    }
    Ok(())
}

async fn present(client: &Client, name: &str) -> Result<Option<RedisCluster>, CliError> {
    match client.get(name).await {
        Ok(cluster) => Ok(Some(cluster)),
        Err(ClientError::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The manifest of the file, or else that of the other cluster.
async fn manifest(client: &Client, args: &Restore) -> Result<Found, CliError> {
    let Some(file) = &args.file else {
        let Some(other) = present(client, &args.from).await? else {
            return Err(failed(format!(
                "{} is not there, so that its manifest is not known; name that of the new cluster with `-f FILE`",
                args.from
            )));
        };
        let name = format!("the manifest of {}", args.from);
        let source = Source::of(&name, &output::yaml(&other));
        return Ok((other, source));
    };
    let mut found = manifests::load(std::slice::from_ref(file), &|name| std::env::var(name).ok())?;
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        _ => Err(failed(format!("{file} is to hold the manifest of one cluster, and no other"))),
    }
}

/// The same cluster under the new name, which begins with the backup.
fn begun_with(manifest: RedisCluster, args: &Restore) -> Result<RedisCluster, CliError> {
    let mut spec = manifest.spec;
    if spec.backup.is_none() {
        return Err(failed(format!(
            "there is no spec.backup in that manifest, which says where the backups of {} are; name one with `-f FILE`",
            args.from
        )));
    }
    let users = if args.keep_users { RestoredUsers::Keep } else { RestoredUsers::Manifest };
    spec.bootstrap.get_or_insert_default().from_backup = Some(FromBackup {
        cluster: Some(args.from.clone()),
        id: args.id.clone(),
        at: args.to.clone(),
        users,
    });
    spec.paused = false;
    let (name, labels) = (args.name.clone(), manifest.metadata.labels);
    let metadata = Metadata { name, labels, ..Metadata::default() };
    Ok(RedisCluster { metadata, spec, status: None, ..manifest })
}
