//! Archives the log of writes: attached to this node's own Redis as a replica is, it gets the stream
//! of replication, cuts it into segments of a few seconds, and stores each, compressed and encrypted.
//!
//! It acknowledges nothing, so that no `WAIT` counts it, and it leaves a master whose writes need
//! replicas, so that it is never taken for one. While the storage does not take what there is, it
//! holds a bounded part of it, and lets go of Redis, whose backlog holds the next part; what follows
//! after that is a gap, which is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::convert::ArchiveObject;
use super::info::Info;
use super::psync::{Attached, request};
use super::redis_control::ANSWER;
use super::segments::{Came, Cut, Cutter, History};
use super::state::Node;
use crate::backup::archive::log_object;
use crate::backup::segment::sealed;
use crate::backup::storage::Storage;
use crate::error_chain::error_chain;
use crate::model::archive::{ArchiveTask, Segment};
use crate::model::backup::TaskPhase;
use crate::model::node::Role;
use crate::model::time::UnixMs;

/// What Redis calls it among its replicas.
pub const NAME: &str = "archive";
/// Bytes that are read at a time.
const BLOCK: usize = 64 * 1024;
/// Segments that wait for the storage, KiB.
const ROOM: usize = 24 * 1024;
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
    let (of, run) = (node.clone(), object.run.clone());
    let progress = Arc::new(Progress::new(move |told: &Told| {
        change(&of, &run, |task| {
            (task.fresh, task.stored) = (told.fresh, told.stored);
            (task.behind_since, task.error) = (told.behind_since, told.error.clone());
        });
    }));
    let place = last.map(|last| (last.replid, last.end));
    let mut archiver = Archiver {
        node: node.clone(),
        cutter: Cutter::new(&object.uid, &object.run, place),
        held: None,
        room: Arc::new(Semaphore::new(ROOM)),
        progress: progress.clone(),
        object,
        to,
    };
    tokio::select! {
        ended = archiver.read() => ended,
        () = store_all(&storage, from, &progress) => Ended::failed("internal error: nothing is stored any more"),
    }
}

/// A segment on its way to the storage.
struct Waiting {
    segment: Segment,
    object: String,
    content: Bytes,
    /// Its first write.
    writes: Option<Came>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Waiting {
    fn kib(&self) -> u32 {
        u32::try_from(self.content.len().div_ceil(1024).min(ROOM)).unwrap_or(u32::MAX)
    }
}

/// Stores one after the other, each until it is stored.
async fn store_all(
    storage: &Storage,
    mut from: mpsc::UnboundedReceiver<Waiting>,
    progress: &Progress,
) {
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

/// What is not stored yet, and who is told of it.
struct Progress {
    tell: Box<dyn Fn(&Told) + Send + Sync>,
    pending: Mutex<Pending>,
}

/// How far it is.
struct Told {
    fresh: bool,
    /// Everything before this offset is stored.
    stored: i64,
    /// Since when what is written is not stored; 0 while it is in time.
    behind_since: UnixMs,
    error: String,
}

#[derive(Default)]
struct Pending {
    fresh: bool,
    stored: i64,
    /// The first write of each segment that waits.
    queue: VecDeque<Option<Came>>,
    /// The first write of the one that is not cut yet.
    open: Option<Came>,
    /// Since when nothing is read.
    cut_off: Option<Came>,
    error: String,
}

impl Progress {
    fn new(tell: impl Fn(&Told) + Send + Sync + 'static) -> Self {
        Self { tell: Box::new(tell), pending: Mutex::default() }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known, and tells it.
    fn note(&self, edit: impl FnOnce(&mut Pending)) {
        let told = {
            let mut pending = self.pending();
            edit(&mut pending);
            let waiting = pending.queue.iter().flatten().chain(&pending.open);
            let oldest = waiting.chain(&pending.cut_off).min_by_key(|came| came.since);
            let late = oldest.filter(|came| came.since.elapsed() >= BEHIND);
            Told {
                fresh: pending.fresh,
                stored: pending.stored,
                behind_since: late.map(|came| came.at).unwrap_or_default(),
                error: pending.error.clone(),
            }
        };
        (self.tell)(&told);
    }
}

struct Archiver {
    node: Arc<Node>,
    object: ArchiveObject,
    cutter: Cutter,
    /// A segment for which there is no room.
    held: Option<Waiting>,
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
        self.progress.note(|pending| pending.cut_off = pending.cut_off.or(Some(Came::now())));
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
            Err(why) if self.object.anew && !self.cutter.begun => {
                self.node.book.agent(&format!("the log of writes begins anew: {why}"));
                self.cutter.place = None;
                return Ok(None);
            }
            Err(why) => return Err(Ended { gap: true, why }),
        };
        if self.cutter.is_of_another(&history.replid) {
            self.cut().await?;
            return Ok(None);
        }
        let place = self.cutter.place.as_ref();
        let fresh = place.is_none();
        let next = place.map_or(info.number("master_repl_offset") + 1, |place| place.1);
        let link = match self.node.redis.replicate(NAME, (&history.asked, next)).await {
            // It was promoted, or follows another master, since it was looked at.
            Ok(link) if link.replid != info.replid() => return Ok(None),
            Ok(link) => link,
            Err(_) => return Ok(None),
        };
        if fresh {
            self.cutter.place = Some((history.asked.clone(), next));
        }
        if self.cutter.last == UnixMs::default() {
            self.cutter.last = UnixMs::now();
            self.progress.note(|pending| {
                pending.fresh = fresh;
                pending.stored = if fresh { 0 } else { next };
            });
            let how = if fresh { "begins" } else { "goes on" };
            self.node.book.agent(&format!("the log of writes {how} at offset {next}"));
        }
        self.cutter.history = Some(history);
        Ok(Some(link))
    }

    /// Whether Redis has what follows the place; the history in which it goes on. `None` while it is
    /// behind what another node archived of the same history.
    fn goes_on(&self, info: &Info) -> Result<Option<History>, String> {
        let replid = info.replid().to_owned();
        let Some((asked, next)) = self.cutter.place.clone() else {
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
            let due = self.cutter.due();
            tokio::select! {
                read = stream.read(&mut block) => match read {
                    Ok(0) | Err(_) => return Ok(()),
                    Ok(read) => self.take(&block[..read]),
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
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
        let came = Came::now();
        if self.cutter.take(bytes, came) {
            self.progress.note(|pending| pending.open = Some(came));
        }
    }

    fn is_due(&self) -> bool {
        self.cutter.due().is_some_and(|due| due <= Instant::now())
    }

    /// Ends the segment, and sends it on its way; it is held where there is no room.
    async fn cut(&mut self) -> Result<(), Ended> {
        let Some(Cut { segment, opened, writes }) = self.cutter.cut() else { return Ok(()) };
        let object = log_object(&self.object.log, &segment);
        let (cluster, key) = (self.object.cluster.clone(), self.object.key.clone());
        let of = segment.clone();
        let content =
            tokio::task::spawn_blocking(move || sealed(&of, &cluster, &key, &opened)).await;
        let content = content
            .map_err(|error| Ended::failed(error.to_string()))?
            .map_err(|error| Ended::failed(error.to_string()))?;
        let waiting = Waiting { segment, object, content, writes, _room: None };
        match self.room.clone().try_acquire_many_owned(waiting.kib()) {
            Ok(room) => self.send(Waiting { _room: Some(room), ..waiting }),
            Err(_) => self.held = Some(waiting),
        }
        Ok(())
    }

    fn send(&self, waiting: Waiting) {
        send(&self.to, &self.progress, waiting);
    }
}

/// On its way to the storage.
fn send(to: &mpsc::UnboundedSender<Waiting>, progress: &Progress, waiting: Waiting) {
    progress.note(|pending| {
        pending.queue.push_back(waiting.writes);
        pending.open = None;
    });
    // Whoever stores them ends with this one.
    let _ = to.send(waiting);
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

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use object_store::throttle::{ThrottleConfig, ThrottledStore};
    use rand::{Rng as _, SeedableRng as _};
    use tokio::time::advance;

    use super::*;

    /// A storage that takes so long for each object, and what was told of it.
    struct Slow {
        store: Arc<ThrottledStore<InMemory>>,
        to: mpsc::UnboundedSender<Waiting>,
        progress: Arc<Progress>,
        told: Arc<Mutex<Vec<(Instant, i64, UnixMs)>>>,
        cutter: Cutter,
    }

    impl Slow {
        fn new(each: Duration) -> Self {
            let config = ThrottleConfig { wait_put_per_call: each, ..ThrottleConfig::default() };
            let store = Arc::new(ThrottledStore::new(InMemory::new(), config));
            let told: Arc<Mutex<Vec<_>>> = Arc::default();
            let hears = told.clone();
            let progress = Arc::new(Progress::new(move |told: &Told| {
                hears.lock().unwrap().push((Instant::now(), told.stored, told.behind_since));
            }));
            let (to, from) = mpsc::unbounded_channel();
            let (storage, tells) = (Storage::over(store.clone()), progress.clone());
            tokio::spawn(async move { store_all(&storage, from, &tells).await });
            let mut cutter = Cutter::new("u", "r", Some(("h".into(), 1)));
            let (asked, replid) = ("h".to_owned(), "h".to_owned());
            cutter.history = Some(History { asked, replid, common: i64::MAX });
            Self { store, to, progress, told, cutter }
        }

        /// Cuts what is due until then, as [`Archiver::follow`] does.
        async fn until(&mut self, then: Instant) {
            while let Some(due) = self.cutter.due().filter(|due| *due <= then) {
                sleep_until(due).await;
                let Cut { segment, opened, writes } = self.cutter.cut().unwrap();
                let object = format!("log/{}", segment.name());
                let waiting =
                    Waiting { segment, object, content: opened.bytes, writes, _room: None };
                send(&self.to, &self.progress, waiting);
            }
            sleep_until(then).await;
        }

        /// A write comes; where it ends.
        fn write(&mut self, bytes: usize) -> i64 {
            let came = Came::now();
            if self.cutter.take(&vec![b'w'; bytes], came) {
                self.progress.note(|pending| pending.open = Some(came));
            }
            self.cutter.place.as_ref().unwrap().1
        }

        /// When everything before this offset was first said to be stored.
        fn stored(&self, end: i64) -> Option<Instant> {
            let told = self.told.lock().unwrap();
            told.iter().find(|(_, stored, _)| *stored >= end).map(|(at, ..)| *at)
        }

        /// Since when it is behind, by what was told last.
        fn behind(&self) -> UnixMs {
            // As each beat does.
            self.progress.note(|_| {});
            self.told.lock().unwrap().last().unwrap().2
        }
    }

    /// In virtual time: 2 s until a segment is cut, and twice as long as the storage takes for one.
    #[tokio::test(start_paused = true)]
    async fn a_write_is_stored_within_five_seconds_where_the_storage_takes_one_and_a_half() {
        for seed in 0..5 {
            let mut random = rand::rngs::StdRng::seed_from_u64(seed);
            let mut slow = Slow::new(Duration::from_millis(1500));
            let mut writes = Vec::new();
            for _ in 0..300 {
                let next = Duration::from_millis(random.gen_range(0..900));
                slow.until(Instant::now() + next).await;
                writes.push((Instant::now(), slow.write(random.gen_range(1..2000))));
                assert_eq!(slow.behind(), UnixMs::default(), "seed {seed}");
            }
            slow.until(Instant::now() + Duration::from_secs(10)).await;
            for (came, end) in writes {
                let stored = slow.stored(end).expect("it is stored");
                assert!(stored - came <= BEHIND, "seed {seed}: {:?}", stored - came);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_storage_stands_still_it_is_said_since_when_and_all_of_it_is_stored_after_that()
     {
        let mut slow = Slow::new(Duration::from_millis(100));
        slow.write(10);
        slow.until(Instant::now() + Duration::from_secs(4)).await;
        assert_eq!(slow.behind(), UnixMs::default());
        slow.store.config_mut(|config| config.wait_put_per_call = Duration::from_mins(1));
        let before = UnixMs::now();
        let mut end = 0;
        for _ in 0..20 {
            end = slow.write(10);
            slow.until(Instant::now() + Duration::from_secs(1)).await;
        }
        let since = slow.behind();
        assert!(
            since >= before && since <= UnixMs::now(),
            "{since} is when the first of them came"
        );
        assert!(slow.stored(end).is_none());
        slow.store.config_mut(|config| config.wait_put_per_call = Duration::from_millis(100));
        advance(Duration::from_mins(1)).await;
        slow.until(Instant::now() + Duration::from_secs(10)).await;
        assert!(slow.stored(end).is_some() && slow.behind() == UnixMs::default());
    }
}
