//! What is measured: a Redis behind one tailscaled, clients behind another, and our carriers
//! between them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use akash_redis::api::conditions::Phase;
use akash_redis::api::status::Endpoint;
use akash_redis::api::validate;
use akash_redis::cli::local::Local;
use akash_redis::devnet::sandbox::Sandbox;
use akash_redis::devnet::tailnet::{
    CLUSTER_TAG, OAUTH_CLIENT_ID, OAUTH_SECRET, OPERATOR_TAG, Tailnet, login_server, node_env,
    socks5,
};
use akash_redis::mesh::access::{AccessSettings, OperatorTailscaled};
use akash_redis::mesh::control::{ControlClient, MeshSettings};
use akash_redis::mesh::local::LocalClient;
use akash_redis::mesh::tailscaled::command::{DAEMON_ENV, Daemon, Login};
use akash_redis::model::ids::InstallationId;
use akash_redis::node::forwarder::Forwarder;
use akash_redis::node::hosts::Hosts;
use akash_redis::node::local_api::LocalApi;
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::{TcpStream, UnixListener};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_socks::tcp::Socks5Stream;
use tokio_util::sync::CancellationToken;

use crate::PROGRAM;
use crate::client::Client;
use crate::figure::Figure;

/// Host name of the device before the master.
const MASTER: &str = "master";
const REPLICA_PORT: u16 = 6390;
/// Where our proxy listens.
pub const PROXY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 6400);
const LIMIT: Duration = Duration::from_mins(1);

/// What carries a connection to the master.
#[derive(Clone, Copy)]
pub enum Route {
    Through(SocketAddr),
    Socks5,
}

pub struct Scene {
    dir: PathBuf,
    tailnet: Tailnet,
    control: Arc<ControlClient>,
    master_ip: Ipv4Addr,
    alias: String,
    tailscaled: Child,
    _forwarder: Forwarder,
    _peers: watch::Sender<akash_redis::node::forwarder::Peers>,
    programs: Vec<Child>,
}

impl Scene {
    pub async fn start(sandbox: &Sandbox) -> Self {
        let dir = sandbox.dir.join("bench");
        let tailnet = Tailnet::start(&dir.join("tailnet"), &[]).await.expect("a tailnet");
        let programs = vec![redis(&dir, 6379), redis(&dir, REPLICA_PORT)];
        let key = tailnet.mint(CLUSTER_TAG).await.expect("a key");
        let (tailscaled, _) =
            join_by_hand(&tailnet, &dir.join(MASTER), MASTER, &key, "127.0.0.1:1056").await;

        let api = LocalApi::new(&tailnet.socket()).expect("a client");
        let peers =
            until(async || Some(api.status().await.ok()?.peers).filter(|peers| !peers.is_empty()))
                .await;
        let (name, master_ip) =
            peers.iter().next().map(|(name, ip)| (name.clone(), *ip)).expect("the master");
        let (sender, receiver) = watch::channel(Arc::new(peers));
        let hosts = Hosts::new("/etc/hosts".into());
        let forwarder = Forwarder::new(socks5(), 6379, Arc::new(api), receiver, hosts);
        forwarder.route(&name).await.expect("a route");
        let settings = MeshSettings {
            ca: String::new(),
            api: login_server(),
            tailnet: "-".to_owned(),
            oauth_client_id: OAUTH_CLIENT_ID.to_owned(),
            oauth_secret: OAUTH_SECRET.to_owned().into(),
        };
        let control = Arc::new(ControlClient::new(settings).expect("a client"));
        // The first name that a forwarder is given gets the first alias.
        let alias = "127.0.1.2".to_owned();
        let mut scene = Self {
            dir,
            tailnet,
            control,
            master_ip,
            alias,
            tailscaled,
            _forwarder: forwarder,
            _peers: sender,
            programs,
        };
        scene.serve_endpoint();
        let proxy = scene.start_proxy();
        scene.programs.push(proxy);
        scene.connect(Route::Socks5).await.fill().await;
        scene
    }

    pub fn alias(&self) -> &str {
        &self.alias
    }

    pub fn forwarder(&self) -> Route {
        Route::Through(SocketAddr::new(self.alias.parse().expect("an address"), 6379))
    }

    /// A connection that has answered once. The first dial to a peer may be lost and is tried
    /// again.
    pub async fn connect(&self, route: Route) -> Client {
        until(async || {
            let mut client = self.try_connect(route).await?;
            client.answers().await.then_some(client)
        })
        .await
    }

    async fn try_connect(&self, route: Route) -> Option<Client> {
        match route {
            Route::Through(address) => {
                let stream = TcpStream::connect(address).await.ok()?;
                stream.set_nodelay(true).ok()?;
                Some(Client::new(stream))
            }
            Route::Socks5 => {
                let proxy = TcpStream::connect(socks5()).await.ok()?;
                proxy.set_nodelay(true).ok()?;
                let to = SocketAddr::from((self.master_ip, 6379));
                Some(Client::new(Socks5Stream::connect_with_socket(proxy, to).await.ok()?))
            }
        }
    }

    pub async fn replica(&self) -> Client {
        Client::new(
            TcpStream::connect((Ipv4Addr::LOCALHOST, REPLICA_PORT)).await.expect("the replica"),
        )
    }

    /// What an operator would answer to the proxy.
    fn serve_endpoint(&self) {
        let listener = UnixListener::bind(self.dir.join("operator.sock")).expect("a socket");
        let endpoint = Endpoint {
            epoch: 1,
            incarnation: MASTER.into(),
            name: MASTER.into(),
            ip: self.master_ip.to_string(),
            port: 6379,
            changing: None,
            successor: None,
        };
        let app = Router::new().route(
            "/v1alpha1/clusters/bench/endpoint",
            get(move || async move { Json(endpoint.clone()) }),
        );
        tokio::spawn(async move { axum::serve(listener, app).await });
    }

    fn start_proxy(&self) -> Child {
        let mut proxy = Command::new(PROGRAM);
        proxy.arg("--socket").arg(self.dir.join("operator.sock")).args([
            "proxy",
            "--cluster",
            "bench",
            "--listen",
            &PROXY.to_string(),
        ]);
        spawn(proxy.args(["--socks5", &socks5().to_string()]))
    }

    /// As the operator does: a key of its own, login, the first status that says `Running`.
    pub async fn join_as_operator(&self, round: usize) -> Duration {
        let settings = AccessSettings {
            state_dir: self.dir.join(format!("operator-{round}")),
            program: self.tailnet.peers().join("tailscaled"),
            login_server: Some(login_server()),
            tag: OPERATOR_TAG.to_owned(),
            installation: InstallationId("abc123".to_owned()),
        };
        let begun = Instant::now();
        let tailscaled = OperatorTailscaled::prepare(settings).await.expect("a state directory");
        let (mut status, stop) = (tailscaled.status().subscribe(), CancellationToken::new());
        let running = tokio::spawn(tailscaled.run(self.control.clone(), stop.clone()));
        status.wait_for(|own| own.error.is_none()).await.expect("it joins");
        let took = begun.elapsed();
        stop.cancel();
        running.await.expect("it stops");
        took
    }

    /// tailscaled, and `tailscale up` as soon as its socket is there.
    pub async fn join_by_script(&self, round: usize) -> Duration {
        let key = self.tailnet.mint(OPERATOR_TAG).await.expect("a key");
        let dir = self.dir.join(format!("script-{round}"));
        let (mut tailscaled, took) =
            join_by_hand(&self.tailnet, &dir, &format!("script-{round}"), &key, "127.0.0.1:1057")
                .await;
        tailscaled.kill().await.expect("it is ours");
        took
    }

    pub fn tailscaled_mb(&self) -> f64 {
        self.tailscaled.id().map_or(0.0, |pid| resident_mb(pid, ALL))
    }

    pub async fn stop(self) {
        drop(self.programs);
        drop(self.tailscaled);
        self.tailnet.stop().await;
    }
}

async fn join_by_hand(
    tailnet: &Tailnet,
    dir: &Path,
    hostname: &str,
    key: &str,
    socks5: &str,
) -> (Child, Duration) {
    std::fs::create_dir_all(dir).expect("a directory");
    let (socket, key_file) = (dir.join("ts.sock"), dir.join("key"));
    std::fs::write(&key_file, key).expect("the key");
    let local = LocalClient::new(&socket).expect("a client");
    let begun = Instant::now();
    let daemon =
        Daemon { state_dir: dir, socket: &socket, socks5: socks5.parse().expect("an address") };
    let mut command = Command::new(tailnet.peers().join("tailscaled"));
    let tailscaled = spawn(
        command.args(daemon.arguments()).envs(DAEMON_ENV).envs(node_env()).env("TS_LOGS_DIR", dir),
    );
    until(async || socket.exists().then_some(())).await;
    let server = login_server();
    let login =
        Login { socket: &socket, login_server: Some(&server), key_file: Some(&key_file), hostname };
    let mut up = Command::new(tailnet.peers().join("tailscale"));
    assert!(
        up.args(login.arguments())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .await
            .expect("it runs")
            .success()
    );
    until(async || {
        local.status().await.ok().filter(akash_redis::mesh::local::LocalStatus::running)
    })
    .await;
    (tailscaled, begun.elapsed())
}

fn redis(dir: &Path, port: u16) -> Child {
    let mut redis = Command::new("redis-server");
    redis
        .args(["--bind", "127.0.0.1", "--save", "", "--repl-diskless-sync-delay", "0", "--port"])
        .arg(port.to_string())
        .arg("--dir")
        .arg(dir);
    spawn(&mut redis)
}

fn spawn(command: &mut Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("a program")
}

async fn until<T>(what: impl AsyncFn() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = what().await {
            return found;
        }
        assert!(begun.elapsed() < LIMIT, "waited in vain");
        sleep(Duration::from_millis(10)).await;
    }
}

/// All of what is resident.
const ALL: &str = "VmRSS:";
/// What of it is not the program's file, which the kernel may drop and read again.
const OWN: &str = "RssAnon:";

/// Resident memory, megabytes.
fn resident_mb(pid: u32, kind: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(kind)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) * 1024.0 / 1e6
}

/// A node of a cluster on the local market, once it serves.
pub async fn memory_of_a_node(sandbox: &Sandbox, program: &str) -> Vec<Figure> {
    let text = "apiVersion: akash-redis.dev/v1alpha1\nkind: RedisCluster\nmetadata: { name: bench }\nspec:\n  nodes: 1\n  \
                resources: { cpu: 500m, memory: 1Gi, data: { size: 4Gi, class: beta3 } }\n  budget: { maxPerMonth: 12act }\n";
    let cluster = validate::parse(text).expect("a manifest").remove(0);
    let mut local = Local::start(Path::new(program), &sandbox.dir.join("market"), &sandbox.stop)
        .await
        .expect("a market");
    local.start_operator().await.expect("an operator");
    let client = local.client().expect("a client");
    client.apply(&cluster).await.expect("the cluster is taken");
    let serves = async || {
        client
            .get("bench")
            .await
            .ok()?
            .status?
            .nodes
            .into_iter()
            .find(|node| node.phase == Phase::Master)
    };
    let node = until(serves).await;
    let (provider, lease) = local.market.find(node.dseq).expect("its lease");
    let runner = &local.market.providers[provider].runner;
    let rss = |name: &str, kind| {
        runner.processes(&lease, name).into_iter().map(|pid| resident_mb(pid, kind)).sum()
    };
    let figures = vec![
        Figure::alone("agent RSS", "MB", rss("akash-redis", ALL), 1),
        Figure::alone("agent RSS without the program's file", "MB", rss("akash-redis", OWN), 1),
        Figure::alone("tailscaled RSS of an idle node", "MB", rss("tailscaled", ALL), 1),
    ];
    local.kill_operator().await;
    figures
}
