//! One connection, from its start to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout_at};

use super::confirm::{self, Confirm};
use super::{Target, Word};
use crate::mesh::dial::dial;

const BUFFER: usize = 64 * 1024;
/// Between tries to reach a master that does not accept connections.
const PAUSE: Duration = Duration::from_millis(200);

/// Connects `client` to the master and moves bytes both ways until one side ends or the master
/// changes.
pub(super) async fn carry<S>(
    mut client: S,
    mut word: watch::Receiver<Word>,
    way: Way,
    wait: Duration,
    confirm: Option<Confirm>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Some((mut server, target)) = reach(&mut word, &way, Instant::now() + wait).await else {
        return;
    };
    let carried = async {
        match confirm {
            None => copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER)
                .await
                .map(drop),
            Some(confirm) => confirm::carry(&mut client, &mut server, confirm).await,
        }
    };
    tokio::select! {
        // A broken connection ends like a closed one: dropping both ends tells both sides.
        end = carried => {
            if let Err(error) = end {
                tracing::debug!(%error, "a connection ends");
            }
        }
        () = changed(&mut word, Some(&target)) => tracing::debug!(old = target.incarnation, "a connection to the old master is closed"),
    }
}

/// How the master is dialled.
#[derive(Clone)]
pub(super) struct Way {
    /// SOCKS5 address of tailscaled; `None` where mesh addresses can be dialled straight.
    pub socks5: Option<SocketAddr>,
    /// Dials in progress: [`DIALS`] of all connections together.
    pub dials: Arc<Semaphore>,
}

/// Dials in progress at most. A thousand at once fill the queue of whoever accepts them; what is
/// dropped there is sent again after 1, 3, 7 and 15 s, and so is what the operator and the agents
/// dial beside them.
pub(super) const DIALS: usize = 32;

/// A connection to whoever is the master when it stands.
async fn reach(
    word: &mut watch::Receiver<Word>,
    way: &Way,
    deadline: Instant,
) -> Option<(TcpStream, Target)> {
    loop {
        let Some(target) = word.borrow_and_update().target.clone() else {
            timeout_at(deadline, changed(word, None)).await.ok()?;
            continue;
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        // Its turn comes within the time of those before it; nobody is turned away for that.
        let turn = async {
            let _turn = timeout_at(deadline, way.dials.acquire()).await;
            dial(way.socks5, target.ip, target.port, left).await
        };
        // News of another master ends a dial that the old one would never answer.
        let dialled = tokio::select! {
            dialled = turn => dialled,
            () = changed(word, Some(&target)) => continue,
        };
        match dialled {
            Ok(server) => return Some((server, target)),
            Err(error) => {
                tracing::debug!(%error, "the master is not reached");
                tokio::select! {
                    () = sleep(PAUSE) => {}
                    () = changed(word, Some(&target)) => {}
                }
            }
        }
    }
}

/// Returns when the word is another than `known`. Without a sender it never is.
async fn changed(word: &mut watch::Receiver<Word>, known: Option<&Target>) {
    if word.wait_for(|now| now.target.as_ref() != known).await.is_err() {
        std::future::pending::<()>().await;
    }
}
