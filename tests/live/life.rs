//! A node's agent dies, and its container is stopped: neither costs a write, and neither is a
//! failover.

use std::time::Duration;

use akash_redis::api::conditions::Phase;
use akash_redis::api::status::{NodeStatus, Status};
use akash_redis::cli::demo::writer::Writer;
use akash_redis::devnet::sandbox::Sandbox;
use rustix::process::{Pid, Signal, kill_process};

use crate::sandboxed::sandboxed;
use crate::stage::{Stage, cluster, is_ready, until};
use crate::writing::{nothing_lost, writes_go_on};

const LIMIT: Duration = Duration::from_mins(3);

#[test]
fn an_agent_that_dies_and_a_container_that_is_stopped_cost_no_write_and_no_failover() {
    sandboxed(
        "life::an_agent_that_dies_and_a_container_that_is_stopped_cost_no_write_and_no_failover",
        LIMIT,
        async |sandbox: Sandbox| {
            let stage = Stage::patient(&sandbox).await;
            stage.client.apply(&cluster(3)).await.unwrap();
            let before = whole(&stage).await;
            let (_proxy, access) = stage.proxy();
            let writer = Writer::start(access);
            writes_go_on(&writer).await;

            for phase in [Phase::Master, Phase::Replica] {
                let node = before.nodes.iter().find(|n| n.phase == phase).unwrap();
                the_agent_dies(&stage, node).await;
                let after = whole(&stage).await;
                assert_eq!((after.epoch, master(&after)), (before.epoch, master(&before)));
                nothing_lost(&writer, &format!("the agent of the {phase} killed")).await;
            }
            the_master_is_stopped(&stage, &before).await;
            nothing_lost(&writer, "the container of the master stopped").await;
            a_replica_is_stopped(&stage).await;
            nothing_lost(&writer, "the container of a replica stopped").await;
            all_are_restarted(&stage).await;
            nothing_lost(&writer, "every container restarted").await;
        },
    );
}

fn master(status: &Status) -> Option<&str> {
    status.nodes.iter().find(|n| n.phase == Phase::Master).map(|n| n.incarnation.as_str())
}

async fn whole(stage: &Stage) -> Status {
    let serve = |s: &Status| s.nodes.iter().filter(|n| n.phase.is_serving()).count() == 3;
    stage
        .until("all nodes in their places", |c| is_ready(c) && c.status.as_ref().is_some_and(serve))
        .await
        .status
        .unwrap()
}

/// The one process of this name in a node.
fn process(stage: &Stage, node: &NodeStatus, name: &str) -> Option<u32> {
    let (provider, lease) = stage.local.market.find(node.dseq).unwrap();
    match stage.local.market.providers[provider].runner.processes(&lease, name)[..] {
        [pid] => Some(pid),
        _ => None,
    }
}

async fn the_agent_dies(stage: &Stage, node: &NodeStatus) {
    let programs = ["redis-server", "tailscaled", "node-guard"];
    let before = programs.map(|name| process(stage, node, name).unwrap());
    let agent = process(stage, node, "akash-redis").unwrap();
    kill_process(Pid::from_raw(agent.cast_signed()).unwrap(), Signal::KILL).unwrap();
    until("another agent", async || {
        process(stage, node, "akash-redis").is_some_and(|pid| pid != agent)
    })
    .await;
    let said = async || {
        let (provider, lease) = stage.local.market.find(node.dseq).unwrap();
        stage.local.market.providers[provider].runner.logs(&lease, 2000)
    };
    until("redis to be taken over", async || {
        said().await.iter().any(|line| line.contains("redis-server went on without its agent"))
    })
    .await;
    assert_eq!(programs.map(|name| process(stage, node, name).unwrap()), before);
}

/// Its container gets SIGTERM, and is started again.
async fn stop(stage: &Stage, node: &NodeStatus) {
    let (provider, lease) = stage.local.market.find(node.dseq).unwrap();
    let runner = &stage.local.market.providers[provider].runner;
    let before = runner.pid(&lease).unwrap();
    assert!(runner.restart(&lease));
    until("another container", async || runner.pid(&lease).is_some_and(|pid| pid != before)).await;
}

async fn the_master_is_stopped(stage: &Stage, before: &Status) {
    stop(stage, &stage.master().await).await;
    let after = whole(stage).await;
    assert_ne!(master(&after), master(before));
    assert_eq!(after.epoch, before.epoch + 1, "one change of master");
    assert!(after.last_failover.is_none(), "{:?}", after.last_failover);
    let events = stage.cli(&["events", "cache"]).await.stdout;
    let events = String::from_utf8(events).unwrap();
    assert!(events.contains("its container is being stopped"), "{events}");
    assert!(!events.contains("FailoverStarted"), "{events}");
}

async fn a_replica_is_stopped(stage: &Stage) {
    let before = whole(stage).await;
    let node = before.nodes.iter().find(|n| n.phase == Phase::Replica).unwrap();
    stop(stage, node).await;
    let after = whole(stage).await;
    assert_eq!((after.epoch, master(&after)), (before.epoch, master(&before)));
}

/// By the command, replicas first.
async fn all_are_restarted(stage: &Stage) {
    let before = whole(stage).await;
    let agents = || before.nodes.iter().map(|node| process(stage, node, "akash-redis"));
    let old: Vec<_> = agents().collect();
    let said = stage.cli(&["restart", "cache"]).await;
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    until("every container to be another one", async || {
        agents().zip(&old).all(|(new, old)| new.is_some() && new != *old)
    })
    .await;
    let after = whole(stage).await;
    assert_eq!(after.epoch, before.epoch + 1, "the master moved once");
    assert_ne!(master(&after), master(&before));
    assert!(after.last_failover.is_none(), "{:?}", after.last_failover);
}
