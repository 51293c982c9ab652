//! What clients of one cluster did with single keys, and what they were told.
//!
//! Every write of the application is of one key: it becomes the value of a register, or the end of a
//! list. Beside it another key is read from every master that answers. A read is confirmed like a
//! write: by what the replicas said after it.

use std::collections::BTreeMap;

use akash_redis::model::ids::IncarnationName;

use crate::linear::{Act, Op, is_linearizable};

/// Keys that are used at one time.
const KEYS: u64 = 4;
/// Writes after which other keys are used, so that no history is long.
const BLOCK: u64 = 100;

/// A key with so many operations is read no more.
const ENOUGH: usize = 90;

/// A read whose answer is held back until it is confirmed.
struct Asked {
    of: IncarnationName,
    key: u64,
    /// So many writes the master had.
    had: usize,
    op: Op,
}

/// Their histories.
#[derive(Default)]
pub struct Clients {
    histories: BTreeMap<u64, Vec<Op>>,
    /// Key and place of each write.
    places: BTreeMap<u64, (u64, usize)>,
    asked: Vec<Asked>,
    /// The first one whose key nobody had written before.
    first: u64,
    newest: u64,
    turn: u64,
    /// Reads that were confirmed.
    pub reads: usize,
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clients").field("keys", &self.histories.len()).finish_non_exhaustive()
    }
}

impl Clone for Clients {
    fn clone(&self) -> Self {
        Self::default()
    }
}

fn key_of(write: u64) -> u64 {
    write / BLOCK * KEYS + write % KEYS
}

fn is_list(key: u64) -> bool {
    key % 2 == 1
}

impl Clients {
    /// From this write on.
    pub fn from(write: u64) -> Self {
        Self { first: write.div_ceil(BLOCK) * BLOCK, ..Self::default() }
    }

    /// A write is sent, and taken by a master.
    pub fn write(&mut self, write: u64, now: u64) {
        if write < self.first {
            return;
        }
        let key = key_of(write);
        let act = if is_list(key) { Act::Push(write) } else { Act::Set(write) };
        let history = self.histories.entry(key).or_default();
        self.places.insert(write, (key, history.len()));
        history.push(Op { act, begin: now, end: None });
        self.newest = write;
    }

    /// It was confirmed.
    pub fn written(&mut self, write: u64, now: u64) {
        if let Some((key, place)) = self.places.get(&write) {
            self.histories.get_mut(key).unwrap()[*place].end = Some(now);
        }
    }

    /// A key of the present ones is read from a master, whatever it takes it for.
    pub fn ask(&mut self, of: &IncarnationName, log: &[u64], now: u64) {
        if self.newest < self.first || self.newest == 0 {
            return;
        }
        self.turn += 1;
        let key = self.newest / BLOCK * KEYS + self.turn % KEYS;
        if self.histories.get(&key).is_some_and(|ops| ops.len() >= ENOUGH) {
            return;
        }
        let mut values = log.iter().rev().take_while(|w| **w / BLOCK == self.newest / BLOCK);
        let act = if is_list(key) {
            let mut list: Vec<u64> = values.filter(|w| key_of(**w) == key).copied().collect();
            list.reverse();
            Act::List(list)
        } else {
            Act::Get(values.find(|w| key_of(**w) == key).copied())
        };
        let op = Op { act, begin: now, end: None };
        self.asked.push(Asked { of: of.clone(), key, had: log.len(), op });
    }

    /// Enough replicas of a master have as many of its writes.
    pub fn read(&mut self, of: &IncarnationName, safe: usize, now: u64) {
        let (told, open) = std::mem::take(&mut self.asked)
            .into_iter()
            .partition(|asked| &asked.of == of && asked.had <= safe);
        self.asked = open;
        let told: Vec<Asked> = told;
        for asked in told {
            self.reads += 1;
            let op = Op { end: Some(now), ..asked.op };
            self.histories.entry(asked.key).or_default().push(op);
        }
        // Nobody waits for ever.
        self.asked.retain(|asked| asked.op.begin + 1_000 > now);
    }

    /// Keys whose history no order explains.
    pub fn broken(&self) -> Vec<(u64, &[Op])> {
        let broken = self.histories.iter().filter(|(_, ops)| !is_linearizable(ops));
        broken.map(|(key, ops)| (*key, ops.as_slice())).collect()
    }
}
