//! What people, providers and a wrong list do to the nodes' devices.

use std::time::Duration;

use akash_redis::api::annotations::REJOIN;
use akash_redis::api::events::EventReason;
use akash_redis::model::ids::IncarnationName;
use akash_redis::model::mesh::Device;
use akash_redis::store::Events as _;

use super::{comes_up_and_goes, goes, live, migrate, running, told};
use crate::lifecycle::THREE;
use crate::world::mesh::CLUSTER_TAG;
use crate::world::{Terms, World};

/// Longer than a silent node is waited for.
const LONG: Duration = Duration::from_mins(7);

fn device(world: &World, name: &IncarnationName) -> String {
    world.nodes.with(name, |n| n.device.clone())
}

fn delete_device(world: &World, name: &IncarnationName) {
    let id = device(world, name);
    world.tailnet.lock().unwrap().devices.retain(|d| d.id != id);
}

/// Another device asks for the host name of a node, and gets this tag.
fn impersonate(world: &World, name: &IncarnationName, tag: &str) {
    let id = device(world, name);
    let tailnet = &mut *world.tailnet.lock().unwrap();
    let own = tailnet.devices.iter().find(|d| d.id == id).unwrap().clone();
    let other = Device {
        id: format!("other-{id}"),
        name: format!("{}-1.mesh.test", own.hostname),
        tags: vec![tag.to_owned()],
        ..own
    };
    tailnet.devices.push(other);
}

async fn replaced(world: &World, name: &IncarnationName, limit: Duration) {
    world.until("the node to be given up", limit, async || !live(world).await.contains(name)).await;
    world.until_ready("cache").await;
    assert_eq!(world.chain.active_deployments().len(), 3);
}

async fn given_up_because(world: &World, words: &str) {
    let events = world.store.events("cache").await.unwrap();
    assert!(
        events.iter().any(|e| {
            let words_of_it = [EventReason::NodeLost, EventReason::NodeCondemned];
            words_of_it.iter().any(|word| e.reason == word.to_string()) && e.message.contains(words)
        }),
        "nobody was given up because {words}: {events:#?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_device_was_deleted_is_replaced_without_the_wait_for_silent_nodes() {
    let world = running(Terms::new(420, 5)).await;
    let nodes = live(&world).await;
    delete_device(&world, &nodes[1]);
    told(&world, "cache", "Degraded", "True", &["the mesh device of", &nodes[1].0, "was deleted"])
        .await;
    replaced(&world, &nodes[1], Duration::from_mins(1)).await;
    assert_eq!(
        (world.master("cache").await, world.lost_writes("cache").await),
        (nodes[0].clone(), 0)
    );
    comes_up_and_goes(&world, "cache").await;
}

#[tokio::test(start_paused = true)]
async fn a_master_whose_device_was_deleted_fails_over_and_is_replaced() {
    let world = running(Terms::new(421, 5)).await;
    let nodes = live(&world).await;
    delete_device(&world, &nodes[0]);
    world
        .until("another master", Duration::from_mins(1), async || {
            world.master("cache").await != nodes[0]
        })
        .await;
    replaced(&world, &nodes[0], Duration::from_mins(2)).await;
    world.assert_one_writer();
    comes_up_and_goes(&world, "cache").await;
}

#[tokio::test(start_paused = true)]
async fn both_replicas_devices_deleted_are_replaced_one_after_the_other() {
    let world = running(Terms::new(422, 6)).await;
    let nodes = live(&world).await;
    delete_device(&world, &nodes[1]);
    delete_device(&world, &nodes[2]);
    world
        .until("two new replicas", Duration::from_mins(20), async || {
            let now = live(&world).await;
            let new = now.iter().filter(|n| !nodes.contains(n)).count();
            let record = world.stored("cache").await.record;
            // The second one goes only once the first one's successor is in sync.
            let old = nodes[1..].iter().filter(|n| now.contains(n)).count();
            let whole = record
                .incarnations
                .iter()
                .filter(|(n, i)| !nodes.contains(n) && i.is_candidate())
                .count();
            assert!(old >= 1 || whole >= 1, "both replicas were given up at once");
            new == 2 && old == 0
        })
        .await;
    world.until_ready("cache").await;
    assert_eq!(
        (world.master("cache").await, world.lost_writes("cache").await),
        (nodes[0].clone(), 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_list_that_wrongly_lacks_devices_costs_nobody_its_place() {
    let world = running(Terms::new(423, 5)).await;
    let nodes = live(&world).await;
    let all: Vec<_> = nodes.iter().map(|n| device(&world, n)).collect();
    for hidden in [all.clone(), all[1..].to_vec(), all[..1].to_vec()] {
        world.tailnet.lock().unwrap().hidden = hidden;
        tokio::time::sleep(LONG).await;
        assert_eq!((live(&world).await, world.chain.creates()), (nodes.clone(), 3));
    }
    // An operator that is started on an empty list hears nobody, and still gives up nobody.
    world.tailnet.lock().unwrap().hidden = all;
    world.kill_operator().await;
    world.start_operator().await;
    tokio::time::sleep(LONG).await;
    assert_eq!((live(&world).await, world.chain.creates()), (nodes, 3));
    world.tailnet.lock().unwrap().hidden.clear();
    world.until_ready("cache").await;
    assert_eq!(world.lost_writes("cache").await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_key_let_somebody_else_in_is_replaced_with_all_its_devices() {
    let world = running(Terms::new(424, 6)).await;
    let nodes = live(&world).await;
    // A replica, then the master, which is moved first.
    for name in [&nodes[1], &nodes[0]] {
        let hostname = world
            .tailnet
            .lock()
            .unwrap()
            .devices
            .iter()
            .find(|d| d.hostname.starts_with(&name.0))
            .unwrap()
            .hostname
            .clone();
        impersonate(&world, name, CLUSTER_TAG);
        replaced(&world, name, Duration::from_mins(5)).await;
        given_up_because(&world, "the key is compromised").await;
        let left = |world: &World| {
            world.tailnet.lock().unwrap().devices.iter().filter(|d| d.hostname == hostname).count()
        };
        world.until("its devices to go", Duration::from_mins(5), async || left(&world) == 0).await;
    }
    assert_eq!(world.lost_writes("cache").await, 0);
    comes_up_and_goes(&world, "cache").await;
}

#[tokio::test(start_paused = true)]
async fn a_stranger_with_a_nodes_host_name_is_left_alone_and_changes_nothing() {
    let world = running(Terms::new(425, 5)).await;
    let nodes = live(&world).await;
    for name in &nodes {
        impersonate(&world, name, "tag:somebody-elses");
    }
    tokio::time::sleep(LONG).await;
    assert_eq!((live(&world).await, world.ready("cache").await), (nodes, true));
    goes(&world, "cache").await;
    let left: Vec<_> =
        world.tailnet.lock().unwrap().devices.iter().map(|d| d.tags.clone()).collect();
    assert_eq!(left, vec![vec!["tag:somebody-elses".to_owned()]; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_mesh_state_in_use_in_two_places_is_told_and_costs_nobody_its_place() {
    let world = running(Terms::new(426, 5)).await;
    let nodes = live(&world).await;
    let id = device(&world, &nodes[1]);
    world
        .tailnet
        .lock()
        .unwrap()
        .devices
        .iter_mut()
        .filter(|d| d.id == id)
        .for_each(|d| d.multiple_connections = true);
    told(&world, "cache", "Degraded", "True", &[&nodes[1].0, "in use in two places"]).await;
    tokio::time::sleep(LONG).await;
    assert_eq!(live(&world).await, nodes);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_revoked_before_its_use_costs_one_attempt() {
    let world = World::new(427, 5);
    world.start_operator().await;
    world.apply(THREE).await;
    world
        .until("a key", Duration::from_mins(5), async || {
            world.tailnet.lock().unwrap().usable_keys() > 0
        })
        .await;
    world.tailnet.lock().unwrap().keys[0].invalid = true;
    world.until_ready("cache").await;
    given_up_because(&world, "its key was revoked").await;
    comes_up_and_goes(&world, "cache").await;
}

#[tokio::test(start_paused = true)]
async fn the_provider_of_a_node_that_fell_silent_is_not_chosen_again() {
    let world = running(Terms::new(428, 5)).await;
    let nodes = live(&world).await;
    let provider = |record: &akash_redis::model::record::Record, name: &IncarnationName| {
        record.incarnations[name].lease.clone().unwrap().id.provider
    };
    let record = world.stored("cache").await.record;
    // The cheaper of the two: it bids less than anybody who is not taken.
    let price = |n: &&IncarnationName| record.incarnations[*n].lease.as_ref().unwrap().price;
    let silent = nodes[1..].iter().min_by_key(price).unwrap();
    world.nodes.with(silent, |n| n.powered = false);
    replaced(&world, silent, LONG).await;
    let after = world.stored("cache").await.record;
    let new = live(&world).await.into_iter().find(|n| !nodes.contains(n)).unwrap();
    assert_ne!(provider(&after, &new), provider(&record, silent));
}

#[tokio::test(start_paused = true)]
async fn a_move_that_is_called_off_gives_the_successor_back() {
    let world = running(Terms::new(429, 5)).await;
    let nodes = live(&world).await;
    migrate(&world, &nodes[1]).await;
    world
        .until("the successor", Duration::from_mins(2), async || {
            world.chain.active_deployments().len() == 4
        })
        .await;
    world.edit("cache", |c| c.metadata.annotations.clear()).await;
    world
        .until("the refund", Duration::from_mins(2), async || {
            world.chain.active_deployments().len() == 3
        })
        .await;
    world.until_ready("cache").await;
    assert_eq!(live(&world).await, nodes);
    comes_up_and_goes(&world, "cache").await;
}

/// Some control servers show another host name after an admin renamed a device.
#[tokio::test(start_paused = true)]
async fn a_device_that_an_admin_gave_another_host_name_keeps_its_place_and_goes_with_its_node() {
    let world = running(Terms::new(430, 5)).await;
    let nodes = live(&world).await;
    for name in &nodes[1..] {
        let id = device(&world, name);
        world
            .tailnet
            .lock()
            .unwrap()
            .devices
            .iter_mut()
            .filter(|d| d.id == id)
            .for_each(|d| d.hostname = format!("anna-{id}"));
    }
    tokio::time::sleep(LONG).await;
    assert_eq!((live(&world).await, world.ready("cache").await), (nodes.clone(), true));
    world.kill_operator().await;
    world.start_operator().await;
    tokio::time::sleep(LONG).await;
    assert_eq!((live(&world).await, world.ready("cache").await), (nodes, true));
    comes_up_and_goes(&world, "cache").await;
}

/// The control server's database was restored to a copy from before the nodes joined. Nobody can be
/// heard, nothing is replaced, and at a person's word each node joins again with all its data.
#[tokio::test(start_paused = true)]
async fn nodes_that_the_tailnet_has_forgotten_join_again_at_a_persons_word_and_keep_their_data() {
    let world = running(Terms::new(431, 5)).await;
    let nodes = live(&world).await;
    {
        let mut tailnet = world.tailnet.lock().unwrap();
        tailnet.devices.clear();
        tailnet.keys.clear();
    }
    told(
        &world,
        "cache",
        "Degraded",
        "True",
        &["does not list the devices of", "akash-redis rejoin cache"],
    )
    .await;
    tokio::time::sleep(LONG).await;
    assert_eq!(
        (live(&world).await.len(), world.chain.creates()),
        (3, 3),
        "nobody is given up for it"
    );
    let asked = nodes.iter().map(|n| n.0.as_str()).collect::<Vec<_>>().join(",");
    world.edit("cache", |c| drop(c.metadata.annotations.insert(REJOIN.to_owned(), asked))).await;
    let mut at_once = 0;
    world
        .until("all to be back", Duration::from_mins(20), async || {
            let record = world.stored("cache").await.record;
            at_once =
                at_once.max(record.incarnations.values().filter(|i| i.rejoin.is_some()).count());
            world.ready("cache").await
        })
        .await;
    assert_eq!(at_once, 1, "one node at a time");
    let mut after = live(&world).await;
    after.sort();
    let mut before = nodes.clone();
    before.sort();
    assert_eq!((after, world.chain.creates()), (before, 3), "leases and volumes are kept");
    assert_eq!(world.lost_writes("cache").await, 0);
    assert_eq!(world.tailnet.lock().unwrap().usable_keys(), 0);
    comes_up_and_goes(&world, "cache").await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_heard_gets_no_new_key_whatever_the_list_says() {
    let world = running(Terms::new(432, 5)).await;
    let nodes = live(&world).await;
    let all: Vec<_> = nodes.iter().map(|n| device(&world, n)).collect();
    world.tailnet.lock().unwrap().hidden = all;
    let asked = nodes.iter().map(|n| n.0.as_str()).collect::<Vec<_>>().join(",");
    world.edit("cache", |c| drop(c.metadata.annotations.insert(REJOIN.to_owned(), asked))).await;
    tokio::time::sleep(LONG).await;
    assert_eq!((live(&world).await, world.tailnet.lock().unwrap().keys.len()), (nodes, 3));
}

/// An admin renames the master's device, then the tailnet gets another suffix: it is the same
/// master under another name, and no epoch is begun for it.
#[tokio::test(start_paused = true)]
async fn renames_of_the_masters_device_and_of_the_whole_tailnet_stop_no_writes() {
    let world = running(Terms::new(433, 5)).await;
    let nodes = live(&world).await;
    let before = world.stored("cache").await.record;
    let goes_on = async |what: &str| {
        let written = world.written();
        world.until(what, Duration::from_mins(1), async || world.written() > written + 50).await;
        world.until_ready("cache").await;
    };
    let master = device(&world, &nodes[0]);
    world.tailnet.lock().unwrap().rename(&master, "grandmaster.mesh.test");
    tokio::time::sleep(Duration::from_secs(5)).await;
    goes_on("writes after the master's device was renamed").await;
    {
        let mut tailnet = world.tailnet.lock().unwrap();
        tailnet.devices.iter_mut().for_each(|d| d.name = d.name.replace("mesh.test", "other.test"));
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    goes_on("writes after the tailnet's suffix changed").await;
    let after = world.stored("cache").await.record;
    assert_eq!(
        (after.epoch, live(&world).await, world.lost_writes("cache").await),
        (before.epoch, nodes, 0)
    );
    comes_up_and_goes(&world, "cache").await;
}
