//! Nodes that are started anew with what the manifest wants now: the rules of `plan/update.rs`.

use akash_redis::api::conditions::{ConditionStatus, ConditionType, Reason};
use akash_redis::api::events::EventReason;
use akash_redis::api::types::Image;
use akash_redis::model::change::Change;
use akash_redis::model::ids::IncarnationName;
use akash_redis::model::incarnation::{Deployed, Update};
use akash_redis::model::inventory::{Delivered, Failing, LeaseStatus};
use akash_redis::model::node::{Link, Process, Role};
use akash_redis::model::record::Promotion;
use akash_redis::model::redis_version::RedisVersion;
use akash_redis::model::step::{Command, Effect};
use akash_redis::model::time::UnixMs;
use akash_redis::plan::Plan;

use crate::scene::{
    NOW, Scene, ago, commands, degraded, device, given_up, has_event, image, lease_id, name,
    revision, wait_for,
};

type Edit = fn(&mut Scene);

/// The operator's image is another one than the nodes run.
fn another() -> Scene {
    let mut scene = Scene::whole();
    scene.image = image("bb");
    for n in 0..3 {
        scene.node(n, |v| v.state.revision = revision(&image("aa")).revision);
    }
    scene
}

fn delivers(plan: &Plan) -> Vec<IncarnationName> {
    let deliver = |e: &Effect| match e {
        Effect::DeliverManifest { incarnation, .. } => Some(incarnation.clone()),
        _ => None,
    };
    plan.steps.iter().filter_map(|s| deliver(&s.effect)).collect()
}

/// Its container runs the image of this digest, and its redis is as it is to be.
fn runs(scene: &mut Scene, n: u32, hex: &str) {
    scene.node(n, |v| {
        v.state.boot_id += "+";
        v.state.revision = revision(&image(hex)).revision;
        (v.connected, v.heard) = (true, UnixMs(NOW));
    });
}

/// Node `n` was sent the image of this digest so many seconds ago, and is not heard since.
fn sent(scene: &mut Scene, n: u32, hex: &str, seconds: u64) {
    let boot_id = format!("boot-{n}");
    let to = revision(&image(hex));
    scene.incarnation(n).update = Some(Update {
        to,
        at: ago(seconds),
        sent: Some(ago(seconds)),
        boot_id,
        handed: None,
        pending: false,
    });
    scene.inventory.delivered.insert(name(n), Delivered { at: ago(seconds), times: 1 });
    scene.silent(n, seconds);
    if n > 0 {
        scene.attach(&[3 - n]);
    }
}

fn condition(plan: &Plan, kind: ConditionType) -> (ConditionStatus, Reason, String) {
    let found = plan.status.conditions.iter().find(|c| c.kind == kind).expect("a condition");
    (found.status, found.reason, found.message.clone())
}

fn target(plan: &Plan) -> Option<IncarnationName> {
    match &plan.record.change {
        Some(Change::Switchover(switchover)) => Some(switchover.target.clone()),
        _ => None,
    }
}

/// Node `n` is master of this epoch, and the others follow it.
fn leads(scene: &mut Scene, n: u32, epoch: u64) {
    let quorum = scene.master().quorum;
    scene.record.change = None;
    scene.record.handover = None;
    (scene.record.epoch, scene.record.data_epoch, scene.record.granted) = (epoch, epoch, 0);
    scene.record.data_master = Some(name(n));
    scene.record.master = Some(Promotion {
        epoch,
        incarnation: name(n),
        run_id: format!("run-{n}"),
        boot_id: scene.inventory.nodes[&name(n)].state.boot_id.clone(),
        confirmed: true,
        since: UnixMs::default(),
        quorum,
    });
    for o in 0..3 {
        let own = n == o;
        scene.incarnation(o).raise(akash_redis::model::incarnation::Membership::Candidate);
        scene.node(o, |v| {
            (v.state.promoted, v.state.highest.epoch) = (own, epoch);
            let redis = &mut v.state.redis;
            (redis.role, redis.fenced, redis.link, redis.online_epoch) = if own {
                (Role::Master, false, Link::Down, 0)
            } else {
                (Role::Replica, true, Link::Up, epoch)
            };
            redis.master_host = if own { String::new() } else { format!("{}.mesh", name(n)) };
            (redis.min_replicas, redis.max_lag_seconds) = (u32::from(own), 8);
        });
    }
    scene.attach(&(0..3).filter(|o| *o != n).collect::<Vec<_>>());
    scene.configure();
}

#[test]
fn an_image_is_rolled_out_replicas_first_and_the_master_moves_before() {
    let mut scene = another();
    for n in [1, 2] {
        let plan = scene.plan(NOW);
        assert_eq!(delivers(&plan), [name(n)]);
        assert_eq!(
            plan.record.incarnations[&name(n)].update.as_ref().unwrap().sent,
            Some(UnixMs(NOW))
        );
        assert!(has_event(&plan, EventReason::NodeUpdating));
        let (status, reason, said) = condition(&plan, ConditionType::Progressing);
        assert_eq!((status, reason), (ConditionStatus::True, Reason::Updating));
        assert!(
            said.starts_with(&format!(
                "{} of 3 nodes run registry.example.org/node@bbbbbbbbbbbb",
                n - 1
            )),
            "{said}"
        );
        let rollout = plan.status.rollout.clone().unwrap();
        assert_eq!((rollout.updated, rollout.nodes, rollout.image), (n - 1, 3, image("bb").name));
        scene.record = plan.record;
        // It was taken, and is on its way.
        scene.inventory.delivered.insert(name(n), Delivered { at: UnixMs(NOW), times: 1 });
        scene.silent(n, 0);
        scene.attach(&[3 - n]);
        let plan = scene.plan(NOW);
        assert_eq!(delivers(&plan), []);
        assert_eq!(wait_for(&plan, "to serve again").map(|(limit, _)| limit), Some(Some(300)));
        assert!(!plan.status.problems.contains(&Reason::NodeUnreachable), "that is as it must be");
        // It is heard again, and copies the data.
        runs(&mut scene, n, "bb");
        scene.node(n, |v| v.state.redis.link = Link::Syncing);
        assert_eq!(delivers(&scene.plan(NOW)), [], "the next one waits until it is in sync");
        scene.node(n, |v| v.state.redis.link = Link::Up);
        scene.attach(&[1, 2]);
        let plan = scene.plan(NOW);
        assert!(has_event(&plan, EventReason::NodeUpdated), "{:?}", plan.events);
        let own = &plan.record.incarnations[&name(n)];
        assert_eq!((own.deployed.clone(), &own.update), (Some(revision(&image("bb"))), &None));
        assert_eq!(own.dseq, scene.record.incarnations[&name(n)].dseq, "the same lease");
        if n == 1 {
            scene.record = plan.record;
            scene.record.incarnations.get_mut(&name(2)).unwrap().update = None;
        }
    }
    // The master last: it hands over, and is started anew as a replica.
    let plan = scene.settle(NOW);
    assert_eq!((target(&plan), delivers(&plan)), (Some(name(1)), vec![]));
    leads(&mut scene, 1, 9);
    let plan = scene.plan(NOW);
    assert_eq!((target(&plan), delivers(&plan)), (None, vec![name(0)]));
    scene.record = plan.record;
    runs(&mut scene, 0, "bb");
    let plan = scene.settle(NOW);
    assert_eq!((plan.steps, plan.waits), (vec![], vec![]), "all of them run it");
    assert!(plan.record.incarnations.values().all(|i| i.update.is_none()));
    assert_eq!(plan.status.rollout.map(|r| (r.updated, r.nodes)), Some((3, 3)));
    assert_eq!(scene.record.master.as_ref().map(|p| p.incarnation.clone()), Some(name(1)));
}

#[test]
fn whatever_nodes_are_started_with_is_rolled_out_and_nothing_else() {
    let rows: [(&str, Edit, bool); 8] = [
        ("the operator's image", |s| s.image = image("bb"), true),
        (
            "the manifest's own image",
            |s| {
                let name = image("bb").name;
                s.cluster.spec.image = Some(Image { name, redis: "7.0.15".into() });
            },
            true,
        ),
        (
            "the same image, by the manifest",
            |s| {
                let name = image("aa").name;
                s.cluster.spec.image = Some(Image { name, redis: "7.0.15".into() });
            },
            false,
        ),
        (
            "a setting of the start",
            |s| drop(s.cluster.spec.redis.config.insert("io-threads".into(), "4".into())),
            true,
        ),
        (
            "a setting that is changed while redis runs",
            |s| drop(s.cluster.spec.redis.config.insert("timeout".into(), "4".into())),
            false,
        ),
        ("what redis dials with", |s| s.cluster.spec.mesh.serve = true, true),
        ("the number of nodes", |s| s.cluster.spec.nodes = 2, false),
        (
            "a record and an agent of an earlier version: nobody knows what runs",
            |s| s.incarnation(1).deployed = None,
            true,
        ),
    ];
    for (what, edit, rolls) in rows {
        let mut scene = Scene::whole();
        edit(&mut scene);
        assert_eq!(!delivers(&scene.plan(NOW)).is_empty(), rolls, "{what}");
    }
}

#[test]
fn nothing_is_started_anew_while_anything_else_is_not_well() {
    let rows: [(&str, Edit); 9] = [
        ("another one is silent", |s| s.silent(2, 5)),
        ("a replica is not linked", |s| s.node(2, |v| v.state.redis.link = Link::Down)),
        ("a redis does not run", |s| s.node(2, |v| v.state.redis.process = Process::Exited)),
        ("the master moves", |s| s.switching(1)),
        ("a place is empty", |s| drop(s.record.incarnations.remove(&name(2)))),
        ("a node moves to another provider", |s| {
            s.annotate(akash_redis::api::annotations::MIGRATE, name(2).0);
        }),
        ("another restart was asked for", |s| {
            s.annotate(akash_redis::api::annotations::RESTART, format!("{}@1", name(2)));
        }),
        ("the chain does not answer", |s| s.inventory.chain.error = Some("x".into())),
        ("it is paused", |s| s.cluster.spec.paused = true),
    ];
    for (what, edit) in rows {
        let mut scene = another();
        edit(&mut scene);
        assert_eq!(delivers(&scene.plan(NOW)), [], "{what}");
    }
}

#[test]
fn the_operators_own_image_waits_for_the_maintenance_window() {
    let mut scene = another();
    let opens = |scene: &mut Scene, window: &str| {
        let maintenance = serde_json::json!({ "window": window });
        scene.cluster.spec.maintenance = serde_json::from_value(maintenance).unwrap();
    };
    // NOW is no Sunday.
    opens(&mut scene, "Sun 02:00-03:00");
    let plan = scene.plan(NOW);
    assert_eq!(delivers(&plan), []);
    assert!(wait_for(&plan, "the maintenance window").is_some(), "{:?}", plan.waits);
    opens(&mut scene, "00:00-23:59");
    assert_eq!(delivers(&scene.plan(NOW)), [name(1)]);
    // What the manifest itself asks for does not wait.
    opens(&mut scene, "Sun 02:00-03:00");
    scene.cluster.spec.image = Some(Image { name: image("bb").name, redis: "7.0.15".into() });
    assert_eq!(delivers(&scene.plan(NOW)), [name(1)]);
}

#[test]
fn what_does_not_start_stops_at_the_first_node_and_is_left_alone() {
    let rows: [(&str, Edit, &str); 6] = [
        (
            "it never comes back",
            |s| {
                let status = LeaseStatus::Deployed { ready: 0, uris: vec![] };
                s.inventory.leases.insert(lease_id(101, 1), status);
            },
            "its provider says that its container is not running",
        ),
        ("nobody knows why", |_| {}, "its provider was not asked yet"),
        (
            "its redis ends at once",
            |s| {
                runs(s, 1, "bb");
                s.node(1, |v| {
                    v.state.redis.process = Process::Exited;
                    (v.state.failed_starts, v.state.failed_start_line) =
                        (5, "bad directive".into());
                });
                s.incarnation(1).redis_down = Some(ago(3000));
            },
            "its redis does not start (\"bad directive\")",
        ),
        (
            "it does not get in sync",
            |s| {
                runs(s, 1, "bb");
                s.node(1, |v| v.state.redis.link = Link::Down);
            },
            "its redis runs and is not in sync",
        ),
        (
            "its provider runs the old one",
            |s| {
                s.node(1, |v| (v.connected, v.heard) = (true, UnixMs(NOW)));
            },
            "its provider took the manifest and runs what it ran before",
        ),
        (
            "its provider does not take it",
            |s| {
                s.inventory.delivered.clear();
                let lease = lease_id(101, 1);
                let effect = Effect::DeliverManifest { incarnation: name(1), lease };
                s.inventory.failing.push(Failing { effect, times: 3, error: "HTTP 500".into() });
            },
            "its provider does not take the manifest (HTTP 500)",
        ),
    ];
    for (what, edit, said) in rows {
        let mut scene = another();
        // Long after every other limit.
        sent(&mut scene, 1, "bb", 3000);
        edit(&mut scene);
        let plan = scene.plan(NOW);
        let problems = &plan.status.problems;
        assert!(problems.contains(&Reason::UpdateStalled), "{what}: {problems:?}");
        let (reason, message) = degraded(&plan);
        assert_eq!(reason, Reason::UpdateStalled, "{what}: the cause is named first");
        assert!(message.contains(said), "{what}: {message}");
        assert!(message.contains("take the change back"), "{what}: {message}");
        assert_eq!(given_up(&scene, &plan), [], "{what}: its data are not thrown away");
        let discards = commands(&plan).iter().any(|(_, c)| matches!(c, Command::Discard { .. }));
        assert!(!discards, "{what}");
        let others = delivers(&plan).into_iter().filter(|n| *n != name(1)).count();
        assert_eq!((others, target(&plan)), (0, None), "{what}: the others are untouched");
        let (status, reason, told) = condition(&plan, ConditionType::Progressing);
        assert_eq!((status, reason), (ConditionStatus::True, Reason::Updating), "{what}");
        assert!(told.starts_with("0 of 3 nodes run"), "{what}: {told}");
    }
}

#[test]
fn going_back_makes_the_first_node_well_again() {
    for hex in ["aa", "cc"] {
        let mut scene = another();
        sent(&mut scene, 1, "bb", 3000);
        scene.image = image(hex);
        let plan = scene.plan(NOW);
        assert_eq!(delivers(&plan), [name(1)], "{hex}: although the cluster is not whole");
        let update = plan.record.incarnations[&name(1)].update.clone().unwrap();
        assert_eq!((update.to, update.sent), (revision(&image(hex)), Some(UnixMs(NOW))));
        assert_eq!(given_up(&scene, &plan), []);
        assert!(!plan.status.problems.contains(&Reason::UpdateStalled), "it is tried again");
        scene.record = plan.record;
        // The old container may still be heard: it is not taken for the new one.
        scene.inventory.delivered.insert(name(1), Delivered { at: UnixMs(NOW), times: 2 });
        runs(&mut scene, 1, hex);
        scene.attach(&[1, 2]);
        let plan = scene.plan(NOW);
        assert_eq!(plan.record.incarnations[&name(1)].update, None);
        if hex == "aa" {
            scene.record = plan.record;
            let plan = scene.plan(NOW);
            assert_eq!((plan.steps, plan.waits), (vec![], vec![]), "all is as it was");
        }
    }
}

#[test]
fn a_node_that_is_no_better_with_what_the_others_run_is_replaced() {
    // Back at what the others run, and long enough.
    for (seconds, replaced) in [(200, false), (400, true)] {
        let mut scene = another();
        scene.image = image("aa");
        sent(&mut scene, 1, "aa", seconds);
        scene.silent(1, 3000);
        assert_eq!(given_up(&scene, &scene.plan(NOW)).len(), usize::from(replaced), "{seconds}");
    }
    // A redis that does not start with its volume gets it anew.
    for (seconds, dropped) in [(200, false), (400, true)] {
        let mut scene = another();
        scene.image = image("aa");
        sent(&mut scene, 1, "aa", seconds);
        runs(&mut scene, 1, "aa");
        scene.node(1, |v| {
            v.state.redis.process = Process::Exited;
            v.state.failed_starts = 5;
        });
        let plan = scene.plan(NOW);
        let discards = commands(&plan).iter().any(|(_, c)| matches!(c, Command::Discard { .. }));
        assert_eq!(discards, dropped, "{seconds}");
    }
}

#[test]
fn a_manifest_that_was_lost_on_its_way_is_sent_again() {
    let rows: [(&str, Edit, bool); 5] = [
        ("it was taken", |_| {}, false),
        ("another process sent it, a moment ago", |s| s.inventory.delivered.clear(), false),
        (
            "another process sent it long ago",
            |s| {
                s.inventory.delivered.clear();
                let update = s.incarnation(1).update.as_mut().unwrap();
                update.sent = Some(ago(31));
            },
            true,
        ),
        (
            "it failed",
            |s| {
                s.inventory.delivered.clear();
                let lease = lease_id(101, 1);
                let effect = Effect::DeliverManifest { incarnation: name(1), lease };
                s.inventory.failing.push(Failing { effect, times: 1, error: "x".into() });
            },
            true,
        ),
        (
            "what was taken is what was sent before",
            |s| {
                s.inventory.delivered.insert(name(1), Delivered { at: ago(100), times: 1 });
                let update = s.incarnation(1).update.as_mut().unwrap();
                (update.at, update.sent) = (ago(60), Some(ago(60)));
            },
            true,
        ),
    ];
    for (what, edit, again) in rows {
        let mut scene = another();
        sent(&mut scene, 1, "bb", 5);
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(!delivers(&plan).is_empty(), again, "{what}");
        let update = plan.record.incarnations[&name(1)].update.clone();
        assert_eq!(update, scene.record.incarnations[&name(1)].update, "{what}: one deadline");
    }
}

#[test]
fn a_node_without_a_volume_joins_anew_and_its_old_device_goes() {
    let mut scene = another();
    scene.cluster.spec.resources.data = None;
    scene.configure();
    let plan = scene.plan(NOW);
    assert_eq!(delivers(&plan), [name(1)]);
    let own = &plan.record.incarnations[&name(1)];
    assert_eq!((&own.device, &own.former_devices), (&None, &vec![device(1).id]));
    let deletes =
        |plan: &Plan| plan.steps.iter().any(|s| matches!(s.effect, Effect::DeleteDevice { .. }));
    assert!(!deletes(&plan), "its old container still runs");
    scene.record = plan.record;
    let plan = scene.plan(NOW);
    assert_eq!(plan.record.incarnations[&name(1)].device, None, "nor is it taken for the new one");
    assert!(!deletes(&plan));
    scene.record = plan.record;
    scene.mesh().devices.push(akash_redis::model::mesh::Device { id: "new".into(), ..device(1) });
    runs(&mut scene, 1, "bb");
    scene.node(1, |v| v.state.mesh.device_id = "new".into());
    let plan = scene.settle(NOW);
    assert_eq!(plan.record.incarnations[&name(1)].device.as_deref(), Some("new"));
    assert!(!plan.status.problems.contains(&Reason::KeyCompromised));
    // The control API mints the key.
    let mut scene = another();
    scene.cluster.spec.resources.data = None;
    scene.configure();
    scene.inventory.mesh.error = Some("away".into());
    assert_eq!(delivers(&scene.plan(NOW)), []);
}

/// One node with its data volume, or without.
fn alone(data: bool) -> Scene {
    let mut scene = another();
    scene.cluster.spec.nodes = 1;
    for n in [1, 2] {
        scene.record.incarnations.remove(&name(n));
        scene.inventory.nodes.remove(&name(n));
        scene.chain().deployments.remove(&(100 + u64::from(n)));
        scene.mesh().devices.retain(|d| d.id != device(n).id);
    }
    if !data {
        scene.cluster.spec.resources.data = None;
    }
    scene.attach(&[]);
    scene.configure();
    scene
}

#[test]
fn the_only_node_is_started_anew_with_its_volume_and_never_without() {
    let plan = alone(true).plan(NOW);
    assert_eq!((delivers(&plan), target(&plan)), (vec![name(0)], None));
    let plan = alone(false).plan(NOW);
    assert_eq!(delivers(&plan), []);
    let (reason, said) = degraded(&plan);
    assert_eq!(reason, Reason::UpdateRefused);
    assert!(said.contains("its data would end with its container"), "{said}");
}

#[test]
fn a_lease_with_other_resources_takes_no_other_manifest() {
    let mut scene = another();
    scene.incarnation(1).resources = "other".into();
    let plan = scene.plan(NOW);
    assert_eq!(delivers(&plan), []);
    let (reason, said) = degraded(&plan);
    assert_eq!(reason, Reason::UpdateRefused);
    assert!(said.contains("`akash-redis migrate cache cache-1-aaaa`"), "{said}");
}

/// All nodes run this version, and the image that is wanted is said to hold that one.
fn upgrading(from: &str, to: &str) -> Scene {
    let mut scene = another();
    scene.image.redis = RedisVersion::parse(to);
    for n in 0..3 {
        scene.node(n, |v| from.clone_into(&mut v.state.redis.version));
    }
    scene
}

#[test]
fn an_upgrade_goes_along_the_table_and_never_back() {
    for (from, to, goes) in [
        ("7.0.15", "8.2.3", true),
        ("8.2.3", "8.2.4", true),
        ("8.2.3", "7.4.1", true),
        ("8.2.3", "7.0.15", false),
        ("7.4.1", "valkey 8.1.8", false),
        ("7.2.4", "valkey 8.1.8", true),
        ("valkey 9.1.2", "valkey 8.0.1", true),
    ] {
        let scene = upgrading(from, to);
        let plan = scene.plan(NOW);
        assert_eq!(!delivers(&plan).is_empty(), goes, "{from} -> {to}");
        let refused = plan.status.problems.contains(&Reason::UpdateRefused);
        assert_eq!(refused, !goes, "{from} -> {to}");
    }
    let (_, said) = degraded(&upgrading("8.2.3", "7.0.15").plan(NOW));
    assert!(
        said.contains(
            "cache-0-aaaa is master and runs Redis 8.2.3, whose data Redis 7.0.15 cannot read"
        ),
        "{said}"
    );
}

/// The last step of an upgrade: the old master cannot read what the new one writes, and is about to
/// be another.
#[test]
fn an_old_master_that_cannot_follow_hands_over_all_the_same() {
    let mut scene = upgrading("7.0.15", "8.2.3");
    for n in [1, 2] {
        runs(&mut scene, n, "bb");
        scene.node(n, |v| "8.2.3".clone_into(&mut v.state.redis.version));
        scene.incarnation(n).deployed = Some(revision(&image("bb")));
    }
    let plan = scene.settle(NOW);
    assert_eq!(target(&plan), Some(name(1)));
    leads(&mut scene, 1, 9);
    scene.node(0, |v| {
        v.state.redis.link = Link::Down;
        v.state.redis.master_host.clear();
    });
    scene.attach(&[2]);
    let plan = scene.plan(NOW);
    assert_eq!(delivers(&plan), [name(0)], "it is changed without having followed");
    assert!(crate::scene::follows(&plan).is_empty(), "a full sync would empty it");
}

#[test]
fn an_image_that_is_not_what_it_is_said_to_be_goes_no_further() {
    let mut scene = upgrading("7.0.15", "8.2.3");
    runs(&mut scene, 1, "bb");
    scene.incarnation(1).deployed = Some(revision(&image("bb")));
    scene.node(1, |v| "7.4.1".clone_into(&mut v.state.redis.version));
    let plan = scene.plan(NOW);
    assert_eq!(delivers(&plan), []);
    assert!(plan.status.problems.contains(&Reason::ImageVersionWrong));
    let (_, said) = degraded(&plan);
    assert!(
        said.contains("cache-1-aaaa runs Redis 7.4.1, and the operator's node.redis says that"),
        "{said}"
    );
    // Nor is a node bought that would run it.
    scene.record.incarnations.remove(&name(2));
    scene.inventory.id_pool.suffixes = vec!["bbbb".into()];
    let bought = |scene: &Scene| scene.plan(NOW).record.incarnations.len() > 2;
    assert!(!bought(&scene));
    scene.node(1, |v| "8.2.3".clone_into(&mut v.state.redis.version));
    assert!(bought(&scene));
}

#[test]
fn version_skew_is_a_condition() {
    for (versions, status, reason) in [
        (["7.0.15"; 3], ConditionStatus::False, Reason::OneVersion),
        (["8.2.3", "8.2.3", "8.2.4"], ConditionStatus::False, Reason::VersionsCompatible),
        (["7.0.15", "8.2.3", "8.2.3"], ConditionStatus::True, Reason::VersionSkew),
        ([""; 3], ConditionStatus::Unknown, Reason::VersionsUnknown),
    ] {
        let mut scene = Scene::whole();
        for (n, version) in (0..).zip(versions) {
            scene.node(n, |v| version.clone_into(&mut v.state.redis.version));
        }
        let plan = scene.plan(NOW);
        let (found, why, said) = condition(&plan, ConditionType::VersionSkew);
        assert_eq!((found, why), (status, reason), "{versions:?}: {said}");
        let degraded = plan.status.problems.contains(&Reason::VersionSkew);
        assert_eq!(degraded, status == ConditionStatus::True, "{versions:?}");
    }
}

#[test]
fn an_older_agent_that_does_not_say_what_it_runs_is_known_by_its_start() {
    let mut scene = Scene::whole();
    scene.image = image("bb");
    let plan = scene.plan(NOW);
    assert_eq!(delivers(&plan), [name(1)]);
    scene.record = plan.record;
    scene.inventory.delivered.insert(name(1), Delivered { at: UnixMs(NOW), times: 1 });
    let plan = scene.plan(NOW);
    assert!(plan.record.incarnations[&name(1)].update.is_some(), "it was not started since");
    scene.node(1, |v| v.state.boot_id += "+");
    let plan = scene.plan(NOW);
    let deployed: Option<Deployed> = plan.record.incarnations[&name(1)].deployed.clone();
    assert_eq!(deployed, Some(revision(&image("bb"))));
}

/// Three nodes of which both replicas must confirm.
fn all_confirm() -> Scene {
    let mut scene = another();
    let spec = &mut scene.cluster.spec;
    spec.durability = akash_redis::api::types::Durability::Confirmed;
    (spec.confirmations, spec.allow_write_stops) = (Some(2), true);
    spec.budget.max_per_month = Some("60act".parse().unwrap());
    scene.limits.global = akash_redis::model::money::Uact(100_000_000);
    let quorum = Some(akash_redis::model::step::Quorum { min_replicas: 2, max_lag_seconds: 8 });
    scene.master().quorum = quorum;
    scene.node(0, |v| v.state.redis.min_replicas = 2);
    scene.record.confirmations =
        Some(akash_redis::model::record::Confirmations { counted: 2, raise: None });
    scene.inventory.id_pool.suffixes = vec!["bbbb".into()];
    scene.configure();
    scene
}

#[test]
fn where_every_replica_must_confirm_one_more_is_bought_before() {
    let mut scene = all_confirm();
    let plan = scene.plan(NOW);
    assert_eq!(delivers(&plan), []);
    assert!(has_event(&plan, EventReason::SurgeStarted), "{:?}", plan.events);
    assert_eq!(plan.record.surge.map(|s| s.skipped), Some(false));
    scene.record = plan.record;
    let plan = scene.plan(NOW);
    let bought: Vec<_> = plan.record.incarnations.values().map(|i| i.ordinal).collect();
    assert_eq!(bought, [0, 1, 2, 3], "a node with a number of its own");
    assert_eq!(delivers(&plan), [], "and it is waited for");
    // One replica must confirm: no more is needed.
    let mut one = all_confirm();
    one.cluster.spec.confirmations = Some(1);
    one.record.confirmations = None;
    one.configure();
    assert_eq!(one.plan(NOW).record.surge, None);
}

#[test]
fn where_the_budget_has_no_room_for_it_writes_stop_as_the_manifest_allows() {
    let mut scene = all_confirm();
    scene.cluster.spec.budget.max_per_month = Some("9act".parse().unwrap());
    let plan = scene.plan(NOW);
    assert!(has_event(&plan, EventReason::SurgeSkipped), "{:?}", plan.events);
    assert_eq!(delivers(&plan), [name(1)]);
    scene.record = plan.record;
    assert!(!has_event(&scene.plan(NOW), EventReason::SurgeSkipped), "once");
    // Nor does it wait for one that nobody sells.
    let mut late = all_confirm();
    late.record.surge = Some(akash_redis::model::record::Surge { at: ago(1000), skipped: false });
    assert!(has_event(&late.plan(NOW), EventReason::SurgeSkipped));
    assert!(late.settle(NOW).record.incarnations[&name(1)].update.is_some());
}

#[test]
fn the_node_that_was_bought_for_it_leaves_at_the_end() {
    let mut scene = all_confirm();
    scene.record.surge = Some(akash_redis::model::record::Surge { at: ago(100), skipped: false });
    for n in 0..3 {
        scene.incarnation(n).deployed = Some(revision(&image("bb")));
        scene.node(n, |v| v.state.revision = revision(&image("bb")).revision);
    }
    let (mut extra, mut own) =
        (scene.inventory.nodes[&name(2)].clone(), scene.incarnation(2).clone());
    (own.ordinal, own.dseq, own.device) = (3, 103, Some(device(3).id));
    scene.record.incarnations.insert(name(3), own);
    extra.state.incarnation = name(3).0;
    extra.state.mesh.dns_name = format!("{}.mesh", name(3));
    extra.state.mesh.device_id = device(3).id;
    scene.heard(3, extra);
    scene.lease(3, 3);
    scene.mesh().devices.push(device(3));
    scene.attach(&[1, 2, 3]);
    scene.configure();
    let plan = scene.plan(NOW);
    assert!(has_event(&plan, EventReason::SurgeEnded), "{:?} {:?}", plan.events, plan.waits);
    assert_eq!(plan.record.surge, None);
    scene.record = plan.record;
    assert_eq!(given_up(&scene, &scene.plan(NOW)), [name(3)]);
}
