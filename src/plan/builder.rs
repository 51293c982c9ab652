//! The plan while it is being made.

use std::time::Duration;

use super::Input;
use crate::api::conditions::Reason;
use crate::api::events::EventReason;
use crate::api::types::Spec;
use crate::api::word::AcceptedLoss;
use crate::model::experience::Note;
use crate::model::ids::IncarnationName;
use crate::model::incarnation::{Condemned, Incarnation, Membership};
use crate::model::interval::Interval;
use crate::model::node::{Authority, NodeState, NodeView};
use crate::model::record::Record;
use crate::model::step::{Command, Effect, Step, Wait};
use crate::model::time::UnixMs;

/// What the end of an incarnation means for the next one in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Nothing: it leaves as somebody wished.
    Wish,
    /// Nothing.
    Nobody,
    /// Its provider is chosen again only when nobody else bids.
    Provider,
    /// The same, and the next attempt is delayed.
    Attempt,
}

/// The plan while it is being made: the record is changed here, steps are allowed under the changed
/// record.
pub struct PlanBuilder<'a> {
    pub input: &'a Input<'a>,
    pub record: Record,
    pub steps: Vec<Step>,
    pub waits: Vec<Wait>,
    pub events: Vec<(EventReason, String)>,
    /// Why the cluster is less than it should be: a word and a sentence each.
    pub problems: Vec<(Reason, String)>,
    /// What was lived through with providers, by address.
    pub noted: Vec<(String, Note)>,
    /// What came to its end, and how long it took.
    pub measured: Vec<(Interval, Duration)>,
    used_ids: usize,
}

impl<'a> PlanBuilder<'a> {
    pub fn new(input: &'a Input<'a>) -> Self {
        Self {
            input,
            record: input.record.clone(),
            steps: Vec::new(),
            waits: Vec::new(),
            events: Vec::new(),
            problems: Vec::new(),
            noted: Vec::new(),
            measured: Vec::new(),
            used_ids: 0,
        }
    }

    pub fn spec(&self) -> &'a Spec {
        &self.input.cluster.spec
    }

    /// How many places there are: one more than wanted while nodes are started anew, where that is
    /// needed.
    pub fn places(&self) -> u32 {
        let surge = self.record.surge.as_ref().is_some_and(|surge| !surge.skipped);
        self.spec().nodes + u32::from(surge)
    }

    /// Of the manifest.
    pub fn generation(&self) -> u64 {
        self.input.cluster.metadata.generation.unwrap_or(0)
    }

    pub fn now(&self) -> UnixMs {
        self.input.now
    }

    /// The pair under which commands of the present epoch are sent.
    pub fn authority(&self) -> Authority {
        Authority { term: self.input.constants.term, epoch: self.record.epoch }
    }

    /// A node whose agent speaks to us now.
    pub fn connected(&self, name: &IncarnationName) -> Option<&'a NodeState> {
        self.view(name).filter(|v| v.connected).map(|v| &v.state)
    }

    /// The last that was heard of a node.
    pub fn view(&self, name: &IncarnationName) -> Option<&'a NodeView> {
        self.input.inventory.nodes.get(name)
    }

    /// Incarnations that were not given up, by ordinal.
    pub fn live(&self) -> Vec<(IncarnationName, Incarnation)> {
        let mut live: Vec<_> = self
            .record
            .incarnations
            .iter()
            .filter(|(_, i)| i.condemned.is_none())
            .map(|(n, i)| (n.clone(), i.clone()))
            .collect();
        live.sort_by_key(|(n, i)| (i.ordinal, i.reserved, n.clone()));
        live
    }

    pub fn incarnation(&self, name: &IncarnationName) -> Option<&Incarnation> {
        self.record.incarnations.get(name)
    }

    pub fn change(&mut self, name: &IncarnationName, edit: impl FnOnce(&mut Incarnation)) {
        if let Some(incarnation) = self.record.incarnations.get_mut(name) {
            edit(incarnation);
        }
    }

    /// Gives an incarnation up for good.
    pub fn condemn(&mut self, name: &IncarnationName, reason: &str, blame: Blame) {
        let (now, generation) = (self.now(), self.generation());
        let Some(incarnation) = self.record.incarnations.get_mut(name) else { return };
        if incarnation.condemned.is_some() {
            return;
        }
        incarnation.condemned =
            Some(Condemned { at: now, reason: reason.to_owned(), closed: None });
        incarnation.lower(Membership::Member);
        let (ordinal, lease) = (incarnation.ordinal, incarnation.lease.clone());
        let word = if incarnation.has_joined() && blame != Blame::Wish {
            EventReason::NodeLost
        } else {
            EventReason::NodeCondemned
        };
        let never_came = !incarnation.has_joined();
        if blame == Blame::Attempt {
            let failures = self.record.failures.entry(ordinal).or_default();
            failures.count += 1;
            failures.last = now;
            failures.generation = generation;
            reason.clone_into(&mut failures.reason);
        }
        if let Some(choice) = &lease {
            // A redis that does not start with its settings is not its provider's doing.
            let note = match (blame, never_came) {
                (Blame::Attempt, true) => Some(Note::FailedStart),
                (Blame::Provider, false) => Some(Note::Incident),
                _ => None,
            };
            self.noted.extend(note.map(|note| (choice.id.provider.clone(), note)));
        }
        let blames = matches!(blame, Blame::Attempt | Blame::Provider);
        if let Some(choice) = lease.filter(|_| blames) {
            let avoided = &mut self.record.failures.entry(ordinal).or_default().providers;
            if !avoided.contains(&choice.id.provider) {
                avoided.push(choice.id.provider);
            }
        }
        // What was to be done with it is not done any more.
        self.steps.retain(|step| step.effect.incarnation() != name);
        self.event(word, format!("{name} is given up: {reason}"));
    }

    pub fn step(&mut self, effect: Effect, reason: impl Into<String>) {
        self.steps.push(Step { effect, reason: reason.into() });
    }

    pub fn command(&mut self, name: &IncarnationName, command: Command, reason: impl Into<String>) {
        let authority = self.authority();
        self.step(Effect::Command { incarnation: name.clone(), authority, command }, reason);
    }

    pub fn wait(
        &mut self,
        what: impl Into<String>,
        since: UnixMs,
        limit: Option<Duration>,
        then: impl Into<String>,
    ) {
        let since = self.known(since);
        self.waits.push(Wait {
            what: what.into(),
            since,
            deadline: limit.map(|l| since + l),
            then: then.into(),
        });
    }

    /// Waits for something that is tried on and on; past its limit it is a problem that a person
    /// should look at.
    pub fn watch(
        &mut self,
        what: impl Into<String>,
        since: UnixMs,
        limit: Duration,
        reason: Reason,
    ) {
        let (what, since) = (what.into(), self.known(since));
        if self.now().passed(since, limit) {
            self.problem(
                reason,
                format!(
                    "waits for {what} since {since}, longer than the {} s it should take",
                    limit.as_secs()
                ),
            );
        }
        self.wait(what, since, Some(limit), "it is reported as a problem and retried");
    }

    /// What lasts since nobody knows when lasts for this process since it began.
    fn known(&self, since: UnixMs) -> UnixMs {
        if since == UnixMs::default() { self.input.constants.started } else { since }
    }

    pub fn event(&mut self, reason: EventReason, message: String) {
        self.events.push((reason, message));
    }

    pub fn problem(&mut self, reason: Reason, message: String) {
        self.problems.push((reason, message));
    }

    /// A person accepted, in the epoch that the cluster is in, the loss of what nobody who answers
    /// holds.
    pub fn loss_accepted(&self) -> bool {
        self.accepted().is_some()
    }

    /// That word, with who said it and who is to take over.
    pub fn accepted(&self) -> Option<AcceptedLoss> {
        AcceptedLoss::of(self.input.cluster).filter(|word| word.epoch == self.input.record.epoch)
    }

    /// What a person types to accept it.
    pub fn accept_loss_command(&self) -> String {
        format!("akash-redis failover {} --accept-loss", self.input.cluster.metadata.name)
    }

    /// A name for a new backup: the time, and what no other one has.
    pub fn take_backup_id(&mut self) -> Option<String> {
        let suffix = self.input.inventory.id_pool.suffixes.get(self.used_ids)?;
        self.used_ids += 1;
        let time: String = self.now().to_string().replace(['-', ':'], "");
        Some(format!("{time}-{suffix}"))
    }

    /// A name for a new incarnation and its deployment's sequence, which neither the record nor the
    /// chain knows.
    pub fn take_id(&mut self, ordinal: u32) -> Option<(IncarnationName, u64)> {
        let chain = self.input.inventory.chain.value.as_ref();
        loop {
            let suffix = self.input.inventory.id_pool.suffixes.get(self.used_ids)?;
            self.used_ids += 1;
            let name = IncarnationName::new(&self.input.cluster.metadata.name, ordinal, suffix);
            let dseq = name.dseq(&self.input.constants.installation);
            let on_chain = chain.is_some_and(|c| c.deployments.contains_key(&dseq));
            if !on_chain && !self.record.incarnations.contains_key(&name) {
                return Some((name, dseq));
            }
        }
    }
}
