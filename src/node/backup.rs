//! Takes a backup: has Redis write its snapshot, and sends that to the object storage, compressed
//! and encrypted. It runs beside everything else, and whatever becomes of it changes nothing here.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::convert::BackupObject;
use super::info::Info;
use super::rdb_header;
use super::redis_control::{ANSWER, ControlError, Session};
use super::state::Node;
use crate::backup::storage::Storage;
use crate::backup::stream::upload;
use crate::error_chain::error_chain;
use crate::model::backup::{BackupTask, Snapshot, TaskPhase};
use crate::model::node::Role;

/// Redis writes its snapshot within this.
const SAVE_LIMIT: Duration = Duration::from_hours(1);
/// A storage takes all of it within this.
const UPLOAD_LIMIT: Duration = Duration::from_hours(5);
/// A snapshot is taken so often at most for a count of keys that is its own: under load the counts of
/// all of them may be those of a moment later.
const TRIES: u32 = 3;
/// Between two looks at Redis while it writes.
const LOOK: Duration = Duration::from_millis(200);
/// Progress is told so often at most.
const TELL: Duration = Duration::from_millis(500);

/// Begins; the state says how far it is. The same backup again changes nothing.
pub fn start(node: &Arc<Node>, object: BackupObject) -> Result<(), String> {
    let mut refused = None;
    node.update(|state| {
        let task = state.backup.get_or_insert_default();
        let runs = task.phase == TaskPhase::Running;
        if task.id == object.id && (runs || task.phase == TaskPhase::Done) {
            refused = Some(None);
        } else if runs {
            refused = Some(Some(format!("backup {} is still being taken here", task.id)));
        } else {
            let id = object.id.clone();
            *task = BackupTask { id, phase: TaskPhase::Running, ..BackupTask::default() };
        }
    });
    match refused {
        Some(None) => return Ok(()),
        Some(Some(why)) => return Err(why),
        None => {}
    }
    let node = node.clone();
    tokio::spawn(async move {
        let id = object.id.clone();
        let ended = take(&node, object).await;
        node.book.agent(&match &ended {
            Ok(snapshot) => format!("backup {id} is stored: {} bytes", snapshot.stored_bytes),
            Err(why) => format!("backup {id} came to nothing: {why}"),
        });
        change(&node, &id, |task| match ended {
            Ok(snapshot) => {
                task.phase = TaskPhase::Done;
                task.snapshot = Some(snapshot);
            }
            Err(why) => {
                task.phase = TaskPhase::Failed;
                task.error = why;
            }
        });
    });
    Ok(())
}

fn change(node: &Node, id: &str, edit: impl FnOnce(&mut BackupTask)) {
    node.update(|state| {
        if let Some(task) = state.backup.as_mut().filter(|task| task.id == id) {
            edit(task);
        }
    });
}

async fn take(node: &Arc<Node>, object: BackupObject) -> Result<Snapshot, String> {
    let BackupObject { id, storage, keys, object, key } = object;
    let storage = Storage::open(&storage, keys.as_ref()).map_err(|e| error_chain(&e))?;
    let saved = timeout(SAVE_LIMIT, save(node)).await;
    let Saved { file, replid, offset, info, exact } = saved.map_err(|_| {
        format!("Redis did not write its snapshot within {} s", SAVE_LIMIT.as_secs())
    })??;
    let total = file.metadata().map_err(|e| format!("the snapshot cannot be read ({e})"))?.len();
    change(node, &id, |task| task.total_bytes = total);
    let progress = {
        let (node, id) = (node.clone(), id.clone());
        let told = std::sync::Mutex::new(Instant::now());
        move |done| {
            let Ok(mut told) = told.lock() else { return };
            if told.elapsed() >= TELL {
                *told = Instant::now();
                change(&node, &id, |task| task.done_bytes = done);
            }
        }
    };
    let sent = upload(&storage, &object, (&id, &key), file, total, progress);
    let sent = timeout(UPLOAD_LIMIT, sent).await;
    let sent = sent
        .map_err(|_| {
            format!("the storage did not take it within {} h", UPLOAD_LIMIT.as_secs() / 3600)
        })?
        .map_err(|e| error_chain(&e))?;
    change(node, &id, |task| task.done_bytes = sent.plain_bytes);
    Ok(Snapshot {
        redis: info.version(),
        replid,
        offset,
        keys: info.keys(),
        stored_bytes: sent.stored_bytes,
        stored_sha256: sent.stored_sha256,
        rdb_bytes: sent.plain_bytes,
        rdb_sha256: sent.plain_sha256,
        memory_bytes: info.state().used_memory_bytes,
        exact_keys: exact,
    })
}

/// The data as they are now, open, for who reads them at once.
pub async fn snapshot(node: &Node) -> Result<File, String> {
    let saved = timeout(SAVE_LIMIT, save(node)).await;
    let saved = saved.map_err(|_| "Redis did not write its snapshot in time".to_owned())?;
    saved.map(|saved| saved.file)
}

/// A snapshot, open, and how Redis stood at the moment of it.
struct Saved {
    file: File,
    replid: String,
    offset: i64,
    info: Info,
    /// `info` is of that very moment.
    exact: bool,
}

async fn save(node: &Node) -> Result<Saved, String> {
    let said = |error: ControlError| error_chain(&error);
    let mut session = node.redis.open(ANSWER).await.map_err(said)?;
    let mut tries = 0;
    loop {
        let before = session.info().await.map_err(said)?;
        if before.role() != Role::Master && !before.link_up() {
            return Err("its link to the master was lost before the snapshot".to_owned());
        }
        let idle =
            !before.flag("rdb_bgsave_in_progress") && !before.flag("aof_rewrite_in_progress");
        // Another snapshot, or a rewrite of the log, must end first: Redis would begin this one later
        // by itself.
        if idle && let Some(info) = begin(&mut session).await.map_err(said)? {
            let number = before.number("rdb_saves") + 1;
            if let Some(mut file) = ended(&mut session, node, number).await? {
                let told = rdb_header::read(&mut file)
                    .map_err(|e| format!("the snapshot cannot be read ({e})"))?;
                // Redis says in the file at which offset it was taken. Another one than was read
                // beside it: the count of keys may be another one too.
                let same = told.offset.is_none_or(|offset| offset == info.offset());
                tries += 1;
                if same || tries >= TRIES {
                    let replid = if told.replid.is_empty() { info.replid() } else { &told.replid };
                    return Ok(Saved {
                        file,
                        replid: replid.to_owned(),
                        offset: told.offset.unwrap_or(info.offset()),
                        exact: told.offset == Some(info.offset()),
                        info,
                    });
                }
            }
        }
        sleep(LOOK).await;
    }
}

/// Begins a snapshot, and reads how Redis stands right after; none where it cannot now.
///
/// Not as a transaction: within one Redis begins no snapshot, but notes that it is to begin one.
async fn begin(session: &mut Session) -> Result<Option<Info>, ControlError> {
    let mut ask = redis::pipe();
    ask.cmd("BGSAVE").ignore();
    ask.cmd("INFO");
    let answer: Result<(String,), redis::RedisError> =
        ask.query_async(&mut session.connection).await;
    match answer {
        Ok((text,)) => Ok(Some(Info::parse(&text, &std::collections::HashMap::new()))),
        Err(error)
            if error.is_io_error() || error.is_timeout() || error.is_connection_dropped() =>
        {
            Err(error.into())
        }
        Err(_) => Ok(None),
    }
}

/// The file of the snapshot, once it is written; none where it may be another one's.
async fn ended(session: &mut Session, node: &Node, number: i64) -> Result<Option<File>, String> {
    let said = |error: ControlError| error_chain(&error);
    loop {
        let info = session.info().await.map_err(said)?;
        if !info.flag("rdb_bgsave_in_progress") {
            if info.text("rdb_last_bgsave_status") != "ok" {
                return Err(
                    "Redis could not write its snapshot: the process that wrote it was killed, as it is where memory runs out, or the volume is full; its log says which"
                        .to_owned(),
                );
            }
            if info.number("rdb_saves") != number {
                return Ok(None);
            }
            let path = node.snapshots.dump();
            let file = File::open(path).map_err(|error| {
                format!("the snapshot {} cannot be read ({error})", path.display())
            })?;
            // Had another one ended since, the name would be that one's.
            let info = session.info().await.map_err(said)?;
            return Ok((info.number("rdb_saves") == number).then_some(file));
        }
        sleep(LOOK).await;
    }
}
