//! A cluster of ours on the local market, its nodes so far apart.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use akash_redis::api::conditions::{ConditionStatus, ConditionType, Phase};
use akash_redis::api::status::NodeStatus;
use akash_redis::api::types::RedisCluster;
use akash_redis::api::validate;
use akash_redis::api_client::Client;
use akash_redis::cli::local::{Local, LocalOptions};
use akash_redis::devnet::distance::Distance;
use akash_redis::devnet::tailnet;
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest as _, Sha256};
use tokio::process::{Child, Command};
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::PROGRAM;
use super::application::Finds;

const PASSWORD: &str = "not-a-secret";
const PORT: u16 = 6380;
const POLL: Duration = Duration::from_millis(20);
/// What a market leaves is gone within this.
const GONE: Duration = Duration::from_secs(10);

pub struct Ours {
    local: Local,
    client: Client,
    _proxy: Child,
    _stop: DropGuard,
}

impl Ours {
    /// Market, operator, a cluster of three that is Ready, and a proxy.
    pub async fn start(dir: &Path, distance: Option<Distance>) -> Self {
        Self::start_with(dir, distance, &[]).await
    }

    /// The same, with more flags of the proxy.
    pub async fn start_with(dir: &Path, distance: Option<Distance>, flags: &[&str]) -> Self {
        std::fs::create_dir_all(dir).expect("a directory");
        let stop = CancellationToken::new();
        let options = LocalOptions { distance, ..LocalOptions::default() };
        let begun = Instant::now();
        let mut local = loop {
            match Local::start_with(Path::new(PROGRAM), dir, &stop, &options).await {
                Ok(local) => break local,
                // The network of the market before may be on its way out.
                Err(error) => assert!(begun.elapsed() < GONE, "a local market: {error}"),
            }
            sleep(POLL).await;
        };
        // A node that is switched off for a moment is not replaced.
        let settings = std::fs::read_to_string(local.config()).expect("settings");
        let settings = settings
            .replace("replaceAfter: 12s", "replaceAfter: 5m")
            .replace("joinDeadline: 30s", "joinDeadline: 2m");
        std::fs::write(local.config(), settings).expect("settings");
        local.start_operator().await.expect("an operator");
        let client = local.client().expect("a client");
        client.apply(&cluster()).await.expect("a good manifest");
        let mut command = Command::new(PROGRAM);
        command.arg("--socket").arg(local.socket()).args(["proxy", "--cluster", "cache"]);
        command.args(["--listen", &format!("127.0.0.1:{PORT}")]);
        command.args(["--socks5", &tailnet::socks5().to_string()]);
        let proxy = command
            .args(flags)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("this program");
        let ours = Self { local, client, _proxy: proxy, _stop: stop.drop_guard() };
        ours.ready().await;
        ours
    }

    pub fn finds() -> Finds {
        Finds::Address { port: PORT, user: "app".to_owned(), password: PASSWORD.to_owned() }
    }

    /// Everything is as it should be: another failure would be survived.
    pub async fn ready(&self) {
        let holds = |cluster: &RedisCluster, kind: ConditionType| {
            cluster.status.as_ref().is_some_and(|status| {
                status
                    .conditions
                    .iter()
                    .any(|c| c.kind == kind && c.status == ConditionStatus::True)
            })
        };
        loop {
            let seen = self.client.get("cache").await;
            if seen.is_ok_and(|cluster| {
                holds(&cluster, ConditionType::Ready)
                    && cluster.status.as_ref().is_some_and(|s| {
                        s.nodes.iter().filter(|n| n.phase == Phase::Replica).count() == 2
                    })
            }) {
                return;
            }
            sleep(POLL).await;
        }
    }

    async fn master(&self) -> NodeStatus {
        loop {
            let nodes = self.client.get("cache").await.ok().and_then(|c| c.status);
            let master = nodes.and_then(|s| s.nodes.into_iter().find(|n| n.phase == Phase::Master));
            if let Some(master) = master {
                return master;
            }
            sleep(POLL).await;
        }
    }

    /// Redis of the master dies.
    pub async fn kill_master(&self) {
        let master = self.master().await;
        self.signal(&master, Signal::KILL);
    }

    /// Redis of a replica dies.
    pub async fn kill_replica(&self) {
        let nodes = self.client.get("cache").await.ok().and_then(|c| c.status);
        let nodes = nodes.into_iter().flat_map(|status| status.nodes);
        let replica = nodes.into_iter().find(|n| n.phase == Phase::Replica);
        self.signal(&replica.expect("there are two"), Signal::KILL);
    }

    /// Redis of the master stands still for so long.
    pub async fn stall_master(&self, time: Duration) {
        let master = self.master().await;
        self.signal(&master, Signal::STOP);
        sleep(time).await;
        self.signal(&master, Signal::CONT);
    }

    fn signal(&self, node: &NodeStatus, signal: Signal) {
        let (provider, lease) = self.local.market.find(node.dseq).expect("it runs");
        let runner = &self.local.market.providers[provider].runner;
        for pid in runner.processes(&lease, "redis-server") {
            let pid = Pid::from_raw(pid.try_into().expect("a pid")).expect("a pid");
            // It may have ended by itself.
            let _ = kill_process(pid, signal);
        }
    }

    /// The network of the master's node is gone; its dseq.
    pub async fn cut_master(&self) -> u64 {
        let master = self.master().await;
        self.local.market.set_link(master.dseq, false).await.expect("a network");
        master.dseq
    }

    pub async fn join(&self, dseq: u64) {
        self.local.market.set_link(dseq, true).await.expect("a network");
    }

    /// A planned change.
    pub async fn switchover(&self) {
        let request = akash_redis::server::messages::Switchover { to: None };
        let before = self.master().await.incarnation;
        self.client.switchover("cache", &request).await.expect("a master that is well");
        while self.master().await.incarnation == before {
            sleep(POLL).await;
        }
    }

    pub async fn stop(mut self) {
        self.local.kill_operator().await;
    }
}

fn cluster() -> RedisCluster {
    let hash = hex::encode(Sha256::digest(PASSWORD));
    let text = format!(
        "apiVersion: akash-redis.dev/v1alpha1\nkind: RedisCluster\nmetadata: {{ name: cache }}\nspec:\n  nodes: 3\n  \
         redis: {{ users: [{{ name: app, passwordSha256: {hash} }}] }}\n  \
         resources: {{ cpu: 500m, memory: 1Gi, data: {{ size: 4Gi, class: beta3 }} }}\n  budget: {{ maxPerMonth: 16act }}\n"
    );
    validate::parse(&text).expect("a good manifest").remove(0)
}
