//! Sentinel's protocol in front of the signed word about the master: clients that know Sentinel find
//! the master by it, on any node, also while the operator is away.
//!
//! Nobody votes here and nobody is promoted: it answers from the newest word, and tells subscribers
//! when a newer one names another master.

mod answers;
mod ask;
mod reply;
mod view;

use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis_protocol::bytes::{Buf as _, BytesMut};
use redis_protocol::resp2;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt as _, join};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::announce::Word;
use crate::model::step::SettingsUser;
use crate::tunnel::{Exit, PREFACE};
use answers::{Facts, Session, answer};
use reply::Reply;

pub use ask::{AskError, Listener, ask};

/// A channel that Sentinel does not have: each newer word, signed. Only whoever names it hears it.
const WORDS: &str = "+announcement";
/// Connections at a time; a client keeps one or two.
const OPEN: usize = 512;
/// No command of Sentinel begins with so many bytes of HTTP/2's first line.
const TELLS: usize = 3;
/// Bytes of a command that has not ended; those of clients take a few dozen.
const LONGEST: usize = 16 * 1024;
/// A client that listens to nothing and asks nothing for so long is let go.
const IDLE: Duration = Duration::from_mins(5);
/// A client that does not take its answers for so long is let go.
const WRITE: Duration = Duration::from_secs(10);
/// After a failed accept (no file descriptors left) some connections must end first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is answered from.
#[derive(Clone)]
pub struct Desk {
    /// The newest word about the cluster.
    pub word: watch::Receiver<Option<Arc<Word>>>,
    /// Users of the manifest.
    pub users: watch::Receiver<Arc<Vec<SettingsUser>>>,
    /// The cluster.
    pub cluster: String,
    /// The incarnation that answers.
    pub own: String,
    /// Who listens.
    pub subscribers: Subscribers,
}

/// How many clients listen to something: they are told of a newer word at once.
#[derive(Clone, Debug, Default)]
pub struct Subscribers(watch::Sender<usize>);

impl Subscribers {
    /// The number, now and whenever it is another one.
    #[must_use]
    pub fn number(&self) -> watch::Receiver<usize> {
        self.0.subscribe()
    }

    /// One more, until this is dropped.
    fn one_more(&self) -> Listens {
        self.0.send_modify(|number| *number += 1);
        Listens(self.0.clone())
    }
}

struct Listens(watch::Sender<usize>);

impl Drop for Listens {
    fn drop(&mut self) {
        self.0.send_modify(|number| *number -= 1);
    }
}

/// Serves until `stop`. More than 512 connections at a time are told so and closed. One that begins as
/// HTTP/2 gets tunnels to `redis`.
pub async fn serve(listener: TcpListener, desk: Desk, redis: Exit, stop: CancellationToken) {
    let (places, ids) = (Arc::new(Semaphore::new(OPEN)), AtomicU64::new(1));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((mut stream, _)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let Ok(place) = places.clone().try_acquire_owned() else {
            let _ = stream.try_write(b"-ERR max number of clients reached\r\n");
            let _ = stream.shutdown().await;
            continue;
        };
        let id = ids.fetch_add(1, Ordering::Relaxed);
        let (desk, redis) = (desk.clone(), redis.clone());
        connections.spawn(async move {
            if let Ok(Ok(begin)) = timeout(IDLE, begin(&mut stream)).await {
                let is_http = begin.starts_with(&PREFACE[..TELLS]);
                let (read, write) = stream.into_split();
                let stream = join(AsyncReadExt::chain(Cursor::new(begin), read), write);
                if is_http {
                    redis.carry(stream).await;
                } else {
                    converse(stream, desk, id).await;
                }
            }
            drop(place);
        });
    }
}

/// The first bytes of a connection: as many as it takes to see what it is.
async fn begin(stream: &mut TcpStream) -> std::io::Result<BytesMut> {
    let mut begin = BytesMut::new();
    while begin.len() < TELLS && PREFACE.starts_with(&begin) {
        if stream.read_buf(&mut begin).await? == 0 {
            break;
        }
    }
    Ok(begin)
}

/// Answers one client until it goes, or says what nobody says.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, mut desk: Desk, id: u64) {
    let mut session = Session::new(id);
    let (mut asked, mut told) = (BytesMut::new(), BytesMut::new());
    let mut known = desk.word.borrow_and_update().clone();
    let mut listens = None;
    while !session.ends {
        let idle = async {
            if session.listens() {
                std::future::pending::<()>().await;
            } else {
                sleep(IDLE).await;
            }
        };
        let mut replies = Vec::new();
        tokio::select! {
            read = stream.read_buf(&mut asked) => match read {
                Ok(1..) => {}
                _ => return,
            },
            Ok(()) = desk.word.changed() => {
                let now = desk.word.borrow_and_update().clone();
                if let Some(word) = &now {
                    let before = known.as_ref().map(|word| &word.said);
                    replies.extend(session.told_word(word));
                    for (channel, message) in view::events(before, &word.said) {
                        replies.extend(session.told(channel, &message));
                    }
                }
                known = now;
            }
            () = idle => return,
        }
        for reply in replies {
            if reply.write(session.protocol, &mut told).is_err() {
                return;
            }
        }
        while !session.ends {
            let words = match next_command(&mut asked) {
                Ok(Some(words)) => words,
                Ok(None) => break,
                Err(sentence) => {
                    session.ends = true;
                    let _ = Reply::Error(sentence).write(session.protocol, &mut told);
                    break;
                }
            };
            let users = desk.users.borrow().clone();
            let facts = Facts {
                word: known.as_deref(),
                users: &users,
                cluster: &desk.cluster,
                own: &desk.own,
            };
            for reply in answer(facts, &mut session, &words) {
                if reply.write(session.protocol, &mut told).is_err() {
                    return;
                }
            }
            // Before it hears that it does: what is newer reaches it.
            listens =
                session.listens().then(|| listens.unwrap_or_else(|| desk.subscribers.one_more()));
            // A pipeline is answered piece by piece: it cannot make this node keep its answers.
            if told.len() > LONGEST && !send(&mut stream, &mut told).await {
                return;
            }
        }
        if !send(&mut stream, &mut told).await {
            return;
        }
    }
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, told: &mut BytesMut) -> bool {
    if told.is_empty() {
        return true;
    }
    let sent = timeout(WRITE, stream.write_all(told)).await;
    told.clear();
    matches!(sent, Ok(Ok(())))
}

/// Takes the next command out of what was read; `None` when it has not come as a whole.
fn next_command(asked: &mut BytesMut) -> Result<Option<Vec<Vec<u8>>>, String> {
    loop {
        // Typed by hand: words on a line.
        if asked.first().is_some_and(|first| *first != b'*') {
            let Some(end) = asked.iter().position(|byte| *byte == b'\n') else {
                return too_long(asked);
            };
            let line = asked.split_to(end + 1);
            let words: Vec<_> = line[..]
                .split(u8::is_ascii_whitespace)
                .filter(|word| !word.is_empty())
                .map(<[u8]>::to_vec)
                .collect();
            if words.is_empty() {
                continue;
            }
            return Ok(Some(words));
        }
        let unreadable = || "ERR Protocol error: a command is an array of bulk strings".to_owned();
        let read = resp2::decode::decode(asked).map_err(|_| unreadable())?;
        let Some((frame, length)) = read else { return too_long(asked) };
        asked.advance(length);
        let resp2::types::OwnedFrame::Array(parts) = frame else {
            return Err(unreadable());
        };
        let words: Option<Vec<_>> = parts
            .into_iter()
            .map(|part| match part {
                resp2::types::OwnedFrame::BulkString(word) => Some(word),
                _ => None,
            })
            .collect();
        let words = words.ok_or_else(unreadable)?;
        if !words.is_empty() {
            return Ok(Some(words));
        }
    }
}

fn too_long<T>(asked: &BytesMut) -> Result<Option<T>, String> {
    if asked.len() > LONGEST {
        return Err(format!("ERR Protocol error: a command is longer than {LONGEST} bytes"));
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
