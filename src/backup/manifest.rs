//! The object that makes a backup of data: two lines, the manifest as JSON and its authentication
//! code, HMAC-SHA256 by a key of the root secret. Whoever may write to the storage can take a backup
//! away or bring an older one back; nobody can make one.

use crate::model::backup::{BackupManifest, FORMAT};
use crate::model::ids::InstallationId;
use crate::secrets::RootSecret;

/// No manifest is larger, bytes: it names the users of a cluster.
pub const LARGEST: usize = 256 * 1024;

/// As it is stored.
///
/// # Panics
/// Never: texts and numbers are JSON.
#[must_use]
pub fn signed(root: &RootSecret, manifest: &BackupManifest) -> String {
    let content = serde_json::to_string(manifest).expect("texts and numbers are JSON");
    let code = hex::encode(root.backup_code(content.as_bytes()));
    format!("{content}\n{code}\n")
}

/// What is stored under `id`, when this installation wrote it for this cluster; else a sentence that
/// says why it cannot be used.
///
/// # Errors
/// One sentence.
pub fn verified(
    root: &RootSecret,
    cluster: &str,
    id: &str,
    text: &[u8],
) -> Result<BackupManifest, String> {
    let damaged =
        || format!("the manifest of backup {id} is damaged: it is not one that this program wrote");
    let text = std::str::from_utf8(text).map_err(|_| damaged())?;
    let mut lines = text.lines();
    let (content, code) = lines.next().zip(lines.next()).ok_or_else(damaged)?;
    let value: serde_json::Value = serde_json::from_str(content).map_err(|_| damaged())?;
    let own = root.installation_id();
    let of = value["installation"].as_str().unwrap_or_default();
    if of != own.0 {
        return Err(foreign(id, of, &own));
    }
    let code = hex::decode(code.trim()).map_err(|_| damaged())?;
    if !root.is_own_backup_code(content.as_bytes(), &code) {
        return Err(format!(
            "the manifest of backup {id} was changed or damaged: its authentication code is not that of this root secret"
        ));
    }
    let format = value["format"].as_u64().unwrap_or(0);
    if format != u64::from(FORMAT) {
        return Err(format!(
            "backup {id} has format {format}, and this version reads {FORMAT}; use a later version of akash-redis"
        ));
    }
    let manifest: BackupManifest = serde_json::from_value(value).map_err(|_| damaged())?;
    if manifest.id != id || manifest.cluster != cluster {
        return Err(format!(
            "the manifest of backup {id} of {cluster} is that of backup {} of {}: it was moved there",
            manifest.id, manifest.cluster
        ));
    }
    Ok(manifest)
}

/// A backup that another root secret made.
#[must_use]
pub fn foreign(id: &str, of: &str, own: &InstallationId) -> String {
    format!(
        "backup {id} is of installation {of}, and this operator is {own}: it was made with another root secret, and cannot be decrypted here"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::backup::{MasterSeen, Snapshot};
    use crate::model::ids::IncarnationName;
    use crate::model::time::UnixMs;

    fn root(byte: u8) -> RootSecret {
        RootSecret::new(vec![byte; 32].into()).unwrap()
    }

    fn manifest(root: &RootSecret) -> BackupManifest {
        BackupManifest {
            format: FORMAT,
            id: "b1".into(),
            installation: root.installation_id(),
            cluster: "cache".into(),
            uid: "u".into(),
            incarnation: IncarnationName("cache-1-x7k2".into()),
            taken: UnixMs(1),
            epoch: 3,
            snapshot: Snapshot::default(),
            master: MasterSeen::default(),
            users: Vec::new(),
        }
    }

    #[test]
    fn a_manifest_counts_only_as_it_was_signed_here_for_this_backup() {
        let (ours, theirs) = (root(1), root(2));
        let good = signed(&ours, &manifest(&ours));
        assert_eq!(verified(&ours, "cache", "b1", good.as_bytes()).unwrap(), manifest(&ours));
        let says = |text: &str, cluster: &str, id: &str, what: &str| {
            let why = verified(&ours, cluster, id, text.as_bytes()).unwrap_err();
            assert!(why.contains(what), "{why}");
        };
        says(&good.replace("\"epoch\":3", "\"epoch\":4"), "cache", "b1", "authentication code");
        says(&signed(&theirs, &manifest(&theirs)), "cache", "b1", "another root secret");
        says(&signed(&theirs, &manifest(&ours)), "cache", "b1", "authentication code");
        says(&good, "other", "b1", "was moved there");
        says(&good, "cache", "b2", "was moved there");
        says("{}", "cache", "b1", "damaged");
        says(&good[..good.len() / 2], "cache", "b1", "damaged");
        let newer = BackupManifest { format: 2, ..manifest(&ours) };
        says(&signed(&ours, &newer), "cache", "b1", "format 2");
    }
}
