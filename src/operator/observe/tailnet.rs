//! The tailnet as it was read, sorted by cluster. It is read as a whole after each effect on it: the
//! control API has no cheaper reading of which every part is of one moment.

use std::collections::{BTreeMap, BTreeSet};

use super::chain::News;
use crate::mesh::MeshError;
use crate::model::ids::{IncarnationName, InstallationId};
use crate::model::inventory::Reading;
use crate::model::mesh::{AuthKey, Device, MeshView};
use crate::model::time::UnixMs;
use crate::operator::health::Read;

/// The last reading of the tailnet.
#[derive(Default)]
pub struct TailnetReadings {
    /// Without devices and keys.
    whole: Reading<MeshView>,
    /// Devices and keys by the cluster that they name.
    clusters: BTreeMap<String, MeshView>,
    /// All devices, whatever they are called.
    devices: BTreeMap<String, Device>,
}

impl TailnetReadings {
    /// It was read, or could not be: then the last reading stays, marked. One that was overtaken by
    /// a later one says nothing.
    pub fn take(
        &mut self,
        result: Result<MeshView, MeshError>,
        [began, done]: [UnixMs; 2],
        installation: &InstallationId,
    ) -> News {
        if began < self.whole.at {
            return News::Of(BTreeSet::new());
        }
        let was_away = self.whole.error.is_some();
        let view = match result {
            Ok(view) => view,
            Err(error) => {
                let refused = !matches!(error, MeshError::Away { .. });
                self.whole.failed(error.to_string(), refused);
                return if was_away { News::Of(BTreeSet::new()) } else { News::OfAll };
            }
        };
        let all_keys = view.all_keys;
        let mut clusters: BTreeMap<String, MeshView> = BTreeMap::new();
        for device in &view.devices {
            let name = IncarnationName::from_hostname(&device.hostname, installation);
            if let Some(name) = name {
                let part = clusters.entry(name.cluster().to_owned()).or_default();
                part.devices.push(device.clone());
            }
        }
        for key in view.keys {
            if let Some(name) =
                IncarnationName::from_key_description(&key.description, installation)
            {
                clusters.entry(name.cluster().to_owned()).or_default().keys.push(key);
            }
        }
        let devices = view.devices.into_iter().map(|d| (d.id.clone(), d)).collect();
        let before = std::mem::replace(&mut self.clusters, clusters);
        // Devices under a name of nobody are the concern of whoever recorded them.
        let renamed = std::mem::replace(&mut self.devices, devices) != self.devices
            && before == self.clusters;
        let whole = MeshView { all_keys, ..MeshView::default() };
        self.whole = Reading::took(whole, began, done);
        if was_away || renamed {
            return News::OfAll;
        }
        let names = before.keys().chain(self.clusters.keys());
        let changed = names.filter(|name| before.get(*name) != self.clusters.get(*name));
        News::Of(changed.cloned().collect())
    }

    /// The keys that were read are all there are.
    pub fn has_all_keys(&self) -> bool {
        self.whole.value.as_ref().is_none_or(|view| view.all_keys)
    }

    /// Devices that carry the name of an incarnation of ours.
    pub fn devices_with(
        &self,
        installation: &InstallationId,
    ) -> impl Iterator<Item = (&Device, IncarnationName)> {
        let devices = self.clusters.values().flat_map(|part| &part.devices);
        devices
            .filter_map(|d| Some((d, IncarnationName::from_hostname(&d.hostname, installation)?)))
    }

    /// Keys that carry the name of an incarnation of ours.
    pub fn keys_with(
        &self,
        installation: &InstallationId,
    ) -> impl Iterator<Item = (&AuthKey, IncarnationName)> {
        let keys = self.clusters.values().flat_map(|part| &part.keys);
        keys.filter_map(|k| {
            Some((k, IncarnationName::from_key_description(&k.description, installation)?))
        })
    }

    /// How the last reading ended.
    pub fn health(&self) -> Read {
        let Reading { error, refused, .. } = &self.whole;
        let seen = format!("{} devices", self.devices.len());
        Read { error: error.clone(), refused: *refused, seen }
    }

    /// The devices and keys of one cluster: those that carry its name, and the devices that its
    /// record names.
    pub fn of<'a>(
        &self,
        cluster: &str,
        recorded: impl Iterator<Item = &'a str>,
    ) -> Reading<MeshView> {
        let mut reading = self.whole.clone();
        if let Some(view) = &mut reading.value {
            let all_keys = view.all_keys;
            *view = self.clusters.get(cluster).cloned().unwrap_or_default();
            view.all_keys = all_keys;
            for device in recorded.filter_map(|id| self.devices.get(id)) {
                if !view.devices.iter().any(|known| known.id == device.id) {
                    view.devices.push(device.clone());
                }
            }
        }
        reading
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installation() -> InstallationId {
        InstallationId("abcdef".into())
    }

    fn device(id: &str, hostname: &str) -> Device {
        Device {
            id: id.into(),
            hostname: hostname.into(),
            name: String::new(),
            ip: "100.64.0.1".into(),
            tags: Vec::new(),
            created: None,
            multiple_connections: false,
            unsigned: false,
        }
    }

    #[allow(clippy::unnecessary_wraps)] // as it is read
    fn view(devices: Vec<Device>) -> Result<MeshView, MeshError> {
        let description = IncarnationName::new("a", 0, "aaaa").key_description(&installation());
        let keys = vec![AuthKey { id: "k".into(), description, invalid: false }];
        Ok(MeshView { devices, keys, all_keys: true })
    }

    fn away() -> Result<MeshView, MeshError> {
        Err(MeshError::Away { api: "here".into(), detail: "silence".into() })
    }

    fn take(readings: &mut TailnetReadings, at: u64, view: Result<MeshView, MeshError>) -> News {
        readings.take(view, [UnixMs(at), UnixMs(at + 1)], &installation())
    }

    fn of(clusters: &[&str]) -> News {
        News::Of(clusters.iter().map(|c| (*c).to_owned()).collect())
    }

    #[test]
    fn news_is_of_the_clusters_whose_devices_or_keys_differ() {
        let (a, b) = (device("1", "a-0-aaaa-abcdef"), device("2", "b-0-aaaa-abcdef"));
        let mut readings = TailnetReadings::default();
        assert_eq!(take(&mut readings, 1, view(vec![a.clone(), b.clone()])), News::OfAll);
        assert_eq!(take(&mut readings, 2, view(vec![a.clone(), b.clone()])), of(&[]));
        let moved = Device { ip: "100.64.0.9".into(), ..b.clone() };
        assert_eq!(take(&mut readings, 3, view(vec![a.clone(), moved])), of(&["b"]));
        assert_eq!(take(&mut readings, 4, view(vec![a.clone()])), of(&["b"]));
        assert_eq!(take(&mut readings, 3, view(vec![])), of(&[]), "it was overtaken");
        assert_eq!(take(&mut readings, 5, away()), News::OfAll);
        assert_eq!(take(&mut readings, 6, away()), of(&[]));
        let reading = readings.of("a", std::iter::empty());
        assert_eq!((reading.value.unwrap().devices, reading.at), (vec![a], UnixMs(4)));
        assert!(reading.error.is_some(), "the last reading stays, marked");
    }

    #[test]
    fn a_cluster_gets_the_devices_of_its_name_and_of_its_record() {
        let renamed = device("3", "somebody");
        let (a, b) = (device("1", "a-0-aaaa-abcdef"), device("2", "b-0-aaaa-abcdef"));
        let mut readings = TailnetReadings::default();
        take(&mut readings, 1, view(vec![a.clone(), b, renamed.clone()]));
        let part = |cluster: &str, recorded: &[&str]| {
            readings.of(cluster, recorded.iter().copied()).value.unwrap()
        };
        assert_eq!(part("a", &["1", "3"]).devices, [a, renamed]);
        assert_eq!((part("a", &[]).keys.len(), part("b", &[]).keys.len()), (1, 0));
        assert!(part("new", &[]).devices.is_empty() && part("new", &[]).all_keys);
    }
}
