//! When a backup is restored to see that it can be, by whom, and what follows from what is found: the
//! rules of `plan/verify.rs`.

use akash_redis::api::annotations::VERIFY;
use akash_redis::api::backup::Backup;
use akash_redis::api::conditions::{ConditionStatus, ConditionType, Reason};
use akash_redis::api::events::EventReason;
use akash_redis::model::backup::{
    BackupManifest, BackupRecord, Listing, Snapshot, TaskPhase, Verified, VerifyTask,
};
use akash_redis::model::ids::IncarnationName;
use akash_redis::model::inventory::IdPool;
use akash_redis::model::node::Link;
use akash_redis::model::step::{Command, Effect};
use akash_redis::model::time::UnixMs;
use akash_redis::plan::Plan;

use crate::backup;
use crate::scene::{NOW, Scene, ago, commands, has_event, name};

const MIB: u64 = 1 << 20;
const DAY: u64 = 24 * 3_600_000;

fn manifest(id: &str, seconds: u64) -> BackupManifest {
    let snapshot = Snapshot {
        redis: "7.0.15".into(),
        keys: 5,
        exact_keys: true,
        memory_bytes: 50 * MIB,
        ..Snapshot::default()
    };
    BackupManifest { snapshot, ..backup::manifest(id, seconds) }
}

fn lies(scene: &mut Scene, backups: Vec<BackupManifest>) {
    backup::lies(scene, Listing { backups, ..Listing::default() });
}

/// A whole cluster with a backup, whose agents verify some.
fn scene(verify: &str) -> Scene {
    let mut scene = Scene::whole();
    let backup =
        serde_json::json!({"to": "s3://backups/x", "credentials": "sealed:x", "verify": verify});
    let backup: Backup = serde_json::from_value(backup).unwrap();
    scene.cluster.spec.backup = Some(backup);
    scene.inventory.id_pool = IdPool { suffixes: vec!["x7k2".into(); 4] };
    for n in 0..3 {
        scene.node(n, |v| v.state.verify = Some(VerifyTask::default()));
    }
    lies(&mut scene, vec![manifest("b1", 600)]);
    scene
}

/// Who verifies which backup, within how much memory.
fn told(plan: &Plan) -> Vec<(IncarnationName, String, u64)> {
    let all = commands(plan).into_iter();
    all.filter_map(|(node, command)| match command {
        Command::Verify { id, memory_bytes, .. } => Some((node, id, memory_bytes)),
        _ => None,
    })
    .collect()
}

fn verified(plan: &Plan) -> (ConditionStatus, Reason, String) {
    let condition = plan.status.condition(ConditionType::BackupVerified).unwrap();
    (condition.status, condition.reason, condition.message.clone())
}

/// The plan after the node said this of the attempt that it was told to make.
fn then(scene: &mut Scene, at: u64, says: impl FnOnce(&mut VerifyTask)) -> Plan {
    let run = scene.record.backup.as_ref().unwrap().verify.run.clone().unwrap();
    let mut task = VerifyTask { run: run.run, ..VerifyTask::default() };
    says(&mut task);
    let ordinal = (0..3).find(|n| name(*n) == run.incarnation).unwrap();
    scene.node(ordinal, |v| v.state.verify = Some(task));
    for n in 0..3 {
        scene.node(n, |v| v.heard = UnixMs(at));
    }
    let plan = scene.plan(at);
    scene.record = plan.record.clone();
    plan
}

/// The first plan of a scene, whose record stays.
fn begun(scene: &mut Scene) -> Plan {
    let plan = scene.plan(NOW);
    scene.record = plan.record.clone();
    plan
}

#[test]
fn a_replica_with_the_memory_for_it_restores_the_newest_and_never_the_master_of_others() {
    let mut scene = scene("weekly");
    lies(&mut scene, vec![manifest("b1", 7200), manifest("b2", 600)]);
    scene.node(1, |v| v.state.redis.used_memory_bytes = 300 * MIB);
    let plan = begun(&mut scene);
    let (node, id, memory) = told(&plan).remove(0);
    assert_eq!((&node, id.as_str()), (&name(2), "b2"), "it has more room");
    assert!((50 * MIB..1024 * MIB).contains(&memory), "{memory}");
    let run = plan.record.backup.clone().unwrap().verify.run.unwrap();
    assert_eq!((&run.incarnation, run.memory_bytes), (&name(2), memory), "recorded first");

    let pending = |change: &dyn Fn(&mut Scene)| {
        let mut scene = self::scene("weekly");
        change(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(told(&plan), []);
        let (status, reason, why) = verified(&plan);
        assert_eq!((status, reason), (ConditionStatus::Unknown, Reason::BackupVerificationPending));
        why
    };
    let why = pending(&|scene| {
        for n in 1..3 {
            scene.node(n, |v| v.state.redis.link = Link::Down);
        }
    });
    assert!(why.contains("a replica in sync is waited for"), "{why}");
    let why = pending(&|scene| {
        let mut large = manifest("b1", 600);
        large.snapshot.memory_bytes = 700 * MIB;
        lies(scene, vec![large]);
    });
    assert!(why.contains("MiB of memory beside the data") && why.contains("larger nodes"), "{why}");
    let why = pending(&|scene| lies(scene, Vec::new()));
    assert!(why.contains("there is no backup yet"), "{why}");
    let plan = self::scene("never").plan(NOW);
    assert!(told(&plan).is_empty());
    assert!(plan.status.condition(ConditionType::BackupVerified).is_none());
}

#[test]
fn a_master_that_is_alone_does_it_itself() {
    let mut scene = scene("weekly");
    let alone = |scene: &mut Scene| {
        for n in 1..3 {
            scene.record.incarnations.remove(&name(n));
            scene.inventory.nodes.remove(&name(n));
        }
        scene.cluster.spec.nodes = 1;
    };
    alone(&mut scene);
    let plan = scene.plan(NOW);
    assert_eq!(told(&plan).first().map(|(node, ..)| node.clone()), Some(name(0)));
}

#[test]
fn what_was_restored_in_full_is_good_until_it_is_due_again() {
    for (verify, days) in [("daily", 1), ("weekly", 7), ("monthly", 30)] {
        let mut scene = scene(verify);
        begun(&mut scene);
        let plan = then(&mut scene, NOW + 60_000, |task| {
            (task.phase, task.keys, task.took_ms) = (TaskPhase::Done, 5, 11_500);
        });
        assert!(has_event(&plan, EventReason::BackupVerified));
        let (status, reason, message) = verified(&plan);
        assert_eq!(
            (status, reason),
            (ConditionStatus::True, Reason::BackupRestorable),
            "{message}"
        );
        assert!(message.contains("backup b1 of") && message.contains("in 12 s"), "{message}");
        let good = plan.status.backup.clone().unwrap().verified.unwrap();
        assert_eq!((good.id.as_str(), good.keys, good.seconds), ("b1", 5, 12));
        let good = scene.record.backup.clone().unwrap().verify;
        let again = |at: u64| {
            let mut scene = self::scene(verify);
            let verify = good.clone();
            scene.record.backup = Some(BackupRecord { verify, ..BackupRecord::default() });
            for n in 0..3 {
                scene.node(n, |v| v.heard = UnixMs(at));
            }
            !told(&scene.plan(at)).is_empty()
        };
        assert!(!again(NOW + days * DAY), "{verify}");
        assert!(again(NOW + 60_000 + days * DAY), "{verify}");
    }
}

#[test]
fn a_backup_that_is_no_good_is_a_problem_and_another_node_tries_later() {
    let fails = |says: &dyn Fn(&mut VerifyTask), what: &str| {
        let mut scene = scene("weekly");
        let first = told(&begun(&mut scene)).remove(0).0;
        let plan = then(&mut scene, NOW + 60_000, |task| says(task));
        let (status, reason, message) = verified(&plan);
        assert_eq!((status, reason), (ConditionStatus::False, Reason::BackupVerificationFailed));
        assert!(message.contains(what) && message.contains("b1"), "{message}");
        assert!(plan.status.problems().any(|r| r == Reason::BackupVerificationFailed));
        assert!(has_event(&plan, EventReason::BackupVerificationFailed));
        let published = |plan: &Plan| plan.status.backup.clone().unwrap().failed_verification;
        let ended = published(&plan).unwrap();
        let at = UnixMs(NOW + 60_000).to_string().replace('Z', ".000Z");
        assert_eq!(ended.at, at, "two that end within a second are told apart");
        assert!(ended.why.contains(what));
        assert!(told(&scene.plan(NOW + 120_000)).is_empty(), "not at once");
        let later = NOW + 60_000 + 600_000;
        for n in 0..3 {
            scene.node(n, |v| v.heard = UnixMs(later));
        }
        let plan = scene.plan(later);
        assert_ne!(told(&plan).remove(0).0, first, "to know whether it is the node");
        assert_eq!(verified(&plan).0, ConditionStatus::False, "until one is found to be good");
        scene.record = plan.record;
        let plan = then(&mut scene, later + 1000, |task| {
            (task.phase, task.keys) = (TaskPhase::Done, 5);
        });
        assert_eq!(verified(&plan).0, ConditionStatus::True);
        assert_eq!(published(&plan), None);
    };
    fails(
        &|task| {
            (task.phase, task.damaged) = (TaskPhase::Failed, true);
            task.error = "the data cannot be decrypted".into();
        },
        "cannot be decrypted",
    );
    fails(&|task| (task.phase, task.keys) = (TaskPhase::Done, 4), "4 keys were restored");
}

#[test]
fn an_attempt_that_found_nothing_out_says_nothing_against_the_backup() {
    let mut scene = scene("weekly");
    begun(&mut scene);
    let plan = then(&mut scene, NOW + 60_000, |task| {
        (task.phase, task.error) = (TaskPhase::Failed, "this node becomes master".into());
    });
    let (status, reason, message) = verified(&plan);
    assert_eq!((status, reason), (ConditionStatus::Unknown, Reason::BackupVerificationPending));
    assert!(message.contains("this node becomes master"), "{message}");
    let ended = plan.status.backup.clone().unwrap().failed_verification.unwrap();
    assert!(ended.why.contains("this node becomes master"), "{ended:?}");
    assert!(!plan.status.problems().any(|r| r == Reason::BackupVerificationFailed));
    assert!(has_event(&plan, EventReason::BackupVerificationInterrupted));
    // The same of a node whose container was started anew, and of one that is not heard.
    let mut scene = self::scene("weekly");
    let node = told(&begun(&mut scene)).remove(0).0;
    let ordinal = (0..3).find(|n| name(*n) == node).unwrap();
    scene.node(ordinal, |v| v.state.boot_id = "another".into());
    assert!(has_event(&scene.plan(NOW + 1000), EventReason::BackupVerificationInterrupted));
    let mut scene = self::scene("weekly");
    begun(&mut scene);
    scene.inventory.backups.clear();
    let plan = scene.plan(NOW + 1000);
    assert!(!has_event(&plan, EventReason::BackupVerificationInterrupted), "not read yet");
}

/// The list of the storage says it before anybody downloads anything.
#[test]
fn a_backup_that_was_touched_in_the_storage_is_no_good_whoever_finds_out_first() {
    let spoils = |scene: &mut Scene, id: &str, backups: Vec<BackupManifest>| {
        let unusable = vec![(id.into(), format!("the data of backup {id} are gone"))];
        backup::lies(scene, Listing { backups, unusable, ..Listing::default() });
    };
    let is_said = |plan: &Plan, id: &str| {
        let (status, reason, why) = verified(plan);
        assert_eq!((status, reason), (ConditionStatus::False, Reason::BackupVerificationFailed));
        assert!(why.contains(&format!("the data of backup {id} are gone")), "{why}");
        assert!(plan.status.problems().any(|r| r == Reason::BackupVerificationFailed));
    };
    // While it is verified.
    let mut scene = scene("weekly");
    begun(&mut scene);
    spoils(&mut scene, "b1", Vec::new());
    let plan = scene.plan(NOW + 1000);
    assert!(has_event(&plan, EventReason::BackupVerificationFailed));
    is_said(&plan, "b1");

    // After it was: another one is verified at once, and is the good one then.
    let mut scene = self::scene("weekly");
    begun(&mut scene);
    let done = |task: &mut VerifyTask| (task.phase, task.keys) = (TaskPhase::Done, 5);
    let plan = then(&mut scene, NOW + 60_000, done);
    assert_eq!(verified(&plan).0, ConditionStatus::True);
    spoils(&mut scene, "b1", vec![manifest("b2", 60)]);
    let plan = scene.plan(NOW + 60_000);
    is_said(&plan, "b1");
    assert!(plan.status.backup.as_ref().unwrap().verified.is_none(), "nobody counts on it");
    assert_eq!(told(&plan).remove(0).1, "b2");
    scene.record = plan.record;
    assert_eq!(verified(&then(&mut scene, NOW + 120_000, done)).0, ConditionStatus::True);

    // The newest one, before anybody restored it; an older one is as good as before.
    for (id, good) in [("b3", false), ("b0", true)] {
        let mut scene = self::scene("weekly");
        begun(&mut scene);
        then(&mut scene, NOW + 60_000, done);
        spoils(&mut scene, id, vec![manifest("b1", 600)]);
        let plan = scene.plan(NOW + 60_000);
        if good {
            assert_eq!(verified(&plan).0, ConditionStatus::True);
        } else {
            is_said(&plan, id);
        }
    }

    // One that was deleted as a whole is no backup, and nobody's word that it is good counts.
    let mut scene = self::scene("weekly");
    begun(&mut scene);
    then(&mut scene, NOW + 60_000, done);
    lies(&mut scene, Vec::new());
    let plan = scene.plan(NOW + 60_000);
    assert_eq!(verified(&plan).0, ConditionStatus::Unknown);
    assert!(plan.status.backup.unwrap().verified.is_none());
}

#[test]
fn the_count_is_compared_where_it_is_of_that_very_moment() {
    let mut scene = scene("weekly");
    let mut about = manifest("b1", 600);
    about.snapshot.exact_keys = false;
    lies(&mut scene, vec![about]);
    begun(&mut scene);
    let plan = then(&mut scene, NOW + 60_000, |task| {
        (task.phase, task.keys) = (TaskPhase::Done, 6);
    });
    assert_eq!(verified(&plan).0, ConditionStatus::True);
}

#[test]
fn a_person_has_any_backup_verified_once_for_each_word() {
    let mut scene = scene("never");
    lies(&mut scene, vec![manifest("b1", 7200), manifest("b2", 600)]);
    scene.annotate(VERIFY, "7 b1");
    let plan = begun(&mut scene);
    assert_eq!(told(&plan).remove(0).1, "b1");
    then(&mut scene, NOW + 60_000, |task| (task.phase, task.keys) = (TaskPhase::Done, 5));
    assert!(told(&scene.plan(NOW + 120_000)).is_empty(), "the same word means nothing");
    scene.annotate(VERIFY, "8");
    assert_eq!(told(&scene.plan(NOW + 120_000)).remove(0).1, "b2", "the newest");
    scene.annotate(VERIFY, "9 b9");
    let plan = scene.plan(NOW + 120_000);
    assert!(told(&plan).is_empty());
    assert!(has_event(&plan, EventReason::BackupVerificationInterrupted));
    assert_eq!(plan.record.backup.unwrap().verify.word, "9 b9");
}

#[test]
fn the_last_backup_that_was_found_to_be_good_stays_whatever_the_retention_says() {
    let mut scene = scene("never");
    scene.cluster.spec.backup.as_mut().unwrap().retention.keep_last = 1;
    lies(&mut scene, vec![manifest("b1", 9000), manifest("b2", 7200), manifest("b3", 600)]);
    let good = Verified {
        id: "b1".into(),
        taken: ago(9000),
        at: ago(8000),
        incarnation: name(1),
        keys: 5,
        took_ms: 1,
    };
    let mut record = BackupRecord::default();
    record.verify.good = Some(good);
    scene.record.backup = Some(record);
    let plan = scene.plan(NOW);
    let gone: Vec<_> = plan
        .steps
        .iter()
        .filter_map(|step| match &step.effect {
            Effect::DeleteBackup { id, .. } => Some(id.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(gone, ["b2"]);
}
