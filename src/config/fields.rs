//! The file as a flat list of fields, with the environment over it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::{ConfigError, invalid, notify};
use crate::api::quantity::Span;

/// Every setting there is.
pub(super) const FIELDS: &[&str] = &[
    "api.listen",
    "api.metrics",
    "api.socket",
    "budget.global",
    "budget.perClusterDefault",
    "budget.runway.low",
    "budget.runway.target",
    "chain.gasPrice",
    "chain.grpc",
    "chain.id",
    "chain.maxFee",
    "chain.maxFeePerDay",
    "gateway.allowPrivate",
    "log.format",
    "log.level",
    "mesh.api",
    "mesh.caFile",
    "mesh.loginServer",
    "mesh.oauthClientId",
    "mesh.oauthSecretFile",
    "mesh.operatorTag",
    "mesh.quarantineTag",
    "mesh.socket",
    "mesh.socks5",
    "mesh.tag",
    "mesh.tailnet",
    "mesh.tailscaled.program",
    "mesh.tailscaled.stateDir",
    "node.image",
    "node.redis",
    "notify",
    "rootSecretFile",
    "store.kubernetes.kubeconfig",
    "store.kubernetes.namespace",
    "store.kubernetes.selector",
    "store.kubernetes.watchNamespace",
    "store.sqlite",
    "timing.bidDeadline",
    "timing.bidWindow",
    "timing.joinDeadline",
    "timing.replaceAfter",
    "timing.tick",
    "traces.endpoint",
    "traces.sample",
    "wallet.feeGranter",
    "wallet.mnemonicEnv",
    "wallet.mnemonicFile",
    "wallet.treasury",
];

/// The one setting with several values.
const LIST: &str = "chain.grpc";

/// Values as they were written, by field.
pub(super) struct Fields(BTreeMap<&'static str, String>);

impl Fields {
    pub(super) fn read(
        path: &str,
        text: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let (fields, unknown) = Self::read_all(path, text, env)?;
        unknown.into_iter().next().map_or(Ok(fields), Err)
    }

    /// The fields that there are, and what is wrong with others.
    pub(super) fn read_all(
        path: &str,
        text: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(Self, Vec<ConfigError>), ConfigError> {
        let mut wrong = Vec::new();
        let yaml = |message| ConfigError::Yaml { path: path.to_owned(), message };
        let options = serde_saphyr::options! { with_snippet: false };
        let mut found = BTreeMap::new();
        if !text.trim().is_empty() {
            let tree: Value = serde_saphyr::from_str_with_options(text, options)
                .map_err(|e| yaml(e.to_string()))?;
            match tree {
                Value::Object(_) => flatten("", tree, &mut found, &mut wrong),
                Value::Null => {}
                _ => {
                    return Err(yaml(
                        "it must be a map of sections, e.g. `chain: {id: akashnet-2}`".to_owned(),
                    ));
                }
            }
        }
        for field in FIELDS {
            if let Some(value) = env(&variable(field)).filter(|v| !v.trim().is_empty()) {
                found.insert(field, value);
            }
        }
        Ok((Self(found), wrong))
    }

    pub(super) fn get(&self, field: &'static str) -> Option<&str> {
        debug_assert!(FIELDS.contains(&field), "{field} is not in the list of fields");
        self.0.get(field).map(String::as_str)
    }

    pub(super) fn optional(&self, field: &'static str) -> Option<String> {
        self.get(field).map(str::to_owned)
    }

    pub(super) fn required(&self, field: &'static str) -> Result<String, ConfigError> {
        self.optional(field).ok_or_else(|| missing(field))
    }

    pub(super) fn or(&self, field: &'static str, default: &str) -> String {
        self.get(field).unwrap_or(default).to_owned()
    }

    /// Values separated by commas or line ends; at least one.
    pub(super) fn list(&self, field: &'static str) -> Result<Vec<String>, ConfigError> {
        let values = self.required(field)?;
        let values: Vec<_> = values
            .split([',', '\n'])
            .map(str::trim)
            .filter(|v| !v.is_empty())
            .map(str::to_owned)
            .collect();
        if values.is_empty() { Err(missing(field)) } else { Ok(values) }
    }

    /// False when absent.
    pub(super) fn flag(&self, field: &'static str) -> Result<bool, ConfigError> {
        match self.get(field) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(invalid(field, format!("`{other}` is neither true nor false"))),
        }
    }

    pub(super) fn span(
        &self,
        field: &'static str,
        default: Duration,
    ) -> Result<Duration, ConfigError> {
        let Some(text) = self.get(field) else { return Ok(default) };
        let Span(value) = text
            .parse()
            .map_err(|e: crate::api::quantity::QuantityError| invalid(field, e.to_string()))?;
        if value.is_zero() { Err(invalid(field, "it must be above 0")) } else { Ok(value) }
    }
}

/// `chain.gasPrice` is `AKASH_REDIS_CHAIN_GAS_PRICE`.
pub(super) fn variable(field: &str) -> String {
    let mut name = String::from("AKASH_REDIS_");
    for c in field.chars() {
        match c {
            '.' => name.push('_'),
            c if c.is_ascii_uppercase() => name.extend(['_', c]),
            c => name.push(c.to_ascii_uppercase()),
        }
    }
    name
}

pub(super) fn missing(field: &'static str) -> ConfigError {
    ConfigError::Missing { field, variable: variable(field) }
}

/// A decimal number in millionths, exactly; `None` when it is not one or has more than six places.
pub(super) fn decimal_micro(text: &str) -> Option<u64> {
    let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), "0"));
    let digits = |s: &str| !s.is_empty() && s.len() <= 12 && s.chars().all(|c| c.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 6 {
        return None;
    }
    whole
        .parse::<u64>()
        .ok()?
        .checked_mul(1_000_000)?
        .checked_add(format!("{fraction:0<6}").parse().ok()?)
}

fn flatten(
    prefix: &str,
    tree: Value,
    found: &mut BTreeMap<&'static str, String>,
    wrong: &mut Vec<ConfigError>,
) {
    let Value::Object(map) = tree else { return };
    for (key, value) in map {
        let path = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        let section =
            FIELDS.iter().any(|f| f.strip_prefix(&path).is_some_and(|rest| rest.starts_with('.')));
        match (FIELDS.iter().find(|f| **f == path), value) {
            (_, Value::Null) if section => {}
            (None, value @ Value::Object(_)) if section => flatten(&path, value, found, wrong),
            (None, _) => wrong.push(unknown(path)),
            (Some(_), Value::Null) => {}
            (Some(field), Value::String(text)) => drop(found.insert(field, text)),
            (Some(field), value @ (Value::Number(_) | Value::Bool(_))) => {
                drop(found.insert(field, value.to_string()));
            }
            (Some(field), Value::Array(items)) if *field == LIST => {
                let texts: Option<Vec<_>> = items.iter().map(Value::as_str).collect();
                match texts {
                    Some(texts) => drop(found.insert(field, texts.join("\n"))),
                    None => wrong.push(invalid(field, "each entry must be a URL")),
                }
            }
            // Read as a list of its own, from the file as from the variable.
            (Some(field), value) if *field == notify::FIELD => {
                drop(found.insert(field, value.to_string()));
            }
            (Some(field), _) => wrong.push(invalid(field, "it must be a single value")),
        }
    }
}

/// Variables that look like settings and are none. Those of the program's other commands, of tests,
/// and what Kubernetes makes of a service of that name are left alone.
pub(super) fn unknown_variables(names: impl Iterator<Item = String>) -> Vec<ConfigError> {
    const OTHERS: [&str; 20] = [
        "CLUSTER",
        "CONFIG",
        "DATA_DIR",
        "DEVNET_DIR",
        "GUARDED",
        "HOSTS_FILE",
        "LOG_LEVEL",
        "NODE",
        "NODES",
        "PEERS",
        "PROGRAM",
        "PROXYCHAINS",
        "PUBLIC_KEY",
        "REDIS_SERVER",
        "REVISION",
        "RUN_DIR",
        "SANDBOX",
        "SOCKET",
        "SOCKS5",
        "TAILSCALE",
    ];
    let known: Vec<String> = FIELDS.iter().map(|field| variable(field)).collect();
    let is_of_a_service = |rest: &str| {
        rest == "PORT"
            || rest.starts_with("PORT_")
            || rest.contains("SERVICE_HOST")
            || rest.contains("SERVICE_PORT")
            || rest.contains("_PORT_")
            || rest.ends_with("_PORT")
    };
    let mut wrong = Vec::new();
    for name in names {
        let Some(rest) = name.strip_prefix("AKASH_REDIS_") else { continue };
        let other = OTHERS.contains(&rest) || rest == "TAILSCALED" || rest.starts_with("TEST_");
        if other || is_of_a_service(rest) || known.contains(&name) {
            continue;
        }
        let nearest = known
            .iter()
            .map(|known| (strsim::damerau_levenshtein(known, &name), known))
            .min()
            .filter(|(distance, _)| *distance <= 3)
            .map(|(_, known)| known.clone());
        wrong.push(ConfigError::UnknownVariable { name, nearest });
    }
    wrong
}

/// A section may be misspelt as well as a field: the whole path is compared, and a bare section
/// with the sections.
fn unknown(field: String) -> ConfigError {
    let candidates = FIELDS
        .iter()
        .map(|f| if field.contains('.') { f } else { f.split('.').next().unwrap_or(f) });
    let nearest = candidates
        .map(|f| (strsim::damerau_levenshtein(f, &field), f))
        .min()
        .filter(|(d, _)| *d <= 3)
        .map(|(_, f)| f);
    ConfigError::Unknown { field, nearest }
}
