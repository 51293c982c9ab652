//! The tailnet of a simulation: keys and devices.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use akash_redis::mesh::{MeshControl, MeshError, MintedKey};
use akash_redis::model::ids::InstallationId;
use akash_redis::model::mesh::{AuthKey, Device, MeshView};
use async_trait::async_trait;
use secrecy::SecretString;

use super::fuse::Fuse;
use super::status_page::Witness;

/// Tag of the nodes.
pub const CLUSTER_TAG: &str = "tag:akash-redis";
/// Tag of nodes that nobody but the operator reaches.
pub const QUARANTINE_TAG: &str = "tag:akash-redis-quarantine";

/// Everything the control server knows.
#[derive(Default)]
pub struct Tailnet {
    pub keys: Vec<AuthKey>,
    pub devices: Vec<Device>,
    minted: u64,
    joined: u64,
    /// The control API does not answer.
    pub away: bool,
    /// The policy does not let the operator give tags.
    pub refuses_tags: bool,
    /// Ids of devices that the control API's list lacks by mistake.
    pub hidden: Vec<String>,
    /// Time between what the control API does and its answer.
    pub slow_answer: Duration,
    /// Time that a list of keys takes: what it says is of its beginning.
    pub slow_keys: Duration,
    /// The control API lists first labels for names, as headscale does.
    pub short_names: bool,
    /// The OAuth client was revoked.
    pub refuses: bool,
    /// The OAuth client may not mint keys.
    pub refuses_keys: bool,
}

impl Tailnet {
    /// A node logs in with a key; a spent or revoked one is refused.
    pub fn join(&mut self, secret: &str, hostname: &str) -> Option<Device> {
        let key =
            self.keys.iter_mut().find(|k| secret == format!("secret-{}", k.id) && !k.invalid)?;
        key.invalid = true;
        self.joined += 1;
        let device = Device {
            id: format!("n{}", self.joined),
            hostname: hostname.to_owned(),
            name: format!("{hostname}.mesh.test"),
            ip: format!("100.64.0.{}", self.joined),
            tags: vec![CLUSTER_TAG.to_owned()],
            created: None,
            multiple_connections: false,
            unsigned: false,
        };
        self.devices.push(device.clone());
        Some(device)
    }

    /// Whom a device sees: those with the cluster's tag see each other, the operator alone sees the
    /// others. `None` when it was deleted.
    pub fn netmap(&self, device: &str) -> Option<Vec<String>> {
        let own = self.devices.iter().find(|d| d.id == device)?;
        let meets = |d: &&Device| {
            d.id != own.id && d.tags.iter().any(|t| t == CLUSTER_TAG && own.tags.contains(t))
        };
        Some(self.devices.iter().filter(meets).map(|d| d.name.clone()).collect())
    }

    /// The same by id, which is what a name cannot change.
    pub fn netmap_ids(&self, device: &str) -> Vec<String> {
        let names = self.netmap(device).unwrap_or_default();
        self.devices.iter().filter(|d| names.contains(&d.name)).map(|d| d.id.clone()).collect()
    }

    /// An admin gives a device another name.
    pub fn rename(&mut self, device: &str, name: &str) {
        self.devices
            .iter_mut()
            .filter(|d| d.id == device)
            .for_each(|d| name.clone_into(&mut d.name));
    }

    /// The control server, its API and the policy are as they should be.
    pub fn heal(&mut self) {
        *self = Self {
            keys: std::mem::take(&mut self.keys),
            devices: std::mem::take(&mut self.devices),
            minted: self.minted,
            joined: self.joined,
            ..Self::default()
        };
    }

    /// Keys that could still be used.
    pub fn usable_keys(&self) -> usize {
        self.keys.iter().filter(|k| !k.invalid).count()
    }
}

/// The control API's seam.
pub struct SimMesh {
    pub tailnet: Arc<Mutex<Tailnet>>,
    pub fuse: Arc<Fuse>,
    pub witness: Arc<Witness>,
}

impl SimMesh {
    fn with<T>(&self, what: impl FnOnce(&mut Tailnet) -> T) -> Result<T, MeshError> {
        let mut tailnet = self.tailnet.lock().unwrap();
        if tailnet.away {
            return Err(MeshError::Away { api: "sim".to_owned(), detail: "away".to_owned() });
        }
        if tailnet.refuses {
            return Err(forbidden(401, "an access token"));
        }
        Ok(what(&mut tailnet))
    }

    async fn effect<T>(
        &self,
        call: String,
        what: impl FnOnce(&mut Tailnet) -> T,
    ) -> Result<T, MeshError> {
        self.fuse.before(&call).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let done = self.with(what);
        let slow = self.tailnet.lock().unwrap().slow_answer;
        tokio::time::sleep(slow).await;
        self.fuse.after(&call, done.as_ref().map(drop)).await;
        done
    }
}

fn forbidden(status: u16, what: &str) -> MeshError {
    let remedy = "make another OAuth client".to_owned();
    MeshError::Forbidden {
        what: what.to_owned(),
        status,
        message: "the OAuth client is not valid".to_owned(),
        remedy,
    }
}

#[async_trait]
impl MeshControl for SimMesh {
    /// Keys, then devices, as the real client does.
    async fn read(
        &self,
        installation: &InstallationId,
        known: &BTreeSet<String>,
    ) -> Result<MeshView, MeshError> {
        tokio::time::sleep(Duration::from_millis(25)).await;
        let slow = self.tailnet.lock().unwrap().slow_keys;
        let keys = self.with(|t| {
            t.keys.iter().filter(|k| k.description.contains(&installation.0)).cloned().collect()
        })?;
        tokio::time::sleep(slow + Duration::from_millis(25)).await;
        self.with(|t| {
            let ours = |d: &&Device| {
                (d.hostname.ends_with(&installation.0) || known.contains(&d.id))
                    && !t.hidden.contains(&d.id)
            };
            let mut devices: Vec<Device> = t.devices.iter().filter(ours).cloned().collect();
            if t.short_names {
                for device in &mut devices {
                    device.name = device.name.split('.').next().unwrap_or_default().to_owned();
                }
            }
            MeshView { devices, keys, all_keys: true }
        })
    }

    async fn mint(
        &self,
        description: &str,
        _tag: &str,
        _life: Duration,
    ) -> Result<MintedKey, MeshError> {
        let minted = self.effect(format!("mint {description}"), |t| {
            if t.refuses_keys {
                return Err(forbidden(403, "an auth key"));
            }
            t.minted += 1;
            let id = format!("k{}", t.minted);
            t.keys.push(AuthKey {
                id: id.clone(),
                description: description.to_owned(),
                invalid: false,
            });
            Ok(MintedKey { secret: SecretString::from(format!("secret-{id}")), id })
        });
        minted.await?
    }

    async fn revoke(&self, key: &str) -> Result<(), MeshError> {
        let usable = self.with(|t| {
            t.keys.iter().find(|k| k.id == key && !k.invalid).map(|k| k.description.clone())
        })?;
        if let Some(description) = usable {
            self.witness.revokes(&description).await;
        }
        self.effect(format!("revoke {key}"), |t| {
            t.keys.iter_mut().filter(|k| k.id == key).for_each(|k| k.invalid = true);
        })
        .await
    }

    async fn set_tags(&self, device: &str, tags: &[String]) -> Result<(), MeshError> {
        let there =
            self.with(|t| t.devices.iter().find(|d| d.id == device).map(|d| d.hostname.clone()))?;
        if let Some(hostname) = there.filter(|_| tags == [QUARANTINE_TAG]) {
            self.witness.quarantines(&hostname).await;
        }
        let done = self.effect(format!("give {device} {tags:?}"), |t| {
            let refused = t.refuses_tags;
            t.devices
                .iter_mut()
                .filter(|d| d.id == device && !refused)
                .for_each(|d| d.tags = tags.to_vec());
            refused
        });
        if done.await? {
            let message =
                format!("requested tags [{}] are invalid or not permitted", tags.join(" "));
            return Err(MeshError::Refused { what: "tags".to_owned(), status: 400, message });
        }
        Ok(())
    }

    async fn delete_device(&self, device: &str) -> Result<(), MeshError> {
        let there =
            self.with(|t| t.devices.iter().find(|d| d.id == device).map(|d| d.hostname.clone()))?;
        if let Some(hostname) = there {
            self.witness.deletes_device(&hostname, device).await;
        }
        self.effect(format!("delete {device}"), |t| t.devices.retain(|d| d.id != device)).await
    }
}
