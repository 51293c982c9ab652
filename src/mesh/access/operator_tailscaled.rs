//! The tailscaled that the operator runs for itself.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::login;
use super::socks_port::{SocksPort, left_running};
use super::state_dir::StateDir;
use super::{AccessError, AccessSettings, AccessStatus};
use crate::mesh::MeshControl;
use crate::mesh::local::{LocalClient, LocalStatus};
use crate::mesh::tailscaled::command::Daemon;
use crate::mesh::tailscaled::{
    Credential, Device, Event, Process, SilenceLimits, credential_wanted, supervise,
};
use crate::model::time::Backoff;
use crate::process::Output;

/// Between an exit and the next start.
const RESTARTS: Backoff =
    Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(30) };
/// A shorter silence is not worth a word: one that was just started needs a moment, and so does a
/// busy machine.
const SHORT_SILENCE: Duration = Duration::from_secs(2);

/// The operator's tailscaled. Its state directory is ours as long as this lives.
#[derive(Debug)]
pub struct OperatorTailscaled {
    settings: AccessSettings,
    state_dir: StateDir,
    port: SocksPort,
    left_running: Option<Process>,
    local: LocalClient,
    status: AccessStatus,
}

impl OperatorTailscaled {
    /// Takes the state directory, a port, and what an earlier operator left running there. Nothing
    /// is started yet.
    pub async fn prepare(settings: AccessSettings) -> Result<Self, AccessError> {
        let state_dir = StateDir::lock(&settings.state_dir)?;
        let (left_running, port) = match left_running(&state_dir).await {
            Some((adopted, socks5)) => {
                tracing::info!(pid = adopted.pid.as_raw_nonzero(), %socks5, "the tailscaled of an earlier operator still runs and is taken up");
                (Some(Process::Adopted(adopted)), SocksPort::of(socks5))
            }
            None => (None, SocksPort::any()?),
        };
        let local = LocalClient::new(&state_dir.socket())?;
        let status = AccessStatus::off(
            "the operator's tailscaled starts, so no node can be reached from here yet; it takes a few seconds",
        );
        Ok(Self { settings, state_dir, port, left_running, local, status })
    }

    /// Where nodes are dialled through, as long as this lives.
    #[must_use]
    pub fn socks5(&self) -> SocketAddr {
        self.port.address
    }

    /// Who commands it.
    #[must_use]
    pub fn local(&self) -> &LocalClient {
        &self.local
    }

    /// Whether the operator is on the mesh.
    #[must_use]
    pub fn status(&self) -> &AccessStatus {
        &self.status
    }

    /// Runs it until `stop`, and stops it then.
    pub async fn run(self, control: Arc<dyn MeshControl>, stop: CancellationToken) {
        stop.run_until_cancelled(login::revoke_left(&self.state_dir, &*control)).await;
        let local = self.local.clone();
        let mut device = OperatorDevice { of: self, control, last_lines: LastLines::default() };
        supervise(&mut device, &local, RESTARTS, &stop).await;
    }
}

/// [`OperatorTailscaled`] while it runs.
struct OperatorDevice {
    of: OperatorTailscaled,
    control: Arc<dyn MeshControl>,
    last_lines: LastLines,
}

#[async_trait]
impl Device for OperatorDevice {
    const SILENCE: SilenceLimits =
        SilenceLimits { answered: Duration::from_secs(20), starting: Duration::from_secs(20) };
    /// Each login may cost a key.
    const LOGINS: Backoff =
        Backoff { first: Duration::from_secs(5), longest: Duration::from_mins(5) };

    fn start(&mut self) -> std::io::Result<Process> {
        if let Some(process) = self.of.left_running.take() {
            return Ok(process);
        }
        self.of.port.hold();
        let state_dir = self.of.state_dir.path();
        let socket = self.of.state_dir.socket();
        let daemon = Daemon { state_dir, socket: &socket, socks5: self.of.port.address };
        let mut program = daemon.program(&self.of.settings.program);
        program.env.push(("TS_LOGS_DIR".to_owned(), state_dir.into()));
        self.last_lines = LastLines::default();
        program.start(&self.last_lines.output()).map(Process::Child)
    }

    fn show(&mut self, event: Event<'_>) {
        let error = match event {
            Event::NotStarted(error) => {
                let program = self.of.settings.program.clone();
                AccessError::Program { program, detail: error.to_string() }.to_string()
            }
            Event::Status(status) if status.running() => {
                self.of.status.set_peers(status);
                return self.of.status.set_error(None);
            }
            Event::Status(status) => match off_mesh(status) {
                Some(why) => why,
                None => return,
            },
            Event::NoAnswer { silent, .. } if silent <= SHORT_SILENCE => return,
            Event::NoAnswer { error, .. } => error.to_string(),
            Event::Gone(how) => {
                let said = self.last_lines.joined();
                let said = if said.is_empty() { said } else { format!("; it said: {said}") };
                format!(
                    "the operator's tailscaled is gone ({how}{said}), so no node can be reached from here; it is started again"
                )
            }
            Event::Stopped => return,
        };
        self.of.status.set_error(Some(error));
    }

    async fn log_in(&mut self, credential: Credential) {
        let OperatorTailscaled { settings, state_dir, .. } = &self.of;
        if let Err(why) = login::log_in(settings, state_dir, &*self.control, credential).await {
            self.of.status.set_error(Some(why));
        }
    }
}

/// Why a tailscaled in this state is not on the mesh, where no login is about to change that.
fn off_mesh(status: &LocalStatus) -> Option<String> {
    if credential_wanted(status).is_some() {
        return None;
    }
    if status.backend_state == "NeedsMachineAuth" {
        return Some(
            "the operator's device waits for approval, so no node can be reached from here; approve it in the tailnet's list of machines"
                .to_owned(),
        );
    }
    let health = status.health.iter().flatten().map(|text| format!(": {text}")).next();
    Some(format!(
        "the operator's tailscaled is not on the mesh yet ({}{}), so no node can be reached from here; it goes on trying to reach its control server",
        status.backend_state,
        health.unwrap_or_default()
    ))
}

/// The last lines that a program printed, for when it ends unasked.
#[derive(Clone, Debug, Default)]
pub(super) struct LastLines(Arc<Mutex<VecDeque<String>>>);

impl LastLines {
    /// Lines that are kept.
    const KEPT: usize = 5;

    pub(super) fn output(&self) -> Output {
        let kept = self.0.clone();
        Arc::new(move |line: &str| {
            tracing::debug!(target: "akash_redis::tailscaled", "{line}");
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() == Self::KEPT {
                kept.pop_front();
            }
            kept.push_back(line.trim().to_owned());
        })
    }

    pub(super) fn joined(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().map(String::as_str).collect::<Vec<_>>().join(" / ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_person_or_patience_can_change_is_said() {
        let off = |state: &str, have_node_key| {
            off_mesh(&LocalStatus {
                backend_state: state.into(),
                have_node_key,
                ..LocalStatus::default()
            })
        };
        assert!(off("NeedsMachineAuth", true).is_some_and(|text| text.contains("approve it")));
        assert!(off("Starting", true).is_some_and(|text| text.contains("Starting")));
        assert_eq!(off("NeedsLogin", false), None, "a login is made");
    }
}
