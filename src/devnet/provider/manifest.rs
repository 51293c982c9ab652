//! What a gateway makes of a manifest: reading it, its own rules, its hash, and whether it fits the
//! groups on the chain.

use serde_json::Value;

use crate::sdl::canonical::{self, Attribute, Expose, Group, Manifest, Resources, Service, Units};
use crate::wire::akash::base::resources::v1beta4::Resources as ChainResources;
use crate::wire::akash::base::resources::v1beta4::endpoint::Kind;
use crate::wire::akash::deployment::v1beta4::GroupSpec;

/// A refusal in a gateway's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// An answer with status and text.
    Answer(u16, String),
    /// The real gateway dies of it: the connection ends without an answer.
    Crash,
}

impl Refusal {
    fn unprocessable(text: impl Into<String>) -> Self {
        Self::Answer(422, text.into())
    }

    fn invalid(text: impl std::fmt::Display) -> Self {
        Self::unprocessable(format!("invalid manifest: {text}"))
    }
}

/// Reads a body as the gateway does: unknown fields and whatever follows the first value are
/// dropped.
pub fn decode(body: &[u8]) -> Result<Manifest, Refusal> {
    let value = match serde_json::Deserializer::from_slice(body).into_iter::<Value>().next() {
        None => return Err(Refusal::unprocessable("EOF")),
        Some(Err(error)) if error.is_eof() => return Err(Refusal::unprocessable("unexpected EOF")),
        Some(Err(error)) => return Err(Refusal::unprocessable(syntax_error(body, &error))),
        Some(Ok(value)) => value,
    };
    let kind = match &value {
        Value::Null => return Ok(Manifest::default()),
        Value::Array(_) => {
            return serde_json::from_value(value)
                .map_err(|error| Refusal::unprocessable(wrong_type(&error)));
        }
        Value::Object(_) => "object",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
    };
    Err(Refusal::unprocessable(format!(
        "json: cannot unmarshal {kind} into Go value of type v2beta3.Manifest"
    )))
}

fn syntax_error(body: &[u8], error: &serde_json::Error) -> String {
    let line =
        body.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let found = line.get(error.column().saturating_sub(1)).copied().map_or('?', char::from);
    format!("invalid character '{found}' looking for beginning of value")
}

fn wrong_type(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.strip_suffix("` is not a whole number").and_then(|start| start.strip_prefix('`')) {
        Some(digits) => format!("math/big: cannot unmarshal {digits:?} into a *big.Int"),
        None => format!("json: cannot unmarshal: {text}"),
    }
}

/// SHA-256 of the canonical text.
#[must_use]
pub fn hash(manifest: &Manifest) -> [u8; 32] {
    canonical::hash(&manifest.canonical_text())
}

/// The rules that need nothing but the manifest.
pub fn validate(Manifest(manifest): &Manifest) -> Result<(), Refusal> {
    if manifest.is_empty() {
        return Err(Refusal::invalid("manifest is empty"));
    }
    let mut globals = 0;
    for (at, group) in manifest.iter().enumerate() {
        let name = &group.name;
        if manifest[..at].iter().any(|earlier| earlier.name == *name) {
            return Err(Refusal::invalid(format!("duplicate group {name:?}")));
        }
        let services = group.services.as_deref().unwrap_or_default();
        if services.is_empty() {
            return Err(Refusal::invalid(format!("group {name:?} contains no services")));
        }
        if !services.is_sorted_by(|a, b| a.name <= b.name) {
            return Err(Refusal::invalid(format!("group {name:?} services is not sorted")));
        }
        for service in services {
            check_service(service)?;
            globals += service.expose.iter().flatten().filter(|expose| expose.global).count();
        }
    }
    if globals == 0 {
        return Err(Refusal::invalid("zero global services"));
    }
    let ids = manifest
        .iter()
        .flat_map(|group| group.services.iter().flatten())
        .map(|service| service.resources.id);
    if ids.min() == Some(0) {
        return Err(Refusal::Answer(500, "resources ID must be > 0".into()));
    }
    Ok(())
}

fn check_service(service: &Service) -> Result<(), Refusal> {
    let name = &service.name;
    if !is_label(name) || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err(Refusal::invalid(format!("service {name:?} name is invalid")));
    }
    if service.image.is_empty() {
        return Err(Refusal::invalid(format!("service {name:?} has empty image name")));
    }
    for variable in service.env.iter().flatten() {
        let key = variable.split('=').next().unwrap_or_default();
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if key.is_empty() || key.starts_with(|c: char| c.is_ascii_digit()) || !key.chars().all(good)
        {
            return Err(Refusal::invalid(format!(
                "service {name:?} defines an env. var. with an invalid name {key:?}"
            )));
        }
    }
    let exposes = service.expose.as_deref().unwrap_or_default();
    if !exposes
        .is_sorted_by_key(|expose| (&expose.service, expose.port, &expose.proto, !expose.global))
    {
        return Err(Refusal::invalid(format!("service {name:?}: expose is not sorted")));
    }
    exposes.iter().try_for_each(|expose| check_expose(name, expose))
}

fn check_expose(service: &str, expose: &Expose) -> Result<(), Refusal> {
    if !(1..=65535).contains(&expose.port) {
        return Err(Refusal::invalid(format!(
            "service {service:?}: port value must be 0 < value <= 65535 "
        )));
    }
    let hosts = expose.hosts.as_deref().unwrap_or_default();
    for (at, host) in hosts.iter().enumerate() {
        if host.len() > 253 || !host.split('.').all(is_label) {
            return Err(Refusal::invalid(format!(
                "service {service:?}: has invalid hostname {host:?}"
            )));
        }
        if hosts[..at].contains(host) {
            return Err(Refusal::invalid(format!(
                "service {service:?}: hostname {host:?} is duplicated, this is not allowed"
            )));
        }
    }
    Ok(())
}

fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty()
        && text.len() <= 63
        && text.chars().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Whether a manifest, whose hash is right, uses exactly what the groups on the chain hold.
pub fn fits(Manifest(manifest): &Manifest, groups: &[GroupSpec]) -> Result<(), Refusal> {
    if manifest.len() != groups.len() {
        let text = format!(
            "invalid manifest: group count mismatch ({} != {})",
            manifest.len(),
            groups.len()
        );
        return Err(Refusal::Answer(500, text));
    }
    for group in manifest {
        let Some(spec) = groups.iter().find(|spec| spec.name == group.name) else {
            return Err(Refusal::Answer(
                500,
                format!("invalid manifest: unknown deployment group ('{}')", group.name),
            ));
        };
        group_fits(group, spec)?;
    }
    Ok(())
}

fn group_fits(group: &Group, spec: &GroupSpec) -> Result<(), Refusal> {
    let wrong = |text: String| {
        Refusal::unprocessable(format!(
            "manifest cross-validation error: group {:?}: {text}",
            group.name
        ))
    };
    let mut left: Vec<Left<'_>> = spec.resources.iter().filter_map(Left::of).collect();
    for service in group.services.iter().flatten() {
        let id = service.resources.id;
        let wrong = |text: String| wrong(format!("service {:?}: {text}", service.name));
        let Some(unit) = left.iter_mut().find(|unit| unit.resources.id == id) else {
            return Err(wrong(format!("not found deployment group resources with ID = {id}")));
        };
        if service.resources.storage.as_ref().map_or(0, Vec::len) > unit.resources.storage.len() {
            return Err(Refusal::Crash);
        }
        if let Some(what) = mismatch(&service.resources, unit.resources) {
            return Err(wrong(format!("{what} resources mismatch for ID {id}")));
        }
        if service.count > unit.count {
            let text = format!(
                "over-utilized replicas ({}) > group spec resources count ({})",
                service.count, unit.count
            );
            return Err(wrong(text));
        }
        unit.count -= service.count;
        for expose in service.expose.iter().flatten().filter(|expose| expose.global) {
            let (room, kind) =
                if is_http(expose) { (&mut unit.http, "HTTP") } else { (&mut unit.ports, "PORT") };
            *room = room.checked_sub(1).ok_or_else(|| {
                wrong(format!("resource ID {id}: over-utilized {kind} endpoints"))
            })?;
        }
    }
    match left.iter().find(|unit| unit.count > 0 || unit.http > 0 || unit.ports > 0) {
        Some(unit) => Err(wrong(format!("under-utilized resources with ID {}", unit.resources.id))),
        None => Ok(()),
    }
}

/// Whether the ingress serves this port: it is public, and port 80 outside.
#[must_use]
pub fn is_http(expose: &Expose) -> bool {
    let external = if expose.external_port == 0 { expose.port } else { expose.external_port };
    expose.global && expose.proto == "TCP" && external == 80
}

/// What of a resource unit is not used up yet.
struct Left<'a> {
    resources: &'a ChainResources,
    count: u32,
    http: usize,
    ports: usize,
}

impl<'a> Left<'a> {
    fn of(unit: &'a crate::wire::akash::deployment::v1beta4::ResourceUnit) -> Option<Self> {
        let resources = unit.resource.as_ref()?;
        let of = |kind: Kind| {
            resources.endpoints.iter().filter(|endpoint| endpoint.kind() == kind).count()
        };
        Some(Self {
            resources,
            count: unit.count,
            http: of(Kind::SharedHttp),
            ports: of(Kind::RandomPort),
        })
    }
}

fn mismatch(own: &Resources, chain: &ChainResources) -> Option<&'static str> {
    let digits = |value: Option<&crate::wire::akash::base::resources::v1beta4::ResourceValue>| {
        value.map_or_else(
            || "0".to_owned(),
            |value| String::from_utf8_lossy(&value.val).into_owned(),
        )
    };
    let units =
        |own: Option<&Units>| own.map_or_else(|| "0".to_owned(), |units| units.units.val.clone());
    let same = |own: Option<&Vec<Attribute>>,
                chain: &[crate::wire::akash::base::attributes::v1::Attribute]| {
        let own: Vec<(&str, &str)> =
            own.into_iter().flatten().map(|one| (one.key.as_str(), one.value.as_str())).collect();
        own == chain.iter().map(|one| (one.key.as_str(), one.value.as_str())).collect::<Vec<_>>()
    };
    if units(own.cpu.as_ref()) != digits(chain.cpu.as_ref().and_then(|cpu| cpu.units.as_ref())) {
        return Some("CPU");
    }
    if units(own.gpu.as_ref()) != digits(chain.gpu.as_ref().and_then(|gpu| gpu.units.as_ref())) {
        return Some("GPU");
    }
    let memory = own.memory.as_ref().map_or("0", |memory| memory.size.val.as_str());
    if memory != digits(chain.memory.as_ref().and_then(|memory| memory.quantity.as_ref())) {
        return Some("Memory");
    }
    let volumes = own.storage.as_deref().unwrap_or_default();
    let equal = volumes.len() == chain.storage.len()
        && volumes.iter().zip(&chain.storage).all(|(own, chain)| {
            own.name == chain.name
                && own.size.val == digits(chain.quantity.as_ref())
                && same(own.attributes.as_ref(), &chain.attributes)
        });
    (!equal).then_some("Storage")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_market_s_own_tools() {
        let text = r#"[{"name":"akash","services":[{"args":null,"command":null,"count":1,"credentials":null,"env":null,"expose":[{"endpointSequenceNumber":0,"externalPort":80,"global":true,"hosts":null,"httpOptions":{"maxBodySize":1048576,"nextCases":["error","timeout"],"nextTimeout":0,"nextTries":3,"readTimeout":60000,"sendTimeout":60000},"ip":"","port":80,"proto":"TCP","service":""}],"image":"bsord/tetris","name":"tetris","resources":{"cpu":{"units":{"val":"1000"}},"endpoints":[{"sequence_number":0}],"gpu":{"units":{"val":"0"}},"id":1,"memory":{"size":{"val":"536870912"}},"storage":[{"name":"default","size":{"val":"536870912"}}]}}]}]"#;
        let manifest = decode(text.as_bytes()).unwrap();
        assert_eq!(
            hex::encode(hash(&manifest)),
            "ee52e329aa45b0638c27065d52eb0dc92f6704194bc63c6435c56fb549dded7d"
        );
    }
}
