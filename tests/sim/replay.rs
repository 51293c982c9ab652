//! A seed replays: everything that the operator does to the world, and every record that it writes,
//! comes in the same order, at the same moments, with the same ends.

use crate::faults::walk::walk;
use crate::world::many::in_a_world;

/// Walks that are walked twice: one of two clusters, one without volumes, one of an operator that
/// dies and one of two operators are among them.
const SEEDS: [u64; 3] = [1, 2, 3];
/// Lines before the first that differs, which say how it came to it.
const BEFORE: usize = 5;

#[test]
fn a_walk_is_the_same_when_it_is_walked_again() {
    std::thread::scope(|scope| {
        for seed in SEEDS {
            scope.spawn(move || the_same_twice(seed));
        }
    });
}

fn the_same_twice(seed: u64) {
    let [first, second] = [(); 2].map(|()| in_a_world(walk(seed)));
    assert!(first.len() > 200, "seed {seed}: only {} lines", first.len());
    let differs = first.iter().zip(&second).position(|(a, b)| a != b);
    if let Some(at) = differs {
        let before = first[at.saturating_sub(BEFORE)..at].join("\n");
        panic!(
            "seed {seed}, line {at} of {}:\n{before}\nand then, first:\n{}\nsecond:\n{}",
            first.len(),
            first[at],
            second[at]
        );
    }
    assert_eq!(first.len(), second.len(), "seed {seed}");
}
