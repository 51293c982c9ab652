//! A node whose device is gone joins again: the rules of `plan/rejoin.rs`.

use akash_redis::api::annotations::REJOIN;
use akash_redis::api::conditions::Reason;
use akash_redis::api::events::EventReason;
use akash_redis::model::incarnation::{Membership, Rejoin};
use akash_redis::model::mesh::Device;
use akash_redis::model::step::Effect;
use akash_redis::model::time::UnixMs;
use akash_redis::plan::Plan;

use crate::scene::{NOW, Scene, ago, degraded, device, has_event, key, lease_id, name, wait_for};

type Edit = fn(&mut Scene);

/// The tailnet lost all devices a minute ago, and nobody is heard since.
fn forgotten() -> Scene {
    let mut scene = Scene::whole();
    (0..3).for_each(|n| scene.silent(n, 60));
    scene.mesh().devices.clear();
    scene
}

fn delivers(plan: &Plan) -> Vec<akash_redis::model::ids::IncarnationName> {
    let deliver = |e: &Effect| match e {
        Effect::DeliverManifest { incarnation, .. } => Some(incarnation.clone()),
        _ => None,
    };
    plan.steps.iter().filter_map(|s| deliver(&s.effect)).collect()
}

#[test]
fn an_empty_list_and_nobody_heard_is_told() {
    let rows: [(&str, Edit, bool); 6] = [
        ("all are gone", |_| {}, true),
        ("one is heard", |s| s.node(1, |v| v.connected = true), false),
        ("one is listed, and silent", |s| s.mesh().devices.push(device(1)), true),
        ("none is missing", |s| (0..3).for_each(|n| s.mesh().devices.push(device(n))), false),
        ("the list was read before their last word", |s| s.inventory.mesh.at = ago(60), false),
        ("the list cannot be had", |s| s.inventory.mesh.error = Some("x".into()), false),
    ];
    for (what, edit, told) in rows {
        let mut scene = forgotten();
        edit(&mut scene);
        let (_, message) = degraded(&scene.plan(NOW));
        assert_eq!(message.contains("the tailnet does not list the devices of"), told, "{what}");
    }
    let (reason, message) = degraded(&forgotten().plan(NOW));
    assert_eq!(reason, Reason::DevicesMissing);
    assert!(message.contains("`akash-redis rejoin cache cache-0-aaaa`"), "{message}");
    let mut memory = forgotten();
    memory.cluster.spec.resources.data = None;
    assert!(degraded(&memory.plan(NOW)).1.contains("without a data volume no node can be given"));
}

#[test]
fn a_node_gets_a_new_key_at_a_persons_word() {
    let rows: [(&str, Edit, bool); 9] = [
        ("it is named", |_| {}, true),
        ("another one is named", |s| s.annotate(REJOIN, "cache-7-aaaa"), false),
        ("its device is listed", |s| s.mesh().devices.push(device(1)), false),
        ("it has no volume", |s| s.cluster.spec.resources.data = None, false),
        ("the control API is away", |s| s.inventory.mesh.error = Some("x".into()), false),
        ("the chain is away", |s| s.inventory.chain.error = Some("x".into()), false),
        (
            "its deployment is closed",
            |s| {
                (s.record.master, s.record.data_master) = (None, None);
                s.deployment(1).active = false;
            },
            false,
        ),
        ("it never joined", |s| s.incarnation(1).membership = Membership::Expected, false),
        (
            "another one is under way",
            |s| {
                s.incarnation(2).rejoin = Some(Rejoin { at: ago(5), sent: ago(5) });
            },
            false,
        ),
    ];
    for (what, edit, begins) in rows {
        let mut scene = forgotten();
        scene.annotate(REJOIN, "x, cache-1-aaaa ");
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(
            delivers(&plan).contains(&name(1)) && has_event(&plan, EventReason::RejoinStarted),
            begins,
            "{what}"
        );
    }
    let mut scene = forgotten();
    scene.annotate(REJOIN, name(1).0);
    scene.mesh().keys = vec![key(&name(1))];
    let plan = scene.plan(NOW);
    let lease = lease_id(101, 1);
    let deliver = Effect::DeliverManifest { incarnation: name(1), lease };
    let revoke = Effect::RevokeKey { incarnation: name(1), key: key(&name(1)).id };
    assert!(
        plan.steps.iter().any(|s| s.effect == deliver)
            && plan.steps.iter().any(|s| s.effect == revoke)
    );
    let own = &plan.record.incarnations[&name(1)];
    let began = Some(Rejoin { at: UnixMs(NOW), sent: UnixMs(NOW) });
    assert_eq!((own.rejoin.clone(), own.device.clone()), (began, None));
    assert_eq!(own.former_devices, [device(1).id], "it is to be deleted in the end");
}

#[test]
fn the_manifest_is_sent_again_until_it_is_heard() {
    let rejoining = |at, sent, edit: &dyn Fn(&mut Scene)| {
        let mut scene = forgotten();
        scene.incarnation(1).rejoin = Some(Rejoin { at: ago(at), sent: ago(sent) });
        scene.incarnation(1).device = None;
        edit(&mut scene);
        scene.plan(NOW)
    };
    assert_eq!(delivers(&rejoining(60, 29, &|_| {})), []);
    let again = rejoining(60, 30, &|_| {});
    assert_eq!(delivers(&again), [name(1)]);
    assert!(!has_event(&again, EventReason::RejoinStarted));
    assert_eq!(again.record.incarnations[&name(1)].rejoin.as_ref().unwrap().at, ago(60));
    assert_eq!(wait_for(&again, "to join again with its new key").unwrap().0, Some(240));
    assert!(!degraded(&rejoining(299, 5, &|_| {})).1.contains("longer than the 300 s"));
    assert!(degraded(&rejoining(300, 5, &|_| {})).1.contains("longer than the 300 s"));
    // It is not given up for its silence meanwhile.
    let silent = |at| {
        let plan = rejoining(at, 5, &|s| {
            for n in [0, 2] {
                s.node(n, |v| (v.connected, v.heard) = (true, UnixMs(NOW)));
                s.mesh().devices.push(device(n));
            }
            s.silent(1, 400);
        });
        plan.record.incarnations[&name(1)].condemned.is_some()
    };
    assert_eq!((silent(299), silent(300)), (false, true));
    // It speaks.
    let heard: Edit = |s| {
        s.node(1, |v| {
            (v.connected, v.heard) = (true, UnixMs(NOW));
            v.state.mesh.device_id = "new".into();
        });
        s.mesh().devices.push(Device { id: "new".into(), ..device(1) });
    };
    let joined = rejoining(60, 5, &heard);
    assert!(has_event(&joined, EventReason::NodeRejoined));
    let own = &joined.record.incarnations[&name(1)];
    assert_eq!((own.rejoin.clone(), own.device.as_deref()), (None, Some("new")));
    let unlisted = rejoining(60, 5, &|s| {
        heard(s);
        s.mesh().devices.clear();
    });
    assert!(!has_event(&unlisted, EventReason::NodeRejoined), "an agent may name any device");
    let from_before = rejoining(60, 5, &|s| {
        heard(s);
        s.incarnation(1).former_devices = vec!["new".into()];
    });
    assert!(!has_event(&from_before, EventReason::NodeRejoined), "the list was wrong about it");
    let before = rejoining(60, 5, &|s| s.node(1, |v| (v.connected, v.heard) = (true, ago(60))));
    assert!(!has_event(&before, EventReason::NodeRejoined), "that was its old device");
    let nameless = rejoining(60, 5, &|s| {
        s.node(1, |v| {
            (v.connected, v.heard) = (true, UnixMs(NOW));
            v.state.mesh.device_id.clear();
        });
    });
    assert!(!has_event(&nameless, EventReason::NodeRejoined));
}

/// The list lacked it, and may have been wrong.
#[test]
fn the_device_from_before_is_deleted_once_the_new_one_is_known() {
    let old = || "before".to_owned();
    let planned = |edit: Edit| {
        let mut scene = Scene::whole();
        scene.incarnation(1).former_devices = vec![old()];
        edit(&mut scene);
        let plan = scene.plan(NOW);
        let delete = Effect::DeleteDevice { incarnation: name(1), device: old() };
        let deletes = plan.steps.iter().any(|s| s.effect == delete);
        let kept = plan.record.incarnations[&name(1)].former_devices == [old()];
        assert_eq!(plan.record.incarnations[&name(1)].condemned, None, "nobody else has its key");
        (deletes, kept)
    };
    assert_eq!(planned(|_| {}), (true, true));
    let begun: Edit = |s| {
        s.silent(1, 10);
        s.incarnation(1).rejoin = Some(Rejoin { at: ago(5), sent: ago(5) });
    };
    assert_eq!(planned(begun), (false, true), "the new one is not known yet");
    let done: Edit = |s| {
        s.inventory.deleted_devices.insert("before".into());
    };
    assert_eq!(planned(done), (false, false));
    let listed: Edit = |s| {
        s.inventory.deleted_devices.insert("before".into());
        s.mesh().devices.push(Device { id: "before".into(), ..device(1) });
    };
    assert_eq!(planned(listed), (true, true), "the list has it again");
    assert_eq!(planned(|s| s.inventory.mesh.error = Some("x".into())), (false, true));
}
