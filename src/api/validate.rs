//! What is wrong with a manifest: all problems of form at once, then all of sense, each with its
//! field and one sentence.
//!
//! [`parse`] is the only way from text to a [`RedisCluster`]; [`validate`] also holds for objects
//! that came another way. What passes here has an effect that can be seen; what would have none is
//! refused with the reason.

mod acl;
mod backup;
mod foreign;
mod import;
mod lines;
mod redis;
mod shape;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use lines::line;

use super::defaults;
use super::quantity::Bytes;
use super::types::{
    API_VERSION, Failover, KIND, Rebalance, RedisCluster, Resources, Runway, Spec, WhenMinority,
};
use crate::model::image::{name_problem, version};
use crate::model::money::Uact;

/// A manifest is a page of text; what is longer than this is something else.
const TEXT_LIMIT: usize = 1 << 20;

/// One thing that is wrong with a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The field, e.g. `spec.redis.config.bind`; empty when it is the text as a whole.
    pub path: String,
    /// What is wrong and what to do, one sentence.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

/// Collects problems.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { path: path.into(), message: message.into() });
    }

    fn add_if(&mut self, wrong: bool, path: &str, message: impl FnOnce() -> String) {
        if wrong {
            self.add(path, message());
        }
    }
}

/// Reads manifests: YAML with one or more documents; JSON is YAML too. All clusters are good, or
/// all problems are told.
pub fn parse(text: &str) -> Result<Vec<RedisCluster>, Vec<Problem>> {
    let whole = |message: String| vec![Problem { path: String::new(), message }];
    if text.len() > TEXT_LIMIT {
        return Err(whole(format!(
            "the manifest is {} bytes long and at most {TEXT_LIMIT} are read",
            text.len()
        )));
    }
    let documents = serde_saphyr::from_multiple_with_options(text, options());
    let is_map = |all: &Vec<Value>| all.iter().any(Value::is_object);
    if !documents.as_ref().is_ok_and(is_map)
        && let Some(what) = foreign::redis_file(text)
    {
        return Err(whole(what));
    }
    let documents: Vec<Value> = documents.map_err(|e| whole(unreadable(&e)))?;
    if let Some(what) = documents.iter().find_map(foreign::sdl) {
        return Err(whole(what));
    }
    if documents.is_empty() {
        return Err(whole(format!("the manifest is empty; write a {KIND}")));
    }
    let many = documents.len() > 1;
    let place = |index: usize, problem: Problem| {
        if many {
            Problem { path: format!("document {}: {}", index + 1, problem.path), ..problem }
        } else {
            problem
        }
    };
    let wrong: Vec<Problem> = documents
        .iter()
        .enumerate()
        .flat_map(|(i, document)| shape::check(document).into_iter().map(move |p| place(i, p)))
        .collect();
    if !wrong.is_empty() {
        return Err(wrong);
    }
    // Read again into the types: only so does `timeout: 300` stay the text `300` for Redis.
    let clusters: Vec<RedisCluster> = serde_saphyr::from_multiple_with_options(text, options())
        .map_err(|e| whole(unreadable(&e)))?;
    let mut wrong: Vec<Problem> = clusters
        .iter()
        .enumerate()
        .flat_map(|(i, cluster)| validate(cluster).into_iter().map(move |p| place(i, p)))
        .collect();
    for (i, cluster) in clusters.iter().enumerate() {
        let name = &cluster.metadata.name;
        if clusters.iter().take(i).any(|earlier| earlier.metadata.name == *name) {
            wrong.push(place(
                i,
                Problem {
                    path: "metadata.name".into(),
                    message: format!("`{name}` is given twice in this manifest"),
                },
            ));
        }
    }
    if wrong.is_empty() { Ok(clusters) } else { Err(wrong) }
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        // `yes` and `no` are words of redis.conf and must stay text; booleans of the manifest are
        // `true` and `false`.
        strict_booleans: true,
        with_snippet: false,
    }
}

fn unreadable(error: &serde_saphyr::Error) -> String {
    let text = error.to_string().replace(", set DuplicateKeyPolicy in Options if acceptable", "");
    format!(
        "the manifest cannot be read as YAML: {}",
        text.lines().next().unwrap_or("no reason given")
    )
}

/// What is wrong with a cluster; nothing when it can be run.
#[must_use]
pub fn validate(cluster: &RedisCluster) -> Vec<Problem> {
    let mut problems = Problems::default();
    identity(cluster, &mut problems);
    let spec = &cluster.spec;
    problems.add_if(!(1..=9).contains(&spec.nodes), "spec.nodes", || {
        format!("{} nodes cannot be run; write 1 to 9", spec.nodes)
    });
    redis::check(&spec.redis, &mut problems);
    image(spec, &mut problems);
    resources(spec, &mut problems);
    memory(spec, &mut problems);
    placement(spec, &mut problems);
    budget(spec, &mut problems);
    mesh(spec, &mut problems);
    failover(&spec.failover, &mut problems);
    durability(spec, &mut problems);
    backup::check(cluster, &mut problems);
    import::check(cluster, &mut problems);
    problems.0
}

fn identity(cluster: &RedisCluster, problems: &mut Problems) {
    problems.add_if(cluster.api_version != API_VERSION, "apiVersion", || {
        format!("`{}` is not known; write {API_VERSION}", cluster.api_version)
    });
    problems.add_if(cluster.kind != KIND, "kind", || {
        format!("`{}` is not known; write {KIND}", cluster.kind)
    });
    problems.add_if(!is_name(&cluster.metadata.name), "metadata.name", || {
        format!(
            "`{}` cannot be a name on the mesh; write 1 to 20 of a-z, 0-9 and -, beginning with a letter and not ending with -",
            cluster.metadata.name
        )
    });
}

fn is_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=20).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(inner)
        && !name.ends_with('-')
}

/// What is in an image is known before anything is bought.
fn image(spec: &Spec, problems: &mut Problems) {
    let Some(image) = &spec.image else { return };
    if let Some(sentence) = name_problem(&image.name) {
        problems.add("spec.image.name", sentence);
    }
    if let Err(sentence) = version(&image.redis) {
        problems.add("spec.image.redis", sentence);
    }
}

/// The limits of the chain for one unit.
fn resources(spec: &Spec, problems: &mut Problems) {
    use crate::model::memory::MIB;
    const TIB: u64 = 1 << 40;
    let Resources { cpu, memory, ephemeral, data } = &spec.resources;
    problems.add_if(!(10..=384_000).contains(&cpu.0), "spec.resources.cpu", || {
        format!("{cpu} is not sold; Akash sells 10m to 384")
    });
    let mut size = |path: &str, size: Bytes, least: u64, most: u64| {
        problems.add_if(!(least..=most).contains(&size.0), path, || {
            format!("{size} is not sold; Akash sells {} to {}", Bytes(least), Bytes(most))
        });
    };
    size("spec.resources.memory", *memory, MIB, 2 * TIB);
    if let Some(ephemeral) = ephemeral {
        size("spec.resources.ephemeral", *ephemeral, 5 * MIB, 32 * TIB);
    }
    if let Some(data) = data {
        size("spec.resources.data.size", data.size, 5 * MIB, 32 * TIB);
    }
}

/// Memory and disk must fit what Redis is going to do with them.
fn memory(spec: &Spec, problems: &mut Problems) {
    const LEAST: u64 = 64 << 20;
    let configured = spec.redis.config.get(defaults::MAXMEMORY);
    if configured.is_some_and(|text| defaults::redis_memory(text).is_none_or(|size| size == 0)) {
        return; // the redis room says so
    }
    let maxmemory = defaults::maxmemory(spec);
    if maxmemory < LEAST {
        let path = if configured.is_some() {
            "spec.redis.config.maxmemory"
        } else {
            "spec.resources.memory"
        };
        let message = "leaves Redis less than 64Mi after 200Mi for the mesh and room for snapshots; give a node at least 292Mi of memory";
        problems.add(path, message);
        return;
    }
    let share = defaults::redis_share(spec);
    problems.add_if(maxmemory > share, "spec.redis.config.maxmemory", || {
        format!(
            "is more than the {} that a node of {} memory has for Redis; 200Mi are for the mesh",
            mebibytes(share),
            spec.resources.memory
        )
    });
    redis::replication(spec, problems);
    let least = defaults::least_ephemeral(spec);
    problems.add_if(defaults::ephemeral(spec) < least, "spec.resources.ephemeral", || {
        let lacks = if spec.resources.data.is_some() {
            "does not hold the image's own files and logs"
        } else {
            "does not hold two snapshots of a full Redis"
        };
        format!("{lacks}; write at least {} or leave it out", mebibytes(least))
    });
    let append_only =
        spec.redis.config.get(defaults::APPENDONLY).is_some_and(|value| value == "yes");
    match &spec.resources.data {
        Some(data) => problems.add_if(data.size.0 < defaults::least_volume(spec), "spec.resources.data.size", || {
            let (times, most) = (defaults::volume_factor(spec), data.size.0 / defaults::volume_factor(spec));
            format!(
                "does not hold {times} times a full Redis of {} (its data, the log of writes until it is written anew, the new one, a snapshot); write at least {}, or `redis.config.maxmemory: {}mb`",
                mebibytes(maxmemory), mebibytes(defaults::least_volume(spec)), most >> 20
            )
        }),
        None => problems.add_if(append_only, "spec.redis.config.appendonly", || {
            "without `spec.resources.data` nothing survives a restart of the container, so a log of writes is of no use".into()
        }),
    }
}

/// Rounded up, so that writing what is shown is enough.
fn mebibytes(bytes: u64) -> Bytes {
    Bytes(bytes.div_ceil(1 << 20).saturating_mul(1 << 20))
}

fn placement(spec: &Spec, problems: &mut Problems) {
    let placement = &spec.placement;
    for (key, value) in &placement.attributes {
        let path = format!("spec.placement.attributes.{key}");
        problems.add_if(!is_attribute_key(key), &path, || {
            "is not a key that the chain takes; write a letter and 2 to 128 letters, digits or _ / . - after it".into()
        });
        problems.add_if(value.is_empty() || value.chars().any(char::is_control), &path, || {
            "must be one line of text".into()
        });
    }
    let lists = [
        ("spec.placement.signedBy.allOf", &placement.signed_by.all_of),
        ("spec.placement.signedBy.anyOf", &placement.signed_by.any_of),
        ("spec.placement.providers.allow", &placement.providers.allow),
        ("spec.placement.providers.deny", &placement.providers.deny),
    ];
    for (path, addresses) in lists {
        for (i, address) in addresses.iter().enumerate() {
            problems.add_if(!is_address(address), &format!("{path}[{i}]"), || {
                format!("`{address}` is not an address like akash1...")
            });
            problems.add_if(addresses[..i].contains(address), &format!("{path}[{i}]"), || {
                format!("`{address}` is given twice")
            });
        }
    }
    if let Some(rebalance) = &placement.rebalance {
        let Rebalance { when_cheaper_by, at_most_every, window } = rebalance;
        let both = window.zip(spec.maintenance.map(|m| m.window));
        problems.add_if(
            both.is_some_and(|(a, b)| !a.meets(b)),
            "spec.placement.rebalance.window",
            || "is never open together with spec.maintenance.window; let them overlap".into(),
        );
        let path = "spec.placement.rebalance.whenCheaperBy";
        problems.add_if(!(5..=90).contains(&when_cheaper_by.0), path, || {
            format!("{when_cheaper_by} would move nodes for nothing, or never; write 5% to 90%")
        });
        let path = "spec.placement.rebalance.atMostEvery";
        problems.add_if(at_most_every.0 < Duration::from_hours(1), path, || {
            format!("{at_most_every} is shorter than a move may take; write 1h or more")
        });
    }
    let (allow, deny) = (&placement.providers.allow, &placement.providers.deny);
    problems.add_if(!allow.is_empty() && allow.len() < spec.nodes as usize, "spec.placement.providers.allow", || {
        format!("names fewer providers ({}) than there are nodes ({}), and two nodes never share one", allow.len(), spec.nodes)
    });
    if let Some(both) = allow.iter().find(|address| deny.contains(address)) {
        problems.add(
            "spec.placement.providers.deny",
            format!("`{both}` is in allow too; keep one of them"),
        );
    }
}

/// `^([a-zA-Z][\w\/\.\-]{1,126}[\w\*]?)$`, as the chain has it.
fn is_attribute_key(key: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let Some(rest) = key.strip_prefix(|c: char| c.is_ascii_alphabetic()) else { return false };
    let body = rest.strip_suffix('*').unwrap_or(rest);
    let longest = if body.len() < rest.len() || rest.ends_with(word) { 127 } else { 126 };
    !body.is_empty()
        && rest.len() <= longest
        && body.chars().all(|c| word(c) || matches!(c, '/' | '.' | '-'))
}

fn is_address(text: &str) -> bool {
    text.parse::<cosmrs::AccountId>().is_ok_and(|id| id.prefix() == "akash")
}

fn budget(spec: &Spec, problems: &mut Problems) {
    /// The chain's smallest deposit of a deployment.
    const LEAST_DEPOSIT: Uact = Uact(500_000);
    let budget = &spec.budget;
    if let Some(deposit) = budget.deposit.filter(|deposit| deposit.0 < LEAST_DEPOSIT) {
        problems.add(
            "spec.budget.deposit",
            format!("{deposit} is less than the chain takes; write at least {LEAST_DEPOSIT}"),
        );
    }
    if let Some(problem) = budget.runway.and_then(Runway::problem) {
        problems.add("spec.budget.runway", problem);
    }
    let none = Some(Uact(0));
    problems.add_if(
        budget.max_per_month.map(|money| money.0) == none,
        "spec.budget.maxPerMonth",
        || "buys nothing; write more than 0act".into(),
    );
    problems.add_if(
        spec.placement.max_price.map(|money| money.0) == none,
        "spec.placement.maxPrice",
        || "buys nothing; write more than 0act".into(),
    );
}

fn mesh(spec: &Spec, problems: &mut Problems) {
    let Some(tag) = &spec.mesh.tag else { return };
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let good = tag.strip_prefix("tag:").is_some_and(|name| {
        name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(inner)
            && name.len() <= 50
    });
    problems.add_if(!good, "spec.mesh.tag", || {
        format!("`{tag}` is not a tag of the mesh; write it like tag:redis, in a-z, 0-9 and -")
    });
}

/// What `durability: confirmed` asks of the rest, and what belongs to it alone.
fn durability(spec: &Spec, problems: &mut Problems) {
    let (nodes, wanted) = (spec.nodes, spec.write_replicas());
    if !spec.is_confirmed() {
        problems.add_if(spec.confirmations.is_some(), "spec.confirmations", || {
            "counts under `durability: confirmed` only; set that too, or leave it out".into()
        });
        problems.add_if(spec.allow_write_stops, "spec.allowWriteStops", || {
            "counts under `durability: confirmed` only; set that too, or leave it out".into()
        });
        return;
    }
    problems.add_if(
        spec.failover.when_minority == WhenMinority::Promote,
        "spec.failover.whenMinority",
        || "`promote` may lose what was confirmed, and `durability: confirmed` promises that nothing of that is lost; write block".into(),
    );
    if nodes < 2 {
        return problems.add(
            "spec.durability",
            "`confirmed` needs replicas, and there is one node only; write at least 3 nodes, or async",
        );
    }
    problems.add_if(
        spec.resources.data.is_some() && !defaults::append_only(spec),
        "spec.redis.config.appendonly",
        || "a replica that starts from a snapshot takes up its old place without what it confirmed since; write yes with `durability: confirmed`, or leave it out".into(),
    );
    let path = if spec.confirmations.is_some() { "spec.confirmations" } else { "spec.durability" };
    problems.add_if(spec.confirmations == Some(0), path, || {
        "0 replicas confirm nothing; write at least 1, or `durability: async`".into()
    });
    problems.add_if(wanted >= nodes, path, || {
        format!(
            "{wanted} replicas shall confirm, and {nodes} nodes have {} of them; write at most {}",
            nodes - 1,
            nodes.saturating_sub(2).max(1)
        )
    });
    problems.add_if(wanted + 1 == nodes && !spec.allow_write_stops, path, || {
        format!("with {nodes} nodes and {wanted} replicas that must confirm, writes stop whenever one replica is away; take one node more, or say `allowWriteStops: true`")
    });
}

fn failover(failover: &Failover, problems: &mut Problems) {
    let Failover { down_after, stuck_after, max_lag, .. } = *failover;
    let path = "spec.failover.downAfter";
    let sensible = Duration::from_secs(5)..=Duration::from_mins(10);
    problems.add_if(!sensible.contains(&down_after.0), path, || {
        format!("{down_after} is too short to tell death from delay, or too long to help; write 5s to 10m")
    });
    // Redis counts lag in whole seconds, and its limit is this less 2 s.
    problems.add_if(down_after.0.subsec_nanos() > 0, path, || {
        format!("{down_after} is not a whole number of seconds")
    });
    let path = "spec.failover.stuckAfter";
    problems.add_if(!sensible.contains(&stuck_after.0), path, || {
        format!(
            "{stuck_after} leaves a long command no time, or applications none; write 5s to 10m"
        )
    });
    problems.add_if(stuck_after.0.subsec_nanos() > 0, path, || {
        format!("{stuck_after} is not a whole number of seconds")
    });
    problems.add_if(max_lag.0 < 64 << 10, "spec.failover.maxLag", || {
        format!("{max_lag} is less than what is under way at any moment; write at least 64Ki")
    });
}

#[cfg(test)]
#[path = "validate/tests.rs"]
mod tests;

#[cfg(test)]
#[path = "validate/files_tests.rs"]
mod files_tests;
