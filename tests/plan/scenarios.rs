//! Golden plans: one story each. A changed snapshot is a changed behaviour.

use std::time::Duration;

use akash_redis::api::annotations::{ACCEPT_LOSS, MASTER, MIGRATE};
use akash_redis::model::ids::IncarnationName;
use akash_redis::model::mesh::Device;
use akash_redis::model::money::Uact;
use akash_redis::model::node::{Link, NodeView, Process, Role};

use crate::obey::start;
use crate::scene::{NOW, Scene, THREE, bid, device, history, name, page};
use crate::story::Story;

const AT_ONCE: Duration = Duration::ZERO;
const A_MOMENT: Duration = Duration::from_millis(500);
const A_BLOCK: Duration = Duration::from_secs(6);

/// The story, as it is kept beside this file.
macro_rules! told {
    ($story:expr) => {
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!($story.told());
        });
    };
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Redis of this node died and was started again, fenced, with what is on its disk.
fn restarted(view: &mut NodeView) {
    let redis = &mut view.state.redis;
    (redis.role, redis.fenced, redis.link) = (Role::Replica, true, Link::Down);
    redis.run_id.push_str("-again");
    redis.master_host.clear();
    redis.replicas.clear();
}

fn exited(view: &mut NodeView) {
    view.state.redis.process = Process::Exited;
    view.state.redis.replicas.clear();
}

/// Who lost its master is linked to nobody, and says for how long.
fn lost_link(view: &mut NodeView, silent_ms: u64) {
    (view.state.redis.link, view.state.redis.silent_ms) = (Link::Down, silent_ms);
}

fn bids(scene: &mut Scene) {
    for deployment in scene.chain().deployments.values_mut() {
        let dseq = deployment.dseq;
        deployment.bids = (0..4).map(|p| bid(dseq, p, 2 + u64::from(p))).collect();
    }
}

#[test]
fn bring_up() {
    let mut story = Story::new(Scene::new(THREE));
    story.then("the manifest was applied", AT_ONCE, |_| {});
    story.obeyed("three deployments are open", A_BLOCK, |_| {});
    story.then("providers bid", A_BLOCK, bids);
    story.then("their transactions are on the way", secs(2), |_| {});
    story.obeyed("all are leased", A_BLOCK, |_| {});
    story.obeyed("the providers took the manifests", secs(2), |_| {});
    let now = story.now();
    story.then("the nodes start", secs(20), |s| {
        (0..3).for_each(|n| start(s, &name(n), &device(n).id, now));
    });
    story.obeyed("they are configured", A_MOMENT, |_| {});
    story.obeyed("the first one is promoted", A_MOMENT, |_| {});
    story.obeyed("the master knows who may replicate", A_MOMENT, |_| {});
    story.obeyed("the others follow", A_MOMENT, |_| {});
    story.obeyed("nothing is left to do", A_MOMENT, |_| {});
    told!(story);
}

#[test]
fn failover_by_the_agents_word() {
    let mut story = Story::new(Scene::whole());
    story.then("all is well", AT_ONCE, |_| {});
    story.then("redis of the master exits", A_MOMENT, |s| {
        s.node(0, exited);
        s.node(1, |v| v.state.redis.offset = 120);
    });
    story.obeyed("both replicas stand still", A_MOMENT, |_| {});
    story.obeyed("the one with more was promoted", A_MOMENT, |_| {});
    story.obeyed("the other follows", A_MOMENT, |_| {});
    story.obeyed("and is in sync", A_MOMENT, |_| {});
    story.then("the old master is back, with more than the new one had", secs(5), |s| {
        s.node(0, |v| {
            v.state.redis.process = Process::Running;
            restarted(v);
            v.state.redis.offset = 130;
            v.state.history = history("A", 130, 1, 900);
        });
    });
    story.obeyed("its data are kept, and it follows", A_MOMENT, |_| {});
    told!(story);
}

#[test]
fn failover_by_silence() {
    let mut story = Story::new(Scene::whole());
    story.scene.mesh().devices[0].tags = vec!["tag:somebody-elses".into()];
    story.then("the master falls silent", secs(2), |s| s.silent(0, 0));
    story.then("for downAfter, and one replica still hears it", secs(10), |s| {
        s.node(1, |v| lost_link(v, 10_000));
    });
    story.then("now nobody does", secs(1), |s| s.node(2, |v| lost_link(v, 10_500)));
    story.obeyed("both replicas were detached", A_MOMENT, |_| {});
    story.then("max-lag has passed since", secs(10), |_| {});
    story.obeyed("the first one was promoted", A_MOMENT, |_| {});
    told!(story);
}

#[test]
fn a_minority_waits_for_a_person() {
    let mut story = Story::new(Scene::whole());
    story.then("the master and a replica are silent, the other has lost it", secs(11), |s| {
        s.silent(0, 0);
        s.silent(1, 0);
        s.node(2, |v| lost_link(v, 11_000));
    });
    story.then("a person knows that they are dead", secs(30), |s| s.annotate(ACCEPT_LOSS, "1"));
    story.obeyed("the replica was detached", A_MOMENT, |_| {});
    story.then("max-lag has passed since", secs(10), |_| {});
    told!(story);
}

#[test]
fn failover_by_the_status_page() {
    let mut story = Story::new(Scene::whole());
    story.then("the master is silent, and its page says that redis exited", secs(2), |s| {
        s.silent(0, 0);
        let said = page(0, |p| {
            p.process = Process::Exited;
            p.at = story_time(2);
        });
        s.inventory.pages.insert(name(0), said);
    });
    story.obeyed("both replicas stand still", A_MOMENT, |_| {});
    story.obeyed("the first one was promoted", A_MOMENT, |_| {});
    told!(story);
}

fn story_time(seconds: u64) -> akash_redis::model::time::UnixMs {
    akash_redis::model::time::UnixMs(NOW + seconds * 1000)
}

fn forget(view: &mut NodeView, device: &Device) {
    view.state.mesh.visible_ids.retain(|id| id != &device.id);
}

#[test]
fn quarantine() {
    let mut story = Story::new(Scene::whole());
    story.then("redis of the master hangs", A_MOMENT, |s| {
        s.hangs(0, 10);
    });
    story.obeyed("its device has the quarantine tag", A_MOMENT, |_| {});
    story.then("the replicas have lost it from their maps", secs(1), |s| {
        let device = s.mesh().devices[0].clone();
        for n in 1..3 {
            s.node(n, |v| forget(v, &device));
        }
    });
    story.obeyed("the first one was promoted", A_MOMENT, |_| {});
    story.obeyed("the other one follows", A_MOMENT, |_| {});
    story.then("the old master wakes up, with writes that nobody has", secs(5), |s| {
        s.node(0, |v| {
            v.state.redis.process = Process::Running;
            v.state.redis.offset = 150;
            v.state.history = history("A", 150, 1, 0);
        });
    });
    story.obeyed("it was demoted", A_MOMENT, |_| {});
    story.obeyed("its data are kept", A_MOMENT, |_| {});
    story.obeyed("it is reached again", A_MOMENT, |_| {});
    story.obeyed("it follows", A_MOMENT, |_| {});
    told!(story);
}

#[test]
fn switchover() {
    let mut story = Story::new(Scene::whole());
    story.then("a person asks for node 2", AT_ONCE, |s| {
        let asked = format!("{}@1", name(2));
        s.annotate(MASTER, asked);
        s.node(0, |v| v.state.redis.offset = 150);
    });
    story.obeyed("the source is fenced, and the target lacks something", A_MOMENT, |_| {});
    story.then("the target has everything", A_MOMENT, |s| {
        s.node(2, |v| v.state.redis.offset = 150);
    });
    story.obeyed("the target was promoted", A_MOMENT, |_| {});
    story.obeyed("the others follow", A_MOMENT, |_| {});
    story.obeyed("nothing is left to do", A_MOMENT, |_| {});
    told!(story);
}

#[test]
fn a_switchover_is_undone() {
    let mut story = Story::new(Scene::whole());
    story.then("a person asks for node 2, which lags", AT_ONCE, |s| {
        let asked = format!("{}@1", name(2));
        s.annotate(MASTER, asked);
        s.node(0, |v| v.state.redis.offset = 150);
    });
    story.obeyed("the source is fenced", A_MOMENT, |_| {});
    story.then("the target does not catch up", secs(10), |_| {});
    story.obeyed("the source takes writes again", A_MOMENT, |_| {});
    story.obeyed("it is master of the new epoch", A_MOMENT, |_| {});
    story.obeyed("the replicas follow it there", A_MOMENT, |_| {});
    told!(story);
}

#[test]
fn migration_of_the_master() {
    let mut scene = Scene::whole();
    scene.inventory.id_pool.suffixes = vec!["bbbb".into()];
    let mut story = Story::new(scene);
    story.then("a person asks that node 0 leave its provider", AT_ONCE, |s| {
        let asked = name(0).0;
        s.annotate(MIGRATE, asked);
    });
    story.obeyed("a deployment is open", A_BLOCK, |_| {});
    story.then("its bids are there, and their time is over", secs(20), |s| {
        for deployment in s.chain().deployments.values_mut().filter(|d| d.open_order.is_some()) {
            deployment.bids = vec![bid(deployment.dseq, 0, 1), bid(deployment.dseq, 4, 3)];
        }
    });
    story.obeyed("it is leased", A_BLOCK, |_| {});
    story.obeyed("its provider took the manifest", A_MOMENT, |_| {});
    let (now, successor) = (story.now(), IncarnationName("cache-0-bbbb".into()));
    story.then("it starts", secs(20), |s| start(s, &successor, "device-4", now));
    story.obeyed("it is configured, and the master knows that it may replicate", A_MOMENT, |_| {});
    story.obeyed("it follows, and is in sync", A_MOMENT, |_| {});
    story.obeyed("the source is fenced", A_MOMENT, |_| {});
    story.obeyed("it was promoted", A_MOMENT, |_| {});
    story.obeyed("it knows who may replicate", A_MOMENT, |_| {});
    story.obeyed("the others follow, and the old master leaves", A_MOMENT, |_| {});
    story.obeyed("its lease is closed", A_BLOCK, |_| {});
    story.obeyed("nothing of it is left", A_BLOCK, |s| drop(s.inventory.nodes.remove(&name(0))));
    told!(story);
}

/// Power is back on this node, and its redis starts with what is on its disk.
fn powered_on(scene: &mut Scene, n: u32, offset: i64) {
    scene.node(n, |v| {
        v.connected = true;
        restarted(v);
        v.state.redis.online_epoch = 0;
        v.state.redis.offset = offset;
        v.state.history = history("A", offset, 1, 0);
    });
}

#[test]
fn all_nodes_lose_power() {
    let mut story = Story::new(Scene::whole());
    story.then("all nodes lose power", secs(1), |s| (0..3).for_each(|n| s.silent(n, 0)));
    story.then("a replica is back", secs(60), |s| powered_on(s, 1, 90));
    story.then("so are the others, and the master has the most", secs(5), |s| {
        powered_on(s, 0, 110);
        powered_on(s, 2, 100);
    });
    story.obeyed("the old master was promoted again", A_MOMENT, |_| {});
    story.obeyed("the others follow", A_MOMENT, |_| {});
    told!(story);
}

#[test]
fn cold_start() {
    let mut story = Story::new(Scene::whole());
    story.scene.inventory.id_pool.suffixes = vec!["bbbb".into()];
    story.then("all lose power, and the master's provider closes its lease", secs(1), |s| {
        (0..3).for_each(|n| s.silent(n, 0));
        s.close_lease(0, 10_000);
    });
    story.then("a replica is back", secs(60), |s| powered_on(s, 1, 90));
    story.then("so is the other, which has more", secs(5), |s| powered_on(s, 2, 100));
    story.obeyed("the one with more was promoted", A_MOMENT, |_| {});
    story.obeyed("the other follows", A_MOMENT, |_| {});
    told!(story);
}

#[test]
fn two_nodes() {
    let mut scene = Scene::whole();
    scene.cluster.spec.nodes = 2;
    let mut story = Story::new(scene);
    story.then("one node of three is too many", AT_ONCE, |_| {});
    story.obeyed("it is gone", A_BLOCK, |s| s.inventory.nodes.retain(|n, _| *n != name(2)));
    story.obeyed("nothing of it is left", secs(200), |_| {});
    story.then("the replica is cut off, and the master does not count it", secs(10), |s| {
        s.node(0, |v| v.state.redis.replicas[0].lag_seconds = 9);
        s.node(1, |v| lost_link(v, 9_000));
    });
    story.obeyed("the master takes writes alone", A_MOMENT, |s| {
        s.node(0, |v| v.state.redis.replicas.clear());
    });
    story.then("the replica is back", secs(10), |s| {
        s.node(1, |v| {
            (v.state.redis.link, v.state.redis.silent_ms) = (Link::Up, 0);
        });
    });
    story.obeyed("a write needs it again", A_MOMENT, |_| {});
    story.obeyed("it may be promoted again", A_MOMENT, |_| {});
    told!(story);
}

#[test]
fn the_budget_is_spent() {
    let mut scene = Scene::whole();
    scene.cluster.spec.nodes = 5;
    scene.cluster.spec.budget.max_per_month = Some("9act".parse().unwrap());
    let mut story = Story::new(scene);
    story.then("two more nodes are wanted, and nothing is left to spend", AT_ONCE, |_| {});
    story.then("a little more is allowed", secs(60), |s| {
        s.inventory.id_pool.suffixes = vec!["aaaa".into(), "aaaa".into()];
        s.cluster.spec.budget.max_per_month = Some("12act".parse().unwrap());
    });
    story.then("the wallet was emptied meanwhile", secs(6), |s| s.chain().balance = Uact(1));
    told!(story);
}

#[test]
fn nobody_bids() {
    let mut scene = Scene::new(THREE);
    scene.cluster.spec.nodes = 1;
    let mut story = Story::new(scene);
    story.then("the manifest was applied", AT_ONCE, |_| {});
    story.obeyed("nobody bids", secs(60), |_| {});
    story.then("one asks too much, one has too little", secs(60), |s| {
        for deployment in s.chain().deployments.values_mut() {
            let dseq = deployment.dseq;
            deployment.bids = vec![bid(dseq, 0, 31), bid(dseq, 1, 1)];
            deployment.bids[1].fits = false;
        }
    });
    story.then("that was all", secs(60), |_| {});
    story.obeyed("the deployment is closed and refunded", secs(6), |_| {});
    story.then("nothing of it is left, and it is tried again", secs(100), |_| {});
    told!(story);
}
