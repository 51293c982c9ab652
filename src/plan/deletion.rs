//! A deletion that was asked for: when it begins, and what it waits for until then. A cluster whose
//! deletion waits is run like any other.

use std::time::Duration;

use super::Input;
use super::builder::PlanBuilder;
use crate::api::conditions::{ConditionStatus, Reason};
use crate::api::deletion::{self, Deletion};
use crate::model::backup::BackupManifest;
use crate::model::time::UnixMs;

/// The last backup takes less, with an attempt that came to nothing, or a person should look at it.
const LAST_BACKUP: Duration = Duration::from_hours(12);

/// Everything is given up, from now on. It is not taken back: without nodes there is nothing that a
/// deletion could wait for.
pub fn begins(input: &Input<'_>) -> bool {
    match deletion::of(input.cluster, input.record) {
        Deletion::Granted => true,
        Deletion::AfterBackup => last_backup(input).is_some(),
        Deletion::NotAsked | Deletion::Refused => false,
    }
}

/// A last backup is wanted, and not there yet.
pub fn awaits_backup(input: &Input<'_>) -> bool {
    request(input).is_some() && last_backup(input).is_none()
}

/// The request that the last backup answers, where one is to be taken before the end.
pub fn request(input: &Input<'_>) -> Option<String> {
    let asked = input.cluster.metadata.deletion_timestamp.as_deref()?;
    let after = deletion::of(input.cluster, input.record) == Deletion::AfterBackup;
    after.then(|| format!("deletion {asked}"))
}

/// The backup that was begun after the deletion had been asked for, and lies in the storage now.
pub fn last_backup<'a>(input: &Input<'a>) -> Option<&'a BackupManifest> {
    let taken = input.record.backup.as_ref()?;
    if Some(&taken.word) != request(input).as_ref() || taken.run.is_some() || taken.failures > 0 {
        return None;
    }
    let metadata = &input.cluster.metadata;
    let listing = input.inventory.backups.get(&metadata.name)?.present()?;
    let uid = metadata.uid.as_deref().unwrap_or_default();
    listing.backups.iter().find(|backup| backup.uid == uid && backup.taken == taken.began)
}

/// Why the last backup cannot be taken now; `None` while it is on its way.
fn hindered(builder: &PlanBuilder<'_>) -> Option<String> {
    if builder.spec().backup.is_none() {
        return Some("spec.backup names no object storage".to_owned());
    }
    let record = builder.record.backup.as_ref();
    if let Some(record) = record.filter(|record| record.failures > 0) {
        return Some(record.error.clone());
    }
    let name = &builder.input.cluster.metadata.name;
    let reading = builder.input.inventory.backups.get(name);
    if let Some(error) = reading.filter(|r| r.at > UnixMs::default()).and_then(|r| r.error.clone())
    {
        return Some(error);
    }
    let master = builder.record.master.as_ref().is_some_and(|master| master.confirmed);
    let runs = record.is_some_and(|record| record.run.is_some());
    (!master && !runs).then(|| "there is no master whose data could be taken".to_owned())
}

/// What the deletion waits for: a reason and a sentence.
fn waits_for(builder: &PlanBuilder<'_>) -> Option<(Reason, String)> {
    let (input, name) = (builder.input, &builder.input.cluster.metadata.name);
    let anyway = format!(
        "`akash-redis delete {name} --yes-delete-data {name}`, or the annotation akash-redis.dev/yes-delete-data={name}, deletes it with its data"
    );
    match deletion::of(input.cluster, input.record) {
        Deletion::Refused => Some((
            Reason::DeletionRefused,
            format!(
                "{name} was to be deleted; it may hold data, which go with its leases, and spec.deletionPolicy is Refuse, so it goes on and no lease is closed: {anyway}; with `deletionPolicy: Backup` a last backup is taken before"
            ),
        )),
        Deletion::AfterBackup if last_backup(input).is_none() => Some(match hindered(builder) {
            Some(why) => (
                Reason::FinalBackupFailed,
                format!(
                    "{name} is to be deleted after a last backup, which cannot be taken: {why}; it goes on, no lease is closed, and the backup is tried again: {anyway} without one"
                ),
            ),
            None => (
                Reason::FinalBackupPending,
                format!(
                    "{name} goes on until a last backup is complete; then its leases are closed"
                ),
            ),
        }),
        _ => None,
    }
}

/// Says what the deletion waits for.
pub fn report(builder: &mut PlanBuilder<'_>) {
    let Some((reason, message)) = waits_for(builder) else { return };
    if reason != Reason::FinalBackupPending {
        return builder.problem(reason, message);
    }
    let asked = builder.input.cluster.metadata.deletion_timestamp.as_deref();
    let since = asked.and_then(UnixMs::parse).unwrap_or(builder.now());
    // The two clocks may differ.
    let since = since.min(builder.now());
    builder.watch(
        "a last backup, before the leases are closed",
        since,
        LAST_BACKUP,
        Reason::FinalBackupFailed,
    );
}

/// Whether the leases are closed; none where nobody asked for it.
pub fn condition(builder: &PlanBuilder<'_>) -> Option<(ConditionStatus, Reason, String)> {
    builder.input.cluster.metadata.deletion_timestamp.as_ref()?;
    Some(match waits_for(builder) {
        Some((reason, message)) => (ConditionStatus::False, reason, message),
        None => (
            ConditionStatus::True,
            Reason::LeasesClosing,
            "its leases are closed, and its devices and keys deleted".to_owned(),
        ),
    })
}
