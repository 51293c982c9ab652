//! Group, manifest, hash and SDL text agree with what Akash's own tools made of the same
//! deployments.
//!
//! `sdl-vectors.jsonl` was recorded from the Go SDL library, `gateway-wire.jsonl` from a provider's
//! gateway.

use std::collections::{BTreeMap, BTreeSet};

use akash_redis::api::quantity::{Bytes, Cpu};
use akash_redis::api::types::{Data, Spec, StorageClass};
use akash_redis::api::validate;
use akash_redis::model::group::{Endpoint, GroupSpec};
use akash_redis::model::money::{DEC_ONE, PricePerBlock, UACT};
use akash_redis::sdl;
use akash_redis::sdl::canonical::{self, Manifest};
use akash_redis::wire::akash::base::attributes::v1 as attributes;
use akash_redis::wire::akash::base::resources::v1beta4 as resources;
use akash_redis::wire::akash::deployment::v1beta4 as deployment;
use akash_redis::wire::cosmos::base::v1beta1::DecCoin;
use prost::Message;
use serde_json::{Value, json};

use crate::akash_sdl;

/// Auditors of the vectors.
const AUDITORS: [&str; 2] = [
    "akash1365yvmc4s7awdyj3n2sav7xfx76adc6dnmlx63",
    "akash18qa2a2ltfyvkyj0ggj3hkvuj6twzyumuaru9s4",
];

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
}

fn vectors() -> BTreeMap<String, Value> {
    let all = lines(include_str!("../vectors/sdl-vectors.jsonl"));
    all.into_iter().map(|one| (one["name"].as_str().expect("a name").to_owned(), one)).collect()
}

fn text<'a>(vector: &'a Value, key: &str) -> &'a str {
    vector[key].as_str().unwrap_or_else(|| panic!("{} has no {key}", vector["name"]))
}

#[test]
fn every_accepted_manifest_is_read_and_written_as_it_was() {
    let mut seen = 0;
    for (name, vector) in vectors() {
        if vector["ok"] == false {
            continue;
        }
        seen += 1;
        let manifest: Manifest = serde_json::from_str(text(&vector, "manifest"))
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(manifest.canonical_text(), text(&vector, "manifest"), "{name}");
        let value: Value = serde_json::from_str(text(&vector, "manifest")).expect("JSON");
        assert_eq!(canonical::canonical(&value), text(&vector, "manifest"), "{name}");
        assert_eq!(
            hex::encode(sdl::hash(&manifest.canonical_text())),
            text(&vector, "hash"),
            "{name}"
        );
    }
    assert!(seen > 80, "{seen}");
}

#[test]
fn a_body_is_taken_exactly_when_the_provider_took_it() {
    let all = lines(include_str!("../vectors/gateway-wire.jsonl"));
    let read = |name: &str| {
        let exchange = all
            .iter()
            .find(|one| one["name"] == format!("manifest-put-{name}"))
            .unwrap_or_else(|| panic!("no {name}"));
        let manifest = serde_json::from_str::<Manifest>(text(&exchange["request"], "body"));
        (
            manifest.map(|manifest| manifest.canonical_text()).ok(),
            exchange["response"]["status"] == 200,
        )
    };
    // Its hash is the one on the chain.
    let (expected, _) = read("twice");
    assert!(expected.is_some());
    let same = ["other-key-order", "unknown-field", "proxy-buffer-size", "null-fields-left-out"];
    let others = [
        "without-http-options",
        "empty-list-for-null",
        "negative-quantity",
        "group-name-empty",
        "count-0",
    ];
    let unreadable = ["not-json", "empty-object", "string", "wrong-json-type", "bad-quantity"];
    for name in same.iter().chain(&others).chain(&unreadable) {
        let (read, taken) = read(name);
        assert_eq!(read == expected, taken, "{name}");
        assert_eq!(read.is_none(), unreadable.contains(name), "{name}");
    }
}

/// One deployment of the vectors in the words of a `RedisCluster`.
struct Case {
    name: &'static str,
    spec: Spec,
    group: &'static str,
    image: &'static str,
    env: Vec<(String, String)>,
    price: PricePerBlock,
}

/// The case with which the vectors begin, changed by `change`.
fn case(name: &'static str, change: impl FnOnce(&mut Case)) -> Case {
    let spec = json!({
        "nodes": 3,
        "resources": { "cpu": "500m", "memory": "512Mi", "ephemeral": "1Gi" },
        "placement": { "attributes": { "region": "us-west" } },
    });
    let spec = serde_json::from_value(spec).expect("a spec");
    let price = PricePerBlock(1000 * DEC_ONE);
    let mut case = Case {
        name,
        spec,
        group: "dc1",
        image: "ghcr.io/example/redis-agent:8.2.1",
        env: Vec::new(),
        price,
    };
    change(&mut case);
    case
}

fn cpu(name: &'static str, milli: u64) -> Case {
    case(name, |c| c.spec.resources.cpu = Cpu(milli))
}

fn memory(name: &'static str, size: &str) -> Case {
    case(name, |c| c.spec.resources.memory = size.parse().expect("a size"))
}

fn ephemeral(name: &'static str, size: &str) -> Case {
    case(name, |c| c.spec.resources.ephemeral = Some(size.parse().expect("a size")))
}

fn data(name: &'static str, ephemeral: &str, size: &str, class: StorageClass) -> Case {
    case(name, |c| {
        c.spec.resources.ephemeral = Some(ephemeral.parse().expect("a size"));
        c.spec.resources.data = Some(Data { size: size.parse().expect("a size"), class });
    })
}

fn env(name: &'static str, env: &[(&str, &str)]) -> Case {
    case(name, |c| c.env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
}

fn price(name: &'static str, price: u128) -> Case {
    case(name, |c| c.price = PricePerBlock(price))
}

fn signed(name: &'static str, all_of: &[&str], any_of: &[&str]) -> Case {
    case(name, |c| {
        c.spec.placement.signed_by.all_of = all_of.iter().map(ToString::to_string).collect();
        c.spec.placement.signed_by.any_of = any_of.iter().map(ToString::to_string).collect();
    })
}

fn attributes_of(name: &'static str, pairs: &[(&str, &str)]) -> Case {
    case(name, |c| {
        c.spec.placement.attributes =
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    })
}

/// All deployments of the vectors that a `RedisCluster` can express.
fn cases() -> Vec<Case> {
    use StorageClass::{Beta1, Beta2, Beta3, Default};
    let (a, b) = (AUDITORS[0], AUDITORS[1]);
    let no_attributes = |name, image| {
        case(name, |c| {
            c.spec.placement.attributes.clear();
            c.image = image;
        })
    };
    vec![
        case("basic-v2.0", |_| {}),
        case("version-unquoted-2.0", |_| {}),
        case("version-2", |_| {}),
        cpu("cpu-0.1", 100),
        cpu("cpu-0.01", 10),
        cpu("cpu-0.29", 290),
        cpu("cpu-1", 1000),
        cpu("cpu-1.5", 1500),
        cpu("cpu-16", 16_000),
        cpu("cpu-4.35", 4350),
        cpu("cpu-1e0", 1000),
        memory("memory-1048576Ki", "1048576Ki"),
        memory("memory-1Gi", "1Gi"),
        memory("memory-0.5Gi", "0.5Gi"),
        memory("memory-0.3Gi", "0.3Gi"),
        memory("memory-2Ti", "2Ti"),
        memory("memory-500000k", "500000k"),
        memory("memory-1e9", "1000000000"),
        memory("memory-1000000000", "1000000000"),
        ephemeral("storage-1.5Gi", "1.5Gi"),
        ephemeral("storage-32Ti", "32Ti"),
        ephemeral("storage-10G", "10G"),
        ephemeral("storage-500000k", "500000k"),
        ephemeral("storage-0.001Pi", "1125899906842"),
        ephemeral("storage-5Mi", "5Mi"),
        data("persistent-beta1", "1Gi", "10Gi", Beta1),
        data("persistent-beta3", "1Gi", "10Gi", Beta3),
        data("persistent-no-class", "1Gi", "10Gi", Default),
        data("persistent-v2.1", "1Gi", "10Gi", Beta3),
        data("persistent-string-true", "1Gi", "10Gi", Beta2),
        data("odd-persistent-yes", "1Gi", "10Gi", Beta3),
        data("persistent-first-bigger", "1Gi", "10Gi", Beta3),
        data("persistent-smaller-than-ephemeral", "10Gi", "1Gi", Beta3),
        data("persistent-same-size", "1Gi", "1Gi", Beta3),
        data("persistent-same-size-reversed", "1Gi", "1Gi", Beta3),
        env("env-plain", &[("REDIS_ROLE", "replica"), ("A", "1")]),
        env(
            "env-html-chars",
            &[("X", "<a href=\"x\">&amp;</a>"), ("AND", "a&b"), ("LT", "<"), ("GT", ">")],
        ),
        env("env-control", &[("C", "\u{1}\u{8}\u{c}\u{1f}\u{7f}")]),
        env("env-empty-value", &[("EMPTY", "")]),
        env("env-equals-in-value", &[("CFG", "a=b=c")]),
        env("env-lower-dots", &[("my.var-1_x", "1")]),
        env("env-duplicate", &[("A", "1"), ("A", "2")]),
        case("image-quoted", |c| c.image = "redis:8.2"),
        attributes_of(
            "placement-attrs-unsorted",
            &[
                ("region", "us-west"),
                ("host", "akash"),
                ("capabilities/storage/2/class", "beta3"),
                ("tier", "community"),
            ],
        ),
        no_attributes("placement-no-attrs", "ghcr.io/example/redis-agent:8.2.1"),
        no_attributes("json-as-yaml", "redis:8.2"),
        signed("signed-by-any", &[], &[a]),
        signed("signed-by-all", &[a, b], &[]),
        signed("signed-by-both", &[a], &[b]),
        price("price-1", DEC_ONE),
        price("price-100.5", DEC_ONE * 1005 / 10),
        price("price-10000000", 10_000_000 * DEC_ONE),
        price("price-1.000000000000000001", DEC_ONE + 1),
        case("placement-name-long", |c| c.group = "eu-central-2a-akash"),
    ]
}

#[test]
fn manifests_and_hashes_are_those_of_the_akash_tools() {
    let vectors = vectors();
    for Case { name, spec, group, image, env, .. } in cases() {
        let vector = vectors.get(name).unwrap_or_else(|| panic!("no vector {name}"));
        let manifest = sdl::manifest(&spec, group, image, &env);
        assert_eq!(manifest, text(vector, "manifest"), "{name}");
        assert_eq!(hex::encode(sdl::hash(&manifest)), text(vector, "hash"), "{name}");
    }
}

#[test]
fn groups_are_those_of_the_akash_tools_to_the_byte() {
    let vectors = vectors();
    for Case { name, spec, group, price, .. } in cases() {
        let bytes = wire(&sdl::group(&spec, group, price)).encode_to_vec();
        assert_eq!(json!([hex::encode(bytes)]), vectors[name]["groups_hex"], "{name}");
    }
}

#[test]
fn the_text_says_the_same_as_the_deployment_it_was_recorded_from() {
    let vectors = vectors();
    for Case { name, spec, group, image, env, price } in cases() {
        let ours = sdl::text(&spec, group, price, image, &env);
        assert_eq!(meaning(&ours), meaning(text(&vectors[name], "sdl")), "{name}\n{ours}");
    }
}

#[test]
fn a_price_beyond_the_chains_limit_is_lowered_to_it() {
    let Case { spec, .. } = case("basic-v2.0", |_| {});
    assert_eq!(
        sdl::group(&spec, "g", PricePerBlock(u128::MAX)).price,
        PricePerBlock(10_000_000 * DEC_ONE)
    );
}

/// Deployments that the Akash tools refuse and a manifest can ask for: refused here too, before
/// anything is sent.
#[test]
fn what_the_akash_tools_refuse_is_refused_before() {
    let vectors = vectors();
    let cases = [
        ("bad-cpu-9m", "resources: { cpu: 9m }", "spec.resources.cpu"),
        ("bad-cpu-negative", "resources: { cpu: -1 }", "spec.resources.cpu"),
        ("bad-cpu-0.5m", "resources: { cpu: 0.5m }", "spec.resources.cpu"),
        ("bad-memory-1023Ki", "resources: { memory: 1023Ki }", "spec.resources.memory"),
        ("bad-memory-3Ti", "resources: { memory: 3Ti }", "spec.resources.memory"),
        ("bad-memory-suffix-gb", "resources: { memory: 1GB }", "spec.resources.memory"),
        ("bad-storage-33Ti", "resources: { ephemeral: 33Ti }", "spec.resources.ephemeral"),
        ("bad-storage-1E", "resources: { ephemeral: 1E }", "spec.resources.ephemeral"),
        (
            "bad-class-unknown",
            "resources: { data: { size: 10Gi, class: beta9 } }",
            "spec.resources.data.class",
        ),
        (
            "bad-ram-persistent",
            "resources: { data: { size: 10Gi, class: ram } }",
            "spec.resources.data.class",
        ),
        (
            "bad-storage-attr",
            "resources: { data: { size: 10Gi, foo: x } }",
            "spec.resources.data.foo",
        ),
        ("bad-price-zero", "placement: { maxPrice: 0act }", "spec.placement.maxPrice"),
        ("bad-price-negative", "placement: { maxPrice: -1act }", "spec.placement.maxPrice"),
        ("bad-denom-empty", "placement: { maxPrice: 1 }", "spec.placement.maxPrice"),
    ];
    for (name, lines, path) in cases {
        assert_eq!(vectors[name]["ok"], false, "{name}");
        let manifest = format!(
            "apiVersion: akash-redis.dev/v1alpha1\nkind: RedisCluster\nmetadata: {{ name: x }}\nspec:\n  nodes: 1\n  {lines}\n"
        );
        let problems = validate::parse(&manifest).expect_err(name);
        assert!(problems.iter().any(|problem| problem.path == path), "{name}: {problems:?}");
    }
}

#[test]
fn the_examples_are_good_manifests() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests");
    let mut seen = 0;
    for entry in std::fs::read_dir(dir).expect("there are examples") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|end| end == "yaml") {
            let text = std::fs::read_to_string(&path).expect("readable");
            if text.contains("kind: RedisCluster") {
                seen += 1;
                assert_eq!(validate::parse(&text).err(), None, "{}", path.display());
            }
        }
    }
    assert!(seen >= 4, "{seen}");
}

/// Paths of the keys in a deployment of Akash's tools; names that its author chose are `*`.
fn keys(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    let named = ["services", "profiles.compute", "profiles.placement", "deployment"];
    let named_below = ["profiles.placement.*.pricing", "deployment.*"];
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let free = named.contains(&path) || named_below.contains(&path);
                let key = if free { "*" } else { key };
                let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
                found.insert(path.clone());
                keys(value, &path, found);
            }
        }
        Value::Array(all) => all.iter().for_each(|value| keys(value, &format!("{path}[]"), found)),
        _ => {}
    }
}

#[test]
fn the_application_beside_a_proxy_is_a_deployment_that_akashs_tools_take() {
    let read = |text: &str| serde_saphyr::from_str::<Value>(text).expect("YAML");
    let mut taken = BTreeSet::new();
    for vector in vectors().values().filter(|vector| vector["ok"] == true) {
        keys(&read(text(vector, "sdl")), "", &mut taken);
    }
    let sdl = read(include_str!("../../manifests/app-with-proxy.yaml"));
    let mut own = BTreeSet::new();
    keys(&sdl, "", &mut own);
    let strange: Vec<_> = own.difference(&taken).collect();
    assert!(strange.is_empty(), "no recorded deployment has {strange:?}");

    let service = &sdl["services"]["app"];
    assert!(service["image"].as_str().unwrap().contains("@sha256:"), "by digest");
    let profile = sdl["deployment"]["app"]["akash"]["profile"].as_str().unwrap();
    assert!(sdl["profiles"]["compute"][profile].is_object());
    assert_eq!(sdl["profiles"]["placement"]["akash"]["pricing"][profile]["denom"], UACT);
    // Its command ends where the application begins, and its variables are those of the script.
    let script = include_str!("../../image/with-redis-proxy.sh");
    let command = service["command"].as_array().unwrap();
    assert_eq!((&command[3], command.last().unwrap()), (&json!("with-redis-proxy"), &json!("--")));
    for variable in service["env"].as_array().unwrap() {
        let name = variable.as_str().unwrap().split('=').next().unwrap();
        assert!(
            script.contains(name) || name == "REDIS_URL",
            "{name} is no variable of the script"
        );
    }
}

/// The reading of such a deployment with which a live test leases it.
#[test]
fn the_deployment_that_the_live_test_leases_is_read_as_the_akash_tools_read_it() {
    let mut read = Vec::new();
    for (name, vector) in vectors().iter().filter(|(_, vector)| vector["ok"] == true) {
        let Ok(deployment) = akash_sdl::read(text(vector, "sdl")) else { continue };
        let manifest = deployment.manifest.canonical_text();
        assert_eq!(manifest, text(vector, "manifest"), "{name}");
        let group = hex::encode(wire(&deployment.group).encode_to_vec());
        assert_eq!(json!([group]), vector["groups_hex"], "{name}");
        read.push(name.clone());
    }
    println!("{} recorded deployments are read: {read:?}", read.len());
    // Each part that it has is in one of these.
    for needed in ["basic-v2.0", "args-command-flow", "env-plain", "placement-no-attrs"] {
        assert!(read.iter().any(|name| name == needed), "{needed} is not read");
    }

    let own = akash_sdl::read(include_str!("../../manifests/app-with-proxy.yaml")).unwrap();
    let service = &own.manifest.0[0].services.as_ref().unwrap()[0];
    let command: Vec<_> = service.command.iter().chain(&service.args).flatten().collect();
    assert_eq!(command.last().unwrap().as_str(), "/app/main.py");
    assert_eq!(own.group.resources.endpoints, [Endpoint::SharedHttp]);
}

/// What the quick start's first node is on the market. A change here is a change of every
/// deployment: each node's manifest is sent anew.
#[test]
fn the_quick_start_has_not_changed() {
    let quickstart = include_str!("../../manifests/quickstart.yaml");
    let spec = &validate::parse(quickstart).expect("good")[0].spec;
    let env = [("AKASH_REDIS_NODE".to_owned(), "{\"a\":\"<b>\"}".to_owned())];
    let (group, image) = ("ar-abc234-cache-0-x7k2", "registry.example/node@sha256:00");
    let manifest = sdl::manifest(spec, group, image, &env);
    golden("quickstart-hash.txt", &format!("{}\n", hex::encode(sdl::hash(&manifest))));
    golden("quickstart-manifest.json", &format!("{manifest}\n"));
    golden(
        "quickstart-sdl.yaml",
        &sdl::text(spec, group, PricePerBlock(9 * DEC_ONE + DEC_ONE / 4), image, &env),
    );
}

/// Compares with a file in `tests/wire/golden`; `make reference` writes it anew.
fn golden(name: &str, text: &str) {
    let path = format!("{}/tests/wire/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, text).expect("writable");
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), text, "{name}");
}

/// The group as the chain's messages carry it.
fn wire(group: &GroupSpec) -> deployment::GroupSpec {
    let value = |n: u64| Some(resources::ResourceValue { val: n.to_string().into_bytes() });
    let pairs = |pairs: &[(String, String)]| -> Vec<attributes::Attribute> {
        pairs
            .iter()
            .map(|(key, value)| attributes::Attribute { key: key.clone(), value: value.clone() })
            .collect()
    };
    let ours = &group.resources;
    let resource = resources::Resources {
        id: ours.id,
        cpu: Some(resources::Cpu { units: value(ours.cpu_milli), attributes: Vec::new() }),
        memory: Some(resources::Memory {
            quantity: value(ours.memory_bytes),
            attributes: Vec::new(),
        }),
        storage: ours
            .storage
            .iter()
            .map(|one| resources::Storage {
                name: one.name.clone(),
                quantity: value(one.bytes),
                attributes: pairs(&one.attributes),
            })
            .collect(),
        gpu: Some(resources::Gpu { units: value(0), attributes: Vec::new() }),
        endpoints: ours
            .endpoints
            .iter()
            .map(|one| resources::Endpoint {
                kind: i32::from(*one == Endpoint::RandomPort),
                sequence_number: 0,
            })
            .collect(),
    };
    deployment::GroupSpec {
        name: group.name.clone(),
        requirements: Some(attributes::PlacementRequirements {
            signed_by: Some(attributes::SignedBy {
                all_of: group.signed_by_all_of.clone(),
                any_of: group.signed_by_any_of.clone(),
            }),
            attributes: pairs(&group.attributes),
        }),
        resources: vec![deployment::ResourceUnit {
            resource: Some(resource),
            count: 1,
            price: Some(DecCoin { denom: UACT.into(), amount: group.price.0.to_string() }),
        }],
    }
}

/// What an SDL says, with the spellings made one that mean the same.
fn meaning(sdl: &str) -> Value {
    let mut value: Value = serde_saphyr::from_str(sdl).unwrap_or_else(|e| panic!("{e}\n{sdl}"));
    value.as_object_mut().expect("a map").remove("version");
    for service in objects(&mut value["services"]) {
        for expose in service["expose"].as_array_mut().expect("a list") {
            let expose = expose.as_object_mut().expect("a map");
            expose.entry("proto").or_insert(json!("tcp"));
        }
        for mount in objects(&mut service["params"]["storage"]) {
            let mount = mount.as_object_mut().expect("a map");
            mount.entry("readOnly").or_insert(json!(false));
        }
    }
    for profile in objects(&mut value["profiles"]["compute"]) {
        let resources = &mut profile["resources"];
        resources["cpu"]["units"] = json!(units(&resources["cpu"]["units"]));
        resources["memory"]["size"] = json!(size(&resources["memory"]["size"]));
        let volumes = resources["storage"].take();
        let mut volumes = if volumes.is_array() {
            volumes.as_array().cloned().unwrap_or_default()
        } else {
            vec![volumes]
        };
        for volume in &mut volumes {
            volume["size"] = json!(size(&volume["size"]));
            if volume["attributes"].is_object() {
                volume["attributes"]["persistent"] = json!("true");
                let attributes = volume["attributes"].as_object_mut().expect("a map");
                attributes.entry("class").or_insert(json!("default"));
            }
        }
        volumes.sort_by_key(|volume| (volume["size"].as_u64(), volume["name"].is_string()));
        resources["storage"] = json!(volumes);
    }
    for placement in objects(&mut value["profiles"]["placement"]) {
        for price in objects(&mut placement["pricing"]) {
            price["amount"] = json!(price["amount"].as_f64());
        }
    }
    value
}

fn objects(value: &mut Value) -> impl Iterator<Item = &mut Value> {
    value.as_object_mut().into_iter().flat_map(|map| map.iter_mut().map(|(_, inner)| inner))
}

fn spelled(value: &Value) -> String {
    value.as_str().map_or_else(|| value.as_f64().expect("a number").to_string(), str::to_owned)
}

fn units(value: &Value) -> u64 {
    spelled(value).parse::<Cpu>().expect("a CPU quantity").0
}

fn size(value: &Value) -> u64 {
    match spelled(value).as_str() {
        "0.001Pi" => 1_125_899_906_842,
        text => text.parse::<Bytes>().expect("a size").0,
    }
}
