//! A service of the tailnet that is called as the cluster: this node offers to host it, and carries
//! who comes in by it to the present master, whichever node that is.
//!
//! Who is a host, and which of them a connection reaches, is for the control server to say; one that
//! knows no services gives it no address, and nobody comes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::announce::Word;
use crate::mesh::dial::{FIRST_DIAL, dial};
use crate::mesh::local::{LocalClient, LocalError};

/// Connections at a time.
const OPEN: usize = 1024;
/// A master that is none any more answers what it has within this.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// After a failed accept (no file descriptors left) some connections must end first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the tailnet calls the service of a cluster.
#[must_use]
pub fn name(cluster: &str) -> String {
    format!("svc:{cluster}")
}

/// Has tailscaled host the service, its `port` carried to `to`; not any more where that is absent.
/// Done twice it changes nothing.
///
/// # Errors
/// tailscaled does not answer, or refuses it.
pub async fn offer(
    local: &LocalClient,
    service: &str,
    port: u16,
    to: Option<SocketAddr>,
) -> Result<(), LocalError> {
    let (config, tag) = local.serve_config().await?;
    if let Some(wanted) = with_service(&config, service, port, to) {
        local.set_serve_config(&wanted, &tag).await?;
    }
    let advertised = local.advertised_services().await?;
    if advertised.iter().any(|one| one == service) != to.is_some() {
        let others = advertised.into_iter().filter(|one| one != service);
        let all: Vec<_> = others.chain(to.map(|_| service.to_owned())).collect();
        local.advertise_services(&all).await?;
    }
    Ok(())
}

/// The same configuration with the service as it shall be; `None` where it is so. What else is served
/// stays.
fn with_service(config: &Value, service: &str, port: u16, to: Option<SocketAddr>) -> Option<Value> {
    let wanted = to.map(|to| json!({"TCP": {port.to_string(): {"TCPForward": to.to_string()}}}));
    if config["Services"].get(service) == wanted.as_ref() {
        return None;
    }
    let mut config = config.as_object().cloned().unwrap_or_default();
    let services = config.entry("Services").or_insert_with(|| Map::new().into());
    if !services.is_object() {
        *services = Map::new().into();
    }
    if let Some(services) = services.as_object_mut() {
        match wanted {
            Some(wanted) => services.insert(service.to_owned(), wanted),
            None => services.remove(service),
        };
    }
    Some(config.into())
}

/// What to tell people of a service that the tailnet gave no address here.
#[must_use]
pub fn without_address(service: &str, port: u16) -> String {
    format!(
        "the tailnet gives {service} no address here, so nobody reaches this node by that name, and everything else works: is the service defined there with tcp:{port}, is this node approved as a host of it (`autoApprovers` of the policy), and does the control server know services at all (headscale does not)?"
    )
}

/// How the master is reached.
#[derive(Clone)]
pub struct Way {
    /// The newest word about it.
    pub word: watch::Receiver<Option<Arc<Word>>>,
    /// The incarnation of this node.
    pub own: String,
    /// Port of Redis on loopback.
    pub redis_port: u16,
    /// SOCKS5 proxy of tailscaled.
    pub socks: SocketAddr,
}

/// Carries connections to the present master until `stop`.
pub async fn forward(listener: TcpListener, way: Way, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(OPEN));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((client, _)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            reset(client);
            continue;
        };
        let way = way.clone();
        connections.spawn(async move {
            carry(client, way).await;
            drop(place);
        });
    }
}

async fn carry(mut client: TcpStream, mut way: Way) {
    let Some(master) = way.master() else { return reset(client) };
    let (ip, port, socks) = if master.incarnation == way.own {
        (IpAddr::V4(Ipv4Addr::LOCALHOST), way.redis_port, None)
    } else {
        let Ok(ip) = master.ip.parse() else { return reset(client) };
        (ip, master.port, Some(way.socks))
    };
    let Ok(mut server) = dial(socks, ip, port, FIRST_DIAL).await else { return reset(client) };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ended = tokio::select! {
        copied = copy_bidirectional(&mut client, &mut server) => copied.is_ok(),
        // A master that is gone closes nothing by itself.
        () = way.another(&master.incarnation) => false,
    };
    if !ended {
        reset(client);
    }
}

impl Way {
    fn master(&self) -> Option<crate::model::announcement::Place> {
        self.word.borrow().as_ref().map(|word| word.said.master.clone())
    }

    /// Returns some time after another node is master.
    async fn another(&mut self, than: &str) {
        let other = |word: &Option<Arc<Word>>| {
            word.as_ref().is_some_and(|word| word.said.master.incarnation != than)
        };
        if self.word.wait_for(other).await.is_err() {
            std::future::pending::<()>().await;
        }
        sleep(LAST_ANSWERS).await;
    }
}

/// Closes with RST: who comes learns at once that there is no master.
fn reset(stream: TcpStream) {
    let _ = stream.set_zero_linger();
    drop(stream);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_put_beside_what_else_is_served() {
        let to: SocketAddr = "127.0.0.1:16379".parse().unwrap();
        let own = json!({"TCP": {"6379": {"TCPForward": "127.0.0.1:16379"}}});
        let other = json!({"TCP": {"443": {"HTTPS": true}}});
        for (before, after) in [
            (Value::Null, json!({"Services": {"svc:cache": own}})),
            (json!({}), json!({"Services": {"svc:cache": own}})),
            (json!({"Services": null}), json!({"Services": {"svc:cache": own}})),
            (
                json!({"TCP": {"6379": {"TCPForward": "127.0.0.1:6379"}}, "Services": {"svc:web": other}}),
                json!({"TCP": {"6379": {"TCPForward": "127.0.0.1:6379"}}, "Services": {"svc:web": other, "svc:cache": own}}),
            ),
        ] {
            assert_eq!(with_service(&before, "svc:cache", 6379, Some(to)), Some(after.clone()));
            assert_eq!(with_service(&after, "svc:cache", 6379, Some(to)), None, "it is so");
            assert_eq!(with_service(&before, "svc:cache", 6379, None), None, "there is none");
            let taken = with_service(&after, "svc:cache", 6379, None).unwrap();
            assert_eq!(taken["Services"].get("svc:cache"), None);
            assert_eq!(taken["Services"]["svc:web"], before["Services"]["svc:web"]);
        }
    }
}
