//! What a master leaves behind when it is killed, frozen, fenced, demoted or without a volume: real
//! redis-servers.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::history;
use super::redis_config::FENCE;
use super::redis_control::{Applied, MasterAddress};
use super::settings::Settings;
use super::tests::{
    PATIENCE, TestNode, app_settings, follow, free_port, identity, open_dir, pair, promote,
    settings, unhurried, usual_settings,
};
use crate::model::identity::NodeIdentity;
use crate::model::node::{History, Process, Role};
use crate::wire::akash_redis::agent::v1 as wire;
use wire::command_request::Command;

/// A first master of epoch 1.
async fn master(node: TestNode, append_only: bool) -> TestNode {
    node.running().await;
    node.command(1, app_settings("~* +@all -@admin -@dangerous", append_only)).await.unwrap();
    node.command(1, promote(0)).await.unwrap();
    node
}

impl TestNode {
    async fn signal(&self, signal: Signal) {
        let mut session = self.node.redis.open(PATIENCE).await.unwrap();
        let pid = session.info().await.unwrap().number("process_id");
        kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
    }

    pub(super) async fn pid(&self) -> Pid {
        let pid = self.info().await.number("process_id");
        Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
    }

    async fn info(&self) -> super::info::Info {
        self.node.redis.open(PATIENCE).await.unwrap().info().await.unwrap()
    }

    async fn info_that(&self, wanted: impl Fn(&super::info::Info) -> bool) -> super::info::Info {
        let seen = async {
            loop {
                let info = self.info().await;
                if wanted(&info) {
                    return info;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, seen).await.expect("redis says what is wanted")
    }

    /// Follows whoever listens there, without a command.
    async fn replicate_from(&self, port: u16) {
        let (host, user, announce) = ("127.0.0.1".into(), "_repl-b".into(), "sibling".into());
        let address =
            MasterAddress { host, port, user, password: "repl-secret".to_owned().into(), announce };
        let mut session = self.node.redis.open(PATIENCE).await.unwrap();
        session.follow(&address, &mut Applied::default()).await.unwrap();
    }

    fn kept(&self) -> Option<history::Kept> {
        self.node.files.history().unwrap()
    }

    async fn exited(&self) -> crate::model::node::NodeState {
        self.until(|s| s.redis.process == Process::Exited).await
    }

    fn snapshot_holds(&self, label: &str, text: &str) -> bool {
        let file =
            std::fs::read(self.node.settings.data_dir.join(format!("saved/{label}.rdb"))).unwrap();
        file.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_master_is_known_to_have_been_one_from_its_first_write_on() {
    for append_only in [true, false] {
        let node = master(TestNode::start(0), append_only).await;
        // Nothing but the promotion has written it: no turn of a clock runs here.
        let kept = node.kept().expect("written before the promotion was confirmed");
        assert_eq!(
            (kept.history.epoch, kept.history.replid.as_str()),
            (1, node.node.peek().redis.replid.as_str())
        );
        assert!(kept.open_since.is_some(), "writes may follow");
        node.write("k", "v").await.unwrap();
        node.signal(Signal::KILL).await;
        let gap = node.exited().await.history.unwrap().gap_ms;
        assert!(gap >= 250, "at least as long as between two looks: {gap}");
        assert_eq!(
            gap == History::UNKNOWN_GAP,
            !append_only,
            "without an append-only file all since the last snapshot is gone"
        );
        let back = node.running().await;
        assert_eq!(
            back.history.map(|h| (h.epoch, h.gap_ms)),
            Some((1, gap)),
            "its data was found, so its history counts"
        );
        assert_eq!(back.redis.keys, u64::from(append_only));
        let again = node.command(2, promote(0)).await.unwrap().history.unwrap();
        assert_eq!((again.epoch, again.gap_ms), (2, 0));
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_master_that_is_killed_says_for_how_long_nobody_looked() {
    let node = master(TestNode::start(0), true).await;
    node.signal(Signal::STOP).await;
    node.until(|s| s.redis.process == Process::Stuck).await;
    node.kill_redis();
    let state = node.exited().await;
    let limit = u64::try_from(node.node.settings.stuck_after.as_millis()).unwrap();
    let gap = state.history.as_ref().unwrap().gap_ms;
    assert!(gap >= limit && gap < History::UNKNOWN_GAP, "{gap}");
    let kept = async {
        while node.kept().map(|kept| (kept.history, kept.open_since))
            != state.history.clone().map(|h| (h, None))
        {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, kept).await.expect("the file says the same");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_whose_agent_died_with_it_says_how_old_its_history_may_be() {
    let mut node = master(TestNode::start(0), true).await;
    node.write("k", "v").await.unwrap();
    // The agent goes without a word, and takes redis with it.
    node.crash().await;
    let again = TestNode::start_in(node.dir.clone(), 0);
    let state = again.running().await;
    let history = state.history.unwrap();
    assert!(
        history.epoch == 1 && history.gap_ms > 0 && history.gap_ms < History::UNKNOWN_GAP,
        "{history:?}"
    );
    assert_eq!(state.redis.keys, 1);
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_volume_a_history_lasts_as_long_as_the_process() {
    let dir = open_dir();
    let settings = settings(dir.path(), 0);
    let node =
        TestNode::start_as(dir, settings, NodeIdentity { persistent: false, ..identity() }, false);
    let node = master(node, false).await;
    node.write("k", "v").await.unwrap();
    let state = node.until(|s| s.redis.keys == 1).await;
    assert_eq!(
        state.history.map(|h| (h.epoch, h.gap_ms)),
        Some((1, 0)),
        "a cold start sees that it has data"
    );
    assert_eq!(node.kept(), None, "nothing is written down");
    node.kill_redis();
    assert_eq!(node.exited().await.history, None, "the data are gone with it");
    assert_eq!(node.running().await.history, None);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lost_master_was_stays_in_its_last_word() {
    let (master, replica) = pair().await;
    master.write("k", "v").await.unwrap();
    master.command(1, promote(1)).await.unwrap();
    let before = master.until(|s| s.redis.min_replicas == 1 && s.redis.offset > 0).await.redis;
    master.kill_redis();
    let last = master.exited().await.redis;
    assert_eq!(
        (last.role, last.min_replicas, last.max_lag_seconds, last.fenced),
        (Role::Master, 1, 8, true),
        "not: it needed no replica"
    );
    assert_eq!((last.replid, last.run_id.as_str()), (before.replid, ""));
    assert!(last.offset >= before.offset);
    assert!(last.replicas.is_empty() && last.keys == 0);
    master.stop().await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_byte_follows_a_fence_and_siblings_go_on_where_they_were() {
    let (source, target) = pair().await;
    let sibling = TestNode::start(source.port());
    sibling.running().await;
    sibling.command(1, follow(false)).await.unwrap();
    source.write("k", "v").await.unwrap();
    let fenced = source.command(2, Command::Fence(wire::Fence {})).await.unwrap();
    let point = fenced.history.clone().unwrap();
    assert!(fenced.redis.fenced && !fenced.promoted && point.gap_ms == 0);
    let exact = Some(history::Kept { history: point.clone(), open_since: None });
    let kept = async {
        while source.kept() != exact {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, kept).await.expect("read exactly, and written down");
    let frozen = fenced.redis.offset;
    let begun = source.info().await.number("uptime_in_seconds");
    let later = source.info_that(|info| info.number("uptime_in_seconds") >= begun + 4).await;
    assert_eq!(later.offset(), frozen, "no ping in three periods and more");
    for node in [&target, &sibling] {
        node.until(|s| s.redis.offset == frozen && s.redis.replid == point.replid).await;
    }
    let promoted = target.command(2, promote(0)).await.unwrap();
    assert_eq!(promoted.redis.second_offset, frozen + 1);
    sibling.replicate_from(target.port()).await;
    source.replicate_from(target.port()).await;
    let served = target.info_that(|info| info.number("connected_slaves") == 2).await;
    assert_eq!(
        (served.number("sync_full"), served.number("sync_partial_ok")),
        (0, 2),
        "nobody copies everything anew"
    );
    target.until(|s| s.redis.offset > promoted.redis.offset).await;
    source.stop().await;
    target.stop().await;
    sibling.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_wait_behind_a_fence_and_end_with_it() {
    let node = master(TestNode::start(0), true).await;
    let mut client = node.client().await;
    node.command(2, Command::Fence(wire::Fence {})).await.unwrap();
    let waiting =
        tokio::spawn(
            async move { redis::cmd("SET").arg("k").arg("v").exec_async(&mut client).await },
        );
    node.info_that(|info| info.number("blocked_clients") == 1).await;
    assert!(node.node.peek().redis.fenced && node.node.peek().redis.min_replicas != FENCE);
    let open = node
        .command(3, Command::Unfence(wire::Unfence { quorum: Some(super::tests::quorum(0)) }))
        .await
        .unwrap();
    waiting.await.unwrap().unwrap();
    assert!(!open.redis.fenced && node.kept().unwrap().open_since.is_some());
    // Demoted instead, the node drops them: nobody's write is taken after its master was given up.
    let mut client = node.client().await;
    node.command(4, Command::Fence(wire::Fence {})).await.unwrap();
    let waiting = tokio::spawn(async move {
        redis::cmd("SET").arg("k").arg("late").exec_async(&mut client).await
    });
    node.info_that(|info| info.number("blocked_clients") == 1).await;
    node.command(5, Command::Detach(wire::Detach::default())).await.unwrap();
    assert!(waiting.await.unwrap().is_err());
    node.command(6, promote(0)).await.unwrap();
    assert_eq!(node.read("k").await.as_deref(), Some("v"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_woken_master_wrote_is_in_its_history_and_is_kept() {
    let (dir, port) = (open_dir(), free_port());
    let old = TestNode::start_as(dir.clone(), settings(dir.path(), port), identity(), false);
    let old = master(old, true).await;
    let dir = open_dir();
    let new = TestNode::start_as(
        dir.clone(),
        Settings { redis_port: port, ..settings(dir.path(), old.port()) },
        identity(),
        false,
    );
    new.running().await;
    new.command(1, usual_settings()).await.unwrap();
    new.command(1, follow(false)).await.unwrap();
    old.write("k", "both").await.unwrap();
    new.until(|s| s.redis.online_epoch == 1 && s.redis.keys == 1).await;
    let mut client = TcpStream::connect(("127.0.0.1", old.port())).await.unwrap();
    client.write_all(b"AUTH app app-secret\r\n").await.unwrap();
    let mut answer = [0; 5];
    client.read_exact(&mut answer).await.unwrap();

    // Frozen, it is given up; what its clients send meanwhile waits in its sockets.
    let pid = old.pid().await;
    kill_process(pid, Signal::STOP).unwrap();
    for n in 0..1000 {
        client.write_all(format!("SET late-{n} v\r\n").as_bytes()).await.unwrap();
    }
    new.command(2, Command::Detach(wire::Detach::default())).await.unwrap();
    let promoted = new.command(2, promote(0)).await.unwrap();
    kill_process(pid, Signal::CONT).unwrap();
    let mut answers = vec![0; 5000];
    client.read_exact(&mut answers).await.unwrap();
    assert_eq!(answers, b"+OK\r\n".repeat(1000), "all of them are acknowledged");

    let demoted = old.command(2, Command::Detach(wire::Detach::default())).await.unwrap();
    let history = demoted.history.unwrap();
    assert_eq!((&history.replid, history.epoch, history.gap_ms), (&promoted.redis.replid2, 1, 0));
    assert!(
        history.offset + 1 - promoted.redis.second_offset > 20_000,
        "{history:?} beside {:?}",
        promoted.redis
    );
    assert_eq!(old.kept(), Some(history::Kept { history, open_since: None }));
    old.command(2, follow(true)).await.unwrap();
    old.until(|s| s.redis.online_epoch == 2 && s.redis.keys == 1).await;
    assert!(
        old.snapshot_holds("before-epoch-2", "late-0")
            && old.snapshot_holds("before-epoch-2", "late-999")
    );
    old.stop().await;
    new.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_master_that_is_told_to_follow_writes_its_end_down_first() {
    let old = master(TestNode::start(1), true).await;
    old.write("k", "only-here").await.unwrap();
    // Nobody listens there: it keeps what it has.
    let state = old.command(2, follow(true)).await.unwrap();
    assert_eq!(
        (state.redis.role, state.history.map(|h| (h.epoch, h.gap_ms))),
        (Role::Replica, Some((1, 0)))
    );
    assert_eq!(old.kept().map(|kept| kept.open_since), Some(None));
    assert!(old.snapshot_holds("before-epoch-2", "only-here"));
    old.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_snapshot_of_a_master_that_crashed_holds_what_its_files_hold() {
    let old = master(TestNode::start(1), true).await;
    old.write("k", "only-here").await.unwrap();
    old.signal(Signal::KILL).await;
    old.exited().await;
    old.running().await;
    old.command(2, usual_settings()).await.unwrap();
    let state = old.command(2, follow(true)).await.unwrap();
    assert_eq!(state.saved, ["before-epoch-2"]);
    assert!(old.snapshot_holds("before-epoch-2", "only-here"));
    let mut session = old.node.redis.open(PATIENCE).await.unwrap();
    let reads = session.ask(redis::cmd("CONFIG").arg("GET").arg("replica-serve-stale-data")).await;
    assert!(reads.contains("\"no\""), "{reads}");
    old.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_was_renamed_is_followed_under_its_new_name() {
    let (master, replica) = pair().await;
    let Command::Follow(told) = follow(false) else { unreachable!() };
    let renamed = wire::Follow { master_name: "localhost".into(), ..told.clone() };
    replica.command(1, Command::Follow(renamed)).await.unwrap();
    replica
        .until(|s| {
            s.redis.master_host == "localhost" && s.redis.is_linked() && s.redis.online_epoch == 1
        })
        .await;
    assert_eq!(master.info().await.number("sync_full"), 1, "it goes on where it was");
    let another = wire::Follow { master_incarnation: "cache-2-n5n5".into(), ..told };
    let refused = replica.command(1, Command::Follow(another)).await.unwrap_err();
    assert_eq!(
        refused.code(),
        tonic::Code::FailedPrecondition,
        "another master under the old name: {}",
        refused.message()
    );
    master.stop().await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_reads_old_data_while_it_is_saved() {
    let node = Arc::new(master(TestNode::start(1), true).await);
    node.write("k", "v").await.unwrap();
    node.command(2, Command::Detach(wire::Detach::default())).await.unwrap();
    // A save that does not end: a minute for each key.
    let mut session = node.node.redis.open(PATIENCE).await.unwrap();
    session
        .run(redis::cmd("CONFIG").arg("SET").arg("rdb-key-save-delay").arg(60_000_000))
        .await
        .unwrap();
    let saver = node.clone();
    let saving = tokio::spawn(async move { saver.command(2, follow(true)).await });
    node.info_that(|info| info.flag("rdb_bgsave_in_progress")).await;
    let settings = node.command(2, usual_settings()).await.unwrap_err();
    assert_eq!(
        settings.code(),
        tonic::Code::Unavailable,
        "they would let applications in: {}",
        settings.message()
    );
    let client =
        redis::Client::open(format!("redis://app:app-secret@127.0.0.1:{}/", node.port())).unwrap();
    let refused =
        client.get_multiplexed_async_connection_with_config(&unhurried()).await.unwrap_err();
    assert!(refused.is_connection_refusal(), "applications are shut out, and try again: {refused}");
    let pid = node.pid().await.as_raw_nonzero();
    let child = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    kill_process(Pid::from_raw(child.trim().parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    assert!(
        saving.await.unwrap().is_err(),
        "a save that failed is no reason to go on and lose the data"
    );
    assert!(
        client.get_multiplexed_async_connection_with_config(&unhurried()).await.is_ok(),
        "they are back"
    );
    node.command(2, usual_settings()).await.unwrap();
    assert_eq!(node.node.peek().redis.master_host, "", "and it follows nobody yet");
    Arc::into_inner(node).unwrap().stop().await;
}
