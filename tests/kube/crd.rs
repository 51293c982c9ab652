//! The definition of our objects: what a real apiserver makes of it.

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::apiserver::Cluster;
use crate::sandboxed::sandboxed;

const LIMIT: Duration = Duration::from_mins(3);

/// An object with this spec.
fn object(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "akash-redis.dev/v1alpha1", "kind": "RedisCluster", "metadata": {"name": name}, "spec": spec,
    })
}

/// Specs that are refused, and what is said.
fn bad() -> Vec<(Value, &'static str)> {
    vec![
        (json!({}), "spec.nodes: Required value"),
        (json!({"nodes": 0}), "so many nodes cannot be run; write 1 to 9"),
        (json!({"nodes": 30}), "so many nodes cannot be run; write 1 to 9"),
        (
            json!({"nodes": 3, "image": {"name": "x:latest", "redis": "8.2.3"}}),
            "`x:latest` has no digest",
        ),
        (json!({"nodes": 3, "resources": {"cpu": "1m"}}), "1m is not sold; Akash sells 10m to 384"),
        (
            json!({"nodes": 3, "resources": {"memory": "3Ti"}}),
            "3Ti is not sold; Akash sells 1Mi to 2Ti",
        ),
        (
            json!({"nodes": 3, "resources": {"memory": "1 GB"}}),
            "spec.resources.memory: Invalid value",
        ),
        (
            json!({"nodes": 3, "resources": {"data": {"size": "1Mi"}}}),
            "1Mi is not sold; Akash sells 5Mi to 32Ti",
        ),
        (
            json!({"nodes": 3, "resources": {"data": {"size": "1Gi", "class": "ram"}}}),
            "Unsupported value: \"ram\"",
        ),
        (
            json!({"nodes": 3, "placement": {"maxPrice": "0act"}}),
            "buys nothing; write more than 0act",
        ),
        (
            json!({"nodes": 3, "placement": {"providers": {"allow": ["a", "b"]}}}),
            "names fewer providers than there are nodes",
        ),
        (
            json!({"nodes": 3, "placement": {"rebalance": {"whenCheaperBy": "1%"}}}),
            "1% would move nodes for nothing, or never; write 5% to 90%",
        ),
        (
            json!({"nodes": 3, "placement": {"rebalance": {"atMostEvery": "5m"}}}),
            "5m is shorter than a move may take; write 1h or more",
        ),
        (
            json!({"nodes": 3, "budget": {"maxPerMonth": "0.0act"}}),
            "buys nothing; write more than 0act",
        ),
        (json!({"nodes": 3, "budget": {"maxPerMonth": "5usd"}}), "spec.budget.maxPerMonth"),
        (
            json!({"nodes": 3, "budget": {"deposit": "0.1act"}}),
            "0.1act is less than the chain takes; write at least 0.5act",
        ),
        (json!({"nodes": 3, "mesh": {"tag": "nodes"}}), "`nodes` is not a tag of the mesh"),
    ]
}

/// The same, by what goes together.
fn bad_together() -> Vec<(Value, &'static str)> {
    vec![
        (
            json!({"nodes": 3, "failover": {"downAfter": "2s"}}),
            "2s is too short to tell death from delay",
        ),
        (
            json!({"nodes": 3, "failover": {"downAfter": "1d"}}),
            "or too long to help; write 5s to 10m",
        ),
        (
            json!({"nodes": 3, "failover": {"downAfter": "5.5s"}}),
            "5.5s is not a whole number of seconds",
        ),
        (json!({"nodes": 3, "failover": {"stuckAfter": "1h"}}), "leaves a long command no time"),
        (
            json!({"nodes": 3, "failover": {"maxLag": "1Ki"}}),
            "1Ki is less than what is under way at any moment",
        ),
        (
            json!({"nodes": 3, "confirmations": 1}),
            "confirmations counts under `durability: confirmed` only",
        ),
        (
            json!({"nodes": 3, "allowWriteStops": true}),
            "allowWriteStops counts under `durability: confirmed` only",
        ),
        (
            json!({"nodes": 3, "durability": "confirmed", "failover": {"whenMinority": "promote"}}),
            "`promote` may lose what was confirmed",
        ),
        (
            json!({"nodes": 1, "durability": "confirmed"}),
            "`confirmed` needs replicas, and there is one node",
        ),
        (
            json!({"nodes": 3, "durability": "confirmed", "confirmations": 0}),
            "0 replicas confirm nothing; write at least 1",
        ),
        (
            json!({"nodes": 3, "durability": "confirmed", "confirmations": 3}),
            "more replicas shall confirm than there are",
        ),
        (
            json!({"nodes": 3, "durability": "confirmed", "confirmations": 2}),
            "writes stop whenever one is away",
        ),
        (json!({"nodes": 2, "durability": "confirmed"}), "writes stop whenever one is away"),
        (
            json!({"nodes": 3, "redis": {"users": [{"name": "a", "passwordFrom": {"env": "A", "file": "B"}}]}}),
            "spec.redis.users[0].passwordFrom",
        ),
    ]
}

#[test]
fn what_cannot_be_run_is_refused_in_our_words_and_the_rest_is_taken() {
    const NAME: &str = "crd::what_cannot_be_run_is_refused_in_our_words_and_the_rest_is_taken";
    sandboxed(NAME, LIMIT, async |sandbox| {
        let cluster = Cluster::start(&sandbox.dir).await;
        for (spec, says) in bad().into_iter().chain(bad_together()) {
            let refused = cluster.create("default", &object("bad", &spec)).await.expect_err(says);
            assert!(refused.contains(says), "{spec}: {refused}");
            for word in ["failed rule", "evaluation error", "messageExpression"] {
                assert!(!refused.contains(word), "{spec}: {refused}");
            }
        }
        let good = json!({"nodes": 3});
        for name in ["Cache", "1cache", "cache-", "a23456789012345678901"] {
            let refused = cluster.create("default", &object(name, &good)).await.expect_err(name);
            let ours = refused.contains("cannot be a name on the mesh; write 1 to 20 of a-z");
            assert!(ours || refused.contains("RFC 1123"), "{refused}");
        }
        for spec in [
            json!({"nodes": 9, "durability": "confirmed", "confirmations": 8, "allowWriteStops": true}),
            json!({"nodes": 2, "durability": "confirmed", "allowWriteStops": true}),
            json!({"nodes": 3, "failover": {"downAfter": "2m", "stuckAfter": "10m", "maxLag": 65536}}),
            json!({"nodes": 1, "resources": {"cpu": 1, "memory": 1_073_741_824}}),
        ] {
            cluster.create("default", &object("good", &spec)).await.unwrap();
            cluster
                .objects("default")
                .delete("good", &kube::api::DeleteParams::default())
                .await
                .unwrap();
        }
        // The shipped ones, as `kubectl` sends them.
        let manifests = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests");
        let mut taken = 0;
        for entry in std::fs::read_dir(manifests).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            if text.contains("kind: RedisCluster") {
                let file = path.display().to_string();
                cluster.says(&["apply", "--validate=strict", "-f", &file]).await;
                taken += 1;
            }
        }
        assert!(taken >= 4, "{taken}");
        // What we do not know is not silently dropped.
        let file = sandbox.dir.join("unknown.yaml");
        std::fs::write(&file, object("unknown", &json!({"nodes": 3, "replicas": 2})).to_string())
            .unwrap();
        let strict = ["apply", "--validate=strict", "-f", &file.display().to_string()];
        let refused = cluster.kubectl(&strict).output().await.unwrap();
        let refused = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.contains("unknown field \"spec.replicas\""), "{refused}");
    });
}

#[test]
fn kubectl_explains_shows_and_scales_it() {
    const NAME: &str = "crd::kubectl_explains_shows_and_scales_it";
    sandboxed(NAME, LIMIT, async |sandbox| {
        let cluster = Cluster::start(&sandbox.dir).await;
        let api = cluster.objects("default");
        // Defaults are there for whoever reads it.
        let made = cluster.create("default", &object("cache", &json!({"nodes": 3}))).await.unwrap();
        let spec = &made.data["spec"];
        assert_eq!(spec["durability"], "async");
        assert_eq!(spec["resources"], json!({"cpu": "500m", "memory": "1Gi"}));
        assert_eq!(spec["failover"]["downAfter"], "10s");
        // They are ours: what the operator would take is what was made.
        let ours: akash_redis::api::types::Spec =
            serde_json::from_value(json!({"nodes": 3})).unwrap();
        let theirs: akash_redis::api::types::Spec = serde_json::from_value(spec.clone()).unwrap();
        assert_eq!(theirs, ours);

        let explained = cluster.says(&["explain", "rdc.spec.failover"]).await;
        for word in ["downAfter", "Silence of the master that counts as its death"] {
            assert!(explained.contains(word), "{explained}");
        }
        let status = json!({"status": {
            "conditions": [{"type": "Ready", "status": "True", "reason": "AllInSync", "message": "x", "lastTransitionTime": "x"}],
            "master": {"epoch": 1, "incarnation": "cache-0-a1"}, "readyNodes": 3,
            "cost": {"perMonth": "9act", "runway": "13 days"},
            "nodes": [{"ordinal": 0, "incarnation": "cache-0-a1", "meshName": "cache-0-a1.tail.ts.net"}],
        }});
        let params = PatchParams::default();
        api.patch_status("cache", &params, &Patch::Merge(&status)).await.unwrap();
        let all = cluster.says(&["get", "all"]).await;
        assert!(all.contains("rediscluster.akash-redis.dev/cache"), "{all}");
        let shown = cluster.says(&["get", "rdc"]).await;
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let rows: Vec<_> = shown.lines().map(words).collect();
        let columns = ["NAME", "NODES", "READY", "MASTER", "COST", "RUNWAY", "AGE"];
        assert_eq!(rows[0], columns, "{shown}");
        let row = ["cache", "3", "True", "cache-0-a1", "9act", "13", "days"];
        assert_eq!(rows[1][..7], row, "{shown}");

        cluster.says(&["scale", "rdc", "cache", "--replicas=5"]).await;
        let scale = api.get_scale("cache").await.unwrap();
        assert_eq!(scale.spec.unwrap().replicas, Some(5));
        assert_eq!(scale.status.unwrap().replicas, 3);
        let refused =
            cluster.kubectl(&["scale", "rdc", "cache", "--replicas=20"]).output().await.unwrap();
        let refused = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.contains("so many nodes cannot be run; write 1 to 9"), "{refused}");

        // What a lease was made with stays as long as a node runs.
        for (change, says) in [
            (
                json!({"resources": {"memory": "2Gi"}}),
                "a lease keeps the resources it was made with",
            ),
            (json!({"mesh": {"tag": "tag:other"}}), "a lease keeps the mesh tag it was made with"),
            (
                json!({"placement": {"maxPrice": "5act"}}),
                "a lease keeps the placement it was made with",
            ),
        ] {
            let patch = Patch::Merge(json!({"spec": change}));
            let refused = api.patch("cache", &params, &patch).await.unwrap_err().to_string();
            assert!(refused.contains(says), "{refused}");
        }
        // Nodes take other CPU by moving.
        let patch = Patch::Merge(json!({"spec": {"resources": {"cpu": "1"}}}));
        api.patch("cache", &params, &patch).await.unwrap();
        let patch = Patch::Merge(json!({"spec": {"placement": {"rebalance": {}}}}));
        api.patch("cache", &params, &patch).await.unwrap();
        let none = Patch::Merge(json!({"status": {"nodes": []}}));
        api.patch_status("cache", &params, &none).await.unwrap();
        let patch = Patch::Merge(json!({"spec": {"resources": {"memory": "2Gi"}}}));
        api.patch("cache", &params, &patch).await.unwrap();
    });
}
