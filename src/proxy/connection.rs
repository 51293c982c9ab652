//! What a connection is beside its requests: who is logged in, which database, what it listens to.
//! The next master is told all of it.

use std::collections::BTreeSet;

use super::commands::{List, State};
use super::resp::{self, request, words};

/// Bytes of names of channels at most; with more a connection is not carried.
const MOST_NAMES: usize = 1 << 20;

/// What the replies so far made of a connection.
#[derive(Debug, Default)]
pub(super) struct Connection {
    /// Requests that are sent again to the next master, each with what it replaces.
    kept: Vec<(State, Vec<u8>, Vec<u8>)>,
    channels: BTreeSet<Vec<u8>>,
    patterns: BTreeSet<Vec<u8>>,
    shards: BTreeSet<Vec<u8>>,
    names: usize,
    /// Messages of its own are told from replies by their first byte.
    pub resp3: bool,
    /// A transaction is open.
    pub multi: bool,
    /// One of its commands was refused: it cannot be carried out.
    pub multi_failed: bool,
    /// It is too large to be sent again.
    pub multi_unkept: bool,
    /// Keys are watched.
    pub watching: bool,
    /// They were at another master: nobody knows whether they are as they were.
    pub watch_lost: bool,
    /// It wrote, and was not told since which replicas have that.
    pub wrote: bool,
    /// What it wrote may have been lost with the master that had it.
    pub unsure: bool,
    /// The present master has what it wrote, and does not know that it was this connection.
    pub unmarked: bool,
    /// It is told of planned changes.
    pub notify: bool,
    /// The server ends it by itself.
    pub quits: bool,
    /// It cannot be carried to another master.
    pub bound: bool,
}

impl Connection {
    /// The server did what this request asked for.
    pub fn keep(&mut self, state: State, bytes: &[u8]) {
        let words = words(bytes);
        let has = |option: &str| {
            words.iter().skip(2).any(|word| word.eq_ignore_ascii_case(option.as_bytes()))
        };
        let third = || words.get(2).map(|word| word.to_ascii_uppercase()).unwrap_or_default();
        let replaces = match state {
            State::Hello => vec![u8::from(has("AUTH")), u8::from(has("SETNAME"))],
            State::Info => third(),
            _ => Vec::new(),
        };
        match state {
            State::Hello => self.resp3 = words.get(1).is_some_and(|version| *version == b"3"),
            // Invalidations would go to a connection of the old master.
            State::Tracking if has("REDIRECT") => self.bound = true,
            // About the next command alone.
            State::Caching => return,
            _ => {}
        }
        self.kept.retain(|(kind, what, _)| !(*kind == state && *what == replaces));
        let ends = state == State::Tracking && third() == b"OFF";
        if !ends {
            self.kept.push((state, replaces, bytes.to_vec()));
        }
    }

    /// It is as a new one.
    pub fn reset(&mut self) {
        *self = Self {
            wrote: self.wrote,
            unsure: self.unsure,
            unmarked: self.unmarked,
            bound: self.bound,
            ..Self::default()
        };
    }

    /// No transaction is open any more, and nothing is watched.
    pub fn close_transaction(&mut self) {
        (self.multi, self.multi_failed, self.multi_unkept) = (false, false, false);
        (self.watching, self.watch_lost) = (false, false);
    }

    /// The server says that this is listened to, or not any more.
    pub fn listens(&mut self, list: List, channel: &[u8], now: bool) {
        let set = match list {
            List::Channels => &mut self.channels,
            List::Patterns => &mut self.patterns,
            List::Shards => &mut self.shards,
        };
        if now && set.insert(channel.to_vec()) {
            self.names += channel.len();
            self.bound |= self.names > MOST_NAMES;
        } else if !now && set.remove(channel) {
            self.names -= channel.len();
        }
    }

    /// How many there are of a list.
    pub fn subscriptions(&self, list: List) -> usize {
        match list {
            List::Channels => self.channels.len(),
            List::Patterns => self.patterns.len(),
            List::Shards => self.shards.len(),
        }
    }

    /// Whether messages may come that nobody asked for.
    pub fn is_listening(&self) -> bool {
        !(self.channels.is_empty() && self.patterns.is_empty() && self.shards.is_empty())
    }

    /// Whether the client keeps values of which the server is to tell it.
    pub fn is_tracking(&self) -> bool {
        self.kept.iter().any(|(state, ..)| *state == State::Tracking)
    }

    /// Whether this one of the requests of [`Self::restore`] only says something about the client: a
    /// master that does not take it is as good without.
    pub fn is_label(&self, nth: usize) -> bool {
        let labels = [State::Name, State::Info, State::NoEvict, State::NoTouch];
        self.kept.get(nth).is_some_and(|(state, ..)| labels.contains(state))
    }

    /// What the next master is sent first, and how many replies that has.
    pub fn restore(&self) -> (Vec<u8>, usize) {
        let mut bytes: Vec<u8> = self.kept.iter().flat_map(|(.., kept)| kept.clone()).collect();
        let mut replies = self.kept.len();
        let lists: [(&[u8], &BTreeSet<Vec<u8>>); 3] = [
            (b"SUBSCRIBE", &self.channels),
            (b"PSUBSCRIBE", &self.patterns),
            (b"SSUBSCRIBE", &self.shards),
        ];
        for (name, set) in lists.iter().filter(|(_, set)| !set.is_empty()) {
            let all = std::iter::once(*name).chain(set.iter().map(Vec::as_slice));
            bytes.extend(request(&all.collect::<Vec<_>>()));
            replies += set.len();
        }
        (bytes, replies)
    }
}

/// What a message says of subscriptions: the list, and whether it grows.
pub(super) fn confirmation(kind: &resp::Name) -> Option<(List, bool)> {
    Some(match &**kind {
        b"SUBSCRIBE" => (List::Channels, true),
        b"UNSUBSCRIBE" => (List::Channels, false),
        b"PSUBSCRIBE" => (List::Patterns, true),
        b"PUNSUBSCRIBE" => (List::Patterns, false),
        b"SSUBSCRIBE" => (List::Shards, true),
        b"SUNSUBSCRIBE" => (List::Shards, false),
        _ => return None,
    })
}
