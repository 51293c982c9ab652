//! `akash-redis devnet`: the local market by hand.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use super::fault::{self, FaultArgs, FaultCommandError};
use super::local::{Local, LocalError, LocalOptions};
use super::providers::{self, Providers, ProvidersError};
use crate::devnet::distance::Distance;
use crate::devnet::sandbox::{self, Sandbox, SandboxError};
use crate::devnet::tailnet;

/// Tells the inner process its directory, and marks it for `exec`.
const DIR_VARIABLE: &str = "AKASH_REDIS_DEVNET_DIR";

/// Says that a directory is ours to empty.
const MARKER: &str = ".akash-redis-devnet";

/// Flags of `devnet`.
#[derive(Debug, clap::Args)]
pub struct Devnet {
    /// What to do.
    #[command(subcommand)]
    pub command: DevnetCommand,
}

/// What `devnet` can do.
#[derive(Debug, clap::Subcommand)]
pub enum DevnetCommand {
    /// Start a chain, four providers and a tailnet; they end with Ctrl-C.
    Up(Up),
    /// Start providers and a tailnet for a chain that runs elsewhere; they end with Ctrl-C.
    Providers(Providers),
    /// Run a command inside the running market's network, e.g. an operator or a proxy.
    Exec(Exec),
    /// Make something go wrong with the running market, e.g. `halt-chain` or `lies-ready provider1`.
    Fault(FaultArgs),
}

/// Where the market keeps its files.
#[derive(Debug, clap::Args)]
pub struct DevnetDir {
    /// Directory for settings, sockets, logs and data; it has to have a short path.
    #[arg(long, global = true, env = DIR_VARIABLE, default_value_os_t = default_dir(), value_name = "DIR")]
    pub dir: PathBuf,
}

/// Flags of `devnet up`.
#[derive(Debug, clap::Args)]
pub struct Up {
    /// Where.
    #[command(flatten)]
    pub location: DevnetDir,
    /// How far apart nodes are.
    #[command(flatten)]
    pub distance: Option<Distance>,
}

/// Flags of `devnet exec`.
#[derive(Debug, clap::Args)]
pub struct Exec {
    /// Which market.
    #[command(flatten)]
    pub location: DevnetDir,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
}

/// Why `devnet` failed.
#[derive(Debug, thiserror::Error)]
pub enum DevnetError {
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The market or the tailnet.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// Providers on another chain.
    #[error(transparent)]
    Providers(#[from] ProvidersError),
    /// The peers.
    #[error(transparent)]
    Tailnet(#[from] tailnet::TailnetError),
    /// A fault.
    #[error(transparent)]
    Fault(#[from] FaultCommandError),
    /// A file or a process.
    #[error("{what} failed")]
    Io {
        /// What.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// Nothing runs there.
    #[error("no local market runs in {}; start one with `akash-redis devnet up`", dir.display())]
    NotUp {
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// Somebody else's directory.
    #[error(
        "{} has files and was not made by `devnet up`, which would empty it; name a new or empty directory with --dir", dir.display()
    )]
    NotOurs {
        /// Where.
        dir: PathBuf,
    },
    /// One runs there already.
    #[error("a local market runs in {} already; end it, or start another one with --dir", dir.display())]
    Up {
        /// Where.
        dir: PathBuf,
    },
}

fn default_dir() -> PathBuf {
    let runtime =
        std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    runtime.join("akash-redis-devnet")
}

/// Runs `devnet`.
pub async fn run(args: Devnet) -> Result<ExitCode, DevnetError> {
    match args.command {
        DevnetCommand::Up(args) => up(&args.location.dir, args.distance).await,
        DevnetCommand::Providers(args) => providers::run(args).await,
        DevnetCommand::Exec(args) => exec(&args),
        DevnetCommand::Fault(args) => Ok(fault::run(args).await?),
    }
}

async fn up(dir: &Path, distance: Option<Distance>) -> Result<ExitCode, DevnetError> {
    let failed =
        |what: &str, source| DevnetError::Io { what: format!("{what} {}", dir.display()), source };
    if !sandbox::inside() {
        tailnet::peers_dir()?;
        if first_process(dir).is_some() {
            return Err(DevnetError::Up { dir: dir.to_owned() });
        }
        prepare(dir)?;
        let mut arguments = vec![OsString::from("devnet"), "up".into(), "--dir".into(), dir.into()];
        arguments.extend(distance.iter().flat_map(Distance::flags).map(OsString::from));
        return Ok(sandbox::enter(&arguments).await?);
    }
    let sandbox = Sandbox::set_up().await?;
    let program = std::env::current_exe().map_err(|e| failed("finding this program for", e))?;
    let options = LocalOptions { distance, ..LocalOptions::default() };
    let local = Local::start_with(&program, dir, &sandbox.stop, &options).await?;
    greet(&local, dir, &program);
    sandbox.stop.cancelled().await;
    Ok(ExitCode::SUCCESS)
}

/// Makes the directory, or empties it of what an earlier market left there: that is of a chain that
/// no longer exists. Nothing else is ever emptied, whatever it looks like.
fn prepare(dir: &Path) -> Result<(), DevnetError> {
    let failed =
        |what: &str, source| DevnetError::Io { what: format!("{what} {}", dir.display()), source };
    std::fs::create_dir_all(dir).map_err(|e| failed("making", e))?;
    let marker = dir.join(MARKER);
    let found: Vec<PathBuf> = std::fs::read_dir(dir)
        .and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect())
        .map_err(|e| failed("reading", e))?;
    let ours = std::fs::symlink_metadata(&marker).is_ok_and(|there| there.is_file());
    if !found.is_empty() && !ours {
        return Err(DevnetError::NotOurs { dir: dir.to_owned() });
    }
    for path in found.iter().filter(|path| **path != marker) {
        let removed = match std::fs::symlink_metadata(path) {
            Ok(there) if there.is_dir() => std::fs::remove_dir_all(path),
            _ => std::fs::remove_file(path),
        };
        removed.map_err(|e| failed("emptying", e))?;
    }
    std::fs::write(&marker, "`akash-redis devnet up` empties this directory\n")
        .map_err(|e| failed("marking", e))
}

fn greet(local: &Local, dir: &Path, program: &Path) {
    let (program, dir) = (program.display(), dir.display());
    println!(
        "The market is up until Ctrl-C: chain {} at {}, 4 providers.",
        local.market.chain_id,
        local.market.chain_url()
    );
    println!("In other terminals:");
    println!("  export AKASH_REDIS_DEVNET_DIR={dir} AKASH_REDIS_SOCKET={dir}/operator.sock");
    println!("  {program} devnet exec {program} operator --config {dir}/operator.yaml");
    println!("  CACHE_APP_PASSWORD=secret {program} apply -f manifests/quickstart.yaml --wait");
    println!("  {program} describe cache");
    println!("  {program} devnet exec {program} proxy --cluster cache --listen {dir}/redis.sock");
    println!("  redis-cli -s {dir}/redis.sock --user app -a secret set hello world");
}

/// Becomes the command, inside the namespaces of the market.
fn exec(args: &Exec) -> Result<ExitCode, DevnetError> {
    let pid = first_process(&args.location.dir)
        .ok_or_else(|| DevnetError::NotUp { dir: args.location.dir.clone() })?;
    let error = Command::new("nsenter")
        .args([
            "--target",
            &pid.to_string(),
            "--user",
            "--preserve-credentials",
            "--net",
            "--mount",
            "--pid",
            "--",
        ])
        .args(&args.command)
        .exec();
    Err(DevnetError::Io {
        what: "running nsenter (Debian package util-linux)".to_owned(),
        source: error,
    })
}

/// The first process of the market's sandbox, by its id out here.
pub(super) fn first_process(dir: &Path) -> Option<u32> {
    let markers = ["up", "providers"].map(|command| arguments(command, dir));
    let processes = std::fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    processes.into_iter().find(|pid| {
        let of = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let status = String::from_utf8_lossy(&of("status")).into_owned();
        // Out here it has another id than inside, where it is the first.
        let inner =
            status.lines().find_map(|line| line.strip_prefix("NSpid:")).is_some_and(|ids| {
                let ids: Vec<&str> = ids.split_whitespace().collect();
                ids.len() == 2 && ids[1] == "1"
            });
        inner
            && markers
                .iter()
                .any(|marker| of("cmdline").windows(marker.len()).any(|part| part == marker))
    })
}

/// How the inner process was called, as `/proc` shows it.
fn arguments(command: &str, dir: &Path) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt as _;
    [b"\0devnet\0", command.as_bytes(), b"\0--dir\0", dir.as_os_str().as_bytes(), b"\0"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_directory_with_our_marker_is_emptied() {
        let location = tempfile::tempdir().unwrap();
        let theirs = location.path().join("etc");
        std::fs::create_dir(&theirs).unwrap();
        for file in ["operator.yaml", "mnemonic", "root.secret"] {
            std::fs::write(theirs.join(file), "mine").unwrap();
        }
        assert!(matches!(prepare(&theirs), Err(DevnetError::NotOurs { .. })));
        assert_eq!(std::fs::read_dir(&theirs).unwrap().count(), 3, "nothing of it is touched");

        let ours = location.path().join("new/market");
        prepare(&ours).unwrap();
        std::fs::create_dir(ours.join("market")).unwrap();
        std::fs::write(ours.join("store.db"), "old").unwrap();
        std::os::unix::fs::symlink(&theirs, ours.join("link")).unwrap();
        prepare(&ours).unwrap();
        assert_eq!(std::fs::read_dir(&ours).unwrap().count(), 1, "the marker stays");
        assert_eq!(
            std::fs::read_dir(&theirs).unwrap().count(),
            3,
            "a link is removed, not what it leads to"
        );
    }
}
