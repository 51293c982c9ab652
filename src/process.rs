//! Child processes whose output is handed over line by line.
//!
//! Children lead a process group of their own: a signal to this program's group (Ctrl-C, the init
//! of a container) is not for them, and this program alone decides in which order they stop.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader, Interest};
use tokio::net::unix::pipe;
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
    /// Its output goes to a pipe of this name. It goes on when this program dies: it never writes to
    /// a pipe that nobody has open, and a later process of this program can read on.
    pub log: Option<PathBuf>,
}

/// A running child, or one that an earlier process of this program left behind. Dropping it kills
/// it.
#[derive(Debug)]
pub struct Child {
    process: Handle,
    pid: Option<Pid>,
    readers: TaskTracker,
}

#[derive(Debug)]
enum Handle {
    Own(tokio::process::Child),
    /// Readable once it is gone.
    Left(AsyncFd<OwnedFd>),
}

impl Program {
    /// Starts it. Must be called within a tokio runtime.
    pub fn start(&self, output: &Output) -> std::io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.env.iter().map(|(k, v)| (k, v)));
        // The identity holds a node's secrets: no child needs it.
        command.env_remove(NODE_VARIABLE);
        command.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
        let readers = TaskTracker::new();
        match &self.log {
            Some(log) => {
                make_pipe(log)?;
                // Open for reading as well: the pipe of whoever writes here never breaks.
                let writer = File::options().read(true).write(true).open(log)?;
                readers
                    .spawn(hand_over(pipe::OpenOptions::new().open_receiver(log)?, output.clone()));
                command.stdout(writer.try_clone()?).stderr(writer);
            }
            None => drop(command.stdout(Stdio::piped()).stderr(Stdio::piped())),
        }
        if let Some((uid, gid)) = self.run_as {
            command.uid(uid).gid(gid);
        }
        let mut process = command.spawn()?;
        if let Some(out) = process.stdout.take() {
            readers.spawn(hand_over(out, output.clone()));
        }
        if let Some(err) = process.stderr.take() {
            readers.spawn(hand_over(err, output.clone()));
        }
        readers.close();
        let pid = process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Child { process: Handle::Own(process), pid, readers })
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

/// Makes a pipe of this name, where there is none.
fn make_pipe(path: &Path) -> std::io::Result<()> {
    match mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Readable once the process that is held is gone.
#[allow(deprecated)] // what takes its place is unsafe for what is not an owned descriptor; this is one
fn watched(held: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(held, Interest::READABLE)
}

/// Reads on what a program prints that was started with this [`Program::log`].
///
/// # Errors
/// The pipe is not there any more.
pub fn read_on(log: &Path, output: &Output) -> std::io::Result<()> {
    tokio::spawn(hand_over(pipe::OpenOptions::new().open_receiver(log)?, output.clone()));
    Ok(())
}

impl Child {
    /// Takes over a process that an earlier process of this program started. `is_it` is asked once no
    /// other process can have this id any more; `None` when it says no, or nobody has it.
    pub fn take_over(
        pid: Pid,
        log: &Path,
        output: &Output,
        is_it: impl FnOnce() -> bool,
    ) -> std::io::Result<Option<Self>> {
        let held = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(held) => held,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if !is_it() {
            return Ok(None);
        }
        let readers = TaskTracker::new();
        readers.spawn(hand_over(pipe::OpenOptions::new().open_receiver(log)?, output.clone()));
        readers.close();
        Ok(Some(Self { process: Handle::Left(watched(held)?), pid: Some(pid), readers }))
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        self.pid
    }

    /// Waits for its exit; may be called again. How one ended that was taken over is not known.
    pub async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        match &mut self.process {
            Handle::Own(process) => process.wait().await,
            Handle::Left(held) => {
                held.readable().await?.retain_ready();
                Err(std::io::Error::other("how is not known: it was started by an earlier agent"))
            }
        }
    }

    /// After its exit: waits until what it printed last was handed over.
    pub async fn last_output(&self) {
        let _ = timeout(LAST_OUTPUT, self.readers.wait()).await;
    }

    /// Kills it without asking; [`Child::wait`] says when it is gone.
    pub fn kill(&mut self) {
        // Fails only when it is gone already.
        match &mut self.process {
            Handle::Own(process) => drop(process.start_kill()),
            Handle::Left(held) => drop(pidfd_send_signal(held.get_ref(), Signal::KILL)),
        }
    }

    /// Asks it to stop, and kills it after `limit`.
    ///
    /// It is asked again each second: Redis declines while it writes its first append-only file.
    pub async fn stop(&mut self, limit: Duration) {
        let asked = Instant::now();
        while asked.elapsed() < limit {
            match &self.process {
                // A reaped child has no id any more, so this pid cannot be another process' yet.
                Handle::Own(process) => {
                    if let (Some(pid), Some(_)) = (self.pid, process.id()) {
                        let _ = kill_process(pid, Signal::TERM);
                    }
                }
                Handle::Left(held) => drop(pidfd_send_signal(held.get_ref(), Signal::TERM)),
            }
            if timeout(ASK_AGAIN.min(limit), self.wait()).await.is_ok() {
                return;
            }
        }
        self.kill();
        let _ = self.wait().await;
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if matches!(self.process, Handle::Left(_)) {
            self.kill();
        }
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
    async fn a_process_that_was_left_behind_prints_on_and_is_ended_like_a_child() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let (before, first) = collect();
        let script = "echo one; trap 'echo two; exit 0' TERM; while :; do sleep 0.01; done";
        let program = Program { log: Some(log.clone()), ..shell(script) };
        let child = program.start(&before).unwrap();
        let pid = child.pid().unwrap();
        let printed = async {
            while first.lock().unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_mins(1), printed).await.unwrap();
        // As when this program dies: nobody reads any more, and nobody ends it.
        let (again, second) = collect();
        assert!(Child::take_over(pid, &log, &again, || false).unwrap().is_none());
        std::mem::forget(child);
        let mut left = Child::take_over(pid, &log, &again, || true).unwrap().unwrap();
        left.stop(Duration::from_secs(30)).await;
        assert!(left.wait().await.is_err(), "how it ended is another's to know");
        left.last_output().await;
        let all = [first.lock().unwrap().clone(), second.lock().unwrap().clone()].concat();
        assert_eq!(all, ["one", "two"], "whoever of the two readers got it");
        drop(left);
        let gone = Child::take_over(Pid::from_raw(i32::MAX).unwrap(), &log, &again, || true);
        assert!(gone.unwrap().is_none());
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
