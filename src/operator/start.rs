//! Starts the effects of a plan: those on one incarnation that make the same reading invalid run one
//! after the other, all others side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use super::execute::{EffectError, Invalidates, invalidates, kind};
use super::queue::Slots;
use super::{Pipeline, lock};
use crate::api::types::RedisCluster;
use crate::model::ids::IncarnationName;
use crate::model::inventory::Failing;
use crate::model::record::Record;
use crate::model::step::{Effect, Step};
use crate::plan::Plan;
use crate::store::Stored;
use crate::traces::Cause;

/// The effects under way, and those that failed last.
pub type Running = Slots<EffectKey, Effect>;

/// One effect of a key at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EffectKey {
    cluster: String,
    incarnation: IncarnationName,
    invalidates: Invalidates,
}

/// The nodes whose deployment one of the effects is about.
pub fn deployments(busy: &BTreeSet<EffectKey>) -> BTreeSet<IncarnationName> {
    let deployments = busy.iter().filter(|key| key.invalidates == Invalidates::Deployment);
    deployments.map(|key| key.incarnation.clone()).collect()
}

/// What traces show of an effect: its kind, whose it is, and the pass that decided it.
fn span_of(cluster: &RedisCluster, effect: &Effect, cause: &Cause) -> Span {
    let span = tracing::info_span!(
        parent: None,
        "effect",
        otel.name = format!("effect {}", kind(effect)),
        otel.status_code = tracing::field::Empty,
        cluster = cluster.metadata.name,
        node = effect.incarnation().0,
        end = tracing::field::Empty,
    );
    cause.of(&span);
    span
}

/// How it ended, in a word: sentences stay in the log and the events.
fn tell_end(span: &Span, error: Option<&EffectError>) {
    span.record("end", error.map_or("ok", EffectError::word));
    span.record("otel.status_code", if error.is_none() { "OK" } else { "ERROR" });
}

impl Pipeline {
    /// The keys of a cluster whose effects are under way.
    pub(super) fn busy(&self, cluster: &str) -> BTreeSet<EffectKey> {
        let running = lock(&self.running);
        running.busy().iter().filter(|key| key.cluster == cluster).cloned().collect()
    }

    /// Starts the steps of each key that neither runs nor pauses, nor was `busy` when the plan's
    /// inventory was taken: what ended since, while the record was written, is not in it.
    pub(super) fn execute(
        self: &Arc<Self>,
        stored: &Stored,
        plan: &Plan,
        busy: &BTreeSet<EffectKey>,
    ) {
        for (incarnation, entry) in &plan.record.incarnations {
            let there = entry.has_joined() && entry.rejoin.is_none() && entry.update.is_none();
            if there || entry.condemned.is_some() {
                self.manifests.done(incarnation);
            }
        }
        let mut by_key: BTreeMap<EffectKey, Vec<Step>> = BTreeMap::new();
        for step in &plan.steps {
            let key = EffectKey {
                cluster: stored.cluster.metadata.name.clone(),
                incarnation: step.effect.incarnation().clone(),
                invalidates: invalidates(&step.effect),
            };
            by_key.entry(key).or_default().push(step.clone());
        }
        for (key, steps) in by_key.into_iter().filter(|(key, _)| !busy.contains(key)) {
            if lock(&self.running).begin(&key, steps.iter().map(|step| &step.effect)) {
                self.spawn(key, steps, stored.cluster.clone(), plan.record.clone());
            }
        }
    }

    /// The last failures of a cluster's effects.
    pub(super) fn failing(&self, cluster: &str) -> Vec<Failing> {
        let running = lock(&self.running);
        let first = EffectKey {
            cluster: cluster.to_owned(),
            incarnation: IncarnationName(String::new()),
            invalidates: Invalidates::Deployment,
        };
        let all = running.failures((Bound::Included(first), Bound::Unbounded));
        all.take_while(|(key, _)| key.cluster == cluster)
            .map(|(_, failed)| Failing {
                effect: failed.work.clone(),
                times: failed.times,
                error: failed.error.clone(),
            })
            .collect()
    }

    /// The effects of a cluster that is gone.
    pub(super) fn forget_failures(&self, cluster: &str) {
        lock(&self.running).forget(|key| key.cluster == cluster);
    }

    fn spawn(
        self: &Arc<Self>,
        key: EffectKey,
        steps: Vec<Step>,
        cluster: RedisCluster,
        record: Record,
    ) {
        let dseq = |name: &IncarnationName| record.incarnations.get(name).map(|i| i.dseq);
        let creates = |step: &&Step| matches!(step.effect, Effect::CreateDeployment { .. });
        let new = steps.iter().filter(creates).filter_map(|step| dseq(step.effect.incarnation()));
        let announcement = self.transactions.announce(new.collect());
        let (this, cause) = (self.clone(), Cause::here());
        self.task(async move {
            let failure = this.carry_out(&steps, &cluster, &record, &cause).await;
            // The key stays taken until its reading is new: a plan on the old one would do it all
            // again.
            let dseq = record.incarnations.get(&key.incarnation).map(|i| i.dseq);
            this.read_again(&key, dseq.into_iter().collect()).await;
            drop(announcement);
            let name = key.cluster.clone();
            let pause = lock(&this.running).end(key, failure);
            this.queue.add(name.clone());
            if !pause.is_zero() {
                this.pause_over(name, pause);
            }
        });
    }

    /// Carries steps out until one fails; then that one, with its error and the first pause.
    async fn carry_out(
        self: &Arc<Self>,
        steps: &[Step],
        cluster: &RedisCluster,
        record: &Record,
        cause: &Cause,
    ) -> Option<(Effect, String, std::time::Duration)> {
        for step in steps {
            let began = Instant::now();
            let span = span_of(cluster, &step.effect, cause);
            let work = self.executor.execute(cluster, record, &step.effect);
            let done = work.instrument(span.clone()).await;
            tell_end(&span, done.as_ref().err());
            let name = &cluster.metadata.name;
            let error = done.as_ref().err();
            self.publisher.record_result(name, step, error, began.elapsed()).await;
            if let Err(error) = done {
                let (text, pause) = (error.to_string(), error.first_pause());
                if let EffectError::TxPending { tx, .. } = error {
                    self.resume(name.clone(), *tx);
                }
                return Some((step.effect.clone(), text, pause));
            }
        }
        None
    }

    async fn read_again(&self, key: &EffectKey, dseqs: BTreeSet<u64>) {
        match key.invalidates {
            Invalidates::Deployment => self.observer.read_deployments(&key.cluster, &dseqs).await,
            Invalidates::Mesh => {
                let news = self.observer.read_tailnet().await;
                self.wake(news);
            }
            Invalidates::Backups => self.observer.read_backups_again(&key.cluster).await,
            Invalidates::Nothing => {}
        }
    }
}
