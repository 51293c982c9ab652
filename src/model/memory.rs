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

/// Bytes that tailscaled may take in a container with this much memory: a sixteenth, 100 MiB at least
/// and 512 at most. Some 80 KiB of it go to each connection that somebody has over the mesh.
#[must_use]
pub fn tailscaled_memory(container_bytes: u64) -> u64 {
    (container_bytes / 16).clamp(100 * MIB, 512 * MIB)
}

/// Bytes of a container's memory that Redis may use beside its data: for what a snapshot changes
/// under way, and for what replicas have not taken yet.
#[must_use]
pub fn room_beside_data(container_bytes: u64, maxmemory: u64) -> u64 {
    container_bytes.saturating_sub(RESERVED_MEMORY).saturating_sub(maxmemory)
}

/// A replica's output buffer is never smaller, bytes: four seconds of 4 MB/s.
pub const LEAST_REPLICA_BUFFER: u64 = 16 * MIB;

/// Bytes that a replica may be behind before its master ends the connection: three quarters of the
/// room beside the data. It holds the writes of a full sync until the copy is loaded; what is above
/// `maxmemory` is not counted by Redis, but by the container.
#[must_use]
pub fn replica_buffer(container_bytes: u64, maxmemory: u64) -> u64 {
    (room_beside_data(container_bytes, maxmemory) / 4 * 3).max(LEAST_REPLICA_BUFFER)
}

/// Bytes of its stream that a master keeps for replicas that come back. Redis counts them to its
/// data.
#[must_use]
pub fn replication_backlog(maxmemory: u64) -> u64 {
    (maxmemory / 16).clamp(MIB, 64 * MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tailscaled_gets_more_of_a_larger_container() {
        let of = |mib| tailscaled_memory(mib * MIB) / MIB;
        assert_eq!([256, 1024, 4096, 65536].map(of), [100, 100, 256, 512]);
    }

    /// Container, what Redis may fill, backlog, output buffer of a replica: all in MiB.
    #[test]
    fn data_backlog_and_output_buffers_fit_the_container() {
        let rows = [
            (292, 64, 4, 20),
            (512, 218, 13, 70),
            (1024, 576, 36, 185),
            (4096, 2727, 64, 876),
            (16384, 11328, 64, 3641),
        ];
        for (container, maxmemory, backlog, buffer) in rows {
            let bytes = container * MIB;
            let max = default_maxmemory(bytes);
            let found = (replication_backlog(max), replica_buffer(bytes, max));
            assert_eq!(
                (max / MIB, found.0 / MIB, found.1 / MIB),
                (maxmemory, backlog, buffer),
                "{container}"
            );
            assert!(RESERVED_MEMORY + max + found.1 <= bytes, "{container}");
            assert!(found.0 <= found.1, "a replica that comes back does not exceed its buffer");
        }
        assert_eq!(replica_buffer(0, 0), LEAST_REPLICA_BUFFER);
        assert_eq!(replica_buffer(1024 * MIB, 100 * MIB), 543 * MIB);
    }
}
