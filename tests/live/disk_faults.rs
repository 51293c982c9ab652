//! What goes wrong with a volume or with the files on it: it is told, a replica is given its data anew
//! or replaced, a master gives way, and nothing that was acknowledged is lost.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use akash_redis::api::conditions::Phase;
use akash_redis::api::quantity::Span;
use akash_redis::api::status::{NodeStatus, Status};
use akash_redis::cli::demo::writer::Writer;
use akash_redis::devnet::faults::Fault;
use akash_redis::devnet::sandbox::Sandbox;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{sleep, timeout};

use crate::data::{bytes, connected, url};
use crate::sandboxed::sandboxed;
use crate::stage::{CLUSTER, Stage, cluster, condition, is_ready, until};
use crate::writing::{nothing_lost, writes_go_on};

const LIMIT: Duration = Duration::from_mins(5);
const NODES: u32 = 3;

/// A stage with a whole cluster, whose master is given up as soon as may be.
async fn whole(stage: &Stage) -> Status {
    let mut cluster = cluster(NODES);
    cluster.spec.failover.down_after = Span(Duration::from_secs(5));
    stage.client.apply(&cluster).await.unwrap();
    whole_again(stage).await
}

async fn whole_again(stage: &Stage) -> Status {
    let serve = |s: &Status| {
        s.nodes.len() == NODES as usize && s.nodes.iter().all(|node| node.phase.is_serving())
    };
    let whole = |c: &_| is_ready(c) && c.status.as_ref().is_some_and(serve);
    stage.until("all nodes in their places", whole).await.status.unwrap()
}

fn names(status: &Status) -> BTreeSet<String> {
    status.nodes.iter().map(|node| node.incarnation.clone()).collect()
}

fn replica(status: &Status) -> NodeStatus {
    status.nodes.iter().find(|node| node.phase == Phase::Replica).unwrap().clone()
}

async fn another_master(stage: &Stage, old: &NodeStatus) {
    let other = |n: &NodeStatus| n.phase == Phase::Master && n.incarnation != old.incarnation;
    stage.until_status("another master", |s| s.nodes.iter().any(other)).await;
}

/// The last lines that a node printed.
fn logs(stage: &Stage, node: &NodeStatus) -> String {
    let Some((provider, lease)) = stage.local.market.find(node.dseq) else { return String::new() };
    stage.local.market.providers[provider].runner.logs(&lease, 500).join("\n")
}

/// An event with this reason that has these words.
async fn told(stage: &Stage, reason: &str, words: &[&str]) {
    until(&format!("the event {reason} with {words:?}"), async || {
        let events = stage.client.events("cache").await.unwrap_or_default();
        let found = events
            .iter()
            .find(|e| e.reason == reason && words.iter().all(|w| e.message.contains(w)));
        if let Some(event) = found {
            println!("{reason}: {}", event.message);
        }
        found.is_some()
    })
    .await;
}

/// A node is replaced after its volume became read-only, and its log says why.
async fn replaced_for_its_volume(stage: &Stage, node: &NodeStatus) {
    let fault = Fault::DiskReadOnly { dseq: node.dseq };
    println!("{}", stage.local.market.faults().inject(&fault).await.unwrap());
    until("the agent to say what is wrong", async || {
        logs(stage, node).contains("the volume is not mounted, read-only, full")
    })
    .await;
    stage.until_status("the node to be replaced", |s| !names(s).contains(&node.incarnation)).await;
    whole_again(stage).await;
}

#[test]
fn a_volume_that_is_full_or_read_only_is_told_and_costs_no_acknowledged_write() {
    let name =
        "disk_faults::a_volume_that_is_full_or_read_only_is_told_and_costs_no_acknowledged_write";
    sandboxed(name, LIMIT, async |sandbox: Sandbox| {
        let stage = Stage::start(&sandbox).await;
        whole(&stage).await;
        let (_proxy, access) = stage.proxy();
        let writer = Writer::start(access);
        writes_go_on(&writer).await;

        let old = stage.master().await;
        let faults = stage.local.market.faults();
        println!("{}", faults.inject(&Fault::DiskFull { dseq: old.dseq }).await.unwrap());
        let full = stage
            .until_status("it to be told", |s| {
                let (_, reason, message) = condition(s, "Degraded");
                reason == "VolumeFull" && message.contains(&old.incarnation)
            })
            .await;
        println!("{}", condition(&full, "Degraded").2);
        told(&stage, "MasterRelieved", &[&old.incarnation, "MISCONF", "takes over"]).await;
        another_master(&stage, &old).await;
        println!("{}", faults.clear(Some("disk-full")).unwrap());
        let status = whole_again(&stage).await;
        nothing_lost(&writer, "the volume of the master full").await;

        replaced_for_its_volume(&stage, &replica(&status)).await;
        nothing_lost(&writer, "the volume of a replica read-only").await;

        let old = stage.master().await;
        replaced_for_its_volume(&stage, &old).await;
        nothing_lost(&writer, "the volume of the master read-only").await;
        stage.delete().await;
    });
}

/// The part of the append-only file that a node's redis writes to, and its bytes.
fn append_only_file(stage: &Stage, sandbox: &Sandbox, node: &NodeStatus) -> Option<(PathBuf, u64)> {
    fn below(dir: &Path, all: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                below(&path, all);
            } else if path.to_string_lossy().ends_with(".incr.aof") {
                all.push(path);
            }
        }
    }
    let (_, lease) = stage.local.market.find(node.dseq).unwrap();
    let mut all = Vec::new();
    for provider in fs::read_dir(sandbox.dir.join("market")).unwrap().flatten() {
        below(&provider.path().join(lease.label()).join("data"), &mut all);
    }
    all.retain(|path| !path.to_string_lossy().contains("/broken/"));
    // One that was written anew meanwhile is gone.
    let found = all.into_iter().filter_map(|path| Some((fs::metadata(&path).ok()?, path)));
    let newest = found.max_by_key(|(found, _)| found.modified().unwrap());
    newest.map(|(found, path)| (path, found.len()))
}

/// The same, once writes are in it: there are none before it was written anew after a full sync.
async fn written_file(stage: &Stage, sandbox: &Sandbox, node: &NodeStatus) -> PathBuf {
    let mut written = None;
    until("writes in the append-only file", async || {
        written = append_only_file(stage, sandbox, node).filter(|(_, length)| *length > 1000);
        written.is_some()
    })
    .await;
    written.unwrap().0
}

/// Writes over what is in the middle of a file.
fn break_the_middle(file: &Path) {
    let length = fs::metadata(file).unwrap().len();
    let mut opened = fs::File::options().write(true).open(file).unwrap();
    std::io::Seek::seek(&mut opened, std::io::SeekFrom::Start(length / 2)).unwrap();
    opened.write_all(&[b'x'; 100]).unwrap();
}

#[test]
fn a_broken_append_only_file_is_dropped_and_one_cut_off_at_its_end_is_loaded() {
    let name =
        "disk_faults::a_broken_append_only_file_is_dropped_and_one_cut_off_at_its_end_is_loaded";
    sandboxed(name, LIMIT, async |sandbox: Sandbox| {
        let stage = Stage::patient(&sandbox).await;
        let status = whole(&stage).await;
        let (_proxy, access) = stage.proxy();
        let writer = Writer::start(access);
        writes_go_on(&writer).await;

        // As a crash of the machine leaves it: in the middle of the last write.
        let cut = replica(&status);
        written_file(&stage, &sandbox, &cut).await;
        let (provider, lease) = stage.local.market.find(cut.dseq).unwrap();
        let runner = &stage.local.market.providers[provider].runner;
        assert!(runner.power_off(&lease));
        let missed = |s: &Status| {
            s.nodes.iter().any(|n| n.incarnation == cut.incarnation && !n.phase.is_serving())
        };
        stage.until_status("it to be missed", missed).await;
        let (file, whole) = append_only_file(&stage, &sandbox, &cut).unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_len(whole - 4).unwrap();
        assert!(runner.power_on(&lease));
        assert_eq!(names(&whole_again(&stage).await), names(&status), "it is the same node");
        assert!(logs(&stage, &cut).contains("aof-load-truncated"), "{}", logs(&stage, &cut));
        nothing_lost(&writer, "the end of a replica's append-only file cut off").await;
        let events = stage.client.events("cache").await.unwrap();
        assert!(!events.iter().any(|e| e.reason == "ReplicaRebuilt"), "that is no fault");

        // In the middle: no redis starts with that.
        let broken = replica(&stage.until_ready().await);
        break_the_middle(&written_file(&stage, &sandbox, &broken).await);
        stage.kill_redis(&broken);
        told(&stage, "ReplicaRebuilt", &[&broken.incarnation, "Bad file format"]).await;
        assert_eq!(names(&whole_again(&stage).await), names(&status), "it got its data anew");
        nothing_lost(&writer, "the append-only file of a replica broken").await;

        let old = stage.master().await;
        break_the_middle(&written_file(&stage, &sandbox, &old).await);
        stage.kill_redis(&old);
        another_master(&stage, &old).await;
        told(&stage, "ReplicaRebuilt", &[&old.incarnation, "Bad file format"]).await;
        assert_eq!(names(&whole_again(&stage).await), names(&status), "it got its data anew");
        nothing_lost(&writer, "the append-only file of the master broken").await;
        stage.delete().await;
    });
}

/// The process that writes a snapshot for the redis of a node, while there is one.
fn saves(stage: &Stage, node: &NodeStatus) -> Option<Pid> {
    let (provider, lease) = stage.local.market.find(node.dseq)?;
    let all = stage.local.market.providers[provider].runner.processes(&lease, "redis-server");
    let is_child = |pid: &&u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let of = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let is_over = of("State:").is_none_or(|state| state.trim_start().starts_with('Z'));
        let parent = of("PPid:").filter(|_| !is_over);
        parent.and_then(|parent| parent.trim().parse().ok()).is_some_and(|p| all.contains(&p))
    };
    Pid::from_raw(i32::try_from(*all.iter().find(is_child)?).ok()?)
}

/// Kills the next process that writes a snapshot for one of these nodes, and stops the one after that;
/// which node, and which process is stopped.
async fn kill_one_and_stop_one(stage: &Stage, nodes: &[NodeStatus]) -> (NodeStatus, Pid) {
    let (node, killed) = next_save(stage, nodes, None, Signal::KILL).await;
    next_save(stage, &[node], Some(killed), Signal::STOP).await
}

/// Sends a signal to the next process that writes a snapshot for one of these nodes, and is not this
/// one, which may take a moment to end; which node, and which process.
async fn next_save(
    stage: &Stage,
    nodes: &[NodeStatus],
    other_than: Option<Pid>,
    signal: Signal,
) -> (NodeStatus, Pid) {
    let found = async {
        loop {
            for node in nodes {
                if let Some(pid) = saves(stage, node)
                    && Some(pid) != other_than
                    && kill_process(pid, signal).is_ok()
                {
                    return (node.clone(), pid);
                }
            }
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_mins(1), found).await.expect("a snapshot to be written")
}

/// The condition that says that this node could not write its snapshot, and its end.
async fn told_and_over(stage: &Stage, node: &NodeStatus, frozen: Pid) {
    let sentence = format!("redis of {} could not write the snapshot", node.incarnation);
    let is_told = |s: &Status| {
        let (_, reason, message) = condition(s, "Degraded");
        reason == "PersistenceFailing" && message.contains(&sentence)
    };
    let status = stage.until_status("it to be told", is_told).await;
    println!("{}", condition(&status, "Degraded").2);
    kill_process(frozen, Signal::CONT).unwrap();
    let over = |s: &Status| !condition(s, "Degraded").2.contains(&sentence);
    stage.until_status("the next one to succeed", over).await;
}

#[test]
fn a_snapshot_whose_process_is_killed_is_told_and_moves_no_master() {
    let name = "disk_faults::a_snapshot_whose_process_is_killed_is_told_and_moves_no_master";
    sandboxed(name, LIMIT, async |sandbox: Sandbox| {
        let stage = Stage::start(&sandbox).await;
        let mut wanted = cluster(NODES);
        let to = format!("file://{}", sandbox.dir.join("bucket").display());
        let backup = serde_json::json!({"to": to, "verify": "never"});
        wanted.spec.backup = Some(serde_json::from_value(backup).unwrap());
        // It is frozen for as long as a status takes: that is no reason to give the master up.
        wanted.spec.failover.down_after = Span(Duration::from_mins(1));
        // No other process of Redis' own than those of snapshots.
        wanted.spec.redis.config.insert("auto-aof-rewrite-percentage".into(), "0".into());
        stage.client.apply(&wanted).await.unwrap();
        let before = whole_again(&stage).await;
        let (_proxy, access) = stage.proxy();
        let mut client = connected(&url(&access)).await;
        for n in 0..64 {
            let mut set = redis::cmd("SET");
            set.arg(format!("large:{n}")).arg(bytes(1 << 20));
            set.exec_async(&mut client).await.unwrap();
        }
        let writer = Writer::start(access);
        writes_go_on(&writer).await;

        // Of a replica, while a backup is taken of it.
        let serve = before.nodes.iter().filter(|node| node.phase == Phase::Replica);
        let replicas: Vec<_> = serve.cloned().collect();
        stage.says(&["backup", CLUSTER]).await;
        let (replica, frozen) = kill_one_and_stop_one(&stage, &replicas).await;
        told_and_over(&stage, &replica, frozen).await;
        told(&stage, "BackupFailed", &[&replica.incarnation, "could not write its snapshot"]).await;
        let said = stage.says(&["backup", CLUSTER, "--wait", "--timeout", "1m"]).await;
        assert!(said.contains("is complete"), "{said}");
        nothing_lost(&writer, "the snapshot process of a replica killed").await;

        // Of the master: it takes no writes until the next one is written.
        let master = stage.master().await;
        wanted.spec.redis.config.insert("save".into(), "2 1".into());
        stage.client.apply(&wanted).await.unwrap();
        let (_, frozen) = kill_one_and_stop_one(&stage, std::slice::from_ref(&master)).await;
        told_and_over(&stage, &master, frozen).await;
        writes_go_on(&writer).await;
        nothing_lost(&writer, "the snapshot process of the master killed").await;
        let after = whole_again(&stage).await;
        assert_eq!((after.epoch, names(&after)), (before.epoch, names(&before)), "nobody moved");
        assert_eq!(stage.master().await.incarnation, master.incarnation);
        stage.delete().await;
    });
}
