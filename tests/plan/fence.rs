//! Proofs that an old master takes no writes: the rules of `plan/fence.rs`.

use akash_redis::api::annotations::ACCEPT_LOSS;
use akash_redis::api::conditions::Reason;
use akash_redis::model::change::Fence;
use akash_redis::model::node::{Link, Process, Role};
use akash_redis::model::record::Promotion;
use akash_redis::model::step::Quorum;
use akash_redis::model::time::UnixMs;

use crate::scene::{
    NOW, Scene, ago, degraded, detached, detaches, failing_over, name, page, promoted, wait_for,
};

/// Its provider may run a second container of the node.
#[test]
fn another_start_of_the_agent_says_nothing_about_the_redis_that_was_promoted() {
    for (boot, fenced) in [("boot-0", true), ("boot-0b", false)] {
        let mut scene = Scene::three();
        scene.node(0, |v| {
            v.state.boot_id = boot.into();
            v.state.redis.role = Role::Replica;
            v.state.redis.fenced = true;
            v.state.redis.run_id = "run-0b".into();
        });
        let plan = scene.plan(NOW);
        let Some(akash_redis::model::change::Change::Failover(failover)) = plan.record.change
        else {
            panic!("{:?}", plan.events)
        };
        assert_eq!(failover.fence.is_some(), fenced, "{boot}");
    }
}

/// Nobody is unaccounted for, and the master may write alone: time proves nothing.
#[test]
fn a_master_that_needs_no_replica_is_not_fenced_by_time() {
    let mut scene = Scene::three();
    scene.failing(NOW - 60_000).quorum = Quorum { min_replicas: 0, max_lag_seconds: 8 };
    scene.node(0, |v| v.connected = false);
    for n in 1..3 {
        scene.heard(n, detached(n, |_| {}));
    }
    let plan = scene.settle(NOW);
    assert!(promoted(&plan).is_empty());
    let (reason, message) = degraded(&plan);
    assert!(
        reason == Reason::FailoverBlocked && message.contains("needs no replica for a write"),
        "{message}"
    );
    scene
        .cluster
        .metadata
        .annotations
        .insert(ACCEPT_LOSS.to_owned(), scene.record.epoch.to_string());
    assert_eq!(promoted(&scene.settle(NOW + 60_000)), [name(1)], "a person knows that it is dead");
}

/// With a proof and nobody unaccounted for nothing blocks, whatever the dead master last said of
/// its quorum.
#[test]
fn the_last_word_of_an_agent_is_a_fence() {
    let mut scene = Scene::three();
    scene.node(0, |v| {
        v.connected = false;
        v.state.redis.process = Process::Exited;
        v.state.redis.min_replicas = 0;
    });
    for n in 1..3 {
        scene.node(n, |v| v.state.redis.link = Link::Down);
    }
    let plan = scene.settle(NOW);
    let Some(akash_redis::model::change::Change::Failover(failover)) = plan.record.change else {
        panic!("{:?}", plan.events)
    };
    assert!(matches!(failover.fence, Some(Fence { .. })));
    for n in 1..3 {
        scene.heard(n, detached(n, |_| {}));
    }
    assert_eq!(promoted(&scene.settle(NOW + 100)), [name(1)]);
}

type Edit = fn(&mut Scene);

/// A failover of node 0 that began a minute ago, before anybody was detached.
fn failing() -> Scene {
    let mut scene = Scene::whole();
    scene.failing(NOW - 60_000);
    scene.silent(0, 70);
    for n in 1..3 {
        let before = scene.inventory.nodes[&name(n)].state.mesh.clone();
        scene.heard(n, detached(n, |s| s.mesh = before));
    }
    scene
}

fn fence(scene: &Scene) -> Option<String> {
    let plan = scene.plan(NOW);
    failing_over(&plan).and_then(|f| f.fence.clone()).map(|f| f.how)
}

#[test]
fn an_agent_confirms_that_its_redis_takes_no_writes() {
    let demoted: Edit = |s| {
        s.node(0, |v| {
            v.connected = true;
            (v.state.highest.epoch, v.state.redis.role) = (2, Role::Replica);
        });
    };
    let rows: [(&str, Edit, Option<&str>); 8] = [
        ("it is silent", |_| {}, None),
        ("it was demoted", demoted, Some("its redis was demoted")),
        (
            "it was demoted before this change",
            |s| s.node(0, |v| (v.connected, v.state.redis.role) = (true, Role::Replica)),
            None,
        ),
        (
            "it is master still",
            |s| s.node(0, |v| (v.connected, v.state.highest.epoch) = (true, 2)),
            None,
        ),
        (
            "another start of it was",
            |s| {
                s.node(0, |v| {
                    v.connected = true;
                    v.state.boot_id = "another".into();
                    (v.state.highest.epoch, v.state.redis.role) = (2, Role::Replica);
                });
            },
            None,
        ),
        (
            "its last word is that redis exited",
            |s| s.node(0, |v| v.state.redis.process = Process::Exited),
            Some("its redis exited"),
        ),
        (
            "that of another start is",
            |s| {
                s.node(0, |v| {
                    v.state.boot_id = "another".into();
                    v.state.redis.process = Process::Exited;
                });
            },
            None,
        ),
        (
            "that of another start is, and no start was written down",
            |s| {
                s.failover().boot_id.clear();
                s.node(0, |v| {
                    v.state.boot_id = "another".into();
                    v.state.redis.process = Process::Exited;
                });
            },
            Some("its redis exited"),
        ),
    ];
    for (what, edit, expected) in rows {
        let mut scene = failing();
        edit(&mut scene);
        let found = fence(&scene);
        assert_eq!(found.is_some(), expected.is_some(), "{what}: {found:?}");
        assert!(found.is_none_or(|how| how.ends_with(expected.unwrap())), "{what}");
    }
}

#[test]
fn an_old_master_that_answers_is_demoted() {
    let told = |edit: Edit| {
        let mut scene = failing();
        scene.node(0, |v| v.connected = true);
        edit(&mut scene);
        detaches(&scene.plan(NOW)).contains(&name(0))
    };
    assert!(told(|_| {}));
    assert!(told(|s| s.node(0, |v| v.state.highest.epoch = 2)), "it is master still");
    assert!(told(|s| s.node(0, |v| v.state.redis.role = Role::Replica)), "of which epoch?");
    assert!(!told(|s| s.silent(0, 1)), "nobody hears it");
    assert!(
        !told(|s| {
            s.node(0, |v| {
                (v.state.highest.epoch, v.state.redis.role) = (2, Role::Replica);
                v.state.boot_id = "another".into();
            });
        }),
        "it did so already"
    );
}

#[test]
fn a_page_since_the_change_began_confirms_it_as_well() {
    let page_of = |edit: fn(&mut akash_redis::model::status_page::PageView)| {
        let mut scene = failing();
        scene.failover().started = ago(10);
        scene.inventory.pages.insert(name(0), page(0, edit));
        fence(&scene).is_some()
    };
    assert!(page_of(|_| {}));
    assert!(page_of(|p| p.at = ago(10)));
    assert!(!page_of(|p| p.at = ago(11)), "before");
    assert!(!page_of(|p| p.fenced = false));
    assert!(!page_of(|p| p.boot_id = "another".into()));
    let mut scene = failing();
    scene.failover().boot_id = "another".into();
    scene.inventory.pages.insert(name(0), page(0, |_| {}));
    assert_eq!(fence(&scene), None, "it is not the start that was promoted");
    scene.failover().boot_id.clear();
    assert!(fence(&scene).is_some(), "no start was written down");
}

/// The old master hears those that were detached no more; after max-lag it has stopped.
#[test]
fn time_is_a_proof_when_too_few_may_be_attached() {
    let rows: [(&str, Edit, bool); 7] = [
        ("ten seconds", |_| {}, true),
        (
            "a moment less, since the last one",
            |s| {
                s.failover().detached_at.insert(name(2), UnixMs(NOW - 9_999));
            },
            false,
        ),
        ("by the lag that may be in force", |s| s.failover().quorum.max_lag_seconds = 9, false),
        (
            "one that may be attached suffices for a write",
            |s| {
                s.silent(2, 20);
                s.failover().detached_at.remove(&name(2));
            },
            false,
        ),
        (
            "two are needed for a write",
            |s| {
                s.silent(2, 20);
                s.failover().detached_at.remove(&name(2));
                s.failover().quorum.min_replicas = 2;
            },
            true,
        ),
        (
            "a person accepted the loss",
            |s| {
                s.silent(2, 20);
                s.failover().detached_at.remove(&name(2));
                s.failover().loss_accepted = true;
            },
            true,
        ),
        (
            "nobody was detached yet",
            |s| {
                s.failover().detached_at.clear();
                (1..3).for_each(|n| s.silent(n, 20));
                s.failover().loss_accepted = true;
            },
            false,
        ),
    ];
    for (what, edit, proof) in rows {
        let mut scene = failing();
        scene.mesh().devices[0].tags = vec!["tag:other".into()];
        scene.failover().detached_at = [(name(1), ago(10)), (name(2), ago(10))].into();
        edit(&mut scene);
        assert_eq!(fence(&scene).is_some(), proof, "{what}");
    }
    let mut scene = failing();
    scene.failover().detached_at = [(name(1), ago(8)), (name(2), ago(9))].into();
    let (until, then) = wait_for(&scene.plan(NOW), "to stop taking writes").expect("wait");
    assert_eq!((until, then.as_str()), (Some(2), "the best replica is promoted"));
    scene.failover().detached_at = [(name(1), ago(20)), (name(2), ago(30))].into();
    let how = fence(&scene).expect("a proof");
    assert_eq!(how, "cache-0-aaaa heard no replica for 20 s and needs 1 for a write");
}

#[test]
fn a_master_that_may_go_on_writing_names_who_keeps_it_so() {
    let mut scene = failing();
    scene.failover().detached_at = [(name(1), ago(60))].into();
    scene.silent(2, 20);
    let plan = scene.plan(NOW);
    let (reason, message) = degraded(&plan);
    assert_eq!(reason, Reason::FailoverBlocked);
    assert!(message.contains("but cache-2-aaaa may still be attached to it"), "{message}");
    let (until, then) = wait_for(&plan, "proof that cache-0-aaaa takes no writes").expect("wait");
    assert!(until.is_none() && then.contains("--accept-loss"), "{then}");
}

/// Its agent answers within a second, or the mesh shuts it off meanwhile.
#[test]
fn the_mesh_is_asked_when_the_agent_does_not_say_so_at_once() {
    let shut_off = |edit: &dyn Fn(&mut Scene)| {
        let mut scene = failing();
        scene.node(0, |v| v.connected = true);
        edit(&mut scene);
        scene.plan(NOW).record.incarnations[&name(0)].quarantined.is_some()
    };
    let began = |ms: u64| move |s: &mut Scene| s.failover().started = UnixMs(NOW - ms);
    assert!(!shut_off(&began(999)));
    assert!(shut_off(&began(1_000)));
    assert!(shut_off(&|s| {
        began(0)(s);
        s.silent(0, 1);
    }));
    assert!(shut_off(&|s| {
        began(0)(s);
        s.node(0, |v| v.state.redis.process = Process::Stuck);
    }));
}

#[test]
fn the_first_proof_counts() {
    let mut scene = failing();
    scene.failover().fence = Some(Fence { how: "the first".into(), at: ago(1) });
    scene.node(0, |v| v.state.redis.process = Process::Exited);
    (1..3).for_each(|n| scene.silent(n, 20));
    assert_eq!(fence(&scene).as_deref(), Some("the first"));
}

#[test]
fn who_did_not_hear_the_control_server_is_named_in_the_report() {
    for (stale, told) in [(vec![], false), (vec![name(2)], true)] {
        let mut scene = failing();
        scene.failover().fence = Some(Fence { how: "by time".into(), at: ago(1) });
        scene.failover().stale_netmaps = stale;
        let (epoch, run_id, boot_id) = (2, "run-1".into(), "boot-1".into());
        let before = scene.master().clone();
        let confirmed = false;
        let chosen =
            Promotion { epoch, incarnation: name(1), run_id, boot_id, confirmed, ..before };
        scene.record.master = Some(chosen);
        scene.node(1, |v| {
            v.state.promoted = true;
            (v.state.redis.role, v.state.redis.fenced) = (Role::Master, false);
        });
        let fence = scene.plan(NOW).record.last_failover.expect("a report").fence;
        assert_eq!(fence.contains("cache-2-aaaa could not confirm the fence"), told, "{fence}");
        assert!(fence.starts_with("by time"), "{fence}");
    }
}
