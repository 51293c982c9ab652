//! The faults that `akash-redis devnet fault` makes, before the operator itself: a cluster comes up
//! beside each, goes on through it, and leaves nothing.

use std::sync::Arc;
use std::time::Duration;

use akash_redis::api::events::EventReason;
use akash_redis::devnet::provider::faults::ProviderFault;
use akash_redis::store::Events as _;

use super::{LONG, comes_up_and_goes, dseq_of, live, running, told};
use crate::lifecycle::THREE;
use crate::world::chain::Faults;
use crate::world::node::Node;
use crate::world::{Terms, World};

/// A market whose cheapest provider has this fault; the cluster comes up with the others and goes.
async fn comes_up_without_the_cheapest(seed: u64, fault: ProviderFault) -> Arc<World> {
    let world = World::new(seed, 5);
    let mut cheapest = String::new();
    world.chain.provider(0, |p| p.address().clone_into(&mut cheapest));
    world.gateway.fault(&cheapest, fault);
    world.start_operator().await;
    world.apply(THREE).await;
    world.until("Ready", LONG, async || world.ready("cache").await).await;
    assert!(!world.chain.providers_in_use().contains(&cheapest), "{fault:?}: it has a node");
    assert!(world.chain.creates() >= 4, "{fault:?}: it was never tried");
    comes_up_and_goes(&world, "cache").await;
    world
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_never_deploys_is_left() {
    comes_up_without_the_cheapest(8801, ProviderFault::NeverDeploys).await;
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_says_ready_and_runs_nothing_is_left() {
    comes_up_without_the_cheapest(8802, ProviderFault::LiesReady).await;
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_serves_another_manifest_is_left() {
    comes_up_without_the_cheapest(8803, ProviderFault::OtherManifest).await;
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_refuses_everything_is_left() {
    for (seed, status) in [(8804, 404), (8805, 422), (8806, 500), (8807, 503)] {
        comes_up_without_the_cheapest(seed, ProviderFault::GatewayStatus(status)).await;
    }
}

/// What providers say of a node whose agent answers decides nothing.
#[tokio::test(start_paused = true)]
async fn a_running_node_is_not_given_up_for_what_its_provider_says() {
    let world = running(Terms::new(8808, 5)).await;
    for provider in world.chain.providers_in_use() {
        world.gateway.fault(&provider, ProviderFault::LiesGone);
    }
    world.nodes.move_every(Duration::from_secs(2));
    tokio::time::sleep(Duration::from_mins(30)).await;
    assert!(world.ready("cache").await);
    assert_eq!(world.chain.creates(), 3, "a node was replaced");
    comes_up_and_goes(&world, "cache").await;
}

#[tokio::test(start_paused = true)]
async fn an_offer_of_less_than_was_asked_for_is_not_taken() {
    let world = World::new(8809, 5);
    let mut cheapest = String::new();
    world.chain.provider(0, |p| {
        p.address().clone_into(&mut cheapest);
        p.offers_less = true;
    });
    world.start_operator().await;
    world.apply(THREE).await;
    world.until_ready("cache").await;
    assert!(!world.chain.providers_in_use().contains(&cheapest));
    assert_eq!(world.chain.creates(), 3);
    comes_up_and_goes(&world, "cache").await;
}

/// A lease that its provider reclaims runs until the deadline; then it is replaced.
#[tokio::test(start_paused = true)]
async fn a_reclaimed_lease_is_replaced_and_nothing_is_lost() {
    let world = World::new(8810, 5);
    world.chain.every_provider(|p| p.notice = Some(3600));
    world.start_operator().await;
    world.apply(THREE).await;
    world.until_ready("cache").await;
    let replica = live(&world).await.remove(1);
    let dseq = dseq_of(&world, &replica).await;
    // An hour of moments is long.
    world.nodes.move_every(Duration::from_secs(2));
    world.chain.start_reclaim(dseq);
    world.until("the end of the lease", LONG, async || !world.chain.leased(dseq)).await;
    world
        .until("Ready", LONG, async || {
            world.ready("cache").await && !live(&world).await.contains(&replica)
        })
        .await;
    world.assert_nothing_lost("cache").await;
    comes_up_and_goes(&world, "cache").await;
}

/// Comes up while the chain has a fault, and goes while it has it.
async fn lives_with(seed: u64, fault: impl Fn(&mut Faults)) {
    let world = World::new(seed, 4);
    world.chain.fault(&fault);
    world.start_operator().await;
    world.apply(THREE).await;
    world.until("Ready", LONG, async || world.ready("cache").await).await;
    assert_eq!(world.chain.creates(), 3, "something was bought twice");
    world.chain.fault(&fault);
    comes_up_and_goes(&world, "cache").await;
}

#[tokio::test(start_paused = true)]
async fn transactions_that_overtake_each_other_buy_nothing_twice() {
    lives_with(8811, |f| f.reordered = true).await;
}

#[tokio::test(start_paused = true)]
async fn lost_answers_buy_nothing_twice() {
    lives_with(8812, |f| f.lost_answers = 12).await;
}

#[tokio::test(start_paused = true)]
async fn slow_blocks_only_take_longer() {
    lives_with(8813, |f| f.block = Some(Duration::from_secs(20))).await;
}

/// No block for ten minutes, in the middle of the purchase.
#[tokio::test(start_paused = true)]
async fn a_halt_in_the_middle_of_a_purchase_buys_nothing_twice() {
    let world = World::new(8814, 4);
    world.start_operator().await;
    world.apply(THREE).await;
    world.until("a deployment", LONG, async || world.chain.creates() > 0).await;
    world.chain.fault(|f| f.halted = true);
    tokio::time::sleep(Duration::from_mins(10)).await;
    world.chain.fault(|f| f.halted = false);
    world.until("Ready", LONG, async || world.ready("cache").await).await;
    assert!(world.chain.active_deployments().len() == 3, "one for each node");
    comes_up_and_goes(&world, "cache").await;
}

/// A price that jumped is not paid: what runs keeps its price, and what is bought new comes from
/// others, within the budget.
#[tokio::test(start_paused = true)]
async fn a_price_that_jumps_is_not_paid() {
    let world = running(Terms::new(8815, 6)).await;
    let mut dear = String::new();
    world.chain.provider(3, |p| {
        p.address().clone_into(&mut dear);
        p.price *= 1000;
    });
    let replica = live(&world).await.remove(1);
    let dseq = dseq_of(&world, &replica).await;
    world.chain.close_lease(dseq);
    world
        .until("the replacement", LONG, async || {
            world.ready("cache").await && !live(&world).await.contains(&replica)
        })
        .await;
    assert!(!world.chain.providers_in_use().contains(&dear));
    assert!(world.rate_per_month() <= 30_000_000);
    comes_up_and_goes(&world, "cache").await;
}

/// A deposit that governance raised is paid from then on.
#[tokio::test(start_paused = true)]
async fn a_raised_minimum_deposit_is_paid_from_then_on() {
    let world = running(Terms::new(8816, 5)).await;
    world.chain.set_min_deposit(7_000_000);
    let replica = live(&world).await.remove(1);
    let dseq = dseq_of(&world, &replica).await;
    world.chain.close_lease(dseq);
    world
        .until("the replacement", LONG, async || {
            world.ready("cache").await && !live(&world).await.contains(&replica)
        })
        .await;
    let mut deposits = Vec::new();
    for name in live(&world).await {
        deposits.push(world.chain.escrow_of(dseq_of(&world, &name).await));
    }
    let newest = deposits.iter().max().copied().unwrap_or_default();
    assert!((6_900_000..=7_000_000).contains(&newest), "{deposits:?}");
    // More than the wallet holds: nothing is created, and the sentence says so.
    world.chain.set_min_deposit(1_000_000_000);
    tokio::time::sleep(Duration::from_secs(30)).await;
    world.edit("cache", |c| c.spec.nodes = 4).await;
    told(&world, "cache", "Funded", "False", &["1000act", "nothing was created"]).await;
    world.chain.set_min_deposit(500_000);
    comes_up_and_goes(&world, "cache").await;
}

/// A node that was reserved before the deposit was raised waits for the money, and says so; it goes
/// on once the wallet can pay.
#[tokio::test(start_paused = true)]
async fn a_deposit_that_is_raised_after_the_reservation_is_asked_for() {
    let world = running(Terms::new(8817, 5)).await;
    world.chain.set_min_deposit(1_000_000_000);
    world.edit("cache", |c| c.spec.nodes = 4).await;
    world.until("the reservation", LONG, async || live(&world).await.len() == 4).await;
    told(&world, "cache", "Funded", "False", &["1000act", "which are reserved"]).await;
    // Nothing is tried in vain while it waits.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let failing = async || {
        let events = world.store.events("cache").await.unwrap();
        events.iter().filter(|e| e.reason == EventReason::EffectFailed.to_string()).count()
    };
    let failed = failing().await;
    world.nodes.move_every(Duration::from_secs(2));
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(failing().await, failed);
    assert_eq!(world.chain.active_deployments().len(), 3);
    told(&world, "cache", "Degraded", "True", &["fund the wallet"]).await;
    world.chain.set_min_deposit(500_000);
    comes_up_and_goes(&world, "cache").await;
}

/// A gateway that takes calls and answers none holds nothing up: others are leased from, and what
/// runs behind one goes on.
#[tokio::test(start_paused = true)]
async fn a_gateway_that_answers_nothing_is_left_and_holds_nothing_up() {
    comes_up_without_the_cheapest(8818, ProviderFault::GatewaySilent).await;
    let world = running(Terms::new(8819, 5)).await;
    let nodes = live(&world).await;
    for provider in world.chain.providers_in_use() {
        world.gateway.fault(&provider, ProviderFault::GatewaySilent);
    }
    world.nodes.with(&nodes[0], Node::kill_redis);
    let another = async || world.master("cache").await != nodes[0];
    world.until("another master", Duration::from_secs(30), another).await;
    world.until("Ready", LONG, async || world.ready("cache").await).await;
    assert_eq!(live(&world).await.len(), 3);
    assert_eq!(world.chain.creates(), 3, "a node was replaced for the silence of its gateway");
    world.assert_nothing_lost("cache").await;
    comes_up_and_goes(&world, "cache").await;
}

/// A container that dies and stays dead is replaced although its lease goes on, and the lease is not
/// paid any longer.
#[tokio::test(start_paused = true)]
async fn a_container_that_stays_dead_is_replaced_and_its_lease_closed() {
    for (seed, which) in [(8820, 0), (8821, 1)] {
        let world = running(Terms::new(seed, 5)).await;
        let off = live(&world).await.remove(which);
        let dseq = dseq_of(&world, &off).await;
        world.nodes.with(&off, |node| node.powered = false);
        world
            .until("the replacement", LONG, async || {
                world.ready("cache").await && !live(&world).await.contains(&off)
            })
            .await;
        world.until("the end of its lease", LONG, async || !world.chain.leased(dseq)).await;
        assert!(world.chain.closed_by_owner(dseq));
        assert_eq!(world.chain.active_deployments().len(), 3);
        world.assert_nothing_lost("cache").await;
        comes_up_and_goes(&world, "cache").await;
    }
}

/// A container that outlives its lease is no node of the cluster any more, whatever it says: another
/// one takes its place, and there is one master all the time.
#[tokio::test(start_paused = true)]
async fn a_container_that_outlives_its_lease_is_replaced() {
    for (seed, which) in [(8822, 0), (8823, 1)] {
        let world = running(Terms::new(seed, 5)).await;
        for provider in world.chain.providers_in_use() {
            world.gateway.fault(&provider, ProviderFault::KeepsRunning);
        }
        let lost = live(&world).await.remove(which);
        let dseq = dseq_of(&world, &lost).await;
        world.chain.close_lease(dseq);
        world
            .until("the replacement", LONG, async || {
                world.ready("cache").await && !live(&world).await.contains(&lost)
            })
            .await;
        assert_ne!(world.master("cache").await, lost);
        let gone = async || !world.stored("cache").await.record.incarnations.contains_key(&lost);
        world.until("it to be forgotten", LONG, gone).await;
        let known = world.tailnet.lock().unwrap().devices.len();
        assert_eq!(known, 3, "its device is still on the mesh");
        let written = world.written();
        world
            .until("writes", Duration::from_mins(1), async || world.written() > written + 20)
            .await;
        world.assert_nothing_lost("cache").await;
        world.assert_one_writer();
        comes_up_and_goes(&world, "cache").await;
    }
}
