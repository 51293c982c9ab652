//! Events that are still to be told outside.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use super::{SqliteStore, failed, rows, set_record};
use crate::changes::{Changes, Notifier};
use crate::model::record::Record;
use crate::model::time::UnixMs;
use crate::store::{Event, Notice, Notices, StoreError, TellRule, Trimmed};

/// Who is told of what, and who hears that there is something to tell.
#[derive(Default)]
pub(super) struct Telling {
    rule: Mutex<Option<TellRule>>,
    queued: Notifier<String>,
}

impl fmt::Debug for Telling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telling").finish_non_exhaustive()
    }
}

impl Telling {
    fn rule(&self) -> Option<TellRule> {
        self.rule.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl SqliteStore {
    /// Writes events with their notices, and what `job` writes: all or nothing.
    pub(super) async fn write_events<T, F>(&self, events: &[Event], job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (events, rule) = (events.to_vec(), self.shared.telling.rule());
        let (value, targets) = self
            .run_in_charge(move |tx| {
                let value = job(tx)?;
                let mut targets = BTreeSet::new();
                for event in &events {
                    let is_news = rows::put_event(tx, event)?;
                    rows::drop_surplus_events(tx, event)?;
                    if is_news && let Some(rule) = &rule {
                        let told = rule(event);
                        put_notices(tx, event, &told)?;
                        targets.extend(told);
                    }
                }
                Ok((value, targets))
            })
            .await?;
        for target in targets {
            self.shared.telling.queued.notify(target);
        }
        Ok(value)
    }
}

fn put_notices(tx: &Transaction<'_>, event: &Event, targets: &[String]) -> Result<(), StoreError> {
    if targets.is_empty() {
        return Ok(());
    }
    let (id, text) = (hex::encode(rand::random::<[u8; 16]>()), rows::json(event)?);
    for target in targets {
        let row = params![id, target, rows::int(event.at.0), text];
        tx.execute("INSERT INTO notice (id, target, at, event) VALUES (?1, ?2, ?3, ?4)", row)
            .map_err(failed)?;
    }
    Ok(())
}

/// Columns of a notice as they lie in the table.
type NoticeRow = (i64, String, String, String);

fn read(row: &Row<'_>) -> rusqlite::Result<NoticeRow> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
}

fn notice((number, id, target, event): NoticeRow) -> Result<Notice, StoreError> {
    let event = rows::read_json(&event, "event", &id)?;
    Ok(Notice { number: rows::unsigned(number), id, target, event })
}

const NOTICE: &str = "SELECT number, id, target, event FROM notice WHERE target = ?1";

#[async_trait]
impl Notices for SqliteStore {
    fn tell(&self, rule: TellRule) {
        *self.shared.telling.rule.lock().unwrap_or_else(PoisonError::into_inner) = Some(rule);
    }

    async fn set_record_with_events(
        &self,
        name: &str,
        expected: u64,
        record: &Record,
        events: &[Event],
    ) -> Result<u64, StoreError> {
        let (name, record) = (name.to_owned(), rows::json(record)?);
        self.write_events(events, move |tx| set_record(tx, &name, expected, &record)).await
    }

    async fn set_told(
        &self,
        cluster: &str,
        told: &BTreeSet<String>,
        events: &[Event],
    ) -> Result<(), StoreError> {
        let (cluster, told) = (cluster.to_owned(), rows::json(told)?);
        self.write_events(events, move |tx| {
            tx.execute("INSERT OR REPLACE INTO told VALUES (?1, ?2)", [&cluster, &told])
                .map(drop)
                .map_err(failed)
        })
        .await
    }

    async fn told(&self, cluster: &str) -> Result<BTreeSet<String>, StoreError> {
        let cluster = cluster.to_owned();
        self.run(move |tx| {
            let text: Option<String> = tx
                .query_row("SELECT reasons FROM told WHERE cluster = ?1", [&cluster], |r| r.get(0))
                .optional()
                .map_err(failed)?;
            text.map_or(Ok(BTreeSet::new()), |t| rows::read_json(&t, "problems told", &cluster))
        })
        .await
    }

    async fn next_notice(&self, target: &str) -> Result<Option<Notice>, StoreError> {
        let target = target.to_owned();
        self.run_in_charge(move |tx| {
            let first = format!("{NOTICE} ORDER BY number LIMIT 1");
            let row = tx.query_row(&first, [&target], read).optional().map_err(failed)?;
            row.map(notice).transpose()
        })
        .await
    }

    async fn drop_notice(&self, number: u64) -> Result<(), StoreError> {
        self.run_in_charge(move |tx| {
            tx.execute("DELETE FROM notice WHERE number = ?1", [rows::int(number)])
                .map(drop)
                .map_err(failed)
        })
        .await
    }

    async fn trim_notices(
        &self,
        target: &str,
        oldest: UnixMs,
        most: usize,
    ) -> Result<Trimmed, StoreError> {
        let (target, most) = (target.to_owned(), i64::try_from(most).unwrap_or(i64::MAX));
        self.run_in_charge(move |tx| {
            let surplus = format!(
                "{NOTICE} AND (at < ?2 OR number <= (SELECT number FROM notice WHERE target = ?1 \
                 ORDER BY number DESC LIMIT 1 OFFSET ?3)) ORDER BY number"
            );
            let mut query = tx.prepare_cached(&surplus).map_err(failed)?;
            let dropped: Vec<Notice> = query
                .query_map(params![target, rows::int(oldest.0), most], read)
                .map_err(failed)?
                .map(|row| row.map_err(failed).and_then(notice))
                .collect::<Result<_, _>>()?;
            for gone in &dropped {
                tx.execute("DELETE FROM notice WHERE number = ?1", [rows::int(gone.number)])
                    .map_err(failed)?;
            }
            let count = "SELECT count(*) FROM notice WHERE target = ?1";
            let left = tx.query_row(count, [&target], |row| row.get(0)).map_err(failed)?;
            Ok(Trimmed { dropped, left: rows::unsigned(left) })
        })
        .await
    }

    async fn keep_targets(&self, targets: &[String]) -> Result<u64, StoreError> {
        let targets = rows::json(&targets)?;
        self.run_in_charge(move |tx| {
            let others = "DELETE FROM notice WHERE target NOT IN (SELECT value FROM json_each(?1))";
            let gone = tx.execute(others, [&targets]).map_err(failed)?;
            Ok(u64::try_from(gone).unwrap_or(0))
        })
        .await
    }

    fn notices(&self) -> Changes<String> {
        self.shared.telling.queued.subscribe()
    }
}
