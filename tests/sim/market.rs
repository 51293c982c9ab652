//! The market as it goes on: orders, providers that take leases back, and what is learnt of them.

use std::time::Duration;

use akash_redis::api::events::EventReason;
use akash_redis::store::{Events as _, ProviderExperience as _};

use crate::lifecycle::THREE;
use crate::world::World;

#[allow(dead_code)] // a part of the bench is used here
#[path = "../../benches/market/ready.rs"]
mod ready;

/// Three blocks are what the chain needs: one for the order, one for the bids, one for the lease.
#[tokio::test(start_paused = true)]
async fn bids_that_are_enough_are_not_waited_on() {
    let world = World::new(801, 6);
    world.start_operator().await;
    let began = world.clock.now();
    world.apply(THREE).await;
    world.until_ready("cache").await;
    let blocks: Vec<_> =
        world.chain.leased_at().into_iter().map(|(made, leased)| leased - made).collect();
    println!(
        "blocks from order to lease {blocks:?}, apply to Ready {:?}",
        world.clock.now().since(began)
    );
    assert_eq!(blocks.len(), 3);
    // Bids in the next block, a reading of the chain up to a tick later, the lease in the next one.
    assert!(blocks.iter().all(|blocks| *blocks <= 3), "{blocks:?}");
}

/// With fewer bids than are enough they are collected for `bid_window` from the block of the order,
/// while somebody could still bid.
#[tokio::test(start_paused = true)]
async fn few_bids_are_collected_for_their_time() {
    let world = World::new(802, 4);
    world.chain.provider(3, |p| p.silent = true);
    world.start_operator().await;
    world.apply(THREE).await;
    world.until_ready("cache").await;
    for (made, leased) in world.chain.leased_at() {
        let seconds = (leased - made) * 6;
        assert!((20..=36).contains(&seconds), "{seconds} s from order to lease");
    }
}

/// Where all providers that match have bid, nobody is waited for, however few they are; one that
/// matches no more is none of them.
#[tokio::test(start_paused = true)]
async fn nobody_is_waited_for_when_all_who_could_have_bid() {
    for (seed, providers, deny) in [(805, 3, None), (806, 4, Some(3))] {
        let world = World::new(seed, providers);
        let mut yaml = THREE.to_owned();
        if let Some(index) = deny {
            let mut denied = String::new();
            world.chain.provider(index, |p| p.address().clone_into(&mut denied));
            yaml = format!("{THREE}  placement: {{ providers: {{ deny: [{denied}] }} }}\n");
        }
        world.start_operator().await;
        world.apply(&yaml).await;
        world.until_ready("cache").await;
        let blocks: Vec<_> =
            world.chain.leased_at().into_iter().map(|(made, leased)| leased - made).collect();
        assert!(blocks.len() == 3 && blocks.iter().all(|n| *n <= 3), "seed {seed}: {blocks:?}");
    }
}

/// From `apply` to Ready it takes little longer than the chain and the provider need. The rest is
/// what is left to do: with blocks of half a second 1.2 s of it are twelve writes of this world's
/// store, which is slow, and 0.3 s a full sync. The aim is 1.5 there; one write more may come.
#[test]
fn a_cluster_is_ready_soon_after_the_chain_allows_it() {
    for (block_ms, most) in [(500, 1.55), (6000, 1.3)] {
        let (ready, world) = ready::apply_to_ready(Duration::from_millis(block_ms));
        println!("{ready:?}");
        assert!(ready.ratio <= most, "{ready:?}\n{}", world.fuse.trace.lines().join("\n"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_taken_back_is_left_with_all_its_data() {
    let world = World::new(803, 5);
    world.chain.every_provider(|p| p.notice = Some(3600));
    world.start_operator().await;
    world.apply(THREE).await;
    world.until_ready("cache").await;
    let master = world.master("cache").await;
    let dseq = world.stored("cache").await.record.incarnations[&master].dseq;
    world.chain.start_reclaim(dseq);
    let left = async || !world.stored("cache").await.record.incarnations.contains_key(&master);
    world.until("the master to be elsewhere", Duration::from_mins(20), left).await;
    world.until_ready("cache").await;
    assert_ne!(world.master("cache").await, master);
    assert!(world.chain.closed_by_owner(dseq), "we left, before its provider closed it");
    let told = world.store.events("cache").await.unwrap();
    let moved = EventReason::MoveStarted.to_string();
    assert!(told.iter().any(|e| e.reason == moved && e.message.contains("takes its lease back")));
    let completed = EventReason::SwitchoverCompleted.to_string();
    assert!(told.iter().any(|e| e.reason == completed), "no failover was needed");
    world.assert_nothing_lost("cache").await;
    world.assert_one_writer();
    assert_eq!((world.chain.creates(), world.witness.broken()), (4, vec![]));
    world.delete("cache").await;
    world.until_gone("cache").await;
    world.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn what_providers_did_is_kept() {
    let world = World::new(804, 5);
    world.start_operator().await;
    world.apply(THREE).await;
    world.until_ready("cache").await;
    let known = world.store.experience().await.unwrap();
    let sum = |of: fn(&akash_redis::model::experience::Experience) -> u32| {
        known.values().map(of).sum::<u32>()
    };
    assert_eq!((known.len(), sum(|e| e.won), sum(|e| e.started)), (5, 3, 3), "{known:?}");
    assert_eq!(sum(|e| e.bids), 15, "each order is counted once");
    let record = world.stored("cache").await.record;
    let replica = record
        .incarnations
        .iter()
        .find(|(n, _)| record.master.as_ref().is_some_and(|m| m.incarnation != **n));
    let (name, incarnation) = replica.expect("a replica");
    let provider = incarnation.lease.as_ref().expect("leased").id.provider.clone();
    world.chain.close_lease(incarnation.dseq);
    let gone = async || !world.stored("cache").await.record.incarnations.contains_key(name);
    world.until("the node to be replaced", Duration::from_mins(10), gone).await;
    world.until_ready("cache").await;
    // A process that begins anew knows it too.
    world.kill_operator().await;
    world.start_operator().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let known = world.store.experience().await.unwrap();
    assert_eq!((known[&provider].incidents, known[&provider].failed_starts), (1, 0));
    assert!(known[&provider].trouble > 0);
}
