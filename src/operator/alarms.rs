//! When people outside are told that something is wrong with a cluster, and that it is over: pure.
//!
//! Each reason is told once it has lasted, and again only after it was gone for a while: what comes
//! and goes is told once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::api::conditions::{ConditionType, Reason};
use crate::api::events::EventReason;
use crate::api::status::Status;
use crate::model::time::UnixMs;

/// What is over before is told to nobody: a failover takes less.
const LASTS: Duration = Duration::from_mins(1);
/// What comes back before was not over.
const GONE: Duration = Duration::from_mins(5);

/// What this process saw of a cluster. Not durable: after a restart the times count anew.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Since when each reason is there.
    wrong: BTreeMap<String, UnixMs>,
    /// Since when each reason that was told is not there.
    gone: BTreeMap<String, UnixMs>,
    /// Since when nothing is wrong.
    well: Option<UnixMs>,
}

/// What is to be told, and what will have been told then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Reasons, by their words.
    pub told: BTreeSet<String>,
    /// For the journal; may be empty.
    pub events: Vec<(EventReason, String)>,
}

/// Looks at a status; `None` where nothing changes of what was told.
pub fn look(
    seen: &mut Seen,
    told: &BTreeSet<String>,
    status: &Status,
    now: UnixMs,
) -> Option<Alarm> {
    let problems: BTreeMap<String, Reason> =
        status.problems().map(|reason| (reason.to_string(), reason)).collect();
    seen.wrong.retain(|word, _| problems.contains_key(word));
    seen.gone.retain(|word, _| told.contains(word) && !problems.contains_key(word));
    seen.well = if problems.is_empty() { seen.well.or(Some(now)) } else { None };
    for word in problems.keys() {
        seen.wrong.entry(word.clone()).or_insert(now);
    }
    for word in told.iter().filter(|word| !problems.contains_key(*word)) {
        seen.gone.entry(word.clone()).or_insert(now);
    }
    let over = |word: &String| seen.gone.get(word).is_some_and(|since| now.passed(*since, GONE));
    let mut left: BTreeSet<String> = told.iter().filter(|word| !over(word)).cloned().collect();
    let mut events = Vec::new();
    if !told.is_empty() && left.is_empty() {
        if let Some(since) = seen.well.filter(|since| now.passed(*since, GONE)) {
            let before = told.iter().cloned().collect::<Vec<_>>().join(", ");
            let message = format!("no problem is known any more since {since} (it was {before})");
            events.push((EventReason::ClusterRecovered, message));
        } else {
            // Something else was wrong until now: it is not over.
            left.clone_from(told);
        }
    }
    for (word, reason) in &problems {
        let since = seen.wrong.get(word).copied().unwrap_or(now);
        if !left.contains(word) && now.passed(since, LASTS) {
            events.push((kind(*reason), sentence(*reason, since, status)));
            left.insert(word.clone());
        }
    }
    (left != *told).then_some(Alarm { told: left, events })
}

fn kind(reason: Reason) -> EventReason {
    if reason.ends_with_accepted_loss() {
        EventReason::ClusterBlocked
    } else {
        EventReason::ClusterDegraded
    }
}

fn sentence(reason: Reason, since: UnixMs, status: &Status) -> String {
    let worst = status.condition(ConditionType::Degraded).filter(|c| c.reason == reason);
    match worst {
        Some(worst) => format!("{reason} since {since}: {}", worst.message),
        None => format!("{reason} since {since}, beside something worse"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::conditions::ConditionStatus;
    use crate::api::events::EventReason::{
        ClusterBlocked as B, ClusterDegraded as D, ClusterRecovered as R,
    };
    use crate::api::status::Condition;

    fn status(problems: &[Reason]) -> Status {
        let degraded = Condition {
            kind: ConditionType::Degraded,
            status: (!problems.is_empty()).into(),
            reason: problems.first().copied().unwrap_or(Reason::AsExpected),
            message: "what is wrong".into(),
            ..Condition::default()
        };
        let conditions = vec![degraded];
        Status { conditions, problems: problems.to_vec(), ..Status::default() }
    }

    /// Looks at these problems at these seconds; the words of the events of each look.
    fn story(looks: &[(u64, &[Reason])]) -> Vec<Vec<EventReason>> {
        let (mut seen, mut told) = (Seen::default(), BTreeSet::new());
        let mut look = |(second, problems): &(u64, &[Reason])| {
            let now = UnixMs(1_795_000_000_000 + second * 1000);
            let alarm = super::look(&mut seen, &told, &status(problems), now);
            alarm.map_or_else(Vec::new, |alarm| {
                told = alarm.told;
                alarm.events.into_iter().map(|(reason, _)| reason).collect()
            })
        };
        looks.iter().map(&mut look).collect()
    }

    const NONE: &[Reason] = &[];
    const SILENT: &[Reason] = &[Reason::NodeUnreachable];
    const BLOCKED: &[Reason] = &[Reason::FailoverBlocked];
    const FULL: &[Reason] = &[Reason::NodeUnreachable, Reason::VolumeFull];

    #[test]
    fn what_lasts_is_told_once_and_its_end_once() {
        let looks =
            [(0, SILENT), (59, SILENT), (60, SILENT), (600, SILENT), (601, NONE), (900, NONE)];
        assert_eq!(story(&looks), [vec![], vec![], vec![D], vec![], vec![], vec![]]);
        let looks = [(0, SILENT), (60, SILENT), (61, NONE), (361, NONE), (900, NONE)];
        assert_eq!(story(&looks), [vec![], vec![D], vec![], vec![R], vec![]]);
    }

    #[test]
    fn what_is_over_in_time_is_told_to_nobody() {
        let looks = [(0, BLOCKED), (59, NONE), (61, BLOCKED), (119, BLOCKED), (500, NONE)];
        assert_eq!(story(&looks), vec![Vec::new(); 5]);
    }

    #[test]
    fn what_comes_and_goes_is_told_once() {
        let mut looks: Vec<(u64, &[Reason])> = Vec::new();
        for n in 0..20 {
            looks.extend([(n * 240, SILENT), (n * 240 + 60, SILENT), (n * 240 + 100, NONE)]);
        }
        let told: Vec<_> = story(&looks).into_iter().flatten().collect();
        assert_eq!(told, [D]);
    }

    #[test]
    fn what_needs_a_person_has_a_word_of_its_own_and_another_reason_is_told_too() {
        let looks = [(0, BLOCKED), (60, BLOCKED), (70, FULL), (130, FULL), (400, FULL)];
        assert_eq!(story(&looks), [vec![], vec![B], vec![], vec![D, D], vec![]]);
        // It is not over as long as anything is wrong.
        let looks =
            [(0, SILENT), (60, SILENT), (70, BLOCKED), (100, BLOCKED), (371, NONE), (671, NONE)];
        assert_eq!(story(&looks), [vec![], vec![D], vec![], vec![], vec![], vec![R]]);
    }

    #[test]
    fn what_was_told_before_a_restart_is_not_told_again() {
        let told = BTreeSet::from(["NodeUnreachable".to_owned()]);
        let mut seen = Seen::default();
        for second in [0, 60, 600] {
            assert_eq!(look(&mut seen, &told, &status(SILENT), UnixMs(second * 1000)), None);
        }
        let well = status(&[]);
        assert_eq!(look(&mut seen, &told, &well, UnixMs(700_000)), None);
        let alarm = look(&mut seen, &told, &well, UnixMs(1_000_000)).expect("it is over");
        assert_eq!((alarm.told.len(), alarm.events[0].0), (0, R));
        assert!(alarm.events[0].1.ends_with("(it was NodeUnreachable)"), "{alarm:?}");
    }

    #[test]
    fn the_sentence_is_the_one_of_the_condition() {
        assert_eq!(ConditionStatus::from(true), ConditionStatus::True);
        let said = sentence(Reason::NodeUnreachable, UnixMs(1_795_000_000_000), &status(FULL));
        assert_eq!(said, "NodeUnreachable since 2026-11-18T11:06:40Z: what is wrong");
        let said = sentence(Reason::VolumeFull, UnixMs(1_795_000_000_000), &status(FULL));
        assert!(said.ends_with("beside something worse"), "{said}");
    }
}
