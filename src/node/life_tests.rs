//! A redis that goes on when its agent is killed, and a master that stays until another one took
//! over. The agent that is killed is a process of its own: this test program, run for one test.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::leaving::may_end;
use super::life::{Left, Search, kill_strays};
use super::settings::Settings;
use super::state_file::StateFile;
use super::tests::{
    PATIENCE, TestNode, identity, instance, open_dir, pair, promote, settings, unhurried,
    usual_settings,
};
use crate::model::node::{NodeState, Process, Role};
use crate::process::Output;
use crate::wire::akash_redis::agent::v1 as wire;
use wire::command_request::Command as Order;

const DIR: &str = "AKASH_REDIS_TEST_DIR";
const PORT: &str = "AKASH_REDIS_TEST_PORT";
const STATE: &str = "AKASH_REDIS_TEST_STATE";
const READY: &str = "the agent is ready";
const AGENT: &str = "node::life_tests::an_agent_that_is_killed";

fn outliving(dir: &std::path::Path, port: u16) -> Settings {
    let settings = settings(dir, 0);
    Settings { redis_port: port, outlives_agent: true, stuck_after: PATIENCE, ..settings }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "other tests run it, and kill it"]
async fn an_agent_that_is_killed() {
    let (Ok(dir), Ok(port)) = (std::env::var(DIR), std::env::var(PORT)) else { return };
    let own = Arc::new(tempfile::tempdir_in(&dir).unwrap());
    let settings = outliving(&PathBuf::from(dir), port.parse().unwrap());
    let node = TestNode::start_as(own, settings, identity(), false);
    node.running().await;
    node.command(3, usual_settings()).await.unwrap();
    node.command(3, promote(0)).await.unwrap();
    let state = std::env::var(STATE).unwrap();
    if state == "Fenced" {
        node.command(4, Order::Fence(wire::Fence {})).await.unwrap();
    }
    let _in_hand = (state == "HalfWay").then(|| node.node.life.in_hand());
    println!("{READY}");
    std::future::pending::<()>().await;
}

/// In which it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Master,
    Fenced,
    /// A command is being carried out.
    HalfWay,
}

/// What a killed agent left behind. What is still there at the end of the test goes then.
struct Killed {
    dir: Arc<tempfile::TempDir>,
    settings: Settings,
    client: MultiplexedConnection,
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = kill_strays(&instance(&self.settings).config_file());
    }
}

impl Killed {
    async fn new(state: State) -> Self {
        let dir = open_dir();
        let settings = outliving(dir.path(), settings(dir.path(), 0).redis_port);
        let mut agent = Command::new(std::env::current_exe().unwrap());
        agent.args(["--exact", AGENT, "--ignored", "--nocapture"]);
        agent.env(DIR, dir.path()).env(PORT, settings.redis_port.to_string());
        agent.env(STATE, format!("{state:?}"));
        let mut agent = agent.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(agent.stdout.take().unwrap()).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.contains(READY) {
                    return;
                }
            }
            panic!("the agent ended");
        };
        timeout(PATIENCE, ready).await.unwrap();
        let address = format!("redis://app:app-secret@127.0.0.1:{}/", settings.redis_port);
        let client = redis::Client::open(address).unwrap();
        let client =
            client.get_multiplexed_async_connection_with_config(&unhurried()).await.unwrap();
        let mut killed = Self { dir, settings, client };
        if state == State::Fenced {
            agent.kill().await.unwrap();
            return killed;
        }
        killed.write("before").await.unwrap();
        agent.kill().await.unwrap();
        killed.write("meanwhile").await.expect("redis goes on without its agent");
        killed
    }

    /// By the one connection that the application has.
    async fn write(&mut self, value: &str) -> redis::RedisResult<()> {
        redis::cmd("SET").arg("k").arg(value).exec_async(&mut self.client).await
    }

    async fn search(&self, remembers: bool) -> Option<Left> {
        let files = StateFile::new(self.settings.data_dir.join("agent"));
        let memory = files.memory().unwrap().filter(|_| remembers);
        let search = Search {
            dir: &self.settings.run_dir,
            instance: &instance(&self.settings),
            incarnation: "cache-0-x7k2",
            memory: memory.as_ref(),
            answer: PATIENCE,
        };
        let output: Output = Arc::new(|_| {});
        search.take_over(&output).await.unwrap()
    }

    fn node(&self, left: Option<Left>) -> TestNode {
        TestNode::take_over(self.dir.clone(), self.settings.clone(), identity(), true, left)
    }
}

/// As far as it tells the process, and whether it takes writes.
fn face(state: &NodeState) -> (Process, Role, bool, bool, u64) {
    let redis = &state.redis;
    (redis.process, redis.role, redis.fenced, state.promoted, state.highest.epoch)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_agent_costs_no_write_and_the_next_one_takes_its_redis_over() {
    let mut killed = Killed::new(State::Master).await;
    let left = killed.search(true).await.expect("the same redis");
    let (run_id, boot_id) = (left.found.redis.run_id.clone(), left.found.life.boot_id.clone());
    let node = killed.node(Some(left));
    let first = node.node.peek();
    let master = (Process::Running, Role::Master, false, true, 3);
    assert_eq!(face(&first), master, "it is never shown as one that starts, or is fenced");
    assert_eq!((&first.redis.run_id, &first.boot_id), (&run_id, &boot_id));
    assert_eq!(first.history.as_ref().map(|h| (h.epoch, h.gap_ms)), Some((3, 0)));
    killed.write("after").await.expect("the application's connection is as it was");
    let settled = node.command(3, usual_settings()).await.unwrap();
    assert_eq!((face(&settled), &settled.redis.run_id), (master, &run_id));
    killed.write("settled").await.unwrap();
    // What the agent before this one had set is known: users that are wanted no more go.
    let nobody = Order::Configure(wire::Configure {
        generation: "nobody".into(),
        quorum: Some(super::tests::quorum(0)),
        append_only: true,
        ..wire::Configure::default()
    });
    node.command(3, nobody).await.unwrap();
    killed.write("refused").await.expect_err("its user is gone, and its connection with it");
    // It is watched like any other: its end is a fenced start.
    node.kill_redis();
    let again = node
        .until(|s| {
            s.redis.process == Process::Running && !s.redis.loading && s.redis.run_id != run_id
        })
        .await;
    assert_eq!((again.redis.role, again.redis.fenced, again.redis.keys), (Role::Replica, true, 1));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_outlives_the_agent_that_put_it_up() {
    let mut killed = Killed::new(State::Fenced).await;
    let left = killed.search(true).await.expect("the same redis");
    let node = killed.node(Some(left));
    let fenced = (Process::Running, Role::Master, true, false, 4);
    assert_eq!(face(&node.node.peek()), fenced);
    let looked = node.command(4, usual_settings()).await.unwrap();
    assert_eq!(face(&looked), fenced, "new settings do not take it off");
    let open = Order::Unfence(wire::Unfence { quorum: Some(super::tests::quorum(0)) });
    let (written, open) = tokio::join!(killed.write("held"), node.command(5, open));
    written.expect("it was held, and went on");
    assert_eq!(face(&open.unwrap()), (Process::Running, Role::Master, false, true, 5));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_whose_state_is_in_doubt_is_ended_and_starts_fenced() {
    for (what, state, remembers, other) in [
        ("a command was half done", State::HalfWay, true, false),
        ("the node does not know that it is master", State::Master, false, false),
        ("another process has the number", State::Master, true, true),
    ] {
        let mut killed = Killed::new(state).await;
        if other {
            let file = killed.settings.run_dir.join("redis.life.json");
            let text = std::fs::read_to_string(&file).unwrap();
            let mut life: serde_json::Value = serde_json::from_str(&text).unwrap();
            life["started"] = 1.into();
            std::fs::write(file, life.to_string()).unwrap();
        }
        assert!(killed.search(remembers).await.is_none(), "{what}");
        killed.write("late").await.expect_err(what);
        assert_eq!(kill_strays(&instance(&killed.settings).config_file()), 0, "{what}");
        let node = killed.node(None);
        let state = node.running().await;
        assert_eq!((state.redis.role, state.redis.fenced), (Role::Replica, true), "{what}");
        assert_eq!(state.redis.keys, 1, "{what}: with its data");
        node.stop().await;
    }
}

/// Runs [`may_end`] of a master that is asked to stop.
async fn asked_to_stop(node: &TestNode, limit: Duration) {
    let stop = CancellationToken::new();
    stop.cancel();
    may_end(&node.node, &stop, limit).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_stopped_stays_until_it_is_none() {
    let (master, replica) = pair().await;
    master.until(|s| !s.redis.replicas.is_empty()).await;
    let handed_over = async {
        let state = master.until(|s| s.stopping).await;
        assert_eq!((state.redis.role, state.redis.fenced), (Role::Master, false));
        master.write("k", "v").await.expect("it takes writes meanwhile");
        let fenced = master.command(2, Order::Fence(wire::Fence {})).await.unwrap();
        replica.until(|s| s.redis.offset >= fenced.redis.offset).await;
        replica.command(2, promote(0)).await.unwrap();
        master.command(2, Order::Detach(wire::Detach::default())).await.unwrap();
    };
    let ((), ()) = tokio::join!(timeout_never(asked_to_stop(&master, PATIENCE)), handed_over);
    assert_eq!(master.node.peek().redis.role, Role::Replica);
    assert_eq!(replica.read("k").await.as_deref(), Some("v"));
    // Nobody follows this one: there is nothing to wait for.
    assert!(!replica.node.peek().stopping);
    timeout_never(asked_to_stop(&replica, PATIENCE * 10)).await;
    assert!(replica.node.peek().stopping);
    master.stop().await;
    replica.stop().await;
}

async fn timeout_never(work: impl Future<Output = ()>) {
    timeout(PATIENCE, work).await.expect("it may end before its limit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_from_which_nobody_takes_over_ends_at_its_limit() {
    let (master, replica) = pair().await;
    master.until(|s| !s.redis.replicas.is_empty()).await;
    timeout_never(asked_to_stop(&master, Duration::from_millis(1))).await;
    assert_eq!(master.node.peek().redis.role, Role::Master);
    master.stop().await;
    replica.stop().await;
}
