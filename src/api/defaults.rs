//! Values that follow from others when the manifest does not give them.

use super::types::Spec;

/// Memory of the container that Redis cannot have: tailscaled, the agent, buffers.
const RESERVED_BYTES: u64 = 200 << 20;

/// maxmemory of Redis, bytes: what the manifest sets, else 0.7 of the memory that is left to it.
#[must_use]
pub fn maxmemory(spec: &Spec) -> u64 {
    spec.resources.memory.0.saturating_sub(RESERVED_BYTES) / 10 * 7
}

/// Whether Redis keeps an append-only file: with a data volume.
#[must_use]
pub fn append_only(spec: &Spec) -> bool {
    spec.resources.data.is_some()
}
