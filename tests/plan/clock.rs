//! Time after a restart of the operator: the rules of `plan/clock.rs`.

use akash_redis::model::time::UnixMs;

use crate::scene::{NOW, Scene, TERM, detached, name, promoted};

/// What another process wrote down proves nothing about the time that has passed.
#[test]
fn a_new_process_counts_the_time_of_a_fence_from_its_own_start() {
    let mut scene = Scene::three();
    let at = UnixMs(NOW);
    scene.failing(NOW).detached_at = [(name(1), at), (name(2), at)].into();
    scene.node(0, |v| v.connected = false);
    for n in 1..3 {
        scene.heard(n, detached(n, |_| {}));
    }
    assert!(promoted(&scene.plan(NOW + 1_000)).is_empty(), "one second is no proof");
    // The operator was started again a second ago, and the wall clock was set forward by twelve
    // seconds meanwhile.
    let later = scene.plan_as(NOW + 13_000, TERM + 1, NOW + 12_000);
    assert!(promoted(&later).is_empty(), "by the clock of this process a second has passed");
    scene.record = later.record;
    assert_eq!(
        promoted(&scene.plan_as(NOW + 24_000, TERM + 1, NOW + 12_000)),
        [name(1)],
        "it has now"
    );
    // It was set back by an hour: nothing waits for an hour.
    let mut scene = Scene::three();
    scene.failing(NOW).detached_at = [(name(1), at), (name(2), at)].into();
    scene.node(0, |v| v.connected = false);
    for n in 1..3 {
        scene.heard(n, detached(n, |_| {}));
    }
    let back = NOW - 3_600_000;
    scene.record = scene.plan_as(back, TERM + 1, back).record;
    assert_eq!(promoted(&scene.plan_as(back + 11_000, TERM + 1, back)), [name(1)]);
}
