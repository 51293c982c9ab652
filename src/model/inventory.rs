//! Everything that was observed at one moment. Facts only; whoever fills it decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::backup::Listing;
use super::chain::{ChainView, ProviderOffer};
use super::experience::Experiences;
use super::funds::WalletOutlook;
use super::ids::{IncarnationName, InstallationId, LeaseId};
use super::mesh::{MeshView, OwnMesh};
use super::money::Uact;
use super::node::NodeView;
use super::status_page::PageView;
use super::step::Effect;
use super::time::UnixMs;

/// A source that may be away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading<T> {
    /// The last complete reading.
    pub value: Option<T>,
    /// When it began: it knows of everything that happened before.
    pub at: UnixMs,
    /// When it had come to its end: what it says had happened by then.
    pub done: UnixMs,
    /// Why a newer one could not be had: the source is away.
    pub error: Option<String>,
    /// The source is there and says no: it does not pass by waiting.
    pub refused: bool,
}

impl<T> Default for Reading<T> {
    fn default() -> Self {
        Self {
            value: None,
            at: UnixMs(0),
            done: UnixMs(0),
            error: Some("not read yet".into()),
            refused: false,
        }
    }
}

impl<T> Reading<T> {
    /// A complete reading that took no time.
    #[must_use]
    pub fn fresh(value: T, at: UnixMs) -> Self {
        Self::took(value, at, at)
    }

    /// A complete reading.
    #[must_use]
    pub fn took(value: T, began: UnixMs, done: UnixMs) -> Self {
        Self { value: Some(value), at: began, done, error: None, refused: false }
    }

    /// The source did not answer, or `refused`: the last complete reading stays as it is.
    pub fn failed(&mut self, error: String, refused: bool) {
        (self.error, self.refused) = (Some(error), refused);
    }

    /// The value, when the source is not away.
    #[must_use]
    pub fn present(&self) -> Option<&T> {
        if self.error.is_none() { self.value.as_ref() } else { None }
    }
}

/// The world at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The chain, for our wallet.
    pub chain: Reading<ChainView>,
    /// The tailnet, for our installation.
    pub mesh: Reading<MeshView>,
    /// How long the wallet does, for all clusters together, by the last reading of everything.
    pub wallet: WalletOutlook,
    /// How the operator itself stands on the mesh.
    pub own_mesh: OwnMesh,
    /// Lease status by the provider's word; a lease that was not asked about is absent.
    pub leases: BTreeMap<LeaseId, LeaseStatus>,
    /// When each of these was asked about last.
    pub leases_asked: BTreeMap<LeaseId, UnixMs>,
    /// Public pages of nodes that did not speak for themselves, as last asked for.
    pub pages: BTreeMap<IncarnationName, PageView>,
    /// Nodes that reported at least once since the operator started.
    pub nodes: BTreeMap<IncarnationName, NodeView>,
    /// Hash of the manifest, with a minted key, that this process holds for an incarnation.
    pub held: BTreeMap<IncarnationName, [u8; 32]>,
    /// Nodes for which a key is being minted, or was after the reading of the tailnet began: it
    /// says nothing about their keys and devices.
    pub minting: BTreeSet<IncarnationName>,
    /// Why the control API would not mint a key for a node, one sentence each.
    pub not_minted: BTreeMap<IncarnationName, String>,
    /// Active deployments with our installation id that are in no record, with the name in their
    /// group.
    pub unrecorded: BTreeMap<u64, IncarnationName>,
    /// Manifests that providers took from this process, of incarnations that did not join yet.
    pub delivered: BTreeMap<IncarnationName, Delivered>,
    /// Effects that failed when they were carried out last.
    pub failing: Vec<Failing>,
    /// Deployments that the reading of the chain cannot be believed about: a transaction may still
    /// be signed or land, or landed after it.
    pub pending: BTreeSet<u64>,
    /// Nodes of which an effect on the deployment is under way: none of this plan starts there.
    pub busy: BTreeSet<IncarnationName>,
    /// Devices of the record that the control API told this process are deleted.
    pub deleted_devices: BTreeSet<String>,
    /// Suffixes, picked at random.
    pub id_pool: IdPool,
    /// What providers got from deployments of this cluster that its record has forgotten.
    pub spent_before: Uact,
    /// What was lived through with providers so far, also by other clusters.
    pub experience: Arc<Experiences>,
    /// Everybody who is registered as a provider, with what auditors signed. Read seldom: it changes
    /// by hand, and it is long.
    pub suppliers: Reading<Arc<Vec<ProviderOffer>>>,
    /// The least number of days for which another cluster told that the wallet does no longer than
    /// that: it is one wallet, and told of once.
    pub wallet_told: Option<u32>,
    /// What lies in the cluster's object storage, by the name of the cluster that was backed up.
    pub backups: BTreeMap<String, Reading<Arc<Listing>>>,
}

/// A lease by its provider's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseStatus {
    /// No manifest was applied yet.
    NoManifest,
    /// The service is known there.
    Deployed {
        /// Replicas whose container is started.
        ready: u32,
        /// Host names of the ingress.
        uris: Vec<String>,
    },
    /// The gateway does not answer.
    Away(String),
}

/// A manifest that a provider took; it may still be a while until anything of it is deployed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// When, the last time.
    pub at: UnixMs,
    /// How often it was sent and taken.
    pub times: u32,
}

/// An effect that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// What was tried.
    pub effect: Effect,
    /// How often in a row it, or another one that it waits for, did.
    pub times: u32,
    /// Why, the last time.
    pub error: String,
}

/// Names for things to come; the planner takes from the front.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdPool {
    /// Suffixes of incarnations.
    pub suffixes: Vec<String>,
}

/// What does not change while an operator process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constants {
    /// From the root secret.
    pub installation: InstallationId,
    /// Address of the account that pays.
    pub owner: String,
    /// This process' term.
    pub term: u64,
    /// When this process took over: silence is counted from then at the earliest.
    pub started: UnixMs,
}
