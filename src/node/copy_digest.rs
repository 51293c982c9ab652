//! Whether two values are the same, whatever they look like when they are serialized. Redis writes
//! down sets and hashes in an order that differs from process to process, and versions write the same
//! value in different ways.

use std::collections::HashMap;

use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value};
use sha2::{Digest as _, Sha256};

/// What a command says of itself, by name.
type Fields = HashMap<String, Value>;

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

/// Two answers of `DUMP` are the same value, byte by byte.
pub(super) fn same_bytes(one: &[u8], other: &[u8]) -> bool {
    let body = |dump: &[u8]| dump.len().saturating_sub(FOOTER);
    one.len() > FOOTER && one[..body(one)] == other[..body(other)]
}

/// A digest of a value that two servers agree on; none where it is of a type that is not known here.
/// The whole value is read.
pub(super) async fn digest(
    connection: &mut MultiplexedConnection,
    key: &[u8],
    kind: &Kind,
) -> RedisResult<Option<[u8; 32]>> {
    let mut ask = async |words: &[&str]| -> RedisResult<Value> {
        let mut command = redis::cmd(words[0]);
        command.arg(key).arg(&words[1..]);
        command.query_async(connection).await
    };
    let parts: Vec<Vec<u8>> = match kind {
        Kind::String => texts(ask(&["GET"]).await?)?,
        Kind::List => texts(ask(&["LRANGE", "0", "-1"]).await?)?,
        Kind::Set => {
            let mut all = texts(ask(&["SMEMBERS"]).await?)?;
            all.sort();
            all
        }
        Kind::SortedSet => {
            let mut all = texts(ask(&["ZRANGE", "0", "-1", "WITHSCORES"]).await?)?;
            // How a number is written differs between versions.
            for score in all.iter_mut().skip(1).step_by(2) {
                let number = String::from_utf8_lossy(score).parse::<f64>();
                *score = number.map_or(score.clone(), |n| n.to_bits().to_be_bytes().to_vec());
            }
            all
        }
        Kind::Hash { expires } => hash(connection, key, *expires).await?,
        Kind::Stream => stream(connection, key).await?,
        Kind::Module(_) | Kind::Unknown => return Ok(None),
    };
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(&part);
    }
    Ok(Some(digest.finalize().into()))
}

fn texts(value: Value) -> RedisResult<Vec<Vec<u8>>> {
    match value {
        Value::Nil => Ok(Vec::new()),
        Value::BulkString(bytes) => Ok(vec![bytes]),
        all => Ok(redis::from_redis_value(all)?),
    }
}

async fn hash(
    connection: &mut MultiplexedConnection,
    key: &[u8],
    expires: bool,
) -> RedisResult<Vec<Vec<u8>>> {
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
    all.sort();
    let parts = all.into_iter();
    Ok(parts.flat_map(|((field, value), at)| [field, value, at.to_be_bytes().to_vec()]).collect())
}

/// Entries, and the groups with what they have not acknowledged. Since when that is, is left out.
async fn stream(connection: &mut MultiplexedConnection, key: &[u8]) -> RedisResult<Vec<Vec<u8>>> {
    let said = |value: &Value| format!("{value:?}").into_bytes();
    let entries: Value =
        redis::cmd("XRANGE").arg(key).arg("-").arg("+").query_async(connection).await?;
    let info: Fields = redis::cmd("XINFO").arg("STREAM").arg(key).query_async(connection).await?;
    let groups: Vec<Fields> =
        redis::cmd("XINFO").arg("GROUPS").arg(key).query_async(connection).await?;
    let of = |fields: &Fields, name: &str| fields.get(name).map(said).unwrap_or_default();
    let mut parts = vec![said(&entries), of(&info, "last-generated-id")];
    for group in groups {
        let names = ["name", "consumers", "pending", "last-delivered-id"];
        parts.extend(names.map(|name| of(&group, name)));
        let Some(Value::BulkString(name)) = group.get("name") else { continue };
        let Some(Value::Int(count)) = group.get("pending").filter(|n| **n != Value::Int(0)) else {
            continue;
        };
        let mut ask = redis::cmd("XPENDING");
        ask.arg(key).arg(name).arg("-").arg("+").arg(*count);
        let pending: Vec<(Vec<u8>, Vec<u8>, i64, i64)> = ask.query_async(connection).await?;
        for (id, consumer, _, deliveries) in pending {
            parts.extend([id, consumer, deliveries.to_be_bytes().to_vec()]);
        }
    }
    Ok(parts)
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
    fn the_version_behind_a_value_is_no_part_of_it() {
        let dump =
            |value: &str, version: u8| [value.as_bytes(), &[version, 0], &[version; 8]].concat();
        assert!(same_bytes(&dump("0abc", 9), &dump("0abc", 11)));
        assert!(!same_bytes(&dump("0abc", 9), &dump("0abd", 9)));
        assert!(!same_bytes(&[], &[]));
    }
}
