//! The state directory of the operator's tailscaled, held by one operator at a time.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::AccessError;

/// The directory, locked for as long as this lives.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    pub(super) fn lock(path: &Path) -> Result<Self, AccessError> {
        let unusable = |source| AccessError::Directory { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("operator.lock"))
            .map_err(unusable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(AccessError::InUse { path: path.to_owned() }),
            Err(error) => Err(unusable(error.into())),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// LocalAPI of tailscaled.
    pub(super) fn socket(&self) -> PathBuf {
        socket(&self.path)
    }

    /// Holds an auth key for the moment of a login.
    pub(super) fn key_file(&self) -> PathBuf {
        self.path.join("auth-key")
    }

    /// Id of a key that was minted and perhaps never used: a later process revokes it.
    pub(super) fn key_id_file(&self) -> PathBuf {
        self.path.join("auth-key.id")
    }
}

/// LocalAPI of the tailscaled with this state directory.
pub(super) fn socket(state_dir: &Path) -> PathBuf {
    state_dir.join("tailscaled.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_one_operators() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let first = StateDir::lock(&path).unwrap();
        assert!(matches!(StateDir::lock(&path), Err(AccessError::InUse { .. })));
        drop(first);
        assert!(StateDir::lock(&path).is_ok());
    }
}
