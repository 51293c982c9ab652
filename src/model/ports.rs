//! Ports of a node. On the mesh userspace tailscaled hands each of them on to loopback.

/// Redis, on the mesh and on loopback.
pub const REDIS_PORT: u16 = 6379;
/// Where an agent carries who comes in by a service of the tailnet to the present master, on loopback.
pub const FORWARD_PORT: u16 = 16379;
/// Where agents answer as Sentinel, on the mesh and on loopback.
pub const SENTINEL_PORT: u16 = 26379;
/// The agent service, on the mesh.
pub const AGENT_PORT: u16 = 9700;
/// The status page, the one port that is public.
pub const STATUS_PORT: u16 = 8080;
/// The SOCKS5 proxy of tailscaled, on loopback and so on the mesh too, unless the policy forbids
/// it.
pub const SOCKS5_PORT: u16 = 1055;
