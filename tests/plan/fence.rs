//! Proofs that an old master takes no writes: the rules of `plan/fence.rs`.

use akash_redis::api::conditions::Reason;
use akash_redis::api::types::ACCEPT_LOSS;
use akash_redis::model::node::{Process, Role};
use akash_redis::model::record::Fence;
use akash_redis::model::step::Quorum;

use crate::scene::{NOW, Scene, degraded, detached, name, promoted};

/// Its provider may run a second container of the node.
#[test]
fn another_start_of_the_agent_says_nothing_about_the_redis_that_was_promoted() {
    for (boot, fenced) in [("boot-0", true), ("boot-0b", false)] {
        let mut scene = Scene::three();
        scene.node(0, |v| {
            v.state.boot_id = boot.into();
            v.state.redis.role = Role::Replica;
            v.state.redis.fenced = true;
            v.state.redis.run_id = "run-0b".into();
        });
        let plan = scene.plan(NOW);
        let Some(akash_redis::model::record::Change::Failover(failover)) = plan.record.change
        else {
            panic!("{:?}", plan.events)
        };
        assert_eq!(failover.fence.is_some(), fenced, "{boot}");
    }
}

/// Nobody is unaccounted for, and the master may write alone: time proves nothing.
#[test]
fn a_master_that_needs_no_replica_is_not_fenced_by_time() {
    let mut scene = Scene::three();
    scene.failing(NOW - 60_000).quorum = Quorum { min_replicas: 0, max_lag_seconds: 8 };
    scene.node(0, |v| v.connected = false);
    for n in 1..3 {
        scene.heard(n, detached(n, |_| {}));
    }
    let plan = scene.settle(NOW);
    assert!(promoted(&plan).is_empty());
    let (reason, message) = degraded(&plan);
    assert!(
        reason == Reason::FailoverBlocked && message.contains("needs no replica for a write"),
        "{message}"
    );
    scene
        .cluster
        .metadata
        .annotations
        .insert(ACCEPT_LOSS.to_owned(), scene.record.epoch.to_string());
    assert_eq!(promoted(&scene.settle(NOW + 60_000)), [name(1)], "a person knows that it is dead");
}

/// With a proof and nobody unaccounted for nothing blocks, whatever the dead master last said of
/// its quorum.
#[test]
fn the_last_word_of_an_agent_is_a_fence() {
    let mut scene = Scene::three();
    scene.node(0, |v| {
        v.connected = false;
        v.state.redis.process = Process::Exited;
        v.state.redis.min_replicas = 0;
    });
    for n in 1..3 {
        scene.node(n, |v| v.state.redis.link_up = false);
    }
    let plan = scene.settle(NOW);
    let Some(akash_redis::model::record::Change::Failover(failover)) = plan.record.change else {
        panic!("{:?}", plan.events)
    };
    assert!(matches!(failover.fence, Some(Fence { .. })));
    for n in 1..3 {
        scene.heard(n, detached(n, |_| {}));
    }
    assert_eq!(promoted(&scene.settle(NOW + 100)), [name(1)]);
}
