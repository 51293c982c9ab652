//! Does the master take a write now? It is asked by a write that changes nothing: an element for a
//! list that does not exist (`LPUSHX`).
//!
//! Redis puts it to all the tests of a write (`MISCONF`, `OOM`, `NOREPLICAS`, `READONLY`), and as
//! nothing comes of it, nothing is logged or replicated: the history does not move.

use std::time::{Duration, Instant};

use super::nonces::random_hex;
use super::redis_control::{ControlError, Session};
use super::state::Node;
use crate::model::node::{RedisState, Refusal, Role};
use crate::model::text::clipped;

/// Time between two questions.
const EVERY: Duration = Duration::from_secs(1);
/// A redis that answers at all answers within this. A fence that comes in between holds the
/// question back as it holds all writes.
const ANSWER: Duration = Duration::from_millis(500);
/// What Redis says of a refusal, bytes.
const WORDS: usize = 300;

/// Asks one redis process.
pub struct WriteProbe {
    key: String,
    /// Its own connection: what waits here keeps nobody else waiting.
    session: Option<Session>,
    asked: Option<Instant>,
    refused: Option<(Instant, String, String)>,
}

impl Default for WriteProbe {
    fn default() -> Self {
        let key = format!("akash-redis:no-such-list:{}", random_hex());
        Self { key, session: None, asked: None, refused: None }
    }
}

impl WriteProbe {
    /// Why this master takes no write; `None` when it takes them, is not to take any, or has not
    /// answered yet.
    pub async fn ask(&mut self, node: &Node, redis: &RedisState) -> Option<Refusal> {
        let opened = redis.role == Role::Master && !redis.fenced && !redis.loading;
        if !opened || node.applied().fenced.is_some() {
            // What waits for the end of a fence on it waits for as long as that.
            (self.session, self.asked, self.refused) = (None, None, None);
            return None;
        }
        if self.asked.is_none_or(|at| at.elapsed() >= EVERY) {
            self.asked = Some(Instant::now());
            match self.write(node).await {
                Ok(()) => self.refused = None,
                Err(ControlError::Redis(error)) => {
                    let code = error.code().unwrap_or("ERR").to_owned();
                    let words = clipped(error.detail().unwrap_or_default().to_owned(), WORDS);
                    let since = self.refused.take().filter(|(_, before, _)| *before == code);
                    let since = since.map_or_else(Instant::now, |(at, ..)| at);
                    self.refused = Some((since, code, words));
                }
                // It is not known: whether it answers at all is seen elsewhere.
                Err(_) => self.session = None,
            }
        }
        self.refused.as_ref().map(|(since, code, words)| Refusal {
            code: code.clone(),
            words: words.clone(),
            since_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }

    async fn write(&mut self, node: &Node) -> Result<(), ControlError> {
        if self.session.is_none() {
            // That no other connection is to be had says nothing of writes.
            let full = |_| ControlError::Restarted;
            self.session = Some(node.redis.apart(ANSWER).await.map_err(full)?);
        }
        let Some(session) = self.session.as_mut() else { return Ok(()) };
        session.run(redis::cmd("LPUSHX").arg(&self.key).arg("")).await
    }
}
