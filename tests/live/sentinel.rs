//! An application on a machine of its own, which reaches the tailnet as the article's do (userspace
//! tailscaled, SOCKS5, proxychains), with a stock client of Sentinel, follows the master through a failover, a switchover, the loss of
//! the node that it asks first, and without an operator.

use std::process::Stdio;
use std::time::Duration;

use akash_redis::devnet::sandbox::Sandbox;
use akash_redis::devnet::tailnet::APPLICATION_TAG;
use http::Method;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

use crate::machine::Machine;
use crate::sandboxed::sandboxed;
use crate::stage::{CLUSTER, PASSWORD, Stage, cluster, until};

const LIMIT: Duration = Duration::from_mins(6);
/// A client finds the master again within this, whatever happened to it.
const FOUND: Duration = Duration::from_mins(1);

/// The snippet of the guide, in a loop that tells what became of each write.
const APPLICATION: &str = r#"
import sys, time, redis
from redis.sentinel import Sentinel
nodes = [(address, 26379) for address in sys.argv[2:]]
sentinel = Sentinel(nodes, socket_timeout=2)
master = sentinel.master_for("cache", username="app", password=sys.argv[1], socket_timeout=2)
n = 0
while True:
    n += 1
    try:
        master.set("k%d" % n, n)
        print("ok", sentinel.discover_master("cache")[0], flush=True)
    except redis.RedisError as error:
        print("error", type(error).__name__, error, flush=True)
    time.sleep(0.05)
"#;

/// What carries a client's connections into the tailnet.
pub const THROUGH: &str = "proxychains4 -q -f /etc/proxychains.conf";
const PROXYCHAINS: &str = "strict_chain
tcp_read_time_out 2000
tcp_connect_time_out 2000
[ProxyList]
socks5 127.0.0.1 1055
";

struct Application {
    _process: Child,
    told: Lines<BufReader<ChildStdout>>,
}

impl Application {
    fn start(machine: &Machine, nodes: &[String]) -> Self {
        let line = format!(
            "exec {THROUGH} /usr/bin/python3 -c \"$APPLICATION\" {PASSWORD} {}",
            nodes.join(" ")
        );
        let mut shell = machine.shell(&[("APPLICATION", APPLICATION)], &line);
        let mut process = shell.stdout(Stdio::piped()).spawn().unwrap();
        let told = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { _process: process, told }
    }

    /// Reads on until a few writes in a row went to this address.
    async fn writes_to(&mut self, address: &str) {
        let wanted = format!("ok {address}");
        let mut last = String::new();
        let found = timeout(FOUND, async {
            let mut row = 0;
            while row < 5 {
                last = self.told.next_line().await.unwrap().expect("it goes on");
                row = if last == wanted { row + 1 } else { 0 };
            }
        });
        assert!(found.await.is_ok(), "no writes to {address}; last: {last}");
    }
}

/// Addresses of the nodes' devices, by incarnation.
pub async fn addresses(stage: &Stage) -> Vec<(String, String)> {
    let answer = stage.local.tailnet.api(Method::GET, "tailnet/-/devices", None).await.unwrap();
    let devices = answer["devices"].as_array().unwrap().iter();
    let named = devices.filter_map(|device| {
        let host = device["hostname"].as_str()?;
        let (incarnation, _) = host.rsplit_once('-')?;
        let address = device["addresses"][0].as_str()?;
        host.starts_with(CLUSTER).then(|| (incarnation.to_owned(), address.to_owned()))
    });
    named.collect()
}

pub fn write_proxychains(machine: &Machine) {
    machine.write("proxychains.conf", PROXYCHAINS);
}

/// A cluster of three that is about to be Ready, and a machine of its own in its tailnet.
pub async fn beside_a_cluster(sandbox: &Sandbox) -> (Stage, Machine) {
    let stage = Stage::patient(sandbox).await;
    let dir = sandbox.dir.join("app");
    let machine = Machine::start(&stage.local.market.net, &stage.local.tailnet, dir).await;
    stage.client.apply(&cluster(3)).await.unwrap();
    join(&stage, &machine).await;
    (stage, machine)
}

pub async fn join(stage: &Stage, machine: &Machine) {
    let key = stage.local.tailnet.mint(APPLICATION_TAG).await.unwrap();
    write_proxychains(machine);
    let lines = "tailscaled --tun=userspace-networking --socks5-server=127.0.0.1:1055 --state=mem: >/run/tailscaled.log 2>&1 &
for try in 1 2 3 4 5 6 7 8; do
  tailscale up --auth-key=\"$KEY\" --hostname=app --accept-dns=false --timeout=5s && exit 0
  sleep 0.5
done
exit 1";
    let output = machine.shell(&[("KEY", &key)], lines).output().await.unwrap();
    let log = machine.run("cat /run/tailscaled.log").await.stdout;
    assert!(
        output.status.success(),
        "{} {}",
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&log)
    );
}

#[test]
fn a_stock_client_follows_the_master_from_anywhere_on_the_tailnet() {
    sandboxed(
        "sentinel::a_stock_client_follows_the_master_from_anywhere_on_the_tailnet",
        LIMIT,
        async |sandbox: Sandbox| {
            let (mut stage, machine) = beside_a_cluster(&sandbox).await;
            stage.until_ready().await;
            let all = addresses(&stage).await;
            assert_eq!(all.len(), 3, "{all:?}");
            let of = |name: &str| all.iter().find(|(n, _)| n == name).unwrap().1.clone();
            let master = stage.master().await;
            // It asks the master's node first.
            let first = of(&master.incarnation);
            let mut nodes = vec![first.clone()];
            nodes.extend(all.iter().map(|(_, a)| a.clone()).filter(|a| *a != first));
            let mut application = Application::start(&machine, &nodes);
            application.writes_to(&first).await;

            stage.kill_redis(&master);
            let moved = async || {
                let now = stage.master().await;
                now.incarnation != master.incarnation
            };
            until("another master", moved).await;
            stage.until_ready().await;
            let second = stage.master().await;
            application.writes_to(&of(&second.incarnation)).await;

            let said = stage.cli(&["switchover", CLUSTER, "--to", &master.incarnation]).await;
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
            application.writes_to(&first).await;
            stage.until_ready().await;

            // Its node goes, and with it the one that is asked first.
            let (provider, lease) = stage.local.market.find(master.dseq).unwrap();
            assert!(stage.local.market.providers[provider].runner.power_off(&lease));
            until("another master", async || {
                stage.master().await.incarnation != master.incarnation
            })
            .await;
            let third = of(&stage.master().await.incarnation);
            application.writes_to(&third).await;

            // Nobody is there any more who decides; a client that begins now finds the master.
            stage.local.kill_operator().await;
            application.writes_to(&third).await;
            for node in nodes.iter().filter(|node| **node != first) {
                let asked = format!(
                    "{THROUGH} redis-cli -h {node} -p 26379 SENTINEL get-master-addr-by-name cache"
                );
                assert_eq!(machine.says(&asked).await, format!("{third}\n6379\n"));
            }
            let mut later = Application::start(&machine, &nodes);
            later.writes_to(&third).await;
        },
    );
}
