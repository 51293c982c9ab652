//! Who may take over: the rules of `plan/candidates.rs`.

use akash_redis::model::node::{History, Process, Role};

use crate::scene::{NOW, Scene, degraded, detached, name, promoted, replica};

#[test]
fn an_offset_far_above_what_others_saw_is_refused_and_reported() {
    for (claim, believed) in [(i64::MAX, false), (1 << 40, false), (120, true)] {
        let mut scene = Scene::three();
        scene.fenced();
        scene.heard(1, detached(1, |_| {}));
        scene.heard(2, detached(2, |s| s.redis.offset = claim));
        let plan = scene.settle(NOW);
        assert_eq!(promoted(&plan), [name(if believed { 2 } else { 1 })], "claim {claim}");
        assert!(
            !degraded(&plan).1.contains("claims offset"),
            "it is an event once somebody else was chosen"
        );
    }
}

#[test]
fn a_candidate_of_another_lineage_is_not_promoted() {
    let mut scene = Scene::three();
    scene.node(0, |v| {
        v.state.redis.process = Process::Exited;
        v.state.redis.role = Role::Replica;
        v.state.history = Some(History { replid: "A".into(), offset: 100, epoch: 1, gap_ms: 0 });
    });
    scene.heard(1, replica(1, 1, |s| s.redis.replid = "B".into()));
    scene.heard(2, replica(2, 1, |_| {}));
    let plan = scene.settle(NOW);
    let Some(akash_redis::model::record::Change::Failover(failover)) = plan.record.change else {
        panic!("{:?}", plan.events)
    };
    assert_eq!(
        failover.eligible.iter().map(|e| e.incarnation.clone()).collect::<Vec<_>>(),
        [name(2)]
    );
}
