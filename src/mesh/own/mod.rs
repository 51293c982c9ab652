//! The operator's own tailscaled: started by it, kept running, logged in with a key that it mints
//! itself.
//!
//! Promises: a restart with kept state uses no key; a tailscaled that outlived a killed operator is
//! taken up again with its connections and its network map; a key that was not used is revoked;
//! nothing waits without a limit.

mod facts;
mod keeper;
mod login;
mod place;
mod process;

pub use facts::{Facts, watch_proxy};
pub use keeper::Keeper;
pub use place::{OwnError, found};

use std::path::PathBuf;

use crate::model::ids::InstallationId;

/// How the operator's tailscaled is run.
#[derive(Clone, Debug)]
pub struct OwnSettings {
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

impl OwnSettings {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::IncarnationName;

    #[test]
    fn the_operators_device_and_key_are_known_as_ours_and_not_taken_for_a_nodes() {
        let installation = InstallationId("e9gjv3".into());
        let settings = OwnSettings {
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
