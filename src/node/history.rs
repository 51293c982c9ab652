//! Where the data stands: known at each look at Redis, and on the volume before a promotion is
//! confirmed, at a demotion, at a stop, and each second in between.
//!
//! What a master wrote after the last look at it is known to nobody once it has died. So what is
//! known is *open* as long as writes may follow it, and a history that was open when its process
//! died says for how long nobody had looked.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::redis_process::RedisInstance;
use super::state::Node;
use super::state_file::StateFileError;
use crate::error_chain::error_chain;
use crate::model::node::{History, Process, RedisState, Role};
use crate::model::time::UnixMs;

/// What is known of where the data stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Where: for a master, behind its last write.
    pub history: History,
    /// The offset that Redis named, which grows by its pings to its replicas as well.
    pub seen: i64,
    /// When Redis was asked: an answer to an older question changes nothing.
    pub asked: Instant,
    /// It is that of a master that was not fenced: writes may have followed.
    pub open: bool,
}

/// What is kept on the volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// Where the data stood.
    #[serde(flatten)]
    pub history: History,
    /// When this was written, by the wall clock, if writes may have followed.
    #[serde(default)]
    pub open_since: Option<UnixMs>,
}

impl Kept {
    /// What it says at a start of the agent: Redis ended with the agent before, so nothing was
    /// written after now.
    ///
    /// The bound is as good as the wall clock; one that was set back in between is noticed and
    /// makes it unknown.
    #[must_use]
    pub fn found(self, now: UnixMs) -> History {
        let gap_ms = match self.open_since {
            None => self.history.gap_ms,
            Some(written) if now >= written => (now.0 - written.0).max(1),
            Some(_) => History::UNKNOWN_GAP,
        };
        History { gap_ms, ..self.history }
    }

    /// What it says at a start of the agent when Redis went on meanwhile.
    #[must_use]
    pub fn goes_on(self, now: Instant) -> Known {
        let open = self.open_since.is_some();
        Known { seen: self.history.offset, history: self.history, asked: now, open }
    }
}

/// What is known after a look at Redis; `promoted` is the epoch this node is master of.
///
/// A process that neither was promoted nor was online with a master says nothing new: its
/// replication id is made up. The exception: one that loaded a snapshot of the known history stands
/// where that snapshot was taken.
#[must_use]
pub fn advance(
    known: Option<&Known>,
    redis: &RedisState,
    promoted: Option<u64>,
    asked: Instant,
) -> Option<Known> {
    let unchanged = known.cloned();
    let silent = redis.process != Process::Running
        || redis.loading
        || redis.is_syncing()
        || redis.replid.is_empty();
    if silent || known.is_some_and(|k| asked < k.asked) {
        return unchanged;
    }
    let at = |offset, epoch, gap_ms, open| {
        let history = History { replid: redis.replid.clone(), offset, epoch, gap_ms };
        Some(Known { history, seen: redis.offset, asked, open })
    };
    let here = |epoch, gap_ms, open| at(redis.offset, epoch, gap_ms, open);
    match (redis.role, known) {
        // Only the hand that fences closes a history: a look may see a fence that is being taken
        // off.
        (Role::Master, _) => {
            let epoch = promoted.or_else(|| known.map(|k| k.history.epoch)).unwrap_or(0);
            at(
                written(known, &redis.replid, redis.offset),
                epoch,
                0,
                !redis.fenced || known.is_some_and(|k| k.open),
            )
        }
        (Role::Replica, _) if redis.online_epoch > 0 => here(redis.online_epoch, 0, false),
        (Role::Replica, Some(k))
            if k.history.replid == redis.replid
                && redis.offset > 0
                && redis.offset < k.history.offset =>
        {
            // A master's writes since the snapshot are gone here; what a replica lacks, its master
            // has.
            let wrote = promoted.is_some() || k.open || k.history.gap_ms > 0;
            here(k.history.epoch, if wrote { History::UNKNOWN_GAP } else { 0 }, false)
        }
        _ => unchanged,
    }
}

/// Bytes of a master's ping in its history: `*1`, `$4`, `PING`, each with its line end. No write is
/// as short.
const PING: i64 = 14;

/// Where a master's last write ended, now that it stands at `offset`: a ping to its replicas is
/// nothing that can be lost.
#[must_use]
pub fn written(known: Option<&Known>, replid: &str, offset: i64) -> i64 {
    let only_pinged =
        |k: &&Known| k.history.replid == replid && [0, PING].contains(&(offset - k.seen));
    known.filter(only_pinged).map_or(offset, |k| k.history.offset)
}

/// What is known once the process is gone. `look` is the longest time between two looks at a Redis
/// that is well; `logged` says that its writes are in an append-only file, and not only those up to
/// some snapshot.
#[must_use]
pub fn ended(known: Known, died: Instant, look: Duration, logged: bool) -> Known {
    let Known { history, seen, asked, open } = known;
    let unseen = u64::try_from(died.saturating_duration_since(asked).max(look).as_millis())
        .unwrap_or(History::UNKNOWN_GAP);
    let gap_ms = match (open, logged) {
        (false, _) => history.gap_ms,
        (true, true) => unseen,
        (true, false) => History::UNKNOWN_GAP,
    };
    Known { history: History { gap_ms, ..history }, seen, asked, open: false }
}

/// Writes down where the data stands, if that changed; it is on disk when this returns. Without a
/// volume nothing outlives the process.
pub fn write(node: &Node) -> Result<(), StateFileError> {
    if !node.identity.persistent {
        return Ok(());
    }
    // One writer at a time, and the last one writes what is known last.
    let mut written = node.written();
    let now = node.known().map(|k| (k.history, k.open));
    if *written == now {
        return Ok(());
    }
    let kept =
        now.clone().map(|(history, open)| Kept { history, open_since: open.then(UnixMs::now) });
    node.files.keep_history(kept.as_ref())?;
    *written = now;
    Ok(())
}

/// The same for whom a failure does not stop: it is said in the state, and tried again at the next
/// turn.
pub fn keep(node: &Node) {
    let failed = write(node).err();
    node.set_note("history", failed.map(|error| error_chain(&error)));
}

/// Writes down where the data stands, once a second until `stop`.
pub async fn keep_written(node: std::sync::Arc<Node>, stop: CancellationToken) {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let node = node.clone();
        // The volume may be slow; the probe must not wait for it.
        let _ = tokio::task::spawn_blocking(move || keep(&node)).await;
    }
}

/// A volume without data proves nothing, whatever was written down.
pub fn forget_without_data(node: &Node, instance: &RedisInstance) {
    if instance.has_append_only_file() || instance.dump().exists() || node.known().is_none() {
        return;
    }
    node.knows(None);
    keep(node);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::node::Link;

    fn known(offset: i64, gap_ms: u64, open: bool) -> Known {
        Known {
            history: History { replid: "aa".into(), offset, epoch: 4, gap_ms },
            seen: offset,
            asked: Instant::now(),
            open,
        }
    }

    fn replica(replid: &str, offset: i64) -> RedisState {
        RedisState {
            process: Process::Running,
            role: Role::Replica,
            replid: replid.into(),
            offset,
            fenced: true,
            ..RedisState::default()
        }
    }

    fn master(offset: i64, fenced: bool) -> RedisState {
        RedisState { role: Role::Master, fenced, ..replica("aa", offset) }
    }

    fn now(known: &Known, redis: &RedisState, promoted: Option<u64>) -> Known {
        advance(Some(known), redis, promoted, Instant::now()).unwrap()
    }

    #[test]
    fn a_restarted_process_does_not_overwrite_history() {
        let before = known(100, 0, false);
        assert_eq!(now(&before, &replica("zz", 0), None), before);
        let online = RedisState { online_epoch: 5, ..replica("zz", 9) };
        assert_eq!(
            now(&before, &online, None).history,
            History { replid: "zz".into(), offset: 9, epoch: 5, gap_ms: 0 }
        );
        assert_eq!(
            now(&before, &master(120, true), Some(6)).history,
            History { offset: 120, epoch: 6, ..before.history }
        );
    }

    #[test]
    fn pings_to_replicas_are_no_writes() {
        let mut known = known(100, 0, true);
        for (offset, written) in
            [(114, 100), (128, 100), (128, 100), (155, 155), (169, 155), (197, 197)]
        {
            known = now(&known, &master(offset, false), Some(4));
            assert_eq!(known.history.offset, written, "at {offset}");
        }
    }

    #[test]
    fn an_old_snapshot_is_where_it_was_taken_and_a_masters_writes_since_then_are_no_secret() {
        let of_a_replica = now(&known(100, 0, false), &replica("aa", 60), None);
        assert_eq!((of_a_replica.history.offset, of_a_replica.history.gap_ms), (60, 0));
        assert_eq!(
            now(&known(100, 0, false), &replica("aa", 60), Some(4)).history.gap_ms,
            History::UNKNOWN_GAP
        );
        assert_eq!(
            now(&known(100, 250, false), &replica("aa", 60), None).history.gap_ms,
            History::UNKNOWN_GAP
        );
    }

    #[test]
    fn a_replica_that_lost_its_place_claims_the_least() {
        // A full sync has begun, and perhaps emptied it, and did not end: Redis says offset 1 under
        // the old id.
        let halfway = RedisState { link: Link::Syncing, ..replica("aa", 1) };
        assert_eq!(
            now(&known(100, 0, false), &halfway, None).history.offset,
            100,
            "what it had is there until the new data are"
        );
        assert_eq!(now(&known(100, 0, false), &replica("aa", 1), None).history.offset, 1);
    }

    #[test]
    fn what_was_read_at_a_fence_stays_whatever_an_overtaken_look_saw() {
        let asked = Instant::now();
        let fenced = Known { asked: asked + Duration::from_millis(5), ..known(100, 0, false) };
        assert_eq!(
            advance(Some(&fenced), &master(90, false), Some(4), asked),
            Some(fenced.clone())
        );
        assert!(
            !now(&known(100, 0, false), &master(100, true), Some(4)).open,
            "a later look at a fenced master leaves it closed"
        );
        assert!(
            now(&known(100, 0, true), &master(100, true), Some(4)).open,
            "a look at a fence that is being taken off does not close it"
        );
    }

    #[test]
    fn only_a_master_that_nobody_fenced_leaves_a_gap() {
        let look = Duration::from_millis(250);
        let open = known(100, 0, true);
        let after = |ms| open.asked + Duration::from_millis(ms);
        assert_eq!(
            ended(open.clone(), after(2300), look, true).history.gap_ms,
            2300,
            "nobody looked for so long"
        );
        assert_eq!(
            ended(open.clone(), after(3), look, true).history.gap_ms,
            250,
            "a look is never newer than that for certain"
        );
        assert_eq!(
            ended(open.clone(), after(3), look, false).history.gap_ms,
            History::UNKNOWN_GAP,
            "all since the last snapshot is gone"
        );
        assert_eq!(ended(known(100, 0, false), after(2300), look, true).history.gap_ms, 0);
        let twice = ended(ended(open.clone(), after(2300), look, true), after(9000), look, true);
        assert_eq!(twice.history.gap_ms, 2300, "a start that found nothing new changes nothing");
    }

    #[test]
    fn a_file_that_was_open_says_since_when_at_most() {
        let kept = |open_since: Option<u64>| Kept {
            history: known(100, 0, true).history,
            open_since: open_since.map(UnixMs),
        };
        assert_eq!(kept(None).found(UnixMs(5000)).gap_ms, 0);
        assert_eq!(kept(Some(1000)).found(UnixMs(5000)).gap_ms, 4000);
        assert_eq!(kept(Some(5000)).found(UnixMs(5000)).gap_ms, 1);
        assert_eq!(
            kept(Some(6000)).found(UnixMs(5000)).gap_ms,
            History::UNKNOWN_GAP,
            "the clock was set back"
        );
    }
}
