//! What can go wrong with a node, on demand.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use tokio::sync::watch;

/// Switches of one node.
#[derive(Debug)]
pub struct ChainFaults {
    silent: watch::Sender<bool>,
    lost_answers: AtomicU32,
    lost_requests: AtomicU32,
    stopped: AtomicBool,
    lag: AtomicU64,
    told_gas: AtomicU64,
}

impl Default for ChainFaults {
    fn default() -> Self {
        Self {
            silent: watch::Sender::new(false),
            lost_answers: AtomicU32::new(0),
            lost_requests: AtomicU32::new(0),
            stopped: AtomicBool::new(false),
            lag: AtomicU64::new(0),
            told_gas: AtomicU64::new(100),
        }
    }
}

impl ChainFaults {
    /// Takes calls and answers none of them, until switched off again.
    pub fn set_silent(&self, silent: bool) {
        self.silent.send_replace(silent);
    }

    /// The next broadcast takes effect; its sender hears `Unavailable`.
    pub fn lose_next_answer(&self) {
        self.lost_answers.fetch_add(1, Ordering::SeqCst);
    }

    /// The next broadcast does not arrive; its sender hears `Unavailable`.
    pub fn lose_next_request(&self) {
        self.lost_requests.fetch_add(1, Ordering::SeqCst);
    }

    /// No further block is made by the clock.
    pub fn stop_blocks(&self, stopped: bool) {
        self.stopped.store(stopped, Ordering::SeqCst);
    }

    /// Questions are answered as of this many blocks ago.
    pub fn set_lag(&self, blocks: u64) {
        self.lag.store(blocks, Ordering::SeqCst);
    }

    /// Simulations tell so many hundredths of the gas that is used.
    pub fn tell_gas(&self, percent: u64) {
        self.told_gas.store(percent, Ordering::SeqCst);
    }

    pub(super) fn told_gas(&self, used: u64) -> u64 {
        used.saturating_mul(self.told_gas.load(Ordering::SeqCst)) / 100
    }

    pub(super) fn blocks_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    pub(super) fn lag(&self) -> u64 {
        self.lag.load(Ordering::SeqCst)
    }

    pub(super) async fn speaking(&self) {
        // The sender is ours: the channel cannot be closed.
        let _ = self.silent.subscribe().wait_for(|silent| !silent).await;
    }

    pub(super) fn take_lost_answer(&self) -> bool {
        take(&self.lost_answers)
    }

    pub(super) fn take_lost_request(&self) -> bool {
        take(&self.lost_requests)
    }
}

fn take(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}
