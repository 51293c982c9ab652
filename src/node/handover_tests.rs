//! A master moves between real redis-servers: who was attached before stays in step, and what is in
//! use is not replaced.

use std::time::Instant;

use super::tests::{PATIENCE, TestNode, follow, hash, pair, promote, quorum, usual_settings};
use super::write_probe::WriteProbe;
use crate::model::node::{AttachedReplica, RedisState, ReplicaState, Role};
use crate::wire::akash_redis::agent::v1 as wire;
use wire::command_request::Command;

fn admit() -> Command {
    let user =
        wire::ReplicationUser { name: "_repl-b".into(), password_sha256: hash("repl-secret") };
    Command::Admit(wire::Admit { replication_users: vec![user] })
}

/// Follows one that passes on the data of epoch 1.
fn follow_early() -> Command {
    let Command::Follow(told) = follow(false) else { unreachable!() };
    Command::Follow(wire::Follow { data_epoch: 1, ..told })
}

async fn syncs(node: &TestNode) -> (i64, i64) {
    let info = node.node.redis.open(PATIENCE).await.unwrap().info().await.unwrap();
    (info.number("sync_full"), info.number("sync_partial_ok"))
}

/// After a full sync a master counts a replica once that has acknowledged it.
async fn counted(master: &TestNode) {
    let online = |r: &AttachedReplica| r.state == ReplicaState::Online;
    master.until(|s| s.redis.replicas.iter().any(online)).await;
}

async fn joined(master_port: u16) -> TestNode {
    let node = TestNode::start(master_port);
    node.running().await;
    node.command(1, usual_settings()).await.unwrap();
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_hangs_on_the_target_goes_on_where_it_was_when_that_is_promoted() {
    let (source, target) = pair().await;
    source.write("before", "1").await.unwrap();
    let early = source.command(1, admit()).await.unwrap_err();
    assert_eq!(early.code(), tonic::Code::FailedPrecondition, "a master has others: {early:?}");
    let state = target.command(2, admit()).await.unwrap();
    assert_eq!((state.admits, state.redis.role, state.promoted), (Some(2), Role::Replica, false));
    let other = joined(target.port()).await;
    other.command(2, follow_early()).await.unwrap();
    let hangs = other.until(|s| s.redis.is_linked() && s.redis.online_epoch > 0).await;
    assert_eq!(hangs.redis.online_epoch, 1, "what it has is the data of epoch 1");
    source.write("through", "2").await.unwrap();
    let offset = source.command(2, Command::Fence(wire::Fence {})).await.unwrap().redis.offset;
    target.until(|s| s.redis.offset == offset).await;
    other.until(|s| s.redis.offset == offset).await;

    let copies = syncs(&target).await.0;
    target.command(2, promote(1)).await.unwrap();
    assert_eq!(target.node.peek().admits, Some(0), "it is master now");
    other.until(|s| s.redis.is_linked() && s.redis.replid == target.node.peek().redis.replid).await;
    target.write("after", "3").await.unwrap();
    let told = other.command(2, follow(false)).await.unwrap();
    assert!(told.redis.is_linked(), "the link that is up stays");
    other.until(|s| s.redis.online_epoch == 2).await;
    let (full, partial) = syncs(&target).await;
    assert!(full == copies && partial > 0, "{full} copies of everything, {copies} before");
    source.stop().await;
    other.stop().await;
    target.stop().await;
}

/// Its master's last write counts at once: looks that are 250 ms apart were most of a planned change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_to_take_over_is_looked_at_closely_until_it_does() {
    let (source, target) = pair().await;
    let asked = Instant::now();
    let before = target.node.peek().redis;
    target.command(2, admit()).await.unwrap();
    target.node.looked_at(before, asked);
    assert!(target.node.hurries(), "what was asked before the command shows nothing of it");
    let after = Instant::now();
    let mut looks = target.node.looks();
    looks.wait_for(|look| *look > after).await.unwrap();
    assert!(target.node.hurries(), "it is not promoted yet");
    source.command(2, Command::Fence(wire::Fence {})).await.unwrap();
    target.command(2, promote(0)).await.unwrap();
    target.until(|s| s.redis.role == Role::Master && !s.redis.fenced).await;
    let promoted = Instant::now();
    looks.wait_for(|look| *look > promoted).await.unwrap();
    // The next look comes after the one that showed it.
    looks.changed().await.unwrap();
    assert!(!target.node.hurries(), "nobody waits any more");
    source.stop().await;
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_not_promoted_lets_nobody_in_any_more() {
    let (source, target) = pair().await;
    target.command(2, admit()).await.unwrap();
    let other = joined(target.port()).await;
    other.command(2, follow_early()).await.unwrap();
    other.until(|s| s.redis.is_linked()).await;
    let before = syncs(&source).await;
    let state = target.command(3, follow(false)).await.unwrap();
    assert_eq!(state.admits, Some(0));
    other.until(|s| !s.redis.is_linked()).await;
    assert_eq!(syncs(&source).await, before, "its own link stays");
    let refused = joined(0).await;
    let error = refused.command(2, admit()).await.unwrap_err();
    assert!(error.message().contains("no replica in sync"), "{error:?}");
    for node in [other, refused, target, source] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undone_switchover_cuts_nobody() {
    let (master, replica) = pair().await;
    counted(&master).await;
    let before = syncs(&master).await;
    master.command(2, Command::Fence(wire::Fence {})).await.unwrap();
    let unfence = Command::Unfence(wire::Unfence { quorum: Some(quorum(1)) });
    master.command(3, unfence).await.unwrap();
    let told = replica.command(3, follow(false)).await.unwrap();
    assert!(told.redis.is_linked(), "the same master by the same leave");
    replica.until(|s| s.redis.online_epoch == 3).await;
    master.write("k", "v").await.unwrap();
    assert_eq!(syncs(&master).await, before, "nobody attached anew");
    replica.stop().await;
    master.stop().await;
}

/// A client that is cut off in the middle of a write cannot know that nothing was written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_fence_held_is_refused_before_anybody_is_disconnected() {
    let (source, target) = pair().await;
    source.command(2, Command::Fence(wire::Fence {})).await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(source.client().await);
    }
    let held = clients.iter_mut().map(|client| {
        let mut set = redis::cmd("SET");
        set.arg("k").arg("held");
        async move { set.exec_async(client).await.unwrap_err() }
    });
    let mut held = std::pin::pin!(futures::future::join_all(held));
    let mut session = source.node.redis.open(PATIENCE).await.unwrap();
    let blocked = async { while session.info().await.unwrap().number("blocked_clients") < 8 {} };
    tokio::select! {
        errors = &mut held => panic!("they are not held: {errors:?}"),
        () = blocked => {}
    }
    target.command(2, promote(0)).await.unwrap();
    let (errors, stood) =
        tokio::join!(held, source.command(2, Command::Detach(wire::Detach { drain_ms: 0 })));
    stood.unwrap();
    for error in errors {
        assert_eq!(error.code(), Some("READONLY"), "{error}");
    }
    target.stop().await;
    source.stop().await;
}

/// An answer of before the fence would show an offset that writes have followed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_from_before_a_fence_does_not_say_where_it_stands() {
    let (master, replica) = pair().await;
    let (asked, looked) = (Instant::now(), master.node.peek().redis);
    master.write("k", "v").await.unwrap();
    let fenced = master.command(2, Command::Fence(wire::Fence {})).await.unwrap().redis;
    assert!(fenced.fenced && fenced.offset > looked.offset, "{fenced:?}");
    master.node.looked_at(RedisState { ..looked }, asked);
    let shown = master.node.peek().redis;
    assert_eq!((shown.fenced, shown.offset), (true, fenced.offset));
    replica.stop().await;
    master.stop().await;
}

/// Whether a master takes writes is asked once a second, also at the moment at which it is fenced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_a_fence_holds_back_keeps_nobody_else_waiting() {
    let (master, replica) = pair().await;
    let mut session = master.node.redis.open(PATIENCE).await.unwrap();
    session.fence().await.unwrap();
    let seen = master.node.peek().redis;
    assert!(!seen.fenced, "nobody has noted it yet");
    assert_eq!(WriteProbe::default().ask(&master.node, &seen).await, None);
    assert_eq!(session.info().await.unwrap().role(), Role::Master, "it answers");
    replica.stop().await;
    master.stop().await;
}

/// In a failover a replica is told to follow while the chosen one is being promoted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_asks_too_early_gets_in_later() {
    let (source, chosen) = pair().await;
    source.stop().await;
    let other = joined(chosen.port()).await;
    let detach = || Command::Detach(wire::Detach { drain_ms: 0 });
    chosen.command(2, detach()).await.unwrap();
    other.command(2, detach()).await.unwrap();
    other.command(2, follow_early()).await.unwrap();
    assert!(!other.node.peek().redis.is_linked(), "nobody was let in yet");
    chosen.command(2, promote(1)).await.unwrap();
    other.until(|s| s.redis.is_linked() && s.redis.online_epoch == 1).await;
    counted(&chosen).await;
    chosen.write("k", "v").await.unwrap();
    other.stop().await;
    chosen.stop().await;
}
