//! Who archives the log of writes, when it begins anew, and what of it is restored: the rules of
//! `plan/archive.rs`.

use std::sync::Arc;

use akash_redis::api::backup::{Bootstrap, FromBackup, OnTotalLoss};
use akash_redis::api::conditions::{ConditionStatus, ConditionType, Reason};
use akash_redis::api::events::EventReason;
use akash_redis::model::archive::{ArchiveTask, Part, Point, Segment};
use akash_redis::model::backup::{
    BackupManifest, BackupTask, Listing, Snapshot, Survey, TaskPhase,
};
use akash_redis::model::ids::IncarnationName;
use akash_redis::model::inventory::{IdPool, Reading};
use akash_redis::model::node::Link;
use akash_redis::model::step::{Command, Effect};
use akash_redis::model::time::UnixMs;
use akash_redis::plan::Plan;

use crate::backup::{self, lies};
use crate::scene::{NOW, Scene, THREE, ago, commands, has_event, name};

/// Seconds.
const DAY: u64 = 24 * 3600;

fn spec(scene: &mut Scene) {
    let backup = serde_json::json!({
        "to": "s3://backups/x", "credentials": "sealed:x", "schedule": "0 3 * * *",
        "pointInTime": true, "window": "2d",
    });
    scene.cluster.spec.backup = Some(serde_json::from_value(backup).unwrap());
    scene.cluster.metadata.creation_timestamp = Some(ago(3600).to_string());
}

fn manifest(id: &str, seconds: u64, offset: i64) -> BackupManifest {
    let snapshot =
        Snapshot { redis: "7.0.15".into(), replid: "A".into(), offset, ..Snapshot::default() };
    BackupManifest { snapshot, ..backup::manifest(id, seconds) }
}

fn segment(run: &str, first: i64, end: i64, from: u64, until: u64) -> Segment {
    Segment {
        uid: String::new(),
        run: run.into(),
        from: ago(from),
        until: ago(until),
        first,
        end,
        asked: "A".into(),
        replid: "A".into(),
        common: end,
    }
}

/// A whole cluster whose log is to be archived.
fn whole() -> Scene {
    let mut scene = Scene::whole();
    spec(&mut scene);
    scene.inventory.id_pool = IdPool { suffixes: vec!["x7k2".into(); 4] };
    for n in 0..3 {
        scene.node(n, |v| {
            v.state.backup = Some(BackupTask::default());
            v.state.archive = Some(ArchiveTask::default());
        });
    }
    lies(&mut scene, Listing::default());
    scene
}

/// Who is told to archive, and whether anew.
fn told(plan: &Plan) -> Vec<(IncarnationName, bool)> {
    let archive = |c: Command| match c {
        Command::Archive { anew, .. } => Some(anew),
        _ => None,
    };
    commands(plan).into_iter().filter_map(|(n, c)| Some((n, archive(c)?))).collect()
}

fn held(plan: &Plan) -> (ConditionStatus, Reason, String) {
    let condition = plan.status.condition(ConditionType::PointInTime).unwrap();
    (condition.status, condition.reason, condition.message.clone())
}

/// The node of the present run says this.
fn says(scene: &mut Scene, edit: impl FnOnce(&mut ArchiveTask)) {
    let run = scene.record.archive.as_ref().unwrap().run.clone().unwrap();
    let mut task = ArchiveTask { run: run.id, phase: TaskPhase::Running, ..ArchiveTask::default() };
    edit(&mut task);
    let view = scene.inventory.nodes.get_mut(&run.incarnation).unwrap();
    view.state.archive = Some(task);
}

/// The log is archived by node 1, and a backup is there that it goes on from.
fn archiving() -> Scene {
    let mut scene = whole();
    scene.record = scene.plan(NOW).record;
    says(&mut scene, |task| (task.fresh, task.stored) = (true, 101));
    scene.record = scene.plan(NOW).record;
    scene.record.backup.as_mut().unwrap().run = None;
    let late = NOW + 10_000;
    let later = BackupManifest { taken: UnixMs(late), ..manifest("b1", 0, 100) };
    lies(&mut scene, Listing { backups: vec![later], ..Listing::default() });
    scene
}

#[test]
fn the_replica_that_is_least_behind_archives_and_stands_in_the_record_first() {
    let mut scene = whole();
    let plan = scene.plan(NOW);
    assert_eq!(told(&plan), [(name(1), false)]);
    let run = plan.record.archive.clone().unwrap().run.unwrap();
    assert_eq!((run.incarnation, run.boot_id.as_str()), (name(1), "boot-1"));
    assert_eq!(held(&plan).1, Reason::ArchivePending);
    scene.node(1, |v| v.state.redis.offset -= 10);
    assert_eq!(told(&scene.plan(NOW)), [(name(2), false)]);
    for n in 1..3 {
        scene.node(n, |v| v.state.redis.link = Link::Down);
    }
    let plan = scene.plan(NOW);
    assert!(told(&plan).is_empty(), "the master of others is left alone");
    scene.cluster.spec.backup.as_mut().unwrap().point_in_time = false;
    let plan = scene.plan(NOW);
    assert!(plan.record.archive.is_none());
    assert!(plan.status.condition(ConditionType::PointInTime).is_none());
}

#[test]
fn a_log_that_begins_anew_wants_a_backup_at_once_and_one_that_goes_on_does_not() {
    let mut scene = whole();
    scene.record = scene.plan(NOW).record;
    says(&mut scene, |task| task.stored = 101);
    let plan = scene.plan(NOW);
    assert!(!takes(&plan) && !has_event(&plan, EventReason::ArchiveStarted));
    says(&mut scene, |task| (task.fresh, task.stored) = (true, 101));
    let plan = scene.plan(NOW);
    assert!(takes(&plan) && has_event(&plan, EventReason::ArchiveStarted));
    let (status, reason, why) = held(&plan);
    assert_eq!((status, reason), (ConditionStatus::False, Reason::ArchivePending), "{why}");
    scene.record = plan.record;
    let plan = scene.plan(NOW + 1000);
    assert!(!has_event(&plan, EventReason::ArchiveStarted), "it is told once");
    let scene = archiving();
    let plan = scene.plan(NOW + 11_000);
    assert!(!takes(&plan), "that one is there");
    let (status, reason, why) = held(&plan);
    assert_eq!((status, reason), (ConditionStatus::True, Reason::ArchiveCurrent), "{why}");
    assert!(why.contains("every moment from"), "{why}");
}

fn takes(plan: &Plan) -> bool {
    commands(plan).iter().any(|(_, c)| matches!(c, Command::Backup { .. }))
}

/// It is begun in the very plan in which the log begins: it is the one.
#[test]
fn one_backup_is_taken_of_a_log_that_begins_and_no_second() {
    let mut scene = whole();
    scene.record = scene.plan(NOW).record;
    says(&mut scene, |task| (task.fresh, task.stored) = (true, 101));
    let plan = scene.plan(NOW);
    assert!(takes(&plan));
    scene.record = plan.record;
    let run = scene.record.backup.as_ref().unwrap().run.clone().unwrap();
    assert_eq!(run.began, scene.record.archive.as_ref().unwrap().since);
    let done = BackupManifest { taken: run.began, ..manifest(&run.id, 0, 100) };
    lies(&mut scene, Listing { backups: vec![done], ..Listing::default() });
    scene.record = scene.plan(NOW + 1000).record;
    let plan = scene.plan(NOW + 2000);
    assert!(!takes(&plan) && plan.record.backup.as_ref().unwrap().run.is_none());
    assert_eq!(held(&plan).1, Reason::ArchiveCurrent);
}

/// A node began the log anew and died before that was heard; another one goes on there.
#[test]
fn a_gap_that_nobody_told_of_is_found_in_the_list_and_a_backup_is_taken() {
    let then = |log: Vec<Segment>, minutes: u64| {
        let mut scene = archiving();
        says(&mut scene, |task| task.stored = 300);
        let backups = vec![BackupManifest { taken: UnixMs(NOW), ..manifest("b1", 0, 100) }];
        let at = UnixMs(NOW + minutes * 60_000);
        let listing = Listing { backups, log, ..Listing::default() };
        scene.inventory.backups.insert("cache".into(), Reading::fresh(Arc::new(listing), at));
        takes(&scene.plan(at.0))
    };
    let run = archiving().record.archive.clone().unwrap().run.unwrap().id;
    let whole = segment(&run, 101, 300, 0, 0);
    let gap = segment(&run, 200, 300, 0, 0);
    assert!(!then(vec![whole], 10));
    assert!(then(vec![gap.clone()], 10));
    assert!(!then(vec![gap], 1), "what follows the backup may not be listed yet");
    assert!(!then(Vec::new(), 10), "nothing is listed");
}

#[test]
fn another_node_goes_on_when_the_one_that_archives_is_not_what_it_was() {
    let moved = |edit: &dyn Fn(&mut Scene)| {
        let mut scene = archiving();
        assert_eq!(told(&scene.plan(NOW + 11_000)), []);
        edit(&mut scene);
        told(&scene.plan(NOW + 11_000))
    };
    let goes_on = [(name(2), false)];
    assert_eq!(moved(&|s| s.node(1, |v| v.state.redis.link = Link::Down)), goes_on);
    assert_eq!(moved(&|s| s.node(1, |v| v.state.stopping = true)), goes_on);
    let silent = |s: &mut Scene| {
        s.node(1, |v| (v.connected, v.heard) = (false, UnixMs(NOW - 60_000)));
    };
    assert_eq!(moved(&silent), goes_on);
    let anew = moved(&|s| s.node(1, |v| v.state.boot_id = "boot-9".into()));
    assert_eq!(anew.len(), 1, "another agent of it knows nothing of the run");
    let moved = moved(&|s| {
        s.node(1, |v| v.state.redis.link = Link::Down);
        s.node(2, |v| v.state.redis.link = Link::Down);
    });
    assert_eq!(moved, [], "nobody else could");
}

#[test]
fn every_node_is_asked_for_what_follows_before_the_log_begins_anew() {
    let mut scene = archiving();
    says(&mut scene, |task| {
        (task.phase, task.gap, task.error) = (TaskPhase::Failed, true, "a gap".into());
    });
    let plan = scene.plan(NOW + 11_000);
    assert!(has_event(&plan, EventReason::ArchiveInterrupted));
    scene.record = plan.record;
    scene.node(1, |v| v.state.archive = Some(ArchiveTask::default()));
    let plan = scene.plan(NOW + 11_000);
    assert_eq!(told(&plan), [(name(2), false)]);
    scene.record = plan.record;
    says(&mut scene, |task| (task.phase, task.gap) = (TaskPhase::Failed, true));
    scene.record = scene.plan(NOW + 11_000).record;
    let plan = scene.plan(NOW + 11_000);
    assert_eq!(told(&plan).len(), 1);
    assert!(told(&plan)[0].1, "nobody has it");
    scene.record = plan.record;
    says(&mut scene, |task| (task.fresh, task.stored) = (true, 500));
    let plan = scene.plan(NOW + 20_000);
    assert!(plan.record.archive.as_ref().unwrap().tried.is_empty());
    assert!(commands(&plan).iter().any(|(_, c)| matches!(c, Command::Backup { .. })));
}

#[test]
fn writes_that_are_not_archived_for_long_are_a_problem_and_say_why() {
    let mut scene = archiving();
    says(&mut scene, |task| {
        (task.stored, task.behind_since) = (101, ago(10));
        task.error = "the bucket is full".into();
    });
    assert_eq!(held(&scene.plan(NOW + 11_000)).1, Reason::ArchiveCurrent, "it may pass");
    let plan = scene.plan(NOW + 30_000);
    let (status, reason, why) = held(&plan);
    assert_eq!((status, reason), (ConditionStatus::False, Reason::ArchiveBehind));
    assert!(why.contains("the bucket is full"), "{why}");
    let degraded = plan.status.condition(ConditionType::Degraded).unwrap();
    assert_eq!(degraded.reason, Reason::ArchiveBehind);
}

#[test]
fn a_single_node_archives_its_own_log_while_no_write_needs_a_replica() {
    let mut scene = whole();
    scene.cluster.spec.nodes = 1;
    for n in 1..3 {
        scene.inventory.nodes.remove(&name(n));
        scene.record.incarnations.remove(&name(n));
    }
    scene.node(0, |v| v.state.redis.min_replicas = 0);
    assert_eq!(told(&scene.plan(NOW)), [(name(0), false)]);
    scene.node(0, |v| v.state.redis.min_replicas = 1);
    assert_eq!(told(&scene.plan(NOW)), []);
}

#[test]
fn what_no_backup_of_the_window_needs_goes_and_its_backups_stay() {
    let mut scene = archiving();
    scene.cluster.spec.backup.as_mut().unwrap().retention.keep_last = 1;
    let backups = vec![
        manifest("a", 5 * DAY, 10),
        manifest("b", 3 * DAY, 20),
        manifest("c", DAY, 30),
        manifest("d", 60, 40),
    ];
    let log = vec![segment("r0", 1, 50, 5 * DAY, 0)];
    lies(&mut scene, Listing { backups, log, ..Listing::default() });
    let plan = scene.plan(NOW);
    let gone: Vec<_> = plan
        .steps
        .iter()
        .filter_map(|s| match &s.effect {
            Effect::DeleteBackup { id, .. } => Some(id.clone()),
            Effect::DeleteLog { before, .. } => Some(before.to_string()),
            _ => None,
        })
        .collect();
    let hour = 3600;
    assert_eq!(gone, [ago(3 * DAY + hour).to_string(), "a".to_owned()], "b is the one before");
}

/// A new cluster that begins with a moment.
fn begins(at: UnixMs, survey: Option<Survey>) -> Plan {
    let mut scene = Scene::new(THREE);
    spec(&mut scene);
    let from = FromBackup { at: Some(at.to_string()), ..FromBackup::default() };
    scene.cluster.spec.bootstrap =
        Some(Bootstrap { from_backup: Some(from), ..Bootstrap::default() });
    let backups = vec![manifest("b1", 600, 100), manifest("b2", 60, 200)];
    lies(&mut scene, Listing { backups, survey, ..Listing::default() });
    scene.plan(NOW)
}

#[test]
fn a_moment_is_restored_as_it_was_found_and_refused_with_what_can_be() {
    let (at, part) = (ago(30), Part { run: "r1".into(), first: 101, end: 150 });
    let point = Point { backup: "b1".into(), uid: String::new(), parts: vec![part], at };
    let found = |found| Some(Survey { to: at, found });
    let plan = begins(at, found(Some(Ok(point.clone()))));
    let restore = plan.record.restore.unwrap();
    assert_eq!((restore.manifest.id.as_str(), restore.point), ("b1", Some(point)));
    let plan = begins(at, found(Some(Err("it cannot be".into()))));
    assert!(plan.record.restore.is_none() && plan.record.incarnations.is_empty());
    let refused = plan.status.condition(ConditionType::Restored).unwrap();
    assert_eq!(refused.reason, Reason::RestoreRefused);
    assert!(refused.message.contains("it cannot be"), "{}", refused.message);
    // Without a log the newest before it is all there is.
    let restore = begins(at, found(None)).record.restore.unwrap();
    assert_eq!((restore.manifest.id.as_str(), restore.point), ("b2", None));
    // A list that was made for another moment says nothing of this one.
    for other in [None, Some(Survey { to: ago(40), found: None })] {
        let plan = begins(at, other);
        assert!(plan.record.restore.is_none() && plan.record.incarnations.is_empty());
    }
}

#[test]
fn after_the_loss_of_everything_the_log_is_restored_to_its_end_once_it_was_listed() {
    let lost = |listed: u64| {
        let mut scene = archiving();
        let bootstrap = Bootstrap { on_total_loss: OnTotalLoss::Restore, ..Bootstrap::default() };
        scene.cluster.spec.bootstrap = Some(bootstrap);
        let log = vec![segment("r1", 50, 180, 300, 5)];
        let backups = vec![manifest("b1", 600, 60), manifest("b2", 200, 100)];
        let listing = Listing { backups, log, ..Listing::default() };
        let reading = Reading::fresh(Arc::new(listing), UnixMs(NOW + listed));
        scene.inventory.backups.insert("cache".into(), reading);
        scene.record.master = None;
        scene.record.incarnations.clear();
        scene.inventory.nodes.clear();
        let first = scene.plan(NOW + 1000);
        scene.record = first.record;
        scene.plan(NOW + 2000)
    };
    let plan = lost(0);
    assert!(plan.record.restore.is_none(), "what was archived last is not listed yet");
    let plan = lost(1500);
    let restore = plan.record.restore.unwrap();
    let parts = restore.point.unwrap().parts;
    assert_eq!(restore.manifest.id, "b2", "the less is to be replayed");
    assert_eq!(parts, [Part { run: "r1".into(), first: 101, end: Part::OPEN }]);
}
