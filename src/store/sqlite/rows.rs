//! Rows to types and back.

use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::{EVENTS_KEPT, EVENTS_OF_A_REASON, Event, REPEATED, StoreError, Stored};
use super::failed;
use crate::api::types::{API_VERSION, KIND, Metadata, RedisCluster};
use crate::model::chain::SignedTx;
use crate::model::time::UnixMs;

/// SQLite's integers are signed; no count of ours comes near the end of them.
pub(super) fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::Failed(e.to_string()))
}

pub(super) fn read_json<T: DeserializeOwned>(
    text: &str,
    what: &str,
    name: &str,
) -> Result<T, StoreError> {
    serde_json::from_str(text)
        .map_err(|e| StoreError::Failed(format!("the {what} of {name} cannot be read: {e}")))
}

/// Columns of an object as they lie in the table.
pub(super) struct ObjectRow {
    name: String,
    labels: String,
    annotations: String,
    spec: String,
    status: Option<String>,
    generation: i64,
    resource_version: i64,
    created: String,
    deleted: Option<String>,
    record: String,
    record_version: i64,
    uid: String,
}

const OBJECT: &str = "SELECT name, labels, annotations, spec, status, generation, resource_version, created, deleted, record, record_version, uid FROM object";

impl ObjectRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            name: row.get(0)?,
            labels: row.get(1)?,
            annotations: row.get(2)?,
            spec: row.get(3)?,
            status: row.get(4)?,
            generation: row.get(5)?,
            resource_version: row.get(6)?,
            created: row.get(7)?,
            deleted: row.get(8)?,
            record: row.get(9)?,
            record_version: row.get(10)?,
            uid: row.get(11)?,
        })
    }

    fn into_stored(self) -> Result<Stored, StoreError> {
        let metadata = Metadata {
            labels: read_json(&self.labels, "labels", &self.name)?,
            annotations: read_json(&self.annotations, "annotations", &self.name)?,
            generation: Some(unsigned(self.generation)),
            resource_version: Some(self.resource_version.to_string()),
            uid: Some(self.uid),
            creation_timestamp: Some(self.created),
            deletion_timestamp: self.deleted,
            name: self.name.clone(),
        };
        let cluster = RedisCluster {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            metadata,
            spec: read_json(&self.spec, "spec", &self.name)?,
            status: self.status.map(|text| read_json(&text, "status", &self.name)).transpose()?,
        };
        Ok(Stored {
            cluster,
            record: read_json(&self.record, "record", &self.name)?,
            record_version: unsigned(self.record_version),
        })
    }
}

pub(super) fn find(tx: &Transaction<'_>, name: &str) -> Result<Option<Stored>, StoreError> {
    let row = tx
        .query_row(&format!("{OBJECT} WHERE name = ?1"), [name], ObjectRow::read)
        .optional()
        .map_err(failed)?;
    row.map(ObjectRow::into_stored).transpose()
}

pub(super) fn all(tx: &Transaction<'_>) -> Result<Vec<Stored>, StoreError> {
    let mut query = tx.prepare_cached(&format!("{OBJECT} ORDER BY name")).map_err(failed)?;
    let rows = query
        .query_map([], ObjectRow::read)
        .map_err(failed)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    rows.into_iter().map(ObjectRow::into_stored).collect()
}

pub(super) fn counter(tx: &Transaction<'_>, name: &str) -> Result<u64, StoreError> {
    tx.query_row("SELECT value FROM counter WHERE name = ?1", [name], |row| row.get(0))
        .map(unsigned)
        .map_err(failed)
}

pub(super) fn count_up(tx: &Transaction<'_>, name: &str) -> Result<u64, StoreError> {
    tx.query_row(
        "UPDATE counter SET value = value + 1 WHERE name = ?1 RETURNING value",
        [name],
        |row| row.get(0),
    )
    .map(unsigned)
    .map_err(failed)
}

pub(super) fn raise_term(
    tx: &Transaction<'_>,
    next: impl FnOnce(u64) -> u64,
) -> Result<u64, StoreError> {
    let last = tx
        .query_row("SELECT value FROM counter WHERE name = 'term'", [], |row| row.get(0))
        .map(unsigned)
        .map_err(failed)?;
    let term = next(last);
    tx.execute("UPDATE counter SET value = ?1 WHERE name = 'term'", [int(term)]).map_err(failed)?;
    Ok(term)
}

pub(super) fn put_tx(
    tx: &Transaction<'_>,
    cluster: &str,
    signed: &SignedTx,
) -> Result<(), StoreError> {
    let row = params![
        signed.hash,
        cluster,
        int(signed.dseq),
        signed.purpose,
        signed.bytes,
        int(signed.timeout.0)
    ];
    tx.execute("INSERT INTO tx (hash, cluster, dseq, purpose, bytes, timeout) VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING", row)
        .map(drop)
        .map_err(failed)
}

pub(super) fn txs(tx: &Transaction<'_>) -> Result<Vec<(String, SignedTx)>, StoreError> {
    let mut query = tx
        .prepare_cached(
            "SELECT cluster, dseq, purpose, bytes, hash, timeout FROM tx ORDER BY timeout, hash",
        )
        .map_err(failed)?;
    let read = |row: &Row<'_>| {
        let signed = SignedTx {
            dseq: unsigned(row.get(1)?),
            purpose: row.get(2)?,
            bytes: row.get(3)?,
            hash: row.get(4)?,
            timeout: UnixMs(unsigned(row.get(5)?)),
        };
        Ok((row.get(0)?, signed))
    };
    query.query_map([], read).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

/// One that is alike is taken out and comes back as one with it, as the last. True when it is news.
pub(super) fn put_event(tx: &Transaction<'_>, event: &Event) -> Result<bool, StoreError> {
    let alike = "DELETE FROM event WHERE cluster = ?1 AND reason = ?2 AND message = ?3 \
        RETURNING at, cluster, reason, message, first, count";
    let mut query = tx.prepare_cached(alike).map_err(failed)?;
    let known: Vec<Event> = query
        .query_map(params![event.cluster, event.reason, event.message], read_event)
        .map_err(failed)?
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    let is_news = known.iter().all(|before| event.at.passed(before.at, REPEATED));
    let event = known.iter().fold(event.clone(), Event::with);
    let row = params![
        event.cluster,
        int(event.at.0),
        event.reason,
        event.message,
        int(event.first.0),
        int(event.count)
    ];
    tx.execute(
        "INSERT INTO event (cluster, at, reason, message, first, count) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        row,
    )
    .map_err(failed)?;
    Ok(is_news)
}

/// Those that are too many beside the cluster and the reason of `event`, the oldest first.
pub(super) fn drop_surplus_events(tx: &Transaction<'_>, event: &Event) -> Result<(), StoreError> {
    let limit = |most: usize| i64::try_from(most).unwrap_or(i64::MAX);
    let of_reason = "DELETE FROM event WHERE cluster = ?1 AND reason = ?2 AND id <= (SELECT id FROM \
        event WHERE cluster = ?1 AND reason = ?2 ORDER BY id DESC LIMIT 1 OFFSET ?3)";
    tx.execute(of_reason, params![event.cluster, event.reason, limit(EVENTS_OF_A_REASON)])
        .map_err(failed)?;
    let of_cluster = "DELETE FROM event WHERE cluster = ?1 AND id <= \
        (SELECT id FROM event WHERE cluster = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)";
    tx.execute(of_cluster, params![event.cluster, limit(EVENTS_KEPT)]).map(drop).map_err(failed)
}

fn read_event(row: &Row<'_>) -> rusqlite::Result<Event> {
    Ok(Event {
        at: UnixMs(unsigned(row.get(0)?)),
        cluster: row.get(1)?,
        reason: row.get(2)?,
        message: row.get(3)?,
        first: UnixMs(unsigned(row.get(4)?)),
        count: unsigned(row.get(5)?),
    })
}

pub(super) fn events(tx: &Transaction<'_>, cluster: &str) -> Result<Vec<Event>, StoreError> {
    let mut query = tx
        .prepare_cached(
            "SELECT at, cluster, reason, message, first, count FROM event WHERE cluster = ?1 ORDER BY id",
        )
        .map_err(failed)?;
    query
        .query_map([cluster], read_event)
        .map_err(failed)?
        .collect::<Result<_, _>>()
        .map_err(failed)
}
