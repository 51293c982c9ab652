//! One connection, from its start to its end, whoever is master meanwhile.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::confirm::Confirm;
use super::flight::{End, Flight, Step, no_master};
use super::way::{Server, Way};
use super::{Target, Word};

/// What is read at once.
const CHUNK: usize = 64 * 1024;
/// Between tries to reach a master that does not accept connections, and between two connections
/// to the same one that end at once.
const PAUSE: Duration = Duration::from_millis(200);
/// After a connection ended, news of another master come within this, mostly; and within this where
/// messages are missed at the same one.
const SOON: Duration = Duration::from_millis(50);
const NEWS: Duration = Duration::from_secs(2);
/// A client takes the last that is said to it within this.
const FAREWELL: Duration = Duration::from_secs(1);

thread_local! {
    /// Connections have no buffer of their own to read into: most of them are idle.
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

/// Carries the requests of `client` to the master, and its replies back, until one side ends or what
/// is open cannot be carried to the next master.
pub(super) async fn carry<S>(
    mut client: S,
    word: watch::Receiver<Word>,
    way: Way,
    wait: Duration,
    confirm: Option<Confirm>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut carrier = Carrier {
        flight: Flight::new(confirm, wait),
        word,
        way,
        wait,
        at: None,
        dialled: None,
        planned: None,
        refused: None,
        turned_away: None,
    };
    let end = carrier.run(&mut client).await;
    tracing::debug!(%end, "a connection ends");
    if end == End::TurnedAway && carrier.flight.depart().is_ok() {
        // Whatever is open was not carried out. A client that cannot be told sees that the connection
        // ends.
        let _ = carrier.flight.no_master(&no_master(wait.as_secs()));
    }
    let said = std::mem::take(carrier.flight.back());
    let _ = timeout(FAREWELL, async {
        client.write_all(&said).await?;
        client.shutdown().await
    })
    .await;
}

struct Carrier {
    flight: Flight,
    word: watch::Receiver<Word>,
    way: Way,
    wait: Duration,
    /// Whom the connection is with, or was last.
    at: Option<Target>,
    /// Whom it was made to last, who may not have taken it.
    dialled: Option<Target>,
    /// The epoch that a planned change was to have.
    planned: Option<u64>,
    /// The successor of this epoch did not take the connection as the master had.
    refused: Option<u64>,
    /// Since when masters have no room for the connection.
    turned_away: Option<Instant>,
}

/// Why a server is left.
#[derive(PartialEq, Eq)]
enum Leaves {
    /// It is not the master any more, or the connection to it ended.
    ForMaster,
    /// It gives way to another one, and what the client waits for is that.
    ForSuccessor,
}

/// What happened to the bytes.
enum Moved {
    /// There is something to decide.
    Step,
    /// The server is gone.
    ServerEnded,
    /// The client is gone, or what came cannot be.
    End(End),
}

impl Carrier {
    async fn run<S>(&mut self, client: &mut S) -> End
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut aim = Leaves::ForMaster;
        loop {
            let (dialled, before) = (Instant::now(), self.at.clone());
            let mut server = match self.dial(client, aim == Leaves::ForSuccessor).await {
                Ok(server) => server,
                Err(end) => return end,
            };
            aim = match self.with(client, &mut server).await {
                Ok(aim) => {
                    self.turned_away = None;
                    aim
                }
                Err(End::Restored | End::TurnedAway) if self.flight.is_ahead() => {
                    self.refused = self.at.as_ref().map(|at| at.epoch);
                    self.at = before;
                    match self.flight.depart() {
                        Ok(_) => Leaves::ForMaster,
                        Err(end) => return end,
                    }
                }
                Err(End::TurnedAway) if self.waits_for_room(Instant::now()) => {
                    self.at = before;
                    match self.flight.depart() {
                        Ok(_) => Leaves::ForMaster,
                        Err(end) => return end,
                    }
                }
                Err(end) => return end,
            };
            // Nobody dials the same one as fast as it closes connections, and news of another
            // master may be a moment behind.
            let news = if self.flight.is_listening() { self.wait.min(NEWS) } else { SOON };
            self.flight.rests_until((dialled + PAUSE).max(Instant::now() + news));
        }
    }

    /// Whether a master that had no room for the connection is asked again: for as long as one is
    /// waited for.
    fn waits_for_room(&mut self, now: Instant) -> bool {
        now < *self.turned_away.get_or_insert(now) + self.wait
    }

    /// A connection to the master, once there is one, or to its successor. The client is listened to
    /// meanwhile.
    async fn dial<S>(&mut self, client: &mut S, ahead: bool) -> Result<Server, End>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let not_before = self.flight.not_before();
        // On the heap only as long as it lasts.
        let aim = Aim { ahead, refused: self.refused, left: self.dialled.clone(), not_before };
        let mut reached = Box::pin(reach(self.word.clone(), self.way.clone(), self.wait, aim));
        loop {
            let gives_up = self.flight.gives_up_at(Instant::now());
            tokio::select! {
                moved = pump(client, None, &mut self.flight) => match moved {
                    Moved::End(end) => return Err(end),
                    _ => { self.flight.step(Instant::now())?; }
                },
                (server, target) = &mut reached => {
                    self.arrive(target)?;
                    return Ok(server);
                }
                () = until(gives_up) => {
                    // A thousand connections take some time to be dialled.
                    if self.way.is_good(self.wait) {
                        self.flight.waits_on(Instant::now());
                    } else {
                        self.flight.no_master(&no_master(self.wait.as_secs()))?;
                    }
                }
            }
        }
    }

    fn arrive(&mut self, target: Target) -> Result<(), End> {
        let known = self.at.as_ref();
        let later = known.is_some_and(|known| target.epoch != known.epoch);
        // It steps aside already, and does so as a replica: the next one has what it acknowledged,
        // or is known not to have.
        let changing = !later && self.word.borrow().changing.is_some();
        if self.word.borrow().successor.as_ref() == Some(&target) {
            self.flight.goes_ahead();
        }
        let keeps = known.is_none() || changing || (later && self.planned == Some(target.epoch));
        self.dialled = Some(target.clone());
        self.at = Some(target);
        self.hear(Instant::now());
        self.flight.connected(keeps, later || changing)
    }

    /// Carries until the server is left.
    async fn with<S>(&mut self, client: &mut S, server: &mut Server) -> Result<Leaves, End>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            let wakes = self.flight.wakes_at();
            let step = tokio::select! {
                biased;
                // First, so that nothing is sent to a master that is known to give way: it closes
                // connections, and a command without a reply may have been carried out.
                () = changed(&mut self.word) => {
                    self.hear(Instant::now());
                    self.flight.step(Instant::now())?
                }
                moved = pump(client, Some(server), &mut self.flight) => match moved {
                    Moved::Step => self.flight.step(Instant::now())?,
                    Moved::ServerEnded => self.flight.ended()?,
                    Moved::End(end) => return Err(end),
                },
                () = until(wakes) => self.flight.step(Instant::now())?,
            };
            if step == Step::Dial {
                return Ok(Leaves::ForMaster);
            }
            if self.finds_successor() && self.flight.may_go_ahead() {
                self.flight.depart()?;
                return Ok(Leaves::ForSuccessor);
            }
        }
    }

    /// Whether somebody is to take over who was not found unfit.
    fn finds_successor(&self) -> bool {
        let word = self.word.borrow();
        word.successor.as_ref().is_some_and(|next| self.refused != Some(next.epoch))
    }

    /// Takes the present word in.
    fn hear(&mut self, now: Instant) {
        let word = self.word.borrow_and_update().clone();
        if let (Some(at), Some(target)) = (&mut self.at, word.target) {
            let ahead = self.flight.is_ahead();
            let same = at.ip == target.ip
                && at.port == target.port
                && at.incarnation == target.incarnation
                // A successor that became master in another way may lack what was acknowledged.
                && (!ahead || at.epoch == target.epoch);
            let is_to_be = ahead && word.successor.as_ref() == Some(&*at);
            if same {
                at.epoch = at.epoch.max(target.epoch);
                self.flight.stay();
            } else if !is_to_be {
                self.flight.leave(now, self.planned == Some(target.epoch));
            }
        }
        self.planned = word.changing.or(self.planned);
        self.flight.planned(word.changing);
    }
}

/// Whom a connection is made to.
struct Aim {
    /// The successor, if there is one.
    ahead: bool,
    /// The successor of this epoch did not take it.
    refused: Option<u64>,
    /// The one that was left is not dialled before this.
    left: Option<Target>,
    not_before: Option<Instant>,
}

impl Aim {
    /// At whom, as the word stands; and whether that one is no master yet.
    fn at(&self, word: &Word) -> Option<(Target, bool)> {
        let target = word.aim(self.ahead, self.refused)?;
        Some((target.clone(), word.successor.as_ref() == Some(target)))
    }

    /// Returns when another than `known` is to be dialled. Without a sender nobody is.
    async fn another(&self, word: &mut watch::Receiver<Word>, known: Option<&Target>) {
        let is_other = |now: &Word| now.aim(self.ahead, self.refused) != known;
        if word.wait_for(is_other).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// A connection to whoever is the master when it stands, or is to be.
async fn reach(
    mut word: watch::Receiver<Word>,
    way: Way,
    wait: Duration,
    aim: Aim,
) -> (Server, Target) {
    loop {
        let now = aim.at(&word.borrow_and_update());
        let Some((target, is_to_be)) = now else {
            aim.another(&mut word, None).await;
            continue;
        };
        if aim.left.as_ref() == Some(&target) {
            let waits = aim.not_before.is_some();
            tokio::select! {
                () = until(aim.not_before), if waits => {}
                () = aim.another(&mut word, Some(&target)), if waits => continue,
                else => {}
            }
        }
        if let Some(server) = way.spare(&target) {
            return (server, target);
        }
        // News of another master ends a dial that the old one would never answer.
        let dialled = tokio::select! {
            dialled = way.connect(&target, wait) => dialled,
            () = aim.another(&mut word, Some(&target)) => continue,
        };
        match dialled {
            Ok(server) => {
                if !is_to_be {
                    way.reaches();
                }
                return (server, target);
            }
            Err(error) => {
                tracing::debug!(%error, "the master is not reached");
                tokio::select! {
                    () = sleep(PAUSE) => {}
                    () = aim.another(&mut word, Some(&target)) => {}
                }
            }
        }
    }
}

/// Returns when the word is a new one.
async fn changed(word: &mut watch::Receiver<Word>) {
    if word.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn until(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// Moves bytes both ways until there is something to decide. Neither way waits for the other.
async fn pump<S>(client: &mut S, mut server: Option<&mut Server>, flight: &mut Flight) -> Moved
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    poll_fn(|cx| {
        // Whoever has nothing more to say for now is not asked again.
        let (mut client_waits, mut server_waits) = (false, false);
        loop {
            let mut went = false;
            if let Some(server) = server.as_deref_mut() {
                match write(cx, server, flight.out()) {
                    Ok(some) => went |= some,
                    // What it said before is still to be read.
                    Err(_) => flight.out().clear(),
                }
            }
            match write(cx, client, flight.back()) {
                Ok(some) => went |= some,
                Err(_) => return Poll::Ready(Moved::End(End::Done)),
            }
            if !client_waits && flight.wants_client() {
                match read(cx, client, |bytes| flight.client_bytes(bytes)) {
                    Poll::Ready(Ok(Some(taken))) => {
                        if let Err(end) = taken {
                            return Poll::Ready(Moved::End(end));
                        }
                        went = true;
                    }
                    Poll::Ready(Ok(None)) => {
                        flight.client_ended();
                        went = true;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Moved::End(End::Done)),
                    Poll::Pending => client_waits = true,
                }
            }
            if let Some(server) = server.as_deref_mut()
                && !server_waits
                && flight.wants_server()
            {
                match read(cx, server, |bytes| flight.server_bytes(bytes)) {
                    Poll::Ready(Ok(Some(taken))) => {
                        if let Err(end) = taken {
                            return Poll::Ready(Moved::End(end));
                        }
                        went = true;
                    }
                    Poll::Ready(Ok(None) | Err(_)) => return Poll::Ready(Moved::ServerEnded),
                    Poll::Pending => server_waits = true,
                }
            }
            if went && (server.is_none() || flight.wants_step()) {
                return Poll::Ready(Moved::Step);
            }
            if !went {
                flight.rest();
                return Poll::Pending;
            }
        }
    })
    .await
}

/// Writes what there is, as far as it goes; whether anything was written.
fn write(
    cx: &mut Context<'_>,
    to: &mut (impl AsyncWrite + Unpin),
    bytes: &mut Vec<u8>,
) -> io::Result<bool> {
    let mut at = 0;
    while at < bytes.len() {
        match Pin::new(&mut *to).poll_write(cx, &bytes[at..]) {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(some)) => at += some,
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => break,
        }
    }
    if at == bytes.len() {
        bytes.clear();
    } else {
        bytes.drain(..at);
    }
    Ok(at > 0)
}

/// Reads once; `None` at the end.
fn read<T>(
    cx: &mut Context<'_>,
    from: &mut (impl AsyncRead + Unpin),
    take: impl FnOnce(&[u8]) -> T,
) -> Poll<io::Result<Option<T>>> {
    READ.with_borrow_mut(|buffer| {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
        let bytes = buffer.filled();
        Poll::Ready(Ok((!bytes.is_empty()).then(|| take(bytes))))
    })
}
