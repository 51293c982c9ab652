//! The target of a switchover takes over by itself: the rules of `plan/delegation.rs`, and how what
//! may have happened is found out.

use akash_redis::api::annotations::ACCEPT_LOSS;
use akash_redis::api::events::EventReason;
use akash_redis::model::change::{Change, Switchover};
use akash_redis::model::node::{Link, Process, Role};
use akash_redis::model::step::{Command, Quorum};
use akash_redis::model::time::UnixMs;
use akash_redis::plan::Plan;

use crate::scene::{NOW, Scene, commands, has_event, name, promoted};

const QUORUM: Quorum = Quorum { min_replicas: 1, max_lag_seconds: 8 };

fn switching(plan: &Plan) -> &Switchover {
    match &plan.record.change {
        Some(Change::Switchover(switchover)) => switchover,
        other => panic!("no switchover goes on: {other:?}"),
    }
}

fn fenced(scene: &mut Scene) {
    scene.node(0, |v| (v.state.redis.fenced, v.state.highest.epoch) = (true, 2));
}

/// The others hang on the target, and both agents know how.
fn ready() -> Scene {
    let mut scene = Scene::whole();
    scene.switching(0);
    (0..3).for_each(|n| {
        scene.node(n, |v| (v.state.admits, v.state.awaits) = (Some(0), Some(0)));
    });
    scene.node(1, |v| {
        (v.state.admits, v.state.highest.epoch) = (Some(2), 2);
        v.state.redis.link = Link::Up;
    });
    if let Some(Change::Switchover(s)) = &mut scene.record.change {
        s.fenced = None;
    }
    scene
}

/// The target was told, and says that it awaits the handover.
fn awaited() -> Scene {
    let mut scene = ready();
    scene.record = scene.plan(NOW).record;
    scene.node(1, |v| v.state.awaits = Some(2));
    scene
}

/// The source was told to hand over.
fn handing_over() -> Scene {
    let mut scene = awaited();
    scene.record = scene.plan(NOW).record;
    scene
}

/// It heard of it.
fn took_over(scene: &mut Scene) {
    scene.node(1, |v| {
        v.state.promoted = true;
        (v.state.highest.epoch, v.state.awaits) = (2, Some(0));
        (v.state.redis.role, v.state.redis.fenced) = (Role::Master, false);
        (v.state.redis.min_replicas, v.state.redis.max_lag_seconds) = (1, 8);
        v.state.redis.master_host.clear();
    });
}

#[test]
fn the_target_awaits_the_handover_before_writes_stand_still() {
    let scene = ready();
    let plan = scene.plan(NOW);
    let told = commands(&plan);
    let [(to, Command::AwaitHandover { quorum, planned: true, .. })] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert_eq!((to, *quorum), (&name(1), QUORUM));
    let delegated = switching(&plan).delegated.clone().expect("it is recorded before it is told");
    assert_eq!((delegated.epoch, delegated.at), (2, UnixMs(NOW)));
    assert!(switching(&plan).prepares(), "the source takes writes");

    let plan = awaited().plan(NOW + 40);
    assert_eq!(commands(&plan), [(name(0), Command::HandOver { to: name(1) })]);
    assert_eq!(switching(&plan).fenced, Some(UnixMs(NOW + 40)));
}

#[test]
fn where_it_is_not_known_the_target_is_promoted_by_command() {
    type Edit = fn(&mut Scene);
    let rows: [(&str, Edit); 3] = [
        ("the target's agent does not know", |s| s.node(1, |v| v.state.awaits = None)),
        ("the source's agent does not know", |s| s.node(0, |v| v.state.awaits = None)),
        ("it hangs on another", |s| s.node(1, |v| v.state.redis.master_host = "x.mesh".into())),
    ];
    for (what, edit) in rows {
        let mut scene = ready();
        edit(&mut scene);
        assert_eq!(commands(&scene.plan(NOW)), [(name(0), Command::Fence)], "{what}");
    }
    // It was told, and says nothing.
    let mut scene = ready();
    scene.record = scene.plan(NOW).record;
    let again = commands(&scene.plan(NOW + 999));
    assert!(matches!(again.as_slice(), [(_, Command::AwaitHandover { .. })]), "{again:?}");
    let plan = scene.plan(NOW + 1000);
    assert_eq!(commands(&plan), [(name(0), Command::Fence)]);
    scene.record = plan.record;
    fenced(&mut scene);
    assert_eq!(promoted(&scene.plan(NOW + 1100)), [name(1)]);
    // It awaited the handover, and did not hear of it in time.
    let mut scene = handing_over();
    fenced(&mut scene);
    assert_eq!(promoted(&scene.plan(NOW + 100)), [], "it hears of it");
    scene.node(1, |v| v.state.awaits = Some(0));
    assert_eq!(promoted(&scene.plan(NOW + 2100)), [name(1)]);
}

#[test]
fn a_target_that_took_over_is_the_master_at_once() {
    for source_says in [true, false] {
        let mut scene = handing_over();
        if source_says {
            fenced(&mut scene);
        }
        took_over(&mut scene);
        let plan = scene.plan(NOW + 50);
        let master = plan.record.master.as_ref().unwrap();
        assert_eq!((&master.incarnation, master.epoch, master.confirmed), (&name(1), 2, true));
        assert_eq!((master.quorum, plan.record.data_epoch), (Some(QUORUM), 2));
        assert!(plan.record.change.is_none() && has_event(&plan, EventReason::MasterPromoted));
        assert_eq!(promoted(&plan), [], "nobody need tell it");
    }
}

/// The target may have heard of it before.
#[test]
fn a_source_that_dies_in_between_is_replaced_once_the_target_has_said_what_it_is() {
    let mut scene = handing_over();
    scene.node(0, |v| v.state.redis.process = Process::Exited);
    let plan = scene.plan(NOW + 50);
    assert_eq!(commands(&plan), [(name(1), Command::Fence)], "which ends it under a new epoch");
    assert_eq!((plan.record.epoch, switching(&plan).undo), (3, true));
    scene.record = plan.record;
    scene.node(1, |v| (v.state.highest.epoch, v.state.awaits) = (3, Some(0)));

    let mut is_replica = scene.clone();
    let plan = is_replica.plan(NOW + 100);
    assert!(has_event(&plan, EventReason::SwitchoverAborted));
    is_replica.record = plan.record;
    let plan = is_replica.plan(NOW + 100);
    assert!(matches!(plan.record.change, Some(Change::Failover(_))));

    let mut is_master = scene;
    is_master.node(1, |v| {
        (v.state.redis.role, v.state.redis.fenced) = (Role::Master, true);
        v.state.redis.master_host.clear();
    });
    let plan = is_master.plan(NOW + 100);
    assert_eq!(promoted(&plan), [name(1)], "it took writes of epoch 2: nobody else has them");
    assert_eq!(plan.record.master.as_ref().map(|m| m.epoch), Some(3));
}

#[test]
fn the_source_takes_writes_again_only_after_the_target_said_that_it_will_not() {
    let mut scene = handing_over();
    fenced(&mut scene);
    let late = NOW + 10_000;
    let plan = scene.plan(late);
    assert_eq!(commands(&plan), [(name(1), Command::Fence)]);
    scene.record = plan.record;
    let unfenced =
        |plan: &Plan| commands(plan).contains(&(name(0), Command::Unfence { quorum: QUORUM }));
    assert!(!unfenced(&scene.plan(late + 100)));
    scene.node(1, |v| (v.state.highest.epoch, v.state.awaits) = (3, Some(0)));
    assert!(unfenced(&scene.plan(late + 200)));
}

#[test]
fn a_target_that_is_lost_before_it_said_so_counts_as_the_master() {
    for exited in [true, false] {
        let mut scene = handing_over();
        fenced(&mut scene);
        if exited {
            scene.node(1, |v| v.state.redis.process = Process::Exited);
        } else {
            scene.silent(1, 12);
        }
        let plan = scene.plan(NOW + 10_000);
        scene.record = plan.record;
        let plan = scene.plan(NOW + 10_000);
        let told = commands(&plan);
        let unfenced = told.iter().any(|(_, c)| matches!(c, Command::Unfence { .. }));
        assert!(!unfenced, "exited: {exited}; {told:?}");
        assert!(
            matches!(plan.record.change, Some(Change::Failover(_)))
                || plan.record.master.as_ref().is_some_and(|m| m.incarnation == name(1)),
            "exited: {exited}; {plan:#?}"
        );
    }
}

/// It is the only one who knows the word.
#[test]
fn a_source_that_was_not_told_to_hand_over_goes_on_at_once() {
    let mut scene = awaited();
    scene.silent(1, 1);
    let plan = scene.plan(NOW + 10_000);
    let told = commands(&plan);
    assert_eq!(told, [(name(0), Command::Unfence { quorum: QUORUM })]);
    assert_eq!(switching(&plan).delegated, None);
}

#[test]
fn a_source_that_may_take_writes_is_fenced_before_a_lost_target_counts_as_the_master() {
    let mut scene = handing_over();
    scene.silent(1, 12);
    let plan = scene.plan(NOW + 10_000);
    assert_eq!(commands(&plan), [(name(0), Command::Fence)]);
    assert_eq!(plan.record.master.as_ref().map(|m| &m.incarnation), Some(&name(0)));
    scene.record = plan.record;
    scene.node(0, |v| (v.state.redis.fenced, v.state.highest.epoch) = (true, 3));
    let plan = scene.plan(NOW + 10_100);
    assert_eq!(plan.record.master.as_ref().map(|m| &m.incarnation), Some(&name(1)));
}

#[test]
fn where_both_fell_silent_nobody_guesses() {
    let mut scene = handing_over();
    scene.silent(0, 12);
    scene.silent(1, 12);
    let plan = scene.plan(NOW + 10_000);
    scene.record = plan.record;
    for later in [10_000, 600_000] {
        let plan = scene.plan(NOW + later);
        assert_eq!(commands(&plan), []);
        assert!(switching(&plan).delegated.is_some());
        let said = format!("{:?}", plan.status.conditions);
        assert!(said.contains("nobody else knows which of them is master"), "{said}");
    }
    scene.annotate(ACCEPT_LOSS, "3");
    let plan = scene.plan(NOW + 600_000);
    assert_eq!(plan.record.master.as_ref().map(|m| &m.incarnation), Some(&name(1)));
    assert!(!matches!(plan.record.change, Some(Change::Switchover(_))), "a person said so");
}

/// Whoever waits is told of it before it is planned: as exactly as a plan would say it.
#[test]
fn a_takeover_is_expected_from_the_handover_on_and_seen_in_that_process_alone() {
    assert_eq!(ready().plan(NOW).takeover, None, "the source takes writes");
    let plan = awaited().plan(NOW + 40);
    let takeover = plan.takeover.expect("the source is told to hand over");
    assert_eq!((&takeover.target, takeover.delegated.epoch), (&name(1), 2));
    let mut scene = handing_over();
    fenced(&mut scene);
    assert_eq!(scene.plan(NOW + 50).takeover.as_ref(), Some(&takeover), "it is on its way");
    let seen = |scene: &mut Scene| {
        let mut seen = false;
        scene.node(1, |view| seen = takeover.is_seen_in(view));
        seen
    };
    assert!(!seen(&mut scene));
    let others: [(&str, fn(&mut Scene)); 5] = [
        ("it takes no writes yet", |s| s.node(1, |v| v.state.redis.fenced = true)),
        ("it is another process", |s| s.node(1, |v| v.state.redis.run_id = "other".into())),
        ("a higher epoch has reached it", |s| s.node(1, |v| v.state.highest.epoch = 3)),
        ("it is master of an earlier epoch", |s| s.node(1, |v| v.state.highest.epoch = 1)),
        ("nobody hears it", |s| s.node(1, |v| v.connected = false)),
    ];
    for (what, edit) in others {
        let mut scene = handing_over();
        took_over(&mut scene);
        edit(&mut scene);
        assert!(!seen(&mut scene), "{what}");
    }
    took_over(&mut scene);
    assert!(seen(&mut scene));
    let plan = scene.plan(NOW + 60);
    assert_eq!(
        plan.status.master,
        Some(takeover.endpoint.clone()),
        "what was told is what follows"
    );
    assert_eq!(plan.takeover, None);
    let mut undone = handing_over();
    if let Some(Change::Switchover(s)) = &mut undone.record.change {
        (s.undo, s.epoch) = (true, 3);
    }
    undone.record.epoch = 3;
    assert_eq!(undone.plan(NOW + 50).takeover, None, "it is not to take over any more");
}
