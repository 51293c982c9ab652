//! A control API behind a certificate of a private authority (`mesh.caFile`).

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::copy_bidirectional;
use tokio_rustls::TlsAcceptor;

use super::*;

/// An authority, as PEM, and a server's TLS with a certificate of it for `localhost`.
fn authority() -> (String, TlsAcceptor) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    (ca.pem(), TlsAcceptor::from(Arc::new(config)))
}

/// The API as it is behind TLS.
async fn behind(tls: TlsAcceptor, api: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                // Who does not trust it goes.
                let Ok(mut outside) = tls.accept(stream).await else { return };
                let mut inside = TcpStream::connect(api).await.unwrap();
                let _ = copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_private_authority_is_trusted_where_it_is_named_and_no_other_one() {
    let (server, _) = api().await;
    on(&server, "GET", KEYS, ResponseTemplate::new(200).set_body_json(json!({"keys": []}))).await;
    let none = ResponseTemplate::new(200).set_body_json(json!({"devices": []}));
    on(&server, "GET", DEVICES, none).await;
    let (ca, tls) = authority();
    let address = behind(tls, *server.address()).await;
    let with = |ca: &str| {
        let settings = MeshSettings {
            ca: ca.to_owned(),
            api: format!("https://localhost:{}", address.port()),
            tailnet: "-".to_owned(),
            oauth_client_id: "some-client-id".to_owned(),
            oauth_secret: SECRET.to_owned().into(),
        };
        ControlClient::new(settings).unwrap()
    };
    let read = with(&ca).read(&ours(), &nobody()).await.unwrap();
    assert!(read.devices.is_empty() && read.keys.is_empty());
    let another = authority().0;
    for (what, ca) in [("the public web's alone", ""), ("another one", another.as_str())] {
        let error = with(ca).policy().await.unwrap_err();
        let MeshError::Away { detail, .. } = &error else { panic!("{what}: {error}") };
        assert!(detail.contains("certificate"), "{what}: {error}");
    }
    let asked = server.received_requests().await.unwrap();
    let tokens = asked.iter().filter(|request| request.url.path().ends_with("oauth/token"));
    assert_eq!(tokens.count(), 1, "whoever does not trust it sends it no secret");
}
