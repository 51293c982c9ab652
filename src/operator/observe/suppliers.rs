//! The chain's list of providers: read seldom, beside everything else.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::chain::Chain;
use crate::model::chain::ProviderOffer;
use crate::model::inventory::Reading;
use crate::model::time::UnixMs;
use crate::operator::lock;

/// Providers register and change what they say of themselves by hand.
const EVERY: Duration = Duration::from_mins(5);
/// After a list that could not be had.
const AGAIN: Duration = Duration::from_mins(1);
/// It is waited for so long: nothing depends on it but how long bids are waited for.
const LIMIT: Duration = Duration::from_secs(30);

/// A reading, shared by all plans.
pub type Suppliers = Reading<Arc<Vec<ProviderOffer>>>;

/// The last list.
#[derive(Default)]
pub struct SupplierReadings(Mutex<State>);

#[derive(Default)]
struct State {
    last: Suppliers,
    /// When one is to be read next.
    next: UnixMs,
}

impl SupplierReadings {
    /// Whether it is time for another one, which begins with this.
    pub fn begin(&self, now: UnixMs) -> bool {
        let mut state = lock(&self.0);
        if now < state.next {
            return false;
        }
        // One that is under way ends before.
        state.next = now + AGAIN;
        true
    }

    /// Reads it. The last one stays where none can be had.
    pub async fn read(&self, chain: &dyn Chain, now: impl Fn() -> UnixMs) {
        let began = now();
        let read = tokio::time::timeout(LIMIT, chain.providers(true)).await;
        let read = match read {
            Ok(read) => read.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
        };
        let mut state = lock(&self.0);
        match read {
            Ok(list) => {
                state.last = Reading::took(Arc::new(list), began, now());
                state.next = began + EVERY;
            }
            Err(error) => {
                tracing::debug!(error, "the chain's list of providers cannot be had");
                state.last.failed(error, false);
            }
        }
    }

    /// As it was read last.
    pub fn last(&self) -> Suppliers {
        lock(&self.0).last.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_seldom_and_sooner_again_after_a_failure() {
        let readings = SupplierReadings::default();
        let began = UnixMs(1_795_000_000_000);
        assert!(readings.begin(began));
        assert!(!readings.begin(UnixMs((began + AGAIN).0 - 1)), "one at a time");
        assert!(readings.begin(began + AGAIN), "the last one failed");
        lock(&readings.0).next = began + EVERY;
        assert!(!readings.begin(UnixMs((began + EVERY).0 - 1)));
        assert!(readings.begin(began + EVERY));
    }
}
