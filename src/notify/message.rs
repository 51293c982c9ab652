//! What a notification says, in each format: pure.

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

use crate::api::notifications::{NotificationKind, Severity};
use crate::config::NotifyFormat;
use crate::model::time::UnixMs;
use crate::store::Event;

/// Characters of a sentence that are sent; some receivers refuse more than a few thousand.
const LONGEST: usize = 2000;
/// The kind of a test message; no setting names it.
const TEST: &str = "Test";

/// A message, before it has a form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Message {
    /// A [`NotificationKind`], or `Test`.
    pub(super) kind: String,
    pub(super) severity: Severity,
    /// Empty when it is about no cluster.
    pub(super) cluster: String,
    /// The word in the journal.
    pub(super) reason: String,
    /// One sentence.
    #[serde(rename = "message")]
    pub(super) text: String,
    /// When it happened.
    pub(super) time: String,
    /// Who says it.
    pub(super) installation: String,
}

impl Message {
    /// What a notice of the store says; `None` for a word that is told to nobody any more.
    pub(super) fn of(event: &Event, installation: &str) -> Option<Self> {
        let kind = NotificationKind::of_word(&event.reason)?;
        Some(Self {
            kind: kind.to_string(),
            severity: kind.severity(),
            cluster: event.cluster.clone(),
            reason: event.reason.clone(),
            text: event.message.chars().take(LONGEST).collect(),
            time: event.at.to_string(),
            installation: installation.to_owned(),
        })
    }

    pub(super) fn test(installation: &str, now: UnixMs) -> Self {
        Self {
            kind: TEST.to_owned(),
            severity: Severity::Info,
            cluster: String::new(),
            reason: TEST.to_owned(),
            text: "this is a test: notifications of the akash-redis operator arrive here"
                .to_owned(),
            time: now.to_string(),
            installation: installation.to_owned(),
        }
    }

    fn title(&self) -> String {
        if self.cluster.is_empty() {
            format!("akash-redis: {}", self.kind)
        } else {
            format!("{}: {}", self.cluster, self.kind)
        }
    }

    /// The body in a format.
    pub(super) fn body(&self, id: &str, format: NotifyFormat) -> Vec<u8> {
        let text = match format {
            NotifyFormat::Json => {
                let mut object = serde_json::to_value(self).unwrap_or_default();
                object["id"] = id.into();
                object.to_string()
            }
            NotifyFormat::Slack => {
                let text = format!("*{}*\n{}", self.title(), escaped(&self.text));
                serde_json::json!({ "text": text }).to_string()
            }
            NotifyFormat::Ntfy => self.text.clone(),
        };
        text.into_bytes()
    }

    /// The headers that belong to the format.
    pub(super) fn headers(&self, format: NotifyFormat) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let content = match format {
            NotifyFormat::Json | NotifyFormat::Slack => "application/json",
            NotifyFormat::Ntfy => "text/plain; charset=utf-8",
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content));
        if format == NotifyFormat::Ntfy {
            let (priority, tag) = match self.severity {
                Severity::Info => ("3", "information_source"),
                Severity::Warning => ("4", "warning"),
                Severity::Critical => ("5", "rotating_light"),
            };
            // Names of clusters and kinds are plain ASCII.
            if let Ok(title) = HeaderValue::from_str(&self.title()) {
                headers.insert(HeaderName::from_static("title"), title);
            }
            headers.insert(HeaderName::from_static("priority"), HeaderValue::from_static(priority));
            headers.insert(HeaderName::from_static("tags"), HeaderValue::from_static(tag));
        }
        headers
    }
}

/// The three characters that mean something to Slack.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        let text = "cache-0-a & <cache-1-b>: lost";
        let event = Event::new(UnixMs(1_795_000_000_000), "cache", "NodeLost", text);
        Message::of(&event, "abcdef").expect("told")
    }

    fn text(format: NotifyFormat) -> String {
        String::from_utf8(message().body("7", format)).expect("text")
    }

    #[test]
    fn each_format_says_the_same_in_its_own_form() {
        let json: serde_json::Value = serde_json::from_str(&text(NotifyFormat::Json)).unwrap();
        let expected = serde_json::json!({
            "id": "7", "kind": "NodeLost", "severity": "warning", "cluster": "cache", "reason": "NodeLost",
            "message": "cache-0-a & <cache-1-b>: lost", "time": "2026-11-18T11:06:40Z", "installation": "abcdef",
        });
        assert_eq!(json, expected);
        let slack: serde_json::Value = serde_json::from_str(&text(NotifyFormat::Slack)).unwrap();
        let expected = "*cache: NodeLost*\ncache-0-a &amp; &lt;cache-1-b&gt;: lost";
        assert_eq!(slack, serde_json::json!({ "text": expected }));
        assert_eq!(text(NotifyFormat::Ntfy), "cache-0-a & <cache-1-b>: lost");
        let headers = message().headers(NotifyFormat::Ntfy);
        assert_eq!(headers["title"], "cache: NodeLost");
        assert_eq!(headers["priority"], "4");
    }

    #[test]
    fn a_word_that_is_told_to_nobody_makes_no_message_and_a_long_one_is_cut() {
        let other = Event::new(UnixMs(1), "cache", "EffectFailed", "x");
        assert_eq!(Message::of(&other, "abcdef"), None);
        let long = Event::new(UnixMs(1), "cache", "NodeLost", "ü".repeat(5000));
        assert_eq!(Message::of(&long, "abcdef").unwrap().text.chars().count(), LONGEST);
    }
}
