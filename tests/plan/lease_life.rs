//! The life of a lease, state by state: what chain, provider and node show, what the planner does
//! about it, and what it says.

use std::time::Duration;

use akash_redis::api::conditions::{ConditionType, Reason};
use akash_redis::api::events::EventReason;
use akash_redis::model::chain::{GroupState, LeaseState};
use akash_redis::model::change::Change;
use akash_redis::model::incarnation::Membership;
use akash_redis::model::inventory::{Failing, LeaseStatus};
use akash_redis::model::money::Uact;
use akash_redis::model::node::{Link, Process, Role};
use akash_redis::model::step::Effect;
use akash_redis::model::time::UnixMs;
use akash_redis::plan::Plan;

use crate::scene::{
    NOW, Scene, ago, bid, degraded, deployment, device, given_up, lease_id, name, price,
};

type Edit = fn(&mut Scene);

/// What follows for node 2, a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// It stays as it is.
    Nothing,
    /// It is given up at once, or after this was seen for long enough.
    GivesUp,
    /// It stays until another one took its place.
    Leaves,
    /// Its escrow is filled.
    Fills,
    /// A bid becomes a lease.
    Leases,
    /// The manifest is sent.
    Delivers,
}

fn done(scene: &Scene, plan: &Plan) -> Does {
    if given_up(scene, plan) == [name(2)] {
        return Does::GivesUp;
    }
    if plan.record.incarnations.values().any(|i| i.replaces == Some(name(2))) {
        return Does::Leaves;
    }
    let of_node = plan.steps.iter().filter(|s| *s.effect.incarnation() == name(2));
    let mut does = of_node.filter_map(|s| match s.effect {
        Effect::TopUp { .. } => Some(Does::Fills),
        Effect::CreateLease { .. } => Some(Does::Leases),
        Effect::DeliverManifest { .. } => Some(Does::Delivers),
        _ => None,
    });
    does.next_back().unwrap_or(Does::Nothing)
}

/// All sentences that a person finds in `describe` and `events`.
fn told(plan: &Plan) -> String {
    let events = plan.events.iter().map(|(_, message)| message.clone());
    let nodes = plan.status.nodes.iter().filter_map(|n| n.message.clone());
    let waits = plan.status.waiting.iter().map(|w| format!("{}: {}", w.what, w.then));
    let conditions = plan.status.conditions.iter().map(|c| c.message.clone());
    events.chain(nodes).chain(waits).chain(conditions).collect::<Vec<_>>().join("\n")
}

/// Node 2 runs; there are names for new ones.
fn runs() -> Scene {
    let mut scene = Scene::whole();
    scene.inventory.id_pool.suffixes = ["bbbb", "cccc", "dddd"].map(Into::into).into();
    scene
}

/// Node 2 never reported; its order is open since twenty seconds.
fn bidding() -> Scene {
    let mut scene = runs();
    scene.chain().deployments.insert(102, deployment(&name(2), 102));
    scene.mesh().devices.remove(2);
    scene.inventory.nodes.remove(&name(2));
    scene.inventory.held.insert(name(2), [0; 32]);
    let own = scene.incarnation(2);
    (own.membership, own.device, own.lease) = (Membership::Expected, None, None);
    (own.reserved, own.max_price) = (ago(20), price(3));
    scene
}

/// It was leased a minute ago.
fn leased(seconds: u64) -> Scene {
    let mut scene = bidding();
    scene.lease(2, 2);
    scene.incarnation(2).lease.as_mut().unwrap().at = ago(seconds);
    scene
}

/// The provider says this of the lease of node 2.
fn says(scene: &mut Scene, status: LeaseStatus) {
    scene.inventory.leases.insert(lease_id(102, 2), status);
}

fn away(why: &str) -> LeaseStatus {
    LeaseStatus::Away(why.into())
}

fn running() -> LeaseStatus {
    LeaseStatus::Deployed { ready: 1, uris: vec![] }
}

/// The deployment of node 2 is closed, with its group in this state and its lease in that.
fn closed(scene: &mut Scene, group: GroupState, lease: LeaseState, reason: u32) {
    let own = scene.deployment(2);
    (own.active, own.group, own.escrow.open) = (false, group, false);
    let last = own.leases.last_mut().unwrap();
    (last.state, last.reason) = (lease, reason);
}

/// The provider closed the lease of node 2: the group is paused, the deployment open.
fn paused(scene: &mut Scene, reason: u32) {
    scene.deployment(2).group = GroupState::Paused;
    scene.close_lease(2, reason);
}

#[test]
fn every_state_of_a_lease_has_an_answer_and_a_sentence() {
    use Does::{Delivers, Fills, GivesUp, Leases, Leaves, Nothing};
    let rows: [(&str, fn() -> Scene, Edit, Does, &str); 42] = [
        // What the chain shows: deployment, group, lease.
        (
            "active, open, no bid yet",
            bidding,
            |_| {},
            Nothing,
            "a bid for cache-2-aaaa: the deployment is closed, refunded, and tried again later",
        ),
        (
            "active, open, a bid",
            bidding,
            |s| s.deployment(2).bids = vec![bid(102, 3, 2)],
            Leases,
            "the bid of akash1p3 at 2act per month was accepted",
        ),
        (
            "active, open, active",
            runs,
            |_| {},
            Nothing,
            "nothing to do: the cluster is as the manifest wants it",
        ),
        (
            "reclaiming",
            runs,
            |s| {
                let lease = s.deployment(2).leases.last_mut().unwrap();
                (lease.state, lease.reason, lease.reclaim_by) =
                    (LeaseState::Reclaiming, 10_000, Some(UnixMs(NOW + 3_600_000)));
            },
            Leaves,
            "takes its lease back (by the provider: unstable) and may close it from 2026-11-18T12:06:40Z on",
        ),
        (
            "reclaiming, and nobody knows until when",
            runs,
            |s| s.deployment(2).leases.last_mut().unwrap().state = LeaseState::Reclaiming,
            Leaves,
            "may close it from an unknown time on",
        ),
        (
            "paused: unstable",
            runs,
            |s| paused(s, 10_000),
            GivesUp,
            "its lease was closed (by the provider: unstable)",
        ),
        (
            "paused: decommissioned",
            runs,
            |s| paused(s, 10_001),
            GivesUp,
            "(by the provider: decommissioned)",
        ),
        (
            "paused: no reason",
            runs,
            |s| paused(s, 10_002),
            GivesUp,
            "(by the provider, without a reason)",
        ),
        (
            "paused: no manifest in time",
            || leased(60),
            |s| paused(s, 10_003),
            GivesUp,
            "(by the provider: no manifest in time)",
        ),
        (
            "paused: a reason of later versions",
            runs,
            |s| paused(s, 10_099),
            GivesUp,
            "(by the provider, without a reason)",
        ),
        (
            "paused, and the lease says nothing",
            runs,
            |s| paused(s, 0),
            GivesUp,
            "its lease was closed (reason unknown)",
        ),
        (
            "paused without any lease",
            bidding,
            |s| {
                let own = s.deployment(2);
                (own.group, own.open_order) = (GroupState::Paused, None);
            },
            GivesUp,
            "its order was closed",
        ),
        (
            "its owner closed the lease, and a new order is open",
            runs,
            |s| {
                s.close_lease(2, 1);
                s.deployment(2).open_order = Some(2);
                s.deployment(2).bids = vec![bid(102, 3, 1)];
            },
            GivesUp,
            "its lease was closed (by somebody else who has the wallet's key)",
        ),
        (
            "its owner closed the deployment",
            runs,
            |s| closed(s, GroupState::Closed, LeaseState::Closed, 1),
            GivesUp,
            "its deployment was closed by somebody else who has the wallet's key",
        ),
        (
            "the same, as the hook of a payment writes it",
            runs,
            |s| closed(s, GroupState::Closed, LeaseState::Closed, 10_002),
            GivesUp,
            "its deployment was closed by somebody else who has the wallet's key",
        ),
        (
            "the group was closed, the deployment not",
            runs,
            |s| {
                s.deployment(2).group = GroupState::Closed;
                s.close_lease(2, 1);
            },
            GivesUp,
            "its lease was closed",
        ),
        // Money.
        (
            "the escrow is empty, and nobody took notice",
            runs,
            |s| s.deployment(2).escrow.blocks_left = Some(0),
            Fills,
            "an escrow pays for 0 h more only",
        ),
        (
            "the same, and the wallet is empty",
            runs,
            |s| {
                s.deployment(2).escrow.blocks_left = Some(0);
                s.chain().balance = Uact(0);
            },
            Nothing,
            "fund the wallet",
        ),
        (
            "ran dry",
            runs,
            |s| closed(s, GroupState::InsufficientFunds, LeaseState::InsufficientFunds, 20_000),
            GivesUp,
            "its escrow was used up",
        ),
        (
            "ran dry while its owner closed the lease",
            runs,
            |s| closed(s, GroupState::InsufficientFunds, LeaseState::Closed, 1),
            GivesUp,
            "its escrow was used up",
        ),
        (
            "ran dry, and a dead order was made",
            runs,
            |s| {
                closed(s, GroupState::InsufficientFunds, LeaseState::InsufficientFunds, 20_000);
                s.deployment(2).open_order = Some(2);
            },
            GivesUp,
            "its escrow was used up",
        ),
        // Chain and provider disagree.
        (
            "closed, and the workload lives",
            runs,
            |s| {
                paused(s, 10_000);
                says(s, running());
            },
            GivesUp,
            "its lease was closed",
        ),
        (
            "active, and the provider has nothing of it",
            runs,
            |s| {
                s.silent(2, 60);
                says(s, LeaseStatus::NoManifest);
            },
            Nothing,
            "its provider has no manifest of it",
        ),
        (
            "the same for long",
            runs,
            |s| {
                s.silent(2, 300);
                says(s, LeaseStatus::NoManifest);
            },
            GivesUp,
            "it has been silent since",
        ),
        (
            "active, and the workload is dead",
            runs,
            |s| {
                s.silent(2, 60);
                says(s, LeaseStatus::Deployed { ready: 0, uris: vec![] });
            },
            Nothing,
            "its provider says that 0 of 1 containers are ready",
        ),
        (
            "the same for long",
            runs,
            |s| {
                s.silent(2, 300);
                says(s, LeaseStatus::Deployed { ready: 0, uris: vec![] });
            },
            GivesUp,
            "it has been silent since",
        ),
        (
            "the provider denies a node that speaks",
            runs,
            |s| says(s, LeaseStatus::NoManifest),
            Nothing,
            "nothing to do",
        ),
        (
            "the chain shows no deployment of a node that speaks",
            runs,
            |s| drop(s.chain().deployments.remove(&102)),
            Nothing,
            "no problem is known",
        ),
        (
            "the chain shows another's deployment there",
            runs,
            |s| s.deployment(2).group_name = "somebody".into(),
            GivesUp,
            "is not its own (group somebody)",
        ),
        // The provider.
        (
            "frozen: silent, and its gateway too",
            runs,
            |s| {
                s.silent(2, 60);
                says(s, away("it timed out"));
            },
            Nothing,
            "cache-2-aaaa to be heard again: it is replaced by a new node",
        ),
        (
            "gone for good",
            runs,
            |s| {
                s.silent(2, 300);
                says(s, away("it timed out"));
            },
            GivesUp,
            "it has been silent since",
        ),
        (
            "its certificate changed while the node speaks",
            runs,
            |s| says(s, away("its certificate is not the one on the chain")),
            Nothing,
            "nothing to do",
        ),
        (
            "its certificate changed before the manifest",
            || leased(60),
            |s| says(s, away("its certificate is not the one on the chain")),
            Nothing,
            "the gateway of cache-2-aaaa's provider (its certificate is not the one on the chain): the node is given up and tried with another provider",
        ),
        (
            "503 for long",
            || leased(300),
            |s| says(s, away("it answers 503 dial tcp")),
            GivesUp,
            "waiting for the gateway of cache-2-aaaa's provider (it answers 503 dial tcp)",
        ),
        (
            "404: no manifest yet",
            || leased(60),
            |s| says(s, LeaseStatus::NoManifest),
            Delivers,
            "its provider waits for the manifest",
        ),
        (
            "422, again and again",
            || leased(60),
            |s| fails(s, "answered 422 manifest version validation failed"),
            Delivers,
            "422 manifest version validation failed (failed 5 times in a row",
        ),
        (
            "500, again and again",
            || leased(60),
            |s| fails(s, "answered 500 hostname not allowed"),
            Delivers,
            "500 hostname not allowed (failed 5 times in a row",
        ),
        (
            "manifest time-out, by our clock",
            || leased(300),
            |s| says(s, LeaseStatus::NoManifest),
            GivesUp,
            "its provider did not take the manifest in time",
        ),
        (
            "it started and never joined",
            || leased(300),
            |s| says(s, running()),
            GivesUp,
            "timed out after 300 s waiting for cache-2-aaaa to start and join the mesh",
        ),
        // Offers.
        (
            "resources_offer smaller than asked",
            bidding,
            |s| {
                s.deployment(2).bids = vec![bid(102, 3, 1)];
                s.deployment(2).bids[0].fits = false;
            },
            Nothing,
            "akash1p3: it offers less than was asked for",
        ),
        (
            "a leftover of another order",
            bidding,
            |s| {
                s.deployment(2).bids = vec![bid(102, 3, 1)];
                s.deployment(2).open_order = Some(2);
            },
            Nothing,
            "akash1p3: its order is no longer open",
        ),
        (
            "a leftover beside a bid",
            bidding,
            |s| {
                s.deployment(2).bids = vec![bid(102, 3, 1), bid(102, 4, 2)];
                s.deployment(2).bids[0].id.oseq = 0;
            },
            Leases,
            "the bid of akash1p4 at 2act",
        ),
    ];
    for (what, made, edit, does, sentence) in rows {
        let mut scene = made();
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(done(&scene, &plan), does, "{what}\n{}", told(&plan));
        assert!(told(&plan).contains(sentence), "{what}: {sentence} is not in\n{}", told(&plan));
    }
}

/// The manifest could not be brought to the provider, five times.
fn fails(scene: &mut Scene, error: &str) {
    says(scene, LeaseStatus::NoManifest);
    let effect = Effect::DeliverManifest { incarnation: name(2), lease: lease_id(102, 2) };
    scene.inventory.failing.push(Failing { effect, times: 5, error: error.into() });
}

/// What is over is cleaned up whatever the chain says of it, and its place is filled.
#[test]
fn who_lost_a_lease_is_closed_and_replaced_with_another_provider() {
    let ends: [(&str, Edit, bool); 4] = [
        ("paused by its provider", |s| paused(s, 10_000), true),
        (
            "its owner closed the lease",
            |s| {
                s.close_lease(2, 1);
                s.deployment(2).open_order = Some(2);
            },
            true,
        ),
        (
            "ran dry",
            |s| closed(s, GroupState::InsufficientFunds, LeaseState::InsufficientFunds, 20_000),
            false,
        ),
        ("closed", |s| closed(s, GroupState::Closed, LeaseState::Closed, 1), false),
    ];
    for (what, edit, open) in ends {
        let mut scene = runs();
        edit(&mut scene);
        let plan = scene.plan(NOW);
        let closes = plan
            .steps
            .iter()
            .any(|s| s.effect == Effect::CloseDeployment { incarnation: name(2), dseq: 102 });
        assert_eq!(closes, open, "{what}: what is open is closed for the refund");
        let cut = plan.steps.iter().any(|s| {
            s.effect == Effect::DeleteDevice { incarnation: name(2), device: device(2).id }
        });
        assert!(cut, "{what}: a workload that lives on is off the mesh");
        let created = |s: &akash_redis::model::step::Step| matches!(&s.effect, Effect::CreateDeployment { incarnation, .. } if incarnation.ordinal() == Some(2));
        assert!(plan.steps.iter().any(created), "{what}: its place is filled");
        assert_eq!(
            plan.record.failures.get(&2).map(|f| f.providers.clone()),
            (what == "paused by its provider").then(|| vec!["akash1p2".to_owned()]),
            "{what}"
        );
    }
}

/// The same states of the lease under the master: nothing of it is given up before another one was
/// promoted.
#[test]
fn a_master_without_a_lease_is_failed_over_before_it_is_given_up() {
    for reason in [10_000, 10_001, 10_002, 10_003, 1] {
        let mut scene = runs();
        scene.deployment(0).group = GroupState::Paused;
        scene.close_lease(0, reason);
        let plan = scene.plan(NOW);
        assert_eq!(given_up(&scene, &plan), [], "{reason}: it lives, and others have its data");
        assert_eq!(degraded(&plan).0, Reason::MasterLost, "{reason}");
        // Its container ends.
        scene.node(0, |v| {
            v.state.redis.process = Process::Exited;
            v.state.redis.role = Role::Unknown;
        });
        for n in [1, 2] {
            scene.node(n, |v| v.state.redis.link = Link::Down);
        }
        let plan = scene.plan(NOW);
        assert!(
            matches!(plan.record.change, Some(Change::Failover(_))),
            "{reason}: {}",
            told(&plan)
        );
    }
}

/// The window for bids is counted from the block of the order.
#[test]
fn the_time_for_bids_begins_with_the_block_of_the_order() {
    // Reserved 60 s ago; the order is so many blocks of 6 s old; a block is behind by so much.
    let rows = [
        ("not known", None, 0, true),
        ("this block", Some(5), 0, false),
        ("three blocks ago", Some(2), 0, false),
        ("four blocks ago", Some(1), 0, true),
        ("before it was reserved, as a wrong clock has it", Some(1), 3_600, true),
        ("in the future, as a wrong clock has it", Some(5), -3_600, false),
    ];
    for (what, ordered_at, behind, taken) in rows {
        let mut scene = bidding();
        scene.incarnation(2).reserved = ago(60);
        scene.chain().block_time = UnixMs((NOW.cast_signed() - behind * 1000).cast_unsigned());
        scene.deployment(2).ordered_at = ordered_at;
        scene.deployment(2).bids = vec![bid(102, 3, 2)];
        let plan = scene.plan(NOW);
        assert_eq!(done(&scene, &plan) == Does::Leases, taken, "{what}");
    }
    // And so is the time after which it is given up.
    let mut scene = bidding();
    scene.incarnation(2).reserved = ago(300);
    scene.deployment(2).ordered_at = Some(1);
    assert_eq!(done(&scene, &scene.plan(NOW)), Does::Nothing, "24 s of 180");
}

/// Enough bids end the wait: one more than there are nodes, and four at least.
#[test]
fn enough_bids_are_not_waited_for() {
    let bids = |count: u32| (0..count).map(|n| bid(102, n, 1)).collect::<Vec<_>>();
    let rows: [(&str, u32, u32, Edit, bool); 6] = [
        ("three of four", 3, 3, |_| {}, false),
        ("four, of which two run the other nodes", 3, 4, |_| {}, true),
        ("one of them is too dear", 3, 4, |s| s.deployment(2).bids[3].price.0 += price(9).0, false),
        ("one of them offers less", 3, 4, |s| s.deployment(2).bids[3].fits = false, false),
        (
            "one of them failed this node",
            3,
            4,
            |s| s.record.failures.entry(2).or_default().providers = vec!["akash1p3".into()],
            false,
        ),
        (
            "all that could be taken run other nodes",
            3,
            6,
            |s| {
                s.cluster.spec.placement.providers.allow =
                    ["akash1p0", "akash1p1"].map(Into::into).into();
            },
            false,
        ),
    ];
    for (what, nodes, count, edit, taken) in rows {
        let mut scene = bidding();
        scene.cluster.spec.nodes = nodes;
        scene.incarnation(2).reserved = ago(1);
        scene.deployment(2).bids = bids(count);
        edit(&mut scene);
        assert_eq!(done(&scene, &scene.plan(NOW)) == Does::Leases, taken, "{what}");
    }
    let mut five = bidding();
    five.cluster.spec.nodes = 5;
    five.incarnation(2).reserved = ago(1);
    five.deployment(2).bids = bids(5);
    assert_eq!(done(&five, &five.plan(NOW)), Does::Nothing);
    five.deployment(2).bids = bids(6);
    assert_eq!(done(&five, &five.plan(NOW)), Does::Leases);
}

/// What is funded and what not is a condition of its own.
#[test]
fn an_empty_escrow_is_told_before_its_lease_ends() {
    let mut scene = runs();
    scene.deployment(2).escrow.blocks_left = Some(0);
    let plan = scene.plan(NOW);
    let funded = plan.status.conditions.iter().find(|c| c.kind == ConditionType::Funded).unwrap();
    assert_eq!(funded.reason, Reason::EscrowLow);
    let joined = plan.events.iter().any(|(reason, _)| *reason == EventReason::NodeCondemned);
    assert!(!joined, "its data are there");
    assert_eq!(scene.timing.bid_window, Duration::from_secs(20));
}
