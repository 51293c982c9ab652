//! One container: a process tree in fresh network, mount and process namespaces with its own root,
//! `/run`, `/proc` and hosts file.

use std::ffi::OsString;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::logs::{Log, read_line};
use crate::devnet::net::{Net, NetError};

/// Builds the inside of a container.
const SCRIPT: &str = include_str!("node.sh");
/// What a container runtime leaves a process that runs as root.
const CAPABILITIES: &str = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+sys_chroot,+setfcap";
/// Namespaces, mounts and addresses take some ten milliseconds.
const START: Duration = Duration::from_secs(20);

/// The container could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// `unshare` is missing or may not.
    #[error(
        "the container cannot be started ({0}); util-linux is needed, and root of an own user namespace"
    )]
    Spawn(#[source] std::io::Error),
    /// Its inside could not be built; the log has the reason.
    #[error("the inside of the container cannot be built; its log says why")]
    Inside,
    /// Its network could not be plugged in.
    #[error(transparent)]
    Net(#[from] NetError),
}

/// An unpacked image, which a container runs instead of this machine's own programs.
#[derive(Clone, Debug)]
pub struct ImageRoot {
    /// Its files. Containers write to a layer above, which is gone with them.
    pub dir: PathBuf,
    /// What it runs.
    pub entry_point: Vec<OsString>,
    /// Variables that it sets.
    pub env: Vec<(OsString, OsString)>,
}

/// What to start.
pub struct Plan<'a> {
    /// Holds `root`, `hosts` and `data` of this container.
    pub dir: &'a Path,
    /// Files of the image; none: this machine's own.
    pub image: Option<&'a Path>,
    /// Volumes, `name:/mountpoint` separated by blanks.
    pub volumes: String,
    /// Its address.
    pub node: Ipv4Addr,
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// All of its environment.
    pub env: Vec<(OsString, OsString)>,
}

/// A running container. Dropped, it dies.
pub struct Container {
    child: Child,
    pid: u32,
}

impl Container {
    /// Starts it; returns once its network is plugged in and its command is about to run.
    pub async fn start(plan: Plan<'_>, net: &Net, log: &Arc<Log>) -> Result<Self, ContainerError> {
        let mut child = command(&plan).spawn().map_err(ContainerError::Spawn)?;
        let (Some(pid), Some(mut input), Some(output), Some(errors)) =
            (child.id(), child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(ContainerError::Inside);
        };
        let mut output = BufReader::new(output);
        let copy = log.clone();
        tokio::spawn(async move { copy.drain(BufReader::new(errors)).await });
        match timeout(START, read_line(&mut output)).await {
            Ok(Some(line)) if line == "ready" => {}
            _ => return Err(ContainerError::Inside),
        }
        net.plug(plan.node, pid).await?;
        input.write_all(b"go\n").await.map_err(ContainerError::Spawn)?;
        let copy = log.clone();
        tokio::spawn(async move { copy.drain(output).await });
        Ok(Self { child, pid })
    }

    /// Its outermost process, which holds its namespaces.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for its end, and says how it ended.
    pub async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// SIGTERM to its first process.
    pub fn ask_to_stop(&self) {
        for pid in first_process(self.pid).into_iter().filter_map(raw) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Ends every process of it, whatever it does, and waits until they are gone.
    pub async fn kill(&mut self) {
        // The first process of a process namespace takes all others with it.
        for pid in first_process(self.pid).into_iter().filter_map(raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.child.kill().await;
    }
}

fn command(plan: &Plan<'_>) -> Command {
    let mut command = Command::new("unshare");
    command.args([
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--",
        "sh",
        "-c",
        SCRIPT,
        "node",
    ]);
    let root = plan.dir.join("root");
    command.arg(&root).arg(plan.image.unwrap_or(Path::new("")));
    command.args([plan.dir.join("hosts"), plan.dir.join("data")]);
    command.arg(&plan.volumes).args([plan.node, Net::GATEWAY].map(|address| address.to_string()));
    if let Some(setpriv) = find("setpriv") {
        command.arg(setpriv).args(["--no-new-privs", "--bounding-set", CAPABILITIES, "--"]);
    }
    command.arg("chroot").arg(root);
    // An image brings its own.
    if let Some(tini) = find("tini").filter(|_| plan.image.is_none()) {
        command.arg(tini).args(["-g", "--"]);
    }
    command.args(&plan.command).env_clear().envs(plan.env.iter().map(|(key, value)| (key, value)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// A program on the PATH.
fn find(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

fn raw(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// The child of the outermost process.
fn first_process(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Processes with this name in the process namespace that `outermost` made.
#[must_use]
pub fn processes(outermost: u32, name: &str) -> Vec<u32> {
    let Ok(inside) = fs::read_link(format!("/proc/{outermost}/ns/pid_for_children")) else {
        return Vec::new();
    };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let here = fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|ns| ns == inside);
        here && fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|comm| comm.trim_end() == name)
    })
    .collect()
}
