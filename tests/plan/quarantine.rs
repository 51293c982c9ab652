//! The fence through the mesh: the rules of `plan/quarantine.rs`.

use akash_redis::api::events::EventReason;
use akash_redis::model::ids::IncarnationName;
use akash_redis::model::incarnation::{Membership, Quarantine};
use akash_redis::model::mesh::BackendState;
use akash_redis::model::node::{Process, Role};
use akash_redis::model::step::{Command, Effect};
use akash_redis::model::time::UnixMs;
use akash_redis::plan::Plan;

use crate::scene::{
    NOW, QUARANTINE, Scene, TAG, ago, commands, degraded, detached, detaches, device, failing_over,
    given_up, has_event, history, name, replica, wait_for,
};

type Edit = fn(&mut Scene);

/// Who gets which tag.
fn tagged(plan: &Plan) -> Vec<(IncarnationName, String)> {
    let tag = |effect: &Effect| match effect {
        Effect::SetTags { incarnation, tags, .. } => Some((incarnation.clone(), tags.join(","))),
        _ => None,
    };
    plan.steps.iter().filter_map(|s| tag(&s.effect)).collect()
}

/// Node 0 hangs since a minute; the tag was asked for ten seconds ago and is seen since nine.
fn shut_off() -> Scene {
    let mut scene = Scene::whole();
    scene.failing(NOW - 60_000);
    scene.node(0, |v| v.state.redis.process = Process::Stuck);
    scene.incarnation(0).quarantined =
        Some(Quarantine { epoch: 2, at: ago(10), in_force: Some(ago(9)) });
    scene.mesh().devices[0].tags = vec![QUARANTINE.into()];
    for n in 1..3 {
        scene.heard(
            n,
            replica(n, 1, |s| {
                s.mesh.device_id = device(n).id;
                s.mesh.visible_ids = vec![device(3 - n).id];
                s.mesh.visible_peers = vec!["x".into()];
            }),
        );
    }
    scene
}

#[test]
fn the_old_master_of_a_failover_is_shut_off_once() {
    let quarantine = |edit: &dyn Fn(&mut Scene)| {
        let mut scene = shut_off();
        scene.incarnation(0).quarantined = None;
        scene.mesh().devices[0].tags = vec![TAG.into()];
        edit(&mut scene);
        let plan = scene.plan(NOW);
        let begun = plan.record.incarnations[&name(0)].quarantined.clone();
        let tags = tagged(&plan);
        (begun.map(|q| (q.epoch, q.at)), has_event(&plan, EventReason::QuarantineStarted), tags)
    };
    let tag = vec![(name(0), QUARANTINE.to_owned())];
    assert_eq!(quarantine(&|_| {}), (Some((2, UnixMs(NOW))), true, tag.clone()));
    let known = |epoch| {
        move |s: &mut Scene| {
            s.incarnation(0).quarantined = Some(Quarantine { epoch, at: ago(3), in_force: None });
        }
    };
    assert_eq!(quarantine(&known(2)), (Some((2, ago(3))), false, tag.clone()), "it is so already");
    assert_eq!(quarantine(&known(1)), (Some((2, ago(3))), false, tag), "from an earlier epoch");
    let given_up = |s: &mut Scene| {
        s.record.master = None;
        s.give_up(0, 5);
    };
    assert_eq!(quarantine(&given_up).0, None, "it is given up for good");
}

#[test]
fn a_tailnet_without_a_quarantine_tag_shuts_nobody_off() {
    let mut scene = shut_off();
    scene.incarnation(0).quarantined = None;
    scene.one_tag = true;
    scene.mesh().devices[0].tags = vec![TAG.into()];
    let plan = scene.plan(NOW);
    assert_eq!(plan.record.incarnations[&name(0)].quarantined, None);
}

#[test]
fn a_tag_is_in_force_when_a_later_reading_shows_it_and_no_other() {
    let in_force = |edit: Edit| {
        let mut scene = shut_off();
        scene.incarnation(0).quarantined =
            Some(Quarantine { epoch: 2, at: ago(10), in_force: None });
        edit(&mut scene);
        scene.plan(NOW).record.incarnations[&name(0)].quarantined.clone().unwrap().in_force
    };
    assert_eq!(in_force(|_| {}), Some(UnixMs(NOW)));
    assert_eq!(in_force(|s| s.inventory.mesh.done = UnixMs(NOW + 5)), Some(UnixMs(NOW + 5)));
    assert_eq!(in_force(|s| s.inventory.mesh.at = ago(10)), None, "begun before it was asked for");
    assert_eq!(in_force(|s| s.inventory.mesh.at = UnixMs(NOW - 9_999)), Some(UnixMs(NOW)));
    assert_eq!(in_force(|s| s.mesh().devices[0].tags.push("tag:x".into())), None);
    assert_eq!(in_force(|s| s.mesh().devices[0].tags = vec![TAG.into()]), None);
    assert_eq!(in_force(|s| drop(s.mesh().devices.remove(0))), None, "nobody knows");
    assert_eq!(
        in_force(|s| {
            let twin = akash_redis::model::mesh::Device { id: "twin".into(), ..device(0) };
            s.mesh().devices.push(twin);
        }),
        None,
        "another device of it has the other tag"
    );
    let mut scene = shut_off();
    assert_eq!(
        scene.plan(NOW).record.incarnations[&name(0)].quarantined.clone().unwrap().in_force,
        Some(ago(9)),
        "since when it was first seen"
    );
    scene.mesh().devices[0].tags = vec![TAG.into()];
    let after = scene.plan(NOW).record.incarnations[&name(0)].quarantined.clone().unwrap();
    assert_eq!(after.in_force, None, "somebody took it off");
}

#[test]
fn the_maps_of_all_who_may_be_attached_are_a_proof() {
    let sees: Edit = |s| s.node(2, |v| v.state.mesh.visible_ids.push(device(0).id));
    let rows: [(&str, Edit, bool); 12] = [
        ("all have lost it", |_| {}, true),
        ("one sees it still", sees, false),
        ("one does not answer", |s| s.silent(2, 1), false),
        ("one was heard before the tag was in force", |s| s.node(2, |v| v.heard = ago(9)), false),
        ("one was heard a moment after", |s| s.node(2, |v| v.heard = UnixMs(NOW - 8_999)), true),
        (
            "one's map is not to be believed",
            |s| s.node(2, |v| v.state.mesh.backend_state = BackendState::Starting),
            false,
        ),
        (
            "one names peers without ids",
            |s| s.node(2, |v| v.state.mesh.visible_peers.push("y".into())),
            false,
        ),
        (
            "the one that sees it has no leave to replicate, and is no candidate",
            |s| {
                s.node(2, |v| v.state.mesh.visible_ids.push(device(0).id));
                s.incarnation(2).membership = Membership::Joined;
                s.failover().eligible.retain(|e| e.incarnation == name(1));
            },
            true,
        ),
        ("the tag is not in force", |s| s.mesh().devices[0].tags = vec![TAG.into()], false),
        ("the old master writes alone", |s| s.failover().quorum.min_replicas = 0, false),
        (
            "its device has no id that anybody knows",
            |s| {
                s.mesh().devices.remove(0);
                s.incarnation(0).device = None;
                s.node(0, |v| v.state.mesh.device_id.clear());
                s.inventory.mesh.error = Some("away".into());
            },
            false,
        ),
        (
            "one sees the device that its agent reported, which is not listed",
            |s| {
                s.node(0, |v| v.state.mesh.device_id = "second".into());
                s.node(2, |v| v.state.mesh.visible_ids = vec!["second".into()]);
            },
            false,
        ),
    ];
    for (what, edit, proof) in rows {
        let mut scene = shut_off();
        edit(&mut scene);
        let plan = scene.plan(NOW);
        let fence = failing_over(&plan).unwrap().fence.clone();
        assert_eq!(fence.is_some(), proof, "{what}: {fence:?}");
    }
    let plan = shut_off().plan(NOW);
    assert_eq!(
        failing_over(&plan).unwrap().fence.as_ref().unwrap().how,
        "cache-0-aaaa is in quarantine, and gone from the network maps of cache-1-aaaa, cache-2-aaaa"
    );
}

#[test]
fn who_sees_it_long_after_does_not_hear_the_control_server() {
    let rows: [(&str, Edit, bool); 6] = [
        ("it has lost it", |s| s.node(2, |v| v.state.mesh.visible_ids.clear()), false),
        (
            "it sees it five seconds after",
            |s| s.incarnation(0).quarantined.as_mut().unwrap().in_force = Some(ago(5)),
            true,
        ),
        (
            "it sees it a moment less after",
            |s| s.incarnation(0).quarantined.as_mut().unwrap().in_force = Some(UnixMs(NOW - 4_999)),
            false,
        ),
        ("it was last heard before that", |s| s.node(2, |v| v.heard = UnixMs(NOW - 4_001)), false),
        ("it does not answer", |s| s.silent(2, 0), false),
        (
            "its map is not to be believed",
            |s| s.node(2, |v| v.state.mesh.backend_state = BackendState::NoState),
            false,
        ),
    ];
    for (what, edit, stale) in rows {
        let mut scene = shut_off();
        scene.node(2, |v| v.state.mesh.visible_ids.push(device(0).id));
        edit(&mut scene);
        let plan = scene.plan(NOW);
        let known = failing_over(&plan).map(|f| f.stale_netmaps.clone()).unwrap_or_default();
        assert_eq!(known == [name(2)], stale, "{what}");
        let told = degraded(&plan).1.contains("cache-2-aaaa cannot hear the control server");
        assert_eq!(told, stale, "{what}");
    }
}

#[test]
fn a_device_has_the_one_of_our_tags_that_the_record_says() {
    let rows: [(&str, &[&str], bool, Option<&str>, bool); 8] = [
        ("as it shall be", &[TAG], false, None, false),
        ("the other one", &[QUARANTINE], false, Some(TAG), false),
        ("a person's beside it", &[TAG, "tag:x"], false, None, false),
        ("a person's", &["tag:x"], false, None, true),
        ("none", &[], false, None, true),
        ("shut off", &[QUARANTINE], true, None, false),
        ("to be shut off", &[TAG], true, Some(QUARANTINE), false),
        ("shut off, and a person's beside it", &[QUARANTINE, TAG], true, None, true),
    ];
    for (what, tags, quarantined, set, problem) in rows {
        let mut scene = if quarantined { shut_off() } else { Scene::whole() };
        if quarantined {
            scene.incarnation(0).quarantined.as_mut().unwrap().at = UnixMs(NOW - 4_999);
        }
        scene.mesh().devices[0].tags = tags.iter().map(ToString::to_string).collect();
        let plan = scene.plan(NOW);
        let expected: Vec<_> = set.map(|t| (name(0), t.to_owned())).into_iter().collect();
        assert_eq!(tagged(&plan), expected, "{what}");
        let told = degraded(&plan).1.contains("which is left alone");
        assert_eq!(told, problem, "{what}: {:?}", degraded(&plan));
    }
    // A control server that does not do it is told of.
    for (ms, told) in [(5_000, true), (4_999, false)] {
        let mut scene = shut_off();
        scene.mesh().devices[0].tags = vec![TAG.into()];
        scene.incarnation(0).quarantined.as_mut().unwrap().at = UnixMs(NOW - ms);
        let message = degraded(&scene.plan(NOW)).1;
        assert_eq!(message.contains("the tag tag:q cannot be set on"), told, "{message}");
    }
}

/// Node 1 is the confirmed master of epoch 2; node 0 is shut off, was demoted, and has what node 1
/// has.
fn demoted() -> Scene {
    let mut scene = shut_off();
    scene.record.change = None;
    scene.take_over(1);
    scene.heard(
        0,
        detached(0, |s| {
            s.mesh.device_id = device(0).id;
            s.history = history("A", 100, 1, 0);
        }),
    );
    scene
}

#[test]
fn a_quarantine_ends_when_the_node_can_do_no_harm() {
    let rows: [(&str, Edit, bool); 11] = [
        ("it was demoted and has nothing more", |_| {}, true),
        ("it is a master", |s| s.node(0, |v| v.state.redis.role = Role::Master), false),
        ("it was demoted in an earlier epoch", |s| s.node(0, |v| v.state.highest.epoch = 1), false),
        ("it has more", |s| s.node(0, |v| v.state.history = history("A", 101, 1, 0)), false),
        ("nobody knows what it has", |s| s.node(0, |v| v.state.history = None), false),
        (
            "it has more, and that is kept",
            |s| {
                s.node(0, |v| {
                    v.state.history = history("A", 101, 1, 0);
                    v.state.saved = vec!["before-epoch-2".into()];
                });
            },
            true,
        ),
        (
            "something else is kept",
            |s| {
                s.node(0, |v| {
                    v.state.history = history("A", 101, 1, 0);
                    v.state.saved = vec!["before-epoch-1".into()];
                });
            },
            false,
        ),
        (
            "nobody knows, and it is empty",
            |s| s.node(0, |v| (v.state.history, v.state.redis.keys) = (None, 0)),
            true,
        ),
        ("it does not answer", |s| s.silent(0, 1), false),
        ("it loads", |s| s.node(0, |v| v.state.redis.loading = true), false),
        ("the new master does not answer", |s| s.silent(1, 1), false),
    ];
    for (what, edit, ends) in rows {
        let mut scene = demoted();
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(plan.record.incarnations[&name(0)].quarantined.is_none(), ends, "{what}");
        assert_eq!(has_event(&plan, EventReason::QuarantineEnded), ends, "{what}");
        assert_eq!(tagged(&plan) == [(name(0), TAG.to_owned())], ends, "{what}");
    }
    let asked = |edit: Edit| {
        let mut scene = demoted();
        edit(&mut scene);
        scene.plan(NOW)
    };
    assert_eq!(detaches(&asked(|s| s.node(0, |v| v.state.redis.role = Role::Master))), [name(0)]);
    assert_eq!(detaches(&asked(|s| s.node(0, |v| v.state.highest.epoch = 1))), [name(0)]);
    assert_eq!(detaches(&asked(|_| {})), []);
    let saves = asked(|s| s.node(0, |v| v.state.history = None));
    let save = Command::Save { label: "before-epoch-2".into() };
    assert!(commands(&saves).contains(&(name(0), save)), "{:?}", saves.steps);
    assert_eq!(wait_for(&saves, "the data of cache-0-aaaa to be kept").unwrap().0, Some(350));
}

#[test]
fn a_quarantine_lasts_while_the_master_changes_and_ends_when_nobody_took_its_place() {
    let mut scene = demoted();
    scene.switching(1);
    scene.record.epoch = 3;
    if let Some(akash_redis::model::change::Change::Switchover(s)) = &mut scene.record.change {
        (s.epoch, s.source, s.target) = (3, name(1), name(2));
    }
    assert!(scene.plan(NOW).record.incarnations[&name(0)].quarantined.is_some());
    let mut stays = shut_off();
    stays.record.change = None;
    stays.record.epoch = 1;
    stays.node(0, |v| v.state.redis.process = Process::Running);
    let plan = stays.plan(NOW);
    assert!(plan.record.incarnations[&name(0)].quarantined.is_none());
    assert_eq!(tagged(&plan), [(name(0), TAG.to_owned())]);
    let failing = shut_off().plan(NOW);
    assert!(failing.record.incarnations[&name(0)].quarantined.is_some());
}

/// Another device joined with the key of node 2, and the others are not whole, so that it stays.
#[test]
fn a_device_that_is_not_the_nodes_own_is_never_let_in() {
    let mut scene = Scene::whole();
    let twin = akash_redis::model::mesh::Device { id: "twin".into(), ..device(2) };
    scene.mesh().devices.push(twin);
    scene.mesh().devices[3].tags = vec![QUARANTINE.into()];
    scene.silent(1, 5);
    scene.incarnation(1).membership = Membership::Member;
    let plan = scene.plan(NOW);
    assert!(degraded(&plan).1.contains("the key is compromised"), "{:?}", degraded(&plan));
    assert_eq!((given_up(&scene, &plan), tagged(&plan)), (vec![], vec![]));
    scene.incarnation(2).device = None;
    scene.node(2, |v| v.state.mesh.device_id.clear());
    let plan = scene.plan(NOW);
    assert_eq!(tagged(&plan), [(name(2), TAG.to_owned())], "nobody knows which one is its own");
}
