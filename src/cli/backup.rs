//! `akash-redis backup` and `backups`: take or verify a backup, list what there is, decrypt one
//! without an operator.

use std::io::{IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use comfy_table::{Table, presets};

use super::error::CliError;
use super::output::Structured;
use super::progress::Progress;
use super::{cluster_name, show};
use crate::api::conditions::{ConditionType, Reason};
use crate::api::quantity::Span;
use crate::api::status::{BackupStatus, Status};
use crate::api_client::Client;
use crate::backup::format::BackupKey;
use crate::backup::stream;
use crate::error_chain::error_chain;
use crate::secrets::RootSecret;
use crate::server::messages::VerifyBackup;

/// Between two looks.
const POLL: Duration = Duration::from_millis(300);
/// No root secret is larger, bytes.
const LARGEST_SECRET: u64 = 64 * 1024;

/// Flags of `backup`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Backup {
    /// Name of the cluster.
    #[arg(value_parser = cluster_name, required = true)]
    pub name: Option<String>,
    /// Wait until the backup is complete.
    #[arg(long)]
    pub wait: bool,
    /// The longest to wait.
    #[arg(long, default_value = "1h", requires = "wait", value_name = "TIME")]
    pub timeout: Span,
    /// What else can be done with backups.
    #[command(subcommand)]
    pub command: Option<BackupCommand>,
}

impl Backup {
    /// It asks an operator, or Kubernetes.
    pub(super) fn asks(&self) -> bool {
        !matches!(self.command, Some(BackupCommand::Decrypt(_)))
    }
}

/// What else can be done with a backup.
#[derive(Debug, clap::Subcommand)]
pub enum BackupCommand {
    /// Verify a backup: restore it into a temporary redis-server beside a replica, and compare.
    Verify(Verify),
    /// Decrypt the data of a backup (its object that ends in `.rdb`) from standard input to standard
    /// output: an RDB file, which redis-server loads.
    Decrypt(Decrypt),
}

/// Flags of `backup verify`.
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// Name of the cluster.
    #[arg(value_parser = cluster_name)]
    pub name: String,
    /// The backup, as `akash-redis backups` lists it; the newest when absent.
    pub id: Option<String>,
    /// Wait until it is known whether it can be restored.
    #[arg(long)]
    pub wait: bool,
    /// The longest to wait.
    #[arg(long, default_value = "1h", requires = "wait", value_name = "TIME")]
    pub timeout: Span,
}

/// Flags of `backup decrypt`.
#[derive(Debug, clap::Args)]
pub struct Decrypt {
    /// The operator's `rootSecretFile`.
    #[arg(long, value_name = "FILE")]
    pub root_secret: PathBuf,
}

/// Flags of `backups`.
#[derive(Debug, clap::Args)]
pub struct Backups {
    /// Name of the cluster.
    #[arg(value_parser = cluster_name)]
    pub name: String,
    /// How they are written; a table when absent.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<Structured>,
}

/// Flags of `dump`.
#[derive(Debug, clap::Args)]
pub struct Dump {
    /// Name of the cluster.
    #[arg(value_parser = cluster_name)]
    pub name: String,
}

pub(super) async fn run(
    args: Backup,
    socket: &Path,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    match (args.command, args.name) {
        (Some(BackupCommand::Decrypt(decrypt)), _) => {
            let done = tokio::task::spawn_blocking(move || self::decrypt(&decrypt)).await;
            done.unwrap_or_else(|error| Err(failed(error.to_string())))
        }
        (Some(BackupCommand::Verify(args)), _) => verify(&Client::new(socket)?, args, out).await,
        (None, Some(name)) => {
            take(&Client::new(socket)?, &name, args.wait, args.timeout, out).await
        }
        (None, None) => Err(failed("name the cluster".to_owned())),
    }
}

fn failed(sentence: String) -> CliError {
    CliError::Server(sentence.into())
}

async fn take(
    client: &Client,
    name: &str,
    wait: bool,
    timeout: Span,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let before = client.get(name).await?.status.unwrap_or_default();
    writeln!(out, "{}", client.backup(name).await?.message)?;
    if !wait {
        return Ok(());
    }
    let began = Instant::now();
    let progress = Progress::of(&format!("{name}: the backup is taken"));
    while began.elapsed() < timeout.0 {
        tokio::time::sleep(POLL).await;
        let status = client.get(name).await?.status.unwrap_or_default();
        if let Some(running) = status.backup.as_ref().and_then(|backup| backup.running.as_ref()) {
            progress.tell(&format!("{name}: {}", show::clean(running)));
        }
        if let Some(newest) = newest(&status).filter(|id| Some(id) != newest(&before).as_ref()) {
            return Ok(writeln!(out, "backup {newest} is complete")?);
        }
        if let Some(why) = failure(&status).filter(|why| Some(why) != failure(&before).as_ref()) {
            return Err(failed(why));
        }
    }
    Err(CliError::TimedOut {
        name: name.to_owned(),
        goal: "backed up".to_owned(),
        timeout: timeout.to_string(),
        waiting: format!("the backup (`akash-redis describe {name}` says how far it is)"),
    })
}

pub(super) async fn verify(
    client: &Client,
    args: Verify,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let Verify { name, id, wait, timeout } = args;
    let verified = |status: &Status| {
        let backup = status.backup.clone().unwrap_or_default();
        (backup.verified.map(|good| good.at), backup.verifying)
    };
    let said = |status: &Status| {
        let condition = status.condition(ConditionType::BackupVerified);
        condition.map(|c| c.message.clone()).unwrap_or_default()
    };
    let failed_at_last = |status: &Status| {
        status.backup.as_ref().and_then(|backup| backup.failed_verification.clone())
    };
    let before = client.get(&name).await?.status.unwrap_or_default();
    writeln!(out, "{}", client.verify_backup(&name, &VerifyBackup { id }).await?.message)?;
    if !wait {
        return Ok(());
    }
    let (start, mut ran) = (Instant::now(), false);
    let progress = Progress::of(&format!("{name}: a node is waited for"));
    while start.elapsed() < timeout.0 {
        tokio::time::sleep(POLL).await;
        let status = client.get(&name).await?.status.unwrap_or_default();
        let ((at, running), message) = (verified(&status), said(&status));
        progress.tell(&format!("{name}: {}", show::clean(&message)));
        if at.is_some() && at != verified(&before).0 {
            return Ok(writeln!(out, "{}", show::clean(&message))?);
        }
        // It may have begun and ended between two looks.
        let ended =
            failed_at_last(&status).filter(|it| Some(it) != failed_at_last(&before).as_ref());
        if let Some(ended) = ended {
            return Err(failed(ended.why));
        }
        if ran && running.is_none() {
            return Err(failed(message));
        }
        ran |= running.is_some();
    }
    Err(CliError::TimedOut {
        name: name.clone(),
        goal: "verified".to_owned(),
        timeout: timeout.to_string(),
        waiting: format!("the restore (`akash-redis describe {name}` says what it waits for)"),
    })
}

fn newest(status: &Status) -> Option<String> {
    Some(status.backup.as_ref()?.backups.first()?.id.clone())
}

fn failure(status: &Status) -> Option<String> {
    let condition = status.condition(ConditionType::BackedUp)?;
    (condition.reason == Reason::BackupFailed).then(|| condition.message.clone())
}

pub(super) async fn list(
    client: &Client,
    args: Backups,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let cluster = client.get(&args.name).await?;
    let status = cluster.status.unwrap_or_default();
    let Some(backup) = &status.backup else {
        return Err(failed(format!(
            "{} has no place for backups; add spec.backup to its manifest and apply it",
            args.name
        )));
    };
    if let Some(output) = args.output {
        return Ok(out.write_all(output.render(backup).as_bytes())?);
    }
    out.write_all(table(backup).as_bytes())?;
    for kind in [ConditionType::BackedUp, ConditionType::BackupVerified] {
        if let Some(condition) = status.condition(kind) {
            writeln!(out, "\n{}", show::clean(&condition.message))?;
        }
    }
    Ok(())
}

fn table(backup: &BackupStatus) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header(["ID", "TAKEN", "KEYS", "SIZE", "REDIS", "NODE", "NOTE"]);
    for b in &backup.backups {
        let verified = backup.verified.as_ref().filter(|good| good.id == b.id);
        let note = match verified {
            Some(good) => format!("test restore passed at {}", show::clean(&good.at)),
            None if b.of_this_cluster => String::new(),
            None => "of an earlier cluster of this name".to_owned(),
        };
        table.add_row([
            show::clean(&b.id),
            show::clean(&b.taken),
            b.keys.to_string(),
            show::size(i64::try_from(b.bytes).unwrap_or(i64::MAX)),
            show::clean(&b.redis),
            show::clean(&b.node),
            note,
        ]);
    }
    let mut text = table.lines().fold(String::new(), |all, line| all + line.trim_end() + "\n");
    for why in &backup.unusable {
        text = text + "not usable: " + &show::clean(why) + "\n";
    }
    text
}

/// With the root secret alone: neither operator nor storage are asked.
fn decrypt(args: &Decrypt) -> Result<(), CliError> {
    let file = args.root_secret.display();
    let unreadable = |why: String| failed(format!("the root secret {file} cannot be used ({why})"));
    let size = std::fs::metadata(&args.root_secret).map_err(|e| unreadable(e.to_string()))?.len();
    if size > LARGEST_SECRET {
        return Err(unreadable("it is larger than any".to_owned()));
    }
    let bytes = std::fs::read(&args.root_secret).map_err(|e| unreadable(e.to_string()))?;
    let root = RootSecret::new(bytes.into()).map_err(|e| unreadable(e.to_string()))?;
    if std::io::stdout().is_terminal() {
        return Err(failed(
            "an RDB file is nothing for a terminal; write it to a file with `> dump.rdb`"
                .to_owned(),
        ));
    }
    let key_of = |id: &str| BackupKey(root.backup_key(id));
    let (from, to) = (std::io::stdin().lock(), std::io::stdout().lock());
    let to = std::io::BufWriter::with_capacity(1 << 20, to);
    let (id, bytes) = stream::decrypt(from, key_of, to)
        .map_err(|error| failed(format!("{error}; what was written is not to be used")))?;
    eprintln!("backup {id}: {bytes} bytes");
    Ok(())
}

/// What goes to standard output is nothing for a person.
pub(super) fn no_terminal() -> Result<(), CliError> {
    if !std::io::stdout().is_terminal() {
        return Ok(());
    }
    let sentence = "an RDB file is nothing for a terminal; write it to a file with `> dump.rdb`";
    Err(failed(sentence.to_owned()))
}

/// A file that ends early is an error, and of no use.
pub(super) async fn dump(
    client: &Client,
    args: Dump,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let mut answer = client.dump(&args.name).await?;
    let progress = Progress::of_bytes(&args.name);
    let mut bytes = 0;
    loop {
        let piece = answer.chunk().await.map_err(|source| {
            let why = error_chain(&source);
            failed(format!(
                "the data of {} broke off ({why}); what was written is not to be used",
                args.name
            ))
        })?;
        let Some(piece) = piece else { break };
        bytes += piece.len();
        progress.more(piece.len());
        out.write_all(&piece)?;
    }
    out.flush()?;
    drop(progress);
    if bytes == 0 {
        return Err(failed(format!("no data of {} came; ask again", args.name)));
    }
    eprintln!("{}: {bytes} bytes", args.name);
    Ok(())
}
