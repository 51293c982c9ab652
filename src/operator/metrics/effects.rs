//! What the operator does outside: by cluster, and by kind and end.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper ends in seconds: from a command to an agent to a transaction that waits for its block.
const ENDS: [f64; 11] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Names a cluster and how its effects ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClusterEnd {
    cluster: String,
    ok: String,
}

/// Names a kind of effect and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindEnd {
    kind: &'static str,
    end: &'static str,
}

/// A histogram with the ends of above.
fn seconds() -> Histogram {
    Histogram::new(ENDS)
}

/// Effects that ended.
#[derive(Clone, Debug)]
pub struct Effects {
    ended: Family<ClusterEnd, Counter>,
    took: Family<KindEnd, Histogram, fn() -> Histogram>,
}

impl Default for Effects {
    fn default() -> Self {
        Self { ended: Family::default(), took: Family::new_with_constructor(seconds) }
    }
}

impl Effects {
    pub(super) fn register(&self, ours: &mut Registry) {
        ours.register(
            "effects",
            "Calls that change the outside world, by how they ended",
            self.ended.clone(),
        );
        ours.register(
            "effect_seconds",
            "Time that a call that changes the outside world took, by kind and end",
            self.took.clone(),
        );
    }

    /// One ended: `ok`, or with the word for why not.
    pub fn observe(&self, cluster: &str, kind: &'static str, end: &'static str, took: Duration) {
        let labels = ClusterEnd { cluster: cluster.to_owned(), ok: (end == "ok").to_string() };
        self.ended.get_or_create(&labels).inc();
        self.took.get_or_create(&KindEnd { kind, end }).observe(took.as_secs_f64());
    }

    /// A cluster is gone. What its effects took stays among all others.
    pub(super) fn forget(&self, cluster: &str) {
        for ok in ["true", "false"] {
            self.ended.remove(&ClusterEnd { cluster: cluster.to_owned(), ok: ok.to_owned() });
        }
    }
}
