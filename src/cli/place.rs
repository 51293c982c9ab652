//! A directory for sockets of one command: nobody but its user reaches what listens in it.

use std::fs::{DirBuilder, remove_dir_all};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

/// A directory that is gone with the process.
pub(super) struct Place(PathBuf);

impl Place {
    /// Makes it, for this user alone.
    ///
    /// # Errors
    /// The directory for temporary files cannot be used.
    pub(super) fn make() -> Result<Self, std::io::Error> {
        let name = format!("akash-redis-{:016x}", rand::random::<u64>());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// A file in it.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = remove_dir_all(&self.0);
    }
}
