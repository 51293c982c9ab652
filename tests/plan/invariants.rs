//! Each rule of `plan::invariants`: a good plan keeps it, and is broken by hand.

use std::time::Duration;

use akash_redis::api::status::Endpoint;
use akash_redis::model::chain::BidView;
use akash_redis::model::change::{Change, Failover, Fence, Switchover};
use akash_redis::model::ids::IncarnationName;
use akash_redis::model::incarnation::{Choice, Incarnation, Membership, Quarantine};
use akash_redis::model::money::{PricePerBlock, Uact};
use akash_redis::model::node::{Authority, Link, Role};
use akash_redis::model::record::Promotion;
use akash_redis::model::step::{
    Command, Effect, NodeSettings, Quorum, ReplicationGrant, Step, Wait,
};
use akash_redis::model::time::UnixMs;
use akash_redis::plan::Plan;

use crate::scene::{
    NOW, QUARANTINE, Scene, TAG, TERM, THREE, ago, bid, condemned, deployment, detached, history,
    key, lease_id, name, price,
};

/// A rule that is broken by an edit of a good plan.
type Row<'a> = (&'a str, &'a dyn Fn(&mut Plan));

/// The plan of this scene keeps all rules, and each edit of it breaks the one that is named.
fn each_is_caught(scene: &Scene, rows: &[Row<'_>]) {
    let good = scene.plan(NOW);
    assert_eq!(scene.violations(&good), Vec::<String>::new());
    for (rule, edit) in rows {
        let mut plan = good.clone();
        edit(&mut plan);
        let found = scene.violations(&plan);
        assert!(found.iter().any(|v| v.contains(rule)), "`{rule}` is not among {found:?}");
    }
}

fn step(plan: &mut Plan, effect: Effect) {
    plan.steps.push(Step { effect, reason: "a reason".into() });
}

fn command(plan: &mut Plan, n: u32, command: Command) {
    let authority = Authority { term: TERM, epoch: plan.record.epoch };
    step(plan, Effect::Command { incarnation: name(n), authority, command });
}

fn own(plan: &mut Plan, n: u32) -> &mut Incarnation {
    plan.record.incarnations.get_mut(&name(n)).unwrap()
}

fn master(plan: &mut Plan) -> &mut Promotion {
    plan.record.master.as_mut().unwrap()
}

fn failover(plan: &mut Plan) -> &mut Failover {
    match &mut plan.record.change {
        Some(Change::Failover(failover)) => failover,
        other => panic!("{other:?}"),
    }
}

const QUORUM: Quorum = Quorum { min_replicas: 1, max_lag_seconds: 8 };

fn choice_of(n: u32, epoch: u64) -> Promotion {
    Promotion {
        epoch,
        incarnation: name(n),
        run_id: format!("run-{n}"),
        boot_id: format!("boot-{n}"),
        confirmed: false,
        since: UnixMs::default(),
        quorum: Some(QUORUM),
    }
}

fn give_up(plan: &mut Plan, n: u32) {
    let own = own(plan, n);
    own.condemned = condemned(0);
    own.lower(Membership::Member);
}

#[test]
fn terms_and_epochs() {
    each_is_caught(
        &Scene::whole(),
        &[
            ("of term 2, and this process has 1", &|p| p.record.term = 2),
            ("goes down from 1 to 0", &|p| p.record.epoch = 0),
            ("ahead of 1", &|p| p.record.data_epoch = 2),
            ("ahead of the record's 1", &|p| master(p).epoch = 2),
            ("no write is said to have been acknowledged", &|p| p.record.untouched = true),
        ],
    );
    let mut scene = Scene::whole();
    scene.record.epoch = 3;
    scene.master().epoch = 3;
    scene.record.data_epoch = 3;
    scene.node(0, |v| v.state.highest.epoch = 3);
    each_is_caught(
        &scene,
        &[
            ("go back from epoch 3 to 2", &|p| p.record.data_epoch = 2),
            ("without a master that confirmed it", &|p| {
                (p.record.epoch, p.record.data_epoch, p.record.master) = (4, 4, None);
            }),
        ],
    );
}

#[test]
fn one_choice_in_an_epoch() {
    each_is_caught(
        &Scene::whole(),
        &[
            ("was confirmed, and is not any more", &|p| master(p).confirmed = false),
            ("cache-1-aaaa is chosen for epoch 1, and cache-0-aaaa was for 1", &|p| {
                p.record.master = Some(choice_of(1, 1));
            }),
            ("cache-0-aaaa is chosen for epoch 1, and cache-0-aaaa was for 1", &|p| {
                master(p).run_id = "another".into();
            }),
            ("cache-0-aaaa is chosen for epoch 1, and cache-0-aaaa was for 1", &|p| {
                master(p).boot_id = "another".into();
            }),
            ("its redis run-9 is not there", &|p| {
                p.record.epoch = 2;
                p.record.master = Some(Promotion { run_id: "run-9".into(), ..choice_of(1, 2) });
            }),
        ],
    );
    let mut scene = Scene::whole();
    scene.record.master = None;
    (0..3).for_each(|n| scene.silent(n, 1));
    each_is_caught(
        &scene,
        &[("chosen for epoch 1, which had begun", &|p| p.record.master = Some(choice_of(1, 1)))],
    );
}

/// A failover of epoch 2 that has chosen node 1 just now.
fn chosen_in_a_failover() -> Scene {
    let mut scene = Scene::whole();
    scene.fenced();
    scene.silent(0, 60);
    for n in 1..3 {
        scene.heard(n, detached(n, |s| s.mesh.device_id = format!("device-{n}")));
    }
    assert_eq!(scene.plan(NOW).record.master.map(|m| m.incarnation), Some(name(1)));
    scene
}

#[test]
fn counted_detached_and_fenced_before_a_choice() {
    each_is_caught(
        &chosen_in_a_failover(),
        &[
            ("is chosen before cache-0-aaaa is fenced", &|p| failover(p).fence = None),
            ("was not counted with this redis", &|p| failover(p).eligible.clear()),
            ("was not counted with this redis", &|p| {
                failover(p).eligible[0].run_id = "another".into();
            }),
            ("before its offset stands still", &|p| {
                failover(p).detached_at.remove(&name(1));
            }),
            ("another candidate has more", &|p| failover(p).eligible[1].offset = 101),
            ("goes on in epoch 2", &|p| failover(p).epoch = 3),
        ],
    );
}

#[test]
fn a_switchover_is_chosen_when_the_target_has_everything() {
    let mut scene = Scene::whole();
    scene.switching(1);
    scene.node(0, |v| (v.state.redis.fenced, v.state.highest.epoch) = (true, 2));
    let other_target = |p: &mut Plan| match &mut p.record.change {
        Some(Change::Switchover(s)) => s.target = name(2),
        other => panic!("{other:?}"),
    };
    each_is_caught(&scene, &[("chosen in a switchover to cache-2-aaaa", &other_target)]);
    let edits: [fn(&mut Scene); 4] = [
        |s| s.node(0, |v| v.state.redis.fenced = false),
        |s| s.node(0, |v| v.state.highest.epoch = 1),
        |s| s.node(1, |v| v.state.redis.offset = 99),
        |s| s.node(1, |v| v.state.redis.replid = "B".into()),
    ];
    let plan = scene.plan(NOW);
    for edit in edits {
        let mut other = scene.clone();
        edit(&mut other);
        let found = other.violations(&plan);
        assert!(found.iter().any(|v| v.contains("before cache-0-aaaa is fenced and")), "{found:?}");
    }
}

#[test]
fn nothing_is_forgotten_while_a_change_lasts() {
    let mut scene = Scene::whole();
    scene.silent(0, 30);
    for n in 1..3 {
        scene.heard(n, detached(n, |_| {}));
    }
    let at = ago(1);
    let failover_so_far = scene.failing(NOW - 5_000);
    failover_so_far.detached_at = [(name(1), at), (name(2), at)].into();
    each_is_caught(
        &scene,
        &[
            ("cache-0-aaaa is given up no more", &|p| failover(p).old = name(1)),
            ("who was detached is forgotten", &|p| failover(p).detached_at.clear()),
            ("a candidate after the count", &|p| {
                failover(p).eligible[0].incarnation = name(0);
            }),
        ],
    );
    let so_far = scene.failover();
    so_far.fence = Some(Fence { how: "x".into(), at });
    so_far.loss_accepted = true;
    each_is_caught(
        &scene,
        &[
            ("the fence of cache-0-aaaa is taken back", &|p| {
                failover(p).fence = None;
                p.record.master = Some(choice_of(0, 1));
            }),
            ("a loss is accepted is taken back", &|p| failover(p).loss_accepted = false),
        ],
    );
}

#[test]
fn a_change_begins_in_an_epoch_of_its_own() {
    let mut scene = Scene::whole();
    scene.failing(NOW);
    let failover = scene.record.change.take();
    scene.switching(0);
    let switchover = scene.record.change.take();
    scene.record.epoch = 1;
    let begins = |change: &Option<Change>, p: &mut Plan| {
        let mut change = change.clone();
        match &mut change {
            Some(
                Change::Failover(Failover { epoch, .. })
                | Change::Switchover(Switchover { epoch, .. }),
            ) => *epoch = 1,
            None => {}
        }
        p.record.change = change;
    };
    each_is_caught(
        &scene,
        &[
            ("a failover begins in epoch 1", &|p| begins(&failover, p)),
            ("a switchover begins, or is undone, in epoch 1", &|p| begins(&switchover, p)),
        ],
    );
}

#[test]
fn an_incarnation_stays_what_it_is() {
    let mut scene = Scene::whole();
    scene.incarnation(2).condemned = condemned(5);
    scene.incarnation(2).membership = Membership::Joined;
    let fixed = "gets another number, deployment, floor or price";
    each_is_caught(
        &scene,
        &[
            (fixed, &|p| own(p, 1).ordinal = 7),
            (fixed, &|p| own(p, 1).dseq = 7),
            (fixed, &|p| own(p, 1).epoch_floor = 1),
            (fixed, &|p| own(p, 1).max_price = PricePerBlock(7)),
            ("two incarnations have one deployment", &|p| own(p, 1).dseq = 100),
            ("cache-2-aaaa was given up, and is not any more", &|p| own(p, 2).condemned = None),
            ("never joined any more", &|p| own(p, 1).membership = Membership::Expected),
            ("and is no member any more", &|p| {
                own(p, 1).membership = Membership::Joined;
            }),
            ("is a candidate and given up", &|p| own(p, 2).raise(Membership::Candidate)),
            ("was not given up before", &|p| drop(p.record.incarnations.remove(&name(1)))),
            ("its deployment may be open", &|p| drop(p.record.incarnations.remove(&name(2)))),
            ("its device may be there", &|p| drop(p.record.incarnations.remove(&name(2)))),
        ],
    );
    scene.inventory.chain.error = Some("away".into());
    scene.inventory.mesh.error = Some("away".into());
    each_is_caught(
        &scene,
        &[
            ("its deployment may be open", &|p| drop(p.record.incarnations.remove(&name(2)))),
            ("its device may be there", &|p| drop(p.record.incarnations.remove(&name(2)))),
        ],
    );
}

#[test]
fn a_transaction_on_its_way_keeps_an_incarnation_in_the_record() {
    let mut scene = Scene::whole();
    scene.incarnation(2).condemned = condemned(200);
    scene.incarnation(2).membership = Membership::Joined;
    scene.chain().deployments.remove(&102);
    scene.inventory.pending.insert(102);
    let forget = |p: &mut Plan| drop(p.record.incarnations.remove(&name(2)));
    each_is_caught(&scene, &[("its deployment may be open", &forget)]);
}

#[test]
fn the_last_copy_is_not_given_up() {
    let mut scene = Scene::whole();
    scene.record.master = None;
    (0..3).for_each(|n| scene.silent(n, 1));
    each_is_caught(&scene, &[("nobody else is master of what it holds", &|p| give_up(p, 1))]);
    // Another one is, or it is lost: nothing to say.
    let mut lost = scene.clone();
    lost.close_lease(1, 10_000);
    for scene in [Scene::whole(), lost] {
        let mut plan = scene.plan(NOW);
        give_up(&mut plan, 1);
        let found = scene.violations(&plan);
        assert!(!found.iter().any(|v| v.contains("nobody else")), "{found:?}");
    }
}

#[test]
fn a_candidate_is_in_sync() {
    let mut scene = Scene::whole();
    scene.incarnation(2).lower(Membership::Member);
    scene.node(2, |v| v.state.redis.link = Link::Down);
    let again = |p: &mut Plan| own(p, 2).raise(Membership::Candidate);
    each_is_caught(&scene, &[("may be promoted, and is not in sync", &again)]);
    scene.node(2, |v| (v.state.redis.link, v.state.redis.online_epoch) = (Link::Up, 0));
    each_is_caught(&scene, &[("may be promoted, and is not in sync", &again)]);
    scene.silent(2, 1);
    each_is_caught(&scene, &[("may be promoted, and is not in sync", &again)]);
}

#[test]
fn quarantine_begins_with_a_failover_and_ends_when_the_data_are_kept() {
    let shut_off = Some(Quarantine { epoch: 1, at: ago(60), in_force: None });
    let begin = |p: &mut Plan| own(p, 2).quarantined.clone_from(&shut_off);
    each_is_caught(&Scene::whole(), &[("was not given up as master", &begin)]);

    let mut scene = Scene::whole();
    scene.incarnation(2).quarantined.clone_from(&shut_off);
    scene.incarnation(2).lower(Membership::Member);
    scene.mesh().devices[2].tags = vec![QUARANTINE.into()];
    scene.node(2, |v| {
        (v.state.redis.role, v.state.redis.fenced, v.state.redis.link) =
            (Role::Master, false, Link::Down);
        v.state.redis.master_host.clear();
    });
    let end = |p: &mut Plan| own(p, 2).quarantined = None;
    each_is_caught(&scene, &[("let out of quarantine, and was not demoted", &end)]);
    // Demoted, with data that nobody has.
    scene.node(2, |v| {
        (v.state.redis.role, v.state.redis.replid) = (Role::Replica, "own".into());
        v.state.history = history("own", 200, 1, 0);
    });
    each_is_caught(&scene, &[("before its data are kept", &end)]);
    scene.node(2, |v| v.state.saved = vec!["before-epoch-1".into()]);
    assert!(scene.plan(NOW).record.incarnations[&name(2)].quarantined.is_none());
}

fn reserved(scene: &Scene, p: &mut Plan, edit: impl FnOnce(&mut Incarnation)) {
    let new = IncarnationName("cache-2-bbbb".into());
    let dseq = new.dseq(&crate::scene::installation());
    let mut incarnation = Incarnation::new(2, dseq, UnixMs(NOW), scene.record.epoch, price(1));
    edit(&mut incarnation);
    p.record.incarnations.insert(new, incarnation);
}

#[test]
fn what_is_reserved_is_new_and_paid_for() {
    let scene = Scene::whole();
    let add = |p: &mut Plan, edit: fn(&mut Incarnation)| reserved(&scene, p, edit);
    let mut good = scene.plan(NOW);
    add(&mut good, |_| {});
    assert_eq!(scene.violations(&good), Vec::<String>::new());
    each_is_caught(
        &scene,
        &[
            ("which is not free", &|p| add(p, |i| i.dseq = 7)),
            ("is reserved for node 1", &|p| add(p, |i| i.ordinal = 1)),
            ("is born with the floor 0", &|p| add(p, |i| i.epoch_floor = 0)),
            ("is born with the floor 2", &|p| add(p, |i| i.epoch_floor = 2)),
            ("may cost nothing", &|p| add(p, |i| i.max_price = PricePerBlock(0))),
            ("40act a month are promised of 30act", &|p| add(p, |i| i.max_price = price(31))),
            ("is to be closed, and nobody found it", &|p| {
                add(p, |i| i.condemned = condemned(0));
            }),
        ],
    );
    let add = |p: &mut Plan| reserved(&scene, p, |_| {});
    let mut poor = Scene::whole();
    poor.cluster.spec.budget.deposit = Some("2act".parse().unwrap());
    poor.chain().balance = Uact(1_999_999);
    each_is_caught(&poor, &[("deposits of 2act are promised of 1.999999act", &add)]);
    let mut away = Scene::whole();
    away.inventory.chain.error = Some("away".into());
    each_is_caught(&away, &[("reserved while the chain is away", &add)]);
    let mut away = Scene::whole();
    away.inventory.mesh.error = Some("away".into());
    each_is_caught(&away, &[("reserved while nobody could join", &add)]);
    let mut taken = Scene::whole();
    let new = IncarnationName("cache-2-bbbb".into());
    let dseq = new.dseq(&crate::scene::installation());
    taken.chain().deployments.insert(dseq, deployment(&new, dseq));
    each_is_caught(&taken, &[("which is not free", &add)]);
    let mut elsewhere = Scene::whole();
    elsewhere.cluster.metadata.name = "other".into();
    elsewhere.cluster.spec.paused = true;
    each_is_caught(&elsewhere, &[("is reserved for node 2", &add)]);
}

#[test]
fn no_step_without_its_record() {
    let authority = Authority { term: TERM, epoch: 1 };
    let fence = |n, authority| Effect::Command {
        incarnation: name(n),
        authority,
        command: Command::Save { label: "x".into() },
    };
    each_is_caught(
        &Scene::whole(),
        &[
            ("a step on cache-1-aaaa without a reason", &|p| {
                step(p, fence(1, authority));
                p.steps[0].reason.clear();
            }),
            ("a step on cache-1-aaaa twice", &|p| {
                step(p, fence(1, authority));
                step(p, fence(1, authority));
            }),
            ("a step on cache-7-aaaa, which is not recorded", &|p| step(p, fence(7, authority))),
            ("of another term or epoch", &|p| {
                step(p, fence(1, Authority { term: 2, epoch: 1 }));
            }),
            ("of another term or epoch", &|p| {
                step(p, fence(1, Authority { term: TERM, epoch: 0 }));
            }),
            ("below its epoch 2", &|p| {
                step(p, fence(1, authority));
                own(p, 1).epoch_floor = 2;
            }),
            ("cache-1-aaaa, given up, is commanded", &|p| {
                step(p, fence(1, authority));
                give_up(p, 1);
            }),
        ],
    );
    let mut scene = Scene::whole();
    scene.cluster.spec.paused = true;
    each_is_caught(
        &scene,
        &[
            ("a paused cluster is changed", &|p| step(p, fence(1, authority))),
            ("a paused cluster is changed", &|p| p.record.epoch = 2),
        ],
    );
}

#[test]
fn a_purchase_follows_its_record() {
    let mut scene = Scene::new(THREE);
    scene.cluster.spec.nodes = 1;
    scene.record = scene.plan(NOW).record;
    let created = "is given up, there already, or on its way";
    let create = |deposit| Effect::CreateDeployment { incarnation: name(0), deposit };
    each_is_caught(
        &scene,
        &[
            // At 30act a month 3act are three days: the low mark, without a margin.
            ("gets 2.999999act", &|p| p.steps[0].effect = create(Uact(2_999_999))),
            ("gets 6.001act", &|p| p.steps[0].effect = create(Uact(6_001_000))),
            (created, &|p| give_up(p, 0)),
        ],
    );
    let plan = scene.plan(NOW);
    let dseq = scene.record.incarnations[&name(0)].dseq;
    let mut there = scene.clone();
    there.chain().deployments.insert(dseq, deployment(&name(0), dseq));
    let mut under_way = scene.clone();
    under_way.inventory.pending.insert(dseq);
    let mut away = scene.clone();
    away.inventory.chain.error = Some("away".into());
    for scene in [there, under_way, away] {
        let found = scene.violations(&plan);
        assert!(found.iter().any(|v| v.contains(created)), "{found:?}");
    }
}

#[test]
fn a_lease_follows_the_choice_of_an_open_bid() {
    let mut scene = Scene::whole();
    let mut open = deployment(&name(2), 102);
    open.bids = vec![bid(102, 2, 3), bid(102, 3, 3), bid(102, 4, 3)];
    open.bids[2].fits = false;
    scene.chain().deployments.insert(102, open);
    scene.inventory.nodes.remove(&name(2));
    let own_record = scene.incarnation(2);
    own_record.membership = Membership::Expected;
    scene.inventory.held.insert(name(2), [0; 32]);
    let take = |p: &mut Plan, provider| {
        let id = lease_id(102, provider);
        own(p, 2).lease = Some(Choice { id: id.clone(), price: price(3), at: UnixMs(NOW) });
        p.steps[0].effect = Effect::CreateLease { incarnation: name(2), lease: id };
    };
    let not_open = "takes a bid that is not open, or is given up";
    each_is_caught(
        &scene,
        &[
            ("takes a bid that is not recorded", &|p| own(p, 2).lease = None),
            ("takes a bid that is not recorded", &|p| {
                own(p, 2).lease.as_mut().unwrap().id = lease_id(102, 3);
            }),
            ("asks too much", &|p| own(p, 2).lease.as_mut().unwrap().price = price(4)),
            (not_open, &|p| take(p, 5)),
            (not_open, &|p| take(p, 4)),
            (not_open, &|p| give_up(p, 2)),
        ],
    );
    let plan = scene.plan(NOW);
    scene.deployment(2).open_order = Some(2);
    assert!(scene.violations(&plan).iter().any(|v| v.contains(not_open)));
    let gone: Vec<BidView> = vec![];
    (scene.deployment(2).open_order, scene.deployment(2).bids) = (Some(1), gone);
    assert!(scene.violations(&plan).iter().any(|v| v.contains(not_open)));
}

#[test]
fn a_manifest_goes_to_the_holder_of_the_lease() {
    let deliver = |p: &mut Plan, n, provider| {
        let lease = lease_id(100 + u64::from(n), provider);
        step(p, Effect::DeliverManifest { incarnation: name(n), lease });
    };
    let mut scene = Scene::whole();
    let mut good = scene.plan(NOW);
    deliver(&mut good, 2, 2);
    assert_eq!(scene.violations(&good), Vec::<String>::new());
    let rule = "goes to a provider without its lease";
    each_is_caught(
        &scene,
        &[
            (rule, &|p| deliver(p, 2, 3)),
            (rule, &|p| {
                deliver(p, 2, 2);
                give_up(p, 2);
            }),
        ],
    );
    scene.close_lease(2, 0);
    assert!(scene.violations(&good).iter().any(|v| v.contains(rule)));
}

#[test]
fn only_what_is_given_up_is_destroyed() {
    let close = |p: &mut Plan, n, dseq| {
        step(p, Effect::CloseDeployment { incarnation: name(n), dseq });
    };
    let delete = |p: &mut Plan, n, device: &str| {
        step(p, Effect::DeleteDevice { incarnation: name(n), device: device.into() });
    };
    let mut scene = Scene::whole();
    scene.incarnation(2).condemned = condemned(60);
    scene.incarnation(2).membership = Membership::Joined;
    each_is_caught(
        &scene,
        &[
            ("deployment 101 is closed", &|p| close(p, 1, 101)),
            ("deployment 101 is closed", &|p| close(p, 2, 101)),
            ("device device-1 is deleted", &|p| delete(p, 1, "device-1")),
            ("device device-1 is deleted", &|p| delete(p, 2, "device-1")),
        ],
    );
    let mut plan = scene.plan(NOW);
    scene.deployment(2).group_name = "ar-abcdef-other-2-aaaa".into();
    scene.mesh().devices.remove(2);
    plan.record.incarnations.get_mut(&name(2)).unwrap().device = None;
    let found = scene.violations(&plan);
    assert!(found.iter().any(|v| v.contains("deployment 102 is closed")), "{found:?}");
    assert!(found.iter().any(|v| v.contains("device device-2 is deleted")), "{found:?}");
}

#[test]
fn tags_and_keys_are_changed_as_the_record_says() {
    let tag = |p: &mut Plan, n, device: &str, tag: &str| {
        let (device, tags) = (device.to_owned(), vec![tag.to_owned()]);
        step(p, Effect::SetTags { incarnation: name(n), device, tags });
    };
    let revoke = |p: &mut Plan, key: String| {
        step(p, Effect::RevokeKey { incarnation: name(1), key });
    };
    let mut scene = Scene::whole();
    scene.mesh().keys = vec![key(&name(1)), key(&name(2))];
    scene.inventory.held.insert(name(1), [0; 32]);
    each_is_caught(
        &scene,
        &[
            ("device device-1 of cache-1-aaaa gets", &|p| tag(p, 1, "device-1", QUARANTINE)),
            ("device device-2 of cache-1-aaaa gets", &|p| tag(p, 1, "device-2", TAG)),
            ("device device-1 of cache-1-aaaa gets", &|p| tag(p, 1, "device-1", "tag:other")),
            ("device device-1 of cache-1-aaaa gets", &|p| {
                tag(p, 1, "device-1", TAG);
                give_up(p, 1);
            }),
            ("is in use or not cache-1-aaaa's", &|p| revoke(p, key(&name(1)).id)),
            ("is in use or not cache-1-aaaa's", &|p| revoke(p, key(&name(2)).id)),
        ],
    );
    let mut plan = scene.plan(NOW);
    revoke(&mut plan, key(&name(1)).id);
    scene.inventory.held.clear();
    assert_eq!(scene.violations(&plan), Vec::<String>::new(), "its secret is lost");
}

fn grant(n: u32, epoch: u64) -> ReplicationGrant {
    ReplicationGrant { incarnation: name(n), epoch }
}

fn promote(n: u32, epoch: u64) -> Command {
    Command::Promote {
        replicas: vec![grant(n, epoch)],
        quorum: QUORUM,
        planned: false,
        import: String::new(),
    }
}

#[test]
fn only_the_choice_of_the_epoch_is_promoted() {
    let scene = chosen_in_a_failover();
    each_is_caught(
        &scene,
        &[
            ("2 promotions in one plan", &|p| command(p, 2, promote(1, 2))),
            ("cache-1-aaaa is to take writes without replicas", &|p| {
                let Command::Promote { replicas, quorum, .. } = promote(1, 2) else { return };
                let promotion =
                    Command::Promote { replicas, quorum, planned: true, import: String::new() };
                p.steps.retain(|step| !matches!(step.effect, Effect::Command { .. }));
                command(p, 1, promotion);
            }),
            ("cache-2-aaaa is promoted, and was not chosen", &|p| {
                p.steps.clear();
                command(p, 2, promote(1, 2));
            }),
            ("cache-1-aaaa is promoted, and was not chosen", &|p| {
                master(p).run_id = "another".into();
            }),
            ("cache-1-aaaa is promoted, and was not chosen", &|p| master(p).confirmed = true),
            ("cache-1-aaaa is promoted, and was not chosen", &|p| master(p).epoch = 1),
        ],
    );
}

#[test]
fn the_record_says_beforehand_who_replicates_and_what_a_write_needs() {
    let configure = |p: &mut Plan, n, replicas: Vec<ReplicationGrant>, quorum| {
        let settings = NodeSettings { replicas, quorum, ..NodeSettings::default() };
        command(p, n, Command::Configure(settings));
    };
    let weaker = Quorum { min_replicas: 0, ..QUORUM };
    let longer = Quorum { max_lag_seconds: 9, ..QUORUM };
    let granted = "may replicate from cache-0-aaaa, and the record does not say so";
    each_is_caught(
        &Scene::whole(),
        &[
            ("is told Quorum { min_replicas: 0", &|p| configure(p, 0, vec![], weaker)),
            ("max_lag_seconds: 9 }, and the record", &|p| configure(p, 0, vec![], longer)),
            (granted, &|p| configure(p, 0, vec![grant(1, 2)], QUORUM)),
            (granted, &|p| configure(p, 0, vec![grant(0, 1)], QUORUM)),
            (granted, &|p| {
                configure(p, 0, vec![grant(1, 1)], QUORUM);
                own(p, 1).membership = Membership::Joined;
            }),
            (granted, &|p| {
                configure(p, 0, vec![grant(1, 1)], QUORUM);
                give_up(p, 1);
            }),
            ("others may replicate from cache-1-aaaa", &|p| {
                configure(p, 1, vec![grant(2, 1)], QUORUM);
            }),
        ],
    );
}

#[test]
fn a_replica_follows_the_confirmed_master_alone() {
    let follow = |p: &mut Plan, n, of, to, epoch| {
        command(
            p,
            n,
            Command::Follow {
                master: name(of),
                master_name: "x".into(),
                grant: grant(to, epoch),
                save_first: false,
                data_epoch: 0,
            },
        );
    };
    let scene = Scene::whole();
    let mut good = scene.plan(NOW);
    follow(&mut good, 1, 0, 1, 1);
    assert_eq!(scene.violations(&good), Vec::<String>::new());
    let rule = "which is not the confirmed master";
    each_is_caught(
        &scene,
        &[
            (rule, &|p| follow(p, 1, 2, 1, 1)),
            (rule, &|p| follow(p, 1, 0, 1, 2)),
            (rule, &|p| follow(p, 0, 0, 0, 1)),
            (rule, &|p| {
                follow(p, 1, 0, 1, 1);
                master(p).confirmed = false;
            }),
            ("follows, and may not be attached", &|p| follow(p, 1, 0, 2, 1)),
            ("follows, and may not be attached", &|p| {
                follow(p, 1, 0, 1, 1);
                own(p, 1).membership = Membership::Joined;
            }),
            ("follows, and may not be attached", &|p| {
                follow(p, 1, 0, 1, 1);
                own(p, 1).quarantined = Some(Quarantine { epoch: 1, at: ago(1), in_force: None });
            }),
            ("is the master, and is told to stop", &|p| command(p, 0, Command::Fence)),
            ("is the master, and is told to stop", &|p| {
                command(p, 0, Command::Detach { drain_ms: 0 });
            }),
            ("no switchover from it is undone", &|p| {
                command(p, 0, Command::Unfence { quorum: QUORUM });
            }),
        ],
    );
    let mut changing = Scene::whole();
    changing.switching(1);
    each_is_caught(
        &changing,
        &[
            (rule, &|p| follow(p, 1, 0, 1, 1)),
            ("no switchover from it is undone", &|p| {
                command(p, 0, Command::Unfence { quorum: QUORUM });
            }),
        ],
    );
}

#[test]
fn waits_and_ends() {
    let wait = |what: &str, then: &str, seconds| Wait {
        what: what.into(),
        since: UnixMs(NOW),
        deadline: Some(UnixMs(NOW) + Duration::from_secs(seconds)),
        then: then.into(),
    };
    each_is_caught(
        &Scene::whole(),
        &[
            ("says not what for", &|p| p.waits.push(wait("", "x", 1))),
            ("or what then", &|p| p.waits.push(wait("x", "", 1))),
            ("ended before it began", &|p| {
                p.waits.push(Wait { deadline: Some(ago(1)), ..wait("x", "x", 1) });
            }),
            ("something of it is left", &|p| p.finished = true),
            ("not the confirmed master", &|p| {
                p.status.master =
                    Some(Endpoint { epoch: 1, incarnation: name(1).0, ..Endpoint::default() });
            }),
            ("not the confirmed master", &|p| p.status.master.as_mut().unwrap().epoch = 2),
            ("is master and not in the record", &|p| {
                p.record.incarnations.remove(&name(0));
            }),
            ("is master and given up", &|p| give_up(p, 0)),
            ("and the data are of epoch 0", &|p| p.record.data_epoch = 0),
        ],
    );
}
