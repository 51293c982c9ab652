//! Backups of a snapshot that Redis still writes. It writes a key, and the next one when it is told to.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::RngCore as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{sleep, timeout};

use super::backup_tests::{KEY, back_up, empty, stored, taken};
use super::health_tests::child_of;
use super::tests::{PATIENCE, TestNode, promote};
use crate::backup::format::BackupKey;
use crate::backup::stream::decrypt;
use crate::model::backup::{BackupTask, TaskPhase};

/// Values of so many bytes: what is written of one can be read.
const VALUE: usize = 500_000;
const KEYS: u64 = 3;

/// A master of which a backup is taken, and the process that writes its snapshot.
struct Scene {
    node: TestNode,
    writes: Pid,
}

impl Scene {
    /// The process waits after its first key.
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// The same, where `prepare` is done to the storage's directory before.
    async fn with(prepare: impl FnOnce(&Path)) -> Self {
        let node = empty().await;
        let bucket = node.dir.path().join("bucket");
        fs::create_dir(&bucket).unwrap();
        prepare(&bucket);
        node.command(1, promote(0)).await.unwrap();
        for n in 0..KEYS {
            let mut value = vec![0; VALUE / 2];
            rand::thread_rng().fill_bytes(&mut value);
            node.write(&format!("k{n}"), &hex::encode(value)).await.unwrap();
        }
        // Microseconds after each key; a signal that it does not end by ends the wait.
        node.set_config("rdb-key-save-delay", "1000000000").await;
        let mut session = node.node.redis.open(PATIENCE).await.unwrap();
        let redis = session.info().await.unwrap().number("process_id");
        node.command(1, back_up(node.dir.path())).await.unwrap();
        let writes = until(|| child_of(redis)).await;
        Self { node, writes }
    }

    /// Waits until a part of the snapshot was read.
    async fn is_read(&self) -> BackupTask {
        let read = |task: &BackupTask| task.done_bytes > 0 || task.phase != TaskPhase::Running;
        self.node.until(|s| s.backup.as_ref().is_some_and(read)).await.backup.unwrap()
    }

    /// Has Redis write the rest.
    async fn go_on(&self) {
        until(|| kill_process(self.writes, Signal::TERM).is_err().then_some(())).await;
    }

    /// What Redis writes to.
    fn file(&self) -> PathBuf {
        self.node.node.snapshots.unfinished().into_iter().next().expect("it writes")
    }

    /// It ends with these words, nothing is left in the storage, and nothing is read any more.
    async fn comes_to_nothing(self, why: &str) {
        let task = taken(&self.node).await;
        assert!(task.phase == TaskPhase::Failed && task.error.contains(why), "{task:?}");
        assert_eq!(task.snapshot, None);
        assert_eq!(files(&self.node.dir.path().join("bucket/abc234")), Vec::<PathBuf>::new());
        until(|| (!is_open(self.node.dir.path())).then_some(())).await;
        // Where its redis is gone it goes on alone.
        let _ = kill_process(self.writes, Signal::KILL);
        self.node.stop().await;
    }
}

async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let seen = async {
        loop {
            if let Some(seen) = look() {
                return seen;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, seen).await.expect("it is so in time")
}

/// All files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

/// This process has a snapshot open below the directory.
fn is_open(dir: &Path) -> bool {
    let is_one = |to: PathBuf| {
        let name = to.file_name().unwrap_or_default().to_string_lossy().into_owned();
        to.starts_with(dir) && (name.starts_with("temp-") || name.starts_with("dump.rdb"))
    };
    fs::read_dir("/proc/self/fd")
        .unwrap()
        .flatten()
        .any(|entry| fs::read_link(entry.path()).is_ok_and(is_one))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_read_while_redis_writes_it_and_all_of_it_is_stored() {
    let scene = Scene::new().await;
    let task = scene.is_read().await;
    assert_eq!((task.phase, task.total_bytes), (TaskPhase::Running, 0), "Redis still writes");
    assert!(task.done_bytes < VALUE as u64 * KEYS, "{task:?}");
    scene.go_on().await;
    let task = taken(&scene.node).await;
    assert_eq!((task.phase, task.error.as_str()), (TaskPhase::Done, ""));
    let snapshot = task.snapshot.unwrap();
    let file = fs::read(scene.node.node.snapshots.dump()).unwrap();
    assert_eq!(snapshot.keys, KEYS);
    assert_eq!((task.total_bytes, snapshot.rdb_bytes), (file.len() as u64, file.len() as u64));
    let mut rdb = Vec::new();
    decrypt(&fs::read(stored(scene.node.dir.path())).unwrap()[..], |_| BackupKey(KEY), &mut rdb)
        .unwrap();
    assert!(rdb == file, "what Redis wrote is what was stored");
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_snapshot_whose_process_was_killed_is_taken_back() {
    let scene = Scene::new().await;
    scene.is_read().await;
    kill_process(scene.writes, Signal::KILL).unwrap();
    scene.comes_to_nothing("was killed").await;
}

/// Redis says that it succeeded, and what has the name then is another file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_does_not_get_the_name_of_the_snapshot_is_none() {
    let scene = Scene::new().await;
    scene.is_read().await;
    let file = scene.file();
    fs::rename(&file, file.with_extension("away")).unwrap();
    fs::copy(file.with_extension("away"), &file).unwrap();
    scene.go_on().await;
    scene.comes_to_nothing("it is none").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_ends_in_the_middle_leaves_nothing() {
    let scene = Scene::new().await;
    scene.is_read().await;
    scene.node.kill_redis();
    scene.comes_to_nothing("").await;
}

/// What Redis still writes is not waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storage_that_refuses_ends_the_reading_while_redis_writes() {
    // No object can be below a file.
    let scene = Scene::with(|bucket| fs::write(bucket.join("abc234"), "").unwrap()).await;
    let writes = PathBuf::from(format!("/proc/{}", scene.writes.as_raw_nonzero()));
    assert_eq!(taken(&scene.node).await.phase, TaskPhase::Failed);
    assert!(writes.exists(), "Redis still writes");
    scene.comes_to_nothing("the object storage").await;
}
