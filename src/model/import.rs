//! The import of the data of a running Redis: what is asked for, how far a node is, and what is
//! remembered of it.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::backup::TaskPhase;
use super::ids::IncarnationName;
use super::time::UnixMs;

/// The running Redis, without the password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceSpec {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Who replicates; empty for the user that a password alone means.
    pub user: String,
    /// It is reached by TLS.
    pub tls: bool,
    /// Authorities (PEM) that are trusted beside the public ones.
    pub ca: String,
    /// The name in its certificate, where that is not `host`.
    pub server_name: String,
}

impl SourceSpec {
    /// How people write it.
    #[must_use]
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// The running Redis, with the password as the manifest has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceRef {
    /// Where it is.
    pub spec: SourceSpec,
    /// The password, encrypted for `sealed_for`; empty where none is needed.
    pub sealed: String,
    /// The cluster whose manifest the password stands in.
    pub sealed_for: String,
    /// Its keys are copied one by one, for it lets nobody replicate.
    pub copy: bool,
}

impl SourceRef {
    /// The name of the import: another one where anything about the source is another.
    #[must_use]
    pub fn id(&self) -> String {
        let SourceSpec { host, port, user, tls, ca, server_name } = &self.spec;
        let (port, tls) = (port.to_string(), tls.to_string());
        let all = [host, &port, user, &tls, ca, server_name, &self.sealed].map(String::as_str);
        let way = if self.copy { "\ncopy" } else { "" };
        hex::encode(&Sha256::digest(all.join("\n") + way)[..8])
    }
}

/// The import that an agent was told to do, as it goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportTask {
    /// Which; empty before the first, and after the cutover.
    pub id: String,
    /// [`TaskPhase::Running`] from the command on.
    pub phase: TaskPhase,
    /// What is wrong now, one sentence; it is tried again by itself.
    pub error: String,
    /// Version of the source's Redis; empty before it answered.
    pub version: String,
    /// The source answered within the last seconds: what follows is what it said.
    pub answers: bool,
    /// Its history.
    pub replid: String,
    /// Its offset under it.
    pub offset: i64,
    /// Keys that it has, of all databases.
    pub keys: u64,
    /// Age of the oldest write that the node does not have, milliseconds; 0 when there is none.
    pub lag_ms: u64,
    /// For how long its offset has stood still, milliseconds.
    pub still_ms: u64,
    /// It lets this user hold its writes (`CLIENT PAUSE`).
    pub can_pause: bool,
    /// Epoch of the last promotion that came to nothing, and why, one sentence.
    pub refused_epoch: u64,
    /// See `refused_epoch`.
    pub refused: String,
    /// Where the keys are copied one by one: `replid` and `offset` are then what Redis was sent.
    pub copy: Option<CopyTask>,
}

/// A copy of the keys of a source one by one, as it goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyTask {
    /// All that was there when it began is copied.
    pub copied: bool,
    /// Name of the last pass; empty while none is asked for.
    pub pass: String,
    /// That one is over, and `difference` is the whole of it. The source takes no writes, as far as
    /// that can be had.
    pub done: bool,
    /// Why it came to nothing, one sentence: the source takes writes.
    pub failed: String,
    /// Keys that the present pass has looked at.
    pub looked_at: u64,
    /// So many in a second, on average of the pass.
    pub keys_per_second: u64,
    /// Bytes of values in a second, likewise.
    pub bytes_per_second: u64,
    /// What it found.
    pub difference: Difference,
}

/// How the source differed from what had been copied, and what still differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Difference {
    /// Keys with another value, or another time to live, which were copied again.
    pub changed: u64,
    /// Keys that were new.
    pub added: u64,
    /// Keys that the source has no more.
    pub gone: u64,
    /// Keys that are not here as they are there.
    pub left: u64,
    /// The first of these, each with the reason.
    pub names: Vec<String>,
}

impl Difference {
    /// Names that are told.
    pub const NAMES: usize = 10;

    /// How many of them there are.
    #[must_use]
    pub fn counts(&self) -> String {
        format!("{} changed, {} added, {} gone", self.changed, self.added, self.gone)
    }

    /// Which keys still differ; empty where none does.
    #[must_use]
    pub fn rest(&self) -> String {
        if self.left == 0 {
            return String::new();
        }
        let more = self.left.saturating_sub(self.names.len() as u64);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let (names, keys) = (self.names.join(", "), if self.left == 1 { "key" } else { "keys" });
        format!("{} {keys} not copied: {names}{more}", self.left)
    }
}

/// The import that a new cluster begins with, and how far that is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImportRecord {
    /// The node that replicates from the source, and is to be master.
    pub node: Option<IncarnationName>,
    /// Since when.
    pub began: UnixMs,
    /// Nodes in a row that were given up while they imported.
    pub failures: u32,
    /// When the last of these was.
    pub failed: UnixMs,
    /// Why, or why the last cutover came to nothing; one sentence.
    pub error: String,
    /// The last request for a cutover that was answered.
    pub word: String,
    /// The cutover in progress: since when.
    pub cutover: Option<UnixMs>,
    /// The last pass of a copy that belongs to it; empty where there is none.
    pub pass: String,
    /// It is made though keys differ.
    pub accepts_difference: bool,
    /// What that pass found.
    pub difference: Option<Difference>,
    /// When the node was confirmed as master: it is over.
    pub done: Option<UnixMs>,
}
