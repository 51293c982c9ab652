//! The providers' gateways of a simulation: a manifest that fits the chain starts a node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use akash_redis::devnet::provider::faults::{ProviderFault, ProviderFaults};
use akash_redis::gateway::{Gateway, GatewayError, StatusPage, StatusPageError};
use akash_redis::model::chain::ProviderView;
use akash_redis::model::identity::{NODE_VARIABLE, NodeIdentity};
use akash_redis::model::ids::{IncarnationName, LeaseId};
use akash_redis::model::inventory::LeaseStatus;
use akash_redis::node::status_page as page;
use akash_redis::secrets::RootSecret;
use async_trait::async_trait;
use http::HeaderMap;
use secrecy::ExposeSecret as _;

use super::chain::SimChain;
use super::fuse::Fuse;
use super::mesh::Tailnet;
use super::node::Node;
use super::nodes::Nodes;
use super::status_page::Witness;

/// From a manifest to a node that logs in, in virtual time.
const START: Duration = Duration::from_secs(2);

/// The client gives up on a silent gateway after this time.
const CALL_TIME_OUT: Duration = Duration::from_secs(15);
/// The same while a manifest is sent.
const PUT_TIME_OUT: Duration = Duration::from_secs(30);

/// With these a provider takes a manifest and starts nothing of it; one that serves another manifest
/// runs something, but no node of ours.
const STARTS_NOTHING: [ProviderFault; 3] =
    [ProviderFault::NeverDeploys, ProviderFault::LiesReady, ProviderFault::OtherManifest];

/// What is wrong with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// Its container ends at once.
    Container,
    /// Its redis ends at once.
    Redis,
}

/// What a container is started with.
struct Start {
    manifest: [u8; 32],
    identity: NodeIdentity,
    revision: String,
    bad: Option<Bad>,
}

/// All gateways.
pub struct SimGateway {
    pub chain: Arc<SimChain>,
    pub tailnet: Arc<Mutex<Tailnet>>,
    pub nodes: Arc<Nodes>,
    pub fuse: Arc<Fuse>,
    pub witness: Arc<Witness>,
    /// Deployments whose manifest was taken, and the incarnation that runs there.
    pub delivered: Mutex<BTreeMap<u64, IncarnationName>>,
    /// The last manifest of each deployment.
    pub keys: Arc<Mutex<BTreeMap<u64, [u8; 32]>>>,
    /// Images that do not start: of their redis, or of everything.
    pub bad_images: Mutex<BTreeMap<String, Bad>>,
    /// What the nodes' keys are derived from.
    pub root: RootSecret,
    /// No ingress answers.
    pub pages_away: AtomicBool,
    /// From a manifest to something that is deployed.
    pub slowness: Mutex<Duration>,
    /// How often a manifest came, by deployment.
    pub puts: Mutex<BTreeMap<u64, u32>>,
    /// Since when something is deployed.
    pub shown: Mutex<BTreeMap<u64, tokio::time::Instant>>,
    /// Providers whose gateway does not answer.
    pub away: Mutex<BTreeSet<String>>,
    /// What else is wrong with providers, as the local market has it.
    pub faults: Mutex<BTreeMap<String, ProviderFaults>>,
}

impl SimGateway {
    /// Closed leases lose their containers and volumes.
    pub async fn run(self: Arc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let closed: Vec<_> = self
                .delivered
                .lock()
                .unwrap()
                .iter()
                .filter(|(dseq, _)| !self.chain.leased(**dseq) && !self.keeps_running(**dseq))
                .map(|(d, n)| (*d, n.clone()))
                .collect();
            for (dseq, name) in closed {
                self.delivered.lock().unwrap().remove(&dseq);
                let by_operator = self.chain.closed_by_owner(dseq)
                    && !self.witness.is_deleted(name.cluster()).await;
                let mut state = self.nodes.state.lock().unwrap();
                state.destroyed(&name, by_operator, self.nodes.clock.now().0);
            }
        }
    }

    /// The container of a lease starts with this manifest, on its volume where it ran before, unless
    /// the lease is closed or there is a newer manifest by then. Its mesh state serves while the
    /// tailnet knows it, the key otherwise.
    fn start(&self, dseq: u64, name: IncarnationName, start: Start) {
        let Start { manifest, identity, revision, bad } = start;
        if let Some(node) = self.nodes.state.lock().unwrap().nodes.get_mut(&name) {
            node.powered = false;
        }
        let shown = self.shown.lock().unwrap()[&dseq].max(tokio::time::Instant::now());
        let (chain, tailnet) = (self.chain.clone(), self.tailnet.clone());
        let (nodes, keys) = (self.nodes.clone(), self.keys.clone());
        tokio::spawn(async move {
            tokio::time::sleep_until(shown + START).await;
            let newest = keys.lock().unwrap().get(&dseq) == Some(&manifest);
            if !newest || !chain.leased(dseq) || bad == Some(Bad::Container) {
                return;
            }
            let nodes = &mut nodes.state.lock().unwrap().nodes;
            let known = nodes.get(&name).map(|n| n.device.clone());
            let mut tailnet = tailnet.lock().unwrap();
            let kept = tailnet.devices.iter().find(|d| Some(&d.id) == known.as_ref()).cloned();
            let Some(device) =
                kept.or_else(|| tailnet.join(&identity.auth_key, &identity.hostname))
            else {
                return;
            };
            let fresh = || {
                let (name, floor) = (&identity.incarnation, identity.epoch_floor);
                let mut node = Node::new(name, &device.name, &device.ip, &device.id, floor);
                node.ephemeral = !identity.persistent;
                node.revision.clone_from(&revision);
                node.broken = bad.is_some();
                node
            };
            match nodes.get_mut(&name) {
                Some(node) => {
                    (node.device, node.ip, node.fqdn) = (device.id, device.ip, device.name);
                    node.powered = true;
                    (node.revision, node.broken) = (revision, bad.is_some());
                    node.restart_container();
                    if node.broken {
                        node.kill_redis();
                    }
                }
                None => drop(nodes.insert(name, fresh())),
            }
        });
    }

    /// What ran goes on although its lease is over.
    fn keeps_running(&self, dseq: u64) -> bool {
        let lessor = self.chain.lessor(dseq);
        lessor.is_some_and(|provider| self.has(&provider, ProviderFault::KeepsRunning))
    }

    /// Something is wrong with a provider from now on.
    pub fn fault(&self, provider: &str, fault: ProviderFault) {
        self.faults.lock().unwrap().entry(provider.to_owned()).or_default().set(fault);
    }

    fn has(&self, provider: &str, fault: ProviderFault) -> bool {
        self.faults.lock().unwrap().get(provider).is_some_and(|faults| faults.has(fault))
    }

    /// No answer comes from it, at once or ever.
    fn is_away(&self, provider: &str) -> bool {
        self.away.lock().unwrap().contains(provider)
            || self.has(provider, ProviderFault::GatewaySilent)
    }

    /// The HTTP status with which a gateway answers everything.
    fn status(&self, provider: &str) -> Option<u16> {
        let faults = self.faults.lock().unwrap();
        let present = faults.get(provider).map(ProviderFaults::present).unwrap_or_default();
        present.into_iter().find_map(|fault| match fault {
            ProviderFault::GatewayStatus(status) => Some(status),
            _ => None,
        })
    }

    fn take(&self, lease: &LeaseId, manifest: &str) -> Result<(), String> {
        if self.chain.hash_of(lease.dseq) != Some(akash_redis::sdl::canonical::hash(manifest)) {
            return Err("manifest version validation failed".to_owned());
        }
        let json: serde_json::Value = serde_json::from_str(manifest).map_err(|e| e.to_string())?;
        let env = json[0]["services"][0]["env"][0].as_str().ok_or("no identity in the manifest")?;
        let identity =
            env.strip_prefix(&format!("{NODE_VARIABLE}=")).ok_or("no identity in the manifest")?;
        let identity: NodeIdentity = serde_json::from_str(identity).map_err(|e| e.to_string())?;
        let revision = json[0]["services"][0]["env"][1].as_str().unwrap_or_default();
        let revision = revision.split_once('=').unwrap_or_default().1.to_owned();
        let image = json[0]["services"][0]["image"].as_str().unwrap_or_default();
        let bad = self.bad_images.lock().unwrap().get(image).copied();
        let hash = akash_redis::sdl::canonical::hash(manifest);
        *self.puts.lock().unwrap().entry(lease.dseq).or_default() += 1;
        let name = IncarnationName(identity.incarnation.clone());
        if self.keys.lock().unwrap().insert(lease.dseq, hash).is_some_and(|before| before == hash) {
            return Ok(());
        }
        if self.delivered.lock().unwrap().insert(lease.dseq, name.clone()).is_none() {
            let shown = tokio::time::Instant::now() + *self.slowness.lock().unwrap();
            self.shown.lock().unwrap().insert(lease.dseq, shown);
        }
        self.start(lease.dseq, name, Start { manifest: hash, identity, revision, bad });
        Ok(())
    }
}

#[async_trait]
impl Gateway for SimGateway {
    async fn put_manifest(
        &self,
        provider: &ProviderView,
        lease: &LeaseId,
        manifest: &str,
    ) -> Result<(), GatewayError> {
        let call = format!("manifest for {} to {}", lease.dseq, provider.address);
        self.fuse.before(&call).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        if self.has(&provider.address, ProviderFault::GatewaySilent) {
            tokio::time::sleep(PUT_TIME_OUT).await;
        }
        let result = if self.is_away(&provider.address) {
            Err(GatewayError::Away {
                provider: provider.address.clone(),
                detail: "away".to_owned(),
            })
        } else if let Some(status) = self.status(&provider.address) {
            Err(GatewayError::Refused {
                provider: provider.address.clone(),
                what: "the manifest".to_owned(),
                status,
                body: "told to".to_owned(),
            })
        } else if STARTS_NOTHING.iter().any(|fault| self.has(&provider.address, *fault)) {
            *self.puts.lock().unwrap().entry(lease.dseq).or_default() += 1;
            Ok(())
        } else {
            self.take(lease, manifest).map_err(|body| GatewayError::Refused {
                provider: provider.address.clone(),
                what: "the manifest".to_owned(),
                status: 422,
                body,
            })
        };
        self.fuse.after(&call, &result).await;
        result
    }

    /// The host name is the incarnation: no ingress stands between.
    async fn status_page(&self, host: &str, nonce: &str) -> Result<StatusPage, StatusPageError> {
        let name = IncarnationName(host.to_owned());
        let (now, cut) = (self.nodes.clock.now(), self.pages_away.load(Ordering::SeqCst));
        let found = self
            .nodes
            .state
            .lock()
            .unwrap()
            .nodes
            .get(&name)
            .filter(|n| n.powered && !cut)
            .map(|n| (n.state(now.0), now.0.saturating_add_signed(n.clock_ahead)));
        let (state, time) = found
            .ok_or_else(|| StatusPageError { host: host.to_owned(), detail: "away".to_owned() })?;
        let content = page::StatusPage {
            time,
            nonce: nonce.to_owned(),
            incarnation: state.incarnation,
            boot_id: state.boot_id,
            mesh: state.mesh.backend_state.to_string(),
            health: state.mesh.health,
            process: state.redis.process,
            role: state.redis.role,
            fenced: state.redis.fenced,
            epoch: state.highest.epoch,
            lacks: state.notes,
        };
        let body = serde_json::to_vec(&content).unwrap();
        let key =
            page::signing_key(self.root.node_certificate(&name, now).key.expose_secret()).unwrap();
        let headers = HeaderMap::from_iter([(
            page::SIGNATURE_HEADER.parse().unwrap(),
            page::sign(&key, &body).parse().unwrap(),
        )]);
        Ok(StatusPage { headers, body })
    }

    async fn lease_status(&self, provider: &ProviderView, lease: &LeaseId) -> LeaseStatus {
        if self.has(&provider.address, ProviderFault::GatewaySilent) {
            tokio::time::sleep(CALL_TIME_OUT).await;
        }
        if self.is_away(&provider.address) {
            return LeaseStatus::Away("away".to_owned());
        }
        if let Some(status) = self.status(&provider.address) {
            return LeaseStatus::Away(format!("it answers {status}"));
        }
        let lies = [ProviderFault::LiesReady, ProviderFault::OtherManifest]
            .iter()
            .any(|fault| self.has(&provider.address, *fault));
        if lies && self.puts.lock().unwrap().contains_key(&lease.dseq) {
            let uris = vec![format!("lease-{}", lease.dseq)];
            return LeaseStatus::Deployed { ready: 1, uris };
        }
        if self.has(&provider.address, ProviderFault::LiesGone) {
            return LeaseStatus::NoManifest;
        }
        match self.delivered.lock().unwrap().get(&lease.dseq) {
            Some(_)
                if self
                    .shown
                    .lock()
                    .unwrap()
                    .get(&lease.dseq)
                    .is_some_and(|at| *at > tokio::time::Instant::now()) =>
            {
                LeaseStatus::NoManifest
            }
            Some(name) => {
                let nodes = &self.nodes.state.lock().unwrap().nodes;
                let ready = u32::from(nodes.get(name).is_none_or(|node| node.powered));
                LeaseStatus::Deployed { ready, uris: vec![name.0.clone()] }
            }
            None => LeaseStatus::NoManifest,
        }
    }
}
