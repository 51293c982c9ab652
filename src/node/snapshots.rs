//! Snapshots that are kept by name: hard links to what Redis wrote, so that they cost nothing until the data has changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::redis_control::{ControlError, Session};

/// A snapshot may take so long.
const SAVE_LIMIT: Duration = Duration::from_mins(5);
/// Time between two looks at a running save.
const LOOK: Duration = Duration::from_millis(100);
/// Snapshots kept at most: a full volume would stop the append-only file.
const KEPT: usize = 8;

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

    /// Labels of the snapshots there are, sorted.
    #[must_use]
    pub fn labels(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let label = |name: &Path| (name.extension()? == "rdb").then(|| name.file_stem()?.to_str().map(str::to_owned))?;
        let mut labels: Vec<_> = entries.flatten().filter_map(|entry| label(&entry.path())).collect();
        labels.sort();
        labels
    }

    /// Has Redis write a snapshot and keeps it under the label; one that exists already is left as it is.
    pub async fn save(&self, session: &mut Session, label: &str) -> Result<(), ControlError> {
        let fits = !label.is_empty() && label.len() <= 64 && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if !fits {
            return Err(ControlError::Refused(format!("label {label:?} is refused: a label is 1 to 64 letters, digits and `-`")));
        }
        let labels = self.labels();
        if labels.iter().any(|l| l == label) {
            return Ok(());
        }
        if labels.len() >= KEPT {
            return Err(ControlError::Refused(format!(
                "{KEPT} snapshots are kept already ({}); a further one might fill the volume",
                labels.join(", ")
            )));
        }
        write_dump(session).await?;
        let kept = self.dir.join(format!("{label}.rdb"));
        fs::hard_link(&self.dump, &kept)
            .and_then(|()| fs::File::open(&self.dir)?.sync_all())
            .map_err(|source| ControlError::Keep { path: kept, source })
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
            // Another save, or a replica's, must end first. `SCHEDULE` waits for a rewrite of the append-only file.
            None if idle && session.run(redis::cmd("BGSAVE").arg("SCHEDULE")).await.is_ok() => started_before = Some(count),
            Some(before) if idle && count > before => {
                if info.text("rdb_last_bgsave_status") == "ok" {
                    return Ok(());
                }
                return Err(ControlError::Refused("redis could not write the snapshot; the volume may be full, see its log".into()));
            }
            _ => {}
        }
        if Instant::now() >= deadline {
            return Err(ControlError::Refused(format!("redis did not write a snapshot within {} s", SAVE_LIMIT.as_secs())));
        }
        sleep(LOOK).await;
    }
}
