//! Logging the operator's tailscaled in, and what has to be cleared up around it.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokio::process::Command;
use tokio::time::timeout;

use super::OwnSettings;
use super::place::Place;
use crate::mesh::daemon::Login;
use crate::mesh::local::LocalStatus;
use crate::mesh::{MeshControl, MintedKey};
use crate::model::mesh::{Device, MeshView};

/// The login ends by itself after 30 s.
const LOGIN: Duration = Duration::from_secs(40);
/// A key is used at once or never.
const KEY_LIFE: Duration = Duration::from_mins(10);

/// What a status asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is on the mesh.
    On,
    /// A login, with a fresh key or by its kept state.
    LogIn { with_key: bool },
    /// Patience, or a person; the sentence says which.
    Wait(String),
}

/// What to do about a tailscaled in this state.
pub(super) fn next(status: &LocalStatus) -> Next {
    match status.backend_state.as_str() {
        "Running" => Next::On,
        "NeedsLogin" => Next::LogIn { with_key: true },
        "Stopped" => Next::LogIn { with_key: !status.have_node_key },
        "NeedsMachineAuth" => Next::Wait(
            "the operator's device waits for approval, so no node can be reached from here; approve it in the tailnet's list of machines"
                .to_owned(),
        ),
        other => {
            let health = status.health.iter().flatten().map(|text| format!(": {text}")).next().unwrap_or_default();
            Next::Wait(format!(
                "the operator's tailscaled is not on the mesh yet ({other}{health}), so no node can be reached from here; it goes on trying to reach its control server"
            ))
        }
    }
}

/// Devices of a lost state: they carry the operator's own host name and tag, and are not this one.
fn stale<'a>(view: &'a MeshView, settings: &'a OwnSettings) -> impl Iterator<Item = &'a Device> {
    let hostname = settings.hostname();
    view.devices
        .iter()
        .filter(move |device| device.hostname == hostname && device.tags.contains(&settings.tag))
}

/// Logs in. An error is a sentence; the key minted for it was revoked, or is by the next attempt.
pub(super) async fn log_in(
    settings: &OwnSettings,
    place: &Place,
    control: &dyn MeshControl,
    with_key: bool,
) -> Result<(), String> {
    let failed = |why: String| {
        format!(
            "the operator cannot log in to the mesh, so no node can be reached from here: {why}"
        )
    };
    let key = if with_key {
        Some(fresh_key(settings, place, control).await.map_err(failed)?)
    } else {
        None
    };
    let ended = run(settings, place, key.is_some()).await;
    let _ = fs::remove_file(place.key_file());
    match (&ended, key) {
        (Ok(()), _) => drop(fs::remove_file(place.key_id_file())),
        (Err(_), Some(key)) => revoke(place, control, &key.id).await,
        (Err(_), None) => {}
    }
    ended.map_err(failed)
}

/// Deletes what a lost state left on the tailnet, so that the host name is free, and mints a key.
async fn fresh_key(
    settings: &OwnSettings,
    place: &Place,
    control: &dyn MeshControl,
) -> Result<MintedKey, String> {
    revoke_left(place, control).await;
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
    let written = write(&place.key_id_file(), &key.id)
        .and_then(|()| write(&place.key_file(), key.secret.expose_secret()));
    if let Err(error) = written {
        revoke(place, control, &key.id).await;
        return Err(format!("the key cannot be written to {} ({error})", place.dir().display()));
    }
    Ok(key)
}

/// A process that died between minting and login left the key's id.
pub(super) async fn revoke_left(place: &Place, control: &dyn MeshControl) {
    if let Ok(id) = fs::read_to_string(place.key_id_file()) {
        revoke(place, control, &id).await;
    }
}

async fn revoke(place: &Place, control: &dyn MeshControl, id: &str) {
    match control.revoke(id).await {
        Ok(()) => drop(fs::remove_file(place.key_id_file())),
        Err(error) => {
            tracing::warn!(key = id, %error, "a key of the operator that was not used is not revoked yet; it ends by itself");
        }
    }
}

/// A file that nobody else can read.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let _ = fs::remove_file(path);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?
        .write_all(text.as_bytes())
}

async fn run(settings: &OwnSettings, place: &Place, with_key: bool) -> Result<(), String> {
    let (socket, key_file, hostname) = (place.socket(), place.key_file(), settings.hostname());
    let login = Login {
        socket: &socket,
        login_server: settings.login_server.as_deref(),
        key_file: with_key.then_some(key_file.as_path()),
        hostname: &hostname,
    };
    let mut command = Command::new(settings.cli());
    command.args(login.arguments()).stdin(Stdio::null()).kill_on_drop(true);
    match timeout(LOGIN, command.output()).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            let said: Vec<_> = String::from_utf8_lossy(&output.stderr)
                .lines()
                .map(|line| line.trim().to_owned())
                .collect();
            Err(format!("{}, {}", output.status, said.join(" / ")))
        }
        Ok(Err(error)) => Err(format!("{} does not run ({error})", settings.cli().display())),
        Err(_) => Err(format!("no end in {} s", LOGIN.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::InstallationId;

    #[test]
    fn a_key_is_used_only_where_the_state_is_not_enough() {
        let status = |state: &str, have_node_key| LocalStatus {
            backend_state: state.into(),
            have_node_key,
            ..LocalStatus::default()
        };
        assert_eq!(next(&status("Running", true)), Next::On);
        assert_eq!(next(&status("NeedsLogin", true)), Next::LogIn { with_key: true });
        assert_eq!(next(&status("Stopped", true)), Next::LogIn { with_key: false });
        assert_eq!(next(&status("Stopped", false)), Next::LogIn { with_key: true });
        assert!(
            matches!(next(&status("NeedsMachineAuth", true)), Next::Wait(text) if text.contains("approve it"))
        );
        assert!(
            matches!(next(&status("Starting", true)), Next::Wait(text) if text.contains("Starting"))
        );
    }

    #[test]
    fn only_the_operators_own_devices_are_stale() {
        let settings = OwnSettings {
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
