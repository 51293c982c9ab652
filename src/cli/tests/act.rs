//! Commands that change a cluster.

use super::*;

#[tokio::test]
async fn migrate_switchover_and_scale_write_what_the_operator_reads() {
    let operator = Operator::start().await;
    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    assert!(
        operator
            .run("migrate cache 1")
            .await
            .unwrap_err()
            .starts_with("the operator has not looked at cache yet")
    );
    operator.publish(json!({ "nodes": nodes() })).await;

    assert_eq!(
        operator.run("migrate cache 1").await.unwrap(),
        "node 1 (cache-1-b) moves to another provider\n"
    );
    assert_eq!(operator.annotation(MIGRATE).await.unwrap(), "cache-1-b");
    assert!(operator.run("migrate cache 1").await.unwrap_err().contains("already"));
    operator.run("migrate cache cache-0-a").await.unwrap();
    assert_eq!(operator.annotation(MIGRATE).await.unwrap(), "cache-1-b,cache-0-a");

    assert_eq!(operator.run("switchover cache").await.unwrap(), "cache-2-c becomes master\n");
    assert_eq!(operator.annotation(MASTER).await.unwrap(), "cache-2-c@0");
    assert_eq!(
        operator.run("switchover cache --to 0").await.unwrap_err(),
        "cache-0-a is the master already"
    );

    assert_eq!(
        operator.run("scale cache --nodes 5").await.unwrap(),
        "cache goes from 3 to 5 nodes\n"
    );
    assert_eq!(
        operator.run("scale cache --nodes 12").await.unwrap_err(),
        "spec.nodes: 12 is not 1 to 9"
    );
    operator.apply(json!({ "nodes": 4 })).await.unwrap();
    assert_eq!(
        operator.annotation(MIGRATE).await.unwrap(),
        "cache-1-b,cache-0-a",
        "an apply does not undo a command"
    );
    let both = Migrate { ordinal: Some(1), incarnation: Some("cache-1-b".into()) };
    assert!(
        operator
            .client
            .migrate("cache", &both)
            .await
            .unwrap_err()
            .to_string()
            .starts_with("name either")
    );
}

#[tokio::test]
async fn a_paused_cluster_takes_no_request_until_it_is_resumed() {
    let operator = Operator::start().await;
    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    operator.publish(json!({ "nodes": nodes() })).await;
    assert!(operator.run("pause cache").await.unwrap().contains("akash-redis resume cache"));
    let before = operator.store.get("cache").await.unwrap().cluster;
    for line in ["scale cache --nodes 5", "switchover cache", "migrate cache 1"] {
        let refused = operator.run(line).await.unwrap_err();
        assert!(refused.contains("`akash-redis resume cache` first"), "{line}: {refused}");
    }
    assert_eq!(operator.store.get("cache").await.unwrap().cluster, before);
    assert_eq!(operator.run("resume cache").await.unwrap(), "cache is resumed\n");
    operator.run("scale cache --nodes 5").await.unwrap();
}

#[tokio::test]
async fn what_people_ask_for_is_in_the_journal_with_old_and_new() {
    let operator = Operator::start().await;
    let user =
        |hash: char| json!([{ "name": "app", "passwordSha256": hash.to_string().repeat(64) }]);
    let spec = |nodes, hash| json!({ "nodes": nodes, "redis": { "users": user(hash) } });
    operator.apply(spec(3, 'a')).await.unwrap();
    operator.apply(spec(3, 'a')).await.unwrap();
    operator.apply(spec(3, 'b')).await.unwrap();
    operator.publish(json!({ "nodes": nodes() })).await;
    for line in [
        "scale cache --nodes 5",
        "pause cache",
        "resume cache",
        "migrate cache 1",
        "delete cache",
        "delete cache",
    ] {
        operator.run(line).await.unwrap();
    }
    let events = operator.store.events("cache").await.unwrap();
    let told: Vec<_> = events.iter().map(|e| format!("{} {}", e.reason, e.message)).collect();
    assert_eq!(
        told,
        [
            "ClusterCreated cache was created with 3 nodes",
            "PasswordChanged user app has another password",
            "ClusterScaled from 3 to 5 nodes",
            "ClusterPaused the operator watches and changes nothing",
            "ClusterResumed the operator goes on",
            "ActionRequested cache-1-b to move to another provider",
            "DeletionRequested cache is to be deleted, with its leases",
        ]
    );
}

#[tokio::test]
async fn commands_lose_no_race_against_the_operator() {
    let operator = Operator::start().await;
    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    let statuses = async {
        for epoch in 0..40 {
            operator.publish(json!({ "nodes": nodes(), "epoch": epoch })).await;
        }
    };
    let scales = async {
        for nodes in [4, 5, 6, 3] {
            operator.client.scale("cache", nodes).await.unwrap();
        }
    };
    tokio::join!(statuses, scales);
    assert_eq!(operator.store.get("cache").await.unwrap().cluster.spec.nodes, 3);
}

#[tokio::test]
async fn wait_and_delete_end_when_it_is_so() {
    let operator = Operator::start().await;
    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    let ready = json!([{ "type": "Ready", "status": "True" }]);
    let waiting = json!([{ "what": "bids", "then": "the best one is taken" }]);
    operator
        .publish(json!({ "conditions": ready, "observedGeneration": 0, "waiting": waiting }))
        .await;
    let late = operator.run("wait cache --for Ready --timeout 0s").await.unwrap_err();
    assert_eq!(
        late, "cache is not Ready after 0s; it still waits for bids",
        "a status of an older spec does not count"
    );
    operator.publish(json!({ "conditions": ready, "observedGeneration": 1 })).await;
    assert_eq!(operator.run("wait cache").await.unwrap(), "rediscluster/cache is Ready\n");

    let (deleted, ()) = tokio::join!(operator.run("delete cache --wait --timeout 30s"), async {
        let mut changes = operator.store.changes();
        while operator
            .store
            .get("cache")
            .await
            .unwrap()
            .cluster
            .metadata
            .deletion_timestamp
            .is_none()
        {
            changes.next().await.unwrap();
        }
        assert!(
            operator
                .apply(json!({ "nodes": 3 }))
                .await
                .unwrap_err()
                .starts_with("cache is being deleted")
        );
        operator.store.remove("cache").await.unwrap();
    });
    assert!(deleted.unwrap().ends_with("rediscluster/cache deleted\n"));
    assert!(
        operator
            .run("delete cache")
            .await
            .unwrap_err()
            .starts_with("there is no RedisCluster named cache")
    );
}

#[tokio::test]
async fn a_test_of_notifications_fails_when_one_does_not_arrive() {
    let operator = Operator::start().await;
    let nobody = operator.run("notify test").await.unwrap();
    assert!(nobody.starts_with("nobody is told"), "{nobody}");
}

#[tokio::test]
async fn a_node_is_fenced_until_somebody_says_otherwise() {
    let operator = Operator::start().await;
    operator.apply(json!({"nodes": 3})).await.unwrap();
    operator.publish(json!({"nodes": nodes()})).await;
    let told = operator.run("fence cache 1").await.unwrap();
    assert!(told.contains("takes no writes and becomes no master"), "{told}");
    assert!(operator.annotation(FENCE).await.unwrap().starts_with("1 by="));
    // A manifest from a file knows nothing of it.
    operator.apply(json!({"nodes": 3})).await.unwrap();
    assert!(operator.annotation(FENCE).await.unwrap().starts_with("1 by="));
    operator.run("unfence cache 1").await.unwrap();
    assert_eq!(operator.annotation(FENCE).await.as_deref(), Some(""));
    let error = operator.run("unfence cache 1").await.unwrap_err();
    assert!(error.contains("is not fenced by anybody"), "{error}");
}
