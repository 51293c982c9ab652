//! Nodes of different versions of Redis: the rules of `plan/versions.rs`.

use akash_redis::api::annotations::MASTER;
use akash_redis::api::conditions::Reason;
use akash_redis::model::change::{Change, Fence};
use akash_redis::model::node::{Link, Process};
use akash_redis::model::time::UnixMs;

use crate::scene::{NOW, Scene, degraded, follows, name, promoted};

fn running(versions: [&str; 3]) -> Scene {
    let mut scene = Scene::whole();
    for (n, version) in (0..).zip(versions) {
        scene.node(n, |v| version.clone_into(&mut v.state.redis.version));
    }
    scene
}

#[test]
fn who_cannot_read_the_masters_data_is_not_told_to_follow() {
    for (versions, told, skewed) in [
        (["8.2.3", "7.0.15", "8.2.3"], vec![2], true),
        // Two of them could not follow the third, were it master.
        (["7.0.15", "8.2.3", "valkey 8.1.8"], vec![1, 2], true),
        (["8.2.3", "valkey 8.1.8", "7.4.1"], vec![2], true),
        // An agent of an earlier version does not say what it runs.
        (["8.2.3", "", "8.2.3"], vec![1, 2], false),
    ] {
        let mut scene = running(versions);
        for n in 1..3 {
            scene.node(n, |v| {
                v.state.redis.master_host.clear();
                v.state.redis.link = Link::Down;
            });
        }
        let plan = scene.plan(NOW);
        let told: Vec<_> = told.into_iter().map(name).collect();
        assert_eq!(follows(&plan), told, "{versions:?}");
        let skew = plan.status.problems.contains(&Reason::VersionSkew);
        assert_eq!(skew, skewed, "{versions:?}");
    }
}

#[test]
fn nobody_becomes_master_whom_a_node_that_stays_could_not_follow() {
    let switches =
        |scene: &Scene| matches!(scene.plan(NOW).record.change, Some(Change::Switchover(_)));
    let mut scene = running(["7.0.15", "8.2.3", "8.2.3"]);
    let (reason, said) = degraded(&scene.plan(NOW));
    assert_eq!(reason, Reason::VersionSkew, "it is told before it matters");
    assert!(
        said.contains("cache-0-aaaa (Redis 7.0.15) cannot read the data of cache-1-aaaa (Redis 8.2.3): a failover to it would leave them behind"),
        "{said}"
    );
    scene.annotate(MASTER, name(1).0);
    assert!(!switches(&scene));
    // The old one is about to be another: its container is started with the new image.
    scene.node(0, |v| v.state.stopping = true);
    assert!(switches(&scene), "the last step of an upgrade");
    assert!(switches(&running_to(1, ["8.2.3"; 3])));
    assert!(switches(&running_to(1, ["7.4.1", "8.2.3", "8.0.2"])));
}

fn running_to(target: u32, versions: [&str; 3]) -> Scene {
    let mut scene = running(versions);
    scene.annotate(MASTER, name(target).0);
    scene
}

#[test]
fn of_two_that_have_the_same_the_one_is_chosen_that_everybody_can_follow() {
    let mut scene = running(["7.0.15", "8.2.3", "7.0.15"]);
    scene.failing(NOW);
    scene.failover().fence = Some(Fence { how: "x".into(), at: UnixMs(NOW) });
    scene.node(0, |v| v.state.redis.process = Process::Exited);
    for n in 1..3 {
        scene.node(n, |v| {
            v.state.highest.epoch = 2;
            v.state.redis.link = Link::Down;
            v.state.redis.master_host.clear();
        });
    }
    assert_eq!(promoted(&scene.plan(NOW)), [name(2)]);
    scene.node(1, |v| v.state.redis.offset = 101);
    assert_eq!(promoted(&scene.plan(NOW)), [name(1)], "what it has more is not given away");
}
