//! What a pass over the keys of a source found, each key counted once however often `SCAN` names it.

use std::collections::HashSet;

use sha2::{Digest as _, Sha256};

use crate::model::import::Difference;

/// Keys that are not copied and that are remembered, so that none is counted twice: 2 MiB.
const REMEMBERED: usize = 1 << 16;
/// Characters of the name of a key that are told.
const NAME: usize = 48;

/// What was found so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// In numbers.
    pub difference: Difference,
    /// Digests of the keys that are not copied. A key that is copied or deleted needs none: when it
    /// is named again it does not differ any more.
    left: HashSet<[u8; 16]>,
}

impl Found {
    /// This key was found not to be copied before.
    pub fn is_left(&self, database: u32, key: &[u8]) -> bool {
        !self.left.is_empty() && self.left.contains(&digest(database, key))
    }

    /// A key that is not copied. Beyond 65,536 of them one that `SCAN` names twice counts twice.
    pub fn left(&mut self, database: u32, key: &[u8], why: &str) {
        let is_new = self.left.len() >= REMEMBERED || self.left.insert(digest(database, key));
        if !is_new {
            return;
        }
        self.difference.left += 1;
        if self.difference.names.len() < Difference::NAMES {
            let name: String = String::from_utf8_lossy(key).chars().take(NAME).collect();
            self.difference.names.push(format!("{name:?} of database {database} ({why})"));
        }
    }
}

fn digest(database: u32, key: &[u8]) -> [u8; 16] {
    let whole = Sha256::new().chain_update(database.to_be_bytes()).chain_update(key).finalize();
    let mut first = [0; 16];
    first.copy_from_slice(&whole[..16]);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_named_twice_is_counted_once_and_memory_has_a_bound() {
        let mut found = Found::default();
        for _ in 0..2 {
            found.left(0, b"a", "large");
            found.left(1, b"a", "large");
        }
        assert_eq!((found.difference.left, found.difference.names.len()), (2, 2));
        assert!(found.is_left(1, b"a") && !found.is_left(2, b"a"));
        for n in 0..100_000u32 {
            found.left(0, &n.to_be_bytes(), "large");
        }
        assert_eq!(found.difference.left, 100_002);
        assert_eq!(
            (found.left.len(), found.difference.names.len()),
            (REMEMBERED, Difference::NAMES)
        );
    }
}
