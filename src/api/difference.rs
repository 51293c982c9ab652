//! What differs between two manifests, field by field, for people: what an apply did, or why it is
//! refused. No secret is in it: of a password it says no more than that it is another one.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::template;
use super::types::{Announce, Mesh, Placement, Spec};
use crate::model::identity::Egress;

/// Characters of a value that are shown.
const LONGEST: usize = 80;
/// Keys whose values are nobody's business, wherever they stand.
const SECRET: [&str; 5] = ["pass", "sha256", "secret", "masterauth", "credentials"];

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldChange {
    /// `spec.resources.memory`; a user is named: `spec.redis.users[app].rules`.
    pub path: String,
    /// In which way.
    pub how: How,
}

/// In which way a field differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// It has another value; `none` is no value.
    Changed {
        /// As it was.
        old: String,
        /// As it is.
        new: String,
    },
    /// It has another value, which is nobody's business.
    Hidden,
    /// A named entry of a list is new.
    Added,
    /// A named entry of a list is gone.
    Removed,
}

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match &self.how {
            How::Changed { old, new } => write!(f, "{path} {old} -> {new}"),
            How::Hidden => write!(f, "{path} changed"),
            How::Added => write!(f, "{path} added"),
            How::Removed => write!(f, "{path} removed"),
        }
    }
}

/// Every field of `new` that differs from `old`, in the order of their names.
#[must_use]
pub fn differences(old: &Spec, new: &Spec) -> Vec<FieldChange> {
    let json = |spec: &Spec| serde_json::to_value(spec).unwrap_or_default();
    let mut found = Vec::new();
    walk("spec", &json(old), &json(new), &mut found);
    found
}

/// One line for people.
#[must_use]
pub fn sentence(changes: &[FieldChange]) -> String {
    changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What a lease is made with and keeps for as long as it lives: the same text for the same
/// resources, placement and mesh.
#[must_use]
pub fn lease_terms(spec: &Spec) -> String {
    // Whether nodes move later is no term of the lease that they move from.
    let placement = Placement { rebalance: None, ..spec.placement.clone() };
    // What is changed in place is none either; it stands in the text as it was by default, so that
    // the terms of leases that run are the same text as before.
    let mesh = Mesh {
        egress: Egress::default(),
        serve: false,
        service: false,
        announce: Announce::default(),
        ..spec.mesh.clone()
    };
    let terms = serde_json::json!([spec.resources, placement, mesh]);
    let digest = Sha256::digest(terms.to_string());
    hex::encode(&digest[..8])
}

/// The resources of a node in one word: prices are compared where they were asked for the same.
#[must_use]
pub fn resources_asked(spec: &Spec) -> String {
    let digest = Sha256::digest(serde_json::json!(spec.resources).to_string());
    hex::encode(&digest[..4])
}

/// Whether a lease keeps this field as it was made.
#[must_use]
pub fn is_lease_term(path: &str) -> bool {
    ["spec.resources", "spec.placement", "spec.mesh"].iter().any(|term| path.starts_with(term))
        && !path.starts_with("spec.placement.rebalance")
        && path != "spec.mesh.announce"
        && !template::is_part(path)
}

/// Whether nodes take this difference of two manifests by moving, one after the other, to leases that
/// are made with it: more room on the volume, another class of it, other CPU. What memory Redis may
/// use follows from the manifest for all nodes at once, so that stays, and so does whether there is a
/// volume; on a smaller one the data may have no room.
#[must_use]
pub fn is_taken_by_moving(old: &Spec, new: &Spec, path: &str) -> bool {
    let data = || Some((old.resources.data.as_ref()?, new.resources.data.as_ref()?));
    match path {
        "spec.resources.cpu" => true,
        "spec.resources.data.class" => data().is_some(),
        "spec.resources.data.size" => data().is_some_and(|(old, new)| old.size <= new.size),
        _ => false,
    }
}

fn walk(path: &str, old: &Value, new: &Value, found: &mut Vec<FieldChange>) {
    if old == new {
        return;
    }
    let none = Map::new();
    match (old, new) {
        (Value::Object(_) | Value::Null, Value::Object(_)) | (Value::Object(_), Value::Null) => {
            let (old, new) = (old.as_object().unwrap_or(&none), new.as_object().unwrap_or(&none));
            let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
            for key in keys {
                let of = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                walk(&format!("{path}.{key}"), &of(old), &of(new), found);
            }
        }
        (Value::Array(old), Value::Array(new)) if named(old) && named(new) => {
            let names: BTreeSet<_> = old.iter().chain(new).filter_map(name).collect();
            for one in names {
                let of = |all: &[Value]| all.iter().find(|v| name(v) == Some(one)).cloned();
                let path = format!("{path}[{one}]");
                match (of(old), of(new)) {
                    (Some(old), Some(new)) => walk(&path, &old, &new, found),
                    (None, _) => found.push(FieldChange { path, how: How::Added }),
                    (_, None) => found.push(FieldChange { path, how: How::Removed }),
                }
            }
        }
        _ => {
            let key = path.rsplit('.').next().unwrap_or_default().to_lowercase();
            let secret = SECRET.iter().any(|word| key.contains(word));
            let how =
                if secret { How::Hidden } else { How::Changed { old: text(old), new: text(new) } };
            found.push(FieldChange { path: path.to_owned(), how });
        }
    }
}

fn named(list: &[Value]) -> bool {
    list.iter().all(|one| name(one).is_some())
}

fn name(one: &Value) -> Option<&str> {
    one["name"].as_str()
}

fn text(value: &Value) -> String {
    let whole = match value {
        Value::Null => "none".to_owned(),
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(all) => format!("[{}]", all.iter().map(text).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    };
    if whole.chars().count() <= LONGEST {
        return whole;
    }
    whole.chars().take(LONGEST).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(value: serde_json::Value) -> Spec {
        serde_json::from_value(value).expect("a spec")
    }

    #[test]
    fn every_field_is_named_with_what_it_was_and_is() {
        let old = spec(serde_json::json!({
            "nodes": 3, "resources": {"memory": "1Gi"},
            "redis": {"config": {"maxclients": "100"}, "users": [
                {"name": "app", "passwordSha256": "a".repeat(64)}, {"name": "old"}
            ]},
        }));
        let new = spec(serde_json::json!({
            "nodes": 5, "resources": {"memory": "2Gi", "data": {"size": "4Gi"}},
            "placement": {"providers": {"deny": ["akash1x"]}},
            "redis": {"config": {"maxclients": "200", "timeout": "5"}, "users": [
                {"name": "app", "passwordSha256": "b".repeat(64)}, {"name": "new"}
            ]},
        }));
        let told: Vec<_> = differences(&old, &new).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "spec.nodes 3 -> 5",
                "spec.placement.providers.deny [] -> [akash1x]",
                "spec.redis.config.maxclients 100 -> 200",
                "spec.redis.config.timeout none -> 5",
                "spec.redis.users[app].passwordSha256 changed",
                "spec.redis.users[new] added",
                "spec.redis.users[old] removed",
                "spec.resources.data.class none -> beta3",
                "spec.resources.data.size none -> 4Gi",
                "spec.resources.memory 1Gi -> 2Gi",
            ]
        );
        assert!(differences(&old, &old).is_empty());
    }

    #[test]
    fn no_secret_is_told() {
        let with = |value: &str| {
            spec(serde_json::json!({"nodes": 1, "redis": {
                "config": {"masterauth": value, "tls-key-file-pass": value, "requirepass": value},
                "users": [{"name": "app", "passwordSha256": value}],
            }}))
        };
        let told = sentence(&differences(&with("hush-1"), &with("hush-2")));
        assert!(!told.contains("hush"), "{told}");
        assert_eq!(told.matches("changed").count(), 4, "{told}");
        let first = sentence(&differences(&spec(serde_json::json!({"nodes": 1})), &with("hush")));
        assert!(!first.contains("hush"), "{first}");
    }

    /// Nodes move when this word of their resources is another one: it is the same in every version of
    /// the program, whatever fields are added.
    #[test]
    fn the_word_of_resources_is_the_same_in_every_version() {
        let asked = |resources: serde_json::Value| {
            resources_asked(&spec(serde_json::json!({"nodes": 3, "resources": resources})))
        };
        assert_eq!(asked(serde_json::json!({})), "3636929f");
        let data = serde_json::json!({"data": {"size": "4096Mi", "class": "beta3"}});
        assert_eq!(asked(data), "2270fac1");
    }

    #[test]
    fn a_volume_grows_by_moving_and_never_shrinks() {
        let with = |resources: serde_json::Value| {
            spec(serde_json::json!({"nodes": 3, "resources": resources}))
        };
        let data = |size: &str| serde_json::json!({"data": {"size": size}});
        let taken = |old: serde_json::Value, new: serde_json::Value| {
            let (old, new) = (with(old), with(new));
            let all = differences(&old, &new);
            assert!(!all.is_empty() && all.iter().all(|c| is_lease_term(&c.path)));
            all.iter().all(|c| is_taken_by_moving(&old, &new, &c.path))
        };
        let none = || serde_json::json!({});
        assert!(taken(data("4Gi"), data("8Gi")));
        assert!(!taken(data("8Gi"), data("4Gi")));
        assert!(!taken(none(), data("4Gi")) && !taken(data("4Gi"), none()));
        assert!(taken(data("4Gi"), serde_json::json!({"data": {"size": "4Gi", "class": "beta2"}})));
        assert!(taken(none(), serde_json::json!({"cpu": "1"})));
        assert!(!taken(none(), serde_json::json!({"memory": "2Gi"})));
        assert!(!taken(none(), serde_json::json!({"ephemeral": "20Gi"})));
    }

    #[test]
    fn the_terms_of_a_lease_are_those_of_its_fields() {
        let three = spec(serde_json::json!({"nodes": 3}));
        let mut other = three.clone();
        other.nodes = 5;
        other.paused = true;
        other.redis.config.insert("timeout".into(), "5".into());
        // Whether nodes move later is no term of the lease that they move from.
        other.placement.rebalance = serde_json::from_value(serde_json::json!({})).ok();
        assert!(other.placement.rebalance.is_some());
        assert!(!is_lease_term("spec.placement.rebalance.window"));
        assert!(is_lease_term("spec.placement.maxPrice"));
        assert_eq!(lease_terms(&three), lease_terms(&other));
        for field in ["resources.cpu", "placement", "mesh"] {
            let mut other = three.clone();
            match field {
                "resources.cpu" => other.resources.cpu.0 += 1,
                "placement" => other.placement.providers.deny.push("akash1x".into()),
                _ => other.mesh.tag = Some("tag:other".into()),
            }
            assert_ne!(lease_terms(&three), lease_terms(&other), "{field}");
            assert!(differences(&three, &other).iter().all(|c| is_lease_term(&c.path)));
        }
    }
}
