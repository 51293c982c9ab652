//! Names of the things we own, and how they are spelled in the outside world.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Marks everything of one installation: six characters derived from the root secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstallationId(pub String);

impl fmt::Display for InstallationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One attempt to fill a node: `cache-0-x7k2` (cluster, ordinal, random suffix). Never used twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IncarnationName(pub String);

impl IncarnationName {
    /// Puts the parts together; `suffix` is four characters of `a-z2-9`.
    #[must_use]
    pub fn new(cluster: &str, ordinal: u32, suffix: &str) -> Self {
        Self(format!("{cluster}-{ordinal}-{suffix}"))
    }

    /// The cluster this incarnation belongs to.
    #[must_use]
    pub fn cluster(&self) -> &str {
        self.0.rsplitn(3, '-').nth(2).unwrap_or("")
    }

    /// The node that it fills; `None` when it is no name of ours.
    #[must_use]
    pub fn ordinal(&self) -> Option<u32> {
        self.0.rsplit('-').nth(1)?.parse().ok()
    }

    /// Host name asked for on the mesh: it ends in the installation id, so that a lost device is
    /// known as ours.
    #[must_use]
    pub fn hostname(&self, installation: &InstallationId) -> String {
        format!("{}-{installation}", self.0)
    }

    /// Sequence of its deployment: derived, so that no two incarnations of an owner ever have the
    /// same one, whoever reserves them when. Below 2^52, which JSON tools keep exact.
    #[must_use]
    pub fn dseq(&self, installation: &InstallationId) -> u64 {
        let digest = Sha256::digest(format!("akash-redis deployment {installation} {}", self.0));
        let first = digest.iter().take(8).fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        (first >> 12).max(1)
    }

    /// Name of the deployment's group on the chain.
    #[must_use]
    pub fn group_name(&self, installation: &InstallationId) -> String {
        format!("ar-{installation}-{}", self.0)
    }

    /// Description of its auth key (at most 50 characters of letters, digits, hyphen, blank).
    #[must_use]
    pub fn key_description(&self, installation: &InstallationId) -> String {
        format!("ar {installation} {}", self.0)
    }

    /// Reads a group name back; `None` when it is not of this installation.
    #[must_use]
    pub fn from_group_name(name: &str, installation: &InstallationId) -> Option<Self> {
        name.strip_prefix(&format!("ar-{installation}-")).map(|n| Self(n.to_owned()))
    }

    /// Reads a mesh host name back; `None` when it is not of this installation.
    #[must_use]
    pub fn from_hostname(name: &str, installation: &InstallationId) -> Option<Self> {
        name.strip_suffix(&format!("-{installation}")).map(|n| Self(n.to_owned()))
    }

    /// Reads a key description back; `None` when it is not of this installation.
    #[must_use]
    pub fn from_key_description(text: &str, installation: &InstallationId) -> Option<Self> {
        text.strip_prefix(&format!("ar {installation} ")).map(|n| Self(n.to_owned()))
    }
}

impl fmt::Display for IncarnationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A lease, and equally the bid it came from (bseq is always 0 today).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseId {
    /// Account of the tenant.
    pub owner: String,
    /// Deployment sequence, chosen by us.
    pub dseq: u64,
    /// Group sequence, always 1 for ours.
    pub gseq: u32,
    /// Order sequence: grows with each re-order.
    pub oseq: u32,
    /// Account of the provider.
    pub provider: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read = fn(&str, &InstallationId) -> Option<IncarnationName>;

    #[test]
    fn each_spelling_is_read_back_and_that_of_another_installation_is_not() {
        let (ours, theirs) = (InstallationId("abcdef".into()), InstallationId("uvwxyz".into()));
        let name = IncarnationName::new("my-cache", 2, "x7k2");
        assert_eq!((name.cluster(), name.ordinal()), ("my-cache", Some(2)));
        let spellings: [(String, Read); 3] = [
            (name.group_name(&ours), IncarnationName::from_group_name),
            (name.hostname(&ours), IncarnationName::from_hostname),
            (name.key_description(&ours), IncarnationName::from_key_description),
        ];
        for (text, read) in spellings {
            assert_eq!(read(&text, &ours), Some(name.clone()), "{text}");
            assert_eq!(read(&text, &theirs), None, "{text}");
        }
        assert_ne!(name.dseq(&ours), name.dseq(&theirs));
    }
}
