//! The operator's gRPC connection to a node agent: mutual TLS over the mesh.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret as _, SecretString};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tower::service_fn;

use super::dial::{FIRST_DIAL, dial};

/// Where agents listen.
pub const AGENT_PORT: u16 = 9700;

/// A fence is silent, a dead provider too: without an answer to a ping for this long the connection counts as broken.
const PING_EVERY: Duration = Duration::from_secs(2);
const PING_TIME_OUT: Duration = Duration::from_secs(4);

/// What the operator shows to agents, and what it demands of them; all PEM.
#[derive(Clone)]
pub struct AgentTls {
    /// The installation's CA.
    pub ca: String,
    /// The operator's certificate.
    pub certificate: String,
    /// Its key.
    pub key: SecretString,
}

impl fmt::Debug for AgentTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentTls").finish_non_exhaustive()
    }
}

/// The certificates are of no use.
#[derive(Debug, thiserror::Error)]
#[error(
    "the operator's certificates for node agents cannot be used, so no node can be commanded; they are derived from the root secret, see `rootSecretFile`"
)]
pub struct ChannelError(#[from] tonic::transport::Error);

/// A channel to the agent at `ip`, whose certificate must be for `server_name` (the incarnation). It connects when it is first used and
/// again after it broke; a connection must stand within 6 s.
pub fn agent_channel(
    socks5: Option<SocketAddr>,
    ip: IpAddr,
    port: u16,
    tls: &AgentTls,
    server_name: &str,
) -> Result<Channel, ChannelError> {
    let config = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&tls.ca))
        .identity(Identity::from_pem(&tls.certificate, tls.key.expose_secret()))
        .domain_name(server_name);
    let endpoint = Endpoint::from_static("https://agent.invalid")
        .tls_config(config)?
        .connect_timeout(FIRST_DIAL)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIME_OUT)
        .keep_alive_while_idle(true);
    // The URI above is never resolved: the connector knows where to go.
    let connector = service_fn(move |_: http::Uri| async move { dial(socks5, ip, port, FIRST_DIAL).await.map(TokioIo::new) });
    Ok(endpoint.connect_with_connector_lazy(connector))
}
