//! Keeps tailscaled running and logged in, and follows its status.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::forwarder::Peers;
use super::local_api::{LocalApi, Status};
use super::settings::Settings;
use super::state::Node;
use super::supervisor::{Child, Program, RestartDelay};
use super::users::{self, Owner};
use crate::mesh::daemon::{DAEMON_ENV, Daemon, Login};
use crate::model::node::NodeMesh;

/// Time between two looks at the status.
const LOOK: Duration = Duration::from_secs(1);
/// The login ends by itself after 30 s.
const LOGIN: Duration = Duration::from_secs(40);
/// Pause between two logins: a refused key is not going to be accepted, an unreachable control server may come back.
const LOGIN_PAUSE: Duration = Duration::from_secs(20);

/// Where tailscaled lives.
#[derive(Clone, Debug)]
pub struct MeshPlace {
    /// Its state; outlives the container where there is a volume.
    pub state_dir: PathBuf,
    /// Of its socket.
    pub socket_dir: PathBuf,
    /// Scratch, for the key file, which only the agent reads.
    pub run_dir: PathBuf,
    /// User and group it runs as, when that is not the agent's.
    pub run_as: Option<Owner>,
}

impl MeshPlace {
    /// Makes the directories and gives them to its user.
    pub fn prepare(&self) -> std::io::Result<()> {
        for dir in [&self.state_dir, &self.socket_dir] {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
            users::give(dir, self.run_as)?;
        }
        Ok(())
    }

    /// It was logged in before.
    #[must_use]
    pub fn used_before(&self) -> bool {
        self.state_dir.join("tailscaled.state").exists()
    }

    fn daemon(&self, settings: &Settings) -> Program {
        let socks5 = SocketAddr::from((Ipv4Addr::LOCALHOST, settings.socks_port));
        let socket = settings.mesh_socket();
        Program {
            source: "tailscaled",
            program: settings.tailscaled.clone(),
            args: Daemon { state_dir: &self.state_dir, socket: &socket, socks5 }.arguments(),
            env: DAEMON_ENV.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec(),
            run_as: self.run_as,
        }
    }

    fn key_file(&self) -> PathBuf {
        self.run_dir.join("auth-key")
    }

    fn login(&self, node: &Node, with_key: bool) -> std::io::Result<Program> {
        let file = self.key_file();
        if with_key {
            let _ = fs::remove_file(&file);
            File::options().write(true).create_new(true).mode(0o600).open(&file)?.write_all(node.identity.auth_key.as_bytes())?;
        }
        let login = Login {
            socket: &node.settings.mesh_socket(),
            login_server: node.identity.login_server.as_deref(),
            key_file: with_key.then_some(file.as_path()),
            hostname: &node.identity.hostname,
        };
        let args = login.arguments();
        Ok(Program { source: "tailscaled", program: node.settings.tailscale.clone(), args, ..Program::default() })
    }
}

/// Runs tailscaled until `stop`.
pub async fn keep_running(node: Arc<Node>, place: MeshPlace, api: LocalApi, peers: watch::Sender<Peers>, stop: CancellationToken) {
    let mut delay = RestartDelay::new(node.settings.restart_delay);
    while !stop.is_cancelled() {
        let started = Instant::now();
        match place.daemon(&node.settings).start(&node.book) {
            Ok(child) => run_once(&node, child, &place, &api, &peers, &stop).await,
            Err(error) => node.note("tailscaled", Some(format!("tailscaled cannot be started ({error}); it is tried again"))),
        }
        show(&node, &peers, None);
        if stop.is_cancelled() {
            break;
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = sleep(delay.after(started.elapsed())) => {}
        }
    }
}

/// One life of one process.
async fn run_once(
    node: &Arc<Node>,
    mut child: Child,
    place: &MeshPlace,
    api: &LocalApi,
    peers: &watch::Sender<Peers>,
    stop: &CancellationToken,
) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next_login = Instant::now();
    loop {
        tokio::select! {
            exit = child.wait() => {
                let how = exit.map_or_else(|error| error.to_string(), |status| status.to_string());
                node.book.agent(&format!("tailscaled is gone: {how}"));
                node.note("tailscaled", Some(format!("tailscaled exited ({how}) and was started again")));
                return;
            }
            () = stop.cancelled() => return child.stop(Settings::MESH_STOP).await,
            _ = ticks.tick() => {}
        }
        let status = api.status().await.ok();
        show(node, peers, status.as_ref());
        let Some(status) = status else { continue };
        let ask = wants_login(&status);
        if ask.is_none() {
            node.note("login", None);
        }
        if let Some(with_key) = ask.filter(|_| Instant::now() >= next_login) {
            tokio::select! {
                () = stop.cancelled() => {}
                () = log_in(node, place, with_key) => {}
            }
            let _ = fs::remove_file(place.key_file());
            next_login = Instant::now() + LOGIN_PAUSE;
            ticks.reset_immediately();
        }
    }
}

/// Whether to log in, and whether with the key: never when it runs already, because the key is spent then.
fn wants_login(status: &Status) -> Option<bool> {
    match status.backend_state.as_str() {
        "NeedsLogin" => Some(true),
        "Stopped" => Some(!status.have_node_key),
        _ => None,
    }
}

async fn log_in(node: &Node, place: &MeshPlace, with_key: bool) {
    let run = async {
        let mut child = place.login(node, with_key)?.start(&node.book)?;
        timeout(LOGIN, child.wait()).await.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
    };
    let failure = match run.await {
        Ok(status) if status.success() => None,
        Ok(status) => Some(status.to_string()),
        Err(error) => Some(error.to_string()),
    };
    let sentence = failure.map(|how| {
        format!("the login to the mesh failed ({how}): the control server is out of reach, or the key is spent; a spent key needs a new incarnation")
    });
    if let Some(sentence) = &sentence {
        node.book.agent(sentence);
    }
    node.note("login", sentence);
}

/// Shows the status in the node's state and to the forwarder.
fn show(node: &Node, peers: &watch::Sender<Peers>, status: Option<&Status>) {
    let mesh = match status {
        None => NodeMesh { backend_state: "Down".into(), ..node.peek().mesh },
        Some(status) => NodeMesh {
            backend_state: status.backend_state.clone(),
            dns_name: status.dns_name.clone(),
            ip: status.ip.map(|ip| ip.to_string()).unwrap_or_default(),
            device_id: status.device_id.clone(),
            health: status.health.clone(),
            visible_peers: status.peers.keys().cloned().collect(),
            paths: Vec::new(),
        },
    };
    let known: BTreeMap<_, _> = status.map(|s| s.peers.clone()).unwrap_or_default();
    // A netmap that could not be read says nothing about who left; when tailscaled died, its connections died with it.
    if status.is_some() {
        peers.send_if_modified(|before| {
            let changed = **before != known;
            if changed {
                *before = Arc::new(known);
            }
            changed
        });
    }
    if mesh.backend_state == "Running" {
        node.note("tailscaled", None);
    }
    // The paths are looked at elsewhere, and less often.
    node.update(|state| state.mesh = NodeMesh { paths: std::mem::take(&mut state.mesh.paths), ..mesh });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_used_once() {
        let status = |state: &str, have_node_key| Status { backend_state: state.into(), have_node_key, ..Status::default() };
        assert_eq!(wants_login(&status("NeedsLogin", false)), Some(true));
        assert_eq!(wants_login(&status("Stopped", true)), Some(false));
        assert_eq!(wants_login(&status("Running", true)), None);
        assert_eq!(wants_login(&status("Starting", true)), None);
        assert_eq!(wants_login(&status("NoState", false)), None);
    }
}
