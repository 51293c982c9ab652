//! `akash-redis exec`: redis-cli at one node, whatever that node is.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::UnixListener;
use tokio::task::JoinSet;

use super::cluster_name;
use super::connect::{ConnectError, Login, code, only_user};
use super::place::Place;
use crate::api::conditions::Phase;
use crate::api::endpoint::EndpointReport;
use crate::api::status::NodeStatus;
use crate::api::types::RedisCluster;
use crate::api_client::{Client, ClientError};
use crate::mesh::dial::{DialError, FIRST_DIAL, dial};
use crate::proxy;

/// The one program that a node answers.
const PROGRAM: &str = "redis-cli";

/// Flags of `exec`.
#[derive(Debug, clap::Args)]
pub struct Exec {
    /// Name of the cluster.
    #[arg(value_parser = cluster_name)]
    pub name: String,
    /// Its number, or the name of its incarnation.
    #[arg(value_name = "NODE")]
    pub node: String,
    /// Who logs in.
    #[command(flatten)]
    pub login: Login,
    /// SOCKS5 address of this machine's tailscaled, when it runs without a network device. Beside an
    /// operator it is found without.
    #[arg(long, value_name = "ADDRESS", env = "AKASH_REDIS_SOCKS5")]
    pub socks5: Option<SocketAddr>,
    /// `redis-cli`, and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Why nothing was run at a node.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The operator does not answer, or has no such cluster.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Login, or redis-cli itself.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Another program was named.
    #[error(
        "{0} cannot be run in a node: nodes answer Redis' protocol alone and start no program; write `-- redis-cli` and its arguments, or see `akash-redis logs` for what a node prints"
    )]
    OtherProgram(String),
    /// The cluster has no such node.
    #[error("{cluster} has no node {node}; its nodes are {known}")]
    NoNode {
        /// The cluster.
        cluster: String,
        /// As it was named.
        node: String,
        /// Those that there are.
        known: String,
    },
    /// It has no address that could be dialled.
    #[error(
        "{node} is {phase} and has no address on the mesh that is known now, so nothing can be run there; `akash-redis describe {cluster}` says what it waits for"
    )]
    NoAddress {
        /// The cluster.
        cluster: String,
        /// The incarnation.
        node: String,
        /// What it is.
        phase: Phase,
    },
    /// A replica takes no writes.
    #[error(
        "{node} is a replica and takes no writes, so {command} was not sent; `akash-redis connect {cluster} -- {command}` sends it to the master"
    )]
    Write {
        /// The cluster.
        cluster: String,
        /// The incarnation.
        node: String,
        /// The command.
        command: String,
    },
    /// It cannot be dialled.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// A file or a directory.
    #[error("{path} cannot be used ({source}), so nothing was connected")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// Runs redis-cli at a node; its exit code.
pub async fn run(args: Exec, socket: &Path) -> Result<ExitCode, ExecError> {
    let arguments = arguments(&args.command)?;
    let client = Client::new(socket)?;
    let cluster = client.get(&args.name).await?;
    let node = named(&cluster, &args.node)?;
    if let Some(command) = refused(node.phase, arguments) {
        let node = node.incarnation.clone();
        return Err(ExecError::Write { cluster: args.name, node, command });
    }
    let known = client.endpoint(&args.name, None, Duration::ZERO).await?;
    let (ip, port) = known
        .as_ref()
        .and_then(|known| address(known, &node.incarnation))
        .ok_or_else(|| ExecError::NoAddress {
            cluster: args.name.clone(),
            node: node.incarnation.clone(),
            phase: node.phase,
        })?;
    let found = known.and_then(|known| known.socks5?.parse().ok());
    let socks5 = args.socks5.or(found);
    let user = match &args.login.user {
        Some(user) => user.clone(),
        None => only_user(&cluster)?,
    };
    let credentials = args.login.as_user(user)?;
    // Said here, and not as a connection that redis-cli finds closed.
    drop(dial(socks5, ip, port, FIRST_DIAL).await?);
    let file = |path: PathBuf| move |source| ExecError::File { path, source };
    let place = Place::make().map_err(file(std::env::temp_dir()))?;
    let path = place.file("redis.sock");
    let listener = UnixListener::bind(&path).map_err(file(path.clone()))?;
    tokio::select! {
        ended = credentials.redis_cli(&path, arguments) => Ok(code(ended?)),
        () = forward(listener, socks5, ip, port) => unreachable!("it goes on until it is dropped"),
    }
}

/// Each connection to the socket leads to the node.
async fn forward(listener: UnixListener, socks5: Option<SocketAddr>, ip: IpAddr, port: u16) {
    let mut open = JoinSet::new();
    loop {
        let Ok((mut near, _)) = listener.accept().await else {
            // No file descriptors are left, until a connection ends.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        open.spawn(async move {
            match dial(socks5, ip, port, FIRST_DIAL).await {
                // Whichever side ends it, the other one sees that.
                Ok(mut far) => drop(copy_bidirectional(&mut near, &mut far).await),
                Err(error) => tracing::warn!(%error, "a node cannot be reached"),
            }
        });
        while open.try_join_next().is_some() {}
    }
}

/// What redis-cli is given.
fn arguments(command: &[OsString]) -> Result<&[OsString], ExecError> {
    match command.split_first() {
        Some((program, rest)) if Path::new(program) == Path::new(PROGRAM) => Ok(rest),
        other => {
            let program = other.map_or_else(String::new, |(p, _)| p.to_string_lossy().into_owned());
            Err(ExecError::OtherProgram(program))
        }
    }
}

/// The node that is meant.
fn named<'a>(cluster: &'a RedisCluster, node: &str) -> Result<&'a NodeStatus, ExecError> {
    let nodes = cluster.status.as_ref().map(|status| status.nodes.as_slice()).unwrap_or_default();
    let is_meant = |n: &&NodeStatus| n.incarnation == node || n.ordinal.to_string() == node;
    // Of two incarnations of one number the one that serves.
    let meant = nodes.iter().filter(is_meant);
    let meant = meant.min_by_key(|n| !n.phase.is_serving());
    meant.ok_or_else(|| {
        let known: Vec<_> = nodes.iter().map(|n| n.incarnation.as_str()).collect();
        ExecError::NoNode {
            cluster: cluster.metadata.name.clone(),
            node: node.to_owned(),
            known: if known.is_empty() { "not there yet".to_owned() } else { known.join(", ") },
        }
    })
}

fn address(known: &EndpointReport, incarnation: &str) -> Option<(IpAddr, u16)> {
    let master = [(&known.master.incarnation, &known.master.ip, known.master.port)];
    let replicas = known.replicas.iter().map(|r| (&r.incarnation, &r.ip, r.port));
    let mut all = master.into_iter().chain(replicas);
    let (_, ip, port) = all.find(|(name, ..)| *name == incarnation)?;
    Some((ip.parse().ok()?, port))
}

/// The name of a command that a replica would refuse. With flags of redis-cli before it, and without
/// a command, it is Redis that refuses.
fn refused(phase: Phase, arguments: &[OsString]) -> Option<String> {
    let mut words = arguments.iter().map(|word| word.to_string_lossy());
    let name = words.next().filter(|name| !name.starts_with('-'))?;
    let first = words.next().unwrap_or_default();
    let writes = proxy::is_write(&name, &first, arguments.len());
    (phase != Phase::Master && writes).then(|| name.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn redis_cli_is_the_one_program_that_a_node_answers() {
        assert_eq!(arguments(&words("redis-cli INFO")).unwrap(), words("INFO"));
        for other in ["bash", "redis-benchmark -q", "/usr/bin/redis-cli"] {
            let error = arguments(&words(other)).unwrap_err().to_string();
            assert!(error.contains("cannot be run in a node"), "{other}: {error}");
        }
    }

    #[test]
    fn a_write_to_a_replica_is_refused_before_it_is_sent() {
        for line in ["SET a b", "lpush a b", "XREADGROUP GROUP g c STREAMS s >"] {
            let name = line.split(' ').next().map(str::to_owned);
            assert_eq!(refused(Phase::Replica, &words(line)), name, "{line}");
            assert_eq!(refused(Phase::Master, &words(line)), None, "{line}");
        }
        for line in ["GET a", "info replication", "CLIENT LIST", "--stat", "-n 1 SET a b", "ROLE"] {
            assert_eq!(refused(Phase::Replica, &words(line)), None, "{line}");
        }
        assert_eq!(refused(Phase::Replica, &[]), None);
    }

    #[test]
    fn a_node_is_meant_by_its_number_or_its_name() {
        let text = "apiVersion: akash-redis.dev/v1alpha1\nkind: RedisCluster\nmetadata: { name: cache }\nspec: { nodes: 2 }\n";
        let mut cluster = crate::api::validate::parse(text).unwrap().remove(0);
        let empty = named(&cluster, "0").unwrap_err().to_string();
        assert!(empty.ends_with("its nodes are not there yet"), "{empty}");
        let node = |ordinal, name: &str, phase| NodeStatus {
            ordinal,
            incarnation: name.into(),
            phase,
            ..NodeStatus::default()
        };
        cluster.status = Some(crate::api::status::Status {
            nodes: vec![
                node(0, "cache-0-a", Phase::Leaving),
                node(0, "cache-0-b", Phase::Replica),
                node(1, "cache-1-c", Phase::Master),
            ],
            ..Default::default()
        });
        for (meant, name) in [("0", "cache-0-b"), ("cache-0-a", "cache-0-a"), ("1", "cache-1-c")] {
            assert_eq!(named(&cluster, meant).unwrap().incarnation, name);
        }
        let other = named(&cluster, "7").unwrap_err().to_string();
        assert_eq!(other, "cache has no node 7; its nodes are cache-0-a, cache-0-b, cache-1-c");
    }
}
