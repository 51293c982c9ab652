//! Faults of the volumes of nodes.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{FaultError, MarketFaults};
use crate::devnet::provider::host::LeaseKey;
use crate::devnet::provider::runner::Runner;

/// A container that is killed is gone within this.
const GONE: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

impl MarketFaults {
    /// Leaves the volumes of a node no room.
    pub(super) fn disk_full(&self, dseq: u64) -> Result<String, FaultError> {
        if self.nodes(dseq).any(|(runner, lease)| runner.set_full(&lease, true)) {
            Ok(format!("the volumes of deployment {dseq} have no room left"))
        } else {
            Err(FaultError::NoVolume(dseq))
        }
    }

    /// Kills the container of a node, and starts it again on volumes that are read-only: only one that
    /// nobody writes to can become that without a kernel that finds its device broken.
    pub(super) async fn disk_read_only(&self, dseq: u64) -> Result<String, FaultError> {
        let (runner, lease) = self.nodes(dseq).next().ok_or(FaultError::NoVolume(dseq))?;
        runner.power_off(&lease);
        let done = timeout(GONE, read_only(&runner, &lease)).await.is_ok();
        runner.power_on(&lease);
        if done {
            Ok(format!(
                "the volumes of deployment {dseq} are read-only, and its container starts again on them"
            ))
        } else {
            Err(FaultError::NoVolume(dseq))
        }
    }

    /// What is wrong with volumes now, one line each.
    pub(super) fn disks(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for runner in self.runners() {
            for lease in runner.leases() {
                let dseq = lease.dseq;
                if runner.is_full(&lease) {
                    lines.push(format!("disk-full {dseq}: its volumes have no room left"));
                }
                if runner.is_read_only(&lease) {
                    lines.push(format!("disk-read-only {dseq}: its volumes take no writes"));
                }
            }
        }
        lines
    }

    /// Makes volumes as they were.
    pub(super) fn clear_disks(&self, hit: &dyn Fn(&str) -> bool) {
        for runner in self.runners() {
            for lease in runner.leases() {
                if hit("disk-full") {
                    runner.set_full(&lease, false);
                }
                if hit("disk-read-only") && runner.is_read_only(&lease) {
                    runner.set_read_only(&lease, false);
                }
            }
        }
    }

    fn runners(&self) -> impl Iterator<Item = &Runner> {
        self.providers.iter().filter_map(|provider| provider.runner.as_deref())
    }
}

/// Once the last process that writes there is gone.
async fn read_only(runner: &Runner, lease: &LeaseKey) {
    while runner.pid(lease).is_some() || !runner.set_read_only(lease, true) {
        sleep(LOOK).await;
    }
}
