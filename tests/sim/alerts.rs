//! The alert rules and the dashboard of the chart: of metrics that there are, and each alert with a
//! page that helps.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;
use serde_json::Value;

use crate::docs::anchors;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn rules() -> Vec<Value> {
    let text = fs::read_to_string(root().join("charts/akash-redis/rules/alerts.yaml")).unwrap();
    let file: Value = serde_saphyr::from_str(&text).unwrap();
    let groups = file["groups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

/// Names that the operator registers, less the prefix.
fn registered() -> BTreeSet<String> {
    let with_help = Regex::new(r#""([a-z_]+)",\s*"([A-Z][^"]*)""#).unwrap();
    let mut names = BTreeSet::new();
    for file in sources() {
        let text = fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        names.extend(with_help.captures_iter(code).map(|found| found[1].to_owned()));
    }
    names
}

/// Every file that registers a metric.
fn sources() -> Vec<PathBuf> {
    let mut files = ["src/operator/metrics.rs", "src/notify/metrics.rs", "src/traces/counts.rs"]
        .map(|file| root().join(file))
        .to_vec();
    let more = fs::read_dir(root().join("src/operator/metrics")).unwrap();
    files.extend(more.map(|entry| entry.unwrap().path()));
    files
}

#[test]
fn every_series_is_documented_and_every_documented_one_is_there() {
    let page = fs::read_to_string(root().join("docs/reference/metrics.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `akash_redis_"));
    let mut documented = BTreeSet::new();
    for row in rows {
        let cells: Vec<_> = row.split(" | ").collect();
        let (name, kind) = (cells[0].trim_end_matches('`'), cells[1]);
        // What a counter is called where it is read.
        assert_eq!(name.ends_with("_total"), kind == "counter", "{row}");
        assert!(["gauge", "counter", "histogram"].contains(&kind), "{row}");
        let name = name.trim_end_matches("_total").to_owned();
        assert!(documented.insert(name), "{row} is there twice");
    }
    assert_eq!(documented, registered());
    // A call that is written otherwise than the others would not be seen.
    let calls: usize = sources()
        .iter()
        .map(|file| {
            let text = fs::read_to_string(file).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            code.matches("ours.register(").count()
        })
        .sum();
    assert!(documented.len() >= calls, "{calls} calls for {} names", documented.len());
}

/// The metrics in an expression of Prometheus, less the prefix and what a kind of metric adds.
fn metrics(expression: &str) -> Vec<&str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter_map(|word| word.strip_prefix("akash_redis_"));
    let parts = ["_total", "_bucket", "_count", "_sum"];
    names
        .map(|name| parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name))
        .collect()
}

#[test]
fn every_alert_and_every_panel_is_about_a_metric_that_there_is() {
    let registered = registered();
    let file = root().join("charts/akash-redis/dashboards/akash-redis.json");
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let targets = dashboard["panels"].as_array().unwrap().iter();
    let targets = targets.flat_map(|panel| panel["targets"].as_array().unwrap().clone());
    for shown in rules().into_iter().chain(targets) {
        let names = metrics(shown["expr"].as_str().unwrap());
        assert!(!names.is_empty(), "{shown}");
        for name in names {
            assert!(registered.contains(name), "{shown} is about {name}");
        }
    }
}

#[test]
fn every_alert_names_a_page_that_helps() {
    for rule in rules() {
        let (alert, notes) = (&rule["alert"], &rule["annotations"]);
        assert!(notes["summary"].is_string() && notes["description"].is_string(), "{alert}");
        let page = notes["runbook"].as_str().unwrap_or_else(|| panic!("{alert} has no runbook"));
        let (file, anchor) = page.split_once('#').map_or((page, None), |(f, a)| (f, Some(a)));
        let text = fs::read_to_string(root().join(file)).unwrap_or_else(|_| panic!("{page}"));
        if let Some(anchor) = anchor {
            assert!(anchors(&text).contains(anchor), "{alert}: {page}");
        }
        assert!(matches!(rule["labels"]["severity"].as_str(), Some("critical" | "warning")));
    }
}
