//! `akash-redis connect`: redis-cli into the master, whoever that is.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::cluster_name;
use super::master_of::MasterOf;
use super::place::Place;
use crate::api::quantity::Span;
use crate::api::types::RedisCluster;
use crate::api_client::{Client, ClientError};
use crate::proxy::{Listen, Proxy, ProxyError, ProxySettings};

/// The first word about the master comes in milliseconds, or nobody is there.
const WORD: Duration = Duration::from_secs(10);
/// redis-cli reads a password from it.
const PASSWORD: &str = "REDISCLI_AUTH";

/// Flags of `connect`.
#[derive(Debug, clap::Args)]
pub struct Connect {
    /// Name of the cluster.
    #[arg(value_parser = cluster_name)]
    pub name: String,
    /// Who is asked for the master.
    #[command(flatten)]
    pub master_of: MasterOf,
    /// Who logs in.
    #[command(flatten)]
    pub login: Login,
    /// How long a command waits for a master that can be reached.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = super::seconds)]
    pub master_wait: Span,
    /// Arguments of redis-cli.
    #[arg(last = true, value_name = "REDIS-CLI ARGUMENT")]
    pub arguments: Vec<OsString>,
}

/// Who logs in: flags of `connect` and `exec`.
#[derive(Debug, Default, clap::Args)]
pub struct Login {
    /// User; the manifest's, when it has one alone.
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// File with the password. Without it, and without the variable `REDISCLI_AUTH`, it is asked for.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

impl Login {
    /// What is logged in with as `user`; without a password redis-cli asks for it.
    pub(super) fn as_user(&self, user: String) -> Result<Credentials, ConnectError> {
        let password = match &self.password_file {
            Some(path) => {
                let file = |source| ConnectError::File { path: path.clone(), source };
                let text = std::fs::read_to_string(path).map_err(file)?;
                Some(OsString::from(text.trim_end_matches(['\r', '\n'])))
            }
            None => std::env::var_os(PASSWORD),
        };
        if password.is_none() && !std::io::stdin().is_terminal() {
            return Err(ConnectError::NoPassword(user));
        }
        Ok(Credentials { user, password })
    }
}

/// A user, and its password where that is known.
pub(super) struct Credentials {
    user: String,
    password: Option<OsString>,
}

impl Credentials {
    /// Runs redis-cli on this socket until it ends.
    pub(super) async fn redis_cli(
        &self,
        socket: &Path,
        arguments: &[OsString],
    ) -> Result<ExitStatus, ConnectError> {
        let mut command = Command::new("redis-cli");
        command.arg("-s").arg(socket).args(["--user", &self.user]);
        match &self.password {
            Some(password) => drop(command.env(PASSWORD, password)),
            None => drop(command.arg("--askpass")),
        }
        command.args(arguments).kill_on_drop(true);
        // Ctrl-C is for redis-cli: it ends a command or itself, and this ends after it.
        let _ours = signal(SignalKind::interrupt());
        command.status().await.map_err(ConnectError::NoRedisCli)
    }
}

/// Why there is no conversation with Redis.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The operator does not answer, or has no such cluster.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The way to the master cannot be opened.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The flags do not fit each other.
    #[error("{0}")]
    Flags(String),
    /// It is not clear who logs in.
    #[error("{0}")]
    NoUser(String),
    /// Nobody can be asked for the password.
    #[error(
        "standard input is no terminal, so nobody can be asked for the password of {0}; give --password-file, or set {PASSWORD}"
    )]
    NoPassword(String),
    /// Nobody says who is master.
    #[error("no master of {cluster} is known after {} s, so there is nobody to connect to; it waits for {why}", WORD.as_secs())]
    NoMaster {
        /// The cluster.
        cluster: String,
        /// What is waited for.
        why: String,
    },
    /// A file or a directory.
    #[error("{path} cannot be used ({source}), so nothing was connected")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// redis-cli does not start.
    #[error("redis-cli does not start ({0}); install it (Debian's package is redis-tools)")]
    NoRedisCli(std::io::Error),
}

/// Runs redis-cli; its exit code.
pub async fn run(args: Connect, socket: &Path) -> Result<ExitCode, ConnectError> {
    let nodes = args.master_of.nodes().map_err(ConnectError::Flags)?;
    let user = match &args.login.user {
        Some(user) => user.clone(),
        None if nodes.is_some() => {
            return Err(ConnectError::NoUser(
                "nodes do not say which users there are; name one with --user".to_owned(),
            ));
        }
        None => only_user(&Client::new(socket)?.get(&args.name).await?)?,
    };
    let credentials = args.login.as_user(user)?;
    let place = Place::make()
        .map_err(|source| ConnectError::File { path: std::env::temp_dir(), source })?;
    let socket_of_redis = place.file("redis.sock");
    let settings = ProxySettings {
        cluster: args.name.clone(),
        operator: socket.to_owned(),
        nodes,
        listen: Listen::Unix(socket_of_redis.clone()),
        read_listen: None,
        max_lag: None,
        socks5: args.master_of.socks5,
        master_wait: args.master_wait.0,
        max_connections: 16,
        confirm: None,
    };
    let proxy = Proxy::bind(settings).await?;
    let (mut progress, stop) = (proxy.progress(), CancellationToken::new());
    let running = tokio::spawn(proxy.run(stop.clone()));
    let talk = async {
        if let Err(why) = progress.master(WORD).await {
            return Err(ConnectError::NoMaster { cluster: args.name.clone(), why });
        }
        credentials.redis_cli(&socket_of_redis, &args.arguments).await
    };
    tokio::select! {
        ended = talk => {
            stop.cancel();
            Ok(code(ended?))
        }
        // Only with an error, as long as it was not stopped.
        Ok(Err(error)) = running => Err(error.into()),
    }
}

/// As a shell says it.
pub(super) fn code(ended: ExitStatus) -> ExitCode {
    let code = ended.code().or_else(|| ended.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// The one user of a cluster.
pub(super) fn only_user(cluster: &RedisCluster) -> Result<String, ConnectError> {
    let name = &cluster.metadata.name;
    match cluster.spec.redis.users.as_slice() {
        [user] => Ok(user.name.clone()),
        [] => Err(ConnectError::NoUser(format!(
            "{name} has no users, so nobody can log in; add one to spec.redis.users and apply"
        ))),
        several => {
            let names: Vec<_> = several.iter().map(|user| user.name.as_str()).collect();
            Err(ConnectError::NoUser(format!(
                "{name} has several users ({}); name one with --user",
                names.join(", ")
            )))
        }
    }
}
