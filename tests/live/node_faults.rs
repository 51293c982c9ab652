//! Parts of a node fail: tailscaled, the agent, its state, its hosts file. The cluster comes back,
//! and no acknowledged write is lost.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use akash_redis::api::conditions::Phase;
use akash_redis::api::quantity::Span;
use akash_redis::api::status::{NodeStatus, Status};
use akash_redis::api::types::{Egress, RedisCluster};
use akash_redis::cli::demo::writer::Writer;
use akash_redis::devnet::provider::host::LeaseKey;
use akash_redis::devnet::provider::runner::Runner;
use akash_redis::devnet::sandbox::Sandbox;
use akash_redis::model::node::KEY_SPENT;
use akash_redis::node::status_page::StatusPage;
use http::Method;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use crate::sandboxed::sandboxed;
use crate::stage::{Stage, cluster, is_ready, until};
use crate::writing::{nothing_lost, writes_go_on};

const LIMIT: Duration = Duration::from_mins(3);

/// Three nodes, and a master that is given up as soon as may be: these tests wait for that.
fn impatient() -> RedisCluster {
    let mut cluster = cluster(3);
    cluster.spec.failover.down_after = Span(Duration::from_secs(5));
    cluster
}

/// A node's container.
struct Container<'a> {
    runner: &'a Runner,
    lease: LeaseKey,
}

impl<'a> Container<'a> {
    fn of(stage: &'a Stage, node: &NodeStatus) -> Self {
        let (provider, lease) = stage.local.market.find(node.dseq).unwrap();
        Self { runner: &stage.local.market.providers[provider].runner, lease }
    }

    /// The one process of this name.
    fn process(&self, name: &str) -> Option<u32> {
        match self.runner.processes(&self.lease, name)[..] {
            [pid] => Some(pid),
            _ => None,
        }
    }

    fn signal(&self, name: &str, signal: Signal) -> u32 {
        let pid = self.process(name).unwrap();
        kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
        pid
    }

    /// Waits until another process has taken the place of this one.
    async fn until_replaced(&self, name: &str, old: u32) {
        until(&format!("another {name}"), async || {
            self.process(name).is_some_and(|pid| pid != old)
        })
        .await;
    }

    /// A file as the container's processes see it.
    fn file(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.process("redis-server").unwrap()))
    }

    /// A command in its network and among its mounts.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let pid = self.runner.pid(&self.lease).unwrap();
        let mut command = Command::new("nsenter");
        command.args([format!("--net=/proc/{pid}/ns/net"), format!("--mount=/proc/{pid}/ns/mnt")]);
        command.arg("--").arg(program).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    async fn page(&self) -> Option<StatusPage> {
        let address = self.runner.address(&self.lease)?;
        let answer = reqwest::get(format!("http://{address}:8080/")).await.ok()?;
        serde_json::from_slice(&answer.bytes().await.ok()?).ok()
    }
}

/// Open file descriptors of a process; `None` once it is gone.
fn descriptors(pid: u32) -> Option<usize> {
    fs::read_dir(format!("/proc/{pid}/fd")).ok().map(Iterator::count)
}

fn replicas(status: &Status) -> Vec<NodeStatus> {
    status.nodes.iter().filter(|n| n.phase == Phase::Replica).cloned().collect()
}

fn master(status: &Status) -> Option<&str> {
    status.nodes.iter().find(|n| n.phase == Phase::Master).map(|n| n.incarnation.as_str())
}

async fn whole_again(stage: &Stage, nodes: usize) -> Status {
    let whole = |c: &RedisCluster| {
        is_ready(c) && c.status.as_ref().is_some_and(|s| replicas(s).len() == nodes - 1)
    };
    stage.until("all nodes in their places", whole).await.status.unwrap()
}

#[test]
fn a_tailscaled_that_dies_or_freezes_is_started_again() {
    sandboxed(
        "node_faults::a_tailscaled_that_dies_or_freezes_is_started_again",
        LIMIT,
        async |sandbox: Sandbox| {
            let stage = Stage::patient(&sandbox).await;
            stage.client.apply(&impatient()).await.unwrap();
            let status = whole_again(&stage, 3).await;
            let (_proxy, access) = stage.proxy();
            let writer = Writer::start(access);
            writes_go_on(&writer).await;

            let [one, other] = &replicas(&status)[..] else { panic!("{status:#?}") };
            let (one, other) = (Container::of(&stage, one), Container::of(&stage, other));
            let (killed, frozen) =
                (one.signal("tailscaled", Signal::KILL), other.signal("tailscaled", Signal::STOP));
            one.until_replaced("tailscaled", killed).await;
            other.until_replaced("tailscaled", frozen).await;
            whole_again(&stage, 3).await;
            nothing_lost(&writer, "tailscaled of one replica killed, of the other frozen").await;

            let old = stage.master().await;
            let killed = Container::of(&stage, &old).signal("tailscaled", Signal::KILL);
            Container::of(&stage, &old).until_replaced("tailscaled", killed).await;
            whole_again(&stage, 3).await;
            nothing_lost(&writer, "tailscaled of the master killed").await;

            // It may be another master by now: the first dial after a restart can take as long as a
            // master may be silent.
            let status = whole_again(&stage, 3).await;
            let old = status.nodes.iter().find(|n| n.phase == Phase::Master).cloned().unwrap();
            let frozen = Container::of(&stage, &old).signal("tailscaled", Signal::STOP);
            attempts_on_a_dead_peer_are_bounded(&Container::of(&stage, &replicas(&status)[0]))
                .await;
            Container::of(&stage, &old).until_replaced("tailscaled", frozen).await;
            // Whether another one took over depends on which was faster, the node or the operator.
            whole_again(&stage, 3).await;
            nothing_lost(&writer, "tailscaled of the master frozen").await;
        },
    );
}

/// Ten thousand connections by the way that Redis takes to its master, which does not answer.
async fn attempts_on_a_dead_peer_are_bounded(replica: &Container<'_>) {
    const LOOPS: usize = 10;
    let hosts = fs::read_to_string(replica.file("/etc/hosts")).unwrap();
    let alias = hosts
        .lines()
        .find_map(|line| line.split(' ').next().filter(|ip| ip.starts_with("127.0.1.")))
        .unwrap();
    let watched = ["akash-redis", "tailscaled"].map(|name| replica.process(name).unwrap());
    let before = watched.map(|pid| descriptors(pid).unwrap());
    let lines = format!(
        "n=0; for i in $(seq 1000); do (exec 3<>/dev/tcp/{alias}/6379) 2>/dev/null; n=$((n+1)); done; echo $n"
    );
    let start =
        |_| replica.command("bash", &["-c", &lines]).stdout(Stdio::piped()).spawn().unwrap();
    let mut loops: Vec<_> = (0..LOOPS).map(start).collect();
    let mut most = before;
    until("the attempts to end", async || {
        for (most, pid) in most.iter_mut().zip(watched) {
            *most = descriptors(pid).expect("it lives on").max(*most);
        }
        loops.iter_mut().all(|one| one.try_wait().unwrap().is_some())
    })
    .await;
    let mut made = 0;
    for one in loops {
        let said = one.wait_with_output().await.unwrap().stdout;
        made += String::from_utf8_lossy(&said).trim().parse::<usize>().unwrap();
    }
    println!(
        "{made} attempts; open descriptors of agent and tailscaled: {before:?} before, at most {most:?}"
    );
    assert_eq!(made, 1000 * LOOPS);
    // 32 connections are carried at most: each has one end in Redis' direction, one in
    // tailscaled's, and there one or two more.
    let added: Vec<usize> = most.iter().zip(before).map(|(most, before)| most - before).collect();
    assert!(added.iter().all(|added| *added <= 120), "{before:?} became {most:?}");
}

#[test]
fn a_node_keeps_its_place_by_its_state_and_loses_it_with_that() {
    sandboxed(
        "node_faults::a_node_keeps_its_place_by_its_state_and_loses_it_with_that",
        LIMIT,
        async |sandbox: Sandbox| {
            let stage = Stage::start(&sandbox).await;
            stage.client.apply(&impatient()).await.unwrap();
            let status = whole_again(&stage, 3).await;
            let (_proxy, access) = stage.proxy();
            let writer = Writer::start(access);
            writes_go_on(&writer).await;

            let before = identities(&stage).await;
            let (old, replica) = (stage.master().await, replicas(&status)[0].clone());
            for node in [&replica, &old] {
                let killed = Container::of(&stage, node).signal("akash-redis", Signal::KILL);
                Container::of(&stage, node).until_replaced("akash-redis", killed).await;
                whole_again(&stage, 3).await;
                nothing_lost(&writer, &format!("the agent of {} killed", node.incarnation)).await;
            }
            assert_eq!(identities(&stage).await, before, "the same devices, and no further key");

            a_hosts_file_that_cannot_be_written_is_done_without(&stage).await;
            nothing_lost(&writer, "a hosts file that cannot be written").await;
            a_node_without_its_state_says_so_and_is_replaced(&stage, &sandbox).await;
            nothing_lost(&writer, "the state of a node lost").await;
            a_deleted_device_exhausts_nobody(&stage).await;
            writes_go_on(&writer).await;
        },
    );
}

/// Devices of nodes, and all keys there ever were.
async fn identities(stage: &Stage) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut found = ["devices", "keys"].map(|_| BTreeSet::new());
    for (what, found) in ["devices", "keys"].into_iter().zip(&mut found) {
        let answer =
            stage.local.tailnet.api(Method::GET, &format!("tailnet/-/{what}"), None).await.unwrap();
        found.extend(answer[what].as_array().unwrap().iter().map(|one| one["id"].to_string()));
    }
    let [devices, keys] = found;
    (devices, keys)
}

async fn a_hosts_file_that_cannot_be_written_is_done_without(stage: &Stage) {
    // Whoever leads after the fault before this one must have somebody to hand over to.
    whole_again(stage, 3).await;
    let old = stage.master().await;
    let container = Container::of(stage, &old);
    let mounts = fs::read_to_string(format!(
        "/proc/{}/mounts",
        container.runner.pid(&container.lease).unwrap()
    ))
    .unwrap();
    let at = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .find(|at| at.ends_with("/root/etc/hosts"))
        .unwrap()
        .to_owned();
    let done = container.command("mount", &["-o", "remount,bind,ro", &at]).status().await.unwrap();
    assert!(done.success());
    // As a replica it needs a name for its master.
    assert!(stage.cli(&["switchover", "cache"]).await.status.success());
    let lacks = |s: &Status| {
        let node =
            s.nodes.iter().find(|n| n.incarnation == old.incarnation && n.phase == Phase::Replica);
        node.and_then(|n| n.message.clone())
            .is_some_and(|said| said.contains("redis is pointed at 127.0.1."))
    };
    stage
        .until("a replica that says what it lacks", |c| {
            is_ready(c) && c.status.as_ref().is_some_and(lacks)
        })
        .await;
}

async fn a_node_without_its_state_says_so_and_is_replaced(stage: &Stage, sandbox: &Sandbox) {
    let lost = replicas(&whole_again(stage, 3).await)[0].clone();
    let container = Container::of(stage, &lost);
    container.runner.power_off(&container.lease);
    until("the node to be off", async || container.runner.pid(&container.lease).is_none()).await;
    let states = tailscale_states(&sandbox.dir.join("market"), &container.lease.label());
    assert_eq!(states.len(), 1, "{states:?}");
    fs::remove_dir_all(&states[0]).unwrap();
    container.runner.power_on(&container.lease);
    let spent =
        |page: &StatusPage| page.lacks.iter().any(|sentence| sentence.starts_with(KEY_SPENT));
    until("the page to say that the key is spent", async || {
        container.page().await.as_ref().is_some_and(spent)
    })
    .await;
    let page = container.page().await.unwrap();
    assert_eq!(page.mesh, format!("NeedsLogin: {KEY_SPENT}"));
    let replaced = |c: &RedisCluster| {
        c.status.as_ref().is_some_and(|s| s.nodes.iter().all(|n| n.incarnation != lost.incarnation))
    };
    stage.until("another node in its place", replaced).await;
    whole_again(stage, 3).await;
}

/// Directories of tailscaled's state below the directories of a lease.
fn tailscale_states(dir: &std::path::Path, label: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for provider in fs::read_dir(dir).unwrap().flatten() {
        let volumes =
            fs::read_dir(provider.path().join(label).join("data")).into_iter().flatten().flatten();
        found.extend(
            volumes.map(|volume| volume.path().join("tailscale")).filter(|state| state.is_dir()),
        );
    }
    found
}

/// A name that leaves the netmap must not lead tailscaled back to the forwarder, and from there to
/// itself, for ever.
async fn a_deleted_device_exhausts_nobody(stage: &Stage) {
    let status = whole_again(stage, 3).await;
    let old = stage.master().await;
    let containers: Vec<_> = status.nodes.iter().map(|node| Container::of(stage, node)).collect();
    let pids =
        |name: &str| -> Vec<u32> { containers.iter().map(|c| c.process(name).unwrap()).collect() };
    let watched = [pids("akash-redis"), pids("tailscaled")].concat();
    let before: Vec<usize> = watched.iter().map(|pid| descriptors(*pid).unwrap()).collect();
    let mut most = before.clone();
    let devices = stage.local.tailnet.api(Method::GET, "tailnet/-/devices", None).await.unwrap();
    let name = old.mesh_name.as_deref().unwrap();
    let device = devices["devices"].as_array().unwrap().iter().find(|d| d["name"] == name).unwrap();
    let path = format!("device/{}", device["nodeId"].as_str().unwrap());
    stage.local.tailnet.api(Method::DELETE, &path, None).await.unwrap();
    until("another master", async || {
        for (most, pid) in most.iter_mut().zip(&watched) {
            *most = descriptors(*pid).expect("it lives on").max(*most);
        }
        let seen = stage.client.get("cache").await.ok().and_then(|c| c.status);
        seen.is_some_and(|s| master(&s).is_some_and(|m| m != old.incarnation))
    })
    .await;
    println!(
        "open descriptors of agents and tailscaleds: {before:?} before the device was deleted, at most {most:?} afterwards"
    );
    assert!(
        most.iter().zip(&before).all(|(most, before)| *most <= before + 120),
        "{before:?} became {most:?}"
    );
}

#[test]
fn under_proxychains_a_cluster_replicates_and_fails_over() {
    sandboxed(
        "node_faults::under_proxychains_a_cluster_replicates_and_fails_over",
        LIMIT,
        async |sandbox: Sandbox| {
            let stage = Stage::start(&sandbox).await;
            let mut cluster = impatient();
            (cluster.spec.mesh.egress, cluster.spec.mesh.serve) = (Egress::Proxychains, true);
            stage.client.apply(&cluster).await.unwrap();
            let status = whole_again(&stage, 3).await;
            for node in &status.nodes {
                let container = Container::of(&stage, node);
                let pid = container.process("redis-server").unwrap();
                let loaded = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
                assert!(
                    loaded.contains("libproxychains"),
                    "{}: redis dials for itself",
                    node.incarnation
                );
                let hosts = fs::read_to_string(container.file("/etc/hosts")).unwrap();
                assert!(
                    !hosts.contains("127.0.1."),
                    "{}: nobody else dials for it: {hosts}",
                    node.incarnation
                );
                let socket = container.file("/run/akash-redis/tailscale/tailscaled.sock");
                let serve = async || {
                    let mut status = Command::new(stage.local.tailnet.peers().join("tailscale"));
                    let said = status
                        .arg(format!("--socket={}", socket.display()))
                        .args(["serve", "status", "--json"])
                        .output()
                        .await;
                    String::from_utf8_lossy(&said.unwrap().stdout).contains("127.0.0.1:6379")
                };
                until("the port to be served", serve).await;
            }
            let (_proxy, access) = stage.proxy();
            let writer = Writer::start(access);
            writes_go_on(&writer).await;
            let old = stage.master().await;
            let container = Container::of(&stage, &old);
            container.runner.power_off(&container.lease);
            let other = |s: &Status| master(s).is_some_and(|m| m != old.incarnation);
            stage.until_status("another master", other).await;
            writes_go_on(&writer).await;
            // The place of the lost node is filled meanwhile or not; the replica that is left
            // follows the new master by its name.
            let follows = |c: &RedisCluster| {
                c.status.as_ref().is_some_and(|s| other(s) && !replicas(s).is_empty())
            };
            stage.until("a replica of the new master", follows).await;
            writes_go_on(&writer).await;
        },
    );
}
