//! Keeps the operator's tailscaled running and logged in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::login::{self, Next};
use super::place::{OwnError, Place, Port, left_behind};
use super::process::Process;
use super::{Facts, OwnSettings};
use crate::mesh::MeshControl;
use crate::mesh::local::{LocalClient, LocalStatus};

/// Time between two looks at the status.
const LOOK: Duration = Duration::from_secs(1);
/// The same while it is not on the mesh: nodes wait for it.
const LOOK_OFTEN: Duration = Duration::from_millis(100);
/// One that says nothing for so long is frozen: it is killed and started again.
const FROZEN: Duration = Duration::from_secs(20);
/// A run of this length was a good one: the next pause is short again.
const GOOD_RUN: Duration = Duration::from_mins(1);
/// Between an end and the next start.
const RESTART: Pauses = Pauses { first: Duration::from_secs(1), longest: Duration::from_secs(30) };
/// Between two logins: each may cost a key.
const LOGIN: Pauses = Pauses { first: Duration::from_secs(5), longest: Duration::from_mins(5) };

/// Pauses that double.
#[derive(Clone, Copy)]
struct Pauses {
    first: Duration,
    longest: Duration,
}

impl Pauses {
    /// After so many failures in a row, the first being 0.
    fn after(self, failures: u32) -> Duration {
        self.first.saturating_mul(2u32.saturating_pow(failures.min(16))).min(self.longest)
    }
}

/// The operator's tailscaled. Its directory is ours as long as this lives.
#[derive(Debug)]
pub struct Keeper {
    settings: OwnSettings,
    place: Place,
    port: Port,
    left: Option<Process>,
    local: LocalClient,
    facts: Facts,
}

impl Keeper {
    /// Takes the directory, a port, and what an earlier operator left running there. Nothing is
    /// started yet.
    pub async fn take(settings: OwnSettings) -> Result<Self, OwnError> {
        let place = Place::take(&settings.state_dir)?;
        let left = left_behind(&place).await;
        let (left, port) = match left {
            Some((adopted, socks5)) => {
                tracing::info!(pid = adopted.pid.as_raw_nonzero(), %socks5, "the tailscaled of an earlier operator still runs and is taken up");
                (Some(Process::Adopted(adopted)), Port::of(socks5))
            }
            None => (None, Port::any()?),
        };
        let local = LocalClient::new(&place.socket())?;
        let facts = Facts::off(
            "the operator's tailscaled starts, so no node can be reached from here yet; it takes a few seconds",
        );
        Ok(Self { settings, place, port, left, local, facts })
    }

    /// Where nodes are dialled through, as long as this lives.
    #[must_use]
    pub fn socks5(&self) -> SocketAddr {
        self.port.address
    }

    /// What is known of it.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Runs it until `stop`, and stops it then.
    pub async fn run(mut self, control: Arc<dyn MeshControl>, stop: CancellationToken) {
        stop.clone().run_until_cancelled_owned(login::revoke_left(&self.place, &*control)).await;
        let mut failures = 0;
        while !stop.is_cancelled() {
            let began = Instant::now();
            match self.left.take().map_or_else(|| self.start(), Ok) {
                Ok(mut process) => {
                    let how = self.attend(&mut process, &*control, &stop).await;
                    if stop.is_cancelled() {
                        return process.stop().await;
                    }
                    self.facts.tell(Some(format!(
                        "the operator's tailscaled is gone ({how}), so no node can be reached from here; it is started again"
                    )));
                }
                Err(error) => self.facts.tell(Some(
                    OwnError::Program {
                        program: self.settings.program.clone(),
                        detail: error.to_string(),
                    }
                    .to_string(),
                )),
            }
            failures = if began.elapsed() >= GOOD_RUN { 0 } else { failures + 1 };
            stop.clone().run_until_cancelled_owned(sleep(RESTART.after(failures.max(1) - 1))).await;
        }
    }

    fn start(&mut self) -> std::io::Result<Process> {
        self.port.keep();
        Process::start(
            &self.settings.program,
            self.place.dir(),
            &self.place.socket(),
            self.port.address,
        )
    }

    /// Looks at it each second until it is gone or `stop`; how it ended.
    async fn attend(
        &self,
        process: &mut Process,
        control: &dyn MeshControl,
        stop: &CancellationToken,
    ) -> String {
        let mut pause = LOOK_OFTEN;
        let mut answered = Instant::now();
        let mut logins = Logins { failures: 0, next: Instant::now() };
        loop {
            tokio::select! {
                () = stop.cancelled() => return "it was asked to".to_owned(),
                how = process.ended() => return how,
                () = sleep(pause) => {}
            }
            match self.local.status().await {
                Ok(status) => {
                    answered = Instant::now();
                    pause = if status.running() { LOOK } else { LOOK_OFTEN };
                    stop.clone()
                        .run_until_cancelled_owned(self.heed(&status, control, &mut logins))
                        .await;
                }
                Err(_) if process.is_gone().await => {
                    return "nobody listens on its socket".to_owned();
                }
                Err(error) if answered.elapsed() > FROZEN => {
                    process.kill().await;
                    return format!(
                        "it was killed after {} s of silence: {error}",
                        FROZEN.as_secs()
                    );
                }
                // One that was just started needs a moment before it answers.
                Err(_) if answered.elapsed() <= 2 * LOOK => {}
                Err(error) => self.facts.tell(Some(error.to_string())),
            }
        }
    }

    /// Does what its state asks for.
    async fn heed(&self, status: &LocalStatus, control: &dyn MeshControl, logins: &mut Logins) {
        match login::next(status) {
            Next::On => {
                logins.failures = 0;
                self.facts.see(status);
                self.facts.tell(None);
            }
            Next::Wait(sentence) => self.facts.tell(Some(sentence)),
            Next::LogIn { with_key } if Instant::now() >= logins.next => {
                if let Err(sentence) =
                    login::log_in(&self.settings, &self.place, control, with_key).await
                {
                    self.facts.tell(Some(sentence));
                }
                logins.next = Instant::now() + LOGIN.after(logins.failures);
                logins.failures += 1;
            }
            Next::LogIn { .. } => {}
        }
    }
}

/// When a login may be tried again.
struct Logins {
    failures: u32,
    next: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_that_fail_become_rare() {
        let pauses: Vec<_> =
            [0, 1, 2, 5, 6, 1000].map(|failures| LOGIN.after(failures).as_secs()).to_vec();
        assert_eq!(pauses, [5, 10, 20, 160, 300, 300]);
    }
}
