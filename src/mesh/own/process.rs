//! A tailscaled as a process: a child of ours, or one that an earlier operator left behind.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::place::listener;
use crate::mesh::daemon::{DAEMON_ENV, Daemon};

/// It ends in a fifth of a second when asked to.
const STOP: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);
/// Last lines that are shown when it ends unasked.
const KEPT: usize = 5;
/// Bytes of a line that are looked at together.
const PIECE: u64 = 4096;

/// A process that is not our child, known by the socket it listens on.
#[derive(Debug)]
pub(super) struct Adopted {
    pub(super) pid: Pid,
    pub(super) socket: PathBuf,
}

/// What it printed last.
pub(super) type Tail = Arc<Mutex<VecDeque<String>>>;

#[derive(Debug)]
pub(super) enum Process {
    /// Dropping it kills it.
    Ours(Box<Child>, Tail),
    Adopted(Adopted),
}

impl Process {
    /// Starts one in `dir`.
    pub(super) fn start(
        program: &Path,
        dir: &Path,
        socket: &Path,
        socks5: SocketAddr,
    ) -> std::io::Result<Self> {
        let mut command = Command::new(program);
        command
            .args(Daemon { state_dir: dir, socket, socks5 }.arguments())
            .envs(DAEMON_ENV)
            .env("TS_LOGS_DIR", dir);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // Its own group: a terminal's Ctrl-C is for the operator, which stops it in order.
        let mut child = command.process_group(0).spawn()?;
        let tail = Tail::default();
        if let Some(out) = child.stdout.take() {
            tokio::spawn(copy_lines(out, tail.clone()));
        }
        if let Some(err) = child.stderr.take() {
            tokio::spawn(copy_lines(err, tail.clone()));
        }
        Ok(Self::Ours(Box::new(child), tail))
    }

    /// Waits for the end of a child, and says how it ended. Of another's child only its socket can
    /// tell: see [`Self::is_gone`].
    pub(super) async fn ended(&mut self) -> String {
        match self {
            Self::Ours(child, tail) => {
                let how = child
                    .wait()
                    .await
                    .map_or_else(|error| error.to_string(), |status| status.to_string());
                let tail: Vec<_> =
                    tail.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
                if tail.is_empty() { how } else { format!("{how}; it said: {}", tail.join(" / ")) }
            }
            Self::Adopted(_) => std::future::pending().await,
        }
    }

    /// Another's child whose socket nobody listens on any more.
    pub(super) async fn is_gone(&self) -> bool {
        match self {
            Self::Ours(..) => false,
            Self::Adopted(adopted) => listener(&adopted.socket).await != Some(adopted.pid),
        }
    }

    /// Kills it without ceremony.
    pub(super) async fn kill(&mut self) {
        match self {
            // It is gone already when this fails.
            Self::Ours(child, _) => drop(child.kill().await),
            Self::Adopted(adopted) => adopted.signal(Signal::KILL).await,
        }
    }

    /// Asks it to end, and kills it when it does not in time.
    pub(super) async fn stop(&mut self) {
        match self {
            Self::Ours(child, _) => {
                // A child that was not waited for keeps its number, so this is nobody else's.
                if let Some(pid) = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
                {
                    let _ = kill_process(pid, Signal::TERM);
                }
                if timeout(STOP, child.wait()).await.is_err() {
                    let _ = child.kill().await;
                }
            }
            Self::Adopted(adopted) => {
                adopted.signal(Signal::TERM).await;
                let begun = Instant::now();
                while listener(&adopted.socket).await == Some(adopted.pid) {
                    if begun.elapsed() > STOP {
                        return adopted.signal(Signal::KILL).await;
                    }
                    sleep(POLL).await;
                }
            }
        }
    }
}

impl Adopted {
    /// Numbers of processes are used again: only who still listens on the socket is meant.
    async fn signal(&self, signal: Signal) {
        if listener(&self.socket).await == Some(self.pid) {
            let _ = kill_process(self.pid, signal);
        }
    }
}

async fn copy_lines(from: impl AsyncRead + Unpin, tail: Tail) {
    let mut from = BufReader::new(from);
    let mut piece = Vec::new();
    loop {
        piece.clear();
        match (&mut from).take(PIECE).read_until(b'\n', &mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let line = String::from_utf8_lossy(&piece).trim_end().to_owned();
                tracing::debug!(target: "akash_redis::tailscaled", "{line}");
                let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
                if tail.len() == KEPT {
                    tail.pop_front();
                }
                tail.push_back(line);
            }
        }
    }
}
