//! Replicas are attached to the master to be before the one that is fenced: the rules of
//! `plan/chain.rs`, and what of it is undone.

use akash_redis::api::annotations::MASTER;
use akash_redis::api::conditions::Reason;
use akash_redis::api::events::EventReason;
use akash_redis::api::types::Durability;
use akash_redis::model::change::{Change, Switchover};
use akash_redis::model::incarnation::Membership;
use akash_redis::model::node::{Authority, Link, Process, Role};
use akash_redis::model::step::{Command, Quorum, ReplicationGrant};
use akash_redis::model::time::UnixMs;
use akash_redis::plan::Plan;

use crate::scene::{
    NOW, Scene, commands, configured, detached, failing_over, has_event, name, promoted, replica,
    wait_for,
};

/// A cluster whose agents know how, and a person who wants node 1 to be master.
fn asked() -> Scene {
    let mut scene = Scene::whole();
    (0..3).for_each(|n| scene.node(n, |v| v.state.admits = Some(0)));
    scene.annotate(MASTER, name(1).0);
    scene
}

fn grant(n: u32, epoch: u64) -> ReplicationGrant {
    ReplicationGrant { incarnation: name(n), epoch }
}

fn switching(plan: &Plan) -> &Switchover {
    match &plan.record.change {
        Some(Change::Switchover(switchover)) => switchover,
        other => panic!("no switchover goes on: {other:?}"),
    }
}

/// The target lets the others attach, and node 2 let go of the source at this offset.
fn let_go(offset: i64) -> Scene {
    let mut scene = asked();
    scene.record = scene.plan(NOW).record;
    // Asked for once.
    scene.cluster.metadata.annotations.clear();
    scene.node(1, |v| (v.state.admits, v.state.highest.epoch) = (Some(2), 2));
    scene.heard(2, detached(2, |s| (s.admits, s.redis.offset) = (Some(0), offset)));
    scene.attach(&[1]);
    scene
}

/// It hangs on the target.
fn hangs(scene: &mut Scene) {
    scene.node(2, |v| {
        v.state.redis.link = Link::Up;
        v.state.redis.master_host = format!("{}.mesh", name(1));
    });
}

#[test]
fn the_others_are_attached_to_the_target_before_the_source_is_fenced() {
    let mut scene = asked();
    let plan = scene.plan(NOW);
    let admit = Command::Admit { replicas: vec![grant(0, 2), grant(2, 2)] };
    assert_eq!(commands(&plan), [(name(1), admit)], "nobody is fenced");
    assert_eq!(plan.record.epoch, 2);
    assert_eq!(
        plan.record.incarnations[&name(2)].membership,
        Membership::Member,
        "written before it lets go: it is no candidate any more"
    );
    scene.record = plan.record;
    scene.node(1, |v| (v.state.admits, v.state.highest.epoch) = (Some(2), 2));
    let plan = scene.plan(NOW);
    assert_eq!(commands(&plan), [(name(2), Command::Detach { drain_ms: 0 })]);
    let (until, _) = wait_for(&plan, "to follow cache-1-aaaa").expect("a wait");
    assert_eq!(until, Some(10));

    let ahead = let_go(101);
    assert_eq!(commands(&ahead.plan(NOW)), [], "the target would copy everything to it");
    let mut scene = let_go(100);
    let plan = scene.plan(NOW);
    let follow = Command::Follow {
        master: name(1),
        master_name: format!("{}.mesh", name(1)),
        grant: grant(2, 2),
        save_first: false,
        data_epoch: 1,
    };
    assert_eq!(commands(&plan), [(name(2), follow)]);
    scene.node(2, |v| v.state.redis.master_host = format!("{}.mesh", name(1)));
    assert_eq!(commands(&scene.plan(NOW)), [], "it is told once");
    hangs(&mut scene);
    let plan = scene.plan(NOW + 700);
    assert_eq!(commands(&plan), [(name(0), Command::Fence)]);
    let fencing = switching(&plan);
    let (fenced, deadline) = (Some(UnixMs(NOW + 700)), UnixMs(NOW + 10_700));
    assert_eq!((fencing.fenced, fencing.deadline), (fenced, deadline), "writes stand still now");

    // All of it is there: the target is promoted, and what hangs on it is told who is master.
    scene.record = plan.record;
    scene.node(0, |v| (v.state.redis.fenced, v.state.highest.epoch) = (true, 2));
    let plan = scene.plan(NOW + 800);
    assert_eq!(promoted(&plan), [name(1)]);
    scene.record = plan.record;
    scene.node(1, |v| {
        v.state.promoted = true;
        (v.state.admits, v.state.redis.role, v.state.redis.fenced) = (Some(0), Role::Master, false);
        (v.state.redis.min_replicas, v.state.redis.max_lag_seconds) = (1, 8);
        v.state.redis.master_host.clear();
    });
    let plan = scene.plan(NOW + 900);
    assert!(!has_event(&plan, EventReason::SwitchoverCompleted), "nobody is attached yet");
    scene.record = plan.record;
    scene.attach(&[2]);
    let plan = scene.settle(NOW + 1000);
    let told = |plan: &Plan| {
        commands(plan).into_iter().any(|(n, command)| {
            n == name(2) && matches!(command, Command::Follow { data_epoch: 0, .. })
        })
    };
    assert!(told(&plan) || !configured(&plan).is_empty(), "{:?}", commands(&plan));
}

type Edit = fn(&mut Scene);

#[test]
fn the_target_is_made_ready_before_the_fence_also_where_nobody_can_be_attached() {
    let target = [name(1)];
    let rows: [(&str, Edit, bool, bool); 7] = [
        ("all can", |_| {}, true, true),
        ("the source is being stopped", |s| s.node(0, |v| v.state.stopping = true), true, true),
        ("the target's agent cannot", |s| s.node(1, |v| v.state.admits = None), false, false),
        ("the other's agent cannot", |s| s.node(2, |v| v.state.admits = None), true, false),
        ("the other does not answer", |s| s.silent(2, 1), true, false),
        (
            "the source needs two for a write",
            |s| {
                s.node(0, |v| v.state.redis.min_replicas = 2);
                s.master().quorum = Some(Quorum { min_replicas: 2, max_lag_seconds: 8 });
            },
            true,
            false,
        ),
        ("there is no other", |s| s.only(2), true, false),
    ];
    for (what, edit, admits, chained) in rows {
        let mut scene = asked();
        edit(&mut scene);
        let plan = scene.plan(NOW);
        let said = commands(&plan);
        let fenced = said.contains(&(name(0), Command::Fence));
        let told: Vec<_> = said
            .iter()
            .filter(|(_, command)| matches!(command, Command::Admit { .. }))
            .map(|(name, _)| name.clone())
            .collect();
        let expected: &[_] = if admits { &target } else { &[] };
        assert_eq!((fenced, told.as_slice()), (!admits, expected), "{what}");
        assert_eq!(switching(&plan).prepares(), admits, "{what}");
        assert_eq!(!switching(&plan).chained.is_empty(), chained, "{what}");
    }
}

/// The target is one of those that stay; the others need not be there for a write to count.
#[test]
fn the_source_keeps_as_many_replicas_as_a_write_needs() {
    let confirmed = |needed: u32| {
        let mut scene = asked();
        let (old, view) = (scene.record.incarnations[&name(2)].clone(), replica(2, 1, |_| {}));
        for n in 3..5 {
            let mut own = old.clone();
            (own.ordinal, own.dseq, own.device, own.lease) = (n, 100 + u64::from(n), None, None);
            scene.record.incarnations.insert(name(n), own);
            let mut view = view.clone();
            (view.state.incarnation, view.state.redis.run_id) = (name(n).0, format!("run-{n}"));
            view.state.mesh.dns_name = format!("{}.mesh", name(n));
            view.state.admits = Some(0);
            scene.inventory.nodes.insert(name(n), view);
        }
        let spec = &mut scene.cluster.spec;
        (spec.nodes, spec.durability, spec.confirmations) =
            (5, Durability::Confirmed, Some(needed));
        scene.attach(&[1, 2, 3, 4]);
        scene.node(0, |v| v.state.redis.min_replicas = needed);
        scene.master().quorum = Some(Quorum { min_replicas: needed, max_lag_seconds: 8 });
        scene
    };
    let rows = [(1, vec![name(2), name(3), name(4)]), (2, vec![name(2), name(3)]), (4, vec![])];
    for (needed, chained) in rows {
        let plan = confirmed(needed).plan(NOW);
        assert_eq!(switching(&plan).chained, chained, "{needed}");
        let stays = |n: u32| plan.record.incarnations[&name(n)].is_candidate();
        assert!((1..5).all(|n| stays(n) != chained.contains(&name(n))), "{needed}");
    }
    // More are wanted, and the master does not know it yet.
    let mut raised = confirmed(1);
    raised.cluster.spec.confirmations = Some(4);
    assert_eq!(switching(&raised.plan(NOW)).chained, []);
}

#[test]
fn a_chain_that_breaks_is_taken_apart_and_the_source_goes_on() {
    let rows: [(&str, Edit, bool); 6] = [
        ("all is well", |_| {}, false),
        ("the target lost the source", |s| s.node(1, |v| v.state.redis.link = Link::Down), true),
        ("it is silent", |s| s.silent(1, 1), true),
        ("its redis exited", |s| s.node(1, |v| v.state.redis.process = Process::Exited), true),
        ("the source is silent", |s| s.silent(0, 1), true),
        ("the other is silent", |s| s.silent(2, 1), false),
    ];
    for (what, edit, broken) in rows {
        let mut scene = let_go(100);
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(switching(&plan).undo, broken, "{what}");
        assert_eq!(plan.record.epoch, if broken { 3 } else { 2 }, "{what}");
        assert_eq!(has_event(&plan, EventReason::SwitchoverRolledBack), broken, "{what}");
    }
    // The source takes writes under the new epoch, and both are told to follow it by the leave that
    // is in use.
    let mut scene = let_go(100);
    scene.node(1, |v| v.state.redis.link = Link::Down);
    scene.record = scene.plan(NOW).record;
    scene.node(1, |v| v.state.redis.link = Link::Up);
    scene.node(0, |v| v.state.highest = Authority { term: 1, epoch: 3 });
    let plan = scene.settle(NOW);
    assert_eq!((plan.record.granted, plan.record.data_epoch), (1, 3));
    let followed: Vec<_> = commands(&plan)
        .into_iter()
        .filter_map(|(n, command)| match command {
            Command::Follow { master, grant, .. } => Some((n, master, grant.epoch)),
            _ => None,
        })
        .collect();
    assert_eq!(followed, [(name(1), name(0), 1), (name(2), name(0), 1)]);
    let master = configured(&plan).into_iter().find(|(n, _)| n == &name(0));
    assert_eq!(master, None, "nobody's leave is replaced");
}

#[test]
fn a_chain_that_takes_too_long_does_not_keep_the_target_from_taking_over() {
    let scene = let_go(101);
    assert!(switching(&scene.plan(NOW + 9_999)).prepares());
    let plan = scene.plan(NOW + 10_000);
    assert!(!switching(&plan).prepares());
    assert!(commands(&plan).contains(&(name(0), Command::Fence)));
}

/// What hangs on the target has at most its data: it is neither a candidate nor what keeps the
/// source alive.
#[test]
fn a_source_that_dies_while_others_hang_on_the_target_is_replaced_by_the_target() {
    let mut scene = let_go(100);
    hangs(&mut scene);
    scene.node(0, |v| v.state.redis.process = Process::Exited);
    let plan = scene.plan(NOW);
    let failover = failing_over(&plan).expect("a failover");
    assert_eq!(failover.epoch, 4, "some were told of a master of epoch 2");
    let eligible: Vec<_> = failover.eligible.iter().map(|e| &e.incarnation).collect();
    assert_eq!(eligible, [&name(1)]);
    let detached = commands(&plan).into_iter().filter(|(_, c)| matches!(c, Command::Detach { .. }));
    assert_eq!(detached.map(|(n, _)| n).collect::<Vec<_>>(), [name(1), name(2)]);
}

/// Whoever hangs on the target confirmed writes before it let go: it is asked for them like the target,
/// and must answer.
#[test]
fn who_hangs_on_the_target_is_asked_for_what_it_confirmed() {
    let rows: [(&str, Edit, bool); 4] = [
        ("it answers, as the process that was in sync", |_| {}, true),
        ("it is silent", |s| s.silent(2, 1), false),
        ("another process of it answers", |s| s.node(2, |v| v.state.redis.online_epoch = 0), false),
        (
            "the change was undone, and it was not told yet to follow the source again",
            |s| {
                (s.record.change, s.record.epoch, s.record.data_epoch) = (None, 3, 3);
                (s.record.granted, s.master().epoch) = (1, 3);
            },
            true,
        ),
    ];
    for (what, edit, goes_on) in rows {
        let mut scene = let_go(100);
        scene.cluster.spec.durability = Durability::Confirmed;
        hangs(&mut scene);
        edit(&mut scene);
        scene.node(0, |v| v.state.redis.process = Process::Exited);
        let plan = scene.settle(NOW);
        assert_eq!(failing_over(&plan).is_some(), goes_on, "{what}");
        let blocked = plan.status.problems.contains(&Reason::ConfirmedWritesAtRisk);
        assert_eq!(blocked, !goes_on, "{what}");
    }
}

#[test]
fn a_replica_that_hangs_on_another_does_not_say_that_the_master_lives() {
    let mut scene = let_go(100);
    hangs(&mut scene);
    scene.record.change = None;
    scene.silent(0, 10);
    scene.node(1, |v| {
        v.state.redis.silent_ms = 10_000;
        v.state.redis.link = Link::Down;
    });
    assert!(failing_over(&scene.plan(NOW)).is_some());
    scene.node(2, |v| v.state.redis.master_host = format!("{}.mesh", name(0)));
    assert!(failing_over(&scene.plan(NOW)).is_none(), "it hears the master itself");
}

/// The switchover was undone before: its replicas stay linked by the leave that they have.
#[test]
fn whoever_stays_master_under_a_new_epoch_replaces_no_leave_in_use() {
    let mut scene = Scene::whole();
    scene.switching(10);
    scene.node(0, |v| (v.state.redis.fenced, v.state.highest.epoch) = (true, 2));
    scene.node(1, |v| v.state.redis.offset = 99);
    scene.record = scene.plan(NOW).record;
    scene.node(0, |v| (v.state.redis.fenced, v.state.highest.epoch) = (false, 3));
    let plan = scene.settle(NOW);
    assert_eq!((plan.record.master.as_ref().unwrap().epoch, plan.record.granted), (3, 1));
    assert_eq!(configured(&plan), []);
    let grants: Vec<_> = commands(&plan)
        .into_iter()
        .map(|(n, command)| match command {
            Command::Follow { grant, .. } => (n, grant.epoch),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(grants, [(name(1), 1), (name(2), 1)], "the same leave, under the new epoch");

    // In between they count: the very process that they were online with is master still.
    scene.node(0, |v| v.state.redis.process = Process::Exited);
    let plan = scene.plan(NOW);
    assert_eq!(failing_over(&plan).map(|f| f.eligible.len()), Some(2));
    assert_eq!(failing_over(&plan).map(|f| f.epoch), Some(4));

    // Another process, or one that was demoted in between, gives new leave.
    let rows: [(&str, Edit, u64); 3] = [
        ("it was master all the time", |_| {}, 1),
        ("its redis was started again", |s| s.node(0, |v| v.state.redis.run_id = "b".into()), 0),
        ("it was demoted", |s| s.node(0, |v| v.state.redis.role = Role::Replica), 0),
    ];
    for (what, edit, granted) in rows {
        let mut scene = Scene::whole();
        scene.record.epoch = 2;
        edit(&mut scene);
        let plan = scene.plan(NOW);
        if granted > 0 {
            assert_eq!(plan.record.granted, granted, "{what}");
            assert!(has_event(&plan, EventReason::MasterRetained), "{what}");
        } else {
            assert_eq!(plan.record.granted, 0, "{what}");
        }
    }
}

/// In a failover the others attach while the chosen one is being promoted.
#[test]
fn the_others_need_not_wait_for_the_promotion_of_a_failover() {
    let early = |edit: Edit| {
        let mut scene = Scene::three();
        scene.failing(NOW - 100).fence =
            Some(akash_redis::model::change::Fence { how: "x".into(), at: UnixMs(NOW) });
        scene.node(0, |v| v.state.redis.process = Process::Exited);
        scene.failover().detached_at = [(name(1), UnixMs(NOW)), (name(2), UnixMs(NOW))].into();
        scene.heard(1, detached(1, |s| s.admits = Some(0)));
        scene.heard(2, detached(2, |s| (s.admits, s.redis.offset) = (Some(0), 99)));
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(promoted(&plan), [name(1)]);
        let follow = commands(&plan).into_iter().find(|(n, _)| n == &name(2));
        follow.map(|(_, command)| command)
    };
    let follow = Command::Follow {
        master: name(1),
        master_name: format!("{}.mesh", name(1)),
        grant: grant(2, 2),
        save_first: false,
        data_epoch: 1,
    };
    assert_eq!(early(|_| {}), Some(follow), "as one that stands for the old master's data");
    assert_eq!(early(|s| s.node(2, |v| v.state.admits = None)), None, "it would ask once a second");
    assert_eq!(early(|s| s.node(2, |v| v.state.redis.replid = "B".into())), None);
}
