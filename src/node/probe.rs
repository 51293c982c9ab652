//! What one look at Redis cannot tell: how long its master has been silent, and whether this
//! process was ever online with it.

use std::time::{Duration, Instant};

use super::info::Info;
use crate::model::node::RedisState;

/// Whom this node was told to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Following {
    /// Mesh name of the master.
    pub name: String,
    /// What Redis was told to dial: the name, or a loopback address where names cannot be used.
    pub host: String,
    /// Epoch of the command.
    pub epoch: u64,
}

/// Silence up to here is the normal rhythm: a ping each second, seen at the next look.
const RHYTHM: Duration = Duration::from_millis(1500);
/// A pause between two looks counts at most this much: while this machine was frozen it could hear
/// nobody.
const LONGEST_STEP: Duration = Duration::from_secs(1);

/// Follows one redis process over several looks. A new process needs a new tracker.
#[derive(Debug, Default)]
pub struct Tracker {
    following: Option<Following>,
    last_look: Option<Instant>,
    last_read: i64,
    last_sync_read: i64,
    silent: Duration,
    online_epoch: u64,
}

impl Tracker {
    /// Completes the state of one look.
    pub fn look(&mut self, info: &Info, following: Option<&Following>, now: Instant) -> RedisState {
        if following.is_some() && following != self.following.as_ref() {
            self.silent = Duration::ZERO;
            self.online_epoch = 0;
        }
        self.following = following.cloned();
        let step = self
            .last_look
            .map_or(Duration::ZERO, |last| now.saturating_duration_since(last))
            .min(LONGEST_STEP);
        self.last_look = Some(now);

        let mut state = info.state();
        let read = info.number("slave_read_repl_offset");
        let sync_read = info.number("master_sync_read_bytes");
        if let Some(master) = following.filter(|f| info.master() == Some(f.host.as_str())) {
            let heard = (info.link_up() && read != self.last_read)
                || (state.sync_in_progress && sync_read != self.last_sync_read);
            self.silent = if heard { Duration::ZERO } else { self.silent + step };
            if state.sync_in_progress {
                // Its data is about to be replaced: it vouches for nothing until the link is up
                // again.
                self.online_epoch = 0;
            } else if info.link_up() {
                self.online_epoch = master.epoch;
            }
            state.master_host.clone_from(&master.name);
            let quiet = info.link_up() && self.silent < RHYTHM;
            state.silent_ms =
                if quiet { 0 } else { u64::try_from(self.silent.as_millis()).unwrap_or(u64::MAX) };
        }
        (self.last_read, self.last_sync_read) = (read, sync_read);
        state.online_epoch = self.online_epoch;
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn replica(read: i64, up: bool, sync: bool) -> Info {
        let link = if up { "up" } else { "down" };
        let text = format!(
            "role:slave\r\nmaster_host:m\r\nmaster_port:6379\r\nmaster_link_status:{link}\r\nslave_read_repl_offset:{read}\r\nmaster_sync_in_progress:{}\r\n",
            u8::from(sync)
        );
        Info::parse(&text, &HashMap::new())
    }

    fn following(epoch: u64) -> Following {
        Following { name: "m.mesh".into(), host: "m".into(), epoch }
    }

    #[test]
    fn silence_is_counted_from_the_last_byte_heard() {
        let (mut tracker, start, follow) = (Tracker::default(), Instant::now(), following(3));
        let ms = |n: u64| start + Duration::from_millis(n);
        let state = tracker.look(&replica(10, true, false), Some(&follow), ms(0));
        assert_eq!(
            (state.silent_ms, state.online_epoch, state.master_host.as_str()),
            (0, 3, "m.mesh")
        );
        for n in 1..8 {
            tracker.look(&replica(10, true, false), Some(&follow), ms(n * 250));
        }
        assert_eq!(
            tracker.look(&replica(10, true, false), Some(&follow), ms(2000)).silent_ms,
            2000
        );
        let down = tracker.look(&replica(10, false, false), Some(&follow), ms(2250));
        assert_eq!(
            (down.silent_ms, down.online_epoch),
            (2250, 3),
            "it was online until it was lost"
        );
        assert_eq!(tracker.look(&replica(24, true, false), Some(&follow), ms(2500)).silent_ms, 0);
    }

    #[test]
    fn a_frozen_machine_does_not_claim_silence() {
        let (mut tracker, start, follow) = (Tracker::default(), Instant::now(), following(3));
        tracker.look(&replica(10, true, false), Some(&follow), start);
        assert!(
            tracker
                .look(&replica(10, true, false), Some(&follow), start + Duration::from_secs(30))
                .silent_ms
                <= 1000
        );
    }

    #[test]
    fn a_full_sync_and_a_new_epoch_take_the_word_back() {
        let (mut tracker, now) = (Tracker::default(), Instant::now());
        assert_eq!(
            tracker.look(&replica(10, true, false), Some(&following(3)), now).online_epoch,
            3
        );
        assert_eq!(
            tracker.look(&replica(0, false, true), Some(&following(3)), now).online_epoch,
            0
        );
        assert_eq!(
            tracker.look(&replica(0, false, false), Some(&following(3)), now).online_epoch,
            0
        );
        assert_eq!(
            tracker.look(&replica(9, true, false), Some(&following(3)), now).online_epoch,
            3
        );
        assert_eq!(
            tracker.look(&replica(9, false, false), Some(&following(4)), now).online_epoch,
            0
        );
        let elsewhere = Following { host: "n".into(), ..following(5) };
        assert_eq!(
            tracker.look(&replica(9, true, false), Some(&elsewhere), now).online_epoch,
            0,
            "the link is still the old master's"
        );
    }

    #[test]
    fn a_detached_replica_keeps_its_word() {
        let (mut tracker, now) = (Tracker::default(), Instant::now());
        tracker.look(&replica(10, true, false), Some(&following(3)), now);
        assert_eq!(tracker.look(&replica(10, false, false), None, now).online_epoch, 3);
    }
}
