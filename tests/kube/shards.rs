//! Several operators share the clusters of one apiserver: each has a label of its own, a namespace
//! for what it remembers, and a wallet.

use std::time::Duration;

use akash_redis::api::status::Status;
use akash_redis::config::KubernetesHome;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::runtime::Handle;

use crate::apiserver::Cluster;
use crate::crashes::world_in;
use crate::sandboxed::sandboxed;
use crate::world::World;
use crate::world::many::in_a_world;

const LIMIT: Duration = Duration::from_mins(4);
const SHARDS: [&str; 2] = ["red", "blue"];
/// Clusters of each.
const EACH: usize = 3;

fn names(shard: &str) -> Vec<String> {
    (0..EACH).map(|number| format!("{shard}-{number}")).collect()
}

/// The operator of a shard brings its clusters up, on a chain of its own; then it sees that nothing
/// else was bought.
async fn bring_up(world: &World, shard: &str) {
    world.start_operator().await;
    for name in names(shard) {
        let ready = async || world.ready(&name).await;
        world.until("its own clusters", Duration::from_mins(30), ready).await;
    }
    let known = world.home.seen().list().await.unwrap();
    let known: Vec<String> = known.into_iter().map(|s| s.cluster.metadata.name).collect();
    assert_eq!(known, names(shard), "those of the other are not looked at");
    assert_eq!(world.chain.active_deployments().len(), 3 * EACH, "paid by its own wallet");
    world.kill_operator().await;
}

#[test]
fn two_operators_with_disjoint_selectors_share_the_clusters_of_a_namespace() {
    const TEST: &str =
        "shards::two_operators_with_disjoint_selectors_share_the_clusters_of_a_namespace";
    sandboxed(TEST, LIMIT, async |sandbox| {
        let kube = Cluster::start(&sandbox.dir).await;
        kube.namespace("team").await;
        for (shard, name) in SHARDS.iter().flat_map(|s| names(s).into_iter().map(move |n| (s, n))) {
            let object = json!({
                "apiVersion": "akash-redis.dev/v1alpha1", "kind": "RedisCluster",
                "metadata": {"name": name, "labels": {"shard": shard}},
                "spec": {
                    "nodes": 3, "budget": {"maxPerMonth": "30act"},
                    "resources": {"cpu": "500m", "memory": "1Gi", "data": {"size": "4Gi", "class": "beta3"}},
                },
            });
            kube.create("team", &object).await.unwrap();
        }
        let both = SHARDS.map(|shard| format!("operator-{shard}"));
        for namespace in &both {
            kube.namespace(namespace).await;
        }
        let operators = SHARDS.map(|shard| {
            let home = KubernetesHome {
                watch_namespace: Some("team".to_owned()),
                selector: Some(format!("shard={shard}")),
                ..kube.home(&format!("operator-{shard}"))
            };
            let runtime = Handle::current();
            tokio::task::spawn_blocking(move || {
                in_a_world(async { bring_up(&world_in(&runtime, home, 50_000), shard).await });
            })
        });
        for operator in operators {
            operator.await.unwrap();
        }
        for (shard, namespace) in SHARDS.iter().zip(&both) {
            let maps: Api<ConfigMap> = Api::namespaced(kube.client.clone(), namespace);
            let maps = maps.list(&ListParams::default()).await.unwrap();
            let mut known: Vec<String> = maps.iter().map(ResourceExt::name_any).collect();
            known.retain(|name| name.starts_with("akash-redis.cluster."));
            let wanted: Vec<_> =
                names(shard).iter().map(|n| format!("akash-redis.cluster.{n}")).collect();
            assert_eq!(known, wanted);
        }
        for object in kube.objects("team").list(&ListParams::default()).await.unwrap() {
            let status: Status = serde_json::from_value(object.data["status"].clone()).unwrap();
            assert_eq!(status.ready_nodes, 3, "{}", object.name_any());
        }
    });
}
