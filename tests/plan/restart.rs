//! Restarts that were asked for: the rules of `plan/restart.rs`.

use akash_redis::api::annotations::RESTART;
use akash_redis::api::events::EventReason;
use akash_redis::model::ids::IncarnationName;
use akash_redis::model::node::Link;
use akash_redis::model::step::Command;
use akash_redis::plan::Plan;

use crate::scene::{NOW, Scene, commands, has_event, name, wait_for};

fn restarted(plan: &Plan) -> Vec<IncarnationName> {
    let restarts = |(name, command)| matches!(command, Command::Restart).then_some(name);
    commands(plan).into_iter().filter_map(restarts).collect()
}

fn asked() -> Scene {
    let mut scene = Scene::whole();
    let all = (0..3).map(|n| format!("{}@7", name(n))).collect::<Vec<_>>().join(",");
    scene.annotate(RESTART, all);
    scene
}

/// The container of node `n` was started again.
fn starts_again(scene: &mut Scene, n: u32) {
    scene.node(n, |v| v.state.boot_id = format!("boot-{n}-again"));
}

#[test]
fn nodes_are_restarted_one_at_a_time_and_the_master_last() {
    let mut scene = asked();
    for n in [1, 2] {
        let plan = scene.plan(NOW);
        assert_eq!(restarted(&plan), [name(n)]);
        assert!(has_event(&plan, EventReason::NodeRestarted));
        scene.record = plan.record;
        let again = scene.plan(NOW);
        assert_eq!(restarted(&again), [name(n)], "as long as it was not started again");
        assert!(!has_event(&again, EventReason::NodeRestarted), "once");
        scene.node(n, |v| v.state.stopping = true);
        let plan = scene.plan(NOW);
        assert_eq!(restarted(&plan), [], "it is about to");
        assert!(wait_for(&plan, "to be started again").is_some());
        starts_again(&mut scene, n);
        scene.node(n, |v| (v.state.stopping, v.state.redis.link) = (false, Link::Down));
        let plan = scene.plan(NOW);
        assert_eq!(restarted(&plan), [], "it is not in sync yet");
        assert!(wait_for(&plan, "before cache-").is_some());
        scene.node(n, |v| v.state.redis.link = Link::Up);
    }
    let plan = scene.plan(NOW);
    assert_eq!(restarted(&plan), [name(0)], "it hands over before it ends: see `stopping`");
    scene.record = plan.record;
    starts_again(&mut scene, 0);
    assert_eq!(restarted(&scene.plan(NOW)), [], "all were");
    // Another word for one of them.
    scene.annotate(RESTART, format!("{}@8", name(2)));
    assert_eq!(restarted(&scene.plan(NOW)), [name(2)]);
}

#[test]
fn a_node_that_does_not_come_back_stops_the_rest() {
    let mut scene = asked();
    scene.record = scene.plan(NOW).record;
    scene.silent(1, 100);
    assert_eq!(restarted(&scene.plan(NOW)), []);
    // It is back with another start, and its redis does not run.
    starts_again(&mut scene, 1);
    scene.node(1, |v| v.state.redis.process = akash_redis::model::node::Process::Exited);
    assert_eq!(restarted(&scene.plan(NOW)), []);
}

#[test]
fn whoever_is_none_of_the_cluster_is_not_restarted() {
    let mut scene = Scene::whole();
    scene.annotate(RESTART, "cache-9-zzzz@1, nonsense,");
    assert_eq!(restarted(&scene.plan(NOW)), []);
}
