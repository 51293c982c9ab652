//! Who is master, and who follows: the rules of `plan/roles.rs`.

use akash_redis::model::node::{AttachedReplica, History, ReplicaState};
use akash_redis::model::record::{FailoverReport, Membership};
use akash_redis::model::step::{Command, Effect};

use crate::scene::{NOW, Scene, detached, name};

/// Whether node 2, which comes back with this history and 30 keys, keeps a snapshot before it
/// follows the master of epoch 1.
fn keeps_first(history: Option<History>) -> bool {
    let mut scene = Scene::three();
    scene.incarnation(2).lower(Membership::Member);
    scene.node(0, |v| {
        v.state.redis.replid2 = "Z".into();
        v.state.redis.second_offset = 51;
        v.state.redis.replicas = vec![AttachedReplica {
            name: format!("{}.mesh", name(1)),
            state: ReplicaState::Online,
            ..AttachedReplica::default()
        }];
    });
    scene.heard(
        2,
        detached(2, |s| {
            s.highest.epoch = 1;
            s.redis.keys = 30;
            s.redis.replid = "own".into();
            s.history = history;
        }),
    );
    let plan = scene.settle(NOW);
    scene.node(0, |v| v.state.configured = configured(&plan));
    let plan = scene.settle(NOW);
    let follow =
        plan.steps.iter().find_map(|s| match &s.effect {
            Effect::Command {
                incarnation, command: Command::Follow { save_first, .. }, ..
            } if *incarnation == name(2) => Some(*save_first),
            _ => None,
        });
    follow.unwrap_or_else(|| panic!("{:?}", plan.steps))
}

/// The generation that the master is about to be configured with.
fn configured(plan: &akash_redis::plan::Plan) -> String {
    let generation = plan.steps.iter().find_map(|s| match &s.effect {
        Effect::Command { incarnation, command: Command::Configure(settings), .. }
            if *incarnation == name(0) =>
        {
            Some(settings.generation.clone())
        }
        _ => None,
    });
    generation.expect("the master is configured")
}

#[test]
fn whatever_may_be_beyond_the_master_is_kept_before_it_is_wiped() {
    let history = |replid: &str, offset, gap_ms| {
        Some(History { replid: replid.into(), offset, epoch: 1, gap_ms })
    };
    assert!(keeps_first(history("Z", 80, 0)), "30 bytes past the promotion point");
    assert!(keeps_first(history("Z", 50, 900)), "nobody knows what it wrote in its last 900 ms");
    assert!(
        keeps_first(history("Y", 10, 0)),
        "the master of two epochs ago: it cannot be compared"
    );
    assert!(keeps_first(None), "data without a history");
    assert!(!keeps_first(history("Z", 50, 0)), "it stopped at the promotion point");
    assert!(!keeps_first(history("A", 90, 0)), "a replica of this very master");
}

#[test]
fn a_loss_is_told_as_a_bound() {
    for (offset, gap, told) in [
        (50, 0, "nothing: the old master had nothing that the new one lacked"),
        (80, 0, "up to 30 bytes of history"),
        (50, 900, "up to 0 bytes of history, and what was written in the last 900 ms"),
        (50, u64::MAX, "of unknown time"),
    ] {
        let mut scene = Scene::three();
        scene.incarnation(2).lower(Membership::Member);
        scene.record.last_failover = Some(FailoverReport {
            epoch: 1,
            old: name(2).0,
            new: name(0).0,
            ..FailoverReport::default()
        });
        scene.node(0, |v| (v.state.redis.replid2, v.state.redis.second_offset) = ("Z".into(), 51));
        let history = Some(History { replid: "Z".into(), offset, epoch: 0, gap_ms: gap });
        scene.heard(
            2,
            detached(2, |s| {
                s.highest.epoch = 1;
                s.history = history;
            }),
        );
        let plan = scene.settle(NOW);
        scene.node(0, |v| v.state.configured = configured(&plan));
        let lost = scene.settle(NOW).status.last_failover.unwrap().lost;
        assert!(lost.contains(told), "{lost}");
    }
}
