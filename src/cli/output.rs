//! `-o`: how what is read is written, as kubectl names it.

use std::fmt::Write as _;
use std::str::FromStr;

use serde::Serialize;
use serde_json::Value;
use serde_json_path::JsonPath;

use super::error::CliError;

/// How objects are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A table with more columns.
    Wide,
    /// `rediscluster/NAME`, one a line.
    Name,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Parts of the JSON.
    JsonPath(Template),
}

impl FromStr for Output {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "wide" => Ok(Self::Wide),
            "name" => Ok(Self::Name),
            "json" => Ok(Self::Json),
            "yaml" => Ok(Self::Yaml),
            _ => match text.strip_prefix("jsonpath=") {
                Some(template) => template.parse().map(Self::JsonPath),
                None => Err("it is one of wide, name, json, yaml, jsonpath='{.status.master.ip}'"
                    .to_owned()),
            },
        }
    }
}

/// How anything else is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Structured {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

impl Structured {
    /// `value` in this form.
    pub(super) fn render(self, value: &impl Serialize) -> String {
        match self {
            Self::Json => json(value),
            Self::Yaml => yaml(value),
        }
    }
}

/// As JSON, with a line feed at its end.
pub(super) fn json(value: &impl Serialize) -> String {
    // Our own types, with text for keys: there is nothing in them that JSON cannot hold.
    serde_json::to_string_pretty(value).map(|text| text + "\n").unwrap_or_default()
}

/// As YAML.
pub(super) fn yaml(value: &impl Serialize) -> String {
    serde_saphyr::to_string(value).unwrap_or_default()
}

/// Text with expressions in braces, as `{.metadata.name}: {.status.master.ip}`.
#[derive(Clone, Debug)]
pub struct Template {
    source: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Query(JsonPath),
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Template {}

impl FromStr for Template {
    type Err = String;

    fn from_str(source: &str) -> Result<Self, String> {
        // Without braces the whole is one expression, as kubectl has it.
        let text = if source.contains('{') { source.to_owned() } else { format!("{{{source}}}") };
        let (mut parts, mut rest) = (Vec::new(), text.as_str());
        while !rest.is_empty() {
            let Some((before, after)) = rest.split_once('{') else {
                parts.push(Part::Text(rest.to_owned()));
                break;
            };
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let (inside, after) = after
                .split_once('}')
                .ok_or_else(|| format!("a brace of {source:?} is not closed"))?;
            parts.push(part(inside.trim())?);
            rest = after;
        }
        Ok(Self { source: source.to_owned(), parts })
    }
}

/// What stands between two braces.
fn part(inside: &str) -> Result<Part, String> {
    if let Some(text) = inside.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        return Ok(Part::Text(text.replace("\\n", "\n").replace("\\t", "\t")));
    }
    if inside == "end" || inside.starts_with("range ") {
        return Err("`range` is not known here; take -o json and a program such as jq".to_owned());
    }
    let query = match inside {
        "" => return Err("an expression is empty".to_owned()),
        "@" => "$".to_owned(),
        path if path.starts_with('$') => path.to_owned(),
        path if path.starts_with('.') || path.starts_with('[') => format!("${path}"),
        path => format!("$.{path}"),
    };
    JsonPath::parse(&query)
        .map(Part::Query)
        .map_err(|error| format!("{inside:?} is no JSONPath expression ({error})"))
}

impl Template {
    /// The text for `value`: of several results a blank stands between.
    pub(super) fn render(&self, value: &impl Serialize) -> Result<String, CliError> {
        let value = serde_json::to_value(value).unwrap_or_default();
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Query(query) => {
                    let found = query.query(&value).all();
                    let found: Vec<String> = found.into_iter().map(plain).collect();
                    let _ = write!(text, "{}", found.join(" "));
                }
            }
        }
        if text.is_empty() && !self.source.is_empty() {
            return Err(CliError::NotThere(self.source.clone()));
        }
        Ok(text)
    }
}

/// Text as it is, everything else as JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rendered(template: &str) -> Result<String, String> {
        let value = json!({
            "metadata": { "name": "cache" },
            "status": { "epoch": 3, "conditions": [
                { "type": "Ready", "status": "True" }, { "type": "Funded", "status": "False" },
            ] },
        });
        template.parse::<Template>()?.render(&value).map_err(|error| error.to_string())
    }

    #[test]
    fn a_template_is_as_kubectl_reads_it() {
        for (template, text) in [
            ("{.metadata.name}", "cache"),
            (".metadata.name", "cache"),
            ("metadata.name", "cache"),
            ("{$.status.epoch}", "3"),
            ("{.metadata.name}={.status.epoch}{\"\\n\"}", "cache=3\n"),
            ("{.status.conditions[*].type}", "Ready Funded"),
            (r#"{.status.conditions[?(@.type=="Ready")].status}"#, "True"),
            ("{.metadata}", r#"{"name":"cache"}"#),
        ] {
            assert_eq!(rendered(template).as_deref(), Ok(text), "{template}");
        }
    }

    #[test]
    fn what_cannot_be_read_or_is_not_there_is_said() {
        for (template, begins) in [
            ("{.a", "a brace of"),
            ("{}", "an expression is empty"),
            ("{range .items[*]}{end}", "`range` is not known"),
            ("{.a[}", "\".a[\" is no JSONPath"),
            ("{.status.nothing}", "there is no {.status.nothing}"),
        ] {
            let error = rendered(template).unwrap_err();
            assert!(error.starts_with(begins), "{template}: {error}");
        }
        assert!("xml".parse::<Output>().unwrap_err().starts_with("it is one of wide"));
    }
}
