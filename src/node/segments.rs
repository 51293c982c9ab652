//! Cuts the stream of replication into segments: which bytes go into which one, and when they came. It
//! reads no clock and stores nothing.

use std::time::Duration;

use tokio::time::Instant;

use crate::backup::segment::{Mark, Opened};
use crate::model::archive::Segment;
use crate::model::time::UnixMs;

/// A segment is cut so long after its first write: with the time that a storage takes, no write is
/// older than 5 s before it is stored.
const CUT_AFTER: Duration = Duration::from_secs(2);
/// One without a write, so that the time up to which there is none is known.
const CUT_IDLE_AFTER: Duration = Duration::from_mins(1);
/// And when it has so many bytes.
const CUT_BYTES: usize = 4 * 1024 * 1024;
/// Times are noted so far apart at least, milliseconds.
const MARKS: u64 = 100;
/// What a master sends each second.
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// When a write came, by the clock and as time that passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Came {
    pub at: UnixMs,
    pub since: Instant,
}

impl Came {
    /// This moment.
    pub fn now() -> Self {
        Self { at: UnixMs::now(), since: Instant::now() }
    }
}

/// In which history the stream goes on.
pub(super) struct History {
    pub asked: String,
    pub replid: String,
    pub common: i64,
}

/// A segment that is whole.
pub(super) struct Cut {
    pub segment: Segment,
    pub opened: Opened,
    /// Its first write; none where it has none.
    pub writes: Option<Came>,
}

/// A segment that is being filled.
struct Open {
    segment: Segment,
    marks: Vec<Mark>,
    /// When the last of them was begun.
    marked: u64,
    bytes: Vec<u8>,
    began: Instant,
    writes: Option<Came>,
}

/// The stream of one run.
pub(super) struct Cutter {
    uid: String,
    run: String,
    /// Everything before this offset of this history is in a segment; none at the beginning.
    pub place: Option<(String, i64)>,
    /// When something was received last.
    pub last: UnixMs,
    pub history: Option<History>,
    /// A segment was cut.
    pub begun: bool,
    open: Option<Open>,
}

impl Cutter {
    /// Goes on at that place.
    pub fn new(uid: &str, run: &str, place: Option<(String, i64)>) -> Self {
        let (uid, run) = (uid.to_owned(), run.to_owned());
        Self { uid, run, place, last: UnixMs::default(), history: None, begun: false, open: None }
    }

    /// The open segment is of another history than this one.
    pub fn is_of_another(&self, replid: &str) -> bool {
        self.open.as_ref().is_some_and(|open| open.segment.replid != replid)
    }

    /// Takes what came; whether it has the first write of its segment.
    pub fn take(&mut self, bytes: &[u8], came: Came) -> bool {
        let now = came.at.max(self.last);
        let Some((place, next)) = &mut self.place else { return false };
        let Some(history) = &mut self.history else { return false };
        let open = self.open.get_or_insert_with(|| Open {
            segment: Segment {
                uid: self.uid.clone(),
                run: self.run.clone(),
                from: self.last,
                until: self.last,
                first: *next,
                end: *next,
                asked: std::mem::replace(&mut history.asked, history.replid.clone()),
                replid: history.replid.clone(),
                common: std::mem::replace(&mut history.common, i64::MAX),
            },
            marks: Vec::new(),
            marked: 0,
            bytes: Vec::new(),
            began: came.since,
            writes: None,
        });
        place.clone_from(&history.replid);
        let first = open.writes.is_none() && !is_pings(open.bytes.len(), bytes);
        if first {
            open.writes = Some(Came { at: now, ..came });
        }
        open.bytes.extend_from_slice(bytes);
        *next += i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        (open.segment.end, open.segment.until, self.last) = (*next, now, now);
        let mark = (now.0, *next);
        if let Some(last) = open.marks.last_mut().filter(|_| now.0 < open.marked + MARKS) {
            *last = mark;
        } else {
            open.marked = now.0;
            open.marks.push(mark);
        }
        first
    }

    /// When the open segment is to be cut; none while there is none.
    pub fn due(&self) -> Option<Instant> {
        let open = self.open.as_ref()?;
        if open.bytes.len() >= CUT_BYTES {
            return Some(open.began);
        }
        // The first one says where the log begins.
        let idle = open.began + if self.begun { CUT_IDLE_AFTER } else { CUT_AFTER };
        Some(open.writes.map_or(idle, |writes| idle.min(writes.since + CUT_AFTER)))
    }

    /// Ends the open segment.
    pub fn cut(&mut self) -> Option<Cut> {
        let Open { segment, marks, bytes, writes, .. } = self.open.take()?;
        self.begun = true;
        Some(Cut { segment, opened: Opened { marks, bytes: bytes.into() }, writes })
    }
}

/// Whether `bytes` go on with pings, and nothing else, after so many bytes of them.
fn is_pings(after: usize, bytes: &[u8]) -> bool {
    bytes.iter().zip(after..).all(|(byte, at)| *byte == PING[at % PING.len()])
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _};

    use super::*;

    #[test]
    fn pings_are_no_writes_wherever_they_are_cut() {
        let twice = PING.repeat(2);
        assert!(is_pings(0, &twice));
        assert!(is_pings(5, &twice[5..]));
        assert!(!is_pings(0, &twice[5..]));
        assert!(!is_pings(0, b"*1\r\n$4\r\nEXEC\r\n"));
    }

    /// A stream of a history that begins at offset 1.
    pub fn stream() -> Cutter {
        let mut cutter = Cutter::new("u", "r", Some(("h".into(), 1)));
        let (asked, replid) = ("h".to_owned(), "h".to_owned());
        cutter.history = Some(History { asked, replid, common: i64::MAX });
        cutter.last = UnixMs(1_000_000);
        cutter
    }

    /// Whatever comes, and whenever: each byte is in one segment, at its place, and no segment waits
    /// for more than 2 s after its first write.
    #[test]
    fn a_segment_is_due_two_seconds_after_its_first_write_and_none_has_a_gap() {
        for seed in 0..20 {
            let mut random = rand::rngs::StdRng::seed_from_u64(seed);
            let (mut cutter, start) = (stream(), Instant::now());
            let (mut passed, mut sent) = (Duration::ZERO, Vec::new());
            // The first write that is in no segment yet; the segments.
            let (mut waits, mut cuts) = (None::<Instant>, Vec::<Cut>::new());
            for _ in 0..300 {
                passed += Duration::from_millis(random.gen_range(0..1500));
                let now = start + passed;
                if let Some(due) = cutter.due().filter(|due| *due <= now) {
                    if let Some(waits) = waits.take() {
                        assert!(due <= waits + CUT_AFTER, "seed {seed}");
                    }
                    cuts.push(cutter.cut().unwrap());
                }
                let large = random.gen_range(0..20) == 0;
                let bytes = match random.gen_range(0..3) {
                    0 => PING.to_vec(),
                    _ if large => vec![b'l'; 1024 * 1024],
                    _ => vec![b'w'; random.gen_range(1..200)],
                };
                // A ping that follows a part of one looks like a write, which is cut too early at most.
                let at = UnixMs(1_000_000 + u64::try_from(passed.as_millis()).unwrap());
                if cutter.take(&bytes, Came { at, since: now }) {
                    waits = Some(now);
                }
                sent.extend_from_slice(&bytes);
            }
            cuts.extend(cutter.cut());
            let mut next = 1;
            for cut in &cuts {
                let Segment { first, end, from, until, .. } = &cut.segment;
                assert_eq!(*first, next, "seed {seed}");
                assert_eq!(end - first, i64::try_from(cut.opened.bytes.len()).unwrap());
                assert!(from <= until && cut.opened.marks.last() == Some(&(until.0, *end)));
                next = *end;
            }
            let all: Vec<&[u8]> = cuts.iter().map(|cut| &cut.opened.bytes[..]).collect();
            assert!(all.concat() == sent, "seed {seed}");
        }
    }

    #[test]
    fn a_segment_without_a_write_waits_a_minute_and_a_large_one_does_not_wait() {
        let (mut cutter, now) = (stream(), Instant::now());
        let came = |since| Came { at: UnixMs(1_000_000), since };
        assert!(!cutter.take(PING, came(now)));
        assert_eq!(cutter.due(), Some(now + CUT_AFTER), "the first says where the log begins");
        cutter.cut().unwrap();
        assert!(cutter.due().is_none() && !cutter.take(PING, came(now)));
        assert_eq!(cutter.due(), Some(now + CUT_IDLE_AFTER));
        assert!(cutter.take(&vec![0; CUT_BYTES], came(now)));
        assert_eq!(cutter.due(), Some(now));
    }
}
