//! The manifest as a `CustomResourceDefinition` of Kubernetes, made from the same types as the JSON
//! schema.
//!
//! An apiserver takes structural schemas only: no references, one type for each field, no choice
//! between two forms of a field. What it can judge by itself is said to it as rules, in the words of
//! [`validate`](super::validate); the rest is told by the operator in a condition.

mod rules;

use serde_json::{Map, Value, json};

use super::schema::{json_schema, properties, resolve, words};
use super::types::{API_VERSION, KIND};

/// Name of the resource in URLs and commands.
pub const PLURAL: &str = "redisclusters";
/// For short.
pub const SHORT: &str = "rdc";
/// The group of `apiVersion`.
pub const GROUP: &str = "akash-redis.dev";
/// The version of `apiVersion`.
pub const VERSION: &str = "v1alpha1";

/// Fields that are a number or a text.
const QUANTITIES: [&str; 2] = ["Cpu", "Bytes"];

/// The definition.
#[must_use]
pub fn definition() -> Value {
    debug_assert_eq!(API_VERSION, format!("{GROUP}/{VERSION}"));
    let column = |name: &str, kind: &str, path: &str, description: &str| json!({"name": name, "type": kind, "jsonPath": path, "description": description});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{PLURAL}.{GROUP}")},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": format!("{KIND}List"),
                "plural": PLURAL,
                "singular": KIND.to_lowercase(),
                "shortNames": [SHORT],
                "categories": ["all"],
            },
            "versions": [{
                "name": VERSION,
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": root()},
                "subresources": {
                    "status": {},
                    "scale": {
                        "specReplicasPath": ".spec.nodes",
                        "statusReplicasPath": ".status.readyNodes",
                    },
                },
                "additionalPrinterColumns": [
                    column("Nodes", "integer", ".spec.nodes", "Nodes that are wanted."),
                    column(
                        "Ready",
                        "string",
                        ".status.conditions[?(@.type==\"Ready\")].status",
                        "One master takes writes and all replicas are in sync.",
                    ),
                    column("Master", "string", ".status.master.incarnation", "The node that takes writes."),
                    column("Cost", "string", ".status.cost.perMonth", "All active leases, per month of 30 days."),
                    column("Runway", "string", ".status.cost.runway", "The escrow that ends first pays for so long."),
                    column("Age", "date", ".metadata.creationTimestamp", "Since it was applied."),
                ],
            }],
        },
    })
}

/// The definition as it is kept in `manifests/crd/`.
#[must_use]
pub fn yaml() -> String {
    let text = serde_saphyr::to_string(&definition()).unwrap_or_default();
    format!("# Made by `akash-redis crd`; `make reference` writes it anew.\n{text}")
}

/// The schema of an object.
fn root() -> Value {
    let whole = json_schema();
    let mut schema = Map::from_iter([("type".to_owned(), json!("object"))]);
    schema.insert("description".into(), whole["description"].clone());
    schema.insert("required".into(), json!(["spec"]));
    let text = |about: &str| json!({"type": "string", "description": about});
    let own = |name: &str, of: Of| structural(&whole, &whole["properties"][name], of);
    schema.insert(
        "properties".into(),
        json!({
            "apiVersion": text(&format!("`{API_VERSION}`")),
            "kind": text(&format!("`{KIND}`")),
            // The rest of it is Kubernetes' own; the bound is for the rule about it.
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 253}}},
            "spec": own("spec", Of::Spec),
            "status": own("status", Of::Status),
        }),
    );
    let mut schema = Value::Object(schema);
    // The operator is its one author: what somebody else writes into it is gone with its next word.
    schema["properties"]["status"]["x-kubernetes-map-type"] = json!("atomic");
    rules::add(&mut schema);
    schema
}

/// Who writes what a schema is of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// People: checked, with defaults.
    Spec,
    /// The operator, also one of a later version: its words are not held against a list.
    Status,
}

/// A schema of ours in the form that an apiserver takes.
fn structural(root: &Value, schema: &Value, of: Of) -> Value {
    let (name, inner) = resolve(root, schema);
    let mut found = Map::new();
    let description = [schema, inner].into_iter().find_map(|one| one["description"].as_str());
    let mut description = description.unwrap_or_default().replace('\n', " ");
    let words = words(inner);
    let forms = inner["oneOf"].as_array().filter(|_| words.is_empty());
    if !words.is_empty() {
        found.insert("type".into(), json!("string"));
        if of == Of::Spec {
            let list: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            found.insert("enum".into(), json!(list));
            for (word, meaning) in &words {
                let meaning = meaning.replace('\n', " ");
                description = format!("{description} `{word}`: {meaning}");
            }
        }
    } else if name.is_some_and(|name| QUANTITIES.contains(&name)) {
        found.insert("x-kubernetes-int-or-string".into(), json!(true));
    } else if let Some(kind) = kind(inner).filter(|_| forms.is_none()) {
        found.insert("type".into(), json!(kind));
    } else if forms.is_some() {
        found.insert("type".into(), json!("object"));
    } else {
        // Several types: kept as it is, and judged by the operator.
        found.insert("x-kubernetes-preserve-unknown-fields".into(), json!(true));
    }
    if found.get("type").is_some_and(|kind| kind == "object") {
        object(root, inner, of, &mut found);
    }
    if inner["items"].is_object() {
        found.insert("items".into(), structural(root, &inner["items"], of));
    }
    if found.get("type").is_some_and(|kind| kind == "integer") {
        found.insert("format".into(), json!("int64"));
    }
    if of == Of::Spec {
        for keyword in ["minimum", "maximum", "pattern", "minLength", "maxLength"] {
            let value = [schema, inner].into_iter().find_map(|one| one.get(keyword));
            if let Some(value) = value {
                found.insert(keyword.into(), value.clone());
            }
        }
        if let Some(default) = schema.get("default").filter(|default| !default.is_null()) {
            found.insert("default".into(), default.clone());
        }
    }
    if !description.is_empty() {
        found.insert("description".into(), json!(description.trim()));
    }
    Value::Object(found)
}

/// The fields of an object, or what its values are where its keys are the user's.
fn object(root: &Value, schema: &Value, of: Of, found: &mut Map<String, Value>) {
    let fields = properties(schema);
    if fields.is_empty() {
        let values = match &schema["additionalProperties"] {
            Value::Object(_) => structural(root, &schema["additionalProperties"], of),
            _ => json!({"x-kubernetes-preserve-unknown-fields": true}),
        };
        found.insert("additionalProperties".into(), values);
        return;
    }
    let fields: Map<String, Value> =
        fields.iter().map(|(name, field)| (name.clone(), structural(root, field, of))).collect();
    found.insert("properties".into(), Value::Object(fields));
    if of == Of::Status {
        return;
    }
    if let Some(required) = schema.get("required") {
        found.insert("required".into(), required.clone());
    }
    if let Some(forms) = schema["oneOf"].as_array() {
        let forms: Vec<Value> =
            forms.iter().map(|form| json!({"required": form["required"]})).collect();
        found.insert("oneOf".into(), json!(forms));
    }
}

/// The one type of a schema; none where there are several.
fn kind(schema: &Value) -> Option<&str> {
    match &schema["type"] {
        Value::Array(kinds) => {
            let mut kinds = kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null");
            kinds.next().filter(|_| kinds.next().is_none())
        }
        one => one.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::schema::assert_page;

    #[test]
    fn the_definition_in_the_repository_is_the_one_of_this_program() {
        assert_page("manifests/crd/redisclusters.yaml", &yaml());
        assert_page("charts/akash-redis/crd/redisclusters.yaml", &yaml());
    }

    /// Every schema below one, with its path.
    fn all<'a>(path: &str, schema: &'a Value, found: &mut Vec<(String, &'a Value)>) {
        found.push((path.to_owned(), schema));
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            all(&format!("{path}.{name}"), field, found);
        }
        for inner in ["items", "additionalProperties"] {
            if schema[inner].is_object() {
                all(&format!("{path}.{inner}"), &schema[inner], found);
            }
        }
    }

    #[test]
    fn every_field_has_one_type_or_is_kept_as_it_is() {
        let schema = root();
        let mut found = Vec::new();
        all("", &schema, &mut found);
        assert!(found.len() > 100, "{}", found.len());
        for (path, one) in found {
            let free = ["x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"];
            let free = free.iter().any(|word| one[*word] == true);
            assert!(one["type"].is_string() != free, "{path}: {one}");
            for word in ["$ref", "anyOf", "const", "title"] {
                assert!(one.get(word).is_none(), "{path}: {word}");
            }
            let inside = path.contains("items") || path.contains("additionalProperties");
            let told = one["description"].as_str().is_some_and(|text| !text.is_empty());
            assert!(told || inside || path.starts_with(".metadata"), "{path} says nothing");
        }
    }

    #[test]
    fn defaults_of_the_types_are_those_of_the_definition() {
        let schema = root();
        let spec = &schema["properties"]["spec"]["properties"];
        assert_eq!(spec["durability"]["default"], "async");
        assert_eq!(spec["failover"]["default"]["downAfter"], "10s");
        assert_eq!(spec["failover"]["properties"]["downAfter"]["default"], "10s");
        assert!(schema["properties"]["status"].to_string().find("\"default\":").is_none());
    }

    #[test]
    fn a_choice_of_forms_is_one_object_with_one_of_its_fields() {
        let schema = root();
        let users = &schema["properties"]["spec"]["properties"]["redis"]["properties"]["users"];
        let from = &users["items"]["properties"]["passwordFrom"];
        let one = ["env", "file", "secretKeyRef"].map(|field| json!({"required": [field]}));
        assert_eq!(from["oneOf"], json!(one));
        assert_eq!(from["properties"]["secretKeyRef"]["required"], json!(["name", "key"]));
        assert_eq!(from["properties"]["env"]["type"], "string");
    }
}
