//! How the operator itself gets onto the mesh: through a tailscaled that it runs, logged in with a
//! key that it mints itself, or through the proxy of one that somebody else runs.
//!
//! Promises: a restart with kept state uses no key; a tailscaled that outlived a killed operator is
//! taken up again with its connections and its network map; a key that was not used is revoked;
//! nothing waits without a limit.

mod check;
mod login;
mod operator_tailscaled;
mod socks_port;
mod state_dir;
mod status;

pub use check::check;
pub use operator_tailscaled::OperatorTailscaled;
pub use status::{AccessStatus, watch_proxy};

use std::path::PathBuf;

use crate::model::ids::InstallationId;

/// How the operator's tailscaled is run.
#[derive(Clone, Debug)]
pub struct AccessSettings {
    /// Its state, its socket, and our few files beside them.
    pub state_dir: PathBuf,
    /// `tailscaled`; `tailscale` is looked for beside it.
    pub program: PathBuf,
    /// Control server, when it is not Tailscale's own.
    pub login_server: Option<String>,
    /// Tag of its device.
    pub tag: String,
    /// Whose operator it is.
    pub installation: InstallationId,
}

impl AccessSettings {
    /// Host name of its device: it ends in the installation id, as those of the nodes do.
    #[must_use]
    pub fn hostname(&self) -> String {
        format!("akash-redis-operator-{}", self.installation)
    }

    /// Description of its auth key. It does not begin as those of the nodes do, so it is never
    /// taken for one of theirs.
    #[must_use]
    pub fn key_description(&self) -> String {
        format!("ar-operator {}", self.installation)
    }

    /// The program that logs it in.
    #[must_use]
    pub fn cli(&self) -> PathBuf {
        self.program.with_file_name("tailscale")
    }
}

/// Why the operator cannot run a tailscaled of its own.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The directory cannot be made or written.
    #[error(
        "{path} cannot be used ({source}), so the state of the operator's tailscaled cannot be kept; correct `mesh.tailscaled.stateDir`"
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::IncarnationName;

    #[test]
    fn the_operators_device_and_key_are_known_as_ours_and_not_taken_for_a_nodes() {
        let installation = InstallationId("e9gjv3".into());
        let settings = AccessSettings {
            state_dir: "/d".into(),
            program: "/opt/tailscaled".into(),
            login_server: None,
            tag: "tag:operator".into(),
            installation: installation.clone(),
        };
        assert_eq!(settings.hostname(), "akash-redis-operator-e9gjv3");
        assert_eq!(
            IncarnationName::from_key_description(&settings.key_description(), &installation),
            None
        );
        assert!(
            settings.key_description().len() <= 50 && settings.key_description().contains("e9gjv3")
        );
        assert_eq!(settings.cli(), PathBuf::from("/opt/tailscale"));
    }
}
