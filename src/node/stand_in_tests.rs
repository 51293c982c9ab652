//! Writes after a planned change, while the replicas are on their way, against a real redis.

use std::time::{Duration, Instant};

use super::psync::introduce;
use super::redis_config::BootConfig;
use super::stand_in::{self, PROMPT};
use rustix::process::{Signal, kill_process};

use super::tests::{TestNode, follow, hash, instance, pair, promote, quorum, usual_settings};
use crate::model::node::{NodeState, ReplicaState, Role};
use crate::wire::akash_redis::agent::v1 as wire;
use wire::command_request::Command;

fn planned(min_replicas: u32) -> Command {
    let Command::Promote(told) = promote(min_replicas) else { unreachable!() };
    Command::Promote(wire::Promote { planned: true, ..told })
}

/// One that replicated from a master that is gone.
async fn left() -> TestNode {
    let (source, target) = pair().await;
    source.stop().await;
    target.until(|s| !s.redis.is_linked()).await;
    target
}

/// Writes until one is refused, and how.
async fn refused(node: &TestNode) -> String {
    loop {
        if let Err(error) = node.write("k", "v").await {
            return error.code().unwrap_or_default().to_owned();
        }
    }
}

fn replicas_of(state: &NodeState) -> Vec<String> {
    state.redis.replicas.iter().map(|r| r.name.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_do_not_wait_for_replicas_that_are_on_their_way_and_not_for_ever_either() {
    let node = left().await;
    let state = node.command(2, planned(1)).await.unwrap();
    assert_eq!((state.redis.role, state.redis.min_replicas), (Role::Master, 1));
    node.write("k", "v").await.unwrap();
    assert_eq!(replicas_of(&node.node.peek()), [stand_in::NAME]);
    let mut session = node.node.redis.open(Duration::from_secs(5)).await.unwrap();
    let has = session.ask(redis::cmd("WAIT").arg(1).arg(100)).await;
    assert_eq!(has, "int(0)", "it has no data, and does not say that it had");
    assert_eq!(refused(&node).await, "NOREPLICAS");
    node.until(|s| s.redis.replicas.is_empty()).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_leaves_when_a_replica_is_back_and_writes_go_on() {
    let (source, target) = pair().await;
    source.command(2, Command::Fence(wire::Fence {})).await.unwrap();
    target.command(2, planned(1)).await.unwrap();
    target.write("k", "v").await.unwrap();
    let replica = TestNode::start(target.port());
    replica.running().await;
    replica.command(2, usual_settings()).await.unwrap();
    replica.command(2, follow(false)).await.unwrap();
    target
        .until(|s| {
            let names: Vec<_> = s.redis.replicas.iter().map(|r| r.name.as_str()).collect();
            names.len() == 1 && names[0] != stand_in::NAME
        })
        .await;
    target.write("k", "w").await.unwrap();
    for node in [source, target, replica] {
        node.stop().await;
    }
}

/// The replicas hang on it before, and a promotion ends their links.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_from_before_the_promotion_are_no_replicas() {
    let (source, target) = pair().await;
    let users = vec![wire::ReplicationUser {
        name: "_repl-b".into(),
        password_sha256: hash("repl-secret"),
    }];
    target.command(2, Command::Admit(wire::Admit { replication_users: users })).await.unwrap();
    let other = TestNode::start(target.port());
    other.running().await;
    other.command(2, usual_settings()).await.unwrap();
    let Command::Follow(told) = follow(false) else { unreachable!() };
    other.command(2, Command::Follow(wire::Follow { data_epoch: 1, ..told })).await.unwrap();
    other.until(|s| s.redis.is_linked()).await;
    target.until(|s| s.redis.replicas.iter().any(|r| r.state == ReplicaState::Online)).await;
    source.command(2, Command::Fence(wire::Fence {})).await.unwrap();
    // Its way back takes longer than this test.
    let pid = other.pid().await;
    kill_process(pid, Signal::STOP).unwrap();
    target.command(2, planned(1)).await.unwrap();
    target.until(|s| replicas_of(s) == [stand_in::NAME]).await;
    target.write("k", "v").await.unwrap();
    kill_process(pid, Signal::CONT).unwrap();
    for node in [source, target, other] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_takes_over_as_planned_goes_without_and_no_later_reign_does() {
    let node = left().await;
    node.command(2, promote(1)).await.unwrap();
    assert_eq!(node.write("k", "v").await.unwrap_err().code(), Some("NOREPLICAS"));
    node.command(3, planned(2)).await.unwrap();
    assert_eq!(
        node.write("k", "v").await.unwrap_err().code(),
        Some("NOREPLICAS"),
        "a number that replicas confirm"
    );
    node.command(4, planned(1)).await.unwrap();
    node.write("k", "v").await.unwrap();
    node.command(5, promote(1)).await.unwrap();
    assert_eq!(node.write("k", "v").await.unwrap_err().code(), Some("NOREPLICAS"));
    node.command(6, planned(1)).await.unwrap();
    node.write("k", "v").await.unwrap();
    node.command(7, Command::Fence(wire::Fence {})).await.unwrap();
    let open = wire::Unfence { quorum: Some(quorum(1)) };
    node.command(8, Command::Unfence(open)).await.unwrap();
    assert_eq!(node.write("k", "v").await.unwrap_err().code(), Some("NOREPLICAS"));
    node.stop().await;
}

/// Should this agent freeze, nobody but Redis is left to end it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_itself_does_not_count_one_for_longer_than_max_lag() {
    let node = left().await;
    let short = wire::Quorum { max_lag_seconds: 1, ..quorum(1) };
    let Command::Promote(told) = promote(1) else { unreachable!() };
    let told = Command::Promote(wire::Promote { quorum: Some(short), ..told });
    node.command(2, told).await.unwrap();
    let info = node.node.redis.open(PROMPT).await.unwrap().info().await.unwrap();
    let instance = instance(&node.node.settings);
    let socket = instance.run_dir.join(BootConfig::SOCKET);
    let replid = info.text("master_replid");
    let held = introduce(&socket, &instance.password, stand_in::NAME).await.unwrap();
    let held = held.attach(replid, info.offset() + 1).await.unwrap();
    node.write("k", "v").await.unwrap();
    assert_eq!(refused(&node).await, "NOREPLICAS");
    drop(held);
    node.stop().await;
}

#[test]
fn a_promotion_that_was_long_under_way_waits_for_its_replicas() {
    let now = Instant::now();
    assert!(stand_in::is_prompt(Some(now)));
    assert!(!stand_in::is_prompt(now.checked_sub(PROMPT + Duration::from_millis(1))));
    assert!(!stand_in::is_prompt(None));
}
