//! What a monitoring system reads of notifications.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TargetName {
    target: String,
}

/// Notifications by target.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    sent: Family<TargetName, Counter>,
    failed: Family<TargetName, Counter>,
    dropped: Family<TargetName, Counter>,
    queued: Family<TargetName, Gauge<u64, AtomicU64>>,
}

impl Metrics {
    /// Registers all of them under `akash_redis_`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let ours = registry.sub_registry_with_prefix("akash_redis");
        ours.register(
            "notifications_sent",
            "Notifications that a target took",
            metrics.sent.clone(),
        );
        ours.register(
            "notifications_failed",
            "Tries to send a notification that failed",
            metrics.failed.clone(),
        );
        ours.register(
            "notifications_dropped",
            "Notifications that nobody got: too old, too many, or refused",
            metrics.dropped.clone(),
        );
        ours.register(
            "notifications_queued",
            "Notifications that wait for a target",
            metrics.queued.clone(),
        );
        metrics
    }

    pub(super) fn sent(&self, target: &str) {
        self.sent.get_or_create(&name(target)).inc();
    }

    pub(super) fn failed(&self, target: &str) {
        self.failed.get_or_create(&name(target)).inc();
    }

    pub(super) fn dropped(&self, target: &str, count: u64) {
        self.dropped.get_or_create(&name(target)).inc_by(count);
    }

    pub(super) fn queued(&self, target: &str, count: u64) {
        self.queued.get_or_create(&name(target)).set(count);
    }
}

fn name(target: &str) -> TargetName {
    TargetName { target: target.to_owned() }
}
