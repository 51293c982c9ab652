//! From a reserved incarnation to a node that reports: the rules of `plan/leases.rs`.

use std::time::Duration;

use akash_redis::api::conditions::Reason;
use akash_redis::api::events::EventReason;
use akash_redis::model::incarnation::Membership;
use akash_redis::model::inventory::{Delivered, LeaseStatus};
use akash_redis::model::mesh::Device;
use akash_redis::model::node::{KEY_SPENT, Link, Process};
use akash_redis::model::step::Effect;
use akash_redis::model::time::UnixMs;
use akash_redis::plan::Plan;

use crate::scene::{
    NOW, QUARANTINE, Scene, ago, bid, degraded, deployment, device, given_up, has_event, key,
    lease_id, name, page, price, wait_for,
};

type Edit = fn(&mut Scene);

/// Node 2 was reserved five seconds ago; the others are well. Its deployment is 102.
fn reserved() -> Scene {
    let mut scene = Scene::whole();
    scene.chain().deployments.remove(&102);
    scene.mesh().devices.remove(2);
    scene.inventory.nodes.remove(&name(2));
    scene.inventory.held.insert(name(2), [0; 32]);
    let own = scene.incarnation(2);
    (own.membership, own.device, own.lease) = (Membership::Expected, None, None);
    (own.reserved, own.max_price) = (ago(5), price(3));
    scene.attach(&[1]);
    scene.configure();
    scene
}

/// It has an open order for so many seconds.
fn bidding(seconds: u64) -> Scene {
    let mut scene = reserved();
    scene.chain().deployments.insert(102, deployment(&name(2), 102));
    scene.incarnation(2).reserved = ago(seconds);
    scene
}

/// It was leased from provider 2 so many seconds ago.
fn leased(seconds: u64) -> Scene {
    let mut scene = reserved();
    scene.lease(2, 2);
    scene.incarnation(2).lease.as_mut().unwrap().at = ago(seconds);
    scene
}

fn steps(plan: &Plan) -> Vec<&'static str> {
    let of_node = plan.steps.iter().filter(|s| *s.effect.incarnation() == name(2));
    let kind = |e: &Effect| match e {
        Effect::CreateDeployment { .. } => "create",
        Effect::CreateLease { .. } => "lease",
        Effect::DeliverManifest { .. } => "deliver",
        Effect::RevokeKey { .. } => "revoke",
        _ => "other",
    };
    of_node.map(|s| kind(&s.effect)).collect()
}

#[test]
fn what_never_ran_gives_way_to_a_corrected_manifest() {
    use akash_redis::api::difference::lease_terms;
    let rows: [(&str, fn() -> Scene, bool); 4] = [
        ("reserved", reserved, true),
        ("its order is open", || bidding(5), true),
        ("it is leased", || leased(5), true),
        ("it runs", Scene::whole, false),
    ];
    for (what, made, gone) in rows {
        let mut scene = made();
        scene.incarnation(2).lease_terms = lease_terms(&scene.cluster.spec);
        scene.cluster.spec.budget.deposit = Some("1act".parse().unwrap());
        assert_eq!(given_up(&scene, &scene.plan(NOW)), [], "{what}: no term of a lease");
        scene.cluster.spec.placement.max_price = Some("9act".parse().unwrap());
        let plan = scene.plan(NOW);
        assert_eq!(given_up(&scene, &plan) == [name(2)], gone, "{what}");
        assert!(!plan.record.failures.contains_key(&2), "{what}: nobody is to blame");
        scene.incarnation(2).lease_terms.clear();
        assert_eq!(given_up(&scene, &scene.plan(NOW)), [], "{what}: by an older operator");
    }
}

#[test]
fn what_was_reserved_is_created() {
    let rows: [(&str, Edit, &[&str]); 5] = [
        ("nothing is on the chain", |_| {}, &["create"]),
        (
            "its transaction is on its way",
            |s| {
                s.inventory.pending.insert(102);
            },
            &[],
        ),
        ("the control API is away", |s| s.inventory.mesh.error = Some("away".into()), &[]),
        ("the chain is away", |s| s.inventory.chain.error = Some("away".into()), &[]),
        (
            "an unused key of an earlier process is there",
            |s| {
                s.mesh().keys.push(key(&name(2)));
                s.inventory.held.clear();
            },
            &["revoke", "create"],
        ),
    ];
    for (what, edit, expected) in rows {
        let mut scene = reserved();
        edit(&mut scene);
        assert_eq!(steps(&scene.plan(NOW)), expected, "{what}");
    }
    let mut pending = reserved();
    pending.inventory.pending.insert(102);
    pending.incarnation(2).reserved = ago(119);
    let plan = pending.plan(NOW);
    assert_eq!(
        wait_for(&plan, "the transaction of cache-2-aaaa to be in a block").unwrap().0,
        Some(1)
    );
    assert!(!degraded(&plan).1.contains("longer than the 120 s"));
    pending.incarnation(2).reserved = ago(120);
    assert_eq!(degraded(&pending.plan(NOW)).0, Reason::TransactionStalled);
    let mut away = reserved();
    away.inventory.chain.error = Some("no route".into());
    away.inventory.chain.at = ago(120);
    let plan = away.plan(NOW);
    assert_eq!(degraded(&plan).0, Reason::ChainUnavailable);
    assert!(wait_for(&plan, "the chain, for cache-2-aaaa (no route)").is_some());
    let mut deposit = reserved();
    deposit.chain().min_deposit = akash_redis::model::money::Uact(3_000_000);
    let plan = deposit.plan(NOW);
    let paid = plan.steps.iter().find_map(|s| match s.effect {
        Effect::CreateDeployment { deposit, .. } => Some(deposit.0),
        _ => None,
    });
    assert_eq!(paid, Some(3_000_000), "the chain's smallest");
}

#[test]
fn the_best_bid_is_taken_when_their_time_is_over() {
    let bids: Edit = |s| s.deployment(2).bids = vec![bid(102, 3, 2), bid(102, 4, 1)];
    let plan = {
        let mut scene = bidding(19);
        bids(&mut scene);
        scene.plan(NOW)
    };
    assert_eq!(steps(&plan), [] as [&str; 0]);
    assert_eq!(wait_for(&plan, "bids for cache-2-aaaa (2 so far)").unwrap().0, Some(1));
    let mut scene = bidding(20);
    bids(&mut scene);
    let plan = scene.plan(NOW);
    assert_eq!((steps(&plan), has_event(&plan, EventReason::BidAccepted)), (vec!["lease"], true));
    let chosen = plan.record.incarnations[&name(2)].lease.clone().unwrap();
    assert_eq!((chosen.id, chosen.at), (lease_id(102, 4), UnixMs(NOW)));
    // The choice stays while the bid is there, whatever others ask.
    scene.record = plan.record;
    scene.deployment(2).bids.push(bid(102, 5, 0));
    assert_eq!(
        scene.plan(NOW).record.incarnations[&name(2)].lease.as_ref().unwrap().id,
        lease_id(102, 4)
    );
    scene.deployment(2).bids.retain(|b| b.id.provider != "akash1p4");
    let again = scene.plan(NOW).record.incarnations[&name(2)].lease.clone().unwrap();
    assert_eq!(again.id, lease_id(102, 5), "it was withdrawn");
    scene.deployment(2).open_order = Some(2);
    assert_eq!(scene.plan(NOW).record.incarnations[&name(2)].lease, None, "its order is closed");
}

#[test]
fn a_lease_without_a_key_would_be_paid_in_vain() {
    let away: Edit = |s| s.inventory.mesh.error = Some("away".into());
    for (seconds, held, leases, gone) in [
        (20, true, true, false),
        (20, false, false, false),
        (179, false, false, false),
        (180, false, false, true),
    ] {
        let mut scene = bidding(seconds);
        scene.deployment(2).bids = vec![bid(102, 3, 2)];
        if !held {
            scene.inventory.held.clear();
        }
        away(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(steps(&plan).contains(&"lease"), leases, "{seconds} {held}");
        assert_eq!(given_up(&scene, &plan) == [name(2)], gone, "{seconds} {held}");
        assert!(plan.record.failures.is_empty(), "no provider is to blame");
    }
    let mut chosen = bidding(20);
    chosen.deployment(2).bids = vec![bid(102, 3, 2)];
    chosen.record = chosen.plan(NOW).record;
    chosen.inventory.held.clear();
    assert_eq!(steps(&chosen.plan(NOW)), ["lease"]);
    away(&mut chosen);
    assert_eq!(steps(&chosen.plan(NOW)), [] as [&str; 0]);
}

#[test]
fn an_order_that_nobody_takes_is_closed() {
    let refused: Edit = |s| s.deployment(2).bids = vec![bid(102, 3, 4)];
    for (seconds, edit, gone, told) in [
        (179, None, false, "nobody bid"),
        (180, None, true, "nobody bid at 3act per month or less"),
        (179, Some(refused), false, "no bid could be taken"),
        (
            180,
            Some(refused),
            true,
            "no bid could be taken at 3act per month or less (akash1p3: it asks more",
        ),
    ] {
        let mut scene = bidding(seconds);
        if let Some(edit) = edit {
            edit(&mut scene);
        }
        let plan = scene.plan(NOW);
        assert_eq!(given_up(&scene, &plan) == [name(2)], gone, "{seconds} {told}");
        let problem = degraded(&plan).0 == Reason::NoAcceptableBid;
        assert_eq!(problem, !gone && edit.is_some(), "{seconds} {told}");
        if gone {
            assert!(plan.record.failures[&2].reason.contains(told), "{:?}", plan.record.failures);
            assert_eq!(
                (plan.record.failures[&2].count, plan.record.failures[&2].last),
                (1, UnixMs(NOW))
            );
        } else {
            assert_eq!(wait_for(&plan, "a bid for cache-2-aaaa").unwrap().0, Some(1));
        }
    }
    let mut under_way = bidding(180);
    under_way.inventory.pending.insert(102);
    assert_eq!(given_up(&under_way, &under_way.plan(NOW)), [], "a transaction is on its way");
}

#[test]
fn the_manifest_is_sent_until_the_provider_shows_it() {
    let delivered = |seconds: u64, times| Delivered { at: ago(seconds), times };
    let rows: [(&str, Option<Delivered>, bool); 13] = [
        ("never", None, true),
        ("once, nine seconds ago", Some(delivered(9, 1)), false),
        ("once, ten seconds ago", Some(delivered(10, 1)), true),
        ("twice", Some(delivered(19, 2)), false),
        ("twice", Some(delivered(20, 2)), true),
        ("three times", Some(delivered(39, 3)), false),
        ("three times", Some(delivered(40, 3)), true),
        ("four times", Some(delivered(59, 4)), false),
        ("four times", Some(delivered(60, 4)), true),
        ("often", Some(delivered(59, 400)), false),
        ("often", Some(delivered(60, 400)), true),
        ("not at all", Some(delivered(9, 0)), false),
        ("not at all", Some(delivered(10, 0)), true),
    ];
    for (what, delivered, sends) in rows {
        let mut scene = leased(60);
        scene.inventory.delivered.extend(delivered.map(|d| (name(2), d)));
        let plan = scene.plan(NOW);
        assert_eq!(steps(&plan) == ["deliver"], sends, "{what}");
        assert_eq!(wait_for(&plan, "to start what it took").is_some(), !sends, "{what}");
    }
    let mut other = leased(60);
    other.incarnation(2).lease.as_mut().unwrap().id = lease_id(102, 5);
    let chosen = other.plan(NOW).record.incarnations[&name(2)].lease.clone().unwrap();
    assert_eq!((chosen.id, chosen.price), (lease_id(102, 2), price(3)), "the chain's is the lease");
    let mut none = leased(60);
    none.incarnation(2).lease = None;
    assert!(none.plan(NOW).record.incarnations[&name(2)].lease.is_some());
}

#[test]
fn a_provider_that_does_not_take_the_manifest_is_left() {
    let keyless: Edit = |s| {
        s.inventory.held.clear();
        s.inventory.mesh.error = Some("away".into());
    };
    let refused: Edit = |s| drop(s.inventory.not_minted.insert(name(2), "no".into()));
    let rows: [(&str, u64, Option<Edit>, bool, u32); 7] = [
        ("in time", 299, None, false, 0),
        ("too late", 300, None, true, 1),
        ("no key can be minted, in time", 299, Some(keyless), false, 0),
        ("no key can be minted", 300, Some(keyless), true, 0),
        ("the API says no", 300, Some(refused), true, 0),
        (
            "it has a key, and the control API is away",
            300,
            Some(|s| s.inventory.mesh.error = Some("x".into())),
            true,
            1,
        ),
        (
            "it has none, and the control API is there",
            300,
            Some(|s| s.inventory.held.clear()),
            true,
            1,
        ),
    ];
    for (what, seconds, edit, gone, blamed) in rows {
        let mut scene = leased(seconds);
        edit.into_iter().for_each(|edit| edit(&mut scene));
        let plan = scene.plan(NOW);
        assert_eq!(given_up(&scene, &plan) == [name(2)], gone, "{what}");
        let count = plan.record.failures.get(&2).map_or(0, |f| f.count);
        assert_eq!(count, blamed, "{what}");
        let avoided = plan.record.failures.get(&2).is_some_and(|f| f.providers == ["akash1p2"]);
        assert_eq!(avoided, blamed > 0, "{what}");
    }
    let mut scene = leased(299);
    keyless(&mut scene);
    let plan = scene.plan(NOW);
    assert_eq!(wait_for(&plan, "to mint a key for cache-2-aaaa (away)").unwrap().0, Some(1));
}

#[test]
fn a_node_joins_in_time_or_is_tried_elsewhere() {
    let deployed: Edit = |s| {
        let status = LeaseStatus::Deployed { ready: 1, uris: vec![] };
        s.inventory.leases.insert(lease_id(102, 2), status);
    };
    let away: Edit = |s| {
        s.inventory.leases.insert(lease_id(102, 2), LeaseStatus::Away("timeout".into()));
    };
    let no_mesh: Edit = |s| s.inventory.mesh.error = Some("x".into());
    let spent: Edit = |s| {
        let said = page(2, |p| p.lacks = vec![format!("{KEY_SPENT}: used")]);
        s.inventory.pages.insert(name(2), said);
    };
    let rows: [(&str, u64, &[Edit], bool, u32); 7] = [
        ("it is waited for", 299, &[deployed], false, 0),
        ("in vain", 300, &[deployed], true, 1),
        ("its gateway is away", 299, &[away], false, 0),
        ("its gateway is away for too long", 300, &[away], true, 1),
        ("nobody can join now", 300, &[deployed, no_mesh], true, 0),
        ("its key is spent", 1, &[deployed, spent], true, 1),
        ("its gateway is away, and nobody can join", 300, &[away, no_mesh], true, 0),
    ];
    for (what, seconds, edits, gone, blamed) in rows {
        let mut scene = leased(seconds);
        edits.iter().for_each(|edit| edit(&mut scene));
        let plan = scene.plan(NOW);
        assert_eq!(given_up(&scene, &plan) == [name(2)], gone, "{what}");
        assert_eq!(plan.record.failures.get(&2).map_or(0, |f| f.count), blamed, "{what}");
        if !gone {
            let wait = wait_for(&plan, "cache-2-aaaa").unwrap();
            assert_eq!(wait.0, Some(1), "{what}");
        }
    }
    let mut device_there = leased(300);
    deployed(&mut device_there);
    device_there.mesh().devices.push(device(2));
    let failures = device_there.plan(NOW).record.failures;
    assert!(failures[&2].reason.contains("its key was used by device device-2"), "{failures:?}");
    device_there.mesh().devices.last_mut().unwrap().unsigned = true;
    let failures = device_there.plan(NOW).record.failures;
    assert!(failures[&2].reason.contains("the tailnet is locked"), "{failures:?}");
    let mut revoked = leased(300);
    deployed(&mut revoked);
    assert!(revoked.plan(NOW).record.failures[&2].reason.contains("its key was revoked"));
    revoked.mesh().keys.push(key(&name(2)));
    assert!(!revoked.plan(NOW).record.failures[&2].reason.contains("its key was revoked"));
    revoked.mesh().keys[0].invalid = true;
    assert!(revoked.plan(NOW).record.failures[&2].reason.contains("its key was revoked"));
    revoked.mesh().all_keys = false;
    assert!(!revoked.plan(NOW).record.failures[&2].reason.contains("its key was revoked"));
}

#[test]
fn who_reports_has_joined() {
    let mut scene = Scene::whole();
    scene.incarnation(2).membership = Membership::Expected;
    scene.incarnation(2).device = None;
    let plan = scene.plan(NOW);
    assert!(has_event(&plan, EventReason::NodeJoined));
    assert_eq!(plan.record.incarnations[&name(2)].device.as_deref(), Some("device-2"));
    // Its device is kept as it was when another one is reported.
    let mut other = Scene::whole();
    other.node(2, |v| v.state.mesh.device_id = "other".into());
    assert_eq!(other.plan(NOW).record.incarnations[&name(2)].device.as_deref(), Some("device-2"));
    let mut unknown = Scene::whole();
    unknown.incarnation(2).device = None;
    unknown.node(2, |v| v.state.mesh.device_id.clear());
    assert_eq!(unknown.plan(NOW).record.incarnations[&name(2)].device, None);
    // It is believed when the tailnet lists it as this node's: an agent may name any.
    let believed = |id: &str, edit: &dyn Fn(&mut Scene)| {
        let mut scene = Scene::whole();
        scene.incarnation(2).device = None;
        scene.node(2, |v| v.state.mesh.device_id = id.into());
        edit(&mut scene);
        scene.plan(NOW).record.incarnations[&name(2)].device.is_some()
    };
    assert!(!believed(&device(1).id, &|_| {}), "that is another node's");
    let stranger = Device { id: "laptop".into(), hostname: "laptop".into(), ..device(2) };
    assert!(!believed("laptop", &|s| s.mesh().devices.push(stranger.clone())));
    let untagged = Device { id: "untagged".into(), tags: vec![], ..device(2) };
    assert!(!believed("untagged", &|s| s.mesh().devices.push(untagged.clone())));
    assert!(!believed("nowhere", &|_| {}));
    let quarantined = vec![QUARANTINE.to_owned()];
    assert!(believed(&device(2).id, &|s| s.mesh().devices[2].tags.clone_from(&quarantined)));
    assert!(!has_event(&Scene::whole().plan(NOW), EventReason::NodeJoined));
}

#[test]
fn a_redis_that_does_not_start_is_told_and_replaced() {
    let down = |n: u32, seconds: u64, membership, now: Process| {
        let mut scene = Scene::whole();
        scene.incarnation(n).redis_down = Some(ago(seconds));
        scene.incarnation(n).membership = membership;
        scene.node(n, |v| {
            v.state.redis.process = now;
            v.state.notes = vec!["disk full".into()];
        });
        let plan = scene.plan(NOW);
        let gone = given_up(&scene, &plan) == [name(n)];
        (degraded(&plan).1.contains("disk full"), gone, plan)
    };
    let exited = Process::Exited;
    for (seconds, told, gone) in [
        (0, false, false),
        (29, false, false),
        (30, true, false),
        (299, true, false),
        (300, true, true),
    ] {
        for membership in [Membership::Candidate, Membership::Joined] {
            let (t, g, plan) = down(2, seconds, membership, exited);
            assert_eq!((t, g), (told, gone), "{seconds} {membership:?}");
            let wait = wait_for(&plan, "redis of cache-2-aaaa to start");
            assert_eq!(wait.is_some(), told && !gone, "{seconds} {membership:?}");
        }
    }
    let (_, gone, plan) = down(0, 600, Membership::Candidate, exited);
    assert!(!gone, "who may take the master's place is decided elsewhere");
    assert!(wait_for(&plan, "redis of cache-0-aaaa to start").is_none());
    let (told, gone, plan) = down(2, 600, Membership::Candidate, Process::Running);
    assert_eq!((told, gone, plan.record.incarnations[&name(2)].redis_down), (false, false, None));
    let mut first = Scene::whole();
    first.node(2, |v| v.state.redis.process = exited);
    assert_eq!(first.plan(NOW).record.incarnations[&name(2)].redis_down, Some(UnixMs(NOW)));
}

#[test]
fn what_runs_in_a_place_ends_the_failures_before_it() {
    let failures = |edit: Edit| {
        let mut scene = Scene::whole();
        scene.record.failures.entry(2).or_default().count = 3;
        scene.incarnation(2).membership = Membership::Joined;
        edit(&mut scene);
        scene.plan(NOW).record.failures.contains_key(&2)
    };
    assert!(!failures(|_| {}));
    assert!(failures(|s| s.incarnation(2).raise(Membership::Member)), "it ran before");
    assert!(failures(|s| s.node(2, |v| v.state.redis.process = Process::Starting)));
}

#[test]
fn a_node_whose_lease_is_gone_is_given_up() {
    let rows: [(&str, u32, u32, Edit, bool, Option<(u32, bool)>); 8] = [
        ("a replica, by its provider", 2, 10_001, |_| {}, true, Some((0, true))),
        ("a replica, by its owner", 2, 1, |_| {}, true, None),
        ("a replica, out of money", 2, 20_000, |_| {}, true, None),
        (
            "one that never joined, by its owner",
            2,
            1,
            |s| {
                s.incarnation(2).membership = Membership::Expected;
            },
            true,
            Some((1, true)),
        ),
        ("the master, and others have its data", 0, 10_001, |s| s.silent(0, 1), false, None),
        (
            "the master, which lives",
            0,
            10_001,
            |s| {
                (1..3).for_each(|n| s.incarnation(n).lower(Membership::Member));
                s.attach(&[]);
            },
            false,
            None,
        ),
        (
            "the master, which nobody can replace",
            0,
            10_001,
            |s| {
                s.silent(0, 1);
                (1..3).for_each(|n| s.incarnation(n).lower(Membership::Member));
            },
            true,
            Some((0, true)),
        ),
        (
            "the same, in the middle of a change",
            0,
            10_001,
            |s| {
                s.failing(NOW);
                s.silent(0, 1);
                (1..3).for_each(|n| s.incarnation(n).lower(Membership::Member));
            },
            false,
            None,
        ),
    ];
    for (what, n, reason, edit, gone, blame) in rows {
        let mut scene = Scene::whole();
        scene.close_lease(n, reason);
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(given_up(&scene, &plan).contains(&name(n)), gone, "{what}");
        let failures = plan.record.failures.get(&n);
        assert_eq!(failures.map(|f| (f.count, !f.providers.is_empty())), blame, "{what}");
        assert_eq!(n == 0 && !gone, degraded(&plan).1.contains("was master and is lost"), "{what}");
    }
}

#[test]
fn a_device_that_somebody_deleted_costs_its_node_its_place() {
    let rows: [(&str, Edit, bool, bool); 8] = [
        ("the node is silent for downAfter", |_| {}, true, true),
        ("it is silent for less", |s| s.silent(2, 9), false, true),
        (
            "another place is not whole",
            |s| {
                s.incarnation(1).lower(Membership::Member);
                s.node(1, |v| v.state.redis.link = Link::Down);
                s.attach(&[2]);
            },
            false,
            true,
        ),
        ("its device is there", |s| s.mesh().devices.push(device(2)), false, false),
        ("the list was read before its last word", |s| s.inventory.mesh.at = ago(10), false, false),
        ("the list is empty", |s| s.mesh().devices.clear(), false, false),
        ("the list cannot be had", |s| s.inventory.mesh.error = Some("x".into()), false, false),
        ("the node speaks", |s| s.node(2, |v| v.connected = true), false, false),
    ];
    for (what, edit, gone, told) in rows {
        let mut scene = Scene::whole();
        scene.silent(2, 10);
        scene.mesh().devices.remove(2);
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(given_up(&scene, &plan) == [name(2)], gone, "{what}");
        let says = degraded(&plan).1.contains("the mesh device of cache-2-aaaa was deleted");
        assert_eq!(says, told, "{what}");
    }
}

#[test]
fn silence_is_waited_for_and_told() {
    let mut scene = Scene::whole();
    scene.silent(2, 299);
    let plan = scene.plan(NOW);
    assert_eq!(wait_for(&plan, "cache-2-aaaa to be heard again").unwrap().0, Some(1));
    assert_eq!(degraded(&plan).0, Reason::NodeUnreachable);
    scene.timing.replace_after = Duration::from_secs(299);
    assert_eq!(given_up(&scene, &scene.plan(NOW)), [name(2)]);
    scene.inventory.own_mesh.error = Some("x".into());
    assert_eq!(degraded(&scene.plan(NOW)).0, Reason::OperatorOffMesh);
}
