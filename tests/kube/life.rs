//! A cluster's whole life by Kubernetes' own means: applied, Ready, a failover, deleted.

use std::time::Duration;

use akash_redis::api::conditions::{ConditionType, Phase, Reason};
use akash_redis::api::status::{NodeStatus, Status};
use akash_redis::cli::demo::writer::Writer;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::apiserver::{Cluster, until};
use crate::sandboxed::sandboxed;
use crate::stage::{CLUSTER, Stage, cluster};
use crate::writing::{nothing_lost, writes_go_on};

const LIMIT: Duration = Duration::from_mins(5);

/// The operator of the stage keeps what it remembers where this says.
pub fn keep_in(stage: &Stage, store: &Value) {
    let file = stage.local.config();
    let settings = std::fs::read_to_string(&file).unwrap();
    let line = |line: &str| {
        if line.starts_with("store:") { format!("store: {store}\n") } else { format!("{line}\n") }
    };
    let settings: String = settings.lines().map(line).collect();
    std::fs::write(&file, settings).unwrap();
}

/// The operator of the stage is at home on that apiserver.
pub fn at_home(stage: &Stage, kube: &Cluster) {
    let home = json!({"namespace": "default", "kubeconfig": kube.kubeconfig()});
    keep_in(stage, &json!({"kubernetes": home}));
}

/// The status as it is written.
pub async fn status(kube: &Cluster) -> Status {
    let object = kube.objects("default").get(CLUSTER).await.unwrap();
    serde_json::from_value(object.data["status"].clone()).unwrap()
}

/// The node that is master.
pub fn master(status: &Status) -> Option<NodeStatus> {
    status.nodes.iter().find(|node| node.phase == Phase::Master).cloned()
}

#[test]
fn a_cluster_lives_by_kubectl_alone() {
    sandboxed("life::a_cluster_lives_by_kubectl_alone", LIMIT, async |sandbox| {
        let mut stage = Stage::without_operator(&sandbox).await;
        let kube = Cluster::start(&sandbox.dir).await;
        at_home(&stage, &kube);
        stage.local.start_operator().await.unwrap();

        let file = sandbox.dir.join("cache.json");
        let manifest: Value = serde_json::to_value(cluster(3)).unwrap();
        std::fs::write(&file, manifest.to_string()).unwrap();
        kube.says(&["apply", "-f", &file.display().to_string()]).await;
        kube.says(&["wait", "rdc/cache", "--for=condition=Ready", "--timeout=100s"]).await;
        println!("{}", kube.says(&["get", "rdc"]).await);
        let before = status(&kube).await;
        let old = master(&before).unwrap();

        let (_proxy, access) = stage.proxy();
        let writer = Writer::start(access);
        writes_go_on(&writer).await;
        stage.kill_redis(&old);
        let after = until("another master", async || {
            let now = status(&kube).await;
            master(&now).is_some_and(|m| m.incarnation != old.incarnation).then_some(now)
        })
        .await;
        assert!(after.epoch > before.epoch);
        nothing_lost(&writer, "redis of the master killed").await;
        kube.says(&["wait", "rdc/cache", "--for=condition=Ready", "--timeout=100s"]).await;
        let shown = until("the events of Kubernetes", async || {
            let shown = kube.says(&["describe", "rdc", "cache"]).await;
            shown.contains("FailoverStarted").then_some(shown)
        })
        .await;
        println!("{}", shown.split("Events:").last().unwrap());

        kube.says(&["delete", "rdc", "cache", "--wait=false"]).await;
        // Nobody named it: it goes on, and says so.
        let refused = ["wait", "rdc/cache", "--for=condition=Deleting=False", "--timeout=60s"];
        kube.says(&refused).await;
        let now = status(&kube).await;
        let told = now.conditions.iter().find(|c| c.kind == ConditionType::Deleting).unwrap();
        assert_eq!(told.reason, Reason::DeletionRefused, "{}", told.message);
        writes_go_on(&writer).await;
        kube.says(&["annotate", "rdc", "cache", "akash-redis.dev/yes-delete-data=cache"]).await;
        until("it to be gone", async || {
            let objects = kube.objects("default").list(&kube::api::ListParams::default()).await;
            objects.unwrap().iter().all(|object| object.name_any() != CLUSTER).then_some(())
        })
        .await;
        stage.assert_nothing_left().await;
    });
}
