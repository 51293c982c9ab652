//! The plan while it is being made: the rules of `plan/builder.rs`.

use akash_redis::api::annotations::{ACCEPT_LOSS, MIGRATE};
use akash_redis::model::ids::IncarnationName;
use akash_redis::model::incarnation::Membership;
use akash_redis::model::mesh::Device;
use akash_redis::model::node::Link;
use akash_redis::model::step::Effect;

use crate::scene::{
    NOW, Scene, THREE, condemned, deployment, device, follows, given_up, installation, name,
};

/// Node 2 is to follow the master, and in the same plan it turns out that its key was stolen.
#[test]
fn nothing_is_done_with_one_that_is_given_up_in_the_same_plan() {
    let mut scene = Scene::whole();
    scene.node(2, |v| {
        v.state.redis.link = Link::Down;
        v.state.redis.master_host.clear();
    });
    assert_eq!(follows(&scene.plan(NOW)), [name(2)]);
    scene.mesh().devices.push(Device { id: "twin".into(), ..device(2) });
    let plan = scene.plan(NOW);
    assert_eq!((given_up(&scene, &plan), follows(&plan)), (vec![name(2)], vec![]));
    let left = plan.steps.iter().filter(|s| *s.effect.incarnation() == name(2));
    assert!(left.clone().count() > 0, "it is cleaned up after");
    for step in left {
        let destroys = matches!(
            step.effect,
            Effect::CloseDeployment { .. } | Effect::DeleteDevice { .. } | Effect::RevokeKey { .. }
        );
        assert!(destroys, "{step:?}");
    }
}

#[test]
fn a_name_is_taken_that_neither_the_record_nor_the_chain_knows() {
    let reserved = |edit: fn(&mut Scene)| {
        let mut scene = Scene::new(THREE);
        scene.cluster.spec.nodes = 1;
        scene.inventory.id_pool.suffixes = ["aaaa", "bbbb"].map(Into::into).into();
        edit(&mut scene);
        scene.plan(NOW).record.incarnations.into_iter().find(|(_, i)| i.condemned.is_none())
    };
    let (first, incarnation) = reserved(|_| {}).expect("one");
    assert_eq!((first, incarnation.dseq), (name(0), name(0).dseq(&installation())));
    let second = IncarnationName("cache-0-bbbb".into());
    let on_chain = reserved(|s| {
        let dseq = name(0).dseq(&installation());
        s.chain().deployments.insert(dseq, deployment(&name(0), dseq));
    });
    assert_eq!(on_chain.expect("one").0, second);
    let recorded = reserved(|s| {
        let mut old = Scene::three().record.incarnations[&name(0)].clone();
        (old.condemned, old.dseq) = (condemned(5), 7);
        old.membership = Membership::Expected;
        s.record.incarnations.insert(name(0), old);
    });
    assert_eq!(recorded.expect("one").0, second);
    assert_eq!(reserved(|s| s.inventory.id_pool.suffixes.clear()), None, "none is left");
}

#[test]
fn a_node_that_leaves_for_its_providers_sake_avoids_it() {
    let mut scene = Scene::whole();
    scene.close_lease(2, 10_001);
    scene.record.failures.entry(2).or_default().providers = vec!["akash1p2".into()];
    assert_eq!(scene.plan(NOW).record.failures[&2].providers, ["akash1p2"], "once is enough");
    let mut asked = Scene::whole();
    asked.annotate(MIGRATE, "");
    asked.cluster.spec.nodes = 2;
    assert!(asked.plan(NOW).record.failures.is_empty(), "nobody is to blame");
}

#[test]
fn a_loss_is_accepted_for_the_epoch_that_it_was_said_in() {
    for (word, epoch, accepted) in
        [("1", 1, true), (" 1 ", 1, true), ("1", 2, false), ("x", 1, false)]
    {
        let mut scene = Scene::three();
        scene.silent(0, 60);
        (1..3).for_each(|n| scene.silent(n, 60));
        scene.node(2, |v| {
            v.connected = true;
            (v.state.redis.link, v.state.redis.silent_ms) = (Link::Down, 60_000);
        });
        (scene.record.epoch, scene.master().epoch, scene.record.data_epoch) = (epoch, epoch, epoch);
        scene.node(2, |v| v.state.redis.online_epoch = epoch);
        scene.annotate(ACCEPT_LOSS, word);
        assert_eq!(scene.plan(NOW).record.change.is_some(), accepted, "{word} {epoch}");
    }
}
