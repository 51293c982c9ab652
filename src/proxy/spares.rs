//! Connections to the nodes that may be master next, made before anybody needs them: a dial takes a
//! round trip, and who waits for a new master has waited long enough.
//!
//! Nothing is said on them. They are few: applications with more connections dial the rest.

use std::collections::{HashMap, VecDeque};
use std::io::Read as _;
use std::net::{self, IpAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::told::Reader;
use super::way::Way;

/// So many to each node.
const EACH: usize = 4;
/// One that is older is made anew: nobody notices when a path forgets a connection that is not used.
const OLD: Duration = Duration::from_mins(1);
/// Between two looks at them.
const LOOK: Duration = Duration::from_secs(5);
/// A node that cannot be dialled within this is left for the next look.
const LIMIT: Duration = Duration::from_secs(2);

/// What is kept for each node, with when it was made; it does not wait for anything, and may be used on
/// any thread.
type ByNode = HashMap<(IpAddr, u16), VecDeque<(Instant, net::TcpStream)>>;

/// Connections that wait to be used.
#[derive(Debug, Default)]
pub(super) struct Spares {
    kept: Mutex<ByNode>,
}

impl Spares {
    /// One that leads there, if there is one that the other end has not closed; for the thread on which
    /// this is called.
    pub fn take(&self, ip: IpAddr, port: u16) -> Option<TcpStream> {
        let mut kept = self.kept();
        let own = kept.get_mut(&(ip, port))?;
        while let Some((made, stream)) = own.pop_front() {
            if is_good(made, &stream) {
                return TcpStream::from_std(stream).ok();
            }
        }
        None
    }

    /// Keeps some to each replica that is in sync, until nobody tells of them any more.
    pub async fn keep(&self, way: &Way, mut readers: watch::Receiver<Vec<Reader>>) {
        loop {
            let wanted: Vec<_> = readers
                .borrow_and_update()
                .iter()
                .filter(|reader| reader.in_sync)
                .map(|reader| (reader.target.ip, reader.target.port))
                .collect();
            // Those to a node that is not in sync any more stay until they are old: when a master
            // dies nobody is in sync with it, and one of these nodes is the next.
            self.kept().retain(|_, own| {
                own.retain(|(made, stream)| is_good(*made, stream));
                !own.is_empty()
            });
            for (ip, port) in wanted {
                way.prepare(ip, LIMIT).await;
                let there = self.kept().get(&(ip, port)).map_or(0, VecDeque::len);
                for _ in there..EACH {
                    let dialled = way.dial(ip, port, LIMIT).await;
                    let Ok(Ok(stream)) = dialled.map(TcpStream::into_std) else { break };
                    let own = (Instant::now(), stream);
                    self.kept().entry((ip, port)).or_default().push_back(own);
                }
            }
            if let Ok(Err(_)) = timeout(LOOK, readers.changed()).await {
                return;
            }
        }
    }

    fn kept(&self) -> MutexGuard<'_, ByNode> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nothing came over it: Redis says nothing of its own accord, unless it is about to close.
fn is_good(made: Instant, mut stream: &net::TcpStream) -> bool {
    let waits = |error: std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
    made.elapsed() < OLD && stream.read(&mut [0; 1]).is_err_and(waits)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use tokio::net::TcpListener;
    use tokio_util::task::AbortOnDropHandle;

    use super::super::{Socks5, Target};
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    struct Kept {
        spares: Arc<Spares>,
        readers: watch::Sender<Vec<Reader>>,
        node: TcpListener,
        _task: AbortOnDropHandle<()>,
    }

    impl Kept {
        async fn start(in_sync: bool) -> Self {
            let node = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let place = node.local_addr().unwrap();
            let target = Target {
                epoch: 1,
                incarnation: "cache-1-aaaa".into(),
                ip: place.ip(),
                port: place.port(),
            };
            let readers = watch::Sender::new(vec![Reader { target, in_sync, lag_bytes: Some(0) }]);
            let (spares, heard) = (Arc::<Spares>::default(), readers.subscribe());
            let keeper = spares.clone();
            let task = tokio::spawn(async move {
                keeper.keep(&Way::new(Socks5::new(None)), heard).await;
            });
            Self { spares, readers, node, _task: AbortOnDropHandle::new(task) }
        }

        /// The connections that are made to the node.
        async fn accepts(&self) -> Vec<(TcpStream, SocketAddr)> {
            let mut made = Vec::new();
            for _ in 0..EACH {
                made.push(timeout(LIMIT, self.node.accept()).await.unwrap().unwrap());
            }
            made
        }

        /// They are put away a moment after they were accepted.
        async fn all_are_put_away(&self) {
            let put_away = async {
                while self.spares.kept().values().map(VecDeque::len).sum::<usize>() < EACH {
                    tokio::task::yield_now().await;
                }
            };
            timeout(LIMIT, put_away).await.unwrap();
        }

        fn take(&self) -> Option<TcpStream> {
            let place = self.node.local_addr().unwrap();
            self.spares.take(place.ip(), place.port())
        }
    }

    #[tokio::test]
    async fn one_is_there_before_it_is_needed_and_another_one_after() {
        let kept = Kept::start(true).await;
        let made = kept.accepts().await;
        // The last one is put away a moment after it was accepted.
        let taken = timeout(LIMIT, async {
            loop {
                if let Some(taken) = kept.take() {
                    return taken;
                }
                tokio::task::yield_now().await;
            }
        });
        let own = taken.await.unwrap().local_addr().unwrap();
        assert!(made.iter().any(|(_, from)| *from == own), "nothing was dialled for it");
        kept.readers.send_modify(|_| {});
        timeout(LIMIT, kept.node.accept()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn one_outlives_the_sync_of_its_node() {
        let kept = Kept::start(true).await;
        let _made = kept.accepts().await;
        kept.all_are_put_away().await;
        kept.readers.send_modify(|readers| readers.iter_mut().for_each(|r| r.in_sync = false));
        // The keeper is the only other task.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(kept.take().is_some(), "the master died, and this is the next");
    }

    #[tokio::test]
    async fn one_that_was_closed_is_not_given() {
        let kept = Kept::start(true).await;
        drop(kept.accepts().await);
        kept.all_are_put_away().await;
        let place = kept.node.local_addr().unwrap();
        let own = kept.spares.kept().remove(&(place.ip(), place.port())).unwrap();
        for (made, stream) in own {
            let stream = TcpStream::from_std(stream).unwrap();
            stream.readable().await.unwrap();
            let stream = stream.into_std().unwrap();
            let mut all = kept.spares.kept();
            all.entry((place.ip(), place.port())).or_default().push_back((made, stream));
        }
        assert!(kept.take().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_is_not_in_sync_gets_none() {
        let kept = Kept::start(false).await;
        tokio::time::sleep(LOOK * 3).await;
        assert!(kept.take().is_none());
    }
}
