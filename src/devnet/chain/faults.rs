//! What can go wrong with a node, on demand.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// Switches of one node.
#[derive(Debug)]
pub struct ChainFaults {
    silent: watch::Sender<bool>,
    lost_answers: AtomicU32,
    lost_requests: AtomicU32,
    refused_calls: AtomicU32,
    calls: AtomicU64,
    stopped: AtomicBool,
    reordered: AtomicBool,
    /// Time between blocks, in place of the usual one.
    block_every: watch::Sender<Option<Duration>>,
    lag: AtomicU64,
    told_gas: AtomicU64,
}

impl Default for ChainFaults {
    fn default() -> Self {
        Self {
            silent: watch::Sender::new(false),
            lost_answers: AtomicU32::new(0),
            lost_requests: AtomicU32::new(0),
            refused_calls: AtomicU32::new(0),
            calls: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            reordered: AtomicBool::new(false),
            block_every: watch::Sender::new(None),
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

    /// So many broadcasts from now on take effect, and their senders hear `Unavailable`.
    pub fn lose_answers(&self, count: u32) {
        self.lost_answers.store(count, Ordering::SeqCst);
    }

    /// The next broadcast does not arrive; its sender hears `Unavailable`.
    pub fn lose_next_request(&self) {
        self.lost_requests.fetch_add(1, Ordering::SeqCst);
    }

    /// So many broadcasts from now on do not arrive, and their senders hear `Unavailable`.
    pub fn lose_requests(&self, count: u32) {
        self.lost_requests.store(count, Ordering::SeqCst);
    }

    /// So many calls from now on are one too many: `ResourceExhausted`, and when to come back.
    pub fn refuse_calls(&self, count: u32) {
        self.refused_calls.store(count, Ordering::SeqCst);
    }

    /// Broadcasts whose answers or which themselves will be lost, and calls that will be refused.
    #[must_use]
    pub fn outstanding(&self) -> [u32; 3] {
        [&self.lost_answers, &self.lost_requests, &self.refused_calls]
            .map(|left| left.load(Ordering::SeqCst))
    }

    /// Transactions get into blocks in another order than they came.
    pub fn reorder(&self, reordered: bool) {
        self.reordered.store(reordered, Ordering::SeqCst);
    }

    /// Blocks come so often from now on; `None`: as usual.
    pub fn set_block_time(&self, every: Option<Duration>) {
        self.block_every.send_replace(every);
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

    /// Calls so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    pub(super) fn count_call(&self) {
        self.calls.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn told_gas(&self, used: u64) -> u64 {
        used.saturating_mul(self.told_gas.load(Ordering::SeqCst)) / 100
    }

    pub(crate) fn is_silent(&self) -> bool {
        *self.silent.borrow()
    }

    pub(crate) fn slow_blocks(&self) -> Option<Duration> {
        *self.block_every.borrow()
    }

    pub(crate) fn reordered(&self) -> bool {
        self.reordered.load(Ordering::SeqCst)
    }

    pub(super) fn block_time(&self) -> watch::Receiver<Option<Duration>> {
        self.block_every.subscribe()
    }

    pub(super) fn take_refused_call(&self) -> bool {
        take(&self.refused_calls)
    }

    pub(crate) fn blocks_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    pub(crate) fn lag(&self) -> u64 {
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
