//! The tailnet's control API refuses or is away: the rules of `plan/control.rs`.

use akash_redis::api::conditions::Reason;
use akash_redis::model::inventory::Reading;
use akash_redis::model::step::Effect;
use akash_redis::model::time::UnixMs;

use crate::scene::{NOW, Scene, THREE, ago, degraded, key, name, wait_for};

#[test]
fn an_api_that_is_away_or_refuses_is_told() {
    let told = |done: u64, started: u64, refused| {
        let mut scene = Scene::whole();
        scene.inventory.mesh.failed("no route".into(), refused);
        scene.inventory.mesh.done = ago(done);
        scene.started = ago(started);
        degraded(&scene.plan(NOW)).0
    };
    assert_eq!(told(29, 3600, false), Reason::AsExpected);
    assert_eq!(told(30, 3600, false), Reason::MeshApiUnavailable);
    assert_eq!(told(3600, 29, false), Reason::AsExpected, "the operator has just started");
    assert_eq!(told(3600, 30, false), Reason::MeshApiUnavailable);
    assert_eq!(told(0, 3600, true), Reason::MeshApiRefused, "that does not pass by waiting");
    let mut fresh = Scene::whole();
    fresh.inventory.mesh = Reading::default();
    fresh.inventory.mesh.error = None;
    fresh.started = ago(60);
    assert!(degraded(&fresh.plan(NOW)).1.contains("it was not read yet"));
}

#[test]
fn a_key_that_cannot_be_minted_is_told_for_a_node_that_is_recorded() {
    let mut scene = Scene::whole();
    scene.inventory.not_minted.insert(name(7), "no such tag".into());
    assert_eq!(degraded(&scene.plan(NOW)).0, Reason::AsExpected);
    scene.inventory.not_minted.insert(name(1), "no such tag".into());
    let (reason, message) = degraded(&scene.plan(NOW));
    assert_eq!(reason, Reason::MeshApiRefused);
    assert!(
        message.contains("cache-1-aaaa, so nothing is bought for it: no such tag"),
        "{message}"
    );
}

#[test]
fn nothing_is_bought_while_nobody_could_join() {
    let mut scene = Scene::new(THREE);
    scene.inventory.mesh.failed("no route".into(), false);
    let plan = scene.plan(NOW);
    assert_eq!((plan.steps.len(), plan.record.incarnations.len()), (0, 0));
    let (until, then) =
        wait_for(&plan, "the mesh control API, before anything is bought (no route)").unwrap();
    assert_eq!((until, then.as_str()), (None, "the missing nodes are bought"));
}

#[test]
fn a_key_whose_secret_is_lost_is_revoked() {
    let revoked = |edit: fn(&mut Scene)| {
        let mut scene = Scene::new(THREE);
        scene.cluster.spec.nodes = 1;
        scene.record = scene.plan(NOW).record;
        scene.mesh().keys = vec![key(&name(0)), key(&name(1))];
        edit(&mut scene);
        let plan = scene.plan(NOW);
        let keys = plan.steps.into_iter().filter_map(|s| match s.effect {
            Effect::RevokeKey { key, .. } => Some(key),
            _ => None,
        });
        keys.collect::<Vec<_>>()
    };
    assert_eq!(revoked(|_| {}), [key(&name(0)).id]);
    assert_eq!(
        revoked(|s| {
            s.inventory.held.insert(name(0), [0; 32]);
        }),
        [] as [String; 0]
    );
    assert_eq!(revoked(|s| s.mesh().keys[0].invalid = true), [] as [String; 0]);
    assert_eq!(revoked(|s| s.inventory.mesh.at = UnixMs(NOW)), [key(&name(0)).id]);
}
