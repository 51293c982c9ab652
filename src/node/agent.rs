//! Puts the agent together, and takes it down in order.

use std::fs::{self, DirBuilder};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Pid;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::command_executor::CommandExecutor;
use super::exchange;
use super::forwarder::{Dialled, Egress, Forwarder, Peers};
use super::history;
use super::hosts::Hosts;
use super::leaving;
use super::life::{self, Left, Search};
use super::local_api::LocalApi;
use super::logs::LogBook;
use super::mesh;
use super::mesh_service;
use super::nonces::random_hex;
use super::path_search;
use super::paths;
use super::redis_config::BootConfig;
use super::redis_control::{ControlError, RedisControl};
use super::redis_process::{self, RedisInstance};
use super::service::AgentService;
use super::settings::{Settings, find_program};
use super::snapshots::Snapshots;
use super::state::{Node, Parts, not_looked_at};
use super::state_file::{StateFile, StateFileError};
use super::status_page::{self, KeyError};
use super::tailscale::{self, TailscaledInstance, VersionError};
use super::users::system_user;
use super::volume::{self, Volume, VolumeError};
use super::{restore, verify};
use crate::error_chain::error_chain;
use crate::mesh::local::LocalError;
use crate::mesh::tailscaled;
use crate::model::identity::{self, NodeIdentity};
use crate::model::mesh::BackendState;
use crate::model::node::{NodeMesh, NodeState, Process, RedisState};
use crate::process::Child;
use crate::sentinel;
use crate::tunnel::Exit;

/// What ended here has ended for those on the tailnet too, once tailscaled has told them so. Nobody
/// else ever does: who still spoke with this node would wait for an answer.
const FAREWELL: Duration = Duration::from_millis(250);
/// Connections to Redis in tunnels: one for so many bytes of the container's memory, and no more than
/// Redis has without a word of the manifest.
const STREAM_SHARE: u64 = 128 << 10;
const MOST_STREAMS: usize = 10_000;

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A program is not in the image.
    #[error(
        "{program} is not there: this image is not a node image, or `PATH` is wrong; use the image of `node.image`"
    )]
    Missing {
        /// What was looked for.
        program: PathBuf,
    },
    /// A port is in use.
    #[error(
        "cannot listen on {address}: something else in this container uses the port, an agent runs once per container"
    )]
    Port {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A directory cannot be made.
    #[error("cannot prepare {path}: the volume is not mounted, read-only or full")]
    Directory {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// tailscaled is not one to work with.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// The volume is not this agent's.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The agent's own files.
    #[error(transparent)]
    Files(#[from] StateFileError),
    /// The node's key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No client for Redis.
    #[error(transparent)]
    Redis(#[from] ControlError),
    /// No client for tailscaled.
    #[error(transparent)]
    Mesh(#[from] LocalError),
    /// The service cannot be served: the certificates of the identity are no good.
    #[error(
        "the agent's service cannot be served; the certificates in the identity may be damaged, deliver the manifest anew"
    )]
    Service(#[from] tonic::transport::Error),
    /// What an earlier agent of this container started is still there.
    #[error(
        "{program} of an earlier agent of this container does not end, and two of them would ruin its data; the container starts again"
    )]
    Stray {
        /// Which.
        program: &'static str,
        /// What was seen.
        source: std::io::Error,
    },
    /// A part exited without being asked to.
    #[error("internal error: {0} exited; the container starts again, fenced")]
    PartExited(&'static str),
}

/// Runs the agent until `stop`.
pub async fn run(
    identity: NodeIdentity,
    settings: Settings,
    stop: CancellationToken,
) -> Result<(), AgentError> {
    // Both are harmless when done already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    raise_file_limit();
    check_programs(&settings, &identity)?;
    tailscale::check_version(&settings.tailscaled).await?;
    let key = status_page::signing_key(&identity.key)?;
    let service = listen(Ipv4Addr::LOCALHOST, settings.service_port).await?;
    let page = listen(Ipv4Addr::UNSPECIFIED, settings.status_port).await?;
    let sentinel = listen(Ipv4Addr::LOCALHOST, settings.sentinel_port).await?;
    let forward = if identity.service {
        Some(listen(Ipv4Addr::LOCALHOST, settings.forward_port).await?)
    } else {
        None
    };

    let book = LogBook::new(vec![identity.auth_key.clone()]);
    book.agent(&format!("agent {} of {} begins", env!("CARGO_PKG_VERSION"), identity.incarnation));
    // The page is there before the node: it is what says that this agent waits for its volume.
    let state = watch::Sender::new(before_the_node(&identity));
    let stop_page = CancellationToken::new();
    let _page_ends = stop_page.clone().drop_guard();
    let page = tokio::spawn(status_page::serve(state.subscribe(), key, page, stop_page));
    let Some(volume) =
        stop.run_until_cancelled(take_volume(&identity, &settings, &state, &book)).await
    else {
        return Ok(());
    };
    // Held to the end.
    let _volume = volume?;
    let listeners = Listeners { service, sentinel, forward };
    work(assemble(identity, settings, book, state).await?, listeners, page, stop).await
}

/// Where the operator and applications find this node.
struct Listeners {
    service: TcpListener,
    sentinel: TcpListener,
    /// For who comes in by a service of the tailnet.
    forward: Option<TcpListener>,
}

/// Runs all parts until `stop`, and stops them in order.
async fn work(
    (node, instances, api, peers): (Arc<Node>, Instances, LocalApi, watch::Sender<Peers>),
    listeners: Listeners,
    mut page: JoinHandle<std::io::Result<()>>,
    stop: CancellationToken,
) -> Result<(), AgentError> {
    // One token per part: they stop in order, not at once.
    let [stop_redis, stop_history, stop_mesh, stop_service, stop_sentinel] =
        [(); 5].map(|()| CancellationToken::new());
    let mut redis = tokio::spawn(redis_process::keep_running(
        node.clone(),
        instances.redis.clone(),
        instances.left,
        stop_redis.clone(),
    ));
    let mut history = tokio::spawn(history::keep_written(node.clone(), stop_history.clone()));
    let mut paths =
        tokio::spawn(paths::keep_looking(node.clone(), api.client(), stop_mesh.clone()));
    let search = path_search::keep_looking(node.clone(), api.client(), stop_mesh.clone());
    let mut search = tokio::spawn(search);
    let mut volume = tokio::spawn(volume::keep_looking(node.clone(), stop_mesh.clone()));
    let exchange = exchange::keep_asking(node.clone(), api.client(), stop_mesh.clone());
    let mut exchange = tokio::spawn(exchange);
    // It answers to the end: where the master went is what clients of this node want to know.
    let sentinel = node.announced.desk().map(|desk| {
        let redis = Exit::new(node.settings.redis_port, streams(node.identity.memory_bytes));
        tokio::spawn(sentinel::serve(listeners.sentinel, desk, redis, stop_sentinel.clone()))
    });
    let show_subscribers = show_subscribers(node.clone());
    tokio::spawn(stop_sentinel.clone().run_until_cancelled_owned(show_subscribers));
    if let (Some(listener), Some(desk)) = (listeners.forward, node.announced.desk()) {
        let way = mesh_service::Way {
            word: desk.word,
            own: node.identity.incarnation.clone(),
            redis_port: node.settings.redis_port,
            socks: SocketAddr::from((Ipv4Addr::LOCALHOST, node.settings.socks_port)),
        };
        tokio::spawn(mesh_service::forward(listener, way, stop_sentinel.clone()));
    }
    let mut mesh = tokio::spawn(mesh::keep_running(
        node.clone(),
        instances.mesh,
        instances.mesh_left,
        api,
        peers,
        stop_mesh.clone(),
    ));
    let service = AgentService::new(
        node.clone(),
        Arc::new(CommandExecutor::new(node.clone(), instances.redis)),
        stop_service.clone(),
    );
    let mut service = tokio::spawn(service.serve(listeners.service));

    let result = tokio::select! {
        () = leaving::may_end(&node, &stop, node.settings.leave_within) => Ok(()),
        ended = &mut service => Err(match ended { Ok(Err(error)) => error.into(), _ => AgentError::PartExited("the agent service") }),
        _ = &mut redis => Err(AgentError::PartExited("the redis supervisor")),
        _ = &mut history => Err(AgentError::PartExited("the history writer")),
        _ = &mut paths => Err(AgentError::PartExited("the path watcher")),
        _ = &mut search => Err(AgentError::PartExited("the search for paths")),
        _ = &mut exchange => Err(AgentError::PartExited("the exchange of words")),
        _ = &mut volume => Err(AgentError::PartExited("the volume watcher")),
        _ = &mut mesh => Err(AgentError::PartExited("the tailscaled supervisor")),
        _ = &mut page => Err(AgentError::PartExited("the status page")),
    };
    node.book.agent("the agent stops: no more commands, then redis, then the mesh");
    close_to_commands(&node).await;
    stop_history.cancel();
    join(history, Duration::from_secs(2)).await;
    stop_redis.cancel();
    join(redis, Settings::REDIS_STOP + Duration::from_secs(5)).await;
    // Only now: the last state, which says that redis is gone, is still sent.
    stop_service.cancel();
    join(service, Duration::from_secs(2)).await;
    stop_sentinel.cancel();
    if let Some(sentinel) = sentinel {
        join(sentinel, Duration::from_secs(1)).await;
    }
    sleep(FAREWELL).await;
    stop_mesh.cancel();
    join(paths, Duration::from_secs(1)).await;
    join(search, Duration::from_secs(1)).await;
    join(volume, Duration::from_secs(1)).await;
    join(exchange, Duration::from_secs(1)).await;
    join(mesh, tailscaled::STOP + Duration::from_secs(2)).await;
    node.egress.close().await;
    result
}

/// Shows the operator whether somebody listens to who is master.
async fn show_subscribers(node: Arc<Node>) {
    let mut number = node.announced.subscribers();
    while number.changed().await.is_ok() {
        let has_subscribers = Some(*number.borrow_and_update() > 0);
        node.update(|state| state.has_subscribers = has_subscribers);
    }
}

/// What is known of a node whose volume was not looked at yet.
fn before_the_node(identity: &NodeIdentity) -> NodeState {
    NodeState {
        incarnation: identity.incarnation.clone(),
        mesh: NodeMesh { backend_state: BackendState::Down, ..NodeMesh::default() },
        redis: RedisState { process: Process::Exited, ..not_looked_at() },
        ..NodeState::default()
    }
}

/// Waits until no other agent uses the volume; meanwhile the status page says so.
async fn take_volume(
    identity: &NodeIdentity,
    settings: &Settings,
    state: &watch::Sender<NodeState>,
    book: &LogBook,
) -> Result<Volume, AgentError> {
    let kept = settings.kept_dir(identity.persistent);
    directory(&kept, 0o755)?;
    let busy = || {
        let sentence = "another agent uses this volume: this one waits until that is gone";
        book.agent(sentence);
        state.send_modify(|state| state.notes = vec![sentence.to_owned()]);
    };
    Ok(volume::take(&kept, settings.volume_wait, busy).await?)
}

fn directory(path: &Path, mode: u32) -> Result<(), AgentError> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|source| AgentError::Directory { path: path.to_owned(), source })
}

/// Where the programs of this node run.
struct Instances {
    redis: RedisInstance,
    mesh: TailscaledInstance,
    /// What an earlier agent of this container left behind.
    left: Option<Child>,
    mesh_left: Option<Pid>,
}

async fn assemble(
    identity: NodeIdentity,
    settings: Settings,
    book: LogBook,
    state: watch::Sender<NodeState>,
) -> Result<(Arc<Node>, Instances, LocalApi, watch::Sender<Peers>), AgentError> {
    let kept = settings.kept_dir(identity.persistent);
    // The users of Redis and tailscaled pass through this one and the kept one; what is secret lies
    // deeper.
    directory(&settings.run_dir, 0o755)?;
    verify::end_left_over(&settings.run_dir).await;
    let (files_dir, saved_dir) = (kept.join("agent"), kept.join("saved"));
    directory(&files_dir, 0o700)?;
    directory(&saved_dir, 0o700)?;

    let mut redis = RedisInstance {
        run_dir: settings.run_dir.join("redis"),
        data_dir: kept.join("redis"),
        run_as: system_user("redis"),
        password: random_hex(),
    };
    let mesh = TailscaledInstance {
        state_dir: kept.join("tailscale"),
        socket_dir: settings.mesh_dir(),
        run_dir: settings.run_dir.clone(),
        run_as: system_user("tailscaled"),
    };
    if redis.run_as.is_some() || mesh.run_as.is_some() {
        // A fresh volume may be closed to everybody but root.
        fs::set_permissions(&kept, PermissionsExt::from_mode(0o755))
            .map_err(|source| AgentError::Directory { path: kept.clone(), source })?;
    }
    redis
        .prepare()
        .map_err(|source| AgentError::Directory { path: redis.data_dir.clone(), source })?;
    restore::remove_left_over(&redis);
    mesh.prepare()
        .map_err(|source| AgentError::Directory { path: mesh.state_dir.clone(), source })?;

    let files = StateFile::new(files_dir);
    let left = left_redis(&redis, &settings, &identity, &files, &book).await?;
    if let Some(left) = &left {
        redis.password.clone_from(&left.found.life.password);
    } else {
        check_free(settings.redis_port).await?;
    }
    let mesh_left = left_mesh(&settings).await?;
    if mesh_left.is_none() {
        check_free(settings.socks_port).await?;
    }
    let (child, found) = left.map(|left| (left.child, left.found)).unzip();
    let api = LocalApi::new(&settings.mesh_socket())?;
    let (sender, peers) = watch::channel(Peers::default());
    let egress = match identity.egress {
        identity::Egress::Forwarder => {
            let socks = SocketAddr::from((Ipv4Addr::LOCALHOST, settings.socks_port));
            let hosts = Hosts::new(settings.hosts_file.clone());
            Egress::Forwarder(Arc::new(Forwarder::new(
                socks,
                settings.master_port,
                Arc::new(api.clone()),
                peers,
                hosts,
            )))
        }
        identity::Egress::Proxychains => Egress::Direct,
    };
    let parts = Parts {
        redis: RedisControl::new(&redis.run_dir.join(BootConfig::SOCKET), &redis.password)?,
        snapshots: Snapshots::new(saved_dir, redis.dump()),
        files,
        settings,
        identity,
        book,
        egress,
        state,
        found,
    };
    let joined_before = mesh.used_before();
    let node = Arc::new(Node::new(parts, joined_before)?);
    route_again(&node).await;
    Ok((node, Instances { redis, mesh, left: child, mesh_left }, api, sender))
}

async fn left_redis(
    redis: &RedisInstance,
    settings: &Settings,
    identity: &NodeIdentity,
    files: &StateFile,
    book: &LogBook,
) -> Result<Option<Left>, AgentError> {
    if !settings.outlives_agent {
        return Ok(None);
    }
    let memory = files.memory()?;
    let search = Search {
        dir: &settings.run_dir,
        instance: redis,
        incarnation: &identity.incarnation,
        memory: memory.as_ref(),
        answer: settings.stuck_after,
    };
    let left = search.take_over(&book.output("redis")).await;
    left.map_err(|source| AgentError::Stray { program: "the redis-server", source })
}

/// The tailscaled that an earlier agent left behind, if it listens on its socket.
async fn left_mesh(settings: &Settings) -> Result<Option<Pid>, AgentError> {
    if !settings.outlives_agent {
        return Ok(None);
    }
    let socket = settings.mesh_socket();
    let left = tailscaled::listener(&socket).await;
    if left.is_none() {
        let ended = life::end_strays(&socket).await;
        ended.map_err(|source| AgentError::Stray { program: "the tailscaled", source })?;
    }
    Ok(left)
}

/// The way to the master went with the agent that carried it; redis dials again by itself.
async fn route_again(node: &Node) {
    let Some(following) = node.following() else { return };
    match node.egress.route(&following.name).await {
        Ok(Dialled { lacks, .. }) => node.set_note("hosts", lacks),
        Err(error) => node.book.agent(&error_chain(&error)),
    }
}

async fn close_to_commands(node: &Node) {
    // A command that hangs does not keep the agent from stopping: what it left half done is fenced
    // at the next start.
    if let Ok(mut accepting) = timeout(Duration::from_secs(5), node.accepting.lock()).await {
        *accepting = false;
    }
}

async fn join<T>(mut task: JoinHandle<T>, limit: Duration) {
    if !task.is_finished() && timeout(limit, &mut task).await.is_err() {
        task.abort();
    }
}

fn check_programs(settings: &Settings, identity: &NodeIdentity) -> Result<(), AgentError> {
    let proxychains =
        (identity.egress == identity::Egress::Proxychains).then_some(&settings.proxychains);
    for program in [&settings.redis_server, &settings.tailscaled, &settings.tailscale]
        .into_iter()
        .chain(proxychains)
    {
        if find_program(program).is_none() {
            return Err(AgentError::Missing { program: program.clone() });
        }
    }
    Ok(())
}

async fn listen(ip: Ipv4Addr, port: u16) -> Result<TcpListener, AgentError> {
    let address = SocketAddr::from((ip, port));
    TcpListener::bind(address).await.map_err(|source| AgentError::Port { address, source })
}

async fn check_free(port: u16) -> Result<(), AgentError> {
    listen(Ipv4Addr::LOCALHOST, port).await.map(drop)
}

/// Connections to Redis in tunnels at a time: each takes some 10 KiB of this agent's share of the
/// memory, and a file. Half of the files are for others.
fn streams(container_bytes: u64) -> usize {
    use rustix::process::{Resource, getrlimit};
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / 2;
    usize::try_from(files.min(container_bytes / STREAM_SHARE))
        .unwrap_or(MOST_STREAMS)
        .min(MOST_STREAMS)
}

/// Children inherit it; tailscaled dies when it runs out.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Not being allowed to is no reason not to run.
    let _ = setrlimit(Resource::Nofile, limit);
}
