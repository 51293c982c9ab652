//! What an operator without its record makes of a cluster: the rules of `plan/recover.rs`.

use std::collections::BTreeMap;

use akash_redis::api::kept_copy::KeptCopy;
use akash_redis::api::recover::FoundCluster;
use akash_redis::api::types::RedisCluster;
use akash_redis::model::ids::IncarnationName;
use akash_redis::model::incarnation::{Condemned, Membership};
use akash_redis::model::inventory::Constants;
use akash_redis::model::node::{Link, NodeState, Process, Role};
use akash_redis::model::record::Record;
use akash_redis::model::time::UnixMs;
use akash_redis::plan::recover::{Copy, EPOCH_STEP, Found, Recovered, recover};

use crate::scene::{NOW, QUARANTINE, Scene, TERM, installation, name, promoted};

/// What is left of a whole cluster once its record is gone.
struct Lost {
    scene: Scene,
    copies: BTreeMap<IncarnationName, Copy>,
    applied: Option<RedisCluster>,
    term: u64,
}

fn dseq(n: u32) -> u64 {
    name(n).dseq(&installation())
}

fn copy_of(scene: &Scene, edit: impl FnOnce(&mut KeptCopy)) -> Copy {
    let mut copy = KeptCopy::of(&scene.cluster, &scene.record, &installation());
    edit(&mut copy);
    Copy::Valid(Box::new(copy))
}

/// Three nodes that answer; the operator is a later one.
fn lost() -> Lost {
    let mut scene = Scene::whole();
    scene.cluster.metadata.generation = Some(4);
    let deployments = std::mem::take(&mut scene.chain().deployments);
    for (mut deployment, n) in deployments.into_values().zip(0..) {
        deployment.dseq = dseq(n);
        scene.incarnation(n).dseq = dseq(n);
        scene.chain().deployments.insert(dseq(n), deployment);
        let host = |n: u32| format!("{}.mesh", name(n).hostname(&installation()));
        scene.node(n, |v| {
            v.state.mesh.dns_name = host(n);
            if v.state.redis.role == Role::Replica {
                v.state.redis.master_host = host(0);
            }
        });
    }
    let copies = (0..3).map(|n| (name(n), copy_of(&scene, |_| {}))).collect();
    Lost { scene, copies, applied: None, term: TERM + 1 }
}

impl Lost {
    fn find(&self) -> (FoundCluster, Option<Recovered>) {
        let constants = Constants {
            installation: installation(),
            owner: "akash1me".into(),
            term: self.term,
            started: UnixMs(NOW),
        };
        let found = Found {
            cluster: "cache",
            applied: self.applied.as_ref(),
            chain: self.scene.inventory.chain.value.as_ref().unwrap(),
            mesh: self.scene.inventory.mesh.value.as_ref().unwrap(),
            nodes: &self.scene.inventory.nodes,
            copies: &self.copies,
            constants: &constants,
            quarantine_tag: QUARANTINE,
            now: UnixMs(NOW),
        };
        let (report, recovered) = recover(&found);
        if let Some(recovered) = &recovered {
            assert_eq!(recovered.record.flaws(), Vec::<String>::new());
        }
        assert_eq!(report.refused.is_none(), recovered.is_some(), "{report:#?}");
        (report, recovered)
    }

    fn record(&self) -> Record {
        let (report, recovered) = self.find();
        recovered.unwrap_or_else(|| panic!("{report:#?}")).record
    }

    fn refused(&self) -> String {
        self.find().0.refused.expect("it is refused")
    }

    fn state(&mut self, n: u32, edit: impl FnOnce(&mut NodeState)) {
        self.scene.node(n, |v| edit(&mut v.state));
    }

    fn silent(&mut self, n: u32) {
        self.scene.silent(n, 60);
        self.copies.remove(&name(n));
    }

    /// Node `n` takes itself for the master of this epoch, with these replicas.
    fn leads(&mut self, n: u32, epoch: u64, replicas: bool) {
        let attached = self.scene.inventory.nodes[&name(0)].state.redis.replicas.clone();
        self.state(n, |s| {
            (s.promoted, s.highest.epoch) = (true, epoch);
            (s.redis.role, s.redis.fenced, s.redis.link) = (Role::Master, false, Link::Down);
            (s.redis.min_replicas, s.redis.max_lag_seconds) = (1, 8);
            s.redis.master_host.clear();
            s.redis.replicas = if replicas { attached } else { Vec::new() };
        });
    }
}

#[test]
fn the_record_of_a_whole_cluster_is_what_it_was_but_for_its_epoch() {
    let lost = lost();
    let (report, recovered) = lost.find();
    let Recovered { cluster, record } = recovered.expect("recovered");
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!((report.master, report.epoch, report.next_epoch), (Some(name(0).0), 1, EPOCH_STEP));
    assert!(
        report.manifest.starts_with("generation 4, as cache-0-aaaa, cache-1-aaaa"),
        "{}",
        report.manifest
    );
    let roles: Vec<_> = report.nodes.iter().map(|n| n.role.as_str()).collect();
    assert_eq!(
        roles,
        ["master", "replica of cache-0-aaaa-abcdef", "replica of cache-0-aaaa-abcdef"]
    );
    assert_eq!(cluster.spec, lost.scene.cluster.spec);
    let before = &lost.scene.record;
    assert_eq!((record.epoch, record.term), (EPOCH_STEP, TERM + 1));
    assert_eq!(
        (&record.master, record.data_epoch, &record.data_master),
        (&before.master, 1, &Some(name(0)))
    );
    for (name, now) in &record.incarnations {
        let then = &before.incarnations[name];
        assert_eq!(
            (now.dseq, now.membership, &now.device),
            (then.dseq, then.membership, &then.device),
            "{name}"
        );
        assert_eq!((now.max_price, now.epoch_floor), (then.max_price, then.epoch_floor), "{name}");
    }
}

#[test]
fn the_master_stays_master_in_the_first_plan_after_it() {
    let lost = lost();
    let mut scene = lost.scene.clone();
    scene.record = lost.record();
    scene.term = lost.term;
    let plan = scene.plan_as(NOW, lost.term, NOW);
    assert_eq!(promoted(&plan), [name(0)]);
    assert!(plan.record.change.is_none() && plan.record.epoch == EPOCH_STEP);
    assert!(plan.record.incarnations.values().all(|i| i.condemned.is_none()));
}

#[test]
fn the_next_epoch_is_far_above_anything_that_is_known() {
    for (seen, next) in [(1, 1), (999_999, 1), (1_000_000, 2), (5_400_000, 6)] {
        let mut lost = lost();
        lost.state(2, |s| s.highest.epoch = seen);
        assert_eq!(lost.record().epoch, next * EPOCH_STEP, "{seen}");
    }
    let mut lost = lost();
    lost.state(2, |s| s.highest.epoch = u64::MAX - 1);
    let (report, _) = lost.find();
    assert!(report.problems[0].contains("is not believed"), "{report:#?}");
    assert_eq!(lost.record().epoch, EPOCH_STEP);
}

type Edit = fn(&mut Lost);

#[test]
fn where_it_is_not_certain_who_is_master_nothing_is_written() {
    let rows: [(&str, Edit, &str); 8] = [
        ("two take writes", |l| l.leads(1, 2, true), "two masters"),
        (
            "a change was under way, and the new master may be the one that is silent",
            |l| {
                l.state(1, |s| s.highest.epoch = 2);
                l.silent(2);
            },
            "cache-1-aaaa knows of epoch 2",
        ),
        (
            "it takes no writes, and another one may have been promoted",
            |l| {
                l.state(0, |s| s.redis.replicas.clear());
                l.silent(2);
            },
            "takes no writes, because too few replicas",
        ),
        (
            "nobody leads or follows, and one is silent",
            |l| {
                l.silent(0);
                for n in [1, 2] {
                    l.state(n, |s| s.redis.link = Link::Down);
                }
            },
            "cache-0-aaaa may be the master",
        ),
        (
            "the one that takes writes was given up",
            |l| {
                let given_up = Some("it was silent".to_owned());
                let copy =
                    copy_of(&l.scene, |c| c.nodes.get_mut(&name(0)).unwrap().given_up = given_up);
                l.copies.insert(name(2), copy);
            },
            "was given up before (it was silent)",
        ),
        ("the clock is behind", |l| l.state(1, |s| s.highest.term = 900), "term 900"),
        ("nobody keeps a manifest", |l| l.copies.clear(), "no node keeps a manifest"),
        ("nothing runs", |l| l.scene.chain().deployments.clear(), "no deployment of it is active"),
    ];
    for (what, edit, why) in rows {
        let mut lost = lost();
        edit(&mut lost);
        let refused = lost.refused();
        assert!(refused.contains(why), "{what}: {refused}");
    }
}

#[test]
fn one_that_took_itself_for_master_once_and_takes_no_writes_is_no_second_master() {
    let mut lost = lost();
    lost.leads(1, 2, true);
    lost.state(0, |s| s.redis.replicas.clear());
    assert_eq!(lost.record().master.unwrap().incarnation, name(1));
}

#[test]
fn a_node_that_does_not_answer_is_a_member_by_the_masters_word() {
    let mut lost = lost();
    lost.silent(2);
    lost.state(0, |s| s.redis.replicas.truncate(1));
    let (report, _) = lost.find();
    assert!(report.problems.iter().any(|p| p == "cache-2-aaaa does not answer"), "{report:#?}");
    let record = lost.record();
    let membership = |n: u32| record.incarnations[&name(n)].membership;
    assert_eq!((membership(1), membership(2)), (Membership::Candidate, Membership::Member));
}

#[test]
fn a_silent_master_is_the_one_that_its_replicas_follow() {
    let mut lost = lost();
    lost.silent(0);
    lost.silent(2);
    let record = lost.record();
    let master = record.master.unwrap();
    assert_eq!((master.incarnation, master.epoch, master.quorum), (name(0), 1, None));
    let membership = |n: u32| record.incarnations[&name(n)].membership;
    assert_eq!(membership(1), Membership::Candidate, "it is linked");
    assert_eq!(membership(2), Membership::Candidate, "by the copy of the same epoch");
}

#[test]
fn where_everybody_answers_and_nobody_leads_a_cold_start_decides() {
    let mut lost = lost();
    for n in 0..3 {
        lost.state(n, |s| {
            (s.redis.role, s.redis.fenced, s.redis.link) = (Role::Replica, true, Link::Down);
            (s.redis.online_epoch, s.promoted) = (0, false);
            s.redis.master_host.clear();
        });
    }
    let record = lost.record();
    assert_eq!((&record.master, record.data_epoch), (&None, 1), "an empty node must not win");
    let mut scene = lost.scene.clone();
    (scene.record, scene.term) = (record, lost.term);
    let plan = scene.settle(NOW);
    assert!(plan.record.master.is_some(), "the newest history is promoted");
}

#[test]
fn a_copy_that_is_older_or_counts_for_nothing_gives_way() {
    let mut lost = lost();
    let old = copy_of(&lost.scene, |c| {
        c.manifest.metadata.generation = Some(2);
        c.manifest.spec.nodes = 1;
    });
    lost.copies.insert(name(1), old);
    lost.copies.insert(name(2), Copy::Ignored("is not signed by this installation".into()));
    let (report, recovered) = lost.find();
    assert_eq!(recovered.unwrap().cluster.spec.nodes, 3);
    let kept: Vec<_> = report.nodes.iter().map(|n| n.generation).collect();
    assert_eq!(kept, [Some(4), Some(2), None]);
    assert!(report.problems[0].contains("what cache-2-aaaa keeps is not signed"), "{report:#?}");
    // A later epoch tells more than a later generation.
    let newer = copy_of(&lost.scene, |c| {
        (c.epoch, c.manifest.metadata.generation) = (9, Some(1));
        c.manifest.spec.nodes = 5;
    });
    lost.copies.insert(name(1), newer);
    assert_eq!(lost.find().1.unwrap().cluster.spec.nodes, 5);
}

#[test]
fn without_a_copy_the_manifest_that_was_applied_goes_on() {
    let mut lost = lost();
    lost.copies.clear();
    lost.applied = Some(lost.scene.cluster.clone());
    let (report, recovered) = lost.find();
    assert_eq!(report.manifest, "as it was applied");
    let record = recovered.unwrap().record;
    assert_eq!(record.master.unwrap().incarnation, name(0));
    assert!(record.incarnations.values().all(|i| i.lease.is_some() && i.max_price.0 > 0));
    let mut both = self::lost();
    let mut other = both.scene.cluster.clone();
    other.spec.nodes = 7;
    both.applied = Some(other);
    let (report, recovered) = both.find();
    assert_eq!(recovered.unwrap().cluster.spec.nodes, 3, "what the nodes keep was in force");
    assert!(report.problems.iter().any(|p| p.contains("apply it again afterwards")), "{report:#?}");
}

#[test]
fn what_was_given_up_stays_so_and_what_never_ran_is_given_up() {
    let mut lost = lost();
    let reason = "it was silent".to_owned();
    let given_up =
        copy_of(&lost.scene, |c| c.nodes.get_mut(&name(2)).unwrap().given_up = Some(reason));
    lost.copies.insert(name(0), given_up);
    lost.scene.chain().deployments.get_mut(&dseq(1)).unwrap().leases.clear();
    lost.state(1, |s| s.redis.process = Process::Exited);
    let record = lost.record();
    let why = |n: u32| record.incarnations[&name(n)].condemned.clone().map(|c: Condemned| c.reason);
    assert_eq!(why(2).as_deref(), Some("it was silent"));
    assert!(why(1).unwrap().contains("no lease"));
    assert_eq!(why(0), None);
}

#[test]
fn a_deployment_that_only_carries_the_name_is_left_alone() {
    let mut lost = lost();
    let mut foreign = lost.scene.chain().deployments[&dseq(2)].clone();
    foreign.dseq = 77;
    lost.scene.chain().deployments.insert(77, foreign);
    let (report, recovered) = lost.find();
    assert!(
        report.problems.iter().any(|p| p.starts_with("deployment 77 carries the name")),
        "{report:#?}"
    );
    assert!(recovered.unwrap().record.incarnations.values().all(|i| i.dseq != 77));
}

#[test]
fn of_two_that_fill_one_node_the_one_in_sync_stays() {
    let mut lost = lost();
    let second = IncarnationName("cache-2-bbbb".into());
    let mut deployment = lost.scene.chain().deployments[&dseq(2)].clone();
    deployment.dseq = second.dseq(&installation());
    deployment.group_name = second.group_name(&installation());
    lost.scene.chain().deployments.insert(deployment.dseq, deployment);
    let record = lost.record();
    assert_eq!(record.incarnations[&second].replaces, Some(name(2)));
    let (report, _) = lost.find();
    assert!(report.problems.iter().any(|p| p.contains("node 2 is filled by")), "{report:#?}");
}

#[test]
fn a_node_in_quarantine_stays_shut_off() {
    let mut lost = lost();
    let device = lost.scene.mesh().devices.iter_mut().find(|d| d.id == "device-2").unwrap();
    device.tags = vec![QUARANTINE.into()];
    assert!(lost.record().incarnations[&name(2)].quarantined.is_some());
}
