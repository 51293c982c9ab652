//! A replica that becomes master as soon as its own master hands over to it: it hears of that in the
//! stream of replication, behind the last write, and asks nobody (docs/decisions/0099-a-handover-in-the-stream.md).

use std::time::Instant;

use futures::StreamExt as _;
use redis::aio::PubSub;
use tokio::time::timeout_at;
use tokio_util::task::AbortOnDropHandle;

use super::stand_in::PROMPT;

/// A handover that is awaited; it is not any more once this is dropped.
#[derive(Debug)]
pub struct Awaited {
    _task: AbortOnDropHandle<()>,
}

impl Awaited {
    /// Runs `then` as soon as the word is said on what was subscribed to, and nothing when it was not
    /// within [`PROMPT`] of `issued`; `end` in any case after that.
    pub fn new(
        words: PubSub,
        issued: Instant,
        then: impl Future<Output = ()> + Send + 'static,
        end: impl FnOnce() + Send + 'static,
    ) -> Self {
        let task = tokio::spawn(async move {
            let until = (issued + PROMPT).into();
            let mut words = words.into_on_message();
            if let Ok(Some(_)) = timeout_at(until, words.next()).await {
                then.await;
            }
            end();
        });
        Self { _task: AbortOnDropHandle::new(task) }
    }
}

/// The channel on which a master says the word.
#[must_use]
pub fn channel(word: &str) -> String {
    format!("_akash-redis:handover:{word}")
}
