//! What a manifest means where it says nothing: the sums that the market, the planner and the
//! node's settings share.

use std::collections::BTreeMap;

use super::types::Spec;
use crate::model::memory::{MIB, RESERVED_MEMORY, default_maxmemory};

/// Ephemeral disk that is not snapshots: the image's writable layer, logs, state.
pub const RESERVED_DISK: u64 = 512 * MIB;
/// The setting that says how much memory Redis may fill.
pub const MAXMEMORY: &str = "maxmemory";
/// The setting that says whether each write is logged.
pub const APPENDONLY: &str = "appendonly";

/// Bytes that Redis may fill: the setting `maxmemory`, or the default for the container's memory.
#[must_use]
pub fn maxmemory(spec: &Spec) -> u64 {
    let set = spec.redis.config.get(MAXMEMORY).and_then(|text| redis_memory(text));
    set.unwrap_or_else(|| default_maxmemory(spec.resources.memory.0))
}

/// Bytes of the container's memory that are Redis' at all.
#[must_use]
pub fn redis_share(spec: &Spec) -> u64 {
    spec.resources.memory.0.saturating_sub(RESERVED_MEMORY)
}

/// Bytes of ephemeral disk: what the manifest says, or room for two snapshots.
#[must_use]
pub fn ephemeral(spec: &Spec) -> u64 {
    spec.resources.ephemeral.map_or_else(|| with_snapshots(spec), |size| size.0)
}

/// The least ephemeral disk that will do, bytes. Where there is a data volume snapshots are there.
#[must_use]
pub fn least_ephemeral(spec: &Spec) -> u64 {
    if spec.resources.data.is_some() { RESERVED_DISK } else { with_snapshots(spec) }
}

/// Two snapshots of a full Redis (the one being written and the one before) and what is not
/// snapshots, in whole MiB.
fn with_snapshots(spec: &Spec) -> u64 {
    let bytes = maxmemory(spec).saturating_mul(2).saturating_add(RESERVED_DISK);
    bytes.div_ceil(MIB).saturating_mul(MIB)
}

/// Whether Redis logs each write (append-only file, fsync each second): where there is a data
/// volume, unless the manifest says no.
#[must_use]
pub fn append_only(spec: &Spec) -> bool {
    spec.resources.data.is_some()
        && spec.redis.config.get(APPENDONLY).is_none_or(|value| value != "no")
}

/// Settings of Redis by name: the manifest's, and what goes with an append-only file. That file is
/// what is loaded: a snapshot beside it doubles what is written, and one that fails must not stop
/// the writes that are in the file already.
#[must_use]
pub fn redis_config(spec: &Spec) -> BTreeMap<String, String> {
    let mut config = spec.redis.config.clone();
    if append_only(spec) {
        for (name, value) in [("save", ""), ("stop-writes-on-bgsave-error", "no")] {
            config.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    config
}

/// How many times a full Redis a data volume holds at least. With an append-only file: the file as
/// it was last written anew, as much again until that is due, the new one meanwhile, and the
/// snapshot of a full sync or one that is kept. Without: that snapshot, the last one, and the one
/// that is being written.
#[must_use]
pub fn volume_factor(spec: &Spec) -> u64 {
    if append_only(spec) { 4 } else { 3 }
}

/// The smallest data volume that will do, bytes.
#[must_use]
pub fn least_volume(spec: &Spec) -> u64 {
    maxmemory(spec).saturating_mul(volume_factor(spec))
}

/// Reads a size as redis.conf spells it: `100mb` is 100 x 1024 x 1024, `100m` is 100 x 1000 x 1000.
#[must_use]
pub fn redis_memory(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let factor = match unit {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => MIB,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::quantity::Bytes;
    use crate::api::types::Data;

    fn spec() -> Spec {
        serde_json::from_value(serde_json::json!({"nodes": 3})).expect("a spec")
    }

    #[test]
    fn redis_gets_seven_tenths_of_what_is_left() {
        let mut spec = spec();
        assert_eq!(maxmemory(&spec), (1024 - 200) * MIB * 7 / 10);
        spec.redis.config.insert(MAXMEMORY.into(), "100mb".into());
        assert_eq!(maxmemory(&spec), 100 * MIB);
        spec.resources.memory = Bytes(0);
        spec.redis.config.clear();
        assert_eq!(maxmemory(&spec), 0);
    }

    #[test]
    fn ephemeral_disk_holds_two_snapshots() {
        let spec = spec();
        assert!(ephemeral(&spec) >= 2 * maxmemory(&spec) + RESERVED_DISK);
        assert_eq!(ephemeral(&spec) % MIB, 0);
    }

    #[test]
    fn writes_are_logged_where_there_is_a_data_volume() {
        let mut spec = spec();
        assert!(!append_only(&spec));
        spec.resources.data =
            Some(Data { size: Bytes(1 << 32), class: crate::api::types::StorageClass::Beta3 });
        assert!(append_only(&spec));
        spec.redis.config.insert(APPENDONLY.into(), "no".into());
        assert!(!append_only(&spec));
    }

    #[test]
    fn a_snapshot_does_not_get_into_the_way_of_the_append_only_file() {
        let mut spec = spec();
        assert!(redis_config(&spec).is_empty(), "nothing is logged");
        spec.resources.data =
            Some(Data { size: Bytes(1 << 32), class: crate::api::types::StorageClass::Beta3 });
        let config = redis_config(&spec);
        assert_eq!(config["save"], "");
        assert_eq!(config["stop-writes-on-bgsave-error"], "no");
        assert_eq!(least_volume(&spec), 4 * maxmemory(&spec));
        spec.redis.config.insert("save".into(), "3600 1".into());
        assert_eq!(redis_config(&spec)["save"], "3600 1", "the manifest's own counts");
        spec.redis.config.insert(APPENDONLY.into(), "no".into());
        assert!(!redis_config(&spec).contains_key("stop-writes-on-bgsave-error"));
        assert_eq!(least_volume(&spec), 3 * maxmemory(&spec));
    }

    #[test]
    fn sizes_are_read_as_redis_reads_them() {
        assert_eq!(redis_memory("1gb"), Some(1 << 30));
        assert_eq!(redis_memory("1G"), Some(1_000_000_000));
        assert_eq!(redis_memory("512"), Some(512));
        for bad in ["", "mb", "1Gi", "1.5gb", "-1", "99999999999999999999gb"] {
            assert_eq!(redis_memory(bad), None, "{bad}");
        }
    }
}
