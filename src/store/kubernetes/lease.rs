//! Which of several operator processes works: whoever holds a Lease. Holding it is no proof for
//! anybody else: what a process does that lost it unnoticed is refused by its term.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::core::ObjectMeta;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use futures::StreamExt as _;

use super::super::StoreError;
use super::calls::{call, failed, is_conflict, is_missing, once, sentence};
use super::watches::watched;

/// The lease's name.
pub const NAME: &str = "akash-redis-operator";

/// How a lease is held.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Whoever does not renew it for so long has lost it.
    pub duration: Duration,
    /// It is renewed so often.
    pub renew: Duration,
    /// Its holder stops when it could not renew it for so long: before anybody else may begin.
    pub give_up: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew: Duration::from_secs(3),
            give_up: Duration::from_secs(10),
        }
    }
}

/// One that wants the lease.
#[derive(Clone, Debug)]
pub struct Candidate {
    api: Api<Lease>,
    identity: String,
    pace: Pace,
}

/// What is seen of a lease: a holder, and whether it still renews it. Clocks of other machines say
/// nothing; what counts is for how long nothing changed here.
#[derive(Clone, Debug)]
struct Sight {
    lease: Lease,
    since: Instant,
}

impl Candidate {
    /// Nothing was called yet. The identity is another one for every process.
    #[must_use]
    pub fn new(client: Client, namespace: &str, identity: String, pace: Pace) -> Self {
        Self { api: Api::namespaced(client, namespace), identity, pace }
    }

    /// Waits until the lease is ours, or until `shutdown`; true when it is ours.
    ///
    /// # Errors
    /// The apiserver refuses us.
    pub async fn acquire(&self, shutdown: &CancellationToken) -> Result<bool, StoreError> {
        let mut sight: Option<Sight> = None;
        let mut told = String::new();
        let config = watched().fields(&format!("metadata.name={NAME}"));
        let mut events = std::pin::pin!(watcher(self.api.clone(), config));
        loop {
            match once(self.api.get_opt(NAME)).await {
                Ok(found) => {
                    let lease = found.unwrap_or_default();
                    if let Some(known) = &mut sight {
                        if known.lease != lease {
                            *known = Sight { lease, since: Instant::now() };
                        }
                    } else {
                        sight = Some(Sight { lease, since: Instant::now() });
                    }
                }
                Err(error @ kube::Error::Api(_)) if !is_retried(&error) => {
                    return Err(failed(error));
                }
                Err(error) => tracing::warn!("the lease cannot be read: {}", sentence(&error)),
            }
            let mut next = Instant::now() + self.pace.renew;
            if let Some(Sight { lease, since }) = &sight {
                let free = *since + self.pace.duration;
                if self.is_free(lease) || free <= Instant::now() {
                    if self.write(lease, true).await.is_ok() {
                        return Ok(true);
                    }
                } else {
                    next = next.min(free);
                    let holder = holder(lease);
                    if holder != told {
                        tracing::info!(holder, "another operator holds the lease; this one waits");
                        told = holder.to_owned();
                    }
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(false),
                () = sleep_until(next) => {}
                // A change is heard of at once: whoever stops in order is followed within a moment.
                event = events.next() => if !matches!(event, Some(Ok(_))) {
                    sleep_until(next).await;
                },
            }
        }
    }

    /// Renews the lease until `shutdown`, then gives it back; or returns when it is lost.
    pub async fn hold(&self, shutdown: &CancellationToken) -> Lost {
        let mut renewed = Instant::now();
        loop {
            let next = renewed + self.pace.renew;
            tokio::select! {
                () = shutdown.cancelled() => {
                    self.give_back().await;
                    return Lost::GivenBack;
                }
                () = sleep_until(next.max(Instant::now() + self.pace.renew / 10)) => {}
            }
            let deadline = renewed + self.pace.give_up;
            // A process that stood still for so long finds it here, whatever the apiserver says.
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return Lost::NotRenewed;
            };
            let began = Instant::now();
            match timeout(left, self.renew()).await {
                Ok(Ok(true)) => renewed = began,
                Ok(Ok(false)) => return Lost::TakenOver,
                Ok(Err(error)) => tracing::warn!("the lease was not renewed: {}", sentence(&error)),
                Err(_) => return Lost::NotRenewed,
            }
        }
    }

    /// False when another one holds it.
    async fn renew(&self) -> Result<bool, kube::Error> {
        let lease = match once(self.api.get(NAME)).await {
            Ok(lease) => lease,
            Err(error) if is_missing(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        if holder(&lease) != self.identity {
            return Ok(false);
        }
        match self.write(&lease, true).await {
            Ok(()) => Ok(true),
            Err(error) => Err(error),
        }
    }

    async fn give_back(&self) {
        let Ok(lease) = once(self.api.get(NAME)).await else { return };
        if holder(&lease) == self.identity
            && let Err(error) = self.write(&lease, false).await
        {
            tracing::warn!("the lease was not given back: {}", sentence(&error));
        }
    }

    fn is_free(&self, lease: &Lease) -> bool {
        let holder = holder(lease);
        holder.is_empty() || holder == self.identity
    }

    /// Writes the lease over what was seen of it: ours, or nobody's.
    async fn write(&self, seen: &Lease, ours: bool) -> Result<(), kube::Error> {
        let mut lease = seen.clone();
        let is_new = seen.metadata.resource_version.is_none();
        if is_new {
            lease.metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
        }
        let now = MicroTime(Timestamp::now());
        let spec = lease.spec.get_or_insert_default();
        let changes_hands = spec.holder_identity.as_deref() != Some(&self.identity);
        if ours && changes_hands {
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0) + i32::from(!is_new));
        }
        *spec = LeaseSpec {
            holder_identity: Some(if ours { self.identity.clone() } else { String::new() }),
            lease_duration_seconds: Some(
                i32::try_from(self.pace.duration.as_secs()).unwrap_or(15).max(1),
            ),
            renew_time: Some(now),
            ..spec.clone()
        };
        let params = PostParams::default();
        if is_new {
            once(self.api.create(&params, &lease)).await.map(drop)
        } else {
            once(self.api.replace(NAME, &params, &lease)).await.map(drop)
        }
    }
}

/// Who works in a namespace, by the Lease there.
///
/// # Errors
/// The apiserver does not answer, or refuses us.
pub async fn holder_of(client: Client, namespace: &str) -> Result<Option<String>, StoreError> {
    let api: Api<Lease> = Api::namespaced(client, namespace);
    let lease = call(|| api.get_opt(NAME)).await.map_err(failed)?;
    Ok(lease.map(|lease| holder(&lease).to_owned()).filter(|holder| !holder.is_empty()))
}

/// How a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// In order: the next one begins at once.
    GivenBack,
    /// Another one holds it.
    TakenOver,
    /// It could not be renewed in time, so that another one may hold it.
    NotRenewed,
}

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

/// Those that are answered otherwise in a moment.
fn is_retried(error: &kube::Error) -> bool {
    is_conflict(error) || matches!(error, kube::Error::Api(status) if status.code >= 429)
}
