//! Child processes whose output is handed over line by line.
//!
//! Children lead a process group of their own: a signal to this program's group (Ctrl-C, the init
//! of a container) is not for them, and this program alone decides in which order they stop.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::model::identity::NODE_VARIABLE;

/// Bytes of a line that are handed over together.
const PIECE: u64 = 4096;
/// A process that was asked to stop is asked again after this.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// What a process printed last is read within this after its exit, unless a child of its own still
/// holds its output open.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// Takes each line that a process prints, without its end.
pub type Output = Arc<dyn Fn(&str) + Send + Sync>;

/// What to start.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// Path or bare name.
    pub program: PathBuf,
    /// Arguments; never a secret.
    pub args: Vec<OsString>,
    /// Added to this program's environment.
    pub env: Vec<(String, OsString)>,
    /// Runs as this user and group instead of this program's.
    pub run_as: Option<(u32, u32)>,
}

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Child {
    process: tokio::process::Child,
    pid: Option<Pid>,
    readers: TaskTracker,
}

impl Program {
    /// Starts it. Must be called within a tokio runtime.
    pub fn start(&self, output: &Output) -> std::io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.env.iter().map(|(k, v)| (k, v)));
        // The identity holds a node's secrets: no child needs it.
        command.env_remove(NODE_VARIABLE);
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
        let readers = TaskTracker::new();
        if let Some(out) = process.stdout.take() {
            readers.spawn(hand_over(out, output.clone()));
        }
        if let Some(err) = process.stderr.take() {
            readers.spawn(hand_over(err, output.clone()));
        }
        readers.close();
        let pid = process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Child { process, pid, readers })
    }

    /// Runs it to its end, and kills it after `limit`.
    ///
    /// # Errors
    /// It cannot be started, or took too long (`TimedOut`).
    pub async fn run(&self, limit: Duration, output: &Output) -> std::io::Result<ExitStatus> {
        let mut child = self.start(output)?;
        let status = timeout(limit, child.wait())
            .await
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
        child.last_output().await;
        Ok(status)
    }
}

impl Child {
    /// Waits for its exit; may be called again.
    pub async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// After its exit: waits until what it printed last was handed over.
    pub async fn last_output(&self) {
        let _ = timeout(LAST_OUTPUT, self.readers.wait()).await;
    }

    /// Kills it without asking; [`Child::wait`] says when it is gone.
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
            if timeout(ASK_AGAIN.min(limit), self.process.wait()).await.is_ok() {
                return;
            }
        }
        let _ = self.process.kill().await;
    }
}

async fn hand_over(from: impl AsyncRead + Unpin, output: Output) {
    let mut from = BufReader::new(from);
    let mut piece = Vec::new();
    loop {
        piece.clear();
        match (&mut from).take(PIECE).read_until(b'\n', &mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(_) => output(String::from_utf8_lossy(&piece).trim_end()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn shell(script: &str) -> Program {
        Program {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            ..Program::default()
        }
    }

    fn collect() -> (Output, Arc<Mutex<Vec<String>>>) {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = lines.clone();
        (Arc::new(move |line: &str| kept.lock().unwrap().push(line.to_owned())), lines)
    }

    #[tokio::test]
    async fn all_output_is_there_at_the_exit() {
        let (output, lines) = collect();
        let status = shell("echo one; echo two >&2; exit 3")
            .run(Duration::from_mins(1), &output)
            .await
            .unwrap();
        assert_eq!(status.code(), Some(3));
        let mut lines = lines.lock().unwrap().clone();
        lines.sort();
        assert_eq!(lines, ["one", "two"]);
    }

    #[tokio::test]
    async fn a_child_stops_when_asked_and_one_that_takes_too_long_is_given_up() {
        let (output, _) = collect();
        let mut child = shell("exec sleep 1000").start(&output).unwrap();
        child.stop(Duration::from_secs(30)).await;
        assert!(!child.wait().await.unwrap().success());
        let error = shell("exec sleep 1000").run(Duration::ZERO, &output).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    }
}
