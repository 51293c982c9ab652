//! Nonces: proof that a command was formed after a state that this very agent sent a moment ago.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::RngCore as _;

/// A nonce is good for so long, on this machine's monotonic clock.
pub const NONCE_LIFE: Duration = Duration::from_secs(10);
/// Most nonces remembered; with the cap on watchers, far more than can be issued in [`NONCE_LIFE`].
const REMEMBERED: usize = 4096;

/// How a nonce fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Issued by this agent within [`NONCE_LIFE`].
    Fresh,
    /// Issued by somebody else, by an earlier start of this agent, or too long ago.
    Stale,
}

/// Nonces issued by this start of the agent.
#[derive(Debug, Default)]
pub struct Nonces {
    issued: VecDeque<(String, Instant)>,
}

impl Nonces {
    /// A new nonce.
    pub fn issue(&mut self, now: Instant) -> String {
        self.forget(now);
        if self.issued.len() == REMEMBERED {
            self.issued.pop_front();
        }
        let nonce = random_hex();
        self.issued.push_back((nonce.clone(), now));
        nonce
    }

    /// Whether the nonce was issued within its life. It stays good until then: a repeated command
    /// is idempotent.
    pub fn check(&mut self, nonce: &str, now: Instant) -> Freshness {
        if self.issued(nonce, now).is_some() { Freshness::Fresh } else { Freshness::Stale }
    }

    /// When a nonce was issued that is good now.
    pub fn issued(&mut self, nonce: &str, now: Instant) -> Option<Instant> {
        self.forget(now);
        self.issued.iter().find(|(known, _)| known == nonce).map(|(_, at)| *at)
    }

    fn forget(&mut self, now: Instant) {
        while self
            .issued
            .front()
            .is_some_and(|(_, at)| now.saturating_duration_since(*at) >= NONCE_LIFE)
        {
            self.issued.pop_front();
        }
    }
}

/// 128 random bits in hex.
#[must_use]
pub fn random_hex() -> String {
    let mut bytes = [0; 16];
    rand::rngs::OsRng.fill_bytes(&mut bytes);
    hex::encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_dies_of_age_and_strangers_are_unknown() {
        let mut nonces = Nonces::default();
        let start = Instant::now();
        let nonce = nonces.issue(start);
        assert_eq!(nonces.check(&nonce, start + Duration::from_millis(9999)), Freshness::Fresh);
        assert_eq!(nonces.check("other", start), Freshness::Stale);
        assert_eq!(nonces.check(&nonce, start + NONCE_LIFE), Freshness::Stale);
        assert_eq!(
            Nonces::default().check(&nonce, start),
            Freshness::Stale,
            "another start of the agent"
        );
    }
}
