//! A new cluster that begins with a backup. Before anything is bought the backup is chosen and
//! looked at; the first node gets its data and becomes master, and nobody does before.

use std::time::Duration;

use super::backup::size;
use super::builder::PlanBuilder;
use super::{derived, settings, word};
use crate::api::backup::{FromBackup, OnTotalLoss, RestoredUsers};
use crate::api::conditions::{ConditionStatus, Reason};
use crate::api::events::EventReason;
use crate::api::template::Template;
use crate::model::archive::{Part, Point, Route, route};
use crate::model::backup::{BackupManifest, Listing, RestoreRecord, RestoreRun, TaskPhase};
use crate::model::ids::IncarnationName;
use crate::model::redis_version::RedisVersion;
use crate::model::step::{Command, SettingsUser, StorageRef};
use crate::model::time::{Backoff, UnixMs};

/// A node of whose data nothing more came for so long gives way to another one. Its agent ends what
/// stands still within minutes; this holds against an agent that does not, and leaves time to load.
const LIMIT: Duration = Duration::from_hours(6);
/// Between two notes of how much came.
const NOTED: Duration = Duration::from_mins(10);
/// A node that gets them may be silent for so long.
const SILENCE: Duration = Duration::from_mins(2);
/// Between two attempts.
const PAUSES: Backoff = Backoff { first: Duration::from_secs(10), longest: Duration::from_mins(5) };

/// A moment that stands for the end of the log.
const END: UnixMs = UnixMs(u64::MAX);

fn asked<'a>(builder: &PlanBuilder<'a>) -> Option<&'a FromBackup> {
    builder.spec().bootstrap.as_ref()?.from_backup.as_ref()
}

/// The cluster whose backups are meant.
fn of<'a>(builder: &PlanBuilder<'a>, from: &'a FromBackup) -> &'a str {
    from.cluster.as_deref().unwrap_or(&builder.input.cluster.metadata.name)
}

/// The data of a backup are to come, and are not there yet: whoever is empty is no master.
pub fn pending(builder: &PlanBuilder<'_>) -> bool {
    match &builder.record.restore {
        Some(restore) => restore.done.is_none(),
        None => asked(builder).is_some() && builder.record.data_epoch == 0,
    }
}

/// What was restored is lost again before anybody else had it: it is restored anew.
pub fn again(builder: &mut PlanBuilder<'_>) {
    if let Some(restore) = &mut builder.record.restore {
        (restore.done, restore.run) = (None, None);
    }
}

/// No node is left that holds data. True when a backup does, or may: then nobody begins empty, and
/// the newest one is restored where the manifest says so.
pub fn after_loss(builder: &mut PlanBuilder<'_>, why: &str) -> bool {
    let said = builder.spec().bootstrap.as_ref().map(|b| b.on_total_loss).unwrap_or_default();
    if builder.spec().backup.is_none() || said == OnTotalLoss::Empty {
        return false;
    }
    let metadata = &builder.input.cluster.metadata;
    let uid = metadata.uid.clone().unwrap_or_default();
    let reading = builder.input.inventory.backups.get(&metadata.name);
    let Some(listing) = reading.and_then(|r| r.value.as_ref()) else {
        builder.problem(
            Reason::DataMissing,
            format!("{why}, and the object storage does not say whether there is a backup; nobody is promoted before it does"),
        );
        return true;
    };
    let Some(newest) = listing.backups.iter().rfind(|b| b.uid == uid).cloned() else {
        return false;
    };
    if said == OnTotalLoss::Block {
        let (id, taken) = (&newest.id, newest.taken);
        builder.problem(
            Reason::DataMissing,
            format!("{why}; there is backup {id} of {taken}: nobody is promoted before spec.bootstrap.onTotalLoss says `restore`, to go on with it, or `empty`"),
        );
        let what = "a word about the lost data (spec.bootstrap.onTotalLoss)";
        builder.wait(what, builder.now(), None, "the cluster goes on by that word");
        return true;
    }
    // What a node archived to its end is listed after that.
    let (now, archive) = (builder.now(), builder.record.archive.as_mut());
    let stopped = archive.map(|archive| {
        if archive.run.take().is_some() {
            archive.stopped = now;
        }
        archive.stopped
    });
    if stopped.is_some_and(|stopped| reading.is_none_or(|r| r.at <= stopped)) {
        let what = "the object storage to be read once more, for the end of the archived log";
        builder.wait(what, builder.now(), None, "the newest backup is restored, and the log");
        return true;
    }
    let (base, point) = to_the_end(listing, &uid, newest);
    let last = point.as_ref().map_or(base.taken, |(_, until)| *until);
    let and = if point.is_some() { " and the log that follows it" } else { "" };
    builder.event(
        EventReason::DataLost,
        format!(
            "{why}: what was written after {last} is lost; backup {}{and} is restored",
            base.id
        ),
    );
    builder.record.epoch += 1;
    builder.record.master = None;
    (builder.record.data_epoch, builder.record.data_master) = (0, None);
    begin_with(builder, base, point.map(|(point, _)| point));
    true
}

/// The backup from which the log leads furthest, with what follows it and the time that it reaches;
/// the newest alone where the log leads nowhere later.
fn to_the_end(
    listing: &Listing,
    uid: &str,
    newest: BackupManifest,
) -> (BackupManifest, Option<(Point, UnixMs)>) {
    let mut best: Option<(&BackupManifest, Route)> = None;
    for base in listing.backups.iter().filter(|b| b.uid == uid) {
        let way = route(&listing.log, uid, &base.snapshot.replid, base.snapshot.offset + 1);
        // Of several the newest: the less there is to be replayed.
        if let Some(way) = way.filter(|w| best.as_ref().is_none_or(|(_, b)| w.until >= b.until)) {
            best = Some((base, way));
        }
    }
    let Some((base, way)) = best.filter(|(_, way)| way.until > newest.taken) else {
        return (newest, None);
    };
    let mut parts = way.parts;
    if let Some(last) = parts.last_mut() {
        last.end = Part::OPEN;
    }
    let (backup, uid) = (base.id.clone(), uid.to_owned());
    (base.clone(), Some((Point { backup, uid, parts, at: END }, way.until)))
}

/// Writes down which backup it is.
fn begin_with(builder: &mut PlanBuilder<'_>, manifest: BackupManifest, point: Option<Point>) {
    let then = point.as_ref().map(|point| match point.at {
        END => "; the archived log follows to its end".to_owned(),
        at => format!("; the archived log follows up to {at}"),
    });
    let message = format!(
        "the cluster begins with backup {} of {}, taken at {} from {}: {} keys, {}{}",
        manifest.id,
        manifest.cluster,
        manifest.taken,
        manifest.incarnation,
        manifest.snapshot.keys,
        size(manifest.snapshot.rdb_bytes),
        then.unwrap_or_default()
    );
    builder.event(EventReason::RestoreStarted, message);
    builder.record.restore = Some(RestoreRecord {
        manifest,
        point,
        chosen: builder.now(),
        run: None,
        failures: 0,
        failed: UnixMs::default(),
        error: String::new(),
        done: None,
    });
}

/// Whether nothing may be bought yet; chooses the backup, or says why there is none.
pub fn hold(builder: &mut PlanBuilder<'_>) -> bool {
    let Some(from) = asked(builder) else { return false };
    if builder.record.data_epoch > 0 || builder.record.restore.is_some() {
        return false;
    }
    let then = "the missing nodes are bought";
    match choose(builder, from) {
        None => {
            let url = builder.spec().backup.as_ref().map(|b| b.to.clone()).unwrap_or_default();
            let what = format!("the object storage {url}, before anything is bought");
            builder.wait(what, builder.now(), None, then);
            true
        }
        Some(Err(_)) => {
            let what = "a backup that the cluster can begin with, or another manifest";
            builder.wait(what, builder.now(), None, then);
            true
        }
        Some(Ok((manifest, point))) => {
            begin_with(builder, manifest.clone(), point.cloned());
            false
        }
    }
}

/// A backup, and what of the log follows it.
type Choice<'a> = (&'a BackupManifest, Option<&'a Point>);

/// The backup that is meant; none while the storage does not answer.
fn choose<'a>(builder: &PlanBuilder<'a>, from: &FromBackup) -> Option<Result<Choice<'a>, String>> {
    let of = from.cluster.as_deref().unwrap_or(&builder.input.cluster.metadata.name);
    let listing = builder.input.inventory.backups.get(of)?.present()?;
    let moment = from.at.as_deref().and_then(UnixMs::parse);
    // It was listed before that moment was asked for.
    if listing.survey.as_ref().map(|survey| survey.to) != moment {
        return None;
    }
    let template = Template::of(builder.spec(), builder.input.image);
    Some(pick(listing, from, of, template.redis))
}

fn pick<'a>(
    listing: &'a Listing,
    from: &FromBackup,
    of: &str,
    redis: Option<RedisVersion>,
) -> Result<Choice<'a>, String> {
    let until = from.at.as_deref().and_then(UnixMs::parse);
    let found = listing.survey.as_ref().and_then(|survey| survey.found.as_ref());
    let point = found.map(|found| found.as_ref().map_err(String::clone)).transpose()?;
    let fits = |b: &&BackupManifest| match point {
        Some(point) => b.id == point.backup,
        None => {
            from.id.as_ref().is_none_or(|id| b.id == *id) && until.is_none_or(|at| b.taken <= at)
        }
    };
    let Some(found) = listing.backups.iter().rfind(fits) else {
        let mut unusable = listing
            .unusable
            .iter()
            .filter(|(id, _)| from.id.as_ref().is_none_or(|want| want == id));
        if let Some((_, why)) = unusable.next_back() {
            return Err(why.clone());
        }
        if let Some(id) =
            from.id.as_ref().filter(|id| listing.unfinished.iter().any(|(of, _)| of == *id))
        {
            return Err(format!(
                "backup {id} was never completed: there are data without a manifest"
            ));
        }
        if let (true, Some(other)) = (listing.backups.is_empty(), listing.others.first()) {
            return Err(format!(
                "the backups of {of} there are of installation {other}, made with another root secret, and cannot be decrypted with this operator's"
            ));
        }
        return Err(match (&from.id, &from.at) {
            (Some(id), _) => format!("there is no backup {id} of {of}"),
            (None, Some(at)) => format!("there is no backup of {of} from {at} or before"),
            (None, None) => format!("there is no backup of {of}"),
        });
    };
    match redis.and_then(|redis| found.unreadable_by(redis)) {
        Some(why) => Err(format!("backup {} cannot be restored: {why}", found.id)),
        None => Ok((found, point)),
    }
}

/// Gives a node the data; the node that has them, once it does.
pub fn advance(builder: &mut PlanBuilder<'_>) -> Option<IncarnationName> {
    let restore = builder.record.restore.clone()?;
    let manifest = &restore.manifest;
    let Some(run) = &restore.run else {
        begin(builder, &restore);
        return None;
    };
    let (id, node) = (&manifest.id, &run.incarnation);
    if builder.incarnation(node).is_none_or(|i| i.condemned.is_some()) {
        fail(builder, node, "it is given up");
        return None;
    }
    let Some(state) = builder.connected(node) else {
        let since = derived::last_heard(builder, node);
        if builder.now().passed(since, SILENCE) {
            fail(builder, node, &format!("it is not heard since {since}"));
        } else {
            let what = format!("{node} to be heard, which gets backup {id}");
            builder.wait(what, since, Some(SILENCE), "another node gets it");
        }
        return None;
    };
    let task = state.restore.clone().unwrap_or_default();
    let same = task.id == *id && task.phase != TaskPhase::None;
    let since = note(builder, if same { task.done_bytes } else { run.bytes }, run);
    if builder.now().passed(since, LIMIT) {
        let hours = LIMIT.as_secs() / 3600;
        fail(builder, node, &format!("nothing more of it came for {hours} h"));
        return None;
    }
    let lost = task.phase == TaskPhase::Done && task.run_id != state.redis.run_id;
    if !same || lost {
        tell(builder, node, manifest);
    }
    let progress = match task.done_bytes {
        0 => String::new(),
        done => format!(" ({} of {})", size(done), size(manifest.snapshot.rdb_bytes)),
    };
    match task.phase {
        TaskPhase::Done
            if same && !lost && derived::running(&state.redis) && state.redis.is_linked() =>
        {
            return Some(node.clone());
        }
        TaskPhase::Failed if same => {
            fail(builder, node, &task.error);
            return None;
        }
        _ => {}
    }
    let what = format!("backup {id} on {node}{progress}");
    builder.wait(what, since, Some(LIMIT), "another node gets it");
    None
}

/// Notes how much came, and says since when nothing more did.
fn note(builder: &mut PlanBuilder<'_>, bytes: u64, run: &RestoreRun) -> UnixMs {
    let (now, since) = (builder.now(), run.began.max(run.moved));
    if bytes == run.bytes || !now.passed(since, NOTED) {
        return since;
    }
    if let Some(run) = builder.record.restore.as_mut().and_then(|restore| restore.run.as_mut()) {
        (run.bytes, run.moved) = (bytes, now);
    }
    now
}

/// Chooses a node.
fn begin(builder: &mut PlanBuilder<'_>, restore: &RestoreRecord) {
    let manifest = &restore.manifest;
    if restore.failures > 0 {
        let pause = PAUSES.delay(restore.failures - 1);
        if !builder.now().passed(restore.failed, pause) {
            let what = format!("backup {} to be tried again", manifest.id);
            return builder.wait(what, restore.failed, Some(pause), "a node gets it");
        }
    }
    // Not the one that failed last, where there is another one.
    let mut ready: Vec<_> =
        builder.live().into_iter().filter(|(n, _)| is_ready(builder, n)).collect();
    let count = ready.len().max(1);
    ready.rotate_left(restore.failures as usize % count);
    let Some((node, _)) = ready.into_iter().next() else {
        return builder.wait(
            format!("a node that can get backup {}", manifest.id),
            restore.chosen,
            None,
            "it gets the data and becomes master",
        );
    };
    let version = builder.connected(&node).and_then(|s| RedisVersion::parse(&s.redis.version));
    if let Some(why) = version.and_then(|redis| manifest.unreadable_by(redis)) {
        return fail(builder, &node, &why);
    }
    let run = RestoreRun {
        incarnation: node.clone(),
        began: builder.now(),
        bytes: 0,
        moved: UnixMs::default(),
    };
    if let Some(restore) = &mut builder.record.restore {
        restore.run = Some(run);
    }
    tell(builder, &node, manifest);
}

fn is_ready(builder: &PlanBuilder<'_>, name: &IncarnationName) -> bool {
    !word::is_fenced(builder, name)
        && builder.connected(name).is_some_and(|s| {
            derived::running(&s.redis)
                && !s.stopping
                && s.restore.is_some()
                && derived::fqdn(s).is_some()
                && s.configured == settings::for_node(builder, name).generation
        })
}

fn tell(builder: &mut PlanBuilder<'_>, node: &IncarnationName, manifest: &BackupManifest) {
    let Some(backup) = builder.spec().backup.clone() else { return };
    let own = &builder.input.cluster.metadata.name;
    let command = Command::Restore {
        id: manifest.id.clone(),
        storage: StorageRef::of(backup.storage(), backup.sealed(), own, &manifest.cluster),
        rdb_bytes: manifest.snapshot.rdb_bytes,
        rdb_sha256: manifest.snapshot.rdb_sha256.clone(),
        point: builder.record.restore.as_ref().and_then(|restore| restore.point.clone()),
    };
    builder.command(node, command, "the cluster begins with a backup");
}

fn fail(builder: &mut PlanBuilder<'_>, node: &IncarnationName, why: &str) {
    let now = builder.now();
    let Some(restore) = &mut builder.record.restore else { return };
    restore.run = None;
    restore.failures += 1;
    (restore.failed, restore.error) = (now, format!("{node}: {why}"));
    let message = format!("backup {} was not restored on {node}: {why}", restore.manifest.id);
    builder.event(EventReason::RestoreFailed, message);
}

/// The master with the data is confirmed: it is over.
pub fn complete(builder: &mut PlanBuilder<'_>, master: &IncarnationName) {
    let now = builder.now();
    let Some(restore) = builder.record.restore.as_mut().filter(|r| r.done.is_none()) else {
        return;
    };
    restore.done = Some(now);
    let message = format!(
        "{master} has the {} keys of backup {} and is master",
        restore.manifest.snapshot.keys, restore.manifest.id
    );
    builder.event(EventReason::RestoreCompleted, message);
}

/// Users of the backed-up cluster that stay, beside those of the manifest.
pub fn users(builder: &PlanBuilder<'_>) -> Vec<SettingsUser> {
    let keep = asked(builder).is_some_and(|from| from.users == RestoredUsers::Keep);
    let Some(restore) = builder.record.restore.as_ref().filter(|_| keep) else { return Vec::new() };
    let own = &builder.spec().redis.users;
    let others = restore.manifest.users.iter().filter(|u| own.iter().all(|o| o.name != u.name));
    others.cloned().map(SettingsUser::from).collect()
}

/// Says what is wrong with the restore.
pub fn report(builder: &mut PlanBuilder<'_>) {
    if let Some((ConditionStatus::False, reason, message)) = condition(builder)
        && matches!(reason, Reason::RestoreFailed | Reason::RestoreRefused)
    {
        builder.problem(reason, message);
    }
}

/// Whether the cluster has the data of the backup; none where it began without one.
pub fn condition(builder: &PlanBuilder<'_>) -> Option<(ConditionStatus, Reason, String)> {
    let Some(restore) = &builder.record.restore else {
        let from = asked(builder).filter(|_| builder.record.data_epoch == 0)?;
        return Some(match choose(builder, from) {
            Some(Err(why)) => (
                ConditionStatus::False,
                Reason::RestoreRefused,
                format!("{why}; nothing is bought"),
            ),
            Some(Ok((backup, _))) => (
                ConditionStatus::False,
                Reason::Restoring,
                format!("it begins with backup {}", backup.id),
            ),
            None => {
                let error = builder.input.inventory.backups.get(of(builder, from));
                let error = error.and_then(|r| r.error.clone()).unwrap_or_default();
                (
                    ConditionStatus::False,
                    Reason::Restoring,
                    format!("the object storage is looked at: {error}"),
                )
            }
        });
    };
    let id = &restore.manifest.id;
    Some(match (restore.done, &restore.run) {
        (Some(at), _) => {
            let message = format!("the cluster has had the data of backup {id} since {at}");
            (ConditionStatus::True, Reason::RestoreCompleted, message)
        }
        (None, None) if restore.failures > 0 => {
            let message = format!(
                "backup {id} is not restored yet, after {} attempts: {}",
                restore.failures, restore.error
            );
            (ConditionStatus::False, Reason::RestoreFailed, message)
        }
        (None, None) => {
            (ConditionStatus::False, Reason::Restoring, format!("backup {id} waits for a node"))
        }
        (None, Some(run)) => {
            let task = builder.connected(&run.incarnation).and_then(|s| s.restore.clone());
            let done = task.filter(|t| t.id == *id).map_or(0, |t| t.done_bytes);
            let message = format!(
                "{} gets backup {id}: {} of {}",
                run.incarnation,
                size(done),
                size(restore.manifest.snapshot.rdb_bytes)
            );
            (ConditionStatus::False, Reason::Restoring, message)
        }
    })
}
