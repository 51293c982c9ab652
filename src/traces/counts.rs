//! How many spans came through.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// Spans that were sent, and those that were not.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub(super) sent: Counter,
    pub(super) dropped: Counter,
}

impl Counts {
    /// Spans that a collector took.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// Spans that nobody got.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// Registers both under `akash_redis_`.
    pub fn register(&self, registry: &mut Registry) {
        let ours = registry.sub_registry_with_prefix("akash_redis");
        ours.register("spans_sent", "Spans of traces that a collector took", self.sent.clone());
        ours.register(
            "spans_dropped",
            "Spans of traces that nobody got: too many at once, or the collector was away",
            self.dropped.clone(),
        );
    }
}
