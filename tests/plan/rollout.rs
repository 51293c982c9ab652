//! How many nodes there shall be, which come and which leave: the rules of `plan/rollout.rs`.

use akash_redis::api::conditions::Reason;
use akash_redis::api::types::MIGRATE;
use akash_redis::model::record::Membership;

use crate::scene::{NOW, Scene, degraded, given_up, name};

/// Node 0 was master and is to leave; node 1 took over just now, and nobody follows it yet.
#[test]
fn a_former_master_leaves_when_another_replica_is_in_sync_with_the_new_one() {
    let mut scene = Scene::whole();
    scene.cluster.spec.nodes = 2;
    scene.annotate(MIGRATE, name(0).0);
    scene.incarnation(1).replaces = Some(name(0));
    scene.incarnation(1).ordinal = 0;
    scene.incarnation(2).ordinal = 1;
    scene.take_over(1);
    let plan = scene.plan(NOW);
    assert_eq!(given_up(&scene, &plan), []);
    assert_eq!(degraded(&plan).0, Reason::RemovalBlocked);
    scene.incarnation(2).raise(Membership::Candidate);
    scene.node(2, |v| {
        v.state.redis.master_host = format!("{}.mesh", name(1));
        v.state.redis.online_epoch = 2;
    });
    scene.attach(&[2]);
    assert_eq!(given_up(&scene, &scene.plan(NOW)), [name(0)]);
}
