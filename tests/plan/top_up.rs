//! Escrows are filled before they run dry: the rules of `plan/top_up.rs`.

use akash_redis::api::conditions::Reason;
use akash_redis::api::types::Runway;
use akash_redis::model::incarnation::TopUp;
use akash_redis::model::money::Uact;
use akash_redis::model::step::Effect;
use akash_redis::model::time::UnixMs;
use akash_redis::plan::Plan;

use crate::scene::{BLOCK_MS, NOW, Scene, ago, degraded, name};

type Edit = fn(&mut Scene);

const A_DAY: u64 = 24 * 3600 * 1000 / BLOCK_MS;
/// What a node of the scene costs a day, in uact: 3act are 30 days.
const A_DAY_COSTS: u64 = 100_000;

/// Whole, but that the escrow of node `n` pays for so many blocks only.
fn paid_for(n: u32, blocks: u64) -> Scene {
    let mut scene = Scene::whole();
    scene.chain().balance = Uact(100_000_000);
    scene.deployment(n).escrow.blocks_left = Some(blocks);
    scene
}

/// What is paid into the escrow of each node.
fn paid(plan: &Plan) -> Vec<(u32, u64)> {
    let amount = |e: &Effect| match e {
        Effect::TopUp { incarnation, amount, .. } => Some((incarnation.ordinal()?, amount.0)),
        _ => None,
    };
    plan.steps.iter().filter_map(|s| amount(&s.effect)).collect()
}

#[test]
fn below_the_low_mark_it_is_filled_to_the_target() {
    assert_eq!(paid(&paid_for(0, 3 * A_DAY).plan(NOW)), []);
    let plan = paid_for(0, 3 * A_DAY - 1).plan(NOW);
    let [(0, amount)] = paid(&plan)[..] else { panic!("{:?}", plan.steps) };
    let eleven_days = 11 * A_DAY_COSTS;
    assert!((eleven_days..eleven_days + 20).contains(&amount), "{amount}");
    let announced = TopUp { at: UnixMs(NOW), amount: Uact(amount), times: 1 };
    assert_eq!(plan.record.incarnations[&name(0)].top_up, Some(announced));
    // Nodes that are filled together do not end together: a sixth of eleven days lies between two.
    let mut scene = paid_for(0, 0);
    (1..3).for_each(|n| scene.deployment(n).escrow.blocks_left = Some(0));
    let mut all = paid(&scene.plan(NOW));
    all.sort_unstable();
    for (n, (_, amount)) in (0..).zip(&all) {
        let wanted = 14 * A_DAY_COSTS + n * 11 * A_DAY_COSTS / 6;
        assert!(amount.abs_diff(wanted) < 20, "{all:?}");
    }
    // The manifest's own word counts.
    let mut scene = paid_for(0, 9 * A_DAY);
    let runway = Runway { low: "10d".parse().unwrap(), target: "20d".parse().unwrap() };
    scene.cluster.spec.budget.runway = Some(runway);
    let [(0, amount)] = paid(&scene.plan(NOW))[..] else { panic!("it is below 10 days") };
    assert!(amount.abs_diff(11 * A_DAY_COSTS) < 20, "{amount}");
}

#[test]
fn only_what_is_ours_runs_and_is_known_is_filled() {
    let rows: [(&str, Edit, bool); 11] = [
        ("it runs dry", |_| {}, true),
        ("the cluster is paused", |s| s.cluster.spec.paused = true, true),
        ("it was given up", |s| s.give_up(2, 5), false),
        ("the cluster is deleted", |s| s.delete(), false),
        ("a transaction may still land", |s| s.inventory.pending.extend([102]), false),
        ("a manifest is on its way", |s| s.inventory.busy.extend([name(2)]), false),
        ("the chain is away", |s| s.inventory.chain.error = Some("x".into()), false),
        ("its newest block is old", |s| s.chain().block_time = ago(301), false),
        ("it is overdrawn", |s| s.deployment(2).escrow.open = false, false),
        ("nothing is paid", |s| s.deployment(2).escrow.blocks_left = None, false),
        ("it is another's", |s| s.deployment(2).group_name = "another's".into(), false),
    ];
    for (what, edit, filled) in rows {
        let mut scene = paid_for(2, 0);
        edit(&mut scene);
        assert_eq!(!paid(&scene.plan(NOW)).is_empty(), filled, "{what}");
    }
}

#[test]
fn what_did_not_help_is_tried_ever_later_and_told() {
    let tried = |times, minutes: u64, blocks| {
        let mut scene = paid_for(0, blocks);
        let at = UnixMs(NOW - minutes * 60_000);
        scene.incarnation(0).top_up = Some(TopUp { at, amount: Uact(7), times });
        scene.plan(NOW)
    };
    for (times, minutes, again) in [
        (1, 9, false),
        (1, 10, true),
        (2, 19, false),
        (2, 20, true),
        (6, 319, false),
        (6, 320, true),
        (9, 359, false),
        (9, 360, true),
    ] {
        let plan = tried(times, minutes, 0);
        assert_eq!(!paid(&plan).is_empty(), again, "{times} times, {minutes} min ago");
        let now = plan.record.incarnations[&name(0)].top_up.as_ref().unwrap().times;
        assert_eq!(now, times + u32::from(again));
    }
    assert_eq!(degraded(&tried(2, 5, 0)).0, Reason::AsExpected);
    let (reason, message) = degraded(&tried(3, 5, 600));
    assert_eq!(reason, Reason::TopUpStalled);
    assert!(message.contains("filled 3 times") && message.contains("pays for 1 h"), "{message}");
    assert_eq!(tried(3, 5, 3 * A_DAY).record.incarnations[&name(0)].top_up, None, "it helped");
}

#[test]
fn a_wallet_that_does_not_do_is_shared_and_told() {
    let mut scene = paid_for(0, 0);
    scene.deployment(1).escrow.blocks_left = Some(2 * A_DAY);
    scene.deployment(2).escrow.blocks_left = Some(0);
    let with = |scene: &mut Scene, uact| {
        scene.chain().balance = Uact(uact);
        let plan = scene.plan(NOW);
        let mut all = paid(&plan);
        all.sort_unstable();
        (all, degraded(&plan).0)
    };
    // Equal parts, while nobody needs less than that.
    assert_eq!(
        with(&mut scene, 900_000),
        (vec![(0, 300_000), (1, 300_000), (2, 300_000)], Reason::WalletBalanceLow)
    );
    // Nodes 0 and 1 need no more than their part; node 2 gets what is left, to the last uact.
    let (all, reason) = with(&mut scene, 4_400_000);
    assert_eq!(all.iter().map(|(_, uact)| uact).sum::<u64>(), 4_400_000, "{all:?}");
    assert!(all[0].1.abs_diff(14 * A_DAY_COSTS) < 20, "{all:?}");
    assert_eq!(reason, Reason::WalletBalanceLow);
    let (all, reason) = with(&mut scene, 100_000_000);
    assert_eq!((all.len(), reason), (3, Reason::AsExpected));
    assert_eq!(with(&mut scene, 0), (vec![], Reason::WalletBalanceLow));
}
