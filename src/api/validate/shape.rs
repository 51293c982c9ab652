//! Whether a document has the form of a manifest at all, by the schema: unknown fields, missing
//! ones, wrong kinds of value.
//!
//! The types refuse all of this as well, but one thing at a time and without saying where or what
//! was meant.

use std::str::FromStr;

use serde_json::Value;

use super::{Problem, Problems};
use crate::api::quantity::{Bytes, Cpu, Money, Percent, Span};
use crate::api::schedule::Schedule;
use crate::api::schema::{self, properties, resolve, words};
use crate::api::types::{API_VERSION, KIND};
use crate::api::window::Window;

/// A name at least this like a known one (1 is the same) is taken for a slip.
const ALIKE: f64 = 0.6;
/// Names that merely begin alike must be so much more alike.
const BEGINNING: f64 = 0.25;

/// Words of other operators for fields of this manifest.
const OTHER_NAMES: [(&str, &str); 5] = [
    ("replicas", "nodes"),
    ("size", "nodes"),
    ("instances", "nodes"),
    ("storage", "data"),
    ("password", "passwordFrom"),
];

/// What is wrong with the form of a document.
pub(super) fn check(document: &Value) -> Vec<Problem> {
    let root = schema::json_schema();
    let mut problems = Problems::default();
    let is = |field: &str, want: &str| document[field].as_str().is_none_or(|text| text == want);
    if !document.is_object() {
        problems.add("", format!("this is not a {KIND}; write `apiVersion: {API_VERSION}`, `kind: {KIND}`, `metadata` and `spec`"));
    } else if is("apiVersion", API_VERSION) && is("kind", KIND) {
        walk(&root, &root, document, "", &mut problems);
    } else {
        // Of another kind of object the fields mean nothing here.
        problems.add_if(!is("apiVersion", API_VERSION), "apiVersion", || {
            format!("{} is not known; write {API_VERSION}", shown(&document["apiVersion"]))
        });
        problems.add_if(!is("kind", KIND), "kind", || {
            format!("{} is not known; write {KIND}", shown(&document["kind"]))
        });
    }
    problems.0
}

/// The sentence about an unknown name, with what may have been meant.
pub(super) fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    match nearest(name, known) {
        Some(near) => format!("unknown {what} `{name}`, did you mean `{near}`?"),
        None if known.len() <= 12 => {
            format!("unknown {what} `{name}`; known here: {}", known.join(", "))
        }
        None => format!("unknown {what} `{name}`"),
    }
}

fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let other = OTHER_NAMES
        .iter()
        .find(|(theirs, _)| *theirs == name)
        .and_then(|(_, ours)| known.iter().find(|one| *one == ours));
    // The first sees letters that were swapped or left out, the second beginnings that are the
    // same.
    let alike = |one: &str| {
        let (name, one) = (name.to_lowercase(), one.to_lowercase());
        strsim::normalized_damerau_levenshtein(&name, &one)
            .max(strsim::jaro_winkler(&name, &one) - BEGINNING)
    };
    let best = known.iter().copied().max_by(|a, b| alike(a).total_cmp(&alike(b)))?;
    other.copied().or_else(|| (alike(best) >= ALIKE).then_some(best))
}

fn walk(root: &Value, schema: &Value, value: &Value, path: &str, problems: &mut Problems) {
    let (name, inner) = resolve(root, schema);
    let optional = schema["anyOf"].is_array() || schema["type"].is_array();
    if value.is_null() {
        problems.add_if(!optional, path, || "is empty; give it a value or leave it out".into());
    } else if let Some(read) = name.and_then(|name| quantity(name, value)) {
        problems
            .0
            .extend(read.err().map(|error| Problem { path: path.to_owned(), message: error }));
    } else if !words(inner).is_empty() {
        let known: Vec<&str> = words(inner).into_iter().map(|(word, _)| word).collect();
        problems.add_if(!value.as_str().is_some_and(|text| known.contains(&text)), path, || {
            format!("{} is not supported; supported now: {}", shown(value), known.join(", "))
        });
    } else if inner["oneOf"].is_array() {
        one_field(root, inner, value, path, problems);
    } else {
        plain(root, inner, value, path, problems);
    }
}

fn reads<T: FromStr<Err: ToString>>(text: &str) -> Result<(), String> {
    text.parse::<T>().map(drop).map_err(|error| error.to_string())
}

/// Whether a type of this name reads the value; `None` when it is not the name of a quantity.
fn quantity(name: &str, value: &Value) -> Option<Result<(), String>> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number
            .as_f64()
            .filter(|_| number.is_f64())
            .map_or_else(|| number.to_string(), |n| n.to_string()),
        other => shown(other),
    };
    Some(match name {
        "Cpu" => reads::<Cpu>(&text),
        "Bytes" => reads::<Bytes>(&text),
        "Money" => reads::<Money>(&text),
        "Span" => reads::<Span>(&text),
        "Percent" => reads::<Percent>(&text),
        "Schedule" => reads::<Schedule>(&text),
        "Window" => reads::<Window>(&text),
        _ => return None,
    })
}

/// An object that has one of several fields.
fn one_field(root: &Value, schema: &Value, value: &Value, path: &str, problems: &mut Problems) {
    let choices = properties(schema);
    let known: Vec<&str> = choices.keys().map(String::as_str).collect();
    let entry = value.as_object().filter(|map| map.len() == 1).and_then(|map| map.iter().next());
    match entry {
        Some((key, inner)) => match choices.get(key) {
            Some(choice) => walk(root, choice, inner, &format!("{path}.{key}"), problems),
            None => problems.add(format!("{path}.{key}"), unknown("field", key, &known)),
        },
        None => problems.add(path, format!("must have exactly one of: {}", known.join(", "))),
    }
}

fn plain(root: &Value, schema: &Value, value: &Value, path: &str, problems: &mut Problems) {
    let kind = match &schema["type"] {
        Value::Array(kinds) => {
            kinds.iter().find_map(|kind| kind.as_str().filter(|kind| *kind != "null"))
        }
        one => one.as_str(),
    };
    let fits = match kind {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        // A number where text is wanted is the text it was written as.
        Some("string") => value.is_string() || value.is_number() || value.is_boolean(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => {
            value.as_u64().is_some_and(|n| schema["format"] != "uint32" || u32::try_from(n).is_ok())
        }
        _ => true,
    };
    if !fits {
        let wanted = match kind {
            Some("object") => "fields",
            Some("array") => "a list",
            Some("string") => "text",
            Some("boolean") => "true or false",
            _ => "a whole number",
        };
        return problems.add(path, format!("{} is given in place of {wanted}", shown(value)));
    }
    match value {
        Value::Object(map) => fields(root, schema, map, path, problems),
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                walk(root, &schema["items"], item, &format!("{path}[{i}]"), problems);
            }
        }
        _ => {}
    }
}

fn fields(
    root: &Value,
    schema: &Value,
    map: &serde_json::Map<String, Value>,
    path: &str,
    problems: &mut Problems,
) {
    let known = properties(schema);
    let at = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for (name, value) in map {
        match known.get(name) {
            // The operator's own; an object that was read from it may be written back.
            Some(_) if path.is_empty() && name == "status" => {}
            Some(inner) => walk(root, inner, value, &at(name), problems),
            None if schema["additionalProperties"].is_object() => {
                walk(root, &schema["additionalProperties"], value, &at(name), problems);
            }
            None => {
                let names: Vec<&str> = known.keys().map(String::as_str).collect();
                problems.add(
                    at(name),
                    elsewhere(name, &names).unwrap_or_else(|| unknown("field", name, &names)),
                );
            }
        }
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        problems.add_if(!map.contains_key(name), &at(name), || "is missing".into());
    }
}

/// A field that is known, but belongs somewhere else.
fn elsewhere(name: &str, here: &[&str]) -> Option<String> {
    if nearest(name, here).is_some() {
        return None;
    }
    let all = schema::fields();
    let mut places = all
        .iter()
        .filter_map(|field| field.path.rsplit_once('.').filter(|(_, last)| *last == name));
    let (parent, _) = places.next()?;
    Some(format!("unknown field `{name}` here; it belongs in `{parent}`"))
}

/// A value for a sentence, shortened.
fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "a group of fields".into(),
        Value::Array(_) => "a list".into(),
        Value::Null => "nothing".into(),
        other => {
            let text = other.as_str().map_or_else(|| other.to_string(), str::to_owned);
            let short: String = text.chars().take(60).collect();
            format!("`{short}`")
        }
    }
}
