//! What the manifest of a node carries that can be changed while its lease lives: the rest is what
//! the lease was made with, or comes from the operator while the node runs.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::redis_settings;
use super::types::Spec;
use crate::model::identity::Egress;
use crate::model::image::{self, NodeImage};
use crate::model::incarnation::Deployed;
use crate::model::redis_version::RedisVersion;

/// What nodes of a cluster are to be started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// By digest.
    pub image: String,
    /// The version of Redis in it, where manifest or operator say so.
    pub redis: Option<RedisVersion>,
    /// The image is the operator's own.
    pub is_default: bool,
    /// How Redis reaches its master.
    pub egress: Egress,
    /// The mesh carries the port too.
    pub serve: bool,
    /// Nodes offer themselves as hosts of a service of the tailnet.
    pub service: bool,
    /// Settings that Redis takes when it starts, and never after.
    pub startup: BTreeMap<String, String>,
}

impl Template {
    /// Of a manifest, with the operator's image where it names none.
    #[must_use]
    pub fn of(spec: &Spec, default: &NodeImage) -> Self {
        let own = spec.image.as_ref();
        let startup = spec.redis.config.iter();
        let startup = startup.filter(|(name, value)| redis_settings::at_start(name, value));
        Self {
            image: own.map_or_else(|| default.name.clone(), |own| own.name.clone()),
            redis: own.map_or(default.redis, |own| image::version(&own.redis).ok()),
            is_default: own.is_none(),
            egress: spec.mesh.egress,
            serve: spec.mesh.serve,
            service: spec.mesh.service,
            startup: startup.map(|(n, v)| (n.clone(), v.clone())).collect(),
        }
    }

    /// The word for what nodes are started with: another one, and they are started anew.
    #[must_use]
    pub fn revision(&self) -> String {
        let Self { image, redis: _, is_default: _, egress, serve, service, startup } = self;
        let mut parts = vec![
            serde_json::json!(image),
            serde_json::json!(egress),
            serde_json::json!(serve),
            serde_json::json!(startup),
        ];
        // What nodes run that offer none is the same word as before.
        parts.extend(service.then(|| "service".into()));
        let digest = Sha256::digest(serde_json::Value::from(parts).to_string());
        hex::encode(&digest[..6])
    }

    /// The same, for a record.
    #[must_use]
    pub fn deployed(&self) -> Deployed {
        Deployed { revision: self.revision(), image: self.image.clone() }
    }
}

/// A change of this field starts nodes anew, one after the other; lease and volume stay.
#[must_use]
pub fn is_part(path: &str) -> bool {
    let startup = path.strip_prefix("spec.redis.config.").is_some_and(redis_settings::is_startup);
    startup
        || path.starts_with("spec.image")
        || ["spec.mesh.egress", "spec.mesh.serve", "spec.mesh.service"].contains(&path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::difference::{differences, is_lease_term};

    #[test]
    fn a_revision_is_another_one_where_nodes_start_with_something_else() {
        let spec = |more: serde_json::Value| {
            let mut all = serde_json::json!({"nodes": 3});
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value::<Spec>(all).unwrap()
        };
        let default = NodeImage { name: "r/node@sha256:00".into(), redis: None };
        let plain = spec(serde_json::json!({}));
        let revision = |spec: &Spec| Template::of(spec, &default).revision();
        for (change, anew) in [
            (serde_json::json!({"image": {"name": "r/other@sha256:00", "redis": "8.2.3"}}), true),
            (serde_json::json!({"mesh": {"egress": "proxychains"}}), true),
            (serde_json::json!({"mesh": {"serve": true}}), true),
            (serde_json::json!({"mesh": {"service": true}}), true),
            (serde_json::json!({"redis": {"config": {"io-threads": "4"}}}), true),
            (serde_json::json!({"redis": {"config": {"io-threads": "1"}}}), false),
            (serde_json::json!({"redis": {"config": {"maxclients": "100"}}}), false),
            (serde_json::json!({"nodes": 5}), false),
            (serde_json::json!({"mesh": {"tag": "tag:other"}}), false),
        ] {
            let other = spec(change.clone());
            assert_eq!(revision(&other) != revision(&plain), anew, "{change}");
            let told = differences(&plain, &other);
            // One that is as it is anyway is named too.
            if change["redis"]["config"]["io-threads"] != "1" {
                assert!(told.iter().all(|c| is_part(&c.path) == anew), "{told:?}");
            }
            assert!(told.iter().all(|c| !(is_part(&c.path) && is_lease_term(&c.path))), "{told:?}");
        }
        // What is said of an image does not start it anew.
        let said = NodeImage { redis: RedisVersion::parse("7.0.15"), ..default.clone() };
        assert_eq!(Template::of(&plain, &said).revision(), revision(&plain));
        let other = NodeImage { name: "r/node@sha256:11".into(), redis: None };
        assert_ne!(Template::of(&plain, &other).revision(), revision(&plain));
    }
}
