//! Manifests: applied, refused, waited for.

use super::*;

#[tokio::test]
async fn apply_says_what_it_did() {
    let operator = Operator::start().await;
    assert_eq!(
        operator.apply(json!({ "nodes": 3 })).await.unwrap(),
        "rediscluster/cache created\n"
    );
    assert_eq!(
        operator.apply(json!({ "nodes": 3 })).await.unwrap(),
        "rediscluster/cache unchanged\n"
    );
    operator.publish(json!({ "epoch": 1 })).await;
    assert_eq!(
        operator.apply(json!({ "nodes": 3 })).await.unwrap(),
        "rediscluster/cache unchanged\n"
    );
    let shown = operator.dir.path().join("shown.yaml");
    std::fs::write(&shown, operator.run("get cache -o yaml").await.unwrap()).unwrap();
    operator.publish(json!({ "epoch": 2 })).await;
    assert_eq!(
        operator.run(&format!("apply -f {}", shown.display())).await.unwrap(),
        "rediscluster/cache unchanged\n"
    );
    assert_eq!(
        operator.apply(json!({ "nodes": 5 })).await.unwrap(),
        "rediscluster/cache configured\n"
    );
    assert_eq!(operator.store.get("cache").await.unwrap().cluster.spec.nodes, 5);
}

#[tokio::test]
async fn apply_refuses_what_is_wrong_and_what_cannot_change() {
    let operator = Operator::start().await;
    let many = operator.apply(json!({ "nodes": 12 })).await.unwrap_err();
    assert!(many.ends_with("spec.nodes: 12 nodes cannot be run; write 1 to 9"), "{many}");
    operator.apply(json!({ "nodes": 3, "resources": { "memory": "1Gi" } })).await.unwrap();
    assert_eq!(
        operator.apply(json!({ "nodes": 3, "resources": { "memory": "2Gi" } })).await.unwrap(),
        "rediscluster/cache configured\n",
        "nothing of it runs yet"
    );
    operator.joined().await;
    let fixed =
        operator.apply(json!({ "nodes": 5, "resources": { "memory": "3Gi" } })).await.unwrap_err();
    assert!(
        fixed.starts_with("cache has nodes that run")
            && fixed.contains("nothing was changed: spec.resources.memory 2Gi -> 3Gi; "),
        "{fixed}"
    );
    assert_eq!(
        operator.apply(json!({ "nodes": 3, "resources": { "memory": "2048Mi" } })).await.unwrap(),
        "rediscluster/cache unchanged\n"
    );
    assert!(
        operator
            .run("apply -f /nonexistent.yaml")
            .await
            .unwrap_err()
            .starts_with("/nonexistent.yaml: cannot be read")
    );
}

/// The manifest's third generation of a cluster that was ready before it.
async fn changed() -> Operator {
    let operator = Operator::start().await;
    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    operator
        .publish(json!({ "observedGeneration": 1, "conditions": [
            { "type": "Ready", "status": "True" },
            { "type": "SettingsApplied", "status": "True", "reason": "SettingsInForce" },
        ] }))
        .await;
    operator
}

#[tokio::test]
async fn apply_waits_until_settings_are_in_force_on_every_node() {
    let operator = changed().await;
    let path = operator.manifest(&json!({ "nodes": 3, "redis": { "config": { "timeout": "9" } } }));
    let line = format!("apply -f {path} --wait --timeout 300ms");
    assert!(
        operator.run(&line).await.unwrap_err().starts_with("cache is not SettingsApplied after"),
        "what was true of the manifest before is not enough"
    );
    let status = |reason: &str, status: &str| {
        json!({ "observedGeneration": 2, "conditions": [
            { "type": "Ready", "status": "True" },
            { "type": "SettingsApplied", "status": status, "reason": reason, "message": "cache-1-b: redis said no" },
        ] })
    };
    operator.publish(status("SettingsPending", "False")).await;
    let late = operator.run(&line).await.unwrap_err();
    assert!(late.ends_with("it still waits for cache-1-b: redis said no"), "{late}");
    operator.publish(status("SettingsInForce", "True")).await;
    assert_eq!(operator.run(&line).await.unwrap(), "rediscluster/cache unchanged\n");
}

#[tokio::test]
async fn apply_waits_until_every_node_was_started_with_it_or_none_will_be() {
    let operator = changed().await;
    let path = operator.manifest(&json!({ "nodes": 3 }));
    let line = format!("apply -f {path} --wait --timeout 300ms");
    let status = |updated: u32, degraded: &str, problems: &[&str]| {
        json!({ "observedGeneration": 1, "problems": problems,
            "rollout": { "image": "i", "updated": updated, "nodes": 3 },
            "conditions": [
                { "type": "Ready", "status": "True" },
                { "type": "SettingsApplied", "status": "True", "reason": "SettingsInForce" },
                { "type": "Degraded", "status": degraded, "reason": "UpdateStalled", "message": "cache-0-a does not serve" },
            ] })
    };
    operator.publish(status(2, "False", &[])).await;
    let late = operator.run(&line).await.unwrap_err();
    assert!(late.starts_with("cache is not rolled out to all nodes after"), "{late}");
    operator.publish(status(1, "True", &["UpdateStalled"])).await;
    let stalled = operator.run(&format!("apply -f {path} --wait")).await.unwrap_err();
    assert!(stalled.contains("cache-0-a does not serve"), "{stalled}");
    operator.publish(status(3, "False", &[])).await;
    assert_eq!(operator.run(&line).await.unwrap(), "rediscluster/cache unchanged\n");
}

#[tokio::test]
async fn apply_ends_with_what_redis_refused() {
    let operator = changed().await;
    operator
        .publish(json!({ "observedGeneration": 1, "conditions": [
            { "type": "Ready", "status": "True" },
            { "type": "SettingsApplied", "status": "False", "reason": "SettingsRefused", "message": "spec.redis.config.hz: redis on cache-1-b refused `x`: no number" },
        ] }))
        .await;
    let path = operator.manifest(&json!({ "nodes": 3 }));
    let refused = operator.run(&format!("apply -f {path} --wait")).await.unwrap_err();
    assert!(
        refused.contains("spec.redis.config.hz: redis on cache-1-b refused `x`: no number"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_password_reaches_the_store_as_its_hash_only() {
    let operator = Operator::start().await;
    let password = operator.dir.path().join("password");
    std::fs::write(&password, "open sesame\n").unwrap();
    let users =
        json!([{ "name": "app", "passwordFrom": { "file": password.display().to_string() } }]);
    operator.apply(json!({ "nodes": 3, "redis": { "users": users } })).await.unwrap();
    let cluster = operator.store.get("cache").await.unwrap().cluster;
    let user = &cluster.spec.redis.users[0];
    assert_eq!(
        (user.password_from.is_none(), user.password_sha256.as_ref().map(String::len)),
        (true, Some(64))
    );
    for entry in std::fs::read_dir(operator.dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains("store.db") {
            assert!(
                !std::fs::read(&path).unwrap().windows(11).any(|w| w == b"open sesame"),
                "{}",
                path.display()
            );
        }
    }
    let mut raw = cluster;
    raw.spec.redis.users[0].password_from = Some(crate::api::types::PasswordFrom::Env("X".into()));
    assert!(
        operator
            .client
            .apply(&raw)
            .await
            .unwrap_err()
            .to_string()
            .contains("is read by `akash-redis apply`")
    );
}

#[tokio::test]
async fn a_budget_above_the_operators_is_refused_and_not_cut_down() {
    let operator = Operator::start().await;
    let report = |error: Option<&str>| OperatorReport {
        budget_global: Some("100act".parse().unwrap()),
        chain: Source {
            state: if error.is_some() { SourceState::Away } else { SourceState::Ok },
            message: error.unwrap_or("height 5").into(),
            ..Source::default()
        },
        ..OperatorReport::default()
    };
    operator.status_cache.publish_operator(report(None));
    let with = |budget: &str| json!({ "nodes": 3, "budget": { "maxPerMonth": budget } });
    let refused = operator.apply(with("1000act")).await.unwrap_err();
    assert!(
        refused.starts_with("spec.budget.maxPerMonth: 1000act is more than")
            && refused.contains("100act"),
        "{refused}"
    );
    operator.apply(with("100act")).await.unwrap();

    let ready = || async {
        let http =
            reqwest::Client::builder().unix_socket(operator.dir.path().join("operator.sock"));
        let http = http.no_proxy().build().unwrap();
        http.get("http://operator/readyz").send().await.unwrap().status().as_u16()
    };
    assert_eq!(ready().await, 200);
    assert!(operator.run("status").await.unwrap().contains("chain    Ok"));
    operator.status_cache.publish_operator(report(Some("a node of another chain")));
    assert_eq!(ready().await, 503);
    let shown = operator.run("status").await.unwrap();
    assert!(shown.contains("a node of another chain"), "{shown}");
}

#[tokio::test]
async fn what_the_operator_would_refuse_has_its_line() {
    let operator = Operator::start().await;
    operator.status_cache.publish_operator(OperatorReport {
        budget_global: Some("10act".parse().unwrap()),
        ..OperatorReport::default()
    });
    let path = operator.dir.path().join("dear.yaml").display().to_string();
    let text = "apiVersion: akash-redis.dev/v1alpha1\nkind: RedisCluster\nmetadata: { name: dear }\nspec:\n  nodes: 3\n  budget:\n    maxPerMonth: 20act\n";
    std::fs::write(&path, text).unwrap();
    for line in [format!("plan -f {path}"), format!("apply -f {path} --dry-run")] {
        let error = operator.run(&line).await.unwrap_err();
        let begins = format!("{path}:7: spec.budget.maxPerMonth: 20act is more than");
        assert!(error.starts_with(&begins), "{error}");
    }
    let mut person = somebody(true);
    let error = operator.run_before(&mut person, &format!("apply -f {path}")).await.unwrap_err();
    assert!(error.contains(":7: ") && person.asked == 0, "{error}");
    assert!(operator.store.list().await.unwrap().is_empty());
}
