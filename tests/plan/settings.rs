//! What the nodes are told to be: the rules of `plan/settings.rs`.

use akash_redis::api::conditions::{ConditionStatus, ConditionType, Reason};
use akash_redis::api::types::{Password, User};
use akash_redis::model::incarnation::{Membership, Quarantine};
use akash_redis::model::kept_copy::hash;
use akash_redis::model::node::{Link, Process, RefusedSetting, Role};
use akash_redis::model::step::{Command, Quorum, ReplicationGrant};
use akash_redis::plan::Plan;

use crate::scene::{NOW, Scene, ago, commands, configured, degraded, detached, failing_over, name};

/// Two nodes, and the master does not count its replica any more.
#[test]
fn the_record_says_that_a_master_may_write_alone_before_it_is_told_so() {
    let mut scene = Scene::whole();
    scene.record.incarnations.remove(&name(2));
    scene.cluster.spec.nodes = 2;
    scene.node(0, |v| v.state.redis.replicas.clear());
    scene.node(1, |v| v.state.redis.link = Link::Down);
    let plan = scene.plan(NOW);
    let told = configured(&plan).into_iter().find(|(n, _)| *n == name(0)).map(|(_, s)| s.quorum);
    let alone = Some(Quorum { min_replicas: 0, max_lag_seconds: 8 });
    assert_eq!((told, plan.record.master.unwrap().quorum), (alone, alone));
}

type Edit = fn(&mut Scene);

/// What the master is told that a write needs; `None` when it has what it shall have.
fn told(scene: &Scene) -> Option<Quorum> {
    let all = configured(&scene.plan(NOW));
    all.into_iter().find(|(n, _)| *n == name(0)).map(|(_, s)| s.quorum)
}

fn needs(min_replicas: u32) -> Option<Quorum> {
    Some(Quorum { min_replicas, max_lag_seconds: 8 })
}

#[test]
fn max_lag_is_shorter_than_down_after() {
    for (down_after, max_lag) in [("10s", 8), ("5s", 3), ("60s", 58)] {
        let mut scene = Scene::whole();
        scene.cluster.spec.failover.down_after = down_after.parse().unwrap();
        scene.node(0, |v| v.state.configured = "other".into());
        assert_eq!(told(&scene).unwrap().max_lag_seconds, max_lag, "{down_after}");
    }
}

/// It rises when it can be met, and falls when no other node is taken for one that has all writes.
#[test]
fn a_write_needs_a_replica_as_long_as_one_may_take_over() {
    let gone: Edit = |s| {
        s.node(1, |v| v.state.redis.link = Link::Down);
        s.attach(&[]);
    };
    let out_of_sync: Edit = |s| s.incarnation(1).lower(Membership::Member);
    let alone: Edit = |s| s.node(0, |v| v.state.redis.min_replicas = 0);
    let in_force: Edit = |s| s.master().quorum = needs(0);
    let rows: [(&str, u32, &[Edit], Option<Quorum>); 10] = [
        ("two nodes in sync", 2, &[], None),
        ("the replica is not counted any more", 2, &[gone], needs(0)),
        ("it was struck", 2, &[gone, out_of_sync], needs(0)),
        (
            "it was, and the master was told so",
            2,
            &[gone, out_of_sync, alone, |s| s.configure()],
            None,
        ),
        (
            "it is back, and its master counts it",
            2,
            &[out_of_sync, alone, |s| s.node(0, |v| v.state.configured = "x".into())],
            needs(1),
        ),
        (
            "it is back, and syncs still",
            2,
            &[
                out_of_sync,
                alone,
                |s| s.node(1, |v| v.state.redis.link = Link::Syncing),
                |s| s.node(0, |v| v.state.configured = "x".into()),
            ],
            needs(0),
        ),
        (
            "three nodes: a minimum that was in force stays",
            3,
            &[
                gone,
                out_of_sync,
                |s| s.incarnation(2).lower(Membership::Member),
                |s| s.node(2, |v| v.state.redis.link = Link::Down),
                |s| s.node(0, |v| v.state.configured = "x".into()),
            ],
            needs(1),
        ),
        (
            "three nodes: one that never was does not rise by itself",
            3,
            &[
                gone,
                in_force,
                alone,
                out_of_sync,
                |s| s.incarnation(2).lower(Membership::Member),
                |s| s.node(2, |v| v.state.redis.link = Link::Down),
                |s| s.node(0, |v| v.state.configured = "x".into()),
            ],
            needs(0),
        ),
        (
            "one node",
            1,
            &[|s| s.node(0, |v| v.state.configured = "x".into()), in_force, alone],
            needs(0),
        ),
        (
            "one that was given up is no replica",
            2,
            &[
                gone,
                |s| s.give_up(1, 5),
                in_force,
                alone,
                |s| s.node(0, |v| v.state.configured = "x".into()),
            ],
            needs(0),
        ),
    ];
    for (what, nodes, edits, expected) in rows {
        let mut scene = Scene::whole();
        scene.only(nodes);
        edits.iter().for_each(|edit| edit(&mut scene));
        assert_eq!(told(&scene), expected, "{what}");
    }
}

#[test]
fn the_record_keeps_the_weakest_quorum_that_may_be_in_force() {
    let noted = |edit: &dyn Fn(&mut Scene)| {
        let mut scene = Scene::whole();
        edit(&mut scene);
        let quorum = scene.plan(NOW).record.master.unwrap().quorum.unwrap();
        (quorum.min_replicas, quorum.max_lag_seconds)
    };
    let reports = |min, lag| {
        move |s: &mut Scene| {
            s.node(0, |v| {
                (v.state.redis.min_replicas, v.state.redis.max_lag_seconds) = (min, lag);
            });
        }
    };
    assert_eq!(noted(&|_| {}), (1, 8));
    assert_eq!(noted(&reports(0, 8)), (0, 8), "it reports less");
    assert_eq!(noted(&reports(1, 20)), (1, 20), "it reports a longer lag");
    let known = |s: &mut Scene| {
        s.master().quorum = Some(Quorum { min_replicas: 0, max_lag_seconds: 30 });
    };
    assert_eq!(noted(&known), (1, 8), "it has what it shall have: that is exact");
    let other_settings = |s: &mut Scene| {
        known(s);
        s.node(0, |v| v.state.configured = "other".into());
    };
    assert_eq!(noted(&other_settings), (0, 30), "something may be on its way to it");
    let unknown = |s: &mut Scene| s.master().quorum = None;
    assert_eq!(noted(&unknown), (1, 8), "a record of an earlier version");
    let silent = |s: &mut Scene| {
        reports(0, 30)(s);
        s.silent(0, 1);
    };
    assert_eq!(noted(&silent), (1, 8), "its word is old");
}

/// A promotion that nobody hears of must not make a second master that writes alone.
#[test]
fn a_promotion_is_sent_with_what_the_others_can_meet() {
    let rows: [(&str, u32, Edit, u32); 9] = [
        ("three nodes", 3, |_| {}, 1),
        ("three nodes, one of which never needed any", 3, |s| s.master().quorum = needs(0), 1),
        (
            "and nobody else is there",
            3,
            |s| {
                s.master().quorum = needs(0);
                [0, 2].into_iter().for_each(|n| s.silent(n, 1));
            },
            0,
        ),
        (
            "nobody else is there, and it needed one",
            3,
            |s| {
                [0, 2].into_iter().for_each(|n| s.silent(n, 1));
            },
            1,
        ),
        (
            "nobody knows what was needed",
            3,
            |s| {
                s.master().quorum = None;
                [0, 2].into_iter().for_each(|n| s.silent(n, 1));
            },
            1,
        ),
        ("two nodes, and the other one is there", 2, |_| {}, 1),
        ("two nodes, and it is not", 2, |s| s.node(0, |v| v.connected = false), 0),
        (
            "two nodes, and its redis starts",
            2,
            |s| {
                s.node(0, |v| v.state.redis.process = Process::Starting);
            },
            0,
        ),
        (
            "two nodes, and it is in quarantine",
            2,
            |s| {
                s.incarnation(0).quarantined =
                    Some(Quarantine { epoch: 2, at: ago(5), in_force: Some(ago(4)) });
            },
            0,
        ),
    ];
    for (what, nodes, edit, min_replicas) in rows {
        let mut scene = Scene::whole();
        scene.only(nodes);
        scene.fenced();
        scene.failover().eligible.retain(|e| e.incarnation == name(1));
        scene.heard(1, detached(1, |_| {}));
        if nodes > 2 {
            scene.heard(2, detached(2, |_| {}));
        }
        scene.node(0, |v| v.connected = true);
        edit(&mut scene);
        let promoted = commands(&scene.plan(NOW)).into_iter().find_map(|(_, c)| match c {
            Command::Promote { quorum, .. } => Some(quorum),
            _ => None,
        });
        assert_eq!(promoted, needs(min_replicas), "{what}");
    }
}

#[test]
fn what_may_be_in_force_on_a_master_is_what_is_known_of_it() {
    let hangs = |s: &mut Scene| s.hangs(0, 10);
    let rows: [(&str, Edit, Option<(u32, u32)>); 6] = [
        ("by the record", |_| {}, Some((1, 8))),
        ("by its last report", |s| s.master().quorum = None, Some((1, 8))),
        (
            "it reported another one",
            |s| {
                s.master().quorum = None;
                s.node(0, |v| v.state.redis.max_lag_seconds = 20);
            },
            Some((1, 20)),
        ),
        (
            "it reported in another epoch: it may write alone",
            |s| {
                s.master().quorum = None;
                s.node(0, |v| v.state.highest.epoch = 0);
            },
            None,
        ),
        (
            "it was no master",
            |s| {
                s.master().quorum = None;
                s.node(0, |v| v.state.redis.role = Role::Replica);
            },
            None,
        ),
        (
            "it was fenced",
            |s| {
                s.master().quorum = None;
                s.node(0, |v| v.state.redis.fenced = true);
            },
            None,
        ),
    ];
    for (what, edit, expected) in rows {
        let mut scene = Scene::three();
        hangs(&mut scene);
        edit(&mut scene);
        let plan = scene.plan(NOW);
        let quorum = failing_over(&plan).map(|f| (f.quorum.min_replicas, f.quorum.max_lag_seconds));
        assert_eq!(quorum, expected, "{what}");
        assert!(quorum.is_some() || degraded(&plan).0 == Reason::FailoverBlocked, "{what}");
    }
}

#[test]
fn a_node_is_configured_when_its_settings_differ() {
    let rows: [(&str, Edit, &[u32]); 7] = [
        ("nothing differs", |_| {}, &[]),
        ("one has others", |s| s.node(1, |v| v.state.configured = "x".into()), &[1]),
        (
            "the manifest changed",
            |s| drop(s.cluster.spec.redis.config.insert("maxclients".into(), "7".into())),
            &[0, 1, 2],
        ),
        (
            "it does not answer",
            |s| {
                s.node(1, |v| v.state.configured = "x".into());
                s.silent(1, 1);
            },
            &[],
        ),
        (
            "its redis starts",
            |s| {
                s.node(1, |v| v.state.configured = "x".into());
                s.node(1, |v| v.state.redis.process = Process::Starting);
            },
            &[],
        ),
        (
            "the master changes",
            |s| {
                s.node(1, |v| v.state.configured = "x".into());
                s.switching(1);
            },
            &[],
        ),
        (
            "the cluster is paused",
            |s| {
                s.node(1, |v| v.state.configured = "x".into());
                s.cluster.spec.paused = true;
            },
            &[],
        ),
    ];
    for (what, edit, expected) in rows {
        let mut scene = Scene::whole();
        edit(&mut scene);
        let told: Vec<_> = configured(&scene.plan(NOW)).into_iter().map(|(n, _)| n).collect();
        assert_eq!(told, expected.iter().map(|n| name(*n)).collect::<Vec<_>>(), "{what}");
    }
}

#[test]
fn the_settings_are_those_of_the_manifest() {
    let mut scene = Scene::whole();
    let redis = &mut scene.cluster.spec.redis;
    let config = [("maxclients", "7"), ("maxmemory", "100mb"), ("appendonly", "no")];
    redis.config = config.map(|(k, v)| (k.into(), v.into())).into();
    redis.users.push(User {
        name: "app".into(),
        rules: "~* +@all".into(),
        password_from: None,
        password_sha256: Some("ab".into()),
        passwords: vec![Password::Sha256("cd".into())],
    });
    let all = configured(&scene.plan(NOW));
    let settings = |n| all.iter().find(|(who, _)| *who == name(n)).unwrap().1.clone();
    let (master, replica) = (settings(0), settings(1));
    assert_eq!(master.redis_config, [("maxclients".to_owned(), "7".to_owned())]);
    assert_eq!((master.append_only, master.maxmemory_bytes), (false, 100 << 20));
    assert_eq!(master.users[0].name, "app");
    assert_eq!(master.users[0].password_sha256, ["ab", "cd"]);
    assert_eq!(master.users[0].rules, "~* +@all");
    let granted = [1, 2].map(|n| ReplicationGrant { incarnation: name(n), epoch: 1 });
    assert_eq!((master.replicas, replica.replicas), (granted.to_vec(), vec![]));
    assert_eq!((master.quorum, replica.quorum), (needs(1).unwrap(), needs(0).unwrap()));
}

#[test]
fn who_had_leave_and_is_gone_may_not_replicate_any_more() {
    let mut scene = Scene::whole();
    scene.give_up(2, 5);
    let all = configured(&scene.plan(NOW));
    assert_eq!(all[0].1.replicas, [ReplicationGrant { incarnation: name(1), epoch: 1 }]);
}

/// What a node has anyway is not sent: an older agent would refuse the name.
#[test]
fn settings_that_are_as_they_are_are_not_sent_and_names_of_rules_are_written_out() {
    let mut scene = Scene::whole();
    let redis = &mut scene.cluster.spec.redis;
    let config = [
        ("databases", "16"),
        ("client-output-buffer-limit", "normal 0 0 0 slave 256mb 64mb 60 pubsub 32mb 8mb 60"),
    ];
    redis.config = config.map(|(k, v)| (k.into(), v.into())).into();
    redis.users.push(User {
        name: "app".into(),
        rules: "full -keys".into(),
        password_from: None,
        password_sha256: Some("ab".into()),
        passwords: Vec::new(),
    });
    let (_, settings) = configured(&scene.plan(NOW)).remove(0);
    let limits = "normal 0 0 0 pubsub 33554432 8388608 60";
    let sent = |name: &str| {
        settings.redis_config.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    };
    assert_eq!(sent("client-output-buffer-limit"), Some(limits));
    assert_eq!(sent("databases"), None);
    let rules = &settings.users[0].rules;
    assert!(rules.starts_with("~* &* +@all -replicaof") && rules.ends_with(" -keys"), "{rules}");
}

fn said(plan: &Plan, kind: ConditionType) -> (ConditionStatus, Reason, String) {
    let condition = plan.status.condition(kind).unwrap().clone();
    (condition.status, condition.reason, condition.message)
}

fn lru() -> RefusedSetting {
    RefusedSetting {
        name: "config.maxmemory-policy".into(),
        value: "lru".into(),
        reason: "argument(s) must be one of the following: volatile-lru".into(),
    }
}

#[test]
fn what_redis_refuses_is_told_with_its_words_and_nodes_and_stops_nothing() {
    let mut scene = Scene::whole();
    for n in [0, 2] {
        scene.node(n, |v| v.state.refused = vec![lru()]);
    }
    let plan = scene.plan(NOW);
    assert_eq!(plan.steps, [], "it is not sent again and again");
    let words = format!(
        "spec.redis.config.maxmemory-policy: redis on {}, {} refused `lru`: {}",
        name(0),
        name(2),
        lru().reason
    );
    assert_eq!(
        said(&plan, ConditionType::SettingsApplied),
        (ConditionStatus::False, Reason::SettingsRefused, words.clone())
    );
    assert_eq!(degraded(&plan), (Reason::SettingsRefused, words));
    assert_eq!(said(&plan, ConditionType::Ready).0, ConditionStatus::True);
    scene.node(1, |v| v.state.redis.link = Link::Down);
    scene.node(1, |v| v.state.redis.master_host.clear());
    let told = commands(&scene.plan(NOW));
    assert!(
        told.iter().any(|(n, c)| *n == name(1) && matches!(c, Command::Follow { .. })),
        "a replica follows a master that refused a setting: {told:?}"
    );
}

#[test]
fn settings_are_applied_once_every_node_has_them() {
    let applied = |edit: &dyn Fn(&mut Scene)| {
        let mut scene = Scene::whole();
        edit(&mut scene);
        said(&scene.plan(NOW), ConditionType::SettingsApplied)
    };
    assert_eq!(applied(&|_| {}).1, Reason::SettingsInForce);
    let other = |s: &mut Scene| s.node(1, |v| v.state.configured = "other".into());
    let (status, reason, message) = applied(&other);
    assert_eq!((status, reason), (ConditionStatus::False, Reason::SettingsPending));
    assert_eq!(message, format!("not in force yet on {}: they are being sent", name(1)));
    let old = |s: &mut Scene| {
        other(s);
        s.node(1, |v| v.state.refused = vec![lru()]);
    };
    assert_eq!(applied(&old).1, Reason::SettingsPending, "that was said of other settings");
    let silent = |s: &mut Scene| s.silent(2, 1);
    assert!(applied(&silent).2.ends_with("its agent is not heard"));
    let paused = |s: &mut Scene| {
        s.cluster.spec.paused = true;
        other(s);
    };
    assert!(applied(&paused).2.ends_with("spec.paused is set"));
}

/// What nodes keep for an operator that lost its store is that of the newest record.
#[test]
fn a_node_that_keeps_an_older_copy_is_given_the_newest_and_one_that_keeps_none_is_left_alone() {
    let mut scene = Scene::whole();
    scene.node(1, |v| v.state.kept_copy = Some(String::new()));
    let told = configured(&scene.plan(NOW));
    let [(who, settings)] = told.as_slice() else { panic!("{told:?}") };
    let copy = settings.copy.clone().unwrap();
    assert_eq!(*who, name(1));
    scene.node(1, |v| v.state.kept_copy = Some(hash(copy.as_bytes())));
    assert_eq!(scene.plan(NOW).steps, vec![], "it has it");
    // Whatever a copy says and a reading does not.
    let edits: [Edit; 3] = [
        |s| s.cluster.metadata.generation = Some(9),
        |s| s.cluster.metadata.annotations.insert("team".into(), "a".into()).map_or((), drop),
        |s| s.incarnation(2).epoch_floor = 1,
    ];
    for edit in edits {
        let mut other = scene.clone();
        edit(&mut other);
        let told = configured(&other.plan(NOW));
        assert_eq!(told.iter().map(|(n, _)| n).collect::<Vec<_>>(), [&name(1)]);
        assert_ne!(told[0].1.copy.as_ref(), Some(&copy));
    }
    // Settings that it lacks bring it along.
    scene.node(1, |v| v.state.configured = "other".into());
    assert!(configured(&scene.plan(NOW)).iter().all(|(_, s)| s.copy.is_some()));
    scene.node(1, |v| v.state.kept_copy = None);
    assert!(configured(&scene.plan(NOW)).iter().all(|(_, s)| s.copy.is_none()));
}

/// As after a change that was given up, or a recovery: the master stays, under another epoch.
#[test]
fn a_replica_is_told_to_follow_before_anything_else_under_a_new_epoch() {
    let mut scene = Scene::whole();
    scene.record.epoch = 9;
    scene.record.data_epoch = 9;
    scene.master().epoch = 9;
    scene.node(0, |v| v.state.highest.epoch = 9);
    for n in [1, 2] {
        scene.node(n, |v| {
            v.state.configured = "other".into();
            v.state.kept_copy = Some(String::new());
        });
    }
    let told = |scene: &Scene| {
        configured(&scene.plan(NOW)).into_iter().map(|(n, _)| n).collect::<Vec<_>>()
    };
    assert_eq!(told(&scene), [name(0)], "its leave to replicate is new");
    scene.configure();
    assert_eq!(told(&scene), []);
    assert_eq!(crate::scene::follows(&scene.plan(NOW)), [name(1), name(2)]);
    scene.node(1, |v| v.state.highest.epoch = 9);
    assert_eq!(told(&scene), [name(1)], "it was told");
}
