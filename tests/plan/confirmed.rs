//! `durability: confirmed`: a write that enough replicas have is lost in no failover.

use akash_redis::api::annotations::ACCEPT_LOSS;
use akash_redis::api::conditions::Reason;
use akash_redis::api::events::EventReason;
use akash_redis::api::types::Durability;
use akash_redis::model::incarnation::{Admitted, Incarnation, Membership};
use akash_redis::model::node::{Link, Process, Role};
use akash_redis::model::record::{Confirmations, Raise};
use akash_redis::model::step::Quorum;
use akash_redis::plan::Plan;

use crate::scene::{
    NOW, Scene, condemned, configured, degraded, detached, detaches, failing_over, has_event,
    history, name, promoted, replica,
};

type Edit = fn(&mut Scene);

fn confirmed(mut scene: Scene) -> Scene {
    scene.cluster.spec.durability = Durability::Confirmed;
    scene
}

/// The master's redis exited and does not come back: a fence is there, and only the count decides.
fn dead() -> Scene {
    let mut scene = confirmed(Scene::three());
    scene.node(0, |v| v.state.redis.process = Process::Exited);
    scene
}

/// Another replica was given up; that its master does not let it in any more is not known yet.
fn leaver(scene: &mut Scene) -> &mut Incarnation {
    let mut gone = scene.record.incarnations[&name(2)].clone();
    (gone.dseq, gone.condemned, gone.device) = (103, condemned(5), None);
    gone.lower(Membership::Member);
    scene.record.incarnations.insert(name(3), gone);
    scene.incarnation(3)
}

/// This is among what is wrong.
fn wrong(plan: &Plan, reason: Reason) -> bool {
    plan.status.problems.contains(&reason)
}

fn needs(min_replicas: u32) -> Quorum {
    Quorum { min_replicas, max_lag_seconds: 8 }
}

/// One of the replicas that are asked has each write that `min-replicas` of all confirmed.
#[test]
fn a_failover_begins_when_a_confirmed_write_is_on_one_of_those_that_answer() {
    let silent: Edit = |s| s.silent(2, 1);
    let let_in: Edit = |s| {
        let admitted = Admitted { epoch: 1, run_id: "run-2".into() };
        s.incarnation(2).admitted = Some(admitted);
        s.incarnation(2).lower(Membership::Member);
        s.node(2, |v| {
            (v.state.redis.online_epoch, v.state.redis.link) = (0, Link::Syncing);
            v.state.redis.replid = "its own".into();
        });
    };
    let rows: [(&str, &[Edit], bool); 15] = [
        ("both replicas answer", &[], true),
        ("one does not, and it may be the one that confirmed", &[silent], false),
        (
            "one does not, and two had to confirm",
            &[silent, |s| s.cluster.spec.confirmations = Some(2)],
            true,
        ),
        (
            "another process of one answers, which may lack what the first one confirmed",
            &[|s| s.node(2, |v| v.state.redis.online_epoch = 0)],
            false,
        ),
        ("one that was given up may have confirmed", &[|s| leaver(s).left_offset = None], false),
        (
            "one that was given up left, and others have all that it confirmed",
            &[|s| {
                leaver(s).lower(Membership::Joined);
            }],
            true,
        ),
        (
            "two have to confirm now, and one was enough before",
            &[silent, |s| {
                s.cluster.spec.confirmations = Some(2);
                s.record.confirmations = Some(Confirmations { counted: 1, raise: None });
            }],
            false,
        ),
        (
            "one is enough now, and two had to confirm before",
            &[silent, |s| s.record.confirmations = Some(Confirmations { counted: 2, raise: None })],
            false,
        ),
        ("one that never ended its first sync confirmed nothing", &[let_in], true),
        (
            "another process of it may have",
            &[let_in, |s| s.node(2, |v| v.state.redis.run_id = "again".into())],
            false,
        ),
        (
            "its own may have, and copies the data anew",
            &[let_in, |s| s.node(2, |v| v.state.redis.replid = "A".into())],
            false,
        ),
        (
            "one lost the master long before, and still has what it confirmed",
            &[|s| {
                s.node(2, |v| (v.state.redis.silent_ms, v.state.redis.offset) = (60_000, 90));
                s.node(1, |v| v.state.redis.offset = 101);
            }],
            true,
        ),
        (
            "and is of another lineage",
            &[|s| {
                s.node(2, |v| (v.state.redis.silent_ms, v.state.redis.offset) = (60_000, 90));
                s.node(2, |v| v.state.redis.replid = "B".into());
            }],
            false,
        ),
        ("a person accepted the loss", &[silent, |s| s.annotate(ACCEPT_LOSS, "1")], true),
        (
            "no confirmed write was promised",
            &[silent, |s| s.cluster.spec.durability = Durability::Async],
            true,
        ),
    ];
    for (what, edits, begins) in rows {
        let mut scene = dead();
        edits.iter().for_each(|edit| edit(&mut scene));
        let plan = scene.plan(NOW);
        assert_eq!(failing_over(&plan).is_some(), begins, "{what}");
        if !begins {
            let message = degraded(&plan).1;
            assert!(wrong(&plan, Reason::ConfirmedWritesAtRisk), "{what}: {message}");
            assert!(message.contains("akash-redis failover cache --accept-loss"), "{message}");
            assert!(detaches(&plan).is_empty(), "{what}: nothing is touched");
            assert_eq!(plan.record.epoch, 1, "{what}");
        }
    }
}

/// Whoever fell out after the count counts no more.
#[test]
fn nobody_is_chosen_when_too_few_are_left_in_the_middle_of_a_failover() {
    let rows: [(&str, Edit, bool); 5] = [
        ("both stand still", |_| {}, true),
        ("one fell silent", |s| s.silent(2, 5), false),
        (
            "another process of one answers",
            |s| {
                s.node(2, |v| {
                    (v.state.redis.run_id, v.state.redis.online_epoch) = ("other".into(), 0);
                });
            },
            false,
        ),
        (
            "one claims more than anybody can have",
            |s| s.node(2, |v| v.state.redis.offset = 1 << 40),
            false,
        ),
        (
            "one fell silent, and a person accepted the loss",
            |s| {
                s.silent(2, 5);
                s.annotate(ACCEPT_LOSS, "2");
            },
            true,
        ),
    ];
    for (what, edit, chosen) in rows {
        let mut scene = confirmed(Scene::three());
        scene.fenced();
        scene.failover().confirmers = vec![name(1), name(2)];
        for n in [1, 2] {
            scene.heard(n, detached(n, |_| {}));
        }
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(has_event(&plan, EventReason::MasterElected), chosen, "{what}");
        if !chosen {
            assert!(wrong(&plan, Reason::ConfirmedWritesAtRisk), "{what}");
        }
    }
}

/// A former replica may be the only one that confirmed a write; until others have it too it counts.
#[test]
fn one_that_leaves_counts_until_others_have_what_it_confirmed() {
    let leaving = |offsets: [i64; 2], left: Option<i64>| {
        let mut scene = confirmed(Scene::whole());
        scene.configure();
        leaver(&mut scene).left_offset = left;
        for (n, offset) in [(1, offsets[0]), (2, offsets[1])] {
            scene.node(n, |v| v.state.redis.offset = offset);
        }
        let plan = scene.plan(NOW);
        let left = &plan.record.incarnations[&name(3)];
        (left.membership, left.left_offset)
    };
    let member = |offset| (Membership::Member, Some(offset));
    assert_eq!(leaving([99, 98], None), member(100), "the master's offset is kept");
    assert_eq!(leaving([99, 89], Some(90)).0, Membership::Joined, "one is past it");
    assert_eq!(leaving([89, 88], Some(90)), member(90), "the first offset stays");
    assert_eq!(leaving([100, 98], None).0, Membership::Joined);
}

#[test]
fn a_write_needs_as_many_replicas_as_are_to_confirm_it() {
    for (nodes, confirmations, wanted) in
        [(3, None, None), (3, Some(2), Some(2)), (5, None, Some(2))]
    {
        let mut scene = confirmed(Scene::whole());
        scene.cluster.spec.nodes = nodes;
        scene.cluster.spec.confirmations = confirmations;
        let told = configured(&scene.plan(NOW)).into_iter().find(|(n, _)| *n == name(0));
        assert_eq!(told.map(|(_, s)| s.quorum.min_replicas), wanted, "{nodes} {confirmations:?}");
    }
}

/// With two nodes an unconfirmed write is refused, where `async` goes on alone.
#[test]
fn a_master_of_two_that_lost_its_replica_does_not_go_on_alone() {
    for (durability, alone) in [(Durability::Async, true), (Durability::Confirmed, false)] {
        let mut scene = Scene::whole();
        scene.only(2);
        scene.cluster.spec.durability = durability;
        scene.node(0, |v| v.state.redis.replicas.clear());
        scene.node(1, |v| v.state.redis.link = Link::Down);
        let plan = scene.plan(NOW);
        let candidate = plan.record.incarnations[&name(1)].is_candidate();
        let quorum = plan.record.master.as_ref().and_then(|p| p.quorum);
        assert_eq!((candidate, quorum), (!alone, Some(needs(u32::from(!alone)))), "{durability:?}");
    }
}

/// The master's lease is gone with all that it and a lost replica alone had.
#[test]
fn a_cold_start_waits_for_a_persons_word() {
    let scene = || {
        let mut scene = confirmed(Scene::whole());
        scene.record.master = None;
        scene.record.epoch = 2;
        scene.record.incarnations.remove(&name(0));
        for n in [1, 2] {
            scene.heard(n, replica(n, 1, |s| s.redis.role = Role::Replica));
        }
        scene
    };
    let plan = scene().plan(NOW);
    assert_eq!((degraded(&plan).0, promoted(&plan)), (Reason::ConfirmedWritesAtRisk, vec![]));
    let mut accepted = scene();
    accepted.annotate(ACCEPT_LOSS, "2");
    assert_eq!(promoted(&accepted.plan(NOW)).len(), 1);
}

/// More replicas shall confirm: what fewer confirmed before must be on as many first. Fewer are
/// enough at once.
#[test]
fn more_confirmations_count_once_all_that_was_confirmed_is_on_as_many() {
    let asked = |confirmations, counted, raise, offset| {
        let mut scene = confirmed(Scene::whole());
        scene.cluster.spec.confirmations = Some(confirmations);
        scene.cluster.spec.allow_write_stops = true;
        scene.record.confirmations = Some(Confirmations { counted, raise });
        scene.configure();
        scene.node(2, |v| v.state.redis.offset = offset);
        scene.plan(NOW).record.confirmations.unwrap()
    };
    let raise = |offset| Some(Raise { to: 2, offset });
    assert_eq!(asked(2, 1, None, 99), Confirmations { counted: 1, raise: raise(100) });
    assert_eq!(asked(2, 1, raise(90), 89), Confirmations { counted: 1, raise: raise(90) });
    assert_eq!(asked(2, 1, raise(90), 90), Confirmations { counted: 2, raise: None });
    assert_eq!(asked(1, 2, None, 0), Confirmations { counted: 1, raise: None });
    let mut scene = confirmed(Scene::whole());
    scene.record.confirmations = Some(Confirmations { counted: 2, raise: None });
    scene.cluster.spec.durability = Durability::Async;
    assert_eq!(scene.plan(NOW).record.confirmations, None, "nothing is promised");
}

/// Its deployment is closed and its device deleted, and it may have confirmed what nobody else has.
#[test]
fn one_that_may_have_confirmed_a_write_alone_is_not_forgotten() {
    for (durability, forgotten) in [(Durability::Confirmed, false), (Durability::Async, true)] {
        let mut scene = Scene::whole();
        scene.cluster.spec.durability = durability;
        scene.give_up(2, 600);
        scene.silent(2, 600);
        scene.deployment(2).active = false;
        let gone = scene.incarnation(2).device.clone().unwrap();
        scene.mesh().devices.retain(|d| d.id != gone);
        scene.inventory.deleted_devices.insert(gone);
        scene.inventory.mesh.at = akash_redis::model::time::UnixMs(NOW);
        scene.incarnation(2).condemned.as_mut().unwrap().closed =
            Some(akash_redis::model::time::UnixMs(NOW - 300_000));
        scene.silent(0, 1);
        let plan = scene.plan(NOW);
        assert_eq!(!plan.record.incarnations.contains_key(&name(2)), forgotten, "{durability:?}");
    }
}

/// All processes were restarted: none vouches for what it had. The master's own data are whole when
/// its machine lived on, or when it had stopped before.
#[test]
fn a_master_alone_goes_on_when_it_has_all_that_it_acknowledged() {
    let rows: [(&str, Edit, Result<(), Reason>); 6] = [
        ("its agent saw its end", |_| {}, Ok(())),
        (
            "its machine died with it",
            |s| s.node(0, |v| v.state.boot_id = "another".into()),
            Err(Reason::ConfirmedWritesAtRisk),
        ),
        (
            "it was stopped in order",
            |s| {
                s.node(0, |v| {
                    v.state.boot_id = "another".into();
                    v.state.history.as_mut().unwrap().gap_ms = 0;
                });
            },
            Ok(()),
        ),
        (
            "it is empty",
            |s| s.node(0, |v| v.state.history = None),
            Err(Reason::ConfirmedWritesAtRisk),
        ),
        ("it is not back yet", |s| s.silent(0, 1), Err(Reason::ConfirmedWritesAtRisk)),
        (
            "it was alone",
            |s| {
                s.silent(0, 1);
                s.record.incarnations.retain(|n, _| *n == name(0));
            },
            Err(Reason::NoMaster),
        ),
    ];
    for (what, edit, goes_on) in rows {
        let mut scene = confirmed(Scene::three());
        for n in 0..3 {
            scene.heard(
                n,
                detached(n, |s| {
                    (s.highest.epoch, s.redis.online_epoch) = (1, 0);
                    s.redis.run_id = format!("again-{n}");
                    s.redis.process = if n == 0 { s.redis.process } else { Process::Running };
                    s.history = history("A", 100, 1, if n == 0 { 700 } else { 0 });
                }),
            );
        }
        scene.node(0, |v| v.state.redis.fenced = true);
        edit(&mut scene);
        if matches!(what, "it is not back yet" | "it was alone") {
            scene.node(0, |v| v.state.redis.process = Process::Exited);
        }
        let plan = scene.plan(NOW);
        match goes_on {
            Ok(()) => assert_eq!(promoted(&plan), [name(0)], "{what}"),
            Err(reason) => {
                assert!(wrong(&plan, reason), "{what}");
                assert_eq!(promoted(&plan), [], "{what}");
            }
        }
    }
}
