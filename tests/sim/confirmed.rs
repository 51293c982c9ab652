//! Promise 3: what a master was lost with. Under `durability: confirmed` no confirmed write; else what
//! the report says, and no more.

use std::sync::Arc;
use std::time::Duration;

use akash_redis::api::annotations::{ACCEPT_LOSS, MASTER};
use akash_redis::api::conditions::Reason;
use akash_redis::model::ids::IncarnationName;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::candidates::{others, running_with};
use crate::lifecycle::THREE;
use crate::world::World;
use crate::world::many::{in_many_worlds, setting};
use crate::world::node::Node;

/// An agent looks at its redis so often, and the application writes once meanwhile, milliseconds.
const LOOK_MS: u64 = 100;

/// Three nodes of which so many replicas confirm a write.
pub fn confirmed(confirmations: u32) -> String {
    let more = if confirmations > 1 { "  allowWriteStops: true\n" } else { "" };
    format!("{THREE}  durability: confirmed\n  confirmations: {confirmations}\n{more}")
}

/// One replica lags by a moment, the other one confirms alone, and is lost with the master: the
/// moment in which a failover would lose what clients were told is safe.
async fn alone_with_what_was_confirmed(
    world: &Arc<World>,
) -> (IncarnationName, IncarnationName, IncarnationName) {
    let master = world.master("cache").await;
    let [late, confirms] = others(world, &master).await.try_into().expect("two replicas");
    world.nodes.cut(&late, &master);
    tokio::time::sleep(Duration::from_secs(4)).await;
    world.nodes.with(&confirms, |n| n.powered = false);
    world.nodes.with(&master, |n| {
        n.broken = true;
        n.kill_redis();
    });
    (master, late, confirms)
}

async fn says(world: &World, reason: Reason) -> bool {
    let status = world.stored("cache").await.cluster.status.unwrap_or_default();
    status.problems().any(|problem| problem == reason)
}

#[tokio::test(start_paused = true)]
async fn nobody_is_promoted_who_may_lack_what_another_confirmed() {
    let world = running_with(9301, &confirmed(1), 5).await;
    world.confirms("cache", 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (master, _, confirms) = alone_with_what_was_confirmed(&world).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.master("cache").await, master, "nobody takes over");
    assert!(says(&world, Reason::ConfirmedWritesAtRisk).await);
    world.nodes.with(&confirms, |n| n.powered = true);
    world
        .until("another master", Duration::from_mins(1), async || {
            world.master("cache").await != master
        })
        .await;
    assert_eq!(world.master("cache").await, confirms, "it has the most");
    world.nodes.with(&master, |n| n.broken = false);
    world.assert_one_writer();
    world.assert_nothing_lost("cache").await;
}

/// Who could confirm is lost in the moment in which the master's redis ends. It is started again with
/// all that was confirmed, so that nobody has to be asked and nothing be accepted.
#[test]
fn a_master_that_comes_back_with_everything_needs_no_word_of_a_person() {
    in_many_worlds(0..=9, setting("SIM_STRIDE", 3), async |moment| {
        let world = running_with(9310 + moment, &confirmed(1), 6).await;
        world.confirms("cache", 1);
        let master = world.master("cache").await;
        let [_, other] = others(&world, &master).await.try_into().expect("two replicas");
        world.nodes.with(&master, Node::kill_redis);
        tokio::time::sleep(Duration::from_millis(moment * 60)).await;
        world.nodes.with(&other, |n| n.powered = false);
        let before = world.written();
        world
            .until("writes", Duration::from_secs(40), async || world.written() > before + 20)
            .await;
        world.assert_one_writer();
        world.assert_nothing_lost("cache").await;
        world.kill_operator().await;
    });
}

/// The same moment without the promise, and with a person's word.
#[tokio::test(start_paused = true)]
async fn without_the_promise_or_by_a_persons_word_it_goes_on_at_once() {
    let world = running_with(9302, THREE, 5).await;
    let (master, late, _) = alone_with_what_was_confirmed(&world).await;
    let taken_over = async |world: &World| world.master("cache").await == late;
    world.until("another master", Duration::from_mins(1), async || taken_over(&world).await).await;
    assert!(world.lost_writes("cache").await > 0, "which is what `async` allows");

    let world = running_with(9303, &confirmed(1), 5).await;
    world.confirms("cache", 1);
    let (_, late, _) = alone_with_what_was_confirmed(&world).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let epoch = world.stored("cache").await.record.epoch.to_string();
    world.edit("cache", |c| drop(c.metadata.annotations.insert(ACCEPT_LOSS.into(), epoch))).await;
    world
        .until("another master", Duration::from_mins(1), async || {
            world.master("cache").await == late
        })
        .await;
    world.assert_one_writer();
    assert_ne!(master, late);
}

/// Two of two replicas confirm: one that is left has everything.
#[tokio::test(start_paused = true)]
async fn with_two_confirmations_one_replica_is_enough() {
    let world = running_with(9304, &confirmed(2), 5).await;
    world.confirms("cache", 2);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (_, late, _) = alone_with_what_was_confirmed(&world).await;
    world
        .until("another master", Duration::from_mins(1), async || {
            world.master("cache").await == late
        })
        .await;
    assert!(world.confirmed() > 0);
    world.assert_one_writer();
    world.assert_nothing_lost("cache").await;
}

/// A replica is lost for good and another one takes its place: from then on its word is not needed.
#[tokio::test(start_paused = true)]
async fn a_replica_that_was_replaced_is_not_waited_for() {
    let world = running_with(9305, &confirmed(1), 6).await;
    world.confirms("cache", 1);
    let master = world.master("cache").await;
    let gone = others(&world, &master).await.remove(0);
    world.nodes.with(&gone, |n| n.powered = false);
    world
        .until("a replacement", Duration::from_mins(30), async || {
            world.ready("cache").await
                && !world.stored("cache").await.record.incarnations.contains_key(&gone)
        })
        .await;
    world.nodes.with(&master, |n| {
        n.broken = true;
        n.kill_redis();
    });
    world
        .until("another master", Duration::from_mins(1), async || {
            world.master("cache").await != master
        })
        .await;
    world.nodes.with(&master, |n| n.broken = false);
    world.until_ready("cache").await;
    world.assert_one_writer();
    world.assert_nothing_lost("cache").await;
}

/// A cluster whose master is killed, cut off, frozen or moved, over and over.
async fn disturbed(world: &Arc<World>, random: &mut StdRng) {
    for _ in 0..5 {
        let master = world.master("cache").await;
        let another = others(world, &master).await.remove(0);
        match random.gen_range(0..4) {
            0 => world.nodes.with(&master, Node::kill_redis),
            1 => world.nodes.with(&master, |n| (n.reachable, n.meshed) = (false, false)),
            2 => world.nodes.with(&master, Node::freeze_redis),
            _ => {
                let to = format!("{another}@{}", world.stored("cache").await.record.epoch);
                world
                    .edit("cache", |c| drop(c.metadata.annotations.insert(MASTER.into(), to)))
                    .await;
            }
        }
        tokio::time::sleep(Duration::from_secs(random.gen_range(2..40))).await;
        world.nodes.with(&master, Node::heal);
        world.until_ready("cache").await;
        tokio::time::sleep(Duration::from_secs(random.gen_range(1..10))).await;
    }
}

/// Registers and lists that are written and read while masters come and go.
#[test]
fn what_clients_see_is_linearizable_where_it_is_confirmed() {
    in_many_worlds(1..=setting("SIM_SEEDS", 4), 1, async |seed| {
        let world = running_with(9400 + seed, &confirmed(1), 5).await;
        world.confirms("cache", 1);
        world.with_clients();
        disturbed(&world, &mut StdRng::seed_from_u64(seed)).await;
        world.assert_one_writer();
        world.assert_nothing_lost("cache").await;
        world.assert_one_after_the_other();
    });
}

/// What was acknowledged and is not there is no more than the report says, once the old master came
/// back and was compared.
#[test]
fn a_report_says_all_that_was_lost() {
    in_many_worlds(1..=setting("SIM_SEEDS", 8), 1, async |seed| {
        let world = running_with(9500 + seed, THREE, 5).await;
        let mut random = StdRng::seed_from_u64(seed);
        let master = world.master("cache").await;
        let replicas = others(&world, &master).await;
        world.nodes.cut(&replicas[0], &master);
        tokio::time::sleep(Duration::from_millis(random.gen_range(0..7_000))).await;
        world.nodes.with(&master, |n| {
            if random.gen_bool(0.5) {
                n.kill_redis();
                n.broken = true;
                // Its agent had looked a moment before.
                n.history.as_mut().expect("a history").gap_ms = LOOK_MS;
            } else {
                (n.reachable, n.meshed) = (false, false);
            }
        });
        world
            .until("another master", Duration::from_mins(2), async || {
                world.master("cache").await != master
            })
            .await;
        let lost = world.lost_writes("cache").await;
        world.nodes.with(&master, Node::heal);
        world.nodes.heal(&replicas[0], &master);
        world.until_ready("cache").await;
        let report = world.stored("cache").await.record.last_failover.expect("a report");
        let told = report.lost_bytes.expect("the old master came back and was compared");
        let gap = report.lost_gap_ms.div_ceil(LOOK_MS);
        assert!(
            lost as u64 <= told.unsigned_abs() + gap,
            "seed {seed}: {lost} writes were lost, and the report says {told}: {report:?}"
        );
    });
}
