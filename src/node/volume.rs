//! One agent per volume. Two would write one tailscaled state and one data set, and each would be
//! right in its own eyes.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::state::Node;
use crate::model::node::Space;

/// Time between two tries.
const TRY: Duration = Duration::from_millis(250);
/// Time between two looks at the room that is left.
const LOOK: Duration = Duration::from_secs(2);

/// The volume cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Somebody else has it.
    #[error(
        "another agent uses this volume ({lock} was held for {} s): two containers run with the data of one node, and this one gives way; if the other one is not wanted, end it", waited.as_secs()
    )]
    Busy {
        /// The file that is locked.
        lock: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The file system said no.
    #[error("cannot lock {lock}: the volume is not mounted, read-only, full, or knows no locks")]
    Io {
        /// The file that is locked.
        lock: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A volume that is this agent's alone until this is dropped, or its process ends in whatever way.
#[derive(Debug)]
pub struct Volume {
    _lock: File,
}

/// Takes the volume mounted at `dir`, and waits up to `limit` for another agent to leave it. `busy`
/// is called once when there is one.
pub async fn take(dir: &Path, limit: Duration, busy: impl FnOnce()) -> Result<Volume, VolumeError> {
    let lock = dir.join("lock");
    let failed = |source: io::Error| VolumeError::Io { lock: lock.clone(), source };
    // Children do not inherit it: the lock ends with this process, not with a redis-server that was
    // left behind.
    let file =
        File::options().write(true).create(true).truncate(false).open(&lock).map_err(failed)?;
    let begun = Instant::now();
    let mut busy = Some(busy);
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Volume { _lock: file }),
            Err(Errno::WOULDBLOCK) => {}
            Err(error) => return Err(failed(error.into())),
        }
        if let Some(busy) = busy.take() {
            busy();
        }
        let waited = begun.elapsed();
        if waited >= limit {
            return Err(VolumeError::Busy { lock, waited });
        }
        sleep(TRY.min(limit.saturating_sub(waited))).await;
    }
}

/// Room on the volume that `dir` lies on.
///
/// # Errors
/// It is not mounted any more.
pub fn space(dir: &Path) -> io::Result<Space> {
    let found = rustix::fs::statvfs(dir)?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    // What is left for those who are not root: redis is one of them.
    Ok(Space { free: bytes(found.f_bavail), total: bytes(found.f_blocks) })
}

/// Bytes of the files below `dir`.
///
/// # Errors
/// The file system says no.
pub fn size(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let found = entry.metadata()?;
        bytes += if found.is_dir() { size(&entry.path())? } else { found.len() };
    }
    Ok(bytes)
}

/// Shows the room on the data volume until `stop`.
pub async fn keep_looking(node: Arc<Node>, stop: CancellationToken) {
    let looking = async {
        loop {
            if node.identity.persistent {
                let dir = node.settings.data_dir.clone();
                // A volume that hangs is waited for by nobody else.
                let found = tokio::task::spawn_blocking(move || space(&dir)).await;
                let volume = found.ok().and_then(Result::ok);
                node.update(|state| state.volume = volume);
            }
            sleep(LOOK).await;
        }
    };
    stop.run_until_cancelled(looking).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test]
    async fn a_volume_has_one_agent_and_the_next_gets_it_when_that_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = take(dir.path(), Duration::ZERO, || panic!("nobody is there")).await.unwrap();
        let told = Cell::new(0);
        let refused = take(dir.path(), Duration::from_millis(10), || told.set(told.get() + 1))
            .await
            .unwrap_err();
        assert!(refused.to_string().starts_with("another agent uses this volume"), "{refused}");
        assert_eq!(told.get(), 1);
        let next = take(dir.path(), Duration::from_mins(1), || drop(first)).await;
        assert!(next.is_ok(), "{next:?}");
    }
}
