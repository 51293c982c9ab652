//! A local market with an operator, and what tests ask of it.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use akash_redis::api::conditions::Phase;
use akash_redis::api::status::{NodeStatus, Status};
use akash_redis::api::types::RedisCluster;
use akash_redis::api::validate;
use akash_redis::api_client::{Client, ClientError};
use akash_redis::cli::demo::patience::{Patience, steps};
use akash_redis::cli::demo::writer::Access;
use akash_redis::cli::local::{Local, LocalOptions};
use akash_redis::devnet::sandbox::Sandbox;
use akash_redis::devnet::tailnet;
use http::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::process::{Child, Command};
use tokio::time::sleep;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_akash-redis");

/// The same; another build of it where figures are wanted, at `AKASH_REDIS_PROGRAM`.
pub fn program() -> String {
    std::env::var("AKASH_REDIS_PROGRAM").unwrap_or_else(|_| PROGRAM.to_owned())
}

/// The cluster of these tests.
pub const CLUSTER: &str = "cache";
/// Password of its users.
pub const PASSWORD: &str = "not-a-secret";
/// Where an application finds its proxy.
const PROXY: (&str, u16) = ("127.0.0.1", 6380);
/// A single wait of these tests takes no longer unless something is broken.
const STEP: Duration = Duration::from_mins(1);
/// Between two looks.
const POLL: Duration = Duration::from_millis(20);

/// Market, tailnet and operator.
pub struct Stage {
    pub local: Local,
    pub client: Client,
}

/// What the outside world still holds of our clusters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Millionths of an ACT in escrow, times 10^18.
    pub escrow: i128,
    /// Deployments that are not closed.
    pub deployments: usize,
    /// Devices of nodes.
    pub devices: usize,
    /// Keys with which a node could still join.
    pub keys: usize,
    /// Workloads at providers.
    pub workloads: usize,
}

impl Stage {
    /// Market and tailnet; no operator runs yet.
    pub async fn without_operator(sandbox: &Sandbox) -> Self {
        Self::without_operator_on(sandbox, &LocalOptions::default()).await
    }

    /// The same, on a market or tailnet that is not the usual one.
    pub async fn without_operator_on(sandbox: &Sandbox, options: &LocalOptions) -> Self {
        let local = Local::start_with(Path::new(&program()), &sandbox.dir, &sandbox.stop, options)
            .await
            .unwrap();
        let client = local.client().unwrap();
        Self { local, client }
    }

    /// All of it, on a market or tailnet that is not the usual one.
    pub async fn on(sandbox: &Sandbox, options: &LocalOptions) -> Self {
        let mut stage = Self::without_operator_on(sandbox, options).await;
        stage.local.start_operator().await.unwrap();
        stage
    }

    /// All of it.
    pub async fn start(sandbox: &Sandbox) -> Self {
        let mut stage = Self::without_operator(sandbox).await;
        stage.local.start_operator().await.unwrap();
        stage
    }

    /// All of it, with an operator that does not replace a node within the time in which it comes
    /// back by itself.
    pub async fn patient(sandbox: &Sandbox) -> Self {
        Self::patient_on(sandbox, &LocalOptions::default()).await
    }

    /// The same, on a market or tailnet that is not the usual one.
    pub async fn patient_on(sandbox: &Sandbox, options: &LocalOptions) -> Self {
        let mut stage = Self::without_operator_on(sandbox, options).await;
        let (file, replace) = (stage.local.config(), "replaceAfter: 12s");
        let settings = std::fs::read_to_string(&file).unwrap();
        assert!(settings.contains(replace), "{settings}");
        std::fs::write(&file, settings.replace(replace, "replaceAfter: 2m")).unwrap();
        stage.local.start_operator().await.unwrap();
        stage
    }

    /// Polls the cluster until it is as wanted, for as long as something is done for it.
    pub async fn until(&self, what: &str, wanted: impl Fn(&RedisCluster) -> bool) -> RedisCluster {
        let mut patience = Patience::begin(Instant::now());
        loop {
            let seen = self.client.get(CLUSTER).await;
            if let Ok(cluster) = &seen
                && wanted(cluster)
            {
                return seen.unwrap();
            }
            let goes_on = patience.goes_on(seen.as_ref().ok().map(steps), Instant::now());
            assert!(goes_on, "waited in vain for {what}; last seen: {seen:#?}");
            sleep(POLL).await;
        }
    }

    /// Polls the status until it is as wanted.
    pub async fn until_status(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        self.until(what, |c| c.status.as_ref().is_some_and(&wanted)).await.status.unwrap()
    }

    pub async fn until_ready(&self) -> Status {
        self.until("the cluster to be Ready", is_ready).await.status.unwrap()
    }

    /// The node that is master, once there is one.
    pub async fn master(&self) -> NodeStatus {
        let status = self
            .until_status("a master", |s| s.nodes.iter().any(|n| n.phase == Phase::Master))
            .await;
        status.nodes.into_iter().find(|n| n.phase == Phase::Master).unwrap()
    }

    /// Redis of a node dies; the rest of the node goes on.
    pub fn kill_redis(&self, node: &NodeStatus) {
        let (provider, lease) = self.local.market.find(node.dseq).unwrap();
        for pid in self.local.market.providers[provider].runner.processes(&lease, "redis-server") {
            let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
            kill_process(pid, Signal::KILL).unwrap();
        }
    }

    /// Deletes the cluster and waits until the operator has forgotten it.
    pub async fn delete(&self) {
        self.client.delete(CLUSTER, true).await.unwrap();
        self.until_deleted().await;
    }

    pub async fn until_deleted(&self) {
        until("the cluster to be gone", async || {
            matches!(self.client.get(CLUSTER).await, Err(ClientError::NotFound(_)))
        })
        .await;
    }

    /// Nothing was left when the operator forgot the cluster; providers hear of it a block later.
    pub async fn assert_nothing_left(&self) {
        let left = Left { workloads: 0, ..self.left().await };
        assert_eq!(left, Left::default());
        until("the providers to wipe what they ran", async || self.left().await == Left::default())
            .await;
    }

    pub async fn left(&self) -> Left {
        let (_, escrow, deployments) = self.local.market.tenant_books();
        let workloads = self.local.market.providers.iter().map(|p| p.runner.leases().len()).sum();
        Left {
            escrow,
            deployments,
            devices: self.devices().await,
            keys: self.keys().await,
            workloads,
        }
    }

    /// Devices of nodes.
    pub async fn devices(&self) -> usize {
        let ours = |device: &&Value| {
            device["hostname"].as_str().is_some_and(|name| name.starts_with(CLUSTER))
        };
        self.listed("devices").await.iter().filter(ours).count()
    }

    /// Keys with which a node could join.
    pub async fn keys(&self) -> usize {
        let ours = |key: &&Value| {
            key["description"].as_str().is_some_and(|text| text.starts_with("ar "))
                && key["invalid"] != true
        };
        self.listed("keys").await.iter().filter(ours).count()
    }

    /// Empty while the control server does not answer.
    async fn listed(&self, what: &str) -> Vec<Value> {
        let answer = self.local.tailnet.api(Method::GET, &format!("tailnet/-/{what}"), None).await;
        answer.ok().and_then(|answer| answer[what].as_array().cloned()).unwrap_or_default()
    }

    /// Runs the program as a user would.
    pub async fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(program());
        command
            .arg("--socket")
            .arg(self.local.socket())
            .args(arguments)
            .env("CACHE_APP_PASSWORD", PASSWORD);
        command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap()
    }

    /// What a command printed; it did what was asked.
    pub async fn says(&self, arguments: &[&str]) -> String {
        let said = self.cli(arguments).await;
        let (out, error) =
            (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        assert!(said.status.success(), "{arguments:?}: {out}{error}");
        println!("$ akash-redis {}\n{out}", arguments.join(" "));
        out.into_owned()
    }

    /// A proxy for an application, and how the application gets in.
    pub fn proxy(&self) -> (Child, Access) {
        self.proxy_that(&[])
    }

    /// One with more flags.
    pub fn proxy_that(&self, flags: &[&str]) -> (Child, Access) {
        let mut command = Command::new(program());
        command.arg("--socket").arg(self.local.socket()).args(["proxy", "--cluster", CLUSTER]);
        command.args([
            "--listen",
            &format!("{}:{}", PROXY.0, PROXY.1),
            "--socks5",
            &tailnet::socks5().to_string(),
        ]);
        command.args(flags);
        let proxy = command.stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        let access = Access {
            host: PROXY.0.to_owned(),
            port: PROXY.1,
            user: "app".to_owned(),
            password: PASSWORD.to_owned(),
        };
        (proxy, access)
    }
}

/// The cluster of these tests with so many nodes and one user, `app`.
pub fn cluster(nodes: u32) -> RedisCluster {
    let hash = hex::encode(Sha256::digest(PASSWORD));
    let text = format!(
        "apiVersion: akash-redis.dev/v1alpha1\n\
         kind: RedisCluster\n\
         metadata: {{ name: {CLUSTER} }}\n\
         spec:\n  \
           nodes: {nodes}\n  \
           redis: {{ users: [{{ name: app, passwordSha256: {hash} }}] }}\n  \
           resources: {{ cpu: 500m, memory: 1Gi, data: {{ size: 4Gi, class: beta3 }} }}\n  \
           budget: {{ maxPerMonth: 16act }}\n"
    );
    validate::parse(&text).unwrap().remove(0)
}

/// Ready, and by its present manifest.
pub fn is_ready(cluster: &RedisCluster) -> bool {
    let generation = cluster.metadata.generation.unwrap_or(0);
    cluster
        .status
        .as_ref()
        .is_some_and(|s| s.observed_generation == generation && condition(s, "Ready").0 == "True")
}

/// Status, reason and message of a condition.
pub fn condition<'a>(status: &'a Status, kind: &str) -> (&'a str, &'a str, &'a str) {
    let found = status.conditions.iter().find(|c| c.kind.to_string() == kind);
    found.map_or(("", "", ""), |c| (c.status.into(), c.reason.into(), c.message.as_str()))
}

/// Polls until it holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < STEP, "waited in vain for {what}");
        sleep(POLL).await;
    }
}
