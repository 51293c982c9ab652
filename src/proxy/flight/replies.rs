//! The way back: whose reply it is, whether it is passed on, and what it says of the connection.

use super::super::commands::{self, Kind, List, State};
use super::super::confirm;
use super::super::connection::confirmation;
use super::super::resp;
use super::{Answer, End, Flight, MOST_HELD, MOST_KEPT, Phase, Sink, is_done, nobody};

impl Flight {
    /// What the server sent.
    pub fn server_bytes(&mut self, bytes: &[u8]) -> Result<(), End> {
        if self.raw {
            self.to_client.extend_from_slice(bytes);
            return Ok(());
        }
        if self.rest.is_empty() {
            self.messages(bytes)?;
        } else {
            let mut all = std::mem::take(&mut self.rest);
            all.extend_from_slice(bytes);
            self.messages(&all)?;
        }
        if self.run && !self.client_multi {
            self.ask_replicas();
        }
        if self.sent < self.entries.len() || !self.partial.is_empty() {
            self.send();
        }
        Ok(())
    }

    fn messages(&mut self, bytes: &[u8]) -> Result<(), End> {
        let mut at = 0;
        while at < bytes.len() {
            if self.reply.is_none() {
                at += self.plain(&bytes[at..]);
            }
            let left = &bytes[at..];
            if left.is_empty() {
                break;
            }
            let sink = if self.reply.is_some() { self.reply } else { self.begin(left)? };
            let Some(sink) = sink else {
                // Not enough of it is there.
                self.rest.extend_from_slice(left);
                return if self.rest.len() > MOST_HELD { Err(End::Held) } else { Ok(()) };
            };
            self.heard = true;
            let (taken, ends) = self.reply_scanner.take(left)?;
            match sink {
                Sink::Push | Sink::Pass => self.to_client.extend_from_slice(&left[..taken]),
                Sink::Collect => {
                    self.held += taken;
                    if self.held > MOST_HELD {
                        return Err(End::Held);
                    }
                    self.collected.extend_from_slice(&left[..taken]);
                }
                Sink::Restore | Sink::Again | Sink::Mark => {}
            }
            at += taken;
            self.reply = Some(sink);
            if ends {
                self.reply = None;
                self.ended_reply(sink);
            }
        }
        Ok(())
    }

    /// Passes on at once what most messages are: whole replies, one after the other, that are no
    /// errors and answer plain reads and writes of which nothing else is to be known. How many bytes
    /// that were; all others are looked at one by one.
    fn plain(&mut self, bytes: &[u8]) -> usize {
        let in_order = self.phase == Phase::Open && self.next == 0 && self.retained == 0;
        if !in_order || self.ahead || self.restoring > 0 || self.connection.multi {
            return 0;
        }
        let (mut at, mut count, mut wrote) = (0, 0, false);
        for entry in self.entries.range(..self.sent) {
            let passes = entry.is_as_it_came()
                && match entry.kind {
                    Kind::Read => true,
                    Kind::Write => self.confirm.is_none(),
                    _ => false,
                };
            let Some(length) = passes.then(|| resp::plain_reply(&bytes[at..])).flatten() else {
                break;
            };
            (at, count) = (at + length, count + 1);
            wrote |= entry.kind == Kind::Write;
        }
        if count > 0 {
            self.heard = true;
            self.to_client.extend_from_slice(&bytes[..at]);
            if wrote {
                (self.connection.wrote, self.connection.unmarked) = (true, false);
                self.passing = false;
                self.goes_on();
            }
            self.forget(count);
            self.advance();
            self.release();
        }
        at
    }

    /// What is done with the message that begins; `None` as long as too little of it is there.
    fn begin(&mut self, bytes: &[u8]) -> Result<Option<Sink>, End> {
        let first = bytes[0];
        self.reply_first = first;
        if first == b'>' || (first == b'*' && self.may_be_message()) {
            let Some((kind, channel)) = resp::message(bytes)? else { return Ok(None) };
            if let Some((list, now)) = confirmation(&kind) {
                return Ok(Some(self.confirmed(list, channel, now)));
            }
            if first == b'>' || matches!(&*kind, b"MESSAGE" | b"PMESSAGE" | b"SMESSAGE") {
                return Ok(Some(Sink::Push));
            }
        }
        let mut error = &[][..];
        if first == b'-' {
            let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                return Ok(None);
            };
            error = &bytes[..end];
        }
        if commands::has_no_room(error) && self.is_turned_away() {
            return Err(End::TurnedAway);
        }
        if self.restoring > 0 {
            let goes_on = error.is_empty()
                || self.connection.is_label(self.restores.saturating_sub(self.restoring));
            return if goes_on {
                Ok(Some(Sink::Restore))
            } else if commands::turns_away(error) {
                Err(End::TurnedAway)
            } else {
                Err(End::Restored)
            };
        }
        let (next, retained) = (self.next, self.retained);
        let pending = next > retained;
        let Some(entry) = self.entries.get_mut(next).filter(|_| next < self.sent) else {
            // Nobody asked: redis says why it closes the connection.
            self.connection.quits = true;
            return Ok(Some(Sink::Push));
        };
        if next < retained {
            // The transaction cannot be carried out here, or not yet.
            let refusal = commands::refusal(error, entry.kind).filter(|_| !self.passing);
            if refusal.is_some() {
                self.replay_refused = self.replay_refused.or(refusal);
                self.phase = Phase::Refused;
            }
            return Ok(Some(Sink::Again));
        }
        let label = is_unknown_label(error, entry.kind) && !self.connection.multi;
        if entry.early && !error.is_empty() && !label {
            // A master may know the user.
            return Err(End::TurnedAway);
        }
        if entry.marked {
            entry.mark_failed = !error.is_empty();
            return Ok(Some(Sink::Mark));
        }
        let refused =
            !self.passing && !entry.large && commands::refusal(error, entry.kind).is_some();
        if refused {
            self.phase = Phase::Refused;
        }
        let waits = self.confirm.is_some()
            && (entry.kind.writes() && !(self.connection.multi && entry.kind != Kind::Exec)
                || entry.kind == Kind::OwnWait);
        let kept = label
            || waits
            || entry.early
            || pending
            || entry.replaced
            || entry.mark_failed
            || self.phase != Phase::Open;
        Ok(Some(if kept { Sink::Collect } else { Sink::Pass }))
    }

    /// Whether an error that says so is about the connection: nothing that was sent was read, and all of
    /// it can be sent again. A first server speaks to the client, which came to it by itself.
    fn is_turned_away(&self) -> bool {
        let mut sent = self.entries.range(..self.sent);
        let by_script = self.next < self.sent && self.entries[self.next].kind == Kind::Script;
        self.moved && !self.heard && !by_script && !sent.any(|entry| entry.large)
    }

    /// Whether a list may be a message of a subscription.
    fn may_be_message(&self) -> bool {
        if self.connection.resp3 {
            return false;
        }
        let next = self.entries.get(self.next).filter(|_| self.next < self.sent);
        self.connection.is_listening()
            || self.restoring > 0
            || next.is_some_and(|e| matches!(e.kind, Kind::Subscribe | Kind::Unsubscribe(_)))
    }

    /// The server says what is listened to.
    fn confirmed(&mut self, list: List, channel: &[u8], now: bool) -> Sink {
        let before = self.connection.subscriptions(list);
        self.connection.listens(list, channel, now);
        if self.restoring > 0 {
            return Sink::Restore;
        }
        let (next, sent, retained) = (self.next, self.sent, self.retained);
        let held = self.phase != Phase::Open || next > retained;
        match self.entries.get_mut(next).filter(|_| next < sent) {
            Some(entry) if matches!(entry.kind, Kind::Subscribe | Kind::Unsubscribe(_)) => {
                if entry.wants == 0 {
                    entry.wants = u32::try_from(before.max(1)).unwrap_or(u32::MAX);
                }
                if entry.got < entry.had {
                    Sink::Again
                } else if held {
                    Sink::Collect
                } else {
                    Sink::Pass
                }
            }
            _ => Sink::Push,
        }
    }

    fn ended_reply(&mut self, sink: Sink) {
        let failed = self.reply_first == b'-';
        match sink {
            Sink::Push => {}
            Sink::Restore => {
                self.restoring -= 1;
                if self.restoring == 0 {
                    self.restored();
                }
            }
            Sink::Again if self.next < self.retained => self.next += 1,
            Sink::Mark => self.entries[self.next].marked = false,
            Sink::Again | Sink::Pass | Sink::Collect => {
                let (next, whole) = (self.next, matches!(self.reply_first, b'*' | b'>'));
                let entry = &mut self.entries[next];
                entry.got += 1;
                let parts = matches!(entry.kind, Kind::Subscribe | Kind::Unsubscribe(_)) && whole;
                if parts && entry.got < entry.wants {
                    return;
                }
                if sink == Sink::Collect {
                    self.collected(next, failed);
                } else {
                    self.answered(next, !failed);
                }
            }
        }
        self.advance();
        self.release();
        self.to_client.append(&mut self.notices);
    }

    fn collected(&mut self, which: usize, failed: bool) {
        let bytes = std::mem::take(&mut self.collected);
        let confirms = self.confirm.is_some();
        let multi = self.connection.multi;
        let (passing, open) = (self.passing, self.phase == Phase::Open);
        let entry = &mut self.entries[which];
        let refusal =
            if passing || entry.large { None } else { commands::refusal(&bytes, entry.kind) };
        let writes = entry.kind == Kind::Exec || entry.kind.writes() && !multi;
        entry.answer = Some(match refusal {
            Some(why) => Answer::Refused(bytes, why),
            None if entry.replaced && !failed => {
                Answer::Held(match multi_fails(&self.connection) {
                    true => EXECABORT.to_vec(),
                    false if self.connection.resp3 => b"_\r\n".to_vec(),
                    false => b"*-1\r\n".to_vec(),
                })
            }
            None if !multi && is_unknown_label(&bytes, entry.kind) => Answer::Held(OK.to_vec()),
            None if entry.early => Answer::Held(as_master(bytes)),
            None if entry.mark_failed => Answer::Held(nobody(entry.kind).to_vec()),
            None if confirms && writes && open && is_done(&bytes) => Answer::Waits(bytes),
            None => Answer::Held(bytes),
        });
        let tried = entry.kind.writes();
        if entry.kind == Kind::OwnWait && refusal.is_none() {
            self.decide(which);
        }
        if tried && refusal.is_none() && self.phase == Phase::Open {
            self.goes_on();
        }
    }

    /// What was refused before is carried out now.
    pub(super) fn goes_on(&mut self) {
        (self.probing, self.probed, self.stalled) = (false, false, None);
        self.pause = super::FIRST_PAUSE;
    }

    /// The replicas have said what they have: what was written before is told to the client.
    pub(super) fn decide(&mut self, which: usize) {
        let Some(confirm) = self.confirm else { return };
        let said = match self.entries[which].answer.replace(Answer::Held(Vec::new())) {
            Some(Answer::Held(bytes) | Answer::Refused(bytes, _) | Answer::Waits(bytes)) => bytes,
            None => Vec::new(),
        };
        self.held = self.held.saturating_sub(said.len());
        let why = confirm.why_not(&said);
        self.confirm_all(which, why.as_deref());
    }

    /// What waits for replicas is passed on, or an error in its place.
    pub(super) fn confirm_all(&mut self, before: usize, why: Option<&str>) {
        for entry in self.entries.range_mut(self.retained..before) {
            entry.answer = match (entry.answer.take(), why) {
                (Some(Answer::Waits(_)), Some(why)) => {
                    Some(Answer::Held(confirm::unconfirmed(why)))
                }
                (Some(Answer::Waits(bytes)), None) => Some(Answer::Held(bytes)),
                (other, _) => other,
            };
        }
    }

    /// The next reply is that of a request that has none.
    pub(super) fn advance(&mut self) {
        while self.next < self.sent && self.entries[self.next].answer.is_some() {
            self.next += 1;
        }
    }

    /// A message is passed on in part.
    pub(super) fn is_within(&self) -> bool {
        matches!(self.reply, Some(Sink::Push | Sink::Pass))
    }

    /// Passes on what is answered, in order.
    pub(super) fn release(&mut self) {
        if self.is_within() || self.phase != Phase::Open || self.ahead {
            return;
        }
        while let Some(entry) = self.entries.get_mut(self.retained) {
            match entry.answer.take() {
                Some(Answer::Held(bytes)) => {
                    self.held = self.held.saturating_sub(bytes.len());
                    self.to_client.extend_from_slice(&bytes);
                    self.answered(self.retained, bytes.first() != Some(&b'-'));
                }
                other => {
                    entry.answer = other;
                    break;
                }
            }
        }
    }

    /// The client has the reply to the first request that is not retained.
    fn answered(&mut self, which: usize, done: bool) {
        let kind = self.entries[which].kind;
        let queued = self.connection.multi && !kind.ends_transaction() && kind != Kind::Quit;
        let mut stays = self.connection.multi;
        if queued {
            self.connection.multi_failed |= !done;
            self.connection.bound |= matches!(kind, Kind::Subscribe | Kind::Unsubscribe(_));
        } else {
            stays = self.apply(which, kind, done);
        }
        if kind.writes() {
            self.passing &= !done;
            self.goes_on();
        }
        if stays && !self.connection.multi_unkept {
            self.retained = which + 1;
            self.next = self.next.max(self.retained);
            self.retained_bytes += self.entries[which].length as usize;
            if self.retained_bytes <= MOST_KEPT / 2 {
                return;
            }
            self.connection.multi_unkept = true;
        }
        self.forget(which + 1);
    }

    /// What the reply says of the connection; whether the request stays for what follows.
    fn apply(&mut self, which: usize, kind: Kind, done: bool) -> bool {
        match kind {
            Kind::State(State::Caching) => return done,
            Kind::State(state) if done => {
                let bytes = self.bytes_of(which).to_vec();
                self.connection.keep(state, &bytes);
            }
            // It ended where it began.
            Kind::Multi if self.entries[which].kept => {}
            Kind::Multi if done => {
                self.connection.multi = true;
                return true;
            }
            // What follows is carried out at once.
            Kind::Multi => {
                let last = !self.entries.range(which + 1..).any(|e| e.kind == Kind::Multi);
                if self.client_multi && last {
                    (self.client_multi, self.run) = (false, self.confirm.is_some());
                }
            }
            Kind::Exec => {
                if done && !self.entries[which].replaced {
                    self.keep_queued(which);
                }
                self.connection.close_transaction();
                self.connection.wrote = true;
            }
            Kind::Discard if done => self.connection.close_transaction(),
            Kind::Watch => self.connection.watching |= done,
            Kind::Unwatch if done => {
                (self.connection.watching, self.connection.watch_lost) = (false, false);
            }
            Kind::Reset if done => self.connection.reset(),
            Kind::Quit => self.connection.quits = true,
            Kind::Wait | Kind::WaitAof => self.connection.wrote = false,
            Kind::Notify if done => {
                let off = resp::words(self.bytes_of(which))
                    .get(2)
                    .is_some_and(|word| word.eq_ignore_ascii_case(b"OFF"));
                self.connection.notify = !off;
            }
            _ if kind.writes() && done => {
                (self.connection.wrote, self.connection.unmarked) = (true, false);
            }
            _ => {}
        }
        false
    }

    /// What a transaction made of the connection.
    fn keep_queued(&mut self, count: usize) {
        for which in 0..count {
            if let Kind::State(state) = self.entries[which].kind {
                let bytes = self.bytes_of(which).to_vec();
                self.connection.keep(state, &bytes);
            }
        }
    }
}

/// The server does not know `CLIENT SETINFO`, as before 7.2, or the user may not say it. A client that
/// tells its library is not to fail by that; a later master is told as well.
fn is_unknown_label(error: &[u8], kind: Kind) -> bool {
    let starts = |with: &str| {
        error.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with.as_bytes()))
    };
    kind == Kind::State(State::Info) && (starts("-ERR unknown subcommand") || starts("-NOPERM "))
}

/// The reply to `HELLO` says what the server is: it is master when the client hears that.
fn as_master(reply: Vec<u8>) -> Vec<u8> {
    const ROLES: [&[u8]; 2] =
        [b"$4\r\nrole\r\n$7\r\nreplica\r\n", b"$4\r\nrole\r\n$6\r\nmaster\r\n"];
    let place = reply.windows(ROLES[0].len()).position(|part| part == ROLES[0]);
    let Some(at) = place else { return reply };
    [&reply[..at], ROLES[1], &reply[at + ROLES[0].len()..]].concat()
}

/// A transaction that had an error is given up with it.
fn multi_fails(connection: &super::Connection) -> bool {
    connection.multi_failed && !connection.watch_lost
}

const OK: &[u8] = b"+OK\r\n";
const EXECABORT: &[u8] = b"-EXECABORT Transaction discarded because of previous errors.\r\n";
