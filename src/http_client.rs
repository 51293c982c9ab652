//! HTTP clients: for the web and for unix sockets, with answers of bounded size.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::error_chain::causes;

/// A client for the web that trusts the public web's roots and follows no redirects (they would
/// carry our token elsewhere).
pub fn web(time_out: Duration) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls(RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        }))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(time_out / 2)
        .timeout(time_out)
        .build()
}

/// The same, and it trusts the authorities of `ca` (PEM, may be empty) as well.
///
/// # Errors
/// One sentence: `ca` holds no certificate, or no client can be made.
pub fn web_and(ca: &str, time_out: Duration) -> Result<reqwest::Client, String> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls(web_roots_and(ca)?))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(time_out / 2)
        .timeout(time_out)
        .build()
        .map_err(|error| innermost(&error))
}

/// The public web's roots, and those of `ca`.
fn web_roots_and(ca: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if !ca.is_empty() {
        let own: Vec<_> =
            CertificateDer::pem_slice_iter(ca.as_bytes()).collect::<Result<_, _>>().map_err(
                |error| format!("the authority's certificate cannot be read as PEM ({error})"),
            )?;
        if roots.add_parsable_certificates(own).0 == 0 {
            return Err("the authority's PEM holds no certificate".to_owned());
        }
    }
    Ok(roots)
}

/// How a server is checked by TLS: the public web's roots and those of `ca` (PEM, may be empty) are
/// trusted.
///
/// # Errors
/// One sentence: `ca` holds no certificate.
pub fn tls_and(ca: &str) -> Result<ClientConfig, String> {
    Ok(tls(web_roots_and(ca)?))
}

/// A client for object storage: it trusts the public web's roots and those of `ca` (PEM, may be
/// empty), and a call lasts as long as bytes move. `silence` is the longest that none does.
///
/// # Errors
/// One sentence: `ca` holds no certificate, or no client can be made.
pub fn storage(ca: &str, silence: Duration) -> Result<reqwest::Client, String> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls(web_roots_and(ca)?))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(silence / 4)
        .read_timeout(silence)
        .build()
        .map_err(|error| format!("no HTTP client can be made ({error})"))
}

/// A client whose every request goes to the unix socket at `path`, whatever host its URL names.
/// `time_out` counts for a whole call; without one each call brings its own.
pub fn unix_socket(
    path: &Path,
    time_out: Option<Duration>,
) -> Result<reqwest::Client, reqwest::Error> {
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls(RootCertStore::empty()))
        .redirect(reqwest::redirect::Policy::none())
        .unix_socket(path);
    match time_out {
        Some(time_out) => client.timeout(time_out).build(),
        None => client.build(),
    }
}

fn tls(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks both versions of TLS")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// A body that was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection broke, or took too long.
    #[error("{}", innermost(.0))]
    Transport(#[from] reqwest::Error),
    /// It is larger than any honest answer.
    #[error("an answer of more than {limit} bytes")]
    TooLarge {
        /// How large it may be.
        limit: usize,
    },
}

/// A body of at most `limit` bytes; a larger one is not read to its end.
pub async fn bounded(response: &mut reqwest::Response, limit: usize) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Err(BodyError::TooLarge { limit });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The cause at the bottom, which is the one that tells people something.
#[must_use]
pub fn innermost(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    causes(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}
