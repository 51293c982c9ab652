//! An object as the apiserver has it, and what of it is ours. Whatever is in it, reading it cannot
//! fail for others: what cannot be run comes with the sentence that says why.

use kube::core::DynamicObject;
use serde_json::Value;

use crate::api::conditions::Reason;
use crate::api::status::Status;
use crate::api::types::{API_VERSION, KIND, Metadata, PasswordFrom, RedisCluster, Spec};
use crate::api::validate::validate;
use crate::secrets::SEALED;

/// As long as this stands at an object, it stays: its leases are closed first.
pub const FINALIZER: &str = "akash-redis.dev/leases";
/// The longest sentence of a condition, bytes.
const LONGEST: usize = 2048;

/// An object as it was last seen.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    /// Goes up with every change of anything.
    pub version: u64,
    pub namespace: String,
    pub metadata: Metadata,
    pub finalizers: Vec<String>,
    /// What is wanted, or why that cannot be run.
    pub spec: Result<Spec, Refused>,
    /// It is run, though not quite as it is written.
    pub warning: Option<Refused>,
    pub status: Option<Status>,
}

/// Why an object is not run as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub reason: Reason,
    pub sentence: String,
    /// It is being looked into: nothing is told yet.
    pub pending: bool,
}

impl Refused {
    fn invalid(sentence: String) -> Self {
        Self { reason: Reason::ManifestInvalid, sentence, pending: false }
    }
}

impl Seen {
    /// None when it has no name, uid or version: nobody but an apiserver makes those.
    pub fn read(object: DynamicObject) -> Option<Self> {
        let DynamicObject { metadata: meta, data, .. } = object;
        let version_text = meta.resource_version?;
        let metadata = Metadata {
            name: meta.name?,
            labels: meta.labels.unwrap_or_default(),
            annotations: meta.annotations.unwrap_or_default(),
            generation: meta.generation.and_then(|n| u64::try_from(n).ok()),
            uid: Some(meta.uid?),
            creation_timestamp: meta.creation_timestamp.map(|at| at.0.to_string()),
            deletion_timestamp: meta.deletion_timestamp.map(|at| at.0.to_string()),
            resource_version: Some(version_text.clone()),
        };
        Some(Self {
            version: version_text.parse().ok()?,
            namespace: meta.namespace.unwrap_or_default(),
            finalizers: meta.finalizers.unwrap_or_default(),
            spec: spec(&metadata, &data["spec"]).map_err(Refused::invalid),
            warning: None,
            // What somebody else wrote there says nothing.
            status: serde_json::from_value(data["status"].clone()).ok(),
            metadata,
        })
    }

    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    pub fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// It is there, or its end is held up.
    pub fn is_of_use(&self) -> bool {
        self.is_held() || !self.is_deleting()
    }

    pub fn is_held(&self) -> bool {
        self.finalizers.iter().any(|one| one == FINALIZER)
    }

    /// It wants something else than the other, or is on its way out.
    pub fn differs(&self, other: &Self) -> bool {
        let wanted = |seen: &Self| {
            let Metadata { generation, labels, annotations, uid, .. } = seen.metadata.clone();
            (generation, labels, annotations, uid, seen.is_deleting(), seen.is_held())
        };
        wanted(self) != wanted(other)
    }

    /// The object with this spec.
    pub fn cluster(&self, spec: Spec) -> RedisCluster {
        RedisCluster {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            metadata: self.metadata.clone(),
            spec,
            status: self.status.clone(),
        }
    }
}

/// What is wanted, or a sentence.
fn spec(metadata: &Metadata, spec: &Value) -> Result<Spec, String> {
    let mut spec = spec.clone();
    words_of_redis(&mut spec);
    let spec: Spec = serde_json::from_value(spec)
        .map_err(|e| format!("the manifest cannot be read: spec: {e}"))?;
    if let Some(user) = spec.redis.users.iter().find(|user| user.is_to_be_read()) {
        return Err(format!(
            "spec.redis.users: passwordFrom of user {} is read by `akash-redis apply`; an object of Kubernetes takes passwordSha256, passwords as sha256, or a secretKeyRef",
            user.name
        ));
    }
    let plain = |text: &String| !text.starts_with(SEALED);
    let by_apply = |from: &PasswordFrom| from.secret().is_none();
    if let Some(backup) = &spec.backup
        && (backup.credentials_from.as_ref().is_some_and(by_apply)
            || backup.credentials.as_ref().is_some_and(plain))
    {
        return Err("spec.backup.credentialsFrom: an object of Kubernetes takes the keys to a bucket from a Secret alone; write a secretKeyRef".to_owned());
    }
    if let Some(from) = spec.bootstrap.as_ref().and_then(|b| b.from_redis.as_ref())
        && (from.password_from.as_ref().is_some_and(by_apply)
            || from.password.as_ref().is_some_and(plain))
    {
        return Err("spec.bootstrap.fromRedis.passwordFrom: an object of Kubernetes takes the password of a source from a Secret alone; write a secretKeyRef".to_owned());
    }
    let cluster = RedisCluster {
        api_version: API_VERSION.to_owned(),
        kind: KIND.to_owned(),
        metadata: metadata.clone(),
        spec,
        status: None,
    };
    let problems: Vec<String> = validate(&cluster).iter().map(ToString::to_string).collect();
    if problems.is_empty() {
        return Ok(cluster.spec);
    }
    let mut sentence = problems.join("; ");
    sentence.truncate(sentence.floor_char_boundary(LONGEST));
    Err(sentence)
}

/// Values of redis.conf are text. `timeout: 300` is a number by now, and `appendonly: yes` is true:
/// `kubectl` reads YAML of an older version.
fn words_of_redis(spec: &mut Value) {
    let config = spec.pointer_mut("/redis/config").and_then(Value::as_object_mut);
    for value in config.into_iter().flat_map(|config| config.values_mut()) {
        match value {
            Value::Number(number) => *value = Value::String(number.to_string()),
            Value::Bool(yes) => *value = Value::String(if *yes { "yes" } else { "no" }.to_owned()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seen(spec: &Value) -> Seen {
        let object = json!({
            "apiVersion": API_VERSION, "kind": KIND, "spec": spec, "status": {"epoch": "junk"},
            "metadata": {"name": "cache", "namespace": "a", "uid": "u", "resourceVersion": "7"},
        });
        Seen::read(serde_json::from_value(object).unwrap()).unwrap()
    }

    #[test]
    fn values_of_redis_are_text_as_kubectl_sends_them() {
        let config = json!({"timeout": 300, "appendonly": true, "save": ""});
        let good = seen(&json!({
            "nodes": 3, "redis": {"config": config}, "resources": {"cpu": 1, "data": {"size": "8Gi"}},
        }));
        let config = good.spec.unwrap().redis.config;
        let values: Vec<_> = config.values().map(String::as_str).collect();
        assert_eq!(values, ["yes", "", "300"]);
        assert_eq!(good.status, None, "a status that says nothing");
    }

    #[test]
    fn what_cannot_be_run_comes_with_a_sentence() {
        for (spec, says) in [
            (json!({"nodes": "many"}), "the manifest cannot be read: spec: "),
            (json!(null), "the manifest cannot be read: spec: "),
            (json!({"nodes": 30}), "spec.nodes: 30 nodes cannot be run; write 1 to 9"),
            (
                json!({"nodes": 3, "redis": {"users": [{"name": "app", "passwordFrom": {"env": "X"}}]}}),
                "spec.redis.users: passwordFrom of user app is read by `akash-redis apply`",
            ),
            (
                json!({"nodes": 3, "redis": {"config": {"bind": "0.0.0.0"}}}),
                "spec.redis.config.bind: ",
            ),
            (
                json!({"nodes": 3, "backup": {"to": "s3://b", "credentialsFrom": {"env": "X"}}}),
                "spec.backup.credentialsFrom: an object of Kubernetes takes the keys",
            ),
            (
                json!({"nodes": 3, "bootstrap": {"fromRedis": {"host": "old.example.org", "password": "plain"}}}),
                "spec.bootstrap.fromRedis.passwordFrom: an object of Kubernetes takes the password",
            ),
        ] {
            let sentence = seen(&spec).spec.unwrap_err().sentence;
            assert!(sentence.starts_with(says), "{sentence}");
        }
    }
}
