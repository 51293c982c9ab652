//! Who is master, and who follows: the rules of `plan/roles.rs`.

use akash_redis::api::conditions::Reason;
use akash_redis::api::events::EventReason;
use akash_redis::model::change::FailoverReport;
use akash_redis::model::incarnation::Membership;
use akash_redis::model::node::{AttachedReplica, History, Link, Process, ReplicaState, Role};
use akash_redis::model::step::{Command, Effect, Quorum};

use crate::scene::{
    NOW, QUARANTINE, Scene, degraded, detached, has_event, name, promoted, wait_for,
};

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
        (50, 0, "nothing: the new master has all that the old one had"),
        (80, 0, "up to 30 bytes of history"),
        (50, 900, "up to 0 bytes of history, and what was written in the last 900 ms"),
        (50, u64::MAX, "of an unknown time"),
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

type Edit = fn(&mut Scene);

/// Nodes that joined; nobody was master yet.
fn fresh() -> Scene {
    let mut scene = Scene::whole();
    (scene.record.master, scene.record.data_master) = (None, None);
    (scene.record.epoch, scene.record.data_epoch) = (0, 0);
    for n in 0..3 {
        scene.incarnation(n).membership = Membership::Joined;
        scene.heard(n, detached(n, |s| (s.highest.epoch, s.redis.online_epoch) = (0, 0)));
    }
    scene.configure();
    scene
}

#[test]
fn the_first_node_that_is_ready_becomes_the_first_master() {
    let rows: [(&str, Edit, Option<u32>); 7] = [
        ("all are ready", |_| {}, Some(0)),
        ("the first does not answer", |s| s.silent(0, 1), Some(1)),
        ("its redis starts", |s| s.node(0, |v| v.state.redis.process = Process::Starting), Some(1)),
        ("it loads", |s| s.node(0, |v| v.state.redis.loading = true), Some(1)),
        ("it has no name on the mesh", |s| s.node(0, |v| v.state.mesh.dns_name.clear()), Some(1)),
        ("it was not configured", |s| s.node(0, |v| v.state.configured.clear()), Some(1)),
        ("nobody was", |s| (0..3).for_each(|n| s.node(n, |v| v.state.configured.clear())), None),
    ];
    for (what, edit, first) in rows {
        let mut scene = fresh();
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(promoted(&plan), first.map(name).into_iter().collect::<Vec<_>>(), "{what}");
        assert_eq!(plan.record.epoch, u64::from(first.is_some()), "{what}");
    }
}

/// A write needs a replica, and none may be attached: nobody was told that a write is done.
#[test]
fn a_first_master_acknowledges_nothing_before_a_replica_may_be_attached() {
    let untouched = |edit: Edit| {
        let mut scene = fresh();
        edit(&mut scene);
        scene.plan(NOW).record.untouched
    };
    assert!(untouched(|_| {}));
    assert!(!untouched(|s| s.incarnation(1).raise(Membership::Member)));
    assert!(untouched(|s| s.incarnation(0).raise(Membership::Member)), "that is it itself");
    assert!(
        !untouched(|s| {
            s.cluster.spec.nodes = 1;
            s.configure();
        }),
        "it needs none"
    );
    // Whoever is let in first ends that.
    let mut scene = Scene::whole();
    scene.record.untouched = true;
    assert!(scene.plan(NOW).record.untouched);
    scene.incarnation(2).membership = Membership::Joined;
    assert!(!scene.plan(NOW).record.untouched);
}

#[test]
fn a_choice_names_the_process_and_is_promoted_until_it_obeys() {
    let mut scene = fresh();
    let plan = scene.plan(NOW);
    let chosen = plan.record.master.clone().unwrap();
    assert_eq!(
        (chosen.epoch, chosen.run_id.as_str(), chosen.boot_id.as_str()),
        (1, "run-0", "boot-0")
    );
    assert!(!chosen.confirmed && plan.record.incarnations[&name(0)].is_candidate());
    scene.record = plan.record;
    assert_eq!(promoted(&scene.plan(NOW)), [name(0)], "again");
    let obeys: Edit = |s| {
        s.node(0, |v| {
            v.state.promoted = true;
            v.state.highest.epoch = 1;
            (v.state.redis.role, v.state.redis.fenced) = (Role::Master, false);
        });
    };
    let rows: [(&str, Edit, bool); 7] = [
        ("it obeys", |_| {}, true),
        ("it accepted no promotion", |s| s.node(0, |v| v.state.promoted = false), false),
        ("it did in an earlier epoch", |s| s.node(0, |v| v.state.highest.epoch = 0), false),
        ("its redis is a replica", |s| s.node(0, |v| v.state.redis.role = Role::Replica), false),
        ("it takes no writes", |s| s.node(0, |v| v.state.redis.fenced = true), false),
        ("it loads", |s| s.node(0, |v| v.state.redis.loading = true), false),
        ("it does not answer", |s| s.silent(0, 1), false),
    ];
    for (what, edit, confirmed) in rows {
        let mut scene = scene.clone();
        scene.incarnation(1).membership = Membership::Candidate;
        obeys(&mut scene);
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(plan.record.master.unwrap().confirmed, confirmed, "{what}");
        let data = confirmed.then(|| name(0));
        assert_eq!(
            (plan.record.data_epoch, plan.record.data_master),
            (u64::from(confirmed), data),
            "{what}"
        );
        // Who was in sync with the master before is a candidate until then.
        assert_eq!(plan.record.incarnations[&name(1)].is_candidate(), !confirmed, "{what}");
    }
}

/// A change that came to nothing raised the epoch.
#[test]
fn a_master_that_lives_is_master_of_the_new_epoch_too() {
    let mut scene = Scene::whole();
    scene.record.epoch = 2;
    let plan = scene.plan(NOW);
    let master = plan.record.master.clone().unwrap();
    assert_eq!((master.epoch, master.incarnation, master.confirmed), (2, name(0), false));
    assert!(has_event(&plan, EventReason::MasterRetained) && promoted(&plan) == [name(0)]);
    assert_eq!(promoted(&Scene::whole().plan(NOW)), []);
}

#[test]
fn who_is_not_linked_to_the_master_is_told_to_follow() {
    let unlinked: Edit = |s| s.heard(2, detached(2, |st| st.highest.epoch = 1));
    let rows: [(&str, Edit, bool); 13] = [
        ("it is linked", |_| {}, false),
        ("it is attached to nobody", unlinked, true),
        (
            "it is attached to another",
            |s| s.node(2, |v| v.state.redis.master_host = "x".into()),
            true,
        ),
        ("it is a master", |s| s.node(2, |v| v.state.redis.role = Role::Master), true),
        ("it obeys an earlier epoch", |s| s.node(2, |v| v.state.highest.epoch = 0), true),
        ("it obeys a later one", |s| s.node(2, |v| v.state.highest.epoch = 2), false),
        (
            "it does not answer",
            |s| {
                s.heard(2, detached(2, |_| {}));
                s.silent(2, 1);
            },
            false,
        ),
        ("its redis loads", |s| s.heard(2, detached(2, |st| st.redis.loading = true)), false),
        (
            "it has no name on the mesh",
            |s| s.heard(2, detached(2, |st| st.mesh.dns_name.clear())),
            false,
        ),
        (
            "it has the quarantine tag",
            |s| {
                s.heard(2, detached(2, |_| {}));
                s.mesh().devices[2].tags = vec![QUARANTINE.into()];
            },
            false,
        ),
        (
            "the master does not know that it may",
            |s| {
                s.heard(2, detached(2, |_| {}));
                s.node(0, |v| v.state.configured = "x".into());
            },
            false,
        ),
        (
            "the master has no name on the mesh",
            |s| {
                s.heard(2, detached(2, |_| {}));
                s.node(0, |v| v.state.mesh.dns_name.clear());
            },
            false,
        ),
        (
            "the master does not answer",
            |s| {
                s.heard(2, detached(2, |_| {}));
                s.silent(0, 1);
            },
            false,
        ),
    ];
    for (what, edit, follows) in rows {
        let mut scene = Scene::whole();
        edit(&mut scene);
        let told = crate::scene::follows(&scene.plan(NOW));
        assert_eq!(told.contains(&name(2)), follows, "{what}");
        assert!(!told.contains(&name(0)), "the master follows nobody: {what}");
    }
}

#[test]
fn a_replica_is_a_candidate_once_it_is_in_sync_and_the_master_needs_one() {
    let rows: [(&str, Edit, bool); 9] = [
        ("it is in sync", |_| {}, true),
        ("the master does not count it", |s| s.attach(&[1]), false),
        ("the master may write alone", |s| s.node(0, |v| v.state.redis.min_replicas = 0), false),
        ("its link is down", |s| s.node(2, |v| v.state.redis.link = Link::Down), false),
        ("it syncs", |s| s.node(2, |v| v.state.redis.link = Link::Syncing), false),
        (
            "it was in sync in an earlier epoch",
            |s| s.node(2, |v| v.state.redis.online_epoch = 0),
            false,
        ),
        ("it lags", |s| s.node(0, |v| v.state.redis.replicas[1].lag_seconds = 9), false),
        (
            "it lags as much as it may",
            |s| s.node(0, |v| v.state.redis.replicas[1].lag_seconds = 8),
            true,
        ),
        (
            "the master sends it a snapshot",
            |s| s.node(0, |v| v.state.redis.replicas[1].state = ReplicaState::SendBulk),
            false,
        ),
    ];
    for (what, edit, candidate) in rows {
        let mut scene = Scene::whole();
        scene.incarnation(2).membership = Membership::Member;
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(plan.record.incarnations[&name(2)].is_candidate(), candidate, "{what}");
    }
    // It is known by the name that it had when it attached as well.
    for (announced, counted) in
        [("cache-2-aaaa.old.mesh", true), ("cache-1-aaaa.mesh", false), ("x", false)]
    {
        let mut scene = Scene::whole();
        scene.incarnation(2).membership = Membership::Member;
        scene.node(0, |v| v.state.redis.replicas[1].name = announced.into());
        let plan = scene.plan(NOW);
        assert_eq!(plan.record.incarnations[&name(2)].is_candidate(), counted, "{announced}");
    }
    let mut renamed = Scene::whole();
    renamed.incarnation(2).membership = Membership::Member;
    renamed.node(2, |v| v.state.mesh.dns_name = "renamed.mesh".into());
    renamed.node(0, |v| v.state.redis.replicas[1].name = "renamed.mesh".into());
    assert!(renamed.plan(NOW).record.incarnations[&name(2)].is_candidate());
}

#[test]
fn a_replica_that_the_master_goes_on_without_is_no_candidate() {
    let rows: [(&str, u32, Edit, bool); 7] = [
        ("it is counted", 3, |_| {}, true),
        ("it is not, and another one is", 3, |s| s.attach(&[1]), false),
        ("none is: the master waits for one", 3, |s| s.attach(&[]), true),
        (
            "another one is that is no candidate",
            3,
            |s| {
                s.attach(&[1]);
                s.incarnation(1).membership = Membership::Member;
                s.node(1, |v| v.state.redis.link = Link::Down);
            },
            true,
        ),
        (
            "two are needed for a write, and one is counted",
            3,
            |s| {
                s.attach(&[1]);
                s.master().quorum = Some(Quorum { min_replicas: 2, max_lag_seconds: 8 });
                s.node(0, |v| v.state.redis.min_replicas = 2);
            },
            false,
        ),
        ("of two nodes", 2, |s| s.attach(&[]), false),
        ("it is silent, and counted still", 3, |s| s.silent(2, 60), true),
    ];
    for (what, nodes, edit, candidate) in rows {
        let mut scene = Scene::whole();
        scene.only(nodes);
        edit(&mut scene);
        let replica = name(nodes - 1);
        let plan = scene.plan(NOW);
        assert_eq!(plan.record.incarnations[&replica].is_candidate(), candidate, "{what}");
        assert_eq!(has_event(&plan, EventReason::ReplicaOutOfSync), !candidate, "{what}");
    }
}

#[test]
fn a_node_has_leave_to_replicate_when_it_could() {
    let rows: [(&str, Edit, bool); 6] = [
        ("it runs", |_| {}, true),
        ("it does not answer", |s| s.silent(2, 1), false),
        ("it loads", |s| s.node(2, |v| v.state.redis.loading = true), false),
        ("it has no name", |s| s.node(2, |v| v.state.mesh.dns_name.clear()), false),
        ("it is shut off", |s| s.mesh().devices[2].tags = vec![QUARANTINE.into()], false),
        (
            "the master is not well",
            |s| s.node(0, |v| v.state.redis.process = Process::Stuck),
            false,
        ),
    ];
    for (what, edit, member) in rows {
        let mut scene = Scene::whole();
        scene.incarnation(2).membership = Membership::Joined;
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(plan.record.incarnations[&name(2)].is_member(), member, "{what}");
    }
}

#[test]
fn a_sync_that_takes_long_is_told_with_how_far_it_is() {
    let mib = |number: u64| number << 20;
    let stalls = |silent_ms, done, total, attempts| {
        let mut scene = Scene::whole();
        scene.incarnation(2).membership = Membership::Member;
        scene.node(2, |v| {
            let redis = &mut v.state.redis;
            redis.link = Link::Syncing;
            (redis.silent_ms, redis.sync_done_bytes, redis.sync_total_bytes) =
                (silent_ms, mib(done), mib(total));
            redis.health.syncs_in_a_row = attempts;
        });
        let plan = scene.plan(NOW);
        let told = degraded(&plan).0 == Reason::SyncStalled;
        (told, plan.waits[0].what.clone(), wait_for(&plan, "to be in sync").unwrap().0)
    };
    assert_eq!(
        stalls(0, 34, 100, 1),
        (false, "cache-2-aaaa to be in sync (full sync, 34 of 100 MiB)".into(), Some(120))
    );
    let words = |done, total, attempts| stalls(0, done, total, attempts).1;
    assert!(words(34, 0, 2).ends_with("(full sync, 34 MiB so far, attempt 2)"), "from memory");
    assert!(words(0, 0, 1).ends_with("(full sync begins)"));
    assert_eq!(stalls(119_999, 0, 0, 1).2, Some(0));
    assert!(!stalls(119_999, 0, 0, 1).0);
    assert!(stalls(120_000, 0, 0, 1).0);
}

#[test]
fn who_was_given_up_may_be_attached_until_the_master_knows() {
    let rows: [(&str, Edit, bool); 4] = [
        ("the master knows", |_| {}, false),
        ("it was not told yet", |s| s.node(0, |v| v.state.configured = "x".into()), true),
        ("it does not answer", |s| s.silent(0, 1), true),
        (
            "it is not confirmed",
            |s| {
                s.record.epoch = 2;
                (s.master().epoch, s.master().confirmed) = (2, false);
            },
            true,
        ),
    ];
    for (what, edit, member) in rows {
        let mut scene = Scene::whole();
        scene.give_up(2, 5);
        scene.configure();
        edit(&mut scene);
        let after = scene.plan(NOW).record.incarnations.remove(&name(2)).unwrap();
        assert_eq!(after.is_member(), member, "{what}");
        assert!(after.has_joined(), "{what}");
    }
}
