//! The life of `lives` over the file of a running operator, where the simulations have a memory.

use std::sync::Arc;

use akash_redis::store::sqlite::SqliteStore;
use tempfile::TempDir;

use crate::lives::{calls_to_try, one_life, with_a_crash_at};
use crate::world::many::{in_a_world, in_many_worlds, setting};
use crate::world::{Terms, World};

/// A world over a file on this disk.
fn world(dir: &TempDir, seed: u64) -> Arc<World> {
    let store = SqliteStore::open(&dir.path().join("store.db")).unwrap();
    World::at_home(Terms::new(seed, 6), Arc::new(store))
}

#[test]
fn over_sqlite_a_crash_at_any_call_of_a_life_changes_nothing_in_the_end() {
    let parts = in_a_world(async {
        let dir = TempDir::new().unwrap();
        one_life(&world(&dir, 40_000)).await
    });
    let tried: Vec<u64> = calls_to_try(&parts, setting("SIM_CRASHES", 24)).into_iter().collect();
    in_many_worlds(1..=tried.len() as u64, 1, async |at| {
        let call = tried[usize::try_from(at).unwrap() - 1];
        let dir = TempDir::new().unwrap();
        with_a_crash_at(&world(&dir, 40_000 + call), call).await;
    });
}
