//! The copy of manifest and record that each node keeps for an operator that lost its store: what
//! both sides of the line must agree on.

use sha2::{Digest, Sha256};

/// No larger copy is sent, kept or read, bytes. A manifest is 256 KiB at most.
pub const LARGEST: usize = 384 * 1024;

/// The word by which a node says which copy it keeps.
#[must_use]
pub fn hash(content: &[u8]) -> String {
    hex::encode(&Sha256::digest(content)[..8])
}
