//! A replica that becomes master as soon as its master hands over to it, between real redis-servers.

use std::time::Instant;

use redis::AsyncCommands as _;

use super::handover::channel;
use super::rest::REST;
use super::stand_in;
use super::tests::{PATIENCE, TestNode, pair, promote};
use crate::model::node::{NodeState, Role};
use crate::wire::akash_redis::agent::v1 as wire;
use wire::command_request::Command;

const WORD: &str = "5e1f00d5e1f00d5e1f00d5e1f00d5e1f00d5e1f00d5e1f00d5e1f00d5e1f00d5";

fn wait_for(word: &str) -> Command {
    let Command::Promote(promote) = promote(1) else { unreachable!() };
    let promote = Some(wire::Promote { planned: true, ..promote });
    Command::AwaitHandover(wire::AwaitHandover { promote, word: word.to_owned() })
}

fn hand_over(word: &str) -> Command {
    Command::HandOver(wire::HandOver { word: word.to_owned() })
}

async fn is_replica(node: &TestNode) {
    let state = node.until(|s| s.awaits == Some(0)).await;
    assert_eq!(state.redis.role, Role::Replica);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_has_every_write_that_was_acknowledged_and_takes_the_next_one() {
    let (source, target) = pair().await;
    let told = target.command(2, wait_for(WORD)).await.unwrap();
    assert_eq!((told.awaits, told.redis.role), (Some(2), Role::Replica));
    let mut writers = Vec::new();
    for writer in 0..8 {
        let mut client = source.client().await;
        writers.push(tokio::spawn(async move {
            let mut done = 0;
            while client.set::<_, _, ()>(format!("w{writer}-{done}"), done).await.is_ok() {
                done += 1;
            }
            done
        }));
    }
    source.until(|s| s.redis.keys > 200).await;
    let fenced = source.command(2, hand_over(WORD)).await.unwrap();
    assert!(fenced.redis.fenced && fenced.redis.role == Role::Master);
    let state = target.until(|s| s.redis.role == Role::Master && s.awaits == Some(0)).await;
    assert!(state.promoted && !state.redis.fenced);
    assert_eq!((state.highest.epoch, state.redis.replid2), (2, fenced.redis.replid));
    target.write("next", "1").await.unwrap();
    let again = source.command(2, hand_over(WORD)).await.unwrap();
    assert_eq!(
        again.redis.offset, fenced.redis.offset,
        "a fence is there, and nothing is said again"
    );

    source.stop().await;
    let mut acknowledged = 0;
    for writer in writers {
        acknowledged += writer.await.unwrap();
    }
    let keys: usize = redis::cmd("DBSIZE").query_async(&mut target.client().await).await.unwrap();
    assert_eq!(keys, acknowledged + 1);
    target.stop().await;
}

/// Whoever hears of a master sends it writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_shown_as_master_once_it_takes_writes_and_no_earlier_look_takes_that_back() {
    let (source, target) = pair().await;
    target.command(2, wait_for(WORD)).await.unwrap();
    let mut states = target.node.subscribe();
    let (asked, before) = (Instant::now(), target.node.peek().redis);
    source.command(2, hand_over(WORD)).await.unwrap();
    // A look of the usual rhythm may fall between the promotion and its end.
    let opened = |s: &NodeState| s.redis.role == Role::Master && !s.redis.fenced;
    let shown = states.wait_for(opened).await.unwrap().clone();
    assert!(shown.promoted, "{:?}", shown.redis);
    assert_eq!((shown.redis.min_replicas, shown.highest.epoch), (1, 2));
    assert_eq!(shown.redis.replicas, [stand_in::attached()], "it has what a write needs");
    target.write("at once", "1").await.unwrap();
    target.node.looked_at(before, asked);
    let now = target.node.peek().redis;
    assert_eq!((now.role, now.fenced), (Role::Master, false));
    source.stop().await;
    target.stop().await;
}

/// The processor, and the path, are the target's for that moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_source_says_nothing_more_before_the_target_had_its_moment() {
    let (source, target) = pair().await;
    target.command(2, wait_for(WORD)).await.unwrap();
    let asked = Instant::now();
    let fenced = source.command(2, hand_over(WORD)).await.unwrap();
    assert!(asked.elapsed() >= REST, "{:?}", asked.elapsed());
    assert!(fenced.redis.fenced && fenced.redis.role == Role::Master);
    target.until(|s| s.redis.role == Role::Master).await;
    source.node.telling.over().await;
    source.stop().await;
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_the_redis_that_was_told_that_takes_over_and_not_the_next_one() {
    let (source, target) = pair().await;
    target.command(2, wait_for(WORD)).await.unwrap();
    let told = target.node.peek().redis.run_id;
    target.kill_redis();
    target.until(|s| s.redis.run_id != told && !s.redis.run_id.is_empty()).await;
    let mut next = target.node.redis.open(PATIENCE).await.unwrap();
    next.run(redis::cmd("PUBLISH").arg(channel(WORD)).arg("")).await.unwrap();
    is_replica(&target).await;
    source.stop().await;
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_stays_a_replica_when_nobody_hands_over_to_it() {
    let (source, target) = pair().await;
    let other = WORD.replace('5', "6");
    target.command(2, wait_for(WORD)).await.unwrap();
    assert!(!target.node.hurries(), "it hears of it, and is not looked at for it");
    source.command(2, hand_over(&other)).await.unwrap();
    is_replica(&target).await;
    assert!(target.node.hurries(), "how far it is is what counts now");
    let late = source.command(2, hand_over(WORD)).await;
    assert!(late.is_ok(), "it is fenced, and answers: {late:?}");
    let promoted = target.command(2, promote(0)).await.unwrap();
    assert_eq!(promoted.redis.role, Role::Master, "it is promoted by command then");
    source.stop().await;
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_higher_epoch_ends_it() {
    for end in [Command::Fence(wire::Fence {}), Command::Detach(wire::Detach { drain_ms: 0 })] {
        let (source, target) = pair().await;
        target.command(2, wait_for(WORD)).await.unwrap();
        let ended = target.command(3, end).await.unwrap();
        assert_eq!((ended.awaits, ended.redis.role), (Some(0), Role::Replica));
        source.command(2, hand_over(WORD)).await.unwrap();
        target.until(|s| !s.redis.is_linked() || s.redis.offset > 0).await;
        is_replica(&target).await;
        let early = target.command(2, wait_for(WORD)).await.unwrap_err();
        assert_eq!(early.code(), tonic::Code::FailedPrecondition, "of the epoch before: {early:?}");
        source.stop().await;
        target.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_awaited_on_an_old_word_of_the_agent_or_without_a_link() {
    let (source, target) = pair().await;
    let old = target.node.issue().nonce;
    let alone = source.command(2, wait_for(WORD)).await.unwrap_err();
    assert_eq!(alone.code(), tonic::Code::FailedPrecondition, "a master: {alone:?}");
    let short = target.command(2, wait_for("5e1f")).await.unwrap_err();
    assert_eq!(short.code(), tonic::Code::InvalidArgument, "a word that can be guessed: {short:?}");
    tokio::time::sleep(super::stand_in::PROMPT).await;
    let late = target.send(old, 2, wait_for(WORD)).await.unwrap_err();
    assert_eq!(late.code(), tonic::Code::FailedPrecondition, "{late:?}");
    assert_eq!(target.node.peek().awaits, Some(0));
    source.stop().await;
    target.stop().await;
}
