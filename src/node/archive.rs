//! Archives the log of writes: attached to this node's own Redis as a replica is, it gets the stream
//! of replication, cuts it into segments of a few seconds, and stores each, compressed and encrypted.
//!
//! It acknowledges nothing, so that no `WAIT` counts it, and it leaves a master whose writes need
//! replicas, so that it is never taken for one. While the storage does not take what there is, it
//! holds a bounded part of it, and lets go of Redis, whose backlog holds the next part; what follows
//! after that is a gap, which is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::convert::ArchiveObject;
use super::info::Info;
use super::psync::{Attached, request};
use super::redis_control::ANSWER;
use super::state::Node;
use crate::backup::archive::log_object;
use crate::backup::segment::{Mark, Opened, sealed};
use crate::backup::storage::Storage;
use crate::error_chain::error_chain;
use crate::model::archive::{ArchiveTask, Segment};
use crate::model::backup::TaskPhase;
use crate::model::node::Role;
use crate::model::time::UnixMs;

/// What Redis calls it among its replicas.
pub const NAME: &str = "archive";
/// A segment is cut so long after its first write: with the time that a storage takes, no write is
/// older than 5 s before it is stored.
const CUT_AFTER: Duration = Duration::from_secs(2);
/// One without a write, so that the time up to which there is none is known.
const CUT_IDLE_AFTER: Duration = Duration::from_mins(1);
/// And when it has so many bytes.
const CUT_BYTES: usize = 4 * 1024 * 1024;
/// Bytes that are read at a time.
const BLOCK: usize = 64 * 1024;
/// Segments that wait for the storage, KiB.
const ROOM: usize = 24 * 1024;
/// Times are noted so far apart at least, milliseconds.
const MARKS: u64 = 100;
/// Between two signs of life to Redis.
const BEAT: Duration = Duration::from_millis(500);
/// Between two looks at a Redis to which it is not attached.
const LOOK: Duration = Duration::from_millis(250);
/// A write may be so old before it is stored; then the log counts as behind.
const BEHIND: Duration = Duration::from_secs(5);
/// A storage is asked again by itself for so long before its words are told.
const PATIENCE: Duration = Duration::from_secs(20);
/// What is left at the end of a run is stored within this, or not by it.
const LAST: Duration = Duration::from_secs(10);
/// Between two attempts after that.
const AGAIN: Duration = Duration::from_secs(2);
/// What a master sends each second.
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// Begins a run in place of the one before; without an object there is none any more. The same run
/// again changes nothing while it runs.
pub fn start(node: &Arc<Node>, object: Option<ArchiveObject>) {
    let mut archiving = node.archiving.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(object) = object else {
        *archiving = None;
        return node.update(|state| state.archive = Some(ArchiveTask::default()));
    };
    let task = node.peek().archive.unwrap_or_default();
    if task.run == object.run && task.phase == TaskPhase::Running {
        return;
    }
    let run = object.run.clone();
    node.update(|state| {
        let phase = TaskPhase::Running;
        state.archive = Some(ArchiveTask { run, phase, ..ArchiveTask::default() });
    });
    let node = node.clone();
    // The one before ends first: what it had not stored is read again.
    *archiving = None;
    *archiving = Some(AbortOnDropHandle::new(tokio::spawn(async move {
        let id = object.run.clone();
        let Ended { gap, why } = run_until_it_ends(&node, object).await;
        node.book.agent(&format!("the log of writes is archived no more in run {id}: {why}"));
        change(&node, &id, |task| {
            (task.phase, task.gap, task.error) = (TaskPhase::Failed, gap, why);
        });
    })));
}

/// Lets go of Redis, which is about to be ended.
pub fn end(node: &Node) {
    *node.archiving.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

fn change(node: &Node, run: &str, edit: impl FnOnce(&mut ArchiveTask)) {
    node.update(|state| {
        if let Some(task) = state.archive.as_mut().filter(|task| task.run == run) {
            edit(task);
        }
    });
}

/// Why a run is over.
struct Ended {
    /// This Redis does not have what follows.
    gap: bool,
    why: String,
}

impl Ended {
    fn failed(why: impl Into<String>) -> Self {
        Self { gap: false, why: why.into() }
    }
}

async fn run_until_it_ends(node: &Arc<Node>, object: ArchiveObject) -> Ended {
    let storage = Storage::open_with(&object.storage, object.keys.as_ref(), PATIENCE);
    let storage = match storage {
        Ok(storage) => storage,
        Err(error) => return Ended::failed(error_chain(&error)),
    };
    let last = match storage.last_segment(&object.log, &object.uid, UnixMs::now()).await {
        Ok(last) => last,
        Err(error) => return Ended::failed(error_chain(&error)),
    };
    let (to, from) = mpsc::unbounded_channel();
    let progress = Arc::new(Progress {
        node: node.clone(),
        run: object.run.clone(),
        pending: Mutex::default(),
    });
    let mut archiver = Archiver {
        node: node.clone(),
        place: last.map(|last| (last.replid, last.end)),
        last: UnixMs::default(),
        history: None,
        open: None,
        held: None,
        begun: false,
        room: Arc::new(Semaphore::new(ROOM)),
        progress: progress.clone(),
        object,
        to,
    };
    tokio::select! {
        ended = archiver.read() => ended,
        () = store(&storage, from, &progress) => Ended::failed("internal error: nothing is stored any more"),
    }
}

/// A segment on its way to the storage.
struct Waiting {
    segment: Segment,
    object: String,
    content: Bytes,
    /// Its first write.
    writes: Option<UnixMs>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Waiting {
    fn kib(&self) -> u32 {
        u32::try_from(self.content.len().div_ceil(1024).min(ROOM)).unwrap_or(u32::MAX)
    }
}

/// Stores one after the other, each until it is stored.
async fn store(storage: &Storage, mut from: mpsc::UnboundedReceiver<Waiting>, progress: &Progress) {
    while let Some(waiting) = from.recv().await {
        while let Err(error) = storage.put(&waiting.object, waiting.content.clone()).await {
            progress.note(|pending| pending.error = error_chain(&error));
            sleep(AGAIN).await;
        }
        progress.note(|pending| {
            pending.error.clear();
            pending.queue.pop_front();
            pending.stored = waiting.segment.end;
        });
    }
}

/// What is not stored yet, and what is told of it.
struct Progress {
    node: Arc<Node>,
    run: String,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    fresh: bool,
    stored: i64,
    /// The first write of each segment that waits.
    queue: VecDeque<Option<UnixMs>>,
    /// The first write of the one that is not cut yet.
    open: Option<UnixMs>,
    /// Since when nothing is read.
    cut_off: Option<UnixMs>,
    error: String,
}

impl Progress {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known, and tells it.
    fn note(&self, edit: impl FnOnce(&mut Pending)) {
        let (fresh, stored, behind, error) = {
            let mut pending = self.pending();
            edit(&mut pending);
            let waiting = pending.queue.iter().flatten().chain(&pending.open);
            let oldest = waiting.chain(&pending.cut_off).min().copied().unwrap_or_default();
            let late = oldest > UnixMs::default() && UnixMs::now().passed(oldest, BEHIND);
            let behind = if late { oldest } else { UnixMs::default() };
            (pending.fresh, pending.stored, behind, pending.error.clone())
        };
        change(&self.node, &self.run, |task| {
            (task.fresh, task.stored, task.behind_since) = (fresh, stored, behind);
            task.error = error;
        });
    }
}

/// In which history the stream goes on.
struct History {
    asked: String,
    replid: String,
    common: i64,
}

/// A segment that is being filled.
struct Open {
    segment: Segment,
    marks: Vec<Mark>,
    /// When the last of them was begun.
    marked: u64,
    bytes: Vec<u8>,
    began: Instant,
    writes: Option<(UnixMs, Instant)>,
}

struct Archiver {
    node: Arc<Node>,
    object: ArchiveObject,
    /// Everything before this offset of this history is stored or held; none at the beginning.
    place: Option<(String, i64)>,
    /// When something was received last.
    last: UnixMs,
    history: Option<History>,
    open: Option<Open>,
    /// A segment for which there is no room.
    held: Option<Waiting>,
    /// A segment was cut.
    begun: bool,
    room: Arc<Semaphore>,
    progress: Arc<Progress>,
    to: mpsc::UnboundedSender<Waiting>,
}

impl Archiver {
    /// Archives until it cannot go on; what was received until then is stored all the same.
    async fn read(&mut self) -> Ended {
        let ended = self.read_on().await;
        let _ = self.cut().await;
        if let Some(held) = self.held.take() {
            self.send(held);
        }
        let began = Instant::now();
        while !self.progress.pending().queue.is_empty() && began.elapsed() < LAST {
            sleep(LOOK).await;
        }
        ended
    }

    async fn read_on(&mut self) -> Ended {
        loop {
            match self.attach().await {
                Err(ended) => return ended,
                Ok(None) => {
                    self.cut_off();
                    sleep(LOOK).await;
                }
                Ok(Some(link)) => {
                    self.progress.note(|pending| pending.cut_off = None);
                    if let Err(ended) = self.follow(link).await {
                        return ended;
                    }
                    self.cut_off();
                }
            }
            if self.is_due()
                && let Err(ended) = self.cut().await
            {
                return ended;
            }
            if let Some(held) = self.held.take() {
                let room = self.room.clone().acquire_many_owned(held.kib()).await;
                self.send(Waiting { _room: room.ok(), ..held });
            }
        }
    }

    fn cut_off(&self) {
        let now = UnixMs::now();
        self.progress.note(|pending| pending.cut_off = pending.cut_off.or(Some(now)));
    }

    /// A link on which the stream goes on right where it ended; none while Redis cannot give one.
    async fn attach(&mut self) -> Result<Option<Attached>, Ended> {
        let Ok(mut session) = self.node.redis.open(ANSWER).await else { return Ok(None) };
        let Ok(info) = session.info().await else { return Ok(None) };
        if !serves(&info) {
            return Ok(None);
        }
        if !info.flag("repl_backlog_active") {
            if info.role() == Role::Master {
                // A master that never had a replica begins its backlog with the first that asks for
                // everything, and which is gone before it gets anything.
                let _ = self.node.redis.replicate(NAME, ("?", -1)).await;
            }
            return Ok(None);
        }
        let history = match self.goes_on(&info) {
            Ok(Some(history)) => history,
            Ok(None) => return Ok(None),
            Err(why) if self.object.anew && !self.begun => {
                self.node.book.agent(&format!("the log of writes begins anew: {why}"));
                self.place = None;
                return Ok(None);
            }
            Err(why) => return Err(Ended { gap: true, why }),
        };
        if self.open.as_ref().is_some_and(|open| open.segment.replid != history.replid) {
            self.cut().await?;
            return Ok(None);
        }
        let fresh = self.place.is_none();
        let next = self.place.as_ref().map_or(info.number("master_repl_offset") + 1, |p| p.1);
        let link = match self.node.redis.replicate(NAME, (&history.asked, next)).await {
            // It was promoted, or follows another master, since it was looked at.
            Ok(link) if link.replid != info.replid() => return Ok(None),
            Ok(link) => link,
            Err(_) => return Ok(None),
        };
        if fresh {
            self.place = Some((history.asked.clone(), next));
        }
        if self.last == UnixMs::default() {
            self.last = UnixMs::now();
            self.progress.note(|pending| {
                pending.fresh = fresh;
                pending.stored = if fresh { 0 } else { next };
            });
            let how = if fresh { "begins" } else { "goes on" };
            self.node.book.agent(&format!("the log of writes {how} at offset {next}"));
        }
        self.history = Some(history);
        Ok(Some(link))
    }

    /// Whether Redis has what follows the place; the history in which it goes on. `None` while it is
    /// behind what another node archived of the same history.
    fn goes_on(&self, info: &Info) -> Result<Option<History>, String> {
        let replid = info.replid().to_owned();
        let Some((asked, next)) = self.place.clone() else {
            return Ok(Some(History { asked: replid.clone(), replid, common: i64::MAX }));
        };
        let second = info.number("second_repl_offset");
        let before = asked == info.text("master_replid2") && next <= second;
        if asked != replid && !before {
            return Err(format!(
                "redis is of another history here, and has nothing that follows offset {next} of {asked}"
            ));
        }
        let first = info.number("repl_backlog_first_byte_offset");
        let end = first + info.number("repl_backlog_histlen");
        if next > end && asked == replid {
            return Ok(None);
        }
        if next < first || next > end {
            return Err(format!(
                "redis keeps offsets {first} to {end} here, and offset {next} would follow"
            ));
        }
        let common = if asked == replid { i64::MAX } else { second };
        Ok(Some(History { asked, replid, common }))
    }

    /// Takes what comes until the link ends.
    async fn follow(&mut self, link: Attached) -> Result<(), Ended> {
        let mut stream = link.stream;
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut block = vec![0; BLOCK];
        let alive = request(&["REPLCONF", "ACK", "0"]);
        loop {
            tokio::select! {
                read = stream.read(&mut block) => match read {
                    Ok(0) | Err(_) => return Ok(()),
                    Ok(read) => self.take(&block[..read]),
                },
                _ = beat.tick() => {
                    let redis = self.node.peek().redis;
                    let needed = redis.role == Role::Master && redis.min_replicas > 0;
                    if needed || stream.get_mut().write_all(&alive).await.is_err() {
                        return Ok(());
                    }
                    self.progress.note(|_| {});
                }
            }
            if self.is_due() {
                self.cut().await?;
                if self.held.is_some() {
                    return Ok(());
                }
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let now = UnixMs::now().max(self.last);
        let Some((place, next)) = &mut self.place else { return };
        let Some(history) = &mut self.history else { return };
        let open = self.open.get_or_insert_with(|| Open {
            segment: Segment {
                uid: self.object.uid.clone(),
                run: self.object.run.clone(),
                from: self.last,
                until: self.last,
                first: *next,
                end: *next,
                asked: std::mem::replace(&mut history.asked, history.replid.clone()),
                replid: history.replid.clone(),
                common: std::mem::replace(&mut history.common, i64::MAX),
            },
            marks: Vec::new(),
            marked: 0,
            bytes: Vec::new(),
            began: Instant::now(),
            writes: None,
        });
        place.clone_from(&history.replid);
        if open.writes.is_none() && !is_pings(open.bytes.len(), bytes) {
            open.writes = Some((now, Instant::now()));
            self.progress.note(|pending| pending.open = Some(now));
        }
        open.bytes.extend_from_slice(bytes);
        *next += i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        (open.segment.end, open.segment.until, self.last) = (*next, now, now);
        let mark = (now.0, *next);
        if let Some(last) = open.marks.last_mut().filter(|_| now.0 < open.marked + MARKS) {
            *last = mark;
        } else {
            open.marked = now.0;
            open.marks.push(mark);
        }
    }

    fn is_due(&self) -> bool {
        let Some(open) = &self.open else { return false };
        let age = open.began.elapsed();
        // The first one says where the log begins.
        let idle = if self.begun { CUT_IDLE_AFTER } else { CUT_AFTER };
        open.bytes.len() >= CUT_BYTES
            || age >= idle
            || open.writes.is_some_and(|(_, since)| since.elapsed() >= CUT_AFTER)
    }

    /// Ends the segment, and sends it on its way; it is held where there is no room.
    async fn cut(&mut self) -> Result<(), Ended> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let Open { segment, marks, bytes, writes, .. } = open;
        let object = log_object(&self.object.log, &segment);
        let (cluster, key) = (self.object.cluster.clone(), self.object.key.clone());
        let of = segment.clone();
        let opened = Opened { marks, bytes: bytes.into() };
        let content =
            tokio::task::spawn_blocking(move || sealed(&of, &cluster, &key, &opened)).await;
        let content = content
            .map_err(|error| Ended::failed(error.to_string()))?
            .map_err(|error| Ended::failed(error.to_string()))?;
        let writes = writes.map(|(at, _)| at);
        self.begun = true;
        let waiting = Waiting { segment, object, content, writes, _room: None };
        match self.room.clone().try_acquire_many_owned(waiting.kib()) {
            Ok(room) => self.send(Waiting { _room: Some(room), ..waiting }),
            Err(_) => self.held = Some(waiting),
        }
        Ok(())
    }

    fn send(&self, waiting: Waiting) {
        self.progress.note(|pending| {
            pending.queue.push_back(waiting.writes);
            pending.open = None;
        });
        // Whoever stores them ends with this one.
        let _ = self.to.send(waiting);
    }
}

/// Whether the stream of this Redis is the cluster's, and nobody takes an attached archive for a
/// replica that a write needs.
fn serves(info: &Info) -> bool {
    let busy =
        info.flag("loading") || info.flag("async_loading") || info.flag("master_sync_in_progress");
    !busy
        && match info.role() {
            Role::Master => info.min_replicas == 0,
            Role::Replica => info.link_up(),
            Role::Unknown => false,
        }
}

/// Whether `bytes` go on with pings, and nothing else, after so many bytes of them.
fn is_pings(after: usize, bytes: &[u8]) -> bool {
    bytes.iter().zip(after..).all(|(byte, at)| *byte == PING[at % PING.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_are_no_writes_wherever_they_are_cut() {
        let twice = PING.repeat(2);
        assert!(is_pings(0, &twice));
        assert!(is_pings(5, &twice[5..]));
        assert!(!is_pings(0, &twice[5..]));
        assert!(!is_pings(0, b"*1\r\n$4\r\nEXEC\r\n"));
    }
}
