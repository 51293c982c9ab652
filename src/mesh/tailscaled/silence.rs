//! How long tailscaled has not answered, by what this program itself saw: a machine that was frozen
//! was frozen with both.

use std::time::{Duration, Instant};

/// A look and the longest call. More than that cannot pass between two looks, unless this program
/// was frozen too.
const LONGEST_STEP: Duration = Duration::from_secs(4);

/// When a tailscaled that does not answer is killed.
#[derive(Clone, Copy, Debug)]
pub struct SilenceLimits {
    /// One that answered before.
    pub answered: Duration,
    /// One that never answered yet: killed while it starts on a slow machine, it would never be up.
    pub starting: Duration,
}

/// Counts how long one process has been silent.
pub(super) struct Silence {
    limits: SilenceLimits,
    last_look: Instant,
    silent: Duration,
    has_answered: bool,
}

impl Silence {
    pub(super) fn new(limits: SilenceLimits, now: Instant) -> Self {
        Self { limits, last_look: now, silent: Duration::ZERO, has_answered: false }
    }

    /// Counts one look; how long it has been silent now.
    pub(super) fn look(&mut self, answered: bool, now: Instant) -> Duration {
        let step = now.saturating_duration_since(self.last_look).min(LONGEST_STEP);
        self.last_look = now;
        if answered {
            (self.silent, self.has_answered) = (Duration::ZERO, true);
        } else {
            self.silent += step;
        }
        self.silent
    }

    pub(super) fn has_answered(&self) -> bool {
        self.has_answered
    }

    pub(super) fn is_too_long(&self) -> bool {
        let SilenceLimits { answered, starting } = self.limits;
        self.silent >= if self.has_answered { answered } else { starting }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_one_is_given_up_and_a_slow_start_or_a_frozen_machine_is_not() {
        let limits =
            SilenceLimits { answered: Duration::from_secs(10), starting: Duration::from_mins(1) };
        let start = Instant::now();
        let look = |silence: &mut Silence, answered: bool, seconds: u64| {
            silence.look(answered, start + Duration::from_secs(seconds));
            silence.is_too_long()
        };
        let mut silence = Silence::new(limits, start);
        for second in 1..60 {
            assert!(!look(&mut silence, false, second), "it starts slowly: {second} s");
        }
        assert!(look(&mut silence, false, 60), "it never answered");
        let mut silence = Silence::new(limits, start);
        assert!(!look(&mut silence, true, 1));
        assert!(!look(&mut silence, false, 3600), "frozen for an hour");
        assert!(!look(&mut silence, false, 3603));
        assert!(look(&mut silence, false, 3606));
        assert!(!look(&mut silence, true, 3607), "it answers again");
    }
}
