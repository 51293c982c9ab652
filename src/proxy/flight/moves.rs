//! From one master to the next: what is sent again, what is told as it was, and when.

use tokio::time::Instant;

use super::super::commands::{Kind, Refusal};
use super::super::resp;
use super::{Answer, End, Flight, LAST_ANSWERS, LONGEST_PAUSE, Phase, Step};

/// What becomes of a request at the next master.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is sent.
    Again,
    /// It was carried out, and its reply counts.
    Keep,
}

/// RESP3 for: whatever the client keeps may be old.
const FORGET_ALL: &[u8] = b">2\r\n$10\r\ninvalidate\r\n_\r\n";

impl Flight {
    /// The master is another one from now on, by a planned change or not.
    pub fn leave(&mut self, now: Instant, planned: bool) {
        let limit = if planned { self.patience.max(LAST_ANSWERS) } else { LAST_ANSWERS };
        self.leaving.get_or_insert(now + limit);
        self.passing = false;
    }

    /// The server is the master: the same as before, or the one that was to be.
    pub fn stay(&mut self) {
        self.leaving = None;
        self.passing = false;
        self.ahead = false;
        self.release();
        self.send();
    }

    /// Whether all that the client waits for is the end of a planned change, and nothing is lost with
    /// this server: the connection may be made to its successor meanwhile.
    pub fn may_go_ahead(&self) -> bool {
        let bound = self.connection.bound
            || self.connection.multi
            || self.connection.watching
            || self.connection.quits
            || self.is_listening();
        let idle = self.is_answered() && self.retained == 0 && self.phase == Phase::Open;
        self.gated
            && !self.impatient
            && !self.ahead
            && self.connected
            && idle
            && !bound
            && !(self.raw || self.raw_waits || self.client_done || self.leaving.is_some())
    }

    /// The next server is to be master, and is not yet: it is told of the connection and who the client
    /// is, and nothing else is asked of it before it is.
    pub fn goes_ahead(&mut self) {
        // Who waited too long is told what the present master says.
        self.ahead = !self.impatient;
    }

    /// Whether it waits at a server that is to be master.
    pub fn is_ahead(&self) -> bool {
        self.ahead
    }

    /// Whether a planned change is under way. `number` tells one from another.
    pub fn planned(&mut self, number: Option<u64>) {
        let changing = number.is_some();
        if self.changing != changing {
            (self.changing, self.impatient, self.gated, self.gated_since) =
                (changing, false, false, None);
        }
        if self.connection.notify && self.connection.resp3 {
            match number {
                Some(number) if self.told_changing.is_none() => {
                    self.told_changing = Some(number);
                    let seconds = self.patience.as_secs().max(1);
                    let told = format!(">3\r\n$12\r\nFAILING_OVER\r\n:{number}\r\n:{seconds}\r\n");
                    self.notice(told.as_bytes());
                }
                None if self.leaving.is_none() && self.connected => {
                    self.told_over();
                }
                _ => {}
            }
        }
        if !changing {
            self.send();
        }
    }

    fn told_over(&mut self) {
        if let Some(number) = self.told_changing.take() {
            self.notice(format!(">2\r\n$11\r\nFAILED_OVER\r\n:{number}\r\n").as_bytes());
        }
    }

    /// Says something that nobody asked for, between two messages.
    fn notice(&mut self, bytes: &[u8]) {
        if self.is_within() {
            self.notices.extend_from_slice(bytes);
        } else {
            self.to_client.extend_from_slice(bytes);
        }
    }

    /// The client says nothing more, and has everything.
    fn is_done(&self) -> bool {
        self.client_done
            && self.to_client.is_empty()
            && self.out.is_empty()
            && (self.raw || self.entries.len() <= self.retained)
    }

    /// Something is asked of a server that was chosen after a failure, and is not master yet.
    fn waits_ahead(&self) -> bool {
        self.ahead && !self.gated && self.entries.len() > self.retained
    }

    /// Whether there is something to decide.
    #[inline]
    pub fn wants_step(&self) -> bool {
        self.phase == Phase::Refused
            || self.leaving.is_some()
            || self.client_done
            || (self.gated && self.gated_since.is_none())
            || (self.waits_ahead() && self.stalled.is_none())
            || self.connection.quits
    }

    /// When it decides by itself.
    pub fn wakes_at(&self) -> Option<Instant> {
        let rests = match self.phase {
            Phase::Resting(until) => Some(until),
            _ => None,
        };
        let gated = self.gated_since.filter(|_| !self.impatient).map(|since| since + self.patience);
        let ahead = self.stalled.filter(|_| self.waits_ahead()).map(|since| since + self.patience);
        [rests, gated, ahead, self.leaving].into_iter().flatten().min()
    }

    /// What follows from what came, and from the time.
    pub fn step(&mut self, now: Instant) -> Result<Step, End> {
        if self.is_done() {
            return Err(End::Done);
        }
        if self.raw {
            return if self.leaving.is_some() { Err(End::Bound) } else { Ok(Step::Go) };
        }
        if self.gated && !self.impatient {
            let since = *self.gated_since.get_or_insert(now);
            if now >= since + self.patience {
                self.impatient = true;
                if self.ahead {
                    return self.depart();
                }
                self.send();
            }
        }
        if self.waits_ahead() && now >= *self.stalled.get_or_insert(now) + self.patience {
            return self.depart();
        }
        if self.phase == Phase::Refused && self.is_answered() {
            let since = *self.stalled.get_or_insert(now);
            if now >= since + self.patience {
                self.give_up();
            } else {
                let elsewhere = self.settle()?;
                self.phase = Phase::Resting(now + self.pause);
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                if elsewhere && self.leaving.is_none() {
                    return self.depart();
                }
                (self.sent, self.next) = (self.retained, self.retained);
                self.sent_bytes = self.retained_bytes;
            }
        }
        if self.leaving.is_some() {
            let resting = matches!(self.phase, Phase::Resting(_));
            if resting || self.is_answered() || self.leaving.is_some_and(|until| now >= until) {
                return self.ended();
            }
        } else if let Phase::Resting(until) = self.phase
            && now >= until
        {
            self.phase = Phase::Open;
            (self.probing, self.probed) = (true, false);
            self.release();
            self.send();
        }
        Ok(Step::Go)
    }

    /// The server is gone, or is left as it is.
    pub fn ended(&mut self) -> Result<Step, End> {
        if self.raw || self.connection.quits {
            return Err(End::Done);
        }
        if self.is_within() || self.streams {
            return Err(End::Unknown);
        }
        if self.restoring == 0 && !matches!(self.phase, Phase::Resting(_)) {
            self.settle()?;
        }
        self.depart()
    }

    /// Nothing of this server is needed any more.
    pub fn depart(&mut self) -> Result<Step, End> {
        if self.connection.bound || (self.connection.multi && self.connection.multi_unkept) {
            return Err(End::Bound);
        }
        (self.connected, self.ahead) = (false, false);
        (self.heard, self.moved) = (false, true);
        if let Phase::Resting(until) = self.phase {
            self.not_before = Some(until);
        }
        (self.reply, self.reply_scanner) = (None, resp::Scanner::default());
        self.rest.clear();
        self.collected.clear();
        self.out.clear();
        (self.sent, self.sent_bytes, self.next, self.restoring) = (0, 0, 0, 0);
        for entry in self.entries.range_mut(self.retained..).filter(|entry| entry.early) {
            // The client has not heard of it, and the connection does not know it.
            (entry.early, entry.answer, entry.got) = (false, None, 0);
        }
        self.phase = Phase::Open;
        (self.leaving, self.replay_refused) = (None, None);
        self.release();
        Ok(Step::Dial)
    }

    /// All that was sent is answered.
    fn is_answered(&self) -> bool {
        self.next == self.sent && self.reply.is_none() && !self.streams && self.restoring == 0
    }

    /// Sorts what was sent into what is sent again and what is answered; whether that needs another
    /// connection.
    fn settle(&mut self) -> Result<bool, End> {
        let fates = self.fates()?;
        self.close_ended(&fates);
        let mut elsewhere = self.connection.multi;
        let (passed, confirms) = (self.phase == Phase::Open, self.confirm.is_some());
        for (entry, fate) in self.entries.range_mut(self.retained..).zip(fates) {
            elsewhere |= matches!(entry.answer, Some(Answer::Refused(_, Refusal::Unblocked)));
            if fate == Fate::Again {
                elsewhere |= matches!(entry.kind, Kind::Multi | Kind::Exec);
                match entry.answer.take() {
                    Some(Answer::Held(bytes) | Answer::Refused(bytes, _)) => {
                        self.held = self.held.saturating_sub(bytes.len());
                    }
                    // The first of several replies were passed on.
                    None if passed => entry.had = entry.had.max(entry.got),
                    _ => {}
                }
                entry.got = 0;
                (entry.marked, entry.mark_failed) = (false, false);
                (entry.replaced, entry.early) = (false, false);
            } else {
                entry.stands(confirms);
                entry.kept = entry.answer.is_some();
            }
        }
        Ok(elsewhere)
    }

    /// The open transaction ended at this server, though the reply to that waits: it is not begun
    /// again.
    fn close_ended(&mut self, fates: &[Fate]) {
        let mut sent = self.entries.range(self.retained..).zip(fates);
        let end = sent.find(|(entry, _)| entry.kind.ends_transaction());
        let ended = end.is_some_and(|(end, fate)| end.answer.is_some() && *fate == Fate::Keep);
        if ended && self.connection.multi {
            self.connection.close_transaction();
            self.forget(self.retained);
        }
    }

    fn fates(&self) -> Result<Vec<Fate>, End> {
        let mut fates: Vec<Fate> = Vec::new();
        let mut first = self.replay_refused;
        let mut unread = false;
        let mut begins = None;
        let mut multi = self.connection.multi;
        let mut queued = self.entries.range(..self.retained).skip(1);
        let mut pure = queued.all(|entry| entry.kind == Kind::Read);
        let mut last_write = None;
        for (at, entry) in
            self.entries.range(self.retained..self.sent.max(self.retained)).enumerate()
        {
            let kind = entry.kind;
            let queued = multi && !kind.ends_transaction();
            let mut fate = match &entry.answer {
                Some(_) if entry.kept => Fate::Keep,
                Some(Answer::Refused(_, why)) => {
                    first = first.or(Some(*why));
                    unread |= *why == Refusal::Unblocked;
                    Fate::Again
                }
                None if unread && !entry.large => Fate::Again,
                None if entry.large => return Err(End::Unknown),
                None if queued || kind.repeats() || (kind == Kind::Exec && pure) => Fate::Again,
                None => return Err(End::Unknown),
                Some(Answer::Held(_) | Answer::Waits(_)) if first.is_none() => match kind {
                    Kind::State(_) => Fate::Again,
                    _ => Fate::Keep,
                },
                Some(Answer::Waits(_)) => Fate::Keep,
                Some(Answer::Held(_)) if entry.large || kind.is_own() => Fate::Keep,
                Some(Answer::Held(_)) if queued || kind.repeats() => Fate::Again,
                Some(Answer::Held(reply)) => {
                    let failed = reply.first() == Some(&b'-');
                    let again = match kind {
                        Kind::Script => false,
                        Kind::Exec => failed || pure,
                        _ => failed,
                    };
                    if again { Fate::Again } else { Fate::Keep }
                }
            };
            match kind {
                Kind::Multi if !multi => (multi, pure, begins) = (true, true, Some(at)),
                Kind::Exec if fate == Fate::Keep => {
                    // It was carried out as a whole.
                    let from = begins.unwrap_or(0);
                    fates[from..].fill(Fate::Keep);
                    let from = begins.map_or(0, |at| self.retained + at);
                    if self.entries.range(from..self.retained + at).any(|e| e.kind.is_kept()) {
                        return Err(End::Bound);
                    }
                    (multi, begins) = (false, None);
                }
                _ if kind.ends_transaction() => {
                    let whole = &mut fates[begins.unwrap_or(0)..];
                    if multi && (fate == Fate::Again || whole.contains(&Fate::Again)) {
                        whole.fill(Fate::Again);
                        fate = Fate::Again;
                    }
                    (multi, begins) = (false, None);
                }
                _ => pure &= !queued || kind == Kind::Read,
            }
            fates.push(fate);
            if fate == Fate::Keep && first.is_some() && kind.writes() {
                last_write = Some(at);
            }
        }
        if multi {
            fates[begins.unwrap_or(0)..].fill(Fate::Again);
        }
        // A replica writes nothing: what it carried out were reads. Any other server did what came
        // later, and what came earlier cannot be done after that.
        if let (Some(Refusal::NotYet), Some(last)) = (first, last_write) {
            for (entry, fate) in self.entries.range(self.retained..).zip(&mut fates[..last]) {
                let asks = matches!(entry.kind, Kind::Wait | Kind::WaitAof | Kind::OwnWait);
                *fate = if asks { *fate } else { Fate::Keep };
            }
        }
        fates.resize(self.entries.len() - self.retained, Fate::Keep);
        let mut all = self.entries.range(self.retained..).zip(&fates);
        if all.any(|(entry, fate)| entry.large && *fate == Fate::Again) {
            // A part of a transaction that is begun again.
            return Err(End::Bound);
        }
        Ok(fates)
    }

    /// Nothing better came: what was refused is told to the client as it was.
    fn give_up(&mut self) {
        for which in self.retained..self.sent {
            let entry = &mut self.entries[which];
            let refused = matches!(entry.answer, Some(Answer::Refused(..)));
            entry.stands(self.confirm.is_some());
            if refused && entry.kind == Kind::OwnWait {
                self.decide(which);
            }
        }
        (self.phase, self.replay_refused) = (Phase::Open, None);
        self.goes_on();
        self.passing = true;
        self.release();
        self.send();
    }

    /// When it tells the client that there is no master; `None` while nobody asks.
    pub fn gives_up_at(&mut self, now: Instant) -> Option<Instant> {
        let asks = self.entries.len() > self.retained || self.partial.len() > super::MOST_KEPT;
        if !asks {
            self.stalled = None;
            return None;
        }
        Some(*self.stalled.get_or_insert(now) + self.patience)
    }

    /// There is a master, and others are dialled before: what waits waits from now on.
    pub fn waits_on(&mut self, now: Instant) {
        self.stalled = Some(now);
    }

    /// No master came in time: this is the reply to all that was asked.
    pub fn no_master(&mut self, error: &[u8]) -> Result<(), End> {
        if self.partial.len() > super::MOST_KEPT {
            return Err(End::Unknown);
        }
        self.confirm_all(self.entries.len(), Some("there is no master to ask"));
        for entry in self.entries.range_mut(self.retained..) {
            if entry.answer.is_none() {
                let held = if entry.kind == Kind::OwnWait { &[][..] } else { error };
                entry.answer = Some(Answer::Held(held.to_vec()));
            }
        }
        (self.raw_waits, self.stalled) = (false, None);
        self.sent = self.entries.len();
        self.release();
        (self.sent, self.sent_bytes, self.next) = (0, 0, 0);
        // What came behind a request that waited for its turn.
        let more = std::mem::take(&mut self.partial);
        self.scanned = 0;
        self.scanner = resp::Scanner::default();
        self.client_bytes(&more)
    }

    /// There is a server. `keeps_writes` where it has all that was acknowledged before; `news` where
    /// it is master of a later epoch than the one before.
    pub fn connected(&mut self, keeps_writes: bool, news: bool) -> Result<(), End> {
        let connection = &mut self.connection;
        if connection.is_listening() && !news {
            // Messages may have been lost, and nobody knows why the connection ended.
            return Err(End::Bound);
        }
        connection.watch_lost |= std::mem::take(&mut connection.watching);
        let waits = self.entries.iter().any(|e| matches!(e.answer, Some(Answer::Waits(_))));
        if keeps_writes {
            connection.unmarked |= connection.wrote || waits;
        } else {
            connection.unsure |= std::mem::take(&mut connection.wrote);
            connection.unmarked = false;
            let why = "the master changed before replicas said that they have this write";
            self.confirm_all(self.entries.len(), Some(why));
        }
        let (bytes, replies) = self.connection.restore();
        self.out = bytes;
        (self.restoring, self.restores) = (replies, replies);
        self.connected = true;
        (self.probing, self.probed) = (self.stalled.is_some(), false);
        self.release();
        if replies == 0 {
            self.restored();
        }
        Ok(())
    }

    /// The server knows the connection as the one before did.
    pub(super) fn restored(&mut self) {
        if self.connection.is_tracking() && self.connection.resp3 {
            self.notice(FORGET_ALL);
        }
        if !self.changing {
            self.told_over();
        }
        self.send();
    }
}

/// What is said where no master can be reached. Clients take `LOADING` for a reason to try again.
pub(in crate::proxy) fn no_master(seconds: u64) -> Vec<u8> {
    format!("-LOADING no master that can be reached for {seconds} s: nothing was carried out; try again, and see what `akash-redis get` says of the cluster\r\n").into_bytes()
}
