//! What every status says fits together: looked at after each plan of these tests.

use akash_redis::api::conditions::{ConditionStatus, ConditionType, Reason};
use akash_redis::api::status::Condition;
use akash_redis::api::types::RedisCluster;
use akash_redis::plan::Plan;

/// Whoever reads one of these is told what to type.
const WITH_A_COMMAND: [Reason; 10] = [
    Reason::OrphanedDeployment,
    Reason::FailoverBlocked,
    Reason::FailoverWaiting,
    Reason::MasterDownUnconfirmed,
    Reason::NoMaster,
    Reason::HistoryUnclear,
    Reason::DataMissing,
    Reason::BudgetBelowCost,
    Reason::DuplicateMeshState,
    Reason::RedisDown,
];

/// Panics where the published status contradicts itself.
pub fn holds(cluster: &RedisCluster, plan: &Plan) {
    let told = |kind| plan.status.condition(kind).expect("each is there");
    let (progressing, degraded, funded) = (
        told(ConditionType::Progressing),
        told(ConditionType::Degraded),
        told(ConditionType::Funded),
    );
    let deleting = cluster.metadata.deletion_timestamp.is_some();
    let serving = plan.status.nodes.iter().filter(|n| n.phase.is_serving()).count();
    let missing = serving < cluster.spec.nodes as usize;
    if cluster.spec.paused && !deleting {
        assert_eq!(progressing.reason, Reason::Paused);
    } else if missing && !deleting {
        is(progressing, ConditionStatus::True, "nodes are missing");
    }
    if progressing.reason == Reason::Reconciled {
        assert!(plan.steps.is_empty() && plan.waits.is_empty(), "{}", progressing.message);
    }
    let problems = &plan.status.problems;
    assert_eq!(degraded.status == ConditionStatus::True, !problems.is_empty());
    assert_eq!(problems.first().copied().unwrap_or(Reason::AsExpected), degraded.reason);
    let no_money = [Reason::WalletBalanceLow, Reason::BudgetExhausted, Reason::BudgetBelowCost];
    if problems.iter().any(|reason| no_money.contains(reason)) {
        is(funded, ConditionStatus::False, "what is to be paid cannot be");
    }
    if no_money.contains(&funded.reason) {
        assert!(problems.contains(&funded.reason), "{funded:?} and {problems:?}");
    }
    if let [only] = problems.as_slice()
        && WITH_A_COMMAND.contains(only)
    {
        let message = &degraded.message;
        assert!(message.contains("`akash-redis "), "{only} names no command: {message}");
    }
    let status = serde_json::to_string(&plan.status).expect("JSON");
    assert!(!status.contains("1970-"), "a time that nobody set is told: {status}");
    for (_, message) in &plan.events {
        assert!(!message.contains("1970-"), "{message}");
    }
}

fn is(condition: &Condition, status: ConditionStatus, why: &str) {
    assert_eq!(condition.status, status, "{why}: {condition:?}");
}
