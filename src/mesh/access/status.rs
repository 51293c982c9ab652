//! Whether the operator is on the mesh, and whom it sees there, for whoever plans.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::mesh::local::{LocalPeer, LocalStatus};
use crate::model::mesh::OwnMesh;
use crate::model::time::UnixMs;

/// Between two looks at a proxy that somebody else runs.
const LOOK: Duration = Duration::from_secs(2);
/// It is on this machine, or next to it.
const CONNECT: Duration = Duration::from_secs(2);

/// Publishes the status; receivers wake only when it changed.
#[derive(Clone, Debug)]
pub struct AccessStatus(watch::Sender<OwnMesh>);

impl AccessStatus {
    /// Off the mesh until something else is known, for this reason.
    #[must_use]
    pub fn off(error: &str) -> Self {
        Self(
            watch::channel(OwnMesh {
                error: Some(error.to_owned()),
                since: UnixMs::now(),
                ..OwnMesh::default()
            })
            .0,
        )
    }

    /// The present status, and each change of it.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<OwnMesh> {
        self.0.subscribe()
    }

    /// On the mesh, or why not. The peers seen last stay: a tailscaled that is away says nothing
    /// about who left.
    pub(super) fn set_error(&self, error: Option<String>) {
        if let Some(sentence) = &error
            && self.0.borrow().error != error
        {
            tracing::warn!("{sentence}");
        }
        self.0.send_if_modified(|known| {
            if known.error == error {
                return false;
            }
            if known.error.is_some() != error.is_some() {
                known.since = UnixMs::now();
            }
            known.error = error;
            true
        });
    }

    /// The peers of a tailscaled that is on the mesh.
    pub(super) fn set_peers(&self, status: &LocalStatus) {
        let map = |key: fn(&LocalPeer) -> &String| -> BTreeMap<_, _> {
            let peers = status
                .peer
                .iter()
                .flatten()
                .filter_map(|(_, peer)| Some((key(peer).clone(), peer.ip()?.to_string())));
            peers.filter(|(key, _)| !key.is_empty()).collect()
        };
        let (peers, by_id) = (map(|peer| &peer.host_name), map(|peer| &peer.id));
        self.0.send_if_modified(|known| {
            let changed = known.peers != peers || known.by_id != by_id;
            (known.peers, known.by_id) = (peers, by_id);
            changed
        });
    }
}

/// Follows whether a proxy that somebody else runs is there; never ends. More cannot be seen from
/// outside.
pub async fn watch_proxy(proxy: SocketAddr, status: AccessStatus) {
    loop {
        let there = matches!(timeout(CONNECT, TcpStream::connect(proxy)).await, Ok(Ok(_)));
        let error = format!(
            "the SOCKS5 proxy {proxy} of the operator's tailscaled does not answer, so no node can be reached from here; start it, or correct `mesh.socks5`"
        );
        status.set_error((!there).then_some(error));
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tailscaled_that_is_away_says_nothing_about_who_left() {
        let status = AccessStatus::off("not started");
        let mut seen = status.subscribe();
        let local: LocalStatus = serde_json::from_str(include_str!(
            "../../../tests/vectors/headscale/localapi-status.json"
        ))
        .unwrap();
        status.set_error(None);
        status.set_peers(&local);
        let on = seen.borrow_and_update().clone();
        assert_eq!(
            (on.error, on.peers.get("redis-0").map(String::as_str)),
            (None, Some("100.64.0.42"))
        );
        status.set_error(None);
        status.set_peers(&local);
        assert!(!seen.has_changed().unwrap(), "nothing new, so nobody wakes");
        status.set_error(Some("gone".to_owned()));
        let off = seen.borrow_and_update().clone();
        assert_eq!((off.error.as_deref(), off.peers), (Some("gone"), on.peers));
    }

    #[tokio::test]
    async fn a_proxy_that_is_not_there_is_named() {
        // Bound and not listening: nobody else gets the port, and connections are refused.
        let nobody = tokio::net::TcpSocket::new_v4().unwrap();
        nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let status = AccessStatus::off("not looked at yet");
        let mut seen = status.subscribe();
        let watching = tokio::spawn(watch_proxy(nobody.local_addr().unwrap(), status));
        let told = seen
            .wait_for(|own| own.error.as_ref().is_some_and(|e| e.contains("mesh.socks5")))
            .await
            .is_ok();
        assert!(told);
        let _listening = nobody.listen(1).unwrap();
        assert!(seen.wait_for(|own| own.error.is_none()).await.is_ok());
        watching.abort();
    }
}
