//! What can go wrong with a provider, on demand.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// Something wrong with a provider, from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderFault {
    /// It bids on nothing; its leases go on.
    NoBids,
    /// It takes manifests and starts nothing.
    NeverDeploys,
    /// It starts nothing, and says that all of it is ready.
    LiesReady,
    /// It says that nothing was deployed, whatever runs.
    LiesGone,
    /// It takes manifests and goes on with the former one; a new lease runs without variables.
    OtherManifest,
    /// What ran goes on when its lease ends.
    KeepsRunning,
    /// It offers half of what is ordered.
    OffersLess,
    /// Its bids are so many hundredths of its usual price.
    Price(u32),
    /// Its bids promise this notice before it closes a lease.
    Reclaimable(Duration),
    /// Its gateway answers everything with this HTTP status.
    GatewayStatus(u16),
    /// Its gateway takes calls and answers none of them.
    GatewaySilent,
}

impl ProviderFault {
    /// Two with the same name replace each other.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoBids => "no-bids",
            Self::NeverDeploys => "never-deploys",
            Self::LiesReady => "lies-ready",
            Self::LiesGone => "lies-gone",
            Self::OtherManifest => "other-manifest",
            Self::KeepsRunning => "keeps-running",
            Self::OffersLess => "offers-less",
            Self::Price(_) => "price",
            Self::Reclaimable(_) => "reclaimable",
            Self::GatewayStatus(_) => "gateway-status",
            Self::GatewaySilent => "gateway-silent",
        }
    }
}

/// What is wrong with one provider now.
#[derive(Debug)]
pub struct ProviderFaults {
    present: Mutex<BTreeMap<&'static str, ProviderFault>>,
    silent: watch::Sender<bool>,
}

impl Default for ProviderFaults {
    fn default() -> Self {
        Self { present: Mutex::default(), silent: watch::Sender::new(false) }
    }
}

impl ProviderFaults {
    /// From now on.
    pub fn set(&self, fault: ProviderFault) {
        let mut present = self.lock();
        present.insert(fault.name(), fault);
        self.silent.send_replace(present.contains_key(ProviderFault::GatewaySilent.name()));
    }

    /// Not any more; whether it was.
    pub fn clear(&self, name: &str) -> bool {
        let mut present = self.lock();
        let was = present.remove(name).is_some();
        self.silent.send_replace(present.contains_key(ProviderFault::GatewaySilent.name()));
        was
    }

    /// All that is wrong.
    #[must_use]
    pub fn present(&self) -> Vec<ProviderFault> {
        self.lock().values().copied().collect()
    }

    /// Whether this one is, whatever its number.
    #[must_use]
    pub fn has(&self, fault: ProviderFault) -> bool {
        self.lock().contains_key(fault.name())
    }

    pub(super) fn price(&self, usual: u32) -> u32 {
        match self.lock().get(ProviderFault::Price(0).name()) {
            Some(ProviderFault::Price(percent)) => usual.saturating_mul(*percent) / 100,
            _ => usual,
        }
    }

    pub(super) fn notice(&self, usual: Option<Duration>) -> Option<Duration> {
        match self.lock().get(ProviderFault::Reclaimable(Duration::ZERO).name()) {
            Some(ProviderFault::Reclaimable(notice)) => Some(*notice),
            _ => usual,
        }
    }

    pub(super) fn gateway_status(&self) -> Option<u16> {
        match self.lock().get(ProviderFault::GatewayStatus(0).name()) {
            Some(ProviderFault::GatewayStatus(status)) => Some(*status),
            _ => None,
        }
    }

    /// Waits while the gateway is silent.
    pub(super) async fn speaking(&self) {
        // The sender is ours: the channel cannot be closed.
        let _ = self.silent.subscribe().wait_for(|silent| !silent).await;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, ProviderFault>> {
        // Nothing is half done under this lock.
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
