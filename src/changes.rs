//! Notifications by key: a listener learns what changed. One that is slow learns that anything may
//! have changed, and is never waited for.

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender, channel};

/// Notifications that a listener may be behind by before it is told to look at everything.
const BACKLOG: usize = 4096;

/// What a listener is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<K> {
    /// This one changed.
    Key(K),
    /// Notifications were missed: anything may have changed.
    Any,
}

/// Where changes are announced.
#[derive(Debug)]
pub struct Notifier<K>(Sender<K>);

impl<K: Clone> Default for Notifier<K> {
    fn default() -> Self {
        Self(channel(BACKLOG).0)
    }
}

impl<K: Clone> Notifier<K> {
    /// Tells every listener.
    pub fn notify(&self, key: K) {
        // An error means that nobody listens.
        let _ = self.0.send(key);
    }

    /// Hears of what changes from now on.
    #[must_use]
    pub fn subscribe(&self) -> Changes<K> {
        Changes(self.0.subscribe())
    }
}

/// Where changes are heard of.
#[derive(Debug)]
pub struct Changes<K>(Receiver<K>);

impl<K: Clone> Changes<K> {
    /// The next change; `None` once nobody can announce one any more. Nothing is lost when the
    /// future is dropped.
    pub async fn next(&mut self) -> Option<Change<K>> {
        match self.0.recv().await {
            Ok(key) => Some(Change::Key(key)),
            Err(RecvError::Lagged(_)) => Some(Change::Any),
            Err(RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_listener_hears_of_each_key_or_that_it_missed_some() {
        let notifier = Notifier::default();
        let (mut quick, mut slow) = (notifier.subscribe(), notifier.subscribe());
        notifier.notify(1);
        assert_eq!(quick.next().await, Some(Change::Key(1)));
        for key in 0..BACKLOG * 2 {
            notifier.notify(key);
        }
        assert_eq!(slow.next().await, Some(Change::Any));
        drop(notifier);
        while let Some(change) = slow.next().await {
            assert!(matches!(change, Change::Key(key) if key >= BACKLOG), "{change:?}");
        }
    }
}
