//! One pass over all keys of a running Redis: each batch of them is read there, compared with what is
//! here where it is the last pass, and sent to Redis.
//!
//! Memory is bounded: values of 8 MiB together are held at once, or one that is larger, five times
//! over while it is read and handed on. A larger one is read on a connection of its own, whose buffer ends with it,
//! and what is here is kept as a digest. A value that grows after its size was asked is not foreseen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisResult};

use super::convert::Source;
use super::copy_digest::{Body, Kind, digest};
use super::copy_found::Found;
use super::feed::{Ended, Feed};
use super::import::change;
use super::source_asking::{connect, info, not_answered};
use super::state::Node;
use crate::error_chain::error_chain;
use crate::model::import::Difference;
use crate::model::time::UnixMs;

/// Keys that are asked for at once.
const KEYS: usize = 1000;
/// Values that are in flight together take so many bytes in the memory of the source, unless one
/// alone takes more.
const TOGETHER: u64 = 8 << 20;
/// A value that takes more in the memory of the source is not copied, bytes: one of 64 MiB takes up
/// to so much.
const LARGEST: u64 = 80 << 20;
/// Values that are looked into at once.
const LOOKED_INTO: usize = 16;
/// Times to live are the same when they differ by no more, milliseconds: the way to the source takes
/// its time.
const TTL_DIFFERS: i64 = 2000;
/// The source, and Redis here, answer within this: some values are large.
const ANSWER: Duration = Duration::from_mins(1);
/// Progress is told so often at most.
const TELL: Duration = Duration::from_millis(500);

/// Why a pass came to an end before its last key.
#[derive(Debug)]
pub(super) enum Failed {
    /// The source, one sentence: it can be gone on with.
    Source(String),
    /// Redis here: all begins anew.
    Here(Ended),
}

impl From<Ended> for Failed {
    fn from(ended: Ended) -> Self {
        Self::Here(ended)
    }
}

/// How far a pass is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reached {
    /// The process whose keys they are.
    run_id: String,
    /// Databases that are still to come, the present one first.
    databases: Vec<u32>,
    cursor: u64,
    looked_at: u64,
    bytes: u64,
    found: Found,
}

/// One pass.
pub(super) struct Pass<'a> {
    node: &'a Arc<Node>,
    source: &'a Source,
    feed: &'a Feed,
    /// It compares.
    last: bool,
    began: Instant,
    told: Instant,
}

/// Connections with a database chosen.
struct Both {
    number: u32,
    there: MultiplexedConnection,
    here: MultiplexedConnection,
}

/// A value, and for how long it lives.
struct Held {
    /// Milliseconds from `read` on; -1 for ever.
    ttl: i64,
    read: Instant,
    kind: Kind,
    body: Body,
}

impl Held {
    /// What is left of its time.
    fn ttl(&self) -> i64 {
        let since = i64::try_from(self.read.elapsed().as_millis()).unwrap_or(i64::MAX);
        if self.ttl < 0 { -1 } else { (self.ttl - since).max(0) }
    }

    fn lives_as_long(&self, other: &Self) -> bool {
        (self.ttl < 0) == (other.ttl < 0) && (self.ttl() - other.ttl()).abs() <= TTL_DIFFERS
    }

    /// It may have ended meanwhile.
    fn ends(&self) -> bool {
        self.ttl >= 0 && self.ttl() <= TTL_DIFFERS
    }
}

/// A key of the source with its value.
struct Item {
    key: Vec<u8>,
    value: Held,
}

/// Which of the two is asked.
#[derive(Clone, Copy)]
enum Side {
    There,
    Here,
}

impl<'a> Pass<'a> {
    /// The first one: everything is copied.
    pub fn first(node: &'a Arc<Node>, source: &'a Source, feed: &'a Feed) -> Self {
        let now = Instant::now();
        Self { node, source, feed, last: false, began: now, told: now }
    }

    /// The last one: what differs is copied, and what is gone there is deleted.
    pub fn last(node: &'a Arc<Node>, source: &'a Source, feed: &'a Feed) -> Self {
        Self { last: true, ..Self::first(node, source, feed) }
    }

    /// Goes on from `at` to the last key.
    pub async fn run(mut self, at: &mut Reached) -> Result<Difference, Failed> {
        let mut there = self.connect().await?;
        let seen = info(&mut there).await.map_err(|error| self.not_answered(&error))?;
        let mut here = self.node.redis.apart(ANSWER).await.map_err(|e| here(&e))?;
        if at.run_id != seen.run_id() {
            if !at.run_id.is_empty() {
                self.node.book.agent("the source was started anew: its keys are copied again");
            }
            let (run_id, databases) = (seen.run_id().to_owned(), seen.databases());
            *at = Reached { run_id, databases, ..Reached::default() };
        }
        let most = here.in_force("databases").await.map_err(|e| self::here(&e))?;
        let most = most.and_then(|n| n.parse().ok()).unwrap_or(16);
        if let Some(beyond) = at.databases.iter().find(|n| **n >= most) {
            return Err(Failed::Source(format!(
                "{} has a database {beyond}, and redis here has {most} of them; write a larger `databases` in spec.redis.config",
                self.source.spec.address()
            )));
        }
        let here = here.connection;
        let (looked_at, bytes) = (at.looked_at, at.bytes);
        while let Some(&number) = at.databases.first() {
            let mut both = Both { number, there: there.clone(), here: here.clone() };
            self.choose(&mut both).await?;
            loop {
                let mut scan = redis::cmd("SCAN");
                scan.arg(at.cursor).arg("COUNT").arg(KEYS);
                let (next, keys): (u64, Vec<Vec<u8>>) =
                    self.there(scan.query_async(&mut both.there).await)?;
                let count = keys.len() as u64;
                self.copy(&mut both, keys, at).await?;
                (at.cursor, at.looked_at) = (next, at.looked_at + count);
                self.tell(at, (looked_at, bytes), next == 0);
                if next == 0 {
                    break;
                }
            }
            at.databases.remove(0);
        }
        if self.last {
            self.delete(there, here, at).await?;
        }
        Ok(at.found.difference.clone())
    }

    async fn connect(&self) -> Result<MultiplexedConnection, Failed> {
        connect(self.node, self.source, ANSWER).await.map_err(Failed::Source)
    }

    fn not_answered(&self, error: &redis::RedisError) -> Failed {
        Failed::Source(not_answered(self.source, error))
    }

    fn there<T>(&self, answer: RedisResult<T>) -> Result<T, Failed> {
        answer.map_err(|error| self.not_answered(&error))
    }

    async fn choose(&self, both: &mut Both) -> Result<(), Failed> {
        let mut choose = redis::cmd("SELECT");
        choose.arg(both.number);
        self.there(choose.exec_async(&mut both.there).await)?;
        choose.exec_async(&mut both.here).await.map_err(|error| here(&error))
    }

    /// Copies these keys, less those that are the same already.
    async fn copy(
        &mut self,
        both: &mut Both,
        mut keys: Vec<Vec<u8>>,
        at: &mut Reached,
    ) -> Result<(), Failed> {
        let redis = self.node.peek().redis;
        let (used, most) = (redis.used_memory_bytes, redis.health.maxmemory_bytes);
        if most > 0 && used > most {
            return Err(Failed::Source(format!(
                "the data do not fit: redis here has {} MiB of them already, and may have {} MiB (maxmemory); give the nodes more memory in another cluster",
                used >> 20,
                most >> 20
            )));
        }
        once(&mut keys);
        keys.retain(|key| !at.found.is_left(both.number, key));
        if keys.is_empty() {
            return Ok(());
        }
        let sizes = self.sizes(both, &keys).await?;
        let (mut together, mut size) = (Vec::new(), 0);
        for (key, bytes) in keys.into_iter().zip(sizes) {
            // It is gone by now.
            let Some(bytes) = bytes else { continue };
            if bytes > LARGEST {
                let (mib, most) = (bytes >> 20, LARGEST >> 20);
                at.found.left(both.number, &key, &format!("{mib} MiB are more than {most} MiB"));
                continue;
            }
            if size + bytes > TOGETHER && !together.is_empty() {
                self.copy_together(both, std::mem::take(&mut together), size, at).await?;
                size = 0;
            }
            size += bytes;
            together.push(key);
        }
        self.copy_together(both, together, size, at).await
    }

    /// What each key takes in the memory of the source, bytes; none where it is gone. First by a
    /// sample of its elements, which costs nothing however many there are, and then exactly: one large
    /// element among small ones is in no sample.
    async fn sizes(&self, both: &Both, keys: &[Vec<u8>]) -> Result<Vec<Option<u64>>, Failed> {
        let mut there = both.there.clone();
        let mut ask = redis::pipe();
        for key in keys {
            ask.cmd("TYPE").arg(key).cmd("MEMORY").arg("USAGE").arg(key);
        }
        let answers: Vec<redis::Value> = self.there(ask.query_async(&mut there).await)?;
        let (mut sizes, mut sampled, mut ask) = (Vec::new(), Vec::new(), redis::pipe());
        let mut answers = answers.into_iter();
        for (n, key) in keys.iter().enumerate() {
            let (Some(kind), Some(size)) = (answers.next(), answers.next()) else { break };
            let kind: String = self.there(redis::from_redis_value(kind).map_err(Into::into))?;
            let size: Option<u64> =
                self.there(redis::from_redis_value(size).map_err(Into::into))?;
            if kind != "string" && size.is_some_and(|size| size <= LARGEST) {
                sampled.push(n);
                ask.cmd("MEMORY").arg("USAGE").arg(key).arg("SAMPLES").arg(0);
            }
            sizes.push(size);
        }
        if !sampled.is_empty() {
            let exact: Vec<Option<u64>> = self.there(ask.query_async(&mut there).await)?;
            for (n, size) in sampled.into_iter().zip(exact) {
                sizes[n] = size;
            }
        }
        Ok(sizes)
    }

    /// Copies keys whose values take so many bytes in the memory of the source.
    async fn copy_together(
        &mut self,
        both: &mut Both,
        keys: Vec<Vec<u8>>,
        size: u64,
        at: &mut Reached,
    ) -> Result<(), Failed> {
        if keys.is_empty() {
            return Ok(());
        }
        let is_large = size > TOGETHER;
        let names: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        // Of a large value only the digest is kept, before that of the source is read.
        let own = if self.last {
            self.read(both, Side::Here, &names, is_large).await?
        } else {
            Vec::new()
        };
        let values = self.read(both, Side::There, &names, is_large).await?;
        let (mut items, mut owned) = (Vec::with_capacity(keys.len()), Vec::new());
        let mut own = own.into_iter();
        for (key, value) in keys.into_iter().zip(values) {
            let own = own.next().flatten();
            let Some(value) = value else { continue };
            at.bytes += value.body.len();
            if let Kind::Module(name) = &value.kind {
                at.found.left(both.number, &key, &format!("a type of the module {name}"));
                continue;
            }
            items.push(Item { key, value });
            owned.push(own);
        }
        if self.last {
            let differing = self.differing(both, items, owned).await?;
            items = Vec::with_capacity(differing.len());
            for (item, was_there) in differing {
                let found = &mut at.found.difference;
                let count = if was_there { &mut found.changed } else { &mut found.added };
                *count += 1;
                items.push(item);
            }
        }
        if items.is_empty() {
            return Ok(());
        }
        let commands = restores(both.number, &items);
        if self.last {
            for item in &mut items {
                item.value.body.shorten();
            }
        } else {
            items.clear();
        }
        self.feed.send(commands).await?;
        self.feed.applied().await?;
        if self.last {
            let names: Vec<&[u8]> = items.iter().map(|item| item.key.as_slice()).collect();
            let own = self.read(both, Side::Here, &names, is_large).await?;
            for (item, _) in self.differing(both, items, own).await? {
                let why = "redis here does not take it as it is";
                at.found.left(both.number, &item.key, why);
            }
        }
        Ok(())
    }

    /// What these keys are on one side; a large value on a connection of its own, and of one that is
    /// here the digest.
    async fn read(
        &self,
        both: &Both,
        side: Side,
        keys: &[&[u8]],
        is_large: bool,
    ) -> Result<Vec<Option<Held>>, Failed> {
        let mut connection = match (side, is_large) {
            (Side::There, false) => both.there.clone(),
            (Side::Here, false) => both.here.clone(),
            (Side::There, true) => self.connect().await?,
            (Side::Here, true) => {
                self.node.redis.apart(ANSWER).await.map_err(|e| here(&e))?.connection
            }
        };
        let work = async {
            if is_large {
                redis::cmd("SELECT").arg(both.number).exec_async(&mut connection).await?;
            }
            values(&mut connection, keys).await
        };
        let mut values = match side {
            Side::There => self.there(work.await)?,
            Side::Here => work.await.map_err(|error| here(&error))?,
        };
        if is_large && matches!(side, Side::Here) {
            values.iter_mut().flatten().for_each(|value| value.body.shorten());
        }
        Ok(values)
    }

    /// Those that are not the same as what is here, and whether there is such a key.
    async fn differing(
        &self,
        both: &Both,
        items: Vec<Item>,
        own: Vec<Option<Held>>,
    ) -> Result<Vec<(Item, bool)>, Failed> {
        let (mut differing, mut doubtful) = (Vec::new(), Vec::new());
        for (item, own) in items.into_iter().zip(own) {
            match own {
                None if item.value.ends() => {}
                None => differing.push((item, false)),
                Some(own) if !item.value.lives_as_long(&own) => differing.push((item, true)),
                Some(own) if item.value.body.is_same(&own.body) => {}
                Some(own) if item.value.kind == own.kind => doubtful.push(item),
                Some(_) => differing.push((item, true)),
            }
        }
        let looked = futures::stream::iter(doubtful).map(async |item| {
            let kind = item.value.kind.clone();
            let (mut there, mut own) = (both.there.clone(), both.here.clone());
            let there = self.there(digest(&mut there, &item.key, &kind).await)?;
            let own = digest(&mut own, &item.key, &kind).await.map_err(|error| here(&error))?;
            Ok::<_, Failed>((there.is_none() || there != own).then_some((item, true)))
        });
        let looked: Vec<Option<_>> = looked.buffer_unordered(LOOKED_INTO).try_collect().await?;
        differing.extend(looked.into_iter().flatten());
        Ok(differing)
    }

    /// Deletes what the source has no more.
    async fn delete(
        &mut self,
        there: MultiplexedConnection,
        here: MultiplexedConnection,
        at: &mut Reached,
    ) -> Result<(), Failed> {
        let mut session = self.node.redis.open(ANSWER).await.map_err(|e| self::here(&e))?;
        let databases = session.info().await.map_err(|e| self::here(&e))?.databases();
        for number in databases {
            let mut both = Both { number, there: there.clone(), here: here.clone() };
            self.choose(&mut both).await?;
            let mut cursor = 0u64;
            loop {
                let mut scan = redis::cmd("SCAN");
                scan.arg(cursor).arg("COUNT").arg(KEYS);
                let (next, mut keys): (u64, Vec<Vec<u8>>) =
                    scan.query_async(&mut both.here).await.map_err(|error| self::here(&error))?;
                once(&mut keys);
                let mut ask = redis::pipe();
                for key in &keys {
                    ask.cmd("EXISTS").arg(key);
                }
                let exist: Vec<bool> = if keys.is_empty() {
                    Vec::new()
                } else {
                    self.there(ask.query_async(&mut both.there).await)?
                };
                let mut delete = Pipeline::new();
                delete.cmd("SELECT").arg(number);
                let gone: Vec<_> =
                    keys.iter().zip(exist).filter(|(_, exists)| !exists).map(|(k, _)| k).collect();
                if !gone.is_empty() {
                    at.found.difference.gone += gone.len() as u64;
                    delete.cmd("DEL").arg(&gone);
                    self.feed.send(delete.get_packed_pipeline()).await?;
                    // The table shrinks meanwhile, and SCAN names keys again then: not those that
                    // are deleted by now.
                    self.feed.applied().await?;
                }
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Says how far it is.
    fn tell(&mut self, at: &Reached, (keys, bytes): (u64, u64), now: bool) {
        if !now && self.told.elapsed() < TELL {
            return;
        }
        self.told = Instant::now();
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        change(self.node, &self.source.id, |task| {
            let copy = task.copy.get_or_insert_default();
            copy.looked_at = at.looked_at;
            copy.keys_per_second = (at.looked_at - keys) * 1000 / ms;
            copy.bytes_per_second = (at.bytes - bytes) * 1000 / ms;
            copy.difference = at.found.difference.clone();
        });
    }
}

/// Redis here does not answer.
fn here(error: &(dyn std::error::Error + 'static)) -> Failed {
    Failed::Here(Ended(error_chain(error)))
}

/// Each key once: `SCAN` may name one more often.
fn once(keys: &mut Vec<Vec<u8>>) {
    keys.sort_unstable();
    keys.dedup();
}

/// What each key is now; none for one that is not there.
async fn values(
    connection: &mut MultiplexedConnection,
    keys: &[&[u8]],
) -> RedisResult<Vec<Option<Held>>> {
    let mut ask = redis::pipe();
    for key in keys {
        ask.cmd("PTTL").arg(key).cmd("DUMP").arg(key);
    }
    if ask.is_empty() {
        return Ok(Vec::new());
    }
    // Times to live are told when it is asked; the answer may be on its way for long after that.
    let read = Instant::now();
    let answers: Vec<redis::Value> = ask.query_async(connection).await?;
    let (mut answers, mut all) = (answers.into_iter(), Vec::new());
    while let (Some(ttl), Some(dump)) = (answers.next(), answers.next()) {
        let ttl = redis::from_redis_value(ttl)?;
        let dump: Option<Vec<u8>> = redis::from_redis_value(dump)?;
        let held = |dump: Vec<u8>| Held { ttl, read, kind: Kind::of(&dump), body: dump.into() };
        all.push(dump.map(held));
    }
    Ok(all)
}

/// The commands that make these keys what they are in the source.
fn restores(database: u32, items: &[Item]) -> Vec<u8> {
    let mut all = Pipeline::new();
    all.cmd("SELECT").arg(database);
    let now = i64::try_from(UnixMs::now().0).unwrap_or(i64::MAX);
    for item in items {
        let Body::Whole(dump) = &item.value.body else { continue };
        let until = if item.value.ttl < 0 { 0 } else { now + item.value.ttl().max(1) };
        all.cmd("RESTORE").arg(&item.key).arg(until).arg(dump).arg("REPLACE");
        if until > 0 {
            all.arg("ABSTTL");
        }
    }
    all.get_packed_pipeline()
}
