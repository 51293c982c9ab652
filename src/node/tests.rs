//! The agent against real redis-servers, without a mesh: masters are dialled directly.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::command_executor::CommandExecutor;
use super::forwarder::Egress;
use super::history;
use super::life::Left;
use super::logs::LogBook;
use super::redis_config::{BootConfig, FENCE};
use super::redis_control::RedisControl;
use super::redis_process::{RedisInstance, keep_running};
use super::settings::Settings;
use super::snapshots::Snapshots;
use super::state::{Node, Parts};
use super::state_file::StateFile;
use super::users::system_user;
use crate::model::identity::{self, NodeIdentity};
use crate::model::node::{NodeState, Process, ReplicaState, Role};
use crate::model::time::Backoff;
use crate::wire::akash_redis::agent::v1 as wire;
use wire::command_request::Command;

/// Nothing in a test takes longer on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// Of a client: by itself it waits for half a second, and what is held is answered late on a busy
/// machine.
pub(super) fn unhurried() -> redis::AsyncConnectionConfig {
    redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE))
}

pub(super) struct TestNode {
    pub node: Arc<Node>,
    pub instance: RedisInstance,
    executor: Arc<CommandExecutor>,
    stop: CancellationToken,
    pub supervisor: Option<JoinHandle<()>>,
    pub dir: Arc<tempfile::TempDir>,
}

/// A port from below the range that the system gives out: no connection of another test gets it
/// between now and the start of the program that listens on it.
pub(super) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id().wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 20_000 + u16::try_from(number % 10_000).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub(super) fn settings(dir: &std::path::Path, master_port: u16) -> Settings {
    Settings {
        data_dir: dir.join("data"),
        run_dir: dir.join("run"),
        redis_port: free_port(),
        master_port,
        hosts_file: dir.join("hosts"),
        restarts: Backoff { first: Duration::from_millis(300), longest: Duration::from_secs(30) },
        outlives_agent: false,
        ..Settings::from_env()
    }
}

pub(super) fn instance(settings: &Settings) -> RedisInstance {
    RedisInstance {
        run_dir: settings.run_dir.join("redis"),
        data_dir: settings.data_dir.join("redis"),
        run_as: system_user("redis"),
        password: "agent-secret".into(),
    }
}

pub(super) fn identity() -> NodeIdentity {
    NodeIdentity {
        installation: "abc234".into(),
        incarnation: "cache-0-x7k2".into(),
        hostname: "cache-0-x7k2-abc234".into(),
        epoch_floor: 1,
        auth_key: "tskey-secret".into(),
        login_server: None,
        ca: String::new(),
        certificate: String::new(),
        key: String::new(),
        egress: identity::Egress::Forwarder,
        serve: false,
        service: false,
        memory_bytes: 512 * 1024 * 1024,
        persistent: true,
        startup: std::collections::BTreeMap::new(),
    }
}

impl TestNode {
    pub(super) fn start(master_port: u16) -> Self {
        Self::start_in(open_dir(), master_port)
    }

    pub(super) fn start_in(dir: Arc<tempfile::TempDir>, master_port: u16) -> Self {
        Self::start_used(dir, master_port, false)
    }

    fn start_used(dir: Arc<tempfile::TempDir>, master_port: u16, joined_before: bool) -> Self {
        let settings = settings(dir.path(), master_port);
        Self::start_as(dir, settings, identity(), joined_before)
    }

    pub(super) fn start_as(
        dir: Arc<tempfile::TempDir>,
        settings: Settings,
        identity: NodeIdentity,
        joined_before: bool,
    ) -> Self {
        Self::take_over(dir, settings, identity, joined_before, None)
    }

    /// One that goes on with the redis that an earlier agent left behind, if it did.
    pub(super) fn take_over(
        dir: Arc<tempfile::TempDir>,
        settings: Settings,
        identity: NodeIdentity,
        joined_before: bool,
        left: Option<Left>,
    ) -> Self {
        let (child, found) = left.map(|left| (left.child, left.found)).unzip();
        let make = |path: PathBuf| {
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        make(settings.run_dir.clone());
        make(settings.data_dir.clone());
        let instance = instance(&settings);
        instance.prepare().unwrap();
        let parts = Parts {
            redis: RedisControl::new(
                &instance.run_dir.join(BootConfig::SOCKET),
                &instance.password,
            )
            .unwrap(),
            snapshots: Snapshots::new(make(settings.data_dir.join("saved")), instance.dump()),
            files: StateFile::new(make(settings.data_dir.join("agent"))),
            settings,
            identity,
            book: LogBook::new(vec![]),
            egress: Egress::Direct,
            state: tokio::sync::watch::Sender::default(),
            found,
        };
        let node = Arc::new(Node::new(parts, joined_before).unwrap());
        let stop = CancellationToken::new();
        let supervisor =
            tokio::spawn(keep_running(node.clone(), instance.clone(), child, stop.clone()));
        let executor = Arc::new(CommandExecutor::new(node.clone(), instance.clone()));
        Self { node, instance, executor, stop, supervisor: Some(supervisor), dir }
    }

    pub(super) fn port(&self) -> u16 {
        self.node.settings.redis_port
    }

    pub(super) async fn until(&self, what: impl Fn(&NodeState) -> bool) -> NodeState {
        self.until_within(PATIENCE, what).await
    }

    /// The same, for what is much work.
    pub(super) async fn until_within(
        &self,
        limit: Duration,
        what: impl Fn(&NodeState) -> bool,
    ) -> NodeState {
        let mut states = self.node.subscribe();
        let reached = timeout(limit, states.wait_for(|state| what(state)))
            .await
            .map(|state| state.unwrap().clone());
        reached.unwrap_or_else(|_| panic!("never reached; last state {:#?}", self.node.peek()))
    }

    pub(super) async fn running(&self) -> NodeState {
        self.until(|s| s.redis.process == Process::Running && !s.redis.loading).await
    }

    pub(super) async fn command(&self, epoch: u64, command: Command) -> Result<NodeState, Status> {
        let nonce = self.node.issue().nonce;
        self.send(nonce, epoch, command).await
    }

    pub(super) async fn send(
        &self,
        nonce: String,
        epoch: u64,
        command: Command,
    ) -> Result<NodeState, Status> {
        let authority = Some(wire::Authority { term: 1, epoch });
        self.executor
            .execute(wire::CommandRequest { authority, nonce, command: Some(command) })
            .await
    }

    pub(super) async fn client(&self) -> redis::aio::MultiplexedConnection {
        let client =
            redis::Client::open(format!("redis://app:app-secret@127.0.0.1:{}/", self.port()))
                .unwrap();
        client.get_multiplexed_async_connection_with_config(&unhurried()).await.unwrap()
    }

    pub(super) async fn write(&self, key: &str, value: &str) -> Result<(), redis::RedisError> {
        redis::cmd("SET").arg(key).arg(value).exec_async(&mut self.client().await).await
    }

    pub(super) async fn read(&self, key: &str) -> Option<String> {
        redis::cmd("GET").arg(key).query_async(&mut self.client().await).await.unwrap()
    }

    pub(super) async fn stop(mut self) -> Arc<tempfile::TempDir> {
        self.stop.cancel();
        self.supervisor.take().unwrap().await.unwrap();
        self.dir.clone()
    }

    /// The agent goes without a word, and takes redis with it.
    pub(super) async fn crash(&mut self) {
        self.supervisor.take().unwrap().abort();
        let port = self.port();
        let gone = async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, gone).await.unwrap();
    }

    pub(super) fn kill_redis(&self) {
        self.node.kill_redis.notify_one();
    }
}

/// A directory that redis' own user may pass through.
pub(super) fn open_dir() -> Arc<tempfile::TempDir> {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    dir
}

pub(super) fn hash(password: &str) -> String {
    hex::encode(Sha256::digest(password))
}

pub(super) fn app_settings(rules: &str, append_only: bool) -> Command {
    Command::Configure(wire::Configure {
        generation: format!("g-{rules}-{append_only}"),
        users: vec![wire::AclUser {
            name: "app".into(),
            password_sha256: vec![hash("app-secret")],
            rules: rules.into(),
        }],
        append_only,
        maxmemory_bytes: 100 * 1024 * 1024,
        quorum: Some(quorum(0)),
        ..wire::Configure::default()
    })
}

pub(super) fn usual_settings() -> Command {
    app_settings("~* &* +@all -@admin -@dangerous +info", true)
}

pub(super) fn quorum(min_replicas: u32) -> wire::Quorum {
    wire::Quorum { min_replicas, max_lag_seconds: 8 }
}

pub(super) fn promote(min_replicas: u32) -> Command {
    let users = vec![wire::ReplicationUser {
        name: "_repl-b".into(),
        password_sha256: hash("repl-secret"),
    }];
    let quorum = Some(quorum(min_replicas));
    Command::Promote(wire::Promote { replication_users: users, quorum, ..wire::Promote::default() })
}

pub(super) fn follow(save_first: bool) -> Command {
    let (user, password) = ("_repl-b".into(), "repl-secret".into());
    Command::Follow(wire::Follow {
        master_name: "127.0.0.1".into(),
        user,
        password,
        save_first,
        master_incarnation: "cache-1-m4m4".into(),
        data_epoch: 0,
    })
}

/// A promoted node and a replica of it in sync, both under epoch 1.
pub(super) async fn pair() -> (TestNode, TestNode) {
    let master = TestNode::start(0);
    master.running().await;
    master.command(1, usual_settings()).await.unwrap();
    master.command(1, promote(0)).await.unwrap();
    let replica = TestNode::start(master.port());
    replica.running().await;
    replica.command(1, usual_settings()).await.unwrap();
    replica.command(1, follow(false)).await.unwrap();
    replica.until(|s| s.redis.is_linked() && s.redis.online_epoch == 1).await;
    (master, replica)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boots_fenced_and_lets_nobody_in() {
    let node = TestNode::start(0);
    let state = node.running().await;
    assert_eq!(
        (state.redis.role, state.redis.fenced, state.redis.min_replicas),
        (Role::Replica, true, FENCE)
    );
    assert_eq!(state.redis.master_host, "");
    let client = redis::Client::open(format!("redis://127.0.0.1:{}/", node.port())).unwrap();
    let early =
        client.get_multiplexed_async_connection_with_config(&unhurried()).await.unwrap_err();
    assert!(
        early.is_connection_refusal(),
        "a client tries again, as it would not after a password that is not known yet: {early}"
    );
    node.command(1, usual_settings()).await.unwrap();
    let mut anybody =
        client.get_multiplexed_async_connection_with_config(&unhurried()).await.unwrap();
    let error = redis::cmd("SET").arg("k").arg("v").exec_async(&mut anybody).await.unwrap_err();
    assert_eq!(error.code(), Some("NOAUTH"));
    assert_eq!(
        node.write("k", "v").await.unwrap_err().code(),
        Some("READONLY"),
        "a known user cannot write either"
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promoted_it_takes_writes_fenced_it_refuses_and_unfenced_it_goes_on() {
    let dir = open_dir();
    let settings = Settings { hold_writes: Duration::ZERO, ..settings(dir.path(), 0) };
    let node = TestNode::start_as(dir, settings, identity(), false);
    node.running().await;
    node.command(3, usual_settings()).await.unwrap();
    let state = node.command(3, promote(0)).await.unwrap();
    assert_eq!(
        (state.redis.role, state.redis.fenced, state.promoted, state.highest.epoch),
        (Role::Master, false, true, 3)
    );
    node.write("k", "v").await.unwrap();
    let fenced = node.command(4, Command::Fence(wire::Fence {})).await.unwrap();
    assert_eq!(
        (fenced.redis.role, fenced.redis.fenced, fenced.promoted),
        (Role::Master, true, false)
    );
    assert_eq!(
        node.write("k", "late").await.unwrap_err().code(),
        Some("NOREPLICAS"),
        "held for no time at all here, then refused"
    );
    let settled =
        node.command(4, app_settings("~* +@all -@admin -@dangerous", true)).await.unwrap();
    assert!(settled.redis.fenced, "new settings do not take the fence off");
    let open =
        node.command(5, Command::Unfence(wire::Unfence { quorum: Some(quorum(0)) })).await.unwrap();
    assert_eq!((open.redis.fenced, open.promoted, open.highest.epoch), (false, true, 5));
    node.write("k", "again").await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_follows_is_in_sync_and_freezes_when_detached() {
    let (master, replica) = pair().await;
    master.write("k", "v").await.unwrap();
    let offset =
        master.until(|s| s.redis.replicas.iter().any(|r| r.state == ReplicaState::Online)).await;
    assert_eq!(offset.redis.replicas[0].name, "cache-0-x7k2-abc234", "it announces its own name");
    let written = master.node.redis.open(PATIENCE).await.unwrap().info().await.unwrap().offset();
    replica.until(|s| s.redis.offset >= written && s.redis.silent_ms == 0).await;
    assert_eq!(replica.read("k").await.as_deref(), Some("v"));
    let state = replica.peek_history();
    assert_eq!(state, Some(1), "the history says under which epoch");
    // Writes need the replica from now on, so that they stop when it goes.
    master.command(1, promote(1)).await.unwrap();
    master.write("k", "w").await.unwrap();
    let detached = replica.command(2, Command::Detach(wire::Detach::default())).await.unwrap();
    assert_eq!(
        (
            detached.redis.master_host.as_str(),
            detached.redis.is_linked(),
            detached.redis.online_epoch
        ),
        ("", false, 1)
    );
    master.until(|s| s.redis.replicas.is_empty()).await;
    assert_eq!(master.write("k", "x").await.unwrap_err().code(), Some("NOREPLICAS"));
    let promoted = replica.command(2, promote(0)).await.unwrap();
    assert_eq!(promoted.redis.replid2, master.node.peek().redis.replid);
    replica.write("k", "new").await.unwrap();
    master.stop().await;
    replica.stop().await;
}

impl TestNode {
    /// Epoch of the history after it was written.
    fn peek_history(&self) -> Option<u64> {
        history::keep(&self.node);
        self.node.files.history().unwrap().map(|kept| kept.history.epoch)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exit_is_shown_and_followed_by_a_fenced_start_with_the_data() {
    let node = TestNode::start(0);
    node.running().await;
    node.command(1, usual_settings()).await.unwrap();
    let before = node.command(1, promote(0)).await.unwrap();
    node.write("k", "v").await.unwrap();
    node.until(|_| node.instance.has_append_only_file()).await;
    history::keep(&node.node);
    let old_nonce = node.node.issue().nonce;
    let exited = async { node.until(|s| s.redis.process == Process::Exited).await };
    let (exited, ()) = tokio::join!(exited, async { node.kill_redis() });
    assert_eq!(
        (exited.redis.run_id.as_str(), exited.redis.fenced, exited.configured.as_str()),
        ("", true, "")
    );
    assert_eq!(
        (exited.redis.role, exited.redis.replid.as_str()),
        (Role::Master, before.redis.replid.as_str()),
        "what it was stays"
    );
    let after = node.running().await;
    assert_ne!(after.redis.run_id, before.redis.run_id);
    assert_eq!((after.redis.role, after.redis.fenced, after.redis.keys), (Role::Replica, true, 1));
    assert_eq!(
        after.history.as_ref().map(|h| h.epoch),
        Some(1),
        "the restart does not overwrite the history"
    );
    let refused = node.send(old_nonce, 1, promote(0)).await.unwrap_err();
    assert_eq!(
        refused.code(),
        Code::FailedPrecondition,
        "a promotion decided before the restart: {}",
        refused.message()
    );
    node.command(1, usual_settings()).await.unwrap();
    node.command(1, promote(0)).await.unwrap();
    assert_eq!(node.read("k").await.as_deref(), Some("v"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_stop_keeps_data_memory_and_history() {
    let node = TestNode::start(0);
    node.running().await;
    node.command(7, usual_settings()).await.unwrap();
    node.command(7, promote(0)).await.unwrap();
    node.write("k", "v").await.unwrap();
    let dir = node.stop().await;
    let again = TestNode::start_in(dir, 0);
    let state = again.running().await;
    assert_eq!(
        (state.redis.keys, state.redis.fenced, state.highest.epoch, state.promoted),
        (1, true, 7, true)
    );
    assert_eq!(
        state.history.map(|h| (h.epoch, h.gap_ms)),
        Some((7, 0)),
        "a clean stop leaves no gap"
    );
    let lower = again.command(6, usual_settings()).await.unwrap_err();
    assert_eq!(lower.code(), Code::FailedPrecondition);
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_commands_and_second_targets_are_refused_and_change_nothing() {
    let node = TestNode::start(1);
    node.running().await;
    let stale = node.send("made-up".into(), 9, promote(0)).await.unwrap_err();
    assert_eq!(stale.code(), Code::FailedPrecondition);
    assert_eq!((node.node.peek().highest.epoch, node.node.peek().redis.role), (0, Role::Replica));
    node.command(2, follow(false)).await.unwrap();
    let second = node.command(2, promote(0)).await.unwrap_err();
    assert_eq!(second.code(), Code::FailedPrecondition);
    assert_eq!(node.node.peek().redis.role, Role::Replica);
    node.command(3, promote(0)).await.unwrap();
    let own = node.command(3, follow(false)).await.unwrap_err();
    assert_eq!(own.code(), Code::FailedPrecondition);
    assert_eq!(node.running().await.redis.role, Role::Master);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_and_settings_that_undo_the_fence_are_refused() {
    let node = TestNode::start(0);
    node.running().await;
    let commands = [
        "psync",
        "sync",
        "replconf",
        "replicaof",
        "slaveof",
        "failover",
        "config",
        "config|get",
        "config|set",
        "acl",
        "acl|setuser",
        "client|kill",
        "client|pause",
        "client|unpause",
        "client|unblock",
        "client|no-evict",
        "shutdown",
        "debug",
        "module",
        "@all",
        "@admin",
        "@dangerous",
    ];
    for command in commands {
        refused(&node, app_settings(&format!("~* +{command}"), false), "users.app").await;
    }
    for rules in ["~* +get nopass", "~* +get >secret", "~* (+@all ~*)", "+nonsense"] {
        refused(&node, app_settings(rules, false), "users.app").await;
    }
    let mut session = node.node.redis.open(PATIENCE).await.unwrap();
    assert!(
        session.run(redis::cmd("ACL").arg("DRYRUN").arg("_check").arg("PING")).await.is_err(),
        "no trial user stays"
    );
    let user = session.ask(redis::cmd("ACL").arg("LIST")).await;
    assert!(user.contains("resetchannels -@all"), "it may do nothing: {user}");
    for name in [
        "min-replicas-to-write",
        "replicaof",
        "dir",
        "masterauth",
        "enable-debug-command",
        "NOT plain",
        "bind",
    ] {
        let settings = wire::Configure {
            redis_config: [(name.to_owned(), "1".to_owned())].into(),
            ..wire::Configure::default()
        };
        refused(&node, Command::Configure(settings), &format!("config.{name}")).await;
    }
    node.command(1, usual_settings()).await.unwrap();
    node.stop().await;
}

/// This alone is refused.
async fn refused(node: &TestNode, command: Command, name: &str) {
    let refused = node.command(1, command).await.unwrap().refused;
    assert_eq!(refused.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), [name]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_come_and_go_and_so_do_users() {
    let node = TestNode::start(0);
    node.running().await;
    let with = |config: &[(&str, &str)], users: &[&str]| {
        Command::Configure(wire::Configure {
            generation: format!("{config:?}{users:?}"),
            redis_config: config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            users: users
                .iter()
                .map(|u| wire::AclUser {
                    name: (*u).into(),
                    password_sha256: vec![hash("p")],
                    rules: "+get ~*".into(),
                })
                .collect(),
            maxmemory_bytes: 64 * 1024 * 1024,
            ..wire::Configure::default()
        })
    };
    let first = node
        .command(
            1,
            with(
                &[("timeout", "77"), ("appendonly", "yes"), ("maxmemory-policy", "allkeys-lru")],
                &["a", "b"],
            ),
        )
        .await
        .unwrap();
    assert!(first.configured.contains("timeout"));
    node.command(1, with(&[("maxmemory-policy", "allkeys-lfu")], &["b"])).await.unwrap();
    let mut session = node.node.redis.open(PATIENCE).await.unwrap();
    let text =
        session.ask(redis::cmd("CONFIG").arg("GET").arg("timeout").arg("maxmemory-policy")).await;
    assert!(text.contains("\"0\"") && text.contains("allkeys-lfu"), "{text}");
    let users = session.ask(redis::cmd("ACL").arg("USERS")).await;
    assert_eq!(users, r#"["_agent", "b", "default"]"#);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demoted_master_keeps_its_data_aside_and_drops_replication_users() {
    let (old, new) = pair().await;
    old.write("k", "both").await.unwrap();
    let offset = old.node.redis.open(PATIENCE).await.unwrap().info().await.unwrap().offset();
    new.until(|s| s.redis.offset >= offset).await;
    new.command(2, Command::Detach(wire::Detach::default())).await.unwrap();
    old.write("k", "lost").await.unwrap();
    new.command(2, promote(0)).await.unwrap();
    // The old master dials the new one's port.
    let dir = old.stop().await;
    let old = TestNode::start_in(dir, new.port());
    old.running().await;
    old.command(2, usual_settings()).await.unwrap();
    let state = old.command(2, follow(true)).await.unwrap();
    assert_eq!(state.saved, ["before-epoch-2"]);
    let size = |label: &str| {
        std::fs::metadata(old.node.settings.data_dir.join(format!("saved/{label}.rdb")))
            .unwrap()
            .len()
    };
    assert!(size("before-epoch-2") > 0);
    old.until(|s| s.redis.is_linked() && s.redis.online_epoch == 2).await;
    assert_eq!(old.read("k").await.as_deref(), Some("both"));
    // Again: the artefact is not overwritten by the new master's data.
    let before =
        std::fs::read(old.node.settings.data_dir.join("saved/before-epoch-2.rdb")).unwrap();
    old.command(2, follow(true)).await.unwrap();
    assert_eq!(
        std::fs::read(old.node.settings.data_dir.join("saved/before-epoch-2.rdb")).unwrap(),
        before
    );
    let saved =
        new.command(2, Command::Save(wire::Save { label: "by-hand".into() })).await.unwrap();
    assert_eq!(saved.saved, ["by-hand"]);
    // A running master that is demoted loses its replication users.
    new.command(3, Command::Detach(wire::Detach::default())).await.unwrap();
    let mut session = new.node.redis.open(PATIENCE).await.unwrap();
    assert_eq!(
        session.ask(redis::cmd("ACL").arg("USERS")).await,
        r#"["_agent", "app", "default"]"#
    );
    old.stop().await;
    new.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_append_only_file_comes_and_goes_without_losing_data() {
    let node = TestNode::start(0);
    node.running().await;
    let rules = "~* +@all -@admin -@dangerous +info";
    node.command(1, app_settings(rules, true)).await.unwrap();
    node.command(1, promote(0)).await.unwrap();
    node.write("k", "v").await.unwrap();
    node.until(|_| node.instance.has_append_only_file()).await;
    node.command(1, app_settings(rules, false)).await.unwrap();
    assert!(!node.instance.append_only_dir().exists() && node.instance.dump().exists());
    node.kill_redis();
    node.until(|s| s.redis.process == Process::Exited).await;
    assert_eq!(node.running().await.redis.keys, 1, "loaded from the snapshot");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_busy_for_ever_is_ended_by_a_detach() {
    let node = TestNode::start(0);
    node.running().await;
    node.command(1, usual_settings()).await.unwrap();
    node.command(1, promote(0)).await.unwrap();
    let mut client = node.client().await;
    let busy = tokio::spawn(async move {
        redis::cmd("EVAL").arg("while true do end").arg(0).exec_async(&mut client).await
    });
    node.until(|s| s.redis.process == Process::Stuck).await;
    node.command(2, Command::Detach(wire::Detach::default())).await.unwrap();
    assert!(busy.await.unwrap().is_err());
    assert_eq!(node.running().await.redis.role, Role::Replica);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_used_volume_without_its_memory_promotes_nothing_before_another_command() {
    let node = TestNode::start_used(open_dir(), 0, true);
    assert_eq!(node.running().await.notes.len(), 1);
    assert_eq!(node.command(4, promote(0)).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(node.node.peek().redis.role, Role::Replica);
    let told = node.command(4, usual_settings()).await.unwrap();
    assert!(told.notes.is_empty());
    node.command(4, promote(0)).await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_redis_is_stuck_and_a_detach_ends_it() {
    let node = TestNode::start(0);
    node.running().await;
    node.command(1, usual_settings()).await.unwrap();
    node.command(1, promote(0)).await.unwrap();
    let mut session = node.node.redis.open(PATIENCE).await.unwrap();
    let pid: i64 = session.info().await.unwrap().number("process_id");
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    node.until(|s| s.redis.process == Process::Stuck).await;
    let state = node.command(2, Command::Detach(wire::Detach::default())).await.unwrap();
    assert!(state.redis.fenced && state.redis.process != Process::Running);
    assert_eq!(node.running().await.redis.role, Role::Replica);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_not_supported_is_refused_by_name_and_not_started() {
    let dir = open_dir();
    let (program, started) = (dir.path().join("redis-server"), dir.path().join("started"));
    // Written by another process: a file that this one has open for writing cannot be run.
    let script = r#"printf '#!/bin/sh\necho Redis server v=6.2.14 sha=0:0\n[ "$1" = --version ] || touch %s\n' "$2" > "$1" && chmod 755 "$1""#;
    let mut shell = std::process::Command::new("sh");
    let written = shell.args(["-c", script, "sh"]).arg(&program).arg(&started).status().unwrap();
    assert!(written.success());
    let settings = Settings { redis_server: program, ..settings(dir.path(), 0) };
    let node = TestNode::start_as(dir, settings, identity(), false);
    let state = node.until(|s| !s.notes.is_empty()).await;
    assert_eq!(state.redis.process, Process::Exited);
    assert!(state.notes[0].starts_with("Redis 6.2.14 is not supported"), "{:?}", state.notes);
    node.stop().await;
    assert!(!started.exists(), "it was asked for its version alone");
}
