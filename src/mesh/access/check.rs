//! What `operator --check` says of the operator's tailscaled, without starting or changing
//! anything.

use std::collections::BTreeMap;
use std::path::Path;

use super::state_dir::socket;
use super::{AccessError, AccessSettings};
use crate::mesh::local::LocalClient;
use crate::mesh::tailscaled::{STATE_FILE, listener, version};

/// What was found; the error is a sentence.
pub async fn check(settings: &AccessSettings) -> Result<String, String> {
    look(settings).await.map_err(|error| error.to_string())?
}

async fn look(settings: &AccessSettings) -> Result<Result<String, String>, AccessError> {
    let version = runs(&settings.program).await?;
    runs(&settings.cli()).await?;
    let socket = socket(&settings.state_dir);
    if listener(&socket).await.is_some() {
        let status = LocalClient::new(&socket)?.status().await?;
        let peers = status.peer.as_ref().map_or(0, BTreeMap::len);
        return Ok(if status.running() {
            Ok(format!("the operator's tailscaled {version} runs and sees {peers} peers"))
        } else {
            Err(format!(
                "the operator's tailscaled {version} runs and is not on the mesh ({}); its log says why",
                status.backend_state
            ))
        });
    }
    if settings.state_dir.join(STATE_FILE).exists() {
        return Ok(Ok(format!("tailscaled {version}, logged in before: no key is needed")));
    }
    writable(&settings.state_dir)?;
    Ok(Ok(format!(
        "tailscaled {version}, not logged in yet: a key with {} is minted at the start",
        settings.tag
    )))
}

/// Its version.
async fn runs(program: &Path) -> Result<String, AccessError> {
    version(program)
        .await
        .map_err(|detail| AccessError::Program { program: program.to_owned(), detail })
}

/// Whether the directory could be made, or is there and ours to write.
fn writable(dir: &Path) -> Result<(), AccessError> {
    let existing = dir.ancestors().find(|path| path.exists()).unwrap_or(dir);
    rustix::fs::access(existing, rustix::fs::Access::WRITE_OK)
        .map_err(|error| AccessError::Directory { path: dir.to_owned(), source: error.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_check_names_a_program_that_is_not_there_and_makes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let settings = AccessSettings {
            state_dir: dir.path().join("new"),
            program: "/nowhere/tailscaled".into(),
            login_server: None,
            tag: "tag:operator".into(),
            installation: crate::model::ids::InstallationId("abc123".into()),
        };
        let sentence = check(&settings).await.unwrap_err();
        assert!(
            sentence.contains("/nowhere/tailscaled")
                && sentence.contains("mesh.tailscaled.program"),
            "{sentence}"
        );
        assert!(!settings.state_dir.exists());
    }
}
