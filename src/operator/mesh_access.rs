//! How the operator reaches the mesh: a tailscaled of its own, the proxy of another one, or the
//! machine's network.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::run::RunError;
use crate::config::Config;
use crate::mesh::MeshControl;
use crate::mesh::access::{
    self, AccessError, AccessSettings, AccessStatus, OperatorTailscaled, watch_proxy,
};
use crate::mesh::local::LocalClient;
use crate::model::mesh::OwnMesh;
use crate::secrets::RootSecret;

/// A check does not wait longer for a proxy on this machine.
const CONNECT: Duration = Duration::from_secs(3);

/// How mesh addresses are dialled.
pub enum MeshAccess {
    /// Through a tailscaled that this process runs.
    Own(Box<OperatorTailscaled>),
    /// Through the proxy of one that somebody else runs.
    Proxy(SocketAddr, AccessStatus),
    /// By the machine's own network device.
    Direct,
}

impl MeshAccess {
    /// The one that the settings name. An own tailscaled is not started yet.
    pub async fn prepare(config: &Config) -> Result<Self, RunError> {
        if let Some(settings) = tailscaled_settings(config)? {
            return Ok(Self::Own(Box::new(OperatorTailscaled::prepare(settings).await?)));
        }
        let proxy = config.mesh.socks5.as_deref().map(parse_address).transpose()?;
        Ok(proxy.map_or(Self::Direct, |address| {
            Self::Proxy(address, AccessStatus::off("the SOCKS5 proxy of the operator's tailscaled was not looked at yet; it is in a moment"))
        }))
    }

    /// Where to dial through, if not directly.
    pub fn socks5(&self) -> Option<SocketAddr> {
        match self {
            Self::Own(tailscaled) => Some(tailscaled.socks5()),
            Self::Proxy(address, _) => Some(*address),
            Self::Direct => None,
        }
    }

    /// Who commands that tailscaled, where its socket is known.
    pub fn local(&self, config: &Config) -> Result<Option<LocalClient>, RunError> {
        match self {
            Self::Own(tailscaled) => Ok(Some(tailscaled.local().clone())),
            Self::Proxy(..) | Self::Direct => {
                let socket = config.mesh.socket.as_deref();
                Ok(socket.map(LocalClient::new).transpose().map_err(AccessError::from)?)
            }
        }
    }

    /// What is known of it as time goes on.
    pub fn status(&self) -> Option<watch::Receiver<OwnMesh>> {
        match self {
            Self::Own(tailscaled) => Some(tailscaled.status().subscribe()),
            Self::Proxy(_, status) => Some(status.subscribe()),
            Self::Direct => None,
        }
    }

    /// Keeps it open until `stop`.
    pub async fn run(self, control: Arc<dyn MeshControl>, stop: CancellationToken) {
        match self {
            Self::Own(tailscaled) => tailscaled.run(control, stop).await,
            Self::Proxy(address, status) => {
                stop.run_until_cancelled_owned(watch_proxy(address, status)).await;
            }
            Self::Direct => stop.cancelled().await,
        }
    }
}

/// What can be said of it without starting or changing anything.
pub async fn check(config: &Config) -> Result<Result<String, String>, RunError> {
    if let Some(settings) = tailscaled_settings(config)? {
        return Ok(access::check(&settings).await);
    }
    let Some(address) = config.mesh.socks5.as_deref().map(parse_address).transpose()? else {
        return Ok(Ok(
            "mesh addresses are dialled directly, by this machine's own tailscaled".to_owned()
        ));
    };
    let connected = timeout(CONNECT, TcpStream::connect(address))
        .await
        .map_err(|_| "no answer in time".to_owned());
    Ok(match connected.and_then(|connected| connected.map_err(|error| error.to_string())) {
        Ok(_) => Ok(format!("the SOCKS5 proxy {address} answers")),
        Err(why) => Err(format!(
            "the SOCKS5 proxy {address} does not answer ({why}); start its tailscaled, or correct `mesh.socks5`"
        )),
    })
}

fn tailscaled_settings(config: &Config) -> Result<Option<AccessSettings>, RunError> {
    let Some(own) = &config.mesh.tailscaled else { return Ok(None) };
    let installation = RootSecret::new(config.root_secret.clone())?.installation_id();
    Ok(Some(AccessSettings {
        state_dir: own.state_dir.clone(),
        program: own.program.clone(),
        login_server: config.mesh.login_server.clone(),
        tag: config.mesh.operator_tag.clone(),
        installation,
    }))
}

fn parse_address(text: &str) -> Result<SocketAddr, RunError> {
    text.parse().map_err(|_| {
        RunError::Setting(format!(
            "mesh.socks5: `{text}` is not an IP address with a port; write it like 127.0.0.1:1055"
        ))
    })
}
