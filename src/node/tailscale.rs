//! The programs of the mesh: where they live, how they are called, and whether they are new enough.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::settings::Settings;
use super::state::Node;
use super::supervisor::Program;
use super::users::{self, Owner};
use crate::mesh::daemon::{DAEMON_ENV, Daemon, Login};

/// Major and minor number of the oldest tailscaled that will do. Older ones do not know
/// `TS_NETSTACK_KEEPALIVE_IDLE`: they keep connections of peers that died open for two hours, until
/// there are too many of them.
const OLDEST: (u32, u32) = (1, 98);
/// tailscaled says its version at once; a machine that is this slow cannot run a node.
const VERSION: Duration = Duration::from_secs(20);

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
    let asked =
        Command::new(tailscaled).arg("--version").stdin(Stdio::null()).kill_on_drop(true).output();
    let output = match timeout(VERSION, asked).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(silent(error.to_string())),
        Err(_) => return Err(silent(format!("no answer in {} s", VERSION.as_secs()))),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    let found = said.lines().next().unwrap_or_default().trim();
    match version(found) {
        None => Err(silent(format!("it said {found:?}"))),
        Some(version) if version < OLDEST => {
            Err(VersionError::Old { program: tailscaled.to_owned(), found: found.to_owned() })
        }
        Some(_) => Ok(()),
    }
}

/// Major and minor number. What follows them differs from build to build.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Where tailscaled lives.
#[derive(Clone, Debug)]
pub struct MeshPlace {
    /// Its state; outlives the container where there is a volume.
    pub state_dir: PathBuf,
    /// Of its socket.
    pub socket_dir: PathBuf,
    /// Scratch, for the key file, which only the agent reads.
    pub run_dir: PathBuf,
    /// User and group it runs as, when that is not the agent's.
    pub run_as: Option<Owner>,
}

impl MeshPlace {
    /// Makes the directories and gives them to its user.
    pub fn prepare(&self) -> io::Result<()> {
        for dir in [&self.state_dir, &self.socket_dir] {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
            users::give(dir, self.run_as)?;
        }
        Ok(())
    }

    /// It was logged in before.
    #[must_use]
    pub fn used_before(&self) -> bool {
        self.state_dir.join("tailscaled.state").exists()
    }

    /// The daemon.
    #[must_use]
    pub fn daemon(&self, settings: &Settings) -> Program {
        let socks5 = SocketAddr::from((Ipv4Addr::LOCALHOST, settings.socks_port));
        let socket = settings.mesh_socket();
        Program {
            source: "tailscaled",
            program: settings.tailscaled.clone(),
            args: Daemon { state_dir: &self.state_dir, socket: &socket, socks5 }.arguments(),
            env: DAEMON_ENV.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec(),
            run_as: self.run_as,
        }
    }

    fn key_file(&self) -> PathBuf {
        self.run_dir.join("auth-key")
    }

    /// Takes the key off the disk again.
    pub fn forget_key(&self) {
        let _ = fs::remove_file(self.key_file());
    }

    /// The login; it ends by itself after 30 s.
    pub fn login(&self, node: &Node, with_key: bool) -> io::Result<Program> {
        let file = self.key_file();
        if with_key {
            self.forget_key();
            File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&file)?
                .write_all(node.identity.auth_key.as_bytes())?;
        }
        let login = Login {
            socket: &node.settings.mesh_socket(),
            login_server: node.identity.login_server.as_deref(),
            key_file: with_key.then_some(file.as_path()),
            hostname: &node.identity.hostname,
        };
        Ok(client(&node.settings, login.arguments()))
    }
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
    client(settings, args.map(Into::into).to_vec())
}

fn client(settings: &Settings, args: Vec<OsString>) -> Program {
    Program {
        source: "tailscaled",
        program: settings.tailscale.clone(),
        args,
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
            assert_eq!(version(text), wanted, "{text:?}");
        }
        assert!(version("1.102.5") > Some(OLDEST) && version("1.96.4") < Some(OLDEST));
    }

    #[tokio::test]
    async fn what_is_no_tailscaled_is_refused() {
        let error = check_version(Path::new("/bin/true")).await.unwrap_err();
        assert!(error.to_string().starts_with("/bin/true does not say its version"), "{error}");
        let error = check_version(Path::new("/nowhere/tailscaled")).await.unwrap_err();
        assert!(matches!(error, VersionError::Silent { .. }), "{error}");
    }
}
