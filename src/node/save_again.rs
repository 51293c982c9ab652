//! What Redis could not write to its volume is written once more: a snapshot, or the append-only file
//! anew, whose process was killed says nothing of the volume (docs/decisions/0102).
//!
//! Redis by itself tries again once a save point is due, which may be in an hour, and takes no writes
//! until then where it has save points (`MISCONF`).

use std::time::{Duration, Instant};

use super::info::Info;
use super::redis_control::Session;
use super::state::Node;
use crate::model::node::{RedisState, Space};
use crate::model::time::Backoff;

/// Between the end of an attempt and the next one.
const PAUSES: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_mins(5) };

/// Attempts of one redis process.
#[derive(Debug, Default)]
pub struct SaveAgain {
    attempts: u32,
    next: Option<Instant>,
}

impl SaveAgain {
    /// Begins the next attempt when its time has come. Not on a volume without room, whose rest is
    /// the append-only file's.
    pub async fn look(&mut self, node: &Node, info: &Info, redis: &RedisState, ask: &mut Session) {
        let unwritten = redis.health.unwritten;
        if !unwritten.snapshot && !unwritten.rewrite {
            *self = Self::default();
            return;
        }
        let works = info.flag("rdb_bgsave_in_progress")
            || info.flag("aof_rewrite_in_progress")
            || redis.loading
            || redis.is_syncing();
        if works || node.peek().volume.is_some_and(Space::is_short) {
            self.next = None;
            return;
        }
        let pause = PAUSES.delay(self.attempts);
        if Instant::now() < *self.next.get_or_insert_with(|| Instant::now() + pause) {
            return;
        }
        self.next = None;
        self.attempts = self.attempts.saturating_add(1);
        let (what, command) = if unwritten.snapshot {
            ("its snapshot", "BGSAVE")
        } else {
            ("its append-only file anew", "BGREWRITEAOF")
        };
        let began = ask.run(&redis::cmd(command)).await;
        node.book.agent(&match began {
            Ok(()) => format!("redis could not write {what}: it tries again"),
            Err(error) => format!("redis could not write {what}, nor begin to try again: {error}"),
        });
    }
}
