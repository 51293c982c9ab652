//! The ingress of a provider: plain HTTP, forwarded by host name to the node behind it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::devnet::http::plain;

/// Nodes serve a status page and nothing larger.
const MAX_BODY: usize = 1024 * 1024;

/// Which host name leads to which node.
#[derive(Debug, Default)]
pub struct Ingress {
    routes: RwLock<BTreeMap<String, SocketAddr>>,
}

impl Ingress {
    /// Forwards a host name to a node.
    pub fn publish(&self, host: &str, to: SocketAddr) {
        self.routes
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(host.to_ascii_lowercase(), to);
    }

    /// Forgets a host name.
    pub fn withdraw(&self, host: &str) {
        self.routes
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&host.to_ascii_lowercase());
    }

    fn find(&self, host: &str) -> Option<SocketAddr> {
        let name = host.split(':').next().unwrap_or_default().to_ascii_lowercase();
        self.routes.read().unwrap_or_else(PoisonError::into_inner).get(&name).copied()
    }

    /// Serves it until `shutdown`.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> std::io::Result<()> {
        let http = client().map_err(std::io::Error::other)?;
        let router = Router::new().fallback(forward).with_state((self, http));
        axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
    }
}

fn client() -> Result<reqwest::Client, reqwest::Error> {
    plain(Duration::from_secs(30))
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(3))
        .pool_max_idle_per_host(0)
        .build()
}

async fn forward(
    State((ingress, http)): State<(Arc<Ingress>, reqwest::Client)>,
    request: Request,
) -> Response {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let Some(to) = ingress.find(&host) else {
        return (StatusCode::NOT_FOUND, "default backend - 404").into_response();
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let call = http
        .request(request.method().clone(), format!("http://{to}{path}"))
        .header(header::HOST, host);
    match call.send().await {
        Ok(response) => relay(response).await,
        Err(error) if error.is_timeout() && !error.is_connect() => {
            StatusCode::GATEWAY_TIMEOUT.into_response()
        }
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

async fn relay(mut response: reqwest::Response) -> Response {
    let (status, mut headers) = (response.status(), response.headers().clone());
    for hop in [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH] {
        headers.remove(hop);
    }
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(None) => return (status, headers, Bytes::from(body)).into_response(),
            Ok(Some(chunk)) if body.len() + chunk.len() <= MAX_BODY => {
                body.extend_from_slice(&chunk);
            }
            Ok(Some(_)) | Err(_) => return StatusCode::BAD_GATEWAY.into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_go_to_the_node_behind_their_host_name() {
        let bind = async || TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (front, node, gone) = (bind().await, bind().await, bind().await);
        let page = Router::new().fallback(|request: Request| async move {
            format!("{:?} {}", request.headers()[header::HOST], request.uri())
        });
        let ingress = Arc::new(Ingress::default());
        ingress.publish("a.p.test", node.local_addr().unwrap());
        ingress.publish("b.p.test", gone.local_addr().unwrap());
        drop(gone);
        tokio::spawn(async move { axum::serve(node, page).await });
        let at = front.local_addr().unwrap();
        tokio::spawn(ingress.clone().serve(front, CancellationToken::new()));
        let http = client().unwrap();
        let get = async |host: &str| {
            let answer = http
                .get(format!("http://{at}/x?nonce=1"))
                .header(header::HOST, host)
                .send()
                .await
                .unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        assert_eq!(get("A.p.test:80").await, (200, "\"A.p.test:80\" /x?nonce=1".to_owned()));
        assert_eq!(get("b.p.test").await.0, 502);
        assert_eq!(get("c.p.test").await.0, 404);
        ingress.withdraw("a.p.test");
        assert_eq!(get("a.p.test").await.0, 404);
    }
}
