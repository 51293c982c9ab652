//! Reads a deployment of Akash's tools as those tools do: its group for the chain, its manifest for
//! the provider. One service in one group; anything of the language that is not read is an error,
//! never a guess.

use std::collections::BTreeMap;

use akash_redis::api::quantity::{Bytes, Cpu};
use akash_redis::model::group::{self, GroupSpec};
use akash_redis::model::money::{DEC_ONE, PricePerBlock, UACT};
use akash_redis::sdl::canonical::{
    self, Expose, Group, HttpOptions, Manifest, Quantity, Service, Size, Units, Volume,
};
use serde::Deserialize;
use serde_json::Value;

/// What the two sides of the market are told.
pub struct Deployment {
    /// For the chain.
    pub group: GroupSpec,
    /// For the provider; the chain gets the hash of its canonical text.
    pub manifest: Manifest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sdl {
    #[serde(rename = "version")]
    _version: Value,
    services: BTreeMap<String, SdlService>,
    profiles: Profiles,
    deployment: BTreeMap<String, BTreeMap<String, Placed>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SdlService {
    image: String,
    command: Option<Vec<String>>,
    args: Option<Vec<String>>,
    env: Option<Vec<String>>,
    expose: Vec<SdlExpose>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SdlExpose {
    port: u32,
    #[serde(rename = "as", default)]
    external: u32,
    proto: Option<String>,
    to: Vec<To>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct To {
    global: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Profiles {
    compute: BTreeMap<String, Compute>,
    placement: BTreeMap<String, Placement>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Compute {
    resources: SdlResources,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SdlResources {
    cpu: CpuUnits,
    memory: SdlSize,
    storage: OneOrMore,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CpuUnits {
    units: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SdlSize {
    size: Value,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    // First: a list can be read as the fields of one, too.
    More(Vec<SdlSize>),
    One(SdlSize),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Placement {
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    #[serde(rename = "signedBy", default)]
    signed_by: SignedBy,
    pricing: BTreeMap<String, Price>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct SignedBy {
    all_of: Vec<String>,
    any_of: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Price {
    denom: String,
    amount: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Placed {
    profile: String,
    count: u32,
}

/// The deployment that a text describes.
///
/// # Errors
/// It is no SDL, or says something that is not read here.
pub fn read(text: &str) -> Result<Deployment, String> {
    let sdl: Sdl = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let (name, service) = only(&sdl.services, "service")?;
    let placed = sdl.deployment.get(name).ok_or("the service is not deployed")?;
    let (group_name, placed) = only(placed, "placement of the service")?;
    let missing = |what: &str, name: &str| format!("no {what} is called {name}");
    let compute = sdl.profiles.compute.get(&placed.profile);
    let compute = compute.ok_or_else(|| missing("compute profile", &placed.profile))?;
    let placement = sdl.profiles.placement.get(group_name);
    let placement = placement.ok_or_else(|| missing("placement", group_name))?;
    let price = placement.pricing.get(&placed.profile);
    let price = price.ok_or_else(|| missing("price", &placed.profile))?;
    if price.denom != UACT || placed.count != 1 {
        return Err("only one container that is paid in uact is read".to_owned());
    }

    let expose = exposed(&service.expose)?;
    let endpoints = expose.iter().map(endpoint).collect();
    let resources = resources(&compute.resources, endpoints)?;
    let manifest = Manifest(vec![Group {
        name: group_name.clone(),
        services: Some(vec![Service {
            args: service.args.clone(),
            command: service.command.clone(),
            count: 1,
            credentials: None,
            env: service.env.clone(),
            expose: Some(expose),
            image: service.image.clone(),
            name: name.clone(),
            params: None,
            resources: of_the_manifest(&resources),
        }]),
    }]);
    let group = GroupSpec {
        name: group_name.clone(),
        attributes: placement.attributes.clone().into_iter().collect(),
        signed_by_all_of: placement.signed_by.all_of.clone(),
        signed_by_any_of: placement.signed_by.any_of.clone(),
        resources,
        price: PricePerBlock(u128::from(price.amount) * DEC_ONE),
    };
    Ok(Deployment { group, manifest })
}

fn only<'a, T>(map: &'a BTreeMap<String, T>, what: &str) -> Result<(&'a String, &'a T), String> {
    let mut all = map.iter();
    match (all.next(), all.next()) {
        (Some(one), None) => Ok(one),
        _ => Err(format!("there is not exactly one {what}")),
    }
}

/// Ports in the order that providers insist on.
fn exposed(ports: &[SdlExpose]) -> Result<Vec<Expose>, String> {
    let mut all = Vec::new();
    for port in ports {
        let [To { global: true }] = port.to[..] else {
            return Err("only ports that are open to everybody are read".to_owned());
        };
        all.push(Expose {
            external_port: port.external,
            global: true,
            http_options: HttpOptions::standard(),
            port: port.port,
            proto: port.proto.as_deref().unwrap_or("tcp").to_uppercase(),
            ..Expose::default()
        });
    }
    all.sort_by(|a, b| (a.port, &a.proto).cmp(&(b.port, &b.proto)));
    Ok(all)
}

/// Port 80 over TCP is the business of the provider's ingress.
fn endpoint(port: &Expose) -> group::Endpoint {
    let outside = if port.external_port == 0 { port.port } else { port.external_port };
    if port.proto == "TCP" && outside == 80 {
        group::Endpoint::SharedHttp
    } else {
        group::Endpoint::RandomPort
    }
}

fn resources(
    sdl: &SdlResources,
    endpoints: Vec<group::Endpoint>,
) -> Result<group::Resources, String> {
    let sizes = match &sdl.storage {
        OneOrMore::One(size) => std::slice::from_ref(size),
        OneOrMore::More(sizes) => sizes,
    };
    let [ephemeral] = sizes else { return Err("only the container's own disk is read".to_owned()) };
    let disk = group::Storage {
        name: "default".to_owned(),
        bytes: bytes(&ephemeral.size)?,
        attributes: Vec::new(),
    };
    let cpu: Cpu = spelled(&sdl.cpu.units).parse().map_err(|_| "no quantity of CPU".to_owned())?;
    Ok(group::Resources {
        id: 1,
        cpu_milli: cpu.0,
        memory_bytes: bytes(&sdl.memory.size)?,
        storage: vec![disk],
        endpoints,
    })
}

fn of_the_manifest(resources: &group::Resources) -> canonical::Resources {
    let units = |n: u64| Some(Units { attributes: None, units: Quantity::new(n) });
    let endpoint = |endpoint: &group::Endpoint| canonical::Endpoint {
        kind: u32::from(*endpoint == group::Endpoint::RandomPort),
        sequence_number: 0,
    };
    let volume = |storage: &group::Storage| Volume {
        attributes: None,
        name: storage.name.clone(),
        size: Quantity::new(storage.bytes),
    };
    canonical::Resources {
        cpu: units(resources.cpu_milli),
        endpoints: Some(resources.endpoints.iter().map(endpoint).collect()),
        gpu: units(0),
        id: resources.id,
        memory: Some(Size { attributes: None, size: Quantity::new(resources.memory_bytes) }),
        storage: Some(resources.storage.iter().map(volume).collect()),
    }
}

fn spelled(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn bytes(value: &Value) -> Result<u64, String> {
    let size: Bytes = spelled(value).parse().map_err(|_| format!("{value} is no size"))?;
    Ok(size.0)
}
