//! By which way each peer of the own cluster is reached, and how long it takes: direct, through a
//! peer, or through a relay.
//!
//! A path without traffic shows nothing in tailscaled's status, so the peer is pinged first.
//! tailscaled answers these pings itself; Redis and its connections have no part in it. Two replicas
//! speak to each other for the first time when one of them becomes master: their tunnel is kept warm,
//! because a first handshake costs a round trip, and 5 s where one side does not know the other yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::state::Node;
use crate::mesh::local::{LocalClient, LocalPeer, LocalStatus, Pong};
use crate::model::identity::NodeIdentity;
use crate::model::ids::{IncarnationName, InstallationId};
use crate::model::node::{PathKind, PeerPath};

/// A path is looked at so often.
const EVERY: Duration = Duration::from_secs(15);
/// A peer that is new is looked at within this.
const LOOK: Duration = Duration::from_secs(3);
/// The first answer may come by a relay while a direct path is being opened; the next one tells.
const OPENING: Duration = Duration::from_secs(1);

/// When each peer was looked at, by name.
type Looked = BTreeMap<String, (Instant, PeerPath)>;

/// Shows the paths in the node's state until `stop`.
pub async fn keep_looking(node: Arc<Node>, api: LocalClient, stop: CancellationToken) {
    let looking = async {
        let mut looked = Looked::new();
        loop {
            look(&node.identity, &api, &mut looked).await;
            let paths: Vec<_> = looked.values().map(|(_, path)| path.clone()).collect();
            node.update(|state| state.mesh.paths = paths);
            sleep(LOOK).await;
        }
    };
    stop.run_until_cancelled(looking).await;
}

/// Looks at the peers that are due.
async fn look(identity: &NodeIdentity, api: &LocalClient, looked: &mut Looked) {
    let Some(status) = api.status().await.ok().filter(LocalStatus::running) else {
        return looked.clear();
    };
    let peers = own_peers(identity, &status);
    looked.retain(|name, _| peers.iter().any(|peer| peer.fqdn() == name));
    let due =
        |peer: &&LocalPeer| looked.get(peer.fqdn()).is_none_or(|(at, _)| at.elapsed() >= EVERY);
    let due: Vec<_> = peers.into_iter().filter(due).collect();
    if due.is_empty() {
        return;
    }
    let pongs = join_all(due.iter().map(|peer| ping(api, peer))).await;
    // After it: the way is known then.
    join_all(due.iter().map(|peer| warm(api, peer))).await;
    // Only now does the status show what the pings opened.
    let Ok(status) = api.status().await else { return looked.clear() };
    for (peer, pong) in due.into_iter().zip(pongs) {
        let now = status.peer_named(peer.fqdn()).unwrap_or(peer);
        looked.insert(peer.fqdn().to_owned(), (Instant::now(), path(now, pong.as_ref())));
    }
}

/// Nodes of the same cluster and installation, by the host names that they asked for.
pub(super) fn own_peers<'a>(
    identity: &NodeIdentity,
    status: &'a LocalStatus,
) -> Vec<&'a LocalPeer> {
    let installation = InstallationId(identity.installation.clone());
    let own = IncarnationName(identity.incarnation.clone());
    let same = |peer: &&LocalPeer| {
        IncarnationName::from_hostname(&peer.host_name, &installation)
            .is_some_and(|name| name.cluster() == own.cluster())
    };
    status
        .peer
        .iter()
        .flat_map(BTreeMap::values)
        .filter(same)
        .filter(|peer| !peer.fqdn().is_empty())
        .collect()
}

/// That nothing comes back is shown by the ping.
async fn warm(api: &LocalClient, peer: &LocalPeer) {
    if let Some(ip) = peer.ip() {
        let _ = api.warm(ip).await;
    }
}

async fn ping(api: &LocalClient, peer: &LocalPeer) -> Option<Pong> {
    let ip = peer.ip()?;
    let once = async || api.ping(ip).await.ok().filter(|pong| pong.error.is_empty());
    let first = once().await?;
    if !first.endpoint.is_empty() {
        return Some(first);
    }
    sleep(OPENING).await;
    once().await.or(Some(first))
}

/// The way that traffic takes now, with the round trip if it was measured on that way.
fn path(peer: &LocalPeer, pong: Option<&Pong>) -> PeerPath {
    let endpoint = pong.map(|pong| pong.endpoint.as_str()).filter(|endpoint| !endpoint.is_empty());
    let direct = endpoint.or((!peer.cur_addr.is_empty()).then_some(peer.cur_addr.as_str()));
    let relay = pong.map_or(peer.peer_relay.as_str(), |pong| pong.peer_relay.as_str());
    let (kind, via, measured) = match (direct, pong) {
        (Some(address), _) => (PathKind::Direct, address, endpoint.is_some()),
        (None, _) if !relay.is_empty() => (PathKind::PeerRelay, relay, pong.is_some()),
        (None, Some(pong)) => (
            PathKind::Derp,
            if pong.derp_region.is_empty() { &*peer.relay } else { &*pong.derp_region },
            true,
        ),
        (None, None) => (PathKind::Unknown, "", false),
    };
    let rtt = pong
        .filter(|_| measured)
        .and_then(|pong| Duration::try_from_secs_f64(pong.seconds).ok())
        .unwrap_or_default();
    PeerPath {
        name: peer.fqdn().to_ascii_lowercase(),
        kind,
        via: via.to_owned(),
        rtt_us: u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX),
        rx_bytes: peer.rx_bytes,
        tx_bytes: peer.tx_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(cur_addr: &str) -> LocalPeer {
        LocalPeer {
            dns_name: "Cache-0.mesh.test.".into(),
            cur_addr: cur_addr.into(),
            relay: "fra".into(),
            rx_bytes: 7,
            ..LocalPeer::default()
        }
    }

    fn seen(peer: &LocalPeer, pong: Option<&Pong>) -> (PathKind, String, u64) {
        let PeerPath { kind, via, rtt_us, .. } = path(peer, pong);
        (kind, via, rtt_us)
    }

    #[test]
    fn the_way_is_told_and_only_its_own_round_trip() {
        let relayed = Pong { seconds: 0.038, derp_region: "nyc".into(), ..Pong::default() };
        let direct =
            Pong { seconds: 0.0006, endpoint: "192.0.2.1:41641".into(), ..Pong::default() };
        let by_peer =
            Pong { seconds: 0.005, peer_relay: "192.0.2.9:40000:vni:1".into(), ..Pong::default() };
        assert_eq!(
            seen(&peer(""), Some(&direct)),
            (PathKind::Direct, "192.0.2.1:41641".into(), 600)
        );
        assert_eq!(seen(&peer(""), Some(&relayed)), (PathKind::Derp, "nyc".into(), 38_000));
        assert_eq!(
            seen(&peer(""), Some(&by_peer)),
            (PathKind::PeerRelay, "192.0.2.9:40000:vni:1".into(), 5000)
        );
        assert_eq!(
            seen(&peer("192.0.2.1:1"), Some(&relayed)),
            (PathKind::Direct, "192.0.2.1:1".into(), 0),
            "measured on another way"
        );
        assert_eq!(seen(&peer("192.0.2.1:1"), None), (PathKind::Direct, "192.0.2.1:1".into(), 0));
        assert_eq!(seen(&peer(""), None), (PathKind::Unknown, String::new(), 0));
        assert_eq!(path(&peer(""), None).name, "cache-0.mesh.test");
    }

    #[test]
    fn only_nodes_of_the_own_cluster_are_looked_at() {
        let names = [
            "cache-1-y8m3-abc123",
            "cache-b-0-z9n4-abc123",
            "cache-1-y8m3-zzzzzz",
            "akash-redis-operator-abc123",
        ];
        let peers = names.map(|name| {
            (
                name.to_owned(),
                LocalPeer {
                    host_name: name.into(),
                    dns_name: format!("{name}."),
                    ..LocalPeer::default()
                },
            )
        });
        let status = LocalStatus { peer: Some(BTreeMap::from(peers)), ..LocalStatus::default() };
        let identity: NodeIdentity = serde_json::from_value(serde_json::json!({
            "installation": "abc123", "incarnation": "cache-0-x7k2", "hostname": "cache-0-x7k2-abc123", "epochFloor": 0, "authKey": "", "ca": "",
            "certificate": "", "key": "", "egress": "forwarder", "memoryBytes": 0, "persistent": false,
        }))
        .unwrap();
        let found: Vec<_> =
            own_peers(&identity, &status).into_iter().map(LocalPeer::fqdn).collect();
        assert_eq!(found, ["cache-1-y8m3-abc123"]);
    }
}
