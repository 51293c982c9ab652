//! What the operator remembers of one cluster, as one document: record, what was told, events, and
//! notices that wait. One write changes all of it or nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::super::{Event, Notice, REPEATED, StoreError};
use crate::api::types::Spec;
use crate::model::record::Record;
use crate::model::time::UnixMs;

/// Events kept of a cluster: the whole document is written with each.
pub const EVENTS_KEPT: usize = 200;
/// Events of one reason kept of a cluster.
pub const EVENTS_OF_A_REASON: usize = 50;
/// The longest text of an event that is kept, bytes: what a provider answers has no bound.
const LONGEST: usize = 1024;
/// Bytes of a document beyond which old notices, then old events go: an object of Kubernetes holds
/// 1 MiB.
const MOST: usize = 768 << 10;

/// What the operator remembers of one cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Memory {
    /// The object that it is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// What was wanted when the record was last written: it goes on with that while the object
    /// cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<Spec>,
    pub record: Record,
    pub record_version: u64,
    /// What was found in Secrets, by `SECRET/KEY`: hashes of passwords, and what the operator has to
    /// use itself, encrypted, by `SECRET/KEY/sealed`. A Secret that is deleted takes nobody's password
    /// away.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub passwords: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub told: BTreeSet<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Queued>,
}

/// An object by which it is known among those of its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Owner {
    pub namespace: String,
    pub uid: String,
}

/// A notice that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Queued {
    pub number: u64,
    pub id: String,
    pub target: String,
    pub event: Event,
}

impl From<&Queued> for Notice {
    fn from(queued: &Queued) -> Self {
        let Queued { number, id, target, event } = queued.clone();
        Self { number, id, target, event }
    }
}

/// What comes of writing events.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Targets for which there is a notice more.
    pub targets: BTreeSet<String>,
    /// The events as they are kept now.
    pub events: Vec<Event>,
}

fn shortened(mut event: Event) -> Event {
    event.message.truncate(event.message.floor_char_boundary(LONGEST));
    event
}

impl Memory {
    /// It is of this object from now on. An earlier one of that name that was carried to its end is
    /// somebody else's story; one whose record stands was made anew by somebody, and goes on.
    pub fn adopt(&mut self, owner: &Owner) {
        if self.owner.as_ref() == Some(owner) {
            return;
        }
        if self.is_anothers(owner) {
            (self.events, self.told) = (Vec::new(), BTreeSet::new());
        }
        // Those were found in its namespace.
        self.passwords.clear();
        self.owner = Some(owner.clone());
    }

    /// What it tells is of an object that is gone, and not of this one.
    pub fn is_anothers(&self, owner: &Owner) -> bool {
        self.owner.as_ref().is_some_and(|known| known != owner) && self.record == Record::default()
    }

    pub fn set_record(
        &mut self,
        name: &str,
        expected: u64,
        record: &Record,
    ) -> Result<u64, StoreError> {
        if self.record_version != expected {
            return Err(StoreError::Conflict { name: name.to_owned() });
        }
        (self.record, self.record_version) = (record.clone(), expected + 1);
        Ok(self.record_version)
    }

    /// Writes events; those that are news are queued for whoever the rule names, under the numbers
    /// that are drawn.
    pub fn add_events(
        &mut self,
        events: &[Event],
        rule: impl Fn(&Event) -> Vec<String>,
        mut number: impl FnMut() -> u64,
    ) -> Written {
        let mut written = Written::default();
        let events: Vec<Event> = events.iter().cloned().map(shortened).collect();
        for event in &events {
            let (alike, others): (Vec<Event>, Vec<Event>) =
                self.events.drain(..).partition(|known| known.is_alike(event));
            self.events = others;
            self.events.push(alike.iter().fold(event.clone(), Event::with));
            self.drop_surplus(&event.reason);
            if !alike.iter().all(|before| event.at.passed(before.at, REPEATED)) {
                continue;
            }
            let id = hex::encode(rand::random::<[u8; 16]>());
            for target in rule(event) {
                let (id, event) = (id.clone(), event.clone());
                self.notices.push(Queued { number: number(), id, target: target.clone(), event });
                written.targets.insert(target);
            }
        }
        let new = |kept: &&Event| events.iter().any(|event| kept.is_alike(event));
        written.events = self.events.iter().filter(new).cloned().collect();
        written
    }

    fn drop_surplus(&mut self, reason: &str) {
        if self.events.iter().filter(|event| event.reason == reason).count() > EVENTS_OF_A_REASON {
            let oldest = self.events.iter().position(|event| event.reason == reason);
            oldest.map(|at| self.events.remove(at));
        }
        let surplus = self.events.len().saturating_sub(EVENTS_KEPT);
        self.events.drain(..surplus);
    }

    /// The object is gone: what happened can still be read, and what waits is still told.
    pub fn end(&mut self) {
        let Self { owner, events, notices, .. } = std::mem::take(self);
        (self.owner, self.events, self.notices) = (owner, events, notices);
    }

    /// Nothing of it is of use any more: its object is gone, and its last event is older than this.
    pub fn is_over(&self, oldest: UnixMs) -> bool {
        let old = self.events.iter().all(|event| event.at < oldest);
        self.record == Record::default() && self.notices.is_empty() && old
    }

    /// As text that an object of Kubernetes can hold; what does not fit goes, the oldest first.
    pub fn text(&mut self) -> Result<String, StoreError> {
        loop {
            let text =
                serde_json::to_string(self).map_err(|e| StoreError::Failed(e.to_string()))?;
            if text.len() <= MOST {
                return Ok(text);
            }
            let list = (self.notices.len() / 4 + 1, self.events.len() / 4 + 1);
            if !self.notices.is_empty() {
                tracing::warn!(
                    notices = list.0,
                    "there is no room for the oldest notices, so nobody is told of them"
                );
                self.notices.drain(..list.0.min(self.notices.len()));
            } else if !self.events.is_empty() {
                self.events.drain(..list.1.min(self.events.len()));
            } else {
                return Err(StoreError::Failed(format!(
                    "a record of {} bytes is more than an object of Kubernetes holds",
                    text.len()
                )));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: u64) -> Event {
        Event::new(UnixMs(n), "cache", format!("Tested{}", n % 5), format!("number {n}"))
    }

    fn owner(uid: &str) -> Owner {
        Owner { namespace: "a".into(), uid: uid.into() }
    }

    #[test]
    fn a_document_stays_within_what_an_object_holds() {
        let mut memory =
            Memory { record: Record { epoch: 7, ..Record::default() }, ..Memory::default() };
        let all = |_: &Event| vec!["a".to_owned(), "b".to_owned(), "c".to_owned(), "d".to_owned()];
        let mut last = 0;
        for n in 0..1000 {
            let long = Event { message: format!("{n} {}", "é".repeat(2000)), ..event(n) };
            memory.add_events(&[long], all, || {
                last += 1;
                last
            });
        }
        assert_eq!(memory.events.len(), EVENTS_KEPT);
        assert!(memory.events.iter().all(|e| e.message.len() <= LONGEST));
        let text = memory.text().unwrap();
        assert!(text.len() <= MOST, "{}", text.len());
        let read: Memory = serde_json::from_str(&text).unwrap();
        assert_eq!(read, memory);
        assert_eq!((read.record.epoch, read.notices.last().map(|n| n.number)), (7, Some(4000)));
    }

    #[test]
    fn a_record_that_stands_goes_on_with_an_object_that_was_made_anew() {
        let mut memory = Memory::default();
        memory.adopt(&owner("1"));
        memory.add_events(&[event(1)], |_| vec![], || 0);
        memory.set_record("cache", 0, &Record { epoch: 3, ..Record::default() }).unwrap();
        memory.adopt(&owner("2"));
        assert_eq!((memory.record.epoch, memory.events.len()), (3, 1));
        memory.end();
        assert_eq!(
            (memory.record_version, memory.events.len()),
            (0, 1),
            "how it ended can be read"
        );
        assert!(memory.is_anothers(&owner("3")) && !memory.is_anothers(&owner("2")));
        memory.adopt(&owner("3"));
        assert!(memory.events.is_empty(), "an earlier cluster of this name is another story");
    }

    #[test]
    fn a_document_of_an_earlier_release_is_read() {
        let read: Memory = serde_json::from_str(r#"{"record":{"epoch":4},"later":1}"#).unwrap();
        assert_eq!((read.record.epoch, read.record_version), (4, 0));
    }
}
