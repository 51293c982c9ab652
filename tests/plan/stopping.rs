//! Containers that are being stopped: the rules of `plan/stopping.rs`.

use akash_redis::api::annotations::MASTER;
use akash_redis::api::conditions::Reason;
use akash_redis::api::events::EventReason;
use akash_redis::model::change::Change;
use akash_redis::model::ids::IncarnationName;
use akash_redis::model::incarnation::Membership;
use akash_redis::model::node::{Link, Process};
use akash_redis::model::step::Command;
use akash_redis::plan::Plan;

use crate::scene::{NOW, Scene, commands, degraded, has_event, name, promoted, wait_for};

fn stopping(nodes: &[u32]) -> Scene {
    let mut scene = Scene::whole();
    for n in nodes {
        scene.node(*n, |v| v.state.stopping = true);
    }
    scene
}

fn target(plan: &Plan) -> Option<IncarnationName> {
    match &plan.record.change {
        Some(Change::Switchover(switchover)) => Some(switchover.target.clone()),
        _ => None,
    }
}

type Edit = fn(&mut Scene);

#[test]
fn a_master_that_is_stopped_hands_over_to_a_replica_that_stays() {
    let rows: [(&str, Edit, Option<u32>); 7] = [
        ("both may", |_| {}, Some(1)),
        ("the other is further", |s| s.node(2, |v| v.state.redis.offset = 101), Some(2)),
        ("the first is stopped too", |s| s.node(1, |v| v.state.stopping = true), Some(2)),
        ("its link is down", |s| s.node(1, |v| v.state.redis.link = Link::Down), Some(2)),
        ("it is not heard", |s| s.silent(1, 1), Some(2)),
        (
            "it is no candidate",
            |s| {
                s.attach(&[2]);
                s.incarnation(1).lower(Membership::Member);
            },
            Some(2),
        ),
        (
            "all are stopped",
            |s| {
                for n in 1..3 {
                    s.node(n, |v| v.state.stopping = true);
                }
            },
            None,
        ),
    ];
    for (what, edit, to) in rows {
        let mut scene = stopping(&[0]);
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(target(&plan), to.map(name), "{what}");
        let fenced = commands(&plan).contains(&(name(0), Command::Fence));
        assert_eq!(fenced, to.is_some(), "{what}");
        assert!(!has_event(&plan, EventReason::FailoverStarted), "{what}");
        let waits =
            wait_for(&plan, "takes over from cache-0-aaaa, whose container is being stopped");
        assert_eq!(waits.is_some(), to.is_none(), "{what}");
    }
}

#[test]
fn a_replica_that_is_stopped_is_not_made_master() {
    let mut scene = stopping(&[1]);
    assert_eq!(scene.plan(NOW).record.change, None, "nothing is to be done");
    scene.annotate(MASTER, name(1).0);
    let plan = scene.plan(NOW);
    assert_eq!((target(&plan), degraded(&plan).0), (None, Reason::SwitchoverWaiting));
    // Of two that have the same the one that stays.
    let mut failover = Scene::whole();
    failover.node(1, |v| v.state.stopping = true);
    failover.failing(NOW);
    failover.node(0, |v| v.state.redis.process = Process::Exited);
    failover.failover().fence = Some(akash_redis::model::change::Fence {
        how: "x".into(),
        at: akash_redis::model::time::UnixMs(NOW),
    });
    for n in 1..3 {
        failover.node(n, |v| {
            v.state.highest.epoch = 2;
            (v.state.redis.link, v.state.redis.silent_ms) = (Link::Down, 0);
            v.state.redis.master_host.clear();
        });
    }
    assert_eq!(promoted(&failover.plan(NOW)), [name(2)]);
    failover.node(1, |v| v.state.redis.offset = 101);
    assert_eq!(promoted(&failover.plan(NOW)), [name(1)], "what it has more is not given away");
}

#[test]
fn a_switchover_ends_when_its_target_is_stopped() {
    let mut scene = stopping(&[1]);
    scene.switching(1);
    scene.node(0, |v| (v.state.redis.fenced, v.state.highest.epoch) = (true, 2));
    scene.node(1, |v| v.state.redis.offset = 99);
    let plan = scene.plan(NOW);
    let told = plan.events.iter().find(|(r, _)| *r == EventReason::SwitchoverRolledBack);
    assert!(told.is_some_and(|(_, m)| m.contains("is being stopped itself")), "{:?}", plan.events);
    assert!(matches!(commands(&plan).first(), Some((n, Command::Unfence { .. })) if *n == name(0)));
}

#[test]
fn a_container_that_was_stopped_alarms_nobody_before_it_could_be_back() {
    for (seconds, said, alarms) in
        [(1, true, false), (9, true, false), (10, true, true), (1, false, true)]
    {
        let mut scene = Scene::whole();
        scene.node(2, |v| {
            (v.state.stopping, v.state.redis.process) = (said, Process::Exited);
        });
        scene.silent(2, seconds);
        let problems = scene.plan(NOW).status.problems;
        assert_eq!(
            problems.contains(&Reason::NodeUnreachable),
            alarms,
            "{seconds} s, said: {said}"
        );
    }
}
