//! The market of a soak, its operator, which dies now and then, and the clusters on it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use akash_redis::api::quantity::Span;
use akash_redis::api::status::{NodeStatus, Status};
use akash_redis::api::types::{Durability, RedisCluster, User};
use akash_redis::cli::demo::writer::Access;
use akash_redis::cli::local::LocalOptions;
use akash_redis::devnet::sandbox::Sandbox;
use akash_redis::devnet::tailnet;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::clients::Clients;
use super::faults::Mark;
use super::masters::Masters;
use super::{CLOCK, PROBE};
use crate::mesh_faults::{clock_of_its_own, faketime};
use crate::stage::{PASSWORD, PROGRAM, Stage, cluster, is_ready};

/// Nobody is waited for longer: Ready again by itself.
const BACK: Duration = Duration::from_mins(5);
/// Between two looks.
const POLL: Duration = Duration::from_millis(100);

/// What happened, with times, for whoever has to find out why.
pub struct Journal {
    begun: Instant,
    aloud: bool,
    lines: Mutex<Vec<String>>,
}

impl Journal {
    pub fn new(aloud: bool) -> Arc<Self> {
        Arc::new(Self { begun: Instant::now(), aloud, lines: Mutex::default() })
    }

    pub fn say(&self, text: &str) {
        let line = format!("{:9.3} {text}", self.begun.elapsed().as_secs_f64());
        if self.aloud {
            println!("{line}");
        }
        self.lines.lock().unwrap().push(line);
    }

    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.aloud {
            self.lines.lock().unwrap().iter().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// One of the clusters.
pub struct Subject {
    pub name: String,
    pub confirmed: bool,
    pub clients: Arc<Clients>,
    pub masters: Arc<Masters>,
    _proxy: Child,
}

pub struct Arena {
    pub stage: Arc<Stage>,
    pub journal: Arc<Journal>,
    /// How often each kind of fault was made.
    pub counts: Mutex<BTreeMap<&'static str, u64>>,
    operator: tokio::sync::Mutex<Option<Child>>,
}

/// Three nodes that take writes of `app`, and of the one that watches.
fn manifest(name: &str, confirmed: bool, nodes: u32) -> RedisCluster {
    let mut manifest = cluster(nodes);
    name.clone_into(&mut manifest.metadata.name);
    let spec = &mut manifest.spec;
    let own =
        User { name: PROBE.to_owned(), rules: "full".to_owned(), ..spec.redis.users[0].clone() };
    spec.redis.users.push(own);
    // Little enough to be filled within seconds.
    spec.redis.config.insert("maxmemory".to_owned(), "64mb".to_owned());
    spec.budget.max_per_month = Some("30act".parse().unwrap());
    if confirmed {
        spec.durability = Durability::Confirmed;
    } else {
        spec.failover.down_after = Span(Duration::from_secs(5));
    }
    manifest
}

impl Arena {
    pub async fn set(sandbox: &Sandbox, journal: Arc<Journal>) -> Self {
        let mut env = clock_of_its_own(sandbox);
        env.push(("LD_PRELOAD".to_owned(), faketime().display().to_string()));
        env.push(("FAKETIME_TIMESTAMP_FILE".to_owned(), CLOCK.to_owned()));
        let options = LocalOptions { node_env: env, ..LocalOptions::default() };
        let stage = Stage::without_operator_on(sandbox, &options).await;
        let arena = Self {
            stage: Arc::new(stage),
            journal,
            counts: Mutex::default(),
            operator: tokio::sync::Mutex::default(),
        };
        arena.start_operator().await;
        arena
    }

    /// Starts one and waits until it answers.
    pub async fn start_operator(&self) {
        let local = &self.stage.local;
        let log = std::fs::OpenOptions::new().create(true).append(true).open(local.log()).unwrap();
        let mut command = Command::new(PROGRAM);
        command.arg("operator").arg("--config").arg(local.config());
        command.env("AKASH_REDIS_LOG_LEVEL", "info").envs(tailnet::node_env());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        *self.operator.lock().await = Some(command.kill_on_drop(true).spawn().unwrap());
        let begun = Instant::now();
        while self.stage.client.list().await.is_err() {
            assert!(begun.elapsed() < BACK, "the operator does not answer");
            sleep(POLL).await;
        }
    }

    pub async fn kill_operator(&self) {
        if let Some(mut operator) = self.operator.lock().await.take() {
            // It may have ended by itself.
            let _ = operator.kill().await;
        }
    }

    pub async fn operator_pid(&self) -> Option<u32> {
        self.operator.lock().await.as_ref().and_then(Child::id)
    }

    pub async fn apply(&self, name: &str, confirmed: bool) {
        self.stage.client.apply(&manifest(name, confirmed, 3)).await.unwrap();
    }

    /// The cluster that was applied, with clients that write from now on.
    pub async fn subject(&self, name: &str, confirmed: bool, number: u16) -> Subject {
        self.whole(name, "its first start").await;
        let listen = format!("127.0.0.1:{}", 6400 + number);
        let mut proxy = Command::new(PROGRAM);
        proxy.arg("--socket").arg(self.stage.local.socket()).args(["proxy", "--cluster", name]);
        proxy.args(["--listen", &listen, "--socks5", &tailnet::socks5().to_string()]);
        if confirmed {
            proxy.arg("--confirm");
        }
        let log = self.stage.local.log().with_file_name(format!("proxy-{name}.log"));
        let log = std::fs::File::create(log).unwrap();
        proxy.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).kill_on_drop(true);
        let access = Access {
            host: "127.0.0.1".to_owned(),
            port: 6400 + number,
            user: "app".to_owned(),
            password: PASSWORD.to_owned(),
        };
        Subject {
            name: name.to_owned(),
            confirmed,
            clients: Clients::of(access),
            masters: Arc::default(),
            _proxy: proxy.spawn().unwrap(),
        }
    }

    pub fn count(&self, kind: &'static str) {
        *self.counts.lock().unwrap().entry(kind).or_default() += 1;
    }

    pub async fn seen(&self, name: &str) -> Option<RedisCluster> {
        self.stage.client.get(name).await.ok()
    }

    /// Waits until the cluster is Ready with all nodes in their places.
    pub async fn whole(&self, name: &str, after: &str) -> Status {
        let begun = Instant::now();
        loop {
            let seen = self.seen(name).await;
            if let Some(cluster) = &seen
                && is_whole(cluster)
            {
                return seen.unwrap().status.unwrap();
            }
            assert!(
                begun.elapsed() < BACK,
                "{name} is not Ready again after {after}: {}",
                told(seen.as_ref())
            );
            sleep(POLL).await;
        }
    }

    /// Waits until what happened was noticed, where that can be seen.
    pub async fn past(&self, name: &str, mark: &Mark, what: &str) {
        let begun = Instant::now();
        loop {
            let seen = self.seen(name).await;
            if let Some(status) = seen.as_ref().and_then(|cluster| cluster.status.as_ref())
                && mark.is_past(&self.stage, status)
            {
                return;
            }
            assert!(
                begun.elapsed() < BACK,
                "{name} shows nothing of {what}: {}",
                told(seen.as_ref())
            );
            sleep(POLL).await;
        }
    }

    /// Waits until clients were told that more is done.
    pub async fn writes_go_on(&self, subject: &Subject, after: &str) {
        let (begun, before) = (Instant::now(), subject.clients.told());
        while subject.clients.told() < before + 100 {
            assert!(
                begun.elapsed() < BACK,
                "{} takes no writes after {after}: {}",
                subject.name,
                told(self.seen(&subject.name).await.as_ref())
            );
            sleep(POLL).await;
        }
    }
}

pub fn master(status: &Status) -> Option<&NodeStatus> {
    use akash_redis::api::conditions::Phase;
    status.nodes.iter().find(|node| node.phase == Phase::Master)
}

fn is_whole(cluster: &RedisCluster) -> bool {
    let Some(status) = &cluster.status else { return false };
    let wanted = cluster.spec.nodes as usize;
    is_ready(cluster)
        && master(status).is_some()
        && status.nodes.len() == wanted
        && status.nodes.iter().all(|node| node.phase.is_serving())
}

/// A cluster in a few lines.
fn told(cluster: Option<&RedisCluster>) -> String {
    let Some(status) = cluster.and_then(|cluster| cluster.status.as_ref()) else {
        return "the operator does not answer".to_owned();
    };
    let mut text = format!("epoch {}\n", status.epoch);
    for condition in &status.conditions {
        let _ = writeln!(
            text,
            "  {} {} {}: {}",
            condition.kind, condition.status, condition.reason, condition.message
        );
    }
    for node in &status.nodes {
        let message = node.message.as_deref().unwrap_or_default();
        let _ =
            writeln!(text, "  {} {} dseq {} {message}", node.incarnation, node.phase, node.dseq);
    }
    for waiting in &status.waiting {
        let _ = writeln!(text, "  waits for {}; then {}", waiting.what, waiting.then);
    }
    text
}
