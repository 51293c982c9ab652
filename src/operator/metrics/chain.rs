//! Where the chain is, by the last reading.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::model::chain::ChainView;

/// The newest block that was read; both are 0 before the first one.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    height: Gauge,
    block_time: Gauge<f64, AtomicU64>,
}

impl Chain {
    pub(super) fn register(&self, ours: &mut Registry) {
        ours.register(
            "chain_height",
            "Height of the newest block that was read",
            self.height.clone(),
        );
        ours.register(
            "chain_block_timestamp_seconds",
            "When the newest block that was read was made, by its own word",
            self.block_time.clone(),
        );
    }

    /// The chain was read.
    pub fn read(&self, view: &ChainView) {
        self.height.set(view.height);
        let time = std::time::Duration::from_millis(view.block_time.0);
        self.block_time.set(time.as_secs_f64());
    }
}
