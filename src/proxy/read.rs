//! A second port, for reads: connections to it are spread over the replicas that are in sync.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::flight::no_master;
use super::refuse::refuse;
use super::told::Reader;
use super::way::{Server, Way};
use super::{Target, Word};

const BUFFER: usize = 16 * 1024;
/// A replica that does not answer within this is passed over.
const DIAL: Duration = Duration::from_secs(2);
/// Between tries when nobody is reached.
const PAUSE: Duration = Duration::from_millis(200);

/// Who may be read from, and how they are reached.
pub(super) struct Reads {
    pub readers: watch::Receiver<Vec<Reader>>,
    pub word: watch::Receiver<Word>,
    /// Bytes that a replica may be behind; any that is in sync when absent.
    pub max_lag: Option<u64>,
    pub way: Way,
    pub wait: Duration,
    /// Counts connections: each begins with another replica.
    pub turn: AtomicUsize,
}

impl Reads {
    /// Connects `client` to a replica, or to the master when there is none, and moves bytes both ways
    /// until one side ends, or that node is one to read from no more.
    pub async fn carry<S: AsyncRead + AsyncWrite + Unpin>(&self, mut client: S) {
        let Some((mut server, target, is_master)) = self.reach().await else {
            return refuse(client, &no_master(self.wait.as_secs())).await;
        };
        let copied = copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER);
        tokio::select! {
            end = copied => {
                if let Err(error) = end {
                    tracing::debug!(%error, "a connection for reads ends");
                }
            }
            () = self.until_unfit(&target, is_master) => tracing::debug!(node = target.incarnation, "a connection for reads ends: its node is none to read from any more"),
        }
    }

    async fn reach(&self) -> Option<(Server, Target, bool)> {
        let deadline = Instant::now() + self.wait;
        loop {
            let mut fit = fit(&self.readers.borrow(), self.max_lag);
            if !fit.is_empty() {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed) % fit.len();
                fit.rotate_left(turn);
            }
            let replicas = fit.into_iter().map(|target| (target, false));
            let master = self.word.borrow().target.clone().map(|target| (target, true));
            for (target, is_master) in replicas.chain(master) {
                let left = deadline.saturating_duration_since(Instant::now());
                match self.way.connect(&target, left.min(DIAL)).await {
                    Ok(server) => return Some((server, target, is_master)),
                    Err(error) => tracing::debug!(%error, "a node to read from is not reached"),
                }
            }
            let mut word = self.word.clone();
            let news = async {
                if word.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            let pause = async {
                tokio::select! {
                    () = news => {}
                    () = sleep(PAUSE) => {}
                }
            };
            timeout_at(deadline, pause).await.ok()?;
        }
    }

    /// A replica that is in sync no more, or is another node's address by now; as the master, one
    /// that is master no more.
    async fn until_unfit(&self, target: &Target, is_master: bool) {
        let same = |one: &Target| (&one.incarnation, one.ip) == (&target.incarnation, target.ip);
        let ended = if is_master {
            let mut word = self.word.clone();
            word.wait_for(|word| !word.target.as_ref().is_some_and(same)).await.is_err()
        } else {
            let mut readers = self.readers.clone();
            readers.wait_for(|all| !fit(all, self.max_lag).iter().any(same)).await.is_err()
        };
        if ended {
            std::future::pending::<()>().await;
        }
    }
}

/// Replicas that may be read from.
fn fit(readers: &[Reader], max_lag: Option<u64>) -> Vec<Target> {
    let near = |reader: &&Reader| {
        let lag = reader.lag_bytes.map(|lag| u64::try_from(lag).unwrap_or(0));
        reader.in_sync && max_lag.is_none_or(|most| lag.is_some_and(|lag| lag <= most))
    };
    readers.iter().filter(near).map(|reader| reader.target.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_replicas_in_sync_and_near_enough_are_read_from() {
        let reader = |ordinal: u8, in_sync, lag_bytes| Reader {
            target: Target {
                epoch: 1,
                incarnation: format!("cache-{ordinal}"),
                ip: [100, 64, 0, ordinal].into(),
                port: 6379,
            },
            in_sync,
            lag_bytes,
        };
        let all = [
            reader(1, true, Some(10)),
            reader(2, true, Some(5000)),
            reader(3, false, Some(0)),
            reader(4, true, None),
            reader(5, true, Some(-3)),
        ];
        let names = |max_lag| {
            let fit = fit(&all, max_lag);
            fit.iter().map(|t| t.incarnation[6..].to_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(None), "1 2 4 5");
        assert_eq!(names(Some(1000)), "1 5", "nobody knows of 4");
        assert_eq!(names(Some(0)), "5");
    }
}
