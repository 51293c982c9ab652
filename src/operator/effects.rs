//! Carrying one step out. Deadlines live in the planner: an effect tries for a few seconds and
//! hands back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use secrecy::ExposeSecret;

use super::observe::{Readings, lock};
use super::ports::Ports;
use super::{controller::Settings, convert};
use crate::api::types::RedisCluster;
use crate::model::chain::{ChainMsg, SignedTx, TxOutcome};
use crate::model::identity::{NODE_VARIABLE, NodeIdentity};
use crate::model::ids::{IncarnationName, LeaseId};
use crate::model::inventory::Delivered;
use crate::model::mesh::KEY_LIFE;
use crate::model::record::Record;
use crate::model::step::{Effect, Step};
use crate::model::time::UnixMs;
use crate::sdl;

/// Between two looks for a transaction whose end is not known yet.
const SETTLE_PAUSE: Duration = Duration::from_secs(2);

/// A key is used within this time of its making, or another one is made: it has to outlast the
/// start and the login of the node.
const KEY_GOOD_FOR: Duration = Duration::from_secs(KEY_LIFE.as_secs() / 2);

/// A manifest with a minted key. Never written down.
#[derive(Clone)]
pub struct HeldManifest {
    text: String,
    hash: [u8; 32],
    /// When its provider took it last, and how often it did.
    delivered: Option<Delivered>,
    /// Id of the key in it.
    key: String,
    minted: UnixMs,
}

/// Manifests of nodes that did not join yet.
pub type Held = Mutex<BTreeMap<IncarnationName, HeldManifest>>;

/// What became of the last mint for a node.
#[derive(Default)]
pub struct Mint {
    /// When it ended; none while it is under way.
    ended: Option<UnixMs>,
    /// Why there is no key.
    refused: Option<String>,
}

/// A transaction that may still land, or landed in a block that no reading has reached yet.
pub struct Kept {
    dseq: u64,
    /// Height of its block, once that is known.
    landed: Option<i64>,
}

/// Such transactions, by hash.
pub type Pending = Mutex<BTreeMap<String, Kept>>;

/// What effects need beside the step.
pub struct Hands {
    pub ports: Ports,
    pub settings: Settings,
    pub readings: Arc<Readings>,
    pub held: Held,
    /// Mints of this process, by node: the tailnet may show a key before the manifest is held, or
    /// not yet.
    pub minting: Mutex<BTreeMap<IncarnationName, Mint>>,
    pub pending: Pending,
    /// Deployments that are being created right now: signed or not yet, an earlier reading proves
    /// nothing about them.
    pub creating: Arc<Mutex<BTreeSet<u64>>>,
}

/// Marks the deployments that steps will create, until it is dropped.
pub struct Creating {
    dseqs: Vec<u64>,
    all: Arc<Mutex<BTreeSet<u64>>>,
}

impl Drop for Creating {
    fn drop(&mut self) {
        let mut all = lock(&self.all);
        for dseq in &self.dseqs {
            all.remove(dseq);
        }
    }
}

/// Which reading an effect outdates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Touches {
    /// The chain and what providers say of leases.
    Chain,
    /// The tailnet.
    Mesh,
    /// A node; its view is fresh when the command returns.
    Node,
}

/// Which reading `effect` outdates.
pub fn touches(effect: &Effect) -> Touches {
    match effect {
        Effect::CreateDeployment { .. }
        | Effect::CreateLease { .. }
        | Effect::DeliverManifest { .. }
        | Effect::CloseDeployment { .. } => Touches::Chain,
        Effect::DeleteDevice { .. } | Effect::SetTags { .. } | Effect::RevokeKey { .. } => {
            Touches::Mesh
        }
        Effect::Command { .. } => Touches::Node,
    }
}

impl Hands {
    /// Carries one effect out for `cluster` under `record`. An error is a sentence for people; the
    /// next plan decides what follows.
    pub async fn carry_out(
        &self,
        cluster: &RedisCluster,
        record: &Record,
        effect: &Effect,
    ) -> Result<(), String> {
        match effect {
            Effect::CreateDeployment { incarnation, deposit } => {
                let entry =
                    record.incarnations.get(incarnation).ok_or("it is not in the record")?;
                let group_name = incarnation.group_name(&self.settings.constants.installation);
                let group = sdl::group(&cluster.spec, &group_name, entry.max_price);
                // Before anything is bought: where no key can be had, a lease would be in vain.
                let hash = self.manifest(cluster, record, incarnation).await?.hash;
                let msg =
                    ChainMsg::CreateDeployment { dseq: entry.dseq, group, hash, deposit: *deposit };
                self.transact(cluster, &msg).await
            }
            Effect::CreateLease { lease, .. } => {
                self.transact(cluster, &ChainMsg::CreateLease(lease.clone())).await
            }
            Effect::DeliverManifest { incarnation, lease } => {
                self.deliver(cluster, record, incarnation, lease).await
            }
            Effect::CloseDeployment { incarnation, dseq } => {
                self.forget_manifest(incarnation);
                self.transact(cluster, &ChainMsg::CloseDeployment { dseq: *dseq }).await
            }
            Effect::DeleteDevice { device, .. } => {
                self.ports.mesh.delete_device(device).await.map_err(|e| e.to_string())
            }
            Effect::SetTags { device, tags, .. } => {
                self.ports.mesh.set_tags(device, tags).await.map_err(|e| e.to_string())
            }
            Effect::RevokeKey { key, .. } => {
                self.ports.mesh.revoke(key).await.map_err(|e| e.to_string())
            }
            Effect::Command { incarnation, authority, command } => {
                let view = self.ports.agents.view(incarnation);
                let nonce = view.map(|v| v.state.nonce).unwrap_or_default();
                let request = convert::command(&self.settings.root, *authority, nonce, command);
                self.ports.agents.command(incarnation, request).await.map_err(|e| e.to_string())
            }
        }
    }

    /// The node joined, or will not: its key is of no more use.
    pub fn forget_manifest(&self, incarnation: &IncarnationName) {
        lock(&self.held).remove(incarnation);
        if let Some(mint) = lock(&self.minting).get_mut(incarnation) {
            mint.refused = None;
        }
    }

    /// Nodes whose key is this process' own: held, with the manifest's hash, or about to be.
    pub fn own_keys(&self) -> BTreeMap<IncarnationName, [u8; 32]> {
        // In this order, so that a node is in one of them all the time.
        let under_way: Vec<_> = {
            let mints = lock(&self.minting);
            mints
                .iter()
                .filter(|(_, mint)| mint.ended.is_none())
                .map(|(name, _)| (name.clone(), [0; 32]))
                .collect()
        };
        let held = lock(&self.held);
        under_way
            .into_iter()
            .chain(held.iter().map(|(name, held)| (name.clone(), held.hash)))
            .collect()
    }

    /// Nodes about whose keys and devices a reading of the tailnet that began at `at` says nothing:
    /// a mint is under way, or ended later.
    pub fn minted_since(&self, at: UnixMs) -> BTreeSet<IncarnationName> {
        let mut mints = lock(&self.minting);
        mints.retain(|_, mint| mint.refused.is_some() || mint.ended.is_none_or(|end| end >= at));
        mints
            .iter()
            .filter(|(_, mint)| mint.ended.is_none_or(|end| end >= at))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Why the control API would not mint a key, by node.
    pub fn not_minted(&self) -> BTreeMap<IncarnationName, String> {
        lock(&self.minting)
            .iter()
            .filter_map(|(name, mint)| Some((name.clone(), mint.refused.clone()?)))
            .collect()
    }

    /// Manifests that providers took from this process.
    pub fn delivered(&self) -> BTreeMap<IncarnationName, Delivered> {
        lock(&self.held)
            .iter()
            .filter_map(|(name, held)| Some((name.clone(), held.delivered?)))
            .collect()
    }

    /// To be called before steps are started, and kept until their reading of the chain is new.
    pub fn creating(&self, steps: &[Step], record: &Record) -> Creating {
        let creates =
            steps.iter().filter(|step| matches!(step.effect, Effect::CreateDeployment { .. }));
        let dseqs: Vec<_> = creates
            .filter_map(|step| record.incarnations.get(step.effect.incarnation()))
            .map(|i| i.dseq)
            .collect();
        lock(&self.creating).extend(&dseqs);
        Creating { dseqs, all: self.creating.clone() }
    }

    /// Signs, keeps the bytes, sends them, and waits for their end.
    async fn transact(&self, cluster: &RedisCluster, msg: &ChainMsg) -> Result<(), String> {
        let tx = self.ports.chain.sign(msg).await.map_err(|e| e.to_string())?;
        self.ports.store.keep_tx(&cluster.metadata.name, &tx).await.map_err(|e| e.to_string())?;
        self.expect(&tx);
        match self.broadcast_and_confirm(&tx).await {
            TxOutcome::Landed { .. } => Ok(()),
            TxOutcome::Failed { codespace, code, log } => {
                Err(format!("{} failed: {codespace} code {code}: {log}", tx.purpose))
            }
            TxOutcome::Expired => {
                Err(format!("{} did not land before its time-out and never will", tx.purpose))
            }
        }
    }

    /// Sends these bytes until their end is known; only then may another transaction of that
    /// deployment be signed.
    pub async fn broadcast_and_confirm(&self, tx: &SignedTx) -> TxOutcome {
        let outcome = loop {
            match self.ports.chain.broadcast_and_confirm(tx).await {
                Ok(outcome) => break outcome,
                Err(error) => {
                    tracing::warn!(tx = %tx.hash, purpose = %tx.purpose, %error, "the end of a transaction is not known yet");
                }
            }
            tokio::time::sleep(SETTLE_PAUSE).await;
        };
        if let Err(error) = self.ports.store.drop_tx(&tx.hash).await {
            tracing::warn!(tx = %tx.hash, %error, "a settled transaction stays in the store; it is looked up again at the next start");
        }
        let mut pending = lock(&self.pending);
        match outcome {
            TxOutcome::Landed { height } => {
                pending.insert(tx.hash.clone(), Kept { dseq: tx.dseq, landed: Some(height) });
            }
            TxOutcome::Failed { .. } | TxOutcome::Expired => {
                pending.remove(&tx.hash);
            }
        }
        drop(pending);
        outcome
    }

    /// From now on its end is open.
    pub fn expect(&self, tx: &SignedTx) {
        lock(&self.pending).insert(tx.hash.clone(), Kept { dseq: tx.dseq, landed: None });
    }

    /// Deployments that a reading of this height cannot be believed about: a transaction may still
    /// be signed or land, or landed later.
    pub fn unsettled(&self, height: i64) -> BTreeSet<u64> {
        // In this order, so that a deployment is in one of them all the time.
        let mut all = lock(&self.creating).clone();
        let mut pending = lock(&self.pending);
        pending.retain(|_, kept| kept.landed.is_none_or(|landed| landed > height));
        all.extend(pending.values().map(|kept| kept.dseq));
        all
    }

    /// Mints a key and stores the new hash, unless this process did both already; then brings the
    /// manifest to the provider.
    async fn deliver(
        &self,
        cluster: &RedisCluster,
        record: &Record,
        incarnation: &IncarnationName,
        lease: &LeaseId,
    ) -> Result<(), String> {
        let chain = self.readings.chain().ok_or("the chain was not read yet")?;
        let deployment =
            chain.deployments.get(&lease.dseq).ok_or("the chain does not know the deployment")?;
        let provider =
            chain.providers.get(&lease.provider).ok_or("the chain does not know the provider")?;
        let held = self.manifest(cluster, record, incarnation).await?;
        if deployment.hash != held.hash {
            self.transact(
                cluster,
                &ChainMsg::UpdateDeployment { dseq: lease.dseq, hash: held.hash },
            )
            .await?;
        }
        self.ports
            .gateway
            .put_manifest(provider, lease, &held.text)
            .await
            .map_err(|e| e.to_string())?;
        if let Some(held) = lock(&self.held).get_mut(incarnation) {
            let times = held.delivered.map_or(0, |d| d.times).saturating_add(1);
            held.delivered = Some(Delivered { at: (self.ports.now)(), times });
        }
        Ok(())
    }

    /// The manifest that this process holds for a node whose key is still good, or one with a fresh
    /// key.
    async fn manifest(
        &self,
        cluster: &RedisCluster,
        record: &Record,
        incarnation: &IncarnationName,
    ) -> Result<HeldManifest, String> {
        let held = lock(&self.held).get(incarnation).cloned();
        if let Some(held) = held {
            if !(self.ports.now)().passed(held.minted, KEY_GOOD_FOR) {
                return Ok(held);
            }
            self.ports.mesh.revoke(&held.key).await.map_err(|e| e.to_string())?;
            lock(&self.held).remove(incarnation);
        }
        lock(&self.minting).insert(incarnation.clone(), Mint::default());
        let made = self.make_manifest(cluster, record, incarnation).await;
        let refused = made.as_ref().err().cloned();
        lock(&self.minting)
            .insert(incarnation.clone(), Mint { ended: Some((self.ports.now)()), refused });
        made
    }

    async fn make_manifest(
        &self,
        cluster: &RedisCluster,
        record: &Record,
        incarnation: &IncarnationName,
    ) -> Result<HeldManifest, String> {
        let entry = record.incarnations.get(incarnation).ok_or("it is not in the record")?;
        let settings = &self.settings;
        let installation = &settings.constants.installation;
        let tag = settings.tag_of(cluster);
        // The plan that asked for this may be old. Whoever was given up gets no key any more: its
        // tailnet is being cleaned up.
        let now =
            self.ports.store.get(&cluster.metadata.name).await.map_err(|e| e.to_string())?.record;
        if now.incarnations.get(incarnation).is_none_or(|i| i.condemned.is_some()) {
            return Err("it was given up meanwhile, so no key is minted for it".to_owned());
        }
        let key = self
            .ports
            .mesh
            .mint(&incarnation.key_description(installation), tag, KEY_LIFE)
            .await
            .map_err(|e| e.to_string())?;
        let minted = (self.ports.now)();
        let certificate = settings.root.node_certificate(incarnation, (self.ports.now)());
        let identity = NodeIdentity {
            installation: installation.0.clone(),
            incarnation: incarnation.0.clone(),
            hostname: incarnation.hostname(installation),
            epoch_floor: entry.epoch_floor,
            auth_key: key.secret.expose_secret().to_owned(),
            login_server: settings.login_server.clone(),
            ca: settings.root.ca_pem(),
            certificate: certificate.certificate,
            key: certificate.key.expose_secret().to_owned(),
            egress: cluster.spec.mesh.egress.word().to_owned(),
            serve: cluster.spec.mesh.serve,
            memory_bytes: cluster.spec.resources.memory.0,
            persistent: cluster.spec.resources.data.is_some(),
        };
        let identity = serde_json::to_string(&identity).map_err(|e| e.to_string())?;
        let env = [(NODE_VARIABLE.to_owned(), identity)];
        let manifest = sdl::manifest(
            &cluster.spec,
            &incarnation.group_name(installation),
            &settings.image,
            &env,
        );
        let hash = sdl::canonical::hash(&manifest);
        let made = HeldManifest { hash, text: manifest, delivered: None, key: key.id, minted };
        lock(&self.held).insert(incarnation.clone(), made.clone());
        Ok(made)
    }
}
