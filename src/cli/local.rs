//! A market, a tailnet and an operator on this machine, inside one sandbox: what `demo`, `devnet`
//! and the live tests start.

use std::ffi::OsString;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rand::RngCore as _;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::demo::patience::Patience;
use crate::api_client::{Client, ClientError};
use crate::devnet::control;
use crate::devnet::distance::Distance;
use crate::devnet::faults::MarketFaults;
use crate::devnet::market::{Market, MarketError, MarketSettings};
use crate::devnet::provider::container::ImageRoot;
use crate::devnet::tailnet::{self, Tailnet, TailnetError};

/// The local market's one image; its digest is of nothing, and nothing is ever pulled.
pub const IMAGE: &str = "devnet.test/akash-redis@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// Between two looks.
const POLL: Duration = Duration::from_millis(50);
/// A real chain makes a block about every 6 s.
const BLOCK_EVERY: Duration = Duration::from_millis(500);
/// Blocks that come this fast let nobody wait.
const FAST: Duration = Duration::from_secs(1);
/// The operator's API.
const SOCKET: &str = "operator.sock";
/// Everything secret follows from this file.
const ROOT_SECRET: &str = "root.secret";

/// Something of it does not start.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The market.
    #[error(transparent)]
    Market(#[from] MarketError),
    /// The tailnet.
    #[error(transparent)]
    Tailnet(#[from] TailnetError),
    /// The operator's API.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A program that nodes need is not installed.
    #[error(
        "{0} is not on the PATH, and nodes need it; `make deps` installs it (Debian package {1})"
    )]
    Missing(&'static str, &'static str),
    /// A file cannot be written, or a process not started.
    #[error("{what} failed")]
    Io {
        /// What.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// The operator does not answer.
    #[error(
        "the operator runs and does not answer on its socket after {} s; its log says what it does: {}",
        waited.as_secs(), log.display()
    )]
    Silent {
        /// For how long.
        waited: Duration,
        /// Its log.
        log: PathBuf,
    },
    /// The operator ended.
    #[error("the operator ended ({status}) before it answered; its log says why: {}", log.display())]
    Ended {
        /// How.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
    },
}

/// What a test wants otherwise.
#[derive(Clone, Debug, Default)]
pub struct LocalOptions {
    /// Further flags of the control server.
    pub control_flags: Vec<String>,
    /// Further variables of every node.
    pub node_env: Vec<(String, String)>,
    /// Nodes run this unpacked image instead of this machine's programs.
    pub root: Option<ImageRoot>,
    /// How far apart nodes are; without it they are on one bridge.
    pub distance: Option<Distance>,
    /// Further images, and a directory whose programs come before this machine's own in the nodes of
    /// each.
    pub images: Vec<(String, PathBuf)>,
    /// Further images that are unpacked, of applications for one.
    pub roots: Vec<(String, ImageRoot)>,
}

/// Everything, running.
pub struct Local {
    /// The chain and its providers.
    pub market: Market,
    /// The control server and the operator's tailscaled.
    pub tailnet: Tailnet,
    /// Settings in which the operator differs from its file, as environment variables; they hold
    /// from its next start on.
    pub operator_env: Vec<(&'static str, String)>,
    program: PathBuf,
    dir: PathBuf,
    operator: Option<Child>,
}

/// Programs of a node and the Debian packages they come in.
const NEEDED: [(&str, &str); 3] =
    [("redis-server", "redis-server"), ("tini", "tini"), ("proxychains4", "proxychains4")];

impl Local {
    /// Starts market and tailnet inside a sandbox that is set up. State and logs go below `dir`,
    /// which must have a short path. No operator runs yet.
    ///
    /// # Errors
    /// A program is missing, a port is taken, or something does not start in time.
    pub async fn start(
        program: &Path,
        dir: &Path,
        shutdown: &CancellationToken,
    ) -> Result<Self, LocalError> {
        Self::start_with(program, dir, shutdown, &LocalOptions::default()).await
    }

    /// As [`Self::start`], with these options.
    ///
    /// # Errors
    /// A program is missing, a port is taken, or something does not start in time.
    pub async fn start_with(
        program: &Path,
        dir: &Path,
        shutdown: &CancellationToken,
        options: &LocalOptions,
    ) -> Result<Self, LocalError> {
        check_programs()?;
        let flags: Vec<&str> = options.control_flags.iter().map(String::as_str).collect();
        let tailnet = Tailnet::start(&dir.join("tailnet"), &flags).await?;
        let settings = market_settings(program, dir, &tailnet, BLOCK_EVERY, options)?;
        let market = Market::start(&settings, shutdown).await?;
        serve_faults(market.faults(), dir, shutdown)?;
        let grpc = market.chain_url();
        write_settings(
            dir,
            &OperatorChain {
                chain_id: &market.chain_id,
                grpc: &grpc,
                mnemonic: Some(&market.mnemonic),
                block_every: BLOCK_EVERY,
            },
        )?;
        Ok(Self {
            market,
            tailnet,
            operator_env: Vec::new(),
            program: program.to_owned(),
            dir: dir.to_owned(),
            operator: None,
        })
    }

    /// The operator's settings file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.join("operator.yaml")
    }

    /// The operator's API.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join(SOCKET)
    }

    /// The operator's log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join("operator.log")
    }

    /// A client of the operator.
    ///
    /// # Errors
    /// The socket's path cannot be used.
    pub fn client(&self) -> Result<Client, ClientError> {
        Client::new(&self.socket())
    }

    /// Starts an operator process and waits until its API answers.
    ///
    /// # Errors
    /// It does not start, ends, or neither answers nor logs anything for a minute.
    pub async fn start_operator(&mut self) -> Result<(), LocalError> {
        let log = self.log();
        let failed = |source| LocalError::Io { what: "starting the operator".to_owned(), source };
        let file =
            std::fs::OpenOptions::new().create(true).append(true).open(&log).map_err(failed)?;
        let mut command = Command::new(&self.program);
        command
            .arg("operator")
            .arg("--config")
            .arg(self.config())
            .env("AKASH_REDIS_LOG_LEVEL", "info");
        // For a tailscaled that it runs itself.
        command.envs(tailnet::node_env());
        command.envs(self.operator_env.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone().map_err(failed)?)
            .stderr(file)
            .kill_on_drop(true);
        let operator = self.operator.insert(command.spawn().map_err(failed)?);
        let client = Client::new(&self.dir.join(SOCKET))?;
        let mut patience = Patience::begin(Instant::now());
        while client.list().await.is_err() {
            if let Some(status) = operator.try_wait().map_err(failed)? {
                return Err(LocalError::Ended { status, log });
            }
            let (logged, now) =
                (std::fs::metadata(&log).map_or(0, |file| file.len()), Instant::now());
            if !patience.goes_on(logged, now) {
                return Err(LocalError::Silent { waited: patience.waited(now), log });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// The operator dies at once, as by SIGKILL.
    pub async fn kill_operator(&mut self) {
        if let Some(mut operator) = self.operator.take() {
            // It may have ended by itself.
            let _ = operator.kill().await;
        }
    }
}

/// Lets `devnet fault` in.
pub(super) fn serve_faults(
    faults: MarketFaults,
    dir: &Path,
    shutdown: &CancellationToken,
) -> Result<(), LocalError> {
    let path = dir.join(control::SOCKET);
    control::serve(faults, &path, shutdown.child_token()).map_err(|source| LocalError::Io {
        what: format!("listening at {}", path.display()),
        source,
    })
}

fn check_programs() -> Result<(), LocalError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    match NEEDED.iter().find(|(p, _)| !std::env::split_paths(&path).any(|d| d.join(p).is_file())) {
        Some((program, package)) => Err(LocalError::Missing(program, package)),
        None => Ok(()),
    }
}

/// How nodes run beside this tailnet.
pub(super) fn market_settings(
    program: &Path,
    dir: &Path,
    tailnet: &Tailnet,
    block_every: Duration,
    options: &LocalOptions,
) -> Result<MarketSettings, LocalError> {
    check_programs()?;
    let path = before(tailnet.peers(), &std::env::var_os("PATH").unwrap_or_default());
    let node_env = tailnet::node_env().map(|(k, v)| (k.to_owned(), v.to_owned()));
    Ok(MarketSettings {
        dir: dir.join("market"),
        image: IMAGE.to_owned(),
        root: options.root.clone(),
        program: program.to_owned(),
        images: options
            .images
            .iter()
            .map(|(name, programs)| (name.clone(), before(programs, &path)))
            .collect(),
        roots: options.roots.iter().cloned().collect(),
        path,
        node_env: node_env.into_iter().chain(options.node_env.clone()).collect(),
        block_every,
        distance: options.distance,
    })
}

/// A chain, as the operator is to use it.
pub(super) struct OperatorChain<'a> {
    pub chain_id: &'a str,
    pub grpc: &'a str,
    /// Words of the operator's wallet; without them the file is somebody else's to write.
    pub mnemonic: Option<&'a str>,
    pub block_every: Duration,
}

/// Writes the operator's settings and secrets. A root secret that is there stays: deployments are
/// known by it.
pub(super) fn write_settings(dir: &Path, chain: &OperatorChain<'_>) -> Result<(), LocalError> {
    if !dir.join(ROOT_SECRET).exists() {
        let mut root = [0; 32];
        rand::thread_rng().fill_bytes(&mut root);
        write_secret(dir, ROOT_SECRET, &root)?;
    }
    if let Some(words) = chain.mnemonic {
        write_secret(dir, "mnemonic", words.as_bytes())?;
    }
    write_secret(dir, "oauth.secret", tailnet::OAUTH_SECRET.as_bytes())?;
    // Nobody has to wait for people here; where blocks take their time, bids and leases do as well.
    let timing = if chain.block_every <= FAST {
        "timing: { bidWindow: 1500ms, bidDeadline: 20s, joinDeadline: 30s, replaceAfter: 12s, tick: 500ms }"
    } else {
        "timing: { bidWindow: 20s, bidDeadline: 90s, joinDeadline: 90s, replaceAfter: 30s, tick: 2s }"
    };
    let (id, grpc, dir_text) = (chain.chain_id, chain.grpc, dir.display());
    let text = format!(
        "chain: {{ id: {id}, grpc: [\"{grpc}\"] }}\n\
         wallet: {{ mnemonicFile: {dir_text}/mnemonic }}\n\
         mesh: {{ api: \"{login}\", loginServer: \"{login}\", oauthClientId: {client}, oauthSecretFile: {dir_text}/oauth.secret, tag: \"{tag}\", operatorTag: \"{operator}\", quarantineTag: \"{quarantine}\", socks5: \"{socks5}\", socket: {dir_text}/tailnet/tailscaled.sock }}\n\
         node: {{ image: \"{IMAGE}\" }}\n\
         budget: {{ global: 100act, perClusterDefault: 12act }}\n\
         store: {{ sqlite: {dir_text}/store.db }}\n\
         rootSecretFile: {dir_text}/{ROOT_SECRET}\n\
         api: {{ socket: {dir_text}/operator.sock }}\n\
         gateway: {{ allowPrivate: true }}\n\
         {timing}\n",
        login = tailnet::login_server(),
        client = tailnet::OAUTH_CLIENT_ID,
        tag = tailnet::CLUSTER_TAG,
        operator = tailnet::OPERATOR_TAG,
        quarantine = tailnet::QUARANTINE_TAG,
        socks5 = tailnet::socks5(),
    );
    let path = dir.join("operator.yaml");
    std::fs::write(&path, text)
        .map_err(|source| LocalError::Io { what: format!("writing {}", path.display()), source })
}

fn write_secret(dir: &Path, name: &str, content: &[u8]) -> Result<(), LocalError> {
    let path = dir.join(name);
    let failed = |source| LocalError::Io { what: format!("writing {}", path.display()), source };
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    std::io::Write::write_all(&mut file, content).map_err(failed)
}

/// A directory first, so that nodes find this tailscaled, or this redis-server.
fn before(programs: &Path, path: &OsString) -> OsString {
    let dirs = std::iter::once(programs.to_owned()).chain(std::env::split_paths(path));
    std::env::join_paths(dirs).unwrap_or_else(|_| path.clone())
}
