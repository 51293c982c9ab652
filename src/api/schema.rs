//! The manifest as a JSON schema, and as a page of the reference. Both are made from the types.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::types::{API_VERSION, KIND, RedisCluster};

/// The JSON schema (draft 2020-12) of a manifest.
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(RedisCluster).to_value();
    // YAML writes `cpu: 1` and `timeout: 300` as numbers, which are read like the same text.
    for quantity in ["Cpu", "Bytes"] {
        schema["$defs"][quantity]["type"] = json!(["string", "number"]);
    }
    schema["$defs"]["Redis"]["properties"]["config"]["additionalProperties"] =
        json!({"type": ["string", "number", "boolean"]});
    schema
}

/// One field of the manifest.
pub(crate) struct Field {
    /// `spec.redis.users[].name`
    pub(crate) path: String,
    /// In words.
    pub(crate) kind: String,
    /// In words.
    pub(crate) default: String,
    /// One or more sentences.
    pub(crate) meaning: String,
}

/// Every field that a user writes, in alphabetical order; a field that only holds others is
/// followed by them.
pub(crate) fn fields() -> Vec<Field> {
    let root = json_schema();
    let mut rows = Vec::new();
    object(&root, &root, "", &mut rows);
    rows
}

/// What a schema that is named or may be null is in truth, and its name if it has one.
pub(crate) fn resolve<'a>(root: &'a Value, schema: &'a Value) -> (Option<&'a str>, &'a Value) {
    let name = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/$defs/"));
    if let Some(name) = name {
        return (Some(name), &root["$defs"][name]);
    }
    let choice =
        schema["anyOf"].as_array().and_then(|all| all.iter().find(|one| one["type"] != "null"));
    choice.map_or((None, schema), |one| resolve(root, one))
}

/// The words of an enumeration with their meanings; empty when it is none.
pub(crate) fn words(schema: &Value) -> Vec<(&str, &str)> {
    let all = schema["oneOf"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter()
        .filter_map(|one| Some((one["const"].as_str()?, one["description"].as_str().unwrap_or(""))))
        .collect()
}

/// The properties of an object, those of all its forms together; a form of one property lends it
/// its description.
pub(crate) fn properties(schema: &Value) -> Map<String, Value> {
    let forms = schema["oneOf"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut all = Map::new();
    for form in std::iter::once(schema).chain(forms) {
        for (name, property) in form["properties"].as_object().into_iter().flatten() {
            let mut property = property.clone();
            if let (Some(map), Some(description)) =
                (property.as_object_mut(), form.get("description"))
            {
                map.entry("description").or_insert_with(|| description.clone());
            }
            all.insert(name.clone(), property);
        }
    }
    all
}

fn object(root: &Value, schema: &Value, path: &str, rows: &mut Vec<Field>) {
    let required = |name: &str| {
        schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name))
    };
    for (name, property) in properties(schema) {
        if path.is_empty() && name == "status" {
            continue; // the operator's own
        }
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        field(root, &property, &path, required(&name), rows);
    }
}

fn field(root: &Value, property: &Value, path: &str, required: bool, rows: &mut Vec<Field>) {
    let (name, schema) = resolve(root, property);
    let words = words(schema);
    let mut meaning = property["description"].as_str().unwrap_or("").replace('\n', " ");
    for (word, description) in &words {
        let _ = write!(meaning, " `{word}`: {}", description.replace('\n', " "));
    }
    let default = match &property["default"] {
        _ if required => "required".to_owned(),
        Value::Null => "none".to_owned(),
        Value::Object(_) | Value::Array(_) => String::new(),
        Value::String(text) => format!("`{text}`"),
        other => format!("`{other}`"),
    };
    let kind = if words.is_empty() { kind(root, name, schema) } else { "word".into() };
    rows.push(Field { path: path.to_owned(), kind, default, meaning });
    if !properties(schema).is_empty() {
        object(root, schema, path, rows);
    } else if schema["items"].is_object() {
        object(root, resolve(root, &schema["items"]).1, &format!("{path}[]"), rows);
    }
}

fn kind(root: &Value, name: Option<&str>, schema: &Value) -> String {
    match name {
        Some("Cpu") => return "CPU, `500m` or `0.5`".into(),
        Some("Bytes") => return "size, `512Mi`".into(),
        Some("Money") => return "money, `12.5act`".into(),
        Some("Span") => return "time, `10s`".into(),
        Some("Percent") => return "percentage, `25%`".into(),
        Some("Schedule") => return "schedule, `0 3 * * *`".into(),
        Some("Window") => return "window, `Sun 02:00-05:00`".into(),
        _ => {}
    }
    let plain = match &schema["type"] {
        Value::Array(kinds) => {
            kinds.iter().find_map(|kind| kind.as_str().filter(|kind| *kind != "null"))
        }
        one => one.as_str(),
    };
    match plain {
        Some("array") => {
            let (name, items) = resolve(root, &schema["items"]);
            format!("list of {}", kind(root, name, items))
        }
        Some("object") if schema["additionalProperties"].is_object() => "map of text".into(),
        Some("string") => "text".into(),
        Some("integer") => "number".into(),
        Some("boolean") => "`true` or `false`".into(),
        _ => "fields".into(),
    }
}

/// The reference of the manifest as a page of Markdown.
#[must_use]
pub fn manifest_reference() -> String {
    let mut page = format!(
        "# The manifest\n\n`apiVersion: {API_VERSION}`, `kind: {KIND}`. One file may hold several, separated by `---`. A field that is not \
         listed here is refused, and so is a value that would have no effect.\n\nThis page is made from the program's types.\n\n| field | type | default | meaning |\n| --- | --- | --- | --- |\n"
    );
    for Field { path, kind, default, meaning } in fields() {
        let _ = writeln!(
            page,
            "| `{path}` | {kind} | {} | {} |",
            default.replace('|', "\\|"),
            meaning.replace('|', "\\|")
        );
    }
    page.push_str(
        "\n## Sums\n\n\
         - `maxmemory` of Redis is (`resources.memory` - 200Mi) x 0.7 unless `redis.config.maxmemory` says otherwise; at least 64Mi.\n\
         - Ephemeral disk is two times that and 512Mi, unless `resources.ephemeral` says otherwise: no less than that without a data volume, and no less than 512Mi with one, where snapshots are on the volume.\n\
         - A data volume holds at least four times `maxmemory`, three times without an append-only file. Where there is one, each write is logged (`appendonly yes`), unless \
         `redis.config.appendonly` is `no`.\n\
         - Months have 30 days.\n",
    );
    page.push_str(&super::rules::reference());
    page.push_str(&super::redis_settings::reference());
    page
}

/// A generated page is the one in the repository; `make reference` writes it anew.
#[cfg(test)]
pub(crate) fn assert_page(page: &str, generated: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, generated).expect("the page can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, generated, "run `make reference` and commit {page}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_in_the_book_is_the_one_of_this_program() {
        assert_page("docs/reference/manifest.md", &manifest_reference());
    }

    /// What a schema of ours says against a value; a keyword that is not looked at fails as well.
    fn against(root: &Value, schema: &Value, value: &Value, path: &str, wrong: &mut Vec<String>) {
        if schema == &Value::Bool(true) {
            return;
        }
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(n) if n.is_i64() || n.is_u64() => "integer",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let fits = |schema: &Value| {
            let mut wrong = Vec::new();
            against(root, schema, value, path, &mut wrong);
            wrong.is_empty()
        };
        for (keyword, rule) in schema.as_object().expect("a schema") {
            let good = match keyword.as_str() {
                "$schema" | "$defs" | "title" | "description" | "default" | "format" => true,
                "$ref" => {
                    let name = rule.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                    against(root, &root["$defs"][name], value, path, wrong);
                    true
                }
                "type" => {
                    let same = |t: &Value| t == kind || (t == "number" && kind == "integer");
                    rule.as_array().map_or_else(|| same(rule), |all| all.iter().any(same))
                }
                "const" => rule == value,
                "enum" => rule.as_array().unwrap().contains(value),
                "anyOf" | "oneOf" => rule.as_array().unwrap().iter().any(fits),
                "minimum" => value.as_f64() >= rule.as_f64(),
                "maximum" => value.as_f64() <= rule.as_f64(),
                "pattern" => value.as_str().is_none_or(|text| {
                    regex::Regex::new(rule.as_str().unwrap()).unwrap().is_match(text)
                }),
                "required" => {
                    let there = |name: &Value| value.get(name.as_str().unwrap()).is_some();
                    rule.as_array().unwrap().iter().all(there)
                }
                "properties" => {
                    for (name, of) in rule.as_object().unwrap() {
                        if let Some(value) = value.get(name) {
                            against(root, of, value, &format!("{path}.{name}"), wrong);
                        }
                    }
                    true
                }
                "additionalProperties" => {
                    let known = |name: &str| schema["properties"].get(name).is_some();
                    for (name, value) in value.as_object().into_iter().flatten() {
                        if known(name) {
                            continue;
                        }
                        let path = format!("{path}.{name}");
                        if rule == &Value::Bool(false) {
                            wrong.push(format!("{path} is not allowed"));
                        } else {
                            against(root, rule, value, &path, wrong);
                        }
                    }
                    true
                }
                "items" => {
                    for value in value.as_array().into_iter().flatten() {
                        against(root, rule, value, path, wrong);
                    }
                    true
                }
                other => panic!("this test does not know the keyword {other}"),
            };
            if !good {
                wrong.push(format!("{path}: {keyword} {rule}: {value}"));
            }
        }
    }

    #[test]
    fn every_manifest_that_is_shipped_is_of_the_schema_and_can_be_logged_into() {
        let schema = json_schema();
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests");
        let mut seen = 0;
        for entry in std::fs::read_dir(dir).expect("the manifests") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                continue; // definitions of other tools
            }
            let text = std::fs::read_to_string(&path).expect("a manifest");
            let manifest: Value = serde_saphyr::from_str(&text).expect("YAML");
            // A deployment for Akash's own tools.
            if manifest["version"] == "2.0" {
                continue;
            }
            let mut wrong = Vec::new();
            against(&schema, &schema, &manifest, "", &mut wrong);
            assert_eq!(wrong, Vec::<String>::new(), "{}", path.display());
            let clusters = crate::api::validate::parse(&text).expect("a good manifest");
            for cluster in clusters {
                let users = &cluster.spec.redis.users;
                assert!(
                    users.iter().any(|u| u.password_from.is_some()),
                    "nobody can log into {}",
                    path.display()
                );
            }
            seen += 1;
        }
        assert!(seen >= 4, "{seen}");
        let mut wrong = Vec::new();
        let bad = json!({"apiVersion": "x", "kind": "y", "metadata": {"name": "a"}, "spec": {
            "nodes": 30, "replicas": 2, "budget": {"deposit": 5}, "resources": {"memory": "1 GB"},
        }});
        against(&schema, &schema, &bad, "", &mut wrong);
        let wrong = wrong.join("\n");
        for path in [".spec.nodes", ".spec.replicas", ".spec.budget", ".spec.resources"] {
            assert!(wrong.contains(path), "{path} in {wrong}");
        }
    }

    #[test]
    fn every_field_says_what_it_means() {
        for field in fields() {
            assert!(!field.meaning.is_empty(), "{}", field.path);
        }
    }

    #[test]
    fn fields_of_lists_and_of_choices_are_listed() {
        let all: Vec<String> = fields().into_iter().map(|field| field.path).collect();
        for path in [
            "metadata.name",
            "spec.redis.users[].passwordFrom.env",
            "spec.resources.data.class",
            "spec.failover.downAfter",
        ] {
            assert!(all.iter().any(|one| one == path), "{path} in {all:?}");
        }
    }
}
