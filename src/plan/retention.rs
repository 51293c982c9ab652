//! Which backups stay.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::api::backup::Retention;
use crate::model::backup::BackupManifest;
use crate::model::time::UnixMs;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The backups that no rule keeps, oldest first; never the newest of all. Within `window` every
/// moment is to be restored: the backups of that time stay, and the last one before it. `backups` may
/// be in any order.
pub fn surplus<'a>(
    backups: &[&'a BackupManifest],
    rules: &Retention,
    window: Option<Duration>,
    now: UnixMs,
) -> Vec<&'a BackupManifest> {
    let mut newest: Vec<_> = backups.to_vec();
    newest.sort_by(|a, b| (b.taken, &b.id).cmp(&(a.taken, &a.id)));
    let mut kept: BTreeSet<&str> = BTreeSet::new();
    kept.extend(newest.iter().take(rules.keep_last as usize).map(|b| b.id.as_str()));
    let mut days = BTreeSet::new();
    for backup in &newest {
        let day = backup.taken.0 / DAY_MS;
        if days.len() < rules.keep_daily as usize && days.insert(day) {
            kept.insert(&backup.id);
        }
    }
    if let Some(age) = rules.max_age {
        let young = |b: &&&BackupManifest| !now.passed(b.taken, age.0);
        let young: BTreeSet<_> = newest.iter().filter(young).map(|b| b.id.as_str()).collect();
        kept.retain(|id| young.contains(id));
    }
    if let Some(window) = window {
        let inside = newest.iter().take_while(|b| !now.passed(b.taken, window)).count();
        kept.extend(newest.iter().take(inside + 1).map(|b| b.id.as_str()));
    }
    kept.extend(newest.first().map(|b| b.id.as_str()));
    newest.into_iter().rev().filter(|b| !kept.contains(b.id.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::api::quantity::Span;
    use crate::model::backup::{FORMAT, MasterSeen, Snapshot};
    use crate::model::ids::{IncarnationName, InstallationId};

    fn backup(taken_hours: u64) -> BackupManifest {
        BackupManifest {
            format: FORMAT,
            id: format!("b{taken_hours:06}"),
            installation: InstallationId("i".into()),
            cluster: "cache".into(),
            uid: "u".into(),
            incarnation: IncarnationName("cache-1-x7k2".into()),
            taken: UnixMs(taken_hours * 3_600_000),
            epoch: 1,
            snapshot: Snapshot::default(),
            master: MasterSeen::default(),
            users: Vec::new(),
        }
    }

    fn left(hours: &[u64], rules: Retention, now: u64) -> Vec<u64> {
        left_of(hours, rules, None, now)
    }

    fn left_of(hours: &[u64], rules: Retention, window: Option<u64>, now: u64) -> Vec<u64> {
        let all: Vec<_> = hours.iter().map(|h| backup(*h)).collect();
        let (all, now) = (all.iter().collect::<Vec<_>>(), UnixMs(now * 3_600_000));
        let gone = surplus(&all, &rules, window.map(Duration::from_hours), now);
        let gone: Vec<_> = gone.iter().map(|b| b.taken.0 / 3_600_000).collect();
        assert!(gone.is_sorted(), "the oldest goes first");
        hours.iter().copied().filter(|h| !gone.contains(h)).collect()
    }

    #[test]
    fn the_newest_stay_and_the_last_of_each_day_and_none_that_is_too_old() {
        let rules = |keep_last, keep_daily, age: Option<u64>| Retention {
            keep_last,
            keep_daily,
            max_age: age.map(|hours| Span(Duration::from_hours(hours))),
        };
        let hours = [3, 15, 27, 39, 51, 63];
        assert_eq!(left(&hours, rules(2, 0, None), 64), [51, 63]);
        assert_eq!(left(&hours, rules(1, 3, None), 64), [15, 39, 63]);
        assert_eq!(left(&hours, rules(2, 3, Some(40)), 64), [39, 51, 63]);
        assert_eq!(left(&hours, rules(6, 0, Some(1)), 900), [63], "the newest stays however old");
        assert_eq!(left(&[], rules(1, 0, None), 64), Vec::<u64>::new());
    }

    #[test]
    fn the_window_keeps_its_own_and_the_last_one_before_it_whatever_the_rules_say() {
        let rules =
            Retention { keep_last: 1, keep_daily: 0, max_age: Some(Span(Duration::from_hours(1))) };
        let hours = [3, 15, 27, 39, 51, 63];
        assert_eq!(left_of(&hours, rules, Some(20), 64), [39, 51, 63]);
        assert_eq!(left_of(&hours, rules, Some(600), 64), hours);
        assert_eq!(left_of(&hours, rules, None, 64), [63]);
    }

    proptest! {
        #[test]
        fn something_is_always_left(
            hours in prop::collection::btree_set(0u64..2000, 1..40),
            keep_last in 1u32..10, keep_daily in 0u32..10, age in prop::option::of(1u64..3000), now in 0u64..4000,
        ) {
            let hours: Vec<_> = hours.into_iter().collect();
            let rules = Retention { keep_last, keep_daily, max_age: age.map(|h| Span(Duration::from_hours(h))) };
            let left = left(&hours, rules, now);
            prop_assert_eq!(left.last(), hours.last());
            prop_assert!(left.len() <= (keep_last + keep_daily) as usize);
        }
    }
}
