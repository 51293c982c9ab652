//! What the operator lets others read of its present state: it writes after every plan, the API
//! reads and waits.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::recovery::Recovery;
use super::wallet::Minter;
use crate::api::endpoint::EndpointReport;
use crate::api::measures;
use crate::api::report::{OperatorReport, PlanReport};
use crate::api::status::Status;
use crate::api::top::NodeLoad;
use crate::api::types::RedisCluster;
use crate::api::wallet::WalletReport;
use crate::model::books::Head;

/// The present plan and endpoint of every cluster. In memory: after a restart it is empty until the
/// first plan.
#[derive(Debug, Default)]
pub struct StatusCache {
    entries: Mutex<BTreeMap<String, watch::Sender<Published>>>,
    statuses: Mutex<BTreeMap<String, Status>>,
    /// By cluster, then by incarnation.
    loads: Mutex<BTreeMap<String, BTreeMap<String, NodeLoad>>>,
    operator: Mutex<OperatorReport>,
    wallet: Mutex<WalletReport>,
    minter: OnceLock<Arc<dyn Minter>>,
    head: Mutex<Option<Head>>,
    recovery: OnceLock<Hand>,
    socks5: OnceLock<SocketAddr>,
}

/// Whoever can look at what no record knows.
struct Hand(Arc<dyn Recovery>);

impl std::fmt::Debug for Hand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hand")
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Published {
    plan: Option<PlanReport>,
    endpoint: Option<EndpointReport>,
}

impl StatusCache {
    /// Replaces what is known of a cluster; `endpoint` is the master that takes writes, or who was
    /// chosen to, if there is one.
    pub fn publish(&self, name: &str, plan: PlanReport, endpoint: Option<EndpointReport>) {
        let new = Published { plan: Some(plan), endpoint };
        self.entries().entry(name.to_owned()).or_default().send_if_modified(|old| {
            let changed = *old != new;
            *old = new;
            changed
        });
    }

    /// Replaces the endpoint of a cluster, of which nothing else is known here.
    pub fn publish_endpoint(&self, name: &str, endpoint: Option<EndpointReport>) {
        self.entries().entry(name.to_owned()).or_default().send_if_modified(|old| {
            let changed = old.endpoint != endpoint;
            old.endpoint = endpoint;
            changed
        });
    }

    /// Replaces the status of a cluster as the present plan has it.
    pub fn publish_status(&self, name: &str, status: &Status) {
        self.statuses().insert(name.to_owned(), status.clone());
    }

    /// Replaces what the nodes of a cluster have to do, by incarnation; those that are not heard are
    /// not among them.
    pub fn publish_loads(&self, name: &str, loads: BTreeMap<String, NodeLoad>) {
        self.all_loads().insert(name.to_owned(), loads);
    }

    /// What the nodes of a cluster have to do, by incarnation.
    #[must_use]
    pub fn loads(&self, name: &str) -> BTreeMap<String, NodeLoad> {
        self.all_loads().get(name).cloned().unwrap_or_default()
    }

    fn all_loads(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<String, NodeLoad>>> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces what is measured in an object's status by what is known of it now: it is written
    /// seldom, and whoever asks the operator is told the newest.
    pub fn refresh(&self, cluster: &mut RedisCluster) {
        let statuses = self.statuses();
        if let (Some(now), Some(status)) =
            (statuses.get(&cluster.metadata.name), cluster.status.as_mut())
        {
            measures::refresh(status, now);
        }
    }

    fn statuses(&self) -> MutexGuard<'_, BTreeMap<String, Status>> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the operator itself stands, as last published.
    #[must_use]
    pub fn operator(&self) -> OperatorReport {
        self.operator.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces it.
    pub fn publish_operator(&self, report: OperatorReport) {
        *self.operator.lock().unwrap_or_else(PoisonError::into_inner) = report;
    }

    /// Who burns AKT when it is asked for, once there is somebody.
    #[must_use]
    pub fn minter(&self) -> Option<Arc<dyn Minter>> {
        self.minter.get().cloned()
    }

    /// From now on this one does, unless there is one already.
    pub fn serve_minter(&self, minter: Arc<dyn Minter>) {
        self.minter.get_or_init(|| minter);
    }

    /// The wallet, as last published.
    #[must_use]
    pub fn wallet(&self) -> WalletReport {
        self.wallet.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces it.
    pub fn publish_wallet(&self, report: WalletReport) {
        *self.wallet.lock().unwrap_or_else(PoisonError::into_inner) = report;
    }

    /// How far the chain was when it was last read; `None` before that.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        *self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is that far at least.
    pub fn publish_head(&self, head: Head) {
        let mut known = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none_or(|known| known.height < head.height) {
            *known = Some(head);
        }
    }

    /// From now on this one is asked about what no record knows; the first one stays.
    pub fn serve_recovery(&self, recovery: Arc<dyn Recovery>) {
        let _ = self.recovery.set(Hand(recovery));
    }

    /// Whom to ask about what no record knows.
    #[must_use]
    pub fn recovery(&self) -> Option<Arc<dyn Recovery>> {
        self.recovery.get().map(|hand| hand.0.clone())
    }

    /// Programs beside the operator reach mesh addresses through this proxy, as it does itself.
    pub fn serve_socks5(&self, address: SocketAddr) {
        self.socks5.get_or_init(|| address);
    }

    /// The present plan; `None` before the first one.
    #[must_use]
    pub fn plan(&self, name: &str) -> Option<PlanReport> {
        self.entries().get(name).and_then(|entry| entry.borrow().plan.clone())
    }

    /// Waits until the cluster has an endpoint of an epoch above `after_epoch` (of any epoch when
    /// `None`).
    ///
    /// `None` when there is none at the deadline, or when the cluster is removed meanwhile. Ask
    /// only for clusters that exist: the question is remembered.
    pub async fn wait_endpoint(
        &self,
        name: &str,
        after_epoch: Option<u64>,
        deadline: Instant,
    ) -> Option<EndpointReport> {
        let is_new = |e: &EndpointReport| {
            !e.elected && after_epoch.is_none_or(|after| e.master.epoch > after)
        };
        self.wait(name, is_new, deadline).await
    }

    /// The same for an endpoint that has another tag than `known`, also of who was chosen only.
    pub async fn wait_news(
        &self,
        name: &str,
        known: &str,
        deadline: Instant,
    ) -> Option<EndpointReport> {
        self.wait(name, |e: &EndpointReport| self.completed(e).tag != known, deadline).await
    }

    async fn wait(
        &self,
        name: &str,
        is_new: impl Fn(&EndpointReport) -> bool,
        deadline: Instant,
    ) -> Option<EndpointReport> {
        let mut entry = self.entries().entry(name.to_owned()).or_default().subscribe();
        let is_new = |p: &Published| p.endpoint.as_ref().is_some_and(&is_new);
        let found = timeout_at(deadline, entry.wait_for(is_new)).await;
        let found = found.ok()?.ok()?.endpoint.clone()?;
        Some(self.completed(&found))
    }

    fn completed(&self, endpoint: &EndpointReport) -> EndpointReport {
        let socks5 = self.socks5.get().map(ToString::to_string);
        EndpointReport { socks5, ..endpoint.clone() }.tagged()
    }

    /// Forgets a cluster that is gone; whoever waits for it is told so.
    pub fn remove(&self, name: &str) {
        self.entries().remove(name);
        self.statuses().remove(name);
        self.all_loads().remove(name);
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, watch::Sender<Published>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::api::status::Endpoint;

    fn endpoint(epoch: u64) -> EndpointReport {
        let incarnation = format!("cache-0-{epoch}");
        EndpointReport::from(Endpoint { epoch, incarnation, ..Endpoint::default() }).tagged()
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_mins(1)
    }

    #[tokio::test]
    async fn a_waiter_sees_the_next_epoch_and_not_the_present_one() {
        let status_cache = Arc::new(StatusCache::default());
        status_cache.publish("cache", PlanReport::default(), Some(endpoint(4)));
        assert_eq!(
            status_cache.wait_endpoint("cache", None, Instant::now()).await,
            Some(endpoint(4))
        );
        assert_eq!(status_cache.wait_endpoint("cache", Some(3), later()).await, Some(endpoint(4)));

        let waiter = tokio::spawn({
            let status_cache = status_cache.clone();
            async move { status_cache.wait_endpoint("cache", Some(4), later()).await }
        });
        tokio::task::yield_now().await;
        status_cache.publish("cache", PlanReport::default(), None);
        status_cache.publish("cache", PlanReport::default(), Some(endpoint(5)));
        assert_eq!(waiter.await.unwrap(), Some(endpoint(5)));
    }

    #[tokio::test]
    async fn who_is_chosen_is_told_to_those_who_ask_for_news_alone() {
        let cache = StatusCache::default();
        let elected = EndpointReport { elected: true, ..endpoint(5) }.tagged();
        cache.publish("cache", PlanReport::default(), Some(elected.clone()));
        assert_eq!(cache.wait_endpoint("cache", None, Instant::now()).await, None);
        assert_eq!(cache.wait_endpoint("cache", Some(4), Instant::now()).await, None);
        let known = endpoint(4).tag;
        assert_eq!(cache.wait_news("cache", &known, later()).await, Some(elected.clone()));
        cache.publish("cache", PlanReport::default(), Some(endpoint(5)));
        assert_eq!(cache.wait_news("cache", &elected.tag, later()).await, Some(endpoint(5)));
    }

    #[tokio::test]
    async fn who_knows_tags_is_told_of_a_planned_change_and_of_its_end() {
        let cache = StatusCache::default();
        let mut changing = endpoint(4);
        changing.master.changing = Some(5);
        let changing = changing.tagged();
        cache.publish("cache", PlanReport::default(), Some(changing.clone()));
        assert_eq!(cache.wait_endpoint("cache", Some(4), Instant::now()).await, None);
        let told = cache.wait_news("cache", &endpoint(4).tag, later()).await;
        assert_eq!(told, Some(changing.clone()));
        assert_eq!(cache.wait_news("cache", &changing.tag, Instant::now()).await, None);
        cache.publish("cache", PlanReport::default(), Some(endpoint(4)));
        assert_eq!(cache.wait_news("cache", &changing.tag, later()).await, Some(endpoint(4)));
    }

    #[tokio::test]
    async fn a_cluster_made_anew_is_news_whatever_its_epoch() {
        let status_cache = StatusCache::default();
        let of = |uid: &str, epoch| {
            let uid = uid.to_owned();
            Some(EndpointReport { uid, ..endpoint(epoch) })
        };
        status_cache.publish("cache", PlanReport::default(), of("a", 5));
        let first = status_cache.wait_news("cache", "", later()).await.unwrap();
        assert_eq!(status_cache.wait_news("cache", &first.tag, Instant::now()).await, None);
        status_cache.remove("cache");
        status_cache.publish("cache", PlanReport::default(), of("b", 1));
        let second = status_cache.wait_news("cache", &first.tag, later()).await.unwrap();
        assert_eq!((second.uid.as_str(), second.master.epoch), ("b", 1));
        status_cache.serve_socks5("127.0.0.1:1055".parse().unwrap());
        let third = status_cache.wait_news("cache", &second.tag, later()).await.unwrap();
        assert_eq!(third.socks5.as_deref(), Some("127.0.0.1:1055"));
    }

    #[tokio::test]
    async fn waiting_ends_at_the_deadline_and_with_the_cluster() {
        let status_cache = Arc::new(StatusCache::default());
        assert_eq!(status_cache.wait_endpoint("cache", None, Instant::now()).await, None);
        assert_eq!(status_cache.plan("cache"), None, "a question publishes nothing");

        let waiter = tokio::spawn({
            let status_cache = status_cache.clone();
            async move {
                status_cache
                    .wait_endpoint("cache", None, Instant::now() + Duration::from_hours(10_000))
                    .await
            }
        });
        tokio::task::yield_now().await;
        status_cache.remove("cache");
        assert_eq!(waiter.await.unwrap(), None);
    }
}
