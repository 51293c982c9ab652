//! The access token of the control API: kept while it is good, renewed before it ends.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::answers::Token;

/// A token is renewed this long before it ends, so that none ends under way.
const RENEW_AHEAD: Duration = Duration::from_mins(1);
/// What the API promises when it does not say: an hour.
const USUAL_LIFE: Duration = Duration::from_hours(1);
/// A longer life is not believed; asking once a day costs nothing.
const LONGEST_LIFE: Duration = Duration::from_hours(24);

/// The present token, if there is one. However many callers want one at the same time, one of them
/// fetches it.
#[derive(Default)]
pub(super) struct Tokens {
    held: Mutex<Option<Bearer>>,
}

struct Bearer {
    secret: SecretString,
    renew_at: Instant,
}

impl Tokens {
    /// The present token, or the one that `fetch` brings. None is handed out after its renew time.
    pub(super) async fn get<E>(
        &self,
        fetch: impl AsyncFnOnce() -> Result<Token, E>,
    ) -> Result<SecretString, E> {
        let mut held = self.held.lock().await;
        if let Some(bearer) = held.as_ref().filter(|bearer| Instant::now() < bearer.renew_at) {
            return Ok(bearer.secret.clone());
        }
        // Its life began somewhere between question and answer: the earlier moment is the safe one.
        let asked = Instant::now();
        let token = fetch().await?;
        let secret = SecretString::from(token.secret);
        *held =
            Some(Bearer { secret: secret.clone(), renew_at: asked + use_for(token.expires_in) });
        Ok(secret)
    }

    /// Forgets a token that the API no longer takes, unless another has come in its place
    /// meanwhile.
    pub(super) async fn refused(&self, token: &SecretString) {
        self.held
            .lock()
            .await
            .take_if(|bearer| bearer.secret.expose_secret() == token.expose_secret());
    }
}

/// How long a token with this life (seconds) is used.
fn use_for(life: Option<u64>) -> Duration {
    let life = life.map_or(USUAL_LIFE, Duration::from_secs).min(LONGEST_LIFE);
    // A life shorter than the lead still leaves half of it for use.
    life.saturating_sub(RENEW_AHEAD).max(life / 2)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use tokio::time::{advance, sleep};

    use super::*;

    /// Hands out tokens `1`, `2`, ... with this life; each takes `answer_after` to come.
    struct Api {
        issued: Cell<u64>,
        life: Option<u64>,
        answer_after: Duration,
    }

    impl Api {
        fn new(life: Option<u64>, answer_after: Duration) -> Self {
            Self { issued: Cell::new(0), life, answer_after }
        }

        async fn token(&self, tokens: &Tokens) -> String {
            let fetch = async || {
                self.issued.set(self.issued.get() + 1);
                let token = Token {
                    secret: self.issued.get().to_string(),
                    expires_in: self.life,
                    scope: None,
                };
                sleep(self.answer_after).await;
                Ok::<_, Infallible>(token)
            };
            tokens.get(fetch).await.unwrap().expose_secret().to_owned()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_token_is_used_past_its_renew_time() {
        for (life, used_for) in
            [(Some(3600), 3540), (Some(600), 540), (Some(90), 45), (Some(2), 1), (None, 3540)]
        {
            let (tokens, api) = (Tokens::default(), Api::new(life, Duration::ZERO));
            let used_for = Duration::from_secs(used_for);
            for round in 1..=3_u64 {
                assert_eq!(api.token(&tokens).await, round.to_string());
                advance(used_for.checked_sub(Duration::from_millis(1)).unwrap()).await;
                assert_eq!(
                    api.token(&tokens).await,
                    round.to_string(),
                    "a good token is not asked for again ({life:?})"
                );
                advance(Duration::from_millis(1)).await;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_that_the_answer_took_counts_for_its_life() {
        let (tokens, api) = (Tokens::default(), Api::new(Some(100), Duration::from_secs(30)));
        assert_eq!(api.token(&tokens).await, "1");
        advance(Duration::from_secs(21)).await;
        assert_eq!(api.token(&tokens).await, "2");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_without_any_life_is_used_once_and_an_endless_one_for_a_day() {
        let (tokens, api) = (Tokens::default(), Api::new(Some(0), Duration::ZERO));
        assert_eq!(
            (api.token(&tokens).await, api.token(&tokens).await),
            ("1".to_owned(), "2".to_owned())
        );
        let (tokens, api) = (Tokens::default(), Api::new(Some(u64::MAX), Duration::ZERO));
        assert_eq!(api.token(&tokens).await, "1");
        advance(LONGEST_LIFE).await;
        assert_eq!(api.token(&tokens).await, "2");
    }

    #[tokio::test(start_paused = true)]
    async fn callers_at_the_same_time_share_one_and_a_late_refusal_does_not_take_away_the_next() {
        let (tokens, api) = (Tokens::default(), Api::new(Some(3600), Duration::from_secs(1)));
        let (a, b, c) = tokio::join!(api.token(&tokens), api.token(&tokens), api.token(&tokens));
        assert_eq!([a, b, c], ["1", "1", "1"]);
        let first = SecretString::from("1".to_owned());
        tokens.refused(&first).await;
        assert_eq!(api.token(&tokens).await, "2");
        tokens.refused(&first).await;
        assert_eq!(api.token(&tokens).await, "2", "the refusal was of the first one");
    }
}
