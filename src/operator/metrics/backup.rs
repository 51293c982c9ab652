//! How old the data are that are left when all leases of a cluster are gone.

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Cluster;
use crate::api::status::{BackupStatus, Status};
use crate::model::time::UnixMs;

/// Times of backups, Unix seconds. None of a cluster that has no such backup.
#[derive(Clone, Debug, Default)]
pub struct Backups {
    newest: Family<Cluster, Gauge>,
    verified: Family<Cluster, Gauge>,
}

impl Backups {
    pub(super) fn register(&self, ours: &mut Registry) {
        ours.register(
            "backup_timestamp_seconds",
            "When the newest complete backup of a cluster was begun",
            self.newest.clone(),
        );
        ours.register(
            "backup_verified_timestamp_seconds",
            "When the backup was begun that passed the last test restore",
            self.verified.clone(),
        );
    }

    /// What was published about a cluster.
    pub fn status(&self, cluster: &str, status: &Status) {
        let none = BackupStatus::default();
        let backup = status.backup.as_ref().unwrap_or(&none);
        let newest = backup.backups.iter().find(|b| b.of_this_cluster).map(|b| &b.taken);
        show(&self.newest, cluster, newest);
        show(&self.verified, cluster, backup.verified.as_ref().map(|good| &good.taken));
    }
}

fn show(family: &Family<Cluster, Gauge>, cluster: &str, at: Option<&String>) {
    let labels = Cluster { cluster: cluster.to_owned() };
    match at.and_then(|at| UnixMs::parse(at)) {
        Some(at) => {
            let seconds = i64::try_from(at.0 / 1000).unwrap_or(i64::MAX);
            family.get_or_create(&labels).set(seconds);
        }
        None => {
            family.remove(&labels);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::status::{StoredBackup, VerifiedBackup};

    #[test]
    fn the_times_of_backups_are_shown_as_long_as_there_are_such_backups() {
        let (mut registry, backups) = (Registry::default(), Backups::default());
        backups.register(&mut registry);
        let text = |registry: &Registry| {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
            text
        };
        let stored = |seconds: u64, of_this_cluster| StoredBackup {
            taken: UnixMs(seconds * 1000).to_string(),
            of_this_cluster,
            ..StoredBackup::default()
        };
        let of = |verified: Option<u64>| {
            let backup = BackupStatus {
                // The newest first; an earlier cluster of this name had one too.
                backups: vec![stored(900, false), stored(700, true), stored(600, true)],
                verified: verified.map(|seconds| VerifiedBackup {
                    taken: UnixMs(seconds * 1000).to_string(),
                    ..VerifiedBackup::default()
                }),
                ..BackupStatus::default()
            };
            Status { backup: Some(backup), ..Status::default() }
        };
        let label = "{cluster=\"cache\"}";
        backups.status("cache", &of(Some(600)));
        let shown = text(&registry);
        assert!(shown.contains(&format!("backup_timestamp_seconds{label} 700")), "{shown}");
        assert!(
            shown.contains(&format!("backup_verified_timestamp_seconds{label} 600")),
            "{shown}"
        );
        backups.status("cache", &of(None));
        let shown = text(&registry);
        assert!(shown.contains(&format!("backup_timestamp_seconds{label} 700")), "{shown}");
        assert!(!shown.contains(&format!("backup_verified_timestamp_seconds{label}")), "{shown}");
        backups.status("cache", &Status::default());
        assert!(!text(&registry).contains(label), "{}", text(&registry));
    }
}
