//! Backups in object storage: how they are laid out, encrypted, written and read.
//!
//! Below the prefix of `spec.backup.to` a backup is two objects, `INSTALLATION/CLUSTER/ID.rdb` and
//! `INSTALLATION/CLUSTER/ID.manifest`. The first is the RDB file, compressed and encrypted
//! ([`format`](mod@format)); the second says what it is and is written last ([`manifest`]): without it there is
//! no backup. The log of writes between them lies beside them ([`archive`]).

pub mod archive;
pub mod format;
pub mod manifest;
pub mod scanner;
pub mod segment;
pub mod storage;
pub mod stream;
#[cfg(test)]
mod tests;

use crate::model::ids::InstallationId;

/// End of the name of the object with the data.
const DATA: &str = ".rdb";
/// End of the name of the object that says what the data are.
const MANIFEST: &str = ".manifest";

/// Name of the object with the data of a backup, below the prefix.
#[must_use]
pub fn data_object(installation: &InstallationId, cluster: &str, id: &str) -> String {
    format!("{installation}/{cluster}/{id}{DATA}")
}

/// Name of the object with the manifest of a backup, below the prefix.
#[must_use]
pub fn manifest_object(installation: &InstallationId, cluster: &str, id: &str) -> String {
    format!("{installation}/{cluster}/{id}{MANIFEST}")
}
