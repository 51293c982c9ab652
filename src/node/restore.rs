//! Gives Redis the data of a backup, as its master on loopback: Redis copies them as it would a
//! master's, and stays the replica without writes that it is until it is promoted.
//!
//! Redis gets the last bytes once all of them were found to be those of the backup, so that nothing
//! else ever becomes data. The archived log follows on the same link: it is what the master of then
//! sent its replicas, and Redis applies it as such.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use super::convert::{BackupObject, LogObject};
use super::nonces::random_hex;
use super::progress::{Progress, STILL};
use super::redis_config::BLACK_HOLE;
use super::redis_control::{ANSWER, ControlError};
use super::state::Node;
use crate::backup::scanner::Scanner;
use crate::backup::storage::Storage;
use crate::backup::stream::{Expected, StreamError, download};
use crate::error_chain::error_chain;
use crate::model::backup::{RestoreTask, TaskPhase};
use crate::model::node::Role;
use crate::model::time::UnixMs;

/// Redis asks its new master within this.
pub(super) const ATTACH: Duration = Duration::from_secs(30);
/// Redis takes the next bytes within this.
pub(super) const STALL: Duration = Duration::from_mins(2);
/// Between two looks at Redis while it loads, and two pings to it.
pub(super) const BEAT: Duration = Duration::from_secs(1);
/// Progress is told so often at most.
pub(super) const TELL: Duration = Duration::from_millis(500);
/// A request of Redis has no more words, and no longer ones.
const WORDS: usize = 16;
const LONGEST: usize = 512;
/// A command, or a transaction, in the log has no more bytes.
const LONGEST_COMMAND: usize = 1 << 30;
/// Where the history of the restored data begins.
pub(super) const OFFSET: i64 = 1;

/// Begins; the state says how far it is. The same restore again changes nothing while it runs, and
/// while the redis that has the data lives.
pub fn start(
    node: &Arc<Node>,
    object: BackupObject,
    expected: Expected,
    log: Option<LogObject>,
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
        let node = node.clone();
        tokio::spawn(async move {
            let id = object.id.clone();
            let ended = run(&node, object, expected, log).await;
            if let Err(why) = ended {
                node.book.agent(&format!("backup {id} was not restored: {why}"));
                let _ = let_go(&node).await;
                change(&node, &id, |task| {
                    task.phase = TaskPhase::Failed;
                    task.error = why;
                });
            }
        });
    }
    Ok(())
}

fn change(node: &Node, id: &str, edit: impl FnOnce(&mut RestoreTask)) {
    node.update(|state| {
        if let Some(task) = state.restore.as_mut().filter(|task| task.id == id) {
            edit(task);
        }
    });
}

/// Redis is a replica of nobody again; not where it became something else meanwhile.
async fn let_go(node: &Node) -> Result<(), ControlError> {
    if node.memory().promoted() || node.following().is_some() {
        return Ok(());
    }
    let (host, port) = BLACK_HOLE;
    let mut session = node.redis.open(ANSWER).await?;
    session.run(redis::cmd("REPLICAOF").arg(host).arg(port)).await
}

/// Gives Redis all of it; returns once Redis left, as it does when it is promoted.
async fn run(
    node: &Arc<Node>,
    object: BackupObject,
    expected: Expected,
    log: Option<LogObject>,
) -> Result<(), String> {
    let id = object.id.clone();
    let io = |what: &'static str| move |error: io::Error| format!("{what} ({error})");
    let storage =
        Storage::open(&object.storage, object.keys.as_ref()).map_err(|e| error_chain(&e))?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await;
    let listener = listener.map_err(io("the agent cannot listen on loopback"))?;
    let port = listener.local_addr().map_err(io("the agent cannot listen on loopback"))?.port();
    let run_id = attach(node, port).await?;
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
    let sent = send(stream, storage.clone(), object, &expected, progress).await;
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
        tokio::select! {
            applied = applied(node, &run_id, OFFSET + sent) => applied?,
            () = stays => return Err("Redis did not apply the log of writes; its own log says why".to_owned()),
        }
        node.book.agent(&format!("{replayed} bytes of the log of writes are replayed"));
    }
    node.book.agent(&format!("backup {id} is restored: Redis has loaded {done} bytes"));
    change(node, &id, |task| {
        task.phase = TaskPhase::Done;
        task.run_id = run_id;
    });
    // Until it is promoted, or follows somebody else.
    stay(&mut requests, &mut to, &mut 0).await;
    Ok(())
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
        "Redis has taken no more of the data for 2 min; its volume may be full or hang, its log says why"
    )]
    Stalled,
}

/// The link to a redis whose master this agent is.
pub(super) type Link = (BufReader<OwnedReadHalf>, OwnedWriteHalf);

/// Is the master of the redis at the other end for as long as that gets all of the data. `progress`
/// is told how many bytes it has got.
pub(super) async fn send(
    stream: TcpStream,
    storage: Storage,
    object: BackupObject,
    expected: &Expected,
    mut progress: impl FnMut(u64),
) -> Result<Link, SendError> {
    let (mut requests, mut to) = split(stream);
    greet(&mut requests, &mut to, expected.bytes).await.map_err(SendError::Silent)?;
    let of = (object.id, object.key);
    let mut blocks = download(storage, object.object, of, expected.clone());
    let mut done = 0;
    while let Some(block) = blocks.recv().await {
        let block = block?;
        let sent = timeout(STALL, to.write_all(&block)).await;
        sent.map_err(|_| SendError::Stalled)?.map_err(SendError::Refused)?;
        done += block.len() as u64;
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

/// Points Redis at the agent.
pub(super) async fn attach(node: &Node, port: u16) -> Result<String, String> {
    let said = |error: ControlError| error_chain(&error);
    let mut session = node.redis.open(ANSWER).await.map_err(said)?;
    let info = session.info().await.map_err(said)?;
    if info.role() != Role::Replica {
        return Err("redis is master here: what it has is not overwritten".to_owned());
    }
    let anonymous = [("masteruser", String::new()), ("masterauth", String::new())];
    session.set(&anonymous).await.map_err(said)?;
    session.run(redis::cmd("REPLICAOF").arg("127.0.0.1").arg(port)).await.map_err(said)?;
    Ok(info.run_id().to_owned())
}

/// Both ways of a link.
pub(super) fn split(stream: TcpStream) -> (BufReader<OwnedReadHalf>, OwnedWriteHalf) {
    let _ = stream.set_nodelay(true);
    let (from, to) = stream.into_split();
    (BufReader::new(from), to)
}

/// A master's part of the beginning of a replication: every request is granted, and the last one is
/// answered with the announcement of the whole data set, of so many bytes. Returns the name of the
/// history, which begins at [`OFFSET`].
pub(super) async fn greet(
    from: &mut BufReader<OwnedReadHalf>,
    to: &mut OwnedWriteHalf,
    bytes: u64,
) -> io::Result<String> {
    let work = async {
        loop {
            let request = request(from).await?;
            let answer = match request.first().map(|word| word.to_ascii_uppercase()).as_deref() {
                Some("PING") => "+PONG\r\n".to_owned(),
                Some("PSYNC" | "SYNC") => {
                    // 40 characters, as every history's name.
                    let history: String = (random_hex() + &random_hex()).chars().take(40).collect();
                    let start = format!("+FULLRESYNC {history} {OFFSET}\r\n${bytes}\r\n");
                    to.write_all(start.as_bytes()).await?;
                    return Ok(history);
                }
                _ => "+OK\r\n".to_owned(),
            };
            to.write_all(answer.as_bytes()).await?;
        }
    };
    timeout(ATTACH, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// One request of Redis: an array of texts, or a line.
pub(super) async fn request(from: &mut BufReader<OwnedReadHalf>) -> io::Result<Vec<String>> {
    let first = line(from).await?;
    let Some(count) = first.strip_prefix('*') else {
        return Ok(first.split_whitespace().map(str::to_owned).collect());
    };
    let count = number(count, WORDS)?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let length = line(from).await?;
        let length = number(length.strip_prefix('$').unwrap_or_default(), LONGEST)?;
        let mut word = vec![0; length + 2];
        from.read_exact(&mut word).await?;
        word.truncate(length);
        words.push(String::from_utf8_lossy(&word).into_owned());
    }
    Ok(words)
}

fn number(text: &str, most: usize) -> io::Result<usize> {
    let number = text.parse().ok().filter(|number| *number <= most);
    number
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "Redis asked in an unknown way"))
}

async fn line(from: &mut BufReader<OwnedReadHalf>) -> io::Result<String> {
    let mut line = Vec::new();
    let read = from.take(LONGEST as u64).read_until(b'\n', &mut line).await?;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// Keeps the link alive until Redis ends it. What it acknowledges is read and means nothing here.
/// `sent` counts the bytes that become part of the stream.
pub(super) async fn stay(
    from: &mut BufReader<OwnedReadHalf>,
    to: &mut OwnedWriteHalf,
    sent: &mut i64,
) {
    const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
    let mut buffer = [0; 1024];
    loop {
        tokio::select! {
            read = from.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            },
            () = sleep(BEAT) => {
                // A piece of one would spoil the rest: it is written as a whole, or the link is over.
                if to.write_all(PING).await.is_err() {
                    return;
                }
                *sent += 14;
            }
        }
    }
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
    use super::*;
    use crate::backup::format::BackupKey;
    use crate::backup::stream::upload;
    use crate::model::backup::StorageSpec;

    const MIB: usize = 1 << 20;

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
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut redis = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
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
            let sent = send(stream, storage, object, &expected, |_| {}).await;
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
        let (ended, took) = fed(Duration::from_secs(20), 16).await;
        assert_eq!(ended, Ok(()));
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
