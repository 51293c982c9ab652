//! What the tailnet's list of devices says about a node: the rules of `plan/devices.rs`.

use akash_redis::api::conditions::Reason;
use akash_redis::model::mesh::{BackendState, Device};
use akash_redis::model::node::KEY_SPENT;

use crate::scene::{NOW, QUARANTINE, Scene, TAG, degraded, device, given_up, name, page};

type Edit = fn(&mut Scene);

fn twin() -> Device {
    Device { id: "twin".into(), ..device(2) }
}

#[test]
fn a_key_that_somebody_else_used_is_told_and_its_node_replaced() {
    let rows: [(&str, Edit, Option<&str>); 9] = [
        ("its own device is there", |_| {}, None),
        (
            "another device has its name and a tag of ours",
            |s| s.mesh().devices.push(twin()),
            Some("device twin joined under its name with a key of ours"),
        ),
        (
            "that one has the other tag of ours",
            |s| s.mesh().devices.push(Device { tags: vec![QUARANTINE.into()], ..twin() }),
            Some("device twin joined"),
        ),
        (
            "a stranger took its name",
            |s| s.mesh().devices.push(Device { tags: vec!["tag:x".into()], ..twin() }),
            None,
        ),
        (
            "a device of ours has another name",
            |s| s.mesh().devices.push(Device { hostname: "x".into(), ..twin() }),
            None,
        ),
        (
            "its agent speaks from another device",
            |s| s.node(2, |v| v.state.mesh.device_id = "twin".into()),
            Some("its agent joined as device device-2 and speaks from twin now"),
        ),
        (
            "it says so while it is not on the mesh",
            |s| {
                s.node(2, |v| {
                    v.state.mesh.device_id = "twin".into();
                    v.state.mesh.backend_state = BackendState::Starting;
                });
            },
            None,
        ),
        ("it says nothing of its device", |s| s.node(2, |v| v.state.mesh.device_id.clear()), None),
        (
            "nobody knows which device it joined as",
            |s| {
                s.incarnation(2).device = None;
                s.node(2, |v| v.state.mesh.device_id.clear());
                s.mesh().devices.push(twin());
            },
            None,
        ),
    ];
    for (what, edit, why) in rows {
        let mut scene = Scene::whole();
        edit(&mut scene);
        let plan = scene.plan(NOW);
        let (reason, message) = degraded(&plan);
        assert_eq!(reason == Reason::KeyCompromised, why.is_some(), "{what}: {message}");
        assert!(why.is_none_or(|why| message.contains(why)), "{what}: {message}");
        assert_eq!(given_up(&scene, &plan) == [name(2)], why.is_some(), "{what}");
    }
    let mut renamed = Scene::whole();
    renamed.mesh().devices[2].hostname = "renamed".into();
    renamed.mesh().devices[2].tags = vec![TAG.into()];
    assert_eq!(degraded(&renamed.plan(NOW)).0, Reason::AsExpected, "a device is its id");
}

#[test]
fn a_key_that_is_spent_never_joins_again() {
    let spent = |edit: Edit| {
        let mut scene = Scene::whole();
        scene.silent(2, 1);
        let said = page(2, |p| p.lacks = vec![format!("{KEY_SPENT}: used")]);
        scene.inventory.pages.insert(name(2), said);
        edit(&mut scene);
        let plan = scene.plan(NOW);
        let gone = given_up(&scene, &plan) == [name(2)];
        let why = plan.record.incarnations[&name(2)].condemned.clone();
        (gone, why.map(|c| c.reason).unwrap_or_default())
    };
    let (gone, why) = spent(|_| {});
    assert!(gone && why.contains("used up, by device device-2"), "{why}");
    let (gone, why) = spent(|s| {
        s.mesh().devices.clear();
        s.inventory.mesh.at = crate::scene::ago(60);
    });
    assert!(gone && why.contains("revoked or has expired"), "{why}");
    let other: Edit = |s| s.inventory.pages.get_mut(&name(2)).unwrap().lacks.clear();
    assert!(!spent(other).0);
}

#[test]
fn a_state_in_two_places_is_told_and_no_more() {
    let mut scene = Scene::whole();
    scene.mesh().devices[2].multiple_connections = true;
    let plan = scene.plan(NOW);
    assert_eq!(degraded(&plan).0, Reason::DuplicateMeshState);
    assert!(degraded(&plan).1.contains("the mesh state of cache-2-aaaa"));
    assert_eq!(given_up(&scene, &plan), []);
}
