//! The archived log in the storage: what there is, where it ends, what a moment in it is, and reading
//! it in order.
//!
//! Below the prefix, `INSTALLATION/CLUSTER/log/UID/RUN/` has the segments of one run
//! ([`crate::model::archive`], [`super::segment`]). What is there is read from their names.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _};

use super::format::BackupKey;
use super::scanner::Scanner;
use super::segment::{self, Opened};
use super::storage::{Storage, StorageError};
use crate::model::archive::{Part, Point, Route, Segment, joined, route};
use crate::model::backup::{BackupManifest, Listing};
use crate::model::ids::InstallationId;
use crate::model::time::UnixMs;
use crate::secrets::RootSecret;

/// What ended longer ago is not gone on from: no Redis has what follows.
const RECENT: Duration = Duration::from_hours(2);
/// Runs that are looked at for the last segment.
const RUNS: usize = 8;
/// Objects that are deleted at the same time.
const DELETED_AT_ONCE: usize = 8;
/// A moment is looked for no longer: at 20 MB/s that is 40 GB of log.
const SURVEY: Duration = Duration::from_mins(30);

/// Where the log of a cluster lies, below the prefix.
#[must_use]
pub fn log_prefix(installation: &InstallationId, cluster: &str) -> String {
    format!("{installation}/{cluster}/log")
}

/// A cluster's uid as a part of a path.
fn dir(uid: &str) -> &str {
    if uid.is_empty() { "-" } else { uid }
}

/// Name of the object of a segment.
#[must_use]
pub fn log_object(log: &str, segment: &Segment) -> String {
    format!("{log}/{}/{}/{}", dir(&segment.uid), segment.run, segment.name())
}

/// Why the log is not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The storage.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A piece is missing, damaged or not what its name says.
    #[error("{why}; what was written until {until} can be restored")]
    Broken {
        /// One clause.
        why: String,
        /// What is before it can be read.
        until: UnixMs,
    },
}

/// A piece of the log.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The segment that it is of.
    pub segment: Segment,
    /// All of that.
    pub opened: Opened,
    /// From this offset on it is wanted.
    pub first: i64,
    /// To the one before this.
    pub end: i64,
}

impl Piece {
    /// The bytes from `first` to before `end`, which lies within it.
    #[must_use]
    pub fn bytes_to(&self, end: i64) -> Bytes {
        let at = |offset: i64| usize::try_from(offset - self.segment.first).unwrap_or(usize::MAX);
        let all = &self.opened.bytes;
        let wanted = all.get(at(self.first)..at(end.min(self.end)));
        wanted.map(|wanted| all.slice_ref(wanted)).unwrap_or_default()
    }
}

/// Reads the log piece by piece.
pub struct LogReader {
    storage: Storage,
    log: String,
    cluster: String,
    uid: String,
    parts: VecDeque<(Part, BackupKey)>,
    /// The segments of the first of them, and the offset that is next.
    run: Option<(Vec<Segment>, i64)>,
    until: UnixMs,
}

impl LogReader {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// [`LogError`]; what was read before it is good.
    pub async fn next(&mut self) -> Result<Option<Piece>, LogError> {
        loop {
            let Some((part, key)) = self.parts.front() else { return Ok(None) };
            if self.run.is_none() {
                let all = self.storage.segments(&self.log, &self.uid, part).await?;
                self.run = Some((all, part.first));
            }
            let Some((all, next)) = &mut self.run else { continue };
            let here = all.iter().filter(|s| s.first <= *next && *next < s.end);
            let here = here.max_by_key(|s| s.end).filter(|_| *next < part.end);
            let Some(segment) = here.cloned() else {
                if *next < part.end && part.end != Part::OPEN {
                    let why = format!(
                        "a segment of the log is missing, that of run {} with offset {next}",
                        part.run
                    );
                    return Err(LogError::Broken { why, until: self.until });
                }
                self.parts.pop_front();
                self.run = None;
                continue;
            };
            let object = log_object(&self.log, &segment);
            let bytes = self.storage.get(&object, segment::LARGEST_OBJECT).await?;
            let opened = segment::opened(&segment, &self.cluster, key, &bytes);
            let opened = opened.map_err(|error| LogError::Broken {
                why: format!("the segment {object} of the log cannot be used ({error})"),
                until: self.until,
            })?;
            let (first, end) = (*next, segment.end.min(part.end));
            *next = end;
            self.until = segment.until;
            return Ok(Some(Piece { segment, opened, first, end }));
        }
    }
}

impl Storage {
    fn read_name(path: &Path) -> Option<Segment> {
        let parts: Vec<String> = path.parts().map(|part| part.as_ref().to_owned()).collect();
        let [.., uid, run, name] = parts.as_slice() else { return None };
        Segment::read(if uid == "-" { "" } else { uid }, run, name)
    }

    /// What there is of the log of a cluster: neighbours as one.
    ///
    /// # Errors
    /// One sentence.
    pub async fn log(
        &self,
        installation: &InstallationId,
        cluster: &str,
    ) -> Result<Vec<Segment>, StorageError> {
        let prefix = Path::from(log_prefix(installation, cluster));
        let mut objects = self.store().list(Some(&prefix));
        let mut all: Vec<Segment> = Vec::new();
        while let Some(object) = objects.next().await {
            let object = object.map_err(|error| self.error("list", &error))?;
            all.extend(Self::read_name(&object.location));
            // A week of it is many names.
            if all.len() >= 4096 {
                all = joined(all);
            }
        }
        Ok(joined(all))
    }

    /// The last segment of a cluster's log, when it is not long ago that it was stored.
    ///
    /// # Errors
    /// One sentence.
    pub async fn last_segment(
        &self,
        log: &str,
        uid: &str,
        now: UnixMs,
    ) -> Result<Option<Segment>, StorageError> {
        let list_error = |error: object_store::Error| self.error("list", &error);
        let prefix = Path::from(format!("{log}/{}", dir(uid)));
        let runs = self.store().list_with_delimiter(Some(&prefix)).await.map_err(list_error)?;
        let mut runs = runs.common_prefixes;
        runs.sort();
        for run in runs.into_iter().rev().take(RUNS) {
            let oldest = now.0.saturating_sub(u64::try_from(RECENT.as_millis()).unwrap_or(0));
            let after = Path::from(format!("{run}/{oldest:014}"));
            let found: Vec<_> = self
                .store()
                .list_with_offset(Some(&run), &after)
                .try_collect()
                .await
                .map_err(list_error)?;
            let names = found.iter().filter_map(|object| Self::read_name(&object.location));
            if let Some(last) = names.max_by_key(|segment| segment.end) {
                return Ok(Some(last));
            }
        }
        Ok(None)
    }

    /// Reads the log along `parts`, in order. `begins` is the time of what comes before it.
    #[must_use]
    pub fn read_log(
        &self,
        (log, cluster, uid): (&str, &str, &str),
        parts: Vec<(Part, BackupKey)>,
        begins: UnixMs,
    ) -> LogReader {
        LogReader {
            storage: self.clone(),
            log: log.to_owned(),
            cluster: cluster.to_owned(),
            uid: uid.to_owned(),
            parts: parts.into(),
            run: None,
            until: begins,
        }
    }

    /// The segments of a run that a part may need.
    async fn segments(
        &self,
        log: &str,
        uid: &str,
        part: &Part,
    ) -> Result<Vec<Segment>, StorageError> {
        let prefix = Path::from(format!("{log}/{}/{}", dir(uid), part.run));
        let mut objects = self.store().list(Some(&prefix));
        let mut all = Vec::new();
        while let Some(object) = objects.next().await {
            let object = object.map_err(|error| self.error("list", &error))?;
            let found = Self::read_name(&object.location);
            all.extend(found.filter(|s| s.end > part.first && s.first < part.end));
        }
        Ok(all)
    }

    /// How the moment `to` is reached: a backup, and what of the log follows it. All of that is read
    /// and checked. `None` where no log was kept then, so that a backup is all there is.
    ///
    /// # Errors
    /// The storage. That the moment cannot be reached is a sentence within.
    pub async fn survey(
        &self,
        root: &RootSecret,
        cluster: &str,
        listing: &Listing,
        to: UnixMs,
    ) -> Result<Option<Result<Point, String>>, StorageError> {
        let found = tokio::time::timeout(SURVEY, self.survey_all(root, cluster, listing, to)).await;
        found.unwrap_or_else(|_| {
            Ok(Some(Err(format!(
                "the log up to {to} was not read within {} min; name a backup by its id",
                SURVEY.as_secs() / 60
            ))))
        })
    }

    async fn survey_all(
        &self,
        root: &RootSecret,
        cluster: &str,
        listing: &Listing,
        to: UnixMs,
    ) -> Result<Option<Result<Point, String>>, StorageError> {
        let before: Vec<_> = listing.backups.iter().filter(|b| b.taken <= to).rev().collect();
        let way = |b: &BackupManifest| {
            route(&listing.log, &b.uid, &b.snapshot.replid, b.snapshot.offset + 1)
        };
        let mut ends: Option<(UnixMs, String)> = None;
        let mut worse = |until: UnixMs, why: String| {
            if ends.as_ref().is_none_or(|(best, _)| *best < until) {
                ends = Some((until, why));
            }
        };
        for base in &before {
            let Some(way) = way(base) else { continue };
            // Where nothing follows yet, nothing says that the backup is not later than that.
            if way.until < to || way.parts.is_empty() {
                let id = &base.id;
                worse(way.until, format!("the log that follows backup {id} ends at {}", way.until));
                continue;
            }
            match self.cut(root, cluster, base, way, to).await {
                Ok(Some(parts)) => {
                    let (backup, uid) = (base.id.clone(), base.uid.clone());
                    return Ok(Some(Ok(Point { backup, uid, parts, at: to })));
                }
                // It was written after that moment.
                Ok(None) => {}
                Err(LogError::Storage(error)) => return Err(error),
                Err(LogError::Broken { why, until }) => worse(until, why),
            }
        }
        let newest_goes_on = before.first().is_some_and(|base| way(base).is_some());
        let kept = listing.log.iter().any(|s| s.from <= to && to <= s.until);
        Ok(match ends {
            Some((until, why)) if newest_goes_on || kept => Some(Err(format!(
                "{to} cannot be restored: {why}; write a time until {until} as `at`, or name a backup by its id"
            ))),
            None if kept => Some(Err(format!(
                "{to} cannot be restored: there is a log of then, and no backup that it goes on from; name a backup by its id"
            ))),
            _ => None,
        })
    }

    /// What of a way is replayed so that everything that had been received at `to` is there, and
    /// nothing else; `None` when the backup itself is later than that.
    async fn cut(
        &self,
        root: &RootSecret,
        cluster: &str,
        base: &BackupManifest,
        way: Route,
        to: UnixMs,
    ) -> Result<Option<Vec<Part>>, LogError> {
        let next = base.snapshot.offset + 1;
        let log = log_prefix(&root.installation_id(), cluster);
        let keyed: Vec<_> = way
            .parts
            .iter()
            .map(|part| (part.clone(), BackupKey(root.backup_key(&part.run))))
            .collect();
        let mut scanner = Scanner::new(next);
        // Whether the backup's own position had been received by then.
        let mut there = false;
        let mut pieces = self.read_log((&log, cluster, &base.uid), keyed, base.taken);
        while let Some(piece) = pieces.next().await? {
            let (received, later) = piece.opened.received(&piece.segment, to);
            let received = received.unwrap_or(i64::MIN);
            there |= received >= next;
            if received > piece.first {
                scanner.feed(&piece.bytes_to(received)).map_err(|error| {
                    let why =
                        format!("{} cannot be read ({error})", log_object(&log, &piece.segment));
                    LogError::Broken { why, until: piece.segment.from }
                })?;
            }
            if later {
                break;
            }
        }
        let end = scanner.boundary();
        let parts = way.parts.into_iter().filter(|part| part.first < end);
        let cut = |part: Part| Part { end: part.end.min(end), ..part };
        Ok(there.then(|| parts.map(cut).collect()))
    }

    /// Deletes what of a cluster's log was received before a time; what is gone already is a success.
    ///
    /// # Errors
    /// One sentence.
    pub async fn delete_log(
        &self,
        installation: &InstallationId,
        cluster: &str,
        uid: &str,
        before: UnixMs,
    ) -> Result<(), StorageError> {
        let prefix = Path::from(format!("{}/{}", log_prefix(installation, cluster), dir(uid)));
        let objects = self.store().list(Some(&prefix)).map_err(|error| self.error("list", &error));
        objects
            .try_filter_map(|object| {
                let old = Self::read_name(&object.location).is_some_and(|s| s.until < before);
                std::future::ready(Ok(old.then_some(object.location)))
            })
            .try_for_each_concurrent(DELETED_AT_ONCE, async |path| {
                match self.store().delete(&path).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                    Err(error) => Err(self.error("delete", &error)),
                }
            })
            .await
    }
}
