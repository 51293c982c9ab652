//! The books in the file.

use async_trait::async_trait;
use rusqlite::{Transaction, params};
use serde::de::DeserializeOwned;

use super::super::{Books, StoreError};
use super::{SqliteStore, failed, rows};
use crate::model::books::{Account, TxEntry};

#[async_trait]
impl Books for SqliteStore {
    async fn book_tx(&self, entry: &TxEntry) -> Result<(), StoreError> {
        let (hash, dseq, text) = (entry.hash.clone(), entry.dseq, rows::json(entry)?);
        self.run_in_charge(move |tx| {
            let row = params![hash, rows::int(dseq), text];
            let put = "INSERT INTO book_tx (hash, dseq, entry) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
            tx.execute(put, row).map(drop).map_err(failed)
        })
        .await
    }

    async fn put_accounts(&self, accounts: &[Account]) -> Result<(), StoreError> {
        if accounts.is_empty() {
            return Ok(());
        }
        let texts = accounts.iter().map(|account| Ok((account.dseq, rows::json(account)?)));
        let texts = texts.collect::<Result<Vec<_>, StoreError>>()?;
        self.run_in_charge(move |tx| {
            for (dseq, text) in texts {
                let put = "INSERT INTO book_account (dseq, account) VALUES (?1, ?2) ON CONFLICT (dseq) DO UPDATE SET account = ?2";
                tx.execute(put, params![rows::int(dseq), text]).map_err(failed)?;
            }
            Ok(())
        })
        .await
    }

    async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        self.run(|tx| all(tx, "SELECT account FROM book_account ORDER BY dseq")).await
    }

    async fn booked_txs(&self) -> Result<Vec<TxEntry>, StoreError> {
        let mut entries: Vec<TxEntry> = self.run(|tx| all(tx, "SELECT entry FROM book_tx")).await?;
        entries.sort_by(|a, b| (a.height, &a.hash).cmp(&(b.height, &b.hash)));
        Ok(entries)
    }
}

fn all<T: DeserializeOwned>(tx: &Transaction<'_>, query: &str) -> Result<Vec<T>, StoreError> {
    let mut query = tx.prepare_cached(query).map_err(failed)?;
    let texts = query.query_map([], |row| row.get::<_, String>(0)).map_err(failed)?;
    let read = |text: rusqlite::Result<String>| {
        let text = text.map_err(failed)?;
        serde_json::from_str(&text)
            .map_err(|e| StoreError::Failed(format!("an entry of the books cannot be read: {e}")))
    };
    texts.map(read).collect()
}
