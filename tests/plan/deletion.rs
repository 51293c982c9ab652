//! What becomes of a deletion that was asked for: the rules of `plan/deletion.rs`.

use std::sync::Arc;

use akash_redis::api::annotations::{BACKUP, YES_DELETE_DATA};
use akash_redis::api::conditions::{ConditionStatus, ConditionType, Reason};
use akash_redis::api::events::EventReason;
use akash_redis::api::types::DeletionPolicy;
use akash_redis::model::backup::{
    BackupManifest, BackupTask, FORMAT, Listing, MasterSeen, Snapshot, TaskPhase,
};
use akash_redis::model::inventory::{IdPool, Reading};
use akash_redis::model::node::Process;
use akash_redis::model::step::{Command, Effect};
use akash_redis::model::time::UnixMs;
use akash_redis::plan::Plan;

use crate::scene::{NOW, Scene, THREE, commands, degraded, has_event, installation, wait_for};

/// A whole cluster that is to be deleted, and nobody named it.
fn deleted(policy: DeletionPolicy) -> Scene {
    let mut scene = Scene::whole();
    scene.cluster.metadata.deletion_timestamp = Some(UnixMs(NOW).to_string());
    scene.cluster.spec.deletion_policy = policy;
    scene
}

/// The same, where a last backup can be taken.
fn deleted_after_a_backup() -> Scene {
    let mut scene = deleted(DeletionPolicy::Backup);
    let backup = serde_json::json!({"to": "s3://backups/x", "credentials": "sealed:x"});
    scene.cluster.spec.backup = Some(serde_json::from_value(backup).unwrap());
    scene.inventory.id_pool = IdPool { suffixes: vec!["x7k2".into(); 4] };
    for n in 0..3 {
        scene.node(n, |v| v.state.backup = Some(BackupTask::default()));
    }
    lies(&mut scene, Vec::new());
    scene
}

fn lies(scene: &mut Scene, backups: Vec<BackupManifest>) {
    let listing = Listing { backups, ..Listing::default() };
    let reading = Reading::fresh(Arc::new(listing), UnixMs(NOW));
    scene.inventory.backups.insert("cache".into(), reading);
}

fn gives_up(plan: &Plan) -> bool {
    let given_up = plan.record.incarnations.values().filter(|i| i.condemned.is_some()).count();
    let closes = plan.steps.iter().any(|s| matches!(s.effect, Effect::CloseDeployment { .. }));
    assert_eq!(given_up > 0, closes, "who is given up is closed");
    assert!(given_up == 0 || given_up == plan.record.incarnations.len(), "all of it or nothing");
    closes
}

fn deleting(plan: &Plan) -> (ConditionStatus, Reason) {
    let condition = plan.status.condition(ConditionType::Deleting).unwrap();
    (condition.status, condition.reason)
}

fn takes_a_backup(plan: &Plan) -> bool {
    commands(plan).iter().any(|(_, command)| matches!(command, Command::Backup { .. }))
}

#[test]
fn a_cluster_with_data_goes_on_until_somebody_names_it() {
    let mut scene = deleted(DeletionPolicy::Refuse);
    let plan = scene.plan(NOW);
    assert!(!gives_up(&plan) && plan.record == scene.record, "nothing is changed");
    assert_eq!(deleting(&plan), (ConditionStatus::False, Reason::DeletionRefused));
    let (reason, why) = degraded(&plan);
    assert_eq!(reason, Reason::DeletionRefused);
    assert!(why.contains("akash-redis delete cache --yes-delete-data cache"), "{why}");
    // It is run like any other.
    let mut dies = deleted(DeletionPolicy::Refuse);
    dies.node(0, |v| v.state.redis.process = Process::Exited);
    assert!(has_event(&dies.plan(NOW), EventReason::FailoverStarted));
    scene.annotate(YES_DELETE_DATA, "another");
    assert!(!gives_up(&scene.plan(NOW)));
    scene.annotate(YES_DELETE_DATA, "cache");
    let plan = scene.plan(NOW);
    assert!(gives_up(&plan) && deleting(&plan) == (ConditionStatus::True, Reason::LeasesClosing));
    // It is not taken back.
    scene.record = plan.record;
    scene.cluster.metadata.annotations.clear();
    assert!(!scene.plan(NOW).record.incarnations.values().any(|i| i.condemned.is_none()));
}

#[test]
fn what_never_had_a_master_or_may_be_deleted_is_deleted_at_once() {
    assert!(gives_up(&deleted(DeletionPolicy::Delete).plan(NOW)));
    let mut young = Scene::new(THREE);
    young.cluster.metadata.deletion_timestamp = Some(UnixMs(NOW).to_string());
    assert!(young.plan(NOW).finished, "there is nothing");
}

#[test]
fn a_last_backup_is_complete_before_any_lease_is_closed() {
    for paused in [false, true] {
        let mut scene = deleted_after_a_backup();
        scene.cluster.spec.paused = paused;
        // What the schedule or a person wants counts no more.
        scene.annotate(BACKUP, "7");
        let plan = scene.plan(NOW);
        assert!(takes_a_backup(&plan) && !gives_up(&plan), "paused: {paused}");
        assert_eq!(deleting(&plan), (ConditionStatus::False, Reason::FinalBackupPending));
        assert!(wait_for(&plan, "a last backup").is_some());
        let run = plan.record.backup.clone().unwrap().run.unwrap();
        scene.record = plan.record;
        let manifest = BackupManifest {
            format: FORMAT,
            id: run.id.clone(),
            installation: installation(),
            cluster: "cache".into(),
            uid: scene.cluster.metadata.uid.clone().unwrap_or_default(),
            incarnation: run.incarnation,
            taken: run.began,
            epoch: 1,
            snapshot: Snapshot { redis: "7.0.15".into(), ..Snapshot::default() },
            master: MasterSeen::default(),
            users: Vec::new(),
        };
        let before =
            BackupManifest { id: "before".into(), taken: UnixMs(NOW - 60_000), ..manifest.clone() };
        lies(&mut scene, vec![before.clone()]);
        assert!(!gives_up(&scene.plan(NOW + 500)), "an earlier one is not the last");
        lies(&mut scene, vec![before.clone(), manifest]);
        let plan = scene.plan(NOW + 1000);
        assert!(has_event(&plan, EventReason::BackupTaken) && !gives_up(&plan));
        scene.record = plan.record;
        // Somebody took it away meanwhile: another one is taken.
        let mut gone = deleted_after_a_backup();
        (gone.record, gone.cluster) = (scene.record.clone(), scene.cluster.clone());
        lies(&mut gone, vec![before]);
        let plan = gone.plan(NOW + 2000);
        assert!(takes_a_backup(&plan) && !gives_up(&plan));
        let plan = scene.plan(NOW + 2000);
        assert!(gives_up(&plan) && !takes_a_backup(&plan), "paused: {paused}");
    }
}

#[test]
fn a_last_backup_that_cannot_be_taken_closes_nothing_and_is_tried_until_it_is_there() {
    let mut scene = deleted_after_a_backup();
    let mut now = NOW;
    for attempt in 1..10 {
        let plan = scene.plan(now);
        assert!(takes_a_backup(&plan), "attempt {attempt}");
        let run = plan.record.backup.clone().unwrap().run.unwrap();
        scene.record = plan.record;
        let error = "the bucket is full".to_owned();
        let task =
            BackupTask { id: run.id, phase: TaskPhase::Failed, error, ..BackupTask::default() };
        scene.node(1, |v| v.state.backup = Some(task));
        let plan = scene.plan(now);
        assert!(!gives_up(&plan));
        assert_eq!(deleting(&plan), (ConditionStatus::False, Reason::FinalBackupFailed));
        let (reason, why) = degraded(&plan);
        let told = [Reason::BackupFailed, Reason::FinalBackupFailed].contains(&reason);
        assert!(told && why.contains("the bucket is full"), "{why}");
        scene.record = plan.record;
        now += 3_600_000;
        for n in 0..3 {
            scene.node(n, |v| v.heard = UnixMs(now));
        }
    }
    scene.annotate(YES_DELETE_DATA, "cache");
    assert!(gives_up(&scene.plan(now)), "a person goes without");
}

#[test]
fn what_hinders_the_last_backup_is_told() {
    let told = |edit: fn(&mut Scene)| {
        let mut scene = deleted_after_a_backup();
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert!(!gives_up(&plan));
        let condition = plan.status.condition(ConditionType::Deleting).unwrap();
        assert_eq!(condition.reason, Reason::FinalBackupFailed);
        condition.message.clone()
    };
    assert!(told(|s| s.cluster.spec.backup = None).contains("names no object storage"));
    let away = told(|s| {
        let reading = s.inventory.backups.get_mut("cache").unwrap();
        reading.error = Some("the object storage is away".into());
    });
    assert!(away.contains("the object storage is away"), "{away}");
    assert!(told(|s| s.record.master = None).contains("there is no master"));
}
