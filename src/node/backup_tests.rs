//! A backup and a restore between real redis-servers: what comes back is what was there, and nothing
//! else ever becomes data.

use std::path::{Path, PathBuf};

use super::tests::{TestNode, follow, pair, promote, usual_settings};
use crate::backup::format::BackupKey;
use crate::backup::stream::decrypt;
use crate::model::backup::{BackupTask, RestoreTask, Snapshot, TaskPhase, VerifyTask};
use crate::model::node::Role;
use crate::wire::akash_redis::agent::v1 as wire;
use wire::command_request::Command;

pub(super) const KEY: [u8; 32] = [7; 32];
pub(super) const ID: &str = "20261126T030000Z-x7k2";

/// Where operator and nodes of a local market put backups: one directory that all may use.
pub(super) fn storage(dir: &Path) -> wire::ObjectStorage {
    let url = format!("file://{}", dir.join("bucket").display());
    wire::ObjectStorage { url, ..wire::ObjectStorage::default() }
}

pub(super) fn object() -> String {
    format!("abc234/cache/{ID}.rdb")
}

/// The object that has the data, where the bucket is below this directory.
pub(super) fn stored(dir: &Path) -> PathBuf {
    dir.join("bucket").join(object())
}

pub(super) fn back_up(dir: &Path) -> Command {
    Command::Backup(wire::Backup {
        id: ID.into(),
        storage: Some(storage(dir)),
        object: object(),
        key: KEY.to_vec(),
    })
}

pub(super) fn restore(dir: &Path, of: &Snapshot) -> Command {
    Command::Restore(wire::Restore {
        id: ID.into(),
        storage: Some(storage(dir)),
        object: object(),
        key: KEY.to_vec(),
        rdb_bytes: of.rdb_bytes,
        rdb_sha256: of.rdb_sha256.clone(),
        ..wire::Restore::default()
    })
}

pub(super) async fn taken(node: &TestNode) -> BackupTask {
    let ended = |task: &BackupTask| matches!(task.phase, TaskPhase::Done | TaskPhase::Failed);
    node.until(|s| s.backup.as_ref().is_some_and(ended)).await.backup.unwrap()
}

pub(super) async fn restored(node: &TestNode) -> RestoreTask {
    let ended = |task: &RestoreTask| matches!(task.phase, TaskPhase::Done | TaskPhase::Failed);
    node.until(|s| s.restore.as_ref().is_some_and(ended)).await.restore.unwrap()
}

/// Every key of a node with its value, as Redis serializes it, and how long it lives.
async fn all(node: &TestNode) -> Vec<(String, Vec<u8>, bool)> {
    let mut session = node.node.redis.open(super::redis_control::ANSWER).await.unwrap();
    let connection = &mut session.connection;
    let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(connection).await.unwrap();
    keys.sort();
    let mut found = Vec::new();
    for key in keys {
        let value: Vec<u8> = redis::cmd("DUMP").arg(&key).query_async(connection).await.unwrap();
        let lives: i64 = redis::cmd("PTTL").arg(&key).query_async(connection).await.unwrap();
        found.push((key, value, lives > 0));
    }
    found
}

async fn filled(master: &TestNode) {
    let mut client = master.client().await;
    for n in 0..500 {
        redis::cmd("SET")
            .arg(format!("s{n}"))
            .arg("v".repeat(n))
            .exec_async(&mut client)
            .await
            .unwrap();
    }
    let all: [&[&str]; 7] = [
        &["RPUSH", "list", "a", "b", "c"],
        &["HSET", "hash", "f", "1", "g", "2"],
        &["SADD", "set", "1", "2"],
        &["ZADD", "zset", "1.5", "a", "2.5", "b"],
        &["XADD", "stream", "1-1", "k", "v"],
        &["SET", "lives", "1", "EX", "3600"],
        &["PFADD", "hll", "a", "b"],
    ];
    for words in all {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.exec_async(&mut client).await.unwrap();
    }
}

/// A master with data, and a replica that has taken a backup of them.
struct BackedUp {
    master: TestNode,
    replica: TestNode,
    snapshot: Snapshot,
}

impl BackedUp {
    async fn new() -> Self {
        let (master, replica) = pair().await;
        filled(&master).await;
        Self::of(master, replica, 507).await
    }

    /// The replica takes one as soon as it has so many keys.
    async fn of(master: TestNode, replica: TestNode, keys: u64) -> Self {
        replica.until(|s| s.redis.keys == keys).await;
        replica.command(1, back_up(master.dir.path())).await.unwrap();
        let snapshot = taken(&replica).await.snapshot.unwrap();
        Self { master, replica, snapshot }
    }

    /// Where its bucket is.
    fn dir(&self) -> &Path {
        self.master.dir.path()
    }

    /// The object that has the data.
    fn object(&self) -> PathBuf {
        stored(self.dir())
    }

    /// Has the replica restore it within so much memory; what came of that.
    async fn verified(&self, run: &str, of: &Snapshot, memory: u64) -> VerifyTask {
        self.replica.command(1, verify(self.dir(), run, of, memory)).await.unwrap();
        verified(&self.replica, run).await
    }
}

/// The same with one byte in the middle of it changed.
fn touched(good: &[u8]) -> Vec<u8> {
    let mut touched = good.to_owned();
    touched[good.len() / 2] ^= 1;
    touched
}

pub(super) async fn empty() -> TestNode {
    let node = TestNode::start(0);
    node.running().await;
    node.command(1, usual_settings()).await.unwrap();
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_stores_comes_back_on_another_node_byte_by_byte() {
    let (master, replica) = pair().await;
    let dir = master.dir.clone();
    filled(&master).await;
    let offset = master.node.redis.open(super::redis_control::ANSWER).await.unwrap();
    let offset = { offset }.info().await.unwrap().offset();
    replica.until(|s| s.redis.offset >= offset).await;
    replica.command(1, back_up(dir.path())).await.unwrap();
    let task = taken(&replica).await;
    assert_eq!((task.phase, task.error.as_str()), (TaskPhase::Done, ""));
    let snapshot = task.snapshot.unwrap();
    assert_eq!(snapshot.keys, 507);
    assert!(snapshot.offset >= offset && !snapshot.redis.is_empty(), "{snapshot:?}");
    let again = replica.command(1, back_up(dir.path())).await.unwrap().backup.unwrap();
    assert_eq!(again.snapshot.as_ref(), Some(&snapshot), "the same command changes nothing");

    let stored = std::fs::read(stored(dir.path())).unwrap();
    assert_eq!(stored.len() as u64, snapshot.stored_bytes);
    assert!(!stored.windows(6).any(|w| w == b"vvvvvv"), "nothing of it can be read");
    let mut rdb = Vec::new();
    decrypt(&stored[..], |_| BackupKey(KEY), &mut rdb).unwrap();
    assert!(rdb.starts_with(b"REDIS") && rdb.len() as u64 == snapshot.rdb_bytes);

    let before = all(&master).await;
    let fresh = empty().await;
    fresh.command(1, restore(dir.path(), &snapshot)).await.unwrap();
    let task = restored(&fresh).await;
    assert_eq!((task.phase, task.error.as_str()), (TaskPhase::Done, ""));
    let state = fresh.until(|s| s.redis.is_linked() && s.redis.keys == 507).await;
    assert_eq!((state.redis.role, state.redis.fenced), (Role::Replica, true));
    assert_eq!(fresh.write("s0", "x").await.unwrap_err().code(), Some("READONLY"));
    assert_eq!(all(&fresh).await, before);

    fresh.command(2, promote(0)).await.unwrap();
    fresh.write("after", "1").await.unwrap();
    assert_eq!(fresh.read("s499").await, Some("v".repeat(499)));
    let refused = fresh.command(2, restore(dir.path(), &snapshot)).await.unwrap_err();
    assert!(refused.message().contains("not overwritten"), "{refused:?}");

    // What was restored outlives its redis, and others copy it.
    let other = TestNode::start(fresh.port());
    other.running().await;
    other.command(2, usual_settings()).await.unwrap();
    other.command(2, follow(false)).await.unwrap();
    other.until(|s| s.redis.is_linked() && s.redis.keys == 508).await;
    let kept = fresh.stop().await;
    let back = TestNode::start_in(kept, 0);
    back.running().await;
    back.until(|s| s.redis.keys == 508).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_that_are_not_those_of_the_backup_never_become_data() {
    let backed = BackedUp::new().await;
    let (dir, file, snapshot) = (backed.dir(), backed.object(), &backed.snapshot);
    let good = std::fs::read(&file).unwrap();
    let other = Snapshot { rdb_sha256: "00".repeat(32), ..snapshot.clone() };
    let fresh = empty().await;
    for (bytes, of, why) in [
        (touched(&good), snapshot, "cannot be decrypted"),
        (good[..good.len() - 20].to_vec(), snapshot, "cannot be decrypted"),
        (good.clone(), &other, "not those of the manifest"),
    ] {
        std::fs::write(&file, bytes).unwrap();
        fresh.command(1, restore(dir, of)).await.unwrap();
        let task = restored(&fresh).await;
        assert!(task.phase == TaskPhase::Failed && task.error.contains(why), "{task:?}");
        let state = fresh.until(|s| !s.redis.is_syncing() && s.redis.master_host.is_empty()).await;
        assert_eq!((state.redis.keys, state.redis.fenced), (0, true));
    }
    // The good ones are taken after all of that.
    std::fs::write(&file, good).unwrap();
    fresh.command(1, restore(dir, snapshot)).await.unwrap();
    assert_eq!(restored(&fresh).await.phase, TaskPhase::Done);
    fresh.until(|s| s.redis.keys == 507).await;
    std::fs::remove_file(&file).unwrap();
    let fresh = empty().await;
    fresh.command(1, restore(dir, snapshot)).await.unwrap();
    assert!(restored(&fresh).await.error.contains("no such bucket or object"));
}

fn verify(dir: &Path, run: &str, of: &Snapshot, memory_bytes: u64) -> Command {
    Command::Verify(wire::Verify {
        run: run.into(),
        id: ID.into(),
        storage: Some(storage(dir)),
        object: object(),
        key: KEY.to_vec(),
        rdb_bytes: of.rdb_bytes,
        rdb_sha256: of.rdb_sha256.clone(),
        memory_bytes,
    })
}

async fn verified(node: &TestNode, run: &str) -> VerifyTask {
    let ended = |task: &VerifyTask| {
        task.run == run && matches!(task.phase, TaskPhase::Done | TaskPhase::Failed)
    };
    let mut states = node.node.subscribe();
    let work = states.wait_for(|state| state.verify.as_ref().is_some_and(ended));
    // At the lowest priority: everybody else on a busy machine comes first.
    let state = tokio::time::timeout(6 * super::tests::PATIENCE, work).await;
    state.expect("it ends").unwrap().verify.clone().unwrap()
}

/// Nobody answers on the socket of the redis-server that is thrown away.
async fn is_gone(node: &TestNode) {
    let socket = node.node.settings.run_dir.join("verify/redis.sock");
    let gone = async {
        while std::os::unix::net::UnixStream::connect(&socket).is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::tests::PATIENCE, gone).await.expect("it is ended");
}

const ROOM: u64 = 256 << 20;

/// The node's own redis goes on as it was: same process, same data, same place in the history.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_restored_beside_the_data_of_a_replica_which_notices_nothing() {
    let backed = BackedUp::new().await;
    let BackedUp { master, replica, snapshot } = &backed;
    assert!(snapshot.exact_keys && snapshot.memory_bytes > 0, "{snapshot:?}");
    master.write("after", "1").await.unwrap();
    let before = replica.until(|s| s.redis.keys == 508).await;

    let task = backed.verified("v1", snapshot, ROOM).await;
    assert_eq!((task.phase, task.error.as_str(), task.keys), (TaskPhase::Done, "", 507));
    assert!(task.memory_bytes > 0 && task.took_ms > 0, "{task:?}");
    is_gone(replica).await;
    let again = backed.verified("v1", snapshot, ROOM).await;
    assert_eq!(again, task, "the same attempt changes nothing");

    let file = backed.object();
    let good = std::fs::read(&file).unwrap();
    let other = Snapshot { rdb_sha256: "00".repeat(32), ..snapshot.clone() };
    for (run, bytes, of, why) in [
        ("v2", touched(&good), snapshot, "cannot be decrypted"),
        ("v3", good.clone(), &other, "not those of the manifest"),
    ] {
        std::fs::write(&file, bytes).unwrap();
        let task = backed.verified(run, of, ROOM).await;
        assert!(task.phase == TaskPhase::Failed && task.damaged, "{task:?}");
        assert!(task.error.contains(why), "{task:?}");
    }
    std::fs::remove_file(&file).unwrap();
    let task = backed.verified("v4", snapshot, ROOM).await;
    assert!(task.damaged && task.error.contains("no such bucket or object"), "{task:?}");
    is_gone(replica).await;
    let after = replica.node.peek().redis;
    assert!(after.is_linked() && after.run_id == before.redis.run_id);
    assert_eq!((after.keys, &after.replid), (508, &before.redis.replid));
}

/// What takes more memory than it was given says that, and nothing against the backup.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rehearsal_takes_no_more_memory_than_it_was_given_and_ends_however_redis_does() {
    let (master, replica) = pair().await;
    let mut client = master.client().await;
    // Takes a few bytes in the file, and 80 MB in memory.
    let value = "v".repeat(2_000_000);
    for n in 0..40 {
        redis::cmd("SET").arg(format!("k{n}")).arg(&value).exec_async(&mut client).await.unwrap();
    }
    let backed = BackedUp::of(master, replica, 40).await;
    let snapshot = &backed.snapshot;
    assert!(snapshot.memory_bytes > 80_000_000 && snapshot.rdb_bytes < 20_000_000, "{snapshot:?}");
    lacks_memory(&backed).await;
}

/// A rehearsal within 1 MiB ends for want of memory, which says nothing against the backup, and its
/// redis is gone.
async fn lacks_memory(backed: &BackedUp) {
    let task = backed.verified("v1", &backed.snapshot, 1 << 20).await;
    assert!(task.phase == TaskPhase::Failed && !task.damaged, "{task:?}");
    assert!(task.error.contains("need more memory than the 1 MiB"), "{task:?}");
    is_gone(&backed.replica).await;
}

/// The same, where the second redis-server of the replica's node is this script.
async fn with_a_second_redis(script: &str) -> BackedUp {
    let master = empty().await;
    master.command(1, promote(0)).await.unwrap();
    filled(&master).await;
    let dir = super::tests::open_dir();
    let program = dir.path().join("some-redis-server");
    // Written by another process: a file that this one has open for writing cannot be run.
    let lines = format!("case \"$1\" in */verify/*) {script};; *) exec redis-server \"$@\";; esac");
    let write = "printf '#!/bin/sh\\n%s\\n' \"$2\" > \"$1\" && chmod 755 \"$1\"";
    let mut shell = std::process::Command::new("sh");
    let written = shell.args(["-c", write, "sh"]).arg(&program).arg(lines).status().unwrap();
    assert!(written.success());
    let settings = super::tests::settings(dir.path(), master.port());
    let settings = super::settings::Settings { redis_server: program, ..settings };
    let replica = TestNode::start_as(dir, settings, super::tests::identity(), false);
    replica.running().await;
    replica.command(1, usual_settings()).await.unwrap();
    replica.command(1, follow(false)).await.unwrap();
    BackedUp::of(master, replica, 507).await
}

/// Redis may stand still in the report of its crash, and never exit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rehearsal_whose_redis_stands_still_for_want_of_memory_is_ended_at_once() {
    let stands = "echo $$ > \"${1%/*}/pid\"; echo \"# Out Of Memory allocating 5 bytes!\"; exec sleep 100000";
    let backed = with_a_second_redis(stands).await;
    lacks_memory(&backed).await;
    let pid = backed.replica.node.settings.run_dir.join("verify/pid");
    let pid = std::fs::read_to_string(pid).unwrap();
    let process = PathBuf::from(format!("/proc/{}", pid.trim()));
    let gone = async {
        while process.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::tests::PATIENCE, gone).await.expect("it is killed");
}

/// One that never gets so far as to ask for the data knows nothing of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_does_not_start_says_nothing_against_the_backup() {
    let backed = with_a_second_redis("echo \"# no\"; exit 3").await;
    let task = backed.verified("v1", &backed.snapshot, ROOM).await;
    assert!(task.phase == TaskPhase::Failed && !task.damaged, "{task:?}");
    assert!(task.error.contains("before it asked") && task.error.contains("# no"), "{task:?}");
}

/// It is ended when the node becomes master; what an agent left behind that was killed, by the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rehearsal_ends_when_its_node_has_something_else_to_do() {
    let backed = BackedUp::new().await;
    let BackedUp { replica, snapshot, .. } = &backed;
    // A storage that never answers: the restore waits for it.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let Command::Verify(mut never) = verify(backed.dir(), "v1", snapshot, ROOM) else { panic!() };
    never.storage = Some(wire::ObjectStorage {
        url: "s3://bucket/x".into(),
        endpoint,
        access_key_id: "a".into(),
        secret_access_key: "b".into(),
        ..wire::ObjectStorage::default()
    });
    replica.command(1, Command::Verify(never)).await.unwrap();
    let socket = replica.node.settings.run_dir.join("verify/redis.sock");
    let up = async {
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::tests::PATIENCE, up).await.expect("it is started");
    replica.command(2, promote(0)).await.unwrap();
    let task = verified(replica, "v1").await;
    assert!(task.phase == TaskPhase::Failed && !task.damaged, "{task:?}");
    assert!(task.error.contains("becomes master"), "{task:?}");
    is_gone(replica).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_agent_left_of_a_rehearsal_is_ended() {
    let dir = super::tests::open_dir();
    let run_dir = dir.path().join("run");
    let place = run_dir.join("verify");
    std::fs::create_dir_all(&place).unwrap();
    let socket = place.join("redis.sock");
    let config =
        super::redis_config::throw_away(&place, &socket, 1, &std::collections::BTreeMap::new());
    std::fs::write(place.join("redis.conf"), config).unwrap();
    let mut left = tokio::process::Command::new("redis-server")
        .arg(place.join("redis.conf"))
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let up = async {
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::tests::PATIENCE, up).await.expect("it is started");
    super::verify::end_left_over(&run_dir).await;
    let ended = tokio::time::timeout(super::tests::PATIENCE, left.wait()).await;
    assert!(ended.expect("it is ended").is_ok() && !place.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_no_replica_in_sync_is_not_backed_up() {
    let node = empty().await;
    let dir = node.dir.clone();
    let refused = node.command(1, back_up(dir.path())).await.unwrap_err();
    assert!(refused.message().contains("no replica in sync"), "{refused:?}");
    node.command(1, promote(0)).await.unwrap();
    node.command(1, back_up(dir.path())).await.unwrap();
    assert_eq!(taken(&node).await.phase, TaskPhase::Done, "a master that is alone is");
}
