//! An operator that stands still in the middle of a failover, while another one finishes it, changes
//! nothing when it wakes.

use std::time::{Duration, Instant};

use akash_redis::cli::demo::writer::Writer;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::timeout;

use crate::apiserver::{Cluster, STEP, until};
use crate::life::{at_home, master, status};
use crate::operators::Operator;
use crate::sandboxed::sandboxed;
use crate::stage::{Stage, cluster};
use crate::writing::{nothing_lost, writes_go_on};

const LIMIT: Duration = Duration::from_mins(6);

/// What the operators remember of the cluster.
async fn record(kube: &Cluster) -> Value {
    let maps: Api<ConfigMap> = Api::namespaced(kube.client.clone(), "default");
    let map = maps.get("akash-redis.cluster.cache").await.unwrap();
    let memory: Value = serde_json::from_str(&map.data.unwrap()["memory"]).unwrap();
    memory["record"].clone()
}

/// Where the operator stands still.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The epoch is raised, and nobody is chosen.
    Begun,
    /// Another master is chosen, and has not confirmed that it is one.
    Chosen,
}

impl Moment {
    fn is(self, record: &Value) -> bool {
        match self {
            Self::Begun => record["change"]["Failover"].is_object(),
            Self::Chosen => record["master"]["confirmed"] == false,
        }
    }
}

/// One failover, with an operator that is frozen in the middle of it and another one that waits.
/// Returns the one that works after it.
async fn frozen_at(
    moment: Moment,
    stage: &Stage,
    kube: &Cluster,
    writer: &Writer,
    [mut first, second]: [Operator; 2],
) -> Operator {
    kube.says(&["wait", "rdc/cache", "--for=condition=Ready", "--timeout=100s"]).await;
    writes_go_on(writer).await;
    let before = record(kube).await;
    let old = master(&status(kube).await).unwrap();
    stage.kill_redis(&old);
    let begun = Instant::now();
    while !moment.is(&record(kube).await) {
        assert!(begun.elapsed() < STEP, "{moment:?} was not seen: {}", record(kube).await);
    }
    first.signal(Signal::STOP);
    let stopped = record(kube).await;
    println!("{moment:?}: frozen {:?} after the death of redis", begun.elapsed());
    let settled = stopped["master"]["confirmed"] == true && stopped["change"].is_null();
    assert!(!settled, "it was over already: {stopped}");
    assert!(stopped["epoch"].as_u64() > before["epoch"].as_u64());

    // The other one goes on with what is remembered, and finishes it.
    let done = until("the other operator to finish it", async || {
        let now = record(kube).await;
        let over = now["change"].is_null() && now["master"]["confirmed"] == true;
        (over && now["master"]["incarnation"] != old.incarnation.as_str()).then_some(now)
    })
    .await;
    println!("{moment:?}: over after {:?}", begun.elapsed());
    kube.says(&["wait", "rdc/cache", "--for=condition=Ready", "--timeout=100s"]).await;
    let quiet = record(kube).await;

    // It wakes, wants to go on with what it was about, and is refused everywhere.
    first.signal(Signal::CONT);
    let ended = timeout(STEP, first.process.wait()).await.unwrap().unwrap();
    let said = first.said();
    // What it had asked the apiserver for when it was stopped was not answered in its time either.
    let why =
        ["the lease was lost", "a later operator (term", "the apiserver did not answer within"];
    assert!(!ended.success() && why.iter().any(|why| said.contains(why)), "{said}");
    second.is_asked(stage);
    writes_go_on(writer).await;
    let after = record(kube).await;
    assert_eq!((&after["master"], &after["epoch"]), (&quiet["master"], &quiet["epoch"]));
    assert_eq!(after["master"]["incarnation"], done["master"]["incarnation"]);
    nothing_lost(writer, "frozen in a failover").await;
    second
}

#[test]
fn one_that_stood_still_in_a_failover_changes_nothing_when_it_wakes() {
    const TEST: &str = "frozen::one_that_stood_still_in_a_failover_changes_nothing_when_it_wakes";
    sandboxed(TEST, LIMIT, async |sandbox| {
        let stage = Stage::without_operator(&sandbox).await;
        let kube = Cluster::start(&sandbox.dir).await;
        at_home(&stage, &kube);
        let one = Operator::start(&stage, &sandbox.dir, "one");
        one.is_asked(&stage);
        until("the first operator", async || stage.client.list().await.ok()).await;
        stage.client.apply(&cluster(3)).await.unwrap();
        let two = Operator::start(&stage, &sandbox.dir, "two");
        stage.until_ready().await;
        let (_proxy, access) = stage.proxy();
        let writer = Writer::start(access);
        let two = frozen_at(Moment::Begun, &stage, &kube, &writer, [one, two]).await;
        let three = Operator::start(&stage, &sandbox.dir, "three");
        until("the third operator to wait", async || {
            three.said().contains("another operator holds the lease").then_some(())
        })
        .await;
        frozen_at(Moment::Chosen, &stage, &kube, &writer, [two, three]).await;
    });
}
