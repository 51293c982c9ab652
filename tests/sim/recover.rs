//! The store is lost while the cluster serves: an operator with an empty one changes nothing, and
//! takes the cluster over at a person's word, with its master where it was.

use std::sync::Arc;
use std::time::Duration;

use akash_redis::api::annotations::{CLOSE, MASTER};
use akash_redis::api::recover::{FoundCluster, RecoverReport};
use akash_redis::api::types::RedisCluster;
use akash_redis::model::ids::IncarnationName;
use akash_redis::model::node::Process;
use akash_redis::plan::recover::EPOCH_STEP;
use akash_redis::secrets::RootSecret;
use akash_redis::store::Objects as _;

use crate::lifecycle::THREE;
use crate::world::{TICK, World};

const LIMIT: Duration = Duration::from_mins(10);

/// Three nodes that serve, and an operator whose store was lost.
async fn lost(seed: u64) -> (Arc<World>, IncarnationName) {
    let world = World::new(seed, 5);
    world.start_operator().await;
    world.apply(THREE).await;
    world.until_ready("cache").await;
    until_kept(&world).await;
    let master = world.master("cache").await;
    world.lose_store().await;
    (world, master)
}

/// Every node keeps the copy of the present record.
async fn until_kept(world: &World) {
    world
        .until("the nodes to keep a copy", LIMIT, async || {
            let stored = world.stored("cache").await;
            let state = world.nodes.state.lock().unwrap();
            let newest = |name: &IncarnationName| {
                let kept = state.nodes.get(name).and_then(|n| n.kept.clone());
                kept.is_some_and(|k| {
                    let text = String::from_utf8(k.content).unwrap();
                    text.contains(&format!("\"dataEpoch\":{}", stored.record.data_epoch))
                        && text.contains(&format!(
                            "\"generation\":{}",
                            stored.cluster.metadata.generation.unwrap_or(0)
                        ))
                })
            };
            stored.record.incarnations.keys().all(newest)
        })
        .await;
}

fn the_one(report: RecoverReport) -> FoundCluster {
    assert_eq!(report.clusters.len(), 1, "{report:#?}");
    report.clusters.into_iter().next().unwrap()
}

async fn look(world: &World) -> FoundCluster {
    the_one(world.recovery().look(None).await.unwrap())
}

async fn confirm(world: &World) -> FoundCluster {
    let found = the_one(world.recovery().confirm(Some("cache")).await.unwrap());
    assert!(found.written, "{found:#?}");
    found
}

async fn until_written(world: &World) {
    let before = world.written();
    world.until("writes", Duration::from_mins(1), async || world.written() > before + 10).await;
}

/// The master is `master` still, nothing is lost, nothing was bought.
async fn assert_as_before(world: &World, master: &IncarnationName) {
    world.until_ready("cache").await;
    assert_eq!(world.master("cache").await, *master, "the master was changed");
    assert_eq!(world.stored("cache").await.record.last_failover, None);
    assert_eq!(world.chain.creates(), 3, "something was bought");
    until_written(world).await;
    world.assert_nothing_lost("cache").await;
    world.assert_one_writer();
}

/// It is a cluster like any other: it can be switched, fails over, and can be deleted.
async fn assert_whole_life(world: &World) {
    let master = world.master("cache").await;
    let target = world.stored("cache").await.record.incarnations.into_keys().find(|n| *n != master);
    let target = target.unwrap();
    let asked = format!("{target}@{}", world.stored("cache").await.record.epoch);
    world.edit("cache", |c| drop(c.metadata.annotations.insert(MASTER.into(), asked))).await;
    world.until("the switchover", LIMIT, async || world.master("cache").await == target).await;
    world.until_ready("cache").await;
    world.assert_nothing_lost("cache").await;
    world.nodes.with(&target, super::world::node::Node::kill_redis);
    world
        .until("the failover", LIMIT, async || {
            world.master("cache").await != target && world.ready("cache").await
        })
        .await;
    until_written(world).await;
    world.assert_nothing_lost("cache").await;
    world.delete("cache").await;
    world.until_gone("cache").await;
    world.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn a_lost_store_is_built_anew_while_redis_serves() {
    let (world, master) = lost(1).await;
    let names: Vec<_> = world.nodes.state.lock().unwrap().nodes.keys().cloned().collect();

    // Read-only, and it says so.
    world
        .until("the operator to say it", LIMIT, async || {
            world.shown().operator().wrong().iter().any(|w| w.starts_with("store: "))
        })
        .await;
    let said = world.shown().operator().store_lost.unwrap();
    assert!(said.contains("cache (dseq ") && said.contains("akash-redis recover"), "{said}");
    world.apply(&THREE.replace("name: cache", "name: other")).await;
    let before = world.chain.active_deployments();
    tokio::time::sleep(TICK * 12).await;
    assert_eq!(world.chain.active_deployments(), before, "nothing is bought or closed");
    world.delete("other").await;
    world.until_gone("other").await;

    let found = look(&world).await;
    assert_eq!((&found.refused, &found.problems), (&None, &vec![]), "{found:#?}");
    assert_eq!(found.master.as_deref(), Some(master.0.as_str()));
    assert_eq!(found.nodes.len(), 3);
    assert!(found.nodes.iter().all(|n| n.generation == Some(1) && n.epoch.is_some()), "{found:#?}");
    assert!(!found.written && world.store.list().await.unwrap().is_empty(), "it writes nothing");
    until_written(&world).await;

    let found = confirm(&world).await;
    assert_eq!(found.next_epoch, EPOCH_STEP);
    assert_as_before(&world, &master).await;
    let record = world.stored("cache").await.record;
    assert_eq!(record.incarnations.keys().cloned().collect::<Vec<_>>(), names);
    assert!(
        record.epoch >= EPOCH_STEP
            && record
                .incarnations
                .values()
                .all(akash_redis::model::incarnation::Incarnation::is_candidate)
    );
    assert_eq!(world.shown().operator().store_lost, None, "it knows all of them again");
    assert!(world.recovery().look(Some("cache")).await.unwrap_err().contains("nothing to recover"));
    until_kept(&world).await;
    assert_whole_life(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_away_meanwhile_is_taken_over_too() {
    let (world, master) = lost(2).await;
    let away = world.nodes.state.lock().unwrap().nodes.keys().find(|n| **n != master).cloned();
    let away = away.unwrap();
    world.nodes.with(&away, |n| n.reachable = false);
    let found = look(&world).await;
    assert_eq!(found.refused, None);
    assert!(found.problems.iter().any(|p| *p == format!("{away} does not answer")), "{found:#?}");
    confirm(&world).await;
    world.nodes.with(&away, super::world::node::Node::heal);
    assert_as_before(&world, &master).await;
    assert!(world.stored("cache").await.record.incarnations.contains_key(&away));
    assert_whole_life(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_master_that_only_its_replicas_reach_stays_the_master() {
    let (world, master) = lost(3).await;
    world.nodes.with(&master, |n| n.reachable = false);
    let found = look(&world).await;
    assert_eq!((found.refused, found.master), (None, Some(master.0.clone())));
    confirm(&world).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    until_written(&world).await;
    world.nodes.with(&master, super::world::node::Node::heal);
    assert_as_before(&world, &master).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_away_for_long_gives_its_old_manifest_and_the_newest_counts() {
    let world = World::new(4, 5);
    world.start_operator().await;
    world.apply(THREE).await;
    world.until_ready("cache").await;
    until_kept(&world).await;
    let stale = world.nodes.state.lock().unwrap().nodes.keys().next().cloned().unwrap();
    let old = world.nodes.with(&stale, |n| n.kept.clone());
    let spec =
        |c: &mut RedisCluster| drop(c.spec.redis.config.insert("timeout".into(), "7".into()));
    world.edit("cache", spec).await;
    world.until_ready("cache").await;
    until_kept(&world).await;
    let master = world.master("cache").await;
    world.nodes.with(&stale, |n| n.kept = old);
    world.lose_store().await;
    let found = look(&world).await;
    let generation = |name: &IncarnationName| {
        found.nodes.iter().find(|n| n.incarnation == name.0).and_then(|n| n.generation)
    };
    assert_eq!(generation(&stale), Some(1), "{found:#?}");
    assert!(found.manifest.starts_with("generation 2, "), "{}", found.manifest);
    confirm(&world).await;
    assert_as_before(&world, &master).await;
    let spec = world.stored("cache").await.cluster.spec;
    assert_eq!(spec.redis.config["timeout"], "7");
}

#[tokio::test(start_paused = true)]
async fn a_forged_manifest_is_named_and_counts_for_nothing() {
    let (world, master) = lost(5).await;
    let names: Vec<_> = world.nodes.state.lock().unwrap().nodes.keys().cloned().collect();
    let forge = |name: &IncarnationName| {
        world.nodes.with(name, |n| {
            let kept = n.kept.as_mut().unwrap();
            let text = String::from_utf8(kept.content.clone()).unwrap();
            kept.content = text.replace("\"nodes\":3", "\"nodes\":9").into_bytes();
            // Of another installation.
            let other = RootSecret::new(vec![8; 32].into()).unwrap();
            kept.signature = other.sign_copy(&kept.content);
        });
    };
    forge(&names[0]);
    let found = look(&world).await;
    let forged = format!("what {} keeps is not signed by this installation", names[0]);
    assert!(found.problems.iter().any(|p| p.starts_with(&forged)), "{found:#?}");
    assert_eq!(found.refused, None);
    forge(&names[1]);
    forge(&names[2]);
    let refused = look(&world).await.refused.unwrap();
    assert!(refused.contains("no node keeps a manifest of cache that counts"), "{refused}");
    // A person brings it.
    world.apply(THREE).await;
    confirm(&world).await;
    assert_as_before(&world, &master).await;
    assert_eq!(world.stored("cache").await.cluster.spec.nodes, 3);
    until_kept(&world).await;
}

#[tokio::test(start_paused = true)]
async fn where_every_redis_was_restarted_meanwhile_the_newest_history_is_promoted() {
    let (world, _) = lost(6).await;
    let names: Vec<_> = world.nodes.state.lock().unwrap().nodes.keys().cloned().collect();
    for name in &names {
        world.nodes.with(name, super::world::node::Node::kill_redis);
    }
    let running = |world: &World| {
        let state = world.nodes.state.lock().unwrap();
        state.nodes.values().all(|n| n.process == Process::Running)
    };
    world.until("redis to be there again", LIMIT, async || running(&world)).await;
    // With one of them away nobody knows who has the newest.
    world.nodes.with(&names[1], |n| n.reachable = false);
    let refused = look(&world).await.refused.unwrap();
    assert!(refused.contains(&format!("{} may be the master", names[1])), "{refused}");
    world.nodes.with(&names[1], super::world::node::Node::heal);
    let found = look(&world).await;
    assert_eq!((found.refused, found.master), (None, None));
    confirm(&world).await;
    world.until_ready("cache").await;
    world.assert_nothing_lost("cache").await;
    world.assert_one_writer();
}

/// The operator dies between the object and its record, or just after: another look finds the same.
#[tokio::test(start_paused = true)]
async fn a_crash_in_the_middle_of_it_is_taken_up_again() {
    for seed in 10..13 {
        let (world, master) = lost(seed).await;
        look(&world).await;
        let recovery = world.recovery();
        let confirmed = tokio::spawn(async move { recovery.confirm(None).await });
        tokio::time::sleep(Duration::from_millis(60 * (seed - 9))).await;
        world.kill_operator().await;
        confirmed.abort();
        world.start_operator().await;
        world
            .until("the record", LIMIT, async || {
                let known = world.store.get("cache").await;
                if known.is_ok_and(|s| !s.record.incarnations.is_empty()) {
                    return true;
                }
                let _ = world.recovery().confirm(None).await;
                false
            })
            .await;
        assert_as_before(&world, &master).await;
        world.kill_operator().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_cluster_can_be_given_up_with_everything_that_is_left_of_it() {
    let (world, _) = lost(7).await;
    let report = world.recovery().orphans().await.unwrap();
    assert_eq!((report.orphans.len(), &report.unseen), (3, &vec![]), "{report:#?}");
    for orphan in &report.orphans {
        assert!(orphan.recoverable && orphan.dseq.is_some() && orphan.devices.len() == 1);
        assert!(orphan.price_per_month.is_some() && orphan.escrow.is_some(), "{orphan:#?}");
    }
    // The word that the API leaves on an object that is there for this alone.
    let dseqs: Vec<_> =
        report.orphans.iter().filter_map(|o| o.dseq).map(|d| d.to_string()).collect();
    world.apply(&format!("{THREE}  paused: true\n")).await;
    world
        .edit("cache", |c| drop(c.metadata.annotations.insert(CLOSE.into(), dseqs.join(","))))
        .await;
    world.delete("cache").await;
    world.until_gone("cache").await;
    world.assert_nothing_left();
    assert_eq!(world.chain.creates(), 3);
    let report = world.recovery().orphans().await.unwrap();
    assert_eq!((report.orphans, report.closing), (vec![], vec![]));
}

/// What a closed deployment left on the tailnet is an orphan too.
#[tokio::test(start_paused = true)]
async fn a_device_and_a_key_without_a_deployment_are_listed_and_removed() {
    let world = World::new(8, 5);
    world.start_operator().await;
    world.apply(THREE).await;
    world.until_ready("cache").await;
    let left = IncarnationName("cache-9-left".into());
    let installation =
        akash_redis::model::ids::InstallationId(world.shown().operator().installation);
    {
        let mut tailnet = world.tailnet.lock().unwrap();
        let mut device = tailnet.devices[0].clone();
        (device.id, device.hostname) = ("left".into(), left.hostname(&installation));
        tailnet.devices.push(device);
    }
    let report = world.recovery().orphans().await.unwrap();
    assert_eq!(report.orphans.len(), 1, "{report:#?}");
    assert_eq!(
        (&report.orphans[0].devices, report.orphans[0].dseq),
        (&vec!["left".to_owned()], None)
    );
    assert!(!report.orphans[0].recoverable);
    world
        .edit("cache", |c| drop(c.metadata.annotations.insert(CLOSE.into(), left.0.clone())))
        .await;
    world
        .until("it to be gone", LIMIT, async || {
            let report = world.recovery().orphans().await.unwrap();
            report.orphans.is_empty() && report.closing.is_empty()
        })
        .await;
    world.until_ready("cache").await;
    assert!(world.tailnet.lock().unwrap().devices.iter().all(|d| d.id != "left"));
    assert_eq!(world.chain.active_deployments().len(), 3);
}
