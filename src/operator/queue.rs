//! What is to be done next: keys that wait for their turn, each once, and work that runs one at a
//! time for each key and pauses after failures.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::sync::Mutex;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::time::{DelayQueue, delay_queue};

use super::lock;
use crate::model::time::Backoff;

/// Keys in the order in which they are due. A key waits once however often it is added, so the
/// queue is never longer than there are keys.
#[derive(Debug)]
pub struct WorkQueue<K>(Mutex<Waiting<K>>);

#[derive(Debug)]
struct Waiting<K> {
    /// Due at once: a timer is late by a millisecond or two, for which a change of master would stand
    /// still each time.
    ready: VecDeque<K>,
    queue: DelayQueue<K>,
    /// `None` for those that are ready.
    due: BTreeMap<K, Option<(Instant, delay_queue::Key)>>,
    /// Whoever waits for the next.
    waker: Option<Waker>,
}

impl<K: Ord + Clone> WorkQueue<K> {
    /// Nothing waits.
    #[must_use]
    pub fn new() -> Self {
        Self(Mutex::new(Waiting {
            ready: VecDeque::new(),
            queue: DelayQueue::new(),
            due: BTreeMap::new(),
            waker: None,
        }))
    }

    /// It is due now.
    pub fn add(&self, key: K) {
        let mut waiting = lock(&self.0);
        match waiting.due.insert(key.clone(), None) {
            Some(None) => return,
            Some(Some((_, queued))) => drop(waiting.queue.remove(&queued)),
            None => {}
        }
        waiting.ready.push_back(key);
        if let Some(waker) = waiting.waker.take() {
            waker.wake();
        }
    }

    /// It is due after `delay`, or earlier when it is already.
    pub fn add_after(&self, key: K, delay: Duration) {
        let at = Instant::now() + delay;
        let mut waiting = lock(&self.0);
        match waiting.due.get(&key).copied() {
            Some(None) => return,
            Some(Some((due, _))) if due <= at => return,
            Some(Some((_, queued))) => drop(waiting.queue.remove(&queued)),
            None => {}
        }
        let queued = waiting.queue.insert_at(key.clone(), at);
        waiting.due.insert(key, Some((at, queued)));
    }

    /// It is gone: it waits no more.
    pub fn forget(&self, key: &K) {
        let mut waiting = lock(&self.0);
        match waiting.due.remove(key) {
            Some(Some((_, queued))) => drop(waiting.queue.remove(&queued)),
            Some(None) => waiting.ready.retain(|ready| ready != key),
            None => {}
        }
    }

    /// The next key, once it is due. Nothing is lost when the future is dropped.
    pub async fn next(&self) -> K {
        poll_fn(|context| {
            let mut waiting = lock(&self.0);
            // Whoever waited for its time is not kept waiting by those that are added all the time.
            let next = match waiting.queue.poll_expired(context) {
                Poll::Ready(Some(expired)) => Some(expired.into_inner()),
                // An empty queue wakes us with the first key that is added.
                Poll::Ready(None) | Poll::Pending => waiting.ready.pop_front(),
            };
            if let Some(key) = next {
                waiting.due.remove(&key);
                return Poll::Ready(key);
            }
            waiting.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// The longest pause after failures in a row.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Work that runs one at a time for each key.
#[derive(Debug)]
pub struct Slots<K, W> {
    busy: BTreeSet<K>,
    failed: BTreeMap<K, Failed<W>>,
}

/// The last failure of a key.
#[derive(Clone, Debug)]
pub struct Failed<W> {
    /// What failed.
    pub work: W,
    /// Why, one sentence.
    pub error: String,
    /// How often in a row something of this key did.
    pub times: u32,
    /// Nothing of this key is tried before.
    until: Instant,
}

impl<K, W> Default for Slots<K, W> {
    fn default() -> Self {
        Self { busy: BTreeSet::new(), failed: BTreeMap::new() }
    }
}

impl<K: Ord + Clone, W: PartialEq> Slots<K, W> {
    /// Takes the slot of a key for what is `wanted`; false while it is taken, or while it pauses
    /// because this very work failed. Other work than what failed need not wait.
    pub fn begin<'w>(&mut self, key: &K, mut wanted: impl Iterator<Item = &'w W>) -> bool
    where
        W: 'w,
    {
        if self.busy.contains(key) {
            return false;
        }
        if let Some(failed) = self.failed.get(key)
            && Instant::now() < failed.until
        {
            if wanted.any(|work| *work == failed.work) {
                return false;
            }
            self.failed.remove(key);
        }
        self.busy.insert(key.clone())
    }

    /// Gives the slot back. After a failure the key pauses for `first`, doubled with each one in a
    /// row; returns for how long.
    pub fn end(&mut self, key: K, failure: Option<(W, String, Duration)>) -> Duration {
        self.busy.remove(&key);
        let Some((work, error, first)) = failure else {
            self.failed.remove(&key);
            return Duration::ZERO;
        };
        let times = self.failed.get(&key).map_or(0, |failed| failed.times);
        let pause = Backoff { first, longest: LONGEST_PAUSE }.delay(times);
        let failed = Failed { work, error, times: times + 1, until: Instant::now() + pause };
        self.failed.insert(key, failed);
        pause
    }

    /// The keys whose slots are taken.
    pub fn busy(&self) -> &BTreeSet<K> {
        &self.busy
    }

    /// The last failures of the keys of a range.
    pub fn failures(
        &self,
        keys: impl std::ops::RangeBounds<K>,
    ) -> impl Iterator<Item = (&K, &Failed<W>)> {
        self.failed.range(keys)
    }

    /// These keys are gone.
    pub fn forget(&mut self, gone: impl Fn(&K) -> bool) {
        self.failed.retain(|key, _| !gone(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_comes_at_its_earliest_time() {
        let queue = WorkQueue::new();
        let started = Instant::now();
        queue.add_after("late", 5 * SECOND);
        queue.add_after("early", 9 * SECOND);
        queue.add_after("early", 2 * SECOND);
        queue.add_after("early", 7 * SECOND);
        assert_eq!(queue.next().await, "early");
        assert!((2 * SECOND..3 * SECOND).contains(&started.elapsed()), "{:?}", started.elapsed());
        queue.add("late");
        assert_eq!(queue.next().await, "late");
        assert!(started.elapsed() < 3 * SECOND);
        assert!(tokio::time::timeout(60 * SECOND, queue.next()).await.is_err(), "each came once");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_due_now_waits_for_no_timer_and_what_was_due_before_comes_first() {
        let queue = WorkQueue::new();
        let started = Instant::now();
        queue.add_after("moved", 9 * SECOND);
        queue.add("moved");
        queue.add("now");
        queue.add_after("now", SECOND);
        assert_eq!((queue.next().await, queue.next().await), ("moved", "now"));
        assert_eq!(started.elapsed(), Duration::ZERO);
        queue.add_after("late", SECOND);
        tokio::time::sleep(2 * SECOND).await;
        queue.add("again");
        assert_eq!((queue.next().await, queue.next().await), ("late", "again"));
        let waiter = async { queue.next().await };
        let adds = async { queue.add("added") };
        assert_eq!(tokio::join!(waiter, adds).0, "added");
        assert_eq!(started.elapsed(), 2 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_an_empty_queue_hears_of_the_first_key() {
        let queue = std::sync::Arc::new(WorkQueue::new());
        let waiter = tokio::spawn({
            let queue = queue.clone();
            async move { queue.next().await }
        });
        tokio::task::yield_now().await;
        queue.add("cache");
        assert_eq!(waiter.await.unwrap(), "cache");
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_forgotten_never_comes() {
        let queue = WorkQueue::new();
        queue.add_after("gone", SECOND);
        queue.add_after("here", 2 * SECOND);
        queue.forget(&"gone");
        queue.add("gone too");
        queue.forget(&"gone too");
        assert_eq!(queue.next().await, "here");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_pause_a_key_ever_longer_until_it_succeeds() {
        let mut slots = Slots::default();
        let fail = |slots: &mut Slots<_, _>| {
            assert!(slots.begin(&"node", ["follow"].iter()));
            slots.end("node", Some(("follow", "away".to_owned(), SECOND)))
        };
        assert_eq!(fail(&mut slots), SECOND);
        assert!(!slots.begin(&"node", ["follow"].iter()), "it pauses");
        assert!(slots.begin(&"other", ["follow"].iter()), "another key does not");
        for pause in [2, 4, 8, 16, 30, 30] {
            tokio::time::advance(LONGEST_PAUSE).await;
            assert_eq!(fail(&mut slots), pause * SECOND);
        }
        assert_eq!(slots.failures("node"..="node").next().unwrap().1.times, 7);
        tokio::time::advance(LONGEST_PAUSE).await;
        assert!(slots.begin(&"node", ["follow"].iter()));
        assert!(!slots.begin(&"node", ["follow"].iter()), "one at a time");
        assert_eq!(slots.end("node", None), Duration::ZERO);
        assert_eq!(fail(&mut slots), SECOND, "a success clears the count");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_wanted_instead_of_the_work_that_failed_does_not_wait() {
        let mut slots = Slots::default();
        assert!(slots.begin(&"node", ["configure 1"].iter()));
        slots.end("node", Some(("configure 1", "refused".to_owned(), SECOND)));
        assert!(!slots.begin(&"node", ["configure 1", "follow"].iter()));
        assert!(slots.begin(&"node", ["configure 2"].iter()));
    }
}
