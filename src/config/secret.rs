//! Files that hold a secret.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use secrecy::{SecretSlice, SecretString};

use super::{ConfigError, invalid};

/// No file of settings or with a secret is larger.
const MOST_BYTES: u64 = 1 << 20;

pub(super) fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    read_file(&File::open(path)?)
}

fn read_file(file: &File) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(std::io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}

/// The bytes of a file that others on this machine cannot read.
pub(super) fn bytes(field: &'static str, path: &str) -> Result<Vec<u8>, ConfigError> {
    let unreadable = |e: std::io::Error| invalid(field, format!("{path} cannot be read ({e})"));
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode();
    // The group may read it: that is how Kubernetes mounts a secret for a process that is not root.
    if mode & 0o007 != 0 {
        return Err(invalid(
            field,
            format!("everybody on this machine can open {path}; close it with `chmod o= {path}`"),
        ));
    }
    read_file(&file).map_err(unreadable)
}

/// The text of such a file, without white space around it.
pub(super) fn text(field: &'static str, path: &str) -> Result<SecretString, ConfigError> {
    let bytes = SecretSlice::from(bytes(field, path)?);
    let text = std::str::from_utf8(secrecy::ExposeSecret::expose_secret(&bytes))
        .map_err(|_| invalid(field, format!("{path} is not text")))?;
    let text = text.trim();
    if text.is_empty() {
        return Err(invalid(field, format!("{path} is empty")));
    }
    Ok(SecretString::from(text))
}
