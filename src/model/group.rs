//! The resources of one deployment's group, as the chain prices and places them.

use super::money::PricePerBlock;

/// A group with one service of count 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSpec {
    /// Unique within the deployment; carries our installation id.
    pub name: String,
    /// Provider attributes that must be present, sorted by key.
    pub attributes: Vec<(String, String)>,
    /// Auditors all of whom must have signed the attributes.
    pub signed_by_all_of: Vec<String>,
    /// Auditors one of whom must have signed the attributes.
    pub signed_by_any_of: Vec<String>,
    /// What the one service needs.
    pub resources: Resources,
    /// The most that a bid may ask, per block.
    pub price: PricePerBlock,
}

/// Resources of one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Resource id within the group, from 1.
    pub id: u32,
    /// Thousandths of a CPU.
    pub cpu_milli: u64,
    /// Memory of the container, bytes.
    pub memory_bytes: u64,
    /// Volumes in the chain's order: ascending size.
    pub storage: Vec<Storage>,
    /// Endpoint kinds in the manifest's order.
    pub endpoints: Vec<Endpoint>,
}

/// A volume, or the ephemeral storage of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// `default` for the ephemeral root, else the volume's name.
    pub name: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// `class` and `persistent`, sorted; empty for ephemeral storage.
    pub attributes: Vec<(String, String)>,
}

/// An endpoint the provider must offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// HTTP through the provider's ingress.
    SharedHttp,
    /// A random public port.
    RandomPort,
}
