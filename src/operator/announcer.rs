//! Tells every node of a cluster who is master, in words that it can hand on: signed, and each newer
//! than the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::lock;
use super::ports::{AgentError, Agents, Ports};
use super::settings::Settings;
use crate::api::types::Announce;
use crate::model::announcement::{Announcement, Place, Replica};
use crate::model::ids::IncarnationName;
use crate::model::inventory::Inventory;
use crate::model::time::UnixMs;
use crate::plan::Plan;
use crate::store::Stored;
use crate::wire::akash_redis::agent::v1::{AnnounceReply, AnnounceRequest};

/// The same is said again so often: a reader learns that the operator lives, and how far behind
/// replicas are.
const AGAIN: Duration = Duration::from_mins(1);
/// Or so often while a replica falls behind, or catches up.
const LAGS: Duration = Duration::from_secs(5);

/// Announces the masters of all clusters.
pub struct Announcer {
    ports: Ports,
    settings: Arc<Settings>,
    clusters: Arc<Mutex<BTreeMap<String, Said>>>,
    stop: CancellationToken,
}

/// What was said of one cluster.
#[derive(Default)]
struct Said {
    last: Option<(Announcement, AnnounceRequest)>,
    /// Nobody holds a version above this one, as far as was heard.
    highest: u64,
    /// Whom the last word reached: the agent's start, which forgets without a volume.
    reached: BTreeMap<IncarnationName, String>,
    /// Who is being told.
    telling: BTreeSet<IncarnationName>,
    /// Agents of a version that takes no word.
    deaf: BTreeMap<IncarnationName, String>,
}

impl Announcer {
    /// Nothing was said yet, and nothing is said after `stop`.
    pub fn new(ports: Ports, settings: Arc<Settings>, stop: CancellationToken) -> Self {
        Self { ports, settings, clusters: Arc::default(), stop }
    }

    /// Tells each node that answers what it has not heard yet; nobody waits for it. Those where nobody
    /// listens are left for later while clients wait for a takeover, which `rests` says.
    pub fn announce(&self, wanted: Announcement, inventory: &Inventory, plan: &Plan, rests: bool) {
        let cluster = wanted.cluster.clone();
        let mut clusters = lock(&self.clusters);
        let said = clusters.entry(cluster.clone()).or_default();
        said.renew(wanted, &self.settings);
        for name in plan.record.incarnations.keys() {
            let Some(view) = inventory.nodes.get(name).filter(|view| view.connected) else {
                continue;
            };
            let boot_id = &view.state.boot_id;
            let told = said.reached.get(name) == Some(boot_id);
            let deaf = said.deaf.get(name) == Some(boot_id);
            let later = rests && view.state.has_subscribers == Some(false);
            if told || deaf || later || !said.telling.insert(name.clone()) {
                continue;
            }
            let tell = tell(
                self.ports.agents.clone(),
                self.clusters.clone(),
                cluster.clone(),
                (name.clone(), boot_id.clone()),
            );
            tokio::spawn(self.stop.clone().run_until_cancelled_owned(tell));
        }
    }

    /// A cluster is gone.
    pub fn forget(&self, cluster: &str) {
        lock(&self.clusters).remove(cluster);
    }

    /// What is to be said now; `None` while nobody is known to take writes: then the last word
    /// stands.
    pub fn wanted(
        &self,
        stored: &Stored,
        inventory: &Inventory,
        plan: &Plan,
    ) -> Option<Announcement> {
        let metadata = &stored.cluster.metadata;
        let master = plan.status.master.as_ref().filter(|master| !master.ip.is_empty())?;
        let region = |name: &str| {
            let node = plan.status.nodes.iter().find(|node| node.incarnation == name)?;
            node.region.clone()
        };
        let replica = |name: &IncarnationName| {
            let incarnation = plan.record.incarnations.get(name)?;
            let mesh = &inventory.nodes.get(name)?.state.mesh;
            let node = plan.status.nodes.iter().find(|node| node.incarnation == name.0)?;
            let is_there = incarnation.condemned.is_none()
                && incarnation.is_member()
                && !mesh.ip.is_empty()
                && name.0 != master.incarnation;
            is_there.then(|| Replica {
                place: Place {
                    incarnation: name.0.clone(),
                    name: mesh.dns_name.clone(),
                    ip: mesh.ip.clone(),
                    port: master.port,
                    region: region(&name.0),
                },
                in_sync: incarnation.is_candidate(),
                lag_bytes: node.lag_bytes,
            })
        };
        Some(Announcement {
            installation: self.settings.constants.installation.to_string(),
            cluster: metadata.name.clone(),
            uid: metadata.uid.clone()?,
            epoch: master.epoch,
            version: 0,
            at: (self.ports.now)(),
            master: Place {
                incarnation: master.incarnation.clone(),
                name: master.name.clone(),
                ip: master.ip.clone(),
                port: master.port,
                region: region(&master.incarnation),
            },
            replicas: plan.record.incarnations.keys().filter_map(replica).collect(),
            changing: master.changing,
            successor: master.successor.clone(),
            names: stored.cluster.spec.mesh.announce == Announce::Names,
        })
    }
}

impl Said {
    /// What is to be heard now is the last word, or a newer one that takes its place.
    fn renew(&mut self, wanted: Announcement, settings: &Settings) {
        let stands = |(last, _): &(Announcement, AnnounceRequest)| {
            wanted.uid == last.uid
                && wanted.says_the_same_as(last)
                && last.version >= self.highest
                && !wanted.at.passed(last.at, AGAIN)
                && !(wanted.lags_differ(last) && wanted.at.passed(last.at, LAGS))
        };
        if self.last.as_ref().is_some_and(stands) {
            return;
        }
        let UnixMs(now) = wanted.at;
        self.highest = now.max(self.highest.saturating_add(1));
        let said = Announcement { version: self.highest, ..wanted };
        let content = serde_json::to_vec(&said).expect("an announcement is plain data");
        let signature = settings.root.sign_announcement(&content);
        self.last = Some((said, AnnounceRequest { content, signature }));
        self.reached.clear();
    }

    /// Notes what a node answered; true when there is a newer word by now that it has to hear.
    fn answered(
        &mut self,
        (name, boot_id): (IncarnationName, String),
        version: u64,
        answer: Result<Option<AnnounceReply>, AgentError>,
    ) -> bool {
        let last = self.last.as_ref().map(|(last, _)| last.version);
        match answer {
            Ok(Some(held)) => self.highest = self.highest.max(held.version),
            Ok(None) => {
                self.deaf.insert(name, boot_id);
                return false;
            }
            Err(error) => {
                tracing::debug!(incarnation = %name, %error, "a node was not told who is master; it is told again");
                return false;
            }
        }
        if last != Some(version) {
            return true;
        }
        // One that holds a later version, of another process of the operator, did not take this one.
        if version >= self.highest {
            self.reached.insert(name, boot_id);
        }
        false
    }
}

/// Tells one node the last word, and the one that takes its place meanwhile.
async fn tell(
    agents: Arc<dyn Agents>,
    clusters: Arc<Mutex<BTreeMap<String, Said>>>,
    cluster: String,
    node: (IncarnationName, String),
) {
    loop {
        let last = lock(&clusters).get(&cluster).and_then(|said| said.last.clone());
        let Some((word, request)) = last else { return };
        let answer = agents.announce(&node.0, request).await;
        let mut clusters = lock(&clusters);
        let Some(said) = clusters.get_mut(&cluster) else { return };
        if !said.answered(node.clone(), word.version, answer) {
            said.telling.remove(&node.0);
            return;
        }
    }
}
