//! What is left of those given up: the rules of `plan/cleanup.rs`.

use std::collections::BTreeMap;

use akash_redis::model::chain::{ChainView, DeploymentView, EscrowView, GroupState};
use akash_redis::model::incarnation::{Condemned, Membership, Quarantine};
use akash_redis::model::inventory::Reading;
use akash_redis::model::mesh::{Device, MeshView};
use akash_redis::model::step::Effect;
use akash_redis::model::time::UnixMs;

use akash_redis::api::conditions::Reason;
use akash_redis::api::events::EventReason;
use akash_redis::plan::Plan;

use crate::scene::{NOW, Scene, ago, degraded, device, has_event, key, name, wait_for};

/// A record that names the deployment of somebody else, however that came about.
#[test]
fn a_deployment_whose_group_is_another_clusters_is_never_closed() {
    for (group, closes) in [
        ("ar-abcdef-cache-2-aaaa", true),
        ("ar-abcdef-other-2-aaaa", false),
        ("ar-zzzzzz-cache-2-aaaa", false),
    ] {
        let mut scene = Scene::three();
        scene.record.incarnations.get_mut(&name(2)).unwrap().condemned =
            Some(Condemned { at: UnixMs(NOW - 1_000), reason: "x".into(), ..Condemned::default() });
        scene.incarnation(2).lower(Membership::Member);
        let deployment = DeploymentView {
            dseq: 102,
            created_height: 0,
            active: true,
            hash: vec![],
            group_name: group.into(),
            group: GroupState::Open,
            open_order: None,
            ordered_at: None,
            bids: vec![],
            leases: vec![],
            escrow: EscrowView::default(),
        };
        let deployments = BTreeMap::from([(102, deployment)]);
        let view = ChainView {
            height: 5,
            block_time: UnixMs(NOW),
            block_ms: 6_000,
            deployments,
            ..ChainView::default()
        };
        scene.inventory.chain = Reading::fresh(view, UnixMs(NOW));
        scene.inventory.mesh = Reading::fresh(MeshView::default(), UnixMs(NOW));
        let plan = scene.plan(NOW);
        let closed = plan
            .steps
            .iter()
            .any(|s| matches!(s.effect, Effect::CloseDeployment { dseq: 102, .. }));
        assert_eq!(closed, closes, "{group}");
    }
}

type Edit = fn(&mut Scene);

/// Node 2 was given up ten minutes ago and nothing of it is left; it was seen closed a minute ago.
fn gone() -> Scene {
    let mut scene = Scene::whole();
    scene.give_up(2, 600);
    scene.incarnation(2).condemned.as_mut().unwrap().closed = Some(ago(60));
    scene.deployment(2).active = false;
    scene.mesh().devices.remove(2);
    scene.inventory.deleted_devices.insert(device(2).id);
    scene.inventory.nodes.remove(&name(2));
    scene.attach(&[1]);
    scene
}

/// What is told at the end is what was seen, and never more.
#[test]
fn nothing_is_called_closed_that_was_not() {
    let told = |edit: Edit| {
        let mut scene = gone();
        edit(&mut scene);
        let plan = scene.plan(NOW);
        let end = plan.events.into_iter().find(|(reason, _)| *reason == EventReason::NodeRemoved);
        end.expect("it is forgotten").1
    };
    assert!(told(|_| {}).contains("its deployment 102 is closed"));
    let foreign = told(|s| {
        s.deployment(2).active = true;
        s.deployment(2).group_name = "ar-abcdef-other-2-aaaa".into();
    });
    assert!(foreign.contains("not its own and stays open"), "{foreign}");
    assert!(!foreign.contains("is closed"), "{foreign}");
    let absent = told(|s| drop(s.chain().deployments.remove(&102)));
    assert!(absent.contains("was never made") && !absent.contains("is closed"), "{absent}");
}

fn kinds(plan: &Plan) -> Vec<&'static str> {
    let kind = |e: &Effect| match e {
        Effect::CloseDeployment { .. } => Some("close"),
        Effect::DeleteDevice { .. } => Some("delete"),
        Effect::RevokeKey { .. } => Some("revoke"),
        _ => None,
    };
    plan.steps.iter().filter_map(|s| kind(&s.effect)).collect()
}

#[test]
fn who_was_given_up_is_forgotten_when_nothing_is_left() {
    let rows: [(&str, Edit, &[&str], bool); 20] = [
        ("nothing is", |_| {}, &[], true),
        ("its deployment is open", |s| s.deployment(2).active = true, &["close"], false),
        (
            "its deployment is open, and a transaction is on its way",
            |s| {
                s.deployment(2).active = true;
                s.inventory.pending.insert(102);
            },
            &[],
            false,
        ),
        (
            "a transaction is on its way",
            |s| {
                s.inventory.pending.insert(102);
            },
            &[],
            false,
        ),
        ("the chain is away", |s| s.inventory.chain.error = Some("x".into()), &[], false),
        ("its device is there", |s| s.mesh().devices.push(device(2)), &["delete"], false),
        (
            "the list lacks its device, and nobody deleted it",
            |s| s.inventory.deleted_devices.clear(),
            &["delete"],
            false,
        ),
        (
            "the list lacks one that it had before, and nobody deleted it",
            |s| s.incarnation(2).former_devices = vec!["before".into()],
            &["delete"],
            false,
        ),
        (
            "one that it had before is there under another name",
            |s| {
                s.incarnation(2).former_devices = vec!["before".into()];
                s.inventory.deleted_devices.insert("before".into());
                let renamed = Device { id: "before".into(), hostname: "x".into(), ..device(2) };
                s.mesh().devices.push(renamed);
            },
            &["delete"],
            false,
        ),
        ("its key is there", |s| s.mesh().keys.push(key(&name(2))), &["revoke"], false),
        (
            "its key is used up",
            |s| {
                s.mesh().keys.push(key(&name(2)));
                s.mesh().keys[0].invalid = true;
            },
            &[],
            true,
        ),
        ("another's key is there", |s| s.mesh().keys.push(key(&name(1))), &[], true),
        ("not all keys could be looked at", |s| s.mesh().all_keys = false, &[], false),
        (
            "a key is being minted",
            |s| {
                s.inventory.minting.insert(name(2));
            },
            &[],
            false,
        ),
        ("the tailnet is away", |s| s.inventory.mesh.error = Some("x".into()), &[], false),
        ("the tailnet was read when it was closed", |s| s.inventory.mesh.at = ago(60), &[], false),
        (
            "nobody saw it closed before",
            |s| s.incarnation(2).condemned.as_mut().unwrap().closed = None,
            &[],
            false,
        ),
        ("the operator started nine seconds ago", |s| s.started = ago(9), &[], false),
        ("it started ten seconds ago", |s| s.started = ago(10), &[], true),
        ("the chain knows none", |s| drop(s.chain().deployments.remove(&102)), &[], true),
    ];
    for (what, edit, steps, forgotten) in rows {
        let mut scene = gone();
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(kinds(&plan), steps, "{what}");
        assert_eq!(!plan.record.incarnations.contains_key(&name(2)), forgotten, "{what}");
        assert_eq!(has_event(&plan, EventReason::NodeRemoved), forgotten, "{what}");
        assert_eq!(wait_for(&plan, "cache-2-aaaa to be cleaned up").is_none(), forgotten, "{what}");
    }
}

/// Its connections end with its container. Nobody on the tailnet hears of that without its device.
#[test]
fn the_device_of_a_node_that_runs_stays_until_its_deployment_is_closed() {
    let rows: [(&str, Edit, &[&str]); 6] = [
        ("it runs", |_| {}, &["close"]),
        ("it is silent", |s| s.silent(2, 1), &["close", "delete"]),
        (
            "it is not to be spoken with",
            |s| {
                s.incarnation(2).quarantined =
                    Some(Quarantine { epoch: 1, at: ago(40), in_force: None });
            },
            &["close", "delete"],
        ),
        ("the close does not come", |s| s.give_up(2, 30), &["close", "delete"]),
        ("its lease is closed already", |s| s.close_lease(2, 1), &["close", "delete"]),
        ("its deployment is closed", |s| s.deployment(2).active = false, &["delete"]),
    ];
    for (what, edit, steps) in rows {
        let mut scene = Scene::whole();
        scene.give_up(2, 5);
        scene.attach(&[1]);
        edit(&mut scene);
        assert_eq!(kinds(&scene.plan(NOW)), steps, "{what}");
    }
}

#[test]
fn when_it_was_first_seen_closed_is_kept() {
    let closed = |edit: Edit| {
        let mut scene = gone();
        scene.mesh().devices.push(device(2));
        edit(&mut scene);
        let plan = scene.plan(NOW);
        plan.record.incarnations[&name(2)].condemned.clone().unwrap().closed
    };
    assert_eq!(closed(|_| {}), Some(ago(60)));
    assert_eq!(
        closed(|s| s.incarnation(2).condemned.as_mut().unwrap().closed = None),
        Some(UnixMs(NOW))
    );
    assert_eq!(closed(|s| s.deployment(2).active = true), None, "it is open");
}

#[test]
fn a_clean_up_that_takes_long_is_told() {
    for (seconds, told) in [(299, false), (300, true)] {
        let mut scene = gone();
        scene.deployment(2).active = true;
        scene.incarnation(2).condemned.as_mut().unwrap().at = ago(seconds);
        assert_eq!(degraded(&scene.plan(NOW)).0 == Reason::CleanupStalled, told, "{seconds} s");
    }
}

#[test]
fn what_is_not_ours_is_left_alone_and_told() {
    let mut scene = gone();
    scene.deployment(2).active = true;
    scene.deployment(2).group_name = "somebody's".into();
    let plan = scene.plan(NOW);
    assert_eq!((kinds(&plan), degraded(&plan).0), (vec![], Reason::ForeignDeployment));
    scene.deployment(2).active = false;
    assert_eq!(degraded(&scene.plan(NOW)).0, Reason::AsExpected);
}
