//! The part of the manifest that is about data outside of the nodes: where backups go, and what a new
//! cluster begins with.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::from_redis::FromRedis;
use super::quantity::Span;
use super::schedule::Schedule;
use super::types::PasswordFrom;
use crate::model::backup::StorageSpec;

/// Where backups of the data go, and when they are taken. Each is encrypted by the node that takes
/// it, with a key that follows from the operator's root secret: without that file no backup can be
/// read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backup {
    /// `s3://BUCKET/PREFIX`, reached by the operator and by every node. `file:///DIRECTORY` where
    /// operator and nodes share one machine, as on the local market.
    pub to: String,
    /// `https://HOST[:PORT]` of an S3 service that is not Amazon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Region of the bucket; `us-east-1` unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Certificates of authorities (PEM) that are trusted beside the public ones, for a service with
    /// one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Where the keys to the bucket are, as `ACCESS_KEY_ID:SECRET_ACCESS_KEY`.
    /// They may read, write, list and delete below the prefix, and nothing else is needed. The
    /// operator keeps them encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_from: Option<PasswordFrom>,
    /// The keys as the operator keeps them, encrypted; written by the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<String>,
    /// When backups are taken, as five fields of cron in UTC: `0 3 * * *` is each day at 3. By
    /// command alone when absent. One that was missed is taken as soon as it can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Which backups stay.
    #[serde(default)]
    pub retention: Retention,
    /// Archive the log of writes too, a few seconds behind, so that every moment of `window` can be
    /// restored.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub point_in_time: bool,
    /// How far back: backups of that time, and the last one before it, stay whatever `retention`
    /// says.
    #[serde(default = "Backup::default_window", skip_serializing_if = "Backup::is_default_window")]
    pub window: Span,
    /// How often the newest backup is restored into a throw-away redis-server on a replica's node, to
    /// see that it can be. The memory beside the data must do for that.
    #[serde(default, skip_serializing_if = "Verify::is_default")]
    pub verify: Verify,
}

/// How often the newest backup is restored to see that it can be. The first time right after it was
/// taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Verify {
    /// Each day.
    Daily,
    /// Each week.
    #[default]
    Weekly,
    /// Every 30 days.
    Monthly,
    /// By command alone.
    Never,
}

impl Verify {
    /// Between two times; none where it is by command alone.
    #[must_use]
    pub fn period(self) -> Option<Duration> {
        let days = match self {
            Self::Daily => 1,
            Self::Weekly => 7,
            Self::Monthly => 30,
            Self::Never => return None,
        };
        Some(Duration::from_hours(days * 24))
    }

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Backup {
    /// The keys to the bucket, encrypted, wherever they are from; none where none are known.
    #[must_use]
    pub fn sealed(&self) -> Option<String> {
        let entry = self.credentials_from.as_ref().and_then(PasswordFrom::secret);
        self.credentials.clone().or_else(|| entry?.sealed.clone())
    }

    fn default_window() -> Span {
        Span(Duration::from_hours(7 * 24))
    }

    /// Nobody wrote another one.
    pub(super) fn is_default_window(window: &Span) -> bool {
        *window == Self::default_window()
    }

    /// Where they go, without the keys.
    #[must_use]
    pub fn storage(&self) -> StorageSpec {
        StorageSpec {
            url: self.to.clone(),
            endpoint: self.endpoint.clone().unwrap_or_default(),
            region: self.region.clone().unwrap_or_default(),
            ca: self.ca.clone().unwrap_or_default(),
        }
    }
}

/// Which backups stay: those that one of the rules keeps, and always the newest. A backup is deleted
/// after the next one was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retention {
    /// So many of the newest; at least 1.
    #[serde(default = "Retention::default_keep_last")]
    pub keep_last: u32,
    /// The last one of each of so many days, in UTC.
    #[serde(default)]
    pub keep_daily: u32,
    /// None is kept that is older, whatever the other rules say, but for the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Span>,
}

impl Retention {
    fn default_keep_last() -> u32 {
        7
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self { keep_last: Self::default_keep_last(), keep_daily: 0, max_age: None }
    }
}

/// What a new cluster begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bootstrap {
    /// The data of a backup below `spec.backup.to`. Nothing is bought before the backup was found
    /// and can be read, and nobody is master before the first node has all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_backup: Option<FromBackup>,
    /// The data of a running Redis, which the first node replicates until `akash-redis cutover`
    /// makes it master. Nodes are bought before it is known whether the source can be reached: only
    /// they can try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_redis: Option<FromRedis>,
    /// What is done when no node is left that holds data, and there is a backup of this cluster.
    /// Without one the cluster begins empty.
    #[serde(default, skip_serializing_if = "OnTotalLoss::is_default")]
    pub on_total_loss: OnTotalLoss,
}

/// What is done when no node is left that holds data, and there is a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnTotalLoss {
    /// Nothing: the cluster has no master until somebody says one of the other words.
    #[default]
    Block,
    /// The cluster goes on with the newest backup by itself; what was written after it is lost.
    Restore,
    /// The cluster begins empty.
    Empty,
}

impl OnTotalLoss {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Which backup a new cluster begins with: the newest, unless `id` or `at` says which.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FromBackup {
    /// The cluster that the backup was taken of; this one's own name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// This backup, as `akash-redis backups` lists it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The data as they were at this time, e.g. `2026-11-25T10:15:00Z`, where the log of writes was
    /// archived then (`spec.backup.pointInTime`); else the newest backup of this time or before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Who may log in.
    #[serde(default)]
    pub users: RestoredUsers,
}

/// Who may log in to a cluster that began with a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RestoredUsers {
    /// The users of the manifest alone.
    #[default]
    Manifest,
    /// The users that the backed-up cluster had, with their passwords, too; the manifest's come
    /// before those of the same name.
    Keep,
}
