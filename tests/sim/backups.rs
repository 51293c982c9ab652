//! Backups and restores: taken of a replica when they are due, complete or not there at all however
//! the operator dies, deleted by the rules; and a cluster that begins with one has its data before
//! anybody is master.

use std::sync::Arc;
use std::time::Duration;

use akash_redis::api::annotations::BACKUP;
use akash_redis::api::conditions::{ConditionStatus, ConditionType, Reason};
use akash_redis::api::types::DeletionPolicy;
use akash_redis::model::node::Role;
use akash_redis::store::Objects as _;

use crate::world::World;
use crate::world::many::{in_a_world, setting};

fn in_world(seed: u64, providers: u32, test: impl AsyncFnOnce(Arc<World>)) {
    in_a_world(async move {
        let world = World::new(seed, providers);
        test(world).await;
    });
}

/// The tests' cluster, with this in its spec.
fn with(name: &str, more: &str) -> String {
    format!(
        "apiVersion: akash-redis.dev/v1alpha1
kind: RedisCluster
metadata: {{ name: {name} }}
spec:
  nodes: 3
  resources: {{ cpu: 500m, memory: 1Gi, data: {{ size: 4Gi, class: beta3 }} }}
  budget: {{ maxPerMonth: 30act }}
{more}"
    )
}

const BUCKET: &str = "  backup: { to: 'file:///bucket' }\n";
const OFTEN: &str = "  backup: { to: 'file:///bucket', schedule: '*/5 * * * *', retention: { keepLast: 2 }, verify: never }\n";

async fn asked(world: &World, name: &str, request: &str) {
    let request = request.to_owned();
    world.edit(name, |c| drop(c.metadata.annotations.insert(BACKUP.to_owned(), request))).await;
}

fn backups(world: &World, name: &str) -> Vec<String> {
    world.bucket().lock().unwrap().backups(name)
}

async fn condition(
    world: &World,
    name: &str,
    kind: ConditionType,
) -> Option<(ConditionStatus, Reason)> {
    let status = world.stored(name).await.cluster.status?;
    status.condition(kind).map(|c| (c.status, c.reason))
}

/// A cluster with a backup, and that backup.
async fn backed_up(world: &Arc<World>, spec: &str) -> String {
    world.start_operator().await;
    world.apply(&with("cache", spec)).await;
    world.until_ready("cache").await;
    asked(world, "cache", "1").await;
    world
        .until("a backup", Duration::from_mins(5), async || !backups(world, "cache").is_empty())
        .await;
    backups(world, "cache").remove(0)
}

#[test]
fn backups_are_taken_of_a_replica_when_they_are_due_and_old_ones_go() {
    in_world(3101, 5, async |world| {
        world.start_operator().await;
        world.apply(&with("cache", OFTEN)).await;
        world.until_ready("cache").await;
        let mut seen = Vec::new();
        world
            .until("four backups", Duration::from_hours(1), async || {
                for id in backups(&world, "cache") {
                    if !seen.contains(&id) {
                        seen.push(id);
                    }
                }
                seen.len() >= 4
            })
            .await;
        world
            .until("the old ones to go", Duration::from_mins(30), async || {
                backups(&world, "cache") == seen[seen.len() - 2..]
            })
            .await;
        let master = world.master("cache").await;
        for manifest in world.bucket().lock().unwrap().manifests.values() {
            assert_ne!(manifest.incarnation, master, "the master is left alone");
            assert!(manifest.snapshot.offset <= manifest.master.offset_after);
            assert!(manifest.taken.0 % 300_000 < 60_000, "every five minutes: {}", manifest.taken);
        }
        let held = condition(&world, "cache", ConditionType::BackedUp).await;
        assert_eq!(held, Some((ConditionStatus::True, Reason::BackupCurrent)));
    });
}

#[test]
fn a_storage_that_is_away_is_told_of_and_the_backup_is_taken_when_it_is_back() {
    in_world(3102, 5, async |world| {
        world.start_operator().await;
        world.apply(&with("cache", BUCKET)).await;
        world.until_ready("cache").await;
        world.bucket().lock().unwrap().nodes_fail = true;
        asked(&world, "cache", "1").await;
        world
            .until("the failure to be told", Duration::from_mins(5), async || {
                condition(&world, "cache", ConditionType::BackedUp).await
                    == Some((ConditionStatus::False, Reason::BackupFailed))
            })
            .await;
        assert!(world.ready("cache").await, "applications notice nothing");
        world.bucket().lock().unwrap().nodes_fail = false;
        world
            .until("another attempt", Duration::from_hours(1), async || {
                condition(&world, "cache", ConditionType::BackedUp).await
                    == Some((ConditionStatus::True, Reason::BackupCurrent))
            })
            .await;
        assert_eq!(backups(&world, "cache").len(), 1);
        world.bucket().lock().unwrap().away = true;
        world
            .until("the storage to be missed", Duration::from_mins(15), async || {
                condition(&world, "cache", ConditionType::BackedUp).await
                    == Some((ConditionStatus::False, Reason::BackupStorageUnavailable))
            })
            .await;
    });
}

/// The operator dies at one call after the other while a backup is taken: in the end there is one
/// complete backup, and nothing half.
#[test]
fn a_backup_is_complete_or_not_there_wherever_the_operator_dies() {
    let stride = setting("SIM_STRIDE", 3);
    for calls in (1..16).step_by(usize::try_from(stride).unwrap()) {
        in_world(3200 + calls, 5, async |world| {
            world.start_operator().await;
            world.apply(&with("cache", BUCKET)).await;
            world.until_ready("cache").await;
            let _restarts = world.restart_after_crashes();
            world.fuse.set(calls);
            asked(&world, "cache", "1").await;
            world
                .until("a backup", Duration::from_mins(30), async || {
                    !backups(&world, "cache").is_empty()
                })
                .await;
            world
                .until("nothing half", Duration::from_hours(3), async || {
                    let bucket = world.bucket();
                    let bucket = bucket.lock().unwrap();
                    bucket.data.keys().eq(bucket.manifests.keys())
                })
                .await;
            world.assert_one_writer();
        });
    }
}

#[test]
fn a_cluster_begins_with_the_data_of_a_backup_and_nobody_is_master_before() {
    in_world(3103, 8, async |world| {
        let id = backed_up(&world, BUCKET).await;
        let stored = world.bucket().lock().unwrap().data[&("cache".to_owned(), id)].0.clone();
        assert!(!stored.is_empty());
        let from = format!("{BUCKET}  bootstrap: {{ fromBackup: {{ cluster: cache }} }}\n");
        world.apply(&with("other", &from)).await;
        world
            .until("a master", Duration::from_mins(20), async || {
                let state = world.nodes.state.lock().unwrap();
                let own = state.nodes.iter().filter(|(n, _)| n.cluster() == "other");
                let mut masters = own.filter(|(_, n)| n.role == Role::Master);
                masters.all(|(_, n)| n.log.starts_with(&stored))
                    && state
                        .nodes
                        .iter()
                        .any(|(n, node)| n.cluster() == "other" && node.role == Role::Master)
            })
            .await;
        world.until_ready("other").await;
        let master = world.master("other").await;
        assert!(world.nodes.with(&master, |n| n.log.starts_with(&stored)));
        let held = condition(&world, "other", ConditionType::Restored).await;
        assert_eq!(held, Some((ConditionStatus::True, Reason::RestoreCompleted)));
    });
}

#[test]
fn nothing_is_bought_for_a_cluster_whose_backup_is_not_there() {
    in_world(3104, 5, async |world| {
        world.start_operator().await;
        let from = format!("{BUCKET}  bootstrap: {{ fromBackup: {{ id: none-1 }} }}\n");
        world.apply(&with("cache", &from)).await;
        world
            .until("the refusal", Duration::from_mins(5), async || {
                condition(&world, "cache", ConditionType::Restored).await
                    == Some((ConditionStatus::False, Reason::RestoreRefused))
            })
            .await;
        tokio::time::sleep(Duration::from_mins(10)).await;
        assert!(world.chain.active_deployments().is_empty(), "nothing is bought");
        assert!(world.stored("cache").await.record.incarnations.is_empty());
    });
}

/// The operator dies at one call after the other, and the node that gets the data is killed: the
/// cluster has the data in the end, and none was ever master without them.
#[test]
fn a_restore_comes_to_its_end_whoever_dies_meanwhile() {
    let stride = setting("SIM_STRIDE", 4);
    for calls in (1..24).step_by(usize::try_from(stride).unwrap()) {
        in_world(3300 + calls, 8, async |world| {
            let id = backed_up(&world, BUCKET).await;
            let stored = world.bucket().lock().unwrap().data[&("cache".to_owned(), id)].0.clone();
            let _restarts = world.restart_after_crashes();
            let from = format!("{BUCKET}  bootstrap: {{ fromBackup: {{ cluster: cache }} }}\n");
            world.apply(&with("other", &from)).await;
            let getting = async || {
                let record = world.store.get("other").await.ok()?.record;
                Some(record.restore?.run?.incarnation)
            };
            world
                .until("a node to get the data", Duration::from_mins(20), async || {
                    getting().await.is_some()
                })
                .await;
            world.fuse.set(calls);
            let node = getting().await.unwrap();
            if calls % 2 == 0 {
                tokio::time::sleep(Duration::from_secs(calls)).await;
                world.nodes.with(&node, crate::world::node::Node::kill_redis);
            }
            world.until_ready("other").await;
            let master = world.master("other").await;
            assert!(world.nodes.with(&master, |n| n.log.starts_with(&stored)));
        });
    }
}

/// The operator dies at one call after the other, and the node that does it dies: it is known in the
/// end that the backup can be restored, and the node's own data were never touched.
#[test]
fn a_backup_is_verified_in_the_end_whoever_dies_meanwhile() {
    let stride = setting("SIM_STRIDE", 4);
    for calls in (1..16).step_by(usize::try_from(stride).unwrap()) {
        in_world(3400 + calls, 5, async |world| {
            let id = backed_up(&world, BUCKET).await;
            let _restarts = world.restart_after_crashes();
            world.fuse.set(calls);
            let node = async || {
                let record = world.store.get("cache").await.ok()?.record;
                Some(record.backup?.verify.run?.incarnation)
            };
            world
                .until("a node to restore it", Duration::from_mins(30), async || {
                    node().await.is_some()
                        || condition(&world, "cache", ConditionType::BackupVerified).await
                            == Some((ConditionStatus::True, Reason::BackupRestorable))
                })
                .await;
            if let Some(node) = node().await.filter(|_| calls % 2 == 0) {
                world.nodes.with(&node, crate::world::node::Node::kill_redis);
            }
            world
                .until("it to be known", Duration::from_hours(2), async || {
                    condition(&world, "cache", ConditionType::BackupVerified).await
                        == Some((ConditionStatus::True, Reason::BackupRestorable))
                })
                .await;
            let good = world.stored("cache").await.record.backup.unwrap().verify.good.unwrap();
            assert_eq!(good.id, id);
            assert_ne!(good.incarnation, world.master("cache").await);
            world.until_ready("cache").await;
            world.assert_one_writer();
        });
    }
}

#[test]
fn a_backup_that_was_damaged_is_told_of_until_another_one_is_found_to_be_good() {
    in_world(3105, 5, async |world| {
        let daily = "  backup: { to: 'file:///bucket', verify: daily }\n";
        let id = backed_up(&world, daily).await;
        let is = async |status, reason| {
            condition(&world, "cache", ConditionType::BackupVerified).await
                == Some((status, reason))
        };
        let good = async || is(ConditionStatus::True, Reason::BackupRestorable).await;
        world.until("it to be good", Duration::from_mins(30), async || good().await).await;
        world.bucket().lock().unwrap().damaged.insert(id);
        world
            .until("that to be seen", Duration::from_hours(30), async || {
                is(ConditionStatus::False, Reason::BackupVerificationFailed).await
            })
            .await;
        let stands = condition(&world, "cache", ConditionType::Degraded).await;
        assert_eq!(stands.map(|(status, _)| status), Some(ConditionStatus::True));
        asked(&world, "cache", "2").await;
        world.until("another one to be good", Duration::from_hours(3), async || good().await).await;
        world.until_ready("cache").await;
    });
}

/// All leases end at one moment, and with them all volumes.
async fn all_leases_end(world: &World) {
    let record = world.stored("cache").await.record;
    for incarnation in record.incarnations.values() {
        world.chain.close_lease(incarnation.dseq);
    }
}

#[test]
fn all_leases_end_and_the_cluster_goes_on_with_its_newest_backup_by_itself() {
    in_world(3105, 8, async |world| {
        let spec = format!("{BUCKET}  bootstrap: {{ onTotalLoss: restore }}\n");
        let id = backed_up(&world, &spec).await;
        let stored = world.bucket().lock().unwrap().data[&("cache".to_owned(), id)].0.clone();
        all_leases_end(&world).await;
        world
            .until("the loss to be seen", Duration::from_mins(10), async || {
                world.stored("cache").await.record.restore.is_some()
            })
            .await;
        world.until_ready("cache").await;
        let master = world.master("cache").await;
        assert!(world.nodes.with(&master, |n| n.log.starts_with(&stored)));
        // A second time, too: with a backup of what came after.
        asked(&world, "cache", "2").await;
        world
            .until("another backup", Duration::from_mins(5), async || {
                backups(&world, "cache").len() == 2
            })
            .await;
        let newest = backups(&world, "cache").remove(1);
        all_leases_end(&world).await;
        world
            .until("the newest to be chosen", Duration::from_mins(10), async || {
                let restore = world.stored("cache").await.record.restore;
                restore.is_some_and(|r| r.manifest.id == newest)
            })
            .await;
        world.until_ready("cache").await;
    });
}

#[test]
fn all_leases_end_and_nobody_begins_empty_while_there_is_a_backup() {
    in_world(3106, 8, async |world| {
        backed_up(&world, BUCKET).await;
        all_leases_end(&world).await;
        world
            .until("the question", Duration::from_mins(20), async || {
                let status = world.stored("cache").await.cluster.status.unwrap_or_default();
                let asks = |c: &akash_redis::api::status::Condition| {
                    c.reason == Reason::DataMissing && c.message.contains("onTotalLoss")
                };
                status.conditions.iter().any(asks)
            })
            .await;
        tokio::time::sleep(Duration::from_mins(10)).await;
        assert_eq!(world.stored("cache").await.record.master, None, "nobody begins empty");
        world
            .edit("cache", |c| {
                let on_loss = serde_json::json!({"onTotalLoss": "restore"});
                c.spec.bootstrap = serde_json::from_value(on_loss).unwrap();
            })
            .await;
        world.until_ready("cache").await;
        let held = condition(&world, "cache", ConditionType::Restored).await;
        assert_eq!(held, Some((ConditionStatus::True, Reason::RestoreCompleted)));
    });
}

/// The operator dies at one call after the other: no lease is closed before the last backup is there,
/// and in the end the cluster is gone and the backup has its data.
#[test]
fn a_cluster_is_deleted_after_a_last_backup_wherever_the_operator_dies() {
    let stride = setting("SIM_STRIDE", 5);
    for calls in (1..40).step_by(usize::try_from(stride).unwrap()) {
        in_world(3400 + calls, 5, async |world| {
            let spec = format!("{BUCKET}  deletionPolicy: Backup\n");
            world.start_operator().await;
            world.apply(&with("cache", &spec)).await;
            world.until_ready("cache").await;
            let before = world.written();
            world
                .until("writes", Duration::from_mins(1), async || world.written() > before + 10)
                .await;
            let _restarts = world.restart_after_crashes();
            world.fuse.set(calls);
            world.store.mark_deleted("cache").await.unwrap();
            world
                .until("the last backup", Duration::from_hours(3), async || {
                    let taken = !backups(&world, "cache").is_empty();
                    let leases = world.chain.active_deployments().len();
                    assert!(taken || leases == 3, "{leases} leases, and no backup yet");
                    taken
                })
                .await;
            world.until_gone("cache").await;
            world.assert_nothing_left();
            let bucket = world.bucket();
            let bucket = bucket.lock().unwrap();
            let mut complete = bucket.manifests.keys().map(|backup| &bucket.data[backup].0);
            assert!(complete.any(|log| log.len() > 10), "it has the data");
        });
    }
}

/// The operator dies at one call after the other, and masters and nodes that archive die: whenever the
/// log began anew a backup was taken that it goes on from, one for each time, and no other.
#[test]
fn the_log_has_no_gap_without_a_new_backup_whoever_dies() {
    const LOG: &str =
        "  backup: { to: 'file:///bucket', schedule: '0 0 1 1 *', pointInTime: true }\n";
    let stride = setting("SIM_STRIDE", 6);
    for calls in (1..30).step_by(usize::try_from(stride).unwrap()) {
        in_world(3500 + calls, 8, async |world| {
            world.start_operator().await;
            world.apply(&with("cache", LOG)).await;
            let current = async || {
                condition(&world, "cache", ConditionType::PointInTime).await
                    == Some((ConditionStatus::True, Reason::ArchiveCurrent))
            };
            world
                .until("every moment to be kept", Duration::from_mins(30), async || current().await)
                .await;
            assert_eq!(backups(&world, "cache").len(), 1, "one is enough");
            let _restarts = world.restart_after_crashes();
            for round in 0..3 {
                world.fuse.set(calls);
                let archiver = world.stored("cache").await.record.archive.and_then(|a| a.run);
                let victim = match archiver.filter(|_| round % 2 == 0) {
                    Some(run) => run.incarnation,
                    None => world.master("cache").await,
                };
                world.nodes.with(&victim, crate::world::node::Node::kill_redis);
                tokio::time::sleep(Duration::from_secs(30 + calls)).await;
                world.until_ready("cache").await;
                world
                    .until("the log to go on", Duration::from_mins(30), async || current().await)
                    .await;
            }
            let runs = world.bucket().lock().unwrap().logs["cache"].1.len();
            assert_eq!(backups(&world, "cache").len(), runs, "one for each begin of the log");
            world.assert_one_writer();
        });
    }
}

/// Nodes do not reach the storage for ten minutes, while the operator does: what is written then is
/// said to be behind, and since when; nothing begins anew, and in the end all of it is stored.
#[test]
fn a_log_that_is_behind_says_since_when_and_catches_up_without_a_gap() {
    const LOG: &str =
        "  backup: { to: 'file:///bucket', schedule: '0 0 1 1 *', pointInTime: true }\n";
    in_world(3601, 8, async |world| {
        world.start_operator().await;
        world.apply(&with("cache", LOG)).await;
        let is = async |status, reason| {
            condition(&world, "cache", ConditionType::PointInTime).await == Some((status, reason))
        };
        let limit = Duration::from_mins(30);
        let current = async || is(ConditionStatus::True, Reason::ArchiveCurrent).await;
        world.until("every moment to be kept", limit, async || current().await).await;
        let away = world.clock.now();
        world.bucket().lock().unwrap().nodes_fail = true;
        let behind = async || is(ConditionStatus::False, Reason::ArchiveBehind).await;
        world.until("it to be told", Duration::from_mins(2), async || behind().await).await;
        tokio::time::sleep(Duration::from_mins(10)).await;
        assert!(behind().await, "for as long as it is so");
        let status = world.stored("cache").await.cluster.status.unwrap();
        let said = status.condition(ConditionType::PointInTime).unwrap().message.clone();
        let since = said.split_whitespace().find_map(akash_redis::model::time::UnixMs::parse);
        let since = since.unwrap_or_else(|| panic!("no time in: {said}"));
        assert!(since.0 / 1000 >= away.0 / 1000 && since.0 < away.0 + 60_000, "{away}: {said}");
        assert!(said.contains("the storage is away"), "{said}");
        assert!(world.ready("cache").await, "applications notice nothing");
        let written = world.bucket().lock().unwrap().logs["cache"].0;
        world.bucket().lock().unwrap().nodes_fail = false;
        world.until("it to be in time again", limit, async || current().await).await;
        let bucket = world.bucket();
        let bucket = bucket.lock().unwrap();
        let (end, runs) = &bucket.logs["cache"];
        assert!(*end > written && runs.len() == 1, "{written} before, {end} now: {runs:?}");
        assert_eq!(bucket.backups("cache").len(), 1, "no gap, so no other backup");
    });
}

#[test]
fn nothing_is_closed_while_the_last_backup_cannot_be_taken_or_nobody_names_the_cluster() {
    in_world(3107, 5, async |world| {
        let spec = format!("{BUCKET}  deletionPolicy: Backup\n");
        world.start_operator().await;
        world.apply(&with("cache", &spec)).await;
        world.until_ready("cache").await;
        world.bucket().lock().unwrap().nodes_fail = true;
        world.store.mark_deleted("cache").await.unwrap();
        let deleting = async || condition(&world, "cache", ConditionType::Deleting).await;
        world
            .until("the failure to be told", Duration::from_mins(5), async || {
                deleting().await == Some((ConditionStatus::False, Reason::FinalBackupFailed))
            })
            .await;
        tokio::time::sleep(Duration::from_hours(2)).await;
        assert_eq!(world.chain.active_deployments().len(), 3, "it goes on");
        assert!(world.ready("cache").await, "and is run like any other");
        world.edit("cache", |c| c.spec.deletion_policy = DeletionPolicy::Refuse).await;
        world
            .until("the refusal", Duration::from_mins(5), async || {
                deleting().await == Some((ConditionStatus::False, Reason::DeletionRefused))
            })
            .await;
        world.bucket().lock().unwrap().nodes_fail = false;
        tokio::time::sleep(Duration::from_mins(10)).await;
        assert_eq!(world.chain.active_deployments().len(), 3);
        world.delete("cache").await;
        world.until_gone("cache").await;
        world.assert_nothing_left();
    });
}
