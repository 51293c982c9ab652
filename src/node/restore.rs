//! Gives Redis the data of a backup, as its master on loopback: Redis copies them as it would a
//! master's, and stays the replica without writes that it is until it is promoted.
//!
//! Redis gets the last bytes once all of them were found to be those of the backup, so that nothing
//! else ever becomes data. An empty Redis loads what comes as it comes, and keeps no file of it: that
//! is written beside it (`volume_copy.rs`). The archived log follows on the same link: it is what the
//! master of then sent its replicas, and Redis applies it as such.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::convert::{BackupObject, LogObject};
use super::master_link::{ATTACH, BEAT, Link, OFFSET, greet, split, stay};
use super::progress::{Progress, STILL};
use super::redis_config::{BLACK_HOLE, FROM_A_BACKUP, FROM_A_MASTER};
use super::redis_control::{ANSWER, ControlError};
use super::redis_process::RedisInstance;
use super::state::Node;
use super::volume_copy::{self, VolumeCopy};
use crate::backup::scanner::Scanner;
use crate::backup::storage::Storage;
use crate::backup::stream::{Expected, StreamError, download};
use crate::error_chain::error_chain;
use crate::model::backup::{RestoreTask, TaskPhase};
use crate::model::node::Role;
use crate::model::time::UnixMs;

/// Redis takes the next bytes within this, and so does the volume.
pub(super) const STALL: Duration = Duration::from_mins(2);
/// Progress is told so often at most.
pub(super) const TELL: Duration = Duration::from_millis(500);
/// A Redis whose restore came to nothing drops what it had loaded, and answers again, within this.
const LET_GO: Duration = Duration::from_mins(1);
/// A command, or a transaction, in the log has no more bytes.
const LONGEST_COMMAND: usize = 1 << 30;

/// What is restored: the data, what they are to be, and the log that follows them.
pub type Wanted = (BackupObject, Expected, Option<LogObject>);

/// Begins; the state says how far it is. The same restore again changes nothing while it runs, and
/// while the redis that has the data lives.
///
/// # Errors
/// One sentence: nothing was changed.
pub fn start(
    node: &Arc<Node>,
    instance: &RedisInstance,
    (object, expected, log): Wanted,
) -> Result<(), String> {
    if node.memory().promoted() || node.following().is_some() {
        return Err(
            "this node is master, or follows one: what it has is not overwritten".to_owned()
        );
    }
    let (mut begins, mut other) = (false, None);
    node.update(|state| {
        let run_id = state.redis.run_id.clone();
        let task = state.restore.get_or_insert_default();
        let runs = task.phase == TaskPhase::Running;
        let has = task.phase == TaskPhase::Done && task.run_id == run_id;
        if task.id != object.id && runs {
            other = Some(format!("backup {} is still being restored here", task.id));
        } else if task.id != object.id || !(runs || has) {
            begins = true;
            *task = RestoreTask {
                id: object.id.clone(),
                phase: TaskPhase::Running,
                total_bytes: expected.bytes,
                ..RestoreTask::default()
            };
        }
    });
    if let Some(other) = other {
        return Err(other);
    }
    if begins {
        let (own, instance) = (node.clone(), instance.clone());
        let task = tokio::spawn(async move {
            let id = object.id.clone();
            if let Err(why) = run(&own, &instance, (object, expected, log)).await {
                own.book.agent(&format!("backup {id} was not restored: {why}"));
                let_go(&own).await;
                change(&own, &id, |task| {
                    task.phase = TaskPhase::Failed;
                    task.error = why;
                });
            }
        });
        *node.restoring.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(AbortOnDropHandle::new(task));
    }
    Ok(())
}

/// Ends what runs: the agent stops. Redis drops what it has of the data.
pub fn end(node: &Node) {
    *node.restoring.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Removes what an agent left behind that was killed.
pub fn remove_left_over(instance: &RedisInstance) {
    volume_copy::remove_left_over(instance);
}

fn change(node: &Node, id: &str, edit: impl FnOnce(&mut RestoreTask)) {
    node.update(|state| {
        if let Some(task) = state.restore.as_mut().filter(|task| task.id == id) {
            edit(task);
        }
    });
}

/// Redis is a replica of nobody again; not where it became something else meanwhile. What it cannot be
/// told it is told with the next command that gives it a master, or makes it one.
async fn let_go(node: &Node) {
    let (host, port) = BLACK_HOLE;
    let told = async || {
        let mut session = node.redis.open(ANSWER).await?;
        session.run(redis::cmd("REPLICAOF").arg(host).arg(port)).await?;
        session.copies(FROM_A_MASTER).await
    };
    let work = async {
        while !node.memory().promoted() && node.following().is_none() && told().await.is_err() {
            sleep(BEAT).await;
        }
    };
    let _ = timeout(LET_GO, work).await;
}

/// Gives Redis all of it; returns once Redis left, as it does when it is promoted.
async fn run(
    node: &Arc<Node>,
    instance: &RedisInstance,
    (object, expected, log): Wanted,
) -> Result<(), String> {
    let id = object.id.clone();
    let io = |what: &'static str| move |error: io::Error| format!("{what} ({error})");
    let storage =
        Storage::open(&object.storage, object.keys.as_ref()).map_err(|e| error_chain(&e))?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await;
    let listener = listener.map_err(io("the agent cannot listen on loopback"))?;
    let port = listener.local_addr().map_err(io("the agent cannot listen on loopback"))?.port();
    let (run_id, is_empty) = attach(node, port, FROM_A_BACKUP).await?;
    // One that has data takes the others to its volume by itself first.
    let begun = is_empty.then(|| VolumeCopy::begin(instance)).transpose();
    let mut copy = begun.map_err(|error| error_chain(&SendError::Volume(error)))?;
    let accepted = timeout(ATTACH, listener.accept()).await;
    let (stream, _) = accepted
        .map_err(|_| "Redis did not ask for the data in time".to_owned())?
        .map_err(io("Redis did not ask for the data"))?;
    // Nobody else is to get them.
    drop(listener);
    let mut told = Instant::now();
    let progress = |done| {
        if done == expected.bytes || told.elapsed() >= TELL {
            told = Instant::now();
            change(node, &id, |task| task.done_bytes = done);
        }
    };
    let fed = node.feeds();
    let what = (storage.clone(), object, &expected);
    let sent = send(stream, what, copy.as_mut(), progress).await;
    let (mut requests, mut to) = sent.map_err(|error| error_chain(&error))?;
    let done = expected.bytes;
    // Of the stream, after the data.
    let mut sent = 0;
    tokio::select! {
        loaded = loaded(node, &run_id) => loaded?,
        () = stay(&mut requests, &mut to, &mut sent) => {
            return Err("Redis refused the data; its log says why".to_owned());
        }
    }
    drop(fed);
    if let Some(copy) = copy {
        copy.keep().await.map_err(|error| error_chain(&SendError::Volume(error)))?;
    }
    if let Some(log) = log {
        let replayed = tokio::select! {
            replayed = replay(&storage, log, &mut to) => replayed?,
            () = read_on(&mut requests) => {
                return Err("Redis did not take the log of writes; its own log says why".to_owned());
            }
        };
        sent += replayed;
        let mut pings = 0;
        let stays = stay(&mut requests, &mut to, &mut pings);
        let kept = async {
            applied(node, &run_id, OFFSET + sent).await?;
            node.book.agent(&format!("{replayed} bytes of the log of writes are replayed"));
            on_the_volume(node, instance, &run_id).await
        };
        tokio::select! {
            kept = kept => kept?,
            () = stays => return Err("Redis did not apply the log of writes; its own log says why".to_owned()),
        }
    }
    usual(node, &run_id).await.map_err(|error| error_chain(&error))?;
    node.book.agent(&format!("backup {id} is restored: Redis has loaded {done} bytes"));
    change(node, &id, |task| {
        task.phase = TaskPhase::Done;
        task.run_id = run_id;
    });
    // Until it is promoted, or follows somebody else.
    stay(&mut requests, &mut to, &mut 0).await;
    Ok(())
}

/// The very process that has the data copies its next master as every other does.
async fn usual(node: &Node, run_id: &str) -> Result<(), ControlError> {
    node.redis.open_to(run_id, ANSWER).await?.0.copies(FROM_A_MASTER).await
}

/// Why a redis did not get the data of a backup.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// The storage, or the data.
    #[error(transparent)]
    Data(#[from] StreamError),
    /// Redis asked for nothing.
    #[error("Redis did not ask for the data")]
    Silent(#[source] io::Error),
    /// Redis ended the link in the middle.
    #[error("Redis did not take the data; its log says why")]
    Refused(#[source] io::Error),
    /// Redis stopped reading.
    #[error(
        "Redis has taken no more of the data for 2 min; it or its volume hangs, its log says why"
    )]
    Stalled,
    /// The volume does not keep them.
    #[error("the volume did not take the data; it may be full")]
    Volume(#[source] io::Error),
    /// The volume hangs.
    #[error("the volume has taken no more of the data for 2 min; it hangs")]
    VolumeStalled,
}

/// Is the master of the redis at the other end for as long as that gets all of the data: these, of this
/// storage, which are to be what is expected. They are on the volume before the last of them are sent,
/// where there is a `copy`. `progress` is told how many bytes Redis has got.
pub(super) async fn send(
    stream: TcpStream,
    (storage, object, expected): (Storage, BackupObject, &Expected),
    mut copy: Option<&mut VolumeCopy>,
    mut progress: impl FnMut(u64),
) -> Result<Link, SendError> {
    let (mut requests, mut to) = split(stream);
    greet(&mut requests, &mut to, expected.bytes).await.map_err(SendError::Silent)?;
    let of = (object.id, object.key);
    let mut blocks = download(storage, object.object, of, expected.clone());
    let mut done = 0;
    while let Some(block) = blocks.recv().await {
        let block = block?;
        done += block.len() as u64;
        if let Some(copy) = copy.as_deref_mut() {
            let work = async {
                copy.write(&block).await?;
                if done == expected.bytes { copy.whole().await } else { Ok(()) }
            };
            let taken = timeout(STALL, work).await;
            taken.map_err(|_| SendError::VolumeStalled)?.map_err(SendError::Volume)?;
        }
        let sent = timeout(STALL, to.write_all(&block)).await;
        sent.map_err(|_| SendError::Stalled)?.map_err(SendError::Refused)?;
        progress(done);
    }
    if done == expected.bytes { Ok((requests, to)) } else { Err(StreamError::Dropped.into()) }
}

/// Sends the log on to the last command that is whole and outside of a transaction; how many bytes
/// that are.
async fn replay(storage: &Storage, log: LogObject, to: &mut OwnedWriteHalf) -> Result<i64, String> {
    let Some(first) = log.parts.first().map(|(part, _)| part.first) else { return Ok(0) };
    let place = (log.log.as_str(), log.cluster.as_str(), log.uid.as_str());
    let mut pieces = storage.read_log(place, log.parts, UnixMs::default());
    let mut scanner = Scanner::new(first);
    // What came after the last end of a command.
    let mut rest: Vec<u8> = Vec::new();
    let mut sent = first;
    while let Some(piece) = pieces.next().await.map_err(|error| error_chain(&error))? {
        let bytes = piece.bytes_to(piece.end);
        scanner.feed(&bytes).map_err(|error| error.to_string())?;
        rest.extend_from_slice(&bytes);
        let whole = usize::try_from(scanner.boundary() - sent).unwrap_or(0).min(rest.len());
        let written = timeout(STALL, to.write_all(&rest[..whole])).await;
        written
            .map_err(|_| "Redis takes no more of the log of writes".to_owned())?
            .map_err(|error| format!("Redis did not take the log of writes ({error})"))?;
        rest.drain(..whole);
        sent = scanner.boundary();
        if rest.len() > LONGEST_COMMAND {
            return Err(format!(
                "a command in the log has more than {} MiB, and is not replayed",
                LONGEST_COMMAND >> 20
            ));
        }
    }
    Ok(sent - first)
}

/// Reads what Redis says, which means nothing here, until it ends the link.
async fn read_on(from: &mut BufReader<OwnedReadHalf>) {
    let mut buffer = [0; 1024];
    while from.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
}

/// Waits until Redis has applied the stream up to an offset, for as long as it goes on.
async fn applied(node: &Node, run_id: &str, offset: i64) -> Result<(), String> {
    let mut progress = Progress::begin();
    loop {
        let mut at = None;
        if let Ok(mut session) = node.redis.open(ANSWER).await
            && let Ok(info) = session.info().await
        {
            if info.run_id() != run_id {
                return Err("redis was started again while the log was replayed".to_owned());
            }
            if info.offset() >= offset {
                return Ok(());
            }
            at = Some(info.offset());
        }
        if progress.stands_still(at) {
            return Err(format!(
                "Redis has applied nothing more of the log of writes for {} s: it or its volume hangs; its own log says more",
                STILL.as_secs()
            ));
        }
        sleep(BEAT / 4).await;
    }
}

/// Waits until all that Redis has is on the volume, for as long as it goes on writing: what was
/// replayed is not in the copy of the backup.
async fn on_the_volume(node: &Node, instance: &RedisInstance, run_id: &str) -> Result<(), String> {
    if !node.identity.persistent {
        return Ok(());
    }
    let (mut progress, mut asked) = (Progress::begin(), None);
    loop {
        let mut at = None;
        match node.redis.open_to(run_id, ANSWER).await {
            Err(error @ ControlError::Restarted) => return Err(error_chain(&error)),
            // It is looked at again.
            Err(_) => {}
            Ok((mut session, info)) => {
                let works = ["rdb_bgsave_in_progress", "aof_rewrite_in_progress"];
                let works =
                    works.iter().any(|name| info.flag(name)) || info.flag("aof_rewrite_scheduled");
                let saves = info.number("rdb_saves");
                let whole = info.text("rdb_last_bgsave_status") == "ok";
                // What Redis has not handed to the system dies with it.
                let unwritten = ["aof_buffer_length", "aof_pending_bio_fsync"];
                let written = if info.flag("aof_enabled") {
                    let all_written = unwritten.iter().all(|name| info.number(name) == 0);
                    instance.has_append_only_file() && all_written
                } else {
                    whole && asked.is_some_and(|before| saves > before)
                };
                if written && !works {
                    return Ok(());
                }
                if !works && !info.flag("aof_enabled") {
                    asked = session.run(&redis::cmd("BGSAVE")).await.is_ok().then_some(saves);
                }
                at = Some(info.number("current_save_keys_processed"));
            }
        }
        if progress.stands_still(at) {
            return Err(format!(
                "Redis has written nothing more of what was replayed to its volume for {} s: its log says why",
                STILL.as_secs()
            ));
        }
        sleep(BEAT / 4).await;
    }
}

/// Points Redis at the agent, which it copies in this way; which process that is, and whether it has
/// no data.
pub(super) async fn attach(
    node: &Node,
    port: u16,
    how: [(&str, &str); 2],
) -> Result<(String, bool), String> {
    let said = |error: ControlError| error_chain(&error);
    let mut session = node.redis.open(ANSWER).await.map_err(said)?;
    let info = session.info().await.map_err(said)?;
    if info.role() != Role::Replica {
        return Err("redis is master here: what it has is not overwritten".to_owned());
    }
    let anonymous = [("masteruser", String::new()), ("masterauth", String::new())];
    session.set(&anonymous).await.map_err(said)?;
    session.copies(how).await.map_err(said)?;
    session.run(redis::cmd("REPLICAOF").arg("127.0.0.1").arg(port)).await.map_err(said)?;
    Ok((info.run_id().to_owned(), info.keys() == 0))
}

/// Waits until Redis has loaded everything and counts as in sync, for as long as it goes on.
pub(super) async fn loaded(node: &Node, run_id: &str) -> Result<(), String> {
    let mut progress = Progress::begin();
    loop {
        let mut at = None;
        // While it loads it answers nothing else.
        if let Ok(mut session) = node.redis.open(ANSWER).await
            && let Ok(info) = session.info().await
        {
            if info.run_id() != run_id {
                return Err("redis was started again while it loaded the data".to_owned());
            }
            if info.link_up() && !info.flag("loading") && !info.flag("master_sync_in_progress") {
                return Ok(());
            }
            at = Some(info.number("loading_loaded_bytes"));
        }
        if progress.stands_still(at) {
            return Err(format!(
                "Redis has loaded nothing more of the data for {} s: it or its volume hangs; its own log says more",
                STILL.as_secs()
            ));
        }
        sleep(BEAT / 4).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpSocket;

    use super::*;
    use crate::backup::format::BackupKey;
    use crate::backup::stream::upload;
    use crate::model::backup::StorageSpec;

    const MIB: usize = 1 << 20;
    /// What each end of the link holds, in bytes; the kernel takes twice as much.
    const HELD: u32 = 1 << 16;

    /// How a restore of 16 MiB ends whose redis takes a MiB each `pace`, until it has `most` of them;
    /// and how long that took by a clock that goes on as fast as everybody waits.
    async fn fed(pace: Duration, most: usize) -> (Result<(), String>, Duration) {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}", dir.path().display());
        let storage = Storage::open(&StorageSpec { url, ..StorageSpec::default() }, None).unwrap();
        let mut plain = vec![0; 16 * MIB];
        rand::RngCore::fill_bytes(&mut rand::thread_rng(), &mut plain);
        let key = || BackupKey([1; 32]);
        let from = std::io::Cursor::new(plain.clone());
        let up = upload(&storage, "b", ("b", &key()), from, plain.len() as u64, |_| {}).await;
        let up = up.unwrap();
        // The kernel would hold as much of the data as its settings say, all of them on some machines.
        let (listens, connects) = (TcpSocket::new_v4().unwrap(), TcpSocket::new_v4().unwrap());
        listens.set_send_buffer_size(HELD).unwrap();
        connects.set_recv_buffer_size(HELD).unwrap();
        listens.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = listens.listen(1).unwrap();
        let mut redis = connects.connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let object = BackupObject {
            id: "b".into(),
            storage: StorageSpec::default(),
            keys: None,
            object: "b".into(),
            key: key(),
        };
        let expected = Expected { bytes: up.plain_bytes, sha256: up.plain_sha256 };
        tokio::time::pause();
        let began = Instant::now();
        let sends = tokio::spawn(async move {
            let sent = send(stream, (storage, object, &expected), None, |_| {}).await;
            sent.map_err(|error| error_chain(&error))
        });
        redis.write_all(b"PSYNC ? -1\r\n").await.unwrap();
        let takes = tokio::spawn(async move {
            let mut taken = vec![0; MIB];
            for _ in 0..most {
                sleep(pace).await;
                if redis.read_exact(&mut taken).await.is_err() {
                    break;
                }
            }
            redis
        });
        // The thread that reads the backup keeps the clock from going on by itself.
        while !sends.is_finished() {
            for _ in 0..200 {
                tokio::task::yield_now().await;
            }
            std::thread::sleep(Duration::from_millis(1));
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        drop(takes);
        (sends.await.unwrap().map(drop), began.elapsed())
    }

    #[tokio::test]
    async fn a_redis_that_takes_the_data_slowly_gets_all_of_them() {
        let pace = Duration::from_secs(20);
        let (ended, took) = fed(pace, 16).await;
        assert_eq!(ended, Ok(()));
        // But for the last MiB, of which the link holds a part.
        assert!(took >= pace * 15, "{took:?}");
        assert!(took > STALL, "{took:?}: longer than any wait of it");
    }

    #[tokio::test]
    async fn a_redis_that_takes_no_more_of_the_data_ends_the_restore_with_a_sentence() {
        let (ended, took) = fed(Duration::from_secs(1), 2).await;
        let why = ended.unwrap_err();
        assert!(why.contains("no more of the data for 2 min"), "{why}");
        assert!(took >= STALL && took < 4 * STALL, "{took:?}");
    }
}
