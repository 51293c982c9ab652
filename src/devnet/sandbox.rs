//! A place of its own for the local market: user, network, mount and process namespaces that vanish
//! with their first process.
//!
//! The command runs itself again inside. A pipe ties the two together: when the outer process is
//! gone, however it ended, the inner one sees the pipe's end and goes too, and with it every
//! process in the sandbox, because it is the first one there.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{PipeWriter, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::net::{Net, NetError};
use super::tool::{self, ToolError};

/// Number of the inherited end of the pipe; set inside only.
const LIFELINE: &str = "AKASH_REDIS_SANDBOX";
/// Makes root the only user inside.
const USER_NAMESPACE: [&str; 2] = ["--user", "--map-root-user"];
const NAMESPACES: [&str; 6] =
    ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
/// Everything private lives here: it exists on every machine, and no program of ours uses what it
/// hides.
const PRIVATE: &str = "/dev/shm";
/// There is no way out of the sandbox, so a proxy outside is of no use.
const PROXY_VARIABLES: [&str; 8] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
];
const TOOLS: [(&str, &str); 4] =
    [("unshare", "util-linux"), ("nsenter", "util-linux"), ("mount", "mount"), ("ip", "iproute2")];
/// After this time an end that was asked for is enforced.
const GRACE: Duration = Duration::from_secs(20);
/// A byte on the pipe: please end.
const END: u8 = b'.';

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A program is not installed.
    #[error(
        "`{tool}` is not installed, so the local market cannot build its private network; install the package {package}"
    )]
    MissingTool {
        /// Its name.
        tool: &'static str,
        /// Where it comes from.
        package: &'static str,
    },
    /// The kernel said no.
    #[error(
        "user namespaces are not allowed here ({detail}), so the local market cannot be kept apart from this machine; allow them (sysctl \
         kernel.unprivileged_userns_clone=1, on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0), or run in a container that may make them"
    )]
    NotAllowed {
        /// What `unshare` said.
        detail: String,
    },
    /// A step inside failed.
    #[error("{0} inside the sandbox, so the local market has no files of its own")]
    Tool(#[from] ToolError),
    /// Its network could not be made.
    #[error(transparent)]
    Net(#[from] NetError),
    /// Users could not be brought in.
    #[error(
        "only root of this machine can make a sandbox in which there are more users than root ({0}); start this as root"
    )]
    Users(#[source] std::io::Error),
    /// The sandbox's process could not be started or awaited.
    #[error("the sandbox cannot be started")]
    Start(#[source] std::io::Error),
    /// The pipe to the outer process is not there.
    #[error("this process was not started by `sandbox::enter`; unset {LIFELINE} and start again")]
    NotInside,
    /// A private file could not be written.
    #[error("{path} cannot be written inside the sandbox")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Whether this process runs in a sandbox.
#[must_use]
pub fn inside() -> bool {
    env::var_os(LIFELINE).is_some()
}

/// Runs this very program with `arguments` inside a new sandbox and waits for it. On SIGTERM or
/// SIGINT the inner process is asked to end (see [`Sandbox::stop`]) and has 20 s for it.
pub async fn enter(arguments: &[OsString]) -> Result<ExitCode, SandboxError> {
    enter_with(Users::Root, arguments).await
}

/// Who there is inside a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Users {
    /// Root alone. Everybody may make such a sandbox.
    Root,
    /// As many as in a container, so that programs can run as users of their own. Only root may
    /// make such a sandbox.
    Many,
}

/// [`enter`], into a sandbox with these users.
pub async fn enter_with(users: Users, arguments: &[OsString]) -> Result<ExitCode, SandboxError> {
    contain(users, arguments).await.map(ExitCode::from)
}

async fn contain(users: Users, arguments: &[OsString]) -> Result<u8, SandboxError> {
    check_tools(env::var_os("PATH").unwrap_or_default().as_os_str())?;
    check_allowed().await?;
    let program = env::current_exe().map_err(SandboxError::Start)?;
    let (reader, lifeline) = std::io::pipe().map_err(SandboxError::Start)?;
    // The number alone reaches the inner process, which opens the pipe by it.
    fcntl_setfd(&reader, FdFlags::empty()).map_err(|error| SandboxError::Start(error.into()))?;
    let mut command = Command::new("unshare");
    match users {
        Users::Root => command.args(USER_NAMESPACE),
        Users::Many => command.args(users::MAPPED_FROM_OUTSIDE),
    };
    command
        .args(NAMESPACES)
        .arg("--")
        .arg(program)
        .args(arguments)
        .env(LIFELINE, std::os::fd::AsRawFd::as_raw_fd(&reader).to_string());
    for variable in PROXY_VARIABLES {
        command.env_remove(variable);
    }
    let mut child = command.kill_on_drop(true).spawn().map_err(SandboxError::Start)?;
    drop(reader);
    if users == Users::Many {
        users::map(&child).await.map_err(SandboxError::Users)?;
    }
    let status = attend(&mut child, lifeline).await.map_err(SandboxError::Start)?;
    Ok(exit_code(status))
}

/// Waits for the end; `unshare` itself is deaf to SIGTERM and SIGINT, so they are passed on over
/// the pipe.
async fn attend(child: &mut Child, mut lifeline: PipeWriter) -> std::io::Result<ExitStatus> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    tokio::select! {
        status = child.wait() => return status,
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    // One byte never fills a pipe; when nobody reads it any more the end is near anyway.
    let _ = lifeline.write_all(&[END]);
    if let Ok(status) = timeout(GRACE, child.wait()).await {
        return status;
    }
    child.start_kill()?;
    child.wait().await
}

fn exit_code(status: ExitStatus) -> u8 {
    status
        .code()
        .or(status.signal().map(|signal| 128 + signal))
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1)
}

fn check_tools(path: &std::ffi::OsStr) -> Result<(), SandboxError> {
    let installed = |tool: &str| env::split_paths(path).any(|dir| dir.join(tool).is_file());
    match TOOLS.iter().find(|(tool, _)| !installed(tool)) {
        Some(&(tool, package)) => Err(SandboxError::MissingTool { tool, package }),
        None => Ok(()),
    }
}

async fn check_allowed() -> Result<(), SandboxError> {
    let arguments: Vec<&str> =
        USER_NAMESPACE.into_iter().chain(NAMESPACES).chain(["--", "true"]).collect();
    tool::run("unshare", &arguments)
        .await
        .map_err(|error| SandboxError::NotAllowed { detail: error.detail })
}

/// The inside of a sandbox that is ready for use.
#[derive(Debug)]
pub struct Sandbox {
    /// A private directory in memory, with a short path, gone with the sandbox.
    pub dir: PathBuf,
    /// Cancelled on SIGTERM, on SIGINT, and when the outer process asks.
    pub stop: CancellationToken,
}

impl Sandbox {
    /// Makes the network and the private files; call it once, first thing inside.
    ///
    /// From here on this process ends when the outer one is gone.
    pub async fn set_up() -> Result<Self, SandboxError> {
        let stop = CancellationToken::new();
        hold_lifeline(stop.clone())?;
        cancel_on_signals(stop.clone()).map_err(SandboxError::Start)?;
        tool::run("mount", &["-t", "tmpfs", "-o", "mode=0755", "tmpfs", PRIVATE]).await?;
        cover("/etc/hosts", "hosts", "127.0.0.1 localhost\n::1 localhost\n").await?;
        // No name server: a name that is in no file fails at once instead of waiting for somebody
        // far away.
        cover("/etc/resolv.conf", "resolv.conf", "options timeout:1 attempts:1\n").await?;
        Net::set_up_bridge().await?;
        Ok(Self { dir: PathBuf::from(PRIVATE), stop })
    }
}

/// Watches the pipe on a thread of its own, which no busy runtime can hold up.
fn hold_lifeline(stop: CancellationToken) -> Result<(), SandboxError> {
    let number: u32 = env::var(LIFELINE)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(SandboxError::NotInside)?;
    let mut pipe =
        File::open(format!("/proc/self/fd/{number}")).map_err(|_| SandboxError::NotInside)?;
    let watch = move || {
        let mut byte = [0];
        while matches!(pipe.read(&mut byte), Ok(1)) {
            stop.cancel();
        }
        // The first process of the sandbox takes all others with it.
        std::process::exit(1);
    };
    std::thread::Builder::new()
        .name("lifeline".to_owned())
        .spawn(watch)
        .map_err(SandboxError::Start)?;
    Ok(())
}

/// As the first process of its namespace this one gets no signal that it does not ask for.
fn cancel_on_signals(stop: CancellationToken) -> std::io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}

/// Puts a private file over one of the machine's.
async fn cover(path: &str, name: &str, text: &str) -> Result<(), SandboxError> {
    let private = Path::new(PRIVATE).join(name);
    std::fs::write(&private, text)
        .map_err(|source| SandboxError::File { path: private.clone(), source })?;
    // The machine's may be a link to a place that a mount cannot follow by itself.
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path));
    tool::run("mount", &["--bind", &private.to_string_lossy(), &target.to_string_lossy()]).await?;
    Ok(())
}

mod users;

#[cfg(test)]
mod tests;
