//! Which bid is taken: the rules of `plan/placement.rs`.

use akash_redis::api::types::{SpreadBy, SpreadWhen};
use akash_redis::model::incarnation::Membership;
use akash_redis::model::money::Uact;

use crate::scene::{NOW, Scene, bid, degraded, deployment, lease_id, name, provider};

type Edit = fn(&mut Scene);

/// Node 2 has the bids of providers 2 to 4, which ask 3, 2 and 1 a month; nodes 0 and 1 run with
/// providers 0 and 1.
fn bids() -> Scene {
    let mut scene = Scene::whole();
    let mut open = deployment(&name(2), 102);
    open.bids = vec![bid(102, 2, 3), bid(102, 3, 2), bid(102, 4, 1)];
    scene.chain().deployments.insert(102, open);
    scene.inventory.nodes.remove(&name(2));
    scene.inventory.held.insert(name(2), [0; 32]);
    let own = scene.incarnation(2);
    (own.membership, own.device, own.lease) = (Membership::Expected, None, None);
    scene
}

fn region(scene: &mut Scene, n: u32, key: &str, value: &str) {
    let view = scene.chain().providers.get_mut(&format!("akash1p{n}")).unwrap();
    view.attributes.remove("region");
    view.attributes.insert(key.into(), value.into());
}

fn spread(by: SpreadBy, when: SpreadWhen) -> impl Fn(&mut Scene) {
    move |s| (s.cluster.spec.placement.spread.by, s.cluster.spec.placement.spread.when) = (by, when)
}

#[test]
fn the_cheapest_acceptable_bid_is_taken() {
    let deny: Edit = |s| s.cluster.spec.placement.providers.deny = vec!["akash1p4".into()];
    let required = spread(SpreadBy::Region, SpreadWhen::Required);
    let preferred = spread(SpreadBy::Region, SpreadWhen::Preferred);
    let rows: [(&str, &dyn Fn(&mut Scene), Option<u32>); 19] = [
        ("the cheapest", &|_| {}, Some(4)),
        ("its order is closed", &|s| s.deployment(2).bids[2].id.oseq = 2, Some(3)),
        ("it runs another node", &|s| s.deployment(2).bids[2].id = lease_id(102, 1), Some(3)),
        ("it asks as much as may be", &|s| s.deployment(2).bids.truncate(1), Some(2)),
        (
            "it asks more",
            &|s| {
                s.deployment(2).bids.truncate(1);
                s.deployment(2).bids[0].price.0 += 1;
            },
            None,
        ),
        ("it offers less", &|s| s.deployment(2).bids[2].fits = false, Some(3)),
        (
            "it is not among those allowed",
            &|s| s.cluster.spec.placement.providers.allow = vec!["akash1p3".into()],
            Some(3),
        ),
        ("it is denied", &deny, Some(3)),
        ("the chain does not know it", &|s| drop(s.chain().providers.remove("akash1p4")), Some(3)),
        (
            "it lacks an attribute",
            &|s| {
                region(s, 3, "tier", "a");
                s.cluster.spec.placement.attributes.insert("tier".into(), "a".into());
            },
            Some(3),
        ),
        (
            "it has another value",
            &|s| {
                region(s, 3, "tier", "a");
                region(s, 4, "tier", "b");
                s.cluster.spec.placement.attributes.insert("tier".into(), "a".into());
            },
            Some(3),
        ),
        (
            "it failed this node before",
            &|s| {
                s.record.failures.entry(2).or_default().providers = vec!["akash1p4".into()];
            },
            Some(3),
        ),
        (
            "all failed it before",
            &|s| {
                let all = ["akash1p2", "akash1p3", "akash1p4"].map(Into::into).into();
                s.record.failures.entry(2).or_default().providers = all;
            },
            Some(4),
        ),
        (
            "at one price the lower address",
            &|s| {
                s.deployment(2).bids = vec![bid(102, 4, 2), bid(102, 3, 2)];
            },
            Some(3),
        ),
        (
            "its region is another node's, which is refused",
            &|s| {
                required(s);
                region(s, 4, "region", "region-1");
            },
            Some(3),
        ),
        (
            "which comes last",
            &|s| {
                preferred(s);
                region(s, 4, "region", "region-1");
            },
            Some(3),
        ),
        (
            "which is better than nothing",
            &|s| {
                preferred(s);
                region(s, 4, "region", "region-1");
                s.deployment(2).bids.drain(..2);
            },
            Some(4),
        ),
        (
            "it does not say where it is",
            &|s| {
                required(s);
                region(s, 4, "x", "y");
            },
            Some(3),
        ),
        (
            "it says so by the longer name",
            &|s| {
                required(s);
                region(s, 4, "location-region", "elsewhere");
            },
            Some(4),
        ),
    ];
    for (what, edit, chosen) in rows {
        let mut scene = bids();
        edit(&mut scene);
        let lease = scene.plan(NOW).record.incarnations[&name(2)].lease.clone();
        let expected = chosen.map(|n| format!("akash1p{n}"));
        assert_eq!(lease.map(|c| c.id.provider), expected, "{what}");
    }
}

#[test]
fn nodes_are_kept_apart_as_the_manifest_asks() {
    let chosen = |by, edit: &dyn Fn(&mut Scene)| {
        let mut scene = bids();
        spread(by, SpreadWhen::Required)(&mut scene);
        edit(&mut scene);
        let lease = scene.plan(NOW).record.incarnations[&name(2)].lease.clone();
        lease.map(|c| c.id.provider)
    };
    let organization = |values: [&'static str; 5]| {
        move |s: &mut Scene| {
            for (n, value) in (0..5).zip(values) {
                region(s, n, "organization", value);
            }
        }
    };
    let of = |n: u32| Some(format!("akash1p{n}"));
    assert_eq!(chosen(SpreadBy::Provider, &|_| {}), of(4), "two nodes never share one");
    assert_eq!(chosen(SpreadBy::Organization, &organization(["a", "b", "c", "d", "e"])), of(4));
    assert_eq!(chosen(SpreadBy::Organization, &organization(["a", "b", "c", "d", "a"])), of(3));
    assert_eq!(chosen(SpreadBy::Organization, &organization(["a", "b", "a", "b", "a"])), None);
    assert_eq!(chosen(SpreadBy::Organization, &|_| {}), None, "nobody says");
    let unknown = |s: &mut Scene| drop(s.chain().providers.remove("akash1p0"));
    assert_eq!(chosen(SpreadBy::Region, &unknown), of(4), "nothing speaks against it");
}

#[test]
fn every_bid_that_is_refused_is_told_why() {
    let mut scene = bids();
    scene.deployment(2).bids.truncate(1);
    scene.deployment(2).bids[0].fits = false;
    scene.incarnation(2).reserved = crate::scene::ago(5);
    let (_, message) = degraded(&scene.plan(NOW));
    assert!(message.contains("(akash1p2: it offers less than was asked for)"), "{message}");
}

#[test]
fn a_region_is_published_by_either_name() {
    for (key, value, told) in
        [("region", "a", Some("a")), ("location-region", "b", Some("b")), ("x", "c", None)]
    {
        let mut scene = Scene::whole();
        region(&mut scene, 2, key, value);
        let node = scene.plan(NOW).status.nodes.remove(2);
        assert_eq!(
            (node.region.as_deref(), node.provider_host.as_deref()),
            (told, Some("p2.example.com"))
        );
    }
    assert_eq!(provider(2).host_uri, "https://p2.example.com:8443");
    let mut budget = Scene::whole();
    budget.limits.others = Uact(u64::MAX);
    assert_eq!(budget.plan(NOW).status.cost.max_per_month, "0act");
}
