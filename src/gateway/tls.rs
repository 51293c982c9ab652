//! Proof that a gateway is the leased provider: the public web's certificate for its host name, or
//! the very certificate that the chain lists for it.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Name};

/// Roots of the public web.
#[must_use]
pub fn public_roots() -> Arc<RootCertStore> {
    Arc::new(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })
}

/// TLS 1.3 towards one provider. `pinned` are the certificates (DER) that the chain lists as valid
/// for exactly this provider.
pub fn client_config(
    roots: &Arc<RootCertStore>,
    provider: &str,
    pinned: Vec<Vec<u8>>,
) -> Result<ClientConfig, String> {
    let crypto = Arc::new(ring::default_provider());
    let verifier = ProviderVerifier::new(roots, &crypto, provider, pinned)?;
    Ok(ClientConfig::builder_with_provider(crypto)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

/// Accepts one provider and nobody else.
///
/// Providers' own certificates lack what web verification asks for (no digitalSignature, critical
/// name constraints, no host name of use), so they are compared byte for byte with the chain's, and
/// nothing but dates, names and the key is read from them.
#[derive(Debug)]
struct ProviderVerifier {
    provider: String,
    pinned: Vec<CertificateDer<'static>>,
    /// `None` without roots: then only pinned certificates count.
    web: Option<Arc<WebPkiServerVerifier>>,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Untrusted(String);

fn untrusted(why: String) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Untrusted(why)))))
}

impl ProviderVerifier {
    fn new(
        roots: &Arc<RootCertStore>,
        crypto: &Arc<CryptoProvider>,
        provider: &str,
        pinned: Vec<Vec<u8>>,
    ) -> Result<Self, String> {
        let web = if roots.is_empty() {
            None
        } else {
            Some(
                WebPkiServerVerifier::builder_with_provider(roots.clone(), crypto.clone())
                    .build()
                    .map_err(|error| error.to_string())?,
            )
        };
        Ok(Self {
            provider: provider.to_owned(),
            pinned: pinned.into_iter().map(CertificateDer::from).collect(),
            web,
            algorithms: crypto.signature_verification_algorithms,
        })
    }

    /// The second way: not one certificate more than the chain's own.
    fn check_pinned(
        &self,
        certificate: &CertificateDer<'_>,
        others: usize,
        now: UnixTime,
    ) -> Result<(), String> {
        if others > 0 {
            return Err("it sent a chain that the public web does not trust".into());
        }
        if !self.pinned.iter().any(|known| known.as_ref() == certificate.as_ref()) {
            return Err("its certificate is neither trusted by the public web nor listed on the chain as valid for this provider".into());
        }
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|error| format!("its certificate cannot be read: {error}"))?;
        let names = [parsed.subject(), parsed.issuer()].map(common_name);
        if names != [Some(self.provider.as_str()), Some(self.provider.as_str())] {
            return Err("its certificate names another account".into());
        }
        let (from, until) =
            (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if !(from..=until).contains(&now) {
            return Err("its certificate is expired or not valid yet".into());
        }
        Ok(())
    }
}

fn common_name<'a>(name: &'a X509Name<'_>) -> Option<&'a str> {
    let mut names = name.iter_common_name();
    let first = names.next()?.as_str().ok()?;
    names.next().is_none().then_some(first)
}

impl ServerCertVerifier for ProviderVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(web) = &self.web
            && let Ok(verified) =
                web.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        {
            return Ok(verified);
        }
        self.check_pinned(end_entity, intermediates.len(), now).map_err(untrusted)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // Never offered: gateways speak TLS 1.3 only.
        Err(Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // The key is taken out by hand: only its proof counts here, whatever the extensions around
        // it say.
        let (_, parsed) = X509Certificate::from_der(cert)
            .map_err(|error| untrusted(format!("its certificate cannot be read: {error}")))?;
        let key = SubjectPublicKeyInfoDer::from(parsed.public_key().raw);
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
