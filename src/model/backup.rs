//! A backup as data: where it lies, what it holds, and how far one is that is being taken or read.

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::archive::{Point, Segment};
use super::ids::{IncarnationName, InstallationId};
use super::memory::MIB;
use super::redis_version::RedisVersion;
use super::step::SettingsUser;
use super::time::UnixMs;

/// The one format of backups there is.
pub const FORMAT: u32 = 1;

/// Object storage, without the keys to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct StorageSpec {
    /// `s3://BUCKET/PREFIX` or `file:///DIRECTORY`.
    pub url: String,
    /// Of an S3 service that is not Amazon's, `https://HOST[:PORT]`; empty for Amazon's.
    pub endpoint: String,
    /// Region; empty for `us-east-1`, which services without regions take.
    pub region: String,
    /// PEM of authorities to be trusted beside the public ones; may be empty.
    pub ca: String,
}

/// The keys to an object storage.
#[derive(Clone)]
pub struct StorageKeys {
    /// Access key id.
    pub id: String,
    /// Secret access key.
    pub secret: SecretString,
}

impl StorageKeys {
    /// Reads `ACCESS_KEY_ID:SECRET_ACCESS_KEY`, with a line end or without.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let (id, secret) = text.trim_end_matches(['\r', '\n']).split_once(':')?;
        let plain = |part: &str| {
            !part.is_empty() && part.len() <= 256 && part.chars().all(|c| c.is_ascii_graphic())
        };
        (plain(id) && plain(secret))
            .then(|| Self { id: id.to_owned(), secret: SecretString::from(secret) })
    }
}

impl std::fmt::Debug for StorageKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StorageKeys").field("id", &self.id).finish_non_exhaustive()
    }
}

impl PartialEq for StorageKeys {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.secret.expose_secret() == other.secret.expose_secret()
    }
}

/// Reads the URL of a storage: the bucket and the prefix in it, or no bucket and a directory.
///
/// # Errors
/// One sentence.
pub fn location(url: &str) -> Result<(Option<String>, String), String> {
    let wrong = |why: &str| {
        format!(
            "`{url}` {why}; write s3://BUCKET/PREFIX, or file:///DIRECTORY where operator and nodes share one machine"
        )
    };
    if let Some(rest) = url.strip_prefix("s3://") {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(inner) {
            return Err(wrong("names no bucket"));
        }
        let prefix = prefix.trim_matches('/');
        let part = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.=".contains(c))
        };
        if prefix.len() > 512 || !(prefix.is_empty() || prefix.split('/').all(part)) {
            return Err(wrong(
                "has a prefix with other characters than letters, digits and - _ . =",
            ));
        }
        return Ok((Some(bucket.to_owned()), prefix.to_owned()));
    }
    let Some(path) = url.strip_prefix("file://") else {
        return Err(wrong("is no storage that is known"));
    };
    let steps = path.split('/').any(|part| part == "." || part == "..");
    if !path.starts_with('/') || path.trim_matches('/').is_empty() || steps {
        return Err(wrong("is no absolute path of a directory"));
    }
    Ok((None, path.to_owned()))
}

/// What a node's agent says of a snapshot that it has stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Version of the redis-server that wrote it.
    pub redis: String,
    /// Replication id of the data.
    pub replid: String,
    /// Offset under it at which the snapshot was taken.
    pub offset: i64,
    /// Keys at that moment, of all databases.
    pub keys: u64,
    /// Bytes of the object as it is stored.
    pub stored_bytes: u64,
    /// SHA-256 of the object as it is stored, lower-case hex.
    pub stored_sha256: String,
    /// Bytes of the RDB file.
    pub rdb_bytes: u64,
    /// SHA-256 of the RDB file, lower-case hex.
    pub rdb_sha256: String,
    /// Memory that Redis used then, bytes; 0 in backups of earlier versions.
    #[serde(default)]
    pub memory_bytes: u64,
    /// `keys` are those of this very snapshot; `false` in backups of earlier versions.
    #[serde(default)]
    pub exact_keys: bool,
}

impl Snapshot {
    /// Memory that a Redis needs to hold it, bytes: an estimate, with room to spare.
    #[must_use]
    pub fn memory_needed(&self) -> u64 {
        // What is compressed or packed in the file takes several times of that in memory.
        let data = if self.memory_bytes > 0 { self.memory_bytes } else { 4 * self.rdb_bytes };
        data + data / 8 + 16 * MIB
    }
}

/// What the operator itself saw of the master while a snapshot was taken: a node can claim what it
/// likes of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MasterSeen {
    /// Who was master.
    pub incarnation: String,
    /// Its offset when the snapshot was asked for.
    pub offset_before: i64,
    /// Its offset when the snapshot was stored.
    pub offset_after: i64,
    /// Its keys when the snapshot was asked for.
    pub keys: u64,
}

/// A user of the application, as it was when the backup was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupUser {
    /// Name.
    pub name: String,
    /// Lower-case hex SHA-256 of the passwords.
    pub password_sha256: Vec<String>,
    /// ACL rules.
    pub rules: String,
}

impl From<BackupUser> for SettingsUser {
    fn from(user: BackupUser) -> Self {
        Self { name: user.name, password_sha256: user.password_sha256, rules: user.rules }
    }
}

/// What a backup is: written last, so that there is no backup without it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupManifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Name of the backup: the time and four random characters.
    pub id: String,
    /// Whose it is: backups of another root secret cannot be decrypted.
    pub installation: InstallationId,
    /// Cluster.
    pub cluster: String,
    /// The cluster's uid: another one of that name is another cluster.
    pub uid: String,
    /// The node that it was taken from.
    pub incarnation: IncarnationName,
    /// When it was asked for.
    pub taken: UnixMs,
    /// Epoch of the data.
    pub epoch: u64,
    /// By the word of the node that took it.
    pub snapshot: Snapshot,
    /// By the operator's own look at the master.
    pub master: MasterSeen,
    /// Users of the application.
    pub users: Vec<BackupUser>,
}

impl BackupManifest {
    /// Why a node with this version of Redis cannot be given the data; `None` when it can.
    #[must_use]
    pub fn unreadable_by(&self, redis: RedisVersion) -> Option<String> {
        let Some(its) = RedisVersion::parse(&self.snapshot.redis) else {
            return Some(format!(
                "it was written by Redis `{}`, which this version does not know",
                self.snapshot.redis
            ));
        };
        (!redis.can_follow(its)).then(|| {
            format!("it was written by {its}, whose data {redis} cannot read; use an image with {its} or a later version")
        })
    }
}

/// How far a task of a node's agent is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskPhase {
    /// None was asked for since the agent started.
    #[default]
    None,
    /// It runs.
    Running,
    /// It is done.
    Done,
    /// It came to nothing.
    Failed,
}

/// The last backup that an agent was told to take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupTask {
    /// Which; empty before the first.
    pub id: String,
    /// How far it is.
    pub phase: TaskPhase,
    /// Bytes of the RDB file that were read so far.
    pub done_bytes: u64,
    /// Bytes of the RDB file; 0 while Redis still writes it, also while it is read already.
    pub total_bytes: u64,
    /// Why it failed, one sentence.
    pub error: String,
    /// What was stored, once it is done.
    pub snapshot: Option<Snapshot>,
}

/// The last restore that an agent was told to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreTask {
    /// Of which backup; empty before the first.
    pub id: String,
    /// How far it is.
    pub phase: TaskPhase,
    /// Bytes of the RDB file that Redis was given so far.
    pub done_bytes: u64,
    /// Bytes of the RDB file.
    pub total_bytes: u64,
    /// Why it failed, one sentence.
    pub error: String,
    /// The redis process that has the data, once it is done.
    pub run_id: String,
}

/// The last restore into a throw-away redis-server that an agent was told to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyTask {
    /// Which attempt; empty before the first.
    pub run: String,
    /// How far it is.
    pub phase: TaskPhase,
    /// Bytes of the RDB file that Redis was given so far.
    pub done_bytes: u64,
    /// Bytes of the RDB file.
    pub total_bytes: u64,
    /// Why it failed, one sentence.
    pub error: String,
    /// It is the backup that is no good, and not that something was missing on the node.
    pub damaged: bool,
    /// Keys that were restored, of all databases.
    pub keys: u64,
    /// Memory that they took, bytes.
    pub memory_bytes: u64,
    /// How long it took, milliseconds.
    pub took_ms: u64,
}

/// What is remembered of the backups of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackupRecord {
    /// The one that is being taken.
    pub run: Option<BackupRun>,
    /// The last request of a person that was begun.
    pub word: String,
    /// When the last one was begun.
    pub began: UnixMs,
    /// Attempts in a row that came to nothing.
    pub failures: u32,
    /// When the last of these was given up.
    pub failed: UnixMs,
    /// Why, one sentence.
    pub error: String,
    /// Which of them were restored to see that they can be.
    #[serde(skip_serializing_if = "VerifyRecord::is_empty")]
    pub verify: Box<VerifyRecord>,
}

/// What is remembered of restores into throw-away redis-servers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VerifyRecord {
    /// The one that runs.
    pub run: Option<VerifyRun>,
    /// The last request of a person that was begun.
    pub word: String,
    /// The last backup that was found to be good.
    pub good: Option<Verified>,
    /// What was found after that to be no good: the backup, and one sentence.
    pub bad: Option<(String, String)>,
    /// Attempts in a row that found nothing out, or found a backup to be no good.
    pub failures: u32,
    /// When the last of these ended.
    pub failed: UnixMs,
    /// Which node it was.
    pub failed_on: Option<IncarnationName>,
    /// Why nothing was found out, one sentence; empty where something was.
    pub error: String,
}

impl VerifyRecord {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A backup is being restored to see that it can be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyRun {
    /// Name of the attempt.
    pub run: String,
    /// Which backup.
    pub id: String,
    /// The node that does it.
    pub incarnation: IncarnationName,
    /// The start of its agent: another one knows nothing of it.
    pub boot_id: String,
    /// When it was begun.
    pub began: UnixMs,
    /// Memory that it may take, bytes.
    pub memory_bytes: u64,
}

/// A backup that was restored, and had what it was to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Which.
    pub id: String,
    /// When it was taken.
    pub taken: UnixMs,
    /// When it was found to be good.
    pub at: UnixMs,
    /// The node that restored it.
    pub incarnation: IncarnationName,
    /// Keys that were restored.
    pub keys: u64,
    /// How long that took, milliseconds.
    pub took_ms: u64,
}

/// A backup that is being taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupRun {
    /// Its name.
    pub id: String,
    /// The node that takes it.
    pub incarnation: IncarnationName,
    /// The start of its agent: another one knows nothing of it.
    pub boot_id: String,
    /// When it was begun.
    pub began: UnixMs,
    /// Why, a phrase.
    pub why: String,
    /// Epoch of the data.
    pub epoch: u64,
    /// The master then, its offset and its keys.
    pub master: MasterSeen,
    /// When the node was first heard to have stored all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<UnixMs>,
}

/// The backup that a new cluster begins with, and how far that is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreRecord {
    /// Which.
    pub manifest: BackupManifest,
    /// What of the log is replayed after it; nothing where the backup is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<Point>,
    /// When it was chosen.
    pub chosen: UnixMs,
    /// The node that gets it.
    #[serde(default)]
    pub run: Option<RestoreRun>,
    /// Attempts in a row that came to nothing.
    #[serde(default)]
    pub failures: u32,
    /// When the last of these was given up.
    #[serde(default)]
    pub failed: UnixMs,
    /// Why, one sentence.
    #[serde(default)]
    pub error: String,
    /// When a node with the data was confirmed as master: it is over.
    #[serde(default)]
    pub done: Option<UnixMs>,
}

/// A node gets the data of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreRun {
    /// Which node.
    pub incarnation: IncarnationName,
    /// Since when.
    pub began: UnixMs,
    /// Bytes of it that had come when it was looked at last; that is noted some minutes apart.
    #[serde(default)]
    pub bytes: u64,
    /// When more of them had come since the look before; 0 before any had.
    #[serde(default)]
    pub moved: UnixMs,
}

/// What lies in the storage for one cluster's name and this installation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Backups whose manifest is whole and ours, oldest first.
    pub backups: Vec<BackupManifest>,
    /// Backups whose manifest cannot be used: id, and one sentence.
    pub unusable: Vec<(String, String)>,
    /// Data without a manifest: id, and when it was written.
    pub unfinished: Vec<(String, UnixMs)>,
    /// Other installations that have something under the same prefix.
    pub others: Vec<String>,
    /// The log of writes, of this cluster and of earlier ones of the name: neighbours as one.
    pub log: Vec<Segment>,
    /// How a moment is reached, where one was asked for.
    pub survey: Option<Survey>,
}

/// How a moment is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// The moment that was asked for.
    pub to: UnixMs,
    /// How, or a sentence that says why it cannot be; `None` where no log was kept then.
    pub found: Option<Result<Point, String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_bucket_with_a_prefix_or_a_directory() {
        let at = |url: &str| location(url).unwrap();
        assert_eq!(at("s3://backups/prod/a/"), (Some("backups".into()), "prod/a".into()));
        assert_eq!(at("s3://backups"), (Some("backups".into()), String::new()));
        assert_eq!(at("file:///var/backups"), (None, "/var/backups".into()));
        for wrong in [
            "",
            "backups",
            "s3://",
            "s3://a",
            "s3://Upper/x",
            "s3://backups/a//b",
            "s3://backups/../x",
            "https://x/y",
            "file://relative",
            "file:///",
            "file:///a/../b",
        ] {
            assert!(location(wrong).unwrap_err().contains("s3://BUCKET/PREFIX"), "{wrong}");
        }
    }

    #[test]
    fn keys_are_two_words_with_a_colon_and_print_without_the_secret() {
        let keys = StorageKeys::read("AKIA1:s3cr3t/+=\n").unwrap();
        assert_eq!((keys.id.as_str(), keys.secret.expose_secret()), ("AKIA1", "s3cr3t/+="));
        assert!(!format!("{keys:?}").contains("s3cr3t"));
        for wrong in ["", "AKIA1", "AKIA1:", ":x", "a b:c", "a:b c", "a:b\nc:d"] {
            assert!(StorageKeys::read(wrong).is_none(), "{wrong:?}");
        }
    }
}
