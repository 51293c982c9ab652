//! A replica that becomes master as soon as its own master hands over to it: it hears of that in the
//! stream of replication, behind the last write, and asks nobody (docs/decisions/0099-a-handover-in-the-stream.md).

use std::time::Instant;

use futures::StreamExt as _;
use redis::aio::PubSub;
use tokio::time::timeout_at;
use tokio_util::task::AbortOnDropHandle;

use super::info::Info;
use super::psync::Introduced;
use super::redis_control::{ANSWER, ControlError, RedisControl, Session};
use super::stand_in::PROMPT;

/// What a change of role needs of Redis. Where it is known that one comes it is made before, while
/// nobody waits: a session never reaches another process than the one that was looked at.
pub struct Ready {
    /// The way to the process.
    pub session: Session,
    /// A look at it.
    pub info: Info,
    /// Counts as the first replica of the master that it may become.
    pub stand_in: Option<Introduced>,
}

impl Ready {
    /// The one that was made before, or one that is made now.
    pub async fn or_now(
        made: Option<Self>,
        redis: &RedisControl,
        run_id: &str,
    ) -> Result<Self, ControlError> {
        if let Some(made) = made { Ok(made) } else { Self::to(redis, run_id).await }
    }

    /// To do something to the very process `run_id`.
    pub async fn to(redis: &RedisControl, run_id: &str) -> Result<Self, ControlError> {
        let (session, info) = redis.open_to(run_id, ANSWER).await?;
        Ok(Self { session, info, stand_in: None })
    }
}

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
