//! Crashes: the operator dies just before or just after its n-th call to the outside world.

use std::fmt::{Debug, Display};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

use super::clock::Clock;
use super::trace::Trace;

/// Counts and notes the operator's calls; when the set one is reached, that call never returns and
/// the crash is reported.
pub struct Fuse {
    pub trace: Trace,
    /// Writes of the operator to its store, of whatever kind.
    pub writes: AtomicU64,
    calls: AtomicU64,
    at: Mutex<Option<u64>>,
    /// Words of a call, and whether it has had its effect by then.
    on: Mutex<Option<(String, bool)>>,
    blown: Notify,
}

impl Fuse {
    pub fn new(clock: Clock) -> Self {
        Self {
            trace: Trace::new(clock),
            writes: AtomicU64::default(),
            calls: AtomicU64::default(),
            at: Mutex::default(),
            on: Mutex::default(),
            blown: Notify::default(),
        }
    }

    /// The operator dies at this call from now on (each effect counts twice: before and after it
    /// happened).
    pub fn set(&self, calls_from_now: u64) {
        *self.at.lock().unwrap() = Some(self.calls.load(Ordering::SeqCst) + calls_from_now);
    }

    /// The operator dies at the next call with these words: before or after it happened.
    pub fn set_on(&self, words: &str, after: bool) {
        *self.on.lock().unwrap() = Some((words.to_owned(), after));
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// Waits until the fuse blew.
    pub async fn blown(&self) {
        self.blown.notified().await;
    }

    /// A call begins.
    pub async fn before(&self, call: impl Display) {
        let call = call.to_string();
        self.trace.add(&call);
        self.tick(self.is_on(&call, false)).await;
    }

    /// A call has had its effect, its answer is on its way.
    pub async fn after(&self, call: impl Display, answer: impl Debug) {
        self.trace.add(&format!("{call}: {answer:?}"));
        self.tick(self.is_on(&call.to_string(), true)).await;
    }

    fn is_on(&self, call: &str, after: bool) -> bool {
        let mut on = self.on.lock().unwrap();
        let is = on.as_ref().is_some_and(|(words, at)| call.starts_with(words) && *at == after);
        if is {
            *on = None;
        }
        is
    }

    async fn tick(&self, named: bool) {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let blows = {
            let mut at = self.at.lock().unwrap();
            let blows = named || at.is_some_and(|at| call >= at);
            if blows {
                *at = None;
            }
            blows
        };
        if blows {
            self.trace.add("the operator dies");
            self.blown.notify_one();
            std::future::pending::<()>().await;
        }
    }
}
