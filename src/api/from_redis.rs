//! `spec.bootstrap.fromRedis`: the running Redis whose data a new cluster begins with.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::types::{PasswordFrom, RedisCluster};
use crate::model::import::{SourceRef, SourceSpec};

/// A running Redis outside of the cluster. The first node has its data, and follows it until
/// `akash-redis cutover`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FromRedis {
    /// Host name or address, reached by the nodes: public, or a name or address of the tailnet.
    pub host: String,
    /// Port.
    #[serde(default = "FromRedis::default_port")]
    pub port: u16,
    /// How its data are got.
    #[serde(default, skip_serializing_if = "Method::is_default")]
    pub method: Method,
    /// The user that replicates; `default` when absent. It needs `+psync +replconf +ping +info`, or
    /// `~* +@read +select +ping +info` where it copies, and `+client|pause +client|unpause` for a
    /// cutover that holds the source's writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where the password is. The operator keeps it encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_from: Option<PasswordFrom>,
    /// The password as the operator keeps it, encrypted; written by the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// The source speaks TLS; `{}` for a certificate of a public authority. Without it the password
    /// and the data are readable on the way, unless that is the tailnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<FromRedisTls>,
}

/// How the data of a running Redis are got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Method {
    /// As a replica gets them: the cutover holds the source's writes for a moment.
    #[default]
    Replicate,
    /// Key by key, from a source that lets nobody replicate. The cutover compares all keys once
    /// more, and the source takes no writes for as long as that takes.
    Copy,
}

impl Method {
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde calls it so
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How the certificate of the source is checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FromRedisTls {
    /// Certificates of authorities (PEM) that are trusted beside the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The name in the certificate, where that is not `host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

impl FromRedis {
    fn default_port() -> u16 {
        6379
    }

    /// The password, encrypted, wherever it is from; none where none is needed, or known.
    fn sealed(&self) -> Option<String> {
        let entry = self.password_from.as_ref().and_then(PasswordFrom::secret);
        self.password.clone().or_else(|| entry?.sealed.clone())
    }

    /// The source that a cluster's manifest names; none where it names none.
    #[must_use]
    pub fn source(cluster: &RedisCluster) -> Option<SourceRef> {
        let from = cluster.spec.bootstrap.as_ref()?.from_redis.as_ref()?;
        let tls = from.tls.clone();
        let spec = SourceSpec {
            host: from.host.clone(),
            port: from.port,
            user: from.user.clone().unwrap_or_default(),
            tls: tls.is_some(),
            ca: tls.as_ref().and_then(|tls| tls.ca.clone()).unwrap_or_default(),
            server_name: tls.and_then(|tls| tls.server_name).unwrap_or_default(),
        };
        Some(SourceRef {
            spec,
            sealed: from.sealed().unwrap_or_default(),
            sealed_for: cluster.metadata.name.clone(),
            copy: from.method == Method::Copy,
        })
    }
}
