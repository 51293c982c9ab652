//! Who may take over: the rules of `plan/candidates.rs`.

use akash_redis::model::incarnation::Membership;
use akash_redis::model::node::{Link, Process, Role};
use akash_redis::model::time::UnixMs;

use crate::scene::{
    NOW, Scene, ago, degraded, detached, failing_over, history, name, promoted, replica,
};

#[test]
fn an_offset_far_above_what_others_saw_is_refused_and_reported() {
    for (claim, believed) in [(i64::MAX, false), (1 << 40, false), (120, true)] {
        let mut scene = Scene::three();
        scene.fenced();
        scene.heard(1, detached(1, |_| {}));
        scene.heard(2, detached(2, |s| s.redis.offset = claim));
        let plan = scene.settle(NOW);
        assert_eq!(promoted(&plan), [name(if believed { 2 } else { 1 })], "claim {claim}");
        assert!(
            !degraded(&plan).1.contains("reports offset"),
            "it is an event once somebody else was chosen"
        );
    }
}

type Edit = fn(&mut Scene);

/// Redis of the master exited at offset 100: who may take over from it, and why not the others.
fn count(edit: impl FnOnce(&mut Scene)) -> (Vec<u32>, Vec<String>) {
    let mut scene = Scene::three();
    scene.node(0, |v| {
        v.state.redis.process = Process::Exited;
        v.state.history = history("A", 100, 1, 0);
    });
    edit(&mut scene);
    let plan = scene.plan(NOW);
    let eligible = failing_over(&plan).map(|f| f.eligible.clone()).unwrap_or_default();
    let eligible = eligible.iter().filter_map(|e| e.incarnation.ordinal()).collect();
    let refused: Vec<_> = plan.events.iter().map(|(_, message)| message.clone()).collect();
    let refused = refused.into_iter().filter(|m| m.contains("may not take over")).collect();
    (eligible, refused)
}

/// Node `n` was master of the data, and node 0 was chosen in its place and did not confirm it.
fn former_master(scene: &mut Scene, n: u32) {
    scene.record.epoch = 2;
    (scene.master().epoch, scene.master().confirmed) = (2, false);
    scene.record.data_master = Some(name(n));
    scene.node(n, |v| v.state.redis.role = Role::Master);
}

#[test]
fn who_was_in_sync_until_the_master_was_lost_may_take_over() {
    let not_in_sync = "was not in sync with the master since it started";
    let rows: [(&str, Edit, &[u32], &str); 12] = [
        ("both were", |_| {}, &[1, 2], ""),
        ("one does not answer", |s| s.silent(2, 1), &[1], ""),
        (
            "redis of one starts",
            |s| s.node(2, |v| v.state.redis.process = Process::Starting),
            &[1],
            "",
        ),
        ("one loads its data", |s| s.node(2, |v| v.state.redis.loading = true), &[1], ""),
        (
            "one was never in sync",
            |s| s.node(2, |v| v.state.redis.online_epoch = 0),
            &[1],
            not_in_sync,
        ),
        (
            "one was in another epoch",
            |s| s.node(2, |v| v.state.redis.online_epoch = 2),
            &[1],
            not_in_sync,
        ),
        (
            "one is a master",
            |s| s.node(2, |v| v.state.redis.role = Role::Master),
            &[1],
            not_in_sync,
        ),
        (
            "the master went on without one",
            |s| s.incarnation(2).lower(Membership::Member),
            &[1],
            "the master went on without it",
        ),
        (
            "one had no leave to replicate, and is not worth a word",
            |s| s.incarnation(2).membership = Membership::Joined,
            &[1],
            "",
        ),
        ("one was given up", |s| s.give_up(2, 5), &[1], ""),
        (
            "one fenced itself as master of the data, for a switchover to the one that died",
            |s| {
                former_master(s, 2);
                s.node(2, |v| v.state.redis.online_epoch = 0);
            },
            &[1, 2],
            "",
        ),
        (
            "it takes writes nevertheless",
            |s| {
                former_master(s, 2);
                s.node(2, |v| v.state.redis.fenced = false);
            },
            &[1],
            not_in_sync,
        ),
    ];
    for (what, edit, eligible, refused) in rows {
        let (who, why) = count(edit);
        assert_eq!(who, eligible, "{what}");
        assert_eq!(why.len(), usize::from(!refused.is_empty()), "{what}: {why:?}");
        assert!(
            why.iter().all(|w| w.contains(refused) && w.contains("cache-2")),
            "{what}: {why:?}"
        );
    }
}

/// Node 2 lost its master so many milliseconds before the operator heard of it, node 1 has it still.
fn lost(n: u32, silent_ms: u64, offset: i64) -> impl Fn(&mut Scene) {
    move |s| {
        s.node(n, |v| {
            v.state.redis.link = Link::Down;
            (v.state.redis.silent_ms, v.state.redis.offset) = (silent_ms, offset);
        });
    }
}

#[test]
fn who_lost_the_master_long_before_the_others_may_lack_something() {
    let silent_master = |s: &mut Scene| {
        // Its history is unknown.
        s.node(0, |v| v.state.history = None);
    };
    let rows: [(&str, &dyn Fn(&mut Scene), &[u32], &str); 11] = [
        ("as long as max-lag is as good as the others", &lost(2, 8_000, 90), &[1, 2], ""),
        (
            "longer, and others have more",
            &lost(2, 8_001, 90),
            &[1],
            "it lost the master 8 s before the others, at offset 90 of 100",
        ),
        ("longer, and nobody has more", &lost(2, 8_001, 100), &[1, 2], ""),
        (
            "longer, and the others are of another history",
            &|s| {
                lost(2, 9_000, 100)(s);
                s.node(2, |v| v.state.redis.replid = "B".into());
            },
            &[1],
            "it lost the master 9 s before it was given up, and nobody can say",
        ),
        (
            "who lost it later had more then",
            &|s| {
                lost(2, 9_000, 90)(s);
                silent_master(s);
            },
            &[1],
            "it lost the master 9 s before the others, at offset 90 of 100",
        ),
        (
            "both lost it long before its last word, which says that they have all",
            &|s| {
                lost(1, 60_000, 100)(s);
                lost(2, 60_000, 100)(s);
            },
            &[1, 2],
            "",
        ),
        (
            "both lost it long before its last word, which says that they lack something",
            &|s| {
                lost(1, 60_000, 99)(s);
                lost(2, 60_000, 100)(s);
            },
            &[2],
            "it lost the master 60 s before the others, at offset 99 of 100",
        ),
        (
            "one that was not in sync has more, and is no witness",
            &|s| {
                lost(1, 9_000, 100)(s);
                s.node(2, |v| (v.state.redis.online_epoch, v.state.redis.offset) = (0, 500));
            },
            &[1],
            "cache-2-aaaa may not take over: its redis was not in sync",
        ),
        (
            "one that is a master has more, and is no witness",
            &|s| {
                lost(1, 9_000, 100)(s);
                s.node(2, |v| (v.state.redis.role, v.state.redis.offset) = (Role::Master, 500));
            },
            &[1],
            "cache-2-aaaa may not take over: its redis was not in sync",
        ),
        (
            "one that was detached by an earlier attempt has all",
            &|s| s.node(2, |v| v.state.redis.master_host.clear()),
            &[1, 2],
            "",
        ),
        (
            "one that was detached by an earlier attempt lacks something",
            &|s| {
                s.node(2, |v| {
                    v.state.redis.master_host.clear();
                    v.state.redis.offset = 99;
                });
            },
            &[1],
            "it was detached at offset 99, and 100 was reached after that",
        ),
    ];
    for (what, edit, eligible, refused) in rows {
        let (who, why) = count(edit);
        assert_eq!(who, eligible, "{what}: {why:?}");
        assert_eq!(why.len(), usize::from(!refused.is_empty()), "{what}: {why:?}");
        assert!(why.iter().all(|w| w.contains(refused)), "{what}: {why:?}");
    }
}

/// The last word of the master is what it reported, or its history of this epoch once its redis is
/// gone.
#[test]
fn the_masters_last_word_is_heeded() {
    let rows: [(&str, Edit, &[u32]); 5] = [
        ("its history says 200", |s| s.node(0, |v| v.state.history = history("A", 200, 1, 0)), &[]),
        (
            "its history is of another epoch",
            |s| s.node(0, |v| v.state.history = history("A", 200, 0, 0)),
            &[1, 2],
        ),
        (
            "its history is another one's",
            |s| s.node(0, |v| v.state.history = history("B", 200, 1, 0)),
            &[],
        ),
        (
            "it hangs: its last word of its offset is no history",
            |s| {
                s.hangs(0, 10);
                s.node(0, |v| {
                    v.state.redis.offset = 200;
                    v.state.history = None;
                });
            },
            &[1, 2],
        ),
        (
            "it spoke when it was silent already",
            |s| {
                s.node(0, |v| {
                    v.state.redis.process = Process::Running;
                    v.state.redis.fenced = false;
                    v.state.redis.offset = 200;
                    (v.connected, v.heard) = (false, ago(11));
                });
                (1..3).for_each(|n| lost(n, 20_000, 100)(s));
            },
            &[],
        ),
    ];
    for (what, edit, eligible) in rows {
        let (who, why) = count(|s| {
            (1..3).for_each(|n| lost(n, 20_000, 100)(s));
            edit(s);
        });
        assert_eq!(who, eligible, "{what}: {why:?}");
    }
}

#[test]
fn two_lineages_are_told_apart_by_the_masters() {
    let other = |n: u32| move |s: &mut Scene| s.node(n, |v| v.state.redis.replid = "B".into());
    let (who, why) = count(other(1));
    assert_eq!(who, [2]);
    assert!(why[0].contains("its history is not the master's"), "{why:?}");
    let (who, _) = count(|s| {
        other(1)(s);
        s.node(0, |v| v.state.history = history("B", 100, 1, 0));
    });
    assert_eq!(who, [1], "the master's is B");
    let (who, _) = count(|s| {
        other(1)(s);
        s.node(0, |v| v.state.history = None);
    });
    assert_eq!(who, [] as [u32; 0], "nobody knows the master's");
    let (who, _) = count(|s| {
        other(1)(s);
        other(2)(s);
    });
    assert_eq!(who, [1, 2], "nothing is to be told apart");
}

#[test]
fn nobody_may_take_over_where_there_are_no_data() {
    let (who, _) = count(|s| {
        (s.record.data_epoch, s.record.data_master) = (0, None);
        s.master().confirmed = false;
        (1..3).for_each(|n| s.node(n, |v| v.state.redis.online_epoch = 0));
    });
    assert_eq!(who, [] as [u32; 0]);
}

/// 16 MiB for each second that has begun since others saw the master.
const A_SECOND: i64 = 16 << 20;

#[test]
fn an_offset_is_believed_as_far_as_anybody_can_write() {
    let started = NOW - 60_000;
    let rows: [(&str, Edit, i64, bool); 8] = [
        ("by the other candidate", |_| {}, 100 + A_SECOND, true),
        ("one byte more", |_| {}, 101 + A_SECOND, false),
        (
            "the master was heard ten seconds before the failover began",
            |s| s.node(0, |v| v.heard = UnixMs(NOW - 70_000)),
            100 + 11 * A_SECOND,
            true,
        ),
        (
            "one byte more than that",
            |s| s.node(0, |v| v.heard = UnixMs(NOW - 70_000)),
            101 + 11 * A_SECOND,
            false,
        ),
        (
            "the master's word was of another epoch",
            |s| {
                s.node(0, |v| v.heard = UnixMs(NOW - 70_000));
                s.failover().old_epoch = 0;
            },
            100 + 11 * A_SECOND,
            false,
        ),
        (
            "the master had another history",
            |s| s.node(0, |v| (v.heard, v.state.redis.replid) = (ago(70), "B".into())),
            100 + 11 * A_SECOND,
            false,
        ),
        (
            "nobody else knows anything",
            |s| {
                s.failover().eligible.remove(0);
                s.inventory.nodes.remove(&name(0));
            },
            i64::MAX,
            true,
        ),
        (
            "another one saw the master, and was no candidate",
            |s| {
                s.failover().eligible.remove(0);
                s.inventory.nodes.remove(&name(0));
                s.heard(1, replica(1, 2, |s| s.redis.silent_ms = 90_000));
            },
            101 + 31 * A_SECOND,
            false,
        ),
    ];
    for (what, edit, claim, believed) in rows {
        let mut scene = Scene::three();
        scene.fenced();
        scene.failover().started = UnixMs(started);
        for n in 1..3 {
            scene.failover().detached_at.insert(name(n), ago(50));
        }
        scene.node(0, |v| v.heard = UnixMs(started));
        scene.heard(1, detached(1, |_| {}));
        scene.heard(2, detached(2, |s| s.redis.offset = claim));
        edit(&mut scene);
        let who = promoted(&scene.plan(NOW));
        assert_eq!(who.contains(&name(2)), believed, "{what}: {who:?}");
    }
}

#[test]
fn of_equals_the_lower_name_is_chosen() {
    for (offsets, chosen) in [([100, 100], 1), ([100, 101], 2), ([101, 100], 1)] {
        let mut scene = Scene::three();
        scene.fenced();
        for (n, offset) in [1, 2].into_iter().zip(offsets) {
            scene.heard(n, detached(n, |s| s.redis.offset = offset));
        }
        assert_eq!(promoted(&scene.settle(NOW)), [name(chosen)], "{offsets:?}");
    }
}
