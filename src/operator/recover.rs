//! An operator without its record: looks at what the chain, the tailnet and the nodes know of its
//! clusters, and writes their records when a person says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use tokio::time::{Instant, sleep};

use super::{Pipeline, kept_copy, lock};
use crate::api::events::EventReason;
use crate::api::recover::{FoundCluster, OrphanReport, RecoverReport};
use crate::model::ids::IncarnationName;
use crate::model::inventory::Inventory;
use crate::model::node::NodeView;
use crate::plan;
use crate::plan::recover::{Copy, Found, Recovered};
use crate::server::Recovery;
use crate::store::{Event, StoreError};

/// Nodes are waited for so long: the first dial to a peer may take 6 s.
const ANSWERS: Duration = Duration::from_secs(10);
/// Between two looks whether they answered.
const LOOK: Duration = Duration::from_millis(100);
/// A record that moved is read again so often.
const TRIES: u32 = 10;

/// The way from the API to the operator that runs.
pub(super) struct Recoverer(pub Weak<Pipeline>);

impl Recoverer {
    fn pipeline(&self) -> Result<Arc<Pipeline>, String> {
        self.0.upgrade().ok_or_else(|| "the operator is stopping".to_owned())
    }
}

#[async_trait]
impl Recovery for Recoverer {
    async fn look(&self, cluster: Option<&str>) -> Result<RecoverReport, String> {
        Box::pin(self.pipeline()?.recover(cluster, false)).await
    }

    async fn confirm(&self, cluster: Option<&str>) -> Result<RecoverReport, String> {
        Box::pin(self.pipeline()?.recover(cluster, true)).await
    }

    async fn orphans(&self) -> Result<OrphanReport, String> {
        let pipeline = self.pipeline()?;
        pipeline.read_anew().await;
        let mut report = pipeline.observer.orphans();
        let all = pipeline.ports.store.list().await.map_err(|e| e.to_string())?;
        let records = all.iter().flat_map(|stored| &stored.record.incarnations);
        let given_up = records.filter(|(_, i)| i.condemned.is_some());
        report.closing = given_up.map(|(name, _)| name.0.clone()).collect();
        Ok(report)
    }
}

impl Pipeline {
    async fn read_anew(&self) {
        let (chain, tailnet) =
            tokio::join!(self.observer.read_chain(), self.observer.read_tailnet());
        self.wake(chain);
        self.wake(tailnet);
        self.health.store(&self.observer.lost(), (self.ports.now)());
    }

    async fn recover(&self, only: Option<&str>, write: bool) -> Result<RecoverReport, String> {
        // Two at a time would let go of each other's nodes.
        let _alone = self.recovering.lock().await;
        self.read_anew().await;
        let away = [
            ("chain", self.observer.chain_health().0),
            ("tailnet", self.observer.tailnet_health()),
        ];
        if let Some((what, error)) =
            away.into_iter().find_map(|(what, read)| Some((what, read.error?)))
        {
            return Err(format!(
                "the {what} does not answer ({error}), and what it does not show would be taken for lost; ask again when it does"
            ));
        }
        let mut lost = self.observer.lost();
        if let Some(only) = only {
            lost.retain(|cluster, _| cluster == only);
            if lost.is_empty() {
                return Err(self.nothing_of(only).await);
            }
        }
        let mut report = RecoverReport {
            installation: self.settings.constants.installation.to_string(),
            ..RecoverReport::default()
        };
        if let Some(error) = self.observer.mesh_health().and_then(|read| read.error) {
            report
                .notes
                .push(format!("the operator itself is off the mesh, so no node answers: {error}"));
        }
        for (cluster, deployments) in &lost {
            let names: BTreeSet<_> = deployments.values().cloned().collect();
            let (mut found, recovered) = self.find(cluster, &names).await?;
            if let Some(recovered) = recovered.filter(|_| write) {
                match self.write(recovered).await {
                    Ok(()) => found.written = true,
                    Err(why) => found.refused = Some(why),
                }
            }
            if !found.written {
                self.ports.agents.watch(cluster, &BTreeMap::new());
            }
            report.clusters.push(found);
        }
        self.health.store(&self.observer.lost(), (self.ports.now)());
        Ok(report)
    }

    async fn nothing_of(&self, cluster: &str) -> String {
        if self.ports.store.get(cluster).await.is_ok_and(|s| !s.record.incarnations.is_empty()) {
            format!(
                "{cluster} is in the store with its record: there is nothing to recover; `akash-redis orphans` lists what its record does not know"
            )
        } else {
            format!(
                "no active deployment of this installation carries the name {cluster}; `akash-redis recover` lists those there are"
            )
        }
    }

    /// What is found of one cluster.
    async fn find(
        &self,
        cluster: &str,
        names: &BTreeSet<IncarnationName>,
    ) -> Result<(FoundCluster, Option<Recovered>), String> {
        let stored = match self.ports.store.get(cluster).await {
            Ok(stored) => Some(stored),
            Err(StoreError::NotFound { .. }) => None,
            Err(error) => return Err(error.to_string()),
        };
        let (chain, mesh) = self.observer.named(cluster);
        let (chain, mesh) = (chain.value.unwrap_or_default(), mesh.value.unwrap_or_default());
        let targets = self.observer.addresses_of(&mesh, names.iter());
        self.ports.agents.watch(cluster, &targets);
        let nodes = self.answers(targets.keys()).await;
        let copies = join_all(nodes.keys().map(|name| self.copy_of(cluster, name))).await;
        let found = Found {
            cluster,
            applied: stored.as_ref().map(|s| &s.cluster),
            chain: &chain,
            mesh: &mesh,
            nodes: &nodes,
            copies: &nodes.keys().cloned().zip(copies).collect(),
            constants: &self.settings.constants,
            quarantine_tag: &self.settings.quarantine_tag,
            now: (self.ports.now)(),
        };
        let (mut report, recovered) = plan::recover::recover(&found);
        if stored.is_some_and(|s| s.cluster.metadata.deletion_timestamp.is_some()) {
            report.refused = Some(format!(
                "{cluster} is being deleted; `akash-redis orphans {cluster} --close` gives up what is left of it"
            ));
            return Ok((report, None));
        }
        Ok((report, recovered))
    }

    /// The nodes that speak within some seconds.
    async fn answers<'a>(
        &self,
        names: impl Iterator<Item = &'a IncarnationName>,
    ) -> BTreeMap<IncarnationName, NodeView> {
        let names: Vec<_> = names.collect();
        let deadline = Instant::now() + ANSWERS;
        loop {
            let heard = |name: &&IncarnationName| {
                let view = self.ports.agents.view(name).filter(|view| view.connected)?;
                // Before it has looked at its redis it says nothing of it.
                Some(((*name).clone(), view))
            };
            let views: BTreeMap<_, _> = names.iter().filter_map(heard).collect();
            if views.len() == names.len() || Instant::now() >= deadline {
                return views;
            }
            sleep(LOOK).await;
        }
    }

    async fn copy_of(&self, cluster: &str, name: &IncarnationName) -> Copy {
        match self.ports.agents.recall(name).await {
            Ok(None) => Copy::None,
            Ok(Some(copy)) => match kept_copy::verified(&self.settings.root, cluster, &copy) {
                Ok(copy) => Copy::Valid(Box::new(copy)),
                Err(why) => Copy::Ignored(why),
            },
            Err(error) => Copy::Ignored(format!("could not be had ({error})")),
        }
    }

    /// Writes the object, and then its record. In between nothing is bought, because its deployments
    /// stand in no record; a crash there leaves what is recovered in the same way.
    async fn write(&self, recovered: Recovered) -> Result<(), String> {
        let Recovered { mut cluster, record } = recovered;
        let name = cluster.metadata.name.clone();
        cluster.metadata.resource_version = None;
        let store = &self.ports.store;
        for _ in 0..TRIES {
            match store.get(&name).await {
                Ok(known) if !known.record.incarnations.is_empty() || known.record.epoch > 0 => {
                    return Err(format!("{name} got a record meanwhile: nothing is written"));
                }
                Ok(_) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error.to_string()),
            }
            store.apply(cluster.clone()).await.map_err(|e| e.to_string())?;
            let stored = store.get(&name).await.map_err(|e| e.to_string())?;
            if !stored.record.incarnations.is_empty() || stored.record.epoch > 0 {
                continue;
            }
            match store.set_record(&name, stored.record_version, &record).await {
                Ok(_) => {}
                Err(StoreError::Conflict { .. }) => continue,
                Err(error) => return Err(error.to_string()),
            }
            let committed = plan::committed(&Inventory::default(), &record);
            lock(&self.index).put(&name, &record, committed);
            let message = format!(
                "object and record were built anew from the chain, the tailnet and the nodes; {name} goes on in epoch {}",
                record.epoch
            );
            tracing::warn!(cluster = name, "{message}");
            let reason = EventReason::RecordRecovered.to_string();
            let event = Event::new((self.ports.now)(), &name, reason, message);
            if let Err(error) = store.add_events(&[event]).await {
                tracing::warn!(%error, "an event could not be written");
            }
            self.queue.add(name);
            return Ok(());
        }
        Err(format!("{name} was changed again and again meanwhile: nothing is written, try again"))
    }
}
