//! Copies a running Redis that lets nobody replicate, key by key (docs/decisions/0084): once while it
//! is written to, and once more, comparing, while it takes no writes.
//!
//! What comes is sent to Redis as its master would (`Feed`), so that nobody can write here before
//! the promotion. A source that cannot be reached is gone on with at the same place of its keys; one
//! that was started anew, at its first key; a Redis here that was, with nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::convert::Source;
use super::copy_pass::{Failed, Pass, Reached};
use super::feed::{Ended, Feed};
use super::import::change;
use super::info::Info;
use super::source_asking::{
    Asking, BEAT, HOLD_MS, Held, PAUSES, connection, fits, hold, info, not_answered,
};
use super::state::Node;
use crate::model::backup::TaskPhase;
use crate::model::import::{CopyTask, ImportTask};

/// Writes of the source are held anew so often while its keys are compared.
const HOLD_AGAIN: Duration = Duration::from_secs(8);
/// The keys are compared within this, while the source takes no writes.
const LAST_PASS: Duration = Duration::from_mins(30);
/// The promotion comes within this then, or the source takes writes again.
const PROMOTION: Duration = Duration::from_mins(1);
/// A promotion is carried out within this.
const CARRIED_OUT: Duration = Duration::from_secs(20);

/// A copy as commands and promotions see it.
pub struct Copying {
    /// Name of the last pass that is wanted; empty while none is.
    wanted: watch::Sender<String>,
    /// The source was looked at, and its data can be read here.
    fits: watch::Sender<bool>,
    feed: Mutex<Option<Arc<Feed>>>,
    /// Why it does not go on, one sentence.
    trouble: Mutex<String>,
    /// Writes that the source had counted when the last pass began.
    written: Mutex<i64>,
    /// The promotion that ends it is being carried out.
    taken: AtomicBool,
}

impl Copying {
    /// Nothing is copied yet.
    #[must_use]
    pub fn new(last_pass: &str) -> Self {
        Self {
            wanted: watch::Sender::new(last_pass.to_owned()),
            fits: watch::Sender::new(false),
            feed: Mutex::default(),
            trouble: Mutex::default(),
            written: Mutex::default(),
            taken: AtomicBool::new(false),
        }
    }

    /// Asks for the last pass of this name; for none, when it is empty.
    pub fn last_pass(&self, name: &str) {
        self.wanted.send_if_modified(|wanted| {
            let is_new = wanted != name;
            name.clone_into(wanted);
            is_new
        });
    }

    fn feed(&self) -> Option<Arc<Feed>> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn trouble(&self, why: &str) {
        why.clone_into(&mut self.trouble.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Copies for as long as it is polled.
pub(super) async fn run(node: &Arc<Node>, source: &Source, asking: &Asking, copying: &Copying) {
    let copies = async {
        let mut failures = 0;
        loop {
            let _ = copying.fits.subscribe().wait_for(|fits| *fits).await;
            let began = Instant::now();
            let Ended(why) = from_nothing(node, source, asking, copying).await;
            *copying.feed.lock().unwrap_or_else(PoisonError::into_inner) = None;
            if copying.taken.swap(false, Ordering::SeqCst) {
                // It is master by now, and this is ended; or it goes on.
                sleep(CARRIED_OUT).await;
            }
            let said = format!("the copy begins anew, with nothing ({why})");
            node.book.agent(&said);
            copying.trouble(&said);
            change(node, &source.id, |task| task.copy = Some(CopyTask::default()));
            failures = if began.elapsed() > PAUSES.longest { 0 } else { failures + 1 };
            sleep(PAUSES.delay(failures)).await;
        }
    };
    tokio::join!(copies, keep_looking(node, source, asking, copying));
}

fn edit(node: &Node, source: &Source, edit: impl FnOnce(&mut CopyTask)) {
    change(node, &source.id, |task| edit(task.copy.get_or_insert_default()));
}

/// All passes over one Redis here; returns when that is another one.
async fn from_nothing(
    node: &Arc<Node>,
    source: &Source,
    asking: &Asking,
    copying: &Copying,
) -> Ended {
    let feed = match Feed::begin(node).await {
        Ok(feed) => Arc::new(feed),
        Err(ended) => return ended,
    };
    *copying.feed.lock().unwrap_or_else(PoisonError::into_inner) = Some(feed.clone());
    tokio::select! {
        ended = feed.ended() => ended,
        ended = passes(node, source, asking, copying, &feed) => ended,
    }
}

async fn passes(
    node: &Arc<Node>,
    source: &Source,
    asking: &Asking,
    copying: &Copying,
    feed: &Feed,
) -> Ended {
    copying.trouble("");
    let (mut at, mut failures) = (Reached::default(), 0);
    loop {
        let before = at.clone();
        match Pass::first(node, source, feed).run(&mut at).await {
            Ok(_) => break,
            Err(Failed::Here(ended)) => return ended,
            Err(Failed::Source(why)) => {
                copying.trouble(&why);
                node.book.agent(&format!("the copy stands still: {why}"));
                failures = if at == before { failures + 1 } else { 0 };
                sleep(PAUSES.delay(failures)).await;
                copying.trouble("");
            }
        }
    }
    copying.trouble("");
    edit(node, source, |task| task.copied = true);
    let mut wanted = copying.wanted.subscribe();
    loop {
        let pass = wanted.borrow_and_update().clone();
        let known = pass.clone();
        edit(node, source, |task| {
            (task.pass, task.done) = (known, false);
            task.failed.clear();
        });
        if !pass.is_empty() {
            let ended = tokio::select! {
                ended = last(node, source, asking, copying, feed) => ended,
                // It is called off.
                _ = wanted.changed() => None,
            };
            if let Some(ended) = ended {
                return ended;
            }
            let_go(node, source, asking).await;
        }
        if wanted.wait_for(|now| *now != pass).await.is_err() {
            return Ended("the import is over".to_owned());
        }
    }
}

/// The source takes writes again, at once or in some seconds by itself.
async fn let_go(node: &Node, source: &Source, asking: &Asking) {
    if let Ok(mut connection) = connection(node, source, asking).await {
        let unpause = redis::cmd("CLIENT").arg("UNPAUSE").exec_async(&mut connection).await;
        drop(unpause);
    }
}

/// Compares all keys while the source takes no writes, and holds these until the promotion. Returns
/// when it came to nothing.
async fn last(
    node: &Arc<Node>,
    source: &Source,
    asking: &Asking,
    copying: &Copying,
    feed: &Feed,
) -> Option<Ended> {
    let work = async {
        let mut connection = connection(node, source, asking).await.map_err(Failed::Source)?;
        let held = hold(&mut connection, HOLD_MS).await.is_ok();
        let before = written(source, &mut connection).await?;
        *copying.written.lock().unwrap_or_else(PoisonError::into_inner) = before;
        let mut at = Reached::default();
        let pass = Pass::last(node, source, feed).run(&mut at);
        let late = || {
            let limit = LAST_PASS.as_secs() / 60;
            Failed::Source(format!("the keys were not compared within {limit} min"))
        };
        let difference = timeout(LAST_PASS, pass).await.map_err(|_| late())??;
        if written(source, &mut connection).await? > before {
            let still = if held { ", though its writes are held" } else { "" };
            return Err(Failed::Source(format!(
                "somebody wrote to {} while the keys were compared{still}; stop the applications first",
                source.spec.address()
            )));
        }
        Ok(difference)
    };
    let holding = async {
        loop {
            sleep(HOLD_AGAIN).await;
            if let Ok(mut connection) = connection(node, source, asking).await {
                let _ = hold(&mut connection, HOLD_MS).await;
            }
        }
    };
    let whole = async {
        let difference = work.await?;
        edit(node, source, |task| (task.done, task.difference) = (true, difference));
        sleep(PROMOTION).await;
        Err(Failed::Source(format!(
            "the operator did not have the node promoted within {} s after the keys were compared",
            PROMOTION.as_secs()
        )))
    };
    let failed: Result<(), Failed> = tokio::select! {
        failed = whole => failed,
        () = holding => return None,
    };
    match failed {
        Ok(()) => None,
        Err(Failed::Here(ended)) => Some(ended),
        Err(Failed::Source(why)) => {
            node.book.agent(&format!("the last pass came to nothing: {why}"));
            edit(node, source, |task| (task.done, task.failed) = (false, why));
            None
        }
    }
}

/// Writes that the source counted since its last snapshot: more of them than before means that
/// somebody wrote. One that counts none shows nothing.
async fn written(
    source: &Source,
    connection: &mut redis::aio::MultiplexedConnection,
) -> Result<i64, Failed> {
    let there = info(connection).await.map_err(|e| Failed::Source(not_answered(source, &e)))?;
    Ok(writes(&there))
}

fn writes(info: &Info) -> i64 {
    info.number("rdb_changes_since_last_save")
}

/// Makes sure that the last pass still holds: the source took no writes since, and Redis has all that
/// was found.
///
/// # Errors
/// One sentence: the source goes on as before, and so does the import.
pub(super) async fn take_over(
    node: &Node,
    source: &Source,
    asking: &Asking,
    copying: &Copying,
) -> Result<Held, String> {
    let done = node.peek().import.and_then(|task| task.copy).is_some_and(|copy| copy.done);
    let Some(feed) = copying.feed().filter(|_| done) else {
        return Err("the keys of the source were not compared once more".to_owned());
    };
    let mut connection = connection(node, source, asking).await?;
    let paused = match hold(&mut connection, HOLD_MS).await {
        Ok(()) => true,
        Err(error) if error.code().is_some() => false,
        Err(error) => return Err(not_answered(source, &error)),
    };
    let mut held = Held { connection, paused, address: source.spec.address() };
    let before = *copying.written.lock().unwrap_or_else(PoisonError::into_inner);
    let checked = match info(&mut held.connection).await {
        Err(error) => Err(not_answered(source, &error)),
        Ok(now) if writes(&now) > before => Err(format!(
            "somebody wrote to {} after the keys were compared; stop the applications first",
            held.address
        )),
        Ok(_) => feed.applied().await.map_err(|ended| ended.to_string()),
    };
    if let Err(why) = checked {
        held.release().await;
        return Err(why);
    }
    copying.taken.store(true, Ordering::SeqCst);
    Ok(held)
}

/// What is known of the source from one look to the next.
#[derive(Default)]
struct Seen {
    /// Since when it has counted so many writes.
    still: Option<(Instant, i64)>,
    can_pause: Option<bool>,
}

async fn keep_looking(node: &Node, source: &Source, asking: &Asking, copying: &Copying) {
    let (mut seen, mut failures) = (Seen::default(), 0);
    loop {
        let looked = look(node, source, asking, &mut seen).await;
        copying.fits.send_replace(looked.is_ok());
        let error = match &looked {
            Ok(_) => copying.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            Err(why) => why.clone(),
        };
        if !error.is_empty() && node.peek().import.is_some_and(|task| task.error != error) {
            node.book.agent(&format!("import from {}: {error}", source.spec.address()));
        }
        let sent = copying.feed().map(|feed| (feed.history.clone(), feed.sent()));
        change(node, &source.id, |task| {
            if let Ok(now) = looked {
                let (refused_epoch, refused, copy) =
                    (task.refused_epoch, std::mem::take(&mut task.refused), task.copy.take());
                *task = ImportTask { refused_epoch, refused, copy, ..now };
                (task.replid, task.offset) = sent.unwrap_or_default();
                failures = 0;
            } else {
                task.answers = false;
                failures += 1;
            }
            task.error = error;
        });
        if failures > 0 {
            *asking.lock().await = None;
            seen.can_pause = None;
            sleep(PAUSES.delay(failures - 1)).await;
        } else {
            sleep(BEAT).await;
        }
    }
}

/// One look at the source.
async fn look(
    node: &Node,
    source: &Source,
    asking: &Asking,
    seen: &mut Seen,
) -> Result<ImportTask, String> {
    let mut connection = connection(node, source, asking).await?;
    let there = info(&mut connection).await.map_err(|error| not_answered(source, &error))?;
    fits(node, source, &there)?;
    let can_pause = match seen.can_pause {
        Some(known) => known,
        // It holds nothing, and shows whether it may.
        None => hold(&mut connection, 0).await.is_ok(),
    };
    seen.can_pause = Some(can_pause);
    let (now, count) = (Instant::now(), writes(&there));
    seen.still = seen.still.filter(|(_, known)| *known == count).or(Some((now, count)));
    let still = seen.still.map_or(Duration::ZERO, |(at, _)| at.elapsed());
    Ok(ImportTask {
        id: source.id.clone(),
        phase: TaskPhase::Running,
        version: there.version(),
        answers: true,
        keys: there.keys(),
        still_ms: u64::try_from(still.as_millis()).unwrap_or(u64::MAX),
        can_pause,
        ..ImportTask::default()
    })
}
