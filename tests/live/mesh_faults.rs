//! What goes wrong on the mesh of a cluster that takes writes: links, relays, the control server,
//! devices, keys, names, clocks.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use akash_redis::api::conditions::Phase;
use akash_redis::api::status::{NodeStatus, Status};
use akash_redis::cli::demo::writer::Writer;
use akash_redis::cli::local::{Local, LocalOptions};
use akash_redis::config::Config;
use akash_redis::devnet::sandbox::Sandbox;
use akash_redis::devnet::tailnet::{CLUSTER_TAG, OPERATOR_TAG, QUARANTINE_TAG};
use akash_redis::mesh::local::LocalClient;
use akash_redis::model::ids::IncarnationName;
use akash_redis::model::time::UnixMs;
use akash_redis::node::status_page::StatusPage;
use akash_redis::secrets::RootSecret;
use http::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::mesh::join;
use crate::sandboxed::sandboxed;
use crate::stage::{PASSWORD, Stage, cluster, condition, until};
use crate::writing::{nothing_lost, writes_go_on};

const LIMIT: Duration = Duration::from_mins(4);
/// A control server that is away for so long must not be noticed by applications.
const CONTROL_AWAY: Duration = Duration::from_mins(1);

fn replica(status: &Status) -> &NodeStatus {
    status.nodes.iter().find(|n| n.phase == Phase::Replica).expect("a replica")
}

fn phase(status: &Status, node: &NodeStatus) -> Option<Phase> {
    status.nodes.iter().find(|n| n.incarnation == node.incarnation).map(|n| n.phase)
}

async fn api(stage: &Stage, method: Method, path: &str) -> Value {
    stage.local.tailnet.api(method, path, None).await.unwrap()
}

/// The device of a node, as the control API has it.
async fn device(stage: &Stage, node: &NodeStatus) -> Option<Value> {
    let all = api(stage, Method::GET, "tailnet/-/devices").await;
    let name = node.mesh_name.as_deref().expect("a name on the mesh");
    all["devices"].as_array().unwrap().iter().find(|d| d["name"] == name).cloned()
}

/// A command in a node's network; what it printed.
async fn inside(stage: &Stage, node: &NodeStatus, words: &[&str]) -> String {
    let (provider, lease) = stage.local.market.find(node.dseq).unwrap();
    let pid = stage.local.market.providers[provider].runner.pid(&lease).unwrap();
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/proc/{pid}/ns/net"))
        .args(words)
        .env("REDISCLI_AUTH", PASSWORD)
        .kill_on_drop(true);
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// What is written to the master now reaches every replica.
async fn replicates(stage: &Stage, status: &Status, value: &str) {
    let redis = ["redis-cli", "-h", "127.0.0.1", "--user", "app"];
    let master = status.nodes.iter().find(|n| n.phase == Phase::Master).unwrap();
    assert_eq!(inside(stage, master, &[&redis[..], &["set", "probe", value]].concat()).await, "OK");
    for node in status.nodes.iter().filter(|n| n.phase == Phase::Replica) {
        let what = format!("{value} to reach {}", node.incarnation);
        until(&what, async || {
            inside(stage, node, &[&redis[..], &["get", "probe"]].concat()).await == value
        })
        .await;
    }
}

#[test]
fn nodes_that_are_cut_off_come_back_and_relays_do_when_no_path_is_direct() {
    let test = "mesh_faults::nodes_that_are_cut_off_come_back_and_relays_do_when_no_path_is_direct";
    sandboxed(test, LIMIT, async |sandbox: Sandbox| {
        let stage = Stage::patient(&sandbox).await;
        stage.client.apply(&cluster(3)).await.unwrap();
        let status = stage.until_ready().await;
        let (_proxy, access) = stage.proxy();
        let writer = Writer::start(access);
        writes_go_on(&writer).await;

        let cut = replica(&status).clone();
        stage.local.market.set_link(cut.dseq, false).await.unwrap();
        stage
            .until_status("the replica to be missed", |s| {
                phase(s, &cut) == Some(Phase::Unreachable)
            })
            .await;
        writes_go_on(&writer).await;
        stage.local.market.set_link(cut.dseq, true).await.unwrap();
        let status = stage.until_ready().await;
        assert_eq!(
            phase(&status, &cut),
            Some(Phase::Replica),
            "it came back before it was replaced"
        );
        nothing_lost(&writer, "a replica cut off").await;

        only_relayed(&stage, &status).await;
        replicates(&stage, &status, "by-relay").await;
        nothing_lost(&writer, "no UDP between nodes").await;
        for node in &status.nodes {
            inside(&stage, node, &["nft", "delete table inet relayed"]).await;
        }
        a_master_that_is_cut_off_is_shut_off(&stage).await;
        writes_go_on(&writer).await;
        drop(writer);
        stage.delete().await;
        stage.assert_nothing_left().await;
    });
}

/// From now on no node reaches another but by the relay, which is TCP.
async fn only_relayed(stage: &Stage, status: &Status) {
    for node in &status.nodes {
        inside(stage, node, &["nft", "add table inet relayed; add chain inet relayed output { type filter hook output priority 0; }"])
            .await;
        inside(
            stage,
            node,
            &["nft", "add rule inet relayed output oifname eth0 meta l4proto udp drop"],
        )
        .await;
    }
}

/// It takes the quarantine's tag while nobody reaches it, and is let in again once its redis was
/// demoted.
async fn a_master_that_is_cut_off_is_shut_off(stage: &Stage) {
    let old = stage.master().await;
    stage.local.market.set_link(old.dseq, false).await.unwrap();
    let moved = |s: &Status| s.last_failover.as_ref().is_some_and(|f| f.old == old.incarnation);
    stage.until_status("another master", moved).await;
    until("the quarantine", async || {
        device(stage, &old).await.is_some_and(|d| d["tags"] == serde_json::json!([QUARANTINE_TAG]))
    })
    .await;
    let status = stage.client.get("cache").await.unwrap().status.unwrap();
    for survivor in status.nodes.iter().filter(|n| n.incarnation != old.incarnation) {
        until("the others to lose sight of it", async || !sees(&stage.local, survivor, &old).await)
            .await;
    }
    stage.local.market.set_link(old.dseq, true).await.unwrap();
    let status = stage.until("the old master to follow", |c| {
        c.status.as_ref().is_some_and(|s| {
            condition(s, "Ready").0 == "True" && phase(s, &old) == Some(Phase::Replica)
        })
    });
    let status = status.await.status.unwrap();
    println!("{:#?}", status.last_failover);
    assert_eq!(device(stage, &old).await.unwrap()["tags"], serde_json::json!([CLUSTER_TAG]));
    replicates(stage, &status, "after-the-quarantine").await;
}

/// Whether a node's tailscaled has another node in its network map.
async fn sees(local: &Local, node: &NodeStatus, other: &NodeStatus) -> bool {
    let (provider, lease) = local.market.find(node.dseq).unwrap();
    let tailscaled = local.market.providers[provider].runner.processes(&lease, "tailscaled")[0];
    let socket =
        PathBuf::from(format!("/proc/{tailscaled}/root/run/akash-redis/tailscale/tailscaled.sock"));
    let status = LocalClient::new(&socket).unwrap().status().await.unwrap();
    status.peer_named(other.mesh_name.as_deref().unwrap()).is_some()
}

#[test]
fn a_control_server_that_is_away_for_a_minute_changes_nothing() {
    sandboxed(
        "mesh_faults::a_control_server_that_is_away_for_a_minute_changes_nothing",
        LIMIT,
        async |sandbox: Sandbox| {
            let stage = Stage::start(&sandbox).await;
            stage.client.apply(&cluster(2)).await.unwrap();
            let before = stage.until_ready().await;
            let (_proxy, access) = stage.proxy();
            let writer = Writer::start(access);
            writes_go_on(&writer).await;
            let control = stage
                .local
                .tailnet
                .control_pid()
                .and_then(|pid| Pid::from_raw(pid.try_into().ok()?))
                .unwrap();
            kill_process(control, Signal::STOP).unwrap();
            let end = Instant::now() + CONTROL_AWAY;
            while Instant::now() < end {
                writes_go_on(&writer).await;
                sleep(Duration::from_secs(1)).await;
            }
            let during = stage.client.get("cache").await.unwrap().status.unwrap();
            kill_process(control, Signal::CONT).unwrap();
            let after = stage.until_ready().await;
            let who = |s: &Status| {
                s.nodes.iter().map(|n| (n.incarnation.clone(), n.phase)).collect::<Vec<_>>()
            };
            assert_eq!((who(&during), who(&after)), (who(&before), who(&before)));
            nothing_lost(&writer, "the control server away for a minute").await;
        },
    );
}

#[test]
fn deleted_devices_that_are_not_told_are_replaced() {
    sandboxed(
        "mesh_faults::deleted_devices_that_are_not_told_are_replaced",
        LIMIT,
        async |sandbox| deleted(sandbox, "silent").await,
    );
}

#[test]
fn deleted_devices_that_are_told_are_replaced() {
    sandboxed("mesh_faults::deleted_devices_that_are_told_are_replaced", LIMIT, async |sandbox| {
        deleted(sandbox, "expire").await;
    });
}

/// A person deletes the device of a replica, then that of the master, while an application writes.
async fn deleted(sandbox: Sandbox, seen_as: &str) {
    let options = LocalOptions {
        control_flags: vec!["-on-delete".to_owned(), seen_as.to_owned()],
        ..LocalOptions::default()
    };
    let stage = Stage::on(&sandbox, &options).await;
    stage.client.apply(&cluster(3)).await.unwrap();
    let status = stage.until_ready().await;
    let (_proxy, access) = stage.proxy();
    let writer = Writer::start(access);
    writes_go_on(&writer).await;

    let gone = replica(&status).clone();
    delete_device(&stage, &gone).await;
    stage
        .until_status("the deletion to be told", |s| {
            condition(s, "Degraded").2.contains("was deleted")
        })
        .await;
    replaced(&stage, &gone).await;
    nothing_lost(&writer, "a replica's device deleted").await;

    let old = stage.master().await;
    delete_device(&stage, &old).await;
    stage
        .until_status("another master", |s| {
            s.last_failover.as_ref().is_some_and(|f| f.old == old.incarnation)
        })
        .await;
    writes_go_on(&writer).await;
    replaced(&stage, &old).await;
    drop(writer);
    stage.delete().await;
    stage.assert_nothing_left().await;
}

async fn delete_device(stage: &Stage, node: &NodeStatus) {
    let id = device(stage, node).await.expect("a device")["nodeId"].as_str().unwrap().to_owned();
    api(stage, Method::DELETE, &format!("device/{id}")).await;
}

async fn replaced(stage: &Stage, node: &NodeStatus) {
    let whole = |s: &Status| condition(s, "Ready").0 == "True" && phase(s, node).is_none();
    stage.until_status("a replacement", whole).await;
}

#[test]
fn a_revoked_key_costs_an_attempt_and_a_taken_name_nothing() {
    sandboxed(
        "mesh_faults::a_revoked_key_costs_an_attempt_and_a_taken_name_nothing",
        LIMIT,
        async |sandbox: Sandbox| {
            let stage = Stage::start(&sandbox).await;
            stage.client.apply(&cluster(1)).await.unwrap();
            revoke_the_next_key(&stage).await;
            let events = String::from_utf8(stage.cli(&["events", "cache"]).await.stdout).unwrap();
            assert!(!events.contains("revoked"), "{events}");
            let first = stage.until_status("an attempt", |s| !s.nodes.is_empty()).await.nodes[0]
                .incarnation
                .clone();
            let status = stage.until_ready().await;
            assert_ne!(status.nodes[0].incarnation, first, "the node whose key was revoked joined");
            let events = String::from_utf8(stage.cli(&["events", "cache"]).await.stdout).unwrap();
            let said = "is given up: its agent cannot join because its key was used up, revoked or has expired";
            assert!(
                events.contains(said),
                "its signed page says so long before the time to join is over: {events}"
            );
            stage.delete().await;

            let blocks = stage.local.market.chain.faults();
            blocks.stop_blocks(true);
            stage.client.apply(&cluster(1)).await.unwrap();
            let name = stage.until_status("an attempt", |s| !s.nodes.is_empty()).await.nodes[0]
                .incarnation
                .clone();
            let root =
                RootSecret::new(Config::load(&stage.local.config()).unwrap().root_secret).unwrap();
            let hostname = IncarnationName(name.clone()).hostname(&root.installation_id());
            let key = stage.local.tailnet.mint(OPERATOR_TAG).await.unwrap();
            let _stranger =
                join(&stage.local.tailnet, &sandbox.dir.join("stranger"), &hostname, &key).await;
            blocks.stop_blocks(false);
            let status = stage.until_ready().await;
            let called = status.nodes[0].mesh_name.clone().unwrap();
            assert_eq!(
                (&status.nodes[0].incarnation, called),
                (&name, format!("{hostname}-1.mesh.test"))
            );
            assert_eq!(condition(&status, "Degraded").0, "False");
            stage.delete().await;
            until("the node's device to be gone", async || stage.devices().await == 1).await;
        },
    );
}

/// Between its making and its use.
async fn revoke_the_next_key(stage: &Stage) {
    let mut id = String::new();
    until("a key", async || {
        let keys = api(stage, Method::GET, "tailnet/-/keys").await;
        let ours = keys["keys"]
            .as_array()
            .unwrap()
            .iter()
            .find(|k| k["description"].as_str().is_some_and(|d| d.starts_with("ar ")))
            .cloned();
        ours.is_some_and(|key| {
            key["id"].as_str().unwrap().clone_into(&mut id);
            true
        })
    })
    .await;
    api(stage, Method::DELETE, &format!("tailnet/-/keys/{id}")).await;
}

#[test]
fn nodes_whose_clocks_are_an_hour_late_make_a_cluster() {
    sandboxed(
        "mesh_faults::nodes_whose_clocks_are_an_hour_late_make_a_cluster",
        LIMIT,
        async |sandbox: Sandbox| {
            let mut env = clock_of_its_own(&sandbox);
            env.push(("LD_PRELOAD".to_owned(), faketime().display().to_string()));
            env.push(("FAKETIME".to_owned(), "-1h".to_owned()));
            let options = LocalOptions { node_env: env, ..LocalOptions::default() };
            let stage = Stage::on(&sandbox, &options).await;
            stage.client.apply(&cluster(2)).await.unwrap();
            let status = stage.until_ready().await;
            let late = UnixMs::now().since(clock(&stage, &status.nodes[0]).await).as_secs();
            assert!((3500..3700).contains(&late), "the node is {late} s late");
            replicates(&stage, &status, "late").await;

            stage.kill_redis(&stage.master().await);
            let moved = |s: &Status| s.last_failover.is_some() && condition(s, "Ready").0 == "True";
            let status = stage.until_status("a failover", moved).await;
            replicates(&stage, &status, "later").await;
            stage.delete().await;
            stage.assert_nothing_left().await;
        },
    );
}

/// Variables of nodes whose date can be another one; redis asks nobody for the date, and brings an
/// allocator that does not go with the library.
pub fn clock_of_its_own(sandbox: &Sandbox) -> Vec<(String, String)> {
    let redis = sandbox.dir.join("redis-server");
    std::fs::write(&redis, "#!/bin/sh\nunset LD_PRELOAD\nexec redis-server \"$@\"\n").unwrap();
    std::fs::set_permissions(&redis, std::fs::Permissions::from_mode(0o755)).unwrap();
    let env = [
        ("AKASH_REDIS_REDIS_SERVER", redis.display().to_string()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    env.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

/// The library that gives a program another clock.
pub fn faketime() -> PathBuf {
    let places = std::fs::read_dir("/usr/lib")
        .unwrap()
        .flatten()
        .map(|dir| dir.path().join("faketime/libfaketime.so.1"));
    places
        .into_iter()
        .find(|path| path.exists())
        .expect("the Debian package faketime is installed (`make test-deps`)")
}

/// What a node's agent takes for the present moment, from its status page.
async fn clock(stage: &Stage, node: &NodeStatus) -> UnixMs {
    let (provider, lease) = stage.local.market.find(node.dseq).unwrap();
    let address = stage.local.market.providers[provider].runner.address(&lease).unwrap();
    let mut stream = TcpStream::connect((address, 8080)).await.unwrap();
    stream
        .write_all(b"GET /?nonce=n HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    UnixMs(serde_json::from_str::<StatusPage>(body).unwrap().time)
}

#[test]
fn nodes_that_the_control_server_has_forgotten_join_again_with_their_data() {
    sandboxed(
        "mesh_faults::nodes_that_the_control_server_has_forgotten_join_again_with_their_data",
        LIMIT,
        async |sandbox: Sandbox| {
            let options = LocalOptions {
                control_flags: vec!["-on-delete".to_owned(), "silent".to_owned()],
                ..LocalOptions::default()
            };
            let stage = Stage::on(&sandbox, &options).await;
            stage.client.apply(&cluster(3)).await.unwrap();
            let before = stage.until_ready().await;
            replicates(&stage, &before, "from-before").await;
            // As a database that is put back to a copy from before they joined.
            for node in &before.nodes {
                delete_device(&stage, node).await;
            }
            stage
                .until_status("the loss to be told", |s| {
                    condition(s, "Degraded").2.contains("akash-redis rejoin cache")
                })
                .await;
            let masters_last = before
                .nodes
                .iter()
                .filter(|n| n.phase != Phase::Master)
                .chain(before.nodes.iter().filter(|n| n.phase == Phase::Master));
            for node in masters_last {
                let asked = stage.cli(&["rejoin", "cache", &node.incarnation]).await;
                assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
            }
            let after = stage.until_ready().await;
            let who = |s: &Status| {
                s.nodes.iter().map(|n| (n.incarnation.clone(), n.dseq)).collect::<BTreeSet<_>>()
            };
            assert_eq!(who(&after), who(&before), "leases are kept");
            let master = after.nodes.iter().find(|n| n.phase == Phase::Master).unwrap();
            assert_eq!(
                inside(
                    &stage,
                    master,
                    &["redis-cli", "-h", "127.0.0.1", "--user", "app", "get", "probe"]
                )
                .await,
                "from-before"
            );
            replicates(&stage, &after, "from-after").await;
            until("no usable key to be left", async || stage.keys().await == 0).await;
            stage.delete().await;
            stage.assert_nothing_left().await;
        },
    );
}
