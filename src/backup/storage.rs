//! An object storage: S3 or a directory. Whatever it is told is tried for some minutes at most, and
//! each error is one sentence.

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use object_store::aws::AmazonS3Builder;
use object_store::client::{HttpClient, HttpConnector};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt as _, RetryConfig};
use secrecy::ExposeSecret as _;

use super::{DATA, MANIFEST, data_object, manifest, manifest_object};
use crate::error_chain::error_chain;
use crate::http_client;
use crate::model::backup::{Listing, StorageKeys, StorageSpec};
use crate::model::ids::InstallationId;
use crate::model::text::clipped;
use crate::model::time::UnixMs;
use crate::secrets::RootSecret;

/// No byte moves for so long: the call is over.
const SILENCE: Duration = Duration::from_mins(1);
/// A call that fails for a reason that may pass is repeated for so long at most.
const RETRY: Duration = Duration::from_mins(2);
/// And so often at most.
const RETRIES: usize = 8;
/// A storage that was asked for a list answers within this.
const LIST: Duration = Duration::from_mins(2);
/// Backups of one cluster that are looked at; more are a mistake.
const MOST_BACKUPS: usize = 2000;
/// Manifests that are read at the same time.
const AT_ONCE: usize = 8;
/// A service's own words that are passed on, bytes.
const SAID: usize = 400;

/// Why a storage did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The settings cannot be used.
    #[error("{0}")]
    Setting(String),
    /// It refuses us.
    #[error(
        "the object storage {url} refuses the keys: they are wrong, expired, or may not {what} there ({said})"
    )]
    Refused {
        /// Where.
        url: String,
        /// What was tried.
        what: &'static str,
        /// Its words.
        said: String,
    },
    /// The bucket, or the object, is not there.
    #[error("the object storage {url} has no such bucket or object to {what} ({said})")]
    Missing {
        /// Where.
        url: String,
        /// What was tried.
        what: &'static str,
        /// Its words.
        said: String,
    },
    /// It does not answer, or answers that it cannot now.
    #[error(
        "the object storage {url} does not answer, or cannot {what} now, however often it is asked ({said}); it may be away, overloaded or full"
    )]
    Away {
        /// Where.
        url: String,
        /// What was tried.
        what: &'static str,
        /// Its words.
        said: String,
    },
}

impl StorageError {
    /// Asking again later may help.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Away { .. })
    }
}

/// What a URL names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `s3://BUCKET/PREFIX`
    S3 {
        /// Bucket.
        bucket: String,
        /// Prefix without slashes at its ends; may be empty.
        prefix: String,
    },
    /// `file:///DIRECTORY`
    Directory(String),
}

impl Location {
    /// Reads a URL.
    ///
    /// # Errors
    /// One sentence.
    pub fn read(url: &str) -> Result<Self, String> {
        crate::model::backup::location(url).map(|(bucket, rest)| match bucket {
            Some(bucket) => Self::S3 { bucket, prefix: rest },
            None => Self::Directory(rest),
        })
    }
}

/// What the service itself said: an error in the middle of an object wraps it.
fn innermost(error: &object_store::Error) -> &object_store::Error {
    let begin = error as &(dyn std::error::Error + 'static);
    let all = std::iter::successors(Some(begin), |error| error.source());
    all.filter_map(|error| error.downcast_ref()).last().unwrap_or(error)
}

/// An object storage below a prefix.
#[derive(Clone, Debug)]
pub struct Storage {
    store: Arc<dyn ObjectStore>,
    url: String,
}

/// A reqwest client with our own TLS settings.
#[derive(Debug)]
struct Ours(reqwest::Client);

impl HttpConnector for Ours {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

impl Storage {
    /// Opens it; nothing is asked of it yet.
    ///
    /// # Errors
    /// [`StorageError::Setting`].
    pub fn open(spec: &StorageSpec, keys: Option<&StorageKeys>) -> Result<Self, StorageError> {
        Self::open_with(spec, keys, RETRY)
    }

    /// The same, with another limit for repetition.
    ///
    /// # Errors
    /// [`StorageError::Setting`].
    pub fn open_with(
        spec: &StorageSpec,
        keys: Option<&StorageKeys>,
        retry: Duration,
    ) -> Result<Self, StorageError> {
        let setting = |error: String| StorageError::Setting(error);
        let url = spec.url.trim_end_matches('/').to_owned();
        let store: Arc<dyn ObjectStore> = match Location::read(&spec.url).map_err(setting)? {
            Location::Directory(path) => {
                std::fs::create_dir_all(&path).map_err(|error| {
                    setting(format!("the directory {path} of the backups cannot be made ({error})"))
                })?;
                let local = LocalFileSystem::new_with_prefix(FilePath::new(&path))
                    .map_err(|error| setting(format!("{url} cannot be used ({error})")))?;
                Arc::new(local.with_fsync(true))
            }
            Location::S3 { bucket, prefix } => {
                let keys = keys.ok_or_else(|| {
                    setting(format!("{url} needs keys; name them with credentialsFrom"))
                })?;
                let s3 = s3(spec, &bucket, keys, retry).map_err(setting)?;
                Arc::new(PrefixStore::new(s3, prefix))
            }
        };
        Ok(Self { store, url })
    }

    /// Another store in its place.
    #[cfg(test)]
    pub(crate) fn over(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, url: "memory://".to_owned() }
    }

    pub(super) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Puts the error of a call into a sentence.
    pub(super) fn error(&self, what: &'static str, error: &object_store::Error) -> StorageError {
        use object_store::Error as Of;
        let (url, said) = (self.url.clone(), said(error));
        // Some services say by 404 that they know no such key.
        let unknown_key = ["InvalidAccessKeyId", "UserNotFound"].iter().any(|w| said.contains(w));
        match innermost(error) {
            _ if unknown_key => StorageError::Refused { url, what, said },
            Of::PermissionDenied { .. } | Of::Unauthenticated { .. } => {
                StorageError::Refused { url, what, said }
            }
            Of::NotFound { .. } => StorageError::Missing { url, what, said },
            _ => StorageError::Away { url, what, said },
        }
    }

    /// Writes a small object as a whole.
    ///
    /// # Errors
    /// One sentence; it may have been written all the same.
    pub async fn put(&self, object: &str, content: impl Into<Bytes>) -> Result<(), StorageError> {
        let put = self.store.put(&Path::from(object), content.into().into()).await;
        put.map(|_| ()).map_err(|error| self.error("write", &error))
    }

    /// Reads a small object as a whole; one that is larger than `limit` bytes is not read.
    ///
    /// # Errors
    /// One sentence.
    pub async fn get(&self, object: &str, limit: usize) -> Result<Bytes, StorageError> {
        let found = self.store.get(&Path::from(object)).await;
        let found = found.map_err(|error| self.error("read", &error))?;
        if found.meta.size > limit as u64 {
            return Err(StorageError::Setting(format!(
                "{}/{object} has {} bytes, more than any object of its kind",
                self.url, found.meta.size
            )));
        }
        found.bytes().await.map_err(|error| self.error("read", &error))
    }

    /// Bytes of an object; `None` when there is none.
    ///
    /// # Errors
    /// One sentence.
    pub async fn size(&self, object: &str) -> Result<Option<u64>, StorageError> {
        match self.store.head(&Path::from(object)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.error("read", &error)),
        }
    }

    /// Takes a backup away: first what makes it one, then its data. What is gone already is a
    /// success.
    ///
    /// # Errors
    /// One sentence.
    pub async fn delete(
        &self,
        installation: &InstallationId,
        cluster: &str,
        id: &str,
    ) -> Result<(), StorageError> {
        let manifest = manifest_object(installation, cluster, id);
        for object in [manifest, data_object(installation, cluster, id)] {
            match self.store.delete(&Path::from(object)).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(self.error("delete", &error)),
            }
        }
        Ok(())
    }

    /// What there is of one cluster.
    ///
    /// # Errors
    /// One sentence.
    pub async fn list(&self, root: &RootSecret, cluster: &str) -> Result<Listing, StorageError> {
        let listed = tokio::time::timeout(LIST, self.list_all(root, cluster)).await;
        listed.unwrap_or_else(|_| {
            Err(StorageError::Away {
                url: self.url.clone(),
                what: "list",
                said: format!("no whole list within {} s", LIST.as_secs()),
            })
        })
    }

    async fn list_all(&self, root: &RootSecret, cluster: &str) -> Result<Listing, StorageError> {
        let own = root.installation_id();
        let list_error = |error: object_store::Error| self.error("list", &error);
        let prefix = Path::from(format!("{own}/{cluster}"));
        // The log is below it, and is long.
        let here = self.store.list_with_delimiter(Some(&prefix)).await.map_err(list_error)?;
        let objects = here.objects.into_iter().take(2 * MOST_BACKUPS);
        let (mut ids, mut data) = (Vec::new(), Vec::new());
        for object in objects {
            let Some(name) = object.location.filename() else { continue };
            let written =
                UnixMs(u64::try_from(object.last_modified.timestamp_millis()).unwrap_or(0));
            if let Some(id) = name.strip_suffix(MANIFEST) {
                ids.push(id.to_owned());
            } else if let Some(id) = name.strip_suffix(DATA) {
                data.push((id.to_owned(), written));
            }
        }
        ids.sort();
        data.sort();
        let mut listing = Listing::default();
        let one = |id: String| {
            let (object, storage) = (manifest_object(&own, cluster, &id), self.clone());
            async move { (id, storage.get(&object, manifest::LARGEST).await) }
        };
        let mut read = futures::stream::iter(ids.clone()).map(one).buffered(AT_ONCE);
        while let Some((id, text)) = read.next().await {
            let found = match text {
                Ok(text) => manifest::verified(root, cluster, &id, &text),
                // It went while it was looked at.
                Err(StorageError::Missing { .. }) => continue,
                Err(error @ StorageError::Setting(_)) => Err(error.to_string()),
                Err(error) => return Err(error),
            };
            match found {
                Ok(_) if !data.iter().any(|(of, _)| *of == id) => {
                    let why =
                        format!("the data of backup {id} are gone, and its manifest alone is left");
                    listing.unusable.push((id, why));
                }
                Ok(manifest) => listing.backups.push(manifest),
                Err(why) => listing.unusable.push((id, why)),
            }
        }
        listing.backups.sort_by(|a, b| (a.taken, &a.id).cmp(&(b.taken, &b.id)));
        data.retain(|(id, _)| !ids.contains(id));
        listing.unfinished = data;
        if !here.common_prefixes.is_empty() {
            listing.log = self.log(&own, cluster).await?;
        }
        if listing.backups.is_empty() {
            listing.others = self.other_installations(&own, cluster).await?;
        }
        Ok(listing)
    }

    /// Installations that have something of a cluster of this name here.
    async fn other_installations(
        &self,
        own: &InstallationId,
        cluster: &str,
    ) -> Result<Vec<String>, StorageError> {
        let list_error = |error: object_store::Error| self.error("list", &error);
        let all = self.store.list_with_delimiter(None).await.map_err(list_error)?;
        let mut others = Vec::new();
        for prefix in all.common_prefixes.iter().take(16) {
            let of = prefix.filename().unwrap_or_default().to_owned();
            if of == own.0 {
                continue;
            }
            let first = self.store.list(Some(&Path::from(format!("{of}/{cluster}")))).next().await;
            if first.transpose().map_err(list_error)?.is_some() {
                others.push(of);
            }
        }
        Ok(others)
    }
}

fn s3(
    spec: &StorageSpec,
    bucket: &str,
    keys: &StorageKeys,
    retry: Duration,
) -> Result<object_store::aws::AmazonS3, String> {
    let region = if spec.region.is_empty() { "us-east-1" } else { &spec.region };
    let client = http_client::storage(&spec.ca, SILENCE)?;
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region)
        .with_access_key_id(&keys.id)
        .with_secret_access_key(keys.secret.expose_secret())
        .with_http_connector(Ours(client))
        .with_retry(RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(200),
                max_backoff: Duration::from_secs(15),
                base: 2.,
            },
            max_retries: RETRIES,
            retry_timeout: retry,
        });
    if !spec.endpoint.is_empty() {
        let plain = spec.endpoint.starts_with("http://");
        builder = builder.with_endpoint(&spec.endpoint).with_allow_http(plain);
    }
    builder.build().map_err(|error| format!("{} cannot be used ({error})", spec.url))
}

/// A service's own words, on one line.
fn said(error: &object_store::Error) -> String {
    let text = error_chain(error);
    clipped(text.split_whitespace().collect::<Vec<_>>().join(" "), SAID)
}
