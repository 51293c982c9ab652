//! `akash-redis wallet`: what the operator's wallet holds and until when that does, a new one, and
//! ACT for AKT.

use std::io::{IsTerminal as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::ExposeSecret as _;

use super::error::CliError;
use super::output::Structured;
use super::{failed, show};
use crate::api::quantity::Money;
use crate::api::wallet::{MintRequest, MintState};
use crate::api_client::Client;
use crate::chain::wallet::{Wallet as Key, new_phrase};
use crate::model::money::akt;

/// Between two looks at a burn.
const LOOK: Duration = Duration::from_secs(1);
/// An epoch of the chain takes a minute; one that is stretched, some of them.
const PATIENCE: Duration = Duration::from_mins(15);

/// Flags of `wallet`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Wallet {
    /// How it is written; text when absent.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Structured>,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What is done with a wallet.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a new phrase of 24 words; no operator is needed.
    New(New),
    /// Burn AKT of the wallet for ACT, and wait until it is there.
    Mint(Mint),
}

/// Flags of `wallet new`.
#[derive(Debug, clap::Args)]
pub struct New {
    /// Where the phrase is written, readable by its owner alone; a file that is there is left alone.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Show the words too, on a terminal only, so that they can be written on paper.
    #[arg(long)]
    show_phrase: bool,
}

/// Flags of `wallet mint`.
#[derive(Debug, clap::Args)]
pub struct Mint {
    /// What shall come into the wallet, e.g. `20act`; at least what the chain mints at once.
    #[arg(value_name = "ACT", required_unless_present = "follow")]
    act: Option<Money>,
    /// The most that may be burnt for it, e.g. `45akt` or `45`.
    #[arg(long, value_name = "AKT", value_parser = parse_akt, required_unless_present = "follow")]
    max_akt: Option<u64>,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    /// Burn nothing: wait for the end of the newest burn.
    #[arg(short, long, conflicts_with_all = ["act", "max_akt", "yes"])]
    follow: bool,
}

pub(super) async fn run(
    args: Wallet,
    socket: &Path,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    match args.command {
        Some(Command::New(args)) => new(&args, std::io::stdout().is_terminal(), out),
        Some(Command::Mint(args)) => mint(&Client::new(socket)?, args, out).await,
        None => {
            let report = Client::new(socket)?.wallet().await?;
            let text = match args.output {
                None => show::wallet(&report),
                Some(output) => output.render(&report),
            };
            Ok(out.write_all(text.as_bytes())?)
        }
    }
}

/// Why no wallet was made.
#[derive(Debug, thiserror::Error)]
enum NewError {
    #[error("{0} is there already and may hold a wallet: it was left alone; name another file")]
    Exists(String),
    #[error("{path} cannot be written ({source}); nothing was made")]
    Write { path: String, source: std::io::Error },
    #[error("--show-phrase shows the words on a terminal only, and this is none; nothing was made")]
    NoTerminal,
    #[error(transparent)]
    Wallet(#[from] crate::chain::wallet::WalletError),
}

fn new(args: &New, terminal: bool, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    if args.show_phrase && !terminal {
        return Err(failed(NewError::NoTerminal));
    }
    let phrase = new_phrase();
    let key = Key::from_phrase(&phrase, 0).map_err(|e| failed(NewError::Wallet(e)))?;
    let path = args.out.display().to_string();
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&args.out);
    let written = file.and_then(|mut file| {
        file.write_all(phrase.expose_secret().as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()
    });
    written.map_err(|source| {
        failed(if source.kind() == std::io::ErrorKind::AlreadyExists {
            NewError::Exists(path.clone())
        } else {
            NewError::Write { path: path.clone(), source }
        })
    })?;
    writeln!(out, "{}", key.address())?;
    if args.show_phrase {
        writeln!(out, "{}", phrase.expose_secret())?;
    }
    // The address alone goes into a pipe.
    if terminal {
        writeln!(
            out,
            "the phrase is in {path}: keep a copy of it elsewhere, whoever has it has the coins; send the account AKT, and name the file in wallet.mnemonicFile"
        )?;
    }
    Ok(())
}

/// Why nothing was minted.
#[derive(Debug, thiserror::Error)]
enum MintError {
    #[error("this burns coins and nobody can be asked: say --yes, or run it on a terminal")]
    NotAsked,
    #[error("nothing was burnt")]
    No,
    #[error("no ACT came of it: {0}")]
    Failed(String),
    #[error(
        "it takes longer than a quarter of an hour: {0}; `akash-redis wallet mint --follow` goes on waiting"
    )]
    Slow(String),
}

async fn mint(client: &Client, args: Mint, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    if let (Some(act), Some(most_uakt), false) = (args.act, args.max_akt, args.follow) {
        let request = MintRequest { act, most_uakt, dry_run: !args.yes };
        let mut answer = client.mint(&request).await?;
        if request.dry_run {
            ask(&answer.message, answer.burn_uakt)?;
            // The price may have moved, and nobody said yes to more than was shown.
            let most_uakt = most_uakt.min(answer.burn_uakt.saturating_add(answer.burn_uakt / 50));
            answer = client.mint(&MintRequest { most_uakt, dry_run: false, ..request }).await?;
        }
        writeln!(out, "{}", show::clean(&answer.message))?;
    }
    follow(client, out).await
}

/// Asks a person on the terminal.
fn ask(message: &str, burn: u64) -> Result<(), CliError> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(failed(MintError::NotAsked));
    }
    eprint!("{}\nburn {}? [y/N] ", show::clean(message), akt(burn));
    let mut line = String::new();
    stdin.read_line(&mut line)?;
    if matches!(line.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(failed(MintError::No)) }
}

/// Tells each change until the burn is over.
async fn follow(client: &Client, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    let began = std::time::Instant::now();
    let mut told = MintState::Unknown;
    loop {
        let report = client.newest_mint().await?;
        if report.state == MintState::Failed {
            return Err(failed(MintError::Failed(report.message)));
        }
        if report.state != told {
            writeln!(out, "{}: {}", report.state, show::clean(&report.message))?;
            told = report.state;
        }
        if report.state.is_over() {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            return Err(failed(MintError::Slow(report.message)));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// `45akt` or `45`, in uakt.
fn parse_akt(text: &str) -> Result<u64, String> {
    let number = text.strip_suffix("akt").unwrap_or(text);
    // The form of amounts is the same, whatever the coin.
    let amount = format!("{number}act").parse::<Money>().map(|money| money.0.0);
    amount
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| format!("`{text}` is no amount; write it like 45akt"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn args(path: &Path, show_phrase: bool) -> New {
        New { out: path.to_owned(), show_phrase }
    }

    #[test]
    fn a_new_wallet_is_in_its_file_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mnemonic");
        let mut shown = Vec::new();
        new(&args(&path, false), false, &mut shown).unwrap();
        let phrase = std::fs::read_to_string(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(phrase.split_whitespace().count(), 24);
        let key = Key::from_phrase(&phrase.clone().into(), 0).unwrap();
        assert_eq!(String::from_utf8(shown).unwrap(), format!("{}\n", key.address()));

        let error = new(&args(&path, false), true, &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("left alone"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), phrase);

        let other = dir.path().join("other");
        let error = new(&args(&other, true), false, &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("on a terminal only") && !other.exists(), "{error}");
        let mut shown = Vec::new();
        new(&args(&other, true), true, &mut shown).unwrap();
        let words = std::fs::read_to_string(&other).unwrap();
        assert!(String::from_utf8(shown).unwrap().contains(words.trim()));
        assert_ne!(words, phrase);
    }

    #[test]
    fn an_amount_of_akt_is_written_with_or_without_its_name() {
        assert_eq!(parse_akt("45akt"), Ok(45_000_000));
        assert_eq!(parse_akt("0.5"), Ok(500_000));
        for bad in ["45act", "-1", "0", "akt", "uakt"] {
            assert!(parse_akt(bad).is_err(), "{bad}");
        }
    }
}
