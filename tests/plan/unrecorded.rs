//! Deployments of ours that are in no record: the rules of `plan/unrecorded.rs`.

use akash_redis::api::annotations::CLOSE;
use akash_redis::api::conditions::Reason;
use akash_redis::api::events::EventReason;
use akash_redis::model::ids::IncarnationName;
use akash_redis::model::step::Effect;
use akash_redis::plan::Plan;

use crate::scene::{NOW, Scene, THREE, degraded, deployment, has_event, installation, wait_for};

type Edit = fn(&mut Scene);

fn lost() -> IncarnationName {
    IncarnationName("cache-1-lost".into())
}

fn creates(plan: &Plan) -> usize {
    plan.steps.iter().filter(|s| matches!(s.effect, Effect::CreateDeployment { .. })).count()
}

#[test]
fn nothing_is_bought_beside_what_stands_in_no_record() {
    let own: Edit = |s| drop(s.inventory.unrecorded.insert(7, lost()));
    let others: Edit = |s| {
        s.inventory.unrecorded.insert(7, IncarnationName("other-1-lost".into()));
    };
    let rows: [(&str, &[Edit], usize, Option<&str>); 5] = [
        ("nothing does", &[], 3, None),
        ("one of this cluster does", &[own], 0, Some("are in no record (dseq 7)")),
        ("one of another cluster does", &[others], 0, Some("7 of other")),
        ("the same, and this one had nodes before", &[others, |s| s.record.epoch = 1], 3, None),
        (
            "the same, and this one has nodes",
            &[others, |s| {
                s.cluster.spec.nodes = 4;
                s.record.incarnations = Scene::three().record.incarnations;
                s.record.incarnations.retain(|_, i| i.ordinal < 1);
            }],
            3,
            None,
        ),
    ];
    for (what, edits, bought, told) in rows {
        let mut scene = Scene::new(THREE);
        edits.iter().for_each(|edit| edit(&mut scene));
        let plan = scene.plan(NOW);
        let (reason, message) = degraded(&plan);
        assert_eq!(creates(&plan), bought, "{what}");
        assert_eq!(reason == Reason::OrphanedDeployment, told.is_some(), "{what}: {message}");
        assert!(told.is_none_or(|told| message.contains(told)), "{what}: {message}");
    }
    let mut recorded = Scene::whole();
    recorded.cluster.spec.nodes = 4;
    recorded.inventory.id_pool.suffixes = vec!["bbbb".into()];
    recorded.inventory.unrecorded.insert(101, IncarnationName("cache-1-aaaa".into()));
    assert_eq!(creates(&recorded.plan(NOW)), 1, "it does stand in the record");
}

#[test]
fn a_person_closes_each_by_its_number() {
    let close = |word: &str, paused: bool| {
        let mut scene = Scene::new(THREE);
        scene.inventory.unrecorded.insert(7, lost());
        scene.chain().deployments.insert(7, deployment(&lost(), 7));
        scene.annotate(CLOSE, word);
        scene.cluster.spec.paused = paused;
        scene.plan(NOW)
    };
    let closes = |plan: &Plan| {
        let close = Effect::CloseDeployment { incarnation: lost(), dseq: 7 };
        plan.steps.iter().any(|s| s.effect == close)
    };
    for (word, paused, closed) in [
        ("7", false, true),
        ("x, 7 ", false, true),
        ("8", false, false),
        ("", false, false),
        ("7", true, false),
    ] {
        let plan = close(word, paused);
        assert_eq!(
            (closes(&plan), has_event(&plan, EventReason::OrphanClosing)),
            (closed, closed),
            "{word}"
        );
        assert_eq!(plan.record.incarnations.contains_key(&lost()), closed, "{word}");
    }
    let plan = close("7", false);
    assert_eq!((plan.record.incarnations[&lost()].ordinal, creates(&plan)), (1, 3), "bought anew");
    let mut others = Scene::new(THREE);
    others.inventory.unrecorded.insert(7, IncarnationName("other-1-lost".into()));
    others.annotate(CLOSE, "7");
    assert!(others.plan(NOW).record.incarnations.is_empty(), "it is another cluster's");
    let mut twice = Scene::whole();
    twice.inventory.unrecorded.insert(7, crate::scene::name(1));
    twice.annotate(CLOSE, "7");
    assert!(twice.plan(NOW).record.incarnations[&crate::scene::name(1)].condemned.is_none());
}

/// Of an incarnation whose deployment is gone, a device or a key may be left.
#[test]
fn a_person_closes_by_name_what_is_left_on_the_tailnet() {
    let left = IncarnationName("cache-5-left".into());
    let asked = |edit: Edit| {
        let mut scene = Scene::whole();
        scene.annotate(CLOSE, "cache-5-left, cache-1-aaaa, other-1-left");
        edit(&mut scene);
        scene.plan(NOW)
    };
    assert!(!asked(|_| {}).record.incarnations.contains_key(&left), "nothing of it is there");
    let device: Edit = |s| {
        let mut device = crate::scene::device(1);
        (device.id, device.hostname) =
            ("left".into(), IncarnationName("cache-5-left".into()).hostname(&installation()));
        s.mesh().devices.push(device);
    };
    let key: Edit =
        |s| s.mesh().keys.push(crate::scene::key(&IncarnationName("cache-5-left".into())));
    for edit in [device, key] {
        let plan = asked(edit);
        let given_up = &plan.record.incarnations[&left];
        assert!(given_up.condemned.is_some() && has_event(&plan, EventReason::OrphanClosing));
        assert_eq!((given_up.dseq, given_up.ordinal), (left.dseq(&installation()), 5));
        assert!(plan.record.incarnations[&crate::scene::name(1)].condemned.is_none(), "recorded");
        assert_eq!(plan.record.incarnations.len(), 4, "another cluster's is none of ours");
    }
    let mut effects = asked(device).steps.into_iter().map(|s| s.effect);
    let deletion = Effect::DeleteDevice { incarnation: left.clone(), device: "left".into() };
    assert!(effects.any(|e| e == deletion));
}

#[test]
fn a_deletion_waits_for_a_word_about_what_is_left() {
    let deleted = |edit: Edit| {
        let mut scene = Scene::new(THREE);
        scene.cluster.metadata.deletion_timestamp = Some("now".into());
        edit(&mut scene);
        scene.plan(NOW)
    };
    assert!(deleted(|_| {}).finished);
    let left = deleted(|s| drop(s.inventory.unrecorded.insert(7, lost())));
    assert!(!left.finished && degraded(&left).0 == Reason::OrphanedDeployment);
    assert!(wait_for(&left, "manual action on the deployments 7").is_some());
    let others = deleted(|s| {
        s.inventory.unrecorded.insert(7, IncarnationName("other-1-lost".into()));
    });
    assert!(others.finished);
    let off = deleted(|s| {
        s.annotate(CLOSE, "7");
        s.inventory.mesh.error = Some("x".into());
    });
    assert!(!off.finished && wait_for(&off, "the tailnet, to see").is_some());
    let away = deleted(|s| s.inventory.chain.error = Some("x".into()));
    assert!(!away.finished && wait_for(&away, "the chain, to see that nothing").is_some());
}
