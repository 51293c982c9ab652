//! The tailnet of a simulation: keys and devices.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use akash_redis::mesh::{MeshControl, MeshError, MintedKey};
use akash_redis::model::ids::InstallationId;
use akash_redis::model::mesh::{AuthKey, Device, MeshView};
use async_trait::async_trait;
use secrecy::SecretString;

use super::fuse::Fuse;
use super::witness::Witness;

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
}

impl Tailnet {
    /// A node logs in with a key; a spent or revoked one is refused.
    pub fn join(&mut self, secret: &str, hostname: &str) -> Option<Device> {
        let key = self.keys.iter_mut().find(|k| secret == format!("secret-{}", k.id) && !k.invalid)?;
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
        };
        self.devices.push(device.clone());
        Some(device)
    }

    /// Whom a device sees: those with the cluster's tag see each other, the operator alone sees the others. `None` when it was deleted.
    pub fn netmap(&self, device: &str) -> Option<Vec<String>> {
        let own = self.devices.iter().find(|d| d.id == device)?;
        let meets = |d: &&Device| d.id != own.id && d.tags.iter().any(|t| t == CLUSTER_TAG && own.tags.contains(t));
        Some(self.devices.iter().filter(meets).map(|d| d.name.clone()).collect())
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
        Ok(what(&mut tailnet))
    }

    async fn effect<T>(&self, what: impl FnOnce(&mut Tailnet) -> T) -> Result<T, MeshError> {
        self.fuse.before().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let done = self.with(what);
        let slow = self.tailnet.lock().unwrap().slow_answer;
        tokio::time::sleep(slow).await;
        self.fuse.after().await;
        done
    }
}

#[async_trait]
impl MeshControl for SimMesh {
    async fn read(&self, installation: &InstallationId) -> Result<MeshView, MeshError> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.with(|t| MeshView {
            devices: t.devices.iter().filter(|d| d.hostname.ends_with(&installation.0) && !t.hidden.contains(&d.id)).cloned().collect(),
            keys: t.keys.iter().filter(|k| k.description.contains(&installation.0)).cloned().collect(),
        })
    }

    async fn mint(&self, description: &str, _tag: &str, _life: Duration) -> Result<MintedKey, MeshError> {
        self.effect(|t| {
            t.minted += 1;
            let id = format!("k{}", t.minted);
            t.keys.push(AuthKey { id: id.clone(), description: description.to_owned(), invalid: false });
            MintedKey { secret: SecretString::from(format!("secret-{id}")), id }
        })
        .await
    }

    async fn revoke(&self, key: &str) -> Result<(), MeshError> {
        let usable = self.with(|t| t.keys.iter().find(|k| k.id == key && !k.invalid).map(|k| k.description.clone()))?;
        if let Some(description) = usable {
            self.witness.revokes(&description).await;
        }
        self.effect(|t| t.keys.iter_mut().filter(|k| k.id == key).for_each(|k| k.invalid = true)).await
    }

    async fn set_tags(&self, device: &str, tags: &[String]) -> Result<(), MeshError> {
        let there = self.with(|t| t.devices.iter().find(|d| d.id == device).map(|d| d.hostname.clone()))?;
        if let Some(hostname) = there.filter(|_| tags == [QUARANTINE_TAG]) {
            self.witness.quarantines(&hostname).await;
        }
        let done = self.effect(|t| {
            let refused = t.refuses_tags;
            t.devices.iter_mut().filter(|d| d.id == device && !refused).for_each(|d| d.tags = tags.to_vec());
            refused
        });
        if done.await? {
            let message = format!("requested tags [{}] are invalid or not permitted", tags.join(" "));
            return Err(MeshError::Refused { what: "tags".to_owned(), status: 400, message });
        }
        Ok(())
    }

    async fn delete_device(&self, device: &str) -> Result<(), MeshError> {
        let there = self.with(|t| t.devices.iter().find(|d| d.id == device).map(|d| d.hostname.clone()))?;
        if let Some(hostname) = there {
            self.witness.deletes_device(&hostname).await;
        }
        self.effect(|t| t.devices.retain(|d| d.id != device)).await
    }
}
