//! The log of writes between real redis-servers: a moment before a mistake comes back byte by byte,
//! through a promotion; a gap is seen; what is missing or damaged is told with what can be restored.

use std::path::{Path, PathBuf};

use super::redis_control::ANSWER;
use super::tests::{PATIENCE, TestNode, follow, pair, promote, usual_settings};
use crate::backup::storage::Storage;
use crate::backup::{archive, data_object, manifest, manifest_object};
use crate::model::archive::{ArchiveTask, Part, Point, route};
use crate::model::backup::{BackupManifest, FORMAT, Listing, MasterSeen, StorageSpec, TaskPhase};
use crate::model::ids::IncarnationName;
use crate::model::node::{NodeState, ReplicaState};
use crate::model::time::UnixMs;
use crate::secrets::RootSecret;
use crate::wire::akash_redis::agent::v1 as wire;
use wire::command_request::Command;

const CLUSTER: &str = "cache";
const UID: &str = "u-1";

fn root() -> RootSecret {
    RootSecret::new(vec![9; 32].into()).unwrap()
}

/// A bucket in a directory that outlives the nodes.
struct Bucket(tempfile::TempDir);

impl Bucket {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn url(&self) -> String {
        format!("file://{}", self.0.path().display())
    }

    fn storage(&self) -> Storage {
        let spec = StorageSpec { url: self.url(), ..StorageSpec::default() };
        Storage::open(&spec, None).unwrap()
    }

    fn on_wire(&self) -> wire::ObjectStorage {
        wire::ObjectStorage { url: self.url(), ..wire::ObjectStorage::default() }
    }

    fn log() -> wire::Log {
        let prefix = archive::log_prefix(&root().installation_id(), CLUSTER);
        wire::Log { cluster: CLUSTER.into(), uid: UID.into(), prefix }
    }

    fn archive(&self, run: &str, anew: bool) -> Command {
        Command::Archive(wire::Archive {
            run: run.into(),
            storage: Some(self.on_wire()),
            log: Some(Self::log()),
            key: root().backup_key(run).to_vec(),
            anew,
        })
    }

    /// Has a node take a backup, and makes it one.
    async fn back_up(&self, node: &TestNode, id: &str) {
        let taken = UnixMs::now();
        let object = data_object(&root().installation_id(), CLUSTER, id);
        let command = Command::Backup(wire::Backup {
            id: id.into(),
            storage: Some(self.on_wire()),
            object,
            key: root().backup_key(id).to_vec(),
        });
        node.command(1, command).await.unwrap();
        let done = |s: &NodeState| s.backup.as_ref().is_some_and(|b| b.phase == TaskPhase::Done);
        let snapshot = node.until(done).await.backup.unwrap().snapshot.unwrap();
        let manifest = BackupManifest {
            format: FORMAT,
            id: id.into(),
            installation: root().installation_id(),
            cluster: CLUSTER.into(),
            uid: UID.into(),
            incarnation: IncarnationName("cache-1-x7k2".into()),
            taken,
            epoch: 1,
            snapshot,
            master: MasterSeen::default(),
            users: Vec::new(),
        };
        let object = manifest_object(&root().installation_id(), CLUSTER, id);
        self.storage().put(&object, manifest::signed(&root(), &manifest)).await.unwrap();
    }

    async fn list(&self) -> Listing {
        self.storage().list(&root(), CLUSTER).await.unwrap()
    }

    async fn survey(&self, to: UnixMs) -> Option<Result<Point, String>> {
        let listing = self.list().await;
        self.storage().survey(&root(), CLUSTER, &listing, to).await.unwrap()
    }

    /// How a moment is reached, once the log has come so far.
    async fn reached(&self, to: UnixMs) -> Point {
        let work = async {
            loop {
                if let Some(Ok(point)) = self.survey(to).await {
                    return point;
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, work).await.expect("the log never came so far")
    }

    /// Gives an empty node what a point says.
    async fn restored(&self, point: &Point) -> TestNode {
        let fresh = TestNode::start(0);
        fresh.running().await;
        fresh.command(1, usual_settings()).await.unwrap();
        let listing = self.list().await;
        let base = listing.backups.iter().find(|b| b.id == point.backup).unwrap();
        let part = |p: &Part| wire::LogPart {
            run: p.run.clone(),
            key: root().backup_key(&p.run).to_vec(),
            first: p.first,
            end: p.end,
        };
        let command = Command::Restore(wire::Restore {
            id: base.id.clone(),
            storage: Some(self.on_wire()),
            object: data_object(&root().installation_id(), CLUSTER, &base.id),
            key: root().backup_key(&base.id).to_vec(),
            rdb_bytes: base.snapshot.rdb_bytes,
            rdb_sha256: base.snapshot.rdb_sha256.clone(),
            log: Some(Self::log()),
            parts: point.parts.iter().map(part).collect(),
        });
        fresh.command(1, command).await.unwrap();
        let ended = |s: &NodeState| {
            let phase = s.restore.as_ref().map(|r| r.phase);
            matches!(phase, Some(TaskPhase::Done | TaskPhase::Failed))
        };
        let task = fresh.until(ended).await.restore.unwrap();
        assert_eq!((task.phase, task.error.as_str()), (TaskPhase::Done, ""));
        fresh
    }

    /// The files of the log, in order.
    fn files(&self) -> Vec<PathBuf> {
        fn below(dir: &Path, all: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(dir).unwrap().flatten() {
                if entry.path().is_dir() {
                    below(&entry.path(), all);
                } else if entry.path().extension().is_some_and(|e| e == "log") {
                    all.push(entry.path());
                }
            }
        }
        let mut all = Vec::new();
        below(self.0.path(), &mut all);
        all.sort();
        all
    }
}

async fn archiving(node: &TestNode, run: &str) -> ArchiveTask {
    let there = |s: &NodeState| {
        s.archive
            .as_ref()
            .is_some_and(|a| a.run == run && (a.stored > 0 || a.phase == TaskPhase::Failed))
    };
    node.until(there).await.archive.unwrap()
}

impl Bucket {
    /// What is in the storage now, whatever comes after.
    fn as_of_now(&self) -> Self {
        let copy = Self::new();
        let mut command = std::process::Command::new("cp");
        // What is being written has another name until it is whole.
        let copied = command.arg("-r").arg(self.0.path().join(".")).arg(copy.0.path()).status();
        assert!(copied.unwrap().success());
        copy
    }

    /// The way from the newest backup to the end of the log, as after the loss of all nodes.
    async fn to_the_end(&self) -> Point {
        let Listing { backups, log, .. } = self.list().await;
        let base = backups.last().unwrap();
        let way = route(&log, UID, &base.snapshot.replid, base.snapshot.offset + 1);
        // None where it does not reach the backup yet.
        let mut parts = way.map(|way| way.parts).unwrap_or_default();
        if let Some(last) = parts.last_mut() {
            last.end = Part::OPEN;
        }
        Point { backup: base.id.clone(), uid: UID.into(), parts, at: UnixMs(u64::MAX) }
    }
}

/// Everything that was written is stored; the moment of that.
async fn stored(node: &TestNode) -> UnixMs {
    let mut session = node.node.redis.open(ANSWER).await.unwrap();
    let end = session.info().await.unwrap().number("master_repl_offset");
    node.until(|s| s.archive.as_ref().is_some_and(|a| a.stored > end)).await;
    UnixMs::now()
}

/// Every key of every database, with its value as Redis serializes it, and whether it expires.
async fn all(node: &TestNode) -> Vec<(u8, String, Vec<u8>, bool)> {
    let mut session = node.node.redis.apart(ANSWER).await.unwrap();
    let connection = &mut session.connection;
    let mut found = Vec::new();
    for db in [0, 3] {
        redis::cmd("SELECT").arg(db).exec_async(connection).await.unwrap();
        let mut keys: Vec<String> =
            redis::cmd("KEYS").arg("*").query_async(connection).await.unwrap();
        keys.sort();
        for key in keys {
            let value = redis::cmd("DUMP").arg(&key).query_async(connection).await.unwrap();
            let lives: i64 = redis::cmd("PTTL").arg(&key).query_async(connection).await.unwrap();
            found.push((db, key, value, lives > 0));
        }
    }
    found
}

async fn write(node: &TestNode, what: &str, count: usize) {
    let mut client = node.client().await;
    for n in 0..count {
        let mut pipe = redis::pipe();
        pipe.atomic();
        pipe.cmd("SELECT").arg(if n % 7 == 0 { 3 } else { 0 });
        pipe.cmd("SET").arg(format!("{what}:{n}")).arg(what.repeat(n));
        pipe.cmd("RPUSH").arg(format!("{what}:list")).arg(n);
        pipe.cmd("SET").arg(format!("{what}:lives")).arg(n).arg("EX").arg(3600);
        pipe.cmd("INCR").arg("count");
        pipe.exec_async(&mut client).await.unwrap();
    }
}

async fn flush(node: &TestNode) {
    let mut session = node.node.redis.open(ANSWER).await.unwrap();
    session.run(&redis::cmd("FLUSHALL")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moment_before_a_mistake_comes_back_byte_by_byte_through_a_promotion() {
    let bucket = Bucket::new();
    let (master, replica) = pair().await;
    write(&master, "a", 50).await;
    replica.command(1, bucket.archive("r1", false)).await.unwrap();
    let task = archiving(&replica, "r1").await;
    assert!(task.fresh && task.phase == TaskPhase::Running, "{task:?}");
    bucket.back_up(&replica, "b1").await;
    write(&master, "b", 50).await;
    let early = stored(&replica).await;
    let then = all(&master).await;
    write(&master, "c", 20).await;
    stored(&replica).await;

    // The master dies, and the node that archives takes over.
    master.stop().await;
    replica.until(|s| !s.redis.is_linked()).await;
    replica.command(2, promote(0)).await.unwrap();
    write(&replica, "d", 50).await;
    let late = stored(&replica).await;
    let before = all(&replica).await;
    flush(&replica).await;
    write(&replica, "e", 5).await;
    let after = stored(&replica).await;
    let last = all(&replica).await;

    for (to, expected) in [(late, &before), (early, &then), (after, &last)] {
        let point = bucket.reached(to).await;
        assert_eq!(point.backup, "b1");
        let fresh = bucket.restored(&point).await;
        assert!(all(&fresh).await == *expected, "as of {to}: {point:?}");
        assert!(fresh.write("x", "y").await.is_err(), "it is no master");
        fresh.until(|s| !s.redis.is_syncing()).await;
        fresh.command(2, promote(0)).await.unwrap();
        fresh.write("x", "y").await.unwrap();
        fresh.stop().await;
    }
    // To the end, as far as there is something.
    let mut point = bucket.reached(after).await;
    point.parts.last_mut().unwrap().end = Part::OPEN;
    let fresh = bucket.restored(&point).await;
    assert!(all(&fresh).await == last);
    // What was replayed is on the volume too.
    let run_id = fresh.node.peek().redis.run_id;
    fresh.kill_redis();
    let keys = u64::try_from(last.len()).unwrap();
    fresh.until(|s| s.redis.run_id != run_id && !s.redis.loading && s.redis.keys == keys).await;
    fresh.stop().await;

    let future = UnixMs(UnixMs::now().0 + 3_600_000);
    let why = bucket.survey(future).await.unwrap().unwrap_err();
    assert!(why.contains("ends at") && why.contains("as `at`"), "{why}");
    let files = bucket.files();
    let middle = &files[files.len() / 2];
    let good = std::fs::read(middle).unwrap();
    let mut touched = good.clone();
    let at = touched.len() / 2;
    touched[at] ^= 1;
    std::fs::write(middle, touched).unwrap();
    let why = bucket.survey(after).await.unwrap().unwrap_err();
    assert!(why.contains("cannot be used") && why.contains("write a time until"), "{why}");
    std::fs::remove_file(middle).unwrap();
    let why = bucket.survey(after).await.unwrap().unwrap_err();
    assert!(why.contains("ends at"), "{why}");
    std::fs::write(middle, good).unwrap();
    bucket.reached(after).await;

    // What no backup needs goes.
    let own = root().installation_id();
    bucket.storage().delete_log(&own, CLUSTER, UID, late).await.unwrap();
    assert!(bucket.files().len() < files.len());
    bucket.storage().delete_log(&own, CLUSTER, UID, UnixMs(u64::MAX)).await.unwrap();
    assert!(bucket.files().is_empty() && bucket.list().await.backups.len() == 1);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_goes_on_where_the_log_ends_and_a_gap_is_told() {
    let bucket = Bucket::new();
    let (master, replica) = pair().await;
    let other = TestNode::start(master.port());
    other.running().await;
    other.command(1, usual_settings()).await.unwrap();
    other.command(1, follow(false)).await.unwrap();
    other.until(|s| s.redis.is_linked()).await;
    replica.command(1, bucket.archive("r1", false)).await.unwrap();
    archiving(&replica, "r1").await;
    bucket.back_up(&replica, "b1").await;
    write(&master, "a", 20).await;
    stored(&replica).await;
    // Nobody archives, and then another node does: its backlog has what was written meanwhile.
    replica.command(1, Command::Archive(wire::Archive::default())).await.unwrap();
    write(&master, "b", 20).await;
    other.command(1, bucket.archive("r2", false)).await.unwrap();
    assert!(!archiving(&other, "r2").await.fresh);
    let to = stored(&other).await;
    let before = all(&master).await;
    let point = bucket.reached(to).await;
    assert_eq!(point.parts.len(), 2, "{point:?}");
    let fresh = bucket.restored(&point).await;
    assert!(all(&fresh).await == before);
    fresh.stop().await;
    // So much is written that no backlog has what follows.
    other.command(1, Command::Archive(wire::Archive::default())).await.unwrap();
    let mut client = master.client().await;
    for n in 0..40 {
        let value = "x".repeat(1 << 20);
        redis::cmd("SET")
            .arg(format!("big:{}", n % 8))
            .arg(value)
            .exec_async(&mut client)
            .await
            .unwrap();
    }
    let mut session = master.node.redis.open(ANSWER).await.unwrap();
    let end = session.info().await.unwrap().offset();
    replica.until(|s| s.redis.offset >= end).await;
    replica.command(1, bucket.archive("r3", false)).await.unwrap();
    let task = archiving(&replica, "r3").await;
    assert!(task.phase == TaskPhase::Failed && task.gap, "{task:?}");
    replica.command(1, bucket.archive("r4", true)).await.unwrap();
    let task = archiving(&replica, "r4").await;
    assert!(task.fresh && task.phase == TaskPhase::Running, "{task:?}");
    let why = bucket.survey(UnixMs::now()).await.unwrap().unwrap_err();
    assert!(why.contains("b1 ends at"), "{why}");
    for node in [master, replica, other] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_never_taken_for_a_replica_that_a_write_needs_nor_counted_by_wait() {
    let bucket = Bucket::new();
    let master = TestNode::start(0);
    master.running().await;
    master.command(1, usual_settings()).await.unwrap();
    master.command(1, promote(0)).await.unwrap();
    master.command(1, bucket.archive("r1", false)).await.unwrap();
    archiving(&master, "r1").await;
    let online = |s: &NodeState| s.redis.replicas.iter().any(|r| r.state == ReplicaState::Online);
    master.until(online).await;
    master.write("k", "v").await.unwrap();
    let mut session = master.node.redis.open(ANSWER).await.unwrap();
    let waited = session.ask(redis::cmd("WAIT").arg(1).arg(200)).await;
    assert_eq!(waited, "int(0)", "it confirms nothing");
    // Writes need a replica from now on: it leaves, and does not come back.
    let open = wire::Unfence { quorum: Some(super::tests::quorum(1)) };
    master.command(1, Command::Unfence(open)).await.unwrap();
    master.until(|s| s.redis.min_replicas == 1 && s.redis.replicas.is_empty()).await;
    assert_eq!(master.write("k", "w").await.unwrap_err().code(), Some("NOREPLICAS"));
    master.until(|s| s.archive.as_ref().is_some_and(|a| a.behind_since > UnixMs(0))).await;
    master.stop().await;
}

/// What may be lost with all nodes is what no node says is stored: the word of a node that a write is
/// stored holds if every node is lost at that very moment, whatever the storage was doing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_says_is_stored_outlives_the_loss_of_every_node_at_that_moment() {
    let bucket = Bucket::new();
    let (master, replica) = pair().await;
    replica.command(1, bucket.archive("r1", false)).await.unwrap();
    archiving(&replica, "r1").await;
    bucket.back_up(&replica, "b1").await;
    let mut client = master.client().await;
    // The number of each acknowledged write, and where it ends.
    let mut acknowledged: Vec<(i64, i64)> = Vec::new();
    let mut lost_now: Vec<(i64, Bucket)> = Vec::new();
    let mut said = 0;
    while lost_now.len() < 4 {
        let number = i64::try_from(acknowledged.len()).unwrap() + 1;
        redis::cmd("SET").arg("number").arg(number).exec_async(&mut client).await.unwrap();
        let info: String = redis::cmd("INFO").query_async(&mut client).await.unwrap();
        let field = info.lines().find_map(|l| l.strip_prefix("master_repl_offset:"));
        acknowledged.push((number, field.unwrap().parse().unwrap()));
        let task = replica.node.peek().archive.unwrap();
        if task.stored > said {
            // Right after a segment was stored, while the next one is being written.
            said = task.stored;
            lost_now.push((said, bucket.as_of_now()));
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    for (said, bucket) in lost_now {
        let last = acknowledged.iter().rfind(|(_, end)| *end < said).map_or(0, |(n, _)| *n);
        let fresh = bucket.restored(&bucket.to_the_end().await).await;
        let mut session = fresh.node.redis.apart(ANSWER).await.unwrap();
        let found: Option<i64> =
            redis::cmd("GET").arg("number").query_async(&mut session.connection).await.unwrap();
        assert!(found.unwrap_or(0) >= last, "{found:?} of {last}, with {said} said to be stored");
        fresh.stop().await;
    }
    master.stop().await;
    replica.stop().await;
}
