//! What is published: the rules of `plan/status.rs`, `plan/paths.rs` and `plan/failing.rs`.

use akash_redis::api::conditions::{ConditionStatus, ConditionType, Phase, Reason};
use akash_redis::api::events::EventReason;
use akash_redis::api::status::Condition;
use akash_redis::model::incarnation::{Membership, Quarantine};
use akash_redis::model::inventory::{Failing, LeaseStatus};
use akash_redis::model::money::Uact;
use akash_redis::model::node::{Link, PathKind, PeerPath, Process};
use akash_redis::model::step::Effect;
use akash_redis::plan::Plan;

use crate::scene::{NOW, QUARANTINE, Scene, ago, degraded, deployment, has_event, lease_id, name};

type Edit = fn(&mut Scene);

fn condition(plan: &Plan, kind: ConditionType) -> Condition {
    plan.status.conditions.iter().find(|c| c.kind == kind).unwrap().clone()
}

fn planned(edit: impl FnOnce(&mut Scene)) -> Plan {
    let mut scene = Scene::whole();
    edit(&mut scene);
    scene.plan(NOW)
}

#[test]
fn a_node_is_in_the_phase_that_is_seen() {
    let lease = |status: LeaseStatus| {
        move |s: &mut Scene| {
            s.inventory.nodes.remove(&name(2));
            s.incarnation(2).membership = Membership::Expected;
            s.inventory.leases.insert(lease_id(102, 2), status.clone());
            s.inventory.held.insert(name(2), [0; 32]);
        }
    };
    let deployed = LeaseStatus::Deployed { ready: 1, uris: vec![] };
    let rows: [(&str, &dyn Fn(&mut Scene), Phase); 18] = [
        ("a replica", &|_| {}, Phase::Replica),
        (
            "no candidate",
            &|s| {
                s.incarnation(2).lower(Membership::Member);
                s.attach(&[1]);
            },
            Phase::Joined,
        ),
        ("its link is down", &|s| s.node(2, |v| v.state.redis.link = Link::Down), Phase::Joined),
        (
            "it syncs",
            &|s| {
                s.incarnation(2).lower(Membership::Member);
                s.node(2, |v| v.state.redis.link = Link::Syncing);
            },
            Phase::Syncing,
        ),
        (
            "it syncs, and has no leave",
            &|s| {
                s.incarnation(2).lower(Membership::Joined);
                s.silent(0, 1);
                s.node(2, |v| v.state.redis.link = Link::Syncing);
            },
            Phase::Joined,
        ),
        ("it is silent", &|s| s.silent(2, 1), Phase::Unreachable),
        ("it was given up", &|s| s.give_up(2, 5), Phase::Leaving),
        (
            "it is shut off",
            &|s| {
                s.mesh().devices[2].tags = vec![QUARANTINE.into()];
                s.incarnation(2).quarantined =
                    Some(Quarantine { epoch: 1, at: ago(5), in_force: None });
                s.node(2, |v| v.state.highest.epoch = 0);
            },
            Phase::Quarantined,
        ),
        (
            "its deployment is not its own",
            &|s| {
                s.silent(0, 1);
                s.record.master.as_mut().unwrap().incarnation = name(2);
                s.record.data_master = Some(name(2));
                s.deployment(2).group_name = "x".into();
            },
            Phase::Lost,
        ),
        (
            "nobody knows",
            &|s| {
                s.inventory.nodes.remove(&name(2));
                s.incarnation(2).membership = Membership::Expected;
                s.inventory.chain.error = Some("x".into());
            },
            Phase::Unknown,
        ),
        (
            "the chain is away, and it joined once",
            &|s| {
                s.silent(2, 1);
                s.inventory.chain.error = Some("x".into());
            },
            Phase::Unreachable,
        ),
        (
            "the chain is away, and it speaks",
            &|s| s.inventory.chain.error = Some("x".into()),
            Phase::Replica,
        ),
        (
            "the chain lacks it, and it speaks",
            &|s| drop(s.chain().deployments.remove(&102)),
            Phase::Replica,
        ),
        (
            "the chain lacks it, and it joined once",
            &|s| {
                s.silent(2, 1);
                s.chain().deployments.remove(&102);
            },
            Phase::Unreachable,
        ),
        (
            "it was reserved",
            &|s| {
                s.inventory.nodes.remove(&name(2));
                s.incarnation(2).membership = Membership::Expected;
                s.chain().deployments.remove(&102);
            },
            Phase::Reserved,
        ),
        (
            "it has an order",
            &|s| {
                s.inventory.nodes.remove(&name(2));
                s.incarnation(2).membership = Membership::Expected;
                s.incarnation(2).reserved = ago(5);
                s.chain().deployments.insert(102, deployment(&name(2), 102));
            },
            Phase::Bidding,
        ),
        ("it is leased", &lease(LeaseStatus::NoManifest), Phase::Leased),
        ("it starts", &lease(deployed), Phase::Starting),
    ];
    for (what, edit, phase) in rows {
        let mut scene = Scene::whole();
        // What is to be done about it is not shown here.
        scene.incarnation(2).lease.as_mut().unwrap().at = ago(5);
        edit(&mut scene);
        let plan = scene.plan(NOW);
        let node = plan.status.nodes.iter().find(|n| n.incarnation == name(2).0).unwrap();
        assert_eq!(node.phase, phase, "{what}");
    }
    let away = planned(|s| {
        s.incarnation(2).lease.as_mut().unwrap().at = ago(5);
        lease(LeaseStatus::Away("timeout".into()))(s);
    });
    let message = away.status.nodes[2].message.clone().unwrap();
    assert_eq!(away.status.nodes[2].phase, Phase::Starting);
    assert!(message.contains("the provider's gateway does not answer: timeout"), "{message}");
    assert_eq!(planned(|_| {}).status.nodes[0].phase, Phase::Master);
    let unconfirmed = planned(|s| {
        s.record.epoch = 2;
        (s.master().epoch, s.master().confirmed) = (2, false);
    });
    assert_ne!(unconfirmed.status.nodes[0].phase, Phase::Master);
}

#[test]
fn an_end_of_a_lease_is_told_in_words() {
    for (reason, words) in [
        (1, "by somebody else who has the wallet's key"),
        (10_000, "by the provider: unstable"),
        (10_001, "by the provider: decommissioned"),
        (10_002, "by the provider, without a reason"),
        (10_003, "by the provider: no manifest in time"),
        (19_999, "by the provider, without a reason"),
        (20_000, "its escrow was used up"),
        (7, "reason unknown"),
    ] {
        let plan = planned(|s| s.close_lease(2, reason));
        let told = plan.record.incarnations[&name(2)].condemned.clone().unwrap().reason;
        assert!(told.contains(words), "{reason}: {told}");
        let avoided = plan.record.failures.contains_key(&2);
        assert_eq!(avoided, (10_000..20_000).contains(&reason), "{reason}");
    }
    for (edit, words) in [
        (
            (|s| s.deployment(2).active = false) as Edit,
            "its deployment was closed by somebody else who has the wallet's key",
        ),
        (
            |s| {
                s.deployment(2).active = false;
                s.deployment(2).group = akash_redis::model::chain::GroupState::InsufficientFunds;
            },
            "its escrow was used up",
        ),
        (|s| s.deployment(2).leases.clear(), "its order was closed"),
    ] {
        let plan = planned(edit);
        let told = plan.record.incarnations[&name(2)].condemned.clone().unwrap().reason;
        assert_eq!(told, words);
    }
}

#[test]
fn a_cluster_is_ready_when_it_is_whole() {
    let ready = |edit: Edit| condition(&planned(edit), ConditionType::Ready).status;
    assert_eq!(ready(|_| {}), ConditionStatus::True);
    assert_eq!(ready(|s| s.node(2, |v| v.state.redis.link = Link::Down)), ConditionStatus::False);
    assert_eq!(ready(|s| s.cluster.spec.nodes = 4), ConditionStatus::False);
    assert_eq!(ready(|s| s.switching(1)), ConditionStatus::False);
    assert_eq!(ready(|s| s.silent(0, 1)), ConditionStatus::False);
    assert_eq!(ready(|s| s.cluster.spec.nodes = 2), ConditionStatus::True, "one leaves");
}

#[test]
fn what_goes_on_is_told() {
    let told = |edit: Edit| condition(&planned(edit), ConditionType::Progressing);
    assert_eq!(told(|_| {}).reason, Reason::Reconciled);
    assert_eq!(told(|s| s.silent(2, 1)).reason, Reason::Waiting);
    assert_eq!(told(|s| s.node(2, |v| v.state.configured.clear())).reason, Reason::Reconciling);
    let paused = told(|s| s.cluster.spec.paused = true);
    assert_eq!(paused.reason, Reason::Paused);
    assert!(paused.message.contains("`akash-redis resume cache`"), "{}", paused.message);
}

#[test]
fn what_is_missing_is_waited_for_and_never_called_done() {
    let lost = || akash_redis::model::ids::IncarnationName("cache-1-lost".into());
    let rows: [(&str, &dyn Fn(&mut Scene), Reason, &str); 6] = [
        (
            "no money in the wallet",
            &|s| s.chain().balance = Uact(1),
            Reason::WalletBalanceLow,
            "in the wallet akash1me",
        ),
        (
            "no room in the budget",
            &|s| s.limits.others = s.limits.global,
            Reason::BudgetExhausted,
            "room in the budget for 3 more nodes",
        ),
        (
            "the chain is away",
            &|s| s.inventory.chain.failed("no route".into(), false),
            Reason::AsExpected,
            "the chain, for the missing nodes (no route)",
        ),
        (
            "the chain was never read, and the operator runs for an hour",
            &|s| s.inventory.chain = akash_redis::model::inventory::Reading::default(),
            Reason::ChainUnavailable,
            "the chain, for the missing nodes (not read yet)",
        ),
        (
            "something is in no record",
            &|s| drop(s.inventory.unrecorded.insert(7, lost())),
            Reason::OrphanedDeployment,
            "manual action on deployments",
        ),
        (
            "the control API is away",
            &|s| s.inventory.mesh.failed("no route".into(), true),
            Reason::MeshApiRefused,
            "the mesh control API",
        ),
    ];
    for (what, edit, problem, waits) in rows {
        let mut scene = Scene::new(crate::scene::THREE);
        edit(&mut scene);
        let plan = scene.plan(NOW);
        assert_eq!(plan.status.nodes.len(), 0, "{what}");
        assert_eq!(degraded(&plan).0, problem, "{what}");
        let told = condition(&plan, ConditionType::Progressing);
        assert_eq!((told.status, told.reason), (ConditionStatus::True, Reason::Waiting), "{what}");
        assert!(told.message.contains(waits), "{what}: {}", told.message);
    }
}

#[test]
fn a_budget_below_what_runs_is_told_and_closes_nothing() {
    // Three leases of 3 ACT each.
    let told = |edit: &dyn Fn(&mut Scene)| {
        let mut scene = Scene::whole();
        edit(&mut scene);
        let plan = scene.plan(NOW);
        let funded = condition(&plan, ConditionType::Funded);
        assert_eq!(plan.steps, [], "nothing is closed");
        assert_eq!(
            degraded(&plan).0 == Reason::BudgetBelowCost,
            funded.reason == Reason::BudgetBelowCost
        );
        let limit = (plan.status.cost.max_per_month, plan.status.cost.limited_by);
        (funded.reason == Reason::BudgetBelowCost, funded.message, limit)
    };
    let budget = |text: &'static str| {
        move |s: &mut Scene| s.cluster.spec.budget.max_per_month = Some(text.parse().unwrap())
    };
    assert!(!told(&budget("9act")).0);
    assert!(!told(&budget("8.6act")).0, "block times differ by as much from day to day");
    let (low, message, limit) = told(&budget("5act"));
    assert!(low);
    assert!(
        message.contains("cost 9act per month, and 5act are allowed (spec.budget.maxPerMonth)")
            && message.contains("`akash-redis scale cache --nodes 2`"),
        "{message}"
    );
    assert_eq!(limit, ("5act".into(), "spec.budget.maxPerMonth".into()));
    let (low, message, _) = told(&|s| {
        s.cluster.spec.budget.max_per_month = None;
        s.limits.per_cluster_default = Uact(4_000_000);
    });
    assert!(low && message.contains("(the operator's budget.perClusterDefault)"), "{message}");
    let (low, message, limit) = told(&|s| s.limits.others = Uact(26_000_000));
    assert!(
        low && message.contains(
            "4act are allowed (what the operator's budget.global of 30act leaves beside 26act"
        ),
        "{message}"
    );
    assert!(limit.1.ends_with("spec.budget.maxPerMonth is 30act"), "{limit:?}");
    assert!(
        !told(&|s| {
            budget("5act")(s);
            s.inventory.chain.failed("away".into(), false);
        })
        .0,
        "nobody knows what runs"
    );
}

#[test]
fn a_change_of_a_condition_is_dated() {
    let mut scene = Scene::whole();
    let status = scene.plan(NOW).status;
    scene.cluster.status = Some(status);
    let later = NOW + 60_000;
    let ready = condition(&scene.plan(later), ConditionType::Ready);
    assert_eq!(ready.last_transition_time, akash_redis::model::time::UnixMs(NOW).to_string());
    scene.silent(2, 0);
    let ready = condition(&scene.plan(later), ConditionType::Ready);
    assert_eq!(ready.last_transition_time, akash_redis::model::time::UnixMs(later).to_string());
}

#[test]
fn the_worst_problem_is_named_first() {
    let plan = planned(|s| {
        s.mesh().devices[1].tags = vec!["tag:x".into()];
        s.inventory.own_mesh.error = Some("no login".into());
    });
    let (reason, message) = degraded(&plan);
    assert_eq!(reason, Reason::OperatorOffMesh);
    assert!(message.contains("; also: the device of cache-1-aaaa has tag:x"), "{message}");
    let silent = planned(|s| {
        s.silent(2, 5);
        s.inventory.own_mesh.error = Some("no login".into());
    });
    let told = silent.status.nodes[2].message.clone().unwrap();
    assert!(told.contains("the operator itself is off the mesh; last heard"), "{told}");
}

#[test]
fn an_escrow_that_ends_soon_is_told() {
    let funded = |edit: Edit| {
        let funded = condition(&planned(edit), ConditionType::Funded);
        (funded.reason, funded.message)
    };
    let blocks = |s: &mut Scene, blocks| s.deployment(2).escrow.blocks_left = Some(blocks);
    assert_eq!(funded(|_| {}).0, Reason::EscrowFunded);
    // 14,400 blocks of 6 s are a day.
    let mut scene = Scene::whole();
    blocks(&mut scene, 14_400);
    assert_eq!(condition(&scene.plan(NOW), ConditionType::Funded).reason, Reason::EscrowFunded);
    let told = condition(&scene.plan(NOW), ConditionType::Funded).message;
    assert!(told.contains("at least 1 days"), "{told}");
    blocks(&mut scene, 14_399);
    let low = condition(&scene.plan(NOW), ConditionType::Funded);
    assert_eq!((low.reason, low.status), (Reason::EscrowLow, ConditionStatus::False));
    assert!(low.message.contains("23 h"), "{}", low.message);
    scene.give_up(2, 5);
    assert_eq!(condition(&scene.plan(NOW), ConditionType::Funded).reason, Reason::EscrowFunded);
    assert_eq!(funded(|s| s.inventory.chain.error = Some("x".into())).0, Reason::ChainUnavailable);
    assert_eq!(
        funded(|s| s.chain().deployments.values_mut().for_each(|d| d.escrow.blocks_left = None)).0,
        Reason::NoActiveLease
    );
    assert_eq!(
        funded(|s| {
            s.cluster.spec.nodes = 4;
            s.chain().balance = Uact(0);
        })
        .0,
        Reason::WalletBalanceLow
    );
}

#[test]
fn what_it_costs_is_the_sum_of_what_is_leased() {
    let cost = planned(|_| {}).status.cost;
    assert_eq!((cost.per_month.as_str(), cost.max_per_month.as_str()), ("9act", "30act"));
    assert_eq!((cost.in_escrow.as_str(), cost.spent.as_str()), ("4.5act", "1.5act"));
    let closed = planned(|s| {
        s.give_up(2, 5);
        s.deployment(2).active = false;
    });
    assert_eq!(closed.status.cost.per_month, "6act");
    assert_eq!(closed.status.cost.spent, "1.5act", "what was paid stays paid");
    let forgotten = planned(|s| s.inventory.spent_before = Uact(2_000_000));
    assert_eq!(forgotten.status.cost.spent, "3.5act", "nodes that are gone cost what they cost");
    let strangers = planned(|s| drop(s.chain().deployments.insert(7, deployment(&name(7), 7))));
    assert_eq!(strangers.status.cost.in_escrow, "4.5act");
}

#[test]
fn writes_are_sent_to_the_confirmed_master_alone() {
    let endpoint = |edit: Edit| planned(edit).status.master.map(|m| (m.epoch, m.name, m.port));
    assert_eq!(endpoint(|_| {}), Some((1, "cache-0-aaaa.mesh".into(), 6379)));
    assert_eq!(endpoint(|s| s.silent(0, 1)).map(|m| m.0), Some(1), "as it was last heard");
    assert_eq!(endpoint(|s| s.record.epoch = 2), None, "another choice is being made");
}

#[test]
fn how_far_a_replica_is_behind_is_told_of_one_history() {
    let lag =
        |edit: Edit| planned(edit).status.nodes.iter().map(|n| n.lag_bytes).collect::<Vec<_>>();
    assert_eq!(lag(|s| s.node(0, |v| v.state.redis.offset = 130)), [None, Some(30), Some(30)]);
    assert_eq!(lag(|s| s.node(2, |v| v.state.redis.offset = 130)), [None, Some(0), Some(0)]);
    assert_eq!(lag(|s| s.node(2, |v| v.state.redis.replid = "B".into())), [None, Some(0), None]);
    assert_eq!(lag(|s| s.silent(0, 1)), [None, None, None]);
}

/// Node `n` reaches the master by this.
fn path(scene: &mut Scene, n: u32, to: u32, kind: PathKind) {
    let path =
        PeerPath { name: format!("{}.MESH", name(to)), kind, rtt_us: 620, ..PeerPath::default() };
    scene.node(n, |v| v.state.mesh.paths.push(path));
}

#[test]
fn which_way_the_traffic_takes_is_told() {
    use PathKind::{Derp, Direct, PeerRelay, Unknown};
    let rows: [(&[(u32, PathKind)], Reason, ConditionStatus); 7] = [
        (&[], Reason::NotMeasured, ConditionStatus::Unknown),
        (&[(1, Unknown)], Reason::NotMeasured, ConditionStatus::Unknown),
        (&[(1, Direct)], Reason::AllDirect, ConditionStatus::True),
        (&[(1, Direct), (1, Derp)], Reason::AllDirect, ConditionStatus::True),
        (&[(1, Direct), (2, Derp)], Reason::NodeRelayed, ConditionStatus::False),
        (&[(1, PeerRelay), (2, Derp)], Reason::AllRelayed, ConditionStatus::False),
        (&[(1, Derp), (1, Unknown)], Reason::AllRelayed, ConditionStatus::False),
    ];
    for (paths, reason, status) in rows {
        let mut scene = Scene::whole();
        paths.iter().for_each(|(n, kind)| path(&mut scene, *n, 0, *kind));
        let plan = scene.plan(NOW);
        let told = condition(&plan, ConditionType::DirectPaths);
        assert_eq!((told.reason, told.status), (reason, status), "{paths:?}");
        let event = has_event(&plan, EventReason::PathsRelayed);
        assert_eq!(event, status == ConditionStatus::False, "{paths:?}");
        // Once it was published it is no news.
        scene.cluster.status = Some(plan.status);
        assert!(!has_event(&scene.plan(NOW), EventReason::PathsRelayed), "{paths:?}");
        if reason == Reason::NodeRelayed {
            scene.node(1, |v| v.state.mesh.paths.clear());
            path(&mut scene, 1, 0, Derp);
            assert!(has_event(&scene.plan(NOW), EventReason::PathsRelayed), "all of them now");
        }
        if reason == Reason::AllRelayed {
            path(&mut scene, 1, 2, Direct);
            assert!(!has_event(&scene.plan(NOW), EventReason::PathsRelayed), "it is better now");
        }
    }
    let mut scene = Scene::whole();
    path(&mut scene, 1, 2, Derp);
    path(&mut scene, 1, 0, Direct);
    path(&mut scene, 0, 0, Direct);
    let told: Vec<_> = scene.plan(NOW).status.nodes.into_iter().map(|n| n.path).collect();
    assert_eq!(told, [None, Some("direct, 0.6 ms".to_owned()), None]);
    scene.silent(1, 1);
    assert_eq!(scene.plan(NOW).status.nodes[1].path, None);
}

#[test]
fn an_effect_that_fails_again_and_again_is_told() {
    let told = |times, effect: Effect| {
        let plan = planned(|s| {
            s.give_up(2, 5);
            let error = "x".repeat(600);
            s.inventory.failing = vec![Failing { effect, times, error }];
        });
        let (reason, message) = degraded(&plan);
        assert!(!message.contains(&"x".repeat(501)), "a provider may have written it");
        reason == Reason::EffectFailing
    };
    let close = |n: u32| Effect::CloseDeployment { incarnation: name(n), dseq: 102 };
    assert!(told(5, close(2)));
    assert!(!told(4, close(2)), "that passes by itself");
    assert!(!told(5, close(1)), "nobody wants it any more");
    let other = Effect::RevokeKey { incarnation: name(2), key: "k".into() };
    assert!(!told(5, other), "another one on the same node");
}

#[test]
fn a_loss_that_cannot_be_known_is_told_as_such() {
    let plan = planned(|s| {
        s.record.last_failover = Some(akash_redis::model::change::FailoverReport::default());
        s.node(2, |v| v.state.redis.process = Process::Running);
    });
    let report = plan.status.last_failover.unwrap();
    assert!(report.lost.starts_with("not known yet"), "{}", report.lost);
}
