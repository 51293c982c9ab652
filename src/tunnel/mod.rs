//! Connections to Redis of a node, many of them in few connections of the mesh.
//!
//! tailscaled holds some 80 KiB for each connection, at either end, and takes a millisecond of
//! processor or more to make one. An application with thousands of them would fill the memory of the
//! node, and find the next master a minute late (docs/decisions/0116). So the port where an agent
//! answers as Sentinel takes HTTP/2 as well: each stream is a `CONNECT` (RFC 9113 section 8.5) to the
//! node's own Redis, and to nothing else. Who may use it is who may reach that port; Redis asks for a
//! password as always.

mod enter;
mod exit;
#[cfg(test)]
mod tests;

pub use enter::{Tunnel, TunnelError, Tunnels};
pub use exit::{Exit, PREFACE};

/// What a stream asks for: the only thing that there is.
const AUTHORITY: &str = "redis:6379";
/// Streams of one connection at most.
const STREAMS: u32 = 4096;
/// Bytes of one stream that may be under way to who does not take them, and of all of a connection.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 16 << 20;
