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
}

impl SourceRef {
    /// The name of the import: another one where anything about the source is another.
    #[must_use]
    pub fn id(&self) -> String {
        let SourceSpec { host, port, user, tls, ca, server_name } = &self.spec;
        let (port, tls) = (port.to_string(), tls.to_string());
        let all = [host, &port, user, &tls, ca, server_name, &self.sealed].map(String::as_str);
        hex::encode(&Sha256::digest(all.join("\n"))[..8])
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
    /// When the node was confirmed as master: it is over.
    pub done: Option<UnixMs>,
}
