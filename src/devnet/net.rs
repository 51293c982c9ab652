//! The network of the local market: one bridge inside this sandbox, one veth for each node, names
//! in the sandbox's hosts file.
//!
//! Everything here runs as root of a user namespace that owns its network and mounts, and vanishes
//! with it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::switch::Switch;
use super::tool::{self, ToolError};

const BRIDGE: &str = "br0";
/// Left to itself a bridge takes the lowest address of its ports, and another one when a node comes
/// or goes: for five seconds all nodes then send to one that nobody has.
const BRIDGE_HARDWARE: &str = "02:00:0a:61:00:01";
/// The bridge's way to nodes that are far apart.
const HUB: &str = "hub0";
const FIRST_NODE: u8 = 100;
const LAST_NODE: u8 = 250;

/// The sandbox could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// `ip` failed, or is not there.
    #[error(
        "{0}; the local market needs iproute2 and must run inside its own user and network namespaces"
    )]
    Tool(#[from] ToolError),
    /// Too many nodes.
    #[error("all {} addresses for nodes are taken; close some leases", LAST_NODE - FIRST_NODE + 1)]
    Full,
    /// The hosts file cannot be written.
    #[error("{path} cannot be written; it must be a private file of the sandbox")]
    Hosts {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No TAP device can be made.
    #[error(
        "/dev/net/tun cannot be used, so nodes cannot be apart; load the kernel module `tun` and let this user write to that file, or leave out --latency"
    )]
    Tap(#[source] std::io::Error),
}

/// The bridge and who is on it.
#[derive(Debug)]
pub struct Net {
    hosts_file: PathBuf,
    taken: Mutex<BTreeSet<u8>>,
    hosts: Mutex<()>,
    /// Between nodes that are far apart.
    switch: Option<Arc<Switch>>,
}

impl Net {
    /// Address of the sandbox itself, the nodes' gateway.
    pub const GATEWAY: Ipv4Addr = address(1);

    /// Brings up loopback and the bridge; done twice it changes nothing.
    pub async fn set_up_bridge() -> Result<(), NetError> {
        ip(&["link", "set", "lo", "up"]).await?;
        if ip(&["link", "show", BRIDGE]).await.is_err() {
            ip(&["link", "add", BRIDGE, "type", "bridge"]).await?;
        }
        ip(&["addr", "replace", &format!("{}/24", Self::GATEWAY), "dev", BRIDGE]).await?;
        ip(&["link", "set", BRIDGE, "address", BRIDGE_HARDWARE, "up"]).await
    }

    /// The network with its bridge. `hosts_file` is what this sandbox resolves names by.
    pub async fn set_up(hosts_file: PathBuf) -> Result<Arc<Self>, NetError> {
        Self::set_up_apart(hosts_file, None).await
    }

    /// The same, with its nodes at the switch and not at the bridge.
    pub async fn set_up_apart(
        hosts_file: PathBuf,
        switch: Option<Arc<Switch>>,
    ) -> Result<Arc<Self>, NetError> {
        Self::set_up_bridge().await?;
        if let Some(switch) = &switch {
            switch.plug_hub(HUB).map_err(NetError::Tap)?;
            ip(&["link", "set", HUB, "master", BRIDGE, "up"]).await?;
        }
        Ok(Arc::new(Self { hosts_file, taken: Mutex::default(), hosts: Mutex::default(), switch }))
    }

    /// The switch between nodes that are far apart.
    #[must_use]
    pub fn switch(&self) -> Option<&Arc<Switch>> {
        self.switch.as_ref()
    }

    /// Gives the sandbox one more address, `10.97.0.<last>`, for a provider's listeners. `last` is
    /// below 100.
    pub async fn add_address(&self, last: u8) -> Result<Ipv4Addr, NetError> {
        let own = address(last);
        ip(&["addr", "replace", &format!("{own}/24"), "dev", BRIDGE]).await?;
        Ok(own)
    }

    /// Makes an address of the world outside one of the sandbox itself.
    pub async fn add_local(&self, outer: Ipv4Addr) -> Result<(), NetError> {
        ip(&["addr", "replace", &format!("{outer}/32"), "dev", "lo"]).await
    }

    /// Reserves an address for a node.
    pub fn take(&self) -> Result<Ipv4Addr, NetError> {
        let mut taken = lock(&self.taken);
        let free =
            (FIRST_NODE..=LAST_NODE).find(|last| !taken.contains(last)).ok_or(NetError::Full)?;
        taken.insert(free);
        Ok(address(free))
    }

    /// Gives an address back.
    pub fn free(&self, node: Ipv4Addr) {
        lock(&self.taken).remove(&node.octets()[3]);
    }

    /// Puts `eth0` into the network namespace of a process and its other end on the bridge; the
    /// node configures its own end.
    pub async fn plug(&self, node: Ipv4Addr, pid: u32) -> Result<(), NetError> {
        let (port, last) = (port(node), node.octets()[3]);
        // One hardware address per IP address for ever: neighbours that remember a restarted node
        // are right.
        let hardware = format!("02:00:0a:61:00:{last:02x}");
        let pid = pid.to_string();
        if let Some(switch) = &self.switch {
            switch.plug(last, &port).map_err(NetError::Tap)?;
            ip(&["link", "set", &port, "address", &hardware]).await?;
            return ip(&["link", "set", &port, "netns", &pid, "name", "eth0"]).await;
        }
        ip(&[
            "link", "add", &port, "type", "veth", "peer", "name", "eth0", "address", &hardware,
            "netns", &pid,
        ])
        .await?;
        ip(&["link", "set", &port, "master", BRIDGE, "up"]).await
    }

    /// Takes a node's veth away; it may be gone already.
    pub async fn unplug(&self, node: Ipv4Addr) {
        match &self.switch {
            Some(switch) => switch.unplug(node.octets()[3]),
            None => drop(ip(&["link", "del", &port(node)]).await),
        }
    }

    /// Cuts a node off the network, or joins it again; its processes go on.
    pub async fn set_link(&self, node: Ipv4Addr, up: bool) -> Result<(), NetError> {
        if let Some(switch) = &self.switch {
            switch.set_link(node.octets()[3], up);
            return Ok(());
        }
        ip(&["link", "set", &port(node), if up { "up" } else { "down" }]).await
    }

    /// Makes a host name resolve in this sandbox.
    pub fn publish(&self, host: &str, at: Ipv4Addr) -> Result<(), NetError> {
        self.rewrite(host, Some(at))
    }

    /// Forgets a host name.
    pub fn withdraw(&self, host: &str) -> Result<(), NetError> {
        self.rewrite(host, None)
    }

    /// The file is a bind mount: it is written in place, never replaced.
    fn rewrite(&self, host: &str, at: Option<Ipv4Addr>) -> Result<(), NetError> {
        let _one_at_a_time = lock(&self.hosts);
        let failed = |source| NetError::Hosts { path: self.hosts_file.clone(), source };
        let old = std::fs::read_to_string(&self.hosts_file).map_err(failed)?;
        let others = old.lines().filter(|line| line.split_whitespace().nth(1) != Some(host));
        let mut new: String = others.flat_map(|line| [line, "\n"]).collect();
        if let Some(at) = at {
            new.push_str(&[&at.to_string(), " ", host, "\n"].concat());
        }
        std::fs::write(&self.hosts_file, new).map_err(failed)
    }
}

const fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 97, 0, last)
}

fn port(node: Ipv4Addr) -> String {
    format!("node{}", node.octets()[3])
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn ip(arguments: &[&str]) -> Result<(), NetError> {
    Ok(tool::run("ip", arguments).await?)
}
