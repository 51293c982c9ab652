//! What is asked at a terminal before coins are spent or data are given up.

use super::*;

impl Operator {
    /// The operator would buy so many nodes.
    fn would_buy(&self, new_nodes: u32) {
        let bill = crate::api::preview::Bill { new_nodes, ..Default::default() };
        self.appraiser.appraisal.lock().unwrap().bill = Some(bill);
    }
}

#[tokio::test]
async fn a_plan_of_a_file_changes_nothing() {
    let operator = Operator::start().await;
    operator.would_buy(3);
    let file = operator.manifest(&json!({ "nodes": 3 }));
    let plan = operator.run(&format!("plan -f {file}")).await.unwrap();
    assert!(plan.starts_with("rediscluster/cache would be created\n"), "{plan}");
    assert!(plan.ends_with("\nNothing was changed.\n"), "{plan}");
    assert_eq!(operator.run(&format!("apply -f {file} --dry-run")).await.unwrap(), plan);
    assert!(operator.store.list().await.unwrap().is_empty());

    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    operator.joined().await;
    let before = operator.store.get("cache").await.unwrap();
    let file = operator.manifest(&json!({ "nodes": 5, "redis": { "config": { "timeout": "5" } } }));
    let plan = operator.run(&format!("plan -f {file}")).await.unwrap();
    for line in [
        "rediscluster/cache would be configured",
        "  + spec.nodes 3 -> 5 (nodes are bought)",
        "  ~ spec.redis.config.timeout none -> 5 (live: in force within seconds, no restart)",
    ] {
        assert!(plan.contains(line), "{plan}");
    }
    assert!(plan.contains("Plan: 3 to create, 1 to change, 0 to close."), "{plan}");
    let file = operator.manifest(&json!({ "nodes": 3, "resources": { "memory": "2Gi" } }));
    let refused = operator.run(&format!("plan -f {file}")).await.unwrap_err();
    assert!(refused.contains("cache has nodes that run"), "{refused}");
    let same = operator.manifest(&json!({ "nodes": 3 }));
    let plan = operator.run(&format!("plan -f {same}")).await.unwrap();
    assert!(plan.starts_with("rediscluster/cache would stay as it is\n"), "{plan}");
    assert_eq!(operator.store.get("cache").await.unwrap(), before);
}

#[tokio::test]
async fn a_person_is_asked_before_coins_are_spent_and_a_script_is_not() {
    let operator = Operator::start().await;
    operator.would_buy(3);
    let file = operator.manifest(&json!({ "nodes": 3 }));
    let mut no = somebody(false);
    let error = operator.run_before(&mut no, &format!("apply -f {file}")).await.unwrap_err();
    assert!(error.contains("nothing was applied") && no.asked == 1, "{error}");
    assert!(operator.store.list().await.unwrap().is_empty());

    let mut yes = somebody(true);
    let made = operator.run_before(&mut yes, &format!("apply -f {file}")).await.unwrap();
    assert_eq!((made.as_str(), yes.asked), ("rediscluster/cache created\n", 1));

    operator.would_buy(0);
    let mut idle = somebody(false);
    let same = operator.run_before(&mut idle, &format!("apply -f {file}")).await.unwrap();
    assert_eq!((same.as_str(), idle.asked), ("rediscluster/cache unchanged\n", 0));

    operator.would_buy(2);
    let file = operator.manifest(&json!({ "nodes": 5 }));
    let mut silent = somebody(false);
    let more = operator.run_before(&mut silent, &format!("apply -f {file} --yes")).await.unwrap();
    assert_eq!((more.as_str(), silent.asked), ("rediscluster/cache configured\n", 0));
    // Nobody at the terminal: as with kubectl.
    assert!(operator.apply(json!({ "nodes": 6 })).await.is_ok());
}

/// What may be lost is shown first; then a person, or `--yes`, says it, in the name of somebody.
#[tokio::test]
async fn a_loss_is_accepted_by_somebody_who_saw_it() {
    let operator = Operator::start().await;
    operator.apply(json!({"nodes": 3})).await.unwrap();
    let mut status = json!({
        "epoch": 4, "problems": ["NoMaster"],
        "atStake": {"epoch": 4, "takesOver": "cache-2-c", "lacksBytes": 7, "missing": [{"incarnation": "cache-0-a", "why": "not heard"}]},
    });
    status["nodes"] = nodes();
    operator.publish(status).await;
    let said = async || operator.annotation(ACCEPT_LOSS).await;
    let error = operator.run("failover cache --accept-loss").await.unwrap_err();
    assert!(error.contains("add --yes"), "{error}");
    let mut no = somebody(false);
    let error = operator.run_before(&mut no, "failover cache --accept-loss").await.unwrap_err();
    assert!(error.contains("nothing was accepted") && no.asked == 1, "{error}");
    assert_eq!(said().await, None);

    let mut yes = somebody(true);
    let told = operator.run_before(&mut yes, "failover cache --accept-loss").await.unwrap();
    assert!(told.contains("cache-2-c would take over: it lacks at least 7 bytes"), "{told}");
    let word = said().await.unwrap();
    assert!(word.starts_with("4 by=") && word.contains('@'), "{word}");
    operator.run("failover cache --to 2 --accept-loss --yes").await.unwrap();
    assert!(said().await.unwrap().starts_with("4 to=cache-2-c by="));
    let events = operator.run("events cache").await.unwrap();
    assert!(events.contains("4 to=cache-2-c by="), "{events}");
}
