//! A store in memory: the promises of `store`, no thread of its own, and the world's clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use akash_redis::api::status::Status;
use akash_redis::api::types::RedisCluster;
use akash_redis::changes::{Changes, Notifier};
use akash_redis::model::books::{Account, TxEntry};
use akash_redis::model::chain::SignedTx;
use akash_redis::model::experience::{self, Experiences};
use akash_redis::model::record::Record;
use akash_redis::model::time::UnixMs;
use akash_redis::store::{
    Books, EVENTS_KEPT, EVENTS_OF_A_REASON, Event, Events, Leadership, Notice, Notices, Objects,
    Outbox, ProviderExperience, REPEATED, Records, StoreError, Stored, TellRule, Trimmed,
    next_term,
};
use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::clock::OperatorClock;

/// Events of a cluster that is gone are kept so long, milliseconds.
const EVENTS_OF_THE_GONE_MS: u64 = 7 * 24 * 3600 * 1000;

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Stored>,
    resource_version: u64,
    /// In the order in which they were kept.
    txs: Vec<(String, SignedTx)>,
    events: BTreeMap<String, Vec<Event>>,
    experience: Experiences,
    term: u64,
    rule: Option<TellRule>,
    notices: Vec<Notice>,
    /// Notices so far.
    numbers: u64,
    told: BTreeMap<String, BTreeSet<String>>,
    accounts: BTreeMap<u64, Account>,
    /// By height and hash.
    booked: BTreeMap<(i64, String), TxEntry>,
}

struct Shared {
    clock: OperatorClock,
    state: Mutex<State>,
    changes: Notifier<String>,
    queued: Notifier<String>,
}

/// The store as one operator process sees it.
pub struct MemoryStore {
    shared: Arc<Shared>,
    /// Term of that process; 0 until it took over.
    term: AtomicU64,
}

impl MemoryStore {
    pub fn new(clock: OperatorClock) -> Arc<Self> {
        let shared = Shared {
            clock,
            state: Mutex::default(),
            changes: Notifier::default(),
            queued: Notifier::default(),
        };
        Arc::new(Self { shared: Arc::new(shared), term: AtomicU64::new(0) })
    }

    /// The same store as another operator sees it: with a term of its own.
    pub fn as_another_operator(&self) -> Arc<Self> {
        Arc::new(Self { shared: self.shared.clone(), term: AtomicU64::new(0) })
    }

    /// The file is gone, and an empty one in its place.
    pub fn lose(&self) {
        *self.state() = State::default();
    }

    /// A change that belongs to the operator in charge.
    fn in_charge<T>(
        &self,
        change: impl FnOnce(&mut State) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (ours, mut state) = (self.term.load(Ordering::SeqCst), self.state());
        let theirs = state.term;
        if theirs > ours {
            Err(StoreError::Superseded { ours, theirs })
        } else {
            change(&mut state)
        }
    }

    fn announce(&self, targets: BTreeSet<String>) {
        for target in targets {
            self.shared.queued.notify(target);
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }
}

impl State {
    fn find(&mut self, name: &str) -> Result<&mut Stored, StoreError> {
        self.objects.get_mut(name).ok_or_else(|| StoreError::NotFound { name: name.to_owned() })
    }

    fn next_version(&mut self) -> String {
        self.resource_version += 1;
        self.resource_version.to_string()
    }

    /// Creates or replaces the desired part; also says whether anything changed.
    fn apply(
        &mut self,
        wanted: RedisCluster,
        created: String,
    ) -> Result<(Stored, bool), StoreError> {
        let name = wanted.metadata.name.clone();
        let present = self.objects.get(&name).cloned();
        let version = present.as_ref().and_then(|p| p.cluster.metadata.resource_version.clone());
        if wanted.metadata.resource_version.is_some() && wanted.metadata.resource_version != version
        {
            return Err(StoreError::Conflict { name });
        }
        let mut stored = if let Some(present) = present {
            let (old, new) = (&present.cluster, &wanted);
            let same = (&old.spec, &old.metadata.labels, &old.metadata.annotations)
                == (&new.spec, &new.metadata.labels, &new.metadata.annotations);
            if same {
                return Ok((present, false));
            }
            present
        } else {
            // An earlier cluster of this name is somebody else's story.
            self.events.remove(&name);
            let mut cluster = wanted.clone();
            cluster.status = None;
            cluster.metadata.generation = Some(1);
            cluster.metadata.uid = Some(format!("uid-{}", self.resource_version));
            cluster.metadata.creation_timestamp = Some(created);
            cluster.metadata.deletion_timestamp = None;
            Stored { cluster, record: Record::default(), record_version: 0 }
        };
        let metadata = &mut stored.cluster.metadata;
        if stored.cluster.spec != wanted.spec {
            metadata.generation = metadata.generation.map(|n| n + 1);
        }
        metadata.labels = wanted.metadata.labels;
        metadata.annotations = wanted.metadata.annotations;
        metadata.resource_version = Some(self.next_version());
        stored.cluster.spec = wanted.spec;
        self.objects.insert(name, stored.clone());
        Ok((stored, true))
    }
}

impl State {
    fn set_record(
        &mut self,
        name: &str,
        expected: u64,
        record: &Record,
    ) -> Result<u64, StoreError> {
        let stored = self.find(name)?;
        if stored.record_version != expected {
            return Err(StoreError::Conflict { name: name.to_owned() });
        }
        (stored.record, stored.record_version) = (kept(record), expected + 1);
        Ok(expected + 1)
    }

    /// Writes them with their notices; whom there is something to tell.
    fn add_events(&mut self, events: &[Event]) -> BTreeSet<String> {
        let mut targets = BTreeSet::new();
        for event in events {
            let known = self.events.entry(event.cluster.clone()).or_default();
            let (alike, others): (Vec<Event>, Vec<Event>) =
                known.drain(..).partition(|k| k.is_alike(event));
            *known = others;
            known.push(alike.iter().fold(event.clone(), Event::with));
            let of_reason = known.iter().filter(|k| k.reason == event.reason).count();
            if of_reason > EVENTS_OF_A_REASON {
                let oldest = known.iter().position(|k| k.reason == event.reason);
                oldest.map(|at| known.remove(at));
            }
            let surplus = known.len().saturating_sub(EVENTS_KEPT);
            known.drain(..surplus);
            if alike.iter().all(|before| event.at.passed(before.at, REPEATED)) {
                let told = self.rule.as_ref().map(|rule| rule(event)).unwrap_or_default();
                let id = format!("{:032x}", self.numbers);
                for target in told {
                    self.numbers += 1;
                    let (number, id, event) = (self.numbers, id.clone(), event.clone());
                    self.notices.push(Notice { number, id, target: target.clone(), event });
                    targets.insert(target);
                }
            }
        }
        targets
    }
}

/// What the other home of these would bring back: it keeps them as text.
fn kept<T: Serialize + DeserializeOwned>(value: &T) -> T {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}

#[async_trait]
impl Objects for MemoryStore {
    async fn list(&self) -> Result<Vec<Stored>, StoreError> {
        Ok(self.state().objects.values().cloned().collect())
    }

    async fn get(&self, name: &str) -> Result<Stored, StoreError> {
        self.state().find(name).cloned()
    }

    async fn apply(&self, cluster: RedisCluster) -> Result<Stored, StoreError> {
        let created = self.shared.clock.now().to_string();
        let (stored, changed) = self.state().apply(kept(&cluster), created)?;
        if changed {
            self.shared.changes.notify(stored.cluster.metadata.name.clone());
        }
        Ok(stored)
    }

    async fn mark_deleted(&self, name: &str) -> Result<(), StoreError> {
        let now = self.shared.clock.now().to_string();
        {
            let mut state = self.state();
            if state.find(name)?.cluster.metadata.deletion_timestamp.is_some() {
                return Ok(());
            }
            let version = Some(state.next_version());
            let metadata = &mut state.find(name)?.cluster.metadata;
            (metadata.deletion_timestamp, metadata.resource_version) = (Some(now), version);
        }
        self.shared.changes.notify(name.to_owned());
        Ok(())
    }

    async fn set_status(&self, name: &str, status: &Status) -> Result<(), StoreError> {
        self.in_charge(|state| {
            if state.find(name)?.cluster.status.as_ref() == Some(status) {
                return Ok(());
            }
            let version = Some(state.next_version());
            let cluster = &mut state.find(name)?.cluster;
            (cluster.status, cluster.metadata.resource_version) = (Some(kept(status)), version);
            Ok(())
        })
    }

    async fn remove(&self, name: &str) -> Result<(), StoreError> {
        let oldest = self.shared.clock.now().0.saturating_sub(EVENTS_OF_THE_GONE_MS);
        self.in_charge(|state| {
            state.find(name)?;
            state.objects.remove(name);
            state.told.remove(name);
            let State { objects, events, .. } = state;
            for (_, events) in events.iter_mut().filter(|(name, _)| !objects.contains_key(*name)) {
                events.retain(|event| event.at.0 >= oldest);
            }
            Ok(())
        })?;
        self.shared.changes.notify(name.to_owned());
        Ok(())
    }

    fn changes(&self) -> Changes<String> {
        self.shared.changes.subscribe()
    }
}

#[async_trait]
impl Records for MemoryStore {
    async fn set_record(
        &self,
        name: &str,
        expected: u64,
        record: &Record,
    ) -> Result<u64, StoreError> {
        self.in_charge(|state| state.set_record(name, expected, record))
    }
}

#[async_trait]
impl Outbox for MemoryStore {
    async fn keep_tx(&self, cluster: &str, tx: &SignedTx) -> Result<(), StoreError> {
        self.in_charge(|state| {
            if !state.txs.iter().any(|(_, known)| known.hash == tx.hash) {
                state.txs.push((cluster.to_owned(), tx.clone()));
            }
            Ok(())
        })
    }

    async fn kept_txs(&self) -> Result<Vec<(String, SignedTx)>, StoreError> {
        let mut txs = self.state().txs.clone();
        txs.sort_by_key(|(_, tx)| tx.timeout);
        Ok(txs)
    }

    async fn drop_tx(&self, hash: &str) -> Result<(), StoreError> {
        self.in_charge(|state| {
            state.txs.retain(|(_, tx)| tx.hash != hash);
            Ok(())
        })
    }
}

#[async_trait]
impl Events for MemoryStore {
    async fn add_events(&self, events: &[Event]) -> Result<(), StoreError> {
        let targets = self.in_charge(|state| Ok(state.add_events(events)))?;
        self.announce(targets);
        Ok(())
    }

    async fn events(&self, cluster: &str) -> Result<Vec<Event>, StoreError> {
        Ok(self.state().events.get(cluster).cloned().unwrap_or_default())
    }
}

#[async_trait]
impl Books for MemoryStore {
    async fn book_tx(&self, entry: &TxEntry) -> Result<(), StoreError> {
        self.in_charge(|state| {
            let key = (entry.height, entry.hash.clone());
            state.booked.entry(key).or_insert_with(|| kept(entry));
            Ok(())
        })
    }

    async fn put_accounts(&self, accounts: &[Account]) -> Result<(), StoreError> {
        self.in_charge(|state| {
            state.accounts.extend(accounts.iter().map(|account| (account.dseq, kept(account))));
            Ok(())
        })
    }

    async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        Ok(self.state().accounts.values().cloned().collect())
    }

    async fn booked_txs(&self) -> Result<Vec<TxEntry>, StoreError> {
        Ok(self.state().booked.values().cloned().collect())
    }
}

#[async_trait]
impl ProviderExperience for MemoryStore {
    async fn experience(&self) -> Result<Experiences, StoreError> {
        Ok(self.state().experience.clone())
    }

    async fn put_experience(&self, changed: &Experiences) -> Result<(), StoreError> {
        self.in_charge(|state| {
            state.experience.extend(changed.clone());
            experience::bound(&mut state.experience);
            Ok(())
        })
    }
}

#[async_trait]
impl Leadership for MemoryStore {
    async fn take_over(&self) -> Result<u64, StoreError> {
        let now = self.shared.clock.now();
        let mut state = self.state();
        // Two that take over at one moment differ by the term before them.
        state.term = next_term(state.term, now, 0);
        self.term.store(state.term, Ordering::SeqCst);
        Ok(state.term)
    }
}

#[async_trait]
impl Notices for MemoryStore {
    fn tell(&self, rule: TellRule) {
        self.state().rule = Some(rule);
    }

    async fn set_record_with_events(
        &self,
        name: &str,
        expected: u64,
        record: &Record,
        events: &[Event],
    ) -> Result<u64, StoreError> {
        let (version, targets) = self.in_charge(|state| {
            let version = state.set_record(name, expected, record)?;
            Ok((version, state.add_events(events)))
        })?;
        self.announce(targets);
        Ok(version)
    }

    async fn set_told(
        &self,
        cluster: &str,
        told: &BTreeSet<String>,
        events: &[Event],
    ) -> Result<(), StoreError> {
        let targets = self.in_charge(|state| {
            state.told.insert(cluster.to_owned(), told.clone());
            Ok(state.add_events(events))
        })?;
        self.announce(targets);
        Ok(())
    }

    async fn told(&self, cluster: &str) -> Result<BTreeSet<String>, StoreError> {
        Ok(self.state().told.get(cluster).cloned().unwrap_or_default())
    }

    async fn next_notice(&self, target: &str) -> Result<Option<Notice>, StoreError> {
        self.in_charge(|state| Ok(state.notices.iter().find(|n| n.target == target).cloned()))
    }

    async fn drop_notice(&self, number: u64) -> Result<(), StoreError> {
        self.in_charge(|state| {
            state.notices.retain(|notice| notice.number != number);
            Ok(())
        })
    }

    async fn trim_notices(
        &self,
        target: &str,
        oldest: UnixMs,
        most: usize,
    ) -> Result<Trimmed, StoreError> {
        self.in_charge(|state| {
            let (own, others): (Vec<_>, Vec<_>) =
                state.notices.drain(..).partition(|notice| notice.target == target);
            let surplus = own.len().saturating_sub(most);
            let kept = |(at, notice): &(usize, Notice)| *at >= surplus && notice.event.at >= oldest;
            let (left, dropped): (Vec<_>, Vec<_>) = own.into_iter().enumerate().partition(kept);
            let trimmed = Trimmed {
                dropped: dropped.into_iter().map(|(_, notice)| notice).collect(),
                left: left.len() as u64,
            };
            state.notices = others.into_iter().chain(left.into_iter().map(|(_, n)| n)).collect();
            state.notices.sort_by_key(|notice| notice.number);
            Ok(trimmed)
        })
    }

    async fn keep_targets(&self, targets: &[String]) -> Result<u64, StoreError> {
        self.in_charge(|state| {
            let before = state.notices.len();
            state.notices.retain(|notice| targets.contains(&notice.target));
            Ok((before - state.notices.len()) as u64)
        })
    }

    fn notices(&self) -> Changes<String> {
        self.shared.queued.subscribe()
    }
}
