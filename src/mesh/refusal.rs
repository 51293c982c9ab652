//! What an answer of the control API that is no success means, and what to do about it.

use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode, header};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::{MeshError, answers};

/// What a call needs from the credential.
#[derive(Clone, Copy)]
pub(super) enum Needs<'a> {
    /// The scopes for keys and devices.
    KeysAndDevices,
    /// These scopes, and the right to give out this tag.
    Tag(&'a str),
    /// The scope for reading the policy, which only the check of the policy uses.
    Policy,
}

/// An answer, read to its end.
pub(super) struct Answer {
    pub status: StatusCode,
    /// How long it asks to be left alone.
    pub retry_after: Option<Duration>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The API's own words, shortened.
    pub(super) fn message(&self) -> String {
        answers::message(&self.body).unwrap_or_else(|| {
            self.status.canonical_reason().unwrap_or("without a word").to_owned()
        })
    }
}

/// The error that an answer without success stands for.
pub(super) fn refusal(api: &str, what: &str, answer: &Answer, needs: Needs<'_>) -> MeshError {
    let (message, status) = (answer.message(), answer.status.as_u16());
    if answer.status.is_server_error() {
        return MeshError::Away { api: api.to_owned(), detail: format!("{status} {message}") };
    }
    // Tailscale answers a tag that is not ours to give with 400, headscale with 403.
    let about_tags = matches!(needs, Needs::Tag(_)) && status == 400 && message.contains("tag");
    let what = what.to_owned();
    if about_tags || matches!(status, 401 | 403) {
        return MeshError::Forbidden { what, status, message, remedy: remedy(status, needs) };
    }
    MeshError::Refused { what, status, message }
}

fn remedy(status: u16, needs: Needs<'_>) -> String {
    let client = "the OAuth client of `mesh.oauthClientId`";
    let scopes = "the scopes auth_keys and devices:core";
    match (status, needs) {
        (401, _) => format!(
            "{client} or its secret is not valid (any more): make one with {scopes} and update `mesh.oauthSecretFile`"
        ),
        (_, Needs::Tag(tag)) => format!(
            "{client} needs {scopes}, and the policy's tagOwners must give {tag} to a tag of that client"
        ),
        (_, Needs::Policy) => format!(
            "{client} needs the scope policy_file:read; nothing but the check of the policy uses it"
        ),
        (_, Needs::KeysAndDevices) => format!("{client} needs {scopes}"),
    }
}

/// The scope without which a credential is of no use to us, by what its token says of itself;
/// `None` when it has all, or nothing is said.
pub(super) fn lacks(scope: Option<&str>) -> Option<String> {
    let has: Vec<&str> = scope?.split_whitespace().take(64).collect();
    // `devices` is what older clients have for both.
    let enough = has.is_empty() || has.iter().any(|scope| matches!(*scope, "all" | "devices"));
    let missing = ["auth_keys", "devices:core"].into_iter().find(|wanted| !has.contains(wanted));
    missing.filter(|_| !enough).map(str::to_owned)
}

/// The error of a credential that lacks `scope`.
pub(super) fn too_small(what: &str, scope: &str) -> MeshError {
    let message = format!("its token has no scope {scope}");
    MeshError::Forbidden {
        what: what.to_owned(),
        status: 403,
        message,
        remedy: remedy(403, Needs::KeysAndDevices),
    }
}

/// A 400 to a deletion is good news only when the text says that no such thing can exist.
pub(super) fn says_no_such_id(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("not found")
        || message.contains("no such")
        || (["malformed", "invalid"].iter().any(|word| message.contains(word))
            && message.contains("id"))
}

/// How long an answer asks to be left alone: a number of seconds, or a date.
pub(super) fn retry_after(headers: &HeaderMap, now: OffsetDateTime) -> Option<Duration> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok().map(str::trim);
    let wanted = text(header::RETRY_AFTER)?;
    if let Ok(seconds) = wanted.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = OffsetDateTime::parse(wanted, &Rfc2822).ok()?;
    // The date is by the server's clock, and the server says what that shows; ours may be an hour
    // off.
    let now = text(header::DATE)
        .and_then(|date| OffsetDateTime::parse(date, &Rfc2822).ok())
        .unwrap_or(now);
    Some(Duration::try_from(until - now).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2022-03-05 17:10:27 UTC.
    const NOW: i64 = 1_646_500_227;

    fn asked(headers: &[(HeaderName, &str)]) -> Option<Duration> {
        let headers =
            headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        retry_after(&headers, OffsetDateTime::from_unix_timestamp(NOW).unwrap())
    }

    #[test]
    fn a_pause_is_given_in_seconds_or_as_a_date() {
        for (text, pause) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("Sat, 05 Mar 2022 17:11:27 GMT", Some(60)),
            ("Sat, 05 Mar 2022 17:00:00 GMT", Some(0)),
            ("-3", None),
            ("soon", None),
        ] {
            assert_eq!(
                asked(&[(header::RETRY_AFTER, text)]),
                pause.map(Duration::from_secs),
                "{text:?}"
            );
        }
        assert_eq!(asked(&[]), None);
    }

    #[test]
    fn a_token_says_what_it_may() {
        for enough in [
            None,
            Some(""),
            Some("all"),
            Some("devices"),
            Some("devices:core auth_keys policy_file:read"),
            Some("all:read all"),
        ] {
            assert_eq!(lacks(enough), None, "{enough:?}");
        }
        for (scope, lacking) in [
            ("auth_keys", "devices:core"),
            ("devices:core auth_keys:read", "auth_keys"),
            ("all:read", "auth_keys"),
        ] {
            assert_eq!(lacks(Some(scope)).as_deref(), Some(lacking), "{scope}");
        }
    }

    #[test]
    fn a_date_counts_by_the_servers_clock_where_it_tells_it() {
        let an_hour_on = [
            (header::RETRY_AFTER, "Sat, 05 Mar 2022 18:10:37 GMT"),
            (header::DATE, "Sat, 05 Mar 2022 18:10:27 GMT"),
        ];
        assert_eq!(asked(&an_hour_on), Some(Duration::from_secs(10)));
    }
}
