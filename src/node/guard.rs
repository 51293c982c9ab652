//! The first process of a node. It starts the agent, and starts it again when that dies: redis and
//! the mesh go on meanwhile, because the container does not end.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// Set in the environment of the agent that was started by its guard.
const GUARDED: &str = "AKASH_REDIS_GUARDED";
/// An agent that ran for so long had started.
const HEALTHY: Duration = Duration::from_secs(10);
/// So many starts in a row that came to nothing, and the container ends: a fresh one may do better.
const TRIES: u32 = 3;

/// Whether this process is the agent, and not its guard. It ends when its guard does.
#[must_use]
pub fn is_guarded() -> bool {
    let guarded = std::env::var_os(GUARDED).is_some();
    if guarded {
        // In vain on kernels that do not know it; then the container's end is its end.
        let _ = set_parent_process_death_signal(Some(Signal::TERM));
    }
    guarded
}

/// Keeps the agent running until it ends by itself, or is stopped; how it ended.
///
/// # Errors
/// It cannot be started, or signals cannot be received.
pub async fn run() -> io::Result<ExitCode> {
    // The agent is the one that is to be found by the program's name.
    let _ = std::fs::write("/proc/self/comm", "node-guard");
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut failures = 0;
    let mut stopping = false;
    loop {
        let started = Instant::now();
        let mut agent = Command::new(std::env::current_exe()?)
            .arg("node")
            .env(GUARDED, "1")
            .kill_on_drop(true)
            .spawn()?;
        let status = loop {
            tokio::select! {
                status = agent.wait() => break status?,
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            // Whoever signals the whole group told it already; twice is once.
            stopping = true;
            pass_on(&agent);
        };
        if stopping || status.signal().is_none() {
            return Ok(code(status));
        }
        failures = if started.elapsed() < HEALTHY { failures + 1 } else { 0 };
        if failures == TRIES {
            println!(
                "guard | the agent died {TRIES} times in a row ({status}): the container ends"
            );
            return Ok(ExitCode::FAILURE);
        }
        println!("guard | the agent died ({status}) and is started again");
    }
}

fn pass_on(agent: &Child) {
    let pid = agent.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = kill_process(pid, Signal::TERM);
    }
}

fn code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}
