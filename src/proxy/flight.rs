//! The requests of one connection that are on their way, in order: what is sent when, what is
//! answered with what, and what is sent again to the next master. No I/O: bytes go in, bytes come
//! out.
//!
//! What is sent again was not carried out: the server said so, or it changes nothing. All else that
//! has no reply when a server is gone may have been carried out, and the client's connection ends.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::commands::{Kind, Refusal};
use super::confirm::Confirm;
use super::connection::Connection;
use super::resp::{self, Scanner};

/// Bytes of requests that are kept until they are answered; a larger one is passed on and not kept.
const MOST_KEPT: usize = 1 << 20;
/// Requests that are kept until they are answered.
const MOST_OPEN: usize = 64 << 10;
/// Replies that are held back, bytes.
const MOST_HELD: usize = 64 << 20;
/// What waits to be written at most before more is read.
const MOST_OUT: usize = 64 << 10;
/// A buffer that is empty keeps so much room at most: most connections are idle.
const ROOM: usize = 2 << 10;
/// Before a request that was refused is sent again, and the longest such pause.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// The old master answers what it has within this after there is another one; after a planned change it
/// is waited for as long as for a master, since it handed over itself.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Why a client's connection ends. It is no fault of anybody's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum End {
    /// What was sent may or may not have been carried out.
    #[error("a command may have been carried out by a master that is gone")]
    Unknown,
    /// It cannot be made the same at another master.
    #[error("the connection has something that cannot be carried to another master")]
    Bound,
    /// The master does not take it as the old one did.
    #[error("the new master refused what the old one had allowed")]
    Restored,
    /// It has no room for the connection, or is not ready for it; later it may.
    #[error("the new master had no room for the connection")]
    TurnedAway,
    /// What came is not of the protocol.
    #[error(transparent)]
    Malformed(#[from] resp::Malformed),
    /// Too much would have to be held back.
    #[error("replies that are held back are larger than 64 MiB")]
    Held,
    /// All was said.
    #[error("the connection is done")]
    Done,
}

/// What whoever carries the bytes does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Goes on.
    Go,
    /// Leaves this server and finds the master.
    Dial,
}

#[derive(Debug)]
enum Answer {
    /// It is passed on in its turn.
    Held(Vec<u8>),
    /// It is passed on when replicas have what was written.
    Waits(Vec<u8>),
    /// Nothing was done.
    Refused(Vec<u8>, Refusal),
}

/// One request.
#[derive(Debug)]
struct Entry {
    kind: Kind,
    /// It was passed on as it came: it cannot be sent again.
    large: bool,
    /// A message of the proxy's goes before it, and its reply comes first.
    marked: bool,
    /// That message was refused.
    mark_failed: bool,
    /// `DISCARD` was sent in its place.
    replaced: bool,
    /// Its answer is that of an earlier try, and stands: it is not sent again.
    kept: bool,
    /// It was sent to a server that was not master yet.
    early: bool,
    length: u32,
    /// Replies that it has, that it had, and that were passed on by an earlier master.
    wants: u32,
    got: u32,
    had: u32,
    answer: Option<Answer>,
}

impl Entry {
    /// It was sent as it came, and has no answer.
    #[inline]
    fn is_as_it_came(&self) -> bool {
        let own = self.marked || self.mark_failed || self.replaced || self.early;
        !(own || self.large || self.kept || self.answer.is_some())
    }

    /// It is not sent again: what was said of it counts, and a write is confirmed as any other.
    fn stands(&mut self, confirms: bool) {
        self.answer = match self.answer.take() {
            Some(Answer::Refused(bytes, _)) => Some(Answer::Held(bytes)),
            Some(Answer::Held(bytes)) if confirms && self.kind.writes() && is_done(&bytes) => {
                Some(Answer::Waits(bytes))
            }
            other => other,
        };
    }
}

/// What is done with the reply that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sink {
    /// Passed on: it answers nothing.
    Push,
    /// Passed on.
    Pass,
    /// Kept.
    Collect,
    /// Dropped: what the proxy told the master about the connection.
    Restore,
    /// Dropped: the client has it.
    Again,
    /// Dropped: the proxy's own message.
    Mark,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Requests are sent as they come.
    Open,
    /// One was refused: nothing more is sent until all that was sent is answered.
    Refused,
    /// It is sent again then.
    Resting(Instant),
}

/// See the head of this file.
pub(super) struct Flight {
    confirm: Option<Confirm>,
    /// A refusal is not passed on before this has passed.
    patience: Duration,
    connection: Connection,

    /// The part of a request that is there, and how much of it the scanner has seen.
    partial: Vec<u8>,
    scanned: usize,
    scanner: Scanner,
    /// A large request goes through.
    streams: bool,
    /// Nothing is looked at any more.
    raw: bool,
    /// The same as soon as all before is answered.
    raw_waits: bool,
    /// A transaction is open when all that the client sent is carried out.
    client_multi: bool,
    /// Something was written since replicas were asked for.
    run: bool,

    entries: VecDeque<Entry>,
    /// Their bytes, from `head` on.
    kept: Vec<u8>,
    head: usize,
    /// How many were sent to this server, and their bytes.
    sent: usize,
    sent_bytes: usize,
    /// The first of these whose reply is to come.
    next: usize,
    /// How many at the front are answered, and stay for what follows: an open transaction.
    retained: usize,
    retained_bytes: usize,
    /// They were refused by this server.
    replay_refused: Option<Refusal>,
    /// To the server.
    out: Vec<u8>,

    reply: Option<Sink>,
    reply_scanner: Scanner,
    /// Its first byte.
    reply_first: u8,
    /// The beginning of a reply that is not understood yet.
    rest: Vec<u8>,
    collected: Vec<u8>,
    held: usize,
    /// Replies to come about the connection itself, and how many there were to be.
    restoring: usize,
    restores: usize,
    /// To the client.
    to_client: Vec<u8>,
    /// Between two messages.
    notices: Vec<u8>,

    connected: bool,
    /// It said something.
    heard: bool,
    /// There was a server before.
    moved: bool,
    /// The server is to be master, and is not yet: it is told who the client is, and nothing else is
    /// asked of it.
    ahead: bool,
    client_done: bool,
    phase: Phase,
    pause: Duration,
    /// Since when something waits that was refused, or for a master.
    stalled: Option<Instant>,
    /// Refusals are passed on: they were waited for in vain.
    passing: bool,
    /// One write is tried before all others.
    probing: bool,
    probed: bool,
    /// Another server is left for the next at this time.
    leaving: Option<Instant>,
    /// The next server is dialled then, unless it is another one.
    not_before: Option<Instant>,
    changing: bool,
    told_changing: Option<u64>,
    /// Requests wait for the end of a planned change, since then.
    gated: bool,
    gated_since: Option<Instant>,
    impatient: bool,
}

impl Flight {
    pub fn new(confirm: Option<Confirm>, patience: Duration) -> Self {
        Self {
            confirm,
            patience,
            connection: Connection::default(),
            partial: Vec::new(),
            scanned: 0,
            scanner: Scanner::default(),
            streams: false,
            raw: false,
            raw_waits: false,
            client_multi: false,
            run: false,
            entries: VecDeque::new(),
            kept: Vec::new(),
            head: 0,
            sent: 0,
            sent_bytes: 0,
            next: 0,
            retained: 0,
            retained_bytes: 0,
            replay_refused: None,
            out: Vec::new(),
            reply: None,
            reply_scanner: Scanner::default(),
            reply_first: 0,
            rest: Vec::new(),
            collected: Vec::new(),
            held: 0,
            restoring: 0,
            restores: 0,
            to_client: Vec::new(),
            notices: Vec::new(),
            connected: false,
            heard: false,
            moved: false,
            ahead: false,
            client_done: false,
            phase: Phase::Open,
            pause: FIRST_PAUSE,
            stalled: None,
            passing: false,
            probing: false,
            probed: false,
            leaving: None,
            not_before: None,
            changing: false,
            told_changing: None,
            gated: false,
            gated_since: None,
            impatient: false,
        }
    }

    /// Whether more of the client's bytes have room.
    #[inline]
    pub fn wants_client(&self) -> bool {
        if self.raw {
            return !self.client_done && self.out.len() < MOST_OUT;
        }
        !self.client_done
            && !self.raw_waits
            && self.out.len() < MOST_OUT
            && self.partial.len() <= MOST_KEPT
            && self.kept.len() - self.head < MOST_KEPT
            && self.entries.len() < MOST_OPEN
    }

    /// Whether more of the server's bytes have room.
    #[inline]
    pub fn wants_server(&self) -> bool {
        self.connected && self.to_client.len() < MOST_OUT
    }

    /// What is to be written to the server.
    #[inline]
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// What is to be written to the client.
    #[inline]
    pub fn back(&mut self) -> &mut Vec<u8> {
        &mut self.to_client
    }

    /// The client says nothing more.
    pub fn client_ended(&mut self) {
        self.client_done = true;
    }

    /// The bytes of a request.
    fn bytes_of(&self, which: usize) -> &[u8] {
        let at: usize = self.entries.iter().take(which).map(|e| e.length as usize).sum();
        let at = self.head + at;
        &self.kept[at..at + self.entries[which].length as usize]
    }

    /// So many at the front are done.
    #[inline]
    fn forget(&mut self, count: usize) {
        let mut bytes = 0;
        for _ in 0..count {
            bytes += self.entries.pop_front().map_or(0, |entry| entry.length as usize);
        }
        self.head += bytes;
        self.sent_bytes = self.sent_bytes.saturating_sub(bytes);
        self.sent = self.sent.saturating_sub(count);
        self.next = self.next.saturating_sub(count);
        (self.retained, self.retained_bytes) = (0, 0);
        if self.entries.is_empty() {
            self.head = 0;
            self.kept.clear();
            (self.stalled, self.held) = (None, 0);
        } else if self.head > MOST_OUT && self.head > self.kept.len() / 2 {
            self.kept.drain(..self.head);
            self.head = 0;
        }
    }

    /// Whether messages may be missed while there is no server.
    pub fn is_listening(&self) -> bool {
        self.connection.is_listening()
    }

    /// The next server is not dialled before this, unless it is another one.
    pub fn not_before(&mut self) -> Option<Instant> {
        self.not_before.take()
    }

    /// The same.
    pub fn rests_until(&mut self, when: Instant) {
        self.not_before = self.not_before.max(Some(when));
    }

    /// Gives memory back that an idle connection does not need.
    #[inline]
    pub fn rest(&mut self) {
        for buffer in [
            &mut self.kept,
            &mut self.out,
            &mut self.to_client,
            &mut self.partial,
            &mut self.rest,
            &mut self.collected,
        ] {
            if buffer.is_empty() && buffer.capacity() > ROOM {
                *buffer = Vec::new();
            }
        }
        if self.entries.is_empty() && self.entries.capacity() > 32 {
            self.entries = VecDeque::new();
        }
    }
}

/// Whether this reply to a write says that it was carried out.
fn is_done(reply: &[u8]) -> bool {
    reply.first() != Some(&b'-') && reply != b"+QUEUED\r\n"
}

/// Nobody is known to have it.
fn nobody(kind: Kind) -> &'static [u8] {
    if kind == Kind::WaitAof { b"*2\r\n:0\r\n:0\r\n" } else { b":0\r\n" }
}

mod moves;
mod replies;
mod requests;

pub(super) use moves::no_master;

#[cfg(test)]
mod random_tests;
#[cfg(test)]
mod tests;
