//! Commands that ask the operator for something: `migrate`, `switchover`, `scale`,
//! `pause`, `resume`, `rejoin`, `restart`, `close`, `delete`.

use std::io::Write;

use super::ask::Person;
use super::error::CliError;
use super::read::Name;
use super::{cluster_name, show, wait};
use crate::api::quantity::Span;
use crate::api::types::DeletionPolicy;
use crate::api_client::Client;
use crate::server::messages;

/// Flags of `migrate`.
#[derive(Debug, clap::Args)]
pub struct Migrate {
    /// Name of the cluster.
    #[arg(value_parser = cluster_name)]
    pub name: String,
    /// The node, by number or by the name of the incarnation that fills it.
    #[arg(value_name = "NODE")]
    pub node: String,
    /// Wait until it is filled elsewhere, and the lease before is given up.
    #[arg(long)]
    pub wait: bool,
    /// The longest to wait.
    #[arg(long, default_value = "10m", requires = "wait", value_name = "TIME")]
    pub timeout: Span,
}

/// Flags of `switchover`.
#[derive(Debug, clap::Args)]
pub struct Switchover {
    /// Name of the cluster.
    #[arg(value_parser = cluster_name)]
    pub name: String,
    /// The master to be, by number or incarnation; the replica that is least behind when absent.
    #[arg(long, value_name = "NODE")]
    pub to: Option<String>,
    /// Wait until it is done.
    #[arg(long)]
    pub wait: bool,
    /// The longest to wait.
    #[arg(long, default_value = "1m", requires = "wait", value_name = "TIME")]
    pub timeout: Span,
}

/// Flags of `scale`.
#[derive(Debug, clap::Args)]
pub struct Scale {
    /// Name of the cluster.
    #[arg(value_parser = cluster_name)]
    pub name: String,
    /// Wanted number of nodes.
    #[arg(long, value_name = "N")]
    pub nodes: u32,
}

/// Flags of `rejoin`.
#[derive(Debug, clap::Args)]
pub struct Rejoin {
    /// Name of the cluster.
    #[arg(value_parser = cluster_name)]
    pub name: String,
    /// The node, by number or by the name of the incarnation that fills it.
    #[arg(value_name = "NODE")]
    pub node: String,
}

/// Flags of `restart`.
#[derive(Debug, clap::Args)]
pub struct Restart {
    /// Name of the cluster.
    #[arg(value_parser = cluster_name)]
    pub name: String,
    /// One node alone, by number or by the name of the incarnation that fills it.
    #[arg(value_name = "NODE")]
    pub node: Option<String>,
}

/// Flags of `close`.
#[derive(Debug, clap::Args)]
pub struct Close {
    /// Name of the cluster in the deployment's group.
    #[arg(value_parser = cluster_name)]
    pub name: String,
    /// Deployments that the status names (`OrphanedDeployment`). Their data is gone with them.
    #[arg(value_name = "DSEQ", required = true)]
    pub dseqs: Vec<u64>,
}

/// Flags of `delete`.
#[derive(Debug, clap::Args)]
pub struct Delete {
    /// Name of the cluster.
    #[arg(value_parser = cluster_name)]
    pub name: String,
    /// Do not ask. Without a terminal nobody is asked. A cluster that may hold data is deleted only
    /// by `spec.deletionPolicy`, or with `--yes-delete-data`.
    #[arg(short, long)]
    pub yes: bool,
    /// The name of the cluster again: its data may be deleted with it, at once and without a last
    /// backup.
    #[arg(long, value_name = "NAME")]
    pub yes_delete_data: Option<String>,
    /// Wait until it is gone.
    #[arg(long)]
    pub wait: bool,
    /// The longest to wait.
    #[arg(long, default_value = "5m", requires = "wait", value_name = "TIME")]
    pub timeout: Span,
}

pub(super) async fn migrate(
    client: &Client,
    args: Migrate,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let request = match args.node.parse() {
        Ok(ordinal) => messages::Migrate { ordinal: Some(ordinal), incarnation: None },
        Err(_) => messages::Migrate { ordinal: None, incarnation: Some(args.node.clone()) },
    };
    let before = client.get(&args.name).await?;
    writeln!(out, "{}", client.migrate(&args.name, &request).await?.message)?;
    if args.wait {
        wait::until_moved(client, &args.name, &before, &args.node, args.timeout).await?;
        writeln!(out, "rediscluster/{} migrated", args.name)?;
    }
    Ok(())
}

pub(super) async fn switchover(
    client: &Client,
    args: Switchover,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let request = messages::Switchover { to: args.to };
    let before = client.get(&args.name).await?;
    writeln!(out, "{}", client.switchover(&args.name, &request).await?.message)?;
    if args.wait {
        wait::until_switched(client, &args.name, &before, args.timeout).await?;
        writeln!(out, "rediscluster/{} switched over", args.name)?;
    }
    Ok(())
}

pub(super) async fn scale(
    client: &Client,
    args: Scale,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    Ok(writeln!(out, "{}", client.scale(&args.name, args.nodes).await?.message)?)
}

pub(super) async fn pause(
    client: &Client,
    args: Name,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    Ok(writeln!(out, "{}", client.pause(&args.name).await?.message)?)
}

pub(super) async fn resume(
    client: &Client,
    args: Name,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    Ok(writeln!(out, "{}", client.resume(&args.name).await?.message)?)
}

pub(super) async fn rejoin(
    client: &Client,
    args: Rejoin,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let request = messages::Rejoin { node: args.node };
    Ok(writeln!(out, "{}", client.rejoin(&args.name, &request).await?.message)?)
}

pub(super) async fn restart(
    client: &Client,
    args: Restart,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let request = messages::Restart { node: args.node };
    Ok(writeln!(out, "{}", client.restart(&args.name, &request).await?.message)?)
}

pub(super) async fn close(
    client: &Client,
    args: Close,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    Ok(writeln!(out, "{}", client.close(&args.name, args.dseqs).await?.message)?)
}

pub(super) async fn delete(
    client: &Client,
    args: Delete,
    out: &mut (dyn Write + Send),
    person: &mut dyn Person,
) -> Result<(), CliError> {
    if let Some(other) = args.yes_delete_data.as_ref().filter(|named| **named != args.name) {
        return Err(CliError::AnotherNamed { cluster: args.name, other: other.clone() });
    }
    let mut with_data = args.yes_delete_data.is_some();
    if !args.yes && !with_data && person.is_there() {
        let cluster = client.get(&args.name).await?;
        eprint!("{}", show::deletion(&cluster));
        let question = format!("\nType the name of the cluster to delete it, `{}`: ", args.name);
        if !person.says(&question, &args.name)? {
            return Err(CliError::DeletionDeclined(args.name));
        }
        // Who types the name has read what is lost, and that a last backup is taken.
        with_data = cluster.spec.deletion_policy != DeletionPolicy::Backup;
    }
    writeln!(out, "{}", client.delete(&args.name, with_data).await?.message)?;
    if args.wait {
        wait::until_gone(client, &args.name, args.timeout).await?;
        writeln!(out, "rediscluster/{} deleted", args.name)?;
    }
    Ok(())
}
