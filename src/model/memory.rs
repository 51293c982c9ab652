//! How the memory of a container is shared out.

/// One MiB in bytes.
pub const MIB: u64 = 1 << 20;
/// Memory that is not Redis': tailscaled, the agent, buffers of connections.
pub const RESERVED_MEMORY: u64 = 200 * MIB;

/// Bytes that Redis may fill where nothing else is said, of a container with this much memory:
/// (memory - 200 MiB) x 0.7. The rest is room for what a snapshot and replication need besides.
#[must_use]
pub fn default_maxmemory(container_bytes: u64) -> u64 {
    // In u128, so that no size overflows on the way; the quotient is smaller than what came in.
    let free = u128::from(container_bytes.saturating_sub(RESERVED_MEMORY));
    u64::try_from(free * 7 / 10).unwrap_or(u64::MAX)
}
