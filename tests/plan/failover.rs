//! From the epoch to the report: the rules of `plan/failover.rs`.

use std::time::Duration;

use akash_redis::api::annotations::ACCEPT_LOSS;
use akash_redis::api::conditions::Reason;
use akash_redis::api::events::EventReason;
use akash_redis::api::types::WhenMinority;
use akash_redis::model::change::Fence;
use akash_redis::model::ids::IncarnationName;
use akash_redis::model::incarnation::Membership;
use akash_redis::model::interval::Interval;
use akash_redis::model::node::{Link, Process, Role};
use akash_redis::model::record::Promotion;
use akash_redis::model::step::{Command, Quorum};
use akash_redis::model::time::UnixMs;
use akash_redis::plan::Plan;

use crate::scene::{
    NOW, Scene, ago, commands, degraded, detached, detaches, failing_over, has_event, name,
    promoted, replica, wait_for,
};

/// Who had the data fell silent in the middle of the failover; another node answers and is older.
#[test]
fn a_failover_whose_candidates_are_all_silent_names_the_command_that_goes_on() {
    let mut scene = Scene::three();
    scene.failing(NOW - 10_000).eligible.retain(|e| e.incarnation == name(2));
    scene.incarnation(1).lower(Membership::Member);
    for n in [0, 2] {
        scene.node(n, |v| (v.connected, v.heard) = (false, UnixMs(NOW - 20_000)));
    }
    scene.heard(1, detached(1, |_| {}));
    let plan = scene.settle(NOW);
    assert!(promoted(&plan).is_empty());
    let (_, message) = degraded(&plan);
    let told = message.find("none of cache-2-aaaa answers").map(|at| &message[at..]);
    assert!(
        told.is_some_and(|m| m.contains("akash-redis failover cache --accept-loss")),
        "{message}"
    );
    scene
        .cluster
        .metadata
        .annotations
        .insert(ACCEPT_LOSS.to_owned(), scene.record.epoch.to_string());
    assert_eq!(promoted(&scene.settle(NOW + 1_000)), [name(1)], "a person decided");
}

type Edit = fn(&mut Scene);

#[test]
fn an_epoch_begins_unless_somebody_who_cannot_be_asked_may_keep_the_old_master_writable() {
    let hangs: Edit = |s| s.hangs(0, 10);
    let rows: [(&str, Edit, bool); 7] = [
        ("all answer", |_| {}, true),
        ("one does not", |s| s.silent(2, 1), false),
        (
            "two are needed for a write",
            |s| {
                s.silent(2, 1);
                s.master().quorum = Some(Quorum { min_replicas: 2, max_lag_seconds: 8 });
            },
            true,
        ),
        (
            "it may write alone",
            |s| s.master().quorum = Some(Quorum { min_replicas: 0, max_lag_seconds: 8 }),
            false,
        ),
        (
            "redis exited: that is a fence",
            |s| {
                s.silent(2, 1);
                s.node(0, |v| v.state.redis.process = Process::Exited);
            },
            true,
        ),
        (
            "a person accepted the loss",
            |s| {
                s.silent(2, 1);
                s.annotate(ACCEPT_LOSS, "1");
            },
            true,
        ),
        (
            "the manifest did",
            |s| {
                s.silent(2, 1);
                s.cluster.spec.failover.when_minority = WhenMinority::Promote;
            },
            true,
        ),
    ];
    for (what, edit, begins) in rows {
        let mut scene = Scene::three();
        hangs(&mut scene);
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(
            (plan.record.epoch, failing_over(&plan).is_some()),
            (1 + u64::from(begins), begins),
            "{what}"
        );
        if !begins {
            assert_eq!(degraded(&plan).0, Reason::FailoverBlocked, "{what}");
            assert!(detaches(&plan).is_empty(), "{what}: nothing is touched");
        }
    }
}

#[test]
fn what_is_counted_is_written_down_before_anything_is_touched() {
    let mut scene = Scene::three();
    scene.hangs(0, 10);
    scene.node(2, |v| v.state.redis.offset = 90);
    scene.cluster.spec.failover.when_minority = WhenMinority::Promote;
    let plan = scene.plan(NOW);
    let failover = failing_over(&plan).expect("a failover").clone();
    let counted: Vec<_> = failover.eligible.iter().map(|e| (e.run_id.as_str(), e.offset)).collect();
    assert_eq!(counted, [("run-1", 100), ("run-2", 90)]);
    assert_eq!((failover.old, failover.old_epoch, failover.epoch), (name(0), 1, 2));
    assert_eq!((failover.boot_id.as_str(), failover.started), ("boot-0", UnixMs(NOW)));
    assert_eq!(failover.quorum, Quorum { min_replicas: 1, max_lag_seconds: 8 });
    assert_eq!(failover.unaccounted, [name(1), name(2)]);
    assert!(failover.loss_accepted);
}

/// A failover that began so many milliseconds ago; its replicas are attached still.
fn since(ms: u64) -> Scene {
    let mut scene = Scene::three();
    scene.failing(NOW - ms);
    scene.node(0, |v| v.state.redis.process = Process::Stuck);
    scene
}

fn drains(plan: &Plan) -> Vec<(IncarnationName, u32)> {
    let drain = |(name, command)| match command {
        Command::Detach { drain_ms } => Some((name, drain_ms)),
        _ => None,
    };
    commands(plan).into_iter().filter_map(drain).filter(|(n, _)| *n != name(0)).collect()
}

#[test]
fn what_a_redis_that_exited_sent_last_still_arrives() {
    let died = |ms: u64| {
        let mut scene = since(ms);
        let started = scene.failover().started;
        scene.failover().fence = Some(Fence { how: "x".into(), at: started });
        drains(&scene.plan(NOW))
    };
    assert_eq!(died(0), [(name(1), 2_000), (name(2), 2_000)]);
    assert_eq!(died(1_500), [(name(1), 500), (name(2), 500)]);
    assert_eq!(died(2_500), [(name(1), 0), (name(2), 0)]);
    assert_eq!(
        drains(&since(0).plan(NOW)),
        [(name(1), 0), (name(2), 0)],
        "it hangs: links may not end"
    );
}

#[test]
fn an_old_master_that_lives_is_fenced_before_its_replicas_are_detached() {
    let lives: Edit = |s| s.node(0, |v| v.state.redis.process = Process::Running);
    let fenced: Edit = |s| {
        s.node(0, |v| {
            v.state.redis.process = Process::Running;
            (v.state.redis.fenced, v.state.highest.epoch) = (true, 2);
        });
    };
    let ahead: Edit = |s| s.node(0, |v| v.state.redis.offset = 120);
    let rows: [(&str, u64, &[Edit], bool, bool); 10] = [
        ("it takes writes", 0, &[lives], true, false),
        (
            "it is fenced in an earlier epoch",
            0,
            &[fenced, |s| s.node(0, |v| v.state.highest.epoch = 1)],
            true,
            false,
        ),
        ("it is fenced, and one has all", 0, &[fenced], false, true),
        ("it is fenced, and nobody has all yet", 0, &[fenced, ahead], false, false),
        (
            "one has, in another history",
            0,
            &[fenced, |s| s.node(0, |v| v.state.redis.replid = "B".into())],
            false,
            false,
        ),
        (
            "nothing can arrive any more",
            0,
            &[fenced, ahead, |s| {
                (1..3).for_each(|n| s.node(n, |v| v.state.redis.link = Link::Down));
            }],
            false,
            true,
        ),
        (
            "nothing can arrive, and it takes writes",
            0,
            &[lives, |s| (1..3).for_each(|n| s.node(n, |v| v.state.redis.link = Link::Down))],
            true,
            true,
        ),
        ("two seconds are enough", 2_000, &[lives, ahead], false, true),
        ("a moment less", 1_999, &[fenced, ahead], false, false),
        (
            "one was detached already",
            0,
            &[lives, ahead, |s| {
                s.failover().detached_at.insert(name(1), ago(0));
            }],
            false,
            true,
        ),
    ];
    for (what, ms, edits, fences, detaches) in rows {
        let mut scene = since(ms);
        edits.iter().for_each(|edit| edit(&mut scene));
        let plan = scene.plan(NOW);
        let told = commands(&plan).iter().any(|(n, c)| *n == name(0) && *c == Command::Fence);
        assert_eq!((told, !drains(&plan).is_empty()), (fences, detaches), "{what}");
        let waits = wait_for(&plan, "the last writes of cache-0-aaaa to arrive");
        assert_eq!(waits.is_some(), !detaches, "{what}");
    }
    let mut scene = since(0);
    lives(&mut scene);
    let (until, then) = wait_for(&scene.plan(NOW), "the last writes of").expect("a wait");
    assert_eq!((until, then.as_str()), (Some(2), "its replicas are detached without it"));
}

#[test]
fn everybody_who_may_be_attached_is_detached_under_this_epoch() {
    let rows: [(&str, Edit, bool, bool); 8] = [
        ("it is attached", |_| {}, true, false),
        ("it was detached under this epoch", |s| s.heard(2, detached(2, |_| {})), false, true),
        (
            "it was under an earlier one",
            |s| s.heard(2, detached(2, |s| s.highest.epoch = 1)),
            true,
            false,
        ),
        (
            "it obeys this epoch, and is attached",
            |s| s.node(2, |v| v.state.highest.epoch = 2),
            true,
            false,
        ),
        (
            "its redis exited",
            |s| {
                s.node(2, |v| {
                    (v.state.redis.process, v.state.highest.epoch) = (Process::Exited, 2);
                });
            },
            false,
            true,
        ),
        ("it does not answer", |s| s.silent(2, 1), false, false),
        ("it was given up, and may live", |s| s.give_up(2, 5), true, false),
        ("it never had leave", |s| s.incarnation(2).membership = Membership::Joined, false, false),
    ];
    for (what, edit, told, known) in rows {
        let mut scene = since(0);
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(drains(&plan).iter().any(|(n, _)| *n == name(2)), told, "{what}");
        let failover = failing_over(&plan).expect("it goes on");
        assert_eq!(failover.detached_at.contains_key(&name(2)), known, "{what}");
        let member = scene.record.incarnations[&name(2)].is_member();
        assert_eq!(failover.unaccounted.contains(&name(2)), member && !known, "{what}");
    }
    // The moment at which that was first known stays.
    let mut scene = since(20_000);
    scene.heard(2, detached(2, |_| {}));
    scene.failover().detached_at = [(name(2), ago(9))].into();
    assert_eq!(failing_over(&scene.plan(NOW)).unwrap().detached_at[&name(2)], ago(9));
}

#[test]
fn offsets_are_those_that_stand_still() {
    for (run_id, offset, counted) in
        [("run-2", 130, Some(130)), ("another", 130, None), ("", 130, Some(100))]
    {
        let mut scene = since(0);
        scene.heard(2, detached(2, |s| (s.redis.run_id, s.redis.offset) = (run_id.into(), offset)));
        let plan = scene.plan(NOW);
        let eligible = &failing_over(&plan).unwrap().eligible;
        let found = eligible.iter().find(|e| e.incarnation == name(2)).map(|e| e.offset);
        assert_eq!(found, counted, "another process holds other data: {run_id}");
    }
}

#[test]
fn a_choice_waits_for_every_candidate_that_answers_and_a_moment_for_the_others() {
    let rows: [(&str, u64, Edit, bool); 6] = [
        ("both stand still", 0, |_| {}, true),
        ("one does not yet", 60_000, |s| s.heard(2, replica(2, 1, |_| {})), false),
        ("one does not answer", 2_999, |s| s.silent(2, 1), false),
        ("one has not answered for long", 3_000, |s| s.silent(2, 1), true),
        ("one loads its data", 2_999, |s| s.node(2, |v| v.state.redis.loading = true), false),
        ("nobody answers", 60_000, |s| (1..3).for_each(|n| s.silent(n, 1)), false),
    ];
    for (what, ms, edit, chosen) in rows {
        let mut scene = since(ms);
        scene.failover().fence = Some(Fence { how: "x".into(), at: ago(0) });
        (1..3).for_each(|n| scene.heard(n, detached(n, |_| {})));
        edit(&mut scene);
        assert_eq!(!promoted(&scene.plan(NOW)).is_empty(), chosen, "{what}");
    }
    let mut scene = since(60_000);
    scene.failover().fence = Some(Fence { how: "x".into(), at: ago(0) });
    scene.failover().detached_at = [(name(1), ago(9)), (name(2), ago(9))].into();
    scene.heard(1, detached(1, |_| {}));
    scene.silent(2, 1);
    scene.failover().eligible[1].offset = 200;
    assert_eq!(promoted(&scene.plan(NOW)), [name(1)], "who does not answer is not chosen");
    let mut unproven = since(60_000);
    (1..3).for_each(|n| unproven.heard(n, detached(n, |_| {})));
    assert_eq!(promoted(&unproven.plan(NOW)), [], "nobody knows whether it takes writes");
}

/// The epoch stays, and the next one that begins is another.
#[test]
fn a_failover_without_candidates_is_looked_at_again() {
    let all_silent: Edit = |s| (1..3).for_each(|n| s.silent(n, 1));
    let back: Edit = |s| s.node(0, |v| v.state.redis.process = Process::Running);
    let rows: [(&str, u64, &[Edit], bool); 6] = [
        ("they answer", 60_000, &[], false),
        (
            "another process runs on each",
            0,
            &[|s| (1..3).for_each(|n| s.node(n, |v| v.state.redis.run_id = "b".into()))],
            true,
        ),
        ("they are silent, and nobody else is looked at", 60_000, &[all_silent], false),
        ("they are silent, and the old master is back", 3_000, &[all_silent, back], true),
        ("it is back, and they may be in a moment", 2_999, &[all_silent, back], false),
        (
            "a person goes on without them",
            60_000,
            &[all_silent, |s| s.annotate(ACCEPT_LOSS, "2")],
            true,
        ),
    ];
    for (what, ms, edits, abandoned) in rows {
        let mut scene = since(ms);
        edits.iter().for_each(|edit| edit(&mut scene));
        let plan = scene.plan(NOW);
        assert_eq!(has_event(&plan, EventReason::FailoverAborted), abandoned, "{what}");
        let goes_on = failing_over(&plan).is_some_and(|f| f.epoch == 2);
        assert_eq!(goes_on, !abandoned, "{what}");
    }
}

#[test]
fn a_persons_word_in_the_middle_of_a_failover_is_heeded() {
    let mut scene = since(60_000);
    scene.annotate(ACCEPT_LOSS, "2");
    assert!(failing_over(&scene.plan(NOW)).unwrap().loss_accepted);
    scene.annotate(ACCEPT_LOSS, "1");
    assert!(!failing_over(&scene.plan(NOW)).unwrap().loss_accepted, "it was about another epoch");
}

/// Node 1 was chosen, and node 0 was fenced, half a second and a second after the failover began.
fn chosen() -> Scene {
    let mut scene = since(2_000);
    let before = scene.master().clone();
    let (run_id, boot_id) = ("run-1".into(), "boot-1".into());
    let chosen = Promotion { epoch: 2, incarnation: name(1), run_id, boot_id, ..before };
    scene.record.master = Some(Promotion { confirmed: false, ..chosen });
    let failover = scene.failover();
    failover.witnesses = vec!["somebody".into()];
    failover.detached_at = [(name(1), UnixMs(NOW - 1_800)), (name(2), UnixMs(NOW - 1_500))].into();
    failover.fence = Some(Fence { how: "by time".into(), at: UnixMs(NOW - 1_000) });
    (1..3).for_each(|n| scene.heard(n, detached(n, |_| {})));
    scene
}

fn obeyed(scene: &mut Scene) {
    scene.node(1, |v| {
        v.state.promoted = true;
        (v.state.redis.role, v.state.redis.fenced) = (Role::Master, false);
    });
}

#[test]
fn a_failover_ends_with_a_report() {
    let waiting = chosen().plan(NOW);
    assert_eq!((promoted(&waiting), failing_over(&waiting).is_some()), (vec![name(1)], true));
    assert_eq!(waiting.record.last_failover, None);
    let elected = waiting.elected.expect("who waits may connect meanwhile");
    assert_eq!((elected.epoch, elected.incarnation), (2, name(1).0));
    assert_eq!(waiting.status.master, None, "nobody takes writes");
    assert_eq!(waiting.measured, []);
    let mut scene = chosen();
    obeyed(&mut scene);
    let plan = scene.plan(NOW);
    assert_eq!(plan.record.change, None);
    assert_eq!(plan.elected, None);
    assert_eq!(plan.measured, [(Interval::Failover, Duration::from_secs(2))]);
    let report = plan.record.last_failover.expect("a report");
    assert_eq!((report.epoch, report.old, report.new), (2, name(0).0, name(1).0));
    assert_eq!(report.reason, "its redis no longer answers");
    assert_eq!((report.witnesses, report.fence.as_str()), (vec!["somebody".to_owned()], "by time"));
    assert_eq!(report.candidates, ["cache-1-aaaa: 100", "cache-2-aaaa: 100"]);
    let steps = [("detached", 500), ("fenced", 1_000), ("promoted", 2_000), ("writable", 2_000)];
    assert_eq!(report.steps_ms, steps.map(|(what, ms)| (what.to_owned(), ms)));
    assert_eq!((report.lost_bytes, report.lost_gap_ms), (None, 0));
}

#[test]
fn how_long_a_death_was_not_known_and_the_old_master_not_fenced_is_measured() {
    let seconds = Duration::from_secs;
    let rows: [(&str, Edit, &[(Interval, Duration)]); 4] = [
        ("it is silent", |s| s.silent(0, 12), &[(Interval::Detection, seconds(12))]),
        ("it answers nobody", |s| s.hangs(0, 40), &[(Interval::Detection, seconds(42))]),
        (
            "its redis exited, and its agent says so",
            |s| s.node(0, |v| v.state.redis.process = Process::Exited),
            &[(Interval::Detection, seconds(0)), (Interval::Fence, seconds(0))],
        ),
        ("all is well", |_| {}, &[]),
    ];
    for (what, edit, measured) in rows {
        let mut scene = Scene::whole();
        for n in 1..3 {
            scene.node(n, |v| v.state.redis.silent_ms = 12_000);
        }
        edit(&mut scene);
        assert_eq!(scene.plan(NOW).measured, measured, "{what}");
    }
}

#[test]
fn a_choice_whose_process_is_gone_is_void() {
    let rows: [(&str, Edit, bool); 6] = [
        ("it answers", |_| {}, false),
        ("its redis exited", |s| s.node(1, |v| v.state.redis.process = Process::Exited), true),
        ("another process runs", |s| s.node(1, |v| v.state.redis.run_id = "b".into()), true),
        ("it is silent for a moment", |s| s.silent(1, 9), false),
        ("it has been silent for downAfter", |s| s.silent(1, 10), true),
        (
            "its last word is that redis exited",
            |s| {
                s.silent(1, 1);
                s.node(1, |v| v.state.redis.process = Process::Exited);
            },
            true,
        ),
    ];
    for (what, edit, void) in rows {
        let mut scene = chosen();
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(has_event(&plan, EventReason::PromotionFailed), void, "{what}");
        assert!(!void || promoted(&plan).is_empty() || plan.record.epoch > 2, "{what}");
    }
}

/// The master is silent; it had so much more than node 1, which had not acknowledged the writes of
/// so many seconds.
fn behind(bytes: i64, seconds: u64, silent: u64) -> Scene {
    let mut scene = Scene::whole();
    scene.only(2);
    scene.node(0, |v| {
        v.state.redis.offset = 100 + bytes;
        v.state.redis.replicas[0].behind_ms = seconds * 1000;
    });
    scene.silent(0, silent);
    scene.node(1, |v| {
        (v.state.redis.silent_ms, v.state.redis.link) = (silent * 1000, Link::Down);
    });
    scene
}

/// It may come back with all of that; a failover would lose it.
#[test]
fn a_silent_master_that_had_much_more_is_waited_for_once_more() {
    const MIB: i64 = 1 << 20;
    let rows = [
        ("nobody lacks anything", 0, 0, 10, true),
        ("as much as it may lack", MIB, 6, 10, true),
        ("a byte more", MIB + 1, 6, 10, false),
        ("a burst", 50 * MIB, 4, 10, true),
        ("much, and it is silent for longer", 50 * MIB, 60, 19, false),
        ("for twice as long as it may be", 50 * MIB, 60, 20, true),
    ];
    for (what, bytes, seconds, silent, begins) in rows {
        let plan = behind(bytes, seconds, silent).plan(NOW);
        assert_eq!(failing_over(&plan).is_some(), begins, "{what}");
        if !begins {
            let (_, said) = degraded(&plan);
            assert!(said.contains("it may come back with all of that"), "{what}: {said}");
            let (until, then) =
                wait_for(&plan, "the master cache-0-aaaa to be heard").expect("a wait");
            let left = 20 - i64::try_from(silent).unwrap();
            assert_eq!(until, Some(left), "{what}");
            assert_eq!(then, "the furthest replica is promoted all the same");
        }
    }
    let mut scene = behind(50 * MIB, 60, 10);
    scene.annotate(ACCEPT_LOSS, "1");
    assert!(failing_over(&scene.plan(NOW)).is_some(), "a person does not wait");
    let mut scene = behind(50 * MIB, 60, 10);
    scene.close_lease(0, 1);
    assert!(failing_over(&scene.plan(NOW)).is_some(), "its lease is gone");
}
