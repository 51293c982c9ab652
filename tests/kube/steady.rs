//! Where nothing happens, the apiserver is left alone.

use std::collections::BTreeMap;
use std::time::Duration;

use akash_redis::cli::demo::writer::Writer;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::Value;

use crate::apiserver::{Cluster, until};
use crate::life::at_home;
use crate::sandboxed::sandboxed;
use crate::stage::{CLUSTER, Stage, cluster};
use crate::writing::writes_go_on;

const LIMIT: Duration = Duration::from_mins(5);
/// So many payments to providers are seen: there is one with each block.
const PAYMENTS: usize = 15;

/// The versions of everything that an operator writes, but for the Lease that says who works.
async fn versions(kube: &Cluster) -> BTreeMap<String, Option<String>> {
    let (all, mut versions) = (ListParams::default(), BTreeMap::new());
    for object in kube.objects("default").list(&all).await.unwrap() {
        versions.insert(object.name_any(), object.resource_version());
    }
    let maps: Api<ConfigMap> = Api::namespaced(kube.client.clone(), "default");
    for map in maps.list(&all).await.unwrap() {
        versions.insert(map.name_any(), map.resource_version());
    }
    versions
}

/// What was paid, as the operator tells it.
async fn spent(stage: &Stage) -> String {
    stage.client.get(CLUSTER).await.unwrap().status.unwrap().cost.spent
}

/// Waits until so many payments were told.
async fn payments(stage: &Stage, wanted: usize) {
    let mut told = spent(stage).await;
    for _ in 0..wanted {
        told =
            until("a payment", async || Some(spent(stage).await).filter(|now| *now != told)).await;
    }
}

#[test]
fn blocks_payments_and_data_that_come_and_go_write_nothing() {
    const TEST: &str = "steady::blocks_payments_and_data_that_come_and_go_write_nothing";
    sandboxed(TEST, LIMIT, async |sandbox| {
        let mut stage = Stage::without_operator(&sandbox).await;
        let kube = Cluster::start(&sandbox.dir).await;
        at_home(&stage, &kube);
        stage.local.start_operator().await.unwrap();
        stage.client.apply(&cluster(3)).await.unwrap();
        stage.until_ready().await;
        let (_proxy, access) = stage.proxy();
        let writer = Writer::start(access);
        writes_go_on(&writer).await;
        // What follows from the beginning (paths, first reports) has come to its end.
        until("a payment that writes nothing", async || {
            let before = versions(&kube).await;
            payments(&stage, 3).await;
            (versions(&kube).await == before).then_some(())
        })
        .await;
        let before = versions(&kube).await;
        payments(&stage, PAYMENTS).await;
        writes_go_on(&writer).await;
        assert_eq!(versions(&kube).await, before, "{:?}", watched(&kube).await);
        println!("{PAYMENTS} payments, and nothing was written to {} objects", before.len());
    });
}

/// The object, for whoever wants to know what moved.
async fn watched(kube: &Cluster) -> Value {
    kube.objects("default").get(CLUSTER).await.unwrap().data
}
