//! Keeps tailscaled running, answering and logged in, and follows its status.

use std::collections::BTreeMap;
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
use super::tailscale::{self, MeshPlace};
use crate::model::mesh::BackendState;
use crate::model::node::{KEY_SPENT, NodeMesh};
use crate::model::text::few;

/// Time between two looks at the status.
const LOOK: Duration = Duration::from_secs(1);
/// The same until it is on the mesh: a node is waited for, and each of the three steps of a join
/// takes some milliseconds.
const LOOK_JOINING: Duration = Duration::from_millis(200);
/// A call of `tailscale` ends within this: the login gives up by itself after 30 s.
const CALL: Duration = Duration::from_secs(40);
/// Pause between two logins: a refused key is not going to be accepted, an unreachable control
/// server may come back.
const LOGIN_PAUSE: Duration = Duration::from_secs(20);
/// A tailscaled that was silent for so long is killed. It answers within milliseconds, and a pause
/// of a busy machine is over by then. It is also the usual `failover.downAfter`: where it hurts
/// most, on a master, the failover has begun, and cutting the connections costs nothing.
const SILENT: Duration = Duration::from_secs(10);
/// One that never answered yet has longer: killed while it starts on a slow machine, it would never
/// be up.
const NEVER_ANSWERED: Duration = Duration::from_mins(1);
/// A look and the longest call. More than that cannot pass between two looks, unless this agent was
/// frozen too.
const LONGEST_STEP: Duration = Duration::from_secs(4);

/// Runs tailscaled until `stop`.
pub async fn keep_running(
    node: Arc<Node>,
    place: MeshPlace,
    api: LocalApi,
    peers: watch::Sender<Peers>,
    stop: CancellationToken,
) {
    let mut delay = RestartDelay::new(node.settings.restart_delay);
    while !stop.is_cancelled() {
        let started = Instant::now();
        match place.daemon(&node.settings).start(&node.book) {
            Ok(child) => run_once(&node, child, &place, &api, &peers, &stop).await,
            Err(error) => node.note(
                "tailscaled",
                Some(format!("tailscaled cannot be started ({error}); it is tried again")),
            ),
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
    let mut silence = Silence::new(Instant::now());
    let mut chores = Chores::new(node);
    let mut end = "exited";
    loop {
        tokio::select! {
            exit = child.wait() => {
                let how = exit.map_or_else(|error| error.to_string(), |status| status.to_string());
                node.book.agent(&format!("tailscaled is gone: {how}"));
                node.note("tailscaled", Some(format!("tailscaled {end} ({how}) and was started again")));
                return;
            }
            () = stop.cancelled() => return child.stop(Settings::MESH_STOP).await,
            _ = ticks.tick() => {}
        }
        let status = api.status().await.ok();
        show(node, peers, status.as_ref());
        let joining = status
            .as_ref()
            .map_or(silence.never_answered(), |status| status.backend_state != "Running");
        if joining {
            ticks.reset_after(LOOK_JOINING);
        }
        if silence.too_long(status.is_some(), Instant::now()) {
            end = "did not answer any more, was killed";
            node.book.agent("tailscaled does not answer on its socket: it is killed");
            child.kill();
        } else if let Some(status) = status
            && chores.after(node, place, &status, stop).await
        {
            ticks.reset_immediately();
        }
    }
}

/// How long tailscaled has not answered, by what this agent itself saw: a machine that was frozen
/// was frozen with both.
struct Silence {
    last: Instant,
    silent: Duration,
    limit: Duration,
}

impl Silence {
    fn new(now: Instant) -> Self {
        Self { last: now, silent: Duration::ZERO, limit: NEVER_ANSWERED }
    }

    fn never_answered(&self) -> bool {
        self.limit == NEVER_ANSWERED
    }

    /// Counts one look.
    fn too_long(&mut self, answered: bool, now: Instant) -> bool {
        let step = now.saturating_duration_since(self.last).min(LONGEST_STEP);
        self.last = now;
        if answered {
            (self.silent, self.limit) = (Duration::ZERO, SILENT);
        } else {
            self.silent += step;
        }
        self.silent >= self.limit
    }
}

/// What is to be done once tailscaled answers.
struct Chores {
    next_login: Instant,
    /// `None` when the port is served, or shall not be.
    next_serve: Option<Instant>,
}

impl Chores {
    fn new(node: &Node) -> Self {
        let now = Instant::now();
        Self { next_login: now, next_serve: node.identity.serve.then_some(now) }
    }

    /// Does what this status asks for; whether the status is another one now.
    async fn after(
        &mut self,
        node: &Node,
        place: &MeshPlace,
        status: &Status,
        stop: &CancellationToken,
    ) -> bool {
        let ask = wants_login(status);
        match refused(&status.health).filter(|_| ask.is_some()) {
            Some(said) => node.note("login", Some(spent(said))),
            None if ask.is_none() => node.note("login", None),
            None => {}
        }
        let now = Instant::now();
        if let Some(with_key) = ask.filter(|_| now >= self.next_login) {
            stop.run_until_cancelled(log_in(node, place, with_key)).await;
            place.forget_key();
            self.next_login = Instant::now() + LOGIN_PAUSE;
            return true;
        }
        if status.backend_state == "Running" && self.next_serve.is_some_and(|at| now >= at) {
            let failure = stop
                .run_until_cancelled(call(node, Ok(tailscale::serve(&node.settings))))
                .await
                .flatten();
            self.next_serve = failure.is_some().then(|| Instant::now() + LOGIN_PAUSE);
            let sentence = |how| {
                format!(
                    "`tailscale serve` failed ({how}); Redis is reached over the mesh without it, and it is tried again"
                )
            };
            node.note("serve", failure.map(sentence));
        }
        false
    }
}

/// Whether to log in, and whether with the key: never when it runs already, because the key is
/// spent then.
fn wants_login(status: &Status) -> Option<bool> {
    match status.backend_state.as_str() {
        "NeedsLogin" => Some(true),
        "Stopped" => Some(!status.have_node_key),
        _ => None,
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

async fn log_in(node: &Node, place: &MeshPlace, with_key: bool) {
    let failure = call(node, place.login(node, with_key)).await;
    let sentence =
        failure.map(|how| format!("the login to the mesh failed ({how}); it is tried again"));
    if let Some(sentence) = &sentence {
        node.book.agent(sentence);
    }
    // Why it failed comes with the next status.
    if !node.peek().key_spent() {
        node.note("login", sentence);
    }
}

/// Runs a program to its end; how it failed.
async fn call(node: &Node, program: std::io::Result<Program>) -> Option<String> {
    let run = async {
        timeout(CALL, program?.start(&node.book)?.wait())
            .await
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
    };
    match run.await {
        Ok(status) if status.success() => None,
        Ok(status) => Some(status.to_string()),
        Err(error) => Some(error.to_string()),
    }
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
        node.note("tailscaled", None);
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
    fn the_key_is_used_once() {
        let status = |state: &str, have_node_key| Status {
            backend_state: state.into(),
            have_node_key,
            ..Status::default()
        };
        assert_eq!(wants_login(&status("NeedsLogin", false)), Some(true));
        assert_eq!(wants_login(&status("Stopped", true)), Some(false));
        assert_eq!(wants_login(&status("Running", true)), None);
        assert_eq!(wants_login(&status("Starting", true)), None);
        assert_eq!(wants_login(&status("NoState", false)), None);
    }

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

    #[test]
    fn a_tailscaled_that_is_silent_is_given_up_and_a_slow_start_or_a_frozen_machine_is_not() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut silence = Silence::new(start);
        for second in 1..60 {
            assert!(!silence.too_long(false, at(second)), "it starts slowly: {second} s");
        }
        assert!(silence.too_long(false, at(60)), "it never answered");
        let mut silence = Silence::new(start);
        assert!(!silence.too_long(true, at(1)));
        assert!(!silence.too_long(false, at(3600)), "frozen for an hour");
        assert!(!silence.too_long(false, at(3603)));
        assert!(silence.too_long(false, at(3606)));
        assert!(!silence.too_long(true, at(3607)), "it answers again");
    }
}
