//! A child process whose output goes to the log book.
//!
//! Children lead a process group of their own: the init of the container signals the agent's group,
//! and the agent alone decides in which order its children stop. When the agent dies without that,
//! the init goes with it and takes the whole container down.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::Command;

use super::logs::LogBook;

/// Bytes of a line that are looked at together.
const PIECE: u64 = 4096;

/// A process that was asked to stop is asked again after this.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What to start.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// Name in the log book.
    pub source: &'static str,
    /// Path or bare name.
    pub program: PathBuf,
    /// Arguments; never a secret.
    pub args: Vec<OsString>,
    /// Added to the agent's environment.
    pub env: Vec<(String, String)>,
    /// Runs as this user and group instead of the agent's.
    pub run_as: Option<(u32, u32)>,
}

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Child {
    process: tokio::process::Child,
    pid: Option<Pid>,
}

impl Program {
    /// Starts it.
    pub fn start(&self, book: &LogBook) -> std::io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.env.iter().map(|(k, v)| (k, v)));
        // The identity holds this node's secrets: no child needs it.
        command.env_remove(crate::model::identity::NODE_VARIABLE);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some((uid, gid)) = self.run_as {
            command.uid(uid).gid(gid);
        }
        let mut process = command.spawn()?;
        if let Some(out) = process.stdout.take() {
            tokio::spawn(copy_lines(out, self.source, book.clone()));
        }
        if let Some(err) = process.stderr.take() {
            tokio::spawn(copy_lines(err, self.source, book.clone()));
        }
        let pid = process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Child { process, pid })
    }
}

impl Child {
    /// Waits for its exit; may be called again.
    pub async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// Kills it without ceremony; [`Child::wait`] tells when it is gone.
    pub fn kill(&mut self) {
        // Fails only when it is gone already.
        let _ = self.process.start_kill();
    }

    /// Asks it to stop, and kills it after `limit`.
    ///
    /// It is asked again each second: Redis declines while it writes its first append-only file.
    pub async fn stop(&mut self, limit: Duration) {
        let asked = Instant::now();
        while asked.elapsed() < limit {
            // A reaped child has no id any more, so this pid cannot be another process' yet.
            if let (Some(pid), Some(_)) = (self.pid, self.process.id()) {
                let _ = kill_process(pid, Signal::TERM);
            }
            if tokio::time::timeout(ASK_AGAIN.min(limit), self.process.wait()).await.is_ok() {
                return;
            }
        }
        let _ = self.process.kill().await;
    }
}

async fn copy_lines(from: impl AsyncRead + Unpin, source: &'static str, book: LogBook) {
    let mut from = BufReader::new(from);
    let mut piece = Vec::new();
    loop {
        piece.clear();
        match (&mut from).take(PIECE).read_until(b'\n', &mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(_) => book.add(source, String::from_utf8_lossy(&piece).trim_end()),
        }
    }
}

/// The pause before the next start: doubles with each short run.
#[derive(Clone, Copy, Debug)]
pub struct RestartDelay {
    first: Duration,
    next: Duration,
}

impl RestartDelay {
    /// Begins with `first`.
    #[must_use]
    pub fn new(first: Duration) -> Self {
        Self { first, next: first }
    }

    /// The pause after a run of this length.
    pub fn after(&mut self, ran: Duration) -> Duration {
        use super::settings::Settings;
        if ran >= Settings::HEALTHY_RUN {
            self.next = self.first;
        }
        let pause = self.next;
        self.next = (self.next * 2).min(Settings::RESTART_MAX);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_is_collected_and_the_child_stops() {
        let book = LogBook::new(vec![]);
        let (_, mut feed) = book.subscribe(0);
        let program = Program {
            source: "redis",
            program: "/bin/sh".into(),
            args: vec!["-c".into(), "echo one; echo two >&2; exec sleep 1000".into()],
            ..Program::default()
        };
        let mut child = program.start(&book).unwrap();
        let mut lines = vec![feed.recv().await.unwrap().text, feed.recv().await.unwrap().text];
        lines.sort();
        assert_eq!(lines, ["one", "two"]);
        child.stop(Duration::from_secs(30)).await;
        assert!(!child.wait().await.unwrap().success());
    }

    #[test]
    fn pauses_double_up_to_the_cap_and_start_over() {
        let mut delay = RestartDelay::new(Duration::from_secs(1));
        let pauses: Vec<_> = (0..7).map(|_| delay.after(Duration::ZERO).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(delay.after(Duration::from_secs(61)).as_secs(), 1);
    }
}
