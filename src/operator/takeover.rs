//! A target that becomes master by itself: whoever waits for it is told as soon as it says so, and not
//! when the pass ends that happens to be under way (docs/decisions/0112-who-waits-hears-at-once.md).
//!
//! What is told is what the next pass finds, which writes it down: nothing else follows from it here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

use super::{Pipeline, lock};
use crate::api::endpoint::EndpointReport;
use crate::model::inventory::Inventory;
use crate::plan::{Plan, Takeover};
use crate::server::StatusCache;
use crate::store::Stored;

/// For so long the cluster is not planned while a takeover is awaited: nothing follows from a source
/// that is fenced, and a plan would only keep the processor from the takeover. On one machine it is
/// over by then.
const REST: Duration = Duration::from_millis(20);
/// The same once it was told: those who wait for it send what they hold back.
const AFTER: Duration = Duration::from_millis(5);
/// By then the target took over, or is promoted by command, or the source takes writes again.
const LIMIT: Duration = Duration::from_secs(15);

/// The takeovers that are awaited, by cluster.
#[derive(Debug, Default)]
pub struct Takeovers(Mutex<BTreeMap<String, Awaited>>);

#[derive(Debug)]
struct Awaited {
    /// What is told then.
    report: EndpointReport,
    since: Instant,
    /// Since when it is told, while no plan has it yet.
    told: Option<Instant>,
}

impl Takeovers {
    /// It is awaited from now on; false where it was already.
    fn begin(&self, name: &str, report: EndpointReport) -> bool {
        let mut all = lock(&self.0);
        let epoch = report.master.epoch;
        if all.get(name).is_some_and(|known| known.report.master.epoch == epoch) {
            return false;
        }
        let awaited = Awaited { report, since: Instant::now(), told: None };
        all.insert(name.to_owned(), awaited);
        true
    }

    /// For how long it need not be planned.
    pub fn rest(&self, name: &str) -> Option<Duration> {
        let all = lock(&self.0);
        let Awaited { since, told, .. } = all.get(name)?;
        let (rest, since) = told.map_or((REST, *since), |told| (AFTER, told));
        rest.checked_sub(since.elapsed()).filter(|rest| !rest.is_zero())
    }

    /// Tells that the target of this epoch took over, unless a plan ended the wait before.
    pub fn tell(&self, name: &str, epoch: u64, cache: &StatusCache) {
        let mut all = lock(&self.0);
        let awaited = all.get_mut(name).filter(|a| a.report.master.epoch == epoch);
        if let Some(awaited) = awaited {
            awaited.told = Some(Instant::now());
            cache.publish_endpoint(name, Some(awaited.report.clone()));
        }
    }

    /// Publishes by `publish` where writes go: what a plan says, unless that is older than a takeover
    /// which was told. A plan that has it, or that awaits none any more, ends the wait.
    pub fn publish(
        &self,
        name: &str,
        plan: &Plan,
        planned: Option<EndpointReport>,
        publish: impl FnOnce(Option<EndpointReport>),
    ) {
        let mut all = lock(&self.0);
        let stays = all.get(name).filter(|awaited| {
            let epoch = awaited.report.master.epoch;
            let knows = plan.record.master.as_ref().is_some_and(|master| master.epoch >= epoch);
            let awaits = plan.takeover.as_ref().is_some_and(|t| t.delegated.epoch == epoch);
            !knows && (awaited.told.is_some() || awaits)
        });
        match stays {
            Some(awaited) if awaited.told.is_some() => publish(Some(awaited.report.clone())),
            Some(_) => publish(planned),
            None => {
                all.remove(name);
                publish(planned);
            }
        }
    }

    /// A cluster is gone.
    pub fn forget(&self, name: &str) {
        lock(&self.0).remove(name);
    }
}

impl Pipeline {
    /// Listens for the takeover that a plan awaits, before its source is told to hand over.
    pub(super) fn await_takeover(
        self: &Arc<Self>,
        stored: &Stored,
        inventory: &Inventory,
        plan: &Plan,
    ) {
        let Some(takeover) = plan.takeover.clone() else { return };
        let name = stored.cluster.metadata.name.clone();
        let Some(report) = self.publisher.endpoint_after(&takeover, stored, inventory, plan) else {
            return;
        };
        if !self.publisher.takeovers.begin(&name, report) {
            return;
        }
        let mut news = self.ports.agents.changes();
        let this = self.clone();
        self.task(async move {
            let seen = async {
                while !this.has_seen(&takeover) {
                    if news.next().await.is_none() {
                        std::future::pending::<()>().await;
                    }
                }
            };
            if timeout(LIMIT, seen).await.is_ok() {
                this.publisher.tell_of_takeover(&name, takeover.delegated.epoch);
                // Who hears it goes first.
                yield_now().await;
                this.queue.add(name);
            }
        });
    }

    fn has_seen(&self, takeover: &Takeover) -> bool {
        self.ports.agents.view(&takeover.target).is_some_and(|view| takeover.is_seen_in(&view))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::status::Endpoint;

    const NAME: &str = "cache";

    fn endpoint(epoch: u64) -> EndpointReport {
        EndpointReport::from(Endpoint { epoch, ..Endpoint::default() }).tagged()
    }

    fn told(cache: &StatusCache) -> Option<u64> {
        let now = futures::FutureExt::now_or_never(cache.wait_endpoint(NAME, None, Instant::now()));
        now.flatten().map(|endpoint| endpoint.master.epoch)
    }

    /// A plan of which the master is of this epoch, and which awaits the takeover of another one.
    fn plan(master: u64, awaits: Option<u64>) -> Plan {
        use crate::model::change::Delegated;
        use crate::model::ids::IncarnationName;
        use crate::model::record::{Promotion, Record};
        use crate::model::step::Quorum;
        use crate::model::time::UnixMs;
        let quorum = Quorum { min_replicas: 1, max_lag_seconds: 8 };
        let record = Record {
            epoch: awaits.unwrap_or(master),
            master: Some(Promotion {
                epoch: master,
                incarnation: IncarnationName(format!("cache-0-{master}")),
                run_id: "r".into(),
                boot_id: "b".into(),
                confirmed: true,
                since: UnixMs(0),
                quorum: Some(quorum),
            }),
            ..Record::default()
        };
        let takeover = awaits.map(|epoch| Takeover {
            target: IncarnationName(format!("cache-1-{epoch}")),
            delegated: Delegated {
                epoch,
                at: UnixMs(0),
                run_id: "r".into(),
                boot_id: "b".into(),
                quorum,
            },
            endpoint: Endpoint { epoch, ..Endpoint::default() },
        });
        Plan { record, takeover, ..Plan::default() }
    }

    /// As a pass publishes.
    fn pass(takeovers: &Takeovers, cache: &StatusCache, plan: &Plan) {
        let epoch = plan.record.master.as_ref().map(|master| master.epoch);
        takeovers.publish(NAME, plan, epoch.map(endpoint), |endpoint| {
            cache.publish_endpoint(NAME, endpoint);
        });
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_told_is_not_taken_back_by_a_plan_that_was_under_way() {
        let (takeovers, cache) = (Takeovers::default(), StatusCache::default());
        assert!(takeovers.begin(NAME, endpoint(5)));
        assert!(!takeovers.begin(NAME, endpoint(5)), "one task listens");
        pass(&takeovers, &cache, &plan(4, Some(5)));
        assert_eq!(told(&cache), Some(4), "nobody took over yet");
        takeovers.tell(NAME, 5, &cache);
        assert_eq!(told(&cache), Some(5));
        pass(&takeovers, &cache, &plan(4, Some(5)));
        assert_eq!(told(&cache), Some(5), "of a state that was heard before");
        pass(&takeovers, &cache, &plan(4, None));
        assert_eq!(told(&cache), Some(5), "one that gave up has not heard of it either");
        pass(&takeovers, &cache, &plan(5, None));
        pass(&takeovers, &cache, &plan(6, None));
        assert_eq!(told(&cache), Some(6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_takeover_that_is_not_awaited_any_more_is_not_told() {
        let (takeovers, cache) = (Takeovers::default(), StatusCache::default());
        takeovers.begin(NAME, endpoint(5));
        pass(&takeovers, &cache, &plan(4, None));
        takeovers.tell(NAME, 5, &cache);
        assert_eq!(told(&cache), Some(4), "the change was undone");
        takeovers.begin(NAME, endpoint(6));
        pass(&takeovers, &cache, &plan(6, Some(7)));
        takeovers.begin(NAME, endpoint(7));
        takeovers.tell(NAME, 6, &cache);
        assert_eq!(told(&cache), Some(6), "a pass was first, and the next change has begun");
        assert!(takeovers.rest(NAME).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_planned_for_a_moment_while_one_is_awaited() {
        let (takeovers, cache) = (Takeovers::default(), StatusCache::default());
        assert_eq!(takeovers.rest(NAME), None);
        takeovers.begin(NAME, endpoint(5));
        assert!(takeovers.rest(NAME).is_some_and(|rest| rest <= REST));
        tokio::time::advance(REST).await;
        assert_eq!(takeovers.rest(NAME), None, "then all is as ever");
        takeovers.begin(NAME, endpoint(6));
        takeovers.tell(NAME, 6, &cache);
        assert_eq!(takeovers.rest(NAME), Some(AFTER), "those who waited go first");
        tokio::time::advance(AFTER).await;
        assert_eq!(takeovers.rest(NAME), None);
    }
}
