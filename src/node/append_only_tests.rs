//! What is there after Redis has loaded its append-only file.
//!
//! What clients did together: it carries out a transaction of that file as its default user, whom
//! nobody can be. And what its master sent: until Redis has written the file anew, the one that it
//! would load is that of before (docs/decisions/0115).

use std::path::Path;

use redis::{ErrorKind, RedisError};
use tokio::time::timeout;

use super::append_only::Covered;
use super::redis_control::ANSWER;
use super::restore_tests::{node, node_of, servers};
use super::tests::{PATIENCE, TestNode, follow, open_dir, promote, unhurried, usual_settings};
use crate::model::node::{History, NodeState, Process};

const TOGETHER: &str = "redis.call('SET', 'c', 1) redis.call('RPUSH', 'd', 1) return 'OK'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_server_loads_the_transactions_of_its_append_only_file() {
    let dir = open_dir();
    for server in servers(dir.path()) {
        let node = node(&server).await;
        node.command(1, promote(0)).await.unwrap();
        let logs = async {
            while !node.instance.has_append_only_file() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, logs).await.expect("its first file");
        let mut client = node.client().await;
        redis::cmd("SET").arg("alone").arg(1).exec_async(&mut client).await.unwrap();
        let mut both = redis::pipe();
        both.atomic().cmd("SET").arg("a").arg(1).cmd("HSET").arg("b").arg("f").arg(1);
        both.exec_async(&mut client).await.unwrap();
        redis::cmd("EVAL").arg(TOGETHER).arg(0).exec_async(&mut client).await.unwrap();

        let run_id = node.node.peek().redis.run_id;
        node.kill_redis();
        let back = |s: &NodeState| {
            let runs = s.redis.process == Process::Running && !s.redis.loading;
            runs && !s.redis.run_id.is_empty() && s.redis.run_id != run_id
        };
        let state = node.until(back).await;
        assert_eq!(state.redis.keys, 5, "{}", server.display());
        node.command(2, usual_settings()).await.unwrap();
        node.command(2, promote(0)).await.unwrap();
        assert_eq!(node.read("c").await.as_deref(), Some("1"));
        for way in ["", "default@", ":@", "default:x@"] {
            let asked = ask_as(way, node.port()).await.expect_err("nobody is the default user");
            let refused =
                asked.kind() == ErrorKind::AuthenticationFailed || asked.code() == Some("NOAUTH");
            assert!(refused, "{}: {way:?}: {asked}", server.display());
        }
        node.stop().await;
    }
}

async fn ask_as(way: &str, port: u16) -> Result<(), RedisError> {
    let client = redis::Client::open(format!("redis://{way}127.0.0.1:{port}/"))?;
    let mut connection = client.get_multiplexed_async_connection_with_config(&unhurried()).await?;
    redis::cmd("GET").arg("alone").exec_async(&mut connection).await
}

/// Keys of the master, and microseconds that a server takes to write each of them to a file: far
/// more than a test takes.
const KEYS: u64 = 20;
const SLOWLY: &str = "500000";

/// A master with data, and a replica that has them and is still about to write them to its
/// append-only file.
struct Unwritten {
    master: TestNode,
    replica: TestNode,
    /// Where the replica stood when it was in sync.
    history: History,
}

impl Unwritten {
    async fn new(server: &Path) -> Self {
        let master = node(server).await;
        master.command(1, promote(0)).await.unwrap();
        for n in 0..KEYS {
            master.write(&n.to_string(), "sent").await.unwrap();
        }
        let replica = node_of(server, master.port()).await;
        covered(&replica).await;
        writes_slowly(&replica).await;
        replica.command(1, follow(false)).await.unwrap();
        replica.until(|s| s.redis.is_linked() && s.redis.online_epoch == 1).await;
        master.write("later", "not in the snapshot").await.unwrap();
        let end = master.until(|s| s.redis.keys == KEYS + 1).await.redis.offset;
        let state = replica.until(|s| s.history.as_ref().is_some_and(|h| h.offset >= end)).await;
        assert_eq!(state.redis.keys, KEYS + 1, "{}", server.display());
        Self { master, replica, history: state.history.unwrap() }
    }
}

/// It is in mind that the append-only file has everything.
async fn covered(node: &TestNode) -> Covered {
    let kept = async {
        loop {
            if let Some(covered) = node.node.files.append_only().unwrap() {
                return covered;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, kept).await.expect("it is written down")
}

async fn writes_slowly(node: &TestNode) {
    let mut session = node.node.redis.open(ANSWER).await.unwrap();
    session.set(&[("rdb-key-save-delay", SLOWLY.to_owned())]).await.unwrap();
}

/// Once another process has loaded what it starts with.
async fn back(node: &TestNode, run_id: &str) -> NodeState {
    let state = node.until(|s| {
        let redis = &s.redis;
        let runs = redis.process == Process::Running && !redis.loading;
        runs && !redis.run_id.is_empty() && redis.run_id != run_id
    });
    state.await
}

/// The snapshot that its master sent, and it says so.
fn has_what_was_sent(state: &NodeState, before: &History, server: &Path) {
    let server = server.display();
    assert_eq!(state.redis.keys, KEYS, "{server}: what came after the snapshot is gone");
    let history = state.history.as_ref().unwrap();
    assert_eq!((&history.replid, history.epoch), (&before.replid, 1), "{server}");
    assert!(history.offset < before.offset, "{server}: {history:?} after {before:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_dies_before_its_file_is_written_has_what_its_master_sent() {
    let dir = open_dir();
    for server in servers(dir.path()) {
        let Unwritten { master, replica, history } = Unwritten::new(&server).await;
        let run_id = replica.node.peek().redis.run_id;
        replica.kill_redis();
        let state = back(&replica, &run_id).await;
        has_what_was_sent(&state, &history, &server);
        assert_eq!(state.history.unwrap().gap_ms, 0, "its master has what it lacks");
        replica.stop().await;
        master.stop().await;
    }
}

/// As above, and its agent dies with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_dies_before_the_file_is_written_has_what_its_master_sent() {
    let server = Path::new("redis-server");
    let Unwritten { master, mut replica, history } = Unwritten::new(server).await;
    super::history::keep(&replica.node);
    let port = replica.node.settings.master_port;
    replica.crash().await;
    let replica = TestNode::start_in(replica.dir.clone(), port);
    let state = replica.running().await;
    has_what_was_sent(&state, &history, server);
    replica.stop().await;
    master.stop().await;
}

/// It has not what it was promoted with, and nobody may take it for whole: neither is it empty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_dies_before_its_file_is_written_is_not_said_to_have_all() {
    let server = Path::new("redis-server");
    let Unwritten { master, replica, history } = Unwritten::new(server).await;
    replica.command(2, promote(0)).await.unwrap();
    replica.write("as master", "1").await.unwrap();
    let promoted = replica.until(|s| s.redis.keys == KEYS + 2).await;
    assert_eq!(promoted.history.unwrap().epoch, 2);
    replica.kill_redis();
    let state = back(&replica, &promoted.redis.run_id).await;
    has_what_was_sent(&state, &history, server);
    assert_eq!(state.history.unwrap().gap_ms, History::UNKNOWN_GAP);
    replica.stop().await;
    master.stop().await;
}

/// A snapshot that comes after the last write is no reason to forget what is in the append-only file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_dies_after_its_own_snapshot_has_all_that_was_written_meanwhile() {
    let node = node(Path::new("redis-server")).await;
    node.command(1, promote(0)).await.unwrap();
    covered(&node).await;
    node.write("before", "1").await.unwrap();
    writes_slowly(&node).await;
    let mut session = node.node.redis.open(ANSWER).await.unwrap();
    session.run(&redis::cmd("BGSAVE")).await.unwrap();
    node.write("meanwhile", "1").await.unwrap();
    let ended = async {
        while session.info().await.unwrap().flag("rdb_bgsave_in_progress") {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, ended).await.expect("the snapshot");
    assert!(node.instance.dump().exists());
    let run_id = node.node.peek().redis.run_id;
    node.kill_redis();
    assert_eq!(back(&node, &run_id).await.redis.keys, 2);
    node.stop().await;
}

/// Once the file is written, it is what counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_file_is_written_has_all_of_it() {
    let dir = open_dir();
    for server in servers(dir.path()) {
        let master = node(&server).await;
        master.command(1, promote(0)).await.unwrap();
        master.write("sent", "1").await.unwrap();
        let replica = node_of(&server, master.port()).await;
        let before = covered(&replica).await;
        replica.command(1, follow(false)).await.unwrap();
        replica.until(|s| s.redis.is_linked() && s.redis.online_epoch == 1).await;
        let kept = async {
            while covered(&replica).await == before {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, kept).await.expect("the snapshot of the master is in mind");
        master.write("later", "1").await.unwrap();
        let state = replica.until(|s| s.redis.keys == 2).await;
        replica.kill_redis();
        let after = back(&replica, &state.redis.run_id).await;
        assert_eq!(after.redis.keys, 2, "{}", server.display());
        assert_eq!(after.history.map(|h| h.epoch), Some(1));
        replica.stop().await;
        master.stop().await;
    }
}
