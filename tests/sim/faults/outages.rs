//! Something outside is away: the operator waits, says so, and goes on when it is back.

use std::sync::Arc;
use std::time::Duration;

use akash_redis::api::annotations::CLOSE;
use akash_redis::api::conditions::{ConditionStatus, Reason};
use akash_redis::model::ids::IncarnationName;
use akash_redis::model::mesh::OwnMesh;
use akash_redis::model::record::Record;
use akash_redis::store::{Events as _, Leadership as _, Objects as _, Records as _};

use super::{LONG, comes_up_and_goes, goes, live, running, told, waits_for};
use crate::lifecycle::THREE;
use crate::world::node::Node;
use crate::world::{Terms, World};

/// Stays away for so long: longer than transactions live, shorter than a node has to join.
const OUTAGE: Duration = Duration::from_mins(3);

async fn bidding(seed: u64) -> Arc<World> {
    let world = World::new(seed, 5);
    world.start_operator().await;
    world.apply(THREE).await;
    world
        .until("a deployment", Duration::from_mins(2), async || {
            !world.chain.active_deployments().is_empty()
        })
        .await;
    world
}

#[tokio::test(start_paused = true)]
async fn the_chain_is_away_at_the_start() {
    let world = World::new(120, 4);
    world.chain.fault(|f| f.away = true);
    world.start_operator().await;
    world.apply(THREE).await;
    told(&world, "cache", "Funded", "Unknown", &["the chain does not answer"]).await;
    tokio::time::sleep(OUTAGE).await;
    assert_eq!(world.chain.creates(), 0);
    world.chain.fault(|f| f.away = false);
    comes_up_and_goes(&world, "cache").await;
    assert_eq!(world.chain.creates(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_chain_goes_away_in_the_middle() {
    // At different moments: nothing created, waiting for bids, leases on their way, manifests
    // delivered.
    let mut waited = 0;
    for (seed, after) in [(121, 0), (122, 6), (123, 20), (124, 26), (125, 32), (126, 40)] {
        let world = bidding(seed).await;
        tokio::time::sleep(Duration::from_secs(after)).await;
        world.chain.fault(|f| f.away = true);
        told(&world, "cache", "Funded", "Unknown", &["the chain does not answer"]).await;
        if live(&world).await.len() == 3 && !world.ready("cache").await {
            waits_for(&world, "cache", "the chain").await;
            waited += 1;
        }
        tokio::time::sleep(OUTAGE).await;
        world.chain.fault(|f| f.away = false);
        comes_up_and_goes(&world, "cache").await;
    }
    assert!(waited > 0, "a cluster that was neither empty nor whole was met {waited} times");
}

#[tokio::test(start_paused = true)]
async fn the_chain_is_away_while_the_master_dies() {
    let world = running(Terms::new(127, 5)).await;
    let old = world.master("cache").await;
    world.chain.fault(|f| f.away = true);
    tokio::time::sleep(Duration::from_mins(1)).await;
    world.nodes.with(&old, Node::kill_redis);
    world
        .until("another master", Duration::from_secs(30), async || {
            world.master("cache").await != old
        })
        .await;
    world.assert_one_writer();
    world.chain.fault(|f| f.away = false);
    comes_up_and_goes(&world, "cache").await;
}

#[tokio::test(start_paused = true)]
async fn the_gateway_of_a_chosen_provider_is_away() {
    let world = World::new(128, 4);
    let mut cheapest = String::new();
    world.chain.provider(0, |p| p.address().clone_into(&mut cheapest));
    world.gateway.away.lock().unwrap().insert(cheapest.clone());
    world.start_operator().await;
    world.apply(THREE).await;
    waits_for(&world, "cache", "the gateway of cache-").await;
    world.until("Ready", LONG, async || world.ready("cache").await).await;
    assert!(
        !world.chain.providers_in_use().contains(&cheapest),
        "a node waits for a provider that does not answer"
    );
    comes_up_and_goes(&world, "cache").await;
}

#[tokio::test(start_paused = true)]
async fn the_mesh_control_is_away_at_the_start() {
    let world = World::new(129, 5);
    world.tailnet.lock().unwrap().away = true;
    world.start_operator().await;
    world.apply(THREE).await;
    waits_for(&world, "cache", "the mesh control API, before anything is bought").await;
    told(&world, "cache", "Degraded", "True", &["nothing is bought", "sim"]).await;
    tokio::time::sleep(OUTAGE).await;
    assert_eq!(world.chain.creates(), 0, "a lease was bought that no node can join with");
    world.tailnet.lock().unwrap().away = false;
    comes_up_and_goes(&world, "cache").await;
}

#[tokio::test(start_paused = true)]
async fn an_oauth_client_that_was_revoked_is_told_and_nothing_is_bought_with_it() {
    let world = running(Terms::new(151, 5)).await;
    let nodes = live(&world).await;
    world.tailnet.lock().unwrap().refuses = true;
    told(
        &world,
        "cache",
        "Degraded",
        "True",
        &["the OAuth client is not valid", "make another OAuth client"],
    )
    .await;
    assert_eq!(super::condition(&world, "cache", "Degraded").await.reason, Reason::MeshApiRefused);
    assert_eq!(
        (live(&world).await, world.ready("cache").await),
        (nodes.clone(), true),
        "what runs goes on"
    );
    // A node dies meanwhile: its successor waits, and no provider is blamed.
    world.nodes.with(&nodes[1], |n| n.powered = false);
    tokio::time::sleep(Duration::from_mins(20)).await;
    assert_eq!(world.chain.creates(), 3, "leases were bought in vain");
    let blamed = world.stored("cache").await.record.failures;
    world.tailnet.lock().unwrap().refuses = false;
    world.until_ready("cache").await;
    assert!(blamed.values().all(|f| f.count == 0), "{blamed:?}");
    comes_up_and_goes(&world, "cache").await;
}

#[tokio::test(start_paused = true)]
async fn an_oauth_client_that_may_read_and_not_mint_is_found_before_anything_is_bought() {
    let world = World::new(152, 5);
    world.tailnet.lock().unwrap().refuses_keys = true;
    world.start_operator().await;
    world.apply(THREE).await;
    told(
        &world,
        "cache",
        "Degraded",
        "True",
        &["no auth key for cache-", "the OAuth client is not valid"],
    )
    .await;
    tokio::time::sleep(Duration::from_mins(20)).await;
    assert_eq!(world.chain.creates(), 0, "a deployment was made that no node can join with");
    world.tailnet.lock().unwrap().refuses_keys = false;
    world.until("Ready", LONG, async || world.ready("cache").await).await;
    assert_eq!(super::condition(&world, "cache", "Degraded").await.status, ConditionStatus::False);
    comes_up_and_goes(&world, "cache").await;
}

/// The store is lost and the wallet goes on paying: the new operator changes nothing of it until a
/// person says so, and says how.
#[tokio::test(start_paused = true)]
async fn what_stands_in_no_record_is_left_alone_and_blocks_the_end_of_a_deletion() {
    let world = running(Terms::new(153, 6)).await;
    let nodes = live(&world).await;
    let dseqs: Vec<u64> =
        world.stored("cache").await.record.incarnations.values().map(|i| i.dseq).collect();
    world.kill_operator().await;
    let (store, version) =
        (world.store.as_another_operator(), world.stored("cache").await.record_version);
    store.take_over().await.unwrap();
    store.set_record("cache", version, &Record::default()).await.unwrap();
    world.start_operator().await;
    told(&world, "cache", "Degraded", "True", &["are in no record", "`akash-redis close cache "])
        .await;
    // A new cluster beside them waits too.
    world.apply(&THREE.replace("name: cache", "name: second")).await;
    told(&world, "second", "Degraded", "True", &["no new cluster is begun", "of cache"]).await;
    goes(&world, "second").await;

    world.delete("cache").await;
    waits_for(&world, "cache", "manual action on the deployments").await;
    tokio::time::sleep(OUTAGE).await;
    assert_eq!(world.chain.active_deployments().len(), 3, "nothing is closed without a word");
    assert!(
        world.store.get("cache").await.is_ok(),
        "the cluster is forgotten while its leases are paid"
    );
    let joined = |dseqs: &[u64]| dseqs.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    world
        .edit("cache", |c| {
            drop(c.metadata.annotations.insert(CLOSE.to_owned(), joined(&dseqs[..1])));
        })
        .await;
    world
        .until("the first to be closed", Duration::from_mins(5), async || {
            world.chain.active_deployments().len() == 2
        })
        .await;
    waits_for(&world, "cache", "manual action on the deployments").await;
    world
        .edit("cache", |c| drop(c.metadata.annotations.insert(CLOSE.to_owned(), joined(&dseqs))))
        .await;
    world.until_gone("cache").await;
    world.assert_nothing_left();
    assert_eq!(nodes.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_mesh_control_goes_away_in_the_middle() {
    for (seed, after) in [(130, 10), (131, 24), (132, 30), (133, 36)] {
        let world = bidding(seed).await;
        tokio::time::sleep(Duration::from_secs(after)).await;
        world.tailnet.lock().unwrap().away = true;
        tokio::time::sleep(2 * OUTAGE).await;
        world.tailnet.lock().unwrap().away = false;
        comes_up_and_goes(&world, "cache").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_waits_for_whatever_is_away() {
    let world = running(Terms::new(134, 4)).await;
    world.tailnet.lock().unwrap().away = true;
    world.chain.fault(|f| f.away = true);
    world.delete("cache").await;
    waits_for(&world, "cache", "to be cleaned up").await;
    tokio::time::sleep(OUTAGE).await;
    world.chain.fault(|f| f.away = false);
    tokio::time::sleep(OUTAGE).await;
    assert!(
        world.store.get("cache").await.is_ok(),
        "the cluster is forgotten while devices of it are left"
    );
    world.tailnet.lock().unwrap().away = false;
    world.until_gone("cache").await;
    world.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn a_later_operator_takes_over_in_the_middle() {
    for (seed, after) in [(135, 0), (136, 10), (137, 28), (138, 40), (139, 120)] {
        let world = bidding(seed).await;
        tokio::time::sleep(Duration::from_secs(after)).await;
        let first = world.leave_operator();
        world.start_operator().await;
        tokio::time::timeout(Duration::from_mins(3), first)
            .await
            .expect("the first operator goes on after the second took over")
            .unwrap();
        comes_up_and_goes(&world, "cache").await;
        world.assert_one_writer();
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_seen_on_the_tailnet_before_its_mint_is_answered_is_not_taken_for_a_lost_one() {
    let world = World::new(131, 5);
    // Longer than a tick: the tailnet is read meanwhile.
    world.tailnet.lock().unwrap().slow_answer = Duration::from_secs(12);
    world.start_operator().await;
    world.apply(THREE).await;
    world.until("Ready", LONG, async || world.ready("cache").await).await;
    assert_eq!(
        (world.chain.creates(), world.tailnet.lock().unwrap().keys.len()),
        (3, 3),
        "every node joins with its first key"
    );
    let events = world.store.events("cache").await.unwrap();
    let delivered =
        events.iter().filter(|event| event.message.starts_with("deliver the manifest")).count();
    assert_eq!(delivered, 3, "each manifest is brought once");
    comes_up_and_goes(&world, "cache").await;
}

/// Longer than a silent node is waited for. Its streams come back one after the other, the master's
/// first: the others have then been silent for all of that time, and nobody may be given up for it.
#[tokio::test(start_paused = true)]
async fn an_operator_that_was_off_the_mesh_itself_gives_nobody_up_for_it() {
    let world = running(Terms::new(150, 5)).await;
    let before = world.stored("cache").await.record;
    let reach =
        |name: &IncarnationName, reachable| world.nodes.with(name, |n| n.reachable = reachable);
    for name in before.incarnations.keys() {
        reach(name, false);
    }
    world.own_mesh.send_modify(|own| {
        own.error = Some("its tailscaled does not answer; it is started again".to_owned());
        own.since = world.clock.now();
    });
    told(&world, "cache", "Degraded", "True", &["the operator itself is off the mesh"]).await;
    tokio::time::sleep(Duration::from_mins(20)).await;
    world
        .own_mesh
        .send_modify(|own| *own = OwnMesh { since: world.clock.now(), ..OwnMesh::default() });
    let master = world.master("cache").await;
    reach(&master, true);
    tokio::time::sleep(Duration::from_secs(30)).await;
    for name in before.incarnations.keys() {
        reach(name, true);
    }
    world.until_ready("cache").await;
    let after = world.stored("cache").await.record;
    assert_eq!((after.epoch, after.incarnations.len()), (before.epoch, before.incarnations.len()));
    assert!(
        before.incarnations.keys().all(|name| after.incarnations.contains_key(name)),
        "{:?}",
        after.incarnations.keys()
    );
    world.assert_one_writer();
}
