//! Providers that do not bid, bid too much, are not wanted, change their minds or leave.

use std::time::Duration;

use akash_redis::api::events::EventReason;
use akash_redis::store::Events as _;

use super::{comes_up_and_goes, dseq_of, live, migrate, running, told};
use crate::lifecycle::THREE;
use crate::world::{Terms, World};

/// Milliseconds of a block.
const BLOCK_MS: i64 = 6000;

/// Times between the attempts at node 0, in milliseconds.
fn gaps(world: &World) -> Vec<i64> {
    let heights: Vec<_> = world
        .chain
        .creations()
        .into_iter()
        .filter(|(_, name)| name.contains("cache-0-"))
        .map(|(at, _)| at)
        .collect();
    heights.windows(2).map(|pair| (pair[1] - pair[0]) * BLOCK_MS).collect()
}

async fn attempts(world: &World, count: usize) {
    world.until("attempts", Duration::from_hours(4), async || gaps(world).len() >= count).await;
}

/// Attempts come at growing intervals, each one is closed and refunded.
async fn is_tried_again_with_growing_pauses(world: &World, times: usize) {
    attempts(world, times).await;
    let gaps = gaps(world);
    // The first pause is 10 s, each one twice the one before; a block more or less is chance.
    let grows = |pair: &[i64]| pair[1] >= pair[0] - BLOCK_MS;
    let total = 10_000 * ((1 << (times - 1)) - 1) - 2 * BLOCK_MS;
    assert!(
        gaps.windows(2).all(grows) && gaps[times - 1] - gaps[0] >= total,
        "pauses do not grow: {gaps:?}"
    );
    assert!(world.chain.active_deployments().len() <= 3, "failed attempts stay open");
    world.until("the refund", Duration::from_mins(30), async || world.chain.in_escrow() == 0).await;
    world.chain.assert_coins_are_conserved(world.seed);
    assert_eq!(world.tailnet.lock().unwrap().usable_keys(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_budget_below_any_bid() {
    let world = World::new(100, 4);
    world.start_operator().await;
    // A third of 2act a month is 1.5uact a block; the cheapest provider wants 3.
    world.apply(&THREE.replace("30act", "2act")).await;
    told(&world, "cache", "Degraded", "True", &["nobody bid at 0.6", "raise budget.maxPerMonth"])
        .await;
    is_tried_again_with_growing_pauses(&world, 6).await;
    world.edit("cache", |c| c.spec.budget.max_per_month = Some("30act".parse().unwrap())).await;
    comes_up_and_goes(&world, "cache").await;
}

#[tokio::test(start_paused = true)]
async fn nobody_bids() {
    let world = World::new(101, 4);
    world.chain.every_provider(|p| p.silent = true);
    world.start_operator().await;
    world.apply(THREE).await;
    told(&world, "cache", "Progressing", "True", &["a bid for cache-"]).await;
    told(&world, "cache", "Degraded", "True", &["nobody bid at 10act per month or less"]).await;
    is_tried_again_with_growing_pauses(&world, 3).await;
    world.chain.every_provider(|p| p.silent = false);
    comes_up_and_goes(&world, "cache").await;
}

#[tokio::test(start_paused = true)]
async fn every_bid_is_denied_by_the_manifest() {
    let world = World::new(102, 3);
    let mut all = Vec::new();
    world.chain.every_provider(|p| all.push(p.address().to_owned()));
    let deny = format!("{THREE}  placement: {{ providers: {{ deny: [{}] }} }}\n", all.join(", "));
    world.start_operator().await;
    world.apply(&deny).await;
    told(&world, "cache", "Degraded", "True", &["placement.providers.deny", &all[0]]).await;
    is_tried_again_with_growing_pauses(&world, 3).await;
    assert!(world.chain.providers_in_use().is_empty(), "a denied provider was leased");
    world.edit("cache", |c| c.spec.placement.providers.deny.clear()).await;
    comes_up_and_goes(&world, "cache").await;
}

#[tokio::test(start_paused = true)]
async fn a_bid_vanishes_between_choice_and_lease() {
    let world = World::new(103, 4);
    world.chain.fault(|f| f.vanishing = 2);
    world.start_operator().await;
    world.apply(THREE).await;
    world.until_ready("cache").await;
    let events = world.store.events("cache").await.unwrap();
    assert!(
        events.iter().any(|e| e.reason == EventReason::EffectFailed.to_string()
            && e.message.contains("lease from")),
        "{events:?}"
    );
    comes_up_and_goes(&world, "cache").await;
}

#[tokio::test(start_paused = true)]
async fn the_provider_of_a_replica_closes_its_lease() {
    let world = running(Terms::new(104, 5)).await;
    let nodes = live(&world).await;
    world.chain.close_lease(dseq_of(&world, &nodes[1]).await);
    world
        .until("a replacement", Duration::from_mins(20), async || {
            world.ready("cache").await && !live(&world).await.contains(&nodes[1])
        })
        .await;
    let events = world.store.events("cache").await.unwrap();
    assert!(
        events.iter().any(|e| e.reason == EventReason::NodeLost.to_string()
            && e.message.contains("by the provider: unstable")),
        "{events:?}"
    );
    assert_eq!(world.master("cache").await, nodes[0]);
    assert_eq!(world.lost_writes("cache").await, 0);
    comes_up_and_goes(&world, "cache").await;
}

#[tokio::test(start_paused = true)]
async fn the_provider_of_the_master_closes_its_lease() {
    let world = running(Terms::new(105, 5)).await;
    let nodes = live(&world).await;
    world.chain.close_lease(dseq_of(&world, &nodes[0]).await);
    world
        .until("a replacement", Duration::from_mins(20), async || {
            world.ready("cache").await && !live(&world).await.contains(&nodes[0])
        })
        .await;
    assert!(nodes[1..].contains(&world.master("cache").await), "the new master had no data");
    let written = world.written();
    world.until("writes", Duration::from_mins(1), async || world.written() > written + 20).await;
    assert_eq!(world.chain.active_deployments().len(), 3);
    comes_up_and_goes(&world, "cache").await;
}

#[tokio::test(start_paused = true)]
async fn a_migration_without_a_provider_to_go_to_changes_nothing() {
    let world = running(Terms::new(106, 3)).await;
    let nodes = live(&world).await;
    migrate(&world, &nodes[1]).await;
    told(&world, "cache", "Degraded", "True", &["it runs another node of this cluster"]).await;
    assert_eq!(live(&world).await.len(), 4, "the node left before its successor was there");
    assert!(world.ready("cache").await, "three nodes serve all the time");
    // The wish is taken back.
    world.edit("cache", |c| c.metadata.annotations.clear()).await;
    world
        .until("one too many to go", Duration::from_mins(30), async || {
            world.chain.active_deployments().len() == 3
        })
        .await;
    assert!(live(&world).await.contains(&nodes[1]));
    comes_up_and_goes(&world, "cache").await;
}
