//! Keeps the operator's books: every transaction that is in a block, and the chain's last word about
//! the escrow of every deployment that there ever was.
//!
//! Nothing is missed: a transaction leaves the outbox only when it is booked, and is looked up again
//! until then; an incarnation is forgotten only when its account has the chain's last word, and an
//! account without it is asked about with every reading, whatever stands in the record. The chain
//! keeps closed deployments for ever, so an operator that was away catches up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use super::lock;
use super::metrics::Metrics;
use crate::chain::booking;
use crate::model::books::{Account, Head, Totals, TxEntry, Window, sums};
use crate::model::chain::{ChainView, SignedTx, TxOutcome};
use crate::model::money::Uact;
use crate::model::record::Record;
use crate::server::StatusCache;
use crate::store::{Store, StoreError, Stored};

/// The books, as they stand in the store.
pub struct Bookkeeper {
    owner: String,
    store: Arc<dyn Store>,
    metrics: Metrics,
    status_cache: Arc<StatusCache>,
    /// One statement after the other: an older one never comes on top of a newer.
    turn: tokio::sync::Mutex<()>,
    books: Mutex<BTreeMap<u64, Book>>,
    /// Deployments by the uid of their cluster.
    of_cluster: Mutex<BTreeMap<String, BTreeSet<u64>>>,
}

/// What is known of one deployment.
#[derive(Clone, Default)]
struct Book {
    /// None while only its transactions are known.
    account: Option<Account>,
    txs: Vec<TxEntry>,
    /// Sums that do not change any more.
    last: Option<Totals>,
}

impl Book {
    /// The last transaction that did something.
    fn last_tx(&self) -> i64 {
        self.txs.iter().filter(|tx| tx.ok).map(|tx| tx.height).max().unwrap_or(0)
    }

    fn is_final(&self) -> bool {
        self.account.as_ref().is_some_and(|account| account.is_final(self.last_tx()))
    }

    /// There is, or was, something on the chain.
    fn has_begun(&self) -> bool {
        self.last_tx() > 0 || self.account.as_ref().is_some_and(|a| a.statement.is_some())
    }

    fn totals(&self, head: Option<Head>) -> Totals {
        sums(self.account.as_ref(), &self.txs, head).within(Window::ALL)
    }
}

impl Bookkeeper {
    /// Empty until they are loaded.
    pub fn new(
        owner: String,
        store: Arc<dyn Store>,
        metrics: Metrics,
        status_cache: Arc<StatusCache>,
    ) -> Self {
        Self {
            owner,
            store,
            metrics,
            status_cache,
            turn: tokio::sync::Mutex::default(),
            books: Mutex::default(),
            of_cluster: Mutex::default(),
        }
    }

    /// Reads them from the store.
    pub async fn load(&self) -> Result<(), StoreError> {
        let (accounts, txs) = (self.store.accounts().await?, self.store.booked_txs().await?);
        let (mut books, mut of_cluster) = (lock(&self.books), lock(&self.of_cluster));
        for account in accounts {
            let dseq = account.dseq;
            of_cluster.entry(account.uid.clone()).or_default().insert(dseq);
            books.entry(dseq).or_default().account = Some(account);
        }
        for tx in txs {
            books.entry(tx.dseq).or_default().txs.push(tx);
        }
        Ok(())
    }

    /// Opens the accounts of incarnations that have none: before anything is bought for them, and
    /// with the first plan after an upgrade for those that run.
    pub async fn open(&self, stored: &Stored, record: &Record) -> Result<(), StoreError> {
        let metadata = &stored.cluster.metadata;
        let uid = metadata.uid.as_deref().unwrap_or_default();
        let _turn = self.turn.lock().await;
        let new: Vec<_> = {
            let books = lock(&self.books);
            let known = |dseq| books.get(dseq).is_some_and(|book: &Book| book.account.is_some());
            let new = record.incarnations.iter().filter(|(_, i)| !known(&i.dseq));
            new.map(|(name, i)| Account::new(i.dseq, &metadata.name, uid, &name.0)).collect()
        };
        self.put(new).await
    }

    /// Books a transaction that came to its end.
    pub async fn book(
        &self,
        cluster: &str,
        tx: &SignedTx,
        outcome: &TxOutcome,
    ) -> Result<(), StoreError> {
        let Some(entry) = booking::entry(&self.owner, cluster, tx, outcome) else { return Ok(()) };
        self.store.book_tx(&entry).await?;
        let mut books = lock(&self.books);
        let book = books.entry(entry.dseq).or_default();
        if !book.txs.iter().any(|known| known.hash == entry.hash) {
            book.txs.push(entry);
            book.last = None;
        }
        Ok(())
    }

    /// Takes the word of a reading about every deployment that has an account.
    pub async fn take(&self, view: &ChainView) -> Result<(), StoreError> {
        self.status_cache.publish_head(Head { height: view.height, at: view.block_time });
        let turn = self.turn.lock().await;
        let changed = self.changed(view, |_| true);
        self.put(changed).await?;
        drop(turn);
        self.measure();
        Ok(())
    }

    /// The incarnations that are about to be forgotten have their last word in the books when this
    /// returns: it is that of the reading by which they are forgotten.
    pub async fn close(
        &self,
        old: &Record,
        new: &Record,
        view: Option<&ChainView>,
    ) -> Result<(), StoreError> {
        let gone =
            old.incarnations.iter().filter(|(name, _)| !new.incarnations.contains_key(*name));
        let gone: BTreeSet<u64> = gone.map(|(_, i)| i.dseq).collect();
        let Some(view) = view.filter(|_| !gone.is_empty()) else { return Ok(()) };
        let _turn = self.turn.lock().await;
        let changed = self.changed(view, |dseq| gone.contains(&dseq));
        self.put(changed).await
    }

    /// Deployments whose last word is missing.
    pub fn unfinished(&self) -> BTreeSet<u64> {
        let books = lock(&self.books);
        let open = books.iter().filter(|(_, book)| book.has_begun() && !book.is_final());
        open.map(|(dseq, _)| *dseq).collect()
    }

    /// What deployments of this cluster that its record has forgotten were paid.
    pub fn spent_before(&self, stored: &Stored) -> Uact {
        let uid = stored.cluster.metadata.uid.as_deref().unwrap_or_default();
        let recorded: BTreeSet<u64> = stored.record.incarnations.values().map(|i| i.dseq).collect();
        let all = lock(&self.of_cluster).get(uid).cloned().unwrap_or_default();
        let mut books = lock(&self.books);
        let mut paid = |dseq| books.get_mut(dseq).map(|book| totals(book, None).paid);
        all.difference(&recorded).filter_map(&mut paid).sum()
    }

    fn changed(&self, view: &ChainView, wanted: impl Fn(u64) -> bool) -> Vec<Account> {
        let books = lock(&self.books);
        let known = view.statements.iter().filter(|(dseq, _)| wanted(**dseq));
        known
            .filter_map(|(dseq, statement)| {
                let book = books.get(dseq)?;
                let mut account = book.account.clone()?;
                account.take(statement.clone(), book.last_tx()).then_some(account)
            })
            .collect()
    }

    async fn put(&self, accounts: Vec<Account>) -> Result<(), StoreError> {
        if accounts.is_empty() {
            return Ok(());
        }
        self.store.put_accounts(&accounts).await?;
        let (mut books, mut of_cluster) = (lock(&self.books), lock(&self.of_cluster));
        for account in accounts {
            of_cluster.entry(account.uid.clone()).or_default().insert(account.dseq);
            let book = books.entry(account.dseq).or_default();
            (book.account, book.last) = (Some(account), None);
        }
        Ok(())
    }

    fn measure(&self) {
        let head = self.status_cache.head();
        let mut all = Totals::default();
        for book in lock(&self.books).values_mut() {
            all += totals(book, head);
        }
        self.metrics.money.books(all);
    }
}

/// The sums of a deployment; those of one that is over are reckoned once.
fn totals(book: &mut Book, head: Option<Head>) -> Totals {
    if let Some(last) = book.last {
        return last;
    }
    let totals = book.totals(head);
    if book.is_final() {
        book.last = Some(totals);
    }
    totals
}
