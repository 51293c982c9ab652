//! A planned change of master: the rules of `plan/switchover.rs`.

use akash_redis::api::conditions::EventReason;
use akash_redis::model::node::Process;
use akash_redis::model::record::Promotion;

use crate::scene::{NOW, Scene, has_event, name, promoted};

/// A target that was chosen for epoch 2 and not promoted yet.
fn chosen() -> Scene {
    let mut scene = Scene::whole();
    scene.switching(1);
    let before = scene.master().clone();
    scene.record.master = Some(Promotion {
        epoch: 2,
        incarnation: name(1),
        run_id: "run-1".into(),
        boot_id: "boot-1".into(),
        confirmed: false,
        ..before
    });
    scene.node(0, |v| (v.state.redis.fenced, v.state.highest.epoch) = (true, 2));
    scene
}

/// A promotion under the old epoch beside the new one could make it a master that nobody counts.
#[test]
fn a_choice_that_comes_to_nothing_is_not_promoted_once_more() {
    assert_eq!(promoted(&chosen().plan(NOW)), [name(1)]);
    let mut scene = chosen();
    scene.node(1, |v| v.state.redis.process = Process::Exited);
    let plan = scene.plan(NOW);
    assert!(
        has_event(&plan, EventReason::PromotionFailed) && plan.record.epoch == 3,
        "{:?}",
        plan.events
    );
    assert_eq!(promoted(&plan), []);
}
