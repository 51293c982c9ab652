//! Whether the master is dead, by whose word: the rules of `plan/death.rs`.

use akash_redis::api::annotations::ACCEPT_LOSS;
use akash_redis::api::conditions::Reason;
use akash_redis::api::types::WhenMinority;
use akash_redis::model::incarnation::Membership;
use akash_redis::model::inventory::LeaseStatus;
use akash_redis::model::node::{Link, Process, Role};
use akash_redis::model::time::UnixMs;

use crate::scene::{
    NOW, Scene, ago, degraded, detaches, failing_over, lease_id, name, page, promoted, replica,
    wait_for,
};

type Edit = fn(&mut Scene);

/// Why the master is given up, by whose word, and whether that word fences it as well.
fn death(scene: &Scene) -> Option<(String, Vec<String>, bool)> {
    let plan = scene.plan(NOW);
    let failover = failing_over(&plan)?;
    let by_death = failover.fence.as_ref().is_some_and(|f| !f.how.contains("confirms"));
    Some((failover.reason.clone(), failover.witnesses.clone(), by_death))
}

fn process(process: Process) -> impl Fn(&mut Scene) {
    move |s| s.node(0, |v| v.state.redis.process = process)
}

#[test]
fn an_agents_word_is_final() {
    let again = Some(("its redis was started again", true));
    let busy = |s: &mut Scene| s.node(0, |v| v.state.redis.health.busy = true);
    let hangs = Some(("its redis no longer answers", false));
    let rows: [(&str, &dyn Fn(&mut Scene), Option<(&str, bool)>); 15] = [
        ("a master that runs", &|_| {}, None),
        ("it exited", &process(Process::Exited), Some(("its redis exited", true))),
        ("it hangs since a moment", &process(Process::Stuck), None),
        ("it is frozen, for less than downAfter", &|s| s.hangs(0, 7), None),
        ("it is frozen for downAfter", &|s| s.hangs(0, 8), hangs),
        (
            "it computes, for less than stuckAfter",
            &|s| {
                s.hangs(0, 27);
                busy(s);
            },
            None,
        ),
        (
            "it computes for stuckAfter",
            &|s| {
                s.hangs(0, 28);
                busy(s);
            },
            hangs,
        ),
        (
            "it computes, and a person does not wait",
            &|s| {
                s.hangs(0, 5);
                busy(s);
                s.annotate(ACCEPT_LOSS, "1");
            },
            hangs,
        ),
        ("it starts", &process(Process::Starting), again),
        ("it loads", &|s| s.node(0, |v| v.state.redis.loading = true), again),
        ("it is a replica", &|s| s.node(0, |v| v.state.redis.role = Role::Replica), again),
        ("it is fenced", &|s| s.node(0, |v| v.state.redis.fenced = true), again),
        (
            "it exited, and its agent was started again meanwhile",
            &|s| {
                s.node(0, |v| v.state.boot_id = "another".into());
                process(Process::Exited)(s);
            },
            Some(("its redis exited", false)),
        ),
        (
            "a record of an earlier version, which names no start",
            &|s| {
                s.master().boot_id.clear();
                process(Process::Exited)(s);
            },
            Some(("its redis exited", true)),
        ),
        (
            "the last word of an agent that is gone",
            &|s| {
                s.silent(0, 1);
                process(Process::Exited)(s);
            },
            Some(("its redis exited", true)),
        ),
    ];
    for (what, edit, expected) in rows {
        let mut scene = Scene::three();
        edit(&mut scene);
        let found = death(&scene);
        let agent = vec![format!("agent of {}", name(0))];
        let expected = expected.map(|(reason, fenced)| (reason.to_owned(), agent, fenced));
        assert_eq!(found, expected, "{what}");
    }
}

/// It was chosen for epoch 2, and its agent did not confirm it yet.
fn unconfirmed() -> Scene {
    let mut scene = Scene::three();
    scene.record.epoch = 2;
    let master = scene.master();
    (master.epoch, master.confirmed) = (2, false);
    scene.node(0, |v| (v.state.redis.role, v.state.redis.fenced) = (Role::Replica, true));
    scene
}

#[test]
fn a_choice_that_is_not_confirmed_lives_while_its_process_does() {
    let rows: [(&str, Edit, bool); 8] = [
        ("it is a fenced replica still", |_| {}, true),
        ("it starts", |s| s.node(0, |v| v.state.redis.process = Process::Starting), true),
        ("another process runs", |s| s.node(0, |v| v.state.redis.run_id = "b".into()), false),
        (
            "another process starts",
            |s| {
                s.node(0, |v| {
                    v.state.redis.process = Process::Starting;
                    v.state.redis.run_id = "b".into();
                });
            },
            false,
        ),
        (
            "a process starts that has not said who it is",
            |s| {
                s.node(0, |v| {
                    v.state.redis.process = Process::Starting;
                    v.state.redis.run_id.clear();
                });
            },
            false,
        ),
        (
            "one runs that has not said who it is",
            |s| s.node(0, |v| v.state.redis.run_id.clear()),
            true,
        ),
        (
            "the choice names no process",
            |s| {
                s.master().run_id.clear();
                s.node(0, |v| v.state.redis.run_id = "b".into());
            },
            true,
        ),
        ("it hangs", |s| s.node(0, |v| v.state.redis.process = Process::Stuck), false),
    ];
    for (what, edit, lives) in rows {
        let mut scene = unconfirmed();
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(failing_over(&plan).is_none() && plan.record.epoch == 2, lives, "{what}");
    }
}

#[test]
fn a_master_whose_lease_is_gone_is_dead_when_another_has_its_data() {
    let rows: [(&str, Edit, bool); 4] = [
        ("both replicas are in sync", |_| {}, true),
        ("one of them is", |s| s.incarnation(1).lower(Membership::Member), true),
        (
            "none is: it is the best there is",
            |s| (1..3).for_each(|n| s.incarnation(n).lower(Membership::Member)),
            false,
        ),
        ("its lease is there", |s| s.lease(0, 0), false),
    ];
    for (what, edit, dead) in rows {
        let mut scene = Scene::whole();
        scene.close_lease(0, 10_000);
        edit(&mut scene);
        let witnesses = death(&scene).map(|(_, witnesses, fenced)| (witnesses, fenced));
        assert_eq!(witnesses, dead.then(|| (vec!["the chain".to_owned()], false)), "{what}");
    }
    let mut scene = Scene::whole();
    scene.close_lease(0, 10_000);
    scene.record.epoch = 2;
    (scene.master().epoch, scene.master().confirmed) = (2, false);
    assert_eq!(death(&scene), None, "it may be about to confirm");
}

#[test]
fn a_signed_page_says_what_a_silent_agent_cannot() {
    let rows: [(&str, Process, Role, bool, Option<(&str, bool)>); 6] = [
        ("exited", Process::Exited, Role::Unknown, true, Some(("its redis exited", true))),
        ("hangs", Process::Stuck, Role::Master, false, None),
        (
            "starts",
            Process::Starting,
            Role::Unknown,
            true,
            Some(("its redis was started again", true)),
        ),
        (
            "a replica",
            Process::Running,
            Role::Replica,
            false,
            Some(("its redis was started again", true)),
        ),
        (
            "fenced",
            Process::Running,
            Role::Master,
            true,
            Some(("its redis was started again", true)),
        ),
        ("well: that proves nothing", Process::Running, Role::Master, false, None),
    ];
    for (what, process, role, fenced, expected) in rows {
        let mut scene = Scene::three();
        scene.silent(0, 1);
        let said = page(0, |p| (p.process, p.role, p.fenced) = (process, role, fenced));
        scene.inventory.pages.insert(name(0), said);
        let witnesses = vec![format!("status page of {}", name(0))];
        let expected = expected.map(|(reason, fenced)| (reason.to_owned(), witnesses, fenced));
        assert_eq!(death(&scene), expected, "{what}");
    }
    let mut scene = Scene::three();
    scene.silent(0, 10);
    scene.inventory.pages.insert(name(0), page(0, |p| p.process = Process::Stuck));
    let (reason, ..) = death(&scene).expect("it hangs for downAfter");
    assert_eq!(reason, "its redis no longer answers");
    // That of another start of the agent, and that of one that was not confirmed.
    for (chosen, confirmed, process, expected) in [
        ("boot-0", true, Process::Exited, Some(true)),
        ("another", true, Process::Exited, Some(false)),
        ("", true, Process::Exited, Some(true)),
        ("boot-0", false, Process::Exited, Some(true)),
        ("boot-0", false, Process::Starting, None),
        ("boot-0", false, Process::Running, None),
    ] {
        let mut scene = Scene::three();
        scene.silent(0, 1);
        scene.master().boot_id = chosen.into();
        if !confirmed {
            scene.record.epoch = 2;
            (scene.master().epoch, scene.master().confirmed) = (2, false);
        }
        scene.inventory.pages.insert(name(0), page(0, |p| p.process = process));
        let fenced = death(&scene).map(|(_, _, fenced)| fenced);
        assert_eq!(fenced, expected, "{chosen} {confirmed} {process:?}");
    }
}

/// The master has been silent for this long, and its replicas say so for as long.
fn silent_for(seconds: u64) -> Scene {
    let mut scene = Scene::three();
    scene.silent(0, seconds);
    for n in 1..3 {
        scene.heard(
            n,
            replica(n, 1, |s| {
                (s.redis.link, s.redis.silent_ms) = (Link::Down, seconds * 1000);
            }),
        );
    }
    scene
}

#[test]
fn silence_counts_from_down_after_on() {
    let before = silent_for(9);
    assert_eq!(death(&before), None);
    let (until, then) = wait_for(&before.plan(NOW), "the master cache-0-aaaa").expect("a wait");
    assert_eq!((until, then.as_str()), (Some(1), "its replicas are asked whether they hear it"));
    let (reason, witnesses, fenced) = death(&silent_for(10)).expect("it is dead");
    assert_eq!((reason.as_str(), fenced), ("it has been silent for 10 s", false));
    assert_eq!(witnesses.len(), 3, "{witnesses:?}");
    assert!(witnesses[1].contains("cache-1-aaaa (silent for 10000 ms)"), "{witnesses:?}");
    // An operator that has just started, or just joined the mesh, could not hear it before.
    let mut started = silent_for(60);
    started.started = ago(9);
    assert_eq!(death(&started), None);
    let mut joined = silent_for(60);
    joined.inventory.own_mesh.since = ago(9);
    assert_eq!(death(&joined), None);
}

/// A promise of safety.md: a majority decides, one that hears the master vetoes, a minority never
/// decides.
#[test]
fn a_majority_of_the_recorded_replicas_decides_on_silence() {
    let hears: Edit = |s| {
        s.node(2, |v| (v.state.redis.link, v.state.redis.silent_ms) = (Link::Up, 9_999));
    };
    let rows: [(&str, Edit, Option<usize>, Option<Reason>); 12] = [
        ("both lost it", |_| {}, Some(3), None),
        (
            "one of two does not answer",
            |s| s.silent(2, 20),
            None,
            Some(Reason::MasterDownUnconfirmed),
        ),
        ("one still hears it", hears, None, Some(Reason::MasterUnreachable)),
        (
            "one is linked, and has heard nothing for as long",
            |s| s.node(2, |v| v.state.redis.link = Link::Up),
            Some(3),
            None,
        ),
        (
            "one has lost it just now",
            |s| s.node(2, |v| v.state.redis.silent_ms = 9_999),
            None,
            Some(Reason::MasterDownUnconfirmed),
        ),
        (
            "one was detached, and cannot keep it writable",
            |s| {
                s.node(2, |v| {
                    v.state.redis.silent_ms = 0;
                    v.state.redis.master_host.clear();
                });
            },
            Some(3),
            None,
        ),
        (
            "one that has no leave to replicate says nothing",
            |s| {
                s.incarnation(2).membership = Membership::Joined;
                s.node(2, |v| (v.state.redis.link, v.state.redis.silent_ms) = (Link::Up, 0));
            },
            Some(2),
            None,
        ),
        (
            "a minority may, by the manifest",
            |s| {
                s.cluster.spec.failover.when_minority = WhenMinority::Promote;
                s.silent(2, 20);
            },
            Some(2),
            None,
        ),
        (
            "nobody may, by the manifest, when nobody lost it",
            |s| {
                s.cluster.spec.failover.when_minority = WhenMinority::Promote;
                (1..3).for_each(|n| s.silent(n, 20));
            },
            None,
            Some(Reason::MasterDownUnconfirmed),
        ),
        (
            "a person accepted the loss",
            |s| {
                s.annotate(ACCEPT_LOSS, "1");
                s.silent(2, 20);
            },
            Some(2),
            None,
        ),
        (
            "a person accepted it in another epoch",
            |s| {
                s.annotate(ACCEPT_LOSS, "0");
                s.silent(2, 20);
            },
            None,
            Some(Reason::MasterDownUnconfirmed),
        ),
        (
            "one still hears it, whatever a person says",
            |s| {
                s.annotate(ACCEPT_LOSS, "1");
                s.node(2, |v| (v.state.redis.link, v.state.redis.silent_ms) = (Link::Up, 0));
            },
            None,
            Some(Reason::MasterUnreachable),
        ),
    ];
    for (what, edit, witnesses, problem) in rows {
        let mut scene = silent_for(11);
        edit(&mut scene);
        assert_eq!(death(&scene).map(|(_, w, _)| w.len()), witnesses, "{what}");
        if let Some(problem) = problem {
            let plan = scene.plan(NOW);
            assert_eq!(degraded(&plan).0, problem, "{what}");
            let told = (promoted(&plan), detaches(&plan));
            assert_eq!((plan.record.epoch, told), (1, (vec![], vec![])), "{what}: no change");
        }
    }
}

#[test]
fn what_a_minority_waits_for_is_told_with_numbers_and_a_command() {
    let mut scene = silent_for(11);
    scene.silent(2, 20);
    let plan = scene.plan(NOW);
    let (_, message) = degraded(&plan);
    assert!(message.contains("only 1 of 2 replicas confirm it (2 are needed)"), "{message}");
    assert!(message.contains("`akash-redis failover cache --accept-loss`"), "{message}");
    let (until, _) = wait_for(&plan, "2 replicas to say whether they hear").expect("a wait");
    assert_eq!(until, None, "a person decides");
    // Alone there is nobody to ask.
    let mut alone = Scene::three();
    alone.cluster.spec.nodes = 1;
    alone.record.incarnations.retain(|n, _| *n == name(0));
    alone.silent(0, 60);
    let plan = alone.plan(NOW);
    assert_eq!(failing_over(&plan), None);
    assert!(degraded(&plan).1.contains("no other node has its data"), "{:?}", degraded(&plan));
}

#[test]
fn four_replicas_need_three_words() {
    let mut scene = silent_for(11);
    for n in 3..5 {
        let mut more = scene.record.incarnations[&name(2)].clone();
        (more.ordinal, more.dseq) = (n, 100 + u64::from(n));
        scene.record.incarnations.insert(name(n), more);
        scene.heard(n, replica(n, 1, |s| (s.redis.link, s.redis.silent_ms) = (Link::Down, 11_000)));
    }
    scene.cluster.spec.nodes = 5;
    assert!(death(&scene).is_some());
    scene.silent(3, 20);
    let dead = "it is dead, and one that cannot be asked may keep it writable";
    assert_eq!(degraded(&scene.plan(NOW)).0, Reason::FailoverBlocked, "three of four: {dead}");
    scene.silent(4, 20);
    assert_eq!(degraded(&scene.plan(NOW)).0, Reason::MasterDownUnconfirmed, "two of four");
}

#[test]
fn a_lease_that_is_gone_is_no_silence_that_may_end() {
    let mut scene = Scene::whole();
    scene.silent(0, 11);
    scene.silent(1, 20);
    scene.node(2, |v| (v.state.redis.link, v.state.redis.silent_ms) = (Link::Down, 11_000));
    assert_eq!(death(&scene), None, "one of two");
    scene.close_lease(0, 10_000);
    // The other one cannot be asked, and may keep the old master writable.
    assert_eq!(degraded(&scene.plan(NOW)).0, Reason::FailoverBlocked);
}

#[test]
fn a_first_master_that_nobody_had_leave_to_replicate_from_is_not_waited_for() {
    let mut scene = silent_for(11);
    scene.record.untouched = true;
    for n in 1..3 {
        scene.incarnation(n).membership = Membership::Joined;
        scene.node(n, |v| v.state.redis.master_host.clear());
    }
    let plan = scene.plan(NOW);
    assert_eq!((plan.record.epoch, plan.record.master.is_none()), (2, true));
    // One that had leave may have acknowledged a write.
    scene.incarnation(1).raise(Membership::Member);
    scene.silent(1, 20);
    let plan = scene.plan(NOW);
    assert_eq!((plan.record.epoch, promoted(&plan).len()), (1, 0));
}

#[test]
fn a_providers_word_is_named_among_the_witnesses() {
    let mut scene = Scene::whole();
    scene.silent(0, 11);
    for n in 1..3 {
        scene.node(n, |v| (v.state.redis.link, v.state.redis.silent_ms) = (Link::Down, 11_000));
    }
    let deployed = LeaseStatus::Deployed { ready: 0, uris: vec![] };
    scene.inventory.leases.insert(lease_id(100, 0), deployed);
    let (_, witnesses, _) = death(&scene).expect("it is dead");
    let said = "lease status of cache-0-aaaa (its provider says that 0 of 1 containers are ready)";
    assert_eq!(witnesses.last().map(String::as_str), Some(said));
    let well = page(0, |p| (p.role, p.fenced, p.at) = (Role::Master, false, UnixMs(NOW - 1_000)));
    scene.inventory.pages.insert(name(0), well);
    let (_, witnesses, _) = death(&scene).expect("it is dead");
    assert!(witnesses[3].starts_with("status page of cache-0-aaaa (its status page says"));
}

/// The master is silent for three seconds, and everybody who can tell says that it is gone.
fn agreed() -> Scene {
    let mut scene = Scene::whole();
    scene.silent(0, 3);
    for n in 1..3 {
        scene.node(n, |v| v.state.redis.silent_ms = 2_500);
    }
    let gone = LeaseStatus::Deployed { ready: 0, uris: vec![] };
    scene.inventory.leases.insert(lease_id(100, 0), gone);
    scene.inventory.leases_asked.insert(lease_id(100, 0), ago(1));
    scene
}

#[test]
fn a_master_that_everybody_has_lost_is_not_waited_for() {
    let (reason, witnesses, fenced) = death(&agreed()).expect("it is dead");
    assert_eq!(reason, "its container is gone by its provider's word, and nobody hears it");
    assert!(witnesses[0].starts_with("operator (silent since"), "{witnesses:?}");
    assert_eq!(witnesses[1], "cache-1-aaaa (silent for 2500 ms)");
    assert!(witnesses[3].starts_with("lease status of cache-0-aaaa"), "{witnesses:?}");
    assert!(!fenced, "a provider's word is no fence");
}

#[test]
fn whoever_disagrees_is_believed_until_down_after() {
    let status = |s: &mut Scene, status| drop(s.inventory.leases.insert(lease_id(100, 0), status));
    let rows: [(&str, &dyn Fn(&mut Scene)); 9] = [
        ("its provider counts its container", &|s| {
            status(s, LeaseStatus::Deployed { ready: 1, uris: vec![] });
        }),
        ("its provider does not answer", &|s| status(s, LeaseStatus::Away("time-out".into()))),
        ("its provider has forgotten it", &|s| status(s, LeaseStatus::NoManifest)),
        ("its provider was asked before it fell silent", &|s| {
            s.inventory.leases_asked.insert(lease_id(100, 0), ago(4));
        }),
        ("nobody asked its provider", &|s| s.inventory.leases_asked.clear()),
        ("its page answers", &|s| {
            let well = page(0, |p| (p.role, p.fenced, p.at) = (Role::Master, false, ago(1)));
            s.inventory.pages.insert(name(0), well);
        }),
        ("one replica hears it", &|s| s.node(2, |v| v.state.redis.silent_ms = 1_000)),
        ("one replica does not answer", &|s| s.silent(2, 3)),
        ("it is silent for a moment only", &|s| s.silent(0, 2)),
    ];
    for (what, edit) in rows {
        let mut scene = agreed();
        edit(&mut scene);
        assert_eq!(death(&scene), None, "{what}");
        assert!(scene.plan(NOW).waits.iter().any(|w| w.deadline.is_some()), "{what}");
    }
    let mut restarted = agreed();
    restarted.node(2, |v| v.state.redis.master_host.clear());
    assert!(death(&restarted).is_some(), "a replica that is attached to nobody does not hear it");
}
