//! Snapshots that are kept by name: hard links to what Redis wrote, so that they cost nothing until
//! the data has changed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::redis_control::{ControlError, Session};

/// A snapshot may take so long.
const SAVE_LIMIT: Duration = Duration::from_mins(5);
/// Time between two looks at a running save.
const LOOK: Duration = Duration::from_millis(100);
/// Snapshots by command kept at most: a full volume would stop the append-only file.
const KEPT: usize = 5;
/// Beginning of the label of a snapshot that is kept without being asked for.
pub const AUTOMATIC: &str = "before-epoch-";
/// Such snapshots kept: the oldest ones make room, because a node that could not keep one could
/// never follow again.
const KEPT_AUTOMATIC: usize = 3;

/// The directory of kept snapshots.
#[derive(Clone, Debug)]
pub struct Snapshots {
    dir: PathBuf,
    dump: PathBuf,
}

impl Snapshots {
    /// Keeps copies of `dump` in `dir`; both exist on the same volume.
    #[must_use]
    pub fn new(dir: PathBuf, dump: PathBuf) -> Self {
        Self { dir, dump }
    }

    /// What Redis writes its snapshots to.
    #[must_use]
    pub fn dump(&self) -> &Path {
        &self.dump
    }

    /// What Redis is writing beside it, or was when it was killed.
    #[must_use]
    pub fn unfinished(&self) -> BTreeSet<PathBuf> {
        let Some(Ok(entries)) = self.dump.parent().map(fs::read_dir) else {
            return BTreeSet::new();
        };
        // `temp-PID.rdb`; what comes from a master has one number more.
        let is_one = |name: &str| {
            let pid = name.strip_prefix("temp-").and_then(|rest| rest.strip_suffix(".rdb"));
            pid.is_some_and(|pid| !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit()))
        };
        entries
            .flatten()
            .filter(|entry| entry.file_name().to_str().is_some_and(is_one))
            .map(|entry| entry.path())
            .collect()
    }

    /// Labels of the snapshots there are, sorted.
    #[must_use]
    pub fn labels(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let label = |name: &Path| {
            (name.extension()? == "rdb").then(|| name.file_stem()?.to_str().map(str::to_owned))?
        };
        let mut labels: Vec<_> =
            entries.flatten().filter_map(|entry| label(&entry.path())).collect();
        labels.sort();
        labels
    }

    /// Has Redis write a snapshot and keeps it under the label; one that exists already is left as
    /// it is.
    pub async fn save(&self, session: &mut Session, label: &str) -> Result<(), ControlError> {
        let fits = !label.is_empty()
            && label.len() <= 64
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if !fits {
            return Err(ControlError::Refused(format!(
                "label {label:?} is refused: a label is 1 to 64 letters, digits and `-`"
            )));
        }
        let labels = self.labels();
        if labels.iter().any(|l| l == label) {
            return Ok(());
        }
        let (automatic, asked): (Vec<_>, Vec<_>) =
            labels.into_iter().partition(|l| l.starts_with(AUTOMATIC));
        let by_command = !label.starts_with(AUTOMATIC);
        if by_command && asked.len() >= KEPT {
            return Err(ControlError::Refused(format!(
                "{KEPT} snapshots are kept already ({}); a further one might fill the volume",
                asked.join(", ")
            )));
        }
        write_dump(session).await?;
        if !by_command {
            self.make_room(automatic)
                .map_err(|source| ControlError::Keep { path: self.dir.clone(), source })?;
        }
        let kept = self.dir.join(format!("{label}.rdb"));
        fs::hard_link(&self.dump, &kept)
            .and_then(|()| fs::File::open(&self.dir)?.sync_all())
            .map_err(|source| ControlError::Keep { path: kept, source })
    }

    fn make_room(&self, mut automatic: Vec<String>) -> std::io::Result<()> {
        automatic.sort_by_key(|label| label[AUTOMATIC.len()..].parse::<u64>().unwrap_or(0));
        while automatic.len() >= KEPT_AUTOMATIC {
            fs::remove_file(self.dir.join(format!("{}.rdb", automatic.remove(0))))?;
        }
        Ok(())
    }
}

/// Has Redis write `dump.rdb` anew and waits for it.
pub async fn write_dump(session: &mut Session) -> Result<(), ControlError> {
    let deadline = Instant::now() + SAVE_LIMIT;
    let mut started_before = None;
    loop {
        let info = session.info().await?;
        let idle = !info.flag("rdb_bgsave_in_progress");
        let count = info.number("rdb_saves");
        match started_before {
            // Another save, or a replica's, must end first. `SCHEDULE` waits for a rewrite of the
            // append-only file.
            None if idle && session.run(redis::cmd("BGSAVE").arg("SCHEDULE")).await.is_ok() => {
                started_before = Some(count);
            }
            Some(before) if idle && count > before => {
                if info.text("rdb_last_bgsave_status") == "ok" {
                    return Ok(());
                }
                return Err(ControlError::Refused(
                    "redis could not write the snapshot; the volume may be full, see its log"
                        .into(),
                ));
            }
            _ => {}
        }
        if Instant::now() >= deadline {
            return Err(ControlError::Refused(format!(
                "redis did not write a snapshot within {} s",
                SAVE_LIMIT.as_secs()
            )));
        }
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_is_writing_is_told_from_other_files() {
        let dir = tempfile::tempdir().unwrap();
        let others = ["dump.rdb", "temp-1700000000.123.rdb", "temp-rewriteaof-7.aof", "temp-.rdb"];
        for name in others.iter().chain(&["temp-4321.rdb"]) {
            fs::write(dir.path().join(name), b"x").unwrap();
        }
        let snapshots = Snapshots::new(dir.path().join("saved"), dir.path().join("dump.rdb"));
        assert_eq!(snapshots.unfinished(), BTreeSet::from([dir.path().join("temp-4321.rdb")]));
    }

    #[test]
    fn the_oldest_automatic_snapshots_make_room_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        for label in ["before-epoch-9", "before-epoch-10", "before-epoch-11", "mine"] {
            fs::write(dir.path().join(format!("{label}.rdb")), b"x").unwrap();
        }
        let snapshots = Snapshots::new(dir.path().to_owned(), dir.path().join("dump.rdb"));
        let automatic =
            snapshots.labels().into_iter().filter(|l| l.starts_with(AUTOMATIC)).collect();
        snapshots.make_room(automatic).unwrap();
        assert_eq!(snapshots.labels(), ["before-epoch-10", "before-epoch-11", "mine"]);
    }
}
