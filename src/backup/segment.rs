//! One object of the archived log: a line of JSON that says what follows, and the bytes of the
//! stream of replication, compressed and encrypted as a backup is ([`super::format`]), with the key of
//! its run. The line repeats the object's name and place: one that was put somewhere else is noticed.

use std::io::{self, BufRead as _, Read as _, Write as _};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::format::{BackupKey, Decryptor, Encryptor};
use super::stream::{LEVEL, unpacker};
use crate::model::archive::Segment;
use crate::model::backup::FORMAT;
use crate::model::time::UnixMs;

/// A segment holds no more of the stream, bytes.
pub const LARGEST: usize = 8 * 1024 * 1024;
/// Its object is no larger: what cannot be compressed grows a little.
pub const LARGEST_OBJECT: usize = LARGEST + LONGEST_LINE + 1024 * 1024;
/// The line at its beginning is no longer, bytes.
const LONGEST_LINE: usize = 1024 * 1024;

/// At this time all bytes before this offset had been received.
pub type Mark = (u64, i64);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: u32,
    cluster: String,
    uid: String,
    name: String,
    marks: Vec<Mark>,
}

/// A segment as it is in memory.
#[derive(Clone, Debug)]
pub struct Opened {
    /// When which bytes had been received, in order.
    pub marks: Vec<Mark>,
    /// The bytes.
    pub bytes: Bytes,
}

impl Opened {
    /// How much of it had been received at `to`: the offset after that, and whether more came later.
    #[must_use]
    pub fn received(&self, segment: &Segment, to: UnixMs) -> (Option<i64>, bool) {
        let begins = (segment.from.0, segment.first);
        let marks = || std::iter::once(&begins).chain(&self.marks);
        let there = marks().take_while(|(ms, _)| *ms <= to.0).last().map(|(_, next)| *next);
        (there, marks().any(|(ms, _)| *ms > to.0))
    }
}

/// The bytes of its object.
///
/// # Errors
/// It is larger than a segment may be.
pub fn sealed(
    segment: &Segment,
    cluster: &str,
    key: &BackupKey,
    opened: &Opened,
) -> io::Result<Bytes> {
    let header = Header {
        format: FORMAT,
        cluster: cluster.to_owned(),
        uid: segment.uid.clone(),
        name: segment.name(),
        marks: opened.marks.clone(),
    };
    let line = serde_json::to_string(&header).map_err(io::Error::other)?;
    if line.len() >= LONGEST_LINE || opened.bytes.len() > LARGEST {
        return Err(io::Error::other("internal error: a segment of the log is too large"));
    }
    let mut packer = zstd::Encoder::new(Encryptor::new(Vec::new(), &segment.run, key)?, LEVEL)?;
    packer.include_checksum(true)?;
    packer.write_all(line.as_bytes())?;
    packer.write_all(b"\n")?;
    packer.write_all(&opened.bytes)?;
    Ok(packer.finish()?.finish()?.into())
}

/// Reads an object.
///
/// # Errors
/// It is not that segment, or damaged.
pub fn opened(
    segment: &Segment,
    cluster: &str,
    key: &BackupKey,
    object: &[u8],
) -> io::Result<Opened> {
    let damaged = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let mut inner = Decryptor::new(object)?;
    if inner.id() != segment.run {
        return Err(damaged("it is of another run: it was moved there"));
    }
    inner.unlock(key);
    let mut from = io::BufReader::new(unpacker(inner)?);
    let mut line = Vec::new();
    from.by_ref().take(LONGEST_LINE as u64).read_until(b'\n', &mut line)?;
    let header: Header = serde_json::from_slice(&line).map_err(|_| damaged("it has no header"))?;
    let place = (header.cluster.as_str(), &header.uid, &header.name);
    if header.format != FORMAT || place != (cluster, &segment.uid, &segment.name()) {
        return Err(damaged("it is another segment: it was moved there"));
    }
    let mut bytes = Vec::new();
    from.take(LARGEST as u64 + 1).read_to_end(&mut bytes)?;
    if i64::try_from(bytes.len()).ok() != segment.end.checked_sub(segment.first) {
        return Err(damaged("it has another length than its name says"));
    }
    let inside = |(_, next): &Mark| (segment.first..=segment.end).contains(next);
    if !header.marks.iter().all(inside) || !header.marks.is_sorted() {
        return Err(damaged("its marks are none"));
    }
    Ok(Opened { marks: header.marks, bytes: bytes.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> BackupKey {
        BackupKey([byte; 32])
    }

    fn segment() -> Segment {
        Segment {
            uid: "u".into(),
            run: "20261126T030000Z-x7k2".into(),
            from: UnixMs(1000),
            until: UnixMs(3000),
            first: 10,
            end: 40,
            asked: "a".repeat(40),
            replid: "a".repeat(40),
            common: 40,
        }
    }

    fn content() -> Opened {
        Opened { marks: vec![(1500, 20), (3000, 40)], bytes: vec![b'x'; 30].into() }
    }

    #[test]
    fn what_is_sealed_opens_again_and_nothing_of_it_can_be_read() {
        let object = sealed(&segment(), "cache", &key(1), &content()).unwrap();
        assert!(!object.windows(5).any(|w| w == b"xxxxx" || w == b"marks"));
        let back = opened(&segment(), "cache", &key(1), &object).unwrap();
        assert_eq!((back.marks, back.bytes), (content().marks, content().bytes));
    }

    #[test]
    fn another_place_another_key_and_a_changed_byte_are_noticed() {
        let object = sealed(&segment(), "cache", &key(1), &content()).unwrap();
        let says = |segment: &Segment, cluster: &str, with: u8, object: &[u8], what: &str| {
            let why = opened(segment, cluster, &key(with), object).unwrap_err().to_string();
            assert!(why.contains(what), "{why}");
        };
        says(&segment(), "cache", 2, &object, "cannot be decrypted");
        says(&segment(), "other", 1, &object, "moved there");
        says(&Segment { first: 11, ..segment() }, "cache", 1, &object, "moved there");
        says(&Segment { run: "r2".into(), ..segment() }, "cache", 1, &object, "another run");
        let mut touched = object.to_vec();
        let middle = touched.len() / 2;
        touched[middle] ^= 1;
        says(&segment(), "cache", 1, &touched, "cannot be decrypted");
        says(&segment(), "cache", 1, &object[..object.len() - 3], "cannot be decrypted");
        says(&segment(), "cache", 1, b"", "no encrypted backup");
    }

    #[test]
    fn marks_say_how_much_had_been_received_at_a_time() {
        let received = |ms| content().received(&segment(), UnixMs(ms));
        assert_eq!(received(999), (None, true), "it begins later");
        assert_eq!(received(1000), (Some(10), true));
        assert_eq!(received(1500), (Some(20), true));
        assert_eq!(received(2999), (Some(20), true));
        assert_eq!(received(3000), (Some(40), false));
    }
}
