//! Locks of the controller, which are held for moments and never over a wait.
//!
//! Two that are taken in two orders stop the operator for good, some day. So in debug builds, which
//! the tests are, each pair of kinds that is ever held together has to be taken in the same order
//! everywhere: who does otherwise panics, whether or not anybody was in the way.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is locked, until this is dropped. In a `match`, an `if let` or a value that is built that is
/// the end of all of it.
pub struct Locked<'a, T> {
    guard: MutexGuard<'a, T>,
    #[cfg(debug_assertions)]
    _held: order::Held,
}

/// Locks it; nobody who panicked meanwhile left anything half done that matters.
pub fn lock<T>(mutex: &Mutex<T>) -> Locked<'_, T> {
    Locked {
        #[cfg(debug_assertions)]
        _held: order::taken(std::any::type_name::<T>()),
        guard: mutex.lock().unwrap_or_else(PoisonError::into_inner),
    }
}

impl<T> Deref for Locked<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for Locked<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

#[cfg(debug_assertions)]
mod order {
    use std::cell::RefCell;
    use std::collections::BTreeSet;
    use std::sync::{Mutex, PoisonError};

    thread_local! {
        static MINE: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
    }

    /// Which kind was held when which other one was taken.
    static SEEN: Mutex<BTreeSet<(&str, &str)>> = Mutex::new(BTreeSet::new());

    /// A lock of this kind is held by this thread.
    pub struct Held(&'static str);

    /// Notes that it is taken.
    pub fn taken(kind: &'static str) -> Held {
        let before = MINE.with_borrow(Clone::clone);
        let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        let wrong = before.iter().find(|held| seen.contains(&(kind, **held)) || **held == kind);
        let wrong = wrong.copied();
        if wrong.is_none() {
            seen.extend(before.into_iter().map(|held| (held, kind)));
        }
        drop(seen);
        if let Some(held) = wrong {
            panic!("{kind} is locked while {held} is; elsewhere it is the other way round");
        }
        MINE.with_borrow_mut(|mine| mine.push(kind));
        Held(kind)
    }

    impl Drop for Held {
        fn drop(&mut self) {
            MINE.with_borrow_mut(|mine| {
                if let Some(at) = mine.iter().rposition(|kind| *kind == self.0) {
                    mine.remove(at);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct First(u8);
    struct Second(u8);

    #[test]
    fn what_is_locked_can_be_changed() {
        let value = Mutex::new(1);
        *lock(&value) += 1;
        assert_eq!(*lock(&value), 2);
    }

    #[test]
    #[should_panic(expected = "elsewhere it is the other way round")]
    fn two_locks_in_two_orders_are_found_without_anybody_in_the_way() {
        let (first, second) = (Mutex::new(First(1)), Mutex::new(Second(2)));
        let sum = {
            let (first, second) = (lock(&first), lock(&second));
            first.0 + second.0
        };
        assert_eq!(sum, 3, "one order is fine");
        let second = lock(&second);
        let _ = lock(&first).0 + second.0;
    }
}
