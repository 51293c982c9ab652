//! Nobody may take over: the rules of `plan/elect.rs`.

use akash_redis::api::annotations::ACCEPT_LOSS;
use akash_redis::api::conditions::Reason;
use akash_redis::api::events::EventReason;
use akash_redis::model::ids::IncarnationName;
use akash_redis::model::incarnation::Membership;
use akash_redis::model::node::{History, Process, Role};

use crate::scene::{
    NOW, Scene, degraded, detached, failing_over, has_event, history, name, promoted, wait_for,
};

#[test]
fn data_in_memory_count_in_a_cold_start() {
    let mut scene = Scene::three();
    scene.record.master = None;
    (scene.record.epoch, scene.record.data_epoch) = (2, 2);
    scene.record.data_master = Some(IncarnationName("cache-1-gone".into()));
    scene.record.incarnations.values_mut().for_each(|i| i.lower(Membership::Member));
    for n in 0..3 {
        let keys = if n == 2 { 100_000 } else { 0 };
        scene.heard(
            n,
            detached(n, |s| {
                s.redis.keys = keys;
                s.redis.online_epoch = 0;
                s.redis.offset = i64::try_from(keys).unwrap();
            }),
        );
    }
    let plan = scene.plan(NOW);
    assert!(!has_event(&plan, EventReason::DataLost), "{:?}", plan.events);
    assert_eq!(promoted(&plan), [name(2)]);
}

#[test]
fn two_histories_that_cannot_be_compared_block_and_name_a_command() {
    let mut scene = Scene::three();
    scene.record.master = None;
    scene.record.incarnations.values_mut().for_each(|i| i.lower(Membership::Member));
    for (n, replid) in [(0, "A"), (1, "B"), (2, "A")] {
        scene.heard(
            n,
            detached(n, |s| {
                s.history =
                    Some(History { replid: replid.into(), offset: 100, epoch: 1, gap_ms: 0 });
            }),
        );
    }
    let plan = scene.plan(NOW);
    assert!(promoted(&plan).is_empty());
    let (reason, message) = degraded(&plan);
    assert!(
        reason == Reason::HistoryUnclear
            && message.contains("akash-redis failover cache --accept-loss"),
        "{message}"
    );
    scene.cluster.metadata.annotations.insert(ACCEPT_LOSS.to_owned(), "1".into());
    assert_eq!(promoted(&scene.plan(NOW)).len(), 1, "a person decided");
}

type Edit = fn(&mut Scene);

/// Nobody was in sync with the master, whose redis was started again and is fenced; it holds offset
/// 100 of epoch 1, as do the others.
fn nobody_in_sync() -> Scene {
    let mut scene = Scene::three();
    for n in 0..3 {
        scene.heard(
            n,
            detached(n, |s| {
                (s.highest.epoch, s.redis.online_epoch) = (1, 0);
                s.redis.run_id = format!("again-{n}");
                s.history = history("A", 100, 1, 0);
            }),
        );
    }
    scene
}

#[test]
fn the_newest_history_of_those_who_may_hold_it_is_promoted() {
    let holds = |n: u32, offset: i64, epoch: u64, gap: u64| {
        move |s: &mut Scene| s.node(n, |v| v.state.history = history("A", offset, epoch, gap))
    };
    let rows: [(&str, &dyn Fn(&mut Scene), Option<u32>); 15] = [
        ("all have the same: the master goes on", &|_| {}, Some(0)),
        ("a candidate has more", &holds(1, 101, 1, 0), Some(1)),
        (
            "a candidate has more, and the master's was cut short",
            &|s| {
                holds(1, 101, 1, 0)(s);
                holds(0, 100, 1, 900)(s);
            },
            Some(0),
        ),
        (
            "two have more: the lower name",
            &|s| {
                holds(1, 101, 1, 0)(s);
                holds(2, 101, 1, 0)(s);
            },
            Some(1),
        ),
        (
            "the second has most",
            &|s| {
                holds(1, 101, 1, 0)(s);
                holds(2, 102, 1, 0)(s);
            },
            Some(2),
        ),
        ("more of an older epoch is less", &holds(1, 500, 0, 0), Some(0)),
        ("less of a newer epoch is more", &holds(1, 5, 2, 0), Some(1)),
        (
            "one that was not in sync is not asked",
            &|s| {
                holds(1, 101, 1, 0)(s);
                s.incarnation(1).lower(Membership::Member);
            },
            Some(0),
        ),
        (
            "nor waited for",
            &|s| {
                s.incarnation(1).lower(Membership::Member);
                s.silent(1, 60);
            },
            Some(0),
        ),
        ("a candidate is", &|s| s.silent(1, 60), None),
        (
            "and one whose redis starts",
            &|s| s.node(1, |v| v.state.redis.process = Process::Starting),
            None,
        ),
        (
            "the master is",
            &|s| {
                s.silent(0, 60);
                s.node(0, |v| v.state.redis.process = Process::Exited);
            },
            None,
        ),
        (
            "a person goes on without it",
            &|s| {
                s.silent(0, 60);
                s.node(0, |v| v.state.redis.process = Process::Exited);
                s.annotate(ACCEPT_LOSS, "1");
            },
            Some(1),
        ),
        (
            "a person lets one that was not in sync be asked",
            &|s| {
                s.annotate(ACCEPT_LOSS, "1");
                holds(1, 101, 1, 0)(s);
                s.incarnation(1).lower(Membership::Member);
            },
            Some(1),
        ),
        ("histories differ", &|s| s.node(1, |v| v.state.history = history("B", 100, 1, 0)), None),
    ];
    for (what, edit, chosen) in rows {
        let mut scene = nobody_in_sync();
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(promoted(&plan), chosen.map(name).into_iter().collect::<Vec<_>>(), "{what}");
        assert_eq!(plan.record.epoch, 1 + u64::from(chosen.is_some()), "{what}");
        let again = has_event(&plan, EventReason::MasterRepromoted);
        assert_eq!(again, chosen == Some(0), "{what}");
        assert_eq!(
            has_event(&plan, EventReason::ColdStart),
            chosen.is_some_and(|n| n > 0),
            "{what}"
        );
    }
}

#[test]
fn a_master_that_may_come_back_with_its_data_is_waited_for() {
    let mut scene = nobody_in_sync();
    (1..3).for_each(|n| scene.incarnation(n).lower(Membership::Member));
    scene.node(0, |v| v.state.redis.process = Process::Exited);
    scene.silent(0, 119);
    let plan = scene.plan(NOW);
    let (reason, message) = degraded(&plan);
    assert_eq!(reason, Reason::NoMaster);
    assert!(message.contains("may not take over: its redis was not in sync"), "{message}");
    assert!(message.contains("`akash-redis failover cache --accept-loss`"), "{message}");
    assert_eq!(wait_for(&plan, "cache-0-aaaa to come back with its data").unwrap().0, Some(1));
    assert!(!message.contains("longer than the 120 s it should take"), "{message}");
    scene.silent(0, 120);
    assert!(degraded(&scene.plan(NOW)).1.contains("longer than the 120 s it should take"));
    // Others that cannot be asked block, whoever they are.
    let mut scene = nobody_in_sync();
    scene.silent(1, 60);
    let plan = scene.plan(NOW);
    assert_eq!(degraded(&plan).0, Reason::HistoryUnclear);
    assert!(degraded(&plan).1.contains("cache-1-aaaa may hold newer data and cannot be asked"));
    assert!(wait_for(&plan, "cache-1-aaaa to be heard").is_some());
}

#[test]
fn an_empty_node_never_wins_where_data_are_kept() {
    let empty: Edit = |s| {
        for n in 0..3 {
            s.node(n, |v| (v.state.history, v.state.redis.keys) = (None, 0));
        }
    };
    let mut scene = nobody_in_sync();
    empty(&mut scene);
    let plan = scene.plan(NOW);
    assert_eq!((promoted(&plan), degraded(&plan).0), (vec![], Reason::DataMissing));
    scene.annotate(ACCEPT_LOSS, "1");
    let plan = scene.plan(NOW);
    assert!(has_event(&plan, EventReason::DataLost) && promoted(&plan) == [name(0)]);
    // A history of epoch 0 is none, and what is in memory counts.
    let mut scene = nobody_in_sync();
    empty(&mut scene);
    scene.node(0, |v| v.state.history = history("A", 0, 0, 0));
    assert_eq!(promoted(&scene.plan(NOW)), []);
    scene.node(0, |v| v.state.redis.keys = 1);
    assert_eq!(promoted(&scene.plan(NOW)), [name(0)]);
    // Where nothing is kept on disk that is how it must be.
    let mut scene = nobody_in_sync();
    empty(&mut scene);
    scene.cluster.spec.resources.data = None;
    let plan = scene.plan(NOW);
    assert!(has_event(&plan, EventReason::DataLost) && promoted(&plan) == [name(0)]);
    assert_eq!((plan.record.data_epoch, plan.record.data_master), (0, None));
    // But for a node that was out of sync and was not started again: older data are more than none.
    scene.incarnation(2).lower(Membership::Member);
    scene.node(2, |v| v.state.history = history("A", 50, 1, 0));
    let plan = scene.plan(NOW);
    assert_eq!(promoted(&plan), [name(2)]);
    assert!(has_event(&plan, EventReason::ColdStart) && !has_event(&plan, EventReason::DataLost));
    scene.silent(2, 60);
    let plan = scene.plan(NOW);
    assert_eq!((promoted(&plan), degraded(&plan).0), (vec![], Reason::HistoryUnclear));
}

#[test]
fn a_cluster_whose_master_is_lost_starts_from_what_is_left() {
    let lost = |edit: Edit| {
        let mut scene = nobody_in_sync();
        scene.record.master = None;
        scene.record.data_master = None;
        scene.record.incarnations.remove(&name(0));
        (1..3).for_each(|n| scene.incarnation(n).lower(Membership::Member));
        edit(&mut scene);
        scene.plan(NOW)
    };
    assert_eq!(promoted(&lost(|_| {})), [name(1)]);
    assert_eq!(
        promoted(&lost(|s| s.node(2, |v| v.state.history = history("A", 101, 1, 0)))),
        [name(2)]
    );
    let waits = lost(|s| s.silent(2, 60));
    assert_eq!((promoted(&waits), degraded(&waits).0), (vec![], Reason::HistoryUnclear));
    let never = lost(|s| {
        s.incarnation(2).membership = Membership::Expected;
        s.silent(2, 60);
    });
    assert_eq!(promoted(&never), [name(1)], "one that never joined holds nothing");
    let empty = lost(|s| {
        (1..3).for_each(|n| s.node(n, |v| (v.state.history, v.state.redis.keys) = (None, 0)));
    });
    assert!(has_event(&empty, EventReason::DataLost));
    assert_eq!(
        (promoted(&empty), empty.record.data_epoch),
        (vec![], 0),
        "the next plan begins anew"
    );
    let nobody = lost(|s| s.record.incarnations.clear());
    assert!(has_event(&nobody, EventReason::DataLost));
}

/// Replicas that were in sync are there, and the master came back before anybody took over.
#[test]
fn a_master_that_is_back_with_all_that_it_acknowledged_goes_on() {
    let rows: [(&str, Edit, bool); 13] = [
        ("with all that the others have", |_| {}, true),
        ("with more", |s| s.node(0, |v| v.state.history = history("A", 101, 1, 0)), true),
        ("with less", |s| s.node(0, |v| v.state.history = history("A", 99, 1, 0)), false),
        ("with less than one of them", |s| s.node(2, |v| v.state.redis.offset = 101), false),
        (
            "with less by its history, and the rest in its append-only file",
            |s| {
                s.node(0, |v| v.state.history = history("A", 99, 1, 900));
            },
            true,
        ),
        (
            "the same, and its machine was started again",
            |s| {
                s.node(0, |v| {
                    v.state.history = history("A", 99, 1, 900);
                    v.state.boot_id = "another".into();
                });
            },
            false,
        ),
        (
            "the same, without an append-only file",
            |s| {
                s.node(0, |v| v.state.history = history("A", 99, 1, 900));
                s.cluster.spec.redis.config.insert("appendonly".into(), "no".into());
            },
            false,
        ),
        ("empty", |s| s.node(0, |v| v.state.redis.keys = 0), false),
        (
            "with a history of another epoch",
            |s| s.node(0, |v| v.state.history = history("A", 100, 0, 0)),
            false,
        ),
        ("without a history", |s| s.node(0, |v| v.state.history = None), false),
        ("it loads still", |s| s.node(0, |v| v.state.redis.loading = true), false),
        (
            "it does not answer",
            |s| {
                s.node(0, |v| v.state.redis.process = Process::Exited);
                s.silent(0, 1);
            },
            false,
        ),
        (
            "its lease is gone, and it takes writes",
            |s| {
                s.node(0, |v| (v.state.redis.role, v.state.redis.fenced) = (Role::Master, false));
                s.close_lease(0, 10_000);
            },
            false,
        ),
    ];
    for (what, edit, again) in rows {
        let mut scene = Scene::whole();
        scene.node(0, |v| {
            (v.state.redis.role, v.state.redis.fenced) = (Role::Replica, true);
            v.state.redis.run_id = "again".into();
        });
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(has_event(&plan, EventReason::MasterRepromoted), again, "{what}");
        assert_eq!(failing_over(&plan).is_none(), again, "{what}");
        let chosen = plan.record.master.unwrap();
        assert_eq!(
            (chosen.epoch, chosen.run_id == "again"),
            (1 + u64::from(again), again),
            "{what}"
        );
    }
}

#[test]
fn a_first_master_that_confirmed_nothing_is_promoted_again_or_given_up() {
    let first = |edit: Edit| {
        let mut scene = Scene::three();
        (scene.record.data_epoch, scene.record.data_master) = (0, None);
        scene.master().confirmed = false;
        (1..3).for_each(|n| scene.incarnation(n).membership = Membership::Joined);
        scene.node(0, |v| {
            (v.state.redis.role, v.state.redis.fenced) = (Role::Replica, true);
            v.state.redis.run_id = "again".into();
        });
        edit(&mut scene);
        scene.plan(NOW)
    };
    let again = first(|_| {});
    assert_eq!((promoted(&again), again.record.epoch), (vec![name(0)], 2));
    let down: Edit = |s| s.node(0, |v| v.state.redis.process = Process::Exited);
    let waits = first(down);
    assert_eq!((waits.record.epoch, degraded(&waits).0), (1, Reason::NoMaster));
    let untouched = first(|s| {
        s.record.untouched = true;
        s.node(0, |v| v.state.redis.process = Process::Exited);
    });
    assert!(has_event(&untouched, EventReason::FirstMasterLost));
    assert_eq!((untouched.record.master, untouched.record.epoch), (None, 2));
    assert!(!untouched.record.incarnations[&name(0)].is_member());
}

/// A node whose redis was started again says what it holds: more than anybody can have written is
/// not believed, of the master alone everything is.
#[test]
fn what_nobody_can_hold_is_not_promoted() {
    // Since they were reserved an hour ago.
    let most = 100 + (16 << 20) * 3601;
    let rows = [(1, most, true), (1, most + 1, false), (0, most + 1, true)];
    for (n, claim, believed) in rows {
        let mut scene = nobody_in_sync();
        scene.node(n, |v| v.state.history = history("A", claim, 1, 0));
        let plan = scene.plan(NOW);
        let chosen = if believed { n } else { 0 };
        assert_eq!(promoted(&plan), [name(chosen)], "{n} {claim}");
        let told = has_event(&plan, EventReason::OffsetImplausible);
        assert_eq!(told, !believed, "{n} {claim}");
        assert_eq!(plan.status.problems.contains(&Reason::OffsetImplausible), !believed);
    }
}
