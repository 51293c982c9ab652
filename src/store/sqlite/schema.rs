//! The tables, and how an older file becomes a newer one: forward only, with a copy made first.

use std::path::Path;

use rusqlite::{Connection, MAIN_DB};

use super::super::StoreError;
use super::{create_private, failed};

/// Each entry brings the file from its index to the next version. Entries are never changed once
/// released: add another one.
pub(super) const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
    INSERT INTO counter VALUES ('term', 0), ('resource_version', 0);
    CREATE TABLE object (
        name TEXT PRIMARY KEY,
        labels TEXT NOT NULL,
        annotations TEXT NOT NULL,
        spec TEXT NOT NULL,
        status TEXT,
        generation INTEGER NOT NULL,
        resource_version INTEGER NOT NULL,
        created TEXT NOT NULL,
        deleted TEXT,
        record TEXT NOT NULL,
        record_version INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE tx (
        hash TEXT PRIMARY KEY,
        cluster TEXT NOT NULL,
        dseq INTEGER NOT NULL,
        purpose TEXT NOT NULL,
        bytes BLOB NOT NULL,
        timeout INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE event (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        cluster TEXT NOT NULL,
        at INTEGER NOT NULL,
        reason TEXT NOT NULL,
        message TEXT NOT NULL
    ) STRICT;
    CREATE INDEX event_by_cluster ON event (cluster, id);
",
    "
    CREATE TABLE installation (id TEXT NOT NULL) STRICT;
",
    "
    ALTER TABLE event ADD COLUMN first INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE event ADD COLUMN count INTEGER NOT NULL DEFAULT 1;
    UPDATE event SET first = at;
",
    "
    CREATE TABLE notice (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL,
        target TEXT NOT NULL,
        at INTEGER NOT NULL,
        event TEXT NOT NULL
    ) STRICT;
    CREATE INDEX notice_by_target ON notice (target, number);
    CREATE TABLE told (cluster TEXT PRIMARY KEY, reasons TEXT NOT NULL) STRICT;
",
    "
    ALTER TABLE object ADD COLUMN uid TEXT NOT NULL DEFAULT '';
    UPDATE object SET uid = lower(hex(randomblob(16)));
    CREATE TABLE book_account (dseq INTEGER PRIMARY KEY, account TEXT NOT NULL) STRICT;
    CREATE TABLE book_tx (hash TEXT PRIMARY KEY, dseq INTEGER NOT NULL, entry TEXT NOT NULL) STRICT;
",
    "
    CREATE TABLE provider (
        address TEXT PRIMARY KEY,
        seen INTEGER NOT NULL,
        experience TEXT NOT NULL
    ) STRICT;
",
];

/// Brings the file to the newest version of `migrations`. `path` is where it lies, `None` in
/// memory.
///
/// Each step is one transaction together with its version number, so a crash leaves the file at one
/// version or the next.
pub(super) fn migrate(
    connection: &mut Connection,
    path: Option<&Path>,
    migrations: &[&str],
) -> Result<(), StoreError> {
    let found: i64 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    let version = usize::try_from(found).unwrap_or(usize::MAX);
    if version > migrations.len() {
        return Err(StoreError::Failed(format!(
            "it was written by a later release (schema {found}, this one knows {}); use that release, or put back the copy made before it was upgraded",
            migrations.len()
        )));
    }
    if version > 0
        && version < migrations.len()
        && let Some(path) = path
    {
        let copy = path.with_added_extension(format!("v{version}.backup"));
        create_private(&copy)?;
        connection
            .backup(MAIN_DB, &copy, None::<fn(rusqlite::backup::Progress)>)
            .map_err(failed)?;
        tracing::info!(copy = %copy.display(), from = version, to = migrations.len(), "the store is upgraded; a copy of the old one was made");
    }
    for (index, migration) in migrations.iter().enumerate().skip(version) {
        let tx = connection.transaction().map_err(failed)?;
        tx.execute_batch(migration).map_err(failed)?;
        tx.pragma_update(None, "user_version", i64::try_from(index + 1).unwrap_or(i64::MAX))
            .map_err(failed)?;
        tx.commit().map_err(failed)?;
    }
    Ok(())
}
