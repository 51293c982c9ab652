//! What people and programs see of a plan: status, events, metrics, the endpoint of the master.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::alarms::{self, Seen};
use super::announcer::Announcer;
use super::execute::{EffectError, Invalidates, describe, invalidates, kind};
use super::lock;
use super::metrics::Metrics;
use super::ports::Ports;
use super::settings::Settings;
use super::takeover::Takeovers;
use crate::api::deletion::{self, Deletion};
use crate::api::endpoint::{EndpointReport, ReplicaEndpoint};
use crate::api::events::EventReason;
use crate::api::measures;
use crate::api::report::{PlanReport, PlannedStep, StepKind};
use crate::api::status::Status;
use crate::model::announcement::{Announcement, Replica};
use crate::model::incarnation::Membership;
use crate::model::interval::Interval;
use crate::model::inventory::Inventory;
use crate::model::step::{Effect, Step};
use crate::plan::{self, Plan, Takeover};
use crate::server::StatusCache;
use crate::store::{Event, StoreError, Stored};

/// A status that differs in nothing but what is measured is written after so long at most, and not
/// before half of it: in between by the cluster's name, so that they are not all written at once.
const MEASURES_EVERY: Duration = Duration::from_hours(1);

/// Publishes plans and the results of effects.
pub struct Publisher {
    ports: Ports,
    metrics: Metrics,
    status_cache: Arc<StatusCache>,
    announcer: Announcer,
    /// From when on a status is written for its measures alone, by cluster.
    measures_due: Mutex<BTreeMap<String, Instant>>,
    /// Targets that take over by themselves.
    pub takeovers: Takeovers,
    /// What is wrong with each cluster, and what was told of it.
    alarms: Mutex<BTreeMap<String, (Seen, BTreeSet<String>)>>,
}

impl Publisher {
    /// Nothing was published yet.
    pub fn new(
        ports: Ports,
        settings: Arc<Settings>,
        metrics: Metrics,
        status_cache: Arc<StatusCache>,
        stop: CancellationToken,
    ) -> Self {
        let announcer = Announcer::new(ports.clone(), settings, stop);
        let (measures_due, alarms) = (Mutex::default(), Mutex::default());
        let takeovers = Takeovers::default();
        Self { ports, metrics, status_cache, announcer, measures_due, takeovers, alarms }
    }

    /// Publishes what a plan decided. A cluster of which nothing is left is removed.
    pub async fn publish(
        &self,
        stored: &Stored,
        inventory: &Inventory,
        plan: &Plan,
    ) -> Result<(), StoreError> {
        let name = &stored.cluster.metadata.name;
        if plan.finished {
            let message = format!("{name} is deleted, and nothing of it is left");
            let gone = (EventReason::ClusterDeleted, message);
            self.ports.store.add_events(&self.written_as(name, &[gone])).await?;
            return self.ports.store.remove(name).await;
        }
        // First whoever waits for another master: the record says it already.
        let wanted = self.announcer.wanted(stored, inventory, plan);
        let then = plan::per_month(inventory, plan::committed(inventory, &plan.record));
        let report = PlanReport { then_per_month: then.to_string(), ..report(plan) };
        let endpoint = endpoint(stored, plan, wanted.as_ref());
        self.takeovers.publish(name, plan, endpoint, |endpoint| {
            self.status_cache.publish(name, report, endpoint);
        });
        self.status_cache.publish_status(name, &plan.status);
        let heard = plan.record.incarnations.keys().filter_map(|node| {
            let view = inventory.nodes.get(node).filter(|view| view.connected)?;
            Some((node.0.clone(), &view.state.redis))
        });
        let heard: BTreeMap<_, _> = heard.collect();
        let loads = heard.iter().map(|(node, redis)| (node.clone(), (*redis).into())).collect();
        self.status_cache.publish_loads(name, loads);
        self.metrics.nodes_of(name, &heard);
        let rests = self.takeovers.rest(name).is_some();
        if let Some(wanted) = wanted {
            self.announcer.announce(wanted, inventory, plan, rests);
        }
        if rests {
            // What is only looked at goes with the pass after that.
            return Ok(());
        }
        if self.is_due(name, stored.cluster.status.as_ref(), &plan.status) {
            self.ports.store.set_status(name, &plan.status).await?;
        }
        self.metrics.status(name, &plan.status);
        self.metrics.money.cluster(name, &plan.status.cost, &plan.record, inventory);
        let nodes = plan.record.incarnations.keys();
        self.metrics.paths(name, nodes.filter_map(|n| Some((n, inventory.nodes.get(n)?))));
        if deletion::of(&stored.cluster, &plan.record) != Deletion::Granted {
            self.tell_problems(name, &plan.status).await?;
        }
        Ok(())
    }

    /// Tells whoever waits for the master on this machine, before the plan is stored: only where it
    /// confirms what the stored record chose.
    pub fn tell_of_master(&self, stored: &Stored, inventory: &Inventory, plan: &Plan) {
        let wanted = self.announcer.wanted(stored, inventory, plan);
        let endpoint = endpoint(stored, plan, wanted.as_ref());
        let name = &stored.cluster.metadata.name;
        self.takeovers.publish(name, plan, endpoint, |endpoint| {
            self.status_cache.publish_endpoint(name, endpoint);
        });
    }

    /// What [`Self::tell_of_master`] says of the plan in which the target has taken over.
    pub fn endpoint_after(
        &self,
        takeover: &Takeover,
        stored: &Stored,
        inventory: &Inventory,
        plan: &Plan,
    ) -> Option<EndpointReport> {
        let mut then = plan.clone();
        then.status.master = Some(takeover.endpoint.clone());
        for incarnation in then.record.incarnations.values_mut() {
            // In sync with the next master is whoever is seen to be.
            incarnation.lower(Membership::Member);
        }
        let wanted = self.announcer.wanted(stored, inventory, &then);
        endpoint(stored, &then, wanted.as_ref())
    }

    /// Tells whoever waits for the master on this machine of a takeover that is awaited.
    pub fn tell_of_takeover(&self, name: &str, epoch: u64) {
        self.takeovers.tell(name, epoch, &self.status_cache);
    }

    /// Writes down what has been wrong for a while, and what is no longer.
    async fn tell_problems(&self, name: &str, status: &Status) -> Result<(), StoreError> {
        let known = lock(&self.alarms).remove(name);
        let (mut seen, told) = match known {
            Some(known) => known,
            None => (Seen::default(), self.ports.store.told(name).await?),
        };
        let told = match alarms::look(&mut seen, &told, status, (self.ports.now)()) {
            Some(alarm) => {
                let events = self.written_as(name, &alarm.events);
                self.ports.store.set_told(name, &alarm.told, &events).await?;
                log(&events);
                alarm.told
            }
            None => told,
        };
        lock(&self.alarms).insert(name.to_owned(), (seen, told));
        Ok(())
    }

    /// A cluster was planned.
    pub fn reconciled(&self, took: Duration) {
        self.metrics.reconciled(took);
    }

    /// What came to its end with a plan whose record is written.
    pub fn measured(&self, name: &str, measured: &[(Interval, Duration)]) {
        for (interval, took) in measured {
            self.metrics.intervals.observe(name, *interval, *took);
        }
    }

    /// A cluster is gone.
    pub fn forget(&self, name: &str) {
        self.status_cache.remove(name);
        self.announcer.forget(name);
        self.takeovers.forget(name);
        self.metrics.forget(name);
        lock(&self.measures_due).remove(name);
        lock(&self.alarms).remove(name);
    }

    /// How a step ended.
    pub async fn record_result(
        &self,
        cluster: &str,
        step: &Step,
        error: Option<&EffectError>,
        took: Duration,
    ) {
        let end = error.map_or("ok", EffectError::word);
        self.metrics.effects.observe(cluster, kind(&step.effect), end, took);
        let (what, on) = (describe(&step.effect), step.effect.incarnation());
        let (reason, message) = match error {
            // A command says nothing that the status does not say a moment later.
            None if invalidates(&step.effect) == Invalidates::Nothing => {
                tracing::debug!(cluster, "{what} {on}: done");
                return;
            }
            None => (EventReason::EffectSucceeded, format!("{what} {on}: done ({})", step.reason)),
            Some(error) => (EventReason::EffectFailed, format!("{what} {on}: {error}")),
        };
        if error.is_some() {
            tracing::warn!(cluster, %reason, "{message}");
        } else {
            tracing::info!(cluster, %reason, "{message}");
        }
        let event = Event::new((self.ports.now)(), cluster, reason.to_string(), message);
        if let Err(error) = self.ports.store.add_events(&[event]).await {
            tracing::warn!(%error, "an event could not be written");
        }
    }

    /// Writes the events of a plan that left the record as it was.
    pub async fn record_events(&self, name: &str, plan: &Plan) -> Result<(), StoreError> {
        let events = self.events(name, plan);
        if events.is_empty() {
            return Ok(());
        }
        log(&events);
        self.ports.store.add_events(&events).await
    }

    /// The events of a plan.
    pub fn events(&self, name: &str, plan: &Plan) -> Vec<Event> {
        self.written_as(name, &plan.events)
    }

    fn written_as(&self, name: &str, events: &[(EventReason, String)]) -> Vec<Event> {
        let at = (self.ports.now)();
        let event = |(reason, message): &(EventReason, String)| {
            Event::new(at, name, reason.to_string(), message.as_str())
        };
        events.iter().map(event).collect()
    }

    /// What happened is written at once; what is measured goes with it, or waits.
    fn is_due(&self, name: &str, old: Option<&Status>, new: &Status) -> bool {
        let Some(old) = old else { return true };
        if old == new {
            return false;
        }
        let now = Instant::now();
        let mut due = lock(&self.measures_due);
        let next = due.entry(name.to_owned()).or_insert_with(|| now + measures_pause(name));
        if now < *next && measures::without(old) == measures::without(new) {
            return false;
        }
        *next = now + measures_pause(name);
        true
    }
}

/// Always the same for one cluster.
fn measures_pause(name: &str) -> Duration {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let share = u32::try_from(hasher.finish() % 1000).unwrap_or(0);
    MEASURES_EVERY / 2 + MEASURES_EVERY / 2 * share / 1000
}

/// Tells the log.
pub fn log(events: &[Event]) {
    for event in events {
        tracing::info!(cluster = event.cluster, reason = event.reason, "{}", event.message);
    }
}

/// What whoever looks for the master is answered.
fn endpoint(stored: &Stored, plan: &Plan, said: Option<&Announcement>) -> Option<EndpointReport> {
    let (metadata, users) = (&stored.cluster.metadata, &stored.cluster.spec.redis.users);
    let replica = |replica: &Replica| ReplicaEndpoint {
        incarnation: replica.place.incarnation.clone(),
        name: replica.place.name.clone(),
        ip: replica.place.ip.clone(),
        port: replica.place.port,
        region: replica.place.region.clone(),
        in_sync: replica.in_sync,
        lag_bytes: replica.lag_bytes,
    };
    let (master, elected) = match (&plan.status.master, &plan.elected) {
        (Some(master), _) => (master, false),
        (None, chosen) => (chosen.as_ref()?, true),
    };
    Some(EndpointReport {
        elected,
        cluster: metadata.name.clone(),
        uid: metadata.uid.clone().unwrap_or_default(),
        users: users.iter().map(|user| user.name.clone()).collect(),
        replicas: said.map(|said| said.replicas.iter().map(replica).collect()).unwrap_or_default(),
        ..master.clone().into()
    })
}

fn report(plan: &Plan) -> PlanReport {
    let step = |step: &Step| PlannedStep {
        incarnation: step.effect.incarnation().0.clone(),
        what: describe(&step.effect),
        reason: step.reason.clone(),
        kind: match step.effect {
            Effect::CreateDeployment { .. } => StepKind::Create,
            Effect::CloseDeployment { .. } => StepKind::Close,
            _ => StepKind::Change,
        },
    };
    PlanReport {
        steps: plan.steps.iter().map(step).collect(),
        waiting: plan.status.waiting.clone(),
        cost: plan.status.cost.clone(),
        then_per_month: String::new(),
    }
}
