//! The store on Kubernetes keeps what every store promises (`tests/sim/store_contract.rs`).

use std::time::Duration;

use akash_redis::store::kubernetes::{EVENTS_KEPT, EVENTS_OF_A_REASON};

use crate::apiserver::Cluster;
use crate::sandboxed::sandboxed;
use crate::store_promises::{self, Fresh, promises};

const LIMIT: Duration = Duration::from_mins(5);

/// Two processes of an operator that has a namespace to itself.
async fn fresh(cluster: &Cluster, namespace: &str) -> Fresh {
    cluster.namespace(namespace).await;
    let pair = [cluster.store(namespace).await, cluster.store(namespace).await];
    Fresh {
        pair: pair.map(|store| store as _),
        events: EVENTS_KEPT as u64,
        of_a_reason: EVENTS_OF_A_REASON,
    }
}

macro_rules! one_after_the_other {
    ($($promise:ident,)*) => {
        async fn keep(cluster: &Cluster) {
            $(
                let name = stringify!($promise);
                println!("{name}");
                let namespace = name.replace('_', "-");
                let namespace = namespace[..namespace.len().min(60)].trim_end_matches('-').to_owned();
                store_promises::$promise(fresh(cluster, &namespace).await).await;
            )*
        }
    };
}

promises!(one_after_the_other);

#[test]
fn kubernetes_keeps_what_every_store_promises() {
    const NAME: &str = "contract::kubernetes_keeps_what_every_store_promises";
    sandboxed(NAME, LIMIT, async |sandbox| {
        let cluster = Cluster::start(&sandbox.dir).await;
        keep(&cluster).await;
    });
}
