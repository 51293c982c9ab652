//! The archived log of writes: which node archives it, when it begins anew, and what of it goes.
//!
//! A replica in sync archives; the master does where it is the only node that there is to be. Which
//! node it is stands in the record first. The node itself finds out where the stored log ends, and
//! goes on from there; where its Redis does not have what follows, the other nodes are asked, and
//! when none of them has it, the log begins anew and a backup is taken at once.

use std::time::Duration;

use super::backup::{own, storage, uid};
use super::builder::PlanBuilder;
use super::{derived, roles};
use crate::api::backup::Backup;
use crate::api::conditions::{ConditionStatus, Reason};
use crate::api::events::EventReason;
use crate::model::archive::{ArchiveRecord, ArchiveRun, Segment, route};
use crate::model::backup::{BackupManifest, TaskPhase};
use crate::model::ids::IncarnationName;
use crate::model::node::NodeState;
use crate::model::step::{Command, Effect, StorageRef};
use crate::model::time::{Backoff, UnixMs};

/// A node that archives may be silent for so long: another one has the same in its backlog.
const SILENCE: Duration = Duration::from_secs(15);
/// Between two attempts that came to nothing.
const PAUSES: Backoff = Backoff { first: Duration::from_secs(5), longest: Duration::from_mins(2) };
/// Writes that are not archived for so long are a problem.
const BEHIND: Duration = Duration::from_secs(30);
/// Clocks of nodes and operator differ by no more.
const SKEW: Duration = Duration::from_hours(1);
/// A list that was read so long after a backup has the log that follows it.
const LISTED: Duration = Duration::from_mins(2);
/// What is of no use any more is deleted for so long at a time.
const SWEEP: Duration = Duration::from_hours(1);

/// The storage, where the log is to be archived.
fn wanted(builder: &PlanBuilder<'_>) -> Option<(Backup, StorageRef)> {
    storage(builder).filter(|(backup, _)| backup.point_in_time)
}

fn record(builder: &PlanBuilder<'_>) -> ArchiveRecord {
    builder.record.archive.as_deref().cloned().unwrap_or_default()
}

fn change(builder: &mut PlanBuilder<'_>, edit: impl FnOnce(&mut ArchiveRecord)) {
    edit(builder.record.archive.get_or_insert_default());
}

/// Has one node archive the log, and no other one.
pub fn plan(builder: &mut PlanBuilder<'_>) {
    let wanted = wanted(builder);
    if wanted.is_none() {
        builder.record.archive = None;
    }
    stop_others(builder);
    if let Some((_, at)) = &wanted {
        go_on(builder, at);
    }
    sweep(builder);
}

/// What a node archives that is not the one of the record ends.
fn stop_others(builder: &mut PlanBuilder<'_>) {
    let run = record(builder).run.map(|run| run.id).unwrap_or_default();
    for (name, _) in builder.live() {
        let task = builder.connected(&name).and_then(|state| state.archive.as_ref());
        if task.is_some_and(|task| task.phase == TaskPhase::Running && task.run != run) {
            let why = "another node archives the log, or none is to";
            builder.command(&name, Command::StopArchive, why);
        }
    }
}

fn go_on(builder: &mut PlanBuilder<'_>, at: &StorageRef) {
    if let Some(run) = record(builder).run {
        match lost(builder, &run, at) {
            None => return advance(builder, &run, at),
            Some(why) => end(builder, &run, why),
        }
    }
    begin(builder, at);
}

/// Why a run is over; `None` while it goes on.
fn lost(builder: &PlanBuilder<'_>, run: &ArchiveRun, at: &StorageRef) -> Option<&'static str> {
    if run.storage != at.word() {
        return Some("the storage, or the keys to it, are others");
    }
    if builder.incarnation(&run.incarnation).is_none_or(|i| i.condemned.is_some()) {
        return Some("the node is given up");
    }
    let Some(state) = builder.connected(&run.incarnation) else {
        let silent = derived::last_heard(builder, &run.incarnation);
        return builder.now().passed(silent, SILENCE).then_some("the node is not heard");
    };
    if state.boot_id != run.boot_id {
        return Some("the container of the node was started anew");
    }
    // Where nobody else fits either, it stays: a failover is under way.
    let stays = fits(builder, &run.incarnation).is_some();
    (!stays && candidate(builder, &[]).is_some())
        .then_some("the node is no replica in sync any more")
}

fn end(builder: &mut PlanBuilder<'_>, run: &ArchiveRun, why: &str) {
    let now = builder.now();
    let message = format!("{} archives the log no more: {why}", run.incarnation);
    change(builder, |record| {
        record.run = None;
        record.stopped = now;
        record.error = message;
    });
}

/// Tells the node, and takes note of how far it is.
fn advance(builder: &mut PlanBuilder<'_>, run: &ArchiveRun, at: &StorageRef) {
    let (now, node) = (builder.now(), &run.incarnation);
    let Some(state) = builder.connected(node) else { return };
    let task = state.archive.clone().unwrap_or_default();
    if task.run != run.id {
        return tell(builder, run, at);
    }
    match task.phase {
        TaskPhase::None | TaskPhase::Done => tell(builder, run, at),
        TaskPhase::Failed => {
            let message = format!("{node} does not archive the log: {}", task.error);
            change(builder, |record| {
                record.run = None;
                record.stopped = now;
                record.error.clone_from(&message);
                if task.gap {
                    record.tried.push(node.clone());
                } else {
                    record.failures += 1;
                }
            });
            builder.event(EventReason::ArchiveInterrupted, message);
        }
        TaskPhase::Running => {
            let known = record(builder);
            let begins = task.fresh && known.fresh != run.id;
            let settled = task.stored > 0 && (known.failures > 0 || !known.tried.is_empty());
            if begins || settled {
                change(builder, |record| {
                    record.tried.clear();
                    record.failures = 0;
                    if begins {
                        record.fresh.clone_from(&run.id);
                        record.since = now;
                    }
                });
            }
            if begins {
                let before =
                    if run.anew { ": no node has what follows the stored log" } else { "" };
                let message = format!(
                    "the log of writes begins anew with {node}{before}; a backup is taken that it goes on from"
                );
                builder.event(EventReason::ArchiveStarted, message);
            }
        }
    }
}

fn tell(builder: &mut PlanBuilder<'_>, run: &ArchiveRun, at: &StorageRef) {
    let command = Command::Archive {
        run: run.id.clone(),
        uid: uid(builder),
        storage: at.clone(),
        anew: run.anew,
    };
    builder.command(&run.incarnation, command, "the log of writes is archived");
}

/// Chooses a node.
fn begin(builder: &mut PlanBuilder<'_>, at: &StorageRef) {
    let known = record(builder);
    if known.failures > 0 {
        let pause = PAUSES.delay(known.failures - 1);
        if !builder.now().passed(known.stopped, pause) {
            let what = "the archiving of the log to be tried again";
            return builder.wait(what, known.stopped, Some(pause), "a node archives it");
        }
    }
    let goes_on = candidate(builder, &known.tried);
    // Nobody has what follows.
    let anew = goes_on.is_none() && !known.tried.is_empty();
    let Some(node) = goes_on.or_else(|| candidate(builder, &[])) else {
        let what = "a replica in sync, to archive the log of writes";
        return builder.wait(what, known.stopped, None, "it archives the log");
    };
    let Some(boot_id) = builder.connected(&node).map(|s| s.boot_id.clone()) else { return };
    let Some(id) = builder.take_backup_id() else { return };
    let (began, storage) = (builder.now(), at.word());
    let run = ArchiveRun { id, incarnation: node, boot_id, began, anew, storage };
    change(builder, |record| record.run = Some(run.clone()));
    tell(builder, &run, at);
}

/// The node that is least behind, but for some.
fn candidate(builder: &PlanBuilder<'_>, but: &[IncarnationName]) -> Option<IncarnationName> {
    let live = builder.live();
    let others = live.iter().filter(|(name, _)| !but.contains(name));
    let found = others.filter_map(|(name, _)| Some((fits(builder, name)?, name.clone())));
    found.min().map(|(_, name)| name)
}

/// How many bytes a node is behind that can archive; `None` for one that cannot.
fn fits(builder: &PlanBuilder<'_>, name: &IncarnationName) -> Option<i64> {
    let promotion = builder.record.master.as_ref().filter(|p| p.confirmed)?;
    let its = builder.connected(&promotion.incarnation)?;
    if builder.record.change.is_some() || !roles::is_master_of(its, promotion.epoch) {
        return None;
    }
    let state = builder.connected(name)?;
    let able = state.archive.is_some() && derived::running(&state.redis) && !state.stopping;
    let good = if *name == promotion.incarnation {
        // Attached to a master whose writes need replicas, it would be taken for one of them.
        builder.spec().nodes == 1 && state.redis.min_replicas == 0
    } else {
        in_sync(its, name, state)
    };
    (able && good).then(|| its.redis.offset - state.redis.offset)
}

fn in_sync(master: &NodeState, name: &IncarnationName, state: &NodeState) -> bool {
    state.redis.replid == master.redis.replid && roles::attached(master, name, state)
}

/// The log began anew, or has a gap that nobody was told of, and there is no backup that it goes on
/// from.
pub fn wants_backup(builder: &PlanBuilder<'_>) -> bool {
    let record = record(builder);
    let began = builder.record.backup.as_ref().map(|b| b.began).unwrap_or_default();
    // One that was begun in the very plan in which that was heard is the one.
    let anew = !record.fresh.is_empty()
        && began < record.since
        && own(builder).last().is_none_or(|newest| newest.taken < record.since);
    wanted(builder).is_some() && (anew || leads_nowhere(builder, &record))
}

/// From no backup the log goes on to its end, by a list that has all of the newest one and of what
/// followed it. So it is where a node began the log anew and died before that was heard.
fn leads_nowhere(builder: &PlanBuilder<'_>, record: &ArchiveRecord) -> bool {
    let name = &builder.input.cluster.metadata.name;
    let Some(reading) = builder.input.inventory.backups.get(name) else { return false };
    let backup = builder.record.backup.clone().unwrap_or_default();
    let newest = own(builder).last().map(|b| b.taken).unwrap_or_default();
    record.run.is_some()
        && backup.failures == 0
        && reading.at > newest.max(backup.began) + LISTED
        && !log(builder).is_empty()
        && restorable_since(builder, record).is_none()
}

/// How far back every moment is kept; none where the log is not.
pub fn window(backup: &Backup) -> Option<Duration> {
    backup.point_in_time.then_some(backup.window.0)
}

/// The log of this very cluster, as it was listed.
fn log(builder: &PlanBuilder<'_>) -> Vec<Segment> {
    let name = &builder.input.cluster.metadata.name;
    let reading = builder.input.inventory.backups.get(name).and_then(|r| r.value.as_deref());
    let uid = uid(builder);
    let all = reading.map(|l| l.log.as_slice()).unwrap_or_default();
    all.iter().filter(|segment| segment.uid == uid).cloned().collect()
}

/// The backup before which nothing of the log is needed: the last one before the window, or else the
/// oldest.
fn needed_from(backups: &[&BackupManifest], window: Duration, now: UnixMs) -> Option<UnixMs> {
    let before = backups.iter().rev().find(|b| now.passed(b.taken, window));
    before.or(backups.first()).map(|b| b.taken)
}

/// Deletes what no backup of the window goes on with.
fn sweep(builder: &mut PlanBuilder<'_>) {
    let Some((backup, at)) = storage(builder) else { return };
    let own = own(builder);
    let window = window(&backup).unwrap_or(Duration::MAX);
    let Some(needed) = needed_from(&own, window, builder.now()) else { return };
    let Some(master) = builder.record.master.clone().filter(|p| p.confirmed) else { return };
    let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let before = UnixMs(needed.0.saturating_sub(ms(SKEW)));
    let oldest = log(builder).iter().map(|s| s.from).min();
    if oldest.is_some_and(|oldest| oldest + SWEEP < before) {
        let (incarnation, uid) = (master.incarnation, uid(builder));
        let effect = Effect::DeleteLog { incarnation, storage: at, uid, before };
        builder.step(effect, "no backup of spec.backup.window goes on with it");
    }
}

/// Says what is wrong with the log.
pub fn report(builder: &mut PlanBuilder<'_>) {
    if let Some((ConditionStatus::False, Reason::ArchiveBehind, message)) = condition(builder) {
        builder.problem(Reason::ArchiveBehind, message);
    }
}

/// Whether every moment can be restored, and since when; none where that is not wanted.
pub fn condition(builder: &PlanBuilder<'_>) -> Option<(ConditionStatus, Reason, String)> {
    let _wanted = wanted(builder)?;
    let (known, now) = (record(builder), builder.now());
    let task = known.run.as_ref().and_then(|run| {
        let task = builder.connected(&run.incarnation)?.archive.clone()?;
        (task.run == run.id && task.phase == TaskPhase::Running).then_some(task)
    });
    let pending = |message: String| Some((ConditionStatus::False, Reason::ArchivePending, message));
    let behind = |since: UnixMs, why: &str| {
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        let message = format!("what was written since {since} is not archived{why}");
        Some((ConditionStatus::False, Reason::ArchiveBehind, message))
    };
    let Some(task) = task else {
        let since = known.run.as_ref().map_or(known.stopped, |run| run.began).max(known.stopped);
        if !known.fresh.is_empty() && now.passed(since, BEHIND) {
            return behind(since, &known.error);
        }
        let why = if known.error.is_empty() { "" } else { "; " };
        return pending(format!("no node archives the log of writes yet{why}{}", known.error));
    };
    let late = task.behind_since > UnixMs::default() && now.passed(task.behind_since, BEHIND);
    if late {
        return behind(task.behind_since, &task.error);
    }
    let Some(since) = restorable_since(builder, &known) else {
        return pending(
            "the log of writes is archived, and waits for a backup that it goes on from".into(),
        );
    };
    let message =
        format!("every moment from {since} on can be restored, to a few seconds before now");
    Some((ConditionStatus::True, Reason::ArchiveCurrent, message))
}

/// The oldest backup from which the log goes on to its end.
fn restorable_since(builder: &PlanBuilder<'_>, known: &ArchiveRecord) -> Option<UnixMs> {
    let log = log(builder);
    let end = log.iter().map(|s| s.until).max().unwrap_or_default();
    let uid = uid(builder);
    let reaches = |b: &&&BackupManifest| {
        let way = route(&log, &uid, &b.snapshot.replid, b.snapshot.offset + 1);
        way.is_some_and(|way| way.until >= end)
    };
    let own = own(builder);
    // What was listed before the log began anew leads nowhere.
    let listed = own.iter().find(reaches).filter(|_| end >= known.since);
    let unlisted = !log.iter().any(|s| s.run >= known.fresh);
    let newer = || own.iter().find(|b| unlisted && b.taken >= known.since);
    listed.or_else(newer).map(|b| b.taken)
}
