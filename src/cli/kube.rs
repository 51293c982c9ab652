//! Commands that ask Kubernetes in place of an operator's socket: `--kubeconfig`, `--context`,
//! `--namespace`, or the program under its name as a plugin of `kubectl`.
//!
//! What is an object's is asked of the apiserver, under the rights that the kubeconfig gives: the
//! operator obeys objects. What only an operator knows is asked of the one that works, by
//! `kubectl exec` in its pod. See decision 0068.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use secrecy::SecretString;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command as Process;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::error::CliError;
use super::place::Place;
use super::{
    ClientCommand, Command, EVERYWHERE, ask, backup, connect, execute, failed, manifests, output,
    proxy,
};
use crate::api::endpoint::EndpointReport;
use crate::api::types::RedisCluster;
use crate::api::validate;
use crate::api_client::Client;
use crate::model::ids::IncarnationName;
use crate::model::logs::LogQuery;
use crate::server::appraiser::Appraisal;
use crate::server::dump::{NodeDumps, Pieces};
use crate::server::logs::LogLines;
use crate::server::messages::Tested;
use crate::server::{self, Answerers, Appraiser, NodeLogs, StatusCache};
use crate::store::kubernetes::direct::DirectStore;
use crate::store::kubernetes::{self, lease};
use crate::store::{StoreError, Stored};

/// Under this name `kubectl` finds the program, for `kubectl akash-redis`.
const PLUGIN: &str = "kubectl-akash_redis";
/// How Kubernetes is meant on the command line, each with a value.
const FLAGS: [&str; 4] = ["--kubeconfig", "--context", "--namespace", "--operator-namespace"];
const SHORT: &str = "-n";
/// A first look at the cluster that a command is about takes no longer.
const FIRST_WORD: Duration = Duration::from_secs(5);

/// Flags that name an apiserver.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Kube {
    /// Ask Kubernetes in place of a socket, with this kubeconfig. With `--context` or `--namespace`
    /// alone it is that of `KUBECONFIG`, or `~/.kube/config`, as for `kubectl`.
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "FILE", conflicts_with = "socket")]
    pub kubeconfig: Option<PathBuf>,
    /// Ask Kubernetes in place of a socket, in this context of the kubeconfig.
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "NAME", conflicts_with = "socket")]
    pub context: Option<String>,
    /// Ask Kubernetes in place of a socket, for clusters of this namespace; that of the context when
    /// absent.
    #[arg(short, long, global = true, help_heading = EVERYWHERE, value_name = "NAME", conflicts_with = "socket")]
    pub namespace: Option<String>,
    /// With Kubernetes: the namespace in which the operator itself runs; that of the clusters when
    /// absent.
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "NAME", conflicts_with = "socket")]
    pub operator_namespace: Option<String>,
}

/// Why Kubernetes was not asked.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// The kubeconfig, or the apiserver.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is no question to an operator.
    #[error(
        "this command asks no operator, so that it takes no --kubeconfig, --context or --namespace; leave them away"
    )]
    NotAsked,
    /// Nobody holds the Lease.
    #[error(
        "no operator works in namespace {0}, so nobody can answer this; see its pods there, or name its namespace with --operator-namespace"
    )]
    NobodyWorks(String),
    /// There is no `kubectl`.
    #[error("kubectl does not start ({0}), by which the operator is asked in its pod; install it")]
    NoKubectl(std::io::Error),
    /// The program's own end of the conversation.
    #[error("the answer cannot be prepared ({0})")]
    Local(String),
}

impl Kube {
    /// Kubernetes is meant by this command, and not a socket. As a plugin, what asks nobody is as
    /// it is elsewhere.
    pub(super) fn is_meant(&self, command: &Command) -> bool {
        let given = self.kubeconfig.is_some()
            || [&self.context, &self.namespace, &self.operator_namespace]
                .iter()
                .any(|flag| flag.is_some());
        let asks = match command {
            Command::Client(_) | Command::Wallet(_) | Command::Proxy(_) | Command::Connect(_) => {
                true
            }
            Command::Backup(backup) => backup.asks(),
            _ => false,
        };
        given
            || (asks && std::env::args_os().next().is_some_and(|name| is_plugin(Path::new(&name))))
    }

    /// How `kubectl` is told the same.
    fn for_kubectl(&self) -> Vec<OsString> {
        let mut flags = Vec::new();
        if let Some(file) = &self.kubeconfig {
            flags.extend(["--kubeconfig".into(), file.clone().into_os_string()]);
        }
        if let Some(context) = &self.context {
            flags.extend(["--context".into(), context.into()]);
        }
        flags
    }
}

fn is_plugin(program: &Path) -> bool {
    program.file_stem().is_some_and(|name| name == PLUGIN)
}

/// Everything of a command line but the program and what names Kubernetes.
fn without_flags(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut rest = arguments.into_iter().skip(1);
    let mut kept = Vec::new();
    while let Some(argument) = rest.next() {
        let text = argument.to_string_lossy().into_owned();
        if text == "--" {
            kept.push(argument);
            kept.extend(rest.by_ref());
        } else if FLAGS.contains(&text.as_str()) || text == SHORT {
            rest.next();
        } else if FLAGS.iter().any(|flag| text.starts_with(&format!("{flag}=")))
            || (text.starts_with(SHORT) && !text.starts_with("--"))
        {
        } else {
            kept.push(argument);
        }
    }
    kept
}

/// Runs a command over Kubernetes.
pub(super) async fn run(kube: &Kube, command: Command) -> Result<ExitCode, CliError> {
    let (client, namespace) =
        kubernetes::connect_as_person(kube.kubeconfig.as_deref(), kube.context.as_deref())
            .await
            .map_err(failed)?;
    let namespace = kube.namespace.clone().unwrap_or(namespace);
    let (out, person) = (&mut std::io::stdout(), &mut ask::Terminal);
    match command {
        Command::Client(command) if is_of_objects(&command) => {
            let store = DirectStore::new(client, &namespace);
            let command = without_questions(command);
            let endpoint = match &command {
                ClientCommand::Endpoint(args) => Some(args.name.clone()),
                _ => None,
            };
            over_objects(store, endpoint, async |socket| {
                execute(&Client::new(socket)?, command, out, person).await
            })
            .await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Proxy(args) => {
            let store = DirectStore::new(client, &namespace);
            over_objects(store, Some(args.cluster()), async |socket| {
                proxy::run(args, socket).await.map_err(CliError::Server)
            })
            .await
        }
        Command::Connect(args) => {
            let store = DirectStore::new(client, &namespace);
            over_objects(store, Some(args.name.clone()), async |socket| {
                connect::run(args, socket).await.map_err(failed)
            })
            .await
        }
        Command::Backup(args) if args.asks() => {
            let store = DirectStore::new(client, &namespace);
            over_objects(store, None, async |socket| backup::run(args, socket, out).await).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Client(_) | Command::Wallet(_) => {
            let files = match &command {
                Command::Client(ClientCommand::Plan(plan)) => plan.file.clone(),
                Command::Client(ClientCommand::Apply(apply)) => apply.file.clone(),
                _ => Vec::new(),
            };
            let operators = kube.operator_namespace.clone().unwrap_or(namespace);
            let holder = lease::holder_of(client, &operators).await.map_err(failed)?;
            let holder = holder.ok_or_else(|| failed(KubeError::NobodyWorks(operators.clone())))?;
            let pod = holder.split('_').next().unwrap_or_default();
            in_pod(kube, &operators, pod, &files).await
        }
        _ => Err(failed(KubeError::NotAsked)),
    }
}

/// All of it is in the object.
fn is_of_objects(command: &ClientCommand) -> bool {
    match command {
        ClientCommand::Apply(apply) => !apply.dry_run,
        ClientCommand::Backups(_)
        | ClientCommand::Cutover(_)
        | ClientCommand::Edit(_)
        | ClientCommand::Get(_)
        | ClientCommand::Describe(_)
        | ClientCommand::Endpoint(_)
        | ClientCommand::Events(_)
        | ClientCommand::Migrate(_)
        | ClientCommand::Switchover(_)
        | ClientCommand::Failover(_)
        | ClientCommand::Scale(_)
        | ClientCommand::Pause(_)
        | ClientCommand::Resume(_)
        | ClientCommand::Rejoin(_)
        | ClientCommand::Restore(_)
        | ClientCommand::Close(_)
        | ClientCommand::Delete(_)
        | ClientCommand::Wait(_)
        | ClientCommand::Restart(_)
        | ClientCommand::Fence(_)
        | ClientCommand::Unfence(_) => true,
        _ => false,
    }
}

/// What an apply costs is the operator's to tell; as with `kubectl apply`, nobody is asked.
fn without_questions(mut command: ClientCommand) -> ClientCommand {
    match &mut command {
        ClientCommand::Apply(apply) => apply.yes = true,
        ClientCommand::Edit(edit) => edit.yes = true,
        ClientCommand::Restore(restore) => restore.yes = true,
        _ => {}
    }
    command
}

/// Runs a command over objects: the API is served on a socket of this process' own, for itself, so
/// that each command means and refuses the same here as it does at an operator. Of the cluster that
/// is `followed` the endpoint is known, as its object has it.
async fn over_objects<T>(
    store: Arc<DirectStore>,
    followed: Option<String>,
    command: impl AsyncFnOnce(&Path) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let place = Place::make().map_err(|e| failed(KubeError::Local(e.to_string())))?;
    let (socket, stop) = (place.file("api.sock"), CancellationToken::new());
    let nobody = Arc::new(Nobody);
    let answerers = Answerers { logs: nobody.clone(), dumps: nobody.clone(), appraiser: nobody };
    let listener = server::bind(&socket).await.map_err(failed)?;
    let status_cache = Arc::new(StatusCache::default());
    let (heard, first) = oneshot::channel();
    let following = follow(&store, followed, &status_cache, heard);
    let served = server::serve_on(
        listener,
        &socket,
        store.clone(),
        status_cache.clone(),
        Arc::default(),
        problems,
        answerers,
        stop.clone(),
    );
    tokio::select! {
        ended = async {
            // Before the first word there would be no endpoint, whatever the object has. An apiserver
            // that does not answer is told of by the command.
            let _ = timeout(FIRST_WORD, first).await;
            command(&socket).await
        } => {
            stop.cancel();
            ended
        }
        ended = served => {
            let why = ended.err().map_or_else(|| "it ended".to_owned(), |e| e.to_string());
            Err(failed(KubeError::Local(why)))
        }
        never = following => match never {},
    }
}

/// Publishes the endpoint of one cluster whenever it is another one, and says when it was `heard` of
/// first; never ends.
async fn follow(
    store: &DirectStore,
    cluster: Option<String>,
    status_cache: &StatusCache,
    heard: oneshot::Sender<()>,
) -> Infallible {
    let mut heard = Some(heard).filter(|_| cluster.is_some());
    if let Some(name) = cluster {
        let mut objects = std::pin::pin!(store.follow(&name));
        while let Some(cluster) = objects.next().await {
            let endpoint = cluster.as_ref().and_then(EndpointReport::of);
            status_cache.publish_endpoint(&name, endpoint);
            if let Some(heard) = heard.take() {
                let _ = heard.send(());
            }
        }
    }
    std::future::pending().await
}

fn problems(cluster: &RedisCluster) -> Vec<String> {
    validate::validate(cluster).iter().map(ToString::to_string).collect()
}

/// Runs the same command in the pod of the operator that works; manifests go there as they are
/// applied, with hashes in place of passwords.
async fn in_pod(
    kube: &Kube,
    namespace: &str,
    pod: &str,
    files: &[String],
) -> Result<ExitCode, CliError> {
    let own = std::env::args_os();
    let mut command = Process::new("kubectl");
    command.args(kube.for_kubectl()).args(["--namespace", namespace, "exec", "--stdin"]);
    let asked = files.is_empty() && std::io::stdin().is_terminal();
    if asked && std::io::stdout().is_terminal() {
        command.arg("--tty");
    }
    command.arg(pod).args(["--", "akash-redis"]);
    command.kill_on_drop(true);
    if files.is_empty() {
        command.args(without_flags(own));
        let ended = command.status().await.map_err(|e| failed(KubeError::NoKubectl(e)))?;
        return Ok(connect::code(ended));
    }
    let found = manifests::load(files, &|name| std::env::var(name).ok())?;
    let text: Vec<String> = found.iter().map(|(cluster, _)| output::yaml(cluster)).collect();
    command.args(["plan", "-f", "-"]).stdin(Stdio::piped());
    let mut child = command.spawn().map_err(|e| failed(KubeError::NoKubectl(e)))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.join("---\n").as_bytes()).await?;
    }
    Ok(connect::code(child.wait().await?))
}

/// Nobody answers what only an operator knows.
struct Nobody;

#[async_trait]
impl NodeLogs for Nobody {
    async fn logs(&self, _: &IncarnationName, _: &LogQuery) -> Result<LogLines, String> {
        Err("the logs of nodes are read by the operator".to_owned())
    }
}

#[async_trait]
impl NodeDumps for Nobody {
    async fn dump(&self, _: &IncarnationName) -> Result<Pieces, String> {
        Err("the data of nodes is read by the operator".to_owned())
    }
}

#[async_trait]
impl Appraiser for Nobody {
    fn seal(&self, _: &str, _: &SecretString) -> Option<String> {
        None
    }

    fn seal_again(&self, _: &str, _: &str, _: &str) -> Option<String> {
        None
    }

    async fn appraise(&self, wanted: Vec<Stored>) -> Vec<Appraisal> {
        vec![Appraisal::default(); wanted.len()]
    }

    async fn test_notifications(&self) -> Vec<Tested> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_kubernetes_is_taken_off_a_command_line() {
        let kept = |line: &str| {
            let words = line.split(' ').map(OsString::from);
            let kept = without_flags(words);
            kept.iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect::<Vec<_>>()
                .join(" ")
        };
        for (line, rest) in [
            (
                "akash-redis --kubeconfig /x --context y spend --month 2026-10",
                "spend --month 2026-10",
            ),
            ("akash-redis spend -n redis", "spend"),
            ("akash-redis -nredis logs cache --namespace=redis --follow", "logs cache --follow"),
            ("kubectl-akash_redis plan cache --operator-namespace ops", "plan cache"),
            ("akash-redis logs cache -- -n --context", "logs cache -- -n --context"),
        ] {
            assert_eq!(kept(line), rest);
        }
    }

    #[test]
    fn the_program_is_a_plugin_by_its_name() {
        assert!(is_plugin(Path::new("/usr/local/bin/kubectl-akash_redis")));
        assert!(!is_plugin(Path::new("/usr/local/bin/akash-redis")));
    }
}
