//! Redis loads a backup while it comes: what is told of it while nothing comes, and what is there
//! whenever somebody dies.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::backup_tests::{ID, KEY, back_up, object, restore, restored, stored, taken};
use super::redis_config::{FROM_A_BACKUP, FROM_A_MASTER};
use super::redis_control::ANSWER;
use super::settings::Settings;
use super::tests::{
    PATIENCE, TestNode, app_settings, identity, open_dir, promote, settings, usual_settings,
};
use crate::backup::format::BackupKey;
use crate::backup::storage::Storage;
use crate::backup::stream::{decrypt, upload};
use crate::model::backup::{RestoreTask, Snapshot, StorageSpec, TaskPhase};
use crate::model::node::{NodeState, Process};
use crate::wire::akash_redis::agent::v1 as wire;
use wire::command_request::Command;

/// Keys of the backup, and bytes of each value: of several blocks that are handed on.
const KEYS: u64 = 40;
const VALUE: usize = 128 << 10;
const RULES: &str = "~* &* +@all -@admin -@dangerous +info";

/// A backup, and the RDB file that is in it.
struct Backup {
    dir: Arc<tempfile::TempDir>,
    snapshot: Snapshot,
    rdb: Vec<u8>,
}

impl Backup {
    /// Of this server.
    async fn of(server: &Path) -> Self {
        let master = node(server).await;
        master.command(1, promote(0)).await.unwrap();
        let mut client = master.client().await;
        for n in 0..KEYS {
            let mut value = vec![0; VALUE];
            rand::RngCore::fill_bytes(&mut rand::thread_rng(), &mut value);
            redis::cmd("SET").arg(n).arg(value).exec_async(&mut client).await.unwrap();
        }
        master.command(1, back_up(master.dir.path())).await.unwrap();
        let snapshot = taken(&master).await.snapshot.unwrap();
        let dir = master.stop().await;
        let mut rdb = Vec::new();
        let object = std::fs::read(stored(dir.path())).unwrap();
        decrypt(&object[..], |_| BackupKey(KEY), &mut rdb).unwrap();
        Self { dir, snapshot, rdb }
    }

    fn restore(&self) -> Command {
        restore(self.dir.path(), &self.snapshot)
    }
}

/// An empty node with this server.
pub(super) async fn node(server: &Path) -> TestNode {
    node_of(server, 0).await
}

/// One that may follow a master at this port.
pub(super) async fn node_of(server: &Path, master_port: u16) -> TestNode {
    let dir = open_dir();
    let settings =
        Settings { redis_server: server.to_owned(), ..settings(dir.path(), master_port) };
    let node = TestNode::start_as(dir, settings, identity(), false);
    node.running().await;
    node.command(1, usual_settings()).await.unwrap();
    node
}

async fn own() -> TestNode {
    node(Path::new("redis-server")).await
}

/// Nothing of a restore is there: not in memory, and not on the volume.
async fn has_nothing(node: &TestNode) -> NodeState {
    let state = node
        .until(|s| {
            let redis = &s.redis;
            let runs = redis.process == Process::Running && !redis.loading && !redis.is_syncing();
            runs && redis.keys == 0 && redis.master_host.is_empty()
        })
        .await;
    assert!(state.redis.fenced);
    let data = &node.instance.data_dir;
    assert!(!data.join("restored.rdb").exists());
    // A redis that ends in order writes down that there is nothing.
    let length = std::fs::metadata(node.instance.dump()).map_or(0, |dump| dump.len());
    assert!(length < VALUE as u64, "{length} bytes");
    state
}

/// A storage that sends so many bytes of one object, and then what it is told to.
struct Faulty {
    endpoint: String,
    then: watch::Sender<Then>,
    _serving: AbortOnDropHandle<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Waits,
    Sends,
    Refuses,
}

impl Faulty {
    async fn new(object: Vec<u8>, first: usize) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let then = watch::Sender::new(Then::Waits);
        let (told, object) = (then.clone(), Arc::new(object));
        let serving = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (object, then) = (object.clone(), told.subscribe());
                tokio::spawn(async move { drop(answer(stream, &object, first, then).await) });
            }
        });
        Self { endpoint, then, _serving: AbortOnDropHandle::new(serving) }
    }

    fn restore(&self, of: &Backup) -> Command {
        let Command::Restore(restore) = of.restore() else { unreachable!() };
        let storage = Some(wire::ObjectStorage {
            url: "s3://bucket/x".into(),
            endpoint: self.endpoint.clone(),
            access_key_id: "a".into(),
            secret_access_key: "b".into(),
            ..wire::ObjectStorage::default()
        });
        Command::Restore(wire::Restore { storage, ..restore })
    }
}

/// One request for the object, or for what follows some byte of it.
async fn answer(
    mut stream: TcpStream,
    object: &[u8],
    first: usize,
    mut then: watch::Receiver<Then>,
) -> std::io::Result<()> {
    let (from, mut to) = stream.split();
    let (mut lines, mut begin) = (BufReader::new(from).lines(), 0);
    while let Some(line) = lines.next_line().await?.filter(|line| !line.is_empty()) {
        let line = line.to_ascii_lowercase();
        if let Some(range) = line.strip_prefix("range: bytes=") {
            begin = range.split('-').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        }
    }
    if *then.borrow() == Then::Refuses {
        return to.write_all(b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n").await;
    }
    let (length, end) = (object.len() - begin, object.len() - 1);
    let head = if begin == 0 {
        "200 OK\r\n".to_owned()
    } else {
        format!("206 Partial\r\ncontent-range: bytes {begin}-{end}/{}\r\n", object.len())
    };
    let head = format!(
        "HTTP/1.1 {head}content-length: {length}\r\netag: \"e\"\r\nlast-modified: Thu, 26 Nov 2026 03:00:00 GMT\r\nconnection: close\r\n\r\n"
    );
    to.write_all(head.as_bytes()).await?;
    let half = first.max(begin);
    to.write_all(&object[begin..half]).await?;
    let told = then.wait_for(|then| *then != Then::Waits).await.map(|then| *then);
    match told {
        Ok(Then::Sends) => to.write_all(&object[half..]).await,
        _ => Ok(()),
    }
}

/// A restore that stands still in the middle, for want of data.
struct Still {
    backup: Backup,
    storage: Faulty,
    node: TestNode,
}

impl Still {
    async fn new() -> Self {
        let backup = Backup::of(Path::new("redis-server")).await;
        let object = std::fs::read(stored(backup.dir.path())).unwrap();
        let half = object.len() / 2;
        let storage = Faulty::new(object, half).await;
        let node = own().await;
        node.command(1, storage.restore(&backup)).await.unwrap();
        // It has something of the data, and asks for more.
        node.until(|s| s.redis.loading).await;
        Self { backup, storage, node }
    }

    /// Redis answers nobody for much longer than what makes one stuck.
    async fn is_silent(&self) {
        let long = 3 * self.node.node.settings.stuck_after;
        let silent = async { while self.node.node.redis.apart(long).await.is_ok() {} };
        tokio::time::timeout(PATIENCE, silent).await.expect("it waits for data");
    }

    async fn ended(&self) -> RestoreTask {
        restored(&self.node).await
    }

    /// The same from a storage that is well.
    async fn again(&self) {
        self.node.command(1, self.backup.restore()).await.unwrap();
        let running = |s: &NodeState| s.restore.as_ref().is_some_and(|t| t.error.is_empty());
        self.node.until(running).await;
        assert_eq!((self.ended().await.phase, keys(&self.node).await), (TaskPhase::Done, KEYS));
    }
}

async fn keys(node: &TestNode) -> u64 {
    node.until(|s| s.redis.keys > 0 && !s.redis.loading).await.redis.keys
}

/// How redis copies a master.
async fn copies(node: &TestNode) -> Vec<(String, String)> {
    let mut session = node.node.redis.open(ANSWER).await.unwrap();
    let mut found = Vec::new();
    for (name, _) in FROM_A_MASTER {
        found.push((name.to_owned(), session.in_force(name).await.unwrap().unwrap()));
    }
    found
}

fn named(how: [(&str, &str); 2]) -> Vec<(String, String)> {
    how.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_waits_for_a_storage_is_no_stuck_one_and_gets_the_rest() {
    let still = Still::new().await;
    still.is_silent().await;
    let state = still.node.node.peek();
    assert!(state.redis.process == Process::Running && state.redis.loading, "{state:#?}");
    assert!(state.restore.is_some_and(|task| task.phase == TaskPhase::Running));
    let refused = still.node.command(1, app_settings(RULES, false)).await.unwrap_err();
    assert!(refused.message().contains("still loading"), "{refused:?}");
    still.storage.then.send_replace(Then::Sends);
    let task = still.ended().await;
    assert_eq!((task.phase, task.error.as_str()), (TaskPhase::Done, ""));
    assert_eq!(keys(&still.node).await, KEYS);
    assert_eq!(copies(&still.node).await, named(FROM_A_MASTER));
    assert!(std::fs::read(still.node.instance.dump()).unwrap() == still.backup.rdb);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storage_that_fails_in_the_middle_leaves_nothing() {
    let still = Still::new().await;
    still.storage.then.send_replace(Then::Refuses);
    let task = still.ended().await;
    assert!(task.phase == TaskPhase::Failed && task.error.contains("refuses the keys"), "{task:?}");
    has_nothing(&still.node).await;
    assert_eq!(copies(&still.node).await, named(FROM_A_MASTER));
    still.again().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_dies_in_the_middle_starts_with_nothing() {
    let still = Still::new().await;
    let run_id = still.node.node.peek().redis.run_id;
    still.node.kill_redis();
    let state = still.node.until(|s| s.redis.process == Process::Exited).await;
    assert!(!still.node.instance.dump().exists(), "{state:?}");
    still.storage.then.send_replace(Then::Sends);
    assert_eq!(still.ended().await.phase, TaskPhase::Failed);
    let state = has_nothing(&still.node).await;
    assert_ne!(state.redis.run_id, run_id);
    still.node.command(1, usual_settings()).await.unwrap();
    still.again().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_stops_in_the_middle_stops_its_redis_as_always() {
    let still = Still::new().await;
    let book = still.node.node.book.clone();
    let dir = still.node.stop().await;
    let last = book.last_of("agent").unwrap_or_default();
    assert!(last.contains("redis-server is gone: exit status: 0"), "{last}");
    let back = TestNode::start_in(dir, 0);
    back.running().await;
    has_nothing(&back).await;
}

/// Its agent is gone and with it the link: Redis goes on, empty, and the next agent begins anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_whose_agent_dies_in_the_middle_drops_what_it_had() {
    let still = Still::new().await;
    let run_id = still.node.node.peek().redis.run_id;
    super::restore::end(&still.node.node);
    let state = still.node.until(|s| !s.redis.loading && s.redis.keys == 0).await;
    assert_eq!(state.redis.run_id, run_id);
    assert_eq!(copies(&still.node).await, named(FROM_A_BACKUP), "nobody told it otherwise");
    assert!(!still.node.instance.dump().exists());
    // Whatever it is to be next, it is as every other.
    still.node.command(2, promote(0)).await.unwrap();
    assert_eq!(copies(&still.node).await, named(FROM_A_MASTER));
}

/// Redis writes its append-only file anew after a full sync, which takes minutes. Until then the one
/// of before is there, in which there is nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_restored_is_there_whenever_redis_dies() {
    let backup = Backup::of(Path::new("redis-server")).await;
    for append_only in [true, false] {
        let node = own().await;
        node.command(1, app_settings(RULES, append_only)).await.unwrap();
        let logged = async {
            while node.instance.has_append_only_file() != append_only {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, logged).await.expect("its first file");
        let mut session = node.node.redis.open(ANSWER).await.unwrap();
        // Microseconds for each key that it writes.
        session.set(&[("rdb-key-save-delay", "500000".to_owned())]).await.unwrap();
        node.command(1, backup.restore()).await.unwrap();
        assert_eq!(restored(&node).await.phase, TaskPhase::Done);
        assert!(std::fs::read(node.instance.dump()).unwrap() == backup.rdb);
        node.until(|s| s.redis.is_linked()).await;
        node.command(2, promote(0)).await.unwrap();
        assert!(!node.instance.has_append_only_file(), "Redis still writes it");
        let run_id = node.node.peek().redis.run_id;
        node.kill_redis();
        let state = node.until(|s| {
            s.redis.run_id != run_id && s.redis.process == Process::Running && !s.redis.loading
        });
        assert_eq!(state.await.redis.keys, KEYS);
        node.stop().await;
    }
}

/// It died before anybody said that it is master: nothing of what it has counts, and it gets it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_has_the_data_already_is_given_them_anew() {
    let backup = Backup::of(Path::new("redis-server")).await;
    let node = own().await;
    node.command(1, backup.restore()).await.unwrap();
    let task = restored(&node).await;
    node.kill_redis();
    node.until(|s| {
        let runs = s.redis.process == Process::Running && !s.redis.loading;
        runs && s.redis.run_id != task.run_id
    })
    .await;
    assert_eq!(keys(&node).await, KEYS);
    node.command(1, usual_settings()).await.unwrap();
    node.command(1, backup.restore()).await.unwrap();
    let ended = |s: &NodeState| {
        let again = s.restore.as_ref().filter(|again| again.run_id != task.run_id);
        again.is_some_and(|again| again.phase == TaskPhase::Done)
    };
    let state = node.until(ended).await;
    assert_eq!(state.restore.unwrap().run_id, state.redis.run_id);
    assert_eq!(keys(&node).await, KEYS);
    assert!(std::fs::read(node.instance.dump()).unwrap() == backup.rdb);
    assert!(!node.instance.data_dir.join("restored.rdb").exists());
}

/// This machine's own, and those that `make servers` brings, where they are: copied to where Redis'
/// own user may run them.
pub(super) fn servers(to: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("redis-server")];
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"),
        PathBuf::from,
    );
    let Ok(entries) = std::fs::read_dir(cache.join("akash-redis/servers")) else { return found };
    for entry in entries.flatten() {
        let copied = std::process::Command::new("cp").arg("-r").arg(entry.path()).arg(to).status();
        assert!(copied.unwrap().success());
        found.push(to.join(entry.file_name()).join("server"));
    }
    found
}

/// What comes back is what was there, or nothing: also where the last byte alone is another one, and
/// where it is Redis that finds that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_server_loads_all_of_a_backup_or_nothing() {
    let dir = open_dir();
    for server in servers(dir.path()) {
        let backup = Backup::of(&server).await;
        let file = stored(backup.dir.path());
        let good = std::fs::read(&file).unwrap();
        let node = node(&server).await;

        let mut touched = good.clone();
        *touched.last_mut().unwrap() ^= 1;
        std::fs::write(&file, touched).unwrap();
        node.command(1, backup.restore()).await.unwrap();
        let task = restored(&node).await;
        assert!(task.error.contains("cannot be decrypted"), "{}: {task:?}", server.display());
        let run_id = has_nothing(&node).await.redis.run_id;

        let mut rdb = backup.rdb.clone();
        *rdb.last_mut().unwrap() ^= 1;
        let url = format!("file://{}", backup.dir.path().join("bucket").display());
        let spec = StorageSpec { url, ..StorageSpec::default() };
        let storage = Storage::open(&spec, None).unwrap();
        let (total, rdb) = (rdb.len() as u64, std::io::Cursor::new(rdb));
        let key = BackupKey(KEY);
        let up = upload(&storage, &object(), (ID, &key), rdb, total, |_| {}).await.unwrap();
        let wrong = Snapshot { rdb_sha256: up.plain_sha256, ..backup.snapshot.clone() };
        node.command(1, restore(backup.dir.path(), &wrong)).await.unwrap();
        let ended = |s: &NodeState| {
            s.restore.as_ref().is_some_and(|task| task.error.contains("its log says why"))
        };
        node.until(ended).await;
        // It ends itself.
        node.until(|s| s.redis.run_id != run_id && !s.redis.run_id.is_empty()).await;
        has_nothing(&node).await;
        node.command(1, usual_settings()).await.unwrap();

        std::fs::write(&file, good).unwrap();
        node.command(1, backup.restore()).await.unwrap();
        node.until(|s| s.restore.as_ref().is_some_and(|t| t.phase == TaskPhase::Done)).await;
        assert_eq!(keys(&node).await, KEYS, "{}", server.display());
        assert!(std::fs::read(node.instance.dump()).unwrap() == backup.rdb);
        node.command(2, promote(0)).await.unwrap();
        let mut client = node.client().await;
        let value: Vec<u8> = redis::cmd("GET").arg(7).query_async(&mut client).await.unwrap();
        assert_eq!(value.len(), VALUE);
        node.stop().await;
    }
}
