//! The manifest of a node, from its key to its delivery. A manifest holds a minted key, so it is
//! never written down: a process that starts anew mints another key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use secrecy::ExposeSecret;

use super::execute::EffectError;
use super::lock;
use super::ports::Ports;
use super::settings::Settings;
use crate::api::template::Template;
use crate::api::types::RedisCluster;
use crate::model::identity::{NODE_VARIABLE, NodeIdentity, REVISION_VARIABLE};
use crate::model::ids::IncarnationName;
use crate::model::incarnation::Incarnation;
use crate::model::inventory::Delivered;
use crate::model::mesh::KEY_LIFE;
use crate::model::record::Record;
use crate::model::time::UnixMs;
use crate::sdl;

/// A key is used within this time of its making, or another one is made: it has to outlast the start
/// and the login of the node.
const KEY_GOOD_FOR: Duration = Duration::from_secs(KEY_LIFE.as_secs() / 2);

/// A manifest with a key that nobody used yet.
#[derive(Clone)]
pub struct Manifest {
    /// As its provider gets it.
    pub text: Arc<str>,
    /// As the chain has it.
    pub hash: [u8; 32],
    /// Id of the key in it; none where the node's mesh state is on its volume.
    key: Option<String>,
    /// The word for what the node is started with.
    revision: String,
}

/// How far the manifest of a node has come in this process.
enum State {
    /// A key is being minted.
    Minting,
    /// The control API would not mint a key.
    NotMinted(String),
    /// Made; its provider does not have it yet.
    Made(Manifest),
    /// Its provider took it.
    Delivered(Manifest, Delivered),
    /// The node joined or was given up: its key is of no more use.
    Done,
}

struct Entry {
    state: State,
    /// When the last mint ended; the present moment while it is under way.
    minted: UnixMs,
}

/// The manifests of nodes that did not join yet.
pub struct Manifests {
    ports: Ports,
    settings: Arc<Settings>,
    entries: Mutex<BTreeMap<IncarnationName, Entry>>,
}

/// What this process knows of the manifests of one cluster, as the inventory has it.
#[derive(Default)]
pub struct Known {
    /// Hash of the manifest that is held; zeros while its key is being minted.
    pub held: BTreeMap<IncarnationName, [u8; 32]>,
    /// A reading of the tailnet says nothing about their keys and devices.
    pub minting: BTreeSet<IncarnationName>,
    /// Why no key could be minted.
    pub not_minted: BTreeMap<IncarnationName, String>,
    /// What providers took.
    pub delivered: BTreeMap<IncarnationName, Delivered>,
}

impl Manifests {
    /// None is held yet.
    pub fn new(ports: Ports, settings: Arc<Settings>) -> Self {
        Self { ports, settings, entries: Mutex::default() }
    }

    /// Those of a cluster, beside a reading of the tailnet that began at `read`.
    pub fn known(&self, cluster: &str, read: UnixMs) -> Known {
        let mut known = Known::default();
        let mut entries = lock(&self.entries);
        let over = |entry: &Entry| matches!(entry.state, State::Done) && entry.minted < read;
        entries.retain(|name, entry| name.cluster() != cluster || !over(entry));
        for (name, entry) in entries.iter().filter(|(name, _)| name.cluster() == cluster) {
            let minting = matches!(entry.state, State::Minting);
            if minting || entry.minted >= read {
                known.minting.insert(name.clone());
            }
            match &entry.state {
                State::Minting => drop(known.held.insert(name.clone(), [0; 32])),
                State::NotMinted(why) => drop(known.not_minted.insert(name.clone(), why.clone())),
                State::Made(manifest) => drop(known.held.insert(name.clone(), manifest.hash)),
                State::Delivered(manifest, delivered) => {
                    known.held.insert(name.clone(), manifest.hash);
                    known.delivered.insert(name.clone(), *delivered);
                }
                State::Done => {}
            }
        }
        known
    }

    /// The node joined, or never will.
    pub fn done(&self, incarnation: &IncarnationName) {
        if let Some(entry) = lock(&self.entries).get_mut(incarnation)
            && !matches!(entry.state, State::Minting)
        {
            entry.state = State::Done;
        }
    }

    /// A cluster is gone.
    pub fn forget(&self, cluster: &str) {
        lock(&self.entries).retain(|name, _| name.cluster() != cluster);
    }

    /// Its provider took the manifest.
    pub fn delivered(&self, incarnation: &IncarnationName, manifest: Manifest) {
        if let Some(entry) = lock(&self.entries).get_mut(incarnation) {
            let times = match &entry.state {
                State::Delivered(_, delivered) => delivered.times,
                State::Made(_) => 0,
                State::Minting | State::NotMinted(_) | State::Done => return,
            };
            let delivered = Delivered { at: (self.ports.now)(), times: times.saturating_add(1) };
            entry.state = State::Delivered(manifest, delivered);
        }
    }

    /// The manifest that is held for a node, while its key is good for long enough; otherwise one
    /// with a fresh key.
    pub async fn get(
        &self,
        cluster: &RedisCluster,
        record: &Record,
        incarnation: &IncarnationName,
    ) -> Result<Manifest, EffectError> {
        let held = lock(&self.entries).get(incarnation).and_then(|entry| match &entry.state {
            State::Made(manifest) | State::Delivered(manifest, _) => {
                Some((manifest.clone(), entry.minted))
            }
            State::Minting | State::NotMinted(_) | State::Done => None,
        });
        if let Some((manifest, minted)) = held {
            let young = !(self.ports.now)().passed(minted, KEY_GOOD_FOR);
            let fits = manifest.revision == self.template(cluster).revision();
            if fits && (young || manifest.key.is_none()) {
                return Ok(manifest);
            }
            if let Some(key) = &manifest.key {
                self.ports.mesh.revoke(key).await?;
            }
        }
        self.set(incarnation, State::Minting);
        match self.make(cluster, record, incarnation).await {
            Ok(manifest) => {
                self.set(incarnation, State::Made(manifest.clone()));
                Ok(manifest)
            }
            Err(error) => {
                self.set(incarnation, State::NotMinted(error.to_string()));
                Err(error)
            }
        }
    }

    fn set(&self, incarnation: &IncarnationName, state: State) {
        let entry = Entry { state, minted: (self.ports.now)() };
        lock(&self.entries).insert(incarnation.clone(), entry);
    }

    async fn make(
        &self,
        cluster: &RedisCluster,
        record: &Record,
        incarnation: &IncarnationName,
    ) -> Result<Manifest, EffectError> {
        let entry = record.incarnations.get(incarnation).ok_or_else(not_recorded)?;
        let installation = &self.settings.constants.installation;
        // The plan that asked for this may be old. Whoever was given up gets no key any more: its
        // tailnet is being cleaned up.
        let now = self.ports.store.get(&cluster.metadata.name).await?.record;
        if now.incarnations.get(incarnation).is_none_or(|i| i.condemned.is_some()) {
            let why = "it was given up meanwhile, so no key is minted for it";
            return Err(EffectError::Outdated(why.to_owned()));
        }
        let description = incarnation.key_description(installation);
        let tag = self.settings.tag_of(cluster);
        let key = if needs_key(cluster, entry) {
            Some(self.ports.mesh.mint(&description, tag, KEY_LIFE).await?)
        } else {
            None
        };
        let secret = key.as_ref().map_or("", |key| key.secret.expose_secret());
        let template = self.template(cluster);
        let identity = self.identity(cluster, entry, incarnation, secret);
        let identity = NodeIdentity { startup: template.startup.clone(), ..identity };
        let identity = serde_json::to_string(&identity)
            .map_err(|error| EffectError::Refused(error.to_string()))?;
        let revision = template.revision();
        let env = [
            (NODE_VARIABLE.to_owned(), identity),
            (REVISION_VARIABLE.to_owned(), revision.clone()),
        ];
        let group = incarnation.group_name(installation);
        let text = sdl::manifest(&cluster.spec, &group, &template.image, &env);
        let (hash, key) = (sdl::canonical::hash(&text), key.map(|key| key.id));
        Ok(Manifest { hash, text: text.into(), key, revision })
    }

    /// What a node is started with now.
    fn template(&self, cluster: &RedisCluster) -> Template {
        Template::of(&cluster.spec, &self.settings.image)
    }

    fn identity(
        &self,
        cluster: &RedisCluster,
        entry: &Incarnation,
        incarnation: &IncarnationName,
        auth_key: &str,
    ) -> NodeIdentity {
        let settings = &self.settings;
        let installation = &settings.constants.installation;
        let certificate = settings.root.node_certificate(incarnation, (self.ports.now)());
        NodeIdentity {
            installation: installation.0.clone(),
            incarnation: incarnation.0.clone(),
            hostname: incarnation.hostname(installation),
            epoch_floor: entry.epoch_floor,
            auth_key: auth_key.to_owned(),
            login_server: settings.login_server.clone(),
            ca: settings.root.ca_pem(),
            certificate: certificate.certificate,
            key: certificate.key.expose_secret().to_owned(),
            egress: cluster.spec.mesh.egress,
            serve: cluster.spec.mesh.serve,
            service: cluster.spec.mesh.service,
            memory_bytes: cluster.spec.resources.memory.0,
            persistent: cluster.spec.resources.data.is_some(),
            startup: BTreeMap::new(),
        }
    }
}

/// A node that runs and has its mesh state on its volume is started anew without a key: one that
/// nobody needs would lie open with its provider.
fn needs_key(cluster: &RedisCluster, entry: &Incarnation) -> bool {
    let goes_on = entry.has_joined() && entry.rejoin.is_none();
    !goes_on || cluster.spec.resources.data.is_none()
}

/// A step whose incarnation its own record does not have.
pub fn not_recorded() -> EffectError {
    EffectError::Outdated("it is not in the record".to_owned())
}
