//! What people outside are told of: kinds of notifications, each made from a word of the journal.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, EnumString, IntoStaticStr};

use super::events::EventReason;

/// What a notification is about.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    Display,
    EnumIter,
    EnumString,
    IntoStaticStr,
)]
pub enum NotificationKind {
    /// The master died and another node took over, or it went on with its own data.
    Failover,
    /// A planned change of master is over, or was undone.
    Switchover,
    /// A node that ran was given up: its lease is gone, or it was silent for too long.
    NodeLost,
    /// The cluster waits for a person: nobody is promoted before somebody decides.
    Blocked,
    /// Something has been wrong for a minute.
    Degraded,
    /// Nothing has been wrong for five minutes, after `Degraded` or `Blocked`.
    Recovered,
    /// The cluster starts empty: what was written is gone.
    DataLost,
    /// The wallet can fill escrows for few more days.
    RunwayLow,
    /// A cluster that was to be deleted is gone.
    Deleted,
}

/// How much it matters, for formats that tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Look at it today.
    Warning,
    /// Look at it now.
    Critical,
}

impl NotificationKind {
    /// What this word of the journal is told as; `None` when nobody outside is told.
    #[must_use]
    pub const fn of(reason: EventReason) -> Option<Self> {
        use EventReason as E;
        match reason {
            E::FailoverCompleted | E::ColdStart | E::MasterRepromoted => Some(Self::Failover),
            E::SwitchoverCompleted | E::SwitchoverRolledBack | E::SwitchoverAborted => {
                Some(Self::Switchover)
            }
            E::NodeLost => Some(Self::NodeLost),
            E::ClusterBlocked => Some(Self::Blocked),
            E::ClusterDegraded => Some(Self::Degraded),
            E::ClusterRecovered => Some(Self::Recovered),
            E::DataLost => Some(Self::DataLost),
            E::RunwayLow => Some(Self::RunwayLow),
            E::ClusterDeleted => Some(Self::Deleted),
            _ => None,
        }
    }

    /// As [`Self::of`], by the word as it stands in the journal.
    #[must_use]
    pub fn of_word(reason: &str) -> Option<Self> {
        reason.parse().ok().and_then(Self::of)
    }

    /// How much it matters.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::Blocked | Self::DataLost => Severity::Critical,
            Self::Failover | Self::NodeLost | Self::Degraded | Self::RunwayLow => Severity::Warning,
            Self::Switchover | Self::Recovered | Self::Deleted => Severity::Info,
        }
    }
}

/// The kinds as a part of the reference.
#[must_use]
pub fn reference() -> String {
    use strum::IntoEnumIterator as _;
    let schema = schemars::schema_for!(NotificationKind);
    let meanings = super::schema::words(schema.as_value());
    let mut page = "\n## Kinds of notifications\n\nThe operator's `notify` names them \
        ([guide](../guide/notifications.md)).\n\n| word | meaning | events |\n| --- | --- | --- |\n"
        .to_owned();
    for kind in NotificationKind::iter() {
        let word = kind.to_string();
        let meaning = meanings.iter().find(|(known, _)| *known == word).map_or("", |(_, m)| *m);
        let events: Vec<String> = EventReason::iter()
            .filter(|reason| NotificationKind::of(*reason) == Some(kind))
            .map(|reason| format!("`{reason}`"))
            .collect();
        let line =
            format!("| `{word}` | {} | {} |\n", meaning.replace('\n', " "), events.join(", "));
        page.push_str(&line);
    }
    page
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator as _;

    use super::*;

    #[test]
    fn every_kind_comes_of_some_event_and_is_found_by_its_word() {
        for kind in NotificationKind::iter() {
            let events: Vec<_> =
                EventReason::iter().filter(|r| NotificationKind::of(*r) == Some(kind)).collect();
            assert!(!events.is_empty(), "{kind} never comes");
            for reason in events {
                assert_eq!(NotificationKind::of_word(&reason.to_string()), Some(kind));
            }
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert_eq!(NotificationKind::of_word("EffectFailed"), None);
        assert_eq!(NotificationKind::of_word("OfAnotherVersion"), None);
    }
}
