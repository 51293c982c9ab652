//! Logging the operator's tailscaled in, and what has to be cleared up around it.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::time::Duration;

use super::AccessSettings;
use super::operator_tailscaled::LastLines;
use super::state_dir::StateDir;
use crate::mesh::tailscaled::command::{CALL_LIMIT, Login};
use crate::mesh::tailscaled::{Credential, KeyFile};
use crate::mesh::{MeshControl, MintedKey};
use crate::model::mesh::{Device, MeshView};

/// A key is used at once or never.
const KEY_LIFE: Duration = Duration::from_mins(10);

/// Devices of a lost state: they carry the operator's own host name and tag, and are not this one.
fn stale<'a>(view: &'a MeshView, settings: &'a AccessSettings) -> impl Iterator<Item = &'a Device> {
    let hostname = settings.hostname();
    view.devices
        .iter()
        .filter(move |device| device.hostname == hostname && device.tags.contains(&settings.tag))
}

/// Logs in. An error is a sentence; the key minted for it was revoked, or is by the next attempt.
pub(super) async fn log_in(
    settings: &AccessSettings,
    state_dir: &StateDir,
    control: &dyn MeshControl,
    credential: Credential,
) -> Result<(), String> {
    let failed = |why: String| {
        format!(
            "the operator cannot log in to the mesh, so no node can be reached from here: {why}"
        )
    };
    let result = match credential {
        Credential::State => run(settings, state_dir, None).await,
        Credential::AuthKey => {
            let key = fresh_key(settings, state_dir, control).await.map_err(failed)?;
            let result = match KeyFile::write(state_dir.key_file(), &key.secret) {
                Ok(file) => run(settings, state_dir, Some(&file)).await,
                Err(error) => Err(not_written(state_dir, &error)),
            };
            if result.is_err() {
                revoke(state_dir, control, &key.id).await;
            }
            result
        }
    };
    if result.is_ok() {
        let _ = fs::remove_file(state_dir.key_id_file());
    }
    result.map_err(failed)
}

/// Deletes what a lost state left on the tailnet, so that the host name is free, and mints a key.
async fn fresh_key(
    settings: &AccessSettings,
    state_dir: &StateDir,
    control: &dyn MeshControl,
) -> Result<MintedKey, String> {
    revoke_left(state_dir, control).await;
    let view = control
        .read(&settings.installation, &BTreeSet::new())
        .await
        .map_err(|error| error.to_string())?;
    for device in stale(&view, settings) {
        tracing::info!(
            device = device.id,
            name = device.name,
            "the operator's earlier device is deleted: its state is lost"
        );
        control.delete_device(&device.id).await.map_err(|error| error.to_string())?;
    }
    let key = control
        .mint(&settings.key_description(), &settings.tag, KEY_LIFE)
        .await
        .map_err(|error| error.to_string())?;
    if let Err(error) = fs::write(state_dir.key_id_file(), &key.id) {
        revoke(state_dir, control, &key.id).await;
        return Err(not_written(state_dir, &error));
    }
    Ok(key)
}

fn not_written(state_dir: &StateDir, error: &std::io::Error) -> String {
    format!("the key cannot be written to {} ({error})", state_dir.path().display())
}

/// A process that died between minting and login left the key's id.
pub(super) async fn revoke_left(state_dir: &StateDir, control: &dyn MeshControl) {
    if let Ok(id) = fs::read_to_string(state_dir.key_id_file()) {
        revoke(state_dir, control, &id).await;
    }
}

async fn revoke(state_dir: &StateDir, control: &dyn MeshControl, id: &str) {
    match control.revoke(id).await {
        Ok(()) => drop(fs::remove_file(state_dir.key_id_file())),
        Err(error) => {
            tracing::warn!(key = id, %error, "a key of the operator that was not used is not revoked yet; it ends by itself");
        }
    }
}

/// Runs `tailscale up`; the error says how it failed.
async fn run(
    settings: &AccessSettings,
    state_dir: &StateDir,
    key: Option<&KeyFile>,
) -> Result<(), String> {
    let (socket, hostname) = (state_dir.socket(), settings.hostname());
    let login = Login {
        socket: &socket,
        login_server: settings.login_server.as_deref(),
        key_file: key.map(KeyFile::path),
        hostname: &hostname,
    };
    let last_lines = LastLines::default();
    let run = login.program(&settings.cli()).run(CALL_LIMIT, &last_lines.output()).await;
    match run {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{status}, {}", last_lines.joined())),
        Err(error) if error.kind() == ErrorKind::TimedOut => {
            Err(format!("no end in {} s", CALL_LIMIT.as_secs()))
        }
        Err(error) => Err(format!("{} does not run ({error})", settings.cli().display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::InstallationId;

    #[test]
    fn only_the_operators_own_devices_are_stale() {
        let settings = AccessSettings {
            state_dir: "/d".into(),
            program: "tailscaled".into(),
            login_server: None,
            tag: "tag:operator".into(),
            installation: InstallationId("abc123".into()),
        };
        let device = |id: &str, hostname: &str, tag: &str| Device {
            id: id.into(),
            hostname: hostname.into(),
            name: format!("{hostname}.mesh.test"),
            ip: "100.64.0.1".into(),
            tags: vec![tag.into()],
            created: None,
            multiple_connections: false,
            unsigned: false,
        };
        let devices = vec![
            device("node", "cache-0-x7k2-abc123", "tag:nodes"),
            device("named", "akash-redis-operator-abc123", "tag:nodes"),
            device("own", "akash-redis-operator-abc123", "tag:operator"),
            device("other", "akash-redis-operator-zzzzzz", "tag:operator"),
        ];
        let view = MeshView { devices, ..MeshView::default() };
        assert_eq!(stale(&view, &settings).map(|d| d.id.as_str()).collect::<Vec<_>>(), ["own"]);
    }
}
