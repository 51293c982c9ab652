use super::*;
use crate::api::conditions::{ConditionStatus, ConditionType};
use crate::api::status::Condition;

/// Node 0 is master, 1 and 2 are replicas; epoch 4.
fn running() -> RedisCluster {
    let mut cluster: RedisCluster = serde_json::from_value(serde_json::json!({
        "apiVersion": "akash-redis.dev/v1alpha1", "kind": "RedisCluster", "metadata": {"name": "cache"}, "spec": {"nodes": 3}
    }))
    .expect("a manifest");
    let phases = [Phase::Master, Phase::Replica, Phase::Replica];
    let nodes = (0..).zip(phases).map(|(ordinal, phase)| NodeStatus {
        ordinal,
        incarnation: format!("cache-{ordinal}-a"),
        phase,
        ..NodeStatus::default()
    });
    cluster.status = Some(Status { nodes: nodes.collect(), epoch: 4, ..Status::default() });
    cluster
}

fn waiting(reason: Reason) -> RedisCluster {
    let mut cluster = running();
    let condition = Condition {
        kind: ConditionType::Degraded,
        status: ConditionStatus::True,
        reason,
        ..Condition::default()
    };
    cluster.status.as_mut().expect("a status").conditions.push(condition);
    cluster
}

fn word(to: Option<&str>) -> AcceptLoss {
    AcceptLoss { to: to.map(str::to_owned), by: Some("ann@laptop".into()), epoch: Some(4) }
}

fn node(node: &str) -> Fence {
    Fence { node: node.to_owned(), by: Some("ann@laptop".into()) }
}

#[test]
fn a_loss_is_accepted_with_a_name_for_what_was_shown_and_by_somebody() {
    let mut cluster = waiting(Reason::NoMaster);
    let told = accept_loss(&mut cluster, &word(Some("2"))).unwrap();
    assert!(told.starts_with("cache goes on with what cache-2-a holds, in place of epoch 4"));
    assert_eq!(cluster.metadata.annotations[ACCEPT_LOSS], "4 to=cache-2-a by=ann@laptop");
    accept_loss(&mut cluster, &AcceptLoss::default()).unwrap();
    assert_eq!(cluster.metadata.annotations[ACCEPT_LOSS], "4");
    let refused = |request: AcceptLoss| {
        accept_loss(&mut waiting(Reason::NoMaster), &request).unwrap_err().message
    };
    assert!(refused(AcceptLoss { epoch: Some(3), ..word(None) }).contains("look again"));
    assert!(refused(word(Some("0"))).contains("cannot take over"));
    assert!(refused(word(Some("7"))).contains("has no node 7"));
}

#[test]
fn a_fenced_node_takes_nobodys_place_and_its_own_may_be_taken() {
    let mut cluster = waiting(Reason::NoMaster);
    assert!(fence(&mut cluster, &node("2")).unwrap().starts_with("cache-2-a takes no writes"));
    let refused = accept_loss(&mut cluster, &word(Some("2"))).unwrap_err().message;
    assert!(refused.contains("`akash-redis unfence cache 2` first"), "{refused}");

    let mut cluster = waiting(Reason::FencedByPerson);
    assert!(accept_loss(&mut cluster, &word(None)).is_err(), "the master is not fenced");
    let told = fence(&mut cluster, &node("0")).unwrap();
    assert!(told.contains("it is the master, so that cache takes no writes"), "{told}");
    accept_loss(&mut cluster, &word(Some("1"))).unwrap();
    assert!(accept_loss(&mut running(), &word(None)).is_err(), "nothing is waited for");
}

#[test]
fn fences_add_up_and_are_taken_back_by_any_name() {
    let mut cluster = running();
    fence(&mut cluster, &node("1")).unwrap();
    fence(&mut cluster, &node("cache-2-a")).unwrap();
    assert!(fence(&mut cluster, &node("1")).unwrap().contains("already"));
    assert_eq!(cluster.metadata.annotations[FENCE], "1 by=ann@laptop,cache-2-a by=ann@laptop");
    let told = unfence(&mut cluster, &node("2")).unwrap();
    assert_eq!(told, "cache-2-a of cache is not fenced any more");
    assert_eq!(cluster.metadata.annotations[FENCE], "1 by=ann@laptop");
    let told = unfence(&mut cluster, &node("cache-1-a")).unwrap();
    assert_eq!(told, "node 1 of cache is not fenced any more");
    assert_eq!(cluster.metadata.annotations[FENCE], "");
    assert!(unfence(&mut cluster, &node("1")).unwrap_err().message.contains("is not fenced"));
    assert_eq!(fence(&mut cluster, &node("7")).unwrap_err().status, StatusCode::NOT_FOUND);
    cluster.spec.paused = true;
    for refused in [fence(&mut cluster, &node("1")), unfence(&mut cluster, &node("1"))] {
        assert!(refused.unwrap_err().message.contains("spec.paused"));
    }
}

#[test]
fn a_loss_is_accepted_only_where_a_cluster_waits_for_it() {
    let accept = |cluster: &mut RedisCluster| accept_loss(cluster, &AcceptLoss::default());
    let refused = accept(&mut running()).unwrap_err().message;
    assert!(refused.starts_with("cache waits for no such decision"), "{refused}");
    let named = |reason, problems: &[Reason]| {
        let mut cluster = waiting(reason);
        cluster.status.as_mut().expect("a status").problems = problems.to_vec();
        accept(&mut cluster).is_ok()
    };
    assert!(!named(Reason::NodeUnreachable, &[]));
    assert!(named(Reason::OperatorOffMesh, &[Reason::OperatorOffMesh, Reason::FailoverBlocked]));
    let mut paused = waiting(Reason::NoMaster);
    paused.spec.paused = true;
    assert!(accept(&mut paused).unwrap_err().message.contains("`akash-redis resume cache`"));
}
