//! Tells people outside what happened: events that concern them wait in the store, and a task for
//! each target takes them from there one after the other.
//!
//! A notice is delivered at least once: a crash between the answer and the note of it sends it
//! again, under the same id. Nothing waits for a delivery.

mod deliver;
mod message;
mod metrics;
mod send;
mod signature;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use sha2::{Digest as _, Sha256};

use crate::api::notifications::NotificationKind;
use crate::config::{NotifyFormat, NotifyTarget};
use crate::http_client;
use crate::model::time::{Backoff, UnixMs};
use crate::store::TellRule;
use message::Message;

pub use deliver::Delivery;
pub use metrics::Metrics;
pub use send::SendError;

/// How patient a delivery is.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// For one request, from the look-up of the name to the head of the answer.
    pub time_out: Duration,
    /// Between tries that failed.
    pub pauses: Backoff,
    /// What is older is told to nobody any more.
    pub oldest: Duration,
    /// No more wait for one target.
    pub most: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            time_out: Duration::from_secs(10),
            pauses: Backoff { first: Duration::from_secs(1), longest: Duration::from_mins(5) },
            oldest: Duration::from_hours(24),
            most: 1000,
        }
    }
}

/// Somebody outside who is told.
#[derive(Debug)]
pub struct Target {
    /// The same as long as its URL is; nothing of the URL can be read from it.
    id: String,
    /// Its place in the settings and its host, for people; no token is in it.
    name: String,
    url: SecretString,
    secret: Option<SecretSlice<u8>>,
    format: NotifyFormat,
    kinds: BTreeSet<NotificationKind>,
    http: reqwest::Client,
}

/// Everybody who is told.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    all: Vec<Arc<Target>>,
    /// Id of the installation that speaks.
    installation: String,
}

impl Targets {
    /// Clients for the targets of the settings; nothing is sent yet.
    ///
    /// # Errors
    /// No client can be made.
    pub fn new(
        settings: &[NotifyTarget],
        installation: &str,
        pace: Pace,
    ) -> Result<Self, reqwest::Error> {
        let target = |(index, setting): (usize, &NotifyTarget)| {
            let url = setting.webhook.expose_secret();
            let host = url.parse::<http::Uri>().ok();
            let host = host.as_ref().and_then(http::Uri::host).unwrap_or("?");
            let target = Target {
                id: hex::encode(&Sha256::digest(url)[..8]),
                name: format!("{}:{host}", index + 1),
                url: setting.webhook.clone(),
                secret: setting.secret.clone(),
                format: setting.format,
                kinds: setting.events.clone(),
                http: http_client::web(pace.time_out)?,
            };
            Ok(Arc::new(target))
        };
        let all = settings.iter().enumerate().map(target).collect::<Result<_, reqwest::Error>>()?;
        Ok(Self { all, installation: installation.to_owned() })
    }

    /// Who is told of what.
    #[must_use]
    pub fn rule(&self) -> TellRule {
        let kinds: Vec<_> = self.all.iter().map(|t| (t.id.clone(), t.kinds.clone())).collect();
        Arc::new(move |event| {
            let Some(kind) = NotificationKind::of_word(&event.reason) else { return Vec::new() };
            let told = kinds.iter().filter(|(_, kinds)| kinds.contains(&kind));
            told.map(|(id, _)| id.clone()).collect()
        })
    }

    /// Sends each of them a test message now, past the queue; what came of it, by name.
    pub async fn test(&self) -> Vec<(String, Result<String, String>)> {
        let now = UnixMs::now();
        let one = |target: Arc<Target>| {
            let message = Message::test(&self.installation, now);
            async move {
                let id = hex::encode(rand::random::<[u8; 16]>());
                let sent = send::send(&target, &id, &message).await;
                let told = sent.map(|status| format!("it answered {status}"));
                (target.name.clone(), told.map_err(|error| error.to_string()))
            }
        };
        futures::future::join_all(self.all.iter().cloned().map(one)).await
    }

    /// Whether each of them can be reached, without telling it anything: a `HEAD` of its URL is
    /// answered, whatever the answer is.
    pub async fn probe(&self) -> Vec<(String, Result<String, String>)> {
        let one = |target: Arc<Target>| async move {
            let answered = send::probe(&target).await;
            (target.name.clone(), answered.map(|status| format!("it answers ({status} to a HEAD)")))
        };
        futures::future::join_all(self.all.iter().cloned().map(one)).await
    }
}
