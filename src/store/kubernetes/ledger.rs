//! What is of the installation and not of one cluster: books, experience with providers, and
//! transactions that may still land after their cluster is gone.

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::{Books, Outbox, ProviderExperience, StoreError};
use super::KubernetesStore;
use super::shelf::Entry;
use crate::model::books::{Account, TxEntry};
use crate::model::chain::SignedTx;
use crate::model::experience::{self, Experiences};
use crate::model::time::UnixMs;

/// A transaction that may still land.
#[derive(Serialize, Deserialize)]
struct KeptTx {
    cluster: String,
    dseq: u64,
    purpose: String,
    /// Hex.
    bytes: String,
    hash: String,
    timeout: UnixMs,
}

fn json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::Failed(e.to_string()))
}

fn read<T: DeserializeOwned>(key: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|e| {
        StoreError::Failed(format!("the entry {key} of the store cannot be read: {e}"))
    })
}

#[async_trait]
impl Outbox for KubernetesStore {
    async fn keep_tx(&self, cluster: &str, tx: &SignedTx) -> Result<(), StoreError> {
        self.in_charge().await?;
        if self.outbox.all().await?.contains_key(&tx.hash) {
            return Ok(());
        }
        let kept = KeptTx {
            cluster: cluster.to_owned(),
            dseq: tx.dseq,
            purpose: tx.purpose.clone(),
            bytes: hex::encode(&tx.bytes),
            hash: tx.hash.clone(),
            timeout: tx.timeout,
        };
        self.outbox.change(&[(tx.hash.clone(), Some(json(&kept)?))]).await
    }

    async fn kept_txs(&self) -> Result<Vec<(String, SignedTx)>, StoreError> {
        let mut kept = Vec::new();
        for (key, text) in self.outbox.all().await? {
            let KeptTx { cluster, dseq, purpose, bytes, hash, timeout } = read(&key, &text)?;
            let bytes =
                hex::decode(bytes).map_err(|e| StoreError::Failed(format!("{key}: {e}")))?;
            kept.push((cluster, SignedTx { dseq, purpose, bytes, hash, timeout }));
        }
        kept.sort_by(|(_, a), (_, b)| (a.timeout, &a.hash).cmp(&(b.timeout, &b.hash)));
        Ok(kept)
    }

    async fn drop_tx(&self, hash: &str) -> Result<(), StoreError> {
        self.in_charge().await?;
        self.outbox.change(&[(hash.to_owned(), None)]).await
    }
}

const TX: &str = "tx.";
const ACCOUNT: &str = "account.";

#[async_trait]
impl Books for KubernetesStore {
    async fn book_tx(&self, entry: &TxEntry) -> Result<(), StoreError> {
        self.in_charge().await?;
        let key = format!("{TX}{}", entry.hash);
        if self.books.all().await?.contains_key(&key) {
            return Ok(());
        }
        self.books.change(&[(key, Some(json(entry)?))]).await
    }

    async fn put_accounts(&self, accounts: &[Account]) -> Result<(), StoreError> {
        if accounts.is_empty() {
            return Ok(());
        }
        self.in_charge().await?;
        let entries = accounts.iter().map(|a| Ok((format!("{ACCOUNT}{}", a.dseq), Some(json(a)?))));
        self.books.change(&entries.collect::<Result<Vec<Entry>, StoreError>>()?).await
    }

    async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        let mut accounts: Vec<Account> = self.of_the_books(ACCOUNT).await?;
        accounts.sort_by_key(|account| account.dseq);
        Ok(accounts)
    }

    async fn booked_txs(&self) -> Result<Vec<TxEntry>, StoreError> {
        let mut entries: Vec<TxEntry> = self.of_the_books(TX).await?;
        entries.sort_by(|a, b| (a.height, &a.hash).cmp(&(b.height, &b.hash)));
        Ok(entries)
    }
}

impl KubernetesStore {
    async fn of_the_books<T: DeserializeOwned>(&self, kind: &str) -> Result<Vec<T>, StoreError> {
        let all = self.books.all().await?;
        let mine = all.iter().filter(|(key, _)| key.starts_with(kind));
        mine.map(|(key, text)| read(key, text)).collect()
    }
}

#[async_trait]
impl ProviderExperience for KubernetesStore {
    async fn experience(&self) -> Result<Experiences, StoreError> {
        let all = self.experience.all().await?;
        all.iter().map(|(key, text)| Ok((key.clone(), read(key, text)?))).collect()
    }

    async fn put_experience(&self, changed: &Experiences) -> Result<(), StoreError> {
        if changed.is_empty() {
            return Ok(());
        }
        self.in_charge().await?;
        let mut all = self.experience().await?;
        all.extend(changed.clone());
        let before: Vec<String> = all.keys().cloned().collect();
        experience::bound(&mut all);
        let kept = changed.iter().filter(|(address, _)| all.contains_key(*address));
        let mut entries = kept
            .map(|(address, experience)| Ok((address.clone(), Some(json(experience)?))))
            .collect::<Result<Vec<Entry>, StoreError>>()?;
        let gone = before.into_iter().filter(|address| !all.contains_key(address));
        entries.extend(gone.map(|address| (address, None)));
        self.experience.change(&entries).await
    }
}
