//! The metrics on TCP, and nothing else: what a Prometheus on the same machine or in the same
//! network scrapes. The API stays on its socket.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::routes;

/// Why the metrics are not served.
#[derive(Debug, thiserror::Error)]
#[error(
    "the metrics cannot be served on {address} ({source}); choose another address in api.metrics, or leave it out: they are on the socket too"
)]
pub struct MetricsError {
    address: SocketAddr,
    source: std::io::Error,
}

/// Serves `/metrics` and `/healthz` on `address` until `shutdown`.
pub async fn serve(
    address: SocketAddr,
    registry: Arc<Registry>,
    shutdown: CancellationToken,
) -> Result<(), MetricsError> {
    let failed = |source| MetricsError { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(move || async move { routes::encode(&registry) }));
    tracing::info!(%address, "metrics are served");
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
        .map_err(failed)
}

/// Whether it can be listened on, in a sentence.
pub async fn check(address: SocketAddr) -> Result<String, String> {
    match TcpListener::bind(address).await {
        Ok(_) => Ok(format!("{address} can be listened on")),
        Err(e) if e.kind() == ErrorKind::AddrInUse => {
            Ok(format!("{address} is in use, as it is while an operator runs"))
        }
        Err(source) => Err(MetricsError { address, source }.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn metrics_are_there_and_the_api_is_not() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let mut registry = Registry::default();
        let ticks = prometheus_client::metrics::counter::Counter::<u64>::default();
        registry.register("ticks", "Ticks", ticks);
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(free, Arc::new(registry), shutdown.clone()));
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let get = |path: &str| http.get(format!("http://{free}{path}")).send();
        let answered = async {
            loop {
                if let Ok(answer) = get("/metrics").await {
                    return answer.text().await.unwrap();
                }
                tokio::task::yield_now().await;
            }
        };
        let text = tokio::time::timeout(Duration::from_secs(20), answered).await.unwrap();
        assert!(text.contains("ticks_total 0"), "{text}");
        for path in ["/v1alpha1/clusters", "/v1alpha1/operator", "/"] {
            assert_eq!(get(path).await.unwrap().status(), 404, "{path}");
        }
        assert!(check(free).await.unwrap().contains("in use"));
        let taken = serve(free, Arc::default(), CancellationToken::new()).await.unwrap_err();
        assert!(taken.to_string().contains("api.metrics"), "{taken}");
        shutdown.cancel();
        serving.await.unwrap().unwrap();
    }
}
