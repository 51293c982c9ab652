//! The form of a manifest that is hashed, and the reading of it that providers do before they hash.
//!
//! A provider decodes what it is sent into known fields, writes it again, sorts the keys and
//! compares the SHA-256 with the one on the chain. [`Manifest`] does the same: fields nobody knows
//! are dropped, an absent list becomes `null`, an empty one stays `[]`, and the fields that are
//! left out when empty are left out.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Writes a JSON value the way that is hashed: no blanks, keys sorted, and the characters escaped
/// that Go escapes.
#[must_use]
pub fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

/// SHA-256 of a canonical text: the hash that stands on the chain.
#[must_use]
pub fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            // Sorted here and not left to the map type: a feature of serde_json, switched on by
            // anybody, would change its order.
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            out.push('{');
            for (i, (key, item)) in entries.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_string(key, out);
                out.push(':');
                write(item, out);
            }
            out.push('}');
        }
        Value::String(text) => write_string(text, out),
        Value::Null | Value::Bool(_) | Value::Number(_) => out.push_str(&value.to_string()),
    }
}

/// JSON's own escapes are the same in both languages; Go adds these five so that JSON may stand in
/// a web page.
fn write_string(text: &str, out: &mut String) {
    for c in Value::from(text).to_string().chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            other => out.push(other),
        }
    }
}

/// A manifest as a provider reads it: one entry per group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Manifest(pub Vec<Group>);

impl Manifest {
    /// The text that is hashed.
    #[must_use]
    pub fn canonical_text(&self) -> String {
        // Only maps with keys that are no strings fail here, and there are none.
        serde_json::to_value(self).map(|value| canonical(&value)).unwrap_or_default()
    }
}

/// A group of the manifest: what one lease runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Group {
    /// Name of the group on the chain.
    #[serde(deserialize_with = "null_is_zero")]
    pub name: String,
    /// Its services, sorted by name.
    pub services: Option<Vec<Service>>,
}

/// A service of a group: containers of one image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Arguments of the command.
    pub args: Option<Vec<String>>,
    /// Replaces the image's entry point.
    pub command: Option<Vec<String>>,
    /// How many containers run at a time.
    #[serde(deserialize_with = "null_is_zero")]
    pub count: u32,
    /// What the provider pulls the image with; none for public images.
    pub credentials: Option<Credentials>,
    /// Environment of the container, each as `NAME=value`.
    pub env: Option<Vec<String>>,
    /// Ports, sorted by service, port, protocol, public first.
    pub expose: Option<Vec<Expose>>,
    /// Reference of the image, by tag or digest.
    #[serde(deserialize_with = "null_is_zero")]
    pub image: String,
    /// Name within the group; a DNS label.
    #[serde(deserialize_with = "null_is_zero")]
    pub name: String,
    /// Where its volumes are mounted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub params: Option<Params>,
    /// What each container gets, as the group on the chain says.
    #[serde(deserialize_with = "null_is_zero")]
    pub resources: Resources,
}

/// Credentials of an image registry.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Credentials {
    /// E-mail address of the account, which some registries want.
    #[serde(deserialize_with = "null_is_zero")]
    pub email: String,
    /// Host name of the registry.
    #[serde(deserialize_with = "null_is_zero")]
    pub host: String,
    /// A secret; not printed.
    #[serde(deserialize_with = "null_is_zero")]
    pub password: String,
    /// Name of the account.
    #[serde(deserialize_with = "null_is_zero")]
    pub username: String,
}

impl std::fmt::Debug for Credentials {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("host", &self.host)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// Parameters of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Params {
    /// Permissions, as they came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Value>,
    /// Mounts, sorted by volume.
    pub storage: Option<Vec<Mount>>,
    /// Trusted execution, as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tee: Option<Value>,
}

/// Where a volume is mounted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Mount {
    /// Absolute path within the container.
    #[serde(deserialize_with = "null_is_zero")]
    pub mount: String,
    /// Name of a volume in [`Resources::storage`].
    #[serde(deserialize_with = "null_is_zero")]
    pub name: String,
    /// The container may not write to it.
    #[serde(deserialize_with = "null_is_zero")]
    pub read_only: bool,
}

/// A port of a service, and who reaches it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Expose {
    /// Number of a leased address, or 0.
    #[serde(deserialize_with = "null_is_zero")]
    pub endpoint_sequence_number: u32,
    /// The port outside, or 0 for the same.
    #[serde(deserialize_with = "null_is_zero")]
    pub external_port: u32,
    /// Anybody reaches it through the provider's ingress.
    #[serde(deserialize_with = "null_is_zero")]
    pub global: bool,
    /// Host names served.
    pub hosts: Option<Vec<String>>,
    /// Options of the ingress.
    #[serde(deserialize_with = "null_is_zero")]
    pub http_options: HttpOptions,
    /// Name of a leased address.
    #[serde(deserialize_with = "null_is_zero")]
    pub ip: String,
    /// The port inside.
    #[serde(deserialize_with = "null_is_zero")]
    pub port: u32,
    /// `TCP` or `UDP`.
    #[serde(deserialize_with = "null_is_zero")]
    pub proto: String,
    /// The service it is for, or empty for all.
    #[serde(deserialize_with = "null_is_zero")]
    pub service: String,
}

/// Options of the ingress; times in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpOptions {
    /// Bytes of a request's body.
    #[serde(deserialize_with = "null_is_zero")]
    pub max_body_size: u32,
    /// When the next server is tried.
    pub next_cases: Option<Vec<String>>,
    /// For how long servers are tried, 0 for ever.
    #[serde(deserialize_with = "null_is_zero")]
    pub next_timeout: u32,
    /// How many servers are tried, 0 for all.
    #[serde(deserialize_with = "null_is_zero")]
    pub next_tries: u32,
    /// Longest pause between two parts of an answer.
    #[serde(deserialize_with = "null_is_zero")]
    pub read_timeout: u32,
    /// Longest pause between two parts of a request.
    #[serde(deserialize_with = "null_is_zero")]
    pub send_timeout: u32,
}

impl HttpOptions {
    /// What the Akash tools write when a manifest says nothing.
    #[must_use]
    pub fn standard() -> Self {
        Self {
            max_body_size: 1_048_576,
            next_cases: Some(vec!["error".into(), "timeout".into()]),
            next_timeout: 0,
            next_tries: 3,
            read_timeout: 60_000,
            send_timeout: 60_000,
        }
    }
}

/// Resources of one unit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Thousandths of a CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Units>,
    /// One for each port that is public.
    pub endpoints: Option<Vec<Endpoint>>,
    /// Whole GPUs; none and zero are written differently.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Units>,
    /// Its number in the group, from 1.
    #[serde(deserialize_with = "null_is_zero")]
    pub id: u32,
    /// Memory of each container, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// Volumes, and the container's own disk.
    #[serde(skip_serializing_if = "is_empty")]
    pub storage: Option<Vec<Volume>>,
}

/// A number of CPUs or GPUs, and of what kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Units {
    /// Attributes asked for, sorted by key.
    #[serde(skip_serializing_if = "is_empty")]
    pub attributes: Option<Vec<Attribute>>,
    /// Thousandths of CPUs, or whole GPUs.
    #[serde(deserialize_with = "null_is_zero")]
    pub units: Quantity,
}

/// An amount of memory, and of what kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Size {
    /// Attributes asked for, sorted by key.
    #[serde(skip_serializing_if = "is_empty")]
    pub attributes: Option<Vec<Attribute>>,
    /// How many bytes.
    #[serde(deserialize_with = "null_is_zero")]
    pub size: Quantity,
}

/// A volume, or the container's own disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// Class and persistence, sorted.
    #[serde(skip_serializing_if = "is_empty")]
    pub attributes: Option<Vec<Attribute>>,
    /// Its name; `default` is the container's own disk.
    #[serde(deserialize_with = "null_is_zero")]
    pub name: String,
    /// How many bytes.
    #[serde(deserialize_with = "null_is_zero")]
    pub size: Quantity,
}

/// An attribute, as the market compares it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attribute {
    /// E.g. `persistent`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_zero")]
    pub key: String,
    /// E.g. `true`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_zero")]
    pub value: String,
}

/// A public endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// 0 HTTP, 1 random port, 2 leased address.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_is_zero")]
    pub kind: u32,
    /// Number of the leased address, or 0.
    #[serde(deserialize_with = "null_is_zero")]
    pub sequence_number: u32,
}

/// A whole number, written as decimal text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quantity {
    /// Decimal digits without a sign.
    #[serde(deserialize_with = "decimal")]
    pub val: String,
}

impl Quantity {
    /// As the chain writes this number.
    #[must_use]
    pub fn new(value: u64) -> Self {
        Self { val: value.to_string() }
    }
}

#[allow(clippy::ref_option, reason = "serde hands out references")]
fn is_empty<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// `null` leaves a plain field at its zero value, as in Go.
fn null_is_zero<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    d: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

fn decimal<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    let text = String::deserialize(d)?;
    let digits = text.strip_prefix('-').unwrap_or(&text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(serde::de::Error::custom(format_args!("`{text}` is not a whole number")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_sorted_and_five_characters_escaped() {
        let value = json!({"b": ["<a>&\u{2028}\u{2029}\u{7f}é\u{1}\n"], "a": {"d": 1, "c": null}});
        assert_eq!(
            canonical(&value),
            "{\"a\":{\"c\":null,\"d\":1},\"b\":[\"\\u003ca\\u003e\\u0026\\u2028\\u2029\u{7f}é\\u0001\\n\"]}"
        );
    }

    #[test]
    fn a_quantity_that_is_no_number_is_refused() {
        for text in ["x", "", "-", "1.5", "0x10"] {
            assert!(serde_json::from_value::<Quantity>(json!({"val": text})).is_err(), "{text}");
        }
        assert!(serde_json::from_value::<Quantity>(json!({"val": 1})).is_err());
    }

    #[test]
    fn credentials_are_printed_without_the_password() {
        let credentials = Credentials { password: "hunter2".into(), ..Credentials::default() };
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }
}
