//! A cluster that begins with a running Redis, and its cutover: the rules of `plan/import.rs`.

use akash_redis::api::annotations::CUTOVER;
use akash_redis::api::backup::Bootstrap;
use akash_redis::api::conditions::{ConditionStatus, ConditionType, Reason};
use akash_redis::api::events::EventReason;
use akash_redis::model::backup::TaskPhase;
use akash_redis::model::import::{CopyTask, Difference, ImportTask};
use akash_redis::model::incarnation::Membership;
use akash_redis::model::node::{AttachedReplica, Link, NodeState, Process, ReplicaState, Role};
use akash_redis::model::step::Command;
use akash_redis::plan::Plan;

use crate::scene::{NOW, Scene, commands, has_event, name};

/// A manifest that names a source.
fn bootstrap() -> Option<Bootstrap> {
    let from = serde_json::json!({"fromRedis": {"host": "203.0.113.5", "password": "sealed:x"}});
    Some(serde_json::from_value(from).unwrap())
}

/// Three nodes that are there and empty, and a manifest that names a source.
fn fresh() -> Scene {
    let mut scene = Scene::whole();
    scene.cluster.spec.bootstrap = bootstrap();
    scene.record.master = None;
    (scene.record.data_epoch, scene.record.data_master) = (0, None);
    for n in 0..3 {
        scene.incarnation(n).membership = Membership::Joined;
        scene.node(n, |v| {
            let state = &mut v.state;
            state.import = Some(ImportTask::default());
            state.admits = Some(0);
            state.promoted = false;
            (state.redis.role, state.redis.link) = (Role::Replica, Link::Down);
            (state.redis.fenced, state.redis.keys) = (true, 0);
            (state.redis.online_epoch, state.redis.max_lag_seconds) = (0, 8);
            state.redis.master_host.clear();
            state.redis.replicas.clear();
            state.history = None;
        });
    }
    scene.configure();
    scene
}

/// The source as the node that imports tells it.
fn told(state: &mut NodeState, edit: impl FnOnce(&mut ImportTask)) {
    let task = state.import.get_or_insert_default();
    (task.phase, task.answers, task.can_pause) = (TaskPhase::Running, true, true);
    (task.replid, task.offset) = ("A".into(), state.redis.offset);
    edit(task);
}

/// Which import it was told.
fn import_of(plan: &Plan) -> Option<(akash_redis::model::ids::IncarnationName, String)> {
    commands(plan).into_iter().find_map(|(node, command)| match command {
        Command::Import { source, .. } => Some((node, source.id())),
        _ => None,
    })
}

/// Node 0 has the data, and the others have them from it.
fn followed() -> Scene {
    let mut scene = fresh();
    let plan = scene.plan(NOW);
    let (node, id) = import_of(&plan).unwrap();
    assert_eq!(node, name(0));
    scene.record = plan.record;
    let epoch = scene.record.epoch;
    scene.node(0, |v| {
        v.state.highest.epoch = epoch;
        v.state.redis.link = Link::Up;
        told(&mut v.state, |task| task.id = id);
    });
    scene.record = scene.plan(NOW).record;
    scene.node(0, |v| v.state.admits = Some(epoch));
    for n in 1..3 {
        scene.node(n, |v| {
            v.state.highest.epoch = epoch;
            v.state.redis.link = Link::Up;
            v.state.redis.online_epoch = epoch;
            v.state.redis.master_host = format!("{}.mesh", name(0));
        });
        scene.node(0, |v| {
            v.state.redis.replicas.push(AttachedReplica {
                name: format!("{}.mesh", name(n)),
                state: ReplicaState::Online,
                offset: 100,
                lag_seconds: 0,
                behind_ms: 0,
            });
        });
    }
    scene
}

fn imported(plan: &Plan) -> (ConditionStatus, Reason, String) {
    let found = plan.status.condition(ConditionType::Imported).expect("a condition");
    (found.status, found.reason, found.message.clone())
}

fn promotions(plan: &Plan) -> Vec<(akash_redis::model::ids::IncarnationName, String, bool)> {
    let promotion = |(node, command)| match command {
        Command::Promote { import, planned, .. } => Some((node, import, planned)),
        _ => None,
    };
    commands(plan).into_iter().filter_map(promotion).collect()
}

#[test]
fn one_node_imports_and_the_others_get_the_data_from_it() {
    let mut scene = fresh();
    let plan = scene.plan(NOW);
    let (node, id) = import_of(&plan).unwrap();
    assert_eq!(node, name(0));
    assert!(plan.record.epoch > scene.record.epoch && plan.record.master.is_none());
    assert!(has_event(&plan, EventReason::ImportStarted));
    assert_eq!(imported(&plan).1, Reason::Importing);
    assert_ne!(plan.status.condition(ConditionType::Ready).unwrap().status, ConditionStatus::True);
    scene.record = plan.record;
    let epoch = scene.record.epoch;
    scene.node(0, |v| {
        v.state.highest.epoch = epoch;
        v.state.redis.link = Link::Syncing;
        told(&mut v.state, |task| task.id.clone_from(&id));
    });
    let plan = scene.plan(NOW);
    assert_eq!(commands(&plan), vec![], "the others wait, and it is told once");
    assert!(imported(&plan).2.contains("does not have the data"), "{}", imported(&plan).2);
    scene.node(0, |v| v.state.redis.link = Link::Up);
    let plan = scene.plan(NOW);
    let all = commands(&plan);
    assert!(
        matches!(&all[..], [(node, Command::Admit { replicas })] if *node == name(0) && replicas.len() == 2),
        "{all:?}"
    );
    scene.record = plan.record;
    scene.node(0, |v| v.state.admits = Some(epoch));
    let plan = scene.plan(NOW);
    for n in 1..3 {
        let follows = |(node, command): &(_, Command)| {
            *node == name(n)
                && matches!(command, Command::Follow { master, grant, .. } if *master == name(0) && grant.epoch == epoch)
        };
        assert!(commands(&plan).iter().any(follows), "{:?}", commands(&plan));
    }
    assert_eq!(imported(&plan).1, Reason::Importing, "a write needs a replica");
    let scene = followed();
    let plan = scene.plan(NOW);
    assert_eq!((commands(&plan), imported(&plan).1), (vec![], Reason::ImportReady));
    assert!(plan.record.master.is_none(), "nobody is master before a person says so");
}

#[test]
fn what_keeps_the_data_from_coming_is_said_and_nobody_is_given_up_for_it() {
    let mut scene = followed();
    scene.node(0, |v| {
        told(&mut v.state, |task| task.error = "203.0.113.5:6379 refuses the user".into());
        v.state.redis.link = Link::Down;
    });
    let plan = scene.plan(NOW + 3_600_000);
    let (status, reason, message) = imported(&plan);
    assert_eq!((status, reason), (ConditionStatus::False, Reason::ImportFailed));
    assert!(message.contains("refuses the user"), "{message}");
    assert_eq!(plan.record.import.unwrap().node, Some(name(0)));
}

#[test]
fn a_cutover_is_refused_while_the_cluster_is_not_near_the_source() {
    let far: [(&str, fn(&mut Scene)); 5] = [
        ("does not have the data", |s| s.node(0, |v| v.state.redis.link = Link::Syncing)),
        ("behind the source", |s| {
            s.node(0, |v| told(&mut v.state, |task| task.offset += 2 << 20));
        }),
        ("behind the source", |s| s.node(0, |v| told(&mut v.state, |task| task.lag_ms = 2500))),
        ("does not say how far", |s| {
            s.node(0, |v| told(&mut v.state, |task| task.answers = false));
        }),
        ("of the other nodes have the data", |s| {
            s.node(0, |v| v.state.redis.replicas.clear());
        }),
    ];
    for (why, edit) in far {
        let mut scene = followed();
        edit(&mut scene);
        scene.annotate(CUTOVER, "7");
        let plan = scene.plan(NOW);
        assert!(has_event(&plan, EventReason::CutoverRefused), "{why}");
        assert!(promotions(&plan).is_empty() && plan.record.master.is_none());
        let said = plan.record.import.as_ref().unwrap().error.clone();
        assert!(said.contains(why), "{said}");
        scene.record = plan.record;
        let plan = scene.plan(NOW + 1000);
        assert!(!has_event(&plan, EventReason::CutoverRefused), "each word is answered once");
        assert!(!has_event(&plan, EventReason::CutoverStarted));
    }
}

#[test]
fn a_cutover_promotes_the_node_that_imports_in_the_epoch_in_which_the_others_attached() {
    let mut scene = followed();
    scene.annotate(CUTOVER, "7");
    let plan = scene.plan(NOW);
    let id = scene.inventory.nodes[&name(0)].state.import.clone().unwrap().id;
    assert!(has_event(&plan, EventReason::CutoverStarted));
    assert_eq!(promotions(&plan), vec![(name(0), id, true)]);
    let master = plan.record.master.clone().unwrap();
    assert_eq!((master.epoch, master.confirmed), (scene.record.epoch, false));
    assert_eq!(plan.record.data_epoch, 0);
    scene.record = plan.record;
    scene.node(0, |v| {
        v.state.promoted = true;
        v.state.import = Some(ImportTask::default());
        (v.state.redis.role, v.state.redis.fenced, v.state.redis.link) =
            (Role::Master, false, Link::Down);
        (v.state.redis.replid, v.state.redis.replid2) = ("B".into(), "A".into());
        v.state.redis.min_replicas = 1;
    });
    let plan = scene.plan(NOW + 300);
    assert!(has_event(&plan, EventReason::CutoverCompleted));
    assert_eq!(plan.record.data_epoch, master.epoch);
    let (status, reason, _) = imported(&plan);
    assert_eq!((status, reason), (ConditionStatus::True, Reason::ImportCompleted));
    let told_to_follow = commands(&plan);
    assert!(
        !told_to_follow
            .iter()
            .any(|(_, c)| matches!(c, Command::Follow { .. } | Command::Import { .. })),
        "whoever was attached stays: {told_to_follow:?}"
    );
    scene.record = plan.record;
    scene.cluster.spec.bootstrap = None;
    let plan = scene.plan(NOW + 600);
    assert_eq!(
        imported(&plan).1,
        Reason::ImportCompleted,
        "it is over, whatever the manifest says"
    );
}

#[test]
fn a_promotion_that_the_agent_refused_is_taken_back_under_a_new_epoch() {
    let mut scene = followed();
    scene.annotate(CUTOVER, "7");
    scene.record = scene.plan(NOW).record;
    let epoch = scene.record.epoch;
    scene.node(0, |v| {
        told(&mut v.state, |task| {
            (task.refused_epoch, task.refused) = (epoch, "12 bytes did not arrive".into());
        });
    });
    let plan = scene.plan(NOW + 1000);
    assert_eq!(plan.record.epoch, epoch + 1);
    assert!(promotions(&plan).is_empty());
    assert!(import_of(&plan).is_some(), "its answer shows that it obeys nothing earlier");
    assert!(plan.record.master.is_some(), "not before it has answered");
    scene.record = plan.record;
    scene.node(0, |v| v.state.highest.epoch = epoch + 1);
    let plan = scene.plan(NOW + 2000);
    assert!(plan.record.master.is_none() && has_event(&plan, EventReason::CutoverFailed));
    let import = plan.record.import.clone().unwrap();
    assert_eq!((import.node, import.cutover), (Some(name(0)), None));
    assert!(imported(&plan).2.contains("12 bytes did not arrive"), "{}", imported(&plan).2);
    scene.record = plan.record;
    let plan = scene.plan(NOW + 3000);
    assert!(!has_event(&plan, EventReason::CutoverStarted), "a person has to ask again");
    assert!(
        commands(&plan).iter().any(|(n, c)| *n == name(0) && matches!(c, Command::Admit { .. })),
        "the others attach in the new epoch"
    );
}

#[test]
fn a_promotion_that_was_late_and_done_stands() {
    let mut scene = followed();
    scene.annotate(CUTOVER, "7");
    scene.record = scene.plan(NOW).record;
    let epoch = scene.record.epoch;
    let late = NOW + 130_000;
    scene.node(0, |v| v.heard = akash_redis::model::time::UnixMs(late));
    let plan = scene.plan(late);
    assert_eq!(plan.record.epoch, epoch + 1, "it took too long");
    scene.record = plan.record;
    scene.node(0, |v| {
        v.state.highest.epoch = epoch + 1;
        (v.state.redis.role, v.state.redis.fenced) = (Role::Master, false);
    });
    let plan = scene.plan(late + 1000);
    let master = plan.record.master.clone().unwrap();
    assert_eq!((master.incarnation, master.epoch), (name(0), epoch + 1));
    assert!(!has_event(&plan, EventReason::CutoverFailed));
}

#[test]
fn a_source_that_cannot_be_held_must_stand_still_or_the_cutover_is_given_up() {
    let mut scene = followed();
    scene.annotate(CUTOVER, "7");
    scene.node(0, |v| {
        told(&mut v.state, |task| (task.can_pause, task.still_ms) = (false, 400));
    });
    let plan = scene.plan(NOW);
    assert!(promotions(&plan).is_empty() && plan.record.import.as_ref().unwrap().cutover.is_some());
    assert!(plan.waits.iter().any(|w| w.what.contains("stop the applications")));
    scene.record = plan.record;
    let mut still = scene.clone();
    still.node(0, |v| told(&mut v.state, |task| (task.can_pause, task.still_ms) = (false, 2100)));
    assert_eq!(promotions(&still.plan(NOW + 5000)).len(), 1);
    let plan = scene.plan(NOW + 121_000);
    assert!(has_event(&plan, EventReason::CutoverFailed) && plan.record.master.is_none());
    assert_eq!(plan.record.import.unwrap().cutover, None);
}

#[test]
fn a_node_that_is_lost_while_it_imports_is_followed_by_another_that_begins_anew() {
    let mut scene = followed();
    let epoch = scene.record.epoch;
    scene.silent(0, 130);
    let plan = scene.plan(NOW);
    assert!(has_event(&plan, EventReason::ImportInterrupted));
    assert!(plan.record.epoch > epoch, "what it was told last is void");
    let import = plan.record.import.clone().unwrap();
    assert_eq!((import.node, import.failures), (None, 1));
    scene.record = plan.record;
    let plan = scene.plan(NOW + 15_000);
    let (node, _) = import_of(&plan).unwrap();
    assert_ne!(node, name(0));
}

#[test]
fn the_chosen_node_dies_before_it_is_confirmed_and_the_source_has_everything() {
    let mut scene = followed();
    scene.annotate(CUTOVER, "7");
    scene.record = scene.plan(NOW).record;
    scene.node(0, |v| v.state.redis.process = Process::Exited);
    let plan = scene.plan(NOW + 1000);
    assert!(has_event(&plan, EventReason::FirstMasterLost));
    assert!(plan.record.master.is_none() && promotions(&plan).is_empty());
    let import = plan.record.import.clone().unwrap();
    assert_eq!((import.node, import.cutover, import.done), (None, None, None));
    scene.record = plan.record;
    let plan = scene.plan(NOW + 15_000);
    assert!(import_of(&plan).is_some_and(|(node, _)| node != name(0)));
    assert!(promotions(&plan).is_empty(), "a person has to ask again");
}

#[test]
fn a_manifest_without_its_source_promotes_nobody() {
    let mut scene = followed();
    scene.cluster.spec.bootstrap = None;
    let plan = scene.plan(NOW);
    assert!(plan.record.master.is_none());
    let message = &plan.status.condition(ConditionType::Degraded).unwrap().message;
    assert!(message.contains("fromRedis"), "{message}");
}

/// The same, with a source whose keys are copied one by one: the first pass is over.
fn copied() -> Scene {
    let mut scene = fresh();
    let from = serde_json::json!({"fromRedis": {"host": "203.0.113.5", "method": "copy"}});
    scene.cluster.spec.bootstrap = Some(serde_json::from_value(from).unwrap());
    let plan = scene.plan(NOW);
    let id = import_of(&plan).unwrap().1;
    let mut scene = followed();
    scene.cluster.spec.bootstrap = Some(
        serde_json::from_value(
            serde_json::json!({"fromRedis": {"host": "203.0.113.5", "method": "copy"}}),
        )
        .unwrap(),
    );
    scene.node(0, |v| {
        told(&mut v.state, |task| {
            task.id.clone_from(&id);
            task.copy = Some(CopyTask { copied: true, looked_at: 3, ..CopyTask::default() });
        });
    });
    scene
}

fn copy(scene: &mut Scene, edit: impl FnOnce(&mut CopyTask)) {
    scene.node(0, |v| edit(v.state.import.as_mut().unwrap().copy.as_mut().unwrap()));
}

/// The last pass that the plan asks for.
fn last_pass(plan: &Plan) -> Option<String> {
    commands(plan).into_iter().find_map(|(_, command)| match command {
        Command::Import { last_pass, .. } => Some(last_pass),
        _ => None,
    })
}

/// The keys are being compared.
fn compared() -> Scene {
    let mut scene = copied();
    scene.annotate(CUTOVER, "7");
    // It is in the record before the agent is told.
    scene.record = scene.plan(NOW).record;
    let plan = scene.plan(NOW);
    let pass = last_pass(&plan).expect("a last pass");
    assert!(!pass.is_empty() && promotions(&plan).is_empty() && plan.record.master.is_none());
    scene.record = plan.record;
    copy(&mut scene, |copy| copy.pass = pass);
    scene
}

#[test]
fn a_copy_says_how_far_it_is_and_the_others_wait_for_it() {
    let mut scene = copied();
    scene.node(0, |v| told(&mut v.state, |task| task.keys = 4000));
    scene.node(1, |v| v.state.redis.master_host.clear());
    copy(&mut scene, |copy| {
        (copy.copied, copy.looked_at, copy.keys_per_second) = (false, 1000, 250);
    });
    let plan = scene.plan(NOW);
    let (_, reason, message) = imported(&plan);
    assert_eq!((reason, commands(&plan)), (Reason::Importing, vec![]));
    assert!(message.contains("copied 1000 of about 4000 keys (250 keys/s"), "{message}");
    scene.annotate(CUTOVER, "7");
    assert!(has_event(&scene.plan(NOW), EventReason::CutoverRefused));
    let mut older = copied();
    older.node(0, |v| v.state.import.as_mut().unwrap().copy = None);
    let message = imported(&older.plan(NOW)).2;
    assert!(message.contains("image is older"), "{message}");
}

#[test]
fn a_copy_is_cut_over_once_its_keys_were_compared_and_are_the_same() {
    let mut scene = compared();
    let plan = scene.plan(NOW + 1000);
    assert_eq!((commands(&plan), plan.record.master), (vec![], None), "they are being compared");
    copy(&mut scene, |copy| {
        copy.done = true;
        copy.difference = Difference { changed: 3, added: 2, gone: 1, ..Difference::default() };
    });
    let plan = scene.plan(NOW + 2000);
    assert_eq!(promotions(&plan).len(), 1);
    scene.record = plan.record;
    scene.node(0, |v| {
        v.state.promoted = true;
        v.state.import = Some(ImportTask::default());
        (v.state.redis.role, v.state.redis.fenced, v.state.redis.link) =
            (Role::Master, false, Link::Down);
        v.state.redis.min_replicas = 1;
    });
    let plan = scene.plan(NOW + 3000);
    let (_, reason, message) = imported(&plan);
    assert_eq!(reason, Reason::ImportCompleted);
    assert!(message.contains("3 changed, 2 added, 1 gone; no key differs now"), "{message}");
}

#[test]
fn keys_that_differ_keep_a_copy_from_being_cut_over_until_a_person_accepts_it() {
    let differs = |copy: &mut CopyTask| {
        copy.done = true;
        copy.difference.left = 2;
        copy.difference.names = vec!["\"big\" of database 0 (96 MiB are more than 80 MiB)".into()];
    };
    let mut scene = compared();
    copy(&mut scene, differs);
    let plan = scene.plan(NOW + 2000);
    assert!(promotions(&plan).is_empty() && has_event(&plan, EventReason::CutoverFailed));
    let said = plan.record.import.clone().unwrap().error;
    assert!(said.contains("2 keys not copied: \"big\"") && said.contains("and 1 more"), "{said}");
    assert!(said.contains("--accept-difference"), "{said}");
    scene.record = plan.record;
    assert_eq!(last_pass(&scene.plan(NOW + 3000)), Some(String::new()), "the source is let go of");
    let mut scene = copied();
    scene.annotate(CUTOVER, "8 accept-difference");
    scene.record = scene.plan(NOW).record;
    let pass = last_pass(&scene.plan(NOW)).unwrap();
    copy(&mut scene, |copy| copy.pass = pass);
    copy(&mut scene, differs);
    assert_eq!(promotions(&scene.plan(NOW + 2000)).len(), 1);
}

#[test]
fn a_copy_of_a_source_that_cannot_be_held_needs_the_word_that_its_writes_are_stopped() {
    let mut scene = copied();
    scene.node(0, |v| v.state.import.as_mut().unwrap().can_pause = false);
    scene.annotate(CUTOVER, "7");
    let plan = scene.plan(NOW);
    assert!(has_event(&plan, EventReason::CutoverRefused) && last_pass(&plan).is_none());
    let said = plan.record.import.clone().unwrap().error;
    assert!(said.contains("--writes-stopped"), "{said}");
    scene.annotate(CUTOVER, "8 writes-stopped");
    assert!(has_event(&scene.plan(NOW), EventReason::CutoverStarted));
}

#[test]
fn a_last_pass_that_comes_to_nothing_ends_the_cutover_and_not_the_import() {
    let ends: [(&str, u64, fn(&mut CopyTask)); 3] = [
        ("somebody wrote", 1000, |copy| copy.failed = "somebody wrote to it".into()),
        ("began anew", 1000, |copy| *copy = CopyTask::default()),
        ("not compared in time", 36 * 60_000, |_| {}),
    ];
    for (why, later, edit) in ends {
        let mut scene = compared();
        copy(&mut scene, edit);
        let at = NOW + later;
        scene.node(0, |v| v.heard = akash_redis::model::time::UnixMs(at));
        let plan = scene.plan(at);
        assert!(has_event(&plan, EventReason::CutoverFailed), "{why}");
        let import = plan.record.import.clone().unwrap();
        assert_eq!(
            (import.node, import.cutover, import.pass),
            (Some(name(0)), None, String::new())
        );
        assert!(import.error.contains(why), "{}", import.error);
        assert!(promotions(&plan).is_empty() && plan.record.master.is_none());
    }
}
