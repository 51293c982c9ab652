//! The copy on this node's volume of what Redis loads from the agent: Redis keeps none of what it
//! loads from its link.
//!
//! It is on the disk, and the append-only file of the empty Redis is none any more, before Redis gets
//! the last bytes; and it becomes `dump.rdb` once Redis has loaded all of them. So whenever Redis
//! dies, it starts with nothing, or with all of it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task;

use super::redis_process::RedisInstance;

/// Blocks that wait for the volume at most.
const AHEAD: usize = 8;
/// What is written goes to the disk so many bytes at a time, and not all of it at the end.
const SYNC: u64 = 32 << 20;

/// A file that is being written. Dropped before it was kept, it is removed.
pub(super) struct VolumeCopy {
    instance: RedisInstance,
    to: mpsc::Sender<Bytes>,
    written: task::JoinHandle<io::Result<()>>,
    kept: bool,
}

impl VolumeCopy {
    /// Begins one, in place of what an earlier attempt left.
    ///
    /// # Errors
    /// The volume takes no file.
    pub fn begin(instance: &RedisInstance) -> io::Result<Self> {
        remove_left_over(instance);
        // Redis' own user may write to that directory: nothing that it put there is written through.
        let file = File::options().write(true).create_new(true).mode(0o600).open(path(instance))?;
        if let Some((uid, gid)) = instance.run_as {
            fchown(&file, Some(uid), Some(gid))?;
        }
        Ok(Self::to(instance, file))
    }

    fn to(instance: &RedisInstance, file: File) -> Self {
        let (to, blocks) = mpsc::channel(AHEAD);
        let written = task::spawn_blocking(move || write(file, blocks));
        Self { instance: instance.clone(), to, written, kept: false }
    }

    /// Takes the next bytes; waits while the volume is slow.
    ///
    /// # Errors
    /// The volume did not take those before, or these.
    pub async fn write(&mut self, block: &Bytes) -> io::Result<()> {
        match self.to.send(block.clone()).await {
            Ok(()) => Ok(()),
            Err(_) => self.end().await,
        }
    }

    /// All was written: returns once it is on the disk, and Redis would not start with the
    /// append-only file that it had when it was empty. It is to load by now, and writes to none then.
    ///
    /// # Errors
    /// The volume did not take all of it.
    pub async fn whole(&mut self) -> io::Result<()> {
        // Without the sender the thread comes to its end.
        self.to = mpsc::channel(1).0;
        self.end().await?;
        let instance = self.instance.clone();
        let gone = task::spawn_blocking(move || instance.forget_append_only_file()).await;
        gone.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    async fn end(&mut self) -> io::Result<()> {
        (&mut self.written).await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// Makes it what Redis starts with. It must be whole.
    ///
    /// # Errors
    /// It stays what it was.
    pub async fn keep(mut self) -> io::Result<()> {
        let (path, dump) = (path(&self.instance), self.instance.dump());
        let named = task::spawn_blocking(move || {
            fs::rename(path, &dump)?;
            sync_directory_of(&dump)
        });
        named.await.unwrap_or_else(|error| Err(io::Error::other(error)))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for VolumeCopy {
    fn drop(&mut self) {
        if !self.kept {
            remove_left_over(&self.instance);
        }
    }
}

/// Removes what an agent left behind that was killed.
pub(super) fn remove_left_over(instance: &RedisInstance) {
    let _ = fs::remove_file(path(instance));
}

fn path(instance: &RedisInstance) -> PathBuf {
    instance.data_dir.join("restored.rdb")
}

fn write(mut file: File, mut blocks: mpsc::Receiver<Bytes>) -> io::Result<()> {
    let mut unsynced = 0;
    let mut syncing: Option<JoinHandle<io::Result<()>>> = None;
    while let Some(block) = blocks.blocking_recv() {
        file.write_all(&block)?;
        unsynced += block.len() as u64;
        if unsynced >= SYNC {
            // A slow disk is waited for here: its rest at the end is short.
            ended(syncing.take())?;
            let file = file.try_clone()?;
            syncing = Some(thread::spawn(move || file.sync_data()));
            unsynced = 0;
        }
    }
    ended(syncing)?;
    file.sync_all()
}

/// An error of the disk is told once: to whoever waited for it.
fn ended(syncing: Option<JoinHandle<io::Result<()>>>) -> io::Result<()> {
    let Some(syncing) = syncing else { return Ok(()) };
    syncing.join().unwrap_or_else(|_| Err(io::Error::other("the thread that wrote it ended")))
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(dir: &Path) -> RedisInstance {
        RedisInstance {
            run_dir: dir.to_owned(),
            data_dir: dir.to_owned(),
            run_as: None,
            password: String::new(),
        }
    }

    fn with_an_append_only_file(dir: &Path) -> RedisInstance {
        let instance = instance(dir);
        fs::create_dir(instance.append_only_dir()).unwrap();
        fs::write(instance.append_only_manifest(), "of nothing").unwrap();
        instance
    }

    #[tokio::test]
    async fn what_was_written_is_started_with_once_it_is_kept_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let instance = with_an_append_only_file(dir.path());
        fs::write(instance.dump(), "before").unwrap();
        let mut copy = VolumeCopy::begin(&instance).unwrap();
        for block in [&b"all "[..], b"of ", b"it"] {
            copy.write(&Bytes::from_static(block)).await.unwrap();
        }
        assert!(instance.has_append_only_file());
        copy.whole().await.unwrap();
        assert!(
            !instance.has_append_only_file(),
            "with the next bytes Redis has what is not in it"
        );
        assert_eq!(fs::read(instance.dump()).unwrap(), b"before");
        copy.keep().await.unwrap();
        assert_eq!(fs::read(instance.dump()).unwrap(), b"all of it");
        assert!(!path(&instance).exists());
    }

    #[tokio::test]
    async fn what_was_not_kept_is_gone_and_nothing_else_was_touched() {
        let dir = tempfile::tempdir().unwrap();
        let instance = with_an_append_only_file(dir.path());
        let mut copy = VolumeCopy::begin(&instance).unwrap();
        copy.write(&Bytes::from_static(b"half of it")).await.unwrap();
        drop(copy);
        assert!(!path(&instance).exists() && !instance.dump().exists());
        assert!(instance.has_append_only_file());
    }

    #[tokio::test]
    async fn what_another_user_put_in_its_place_is_not_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let (instance, other) = (instance(dir.path()), dir.path().join("other"));
        fs::write(&other, "of somebody else").unwrap();
        std::os::unix::fs::symlink(&other, path(&instance)).unwrap();
        let mut copy = VolumeCopy::begin(&instance).unwrap();
        copy.write(&Bytes::from_static(b"data")).await.unwrap();
        copy.whole().await.unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"of somebody else");
    }

    #[tokio::test]
    async fn a_volume_that_takes_nothing_more_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let instance = instance(dir.path());
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut copy = VolumeCopy::to(&instance, full);
        let block = Bytes::from(vec![0; 64]);
        let failed = loop {
            if let Err(error) = copy.write(&block).await {
                break error;
            }
        };
        assert_eq!(failed.kind(), io::ErrorKind::StorageFull);
    }
}
