//! The object storages of clusters, as the operator itself works there.

use async_trait::async_trait;

use super::agent_protocol::storage_keys;
use super::ports::Backups;
use crate::backup::storage::{Storage, StorageError};
use crate::backup::{data_object, manifest, manifest_object};
use crate::model::backup::{BackupManifest, Listing, Survey};
use crate::model::step::StorageRef;
use crate::model::time::UnixMs;
use crate::secrets::RootSecret;

/// Storages by the manifests of clusters.
pub struct ObjectStorages {
    /// Opens the keys to them, and signs.
    pub root: RootSecret,
}

impl ObjectStorages {
    fn open(&self, at: &StorageRef) -> Result<Storage, StorageError> {
        let keys = storage_keys(&self.root, at);
        if keys.is_none() && !at.sealed.is_empty() {
            return Err(StorageError::Setting(format!(
                "the keys to {} were encrypted with another root secret, or are not keys; apply the manifest again with credentialsFrom",
                at.spec.url
            )));
        }
        Storage::open(&at.spec, keys.as_ref())
    }
}

#[async_trait]
impl Backups for ObjectStorages {
    async fn list(&self, at: &StorageRef, to: Option<UnixMs>) -> Result<Listing, StorageError> {
        let storage = self.open(at)?;
        let mut listing = storage.list(&self.root, &at.cluster).await?;
        if let Some(to) = to {
            let found = storage.survey(&self.root, &at.cluster, &listing, to).await?;
            listing.survey = Some(Survey { to, found });
        }
        Ok(listing)
    }

    async fn complete(
        &self,
        at: &StorageRef,
        manifest: &BackupManifest,
    ) -> Result<(), StorageError> {
        let (storage, own) = (self.open(at)?, self.root.installation_id());
        let data = data_object(&own, &at.cluster, &manifest.id);
        let (there, said) = (storage.size(&data).await?, manifest.snapshot.stored_bytes);
        if there != Some(said) {
            return Err(StorageError::Setting(format!(
                "{} says that it stored {said} bytes as {data}, and there are {}; the backup is not completed",
                manifest.incarnation,
                there.map_or("none".to_owned(), |bytes| bytes.to_string())
            )));
        }
        let object = manifest_object(&own, &at.cluster, &manifest.id);
        storage.put(&object, manifest::signed(&self.root, manifest)).await
    }

    async fn delete(&self, at: &StorageRef, id: &str) -> Result<(), StorageError> {
        self.open(at)?.delete(&self.root.installation_id(), &at.cluster, id).await
    }

    async fn delete_log(
        &self,
        at: &StorageRef,
        uid: &str,
        before: UnixMs,
    ) -> Result<(), StorageError> {
        let own = self.root.installation_id();
        self.open(at)?.delete_log(&own, &at.cluster, uid, before).await
    }
}
