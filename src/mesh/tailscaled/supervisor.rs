//! Keeps one tailscaled running, answering and logged in.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::process::Process;
use super::silence::{Silence, SilenceLimits};
use crate::mesh::local::{LocalClient, LocalError, LocalStatus};
use crate::model::time::Backoff;
use crate::retry::RestartDelays;

/// Time between two looks at the status.
const LOOK: Duration = Duration::from_secs(1);
/// The same until it is on the mesh: somebody waits for it, and each of the three steps of a join
/// takes some milliseconds.
const LOOK_JOINING: Duration = Duration::from_millis(200);

/// What is seen of a tailscaled, in the order in which it happens.
#[derive(Debug)]
pub enum Event<'a> {
    /// It cannot be started; that is tried again.
    NotStarted(&'a std::io::Error),
    /// Its status, at each look.
    Status(&'a LocalStatus),
    /// It does not answer a look.
    NoAnswer {
        /// Why.
        error: &'a LocalError,
        /// For how long it has not answered.
        silent: Duration,
        /// It was only just started, and never answered yet.
        starting: bool,
    },
    /// It is gone, how is said in a few words; it is started again.
    Gone(&'a str),
    /// It was stopped because that was asked for.
    Stopped,
}

/// With what a login is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// An auth key, which is spent by it.
    AuthKey,
    /// The kept state of an earlier login.
    State,
}

/// A device of the mesh as the supervisor of its tailscaled needs it.
#[async_trait]
pub trait Device: Send {
    /// When it counts as frozen.
    const SILENCE: SilenceLimits;
    /// Between two logins.
    const LOGINS: Backoff;

    /// Starts its tailscaled, or hands over one that runs already.
    fn start(&mut self) -> std::io::Result<Process>;

    /// Shows what was seen.
    fn show(&mut self, event: Event<'_>);

    /// Logs in, and shows what came of it. May be dropped at any time.
    async fn log_in(&mut self, credential: Credential);

    /// After each look that finds it on the mesh. May be dropped at any time.
    async fn on_mesh(&mut self) {}
}

/// Whether a tailscaled in this state is to be logged in: not with a key when it runs already,
/// because the key is spent then.
#[must_use]
pub fn credential_wanted(status: &LocalStatus) -> Option<Credential> {
    match status.backend_state.as_str() {
        "Stopped" if status.have_node_key => Some(Credential::State),
        "NeedsLogin" | "Stopped" => Some(Credential::AuthKey),
        _ => None,
    }
}

/// Runs the tailscaled of `device` until `stop`, and stops it then. `local` asks it.
pub async fn supervise<D: Device>(
    device: &mut D,
    local: &LocalClient,
    restarts: Backoff,
    stop: &CancellationToken,
) {
    let mut delays = RestartDelays::new(restarts);
    while !stop.is_cancelled() {
        let started = Instant::now();
        match device.start() {
            Ok(mut process) => {
                let Some(how) = attend(device, &mut process, local, stop).await else {
                    process.stop().await;
                    return device.show(Event::Stopped);
                };
                device.show(Event::Gone(&how));
            }
            Err(error) => device.show(Event::NotStarted(&error)),
        }
        stop.run_until_cancelled(sleep(delays.after(started.elapsed()))).await;
    }
}

/// Looks at one process until it is gone, and says how; `None` when `stop` came first.
async fn attend<D: Device>(
    device: &mut D,
    process: &mut Process,
    local: &LocalClient,
    stop: &CancellationToken,
) -> Option<String> {
    let mut silence = Silence::new(D::SILENCE, Instant::now());
    let mut logins = Logins { backoff: D::LOGINS, failures: 0, next: Instant::now() };
    let mut pause = Duration::ZERO;
    loop {
        tokio::select! {
            () = stop.cancelled() => return None,
            how = process.exited() => return Some(how),
            () = sleep(pause) => {}
        }
        let looked = local.status().await;
        let silent = silence.look(looked.is_ok(), Instant::now());
        match looked {
            Ok(status) => {
                device.show(Event::Status(&status));
                let acted = stop
                    .run_until_cancelled(logins.act_on(device, &status))
                    .await
                    .unwrap_or_default();
                pause = match acted {
                    Acted::LoggedIn => Duration::ZERO,
                    Acted::Nothing if status.running() => LOOK,
                    Acted::Nothing => LOOK_JOINING,
                };
            }
            Err(_) if process.is_gone().await => {
                return Some("nobody listens on its socket".to_owned());
            }
            Err(error) if silence.is_too_long() => {
                process.kill().await;
                let seconds = silent.as_secs();
                return Some(format!("killed after {seconds} s without an answer: {error}"));
            }
            Err(error) => {
                let starting = !silence.has_answered();
                device.show(Event::NoAnswer { error: &error, silent, starting });
                pause = if starting { LOOK_JOINING } else { LOOK };
            }
        }
    }
}

/// What came of a status: whether the next one will be another.
#[derive(Clone, Copy, Default)]
enum Acted {
    #[default]
    Nothing,
    LoggedIn,
}

/// When a login may be tried again.
struct Logins {
    backoff: Backoff,
    failures: u32,
    next: Instant,
}

impl Logins {
    /// Does what this status asks for.
    async fn act_on<D: Device>(&mut self, device: &mut D, status: &LocalStatus) -> Acted {
        if status.running() {
            self.failures = 0;
            device.on_mesh().await;
            return Acted::Nothing;
        }
        let Some(credential) = credential_wanted(status).filter(|_| Instant::now() >= self.next)
        else {
            return Acted::Nothing;
        };
        device.log_in(credential).await;
        self.next = Instant::now() + self.backoff.delay(self.failures);
        self.failures = self.failures.saturating_add(1);
        Acted::LoggedIn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_used_only_where_the_state_is_not_enough() {
        let wanted = |state: &str, have_node_key| {
            credential_wanted(&LocalStatus {
                backend_state: state.into(),
                have_node_key,
                ..LocalStatus::default()
            })
        };
        assert_eq!(wanted("NeedsLogin", false), Some(Credential::AuthKey));
        assert_eq!(wanted("NeedsLogin", true), Some(Credential::AuthKey));
        assert_eq!(wanted("Stopped", true), Some(Credential::State));
        assert_eq!(wanted("Stopped", false), Some(Credential::AuthKey));
        assert_eq!(wanted("Running", true), None);
        assert_eq!(wanted("Starting", true), None);
        assert_eq!(wanted("NoState", false), None);
    }
}
