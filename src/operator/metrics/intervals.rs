//! How long changes of master take, and their parts.

use std::time::Duration;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::Cluster;
use crate::model::interval::Interval;

/// Upper ends in seconds: what a person waits for without noticing, what a client's time-out is made
/// for, and what is an outage.
const ENDS: [f64; 15] =
    [0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.5, 4.0, 6.0, 10.0, 15.0, 30.0, 60.0, 120.0, 600.0];

/// A histogram with the ends of above.
fn seconds() -> Histogram {
    Histogram::new(ENDS)
}

type Durations = Family<Cluster, Histogram, fn() -> Histogram>;

/// Durations by cluster; a cluster has none of a kind before the first one.
#[derive(Clone, Debug)]
pub struct Intervals {
    detection: Durations,
    fence: Durations,
    failover: Durations,
    switchover: Durations,
}

impl Default for Intervals {
    fn default() -> Self {
        let new = || Durations::new_with_constructor(seconds);
        Self { detection: new(), fence: new(), failover: new(), switchover: new() }
    }
}

impl Intervals {
    pub(super) fn register(&self, ours: &mut Registry) {
        ours.register(
            "failover_detection_seconds",
            "Time from when a master was last known to be well to the beginning of its failover",
            self.detection.clone(),
        );
        ours.register(
            "failover_fence_seconds",
            "Time from the beginning of a failover to the proof that the old master takes no writes",
            self.fence.clone(),
        );
        ours.register(
            "failover_seconds",
            "Time from the beginning of a failover to the first write that the new master accepts",
            self.failover.clone(),
        );
        ours.register(
            "switchover_seconds",
            "Time for which writes were held in a switchover, until the new master accepts them",
            self.switchover.clone(),
        );
    }

    /// Something came to its end.
    pub fn observe(&self, cluster: &str, interval: Interval, took: Duration) {
        let family = match interval {
            Interval::Detection => &self.detection,
            Interval::Fence => &self.fence,
            Interval::Failover => &self.failover,
            Interval::Switchover => &self.switchover,
        };
        let labels = Cluster { cluster: cluster.to_owned() };
        family.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A cluster is gone.
    pub(super) fn forget(&self, cluster: &str) {
        let labels = Cluster { cluster: cluster.to_owned() };
        for family in [&self.detection, &self.fence, &self.failover, &self.switchover] {
            family.remove(&labels);
        }
    }
}
