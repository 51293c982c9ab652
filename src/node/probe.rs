//! What one look at Redis cannot tell: how long its master has been silent, and whether this
//! process was ever online with it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::info::Info;
use crate::model::node::{RedisState, Role};

/// Whom this node was told to follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// Time between two notes of what a master had written.
const SAMPLE: Duration = Duration::from_millis(500);
/// Notes that are kept: of ten minutes.
const SAMPLES: usize = 1200;
/// A link that is up for so long is up.
const LASTING: Duration = Duration::from_secs(10);

/// Follows one redis process over several looks. A new process needs a new tracker.
#[derive(Debug, Default)]
pub struct Tracker {
    following: Option<Following>,
    last_look: Option<Instant>,
    last_read: i64,
    last_sync_read: i64,
    silent: Duration,
    online_epoch: u64,
    written: Written,
    syncs: Syncs,
}

/// When a master had written how much.
#[derive(Debug, Default)]
struct Written(VecDeque<(Instant, i64)>);

impl Written {
    fn note(&mut self, now: Instant, offset: i64) {
        if self.0.back().is_some_and(|(_, last)| offset < *last) {
            self.0.clear();
        }
        let due = |at: &Instant| now.saturating_duration_since(*at) >= SAMPLE;
        if self.0.back().is_none_or(|(at, last)| due(at) && offset > *last) {
            self.0.push_back((now, offset));
        }
        if self.0.len() > SAMPLES {
            self.0.pop_front();
        }
    }

    /// How long ago something was written that comes after `offset`.
    fn age(&self, now: Instant, offset: i64) -> Duration {
        let first = self.0.iter().find(|(_, written)| *written > offset);
        first.map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at))
    }
}

/// Full syncs that did not last.
#[derive(Debug, Default)]
struct Syncs {
    running: bool,
    begun: u32,
    up_since: Option<Instant>,
}

impl Syncs {
    fn look(&mut self, state: &RedisState, again: bool, now: Instant) -> u32 {
        if state.is_syncing() && (!self.running || again) {
            self.begun = self.begun.saturating_add(1);
        }
        self.running = state.is_syncing();
        self.up_since = state.is_linked().then(|| self.up_since.unwrap_or(now));
        if self.up_since.is_some_and(|since| now.saturating_duration_since(since) >= LASTING) {
            self.begun = 0;
        }
        self.begun
    }
}

impl Tracker {
    /// Completes the state of one look.
    pub fn look(&mut self, info: &Info, following: Option<&Following>, now: Instant) -> RedisState {
        if following.is_some() && following != self.following.as_ref() {
            self.silent = Duration::ZERO;
            // Under one epoch another master only passes on the same data.
            if following.map(|f| f.epoch) != self.following.as_ref().map(|f| f.epoch) {
                self.online_epoch = 0;
            }
            self.syncs = Syncs::default();
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
                || (state.is_syncing() && sync_read != self.last_sync_read);
            self.silent = if heard { Duration::ZERO } else { self.silent + step };
            if state.is_syncing() {
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
        if state.role == Role::Master {
            self.written.note(now, state.offset);
            for replica in &mut state.replicas {
                let age = self.written.age(now, replica.offset);
                replica.behind_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            }
        } else {
            self.written = Written::default();
        }
        let again = sync_read < self.last_sync_read;
        state.health.syncs_in_a_row = self.syncs.look(&state, again, now);
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
    fn a_replica_is_as_far_behind_as_the_oldest_write_that_it_lacks() {
        let (mut tracker, start) = (Tracker::default(), Instant::now());
        let behind = |tracker: &mut Tracker, seconds: u64, written: i64, acknowledged: i64| {
            let text = format!(
                "role:master\r\nmaster_repl_offset:{written}\r\nconnected_slaves:1\r\nslave0:ip=b,port=1,state=online,offset={acknowledged},lag=0\r\n"
            );
            let info = Info::parse(&text, &HashMap::new());
            tracker.look(&info, None, start + Duration::from_secs(seconds)).replicas[0].behind_ms
        };
        assert_eq!(behind(&mut tracker, 0, 100, 100), 0);
        assert_eq!(behind(&mut tracker, 60, 100, 100), 0, "nothing was written meanwhile");
        assert_eq!(behind(&mut tracker, 61, 200, 100), 0);
        assert_eq!(behind(&mut tracker, 63, 300, 100), 2000);
        assert_eq!(behind(&mut tracker, 69, 400, 200), 6000, "it got further, and is behind");
        assert_eq!(behind(&mut tracker, 70, 400, 400), 0);
    }

    #[test]
    fn full_syncs_that_do_not_last_are_counted() {
        let (mut tracker, start, follow) = (Tracker::default(), Instant::now(), following(3));
        let mut syncs = |seconds: u64, up: bool, sync: bool| {
            let now = start + Duration::from_secs(seconds);
            tracker.look(&replica(9, up, sync), Some(&follow), now).health.syncs_in_a_row
        };
        assert_eq!(
            (syncs(0, false, false), syncs(1, false, true), syncs(2, false, true)),
            (0, 1, 1)
        );
        assert_eq!((syncs(3, false, false), syncs(4, false, true)), (1, 2), "dropped half-way");
        assert_eq!((syncs(5, true, false), syncs(9, false, true)), (2, 3), "dropped at once");
        assert_eq!((syncs(10, true, false), syncs(20, true, false)), (3, 0), "it lasts");
    }

    #[test]
    fn a_detached_replica_keeps_its_word() {
        let (mut tracker, now) = (Tracker::default(), Instant::now());
        tracker.look(&replica(10, true, false), Some(&following(3)), now);
        assert_eq!(tracker.look(&replica(10, false, false), None, now).online_epoch, 3);
    }
}
