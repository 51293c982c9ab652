//! One request to one target.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::StatusCode;
use reqwest::header::{RETRY_AFTER, USER_AGENT};
use secrecy::ExposeSecret as _;

use super::Target;
use super::message::Message;
use super::signature::signature;
use crate::http_client::innermost;

/// The header with the id by which a receiver knows what it has had already.
const ID: &str = "Akash-Redis-Id";
/// The header with the signature.
const SIGNATURE: &str = "Akash-Redis-Signature";
const AGENT: &str = concat!("akash-redis/", env!("CARGO_PKG_VERSION"));
/// Nobody is obeyed who asks for a longer pause.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// Why a message was not taken. No URL is in it: it may hold a token.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No answer: it may have arrived all the same.
    #[error("no answer came ({0}); it may have been taken")]
    Lost(String),
    /// The answer is not a success.
    #[error("it answered {status}, which is not a success{}", hint(*status))]
    Status {
        /// Of the answer.
        status: StatusCode,
        /// The pause that it asks for.
        after: Option<Duration>,
    },
}

impl SendError {
    /// It is this very message that is not taken.
    pub(super) fn is_about_the_message(&self) -> bool {
        matches!(self, Self::Status { status, .. } if matches!(status.as_u16(), 400 | 413 | 415 | 422))
    }

    /// The pause that the receiver asks for.
    pub(super) fn asked_pause(&self) -> Duration {
        match self {
            Self::Status { after: Some(after), .. } => (*after).min(LONGEST_PAUSE),
            _ => Duration::ZERO,
        }
    }
}

fn hint(status: StatusCode) -> &'static str {
    if status.is_redirection() {
        "; redirects are not followed: set its `webhook` to where they lead"
    } else if matches!(status.as_u16(), 401 | 403 | 404 | 410) {
        "; look at its `webhook`, and at the token in it"
    } else {
        ""
    }
}

/// Sends a message once. The body of the answer is not read.
pub(super) async fn send(
    target: &Target,
    id: &str,
    message: &Message,
) -> Result<StatusCode, SendError> {
    let body = message.body(id, target.format);
    let mut request = target
        .http
        .post(target.url.expose_secret())
        .header(USER_AGENT, AGENT)
        .header(ID, id)
        .headers(message.headers(target.format));
    if let Some(secret) = &target.secret {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        request = request.header(SIGNATURE, signature(secret.expose_secret(), now, &body));
    }
    let answer = request.body(body).send().await.map_err(|e| lost(&e.without_url()))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(status);
    }
    // The other form, a date, counts as none: the usual pauses hold.
    let after = answer.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
    Err(SendError::Status { status, after: after.map(Duration::from_secs) })
}

/// Whether the target answers at all; nothing is told.
pub(super) async fn probe(target: &Target) -> Result<StatusCode, String> {
    let request = target.http.head(target.url.expose_secret()).header(USER_AGENT, AGENT);
    let answer = request
        .send()
        .await
        .map_err(|e| format!("it cannot be reached ({})", innermost(&e.without_url())))?;
    Ok(answer.status())
}

fn lost(error: &reqwest::Error) -> SendError {
    SendError::Lost(innermost(error))
}
