//! The programs of the mesh: where they run, how they are called, and whether they are new enough.

use std::fs::DirBuilder;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::settings::Settings;
use super::state::Node;
use super::users::{self, Owner};
use crate::mesh::tailscaled::command::{Daemon, Login};
use crate::mesh::tailscaled::{KeyFile, STATE_FILE, version};
use crate::model::memory::tailscaled_memory;
use crate::process::Program;

/// Major and minor number of the oldest tailscaled that will do. Older ones do not know
/// `TS_NETSTACK_KEEPALIVE_IDLE`: they keep connections of peers that died open for two hours, until
/// there are too many of them.
const OLDEST: (u32, u32) = (1, 98);

/// tailscaled is not one that this agent can work with.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// It is too old.
    #[error(
        "{program} is of version {found}, and a node needs {}.{} or newer, because older ones keep connections to dead peers open for hours; use the image of `node.image`",
        OLDEST.0, OLDEST.1
    )]
    Old {
        /// The program.
        program: PathBuf,
        /// What it said.
        found: String,
    },
    /// It did not say.
    #[error(
        "{program} does not say its version ({detail}), so it may be no tailscaled at all; use the image of `node.image`"
    )]
    Silent {
        /// The program.
        program: PathBuf,
        /// What was seen.
        detail: String,
    },
}

/// Makes sure that this tailscaled is new enough.
pub async fn check_version(tailscaled: &Path) -> Result<(), VersionError> {
    let silent = |detail: String| VersionError::Silent { program: tailscaled.to_owned(), detail };
    let found = version(tailscaled).await.map_err(silent)?;
    match numbers(&found) {
        None => Err(silent(format!("it said {found:?}"))),
        Some(numbers) if numbers < OLDEST => {
            Err(VersionError::Old { program: tailscaled.to_owned(), found })
        }
        Some(_) => Ok(()),
    }
}

/// Major and minor number. What follows them differs from build to build.
fn numbers(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Where and as whom tailscaled runs.
#[derive(Clone, Debug)]
pub struct TailscaledInstance {
    /// Its state; outlives the container where there is a volume.
    pub state_dir: PathBuf,
    /// Of its socket.
    pub socket_dir: PathBuf,
    /// Scratch, for the key file, which only the agent reads.
    pub run_dir: PathBuf,
    /// User and group it runs as, when that is not the agent's.
    pub run_as: Option<Owner>,
}

impl TailscaledInstance {
    /// Makes the directories and gives them to its user.
    pub fn prepare(&self) -> io::Result<()> {
        for dir in [&self.state_dir, &self.socket_dir] {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
            users::give(dir, self.run_as)?;
        }
        Ok(())
    }

    /// The pipe that it prints to.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.run_dir.join("tailscaled.out")
    }

    /// It was logged in before.
    #[must_use]
    pub fn used_before(&self) -> bool {
        self.state_dir.join(STATE_FILE).exists()
    }

    /// tailscaled, as this node starts it.
    #[must_use]
    pub fn daemon(&self, settings: &Settings, container_bytes: u64) -> Program {
        let socks5 = SocketAddr::from((Ipv4Addr::LOCALHOST, settings.socks_port));
        let socket = settings.mesh_socket();
        let daemon = Daemon { state_dir: &self.state_dir, socket: &socket, socks5 };
        let log = settings.outlives_agent.then(|| self.log());
        let program = daemon.program_with(&settings.tailscaled, tailscaled_memory(container_bytes));
        Program { run_as: self.run_as, log, ..program }
    }

    /// Puts the auth key where a login reads it.
    pub fn write_key(&self, node: &Node) -> io::Result<KeyFile> {
        KeyFile::write(self.run_dir.join("auth-key"), &node.identity.auth_key.as_str().into())
    }
}

/// The login, with this key or by the kept state.
#[must_use]
pub fn login(node: &Node, key: Option<&KeyFile>) -> Program {
    let login = Login {
        socket: &node.settings.mesh_socket(),
        login_server: node.identity.login_server.as_deref(),
        key_file: key.map(KeyFile::path),
        hostname: &node.identity.hostname,
    };
    login.program(&node.settings.tailscale)
}

/// Has tailscaled hand connections to the port of Redis over by its own proxy. Done twice it
/// changes nothing.
#[must_use]
pub fn serve(settings: &Settings) -> Program {
    let args = [
        format!("--socket={}", settings.mesh_socket().display()),
        "serve".to_owned(),
        // Without it the command would stay in the foreground, and the setting would end with it.
        "--bg".to_owned(),
        format!("--tcp={}", settings.master_port),
        format!("127.0.0.1:{}", settings.redis_port),
    ];
    Program {
        program: settings.tailscale.clone(),
        args: args.map(Into::into).to_vec(),
        ..Program::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number_whatever_follows_them() {
        for (text, wanted) in [
            ("1.98.0", Some((1, 98))),
            ("1.102.5-ERR-BuildInfo", Some((1, 102))),
            ("1.103.12-t1a2b3c", Some((1, 103))),
            ("2.0", Some((2, 0))),
            ("1", None),
            ("tailscaled", None),
            ("", None),
        ] {
            assert_eq!(numbers(text), wanted, "{text:?}");
        }
        assert!(numbers("1.102.5") > Some(OLDEST) && numbers("1.96.4") < Some(OLDEST));
    }

    #[tokio::test]
    async fn what_is_no_tailscaled_is_refused() {
        let error = check_version(Path::new("/bin/true")).await.unwrap_err();
        assert!(error.to_string().starts_with("/bin/true does not say its version"), "{error}");
        let error = check_version(Path::new("/nowhere/tailscaled")).await.unwrap_err();
        assert!(matches!(error, VersionError::Silent { .. }), "{error}");
    }
}
