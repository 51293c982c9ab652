//! Keeps tailscaled running, answering and logged in, and follows its status.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rustix::process::Pid;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::forwarder::Peers;
use super::local_api::{LocalApi, Status};
use super::mesh_service;
use super::state::Node;
use super::tailscale::{self, TailscaledInstance};
use crate::error_chain::error_chain;
use crate::mesh::local::{LocalClient, LocalStatus};
use crate::mesh::tailscaled::command::CALL_LIMIT;
use crate::mesh::tailscaled::{
    Adopted, Credential, Device, Event, Process, SilenceLimits, credential_wanted, supervise,
};
use crate::model::mesh::BackendState;
use crate::model::node::{KEY_SPENT, NodeMesh};
use crate::model::text::few;
use crate::model::time::Backoff;
use crate::process::{Program, read_on};

/// Name in the log book.
const SOURCE: &str = "tailscaled";
/// Between two calls of `tailscale serve` that failed.
const SERVE_PAUSE: Duration = Duration::from_secs(20);

/// Runs tailscaled until `stop`.
pub async fn keep_running(
    node: Arc<Node>,
    instance: TailscaledInstance,
    left: Option<Pid>,
    api: LocalApi,
    peers: watch::Sender<Peers>,
    stop: CancellationToken,
) {
    let restarts = node.settings.restarts;
    let local = api.client();
    let (next_serve, next_service) = (None, None);
    let mut device =
        NodeDevice { node, instance, left, peers, next_serve, next_service, local: local.clone() };
    supervise(&mut device, &local, restarts, &stop).await;
}

/// This node on the mesh.
struct NodeDevice {
    node: Arc<Node>,
    instance: TailscaledInstance,
    /// The tailscaled that an earlier agent of this container left behind.
    left: Option<Pid>,
    peers: watch::Sender<Peers>,
    /// `None` when the port is served, or shall not be.
    next_serve: Option<Instant>,
    /// The same of the service.
    next_service: Option<Instant>,
    local: LocalClient,
}

#[async_trait]
impl Device for NodeDevice {
    /// It answers within milliseconds, and a pause of a busy machine is over by then. Ten seconds
    /// are also the usual `failover.downAfter`: where it hurts most, on a master, the failover has
    /// begun, and cutting the connections costs nothing.
    const SILENCE: SilenceLimits =
        SilenceLimits { answered: Duration::from_secs(10), starting: Duration::from_mins(1) };
    /// Each time the same: a refused key is not going to be accepted, an unreachable control server
    /// may come back.
    const LOGINS: Backoff =
        Backoff { first: Duration::from_secs(20), longest: Duration::from_secs(20) };

    fn start(&mut self) -> std::io::Result<Process> {
        self.next_serve = self.node.identity.serve.then(Instant::now);
        // One that it hosted before, with the state on its volume, is taken back.
        self.next_service = Some(Instant::now());
        let output = self.node.book.output(SOURCE);
        if let Some(pid) = self.left.take() {
            self.node.book.agent("tailscaled went on without its agent, and is taken over");
            if let Err(error) = read_on(&self.instance.log(), &output) {
                self.node.book.agent(&format!("what it prints is not read any more: {error}"));
            }
            let socket = self.node.settings.mesh_socket();
            return Ok(Process::Adopted(Adopted { pid, socket }));
        }
        self.instance
            .daemon(&self.node.settings, self.node.identity.memory_bytes)
            .start(&output)
            .map(Process::Child)
    }

    fn show(&mut self, event: Event<'_>) {
        match event {
            Event::NotStarted(error) => {
                let sentence = format!("tailscaled cannot be started ({error}); it is tried again");
                self.node.set_note(SOURCE, Some(sentence));
                show(&self.node, &self.peers, None);
            }
            Event::Status(local) => {
                let status = Status::from(local.clone());
                show(&self.node, &self.peers, Some(&status));
                self.show_refusal(local, &status);
                self.show_service(local);
            }
            Event::NoAnswer { .. } | Event::Stopped => show(&self.node, &self.peers, None),
            Event::Gone(how) => {
                self.node.book.agent(&format!("tailscaled is gone: {how}"));
                let sentence = format!("tailscaled exited ({how}) and was started again");
                self.node.set_note(SOURCE, Some(sentence));
                show(&self.node, &self.peers, None);
            }
        }
    }

    async fn log_in(&mut self, credential: Credential) {
        if credential == Credential::AuthKey && self.node.identity.auth_key.is_empty() {
            let said = "the manifest of a node that runs brings none";
            self.node.set_note("login", Some(spent(said)));
            return;
        }
        let failure = self.try_login(credential).await.err();
        let sentence =
            failure.map(|how| format!("the login to the mesh failed ({how}); it is tried again"));
        if let Some(sentence) = &sentence {
            self.node.book.agent(sentence);
        }
        // Why it failed comes with the next status.
        if !self.node.peek().key_spent() {
            self.node.set_note("login", sentence);
        }
    }

    async fn on_mesh(&mut self) {
        self.offer_service().await;
        if self.next_serve.is_none_or(|at| Instant::now() < at) {
            return;
        }
        let failure = self.call(&tailscale::serve(&self.node.settings)).await.err();
        self.next_serve = failure.is_some().then(|| Instant::now() + SERVE_PAUSE);
        let sentence = |how| {
            format!(
                "`tailscale serve` failed ({how}); Redis is reached over the mesh without it, and it is tried again"
            )
        };
        self.node.set_note("serve", failure.map(sentence));
    }
}

impl NodeDevice {
    /// A login that is wanted and refused for good.
    fn show_refusal(&self, local: &LocalStatus, status: &Status) {
        if credential_wanted(local).is_none() {
            self.node.set_note("login", None);
        } else if let Some(said) = refused(&status.health) {
            self.node.set_note("login", Some(spent(said)));
        }
    }

    fn service(&self) -> String {
        mesh_service::name(self.node.announced.cluster())
    }

    async fn offer_service(&mut self) {
        if self.next_service.is_none_or(|at| Instant::now() < at) {
            return;
        }
        let (node, service) = (&self.node, self.service());
        let wanted = node.identity.service;
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, node.settings.forward_port));
        let to = wanted.then_some(to);
        let offered = mesh_service::offer(&self.local, &service, node.settings.master_port, to);
        let failure = offered.await.err();
        self.next_service = failure.is_some().then(|| Instant::now() + SERVE_PAUSE);
        let sentence = |error| {
            format!(
                "{service} is not hosted here ({}); everything else works without, and it is tried again",
                error_chain(&error)
            )
        };
        // Where none is wanted, an old tailscaled that knows no services is as good.
        self.node.set_note("service", failure.filter(|_| wanted).map(sentence));
    }

    /// Whether the tailnet lets anybody in by the service.
    fn show_service(&self, local: &LocalStatus) {
        if !self.node.identity.service || self.next_service.is_some() || !local.running() {
            return;
        }
        let service = self.service();
        let known = local.own.as_ref().is_some_and(|own| own.service(&service).is_some());
        let port = self.node.settings.master_port;
        let sentence = (!known).then(|| mesh_service::without_address(&service, port));
        self.node.set_note("service", sentence);
    }

    async fn try_login(&self, credential: Credential) -> Result<(), String> {
        let key = match credential {
            Credential::AuthKey => {
                Some(self.instance.write_key(&self.node).map_err(|error| error.to_string())?)
            }
            Credential::State => None,
        };
        self.call(&tailscale::login(&self.node, key.as_ref())).await
    }

    /// Runs a program of the mesh to its end; the error says how it failed.
    async fn call(&self, program: &Program) -> Result<(), String> {
        match program.run(CALL_LIMIT, &self.node.book.output(SOURCE)).await {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(status.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// What the control server said when it refused the key for good; `None` for what may pass, as when
/// it is out of reach.
fn refused(health: &[String]) -> Option<&str> {
    const BEFORE: &str = "last login error was: ";
    // Control servers word it differently; an expired certificate, say, must not be taken for an
    // expired key.
    const KEY: [&str; 4] = ["auth key", "authkey", "auth-key", "api key"];
    const FOR_GOOD: [&str; 7] =
        ["already used", "expired", "revoked", "invalid", "not valid", "not exist", "not found"];
    let (_, said) = health.iter().find_map(|text| text.split_once(BEFORE))?;
    let lower = said.to_lowercase();
    (KEY.iter().any(|word| lower.contains(word))
        && FOR_GOOD.iter().any(|word| lower.contains(word)))
    .then_some(said)
}

fn spent(said: &str) -> String {
    let said = said.trim_end_matches('.');
    format!(
        "{KEY_SPENT}: the control server refused it ({said}), and this node's mesh state is not there or not valid any more; it needs a new incarnation"
    )
}

/// Complaints of tailscaled that are passed on, and bytes of each: it words them itself, as long as
/// it likes.
const HEALTH_TEXTS: usize = 16;
const HEALTH_TEXT: usize = 500;

/// Shows the status in the node's state and to the forwarder.
fn show(node: &Node, peers: &watch::Sender<Peers>, status: Option<&Status>) {
    let mesh = match status {
        None => NodeMesh { backend_state: BackendState::Down, ..node.peek().mesh },
        Some(status) => NodeMesh {
            backend_state: status.backend_state.clone().into(),
            dns_name: status.dns_name.clone(),
            ip: status.ip.map(|ip| ip.to_string()).unwrap_or_default(),
            device_id: status.device_id.clone(),
            health: few(status.health.clone(), HEALTH_TEXTS, HEALTH_TEXT),
            visible_peers: status.peers.keys().cloned().collect(),
            visible_ids: status.peer_ids.iter().cloned().collect(),
            paths: Vec::new(),
        },
    };
    let known: BTreeMap<_, _> = status.map(|s| s.peers.clone()).unwrap_or_default();
    // A netmap that could not be read says nothing about who left; when tailscaled died, its
    // connections died with it.
    if status.is_some() {
        peers.send_if_modified(|before| {
            let changed = **before != known;
            if changed {
                *before = Arc::new(known);
            }
            changed
        });
    }
    if mesh.backend_state == BackendState::Running {
        node.set_note(SOURCE, None);
    }
    // The paths are looked at elsewhere, and less often.
    node.update(|state| {
        state.mesh = NodeMesh { paths: std::mem::take(&mut state.mesh.paths), ..mesh }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_key_is_told_from_a_control_server_out_of_reach() {
        let refused = |said: &str| {
            refused(&[
                "x".to_owned(),
                format!("You are logged out. The last login error was: {said}"),
            ])
            .is_some()
        };
        for said in [
            "auth key already used",
            "authkey already used",
            "auth key expired",
            "invalid key: API key kX1 not valid",
            "invalid key: API key kX1 does not exist",
            "AuthKey not found",
        ] {
            assert!(refused(said), "{said}");
        }
        for said in [
            "fetch control key: Get \"https://c.test/key?v=142\": x509: certificate has expired",
            "register request: http 500: looking up auth key: the database is locked",
            "dial tcp 10.97.0.1:8080: connect: connection refused",
        ] {
            assert!(!refused(said), "{said}");
        }
        assert!(super::refused(&[]).is_none());
        assert!(spent("auth key already used").starts_with(KEY_SPENT));
    }
}
