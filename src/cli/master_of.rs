//! Flags that say who is asked for the master, and how the mesh is reached: of `proxy` and `connect`.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::announce::PublicKey;
use crate::proxy::{Nodes, Seed, read_seeds};

/// Who is asked for the master.
#[derive(Debug, Default, clap::Args)]
pub struct MasterOf {
    /// Ask this node for the master, and those that it names, in place of the operator: an address or
    /// a mesh name, e.g. 100.64.0.3. Can be given several times, or with commas.
    #[arg(
        long = "node",
        value_name = "NODE",
        env = "AKASH_REDIS_NODES",
        value_delimiter = ',',
        requires = "public_key"
    )]
    pub nodes: Vec<Seed>,
    /// File with nodes, one a line.
    #[arg(long, value_name = "FILE", requires = "public_key")]
    pub nodes_file: Option<PathBuf>,
    /// Key of the installation, by which words of nodes are proved; `akash-redis public-key` on the
    /// operator's machine prints it. `@FILE`: what is in this file.
    #[arg(long, value_name = "KEY", env = "AKASH_REDIS_PUBLIC_KEY")]
    pub public_key: Option<String>,
    /// File that keeps the last word of the nodes, for a start while none of them answers.
    #[arg(long, value_name = "FILE", requires = "public_key")]
    pub state: Option<PathBuf>,
    /// SOCKS5 address of this machine's tailscaled, when it runs without a network device. Beside an
    /// operator it is found without.
    #[arg(long, value_name = "ADDRESS", env = "AKASH_REDIS_SOCKS5")]
    pub socks5: Option<SocketAddr>,
}

impl MasterOf {
    /// The nodes to ask; `None` where the operator is asked.
    pub fn nodes(&self) -> Result<Option<Nodes>, String> {
        let mut seeds = self.nodes.clone();
        if let Some(path) = &self.nodes_file {
            seeds.extend(read_seeds(path)?);
        }
        let Some(key) = self.public_key.as_ref().filter(|_| !seeds.is_empty()) else {
            return match &self.nodes_file {
                Some(path) => Err(format!(
                    "{} names no node, so nobody can be asked for the master; write the address of a node into it",
                    path.display()
                )),
                None if self.state.is_some() => {
                    Err("--state keeps what nodes say, and no node is named; add --node".to_owned())
                }
                None => Ok(None),
            };
        };
        let key = match key.strip_prefix('@') {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| format!("{path} cannot be read ({error})"))?,
            None => key.clone(),
        };
        let key: PublicKey = key.trim().parse().map_err(|error| format!("{error}"))?;
        Ok(Some(Nodes { seeds, key, state: self.state.clone() }))
    }
}
