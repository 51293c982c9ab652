//! What is known of a node that does not speak: the rules of `plan/evidence.rs`.

use akash_redis::api::conditions::KnownBy;
use akash_redis::model::inventory::LeaseStatus;
use akash_redis::model::node::{Process, Role};
use akash_redis::model::status_page::PageView;
use akash_redis::model::time::UnixMs;

use crate::scene::{NOW, Scene, ago, lease_id, name, page};

type Edit = fn(&mut Scene);

/// By which way node 2 is known, and what the status says of it.
fn known(edit: impl FnOnce(&mut Scene)) -> (KnownBy, String) {
    let mut scene = Scene::whole();
    scene.silent(2, 10);
    scene.inventory.pages.insert(name(2), page(2, |_| {}));
    let deployed = LeaseStatus::Deployed { ready: 1, uris: vec![] };
    scene.inventory.leases.insert(lease_id(102, 2), deployed);
    edit(&mut scene);
    let node = scene.plan(NOW).status.nodes.into_iter().find(|n| n.incarnation == name(2).0);
    let node = node.unwrap();
    (node.known_by, node.message.unwrap_or_default())
}

#[test]
fn the_best_way_to_know_of_a_node_is_taken() {
    let no_page: Edit = |s| s.inventory.pages.clear();
    let rows: [(&str, &[Edit], KnownBy, &str); 10] = [
        ("it speaks", &[|s| s.node(2, |v| v.connected = true)], KnownBy::Agent, ""),
        (
            "its page",
            &[],
            KnownBy::StatusPage,
            "its status page says: mesh Running, redis runs as replica",
        ),
        (
            "a page as old as its last word",
            &[|s| s.inventory.pages.get_mut(&name(2)).unwrap().at = ago(10)],
            KnownBy::StatusPage,
            "",
        ),
        (
            "a page of before its last word",
            &[|s| s.inventory.pages.get_mut(&name(2)).unwrap().at = ago(11)],
            KnownBy::LeaseStatus,
            "1 of 1 containers are ready",
        ),
        (
            "a page of some seconds ago",
            &[|s| {
                s.silent(2, 60);
                s.inventory.pages.get_mut(&name(2)).unwrap().at = UnixMs(NOW - 14_999);
            }],
            KnownBy::StatusPage,
            "",
        ),
        (
            "a page of long ago",
            &[|s| {
                s.silent(2, 60);
                s.inventory.pages.get_mut(&name(2)).unwrap().at = ago(15);
            }],
            KnownBy::LeaseStatus,
            "",
        ),
        (
            "its lease",
            &[no_page],
            KnownBy::LeaseStatus,
            "its provider says that 1 of 1 containers are ready",
        ),
        (
            "no manifest",
            &[no_page, |s| {
                drop(s.inventory.leases.insert(lease_id(102, 2), LeaseStatus::NoManifest));
            }],
            KnownBy::LeaseStatus,
            "its provider has no manifest of it",
        ),
        (
            "its gateway is away",
            &[no_page, |s| {
                drop(s.inventory.leases.insert(lease_id(102, 2), LeaseStatus::Away("x".into())));
            }],
            KnownBy::Nothing,
            "",
        ),
        ("nobody knows", &[no_page, |s| s.inventory.leases.clear()], KnownBy::Nothing, ""),
    ];
    for (what, edits, by, said) in rows {
        let (known_by, message) = known(|s| edits.iter().for_each(|edit| edit(s)));
        assert_eq!(known_by, by, "{what}");
        assert!(message.contains(said), "{what}: {message}");
    }
}

#[test]
fn a_page_is_told_in_one_sentence() {
    let says =
        |edit: fn(&mut PageView)| known(|s| edit(s.inventory.pages.get_mut(&name(2)).unwrap())).1;
    for (edit, sentence) in [
        ((|_| {}) as fn(&mut PageView), "redis runs as replica and takes no writes"),
        (|p| (p.role, p.fenced) = (Role::Master, false), "redis runs as master and takes writes"),
        (|p| p.role = Role::Unknown, "redis runs and takes no writes"),
        (|p| p.process = Process::Starting, "redis starts"),
        (|p| p.process = Process::Stuck, "redis does not answer"),
        (|p| p.process = Process::Exited, "redis exited"),
        (|p| p.lacks = vec!["no volume".into()], "; no volume"),
        (|p| p.health = vec!["no route".into()], "; no route"),
        (|p| p.clock = UnixMs(NOW + 120_001), "its clock is 2 min ahead"),
        (|p| p.clock = UnixMs(NOW - 180_000), "its clock is 3 min behind"),
    ] {
        let message = says(edit);
        assert!(message.contains(sentence), "{sentence}: {message}");
    }
    assert!(!says(|p| p.clock = UnixMs(NOW + 120_000)).contains("clock"));
}

/// Another start of the agent may be that of a second container.
#[test]
fn the_word_of_the_agent_that_was_last_heard_counts() {
    for (heard, spoke, counts) in
        [("boot-0", "boot-0", true), ("boot-0", "b", false), ("", "", false)]
    {
        let mut scene = Scene::three();
        scene.silent(0, 1);
        scene.master().boot_id.clear();
        scene.node(0, |v| v.state.boot_id = heard.into());
        let said = page(0, |p| (p.boot_id, p.process) = (spoke.into(), Process::Exited));
        scene.inventory.pages.insert(name(0), said);
        let dead = scene.plan(NOW).record.change.is_some();
        assert_eq!(dead, counts, "{heard} {spoke}");
    }
}
