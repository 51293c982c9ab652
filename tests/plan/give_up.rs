//! Who is given up although he may hold data: the rules of `plan/give_up.rs`.

use akash_redis::model::node::{KEY_SPENT, Process, Role};
use akash_redis::model::status_page::PageView;
use akash_redis::model::time::UnixMs;

use crate::scene::{NOW, Scene, name};

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
