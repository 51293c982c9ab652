//! The control server is away, and everybody restarts: who was in the tailnet before finds the
//! others from the network map on its disk, a failover comes in between, and writes go on.

use std::time::Duration;

use akash_redis::api::conditions::Phase;
use akash_redis::devnet::sandbox::Sandbox;
use akash_redis::devnet::tailnet::APPLICATION_TAG;
use http::Method;
use rustix::process::{Pid, Signal, kill_process};

use crate::client_table::proxy;
use crate::machine::Machine;
use crate::sandboxed::sandboxed;
use crate::sentinel::{THROUGH, addresses, write_proxychains};
use crate::stage::{CLUSTER, PASSWORD, Stage, cluster, until};

const LIMIT: Duration = Duration::from_mins(6);
/// Its state is on a disk, as an application's must be that is to restart without the control
/// server.
const TAILSCALED: &str = "mkdir -p /var/lib/tailscale
tailscaled --tun=userspace-networking --socks5-server=127.0.0.1:1055 --statedir=/var/lib/tailscale >>/run/tailscaled.log 2>&1 &";

/// What Redis of a node says of itself, to the application; empty while it does not answer.
async fn info(machine: &Machine, node: &str) -> String {
    let ask = format!(
        "{THROUGH} timeout 3 redis-cli -h {node} --user app --pass {PASSWORD} --no-auth-warning INFO"
    );
    String::from_utf8(machine.run(&ask).await.stdout).unwrap()
}

fn field<'a>(info: &'a str, name: &str) -> &'a str {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default()
}

/// An application writes to whoever the nodes say is master.
async fn writes(machine: &Machine, nodes: &[String], key: &str) {
    let nodes = nodes.join(" ");
    let ask = format!(
        "{THROUGH} timeout 3 redis-cli -h $node -p 26379 SENTINEL get-master-addr-by-name {CLUSTER}"
    );
    let write = format!(
        "{THROUGH} timeout 3 redis-cli -h $master --user app --pass {PASSWORD} --no-auth-warning SET {key} 1"
    );
    let lines = format!(
        "for node in {nodes}; do master=$({ask} | head -1); [ -n \"$master\" ] && {write} && exit 0; done; exit 1"
    );
    until("a write", async || {
        let output = machine.run(&lines).await;
        String::from_utf8_lossy(&output.stdout).contains("OK")
    })
    .await;
}

/// An application writes to the one address that it knows.
async fn writes_through_the_proxy(machine: &Machine, key: &str) {
    let write =
        format!("REDISCLI_AUTH={PASSWORD} timeout 10 redis-cli -p 6379 --user app SET {key} 1");
    until("a write through the proxy", async || {
        String::from_utf8_lossy(&machine.run(&write).await.stdout).contains("OK")
    })
    .await;
}

fn kill(machine: &Machine, name: &str) {
    let old = machine.processes(name);
    assert!(!old.is_empty(), "{name} runs");
    for pid in old {
        kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), Signal::KILL).unwrap();
    }
}

#[test]
fn who_was_in_the_tailnet_finds_the_others_again_while_the_control_server_is_away() {
    sandboxed(
        "control_away::who_was_in_the_tailnet_finds_the_others_again_while_the_control_server_is_away",
        LIMIT,
        async |sandbox: Sandbox| {
            let mut stage = Stage::patient(&sandbox).await;
            let dir = sandbox.dir.join("app");
            let machine = Machine::start(&stage.local.market.net, &stage.local.tailnet, dir).await;
            stage.client.apply(&cluster(3)).await.unwrap();
            let key = stage.local.tailnet.mint(APPLICATION_TAG).await.unwrap();
            write_proxychains(&machine);
            let join = format!(
                "{TAILSCALED}\nfor try in 1 2 3 4 5 6 7 8; do tailscale up --auth-key=\"$KEY\" --hostname=app --accept-dns=false --timeout=5s && exit 0; sleep 0.5; done; exit 1"
            );
            let joined = machine.shell(&[("KEY", &key)], &join).output().await.unwrap();
            assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
            let status = stage.until_ready().await;
            let named = addresses(&stage).await;
            let all: Vec<_> = named.iter().map(|(_, at)| at.clone()).collect();
            writes(&machine, &all, "before").await;
            let before_it = proxy(&stage, &machine, &all).await;
            let replica = status.nodes.iter().find(|n| n.phase == Phase::Replica).unwrap();
            let at = named.iter().find(|(name, _)| *name == replica.incarnation).unwrap().1.clone();
            let master = stage.master().await;
            let before = info(&machine, &at).await;
            assert_ne!(field(&before, "run_id"), "");

            stage.local.tailnet.set_away(true).unwrap();
            until("the control server to be away", async || {
                stage.local.tailnet.api(Method::GET, "tailnet/-/devices", None).await.is_err()
            })
            .await;
            // A node: its container is started anew, with its volume.
            let (provider, lease) = stage.local.market.find(replica.dseq).unwrap();
            assert!(stage.local.market.providers[provider].runner.restart(&lease));
            until("the node that restarted to be in sync", async || {
                let now = info(&machine, &at).await;
                field(&now, "run_id") != field(&before, "run_id")
                    && field(&now, "master_link_status") == "up"
            })
            .await;
            println!("the replica is back");
            // The operator's way.
            stage.local.tailnet.restart_tailscaled().await.unwrap();
            // The operator, who decides.
            stage.local.kill_operator().await;
            stage.local.start_operator().await.unwrap();
            println!("the operator is back");
            // The application's way, and its proxy.
            kill(&machine, "akash-redis");
            kill(&machine, "tailscaled");
            drop(before_it);
            machine.run(TAILSCALED).await;
            writes(&machine, &all, "restarted").await;
            let _proxy = proxy(&stage, &machine, &all).await;
            writes_through_the_proxy(&machine, "again").await;
            println!("the application is back");

            // A replica that restarted takes over only once the operator has seen it in sync.
            stage.until_ready().await;
            stage.kill_redis(&master);
            until("another master", async || {
                stage.master().await.incarnation != master.incarnation
            })
            .await;
            println!("another master");
            writes(&machine, &all, "moved").await;
            writes_through_the_proxy(&machine, "carried").await;

            stage.local.tailnet.set_away(false).unwrap();
            stage.until_ready().await;
            writes(&machine, &all, "after").await;
            writes_through_the_proxy(&machine, "at-last").await;
        },
    );
}
