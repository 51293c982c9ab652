//! The second way to see a node: its status page, fetched through the provider's ingress.

use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;

use super::address::{PublicResolver, status_page_url};
use super::client::{self, Failure, MAX_BODY};
use super::tls;
use crate::http_client::bounded;

/// A page that takes longer is of no use to a failover.
const TIME_OUT: Duration = Duration::from_secs(5);

/// The status page could not be had.
#[derive(Debug, thiserror::Error)]
#[error("the status page at {host} does not answer ({detail}); it is no evidence about the node")]
pub struct StatusPageError {
    /// Host name that the provider gave.
    pub host: String,
    /// What went wrong.
    pub detail: String,
}

/// What a status page answered: unproven until its signature is checked with the node's key.
#[derive(Clone, Debug)]
pub struct StatusPage {
    /// Its headers.
    pub headers: http::HeaderMap,
    /// Its body, at most 64 KiB.
    pub body: Vec<u8>,
}

/// Fetches the status page of a node over plain HTTP, within five seconds. `host` is one of the
/// lease's `uris`, untrusted.
pub async fn fetch_status_page(
    host: &str,
    nonce: &str,
    allow_private: bool,
) -> Result<StatusPage, StatusPageError> {
    fetch(host, nonce, allow_private)
        .await
        .map_err(|detail| StatusPageError { host: client::shorten(host), detail })
}

async fn fetch(host: &str, nonce: &str, allow_private: bool) -> Result<StatusPage, String> {
    let url = status_page_url(host, nonce, allow_private)?;
    let nobody = tls::client_config(&Arc::new(RootCertStore::empty()), "", Vec::new())?;
    let http = client::http(nobody, PublicResolver { allow_private }, TIME_OUT)?;
    let mut response = http.get(url).send().await.map_err(|error| Failure::from(error).detail())?;
    if response.status() != http::StatusCode::OK {
        return Err(format!("it answers {}", response.status()));
    }
    let headers = response.headers().clone();
    let body =
        bounded(&mut response, MAX_BODY).await.map_err(|error| Failure::from(error).detail())?;
    Ok(StatusPage { headers, body })
}
