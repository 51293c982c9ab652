//! Endpoints that say "not now": each is let alone for as long as it asks for, or ever longer, and
//! the others are asked meanwhile.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::transport::{Channel, Error};

use crate::model::time::Backoff;

/// Rests of an endpoint that does not say for how long.
const PAUSES: Backoff =
    Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(30) };
/// Nobody is let alone for longer, whatever it asks for.
const LONGEST: Duration = Duration::from_mins(2);
/// Statuses of proxies in front of a node that pass by themselves.
const NOT_NOW: [u16; 4] = [429, 502, 503, 504];
/// How a gRPC server says when to come back: milliseconds; below zero: not at all.
pub(super) const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Until when one endpoint is let alone.
#[derive(Debug, Default)]
pub(super) struct Rest(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    until: Option<Instant>,
    /// Refusals in a row.
    times: u32,
}

impl Rest {
    /// It cannot answer now; `asked`: for how long, by its own word.
    pub fn begin(&self, asked: Option<Duration>) {
        let mut state = self.lock();
        let pause = asked.unwrap_or_else(|| PAUSES.delay(state.times)).min(LONGEST);
        state.times = state.times.saturating_add(1);
        // Many calls are refused at once: that is one refusal, and the longest word counts.
        state.until = state.until.max(Some(Instant::now() + pause));
    }

    /// It answered.
    pub fn end(&self) {
        *self.lock() = State::default();
    }

    /// For how long it is to be let alone.
    pub fn left(&self) -> Option<Duration> {
        let until = self.lock().until?;
        Some(until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When to come back, by the headers of an answer: of a gRPC server, or of a proxy in front of it
/// (seconds; dates are not read).
pub(super) fn asked(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<i64>().ok();
    if let Some(ms) = text(PUSHBACK) {
        return Some(u64::try_from(ms).map_or(LONGEST, Duration::from_millis));
    }
    text("retry-after").and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs)
}

/// A connection whose refusals are heard, also those of a proxy that knows no gRPC.
#[derive(Clone)]
pub(super) struct Heard {
    channel: Channel,
    rest: Arc<Rest>,
}

impl Heard {
    pub fn new(channel: Channel, rest: Arc<Rest>) -> Self {
        Self { channel, rest }
    }
}

impl Service<Request<Body>> for Heard {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (answer, rest) = (self.channel.call(request), self.rest.clone());
        Box::pin(async move {
            let response = answer.await?;
            if NOT_NOW.contains(&response.status().as_u16()) {
                rest.begin(asked(response.headers()));
            }
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_rests_for_as_long_as_it_asks_for_and_else_ever_longer() {
        let rest = Rest::default();
        assert_eq!(rest.left(), None);
        rest.begin(Some(Duration::from_secs(7)));
        assert_eq!(rest.left(), Some(Duration::from_secs(7)));
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(rest.left(), None);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            rest.begin(None);
            let left = rest.left().expect("it rests");
            pauses.push(left.as_secs());
            tokio::time::advance(left).await;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30, 30]);
        rest.end();
        rest.begin(None);
        assert_eq!(rest.left(), Some(Duration::from_millis(500)), "an answer makes up for all");
        rest.begin(Some(Duration::from_hours(5)));
        assert_eq!(rest.left(), Some(LONGEST));
    }

    #[test]
    fn both_ways_to_say_when_are_understood() {
        let say = |name: &'static str, value: &str| {
            asked(&HeaderMap::from_iter([(
                name.parse().expect("a name"),
                value.parse().expect("text"),
            )]))
        };
        assert_eq!(say(PUSHBACK, "250"), Some(Duration::from_millis(250)));
        assert_eq!(say(PUSHBACK, "-1"), Some(LONGEST), "not at all");
        assert_eq!(say("retry-after", "3"), Some(Duration::from_secs(3)));
        for odd in ["", "-3", "Wed, 21 Oct 2026 07:28:00 GMT", "99999999999999999999"] {
            assert_eq!(say("retry-after", odd), None, "{odd}");
        }
    }
}
