//! Nodes that move without having been asked to: the rules of `plan/moves.rs`.

use std::sync::Arc;

use akash_redis::api::annotations::MIGRATE;
use akash_redis::api::conditions::Reason;
use akash_redis::api::difference::resources_asked;
use akash_redis::api::events::EventReason;
use akash_redis::api::types::{Maintenance, Rebalance};
use akash_redis::model::chain::LeaseState;
use akash_redis::model::change::Change;
use akash_redis::model::experience::{Experience, Note};
use akash_redis::model::ids::IncarnationName;
use akash_redis::model::incarnation::{Failures, Incarnation, Membership, MoveReason};
use akash_redis::model::money::Uact;
use akash_redis::model::time::UnixMs;
use akash_redis::plan::Plan;

use crate::scene::{
    NOW, Scene, ago, bid, degraded, deployment, given_up, has_event, name, price, wait_for,
};

type Edit = fn(&mut Scene);

const HOUR: u64 = 3600;

/// A cluster that is whole, with names for new nodes. It is Wednesday, 11:06 UTC.
fn whole() -> Scene {
    let mut scene = Scene::whole();
    scene.inventory.id_pool.suffixes = ["bbbb", "cccc", "dddd"].map(Into::into).into();
    scene
}

/// What was lived through with the provider of this number.
fn lived(scene: &mut Scene, provider: u32, edit: impl FnOnce(&mut Experience)) {
    let all = Arc::make_mut(&mut scene.inventory.experience);
    edit(all.entry(format!("akash1p{provider}")).or_default());
}

/// It asked so much per month for the cluster's resources, so many hours ago.
fn asked(scene: &mut Scene, provider: u32, act: u64, hours: u64) {
    let asked = resources_asked(&scene.cluster.spec);
    let note = Note::Bid { asked, price: price(act), month: Uact(act * 1_000_000), won: false };
    lived(scene, provider, |e| e.take(&note, ago(hours * HOUR)));
}

/// So many incidents, a day apart, the last one now.
fn troubled(scene: &mut Scene, provider: u32, times: u64) {
    for n in (0..times).rev() {
        lived(scene, provider, |e| e.take(&Note::Incident, ago(n * 24 * HOUR)));
    }
}

/// The provider of node `n` may close its lease in so many seconds.
fn reclaim(scene: &mut Scene, n: u32, seconds: u64) {
    let lease = scene.deployment(n).leases.last_mut().unwrap();
    lease.state = LeaseState::Reclaiming;
    lease.reason = 10_001;
    lease.reclaim_by = Some(UnixMs(NOW + seconds * 1000));
}

fn rebalance(scene: &mut Scene) -> &mut Rebalance {
    let text = serde_json::json!({ "whenCheaperBy": "25%" });
    scene.cluster.spec.placement.rebalance = Some(serde_json::from_value(text).unwrap());
    scene.cluster.spec.placement.rebalance.as_mut().unwrap()
}

/// The new incarnation of a plan, and whom it is to replace.
fn new(scene: &Scene, plan: &Plan) -> Option<(IncarnationName, Incarnation)> {
    let after = plan.record.incarnations.iter();
    after
        .filter(|(n, _)| !scene.record.incarnations.contains_key(*n))
        .map(|(n, i)| (n.clone(), i.clone()))
        .next()
}

fn leaves(scene: &Scene, plan: &Plan) -> Option<IncarnationName> {
    new(scene, plan)?.1.replaces
}

#[test]
fn a_lease_that_is_taken_back_is_left_before_its_deadline() {
    for n in 0..3 {
        let mut scene = whole();
        reclaim(&mut scene, n, 24 * HOUR);
        let plan = scene.plan(NOW);
        assert_eq!(leaves(&scene, &plan), Some(name(n)));
        assert!(has_event(&plan, EventReason::MoveStarted));
        let (reason, said) = degraded(&plan);
        assert_eq!(reason, Reason::LeaseReclaimed);
        assert!(said.contains("(by the provider: decommissioned)"), "{said}");
        assert!(said.contains("may close it from 2026-11-19T11:06:40Z on"), "{said}");
        assert_eq!(given_up(&scene, &plan), [], "its data are still there");
        assert_eq!(
            plan.record.incarnations[&name(n)].moving.as_ref().unwrap().why,
            MoveReason::Reclaimed
        );
        // It goes on while the chain is away, and is no news any more.
        scene.record = plan.record;
        scene.inventory.chain.error = Some("away".into());
        let plan = scene.plan(NOW);
        assert_eq!(given_up(&scene, &plan), []);
        assert!(!has_event(&plan, EventReason::MoveStarted));
        assert_eq!(degraded(&plan).0, Reason::LeaseReclaimed);
    }
}

#[test]
fn nothing_but_what_is_missing_comes_before_a_lease_that_is_taken_back() {
    let rows: [(&str, Edit, Option<u32>); 6] = [
        (
            "maintenance is held, rebalance too",
            |s| {
                s.cluster.spec.maintenance =
                    Some(Maintenance { window: "Sun 02:00-05:00".parse().unwrap() });
            },
            Some(1),
        ),
        (
            "a cheaper one would be there for another node",
            |s| {
                rebalance(s);
                asked(s, 4, 1, 1);
            },
            Some(1),
        ),
        ("two are taken back, the other one sooner", |s| reclaim(s, 2, HOUR), Some(1)),
        (
            "the cluster is not whole",
            |s| s.node(2, |v| v.state.redis.link = akash_redis::model::node::Link::Down),
            Some(1),
        ),
        ("the cluster is paused", |s| s.cluster.spec.paused = true, None),
        ("the chain is away", |s| s.inventory.chain.error = Some("away".into()), None),
    ];
    for (what, edit, left) in rows {
        let mut scene = whole();
        reclaim(&mut scene, 1, 24 * HOUR);
        edit(&mut scene);
        assert_eq!(leaves(&scene, &scene.plan(NOW)), left.map(name), "{what}");
    }
    let mut scene = whole();
    reclaim(&mut scene, 1, 24 * HOUR);
    reclaim(&mut scene, 2, HOUR);
    let all = |s: &Scene| {
        s.plan(NOW)
            .record
            .incarnations
            .values()
            .filter(|i| i.replaces.is_some())
            .map(|i| i.ordinal)
            .collect::<Vec<_>>()
    };
    assert_eq!(all(&scene), [1, 2], "the budget carries both");
    scene.cluster.spec.budget.max_per_month = Some("12act".parse().unwrap());
    assert_eq!(all(&scene), [2], "it carries one: the more urgent");
}

#[test]
fn without_room_in_the_budget_it_stays_and_says_so_and_the_master_leaves_it() {
    let poor = |n: u32, seconds: u64| {
        let mut scene = whole();
        scene.cluster.spec.budget.max_per_month = Some("11act".parse().unwrap());
        reclaim(&mut scene, n, seconds);
        scene
    };
    let scene = poor(0, 24 * HOUR);
    let plan = scene.plan(NOW);
    assert_eq!((leaves(&scene, &plan), plan.record.change.clone()), (None, None));
    let (reason, said) = degraded(&plan);
    assert_eq!(reason, Reason::LeaseReclaimed, "nothing of it is over the budget");
    assert!(said.contains("raise budget.maxPerMonth to have it replaced before"), "{said}");
    assert!(said.contains("2act") || said.contains("1.999"), "what is left is named: {said}");
    // A quarter of an hour before the end.
    assert_eq!(poor(0, 901).plan(NOW).record.change, None);
    let plan = poor(0, 900).plan(NOW);
    assert!(matches!(&plan.record.change, Some(Change::Switchover(s)) if s.source == name(0)));
    assert_eq!(poor(1, 900).plan(NOW).record.change, None, "it is no master");
    // Not to one that ends before.
    let mut both = poor(0, 900);
    reclaim(&mut both, 1, 600);
    let plan = both.plan(NOW);
    assert!(matches!(&plan.record.change, Some(Change::Switchover(s)) if s.target == name(2)));
    let mut all = poor(0, 900);
    reclaim(&mut all, 1, 600);
    reclaim(&mut all, 2, 600);
    assert_eq!(all.plan(NOW).record.change, None, "nobody lasts longer");
}

#[test]
fn a_node_that_never_came_up_is_given_up_with_its_lease() {
    let mut scene = whole();
    reclaim(&mut scene, 2, 24 * HOUR);
    scene.incarnation(2).membership = Membership::Expected;
    scene.inventory.nodes.remove(&name(2));
    let plan = scene.plan(NOW);
    assert_eq!(given_up(&scene, &plan), [name(2)]);
    assert!(plan.noted.contains(&("akash1p2".into(), Note::FailedStart)));
    assert!(
        !plan
            .steps
            .iter()
            .any(|s| matches!(s.effect, akash_redis::model::step::Effect::DeliverManifest { .. })),
        "a provider takes no manifest for it"
    );
}

#[test]
fn attempts_to_leave_are_spread_over_the_time_that_is_left() {
    for (left, since, again) in
        [(8 * HOUR, HOUR - 1, false), (8 * HOUR, HOUR, true), (80, 9, false), (80, 10, true)]
    {
        let mut scene = whole();
        reclaim(&mut scene, 1, left);
        let failed = Failures { count: 1, last: ago(since), ..Failures::default() };
        scene.record.failures.insert(1, failed);
        assert_eq!(leaves(&scene, &scene.plan(NOW)).is_some(), again, "{left} {since}");
    }
}

#[test]
fn a_cheaper_price_moves_the_node_that_saves_most() {
    let rows: [(&str, Edit, Option<u32>); 19] = [
        ("nobody is cheaper", |_| {}, None),
        (
            "nobody wants it",
            |s| {
                asked(s, 4, 1, 1);
                s.cluster.spec.placement.rebalance = None;
            },
            None,
        ),
        ("a third cheaper", |s| asked(s, 4, 2, 1), Some(1)),
        ("a month ago", |s| asked(s, 4, 2, 30 * 24), None),
        ("not by enough", |s| asked(s, 4, 3, 1), None),
        (
            "not by enough",
            |s| {
                rebalance(s).when_cheaper_by = "34%".parse().unwrap();
                asked(s, 4, 2, 1);
            },
            None,
        ),
        (
            "for other resources",
            |s| {
                asked(s, 4, 2, 1);
                s.cluster.spec.resources.memory = "2Gi".parse().unwrap();
            },
            None,
        ),
        ("it runs another node", |s| asked(s, 2, 1, 1), None),
        (
            "it is denied",
            |s| {
                asked(s, 4, 1, 1);
                s.cluster.spec.placement.providers.deny = vec!["akash1p4".into()];
            },
            None,
        ),
        (
            "it is not allowed",
            |s| {
                asked(s, 4, 1, 1);
                s.cluster.spec.placement.providers.allow = vec!["akash1p5".into()];
            },
            None,
        ),
        (
            "it had trouble of late",
            |s| {
                asked(s, 4, 1, 1);
                troubled(s, 4, 1);
            },
            None,
        ),
        (
            "one replica is away",
            |s| {
                asked(s, 4, 1, 1);
                s.silent(2, 5);
            },
            None,
        ),
        (
            "the master changes",
            |s| {
                asked(s, 4, 1, 1);
                s.switching(1);
            },
            None,
        ),
        (
            "a person moves one",
            |s| {
                asked(s, 4, 1, 1);
                s.annotate(MIGRATE, name(2).0);
            },
            Some(2),
        ),
        (
            "one moved six days ago",
            |s| {
                asked(s, 4, 1, 1);
                s.record.moved = Some(ago(6 * 24 * HOUR));
            },
            None,
        ),
        (
            "one moved a week ago",
            |s| {
                asked(s, 4, 1, 1);
                s.record.moved = Some(ago(7 * 24 * HOUR));
            },
            Some(1),
        ),
        (
            "the budget does not carry two leases",
            |s| {
                asked(s, 4, 1, 1);
                s.cluster.spec.budget.max_per_month = Some("10act".parse().unwrap());
            },
            None,
        ),
        (
            "the wallet does not",
            |s| {
                asked(s, 4, 1, 1);
                s.chain().balance = Uact(499_999);
            },
            None,
        ),
        (
            "the chain is away",
            |s| {
                asked(s, 4, 1, 1);
                s.inventory.chain.error = Some("away".into());
            },
            None,
        ),
    ];
    for (what, edit, left) in rows {
        let mut scene = whole();
        rebalance(&mut scene);
        // Node 1 is the dearest.
        scene.deployment(1).leases[0].price = price(4);
        if !what.contains("nobody is cheaper") && !what.contains("enough") {
            edit(&mut scene);
        } else {
            scene.deployment(1).leases[0].price = price(3);
            edit(&mut scene);
        }
        let plan = scene.plan(NOW);
        assert_eq!(leaves(&scene, &plan), left.map(name), "{what}");
        if !matches!(what, "one replica is away" | "the chain is away" | "the master changes") {
            assert_eq!(degraded(&plan).0, Reason::AsExpected, "{what}: {}", degraded(&plan).1);
        }
    }
}

/// Node 1 moves to somebody who asks 2act or less, and its successor bids.
fn moving() -> (Scene, IncarnationName) {
    let mut scene = whole();
    rebalance(&mut scene);
    asked(&mut scene, 4, 2, 1);
    scene.deployment(1).leases[0].price = price(4);
    let plan = scene.plan(NOW);
    let (successor, reserved) = new(&scene, &plan).expect("it is replaced");
    assert_eq!(reserved.replaces, Some(name(1)));
    assert_eq!(plan.record.moved, Some(UnixMs(NOW)));
    scene.record = plan.record;
    let dseq = reserved.dseq;
    scene.chain().deployments.insert(dseq, deployment(&successor, dseq));
    (scene, successor)
}

#[test]
fn the_order_itself_makes_sure_that_it_is_cheaper() {
    let (scene, successor) = moving();
    let cap = scene.record.incarnations[&successor].max_price;
    assert_eq!(cap, akash_redis::model::money::PricePerBlock(price(4).0 / 100 * 75));
}

#[test]
fn a_move_that_nobody_takes_is_over_after_one_attempt() {
    let (mut scene, successor) = moving();
    let later = NOW + 3 * 60 * 1000;
    let plan = scene.plan(later);
    assert_eq!(given_up(&scene, &plan), [successor]);
    assert!(plan.record.failures.is_empty(), "the node stays: nothing failed");
    scene.record = plan.record;
    let plan = scene.plan(later);
    assert!(has_event(&plan, EventReason::MoveEnded));
    assert_eq!(plan.record.incarnations[&name(1)].moving, None);
    let forgotten = plan
        .noted
        .iter()
        .any(|(who, note)| who == "akash1p4" && matches!(note, Note::NoBid { .. }));
    assert!(forgotten, "what it asked once is no price any more: {:?}", plan.noted);
    scene.record = plan.record;
    assert_eq!(leaves(&scene, &scene.plan(later)), None);
}

#[test]
fn a_move_is_called_back_with_the_field_and_stands_still_in_a_pause() {
    let (mut scene, successor) = moving();
    scene.cluster.spec.paused = true;
    let plan = scene.plan(NOW);
    assert_eq!((given_up(&scene, &plan), plan.steps.len()), (vec![], 0));
    scene.cluster.spec.paused = false;
    scene.cluster.spec.placement.rebalance = None;
    let plan = scene.plan(NOW);
    assert_eq!(given_up(&scene, &plan), [successor]);
    assert!(has_event(&plan, EventReason::MoveEnded));
    // A lease that is taken back meanwhile goes on with the successor that is there.
    let (mut scene, successor) = moving();
    reclaim(&mut scene, 1, HOUR);
    scene.cluster.spec.placement.rebalance = None;
    let plan = scene.plan(NOW);
    assert_eq!(given_up(&scene, &plan), []);
    assert!(degraded(&plan).1.contains(&format!("{successor} takes its place before")));
}

#[test]
fn a_move_waits_for_its_window_and_says_until_when() {
    let rows: [(&str, Edit, Option<&str>); 6] = [
        ("none", |_| {}, None),
        (
            "its own",
            |s| rebalance(s).window = Some("Sun 02:00-05:00".parse().unwrap()),
            Some("2026-11-22T02:00:00Z"),
        ),
        ("its own, open", |s| rebalance(s).window = Some("Wed 11:00-12:00".parse().unwrap()), None),
        (
            "maintenance",
            |s| {
                s.cluster.spec.maintenance =
                    Some(Maintenance { window: "03:00-04:00".parse().unwrap() });
            },
            Some("2026-11-19T03:00:00Z"),
        ),
        (
            "both",
            |s| {
                rebalance(s).window = Some("Sat,Sun 02:00-05:00".parse().unwrap());
                s.cluster.spec.maintenance =
                    Some(Maintenance { window: "Sun 04:00-06:00".parse().unwrap() });
            },
            Some("2026-11-22T04:00:00Z"),
        ),
        (
            "too soon after the last one",
            |s| {
                rebalance(s).window = Some("Wed 11:00-12:00".parse().unwrap());
                s.record.moved = Some(ago(HOUR));
            },
            Some("2026-11-25T11:00:00Z"),
        ),
    ];
    for (what, edit, until) in rows {
        let mut scene = whole();
        rebalance(&mut scene);
        asked(&mut scene, 4, 2, 1);
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(leaves(&scene, &plan).is_some(), until.is_none(), "{what}");
        let waits = plan.status.waiting.iter().find(|w| w.what.contains("the window in which"));
        assert_eq!(waits.and_then(|w| w.deadline.as_deref()), until, "{what}");
        let then = waits.map_or(String::new(), |w| w.then.clone());
        assert!(until.is_none() || then.contains("one node at a time"), "{then}");
    }
    // What a person asks for waits for nothing.
    let mut asked_for = whole();
    asked_for.cluster.spec.maintenance =
        Some(Maintenance { window: "Sun 02:00-05:00".parse().unwrap() });
    asked_for.annotate(MIGRATE, name(2).0);
    assert_eq!(leaves(&asked_for, &asked_for.plan(NOW)), Some(name(2)));
}

#[test]
fn a_provider_with_several_troubles_is_left_where_another_one_is_known() {
    let rows: [(&str, Edit, Option<u32>); 8] = [
        ("two troubles", |s| troubled(s, 1, 2), None),
        ("three", |s| troubled(s, 1, 3), Some(1)),
        ("the master's", |s| troubled(s, 0, 3), Some(0)),
        (
            "two nodes: the worse one first",
            |s| {
                troubled(s, 1, 3);
                troubled(s, 2, 5);
            },
            Some(2),
        ),
        (
            "nobody else is known",
            |s| {
                s.inventory.experience = Arc::default();
                troubled(s, 1, 3);
            },
            None,
        ),
        (
            "the other one is no better",
            |s| {
                troubled(s, 1, 3);
                troubled(s, 4, 1);
            },
            None,
        ),
        (
            "one left a day ago",
            |s| {
                troubled(s, 1, 3);
                s.record.moved = Some(ago(24 * HOUR - 1));
            },
            None,
        ),
        (
            "out of the window",
            |s| {
                troubled(s, 1, 3);
                s.cluster.spec.maintenance =
                    Some(Maintenance { window: "Sun 02:00-05:00".parse().unwrap() });
            },
            None,
        ),
    ];
    for (what, edit, left) in rows {
        let mut scene = whole();
        // Dearer than what runs.
        asked(&mut scene, 4, 4, 1);
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(leaves(&scene, &plan), left.map(name), "{what}");
        assert_eq!(degraded(&plan).0, Reason::AsExpected, "{what}");
        if what == "nobody else is known" {
            let said = plan.status.nodes[1].message.clone().unwrap_or_default();
            assert!(said.contains("several troubles of late"), "{said}");
        }
        if what == "out of the window" {
            assert!(wait_for(&plan, "the window in which cache-1-aaaa may move").is_some());
        }
    }
}

#[test]
fn what_was_lived_through_is_noted_once() {
    let chosen = || {
        let mut scene = whole();
        scene.chain().deployments.insert(102, deployment(&name(2), 102));
        scene.deployment(2).bids = vec![bid(102, 3, 2), bid(102, 4, 1)];
        scene.inventory.nodes.remove(&name(2));
        scene.inventory.held.insert(name(2), [0; 32]);
        let own = scene.incarnation(2);
        (own.membership, own.device, own.lease) = (Membership::Expected, None, None);
        own.reserved = ago(20);
        scene
    };
    let mut scene = chosen();
    let plan = scene.plan(NOW);
    let won = |note: &Note| matches!(note, Note::Bid { won: true, .. });
    let bids: Vec<_> = plan.noted.iter().map(|(who, note)| (who.as_str(), won(note))).collect();
    assert_eq!(bids, [("akash1p3", false), ("akash1p4", true)]);
    scene.record = plan.record;
    assert_eq!(scene.plan(NOW).noted, [], "a choice is made once");

    let rows: [(&str, Edit, Option<Note>); 5] = [
        ("its lease was closed by it", |s| s.close_lease(1, 10_000), Some(Note::Incident)),
        ("by its owner", |s| s.close_lease(1, 1), None),
        ("it is silent", |s| s.silent(1, 301), Some(Note::Incident)),
        ("a person moves it", |s| s.annotate(MIGRATE, name(1).0), None),
        (
            "it reports for the first time",
            |s| s.incarnation(1).membership = Membership::Expected,
            Some(Note::Started),
        ),
    ];
    for (what, edit, note) in rows {
        let mut scene = whole();
        edit(&mut scene);
        let noted = scene.plan(NOW).noted;
        let expected: Vec<_> = note.map(|note| ("akash1p1".to_owned(), note)).into_iter().collect();
        assert_eq!(noted, expected, "{what}");
    }
}

#[test]
fn times_of_another_process_are_not_ahead() {
    let (mut scene, _) = moving();
    let ahead = UnixMs(NOW + 1_000_000);
    scene.record.moved = Some(ahead);
    scene.incarnation(1).moving.as_mut().unwrap().at = ahead;
    let plan = scene.plan_as(NOW, 2, NOW - 1000);
    assert_eq!(plan.record.moved, Some(UnixMs(NOW)));
    assert_eq!(plan.record.incarnations[&name(1)].moving.as_ref().unwrap().at, UnixMs(NOW));
}

/// Whose leases were made with the resources of the manifest as it was.
fn made_with(scene: &mut Scene, resources: &str) {
    for n in 0..3 {
        resources.clone_into(&mut scene.incarnation(n).resources);
    }
}

/// The manifest wants a larger volume than the leases have.
fn grown() -> Scene {
    let mut scene = whole();
    let before = resources_asked(&scene.cluster.spec);
    made_with(&mut scene, &before);
    scene.cluster.spec.resources.data.as_mut().unwrap().size = "8Gi".parse().unwrap();
    scene
}

#[test]
fn other_resources_move_one_node_after_the_other_replicas_first() {
    let scene = grown();
    let plan = scene.plan(NOW);
    assert_eq!(leaves(&scene, &plan), Some(name(1)), "not the master");
    assert!(has_event(&plan, EventReason::MoveStarted));
    let moving = plan.record.incarnations[&name(1)].moving.as_ref().unwrap();
    assert_eq!(moving.why, MoveReason::Resources);
    assert_eq!(
        new(&scene, &plan).unwrap().1.resources,
        resources_asked(&scene.cluster.spec),
        "the new lease is made with them"
    );
    assert_eq!(given_up(&scene, &plan), [], "it stays until the new one is in sync");
    let mut last = grown();
    for n in [1, 2] {
        last.incarnation(n).resources = resources_asked(&last.cluster.spec);
    }
    assert_eq!(leaves(&last, &last.plan(NOW)), Some(name(0)), "the master comes last");
    let mut done = grown();
    let now = resources_asked(&done.cluster.spec);
    made_with(&mut done, &now);
    assert_eq!(leaves(&done, &done.plan(NOW)), None);
    // Of an earlier version: nobody knows what it was made with.
    made_with(&mut done, "");
    assert_eq!(leaves(&done, &done.plan(NOW)), None);
}

#[test]
fn what_a_move_to_other_resources_waits_for() {
    let rows: [(&str, Edit, Option<u32>, Option<&str>); 6] = [
        (
            "no window holds it up",
            |s| {
                let window = "Sun 02:00-05:00".parse().unwrap();
                s.cluster.spec.maintenance = Some(Maintenance { window });
            },
            Some(1),
            None,
        ),
        ("one moved a moment ago", |s| s.record.moved = Some(ago(1)), Some(1), None),
        ("a replica is away", |s| s.silent(2, 5), None, Some("all nodes to be in sync")),
        (
            "there is no room in the budget",
            |s| s.cluster.spec.budget.max_per_month = Some("9.1act".parse().unwrap()),
            None,
            Some("for a second lease while cache-1"),
        ),
        ("a lease is taken back", |s| reclaim(s, 2, 24 * HOUR), Some(2), None),
        ("it is paused", |s| s.cluster.spec.paused = true, None, None),
    ];
    for (what, edit, moves, waits) in rows {
        let mut scene = grown();
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(leaves(&scene, &plan), moves.map(name), "{what}");
        if let Some(waits) = waits {
            assert!(wait_for(&plan, waits).is_some(), "{what}: {:?}", plan.waits);
        }
    }
}

#[test]
fn a_move_to_other_resources_is_called_off_with_them_and_not_by_a_failure() {
    let mut scene = grown();
    scene.record = scene.plan(NOW).record;
    let successor = scene.record.incarnations.keys().find(|n| n.0.contains("bbbb")).cloned();
    let successor = successor.unwrap();
    // Nobody bid: it is tried again.
    let mut failed = grown();
    failed.record = scene.record.clone();
    failed.record.incarnations.remove(&successor);
    failed.record.failures.insert(1, Failures { count: 1, last: ago(5), ..Failures::default() });
    let plan = failed.plan(NOW);
    assert!(plan.record.incarnations[&name(1)].moving.is_some(), "it is what a person wants");
    assert_eq!(degraded(&plan).0, Reason::ProvisioningFailed);
    failed.record.failures.get_mut(&1).unwrap().last = ago(HOUR);
    assert_eq!(leaves(&failed, &failed.plan(NOW)), Some(name(1)));
    // The manifest is applied back.
    scene.cluster.spec.resources.data.as_mut().unwrap().size = "4Gi".parse().unwrap();
    let plan = scene.plan(NOW);
    assert_eq!(plan.record.incarnations[&name(1)].moving, None);
    assert!(has_event(&plan, EventReason::MoveEnded));
    let gone = plan.record.incarnations.get(&successor);
    assert!(gone.is_none_or(|i| i.condemned.is_some()), "the new one goes");
}
