//! When bids are enough: the rules of `plan/bids.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use akash_redis::api::types::{SpreadBy, SpreadWhen};
use akash_redis::model::chain::ProviderOffer;
use akash_redis::model::incarnation::{Failures, Membership};
use akash_redis::model::inventory::Reading;
use akash_redis::model::step::Effect;
use akash_redis::model::time::UnixMs;

use crate::scene::{NOW, Scene, ago, bid, deployment, name, provider};

type Edit = fn(&mut Scene);

/// A provider with the storage class of the scene's manifest.
fn offer(n: u32) -> ProviderOffer {
    let mut view = provider(n);
    let storage =
        [("capabilities/storage/1/class", "beta3"), ("capabilities/storage/1/persistent", "true")];
    view.attributes.extend(storage.map(|(key, value)| (key.to_owned(), value.to_owned())));
    ProviderOffer { view, audits: BTreeMap::new() }
}

fn listed(scene: &mut Scene, offers: Vec<ProviderOffer>) {
    scene.inventory.suppliers = Reading::fresh(Arc::new(offers), UnixMs(NOW));
}

/// Node 2 has an open order for a second, with the bids of providers 2 and 3; nodes 0 and 1 run with
/// providers 0 and 1. The chain lists these four.
fn bids() -> Scene {
    let mut scene = Scene::whole();
    let mut open = deployment(&name(2), 102);
    open.bids = vec![bid(102, 2, 3), bid(102, 3, 2)];
    scene.chain().deployments.insert(102, open);
    scene.inventory.nodes.remove(&name(2));
    scene.inventory.held.insert(name(2), [0; 32]);
    let own = scene.incarnation(2);
    (own.membership, own.device, own.lease) = (Membership::Expected, None, None);
    own.reserved = ago(1);
    listed(&mut scene, (0..4).map(offer).collect());
    scene
}

/// Somebody else is listed, too, after `edit`.
fn with_another(scene: &mut Scene, edit: impl FnOnce(&mut ProviderOffer)) {
    let mut another = offer(4);
    edit(&mut another);
    listed(scene, (0..4).map(offer).chain([another]).collect());
}

fn leases(scene: &Scene) -> bool {
    let plan = scene.plan(NOW);
    plan.steps.iter().any(|s| matches!(&s.effect, Effect::CreateLease { .. }))
}

#[test]
fn nobody_is_waited_for_once_everybody_has_bid_who_could() {
    let avoided =
        |n: u32| Failures { providers: vec![format!("akash1p{n}")], ..Failures::default() };
    let rows: [(&str, &dyn Fn(&mut Scene), bool); 13] = [
        ("everybody bid whose bid could be taken", &|_| {}, true),
        ("one more could bid", &|s| with_another(s, |_| {}), false),
        ("one that could has not", &|s| drop(s.deployment(2).bids.pop()), false),
        (
            "one more has another class of storage",
            &|s| {
                with_another(s, |one| {
                    drop(one.view.attributes.remove("capabilities/storage/1/class"));
                });
            },
            true,
        ),
        (
            "one more is denied",
            &|s| {
                with_another(s, |_| {});
                s.cluster.spec.placement.providers.deny = vec!["akash1p4".into()];
            },
            true,
        ),
        (
            "one more failed this node",
            &|s| {
                with_another(s, |_| {});
                s.record.failures.insert(2, avoided(4));
            },
            true,
        ),
        (
            "all that are left failed this node, and one has not bid",
            &|s| {
                with_another(s, |_| {});
                listed(s, vec![offer(0), offer(1), offer(4)]);
                s.record.failures.insert(2, avoided(4));
            },
            false,
        ),
        (
            "one more is where a node is, which must not be",
            &|s| {
                with_another(s, |one| {
                    drop(one.view.attributes.insert("region".into(), "region-0".into()));
                });
                let spread = &mut s.cluster.spec.placement.spread;
                (spread.by, spread.when) = (SpreadBy::Region, SpreadWhen::Required);
            },
            true,
        ),
        (
            "a bid that cannot be taken is one, too",
            &|s| {
                with_another(s, |_| {});
                let mut small = bid(102, 4, 1);
                small.fits = false;
                s.deployment(2).bids.push(small);
            },
            true,
        ),
        ("a bid on an order before is none", &|s| s.deployment(2).bids[1].id.oseq = 2, false),
        ("the list is old", &|s| s.inventory.suppliers.at = ago(901), false),
        ("there is no list", &|s| s.inventory.suppliers = Reading::default(), false),
        ("nobody of the list matches", &|s| listed(s, vec![offer(0), offer(1)]), false),
    ];
    for (what, edit, chosen) in rows {
        let mut scene = bids();
        edit(&mut scene);
        assert_eq!(leases(&scene), chosen, "{what}");
    }
}

/// What auditors signed is in the list, and counts as it does for bids.
#[test]
fn a_signature_that_is_asked_for_is_looked_for() {
    let signed: Edit = |s| s.cluster.spec.placement.signed_by.any_of = vec!["akash1auditor".into()];
    let mut scene = bids();
    signed(&mut scene);
    assert!(!leases(&scene), "nobody of the list is signed: it is not believed");
    let audit = |n: u32| ProviderOffer {
        audits: BTreeMap::from([("akash1auditor".into(), BTreeMap::new())]),
        ..offer(n)
    };
    listed(&mut scene, vec![offer(0), offer(1), audit(2), audit(3), offer(4)]);
    assert!(leases(&scene), "the others are not signed");
}

/// A list that cannot be read any more is believed for as long as one that is not read again.
#[test]
fn a_list_that_failed_to_come_again_is_still_one() {
    let mut scene = bids();
    scene.inventory.suppliers.failed("away".into(), false);
    assert!(leases(&scene));
}
