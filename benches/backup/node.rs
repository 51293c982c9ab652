//! A node in a process of its own, without a mesh: the agent's own parts, and a real redis-server.
//! What it is told comes as lines on standard input, and each is answered with a line.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use akash_redis::model::backup::{Snapshot, TaskPhase};
use akash_redis::model::identity::{Egress as EgressKind, NodeIdentity};
use akash_redis::model::node::{NodeState, Process};
use akash_redis::model::time::Backoff;
use akash_redis::node::command_executor::CommandExecutor;
use akash_redis::node::forwarder::Egress;
use akash_redis::node::logs::LogBook;
use akash_redis::node::redis_config::BootConfig;
use akash_redis::node::redis_control::RedisControl;
use akash_redis::node::redis_process::{RedisInstance, keep_running};
use akash_redis::node::settings::Settings;
use akash_redis::node::snapshots::Snapshots;
use akash_redis::node::state::{Node, Parts};
use akash_redis::node::state_file::StateFile;
use akash_redis::node::users::system_user;
use akash_redis::wire::akash_redis::agent::v1 as wire;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_util::sync::CancellationToken;
use wire::command_request::Command as Wire;

/// Password of the user `app`.
pub const PASSWORD: &str = "not-a-secret";
const REPLICATION: &str = "not-a-secret-either";
const KEY: [u8; 32] = [7; 32];
/// The backup that is restored.
pub const ID: &str = "b1";
const OBJECT: &str = "i/cache/b1.rdb";
/// Nothing of one task takes longer.
const LIMIT: Duration = Duration::from_mins(30);

/// What a node is told.
#[derive(Debug, Serialize, Deserialize)]
pub enum Told {
    /// Become master.
    Promote,
    /// Replicate from the master whose port it was started with.
    Follow,
    /// Store the data below this directory, as the backup of this id.
    BackUp(PathBuf, String),
    /// Get them from there.
    Restore(PathBuf, Snapshot),
}

/// A node as the measurement sees it.
pub struct Remote {
    pub port: u16,
    pid: u32,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    child: Child,
}

impl Remote {
    /// Starts one. It ends its redis-server and then itself when nobody is left to tell it anything.
    pub async fn start(dir: &Path, port: u16, master: u16, maxmemory: u64) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .arg("node")
            .arg(dir)
            .args([port.to_string(), master.to_string(), maxmemory.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a node");
        let pid = child.id().expect("it runs");
        let stdin = child.stdin.take().expect("piped");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut remote = Self { port, pid, stdin, lines, child };
        remote.answer().await;
        remote
    }

    async fn answer(&mut self) -> Snapshot {
        // Redis and the agent say other things there.
        let line = loop {
            let line = self.lines.next_line().await.expect("a pipe").expect("an answer");
            if line.starts_with('{') {
                break line;
            }
        };
        serde_json::from_str::<Result<Snapshot, String>>(&line).expect("JSON").expect("it is done")
    }

    /// Tells it, and waits until it is done.
    pub async fn tell(&mut self, told: &Told) -> Snapshot {
        let line = serde_json::to_string(told).expect("JSON") + "\n";
        self.stdin.write_all(line.as_bytes()).await.expect("a pipe");
        self.answer().await
    }

    /// Ends it.
    pub async fn end(mut self) {
        drop(self.stdin);
        self.child.wait().await.expect("it ends");
    }

    /// Resident memory of the agent's process, KiB.
    pub fn resident(&self) -> u64 {
        resident(self.pid)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// It and its redis-server run on this core from now on, and what they start.
    pub fn runs_on(&self, cores: &str) {
        runs_on(self.pid, cores);
    }
}

/// A process, and all that it started, run on these cores from now on: `0`, `1` or `0-3`.
pub fn runs_on(pid: u32, cores: &str) {
    let told = std::process::Command::new("taskset")
        .args(["--all-tasks", "--cpu-list", "--pid", cores, &pid.to_string()])
        .stdout(Stdio::null())
        .status();
    assert!(told.expect("taskset of util-linux").success(), "{pid} runs on {cores}");
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    for task in tasks {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            runs_on(child, cores);
        }
    }
}

/// Resident memory of a process, KiB.
pub fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn hash(password: &str) -> String {
    hex::encode(Sha256::digest(password))
}

/// The node itself: `DIR PORT MASTER MAXMEMORY`.
pub async fn serve(arguments: &[String]) {
    let [dir, port, master, maxmemory] = arguments else {
        panic!("node DIR PORT MASTER MAXMEMORY")
    };
    let dir = PathBuf::from(dir);
    let settings = Settings {
        data_dir: dir.join("data"),
        run_dir: dir.join("run"),
        redis_port: port.parse().expect("a port"),
        master_port: master.parse().expect("a port"),
        hosts_file: dir.join("hosts"),
        restarts: Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(30) },
        outlives_agent: false,
        ..Settings::from_env()
    };
    let maxmemory: u64 = maxmemory.parse().expect("bytes");
    let identity = NodeIdentity {
        installation: "abc234".into(),
        incarnation: format!("cache-{port}-x7k2"),
        hostname: "cache".into(),
        epoch_floor: 1,
        auth_key: String::new(),
        login_server: None,
        ca: String::new(),
        certificate: String::new(),
        key: String::new(),
        egress: EgressKind::Forwarder,
        serve: false,
        service: false,
        memory_bytes: maxmemory * 2,
        persistent: true,
        startup: std::collections::BTreeMap::new(),
    };
    let made = |path: PathBuf| {
        std::fs::create_dir_all(&path).expect("a directory");
        path
    };
    made(settings.run_dir.clone());
    made(settings.data_dir.clone());
    let instance = RedisInstance {
        run_dir: settings.run_dir.join("redis"),
        data_dir: settings.data_dir.join("redis"),
        run_as: system_user("redis"),
        password: "agent".into(),
    };
    instance.prepare().expect("directories");
    let socket = instance.run_dir.join(BootConfig::SOCKET);
    let parts = Parts {
        redis: RedisControl::new(&socket, &instance.password).expect("a client"),
        snapshots: Snapshots::new(made(settings.data_dir.join("saved")), instance.dump()),
        files: StateFile::new(made(settings.data_dir.join("agent"))),
        settings,
        identity,
        book: LogBook::new(vec![]),
        egress: Egress::Direct,
        state: tokio::sync::watch::Sender::default(),
        found: None,
    };
    let node = Arc::new(Node::new(parts, false).expect("files"));
    let stop = CancellationToken::new();
    let running = keep_running(node.clone(), instance.clone(), None, stop.clone());
    let running = tokio::spawn(running);
    let executor = Arc::new(CommandExecutor::new(node.clone(), instance));
    let here = Here { node, executor };
    here.until(|s| s.redis.process == Process::Running && !s.redis.loading).await;
    here.command(Wire::Configure(wire::Configure {
        generation: "g".into(),
        users: vec![wire::AclUser {
            name: "app".into(),
            password_sha256: vec![hash(PASSWORD)],
            rules: "~* &* +@all -@admin -@dangerous +info".into(),
        }],
        maxmemory_bytes: maxmemory,
        quorum: Some(wire::Quorum { min_replicas: 0, max_lag_seconds: 8 }),
        ..wire::Configure::default()
    }))
    .await;
    say(&Ok(Snapshot::default()));
    while let Some(line) = next_line().await {
        say(&here.obey(serde_json::from_str(&line).expect("what it is told")).await);
    }
    stop.cancel();
    let _ = running.await;
}

/// Of standard input; none when whoever tells is gone.
async fn next_line() -> Option<String> {
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).is_ok_and(|read| read > 0).then_some(line)
    });
    read.await.ok().flatten()
}

fn say(done: &Result<Snapshot, String>) {
    println!("{}", serde_json::to_string(done).expect("JSON"));
}

struct Here {
    node: Arc<Node>,
    executor: Arc<CommandExecutor>,
}

impl Here {
    async fn until(&self, what: impl Fn(&NodeState) -> bool) -> NodeState {
        let mut states = self.node.subscribe();
        let reached = tokio::time::timeout(LIMIT, states.wait_for(|state| what(state))).await;
        reached.expect("in time").expect("a state").clone()
    }

    async fn command(&self, command: Wire) {
        let request = wire::CommandRequest {
            authority: Some(wire::Authority { term: 1, epoch: 1 }),
            nonce: self.node.issue().nonce,
            command: Some(command),
        };
        self.executor.execute(request).await.expect("it is obeyed");
    }

    async fn obey(&self, told: Told) -> Result<Snapshot, String> {
        let storage = |dir: &Path| {
            let url = format!("file://{}", dir.display());
            Some(wire::ObjectStorage { url, ..wire::ObjectStorage::default() })
        };
        let (id, object, key) = (ID.to_owned(), OBJECT.to_owned(), KEY.to_vec());
        match told {
            Told::Promote => {
                let user = wire::ReplicationUser {
                    name: "_repl-b".into(),
                    password_sha256: hash(REPLICATION),
                };
                let quorum = Some(wire::Quorum { min_replicas: 0, max_lag_seconds: 8 });
                let replication_users = vec![user];
                let promote =
                    wire::Promote { replication_users, quorum, ..wire::Promote::default() };
                self.command(Wire::Promote(promote)).await;
            }
            Told::Follow => {
                self.command(Wire::Follow(wire::Follow {
                    master_name: "127.0.0.1".into(),
                    user: "_repl-b".into(),
                    password: REPLICATION.into(),
                    master_incarnation: "cache-0-m4m4".into(),
                    ..wire::Follow::default()
                }))
                .await;
                self.until(|s| s.redis.is_linked()).await;
            }
            Told::BackUp(dir, id) => {
                let (storage, of) = (storage(&dir), id.clone());
                self.command(Wire::Backup(wire::Backup { id, storage, object, key })).await;
                let ended = |s: &NodeState| {
                    let phase = s.backup.as_ref().filter(|task| task.id == of).map(|t| t.phase);
                    matches!(phase, Some(TaskPhase::Done | TaskPhase::Failed))
                };
                let task = self.until(ended).await.backup.unwrap_or_default();
                return task.snapshot.ok_or(task.error);
            }
            Told::Restore(dir, of) => {
                let restore = wire::Restore {
                    id,
                    storage: storage(&dir),
                    object,
                    key,
                    rdb_bytes: of.rdb_bytes,
                    rdb_sha256: of.rdb_sha256.clone(),
                    ..wire::Restore::default()
                };
                self.command(Wire::Restore(restore)).await;
                let ended = |s: &NodeState| {
                    let phase = s.restore.as_ref().map(|task| task.phase);
                    matches!(phase, Some(TaskPhase::Done | TaskPhase::Failed))
                };
                let task = self.until(ended).await.restore.unwrap_or_default();
                if task.phase != TaskPhase::Done {
                    return Err(task.error);
                }
                return Ok(of);
            }
        }
        Ok(Snapshot::default())
    }
}
