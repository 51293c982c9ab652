//! What was lived through with providers: one row for each.

use async_trait::async_trait;
use rusqlite::params;

use super::super::{ProviderExperience, StoreError};
use super::{SqliteStore, failed, rows};
use crate::model::experience::{Experiences, PROVIDERS_KEPT};

#[async_trait]
impl ProviderExperience for SqliteStore {
    async fn experience(&self) -> Result<Experiences, StoreError> {
        self.run(|tx| {
            let mut query =
                tx.prepare("SELECT address, experience FROM provider").map_err(failed)?;
            let found = query
                .query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))
                .map_err(failed)?;
            found
                .map(|row| {
                    let (address, text): (String, String) = row.map_err(failed)?;
                    let experience = serde_json::from_str(&text).map_err(|e| {
                        StoreError::Failed(format!("the experience with {address}: {e}"))
                    })?;
                    Ok((address, experience))
                })
                .collect()
        })
        .await
    }

    async fn put_experience(&self, changed: &Experiences) -> Result<(), StoreError> {
        let changed = changed.clone();
        self.run_in_charge(move |tx| {
            for (address, experience) in &changed {
                let row = params![address, rows::int(experience.seen.0), rows::json(experience)?];
                tx.execute(
                    "INSERT INTO provider VALUES (?1, ?2, ?3)
                     ON CONFLICT (address) DO UPDATE SET seen = ?2, experience = ?3",
                    row,
                )
                .map_err(failed)?;
            }
            let kept = i64::try_from(PROVIDERS_KEPT).unwrap_or(i64::MAX);
            let surplus = "DELETE FROM provider WHERE address NOT IN
                 (SELECT address FROM provider ORDER BY seen DESC, address DESC LIMIT ?1)";
            tx.execute(surplus, [kept]).map(drop).map_err(failed)
        })
        .await
    }
}
