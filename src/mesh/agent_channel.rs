//! The operator's gRPC connection to a node agent: mutual TLS over the mesh.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret as _, SecretString};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tower::service_fn;

use super::dial::{FIRST_DIAL, dial};

/// A fence is silent, a dead provider too: without an answer to a ping for this long the connection
/// counts as broken.
const PING_EVERY: Duration = Duration::from_secs(2);
const PING_TIME_OUT: Duration = Duration::from_secs(4);

/// What the operator shows to agents, and what it demands of them; all PEM.
#[derive(Clone)]
pub struct AgentTls {
    /// The installation's CA.
    pub ca: String,
    /// The operator's certificate.
    pub certificate: String,
    /// PKCS#8 PEM of the certificate's key.
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

/// A channel to the agent at `ip`, whose certificate must be for `server_name` (the incarnation).
/// It connects when it is first used and again after it broke; a connection must stand within 6 s.
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
    let connector = service_fn(move |_: http::Uri| async move {
        dial(socks5, ip, port, FIRST_DIAL).await.map(TokioIo::new)
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::RootCertStore;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::server::WebPkiClientVerifier;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tower::ServiceExt as _;

    use super::*;

    struct Authority {
        issuer: Issuer<'static, KeyPair>,
        pem: String,
        der: CertificateDer<'static>,
    }

    fn authority() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).unwrap();
        Authority { pem: cert.pem(), der: cert.der().clone(), issuer: Issuer::new(params, key) }
    }

    fn leaf(authority: &Authority, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        (
            CertificateParams::new(vec![name.to_owned()])
                .unwrap()
                .signed_by(&key, &authority.issuer)
                .unwrap(),
            key,
        )
    }

    fn operator(trusted: &Authority, signer: &Authority) -> AgentTls {
        let (cert, key) = leaf(signer, "operator");
        AgentTls {
            ca: trusted.pem.clone(),
            certificate: cert.pem(),
            key: key.serialize_pem().into(),
        }
    }

    /// An agent's port for one connection; gives back the name it was asked for and whether the
    /// caller was let in.
    async fn agent(authority: &Authority) -> (SocketAddr, tokio::task::JoinHandle<Option<String>>) {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(authority.der.clone()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .unwrap();
        let (cert, key) = leaf(authority, "cache-0-x7k2");
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![cert.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await.ok()?;
            stream.get_ref().1.server_name().map(str::to_owned)
        });
        (address, task)
    }

    /// Sends a request; the agent above never answers one, only the handshake counts.
    async fn call(address: SocketAddr, tls: &AgentTls, name: &str) {
        let channel = agent_channel(None, address.ip(), address.port(), tls, name).unwrap();
        assert!(channel.oneshot(http::Request::new(tonic::body::Body::empty())).await.is_err());
    }

    #[tokio::test]
    async fn both_sides_prove_who_they_are() {
        let ours = authority();
        let (address, agent) = agent(&ours).await;
        call(address, &operator(&ours, &ours), "cache-0-x7k2").await;
        assert_eq!(agent.await.unwrap().as_deref(), Some("cache-0-x7k2"));
    }

    #[tokio::test]
    async fn another_incarnation_or_another_operator_is_refused() {
        let (ours, theirs) = (authority(), authority());
        for (tls, name) in [
            (operator(&ours, &ours), "cache-1-y8m3"),
            (operator(&theirs, &ours), "cache-0-x7k2"),
            (operator(&ours, &theirs), "cache-0-x7k2"),
        ] {
            let (address, agent) = agent(&ours).await;
            call(address, &tls, name).await;
            assert_eq!(agent.await.unwrap(), None);
        }
    }

    #[test]
    fn useless_certificates_are_told_at_once() {
        let tls = AgentTls {
            ca: "no".to_owned(),
            certificate: "no".to_owned(),
            key: "no".to_owned().into(),
        };
        let error = agent_channel(None, IpAddr::from([127, 0, 0, 1]), 9700, &tls, "x").unwrap_err();
        assert!(error.to_string().contains("rootSecretFile"), "{error}");
    }
}
