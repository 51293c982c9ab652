//! How nodes fare and what is done about it: the rules of `plan/health.rs`, `plan/repair.rs` and of
//! the pauses in `plan/death.rs`.

use akash_redis::api::annotations::ACCEPT_LOSS;
use akash_redis::api::conditions::{ConditionStatus, ConditionType, Reason};
use akash_redis::api::events::EventReason;
use akash_redis::model::change::Change;
use akash_redis::model::node::{Link, Process, Refusal, Space};
use akash_redis::model::record::Repeats;
use akash_redis::model::step::Command;
use akash_redis::model::time::UnixMs;
use akash_redis::plan::Plan;

use crate::scene::{
    NOW, Scene, ago, commands, degraded, failing_over, given_up, has_event, history, name, wait_for,
};

type Edit = fn(&mut Scene);

const MIB: u64 = 1 << 20;

/// The master answers so to a write, since this many seconds.
fn refuses(scene: &mut Scene, code: &str, seconds: u64) {
    let refusal =
        Refusal { code: code.into(), words: "for some reason".into(), since_ms: seconds * 1000 };
    scene.node(0, |v| v.state.redis.health.refusal = Some(refusal));
}

/// Node 2 lacks so many bytes, the oldest since this many milliseconds.
fn lags(scene: &mut Scene, bytes: i64, behind_ms: u64) {
    scene.node(0, |v| {
        v.state.redis.offset = 100 + bytes;
        v.state.redis.replicas[0].offset = 100 + bytes;
        v.state.redis.replicas[1].behind_ms = behind_ms;
    });
}

fn full(scene: &mut Scene, n: u32) {
    let space = Space { free: 100 * MIB, total: 4096 * MIB };
    scene.node(n, |v| v.state.volume = Some(space));
}

fn told(plan: &Plan, reason: Reason) -> bool {
    // The first one is the reason, the others are among the sentences.
    let (first, message) = degraded(plan);
    let words = match reason {
        Reason::WritesRefused => "refuses writes",
        Reason::MemoryFull => "maxmemory",
        Reason::VolumeFull => "is full",
        Reason::PersistenceFailing => "could not write",
        Reason::RedisStuck => "answers nobody",
        Reason::SyncStalled => "full syncs in a row",
        Reason::RedisCrashLooping => "times in a row as soon as it was started",
        Reason::ReplicaLagging => "behind the master",
        Reason::FailoverPaused => "is not replaced before",
        other => panic!("{other}"),
    };
    first == reason || message.contains(words)
}

#[test]
fn ready_means_that_an_application_can_write_and_a_failover_would_find_somebody() {
    let mib = 1_i64 << 20;
    let rows: [(&str, &dyn Fn(&mut Scene), Reason); 10] = [
        ("an agent of an earlier version says nothing of it", &|_| {}, Reason::AllInSync),
        ("no replica counts", &|s| refuses(s, "NOREPLICAS", 0), Reason::WritesRefused),
        ("its volume is full", &|s| refuses(s, "MISCONF", 1), Reason::WritesRefused),
        ("its memory is", &|s| refuses(s, "OOM", 1), Reason::WritesRefused),
        ("a replica is frozen", &|s| s.hangs(2, 0), Reason::NodesNotReady),
        (
            "the master does not count one",
            &|s| s.node(0, |v| v.state.redis.replicas[1].lag_seconds = 9),
            Reason::NodesNotReady,
        ),
        ("one lacks much for long", &|s| lags(s, mib + 1, 5000), Reason::ReplicaLagging),
        ("one lacks much since a moment", &|s| lags(s, 280 * mib, 4999), Reason::AllInSync),
        ("one lacks little", &|s| lags(s, mib, 60_000), Reason::AllInSync),
        (
            "one lacks no more than it may",
            &|s| {
                s.cluster.spec.failover.max_lag.0 = 300 * MIB;
                lags(s, 280 * mib, 60_000);
            },
            Reason::AllInSync,
        ),
    ];
    for (what, edit, reason) in rows {
        let mut scene = Scene::whole();
        edit(&mut scene);
        let plan = scene.plan(NOW);
        let ready = plan.status.conditions.iter().find(|c| c.kind == ConditionType::Ready).unwrap();
        assert_eq!(ready.reason, reason, "{what}: {}", ready.message);
        assert_eq!(ready.status, (reason == Reason::AllInSync).into(), "{what}");
        let progressing =
            plan.status.conditions.iter().find(|c| c.kind == ConditionType::Progressing).unwrap();
        let rests = progressing.status == ConditionStatus::False;
        assert_eq!(rests, reason == Reason::AllInSync, "{what}: {}", progressing.message);
    }
    let mut single = Scene::whole();
    single.only(1);
    single.cluster.spec.resources.data = None;
    refuses(&mut single, "MISCONF", 60);
    let ready = single.plan(NOW).status.conditions[0].clone();
    assert_eq!((ready.kind, ready.reason), (ConditionType::Ready, Reason::WritesRefused));
}

#[test]
fn what_is_wrong_with_a_node_that_answers_is_told() {
    let rows: [(&str, &dyn Fn(&mut Scene), Option<Reason>); 13] = [
        ("nothing", &|_| {}, None),
        ("replicas away for a moment", &|s| refuses(s, "NOREPLICAS", 9), None),
        ("for long", &|s| refuses(s, "NOREPLICAS", 10), Some(Reason::WritesRefused)),
        ("something else", &|s| refuses(s, "ERR", 10), Some(Reason::WritesRefused)),
        ("memory", &|s| refuses(s, "OOM", 1), Some(Reason::MemoryFull)),
        ("a master's disk", &|s| refuses(s, "MISCONF", 1), Some(Reason::PersistenceFailing)),
        (
            "a master's full disk",
            &|s| {
                refuses(s, "MISCONF", 1);
                full(s, 0);
            },
            Some(Reason::VolumeFull),
        ),
        ("a replica's full disk", &|s| full(s, 2), Some(Reason::VolumeFull)),
        (
            "its log",
            &|s| s.node(2, |v| v.state.redis.health.unwritten.log = true),
            Some(Reason::PersistenceFailing),
        ),
        ("a frozen replica", &|s| s.hangs(2, 1), Some(Reason::RedisStuck)),
        ("two syncs", &|s| s.node(2, |v| v.state.redis.health.syncs_in_a_row = 2), None),
        (
            "three syncs",
            &|s| s.node(2, |v| v.state.redis.health.syncs_in_a_row = 3),
            Some(Reason::SyncStalled),
        ),
        ("lag", &|s| lags(s, 280 << 20, 60_000), Some(Reason::ReplicaLagging)),
    ];
    for (what, edit, expected) in rows {
        let mut scene = Scene::whole();
        edit(&mut scene);
        let plan = scene.plan(NOW);
        match expected {
            None => assert_eq!(degraded(&plan).0, Reason::AsExpected, "{what}"),
            Some(reason) => assert!(told(&plan, reason), "{what}: {:?}", degraded(&plan)),
        }
    }
}

/// Who takes over from the master in a planned way.
fn target(plan: &Plan) -> Option<String> {
    match &plan.record.change {
        Some(Change::Switchover(switchover)) => Some(switchover.target.0.clone()),
        _ => None,
    }
}

#[test]
fn a_master_whose_volume_takes_no_writes_gives_way_to_a_replica_that_has_room() {
    let unwritten = |s: &mut Scene, n| s.node(n, |v| v.state.redis.health.unwritten.log = true);
    let rows: [(&str, &dyn Fn(&mut Scene), Option<u32>); 9] = [
        ("since downAfter", &|_| {}, Some(1)),
        ("since less", &|s| refuses(s, "MISCONF", 9), None),
        ("it refuses for another reason", &|s| refuses(s, "NOREPLICAS", 60), None),
        ("one replica's volume is full", &|s| full(s, 1), Some(2)),
        ("one is further", &|s| s.node(2, |v| v.state.redis.offset = 101), Some(2)),
        (
            "nobody has room",
            &|s| {
                full(s, 1);
                unwritten(s, 2);
            },
            None,
        ),
        (
            "nobody is in sync",
            &|s| (1..3).for_each(|n| s.node(n, |v| v.state.redis.link = Link::Down)),
            None,
        ),
        ("it was moved a short time ago", &|s| s.record.relieved = Some(ago(599)), None),
        ("some time ago", &|s| s.record.relieved = Some(ago(600)), Some(1)),
    ];
    for (what, edit, expected) in rows {
        let mut scene = Scene::whole();
        refuses(&mut scene, "MISCONF", 10);
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(target(&plan), expected.map(|n| name(n).0), "{what}");
        assert_eq!(has_event(&plan, EventReason::MasterRelieved), expected.is_some(), "{what}");
        if expected.is_some() {
            assert_eq!(plan.record.relieved, Some(UnixMs(NOW)), "{what}");
        }
    }
    let mut scene = Scene::whole();
    refuses(&mut scene, "MISCONF", 4);
    let (deadline, then) = wait_for(&scene.plan(NOW), "to write to its volume").expect("a wait");
    assert_eq!((deadline, then.as_str()), (Some(6), "a replica that can takes over"));
}

#[test]
fn masters_that_live_are_not_replaced_one_after_the_other() {
    let repeats = |count, seconds| {
        move |s: &mut Scene| {
            s.record.repeats = Some(Repeats { count, last: ago(seconds) });
        }
    };
    let rows: [(&str, &dyn Fn(&mut Scene), Option<u32>); 9] = [
        ("the first one", &|_| {}, Some(1)),
        ("a second one too soon", &repeats(1, 179), None),
        ("a second one", &repeats(1, 180), Some(2)),
        ("a third one too soon", &repeats(2, 359), None),
        ("a third one", &repeats(2, 360), Some(3)),
        ("it is never longer than half an hour", &repeats(30, 1800), Some(31)),
        ("long ago", &repeats(3, 3600), Some(1)),
        (
            "a person does not wait",
            &|s| {
                repeats(3, 1)(s);
                s.annotate(ACCEPT_LOSS, "1");
            },
            Some(4),
        ),
        (
            "its redis exited: that is another matter",
            &|s| {
                repeats(3, 1)(s);
                s.node(0, |v| v.state.redis.process = Process::Exited);
            },
            Some(3),
        ),
    ];
    for (what, edit, count) in rows {
        let mut scene = Scene::whole();
        scene.hangs(0, 60);
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(failing_over(&plan).is_some(), count.is_some(), "{what}");
        if let Some(count) = count {
            assert_eq!(plan.record.repeats.map_or(0, |r| r.count), count, "{what}");
        } else {
            assert!(told(&plan, Reason::FailoverPaused), "{what}: {:?}", degraded(&plan));
            assert!(degraded(&plan).1.contains("--accept-loss"), "{what}");
        }
    }
    let mut scene = Scene::whole();
    scene.hangs(0, 60);
    repeats(1, 100)(&mut scene);
    let (deadline, then) = wait_for(&scene.plan(NOW), "to answer again").expect("a wait");
    assert_eq!((deadline, then.as_str()), (Some(80), "it is replaced"));
}

/// Redis of node 2 ended three times as soon as it was started.
fn loops(scene: &mut Scene, n: u32) {
    scene.node(n, |v| {
        v.state.redis.process = Process::Exited;
        v.state.redis.link = Link::Down;
        v.state.failed_starts = 3;
        v.state.failed_start_line = "Bad file format reading the append only file".into();
    });
}

fn dropped(plan: &Plan) -> Vec<(String, bool)> {
    let drops = |(name, command)| match command {
        Command::Discard { must_keep } => {
            Some((akash_redis::model::ids::IncarnationName::to_string(&name), must_keep))
        }
        _ => None,
    };
    commands(plan).into_iter().filter_map(drops).collect()
}

#[test]
fn a_replica_that_does_not_start_loses_what_it_cannot_start_with() {
    let node = name(2).to_string();
    let rows: [(&str, Edit, Option<bool>); 12] = [
        ("the others are whole", |_| {}, Some(false)),
        (
            "it was killed each time, and runs again and is in sync",
            |s| {
                s.node(2, |v| {
                    v.state.redis.process = Process::Running;
                    v.state.redis.link = Link::Up;
                });
            },
            None,
        ),
        (
            "it loads, and will end",
            |s| {
                s.node(2, |v| {
                    (v.state.redis.process, v.state.redis.loading) = (Process::Running, true);
                });
            },
            Some(false),
        ),
        (
            "it may have what the master lacks",
            |s| s.node(2, |v| v.state.history = history("B", 200, 1, 0)),
            Some(true),
        ),
        (
            "its full syncs find no room",
            |s| {
                full(s, 2);
                s.node(2, |v| {
                    (v.state.failed_starts, v.state.redis.process) = (0, Process::Running);
                    v.state.redis.health.syncs_in_a_row = 3;
                });
            },
            Some(false),
        ),
        ("two starts came to nothing", |s| s.node(2, |v| v.state.failed_starts = 2), None),
        ("the master is not heard", |s| s.silent(0, 1), None),
        ("another node is not whole", |s| s.silent(1, 1), None),
        (
            "it is shut off",
            |s| {
                s.mesh().devices[2].tags = vec![crate::scene::QUARANTINE.into()];
                s.incarnation(2).quarantined = Some(akash_redis::model::incarnation::Quarantine {
                    epoch: 1,
                    at: ago(5),
                    in_force: None,
                });
            },
            None,
        ),
        (
            "there is no volume",
            |s| {
                s.cluster.spec.resources.data = None;
                s.configure();
            },
            None,
        ),
        ("it was told a moment ago", |s| s.incarnation(2).rebuilt = Some(ago(119)), Some(false)),
        ("it did not help", |s| s.incarnation(2).rebuilt = Some(ago(120)), None),
    ];
    for (what, edit, expected) in rows {
        let mut scene = Scene::whole();
        loops(&mut scene, 2);
        edit(&mut scene);
        let plan = scene.plan(NOW);
        let expected: Vec<_> = expected.map(|keep| (node.clone(), keep)).into_iter().collect();
        assert_eq!(dropped(&plan), expected, "{what}");
        let own = &plan.record.incarnations[&name(2)];
        if expected.is_empty() {
            assert!(what.starts_with("it did not") != given_up(&scene, &plan).is_empty(), "{what}");
        } else {
            assert!(own.rebuilt.is_some() && !own.is_candidate(), "{what}: nobody counts on it");
        }
        let state = &scene.inventory.nodes[&name(2)].state;
        let runs = state.redis.process == Process::Running && !state.redis.loading;
        let loops = state.failed_starts >= 3 && !runs;
        assert_eq!(told(&plan, Reason::RedisCrashLooping), loops, "{what}: {:?}", degraded(&plan));
    }
}

#[test]
fn the_last_one_with_data_keeps_them() {
    let mut scene = Scene::whole();
    scene.only(1);
    loops(&mut scene, 0);
    let plan = scene.settle(NOW + 3_600_000);
    assert_eq!((dropped(&plan), given_up(&scene, &plan)), (vec![], vec![]));
    assert!(told(&plan, Reason::RedisCrashLooping), "{:?}", degraded(&plan));
    assert!(degraded(&plan).1.contains("Bad file format"), "{:?}", degraded(&plan));
}

#[test]
fn a_master_whose_redis_exited_is_waited_for_when_nobody_else_has_its_data() {
    let mib = 1_i64 << 20;
    let rows: [(&str, &dyn Fn(&mut Scene), bool); 9] = [
        ("both lack much", &|_| {}, true),
        (
            "it loads",
            &|s| {
                s.node(0, |v| {
                    (v.state.redis.process, v.state.redis.loading) = (Process::Running, true);
                });
            },
            true,
        ),
        ("one lacks little", &|s| s.node(1, |v| v.state.redis.offset = 100 + 40 * mib), false),
        ("it may lack so much", &|s| s.cluster.spec.failover.max_lag.0 = 41 * MIB, false),
        ("for downAfter", &|s| s.incarnation(0).redis_down = Some(ago(10)), false),
        ("it does not start", &|s| s.node(0, |v| v.state.failed_starts = 3), false),
        ("it is silent", &|s| s.silent(0, 1), false),
        (
            "it keeps no log",
            &|s| {
                s.cluster.spec.redis.config.insert("appendonly".into(), "no".into());
            },
            false,
        ),
        ("a person does not wait", &|s| s.annotate(ACCEPT_LOSS, "1"), false),
    ];
    for (what, edit, waits) in rows {
        let mut scene = Scene::whole();
        scene.node(0, |v| {
            v.state.redis.process = Process::Exited;
            v.state.history = history("A", 100 + 41 * mib, 1, 250);
        });
        scene.incarnation(0).redis_down = Some(ago(9));
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(failing_over(&plan).is_none(), waits, "{what}");
        assert_eq!(wait_for(&plan, "to be back with its own data").is_some(), waits, "{what}");
        assert_eq!(plan.record.epoch == 1, waits, "{what}: nothing is touched");
    }
}
