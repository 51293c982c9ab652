//! Which actions of a person are allowed, and what is said of those that are not.

use super::*;
use crate::api::status::Status;
use crate::api::types::{Egress, Image};
use crate::model::incarnation::Membership;
use crate::model::money::PricePerBlock;
use crate::model::time::UnixMs;

/// A record of one node that got this far.
fn record(membership: Membership) -> Record {
    let mut record = Record::default();
    let incarnation =
        Incarnation { membership, ..Incarnation::new(0, 7, UnixMs(0), 0, PricePerBlock(1)) };
    record.incarnations.insert(IncarnationName("cache-0-a".into()), incarnation);
    record
}

fn cluster(nodes: &[(u32, &str, Phase, Option<i64>)]) -> RedisCluster {
    let mut cluster: RedisCluster = serde_json::from_value(serde_json::json!({
        "apiVersion": "akash-redis.dev/v1alpha1", "kind": "RedisCluster", "metadata": {"name": "cache"}, "spec": {"nodes": 3}
    }))
    .unwrap();
    let nodes = nodes.iter().map(|(ordinal, incarnation, phase, lag)| NodeStatus {
        ordinal: *ordinal,
        incarnation: (*incarnation).into(),
        phase: *phase,
        lag_bytes: *lag,
        ..NodeStatus::default()
    });
    cluster.status = Some(Status { nodes: nodes.collect(), ..Status::default() });
    cluster
}

fn running() -> RedisCluster {
    cluster(&[
        (0, "cache-0-a", Phase::Master, None),
        (1, "cache-1-b", Phase::Replica, Some(90)),
        (2, "cache-2-c", Phase::Replica, Some(10)),
    ])
}

#[test]
fn a_restart_names_each_node_and_another_one_for_the_same_is_another_word() {
    let mut cluster = running();
    let asked = |cluster: &RedisCluster| cluster.metadata.annotations[RESTART].clone();
    let whole = restart(&mut cluster, &Restart { node: None }).unwrap_err();
    assert!(whole.message.contains("no data volumes"), "{whole:?}");
    cluster.spec.resources.data =
        serde_json::from_value(serde_json::json!({"size": "4Gi", "class": "beta3"})).unwrap();
    cluster.metadata.resource_version = Some("7".into());
    restart(&mut cluster, &Restart { node: None }).unwrap();
    assert_eq!(asked(&cluster), "cache-0-a@7,cache-1-b@7,cache-2-c@7");
    cluster.metadata.resource_version = Some("8".into());
    let told = restart(&mut cluster, &Restart { node: Some("1".into()) }).unwrap();
    assert!(told.starts_with("cache-1-b is started anew"), "{told}");
    assert_eq!(asked(&cluster), "cache-1-b@8,cache-0-a@7,cache-2-c@7");
    let nobody = restart(&mut cluster, &Restart { node: Some("7".into()) });
    assert_eq!(nobody.unwrap_err().status, StatusCode::NOT_FOUND);
    cluster.spec.paused = true;
    assert!(restart(&mut cluster, &Restart { node: None }).is_err());
}

fn node(ordinal: u32) -> Migrate {
    Migrate { ordinal: Some(ordinal), incarnation: None }
}

fn to(name: &str) -> Switchover {
    Switchover { to: Some(name.into()) }
}

#[test]
fn migrations_add_up_and_forget_the_gone() {
    let mut cluster = running();
    cluster.metadata.annotations.insert(MIGRATE.into(), "cache-1-old,cache-0-a".into());
    migrate(&mut cluster, &node(1)).unwrap();
    assert_eq!(cluster.metadata.annotations[MIGRATE], "cache-0-a,cache-1-b");
    let by_name = Migrate { ordinal: None, incarnation: Some("cache-2-c".into()) };
    assert_eq!(
        migrate(&mut cluster, &by_name).unwrap(),
        "node 2 (cache-2-c) moves to another provider"
    );
    assert_eq!(migrate(&mut cluster, &node(1)).unwrap_err().status, StatusCode::CONFLICT);
}

#[test]
fn a_node_is_named_by_its_number_its_incarnation_or_not_at_all() {
    let moving = cluster(&[
        (0, "cache-0-a", Phase::Replica, None),
        (1, "cache-1-old", Phase::Leaving, None),
        (1, "cache-1-b", Phase::Master, None),
        (2, "cache-2-c", Phase::Leaving, None),
    ]);
    for (said, meant) in [
        (None, "cache-1-b"),
        (Some("1"), "cache-1-b"),
        (Some("cache-1-old"), "cache-1-old"),
        (Some("2"), "cache-2-c"),
    ] {
        assert_eq!(named_node(&moving, said).unwrap().0, meant, "{said:?}");
    }
    assert_eq!(named_node(&moving, Some("7")).unwrap_err().status, StatusCode::NOT_FOUND);
    assert_eq!(named_node(&moving, Some("cache-7-x")).unwrap_err().status, StatusCode::NOT_FOUND);
    let headless =
        named_node(&cluster(&[(0, "cache-0-a", Phase::Replica, None)]), None).unwrap_err();
    assert!(headless.message.starts_with("cache has no master now"), "{}", headless.message);
}

#[test]
fn a_migration_of_what_is_not_there_is_refused() {
    let missing = migrate(&mut running(), &node(7)).unwrap_err();
    assert_eq!(
        (missing.status, missing.message.as_str()),
        (StatusCode::NOT_FOUND, "cache has no node 7; its nodes are 0 to 2")
    );
    let empty =
        migrate(&mut cluster(&[(1, "cache-1-b", Phase::Leaving, None)]), &node(1)).unwrap_err();
    assert_eq!(empty.status, StatusCode::CONFLICT);
    assert_eq!(
        migrate(&mut running(), &Migrate::default()).unwrap_err().status,
        StatusCode::BAD_REQUEST
    );
    let unseen = &mut running();
    unseen.status = None;
    assert_eq!(migrate(unseen, &node(0)).unwrap_err().status, StatusCode::CONFLICT);
}

#[test]
fn a_switchover_goes_to_a_replica_in_sync_only() {
    let mut cluster = running();
    assert_eq!(
        switchover(&mut cluster, &Switchover::default()).unwrap(),
        "cache-2-c becomes master"
    );
    assert_eq!(cluster.metadata.annotations[MASTER], "cache-2-c@0");
    assert_eq!(switchover(&mut cluster, &to("1")).unwrap(), "cache-1-b becomes master");
    assert_eq!(
        switchover(&mut cluster, &to("cache-0-a")).unwrap_err().message,
        "cache-0-a is the master already"
    );
    assert_eq!(
        switchover(&mut cluster, &to("cache-9-z")).unwrap_err().status,
        StatusCode::NOT_FOUND
    );
    let syncing = &mut self::cluster(&[
        (0, "cache-0-a", Phase::Master, None),
        (1, "cache-1-b", Phase::Syncing, None),
    ]);
    assert!(
        switchover(syncing, &Switchover::default())
            .unwrap_err()
            .message
            .contains("no replica of cache is in sync")
    );
    assert!(
        switchover(syncing, &to("1"))
            .unwrap_err()
            .message
            .contains("is Syncing and not a replica in sync")
    );
}

#[test]
fn a_switchover_to_a_node_that_moves_means_the_one_in_sync() {
    let mut cluster = cluster(&[
        (1, "cache-1-new", Phase::Syncing, None),
        (1, "cache-1-old", Phase::Replica, Some(0)),
    ]);
    assert_eq!(switchover(&mut cluster, &to("1")).unwrap(), "cache-1-old becomes master");
}

#[test]
fn what_a_lease_was_made_with_stays_once_a_node_runs() {
    let old = running();
    let rows = [
        ("resources", "spec.resources.memory 1Gi -> 2Gi"),
        ("placement", "spec.placement.providers.deny [] -> [akash1x]"),
        ("mesh.tag", "spec.mesh.tag none -> tag:x"),
    ];
    for (field, told) in rows {
        let mut new = old.clone();
        match field {
            "resources" => {
                new.spec.resources.memory.0 *= 2;
                new.spec.resources.cpu.0 += 500;
            }
            "placement" => new.spec.placement.providers.deny.push("akash1x".into()),
            _ => new.spec.mesh.tag = Some("tag:x".into()),
        }
        new.spec.nodes = 5;
        let message =
            replace(&old, &record(Membership::Joined), &mut new.clone()).unwrap_err().message;
        assert!(message.contains(told), "{message}");
        let may_change = ["spec.nodes", "spec.resources.cpu"];
        assert!(may_change.iter().all(|field| !message.contains(field)), "{message}");
        // Nothing runs: no lease at all, or one of which nothing was heard.
        for record in [Record::default(), record(Membership::Expected)] {
            replace(&old, &record, &mut new.clone()).unwrap();
        }
    }
    let mut new = old.clone();
    new.spec.nodes = 5;
    new.spec.paused = true;
    new.spec.redis.config.insert("maxclients".into(), "5".into());
    // Nodes move to leases that are made with it.
    new.spec.resources.cpu.0 += 500;
    // Nodes are started anew with these, over the leases that they have.
    new.spec.mesh.egress = Egress::Proxychains;
    new.spec.mesh.serve = true;
    new.spec.image = Some(Image { name: "r/node@sha256:00".into(), redis: "8.2.3".into() });
    replace(&old, &record(Membership::Candidate), &mut new).unwrap();
}

#[test]
fn an_image_that_cannot_read_the_masters_data_is_refused() {
    for (master, replica, wanted, refused) in [
        ("8.2.3", "8.2.3", "7.0.15", true),
        ("8.2.3", "8.2.3", "8.2.4", false),
        ("7.0.15", "7.0.15", "8.2.3", false),
        // The first replica of an upgrade can be taken back: it copies the master's data anew.
        ("7.0.15", "8.2.3", "7.0.15", false),
        ("7.4.1", "7.4.1", "valkey 8.1.8", true),
    ] {
        let mut old = cluster(&[
            (0, "cache-0-a", Phase::Master, None),
            (1, "cache-1-b", Phase::Replica, None),
        ]);
        let nodes = &mut old.status.as_mut().unwrap().nodes;
        nodes[0].version = Some(master.into());
        nodes[1].version = Some(replica.into());
        let mut new = old.clone();
        new.spec.image = Some(Image { name: "r/node@sha256:00".into(), redis: wanted.into() });
        let told = replace(&old, &record(Membership::Candidate), &mut new);
        assert_eq!(told.is_err(), refused, "{master} -> {wanted}");
        if let Err(told) = told {
            assert!(told.message.contains("there is no way back over this step"), "{told:?}");
        }
    }
}

type Ask = fn(&mut RedisCluster) -> Result<String, Refusal>;

#[test]
fn nothing_is_asked_of_a_paused_cluster() {
    let mut cluster = running();
    assert!(resume(&mut cluster).unwrap().contains("is not paused"));
    assert!(pause(&mut cluster).unwrap().contains("akash-redis resume cache"));
    cluster.spec.resources.data =
        Some(serde_json::from_value(serde_json::json!({"size": "4Gi"})).unwrap());
    let before = cluster.clone();
    let asked: [(&str, Ask); 5] = [
        ("migrate", |c| migrate(c, &node(1))),
        ("switchover", |c| switchover(c, &to("1"))),
        ("scale", |c| scale(c, 5)),
        ("rejoin", |c| rejoin(c, &Rejoin { node: "1".into() })),
        ("close", |c| close(c, &Close { dseqs: vec![7], incarnations: vec![] })),
    ];
    for (what, ask) in asked {
        let refused = ask(&mut cluster).unwrap_err();
        assert_eq!(refused.status, StatusCode::CONFLICT, "{what}");
        assert!(refused.message.contains("spec.paused"), "{what}: {}", refused.message);
        assert!(refused.message.contains("`akash-redis resume cache`"), "{what}");
        assert_eq!(cluster, before, "{what}: nothing was noted");
        let mut awake = before.clone();
        awake.spec.paused = false;
        ask(&mut awake).unwrap();
    }
    cluster.metadata.annotations.insert(MIGRATE.into(), "cache-1-b,cache-9-gone".into());
    assert_eq!(
        resume(&mut cluster).unwrap(),
        "cache is resumed; what was asked for before goes on: cache-1-b moves to another provider"
    );
    assert!(!cluster.spec.paused);
}

#[test]
fn an_apply_from_a_file_keeps_what_commands_asked_for() {
    let mut old = running();
    migrate(&mut old, &node(1)).unwrap();
    let mut new = running();
    replace(&old, &Record::default(), &mut new).unwrap();
    assert_eq!(new.metadata.annotations[MIGRATE], "cache-1-b");
    new.metadata.annotations.insert(MIGRATE.into(), String::new());
    replace(&old, &Record::default(), &mut new).unwrap();
    assert_eq!(new.metadata.annotations[MIGRATE], "", "a file that says otherwise wins");
}

#[test]
fn nodes_that_shall_join_again_add_up_and_need_a_volume() {
    let mut cluster = running();
    let node = |n: &str| Rejoin { node: n.to_owned() };
    assert!(rejoin(&mut cluster, &node("1")).unwrap_err().message.contains("no data volume"));
    cluster.spec.resources.data =
        Some(serde_json::from_value(serde_json::json!({"size": "4Gi"})).unwrap());
    cluster.metadata.annotations.insert(REJOIN.into(), "cache-0-old".into());
    rejoin(&mut cluster, &node("1")).unwrap();
    rejoin(&mut cluster, &node("cache-0-a")).unwrap();
    assert_eq!(cluster.metadata.annotations[REJOIN], "cache-1-b,cache-0-a");
    assert_eq!(rejoin(&mut cluster, &node("7")).unwrap_err().status, StatusCode::NOT_FOUND);
}

#[test]
fn deployments_to_be_closed_add_up_and_are_named_on_what_is_being_deleted_too() {
    let mut cluster = running();
    cluster.metadata.deletion_timestamp = Some("2026-01-01T00:00:00Z".into());
    let close = |cluster: &mut RedisCluster, dseqs| {
        super::close(cluster, &Close { dseqs, incarnations: vec![] })
    };
    close(&mut cluster, vec![7]).unwrap();
    close(&mut cluster, vec![9, 7]).unwrap();
    assert_eq!(cluster.metadata.annotations[CLOSE], "9,7");
    assert_eq!(close(&mut cluster, vec![]).unwrap_err().status, StatusCode::BAD_REQUEST);
    close(&mut cluster, (100..164).collect()).unwrap();
    assert!(!cluster.metadata.annotations[CLOSE].contains("9,7"), "the oldest make room");
}

#[test]
fn nothing_changes_on_what_is_being_deleted() {
    let mut old = running();
    old.metadata.deletion_timestamp = Some("2026-01-01T00:00:00Z".into());
    assert_eq!(
        replace(&old, &Record::default(), &mut running()).unwrap_err().status,
        StatusCode::CONFLICT
    );
    assert_eq!(migrate(&mut old, &node(1)).unwrap_err().status, StatusCode::CONFLICT);
}
