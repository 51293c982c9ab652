//! Whom the operator tells outside: a list of targets, in the file or as YAML in one variable.

use std::collections::BTreeSet;

use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use serde_json::{Map, Value};
use strum::IntoEnumIterator as _;

use super::fields::Fields;
use super::{ConfigError, invalid, is_url, secret};
use crate::api::notifications::NotificationKind;

/// The setting.
pub(super) const FIELD: &str = "notify";
const KEYS: [&str; 5] = ["webhook", "webhookFile", "secretFile", "format", "events"];
/// Nobody has more places to look at.
const MOST: usize = 16;
/// A shorter secret can be guessed.
const LEAST_SECRET: usize = 16;

/// Somebody outside who is told.
#[derive(Debug)]
pub struct NotifyTarget {
    /// Where it is told; the URL may hold a token.
    pub webhook: SecretString,
    /// What messages are signed with.
    pub secret: Option<SecretSlice<u8>>,
    /// How a message is written.
    pub format: NotifyFormat,
    /// Of what it is told.
    pub events: BTreeSet<NotificationKind>,
}

/// How a message is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NotifyFormat {
    /// A JSON object, signed.
    #[default]
    Json,
    /// What Slack's incoming webhooks take, and those that are made after them.
    Slack,
    /// What a topic of ntfy takes.
    Ntfy,
}

pub(super) fn targets(fields: &Fields) -> Result<Vec<NotifyTarget>, ConfigError> {
    let Some(text) = fields.get(FIELD) else { return Ok(Vec::new()) };
    let options = serde_saphyr::options! { with_snippet: false };
    let list: Value = serde_saphyr::from_str_with_options(text, options).unwrap_or_default();
    let Value::Array(entries) = list else {
        return Err(wrong(
            "it must be a list, e.g. `[{ webhook: \"https://hooks.example.org/x\", secretFile: /etc/akash-redis/notify.secret }]`",
        ));
    };
    if entries.len() > MOST {
        return Err(wrong(format!("it has {} entries, and {MOST} are the most", entries.len())));
    }
    let mut targets: Vec<NotifyTarget> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let number = index + 1;
        let target = target(entry).map_err(|why| wrong(format!("entry {number}: {why}")))?;
        let same =
            |other: &NotifyTarget| other.webhook.expose_secret() == target.webhook.expose_secret();
        if let Some(at) = targets.iter().position(same) {
            return Err(wrong(format!(
                "entry {number}: it has the webhook of entry {}; name the events of both in one",
                at + 1
            )));
        }
        targets.push(target);
    }
    Ok(targets)
}

fn wrong(reason: impl Into<String>) -> ConfigError {
    invalid(FIELD, reason)
}

fn target(entry: &Value) -> Result<NotifyTarget, String> {
    let Value::Object(entry) = entry else {
        return Err("it must have fields: webhook, secretFile, format, events".into());
    };
    if let Some(key) = entry.keys().find(|key| !KEYS.contains(&key.as_str())) {
        let near = nearest(key, KEYS);
        return Err(format!("{key} is not a setting{near}"));
    }
    let format = match text(entry, "format")? {
        None | Some("json") => NotifyFormat::Json,
        Some("slack") => NotifyFormat::Slack,
        Some("ntfy") => NotifyFormat::Ntfy,
        Some(other) => return Err(format!("format `{other}` is not json, slack or ntfy")),
    };
    let secret = match text(entry, "secretFile")? {
        Some(path) => {
            let mut bytes = secret::bytes(FIELD, path).map_err(reason)?;
            // Editors and shells end a text with a line end that nobody means.
            while bytes.last().is_some_and(|last| matches!(last, b'\n' | b'\r')) {
                bytes.pop();
            }
            if bytes.len() < LEAST_SECRET {
                return Err(format!(
                    "secretFile {path} holds {} bytes and at least {LEAST_SECRET} are needed; make one with `openssl rand -hex 32`",
                    bytes.len()
                ));
            }
            Some(SecretSlice::from(bytes))
        }
        None if format == NotifyFormat::Json => {
            return Err("secretFile is missing: json messages are signed with its bytes, so that whoever gets one knows that it is the operator's; make one with `openssl rand -hex 32`".into());
        }
        None => None,
    };
    Ok(NotifyTarget { webhook: webhook(entry)?, secret, format, events: events(entry)? })
}

fn webhook(entry: &Map<String, Value>) -> Result<SecretString, String> {
    let url = match (text(entry, "webhook")?, text(entry, "webhookFile")?) {
        (Some(url), None) => SecretString::from(url),
        (None, Some(path)) => secret::text(FIELD, path).map_err(reason)?,
        (Some(_), Some(_)) => return Err("webhookFile is set beside webhook; keep one".into()),
        (None, None) => {
            return Err(
                "webhook is missing; write a URL, or a file that holds it in webhookFile".into()
            );
        }
    };
    // It may hold a token: it is not repeated.
    if is_url(url.expose_secret()) {
        Ok(url)
    } else {
        Err("its webhook is not a URL; write it like https://hooks.example.org/x".into())
    }
}

fn events(entry: &Map<String, Value>) -> Result<BTreeSet<NotificationKind>, String> {
    let Some(list) = entry.get("events") else { return Ok(NotificationKind::iter().collect()) };
    let list = list.as_array().filter(|list| !list.is_empty());
    let list =
        list.ok_or("events must be a list with one kind or more; without it all are told")?;
    let kind = |value: &Value| {
        let word = value.as_str().unwrap_or_default();
        word.parse::<NotificationKind>().map_err(|_| {
            let known: Vec<&'static str> = NotificationKind::iter().map(Into::into).collect();
            let near = match nearest(word, known.iter().copied()) {
                near if near.is_empty() => format!("; kinds are {}", known.join(", ")),
                near => near,
            };
            format!("events: nothing is ever told as `{word}`{near}")
        })
    };
    list.iter().map(kind).collect()
}

fn text<'a>(entry: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, String> {
    match entry.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(Some(text.trim())),
        Some(_) => Err(format!("{key} must be text")),
    }
}

fn reason(error: ConfigError) -> String {
    match error {
        ConfigError::Invalid { reason, .. } => reason,
        other => other.to_string(),
    }
}

/// `; did you mean X?`, where one is near.
fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let distance =
        |one: &str| strsim::damerau_levenshtein(&one.to_lowercase(), &word.to_lowercase());
    let best = known.into_iter().map(|one| (distance(one), one)).min();
    best.filter(|(far, _)| *far <= 3)
        .map_or_else(String::new, |(_, one)| format!("; did you mean {one}?"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tempfile::TempDir;

    use super::*;

    fn dir() -> TempDir {
        let dir = TempDir::new().unwrap();
        for (name, content, mode) in [
            ("secret", "0123456789abcdef", 0o600),
            ("short", "abc", 0o600),
            ("open", "0123456789abcdef", 0o644),
            ("url", "https://hooks.slack.com/services/T0/B0/token\n", 0o600),
        ] {
            std::fs::write(dir.path().join(name), content).unwrap();
            std::fs::set_permissions(dir.path().join(name), std::fs::Permissions::from_mode(mode))
                .unwrap();
        }
        dir
    }

    fn read(dir: &TempDir, list: &str, by_variable: bool) -> Result<Vec<NotifyTarget>, String> {
        let list = list.replace("DIR", &dir.path().display().to_string());
        let file = if by_variable { String::new() } else { format!("notify: {list}") };
        let env =
            move |name: &str| (by_variable && name == "AKASH_REDIS_NOTIFY").then(|| list.clone());
        let fields = Fields::read("operator.yaml", &file, &env).map_err(|e| e.to_string())?;
        targets(&fields).map_err(|e| e.to_string())
    }

    #[test]
    fn targets_are_read_from_the_file_and_from_the_variable_alike() {
        let dir = dir();
        let list = "[{ webhook: 'https://a.example/x', secretFile: DIR/secret, events: [Failover, DataLost] }, { webhookFile: DIR/url, format: slack }, { webhook: 'https://ntfy.sh/topic', format: ntfy }]";
        for by_variable in [false, true] {
            let targets = read(&dir, list, by_variable).unwrap();
            let formats: Vec<_> = targets.iter().map(|t| t.format).collect();
            assert_eq!(formats, [NotifyFormat::Json, NotifyFormat::Slack, NotifyFormat::Ntfy]);
            let two = BTreeSet::from([NotificationKind::Failover, NotificationKind::DataLost]);
            assert_eq!(targets[0].events, two);
            assert_eq!(targets[1].events.len(), NotificationKind::iter().count(), "all");
            assert_eq!(targets[0].secret.as_ref().unwrap().expose_secret(), b"0123456789abcdef");
            assert!(targets[1].webhook.expose_secret().ends_with("/token"));
            let shown = format!("{targets:?}");
            assert!(!shown.contains("token") && !shown.contains("hooks"), "{shown}");
        }
        assert!(read(&dir, "", false).unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_entry_and_without_its_token() {
        let dir = dir();
        let good = "webhook: 'https://a.example/x', secretFile: DIR/secret";
        for (list, says) in [
            ("[{ webhook: 'https://a.example/x' }]", "entry 1: secretFile is missing"),
            ("[{ secretFile: DIR/secret }]", "entry 1: webhook is missing"),
            ("[{ webhook: hush-token, secretFile: DIR/secret }]", "is not a URL"),
            ("[{ webhook: 'https://a/x', secretFile: DIR/short }]", "holds 3 bytes"),
            ("[{ webhook: 'https://a/x', secretFile: DIR/open }]", "chmod o="),
            ("[{ webhok: 'https://a/x' }]", "webhok is not a setting; did you mean webhook?"),
            ("[{ GOOD, format: teams }]", "format `teams` is not json, slack or ntfy"),
            ("[{ GOOD, events: [Failovr] }]", "`Failovr`; did you mean Failover?"),
            ("[{ GOOD, events: [BackupFailed] }]", "as `BackupFailed`; kinds are Failover,"),
            ("[{ GOOD, events: [] }]", "a list with one kind or more"),
            ("[{ GOOD }, { GOOD }]", "entry 2: it has the webhook of entry 1"),
            ("nobody", "it must be a list"),
        ] {
            let error = read(&dir, &list.replace("GOOD", good), false).unwrap_err();
            assert!(
                error.starts_with("notify cannot be used: ") && error.contains(says),
                "{list}: {error}"
            );
            assert!(!error.contains("hush"), "{error}");
        }
    }
}
