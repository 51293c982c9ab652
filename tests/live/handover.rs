//! How long writes stand still while a master moves, and what that costs: no acknowledged write of a
//! planned change, and no copy of the whole data. The figures are printed; none is asserted.
//!
//! `HANDOVERS=20` moves it so often in place of three times.

use std::time::{Duration, Instant};

use akash_redis::api::conditions::Phase;
use akash_redis::api::status::{NodeStatus, Status};
use akash_redis::cli::demo::writer::{Access, Writer};
use akash_redis::devnet::sandbox::Sandbox;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::sandboxed::sandboxed;
use crate::stage::{CLUSTER, Stage, cluster, is_ready, until};
use crate::writing::{nothing_lost, writes_go_on};

const LIMIT: Duration = Duration::from_mins(8);

fn master(status: &Status) -> Option<&str> {
    status.nodes.iter().find(|n| n.phase == Phase::Master).map(|n| n.incarnation.as_str())
}

fn times() -> usize {
    std::env::var("HANDOVERS").ok().and_then(|n| n.parse().ok()).unwrap_or(3)
}

fn told(what: &str, mut gaps: Vec<u128>) {
    gaps.sort_unstable();
    println!("{what}: median {} ms of {gaps:?}", gaps[gaps.len() / 2]);
}

/// Waits until somebody else than `old` is master and everybody is in sync.
async fn moved(stage: &Stage, old: &str) {
    stage
        .until("another master, and all in sync", |c| {
            is_ready(c) && c.status.as_ref().and_then(master).is_some_and(|m| m != old)
        })
        .await;
}

/// What a program of every node printed, as far as they keep it.
async fn printed(stage: &Stage, program: &str) -> String {
    let mut all = String::new();
    for node in ["0", "1", "2"] {
        let asked = ["logs", CLUSTER, node, "--process", program, "--tail", "5000"];
        all += &String::from_utf8_lossy(&stage.cli(&asked).await.stdout);
    }
    all
}

/// Full syncs that any node of the cluster ever asked for.
async fn full_syncs(stage: &Stage) -> usize {
    printed(stage, "redis").await.matches("Full resync from master").count()
}

#[test]
fn a_master_moves_again_and_again() {
    sandboxed("handover::a_master_moves_again_and_again", LIMIT, async |sandbox: Sandbox| {
        let stage = Stage::start(&sandbox).await;
        stage.client.apply(&cluster(3)).await.unwrap();
        stage.until_ready().await;
        let (_proxy, access) = stage.proxy();
        let writer = Writer::start(access);
        writes_go_on(&writer).await;

        let copies = full_syncs(&stage).await;
        assert_eq!(copies, 2, "each replica copied it once");
        let (mut planned, mut unplanned) = (Vec::new(), Vec::new());
        for _ in 0..times() {
            let old = stage.master().await;
            writer.begin();
            writes_go_on(&writer).await;
            let said = stage.cli(&["switchover", "cache"]).await;
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
            moved(&stage, &old.incarnation).await;
            writes_go_on(&writer).await;
            let phase = writer.end().await.unwrap();
            assert_eq!(phase.lost, 0, "{phase:?}");
            planned.push(phase.longest_gap.as_millis());
        }
        assert_eq!(full_syncs(&stage).await, copies, "nobody copies the whole data");
        for _ in 0..times() {
            let old = stage.master().await;
            writer.begin();
            writes_go_on(&writer).await;
            stage.kill_redis(&old);
            moved(&stage, &old.incarnation).await;
            writes_go_on(&writer).await;
            unplanned.push(writer.end().await.unwrap().longest_gap.as_millis());
        }
        if std::env::var_os("HANDOVERS").is_some() {
            let events = stage.cli(&["events", CLUSTER]).await.stdout;
            println!("{}", String::from_utf8_lossy(&events));
            println!("{}", printed(&stage, "agent").await);
        }
        told("planned", planned);
        told("redis killed", unplanned);
    });
}

fn signal_redis(stage: &Stage, node: &NodeStatus, signal: Signal) {
    let (provider, lease) = stage.local.market.find(node.dseq).unwrap();
    for pid in stage.local.market.providers[provider].runner.processes(&lease, "redis-server") {
        kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
    }
}

/// The master to be freezes just before it is asked for: nobody is fenced, and who is well stays
/// linked.
#[test]
fn a_switchover_that_comes_to_nothing_cuts_nobody() {
    let test = "handover::a_switchover_that_comes_to_nothing_cuts_nobody";
    sandboxed(test, LIMIT, async |sandbox: Sandbox| {
        let stage = Stage::start(&sandbox).await;
        stage.client.apply(&cluster(3)).await.unwrap();
        let status = stage.until_ready().await;
        let (_proxy, access) = stage.proxy();
        let writer = Writer::start(access);
        writes_go_on(&writer).await;
        let master = stage.master().await;
        let target = status.nodes.iter().find(|n| n.phase == Phase::Replica).unwrap();
        let links = async || printed(&stage, "redis").await.matches("Connecting to MASTER").count();
        let before = links().await;

        signal_redis(&stage, target, Signal::STOP);
        let said = stage.cli(&["switchover", CLUSTER, "--to", &target.incarnation]).await;
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        until("the switchover to be undone", async || {
            let said = stage.cli(&["events", CLUSTER]).await.stdout;
            String::from_utf8_lossy(&said).contains("SwitchoverRolledBack")
        })
        .await;
        signal_redis(&stage, target, Signal::CONT);
        let status = stage.until_ready().await;
        assert!(status.epoch > 2, "{status:#?}");
        assert_eq!(stage.master().await.incarnation, master.incarnation);
        nothing_lost(&writer, "a switchover that came to nothing").await;
        assert_eq!(links().await, before, "nobody attached anew");
    });
}

/// Applications that all start at once dial through the same tailscaled as the operator.
#[test]
fn nine_hundred_connections_at_once_starve_nobody() {
    const APPLICATIONS: usize = 900;
    let test = "handover::nine_hundred_connections_at_once_starve_nobody";
    sandboxed(test, LIMIT, async |sandbox: Sandbox| {
        let stage = Stage::start(&sandbox).await;
        stage.client.apply(&cluster(3)).await.unwrap();
        stage.until_ready().await;
        let (_proxy, access) = stage.proxy();
        let writer = Writer::start(access.clone());
        writes_go_on(&writer).await;
        drop(writer);
        let epoch = stage.until_ready().await.epoch;

        let began = Instant::now();
        let connect = |access: Access| async move {
            let mut stream = TcpStream::connect((access.host.as_str(), access.port)).await?;
            let hello = format!("AUTH {} {}\r\n", access.user, access.password);
            stream.write_all(hello.as_bytes()).await?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).await?;
            assert_eq!(&answer, b"+OK\r\n");
            Ok::<_, std::io::Error>(stream)
        };
        let all = (0..APPLICATIONS).map(|_| connect(access.clone()));
        let open = futures::future::join_all(all).await;
        let failed = open.iter().filter(|one| one.is_err()).count();
        println!(
            "{APPLICATIONS} connections in {} ms, {failed} failed",
            began.elapsed().as_millis()
        );
        assert_eq!(failed, 0);
        let status = stage.until_ready().await;
        assert_eq!(status.epoch, epoch, "nobody was taken for dead");
        let said = stage.cli(&["events", "cache"]).await.stdout;
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(!said.contains("NodeLost") && !said.contains("ReplicaOutOfSync"), "{said}");
    });
}
