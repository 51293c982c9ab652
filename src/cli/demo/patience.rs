//! How long a wait of the local market goes on: as long as something moves. A machine that is busy with
//! other things needs many times as long as an idle one for the same steps, so the time of a step alone
//! tells nothing.

use std::time::{Duration, Instant};

use crate::api::types::RedisCluster;

/// What is waited for stands still for so long: it does not come any more.
pub const STILL: Duration = Duration::from_mins(1);
/// What moves on and on without an end is broken too.
pub const LONGEST: Duration = Duration::from_mins(10);

/// A wait that has begun.
#[derive(Debug)]
pub struct Patience<T> {
    begun: Instant,
    moved: Instant,
    seen: Option<T>,
}

impl<T: PartialEq> Patience<T> {
    /// Begins to wait.
    #[must_use]
    pub fn begin(now: Instant) -> Self {
        Self { begun: now, moved: now, seen: None }
    }

    /// Takes a look at what is waited for; whether the wait goes on. It ends when what is seen has been
    /// the same for [`STILL`], or [`LONGEST`] after its begin.
    #[must_use]
    pub fn goes_on(&mut self, seen: T, now: Instant) -> bool {
        if self.seen.as_ref() != Some(&seen) {
            self.seen = Some(seen);
            self.moved = now;
        }
        now.duration_since(self.moved) < STILL && now.duration_since(self.begun) < LONGEST
    }

    /// How long it has been so far.
    #[must_use]
    pub fn waited(&self, now: Instant) -> Duration {
        now.duration_since(self.begun)
    }
}

/// What of a cluster shows that something is done for it. Costs, lags and offsets are not in it: they
/// move while nothing happens.
#[must_use]
pub fn steps(cluster: &RedisCluster) -> Vec<String> {
    let Some(status) = &cluster.status else { return Vec::new() };
    let nodes = status.nodes.iter().map(|node| format!("{} {}", node.incarnation, node.phase));
    let waits = status.waiting.iter().map(|waiting| waiting.what.clone());
    let conditions =
        status.conditions.iter().map(|c| format!("{} {} {}", c.kind, c.status, c.reason));
    let counts = format!("{} {}", status.observed_generation, status.epoch);
    nodes.chain(waits).chain(conditions).chain([counts]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_goes_on_while_something_moves_and_ends_when_nothing_does() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut patience = Patience::begin(begun);
        for (seconds, seen) in
            [(0, "bidding"), (50, "bidding"), (55, "starting"), (114, "starting")]
        {
            assert!(patience.goes_on(seen, at(seconds)), "at {seconds} s");
        }
        assert!(!patience.goes_on("starting", at(115)), "nothing moved for a minute");
        assert_eq!(patience.waited(at(115)), Duration::from_secs(115));
    }

    #[test]
    fn a_wait_that_only_moves_ends_as_well() {
        let begun = Instant::now();
        let mut patience = Patience::begin(begun);
        let looks = (0..).take_while(|n| patience.goes_on(*n, begun + Duration::from_secs(30 * n)));
        assert_eq!(looks.count(), 20, "ten minutes of them");
    }
}
