//! What the nodes are told to be: the rules of `plan/settings.rs`.

use akash_redis::model::step::Quorum;

use crate::scene::{NOW, Scene, configured, name};

/// Two nodes, and the master does not count its replica any more.
#[test]
fn the_record_says_that_a_master_may_write_alone_before_it_is_told_so() {
    let mut scene = Scene::whole();
    scene.record.incarnations.remove(&name(2));
    scene.cluster.spec.nodes = 2;
    scene.node(0, |v| v.state.redis.replicas.clear());
    scene.node(1, |v| v.state.redis.link_up = false);
    let plan = scene.plan(NOW);
    let told = configured(&plan).into_iter().find(|(n, _)| *n == name(0)).map(|(_, s)| s.quorum);
    let alone = Some(Quorum { min_replicas: 0, max_lag_seconds: 8 });
    assert_eq!((told, plan.record.master.unwrap().quorum), (alone, alone));
}
