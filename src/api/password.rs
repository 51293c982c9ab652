//! What is kept of a password.

use sha2::{Digest as _, Sha256};

/// Lower-case hex SHA-256 of a password as it stands in a file or in a Secret; none of an empty one.
/// Editors and shells end a text with a newline that nobody types at AUTH: it is no part of it.
#[must_use]
pub fn hash(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.strip_suffix(b"\n").map_or(bytes, |b| b.strip_suffix(b"\r").unwrap_or(b));
    (!bytes.is_empty()).then(|| hex::encode(Sha256::digest(bytes)))
}
