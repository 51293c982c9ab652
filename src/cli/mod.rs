//! The command line. Each command is a thin client of the operator's API; those that are servers
//! themselves only read their flags here.

mod act;
mod apply;
mod ask;
mod backup;
mod completion;
mod connect;
mod cutover;
#[cfg(feature = "devnet")]
pub mod demo;
#[cfg(feature = "devnet")]
mod devnet;
mod edit;
mod endpoint;
pub mod error;
pub mod examples;
mod exec;
mod explain;
#[cfg(feature = "devnet")]
mod fault;
mod kube;
#[cfg(feature = "devnet")]
pub mod local;
pub mod logging;
mod logs;
mod manifests;
mod market;
mod master_of;
mod mesh;
mod node;
mod notify;
pub mod operator;
pub mod output;
mod place;
mod progress;
#[cfg(feature = "devnet")]
mod providers;
mod proxy;
mod read;
mod recover;
mod report;
mod restore;
mod sdl;
mod select;
pub mod show;
mod show_preview;
mod spend;
#[cfg(test)]
mod tests;
mod top;
mod validate;
mod wait;
mod wallet;
mod word;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::api::quantity::Span;
use crate::api_client::Client;
use crate::config::LogFormat;
use crate::error_chain::error_chain;
use error::CliError;

/// The heading of what every command takes, below a command's own flags.
const EVERYWHERE: &str = "Options of every command";

/// Highly available Redis on the Akash Network.
#[derive(Debug, Parser)]
#[command(name = "akash-redis", version, propagate_version = true)]
pub struct Cli {
    /// Unix socket at which the operator answers.
    #[arg(
        long,
        global = true,
        help_heading = EVERYWHERE,
        env = "AKASH_REDIS_SOCKET",
        default_value = "/run/akash-redis/operator.sock",
        value_name = "PATH"
    )]
    pub socket: PathBuf,
    /// Flags that name an apiserver in place of a socket.
    #[command(flatten)]
    pub kube: kube::Kube,
    /// What is logged on standard error, e.g. `info` or `akash_redis=debug`.
    #[arg(
        long,
        global = true,
        help_heading = EVERYWHERE,
        env = "AKASH_REDIS_LOG_LEVEL",
        default_value = "warn",
        value_name = "FILTER"
    )]
    pub log_level: String,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Those that ask a running operator.
    #[command(flatten)]
    Client(ClientCommand),
    /// Take or verify a backup of a cluster now, or decrypt one without an operator.
    Backup(backup::Backup),
    /// Render one node of a manifest for the Akash market.
    Sdl(sdl::SdlArgs),
    /// Check manifests on this machine, without an operator.
    Validate(validate::Validate),
    /// Say what a field of the manifest means.
    Explain(explain::Explain),
    /// Print the JSON schema of the manifest.
    Schema,
    /// Print the manifest as a definition for Kubernetes, a `CustomResourceDefinition`.
    Crd,
    /// Print what completes commands in a shell.
    Completion(completion::Completion),
    /// Write the manual pages.
    Man(completion::Man),
    /// Print or check the tailnet's policy.
    #[command(subcommand)]
    Mesh(mesh::Mesh),
    /// Show what the operator's wallet holds and until when that does; make a new one, mint ACT.
    Wallet(wallet::Wallet),
    /// Run the operator.
    Operator(operator::Operator),
    /// Run the agent of a node; this is what the image starts.
    Node,
    /// Forward a local port to the present master, beside an application.
    Proxy(proxy::Args),
    /// Talk to the present master with redis-cli.
    Connect(connect::Connect),
    /// Run redis-cli at one node.
    Exec(exec::Exec),
    /// Show it on this machine: a market, a tailnet, a cluster, and what happens when a node dies.
    #[cfg(feature = "devnet")]
    Demo(demo::Demo),
    /// The local market by hand.
    #[cfg(feature = "devnet")]
    Devnet(devnet::Devnet),
}

/// Commands that ask a running operator.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Create or change clusters from manifests.
    Apply(apply::Apply),
    /// Change a cluster in an editor.
    Edit(edit::Edit),
    /// List clusters, or show one.
    Get(read::Get),
    /// Show everything that is known of a cluster: nodes, cost, conditions, what is waited for,
    /// last events.
    Describe(read::Name),
    /// Show what the operator does next and why, what it waits for, and what it costs; with `-f` what
    /// an apply of a file would do.
    Plan(read::Plan),
    /// Show the load of each node: role, lag, commands per second, memory, clients, runway.
    Top(top::Top),
    /// Show what happened to a cluster.
    Events(read::Shown),
    /// Show what the processes of a node print: agent, tailscaled, redis.
    Logs(logs::Logs),
    /// Show the state of the operator itself: chain, tailnet, mesh, wallet, budget.
    Status(read::OperatorStatus),
    /// Show the addresses of the present master and of its replicas.
    Endpoint(endpoint::Endpoint),
    /// Move a node to another provider.
    Migrate(act::Migrate),
    /// Make a replica the master, without losing a write.
    Switchover(act::Switchover),
    /// End an import from a running Redis: the cluster takes the writes, with all that the source had.
    Cutover(cutover::Cutover),
    /// Go on without the data of nodes that cannot be asked, where a cluster waits for that
    /// decision.
    Failover(word::Failover),
    /// Change the number of nodes.
    Scale(act::Scale),
    /// Pause a cluster: the operator watches it and changes nothing, also when its master dies.
    Pause(read::Name),
    /// End a pause.
    Resume(read::Name),
    /// Give a node whose device is gone from the tailnet a new key; it keeps its lease and its
    /// volume.
    Rejoin(act::Rejoin),
    /// Close deployments of a cluster that are in no record, as after the loss of the operator's
    /// store.
    Close(act::Close),
    /// Delete a cluster: close its leases, get back what is left in escrow.
    Delete(act::Delete),
    /// Wait until a condition of a cluster is true, or it is gone.
    Wait(wait::Wait),
    /// Test notifications.
    #[command(subcommand)]
    Notify(notify::Notify),
    /// Show what was paid, to whom and for what, to the last unit.
    Spend(spend::Spend),
    /// Show the providers that the operator met, and what it lived through with them.
    Providers(market::ShowProviders),
    /// After the loss of the operator's store: show what is found of its clusters on the chain, on
    /// the tailnet and on their nodes, and take them over with --confirm.
    Recover(recover::Recover),
    /// List deployments, devices and keys of this installation that stand in no record, and close
    /// them with --close.
    Orphans(recover::Orphans),
    /// Restart the containers of a cluster one at a time, the master last and by a switchover; or that
    /// of one node.
    Restart(act::Restart),
    /// Keep a node, the master as well, from writes and from promotion until `unfence`, whatever
    /// happens.
    Fence(word::Fence),
    /// Let a fenced node take writes and be promoted again.
    Unfence(word::Fence),
    /// Write a bundle for support, without secrets: objects, plans, events and where each master is.
    Report(report::Report),
    /// Print the installation's public key, by which a proxy on another machine verifies what nodes
    /// say of the master.
    PublicKey,
    /// Write the present data of a cluster to standard output, as an RDB file.
    Dump(backup::Dump),
    /// List the backups of a cluster.
    Backups(backup::Backups),
    /// Create a cluster from a backup of another one, or from its data as they were at a time.
    Restore(restore::Restore),
}

/// Runs a command: 0 when it did what was asked, 1 when not (with one sentence on standard error).
/// Usage errors end with 2 before this.
pub async fn run(cli: Cli) -> ExitCode {
    match Box::pin(dispatch(cli)).await {
        Ok(code) => code,
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error_chain(&error));
            ExitCode::FAILURE
        }
    }
}

async fn dispatch(cli: Cli) -> Result<ExitCode, CliError> {
    if cli.kube.is_meant(&cli.command) {
        logging::init(LogFormat::Text, &cli.log_level);
        return Box::pin(kube::run(&cli.kube, cli.command)).await;
    }
    match cli.command {
        Command::Client(command) => {
            // Here and not before: a server's log is as its own settings say, and the first call
            // wins.
            logging::init(LogFormat::Text, &cli.log_level);
            let client = Client::new(&cli.socket)?;
            if matches!(command, ClientCommand::Dump(_)) {
                backup::no_terminal()?;
            }
            let (out, person) = (&mut std::io::stdout(), &mut ask::Terminal);
            execute(&client, command, out, person).await?;
        }
        Command::Sdl(args) => {
            std::io::stdout().write_all(sdl::run(&args).map_err(failed)?.as_bytes())?;
        }
        Command::Schema => writeln!(std::io::stdout(), "{:#}", crate::api::schema::json_schema())?,
        Command::Validate(args) => validate::run(&args, &mut std::io::stdout())?,
        Command::Explain(args) => explain::run(&args, &mut std::io::stdout())?,
        Command::Completion(args) => completion::completion(&args, &mut std::io::stdout())?,
        Command::Man(args) => completion::man(&args, &mut std::io::stdout())?,
        Command::Crd => write!(std::io::stdout(), "{}", crate::api::crd::yaml())?,
        Command::Mesh(command) => {
            logging::init(LogFormat::Text, &cli.log_level);
            return mesh::run(command, &cli.socket, &mut std::io::stdout()).await;
        }
        Command::Wallet(args) => {
            logging::init(LogFormat::Text, &cli.log_level);
            wallet::run(args, &cli.socket, &mut std::io::stdout()).await?;
        }
        Command::Backup(args) => {
            logging::init(LogFormat::Text, &cli.log_level);
            backup::run(args, &cli.socket, &mut std::io::stdout()).await?;
        }
        Command::Operator(args) => {
            Box::pin(operator::run(&args)).await.map_err(CliError::Server)?;
        }
        Command::Node => return node::run().await.map_err(failed),
        Command::Proxy(args) => {
            logging::init(LogFormat::Text, &cli.log_level);
            return proxy::run(args, &cli.socket).await.map_err(CliError::Server);
        }
        Command::Connect(args) => {
            logging::init(LogFormat::Text, &cli.log_level);
            return connect::run(args, &cli.socket).await.map_err(failed);
        }
        Command::Exec(args) => {
            logging::init(LogFormat::Text, &cli.log_level);
            return exec::run(args, &cli.socket).await.map_err(failed);
        }
        #[cfg(feature = "devnet")]
        Command::Demo(args) => {
            logging::init(LogFormat::Text, &cli.log_level);
            return demo::run(args).await.map_err(failed);
        }
        #[cfg(feature = "devnet")]
        Command::Devnet(args) => {
            logging::init(LogFormat::Text, &cli.log_level);
            return devnet::run(args).await.map_err(failed);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A command that is no client ended with this.
fn failed(error: impl std::error::Error + Send + Sync + 'static) -> CliError {
    CliError::Server(Box::new(error))
}

/// Carries out a client command; what it has to say goes to `out`.
async fn execute(
    client: &Client,
    command: ClientCommand,
    out: &mut (dyn Write + Send),
    person: &mut dyn ask::Person,
) -> Result<(), CliError> {
    match command {
        ClientCommand::Apply(args) => apply::run(client, args, out, person).await,
        ClientCommand::Edit(args) => edit::run(client, args, out, person).await,
        ClientCommand::Top(args) => top::run(client, args, out).await,
        ClientCommand::Get(args) => read::get(client, args, out).await,
        ClientCommand::Describe(args) => read::describe(client, args, out).await,
        ClientCommand::Plan(args) => read::plan(client, args, out).await,
        ClientCommand::Events(args) => read::events(client, args, out).await,
        ClientCommand::Logs(args) => logs::run(client, args, out).await,
        ClientCommand::Status(args) => read::status(client, args, out).await,
        ClientCommand::Endpoint(args) => endpoint::run(client, args, out).await,
        ClientCommand::Migrate(args) => act::migrate(client, args, out).await,
        ClientCommand::Switchover(args) => act::switchover(client, args, out).await,
        ClientCommand::Cutover(args) => cutover::run(client, args, out).await,
        ClientCommand::Failover(args) => word::failover(client, args, out, person).await,
        ClientCommand::Scale(args) => act::scale(client, args, out).await,
        ClientCommand::Pause(args) => act::pause(client, args, out).await,
        ClientCommand::Resume(args) => act::resume(client, args, out).await,
        ClientCommand::Rejoin(args) => act::rejoin(client, args, out).await,
        ClientCommand::Close(args) => act::close(client, args, out).await,
        ClientCommand::Delete(args) => act::delete(client, args, out, person).await,
        ClientCommand::Wait(args) => wait::run(client, args, out).await,
        ClientCommand::Notify(command) => notify::run(client, command, out).await,
        ClientCommand::Spend(args) => spend::run(client, args, out).await,
        ClientCommand::Providers(args) => market::providers(client, args, out).await,
        ClientCommand::Recover(args) => recover::recover(client, args, out).await,
        ClientCommand::Orphans(args) => recover::orphans(client, args, out).await,
        ClientCommand::Restart(args) => act::restart(client, args, out).await,
        ClientCommand::Fence(args) => word::fence(client, args, out).await,
        ClientCommand::Unfence(args) => word::unfence(client, args, out).await,
        ClientCommand::Report(args) => report::run(client, args, out).await,
        ClientCommand::Dump(args) => backup::dump(client, args, out).await,
        ClientCommand::Backups(args) => backup::list(client, args, out).await,
        ClientCommand::Restore(args) => restore::run(client, args, out, person).await,
        ClientCommand::PublicKey => endpoint::public_key(client, out).await,
    }
}

/// A time as `5s`; a number alone is seconds.
fn seconds(text: &str) -> Result<Span, String> {
    match text.parse() {
        Ok(seconds) => Ok(Span(std::time::Duration::from_secs(seconds))),
        Err(_) => text.parse::<Span>().map_err(|error| error.to_string()),
    }
}

/// The characters of a cluster's name, so that no name becomes another path of the API.
fn cluster_name(text: &str) -> Result<String, String> {
    let good = !text.is_empty()
        && text.len() <= 63
        && text.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-'));
    if good { Ok(text.to_owned()) } else { Err("names consist of a-z, 0-9 and -".to_owned()) }
}
