//! The store as one SQLite file of one machine.
//!
//! Every write is one transaction, on the disk (WAL, `synchronous = FULL`) before the call returns.
//! The file is locked against a second operator for as long as the store lives, and the operator's
//! own writes are refused once a later operator raised the term.

mod books;
mod experience;
mod notices;
mod rows;
mod schema;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use rustix::fs::{FlockOperation, flock};

use super::{Event, Events, Leadership, Objects, Outbox, Records, StoreError, Stored};
use crate::api::status::Status;
use crate::api::types::RedisCluster;
use crate::changes::{Changes, Notifier};
use crate::model::chain::SignedTx;
use crate::model::ids::InstallationId;
use crate::model::record::Record;
use crate::model::time::UnixMs;

/// Events of a cluster that is gone are kept so long, milliseconds: whoever deleted it can read how
/// it ended.
const EVENTS_OF_THE_GONE_MS: u64 = 7 * 24 * 3600 * 1000;

/// A store in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    shared: Arc<Shared>,
    /// Term of the operator that writes through this handle; 0 until it took over.
    term: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    connection: Mutex<Connection>,
    changes: Notifier<String>,
    telling: notices::Telling,
    /// The lock on the file lives as long as this does.
    _lock: Option<File>,
}

impl SqliteStore {
    /// Opens or creates the file at `path`, brings its schema up to date and locks it
    /// (`<path>.lock`).
    pub fn open(path: &Path) -> Result<Arc<Self>, StoreError> {
        let lock = take_lock(path)?;
        create_private(path)?;
        let connection = Connection::open(path)
            .map_err(|e| StoreError::Failed(format!("{} cannot be opened: {e}", path.display())))?;
        Self::with(connection, Some(path), Some(lock))
    }

    /// A store that is gone with the process, for tests.
    pub fn open_in_memory() -> Result<Arc<Self>, StoreError> {
        Self::with(Connection::open_in_memory().map_err(failed)?, None, None)
    }

    /// Writes down at first use which installation this store is of; from then on it is no other's.
    ///
    /// # Errors
    /// [`StoreError::OfAnother`] when it was used with another root secret.
    pub async fn belong_to(&self, installation: &InstallationId) -> Result<(), StoreError> {
        let ours = installation.0.clone();
        self.run(move |tx| {
            let theirs: Option<String> = tx
                .query_row("SELECT id FROM installation", [], |row| row.get(0))
                .optional()
                .map_err(failed)?;
            match theirs {
                Some(theirs) if theirs != ours => Err(StoreError::OfAnother { ours, theirs }),
                Some(_) => Ok(()),
                None => tx
                    .execute("INSERT INTO installation VALUES (?1)", [&ours])
                    .map(drop)
                    .map_err(failed),
            }
        })
        .await
    }

    /// The same store as another operator sees it: with a term of its own. For tests of take-overs.
    #[must_use]
    pub fn as_another_operator(&self) -> Arc<Self> {
        Arc::new(Self { shared: self.shared.clone(), term: AtomicU64::new(0) })
    }

    fn with(
        mut connection: Connection,
        path: Option<&Path>,
        lock: Option<File>,
    ) -> Result<Arc<Self>, StoreError> {
        // The answer is the mode in force: an in-memory database has no WAL, and needs none.
        connection
            .pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))
            .map_err(failed)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        schema::migrate(&mut connection, path, schema::MIGRATIONS)?;
        let shared = Shared {
            connection: Mutex::new(connection),
            changes: Notifier::default(),
            telling: notices::Telling::default(),
            _lock: lock,
        };
        Ok(Arc::new(Self { shared: Arc::new(shared), term: AtomicU64::new(0) }))
    }

    /// Runs `job` in one transaction on the one connection, off the async threads. An error rolls
    /// it back.
    async fn run<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let shared = self.shared.clone();
        let work = move || {
            // A job that panicked was rolled back with its transaction: the connection is good.
            let mut connection = shared.connection.lock().unwrap_or_else(PoisonError::into_inner);
            let tx = connection.transaction().map_err(failed)?;
            let value = job(&tx)?;
            tx.commit().map_err(failed)?;
            Ok(value)
        };
        tokio::task::spawn_blocking(work).await.map_err(|e| StoreError::Failed(e.to_string()))?
    }

    /// As [`Self::run`], for writes that belong to the operator in charge.
    async fn run_in_charge<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let ours = self.term.load(Ordering::Acquire);
        self.run(move |tx| {
            let theirs = rows::counter(tx, "term")?;
            if theirs > ours { Err(StoreError::Superseded { ours, theirs }) } else { job(tx) }
        })
        .await
    }

    fn notify(&self, name: &str) {
        self.shared.changes.notify(name.to_owned());
    }
}

#[async_trait]
impl Objects for SqliteStore {
    async fn list(&self) -> Result<Vec<Stored>, StoreError> {
        self.run(rows::all).await
    }

    async fn get(&self, name: &str) -> Result<Stored, StoreError> {
        let name = name.to_owned();
        self.run(move |tx| must(tx, &name)).await
    }

    async fn apply(&self, cluster: RedisCluster) -> Result<Stored, StoreError> {
        let (stored, changed) = self.run(move |tx| apply(tx, &cluster)).await?;
        if changed {
            self.notify(&stored.cluster.metadata.name);
        }
        Ok(stored)
    }

    async fn mark_deleted(&self, name: &str) -> Result<(), StoreError> {
        let owned = name.to_owned();
        let changed = self
            .run(move |tx| {
                if must(tx, &owned)?.cluster.metadata.deletion_timestamp.is_some() {
                    return Ok(false);
                }
                let version = rows::count_up(tx, "resource_version")?;
                let row = params![owned, UnixMs::now().to_string(), rows::int(version)];
                tx.execute(
                    "UPDATE object SET deleted = ?2, resource_version = ?3 WHERE name = ?1",
                    row,
                )
                .map_err(failed)?;
                Ok(true)
            })
            .await?;
        if changed {
            self.notify(name);
        }
        Ok(())
    }

    async fn set_status(&self, name: &str, status: &Status) -> Result<(), StoreError> {
        let (name, status) = (name.to_owned(), status.clone());
        self.run_in_charge(move |tx| {
            // A status that says the same again is no change: readers that watch the version stay
            // quiet, and so does the disk.
            if must(tx, &name)?.cluster.status.as_ref() == Some(&status) {
                return Ok(());
            }
            let version = rows::count_up(tx, "resource_version")?;
            let row = params![name, rows::json(&status)?, rows::int(version)];
            tx.execute("UPDATE object SET status = ?2, resource_version = ?3 WHERE name = ?1", row)
                .map(drop)
                .map_err(failed)
        })
        .await
    }

    async fn remove(&self, name: &str) -> Result<(), StoreError> {
        let owned = name.to_owned();
        self.run_in_charge(move |tx| {
            if tx.execute("DELETE FROM object WHERE name = ?1", [&owned]).map_err(failed)? == 0 {
                return Err(StoreError::NotFound { name: owned });
            }
            let oldest = UnixMs::now().0.saturating_sub(EVENTS_OF_THE_GONE_MS);
            tx.execute("DELETE FROM told WHERE cluster = ?1", [&owned]).map_err(failed)?;
            let stale =
                "DELETE FROM event WHERE at < ?1 AND cluster NOT IN (SELECT name FROM object)";
            tx.execute(stale, [rows::int(oldest)]).map(drop).map_err(failed)
        })
        .await?;
        self.notify(name);
        Ok(())
    }

    fn changes(&self) -> Changes<String> {
        self.shared.changes.subscribe()
    }
}

#[async_trait]
impl Records for SqliteStore {
    async fn set_record(
        &self,
        name: &str,
        expected: u64,
        record: &Record,
    ) -> Result<u64, StoreError> {
        let (name, record) = (name.to_owned(), rows::json(record)?);
        self.run_in_charge(move |tx| set_record(tx, &name, expected, &record)).await
    }
}

#[async_trait]
impl Outbox for SqliteStore {
    async fn keep_tx(&self, cluster: &str, tx: &SignedTx) -> Result<(), StoreError> {
        let (cluster, signed) = (cluster.to_owned(), tx.clone());
        self.run_in_charge(move |tx| rows::put_tx(tx, &cluster, &signed)).await
    }

    async fn kept_txs(&self) -> Result<Vec<(String, SignedTx)>, StoreError> {
        self.run(rows::txs).await
    }

    async fn drop_tx(&self, hash: &str) -> Result<(), StoreError> {
        let hash = hash.to_owned();
        self.run_in_charge(move |tx| {
            tx.execute("DELETE FROM tx WHERE hash = ?1", [&hash]).map(drop).map_err(failed)
        })
        .await
    }
}

#[async_trait]
impl Events for SqliteStore {
    async fn add_events(&self, events: &[Event]) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        self.write_events(events, |_| Ok(())).await
    }

    async fn events(&self, cluster: &str) -> Result<Vec<Event>, StoreError> {
        let cluster = cluster.to_owned();
        self.run(move |tx| rows::events(tx, &cluster)).await
    }
}

#[async_trait]
impl Leadership for SqliteStore {
    async fn take_over(&self) -> Result<u64, StoreError> {
        let random = rand::random();
        let term = self
            .run(move |tx| {
                rows::raise_term(tx, |last| super::next_term(last, UnixMs::now(), random))
            })
            .await?;
        self.term.store(term, Ordering::Release);
        Ok(term)
    }
}

fn set_record(
    tx: &Transaction<'_>,
    name: &str,
    expected: u64,
    record: &str,
) -> Result<u64, StoreError> {
    if must(tx, name)?.record_version != expected {
        return Err(StoreError::Conflict { name: name.to_owned() });
    }
    let row = params![name, record, rows::int(expected + 1)];
    tx.execute("UPDATE object SET record = ?2, record_version = ?3 WHERE name = ?1", row)
        .map_err(failed)?;
    Ok(expected + 1)
}

fn must(tx: &Transaction<'_>, name: &str) -> Result<Stored, StoreError> {
    rows::find(tx, name)?.ok_or_else(|| StoreError::NotFound { name: name.to_owned() })
}

/// Creates or replaces the desired part; also says whether anything changed.
fn apply(tx: &Transaction<'_>, wanted: &RedisCluster) -> Result<(Stored, bool), StoreError> {
    let name = &wanted.metadata.name;
    let present = rows::find(tx, name)?;
    let has = present.as_ref().and_then(|p| p.cluster.metadata.resource_version.as_ref());
    if wanted.metadata.resource_version.is_some()
        && wanted.metadata.resource_version.as_ref() != has
    {
        return Err(StoreError::Conflict { name: name.clone() });
    }
    if let Some(present) = present {
        let old = &present.cluster;
        let new_spec = old.spec != wanted.spec;
        if !new_spec
            && old.metadata.labels == wanted.metadata.labels
            && old.metadata.annotations == wanted.metadata.annotations
        {
            return Ok((present, false));
        }
        let generation = old.metadata.generation.unwrap_or(0) + u64::from(new_spec);
        write_desired(
            tx,
            wanted,
            generation,
            old.metadata.creation_timestamp.as_deref().unwrap_or_default(),
        )?;
    } else {
        // An earlier cluster of this name is somebody else's story.
        tx.execute("DELETE FROM event WHERE cluster = ?1", [name]).map_err(failed)?;
        write_desired(tx, wanted, 1, &UnixMs::now().to_string())?;
    }
    Ok((must(tx, name)?, true))
}

fn write_desired(
    tx: &Transaction<'_>,
    wanted: &RedisCluster,
    generation: u64,
    created: &str,
) -> Result<(), StoreError> {
    let version = rows::count_up(tx, "resource_version")?;
    tx.execute(
        "INSERT INTO object (name, labels, annotations, spec, generation, resource_version, created, record, record_version, uid)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, lower(hex(randomblob(16))))
         ON CONFLICT (name) DO UPDATE SET labels = ?2, annotations = ?3, spec = ?4, generation = ?5, resource_version = ?6",
        params![
            wanted.metadata.name,
            rows::json(&wanted.metadata.labels)?,
            rows::json(&wanted.metadata.annotations)?,
            rows::json(&wanted.spec)?,
            rows::int(generation),
            rows::int(version),
            created,
            rows::json(&Record::default())?,
        ],
    )
    .map(drop)
    .map_err(failed)
}

/// Takes the lock on `<path>.lock`, which ends with the process whatever ends it.
fn take_lock(path: &Path) -> Result<File, StoreError> {
    let lock = create_private(&path.with_added_extension("lock"))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(StoreError::Locked { path: path.display().to_string() })
        }
        Err(e) => Err(StoreError::Failed(format!("{} cannot be locked: {e}", path.display()))),
    }
}

/// Opens a file for writing and creates it for its owner alone where it is missing; `SQLite` gives
/// its side files the same mode.
fn create_private(path: &Path) -> Result<File, StoreError> {
    let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    opened.map_err(|e| {
        StoreError::Failed(format!("{} cannot be opened or created: {e}", path.display()))
    })
}

#[allow(clippy::needless_pass_by_value)] // for use in map_err
fn failed(error: rusqlite::Error) -> StoreError {
    StoreError::Failed(error.to_string())
}
