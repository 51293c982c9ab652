//! Who is given up although he may hold data: the rules of `plan/give_up.rs`.

use akash_redis::api::annotations::REJOIN;
use akash_redis::model::incarnation::Membership;
use akash_redis::model::node::{KEY_SPENT, Process, Role};
use akash_redis::model::status_page::PageView;
use akash_redis::model::time::UnixMs;

use crate::scene::{NOW, Scene, ago, given_up, name, wait_for};

/// Two keys expired at once: the nodes go one after the other, with the same rule as for any other
/// reason.
#[test]
fn of_two_nodes_whose_keys_are_spent_one_goes_and_the_other_stays() {
    let mut scene = Scene::three();
    for n in 1..3 {
        scene.node(n, |v| (v.connected, v.heard) = (false, UnixMs(NOW - 5_000)));
        let page = PageView {
            at: UnixMs(NOW),
            boot_id: format!("boot-{n}"),
            clock: UnixMs(NOW),
            mesh: "NeedsLogin".into(),
            health: vec![],
            process: Process::Running,
            role: Role::Replica,
            fenced: true,
            epoch: 1,
            lacks: vec![format!("{KEY_SPENT}: it has expired")],
        };
        scene.inventory.pages.insert(name(n), page);
    }
    let plan = scene.settle(NOW);
    let gone: Vec<_> = plan
        .record
        .incarnations
        .iter()
        .filter(|(_, i)| i.condemned.is_some())
        .map(|(n, _)| n.clone())
        .collect();
    assert_eq!(gone, [name(1)]);
    assert!(
        plan.status
            .waiting
            .iter()
            .any(|w| w.what.contains(&name(2).0) && w.then.contains("node 1 is being filled"))
    );
}

type Edit = fn(&mut Scene);

/// Node 2 has been silent for five minutes; it is a replica in sync of a cluster that is whole.
fn silent() -> Scene {
    let mut scene = Scene::whole();
    scene.silent(2, 300);
    scene
}

#[test]
fn a_silent_node_is_given_up_when_the_others_are_whole() {
    let rows: [(&str, Edit, bool); 14] = [
        ("they are", |_| {}, true),
        ("it has been silent for less", |s| s.silent(2, 299), false),
        ("the master changes", |s| s.switching(1), false),
        ("the master does not answer", |s| s.silent(0, 1), false),
        (
            "the master is not confirmed",
            |s| {
                s.record.epoch = 2;
                (s.master().epoch, s.master().confirmed) = (2, false);
            },
            false,
        ),
        (
            "the other is not in sync",
            |s| {
                s.incarnation(1).lower(Membership::Member);
                s.attach(&[]);
            },
            false,
        ),
        (
            "the other does not answer either: of those the lower number goes",
            |s| s.silent(1, 1),
            false,
        ),
        ("the other's redis loads", |s| s.node(1, |v| v.state.redis.loading = true), false),
        (
            "the other is being filled",
            |s| {
                s.record.incarnations.remove(&name(1));
            },
            false,
        ),
        (
            "the other never joined",
            |s| {
                s.incarnation(1).membership = Membership::Expected;
                s.inventory.nodes.remove(&name(1));
            },
            false,
        ),
        ("the other was given up", |s| s.give_up(1, 5), false),
        (
            "a person is about to bring it back",
            |s| {
                s.annotate(REJOIN, name(2).0);
                s.mesh().devices.remove(2);
            },
            false,
        ),
        (
            "the operator itself is off the mesh",
            |s| s.inventory.own_mesh.error = Some("x".into()),
            false,
        ),
        ("of two nodes", |s| s.cluster.spec.nodes = 2, true),
    ];
    for (what, edit, goes) in rows {
        let mut scene = silent();
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(given_up(&scene, &plan).contains(&name(2)), goes, "{what}");
    }
}

/// Several are in the same case: first those that were not in sync, then by number.
#[test]
fn of_several_that_are_gone_the_worst_goes_first() {
    for (out_of_sync, first) in [(None, 1), (Some(1), 1), (Some(2), 2)] {
        let mut scene = silent();
        scene.silent(1, 300);
        if let Some(n) = out_of_sync {
            scene.incarnation(n).lower(Membership::Member);
        }
        let plan = scene.plan(NOW);
        assert_eq!(given_up(&scene, &plan), [name(first)], "{out_of_sync:?}");
        let stays = wait_for(&plan, &format!("{} to be replaced", name(3 - first)));
        assert!(
            stays.is_some_and(|(until, then)| until.is_none() && then.contains("it stays while"))
        );
    }
    // One whose agent answers and whose redis does not run counts as gone as well.
    let mut scene = silent();
    scene.node(1, |v| v.state.redis.process = Process::Exited);
    scene.incarnation(1).redis_down = Some(ago(300));
    assert_eq!(given_up(&scene, &scene.plan(NOW)), [name(1)]);
}
