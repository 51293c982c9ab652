//! Where nodes are dialled on the mesh.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::model::ids::{IncarnationName, InstallationId};
use crate::model::inventory::Reading;
use crate::model::mesh::{MeshView, OwnMesh};
use crate::model::record::Record;
use crate::operator::lock;

/// Where the nodes of each cluster were last dialled.
#[derive(Default)]
pub struct Addresses(Mutex<BTreeMap<String, BTreeMap<IncarnationName, String>>>);

impl Addresses {
    /// Where the nodes of a cluster are dialled from now on, when that is another place than before.
    /// One that nobody lists is still dialled where it was: what a list lacks does not make a node
    /// silent. Before anything was listed, that is where it spoke from last.
    pub fn update(
        &self,
        cluster: &str,
        record: &Record,
        tailnet: &Reading<MeshView>,
        own: &OwnMesh,
        tags: [&str; 2],
        installation: &InstallationId,
    ) -> Option<BTreeMap<IncarnationName, String>> {
        let mut all = lock(&self.0);
        let last = all.get(cluster);
        let found: BTreeMap<_, _> = record
            .incarnations
            .iter()
            .filter_map(|(name, incarnation)| {
                let (hostname, device) =
                    (name.hostname(installation), incarnation.device.as_deref());
                let known = address(tailnet, own, &hostname, device, tags);
                let known = known.or_else(|| last?.get(name).cloned());
                let known = known.or_else(|| incarnation.address.clone())?;
                Some((name.clone(), known))
            })
            .collect();
        if last.map_or(found.is_empty(), |last| *last == found) {
            return None;
        }
        all.insert(cluster.to_owned(), found.clone());
        Some(found)
    }

    /// A cluster is gone.
    pub fn forget(&self, cluster: &str) {
        lock(&self.0).remove(cluster);
    }
}

/// Where both know a node, the control API wins while it answers: it made the devices, and a
/// tailscaled that lost its control server keeps an old network map. While the API is away, the
/// network map is the younger of the two. A node that either knows is not let go: an operator that
/// starts while the API is away has the network map alone, one whose tailscaled was just started has
/// the API alone.
fn address(
    mesh: &Reading<MeshView>,
    own: &OwnMesh,
    hostname: &str,
    reported: Option<&str>,
    tags: [&str; 2],
) -> Option<String> {
    let listed = || {
        let devices = mesh.value.as_ref()?.devices_of(hostname, reported, tags);
        let device = devices.iter().find(|d| reported == Some(d.id.as_str())).or(devices.first())?;
        (!device.ip.is_empty()).then(|| device.ip.clone())
    };
    // By its id first: a node that was renamed, or asked for another host name, is the same node.
    let seen =
        || reported.and_then(|id| own.by_id.get(id)).or_else(|| own.peers.get(hostname)).cloned();
    if mesh.present().is_some() { listed().or_else(seen) } else { seen().or_else(listed) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::incarnation::Incarnation;
    use crate::model::mesh::Device;
    use crate::model::money::PricePerBlock;
    use crate::model::time::UnixMs;

    fn found(mesh: &Reading<MeshView>, peers: &[(&str, &str)], hostname: &str) -> Option<String> {
        let peers = peers.iter().map(|(name, ip)| ((*name).to_owned(), (*ip).to_owned())).collect();
        address(
            mesh,
            &OwnMesh { peers, ..OwnMesh::default() },
            hostname,
            None,
            ["tag:nodes", "tag:quarantine"],
        )
    }

    /// It starts while the control API is away, and has a SOCKS5 proxy alone.
    #[test]
    fn an_operator_that_is_told_of_nobody_dials_nodes_where_they_spoke_last() {
        let name = IncarnationName("cache-0-x7k2".into());
        let mut incarnation = Incarnation::new(0, 7, UnixMs(1), 0, PricePerBlock::default());
        incarnation.address = Some("100.64.0.4".into());
        let mut record = Record::default();
        record.incarnations.insert(name.clone(), incarnation);
        let installation = InstallationId("abc123".into());
        let (addresses, tags) = (Addresses::default(), ["tag:nodes", "tag:quarantine"]);
        let none = Reading::default();
        let dialled =
            addresses.update("cache", &record, &none, &OwnMesh::default(), tags, &installation);
        assert_eq!(dialled, Some(BTreeMap::from([(name.clone(), "100.64.0.4".to_owned())])));
        // Whoever lists it knows better.
        let peers = BTreeMap::from([("cache-0-x7k2-abc123".to_owned(), "100.64.0.5".to_owned())]);
        let own = OwnMesh { peers, ..OwnMesh::default() };
        let dialled = addresses.update("cache", &record, &none, &own, tags, &installation);
        assert_eq!(dialled, Some(BTreeMap::from([(name, "100.64.0.5".to_owned())])));
    }

    #[test]
    fn a_node_is_found_by_either_and_the_fresher_one_wins() {
        let device = Device {
            id: "n1".into(),
            hostname: "cache-0-x7k2-abc123".into(),
            name: String::new(),
            ip: "100.64.0.1".into(),
            tags: vec!["tag:nodes".into()],
            created: None,
            multiple_connections: false,
            unsigned: false,
        };
        let view = MeshView { devices: vec![device], ..MeshView::default() };
        let fresh = Reading::fresh(view, UnixMs(1));
        let away = Reading { error: Some("away".into()), ..fresh.clone() };
        let (first, second) = ("cache-0-x7k2-abc123", "cache-1-y8m3-abc123");
        let peers = [(first, "100.64.0.2"), (second, "100.64.0.3")];
        assert_eq!(found(&fresh, &peers, first).as_deref(), Some("100.64.0.1"));
        assert_eq!(found(&fresh, &peers, second).as_deref(), Some("100.64.0.3"));
        assert_eq!(found(&away, &peers, first).as_deref(), Some("100.64.0.2"));
        assert_eq!(
            found(&away, &[], first).as_deref(),
            Some("100.64.0.1"),
            "the last that was known"
        );
        assert_eq!(
            found(&Reading::default(), &peers, second).as_deref(),
            Some("100.64.0.3"),
            "the control API never answered"
        );
        assert_eq!(found(&fresh, &[], second), None);
    }
}
