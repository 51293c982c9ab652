//! What is promised already, and what the next node may cost: the rules of `plan/money.rs`.

use std::sync::Arc;

use akash_redis::api::conditions::{ConditionStatus, ConditionType, Reason};
use akash_redis::api::difference::resources_asked;
use akash_redis::api::types::Runway;
use akash_redis::model::experience::{Experience, SeenPrice};
use akash_redis::model::incarnation::Membership;
use akash_redis::model::money::{PricePerBlock, Uact};
use akash_redis::model::step::Effect;
use akash_redis::model::time::UnixMs;
use akash_redis::plan::{committed, per_month};

use crate::scene::{
    BLOCK_MS, NOW, Scene, THREE, ago, condemned, degraded, deployment, given_up, name, price,
};

type Edit = fn(&mut Scene);

/// What the cluster is committed to per month.
fn committed_per_month(scene: &Scene) -> Uact {
    per_month(&scene.inventory, committed(&scene.inventory, &scene.record))
}

fn act(n: u64) -> Uact {
    Uact(n * 1_000_000)
}

#[test]
fn what_costs_or_may_come_to_cost_is_promised() {
    let rows: [(&str, Edit, u64); 9] = [
        ("three leases", |_| {}, 9),
        ("the lease's price, not the cap", |s| s.incarnation(2).max_price = price(7), 9),
        (
            "the cap after a choice: its bid may be withdrawn",
            |s| {
                s.incarnation(2).max_price = price(7);
                s.deployment(2).leases.clear();
            },
            13,
        ),
        (
            "the cap, before there is a choice",
            |s| {
                s.incarnation(2).max_price = price(7);
                s.incarnation(2).lease = None;
                s.deployment(2).leases.clear();
            },
            13,
        ),
        ("one that was given up, while it is open", |s| s.give_up(2, 5), 9),
        (
            "one that was given up, and nobody knows",
            |s| {
                s.give_up(2, 5);
                s.chain().deployments.remove(&102);
            },
            9,
        ),
        (
            "one that was given up and is closed",
            |s| {
                s.give_up(2, 5);
                s.deployment(2).active = false;
            },
            6,
        ),
        ("one that is closed, and was not given up yet", |s| s.deployment(2).active = false, 9),
        ("nobody knows the chain", |s| s.inventory.chain.value = None, 9),
    ];
    for (what, edit, expected) in rows {
        let mut scene = Scene::whole();
        edit(&mut scene);
        let found = committed_per_month(&scene);
        assert_eq!(found, act(expected), "{what}");
    }
}

/// The cap of a node that is reserved now, per month; `None` when none is.
fn share(edit: impl FnOnce(&mut Scene)) -> Option<u64> {
    let mut scene = Scene::whole();
    scene.cluster.spec.nodes = 4;
    scene.inventory.id_pool.suffixes = ["aaaa", "bbbb", "aaaa"].map(Into::into).into();
    edit(&mut scene);
    let plan = scene.plan(NOW);
    let new = plan.record.incarnations.get(&name(3));
    assert!(new.is_some() || degraded(&plan).0 == Reason::BudgetExhausted, "{:?}", degraded(&plan));
    new.map(|i| i.max_price.per_month(BLOCK_MS).0 / 10_000)
}

#[test]
fn what_is_left_is_shared_by_the_nodes_that_are_missing() {
    let rows: [(&str, Edit, Option<u64>); 9] = [
        ("21 of 30 act are left", |_| {}, Some(2100)),
        ("for two", |s| s.cluster.spec.nodes = 5, Some(1050)),
        (
            "the default of the operator",
            |s| {
                s.cluster.spec.budget.max_per_month = None;
                s.limits.per_cluster_default = act(12);
            },
            Some(300),
        ),
        ("what others leave", |s| s.limits.others = act(19), Some(200)),
        ("others leave nothing", |s| s.limits.others = act(21), None),
        ("others have more than all", |s| s.limits.others = act(99), None),
        (
            "the limit of a node",
            |s| s.cluster.spec.placement.max_price = Some("4act".parse().unwrap()),
            Some(400),
        ),
        (
            "all is spent",
            |s| s.cluster.spec.budget.max_per_month = Some("9act".parse().unwrap()),
            None,
        ),
        (
            "more is spent than may be",
            |s| s.cluster.spec.budget.max_per_month = Some("5act".parse().unwrap()),
            None,
        ),
    ];
    for (what, edit, expected) in rows {
        assert_eq!(share(edit), expected, "{what}");
    }
}

/// An endpoint may report anything.
#[test]
fn the_block_time_is_believed_within_bounds() {
    for (reported, counted) in
        [(6_000, 6_000), (200, 200), (60_000, 6_000), (0, 100), (100, 100), (99, 100)]
    {
        let mut scene = Scene::whole();
        scene.chain().block_ms = reported;
        let all = PricePerBlock(price(3).0 * 3);
        assert_eq!(committed_per_month(&scene), all.per_month(counted), "{reported} ms");
    }
    let mut unread = Scene::whole();
    unread.inventory.chain.value = None;
    assert_eq!(committed_per_month(&unread), act(9));
}

#[test]
fn one_that_was_given_up_counts_until_it_is_closed() {
    let gone = |s: &mut Scene| {
        s.cluster.spec.budget.max_per_month = Some("12act".parse().unwrap());
        s.incarnation(2).condemned = condemned(5);
        s.incarnation(2).membership = Membership::Joined;
        s.incarnation(2).reserved = ago(600);
    };
    // Nodes 2 and 3 are missing, and what node 2 cost is not there to be spent again yet.
    assert_eq!(share(gone), Some(150));
    assert_eq!(
        share(|s| {
            gone(s);
            s.deployment(2).active = false;
        }),
        Some(300)
    );
}

/// The bid that was chosen for node 2 is withdrawn in the very plan that reserves another node.
#[test]
fn a_bid_that_is_withdrawn_leaves_the_budget_whole() {
    let mut scene = Scene::whole();
    scene.chain().deployments.insert(102, deployment(&name(2), 102));
    scene.inventory.nodes.remove(&name(2));
    let own = scene.incarnation(2);
    (own.membership, own.device, own.max_price) = (Membership::Expected, None, price(21));
    own.reserved = ago(5);
    scene.cluster.spec.nodes = 4;
    scene.inventory.id_pool.suffixes = vec!["aaaa".into()];
    let plan = scene.plan(NOW);
    assert_eq!(plan.record.incarnations[&name(2)].lease, None);
    let promised = per_month(&scene.inventory, committed(&scene.inventory, &plan.record));
    assert!(plan.record.incarnations.contains_key(&name(3)) && promised <= act(30), "{promised}");
}

/// Deposits of three new nodes, by number.
fn deposits(edit: impl FnOnce(&mut Scene)) -> Vec<Uact> {
    let mut scene = Scene::new(THREE);
    edit(&mut scene);
    scene.record = scene.plan(NOW).record;
    let plan = scene.plan(NOW);
    let deposit = |e: &Effect| match e {
        Effect::CreateDeployment { incarnation, deposit } => {
            Some((incarnation.ordinal()?, *deposit))
        }
        _ => None,
    };
    let mut all: Vec<_> = plan.steps.iter().filter_map(|s| deposit(&s.effect)).collect();
    all.sort_unstable();
    all.into_iter().map(|(_, deposit)| deposit).collect()
}

/// A deposit pays for the low mark and a margin at the dearest price, and nodes do not end together.
#[test]
fn a_deposit_is_the_smallest_that_lasts_until_the_first_top_up() {
    // 10act a month each: a third of an ACT a day, for 3.75, 4 and 4.25 days.
    let all = deposits(|_| {});
    for (deposit, wanted) in all.iter().zip([1_250_000, 1_333_333, 1_416_667]) {
        assert!(deposit.0.abs_diff(wanted) < 100, "{all:?}");
    }
    assert_eq!(all.len(), 3);
    let edited: [(&str, Edit, u64); 6] = [
        (
            "the manifest names one",
            |s| s.cluster.spec.budget.deposit = Some("2act".parse().unwrap()),
            2_000_000,
        ),
        (
            "a price below",
            |s| s.cluster.spec.placement.max_price = Some("6act".parse().unwrap()),
            750_000,
        ),
        ("never below the chain's", |s| s.chain().min_deposit = Uact(3_000_000), 3_000_000),
        (
            "nor where the manifest names less",
            |s| {
                s.cluster.spec.budget.deposit = Some("2act".parse().unwrap());
                s.chain().min_deposit = Uact(3_000_000);
            },
            3_000_000,
        ),
        (
            "a longer runway",
            |s| {
                let [low, target] = ["6d", "20d"].map(|t| t.parse().unwrap());
                s.cluster.spec.budget.runway = Some(Runway { low, target });
            },
            2_500_000,
        ),
        ("shorter blocks cost as much a day", |s| s.chain().block_ms = 3_000, 1_250_000),
    ];
    for (what, edit, wanted) in edited {
        let first = deposits(edit)[0].0;
        assert!(first.abs_diff(wanted) < 100, "{what}: {first}");
    }
}

/// What others asked of late for such a node tells what it will cost: twice that is enough, and
/// whatever bid is taken is paid for long enough to fill the escrow.
#[test]
fn a_deposit_follows_the_prices_of_late() {
    let asked = |scene: &Scene| resources_asked(&scene.cluster.spec);
    let seen = |scene: &mut Scene, prices: &[(u64, u64)]| {
        let asked = asked(scene);
        let known = (0..).zip(prices).map(|(n, (days, month))| {
            let at = UnixMs(NOW - days * 24 * 3600 * 1000);
            let price = SeenPrice { price: PricePerBlock(1), month: act(*month), at };
            let prices = [(asked.clone(), price)].into();
            (format!("akash1p{n}"), Experience { prices, ..Experience::default() })
        });
        scene.inventory.experience = Arc::new(known.collect());
    };
    // 200act a month each at most: 25act for 3.75 days.
    let rich: Edit = |s| {
        s.cluster.spec.budget.max_per_month = Some("600act".parse().unwrap());
        (s.limits.global, s.chain().balance) = (act(600), act(900));
    };
    let rows: [(&str, &[(u64, u64)], u64); 5] = [
        ("nothing is known", &[], 25_000_000),
        ("twice the dearest of late", &[(0, 3), (29, 16)], 4_000_000),
        ("never less than six hours of the dearest bid", &[(0, 3)], 1_666_667),
        ("what was asked long ago does not count", &[(30, 3)], 25_000_000),
        ("never more than the order", &[(0, 150)], 25_000_000),
    ];
    for (what, prices, wanted) in rows {
        let first = deposits(|s| {
            rich(s);
            seen(s, prices);
        })[0];
        assert!(first.0.abs_diff(wanted) < 100, "{what}: {first}");
    }
    let other = deposits(|s| {
        rich(s);
        seen(s, &[(0, 3)]);
        s.cluster.spec.resources.memory = "2Gi".parse().unwrap();
    });
    assert!(other[0].0.abs_diff(25_000_000) < 100, "other resources: {other:?}");
}

/// What was reserved while the chain asked for less waits for the money, those with higher numbers
/// longest; nothing of it is tried in vain.
#[test]
fn a_reserved_node_whose_deposit_was_raised_waits_for_it() {
    let mut scene = Scene::new(THREE);
    scene.record = scene.plan(NOW).record;
    let asked = |scene: &Scene| {
        let plan = scene.plan(NOW);
        let creates = plan.steps.iter().filter_map(|s| match &s.effect {
            Effect::CreateDeployment { incarnation, deposit } => {
                Some((incarnation.ordinal()?, deposit.0))
            }
            _ => None,
        });
        let mut creates: Vec<_> = creates.collect();
        creates.sort_unstable();
        (creates, plan)
    };
    scene.chain().min_deposit = Uact(20_000_000);
    let (creates, plan) = asked(&scene);
    assert_eq!(creates, [(0, 20_000_000), (1, 20_000_000)], "50act are there");
    let funded = plan.status.condition(ConditionType::Funded).expect("it is told");
    assert_eq!((funded.status, funded.reason), (ConditionStatus::False, Reason::WalletBalanceLow));
    for words in
        ["holds 50act", "cache-2-aaaa, which are reserved, need 20act", "20act or more each"]
    {
        assert!(funded.message.contains(words), "{words} in {}", funded.message);
    }
    assert_eq!(given_up(&scene, &plan), [], "the reservation stays");
    // A transaction that is on its way is paid first.
    let dseqs: Vec<_> = scene.record.incarnations.values().map(|i| (i.ordinal, i.dseq)).collect();
    let last = dseqs.iter().find(|(ordinal, _)| *ordinal == 2).expect("reserved").1;
    scene.inventory.pending.insert(last);
    assert_eq!(asked(&scene).0, [(0, 20_000_000)]);
    scene.inventory.pending.clear();
    scene.chain().balance = Uact(60_000_000);
    let (creates, plan) = asked(&scene);
    assert_eq!(creates.len(), 3);
    assert_ne!(degraded(&plan).0, Reason::WalletBalanceLow);
}
