//! Whether two values are the same, whatever they look like when they are serialized. Redis writes
//! down sets and hashes in an order that differs from process to process, and versions write the same
//! value in different ways.

use std::collections::HashMap;

use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value};
use sha2::{Digest as _, Sha256};

/// What a command says of itself, by name.
type Fields = HashMap<String, Value>;

/// Of a value that has an order, so many elements are read at once, and so many bytes of a text.
const ELEMENTS: usize = 1 << 14;
const TEXT: usize = 8 << 20;
/// Behind the value itself: a version of two bytes, and a checksum of eight.
const FOOTER: usize = 10;

/// What a value is, by the first byte of what `DUMP` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    String,
    List,
    Set,
    SortedSet,
    /// With fields that have a time to live of their own.
    Hash {
        expires: bool,
    },
    Stream,
    /// A type of this module.
    Module(String),
    Unknown,
}

impl Kind {
    /// Reads it.
    pub fn of(dump: &[u8]) -> Self {
        match dump.first() {
            Some(0) => Self::String,
            Some(1 | 10 | 14 | 18) => Self::List,
            Some(2 | 11 | 20) => Self::Set,
            Some(3 | 5 | 12 | 17) => Self::SortedSet,
            Some(4 | 9 | 13 | 16) => Self::Hash { expires: false },
            Some(22..=25) => Self::Hash { expires: true },
            Some(15 | 19 | 21) => Self::Stream,
            Some(6 | 7) => Self::Module(module(&dump[1..])),
            _ => Self::Unknown,
        }
    }
}

/// Name of the type of a module: nine letters of six bits each, in a number of 64 bits.
fn module(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let Some(number) = length(bytes) else { return "unknown".to_owned() };
    (0..9).map(|n| char::from(LETTERS[((number >> (58 - 6 * n)) & 63) as usize])).collect()
}

/// A length as snapshots have it.
fn length(bytes: &[u8]) -> Option<u64> {
    let rest = |n: usize| bytes.get(1..=n);
    Some(match bytes.first()? {
        0x81 => u64::from_be_bytes(rest(8)?.try_into().ok()?),
        0x80 => u32::from_be_bytes(rest(4)?.try_into().ok()?).into(),
        first if first >> 6 == 1 => (u64::from(first & 63) << 8) | u64::from(*bytes.get(1)?),
        first if first >> 6 == 0 => u64::from(first & 63),
        _ => return None,
    })
}

/// A value as `DUMP` answers, or the digest of that.
pub(super) enum Body {
    Whole(Vec<u8>),
    Digest { len: u64, sha256: [u8; 32] },
}

impl From<Vec<u8>> for Body {
    fn from(dump: Vec<u8>) -> Self {
        Self::Whole(dump)
    }
}

impl Body {
    /// Bytes of the answer.
    pub fn len(&self) -> u64 {
        match self {
            Self::Whole(dump) => dump.len() as u64,
            Self::Digest { len, .. } => *len,
        }
    }

    /// Keeps the digest alone.
    pub fn shorten(&mut self) {
        *self = Self::Digest { len: self.len(), sha256: self.sha256() };
    }

    /// The same value, byte by byte.
    pub fn is_same(&self, other: &Self) -> bool {
        let whole = self.len() == other.len() && self.len() > FOOTER as u64;
        whole
            && match (self, other) {
                (Self::Whole(one), Self::Whole(other)) => body(one) == body(other),
                _ => self.sha256() == other.sha256(),
            }
    }

    fn sha256(&self) -> [u8; 32] {
        match self {
            Self::Whole(dump) => Sha256::digest(body(dump)).into(),
            Self::Digest { sha256, .. } => *sha256,
        }
    }
}

/// The value, without what is behind it.
fn body(dump: &[u8]) -> &[u8] {
    &dump[..dump.len().saturating_sub(FOOTER)]
}

/// A digest of a value that two servers agree on; none where it is of a type that is not known here.
/// The whole value is read, a window at a time where its type has an order.
pub(super) async fn digest(
    connection: &mut MultiplexedConnection,
    key: &[u8],
    kind: &Kind,
) -> RedisResult<Option<[u8; 32]>> {
    let mut sum = Sum::default();
    match kind {
        Kind::String => windows(connection, key, "GETRANGE", &mut sum).await?,
        Kind::List => windows(connection, key, "LRANGE", &mut sum).await?,
        Kind::SortedSet => windows(connection, key, "ZRANGE", &mut sum).await?,
        Kind::Set => {
            let mut ask = redis::cmd("SMEMBERS");
            let mut all: Vec<Vec<u8>> = ask.arg(key).query_async(connection).await?;
            all.sort_unstable();
            for member in &all {
                sum.add(member);
            }
        }
        Kind::Hash { expires } => hash(connection, key, *expires, &mut sum).await?,
        Kind::Stream => stream(connection, key, &mut sum).await?,
        Kind::Module(_) | Kind::Unknown => return Ok(None),
    }
    Ok(Some(sum.0.finalize().into()))
}

/// What a value consists of, in order.
#[derive(Default)]
struct Sum(Sha256);

impl Sum {
    fn add(&mut self, part: &[u8]) {
        self.0.update((part.len() as u64).to_be_bytes());
        self.0.update(part);
    }
}

/// A value that has an order, by the command that reads a part of it.
async fn windows(
    connection: &mut MultiplexedConnection,
    key: &[u8],
    verb: &str,
    sum: &mut Sum,
) -> RedisResult<()> {
    let (is_text, has_scores) = (verb == "GETRANGE", verb == "ZRANGE");
    let step = if is_text { TEXT } else { ELEMENTS };
    let mut first = 0;
    loop {
        let mut ask = redis::cmd(verb);
        ask.arg(key).arg(first).arg(first + step - 1);
        if has_scores {
            ask.arg("WITHSCORES");
        }
        let mut all: Vec<Vec<u8>> = if is_text {
            vec![ask.query_async(connection).await?]
        } else {
            ask.query_async(connection).await?
        };
        for score in all.iter_mut().skip(1).step_by(2).filter(|_| has_scores) {
            // How a number is written differs between versions.
            let number = String::from_utf8_lossy(score).parse::<f64>();
            *score = number.map_or(score.clone(), |n| n.to_bits().to_be_bytes().to_vec());
        }
        for part in &all {
            sum.add(part);
        }
        let got = if is_text { all[0].len() } else { all.len() / if has_scores { 2 } else { 1 } };
        if got < step {
            return Ok(());
        }
        first += step;
    }
}

async fn hash(
    connection: &mut MultiplexedConnection,
    key: &[u8],
    expires: bool,
    sum: &mut Sum,
) -> RedisResult<()> {
    let all: Vec<(Vec<u8>, Vec<u8>)> =
        redis::cmd("HGETALL").arg(key).query_async(connection).await?;
    let mut times = vec![0i64; all.len()];
    if expires && !all.is_empty() {
        let mut ask = redis::cmd("HPEXPIRETIME");
        ask.arg(key).arg("FIELDS").arg(all.len());
        for (field, _) in &all {
            ask.arg(field);
        }
        times = ask.query_async(connection).await?;
    }
    let mut all: Vec<_> = all.into_iter().zip(times).collect();
    all.sort_unstable();
    for ((field, value), at) in &all {
        sum.add(field);
        sum.add(value);
        sum.add(&at.to_be_bytes());
    }
    Ok(())
}

/// Entries, and the groups with what they have not acknowledged. Since when that is, is left out.
async fn stream(
    connection: &mut MultiplexedConnection,
    key: &[u8],
    sum: &mut Sum,
) -> RedisResult<()> {
    let said = |value: &Value| format!("{value:?}").into_bytes();
    let mut from = "-".to_owned();
    loop {
        let mut ask = redis::cmd("XRANGE");
        ask.arg(key).arg(&from).arg("+").arg("COUNT").arg(ELEMENTS);
        let entries: Vec<(String, Value)> = ask.query_async(connection).await?;
        for (id, entry) in &entries {
            sum.add(id.as_bytes());
            sum.add(&said(entry));
        }
        match entries.last().and_then(|(id, _)| after(id)) {
            Some(next) if entries.len() == ELEMENTS => from = next,
            _ => break,
        }
    }
    let info: Fields = redis::cmd("XINFO").arg("STREAM").arg(key).query_async(connection).await?;
    let groups: Vec<Fields> =
        redis::cmd("XINFO").arg("GROUPS").arg(key).query_async(connection).await?;
    let of = |fields: &Fields, name: &str| fields.get(name).map(said).unwrap_or_default();
    sum.add(&of(&info, "last-generated-id"));
    for group in groups {
        for name in ["name", "consumers", "pending", "last-delivered-id"] {
            sum.add(&of(&group, name));
        }
        let Some(Value::BulkString(name)) = group.get("name") else { continue };
        let mut from = "-".to_owned();
        loop {
            let mut ask = redis::cmd("XPENDING");
            ask.arg(key).arg(name).arg(&from).arg("+").arg(ELEMENTS);
            let pending: Vec<(String, Vec<u8>, i64, i64)> = ask.query_async(connection).await?;
            for (id, consumer, _, deliveries) in &pending {
                sum.add(id.as_bytes());
                sum.add(consumer);
                sum.add(&deliveries.to_be_bytes());
            }
            match pending.last().and_then(|(id, ..)| after(id)) {
                Some(next) if pending.len() == ELEMENTS => from = next,
                _ => break,
            }
        }
    }
    Ok(())
}

/// The first id of a stream after this one.
fn after(id: &str) -> Option<String> {
    let (ms, sequence) = id.split_once('-')?;
    match sequence.parse::<u64>().ok()?.checked_add(1) {
        Some(next) => Some(format!("{ms}-{next}")),
        None => Some(format!("{}-0", ms.parse::<u64>().ok()?.checked_add(1)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_of_a_module_is_known_by_its_name() {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let number = b"ReJSON-RL".iter().fold(0u64, |number, letter| {
            (number << 6) | LETTERS.iter().position(|l| l == letter).unwrap() as u64
        });
        let mut dump = vec![7, 0x81];
        dump.extend(((number << 10) | 3).to_be_bytes());
        assert_eq!(Kind::of(&dump), Kind::Module("ReJSON-RL".into()));
        assert_eq!(Kind::of(&[7]), Kind::Module("unknown".into()));
        assert_eq!(Kind::of(&[]), Kind::Unknown);
    }

    #[test]
    fn what_comes_after_an_id_of_a_stream() {
        assert_eq!(after("7-1").as_deref(), Some("7-2"));
        assert_eq!(after("7-18446744073709551615").as_deref(), Some("8-0"));
        assert_eq!(after("18446744073709551615-18446744073709551615"), None);
    }

    #[test]
    fn the_version_behind_a_value_is_no_part_of_it() {
        let dump =
            |value: &str, version: u8| [value.as_bytes(), &[version, 0], &[version; 8]].concat();
        for shortened in [false, true] {
            let same = |one: Vec<u8>, other: Vec<u8>| {
                let (mut one, other) = (Body::from(one), Body::from(other));
                if shortened {
                    one.shorten();
                }
                one.is_same(&other)
            };
            assert!(same(dump("0abc", 9), dump("0abc", 11)));
            assert!(!same(dump("0abc", 9), dump("0abd", 9)));
            assert!(!same(Vec::new(), Vec::new()));
        }
    }
}
