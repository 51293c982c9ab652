//! The task of each target: the oldest notice first, again and again until it is taken or too old.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::message::Message;
use super::metrics::Metrics;
use super::send::{self, SendError};
use super::{Pace, Target, Targets};
use crate::changes::{Change, Changes};
use crate::model::time::UnixMs;
use crate::retry::RestartDelays;
use crate::store::{Notice, Store, StoreError};

/// A message that is refused for what it is, is sent so often; then the next one has its turn.
const REFUSALS: u32 = 3;
/// After the store failed.
const STORE_PAUSE: Duration = Duration::from_secs(5);

/// Delivers what waits in the store.
pub struct Delivery {
    /// To whom.
    pub targets: Targets,
    /// From where.
    pub store: Arc<dyn Store>,
    /// How patiently.
    pub pace: Pace,
    /// What is counted.
    pub metrics: Metrics,
}

impl Delivery {
    /// Delivers until `shutdown`, or until a later operator took over.
    ///
    /// What waits for targets that the settings no longer have is dropped.
    pub async fn run(self, shutdown: CancellationToken) {
        let ids: Vec<String> = self.targets.all.iter().map(|target| target.id.clone()).collect();
        match self.store.keep_targets(&ids).await {
            Ok(0) => {}
            Ok(gone) => tracing::warn!(
                gone,
                "notifications for targets that are no longer in `notify` are dropped"
            ),
            Err(error) => tracing::warn!(%error, "old notifications cannot be dropped"),
        }
        let workers = self.targets.all.iter().map(|target| Worker {
            target: target.clone(),
            installation: self.targets.installation.clone(),
            store: self.store.clone(),
            pace: self.pace,
            metrics: self.metrics.clone(),
            news: self.store.notices(),
            delays: RestartDelays::new(self.pace.pauses),
            refused: (0, 0),
        });
        let all = futures::future::join_all(workers.map(Worker::run));
        shutdown.run_until_cancelled_owned(all).await;
    }
}

struct Worker {
    target: Arc<Target>,
    installation: String,
    store: Arc<dyn Store>,
    pace: Pace,
    metrics: Metrics,
    news: Changes<String>,
    delays: RestartDelays,
    /// Which notice was refused for what it is, and how often in a row.
    refused: (u64, u32),
}

impl Worker {
    async fn run(mut self) {
        loop {
            let next = async {
                self.trim().await?;
                self.store.next_notice(&self.target.id).await
            };
            match next.await {
                Ok(Some(notice)) => {
                    let pause = self.deliver(&notice).await;
                    self.rest(pause).await;
                }
                Ok(None) => {
                    if !self.hear().await {
                        return;
                    }
                }
                Err(StoreError::Superseded { .. }) => return,
                Err(error) => {
                    tracing::warn!(%error, "notifications cannot be read from the store");
                    tokio::time::sleep(STORE_PAUSE).await;
                }
            }
        }
    }

    /// Tries once; the pause before the next try.
    async fn deliver(&mut self, notice: &Notice) -> Duration {
        let target = self.target.clone();
        let name = &target.name;
        let Some(message) = Message::of(&notice.event, &self.installation) else {
            self.done(notice).await;
            return Duration::ZERO;
        };
        match send::send(&target, &notice.id, &message).await {
            Ok(_) => {
                self.delays = RestartDelays::new(self.pace.pauses);
                self.metrics.sent(name);
                tracing::debug!(target = name, kind = message.kind, "notified");
                self.done(notice).await
            }
            Err(error) => {
                self.metrics.failed(name);
                if self.is_hopeless(notice, &error) {
                    self.metrics.dropped(name, 1);
                    tracing::error!(
                        target = name,
                        kind = message.kind,
                        "a notification is dropped: {error}"
                    );
                    return self.done(notice).await;
                }
                let pause = self.delays.after(Duration::ZERO).max(error.asked_pause());
                tracing::warn!(target = name, kind = message.kind, again_in = ?pause, "a notification was not delivered: {error}");
                pause
            }
        }
    }

    fn is_hopeless(&mut self, notice: &Notice, error: &SendError) -> bool {
        if !error.is_about_the_message() {
            return false;
        }
        let before = if self.refused.0 == notice.number { self.refused.1 } else { 0 };
        self.refused = (notice.number, before + 1);
        before + 1 >= REFUSALS
    }

    /// Forgets a notice; if that fails it is sent again, after the pause.
    async fn done(&self, notice: &Notice) -> Duration {
        match self.store.drop_notice(notice.number).await {
            Ok(()) => Duration::ZERO,
            Err(error) => {
                tracing::warn!(%error, "a notification that was delivered cannot be forgotten");
                STORE_PAUSE
            }
        }
    }

    /// Waits; the queue stays within its bounds meanwhile.
    async fn rest(&mut self, pause: Duration) {
        if pause.is_zero() {
            return;
        }
        let end = Instant::now() + pause;
        loop {
            tokio::select! {
                () = sleep_until(end) => return,
                heard = self.news.next() => match heard {
                    Some(change) if self.is_ours(&change) => {
                        // An error comes back with the next reading.
                        let _ = self.trim().await;
                    }
                    Some(_) => {}
                    None => return sleep_until(end).await,
                },
            }
        }
    }

    /// Waits for the next notice of this target; false when there can be none.
    async fn hear(&mut self) -> bool {
        while let Some(change) = self.news.next().await {
            if self.is_ours(&change) {
                return true;
            }
        }
        false
    }

    fn is_ours(&self, change: &Change<String>) -> bool {
        match change {
            Change::Key(id) => *id == self.target.id,
            Change::Any => true,
        }
    }

    async fn trim(&self) -> Result<(), StoreError> {
        let Pace { oldest, most, .. } = self.pace;
        let oldest = u64::try_from(oldest.as_millis()).unwrap_or(u64::MAX);
        let oldest = UnixMs(UnixMs::now().0.saturating_sub(oldest));
        let trimmed = self.store.trim_notices(&self.target.id, oldest, most).await?;
        let name = &self.target.name;
        if !trimmed.dropped.is_empty() {
            self.metrics.dropped(name, trimmed.dropped.len() as u64);
            for Notice { event, .. } in &trimmed.dropped {
                tracing::error!(
                    target = name,
                    cluster = event.cluster,
                    reason = event.reason,
                    "a notification is dropped, because it was not taken for too long: {}",
                    event.message
                );
            }
        }
        self.metrics.queued(name, trimmed.left);
        Ok(())
    }
}
