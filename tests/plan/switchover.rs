//! A planned change of master: the rules of `plan/switchover.rs`.

use std::time::Duration;

use akash_redis::api::annotations::MASTER;
use akash_redis::api::conditions::Reason;
use akash_redis::api::events::EventReason;
use akash_redis::model::change::Change;
use akash_redis::model::incarnation::Membership;
use akash_redis::model::interval::Interval;
use akash_redis::model::node::{Link, Process, Role};
use akash_redis::model::record::Promotion;
use akash_redis::model::step::{Command, Quorum};
use akash_redis::plan::Plan;

use crate::scene::{NOW, Scene, commands, degraded, has_event, name, promoted, wait_for};

/// A target that was chosen for epoch 2 and not promoted yet.
fn chosen() -> Scene {
    let mut scene = Scene::whole();
    scene.switching(1);
    let before = scene.master().clone();
    scene.record.master = Some(Promotion {
        epoch: 2,
        incarnation: name(1),
        run_id: "run-1".into(),
        boot_id: "boot-1".into(),
        confirmed: false,
        ..before
    });
    scene.node(0, |v| (v.state.redis.fenced, v.state.highest.epoch) = (true, 2));
    scene
}

/// A promotion under the old epoch beside the new one could make it a master that nobody counts.
#[test]
fn a_choice_that_comes_to_nothing_is_not_promoted_once_more() {
    assert_eq!(promoted(&chosen().plan(NOW)), [name(1)]);
    let mut scene = chosen();
    scene.node(1, |v| v.state.redis.process = Process::Exited);
    let plan = scene.plan(NOW);
    assert!(
        has_event(&plan, EventReason::PromotionFailed) && plan.record.epoch == 3,
        "{:?}",
        plan.events
    );
    assert_eq!(promoted(&plan), []);
}

type Edit = fn(&mut Scene);

#[test]
fn a_switchover_begins_between_a_master_that_is_well_and_a_replica_in_sync() {
    let rows: [(&str, Edit, bool); 9] = [
        ("both are", |_| {}, true),
        ("the target's link is down", |s| s.node(1, |v| v.state.redis.link = Link::Down), false),
        ("it syncs", |s| s.node(1, |v| v.state.redis.link = Link::Syncing), false),
        ("it loads", |s| s.node(1, |v| v.state.redis.loading = true), false),
        ("it does not answer", |s| s.silent(1, 1), false),
        (
            "the master does not count it",
            |s| {
                s.attach(&[2]);
                s.incarnation(1).lower(Membership::Member);
            },
            false,
        ),
        ("the source does not answer", |s| s.silent(0, 1), false),
        ("asked for in this epoch", |s| s.annotate(MASTER, "cache-1-aaaa@1"), true),
        ("asked for in another one", |s| s.annotate(MASTER, "cache-1-aaaa@0"), false),
    ];
    for (what, edit, begins) in rows {
        let mut scene = Scene::whole();
        scene.annotate(MASTER, " cache-1-aaaa ");
        edit(&mut scene);
        let plan = scene.plan(NOW);
        let began = matches!(&plan.record.change, Some(Change::Switchover(_)));
        assert_eq!(
            (began, has_event(&plan, EventReason::SwitchoverStarted)),
            (begins, begins),
            "{what}"
        );
        let fenced = commands(&plan).contains(&(name(0), Command::Fence));
        assert_eq!((fenced, plan.record.epoch), (begins, 1 + u64::from(begins)), "{what}");
    }
    let mut scene = Scene::whole();
    scene.annotate(MASTER, name(1).0);
    scene.node(1, |v| v.state.redis.link = Link::Down);
    assert_eq!(degraded(&scene.plan(NOW)).0, Reason::SwitchoverWaiting);
    scene.annotate(MASTER, name(0).0);
    assert_eq!(scene.plan(NOW).record.change, None, "it is master already");
}

/// A switchover that began this many seconds ago: the source is fenced, the target has everything.
fn switching(seconds: u64) -> Scene {
    let mut scene = Scene::whole();
    scene.switching(seconds);
    scene.node(0, |v| (v.state.redis.fenced, v.state.highest.epoch) = (true, 2));
    scene
}

#[test]
fn the_target_is_promoted_when_the_source_is_fenced_and_it_has_everything() {
    let rows: [(&str, Edit, bool, bool); 8] = [
        ("it has", |_| {}, true, false),
        ("it has more", |s| s.node(1, |v| v.state.redis.offset = 101), true, false),
        ("it lacks a byte", |s| s.node(1, |v| v.state.redis.offset = 99), false, false),
        (
            "it has another history",
            |s| s.node(1, |v| v.state.redis.replid = "B".into()),
            false,
            false,
        ),
        ("it loads", |s| s.node(1, |v| v.state.redis.loading = true), false, false),
        ("it does not answer", |s| s.silent(1, 1), false, false),
        ("the source takes writes", |s| s.node(0, |v| v.state.redis.fenced = false), false, true),
        ("the source was fenced before", |s| s.node(0, |v| v.state.highest.epoch = 1), false, true),
    ];
    for (what, edit, promotes, fences) in rows {
        let mut scene = switching(1);
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(promoted(&plan) == [name(1)], promotes, "{what}");
        assert_eq!(commands(&plan).contains(&(name(0), Command::Fence)), fences, "{what}");
        let (until, then) = wait_for(&plan, "to have all that cache-0-aaaa wrote").expect("a wait");
        assert_eq!((until, then.as_str()), (Some(9), "the source takes writes again"), "{what}");
    }
    let mut silent = switching(1);
    silent.silent(0, 1);
    let plan = silent.plan(NOW);
    assert_eq!((promoted(&plan), commands(&plan)), (vec![], vec![]), "nobody knows what it wrote");
}

fn undoing(plan: &Plan) -> bool {
    matches!(&plan.record.change, Some(Change::Switchover(s)) if s.undo)
}

#[test]
fn a_switchover_that_takes_ten_seconds_is_undone_under_a_new_epoch() {
    let mut scene = switching(10);
    scene.node(1, |v| v.state.redis.offset = 99);
    let plan = scene.plan(NOW);
    assert!(undoing(&plan) && plan.record.epoch == 3);
    assert!(has_event(&plan, EventReason::SwitchoverRolledBack));
    let quorum = Quorum { min_replicas: 1, max_lag_seconds: 8 };
    assert_eq!(commands(&plan), [(name(0), Command::Unfence { quorum })]);
    assert_eq!(promoted(&scene.plan(NOW - 1)), []);
    assert!(!undoing(&scene.plan(NOW - 1)), "a moment before");
    // It obeyed: it is master of the new epoch.
    scene.record = plan.record;
    let again = scene.plan(NOW);
    assert_eq!(commands(&again), [(name(0), Command::Unfence { quorum })], "until it obeys");
    let rows: [(&str, Edit, bool); 4] = [
        ("it takes writes in the new epoch", |_| {}, true),
        ("it takes writes in the old one", |s| s.node(0, |v| v.state.highest.epoch = 2), false),
        ("it is fenced", |s| s.node(0, |v| v.state.redis.fenced = true), false),
        ("it takes writes in a later one", |s| s.node(0, |v| v.state.highest.epoch = 4), true),
    ];
    for (what, edit, settled) in rows {
        let mut scene = scene.clone();
        scene.node(0, |v| (v.state.redis.fenced, v.state.highest.epoch) = (false, 3));
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(plan.record.change.is_none(), settled, "{what}");
        let master = plan.record.master.unwrap();
        assert_eq!((master.epoch, master.confirmed), (if settled { 3 } else { 1 }, true), "{what}");
        assert_eq!(plan.record.data_epoch, master.epoch, "{what}");
        assert_eq!(master.incarnation, name(0), "{what}");
    }
    // It is silent: for downAfter it may come back.
    for (seconds, ends) in [(9, false), (10, true)] {
        let mut scene = scene.clone();
        scene.silent(0, seconds);
        let plan = scene.plan(NOW);
        assert_eq!(!undoing(&plan), ends, "{seconds} s");
    }
    scene.inventory.nodes.remove(&name(0));
    assert!(!undoing(&scene.plan(NOW)), "it was never heard");
}

#[test]
fn a_source_that_dies_meanwhile_is_a_failover() {
    let rows: [(&str, Edit, bool); 3] = [
        ("it lives", |_| {}, false),
        ("its redis exited", |s| s.node(0, |v| v.state.redis.process = Process::Exited), true),
        ("it is a replica", |s| s.node(0, |v| v.state.redis.role = Role::Replica), true),
    ];
    for (what, edit, dies) in rows {
        let mut scene = switching(1);
        scene.node(1, |v| v.state.redis.offset = 99);
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(has_event(&plan, EventReason::SwitchoverAborted), dies, "{what}");
        assert_eq!(plan.record.epoch, if dies { 3 } else { 2 }, "{what}");
    }
}

#[test]
fn a_switchover_ends_when_the_target_is_master() {
    let mut scene = chosen();
    scene.node(1, |v| {
        v.state.promoted = true;
        v.state.highest.epoch = 2;
        (v.state.redis.role, v.state.redis.fenced) = (Role::Master, false);
        (v.state.redis.min_replicas, v.state.redis.max_lag_seconds) = (1, 8);
    });
    let plan = scene.plan(NOW);
    assert!(!has_event(&plan, EventReason::SwitchoverCompleted), "it takes no write yet");
    assert_eq!((plan.record.change.clone(), plan.record.data_epoch), (None, 2));
    scene.record = plan.record;
    assert!(!has_event(&scene.plan(NOW), EventReason::SwitchoverCompleted), "nor now");
    scene.attach(&[2]);
    let plan = scene.plan(NOW);
    assert!(has_event(&plan, EventReason::SwitchoverCompleted));
    assert_eq!(plan.record.handover, None, "it is told once");
    assert_eq!(plan.measured, [(Interval::Switchover, Duration::from_secs(1))]);
    let took =
        plan.events.iter().any(|(_, m)| m.contains("took over from cache-0-aaaa in 1000 ms"));
    assert!(took, "{:?}", plan.events);
    // After its choice a deadline undoes nothing: it may have obeyed.
    let mut late = chosen();
    late.switching(60);
    let plan = late.plan(NOW);
    assert!(!undoing(&plan) && promoted(&plan) == [name(1)]);
}
