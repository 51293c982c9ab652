//! The archived log of writes: which bytes of which history lie in the storage, and how a later
//! moment is reached from a backup. A backup is a position in that history, and the log goes on from
//! there.

use serde::{Deserialize, Serialize};

use super::backup::TaskPhase;
use super::ids::IncarnationName;
use super::time::UnixMs;

/// End of the name of a segment.
const ENDS: &str = ".log";

/// A piece of the log, without a gap: one object in the storage, or neighbours of one run together.
///
/// Offsets are those of Redis: `first` is the offset of its first byte, `end` that of the byte after
/// its last one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Uid of the cluster.
    pub uid: String,
    /// The run that stored it: a node archives in one run as long as it can.
    pub run: String,
    /// At this time all bytes before `first` had been received, by the clock of the node.
    pub from: UnixMs,
    /// And at this time all bytes before `end`.
    pub until: UnixMs,
    /// Offset of the first byte.
    pub first: i64,
    /// Offset after the last one.
    pub end: i64,
    /// The history in which everything before `first` was received.
    pub asked: String,
    /// The history that it is of: another one than `asked` after a promotion.
    pub replid: String,
    /// Up to this offset both are the same.
    pub common: i64,
}

impl Segment {
    /// Name of its object below that of its run: the order of names is that of time.
    #[must_use]
    pub fn name(&self) -> String {
        let Self { from, until, first, end, common, asked, replid, .. } = self;
        let (from, until) = (from.0, until.0);
        format!("{from:014}-{until:014}-{first:019}-{end:019}-{common:019}-{asked}-{replid}{ENDS}")
    }

    /// Reads a name; `None` when it is something else.
    #[must_use]
    pub fn read(uid: &str, run: &str, name: &str) -> Option<Self> {
        let parts: Vec<&str> = name.strip_suffix(ENDS)?.split('-').collect();
        let [from, until, first, end, common, asked, replid] = parts[..] else { return None };
        let found = Self {
            uid: uid.to_owned(),
            run: run.to_owned(),
            from: UnixMs(from.parse().ok()?),
            until: UnixMs(until.parse().ok()?),
            first: first.parse().ok()?,
            end: end.parse().ok()?,
            asked: asked.to_owned(),
            replid: replid.to_owned(),
            common: common.parse().ok()?,
        };
        (found.name() == name && found.first < found.end).then_some(found)
    }

    /// Whether it has what follows in the history `replid` after everything before `next`, or ends
    /// right there.
    fn goes_on(&self, replid: &str, next: i64) -> bool {
        let own = self.replid == replid;
        let before = self.asked == replid && next <= self.common;
        (own || before) && self.first <= next && next <= self.end
    }
}

/// Neighbours of one run as one, in the order of runs and time.
#[must_use]
pub fn joined(mut segments: Vec<Segment>) -> Vec<Segment> {
    segments.sort_by(|a, b| (&a.uid, &a.run, a.first).cmp(&(&b.uid, &b.run, b.first)));
    let mut all: Vec<Segment> = Vec::new();
    for next in segments {
        match all.last_mut() {
            Some(last) if follows(last, &next) => {
                (last.end, last.until) = (next.end, next.until);
            }
            _ => all.push(next),
        }
    }
    all
}

fn follows(last: &Segment, next: &Segment) -> bool {
    let same = (&last.uid, &last.run, &last.replid) == (&next.uid, &next.run, &next.replid);
    same && next.asked == next.replid && last.end == next.first
}

/// What of a run is to be replayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// The run.
    pub run: String,
    /// From this offset on.
    pub first: i64,
    /// To the one before this; [`Part::OPEN`]: as far as there is something.
    pub end: i64,
}

impl Part {
    /// As far as there is something.
    pub const OPEN: i64 = i64::MAX;
}

/// The way from a position through the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What is to be replayed, in this order; nothing where the log ends at the position.
    pub parts: Vec<Part>,
    /// It reaches this time.
    pub until: UnixMs,
}

/// How far the log goes on from the position at which everything before `next` of the history
/// `replid` is known; `None` when it does not go on from there.
///
/// Where several runs have the same bytes, the later one is followed: a node that went on archiving
/// after another one took over may have what was lost in a failover.
#[must_use]
pub fn route(log: &[Segment], uid: &str, replid: &str, next: i64) -> Option<Route> {
    let own: Vec<&Segment> = log.iter().filter(|s| s.uid == uid).collect();
    let (mut at, mut id) = (next, replid);
    let (mut parts, mut until) = (Vec::new(), None);
    loop {
        let here = own.iter().filter(|s| s.goes_on(id, at));
        let Some(best) = here.filter(|s| at < s.end).max_by_key(|s| (&s.run, s.end)) else { break };
        let taken_over = |s: &&&Segment| {
            s.run > best.run && s.asked == best.replid && at < s.first && s.first < best.end
        };
        let end = own.iter().filter(taken_over).map(|s| s.first).min().unwrap_or(best.end);
        parts.push(Part { run: best.run.clone(), first: at, end });
        (at, id, until) = (end, &best.replid, Some(best.until));
    }
    let there = || own.iter().filter(|s| s.goes_on(replid, next)).map(|s| s.until).max();
    Some(Route { parts, until: until.or_else(there)? })
}

/// A moment that can be restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Point {
    /// The backup that it begins with.
    pub backup: String,
    /// Uid of the cluster that both are of.
    pub uid: String,
    /// What is replayed after it.
    pub parts: Vec<Part>,
    /// The moment.
    pub at: UnixMs,
}

/// How far the archiving of the log is on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveTask {
    /// The run; empty when none was asked for since the agent started.
    pub run: String,
    /// Whether it runs.
    pub phase: TaskPhase,
    /// It did not go on from what was archived before: a backup that is older than this run is
    /// nothing that the log goes on from.
    pub fresh: bool,
    /// Everything before this offset is stored; 0 before the first segment.
    pub stored: i64,
    /// The oldest write that is not stored, by the clock of the node; 0 while all that are older
    /// than a few seconds are.
    pub behind_since: UnixMs,
    /// This node does not have what follows what is archived: another one may.
    pub gap: bool,
    /// Why it failed, or what the storage says while it is behind; one sentence.
    pub error: String,
}

/// What is remembered of the archiving of a cluster's log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ArchiveRecord {
    /// The node that archives.
    pub run: Option<ArchiveRun>,
    /// The last run that began the log anew.
    pub fresh: String,
    /// When that was seen: a backup that was begun later is what the log goes on from.
    pub since: UnixMs,
    /// Nodes that do not have what follows.
    pub tried: Vec<IncarnationName>,
    /// Since when nobody archives.
    pub stopped: UnixMs,
    /// Attempts in a row that came to nothing.
    pub failures: u32,
    /// Why, one sentence.
    pub error: String,
}

/// A node archives the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveRun {
    /// Its name: later ones are greater.
    pub id: String,
    /// The node.
    pub incarnation: IncarnationName,
    /// The start of its agent: another one knows nothing of it.
    pub boot_id: String,
    /// When it was begun.
    pub began: UnixMs,
    /// It begins the log anew, because nobody has what follows.
    pub anew: bool,
    /// The storage, in a word.
    pub storage: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(run: &str, first: i64, end: i64, replid: &str) -> Segment {
        Segment {
            uid: "u".into(),
            run: run.into(),
            from: UnixMs(first.unsigned_abs()),
            until: UnixMs(end.unsigned_abs()),
            first,
            end,
            asked: replid.into(),
            replid: replid.into(),
            common: end,
        }
    }

    fn switched(run: &str, first: i64, end: i64, from: &str, to: &str, common: i64) -> Segment {
        Segment { asked: from.into(), common, ..segment(run, first, end, to) }
    }

    fn parts(log: &[Segment], replid: &str, next: i64) -> Option<Vec<(String, i64, i64)>> {
        let route = route(log, "u", replid, next)?;
        Some(route.parts.into_iter().map(|p| (p.run, p.first, p.end)).collect())
    }

    #[test]
    fn a_name_says_everything_and_sorts_by_time() {
        let one = switched("r1", 10, 200, "a", "b", 15);
        assert_eq!(Segment::read("u", "r1", &one.name()), Some(one.clone()));
        let later = Segment { from: UnixMs(1_795_000_000_000), ..one.clone() };
        assert!(one.name() < later.name());
        for wrong in ["", "x.log", "1-2-3-4-5-a-b.log", &one.name()[1..]] {
            assert_eq!(Segment::read("u", "r1", wrong), None, "{wrong}");
        }
    }

    #[test]
    fn neighbours_are_one_and_a_gap_stays_one() {
        let log = vec![
            segment("r1", 30, 40, "a"),
            segment("r1", 1, 10, "a"),
            segment("r1", 10, 20, "a"),
            switched("r1", 40, 50, "a", "b", 45),
            segment("r2", 50, 60, "b"),
        ];
        let ends: Vec<_> = joined(log).into_iter().map(|s| (s.run, s.first, s.end)).collect();
        let is = |run: &str, first, end| (run.to_owned(), first, end);
        assert_eq!(ends, [is("r1", 1, 20), is("r1", 30, 40), is("r1", 40, 50), is("r2", 50, 60)]);
    }

    #[test]
    fn the_way_goes_through_runs_and_promotions_and_ends_at_a_gap() {
        let log = [
            segment("r1", 1, 100, "a"),
            segment("r2", 80, 150, "a"),
            switched("r3", 150, 200, "a", "b", 160),
            segment("r4", 230, 300, "b"),
        ];
        let is = |run: &str, first, end| (run.to_owned(), first, end);
        let all = [is("r1", 40, 80), is("r2", 80, 150), is("r3", 150, 200)];
        assert_eq!(parts(&log, "a", 40).unwrap(), all);
        assert_eq!(route(&log, "u", "a", 40).unwrap().until, UnixMs(200));
        assert_eq!(parts(&log, "a", 155).unwrap(), [is("r3", 155, 200)], "both are the same there");
        assert_eq!(parts(&log, "a", 165), None, "what was lost in the failover leads nowhere");
        assert_eq!(parts(&log, "b", 200).unwrap(), [], "it ends there");
        assert_eq!(parts(&log, "b", 210), None, "nothing goes on from a gap");
        assert_eq!(parts(&log, "c", 40), None);
        assert_eq!(route(&log, "other", "a", 40), None);
    }

    #[test]
    fn a_node_that_went_on_after_another_took_over_is_not_followed() {
        let log = [
            segment("r1", 1, 300, "a"),
            switched("r2", 100, 200, "a", "b", 100),
            segment("r3", 200, 250, "b"),
        ];
        let is = |run: &str, first, end| (run.to_owned(), first, end);
        let all = [is("r1", 50, 100), is("r2", 100, 200), is("r3", 200, 250)];
        assert_eq!(parts(&log, "a", 50).unwrap(), all);
    }
}
