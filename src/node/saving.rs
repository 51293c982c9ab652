//! Has Redis write a snapshot, which can be read while it is written.
//!
//! Redis writes to a file of its own from the beginning to the end, and names it `dump.rdb` once it
//! is whole. So it is read from its first bytes on, and whether they were those of a snapshot is known
//! when Redis says that it succeeded and that name is the one of the very file that was read.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::growing::{End, GrowingFile};
use super::info::Info;
use super::rdb_header::{self, Header};
use super::redis_control::{ANSWER, ControlError, Session};
use super::snapshots::Snapshots;
use super::state::Node;
use crate::error_chain::error_chain;
use crate::model::node::Role;

/// Redis writes its snapshot within this.
const LIMIT: Duration = Duration::from_hours(1);
/// A snapshot is taken so often at most for a count of keys that is its own: under load the counts of
/// all of them may be those of a moment later.
const TRIES: u32 = 3;
/// Between two looks at Redis while it writes.
const LOOK: Duration = Duration::from_millis(100);
/// Between two looks for the file that it has just begun.
const FIRST_LOOK: Duration = Duration::from_millis(10);

/// A snapshot that Redis has begun.
pub(super) struct Saving {
    /// It, from its first byte on.
    pub file: GrowingFile,
    /// When it is of.
    pub moment: Moment,
    /// Says whether it became whole. The file has no end before that.
    pub writing: Writing,
}

/// How Redis stood at the moment of a snapshot.
pub(super) struct Moment {
    pub replid: String,
    pub offset: i64,
    pub info: Info,
    /// `info` is of that very moment.
    pub exact: bool,
}

/// The data as they are now, open, for who reads them at once.
pub(super) async fn whole(node: &Node) -> Result<File, String> {
    let Saving { file, writing, .. } = begin(node).await?;
    writing.ended().await?;
    Ok(file.into_file())
}

/// Begins one; returns once the beginning of it can be read.
pub(super) async fn begin(node: &Node) -> Result<Saving, String> {
    let until = Instant::now() + LIMIT;
    timeout_at(until, begin_until(node, until)).await.unwrap_or_else(|_| Err(too_slow()))
}

fn too_slow() -> String {
    format!("Redis did not write its snapshot within {} s", LIMIT.as_secs())
}

fn said(error: &ControlError) -> String {
    error_chain(error)
}

async fn begin_until(node: &Node, until: Instant) -> Result<Saving, String> {
    let mut session = node.redis.open(ANSWER).await.map_err(|error| said(&error))?;
    let mut tries = 0;
    loop {
        let before = session.info().await.map_err(|error| said(&error))?;
        if before.role() != Role::Master && !before.link_up() {
            return Err("its link to the master was lost before the snapshot".to_owned());
        }
        let idle =
            !before.flag("rdb_bgsave_in_progress") && !before.flag("aof_rewrite_in_progress");
        let began = Began {
            number: before.number("rdb_saves") + 1,
            dump: identity(node.snapshots.dump()),
            others: node.snapshots.unfinished(),
        };
        // Another snapshot, or a rewrite of the log, must end first: Redis would begin this one later
        // by itself.
        if idle
            && let Some(info) = ask(&mut session).await.map_err(|error| said(&error))?
            && let Some((file, header)) = opened(&mut session, &node.snapshots, &began).await?
        {
            // Redis says in the file at which offset it was taken. Another one than was read beside
            // it: the count of keys may be another one too.
            let same = header.offset.is_none_or(|offset| offset == info.offset());
            tries += 1;
            if same || tries >= TRIES {
                let identity = file.metadata().map(|of| (of.dev(), of.ino()));
                let identity = identity.map_err(|error| unreadable(&error))?;
                let (file, end) = GrowingFile::new(file);
                let dump = node.snapshots.dump().to_owned();
                let number = began.number;
                let writing = Writing { session, dump, identity, number, until, end };
                return Ok(Saving { file, moment: Moment::new(header, info), writing });
            }
        }
        sleep(LOOK).await;
    }
}

/// Device and inode of a file.
type Identity = (u64, u64);

fn identity(path: &Path) -> Option<Identity> {
    std::fs::metadata(path).ok().map(|of| (of.dev(), of.ino()))
}

/// A snapshot that was begun, and what there was before it.
struct Began {
    /// Its number among all that were begun.
    number: i64,
    /// What `dump.rdb` was.
    dump: Option<Identity>,
    /// What was not finished.
    others: BTreeSet<PathBuf>,
}

impl Moment {
    fn new(header: Header, info: Info) -> Self {
        let replid =
            if header.replid.is_empty() { info.replid().to_owned() } else { header.replid };
        Self {
            replid,
            offset: header.offset.unwrap_or(info.offset()),
            exact: header.offset == Some(info.offset()),
            info,
        }
    }
}

/// Begins a snapshot, and reads how Redis stands right after; none where it cannot now.
///
/// Not as a transaction: within one Redis begins no snapshot, but notes that it is to begin one.
async fn ask(session: &mut Session) -> Result<Option<Info>, ControlError> {
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

fn unreadable(error: &io::Error) -> String {
    format!("the snapshot cannot be read ({error})")
}

/// The file of a snapshot that was just begun, and what its beginning says: the one that Redis writes
/// to once it says that, or what is there when it has ended. None where that may be another one's.
async fn opened(
    session: &mut Session,
    snapshots: &Snapshots,
    began: &Began,
) -> Result<Option<(File, Header)>, String> {
    loop {
        // It may have another name by now, or say nothing yet.
        if let Some(path) = snapshots.unfinished().difference(&began.others).next()
            && let Ok(mut file) = File::open(path)
            && let Ok(header) = rdb_header::read(&mut file)
        {
            return Ok(Some((file, header)));
        }
        let info = session.info().await.map_err(|error| said(&error))?;
        match outcome(&info, began.number) {
            None => {}
            // It was ended without a word.
            Some(Outcome::Whole) if identity(snapshots.dump()) == began.dump => return Ok(None),
            Some(Outcome::Whole) => {
                let mut file = File::open(snapshots.dump()).map_err(|error| unreadable(&error))?;
                let header = rdb_header::read(&mut file).map_err(|error| unreadable(&error))?;
                return Ok(Some((file, header)));
            }
            Some(Outcome::Failed) => return Err(KILLED.to_owned()),
            Some(Outcome::Unknown) => return Ok(None),
        }
        sleep(FIRST_LOOK).await;
    }
}

const KILLED: &str = "Redis could not write its snapshot: the process that wrote it was killed, as it is where memory runs out, or the volume is full; its log says which";
const LOST: &str = "Redis ended the snapshot that was read before it was whole, or began another one at once: it is none; its log says more";

/// What became of a snapshot, as Redis says.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// It succeeded, unless Redis ended it without a word: then nothing has its name.
    Whole,
    Failed,
    /// Redis has begun another one since.
    Unknown,
}

/// What became of the `number`th snapshot; none while Redis writes it. Redis counts one when it
/// begins, and that it counts one that succeeded would be no difference.
fn outcome(info: &Info, number: i64) -> Option<Outcome> {
    let (count, writes) = (info.number("rdb_saves"), info.flag("rdb_bgsave_in_progress"));
    let succeeded = info.text("rdb_last_bgsave_status") == "ok";
    match count {
        _ if count <= number && writes => None,
        _ if count <= number && !succeeded => Some(Outcome::Failed),
        _ if count == number => Some(Outcome::Whole),
        _ => Some(Outcome::Unknown),
    }
}

/// The writing of a snapshot. Dropped, it leaves the file without an end: who reads it gets an error.
pub(super) struct Writing {
    session: Session,
    /// Its name once it is whole.
    dump: PathBuf,
    /// Of the file that is read.
    identity: Identity,
    number: i64,
    until: Instant,
    end: End,
}

impl Writing {
    /// Waits until the snapshot is whole, and then says that to whoever reads it; its bytes.
    ///
    /// # Errors
    /// One sentence, which the reader gets too.
    pub async fn ended(self) -> Result<u64, String> {
        let Self { mut session, dump, identity, number, until, end } = self;
        let work = written(&mut session, (&dump, number), identity);
        let ended = timeout_at(until, work).await.unwrap_or_else(|_| Err(too_slow()));
        match &ended {
            Ok(_) => end.whole(),
            Err(why) => end.failed(why),
        }
        ended
    }
}

async fn written(
    session: &mut Session,
    (dump, number): (&Path, i64),
    identity: Identity,
) -> Result<u64, String> {
    loop {
        let info = session.info().await.map_err(|error| said(&error))?;
        match outcome(&info, number) {
            None => {}
            Some(Outcome::Whole) => {
                let named = std::fs::metadata(dump).map_err(|error| unreadable(&error))?;
                let same = (named.dev(), named.ino()) == identity;
                return if same { Ok(named.len()) } else { Err(LOST.to_owned()) };
            }
            Some(Outcome::Failed) => return Err(KILLED.to_owned()),
            Some(Outcome::Unknown) => return Err(LOST.to_owned()),
        }
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(saves: i64, writes: bool, status: &str) -> Info {
        let text = format!(
            "rdb_saves:{saves}\r\nrdb_bgsave_in_progress:{}\r\nrdb_last_bgsave_status:{status}\r\n",
            u8::from(writes)
        );
        Info::parse(&text, &std::collections::HashMap::new())
    }

    #[test]
    fn the_outcome_is_that_of_the_snapshot_that_was_begun() {
        let of = |saves, writes, status| outcome(&says(saves, writes, status), 8);
        assert_eq!(of(8, true, "ok"), None);
        assert_eq!(of(8, true, "err"), None, "of the one before");
        assert_eq!(of(8, false, "ok"), Some(Outcome::Whole));
        assert_eq!(of(8, false, "err"), Some(Outcome::Failed));
        assert_eq!(of(7, true, "ok"), None, "where it counts those that succeeded");
        assert_eq!(of(7, false, "err"), Some(Outcome::Failed));
        assert_eq!(of(9, true, "ok"), Some(Outcome::Unknown), "the next one was begun already");
        assert_eq!(of(9, false, "err"), Some(Outcome::Unknown));
    }
}
