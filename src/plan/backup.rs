//! Backups: when one is taken, of which node, and which of them go.
//!
//! A backup is one run at a time: it is written to the record, a node is told, and once the node has
//! stored the data the manifest is written beside them, by which it becomes a backup. Whatever is
//! abandoned half-way is no backup, and is deleted.

use std::time::Duration;

use super::builder::PlanBuilder;
use super::retention::surplus;
use super::{archive, deletion, derived, roles, verify};
use crate::api::annotations::BACKUP;
use crate::api::backup::Backup;
use crate::api::conditions::{ConditionStatus, Reason};
use crate::api::events::EventReason;
use crate::api::status::{BackupStatus, StoredBackup};
use crate::model::backup::{
    BackupManifest, BackupRecord, BackupRun, BackupTask, BackupUser, FORMAT, Listing, MasterSeen,
    Snapshot, TaskPhase,
};
use crate::model::ids::IncarnationName;
use crate::model::node::NodeState;
use crate::model::step::{Command, Effect, StorageRef};
use crate::model::time::{Backoff, UnixMs};

/// A backup that takes longer is given up. At 10 MB/s that is 200 GB.
const LIMIT: Duration = Duration::from_hours(6);
/// A node that takes one may be silent for so long.
const SILENCE: Duration = Duration::from_mins(2);
/// An attempt that came to nothing is followed by another one after so long.
const PAUSES: Backoff = Backoff { first: Duration::from_mins(2), longest: Duration::from_hours(1) };
/// So many attempts in a row; then the next one is that of the schedule, or of a person.
const ATTEMPTS: u32 = 6;
/// The manifest is written so often before the backup is given up.
const COMPLETIONS: u32 = 5;
/// The master is heard again within this.
const HEARD: Duration = Duration::from_secs(30);
/// A replica in sync is waited for so long before that is a problem.
const NO_REPLICA: Duration = Duration::from_hours(1);
/// Data without a manifest are left alone for so long: clocks differ, and somebody may look.
const UNFINISHED: Duration = Duration::from_hours(1);
/// A replica may be behind by so many bytes to be backed up.
const BEHIND: i64 = 1 << 20;
/// Backups that the status lists.
const LISTED: usize = 100;

/// The storage of the cluster's own backups, when the manifest names one.
pub fn storage(builder: &PlanBuilder<'_>) -> Option<(Backup, StorageRef)> {
    let (backup, name) = (builder.spec().backup.clone()?, &builder.input.cluster.metadata.name);
    let at = StorageRef::of(backup.storage(), backup.sealed(), name, name);
    Some((backup, at))
}

/// What is known to lie there.
pub fn listing<'a>(builder: &PlanBuilder<'a>) -> Option<&'a Listing> {
    let name = &builder.input.cluster.metadata.name;
    builder.input.inventory.backups.get(name)?.value.as_deref()
}

/// Of the cluster.
pub fn uid(builder: &PlanBuilder<'_>) -> String {
    builder.input.cluster.metadata.uid.clone().unwrap_or_default()
}

/// The backups of this very cluster, oldest first.
pub fn own<'a>(builder: &PlanBuilder<'a>) -> Vec<&'a BackupManifest> {
    let uid = uid(builder);
    let all = listing(builder).map(|l| l.backups.as_slice()).unwrap_or_default();
    all.iter().filter(|backup| backup.uid == uid).collect()
}

/// Goes on with the backup that is being taken, or begins one; deletes what no rule keeps.
pub fn plan(builder: &mut PlanBuilder<'_>) {
    let Some((backup, at)) = storage(builder) else {
        // What was begun is swept up when there is a storage again.
        if let Some(record) = &mut builder.record.backup {
            record.run = None;
        }
        return;
    };
    if builder.record.backup.as_ref().is_some_and(|b| b.run.is_some()) {
        go_on(builder, &at);
    } else {
        begin(builder, &backup, &at);
    }
    sweep(builder, &backup, &at);
}

/// What is to be done about the backup under way.
fn go_on(builder: &mut PlanBuilder<'_>, at: &StorageRef) {
    let Some(run) = builder.record.backup.as_ref().and_then(|b| b.run.clone()) else { return };
    let BackupRun { id, incarnation: node, .. } = &run;
    if let Some(stored) = listing(builder).and_then(|l| l.backups.iter().find(|b| b.id == *id)) {
        let message = format!(
            "backup {id} is stored: {} keys of {node} at offset {}, {}",
            stored.snapshot.keys,
            stored.snapshot.offset,
            size(stored.snapshot.stored_bytes)
        );
        let began = run.began;
        change(builder, |record| {
            let (word, verify) = (record.word.clone(), record.verify.clone());
            *record = BackupRecord { word, began, verify, ..BackupRecord::default() };
        });
        builder.event(EventReason::BackupTaken, message);
        return;
    }
    if builder.now().passed(run.began, LIMIT) {
        return fail(builder, &run, &format!("it took more than {} h", LIMIT.as_secs() / 3600));
    }
    if builder.incarnation(node).is_none_or(|i| i.condemned.is_some()) {
        return fail(builder, &run, &format!("{node} is given up"));
    }
    let Some(state) = builder.connected(node) else {
        let since = derived::last_heard(builder, node);
        if builder.now().passed(since, SILENCE) {
            return fail(builder, &run, &format!("{node} is not heard since {since}"));
        }
        builder.wait(
            format!("{node} to be heard, which takes backup {id}"),
            since,
            Some(SILENCE),
            "the backup is given up, and another one is taken later",
        );
        return;
    };
    let Some(task) = &state.backup else {
        return fail(
            builder,
            &run,
            &format!("the agent of {node} is of a version that takes none"),
        );
    };
    if task.id != *id {
        if state.boot_id != run.boot_id {
            return fail(builder, &run, &format!("the container of {node} was started anew"));
        }
        let command = Command::Backup { id: id.clone(), storage: at.clone() };
        return builder.command(node, command, run.why.clone());
    }
    match task.phase {
        TaskPhase::None | TaskPhase::Running => builder.wait(
            format!("backup {id} of {node}{}", progress(task)),
            run.began,
            Some(LIMIT),
            "it is given up, and another one is taken later",
        ),
        TaskPhase::Failed => fail(builder, &run, &task.error),
        TaskPhase::Done => complete(builder, at, &run, task.snapshot.clone().unwrap_or_default()),
    }
}

/// Why the backup cannot be completed, once that was tried often enough.
fn not_completed(builder: &PlanBuilder<'_>, id: &str) -> Option<String> {
    let failing = builder.input.inventory.failing.iter();
    let mut own = failing.filter(
        |f| matches!(&f.effect, Effect::CompleteBackup { manifest, .. } if manifest.id == id),
    );
    own.find(|f| f.times >= COMPLETIONS).map(|f| f.error.clone())
}

/// The node has stored the data: what it says is compared with what the master was seen to have, and
/// written beside them.
fn complete(builder: &mut PlanBuilder<'_>, at: &StorageRef, run: &BackupRun, snapshot: Snapshot) {
    let (node, id) = (&run.incarnation, &run.id);
    if let Some(why) = not_completed(builder, id) {
        return fail(builder, run, &why);
    }
    let master = builder.record.master.clone().filter(|p| p.confirmed);
    let its = master.as_ref().and_then(|p| builder.view(&p.incarnation)).map(|v| &v.state.redis);
    let same = its.filter(|redis| redis.replid == snapshot.replid);
    let after = same.map_or(snapshot.offset, |redis| redis.offset);
    // Of one history nobody has more than its master, nor less than that had when it was asked. What
    // was heard of the master last may be a moment older than the snapshot.
    let ahead = same.is_some() && snapshot.offset > after;
    let lacks = same.is_some()
        && run.epoch == builder.record.data_epoch
        && snapshot.offset + BEHIND < run.master.offset_before;
    let stored = run.stored.unwrap_or(builder.now());
    if lacks || (ahead && builder.now().passed(stored, HEARD)) {
        let why = format!(
            "{node} says that its snapshot is of offset {}, and its master had {} to {after}",
            snapshot.offset, run.master.offset_before
        );
        return fail(builder, run, &why);
    }
    if ahead {
        change(builder, |record| {
            record.run.iter_mut().for_each(|run| run.stored = Some(stored));
        });
        return builder.wait(
            format!("the master to be heard after the snapshot of {node}"),
            stored,
            Some(HEARD),
            "the node is not believed, and the backup is given up",
        );
    }
    let users = builder.spec().redis.users.iter().map(|user| BackupUser {
        name: user.name.clone(),
        password_sha256: user.hashes(),
        rules: user.rules.clone(),
    });
    let manifest = BackupManifest {
        format: FORMAT,
        id: id.clone(),
        installation: builder.input.constants.installation.clone(),
        cluster: builder.input.cluster.metadata.name.clone(),
        uid: uid(builder),
        incarnation: node.clone(),
        taken: run.began,
        epoch: run.epoch,
        master: MasterSeen { offset_after: after, ..run.master.clone() },
        users: users.collect(),
        snapshot,
    };
    let effect = Effect::CompleteBackup {
        incarnation: node.clone(),
        storage: at.clone(),
        manifest: Box::new(manifest),
    };
    builder.step(effect, format!("{node} has stored all of its data"));
    builder.wait(
        format!("backup {id} to be completed"),
        run.began,
        Some(LIMIT),
        "it is given up, and another one is taken later",
    );
}

/// Why a backup is to be taken now, and the request that it answers.
fn wanted(builder: &PlanBuilder<'_>, backup: &Backup) -> Option<(String, Option<String>)> {
    let record = builder.record.backup.clone().unwrap_or_default();
    if let Some(word) = deletion::request(builder.input) {
        return last(builder, &record, word);
    }
    let word = builder.input.cluster.metadata.annotations.get(BACKUP);
    if let Some(word) = word.filter(|word| !word.is_empty() && **word != record.word) {
        return Some(("it was asked for".to_owned(), Some(word.clone())));
    }
    let again = (1..ATTEMPTS).contains(&record.failures)
        && builder.now().passed(record.failed, PAUSES.delay(record.failures - 1));
    if again {
        return Some((format!("the last attempt came to nothing: {}", record.error), None));
    }
    if archive::wants_backup(builder) {
        return Some(("the log of writes began anew".to_owned(), None));
    }
    let due = due(builder, backup).filter(|due| builder.now() >= *due)?;
    Some((format!("it was due at {due}"), None))
}

/// The same for the last one, before the cluster is deleted: it is tried until it is there.
fn last(
    builder: &PlanBuilder<'_>,
    record: &BackupRecord,
    word: String,
) -> Option<(String, Option<String>)> {
    if record.word != word {
        return Some(("the cluster is to be deleted".to_owned(), Some(word)));
    }
    if record.failures == 0 {
        let gone = deletion::last_backup(builder.input).is_none();
        return gone.then(|| ("the last one is not in the storage any more".to_owned(), None));
    }
    builder
        .now()
        .passed(record.failed, PAUSES.delay(record.failures - 1))
        .then(|| (format!("the last attempt came to nothing: {}", record.error), None))
}

/// When the schedule wants the next one: after the newest there is, and after the last attempt.
fn due(builder: &PlanBuilder<'_>, backup: &Backup) -> Option<UnixMs> {
    let schedule = backup.schedule.as_ref()?;
    let metadata = &builder.input.cluster.metadata;
    let created = metadata.creation_timestamp.as_deref().and_then(UnixMs::parse);
    let began = builder.record.backup.as_ref().map(|b| b.began).unwrap_or_default();
    let newest = own(builder).last().map(|b| b.taken).unwrap_or_default();
    schedule.after(created.unwrap_or_default().max(began).max(newest))
}

fn begin(builder: &mut PlanBuilder<'_>, backup: &Backup, at: &StorageRef) {
    let Some((why, word)) = wanted(builder, backup) else { return };
    let name = &builder.input.cluster.metadata.name;
    let reading = builder.input.inventory.backups.get(name);
    if reading.and_then(|r| r.present()).is_none() {
        // What is wrong with it is told with the condition.
        return builder.wait(
            format!("the object storage {}, to take a backup", at.spec.url),
            builder.now(),
            None,
            "the backup is taken",
        );
    }
    let Some(promotion) = builder.record.master.clone().filter(|p| p.confirmed) else { return };
    let Some(master) = builder.connected(&promotion.incarnation) else { return };
    if builder.record.change.is_some() || !roles::is_master_of(master, promotion.epoch) {
        return;
    }
    let Some((node, state)) = source(builder, &promotion.incarnation, master) else {
        let since = due(builder, backup).unwrap_or(builder.now());
        return builder.watch(
            "a replica in sync, to take a backup from it",
            since.min(builder.now()),
            NO_REPLICA,
            Reason::BackupFailed,
        );
    };
    let Some(id) = builder.take_backup_id() else { return };
    let run = BackupRun {
        id: id.clone(),
        incarnation: node.clone(),
        boot_id: state.boot_id.clone(),
        began: builder.now(),
        why: why.clone(),
        epoch: builder.record.data_epoch,
        master: MasterSeen {
            incarnation: promotion.incarnation.0.clone(),
            offset_before: master.redis.offset,
            offset_after: 0,
            keys: master.redis.keys,
        },
        stored: None,
    };
    let now = builder.now();
    change(builder, |record| {
        record.began = now;
        if let Some(word) = word {
            // A person's word begins a new count.
            (record.word, record.failures) = (word, 0);
        }
        record.run = Some(run);
    });
    builder.event(EventReason::BackupStarted, format!("backup {id} is taken from {node}: {why}"));
    go_on(builder, at);
}

/// Who is backed up: the replica that is least behind; the master only where it is alone.
fn source<'a>(
    builder: &PlanBuilder<'a>,
    master: &IncarnationName,
    its: &'a NodeState,
) -> Option<(IncarnationName, &'a NodeState)> {
    let live = builder.live();
    let others = live.iter().filter(|(n, _)| n != master);
    if others.clone().next().is_none() {
        return its.backup.is_some().then(|| (master.clone(), its));
    }
    let fits = |name: &IncarnationName| {
        let state = builder.connected(name)?;
        let behind = its.redis.offset - state.redis.offset;
        let good = derived::running(&state.redis)
            && state.backup.is_some()
            && !state.stopping
            && state.redis.replid == its.redis.replid
            && behind < BEHIND
            && roles::attached(its, name, state);
        good.then_some((behind, state))
    };
    let found = others.filter_map(|(name, _)| Some((name, fits(name)?)));
    let best = found.min_by_key(|(name, (behind, _))| (*behind, (*name).clone()));
    best.map(|(name, (_, state))| (name.clone(), state))
}

/// Deletes the backups that no rule keeps, and what is left of those that were never completed.
fn sweep(builder: &mut PlanBuilder<'_>, backup: &Backup, at: &StorageRef) {
    let name = &builder.input.cluster.metadata.name;
    let reading = builder.input.inventory.backups.get(name).and_then(|r| r.present());
    let Some(listing) = reading.cloned() else { return };
    let under_way =
        builder.record.backup.as_ref().and_then(|b| b.run.as_ref()).map(|r| r.id.clone());
    let now = builder.now();
    // In its name; and where nobody is master, nobody knows what is still needed.
    let master = builder.record.master.as_ref().filter(|p| p.confirmed);
    let Some(master) = master.map(|p| p.incarnation.clone()) else { return };
    let mut surplus = surplus(&own(builder), &backup.retention, archive::window(backup), now);
    let good = verify::kept(builder);
    surplus.retain(|old| Some(&old.id) != good.as_ref());
    let mut gone: Vec<_> = surplus
        .iter()
        .map(|old| {
            let why = format!("of {}, and spec.backup.retention keeps it no longer", old.taken);
            (old.id.clone(), why)
        })
        .collect();
    let left = listing
        .unfinished
        .iter()
        .filter(|(id, written)| Some(id) != under_way.as_ref() && now.passed(*written, UNFINISHED));
    gone.extend(left.map(|(id, _)| (id.clone(), "it was never completed".to_owned())));
    for (id, why) in gone {
        let (incarnation, storage) = (master.clone(), at.clone());
        builder.step(Effect::DeleteBackup { incarnation, storage, id }, why);
    }
}

fn fail(builder: &mut PlanBuilder<'_>, run: &BackupRun, why: &str) {
    let now = builder.now();
    change(builder, |record| {
        record.run = None;
        record.failures += 1;
        (record.failed, record.error) = (now, why.to_owned());
    });
    let message = format!("backup {} of {} came to nothing: {why}", run.id, run.incarnation);
    builder.event(EventReason::BackupFailed, message);
}

pub fn change(builder: &mut PlanBuilder<'_>, edit: impl FnOnce(&mut BackupRecord)) {
    edit(builder.record.backup.get_or_insert_default());
}

fn progress(task: &BackupTask) -> String {
    match (task.done_bytes, task.total_bytes) {
        (0, 0) => " (Redis writes its snapshot)".to_owned(),
        (done, 0) => format!(" ({} of what Redis still writes)", size(done)),
        (done, total) => format!(" ({} of {})", size(done), size(total)),
    }
}

/// Bytes for people.
pub fn size(bytes: u64) -> String {
    if bytes < 1 << 20 {
        format!("{} KiB", bytes.div_ceil(1 << 10))
    } else {
        format!("{} MiB", bytes.div_ceil(1 << 20))
    }
}

/// Says what is wrong with the backups.
pub fn report(builder: &mut PlanBuilder<'_>) {
    if let Some((ConditionStatus::False, reason, message)) = condition(builder)
        && matches!(reason, Reason::BackupFailed | Reason::BackupStorageUnavailable)
    {
        builder.problem(reason, message);
    }
}

/// Whether there is a backup, and the newest one is the one that was due; none without a storage.
pub fn condition(builder: &PlanBuilder<'_>) -> Option<(ConditionStatus, Reason, String)> {
    let (backup, at) = storage(builder)?;
    let record = builder.record.backup.clone().unwrap_or_default();
    let name = &builder.input.cluster.metadata.name;
    let reading = builder.input.inventory.backups.get(name);
    if record.failures > 0 && record.run.is_none() {
        let message = format!(
            "the last backup came to nothing at {} ({} in a row): {}",
            record.failed, record.failures, record.error
        );
        return Some((ConditionStatus::False, Reason::BackupFailed, message));
    }
    let Some(reading) = reading.filter(|r| r.value.is_some() || r.at > UnixMs::default()) else {
        let error = reading.and_then(|r| r.error.clone()).unwrap_or_default();
        if error.is_empty() || error == "not read yet" {
            let message = "the object storage was not read yet".to_owned();
            return Some((ConditionStatus::Unknown, Reason::BackupPending, message));
        }
        return Some((ConditionStatus::False, Reason::BackupStorageUnavailable, error));
    };
    if let Some(error) = &reading.error {
        let reason = Reason::BackupStorageUnavailable;
        return Some((ConditionStatus::False, reason, error.clone()));
    }
    let next = due(builder, &backup).map(|due| format!("; the next one is due at {due}"));
    let next = next.unwrap_or_default();
    if let Some(newest) = own(builder).last() {
        let message = format!("the newest is {} of {}{next}", newest.id, newest.taken);
        return Some((ConditionStatus::True, Reason::BackupCurrent, message));
    }
    let message = format!("there is no backup in {} yet{next}", at.spec.url);
    Some((ConditionStatus::False, Reason::BackupPending, message))
}

/// What is published of the backups; none without a storage.
pub fn status(builder: &PlanBuilder<'_>) -> Option<BackupStatus> {
    let (backup, _) = storage(builder)?;
    let item = |b: &BackupManifest| StoredBackup {
        id: b.id.clone(),
        taken: b.taken.to_string(),
        node: b.incarnation.0.clone(),
        keys: b.snapshot.keys,
        bytes: b.snapshot.stored_bytes,
        redis: b.snapshot.redis.clone(),
        of_this_cluster: b.uid == uid(builder),
    };
    let listing = listing(builder);
    let all = listing.map(|l| l.backups.as_slice()).unwrap_or_default();
    let unusable = listing.map(|l| l.unusable.as_slice()).unwrap_or_default();
    let run = builder.record.backup.as_ref().and_then(|b| b.run.as_ref());
    Some(BackupStatus {
        backups: all.iter().rev().take(LISTED).map(item).collect(),
        count: u32::try_from(all.len()).unwrap_or(u32::MAX),
        next: due(builder, &backup).map(|due| due.to_string()),
        running: run.map(|run| run.id.clone()),
        verified: verify::status(builder),
        verifying: verify::running(builder),
        failed_verification: verify::failed_at_last(builder),
        unusable: unusable.iter().take(LISTED).map(|(_, why)| why.clone()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_a_backup_is_does_not_name_a_size_that_nobody_knows() {
        let of = |done_bytes, total_bytes| {
            progress(&BackupTask { done_bytes, total_bytes, ..BackupTask::default() })
        };
        assert_eq!(of(0, 0), " (Redis writes its snapshot)");
        assert_eq!(of(3 << 20, 0), " (3 MiB of what Redis still writes)");
        assert_eq!(of(3 << 20, 5 << 20), " (3 MiB of 5 MiB)");
    }
}
