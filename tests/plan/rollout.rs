//! How many nodes there shall be, which come and which leave: the rules of `plan/rollout.rs`.

use akash_redis::api::annotations::MIGRATE;
use akash_redis::api::conditions::Reason;
use akash_redis::model::change::Change;
use akash_redis::model::incarnation::{Failures, Membership};
use akash_redis::model::money::Uact;
use akash_redis::model::node::{Link, REFUSES_WRITES, Role};
use akash_redis::model::step::Effect;
use akash_redis::model::time::UnixMs;
use akash_redis::plan::Plan;

use crate::scene::{NOW, Scene, THREE, ago, degraded, detaches, given_up, name, wait_for};

/// Node 0 was master and is to leave; node 1 took over just now, and nobody follows it yet.
#[test]
fn a_former_master_leaves_when_another_replica_is_in_sync_with_the_new_one() {
    let mut scene = Scene::whole();
    scene.cluster.spec.nodes = 2;
    scene.annotate(MIGRATE, name(0).0);
    scene.incarnation(1).replaces = Some(name(0));
    scene.incarnation(1).ordinal = 0;
    scene.incarnation(2).ordinal = 1;
    scene.take_over(1);
    let plan = scene.plan(NOW);
    assert_eq!(given_up(&scene, &plan), []);
    assert_eq!(degraded(&plan).0, Reason::RemovalBlocked);
    scene.incarnation(2).raise(Membership::Candidate);
    scene.node(2, |v| {
        v.state.redis.master_host = format!("{}.mesh", name(1));
        v.state.redis.online_epoch = 2;
    });
    scene.attach(&[2]);
    assert_eq!(given_up(&scene, &scene.plan(NOW)), [name(0)]);
}

/// Behind its fence its clients wait for an answer. Nobody gives one once its device is gone.
#[test]
fn a_former_master_leaves_once_its_clients_are_told() {
    let rows: [(&str, Edit, bool, bool); 6] = [
        ("it holds them", |_| {}, false, false),
        ("it follows", |s| s.node(0, |v| v.state.redis.role = Role::Replica), true, false),
        (
            "its agent refuses them",
            |s| s.node(0, |v| v.state.redis.min_replicas = REFUSES_WRITES),
            true,
            false,
        ),
        ("it is silent", |s| s.silent(0, 1), true, false),
        ("it does not tell them in time", |s| s.master().since = UnixMs(NOW - 10_000), true, false),
        (
            "it could not read the new one's data",
            |s| {
                s.node(0, |v| v.state.redis.version = "7.0.15".into());
                s.node(1, |v| v.state.redis.version = "8.2.3".into());
                s.node(2, |v| v.state.redis.version = "8.2.3".into());
            },
            false,
            true,
        ),
    ];
    for (what, edit, leaves, let_go) in rows {
        let mut scene = Scene::whole();
        scene.cluster.spec.nodes = 2;
        scene.annotate(MIGRATE, name(0).0);
        scene.incarnation(1).replaces = Some(name(0));
        (scene.incarnation(1).ordinal, scene.incarnation(2).ordinal) = (0, 1);
        scene.take_over(1);
        scene.incarnation(2).raise(Membership::Candidate);
        scene.node(2, |v| {
            v.state.redis.master_host = format!("{}.mesh", name(1));
            v.state.redis.online_epoch = 2;
        });
        scene.attach(&[2]);
        scene.node(0, |v| (v.state.redis.role, v.state.redis.fenced) = (Role::Master, true));
        scene.master().since = UnixMs(NOW - 9_999);
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(given_up(&scene, &plan) == [name(0)], leaves, "{what}");
        assert_eq!(detaches(&plan) == [name(0)], let_go, "{what}");
        assert_eq!(wait_for(&plan, "to tell its clients").is_none(), leaves, "{what}");
    }
}

type Edit = fn(&mut Scene);

fn reserved(plan: &Plan) -> Vec<u32> {
    let creates = |e: &Effect| match e {
        Effect::CreateDeployment { incarnation, .. } => incarnation.ordinal(),
        _ => None,
    };
    plan.steps.iter().filter_map(|s| creates(&s.effect)).collect()
}

fn suffixes(scene: &mut Scene) {
    scene.inventory.id_pool.suffixes = ["aaaa", "bbbb", "cccc", "dddd"].map(Into::into).into();
}

#[test]
fn every_node_that_lacks_an_incarnation_gets_one() {
    let rows: [(&str, Edit, &[u32]); 11] = [
        ("nothing is missing", |_| {}, &[]),
        ("two more are wanted", |s| s.cluster.spec.nodes = 5, &[3, 4]),
        ("one was given up", |s| s.give_up(2, 5), &[2]),
        ("one is to leave", |s| s.annotate(MIGRATE, " cache-1-aaaa ,x"), &[1]),
        (
            "one is to leave that was given up",
            |s| {
                s.annotate(MIGRATE, name(1).0);
                s.give_up(1, 5);
            },
            &[1],
        ),
        (
            "one is to leave, and its successor is there",
            |s| {
                s.annotate(MIGRATE, name(1).0);
                s.incarnation(2).ordinal = 1;
                s.cluster.spec.nodes = 2;
            },
            &[],
        ),
        (
            "the chain is away",
            |s| {
                s.cluster.spec.nodes = 5;
                s.inventory.chain.error = Some("away".into());
            },
            &[],
        ),
        (
            "the control API is away",
            |s| {
                s.cluster.spec.nodes = 5;
                s.inventory.mesh.error = Some("away".into());
            },
            &[],
        ),
        (
            "the wallet pays for one only",
            |s| {
                s.cluster.spec.nodes = 5;
                s.cluster.spec.budget.deposit = Some("2act".parse().unwrap());
                s.chain().balance = Uact(3_999_999);
            },
            &[],
        ),
        (
            "it pays for both",
            |s| {
                s.cluster.spec.nodes = 5;
                s.cluster.spec.budget.deposit = Some("2act".parse().unwrap());
                s.chain().balance = Uact(4_000_000);
            },
            &[3, 4],
        ),
        (
            "the deposits are as the chain wants them",
            |s| {
                s.cluster.spec.nodes = 5;
                s.chain().balance = Uact(5_999_999);
                s.chain().min_deposit = Uact(3_000_000);
            },
            &[],
        ),
    ];
    for (what, edit, expected) in rows {
        let mut scene = Scene::whole();
        suffixes(&mut scene);
        edit(&mut scene);
        assert_eq!(reserved(&scene.plan(NOW)), expected, "{what}");
    }
    // One that was reserved and not created yet needs its deposit as well.
    let mut scene = Scene::new(THREE);
    scene.cluster.spec.budget.deposit = Some("2act".parse().unwrap());
    scene.cluster.spec.nodes = 2;
    scene.record = scene.plan(NOW).record;
    scene.cluster.spec.nodes = 3;
    scene.chain().balance = Uact(5_999_999);
    let plan = scene.plan(NOW);
    assert_eq!((reserved(&plan), degraded(&plan).0), (vec![0, 1], Reason::WalletBalanceLow));
    assert!(
        degraded(&plan).1.contains("the deposits of 3 nodes need 6act"),
        "{}",
        degraded(&plan).1
    );
}

#[test]
fn an_attempt_that_failed_is_made_again_after_a_growing_pause() {
    for (count, seconds, again) in [
        (1, 9, false),
        (1, 10, true),
        (2, 19, false),
        (2, 20, true),
        (3, 39, false),
        (3, 40, true),
        (6, 319, false),
        (6, 320, true),
        (7, 599, false),
        (7, 600, true),
        (60, 599, false),
        (60, 600, true),
        (0, 0, false),
        (0, 10, true),
    ] {
        let mut scene = Scene::new(THREE);
        scene.cluster.spec.nodes = 1;
        let failures =
            Failures { count, last: ago(seconds), reason: "x".into(), ..Failures::default() };
        scene.record.failures.insert(0, failures);
        let plan = scene.plan(NOW);
        assert_eq!(!reserved(&plan).is_empty(), again, "{count} tries, {seconds} s ago");
        assert_eq!(wait_for(&plan, "node 0 to be tried again").is_some(), !again);
        assert_eq!(degraded(&plan).1.contains("could not be filled"), count > 0, "{count}");
    }
}

#[test]
fn a_changed_manifest_is_tried_at_once() {
    let mut scene = Scene::new(THREE);
    scene.cluster.spec.nodes = 1;
    scene.cluster.metadata.generation = Some(4);
    for (generation, again) in [(4, false), (3, true), (0, true)] {
        let failures = Failures {
            count: 7,
            last: ago(1),
            reason: "x".into(),
            generation,
            ..Failures::default()
        };
        scene.record.failures.insert(0, failures);
        let plan = scene.plan(NOW);
        assert_eq!(!reserved(&plan).is_empty(), again, "failed in generation {generation}");
    }
}

#[test]
fn failures_are_told_until_something_runs_in_that_place() {
    let told = |edit: Edit| {
        let mut scene = Scene::whole();
        let failures =
            Failures { count: 2, last: ago(1), reason: "x".into(), ..Failures::default() };
        scene.record.failures.insert(1, failures);
        edit(&mut scene);
        degraded(&scene.plan(NOW)).1.contains("node 1 could not be filled (2 tries): x")
    };
    assert!(!told(|_| {}));
    assert!(told(|s| {
        s.incarnation(1).membership = Membership::Expected;
        s.inventory.nodes.remove(&name(1));
    }));
    assert!(told(|s| s.annotate(MIGRATE, name(1).0)), "what runs there is to leave");
    assert!(
        !told(|s| {
            s.incarnation(1).membership = Membership::Expected;
            s.cluster.spec.nodes = 1;
        }),
        "nobody wants it any more"
    );
}

#[test]
fn a_node_leaves_when_its_successor_and_another_one_are_in_sync() {
    // Node 2 takes the place of node 1; two nodes are wanted.
    let rows: [(&str, Edit, bool); 8] = [
        ("all are in sync", |_| {}, true),
        (
            "the successor was not",
            |s| {
                s.incarnation(2).lower(Membership::Member);
                s.node(2, |v| v.state.redis.link = Link::Syncing);
            },
            false,
        ),
        ("its link is down", |s| s.node(2, |v| v.state.redis.link = Link::Down), false),
        (
            "it was in sync in another epoch",
            |s| s.node(2, |v| v.state.redis.online_epoch = 0),
            false,
        ),
        ("it loads", |s| s.node(2, |v| v.state.redis.loading = true), false),
        ("it does not answer", |s| s.silent(2, 1), false),
        ("the master changes", |s| s.switching(1), false),
        (
            "nobody asked for it any more, and it is in sync",
            |s| {
                s.cluster.metadata.annotations.clear();
            },
            true,
        ),
    ];
    for (what, edit, leaves) in rows {
        let mut scene = Scene::whole();
        scene.cluster.spec.nodes = 2;
        scene.annotate(MIGRATE, name(1).0);
        scene.incarnation(2).ordinal = 1;
        scene.incarnation(2).replaces = Some(name(1));
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(given_up(&scene, &plan) == [name(1)], leaves, "{what}");
    }
    let mut stalled = Scene::whole();
    stalled.cluster.spec.nodes = 2;
    stalled.annotate(MIGRATE, name(1).0);
    let new = stalled.incarnation(2);
    (new.ordinal, new.replaces, new.reserved) = (1, Some(name(1)), ago(1799));
    stalled.silent(2, 1);
    let plan = stalled.plan(NOW);
    assert_eq!(wait_for(&plan, "to be in sync before cache-1-aaaa leaves").unwrap().0, Some(1));
    assert!(!degraded(&plan).1.contains("longer than the 1800 s"));
    stalled.incarnation(2).reserved = ago(1800);
    assert!(degraded(&stalled.plan(NOW)).1.contains("longer than the 1800 s"));
}

#[test]
fn a_successor_that_nobody_wants_any_more_goes() {
    let rows: [(&str, Edit, bool); 4] = [
        ("it is on its way", |_| {}, true),
        ("it is in sync", |s| s.incarnation(2).raise(Membership::Candidate), false),
        ("it is wanted", |s| s.annotate(MIGRATE, name(1).0), false),
        ("the one it replaces was given up", |s| s.give_up(1, 5), false),
    ];
    for (what, edit, goes) in rows {
        let mut scene = Scene::whole();
        scene.cluster.spec.nodes = 2;
        let new = scene.incarnation(2);
        (new.ordinal, new.replaces, new.membership) = (1, Some(name(1)), Membership::Member);
        scene.node(2, |v| v.state.redis.link = Link::Down);
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(given_up(&scene, &plan).contains(&name(2)), goes, "{what}");
    }
}

#[test]
fn a_node_that_is_too_many_leaves_when_another_is_in_sync() {
    let rows: [(&str, u32, Edit, &[u32]); 6] = [
        ("three of three", 3, |_| {}, &[]),
        ("two are wanted", 2, |_| {}, &[2]),
        ("one is wanted", 1, |_| {}, &[1, 2]),
        (
            "two are wanted, and the other is not in sync",
            2,
            |s| s.node(1, |v| v.state.redis.link = Link::Down),
            &[],
        ),
        (
            "two are wanted, and the other is no candidate",
            2,
            |s| {
                s.incarnation(1).lower(Membership::Member);
                s.attach(&[2]);
            },
            &[],
        ),
        (
            "it was never heard, and holds nothing",
            2,
            |s| {
                s.incarnation(2).membership = Membership::Expected;
                s.inventory.nodes.remove(&name(2));
                s.node(1, |v| v.state.redis.link = Link::Down);
            },
            &[2],
        ),
    ];
    for (what, nodes, edit, leave) in rows {
        let mut scene = Scene::whole();
        scene.cluster.spec.nodes = nodes;
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(
            given_up(&scene, &plan),
            leave.iter().map(|n| name(*n)).collect::<Vec<_>>(),
            "{what}"
        );
        let blocked = degraded(&plan).1.contains("stays until another replica is in sync");
        assert_eq!(blocked, nodes == 2 && leave.is_empty(), "{what}");
    }
}

/// Node 0 is master and too many: numbers are turned round.
#[test]
fn a_master_that_is_to_leave_hands_over_first() {
    let rows: [(&str, Edit, Option<u32>); 6] = [
        ("the first that stays and is in sync", |_| {}, Some(1)),
        ("it is not in sync", |s| s.node(1, |v| v.state.redis.link = Link::Down), Some(2)),
        (
            "it is no candidate",
            |s| {
                s.incarnation(1).lower(Membership::Member);
                s.attach(&[2]);
            },
            Some(2),
        ),
        (
            "it is too many as well",
            |s| {
                s.cluster.spec.nodes = 1;
                s.incarnation(1).ordinal = 7;
            },
            Some(2),
        ),
        (
            "nobody is in sync",
            |s| (1..3).for_each(|n| s.node(n, |v| v.state.redis.link = Link::Down)),
            None,
        ),
        (
            "its successor goes before",
            |s| {
                s.annotate(MIGRATE, name(0).0);
                s.incarnation(0).ordinal = 1;
                s.incarnation(2).ordinal = 1;
                s.incarnation(1).ordinal = 0;
                s.incarnation(2).replaces = Some(name(0));
            },
            Some(2),
        ),
    ];
    for (what, edit, target) in rows {
        let mut scene = Scene::whole();
        scene.cluster.spec.nodes = 2;
        scene.incarnation(0).ordinal = 5;
        scene.incarnation(1).ordinal = 0;
        scene.incarnation(2).ordinal = 1;
        edit(&mut scene);
        if what.contains("too many as well") {
            scene.incarnation(2).ordinal = 0;
        }
        let plan = scene.plan(NOW);
        let to = match &plan.record.change {
            Some(Change::Switchover(s)) => Some(s.target.clone()),
            _ => None,
        };
        assert_eq!(to, target.map(name), "{what}");
        assert!(!given_up(&scene, &plan).contains(&name(0)), "{what}");
        assert_eq!(degraded(&plan).0 == Reason::RemovalBlocked, target.is_none(), "{what}");
    }
}

#[test]
fn a_cluster_that_is_deleted_is_given_up_as_a_whole() {
    let mut scene = Scene::whole();
    scene.delete();
    let plan = scene.plan(NOW);
    assert_eq!(given_up(&scene, &plan), [name(0), name(1), name(2)]);
    assert_eq!((plan.record.master.clone(), plan.record.change.clone()), (None, None));
    assert!(!plan.finished);
    let closes = plan.steps.iter().filter(|s| matches!(s.effect, Effect::CloseDeployment { .. }));
    assert_eq!(closes.count(), 3);
    scene.record.incarnations.clear();
    scene.record.master = None;
    assert!(scene.plan(NOW).finished);
    scene.inventory.chain.error = Some("away".into());
    assert!(!scene.plan(NOW).finished, "nobody knows whether something is left");
}
