//! When a backup is restored into a throw-away redis-server to see that it can be, and where.
//!
//! A replica does it that has the memory for it; the master only where it is alone. One run at a time
//! stands in the record, as with backups. What was found out is kept there: the last backup that was
//! found to be good, and what was found to be no good after that.

use std::time::Duration;

use super::backup::{change, listing, own, size, storage};
use super::builder::PlanBuilder;
use super::{derived, roles};
use crate::api::annotations::VERIFY;
use crate::api::backup::{Backup, Verify};
use crate::api::conditions::{ConditionStatus, Reason};
use crate::api::events::EventReason;
use crate::api::status::{FailedVerification, VerifiedBackup};
use crate::model::backup::{
    BackupManifest, TaskPhase, Verified, VerifyRecord, VerifyRun, VerifyTask,
};
use crate::model::ids::IncarnationName;
use crate::model::memory::{MIB, RESERVED_MEMORY};
use crate::model::node::NodeState;
use crate::model::step::{Command, StorageRef};
use crate::model::time::{Backoff, UnixMs};

/// A run that takes longer is given up.
const LIMIT: Duration = Duration::from_hours(6);
/// A node that does it may be silent for so long.
const SILENCE: Duration = Duration::from_mins(2);
/// An attempt that found nothing out, or a backup to be no good, is followed by another one after so
/// long: it costs a download of all of it.
const PAUSES: Backoff =
    Backoff { first: Duration::from_mins(10), longest: Duration::from_hours(24) };

fn record(builder: &PlanBuilder<'_>) -> VerifyRecord {
    builder.record.backup.as_ref().map(|backup| (*backup.verify).clone()).unwrap_or_default()
}

fn edit(builder: &mut PlanBuilder<'_>, edit: impl FnOnce(&mut VerifyRecord)) {
    change(builder, |record| edit(record.verify.as_mut()));
}

/// The backup that must stay whatever the retention says: the last one that is known to be good.
pub fn kept(builder: &PlanBuilder<'_>) -> Option<String> {
    record(builder).good.map(|good| good.id)
}

/// Goes on with what runs, or begins.
pub fn plan(builder: &mut PlanBuilder<'_>) {
    let Some((backup, at)) = storage(builder) else {
        if builder.record.backup.is_some() {
            edit(builder, |record| record.run = None);
        }
        return;
    };
    match record(builder).run {
        Some(run) => go_on(builder, &run, &at),
        None => begin(builder, &backup, &at),
    }
}

/// What is to be done about the one that runs.
fn go_on(builder: &mut PlanBuilder<'_>, run: &VerifyRun, at: &StorageRef) {
    let (id, node) = (&run.id, &run.incarnation);
    if listing(builder).is_none() {
        let what = "the object storage to be read, in which the backup is that is verified";
        return builder.wait(what, run.began, Some(LIMIT), "it is given up");
    }
    let Some(backup) = own(builder).into_iter().find(|b| b.id == *id).cloned() else {
        return match unusable(builder, id) {
            Some(why) => bad(builder, run, &why),
            None => interrupted(builder, run, "the backup is not in the storage any more"),
        };
    };
    if builder.now().passed(run.began, LIMIT) {
        let why = format!("it took more than {} h", LIMIT.as_secs() / 3600);
        return interrupted(builder, run, &why);
    }
    if builder.incarnation(node).is_none_or(|i| i.condemned.is_some()) {
        return interrupted(builder, run, &format!("{node} is given up"));
    }
    let then = "another attempt is made later";
    let Some(state) = builder.connected(node) else {
        let since = derived::last_heard(builder, node);
        if builder.now().passed(since, SILENCE) {
            return interrupted(builder, run, &format!("{node} is not heard since {since}"));
        }
        let what = format!("{node} to be heard, which verifies backup {id}");
        return builder.wait(what, since, Some(SILENCE), then);
    };
    let Some(task) = &state.verify else {
        let why = format!("the agent of {node} is of a version that verifies none");
        return interrupted(builder, run, &why);
    };
    if task.run != run.run {
        if state.boot_id != run.boot_id {
            let why = format!("the container of {node} was started anew");
            return interrupted(builder, run, &why);
        }
        return tell(builder, run, &backup, at);
    }
    match task.phase {
        TaskPhase::None | TaskPhase::Running => {
            let done = match task.done_bytes {
                0 => String::new(),
                done => format!(" ({} of {})", size(done), size(backup.snapshot.rdb_bytes)),
            };
            let what = format!("{node} to make a test restore of backup {id}{done}");
            builder.wait(what, run.began, Some(LIMIT), then);
        }
        TaskPhase::Failed if task.damaged => bad(builder, run, &task.error),
        TaskPhase::Failed => interrupted(builder, run, &task.error),
        TaskPhase::Done => judge(builder, run, &backup, task),
    }
}

/// All of the data were restored: their length and checksum are those of the manifest. Their number
/// is compared where it is known of that very moment.
fn judge(
    builder: &mut PlanBuilder<'_>,
    run: &VerifyRun,
    backup: &BackupManifest,
    task: &VerifyTask,
) {
    let snapshot = &backup.snapshot;
    if snapshot.exact_keys && task.keys != snapshot.keys {
        let why = format!(
            "{} keys were restored, and there were {} when it was taken",
            task.keys, snapshot.keys
        );
        return bad(builder, run, &why);
    }
    let good = Verified {
        id: run.id.clone(),
        taken: backup.taken,
        at: builder.now(),
        incarnation: run.incarnation.clone(),
        keys: task.keys,
        took_ms: task.took_ms,
    };
    let message = sentence(&good);
    edit(builder, |record| {
        let word = std::mem::take(&mut record.word);
        *record = VerifyRecord { word, good: Some(good), ..VerifyRecord::default() };
    });
    builder.event(EventReason::BackupVerified, message);
}

fn sentence(good: &Verified) -> String {
    format!(
        "backup {} of {} was restored on {} at {} in {} s, with all of its {} keys",
        good.id,
        good.taken,
        good.incarnation,
        good.at,
        good.took_ms.div_ceil(1000),
        good.keys
    )
}

/// A backup is no good.
fn bad(builder: &mut PlanBuilder<'_>, run: &VerifyRun, why: &str) {
    let why = format!("backup {} could not be restored on {}: {why}", run.id, run.incarnation);
    failed(builder, run, |record| {
        record.bad = Some((run.id.clone(), why.clone()));
        record.error.clear();
    });
    builder.event(EventReason::BackupVerificationFailed, why);
}

/// Nothing was found out.
fn interrupted(builder: &mut PlanBuilder<'_>, run: &VerifyRun, why: &str) {
    let why = format!("backup {} was not verified on {}: {why}", run.id, run.incarnation);
    failed(builder, run, |record| record.error.clone_from(&why));
    builder.event(EventReason::BackupVerificationInterrupted, why);
}

fn failed(builder: &mut PlanBuilder<'_>, run: &VerifyRun, more: impl FnOnce(&mut VerifyRecord)) {
    let now = builder.now();
    edit(builder, |record| {
        record.run = None;
        record.failures += 1;
        record.failed = now;
        record.failed_on = Some(run.incarnation.clone());
        more(record);
    });
}

fn tell(builder: &mut PlanBuilder<'_>, run: &VerifyRun, backup: &BackupManifest, at: &StorageRef) {
    let command = Command::Verify {
        run: run.run.clone(),
        id: run.id.clone(),
        storage: at.clone(),
        rdb_bytes: backup.snapshot.rdb_bytes,
        rdb_sha256: backup.snapshot.rdb_sha256.clone(),
        memory_bytes: run.memory_bytes,
    };
    builder.command(&run.incarnation, command, "a backup is restored to see that it can be");
}

/// What a person asked for and was not begun: the word, and the backup that it names, if it does.
fn request(builder: &PlanBuilder<'_>) -> Option<(String, Option<String>)> {
    let word = builder.input.cluster.metadata.annotations.get(VERIFY)?;
    let id = word.split_whitespace().nth(1).map(str::to_owned);
    (!word.is_empty() && *word != record(builder).word).then(|| (word.clone(), id))
}

/// Why a backup that was complete cannot be used any more, by the list of the storage.
fn unusable(builder: &PlanBuilder<'_>, id: &str) -> Option<String> {
    let all = &listing(builder)?.unusable;
    all.iter().find(|(of, _)| of == id).map(|(_, why)| why.clone())
}

/// The last backup that was found to be good, unless the storage does not have it any more.
fn good(builder: &PlanBuilder<'_>) -> Option<Verified> {
    let good = record(builder).good?;
    let gone = listing(builder).is_some() && !own(builder).iter().any(|b| b.id == good.id);
    (!gone).then_some(good)
}

/// Why the list of the storage alone says that a backup is no good on which one would count: the one
/// that was verified, or one that is newer than all that can be used.
fn spoiled(builder: &PlanBuilder<'_>) -> Option<String> {
    let known = record(builder).good.map(|good| good.id);
    let newest = own(builder).last().map(|backup| backup.id.clone()).or(known.clone())?;
    let mut all = listing(builder)?.unusable.iter().rev();
    let found = all.find(|(id, _)| *id > newest || known.as_ref() == Some(id));
    found.map(|(id, why)| format!("backup {id} cannot be restored: {why}"))
}

/// When the next one is due; none where none is wanted.
fn due(builder: &PlanBuilder<'_>, backup: &Backup) -> Option<UnixMs> {
    let period = backup.verify.period()?;
    let known = record(builder);
    if known.failures > 0 {
        return Some(known.failed + PAUSES.delay(known.failures - 1));
    }
    // The first one at once.
    Some(good(builder).map_or(UnixMs::default(), |good| good.at + period))
}

fn begin(builder: &mut PlanBuilder<'_>, backup: &Backup, at: &StorageRef) {
    let asked = request(builder);
    if asked.is_none() && due(builder, backup).is_none_or(|due| builder.now() < due) {
        return;
    }
    let all = own(builder);
    let id = asked.as_ref().and_then(|(_, id)| id.as_ref());
    let chosen = match id {
        Some(id) => all.iter().find(|b| b.id == *id),
        None => all.last(),
    };
    let Some(chosen) = chosen.map(|b| (*b).clone()) else {
        if let Some((word, Some(id))) = asked {
            let why = format!("there is no backup {id} of this cluster to be verified");
            edit(builder, |record| record.word = word);
            builder.event(EventReason::BackupVerificationInterrupted, why);
        }
        return;
    };
    let Some((node, memory_bytes)) = place(builder, &chosen).ok() else { return };
    let Some(boot_id) = builder.connected(&node).map(|s| s.boot_id.clone()) else { return };
    let Some(name) = builder.take_backup_id() else { return };
    let (began, id) = (builder.now(), chosen.id.clone());
    let run = VerifyRun { run: name, id, incarnation: node, boot_id, began, memory_bytes };
    edit(builder, |record| {
        if let Some((word, _)) = asked {
            record.word = word;
        }
        record.run = Some(run.clone());
    });
    tell(builder, &run, &chosen, at);
}

/// The node that has most room for it, and how much of that it may take; or why there is none.
fn place(
    builder: &PlanBuilder<'_>,
    backup: &BackupManifest,
) -> Result<(IncarnationName, u64), String> {
    let none = || "a replica in sync is waited for".to_owned();
    let promotion = builder.record.master.as_ref().filter(|p| p.confirmed).ok_or_else(none)?;
    let master = builder.connected(&promotion.incarnation).ok_or_else(none)?;
    if builder.record.change.is_some() || !roles::is_master_of(master, promotion.epoch) {
        return Err(none());
    }
    let live = builder.live();
    let alone = live.len() == 1;
    let fits = |name: &IncarnationName, state: &NodeState| {
        let busy = state.backup.as_ref().is_some_and(|task| task.phase == TaskPhase::Running);
        let good = if alone {
            *name == promotion.incarnation
        } else {
            *name != promotion.incarnation && roles::attached(master, name, state)
        };
        good && state.verify.is_some()
            && derived::running(&state.redis)
            && !state.redis.loading
            && !state.stopping
            && !busy
    };
    let container = builder.spec().resources.memory.0;
    let room = |state: &NodeState| {
        let free =
            container.saturating_sub(RESERVED_MEMORY).saturating_sub(state.redis.used_memory_bytes);
        // What clients write meanwhile, and what a snapshot changes under way.
        free / 4 * 3
    };
    let mut nodes: Vec<_> = live
        .iter()
        .filter_map(|(name, _)| builder.connected(name).map(|state| (name, state)))
        .filter(|(name, state)| fits(name, state))
        .map(|(name, state)| (room(state), name.clone()))
        .collect();
    let needed = backup.snapshot.memory_needed();
    let most = nodes.iter().max().cloned().ok_or_else(none)?;
    nodes.retain(|(room, _)| *room >= needed);
    // Not the one where it came to nothing before, where there is another one.
    let before = record(builder).failed_on;
    let best = nodes.iter().max_by_key(|(room, name)| (before.as_ref() != Some(name), *room));
    best.map(|(room, name)| (name.clone(), *room)).ok_or_else(|| {
        format!(
            "to restore backup {} takes about {} MiB of memory beside the data, and {} can spare {} MiB; larger nodes (spec.resources.memory) can, or `spec.backup.verify: never` says that nobody wants it",
            backup.id,
            needed.div_ceil(MIB),
            most.1,
            most.0 / MIB
        )
    })
}

/// Says that a backup is no good.
pub fn report(builder: &mut PlanBuilder<'_>) {
    if let Some((ConditionStatus::False, reason, message)) = condition(builder) {
        builder.problem(reason, message);
    }
}

/// Whether the newest backup that was restored as a test had all that it was to have; none where
/// none is wanted.
pub fn condition(builder: &PlanBuilder<'_>) -> Option<(ConditionStatus, Reason, String)> {
    let (backup, _) = storage(builder)?;
    let known = record(builder);
    if backup.verify == Verify::Never && known == VerifyRecord::default() {
        return None;
    }
    let usable = good(builder);
    if let Some(why) = known.bad.map(|(_, why)| why).or_else(|| spoiled(builder)) {
        let good = usable.as_ref().map_or("no other one was restored".to_owned(), |good| {
            // Those sentences begin with the name of the backup.
            let same = why.starts_with(&format!("backup {} ", good.id));
            let which =
                if same { "it could be restored at" } else { "the last one that could be is" };
            let what =
                if same { good.at.to_string() } else { format!("{} of {}", good.id, good.taken) };
            format!("{which} {what}")
        });
        let message = format!("{why}; {good}");
        return Some((ConditionStatus::False, Reason::BackupVerificationFailed, message));
    }
    let newest = own(builder).into_iter().next_back().cloned();
    let late = due(builder, &backup).is_some_and(|due| builder.now() >= due);
    let why = match (&known.run, &newest) {
        (Some(run), _) => format!("{} makes a test restore of backup {}", run.incarnation, run.id),
        (None, None) => "there is no backup yet".to_owned(),
        (None, Some(newest)) if late => match place(builder, newest) {
            Err(why) => why,
            Ok(_) => "it is due now".to_owned(),
        },
        (None, Some(_)) => known.error.clone(),
    };
    // What is due may wait for a replica; for no longer than that again.
    let period = backup.verify.period();
    let fresh = |at: UnixMs| period.is_none_or(|period| !builder.now().passed(at, 2 * period));
    if let Some(good) = usable.filter(|good| fresh(good.at)) {
        let why = if why.is_empty() { why } else { format!("; {why}") };
        let message = format!("{}{why}", sentence(&good));
        return Some((ConditionStatus::True, Reason::BackupRestorable, message));
    }
    let message = if why.is_empty() { "no backup was verified yet".to_owned() } else { why };
    Some((ConditionStatus::Unknown, Reason::BackupVerificationPending, message))
}

/// What is published of the last backup that was found to be good.
pub fn status(builder: &PlanBuilder<'_>) -> Option<VerifiedBackup> {
    let good = good(builder)?;
    Some(VerifiedBackup {
        id: good.id,
        taken: good.taken.to_string(),
        at: precise(good.at),
        node: good.incarnation.0,
        keys: good.keys,
        seconds: good.took_ms.div_ceil(1000),
    })
}

/// What is published of the last attempt, if it came to nothing.
pub fn failed_at_last(builder: &PlanBuilder<'_>) -> Option<FailedVerification> {
    let known = record(builder);
    let bad = known.bad.map(|(_, why)| why).unwrap_or_default();
    let why = if known.error.is_empty() { bad } else { known.error };
    (known.failures > 0).then(|| FailedVerification { at: precise(known.failed), why })
}

/// With milliseconds, so that two that end within a second are told apart.
fn precise(at: UnixMs) -> String {
    at.to_string().replace('Z', &format!(".{:03}Z", at.0 % 1000))
}

/// The backup that is being verified.
pub fn running(builder: &PlanBuilder<'_>) -> Option<String> {
    record(builder).run.map(|run| run.id)
}
