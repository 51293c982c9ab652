//! How long the wallet does, and that nothing is bought whose fees cannot be paid: the rules of
//! `plan/wallet.rs`, `plan/fees.rs` and `plan/outlook.rs`.

use std::time::Duration;

use akash_redis::api::conditions::{ConditionStatus, ConditionType, Reason};
use akash_redis::api::events::EventReason;
use akash_redis::api::types::Runway;
use akash_redis::model::funds::{Funds, Grant, GrantTerms};
use akash_redis::model::money::Uact;
use akash_redis::model::step::Effect;
use akash_redis::model::time::UnixMs;
use akash_redis::plan::{GasPrice, Plan, outlook};

use crate::scene::{BLOCK_MS, NOW, Scene, THREE, degraded, has_event};

const PRICE: GasPrice = GasPrice(25_000);
const DAY_MS: u64 = 24 * 3600 * 1000;
/// What a node of the scene costs a day, in uact: 3act are 30 days.
const A_DAY_COSTS: u64 = 100_000;

fn condition(plan: &Plan, kind: ConditionType) -> (ConditionStatus, Reason, String) {
    let found = plan.status.conditions.iter().find(|c| c.kind == kind).expect("there is one");
    (found.status, found.reason, found.message.clone())
}

/// Whole, and the wallet can fill nothing after so many days.
fn ends_in(days: f64) -> Scene {
    let mut scene = Scene::whole();
    let ms = u64::try_from(Duration::from_secs_f64(days * 86_400.0).as_millis()).unwrap();
    scene.inventory.wallet.refills_end = Some(UnixMs(NOW + ms));
    (scene.inventory.wallet.leases, scene.inventory.wallet.per_month) = (3, Uact(9_000_000));
    scene
}

#[test]
fn the_condition_says_until_when_and_what_to_do() {
    let runway = |scene: &Scene| condition(&scene.plan(NOW), ConditionType::WalletRunway);
    let (status, reason, _) = runway(&Scene::whole());
    assert_eq!((status, reason), (ConditionStatus::True, Reason::WalletFunded));
    assert_eq!(runway(&ends_in(14.1)).1, Reason::WalletFunded);
    let (status, reason, message) = runway(&ends_in(13.9));
    assert_eq!((status, reason), (ConditionStatus::False, Reason::WalletRunwayLow));
    for words in ["for want of ACT", "50act are there", "9act per month", "akash-redis wallet mint"]
    {
        assert!(message.contains(words), "{words} in {message}");
    }
    // The first end counts, and the treasury is named where there is one.
    let mut scene = ends_in(13.0);
    scene.inventory.wallet.fees_end = Some(UnixMs(NOW + 2 * DAY_MS));
    assert!(runway(&scene).2.contains("for want of AKT for fees"));
    let mut scene = ends_in(13.0);
    let granter = "akash1treasury".to_owned();
    scene.chain().funds.treasury = Some(Grant { granter, ..Grant::default() });
    assert!(runway(&scene).2.contains("fund akash1treasury and renew its grant"));
    // What is on its way is not asked for once more.
    let mut scene = ends_in(13.0);
    scene.inventory.wallet.minting = true;
    let message = runway(&scene).2;
    assert!(message.contains("ACT is being minted") && !message.contains("--max-akt"), "{message}");
    scene.inventory.wallet.fees_end = Some(UnixMs(NOW + 2 * DAY_MS));
    assert!(runway(&scene).2.contains("send AKT"), "ACT pays no fees");
    let mut away = ends_in(1.0);
    away.inventory.chain.error = Some("away".into());
    assert_eq!(runway(&away).0, ConditionStatus::Unknown);
}

#[test]
fn each_mark_is_told_once_and_again_after_the_wallet_was_funded() {
    let mut told = None;
    let mut warned = Vec::new();
    // Days left, reading by reading; dates differ a little each time.
    for days in [
        20.0, 14.2, 13.9, 14.1, 13.8, 7.1, 6.9, 7.2, 6.8, 2.9, 0.9, 1.1, 0.0, 30.0, 13.0, 6.0, 9.0,
        6.5,
    ] {
        let mut scene = ends_in(days);
        scene.record.runway_told = told;
        let plan = scene.plan(NOW);
        if has_event(&plan, EventReason::RunwayLow) {
            warned.push(days);
        }
        told = plan.record.runway_told;
        // After a restart the record still knows.
        scene.record = plan.record;
        assert!(!has_event(&scene.plan(NOW), EventReason::RunwayLow), "{days} is told twice");
    }
    assert_eq!(warned, [13.9, 6.9, 2.9, 0.9, 13.0, 6.0, 6.5]);
    let mut deleted = ends_in(1.0);
    deleted.delete();
    assert!(!has_event(&deleted.plan(NOW), EventReason::RunwayLow));
}

/// It is one wallet: the cluster that tells a mark first tells it for all.
#[test]
fn what_another_cluster_told_is_only_remembered() {
    for (days, others, told) in [
        (6.9, None, true),
        (6.9, Some(14), true),
        (6.9, Some(7), false),
        (6.9, Some(3), false),
        (0.5, Some(3), true),
    ] {
        let mut scene = ends_in(days);
        scene.inventory.wallet_told = others;
        let plan = scene.plan(NOW);
        assert_eq!(has_event(&plan, EventReason::RunwayLow), told, "{days} after {others:?}");
        assert!(plan.record.runway_told.is_some(), "it is not told once the other one is gone");
    }
}

/// What the scene's wallet with three leases is ahead of.
fn ahead(edit: impl FnOnce(&mut Scene)) -> (Option<u64>, Option<u64>) {
    let mut scene = Scene::whole();
    for n in 0..3 {
        scene.deployment(n).escrow.blocks_left = Some(10 * DAY_MS / BLOCK_MS);
    }
    edit(&mut scene);
    let chain = scene.chain().clone();
    let ours = chain.deployments.values().map(|d| (d, Runway::DEFAULT));
    let found = outlook(&chain, ours, PRICE);
    let days = |end: Option<UnixMs>| end.map(|end| end.0.abs_diff(NOW) / 3_600_000);
    (days(found.refills_end), days(found.fees_end))
}

/// Three nodes whose escrows pay for 10 days are filled from the 7th day on, each 11 days for 11.
#[test]
fn the_last_filling_is_foreseen_to_the_hour() {
    let hours = |balance: u64| ahead(|s| s.chain().balance = Uact(balance)).0;
    let filling = 11 * A_DAY_COSTS;
    // The first fillings come together, on the 7th day.
    assert_eq!(hours(3 * filling - 100), Some(7 * 24));
    assert_eq!(hours(3 * filling + 100), Some(18 * 24));
    assert_eq!(hours(6 * filling + 100), Some(29 * 24));
    // Whoever is below the mark already is filled now, or cannot be.
    let poor = ahead(|s| {
        s.deployment(1).escrow.blocks_left = Some(DAY_MS / BLOCK_MS);
        s.chain().balance = Uact(12 * A_DAY_COSTS);
    });
    assert_eq!(poor.0, Some(0));
    assert_eq!(hours(u64::MAX), None, "further than anybody plans");
    assert_eq!(ahead(|s| s.chain().deployments.clear()), (None, None), "nothing runs");
}

#[test]
fn grants_and_fees_end_too() {
    let grant = |expires| Grant {
        granter: "akash1t".into(),
        holds: 9,
        terms: Some(GrantTerms { expires: Some(UnixMs(expires)), ..GrantTerms::default() }),
    };
    let found = ahead(|s| {
        s.chain().balance = Uact(u64::MAX);
        s.chain().funds = Funds {
            treasury: Some(grant(NOW + 5 * DAY_MS)),
            fee_grant: Some(grant(NOW + 4 * DAY_MS)),
            ..Funds::default()
        };
    });
    assert_eq!(found, (Some(5 * 24), Some(4 * 24)));
    // A close of each node is put aside; then three top-ups on the 7th day and three on the 18th.
    let (close, top_up) = (17_500, 3_125);
    for (fees, hours) in [
        (3 * close + 2 * top_up, 7 * 24),
        (3 * close + 3 * top_up, 18 * 24),
        (3 * close - 1, 7 * 24),
    ] {
        assert_eq!(ahead(|s| s.chain().fee_balance = fees).1, Some(hours), "{fees}uakt");
    }
}

fn creates(plan: &Plan) -> usize {
    plan.steps.iter().filter(|s| matches!(s.effect, Effect::CreateDeployment { .. })).count()
}

#[test]
fn nothing_is_bought_whose_fees_cannot_be_paid() {
    let life = PRICE.of_a_node();
    let with = |fees: u64| {
        let mut scene = Scene::new(THREE);
        scene.chain().fee_balance = fees;
        let plan = scene.plan(NOW);
        (plan.record.incarnations.len(), plan)
    };
    for (fees, bought) in [(0, 0), (3 * life - 1, 0), (3 * life, 3)] {
        let (reserved, plan) = with(fees);
        assert_eq!(reserved, bought, "with {fees}uakt");
        let low = degraded(&plan).0 == Reason::FeeBalanceLow;
        assert_eq!(low, bought == 0, "{:?}", degraded(&plan));
        if low {
            let funded = condition(&plan, ConditionType::Funded);
            assert_eq!((funded.0, funded.1), (ConditionStatus::False, Reason::FeeBalanceLow));
            let runway = condition(&plan, ConditionType::WalletRunway);
            assert_eq!((runway.0, runway.1), (ConditionStatus::False, Reason::FeeBalanceLow));
        }
    }
    let (_, plan) = with(0);
    let message = degraded(&plan).1;
    for words in ["holds 0akt for fees", "send it AKT"] {
        assert!(message.contains(words), "{words} in {message}");
    }
    // What was reserved while there were fees is not created without.
    let mut scene = Scene::new(THREE);
    scene.record = scene.plan(NOW).record;
    assert_eq!(creates(&scene.plan(NOW)), 3);
    scene.chain().fee_balance = 0;
    let plan = scene.plan(NOW);
    assert_eq!((creates(&plan), degraded(&plan).0), (0, Reason::FeeBalanceLow));
}

#[test]
fn a_fee_grant_that_is_gone_is_named() {
    let mut scene = Scene::whole();
    scene.chain().fee_balance = 0;
    let granter = "akash1treasury".to_owned();
    scene.chain().funds.fee_grant = Some(Grant { granter, holds: 9_000_000, terms: None });
    let (reason, message) = degraded(&scene.plan(NOW));
    assert_eq!(reason, Reason::FeeBalanceLow);
    for words in ["akash1treasury", "has made no such grant", "renew the fee grant"] {
        assert!(message.contains(words), "{words} in {message}");
    }
}

/// Nodes that run and are paid for are no reason to complain while their fees are there.
#[test]
fn what_runs_needs_the_fees_of_a_close_and_a_top_up() {
    let (close, top_up) = (17_500, 3_125);
    for (fees, low) in [(3 * (close + top_up), false), (3 * (close + top_up) - 1, true)] {
        let mut scene = Scene::whole();
        scene.chain().fee_balance = fees;
        assert_eq!(degraded(&scene.plan(NOW)).0 == Reason::FeeBalanceLow, low, "{fees}uakt");
    }
}
