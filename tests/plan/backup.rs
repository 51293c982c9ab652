//! When a backup is taken, of whom, and which go: the rules of `plan/backup.rs` and
//! `plan/restore.rs`.

use std::sync::Arc;

use akash_redis::api::annotations::BACKUP;
use akash_redis::api::backup::{Backup, Bootstrap, FromBackup, RestoredUsers};
use akash_redis::api::conditions::{ConditionStatus, ConditionType, Reason};
use akash_redis::api::events::EventReason;
use akash_redis::model::backup::{
    BackupManifest, BackupTask, BackupUser, FORMAT, Listing, MasterSeen, RestoreRecord,
    RestoreTask, Snapshot, Survey, TaskPhase,
};
use akash_redis::model::ids::IncarnationName;
use akash_redis::model::inventory::{IdPool, Reading};
use akash_redis::model::node::Link;
use akash_redis::model::step::{Command, Effect};
use akash_redis::model::time::UnixMs;
use akash_redis::plan::Plan;

use crate::scene::{NOW, Scene, THREE, ago, commands, configured, has_event, installation, name};

fn backup() -> Backup {
    serde_json::from_value(serde_json::json!({"to": "s3://backups/x", "credentials": "sealed:x"}))
        .unwrap()
}

pub(crate) fn manifest(id: &str, seconds: u64) -> BackupManifest {
    BackupManifest {
        format: FORMAT,
        id: id.into(),
        installation: installation(),
        cluster: "cache".into(),
        uid: String::new(),
        incarnation: name(1),
        taken: ago(seconds),
        epoch: 1,
        snapshot: Snapshot { redis: "7.0.15".into(), keys: 5, ..Snapshot::default() },
        master: MasterSeen::default(),
        users: Vec::new(),
    }
}

pub(crate) fn lies(scene: &mut Scene, listing: Listing) {
    let reading = Reading::fresh(Arc::new(listing), UnixMs(NOW));
    scene.inventory.backups.insert("cache".into(), reading);
}

/// A whole cluster whose backup was asked for; its agents take some.
fn asked() -> Scene {
    let mut scene = Scene::whole();
    scene.cluster.spec.backup = Some(backup());
    scene.annotate(BACKUP, "7");
    scene.inventory.id_pool = IdPool { suffixes: vec!["x7k2".into(); 4] };
    for n in 0..3 {
        scene.node(n, |v| v.state.backup = Some(BackupTask::default()));
    }
    lies(&mut scene, Listing::default());
    scene
}

/// Who is told to take a backup.
fn takes(plan: &Plan) -> Vec<IncarnationName> {
    let all = commands(plan).into_iter();
    all.filter(|(_, c)| matches!(c, Command::Backup { .. })).map(|(n, _)| n).collect()
}

fn backed_up(plan: &Plan) -> (ConditionStatus, Reason, String) {
    let condition = plan.status.condition(ConditionType::BackedUp).unwrap();
    (condition.status, condition.reason, condition.message.clone())
}

#[test]
fn the_replica_that_is_least_behind_is_backed_up_and_never_the_master_of_others() {
    let mut scene = asked();
    assert_eq!(takes(&scene.plan(NOW)), [name(1)]);
    scene.node(1, |v| v.state.redis.offset -= 10);
    assert_eq!(takes(&scene.plan(NOW)), [name(2)]);
    scene.node(2, |v| v.state.backup = None);
    assert_eq!(takes(&scene.plan(NOW)), [name(1)], "an older agent takes none");
    scene.node(1, |v| v.state.redis.link = Link::Down);
    let plan = scene.plan(NOW);
    assert!(takes(&plan).is_empty() && plan.record.backup.is_none(), "the master is left alone");
}

#[test]
fn each_request_is_done_once_and_the_run_stands_in_the_record_first() {
    let mut scene = asked();
    let plan = scene.plan(NOW);
    let record = plan.record.backup.clone().unwrap();
    let run = record.run.clone().unwrap();
    assert_eq!((run.incarnation, record.word.as_str()), (name(1), "7"));
    assert!(has_event(&plan, EventReason::BackupStarted));
    // Complete by the list of the storage.
    scene.record = plan.record;
    let done = manifest(&run.id, 0);
    lies(&mut scene, Listing { backups: vec![done], ..Listing::default() });
    let plan = scene.plan(NOW + 1000);
    assert!(has_event(&plan, EventReason::BackupTaken) && takes(&plan).is_empty());
    assert_eq!(plan.record.backup.as_ref().unwrap().run, None);
    scene.record = plan.record;
    let plan = scene.plan(NOW + 2000);
    assert!(takes(&plan).is_empty() && plan.record == scene.record, "the same word means nothing");
    assert_eq!(backed_up(&plan).1, Reason::BackupCurrent);
}

/// What the node stored is completed by the operator, when the master's own offset agrees with it.
#[test]
fn a_backup_is_completed_with_what_the_master_was_seen_to_have() {
    let mut scene = asked();
    let plan = scene.plan(NOW);
    let run = plan.record.backup.clone().unwrap().run.unwrap();
    scene.record = plan.record;
    let (replid, offset) = {
        let redis = &scene.inventory.nodes[&name(0)].state.redis;
        (redis.replid.clone(), redis.offset)
    };
    let stores = |scene: &mut Scene, offset: i64| {
        let snapshot = Snapshot { replid: replid.clone(), offset, keys: 5, ..Snapshot::default() };
        let task = BackupTask {
            id: run.id.clone(),
            phase: TaskPhase::Done,
            snapshot: Some(snapshot),
            ..BackupTask::default()
        };
        scene.node(1, |v| v.state.backup = Some(task));
        scene.plan(NOW + 1000)
    };
    let plan = stores(&mut scene, offset);
    let completes = plan.steps.iter().find_map(|s| match &s.effect {
        Effect::CompleteBackup { incarnation, manifest, .. } => Some((incarnation, manifest)),
        _ => None,
    });
    let (node, manifest) = completes.unwrap();
    assert_eq!((node, &manifest.incarnation, manifest.snapshot.keys), (&name(1), &name(1), 5));
    assert_eq!(
        (manifest.master.incarnation.as_str(), manifest.master.offset_after),
        (name(0).0.as_str(), offset)
    );
    let early = stores(&mut scene, offset + 1);
    assert!(!has_event(&early, EventReason::BackupFailed), "the master was heard before that");
    scene.record = early.record;
    for n in 0..3 {
        scene.node(n, |v| v.heard = UnixMs(NOW + 60_000));
    }
    let forged = scene.plan(NOW + 60_000);
    assert!(has_event(&forged, EventReason::BackupFailed), "nobody has more than its master");
    let (status, reason, why) = backed_up(&forged);
    assert!(status == ConditionStatus::False && reason == Reason::BackupFailed, "{why}");
    assert!(why.contains("and its master had"), "{why}");
}

#[test]
fn what_no_rule_keeps_goes_and_the_backups_of_another_cluster_stay() {
    let mut scene = asked();
    scene.cluster.metadata.annotations.clear();
    scene.cluster.spec.backup.as_mut().unwrap().retention.keep_last = 1;
    let foreign = BackupManifest { uid: "other".into(), ..manifest("c", 9000) };
    let unfinished = vec![("half".to_owned(), ago(7200)), ("young".to_owned(), ago(60))];
    let backups = vec![foreign, manifest("a", 7200), manifest("b", 3600)];
    lies(&mut scene, Listing { backups, unfinished, ..Listing::default() });
    let plan = scene.plan(NOW);
    let gone: Vec<_> = plan
        .steps
        .iter()
        .filter_map(|s| match &s.effect {
            Effect::DeleteBackup { id, .. } => Some(id.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(gone, ["a", "half"]);
}

/// A new cluster that begins with a backup.
fn begins(from: FromBackup) -> Scene {
    let mut scene = Scene::new(THREE);
    scene.cluster.spec.backup = Some(backup());
    scene.cluster.spec.bootstrap =
        Some(Bootstrap { from_backup: Some(from), ..Bootstrap::default() });
    scene
}

fn restored(plan: &Plan) -> (Reason, String) {
    let condition = plan.status.condition(ConditionType::Restored).unwrap();
    (condition.reason, condition.message.clone())
}

#[test]
fn nothing_is_bought_before_a_backup_was_found_that_can_be_read() {
    let bought = |plan: &Plan| !plan.record.incarnations.is_empty();
    let scene = begins(FromBackup::default());
    let plan = scene.plan(NOW);
    assert!(!bought(&plan) && restored(&plan).0 == Reason::Restoring, "not looked at yet");
    let refused = |from: FromBackup, listing: Listing, what: &str| {
        let mut scene = begins(from);
        lies(&mut scene, listing);
        let plan = scene.plan(NOW);
        let (reason, why) = restored(&plan);
        assert!(!bought(&plan) && reason == Reason::RestoreRefused, "{why}");
        assert!(why.contains(what), "{why}");
    };
    let some = |id: &str| FromBackup { id: Some(id.into()), ..FromBackup::default() };
    refused(FromBackup::default(), Listing::default(), "there is no backup of cache");
    let others = Listing { others: vec!["zzz".into()], ..Listing::default() };
    refused(FromBackup::default(), others, "another root secret");
    let damaged =
        Listing { unusable: vec![("b".into(), "b is damaged".into())], ..Listing::default() };
    refused(some("b"), damaged, "b is damaged");
    let half = Listing { unfinished: vec![("b".into(), ago(1))], ..Listing::default() };
    refused(some("b"), half, "never completed");
    let early = FromBackup { at: Some("2020-01-01T00:00:00Z".into()), ..FromBackup::default() };
    let one = Listing { backups: vec![manifest("b", 60)], ..Listing::default() };
    let survey = Some(Survey { to: UnixMs::parse("2020-01-01T00:00:00Z").unwrap(), found: None });
    refused(early, Listing { survey, ..one.clone() }, "from 2020-01-01T00:00:00Z or before");
    let mut scene = begins(FromBackup::default());
    lies(&mut scene, one);
    let plan = scene.plan(NOW);
    assert!(bought(&plan) && has_event(&plan, EventReason::RestoreStarted));
    assert_eq!(plan.record.restore.unwrap().manifest.id, "b");
}

#[test]
fn a_backup_that_the_image_cannot_read_is_refused_before_anything_is_bought() {
    let mut scene = begins(FromBackup::default());
    let newer = Snapshot { redis: "8.2.3".into(), ..Snapshot::default() };
    let newer = BackupManifest { snapshot: newer, ..manifest("b", 60) };
    lies(&mut scene, Listing { backups: vec![newer], ..Listing::default() });
    let image =
        serde_json::json!({"name": format!("r/n@sha256:{}", "aa".repeat(32)), "redis": "7.0.15"});
    scene.cluster.spec.image = serde_json::from_value(image).unwrap();
    let plan = scene.plan(NOW);
    let (reason, why) = restored(&plan);
    assert!(reason == Reason::RestoreRefused && why.contains("cannot read"), "{why}");
    assert!(plan.record.incarnations.is_empty());
}

/// A backup is chosen, and nobody has its data yet.
fn begun() -> Scene {
    let mut scene = Scene::whole();
    let chosen = {
        let mut scene = begins(FromBackup::default());
        lies(&mut scene, Listing { backups: vec![manifest("b", 60)], ..Listing::default() });
        scene.plan(NOW).record.restore
    };
    scene.cluster.spec.backup = Some(backup());
    scene.cluster.spec.bootstrap =
        Some(Bootstrap { from_backup: Some(FromBackup::default()), ..Bootstrap::default() });
    (scene.record.restore, scene.record.master) = (chosen, None);
    (scene.record.data_epoch, scene.record.data_master) = (0, None);
    for n in 0..3 {
        scene.incarnation(n).membership = akash_redis::model::incarnation::Membership::Joined;
        scene.node(n, |v| {
            v.state.restore = Some(RestoreTask::default());
            v.state.promoted = false;
            v.state.redis.role = akash_redis::model::node::Role::Replica;
            (v.state.redis.fenced, v.state.redis.link) = (true, Link::Down);
            v.state.history = None;
        });
    }
    scene.configure();
    scene
}

#[test]
fn nobody_is_master_before_a_node_has_the_data() {
    let scene = &mut begun();
    let plan = scene.plan(NOW);
    let told: Vec<_> = commands(&plan);
    let gets = |c: &Command| matches!(c, Command::Restore { id, .. } if id == "b");
    assert!(told.iter().any(|(n, c)| *n == name(0) && gets(c)), "{told:?}");
    assert!(plan.record.master.is_none());
    scene.record = plan.record;
    let run = scene.inventory.nodes[&name(0)].state.redis.run_id.clone();
    let task = |phase, run_id: &str| RestoreTask {
        id: "b".into(),
        phase,
        run_id: run_id.into(),
        ..RestoreTask::default()
    };
    scene.node(0, |v| v.state.restore = Some(task(TaskPhase::Running, "")));
    assert!(scene.plan(NOW + 1000).record.master.is_none(), "half of it is none");
    scene.node(0, |v| v.state.restore = Some(task(TaskPhase::Done, "another-run")));
    let plan = scene.plan(NOW + 2000);
    assert!(plan.record.master.is_none(), "another process does not have it");
    assert!(commands(&plan).iter().any(|(_, c)| gets(c)), "it gets the data again");
    scene.node(0, |v| {
        v.state.restore = Some(task(TaskPhase::Done, &run));
        v.state.redis.link = Link::Up;
    });
    let plan = scene.plan(NOW + 3000);
    assert_eq!(plan.record.master.as_ref().map(|p| p.incarnation.clone()), Some(name(0)));
    scene.node(0, |v| v.state.restore = Some(task(TaskPhase::Failed, "")));
    let plan = scene.plan(NOW + 3000);
    assert!(plan.record.master.is_none() && has_event(&plan, EventReason::RestoreFailed));
}

/// One that is slow has as long as it takes; one of which nothing more comes is begun anew.
#[test]
fn a_restore_that_stands_still_is_given_up_and_a_slow_one_is_not() {
    let mut scene = begun();
    scene.record = scene.plan(NOW).record;
    // An hour later each time: what was noted lies an hour further back.
    let mut an_hour_later = |bytes: u64| {
        let run = scene.record.restore.as_mut().unwrap().run.as_mut().unwrap();
        for time in [&mut run.began, &mut run.moved] {
            time.0 = time.0.saturating_sub(3_600_000);
        }
        scene.node(0, |v| {
            v.state.restore = Some(RestoreTask {
                id: "b".into(),
                phase: TaskPhase::Running,
                done_bytes: bytes,
                ..RestoreTask::default()
            });
        });
        let plan = scene.plan(NOW);
        scene.record = plan.record.clone();
        plan
    };
    for hour in 1..48 {
        let plan = an_hour_later(hour * 100);
        assert!(!has_event(&plan, EventReason::RestoreFailed), "after {hour} h");
    }
    for hour in 1..6 {
        let plan = an_hour_later(4700);
        assert!(!has_event(&plan, EventReason::RestoreFailed), "after {hour} h of nothing");
    }
    let plan = an_hour_later(4700);
    assert!(has_event(&plan, EventReason::RestoreFailed));
    let (reason, why) = restored(&plan);
    assert_eq!(reason, Reason::RestoreFailed);
    assert!(why.contains("nothing more of it came for 6 h"), "{why}");
}

/// `users: keep` lets in who could log in before; of one name the manifest's comes first.
#[test]
fn the_users_of_the_backup_come_with_it_where_that_is_asked_for() {
    let user = |name: &str, word: &str| BackupUser {
        name: name.into(),
        password_sha256: vec![word.repeat(32)],
        rules: "~* +get".into(),
    };
    let who = |users: RestoredUsers| {
        let mut scene = Scene::whole();
        let own = serde_json::json!([{"name": "app", "passwordSha256": "cc".repeat(32)}]);
        scene.cluster.spec.redis.users = serde_json::from_value(own).unwrap();
        scene.cluster.spec.backup = Some(backup());
        let from_backup = Some(FromBackup { users, ..FromBackup::default() });
        scene.cluster.spec.bootstrap = Some(Bootstrap { from_backup, ..Bootstrap::default() });
        let manifest = BackupManifest {
            users: vec![user("app", "aa"), user("report", "bb")],
            ..manifest("b", 60)
        };
        scene.record.restore = Some(RestoreRecord {
            point: None,
            manifest,
            chosen: ago(600),
            run: None,
            failures: 0,
            failed: UnixMs(0),
            error: String::new(),
            done: Some(ago(500)),
        });
        let told = configured(&scene.plan(NOW));
        assert_eq!(told.len(), 3, "every node is told, whoever becomes master");
        let users = told.iter().map(|(_, settings)| {
            let users = settings.users.iter();
            users.map(|u| (u.name.clone(), u.password_sha256.clone())).collect::<Vec<_>>()
        });
        let users: Vec<_> = users.collect();
        assert!(users.iter().all(|all| *all == users[0]));
        users[0].clone()
    };
    let app = ("app".to_owned(), vec!["cc".repeat(32)]);
    let report = ("report".to_owned(), vec!["bb".repeat(32)]);
    let both = [app, report];
    assert_eq!(who(RestoredUsers::Manifest), both[..1]);
    assert_eq!(who(RestoredUsers::Keep), both);
}
