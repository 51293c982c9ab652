//! What lies in the object storages of clusters: read seldom, because a storage counts each request
//! and changes by our own hand alone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::api::deletion::{self, Deletion};
use crate::api::types::RedisCluster;
use crate::backup::storage::StorageError;
use crate::model::backup::Listing;
use crate::model::inventory::Reading;
use crate::model::record::Record;
use crate::model::step::StorageRef;
use crate::model::time::UnixMs;
use crate::operator::lock;
use crate::operator::ports::Ports;

/// A storage that answered is asked again after so long; after an effect there at once.
const AGAIN: Duration = Duration::from_mins(10);
/// One that did not.
const AGAIN_AFTER_FAILURE: Duration = Duration::from_secs(30);

/// The last readings, by cluster and by the cluster that was backed up.
#[derive(Default)]
pub struct BackupReadings(Mutex<BTreeMap<(String, String), Entry>>);

#[derive(Default)]
struct Entry {
    /// Where it was read.
    at: Option<StorageRef>,
    reading: Reading<Arc<Listing>>,
    due: UnixMs,
    under_way: bool,
    /// The moment that is to be found.
    to: Option<UnixMs>,
}

/// The moment that a cluster is to begin with, while it has not begun.
fn moment(cluster: &RedisCluster, record: &Record, of: &str) -> Option<UnixMs> {
    let from = cluster.spec.bootstrap.as_ref()?.from_backup.as_ref()?;
    let begun = record.data_epoch > 0 || record.restore.is_some();
    let meant = from.cluster.as_ref().unwrap_or(&cluster.metadata.name) == of;
    from.at.as_deref().filter(|_| meant && !begun).and_then(UnixMs::parse)
}

/// Nobody archives the log of a cluster: what a node archived to its end is to be listed soon.
fn ended(record: &Record) -> Option<UnixMs> {
    record.archive.as_ref().filter(|a| a.run.is_none()).map(|a| a.stopped)
}

/// What of a cluster is read: its own backups, and those that it is to begin with.
fn wanted(cluster: &RedisCluster, record: &Record) -> Vec<StorageRef> {
    let Some(backup) = &cluster.spec.backup else { return Vec::new() };
    if deletion::of(cluster, record) == Deletion::Granted {
        return Vec::new();
    }
    let own = &cluster.metadata.name;
    let of = |name: &str| StorageRef::of(backup.storage(), backup.sealed(), own, name);
    let mut all = vec![of(own)];
    let from = cluster.spec.bootstrap.as_ref().and_then(|b| b.from_backup.as_ref());
    let from = from.and_then(|from| from.cluster.as_ref());
    if let Some(from) = from.filter(|from| *from != own && record.data_epoch == 0) {
        all.push(of(from));
    }
    all
}

impl BackupReadings {
    /// The readings that are to begin now; they count as under way.
    pub fn begin(&self, cluster: &RedisCluster, record: &Record, now: UnixMs) -> Vec<StorageRef> {
        let mut entries = lock(&self.0);
        let name = &cluster.metadata.name;
        let mut begun = Vec::new();
        for at in wanted(cluster, record) {
            let entry = entries.entry((name.clone(), at.cluster.clone())).or_default();
            if entry.at.as_ref() != Some(&at) && !entry.under_way {
                *entry = Entry { at: Some(at.clone()), ..Entry::default() };
            }
            let to = moment(cluster, record, &at.cluster);
            let stale = ended(record).is_some_and(|ended| entry.reading.at <= ended)
                && now.passed(entry.reading.at, AGAIN_AFTER_FAILURE);
            if !entry.under_way && (now >= entry.due || to != entry.to || stale) {
                entry.under_way = true;
                entry.to = to;
                begun.push(at);
            }
        }
        begun
    }

    /// Reads one of them.
    pub async fn read(&self, ports: &Ports, cluster: &str, at: StorageRef) {
        let began = (ports.now)();
        let to = lock(&self.0).get(&(cluster.to_owned(), at.cluster.clone())).and_then(|e| e.to);
        let result = ports.backups.list(&at, to).await;
        let now = (ports.now)();
        let mut entries = lock(&self.0);
        let Some(entry) = entries.get_mut(&(cluster.to_owned(), at.cluster.clone())) else {
            return;
        };
        entry.under_way = false;
        if entry.at.as_ref() != Some(&at) {
            return;
        }
        match result {
            // One that began earlier may come later, and knows less.
            Ok(_) if began < entry.reading.at => {}
            Ok(listing) => {
                entry.reading = Reading::took(Arc::new(listing), began, now);
                entry.due = now + AGAIN;
            }
            Err(error) => {
                let refused = !matches!(error, StorageError::Away { .. });
                entry.reading.failed(error.to_string(), refused);
                entry.due = now + AGAIN_AFTER_FAILURE;
            }
        }
    }

    /// Something was changed there: all of this cluster's is read again, now.
    pub async fn read_again(&self, ports: &Ports, cluster: &str) {
        let all: Vec<_> = {
            let entries = lock(&self.0);
            let own = entries.iter().filter(|((of, _), _)| of == cluster);
            own.filter_map(|(_, entry)| entry.at.clone()).collect()
        };
        for at in all {
            self.read(ports, cluster, at).await;
        }
    }

    /// What is known for a cluster.
    pub fn of(
        &self,
        cluster: &RedisCluster,
        record: &Record,
    ) -> BTreeMap<String, Reading<Arc<Listing>>> {
        let entries = lock(&self.0);
        let name = &cluster.metadata.name;
        let reading = |at: StorageRef| {
            let entry = entries.get(&(name.clone(), at.cluster.clone()));
            let entry = entry.filter(|entry| entry.at.as_ref() == Some(&at));
            (at.cluster, entry.map(|entry| entry.reading.clone()).unwrap_or_default())
        };
        wanted(cluster, record).into_iter().map(reading).collect()
    }

    /// The cluster is gone.
    pub fn forget(&self, cluster: &str) {
        lock(&self.0).retain(|(of, _), _| of != cluster);
    }
}
