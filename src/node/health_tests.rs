//! How the agent sees that Redis is not well, and what it can do about it: real redis-servers.

use std::path::PathBuf;
use std::process::Command as Program;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::timeout;

use super::tests::{PATIENCE, TestNode, follow, open_dir, pair, promote, usual_settings};
use super::volume;
use crate::model::node::{Process, Role};
use crate::wire::akash_redis::agent::v1 as wire;
use wire::command_request::Command;

/// A master of epoch 1.
async fn master_in(dir: Arc<tempfile::TempDir>) -> TestNode {
    let node = TestNode::start_in(dir, 0);
    node.running().await;
    node.command(1, usual_settings()).await.unwrap();
    node.command(1, promote(0)).await.unwrap();
    node
}

impl TestNode {
    pub(super) async fn set_config(&self, name: &str, value: &str) {
        let mut session = self.node.redis.open(PATIENCE).await.unwrap();
        session.run(redis::cmd("CONFIG").arg("SET").arg(name).arg(value)).await.unwrap();
    }

    async fn refused_with(&self, code: &str) -> String {
        let is = |s: &crate::model::node::NodeState| {
            s.redis.health.refusal.as_ref().is_some_and(|r| r.code == code)
        };
        self.until(is).await.redis.health.refusal.unwrap().words
    }

    async fn taken(&self) {
        self.until(|s| s.redis.role == Role::Master && s.redis.health.refusal.is_none()).await;
    }

    /// Redis is looked at so many times more.
    async fn looks_again(&self, times: u64) {
        let mut looks = self.node.looks();
        for _ in 0..times {
            timeout(PATIENCE, looks.changed()).await.expect("it is looked at").unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_takes_no_writes_says_why_in_its_own_words() {
    let (master, replica) = pair().await;
    master.taken().await;
    master.set_config("min-replicas-to-write", "5").await;
    let words = master.refused_with("NOREPLICAS").await;
    assert!(words.contains("good replicas"), "{words}");
    master.set_config("min-replicas-to-write", "0").await;
    master.taken().await;
    master.set_config("maxmemory", "1").await;
    master.refused_with("OOM").await;
    master.set_config("maxmemory", "0").await;
    master.taken().await;
    let state = replica.node.peek();
    assert_eq!(state.redis.health.refusal, None, "a replica is not asked");
    master.stop().await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_ask_whether_a_write_is_taken_changes_nothing() {
    let (master, replica) = pair().await;
    // Its pings are part of its history; nothing else is written here.
    master.set_config("repl-ping-replica-period", "100000").await;
    let mut session = master.node.redis.open(PATIENCE).await.unwrap();
    let before = session.info().await.unwrap();
    for _ in 0..100 {
        session.run(redis::cmd("LPUSHX").arg("akash-redis:no-such-list").arg("")).await.unwrap();
    }
    let after = session.info().await.unwrap();
    assert_eq!(after.offset(), before.offset());
    let logged = |info: &super::info::Info| info.number("aof_current_size");
    assert_eq!(logged(&after), logged(&before));
    assert_eq!(after.state().keys, 0);
    master.stop().await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_is_not_taken_for_a_redis_that_hangs() {
    let master = master_in(open_dir()).await;
    master.taken().await;
    let state = master.command(2, Command::Fence(wire::Fence {})).await.unwrap();
    assert!(state.redis.fenced);
    // Longer than between two questions, and longer than a question waits.
    master.looks_again(12).await;
    let state = master.node.peek();
    assert_eq!((state.redis.process, state.redis.health.refusal), (Process::Running, None));
    let quorum = Some(super::tests::quorum(0));
    master.command(2, Command::Unfence(wire::Unfence { quorum })).await.unwrap();
    master.write("k", "v").await.unwrap();
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_that_keeps_everybody_waiting_is_ended_before_the_master_is_given_up() {
    let master = master_in(open_dir()).await;
    let Command::Configure(settings) = usual_settings() else { panic!("settings") };
    let settings = wire::Configure { stuck_after_seconds: 6, generation: "6".into(), ..settings };
    master.command(1, Command::Configure(settings)).await.unwrap();
    assert_eq!(master.node.patience(), Duration::from_secs(6));
    master.set_config("lua-time-limit", "100").await;
    let mut client = master.client().await;
    let script = tokio::spawn(async move {
        redis::cmd("EVAL").arg("while true do end").arg(0).exec_async(&mut client).await
    });
    let stuck = master.until(|s| s.redis.process == Process::Stuck).await;
    assert!(stuck.redis.health.busy, "it computes");
    master.running().await;
    // Whoever sent it may have given up waiting before.
    assert!(script.await.unwrap().is_err(), "it never ends by itself");
    assert_eq!(master.node.peek().redis.run_id, stuck.redis.run_id, "the process lives");
    master.write("k", "v").await.unwrap();
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_redis_is_not_said_to_compute() {
    let master = master_in(open_dir()).await;
    let mut session = master.node.redis.open(PATIENCE).await.unwrap();
    let pid = session.info().await.unwrap().number("process_id");
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let stuck = master.until(|s| s.redis.process == Process::Stuck).await;
    assert!(!stuck.redis.health.busy);
    kill_process(pid, Signal::CONT).unwrap();
    master.running().await;
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_does_not_start_with_is_told_and_dropped_on_command() {
    let node = master_in(open_dir()).await;
    node.write("k", "v").await.unwrap();
    let refused = node.command(1, Command::Discard(wire::Discard::default())).await.unwrap_err();
    assert!(refused.message().contains("nothing is dropped"), "{refused}");
    let log = std::fs::read_dir(node.instance.append_only_dir()).unwrap().flatten();
    let log: PathBuf = log
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().ends_with(".incr.aof"))
        .expect("a log");
    let dir = node.stop().await;
    let mut text = b"*2\r\n$5\r\nwrong\r\nnonsense".to_vec();
    text.extend(std::fs::read(&log).unwrap());
    std::fs::write(&log, text).unwrap();

    let node = TestNode::start_in(dir, 0);
    let looping = node.until(|s| s.failed_starts >= 3).await;
    assert_eq!(looping.redis.run_id, "");
    let told = node.until(|s| s.failed_start_line.contains("Bad file format")).await;
    assert!(told.failed_starts >= 3);
    let discard = async {
        loop {
            // A start in between makes a command void: it is sent again.
            match node.command(1, Command::Discard(wire::Discard { must_keep: true })).await {
                Ok(state) => return state,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    timeout(PATIENCE, discard).await.expect("it is dropped");
    let back = node.running().await;
    assert_eq!((back.redis.keys, back.failed_starts), (0, 0));
    let broken = node.instance.data_dir.with_file_name("broken/appendonlydir");
    assert!(broken.join(log.file_name().unwrap()).exists(), "it is kept aside");
    node.command(1, usual_settings()).await.unwrap();
    node.stop().await;
}

/// Runs this very test once more, where `/mnt` is a volume of so many MiB. `None` inside of it.
fn on_a_small_volume(test: &str, mib: u32) -> Option<()> {
    const INSIDE: &str = "AKASH_REDIS_TEST_SMALL_VOLUME";
    if std::env::var_os(INSIDE).is_some() {
        return None;
    }
    let script = format!(
        "mount -t tmpfs -o size={mib}m,mode=755 none /mnt && exec \"$0\" --exact {test} --nocapture"
    );
    let done = Program::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(INSIDE, "1")
        .output()
        .expect("unshare");
    let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
    Some(())
}

#[test]
fn a_fence_needs_no_room_on_the_volume() {
    let test = "node::health_tests::a_fence_needs_no_room_on_the_volume";
    if on_a_small_volume(test, 16).is_some() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = Arc::new(tempfile::tempdir_in("/mnt").unwrap());
        let master = master_in(dir).await;
        master.taken().await;
        // What Redis needs for its log is taken by others, as by its own log.
        let filler = master.node.settings.data_dir.join("filler");
        let bytes = vec![0; 1 << 20];
        while std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&filler)
            .and_then(|mut file| std::io::Write::write_all(&mut file, &bytes))
            .is_ok()
        {}
        let value = "x".repeat(100_000);
        let refused = async {
            while master.node.peek().redis.health.refusal.is_none() {
                // Until the log cannot be written, which is tried each second.
                let _ = master.write("k", &value).await;
            }
        };
        timeout(PATIENCE, refused).await.expect("it takes no writes");
        master.refused_with("MISCONF").await;
        assert!(master.node.peek().redis.health.unwritten.log);
        assert!(volume::space(&master.node.settings.data_dir).unwrap().is_short());
        for epoch in 2..5 {
            let fenced = master.command(epoch, Command::Fence(wire::Fence {})).await.unwrap();
            assert_eq!((fenced.highest.epoch, fenced.redis.fenced), (epoch, true));
        }
        let detach = Command::Detach(wire::Detach::default());
        let detached = master.command(5, detach).await.unwrap();
        assert_eq!((detached.redis.role, detached.highest.epoch), (Role::Replica, 5));
        assert_eq!(master.node.files.memory().unwrap().unwrap().highest.epoch, 5, "on disk");
        std::fs::remove_file(&filler).unwrap();
        master.stop().await;
    });
}

fn remount(how: &str) {
    let done = Program::new("mount").args(["-o", how, "/mnt"]).status().unwrap();
    assert!(done.success(), "{how}");
}

#[test]
fn a_volume_that_became_read_only_keeps_no_master_from_giving_way() {
    let test = "node::health_tests::a_volume_that_became_read_only_keeps_no_master_from_giving_way";
    if on_a_small_volume(test, 64).is_some() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = Arc::new(tempfile::tempdir_in("/mnt").unwrap());
        let master = master_in(dir).await;
        master.write("k", "v").await.unwrap();
        // Nothing becomes read-only that somebody writes to.
        master.set_config("appendonly", "no").await;
        remount("remount,ro");
        let mut session = master.node.redis.open(PATIENCE).await.unwrap();
        // At once, or as the end of its child.
        let _ = session.run(&redis::cmd("BGSAVE")).await;
        master.until(|s| s.redis.health.unwritten.snapshot).await;
        let words = master.refused_with("MISCONF").await;
        assert!(words.contains("unable to persist"), "{words}");

        let refused = master.command(2, promote(0)).await.unwrap_err();
        assert!(refused.message().contains("cannot"), "{refused}");
        assert_eq!(master.node.peek().highest.epoch, 1, "nothing leads before it is written down");
        let fenced = master.command(2, Command::Fence(wire::Fence {})).await.unwrap();
        assert_eq!((fenced.highest.epoch, fenced.redis.fenced), (2, true));
        assert!(fenced.notes.iter().any(|n| n.contains("cannot be written down")), "{fenced:?}");
        let quorum = Some(super::tests::quorum(0));
        let again = master.command(2, Command::Unfence(wire::Unfence { quorum })).await;
        assert!(again.is_err() && master.node.peek().redis.fenced);
        let detached = master.command(3, Command::Detach(wire::Detach::default())).await.unwrap();
        assert_eq!((detached.redis.role, detached.highest.epoch), (Role::Replica, 3));
        assert_eq!(master.node.files.memory().unwrap().unwrap().highest.epoch, 1, "on disk");
        let outranked = master.command(2, Command::Fence(wire::Fence {})).await.unwrap_err();
        assert!(outranked.message().contains("epoch"), "{outranked}");

        remount("remount,rw");
        let back = master.command(3, usual_settings()).await.unwrap();
        assert!(!back.notes.iter().any(|n| n.contains("written down")), "{back:?}");
        assert_eq!(master.node.files.memory().unwrap().unwrap().highest.epoch, 3, "on disk");
        master.stop().await;
    });
}

/// The process that writes the snapshot, while there is one.
pub(super) fn child_of(pid: i64) -> Option<Pid> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
}

/// Kills the process that writes for this redis, once there is one, as the system does that runs out
/// of memory.
async fn kill_child(pid: i64) {
    let killed = async {
        loop {
            if let Some(child) = child_of(pid) {
                return kill_process(child, Signal::KILL).unwrap();
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, killed).await.expect("it has a child");
}

/// A master with 20 keys whose processes take until they are killed; and its own process.
async fn slow_to_save() -> (TestNode, super::redis_control::Session, i64) {
    let master = master_in(open_dir()).await;
    for n in 0..20 {
        master.write(&format!("k{n}"), "v").await.unwrap();
    }
    // Microseconds for each key.
    master.set_config("rdb-key-save-delay", "10000000").await;
    let mut session = master.node.redis.open(PATIENCE).await.unwrap();
    let pid = session.info().await.unwrap().number("process_id");
    (master, session, pid)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_whose_process_was_killed_is_told_and_written_again_by_itself() {
    let (master, mut session, pid) = slow_to_save().await;
    session.run(&redis::cmd("BGSAVE")).await.unwrap();
    kill_child(pid).await;
    master.until(|s| s.redis.health.unwritten.snapshot).await;
    let words = master.refused_with("MISCONF").await;
    assert!(words.contains("unable to persist"), "{words}");
    // The next attempt is killed as well, and the one after that is not.
    kill_child(pid).await;
    master.set_config("rdb-key-save-delay", "0").await;
    master.taken().await;
    master.until(|s| !s.redis.health.unwritten.snapshot).await;
    master.write("k", "v").await.unwrap();
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewrite_of_the_log_whose_process_was_killed_is_told_and_made_again_by_itself() {
    let (master, mut session, pid) = slow_to_save().await;
    session.run(&redis::cmd("BGREWRITEAOF")).await.unwrap();
    kill_child(pid).await;
    master.until(|s| s.redis.health.unwritten.rewrite).await;
    master.taken().await;
    master.set_config("rdb-key-save-delay", "0").await;
    // One that was begun before still takes its time.
    kill_child(pid).await;
    master.until(|s| s.redis.health.unwritten == crate::model::node::Unwritten::default()).await;
    master.write("k", "v").await.unwrap();
    master.stop().await;
}

/// The end of the log, as a crash of the machine leaves it: what was whole is loaded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_cut_off_in_its_last_write_is_loaded_up_to_that() {
    let node = master_in(open_dir()).await;
    for key in ["a", "b", "c"] {
        node.write(key, "v").await.unwrap();
    }
    let log = std::fs::read_dir(node.instance.append_only_dir()).unwrap().flatten();
    let log: PathBuf = log
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().ends_with(".incr.aof"))
        .expect("a log");
    let dir = node.stop().await;
    let text = std::fs::read(&log).unwrap();
    assert!(text.ends_with(b"v\r\n"));
    std::fs::write(&log, &text[..text.len() - 4]).unwrap();
    let node = TestNode::start_in(dir, 0);
    let state = node.running().await;
    assert_eq!((state.redis.keys, state.failed_starts), (2, 0));
    assert_eq!(state.failed_start_line, "");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_frozen_is_seen_to_be_behind() {
    let (master, replica) = pair().await;
    master.write("k", "v").await.unwrap();
    let mut session = replica.node.redis.open(PATIENCE).await.unwrap();
    let pid = session.info().await.unwrap().number("process_id");
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    master.write("k", &"x".repeat(2 << 20)).await.unwrap();
    let behind = |s: &crate::model::node::NodeState| {
        s.redis.replicas.iter().any(|r| r.behind_ms >= 2000 && s.redis.offset - r.offset > 2 << 20)
    };
    master.until(behind).await;
    kill_process(pid, Signal::CONT).unwrap();
    master.until(|s| s.redis.replicas.iter().any(|r| r.behind_ms < 2000)).await;
    replica.command(1, follow(false)).await.unwrap();
    master.stop().await;
    replica.stop().await;
}
