//! From the epoch to the report: the rules of `plan/failover.rs`.

use akash_redis::api::types::ACCEPT_LOSS;
use akash_redis::model::record::Membership;
use akash_redis::model::time::UnixMs;

use crate::scene::{NOW, Scene, degraded, detached, name, promoted};

/// Who had the data fell silent in the middle of the failover; another node answers and is older.
#[test]
fn a_failover_whose_candidates_are_all_silent_names_the_command_that_goes_on() {
    let mut scene = Scene::three();
    scene.failing(NOW - 10_000).eligible.retain(|e| e.incarnation == name(2));
    scene.incarnation(1).lower(Membership::Member);
    for n in [0, 2] {
        scene.node(n, |v| (v.connected, v.heard) = (false, UnixMs(NOW - 20_000)));
    }
    scene.heard(1, detached(1, |_| {}));
    let plan = scene.settle(NOW);
    assert!(promoted(&plan).is_empty());
    let (_, message) = degraded(&plan);
    let told = message.find("none of cache-2-aaaa answers").map(|at| &message[at..]);
    assert!(
        told.is_some_and(|m| m.contains("akash-redis failover cache --accept-loss")),
        "{message}"
    );
    scene
        .cluster
        .metadata
        .annotations
        .insert(ACCEPT_LOSS.to_owned(), scene.record.epoch.to_string());
    assert_eq!(promoted(&scene.settle(NOW + 1_000)), [name(1)], "a person decided");
}
