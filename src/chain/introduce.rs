//! What a node says of itself: its version, and which versions of the chain's modules it speaks.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;

use super::endpoint::{ANSWER, Node};
use super::{ChainError, codes};
use crate::wire::akash::discovery::v1::{Akash, GetInfoRequest};

/// The modules that this operator uses, in the versions that it speaks.
const SPOKEN: [(&str, &str); 5] = [
    ("deployment", "v1beta4"),
    ("market", "v1beta5"),
    ("escrow", "v1"),
    ("provider", "v1beta4"),
    ("cert", "v1"),
];
/// An upgrade of the chain ends connections, but not those to a proxy: each node is asked anew so
/// often.
const AGAIN: Duration = Duration::from_mins(10);

/// The last introduction of a node.
#[derive(Debug, Default)]
pub(super) struct Introduction(Mutex<Option<(Instant, String)>>);

impl Introduction {
    /// The version by its word, while that is fresh; empty when it does not say.
    pub fn version(&self) -> Option<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().filter(|(at, _)| at.elapsed() < AGAIN).map(|(_, version)| version.clone())
    }

    fn keep(&self, version: String) {
        let known = Some((Instant::now(), version));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// Its connection broke: it may come back as another version.
    pub fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Node {
    /// Asks for the chain id and for the versions of the modules, unless that is known. A node of
    /// another chain, or one that speaks otherwise, is an error.
    pub(super) async fn introduce(&self) -> Result<(), ChainError> {
        if self.introduction().version().is_some() {
            return Ok(());
        }
        self.latest().await?;
        let mut discovery = self.discovery();
        let asked = tokio::time::timeout(ANSWER, discovery.get_info(GetInfoRequest {}));
        let info = match asked.await.map_err(|elapsed| self.away(elapsed))? {
            Ok(answer) => answer.into_inner().info.unwrap_or_default(),
            // Older nodes, and proxies that pass only some services on: requests will tell.
            Err(status) if status.code() == Code::Unimplemented => Akash::default(),
            Err(status) => return Err(self.error("its versions", status)),
        };
        if let Some(flaw) = not_spoken(&info) {
            return Err(self.invalid(flaw));
        }
        self.introduction().keep(codes::shorten(&info.node_version));
        Ok(())
    }
}

/// Which module is there in other versions than ours only; one that is not listed is no flaw.
fn not_spoken(info: &Akash) -> Option<String> {
    let mut listed: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for module in info.supported_versions.iter().flat_map(|version| &version.modules) {
        let versions = listed.entry(&module.module).or_default();
        if !versions.contains(&module.version.as_str()) {
            versions.push(&module.version);
        }
    }
    SPOKEN.iter().find_map(|(module, ours)| {
        let theirs = listed.get(module).filter(|theirs| !theirs.contains(ours))?;
        Some(format!(
            "its module {module} is {}, and this operator speaks {ours}: nothing is sent there; a newer akash-redis may know it (node {})",
            codes::shorten(&theirs.join(" and ")),
            codes::shorten(&info.node_version)
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::akash::discovery::v1::{ModuleVersion, VersionInfo};

    fn info(modules: &[(&str, &str)]) -> Akash {
        let module = |(module, version): &(&str, &str)| ModuleVersion {
            module: (*module).to_owned(),
            version: (*version).to_owned(),
        };
        let modules = modules.iter().map(module).collect();
        let version = VersionInfo { modules, ..VersionInfo::default() };
        Akash {
            supported_versions: vec![version],
            node_version: "9.9.9".into(),
            ..Akash::default()
        }
    }

    #[test]
    fn a_module_of_another_version_is_refused_and_one_of_ours_beside_it_is_not() {
        assert_eq!(not_spoken(&Akash::default()), None, "it does not say");
        assert_eq!(not_spoken(&info(&[("market", "v1beta5"), ("take", "v7")])), None);
        assert_eq!(not_spoken(&info(&[("market", "v2beta1"), ("market", "v1beta5")])), None);
        let flaw = not_spoken(&info(&[("deployment", "v1beta5"), ("market", "v1beta5")]));
        let flaw = flaw.expect("it cannot be spoken to");
        assert!(
            flaw.contains("deployment is v1beta5") && flaw.contains("speaks v1beta4"),
            "{flaw}"
        );
        assert!(flaw.contains("node 9.9.9"), "{flaw}");
    }
}
