//! Asks the other nodes of the cluster for the word about the master: one of them may have heard a
//! newer one of an operator that is away by now.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::paths::own_peers;
use super::state::Node;
use crate::mesh::dial::{FIRST_DIAL, dial};
use crate::mesh::local::{LocalClient, LocalPeer, LocalStatus};
use crate::model::ports::SENTINEL_PORT;
use crate::sentinel::ask;

/// The operator tells every node it reaches at once; this is for what it could not tell.
const EVERY: Duration = Duration::from_secs(10);

/// Asks everybody, again and again, until `stop`.
pub async fn keep_asking(node: Arc<Node>, api: LocalClient, stop: CancellationToken) {
    let asking = async {
        loop {
            sleep(EVERY).await;
            let Some(status) = api.status().await.ok().filter(LocalStatus::running) else {
                continue;
            };
            let peers = own_peers(&node.identity, &status);
            join_all(peers.into_iter().map(|peer| ask_one(&node, peer))).await;
        }
    };
    stop.run_until_cancelled(asking).await;
}

async fn ask_one(node: &Arc<Node>, peer: &LocalPeer) {
    let socks = SocketAddr::from((Ipv4Addr::LOCALHOST, node.settings.socks_port));
    let Some(ip) = peer.ip() else { return };
    // A peer that does not answer, or is of a version that knows nothing of this, is asked again
    // later: nothing waits for it.
    let Ok(stream) = dial(Some(socks), ip, SENTINEL_PORT, FIRST_DIAL).await else { return };
    let cluster = node.announced.cluster();
    let Ok(Some(signed)) = ask(stream, cluster).await else { return };
    if node.announced.newest().is_some_and(|known| known.signed == signed) {
        return;
    }
    let node = node.clone();
    let taken = tokio::task::spawn_blocking(move || {
        if let Err(error) = node.announced.offer(signed) {
            node.book.agent(&format!("a word about the master from another node: {error}"));
        }
    });
    let _ = taken.await;
}
