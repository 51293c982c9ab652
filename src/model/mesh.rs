//! What the tailnet's control API says.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, EnumString};

use super::time::UnixMs;

/// An auth key can be used for so long: it is minted before anything is bought, so this covers the
/// bids, the manifest, the start and the first login.
pub const KEY_LIFE: Duration = Duration::from_hours(1);

/// Devices and keys of this installation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshView {
    /// Devices whose host name carries our installation id, and those that our nodes reported.
    pub devices: Vec<Device>,
    /// Auth keys whose description carries our installation id.
    pub keys: Vec<AuthKey>,
    /// These are all of them: none could not be looked at for want of time.
    pub all_keys: bool,
}

impl MeshView {
    /// The devices of one node: the one that its agent reported, and whatever else has its host
    /// name and one of `tags`, which only our keys give. A stranger's device may have taken the
    /// host name; it is none of ours.
    #[must_use]
    pub fn devices_of(
        &self,
        hostname: &str,
        reported: Option<&str>,
        tags: [&str; 2],
    ) -> Vec<&Device> {
        let tagged = |d: &Device| d.tags.iter().any(|t| tags.contains(&t.as_str()));
        self.devices
            .iter()
            .filter(|d| reported == Some(d.id.as_str()) || (d.hostname == hostname && tagged(d)))
            .collect()
    }
}

/// A device on the tailnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The API's `nodeId`, the LocalAPI's `Self.ID`.
    pub id: String,
    /// Host name it asked for; empty when that is no DNS name.
    pub hostname: String,
    /// What it is called now, an FQDN without trailing dot or its first label alone, as the server
    /// says; it may be renamed at any time.
    pub name: String,
    /// Its 100.x address; empty when it has none. Some servers give it to another device once this
    /// one is gone.
    pub ip: String,
    /// Tags in force.
    pub tags: Vec<String>,
    /// Registration time, when the API gives one.
    pub created: Option<UnixMs>,
    /// Its node key is in use from two places at once: its state was copied.
    pub multiple_connections: bool,
    /// The tailnet is locked, and nobody has signed its key: no other device hears it.
    pub unsigned: bool,
}

/// An auth key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthKey {
    /// The API's key id.
    pub id: String,
    /// Our description.
    pub description: String,
    /// Used up, revoked or expired.
    pub invalid: bool,
}

/// What a tailscaled does, by its own word.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Display, EnumIter, EnumString, Serialize, Deserialize,
)]
#[serde(from = "String", into = "String")]
pub enum BackendState {
    /// It has not said anything yet.
    #[default]
    NoState,
    /// It is not logged in.
    NeedsLogin,
    /// An admin has to approve the device.
    NeedsMachineAuth,
    /// Told to be off the mesh.
    Stopped,
    /// Logged in, and without a network map yet.
    Starting,
    /// On the mesh; its network map can be believed.
    Running,
    /// It does not answer: the agent's word, not its own.
    Down,
    /// A word of another version.
    #[strum(default)]
    Other(String),
}

impl From<String> for BackendState {
    fn from(word: String) -> Self {
        if word.is_empty() { Self::NoState } else { word.parse().unwrap_or_default() }
    }
}

impl From<BackendState> for String {
    fn from(state: BackendState) -> Self {
        state.to_string()
    }
}

/// How the operator itself stands on the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnMesh {
    /// Why it is not on the mesh, one sentence; none when it is, or when nobody can tell.
    pub error: Option<String>,
    /// Since when it is on the mesh, or off it.
    pub since: UnixMs,
    /// Address by host name of the peers that its tailscaled last saw.
    pub peers: BTreeMap<String, String>,
    /// The same by device id, which a rename does not change.
    pub by_id: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator as _;

    use super::*;

    #[test]
    fn a_word_of_tailscaled_is_read_as_it_is_written() {
        for state in BackendState::iter().filter(|state| !matches!(state, BackendState::Other(_))) {
            assert_eq!(BackendState::from(state.to_string()), state);
        }
        assert_eq!(BackendState::from(String::new()), BackendState::NoState);
        let other = BackendState::from("InUseOtherUser".to_owned());
        assert_eq!(other, BackendState::Other("InUseOtherUser".into()));
        assert_eq!(other.to_string(), "InUseOtherUser");
    }
}
