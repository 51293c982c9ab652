//! The leases of one provider: manifests that came, workloads that run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::chain::Chain;
use super::faults::{ProviderFault, ProviderFaults};
use super::manifest::{self, Refusal};
use crate::sdl::canonical::{Manifest, Service};

/// A lease at one provider.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseKey {
    /// Account of the tenant.
    pub owner: String,
    /// Deployment sequence.
    pub dseq: u64,
    /// Group sequence.
    pub gseq: u32,
    /// Order sequence.
    pub oseq: u32,
}

impl LeaseKey {
    /// Short name of the lease, a DNS label.
    #[must_use]
    pub fn label(&self) -> String {
        let id = format!("{}/{}/{}/{}", self.owner, self.dseq, self.gseq, self.oseq);
        hex::encode(&Sha256::digest(id)[..12])
    }
}

/// Runs the services of leases.
#[async_trait]
pub trait Workloads: Send + Sync {
    /// Starts the service of a lease, or brings a running one to this form; its data stays. `host`
    /// is its public name.
    async fn deploy(&self, lease: &LeaseKey, service: &Service, host: &str);
    /// Ends it and wipes its data.
    async fn remove(&self, lease: &LeaseKey);
    /// Whether its container is started.
    fn ready(&self, lease: &LeaseKey) -> bool;
}

/// A provider by name.
#[derive(Clone, Debug)]
pub struct ProviderName {
    /// Account.
    pub address: String,
    /// Public host name; workloads are published below it.
    pub hostname: String,
}

#[derive(Default)]
struct State {
    /// The last good manifest of a deployment; it may come before its lease.
    kept: BTreeMap<(String, u64), Manifest>,
    /// What was deployed.
    live: BTreeMap<LeaseKey, Live>,
}

#[derive(Clone)]
struct Live {
    manifest: Manifest,
    service: Service,
}

/// The leases of one provider. A lease runs the first service of its group, with one replica.
pub struct ProviderHost {
    name: ProviderName,
    chain: Arc<dyn Chain>,
    workloads: Arc<dyn Workloads>,
    faults: Arc<ProviderFaults>,
    state: Mutex<State>,
}

impl ProviderHost {
    /// A provider without leases.
    #[must_use]
    pub fn new(
        name: ProviderName,
        chain: Arc<dyn Chain>,
        workloads: Arc<dyn Workloads>,
    ) -> Arc<Self> {
        Self::with_faults(name, chain, workloads, Arc::default())
    }

    /// The same, with what goes wrong with it.
    #[must_use]
    pub fn with_faults(
        name: ProviderName,
        chain: Arc<dyn Chain>,
        workloads: Arc<dyn Workloads>,
        faults: Arc<ProviderFaults>,
    ) -> Arc<Self> {
        Arc::new(Self { name, chain, workloads, faults, state: Mutex::default() })
    }

    /// What goes wrong with it.
    #[must_use]
    pub fn faults(&self) -> &Arc<ProviderFaults> {
        &self.faults
    }

    /// Who it is.
    #[must_use]
    pub fn name(&self) -> &ProviderName {
        &self.name
    }

    /// The chain it asks.
    #[must_use]
    pub fn chain(&self) -> &dyn Chain {
        &*self.chain
    }

    /// A bid of this provider was taken: a manifest that came earlier is deployed now.
    pub async fn lease_won(&self, owner: &str, dseq: u64, gseq: u32, oseq: u32) {
        let kept = self.lock().kept.get(&(owner.to_owned(), dseq)).cloned();
        if let Some(manifest) = kept {
            self.deploy(LeaseKey { owner: owner.to_owned(), dseq, gseq, oseq }, manifest).await;
        }
    }

    /// A lease of this provider ended: its workload goes with all it holds.
    pub async fn lease_closed(&self, owner: &str, dseq: u64, gseq: u32, oseq: u32) {
        let key = LeaseKey { owner: owner.to_owned(), dseq, gseq, oseq };
        {
            let mut state = self.lock();
            state.live.remove(&key);
            if !state.live.keys().any(|other| other.owner == owner && other.dseq == dseq) {
                state.kept.remove(&(owner.to_owned(), dseq));
            }
        }
        if !self.faults.has(ProviderFault::KeepsRunning) {
            self.workloads.remove(&key).await;
        }
    }

    /// Takes a manifest, in the order of the real checks.
    pub async fn put_manifest(&self, owner: &str, dseq: u64, body: &[u8]) -> Result<(), Refusal> {
        let chain = |error: String| Refusal::Answer(500, error);
        let manifest = manifest::decode(body)?;
        manifest::validate(&manifest)?;
        let Some(deployment) = self.chain.deployment(owner, dseq).await.map_err(chain)? else {
            return Err(Refusal::Answer(
                500,
                "rpc error: code = NotFound desc = Deployment not found: key not found".into(),
            ));
        };
        if deployment.hash != manifest::hash(&manifest) {
            return Err(Refusal::Answer(422, "manifest version validation failed".into()));
        }
        manifest::fits(&manifest, &deployment.groups)?;
        self.check_hosts(owner, &manifest)?;
        let leases = self.chain.leases(owner, dseq, &self.name.address).await.map_err(chain)?;
        self.lock().kept.insert((owner.to_owned(), dseq), manifest.clone());
        if leases.is_empty() {
            return Err(Refusal::Answer(404, "no lease for deployment".into()));
        }
        for (gseq, oseq) in leases {
            self.deploy(LeaseKey { owner: owner.to_owned(), dseq, gseq, oseq }, manifest.clone())
                .await;
        }
        Ok(())
    }

    fn check_hosts(&self, owner: &str, manifest: &Manifest) -> Result<(), Refusal> {
        let hosts = |service: &Service| -> Vec<String> {
            service
                .expose
                .iter()
                .flatten()
                .flat_map(|expose| expose.hosts.iter().flatten().cloned())
                .collect()
        };
        let state = self.lock();
        let taken: Vec<String> = state
            .live
            .iter()
            .filter(|(key, _)| key.owner != owner)
            .flat_map(|(_, live)| hosts(&live.service))
            .collect();
        let asked =
            manifest.0.iter().flat_map(|group| group.services.iter().flatten()).flat_map(hosts);
        match asked.into_iter().find(|host| taken.contains(host)) {
            Some(host) => {
                Err(Refusal::Answer(500, format!("hostname not allowed: host {host:?} in use")))
            }
            None => Ok(()),
        }
    }

    /// Brings a lease to a manifest. A service that changed its name is refused without a word, as
    /// everywhere in this market.
    async fn deploy(&self, key: LeaseKey, manifest: Manifest) {
        let group =
            usize::try_from(key.gseq).ok().and_then(|gseq| manifest.0.get(gseq.checked_sub(1)?));
        let Some(mut service) = group.and_then(|group| group.services.as_ref()?.first()).cloned()
        else {
            return;
        };
        if self.faults.has(ProviderFault::NeverDeploys) {
            return;
        }
        {
            let mut state = self.lock();
            if self.faults.has(ProviderFault::OtherManifest) {
                if state.live.contains_key(&key) {
                    return;
                }
                service.env = None;
            }
            if state.live.get(&key).is_some_and(|live| live.service.name != service.name) {
                return;
            }
            state.live.insert(key.clone(), Live { manifest, service: service.clone() });
        }
        if !self.faults.has(ProviderFault::LiesReady) {
            self.workloads.deploy(&key, &service, &self.uri(&key)).await;
        }
    }

    /// Public name of a lease.
    #[must_use]
    pub fn uri(&self, key: &LeaseKey) -> String {
        format!("{}.{}", key.label(), self.name.hostname)
    }

    /// How many leases run here, and how many manifests are kept.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.live.len(), state.kept.len())
    }

    /// The manifest in force of a lease, as it is given back: without its endpoints.
    #[must_use]
    pub fn manifest_json(&self, key: &LeaseKey) -> Option<Value> {
        let mut manifest = self.lock().live.get(key)?.manifest.clone();
        for service in manifest.0.iter_mut().flat_map(|group| group.services.iter_mut().flatten()) {
            service.resources.endpoints = None;
        }
        serde_json::to_value(manifest).ok()
    }

    /// Name of the service of a lease.
    #[must_use]
    pub fn service_name(&self, key: &LeaseKey) -> Option<String> {
        if self.faults.has(ProviderFault::LiesGone) {
            return None;
        }
        self.lock().live.get(key).map(|live| live.service.name.clone())
    }

    /// State of the service of a lease.
    #[must_use]
    pub fn service_json(&self, key: &LeaseKey) -> Option<Value> {
        let service = self.lock().live.get(key)?.service.clone();
        let lies = self.faults.has(ProviderFault::LiesReady);
        let ready = u32::from(lies || self.workloads.ready(key));
        let stateful = service
            .params
            .is_some_and(|params| params.storage.is_some_and(|mounts| !mounts.is_empty()));
        // A stateful set counts itself available before anything runs: nobody may rely on that
        // number.
        let started = if stateful { 1 } else { ready };
        Some(json!({
            "name": service.name, "available": started, "total": started, "uris": [self.uri(key)], "observed_generation": started,
            "replicas": started, "updated_replicas": started, "ready_replicas": ready, "available_replicas": started,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
