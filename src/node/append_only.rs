//! Whether Redis comes back from its append-only file with what it has.
//!
//! After a full sync it does not for as long as it takes Redis to write that file anew: the one on the
//! volume is that of before, which Redis loads all the same, and what the master sent is in
//! `dump.rdb` alone. Such a Redis starts with that, and says no more than that it has that
//! (docs/decisions/0115).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::history::{self, Known};
use super::info::Info;
use super::rdb_header::{self, Header};
use super::redis_process::RedisInstance;
use super::state::Node;
use crate::error_chain::error_chain;
use crate::model::node::History;

/// Between two looks at `dump.rdb`.
const TURN: Duration = Duration::from_secs(1);

/// One `dump.rdb`: another one has another inode or another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dump {
    inode: u64,
    /// Of its last change.
    seconds: i64,
    nanoseconds: i64,
}

impl Dump {
    /// `None` when there is none.
    fn find(instance: &RedisInstance) -> io::Result<Option<Self>> {
        match fs::metadata(instance.dump()) {
            Ok(found) => Ok(Some(Self {
                inode: found.ino(),
                seconds: found.mtime(),
                nanoseconds: found.mtime_nsec(),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn changed(self) -> (i64, i64) {
        (self.seconds, self.nanoseconds)
    }
}

/// What is kept on the volume: while this was `dump.rdb`, the append-only file had all that Redis had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Covered {
    dump: Option<Dump>,
}

/// When Redis was asked last, if it said that its append-only file has everything.
#[derive(Debug, Default)]
pub struct LastLook(Mutex<Option<Instant>>);

impl LastLook {
    /// Notes what Redis said, or that it is gone. It says nothing of an append-only file that is not
    /// there yet, but writes one, or is about to.
    pub fn note(&self, info: Option<&Info>, asked: Instant) {
        let is_whole = |info: &Info| {
            let pending = ["aof_rewrite_in_progress", "aof_rewrite_scheduled", "loading"];
            let state = info.state();
            info.flag("aof_enabled")
                && !pending.iter().any(|name| info.flag(name))
                && !state.is_syncing()
                && !state.health.unwritten.rewrite
        };
        let whole = info.filter(|info| is_whole(info)).map(|_| asked);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = whole;
    }

    fn was_whole_after(&self, moment: Instant) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|asked| asked > moment)
    }
}

/// Keeps in mind, until `gone`, which `dump.rdb` was there when the append-only file had everything.
pub async fn watch(node: Arc<Node>, instance: RedisInstance, gone: CancellationToken) {
    let mut ticks = interval(TURN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What was there when, if it is not in mind yet.
    let mut found: Option<(Covered, Instant)> = None;
    let mut kept = None;
    loop {
        tokio::select! {
            () = gone.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Some((covered, at)) = found.take()
            && node.append_only.was_whole_after(at)
        {
            let files = node.files.clone();
            let write = spawn_blocking(move || files.keep_append_only(covered)).await;
            match write {
                Ok(Ok(())) => kept = Some(covered),
                Ok(Err(error)) => node.book.agent(&error_chain(&error)),
                Err(_) => {}
            }
        }
        let at = Instant::now();
        let own = instance.clone();
        if let Ok(Ok(dump)) = spawn_blocking(move || Dump::find(&own)).await
            && kept != Some(Covered { dump })
        {
            found = Some((Covered { dump }, at));
        }
    }
}

/// Before Redis starts: an append-only file from before a full sync is none, and what is known is
/// what is on the volume.
pub fn prepare(node: &Node, instance: &RedisInstance) {
    let Some(header) = snapshot_instead(node, instance) else { return };
    if let Err(error) = instance.forget_append_only_file() {
        let sentence =
            format!("the append-only file of before a full sync cannot be removed: {error}");
        return node.book.agent(&sentence);
    }
    node.book.agent(
        "redis ended before its append-only file was written anew after a full sync: it starts with the snapshot of that",
    );
    let known = node.known();
    node.knows(known.and_then(|known| of_the_snapshot(known, &header)));
    history::keep(node);
}

/// What `dump.rdb` says of itself, where it, and not the append-only file, is what came last.
///
/// A snapshot that this node took itself comes last, too, when nothing was written since; one of a
/// master names its own history, or none, and the append-only file has all that is in it.
fn snapshot_instead(node: &Node, instance: &RedisInstance) -> Option<Header> {
    // An agent that knew nothing of this has left nothing.
    let covered = node.files.append_only().ok().flatten()?;
    let dump = Dump::find(instance).ok().flatten()?;
    let is_older = covered.dump != Some(dump)
        && instance.has_append_only_file()
        && last_change(instance).is_ok_and(|changed| changed < dump.changed());
    if !is_older {
        return None;
    }
    let header = fs::File::open(instance.dump()).and_then(|mut file| rdb_header::read(&mut file));
    let header = header.unwrap_or_default();
    let names = |known: Known| known.history.replid == header.replid;
    let own = node.peek().promoted && node.known().is_some_and(names);
    (!own && !header.replid.is_empty()).then_some(header)
}

/// When Redis wrote data to its append-only file last: to the manifest it writes when it stops, too.
/// What it writes anew is none of it until it is whole.
fn last_change(instance: &RedisInstance) -> io::Result<(i64, i64)> {
    let mut last = (0, 0);
    for entry in fs::read_dir(instance.append_only_dir())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("temp-") && !name.ends_with(".manifest") {
            let found = entry.metadata()?;
            last = last.max((found.mtime(), found.mtime_nsec()));
        }
    }
    Ok(last)
}

/// Where the data stand of which this was known; `None` when the snapshot does not say it.
fn of_the_snapshot(known: Known, header: &Header) -> Option<Known> {
    let offset = header.offset?;
    let mut history = known.history;
    if history.replid != header.replid {
        // It was promoted since, and what it wrote in that epoch is gone.
        history.epoch = history.epoch.saturating_sub(1);
        history.gap_ms = History::UNKNOWN_GAP;
    }
    (history.replid, history.offset) = (header.replid.clone(), offset);
    Some(Known { history, seen: offset, asked: known.asked, open: false })
}
