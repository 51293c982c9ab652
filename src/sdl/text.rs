//! SDL: YAML for the Akash tools. Strings are written as JSON strings, which YAML reads as they
//! are.

use std::fmt::Write;

use super::{DATA_MOUNT, DATA_VOLUME, EPHEMERAL, PUBLIC_PORT, SERVICE};
use crate::api::quantity::{Bytes, Cpu};
use crate::model::group::{GroupSpec, Resources, Storage};
use crate::model::money::{DEC_ONE, PricePerBlock, UACT};
use crate::model::ports::STATUS_PORT;

pub(super) fn write(group: &GroupSpec, image: &str, env: &[(String, String)]) -> String {
    let mut out = String::from("version: \"2.0\"\n");
    services(&mut out, &group.resources, image, env);
    out.push_str("profiles:\n");
    compute(&mut out, &group.resources);
    placement(&mut out, group);
    let name = quoted(&group.name);
    let _ = write!(
        out,
        "deployment:\n  {SERVICE}:\n    {name}:\n      profile: {SERVICE}\n      count: 1\n"
    );
    out
}

fn services(out: &mut String, resources: &Resources, image: &str, env: &[(String, String)]) {
    let _ = write!(out, "services:\n  {SERVICE}:\n    image: {}\n", quoted(image));
    if !env.is_empty() {
        out.push_str("    env:\n");
    }
    for (key, value) in env {
        let _ = writeln!(out, "      - {}", quoted(&format!("{key}={value}")));
    }
    let _ = write!(
        out,
        "    expose:\n      - port: {STATUS_PORT}\n        as: {PUBLIC_PORT}\n        proto: tcp\n        to:\n          - global: true\n"
    );
    if resources.storage.iter().any(|volume| volume.name == DATA_VOLUME) {
        let _ = write!(
            out,
            "    params:\n      storage:\n        {DATA_VOLUME}:\n          mount: {DATA_MOUNT}\n          readOnly: false\n"
        );
    }
}

fn compute(out: &mut String, resources: &Resources) {
    let _ = write!(
        out,
        "  compute:\n    {SERVICE}:\n      resources:\n        cpu:\n          units: {}\n        memory:\n          size: {}\n        storage:\n",
        Cpu(resources.cpu_milli),
        Bytes(resources.memory_bytes)
    );
    for volume in &resources.storage {
        storage(out, volume);
    }
}

fn storage(out: &mut String, volume: &Storage) {
    let _ = writeln!(out, "          - size: {}", Bytes(volume.bytes));
    if volume.name != EPHEMERAL {
        let _ = writeln!(out, "            name: {}", volume.name);
    }
    if !volume.attributes.is_empty() {
        out.push_str("            attributes:\n");
    }
    for (key, value) in &volume.attributes {
        let _ = writeln!(out, "              {key}: {value}");
    }
}

fn placement(out: &mut String, group: &GroupSpec) {
    let _ = write!(out, "  placement:\n    {}:\n", quoted(&group.name));
    if !group.attributes.is_empty() {
        out.push_str("      attributes:\n");
    }
    for (key, value) in &group.attributes {
        let _ = writeln!(out, "        {}: {}", quoted(key), quoted(value));
    }
    if !(group.signed_by_all_of.is_empty() && group.signed_by_any_of.is_empty()) {
        out.push_str("      signedBy:\n");
    }
    for (key, auditors) in [("allOf", &group.signed_by_all_of), ("anyOf", &group.signed_by_any_of)]
    {
        if !auditors.is_empty() {
            let _ = writeln!(out, "        {key}:");
        }
        for auditor in auditors {
            let _ = writeln!(out, "          - {}", quoted(auditor));
        }
    }
    let price = decimal(group.price);
    let _ = write!(
        out,
        "      pricing:\n        {SERVICE}:\n          denom: {UACT}\n          amount: {price}\n"
    );
}

/// A JSON string, with the characters escaped that YAML does not let stand in a document.
fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            other => out.push(other),
        }
    }
    out
}

/// The exact decimal number, without trailing zeros.
fn decimal(price: PricePerBlock) -> String {
    let (whole, rest) = (price.0 / DEC_ONE, price.0 % DEC_ONE);
    if rest == 0 {
        return whole.to_string();
    }
    format!("{whole}.{}", format!("{rest:018}").trim_end_matches('0'))
}
