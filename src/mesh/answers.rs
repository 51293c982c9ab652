//! The control API's JSON, read leniently: the API grows, and its relatives leave fields out.

use std::net::IpAddr;

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{MintedKey, outside};
use crate::model::mesh::{AuthKey, Device};
use crate::model::time::UnixMs;

/// Longest piece of an error text that is passed on.
const MAX_MESSAGE: usize = 300;

#[derive(Deserialize)]
pub(super) struct Token {
    #[serde(rename = "access_token")]
    pub secret: String,
    /// Life of the token, seconds.
    pub expires_in: Option<u64>,
    /// What it may do, as far as the server says: words with blanks between them.
    pub scope: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct KeyList {
    #[serde(default)]
    pub keys: Vec<KeyEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyEntry {
    #[serde(default)]
    pub id: String,
    /// OAuth clients are keys too, of the type `client`.
    pub key_type: Option<String>,
    pub key: Option<String>,
    pub description: Option<String>,
    pub invalid: Option<bool>,
    pub revoked: Option<String>,
    pub expires: Option<String>,
    /// Whatever else it says.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, serde_json::Value>,
}

#[derive(Deserialize)]
pub(super) struct DeviceList {
    #[serde(default)]
    pub devices: Vec<DeviceEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceEntry {
    pub id: Option<String>,
    pub node_id: Option<String>,
    #[serde(default)]
    pub hostname: String,
    pub name: Option<String>,
    pub addresses: Option<Vec<String>>,
    pub tags: Option<Vec<String>>,
    pub created: Option<String>,
    pub multiple_connections: Option<bool>,
    pub tailnet_lock_error: Option<String>,
}

/// More tags than any device has.
const MOST_TAGS: usize = 64;

impl KeyEntry {
    /// Nothing but an id: what it is has to be asked for. An entry that says more and has no
    /// description has an empty one.
    pub(super) fn is_bare(&self) -> bool {
        let said = [&self.key_type, &self.key, &self.description, &self.revoked, &self.expires];
        said.iter().all(|field| field.is_none()) && self.invalid.is_none() && self.rest.is_empty()
    }

    /// Its id can be asked for and revoked.
    pub(super) fn is_named(&self) -> bool {
        outside::is_word(&self.id)
    }

    /// Whether a device joins with it. Old answers do not say: then there was nothing else.
    pub(super) fn is_auth(&self) -> bool {
        self.key_type.as_deref().is_none_or(|kind| kind == "auth")
    }

    pub(super) fn into_key(self) -> AuthKey {
        let revoked = self.revoked.as_deref().and_then(moment).is_some();
        let expired =
            self.expires.as_deref().and_then(moment).is_some_and(|end| end <= UnixMs::now());
        AuthKey {
            id: self.id,
            description: self.description.unwrap_or_default(),
            invalid: self.invalid.unwrap_or(false) || revoked || expired,
        }
    }

    pub(super) fn into_minted(self) -> Option<MintedKey> {
        let secret = self.key.filter(|key| !key.is_empty() && !self.id.is_empty())?;
        Some(MintedKey { id: self.id, secret: secret.into() })
    }
}

impl DeviceEntry {
    /// The API's id, in the form that the local tailscaled uses.
    pub(super) fn device_id(&self) -> Option<&str> {
        self.node_id.as_deref().or(self.id.as_deref()).filter(|id| outside::is_word(id))
    }

    /// `None` when it cannot be named. What is no name or no address is left out of it.
    pub(super) fn into_device(self) -> Option<Device> {
        let id = self.device_id()?.to_owned();
        // The IPv4 address is the one that userspace nodes are dialled by.
        let addresses: Vec<IpAddr> =
            self.addresses.iter().flatten().filter_map(|ip| outside::device_ip(ip)).collect();
        let ip = addresses
            .iter()
            .find(|ip| ip.is_ipv4())
            .or(addresses.first())
            .map(ToString::to_string)
            .unwrap_or_default();
        // A tag that is none still counts as one: without it the device would seem to have ours
        // alone.
        let tag = |tag: String| if outside::is_word(&tag) { tag } else { outside::sentence(&tag) };
        Some(Device {
            id,
            hostname: outside::dns_name(&self.hostname).unwrap_or_default(),
            name: self.name.as_deref().and_then(outside::dns_name).unwrap_or_default(),
            ip,
            tags: self.tags.into_iter().flatten().take(MOST_TAGS).map(tag).collect(),
            created: self.created.as_deref().and_then(moment),
            multiple_connections: self.multiple_connections.unwrap_or(false),
            unsigned: self.tailnet_lock_error.is_some_and(|error| !error.trim().is_empty()),
        })
    }
}

/// A set point in time: the API spells "never" as nothing, as "" or as the year 1.
fn moment(text: &str) -> Option<UnixMs> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok().map(UnixMs)
}

/// What an error answer says: `message` with the first detail, or OAuth's `error_description`.
pub(super) fn message(body: &[u8]) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
    let text = |name: &str| {
        answer.get(name).and_then(serde_json::Value::as_str).filter(|text| !text.is_empty())
    };
    let mut said =
        text("message").or_else(|| text("error_description")).or_else(|| text("error"))?.to_owned();
    if let Some(detail) = answer.pointer("/data/0/errors/0").and_then(serde_json::Value::as_str) {
        said = format!("{said}: {detail}");
    }
    Some(said.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect())
}
