//! A person's word about who is master: the rules of `plan/word.rs`.

use akash_redis::api::annotations::{ACCEPT_LOSS, FENCE, MASTER};
use akash_redis::api::conditions::{ConditionType, Reason};
use akash_redis::api::events::EventReason;
use akash_redis::model::node::Process;
use akash_redis::model::step::Command;
use akash_redis::plan::Plan;

use crate::obey::obey;
use crate::scene::{
    NOW, Scene, commands, degraded, detached, failing_over, has_event, history, name, promoted,
};

const BY: &str = "ann@laptop";

/// Node 0 is master and fenced by a person, and obeyed.
fn fenced_master() -> Scene {
    let mut scene = Scene::whole();
    scene.annotate(FENCE, format!("0 by={BY}"));
    let plan = scene.plan(NOW);
    assert_eq!(commands(&plan), [(name(0), Command::Fence)]);
    assert_eq!(plan.record.held, Some(name(0)), "written before it is told");
    scene.record = plan.record.clone();
    obey(&mut scene, &plan, akash_redis::model::time::UnixMs(NOW));
    scene
}

fn says(plan: &Plan, words: &str) {
    let (reason, message) = degraded(plan);
    assert_eq!(reason, Reason::FencedByPerson);
    assert!(message.contains(words), "{message}");
}

#[test]
fn a_fenced_master_takes_no_writes_and_stays_master() {
    let mut scene = fenced_master();
    let plan = scene.settle(NOW);
    assert_eq!((plan.record.epoch, commands(&plan)), (1, vec![]), "nothing undoes it");
    says(&plan, "`akash-redis unfence cache 0`");
    says(&plan, "fenced by ann@laptop");
    let ready = plan.status.condition(ConditionType::Ready).unwrap();
    assert_eq!(ready.reason, Reason::FencedByPerson);
    let node = plan.status.nodes.iter().find(|n| n.incarnation == name(0).0).unwrap();
    assert!(node.message.as_ref().unwrap().contains("fenced by ann@laptop"));
}

#[test]
fn it_goes_on_when_the_fence_is_taken_off() {
    let mut scene = fenced_master();
    scene.annotate(FENCE, "");
    let plan = scene.plan(NOW);
    assert_eq!((plan.record.epoch, promoted(&plan)), (2, vec![name(0)]));
    assert!(has_event(&plan, EventReason::MasterRepromoted));
    assert_eq!(plan.record.held, None);
}

/// By `failover --to`, and by the word of somebody who is named in the report.
#[test]
fn another_one_takes_over_when_a_person_says_so() {
    let mut scene = fenced_master();
    scene.annotate(ACCEPT_LOSS, format!("1 to={} by={BY}", name(2)));
    let now = akash_redis::model::time::UnixMs(NOW);
    for _ in 0..12 {
        let plan = scene.plan(NOW);
        scene.record = plan.record.clone();
        obey(&mut scene, &plan, now);
    }
    let master = scene.record.master.clone().unwrap();
    assert_eq!((master.incarnation, master.confirmed), (name(2), true));
    let report = scene.record.last_failover.clone().unwrap();
    assert_eq!((report.old, report.accepted_by.as_deref()), (name(0).0, Some(BY)));
    assert_eq!(report.lost_bytes, Some(0), "it had stopped before");
    assert_eq!(scene.record.held, None);
}

type Edit = fn(&mut Scene);

/// A dead master, nodes 1 and 2 in sync; one of them is fenced.
#[test]
fn a_fenced_node_is_chosen_by_nobody() {
    let mut scene = Scene::whole();
    scene.annotate(FENCE, "1");
    scene.node(0, |v| v.state.redis.process = Process::Exited);
    let plan = scene.plan(NOW);
    let counted: Vec<_> =
        failing_over(&plan).unwrap().eligible.iter().map(|e| e.incarnation.clone()).collect();
    assert_eq!(counted, [name(2)]);
    assert!(has_event(&plan, EventReason::CandidateRejected));
    scene.annotate(FENCE, "1,cache-2-aaaa");
    let plan = scene.plan(NOW);
    assert!(failing_over(&plan).is_none(), "nobody is left");

    let mut scene = Scene::whole();
    scene.annotate(FENCE, "1");
    scene.annotate(MASTER, format!("{}@1", name(1)));
    let plan = scene.plan(NOW);
    assert_eq!(plan.record.change, None, "no switchover goes to it");
    assert!(plan.status.problems.contains(&Reason::SwitchoverWaiting));
}

/// All were restarted, and node 1 holds the most.
#[test]
fn the_newest_data_on_a_fenced_node_are_waited_for() {
    let scene = |fence: &str, accepted: &str| {
        let mut scene = Scene::three();
        for n in 0..3 {
            scene.heard(
                n,
                detached(n, |s| {
                    (s.highest.epoch, s.redis.online_epoch) = (1, 0);
                    s.redis.run_id = format!("again-{n}");
                    s.history = history("A", if n == 1 { 101 } else { 100 }, 1, 0);
                }),
            );
        }
        scene.annotate(FENCE, fence);
        scene.annotate(ACCEPT_LOSS, accepted);
        scene.plan(NOW)
    };
    assert_eq!(promoted(&scene("", "")), [name(1)]);
    let waits = scene("1", "");
    assert_eq!(promoted(&waits), []);
    assert!(waits.status.problems.contains(&Reason::FencedByPerson));
    assert_eq!(promoted(&scene("1", "1")), [name(0)], "a person goes on without it");
    let named = scene("1", "1 to=cache-2-aaaa");
    let begun = failing_over(&named).expect("the one that is named takes over");
    assert_eq!((begun.to.clone(), begun.accepted_by.as_deref()), (Some(name(2)), None));
}

#[test]
fn a_fence_is_told_wherever_it_is() {
    let rows: [(&str, &str); 3] = [
        ("1 by=ann@laptop", "cache-1-aaaa takes no master's place: it is fenced by ann@laptop"),
        ("cache-2-aaaa", "`akash-redis unfence cache cache-2-aaaa`"),
        ("7", "7 is to be fenced, and no node is named so now"),
    ];
    for (fence, words) in rows {
        let mut scene = Scene::whole();
        scene.annotate(FENCE, fence);
        let plan = scene.plan(NOW);
        assert_eq!(commands(&plan), [], "{fence}");
        says(&plan, words);
    }
}

/// A person sees what may be lost before it is.
#[test]
fn what_may_be_lost_is_shown() {
    let stake = |edit: Edit| {
        let mut scene = Scene::whole();
        scene.silent(0, 60);
        scene.node(0, |v| v.state.redis.offset = 160);
        scene.silent(2, 60);
        scene.node(1, |v| (v.state.redis.silent_ms, v.state.redis.offset) = (60_000, 120));
        edit(&mut scene);
        scene.plan(NOW).status.at_stake
    };
    let known = stake(|_| {}).unwrap();
    assert_eq!((known.epoch, known.takes_over, known.lacks_bytes), (1, Some(name(1).0), Some(40)));
    assert_eq!(known.since, Some(crate::scene::ago(60).to_string()));
    let missing: Vec<_> = known.missing.iter().map(|m| m.incarnation.clone()).collect();
    assert_eq!(missing, [name(0).0, name(2).0]);
    assert!(known.missing[0].why.starts_with("not heard since "));
    let other = stake(|s| s.node(1, |v| v.state.redis.replid = "B".into())).unwrap();
    assert_eq!(other.lacks_bytes, None, "histories that cannot be compared");
    let none = stake(|s| {
        s.silent(0, 0);
        s.node(0, |v| v.connected = true);
    });
    assert_eq!(none, None, "nothing is waited for");
}
