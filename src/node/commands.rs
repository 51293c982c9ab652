//! Whether a command is accepted. Pure: given what is remembered, the answer and what to remember
//! before acting.
//!
//! One target of promotion per epoch is stricter than one per (term, epoch): the record chooses
//! once per epoch, so that a second choice under a higher term can only come from an operator that
//! lost its record.

use serde::{Deserialize, Serialize};

use super::nonces::Freshness;
use crate::model::node::Authority;

/// What an agent remembers about commands; on disk before any command takes effect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Highest pair accepted.
    pub highest: Authority,
    /// The master of the highest epoch as far as this node was told.
    pub target: Target,
    /// The memory was lost: nothing is promoted until another command of the operator set a floor.
    pub lost: bool,
}

/// The target of promotion of an epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    /// Not told yet.
    #[default]
    Unknown,
    /// This node was promoted in the epoch.
    Own,
    /// This incarnation. Memories that were written before incarnations were told, or by command of
    /// an operator that tells names only, hold its mesh name.
    Other(String),
}

impl Memory {
    /// This node accepted the promotion of the highest epoch.
    #[must_use]
    pub fn promoted(&self) -> bool {
        self.target == Target::Own
    }
}

/// What a command intends, as far as this decision needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent<'a> {
    /// Become (promote) or stay (unfence) the master of the epoch.
    Lead,
    /// Follow this master.
    Follow {
        /// Who it is: this never changes. Empty from an operator that knows names only.
        incarnation: &'a str,
        /// Its mesh name, which an admin or the tailnet may change at any time.
        name: &'a str,
    },
    /// Anything that makes nobody master: configure, detach, fence, save.
    Other,
}

/// Why a command is not accepted; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The nonce is unknown or too old.
    #[error(
        "the nonce is not one that this agent issued within the last 10 s: the command may be old; take the newest state and send it again"
    )]
    Stale,
    /// Below the floor of the identity.
    #[error(
        "epoch {epoch} is below {floor}, the floor that this incarnation was born with; somebody acts on an old record"
    )]
    BelowFloor {
        /// Epoch of the command.
        epoch: u64,
        /// Floor of the identity.
        floor: u64,
    },
    /// Below the highest pair.
    #[error("term {term} epoch {epoch} is below term {} epoch {}, which was accepted already; another operator has taken over", highest.term, highest.epoch)]
    Outranked {
        /// Term of the command.
        term: u64,
        /// Epoch of the command.
        epoch: u64,
        /// Highest pair accepted.
        highest: Authority,
    },
    /// Another target was named in this epoch.
    #[error("epoch {epoch} has its master already ({master}); another one needs a new epoch")]
    SecondTarget {
        /// The epoch.
        epoch: u64,
        /// Who is master of it.
        master: String,
    },
    /// The state file is gone.
    #[error(
        "this agent lost the file with the highest epoch that it accepted; send any other command first, which sets a floor, then promote"
    )]
    MemoryLost,
}

/// Decides on one command; `Ok` is the memory to write down before the command takes effect.
pub fn decide(
    memory: &Memory,
    floor: u64,
    nonce: Freshness,
    authority: Authority,
    intent: Intent<'_>,
) -> Result<Memory, Refusal> {
    if nonce == Freshness::Stale {
        return Err(Refusal::Stale);
    }
    let Authority { term, epoch } = authority;
    if epoch < floor {
        return Err(Refusal::BelowFloor { epoch, floor });
    }
    // The epoch never falls, whatever the term: a new leader that read an old record must not turn
    // time back.
    if authority < memory.highest || epoch < memory.highest.epoch {
        return Err(Refusal::Outranked { term, epoch, highest: memory.highest });
    }
    if intent == Intent::Lead && memory.lost {
        return Err(Refusal::MemoryLost);
    }
    let known = if epoch > memory.highest.epoch { Target::Unknown } else { memory.target.clone() };
    let target = match (intent, known) {
        (Intent::Other, known) => known,
        (Intent::Lead, Target::Unknown | Target::Own) => Target::Own,
        (Intent::Follow { incarnation, name }, Target::Unknown) => {
            Target::Other(identity(incarnation, name).to_owned())
        }
        (Intent::Follow { incarnation, name }, Target::Other(master))
            if is_same(&master, incarnation, name) =>
        {
            // What identifies it better is kept: a name of an older memory gives way to its
            // incarnation.
            Target::Other(if incarnation.is_empty() { master } else { incarnation.to_owned() })
        }
        (_, Target::Own) => {
            return Err(Refusal::SecondTarget { epoch, master: "this node".into() });
        }
        (_, Target::Other(master)) => return Err(Refusal::SecondTarget { epoch, master }),
    };
    Ok(Memory { highest: authority, target, lost: false })
}

/// What is kept of a master that was told.
fn identity<'a>(incarnation: &'a str, name: &'a str) -> &'a str {
    if incarnation.is_empty() { name } else { incarnation }
}

/// Whether the master that is kept is the one that is told. Two names of one incarnation are one
/// master; with names alone they must be equal.
fn is_same(kept: &str, incarnation: &str, name: &str) -> bool {
    kept == identity(incarnation, name)
        || if incarnation.is_empty() {
            is_name_of(name, kept)
        } else {
            is_name_of(kept, incarnation)
        }
}

/// A mesh name that was made for this incarnation: its first label begins with it.
fn is_name_of(name: &str, incarnation: &str) -> bool {
    let label = name.split('.').next().unwrap_or_default();
    !incarnation.is_empty()
        && label.strip_prefix(incarnation).is_some_and(|rest| rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(term: u64, epoch: u64) -> Authority {
        Authority { term, epoch }
    }

    fn follow(incarnation: &str) -> Intent<'_> {
        Intent::Follow { incarnation, name: "m.mesh.test" }
    }

    fn go(memory: &Memory, authority: Authority, intent: Intent<'_>) -> Result<Memory, Refusal> {
        decide(memory, 1, Freshness::Fresh, authority, intent)
    }

    #[test]
    fn stale_low_and_below_floor_are_refused() {
        let memory = Memory { highest: at(2, 5), ..Memory::default() };
        assert_eq!(
            decide(&memory, 1, Freshness::Stale, at(9, 9), Intent::Other),
            Err(Refusal::Stale)
        );
        assert!(matches!(go(&memory, at(2, 4), Intent::Other), Err(Refusal::Outranked { .. })));
        assert!(
            matches!(go(&memory, at(1, 6), Intent::Other), Err(Refusal::Outranked { .. })),
            "an old leader"
        );
        assert!(
            matches!(go(&memory, at(3, 4), Intent::Other), Err(Refusal::Outranked { .. })),
            "a new leader with an old record"
        );
        assert!(matches!(
            decide(&memory, 7, Freshness::Fresh, at(2, 6), Intent::Other),
            Err(Refusal::BelowFloor { .. })
        ));
        let born_with_it = decide(&memory, 6, Freshness::Fresh, at(2, 6), Intent::Other);
        assert!(born_with_it.is_ok(), "the first epoch of an incarnation is its floor");
        assert!(go(&memory, at(2, 5), Intent::Other).is_ok());
    }

    #[test]
    fn one_target_per_epoch() {
        let own = go(&Memory::default(), at(1, 5), Intent::Lead).unwrap();
        assert!(own.promoted());
        assert!(go(&own, at(1, 5), Intent::Lead).unwrap().promoted(), "the same promotion again");
        assert!(
            go(&own, at(2, 5), Intent::Other).unwrap().promoted(),
            "a new term alone changes nothing"
        );
        assert!(matches!(go(&own, at(1, 5), follow("b")), Err(Refusal::SecondTarget { .. })));
        assert!(matches!(go(&own, at(2, 5), follow("b")), Err(Refusal::SecondTarget { .. })));
        let other = go(&own, at(1, 6), follow("b")).unwrap();
        assert!(!other.promoted());
        assert!(go(&other, at(1, 6), follow("b")).is_ok());
        assert!(matches!(go(&other, at(1, 6), follow("c")), Err(Refusal::SecondTarget { .. })));
        assert!(matches!(go(&other, at(1, 6), Intent::Lead), Err(Refusal::SecondTarget { .. })));
        assert!(
            !go(&own, at(1, 6), Intent::Other).unwrap().promoted(),
            "a detach under a new epoch ends it"
        );
    }

    #[test]
    fn a_master_that_is_renamed_is_the_same_master() {
        let told = |memory: &Memory, incarnation, name| {
            go(memory, at(1, 5), Intent::Follow { incarnation, name })
        };
        let memory =
            told(&Memory::default(), "cache-0-x7k2", "cache-0-x7k2-abc234.one.ts.net").unwrap();
        assert_eq!(memory.target, Target::Other("cache-0-x7k2".into()));
        assert_eq!(
            told(&memory, "cache-0-x7k2", "cache-0-x7k2-abc234.two.ts.net"),
            Ok(memory.clone()),
            "the tailnet's suffix changed"
        );
        assert_eq!(
            told(&memory, "cache-0-x7k2", "grandmaster.two.ts.net"),
            Ok(memory.clone()),
            "an admin renamed the device"
        );
        let other = told(&memory, "cache-0-x7k", "cache-0-x7k2-abc234.one.ts.net");
        assert!(
            matches!(other, Err(Refusal::SecondTarget { .. })),
            "another incarnation under its name"
        );
    }

    #[test]
    fn names_of_older_memories_and_operators_are_understood() {
        let told = |memory: &Memory, incarnation, name| {
            go(memory, at(1, 5), Intent::Follow { incarnation, name })
        };
        let old = Memory {
            highest: at(1, 5),
            target: Target::Other("cache-0-x7k2-abc234.one.ts.net".into()),
            lost: false,
        };
        let now = told(&old, "cache-0-x7k2", "cache-0-x7k2-abc234.two.ts.net").unwrap();
        assert_eq!(
            now.target,
            Target::Other("cache-0-x7k2".into()),
            "the name gives way to the incarnation"
        );
        assert!(told(&old, "", "cache-0-x7k2-abc234.one.ts.net").is_ok(), "names alone");
        assert!(
            told(&old, "", "cache-0-x7k2-abc234.two.ts.net").is_err(),
            "names alone, and they differ"
        );
        assert!(
            told(&old, "cache-0-x7k", "cache-0-x7k-abc234.one.ts.net").is_err(),
            "a shorter name is no prefix of it"
        );
        assert!(told(&old, "cache-1-y8m3", "cache-1-y8m3-abc234.one.ts.net").is_err());
        assert_eq!(
            told(&now, "", "cache-0-x7k2-abc234.one.ts.net"),
            Ok(now.clone()),
            "an older operator after a newer one"
        );
        assert!(told(&now, "", "cache-1-y8m3-abc234.one.ts.net").is_err());
    }

    #[test]
    fn a_lost_memory_promotes_nothing_until_a_floor_is_set() {
        let lost = Memory { lost: true, ..Memory::default() };
        assert_eq!(go(&lost, at(1, 5), Intent::Lead), Err(Refusal::MemoryLost));
        let told = go(&lost, at(1, 5), Intent::Other).unwrap();
        assert!(go(&told, at(1, 5), Intent::Lead).is_ok());
    }

    proptest! {
        #[test]
        fn no_epoch_ever_has_two_targets(steps in prop::collection::vec((1u64..4, 1u64..6, 0u8..4), 1..60)) {
            let names = ["a", "b"];
            let mut memory = Memory::default();
            let mut seen = std::collections::BTreeMap::new();
            for (term, epoch, what) in steps {
                let intent = match what { 0 => Intent::Lead, 1 => Intent::Other, n => follow(names[usize::from(n - 2)]) };
                let before = memory.highest;
                // Whoever refuses remembers what he did before.
                memory = go(&memory, at(term, epoch), intent).unwrap_or(memory);
                let highest = memory.highest;
                prop_assert!(highest >= before && highest.epoch >= before.epoch);
                let first = seen.entry(highest.epoch).or_insert(Target::Unknown);
                prop_assert!(*first == Target::Unknown || *first == memory.target);
                first.clone_from(&memory.target);
            }
        }
    }
}
