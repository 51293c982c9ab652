//! What providers say of the leases whose node does not speak for itself: their gateway's status of
//! the lease, and the node's public page.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use futures::future::join_all;

use super::status_pages;
use crate::model::chain::{ChainView, LeaseState};
use crate::model::ids::{IncarnationName, InstallationId, LeaseId};
use crate::model::inventory::LeaseStatus;
use crate::model::status_page::PageView;
use crate::model::time::UnixMs;
use crate::operator::index::ClusterIndex;
use crate::operator::lock;
use crate::operator::ports::Ports;
use crate::secrets::RootSecret;

/// The last answers.
pub struct LeaseReadings {
    root: RootSecret,
    installation: InstallationId,
    /// By deployment.
    statuses: Mutex<BTreeMap<u64, BTreeMap<LeaseId, Answer>>>,
    pages: Mutex<BTreeMap<IncarnationName, PageView>>,
}

/// A provider's word.
struct Answer {
    status: LeaseStatus,
    /// When it was asked for.
    asked: UnixMs,
}

impl LeaseReadings {
    /// Nobody was asked yet.
    pub fn new(root: RootSecret, installation: InstallationId) -> Self {
        Self { root, installation, statuses: Mutex::default(), pages: Mutex::default() }
    }

    /// Asks about the active leases of these deployments, as `chain` has them. Returns those about
    /// which something new was heard.
    pub async fn read(
        &self,
        ports: &Ports,
        chain: &ChainView,
        dseqs: &BTreeSet<u64>,
    ) -> BTreeSet<u64> {
        // Side by side, the pages by the addresses of the last round: neither makes the other late.
        let (mut news, pages) = tokio::join!(
            self.read_statuses(ports, chain, dseqs),
            self.read_pages(ports, chain, dseqs)
        );
        news.extend(pages);
        news
    }

    /// Forgets what was heard of deployments that are closed, or that `chain` does not have though
    /// no record waits for them.
    pub fn retain(&self, chain: &ChainView, index: &ClusterIndex) {
        let live = |dseq: u64| match chain.deployments.get(&dseq) {
            Some(deployment) => deployment.active,
            None => index.cluster_of(dseq).is_some(),
        };
        lock(&self.statuses).retain(|dseq, _| live(*dseq));
        lock(&self.pages).retain(|name, _| live(name.dseq(&self.installation)));
    }

    /// What was heard of these deployments' leases.
    pub fn statuses(&self, dseqs: &BTreeSet<u64>) -> BTreeMap<LeaseId, LeaseStatus> {
        let statuses = lock(&self.statuses);
        dseqs
            .iter()
            .filter_map(|dseq| statuses.get(dseq))
            .flatten()
            .map(|(id, answer)| (id.clone(), answer.status.clone()))
            .collect()
    }

    /// When these deployments' leases were asked about last.
    pub fn asked(&self, dseqs: &BTreeSet<u64>) -> BTreeMap<LeaseId, UnixMs> {
        let statuses = lock(&self.statuses);
        let of = dseqs.iter().filter_map(|dseq| statuses.get(dseq)).flatten();
        of.map(|(id, answer)| (id.clone(), answer.asked)).collect()
    }

    /// The pages of these nodes.
    pub fn pages<'a>(
        &self,
        names: impl Iterator<Item = &'a IncarnationName>,
    ) -> BTreeMap<IncarnationName, PageView> {
        let pages = lock(&self.pages);
        names.filter_map(|name| Some((name.clone(), pages.get(name)?.clone()))).collect()
    }

    async fn read_statuses(
        &self,
        ports: &Ports,
        chain: &ChainView,
        dseqs: &BTreeSet<u64>,
    ) -> BTreeSet<u64> {
        let asked = dseqs
            .iter()
            .filter_map(|dseq| chain.deployments.get(dseq).filter(|d| d.active))
            .flat_map(|d| &d.leases)
            .filter(|l| matches!(l.state, LeaseState::Active | LeaseState::Reclaiming))
            .filter_map(|l| chain.providers.get(&l.id.provider).map(|p| (l.id.clone(), p.clone())));
        let answers = join_all(asked.map(|(lease, provider)| async move {
            let asked = (ports.now)();
            let status = ports.gateway.lease_status(&provider, &lease).await;
            (lease, Answer { status, asked })
        }))
        .await;
        let mut statuses = lock(&self.statuses);
        let mut news = BTreeSet::new();
        for (lease, answer) in answers {
            let dseq = lease.dseq;
            let of = statuses.entry(dseq).or_default();
            let known = of.get(&lease).is_some_and(|old| old.status == answer.status);
            of.insert(lease, answer);
            if !known {
                news.insert(dseq);
            }
        }
        news
    }

    /// One that does not answer is forgotten: what it said before is no news of now.
    async fn read_pages(
        &self,
        ports: &Ports,
        chain: &ChainView,
        dseqs: &BTreeSet<u64>,
    ) -> BTreeSet<u64> {
        let asked: Vec<_> = {
            let statuses = lock(&self.statuses);
            let of = |dseq: &u64| {
                let group = &chain.deployments.get(dseq)?.group_name;
                let name = IncarnationName::from_group_name(group, &self.installation)?;
                let host =
                    statuses.get(dseq)?.values().find_map(|answer| match &answer.status {
                        LeaseStatus::Deployed { uris, .. } => uris.first().cloned(),
                        LeaseStatus::NoManifest | LeaseStatus::Away(_) => None,
                    })?;
                Some((*dseq, name, host))
            };
            dseqs.iter().filter_map(of).collect()
        };
        let answers = join_all(asked.into_iter().map(|(dseq, name, host)| async move {
            let page = status_pages::ask(ports, &self.root, &name, &host).await;
            (dseq, name, page)
        }))
        .await;
        let mut pages = lock(&self.pages);
        let mut news = BTreeSet::new();
        for (dseq, name, page) in answers {
            match page {
                Ok(page) => {
                    pages.insert(name, page);
                    news.insert(dseq);
                }
                Err(error) => {
                    tracing::debug!(incarnation = %name, error, "a status page cannot be had");
                    if pages.remove(&name).is_some() {
                        news.insert(dseq);
                    }
                }
            }
        }
        news
    }
}
