//! A tailscaled as a process: a child of ours, or one that an earlier process of ours left behind.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use crate::process::Child;

/// It may take so long to exit when asked to; a fifth of a second is usual.
pub const STOP: Duration = Duration::from_secs(5);
/// Between two looks whether one that is not our child is gone.
const POLL: Duration = Duration::from_millis(50);

/// A process that is not our child, known by the socket it listens on.
#[derive(Debug)]
pub struct Adopted {
    /// The process that listened on the socket when it was found.
    pub pid: Pid,
    /// Unix socket of its LocalAPI.
    pub socket: PathBuf,
}

/// One life of a tailscaled.
#[derive(Debug)]
pub enum Process {
    /// Dropping it kills it.
    Child(Child),
    /// It goes on when this is dropped.
    Adopted(Adopted),
}

impl Process {
    /// Waits for the exit of a child, and says how it ended. Of another's child only its socket can
    /// tell: see [`Self::is_gone`].
    pub(super) async fn exited(&mut self) -> String {
        match self {
            Self::Child(child) => {
                let how = match child.wait().await {
                    Ok(status) => status.to_string(),
                    Err(error) => error.to_string(),
                };
                child.last_output().await;
                how
            }
            Self::Adopted(_) => std::future::pending().await,
        }
    }

    /// Another's child whose socket nobody listens on any more.
    pub(super) async fn is_gone(&self) -> bool {
        match self {
            Self::Child(_) => false,
            Self::Adopted(adopted) => !adopted.listens().await,
        }
    }

    /// Kills it without asking.
    pub(super) async fn kill(&mut self) {
        match self {
            Self::Child(child) => {
                child.kill();
                // How it ended is known.
                let _ = child.wait().await;
            }
            Self::Adopted(adopted) => adopted.signal(Signal::KILL).await,
        }
    }

    /// Asks it to exit, and kills it when it does not in time.
    pub(super) async fn stop(&mut self) {
        match self {
            Self::Child(child) => child.stop(STOP).await,
            Self::Adopted(adopted) => {
                adopted.signal(Signal::TERM).await;
                let asked = Instant::now();
                while adopted.listens().await {
                    if asked.elapsed() > STOP {
                        return adopted.signal(Signal::KILL).await;
                    }
                    sleep(POLL).await;
                }
            }
        }
    }
}

impl Adopted {
    async fn listens(&self) -> bool {
        listener(&self.socket).await == Some(self.pid)
    }

    /// Numbers of processes are used again: only who still listens on the socket is meant.
    async fn signal(&self, signal: Signal) {
        if self.listens().await {
            let _ = kill_process(self.pid, signal);
        }
    }
}

/// The process that listens on this unix socket.
pub async fn listener(socket: &Path) -> Option<Pid> {
    let stream = UnixStream::connect(socket).await.ok()?;
    stream.peer_cred().ok()?.pid().and_then(Pid::from_raw)
}
