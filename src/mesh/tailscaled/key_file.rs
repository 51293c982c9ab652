//! The auth key on disk for the moment of a login: argv is open to everybody on the machine.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

/// A file with an auth key that nobody else can read; dropping this removes it.
#[derive(Debug)]
pub struct KeyFile(PathBuf);

impl KeyFile {
    /// Writes the key; what an earlier process left at `path` goes.
    pub fn write(path: PathBuf, key: &SecretString) -> io::Result<Self> {
        let _ = fs::remove_file(&path);
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        let held = Self(path);
        file.write_all(key.expose_secret().as_bytes())?;
        Ok(held)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        // In vain only when somebody else removed it.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_on_disk_for_no_longer_than_the_login() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth-key");
        fs::write(&path, "of an earlier process").unwrap();
        let key = KeyFile::write(path.clone(), &"tskey-1".into()).unwrap();
        assert_eq!(fs::read_to_string(key.path()).unwrap(), "tskey-1");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(key);
        assert!(!path.exists());
    }
}
