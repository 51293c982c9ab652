//! One node of a `RedisCluster` as the market sees it: group, manifest, canonical hash, SDL text.
//! Pure.
//!
//! A deployment has one group with one service of count 1. The group goes to the chain, the
//! manifest to the provider that holds the lease, its hash to the chain; [`text()`] is the same in
//! the language of the Akash tools, for people.

pub mod canonical;
mod text;

pub use canonical::hash;

use crate::api::defaults;
use crate::api::types::Spec;
use crate::model::group::{Endpoint, GroupSpec, Resources, Storage};
use crate::model::money::{DEC_ONE, PricePerBlock};
use crate::model::ports::STATUS_PORT;

/// Name of the one service.
pub const SERVICE: &str = "redis";
/// Name of the data volume.
pub const DATA_VOLUME: &str = "data";
/// Where the data volume is mounted.
pub const DATA_MOUNT: &str = "/data";

/// Name of the ephemeral volume, given by Akash.
const EPHEMERAL: &str = "default";
/// The status page is HTTP on port 80: this makes it the ingress' business and not a random public
/// port.
const PUBLIC_PORT: u16 = 80;
/// The chain refuses a higher price for one unit, in uact per block.
const PRICE_LIMIT: PricePerBlock = PricePerBlock(10_000_000 * DEC_ONE);

/// What the chain is asked for: the group of one node, at `max_price` per block or the chain's own
/// limit if that is lower.
#[must_use]
pub fn group(spec: &Spec, group_name: &str, max_price: PricePerBlock) -> GroupSpec {
    GroupSpec {
        name: group_name.to_owned(),
        attributes: spec.placement.attributes.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        signed_by_all_of: spec.placement.signed_by.all_of.clone(),
        signed_by_any_of: spec.placement.signed_by.any_of.clone(),
        resources: resources(spec),
        price: max_price.min(PRICE_LIMIT),
    }
}

/// What the provider is sent, as the canonical text that is hashed; `env` in the order given.
#[must_use]
pub fn manifest(spec: &Spec, group_name: &str, image: &str, env: &[(String, String)]) -> String {
    use canonical::{Expose, Group, HttpOptions, Manifest, Mount, Params, Service};
    let mount = || Mount { mount: DATA_MOUNT.into(), name: DATA_VOLUME.into(), read_only: false };
    let service = Service {
        args: None,
        command: None,
        count: 1,
        credentials: None,
        // An empty list is hashed differently from none at all.
        env: (!env.is_empty()).then(|| env.iter().map(|(k, v)| format!("{k}={v}")).collect()),
        expose: Some(vec![Expose {
            external_port: PUBLIC_PORT.into(),
            global: true,
            http_options: HttpOptions::standard(),
            port: STATUS_PORT.into(),
            proto: "TCP".into(),
            ..Expose::default()
        }]),
        image: image.to_owned(),
        name: SERVICE.into(),
        params: spec
            .resources
            .data
            .is_some()
            .then(|| Params { storage: Some(vec![mount()]), ..Params::default() }),
        resources: manifest_resources(&resources(spec)),
    };
    Manifest(vec![Group { name: group_name.to_owned(), services: Some(vec![service]) }])
        .canonical_text()
}

/// The same deployment in the Stack Definition Language: the Akash tools make the same group and
/// the same hash of it.
#[must_use]
pub fn text(
    spec: &Spec,
    group_name: &str,
    max_price: PricePerBlock,
    image: &str,
    env: &[(String, String)],
) -> String {
    text::write(&group(spec, group_name, max_price), image, env)
}

fn resources(spec: &Spec) -> Resources {
    let mut storage = vec![Storage {
        name: EPHEMERAL.into(),
        bytes: defaults::ephemeral(spec),
        attributes: Vec::new(),
    }];
    if let Some(data) = &spec.resources.data {
        let attributes = vec![
            ("class".to_owned(), data.class.word().to_owned()),
            ("persistent".to_owned(), "true".to_owned()),
        ];
        storage.push(Storage { name: DATA_VOLUME.into(), bytes: data.size.0, attributes });
    }
    // The order of Akash's Go tools; the sort is stable, so the ephemeral volume comes first when
    // both are of one size.
    storage.sort_by_key(|volume| volume.bytes);
    Resources {
        id: 1,
        cpu_milli: spec.resources.cpu.0,
        memory_bytes: spec.resources.memory.0,
        storage,
        endpoints: vec![Endpoint::SharedHttp],
    }
}

fn manifest_resources(resources: &Resources) -> canonical::Resources {
    use canonical::{Attribute, Quantity, Size, Units, Volume};
    let volume = |storage: &Storage| Volume {
        attributes: Some(
            storage
                .attributes
                .iter()
                .map(|(k, v)| Attribute { key: k.clone(), value: v.clone() })
                .collect(),
        ),
        name: storage.name.clone(),
        size: Quantity::new(storage.bytes),
    };
    let endpoint = |endpoint: &Endpoint| canonical::Endpoint {
        kind: match endpoint {
            Endpoint::SharedHttp => 0,
            Endpoint::RandomPort => 1,
        },
        sequence_number: 0,
    };
    canonical::Resources {
        cpu: Some(Units { attributes: None, units: Quantity::new(resources.cpu_milli) }),
        endpoints: Some(resources.endpoints.iter().map(endpoint).collect()),
        // Always written, even when none is wanted.
        gpu: Some(Units { attributes: None, units: Quantity::new(0) }),
        id: resources.id,
        memory: Some(Size { attributes: None, size: Quantity::new(resources.memory_bytes) }),
        storage: Some(resources.storage.iter().map(volume).collect()),
    }
}
