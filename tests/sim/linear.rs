//! Whether what clients saw of one key could have come about one operation after the other, each at
//! a moment between its begin and its end (Herlihy and Wing; the search is that of Wing and Gong,
//! with what was tried before kept as Lowe does).

use std::collections::HashSet;

/// What a client did with a key, and what it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// This became the value.
    Set(u64),
    /// This was the value; `None` when there was none.
    Get(Option<u64>),
    /// This was added at the end of the list.
    Push(u64),
    /// This was the whole list.
    List(Vec<u64>),
}

/// One operation on one key.
#[derive(Clone, Debug)]
pub struct Op {
    pub act: Act,
    pub begin: u64,
    /// When the client was told that it is done; `None` when it never was: it may have been done at
    /// any time since, or not at all.
    pub end: Option<u64>,
}

impl Act {
    fn writes(&self) -> Option<u64> {
        match self {
            Self::Set(value) | Self::Push(value) => Some(*value),
            Self::Get(_) | Self::List(_) => None,
        }
    }

    fn shows(&self) -> Vec<u64> {
        match self {
            Self::Get(value) => value.iter().copied().collect(),
            Self::List(values) => values.clone(),
            Self::Set(_) | Self::Push(_) => Vec::new(),
        }
    }
}

/// An order that is there is found long before.
const MOST_TRIED: usize = 300_000;
/// The longest history of one key that is searched.
const LONGEST: usize = 128;

/// An order in which all of it is possible exists. A read that was never answered says nothing, and
/// is not to be among them.
///
/// # Panics
/// There are more operations, or orders, than are searched.
pub fn is_linearizable(ops: &[Op]) -> bool {
    // A write without an answer that nobody saw need not have been done, and helps nobody.
    let seen: HashSet<u64> = ops.iter().flat_map(|op| op.act.shows()).collect();
    let matters = |op: &&Op| op.end.is_some() || op.act.writes().is_some_and(|v| seen.contains(&v));
    let mut ops: Vec<&Op> = ops.iter().filter(matters).collect();
    ops.sort_by_key(|op| op.begin);
    assert!(ops.len() <= LONGEST, "{} operations on one key", ops.len());
    let all_told = ops
        .iter()
        .enumerate()
        .filter(|(_, op)| op.end.is_some())
        .fold(0, |set, (n, _)| set | 1 << n);
    let mut tried = HashSet::new();
    let mut open: Vec<(u128, Vec<u64>)> = vec![(0, Vec::new())];
    while let Some((done, value)) = open.pop() {
        if done & all_told == all_told {
            return true;
        }
        if !tried.insert((done, value.clone())) || is_dead_end(&ops, done, &value) {
            continue;
        }
        assert!(tried.len() < MOST_TRIED, "no order was found soon: {ops:#?}");
        let left = || ops.iter().enumerate().filter(|(n, _)| done & (1 << n) == 0);
        // Whatever ended before another began comes before it.
        let first_end = left().filter_map(|(_, op)| op.end).min().unwrap_or(u64::MAX);
        // Whoever began first is tried first, which most often is how it was.
        for (n, op) in left().rev().filter(|(_, op)| op.begin <= first_end) {
            let next = match &op.act {
                Act::Set(new) => Some(vec![*new]),
                Act::Push(new) => Some(value.iter().chain([new]).copied().collect()),
                Act::Get(seen) => (seen.as_ref() == value.last()).then(|| value.clone()),
                Act::List(seen) => (seen == &value).then(|| value.clone()),
            };
            open.extend(next.map(|value| (done | 1 << n, value)));
        }
    }
    false
}

/// What a read saw that is still to come was there before, and cannot come back: no value is written
/// twice, and a list only grows.
fn is_dead_end(ops: &[&Op], done: u128, value: &[u64]) -> bool {
    let is_done = |n: usize| done & (1 << n) != 0;
    let written = |value: u64| {
        ops.iter().enumerate().any(|(n, op)| is_done(n) && op.act.writes() == Some(value))
    };
    ops.iter().enumerate().filter(|(n, _)| !is_done(*n)).any(|(_, op)| match &op.act {
        Act::Get(None) => !value.is_empty(),
        Act::Get(Some(seen)) => value.last() != Some(seen) && written(*seen),
        Act::List(seen) => !seen.starts_with(value),
        Act::Set(_) | Act::Push(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::Act::{Get, List, Push, Set};
    use super::*;

    fn op(act: Act, begin: u64, end: impl Into<Option<u64>>) -> Op {
        Op { act, begin, end: end.into() }
    }

    #[test]
    fn what_no_order_explains_is_found() {
        let rows: [(&str, Vec<Op>, bool); 10] = [
            ("nothing", vec![], true),
            ("a write is read", vec![op(Set(1), 0, 1), op(Get(Some(1)), 2, 3)], true),
            ("a write is lost", vec![op(Set(1), 0, 1), op(Get(None), 2, 3)], false),
            ("at the same time both are right", vec![op(Set(1), 0, 5), op(Get(None), 2, 3)], true),
            (
                "what was read is there from then on",
                vec![op(Set(1), 0, 9), op(Get(Some(1)), 2, 3), op(Get(None), 4, 5)],
                false,
            ),
            (
                "a write without an answer may be done late",
                vec![op(Set(1), 0, None), op(Get(None), 2, 3), op(Get(Some(1)), 4, 5)],
                true,
            ),
            (
                "and not twice",
                vec![
                    op(Set(1), 0, None),
                    op(Get(Some(1)), 1, 2),
                    op(Set(2), 3, 4),
                    op(Get(Some(1)), 5, 6),
                ],
                false,
            ),
            (
                "a stale read",
                vec![op(Set(1), 0, 1), op(Set(2), 2, 3), op(Get(Some(1)), 4, 5)],
                false,
            ),
            (
                "a list lacks one in the middle",
                vec![op(Push(1), 0, 1), op(Push(2), 2, 3), op(List(vec![2]), 4, 5)],
                false,
            ),
            (
                "a list lacks one that was never confirmed",
                vec![op(Push(1), 0, None), op(Push(2), 2, 3), op(List(vec![2]), 4, 5)],
                true,
            ),
        ];
        for (what, ops, right) in rows {
            assert_eq!(is_linearizable(&ops), right, "{what}");
        }
    }
}
