//! One node of a `RedisCluster` as the market sees it: group, manifest, canonical hash, SDL text. Pure.
