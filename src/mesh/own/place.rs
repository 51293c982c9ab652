//! The directory of the operator's tailscaled, held by one operator at a time, and what an earlier
//! operator left running in it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::process::Pid;
use tokio::net::{TcpSocket, UnixStream};
use tokio::process::Command;
use tokio::time::timeout;

use super::OwnSettings;
use super::process::Adopted;
use crate::mesh::daemon::SOCKS5_FLAG;
use crate::mesh::local::LocalClient;

/// Printing a version takes no longer.
const VERSION_LIMIT: Duration = Duration::from_secs(5);
/// Name of tailscaled's own file.
const STATE_FILE: &str = "tailscaled.state";

/// Why the operator cannot run a tailscaled of its own.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// The directory cannot be made or written.
    #[error(
        "{path} cannot be used ({source}), so the operator's tailscaled has no place for its state; correct `mesh.tailscaled.stateDir`"
    )]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another operator has it.
    #[error(
        "{path} is in use by another operator, and two of them cannot be one device; give each its own `mesh.tailscaled.stateDir`"
    )]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// No port on loopback.
    #[error(
        "no port on 127.0.0.1 can be had ({0}), so nodes cannot be reached through the operator's tailscaled; look at what uses them up"
    )]
    Port(std::io::Error),
    /// The program is not there, or does not run.
    #[error(
        "{program} does not run ({detail}), so the operator is not on the mesh; install tailscale, or correct `mesh.tailscaled.program`"
    )]
    Program {
        /// Which.
        program: PathBuf,
        /// What was seen.
        detail: String,
    },
    /// No client for its LocalAPI.
    #[error(transparent)]
    Local(#[from] crate::mesh::local::LocalError),
}

/// The directory, locked.
#[derive(Debug)]
pub(super) struct Place {
    dir: PathBuf,
    _lock: File,
}

impl Place {
    pub(super) fn take(dir: &Path) -> Result<Self, OwnError> {
        let unusable = |source| OwnError::Directory { path: dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(unusable)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(dir.join("operator.lock"));
        let lock = lock.map_err(unusable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { dir: dir.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(OwnError::InUse { path: dir.to_owned() }),
            Err(error) => Err(unusable(error.into())),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn socket(&self) -> PathBuf {
        socket(&self.dir)
    }

    /// Holds an auth key for the moment of a login.
    pub(super) fn key_file(&self) -> PathBuf {
        self.dir.join("auth-key")
    }

    /// Id of a key that was minted and perhaps never used: a later process revokes it.
    pub(super) fn key_id_file(&self) -> PathBuf {
        self.dir.join("auth-key.id")
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("tailscaled.sock")
}

/// A port on loopback that is kept for tailscaled.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) address: SocketAddr,
    /// Bound and never listened on: the system gives the port to nobody, and tailscaled, which
    /// shares addresses too, can listen on it.
    held: Option<TcpSocket>,
}

impl Port {
    pub(super) fn any() -> Result<Self, OwnError> {
        let socket = hold(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).map_err(OwnError::Port)?;
        let address = socket.local_addr().map_err(OwnError::Port)?;
        Ok(Self { address, held: Some(socket) })
    }

    /// The port of a tailscaled that listens on it already.
    pub(super) fn of(address: SocketAddr) -> Self {
        Self { address, held: None }
    }

    /// Before tailscaled starts anew. Where it fails somebody was faster, and tailscaled's own
    /// words tell.
    pub(super) fn keep(&mut self) {
        if self.held.is_none() {
            self.held = hold(self.address).ok();
        }
    }
}

fn hold(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// The process that listens on this unix socket.
pub(super) async fn listener(socket: &Path) -> Option<Pid> {
    let stream = UnixStream::connect(socket).await.ok()?;
    stream.peer_cred().ok()?.pid().and_then(Pid::from_raw)
}

/// A tailscaled that an earlier operator left behind, and the proxy that it serves. One whose proxy
/// is not known is of no use.
pub(super) async fn left_behind(place: &Place) -> Option<(Adopted, SocketAddr)> {
    let socket = place.socket();
    let pid = listener(&socket).await?;
    let arguments = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).ok()?;
    let socks5 = proxy_of(&arguments)?;
    Some((Adopted { pid, socket }, socks5))
}

/// The proxy in a command line as the kernel shows it.
fn proxy_of(arguments: &[u8]) -> Option<SocketAddr> {
    let mut words = arguments.split(|byte| *byte == 0);
    words.find_map(|word| std::str::from_utf8(word).ok()?.strip_prefix(SOCKS5_FLAG)?.parse().ok())
}

/// What `--check` can say of it without starting or changing anything; the error is a sentence.
pub async fn found(settings: &OwnSettings) -> Result<String, String> {
    let version = version(&settings.program).await.map_err(|error| error.to_string())?;
    let _ = self::version(&settings.cli()).await.map_err(|error| error.to_string())?;
    let socket = socket(&settings.state_dir);
    if listener(&socket).await.is_some() {
        let status = LocalClient::new(&socket)
            .map_err(|e| e.to_string())?
            .status()
            .await
            .map_err(|e| e.to_string())?;
        let peers = status.peer.map_or(0, |peers| peers.len());
        return match status.backend_state.as_str() {
            "Running" => {
                Ok(format!("the operator's tailscaled {version} runs and sees {peers} peers"))
            }
            other => Err(format!(
                "the operator's tailscaled {version} runs and is not on the mesh ({other}); its log says why"
            )),
        };
    }
    if settings.state_dir.join(STATE_FILE).exists() {
        return Ok(format!("tailscaled {version}, logged in before: no key is needed"));
    }
    usable(&settings.state_dir)?;
    Ok(format!(
        "tailscaled {version}, not logged in yet: a key with {} is minted at the start",
        settings.tag
    ))
}

/// Whether the directory could be made, or is there and ours to write.
fn usable(dir: &Path) -> Result<(), String> {
    let existing = dir.ancestors().find(|path| path.exists()).unwrap_or(dir);
    rustix::fs::access(existing, rustix::fs::Access::WRITE_OK).map_err(|error| {
        OwnError::Directory { path: dir.to_owned(), source: error.into() }.to_string()
    })
}

/// First line of `--version`, or why there is none.
async fn version(program: &Path) -> Result<String, OwnError> {
    let failed = |detail: String| OwnError::Program { program: program.to_owned(), detail };
    let run = Command::new(program)
        .arg("--version")
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let output =
        timeout(VERSION_LIMIT, run).await.map_err(|_| failed("no end in time".to_owned()))?;
    let output = output.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(output.status.to_string()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_one_operators() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let first = Place::take(&path).unwrap();
        assert!(matches!(Place::take(&path), Err(OwnError::InUse { .. })));
        drop(first);
        assert!(Place::take(&path).is_ok());
    }

    #[tokio::test]
    async fn a_port_that_is_kept_can_be_listened_on_by_who_shares_addresses() {
        let port = Port::any().unwrap();
        let daemon = hold(port.address).unwrap();
        let _listening = daemon.listen(8).unwrap();
        assert!(std::net::TcpStream::connect(port.address).is_ok());
    }

    #[test]
    fn the_proxy_is_read_from_the_command_line() {
        let line = b"/usr/sbin/tailscaled\0--tun=userspace-networking\0--socks5-server=127.0.0.1:40123\0--statedir=/d\0";
        assert_eq!(proxy_of(line), "127.0.0.1:40123".parse().ok());
        assert_eq!(proxy_of(b"tailscaled\0"), None);
    }

    #[tokio::test]
    async fn a_check_names_a_program_that_is_not_there_and_makes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let settings = OwnSettings {
            state_dir: dir.path().join("new"),
            program: "/nowhere/tailscaled".into(),
            login_server: None,
            tag: "tag:operator".into(),
            installation: crate::model::ids::InstallationId("abc123".into()),
        };
        let sentence = found(&settings).await.unwrap_err();
        assert!(
            sentence.contains("/nowhere/tailscaled")
                && sentence.contains("mesh.tailscaled.program"),
            "{sentence}"
        );
        assert!(!settings.state_dir.exists());
    }
}
