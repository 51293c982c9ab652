//! A page on the operator's knowledge, for people: served by the operator itself on loopback, read
//! only, rendered here. It works without JavaScript, and is live with it.
//!
//! Nobody logs in: whoever reaches the address reads all of it. So it listens on loopback alone, and
//! answers to addresses only: a name that another site had lead here would borrow the reader's
//! browser.

mod cluster;
mod frame;
mod guard;
mod overview;
#[cfg(test)]
mod tests;
mod topology;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use maud::Markup;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api::top;
use crate::model::time::UnixMs;
use crate::server::StatusCache;
use crate::store::{Store, StoreError};
use cluster::ClusterView;
use overview::Overview;

const STYLE: &str = include_str!("style.css");
const LIVE: &str = include_str!("live.js");
const ICON: &str = include_str!("icon.svg");

/// Why the page is not served.
#[derive(Debug, thiserror::Error)]
#[error(
    "the page cannot be served on {address} ({source}); choose another address in api.listen, or leave it out"
)]
pub struct WebError {
    address: SocketAddr,
    source: std::io::Error,
}

/// What is shown.
#[derive(Clone)]
pub struct Shown {
    /// Objects and events.
    pub store: Arc<dyn Store>,
    /// What is measured and what is planned.
    pub status_cache: Arc<StatusCache>,
    /// The wall clock.
    pub now: fn() -> UnixMs,
}

/// Serves the page on `address` until `shutdown`.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve(
    address: SocketAddr,
    shown: Shown,
    shutdown: CancellationToken,
) -> Result<(), WebError> {
    let failed = |source| WebError { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    tracing::info!(%address, "the page is served");
    axum::serve(listener, router(shown))
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
        .map_err(failed)
}

/// Whether it can be listened on, in a sentence.
pub async fn check(address: SocketAddr) -> Result<String, String> {
    match TcpListener::bind(address).await {
        Ok(_) => Ok(format!("http://{address} can be listened on")),
        Err(e) if e.kind() == ErrorKind::AddrInUse => {
            Ok(format!("{address} is in use, as it is while an operator runs"))
        }
        Err(source) => Err(WebError { address, source }.to_string()),
    }
}

fn router(shown: Shown) -> Router {
    Router::new()
        .route("/", get(front))
        .route("/clusters/{name}", get(one))
        .route("/style.css", get(|| async { file("text/css; charset=utf-8", STYLE) }))
        .route("/live.js", get(|| async { file("text/javascript; charset=utf-8", LIVE) }))
        .route("/icon.svg", get(|| async { file("image/svg+xml", ICON) }))
        .fallback(|| async { missing("There is no such page.") })
        .with_state(shown)
        .layer(middleware::from_fn(guard::guard))
}

fn file(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn front(State(shown): State<Shown>) -> Result<Html<String>, Response> {
    let clusters = shown.store.list().await.map_err(unreadable)?;
    let mut clusters: Vec<_> = clusters.into_iter().map(|stored| stored.cluster).collect();
    for cluster in &mut clusters {
        shown.status_cache.refresh(cluster);
    }
    Ok(page(&overview::overview(&Overview {
        clusters,
        operator: shown.status_cache.operator(),
        wallet: shown.status_cache.wallet(),
        now: (shown.now)(),
    })))
}

async fn one(
    State(shown): State<Shown>,
    Path(name): Path<String>,
) -> Result<Html<String>, Response> {
    let mut cluster = match shown.store.get(&name).await {
        Ok(stored) => stored.cluster,
        Err(StoreError::NotFound { .. }) => return Err(missing("There is no such cluster.")),
        Err(error) => return Err(unreadable(error)),
    };
    shown.status_cache.refresh(&mut cluster);
    let loads = shown.status_cache.loads(&name);
    let status = cluster.status.clone().unwrap_or_default();
    Ok(page(&cluster::cluster(&ClusterView {
        nodes: top::nodes(&name, &status, |node| loads.get(&node.incarnation).cloned()),
        plan: shown.status_cache.plan(&name).unwrap_or_default(),
        events: shown.store.events(&name).await.map_err(unreadable)?,
        now: (shown.now)(),
        status,
        cluster,
    })))
}

fn page(markup: &Markup) -> Html<String> {
    Html(markup.0.clone())
}

fn missing(sentence: &str) -> Response {
    (StatusCode::NOT_FOUND, page(&frame::sentence("Not found", sentence))).into_response()
}

#[allow(clippy::needless_pass_by_value, reason = "what `map_err` hands over")]
fn unreadable(error: StoreError) -> Response {
    let sentence = format!("The operator's store cannot be read: {error}.");
    let page = page(&frame::sentence("The store cannot be read", &sentence));
    (StatusCode::INTERNAL_SERVER_ERROR, page).into_response()
}
