//! The way there: what a request is, and when it is sent.

use super::super::commands::{self, Kind};
use super::super::confirm;
use super::super::resp;
use super::{Answer, End, Entry, Flight, MOST_KEPT, Phase, nobody};

/// The channel of a message that has this one purpose: the master counts what was written before it
/// as written by this connection.
const MARK: &[u8] = b"akash-redis:wait";

impl Flight {
    /// What the client sent.
    pub fn client_bytes(&mut self, bytes: &[u8]) -> Result<(), End> {
        if self.raw {
            self.out.extend_from_slice(bytes);
            return Ok(());
        }
        if self.partial.is_empty() {
            let taken = self.requests(bytes)?;
            self.partial.extend_from_slice(&bytes[taken..]);
        } else {
            let mut all = std::mem::take(&mut self.partial);
            all.extend_from_slice(bytes);
            let taken = self.requests(&all)?;
            all.drain(..taken);
            self.partial = all;
        }
        if self.run && !self.client_multi {
            self.ask_replicas();
        }
        self.send();
        Ok(())
    }

    /// Takes the whole requests among these bytes; how many bytes that were.
    fn requests(&mut self, bytes: &[u8]) -> Result<usize, End> {
        let (mut at, mut seen) = (0, std::mem::take(&mut self.scanned));
        while at + seen < bytes.len() && !self.raw_waits {
            // Nearly every request is there in one piece.
            if seen == 0
                && !self.streams
                && let Some((length, head)) = resp::whole(&bytes[at..])
            {
                self.request(&bytes[at..at + length], &head);
                at += length;
                continue;
            }
            let (taken, ends) = match self.scanner.take(&bytes[at + seen..]) {
                Ok(found) => found,
                Err(error) => {
                    return self.not_understood(&bytes[at..], error).map(|()| bytes.len());
                }
            };
            if self.streams {
                self.out.extend_from_slice(&bytes[at..at + taken]);
                (at, self.streams) = (at + taken, !ends);
            } else if ends {
                let whole = at + seen + taken;
                match resp::head(&bytes[at..whole]) {
                    Ok(Some(head)) => self.request(&bytes[at..whole], &head),
                    Ok(None) => {}
                    Err(error) => {
                        return self.not_understood(&bytes[at..], error).map(|()| bytes.len());
                    }
                }
                (at, seen) = (whole, 0);
            } else {
                seen += taken;
            }
        }
        self.scanned = seen;
        Ok(at)
    }

    /// Redis says what it does not understand, and ends the connection.
    fn not_understood(&mut self, bytes: &[u8], error: resp::Malformed) -> Result<(), End> {
        if self.confirm.is_some() || self.streams {
            return Err(error.into());
        }
        self.push(bytes, Kind::Raw, 1);
        self.raw_waits = true;
        Ok(())
    }

    fn request(&mut self, bytes: &[u8], head: &resp::Head) {
        let kind = commands::kind(head, self.confirm.is_some());
        if kind == Kind::Nothing {
            return;
        }
        self.before(kind);
        let arguments = u32::try_from(head.words.saturating_sub(1)).unwrap_or(u32::MAX);
        let wants = match kind {
            Kind::Subscribe => arguments.max(1),
            // Without a channel: told when its turn comes.
            Kind::Unsubscribe(_) => arguments,
            _ => 1,
        };
        self.raw_waits = kind == Kind::Raw;
        self.push(bytes, kind, wants);
    }

    /// What a request means to those before and after it.
    fn before(&mut self, kind: Kind) {
        if self.run && !self.client_multi && kind.is_apart() {
            self.ask_replicas();
        }
        match kind {
            Kind::Multi => self.client_multi = true,
            Kind::Discard | Kind::Reset => self.client_multi = false,
            Kind::Exec => (self.client_multi, self.run) = (false, self.confirm.is_some()),
            _ if self.client_multi => {}
            _ if kind.writes() => self.run = self.confirm.is_some(),
            _ => {}
        }
    }

    fn push(&mut self, bytes: &[u8], kind: Kind, wants: u32) {
        self.kept.extend_from_slice(bytes);
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.entries.push_back(Entry {
            kind,
            large: false,
            marked: false,
            mark_failed: false,
            replaced: false,
            kept: false,
            early: false,
            length,
            wants,
            got: 0,
            had: 0,
            answer: None,
        });
    }

    /// Asks whether the replicas have what was written.
    pub(super) fn ask_replicas(&mut self) {
        self.run = false;
        if let Some(confirm) = self.confirm {
            self.push(&confirm.wait(), Kind::OwnWait, 1);
        }
    }

    /// A request too large to be kept goes on as it comes, in its turn.
    fn stream(&mut self) {
        if self.partial.len() <= MOST_KEPT || self.streams || self.sent < self.entries.len() {
            return;
        }
        let Ok(Some(head)) = resp::head(&self.partial) else { return };
        let kind = commands::kind(&head, self.confirm.is_some());
        if self.is_gated(kind) || (self.probing && self.probed) {
            return;
        }
        self.probed |= self.probing && kind.writes();
        self.before(kind);
        self.connection.bound |=
            matches!(kind, Kind::State(_) | Kind::Subscribe | Kind::Unsubscribe(_));
        self.connection.multi_unkept |= self.client_multi;
        self.push(&[], kind, 1);
        if let Some(entry) = self.entries.back_mut() {
            entry.large = true;
        }
        self.sent += 1;
        self.out.append(&mut self.partial);
        (self.scanned, self.streams) = (0, true);
    }

    /// Whether it waits for the end of a planned change.
    fn is_gated(&mut self, kind: Kind) -> bool {
        let gated = self.changing && !self.impatient && !kind.passes_a_fence();
        self.gated |= gated;
        gated
    }

    /// Sends what may be sent.
    pub(super) fn send(&mut self) {
        if self.ahead {
            self.send_early();
            return;
        }
        if !self.connected
            || self.raw
            || self.restoring > 0
            || self.leaving.is_some()
            || self.phase != Phase::Open
            || self.introduces_itself()
        {
            return;
        }
        let mut from = self.sent_bytes;
        let mut own = false;
        while let Some(entry) = self.entries.get(self.sent) {
            let (kind, length) = (entry.kind, entry.length as usize);
            let mut goes = true;
            if self.sent >= self.retained && entry.answer.is_none() {
                if kind == Kind::Raw && (self.sent > 0 || self.retained > 0) {
                    break;
                }
                if self.is_gated(kind) || (self.probing && self.probed) {
                    break;
                }
                self.probed |= self.probing && kind.writes();
                let answer = self.instead(kind);
                own |= answer.is_some();
                goes = answer.is_none() && !self.replace();
                if answer.is_some() {
                    self.entries[self.sent].answer = answer;
                }
            } else if entry.answer.is_some() {
                goes = false;
            }
            if !goes {
                self.flush(from, self.sent_bytes);
                from = self.sent_bytes + length;
                if self.entries[self.sent].replaced {
                    self.out.extend_from_slice(b"*1\r\n$7\r\nDISCARD\r\n");
                }
            } else if self.entries[self.sent].marked {
                self.flush(from, self.sent_bytes);
                from = self.sent_bytes;
                self.out.extend(resp::request(&[b"PUBLISH", MARK, b""]));
            }
            self.sent_bytes += length;
            self.sent += 1;
            if kind == Kind::Raw {
                self.flush(from, self.sent_bytes);
                self.out.append(&mut self.partial);
                self.raw = true;
                self.forget(self.entries.len());
                return;
            }
        }
        self.flush(from, self.sent_bytes);
        self.stream();
        // What was answered before, by an earlier master or here, has no reply to come.
        self.advance();
        if own {
            self.release();
        }
    }

    /// Sends what only says who the client is, as far as nothing else stands before it.
    fn send_early(&mut self) {
        let starts = self.connected
            && self.restoring == 0
            && self.phase == Phase::Open
            && self.leaving.is_none()
            && self.retained == 0;
        let from = self.sent_bytes;
        while let Some(entry) = self.entries.get_mut(self.sent).filter(|_| starts) {
            if !entry.kind.introduces() || entry.answer.is_some() {
                break;
            }
            entry.early = true;
            self.sent_bytes += entry.length as usize;
            self.sent += 1;
        }
        self.flush(from, self.sent_bytes);
    }

    /// It was not master when it was told who the client is, and has not answered: it may refuse that,
    /// and then nothing else is to have been carried out.
    fn introduces_itself(&self) -> bool {
        self.next < self.sent && self.entries[self.next].early
    }

    fn flush(&mut self, from: usize, to: usize) {
        self.out.extend_from_slice(&self.kept[self.head + from..self.head + to]);
    }

    /// What is answered without a server, and marks what needs one.
    fn instead(&mut self, kind: Kind) -> Option<Answer> {
        let connection = &mut self.connection;
        match kind {
            Kind::Refused => Some(Answer::Held(confirm::NOT_HERE.to_vec())),
            Kind::Notify => Some(Answer::Held(b"+OK\r\n".to_vec())),
            Kind::Wait | Kind::WaitAof
                if !connection.multi && std::mem::take(&mut connection.unsure) =>
            {
                Some(Answer::Held(nobody(kind).to_vec()))
            }
            Kind::Wait | Kind::WaitAof | Kind::OwnWait
                if !connection.multi && std::mem::take(&mut connection.unmarked) =>
            {
                self.entries[self.sent].marked = true;
                None
            }
            _ => None,
        }
    }

    /// A transaction whose watched keys were at another master is given up in place of carried out.
    fn replace(&mut self) -> bool {
        let connection = &self.connection;
        let lost = connection.watch_lost || (connection.multi_failed && self.retained > 0);
        // The one behind it knows nothing of that.
        let is_first = || {
            let mut before = self.entries.range(self.retained..self.sent);
            !before.any(|entry| entry.kind.ends_transaction())
        };
        let replaced = lost && self.entries[self.sent].kind == Kind::Exec && is_first();
        self.entries[self.sent].replaced = replaced;
        replaced
    }
}
