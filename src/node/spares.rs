//! Connections that are dialled before Redis asks for them: while a master moves, at a distance, the
//! dial of its first replica is a round trip for which all writes wait, and the question with which
//! Redis begins is another one.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::io::ReadBuf;
use tokio::net::TcpStream;

/// A spare that nobody asked for within this is closed: the master has moved, or does not.
pub const LIFE: Duration = Duration::from_secs(15);
/// Peers for which there is one at most.
const PEERS: usize = 8;

/// What Redis says first to its master. On a spare it is said when that is dialled, so that it is not
/// to be said again.
pub const GREETING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// A connection to a peer at this address.
pub type Dialled = (Ipv4Addr, TcpStream);

/// At most one for each peer; cheap to clone.
#[derive(Clone, Default)]
pub struct Spares {
    expected: Arc<Mutex<BTreeMap<String, Spare>>>,
}

struct Spare {
    /// Not kept for longer.
    until: Instant,
    ready: Option<Dialled>,
    /// One is on its way: there is no second one, however often Redis asks.
    dialling: bool,
}

impl Spare {
    /// Whether one is to be dialled, by whoever asks this.
    fn wants_dial(&mut self) -> bool {
        self.ready.is_none() && !std::mem::replace(&mut self.dialling, true)
    }
}

impl Spares {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Spare>> {
        let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        expected.retain(|_, spare| now < spare.until);
        expected
    }

    /// Redis may ask for this peer from now on; whether one is to be dialled.
    #[must_use]
    pub fn expect(&self, peer: &str) -> bool {
        let mut expected = self.lock();
        if !expected.contains_key(peer) && expected.len() >= PEERS {
            return false;
        }
        let until = Instant::now() + LIFE;
        let spare = expected.entry(peer.to_owned()).or_insert(Spare {
            until,
            ready: None,
            dialling: false,
        });
        spare.until = until;
        spare.wants_dial()
    }

    /// Keeps what came of a dial, if it is wanted still.
    pub fn keep(&self, peer: &str, dialled: Option<Dialled>) {
        if let Some(spare) = self.lock().get_mut(peer) {
            (spare.ready, spare.dialling) = (dialled, false);
        }
    }

    /// One that works as far as can be seen from here, and whether another one is to be dialled.
    #[must_use]
    pub fn take(&self, peer: &str) -> (Option<Dialled>, bool) {
        match self.lock().get_mut(peer) {
            Some(spare) => {
                let ready = spare.ready.take().filter(|(_, stream)| is_open(stream));
                (ready, spare.wants_dial())
            }
            None => (None, false),
        }
    }

    /// Whether there is one.
    #[cfg(test)]
    pub(super) fn has(&self, peer: &str) -> bool {
        self.lock().get(peer).is_some_and(|spare| spare.ready.is_some())
    }

    /// Closes those that nobody asked for in time.
    pub fn forget_old(&self) {
        drop(self.lock());
    }
}

/// Nothing came yet, or the answer to the greeting, which stays there to be read.
fn is_open(stream: &TcpStream) -> bool {
    let mut one = [0];
    let mut seen = ReadBuf::new(&mut one);
    match stream.poll_peek(&mut Context::from_waker(Waker::noop()), &mut seen) {
        Poll::Pending => true,
        Poll::Ready(peeked) => peeked.is_ok_and(|bytes| bytes > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::Spares;

    #[test]
    fn one_is_dialled_at_a_time_however_often_redis_asks() {
        let spares = Spares::default();
        assert!(!spares.take("m").1, "nobody expects it");
        assert!(spares.expect("m"));
        assert!(!spares.expect("m") && !spares.take("m").1, "it is on its way");
        spares.keep("m", None);
        assert!(spares.take("m").1, "it came to nothing");
    }
}
