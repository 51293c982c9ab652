//! Takes a backup: has Redis write its snapshot, and sends that to the object storage, compressed
//! and encrypted, while it is written. It runs beside everything else, and whatever becomes of it
//! changes nothing here.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::convert::BackupObject;
use super::saving::{self, Moment, Saving};
use super::state::Node;
use crate::backup::storage::Storage;
use crate::backup::stream::upload;
use crate::error_chain::error_chain;
use crate::model::backup::{BackupTask, Snapshot, TaskPhase};

/// A storage takes all of it within this.
const UPLOAD_LIMIT: Duration = Duration::from_hours(5);
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
    let Saving { file, moment, writing } = saving::begin(node).await?;
    let Moment { replid, offset, info, exact } = moment;
    let progress = {
        let (node, id) = (node.clone(), id.clone());
        let told = std::sync::Mutex::new(None::<Instant>);
        move |done| {
            let Ok(mut told) = told.lock() else { return };
            if told.is_none_or(|told| told.elapsed() >= TELL) {
                *told = Some(Instant::now());
                change(&node, &id, |task| task.done_bytes = done);
            }
        }
    };
    let memory = info.state().used_memory_bytes;
    // No snapshot is larger than the data are in memory.
    let sent = upload(&storage, &object, (&id, &key), file, memory, progress);
    let sent = timeout(UPLOAD_LIMIT, sent);
    let written = async {
        let total = writing.ended().await?;
        change(node, &id, |task| task.total_bytes = total);
        Ok::<_, String>(())
    };
    tokio::pin!(sent, written);
    let sent = tokio::select! {
        // Nobody reads on: that Redis still writes is no matter.
        sent = &mut sent => sent,
        // What was uploaded of a snapshot that is none is taken back before the reason is told.
        written = &mut written => {
            let sent = sent.await;
            written?;
            sent
        }
    };
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
        memory_bytes: memory,
        exact_keys: exact,
    })
}
